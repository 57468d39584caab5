//! The TLS side of a listener: a certificate chain and a key out of PEM files, which may change while it runs, and
//! whose certificates clients must show.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use tokio::net::TcpStream;
use tokio_rustls::{Accept, TlsAcceptor};
use tracing::{info, warn};

use crate::clock;
use crate::report::Chain;
use crate::tls::{self, TlsError};

/// Which clients' certificates are asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificates {
    /// PEM file with the authorities that sign them.
    pub authorities: PathBuf,
    /// Whether a client without one is turned away; one with a wrong one always is.
    pub required: bool,
}

/// What a TLS listener needs: the way to shake hands, and the certificate, which may be exchanged while it runs.
#[derive(Clone)]
pub struct Tls {
    acceptor: TlsAcceptor,
    identity: Arc<Identity>,
}

impl std::fmt::Debug for Tls {
    /// Hides the acceptor's insides.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tls(..)")
    }
}

impl Tls {
    /// Loads a certificate chain and its key. TLS 1.2 and 1.3, HTTP/1.1 only.
    pub fn load(
        certificate: &Path,
        key: &Path,
        clients: Option<&ClientCertificates>,
    ) -> Result<Self, TlsError> {
        let identity = Arc::new(Identity::load(certificate, key)?);
        let pair =
            |source| TlsError::Pair { certificate: certificate.to_owned(), key: key.to_owned(), source };
        let builder =
            ServerConfig::builder_with_details(Arc::new(ring::default_provider()), Arc::new(clock::Told))
                .with_safe_default_protocol_versions()
                .map_err(pair)?;
        let builder = match clients {
            Some(clients) => builder.with_client_cert_verifier(verifier(clients)?),
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_cert_resolver(Arc::<Identity>::clone(&identity));
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { acceptor: TlsAcceptor::from(Arc::new(config)), identity })
    }

    /// Shakes hands.
    pub(super) fn accept(&self, stream: TcpStream) -> Accept<TcpStream> {
        self.acceptor.accept(stream)
    }

    /// Takes a new certificate over if the files have changed; connections that are open keep the old one. A pair that
    /// cannot be used changes nothing and is told once. Reads files, so it is not for a task that others wait for.
    pub fn refresh(&self) {
        self.identity.refresh();
    }
}

/// Checks certificates of clients.
fn verifier(clients: &ClientCertificates) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let roots = tls::authorities(&clients.authorities)?;
    let builder =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::new(ring::default_provider()));
    let builder = if clients.required { builder } else { builder.allow_unauthenticated() };
    builder.build().map_err(|source| TlsError::Clients { path: clients.authorities.clone(), source })
}

/// The certificate that the gateway shows.
struct Identity {
    certificate: PathBuf,
    key: PathBuf,
    shown: RwLock<Shown>,
}

impl std::fmt::Debug for Identity {
    /// Hides the key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

struct Shown {
    pair: Arc<CertifiedKey>,
    /// How the files looked when they were last read, good or bad.
    stamp: [Option<Stamp>; 2],
}

/// What changes when a file is written or replaced: inode, length, and time of change.
type Stamp = (u64, u64, i64, i64);

impl Identity {
    fn load(certificate: &Path, key: &Path) -> Result<Self, TlsError> {
        let stamp = [stamp(certificate), stamp(key)];
        let shown = RwLock::new(Shown { pair: Arc::new(pair(certificate, key)?), stamp });
        Ok(Self { certificate: certificate.to_owned(), key: key.to_owned(), shown })
    }

    fn refresh(&self) {
        let stamp = [stamp(&self.certificate), stamp(&self.key)];
        if self.shown.read().unwrap_or_else(PoisonError::into_inner).stamp == stamp {
            return;
        }
        let loaded = pair(&self.certificate, &self.key);
        let mut shown = self.shown.write().unwrap_or_else(PoisonError::into_inner);
        shown.stamp = stamp;
        match loaded {
            Ok(pair) => {
                shown.pair = Arc::new(pair);
                info!(certificate = %self.certificate.display(), "the certificate has changed and is shown from now on");
            }
            Err(error) => {
                warn!(error = %Chain(&error), "the changed certificate cannot be used, the old one stays");
            }
        }
    }
}

impl ResolvesServerCert for Identity {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.shown.read().unwrap_or_else(PoisonError::into_inner).pair))
    }
}

fn stamp(path: &Path) -> Option<Stamp> {
    let found = std::fs::metadata(path).ok()?;
    Some((found.ino(), found.len(), found.ctime(), found.ctime_nsec()))
}

fn pair(certificate: &Path, key: &Path) -> Result<CertifiedKey, TlsError> {
    let (chain, private) = (tls::certificates(certificate)?, tls::key(key)?);
    CertifiedKey::from_der(chain, private, &ring::default_provider()).map_err(|source| TlsError::Pair {
        certificate: certificate.to_owned(),
        key: key.to_owned(),
        source,
    })
}
