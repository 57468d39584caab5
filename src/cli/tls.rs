//! `pentad tls self-signed`: a first certificate, made where the gateway stands.
//!
//! Clients must be told to trust it; it is a beginning until there is one of an authority. The key is made here and
//! leaves the machine for nobody; it is readable by its owner and group alone.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use nix::ifaddrs::getifaddrs;
use nix::unistd::gethostname;
use rcgen::{CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair};
use sha2::{Digest, Sha256};

use super::{complain, say};
use crate::report::Chain;

/// What can be done about certificates.
#[derive(Debug, Subcommand)]
pub(super) enum Tls {
    /// Make a certificate with this gateway's names and addresses, signed by itself
    SelfSigned(SelfSigned),
}

/// Where it goes and whom it names.
#[derive(Debug, Args)]
pub(super) struct SelfSigned {
    /// Folder for cert.pem and key.pem
    #[arg(long, value_name = "DIR", default_value = "/etc/pentad/tls")]
    out: PathBuf,
    /// A further name or address that clients reach the gateway by; may be repeated
    #[arg(long = "name", value_name = "NAME|ADDR")]
    names: Vec<String>,
    /// How many days it is good for
    #[arg(long, value_name = "DAYS", default_value_t = 3650, value_parser = clap::value_parser!(u16).range(1..=36500))]
    days: u16,
    /// Replace a certificate that is there already
    #[arg(long)]
    force: bool,
}

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{path} exists already; give --force to replace it", path = .0.display())]
    Exists(PathBuf),
    #[error("cannot make a certificate for {names}", names = .0.join(", "))]
    Make(Vec<String>, #[source] rcgen::Error),
    #[error("cannot write {path}", path = .0.display())]
    Write(PathBuf, #[source] io::Error),
}

pub(super) fn tls(command: Tls) -> ExitCode {
    let Tls::SelfSigned(wanted) = command;
    match self_signed(&wanted) {
        Ok(words) => say(&words),
        Err(error) => {
            complain(&Chain(&error).to_string());
            ExitCode::FAILURE
        }
    }
}

fn self_signed(wanted: &SelfSigned) -> Result<String, Failure> {
    let (certificate, key) = (wanted.out.join("cert.pem"), wanted.out.join("key.pem"));
    if !wanted.force {
        if let Some(there) = [&certificate, &key].into_iter().find(|path| path.exists()) {
            return Err(Failure::Exists(there.clone()));
        }
    }
    let mut names = own_names();
    names.extend(wanted.names.iter().cloned());
    names.sort();
    names.dedup();
    let (chain, private, der) =
        make(&names, wanted.days).map_err(|error| Failure::Make(names.clone(), error))?;
    let group = group_around(&wanted.out);
    if !wanted.out.exists() {
        fs::create_dir_all(&wanted.out).map_err(|error| Failure::Write(wanted.out.clone(), error))?;
        hand_over(&wanted.out, group);
    }
    // The key first: a certificate without its key would look finished.
    write(&key, &private, 0o640, group)?;
    write(&certificate, &chain, 0o644, group)?;
    let fingerprint: Vec<String> = Sha256::digest(&der).iter().map(|byte| format!("{byte:02X}")).collect();
    Ok(format!(
        "{certificate} and {key} are good for {days} days, for {names}\nSHA-256 {fingerprint}\n\n\
         Put this into pentad.toml. The key is for root and the group that its folder belongs to:\n\n\
         [server.tls]\nlisten = [\"0.0.0.0:8443\"]\ncertificate = \"{certificate}\"\nkey = \"{key}\"",
        certificate = certificate.display(),
        key = key.display(),
        days = wanted.days,
        names = names.join(", "),
        fingerprint = fingerprint.join(":"),
    ))
}

/// Certificate and key as PEM, and the certificate's bytes.
fn make(names: &[String], days: u16) -> Result<(String, String, Vec<u8>), rcgen::Error> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(names.to_vec())?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, names.first().map_or("pentad", String::as_str));
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    // A gateway without a battery may have a wrong clock when this is made; the past does no harm.
    params.not_before = rcgen::date_time_ymd(2024, 1, 1);
    let now = crate::clock::wall().max(crate::clock::built()).0;
    let end = (now / 1000).saturating_add(i64::from(days).saturating_mul(86_400));
    let end =
        jiff::Timestamp::from_second(end).unwrap_or(jiff::Timestamp::MAX).to_zoned(jiff::tz::TimeZone::UTC);
    let (month, day) = (u8::try_from(end.month()).unwrap_or(1), u8::try_from(end.day()).unwrap_or(1));
    params.not_after = rcgen::date_time_ymd(i32::from(end.year()), month, day);
    let certificate = params.self_signed(&key)?;
    Ok((certificate.pem(), key.serialize_pem(), certificate.der().to_vec()))
}

/// How this machine is called and reached on its networks.
fn own_names() -> Vec<String> {
    let mut names = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    if let Some(host) =
        gethostname().ok().and_then(|host| host.into_string().ok()).filter(|host| !host.is_empty())
    {
        let short = host.split('.').next().unwrap_or(&host).to_owned();
        names.extend([format!("{short}.local"), short, host]);
    }
    let addresses = getifaddrs().into_iter().flatten().filter_map(|interface| {
        let address = interface.address?;
        let four = address.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
        four.or_else(|| address.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip())))
    });
    // Addresses of one link only are of no use in a URL.
    let useful = addresses.filter(|address| match address {
        IpAddr::V4(address) => !address.is_link_local(),
        IpAddr::V6(address) => !address.is_unicast_link_local(),
    });
    names.extend(useful.map(|address| address.to_string()));
    names.sort();
    names.dedup();
    names
}

/// The group of the folder, or of the nearest one above that is there: below /etc/pentad that of the service.
fn group_around(folder: &Path) -> Option<u32> {
    folder.ancestors().find_map(|above| fs::metadata(above).ok()).map(|above| above.gid())
}

/// Gives it to a group, where we may: whoever is not root makes it for themselves.
fn hand_over(path: &Path, group: Option<u32>) {
    if chown(path, None, group).is_err() {
        complain(&format!("{} cannot be given to the group of the folder around it", path.display()));
    }
}

/// Writes the whole file or leaves the old one.
fn write(path: &Path, text: &str, mode: u32, group: Option<u32>) -> Result<(), Failure> {
    let fail = |error| Failure::Write(path.to_owned(), error);
    let fresh = path.with_extension("pem.new");
    // One that was left by a run that was cut off.
    if fresh.exists() {
        fs::remove_file(&fresh).map_err(fail)?;
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&fresh).map_err(fail)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(fail)?;
    hand_over(&fresh, group);
    fs::rename(&fresh, path).map_err(fail)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::serve::tls;

    fn wanted(out: &Path) -> SelfSigned {
        SelfSigned { out: out.to_owned(), names: vec!["barn.example".to_owned()], days: 30, force: false }
    }

    #[test]
    fn a_first_certificate_is_made_that_the_gateway_can_serve() {
        let folder = tempfile::tempdir().unwrap();
        let words = self_signed(&wanted(folder.path())).unwrap();
        assert!(words.contains("barn.example") && words.contains("localhost"), "{words}");
        let (certificate, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
        assert!(
            !words.contains(fs::read_to_string(&key).unwrap().lines().nth(1).unwrap()),
            "the key is told"
        );
        assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o007, 0);
        tls::Tls::load(&certificate, &key, None).unwrap();
    }

    #[test]
    fn a_certificate_is_replaced_only_when_told_to() {
        let folder = tempfile::tempdir().unwrap();
        self_signed(&wanted(folder.path())).unwrap();
        let first = fs::read(folder.path().join("cert.pem")).unwrap();
        let error = self_signed(&wanted(folder.path())).unwrap_err().to_string();
        assert!(error.contains("--force"), "{error}");
        self_signed(&SelfSigned { force: true, ..wanted(folder.path()) }).unwrap();
        assert_ne!(fs::read(folder.path().join("cert.pem")).unwrap(), first);
    }

    #[test]
    fn a_name_that_is_none_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let names = vec!["no name\u{e4}".to_owned()];
        let error = self_signed(&SelfSigned { names, ..wanted(folder.path()) }).unwrap_err().to_string();
        assert!(error.contains("no name"), "{error}");
    }
}
