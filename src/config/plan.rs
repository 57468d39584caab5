//! How busy each bus will be: pure arithmetic from what is configured, before a single byte is sent.
//!
//! Reads are grouped by the same function that the driver groups them by. Two loads are told apart: what the wire
//! itself takes, which no device can undercut, and what is to be expected when devices need a typical time to answer.
//! A bus that the first one overfills is refused; one that the second one nearly fills is warned of.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::Bus;
use super::scalar::show_duration;
use crate::drivers::modbus::{BusSettings, ModbusDevice, Target};
use crate::proto::modbus::plan::{Limits, group};
use crate::proto::modbus::timing::LineTiming;

/// What devices typically take from the end of a request to the start of their answer. Meters and controllers are
/// found between 2 and 20 ms; a device that is slower only makes the real load higher than the expected one.
const TURNAROUND: Duration = Duration::from_millis(5);

/// Above this there is no room for writes and repeated requests, and cycles begin to stretch.
pub(super) const BUSY: f64 = 80.0;

/// Intervals that a person would choose, for the advice.
const ROUND_MILLIS: [u64; 17] = [
    50, 100, 200, 500, 1000, 2000, 5000, 10_000, 15_000, 20_000, 30_000, 60_000, 120_000, 300_000, 600_000,
    1_800_000, 3_600_000,
];

/// Rates that most devices can be set to, for the advice.
const BAUD_RATES: [u32; 7] = [9600, 19_200, 38_400, 57_600, 115_200, 230_400, 460_800];

/// The plan of every bus. Its `Display` is a table for people.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// In configuration order.
    pub buses: Vec<BusPlan>,
}

/// The plan of one bus.
#[derive(Clone, Debug, PartialEq)]
pub struct BusPlan {
    /// Its id.
    pub bus: Arc<str>,
    /// Bits per second; `None` over TCP, where nothing is known of the wire.
    pub baud_rate: Option<u32>,
    /// One entry for each interval that something is read in, the shortest first.
    pub cycles: Vec<Cycle>,
}

/// What is read in one interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cycle {
    /// The interval.
    pub every: Duration,
    /// Reads that it takes.
    pub requests: u32,
    /// How long the line is occupied by them: characters and silences.
    pub wire: Duration,
    /// How long they take with devices that answer in a typical time, and with the configured pauses.
    pub expected: Duration,
}

impl Plan {
    pub(super) fn of(buses: &[Bus]) -> Self {
        Self { buses: buses.iter().map(|bus| BusPlan::of(&bus.settings, &bus.devices, None)).collect() }
    }
}

impl BusPlan {
    fn of(settings: &BusSettings, devices: &[ModbusDevice], gap: Option<u16>) -> Self {
        let (timing, baud_rate) = match &settings.target {
            Target::Serial(serial) => (serial.timing(), Some(serial.baud_rate)),
            Target::Tcp { .. } => (LineTiming::instant(), None),
        };
        let mut cycles: Vec<Cycle> = Vec::new();
        for device in devices {
            for every in intervals(device) {
                let own = device.map.limits();
                let limits = Limits { max_gap: gap.unwrap_or(own.max_gap), ..own };
                let groups = group(spans(device, every), limits);
                let requests = u32::try_from(groups.len()).unwrap_or(u32::MAX);
                let wire: Duration = groups.iter().map(|group| timing.read_turn(group.span())).sum();
                let pause = settings.pause.max(device.map.pause);
                let expected = wire + (TURNAROUND + pause).saturating_mul(requests);
                match cycles.iter_mut().find(|cycle| cycle.every == every) {
                    Some(cycle) => {
                        cycle.requests += requests;
                        cycle.wire += wire;
                        cycle.expected += expected;
                    }
                    None => cycles.push(Cycle { every, requests, wire, expected }),
                }
            }
        }
        cycles.sort_by_key(|cycle| cycle.every);
        Self { bus: Arc::clone(&settings.id), baud_rate, cycles }
    }

    /// Percent of the time that the bus is expected to be busy with reading.
    pub fn utilisation(&self) -> f64 {
        self.cycles.iter().map(Cycle::utilisation).fold(0.0, |sum, part| sum + part)
    }

    /// Percent of the time that the wire is occupied, however fast the devices answer.
    pub fn wire_utilisation(&self) -> f64 {
        self.cycles.iter().map(|cycle| percent(cycle.wire, cycle.every)).fold(0.0, |sum, part| sum + part)
    }

    /// How often a cycle really comes round: its interval, or longer where the bus is overfull.
    pub fn expected_cycle(&self, cycle: &Cycle) -> Duration {
        cycle.every.mul_f64((self.utilisation() / 100.0).max(1.0))
    }
}

impl Cycle {
    /// Percent of the time that the bus is expected to be busy with this cycle.
    pub fn utilisation(&self) -> f64 {
        percent(self.expected, self.every)
    }
}

/// What would bring a busy bus below its limit, cheapest first: joined reads cost nothing, a longer interval costs
/// freshness, another baud rate means a walk to every device.
pub(super) fn remedy(bus: &Bus, plan: &BusPlan) -> String {
    let settings = &bus.settings;
    let relieved = |gap: u16| BusPlan::of(settings, &bus.devices, Some(gap)).utilisation();
    if let Some(gap) = [16, 32, 64, 124].into_iter().find(|gap| relieved(*gap) <= BUSY) {
        return format!("max_gap = {gap} in its products' [product.modbus] makes it {:.0} %", relieved(gap));
    }
    let heaviest = plan.cycles.iter().max_by(|one, other| one.utilisation().total_cmp(&other.utilisation()));
    if let Some(heaviest) = heaviest {
        let others = plan.utilisation() - heaviest.utilisation();
        let total = |every: Duration| others + percent(heaviest.expected, every);
        let mut longer = ROUND_MILLIS.into_iter().map(Duration::from_millis);
        if let Some(every) = longer.find(|every| *every > heaviest.every && total(*every) <= BUSY) {
            let (now, then) = (show_duration(heaviest.every), show_duration(every));
            return format!("reading every {then} what is read every {now} makes it {:.0} %", total(every));
        }
    }
    if let Target::Serial(serial) = &settings.target {
        let faster = |baud_rate: u32| {
            let target =
                Target::Serial(crate::drivers::modbus::SerialSettings { baud_rate, ..serial.clone() });
            BusPlan::of(&BusSettings { target, ..settings.clone() }, &bus.devices, None).utilisation()
        };
        let rate = BAUD_RATES.into_iter().find(|rate| *rate > serial.baud_rate && faster(*rate) <= BUSY);
        if let Some(rate) = rate {
            return format!("baud_rate = {rate}, here and in its devices, makes it {:.0} %", faster(rate));
        }
    }
    "move some of its devices to another bus".to_owned()
}

/// The intervals that something of the device is read in.
fn intervals(device: &ModbusDevice) -> Vec<Duration> {
    let mut intervals: Vec<Duration> = polled(device).map(|(_, point)| point.every).collect();
    intervals.sort_unstable();
    intervals.dedup();
    intervals
}

fn spans(
    device: &ModbusDevice,
    every: Duration,
) -> impl Iterator<Item = (usize, crate::proto::modbus::Span)> + use<'_> {
    polled(device)
        .filter(move |(_, point)| point.every == every)
        .filter_map(|(at, point)| Some((at, point.span()?)))
}

fn polled(device: &ModbusDevice) -> impl Iterator<Item = (usize, &crate::drivers::modbus::map::Point)> {
    let readable = |at: usize| device.device.product.properties.get(at).is_some_and(|p| p.access.readable());
    device
        .map
        .properties
        .iter()
        .enumerate()
        .filter_map(|(at, point)| Some((at, point.as_ref()?)))
        .filter(move |(at, _)| readable(*at))
}

fn percent(time: Duration, every: Duration) -> f64 {
    if every.is_zero() { 0.0 } else { 100.0 * time.as_secs_f64() / every.as_secs_f64() }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let heading = ["bus", "line", "every", "requests", "wire time", "utilisation", "expected cycle"];
        let mut rows = vec![heading.map(str::to_owned)];
        for bus in &self.buses {
            rows.extend(bus.rows());
        }
        let width = |column: usize| {
            rows.iter()
                .filter_map(|row| row.get(column))
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or_default()
        };
        for (at, row) in rows.iter().enumerate() {
            let mut line = String::new();
            for (column, cell) in row.iter().enumerate() {
                // Names to the left, numbers to the right.
                let cell = match column {
                    0 | 1 => format!("{cell:<0$}  ", width(column)),
                    _ => format!("{cell:>0$}  ", width(column)),
                };
                line.push_str(&cell);
            }
            let end = if at + 1 == rows.len() { "" } else { "\n" };
            write!(f, "{}{end}", line.trim_end())?;
        }
        Ok(())
    }
}

impl BusPlan {
    fn rows(&self) -> Vec<[String; 7]> {
        let line = self.baud_rate.map_or_else(|| "network".to_owned(), |rate| format!("{rate} baud"));
        let wire = |cycle: &Cycle| match self.baud_rate {
            Some(_) => format!("{:.1} ms", cycle.wire.as_secs_f64() * 1000.0),
            None => "-".to_owned(),
        };
        let mut rows: Vec<[String; 7]> = Vec::new();
        for cycle in &self.cycles {
            let first = rows.is_empty();
            rows.push([
                if first { self.bus.to_string() } else { String::new() },
                if first { line.clone() } else { String::new() },
                show_duration(cycle.every),
                cycle.requests.to_string(),
                wire(cycle),
                format!("{:.1} %", cycle.utilisation()),
                format!("{:.1} s", self.expected_cycle(cycle).as_secs_f64()),
            ]);
        }
        let total = format!("{:.1} %", self.utilisation());
        let nothing = String::new;
        match rows.len() {
            0 => rows.push([
                self.bus.to_string(),
                line,
                "-".to_owned(),
                "0".to_owned(),
                nothing(),
                total,
                nothing(),
            ]),
            1 => {}
            _ => rows.push([
                nothing(),
                "together".to_owned(),
                nothing(),
                self.cycles.iter().map(|cycle| cycle.requests).sum::<u32>().to_string(),
                nothing(),
                total,
                nothing(),
            ]),
        }
        rows
    }
}

#[cfg(test)]
mod tests {
    use crate::config::{Loaded, Source, resolve};

    use super::*;

    /// Two units, each with two registers every second and one coil every five.
    const PLANT: &str = r#"
        [gateway]
        id = "g"
        [[serial]]
        id = "line"
        port = "/dev/ttyUSB0"
        baud_rate = 9600
        parity = "even"
        pause = "10ms"
        [[serial]]
        id = "idle"
        port = "/dev/ttyUSB1"
        [[device]]
        id = "one"
        product = "p"
        bus = "line"
        unit = 1
        [[device]]
        id = "two"
        product = "p"
        bus = "line"
        unit = 2
        [[product]]
        id = "p"
        property = [
            { id = "a", type = "int", modbus = { table = "holding", address = 0, type = "u16", every = "1s" } },
            { id = "b", type = "int", modbus = { table = "holding", address = 9, type = "u16", every = "1s" } },
            { id = "c", type = "bool", modbus = { table = "coil", address = 0, every = "5s" } },
            { id = "d", type = "int", access = "w", modbus = { table = "holding", address = 20, type = "u16" } },
        ]
        [[client]]
        id = "c"
        secret = "long-enough-secret"
    "#;

    fn plan(text: &str) -> Plan {
        let source = Source { name: "pentad.toml".into(), text: text.to_owned() };
        let loaded: Loaded = resolve(&[source]).unwrap_or_else(|problems| panic!("{problems}"));
        loaded.plan
    }

    #[test]
    fn a_cycle_counts_characters_silences_answers_and_pauses() {
        let plan = plan(PLANT);
        let cycles = &plan.buses[0].cycles;
        // One read of ten registers: 8 characters out, 25 back, twice 3.5 of silence, of 11 bits each at 9600 baud.
        let read = Duration::from_nanos(40 * 11 * 1_000_000_000 / 9600);
        let close = |one: Duration, other: Duration| one.abs_diff(other) < Duration::from_micros(1);
        assert_eq!((cycles[0].every, cycles[0].requests), (Duration::from_secs(1), 2));
        assert!(close(cycles[0].wire, read * 2), "{:?}", cycles[0].wire);
        assert!(
            close(cycles[0].expected, (read + Duration::from_millis(15)) * 2),
            "{:?}",
            cycles[0].expected
        );
        assert_eq!((cycles[1].every, cycles[1].requests), (Duration::from_secs(5), 2));
    }

    #[test]
    fn what_is_only_written_costs_nothing() {
        let without =
            PLANT.lines().filter(|line| !line.contains("id = \"d\"")).collect::<Vec<_>>().join("\n");
        assert_eq!(plan(PLANT), plan(&without));
    }

    #[test]
    fn an_overfull_bus_comes_round_late() {
        let cycle =
            |expected| Cycle { every: Duration::from_secs(1), requests: 1, wire: Duration::ZERO, expected };
        let bus = |expected| BusPlan { bus: "b".into(), baud_rate: None, cycles: vec![cycle(expected)] };
        for (expected, comes_round) in [(500, 1000), (1000, 1000), (1500, 1500)] {
            let bus = bus(Duration::from_millis(expected));
            assert_eq!(bus.expected_cycle(&bus.cycles[0]), Duration::from_millis(comes_round));
        }
    }

    #[test]
    fn the_table_has_a_row_for_each_interval_and_one_for_an_idle_bus() {
        let expected = "\
bus   line       every  requests  wire time  utilisation  expected cycle
line  9600 baud     1s         2    91.7 ms       12.2 %           1.0 s
                    5s         2    48.1 ms        1.6 %           5.0 s
      together                 4                  13.7 %
idle  9600 baud      -         0                   0.0 %";
        assert_eq!(plan(PLANT).to_string(), expected);
    }
}
