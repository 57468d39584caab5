//! A certificate for localhost that nobody else trusts.

use std::path::Path;

use rcgen::{CertificateParams, KeyPair};

/// Puts `cert.pem` and `key.pem` into a folder, in the place of those that are there.
pub fn make(folder: &Path) {
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
    let chain = params.self_signed(&key).expect("a certificate");
    std::fs::write(folder.join("cert.pem"), chain.pem()).expect("the folder takes it");
    std::fs::write(folder.join("key.pem"), key.serialize_pem()).expect("the folder takes it");
}
