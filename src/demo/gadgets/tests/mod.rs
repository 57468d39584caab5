//! The devices alone in simulated time, and with broker and driver in real time.

#[cfg(feature = "broker")]
mod together;

use serde_json::Value as Json;

use super::*;
use crate::drivers::mqtt::route::matches;

fn later(now: Now, seconds: u64) -> Now {
    Now { instant: now.instant + Duration::from_secs(seconds), ..now }
}

/// The payload of the last message on this topic, as JSON.
fn last(letters: &[Letter], topic: &str) -> Json {
    let letter = letters.iter().rev().find(|letter| letter.topic == topic);
    let letter = letter.unwrap_or_else(|| panic!("nothing on {topic} in {letters:?}"));
    serde_json::from_str(&letter.payload).unwrap()
}

#[test]
fn every_device_says_that_it_is_there_and_leaves_a_will_that_says_otherwise() {
    let now = clock::now();
    let gadgets: [Box<dyn Gadget>; 3] = [
        Box::new(plug::Plug::new(1, now)),
        Box::new(lamp::Lamp::new(1, now)),
        Box::new(shelly::Shelly::new(1, now)),
    ];
    for mut gadget in gadgets {
        let will = gadget.will();
        let birth = gadget.connected(now).into_iter().next().unwrap();
        assert!(will.retain && birth.retain, "{}", gadget.name());
        assert_eq!(will.topic, birth.topic);
        assert_ne!(will.payload, birth.payload);
        let filters = gadget.filters();
        assert!(!filters.iter().any(|filter| matches(filter, &will.topic)), "it does not hear itself");
    }
}

#[test]
fn the_plug_obeys_and_its_energy_only_grows() {
    let start = clock::now();
    let mut plug = plug::Plug::new(1, start);
    let mut energy = last(&plug.connected(start), "tele/plug-1/SENSOR")["ENERGY"]["Total"].as_f64().unwrap();
    for seconds in 1..600 {
        for letter in
            plug.tick(later(start, seconds)).iter().filter(|letter| letter.topic.ends_with("SENSOR"))
        {
            let json: Json = serde_json::from_str(&letter.payload).unwrap();
            let total = json["ENERGY"]["Total"].as_f64().unwrap();
            assert!(total >= energy);
            energy = total;
        }
    }
    assert!(energy > 31.402);
    let now = later(start, 600);
    let off = plug.receive("cmnd/plug-1/POWER", b"OFF", now);
    assert_eq!(last(&off, "stat/plug-1/RESULT")["POWER"], "OFF");
    assert_eq!(off[1], Letter::new("stat/plug-1/POWER", &"OFF"));
    let telemetry = plug.tick(later(start, 610));
    assert_eq!(last(&telemetry, "tele/plug-1/STATE")["POWER"], "OFF");
    assert_eq!(last(&telemetry, "tele/plug-1/SENSOR")["ENERGY"]["Power"], 0.0);
    let toggled = plug.receive("cmnd/plug-1/Power", b"toggle", now);
    assert_eq!(last(&toggled, "stat/plug-1/RESULT")["POWER"], "ON");
    let asked = plug.receive("cmnd/plug-1/STATUS", b"10", now);
    assert!(last(&asked, "stat/plug-1/STATUS10")["StatusSNS"]["ENERGY"]["Total"].as_f64().unwrap() > 31.0);
    let unknown = plug.receive("cmnd/plug-1/Nonsense", b"\xff", now);
    assert_eq!(last(&unknown, "stat/plug-1/RESULT")["Command"], "Unknown");
}

#[test]
fn the_lamp_obeys_and_ignores_what_it_cannot_read() {
    let now = clock::now();
    let mut lamp = lamp::Lamp::new(1, now);
    let set = "zigbee2mqtt/lamp-1/set";
    for (wish, state, brightness) in [
        (r#"{"state":"OFF"}"#, "OFF", 180),
        (r#"{"brightness":40}"#, "ON", 40),
        (r#"{"brightness":9999}"#, "ON", 254),
        (r#"{"state":"toggle"}"#, "OFF", 254),
        (r#"{"state":7,"brightness":"x"}"#, "OFF", 254),
    ] {
        let json = last(&lamp.receive(set, wish.as_bytes(), now), "zigbee2mqtt/lamp-1");
        assert_eq!(
            (json["state"].as_str(), json["brightness"].as_i64()),
            (Some(state), Some(brightness)),
            "{wish}"
        );
    }
    assert_eq!(lamp.receive(set, b"{", now), []);
}

#[test]
fn the_shelly_answers_calls_and_commands() {
    let start = clock::now();
    let mut shelly = shelly::Shelly::new(1, start);
    let call = br#"{"id":7,"src":"x","method":"Switch.Set","params":{"id":0,"on":true}}"#;
    let letters = shelly.receive("shelly-1/rpc", call, start);
    assert_eq!(last(&letters, "x/rpc")["result"]["was_on"], false);
    assert_eq!(last(&letters, "x/rpc")["id"], 7);
    assert_eq!(last(&letters, "shelly-1/status/switch:0")["output"], true);
    let warm = shelly.tick(later(start, 600));
    assert!(last(&warm, "shelly-1/status/switch:0")["temperature"]["tC"].as_f64().unwrap() > 57.0);
    let off = shelly.receive("shelly-1/command/switch:0", b"off", start);
    assert_eq!(last(&off, "shelly-1/status/switch:0")["output"], false);
    for (call, code) in [
        (r#"{"src":"x","method":"Switch.Set","params":{}}"#, -103),
        (r#"{"src":"x","method":"Cover.Open"}"#, 404),
    ] {
        let letters = shelly.receive("shelly-1/rpc", call.as_bytes(), start);
        assert_eq!(last(&letters, "x/rpc")["error"]["code"], code);
        assert_eq!(letters.len(), 1);
    }
    assert_eq!(shelly.receive("shelly-1/rpc", b"no json", start), []);
}
