//! TLS with certificates made for the run, WebSockets, and MQTT 5.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, OnceLock};

use pentad::drivers::mqtt::packet::Version;
use pentad::drivers::mqtt::tls::TlsSettings;
use pentad::drivers::mqtt::{BrokerSettings, Transport};
use pentad::model::client::Secret;
use pentad::model::value::Value;

use crate::mosquitto::Mosquitto;
use crate::rig::{LEVEL, POWER, Rig, confirmed, on, settings};

/// Two authorities, and what the first one signed: a broker on 127.0.0.1 and a client. Made anew for each run, so that
/// no key lies about.
fn certificates() -> &'static Path {
    static FOLDER: OnceLock<tempfile::TempDir> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let openssl = |arguments: &str| {
            let made = Command::new("openssl").args(arguments.split(' ')).current_dir(folder.path()).output();
            let made = made.expect("openssl is installed (Debian package openssl; tests/run installs it)");
            assert!(made.status.success(), "{arguments}: {}", String::from_utf8_lossy(&made.stderr));
        };
        let key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
        for authority in ["ca", "other"] {
            openssl(&format!("req -x509 {key} -days 2 -subj /CN={authority} -keyout {authority}.key -out {authority}.pem"));
        }
        let client = "extendedKeyUsage=clientAuth";
        for (name, extension, authority) in [
            ("broker", "subjectAltName=IP:127.0.0.1", "ca"),
            ("client", client, "ca"),
            ("stranger", client, "other"),
        ] {
            std::fs::write(folder.path().join("extension"), extension).expect("a file can be written");
            openssl(&format!("req {key} -subj /CN={name} -keyout {name}.key -out {name}.csr"));
            openssl(&format!(
                "x509 -req -in {name}.csr -CA {authority}.pem -CAkey {authority}.key -CAcreateserial -days 2 -extfile extension -out {name}.pem"
            ));
        }
        folder
    });
    folder.path()
}

fn file(name: &str) -> PathBuf {
    certificates().join(name)
}

/// Lines that make mosquitto's listener a TLS one.
fn listener(more: &str) -> String {
    let path = |name: &str| file(name).display().to_string();
    format!(
        "certfile {}\nkeyfile {}\ncafile {}\nallow_anonymous true\n{more}",
        path("broker.pem"),
        path("broker.key"),
        path("ca.pem")
    )
}

/// Lines that make mosquitto's listener one for WebSockets. Version 2.0.11 counts only the others and ends when there
/// is none, so there is another one that nobody uses.
fn web(broker: &Mosquitto) -> String {
    format!("protocol websockets\nlistener 0 {}", broker.folder().join("unused").display())
}

fn trusting(authority: &str) -> TlsSettings {
    TlsSettings { ca: Some(file(authority)), verify: true, ..TlsSettings::default() }
}

fn over(broker: &Mosquitto, tls: Option<TlsSettings>, web: Option<&str>) -> BrokerSettings {
    BrokerSettings { transport: Transport { tls, web: web.map(Arc::from) }, ..settings(broker) }
}

/// Why there is no link.
async fn refusal(settings: BrokerSettings) -> String {
    let (up, reason) = Rig::start(settings, false).link().await;
    assert!(!up);
    reason.expect("a reason")
}

/// The link comes up, and a write arrives at the broker and is acknowledged.
async fn works(settings: BrokerSettings) {
    Rig::start(settings, false).connected().await;
}

#[tokio::test]
async fn a_broker_with_tls_is_trusted_by_its_authority_and_by_no_other() {
    let mut broker = Mosquitto::absent();
    broker.run_with(&listener("")).await;
    works(over(&broker, Some(trusting("ca.pem")), None)).await;
    let reason = refusal(over(&broker, Some(trusting("other.pem")), None)).await;
    assert!(reason.contains("signed by an authority that is not trusted here"), "{reason}");
    let system = TlsSettings { verify: true, ..TlsSettings::default() };
    let reason = refusal(over(&broker, Some(system), None)).await;
    assert!(reason.contains("authorit"), "{reason}");
    let named = TlsSettings { server_name: Some("another.example".into()), ..trusting("ca.pem") };
    let reason = refusal(over(&broker, Some(named), None)).await;
    assert!(reason.contains("made for another name"), "{reason}");
    works(over(&broker, Some(TlsSettings { verify: false, ..TlsSettings::default() }), None)).await;
}

#[tokio::test]
async fn a_broker_that_wants_a_client_certificate_gets_it() {
    let mut broker = Mosquitto::absent();
    broker.run_with(&listener("require_certificate true")).await;
    let identity = Some((file("client.pem"), file("client.key")));
    works(over(&broker, Some(TlsSettings { identity, ..trusting("ca.pem") }), None)).await;
    let reason = refusal(over(&broker, Some(trusting("ca.pem")), None)).await;
    assert!(reason.contains("it wants a certificate of ours"), "{reason}");
}

#[tokio::test]
async fn a_client_certificate_of_another_authority_is_refused_and_named_as_such() {
    let mut broker = Mosquitto::absent();
    broker.run_with(&listener("require_certificate true")).await;
    let identity = Some((file("stranger.pem"), file("stranger.key")));
    let reason = refusal(over(&broker, Some(TlsSettings { identity, ..trusting("ca.pem") }), None)).await;
    assert!(reason.contains("it does not accept our certificate"), "{reason}");
    let mixed = Some((file("client.pem"), file("stranger.key")));
    let reason =
        refusal(over(&broker, Some(TlsSettings { identity: mixed, ..trusting("ca.pem") }), None)).await;
    assert!(reason.contains("client.pem and key") && reason.contains("cannot be used together"), "{reason}");
}

#[tokio::test]
async fn authority_certificate_and_password_hold_together_and_after_the_broker_was_killed() {
    let mut broker = Mosquitto::absent();
    let passwords = broker.password_file("pentad", "right").await;
    let closed =
        listener("require_certificate true").replace("allow_anonymous true", "allow_anonymous false");
    let access = format!("{closed}\npassword_file {}", passwords.display());
    broker.run_with(&access).await;
    let identity = Some((file("client.pem"), file("client.key")));
    let tls = TlsSettings { identity, ..trusting("ca.pem") };
    let login = |password: &str| Some(("pentad".into(), Secret::new(password)));
    let with = |broker: &Mosquitto, password| BrokerSettings {
        login: login(password),
        ..over(broker, Some(tls.clone()), None)
    };
    let reason = refusal(with(&broker, "wr0ng")).await;
    assert!(reason.contains("user name and password") && !reason.contains("wr0ng"), "{reason}");
    let mut rig = Rig::start(with(&broker, "right"), false);
    rig.connected().await;
    broker.kill().await;
    assert!(!rig.link().await.0);
    broker.run_with(&access).await;
    assert!(rig.link().await.0);
}

#[tokio::test]
async fn tls_files_that_cannot_be_used_are_named() {
    let mut broker = Mosquitto::absent();
    broker.run_with(&listener("")).await;
    let missing = TlsSettings { ca: Some("/nonexistent/ca.pem".into()), ..trusting("ca.pem") };
    let reason = refusal(over(&broker, Some(missing), None)).await;
    assert!(reason.contains("/nonexistent/ca.pem") && reason.contains("No such file"), "{reason}");
    let identity = Some((file("broker.csr"), file("client.key")));
    let reason = refusal(over(&broker, Some(TlsSettings { identity, ..trusting("ca.pem") }), None)).await;
    assert!(reason.contains("found no certificate in") && reason.contains("broker.csr"), "{reason}");
}

#[tokio::test]
async fn a_plain_broker_behind_a_tls_address_is_named_as_such() {
    let broker = Mosquitto::start().await;
    let reason = refusal(over(&broker, Some(trusting("ca.pem")), None)).await;
    assert!(reason.contains("TLS") || reason.contains("closed the connection"), "{reason}");
}

#[tokio::test]
async fn websockets_carry_the_same() {
    let mut broker = Mosquitto::absent();
    broker.run_with(&format!("{}\nallow_anonymous true", web(&broker))).await;
    works(over(&broker, None, Some("/mqtt"))).await;
    let mut broker = Mosquitto::absent();
    broker.run_with(&listener(&web(&broker))).await;
    works(BrokerSettings { version: Version::V5, ..over(&broker, Some(trusting("ca.pem")), Some("/mqtt")) })
        .await;
    let plain = Mosquitto::start().await;
    let reason = refusal(over(&plain, None, Some("/mqtt"))).await;
    assert!(reason.contains("closed the connection") || reason.contains("WebSocket"), "{reason}");
}

#[tokio::test]
async fn mqtt_5_reads_writes_and_names_a_wrong_password() {
    let mut broker = Mosquitto::absent();
    let passwords = broker.password_file("pentad", "right").await;
    broker.run_with(&format!("allow_anonymous true\npassword_file {}", passwords.display())).await;
    let login = |password: &str| Some(("pentad".into(), Secret::new(password)));
    let newer =
        |password| BrokerSettings { version: Version::V5, login: login(password), ..settings(&broker) };
    let reason = refusal(newer("wr0ng")).await;
    assert!(reason.contains("user name and password") && !reason.contains("wr0ng"), "{reason}");
    let mut rig = Rig::start(newer("right"), false);
    rig.connected().await;
    broker.publish("plug-1/state", r#"{"power":"ON"}"#).await;
    assert_eq!(rig.values().await, [(POWER, on())]);
    rig.write(&[(LEVEL, Value::Int(40))]).await;
    assert_eq!(rig.outcome().await, confirmed(&[("level", Value::Int(40))]));
}

#[tokio::test]
async fn a_message_that_mqtt_5_refuses_is_named_with_the_brokers_reason() {
    let mut broker = Mosquitto::absent();
    let rules = broker.folder().join("rules");
    std::fs::write(&rules, "topic read #\n").unwrap();
    broker.run_with(&format!("allow_anonymous true\nacl_file {}", rules.display())).await;
    let mut rig = Rig::start(BrokerSettings { version: Version::V5, ..settings(&broker) }, false);
    assert!(rig.link().await.0);
    rig.write(&[(LEVEL, Value::Int(40))]).await;
    let outcome = format!("{:?}", rig.outcome().await);
    assert!(outcome.contains("the broker refuses the message: not authorized"), "{outcome}");
}
