//! The tail: what was handed over since the last commit, in a plain file.
//!
//! It is written without a flush, so that it costs the flash nothing as long as it is short-lived, and survives the
//! end of the process in the kernel's memory. Each record carries its length and a checksum; reading stops at the
//! first that does not hold, since a power cut leaves any garbage behind the last good one.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write as _};
use std::path::Path;
use std::time::Duration;

use super::bytes::{Damaged, Reader, Writer};
use super::{StoredRelation, Write, record};
use crate::model::message::Kinds;
use crate::model::time::UnixMillis;

/// The file.
#[derive(Debug)]
pub(super) struct Tail {
    /// Missing while it cannot be opened.
    file: Option<File>,
    bytes: usize,
}

/// A few times what is committed at once.
const MOST_BYTES: usize = 8 << 20;

impl Tail {
    /// Opens the file and gives what a process that did not end well has left in it.
    pub(super) fn open(path: &Path) -> io::Result<(Self, Vec<Write>)> {
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let (writes, garbage) = parse(&bytes);
        let mut tail = Self { file: Some(file), bytes: bytes.len().saturating_sub(garbage) };
        tail.cut()?;
        Ok((tail, writes))
    }

    /// None yet: what is appended is only in memory.
    pub(super) fn absent() -> Self {
        Self { file: None, bytes: 0 }
    }

    /// While the database takes nothing the tail grows no further than [`MOST_BYTES`]; what comes then is only in
    /// memory.
    pub(super) fn append(&mut self, writes: &[u8]) -> io::Result<()> {
        let Some(file) = self.file.as_mut().filter(|_| self.bytes <= MOST_BYTES) else { return Ok(()) };
        let written = file.write_all(writes);
        match written {
            Ok(()) => self.bytes += writes.len(),
            // Half a record would hide all that follow it. Where even cutting it off fails, the next one hides.
            Err(_) => drop(self.cut()),
        }
        written
    }

    /// Forgets everything, since it is in the database now.
    pub(super) fn clear(&mut self) -> io::Result<()> {
        self.bytes = 0;
        self.cut()
    }

    /// Whether it could be written to now. Only while there is nothing in it.
    pub(super) fn try_out(&mut self) -> io::Result<()> {
        // Zeros are no record, so it does no harm where they stay.
        self.append(&[0; 4096])?;
        self.clear()
    }

    /// A file that takes nothing.
    #[cfg(test)]
    pub(super) fn refusing(path: &Path) -> Self {
        Self { file: Some(File::open(path).unwrap()), bytes: 0 }
    }

    /// Nothing is behind what counts.
    fn cut(&mut self) -> io::Result<()> {
        let Some(file) = &mut self.file else { return Ok(()) };
        let end = u64::try_from(self.bytes).unwrap_or(u64::MAX);
        file.set_len(end)?;
        file.seek(SeekFrom::Start(end)).map(drop)
    }
}

/// Puts one record behind others.
pub(super) fn frame(write: &Write, into: &mut Vec<u8>) {
    let payload = encode(write);
    let Ok(length) = u32::try_from(payload.len()) else { return };
    into.extend(length.to_le_bytes());
    into.extend(checksum(&payload).to_le_bytes());
    into.extend(payload);
}

/// The records, and how many bytes behind the last good one are none.
fn parse(mut bytes: &[u8]) -> (Vec<Write>, usize) {
    let mut writes = Vec::new();
    while let Some((write, rest)) = parse_one(bytes) {
        writes.push(write);
        bytes = rest;
    }
    (writes, bytes.len())
}

fn parse_one(bytes: &[u8]) -> Option<(Write, &[u8])> {
    let (length, rest) = bytes.split_first_chunk()?;
    let (sum, rest) = rest.split_first_chunk()?;
    let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
    let (payload, rest) = rest.split_at_checked(length)?;
    if checksum(payload) != u32::from_le_bytes(*sum) {
        return None;
    }
    Some((decode(payload).ok()?, rest))
}

/// FNV-1a with the offset that its authors give, so that zeros are no valid record.
fn checksum(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |sum, byte| (sum ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

fn encode(write: &Write) -> Vec<u8> {
    let mut w = Writer::default();
    match write {
        Write::Message { seq, at, device, kind, record } => {
            w.byte(1);
            w.number(*seq);
            w.signed(at.0);
            w.text(device);
            w.number(u64::from(kind.bits()));
            w.blob(record);
        }
        Write::Redate { from, upto, step } => {
            w.byte(10);
            w.number(*from);
            w.number(*upto);
            w.signed(*step);
        }
        Write::Document { collection, id, body } => {
            w.byte(2);
            w.text(collection);
            w.number(*id);
            w.text(body);
        }
        Write::NoDocument(id) => {
            w.byte(3);
            w.number(*id);
        }
        Write::Alarm(alarm) => {
            w.byte(4);
            w.blob(&record::encode_alarm(alarm));
        }
        Write::NoAlarm(id) => {
            w.byte(5);
            w.number(*id);
        }
        Write::Group { name, floor, retain } => {
            w.byte(6);
            w.text(name);
            w.number(*floor);
            w.number(u64::try_from(retain.as_millis()).unwrap_or(u64::MAX));
        }
        Write::Relation(StoredRelation { group, label, order, interest, from, cursor, expires }) => {
            w.byte(7);
            w.text(group);
            w.text(label);
            w.number(*order);
            w.blob(&record::encode_interest(interest));
            w.number(*from);
            w.option(*cursor, Writer::number);
            w.option(*expires, |w, at| w.signed(at.0));
        }
        Write::NoRelation { group, label } => {
            w.byte(8);
            w.text(group);
            w.text(label);
        }
        Write::NoGroup(name) => {
            w.byte(9);
            w.text(name);
        }
    }
    w.0
}

fn decode(payload: &[u8]) -> Result<Write, Damaged> {
    let mut r = Reader(payload);
    let write = match r.byte("a kind of change")? {
        1 => Write::Message {
            seq: r.number()?,
            at: UnixMillis(r.signed()?),
            device: r.text()?,
            kind: Kinds::from_bits(u16::try_from(r.number()?).map_err(|_| r.damaged("a kind"))?),
            record: r.blob()?.to_vec(),
        },
        2 => Write::Document { collection: r.text()?, id: r.number()?, body: r.text()? },
        3 => Write::NoDocument(r.number()?),
        4 => Write::Alarm(record::decode_alarm(r.blob()?)?),
        5 => Write::NoAlarm(r.number()?),
        6 => Write::Group { name: r.text()?, floor: r.number()?, retain: Duration::from_millis(r.number()?) },
        7 => Write::Relation(StoredRelation {
            group: r.text()?,
            label: r.text()?,
            order: r.number()?,
            interest: record::decode_interest(r.blob()?)?,
            from: r.number()?,
            cursor: r.option(Reader::number)?,
            expires: r.option(Reader::signed)?.map(UnixMillis),
        }),
        8 => Write::NoRelation { group: r.text()?, label: r.text()? },
        9 => Write::NoGroup(r.text()?),
        10 => Write::Redate { from: r.number()?, upto: r.number()?, step: r.signed()? },
        _ => return Err(r.damaged("a kind of change")),
    };
    r.end()?;
    Ok(write)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::interest::{Interest, Selector};

    fn one_of_each() -> Vec<Write> {
        let relation = |cursor, expires| {
            Write::Relation(StoredRelation {
                group: "g".into(),
                label: "l".into(),
                order: 3,
                interest: Interest { selector: Selector::All, kinds: Kinds::ALARM },
                from: 7,
                cursor,
                expires,
            })
        };
        vec![
            Write::Message {
                seq: 9,
                at: UnixMillis(-5),
                device: "press-1".into(),
                kind: Kinds::EVENT,
                record: vec![1, 2, 3],
            },
            Write::Document { collection: "oam/rule".into(), id: 300, body: "{}".into() },
            Write::NoDocument(300),
            Write::NoAlarm(4),
            Write::Group { name: "g".into(), floor: 12, retain: Duration::from_secs(60) },
            relation(None, Some(UnixMillis(8))),
            relation(Some(5), None),
            Write::NoRelation { group: "g".into(), label: "l".into() },
            Write::NoGroup("g".into()),
            Write::Redate { from: 3, upto: 400, step: -7 },
        ]
    }

    #[test]
    fn what_was_appended_is_there_when_the_file_is_opened_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tail");
        let (mut tail, before) = Tail::open(&path).unwrap();
        assert_eq!(before, []);
        let mut bytes = Vec::new();
        for write in one_of_each() {
            frame(&write, &mut bytes);
        }
        tail.append(&bytes).unwrap();
        let (mut tail, before) = Tail::open(&path).unwrap();
        assert_eq!(before, one_of_each());
        tail.clear().unwrap();
        assert_eq!(Tail::open(&path).unwrap().1, []);
    }

    #[test]
    fn nothing_hides_behind_a_record_that_was_cut_off() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tail");
        let (writes, mut bytes) = (one_of_each(), Vec::new());
        frame(&writes[0], &mut bytes);
        bytes.extend([9, 0, 0]);
        std::fs::write(&path, &bytes).unwrap();
        let (mut tail, before) = Tail::open(&path).unwrap();
        assert_eq!(before, writes[..1]);
        bytes.clear();
        frame(&writes[1], &mut bytes);
        tail.append(&bytes).unwrap();
        assert_eq!(Tail::open(&path).unwrap().1, writes[..2]);
    }

    #[test]
    fn a_tail_is_read_up_to_its_first_damage() {
        let mut bytes = Vec::new();
        let mut ends = Vec::new();
        for write in one_of_each() {
            frame(&write, &mut bytes);
            ends.push(bytes.len());
        }
        for cut in 0..=bytes.len() {
            let whole = ends.iter().filter(|end| **end <= cut).count();
            assert_eq!(parse(&bytes[..cut]).0, one_of_each()[..whole]);
        }
        for at in 0..bytes.len() {
            let mut altered = bytes.clone();
            altered[at] ^= 0x10;
            let whole = ends.iter().filter(|end| **end <= at).count();
            let (read, _) = parse(&altered);
            assert_eq!(read[..], one_of_each()[..whole], "altered at {at}");
        }
        bytes.extend([0; 64]);
        assert_eq!(parse(&bytes), (one_of_each(), 64), "zeros are no record");
    }
}
