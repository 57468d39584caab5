//! A dimmable lamp behind Zigbee2MQTT: `zigbee2mqtt/lamp-1` and what belongs to it.
//!
//! Pure. Messages have the form that Zigbee2MQTT's documentation gives, page "MQTT Topics and Messages".

use std::time::Duration;

use serde_json::{Value as Json, json};

use super::{Every, Gadget, Letter};
use crate::model::time::Now;

/// A bulb reports now and then by itself, mostly to say that it is still there.
const REPORT: Duration = Duration::from_secs(10);

const BRIGHTEST: i64 = 254;

pub(super) struct Lamp {
    random: fastrand::Rng,
    on: bool,
    brightness: i64,
    report: Every,
}

impl Lamp {
    pub(super) fn new(seed: u64, now: Now) -> Self {
        Self {
            random: fastrand::Rng::with_seed(seed),
            on: true,
            brightness: 180,
            report: Every::new(REPORT, now),
        }
    }

    fn state(&mut self) -> Vec<Letter> {
        let state = if self.on { "ON" } else { "OFF" };
        let quality = self.random.u8(110..140);
        // Kept by the broker, as with the setting `retain` there, so that whoever comes later knows the state.
        vec![Letter::retained(
            "zigbee2mqtt/lamp-1",
            &json!({"state": state, "brightness": self.brightness, "linkquality": quality}),
        )]
    }

    fn set(&mut self, wish: &Json) {
        match wish.get("state").and_then(Json::as_str).map(str::to_ascii_uppercase).as_deref() {
            Some("ON") => self.on = true,
            Some("OFF") => self.on = false,
            Some("TOGGLE") => self.on = !self.on,
            Some(_) | None => {}
        }
        if let Some(brightness) = wish.get("brightness").and_then(Json::as_i64) {
            self.brightness = brightness.clamp(0, BRIGHTEST);
            // To dim is to switch on, and to dim to nothing is to switch off.
            self.on = self.brightness > 0;
        }
    }
}

impl Gadget for Lamp {
    fn name(&self) -> &'static str {
        "lamp-1"
    }

    fn will(&self) -> Letter {
        Letter::retained("zigbee2mqtt/lamp-1/availability", &json!({"state": "offline"}))
    }

    fn filters(&self) -> Vec<String> {
        vec!["zigbee2mqtt/lamp-1/set".to_owned(), "zigbee2mqtt/lamp-1/get".to_owned()]
    }

    fn connected(&mut self, _: Now) -> Vec<Letter> {
        let mut letters =
            vec![Letter::retained("zigbee2mqtt/lamp-1/availability", &json!({"state": "online"}))];
        letters.extend(self.state());
        letters
    }

    fn receive(&mut self, topic: &str, payload: &[u8], _: Now) -> Vec<Letter> {
        match serde_json::from_slice(payload) {
            Ok(wish) => {
                if topic.ends_with("/set") {
                    self.set(&wish);
                }
                self.state()
            }
            // Zigbee2MQTT writes to its log and says nothing.
            Err(_) => Vec::new(),
        }
    }

    fn tick(&mut self, now: Now) -> Vec<Letter> {
        if self.report.due(now) { self.state() } else { Vec::new() }
    }
}
