//! How a client checks a server's certificate.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, RootCertStore, SignatureScheme};

use super::error::{CA_AS_END_ENTITY, says};
use super::{TlsError, Verification};

/// Checks a server's certificate as webpki does, with one addition for the setup that most people begin with: a self-signed certificate
/// that is at once the server's and the one in the CA file. webpki refuses a CA's certificate as a server's; here one that is byte for byte
/// among the trusted ones is accepted, if it is valid now and has the name.
#[derive(Debug)]
pub(super) struct ServerVerifier {
    /// None only when nothing is verified.
    webpki: Option<Arc<WebPkiServerVerifier>>,
    trusted: Vec<CertificateDer<'static>>,
    verification: Verification,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerVerifier {
    pub(super) fn new(
        trusted: Vec<CertificateDer<'static>>,
        verification: Verification,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Self, TlsError> {
        let algorithms = provider.signature_verification_algorithms;
        if verification == Verification::InsecureNothing {
            return Ok(Self {
                webpki: None,
                trusted,
                verification,
                algorithms,
            });
        }
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(trusted.iter().cloned());
        let webpki =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
                .build()
                .map_err(|error| {
                    TlsError::new(error.to_string())
                        .with_hint("no trusted certificate could be read; give a CA file")
                })?;
        Ok(Self {
            webpki: Some(webpki),
            trusted,
            verification,
            algorithms,
        })
    }

    fn check(
        &self,
        webpki: &WebPkiServerVerifier,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<(), rustls::Error> {
        let any_name = self.verification == Verification::InsecureAnyName;
        match webpki.verify_server_cert(end_entity, intermediates, name, ocsp, now) {
            Ok(_) => Ok(()),
            // webpki looks at the name last: everything else is as it should be.
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if any_name => Ok(()),
            // webpki has looked at the validity before: the certificate is not expired.
            Err(error)
                if says(&error, CA_AS_END_ENTITY)
                    && self.trusted.iter().any(|trusted| trusted == end_entity) =>
            {
                if any_name {
                    return Ok(());
                }
                rustls::client::verify_server_name(&ParsedCertificate::try_from(end_entity)?, name)
            }
            Err(error) => Err(error),
        }
    }
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if let Some(webpki) = &self.webpki {
            self.check(
                webpki,
                end_entity,
                intermediates,
                server_name,
                ocsp_response,
                now,
            )?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
