//! Finds the units of a line or an endpoint, and what they most likely are. Only reads are sent.
//!
//! Takes the port like a bus does, lock and all, so a port that is in use is refused. A port that is lost is opened again once
//! for each request: some peers hang up instead of refusing. Pure parts: what is plausible for
//! which product (`plausible.rs`), by what a product is known for sure (`mark.rs`), what a run of registers may mean (`meaning.rs`), what to configure (`starter.rs`).

use super::job::{grouped, samples};
use super::map::{Mark, Point};
use super::port::Port;
use super::recorder::Recorder;
use super::wire::{Fault, Wire};
use super::{BusSettings, ModbusDevice, Target};
use crate::clock;
use crate::drivers::Sample;
use crate::model::value::ValueType;
use crate::proto::modbus::frame::{Answer, Request};
use crate::proto::modbus::late::Debts;
use crate::proto::modbus::{Span, Table};
use crate::report::Chain;

mod mark;
pub mod meaning;
pub mod plausible;
pub mod starter;

pub use plausible::Match;

/// Reads of one product before it is judged: enough to tell meters apart, few enough that a hundred products can be
/// tried on one unit.
const READS_OF_A_PRODUCT: usize = 3;

/// Units that hardly anybody sets. An endpoint at which both answer answers whatever the unit.
const IMPROBABLE: [u8; 2] = [213, 214];

/// One unit that answers.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// Its address.
    pub unit: u8,
    /// What it says of itself, if it does: maker, product, version.
    pub says: Vec<String>,
    /// What it answered to the first read of each table: the register's content, or the refusal in words.
    pub tables: Vec<(Table, Result<u16, String>)>,
    /// Products that it may be, the most likely first.
    pub matches: Vec<Match>,
}

/// A way to the units that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    /// The port is missing or in use, or nobody listens.
    #[error("{0}")]
    Open(String),
    /// It was open and is lost.
    #[error("the port was lost: {0}")]
    Lost(String),
    /// The unit does not answer, or refuses.
    #[error("unit {unit}: {reason}")]
    Unit {
        /// Which one.
        unit: u8,
        /// In words.
        reason: String,
    },
}

/// What the signs of a product say of a unit.
enum Known {
    /// It is one, by these signs.
    Is(String),
    /// It shows something else there.
    IsNot,
    /// The product names no sign, or the unit does not show it.
    Unsaid,
}

/// An open line.
#[derive(Debug)]
pub struct Scanner {
    settings: BusSettings,
    /// `None` while the port is opened again, and when that has failed.
    wire: Option<Wire>,
    /// Requests that may still be answered on a serial line, while its port is closed.
    debts: Option<Debts>,
    /// Why the port was lost, until somebody takes it.
    loss: Option<String>,
}

impl Scanner {
    /// Opens the port or connects.
    pub async fn open(settings: &BusSettings) -> Result<Self, ScanError> {
        let mut scanner = Self { settings: settings.clone(), wire: None, debts: None, loss: None };
        scanner.wire().await?;
        Ok(scanner)
    }

    /// Why the port was lost since the last call, if it was. It is open again.
    pub fn take_loss(&mut self) -> Option<String> {
        self.loss.take()
    }

    /// The open port; opens it where it is not.
    async fn wire(&mut self) -> Result<&mut Wire, ScanError> {
        let wire = if let Some(wire) = self.wire.take() {
            wire
        } else {
            let port = Port::open(&self.settings.target).await;
            let port = port.map_err(|error| ScanError::Open(Chain(&error).to_string()))?;
            let recorder = Recorder::new(&self.settings, None);
            Wire::new(port, &self.settings, self.debts.take(), recorder, clock::instant())
        };
        Ok(self.wire.insert(wire))
    }

    /// Closes a port that is lost.
    fn close(&mut self) {
        let debts = self.wire.take().map(Wire::into_debts);
        self.debts = debts.filter(|_| matches!(self.settings.target, Target::Serial(_)));
    }

    /// Whether the other end answers for units that cannot be there.
    pub async fn answers_for_all(&mut self) -> Result<bool, ScanError> {
        for unit in IMPROBABLE {
            if self.sign_of_life(unit).await?.is_none() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Looks whether a unit is there, and if so, what it is.
    pub async fn look(&mut self, unit: u8, products: &[ModbusDevice]) -> Result<Option<Found>, ScanError> {
        let Some(first) = self.sign_of_life(unit).await? else { return Ok(None) };
        let mut tables = vec![first];
        for table in [Table::Input, Table::Holding] {
            if tables.iter().all(|(known, _)| *known != table) {
                tables.extend(self.first_register(unit, table).await?);
            }
        }
        let says = self.says(unit).await?;
        let mut matches = Vec::new();
        let mut possible = Vec::new();
        for product in products {
            match self.recognise(unit, product, &says).await? {
                Known::Is(by) => matches.push(Match::known(&product.device.product, by)),
                Known::IsNot => {}
                Known::Unsaid => possible.push(product),
            }
        }
        // Nobody guesses where a device has shown what it is.
        if matches.is_empty() {
            for product in possible {
                matches.extend(self.compare(unit, product, &says).await?);
            }
        }
        matches.sort_by(|one: &Match, other: &Match| other.score.total_cmp(&one.score));
        Ok(Some(Found { unit, says, tables, matches }))
    }

    /// The registers of a span.
    pub async fn read(&mut self, unit: u8, span: Span) -> Result<Vec<u16>, ScanError> {
        let refused = |reason: String| ScanError::Unit { unit, reason };
        match self.ask(unit, &Request::Read(span)).await? {
            Ok(Answer::Registers(words)) => Ok(words),
            Ok(Answer::Exception(exception)) => Err(refused(format!("{exception} at {span}"))),
            Ok(_) => Err(refused(format!("{span} are no registers"))),
            Err(reason) => Err(refused(reason)),
        }
    }

    /// An answer of whatever kind. A unit that keeps silent on one table may answer in the other.
    async fn sign_of_life(&mut self, unit: u8) -> Result<Option<(Table, Result<u16, String>)>, ScanError> {
        for table in [Table::Holding, Table::Input] {
            if let Some(found) = self.first_register(unit, table).await? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    async fn first_register(
        &mut self,
        unit: u8,
        table: Table,
    ) -> Result<Option<(Table, Result<u16, String>)>, ScanError> {
        let Some(span) = Span::new(table, 0, 1) else { return Ok(None) };
        Ok(match self.ask(unit, &Request::Read(span)).await? {
            Ok(Answer::Registers(words)) => words.first().map(|word| (table, Ok(*word))),
            Ok(Answer::Exception(exception)) if exception.is_from_gateway() => None,
            Ok(Answer::Exception(exception)) => Some((table, Err(exception.to_string()))),
            Ok(_) | Err(_) => None,
        })
    }

    /// Maker, product and version, and what function 17 gives, as far as they are text.
    async fn says(&mut self, unit: u8) -> Result<Vec<String>, ScanError> {
        let mut says = Vec::new();
        if let Ok(Answer::Names(names)) = self.ask(unit, &Request::ReadIdentification).await? {
            says.extend(names.iter().filter_map(|(_, name)| plausible::words(name)));
        }
        if let Ok(Answer::Data(data)) = self.ask(unit, &Request::ReportServerId).await? {
            says.extend(plausible::words(&data));
        }
        Ok(says)
    }

    /// Whether the unit shows all the signs of a product. What cannot be read is no sign against it.
    async fn recognise(
        &mut self,
        unit: u8,
        product: &ModbusDevice,
        says: &[String],
    ) -> Result<Known, ScanError> {
        let mut seen = Vec::new();
        for mark in &product.map.identify {
            let shown = match mark {
                Mark::Says(_) if says.is_empty() => None,
                Mark::Says(_) => mark.is_said(says),
                Mark::Place { point, kind, .. } => {
                    self.place(unit, point, *kind).await?.map(|found| mark.fits(&found))
                }
            };
            match shown {
                Some(true) => seen.push(mark.to_string()),
                Some(false) => return Ok(Known::IsNot),
                None => return Ok(Known::Unsaid),
            }
        }
        Ok(if seen.is_empty() { Known::Unsaid } else { Known::Is(seen.join(" and ")) })
    }

    /// What stands at a place; `None` where the unit refuses it or keeps silent.
    async fn place(&mut self, unit: u8, point: &Point, kind: ValueType) -> Result<Option<Sample>, ScanError> {
        let Some(span) = point.span() else { return Ok(None) };
        let answer = self.ask(unit, &Request::Read(span)).await?.ok();
        let found = answer.and_then(|answer| point.extract(span, &answer));
        Ok(found.map(|found| point.decode(kind, &found)))
    }

    /// How well a unit's registers fit a product. `None` where they do not at all.
    async fn compare(
        &mut self,
        unit: u8,
        product: &ModbusDevice,
        says: &[String],
    ) -> Result<Option<Match>, ScanError> {
        let readable = |at: &usize| {
            product.device.product.properties.get(*at).is_some_and(|property| property.access.readable())
        };
        let positions = (0..product.map.properties.len()).filter(readable);
        let mut known: Vec<(usize, Sample)> = Vec::new();
        for group in grouped(product, positions).iter().take(READS_OF_A_PRODUCT) {
            match self.ask(unit, &Request::Read(group.span())).await? {
                Ok(Answer::Exception(_)) | Err(_) => return Ok(None),
                Ok(answer) => known.extend(samples(product, group, &answer)),
            }
        }
        Ok(plausible::judge(&product.device.product, &known, says))
    }

    /// One request. The inner result is the unit's, the outer one the port's. A port that is lost meanwhile is opened again:
    /// a peer may have been tired of waiting. One that hangs up on the same request twice does so instead of an answer.
    async fn ask(&mut self, unit: u8, request: &Request) -> Result<Result<Answer, String>, ScanError> {
        for _ in 0..2 {
            match self.wire().await?.exchange(unit, request).await {
                Ok(answer) => return Ok(Ok(answer)),
                Err(Fault::Lost(error)) => {
                    let reason = Chain(&error).to_string();
                    self.close();
                    if let Err(error) = self.wire().await {
                        return Err(ScanError::Lost(format!("{reason}; {error}")));
                    }
                    self.loss = Some(reason);
                }
                Err(fault @ (Fault::NoAnswer(_) | Fault::Request(_))) => {
                    return Ok(Err(Chain(&fault).to_string()));
                }
            }
        }
        Ok(Err("the port is lost instead of an answer".to_owned()))
    }
}
