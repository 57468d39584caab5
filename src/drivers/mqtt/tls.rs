//! The client's side of TLS to a broker: whom to trust, and who we are.
//!
//! Files are read anew for each connection, so that a renewed certificate needs no restart. The broker's certificate
//! is always verified unless the configuration says `verify = false`; nothing else weakens it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::{
    AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore,
    SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use crate::tls::{TlsError, authorities, certificates, key};

use crate::clock;

/// How a TLS connection to a broker is made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsSettings {
    /// PEM file with the certificates of the authorities to trust; `None` trusts those of the system.
    pub ca: Option<PathBuf>,
    /// PEM files with our own certificate chain and its key, for brokers that want one.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// The name that the broker's certificate must carry, when it is not the host of the address.
    pub server_name: Option<Arc<str>>,
    /// Whether the broker must prove who it is. `false` also lets in whoever sits in between.
    pub verify: bool,
}

/// What a TLS client needs, from the files that the settings name. Reads files, so not for an async task.
pub fn config(settings: &TlsSettings) -> Result<ClientConfig, TlsError> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_details(Arc::clone(&provider), Arc::new(clock::Told))
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Unusable)?;
    let builder = if settings.verify {
        let roots = Arc::new(roots(settings.ca.as_deref())?);
        let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider).build();
        let verifier = verifier.map_err(|error| TlsError::Unusable(Error::General(error.to_string())))?;
        builder.with_webpki_verifier(verifier)
    } else {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(Anybody(provider)))
    };
    match &settings.identity {
        None => Ok(builder.with_no_client_auth()),
        Some((certificate, private)) => {
            let pair =
                |source| TlsError::Pair { certificate: certificate.clone(), key: private.clone(), source };
            builder.with_client_auth_cert(certificates(certificate)?, key(private)?).map_err(pair)
        }
    }
}

/// The name that the certificate must carry.
pub fn server_name(settings: &TlsSettings, host: &str) -> Result<ServerName<'static>, TlsError> {
    let name = settings.server_name.as_deref().unwrap_or(host);
    ServerName::try_from(name.to_owned()).map_err(|_| TlsError::Name(name.into()))
}

fn roots(ca: Option<&Path>) -> Result<RootCertStore, TlsError> {
    if let Some(path) = ca {
        return authorities(path);
    }
    let mut roots = RootCertStore::empty();
    // A single certificate of the system that cannot be read is no reason to distrust the others.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() { Err(TlsError::NoRoots) } else { Ok(roots) }
}

/// What went wrong in TLS, in words that say what to do, if it was TLS.
#[expect(clippy::wildcard_enum_match_arm, reason = "all others are told by their own name")]
pub fn words(error: &io::Error) -> Option<String> {
    let error = error.get_ref()?.downcast_ref::<Error>()?;
    Some(match error {
        Error::InvalidCertificate(reason) => certificate_words(reason),
        Error::AlertReceived(AlertDescription::CertificateRequired) => {
            "it wants a certificate of ours: give tls.certificate and tls.key".to_owned()
        }
        Error::AlertReceived(
            alert @ (AlertDescription::BadCertificate
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateRevoked),
        ) => format!("it does not accept our certificate ({alert:?})"),
        Error::InvalidMessage(_) => "it does not speak TLS on this port".to_owned(),
        other => format!("TLS failed: {other}"),
    })
}

#[expect(clippy::wildcard_enum_match_arm, reason = "all others are told by their own name")]
fn certificate_words(reason: &CertificateError) -> String {
    match reason {
        CertificateError::UnknownIssuer => "its certificate is signed by an authority that is not trusted here: \
                                            name the broker's own authority as tls.ca"
            .to_owned(),
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "its certificate has expired, or the clock of this machine is wrong".to_owned()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "its certificate is not valid yet, or the clock of this machine is wrong".to_owned()
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "its certificate is made for another name: use that name in the url, or give it as tls.server_name"
                .to_owned()
        }
        other => format!("its certificate is not accepted: {other}"),
    }
}

/// Believes every certificate, as `verify = false` wants it. Signatures are checked all the same: without that not
/// even the holder of the shown certificate would be at the other end.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
