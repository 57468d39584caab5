//! Devices that come, go and change under sessions, groups, alarms and commands that live on.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::model::history::{AlarmAsk, AlarmKind, ClientAlarm};
use crate::model::interest::Relation;

fn plant(rig: &Rig) -> Vec<Arc<Device>> {
    rig.directory.devices().to_vec()
}

fn without(rig: &Rig, id: &str) -> Vec<Arc<Device>> {
    let mut devices = plant(rig);
    devices.retain(|device| &*device.id != id);
    devices
}

fn with(rig: &Rig, more: Arc<Device>) -> Vec<Arc<Device>> {
    let mut devices = without(rig, &more.id);
    devices.push(more);
    devices
}

fn product(rig: &Rig) -> Arc<Product> {
    Arc::clone(&rig.device("press-2").product)
}

#[test]
fn a_device_that_comes_reaches_whoever_wants_its_kind_or_its_name() {
    let mut rig = Rig::new();
    let demo = all_rights("demo");
    rig.watcher(1, &demo);
    rig.attach(SessionKey(2));
    let named = Interest { selector: Selector::Device("press-3".into()), kinds: Kinds::ALL };
    rig.watch(SessionKey(2), &demo, vec![named]);
    rig.watcher(3, &client("other", Rights::ALL, &["press-1"]));
    rig.adopt(with(&rig, device("press-3", &product(&rig), "rs485", "1")));
    assert_eq!((rig.heard(1), rig.heard(2)), (vec![], vec![]), "nothing is known of it yet");
    rig.values("press-3", &[(DOOR, Value::Bool(true))]);
    for key in [1, 2] {
        assert_eq!(rig.heard(key), ["press-3 online", "press-3 door=true"]);
    }
    assert_eq!(rig.heard(3), [""; 0]);
}

#[test]
fn a_device_that_goes_is_told_as_offline_with_its_alarms_cleared_and_may_come_back() {
    let mut rig = Rig::new();
    let demo = all_rights("demo");
    rig.attach(SessionKey(1));
    let named = Interest { selector: Selector::Device("press-1".into()), kinds: Kinds::ALL };
    rig.watch(SessionKey(1), &demo, vec![named]);
    let gone = rig.device("press-1");
    rig.values("press-1", &[(TEMPERATURE, Value::Float(90.0))]);
    rig.heard(1);
    rig.adopt(without(&rig, "press-1"));
    assert_eq!(
        rig.heard(1),
        ["press-1 alarm too-hot cleared at 90, active []", "press-1 offline: it is no longer configured"]
    );
    rig.observe(Observation::Presence {
        device: Arc::clone(&gone),
        at: rig.now.wall,
        online: true,
        reason: None,
    });
    assert_eq!(rig.heard(1), [""; 0], "its driver has not heard of it yet");
    // Another device has its slot meanwhile.
    rig.adopt(with(&rig, device("press-9", &product(&rig), "rs485", "1")));
    rig.values("press-9", &[(TEMPERATURE, Value::Float(20.0))]);
    assert_eq!(rig.heard(1), [""; 0]);
    rig.adopt(with(&rig, gone));
    rig.values("press-1", &[(TEMPERATURE, Value::Float(21.0))]);
    assert_eq!(rig.heard(1), ["press-1 online", "press-1 temperature=21"]);
}

#[test]
fn a_command_to_a_device_that_goes_gets_its_outcome_from_the_driver_or_by_its_deadline() {
    let mut rig = Rig::new();
    let demo = all_rights("demo");
    rig.watcher(1, &demo);
    rig.submit(1, 1, &demo, write("press-1", "setpoint", Value::Float(5.0)));
    rig.submit(1, 2, &demo, write("press-1", "setpoint", Value::Float(6.0)));
    let first = rig.routed[0].id;
    rig.heard(1);
    rig.adopt(without(&rig, "press-1"));
    rig.adopt(with(&rig, device("press-9", &product(&rig), "rs485", "1")));
    rig.settle(first, Outcome::Offline);
    assert_eq!(rig.heard(1), ["press-1 offline: it is no longer configured", "outcome 1 offline"]);
    rig.pass(Duration::from_secs(11));
    assert_eq!(rig.heard(1), ["outcome 2 timed out"]);
    rig.submit(1, 3, &demo, write("press-1", "setpoint", Value::Float(5.0)));
    assert_eq!(rig.heard(1), ["outcome 3 rejected: device press-1 does not exist"]);
}

#[test]
fn a_device_whose_product_changes_keeps_what_is_known_of_the_properties_that_stay() {
    let mut rig = Rig::new();
    rig.watcher(1, &all_rights("demo"));
    let old = rig.device("press-1");
    rig.values("press-1", &[(TEMPERATURE, Value::Float(70.0)), (RUNNING, Value::Bool(false))]);
    rig.heard(1);
    let mut changed = (*product(&rig)).clone();
    // The door goes, the pressure takes its place, one limit goes and another moves below the value.
    changed.properties.remove(DOOR);
    changed.properties[RUNNING].alarms.clear();
    let limit = AlarmRule {
        condition: AlarmCondition::Above(60.0),
        ..(*changed.properties[TEMPERATURE].alarms[0]).clone()
    };
    changed.properties[TEMPERATURE].alarms[0] = Arc::new(limit);
    changed.events.clear();
    rig.adopt(with(&rig, device("press-1", &Arc::new(changed), "rs485", "1")));
    assert_eq!(
        rig.heard(1),
        [
            "press-1 alarm stopped cleared at false, active []",
            "press-1 alarm too-hot raised at 70, active [too-hot]"
        ]
    );
    // The driver does not know yet that positions have changed.
    let late = [(TEMPERATURE, 71.0), (PRESSURE, 3.0)].map(|(at, n)| (at, Sample::Value(Value::Float(n))));
    let mut values = late.to_vec();
    values.push((DOOR, Sample::Value(Value::Bool(true))));
    rig.observe(Observation::Values { device: old, at: rig.now.wall, values });
    assert_eq!(rig.heard(1), ["press-1 temperature=71 pressure=3"]);
    let Answer::Snapshot(snapshot) = snapshot(&mut rig) else { panic!("not a snapshot") };
    let press = snapshot.devices.iter().find(|each| &*each.device.id == "press-1").unwrap();
    assert!(press.online);
    assert_eq!(press.readings[RUNNING].as_ref().map(|reading| &reading.value), Some(&Value::Bool(false)));
    assert_eq!(press.readings.len(), 5);
}

fn snapshot(rig: &mut Rig) -> Answer {
    rig.state.ask(WITNESS, Token(0), all_rights("demo"), Question::Snapshot(Selector::All), rig.now);
    let mut answer = None;
    while let Some(effect) = rig.state.poll() {
        if let Effect::Reply { reply: SessionReply::Answer(_, given), .. } = effect {
            answer = Some(given);
        }
    }
    answer.expect("an answer")
}

#[test]
fn devices_of_a_link_that_begins_anew_or_that_move_to_another_are_offline_until_they_are_heard_of() {
    let mut rig = Rig::new();
    rig.watcher(1, &all_rights("demo"));
    for device in ["press-1", "lamp-1"] {
        rig.presence(device, true);
    }
    rig.heard(1);
    rig.adopt_anew(plant(&rig), &["rs485"]);
    assert_eq!(rig.heard(1), ["press-1 offline: its link begins anew"]);
    let demo = client("demo", Rights::ALL, &["*"]);
    rig.submit(1, 1, &demo, read("press-1", &[]));
    assert!(rig.routed.pop().is_some(), "it is worth a try, as after a start");
    rig.heard(1);
    rig.adopt(with(&rig, device("lamp-1", &product(&rig), "rs485", "1")));
    assert_eq!(rig.heard(1), ["lamp-1 offline: its link begins anew"]);
}

#[test]
fn a_group_has_the_devices_that_come_and_forgets_those_that_go() {
    let mut rig = Rig::new();
    let demo = client("demo", Rights::ALL, &["press-*"]);
    rig.attach(SessionKey(1));
    rig.group(1, &demo, GroupAsk::Join { group: "system".into(), limit: 3, retain: Duration::ZERO });
    let interest = Interest { selector: Selector::TypeIdPrefix("1".into()), kinds: Kinds::ALL };
    let relations = vec![Relation { label: "all".into(), interest }];
    rig.group(1, &demo, GroupAsk::Hold { relations, earliest: false });
    rig.heard(1);
    rig.adopt(with(&rig, device("press-3", &product(&rig), "rs485", "1")));
    rig.adopt(with(&rig, device("hidden", &product(&rig), "rs485", "1")));
    for device in ["press-3", "hidden"] {
        rig.values(device, &[(DOOR, Value::Bool(true))]);
    }
    assert_eq!(rig.heard(1), ["press-3 online", "press-3 door=true"]);
    rig.adopt(without(&rig, "press-3"));
    assert_eq!(rig.heard(1), ["press-3 offline: it is no longer configured"]);
}

#[test]
fn an_alarm_of_a_client_covers_what_comes_and_is_cleared_where_it_goes() {
    let mut rig = Rig::new();
    let demo = all_rights("demo");
    rig.watcher(1, &demo);
    let alarm = ClientAlarm {
        id: 0,
        name: "warm".into(),
        property: "temperature".into(),
        devices: Selector::Product("press".into()),
        link: None,
        kind: AlarmKind::Above,
        value: 30.0,
        hold: Duration::ZERO,
        level: Level::Info,
    };
    rig.ask(1, &demo, Question::Alarms(AlarmAsk::Put(Box::new(alarm))));
    rig.adopt(with(&rig, device("press-3", &product(&rig), "rs485", "1")));
    rig.heard(1);
    rig.values("press-3", &[(TEMPERATURE, Value::Float(40.0))]);
    assert_eq!(rig.heard(1).last().unwrap(), "press-3 alarm client-1 raised at 40, active [client-1]");
    rig.adopt(plant(&rig));
    assert_eq!(rig.heard(1), [""; 0], "nothing has changed");
    rig.adopt(without(&rig, "press-3"));
    assert_eq!(
        rig.heard(1),
        ["press-3 alarm client-1 cleared at 40, active []", "press-3 offline: it is no longer configured"]
    );
}

fn warm(rig: &mut Rig, kind: AlarmKind, hold: Duration) {
    let alarm = ClientAlarm {
        id: 0,
        name: "warm".into(),
        property: "temperature".into(),
        devices: Selector::All,
        link: Some("rs485".into()),
        kind,
        value: 30.0,
        hold,
        level: Level::Info,
    };
    rig.ask(1, &all_rights("demo"), Question::Alarms(AlarmAsk::Put(Box::new(alarm))));
    rig.heard(1);
}

/// The product with a property before all others.
fn shifted(rig: &Rig) -> Arc<Product> {
    let mut changed = (*product(rig)).clone();
    changed.properties.insert(0, Property::new("before", ValueType::Bool));
    for property in &mut changed.properties {
        property.alarms.clear();
    }
    changed.events.clear();
    Arc::new(changed)
}

#[test]
fn an_alarm_of_a_client_waits_on_while_its_device_changes_around_it() {
    let mut rig = Rig::new();
    rig.watcher(1, &all_rights("demo"));
    warm(&mut rig, AlarmKind::Above, Duration::from_secs(60));
    rig.values("press-1", &[(TEMPERATURE, Value::Float(40.0))]);
    rig.pass(Duration::from_secs(30));
    rig.adopt(with(&rig, device("press-1", &shifted(&rig), "rs485", "1")));
    rig.heard(1);
    rig.pass(Duration::from_secs(29));
    assert_eq!(rig.heard(1), [""; 0]);
    rig.pass(Duration::from_secs(1));
    assert_eq!(rig.heard(1), ["press-1 alarm client-1 raised at 40, active [client-1]"]);
    rig.adopt(with(&rig, device("press-1", &product(&rig), "rs485", "1")));
    assert_eq!(rig.heard(1), [""; 0], "it stays raised");
    rig.values("press-1", &[(TEMPERATURE, Value::Float(20.0))]);
    assert_eq!(rig.heard(1).last().unwrap(), "press-1 alarm client-1 cleared at 20, active []");
}

#[test]
fn an_alarm_of_a_client_is_cleared_where_a_change_takes_its_property_its_kind_or_its_link() {
    let mut without_it = (*shifted(&Rig::new())).clone();
    without_it.properties.retain(|property| &*property.id != "temperature");
    let mut otherwise = (*shifted(&Rig::new())).clone();
    otherwise.properties[TEMPERATURE + 1].kind = ValueType::Text;
    let same = product(&Rig::new());
    for (next, link) in [(Arc::new(without_it), "rs485"), (Arc::new(otherwise), "rs485"), (same, "local")] {
        let mut rig = Rig::new();
        rig.watcher(1, &all_rights("demo"));
        warm(&mut rig, AlarmKind::Above, Duration::ZERO);
        rig.values("press-1", &[(TEMPERATURE, Value::Float(40.0))]);
        rig.heard(1);
        rig.adopt(with(&rig, device("press-1", &next, link, "1")));
        assert_eq!(rig.heard(1)[0], "press-1 alarm client-1 cleared at 40, active []", "{link}");
        rig.adopt(with(&rig, device("press-1", &product(&rig), "rs485", "1")));
        rig.heard(1);
        rig.values("press-1", &[(TEMPERATURE, Value::Float(41.0))]);
        assert_eq!(rig.heard(1).last().unwrap(), "press-1 alarm client-1 raised at 41, active [client-1]");
    }
}

#[test]
fn a_wait_that_has_begun_ends_where_a_change_takes_the_property() {
    let mut rig = Rig::new();
    rig.watcher(1, &all_rights("demo"));
    warm(&mut rig, AlarmKind::Above, Duration::from_secs(60));
    rig.values("press-1", &[(TEMPERATURE, Value::Float(40.0))]);
    let mut without_it = (*shifted(&rig)).clone();
    without_it.properties.retain(|property| &*property.id != "temperature");
    rig.adopt(with(&rig, device("press-1", &Arc::new(without_it), "rs485", "1")));
    rig.adopt(with(&rig, device("press-1", &shifted(&rig), "rs485", "1")));
    rig.heard(1);
    rig.pass(Duration::from_secs(120));
    assert!(!rig.heard(1).iter().any(|line| line.contains("client-1")));
}

/// One thing that happens to the hub.
#[derive(Clone, Debug)]
enum Step {
    /// Another set of devices, each in one of its forms.
    Adopt(Vec<(usize, usize)>),
    Values(usize, usize),
    Presence(usize, usize, bool),
    Watch(u64, usize, usize),
    Detach(u64),
    Submit(u64, usize),
    Settle(usize),
    Pass(u64),
}

const NAMES: [&str; 5] = ["press-1", "press-2", "lamp-1", "meter-1", "press-3"];

/// The forms that a device of this name can have: of another product, on another link, in another area.
fn forms(products: &[Arc<Product>; 2]) -> BTreeMap<(usize, usize), Arc<Device>> {
    let mut forms = BTreeMap::new();
    for (at, name) in NAMES.iter().enumerate() {
        let [press, meter] = products;
        forms.insert((at, 0), device(name, press, "rs485", "1"));
        forms.insert((at, 1), device(name, meter, "rs485", "2"));
        forms.insert((at, 2), device(name, press, "local", "2"));
    }
    forms
}

fn selector(at: usize) -> Selector {
    match at {
        0 => Selector::All,
        1 => Selector::Product("press".into()),
        2 => Selector::Area { project: "1".into(), area: "2".into() },
        3 => Selector::TypeIdPrefix("2".into()),
        at => Selector::Device(NAMES[at % NAMES.len()].into()),
    }
}

fn any_step() -> impl Strategy<Value = Step> {
    let name = 0..NAMES.len();
    let form = 0..3_usize;
    prop_oneof![
        3 => prop::collection::btree_map(name.clone(), form.clone(), 0..NAMES.len())
            .prop_map(|devices| Step::Adopt(devices.into_iter().collect())),
        3 => (name.clone(), form.clone()).prop_map(|(at, form)| Step::Values(at, form)),
        1 => (name.clone(), form, any::<bool>()).prop_map(|(at, form, online)| Step::Presence(at, form, online)),
        2 => (1..4_u64, 0..9_usize, 0..3_usize).prop_map(|(key, what, who)| Step::Watch(key, what, who)),
        1 => (1..4_u64).prop_map(Step::Detach),
        3 => (1..4_u64, name).prop_map(|(key, at)| Step::Submit(key, at)),
        2 => any::<usize>().prop_map(Step::Settle),
        1 => (1..20_u64).prop_map(Step::Pass),
    ]
}

proptest! {
    #[test]
    fn whatever_changes_commands_have_one_outcome_and_messages_reach_whom_a_filter_would_say(
        steps in prop::collection::vec(any_step(), 0..40),
    ) {
        let mut rig = Rig::new();
        let products = [
            Arc::new(press()),
            Arc::new(Product { id: "meter".into(), type_id: "2meter".into(), ..press() }),
        ];
        let forms = forms(&products);
        let clients = [all_rights("a"), client("b", Rights::ALL, &["press-*"]), client("c", Rights::ALL, &["lamp-1"])];
        let mut watching: BTreeMap<u64, (Arc<Client>, Interest)> = BTreeMap::new();
        let mut owed: BTreeMap<(u64, u64), u32> = BTreeMap::new();
        let mut tokens = 0;
        for step in steps {
            match step {
                Step::Adopt(devices) => {
                    rig.adopt(devices.iter().map(|form| Arc::clone(&forms[form])).collect());
                    let Answer::Snapshot(snapshot) = snapshot(&mut rig) else { panic!("not a snapshot") };
                    let shown: Vec<_> = snapshot.devices.iter().map(|each| Arc::clone(&each.device)).collect();
                    prop_assert_eq!(&shown[..], rig.directory.devices());
                    for each in &snapshot.devices {
                        prop_assert_eq!(each.readings.len(), each.device.product.properties.len());
                    }
                }
                Step::Values(at, form) => {
                    let device = Arc::clone(&forms[&(at, form)]);
                    let values = vec![(TEMPERATURE, Sample::Value(Value::Float(20.0)))];
                    rig.observe(Observation::Values { device, at: rig.now.wall, values });
                }
                Step::Presence(at, form, online) => {
                    let device = Arc::clone(&forms[&(at, form)]);
                    rig.observe(Observation::Presence { device, at: rig.now.wall, online, reason: None });
                }
                Step::Watch(key, what, who) => {
                    let interest = Interest { selector: selector(what), kinds: Kinds::ALL };
                    rig.attach(SessionKey(key));
                    rig.watch(SessionKey(key), &clients[who], vec![interest.clone()]);
                    watching.insert(key, (Arc::clone(&clients[who]), interest));
                }
                Step::Detach(key) => {
                    rig.state.detach(SessionKey(key), &[], rig.now);
                    rig.drain();
                    watching.remove(&key);
                    owed.retain(|(owner, _), _| *owner != key);
                }
                Step::Submit(key, at) => {
                    if let Some((client, _)) = watching.get(&key) {
                        tokens += 1;
                        owed.insert((key, tokens), 0);
                        let client = Arc::clone(client);
                        rig.submit(key, tokens, &client, write(NAMES[at], "setpoint", Value::Float(1.0)));
                    }
                }
                Step::Settle(at) => {
                    if !rig.routed.is_empty() {
                        let id = rig.routed[at % rig.routed.len()].id;
                        rig.settle(id, confirmed());
                    }
                }
                Step::Pass(seconds) => rig.pass(Duration::from_secs(seconds)),
            }
            collect(&mut rig, &mut owed);
            // One message of each device shows who takes what.
            for device in rig.directory.devices().to_vec() {
                let publish = Observation::Publish {
                    device: Arc::clone(&device),
                    at: rig.now.wall,
                    topic: "t".into(),
                    payload: "probe".into(),
                };
                rig.observe(publish);
                for key in 1..4 {
                    let expected = watching.get(&key).is_some_and(|(client, interest)| {
                        client.sees(&device) && interest.selector.admits(&device)
                    });
                    let got = rig.heard(key).iter().any(|line| line.ends_with("probe"));
                    prop_assert_eq!(got, expected, "{} to {}", device.id, key);
                }
            }
        }
        rig.pass(Duration::from_secs(60));
        collect(&mut rig, &mut owed);
        prop_assert!(owed.values().all(|outcomes| *outcomes == 1), "{:?}", owed);
    }
}

/// Counts the outcomes that sessions were given.
fn collect(rig: &mut Rig, owed: &mut BTreeMap<(u64, u64), u32>) {
    for key in 1..4 {
        for line in rig.heard(key) {
            let token = line.strip_prefix("outcome ").and_then(|rest| rest.split(' ').next()?.parse().ok());
            if let Some(count) = token.and_then(|token| owed.get_mut(&(key, token))) {
                *count += 1;
            }
        }
    }
}
