//! `hbmqtt`: what it does beside running; its life cycle is tested in `broker/lifecycle`.

use super::*;

const CONFIG: &str = "listeners:\n  default:\n    bind: 127.0.0.1:0\n";

/// A broker of our own, with all its arguments, that has started.
fn started(arguments: &[&str]) -> Tool {
    Tool::start(BROKER, arguments)
}

/// BRK-4: the default configuration can be printed, and is itself a valid file.
#[test]
fn the_configuration_in_force_can_be_printed() {
    let directory = TempDir::new();
    let default = run(BROKER, &["--print-default-config"]).expect(0);
    assert!(
        default.text().contains("bind: \"0.0.0.0:1883\"\n"),
        "{}",
        default.text()
    );
    let file = directory.file("default.yaml", &default.output);
    let printed = run(BROKER, &["-c", &file, "--print-config"]).expect(0);
    assert_eq!(printed.text(), default.text());
    let port = run(BROKER, &["--port", "1884", "--print-config"]).expect(0);
    assert!(
        port.text().contains("bind: \"0.0.0.0:1884\"\n"),
        "{}",
        port.text()
    );
}

/// BRK-7: a wrong file is told with its lines; so are the files that it names.
#[test]
fn a_configuration_can_be_checked() {
    let directory = TempDir::new();
    let good = directory.file("good.yaml", CONFIG);
    assert_eq!(
        run(BROKER, &["-c", &good, "--check-config"])
            .expect(0)
            .text(),
        "The configuration is valid.\n"
    );
    for (name, text, expected) in [
        (
            "key",
            format!("{CONFIG}auht: {{}}\n"),
            "auht: unknown key; did you mean 'auth'?",
        ),
        ("yaml", "listeners: [\n".to_owned(), "yaml:"),
        (
            "passwords",
            format!("{CONFIG}auth: {{password-file: /nonexistent}}\n"),
            "/nonexistent",
        ),
        (
            "certificate",
            format!("{CONFIG}    ssl: on\n    certfile: /nonexistent\n    keyfile: /nonexistent\n"),
            "/nonexistent",
        ),
    ] {
        let file = directory.file(name, text);
        for arguments in [&["-c", &file, "--test-config"][..], &["-c", &file]] {
            let done = run(BROKER, arguments).expect(1);
            assert!(done.errors.contains(expected), "{}", done.errors);
            assert!(
                done.errors.lines().all(|line| line.starts_with("hbmqtt: ")),
                "{}",
                done.errors
            );
        }
    }
    run(BROKER, &["-c", "/nonexistent"]).expect(1);
}

#[test]
fn the_process_id_file_lives_as_long_as_the_broker() {
    let directory = TempDir::new();
    let (config, pid) = (
        directory.file("c.yaml", CONFIG),
        directory.path().join("pid"),
    );
    let tool = started(&["-c", &config, "--pid-file", pid.to_str().unwrap()]);
    eventually("the process id is written", || {
        let text = std::fs::read_to_string(&pid).map_err(|error| error.to_string())?;
        if text.trim() == tool.process.id().to_string() {
            Ok(())
        } else {
            Err(text)
        }
    });
    tool.signal("TERM");
    tool.wait().expect(0);
    assert!(!pid.exists());
}

/// A rotated log file is opened anew on HUP, and the configuration read again.
#[test]
fn hup_reloads_and_opens_the_log_file_anew() {
    let directory = TempDir::new();
    let config = directory.file("c.yaml", CONFIG);
    let (log, rotated) = (directory.path().join("log"), directory.path().join("log.1"));
    let tool = started(&["-c", &config, "--log-file", log.to_str().unwrap()]);
    let in_log = |path: &std::path::Path, text: &str| {
        eventually(text, || {
            let found = std::fs::read_to_string(path).unwrap_or_default();
            if found.contains(text) {
                Ok(())
            } else {
                Err(found)
            }
        });
    };
    in_log(&log, "Listener 'default' bind to 127.0.0.1:");
    std::fs::rename(&log, &rotated).unwrap();
    tool.signal("HUP");
    in_log(&log, "configuration reloaded");
    directory.file("c.yaml", "listeners: 1\n");
    tool.signal("HUP");
    in_log(&log, "The configuration was not reloaded");
    tool.signal("TERM");
    let done = tool.wait().expect(0);
    assert_eq!(done.errors, "");
    in_log(&log, "Broker closed");
}

#[test]
fn log_lines_may_be_json_or_fewer() {
    let directory = TempDir::new();
    let config = directory.file("c.yaml", CONFIG);
    let tool = started(&["-c", &config, "--log-format", "json"]);
    let line = tool
        .errors
        .wait_for("the start line", |line| line.contains("bind to"));
    assert!(
        line.starts_with('{') && line.ends_with('}') && line.contains("\"level\":\"INFO\""),
        "{line}"
    );
    let pid = directory.path().join("pid");
    let quiet = started(&[
        "-c",
        &config,
        "--quiet",
        "--pid-file",
        pid.to_str().unwrap(),
    ]);
    eventually("the broker has started", || {
        pid.exists().then_some(()).ok_or_else(String::new)
    });
    quiet.signal("INT");
    assert_eq!(quiet.wait().expect(0).errors, "");
}

#[test]
fn health_can_be_asked_for() {
    let broker = Broker::start();
    run(BROKER, &["--healthcheck", &url(&broker)]).expect(0);
    let address = { server::Server::new().address() };
    run(BROKER, &["--healthcheck", &format!("mqtt://{address}")]).expect(1);
}

/// BRK-7.
#[test]
fn a_port_in_use_is_one_clear_line() {
    let broker = Broker::start();
    let directory = TempDir::new();
    let config = directory.file(
        "c.yaml",
        CONFIG.replace("127.0.0.1:0", &broker.address().to_string()),
    );
    let done = run(BROKER, &["-c", &config]).expect(1);
    assert_eq!(done.errors.lines().count(), 1, "{}", done.errors);
    assert!(
        done.errors.starts_with("hbmqtt: listener 'default': "),
        "{}",
        done.errors
    );
}
