#![expect(
    clippy::disallowed_methods,
    reason = "deadlines of tests are taken from the clock"
)]

use super::*;

use std::path::PathBuf;

use bytes::Bytes;
use crossbeam_channel::bounded;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, SanType};

use crate::net::dial::{DialOptions, Dialled, dial};
use crate::net::listener::{BindAddress, Listener};
use crate::net::tls::{
    CaSources, ClientCertificates, ClientTls, ClientTlsOptions, ServerTlsOptions, TlsVersions,
    Verification, server_config,
};
use crate::net::url::Endpoint;
use crate::outbox::{OutBuf, Outbox, OutboxOptions, SendOutcome};

const PATIENCE: Duration = Duration::from_secs(20);

fn soon() -> Instant {
    Instant::now() + PATIENCE
}

/// Files of one test, removed at its end.
struct Files(PathBuf);

impl Files {
    fn new(test: &str) -> Self {
        let folder =
            std::env::temp_dir().join(format!("hbmqtt-transport-{test}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }

    fn write(&self, name: &str, content: &str) -> PathBuf {
        let file = self.0.join(name);
        std::fs::write(&file, content).unwrap();
        file
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

type Issuer = CertifiedIssuer<'static, KeyPair>;

fn issuer(name: &str) -> Issuer {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, name);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// Certificate and key, PEM.
fn issued(by: &Issuer, common_name: &str, name: &str) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    params
        .distinguished_name
        .push(DnType::CommonName, common_name);
    (
        params.signed_by(&key, by).unwrap().pem(),
        key.serialize_pem(),
    )
}

/// What `openssl req -x509` makes: self-signed, and a CA.
fn self_signed_ca(name: &str) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
        .subject_alt_names
        .push(SanType::DnsName(name.try_into().unwrap()));
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

fn server(
    files: &Files,
    (certificate, key): (String, String),
    more: ServerTlsOptions,
) -> Result<Arc<ServerConfig>, NetError> {
    server_config(&ServerTlsOptions {
        certificate_file: files.write("server.crt", &certificate),
        key_file: files.write("server.key", &key),
        ..more
    })
}

fn client(options: &ClientTlsOptions) -> DialOptions {
    DialOptions {
        tls: Some(ClientTls::new(options).unwrap()),
        ..DialOptions::default()
    }
}

fn trusting(ca: &str) -> ClientTlsOptions {
    ClientTlsOptions {
        ca: CaSources {
            data: Some(ca.to_owned()),
            ..CaSources::default()
        },
        ..ClientTlsOptions::default()
    }
}

/// Dials `url` with `{port}` filled in, and accepts what arrives.
fn connect(
    url: &str,
    acceptor: Acceptor,
    options: &DialOptions,
) -> (Result<Dialled, NetError>, Result<Accepted, NetError>) {
    let listener = Listener::bind(&BindAddress::tcp("127.0.0.1:0", 0).unwrap()).unwrap();
    let url = url.replace(
        "{port}",
        &listener.socket_address().unwrap().port().to_string(),
    );
    let (accepted, is_accepted) = bounded(1);
    let accepting = move || {
        accepted
            .send(accept(listener.accept().unwrap(), &acceptor, soon()))
            .unwrap()
    };
    crate::thread::spawn("accept", 0, accepting).unwrap();
    let dialled = dial(&Endpoint::parse(&url).unwrap(), options);
    (dialled, is_accepted.recv_timeout(PATIENCE).unwrap())
}

fn outbox(socket: &Arc<Socket>, layers: Layers) -> Arc<Outbox> {
    Outbox::new(
        Arc::clone(socket),
        layers,
        OutboxOptions::default(),
        Box::new(|_| ()),
    )
}

/// Reads through the outbox's layers until `count` plain bytes or the end are there.
fn read(outbox: &Arc<Outbox>, socket: &Socket, early: &[u8], count: usize) -> Vec<u8> {
    let mut plain = BytesMut::from(early);
    let mut raw = [0; 1000];
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    while plain.len() < count {
        let received = socket.read(&mut raw).unwrap();
        if received == 0
            || outbox.receive(&raw[..received], &mut plain).unwrap() == Received::Closed
        {
            break;
        }
    }
    plain.into()
}

/// Both sides send a megabyte at once, in pieces of all sizes, then the client closes.
fn talk(dialled: Dialled, accepted: Accepted) {
    let (one, other) = (Arc::new(dialled.socket), Arc::new(accepted.socket));
    let (client, server) = (
        outbox(&one, dialled.layers),
        outbox(&other, accepted.layers),
    );
    let (mut sent, mut answer) = (Vec::new(), Vec::new());
    let mut buf = OutBuf::new();
    for size in (0..1400_u32).chain([65_535, 65_536, 100_000]) {
        let piece: Vec<u8> = (0..size)
            .map(|at| u8::try_from((at ^ size) & 0xff).unwrap())
            .collect();
        buf.bytes_mut().extend_from_slice(&piece);
        buf.push_shared(Bytes::from(piece.clone()));
        sent.extend([&piece[..], &piece[..]].concat());
        assert_ne!(client.send(&mut buf), SendOutcome::Closed);
        buf.bytes_mut().extend_from_slice(&piece);
        answer.extend_from_slice(&piece);
        assert_ne!(server.append(&mut buf), SendOutcome::Closed);
        assert_ne!(server.flush(), SendOutcome::Closed);
    }
    let (got, is_got) = bounded(1);
    let (reading, its_socket, length) = (Arc::clone(&server), Arc::clone(&other), sent.len());
    let early = accepted.early;
    crate::thread::spawn("reader", 0, move || {
        got.send(read(&reading, &its_socket, &early, length))
            .unwrap()
    })
    .unwrap();
    assert!(read(&client, &one, &dialled.early, answer.len()) == answer);
    assert!(is_got.recv_timeout(PATIENCE).unwrap() == sent);
    client.close();
    assert_eq!(
        read(&server, &other, &[], 1),
        [],
        "the goodbye is understood"
    );
    server.close();
    assert_eq!(read(&client, &one, &[], 1), []);
}

fn tls_acceptor(config: Arc<ServerConfig>) -> Acceptor {
    Acceptor {
        tls: Some(config),
        ..Acceptor::default()
    }
}

#[test]
fn tls_carries_bytes_both_ways_in_both_versions() {
    let files = Files::new("both");
    let ca = issuer("Test CA");
    let config = server(
        &files,
        issued(&ca, "server", "localhost"),
        ServerTlsOptions::default(),
    )
    .unwrap();
    for versions in [TlsVersions::Only12, TlsVersions::Only13] {
        let options = client(&ClientTlsOptions {
            versions,
            ..trusting(&ca.pem())
        });
        let (dialled, accepted) = connect(
            "mqtts://localhost:{port}",
            tls_acceptor(Arc::clone(&config)),
            &options,
        );
        talk(dialled.unwrap(), accepted.unwrap());
    }
}

#[test]
fn websocket_carries_bytes_both_ways_with_and_without_tls() {
    let files = Files::new("ws");
    let ca = issuer("Test CA");
    let config = server(
        &files,
        issued(&ca, "server", "localhost"),
        ServerTlsOptions::default(),
    )
    .unwrap();
    let options = client(&trusting(&ca.pem()));
    for (url, tls) in [
        ("ws://localhost:{port}/mqtt?a=b", None),
        ("wss://localhost:{port}", Some(config)),
    ] {
        let acceptor = Acceptor {
            tls,
            websocket: Some(WebSocketOptions::default()),
            proxy: None,
        };
        let (dialled, accepted) = connect(url, acceptor, &options);
        talk(dialled.unwrap(), accepted.unwrap());
    }
}
