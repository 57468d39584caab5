//! Tests of announcements: how they are read, and what is left out of them with which words.

use proptest::prelude::*;
use serde_json::json;

use super::super::route::is_topic;
use super::*;
use crate::model::identity;

/// What an integrator has who only switches it on.
pub(in crate::drivers::mqtt) fn scheme() -> Scheme {
    Scheme {
        prefix: "homeassistant".into(),
        allow: Vec::new(),
        deny: Vec::new(),
        limit: 64,
        report: ReportRule::default(),
        stale_after: None,
        link: "local".into(),
        gateway: "g".into(),
        project: "1".into(),
        area: "1".into(),
        tags: Vec::new(),
    }
}

/// What is made of announcements, by topic without prefix and `config`.
fn read(topic: &str, payload: &str) -> Result<Option<Announced>, ParseError> {
    let scheme = scheme();
    let topic = format!("homeassistant/{topic}/config");
    parse(scheme.place(&topic).unwrap(), payload.as_bytes())
}

fn properties(all: &[(&str, &str)]) -> Vec<String> {
    let announced: Vec<Announced> =
        all.iter().map(|(topic, payload)| read(topic, payload).unwrap().unwrap()).collect();
    let (member, left_out) = scheme().device(&announced[0].device, &announced.iter().collect::<Vec<_>>());
    assert_eq!(left_out, [""; 0]);
    member.device.product.properties.iter().map(|property| property.id.to_string()).collect()
}

#[test]
fn only_topics_of_the_known_form_are_announcements() {
    let scheme = scheme();
    let place = |topic| scheme.place(topic).map(|place| (place.component, place.node, place.object));
    assert_eq!(place("homeassistant/sensor/a/config"), Some(("sensor", None, "a")));
    assert_eq!(place("homeassistant/sensor/n/a/config"), Some(("sensor", Some("n"), "a")));
    for other in [
        "homeassistant/sensor/config",
        "homeassistant/sensor/a/b/c/config",
        "homeassistant/sensor//config",
        "homeassistant/sensor/a/state",
        "homeassistantx/sensor/a/config",
        "other/sensor/a/config",
        "homeassistant/status",
    ] {
        assert_eq!(place(other), None, "{other}");
    }
}

#[test]
fn what_is_no_announcement_is_refused_with_its_reason() {
    assert_eq!(read("sensor/a", "no json"), Err(ParseError::NoObject));
    assert_eq!(read("sensor/a", "[]"), Err(ParseError::NoObject));
    assert_eq!(read("device/a", r#"{"components":{}}"#), Err(ParseError::Nobody));
    assert_eq!(read("sensor/a", &" ".repeat(LARGEST + 1)), Err(ParseError::Large));
    assert_eq!(read("sensor/a", r#"{"migrate_discovery":true}"#), Ok(None));
}

#[test]
fn what_is_left_out_is_named_with_its_reason() {
    for (topic, payload, expected) in [
        ("camera/a", json!({"topic": "x"}), "camera a (entities of this kind are not taken over)"),
        ("sensor/n/t", json!({"name": "x"}), "sensor t (it names no topic)"),
        ("sensor/n/t", json!({"state_topic": "a/#"}), "sensor t (state_topic is no plain topic)"),
        ("sensor/n/t", json!({"state_topic": "a/{topic}"}), "sensor t (state_topic is no plain topic)"),
        (
            "switch/n/t",
            json!({"state_topic": "a", "command_topic": 7}),
            "switch t (command_topic is no plain topic)",
        ),
        (
            "sensor/n/t",
            json!({"state_topic": "a", "value_template": "{{ states('x') }}"}),
            "sensor t (its value_template is not understood: it uses states, which is not known here)",
        ),
        (
            "number/n/t",
            json!({"state_topic": "a", "command_topic": "b", "command_template": "{{ value | ordinal }}"}),
            "number t (its command_template is not understood: it uses ordinal, which is not known here)",
        ),
        (
            "light/n/t",
            json!({"schema": "template", "command_topic": "a"}),
            "light t (lights of this schema are not taken over)",
        ),
        (
            "event/n/t",
            json!({"state_topic": "a", "value_template": "{{ value_json }}x"}),
            "event t (an event with a template is not taken over)",
        ),
    ] {
        let mut payload = payload;
        payload["dev"] = json!({"ids": "d"});
        let announced = read(topic, &payload.to_string()).unwrap().unwrap();
        assert_eq!(announced.left_out, [expected], "{topic} {payload}");
        assert!(announced.entities.is_empty());
    }
    // A part that is not understood takes nothing else with it.
    let climate = json!({"dev": {"ids": "d"}, "mode_state_topic": "a", "mode_command_topic": "b", "action_topic": "c", "action_template": "{{ x }}"});
    let announced = read("climate/n/t", &climate.to_string()).unwrap().unwrap();
    assert_eq!((announced.entities.len(), announced.entities[0].properties.len()), (1, 1));
    assert_eq!(
        announced.left_out,
        ["climate t (its action_template is not understood: it uses x, which is not known here)"]
    );
}

#[test]
fn ids_are_short_readable_and_never_twice() {
    let sensor = r#"{"stat_t":"s","dev":{"ids":["PLUG1"],"name":"Living Room"}}"#;
    let number = r#"{"cmd_t":"s/set","dev":{"ids":["PLUG1"]}}"#;
    let lock = r#"{"cmd_t":"s/lock","dev":{"ids":["PLUG1"]}}"#;
    let ids = properties(&[
        ("sensor/PLUG1_ENERGY_Power", sensor),
        ("sensor/plug1_living_room_level", sensor),
        ("sensor/plug/level", sensor),
        ("number/plug/level", number),
        ("lock/PLUG1", lock),
        ("lock/x/PLUG1", lock),
        ("lock/y/PLUG1", lock),
        ("sensor/plug/客厅", sensor),
    ]);
    assert_eq!(
        ids,
        [
            "ENERGY_Power",
            "level",
            "level_sensor",
            "level_number",
            "lock",
            "lock_lock",
            "lock_lock_2",
            "_-c151cdea"
        ]
    );
}

#[test]
fn the_device_is_the_same_whoever_says_it_first() {
    let one = r#"{"stat_t":"a","dev":{"ids":["x y"],"name":"N","mf":"M","mdl":"L"}}"#;
    let other = r#"{"stat_t":"b","dev":{"ids":"x y"}}"#;
    let announced = [read("sensor/a", one).unwrap().unwrap(), read("sensor/b", other).unwrap().unwrap()];
    assert_eq!((&*announced[0].device, &*announced[1].device), ("x_y", "x_y"));
    let (member, _) = scheme().device(&announced[0].device, &[&announced[0], &announced[1]]);
    let device = &member.device;
    assert_eq!((&*device.name, &*device.product.name, &*device.product.id), ("N", "M L", "ha-x_y"));
    assert_eq!(*device.uuid, *identity::uuid("g", "x_y"));
    // Without a device it is one by itself.
    assert_eq!(&*read("sensor/a", r#"{"stat_t":"a","uniq_id":"u1"}"#).unwrap().unwrap().device, "u1");
    assert_eq!(&*read("sensor/a", r#"{"stat_t":"a"}"#).unwrap().unwrap().device, "a");
}

#[test]
fn filters_look_at_ids_and_names() {
    let mut scheme = scheme();
    assert!(scheme.admits("a", "b"));
    scheme.allow = vec![WildMatch::new("plug *"), WildMatch::new("0x*")];
    scheme.deny = vec![WildMatch::new("*bridge*")];
    assert!(scheme.admits("0x1", "lamp") && scheme.admits("z", "plug 1"));
    assert!(!scheme.admits("z", "lamp") && !scheme.admits("0x1_bridge", "plug 1"));
}

#[test]
fn availability_is_what_all_entities_share() {
    let of = |topics: &[&str], mode: &str| {
        let topics: Vec<_> = topics.iter().map(|topic| json!({"topic": topic})).collect();
        json!({"stat_t": "s", "availability": topics, "availability_mode": mode, "dev": {"ids": "d"}})
            .to_string()
    };
    let device = |all: &[String]| {
        let all: Vec<_> = (0..)
            .zip(all)
            .map(|(at, payload)| read(&format!("sensor/{at}"), payload).unwrap().unwrap())
            .collect();
        let (member, _) = scheme().device(&"d".into(), &all.iter().collect::<Vec<_>>());
        let topics: Vec<String> =
            member.map.availability.iter().map(|each| each.place.topic.to_string()).collect();
        (topics.join(" "), member.map.availability_mode)
    };
    assert_eq!(device(&[of(&["a", "b"], "all"), of(&["b", "a"], "all")]), ("a b".to_owned(), Mode::All));
    assert_eq!(
        device(&[of(&["a", "b"], "all"), of(&["a"], "any"), of(&[], "")]),
        ("a".to_owned(), Mode::All)
    );
    assert_eq!(device(&[of(&["a"], "all"), of(&["b"], "all")]), ("a b".to_owned(), Mode::Any));
    assert_eq!(device(&[of(&["a"], "")]), ("a".to_owned(), Mode::Latest));
}

#[test]
fn a_device_has_no_more_entities_than_it_may() {
    let all: Vec<Announced> = (0..ENTITIES + 2)
        .map(|at| read(&format!("sensor/{at:03}"), r#"{"stat_t":"s","dev":{"ids":"d"}}"#).unwrap().unwrap())
        .collect();
    let (member, left_out) = scheme().device(&"d".into(), &all.iter().collect::<Vec<_>>());
    assert_eq!(member.device.product.properties.len(), ENTITIES);
    assert_eq!(left_out, ["2 entities beyond the first 128"]);
}

/// Texts that mean something more often than not.
const WORDS: &str = "a,~/b,c/~,+/x,ON,{{ value }},{{ value_json.a }},{{ value | float }},{{ nothing }},json,any,%,sensor,light,cover,\
                     climate,fan,device_automation,event,lock,";

/// Keys of the same kind.
const KEYS: &str = "~,dev,device,ids,identifiers,name,cmps,p,stat_t,state_topic,cmd_t,command_topic,val_tpl,cmd_tpl,avty,avty_t,t,topic,\
                    min,max,step,ops,options,schema,brightness,off_dly,pl_on,pos_t,pos_open,set_pos_t,temp_cmd_t,temp_stat_t,\
                    mode_cmd_t,modes,qos,unit_of_meas,exp_aft,type,pct_cmd_t,spd_rng_max,bri_cmd_t,bri_scl,uniq_id,a";

/// Any JSON, out of those.
fn announcements() -> impl Strategy<Value = serde_json::Value> {
    let one_of = |texts: &'static str| prop::sample::select(texts.split(',').collect::<Vec<_>>());
    let leaf = prop_oneof![
        one_of(WORDS).prop_map(serde_json::Value::from),
        any::<i32>().prop_map(serde_json::Value::from),
        any::<bool>().prop_map(serde_json::Value::from),
        Just(serde_json::Value::Null),
    ];
    let key = one_of(KEYS);
    leaf.prop_recursive(4, 64, 8, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(serde_json::Value::from),
            proptest::collection::vec((key.clone(), inner), 0..10).prop_map(|members| {
                let members = members.into_iter().map(|(key, value)| (key.to_owned(), value));
                serde_json::Value::Object(members.collect())
            }),
        ]
    })
}

proptest! {
    #[test]
    fn whatever_is_announced_becomes_a_product_that_holds_together(
        all in proptest::collection::vec((announcements(), prop::sample::select(vec!["sensor", "switch", "number", "light", "cover", "climate", "fan", "lock", "device", "event", "valve", "humidifier"])), 1..4),
    ) {
        let known: Vec<Announced> = all
            .iter()
            .filter_map(|(json, component)| read(&format!("{component}/n/o"), &json.to_string()).ok().flatten())
            .collect();
        let scheme = scheme();
        let (member, _) = scheme.device(&"d".into(), &known.iter().collect::<Vec<_>>());
        let (product, map) = (&member.device.product, &member.map);
        prop_assert_eq!(product.properties.len(), map.properties.len());
        prop_assert_eq!(product.functions.len(), map.functions.len());
        prop_assert_eq!(product.events.len(), map.events.len());
        let ids: Vec<&str> = product.properties.iter().map(|property| &*property.id).collect();
        let mut once = ids.clone();
        once.sort_unstable();
        once.dedup();
        prop_assert_eq!(once.len(), ids.len());
        prop_assert!(ids.iter().all(|id| identity::is_id(id)));
        for (property, point) in product.properties.iter().zip(map.properties.iter().flatten()) {
            prop_assert_eq!(property.access.readable(), !point.sources.is_empty());
            prop_assert_eq!(property.access.writable(), point.write.is_some());
            prop_assert!(point.sources.iter().all(|source| is_topic(&source.place.topic)));
            prop_assert!(point.scale.is_finite() && point.scale != 0.0 && point.offset.is_finite());
            prop_assert!(property.range.is_none_or(|(low, high)| low < high));
        }
    }
}
