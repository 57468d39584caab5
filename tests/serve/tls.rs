//! The same over TLS.

use std::path::Path;
use std::process::Command;
use std::sync::{Arc, OnceLock};

use pentad::serve::tls::acceptor;
use rustls::crypto::ring;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::common::ws::PATIENCE;
use crate::rig::{Rig, Setup};

/// A certificate for localhost that nobody else trusts, made anew for each run so that no key lies about.
fn certificate() -> &'static Path {
    static FOLDER: OnceLock<tempfile::TempDir> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let made = Command::new("openssl")
            .args([
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
                "-nodes",
                "-days",
                "2",
            ])
            .args(["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"])
            .args(["-addext", "basicConstraints=critical,CA:FALSE", "-keyout", "key.pem", "-out", "cert.pem"])
            .current_dir(folder.path())
            .output()
            .expect("openssl is installed (Debian package openssl; tests/run installs it)");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        folder
    });
    folder.path()
}

fn rig() -> Rig {
    let tls = acceptor(&certificate().join("cert.pem"), &certificate().join("key.pem")).unwrap();
    Rig::with(Setup { tls: Some(tls), ..Setup::default() })
}

async fn connect(rig: &Rig) -> TlsStream<tokio::net::TcpStream> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(certificate().join("cert.pem")).unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").unwrap();
    let handshake = TlsConnector::from(Arc::new(config)).connect(name, rig.tcp().await);
    timeout(PATIENCE, handshake).await.expect("a handshake in time").unwrap()
}

#[tokio::test]
async fn requests_over_tls_know_that_they_are_secure() {
    let rig = rig();
    let mut stream = connect(&rig).await;
    stream.write_all(b"GET /seen HTTP/1.1\r\nhost: barn\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    timeout(PATIENCE, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
    assert!(answer.ends_with("GET 127.0.0.1 https://barn/seen  0"), "{answer}");
}

#[tokio::test]
async fn websockets_run_over_tls_and_end_cleanly() {
    use futures_util::{SinkExt, StreamExt};
    use tokio_tungstenite::tungstenite::Message;
    let rig = rig();
    let stream = connect(&rig).await;
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
    let rig = rig();
    let mut plain = rig.tcp().await;
    plain.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    // An alert or a reset: either way no page.
    drop(timeout(PATIENCE, plain.read_to_end(&mut answer)).await.expect("it is cut off"));
    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
    connect(&rig).await;
}
