use super::*;

use std::sync::Arc;

use crate::net::dial::{DialOptions, dial};
use crate::net::error::Phase;
use crate::net::url::{Address, Endpoint};

fn parsed(text: &str) -> Option<(Option<String>, u16)> {
    match BindAddress::tcp(text, 1883) {
        Ok(BindAddress::Tcp { host, port }) => Some((host, port)),
        _ => None,
    }
}

#[test]
fn every_way_to_write_a_bind_address_is_understood() {
    let host = |host: &str| Some(host.to_owned());
    assert_eq!(parsed("0.0.0.0:1884"), Some((host("0.0.0.0"), 1884)));
    assert_eq!(parsed("localhost"), Some((host("localhost"), 1883)));
    assert_eq!(parsed("[::1]:7"), Some((host("::1"), 7)));
    assert_eq!(parsed("[::]"), Some((host("::"), 1883)));
    assert_eq!(parsed("::1"), Some((host("::1"), 1883)));
    assert_eq!(parsed(":99"), Some((None, 99)));
    assert_eq!(parsed("*:99"), Some((None, 99)));
    assert_eq!(parsed("99"), Some((None, 99)));
    for wrong in [
        "", ":", "h:", "h:x", "h:70000", "70000", "[::1", "[h]:1", "[::1]1", "a:b:c", "::1:x:",
    ] {
        assert_eq!(parsed(wrong), None, "{wrong}");
    }
}

#[test]
fn a_bind_error_names_the_address() {
    let first = Listener::bind(&BindAddress::tcp("127.0.0.1:0", 0).unwrap()).unwrap();
    let taken = first.local_address().to_string();
    let error = Listener::bind(&BindAddress::tcp(&taken, 0).unwrap()).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with(&format!("cannot listen on {taken}: ")),
        "{error}"
    );
}

/// Accepts, talks, is stopped while a thread waits, and can be bound again at once.
fn serves(bind: &BindAddress, endpoint: impl Fn(&Listener) -> Endpoint) {
    for _ in 0..2 {
        let listener = Arc::new(Listener::bind(bind).unwrap());
        let acceptor = Arc::clone(&listener);
        let (socket, sockets) = crossbeam_channel::bounded(1);
        let accepting = crate::thread::spawn("accept", 0, move || {
            loop {
                match acceptor.accept() {
                    Ok(accepted) => socket.send(accepted).unwrap(),
                    Err(error) => return error,
                }
            }
        })
        .unwrap();
        let ours = dial(&endpoint(&listener), &DialOptions::default())
            .unwrap()
            .socket;
        let theirs = sockets.recv_timeout(Duration::from_secs(20)).unwrap();
        ours.write_all(b"ping").unwrap();
        let mut read = [0; 8];
        assert_eq!(theirs.read(&mut read).unwrap(), 4);
        let refused_at = endpoint(&listener);
        listener.stop();
        assert!(matches!(accepting.join().unwrap(), NetError::Stopped));
        assert!(matches!(
            dial(&refused_at, &DialOptions::default()),
            Err(NetError::Connect(_))
        ));
        theirs.write_all(b"pong").unwrap();
        assert_eq!(
            ours.read(&mut read).unwrap(),
            4,
            "stopping leaves accepted connections alone"
        );
    }
}

fn tcp_endpoint(listener: &Listener) -> Endpoint {
    let address = listener.socket_address().unwrap();
    Endpoint::tcp(
        if address.is_ipv4() {
            "127.0.0.1"
        } else {
            "::1"
        },
        address.port(),
    )
}

#[test]
fn tcp_is_served() {
    serves(&BindAddress::tcp("127.0.0.1:0", 0).unwrap(), tcp_endpoint);
    serves(&BindAddress::tcp("localhost:0", 0).unwrap(), |listener| {
        Endpoint::tcp("localhost", listener.socket_address().unwrap().port())
    });
}

#[test]
fn a_listener_on_every_address_takes_ipv4_and_names_it_so() {
    let listener = Listener::bind(&BindAddress::Tcp {
        host: None,
        port: 0,
    })
    .unwrap();
    let port = listener.socket_address().unwrap().port();
    let _ours = dial(&Endpoint::tcp("127.0.0.1", port), &DialOptions::default()).unwrap();
    let peer = listener.accept().unwrap().peer().to_string();
    assert!(peer.starts_with("127.0.0.1:"), "{peer}");
}

#[test]
fn a_connection_comes_from_the_bound_address() {
    let listener = Listener::bind(&BindAddress::tcp("127.0.0.1:0", 0).unwrap()).unwrap();
    let options = DialOptions {
        bind: Some("127.0.0.9".parse().unwrap()),
        ..DialOptions::default()
    };
    let _ours = dial(&tcp_endpoint(&listener), &options).unwrap();
    let peer = listener.accept().unwrap().peer().to_string();
    assert!(peer.starts_with("127.0.0.9:"), "{peer}");
}

#[test]
fn mem_is_served() {
    let name = "listener-test";
    serves(&BindAddress::Mem(name.to_owned()), |_| {
        Endpoint::at(Address::Mem(name.to_owned()))
    });
}

#[test]
fn a_unix_socket_is_served_and_removed_and_a_dead_one_replaced() {
    let path = std::env::temp_dir().join(format!("hbmqtt-listener-{}.sock", std::process::id()));
    let bind = BindAddress::Unix(path.clone());
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists(), "the standard library leaves the file");
    serves(&bind, |_| Endpoint::at(Address::Unix(path.clone())));
    assert!(!path.exists());
    let live = Listener::bind(&bind).unwrap();
    assert!(
        matches!(Listener::bind(&bind), Err(NetError::Bind(_))),
        "a live one is left alone"
    );
    drop(live);
    assert!(!path.exists());
    fs::write(&path, "a file of somebody").unwrap();
    assert!(Listener::bind(&bind).is_err());
    fs::remove_file(&path).unwrap();
}

#[test]
fn dialling_a_name_without_an_address_says_so() {
    let error = dial(
        &Endpoint::tcp("no-such-host.invalid", 1883),
        &DialOptions::default(),
    )
    .unwrap_err();
    assert!(
        matches!(
            error,
            NetError::Resolve(_) | NetError::Timeout(Phase::Resolve)
        ),
        "{error}"
    );
}
