//! What TLS needs from PEM files, for listeners and for brokers alike: certificates, keys, and why they are of no use.
//!
//! Reads files, so not for an async task. Who is trusted, and who must show a certificate, it does not know.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::server::VerifierBuilderError;
use rustls::{Error, RootCertStore};
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file with certificates.
    #[error("cannot read certificates from {path}")]
    Certificate {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: pem::Error,
    },
    /// The file of a key.
    #[error("cannot read the private key from {path}")]
    Key {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: pem::Error,
    },
    /// PEM, but with something else in it.
    #[error("found no certificate in {path}")]
    NoCertificate {
        /// Which file.
        path: PathBuf,
    },
    /// They do not go together, or are of a kind that is not supported.
    #[error("certificate {certificate} and key {key} cannot be used together")]
    Pair {
        /// The chain's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// Why.
        source: Error,
    },
    /// A certificate among the authorities is none.
    #[error("{path} holds a certificate that cannot sign others")]
    Authority {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: Error,
    },
    /// The authorities of clients cannot be used.
    #[error("the certificates of clients cannot be checked by {path}")]
    Clients {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: VerifierBuilderError,
    },
    /// No authorities on this machine.
    #[error(
        "this system has no certificates of authorities: install ca-certificates, or name the broker's own as ca"
    )]
    NoRoots,
    /// The TLS library refuses what it was given.
    #[error("the TLS library refuses the settings")]
    Unusable(#[source] Error),
    /// The host is neither a name nor an address.
    #[error("{0} is no name that a certificate could carry")]
    Name(Arc<str>),
}

/// The certificates of a PEM file, in its order: one at least.
pub fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|source| TlsError::Certificate { path: path.to_owned(), source })?;
    if found.is_empty() { Err(TlsError::NoCertificate { path: path.to_owned() }) } else { Ok(found) }
}

/// The first private key of a PEM file.
pub fn key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_file(path).map_err(|source| TlsError::Key { path: path.to_owned(), source })
}

/// The certificates of a PEM file as those that sign others.
pub fn authorities(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate).map_err(|source| TlsError::Authority { path: path.to_owned(), source })?;
    }
    Ok(roots)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Chain;

    #[test]
    fn a_missing_file_is_named_with_the_reason() {
        let missing = Path::new("/nonexistent/some.pem");
        for error in [
            certificates(missing).map(drop).unwrap_err(),
            key(missing).map(drop).unwrap_err(),
            authorities(missing).map(drop).unwrap_err(),
        ] {
            let text = Chain(&error).to_string();
            assert!(text.contains("/nonexistent/some.pem") && text.contains("No such file"), "{text}");
        }
    }

    #[test]
    fn a_file_without_a_certificate_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("empty.pem");
        std::fs::write(&path, "nothing here\n").unwrap();
        let error = certificates(&path).unwrap_err();
        assert!(matches!(error, TlsError::NoCertificate { .. }), "{error}");
    }
}
