//! A Shelly relay of the second generation: `shelly-1/`, with calls as JSON-RPC.
//!
//! Pure. Messages have the form that Shelly's "Gen2+ Device API" gives, pages "MQTT" and "Switch", with generic
//! status updates switched on.

use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};

use super::{Every, Gadget, Letter, round};
use crate::model::time::Now;

/// A real one reports once a minute; the demo is in more of a hurry.
const REPORT: Duration = Duration::from_secs(3);

const LIGHT_W: f64 = 38.0;

/// Its temperature goes towards these, with this time constant.
const WARM_C: f64 = 58.0;
const COOL_C: f64 = 41.0;
const CONSTANT_S: f64 = 90.0;

/// JSON-RPC: no such method, and arguments that it cannot take.
const NO_HANDLER: i64 = 404;
const INVALID_ARGUMENT: i64 = -103;

pub(super) struct Shelly {
    random: fastrand::Rng,
    on: bool,
    source: &'static str,
    celsius: f64,
    energy_wh: f64,
    advanced: Instant,
    report: Every,
}

impl Shelly {
    pub(super) fn new(seed: u64, now: Now) -> Self {
        Self {
            random: fastrand::Rng::with_seed(seed),
            on: false,
            source: "init",
            celsius: COOL_C,
            energy_wh: 512.0,
            advanced: now.instant,
            report: Every::new(REPORT, now),
        }
    }

    fn advance(&mut self, now: Now) {
        let seconds = now.instant.duration_since(self.advanced).as_secs_f64();
        self.advanced = now.instant;
        let goal = if self.on { WARM_C } else { COOL_C };
        self.celsius += (goal - self.celsius) * (1.0 - (-seconds / CONSTANT_S).exp());
        if self.on {
            self.energy_wh += LIGHT_W * seconds / 3600.0;
        }
    }

    fn status(&mut self) -> Json {
        let power = if self.on { LIGHT_W } else { 0.0 };
        let voltage = 230.0 + self.random.f64() * 2.0;
        json!({
            "id": 0,
            "source": self.source,
            "output": self.on,
            "apower": round(power, 1),
            "voltage": round(voltage, 1),
            "current": round(power / voltage, 3),
            "aenergy": {"total": round(self.energy_wh, 3)},
            "temperature": {"tC": round(self.celsius, 1), "tF": round(self.celsius * 1.8 + 32.0, 1)},
        })
    }

    fn report(&mut self) -> Vec<Letter> {
        vec![Letter::new("shelly-1/status/switch:0", &self.status())]
    }

    fn switch(&mut self, on: bool) -> Vec<Letter> {
        self.on = on;
        self.source = "MQTT";
        self.report()
    }

    fn call(&mut self, request: &Json) -> Vec<Letter> {
        let method = request.get("method").and_then(Json::as_str).unwrap_or_default();
        let on = request.pointer("/params/on").and_then(Json::as_bool);
        let was_on = json!({"was_on": self.on});
        let (answer, mut letters) = match (method.to_ascii_lowercase().as_str(), on) {
            ("switch.set", Some(on)) => (Ok(was_on), self.switch(on)),
            ("switch.set", None) => {
                (Err((INVALID_ARGUMENT, "Missing required argument 'on'!".to_owned())), Vec::new())
            }
            ("switch.toggle", _) => (Ok(was_on), self.switch(!self.on)),
            ("switch.getstatus", _) => (Ok(self.status()), Vec::new()),
            (_, _) => (Err((NO_HANDLER, format!("No handler for {method}"))), Vec::new()),
        };
        // Without an address nobody waits for the answer.
        if let Some(asker) = request.get("src").and_then(Json::as_str) {
            let id = request.get("id").cloned().unwrap_or_default();
            let answer = match answer {
                Ok(result) => json!({"id": id, "src": "shelly-1", "dst": asker, "result": result}),
                Err((code, message)) => {
                    json!({"id": id, "src": "shelly-1", "dst": asker, "error": {"code": code, "message": message}})
                }
            };
            letters.push(Letter::new(format!("{asker}/rpc"), &answer));
        }
        letters
    }
}

impl Gadget for Shelly {
    fn name(&self) -> &'static str {
        "shelly-1"
    }

    fn will(&self) -> Letter {
        Letter::retained("shelly-1/online", &false)
    }

    fn filters(&self) -> Vec<String> {
        vec!["shelly-1/rpc".to_owned(), "shelly-1/command/switch:0".to_owned()]
    }

    fn connected(&mut self, now: Now) -> Vec<Letter> {
        self.advance(now);
        let mut letters = vec![Letter::retained("shelly-1/online", &true)];
        letters.extend(self.report());
        letters
    }

    fn receive(&mut self, topic: &str, payload: &[u8], now: Now) -> Vec<Letter> {
        self.advance(now);
        if topic.ends_with("/rpc") {
            return serde_json::from_slice(payload).map(|request| self.call(&request)).unwrap_or_default();
        }
        match payload {
            b"on" => self.switch(true),
            b"off" => self.switch(false),
            b"toggle" => self.switch(!self.on),
            b"status_update" => self.report(),
            _ => Vec::new(),
        }
    }

    fn tick(&mut self, now: Now) -> Vec<Letter> {
        self.advance(now);
        if self.report.due(now) { self.report() } else { Vec::new() }
    }
}
