//! The stored form of device messages and of what else the hub wants kept.
//!
//! Compact, versioned and independent of the model's layout: a newer version reads what an older one wrote, and
//! says so where it cannot. A product may have changed when a record is read: whoever reads it finds the positions
//! of properties again.

use std::sync::Arc;
use std::time::Duration;

use super::bytes::{Damaged, Reader, Writer};
use crate::model::command::{ActionKind, Outcome, Rejection};
use crate::model::history::{AlarmKind, ClientAlarm, KeptAlarm};
use crate::model::interest::{Interest, Selector};
use crate::model::message::{Body, CommandNote, Kinds, Report};
use crate::model::product::{AlarmCondition, AlarmRule, Direction, Level, Product, Property, Rate};
use crate::model::time::{Clock, UnixMillis};
use crate::model::value::{Quality, ValueType};

/// First byte of each record.
const VERSION: u8 = 1;

/// First byte of the record of a message whose times are not known to be right; the rest is as in [`VERSION`].
const ESTIMATED: u8 = 2;

/// First byte of the record of an alarm that says whose it is and where it is raised.
const OWNED: u8 = 2;

/// The position that a record does not know.
pub const UNPLACED: usize = usize::MAX;

/// The record of a body with times that are right.
pub fn encode(body: &Body) -> Vec<u8> {
    encode_by(body, Clock::Synchronised)
}

/// Whether the times of a record are known to be right.
pub fn clock(record: &[u8]) -> Clock {
    if record.first() == Some(&ESTIMATED) { Clock::Unsynchronised } else { Clock::Synchronised }
}

/// The record that a marked one becomes when it is known by how many milliseconds its times are too early; `None` for
/// one that is not marked or cannot be read.
pub fn redate(record: &[u8], step: i64) -> Option<Vec<u8>> {
    if clock(record) == Clock::Synchronised {
        return None;
    }
    let mut body = decode(record).ok()?;
    if let Body::Properties(reports) = &mut body {
        for report in reports {
            report.at = UnixMillis(report.at.0.saturating_add(step));
        }
    }
    Some(encode(&body))
}

/// The record of a body with times of this clock.
pub fn encode_by(body: &Body, clock: Clock) -> Vec<u8> {
    let mut w = Writer::default();
    w.byte(match clock {
        Clock::Synchronised => VERSION,
        Clock::Unsynchronised => ESTIMATED,
    });
    match body {
        Body::Properties(reports) => {
            w.byte(1);
            w.size(reports.len());
            for Report { property: _, id, value, at, quality } in reports {
                w.text(id);
                w.value(value);
                w.signed(at.0);
                w.byte(match quality {
                    Quality::Good => 0,
                    Quality::Stale => 1,
                    Quality::Bad => 2,
                });
            }
        }
        Body::Event { event, level, params } => {
            w.byte(2);
            w.text(event);
            w.byte(level_byte(*level));
            w.named(params);
        }
        Body::Alarm { rule, property, raised, value, active } => {
            w.byte(3);
            write_rule(&mut w, rule);
            w.size(*property);
            w.flag(*raised);
            w.value(value);
            w.size(active.len());
            for id in active {
                w.text(id);
            }
        }
        Body::Presence { online, reason } => {
            w.byte(4);
            w.flag(*online);
            w.option(reason.as_deref(), Writer::text);
        }
        Body::Publish { topic, payload } => {
            w.byte(5);
            w.text(topic);
            w.text(payload);
        }
        Body::Sent { command } => {
            w.byte(6);
            write_note(&mut w, command);
        }
        Body::Reply { command, outcome } => {
            w.byte(7);
            write_note(&mut w, command);
            write_outcome(&mut w, outcome);
        }
        Body::Ota { step, detail } => {
            w.byte(8);
            w.signed(i64::from(*step));
            w.text(detail);
        }
    }
    w.0
}

/// Reads a record. Positions in reports are [`UNPLACED`]; that in an alarm is as it was.
pub fn decode(record: &[u8]) -> Result<Body, Damaged> {
    let mut r = Reader(record);
    if !matches!(r.byte("a version")?, VERSION | ESTIMATED) {
        return Err(r.damaged("a version that this program knows"));
    }
    let body = match r.byte("a kind of message")? {
        1 => {
            let count = r.size()?;
            Body::Properties((0..count).map(|_| read_report(&mut r)).collect::<Result<_, _>>()?)
        }
        2 => Body::Event { event: r.text()?, level: read_level(&mut r)?, params: r.named()? },
        3 => Body::Alarm {
            rule: Arc::new(read_rule(&mut r)?),
            property: r.size()?,
            raised: r.flag()?,
            value: r.value()?,
            active: {
                let count = r.size()?;
                (0..count).map(|_| r.text()).collect::<Result<_, _>>()?
            },
        },
        4 => Body::Presence { online: r.flag()?, reason: r.option(Reader::text)? },
        5 => Body::Publish { topic: r.text()?, payload: r.text()? },
        6 => Body::Sent { command: Arc::new(read_note(&mut r)?) },
        7 => Body::Reply { command: Arc::new(read_note(&mut r)?), outcome: Arc::new(read_outcome(&mut r)?) },
        8 => Body::Ota {
            step: i32::try_from(r.signed()?).map_err(|_| r.damaged("a step"))?,
            detail: r.text()?,
        },
        _ => return Err(r.damaged("a kind of message")),
    };
    r.end()?;
    Ok(body)
}

/// Finds the positions of properties again, as the product has them now. What it no longer has is left out; `false`
/// where nothing is left.
pub fn place(body: &mut Body, product: &Product) -> bool {
    match body {
        Body::Properties(reports) => {
            reports.retain_mut(|report| {
                let found = product.property(&report.id);
                report.property = found.map_or(report.property, |(position, _)| position);
                found.is_some()
            });
            !reports.is_empty()
        }
        Body::Alarm { rule, property, .. } => {
            let has = |known: &Property| known.alarms.iter().any(|each| each.id == rule.id);
            *property = product.properties.iter().position(has).unwrap_or(*property);
            product.properties.get(*property).is_some()
        }
        Body::Event { .. }
        | Body::Presence { .. }
        | Body::Publish { .. }
        | Body::Sent { .. }
        | Body::Reply { .. }
        | Body::Ota { .. } => true,
    }
}

/// The record of an interest.
pub fn encode_interest(interest: &Interest) -> Vec<u8> {
    let mut w = Writer::default();
    w.byte(VERSION);
    w.number(u64::from(interest.kinds.bits()));
    write_selector(&mut w, &interest.selector);
    w.0
}

/// Reads an interest back.
pub fn decode_interest(record: &[u8]) -> Result<Interest, Damaged> {
    let mut r = versioned(record)?;
    let bits = u16::try_from(r.number()?).map_err(|_| r.damaged("kinds of message"))?;
    let interest = Interest { kinds: Kinds::from_bits(bits), selector: read_selector(&mut r)? };
    r.end()?;
    Ok(interest)
}

/// The record of a client's alarm.
pub fn encode_alarm(kept: &KeptAlarm) -> Vec<u8> {
    let KeptAlarm { alarm, owner, raised } = kept;
    let ClientAlarm { id, name, kind, property, link, devices, value, hold, level } = alarm;
    let mut w = Writer::default();
    w.byte(OWNED);
    w.number(*id);
    w.text(name);
    w.byte(kind_byte(*kind));
    w.text(property);
    w.option(link.as_deref(), Writer::text);
    write_selector(&mut w, devices);
    w.float(*value);
    w.millis(*hold);
    w.byte(level_byte(*level));
    w.text(owner);
    w.size(raised.len());
    for (device, limit) in raised {
        w.text(device);
        w.float(*limit);
    }
    w.0
}

/// Reads a client's alarm back.
pub fn decode_alarm(record: &[u8]) -> Result<KeptAlarm, Damaged> {
    let mut r = Reader(record);
    let version = r.byte("a version")?;
    if !matches!(version, VERSION | OWNED) {
        return Err(r.damaged("a version that this program knows"));
    }
    let alarm = ClientAlarm {
        id: r.number()?,
        name: r.text()?,
        kind: read_kind(&mut r)?,
        property: r.text()?,
        link: r.option(Reader::text)?,
        devices: read_selector(&mut r)?,
        value: r.float()?,
        hold: Duration::from_millis(r.number()?),
        level: read_level(&mut r)?,
    };
    let mut kept = KeptAlarm::from(alarm);
    if version == OWNED {
        kept.owner = r.text()?;
        let count = r.size()?;
        kept.raised = (0..count).map(|_| Ok((r.text()?, r.float()?))).collect::<Result<_, _>>()?;
    }
    r.end()?;
    Ok(kept)
}

fn versioned(record: &[u8]) -> Result<Reader<'_>, Damaged> {
    let mut r = Reader(record);
    match r.byte("a version")? {
        VERSION => Ok(r),
        _ => Err(r.damaged("a version that this program knows")),
    }
}

fn read_report(r: &mut Reader<'_>) -> Result<Report, Damaged> {
    Ok(Report {
        property: UNPLACED,
        id: r.text()?,
        value: r.value()?,
        at: UnixMillis(r.signed()?),
        quality: match r.byte("a quality")? {
            0 => Quality::Good,
            1 => Quality::Stale,
            2 => Quality::Bad,
            _ => return Err(r.damaged("a quality")),
        },
    })
}

fn kind_byte(kind: AlarmKind) -> u8 {
    match kind {
        AlarmKind::Below => 0,
        AlarmKind::Above => 1,
        AlarmKind::Equal => 2,
        AlarmKind::MonotonicRising => 3,
        AlarmKind::MonotonicFalling => 4,
    }
}

fn read_kind(r: &mut Reader<'_>) -> Result<AlarmKind, Damaged> {
    Ok(match r.byte("a kind of alarm")? {
        0 => AlarmKind::Below,
        1 => AlarmKind::Above,
        2 => AlarmKind::Equal,
        3 => AlarmKind::MonotonicRising,
        4 => AlarmKind::MonotonicFalling,
        _ => return Err(r.damaged("a kind of alarm")),
    })
}

fn level_byte(level: Level) -> u8 {
    match level {
        Level::Info => 0,
        Level::Alert => 1,
        Level::Fault => 2,
    }
}

fn read_level(r: &mut Reader<'_>) -> Result<Level, Damaged> {
    match r.byte("a level")? {
        0 => Ok(Level::Info),
        1 => Ok(Level::Alert),
        2 => Ok(Level::Fault),
        _ => Err(r.damaged("a level")),
    }
}

/// Delays and whether a rule is judged are the configuration's matter and not kept.
fn write_rule(w: &mut Writer, rule: &AlarmRule) {
    let AlarmRule { id, name, condition, hysteresis, level, delay: _, clear_delay: _, enabled: _ } = rule;
    w.text(id);
    w.text(name);
    match condition {
        AlarmCondition::Above(limit) => {
            w.byte(0);
            w.float(*limit);
        }
        AlarmCondition::Below(limit) => {
            w.byte(1);
            w.float(*limit);
        }
        AlarmCondition::Equal(value) => {
            w.byte(2);
            w.value(value);
        }
        AlarmCondition::NotEqual(value) => {
            w.byte(3);
            w.value(value);
        }
        AlarmCondition::Rate(rate) => {
            w.byte(4);
            w.byte(match rate.direction {
                Direction::Up => 0,
                Direction::Down => 1,
                Direction::Both => 2,
            });
            w.float(rate.limit);
            w.millis(rate.per);
            w.millis(rate.over);
        }
        AlarmCondition::NoData(silence) => {
            w.byte(5);
            w.millis(*silence);
        }
        AlarmCondition::Client { kind, limit, hold } => {
            w.byte(6);
            w.byte(kind_byte(*kind));
            w.float(*limit);
            w.millis(*hold);
        }
    }
    w.float(*hysteresis);
    w.byte(level_byte(*level));
}

fn read_rule(r: &mut Reader<'_>) -> Result<AlarmRule, Damaged> {
    Ok(AlarmRule {
        id: r.text()?,
        name: r.text()?,
        condition: match r.byte("a condition")? {
            0 => AlarmCondition::Above(r.float()?),
            1 => AlarmCondition::Below(r.float()?),
            2 => AlarmCondition::Equal(r.value()?),
            3 => AlarmCondition::NotEqual(r.value()?),
            4 => AlarmCondition::Rate(Rate {
                direction: match r.byte("a direction")? {
                    0 => Direction::Up,
                    1 => Direction::Down,
                    2 => Direction::Both,
                    _ => return Err(r.damaged("a direction")),
                },
                limit: r.float()?,
                per: Duration::from_millis(r.number()?),
                over: Duration::from_millis(r.number()?),
            }),
            5 => AlarmCondition::NoData(Duration::from_millis(r.number()?)),
            6 => AlarmCondition::Client {
                kind: read_kind(r)?,
                limit: r.float()?,
                hold: Duration::from_millis(r.number()?),
            },
            _ => return Err(r.damaged("a condition")),
        },
        hysteresis: r.float()?,
        level: read_level(r)?,
        delay: Duration::ZERO,
        clear_delay: Duration::ZERO,
        enabled: true,
    })
}

fn write_note(w: &mut Writer, note: &CommandNote) {
    let CommandNote { message_id, kind, function, values, client } = note;
    w.text(message_id);
    w.byte(match kind {
        ActionKind::Read => 0,
        ActionKind::Write => 1,
        ActionKind::Invoke => 2,
    });
    w.option(function.as_deref(), Writer::text);
    w.named(values);
    w.text(client);
}

fn read_note(r: &mut Reader<'_>) -> Result<CommandNote, Damaged> {
    Ok(CommandNote {
        message_id: r.text()?,
        kind: match r.byte("a kind of command")? {
            0 => ActionKind::Read,
            1 => ActionKind::Write,
            2 => ActionKind::Invoke,
            _ => return Err(r.damaged("a kind of command")),
        },
        function: r.option(Reader::text)?,
        values: r.named()?,
        client: r.text()?,
    })
}

fn write_outcome(w: &mut Writer, outcome: &Outcome) {
    match outcome {
        Outcome::Confirmed { values, outputs } => {
            w.byte(0);
            w.named(values);
            w.named(outputs);
        }
        Outcome::Rejected(rejection) => {
            w.byte(1);
            write_rejection(w, rejection);
        }
        Outcome::Offline => w.byte(2),
        Outcome::TimedOut => w.byte(3),
        Outcome::Busy => w.byte(4),
        Outcome::Forbidden => w.byte(5),
    }
}

fn read_outcome(r: &mut Reader<'_>) -> Result<Outcome, Damaged> {
    Ok(match r.byte("an outcome")? {
        0 => Outcome::Confirmed { values: r.named()?, outputs: r.named()? },
        1 => Outcome::Rejected(read_rejection(r)?),
        2 => Outcome::Offline,
        3 => Outcome::TimedOut,
        4 => Outcome::Busy,
        5 => Outcome::Forbidden,
        _ => return Err(r.damaged("an outcome")),
    })
}

fn write_rejection(w: &mut Writer, rejection: &Rejection) {
    let plain = |w: &mut Writer, kind, id: &str| {
        w.byte(kind);
        w.text(id);
    };
    match rejection {
        Rejection::UnknownDevice(id) => plain(w, 0, id),
        Rejection::UnknownProperty(id) => plain(w, 1, id),
        Rejection::ReadOnly(id) => plain(w, 2, id),
        Rejection::WriteOnly(id) => plain(w, 3, id),
        Rejection::WrongType { id, expected, found } => {
            plain(w, 4, id);
            w.byte(match expected {
                ValueType::Bool => 0,
                ValueType::Int => 1,
                ValueType::Float => 2,
                ValueType::Text => 3,
                ValueType::Enum => 4,
                ValueType::Object => 5,
            });
            w.value(found);
        }
        Rejection::OutOfRange { id, allowed, found } => {
            plain(w, 5, id);
            w.text(allowed);
            w.value(found);
        }
        Rejection::UnknownFunction(id) => plain(w, 6, id),
        Rejection::MissingInput(id) => plain(w, 7, id),
        Rejection::UnknownInput(id) => plain(w, 8, id),
        Rejection::Empty => w.byte(9),
        Rejection::ByDevice(words) => plain(w, 10, words),
        Rejection::Step { step, of, what, why } => {
            w.byte(15);
            w.size(*step);
            w.size(*of);
            w.text(what);
            w.text(why);
        }
        Rejection::Mismatch { id, expected, found } => {
            plain(w, 11, id);
            w.value(expected);
            w.value(found);
        }
        Rejection::Expired => w.byte(12),
        Rejection::Superseded(id) => plain(w, 13, id),
        Rejection::Lease { id, why } => {
            plain(w, 16, id);
            w.text(why);
        }
        Rejection::TooManyLeases(most) => {
            w.byte(17);
            w.size(*most);
        }
        // How long it had to wait is of no use later.
        Rejection::TooSoon { id, every, wait: _ } => {
            plain(w, 14, id);
            w.millis(*every);
        }
    }
}

fn read_rejection(r: &mut Reader<'_>) -> Result<Rejection, Damaged> {
    Ok(match r.byte("a rejection")? {
        0 => Rejection::UnknownDevice(r.text()?),
        1 => Rejection::UnknownProperty(r.text()?),
        2 => Rejection::ReadOnly(r.text()?),
        3 => Rejection::WriteOnly(r.text()?),
        4 => Rejection::WrongType {
            id: r.text()?,
            expected: match r.byte("a type")? {
                0 => ValueType::Bool,
                1 => ValueType::Int,
                2 => ValueType::Float,
                3 => ValueType::Text,
                4 => ValueType::Enum,
                5 => ValueType::Object,
                _ => return Err(r.damaged("a type")),
            },
            found: r.value()?,
        },
        5 => Rejection::OutOfRange { id: r.text()?, allowed: r.text()?.to_string(), found: r.value()? },
        6 => Rejection::UnknownFunction(r.text()?),
        7 => Rejection::MissingInput(r.text()?),
        8 => Rejection::UnknownInput(r.text()?),
        9 => Rejection::Empty,
        10 => Rejection::ByDevice(r.text()?.to_string()),
        15 => Rejection::Step {
            step: r.size()?,
            of: r.size()?,
            what: r.text()?.to_string(),
            why: r.text()?.to_string(),
        },
        11 => Rejection::Mismatch { id: r.text()?, expected: r.value()?, found: r.value()? },
        12 => Rejection::Expired,
        13 => Rejection::Superseded(r.text()?),
        14 => {
            let (id, every) = (r.text()?, Duration::from_millis(r.number()?));
            Rejection::TooSoon { id, every, wait: Duration::ZERO }
        }
        16 => Rejection::Lease { id: r.text()?, why: r.text()?.to_string() },
        17 => Rejection::TooManyLeases(r.size()?),
        _ => return Err(r.damaged("a rejection")),
    })
}

fn write_selector(w: &mut Writer, selector: &Selector) {
    let plain = |w: &mut Writer, kind, id: &str| {
        w.byte(kind);
        w.text(id);
    };
    match selector {
        Selector::All => w.byte(0),
        Selector::Device(id) => plain(w, 1, id),
        Selector::Product(id) => plain(w, 2, id),
        Selector::Project(id) => plain(w, 3, id),
        Selector::Area { project, area } => {
            plain(w, 4, project);
            w.text(area);
        }
        Selector::TypeId(id) => plain(w, 5, id),
        Selector::TypeIdPrefix(prefix) => plain(w, 6, prefix),
    }
}

fn read_selector(r: &mut Reader<'_>) -> Result<Selector, Damaged> {
    Ok(match r.byte("a selector")? {
        0 => Selector::All,
        1 => Selector::Device(r.text()?),
        2 => Selector::Product(r.text()?),
        3 => Selector::Project(r.text()?),
        4 => Selector::Area { project: r.text()?, area: r.text()? },
        5 => Selector::TypeId(r.text()?),
        6 => Selector::TypeIdPrefix(r.text()?),
        _ => return Err(r.damaged("a selector")),
    })
}

#[cfg(test)]
mod tests;
