//! `hbmqtt_bench`.

use super::*;

fn bench(broker: &Broker, more: &[&str]) -> Finished {
    let url = url(broker);
    let arguments = ["--url", &url, "-n", "50", "--window", "20"];
    run(BENCH, &[&arguments[..], more].concat())
}

#[test]
fn a_load_arrives_and_is_counted() {
    let broker = Broker::start();
    for qos in ["0", "1", "2"] {
        let done = bench(
            &broker,
            &["--publishers", "2", "--subscribers", "3", "-q", qos],
        );
        let text = done.expect(0).text().to_owned();
        assert!(
            text.starts_with("2 publishers, 3 subscribers, QoS "),
            "{text}"
        );
        assert!(text.contains("\npublished  100 in "), "{text}");
        assert!(text.contains("\ndelivered  300, "), "{text}");
        assert!(text.contains("\nlatency    p50 "), "{text}");
        assert!(text.ends_with("\nlost       0, repeated 0\n"), "{text}");
    }
    let alone = bench(&broker, &["--subscribers", "0"]).expect(0);
    assert!(alone.text().contains("published  50 in "));
}

#[test]
fn limits_and_failures_have_their_status() {
    let broker = Broker::start();
    for wrong in [
        ["--size", "15"],
        ["--publishers", "0"],
        ["--window", "0"],
        ["-t", "a/#"],
    ] {
        bench(&broker, &wrong).expect(2);
    }
    run(BENCH, &["--url", "mqtt://127.0.0.1:1"]).expect(1);
}
