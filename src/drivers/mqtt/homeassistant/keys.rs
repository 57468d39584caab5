//! The keys of an announcement, under their long names.
//!
//! Pure. Each key may stand there in its short form, and a topic may begin or end with `~` for the base topic.

use std::sync::Arc;

use serde_json::{Map, Value as Json};

use super::super::route::is_topic;
use super::entity::Fault;

/// Short and long forms of the keys that are looked at; all others are passed over.
const SHORT: [(&str, &str); 123] = [
    ("act_t", "action_topic"),
    ("act_tpl", "action_template"),
    ("atype", "automation_type"),
    ("avty", "availability"),
    ("avty_mode", "availability_mode"),
    ("avty_t", "availability_topic"),
    ("avty_tpl", "availability_template"),
    ("bri_cmd_t", "brightness_command_topic"),
    ("bri_cmd_tpl", "brightness_command_template"),
    ("bri_scl", "brightness_scale"),
    ("bri_stat_t", "brightness_state_topic"),
    ("bri_val_tpl", "brightness_value_template"),
    ("clr_temp_cmd_t", "color_temp_command_topic"),
    ("clr_temp_cmd_tpl", "color_temp_command_template"),
    ("clr_temp_k", "color_temp_kelvin"),
    ("clr_temp_stat_t", "color_temp_state_topic"),
    ("clr_temp_val_tpl", "color_temp_value_template"),
    ("cmd_t", "command_topic"),
    ("cmd_tpl", "command_template"),
    ("cmps", "components"),
    ("curr_hum_t", "current_humidity_topic"),
    ("curr_hum_tpl", "current_humidity_template"),
    ("curr_temp_t", "current_temperature_topic"),
    ("curr_temp_tpl", "current_temperature_template"),
    ("dev", "device"),
    ("dev_cla", "device_class"),
    ("dir_cmd_t", "direction_command_topic"),
    ("dir_cmd_tpl", "direction_command_template"),
    ("dir_stat_t", "direction_state_topic"),
    ("dir_val_tpl", "direction_value_template"),
    ("e", "encoding"),
    ("exp_aft", "expire_after"),
    ("fan_mode_cmd_t", "fan_mode_command_topic"),
    ("fan_mode_cmd_tpl", "fan_mode_command_template"),
    ("fan_mode_stat_t", "fan_mode_state_topic"),
    ("fan_mode_stat_tpl", "fan_mode_state_template"),
    ("fx_cmd_t", "effect_command_topic"),
    ("fx_cmd_tpl", "effect_command_template"),
    ("fx_list", "effect_list"),
    ("fx_stat_t", "effect_state_topic"),
    ("fx_val_tpl", "effect_value_template"),
    ("hum_cmd_t", "target_humidity_command_topic"),
    ("hum_cmd_tpl", "target_humidity_command_template"),
    ("hum_stat_t", "target_humidity_state_topic"),
    ("hum_state_tpl", "target_humidity_state_template"),
    ("max_hum", "max_humidity"),
    ("max_k", "max_kelvin"),
    ("max_mirs", "max_mireds"),
    ("min_hum", "min_humidity"),
    ("min_k", "min_kelvin"),
    ("min_mirs", "min_mireds"),
    ("mode_cmd_t", "mode_command_topic"),
    ("mode_cmd_tpl", "mode_command_template"),
    ("mode_stat_t", "mode_state_topic"),
    ("mode_stat_tpl", "mode_state_template"),
    ("off_dly", "off_delay"),
    ("ops", "options"),
    ("opt", "optimistic"),
    ("osc_cmd_t", "oscillation_command_topic"),
    ("osc_cmd_tpl", "oscillation_command_template"),
    ("osc_stat_t", "oscillation_state_topic"),
    ("osc_val_tpl", "oscillation_value_template"),
    ("p", "platform"),
    ("pct_cmd_t", "percentage_command_topic"),
    ("pct_cmd_tpl", "percentage_command_template"),
    ("pct_stat_t", "percentage_state_topic"),
    ("pct_val_tpl", "percentage_value_template"),
    ("pl", "payload"),
    ("pl_avail", "payload_available"),
    ("pl_cls", "payload_close"),
    ("pl_lock", "payload_lock"),
    ("pl_not_avail", "payload_not_available"),
    ("pl_off", "payload_off"),
    ("pl_on", "payload_on"),
    ("pl_open", "payload_open"),
    ("pl_osc_off", "payload_oscillation_off"),
    ("pl_osc_on", "payload_oscillation_on"),
    ("pl_prs", "payload_press"),
    ("pl_stop", "payload_stop"),
    ("pl_unlk", "payload_unlock"),
    ("pos_clsd", "position_closed"),
    ("pos_open", "position_open"),
    ("pos_t", "position_topic"),
    ("pos_tpl", "position_template"),
    ("pow_cmd_t", "power_command_topic"),
    ("pow_cmd_tpl", "power_command_template"),
    ("pr_mode_cmd_t", "preset_mode_command_topic"),
    ("pr_mode_cmd_tpl", "preset_mode_command_template"),
    ("pr_mode_stat_t", "preset_mode_state_topic"),
    ("pr_mode_val_tpl", "preset_mode_value_template"),
    ("pr_modes", "preset_modes"),
    ("ret", "retain"),
    ("rgb_cmd_t", "rgb_command_topic"),
    ("rgb_cmd_tpl", "rgb_command_template"),
    ("rgb_stat_t", "rgb_state_topic"),
    ("rgb_val_tpl", "rgb_value_template"),
    ("set_pos_t", "set_position_topic"),
    ("set_pos_tpl", "set_position_template"),
    ("spd_rng_max", "speed_range_max"),
    ("spd_rng_min", "speed_range_min"),
    ("stat_cla", "state_class"),
    ("stat_off", "state_off"),
    ("stat_on", "state_on"),
    ("stat_t", "state_topic"),
    ("stat_val_tpl", "state_value_template"),
    ("stype", "subtype"),
    ("sup_clrm", "supported_color_modes"),
    ("swing_mode_cmd_t", "swing_mode_command_topic"),
    ("swing_mode_cmd_tpl", "swing_mode_command_template"),
    ("swing_mode_stat_t", "swing_mode_state_topic"),
    ("swing_mode_stat_tpl", "swing_mode_state_template"),
    ("t", "topic"),
    ("temp_cmd_t", "temperature_command_topic"),
    ("temp_cmd_tpl", "temperature_command_template"),
    ("temp_stat_t", "temperature_state_topic"),
    ("temp_stat_tpl", "temperature_state_template"),
    ("temp_unit", "temperature_unit"),
    ("tilt_cmd_t", "tilt_command_topic"),
    ("tilt_cmd_tpl", "tilt_command_template"),
    ("uniq_id", "unique_id"),
    ("unit_of_meas", "unit_of_measurement"),
    ("val_tpl", "value_template"),
    ("tilt_status_t", "tilt_status_topic"),
];

/// Short forms that are not told by their parts, of keys that come in several sorts.
const SORTS: [(&str, &str); 4] = [
    ("temp_hi_", "temperature_high_"),
    ("temp_lo_", "temperature_low_"),
    ("stat_", "state_"),
    ("tilt_status_tpl", "tilt_status_template"),
];

/// Short forms within `device`.
const OF_DEVICE: [(&str, &str); 5] = [
    ("ids", "identifiers"),
    ("cns", "connections"),
    ("mf", "manufacturer"),
    ("mdl", "model"),
    ("sw", "sw_version"),
];

/// Longest text that is shown to people: names and units.
const LONGEST_NAME: usize = 128;

/// The keys of an entity, or of what several share.
#[derive(Clone, Debug, Default)]
pub(super) struct Keys(Map<String, Json>);

impl Keys {
    /// Of an object, with the base topic filled in.
    pub(super) fn of(object: &Map<String, Json>) -> Self {
        let mut keys = Map::new();
        for (key, value) in object {
            keys.insert(long(key), value.clone());
        }
        Self(keys)
    }

    /// These, over others that hold for several.
    pub(super) fn over(&self, shared: &Self) -> Self {
        let mut keys = shared.clone();
        keys.0.remove("components");
        for (key, value) in &self.0 {
            keys.0.insert(key.clone(), value.clone());
        }
        keys
    }

    /// What stands there.
    pub(super) fn get(&self, key: &str) -> Option<&Json> {
        self.0.get(key).filter(|json| !json.is_null())
    }

    /// Whether the key stands there with null.
    pub(super) fn is_null(&self, key: &str) -> bool {
        self.0.get(key).is_some_and(Json::is_null)
    }

    /// Whether that is all there is.
    pub(super) fn is_only(&self, key: &str) -> bool {
        self.0.len() == 1 && self.0.contains_key(key)
    }

    /// A text; numbers, true and false as Home Assistant makes texts of them.
    pub(super) fn text(&self, key: &str) -> Option<String> {
        self.get(key).and_then(text)
    }

    /// A text for people, shortened where it is long.
    pub(super) fn name(&self, key: &str) -> Option<Arc<str>> {
        let text = self.text(key)?;
        let text: String = text.chars().filter(|c| !c.is_control()).take(LONGEST_NAME).collect();
        let text = text.trim();
        (!text.is_empty()).then(|| text.into())
    }

    /// A number, perhaps as text.
    pub(super) fn number(&self, key: &str) -> Option<f64> {
        let json = self.get(key)?;
        json.as_f64().or_else(|| json.as_str()?.trim().parse().ok()).filter(|number| number.is_finite())
    }

    /// Whether it is said to be so.
    pub(super) fn flag(&self, key: &str) -> bool {
        self.get(key).and_then(Json::as_bool).unwrap_or_default()
    }

    /// Texts, also where there is only one.
    pub(super) fn list(&self, key: &str) -> Vec<String> {
        match self.get(key) {
            Some(Json::Array(items)) => items.iter().filter_map(text).collect(),
            Some(other) => text(other).into_iter().collect(),
            None => Vec::new(),
        }
    }

    /// A topic that messages can be published to. No wildcards: one announcement must not bring everybody's messages.
    pub(super) fn topic(&self, key: &str) -> Result<Option<Arc<str>>, Fault> {
        let Some(json) = self.get(key) else { return Ok(None) };
        let given = json.as_str().unwrap_or_default();
        let base = self.0.get("~").and_then(Json::as_str).unwrap_or_default();
        let topic = match (given.strip_prefix('~'), given.strip_suffix('~')) {
            (Some(rest), _) => format!("{base}{rest}"),
            (None, Some(rest)) => format!("{rest}{base}"),
            (None, None) => given.to_owned(),
        };
        // Braces would stand for something else in a product's topic.
        if is_topic(&topic) && !topic.contains(['{', '}']) {
            Ok(Some(topic.into()))
        } else {
            Err(Fault::Topic(key.to_owned()))
        }
    }

    /// The objects in a list, or the one that stands there alone, with the same base topic.
    pub(super) fn objects(&self, key: &str) -> Vec<Self> {
        let objects = match self.get(key) {
            Some(Json::Array(items)) => items.iter().filter_map(Json::as_object).collect(),
            Some(Json::Object(object)) => vec![object],
            _ => Vec::new(),
        };
        objects.into_iter().map(|object| self.inner(object)).collect()
    }

    /// Objects by name, in the order of the names, with the same base topic.
    pub(super) fn named(&self, key: &str) -> Vec<(&String, Self)> {
        let objects = self.get(key).and_then(Json::as_object).into_iter().flatten();
        let mut named: Vec<_> =
            objects.filter_map(|(name, json)| Some((name, self.inner(json.as_object()?)))).collect();
        named.sort_by_key(|(name, _)| *name);
        named
    }

    /// What is said of the device.
    pub(super) fn device(&self) -> Option<Self> {
        let object = self.get("device")?.as_object()?;
        let long = |key: &String| long_of(&OF_DEVICE, key).unwrap_or(key).to_owned();
        Some(Self(object.iter().map(|(key, value)| (long(key), value.clone())).collect()))
    }

    fn inner(&self, object: &Map<String, Json>) -> Self {
        let mut keys = Self::of(object);
        if let Some(base) = self.0.get("~") {
            keys.0.entry("~").or_insert_with(|| base.clone());
        }
        keys
    }
}

/// The long form of a key.
fn long(key: &str) -> String {
    if let Some(long) = long_of(&SHORT, key) {
        return long.to_owned();
    }
    let sort = SORTS.iter().find_map(|(short, long)| Some((long, key.strip_prefix(short)?)));
    let Some((long, rest)) = sort else { return key.to_owned() };
    let rest = match rest {
        "cmd_t" => "command_topic",
        "cmd_tpl" => "command_template",
        "stat_t" => "state_topic",
        "stat_tpl" => "state_template",
        "clsd" => "closed",
        other => other,
    };
    format!("{long}{rest}")
}

fn long_of(table: &'static [(&str, &str)], key: &str) -> Option<&'static str> {
    table.iter().find(|(short, _)| *short == key).map(|(_, long)| *long)
}

fn text(json: &Json) -> Option<String> {
    match json {
        Json::String(text) => Some(text.clone()),
        Json::Bool(so) => Some(if *so { "True" } else { "False" }.to_owned()),
        Json::Number(number) => Some(number.to_string()),
        Json::Null | Json::Array(_) | Json::Object(_) => None,
    }
}
