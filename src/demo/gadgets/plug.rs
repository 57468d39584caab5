//! A coffee machine on a switching plug that runs Tasmota: `tele/`, `stat/` and `cmnd/plug-1/`.
//!
//! Pure. Messages have the form that Tasmota's documentation gives, pages "MQTT" and "Commands"; telemetry comes
//! every two seconds, as with a very short `TelePeriod`.

use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};

use super::{Every, Gadget, Letter, round};
use crate::model::time::Now;

/// Set a little above what a plug would do, so that a demo is lively.
const TELEMETRY: Duration = Duration::from_secs(2);

/// The heater takes this when it is on, the electronics that.
const HEATER_W: f64 = 1180.0;
const STANDBY_W: f64 = 2.5;

/// The heater is on so long, in every cycle of so long.
const HEATER_ON_S: f64 = 12.0;
const HEATER_CYCLE_S: f64 = 30.0;

pub(super) struct Plug {
    random: fastrand::Rng,
    on: bool,
    started: Instant,
    advanced: Instant,
    /// Seconds that the machine has been on, which its heater follows.
    heating: f64,
    energy_kwh: f64,
    telemetry: Every,
}

impl Plug {
    pub(super) fn new(seed: u64, now: Now) -> Self {
        Self {
            random: fastrand::Rng::with_seed(seed),
            on: true,
            started: now.instant,
            advanced: now.instant,
            heating: 0.0,
            energy_kwh: 31.402,
            telemetry: Every::new(TELEMETRY, now),
        }
    }

    fn power(&self) -> f64 {
        match self.on {
            true if self.heating % HEATER_CYCLE_S < HEATER_ON_S => STANDBY_W + HEATER_W,
            true => STANDBY_W,
            false => 0.0,
        }
    }

    fn advance(&mut self, now: Now) {
        let seconds = now.instant.duration_since(self.advanced).as_secs_f64();
        self.advanced = now.instant;
        self.energy_kwh += self.power() * seconds / 3_600_000.0;
        if self.on {
            self.heating += seconds;
        }
    }

    fn word(&self) -> &'static str {
        if self.on { "ON" } else { "OFF" }
    }

    fn result(&self) -> Vec<Letter> {
        vec![
            Letter::new("stat/plug-1/RESULT", &json!({"POWER": self.word()})),
            Letter::new("stat/plug-1/POWER", &self.word()),
        ]
    }

    fn sensor(&mut self) -> Json {
        let power = self.power();
        let voltage = 231.0 + self.random.f64() * 2.0 - power / 800.0;
        let current = if self.on { power / voltage } else { 0.0 };
        json!({
            "ENERGY": {
                "Total": round(self.energy_kwh, 3),
                "Power": power.round(),
                "ApparentPower": power.round(),
                "ReactivePower": 0,
                "Factor": if self.on { 1.0 } else { 0.0 },
                "Voltage": voltage.round(),
                "Current": round(current, 3),
            },
        })
    }

    fn telemetry(&mut self, now: Now) -> Vec<Letter> {
        let uptime = now.instant.duration_since(self.started).as_secs();
        let (minutes, seconds) = (uptime / 60, uptime % 60);
        let sensor = self.sensor();
        vec![
            Letter::new(
                "tele/plug-1/STATE",
                &json!({
                    "Uptime": format!("{}T{:02}:{:02}:{seconds:02}", minutes / 1440, minutes / 60 % 24, minutes % 60),
                    "UptimeSec": uptime,
                    "POWER": self.word(),
                    "Wifi": {"AP": 1, "SSId": "plant", "RSSI": 78, "Signal": -61},
                }),
            ),
            Letter::new("tele/plug-1/SENSOR", &sensor),
        ]
    }
}

impl Gadget for Plug {
    fn name(&self) -> &'static str {
        "plug-1"
    }

    fn will(&self) -> Letter {
        Letter::retained("tele/plug-1/LWT", &"Offline")
    }

    fn filters(&self) -> Vec<String> {
        vec!["cmnd/plug-1/#".to_owned()]
    }

    fn connected(&mut self, now: Now) -> Vec<Letter> {
        self.advance(now);
        let mut letters = vec![Letter::retained("tele/plug-1/LWT", &"Online")];
        letters.extend(self.telemetry(now));
        letters
    }

    fn receive(&mut self, topic: &str, payload: &[u8], now: Now) -> Vec<Letter> {
        self.advance(now);
        let command = topic.rsplit('/').next().unwrap_or_default().to_ascii_uppercase();
        let word = String::from_utf8_lossy(payload).trim().to_ascii_uppercase();
        match (command.as_str(), word.as_str()) {
            ("POWER" | "POWER1", "ON" | "1" | "TRUE") => self.on = true,
            ("POWER" | "POWER1", "OFF" | "0" | "FALSE") => self.on = false,
            ("POWER" | "POWER1", "TOGGLE" | "2") => self.on = !self.on,
            // Anything else asks for the state.
            ("POWER" | "POWER1", _) => {}
            ("STATUS", "10" | "8") => {
                return vec![Letter::new("stat/plug-1/STATUS10", &json!({"StatusSNS": self.sensor()}))];
            }
            ("RESTART", "1") => {
                self.started = now.instant;
                return vec![Letter::new("stat/plug-1/RESULT", &json!({"Restart": "Restarting"}))];
            }
            (_, _) => return vec![Letter::new("stat/plug-1/RESULT", &json!({"Command": "Unknown"}))],
        }
        self.result()
    }

    fn tick(&mut self, now: Now) -> Vec<Letter> {
        self.advance(now);
        if self.telemetry.due(now) { self.telemetry(now) } else { Vec::new() }
    }
}
