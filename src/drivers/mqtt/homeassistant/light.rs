//! Lights: of the default schema, with a topic for each part, and of the JSON schema, with one for all.
//!
//! Pure. Lights of the template schema are left out.

use super::super::map::{Part, Publish, Source};
use super::entity::{Fault, Maker, Shape};
use super::jinja::Template;
use super::kinds::{COMMAND, NONE};

pub(super) fn light(maker: &mut Maker<'_>) {
    match maker.keys.text("schema").as_deref() {
        None | Some("basic" | "default") => basic(maker),
        Some("json") => json(maker),
        Some(_) => maker.faults.push(Fault::Other("lights of this schema are not taken over")),
    }
}

fn brightness(maker: &Maker<'_>) -> Shape {
    let scale = maker.keys.number("brightness_scale").filter(|scale| *scale >= 1.0).unwrap_or(255.0);
    Shape::number(Some((0.0, scale)), None, None)
}

fn temperature(maker: &Maker<'_>) -> Shape {
    let keys = maker.keys;
    let bound = |key, usual| keys.number(key).unwrap_or(usual);
    if keys.flag("color_temp_kelvin") {
        Shape::number(
            Some((bound("min_kelvin", 2000.0), bound("max_kelvin", 6535.0))),
            None,
            Some("K".into()),
        )
    } else {
        Shape::number(
            Some((bound("min_mireds", 153.0), bound("max_mireds", 500.0))),
            None,
            Some("mired".into()),
        )
    }
}

fn basic(maker: &mut Maker<'_>) {
    let keys = maker.keys;
    let form =
        if keys.get("state_value_template").is_some() { "state_value_template" } else { "value_template" };
    let shape = Shape::switch(keys, ("payload_on", "ON"), ("payload_off", "OFF"));
    maker.value("", shape, ("state_topic", form), (COMMAND.0, ""));
    let effect = Shape::choice(keys, "effect_list", &[]);
    let parts = [
        ("brightness", brightness(maker)),
        ("color_temp", temperature(maker)),
        ("effect", effect),
        ("rgb", Shape::Text),
    ];
    for (id, shape) in parts {
        let [told, sent] = ["state", "command"].map(|way| format!("{id}_{way}_topic"));
        let [form, by] = ["value", "command"].map(|way| format!("{id}_{way}_template"));
        maker.value(id, shape, (&told, &form), (&sent, &by));
    }
}

/// What it is told goes with the word that it is to be on, as Home Assistant sends it.
fn json(maker: &mut Maker<'_>) {
    let keys = maker.keys;
    let (told, sent) =
        match (maker.source(("state_topic", ""), &Shape::Text), maker.letter((COMMAND.0, NONE.1))) {
            (Ok(told), Ok(sent)) => (told, sent),
            (Err(fault), _) | (_, Err(fault)) => return maker.faults.push(fault),
        };
    let modes = keys.list("supported_color_modes");
    let is_one = |known: &[&str]| modes.iter().any(|mode| known.contains(&mode.as_str()));
    // A light that can do more than on and off can be dimmed.
    let dims = keys.flag("brightness") || modes.iter().any(|mode| mode != "onoff");
    let colours =
        is_one(&["xy", "hs", "rgb", "rgbw", "rgbww"]) || ["xy", "hs", "rgb"].iter().any(|key| keys.flag(key));
    let warmth = is_one(&["color_temp"]) || keys.flag("color_temp");
    let (level, mired) = (brightness(maker), temperature(maker));
    let mut put = |id: &str, shape: Shape, member: &str, template: &str| {
        let source = told
            .as_ref()
            .map(|told| Source { part: Part::Path(format!("$.{member}").into()), ..told.clone() });
        let letter = sent.as_ref().and_then(|sent| {
            let template = Template::parse(template).ok()?;
            Some(Publish { template: Some(template.into()), ..sent.clone() })
        });
        if source.is_some() || letter.is_some() {
            maker.put(id, shape, source, letter);
        }
    };
    let switch = Shape::switch(keys, ("", "ON"), ("", "OFF"));
    put("", switch, "state", r#"{"state": "{{ value }}"}"#);
    if dims {
        put("brightness", level, "brightness", r#"{"state": "ON", "brightness": {{ value }}}"#);
    }
    if warmth {
        put("color_temp", mired, "color_temp", r#"{"state": "ON", "color_temp": {{ value }}}"#);
    }
    if keys.flag("effect") && keys.get("effect_list").is_some() {
        let shape = Shape::choice(keys, "effect_list", &[]);
        put("effect", shape, "effect", r#"{"state": "ON", "effect": {{ value | tojson }}}"#);
    }
    if colours {
        put("color", Shape::Object, "color", r#"{"state": "ON", "color": {{ value | tojson }}}"#);
    }
}
