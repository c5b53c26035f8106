//! Where the client programs take their settings from, and whose letters they read.

use std::os::unix::process::CommandExt as _;
use std::process::Command;

use super::server::{Server, read_connect};
use super::*;

fn tool(program: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Tool {
    let mut command = Command::new(program);
    command.args(arguments).envs(environment.iter().copied());
    Tool::spawn(command)
}

/// CONNECT of a program that is given these arguments and this environment.
fn connect_of(server: &Server, arguments: &[&str], environment: &[(&str, &str)]) -> Vec<u8> {
    let _tool = tool(
        PUB,
        &[&["-t", "t", "-l"][..], arguments].concat(),
        environment,
    );
    server.accept_mqtt().1
}

/// CONNECT's user name and password, if it has them.
fn credentials(connect: &[u8]) -> Option<(String, String)> {
    let mut rest = &connect[12..];
    let mut next = || {
        let (length, tail) = rest.split_at_checked(2)?;
        let length = usize::from(u16::from_be_bytes([length[0], length[1]]));
        let (text, tail) = tail.split_at(length);
        rest = tail;
        Some(String::from_utf8(text.to_vec()).unwrap())
    };
    next()?;
    Some((next()?, next()?))
}

/// Command line before environment before the named file before the user's own file.
#[test]
fn settings_come_from_the_nearest_place() {
    let (mine, other) = (Server::new(), Server::new());
    let directory = TempDir::new();
    std::fs::create_dir(directory.path().join("hbmqtt")).unwrap();
    directory.file(
        "hbmqtt/pub.yaml",
        format!("broker:\n  uri: {}\nkeep_alive: 21\n", mine.url()),
    );
    let home = ("XDG_CONFIG_HOME", directory.path().to_str().unwrap());
    let named = directory.file(
        "named.yaml",
        format!("broker: {{uri: '{}'}}\nkeep_alive: 22\n", mine.url()),
    );

    let keep_alive = |connect: &[u8]| read_connect(connect).1;
    assert_eq!(keep_alive(&connect_of(&mine, &[], &[home])), 21);
    assert_eq!(keep_alive(&connect_of(&mine, &["-c", &named], &[home])), 22);
    let config = ("HBMQTT_CONFIG", named.as_str());
    assert_eq!(keep_alive(&connect_of(&mine, &[], &[home, config])), 22);
    let (mine_url, other_url) = (mine.url(), other.url());
    let environment = ("HBMQTT_URL", other_url.as_str());
    assert_eq!(
        keep_alive(&connect_of(&other, &[], &[home, environment])),
        21
    );
    let arguments = ["--url", &mine_url, "-k", "23"];
    assert_eq!(
        keep_alive(&connect_of(&mine, &arguments, &[home, config, environment])),
        23
    );
}

/// Arguments, environment, user name and password.
type Case<'a> = (
    &'a [&'a str],
    &'a [(&'a str, &'a str)],
    Option<(&'a str, &'a str)>,
);

/// URL-6: nearest place first, a user name and a password each by itself.
#[test]
fn credentials_come_from_arguments_url_files_or_environment() {
    let server = Server::new();
    let directory = TempDir::new();
    let (url, file) = (
        server.url(),
        directory.file("password", "from file\nrest\n"),
    );
    let with_user = url.replace("mqtt://", "mqtt://ann:p%40w@");
    let environment = [("HBMQTT_USERNAME", "eve"), ("HBMQTT_PASSWORD", "env")];
    let cases: [Case<'_>; 7] = [
        (&["--url", &url], &[], None),
        (&["--url", &url], &environment, Some(("eve", "env"))),
        (&["--url", &with_user], &environment, Some(("ann", "p@w"))),
        (
            &["--url", &url, "-u", "bob", "-P", "arg"],
            &environment,
            Some(("bob", "arg")),
        ),
        (
            &["--url", &with_user, "-u", "bob"],
            &[],
            Some(("bob", "p@w")),
        ),
        (
            &["--url", &url, "-u", "bob", "--password-file", &file],
            &[],
            Some(("bob", "from file")),
        ),
        (&["--url", &url, "-P", "alone"], &[], None),
    ];
    for (arguments, environment, expected) in cases {
        let found = credentials(&connect_of(&server, arguments, environment));
        let expected = expected.map(|(user, password)| (user.to_owned(), password.to_owned()));
        assert_eq!(found, expected, "{arguments:?}");
    }
}

/// PUB-11, CC-15: an unknown key is an error with its line and the nearest known key.
#[test]
fn a_wrong_settings_file_is_explained() {
    let server = Server::new();
    let (url, directory) = (server.url(), TempDir::new());
    for (text, expected) in [
        ("keep_alive: 10\nkeepalife: 3\n", ":2:"),
        ("keep_alive: [1\n", ":"),
        ("ping_delay: 10\n", "ping_delay"),
    ] {
        let path = directory.file("client.yaml", text);
        let done = run(PUB, &["--url", &url, "-t", "t", "-m", "x", "-c", &path]).expect(1);
        assert!(done.errors.contains("client.yaml"), "{}", done.errors);
        assert!(done.errors.contains(expected), "{}", done.errors);
    }
    server.expect_nobody();
}

/// What the broker has not acknowledged goes out again with the next run, before what that one has to say.
#[test]
fn a_store_outlives_the_run_and_may_be_named_by_option_or_file() {
    let (server, directory) = (Server::new(), TempDir::new());
    let (url, store) = (server.url(), directory.path().join("pub.store"));
    let store = store.to_str().unwrap();
    let settings = directory.file("pub.yaml", format!("store: {store}\nauto_reconnect: no\n"));
    let common = ["--url", &url, "-i", "meter", "-t", "t", "-q", "1"];
    let first = tool(
        PUB,
        &[&common[..], &["-m", "one", "--store", store]].concat(),
        &[],
    );
    let (mut peer, _) = server.accept_mqtt();
    assert_eq!(peer.packet(), unhex("32 08 00 01 74 00 01 6f 6e 65"));
    drop(peer);
    first.wait().expect(1);
    let second = tool(
        PUB,
        &[&common[..], &["-m", "two", "-c", &settings]].concat(),
        &[],
    );
    let (mut peer, _) = server.accept_connect();
    peer.send("20 02 01 00");
    assert_eq!(peer.packet(), unhex("3a 08 00 01 74 00 01 6f 6e 65"));
    assert_eq!(peer.packet(), unhex("32 08 00 01 74 00 02 74 77 6f"));
    peer.send("40 02 00 01 40 02 00 02");
    second.wait().expect(0);
    let nameless = run(
        PUB,
        &["--url", &url, "-t", "t", "-m", "x", "--store", store],
    )
    .expect(2);
    assert!(
        nameless.errors.contains("--client-id"),
        "{}",
        nameless.errors
    );
}

#[test]
fn options_may_stand_in_a_file() {
    let (server, other) = (Server::new(), Server::new());
    let (url, other_url, directory) = (server.url(), other.url(), TempDir::new());
    let text = format!("# where\n--url {url}\n-k 31\n-t from/file\n-m with spaces\n");
    let file = directory.file("options", text);
    let started = Tool::start(PUB, &["-o", &file, "-k", "32"]);
    let (mut peer, connect) = server.accept_mqtt();
    assert_eq!(read_connect(&connect).1, 32);
    let publish = peer.packet();
    assert!(publish.ends_with(b"from/filewith spaces"), "{publish:?}");
    drop(peer);
    started.wait();
    // The environment goes before the file, the command line before both.
    let environment = [("HBMQTT_URL", &*other_url)];
    let _second = tool(PUB, &["-o", &file], &environment);
    assert_eq!(read_connect(&other.accept_mqtt().1).1, 31);
    let _third = tool(PUB, &["-o", &file, "--url", &url], &environment);
    server.accept_mqtt();
}

/// Called by mosquitto's name the programs read mosquitto's letters.
#[test]
fn under_mosquittos_name_the_letters_are_mosquittos() {
    let broker = Broker::start();
    let directory = TempDir::new();
    let file = directory.file("payload", "whole\nfile\n");
    let port = broker.port().to_string();
    let mut observer = observer(&broker, "t");
    let mut command = Command::new(PUB);
    command.arg0("/usr/bin/mosquitto_pub");
    command.args([
        "-h",
        "127.0.0.1",
        "-p",
        &port,
        "-t",
        "t",
        "-q",
        "1",
        "-f",
        &file,
    ]);
    let done = Tool::spawn(command).wait().expect(0);
    assert_eq!(done.errors, "");
    assert_eq!(receive(&mut observer).text(), "whole\nfile\n");

    // -c keeps the session: what comes while nobody is there is delivered later.
    let subscribe = |arguments: &[&str]| {
        let mut command = Command::new(SUB);
        command.arg0("mosquitto_sub");
        command.args([
            "-h",
            "127.0.0.1",
            "-p",
            &port,
            "-t",
            "t",
            "-q",
            "1",
            "-i",
            "keeper",
        ]);
        command.args(arguments);
        Tool::spawn(command).wait().expect(0)
    };
    subscribe(&["-c", "-E"]);
    publish(&broker, &["-t", "t", "-q", "1", "-m", "kept"]);
    assert_eq!(subscribe(&["-c", "-C", "1"]).text(), "kept\n");
}

/// mosquitto's own defaults file counts under mosquitto's name.
#[test]
fn under_mosquittos_name_its_defaults_file_is_read() {
    let server = Server::new();
    let directory = TempDir::new();
    let port = server.address().rsplit_once(':').unwrap().1.to_owned();
    directory.file("mosquitto_pub", format!("-h 127.0.0.1\n-p {port}\n-k 44\n"));
    let mut command = Command::new(PUB);
    command.arg0("mosquitto_pub").args(["-t", "t", "-l"]);
    command.env("XDG_CONFIG_HOME", directory.path());
    let _tool = Tool::spawn(command);
    assert_eq!(read_connect(&server.accept_mqtt().1).1, 44);
}

#[test]
fn host_and_port_may_replace_the_url() {
    let server = Server::new();
    let port = server.address().rsplit_once(':').unwrap().1.to_owned();
    connect_of(&server, &["--host", "127.0.0.1", "-p", &port], &[]);
    for arguments in [
        &["--host", "h", "--url", "mqtt://h"][..],
        &["--port", "1", "--url", "mqtt://h"],
        &["--ws", "--url", "mqtt://h"],
        &["--host", "a/b"],
    ] {
        run(PUB, &[&["-t", "t", "-m", "x"][..], arguments].concat()).expect(2);
    }
}
