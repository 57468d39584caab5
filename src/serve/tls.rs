//! The TLS side of a listener: a certificate chain and a key out of PEM files.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

/// Why TLS cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The certificate file.
    #[error("cannot read the certificate chain from {path}")]
    Certificate {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: pem::Error,
    },
    /// The key file.
    #[error("cannot read the private key from {path}")]
    Key {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: pem::Error,
    },
    /// The certificate file is PEM, but holds something else.
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
        source: rustls::Error,
    },
}

/// Loads a certificate chain and its key. TLS 1.2 and 1.3, HTTP/1.1 only.
pub fn acceptor(certificate: &Path, key: &Path) -> Result<TlsAcceptor, TlsError> {
    let unreadable = |source| TlsError::Certificate { path: certificate.to_owned(), source };
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(unreadable)?;
    if chain.is_empty() {
        return Err(TlsError::NoCertificate { path: certificate.to_owned() });
    }
    let private =
        PrivateKeyDer::from_pem_file(key).map_err(|source| TlsError::Key { path: key.to_owned(), source })?;
    let pair = |source| TlsError::Pair { certificate: certificate.to_owned(), key: key.to_owned(), source };
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(pair)?
        .with_no_client_auth()
        .with_single_cert(chain, private)
        .map_err(pair)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Chain;

    #[test]
    fn a_missing_file_is_named_with_the_reason() {
        let Err(error) = acceptor(Path::new("/nonexistent/cert.pem"), Path::new("/nonexistent/key.pem"))
        else {
            panic!("a file that does not exist was loaded");
        };
        let text = Chain(&error).to_string();
        assert!(text.contains("/nonexistent/cert.pem"), "{text}");
        assert!(text.contains("No such file"), "{text}");
    }

    #[test]
    fn a_file_without_a_certificate_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("empty.pem");
        std::fs::write(&path, "nothing here\n").unwrap();
        let error = acceptor(&path, &path).err().unwrap();
        assert!(matches!(error, TlsError::NoCertificate { .. }), "{error}");
    }
}
