//! Certificates, keys and revocation lists from PEM files.

use std::fs;
use std::path::Path;

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};

use super::{CaSources, TlsError};

impl CaSources {
    pub(super) fn load(&self) -> Result<Vec<CertificateDer<'static>>, TlsError> {
        let mut certificates = Vec::new();
        if let Some(file) = &self.file {
            certificates.extend(load_certificates(file)?);
        }
        if let Some(path) = &self.path {
            certificates.extend(load_directory(path)?);
        }
        if let Some(data) = &self.data {
            certificates.extend(parse_certificates(data.as_bytes())?);
        }
        certificates.sort_by(|one, other| one.as_ref().cmp(other));
        certificates.dedup();
        Ok(certificates)
    }
}

fn read(file: &Path) -> Result<Vec<u8>, TlsError> {
    fs::read(file).map_err(|error| TlsError::new(error.to_string()).in_file(file))
}

pub(super) fn load_certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    parse_certificates(&read(file)?).map_err(|error| error.in_file(file))
}

fn load_directory(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let entries =
        fs::read_dir(path).map_err(|error| TlsError::new(error.to_string()).in_file(path))?;
    let mut certificates = Vec::new();
    for file in entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|file| file.is_file())
    {
        match load_certificates(&file) {
            Ok(found) => certificates.extend(found),
            Err(error) => log::debug!("skipped: {error}"),
        }
    }
    if certificates.is_empty() {
        return Err(
            TlsError::new("no file in this directory holds a PEM certificate").in_file(path),
        );
    }
    Ok(certificates)
}

fn parse_certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certificates = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| pem_error(&error))?;
    if certificates.is_empty() {
        return Err(TlsError::new("no PEM certificate found")
            .with_hint("expected '-----BEGIN CERTIFICATE-----'"));
    }
    Ok(certificates)
}

pub(super) fn load_key(file: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let pem = read(file)?;
    PrivateKeyDer::from_pem_slice(&pem).map_err(|error| {
        let text = String::from_utf8_lossy(&pem);
        if text.contains("ENCRYPTED") {
            TlsError::new("the private key is encrypted, which is not supported")
                .with_hint("decrypt it once: openssl pkey -in encrypted.key -out plain.key")
                .in_file(file)
        } else if matches!(error, pem::Error::NoItemsFound) {
            TlsError::new("no PEM private key found")
                .with_hint("expected '-----BEGIN PRIVATE KEY-----'")
                .in_file(file)
        } else {
            pem_error(&error).in_file(file)
        }
    })
}

pub(super) fn load_revocations(
    file: &Path,
) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsError> {
    let pem = read(file)?;
    let lists = CertificateRevocationListDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>();
    let lists = lists.map_err(|error| pem_error(&error).in_file(file))?;
    if lists.is_empty() {
        return Err(TlsError::new("no list of revoked certificates found")
            .with_hint("expected '-----BEGIN X509 CRL-----'")
            .in_file(file));
    }
    Ok(lists)
}

fn pem_error(error: &pem::Error) -> TlsError {
    TlsError::new(format!("not valid PEM: {error:?}"))
}
