//! The demo's MQTT devices: ordinary clients of the embedded broker, one connection each.
//!
//! What a device says and does is its own pure module; this one moves messages, and comes back by itself when the
//! broker does. Each device leaves a last will, so that killing its connection shows as it would in the field.

use std::fmt::Display;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::time::Duration;

use rumqttc::{AsyncClient, Event, LastWill, MqttOptions, Packet, QoS};
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::clock;
use crate::model::time::Now;

mod lamp;
mod plug;
mod shelly;
#[cfg(test)]
mod tests;

/// How often a device looks at its own clock.
const TICK: Duration = Duration::from_millis(500);

/// Messages that wait for the connection. When full a device loses its newest one, as a small one in the field does.
const QUEUE: usize = 64;

/// Pause before a device tries again; the broker is on the same machine.
const RETRY: Duration = Duration::from_millis(500);

/// The devices are the same at every start.
const SEED: u64 = 0x6a_d6;

/// A simulated device. Time is an argument, so that it runs in tests as fast as they wish.
trait Gadget: Send {
    /// Its MQTT client id.
    fn name(&self) -> &'static str;

    /// What the broker says when the device is gone.
    fn will(&self) -> Letter;

    /// What it listens to.
    fn filters(&self) -> Vec<String>;

    /// What it says when it has connected.
    fn connected(&mut self, now: Now) -> Vec<Letter>;

    /// What it does about a message.
    fn receive(&mut self, topic: &str, payload: &[u8], now: Now) -> Vec<Letter>;

    /// What it says as time passes.
    fn tick(&mut self, now: Now) -> Vec<Letter>;
}

/// A message of a device.
#[derive(Clone, Debug, PartialEq)]
struct Letter {
    topic: String,
    payload: String,
    retain: bool,
}

impl Letter {
    fn new(topic: impl Into<String>, payload: &impl Display) -> Self {
        Self { topic: topic.into(), payload: payload.to_string(), retain: false }
    }

    fn retained(topic: impl Into<String>, payload: &impl Display) -> Self {
        Self { retain: true, ..Self::new(topic, payload) }
    }
}

/// Runs all three devices until told to stop.
pub async fn run(broker: SocketAddr, stop: CancellationToken) {
    let now = clock::now();
    let devices = async {
        tokio::join!(
            Box::pin(serve(plug::Plug::new(SEED, now), broker)),
            Box::pin(serve(lamp::Lamp::new(SEED, now), broker)),
            Box::pin(serve(shelly::Shelly::new(SEED, now), broker)),
        )
    };
    // The devices never end by themselves. They may be dropped anywhere: what is lost with them is simulated.
    stop.run_until_cancelled(devices).await;
}

/// Keeps one device connected.
async fn serve(mut gadget: impl Gadget, broker: SocketAddr) {
    loop {
        let (client, mut events) = AsyncClient::new(options(&gadget, broker), QUEUE);
        events.network_options.set_tcp_nodelay(true);
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut connected = false;
        loop {
            // Dropped halfway the library's poll may lose a packet, so the same future is polled until it is done.
            let mut poll = pin!(events.poll());
            let event = loop {
                tokio::select! {
                    // Not dropped when the other arm wins; see above.
                    event = &mut poll => break event,
                    // Cancel-safe: a tick that is not taken now is taken next time.
                    _ = ticks.tick(), if connected => send(&client, gadget.tick(clock::now())),
                }
            };
            match event {
                Ok(Event::Incoming(Packet::ConnAck(_))) => {
                    connected = true;
                    for filter in gadget.filters() {
                        note(client.try_subscribe(filter, QoS::AtLeastOnce));
                    }
                    send(&client, gadget.connected(clock::now()));
                }
                Ok(Event::Incoming(Packet::Publish(message))) => {
                    send(&client, gadget.receive(&message.topic, &message.payload, clock::now()));
                }
                Ok(Event::Incoming(_) | Event::Outgoing(_)) => {}
                Err(error) => {
                    debug!(gadget = gadget.name(), %error, "no broker");
                    break;
                }
            }
        }
        sleep(RETRY).await;
    }
}

fn send(client: &AsyncClient, letters: Vec<Letter>) {
    for Letter { topic, payload, retain } in letters {
        note(client.try_publish(topic, QoS::AtLeastOnce, retain, payload));
    }
}

/// A full queue costs a message, no more.
fn note(sent: Result<(), rumqttc::ClientError>) {
    if let Err(error) = sent {
        debug!(%error, "a message is lost");
    }
}

fn options(gadget: &impl Gadget, broker: SocketAddr) -> MqttOptions {
    let host = match broker.ip() {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("[{address}]"),
    };
    let will = gadget.will();
    let mut options = MqttOptions::new(gadget.name(), host, broker.port());
    options.set_last_will(LastWill::new(will.topic, will.payload, QoS::AtLeastOnce, will.retain));
    options
}

/// A timer of a device: due at once, then after each period.
#[derive(Clone, Copy, Debug)]
struct Every {
    period: Duration,
    next: std::time::Instant,
}

impl Every {
    fn new(period: Duration, now: Now) -> Self {
        Self { period, next: now.instant }
    }

    /// Whether it is due; if so, it begins anew.
    fn due(&mut self, now: Now) -> bool {
        let due = self.next <= now.instant;
        if due {
            self.next = now.instant + self.period;
        }
        due
    }
}

/// To this many decimals, as the devices print their numbers.
fn round(number: f64, decimals: i32) -> f64 {
    let unit = 10_f64.powi(decimals);
    (number * unit).round() / unit
}
