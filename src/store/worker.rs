//! The store's thread: takes jobs and queries, commits in time, and survives whatever happens to its file.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use prometheus_client::metrics::gauge::Gauge;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tracing::{debug, error, info, warn};

use super::database::{Database, Trouble};
use super::opening::{Files, OpenError, high_number, oldest, open_database, open_files, set_aside};
use super::scan::Scan;
use super::tail::{self, Tail};
use super::{
    Archive, Asked, Chunk, Fetch, JOB_QUEUE, Job, Keeper, NEWS_QUEUE, News, QUERY_QUEUE, Recovered, Write,
};
use crate::backoff::Backoff;
use crate::clock;
use crate::config::History;
use crate::model::directory::Directory;
use crate::report::Chain;

/// Jobs that are taken in one turn.
const BATCH: usize = 512;

/// Bytes that wait for their commit, above which it comes early: what is in memory twice stays small.
const COMMIT_BYTES: usize = 1 << 20;

/// Bytes that wait while the disk takes nothing. When full the oldest are dropped and counted.
const PENDING_BYTES: usize = 4 << 20;

/// Pauses between attempts to open what could not be opened at the start.
const REOPEN_FIRST: Duration = Duration::from_secs(1);
const REOPEN_MAX: Duration = Duration::from_secs(60);

/// Queries under way at a time; the others wait in their queue.
const SCANS: usize = 4;

/// Files that cannot be opened.
#[derive(Debug)]
struct Closed {
    backoff: Backoff,
    /// When it is tried again.
    next: Instant,
}

/// The owner of the store's files. Runs on a thread of its own.
#[derive(Debug)]
pub struct Worker {
    settings: History,
    /// What they are to be from the next commit on.
    next_settings: watch::Receiver<History>,
    /// Missing only while it cannot be opened, or none can be begun since the disk takes nothing.
    database: Option<Database>,
    tail: Tail,
    /// Set until the files could be opened for the first time.
    closed: Option<Closed>,
    /// Whether the tail took what was last given to it.
    tail_fails: bool,
    jobs: mpsc::Receiver<Job>,
    news: mpsc::Sender<News>,
    queries: mpsc::Receiver<Asked>,
    scans: VecDeque<Scan>,
    /// What is not committed yet, to be written again if the database has to be begun anew.
    pending: VecDeque<(usize, Write)>,
    pending_bytes: usize,
    /// When the commit is due.
    due: Option<Instant>,
    /// Whether the last attempt to write failed, so that only the change is told.
    troubled: bool,
    /// The same for others.
    told: Gauge,
    dropped: u64,
}

/// Opens the store, see [`open_files`].
pub fn open(settings: History, directory: Arc<Directory>) -> Result<(Keeper, Archive, Worker), OpenError> {
    let files = open_files(&settings)?;
    let (mut keeper, archive, mut worker) = assemble(settings, directory);
    (keeper.recovered, keeper.is_open) = (worker.move_in(files), true);
    Ok((keeper, archive, worker))
}

/// A store whose files cannot be opened now. The worker tries it again; until then it keeps a little in memory, and
/// answers like one that has nothing.
pub fn wait(settings: History, directory: Arc<Directory>) -> (Keeper, Archive, Worker) {
    let (keeper, archive, mut worker) = assemble(settings, directory);
    let mut backoff = Backoff::new(REOPEN_FIRST, REOPEN_MAX);
    let next = clock::instant() + backoff.next(fastrand::f64());
    worker.closed = Some(Closed { backoff, next });
    worker.due = Some(next);
    worker.set_troubled(true);
    (keeper, archive, worker)
}

/// With nothing open.
fn assemble(settings: History, directory: Arc<Directory>) -> (Keeper, Archive, Worker) {
    let (jobs, job_queue) = mpsc::channel(JOB_QUEUE);
    let (news, news_queue) = mpsc::channel(NEWS_QUEUE);
    let (queries, query_queue) = mpsc::channel(QUERY_QUEUE);
    let (limits, next_settings) = watch::channel(settings.clone());
    let worker = Worker {
        settings,
        next_settings,
        database: None,
        tail: Tail::absent(),
        tail_fails: false,
        closed: None,
        jobs: job_queue,
        news,
        queries: query_queue,
        scans: VecDeque::new(),
        pending: VecDeque::new(),
        pending_bytes: 0,
        due: None,
        troubled: false,
        told: Gauge::default(),
        dropped: 0,
    };
    let recovered = Recovered { seq: high_number(), ..Recovered::default() };
    let keeper = Keeper { jobs, news: news_queue, recovered, is_open: false };
    (keeper, Archive { queries, directory, limits }, worker)
}

/// What wakes the worker.
enum Wake {
    Jobs(usize),
    Query(Option<Asked>),
    Time,
}

impl Worker {
    /// Tells this meter whether it can write.
    #[must_use]
    pub fn telling(mut self, troubled: Gauge) -> Self {
        troubled.set(i64::from(self.troubled));
        self.told = troubled;
        self
    }

    fn set_troubled(&mut self, troubled: bool) -> bool {
        self.told.set(i64::from(troubled));
        std::mem::replace(&mut self.troubled, troubled)
    }

    /// Runs until the hub lets go of its end, then commits what is left. Blocks; `runtime` only lends its timers.
    pub fn run(mut self, runtime: &Handle) {
        let mut batch = Vec::with_capacity(BATCH);
        let mut asking = true;
        loop {
            match runtime.block_on(self.wake(&mut batch, asking)) {
                Wake::Jobs(0) => break,
                Wake::Jobs(_) => self.take(batch.drain(..)),
                Wake::Query(Some(asked)) => self.scans.push_back(Scan::new(asked)),
                Wake::Query(None) => asking = false,
                Wake::Time => {}
            }
            if self.due.is_some_and(|due| due <= clock::instant()) || self.pending_bytes >= COMMIT_BYTES {
                self.commit();
            }
            self.advance();
        }
        self.commit();
        if !self.pending.is_empty() {
            warn!(changes = self.pending.len(), "what the history could not take is lost");
        }
        // Dropped with the connection that wrote them, the log and its index are folded into the database.
        debug!("the history is closed");
    }

    async fn wake(&mut self, batch: &mut Vec<Job>, asking: bool) -> Wake {
        let due = self.due;
        let time = async {
            match due {
                Some(due) => tokio::time::sleep_until(due.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            // Cancel-safe: `recv_many` takes nothing out unless it completes.
            count = self.jobs.recv_many(batch, BATCH) => Wake::Jobs(count),
            // Cancel-safe: a new sleep is made each turn.
            () = time => Wake::Time,
            // Cancel-safe by its documentation.
            asked = self.queries.recv(), if asking && self.scans.len() < SCANS => Wake::Query(asked),
            // Nothing is waited for.
            () = std::future::ready(()), if !self.scans.is_empty() => Wake::Time,
        }
    }

    /// Writes what was handed over, to the tail first, and answers fetches in their place.
    fn take(&mut self, jobs: impl Iterator<Item = Job>) {
        let mut framed = Vec::new();
        let mut writes = Vec::new();
        for job in jobs {
            match job {
                Job::Write(write) => {
                    let before = framed.len();
                    tail::frame(&write, &mut framed);
                    writes.push((framed.len() - before, write));
                }
                Job::Fetch(fetch) => {
                    self.keep(&mut framed, &mut writes);
                    self.fetch(&fetch);
                }
            }
        }
        self.keep(&mut framed, &mut writes);
    }

    fn keep(&mut self, framed: &mut Vec<u8>, writes: &mut Vec<(usize, Write)>) {
        if writes.is_empty() {
            return;
        }
        let appended = self.tail.append(framed);
        self.tail_fails = appended.is_err();
        if let Err(error) = appended {
            self.trouble(&format!("the tail cannot be written: {error}"));
        }
        framed.clear();
        let begun = clock::instant();
        self.due.get_or_insert_with(|| begun + self.settings.commit_every);
        let mut damage = None;
        for (bytes, write) in writes.drain(..) {
            if let (Some(database), false, None) = (&mut self.database, self.troubled, &damage) {
                if let Err(trouble) = database.write(&write) {
                    damage = Some(trouble);
                }
            }
            self.pending_bytes += bytes;
            self.pending.push_back((bytes, write));
        }
        self.forget_the_oldest();
        if let Some(trouble) = damage {
            self.failed(&trouble);
        }
    }

    /// Lets these wait for a commit that succeeds.
    fn wait_for_room(&mut self, writes: Vec<Write>) {
        let mut framed = Vec::new();
        for write in writes {
            framed.clear();
            tail::frame(&write, &mut framed);
            self.pending_bytes += framed.len();
            self.pending.push_back((framed.len(), write));
        }
        self.forget_the_oldest();
    }

    fn forget_the_oldest(&mut self) {
        while self.pending_bytes > PENDING_BYTES {
            let Some((bytes, _)) = self.pending.pop_front() else { break };
            self.pending_bytes -= bytes;
            self.dropped += 1;
        }
    }

    fn commit(&mut self) {
        self.adopt_settings();
        let retry = clock::instant() + self.settings.commit_every;
        let oldest = oldest(&self.settings);
        if !self.open_again() {
            return;
        }
        if self.database.is_none() && !self.begin() {
            self.due = Some(retry);
            return;
        }
        let Some(database) = &mut self.database else { return };
        let mut attempt = || {
            // After a failure nothing of what waits is in the transaction.
            if self.troubled {
                for (_, write) in &self.pending {
                    database.write(write)?;
                }
            }
            database.commit(oldest)
        };
        if let Err(trouble) = attempt() {
            self.due = Some(retry);
            self.failed(&trouble);
            return;
        }
        self.pending.clear();
        self.pending_bytes = 0;
        self.due = None;
        if let Err(error) = self.tail.clear() {
            self.trouble(&format!("the tail cannot be cleared: {error}"));
            self.due = Some(retry);
            return;
        }
        // A database that reuses its pages may find room where the tail finds none: it is not well before both do.
        if self.tail_fails && self.tail.try_out().is_err() {
            self.due = Some(retry);
            return;
        }
        self.tail_fails = false;
        if self.set_troubled(false) {
            info!(dropped = self.dropped, "the history can be written again");
            self.dropped = 0;
        }
    }

    /// Takes what is open into use. Gives what was in it.
    fn move_in(&mut self, files: Files) -> Recovered {
        let Files { database, tail, recovered, left, shortage } = files;
        (self.database, self.tail) = (database, tail);
        if let Some(trouble) = shortage {
            self.trouble(&Chain(&trouble).to_string());
            self.due = Some(clock::instant() + self.settings.commit_every);
            self.wait_for_room(left);
        }
        recovered
    }

    /// Tries to open the files where they could not be yet and it is time. Whether they are open.
    fn open_again(&mut self) -> bool {
        let Some(mut closed) = self.closed.take() else { return true };
        if closed.next <= clock::instant() {
            match open_files(&self.settings) {
                Ok(files) => {
                    let recovered = self.move_in(files);
                    drop(self.news.blocking_send(News::Opened(Box::new(recovered))));
                    return true;
                }
                Err(error) => debug!(error = %Chain(&error), "the history still cannot be opened"),
            }
            closed.next = clock::instant() + closed.backoff.next(fastrand::f64());
        }
        self.due = Some(closed.next);
        self.closed = Some(closed);
        false
    }

    /// Begins a database where there is none. What the hub holds beside messages is written into it anew.
    fn begin(&mut self) -> bool {
        match open_database(&self.settings) {
            Ok((database, _)) => {
                self.database = Some(database);
                drop(self.news.blocking_send(News::Anew));
                true
            }
            Err(trouble) => {
                debug!(error = %Chain(&trouble), "still no history can be begun");
                false
            }
        }
    }

    /// Takes over what a reload has changed; the file stays the same.
    fn adopt_settings(&mut self) {
        let History { path: _, keep, max_bytes, commit_every } = *self.next_settings.borrow_and_update();
        if let Some(database) = self.database.as_mut().filter(|_| max_bytes != self.settings.max_bytes) {
            database.allow(max_bytes);
        }
        (self.settings.keep, self.settings.max_bytes, self.settings.commit_every) =
            (keep, max_bytes, commit_every);
    }

    /// Something could not be written: a damaged file is replaced, for anything else there is a next time.
    fn failed(&mut self, trouble: &Trouble) {
        if let Some(database) = &mut self.database {
            database.roll_back();
        }
        if trouble.is_damage() {
            self.database = None;
            set_aside(&self.settings.path, trouble);
            if !self.begin() {
                error!(path = %self.settings.path.display(), "no history is kept until another one can be begun");
            }
            // What waits goes into the new file with the next commit.
            self.set_troubled(true);
            self.due = Some(clock::instant());
        } else {
            self.trouble(&Chain(trouble).to_string());
        }
    }

    fn trouble(&mut self, why: &str) {
        if !self.set_troubled(true) {
            warn!(path = %self.settings.path.display(), why, "the history cannot be written; it is tried again");
            if let Some(database) = &mut self.database {
                database.roll_back();
            }
        }
    }

    fn fetch(&mut self, fetch: &Fetch) {
        let nothing = || Chunk {
            group: Arc::clone(&fetch.group),
            after: fetch.after,
            upto: fetch.until,
            messages: Vec::new(),
        };
        let chunk = match self.database.as_ref().map(|database| database.fetch(fetch)) {
            Some(Ok(chunk)) => chunk,
            Some(Err(trouble)) => {
                self.failed(&trouble);
                nothing()
            }
            None => nothing(),
        };
        // The hub takes chunks in each turn and never waits for the store; when it has ended, nobody wants them.
        drop(self.news.blocking_send(News::Chunk(chunk)));
    }

    /// Lets each query look at one more slice.
    fn advance(&mut self) {
        for _ in 0..self.scans.len() {
            let Some(mut scan) = self.scans.pop_front() else { return };
            match self.database.as_ref().map(|database| scan.advance(database)) {
                Some(Ok(false)) => self.scans.push_back(scan),
                Some(Ok(true)) | None => scan.finish(),
                Some(Err(trouble)) => {
                    scan.finish();
                    self.failed(&trouble);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    fn begun(folder: &Path, meter: &Gauge) -> (Keeper, Archive, Worker) {
        let settings = History {
            path: folder.join("history.db"),
            keep: Duration::from_secs(60),
            max_bytes: 1 << 20,
            commit_every: Duration::from_secs(5),
        };
        let directory = Arc::new(Directory::new(Vec::new(), Vec::new()));
        let (keeper, archive, worker) = open(settings, directory).unwrap();
        (keeper, archive, worker.telling(meter.clone()))
    }

    fn alarm_rule(id: u64) -> Write {
        Write::Document { collection: "oam/rule".into(), id, body: "{}".into() }
    }

    #[test]
    fn where_there_is_no_database_one_is_begun_as_soon_as_that_can_be() {
        let folder = tempfile::tempdir().unwrap();
        let meter = Gauge::default();
        let (mut keeper, _archive, mut worker) = begun(folder.path(), &meter);
        worker.database = None;
        let path = worker.settings.path.clone();
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        worker.trouble("no space left on device");
        worker.take([Job::Write(alarm_rule(1))].into_iter());
        worker.commit();
        assert_eq!((meter.get(), worker.pending.len()), (1, 1), "it is tried again");
        assert!(worker.due.is_some());
        fs::remove_dir(&path).unwrap();
        worker.commit();
        assert_eq!((meter.get(), worker.pending.len()), (0, 0));
        assert!(matches!(keeper.news.try_recv(), Ok(News::Anew)));
        drop(worker);
        let (keeper, _archive, _worker) = begun(folder.path(), &meter);
        assert_eq!(keeper.recovered.documents.len(), 1);
    }

    #[test]
    fn a_tail_that_takes_nothing_is_trouble_until_it_does() {
        let folder = tempfile::tempdir().unwrap();
        let meter = Gauge::default();
        let (_keeper, _archive, mut worker) = begun(folder.path(), &meter);
        let own = std::mem::replace(&mut worker.tail, Tail::open(&folder.path().join("other")).unwrap().0);
        // The file is there and cannot be written to.
        worker.tail = Tail::refusing(&folder.path().join("other"));
        worker.take([Job::Write(alarm_rule(1))].into_iter());
        assert_eq!(meter.get(), 1);
        worker.commit();
        assert_eq!((meter.get(), worker.pending.len()), (1, 0), "the database has it, the tail would not");
        assert!(worker.due.is_some());
        worker.tail = own;
        worker.commit();
        assert_eq!(meter.get(), 0);
    }

    #[test]
    fn what_there_is_no_room_for_at_the_start_is_known_and_waits() {
        let folder = tempfile::tempdir().unwrap();
        let meter = Gauge::default();
        let (keeper, _archive, mut worker) = begun(folder.path(), &meter);
        worker.take([Job::Write(alarm_rule(7))].into_iter());
        worker.commit();
        let database = worker.database.as_mut().unwrap();
        let foreseen = database.foresee(&[alarm_rule(8)]).unwrap();
        assert_eq!((foreseen.documents.len(), foreseen.last_id), (2, 8));
        assert_eq!(database.recover().unwrap().documents.len(), 1, "it is not in the file");
        worker.trouble("no space left on device");
        worker.wait_for_room(vec![alarm_rule(8)]);
        worker.commit();
        drop((keeper, worker));
        assert_eq!(begun(folder.path(), &meter).0.recovered.documents.len(), 2);
    }

    #[test]
    fn whoever_watches_is_told_while_nothing_can_be_written() {
        let folder = tempfile::tempdir().unwrap();
        let meter = Gauge::default();
        let (_keeper, _archive, mut worker) = begun(folder.path(), &meter);
        worker.commit();
        assert_eq!(meter.get(), 0);
        worker.trouble("no space left on device");
        assert_eq!(meter.get(), 1);
        worker.commit();
        assert_eq!(meter.get(), 0);
    }
}
