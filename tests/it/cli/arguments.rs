//! What every program answers, and the spellings of options. The normaliser's own tests stand beside it.

use std::process::Command;

use super::*;

const ALL: [(&str, &str); 6] = [
    (BROKER, "hbmqtt"),
    (PUB, "hbmqtt_pub"),
    (SUB, "hbmqtt_sub"),
    (RR, "hbmqtt_rr"),
    (PASSWD, "hbmqtt_passwd"),
    (BENCH, "hbmqtt_bench"),
];

/// PUB-1, SUB-1, BRK-1: the bare version, also where other options are missing.
#[test]
fn every_program_prints_its_version() {
    for (program, _) in ALL {
        let done = run(program, &["--version"]).expect(0);
        assert_eq!(done.text().trim_end(), env!("CARGO_PKG_VERSION"));
        assert_eq!(done.errors, "");
    }
}

/// PUB-2, SUB-2, BRK-1.
#[test]
fn every_program_prints_its_help() {
    for (program, name) in ALL {
        for arguments in [&["-h"][..], &["--help"], &["--hel"]] {
            let done = run(program, arguments).expect(0);
            assert!(
                done.text().starts_with(&format!("Usage: {name} ")),
                "{}",
                done.text()
            );
        }
    }
    let after_others = run(PUB, &["--url", "mqtt://h", "-t", "a", "-dh"]).expect(0);
    assert!(after_others.text().contains("--will-topic"));
}

#[test]
fn every_program_refuses_unknown_options_with_a_hint() {
    for (program, name) in ALL {
        let done = run(program, &["--versio-n"]).expect(2);
        let expected = format!("{name}: unknown option '--versio-n', did you mean '--version'?");
        assert_eq!(done.errors.lines().next().unwrap(), expected);
        assert!(
            done.errors
                .ends_with(&format!("{name}: run '{name} --help' for the usage"))
        );
    }
}

/// PUB-21: docopt's and mosquitto's ways to write options, in any order.
#[test]
fn options_may_be_spelt_in_many_ways() {
    let broker = Broker::start();
    let url = url(&broker);
    let mut observer = observer(&broker, "t");
    let (url_long, url_short) = (format!("--url={url}"), format!("-L{url}"));
    for arguments in [
        &["-t", "t", "-q", "1", "-m", "x", "--url", &url][..],
        &["-mx", "-tt", "-q1", &url_long],
        &["--message=x", "--topic=t", "--qos=1", &url_short],
        &["--ur", &url, "-t=t", "-dq", "1", "-m=x"],
        &[
            "-m",
            "x",
            "--identifier",
            "me",
            "-t",
            "t",
            "--qo",
            "1",
            "--url",
            &url,
        ],
    ] {
        run(PUB, arguments).expect(0);
        let message = receive(&mut observer);
        assert_eq!((message.qos, &*message.text()), (1, "x"), "{arguments:?}");
    }
    run(PUB, &["--url", &url, "-t", "t", "-m", "--debug"]).expect(0);
    assert_eq!(receive(&mut observer).text(), "--debug");
}

#[test]
fn completion_scripts_and_manual_pages_come_from_the_options() {
    for (program, name) in ALL {
        for shell in ["bash", "zsh", "fish"] {
            let script = run(program, &["--completions", shell]).expect(0);
            assert!(script.text().contains("version"), "{}", script.text());
        }
        let script = run(program, &["--completions", "bash"]).expect(0);
        let check = run_with_input("bash", &["-n"], &script.output).expect(0);
        assert_eq!(check.errors, "");
        run(program, &["--completions", "tcsh"]).expect(2);
        let page = run(program, &["--man"]).expect(0);
        assert!(
            page.text()
                .starts_with(&format!(".TH {} 1", name.to_uppercase()))
        );
        assert!(page.text().contains(".SH EXIT STATUS\n"));
    }
}

#[test]
fn printed_texts_may_lose_their_reader() {
    let mut command = Command::new("bash");
    command.args(["-c", &format!("set -o pipefail; {PUB} --help | true")]);
    let done = Tool::spawn(command).wait().expect(0);
    assert_eq!(done.errors, "");
}

/// The guide has every option that a program shows.
#[test]
fn the_guide_names_every_option() {
    let guide = include_str!("../../../docs/tools.md");
    for (program, name) in ALL {
        let help = run(program, &["--help"]).expect(0);
        let (_, options) = help.text().split_once("Options:").unwrap();
        for line in options.lines().filter(|line| line.starts_with("  -")) {
            let long = line.split([' ', ',']).find(|word| word.starts_with("--"));
            let long = long.unwrap();
            let named = [
                format!("`{long}`"),
                format!("`{long} "),
                format!(" `{long}"),
            ];
            assert!(
                named.iter().any(|text| guide.contains(text)),
                "{name} {long}"
            );
        }
    }
}
