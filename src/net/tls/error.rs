//! What goes wrong with certificates, keys and handshakes, and what a person can do about it.

use std::error::Error;
use std::fmt;
use std::path::{Path, PathBuf};

use rustls::{AlertDescription, CertificateError, InvalidMessage, PeerIncompatible};

/// Why a TLS configuration or a connection is not possible.
///
/// `Display` says which file or what the peer did, and adds the hint.
#[derive(Debug)]
pub struct TlsError(Box<Details>);

#[derive(Debug)]
struct Details {
    message: String,
    file: Option<PathBuf>,
    hint: Option<&'static str>,
    cause: Option<rustls::Error>,
}

impl TlsError {
    /// What a person can do about it, if that is known. `Display` has it as well.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        self.0.hint
    }

    /// The file that is at fault, if it is one.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        self.0.file.as_deref()
    }

    pub(super) fn new(message: impl Into<String>) -> Self {
        Self(Box::new(Details {
            message: message.into(),
            file: None,
            hint: None,
            cause: None,
        }))
    }

    pub(super) fn with_hint(mut self, hint: &'static str) -> Self {
        self.0.hint = Some(hint);
        self
    }

    pub(super) fn in_file(mut self, file: &Path) -> Self {
        self.0.file = Some(file.to_owned());
        self
    }
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Details {
            message,
            file,
            hint,
            ..
        } = &*self.0;
        f.write_str("TLS: ")?;
        if let Some(file) = file {
            write!(f, "{}: ", file.display())?;
        }
        f.write_str(message)?;
        hint.map_or(Ok(()), |hint| write!(f, " ({hint})"))
    }
}

impl Error for TlsError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0
            .cause
            .as_ref()
            .map(|cause| cause as &(dyn Error + 'static))
    }
}

impl From<rustls::Error> for TlsError {
    fn from(error: rustls::Error) -> Self {
        Self(Box::new(Details {
            message: error.to_string(),
            file: None,
            hint: hint(&error),
            cause: Some(error),
        }))
    }
}

fn hint(error: &rustls::Error) -> Option<&'static str> {
    use rustls::Error as E;
    Some(match error {
        E::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => "a certificate's names are those in subjectAltName; its Common Name does not count",
        E::InvalidCertificate(CertificateError::UnknownIssuer) => {
            "it is not signed by a trusted CA; give the CA's certificate, or the server's own if it is self-signed, in a CA file"
        }
        E::InvalidCertificate(CertificateError::UnknownRevocationStatus) => {
            "the list of revoked certificates is not from its CA"
        }
        E::InvalidCertificate(
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. },
        ) => "if it should be valid, check the clock of this machine",
        E::InvalidMessage(InvalidMessage::InvalidContentType) => {
            "the peer does not speak TLS; is it the right port?"
        }
        E::PeerIncompatible(
            PeerIncompatible::SupportedVersionsExtensionRequired
            | PeerIncompatible::Tls12NotOffered,
        ) => "the peer offers no common version; TLS 1.0 and 1.1 are not supported",
        E::AlertReceived(
            AlertDescription::CertificateRequired
            | AlertDescription::BadCertificate
            | AlertDescription::AccessDenied,
        ) => "the peer wants another certificate, or one at all, from this side",
        E::AlertReceived(AlertDescription::UnknownCA) => {
            "the peer does not know the CA of the certificate of this side"
        }
        E::InconsistentKeys(_) => "the certificate and the private key do not belong together",
        _ if says(error, CA_AS_END_ENTITY) => {
            "a CA's certificate, as `openssl req -x509` makes it, is shown as the server's own; put exactly this certificate into the CA file, \
             or issue one with basicConstraints=CA:FALSE"
        }
        _ if says(error, OLD_VERSION) => {
            "the certificate is X.509 version 1, as `openssl x509 -req` makes it without extensions; sign it with \
             -extfile <(echo subjectAltName=DNS:the.host)"
        }
        _ => return None,
    })
}

/// Whether webpki's own error, which rustls hands through, is the one of this name.
pub(super) fn says(error: &rustls::Error, name: &str) -> bool {
    matches!(error, rustls::Error::InvalidCertificate(CertificateError::Other(other)) if other.0.to_string() == name)
}

pub(super) const CA_AS_END_ENTITY: &str = "CaUsedAsEndEntity";
const OLD_VERSION: &str = "UnsupportedCertVersion";
