//! Tests of devices that appear by themselves.

use super::*;
use crate::drivers::announce::Unwelcome;
use crate::drivers::mqtt::body::When;
use crate::drivers::mqtt::discover::{Pattern, Rule};
use crate::drivers::mqtt::map::Condition;
use crate::drivers::mqtt::route::Names;

pub(super) fn rule(change: impl Fn(&mut Rule)) -> Arc<Rule> {
    let mut rule = Rule {
        pattern: Pattern::parse("{device}/state").unwrap(),
        qos: 1,
        retained: true,
        when: None,
        allow: Vec::new(),
        deny: Vec::new(),
        limit: 3,
        forget_after: None,
        id: "{device}".into(),
        name: "{device}".into(),
        topic: "{device}".into(),
        product: Arc::clone(&device().product),
        map: Arc::new(map()),
        link: "local".into(),
        gateway: "g".into(),
        project: "1".into(),
        area: "1".into(),
        tags: Vec::new(),
    };
    change(&mut rule);
    Arc::new(rule)
}

/// A connected bed with its device at topic `d`, and these rules.
fn bed(rules: Vec<Arc<Rule>>) -> Bed {
    let mut bed = Bed::connected(|_| ());
    let now = bed.now;
    assert_eq!(bed.state.handle_members(&members(&bed, rules), now), []);
    bed
}

fn members(bed: &Bed, rules: Vec<Arc<Rule>>) -> Members {
    let own = MqttDevice { device: Arc::clone(&bed.device), topic: "d".into(), map: Arc::new(map()) };
    Members { devices: vec![own], rules, scheme: None }
}

/// What is announced, all of it welcome: `+id` and `-id`.
pub(super) fn announced(bed: &mut Bed) -> Vec<String> {
    let Some(told) = bed.state.poll_announcement() else { return Vec::new() };
    bed.state.handle_announced(&told.come, &vec![Ok(()); told.come.len()], bed.now);
    let come = told.come.iter().map(|device| format!("+{}", device.id));
    come.chain(told.gone.iter().map(|id| format!("-{id}"))).collect()
}

fn is_of(seen: &Observation, id: &str) -> bool {
    seen_device(seen).is_some_and(|device| *device == *id)
}

/// Whose values or presence was seen.
pub(super) fn seen_device(seen: &Observation) -> Option<Arc<str>> {
    if let Observation::Values { device, .. } | Observation::Presence { device, .. } = seen {
        return Some(Arc::clone(&device.id));
    }
    None
}

#[test]
fn a_configured_device_that_may_appear_a_second_time_as_another_product_is_noticed() {
    let other = rule(|rule| {
        rule.product = Arc::new(Product { id: "other".into(), ..Product::clone(&rule.product) });
        rule.pattern = Pattern::parse("{device}/other").unwrap();
        rule.id = "found-{device}".into();
    });
    let mut bed = bed(vec![Arc::clone(&other)]);
    let twin = |bed: &Bed, topic: &str| {
        let member = MqttDevice { device: device(), topic: topic.into(), map: Arc::new(map()) };
        bed.state.twin(&member).map(|device| Arc::clone(&device.id))
    };
    assert_eq!(twin(&bed, "d"), Some(Arc::clone(&bed.device.id)), "it is configured at this topic");
    assert_eq!(twin(&bed, "e"), None);
    // It appears all the same: products of different makers may share a topic's name.
    bed.retained("d/other", "x");
    bed.retained("e/other", "x");
    assert_eq!(announced(&mut bed), ["+found-d", "+found-e"]);
    assert_eq!(twin(&bed, "e"), None, "one that was found is no reason to warn of");
}

#[test]
fn a_kept_message_makes_a_device_appear_with_what_it_says() {
    let mut bed = bed(vec![rule(|rule| rule.name = "Plug {device}".into())]);
    bed.retained("plug 7/state", r#"{"power":true}"#);
    let told = bed.state.poll_announcement().unwrap();
    let found = &told.come[0];
    assert_eq!(
        (&*found.id, &*found.name, &*found.link, told.gone.len()),
        ("plug_7", "Plug plug 7", "local", 0)
    );
    assert_eq!(found.uuid.len(), 19);
    bed.state.handle_announced(&told.come, &[Ok(())], bed.now);
    let seen = bed.seen();
    assert!(
        seen.iter().any(|seen| matches!(seen, Observation::Values { .. }) && is_of(seen, "plug_7")),
        "{seen:?}"
    );
    let asked = bed.state.poll_subscriptions().unwrap();
    assert!(asked.wanted.iter().any(|(filter, _)| &**filter == "+/state"), "{asked:?}");
    bed.message("plug 7/state", r#"{"power":false}"#);
    assert_eq!(announced(&mut bed), [""; 0], "it is known now");
    assert_eq!(bed.state.found(), 1);
}

#[test]
fn a_configured_device_is_never_doubled() {
    let mut bed = bed(vec![rule(|_| ())]);
    bed.message("d/state", r#"{"power":true}"#);
    assert_eq!(announced(&mut bed), [""; 0]);
    // One of another topic that would have its id is left out, and said to be so by the count.
    bed.message("d-1/state", r#"{"power":true}"#);
    bed.message("d-1/state", r#"{"power":true}"#);
    assert_eq!((announced(&mut bed).len(), bed.state.take_unwelcome()), (0, 2));
}

#[test]
fn messages_that_do_not_count_make_nobody_appear() {
    let condition = Condition { part: Part::Path("$.power".into()), equals: Vec::new() };
    let rules = vec![rule(|rule| {
        rule.when = Some(When::parse(&condition, &Names::default()).unwrap());
        rule.retained = false;
        rule.allow = vec![wildmatch::WildMatch::new("p*")];
        rule.deny = vec![wildmatch::WildMatch::new("*-x")];
    })];
    let mut bed = bed(rules);
    bed.retained("p1/state", r#"{"power":true}"#);
    bed.message("p2/state", r#"{"power":null}"#);
    bed.message("p3/state", r#"{"level":1}"#);
    bed.message("p4/state", "");
    bed.message("q5/state", r#"{"power":true}"#);
    bed.message("p6-x/state", r#"{"power":true}"#);
    bed.message("$SYS/state", r#"{"power":true}"#);
    bed.message("p7/state/more", r#"{"power":true}"#);
    assert_eq!((announced(&mut bed).len(), bed.state.take_unwelcome()), (0, 0));
    bed.message("p8/state", r#"{"power":{}}"#);
    assert_eq!(announced(&mut bed), ["+p8"]);
}

#[test]
fn names_that_are_made_up_leave_nothing_behind_but_a_count() {
    let mut bed = bed(vec![rule(|_| ())]);
    for number in 0..100_000 {
        bed.message(&format!("plug-{number}/state"), r#"{"power":true}"#);
    }
    assert_eq!(announced(&mut bed), ["+plug-0", "+plug-1", "+plug-2"]);
    assert_eq!((bed.state.found(), bed.state.take_unwelcome()), (3, 99_997));
    assert_eq!(bed.seen().len(), 6, "presence and values of each");
    // Ids that somebody has are remembered, and nothing else.
    for number in 0..100_000 {
        bed.message(&format!("plug-0{}/state", "!".repeat(number % 200)), r#"{"power":true}"#);
    }
    assert_eq!((announced(&mut bed).len(), bed.state.found()), (0, 3));
}

#[test]
fn of_a_device_that_is_not_taken_in_nothing_is_said_and_it_is_not_announced_again_at_once() {
    let mut bed = bed(vec![rule(|_| ())]);
    bed.message("x/state", r#"{"power":true}"#);
    let told = bed.state.poll_announcement().unwrap();
    let taken = Unwelcome::Taken { what: "id", of: "x".into() };
    bed.state.handle_announced(&told.come, &[Err(taken)], bed.now);
    assert!(bed.seen().is_empty() && bed.state.found() == 0);
    bed.message("x/state", r#"{"power":true}"#);
    assert_eq!(announced(&mut bed), [""; 0]);
    bed.wait(Duration::from_secs(601));
    bed.message("x/state", r#"{"power":true}"#);
    assert_eq!(announced(&mut bed), ["+x"], "the other one may be gone by then");
}

#[test]
fn a_device_is_forgotten_after_silence_but_not_while_it_says_that_it_is_there() {
    let forget = |rule: &mut Rule| rule.forget_after = Some(Duration::from_secs(60));
    let mut bed = bed(vec![
        rule(|rule| {
            forget(rule);
            rule.pattern = Pattern::parse("a/{device}/state").unwrap();
            rule.topic = "a/{device}".into();
            let mut map = map();
            with_availability(&mut map);
            rule.map = Arc::new(map);
        }),
        rule(forget),
    ]);
    bed.message("quiet/state", r#"{"power":true}"#);
    bed.message("a/there/state", r#"{"power":true}"#);
    bed.message("a/there/lwt", r#"{"state":"online"}"#);
    assert_eq!(announced(&mut bed), ["+quiet", "+there"]);
    bed.wait(Duration::from_secs(59));
    assert_eq!(announced(&mut bed), [""; 0]);
    bed.wait(Duration::from_secs(1));
    assert_eq!((announced(&mut bed), bed.state.found()), (vec!["-quiet".to_owned()], 1));
    bed.wait(Duration::from_secs(86_400));
    bed.message("a/there/lwt", r#"{"state":"offline"}"#);
    bed.wait(Duration::from_secs(59));
    assert_eq!(announced(&mut bed), [""; 0], "its silence begins with its word that it goes");
    // Nothing can be heard while the broker is away.
    bed.lose();
    bed.wait(Duration::from_secs(600));
    bed.state.handle_connected(bed.now);
    assert_eq!(announced(&mut bed), [""; 0]);
    bed.wait(Duration::from_secs(60));
    assert_eq!(announced(&mut bed), ["-there"]);
    bed.message("quiet/state", r#"{"power":true}"#);
    assert_eq!(announced(&mut bed), ["+quiet"], "whoever speaks again is there again");
}

#[test]
fn a_reload_keeps_the_devices_of_a_rule_that_still_holds() {
    let other = || rule(|rule| rule.pattern = Pattern::parse("{device}/other").unwrap());
    let mut bed = bed(vec![rule(|_| ()), other()]);
    bed.message("x/state", r#"{"power":true}"#);
    bed.message("y/other", r#"{"power":true}"#);
    assert_eq!(announced(&mut bed), ["+x", "+y"]);
    bed.seen();
    let now = bed.now;
    let kept = members(&bed, vec![rule(|rule| rule.limit = 1), other()]);
    bed.state.handle_members(&kept, now);
    assert_eq!(announced(&mut bed), ["+y", "-x"], "the rule of x is another one now");
    // A device of the configuration takes its place.
    let mut configured = members(&bed, vec![other()]);
    let own = Device { id: "own".into(), ..Device::clone(&bed.device) };
    configured.devices.push(MqttDevice { device: Arc::new(own), topic: "y".into(), map: Arc::new(map()) });
    bed.state.handle_members(&configured, now);
    assert_eq!(announced(&mut bed), ["-y"]);
    bed.message("y/other", r#"{"power":true}"#);
    assert_eq!((announced(&mut bed).len(), bed.state.found()), (0, 0));
}

proptest! {
    #[test]
    fn whatever_arrives_there_are_never_more_devices_than_may_be(
        messages in proptest::collection::vec(("[ab]{0,2}/(state|lwt)", "(\\{\"power\":true\\}|x|)", any::<bool>(), any::<bool>()), 0..60),
    ) {
        let mut bed = bed(vec![rule(|rule| rule.limit = 2)]);
        let mut known = BTreeSet::new();
        for (topic, payload, retained, welcome) in messages {
            bed.receive(&topic, payload.as_bytes(), retained);
            if let Some(told) = bed.state.poll_announcement() {
                let answer = if welcome { Ok(()) } else { Err(Unwelcome::NotNow) };
                bed.state.handle_announced(&told.come, &vec![answer; told.come.len()], bed.now);
                known.extend(told.come.iter().filter(|_| welcome).map(|device| Arc::clone(&device.id)));
            }
            prop_assert!(bed.state.found() <= 2 && bed.state.found() == known.len());
            for seen in bed.seen() {
                let named = seen_device(&seen).is_none_or(|id| known.contains(&id) || id == bed.device.id);
                prop_assert!(named, "{seen:?}");
            }
        }
    }
}
