//! The pages for whoever watches the gateway; the test plays the hub.

use std::sync::Arc;
use std::time::Duration;

use pentad::hub::handle::{HubRequest, SessionReply};
use pentad::model::device::Link;
use pentad::model::snapshot::{Answer, DeviceSnapshot, LinkSnapshot, Snapshot};
use pentad::serve::Patience;

use crate::common::bed;
use crate::common::ws::http;
use crate::rig::{Rig, Setup, told};

/// Answers the next question with a plant of which one link and one device are well.
async fn play_hub(rig: &mut Rig) {
    let replies = loop {
        match rig.asked().await {
            HubRequest::Attach { replies, .. } => break replies,
            // Who asked before leaves.
            HubRequest::Detach { .. } => {}
            other @ (HubRequest::Watch { .. }
            | HubRequest::Submit { .. }
            | HubRequest::Ask { .. }
            | HubRequest::Adopt(_)
            | HubRequest::Release { .. }) => panic!("{other:?} before a session is opened"),
        }
    };
    let HubRequest::Ask { token, client, .. } = rig.asked().await else { panic!("nothing was asked") };
    let directory = bed::context().directory;
    let seen = directory.devices().iter().filter(|device| client.sees(device));
    let devices = seen.enumerate().map(|(at, device)| DeviceSnapshot {
        device: Arc::clone(device),
        online: at == 0,
        since: None,
        readings: Vec::new(),
        alarms: Vec::new(),
    });
    let link = |id: &str, up| LinkSnapshot {
        link: Arc::new(Link { id: id.into(), ..(*directory.links()[0]).clone() }),
        up,
        since: None,
        connects: 3,
    };
    let snapshot =
        Snapshot { seq: 1, devices: devices.collect(), links: vec![link("good", true), link("bad", false)] };
    replies
        .send(Box::new(told(SessionReply::Answer(token, Answer::Snapshot(Arc::new(snapshot))))))
        .await
        .unwrap();
}

async fn asked(rig: &mut Rig, path: &str, headers: &[(&str, &str)]) -> (u16, String) {
    let port = rig.port();
    tokio::join!(http(port, "GET", path, headers, ""), play_hub(rig)).0
}

#[tokio::test]
async fn health_is_whether_the_hub_answers() {
    let mut rig = Rig::start();
    assert_eq!(asked(&mut rig, "/healthz", &[]).await, (200, "ok\n".to_owned()));
    assert_eq!(http(rig.port(), "POST", "/healthz", &[], "").await.0, 405);
    let port = rig.port();
    rig.hub.close();
    assert_eq!(http(port, "GET", "/healthz", &[], "").await, (503, "the hub has stopped\n".to_owned()));
}

#[tokio::test]
async fn a_hub_that_does_not_answer_is_not_healthy_and_not_ready() {
    let patience = Patience { hub: Duration::from_millis(50), ..Patience::default() };
    let rig = Rig::with(Setup { patience, ..Setup::default() });
    assert_eq!(
        http(rig.port(), "GET", "/healthz", &[], "").await,
        (503, "the hub does not answer\n".to_owned())
    );
    let (status, body) = http(rig.port(), "GET", "/readyz", &[], "").await;
    assert_eq!(
        (status, body.as_str()),
        (503, "{\"ready\":false,\"reasons\":[\"the hub does not answer\"]}\n")
    );
}

#[tokio::test]
async fn readiness_tells_what_is_wrong_with_the_plant() {
    let mut rig = Rig::start();
    let (status, body) = asked(&mut rig, "/readyz", &[]).await;
    assert_eq!(status, 200, "{body}");
    let body: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(body["links"]["up"], 1);
    assert_eq!(body["devices"]["online"], 1);
    let reasons = body["degraded"].as_array().unwrap();
    assert!(reasons.iter().any(|reason| reason == "link bad is down"), "{body}");
    assert!(!reasons.iter().any(|reason| reason == "link good is down"), "{body}");
    assert!(!body.to_string().contains("history"), "{body}");
    rig.shared.meters.hub().history_troubled.set(1);
    let (_, body) = asked(&mut rig, "/readyz", &[]).await;
    assert!(body.contains("\"the history cannot be written\""), "{body}");
}

#[tokio::test]
async fn metrics_are_lines_that_prometheus_reads() {
    let mut rig = Rig::start();
    let (status, body) = asked(&mut rig, "/metrics", &[]).await;
    assert_eq!(status, 200);
    for line in [
        "pentad_hub_answers 1",
        "pentad_clock_synchronised 1",
        "pentad_history_troubled 0",
        "pentad_devices_online 1",
        "pentad_link_up{link=\"bad\"} 0",
        "pentad_link_connects_total{link=\"good\"} 3",
        "pentad_sessions{dialect=\"uplus\"} 0",
    ] {
        assert!(body.lines().any(|each| each == line), "{line} is missing in\n{body}");
    }
    for line in body.lines().filter(|line| !line.starts_with('#')) {
        let (_, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line} has no value"));
        assert!(value.parse::<f64>().is_ok(), "{line}");
    }
}

#[tokio::test]
async fn from_elsewhere_only_who_may_read_sees_more_than_health() {
    let proxy = vec![[127, 0, 0, 1].into()];
    let mut rig = Rig::with(Setup { trusted_proxies: proxy, ..Setup::default() });
    let elsewhere = ("x-forwarded-for", "192.0.2.7");
    for path in ["/metrics", "/readyz"] {
        assert_eq!(http(rig.port(), "GET", path, &[elsewhere], "").await.0, 401, "{path}");
        let wrong = ("authorization", "Bearer wrong");
        assert_eq!(http(rig.port(), "GET", path, &[elsewhere, wrong], "").await.0, 401, "{path}");
        let right = ("authorization", "bearer reader-secret");
        assert_eq!(asked(&mut rig, path, &[elsewhere, right]).await.0, 200, "{path}");
    }
    assert_eq!(asked(&mut rig, "/healthz", &[elsewhere]).await.0, 200);
}

#[tokio::test]
async fn from_elsewhere_a_client_sees_its_own_devices_and_links_only_with_all_of_them() {
    let proxy = vec![[127, 0, 0, 1].into()];
    let mut rig = Rig::with(Setup { trusted_proxies: proxy, ..Setup::default() });
    rig.shared.meters.bus("good").bus.requests.inc();
    let counted = "pentad_bus_requests_total{link=\"good\"} 1";
    for (secret, devices, links) in [("bearer reader-secret", 2, 0), ("bearer demo", 5, 2)] {
        let headers = [("x-forwarded-for", "192.0.2.7"), ("authorization", secret)];
        let (_, body) = asked(&mut rig, "/readyz", &headers).await;
        let ready: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!((&ready["devices"]["total"], &ready["links"]["total"]), (&devices.into(), &links.into()));
        let (_, text) = asked(&mut rig, "/metrics", &headers).await;
        assert_eq!(body.contains("lamp-1") && body.contains("link bad"), links > 0, "{body}");
        assert_eq!(text.contains("link=\"bad\""), links > 0, "{text}");
        assert_eq!(text.lines().any(|line| line == counted), links > 0, "{text}");
        assert!(text.lines().any(|line| line == format!("pentad_devices {devices}")), "{text}");
    }
}

#[tokio::test]
async fn a_proxy_on_this_machine_that_nobody_named_opens_nothing() {
    let rig = Rig::start();
    for header in [("x-forwarded-for", "192.0.2.7"), ("forwarded", "for=192.0.2.7")] {
        for path in ["/metrics", "/readyz", "/captures/line.pcapng"] {
            assert_eq!(http(rig.port(), "GET", path, &[header], "").await.0, 401, "{path} {header:?}");
        }
    }
}
