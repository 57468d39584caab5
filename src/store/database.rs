//! The database file: its tables, and every statement on them.
//!
//! Writes go into a transaction that the worker keeps open for a commit interval; reads on the same connection see
//! them at once. The file gives freed pages back, and grows no further than it may: the oldest messages go first.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OptionalExtension, params};

use super::scan::Range;
use super::{Chunk, Fetch, Recovered, Stored, StoredRelation, Write, record};
use crate::model::message::{Body, Kinds};
use crate::model::time::{Clock, UnixMillis};

/// `user_version` of the tables below.
const FORMAT: i64 = 1;

/// How `SQLite` counts the way in which the file gives freed pages back.
const INCREMENTAL: i64 = 2;

/// Messages that are deleted in one statement, and most of those statements in one commit: a trim is spread over
/// several commits rather than blocking one for long.
const TRIM: usize = 512;
const TRIMS_PER_COMMIT: usize = 64;

/// Most pages of 4 KiB that are given back to the file system in one commit, for the same reason.
const PAGES_PER_COMMIT: i64 = 1024;

/// Messages whose times are corrected when the clock becomes right, the newest first: half an hour of a busy gateway,
/// and a second of a small machine's time. Older ones keep their estimate and their mark.
const REDATED: usize = 20_000;

/// Messages that one fetch looks at before it gives what it has.
const FETCH_LOOKS: usize = 4096;

/// Bytes of records that one fetch gives at most, beyond the one that goes over it.
const FETCH_BYTES: usize = 1 << 20;

const TABLES: &str = "
    CREATE TABLE meta(name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE devices(id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
    CREATE TABLE messages(
        seq INTEGER PRIMARY KEY, at INTEGER NOT NULL, device INTEGER NOT NULL, kind INTEGER NOT NULL,
        record BLOB NOT NULL);
    CREATE INDEX messages_of_device ON messages(device, kind, at);
    CREATE TABLE documents(id INTEGER PRIMARY KEY, collection TEXT NOT NULL, body TEXT NOT NULL);
    CREATE TABLE alarms(id INTEGER PRIMARY KEY, record BLOB NOT NULL);
    CREATE TABLE groups(name TEXT PRIMARY KEY, floor INTEGER NOT NULL, retain INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE relations(
        group_name TEXT NOT NULL, label TEXT NOT NULL, place INTEGER NOT NULL, interest BLOB NOT NULL,
        begins INTEGER NOT NULL, cursor INTEGER, expires INTEGER, PRIMARY KEY(group_name, label)) WITHOUT ROWID;
";

/// What can go wrong with the file.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// `SQLite` says so.
    #[error("the history database cannot be used")]
    Sqlite(#[from] rusqlite::Error),
    /// The tables are of another version of this program.
    #[error(
        "it has format {found}, this version knows {FORMAT}: run the version that wrote it, or move {path} away \
         and a new history is begun"
    )]
    Format {
        /// Which file.
        path: PathBuf,
        /// Its format.
        found: i64,
    },
}

impl Trouble {
    /// Whether the file itself is bad, so that nothing will get better by waiting.
    pub(super) fn is_damage(&self) -> bool {
        match self {
            Self::Sqlite(rusqlite::Error::SqliteFailure(error, _)) => {
                matches!(error.code, ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
            }
            // A table that is missing or of another shape.
            Self::Sqlite(
                rusqlite::Error::SqlInputError { .. }
                | rusqlite::Error::InvalidColumnType(..)
                | rusqlite::Error::FromSqlConversionFailure(..),
            ) => true,
            Self::Sqlite(_) | Self::Format { .. } => false,
        }
    }

    /// Whether the disk takes nothing now, which may pass.
    pub(super) fn is_shortage(&self) -> bool {
        let Self::Sqlite(rusqlite::Error::SqliteFailure(error, _)) = self else { return false };
        matches!(error.code, ErrorCode::DiskFull | ErrorCode::SystemIoFailure)
    }
}

/// The open file.
#[derive(Debug)]
pub(super) struct Database {
    connection: Connection,
    devices: HashMap<Arc<str>, i64>,
    /// Pages that may be in use.
    most_pages: i64,
    page_bytes: i64,
    in_transaction: bool,
}

impl Database {
    pub(super) fn open(path: &Path, max_bytes: u64) -> Result<Self, Trouble> {
        let connection = Connection::open(path)?;
        // Another process that has the file keeps it; nothing is waited for.
        connection.busy_timeout(Duration::ZERO)?;
        connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
        // Setting it writes into the file even where it is set already, and a full disk takes nothing.
        let vacuum: i64 = connection.pragma_query_value(None, "auto_vacuum", |row| row.get(0))?;
        if vacuum != INCREMENTAL {
            connection.pragma_update(None, "auto_vacuum", INCREMENTAL)?;
        }
        connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "temp_store", "MEMORY")?;
        connection.pragma_update(None, "cache_size", -1024)?;
        connection.set_prepared_statement_cache_capacity(32);
        let page: i64 = connection.pragma_query_value(None, "page_size", |row| row.get(0))?;
        let pages = (signed(max_bytes) / page.max(512)).max(32);
        // An eighth of the allowance is for the write-ahead log and what a commit puts over the mark.
        let log = (pages / 16).clamp(16, 256);
        connection.pragma_update(None, "wal_autocheckpoint", log)?;
        connection.pragma_update(None, "journal_size_limit", log * page)?;
        let format: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
        match format {
            0 => connection.execute_batch(&format!(
                "BEGIN IMMEDIATE; {TABLES} PRAGMA user_version = {FORMAT}; COMMIT;"
            ))?,
            FORMAT => {}
            found => return Err(Trouble::Format { path: path.to_owned(), found }),
        }
        let mut database = Self {
            connection,
            devices: HashMap::new(),
            most_pages: 0,
            page_bytes: page.max(512),
            in_transaction: false,
        };
        database.allow(max_bytes);
        database.load_devices()?;
        Ok(database)
    }

    /// From the next commit on the file may be as large as this. Its log keeps the size that it was opened with.
    pub(super) fn allow(&mut self, max_bytes: u64) {
        let pages = (signed(max_bytes) / self.page_bytes).max(32);
        self.most_pages = pages - pages / 8;
    }

    fn load_devices(&mut self) -> Result<(), Trouble> {
        let mut statement = self.connection.prepare("SELECT name, id FROM devices")?;
        let rows = statement.query_map([], |row| Ok((row.get::<_, Arc<str>>(0)?, row.get(1)?)))?;
        self.devices = rows.collect::<Result<_, _>>()?;
        Ok(())
    }

    /// Everything but the messages.
    pub(super) fn recover(&self) -> Result<Recovered, Trouble> {
        let all = |sql: &str| self.connection.prepare(sql);
        let mut recovered = Recovered {
            seq: self.last()?.max(self.meta("seq")?),
            last: self.last_time()?,
            last_right: self.last_right_time()?,
            last_id: self.meta("id")?,
            ..Recovered::default()
        };
        let mut documents = all("SELECT collection, id, body FROM documents ORDER BY id")?;
        let document = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, unsigned(row.get(1)?), row.get(2)?));
        recovered.documents = documents.query_map([], document)?.collect::<Result<_, _>>()?;
        let mut alarms = all("SELECT record FROM alarms ORDER BY id")?;
        let records = alarms.query_map([], |row| row.get::<_, Vec<u8>>(0))?;
        for record in records {
            recovered.alarms.extend(record::decode_alarm(&record?).ok());
        }
        let mut groups = all("SELECT name, floor, retain FROM groups ORDER BY name")?;
        let group = |row: &rusqlite::Row<'_>| {
            let retain = Duration::from_millis(unsigned(row.get(2)?));
            Ok((row.get(0)?, unsigned(row.get(1)?), retain))
        };
        recovered.groups = groups.query_map([], group)?.collect::<Result<_, _>>()?;
        let mut relations =
            all("SELECT group_name, label, place, interest, begins, cursor, expires FROM relations
             ORDER BY group_name, place")?;
        let mut rows = relations.query([])?;
        while let Some(row) = rows.next()? {
            let Ok(interest) = record::decode_interest(&row.get::<_, Vec<u8>>(3)?) else { continue };
            recovered.relations.push(StoredRelation {
                group: row.get(0)?,
                label: row.get(1)?,
                order: unsigned(row.get(2)?),
                interest,
                from: unsigned(row.get(4)?),
                cursor: row.get::<_, Option<i64>>(5)?.map(unsigned),
                expires: row.get::<_, Option<i64>>(6)?.map(UnixMillis),
            });
        }
        Ok(recovered)
    }

    /// The last number that was given is this one at least, also if nothing is kept before the process ends.
    pub(super) fn begin_above(&self, number: u64) -> Result<(), Trouble> {
        self.raise("seq", number)
    }

    fn last_time(&self) -> Result<Option<UnixMillis>, Trouble> {
        let sql = "SELECT at FROM messages ORDER BY seq DESC LIMIT 1";
        Ok(self.connection.query_row(sql, [], |row| row.get(0)).optional()?.map(UnixMillis))
    }

    /// Of a message that bears no mark, among as many as are corrected when the clock becomes right.
    fn last_right_time(&self) -> Result<Option<UnixMillis>, Trouble> {
        let mut select =
            self.connection.prepare("SELECT at, record FROM messages ORDER BY seq DESC LIMIT ?1")?;
        let mut rows = select.query([REDATED])?;
        while let Some(row) = rows.next()? {
            let record = row.get_ref(1)?.as_blob().map_err(|_| rusqlite::Error::InvalidQuery)?;
            if record::clock(record) == Clock::Synchronised {
                return Ok(Some(UnixMillis(row.get(0)?)));
            }
        }
        Ok(None)
    }

    fn meta(&self, name: &str) -> Result<u64, Trouble> {
        let mut statement = self.connection.prepare_cached("SELECT value FROM meta WHERE name = ?1")?;
        let value: Option<i64> = statement.query_row([name], |row| row.get(0)).optional()?;
        Ok(value.map_or(0, unsigned))
    }

    fn raise(&self, name: &str, value: u64) -> Result<(), Trouble> {
        let sql = "INSERT INTO meta VALUES(?1, ?2) ON CONFLICT(name) DO UPDATE SET value = max(value, excluded.value)";
        self.connection.prepare_cached(sql)?.execute(params![name, signed(value)])?;
        Ok(())
    }

    /// Takes a change into the open transaction, and begins one if there is none.
    pub(super) fn write(&mut self, write: &Write) -> Result<(), Trouble> {
        if !self.in_transaction {
            self.connection.execute_batch("BEGIN IMMEDIATE")?;
            self.in_transaction = true;
        }
        if let Write::Message { device, .. } = write {
            if !self.devices.contains_key(device) {
                self.connection.execute("INSERT OR IGNORE INTO devices(name) VALUES(?1)", [device])?;
                let known = "SELECT id FROM devices WHERE name = ?1";
                let id = self.connection.query_row(known, [device], |row| row.get(0))?;
                self.devices.insert(Arc::clone(device), id);
            }
        }
        let run = |sql: &str, params: &[&dyn rusqlite::ToSql]| {
            self.connection.prepare_cached(sql)?.execute(params).map(drop)
        };
        match write {
            Write::Message { seq, at, device, kind, record } => {
                let device = self.devices.get(device).copied().unwrap_or(0);
                let sql = "INSERT OR IGNORE INTO messages VALUES(?1, ?2, ?3, ?4, ?5)";
                run(sql, params![signed(*seq), at.0, device, kind.bits(), record])?;
            }
            Write::Redate { from, upto, step } => self.redate(*from, *upto, *step)?,
            Write::Document { collection, id, body } => {
                run(
                    "INSERT OR REPLACE INTO documents VALUES(?1, ?2, ?3)",
                    params![signed(*id), collection, body],
                )?;
                self.raise("id", *id)?;
            }
            Write::NoDocument(id) => run("DELETE FROM documents WHERE id = ?1", params![signed(*id)])?,
            Write::Alarm(alarm) => {
                let record = record::encode_alarm(alarm);
                let id = alarm.alarm.id;
                run("INSERT OR REPLACE INTO alarms VALUES(?1, ?2)", params![signed(id), record])?;
                self.raise("id", id)?;
            }
            Write::NoAlarm(id) => run("DELETE FROM alarms WHERE id = ?1", params![signed(*id)])?,
            Write::Group { name, floor, retain } => {
                let retain = i64::try_from(retain.as_millis()).unwrap_or(i64::MAX);
                run(
                    "INSERT OR REPLACE INTO groups VALUES(?1, ?2, ?3)",
                    params![name, signed(*floor), retain],
                )?;
            }
            Write::Relation(StoredRelation { group, label, order, interest, from, cursor, expires }) => {
                let sql = "INSERT OR REPLACE INTO relations VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7)";
                let (interest, cursor) = (record::encode_interest(interest), cursor.map(signed));
                let expires = expires.map(|at| at.0);
                run(sql, params![group, label, signed(*order), interest, signed(*from), cursor, expires])?;
            }
            Write::NoRelation { group, label } => {
                run("DELETE FROM relations WHERE group_name = ?1 AND label = ?2", params![group, label])?;
            }
            Write::NoGroup(name) => {
                run("DELETE FROM relations WHERE group_name = ?1", params![name])?;
                run("DELETE FROM groups WHERE name = ?1", params![name])?;
            }
        }
        Ok(())
    }

    /// Moves the marked messages among these in time. Doing it again finds none.
    fn redate(&self, from: u64, upto: u64, step: i64) -> Result<(), Trouble> {
        let sql = "SELECT seq, record FROM messages WHERE seq >= ?1 AND seq <= ?2 ORDER BY seq DESC LIMIT ?3";
        let mut select = self.connection.prepare_cached(sql)?;
        let mut update =
            self.connection.prepare_cached("UPDATE messages SET at = at + ?1, record = ?2 WHERE seq = ?3")?;
        let (from, mut upto, mut left) = (signed(from), signed(upto), REDATED);
        while left > 0 {
            let limit = left.min(TRIM);
            let rows = select.query_map(params![from, upto, limit], |row| Ok((row.get(0)?, row.get(1)?)))?;
            let rows: Vec<(i64, Vec<u8>)> = rows.collect::<Result<_, _>>()?;
            let Some((first, _)) = rows.last() else { break };
            upto = first.saturating_sub(1);
            left -= rows.len();
            for (seq, old) in &rows {
                if let Some(new) = record::redate(old, step) {
                    update.execute(params![step, new, seq])?;
                }
            }
        }
        Ok(())
    }

    /// Ends the transaction: forgets what is too old or too much, and writes it all to the flash.
    pub(super) fn commit(&mut self, oldest: UnixMillis) -> Result<(), Trouble> {
        if !self.in_transaction {
            return Ok(());
        }
        let last: Option<i64> =
            self.connection.query_row("SELECT max(seq) FROM messages", [], |row| row.get(0))?;
        if let Some(last) = last {
            self.raise("seq", unsigned(last))?;
        }
        self.trim(oldest)?;
        self.connection.execute_batch("COMMIT")?;
        self.in_transaction = false;
        Ok(())
    }

    /// What there will be once these are written, for which there is no room yet. Nothing of it is in the file.
    pub(super) fn foresee(&mut self, writes: &[Write]) -> Result<Recovered, Trouble> {
        // In memory alone: there is no more of it than a tail may hold.
        self.connection.pragma_update(None, "cache_spill", "OFF")?;
        let foreseen = writes.iter().try_for_each(|write| self.write(write)).and_then(|()| self.recover());
        self.roll_back();
        self.connection.pragma_update(None, "cache_spill", "ON")?;
        foreseen
    }

    /// Undoes everything since the last commit.
    pub(super) fn roll_back(&mut self) {
        self.in_transaction = false;
        if self.connection.execute_batch("ROLLBACK").is_err() {
            tracing::debug!("there was no transaction to undo");
        }
        self.devices.clear();
        if self.load_devices().is_err() {
            tracing::debug!("the devices in the history cannot be read");
        }
    }

    fn trim(&self, oldest: UnixMillis) -> Result<(), Trouble> {
        for _ in 0..TRIMS_PER_COMMIT {
            let deleted = if self.used_pages()? > self.most_pages {
                let sql =
                    "DELETE FROM messages WHERE seq IN (SELECT seq FROM messages ORDER BY seq LIMIT ?1)";
                self.connection.prepare_cached(sql)?.execute([TRIM])?
            } else {
                // Only from the beginning, so that what is there has no holes.
                let sql = "DELETE FROM messages WHERE at < ?1 AND seq IN (SELECT seq FROM messages ORDER BY seq LIMIT ?2)";
                self.connection.prepare_cached(sql)?.execute(params![oldest.0, TRIM])?
            };
            if deleted == 0 {
                break;
            }
        }
        // Also when nothing was deleted now: what was deleted before may have left more than one commit gives back.
        let pages: i64 = self.connection.pragma_query_value(None, "page_count", |row| row.get(0))?;
        if pages > self.most_pages {
            let back = (pages - self.most_pages).min(PAGES_PER_COMMIT);
            let mut statement = self.connection.prepare(&format!("PRAGMA incremental_vacuum({back})"))?;
            let mut rows = statement.query([])?;
            while rows.next()?.is_some() {}
        }
        Ok(())
    }

    fn used_pages(&self) -> Result<i64, Trouble> {
        let pages: i64 = self.connection.pragma_query_value(None, "page_count", |row| row.get(0))?;
        let free: i64 = self.connection.pragma_query_value(None, "freelist_count", |row| row.get(0))?;
        Ok(pages - free)
    }

    /// Messages after a number, as far as they are wanted. A record that cannot be read is passed over.
    pub(super) fn fetch(&self, fetch: &Fetch) -> Result<Chunk, Trouble> {
        let Fetch { group, after, until, since, wanted, limit } = fetch;
        let by_id: HashMap<i64, (&Arc<str>, Kinds)> = wanted
            .iter()
            .filter_map(|(device, kinds)| Some((*self.devices.get(device)?, (device, *kinds))))
            .collect();
        let begin = self.seek(signed(*after).saturating_add(1), signed(*until), *since)?;
        let mut statement = self.connection.prepare_cached(
            "SELECT seq, at, device, kind, record FROM messages WHERE seq >= ?1 AND seq <= ?2 ORDER BY seq",
        )?;
        let mut rows = statement.query([begin, signed(*until)])?;
        let (mut messages, mut bytes, mut looks) = (Vec::new(), 0, 0);
        let mut upto = *until;
        while let Some(row) = rows.next()? {
            let seq = unsigned(row.get(0)?);
            looks += 1;
            if let Some((device, kinds)) = by_id.get(&row.get(2)?) {
                let at = UnixMillis(row.get(1)?);
                if kinds.meets(Kinds::from_bits(row.get(3)?)) && at >= *since {
                    let stored = row.get_ref(4)?.as_blob().map_err(|_| rusqlite::Error::InvalidQuery)?;
                    bytes += stored.len();
                    if let Ok(body) = record::decode(stored) {
                        let clock = record::clock(stored);
                        messages.push(Stored { seq, at, clock, device: Arc::clone(device), body });
                    }
                }
            }
            if messages.len() >= *limit || bytes >= FETCH_BYTES || looks >= FETCH_LOOKS {
                upto = seq;
                break;
            }
        }
        Ok(Chunk { group: Arc::clone(group), after: *after, upto, messages })
    }

    /// The first number in a range whose message is not older than this. Times rise with numbers, but for clocks
    /// that were set; there it may begin somewhat early or late, never outside the range.
    fn seek(&self, from: i64, to: i64, since: UnixMillis) -> Result<i64, Trouble> {
        let sql = "SELECT seq, at FROM messages WHERE seq >= ?1 AND seq <= ?2 ORDER BY seq LIMIT 1";
        let mut statement = self.connection.prepare_cached(sql)?;
        let mut next = |from: i64, to: i64| {
            statement
                .query_row([from, to], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?)))
                .optional()
        };
        let Some((first, at)) = next(from, to)? else { return Ok(from) };
        if at >= since.0 {
            return Ok(first);
        }
        // Everything up to `low` is too old; `high` and later are not, or there is nothing.
        let (mut low, mut high) = (first, to.saturating_add(1));
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            match next(middle, high - 1)? {
                Some((seq, at)) if at < since.0 => low = seq,
                Some(_) | None => high = middle,
            }
        }
        Ok(high)
    }

    /// The number of the last message.
    pub(super) fn last(&self) -> Result<u64, Trouble> {
        let mut statement = self.connection.prepare_cached("SELECT coalesce(max(seq), 0) FROM messages")?;
        Ok(unsigned(statement.query_row([], |row| row.get(0))?))
    }

    /// A slice of a device's messages of one kind with time and number. One that cannot be read has no body.
    pub(super) fn messages(
        &self,
        device: &str,
        kind: Kinds,
        range: &Range,
        limit: usize,
    ) -> Result<Vec<(UnixMillis, i64, Option<Body>)>, Trouble> {
        let Some(device) = self.devices.get(device) else { return Ok(Vec::new()) };
        let sql = if range.backwards {
            "SELECT at, seq, record FROM messages WHERE device = ?1 AND kind = ?2 AND at >= ?3 AND at <= ?4
             AND (at, seq) < (?5, ?6) ORDER BY at DESC, seq DESC LIMIT ?7"
        } else {
            "SELECT at, seq, record FROM messages WHERE device = ?1 AND kind = ?2 AND at >= ?3 AND at <= ?4
             AND (at, seq) > (?5, ?6) ORDER BY at, seq LIMIT ?7"
        };
        let beginning = if range.backwards { (i64::MAX, i64::MAX) } else { (i64::MIN, i64::MIN) };
        let (at, seq) = range.after.unwrap_or(beginning);
        let (low, high) = if range.backwards {
            (range.from.0, range.to.0.min(at))
        } else {
            (range.from.0.max(at), range.to.0)
        };
        let mut statement = self.connection.prepare_cached(sql)?;
        let mut rows = statement.query(params![device, kind.bits(), low, high, at, seq, limit])?;
        let mut messages = Vec::new();
        while let Some(row) = rows.next()? {
            let body = row.get_ref(2)?.as_blob().ok().and_then(|stored| record::decode(stored).ok());
            messages.push((UnixMillis(row.get(0)?), row.get(1)?, body));
        }
        Ok(messages)
    }

    /// When the last property report of a device before a time was.
    pub(super) fn heard(&self, device: &str, before: UnixMillis) -> Result<Option<UnixMillis>, Trouble> {
        let Some(device) = self.devices.get(device) else { return Ok(None) };
        let sql = "SELECT max(at) FROM messages WHERE device = ?1 AND kind = ?2 AND at < ?3";
        let mut statement = self.connection.prepare_cached(sql)?;
        let last = statement.query_row(params![device, Kinds::PROPERTIES.bits(), before.0], |row| {
            row.get::<_, Option<i64>>(0)
        })?;
        Ok(last.map(UnixMillis))
    }
}

/// The database's numbers have a sign. Ours never come near it.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}
