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
use crate::net::upgrade;
use crate::net::url::Endpoint;
use crate::net::websocket::Role;
use crate::outbox::{OutBuf, Outbox, OutboxOptions, SendOutcome};
use crate::thread::{CONNECTION_STACK_BYTES, Pool};

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

/// Public part only; made by `openssl x509 -req` without extensions.
const VERSION_1: &str = "\
-----BEGIN CERTIFICATE-----
MIIBJTCBywIUOPN0Rrs7/RifO8W7QoGIr9qmPJ8wCgYIKoZIzj0EAwIwFDESMBAG
A1UEAwwJbG9jYWxob3N0MCAXDTI2MTEyMjE4MjU1MloYDzIxMjYxMDI5MTgyNTUy
WjAUMRIwEAYDVQQDDAlsb2NhbGhvc3QwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNC
AAQpmX0satyDH91Fk029sDEwzJPx212sCoebfpMm5yFlyaGIdSdNU04sXm19WMb5
mCs7wbTkShKvR7SfMA79Ldp3MAoGCCqGSM49BAMCA0kAMEYCIQDAeB5PKfdnTGWk
YY6498zna1ynsxTPLTc/9Kk/8o6zcwIhAP36BMokxX/Ymnun2BnQJZZYPbGnBwjM
T81E2bdkfXHr
-----END CERTIFICATE-----
";

fn message<T>(result: Result<T, NetError>) -> String {
    result.err().unwrap().to_string()
}

/// Dials and says what the client and the server think of it. A TLS 1.3 client learns of a refused certificate only with the first byte.
fn verdicts(
    config: &Arc<ServerConfig>,
    host: &str,
    options: &ClientTlsOptions,
) -> (
    Result<(), NetError>,
    Result<Option<PeerCertificate>, NetError>,
) {
    let url = format!("mqtts://{host}:{{port}}");
    let (dialled, accepted) = connect(&url, tls_acceptor(Arc::clone(config)), &client(options));
    (
        dialled.map(drop),
        accepted.map(|accepted| accepted.certificate),
    )
}

#[test]
fn a_self_signed_ca_certificate_serves_who_trusts_exactly_it() {
    let files = Files::new("selfsigned");
    let mine = self_signed_ca("localhost");
    let other = self_signed_ca("localhost");
    let config = server(&files, mine.clone(), ServerTlsOptions::default()).unwrap();
    let both = format!("{}{}", other.0, mine.0);
    for trusted in [&mine.0, &both] {
        let (client, server) = verdicts(&config, "localhost", &trusting(trusted));
        client.unwrap();
        server.unwrap();
    }
    let told = message(verdicts(&config, "localhost", &trusting(&other.0)).0);
    assert!(
        told.contains("put exactly this certificate into the CA file"),
        "{told}"
    );
    let (refused, server) = verdicts(&config, "127.0.0.1", &trusting(&mine.0));
    let told = message(refused);
    assert!(told.contains("names are those in subjectAltName"), "{told}");
    assert!(
        matches!(server, Err(NetError::Tls(_))),
        "the server gets the alert: {server:?}"
    );
    let any_name = ClientTlsOptions {
        verification: Verification::InsecureAnyName,
        ..trusting(&mine.0)
    };
    verdicts(&config, "127.0.0.1", &any_name).0.unwrap();
}

#[test]
fn a_certificate_is_refused_for_its_name_its_age_and_its_issuer() {
    let files = Files::new("refused");
    let ca = issuer("Test CA");
    let config = server(
        &files,
        issued(&ca, "localhost", "other.example"),
        ServerTlsOptions::default(),
    )
    .unwrap();
    let told = message(verdicts(&config, "localhost", &trusting(&ca.pem())).0);
    assert!(told.contains("its Common Name does not count"), "{told}");
    let told = message(verdicts(&config, "localhost", &trusting(&issuer("Other CA").pem())).0);
    assert!(told.contains("not signed by a trusted CA"), "{told}");
    let named = ClientTlsOptions {
        server_name: Some("other.example".to_owned()),
        ..trusting(&ca.pem())
    };
    verdicts(&config, "localhost", &named).0.unwrap();
    let any_name = ClientTlsOptions {
        verification: Verification::InsecureAnyName,
        ..trusting(&ca.pem())
    };
    verdicts(&config, "localhost", &any_name).0.unwrap();
    let any_name_of_others = ClientTlsOptions {
        verification: Verification::InsecureAnyName,
        ..trusting(&issuer("Other CA").pem())
    };
    assert!(
        verdicts(&config, "localhost", &any_name_of_others)
            .0
            .is_err()
    );
    let nothing = ClientTlsOptions {
        verification: Verification::InsecureNothing,
        ..ClientTlsOptions::default()
    };
    verdicts(&config, "localhost", &nothing).0.unwrap();

    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    params.not_after = rcgen::date_time_ymd(2001, 1, 1);
    let expired = params.signed_by(&key, &ca).unwrap().pem();
    let config = server(
        &files,
        (expired, key.serialize_pem()),
        ServerTlsOptions::default(),
    )
    .unwrap();
    let told = message(verdicts(&config, "localhost", &trusting(&ca.pem())).0);
    assert!(told.contains("check the clock"), "{told}");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let expired = params.self_signed(&key).unwrap().pem();
    let config = server(
        &files,
        (expired.clone(), key.serialize_pem()),
        ServerTlsOptions::default(),
    )
    .unwrap();
    let told = message(verdicts(&config, "localhost", &trusting(&expired)).0);
    assert!(
        told.contains("check the clock"),
        "an expired one is not accepted because it is in the CA file: {told}"
    );
}

#[test]
fn client_certificates_are_asked_for_as_configured() {
    let files = Files::new("clients");
    let ca = issuer("Client CA");
    let identity = |ca: &Issuer, name: &str| {
        let (certificate, key) = issued(ca, name, "client.example");
        Some((
            files.write(&format!("{name}.crt"), &certificate),
            files.write(&format!("{name}.key"), &key),
        ))
    };
    let mine = issued(&ca, "server", "localhost");
    let config = |client_certificates| {
        let ca = CaSources {
            file: Some(files.write("ca.crt", &ca.pem())),
            ..CaSources::default()
        };
        server(
            &files,
            mine.clone(),
            ServerTlsOptions {
                ca,
                client_certificates,
                ..ServerTlsOptions::default()
            },
        )
        .unwrap()
    };
    let anonymous = trusting(&ca.pem());
    let known = ClientTlsOptions {
        certificate: identity(&ca, "meter"),
        ..anonymous.clone()
    };
    let stranger = ClientTlsOptions {
        certificate: identity(&issuer("Other CA"), "stranger"),
        ..anonymous.clone()
    };
    let name = |certificate: Option<PeerCertificate>| {
        certificate.and_then(|certificate| certificate.common_name)
    };

    let none = config(ClientCertificates::None);
    assert_eq!(verdicts(&none, "localhost", &known).1.unwrap(), None);
    let optional = config(ClientCertificates::Optional);
    assert_eq!(
        verdicts(&optional, "localhost", &anonymous).1.unwrap(),
        None
    );
    assert_eq!(
        name(verdicts(&optional, "localhost", &known).1.unwrap()).as_deref(),
        Some("meter")
    );
    assert!(matches!(
        verdicts(&optional, "localhost", &stranger).1,
        Err(NetError::Tls(_))
    ));
    let required = config(ClientCertificates::Required);
    assert_eq!(
        name(verdicts(&required, "localhost", &known).1.unwrap()).as_deref(),
        Some("meter")
    );
    assert!(matches!(
        verdicts(&required, "localhost", &stranger).1,
        Err(NetError::Tls(_))
    ));
    assert!(matches!(
        verdicts(&required, "localhost", &anonymous).1,
        Err(NetError::Tls(_))
    ));
}

#[test]
fn a_client_learns_why_the_server_refuses_its_certificate() {
    let files = Files::new("learns");
    let ca = issuer("Client CA");
    let sources = CaSources {
        data: Some(ca.pem()),
        ..CaSources::default()
    };
    let options = ServerTlsOptions {
        ca: sources,
        client_certificates: ClientCertificates::Required,
        ..ServerTlsOptions::default()
    };
    let config = server(&files, issued(&ca, "server", "localhost"), options).unwrap();
    let only12 = ClientTlsOptions {
        versions: TlsVersions::Only12,
        ..trusting(&ca.pem())
    };
    let told = message(verdicts(&config, "localhost", &only12).0);
    assert!(told.contains("alert"), "{told}");
    let (dialled, accepted) = connect(
        "mqtts://localhost:{port}",
        tls_acceptor(config),
        &client(&trusting(&ca.pem())),
    );
    assert!(accepted.is_err());
    let dialled = dialled.unwrap();
    let socket = Arc::new(dialled.socket);
    let outbox = outbox(&socket, dialled.layers);
    let mut raw = [0; 1000];
    let error = loop {
        let count = socket.read(&mut raw).unwrap();
        assert_ne!(count, 0, "the end came before the alert");
        if let Err(error) = outbox.receive(&raw[..count], &mut BytesMut::new()) {
            break error.to_string();
        }
    };
    assert!(
        error.contains("wants another certificate, or one at all"),
        "{error}"
    );
}

#[test]
fn a_revoked_client_certificate_is_refused() {
    let files = Files::new("revoked");
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![
        rcgen::KeyUsagePurpose::KeyCertSign,
        rcgen::KeyUsagePurpose::CrlSign,
    ];
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let identity = |serial: u64| {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["client.example".to_owned()]).unwrap();
        params.serial_number = Some(serial.into());
        let certificate = params.signed_by(&key, &ca).unwrap().pem();
        let files = (
            files.write(&format!("{serial}.crt"), &certificate),
            files.write(&format!("{serial}.key"), &key.serialize_pem()),
        );
        ClientTlsOptions {
            certificate: Some(files),
            ..trusting(&ca.pem())
        }
    };
    let revoked = rcgen::RevokedCertParams {
        serial_number: 13_u64.into(),
        revocation_time: rcgen::date_time_ymd(2020, 1, 1),
        reason_code: None,
        invalidity_date: None,
    };
    let list = rcgen::CertificateRevocationListParams {
        this_update: rcgen::date_time_ymd(2020, 1, 1),
        next_update: rcgen::date_time_ymd(2200, 1, 1),
        crl_number: 1_u64.into(),
        issuing_distribution_point: None,
        revoked_certs: vec![revoked],
        key_identifier_method: rcgen::KeyIdMethod::Sha256,
    };
    let options = ServerTlsOptions {
        ca: CaSources {
            data: Some(ca.pem()),
            ..CaSources::default()
        },
        client_certificates: ClientCertificates::Required,
        revocation_file: Some(
            files.write("list.crl", &list.signed_by(&ca).unwrap().pem().unwrap()),
        ),
        ..ServerTlsOptions::default()
    };
    let config = server(&files, issued(&ca, "server", "localhost"), options).unwrap();
    assert!(verdicts(&config, "localhost", &identity(12)).1.is_ok());
    let told = message(verdicts(&config, "localhost", &identity(13)).1);
    assert!(told.contains("Revoked"), "{told}");
}

#[test]
fn a_ca_folder_is_read_file_by_file() {
    let files = Files::new("folder");
    let ca = issuer("Test CA");
    let folder = files.0.join("certs");
    std::fs::create_dir(&folder).unwrap();
    let sources = || CaSources {
        path: Some(folder.clone()),
        ..CaSources::default()
    };
    let told = message(ClientTls::new(&ClientTlsOptions {
        ca: sources(),
        ..ClientTlsOptions::default()
    }));
    assert!(told.contains("no file in this directory"), "{told}");
    std::fs::write(folder.join("one.pem"), issuer("Other CA").pem()).unwrap();
    std::fs::write(folder.join("README"), "no certificate").unwrap();
    std::fs::write(folder.join("two.pem"), ca.pem()).unwrap();
    std::fs::create_dir(folder.join("sub")).unwrap();
    let config = server(
        &files,
        issued(&ca, "server", "localhost"),
        ServerTlsOptions::default(),
    )
    .unwrap();
    verdicts(
        &config,
        "localhost",
        &ClientTlsOptions {
            ca: sources(),
            ..ClientTlsOptions::default()
        },
    )
    .0
    .unwrap();
}

#[test]
fn files_that_cannot_be_used_are_named_with_a_hint() {
    let files = Files::new("files");
    let ca = issuer("Test CA");
    let (certificate, key) = issued(&ca, "server", "localhost");
    let (_, other_key) = issued(&ca, "server", "localhost");
    let encrypted =
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIHs\n-----END ENCRYPTED PRIVATE KEY-----\n";
    let old_encrypted = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\nMIHs\n-----END RSA PRIVATE KEY-----\n";
    for (certificate, key, expected) in [
        (
            VERSION_1,
            &key[..],
            "server.crt: invalid peer certificate: Other(OtherError(UnsupportedCertVersion)) (the certificate is X.509 version 1",
        ),
        (
            &certificate,
            encrypted,
            "server.key: the private key is encrypted, which is not supported (decrypt it once: openssl pkey",
        ),
        (
            &certificate,
            old_encrypted,
            "server.key: the private key is encrypted",
        ),
        (
            &certificate,
            &certificate,
            "server.key: no PEM private key found",
        ),
        (&key, &key, "server.crt: no PEM certificate found"),
        (
            "-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----\n",
            &key,
            "server.crt: not valid PEM",
        ),
        (&certificate, &other_key, "do not belong together"),
    ] {
        let told = message(server(
            &files,
            (certificate.to_owned(), key.to_owned()),
            ServerTlsOptions::default(),
        ));
        assert!(told.contains(expected), "{told}");
    }
    let missing = ServerTlsOptions {
        certificate_file: files.0.join("missing.crt"),
        ..ServerTlsOptions::default()
    };
    let told = message(server_config(&missing));
    assert!(told.contains("missing.crt: No such file"), "{told}");
    let no_ca = ServerTlsOptions {
        client_certificates: ClientCertificates::Optional,
        ..ServerTlsOptions::default()
    };
    let told = message(server(&files, (certificate, key), no_ca));
    assert!(told.contains("set cafile, capath or cadata"), "{told}");
}

#[test]
fn a_client_that_meets_no_tls_is_told_so() {
    let (ours, theirs) = Socket::pair("plain").unwrap();
    theirs
        .write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        .unwrap();
    let tls = ClientTls::new(&trusting(&issuer("Test CA").pem()))
        .unwrap()
        .connect("localhost")
        .unwrap();
    let told = message(Handshake::new(&ours, soon()).tls(tls));
    assert!(told.contains("is it the right port?"), "{told}");
}

#[test]
fn a_new_configuration_leaves_open_connections_alone() {
    let files = Files::new("reload");
    let (old, new) = (issuer("Old CA"), issuer("New CA"));
    let old_config = server(
        &files,
        issued(&old, "server", "localhost"),
        ServerTlsOptions::default(),
    )
    .unwrap();
    let (dialled, accepted) = connect(
        "mqtts://localhost:{port}",
        tls_acceptor(old_config),
        &client(&trusting(&old.pem())),
    );
    let new_config = server(
        &files,
        issued(&new, "server", "localhost"),
        ServerTlsOptions::default(),
    )
    .unwrap();
    verdicts(&new_config, "localhost", &trusting(&new.pem()))
        .0
        .unwrap();
    assert!(
        verdicts(&new_config, "localhost", &trusting(&old.pem()))
            .0
            .is_err()
    );
    talk(dialled.unwrap(), accepted.unwrap());
}

/// Sends `bytes` one at a time for as long as somebody listens.
fn drip(socket: Socket, bytes: &'static [u8]) {
    let (_never, nothing) = bounded::<()>(0);
    let drop_by_drop = move || {
        for byte in bytes.iter().cycle() {
            if socket.write_all(&[*byte]).is_err() {
                break;
            }
            let _ = nothing.recv_timeout(Duration::from_millis(5));
        }
        drop(_never);
    };
    crate::thread::spawn("drip", 0, drop_by_drop).unwrap();
}

#[test]
fn a_handshake_that_never_ends_is_cut_at_its_deadline() {
    let files = Files::new("slow");
    let ca = issuer("Test CA");
    let config = server(
        &files,
        issued(&ca, "server", "localhost"),
        ServerTlsOptions::default(),
    )
    .unwrap();
    let websocket = || Some(WebSocketOptions::default());
    // The beginning of a ClientHello of 512 bytes, and zeroes.
    const HELLO: &[u8] = &[
        0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        0, 0, 0, 0, 0,
    ];
    for (acceptor, bytes, phase) in [
        (
            tls_acceptor(Arc::clone(&config)),
            HELLO,
            Phase::TlsHandshake,
        ),
        (
            Acceptor {
                websocket: websocket(),
                ..Acceptor::default()
            },
            &b"GET / HTTP/1.1\r\nX: "[..],
            Phase::WebSocketHandshake,
        ),
    ] {
        for silent in [true, false] {
            let (ours, theirs) = Socket::pair("slow").unwrap();
            let theirs = if silent {
                Some(theirs)
            } else {
                drip(theirs, bytes);
                None
            };
            let begin = Instant::now();
            let result = accept(ours, &acceptor, begin + Duration::from_millis(100));
            assert!(
                matches!(result, Err(NetError::Timeout(at)) if at == phase),
                "{result:?}"
            );
            assert!(begin.elapsed() < PATIENCE / 2);
            if let Some(theirs) = theirs {
                assert_eq!(
                    theirs.read(&mut [0; 10]).unwrap(),
                    0,
                    "the socket is closed"
                );
            }
        }
    }
}

#[test]
fn a_handshake_whose_peer_goes_away_says_in_which_phase() {
    let files = Files::new("gone");
    let ca = issuer("Test CA");
    let config = server(
        &files,
        issued(&ca, "server", "localhost"),
        ServerTlsOptions::default(),
    )
    .unwrap();
    for (acceptor, phase) in [
        (tls_acceptor(config), Phase::TlsHandshake),
        (
            Acceptor {
                websocket: Some(WebSocketOptions::default()),
                ..Acceptor::default()
            },
            Phase::WebSocketHandshake,
        ),
    ] {
        let (ours, theirs) = Socket::pair("gone").unwrap();
        drop(theirs);
        let result = accept(ours, &acceptor, soon());
        assert!(
            matches!(result, Err(NetError::Closed(at)) if at == phase),
            "{result:?}"
        );
    }
}

#[test]
fn garbage_instead_of_a_handshake_is_refused() {
    let files = Files::new("garbage");
    let ca = issuer("Test CA");
    let config = server(
        &files,
        issued(&ca, "server", "localhost"),
        ServerTlsOptions::default(),
    )
    .unwrap();
    for (acceptor, garbage, answer) in [
        (
            tls_acceptor(Arc::clone(&config)),
            &b"GET / HTTP/1.1\r\n\r\n"[..],
            &[0x15, 3][..],
        ),
        (
            tls_acceptor(Arc::clone(&config)),
            &b"\x10\x0c\0\x04MQTT\x04\x02\0\x3c\0\0"[..],
            &[0x15, 3],
        ),
        (
            Acceptor {
                websocket: Some(WebSocketOptions::default()),
                ..Acceptor::default()
            },
            b"GET / HTTP/1.1\r\n\r\n",
            b"HTTP/1.1 426 ",
        ),
        (
            Acceptor {
                websocket: Some(WebSocketOptions::default()),
                ..Acceptor::default()
            },
            b"\x16\x03\x01\r\n\r\n",
            b"HTTP/1.1 400 ",
        ),
        (
            Acceptor {
                websocket: Some(WebSocketOptions::default()),
                ..Acceptor::default()
            },
            &[b'x'; 20_000],
            b"HTTP/1.1 431 ",
        ),
    ] {
        let (ours, theirs) = Socket::pair("garbage").unwrap();
        theirs.write_all(garbage).unwrap();
        accept(ours, &acceptor, soon()).unwrap_err();
        let mut read = [0; 1000];
        let count = theirs.read(&mut read).unwrap();
        assert!(
            read[..count].starts_with(answer),
            "{}",
            String::from_utf8_lossy(&read[..count])
        );
    }
}

#[test]
fn a_proxy_names_who_is_behind_it_and_others_cannot() {
    let behind = |header: &str, trusted: bool, websocket: bool| {
        let acceptor = Acceptor {
            proxy: Some(Box::new(move |ip| trusted && ip.is_loopback())),
            websocket: websocket.then(WebSocketOptions::default),
            tls: None,
        };
        let listener = Listener::bind(&BindAddress::tcp("127.0.0.1:0", 0).unwrap()).unwrap();
        let dialled = dial(
            &Endpoint::tcp("127.0.0.1", listener.socket_address().unwrap().port()),
            &DialOptions::default(),
        )
        .unwrap();
        dialled.socket.write_all(header.as_bytes()).unwrap();
        (
            accept(listener.accept().unwrap(), &acceptor, soon()),
            dialled.socket,
        )
    };
    let (accepted, _) = behind(
        "PROXY TCP4 192.0.2.7 198.51.100.1 56324 1883\r\nearly",
        true,
        false,
    );
    let accepted = accepted.unwrap();
    assert_eq!(
        (accepted.peer.to_string(), &accepted.early[..]),
        ("192.0.2.7:56324".to_owned(), &b"early"[..])
    );
    let (accepted, _) = behind("PROXY UNKNOWN\r\n", true, false);
    assert!(accepted.unwrap().peer.to_string().starts_with("127.0.0.1:"));
    let (refused, _) = behind("\x10\x0c\0\x04MQTT", true, false);
    assert!(
        matches!(refused, Err(NetError::ProxyHeader(_))),
        "{refused:?}"
    );
    let (accepted, _) = behind(
        "PROXY TCP4 192.0.2.7 198.51.100.1 56324 1883\r\n",
        false,
        false,
    );
    let accepted = accepted.unwrap();
    assert!(
        accepted.peer.to_string().starts_with("127.0.0.1:") && accepted.early.is_empty(),
        "the header is left for MQTT to refuse"
    );
    let request = "GET / HTTP/1.1\r\nHost: h\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n\u{2}\0";
    let header = format!("PROXY TCP6 2001:db8::7 ::1 5 6\r\n{request}");
    let (accepted, client) = behind(&header, true, true);
    assert!(
        matches!(accepted, Err(NetError::WebSocket(_))),
        "an early frame without a mask: {accepted:?}"
    );
    let mut read = [0; 1000];
    let count = client.read(&mut read).unwrap();
    assert!(read[..count].starts_with(b"HTTP/1.1 101 "));
}

#[test]
fn both_handshakes_fit_the_stack_of_a_connection() {
    let files = Files::new("stack");
    let ca = issuer("Test CA");
    let sources = CaSources {
        data: Some(ca.pem()),
        ..CaSources::default()
    };
    let options = ServerTlsOptions {
        ca: sources,
        client_certificates: ClientCertificates::Required,
        ..ServerTlsOptions::default()
    };
    let config = server(&files, issued(&ca, "server", "localhost"), options).unwrap();
    let (certificate, key) = issued(&ca, "client", "client.example");
    let identity = Some((
        files.write("client.crt", &certificate),
        files.write("client.key", &key),
    ));
    let pool = Pool::new(CONNECTION_STACK_BYTES, PATIENCE);
    for versions in [TlsVersions::Only12, TlsVersions::Only13] {
        let options = client(&ClientTlsOptions {
            certificate: identity.clone(),
            versions,
            ..trusting(&ca.pem())
        });
        let listener = Listener::bind(&BindAddress::tcp("127.0.0.1:0", 0).unwrap()).unwrap();
        let url = format!(
            "wss://localhost:{}",
            listener.socket_address().unwrap().port()
        );
        let acceptor = Acceptor {
            tls: Some(Arc::clone(&config)),
            websocket: Some(WebSocketOptions::default()),
            proxy: None,
        };
        let (accepted, is_accepted) = bounded(1);
        let (dialled, is_dialled) = bounded(1);
        pool.run("accept", move || {
            accepted
                .send(accept(listener.accept().unwrap(), &acceptor, soon()))
                .unwrap()
        })
        .unwrap();
        pool.run("dial", move || {
            dialled
                .send(dial(&Endpoint::parse(&url).unwrap(), &options))
                .unwrap()
        })
        .unwrap();
        let dialled = is_dialled.recv_timeout(PATIENCE).unwrap().unwrap();
        let accepted = is_accepted.recv_timeout(PATIENCE).unwrap().unwrap();
        assert_eq!(accepted.certificate.as_ref().unwrap().subject, "CN=client");
        talk(dialled, accepted);
    }
}

/// The WebSocket layers of a server and of a client.
fn websocket_layers() -> (Layers, Layers) {
    let layer = |role| Layers::new(None, Some(WebSocketLayer::new(role, 100_000)));
    (layer(Role::Server), layer(Role::Client))
}

#[test]
fn pings_of_a_peer_that_does_not_read_take_no_memory() {
    let (server_layers, mut client_layers) = websocket_layers();
    let (ours, theirs) = Socket::pair("pings").unwrap();
    let ours = Arc::new(ours);
    let server = outbox(&ours, server_layers);
    let mut buf = OutBuf::new();
    let mut outcome = SendOutcome::Sent;
    let mut sent = 0;
    while outcome == SendOutcome::Sent {
        buf.bytes_mut().resize(10_000, 7);
        outcome = server.send(&mut buf);
        sent += 10_000;
    }
    let backlog = server.backlog();
    let mut ping = vec![0x89, 0x80 | 100, 0, 0, 0, 0];
    ping.resize(106, b'p');
    for _ in 0..10_000 {
        let _ = server.receive(&ping, &mut BytesMut::new()).unwrap();
    }
    assert!(
        server.backlog() <= backlog + 200,
        "{} after {backlog}",
        server.backlog()
    );
    server.close();
    let (mut plain, mut raw) = (BytesMut::new(), [0; 5000]);
    loop {
        let count = theirs.read(&mut raw).unwrap();
        assert_ne!(count, 0, "the goodbye comes before the end");
        if client_layers.receive(&raw[..count], &mut plain).unwrap() == Received::Closed {
            break;
        }
    }
    assert_eq!(plain.len(), sent);
}

#[test]
fn a_frame_error_is_answered_and_ends_the_reading() {
    let (server_layers, _) = websocket_layers();
    let (ours, theirs) = Socket::pair("text").unwrap();
    let ours = Arc::new(ours);
    let server = outbox(&ours, server_layers);
    let text = [0x81, 0x81, 0, 0, 0, 0, b'x'];
    assert!(matches!(
        server.receive(&text, &mut BytesMut::new()),
        Err(NetError::WebSocket(_))
    ));
    server.close();
    let mut read = [0; 100];
    let count = theirs.read(&mut read).unwrap();
    assert_eq!(read[..count], [0x88, 2, 0x03, 0xeb], "1003, once");
    assert_eq!(theirs.read(&mut read).unwrap(), 0);
}

#[test]
fn tls_records_and_frames_may_arrive_byte_by_byte() {
    let files = Files::new("bytes");
    let ca = issuer("Test CA");
    let config = server(
        &files,
        issued(&ca, "server", "localhost"),
        ServerTlsOptions::default(),
    )
    .unwrap();
    let acceptor = Acceptor {
        tls: Some(config),
        websocket: Some(WebSocketOptions::default()),
        proxy: None,
    };
    let (dialled, accepted) = connect(
        "wss://localhost:{port}",
        acceptor,
        &client(&trusting(&ca.pem())),
    );
    let (mut dialled, accepted) = (dialled.unwrap(), accepted.unwrap());
    let mut wire = Vec::new();
    for piece in [&b"a"[..], b"", &[b'b'; 300], &[b'c'; 20_000]] {
        dialled.layers.send(piece, &mut wire).unwrap();
    }
    dialled.layers.close(&mut wire);
    let mut server = accepted.layers;
    let mut plain = BytesMut::new();
    let closed = wire
        .chunks(1)
        .map(|byte| server.receive(byte, &mut plain).unwrap())
        .position(|received| received == Received::Closed);
    assert!(closed.is_some());
    assert_eq!(plain, [&b"a"[..], &[b'b'; 300], &[b'c'; 20_000]].concat());
    let mut answer = Vec::new();
    server.close(&mut answer);
    assert_eq!(
        dialled.layers.receive(&answer, &mut plain).unwrap(),
        Received::Closed
    );
    server.close(&mut answer);
    assert!(
        server.send(b"x", &mut answer).is_err(),
        "nothing follows a goodbye"
    );
}

#[test]
fn a_changed_byte_ends_a_tls_connection() {
    let files = Files::new("changed");
    let ca = issuer("Test CA");
    let config = server(
        &files,
        issued(&ca, "server", "localhost"),
        ServerTlsOptions::default(),
    )
    .unwrap();
    let (dialled, accepted) = connect(
        "mqtts://localhost:{port}",
        tls_acceptor(config),
        &client(&trusting(&ca.pem())),
    );
    let (mut dialled, accepted) = (dialled.unwrap(), accepted.unwrap());
    let socket = Arc::new(accepted.socket);
    let server = outbox(&socket, accepted.layers);
    let mut wire = Vec::new();
    dialled.layers.send(b"hello", &mut wire).unwrap();
    *wire.last_mut().unwrap() ^= 1;
    assert!(matches!(
        server.receive(&wire, &mut BytesMut::new()),
        Err(NetError::Tls(_))
    ));
    server.close();
    let mut read = [0; 5000];
    let mut told = None;
    while let Ok(count @ 1..) = dialled.socket.read(&mut read) {
        let received = dialled.layers.receive(&read[..count], &mut BytesMut::new());
        if let Err(error) = received {
            told = Some(error);
            break;
        }
    }
    assert!(told.unwrap().to_string().contains("alert"));
}

#[test]
fn handshakes_cut_at_any_byte_leave_no_thread_and_no_socket_behind() {
    let files = Files::new("cut");
    let ca = issuer("Test CA");
    let config = server(
        &files,
        issued(&ca, "server", "localhost"),
        ServerTlsOptions::default(),
    )
    .unwrap();
    let mut hello = Vec::new();
    ClientTls::new(&trusting(&ca.pem()))
        .unwrap()
        .connect("localhost")
        .unwrap()
        .take_control(&mut hello);
    let question = upgrade::ask("h", "/", &[]).unwrap();
    let pool = Pool::new(CONNECTION_STACK_BYTES, PATIENCE);
    let acceptors = Arc::new([
        tls_acceptor(config),
        Acceptor {
            websocket: Some(WebSocketOptions::default()),
            ..Acceptor::default()
        },
    ]);
    for (index, bytes) in [hello, question.request].into_iter().enumerate() {
        for length in (0..bytes.len()).step_by(7) {
            let (ours, theirs) = Socket::pair("cut").unwrap();
            let gone = ours.closer();
            theirs.write_all(&bytes[..length]).unwrap();
            theirs.shutdown_write();
            let acceptors = Arc::clone(&acceptors);
            pool.run("conn", move || {
                drop(accept(ours, &acceptors[index], soon()).unwrap_err())
            })
            .unwrap();
            while theirs.read(&mut [0; 100]).unwrap() > 0 {}
            assert!(pool.wait_until_inactive(soon()));
            assert!(!gone.is_open());
        }
    }
    assert_eq!(pool.threads(), 1, "one after the other needs one thread");
}
