//! Whom the broker runs as.

use crate::support::*;

fn is_root() -> bool {
    ids_of("self", "Uid:").first() == Some(&0)
}

/// The real, effective, saved and file system id in the `status` of a process or thread.
fn ids_of(process: &str, what: &str) -> Vec<u32> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(what));
    let numbers = line.unwrap().split_whitespace();
    numbers.map(|number| number.parse().unwrap()).collect()
}

/// `user`: after the start all threads are that user and nobody else, and cannot become root again.
#[test]
fn a_broker_started_as_root_becomes_the_user_of_its_settings() {
    if !is_root() {
        return left_out("user", "the tests do not run as root");
    }
    let broker = Broker::with("user: nobody\n");
    let mut client = Client::connect(&broker, V5);
    let threads = std::fs::read_dir(format!("/proc/{}/task", broker.pid())).unwrap();
    let nobody = ids_of(&broker.pid().to_string(), "Uid:")[0];
    assert_ne!(nobody, 0);
    for thread in threads {
        let name = thread.unwrap().file_name().into_string().unwrap();
        let thread = format!("{}/task/{name}", broker.pid());
        assert_eq!(ids_of(&thread, "Uid:"), [nobody; 4]);
        assert!(!ids_of(&thread, "Gid:").contains(&0));
        assert!(!ids_of(&thread, "Groups:").contains(&0));
        assert_eq!(ids_of(&thread, "NoNewPrivs:"), [1]);
    }
    client.expect_alive();
    assert!(!broker.log_text().contains("running as root"));
    assert!(broker.terminate().success());
}

/// What it keeps is the user's: the store is opened after the change, so that later starts find it readable.
#[test]
fn the_store_belongs_to_the_user() {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
    if !is_root() {
        return left_out("user and persistence", "the tests do not run as root");
    }
    let directory = TempDir::new();
    let store = directory.path().join("kept");
    let world = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(directory.path(), world).unwrap();
    std::fs::create_dir(&store).unwrap();
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap();
    let nobody = passwd.lines().find(|line| line.starts_with("nobody:"));
    let nobody = nobody.unwrap().split(':').nth(2).unwrap().parse().unwrap();
    chown(&store, Some(nobody), None).unwrap();
    let settings = format!(
        "user: nobody\npersistence: {{path: '{}'}}\n",
        store.display()
    );
    let kept = Connect::new(V5, "kept").persistent();
    for expected in [false, true] {
        let broker = Broker::with(&settings);
        let (client, present) = Client::connect_resuming(&broker, &kept);
        assert_eq!(present, expected);
        client.disconnect();
        assert!(broker.terminate().success());
    }
    let file = std::fs::read_dir(&store).unwrap().next().unwrap().unwrap();
    assert_eq!(file.metadata().unwrap().uid(), nobody);
}

/// Root without need is a warning.
#[test]
fn a_broker_that_stays_root_says_so() {
    if !is_root() {
        return left_out("a warning for root", "the tests do not run as root");
    }
    Broker::start().wait_for_log("running as root");
}

/// A user that does not exist stops the start, with the key's name.
#[test]
fn an_unknown_user_stops_the_start() {
    let directory = TempDir::new();
    let path = directory.file("broker.yaml", "user: nobody-of-this-name\n");
    let mut broker = Broker::spawn(&["-c", &path], directory);
    assert!(!broker.wait().success());
    let line = broker.wait_for_log("nobody-of-this-name");
    assert!(line.contains("user"), "{line}");
}
