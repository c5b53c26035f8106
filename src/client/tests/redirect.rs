//! Servers that send the client to others.

use bytestring::ByteString;

use super::server::{Peer, Server, serve};
use super::*;
use crate::proto::packet::disconnect::Disconnect;

const TEMPORARY: ReasonCode = ReasonCode::UseAnotherServer;
const PERMANENT: ReasonCode = ReasonCode::ServerMoved;

fn following() -> ConnectOptions {
    options().follow_redirects(3)
}

/// A CONNACK that sends the client to `url`.
fn away(reason: ReasonCode, url: &str) -> Connack {
    let mut connack = Connack::new(false, reason);
    connack.properties.server_reference = Some(ByteString::from(url));
    connack
}

/// A server that welcomes one client, until it goes.
fn welcoming(server: &Server) -> Option<Packet> {
    server.welcome(false).0.until_end()
}

fn send_away(peer: &Peer, reason: ReasonCode, url: &str) {
    let mut disconnect = Disconnect::new(reason);
    disconnect.properties.server_reference = Some(ByteString::from(url));
    peer.send(&Packet::Disconnect(Box::new(disconnect)));
}

fn problem(error: &ClientError) -> RedirectProblem {
    match error {
        ClientError::Redirect(redirect) => redirect.problem,
        other => panic!("expected a redirection, got {other:?}"),
    }
}

#[test]
fn without_being_asked_the_client_goes_nowhere() {
    let (url, server) = serve(|server| {
        server.welcome_with(away(TEMPORARY, "mem://elsewhere"));
    });
    let error = options().connect(&url).map(drop).unwrap_err();
    assert_eq!(error.reason(), Some(TEMPORARY));
    let ClientError::Refused(refusal) = &error else {
        panic!("{error:?}");
    };
    assert_eq!(refusal.server_reference.as_deref(), Some("mem://elsewhere"));
    assert!(error.to_string().ends_with("(use mem://elsewhere)"));
    server.join().unwrap();
}

/// Of a list the first that is there; the identifier and the credentials go along.
#[test]
fn a_refusal_with_a_reference_leads_to_the_other_server() {
    let (other, second) = serve(|server| {
        let (mut peer, connect) = server.welcome(false);
        peer.until_end();
        connect
    });
    let list = format!("mem://nobody {other}");
    let (url, first) = serve(move |server| server.welcome_with(away(TEMPORARY, &list)).1);
    let with_user = following().credentials("me", "secret");
    drop(with_user.connect(&url).unwrap());
    let (first, second) = (first.join().unwrap(), second.join().unwrap());
    assert_eq!(first, second);
    assert_eq!(second.user_name.as_deref(), Some("me"));
}

/// A temporary reference holds for one connection, a permanent one for good.
#[test]
fn the_next_connection_begins_where_the_reason_says() {
    for (reason, homes, others) in [(TEMPORARY, 2, 2), (PERMANENT, 1, 2)] {
        let (other, second) = serve(move |server| {
            drop(server.welcome(false));
            welcoming(server);
            2
        });
        let (url, first) = serve(move |server| {
            for _ in 0..homes {
                server.welcome_with(away(reason, &other));
            }
            homes
        });
        let (sender, connections) = crossbeam_channel::bounded(10);
        let on_state = move |event: &StateEvent| {
            if let StateEvent::Connected { .. } = event {
                sender.send(()).unwrap();
            }
        };
        let client = following().on_state(on_state).connect(&url).unwrap();
        for _ in 0..others {
            connections.recv_timeout(DEADLINE).unwrap();
        }
        drop(client);
        assert_eq!(
            (first.join().unwrap(), second.join().unwrap()),
            (homes, others)
        );
    }
}

#[test]
fn a_disconnect_with_a_reference_leads_to_the_other_server() {
    for reason in [TEMPORARY, PERMANENT] {
        let (other, second) = serve(|server| {
            let (mut peer, _) = server.welcome(false);
            let subscribe = peer.subscribe();
            let publish = peer.take_qos1();
            peer.until_end();
            (subscribe, publish)
        });
        let (url, first) = serve(move |server| {
            let (mut peer, _) = server.welcome(false);
            peer.subscribe();
            peer.publish();
            send_away(&peer, reason, &other);
            peer.until_end();
        });
        let client = following().connect(&url).unwrap();
        client.subscribe([("a/#", QOS1)]).unwrap();
        client.publish("a/b", "moved", QOS1).unwrap();
        drop(client);
        first.join().unwrap();
        let (subscribe, publish) = second.join().unwrap();
        assert_eq!(subscribe.filters[0].0, "a/#");
        assert_eq!(publish.payload, "moved");
    }
}

#[test]
fn servers_that_send_the_client_round_are_an_error() {
    let (name, known) = std::sync::mpsc::channel::<String>();
    let (second_url, second) = serve(move |server| {
        let back = known.recv().unwrap();
        server.welcome_with(away(TEMPORARY, &back));
    });
    let (url, first) = serve(move |server| {
        server.welcome_with(away(TEMPORARY, &second_url));
    });
    name.send(url.clone()).unwrap();
    let error = following().connect(&url).map(drop).unwrap_err();
    assert_eq!(problem(&error), RedirectProblem::Loop);
    assert_eq!(error.reason(), Some(TEMPORARY));
    first.join().unwrap();
    second.join().unwrap();
}

#[test]
fn the_number_of_redirections_is_bounded() {
    let (end, _nobody_comes) = serve(|_| ());
    let mut url = end;
    let mut servers = Vec::new();
    for _ in 0..3 {
        let to = url.clone();
        let (from, server) = serve(move |server| {
            server.welcome_with(away(PERMANENT, &to));
        });
        url = from;
        servers.push(server);
    }
    let error = options()
        .follow_redirects(2)
        .connect(&url)
        .map(drop)
        .unwrap_err();
    assert_eq!(problem(&error), RedirectProblem::TooMany);
    for server in servers {
        server.join().unwrap();
    }
}

/// Two servers that take turns in ending the connection as soon as it is made.
#[test]
fn being_sent_away_at_once_again_and_again_is_bounded_too() {
    let (name, known) = std::sync::mpsc::channel::<String>();
    let (second_url, second) = serve(move |server| {
        let back = known.recv().unwrap();
        let (peer, _) = server.welcome(false);
        send_away(&peer, TEMPORARY, &back);
        peer
    });
    let (url, first) = serve(move |server| {
        [(); 2].map(|()| {
            let (peer, _) = server.welcome(false);
            send_away(&peer, TEMPORARY, &second_url);
            peer
        })
    });
    name.send(url.clone()).unwrap();
    let client = options().follow_redirects(2).connect(&url).unwrap();
    let error = client.recv().unwrap_err();
    assert_eq!(problem(&error), RedirectProblem::TooMany);
    drop((first.join().unwrap(), second.join().unwrap()));
}

#[test]
fn a_reference_that_leads_nowhere_is_an_error() {
    for reference in ["", "a:b:c", "mqtt://there"] {
        let (url, server) = serve(move |server| {
            server.welcome_with(away(TEMPORARY, reference));
        });
        let error = following().connect(&url).map(drop).unwrap_err();
        assert_eq!(problem(&error), RedirectProblem::Unusable, "{reference}");
        server.join().unwrap();
    }
}
