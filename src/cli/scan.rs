//! `pentad scan`: what answers on a line, what it most likely is, and what a run of registers may mean.
//!
//! Standard output is the beginning of a configuration; what happens meanwhile is told on standard error.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use super::{SHIPPED_PRODUCTS, complain, run, say};
use crate::config::catalogue;
use crate::drivers::modbus::scan::meaning::meanings;
use crate::drivers::modbus::scan::starter::starter;
use crate::drivers::modbus::scan::{Found, ScanError, Scanner};
use crate::drivers::modbus::{
    BusSettings, ModbusDevice, Parity, Rs485, SerialFraming, SerialSettings, Target, TcpFraming, Turn,
    adapter,
};
use crate::proto::modbus::{Span, Table};

/// Port of Modbus TCP.
const MODBUS_PORT: u16 = 502;

/// How long a unit may take to answer that is looked for on a line. Devices answer a single register at once.
const LINE_TIMEOUT: u16 = 150;

/// The same on the network. Gateways wait for a dead unit themselves, mostly 0.5 to 1 s, and until that is over they let
/// the next request wait, so that a shorter time would make the live unit after a dead one look dead too.
const NETWORK_TIMEOUT: u16 = 1500;

/// Where to look, for what, and how.
#[derive(Debug, Args)]
pub(super) struct Scan {
    /// A serial port such as /dev/ttyUSB0, or host and perhaps port of a Modbus TCP device
    target: String,
    /// Unit addresses to try, as in 1-247 or 1,2,10-20
    #[arg(long, value_name = "UNITS", default_value = "1-247", value_parser = parse_units)]
    units: Units,
    /// Baud rates of the line to try
    #[arg(long, value_name = "RATES", value_delimiter = ',', default_values_t = [9600, 19_200])]
    baud: Vec<u32>,
    /// Parities of the line to try: none, even, odd
    #[arg(long, value_name = "PARITIES", value_delimiter = ',', default_value = "none,even", value_parser = parse_parity)]
    parity: Vec<Parity>,
    /// Stop bits of the line
    #[arg(long, value_name = "BITS", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=2))]
    stop_bits: u8,
    /// rtu or ascii on a serial line, tcp or rtu on the network; default: rtu on a line, else tcp
    #[arg(long, value_name = "FRAMING", value_parser = ["rtu", "ascii", "tcp"])]
    framing: Option<String>,
    /// Data bits of the line; default: 7 with ascii, else 8
    #[arg(long, value_name = "BITS", value_parser = clap::value_parser!(u8).range(7..=8))]
    data_bits: Option<u8>,
    /// Who turns an RS-485 transceiver round: off (the adapter itself), kernel, or rts (RTS is high while sending)
    #[arg(long, value_name = "BY", default_value = "off", value_parser = ["off", "kernel", "rts"])]
    rs485: String,
    /// Milliseconds that a unit may take to answer; default: 150 on a line, 1500 on the network
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u16).range(10..=10_000))]
    timeout: Option<u16>,
    /// The folder with the products to compare with
    #[arg(long, value_name = "DIR", default_value = SHIPPED_PRODUCTS)]
    products: PathBuf,
    /// Read a run of registers instead and tell what it may mean, as in 1:input:0+8
    #[arg(long, value_name = "UNIT:TABLE:ADDRESS+COUNT", value_parser = parse_place)]
    decode: Option<Place>,
    /// What the device shows at this moment, to find it in that run
    #[arg(long, value_name = "NUMBER", requires = "decode", allow_negative_numbers = true)]
    expect: Option<f64>,
}

/// Unit addresses in the order given.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Units(Vec<u8>);

/// A run of registers of one unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    unit: u8,
    span: Span,
}

pub(super) fn scan(scan: &Scan) -> ExitCode {
    let buses = match scan.buses() {
        Ok(buses) => buses,
        Err(words) => {
            complain(&words);
            return ExitCode::from(super::USAGE);
        }
    };
    run::with_runtime(async {
        let done = match scan.decode {
            Some(place) => decode(&buses, place, scan.expect).await,
            None => find(scan, &buses).await,
        };
        match done {
            Ok(text) => say(text.trim_end()),
            Err(error) => {
                complain(&error.to_string());
                ExitCode::FAILURE
            }
        }
    })
}

/// Looks with each setting of the line, and gives the configuration for the one that most units answer to. What was found
/// counts, whatever happens to the port afterwards.
async fn find(scan: &Scan, buses: &[BusSettings]) -> Result<String, ScanError> {
    let products = catalogue(&scan.products);
    if products.is_empty() {
        complain(&format!("no products to compare with in {}", scan.products.display()));
    }
    let mut best: Option<(&BusSettings, Vec<Found>)> = None;
    let mut trouble: Option<ScanError> = None;
    for settings in buses {
        let mut found = Vec::new();
        let ended = find_units(settings, &scan.units.0, &products, &mut found).await;
        if best.as_ref().is_none_or(|(_, known)| known.len() < found.len()) {
            best = Some((settings, found));
        }
        let Err(error) = ended else { continue };
        // A port that is missing or in use is so with every setting.
        if trouble.as_ref().is_none_or(|known| known.to_string() != error.to_string()) {
            complain(&format!("{}: {error}", show(settings)));
        }
        trouble = Some(error);
    }
    match (best, trouble) {
        (Some((settings, found)), trouble) if !found.is_empty() => {
            if trouble.is_some() {
                complain("not everything could be looked at; this is what was found");
            }
            let stable = adapter::stable_name(Path::new(&scan.target), Path::new(adapter::BY_ID));
            Ok(starter(settings, stable.as_ref().and_then(|path| path.to_str()), &found))
        }
        (_, Some(trouble)) => Err(trouble),
        (_, None) => Err(ScanError::Open(
            "no unit answered; check the wiring (A and B swapped?), --baud, --parity, --units, --timeout and --rs485"
                .to_owned(),
        )),
    }
}

/// Looks with one setting. What it adds to `found` holds also when it cannot go on.
async fn find_units(
    settings: &BusSettings,
    units: &[u8],
    products: &[ModbusDevice],
    found: &mut Vec<Found>,
) -> Result<(), ScanError> {
    let mut scanner = Scanner::open(settings).await?;
    let network = matches!(settings.target, Target::Tcp { .. });
    let line = show(settings);
    if network && units.len() > 1 && scanner.answers_for_all().await? {
        complain(&format!("{line}: answers whatever the unit; taken for a single device"));
        found.extend(scanner.look(units.first().copied().unwrap_or(1), products).await?);
        return Ok(());
    }
    for (tried, unit) in (0_usize..).zip(units) {
        if tried % 50 == 0 {
            complain(&format!("{line}: looking for units from {unit}"));
        }
        let looked = scanner.look(*unit, products).await?;
        if let Some(reason) = scanner.take_loss() {
            complain(&format!("{line}: the port was lost at unit {unit} and opened again: {reason}"));
        }
        if let Some(unit) = looked {
            let what = unit.matches.first().map_or("unknown", |best| &*best.product);
            complain(&format!("{line}: unit {} answers: {what} {}", unit.unit, unit.says.join(", ")));
            found.push(unit);
        }
    }
    Ok(())
}

/// Reads a run and lists what it may mean.
async fn decode(buses: &[BusSettings], place: Place, expected: Option<f64>) -> Result<String, ScanError> {
    let mut last = ScanError::Open("no setting of the line to try".to_owned());
    for settings in buses {
        let read = async { Scanner::open(settings).await?.read(place.unit, place.span).await };
        match read.await {
            Ok(words) => return Ok(meaning_lines(place.span, &words, expected)),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn meaning_lines(span: Span, words: &[u16], expected: Option<f64>) -> String {
    let raw: Vec<String> = words.iter().map(|word| format!("{word:04X}")).collect();
    let mut lines = vec![format!("# {span}: {}", raw.join(" "))];
    let table = if span.table() == Table::Input { "input" } else { "holding" };
    let found = meanings(words, expected);
    for meaning in &found {
        let address = u32::from(span.address()) + u32::from(meaning.offset);
        lines.push(format!(
            "modbus = {{ table = \"{table}\", address = {address}, {meaning} }} # {}",
            rounded(meaning.value)
        ));
    }
    if found.is_empty() {
        lines.push(
            "# nothing here looks like it; try other addresses, one more or less, or the other table"
                .to_owned(),
        );
    }
    lines.join("\n")
}

/// With as many digits as anybody compares.
fn rounded(value: f64) -> String {
    let text = format!("{value:.4}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

impl Scan {
    /// Every setting of the line to try, or the endpoint.
    fn buses(&self) -> Result<Vec<BusSettings>, String> {
        let network = !self.target.starts_with('/');
        let timeout = self.timeout.unwrap_or(if network { NETWORK_TIMEOUT } else { LINE_TIMEOUT });
        let bus = |target| BusSettings {
            id: "scan".into(),
            target,
            timeout: Duration::from_millis(timeout.into()),
            pause: Duration::ZERO,
            pause_after_connect: Duration::ZERO,
        };
        let framing = self.framing.as_deref();
        if self.target.trim().is_empty() {
            return Err(
                "give a serial port such as /dev/ttyUSB0, or the host of a Modbus TCP device".to_owned()
            );
        }
        if network && Path::new("/dev").join(&self.target).exists() {
            return Err(format!("{0} is taken for a host; did you mean /dev/{0}?", self.target));
        }
        if network {
            if framing == Some("ascii") {
                return Err("ascii is a framing of serial lines".to_owned());
            }
            let framing = if framing == Some("rtu") { TcpFraming::Rtu } else { TcpFraming::Tcp };
            let address = match self.target.rsplit_once(':') {
                Some((_, port)) if port.parse::<u16>().is_ok() => self.target.clone(),
                _ => format!("{}:{MODBUS_PORT}", self.target),
            };
            let target = Target::Tcp { socket: address.parse().ok(), address: address.into(), framing };
            return Ok(vec![bus(target)]);
        }
        if framing == Some("tcp") {
            return Err("tcp is a framing of the network, not of a serial line".to_owned());
        }
        let ascii = framing == Some("ascii");
        // Seven is what the standard wants of ASCII, and too few for the bytes of RTU.
        let data_bits = self.data_bits.unwrap_or(if ascii { 7 } else { 8 });
        if data_bits == 7 && !ascii {
            return Err("the bytes of rtu do not fit in 7 bits; use --framing ascii".to_owned());
        }
        let by = match &*self.rs485 {
            "kernel" => Some(Turn::Kernel),
            "rts" => Some(Turn::Rts),
            _ => None,
        };
        let rs485 = by.map(|by| Rs485 { by, high: true, before: Duration::ZERO, after: Duration::ZERO });
        let mut buses = Vec::new();
        for baud_rate in &self.baud {
            for parity in &self.parity {
                let serial = SerialSettings {
                    data_bits,
                    parity: *parity,
                    rs485,
                    stop_bits: self.stop_bits,
                    framing: if ascii { SerialFraming::Ascii } else { SerialFraming::Rtu },
                    ..SerialSettings::at(&self.target, *baud_rate)
                };
                buses.push(bus(Target::Serial(serial)));
            }
        }
        Ok(buses)
    }
}

/// The line in words.
fn show(settings: &BusSettings) -> String {
    match &settings.target {
        Target::Serial(serial) => {
            let parity = match serial.parity {
                Parity::None => 'N',
                Parity::Even => 'E',
                Parity::Odd => 'O',
            };
            format!("{} {}{parity}{}", serial.baud_rate, serial.data_bits, serial.stop_bits)
        }
        Target::Tcp { address, .. } => address.to_string(),
    }
}

fn parse_units(text: &str) -> Result<Units, String> {
    const WORDS: &str = "give unit addresses from 0 to 255, as in 1-247 or 1,2,10-20";
    let mut units = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let range: RangeInclusive<u8> =
            first.trim().parse().map_err(|_| WORDS)?..=last.trim().parse().map_err(|_| WORDS)?;
        if range.is_empty() {
            return Err(WORDS.to_owned());
        }
        units.extend(range);
    }
    Ok(Units(units))
}

fn parse_parity(text: &str) -> Result<Parity, String> {
    match text {
        "none" => Ok(Parity::None),
        "even" => Ok(Parity::Even),
        "odd" => Ok(Parity::Odd),
        _ => Err("give none, even or odd".to_owned()),
    }
}

fn parse_place(text: &str) -> Result<Place, String> {
    let parse = || {
        let mut parts = text.splitn(3, ':');
        let unit = parts.next()?.parse().ok()?;
        let table = match parts.next()? {
            "input" => Table::Input,
            "holding" => Table::Holding,
            _ => return None,
        };
        let (address, count) = parts.next()?.split_once('+')?;
        Some(Place { unit, span: Span::new(table, address.parse().ok()?, count.parse().ok()?)? })
    };
    parse().ok_or_else(|| {
        "give unit, table (input or holding), address and count of at most 125, as in 1:input:0+8".to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_numbers_and_ranges() {
        assert_eq!(parse_units("1,5-7"), Ok(Units(vec![1, 5, 6, 7])));
        for wrong in ["", "a", "7-5", "1-256", "1,,2"] {
            assert!(parse_units(wrong).is_err(), "{wrong}");
        }
    }

    fn settings(arguments: &[&str]) -> Result<Vec<BusSettings>, String> {
        #[derive(Debug, clap::Parser)]
        struct Line {
            #[command(flatten)]
            scan: Scan,
        }
        let line = <Line as clap::Parser>::try_parse_from([&["scan"][..], arguments].concat());
        line.map_err(|error| error.to_string())?.scan.buses()
    }

    #[test]
    fn a_unit_behind_the_network_has_longer_to_answer_unless_it_is_told() {
        for (arguments, expected) in [
            (&["/dev/ttyUSB0"][..], 150),
            (&["192.0.2.1"], 1500),
            (&["192.0.2.1", "--framing", "rtu"], 1500),
            (&["192.0.2.1", "--timeout", "150"], 150),
            (&["/dev/ttyUSB0", "--timeout", "700"], 700),
        ] {
            let timeouts: Vec<u128> =
                settings(arguments).unwrap().iter().map(|bus| bus.timeout.as_millis()).collect();
            assert!(timeouts.iter().all(|timeout| *timeout == expected), "{arguments:?}: {timeouts:?}");
        }
    }

    #[test]
    fn an_ascii_line_has_seven_bits_and_a_transceiver_is_turned_as_wanted() {
        let serial = |arguments: &[&str]| {
            let buses = settings(&[&["/dev/ttyUSB0", "--parity", "even"][..], arguments].concat()).unwrap();
            let Target::Serial(serial) = buses[0].target.clone() else { panic!("{buses:?}") };
            (serial.data_bits, serial.rs485.map(|rs485| (rs485.by, rs485.high)), show(&buses[0]))
        };
        let line = |text: &str| text.to_owned();
        assert_eq!(serial(&[]), (8, None, line("9600 8E1")));
        assert_eq!(serial(&["--framing", "ascii"]), (7, None, line("9600 7E1")));
        assert_eq!(serial(&["--framing", "ascii", "--data-bits", "8"]).0, 8);
        assert_eq!(serial(&["--rs485", "kernel"]).1, Some((Turn::Kernel, true)));
        assert_eq!(serial(&["--rs485", "rts"]).1, Some((Turn::Rts, true)));
        for wrong in [&["/dev/ttyUSB0", "--data-bits", "7"][..], &["/dev/ttyUSB0", "--rs485", "on"]] {
            assert!(settings(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_place_names_unit_table_address_and_count() {
        let span = Span::new(Table::Input, 12, 4).unwrap();
        assert_eq!(parse_place("3:input:12+4"), Ok(Place { unit: 3, span }));
        for wrong in ["3:coil:1+1", "3:input:1", "3:input:1+0", "3:input:1+126", "300:input:1+1", "input:1+1"]
        {
            assert!(parse_place(wrong).is_err(), "{wrong}");
        }
    }
}
