//! Tests of devices that come and go.

use super::*;

#[test]
fn devices_come_and_go_while_the_others_keep_what_is_known_of_them() {
    let mut bed = Bed::connected(|_| ());
    let asked = |bed: &mut Bed| bed.state.poll_subscriptions().unwrap_or_default();
    let names = |filters: &[(Arc<str>, u8)]| filters.iter().map(|(f, _)| f.to_string()).collect::<Vec<_>>();
    assert_eq!(names(&asked(&mut bed).wanted).first().map(String::as_str), Some("d/state"));
    assert_eq!(asked(&mut bed), Subscriptions::default(), "asked once");
    bed.message("d/state", r#"{"power":true}"#);
    assert_eq!(bed.presence(), [true]);

    // Another device of the same map: only its own topics are asked for, and nothing is said of the first.
    let member = |id: &str, topic: &str| MqttDevice {
        device: Arc::new(Device { id: id.into(), ..Device::clone(&device()) }),
        topic: topic.into(),
        map: Arc::new(map()),
    };
    let first = MqttDevice { device: Arc::clone(&bed.device), topic: "d".into(), map: Arc::new(map()) };
    let now = bed.now;
    let both = Members { devices: vec![member("e", "e"), first.clone()], ..Members::default() };
    assert_eq!(bed.state.handle_members(&both, now), []);
    let change = asked(&mut bed);
    assert!(names(&change.wanted).iter().all(|filter| filter.starts_with("e/")), "{change:?}");
    assert!(!change.wanted.is_empty() && change.unwanted.is_empty());
    assert!(bed.seen().is_empty());
    bed.message("e/state", r#"{"power":false}"#);
    let of_other =
        |seen: &Observation| matches!(seen, Observation::Presence { device, .. } if &*device.id == "e");
    assert!(bed.seen().iter().any(of_other));

    // One that moves to a topic of another is told what the broker has kept there; the other knows better.
    let moved = Members { devices: vec![first, member("e", "d")], ..Members::default() };
    assert_eq!(bed.state.handle_members(&moved, now), []);
    assert_eq!(bed.presence(), [false], "the moved one is not there until it is heard of");
    let change = asked(&mut bed);
    assert!(names(&change.wanted).contains(&"d/state".to_owned()), "{change:?}");
    assert!(change.unwanted.contains(&"e/state".into()), "{change:?}");
    bed.retained("d/state", r#"{"power":false}"#);
    let told: Vec<_> = bed
        .seen()
        .into_iter()
        .filter_map(|seen| {
            let Observation::Values { device, .. } = seen else { return None };
            Some(device.id.to_string())
        })
        .collect();
    assert_eq!(told, ["e"]);
}

#[test]
fn a_command_to_a_device_that_goes_is_settled_and_not_sent() {
    let mut bed = Bed::connected(|_| ());
    bed.message("d/state", r#"{"power":true}"#);
    bed.write(&[(LEVEL, Value::Int(3))]);
    bed.seen();
    bed.sent();
    bed.write(&[(LEVEL, Value::Int(4))]);
    let now = bed.now;
    bed.state.handle_members(&Members::default(), now);
    let gone = Outcome::Rejected(Rejection::UnknownDevice(Arc::clone(&bed.device.id)));
    assert_eq!(bed.outcomes(), [Outcome::TimedOut, gone]);
    assert_eq!(bed.state.poll_publish(), None);
}
