//! Enhanced authentication against a server that does as the test says. With a real broker: tests/it/client.

use bytes::Bytes;
use bytestring::ByteString;

use super::server::{Peer, Server, message, serve};
use super::*;
use crate::proto::packet::auth::{Auth, AuthProperties};
use crate::proto::packet::connect::Connect;
use crate::scram::{self, ClientFirst, Credentials, ServerExchange};

const CONTINUE: ReasonCode = ReasonCode::ContinueAuthentication;

fn scrambled() -> ConnectOptions {
    options().auto_reconnect(false).scram("alice", "secret")
}

fn auth(reason: ReasonCode, method: &str, data: impl Into<Bytes>) -> Packet {
    Packet::Auth(Box::new(Auth {
        reason,
        properties: AuthProperties {
            authentication_method: Some(ByteString::from(method)),
            authentication_data: Some(data.into()),
            ..AuthProperties::default()
        },
    }))
}

fn accepted(method: &'static str, data: impl Into<Bytes>) -> Packet {
    let mut connack = Connack::new(false, ReasonCode::Success);
    connack.properties.authentication_method = Some(ByteString::from_static(method));
    connack.properties.authentication_data = Some(data.into());
    Packet::Connack(Box::new(connack))
}

fn receive_auth(peer: &mut Peer, reason: ReasonCode) -> Bytes {
    match peer.receive() {
        Packet::Auth(auth) if auth.reason == reason => {
            let method = auth.properties.authentication_method.as_deref();
            assert_eq!(method, Some(scram::METHOD));
            auth.properties.authentication_data.unwrap()
        }
        other => panic!("expected AUTH, got {other:?}"),
    }
}

/// The server's half of an exchange up to its last message, which it returns.
fn prove(peer: &mut Peer, first: &[u8], password: &str) -> String {
    let credentials = Credentials::new(password.as_bytes(), 4096).unwrap();
    let first = ClientFirst::parse(first).unwrap();
    let (exchange, challenge) = ServerExchange::new(&first, credentials, "servernonce");
    peer.send(&auth(CONTINUE, scram::METHOD, challenge));
    let last = receive_auth(peer, CONTINUE);
    exchange.finish(&last).unwrap_or_default()
}

fn first_data(connect: &Connect) -> Bytes {
    let method = connect.properties.authentication_method.as_deref();
    assert_eq!(method, Some(scram::METHOD));
    connect.properties.authentication_data.clone().unwrap()
}

/// Accepts a client that knows the password.
fn welcome(server: &Server) -> Peer {
    let mut peer = server.accept();
    let connect = peer.connect();
    let last = prove(&mut peer, &first_data(&connect), "secret");
    peer.send(&accepted(scram::METHOD, last));
    peer
}

/// [MQTT-4.12.0-2], [MQTT-4.12.0-3]
#[test]
fn scram_proves_both_sides_at_connect_and_again_later() {
    let (url, server) = serve(|server| {
        let mut peer = welcome(server);
        let first = receive_auth(&mut peer, ReasonCode::ReAuthenticate);
        // Messages come and go meanwhile.
        peer.send(&message(QOS0, 0, "meanwhile"));
        let last = prove(&mut peer, &first, "secret");
        peer.send(&auth(ReasonCode::Success, scram::METHOD, last));
        peer.until_end()
    });
    let client = scrambled().connect(&url).unwrap();
    client.reauthenticate().unwrap();
    assert_eq!(text(&client.recv_timeout(DEADLINE).unwrap()), "meanwhile");
    assert_eq!(client.state(), ClientState::Connected);
    drop(client);
    let last = server.join().unwrap();
    assert!(matches!(last, Some(Packet::Disconnect(_))));
}

/// [MQTT-4.12.0-5], and a server that only pretends to know the password.
#[test]
fn a_server_that_is_not_the_right_one_is_not_spoken_with() {
    let answers = [
        accepted(
            scram::METHOD,
            "v=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
        ),
        accepted(scram::METHOD, ""),
        accepted("OTHER", ""),
        Packet::Connack(Box::new(Connack::new(false, ReasonCode::Success))),
    ];
    for answer in answers {
        let (url, server) = serve(move |server| {
            let mut peer = server.accept();
            let connect = peer.connect();
            prove(&mut peer, &first_data(&connect), "secret");
            peer.send(&answer);
            assert!(peer.until_end().is_none());
        });
        let error = scrambled().connect(&url).map(drop).unwrap_err();
        assert!(matches!(error, ClientError::Authentication(_)), "{error:?}");
        server.join().unwrap();
    }
}

#[test]
fn a_refusal_is_the_error_and_no_older_version_is_tried() {
    let (url, server) = serve(|server| {
        let refused = Connack::new(false, ReasonCode::BadAuthenticationMethod);
        server.welcome_with(refused);
    });
    let error = scrambled().connect(&url).map(drop).unwrap_err();
    assert_eq!(error.reason(), Some(ReasonCode::BadAuthenticationMethod));
    server.join().unwrap();
    let older = scrambled().version(ProtocolVersion::V311);
    let error = older.connect("mem://nobody").map(drop).unwrap_err();
    assert!(matches!(error, ClientError::InvalidOption(_)));
}

/// [MQTT-4.12.1-2]: the server ends the connection, and the call says why.
#[test]
fn a_failed_reauthentication_ends_the_connection() {
    use crate::proto::packet::disconnect::Disconnect;
    let (url, server) = serve(|server| {
        let mut peer = welcome(server);
        receive_auth(&mut peer, ReasonCode::ReAuthenticate);
        let refused = Disconnect::new(ReasonCode::NotAuthorized);
        peer.send(&Packet::Disconnect(Box::new(refused)));
        peer
    });
    let client = scrambled().connect(&url).unwrap();
    let error = client.reauthenticate().unwrap_err();
    assert_eq!(error.reason(), Some(ReasonCode::NotAuthorized), "{error:?}");
    server.join().unwrap();

    // A server that does not know the password the second time.
    let (url, server) = serve(|server| {
        let mut peer = welcome(server);
        receive_auth(&mut peer, ReasonCode::ReAuthenticate);
        peer.send(&auth(ReasonCode::Success, scram::METHOD, "v="));
        peer.until_end()
    });
    let client = scrambled().connect(&url).unwrap();
    let error = client.reauthenticate().unwrap_err();
    assert!(matches!(error, ClientError::Authentication(_)), "{error:?}");
    let last = server.join().unwrap();
    assert!(matches!(last, Some(Packet::Disconnect(_))), "{last:?}");
}

#[test]
fn auth_out_of_turn_is_an_error() {
    let (url, server) = serve(|server| {
        let (mut peer, _) = server.welcome(false);
        peer.send(&auth(CONTINUE, "X", ""));
        peer.until_end()
    });
    let client = options().auto_reconnect(false).connect(&url).unwrap();
    let error = client.recv().unwrap_err();
    let expected = crate::proto::ProtocolError::UnexpectedAuth;
    assert!(matches!(error, ClientError::Protocol(found) if found == expected));
    let error = client.reauthenticate().unwrap_err();
    assert!(matches!(error, ClientError::InvalidOption(_)));
    server.join().unwrap();
}

/// A method of the program's own: the server asks twice.
#[test]
fn a_program_may_bring_its_own_method() {
    struct Counting;
    struct Count(u8);
    impl EnhancedAuthentication for Counting {
        fn method(&self) -> &str {
            "COUNT"
        }
        fn begin(
            &self,
        ) -> Result<(Box<dyn AuthenticationExchange>, Option<Bytes>), AuthenticationError> {
            Ok((Box::new(Count(0)), None))
        }
    }
    impl AuthenticationExchange for Count {
        fn answer(&mut self, data: Option<&[u8]>) -> Result<Option<Bytes>, AuthenticationError> {
            assert_eq!(data, Some(&[self.0][..]));
            self.0 += 1;
            Ok(Some(vec![self.0].into()))
        }
        fn finish(&mut self, data: Option<&[u8]>) -> Result<(), AuthenticationError> {
            match data {
                Some([2]) => Ok(()),
                _ => Err(AuthenticationError::Method("miscounted".into())),
            }
        }
    }
    for (last, expected) in [(2, true), (3, false)] {
        let (url, server) = serve(move |server| {
            let mut peer = server.accept();
            assert_eq!(peer.connect().properties.authentication_data, None);
            for number in 0..2 {
                peer.send(&auth(CONTINUE, "COUNT", vec![number]));
                let Packet::Auth(answer) = peer.receive() else {
                    panic!("expected AUTH");
                };
                let data = answer.properties.authentication_data;
                assert_eq!(data.as_deref(), Some(&[number + 1][..]));
            }
            peer.send(&accepted("COUNT", vec![last]));
            peer.until_end();
        });
        let options = options().auto_reconnect(false).authentication(Counting);
        let connected = options.connect(&url).map(drop);
        assert_eq!(connected.is_ok(), expected, "{connected:?}");
        if let Err(error) = connected {
            assert_eq!(error.to_string(), "authentication failed: miscounted");
        }
        server.join().unwrap();
    }
}
