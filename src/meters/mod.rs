//! The gateway's own figures: counted where things happen, read by whoever watches the process.
//!
//! It owns the counters and their text in the Prometheus form; names and units follow prometheus.io/docs/practices.
//! A label is a bus, a broker, a dialect or a kind, never a device, an address or a client, so the number of lines is
//! bounded by the configuration and the program. Counting never waits and never fails. It knows nothing of HTTP.

pub mod process;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::model::client::Dialect;
use crate::model::command::Outcome;

/// Seconds, counted up.
type Seconds = Counter<f64, AtomicU64>;

/// Seconds, as they are now.
type Span = Gauge<f64, AtomicU64>;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LinkLabel {
    link: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DialectLabel {
    dialect: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabel {
    dialect: &'static str,
    outcome: &'static str,
}

/// What one bus counts.
#[derive(Clone, Debug, Default)]
pub struct BusMeters {
    /// Requests that were put on the line.
    pub requests: Counter,
    /// Requests that nothing came back to.
    pub timeouts: Counter,
    /// Answers that could not be believed: damaged, cut, of somebody else.
    pub bad_answers: Counter,
    /// Answers by which a unit refused.
    pub exceptions: Counter,
    /// Time in which a request was under way, silences included.
    pub busy: Seconds,
    /// How long the reading that has waited longest for its turn has been due: what the bus lacks of its plan.
    pub behind: Span,
    /// Units that are probed only, because they do not answer.
    pub silent_units: Gauge,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DropLabel {
    link: String,
    reason: &'static str,
}

/// What one broker link counts.
#[derive(Clone, Debug, Default)]
pub struct BrokerMeters {
    /// Messages from the broker.
    pub received: Counter,
    /// Messages in either direction of which nothing became, by the place of their reason in [`Dropped::ALL`].
    pub dropped: [Counter; Dropped::ALL.len()],
    /// Messages to the broker.
    pub sent: Counter,
    /// Devices that have appeared by themselves.
    pub found: Gauge,
    /// Messages that would have made another one appear, had there been room or had it another name.
    pub unwelcome: Counter,
}

impl BrokerMeters {
    /// So many messages were dropped for this reason.
    pub fn drop_by(&self, reason: Dropped, times: u64) {
        for (known, counter) in Dropped::ALL.iter().zip(&self.dropped) {
            if *known == reason {
                counter.inc_by(times);
            }
        }
    }
}

/// Why nothing became of a message of a broker link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dropped {
    /// From the broker: no device has a use for it, or what it says is nothing that its product asks for.
    Unmatched,
    /// From the broker: something that a product asks for stands there and cannot be read.
    Unreadable,
    /// In either direction: larger than what is passed on, or than what the broker takes.
    TooLarge,
    /// For the broker: so many commands wait for it already that this one was not begun.
    QueueFull,
}

impl Dropped {
    /// Every reason.
    pub const ALL: [Self; 4] = [Self::Unmatched, Self::Unreadable, Self::TooLarge, Self::QueueFull];

    fn name(self) -> &'static str {
        match self {
            Self::Unmatched => "unmatched",
            Self::Unreadable => "unreadable",
            Self::TooLarge => "too_large",
            Self::QueueFull => "queue_full",
        }
    }
}

/// What one link counts; a bus or a broker leaves the other half at zero and unseen.
#[derive(Clone, Debug, Default)]
pub struct LinkMeters {
    /// As a bus.
    pub bus: BusMeters,
    /// As a broker link.
    pub broker: BrokerMeters,
}

/// What the sessions of one dialect count.
#[derive(Clone, Debug, Default)]
pub struct DialectMeters {
    dialect: &'static str,
    /// Sessions that are open.
    pub sessions: Gauge,
    /// Sessions that were opened.
    pub opened: Counter,
    /// Device messages that sessions have taken.
    pub delivered: Counter,
    /// Property reports that sessions missed because their clients read too slowly.
    pub missed: Counter,
    /// Sessions that were ended because their clients read too slowly.
    pub evicted: Counter,
    commands: Family<OutcomeLabel, Counter>,
}

impl DialectMeters {
    /// A command of a session has its outcome.
    pub fn settled(&self, outcome: &Outcome) {
        self.commands.get_or_create(&OutcomeLabel { dialect: self.dialect, outcome: outcome.name() }).inc();
    }
}

/// What the hub counts.
#[derive(Clone, Debug, Default)]
pub struct HubMeters {
    /// Turns of its loop: one in two seconds at least while it is well.
    pub turns: Counter,
    /// Device messages that were made.
    pub messages: Counter,
    /// Messages that no member of a balanced group had room for.
    pub unbalanced: Counter,
    /// Messages that the history store had no room for.
    pub unkept: Counter,
    /// 1 while the history store cannot write, though there should be one.
    pub history_troubled: Gauge,
}

/// Every figure of the process.
#[derive(Debug)]
pub struct Meters {
    registry: Registry,
    buses: Buses,
    brokers: Brokers,
    by_dialect: BTreeMap<Dialect, Arc<DialectMeters>>,
    hub: HubMeters,
}

#[derive(Clone, Debug, Default)]
struct Buses {
    requests: Family<LinkLabel, Counter>,
    timeouts: Family<LinkLabel, Counter>,
    bad_answers: Family<LinkLabel, Counter>,
    exceptions: Family<LinkLabel, Counter>,
    busy: Family<LinkLabel, Seconds>,
    behind: Family<LinkLabel, Span>,
    silent_units: Family<LinkLabel, Gauge>,
}

#[derive(Clone, Debug, Default)]
struct Brokers {
    received: Family<LinkLabel, Counter>,
    dropped: Family<DropLabel, Counter>,
    sent: Family<LinkLabel, Counter>,
    found: Family<LinkLabel, Gauge>,
    unwelcome: Family<LinkLabel, Counter>,
}

#[derive(Clone, Debug, Default)]
struct Dialects {
    sessions: Family<DialectLabel, Gauge>,
    opened: Family<DialectLabel, Counter>,
    delivered: Family<DialectLabel, Counter>,
    missed: Family<DialectLabel, Counter>,
    evicted: Family<DialectLabel, Counter>,
    commands: Family<OutcomeLabel, Counter>,
}

impl Dialects {
    fn of(&self, dialect: Dialect) -> DialectMeters {
        let label = DialectLabel { dialect: dialect.name() };
        DialectMeters {
            dialect: dialect.name(),
            sessions: self.sessions.get_or_create(&label).clone(),
            opened: self.opened.get_or_create(&label).clone(),
            delivered: self.delivered.get_or_create(&label).clone(),
            missed: self.missed.get_or_create(&label).clone(),
            evicted: self.evicted.get_or_create(&label).clone(),
            commands: self.commands.clone(),
        }
    }
}

impl Default for Meters {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("pentad");
        let (buses, brokers, dialects, hub) =
            (Buses::default(), Brokers::default(), Dialects::default(), HubMeters::default());
        let r = &mut registry;
        r.register("bus_requests", "Modbus requests put on the line", buses.requests.clone());
        r.register("bus_timeouts", "Modbus requests without an answer", buses.timeouts.clone());
        r.register(
            "bus_bad_answers",
            "Modbus answers that were damaged or foreign",
            buses.bad_answers.clone(),
        );
        r.register("bus_exceptions", "Modbus requests that a unit refused", buses.exceptions.clone());
        r.register("bus_busy_seconds", "Time with a request under way", buses.busy.clone());
        r.register(
            "bus_behind_seconds",
            "How long the reading that waits longest has been due",
            buses.behind.clone(),
        );
        r.register("bus_silent_units", "Units that are only probed", buses.silent_units.clone());
        r.register("mqtt_received", "Messages from the broker", brokers.received.clone());
        r.register(
            "mqtt_dropped",
            "Messages from and to the broker of which nothing became, by reason",
            brokers.dropped.clone(),
        );
        r.register("mqtt_sent", "Messages to the broker", brokers.sent.clone());
        r.register("mqtt_found_devices", "Devices that have appeared by themselves", brokers.found.clone());
        r.register(
            "mqtt_unwelcome",
            "Messages of devices that may not appear: too many, or a name that is taken",
            brokers.unwelcome.clone(),
        );
        r.register("sessions", "Open sessions", dialects.sessions.clone());
        r.register("sessions_opened", "Sessions opened", dialects.opened.clone());
        r.register("messages_delivered", "Device messages taken by sessions", dialects.delivered.clone());
        r.register("reports_missed", "Property reports that slow clients missed", dialects.missed.clone());
        r.register("sessions_evicted", "Sessions ended because of slow clients", dialects.evicted.clone());
        r.register("commands", "Commands by their outcome", dialects.commands.clone());
        r.register("hub_turns", "Turns of the hub's loop", hub.turns.clone());
        r.register("messages", "Device messages made", hub.messages.clone());
        r.register(
            "messages_unbalanced",
            "Messages that no group member had room for",
            hub.unbalanced.clone(),
        );
        r.register("messages_unkept", "Messages that the history had no room for", hub.unkept.clone());
        r.register("history_troubled", "Whether the history cannot be written", hub.history_troubled.clone());
        let by_dialect =
            Dialect::ALL.into_iter().map(|dialect| (dialect, Arc::new(dialects.of(dialect)))).collect();
        Self { registry, buses, brokers, by_dialect, hub }
    }
}

impl Meters {
    /// The counters of a bus.
    pub fn bus(&self, id: &str) -> LinkMeters {
        let (label, buses) = (LinkLabel { link: id.to_owned() }, &self.buses);
        let bus = BusMeters {
            requests: buses.requests.get_or_create(&label).clone(),
            timeouts: buses.timeouts.get_or_create(&label).clone(),
            bad_answers: buses.bad_answers.get_or_create(&label).clone(),
            exceptions: buses.exceptions.get_or_create(&label).clone(),
            busy: buses.busy.get_or_create(&label).clone(),
            behind: buses.behind.get_or_create(&label).clone(),
            silent_units: buses.silent_units.get_or_create(&label).clone(),
        };
        LinkMeters { bus, broker: BrokerMeters::default() }
    }

    /// The counters of a broker link.
    pub fn broker(&self, id: &str) -> LinkMeters {
        let (label, brokers) = (LinkLabel { link: id.to_owned() }, &self.brokers);
        let broker = BrokerMeters {
            received: brokers.received.get_or_create(&label).clone(),
            dropped: Dropped::ALL
                .map(|reason| brokers.dropped.get_or_create(&drop_label(id, reason)).clone()),
            sent: brokers.sent.get_or_create(&label).clone(),
            found: brokers.found.get_or_create(&label).clone(),
            unwelcome: brokers.unwelcome.get_or_create(&label).clone(),
        };
        LinkMeters { bus: BusMeters::default(), broker }
    }

    /// The counters of a dialect.
    pub fn dialect(&self, dialect: Dialect) -> Arc<DialectMeters> {
        self.by_dialect.get(&dialect).map(Arc::clone).unwrap_or_default()
    }

    /// The counters of the hub.
    pub fn hub(&self) -> HubMeters {
        self.hub.clone()
    }

    /// A link is no longer configured, or no broker any more: those lines go.
    pub fn forget_broker(&self, id: &str) {
        let (label, brokers) = (LinkLabel { link: id.to_owned() }, &self.brokers);
        for family in [&brokers.received, &brokers.sent, &brokers.unwelcome] {
            family.remove(&label);
        }
        for reason in Dropped::ALL {
            brokers.dropped.remove(&drop_label(id, reason));
        }
        brokers.found.remove(&label);
    }

    /// A link is no longer configured, or no bus any more: those lines go.
    pub fn forget_bus(&self, id: &str) {
        let (label, buses) = (LinkLabel { link: id.to_owned() }, &self.buses);
        for family in [&buses.requests, &buses.timeouts, &buses.bad_answers, &buses.exceptions] {
            family.remove(&label);
        }
        buses.busy.remove(&label);
        buses.behind.remove(&label);
        buses.silent_units.remove(&label);
    }

    /// Everything in the text form of Prometheus without its end line.
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing into a string cannot fail; what an encoder could not write is left out.
        if encode(&mut text, &self.registry).is_err() {
            text.clear();
        }
        named_by_samples(text.trim_end_matches("# EOF\n"))
    }
}

/// The encoder writes the later form, in which a counter's family has the name of its samples without `_total`. In the form
/// that every reader knows it has their whole name, and a reader that finds another one takes the samples for untyped.
fn named_by_samples(text: &str) -> String {
    let counter = |line: &str| Some(line.strip_prefix("# TYPE ")?.strip_suffix(" counter")?.to_owned());
    let counters: BTreeSet<String> = text.lines().filter_map(counter).collect();
    let mut named = String::with_capacity(text.len() + text.len() / 8);
    for line in text.lines() {
        let mut words = line.splitn(4, ' ');
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some("#"), Some(what), Some(name), Some(rest)) if counters.contains(name) => {
                named.extend(["# ", what, " ", name, "_total ", rest]);
            }
            _ => named.push_str(line),
        }
        named.push('\n');
    }
    named
}

fn drop_label(id: &str, reason: Dropped) -> DropLabel {
    DropLabel { link: id.to_owned(), reason: reason.name() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_is_told_by_link_and_dialect() {
        let meters = Meters::default();
        let bus = meters.bus("rs485").bus;
        bus.requests.inc_by(3);
        bus.busy.inc_by(0.25);
        meters.dialect(Dialect::Sagoo).settled(&Outcome::Busy);
        meters.hub().messages.inc();
        let text = meters.text();
        for line in [
            "pentad_bus_requests_total{link=\"rs485\"} 3",
            "pentad_bus_busy_seconds_total{link=\"rs485\"} 0.25",
            "# HELP pentad_bus_busy_seconds_total Time with a request under way.",
            "# TYPE pentad_bus_busy_seconds_total counter",
            "# TYPE pentad_bus_silent_units gauge",
            "pentad_commands_total{dialect=\"sagoo\",outcome=\"busy\"} 1",
            "pentad_messages_total 1",
        ] {
            assert!(text.lines().any(|each| each == line), "{line} is missing in\n{text}");
        }
        assert!(!text.contains("# EOF"), "more lines may follow");
    }

    #[test]
    fn a_link_that_is_gone_takes_its_lines_along() {
        let meters = Meters::default();
        meters.bus("rs485").bus.requests.inc();
        meters.broker("local").broker.received.inc();
        meters.forget_broker("rs485");
        assert!(meters.text().contains("rs485"), "{}", meters.text());
        meters.forget_bus("rs485");
        meters.forget_bus("local");
        assert!(!meters.text().contains("rs485"), "{}", meters.text());
        assert!(meters.text().contains("local"));
        meters.forget_broker("local");
        assert!(!meters.text().contains("local"), "{}", meters.text());
    }

    #[test]
    fn dropped_messages_are_told_by_reason_from_the_start() {
        let meters = Meters::default();
        let broker = meters.broker("local").broker;
        broker.drop_by(Dropped::TooLarge, 2);
        let text = meters.text();
        for (reason, count) in [("unmatched", 0), ("unreadable", 0), ("too_large", 2), ("queue_full", 0)] {
            let line = format!("pentad_mqtt_dropped_total{{link=\"local\",reason=\"{reason}\"}} {count}");
            assert!(text.lines().any(|each| each == line), "{line} is missing in\n{text}");
        }
    }
}
