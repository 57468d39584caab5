//! Streams over a change of the configuration, and registries that somebody else has written.

use super::*;
use crate::model::product::Property;
use crate::model::value::ValueType;

/// Every metric of the node once a second.
const EACH_SECOND: &str = r#"{"profiles":[{"id":1,"name":"p","rate":30,"metrics":["SETPOINT"],"rules":[]}],
    "nodes":[{"link":"rs485","profiles":[1]}]}"#;

fn with_devices(devices: Vec<Arc<Device>>) -> Arc<Context> {
    context(|context| context.directory = Arc::new(Directory::new(devices, Vec::new())))
}

fn state(device: &Arc<Device>) -> DeviceSnapshot {
    let reading = |at: usize| Reading {
        value: Value::Float(f64::from(u32::try_from(at).unwrap())),
        at: UnixMillis(0),
        quality: Quality::Good,
    };
    DeviceSnapshot {
        device: Arc::clone(device),
        online: true,
        since: None,
        readings: (0..device.product.properties.len()).map(|at| Some(reading(at))).collect(),
        alarms: Vec::new(),
    }
}

/// What a subscription to a sampled stream is told in the next seconds, if its device has this state.
fn sampled(rig: &mut Rig, device: &Arc<Device>) -> String {
    rig.wait(Duration::from_secs(1));
    rig.answer(vec![state(device)]);
    let mut said = std::mem::take(&mut rig.said);
    said.append(&mut rig.wait(Duration::from_secs(1)));
    let body = said.last().and_then(|text| text.split_once("\n\n")).map(|(_, body)| body.to_owned());
    if rig.asked.len() == 1 {
        rig.answer(Vec::new());
    }
    body.unwrap_or_else(|| panic!("no sample: {said:?}"))
}

#[test]
fn a_sampled_stream_goes_on_when_a_reload_moves_its_properties() {
    let before = fixture::context();
    let mut rig = connected(&before, "demo");
    rig.send("SUBSCRIBE\nid:s\ndestination:/stream/rs485/press-1\n\n\0");
    registry(&mut rig, Some(&EACH_SECOND.into()));
    assert!(sampled(&mut rig, &fixture::press(&before)).starts_with("[{\"SETPOINT\":1.0,"));
    let mut product = (*fixture::press(&before).product).clone();
    product.properties.reverse();
    product.properties.insert(0, Property::new("first", ValueType::Int));
    let changed = Arc::new(Device { product: Arc::new(product), ..(*fixture::press(&before)).clone() });
    // An answer that is still on its way counts properties as they were.
    rig.wait(Duration::from_secs(1));
    let late = rig.asked.pop();
    rig.input(Input::Reconfigured(with_devices(vec![Arc::clone(&changed)])));
    if let Some((token, _)) = late {
        let devices = vec![state(&changed)];
        let snapshot = Snapshot { seq: 1, devices, links: Vec::new() };
        rig.input(Input::Answer(token, Answer::Snapshot(Arc::new(snapshot))));
    }
    assert!(!rig.said.iter().any(|said| said.starts_with("MESSAGE")), "{:?}", rig.said);
    assert!(sampled(&mut rig, &changed).starts_with("[{\"SETPOINT\":2.0,"));
}

#[test]
fn a_stream_waits_for_a_device_that_a_reload_brings_and_for_one_that_it_took() {
    let both = fixture::context();
    let first = with_devices(vec![fixture::press(&both)]);
    let second = Arc::clone(&both.directory.devices()[1]);
    let mut rig = connected(&first, "demo");
    assert_eq!(rig.send("SUBSCRIBE\nid:s\ndestination:/stream/rs485/press-2\n\n\0"), [""; 0]);
    for _ in 0..2 {
        rig.input(Input::Reconfigured(Arc::clone(&both)));
        while !rig.asked.is_empty() {
            registry(&mut rig, None);
        }
        assert_eq!(std::mem::take(&mut rig.said), ["watch"]);
        rig.input(report(&second, &[("setpoint", Value::Float(1.0), Quality::Good)]));
        assert_eq!(rig.said, [""; 0], "the batch is not full");
        rig.input(Input::Reconfigured(Arc::clone(&first)));
        let said = std::mem::take(&mut rig.said);
        assert!(said.iter().any(|said| said.contains("[{\"SETPOINT\":1.0,")), "{said:?}");
        assert_eq!(rig.watched.len(), 0);
    }
    assert_eq!(rig.send("UNSUBSCRIBE\nid:s\n\n\0"), [""; 0]);
    rig.input(Input::Reconfigured(both));
    assert_eq!(rig.said, [""; 0], "it is not subscribed any more");
}

proptest! {
    /// What is stored was written by another version, or by a hand.
    #[test]
    fn no_stored_registry_makes_a_session_panic(
        text in any::<String>(),
        at in 0..EACH_SECOND.len(),
        instead in "[0-9a-z\"{}\\[\\],:-]{0,20}",
    ) {
        let mut damaged = EACH_SECOND.to_owned();
        damaged.replace_range(at..=at, &instead);
        for body in [text, damaged] {
            let mut rig = connected(&fixture::context(), "demo");
            rig.send("SUBSCRIBE\nid:a\ndestination:/stream/rs485/press-1\n\n\0");
            registry(&mut rig, Some(&body.as_str().into()));
            for _ in 0..3 {
                rig.wait(Duration::from_secs(1));
            }
            for path in ["/api/profile/list", "/api/rule/list", "/api/node/list"] {
                let mut rig = begin(&fixture::context(), path, "{}");
                registry(&mut rig, Some(&body.as_str().into()));
                prop_assert!(rig.said[0].starts_with("200 "));
            }
        }
    }
}
