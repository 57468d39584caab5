//! One request and its answer on an open port: pauses, draining, sending, listening, and the quiet after a timeout.
//!
//! Promises: a request goes out only after the silence that the framing demands and with an empty input; an answer
//! that is handed back belongs to its request (see `proto/modbus/late.rs` for how that is known without a
//! transaction id); every exchange ends within a few timeouts.

use std::io;
use std::time::{Duration, Instant};

use tokio::time::timeout_at;
use tracing::{debug, info};

use super::port::{Port, READ_SIZE};
use super::recorder::Recorder;
use super::{BusSettings, SerialFraming, Target, TcpFraming};
use crate::clock;
use crate::proto::modbus::frame::{Answer, Framing, Request, RequestError};
use crate::proto::modbus::late::{Debts, Trust};
use crate::proto::modbus::reply::{Defect, Progress, Reply, skip_stale};
use crate::proto::modbus::timing::LineTiming;

/// After a timeout a serial line must be quiet for a quarter of the timeout, at most this long, before the next
/// request: most late answers are a little late, and one that begins while another unit is asked spoils both. It is
/// only the first line of defence; which answer belongs to what is decided by order.
const SETTLE_MAX: Duration = Duration::from_millis(100);

/// A request that was not answered for this many timeouts has been lost, and its answer will never come...
const DEBT_TIMEOUTS: u32 = 10;
/// ...but not before this time, since some gateways keep requests for seconds while they retry on their own line.
const DEBT_LIFETIME_MIN: Duration = Duration::from_secs(5);

/// How often a read is repeated because its answer may have been an earlier one's. Each round settles one earlier
/// timeout; more than a few in a row mean that the unit answers slower than it is asked.
const DOUBT_ROUNDS: u32 = 4;

/// An open port with what is known of its traffic.
#[derive(Debug)]
pub(super) struct Wire {
    port: Port,
    /// Of the last request; over TCP its number is that request's.
    framing: Framing,
    timing: LineTiming,
    timeout: Duration,
    pause: Duration,
    ready_at: Instant,
    carry: Vec<u8>,
    debts: Debts,
    /// The line gives back what is sent.
    echoes: bool,
    answers: u64,
    silent: u32,
    recorder: Recorder,
}

/// Why an exchange gave no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    /// The unit did not answer, or not with anything that can be believed.
    #[error("{0}")]
    NoAnswer(Defect),
    /// The port is gone.
    #[error("the port is lost")]
    Lost(#[source] io::Error),
    /// The request cannot be sent at all.
    #[error("the request cannot be sent")]
    Request(#[source] RequestError),
}

/// How one attempt ended.
enum Attempt {
    Answered(Answer),
    /// Only an answer that may belong to an earlier request.
    Doubted,
}

impl Wire {
    /// Takes over a port that has just been opened, and what may still be answered on it.
    pub(super) fn new(
        port: Port,
        settings: &BusSettings,
        debts: Option<Debts>,
        recorder: Recorder,
        now: Instant,
    ) -> Self {
        let (framing, timing) = match &settings.target {
            Target::Serial(serial) => match serial.framing {
                SerialFraming::Rtu => (Framing::Rtu, serial.timing()),
                SerialFraming::Ascii => (Framing::Ascii, serial.timing()),
            },
            Target::Tcp { framing: TcpFraming::Tcp, .. } => {
                (Framing::Tcp { transaction: 0 }, LineTiming::instant())
            }
            Target::Tcp { framing: TcpFraming::Rtu, .. } => (Framing::Rtu, LineTiming::instant()),
        };
        let lifetime = settings.timeout.saturating_mul(DEBT_TIMEOUTS).max(DEBT_LIFETIME_MIN);
        Self {
            port,
            framing,
            timing,
            timeout: settings.timeout,
            pause: settings.pause,
            // The other side may be in the middle of a frame.
            ready_at: now + timing.silence().max(settings.pause_after_connect),
            carry: Vec::new(),
            debts: debts.unwrap_or_else(|| Debts::new(lifetime)),
            echoes: false,
            answers: 0,
            silent: 0,
            recorder,
        }
    }

    /// Closes the port. What was asked on a serial line may still be answered on it.
    pub(super) fn into_debts(self) -> Debts {
        self.debts
    }

    /// Answers on this port so far. A port that never gave one is not worth opening again at once.
    pub(super) fn answers(&self) -> u64 {
        self.answers
    }

    /// Timeouts since the last answer of any unit.
    pub(super) fn silent(&self) -> u32 {
        self.silent
    }

    /// Asks a unit and waits for its answer. Not cancel safe: an exchange that was begun must be finished, or its
    /// answer becomes the noise of the next.
    pub(super) async fn exchange(&mut self, unit: u8, request: &Request) -> Result<Answer, Fault> {
        for _ in 0..DOUBT_ROUNDS {
            match self.attempt(unit, request).await? {
                Attempt::Answered(answer) => {
                    self.answers = self.answers.saturating_add(1);
                    self.silent = 0;
                    return Ok(answer);
                }
                Attempt::Doubted if request.is_read() => {
                    debug!(unit, %request, "the answer may belong to an earlier request; asking again");
                }
                Attempt::Doubted => break,
            }
        }
        Err(Fault::NoAnswer(Defect::Silence))
    }

    /// Reads and discards what comes while nothing is asked. Ends only when the port is lost. Cancel safe: what is
    /// read is not kept, or kept before the next wait.
    pub(super) async fn watch(&mut self) -> io::Error {
        let mut buffer = [0; READ_SIZE];
        loop {
            match self.port.receive(&mut buffer).await {
                Ok(count) if self.tcp() => {
                    self.record(&buffer, count);
                    self.carry.extend_from_slice(buffer.get(..count).unwrap_or_default());
                    if let Err(defect) = skip_stale(&mut self.carry) {
                        return io::Error::new(io::ErrorKind::InvalidData, defect);
                    }
                }
                Ok(count) => {
                    self.record(&buffer, count);
                    self.ready_at = self.ready_at.max(clock::instant() + self.timing.silence());
                }
                Err(error) => return error,
            }
        }
    }

    async fn attempt(&mut self, unit: u8, request: &Request) -> Result<Attempt, Fault> {
        if let Framing::Tcp { transaction } = &mut self.framing {
            *transaction = transaction.wrapping_add(1);
        }
        let framing = self.framing;
        let frame = request.encode(unit, framing).map_err(Fault::Request)?;
        self.port.wait_until(self.ready_at).await;
        if !self.tcp() {
            let drained = self.port.drain().map_err(Fault::Lost)?;
            if !drained.is_empty() {
                self.recorder.received(&drained, clock::instant());
                self.recorder.note("came while nothing was asked");
            }
        }
        self.recorder.sent(&frame, clock::instant());
        self.port.send(&frame).await.map_err(Fault::Lost)?;
        let mut reply = Reply::new(unit, request, framing);
        if self.echoes {
            reply = reply.behind_echo_of(&frame);
        }
        let carried = std::mem::take(&mut self.carry);
        let progress = reply.feed(&carried);
        let deadline = clock::instant() + self.answer_time(frame.len(), &reply);
        let listened = self.listen(unit, request, &mut reply, progress, deadline).await;
        let now = clock::instant();
        self.ready_at = now + self.timing.silence() + self.pause;
        if self.tcp() {
            self.carry = reply.into_rest();
            return listened;
        }
        match listened {
            Ok(Attempt::Answered(answer)) => {
                if request.is_read() {
                    self.note_echo(reply.began_with_echo_of(&frame));
                }
                Ok(Attempt::Answered(answer))
            }
            Ok(Attempt::Doubted) => {
                self.debts.owe(unit, request.clone(), now);
                self.settle(unit, request, &mut reply).await?;
                Ok(Attempt::Doubted)
            }
            Err(Fault::NoAnswer(defect)) => {
                self.debts.owe(unit, request.clone(), now);
                self.settle(unit, request, &mut reply).await?;
                Err(Fault::NoAnswer(defect))
            }
            Err(fault @ (Fault::Lost(_) | Fault::Request(_))) => Err(fault),
        }
    }

    fn note_echo(&mut self, echoes: bool) {
        if self.echoes != echoes {
            info!(echoes, "the line gives back what is sent, or has ceased to");
            self.echoes = echoes;
        }
    }

    fn record(&self, buffer: &[u8], count: usize) {
        self.recorder.received(buffer.get(..count).unwrap_or_default(), clock::instant());
    }

    /// Whether a transaction number tells answers apart.
    fn tcp(&self) -> bool {
        matches!(self.framing, Framing::Tcp { .. })
    }

    /// Listens until there is an answer that can be believed, or until the time is up.
    async fn listen(
        &mut self,
        unit: u8,
        request: &Request,
        reply: &mut Reply,
        mut progress: Progress,
        deadline: Instant,
    ) -> Result<Attempt, Fault> {
        let mut buffer = [0; READ_SIZE];
        let mut doubted = false;
        loop {
            match progress {
                Progress::Complete(answer) => {
                    let judged = self.debts.judge(unit, request, &answer, clock::instant());
                    if self.tcp() || judged == Trust::Believed {
                        return Ok(Attempt::Answered(answer));
                    }
                    // The answer to this request should be right behind it.
                    doubted = true;
                    progress = reply.again();
                    continue;
                }
                Progress::Bad(defect @ Defect::NotModbus) => {
                    return Err(Fault::Lost(io::Error::new(io::ErrorKind::InvalidData, defect)));
                }
                Progress::Bad(defect) => {
                    self.silent = self.silent.saturating_add(1);
                    self.recorder.note(&defect.to_string());
                    return Err(Fault::NoAnswer(defect));
                }
                Progress::Incomplete => {}
            }
            progress = match timeout_at(deadline.into(), self.port.receive(&mut buffer)).await {
                Ok(Ok(count)) => {
                    self.record(&buffer, count);
                    reply.feed(buffer.get(..count).unwrap_or_default())
                }
                Ok(Err(error)) => return Err(Fault::Lost(error)),
                Err(_) if doubted => return Ok(Attempt::Doubted),
                Err(_) => {
                    self.silent = self.silent.saturating_add(1);
                    let defect = reply.defect();
                    self.recorder.note(&defect.to_string());
                    return Err(Fault::NoAnswer(defect));
                }
            };
        }
    }

    /// Keeps quiet after a timeout, until the line is quiet too or another timeout has passed. A late answer that
    /// comes now pays its debt, so that the next request need not doubt its own.
    async fn settle(&mut self, unit: u8, request: &Request, reply: &mut Reply) -> Result<(), Fault> {
        let mut buffer = [0; READ_SIZE];
        let quiet = (self.timeout / 4).min(SETTLE_MAX).max(self.timing.silence());
        let end = clock::instant() + self.timeout.max(quiet);
        loop {
            let now = clock::instant();
            let until = end.min(now + quiet);
            match timeout_at(until.into(), self.port.receive(&mut buffer)).await {
                Ok(Ok(count)) => {
                    self.record(&buffer, count);
                    let progress = reply.feed(buffer.get(..count).unwrap_or_default());
                    if let Progress::Complete(answer) = progress {
                        debug!(unit, %request, "the answer came after the timeout");
                        self.recorder.note("came after the timeout");
                        self.debts.judge(unit, request, &answer, clock::instant());
                    }
                }
                Ok(Err(error)) => return Err(Fault::Lost(error)),
                Err(_) => break,
            }
        }
        self.ready_at = clock::instant().max(self.ready_at);
        Ok(())
    }

    /// From the end of sending (which only means that the system has the bytes) to the end of the answer.
    fn answer_time(&self, request_length: usize, reply: &Reply) -> Duration {
        let characters = |count: usize| self.timing.characters(u32::try_from(count).unwrap_or(u32::MAX));
        characters(request_length) + self.timeout + characters(reply.expected_length())
    }
}
