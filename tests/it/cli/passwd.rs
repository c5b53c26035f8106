//! `hbmqtt_passwd`.

use super::*;

fn verify(file: &str, user: &str, password: &str) -> i32 {
    run(PASSWD, &["--verify", "-b", file, user, password]).status
}

#[test]
fn users_are_added_changed_and_deleted() {
    let directory = TempDir::new();
    let file = directory.path().join("passwords");
    let file = file.to_str().unwrap();
    run(PASSWD, &["-b", file, "ann", "secret"]).expect(1);
    run(PASSWD, &["-c", "-b", file, "ann", "secret"]).expect(0);
    run(PASSWD, &["-b", file, "bob", "-dash"]).expect(2);
    run(PASSWD, &["-b", "--", file, "bob", "-dash"]).expect(0);
    assert_eq!(
        (verify(file, "ann", "secret"), verify(file, "ann", "Secret")),
        (0, 1)
    );
    run(PASSWD, &["-b", file, "ann", "other"]).expect(0);
    assert_eq!(
        (verify(file, "ann", "secret"), verify(file, "ann", "other")),
        (1, 0)
    );
    run(PASSWD, &["-D", file, "ann"]).expect(0);
    run(PASSWD, &["-D", file, "ann"]).expect(1);
    assert_eq!(
        (verify(file, "ann", "other"), verify(file, "nobody", "x")),
        (1, 1)
    );
    let text = std::fs::read_to_string(file).unwrap();
    assert!(
        text.starts_with("bob:$6$") && text.lines().count() == 1,
        "{text}"
    );
    run(PASSWD, &["-c", "-b", file, "eve", "x"]).expect(0);
    assert!(
        std::fs::read_to_string(file)
            .unwrap()
            .starts_with("eve:$6$")
    );
}

#[test]
fn passwords_come_from_standard_input() {
    let directory = TempDir::new();
    let file = directory.file("passwords", "# users\n");
    run_with_input(PASSWD, &["--stdin", &file, "ann"], b"secret\r\nrest\n").expect(0);
    assert_eq!(verify(&file, "ann", "secret"), 0);
    run_with_input(PASSWD, &["--stdin", &file, "ann"], b"\n").expect(2);
    run_with_input(PASSWD, &["--stdin", &file, "ann"], &[b'x'; 300]).expect(2);
    assert!(
        std::fs::read_to_string(&file)
            .unwrap()
            .starts_with("# users\nann:")
    );
}

#[test]
fn a_file_of_plain_passwords_is_hashed() {
    let directory = TempDir::new();
    let file = directory.file("passwords", "# plain\nann:secret\n");
    run(PASSWD, &["-U", &file]).expect(0);
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(!text.contains("secret"), "{text}");
    assert_eq!(verify(&file, "ann", "secret"), 0);
}

/// DEC-3, BC-12: the hash of the documentation, ours and mosquitto's kind are all the broker's.
#[test]
fn the_broker_takes_what_the_program_wrote() {
    let directory = TempDir::new();
    let documented = "test:$6$l4zQEHEcowc1Pnv4$HHrh8xnsZoLItQ8BmpFHM4r6q5UqK3DnXp2GaTm5zp5buQ7NheY3Xt9f6godVKbEtA.hOC7IEDwnok3pbAOip.\n";
    let file = directory.file("passwords", documented);
    assert_eq!(verify(&file, "test", "test"), 0);
    run(PASSWD, &["-b", &file, "ann", "one"]).expect(0);
    run(
        PASSWD,
        &[
            "-b",
            "-H",
            "sha512-pbkdf2",
            "-I",
            "1000",
            &file,
            "bob",
            "two",
        ],
    )
    .expect(0);
    run(PASSWD, &["-b", "-I", "20000", &file, "eve", "three"]).expect(0);
    let broker = Broker::with(&format!(
        "auth: {{allow-anonymous: off, password-file: {file}}}\n"
    ));
    for (user, password, status) in [
        ("test", "test", 0),
        ("ann", "one", 0),
        ("bob", "two", 0),
        ("eve", "three", 0),
        ("ann", "two", 134),
    ] {
        let url = format!("mqtt://{user}:{password}@{}", broker.address());
        run(PUB, &["--url", &url, "-t", "t", "-m", "x"]).expect(status);
    }
}

#[test]
fn a_wrong_command_line_changes_nothing() {
    let directory = TempDir::new();
    let file = directory.file("passwords", "ann:$6$a$b\n");
    let file = &*file;
    for arguments in [
        &[][..],
        &[file],
        &["-b", file, "bob"],
        &[file, "bob", "pw"],
        &["-b", file, "a:b", "pw"],
        &["-b", file, "", "pw"],
        &["-c", "-D", file, "ann"],
        &["-U", file, "ann"],
        &["-D", file, "ann", "pw"],
        &["-b", "--stdin", file, "bob", "pw"],
        &["-b", "-H", "md5", file, "bob", "pw"],
        &["-b", "-I", "1", file, "bob", "pw"],
        &["-b", file, "bob", "pw", "more"],
    ] {
        run(PASSWD, arguments).expect(2);
    }
    assert_eq!(std::fs::read_to_string(file).unwrap(), "ann:$6$a$b\n");
}
