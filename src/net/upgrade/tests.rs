use super::*;

const REQUEST: &str = "GET /mqtt HTTP/1.1\r\nHost: broker.example:8080\r\nUpgrade: WebSocket\r\nConnection: keep-alive, Upgrade\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n";

fn answered(more: &str) -> (String, Result<(), WebSocketError>) {
    answered_by(
        &WebSocketOptions::default(),
        &format!("{REQUEST}{more}\r\n"),
    )
}

fn answered_by(options: &WebSocketOptions, request: &str) -> (String, Result<(), WebSocketError>) {
    let Answer { response, result } = answer(request.as_bytes(), options);
    (String::from_utf8(response).unwrap(), result)
}

#[test]
fn a_request_with_the_sub_protocol_is_upgraded() {
    for (offered, chosen) in [
        ("Sec-WebSocket-Protocol: mqtt\r\n", "mqtt"),
        ("sec-websocket-protocol: chat, mqttv3.1 , mqtt\r\n", "mqtt"),
        (
            "Sec-WebSocket-Protocol: chat\r\nSec-WebSocket-Protocol: mqttv3.1\r\n",
            "mqttv3.1",
        ),
    ] {
        let (response, result) = answered(offered);
        result.unwrap();
        assert!(
            response.starts_with("HTTP/1.1 101 Switching Protocols\r\n"),
            "{response}"
        );
        assert!(
            response.contains("sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"),
            "{response}"
        );
        assert!(
            response.ends_with(&format!("sec-websocket-protocol: {chosen}\r\n\r\n")),
            "{response}"
        );
    }
}

#[test]
fn a_request_without_the_sub_protocol_is_refused() {
    for offered in [
        "",
        "Sec-WebSocket-Protocol: chat\r\n",
        "Sec-WebSocket-Protocol: xmqtt\r\n",
    ] {
        let (response, result) = answered(offered);
        assert_eq!(result, Err(WebSocketError::NoSubProtocol));
        assert!(
            response.starts_with("HTTP/1.1 400 Bad Request\r\n")
                && response.contains("sub-protocol mqtt"),
            "{response}"
        );
    }
}

#[test]
fn a_request_that_is_no_upgrade_is_told_what_is_missing() {
    for (request, status) in [
        ("GET / HTTP/1.1\r\nHost: h\r\n\r\n", "426"),
        ("POST / HTTP/1.1\r\nHost: h\r\n\r\n", "405"),
        ("GET / HTTP/1.0\r\n\r\n", "400"),
        ("\0\r\n\r\n", "400"),
        (
            &format!("{REQUEST}\r\n").replace("dGhlIHNhbXBsZSBub25jZQ==", "short"),
            "400",
        ),
        (
            &format!("{REQUEST}\r\n").replace("Version: 13", "Version: 12"),
            "426",
        ),
    ] {
        let (response, result) = answered_by(&WebSocketOptions::default(), request);
        assert!(
            matches!(result, Err(WebSocketError::NotAnUpgrade(_))),
            "{result:?}"
        );
        assert!(
            response.starts_with(&format!("HTTP/1.1 {status} ")),
            "{response}"
        );
        let (head, body) = response.split_once("\r\n\r\n").unwrap();
        assert!(
            head.contains(&format!("\r\nContent-Length: {}", body.len())),
            "{response}"
        );
    }
}

#[test]
fn a_page_of_another_origin_is_refused_unless_it_is_listed() {
    let from = |origin: &str, allowed: &[&str]| {
        let options = WebSocketOptions {
            allowed_origins: allowed.iter().map(|&origin| origin.to_owned()).collect(),
            ..WebSocketOptions::default()
        };
        answered_by(
            &options,
            &format!("{REQUEST}Sec-WebSocket-Protocol: mqtt\r\nOrigin: {origin}\r\n\r\n"),
        )
    };
    for own in [
        "http://broker.example",
        "https://Broker.Example:9000",
        "http://broker.example:8080",
    ] {
        from(own, &[]).1.unwrap();
    }
    for (origin, allowed) in [
        ("https://example.org", "https://example.org"),
        ("https://Example.org", "https://example.org/"),
        ("null", "*"),
    ] {
        from(origin, &["https://other.example", allowed]).1.unwrap();
    }
    for stranger in [
        "https://example.org",
        "null",
        "file://",
        "http://broker.example.org",
        "http://xbroker.example",
        "broker.example",
        "",
    ] {
        let (response, result) = from(stranger, &["http://example.org", "https://example.org:444"]);
        assert_eq!(result, Err(WebSocketError::Origin(stranger.into())));
        assert!(
            response.starts_with("HTTP/1.1 403 Forbidden\r\n")
                && response.contains("allowed-origins"),
            "{response}"
        );
    }
}

#[test]
fn the_own_host_may_be_an_ipv6_address() {
    let request = REQUEST.replace("broker.example:8080", "[::1]:8080")
        + "Sec-WebSocket-Protocol: mqtt\r\nOrigin: http://[::1]\r\n\r\n";
    answered_by(&WebSocketOptions::default(), &request)
        .1
        .unwrap();
    let stranger = request.replace("http://[::1]", "http://[::2]");
    assert!(
        answered_by(&WebSocketOptions::default(), &stranger)
            .1
            .is_err()
    );
}

#[test]
fn a_header_is_found_however_it_arrives_and_has_a_limit() {
    let bytes = b"GET / HTTP/1.1\r\nA: b\r\n\r\nmore";
    let end = bytes.len() - 4;
    let mut known = 0;
    for length in 0..=bytes.len() {
        let found = head_length(&bytes[..length], known).unwrap();
        assert_eq!(found, (length >= end).then_some(end), "{length}");
        if found.is_none() {
            known = length;
        }
    }
    assert_eq!(
        head_length(&[b'x'; LONGEST_HEAD], 0),
        Err(WebSocketError::HeaderTooLong)
    );
    let late = [&[b'x'; LONGEST_HEAD - 3][..], b"\r\n\r\n"].concat();
    assert_eq!(head_length(&late, 0), Err(WebSocketError::HeaderTooLong));
}

fn header(name: &str, value: &str) -> (String, String) {
    (name.to_owned(), value.to_owned())
}

#[test]
fn a_client_asks_with_its_extra_headers() {
    let question = ask(
        "broker.example",
        "/mqtt?a=ü b",
        &[header("Authorization", "Bearer x"), header("X-A", "1")],
    )
    .unwrap();
    let request = String::from_utf8(question.request.clone()).unwrap();
    assert!(
        request.starts_with("GET /mqtt?a=%C3%BC%20b HTTP/1.1\r\nHost: broker.example\r\n"),
        "{request}"
    );
    assert!(
        request.ends_with("Authorization: Bearer x\r\nX-A: 1\r\n\r\n"),
        "{request}"
    );
    let answer = answer(&question.request, &WebSocketOptions::default());
    answer.result.unwrap();
    question.check(&answer.response).unwrap();
    let hosted = ask("a", "", &[header("Host", "b")]).unwrap().request;
    let hosted = String::from_utf8(hosted).unwrap();
    assert!(
        hosted.starts_with("GET / HTTP/1.1\r\nConnection:") && hosted.contains("\r\nHost: b\r\n"),
        "{hosted}"
    );
}

#[test]
fn a_header_that_would_break_the_request_is_refused() {
    for (name, value) in [
        ("X A", "1"),
        ("X", "1\r\nY: 2"),
        ("", "1"),
        ("Upgrade", "h2c"),
        ("sec-websocket-KEY", "x"),
        ("Content-Length", "5"),
    ] {
        let refused = ask("h", "/", &[header(name, value)]).err();
        assert_eq!(refused, Some(WebSocketError::InvalidHeader(name.into())));
    }
}

#[test]
fn a_client_believes_only_a_correct_answer() {
    let question = ask("h", "/", &[]).unwrap();
    let good = String::from_utf8(answer(&question.request, &WebSocketOptions::default()).response)
        .unwrap();
    question.check(good.as_bytes()).unwrap();
    for (wrong, error) in [
        (
            good.replace("101 Switching Protocols", "403 Forbidden"),
            WebSocketError::Refused(403),
        ),
        (
            good.replace("protocol: mqtt", "protocol: mqttv3.1"),
            WebSocketError::InvalidResponse("sub-protocol is not mqtt"),
        ),
        (
            good.replace("sec-websocket-protocol", "x"),
            WebSocketError::InvalidResponse("sub-protocol is not mqtt"),
        ),
        (
            good.replace("accept: ", "accept: x"),
            WebSocketError::InvalidResponse("wrong Sec-WebSocket-Accept"),
        ),
        (
            good.replace("upgrade: websocket", "x: y"),
            WebSocketError::InvalidResponse("no 'Upgrade: websocket'"),
        ),
        (
            good.replace(
                "\r\n\r\n",
                "\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n",
            ),
            WebSocketError::InvalidResponse("an extension that was not asked for"),
        ),
        (
            "SSH-2.0-OpenSSH\r\n\r\n".to_owned(),
            WebSocketError::InvalidResponse("malformed HTTP"),
        ),
    ] {
        assert_eq!(question.check(wrong.as_bytes()), Err(error), "{wrong}");
    }
}
