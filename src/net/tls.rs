//! TLS by rustls: settings → configurations, and the TLS layer, a byte filter without IO.
//!
//! TLS 1.2 and 1.3, no renegotiation, no early data. Errors of the setups that most often go wrong carry a one-line hint; see
//! [`TlsError::hint`].

mod error;
mod key_log;
mod pem;
mod verifier;

use std::fmt;
use std::io::{BufRead, Write};
use std::path::PathBuf;
use std::sync::Arc;

use bytes::BytesMut;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoClientAuth, WebPkiClientVerifier};
use rustls::{
    ClientConfig, ClientConnection, Connection, RootCertStore, ServerConfig, ServerConnection,
    SupportedProtocolVersion,
};

pub use self::error::TlsError;
use self::key_log::KeyLogFile;
use self::pem::{load_certificates, load_key, load_revocations};
use self::verifier::ServerVerifier;
use super::certificate::{self, PeerCertificate};
use super::error::NetError;
use super::transport::Received;

/// Who may sign the certificates of the other side. The sources add up; with none of them there is no certificate.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CaSources {
    /// A file of PEM certificates.
    pub file: Option<PathBuf>,
    /// A directory: every file in it that holds PEM certificates.
    pub path: Option<PathBuf>,
    /// PEM certificates.
    pub data: Option<String>,
}

impl CaSources {
    /// Whether no source is given.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Whether clients are asked for a certificate.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ClientCertificates {
    /// They are not.
    #[default]
    None,
    /// They are, and one that is shown must be valid; without one the connection goes on.
    Optional,
    /// They are, and without a valid one the handshake fails.
    Required,
}

/// The settings of a listener that speaks TLS.
#[derive(Debug, Clone, Default)]
pub struct ServerTlsOptions {
    /// The server's certificate, followed by those between it and the root. PEM.
    pub certificate_file: PathBuf,
    /// Its private key, not encrypted. PEM: PKCS#8, PKCS#1 or SEC1.
    pub key_file: PathBuf,
    /// Who may sign clients' certificates.
    pub ca: CaSources,
    /// Whether clients are asked for one. Default: none.
    pub client_certificates: ClientCertificates,
    /// Revoked client certificates. PEM, one list for each CA that signs clients' certificates.
    pub revocation_file: Option<PathBuf>,
}

/// How much of a server's certificate is checked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Verification {
    /// Who signed it, when it is valid, and that it is for the name that was dialled.
    #[default]
    Full,
    /// All but the name. Whoever has any certificate of the same CA can pose as the server.
    InsecureAnyName,
    /// Nothing. Whoever is in between can read and change everything.
    InsecureNothing,
}

/// Which versions of TLS are offered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum TlsVersions {
    /// 1.3 and 1.2.
    #[default]
    Both,
    /// 1.2 only.
    Only12,
    /// 1.3 only.
    Only13,
}

impl TlsVersions {
    fn list(self) -> Vec<&'static SupportedProtocolVersion> {
        match self {
            Self::Both => vec![&rustls::version::TLS13, &rustls::version::TLS12],
            Self::Only12 => vec![&rustls::version::TLS12],
            Self::Only13 => vec![&rustls::version::TLS13],
        }
    }
}

/// The settings of a client that speaks TLS.
#[derive(Debug, Clone, Default)]
pub struct ClientTlsOptions {
    /// Who may sign the server's certificate. With no source the system's roots are taken.
    pub ca: CaSources,
    /// Take the system's roots beside `ca`. Default: off.
    pub system_roots: bool,
    /// Files with the client's certificate chain and its private key, PEM.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// The name that the server's certificate must have, and that is asked for (SNI). Default: the host that is dialled.
    pub server_name: Option<String>,
    /// How much of the server's certificate is checked. Default: all.
    pub verification: Verification,
    /// The protocols to offer (ALPN). Default: none.
    pub alpn: Vec<String>,
    /// The versions to offer. Default: both.
    pub versions: TlsVersions,
    /// Append the secrets of each connection to this file, for Wireshark. Default: none.
    pub key_log: Option<PathBuf>,
}

/// What a client needs for its TLS connections. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ClientTls {
    config: Arc<ClientConfig>,
    server_name: Option<ServerName<'static>>,
}

impl ClientTls {
    /// Reads the files that `options` names.
    ///
    /// # Errors
    /// [`NetError::Tls`] names the file and what is wrong.
    ///
    /// # Blocking
    /// While files are read.
    pub fn new(options: &ClientTlsOptions) -> Result<Self, NetError> {
        let provider = provider();
        let mut trusted = options.ca.load()?;
        if options.verification != Verification::InsecureNothing
            && (options.system_roots || options.ca.is_empty())
        {
            trusted.extend(system_roots()?);
        }
        let verifier = ServerVerifier::new(trusted, options.verification, &provider)?;
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&options.versions.list())
            .map_err(TlsError::from)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let mut config = match &options.certificate {
            None => builder.with_no_client_auth(),
            Some((certificate_file, key_file)) => {
                let chain = load_certificates(certificate_file)?;
                let key = load_key(key_file)?;
                builder
                    .with_client_auth_cert(chain, key)
                    .map_err(|error| TlsError::from(error).in_file(certificate_file))?
            }
        };
        config.alpn_protocols = options
            .alpn
            .iter()
            .map(|protocol| protocol.clone().into_bytes())
            .collect();
        if let Some(file) = &options.key_log {
            config.key_log = Arc::new(KeyLogFile::open(file)?);
        }
        let server_name = options
            .server_name
            .as_deref()
            .map(parse_server_name)
            .transpose()?;
        Ok(Self {
            config: Arc::new(config),
            server_name,
        })
    }

    pub(super) fn connect(&self, host: &str) -> Result<TlsLayer, NetError> {
        let name = match &self.server_name {
            Some(name) => name.clone(),
            None => parse_server_name(host)?,
        };
        let connection =
            ClientConnection::new(Arc::clone(&self.config), name).map_err(TlsError::from)?;
        Ok(TlsLayer::new(connection.into()))
    }
}

/// Reads the files that `options` names and makes the configuration of a listener from them.
///
/// To renew certificates, make a new one and swap it for the old one: connections that exist keep theirs.
///
/// # Errors
/// [`NetError::Tls`] names the file and what is wrong.
///
/// # Blocking
/// While files are read.
pub fn server_config(options: &ServerTlsOptions) -> Result<Arc<ServerConfig>, NetError> {
    let provider = provider();
    let chain = load_certificates(&options.certificate_file)?;
    let key = load_key(&options.key_file)?;
    let verifier = client_verifier(options, &provider)?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(TlsError::from)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .map_err(|error| TlsError::from(error).in_file(&options.certificate_file))?;
    // Tickets cost the server no memory per session, and die with this configuration.
    config.ticketer = rustls::crypto::ring::Ticketer::new().map_err(TlsError::from)?;
    Ok(Arc::new(config))
}

/// rustls over memory.
pub(super) struct TlsLayer {
    connection: Connection,
    closed: bool,
}

impl TlsLayer {
    pub(super) fn accept(config: &Arc<ServerConfig>) -> Result<Self, NetError> {
        let connection = ServerConnection::new(Arc::clone(config)).map_err(TlsError::from)?;
        Ok(Self::new(connection.into()))
    }

    fn new(mut connection: Connection) -> Self {
        // What is put in is taken out at once; the outbox is what bounds it.
        connection.set_buffer_limit(None);
        Self {
            connection,
            closed: false,
        }
    }

    pub(super) fn is_handshaking(&self) -> bool {
        self.connection.is_handshaking()
    }

    pub(super) fn receive(
        &mut self,
        mut raw: &[u8],
        plain: &mut BytesMut,
    ) -> Result<Received, NetError> {
        while !raw.is_empty() {
            // A slice cannot fail; the buffer for plaintext is emptied below each time.
            if self.connection.read_tls(&mut raw)? == 0 {
                break;
            }
            self.connection
                .process_new_packets()
                .map_err(TlsError::from)?;
            if self.take_plain(plain)? == Received::Closed {
                return Ok(Received::Closed);
            }
        }
        Ok(Received::Open)
    }

    fn take_plain(&mut self, plain: &mut BytesMut) -> Result<Received, NetError> {
        let mut reader = self.connection.reader();
        loop {
            let taken = match reader.fill_buf() {
                Ok([]) => return Ok(Received::Closed),
                Ok(chunk) => {
                    plain.extend_from_slice(chunk);
                    chunk.len()
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    return Ok(Received::Open);
                }
                Err(error) => return Err(error.into()),
            };
            reader.consume(taken);
        }
    }

    pub(super) fn send(&mut self, plain: &[u8], wire: &mut Vec<u8>) -> Result<(), NetError> {
        if self.closed {
            return Err(std::io::Error::from(std::io::ErrorKind::NotConnected).into());
        }
        for chunk in plain.chunks(SEND_CHUNK_BYTES) {
            self.connection.writer().write_all(chunk)?;
            self.take_control(wire);
        }
        Ok(())
    }

    pub(super) fn take_control(&mut self, wire: &mut Vec<u8>) {
        while self.connection.wants_write() {
            // A vector takes everything.
            if self.connection.write_tls(wire).is_err() {
                break;
            }
        }
    }

    pub(super) fn close(&mut self, wire: &mut Vec<u8>) {
        if !std::mem::replace(&mut self.closed, true) {
            self.connection.send_close_notify();
        }
        self.take_control(wire);
    }

    /// What the client's certificate says; none if it showed none.
    pub(super) fn peer_certificate(&self) -> Option<PeerCertificate> {
        certificate::parse(self.connection.peer_certificates()?.first()?)
    }
}

impl fmt::Debug for TlsLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsLayer")
            .field("version", &self.connection.protocol_version())
            .finish_non_exhaustive()
    }
}

fn client_verifier(
    options: &ServerTlsOptions,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    if options.client_certificates == ClientCertificates::None {
        return Ok(Arc::new(NoClientAuth));
    }
    let mut roots = RootCertStore::empty();
    for certificate in options.ca.load()? {
        roots.add(certificate)?;
    }
    if roots.is_empty() {
        return Err(
            TlsError::new("client certificates are asked for, but no CA is given")
                .with_hint("set cafile, capath or cadata"),
        );
    }
    let mut builder =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
    if options.client_certificates == ClientCertificates::Optional {
        builder = builder.allow_unauthenticated();
    }
    if let Some(file) = &options.revocation_file {
        builder = builder
            .with_crls(load_revocations(file)?)
            .only_check_end_entity_revocation();
    }
    builder.build().map_err(|error| {
        let error = TlsError::new(error.to_string());
        options.revocation_file.as_ref().map_or(error, |file| {
            TlsError::new("not a list of revoked certificates").in_file(file)
        })
    })
}

/// Given to every configuration by hand: a second provider among the program's crates would make a default ambiguous.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn parse_server_name(name: &str) -> Result<ServerName<'static>, TlsError> {
    // A zone such as %eth0 belongs to the address, not to the name.
    let plain = name.split_once('%').map_or(name, |(plain, _zone)| plain);
    ServerName::try_from(plain.to_owned())
        .map_err(|_| TlsError::new(format!("'{name}' is no name that a certificate can have")))
}

fn system_roots() -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        log::debug!("some of the system's root certificates cannot be read: {error}");
    }
    if found.certs.is_empty() {
        return Err(TlsError::new("this system has no root certificates")
            .with_hint("give the server's CA in a CA file"));
    }
    Ok(found.certs)
}

/// Bounds what rustls holds beside the bytes on their way to the wire: four records.
const SEND_CHUNK_BYTES: usize = 64 * 1024;
