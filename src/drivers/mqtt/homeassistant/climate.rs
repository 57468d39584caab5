//! Entities that keep a room or its air as somebody wants it.
//!
//! Pure.

use std::sync::Arc;

use super::entity::{Maker, Shape};
use super::keys::Keys;
use super::kinds::{COMMAND, NONE};

/// The keys of one part, by what they begin with. `value_template` is for what has none of its own.
fn part(maker: &mut Maker<'_>, id: &str, shape: Shape, key: &str) {
    let [told, sent] = ["state", "command"].map(|way| format!("{key}_{way}_topic"));
    let [of, own, by] = ["state", "value", "command"].map(|way| format!("{key}_{way}_template"));
    let has = |template: &String| maker.keys.get(template).is_some();
    let form = if has(&of) {
        &*of
    } else if has(&own) {
        &*own
    } else {
        "value_template"
    };
    maker.value(id, shape, (&told, form), (&sent, &by));
}

fn only_told(maker: &mut Maker<'_>, id: &str, shape: Shape, key: &str) {
    let [topic, own] = ["topic", "template"].map(|way| format!("{key}_{way}"));
    let form = if maker.keys.get(&own).is_some() { &*own } else { "value_template" };
    maker.value(id, shape, (&topic, form), NONE);
}

fn degrees(keys: &Keys) -> Option<Arc<str>> {
    let unit = keys.text("temperature_unit")?;
    Some(format!("°{unit}").into())
}

/// A number between two keys.
fn between(
    keys: &Keys,
    low: (&str, f64),
    high: (&str, f64),
    step: Option<f64>,
    unit: Option<Arc<str>>,
) -> Shape {
    let bound = |(key, usual)| keys.number(key).unwrap_or(usual);
    Shape::number(Some((bound(low), bound(high))), step, unit)
}

fn temperatures(maker: &mut Maker<'_>, low: f64, high: f64, parts: &[(&str, &str)]) {
    let keys = maker.keys;
    let step = keys.number("temp_step").or_else(|| keys.number("precision"));
    for (id, key) in parts {
        let shape = between(keys, ("min_temp", low), ("max_temp", high), step, degrees(keys));
        part(maker, id, shape, key);
    }
    only_told(maker, "current_temperature", Shape::number(None, None, degrees(keys)), "current_temperature");
}

fn humidity(maker: &mut Maker<'_>) {
    let keys = maker.keys;
    let shape = between(keys, ("min_humidity", 0.0), ("max_humidity", 100.0), None, Some("%".into()));
    part(maker, "target_humidity", shape, "target_humidity");
    only_told(maker, "current_humidity", Shape::number(None, None, Some("%".into())), "current_humidity");
}

/// `power` of climates and water heaters: they take on and off, and tell it by their mode.
fn power(maker: &mut Maker<'_>) {
    let shape = Shape::switch(maker.keys, ("payload_on", "ON"), ("payload_off", "OFF"));
    maker.value("power", shape, NONE, ("power_command_topic", "power_command_template"));
}

pub(super) fn climate(maker: &mut Maker<'_>) {
    let keys = maker.keys;
    let modes = ["auto", "off", "cool", "heat", "dry", "fan_only"];
    part(maker, "mode", Shape::choice(keys, "modes", &modes), "mode");
    let parts = [
        ("temperature", "temperature"),
        ("temperature_high", "temperature_high"),
        ("temperature_low", "temperature_low"),
    ];
    temperatures(maker, 7.0, 35.0, &parts);
    humidity(maker);
    only_told(maker, "action", Shape::Text, "action");
    part(maker, "fan_mode", Shape::choice(keys, "fan_modes", &["auto", "low", "medium", "high"]), "fan_mode");
    part(maker, "swing_mode", Shape::choice(keys, "swing_modes", &["on", "off"]), "swing_mode");
    part(maker, "preset", Shape::choice(keys, "preset_modes", &[]), "preset_mode");
    power(maker);
}

pub(super) fn water_heater(maker: &mut Maker<'_>) {
    let modes = ["off", "eco", "electric", "gas", "heat_pump", "high_demand", "performance"];
    let shape = Shape::choice(maker.keys, "modes", &modes);
    part(maker, "mode", shape, "mode");
    temperatures(maker, 43.3, 60.0, &[("temperature", "temperature")]);
    power(maker);
}

pub(super) fn humidifier(maker: &mut Maker<'_>) {
    let keys = maker.keys;
    let shape = Shape::switch(keys, ("payload_on", "ON"), ("payload_off", "OFF"));
    maker.value("", shape, ("state_topic", "state_value_template"), COMMAND);
    humidity(maker);
    part(maker, "mode", Shape::choice(keys, "modes", &[]), "mode");
    only_told(maker, "action", Shape::Text, "action");
}
