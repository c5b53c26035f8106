//! Every property of MQTT 5.0: mosquitto's tools through our broker, our tools through mosquitto, one script for both.

use crate::support::program::{Outcome, Program};
use crate::support::*;

use super::is_on;

#[test]
fn mosquitto_clients_use_every_property_through_our_broker() {
    if !is_on("mosquitto_clients_use_every_property_through_our_broker") {
        return;
    }
    let broker = Broker::start();
    Tools::mosquitto(&broker).use_every_property();
}

#[test]
fn our_tools_use_every_property_through_mosquitto() {
    if !is_on("our_tools_use_every_property_through_mosquitto") {
        return;
    }
    let mosquitto = Broker::mosquitto("allow_anonymous true\nmax_topic_alias 10", "");
    let tools = Tools::ours(&mosquitto);
    tools.use_every_property();
    tools.name_subscriptions();
}

#[test]
fn our_tools_use_every_property_through_our_broker() {
    let broker = Broker::start();
    let tools = Tools::ours(&broker);
    tools.use_every_property();
    tools.name_subscriptions();
}

/// Three programs that take mosquitto's options, and where they connect to.
struct Tools {
    publish: &'static str,
    subscribe: &'static str,
    request: &'static str,
    /// Aliases that the subscriber takes: mosquitto_sub 2.0 takes an alias in the place of a topic for an error.
    aliases: &'static str,
    target: Vec<String>,
}

impl Tools {
    fn mosquitto(broker: &Broker) -> Self {
        Self {
            publish: "mosquitto_pub",
            subscribe: "mosquitto_sub",
            request: "mosquitto_rr",
            aliases: "0",
            target: vec![
                "-h".to_owned(),
                "127.0.0.1".to_owned(),
                "-p".to_owned(),
                broker.port().to_string(),
            ],
        }
    }

    fn ours(broker: &Broker) -> Self {
        Self {
            publish: env!("CARGO_BIN_EXE_hbmqtt_pub"),
            subscribe: env!("CARGO_BIN_EXE_hbmqtt_sub"),
            request: env!("CARGO_BIN_EXE_hbmqtt_rr"),
            aliases: "5",
            target: vec!["--url".to_owned(), format!("mqtt://{}", broker.address())],
        }
    }

    fn use_every_property(&self) {
        self.publish_with_each();
        self.leave_a_will_with_each();
        self.connect_with_each();
        self.end_subscriptions_with_a_property();
        self.end_the_session_at_disconnect();
        self.keep_the_retain_flag();
        self.ask_and_answer();
    }

    fn publish_with_each(&self) {
        self.make_session("published", "p/#");
        for property in [
            &["payload-format-indicator", "1"][..],
            &["message-expiry-interval", "600"],
            &["content-type", "text/plain"],
            &["response-topic", "r/t"],
            &["correlation-data", "cd"],
            &["user-property", "k", "v"],
            &["topic-alias", "3"],
        ] {
            let option = [&["-D", "publish"], property].concat();
            self.publish(&[&["-t", "p/each", "-m", property[0]], &option[..]].concat());
        }
        let text = self.resume("published", &["-C", "7", "-F", "%p %F.%E.%C.%R.%D.%P."]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "payload-format-indicator 1......");
        let expiry = lines[1].strip_prefix("message-expiry-interval .").unwrap();
        let seconds: u32 = expiry.trim_end_matches('.').parse().unwrap();
        assert!((500..=600).contains(&seconds), "{text}");
        assert_eq!(
            lines[2..],
            [
                "content-type ..text/plain....",
                "response-topic ...r/t...",
                "correlation-data ....cd..",
                "user-property .....k:v.",
                "topic-alias ......",
            ]
        );
    }

    fn leave_a_will_with_each(&self) {
        self.make_session("heir", "w");
        self.publish(&["-t", "ready", "-r", "-m", "ready"]);
        let dying = self.start(
            self.subscribe,
            &[
                "-t",
                "ready",
                "--will-topic",
                "w",
                "--will-payload",
                "gone",
                "--will-qos",
                "1",
                "-x",
                "600",
                "-i",
                "dying",
                "-D",
                "will",
                "will-delay-interval",
                "1",
                "-D",
                "will",
                "payload-format-indicator",
                "1",
                "-D",
                "will",
                "message-expiry-interval",
                "600",
                "-D",
                "will",
                "content-type",
                "ct",
                "-D",
                "will",
                "response-topic",
                "rt",
                "-D",
                "will",
                "correlation-data",
                "cd",
                "-D",
                "will",
                "user-property",
                "k",
                "v",
            ],
        );
        dying
            .output
            .wait_for("the connection", |line| line == "ready");
        dying.signal("KILL");
        let text = self.resume("heir", &["-C", "1", "-W", "20", "-F", "%p %F %C %R %D %P"]);
        assert_eq!(text, "gone 1 ct rt cd k:v");
    }

    fn connect_with_each(&self) {
        self.make_session("narrow", "c/#");
        for number in ["1", "2", "3", "4"] {
            self.publish(&["-t", "c/topic", "-m", number]);
        }
        let text = self.resume(
            "narrow",
            &[
                "-C",
                "4",
                "-F",
                "%t %p",
                "-D",
                "connect",
                "receive-maximum",
                "1",
                "-D",
                "connect",
                "topic-alias-maximum",
                self.aliases,
                "-D",
                "connect",
                "request-problem-information",
                "0",
                "-D",
                "connect",
                "request-response-information",
                "1",
                "-D",
                "connect",
                "user-property",
                "k",
                "v",
            ],
        );
        let expected = ["1", "2", "3", "4"].map(|number| format!("c/topic {number}"));
        assert_eq!(text, expected.join("\n"));

        let large = "x".repeat(300);
        for (topic, payload) in [("size/a", large.as_str()), ("size/b", "small")] {
            let arguments = ["-q", "0", "-t", topic, "-r", "-m", payload];
            self.succeed(self.publish, &arguments);
        }
        let arguments = [
            "-t",
            "size/#",
            "-C",
            "1",
            "-D",
            "connect",
            "maximum-packet-size",
            "200",
        ];
        assert_eq!(self.succeed(self.subscribe, &arguments), "small");
    }

    fn end_subscriptions_with_a_property(&self) {
        self.succeed(
            self.subscribe,
            &[
                "-t",
                "u",
                "-U",
                "u",
                "-q",
                "1",
                "-E",
                "-D",
                "subscribe",
                "user-property",
                "a",
                "b",
                "-D",
                "unsubscribe",
                "user-property",
                "c",
                "d",
            ],
        );
    }

    fn end_the_session_at_disconnect(&self) {
        self.make_session("short", "d");
        // It ends with the next connection.
        let over = ["-D", "disconnect", "session-expiry-interval", "0"];
        let named = ["-D", "disconnect", "user-property", "why", "over"];
        self.resume("short", &[&["-E"], &over[..], &named].concat());
        self.publish(&["-t", "d", "-m", "lost"]);
        let arguments = [
            "-i",
            "short",
            "--disable-clean-session",
            "-t",
            "other",
            "-W",
            "1",
        ];
        let outcome = self.run(self.subscribe, &arguments);
        assert_eq!(outcome.status.code(), Some(27), "{outcome:?}");
        assert_eq!(outcome.output, "");
    }

    fn keep_the_retain_flag(&self) {
        for (option, flags) in [(None, "1\n0"), (Some("--retain-as-published"), "1\n1")] {
            self.publish(&["-t", "kept", "-r", "-m", "1"]);
            let mut arguments = vec!["-t", "kept", "-C", "2", "-F", "%r"];
            arguments.extend(option);
            let subscriber = self.start(self.subscribe, &arguments);
            subscriber
                .output
                .wait_for("the retained one", |line| line == "1");
            self.publish(&["-t", "kept", "-r", "-m", "2"]);
            assert_eq!(subscriber.succeeds(), flags);
        }
    }

    fn ask_and_answer(&self) {
        self.make_session("responder", "service");
        let asking = self.start(
            self.request,
            &[
                "-t",
                "service",
                "-e",
                "answers",
                "-m",
                "question",
                "-q",
                "1",
                "-W",
                "20",
                "-F",
                "%D %P %p",
                "-D",
                "publish",
                "correlation-data",
                "42",
                "-D",
                "publish",
                "content-type",
                "text/plain",
                "-D",
                "publish",
                "user-property",
                "k",
                "v",
            ],
        );
        let request = self.resume("responder", &["-C", "1", "-F", "%R %D %C %P %p"]);
        assert_eq!(request, "answers 42 text/plain k:v question");
        self.publish(&[
            "-t",
            "answers",
            "-m",
            "answer",
            "-D",
            "publish",
            "correlation-data",
            "42",
            "-D",
            "publish",
            "user-property",
            "m",
            "n",
        ]);
        assert_eq!(asking.succeeds(), "42 m:n answer");
    }

    /// Mosquitto's tools have no option for it.
    fn name_subscriptions(&self) {
        self.publish(&["-t", "named", "-r", "-m", "x"]);
        let arguments = [
            "-t",
            "named",
            "--subscription-id",
            "77",
            "-C",
            "1",
            "-F",
            "%S %p",
        ];
        assert_eq!(self.succeed(self.subscribe, &arguments), "77 x");
    }

    /// Makes a session under this identifier that stays.
    fn make_session(&self, id: &str, filter: &str) {
        self.resume(id, &["-t", filter, "-E"]);
    }

    /// Goes on with a session; what the subscriber prints.
    fn resume(&self, id: &str, arguments: &[&str]) -> String {
        let session = ["-i", id, "--disable-clean-session", "-x", "600", "-q", "1"];
        let mut all = [&session[..], arguments].concat();
        // A filter must be there.
        if !arguments.contains(&"-t") {
            all.extend(["-t", "nothing/comes/here"]);
        }
        self.succeed(self.subscribe, &all)
    }

    fn publish(&self, arguments: &[&str]) {
        self.succeed(self.publish, &[&["-q", "1"], arguments].concat());
    }

    fn succeed(&self, program: &str, arguments: &[&str]) -> String {
        self.start(program, arguments).succeeds()
    }

    fn run(&self, program: &str, arguments: &[&str]) -> Outcome {
        self.start(program, arguments).wait()
    }

    fn start(&self, program: &str, arguments: &[&str]) -> Program {
        let target = self.target.iter().map(String::as_str);
        let all: Vec<&str> = target
            .chain(["-V", "5"])
            .chain(arguments.iter().copied())
            .collect();
        // Standard output line by line, also into a pipe.
        Program::start("stdbuf", &[&["-oL", program], &all[..]].concat())
    }
}

/// The letters of `-F`: hbmqtt_sub prints what mosquitto_sub prints.
///
/// Left out is where mosquitto 2.0 does not what its manual says: a time stamp with both Z and offset in JSON, `-` with
/// `0` for absent numbers, a width that cuts hexadecimal payloads in half.
#[test]
fn output_formats_are_those_of_mosquitto() {
    if !is_on("output_formats_are_those_of_mosquitto") {
        return;
    }
    let broker = Broker::start();
    let (ours, theirs) = (Tools::ours(&broker), Tools::mosquitto(&broker));
    ours.publish(&[
        "-t",
        "f/all",
        "-r",
        "-m",
        "hello é",
        "-D",
        "publish",
        "payload-format-indicator",
        "1",
        "-D",
        "publish",
        "content-type",
        "text/plain",
        "-D",
        "publish",
        "response-topic",
        "r/t",
        "-D",
        "publish",
        "correlation-data",
        "cd",
        "-D",
        "publish",
        "user-property",
        "a",
        "b",
        "-D",
        "publish",
        "user-property",
        "a",
        "c",
    ]);
    ours.publish(&["-t", "f/none", "-r", "-m", r#"{"a":[1,true,"x"]}"#]);
    let letters = "ACEFRStpqrlm";
    let mut formats = vec!["%D|%P|%x|%X|%%|@@|\\t\\\\".to_owned()];
    for flags in ["", "10", "-10", "010", "10.3", ".3", "-10.2", "02"] {
        let each = letters.chars().map(|letter| format!("[%{flags}{letter}]"));
        formats.push(each.collect());
    }
    formats.push("@Y @j @b @A @p @e @C @y @u".to_owned());
    for topic in ["f/all", "f/none"] {
        for format in &formats {
            let arguments = ["-t", topic, "-C", "1", "-q", "1", "-F", format];
            let no_aliases = ["-D", "connect", "topic-alias-maximum", "0"];
            assert_eq!(
                ours.succeed(ours.subscribe, &[&arguments[..], &no_aliases].concat()),
                theirs.succeed(theirs.subscribe, &arguments),
                "{topic} {format}"
            );
        }
        for json in ["%j", "%J"] {
            if (topic, json) == ("f/all", "%J") {
                continue;
            }
            let arguments = ["-t", topic, "-C", "1", "-q", "1", "-F", json];
            let no_aliases = ["-D", "connect", "topic-alias-maximum", "0"];
            let arguments = [&arguments[..], &no_aliases].concat();
            let object = |tools: &Tools| {
                let text = tools.succeed(tools.subscribe, &arguments);
                let mut object: serde_json::Value = serde_json::from_str(&text).unwrap();
                object["tst"].take();
                // Mosquitto repeats a member, of which a reader sees the last.
                object["properties"]["user-properties"].take();
                object
            };
            assert_eq!(object(&ours), object(&theirs), "{topic} {json}");
        }
    }
}
