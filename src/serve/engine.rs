//! The engine: one session run against the hub, whatever carries it.
//!
//! It feeds the session, drains it completely after every input, carries its wishes to the hub, and keeps what it
//! wants said until the carrier (a WebSocket or an HTTP call) has taken it. It attaches to the hub only when the
//! session first wants something from it, so a call that answers at once costs the hub nothing.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context as Waking, Poll};
use std::time::Instant;

use tokio::sync::mpsc;
use tracing::{Span, debug, warn};

use super::Shared;
use super::live::{Coming, Live};
use crate::clock;
use crate::dialects::{COMMANDS_IN_FLIGHT, Closing, Context, Input, Output, Response, Session, Token};
use crate::hub::handle::{
    Account, Attachment, HubGone, HubHandle, HubRequest, SessionKey, SessionReply, Told,
};
use crate::meters::DialectMeters;
use crate::model::client::{Client, Dialect};
use crate::model::command::{Lease, Outcome};
use crate::model::message::DeviceMessage;
use crate::model::snapshot::{Answer, Question};
use crate::text::Text;

/// Device messages that are handled before what they gave is written out: enough to fill a few packets, few enough
/// that a reply behind them does not wait long. One where the session wants it so.
const BATCH: usize = 64;

/// Questions under way above which a carrier stops reading from its client. With the commands under way they fit
/// into the session's reply queue.
const QUESTIONS_IN_FLIGHT: usize = 32;

/// Answers of the history store that wait for the session. One message of a client leads to a few questions at
/// most, so they always fit; one that did not would be lost.
const ANSWERS: usize = 2 * QUESTIONS_IN_FLIGHT;

/// A session and its standing with the hub.
#[derive(Debug)]
pub(super) struct Engine {
    session: Box<dyn Session>,
    hub: HubHandle,
    /// Length of the message queue to ask for.
    queue: usize,
    attachment: Option<Attachment>,
    /// Where the history store answers, once it was asked something.
    answers: Option<Box<Answers>>,
    /// Replies whose turn comes after messages that are still in their queue; as many as the queue of replies holds.
    told: VecDeque<Box<Told>>,
    /// Device messages that came out of their queue.
    seen: u64,
    /// Those of them that the session has taken in.
    taken: u64,
    /// Whether something that the session said was lost, so that nothing later can be called delivered.
    lost: bool,
    commands: usize,
    questions: usize,
    /// Whether its client has tied a value to it, as far as is known here: it may have been refused, or taken off again.
    leased: bool,
    client: Option<Arc<Client>>,
    /// Where a session that lives long hears of a changed configuration, and the dialect that it speaks.
    live: Option<(Coming, Dialect)>,
    meters: Arc<DialectMeters>,
    /// Its place among the open sessions; a call has none.
    counted: Option<Counted>,
    /// What the session wants sent, in order.
    pub(super) outbox: Vec<Text>,
    /// Whether something in the outbox, or in it before, answers something: it is no device message that may wait for others.
    pub(super) urgent: bool,
    /// Set when the session has spoken its last word.
    pub(super) verdict: Option<Verdict>,
}

/// The way back from the history store.
#[derive(Debug)]
struct Answers {
    sender: mpsc::Sender<(Token, Answer)>,
    receiver: mpsc::Receiver<(Token, Answer)>,
}

/// A session's last word.
#[derive(Debug)]
pub(super) enum Verdict {
    /// Close the connection.
    Close {
        /// RFC 6455 close code.
        code: u16,
        /// In words.
        reason: String,
    },
    /// Answer the call.
    Respond(Response),
}

/// What the hub has for the session.
#[derive(Debug)]
pub(super) enum News {
    /// The batch has device messages.
    Messages,
    /// A reply of the hub whose turn it is.
    Reply(Box<Told>),
    /// An answer of the history store.
    Answer(Token, Answer),
    /// The configuration has changed.
    Changed(Arc<Shared>),
    /// The hub has ended.
    Gone,
}

impl Engine {
    /// A session that has not been fed anything yet.
    pub(super) fn new(
        session: Box<dyn Session>,
        hub: HubHandle,
        queue: usize,
        meters: Arc<DialectMeters>,
    ) -> Self {
        Self {
            session,
            hub,
            queue,
            attachment: None,
            answers: None,
            told: VecDeque::new(),
            seen: 0,
            taken: 0,
            lost: false,
            commands: 0,
            questions: 0,
            leased: false,
            client: None,
            live: None,
            meters,
            counted: None,
            outbox: Vec::new(),
            urgent: false,
            verdict: None,
        }
    }

    /// Counts it among the open sessions for as long as it lives.
    pub(super) fn count(&mut self) {
        self.counted.get_or_insert_with(|| Counted::among(&self.meters));
    }

    /// Lets a session that outlives a request follow the configuration. `live` must have given what the session was
    /// made from.
    #[must_use]
    pub(super) fn following(mut self, live: Live, dialect: Dialect) -> Self {
        self.live = Some((live.coming(), dialect));
        self
    }

    /// When to feed [`Input::Timeout`].
    pub(super) fn timeout(&self) -> Option<Instant> {
        self.session.timeout()
    }

    /// Whether it is known who the client is.
    pub(super) fn known(&self) -> bool {
        self.session.known()
    }

    /// Whether a client has tied a value to the session.
    pub(super) fn leased(&self) -> bool {
        self.leased
    }

    /// Whether the session has so many questions under way that its client should not be read further.
    pub(super) fn saturated(&self) -> bool {
        self.questions >= QUESTIONS_IN_FLIGHT
    }

    /// What it and the hub know of each other beside their queues.
    pub(super) fn account(&self) -> Option<Arc<Account>> {
        self.attachment.as_ref().map(|attachment| Arc::clone(&attachment.account))
    }

    /// Device messages that wait in their queue.
    pub(super) fn waiting(&self) -> usize {
        self.attachment.as_ref().map_or(0, |attachment| attachment.messages.len())
    }

    /// Puts messages that are there into the batch, so many at most.
    pub(super) fn pull(&mut self, batch: &mut Vec<Arc<DeviceMessage>>, most: usize) {
        let most = most.min(self.most());
        let Some(attachment) = &mut self.attachment else { return };
        while batch.len() < most {
            let Ok(message) = attachment.messages.try_recv() else { break };
            batch.push(message);
        }
        if !batch.is_empty() {
            self.listen();
        }
    }

    /// How many messages the session is given before what it makes of them is written.
    fn most(&self) -> usize {
        if self.session.one_by_one() { 1 } else { BATCH }
    }

    /// Takes note of the replies that are there, after messages were taken: those that stand before one of them are.
    fn listen(&mut self) {
        while let Some(Ok(told)) = self.attachment.as_mut().map(|own| own.replies.try_recv()) {
            self.hear(told);
        }
    }

    /// Whether there are replies that the session has not been told.
    pub(super) fn hears(&self) -> bool {
        !self.told.is_empty()
    }

    /// Takes note of a reply. A session that is no longer served hears of it before everything else.
    fn hear(&mut self, told: Box<Told>) {
        if matches!(told.reply, SessionReply::Evicted) {
            self.told.push_front(told);
        } else {
            self.told.push_back(told);
        }
    }

    /// A reply that came and whose turn it is, or the messages before it.
    fn due(&mut self, batch: &mut Vec<Arc<DeviceMessage>>) -> Option<News> {
        let before = self.told.front()?.after.saturating_sub(self.seen);
        self.pull(batch, usize::try_from(before).unwrap_or(BATCH));
        if batch.is_empty() { self.told.pop_front().map(News::Reply) } else { Some(News::Messages) }
    }

    /// Waits for news; for ever when there can be none. Messages are put into `batch`.
    ///
    /// Cancel-safe: what has not been returned stays where it is.
    pub(super) async fn news(&mut self, batch: &mut Vec<Arc<DeviceMessage>>) -> News {
        std::future::poll_fn(|waking| match self.poll_rare_news(waking) {
            Poll::Pending => self.poll_news(batch, false, waking),
            ready @ Poll::Ready(_) => ready,
        })
        .await
    }

    /// Looks for news from the hub. While messages are to gather, they stay in their queue, but for those that come
    /// before a reply. The queues are polled and not awaited: a future for each would be made and dropped with every
    /// message.
    pub(super) fn poll_news(
        &mut self,
        batch: &mut Vec<Arc<DeviceMessage>>,
        gathering: bool,
        waking: &mut Waking<'_>,
    ) -> Poll<News> {
        loop {
            if let Some(news) = self.due(batch) {
                return Poll::Ready(news);
            }
            let most = self.most();
            let Some(attachment) = &mut self.attachment else { return Poll::Pending };
            match attachment.replies.poll_recv(waking) {
                Poll::Ready(Some(told)) => self.hear(told),
                Poll::Ready(None) => return Poll::Ready(News::Gone),
                Poll::Pending if gathering => return Poll::Pending,
                Poll::Pending => {
                    let taken = attachment.messages.poll_recv_many(waking, batch, most);
                    return taken.map(|taken| {
                        self.listen();
                        if taken == 0 { News::Gone } else { News::Messages }
                    });
                }
            }
        }
    }

    /// Looks for what comes now and then: another configuration, and answers of the history store.
    pub(super) fn poll_rare_news(&mut self, waking: &mut Waking<'_>) -> Poll<News> {
        if let Some((coming, _)) = &mut self.live {
            if let Poll::Ready(shared) = coming.poll(waking) {
                return Poll::Ready(News::Changed(shared));
            }
        }
        if let Some(answers) = &mut self.answers {
            if let Poll::Ready(Some((token, answer))) = answers.receiver.poll_recv(waking) {
                return Poll::Ready(News::Answer(token, answer));
            }
        }
        Poll::Pending
    }

    /// Feeds the news.
    pub(super) async fn take(&mut self, news: News, batch: &mut Vec<Arc<DeviceMessage>>) {
        match news {
            News::Messages => {
                self.meters.delivered.inc_by(u64::try_from(batch.len()).unwrap_or_default());
                for message in batch.drain(..) {
                    while self.told.front().is_some_and(|told| told.after <= self.seen) {
                        let Some(told) = self.told.pop_front() else { break };
                        self.reply(told.reply).await;
                    }
                    self.seen += 1;
                    // After its last word the session takes nothing in.
                    self.taken += u64::from(self.verdict.is_none());
                    self.step(Input::Message(message)).await;
                }
            }
            News::Reply(told) => self.reply(told.reply).await,
            News::Answer(token, answer) => self.reply(SessionReply::Answer(token, answer)).await,
            News::Changed(shared) => {
                self.hub = shared.hub.clone().like(&self.hub);
                self.step(Input::Reconfigured(Arc::clone(&shared.context))).await;
                if !self.is_welcome(&shared.context) {
                    self.step(Input::Closing(Closing::Dismissed)).await;
                }
            }
            News::Gone => {
                // The last words may lie in the other queue.
                self.listen();
                while let Some(told) = self.told.pop_front() {
                    self.reply(told.reply).await;
                }
                self.attachment = None;
                self.step(Input::Closing(Closing::Shutdown)).await;
            }
        }
    }

    /// Tells the hub how many messages are written, after everything in the outbox was.
    pub(super) fn confirm(&self) {
        if let (Some(attachment), false) = (&self.attachment, self.lost) {
            let holding = u64::try_from(self.session.holding()).unwrap_or(u64::MAX);
            attachment.account.written.store(self.taken.saturating_sub(holding), Ordering::Release);
        }
    }

    /// Something out of the outbox could not be written.
    pub(super) fn lose(&mut self) {
        self.lost = true;
    }

    async fn reply(&mut self, reply: SessionReply) {
        let input = self.input(reply);
        self.step(input).await;
    }

    /// A reply as the session takes it.
    fn input(&mut self, reply: SessionReply) -> Input {
        match reply {
            SessionReply::Accepted(token) => Input::Accepted(token),
            SessionReply::Outcome(token, outcome) => {
                self.commands = self.commands.saturating_sub(1);
                self.meters.settled(&outcome);
                Input::Outcome(token, outcome)
            }
            SessionReply::Answer(token, answer) => {
                self.questions = self.questions.saturating_sub(1);
                Input::Answer(token, answer)
            }
            SessionReply::GroupEmpty => Input::GroupEmpty,
            SessionReply::DocumentsChanged(collection) => Input::DocumentsChanged(collection),
            SessionReply::Lagged(missed) => {
                self.meters.missed.inc_by(missed);
                Input::Lagged(missed)
            }
            SessionReply::Evicted => Input::Closing(Closing::TooSlow),
        }
    }

    /// Feeds one input and drains the session. After its last word it is fed nothing more.
    pub(super) async fn step(&mut self, input: Input) {
        // A command that cannot be passed on is answered here; the session hears of it after it has been drained.
        // There is hardly ever one, and an empty queue takes no memory.
        let mut inputs = VecDeque::new();
        let mut next = Some(input);
        while let Some(input) = next {
            if self.verdict.is_some() {
                return;
            }
            let closing = if let Input::Closing(closing) = &input { Some(*closing) } else { None };
            if closing == Some(Closing::TooSlow) {
                // Whoever found it out: the hub, for which its queue was full, or the carrier, whose write took too long.
                self.meters.evicted.inc();
                warn!("the client does not read fast enough and is cut off");
            }
            let (may_wait, before) = (matches!(input, Input::Message(_)), self.outbox.len());
            self.session.handle(input, clock::now());
            // What goes to the hub is boxed: every idle connection would otherwise keep room for it.
            while let Some(wish) = self.wish() {
                let carrying = Box::pin(self.carry(wish));
                inputs.extend(carrying.await);
            }
            self.urgent |= !may_wait && self.outbox.len() > before;
            if let Some(closing) = closing {
                self.verdict.get_or_insert_with(|| own_words(closing));
            }
            next = inputs.pop_front();
        }
    }

    /// Drains the session up to the next thing that it wants from somebody else.
    fn wish(&mut self) -> Option<Output> {
        loop {
            match self.session.poll()? {
                Output::Send(text) => self.outbox.push(text),
                Output::Close { code, reason } => {
                    self.verdict = Some(Verdict::Close { code, reason });
                    return None;
                }
                Output::Respond(response) => {
                    self.verdict = Some(Verdict::Respond(response));
                    return None;
                }
                wish @ (Output::Watch { .. } | Output::Submit { .. } | Output::Ask { .. }) => {
                    return Some(wish);
                }
            }
        }
    }

    /// Takes a wish to who can fulfil it. Gives what the session is to hear of that at once.
    async fn carry(&mut self, wish: Output) -> Option<Input> {
        let carried = match wish {
            Output::Watch { client, interests } => {
                self.note(&client);
                self.ask_hub(|key| HubRequest::Watch { key, client, interests }).await
            }
            Output::Submit { token, client, command } => {
                self.note(&client);
                self.leased |= command.lease == Some(Lease::Session);
                if self.commands >= COMMANDS_IN_FLIGHT {
                    self.meters.settled(&Outcome::Busy);
                    return Some(Input::Outcome(token, Arc::new(Outcome::Busy)));
                }
                self.commands += 1;
                self.ask_hub(|key| HubRequest::Submit { key, token, client, command }).await
            }
            Output::Ask { token, client, question } => {
                self.note(&client);
                self.questions += 1;
                let question = self.ask_archive(token, &client, question).await?;
                self.ask_hub(|key| HubRequest::Ask { key, token, client, question }).await
            }
            Output::Send(_) | Output::Close { .. } | Output::Respond(_) => Ok(()),
        };
        carried.err().map(|HubGone| Input::Closing(Closing::Shutdown))
    }

    /// Asks the history store what only it knows; gives back what is for the hub.
    async fn ask_archive(&mut self, token: Token, client: &Client, question: Question) -> Option<Question> {
        let Some(archive) = self.hub.archive() else { return Some(question) };
        let mut way_back = || {
            let new = || {
                let (sender, receiver) = mpsc::channel(ANSWERS);
                Box::new(Answers { sender, receiver })
            };
            self.answers.get_or_insert_with(new).sender.clone()
        };
        match question {
            Question::History(query) => {
                archive.history(client, query, token, way_back()).await;
                None
            }
            Question::Latest(query) => {
                archive.latest(client, query, token, way_back()).await;
                None
            }
            Question::Events(query) => {
                archive.events(client, query, token, way_back()).await;
                None
            }
            Question::Past(query) => {
                archive.past(client, query, token, way_back()).await;
                None
            }
            Question::Snapshot(_)
            | Question::Group(_)
            | Question::Documents(_)
            | Question::Alarms(_)
            | Question::Outcome(_) => Some(question),
        }
    }

    /// Sends a request, attaching first if need be.
    async fn ask_hub(&mut self, request: impl FnOnce(SessionKey) -> HubRequest) -> Result<(), HubGone> {
        let key = match &self.attachment {
            Some(attachment) => attachment.key,
            None => self.attachment.insert(self.hub.attach(self.queue).await?).key,
        };
        self.hub.send(request(key)).await
    }

    /// Whether the session's client and its dialect are still served.
    fn is_welcome(&self, context: &Context) -> bool {
        let enabled = self.live.as_ref().is_none_or(|(_, dialect)| context.settings.common(*dialect).enabled);
        let client = self.session.client().or(self.client.as_ref());
        enabled && client.is_none_or(|client| context.knows(client))
    }

    /// Writes into the session's span and the log whose session it is, once.
    fn note(&mut self, client: &Arc<Client>) {
        if self.client.as_ref().is_none_or(|known| known.id != client.id) {
            Span::current().record("client", &*client.id);
            debug!(client = &*client.id, "session is known");
            self.client = Some(Arc::clone(client));
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if let Some(attachment) = &self.attachment {
            self.hub.detach(attachment.key);
        }
    }
}

/// One of the open sessions of a dialect, for as long as this lives.
#[derive(Debug)]
struct Counted(Arc<DialectMeters>);

impl Counted {
    fn among(meters: &Arc<DialectMeters>) -> Self {
        meters.opened.inc();
        meters.sessions.inc();
        Self(Arc::clone(meters))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.sessions.dec();
    }
}

/// The close for a session that has no words of its own.
fn own_words(closing: Closing) -> Verdict {
    let (code, reason) = match closing {
        Closing::Shutdown => (1001, "the gateway stops"),
        Closing::TooSlow => (1013, "messages are not read fast enough"),
        Closing::Silent => (1001, "nothing was heard for too long"),
        Closing::Dismissed => (1008, "the credential is not valid any more"),
    };
    Verdict::Close { code, reason: reason.to_owned() }
}
