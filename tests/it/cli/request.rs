//! `hbmqtt_rr`.

use super::*;

/// Answers the next request on `filter` with `answer` and the properties that the request asks for.
fn respond(responder: &mut Client, answer: &str, correlation: Option<&[u8]>) -> Publish {
    let request = receive(responder);
    let topic = request
        .properties
        .iter()
        .find_map(|property| match property {
            Property::Text(0x08, topic) => Some(topic.clone()),
            _ => None,
        });
    let data = request
        .properties
        .iter()
        .find_map(|property| match property {
            Property::Binary(0x09, data) => Some(data.clone()),
            _ => None,
        });
    let data = correlation.map_or_else(|| data.expect("correlation data"), <[u8]>::to_vec);
    let answer = Publish::new(&topic.expect("a response topic"), 1, answer)
        .property(Property::Binary(0x09, data));
    responder.publish_packet(answer);
    request
}

fn responder(broker: &Broker, filter: &str) -> Client {
    let mut client = Client::connect(broker, V5);
    client.subscribe(filter, 2);
    client
}

#[test]
fn a_request_gets_its_response() {
    let broker = Broker::start();
    let url = url(&broker);
    let mut responder = responder(&broker, "service");
    let arguments = ["--url", &url, "-V", "5", "-t", "service", "-q", "1"];
    let tool = Tool::start(RR, &[&arguments[..], &["-m", "question"]].concat());
    let request = respond(&mut responder, "answer", None);
    assert_eq!((request.qos, &*request.text()), (1, "question"));
    assert_eq!(tool.wait().expect(0).text(), "answer\n");

    // The user's own topic, data and properties; a response to somebody else is not taken.
    let own = [
        "-e",
        "mine",
        "-D",
        "publish",
        "correlation-data",
        "42",
        "--user-property",
        "a=b",
        "-n",
        "-F",
        "%t %R%D %p",
    ];
    let tool = Tool::start(RR, &[&arguments[..], &own].concat());
    let request = receive(&mut responder);
    assert_eq!(request.text(), "");
    for property in [
        Property::Text(0x08, "mine".to_owned()),
        Property::Binary(0x09, b"42".to_vec()),
        Property::Pair(0x26, "a".to_owned(), "b".to_owned()),
    ] {
        assert!(request.properties.contains(&property), "{request:?}");
    }
    for (data, text) in [("41", "no"), ("42", "yes")] {
        let answer = Publish::new("mine", 1, text);
        let data = Property::Binary(0x09, data.as_bytes().to_vec());
        responder.publish_packet(answer.property(data));
    }
    assert_eq!(tool.wait().expect(0).text(), "mine 42 yes\n");
}

#[test]
fn a_request_may_be_a_file_or_standard_input() {
    let broker = Broker::start();
    let url = url(&broker);
    let directory = TempDir::new();
    let file = directory.file("request", "line one\nline two\n");
    let mut responder = responder(&broker, "service");
    let target = ["--url", &url, "-V", "5", "-t", "service"];
    let tool = Tool::start(RR, &[&target[..], &["-f", &file, "--json"]].concat());
    assert_eq!(
        respond(&mut responder, "x", None).text(),
        "line one\nline two\n"
    );
    assert!(tool.wait().expect(0).text().contains(r#""payload":"x""#));
    let mut tool = Tool::start(RR, &[&target[..], &["-s", "-C", "2"]].concat());
    tool.write("whole");
    tool.input = None;
    let request = respond(&mut responder, "1", None);
    assert_eq!(request.text(), "whole");
    let answer = request
        .properties
        .iter()
        .find_map(|property| match property {
            Property::Text(0x08, topic) => Some(Publish::new(topic, 1, "2")),
            _ => None,
        });
    responder.publish_packet(answer.unwrap());
    assert_eq!(tool.wait().expect(0).text(), "1\n2\n");
}

#[test]
fn without_a_response_the_time_runs_out() {
    let broker = Broker::start();
    let url = url(&broker);
    let arguments = [
        "--url", &url, "-V", "5", "-t", "nobody", "-q", "1", "-m", "x",
    ];
    let done = run(RR, &[&arguments[..], &["-W", "0.3"]].concat()).expect(27);
    assert!(
        done.log().contains(&(
            "WARNING".to_owned(),
            "Nobody is subscribed to 'nobody'".to_owned()
        )),
        "{}",
        done.errors
    );
}

/// Before 5.0 the responder has to know the topic.
#[test]
fn an_older_version_can_do_it_with_a_topic() {
    let broker = Broker::start();
    let url = url(&broker);
    let mut responder = Client::connect(&broker, V311);
    responder.subscribe("service", 0);
    let arguments = [
        "--url", &url, "-V", "3.1.1", "-t", "service", "-e", "back", "-m", "x", "-v",
    ];
    let tool = Tool::start(RR, &arguments);
    receive(&mut responder);
    responder.publish("back", 0, "y");
    assert_eq!(tool.wait().expect(0).text(), "back y\n");
}

#[test]
fn a_wrong_command_line_asks_nobody() {
    for (arguments, message) in [
        (&["-m", "x"][..], "option '-t' is missing"),
        (&["-t", "a"], "use exactly one of -f, -m, -n and -s"),
        (
            &["-t", "a", "-m", "x", "-n"],
            "use exactly one of -f, -m, -n and -s",
        ),
        (&["-t", "a", "-m", "x", "-e", "b/#"], "topic 'b/#': "),
        (
            &[
                "-t",
                "a",
                "-m",
                "x",
                "-e",
                "b",
                "-D",
                "publish",
                "response-topic",
                "c",
            ],
            "use one of -e and '-D publish response-topic'",
        ),
    ] {
        let url = ["--url", "mqtt://127.0.0.1:1"];
        let done = run(RR, &[&url[..], arguments].concat()).expect(2);
        let expected = format!("hbmqtt_rr: {message}");
        assert!(done.errors.starts_with(&expected), "{}", done.errors);
    }
}
