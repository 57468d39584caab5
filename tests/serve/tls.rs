//! The same over TLS.

use std::path::Path;
use std::sync::Arc;

use pentad::serve::tls::{ClientCertificates, Tls};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::crypto::ring;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::common::certificate;
use crate::common::ws::PATIENCE;
use crate::rig::{Rig, Setup};

/// A folder with a certificate for localhost that nobody else trusts, made anew so that no key lies about.
fn folder() -> TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    certificate::make(folder.path());
    folder
}

fn load(folder: &Path, clients: Option<&ClientCertificates>) -> Tls {
    Tls::load(&folder.join("cert.pem"), &folder.join("key.pem"), clients).unwrap()
}

fn rig(tls: Tls) -> Rig {
    Rig::with(Setup { tls: Some(tls), ..Setup::default() })
}

/// A certificate of a client with its key.
type Shown = (CertificateDer<'static>, PrivateKeyDer<'static>);

/// Shakes hands with a server whose certificate lies in the folder, and asks for a page: a server may refuse a client
/// only after the handshake is done on the client's side.
async fn ask(rig: &Rig, folder: &Path, shown: Option<Shown>) -> std::io::Result<String> {
    let mut stream = shake(rig, folder, shown).await?;
    stream.write_all(b"GET /seen HTTP/1.1\r\nhost: barn\r\nconnection: close\r\n\r\n").await?;
    let mut answer = String::new();
    timeout(PATIENCE, stream.read_to_string(&mut answer)).await.expect("an answer in time")?;
    Ok(answer)
}

async fn shake(rig: &Rig, folder: &Path, shown: Option<Shown>) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(folder.join("cert.pem")).unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let config = match shown {
        Some((certificate, key)) => config.with_client_auth_cert(vec![certificate], key).unwrap(),
        None => config.with_no_client_auth(),
    };
    let name = ServerName::try_from("localhost").unwrap();
    let handshake = TlsConnector::from(Arc::new(config)).connect(name, rig.tcp().await);
    timeout(PATIENCE, handshake).await.expect("a handshake in time")
}

#[tokio::test]
async fn requests_over_tls_know_that_they_are_secure() {
    let folder = folder();
    let rig = rig(load(folder.path(), None));
    let answer = ask(&rig, folder.path(), None).await.unwrap();
    assert!(answer.ends_with("GET 127.0.0.1 https://barn/seen  0"), "{answer}");
}

#[tokio::test]
async fn websockets_run_over_tls_and_end_cleanly() {
    use futures_util::{SinkExt, StreamExt};
    use tokio_tungstenite::tungstenite::Message;
    let folder = folder();
    let rig = rig(load(folder.path(), None));
    let stream = shake(&rig, folder.path(), None).await.unwrap();
    let upgrade = Box::pin(tokio_tungstenite::client_async("ws://localhost/parrot", stream));
    let (mut client, _) = upgrade.await.unwrap();
    client.send(Message::text("hello")).await.unwrap();
    assert_eq!(client.next().await.unwrap().unwrap(), Message::text("hello"));
    client.send(Message::text("close 1000 0")).await.unwrap();
    assert!(client.next().await.unwrap().unwrap().is_close());
    assert!(client.next().await.is_none(), "the close is complete");
}

#[tokio::test]
async fn a_plain_client_on_the_tls_port_harms_nobody() {
    let folder = folder();
    let rig = rig(load(folder.path(), None));
    let mut plain = rig.tcp().await;
    plain.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    // An alert or a reset: either way no page.
    drop(timeout(PATIENCE, plain.read_to_end(&mut answer)).await.expect("it is cut off"));
    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
    ask(&rig, folder.path(), None).await.unwrap();
}

#[tokio::test]
async fn a_renewed_certificate_is_shown_and_a_broken_one_is_not() {
    let folder = folder();
    let tls = load(folder.path(), None);
    let rig = rig(tls.clone());
    ask(&rig, folder.path(), None).await.unwrap();
    certificate::make(folder.path());
    assert!(ask(&rig, folder.path(), None).await.is_err(), "the old one is still shown");
    tls.refresh();
    ask(&rig, folder.path(), None).await.unwrap();
    let renewed = std::fs::read(folder.path().join("cert.pem")).unwrap();
    std::fs::write(folder.path().join("cert.pem"), "half a certificate").unwrap();
    tls.refresh();
    std::fs::write(folder.path().join("cert.pem"), renewed).unwrap();
    ask(&rig, folder.path(), None).await.unwrap();
}

/// An authority, its certificate in a file of the folder, and a client's certificate that it has signed.
fn authority(folder: &Path, name: &str) -> Shown {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    std::fs::write(folder.join(name), authority.pem()).unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate =
        CertificateParams::new(vec!["hmi".to_owned()]).unwrap().signed_by(&key, &authority).unwrap();
    (certificate.der().clone(), PrivateKeyDer::try_from(key.serialize_der()).unwrap())
}

#[tokio::test]
async fn clients_show_certificates_where_they_are_asked_to() {
    let folder = folder();
    let (own, foreign) = (authority(folder.path(), "own.pem"), authority(folder.path(), "foreign.pem"));
    for required in [true, false] {
        let clients = ClientCertificates { authorities: folder.path().join("own.pem"), required };
        let rig = rig(load(folder.path(), Some(&clients)));
        let shown = |(certificate, key): &Shown| Some((certificate.clone(), key.clone_key()));
        assert!(ask(&rig, folder.path(), shown(&own)).await.is_ok(), "required: {required}");
        assert!(ask(&rig, folder.path(), shown(&foreign)).await.is_err(), "required: {required}");
        assert_eq!(ask(&rig, folder.path(), None).await.is_ok(), !required, "without any");
    }
}
