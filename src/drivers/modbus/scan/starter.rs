//! What was found, as the beginning of a configuration. Pure.

use std::fmt::Write as _;

use super::{Found, Match};
use crate::drivers::modbus::{BusSettings, Parity, SerialFraming, Target, TcpFraming, Turn};
use crate::proto::modbus::Table;

/// Text that `pentad check` takes: the bus, and a device for each unit. `name` is the port's stable name, if it has one.
pub fn starter(settings: &BusSettings, name: Option<&str>, found: &[Found]) -> String {
    let mut text = String::new();
    // A string takes everything.
    write_all(&mut text, settings, name, found).map(|()| text).unwrap_or_default()
}

fn write_all(
    text: &mut String,
    settings: &BusSettings,
    name: Option<&str>,
    found: &[Found],
) -> std::fmt::Result {
    writeln!(text, "[gateway]\nid = \"gateway-1\"\n")?;
    match &settings.target {
        Target::Serial(serial) => {
            let port = name.unwrap_or(&serial.path);
            writeln!(text, "[[serial]]\nid = \"line-1\"\nport = {port:?}\nbaud_rate = {}", serial.baud_rate)?;
            if serial.framing == SerialFraming::Ascii {
                writeln!(text, "framing = \"ascii\"\ndata_bits = {}", serial.data_bits)?;
            }
            let parity = match serial.parity {
                Parity::None => "none",
                Parity::Even => "even",
                Parity::Odd => "odd",
            };
            writeln!(text, "parity = \"{parity}\"\nstop_bits = {}", serial.stop_bits)?;
            if let Some(rs485) = &serial.rs485 {
                let by = if rs485.by == Turn::Kernel { "kernel" } else { "rts" };
                writeln!(text, "rs485 = \"{by}\"")?;
            }
        }
        Target::Tcp { address, framing, .. } => {
            writeln!(text, "[[modbus_tcp]]\nid = \"line-1\"\naddress = {address:?}")?;
            if *framing == TcpFraming::Rtu {
                writeln!(text, "framing = \"rtu\"")?;
            }
        }
    }
    for unit in found {
        writeln!(text)?;
        write_unit(text, unit)?;
    }
    Ok(())
}

fn write_unit(text: &mut String, found: &Found) -> std::fmt::Result {
    let unit = found.unit;
    for says in &found.says {
        writeln!(text, "# unit {unit} says: {says}")?;
    }
    let mut matches = found.matches.iter();
    let Some(best) = matches.next() else { return write_unknown(text, found) };
    if let Some(by) = &best.by {
        writeln!(text, "# recognised as {} by {by}", best.product)?;
    } else {
        write_guess(text, best)?;
    }
    let others: Vec<&str> = matches.map(|other| &*other.product).take(5).collect();
    if !others.is_empty() {
        writeln!(text, "# it could also be {}", others.join(", "))?;
    }
    let product = &best.product;
    writeln!(text, "[[device]]\nid = \"unit-{unit}\"\nproduct = {product:?}\nbus = \"line-1\"\nunit = {unit}")
}

/// A product that was not recognised, but whose values make sense.
fn write_guess(text: &mut String, best: &Match) -> std::fmt::Result {
    let example = best.example.as_ref().map_or_else(String::new, |example| format!(", {example}"));
    writeln!(text, "# {} of {} values fit {}{example}", best.good, best.of, best.product)
}

/// A unit that is no known product, with the registers that it did show.
fn write_unknown(text: &mut String, found: &Found) -> std::fmt::Result {
    let unit = found.unit;
    let shown: Vec<(&str, u16)> = found
        .tables
        .iter()
        .filter_map(|(table, word)| {
            Some((if *table == Table::Input { "input" } else { "holding" }, *word.as_ref().ok()?))
        })
        .collect();
    if shown.is_empty() {
        let refusals: Vec<String> = found
            .tables
            .iter()
            .filter_map(|(table, word)| Some(format!("{} 0: {}", table.name(), word.as_ref().err()?)))
            .collect();
        return writeln!(
            text,
            "# unit {unit} is there, but shows nothing at address 0 ({})",
            refusals.join(", ")
        );
    }
    writeln!(
        text,
        "# unit {unit} is none of the known products; see its manual, and try pentad scan --decode"
    )?;
    writeln!(text, "[[product]]\nid = \"unit-{unit}\"")?;
    for (table, word) in shown {
        writeln!(
            text,
            "[[product.property]]\nid = \"{table}_0\"\ntype = \"int\"\n\
             modbus = {{ table = \"{table}\", address = 0, type = \"u16\" }} # {word} now"
        )?;
    }
    writeln!(
        text,
        "\n[[device]]\nid = \"unit-{unit}\"\nproduct = \"unit-{unit}\"\nbus = \"line-1\"\nunit = {unit}"
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::drivers::modbus::{Rs485, SerialSettings};

    #[test]
    fn a_line_is_written_as_it_was_looked_at() {
        let rs485 = Some(Rs485 { by: Turn::Rts, high: true, before: Duration::ZERO, after: Duration::ZERO });
        let framing = SerialFraming::Ascii;
        let serial =
            SerialSettings { framing, data_bits: 7, rs485, ..SerialSettings::at("/dev/ttyAMA0", 9600) };
        let settings = BusSettings {
            id: "scan".into(),
            target: Target::Serial(serial),
            timeout: Duration::ZERO,
            pause: Duration::ZERO,
            pause_after_connect: Duration::ZERO,
        };
        let text = starter(&settings, None, &[]);
        for line in ["framing = \"ascii\"", "data_bits = 7", "parity = \"none\"", "rs485 = \"rts\""] {
            assert!(text.lines().any(|each| each == line), "{line} in {text}");
        }
    }
}
