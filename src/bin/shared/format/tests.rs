use super::*;

fn message() -> View<'static> {
    View {
        topic: "sensors/temperature",
        payload: b"\x01\xabz",
        qos: 1,
        retain: true,
        packet_id: 7,
        properties: None,
        at: SystemTime::UNIX_EPOCH,
    }
}

fn formatted(format: &str, message: &View<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    Format::parse(format)
        .unwrap()
        .write(message, false, &mut out)
        .unwrap();
    out
}

fn text(format: &str) -> String {
    String::from_utf8(formatted(format, &message())).unwrap()
}

#[test]
fn letters_show_the_parts_of_a_message() {
    assert_eq!(
        text("%t %q %r %l %m %% @@"),
        "sensors/temperature 1 1 3 7 % @"
    );
    assert_eq!(formatted("[%p]", &message()), b"[\x01\xabz]");
    assert_eq!(text("%x %X"), "01ab7a 01AB7A");
}

#[test]
fn escapes_stand_for_characters() {
    assert_eq!(
        formatted(r"\t\n\r\0\a\e\v\\", &message()),
        b"\t\n\r\0\x07\x1b\x0b\\"
    );
}

#[test]
fn width_and_precision_pad_and_cut() {
    assert_eq!(text("|%5l|%-5l|%05l|"), "|    3|3    |00003|");
    assert_eq!(
        text("|%22t|%-22t|%.7t|%10.3t|"),
        "|   sensors/temperature|sensors/temperature   |sensors|       sen|"
    );
    assert_eq!(
        text("|%8x|%-8x|%08x|%4x|"),
        "|  01ab7a|01ab7a  |0001ab7a|01ab|"
    );
}

#[test]
fn hexadecimal_digits_may_be_grouped() {
    assert_eq!(text("%.2:x"), "01:ab:7a");
    assert_eq!(text("%.4X"), "01AB 7A");
}

#[test]
fn numbers_are_read_from_the_payload() {
    let bytes = 1.5f32.to_ne_bytes();
    let float = View {
        payload: &bytes,
        ..message()
    };
    assert_eq!(formatted("%.2f|%8.1f", &float), b"1.50|     1.5");
    let bytes = (-2.25f64).to_ne_bytes();
    let double = View {
        payload: &bytes,
        ..message()
    };
    assert_eq!(formatted("%d", &double), b"-2.250000");
    assert_eq!(formatted("[%d]", &float), b"[]");
}

#[test]
fn time_is_written_by_the_letters_of_strftime() {
    let at = OffsetDateTime::from_unix_timestamp(1_446_846_316).unwrap();
    let all: Vec<String> = "YmdHMSjaAbBeFTDRIpyuUVwWGszZ"
        .chars()
        .map(|c| strftime(c, at))
        .collect();
    assert_eq!(
        all,
        [
            "2015",
            "11",
            "06",
            "21",
            "45",
            "16",
            "310",
            "Fri",
            "Friday",
            "Nov",
            "November",
            " 6",
            "2015-11-06",
            "21:45:16",
            "11/06/15",
            "21:45",
            "09",
            "PM",
            "15",
            "5",
            "44",
            "45",
            "5",
            "44",
            "2015",
            "1446846316",
            "+0000",
            "UTC"
        ]
    );
    assert_eq!(text("@s %U"), "0 0.000000000");
    assert_eq!(text("@N"), "000000000");
}

#[test]
fn a_format_that_cannot_be_read_is_refused() {
    for format in ["%", "%y", "%5", "%.2", "@", "\\", "\\q", "%999999999t"] {
        assert!(Format::parse(format).is_err(), "{format}");
    }
}

#[test]
fn json_keeps_the_order_of_its_members() {
    let line = json(
        &View {
            payload: b"hi \"you\"",
            ..message()
        },
        JsonPayload::Text,
        false,
    )
    .unwrap();
    let (time, rest) = line.split_once("\",\"topic\"").unwrap();
    assert!(time.starts_with("{\"tst\":\"19"), "{line}");
    assert_eq!(
        rest,
        ":\"sensors/temperature\",\"qos\":1,\"retain\":1,\"payloadlen\":8,\"mid\":7,\"payload\":\"hi \\\"you\\\"\"}"
    );
}

#[test]
fn a_json_payload_stays_json() {
    let view = View {
        payload: b"{\"a\": [1, 2]}",
        qos: 0,
        ..message()
    };
    let line = json(&view, JsonPayload::Value, false).unwrap();
    assert!(
        line.ends_with(",\"payloadlen\":13,\"payload\":{\"a\":[1,2]}}"),
        "{line}"
    );
    let pretty = json(&view, JsonPayload::Value, true).unwrap();
    let value: serde_json::Value = serde_json::from_str(&pretty).unwrap();
    assert_eq!(value["payload"]["a"][1], 2);
    assert!(json(&message(), JsonPayload::Value, false).is_none());
}

#[test]
fn a_binary_payload_becomes_base64() {
    let line = json(&message(), JsonPayload::TextOrBase64, false).unwrap();
    assert!(
        line.ends_with(",\"payload\":\"Aat6\",\"encoding\":\"base64\"}"),
        "{line}"
    );
    for (bytes, text) in [
        (&b""[..], ""),
        (b"f", "Zg=="),
        (b"fo", "Zm8="),
        (b"foo", "Zm9v"),
        (b"foob", "Zm9vYg=="),
    ] {
        assert_eq!(base64(bytes), text);
    }
}

#[test]
fn properties_have_their_names() {
    let properties = PublishProperties {
        payload_format_utf8: Some(true),
        message_expiry_interval: Some(60),
        content_type: Some("text/plain".into()),
        user_properties: vec![("k".into(), "v".into()), ("k".into(), "w".into())],
        subscription_identifiers: vec![3],
        ..PublishProperties::default()
    };
    let view = View {
        properties: Some(&properties),
        payload: b"x",
        qos: 0,
        ..message()
    };
    assert_eq!(
        formatted("%F %E %C %S %P|%4A|", &view),
        b"1 60 text/plain 3 k:v k:w|    |"
    );
    let line = json(&view, JsonPayload::Text, false).unwrap();
    let value: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(value["properties"]["user-properties"][1]["k"], "w");
    assert_eq!(value["properties"]["subscription-identifier"], 3);
}
