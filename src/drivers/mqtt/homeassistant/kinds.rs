//! What becomes of each kind of entity.
//!
//! Pure. Defaults are those of Home Assistant's page on each kind.

use super::super::map::{Condition, Part};
use super::climate;
use super::entity::{Entity, Fault, Maker, Shape};
use super::keys::Keys;
use super::light;

/// Where most kinds have their state.
pub(super) const STATE: (&str, &str) = ("state_topic", "value_template");

/// Where most kinds take commands.
pub(super) const COMMAND: (&str, &str) = ("command_topic", "command_template");

/// No way.
pub(super) const NONE: (&str, &str) = ("", "");

/// Classes of sensors whose state is no number.
const WORDS: [&str; 4] = ["date", "enum", "timestamp", "uptime"];

/// The entity of that kind, with what had to be left out.
pub(super) fn make(component: &str, id: String, keys: &Keys) -> (Option<Entity>, Vec<Fault>) {
    let mut maker = Maker::new(id, component, keys);
    match component {
        "sensor" => sensor(&mut maker),
        "binary_sensor" => binary_sensor(&mut maker),
        "switch" => switch(&mut maker),
        "number" => {
            let bound = |key, usual| keys.number(key).unwrap_or(usual);
            let range = Some((bound("min", 1.0), bound("max", 100.0)));
            let shape = Shape::number(range, Some(bound("step", 1.0)), keys.name("unit_of_measurement"));
            maker.value("", shape, STATE, COMMAND);
        }
        "select" => maker.value("", Shape::choice(keys, "options", &[]), STATE, COMMAND),
        "text" => maker.value("", Shape::Text, STATE, COMMAND),
        "button" => press(&mut maker, "payload_press", "PRESS"),
        "scene" => press(&mut maker, "payload_on", "ON"),
        "light" => light::light(&mut maker),
        "lock" => lock(&mut maker),
        "cover" => cover(&mut maker),
        "valve" => valve(&mut maker),
        "fan" => fan(&mut maker),
        "climate" => climate::climate(&mut maker),
        "water_heater" => climate::water_heater(&mut maker),
        "humidifier" => climate::humidifier(&mut maker),
        "event" => event(&mut maker),
        "device_automation" => automation(&mut maker),
        _ => maker.faults.push(Fault::Component),
    }
    maker.done()
}

fn sensor(maker: &mut Maker<'_>) {
    let keys = maker.keys;
    let (class, unit) = (keys.text("device_class"), keys.name("unit_of_measurement"));
    let is_word = class.as_deref().is_some_and(|class| WORDS.contains(&class));
    let measures = ["state_class", "suggested_display_precision", "device_class"];
    let shape = if class.as_deref() == Some("enum") && keys.get("options").is_some() {
        Shape::choice(keys, "options", &[])
    } else if !is_word && (unit.is_some() || measures.iter().any(|key| keys.get(key).is_some())) {
        Shape::number(None, None, unit)
    } else {
        Shape::Text
    };
    maker.value("", shape, STATE, NONE);
}

/// One that only ever tells that it is on, and is off again by itself, is an event.
fn binary_sensor(maker: &mut Maker<'_>) {
    let keys = maker.keys;
    let shape = Shape::switch(keys, ("payload_on", "ON"), ("payload_off", "OFF"));
    if keys.get("off_delay").is_none() {
        return maker.value("", shape, STATE, NONE);
    }
    let on = keys.text("payload_on").unwrap_or_else(|| "ON".to_owned());
    match maker.source(STATE, &Shape::Text) {
        Ok(Some(source)) => {
            let when = Condition { part: source.part, equals: vec![on.into()] };
            maker.event("", source.place.topic, Some(when), None);
        }
        Ok(None) => {}
        Err(fault) => maker.faults.push(fault),
    }
}

fn switch(maker: &mut Maker<'_>) {
    let keys = maker.keys;
    let shape = Shape::switch(keys, ("payload_on", "ON"), ("payload_off", "OFF"));
    maker.value("", told(shape, keys, "state_on", "state_off"), STATE, COMMAND);
}

/// On and off by these keys, with other words for what is told, where there are some.
fn told(shape: Shape, keys: &Keys, on: &str, off: &str) -> Shape {
    let Shape::Switch { sent, neither, .. } = shape else { return shape };
    let [sent_on, sent_off] = sent.clone();
    let told = [keys.text(on).unwrap_or(sent_on), keys.text(off).unwrap_or(sent_off)];
    Shape::Switch { sent, told, neither }
}

fn press(maker: &mut Maker<'_>, key: &str, usual: &str) {
    let payload = maker.keys.text(key).unwrap_or_else(|| usual.to_owned());
    maker.function("", &payload, COMMAND);
}

fn lock(maker: &mut Maker<'_>) {
    let keys = maker.keys;
    let word = |key, usual: &str| keys.text(key).unwrap_or_else(|| usual.to_owned());
    let shape = Shape::Switch {
        sent: [word("payload_lock", "LOCK"), word("payload_unlock", "UNLOCK")],
        told: [word("state_locked", "LOCKED"), word("state_unlocked", "UNLOCKED")],
        // On its way it is neither; one that is jammed has no state.
        neither: vec![
            word("state_locking", "LOCKING"),
            word("state_unlocking", "UNLOCKING"),
            word("state_open", "OPEN"),
            word("state_opening", "OPENING"),
        ],
    };
    maker.value("", shape, STATE, COMMAND);
    if let Some(payload) = keys.text("payload_open") {
        maker.function("open", &payload, COMMAND);
    }
}

/// The words of covers and valves for where they are.
fn opening(keys: &Keys) -> Shape {
    let words = ["closed", "closing", "open", "opening", "stopped"];
    Shape::Choice(
        words
            .iter()
            .map(|word| {
                let wire = keys.text(&format!("state_{word}")).unwrap_or_else(|| (*word).to_owned());
                ((*word).to_owned(), wire)
            })
            .collect(),
    )
}

/// Percent out of what stands for closed and open.
fn percent(keys: &Keys, closed: &str, open: &str) -> Shape {
    let (closed, open) = (keys.number(closed).unwrap_or(0.0), keys.number(open).unwrap_or(100.0));
    let scale = 100.0 / (open - closed);
    let offset = -closed * scale;
    // What stands for nothing in particular is taken as it comes.
    let (scale, offset) = if scale.is_normal() && offset.is_finite() { (scale, offset) } else { (1.0, 0.0) };
    Shape::Number { range: Some((0.0, 100.0)), step: None, unit: Some("%".into()), scale, offset }
}

/// `open`, `close` and `stop`; null takes one of them away.
fn movements(maker: &mut Maker<'_>, usual: [Option<&str>; 3]) {
    for (id, usual) in ["open", "close", "stop"].into_iter().zip(usual) {
        let key = format!("payload_{id}");
        let payload = maker.keys.text(&key).or_else(|| usual.map(str::to_owned));
        if let Some(payload) = payload.filter(|_| !maker.keys.is_null(&key)) {
            maker.function(id, &payload, COMMAND);
        }
    }
}

fn cover(maker: &mut Maker<'_>) {
    let keys = maker.keys;
    maker.value("", opening(keys), STATE, NONE);
    let position = percent(keys, "position_closed", "position_open");
    maker.value(
        "position",
        position,
        ("position_topic", "position_template"),
        ("set_position_topic", "set_position_template"),
    );
    let tilt = percent(keys, "tilt_min", "tilt_max");
    maker.value(
        "tilt",
        tilt,
        ("tilt_status_topic", "tilt_status_template"),
        ("tilt_command_topic", "tilt_command_template"),
    );
    movements(maker, [Some("OPEN"), Some("CLOSE"), Some("STOP")]);
}

fn valve(maker: &mut Maker<'_>) {
    let keys = maker.keys;
    if keys.flag("reports_position") {
        maker.value("position", percent(keys, "position_closed", "position_open"), STATE, COMMAND);
        if let Some(payload) = keys.text("payload_stop") {
            maker.function("stop", &payload, COMMAND);
        }
    } else {
        maker.value("", opening(keys), STATE, NONE);
        movements(maker, [Some("OPEN"), Some("CLOSE"), None]);
    }
}

fn fan(maker: &mut Maker<'_>) {
    let keys = maker.keys;
    let shape = Shape::switch(keys, ("payload_on", "ON"), ("payload_off", "OFF"));
    maker.value("", shape, ("state_topic", "state_value_template"), COMMAND);
    let bound = |key, usual| keys.number(key).unwrap_or(usual);
    let (low, high) = (bound("speed_range_min", 1.0), bound("speed_range_max", 100.0));
    // Below the lowest speed it is off. The speed is told as it travels: in percent only where there are a hundred.
    let unit = ((low, high) == (1.0, 100.0)).then(|| "%".into());
    let speed = Shape::number(Some((low - 1.0, high)), Some(1.0), unit);
    let way = ("percentage_state_topic", "percentage_value_template");
    maker.value("speed", speed, way, ("percentage_command_topic", "percentage_command_template"));
    let preset = Shape::choice(keys, "preset_modes", &[]);
    let way = ("preset_mode_state_topic", "preset_mode_value_template");
    maker.value("preset", preset, way, ("preset_mode_command_topic", "preset_mode_command_template"));
    let on = ("payload_oscillation_on", "oscillate_on");
    let oscillation = Shape::switch(keys, on, ("payload_oscillation_off", "oscillate_off"));
    let way = ("oscillation_state_topic", "oscillation_value_template");
    maker.value(
        "oscillation",
        oscillation,
        way,
        ("oscillation_command_topic", "oscillation_command_template"),
    );
    let direction = Shape::choice(keys, "", &["forward", "reverse"]);
    let way = ("direction_state_topic", "direction_value_template");
    maker.value("direction", direction, way, ("direction_command_topic", "direction_command_template"));
}

/// Its messages are JSON and say which of its types it is.
fn event(maker: &mut Maker<'_>) {
    match maker.source(STATE, &Shape::Text) {
        Ok(Some(source)) if source.part == Part::Whole => {
            let path: Part = Part::Path("$.event_type".into());
            let when = Condition { part: path.clone(), equals: Vec::new() };
            maker.event("", source.place.topic, Some(when), Some(("event_type", path)));
        }
        Ok(Some(_)) => maker.faults.push(Fault::Other("an event with a template is not taken over")),
        Ok(None) => {}
        Err(fault) => maker.faults.push(fault),
    }
}

/// A trigger: a message, or one of a certain content, is the event.
fn automation(maker: &mut Maker<'_>) {
    let keys = maker.keys;
    let words = [keys.text("type"), keys.text("subtype")];
    let id = words.into_iter().flatten().collect::<Vec<_>>().join("_");
    match maker.source(("topic", "value_template"), &Shape::Text) {
        Ok(Some(source)) => {
            let payload = keys.text("payload").map(|payload| vec![payload.into()]);
            let when = payload.map(|equals| Condition { part: source.part, equals });
            if !id.is_empty() {
                maker.entity.id = id;
            }
            maker.event("", source.place.topic, when, None);
        }
        Ok(None) => {}
        Err(fault) => maker.faults.push(fault),
    }
}
