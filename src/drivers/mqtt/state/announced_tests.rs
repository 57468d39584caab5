//! Tests of devices that announce themselves.

use super::found::{announced, rule, seen_device};
use super::*;
use crate::drivers::announce::Unwelcome;
use crate::drivers::mqtt::homeassistant::{self, Scheme, TOPICS};

const PLUG: &str =
    r#"{"stat_t":"plug/state","cmd_t":"plug/set","avty_t":"plug/status","dev":{"ids":"plug","name":"Plug"}}"#;

fn scheme(change: impl Fn(&mut Scheme)) -> Scheme {
    let mut scheme = Scheme { limit: 3, ..homeassistant::tests::scheme() };
    change(&mut scheme);
    scheme
}

/// A connected bed with its device at topic `d`, these rules, and a scheme.
fn bed(rules: Vec<Arc<crate::drivers::mqtt::discover::Rule>>, change: impl Fn(&mut Scheme)) -> Bed {
    let mut bed = Bed::connected(|_| ());
    reload(&mut bed, rules, Some(scheme(change)), &[]);
    bed.state.poll_subscriptions();
    bed
}

/// Another configuration, with devices of the bed's product at these topics beside the bed's own.
fn reload(
    bed: &mut Bed,
    rules: Vec<Arc<crate::drivers::mqtt::discover::Rule>>,
    scheme: Option<Scheme>,
    topics: &[&str],
) {
    let own = MqttDevice { device: Arc::clone(&bed.device), topic: "d".into(), map: Arc::new(map()) };
    let more = topics.iter().map(|topic| MqttDevice {
        device: Arc::new(Device { id: (*topic).into(), ..(*bed.device).clone() }),
        topic: (*topic).into(),
        map: Arc::new(map()),
    });
    let devices = std::iter::once(own).chain(more).collect();
    let now = bed.now;
    assert_eq!(bed.state.handle_members(&Members { devices, rules, scheme: scheme.map(Arc::new) }, now), []);
}

/// Time passes until announcements are quiet, and what is announced then.
fn quiet(bed: &mut Bed) -> Vec<String> {
    bed.wait(Duration::from_secs(1));
    announced(bed)
}

fn presences(bed: &mut Bed, id: &str) -> Vec<bool> {
    let of = |seen: Observation| {
        let Observation::Presence { online, .. } = &seen else { return None };
        (seen_device(&seen).as_deref() == Some(id)).then_some(*online)
    };
    bed.seen().into_iter().filter_map(of).collect()
}

#[test]
fn a_device_is_put_together_once_its_announcements_are_quiet() {
    let mut bed = bed(Vec::new(), |_| ());
    bed.retained("homeassistant/switch/plug/config", PLUG);
    assert_eq!(announced(&mut bed), [""; 0]);
    for at in 0..20 {
        bed.wait(Duration::from_millis(300));
        let entity = format!(r#"{{"stat_t":"plug/{at}","dev":{{"ids":["plug"]}}}}"#);
        bed.retained(&format!("homeassistant/sensor/plug/v{at}/config"), &entity);
    }
    // It does not wait for ever.
    assert_eq!(announced(&mut bed), ["+plug"]);
    assert_eq!(quiet(&mut bed), ["+plug"], "what came later");
    assert_eq!(quiet(&mut bed), [""; 0]);
    assert_eq!((bed.state.found(), bed.state.take_unwelcome()), (1, 0));
    let asked = bed.state.poll_subscriptions().unwrap();
    let wants = |filter: &str| asked.wanted.iter().any(|(wanted, _)| **wanted == *filter);
    assert!(wants("plug/state") && wants("plug/status") && !wants("plug/set"), "{asked:?}");
    assert!(bed.state.take_dropped().iter().all(|count| *count == 0));
}

#[test]
fn only_its_availability_tells_that_it_is_there_and_a_change_of_its_entities_takes_nothing_of_that() {
    let mut bed = bed(Vec::new(), |_| ());
    bed.retained("homeassistant/switch/plug/config", PLUG);
    quiet(&mut bed);
    bed.retained("plug/state", "ON");
    assert_eq!(presences(&mut bed, "plug"), [false; 0], "a kept value may outlive its device");
    bed.retained("plug/status", "online");
    assert_eq!(presences(&mut bed, "plug"), [true]);
    let more = r#"{"stat_t":"plug/watts","avty_t":"plug/status","dev":{"ids":"plug"}}"#;
    bed.message("homeassistant/sensor/plug/config", more);
    assert_eq!(quiet(&mut bed), ["+plug"]);
    assert_eq!(presences(&mut bed, "plug"), [false; 0]);
    bed.message("plug/watts", "5");
    assert!(bed.seen().iter().any(|seen| matches!(seen, Observation::Values { .. })));
    // The broker is lost: nothing is known of it until it is said again. What it is stays.
    bed.lose();
    assert_eq!(presences(&mut bed, "plug"), [false]);
    bed.state.handle_connected(bed.now);
    bed.retained("homeassistant/switch/plug/config", PLUG);
    bed.retained("homeassistant/sensor/plug/config", more);
    assert_eq!(quiet(&mut bed), [""; 0], "it is as it was");
    bed.retained("plug/status", "online");
    assert_eq!(presences(&mut bed, "plug"), [true]);
    // It is announced no more.
    bed.message("homeassistant/switch/plug/config", "");
    bed.message("homeassistant/sensor/plug/config", "");
    assert_eq!(quiet(&mut bed), ["-plug"]);
    assert_eq!((presences(&mut bed, "plug"), bed.state.found()), (vec![false], 0));
}

#[test]
fn a_topic_that_somebody_has_by_name_belongs_to_them() {
    let mut bed = bed(Vec::new(), |_| ());
    let doubled = r#"{"stat_t":"d/state","dev":{"ids":"double"}}"#;
    bed.retained("homeassistant/sensor/double/config", doubled);
    bed.retained("homeassistant/switch/plug/config", PLUG);
    assert_eq!(quiet(&mut bed), ["+plug"]);
    // A reload configures the other one as well; when that is taken back it appears again.
    reload(&mut bed, Vec::new(), Some(scheme(|_| ())), &["plug"]);
    assert_eq!(quiet(&mut bed), ["-plug"]);
    reload(&mut bed, Vec::new(), Some(scheme(|_| ())), &[]);
    assert_eq!(quiet(&mut bed), ["+plug"]);
}

#[test]
fn a_rule_goes_before_an_announcement_of_the_same_topics() {
    let when =
        crate::drivers::mqtt::map::Condition { part: Part::Path("$.power".into()), equals: Vec::new() };
    let when = crate::drivers::mqtt::body::When::parse(&when, &crate::drivers::mqtt::route::Names::default());
    let conditional = rule(|rule| rule.when = Some(when.clone().unwrap()));
    let lamp = r#"{"stat_t":"lamp/state","val_tpl":"{{ value_json.power }}","dev":{"ids":"announced"}}"#;
    // One that wants to see a message first: the device is announced until there is one.
    let mut bed = bed(vec![conditional], |_| ());
    bed.retained("homeassistant/switch/lamp/config", lamp);
    assert_eq!(quiet(&mut bed), ["+announced"]);
    bed.message("lamp/state", r#"{"level":1}"#);
    assert_eq!(announced(&mut bed), [""; 0]);
    bed.message("lamp/state", r#"{"power":true}"#);
    assert_eq!(announced(&mut bed), ["+lamp", "-announced"]);
    assert_eq!(quiet(&mut bed), [""; 0]);
    // One that takes whatever comes there.
    reload(&mut bed, vec![rule(|_| ())], Some(scheme(|_| ())), &[]);
    bed.retained(
        "homeassistant/switch/other/config",
        &lamp.replace("lamp", "other").replace("announced", "two"),
    );
    assert_eq!(quiet(&mut bed), ["-lamp"]);
    // Without rules both are what they announce.
    reload(&mut bed, Vec::new(), Some(scheme(|_| ())), &[]);
    assert_eq!(quiet(&mut bed), ["+announced", "+two"]);
}

#[test]
fn there_are_never_more_than_may_be_and_a_place_that_is_free_is_taken() {
    let mut bed = bed(Vec::new(), |scheme| scheme.deny = vec![wildmatch::WildMatch::new("*bridge")]);
    bed.retained("homeassistant/sensor/0/config", r#"{"stat_t":"s","dev":{"ids":"0","name":"the bridge"}}"#);
    for id in 1..=4 {
        let payload = format!(r#"{{"stat_t":"s","dev":{{"ids":"{id}"}}}}"#);
        bed.retained(&format!("homeassistant/sensor/{id}/config"), &payload);
    }
    assert_eq!(quiet(&mut bed), ["+1", "+2", "+3"]);
    assert_eq!((bed.state.found(), bed.state.take_unwelcome()), (3, 1));
    bed.message("homeassistant/sensor/2/config", "");
    assert_eq!(quiet(&mut bed), ["-2"]);
    assert_eq!(quiet(&mut bed), ["+4"]);
}

#[test]
fn whom_the_gateway_does_not_take_in_is_asked_for_again_later() {
    let mut bed = bed(Vec::new(), |_| ());
    bed.retained("homeassistant/switch/plug/config", PLUG);
    bed.wait(Duration::from_secs(1));
    let told = bed.state.poll_announcement().unwrap();
    let taken = Unwelcome::Taken { what: "id", of: "other".into() };
    bed.state.handle_announced(&told.come, &[Err(taken)], bed.now);
    assert_eq!((announced(&mut bed), bed.state.found()), (vec![], 0));
    assert_eq!(quiet(&mut bed), [""; 0]);
    bed.wait(Duration::from_secs(700));
    assert_eq!(announced(&mut bed), ["+plug"]);
}

#[test]
fn topics_are_known_only_up_to_their_number() {
    let mut bed = bed(Vec::new(), |_| ());
    for at in 0..TOPICS + 5 {
        bed.retained(&format!("homeassistant/camera/{at}/config"), r#"{"topic":"x"}"#);
    }
    assert_eq!(bed.state.take_unwelcome(), 5);
    assert_eq!(quiet(&mut bed), [""; 0]);
    bed.retained("homeassistant/camera/1/config", "");
    bed.retained("homeassistant/switch/plug/config", PLUG);
    assert_eq!((quiet(&mut bed), bed.state.take_unwelcome()), (vec!["+plug".to_owned()], 0));
}

#[test]
fn another_scheme_begins_anew_and_none_lets_all_go() {
    let mut bed = bed(Vec::new(), |_| ());
    bed.retained("homeassistant/switch/plug/config", PLUG);
    assert_eq!(quiet(&mut bed), ["+plug"]);
    bed.state.poll_subscriptions();
    reload(&mut bed, Vec::new(), Some(scheme(|_| ())), &[]);
    assert_eq!(announced(&mut bed), ["+plug"], "it stays, and its place with the others is looked at again");
    reload(&mut bed, Vec::new(), Some(scheme(|scheme| scheme.area = "7".into())), &[]);
    assert_eq!(announced(&mut bed), ["-plug"]);
    let asked = bed.state.poll_subscriptions().unwrap();
    assert!(asked.wanted.iter().any(|(filter, _)| &**filter == "homeassistant/+/+/config"), "{asked:?}");
    bed.retained("homeassistant/switch/plug/config", PLUG);
    assert_eq!(quiet(&mut bed), ["+plug"]);
    reload(&mut bed, Vec::new(), None, &[]);
    assert_eq!(announced(&mut bed), ["-plug"]);
    bed.retained("homeassistant/switch/plug/config", PLUG);
    assert_eq!(quiet(&mut bed), [""; 0]);
}
