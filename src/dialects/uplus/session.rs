//! One client's connection: login verdict first, then one command after another, and pushes in between.
//!
//! ```text
//!            login wrong -> ack 00001, close 1008
//! Open ----->
//!            login right -> ask to join the group -> full:   ack 00001, close 4500
//!                                                    joined: ack 00000, then serve
//! ```
//!
//! Acks keep the order of the requests: one command is under way at a time, the others wait. A push never
//! overtakes the ack of the subscription that it may stem from. When a system cancels its last relation, each of its
//! sessions that ever held one closes by itself, after its acks.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use super::command::{Code, Command, Granted, Refused};
use super::relation::Relation;
use super::sign::{Login, Refusal};
use super::{push, wire};
use crate::dialects::{Closing, Context, Input, Output, Session, Token};
use crate::model::client::Client;
use crate::model::interest::{GroupAnswer, GroupAsk};
use crate::model::message::DeviceMessage;
use crate::model::snapshot::{Answer, Question};
use crate::model::time::Now;
use crate::text::{self, Text};

/// Weight of the commands that may wait for their turn: one for each, and one for each relation that they name. It
/// admits a client that subscribes a few thousand keys at once. When full the connection is closed, since an answer
/// out of its turn would be taken for another one's.
const WAITING: usize = 4096;

/// Pushes that are held back while a subscription is under way. When full the oldest goes out before the ack, which
/// confuses nobody as much as a lost push.
const HELD_BACK: usize = 1024;

/// The name of the login's verdict.
const LOGIN_ACK: &str = "authenticate-ack";

/// Close codes: those of RFC 6455, and the vendor's own for a channel that its clients shall open again.
mod close {
    pub(super) const DONE: u16 = 1000;
    pub(super) const NOT_TEXT: u16 = 1007;
    pub(super) const REFUSED: u16 = 1008;
    pub(super) const COME_AGAIN: u16 = 4500;
}

/// One client's connection.
#[derive(Debug)]
pub(super) struct UplusSession {
    context: Arc<Context>,
    phase: Phase,
    waiting: VecDeque<Command>,
    weight: usize,
    under_way: Option<(Token, UnderWay)>,
    next_token: u64,
    held_back: VecDeque<Arc<DeviceMessage>>,
    group_empty: bool,
    /// Where relations begin that are new to the group.
    earliest: bool,
    outputs: VecDeque<Output>,
}

#[derive(Debug)]
enum Phase {
    /// Not open yet.
    Arrived(Result<Login, Refusal>),
    /// Logged in; serving once the group is joined.
    Member(Arc<Client>),
    /// Nothing more is said or heard.
    Closed,
}

/// What the hub was asked.
#[derive(Debug)]
enum UnderWay {
    Join,
    Hold(Vec<Granted>),
    Release(Vec<Granted>),
    Search(&'static str),
}

impl Session for UplusSession {
    fn handle(&mut self, input: Input, _now: Now) {
        match input {
            Input::Open => self.open(),
            Input::Text(text) => self.read(&text),
            Input::Binary(bytes) => match std::str::from_utf8(&bytes) {
                Ok(text) => self.read(text),
                Err(_) => self.close(close::NOT_TEXT, "a message must be UTF-8"),
            },
            Input::Message(message) => self.offer(message),
            Input::Answer(token, Answer::Group(answer)) => self.settle(token, Some(answer)),
            Input::Answer(
                token,
                Answer::Snapshot(_)
                | Answer::History(_)
                | Answer::Latest(_)
                | Answer::Events(_)
                | Answer::Outcome(_)
                | Answer::Past(_)
                | Answer::Documents(_)
                | Answer::Alarms(_),
            ) => self.settle(token, None),
            Input::GroupEmpty => self.group_empty = true,
            Input::Reconfigured(context) => self.context = context,
            Input::Closing(closing @ Closing::Dismissed) => self.close(close::REFUSED, farewell(closing)),
            Input::Closing(closing) => self.close(close::COME_AGAIN, farewell(closing)),
            // A balanced push that was dropped is counted by the hub; the dialect has no words for it. Commands and
            // timers this session never has.
            Input::Lagged(_)
            | Input::Accepted(_)
            | Input::Outcome(_, _)
            | Input::DocumentsChanged(_)
            | Input::Timeout => {}
        }
        self.advance();
    }

    fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn timeout(&self) -> Option<Instant> {
        None
    }

    fn client(&self) -> Option<&Arc<Client>> {
        match &self.phase {
            Phase::Member(client) => Some(client),
            Phase::Arrived(_) | Phase::Closed => None,
        }
    }

    fn holding(&self) -> usize {
        self.held_back.len()
    }

    fn one_by_one(&self) -> bool {
        true
    }
}

impl UplusSession {
    /// A connection with the verdict on its login.
    pub(super) fn new(context: Arc<Context>, login: Result<Login, Refusal>) -> Self {
        Self {
            context,
            phase: Phase::Arrived(login),
            waiting: VecDeque::new(),
            weight: 0,
            under_way: None,
            next_token: 0,
            held_back: VecDeque::new(),
            group_empty: false,
            earliest: false,
            outputs: VecDeque::new(),
        }
    }

    fn open(&mut self) {
        let Phase::Arrived(login) = &self.phase else { return };
        match login.clone() {
            Ok(Login { client, earliest }) => {
                self.earliest = earliest;
                tracing::debug!(dialect = "uplus", client = %client.id, earliest, "logged in");
                let settings = &self.context.settings.uplus;
                let (limit, retain) = (settings.connections_per_system, settings.retention);
                let ask = GroupAsk::Join { group: Arc::clone(&client.id), limit, retain };
                self.phase = Phase::Member(client);
                self.ask(UnderWay::Join, ask);
            }
            Err(Refusal { system, why }) => {
                self.send(wire::failed(LOGIN_ACK, &system, wire::LOGIN_FAILED, &why));
                self.close(close::REFUSED, "authentication failed");
            }
        }
    }

    fn read(&mut self, text: &str) {
        let Phase::Member(client) = &self.phase else { return };
        let command = Command::read(text, client, &self.context.directory);
        let weight = command.weight();
        if !self.waiting.is_empty() && self.weight + weight > WAITING {
            self.close(close::COME_AGAIN, "too many commands wait for their turn");
            return;
        }
        self.weight += weight;
        self.waiting.push_back(command);
    }

    /// Begins what waits, in order, until the hub has to be asked; closes when nothing is left to serve.
    fn advance(&mut self) {
        while self.under_way.is_none() {
            let Some(command) = self.waiting.pop_front() else { break };
            self.weight = self.weight.saturating_sub(command.weight());
            self.begin(command);
        }
        let idle = self.under_way.is_none() && matches!(self.phase, Phase::Member(_));
        if idle && self.group_empty {
            self.close(close::DONE, "no subscription is left");
        }
    }

    fn begin(&mut self, command: Command) {
        match command {
            Command::Subscribe(granted) => {
                let relations = granted.iter().map(|granted| granted.held.clone()).collect();
                self.ask(UnderWay::Hold(granted), GroupAsk::Hold { relations, earliest: self.earliest });
            }
            Command::Unsubscribe(granted) => {
                let labels = granted.iter().map(|granted| Arc::clone(&granted.held.label)).collect();
                self.ask(UnderWay::Release(granted), GroupAsk::Release(labels));
            }
            Command::SearchSystem => self.ask(UnderWay::Search("searchSystem-ack"), GroupAsk::All),
            Command::SearchClient => self.ask(UnderWay::Search("searchClient-ack"), GroupAsk::Mine),
            Command::KeepAlive => self.succeed("keepAlive-ack", None),
            Command::Refused(Refused { ack, code, desc }) => self.fail(&ack, code, &desc),
        }
    }

    /// What an ack says of these relations.
    fn described(&self, granted: &[Granted], what: &str) -> String {
        let form = self.context.settings.uplus.desc;
        let each = |granted: &Granted| format!("Topic [{}] {what}", granted.relation.described(form));
        granted.iter().map(each).collect::<Vec<_>>().join(",")
    }

    fn settle(&mut self, token: Token, answer: Option<GroupAnswer>) {
        let Some((_, under_way)) = self.under_way.take_if(|(asked, _)| *asked == token) else { return };
        match (under_way, answer) {
            (UnderWay::Join, Some(GroupAnswer::Joined)) => self.succeed(LOGIN_ACK, None),
            (UnderWay::Join, Some(GroupAnswer::Full)) => {
                self.turn_away("too many connections of this system");
            }
            (UnderWay::Join, _) => self.turn_away("the gateway cannot serve this system now"),
            (UnderWay::Hold(granted), Some(GroupAnswer::Done)) => {
                self.group_empty = false;
                self.succeed("subscribe-ack", Some(&self.described(&granted, "subscribed ok")));
            }
            (UnderWay::Release(granted), Some(GroupAnswer::Done)) => {
                self.succeed("unsubscribe-ack", Some(&self.described(&granted, "unsubscribed ok")));
            }
            (UnderWay::Search(ack), Some(GroupAnswer::Relations(labels))) => self.found(ack, &labels),
            (under_way, Some(GroupAnswer::NotJoined)) => {
                self.fail(under_way.ack(), Code::Connection, "the connection is not in its system's group");
            }
            (UnderWay::Search(ack), _) => self.fail(ack, Code::Search, "the search went wrong"),
            (under_way, _) => self.fail(under_way.ack(), Code::Unknown, "unexpected internal answer"),
        }
        while let Some(message) = self.held_back.pop_front() {
            self.push(&message);
        }
    }

    fn found(&mut self, ack: &str, labels: &[Arc<str>]) {
        let relations: Option<Vec<_>> = labels.iter().map(|label| Relation::from_label(label)).collect();
        match relations {
            Some(relations) => self.send(wire::found(ack, &relations)),
            None => self.fail(ack, Code::Search, "the search went wrong"),
        }
    }

    /// Pushes a message, or keeps it until the ack of the subscription under way is out.
    fn offer(&mut self, message: Arc<DeviceMessage>) {
        if !matches!(self.under_way, Some((_, UnderWay::Join | UnderWay::Hold(_)))) {
            self.push(&message);
            return;
        }
        if self.held_back.len() == HELD_BACK {
            if let Some(oldest) = self.held_back.pop_front() {
                self.push(&oldest);
            }
        }
        self.held_back.push_back(message);
    }

    fn push(&mut self, message: &DeviceMessage) {
        let text = push::push(message, self.context.settings.uplus.push_format);
        if text.contains('\n') {
            for piece in text::lines(&text) {
                self.output(Output::Send(piece));
            }
        } else {
            self.output(Output::Send(text));
        }
    }

    fn ask(&mut self, under_way: UnderWay, ask: GroupAsk) {
        let Phase::Member(client) = &self.phase else { return };
        let client = Arc::clone(client);
        let token = Token(self.next_token);
        self.next_token += 1;
        self.under_way = Some((token, under_way));
        self.output(Output::Ask { token, client, question: Question::Group(ask) });
    }

    fn succeed(&mut self, ack: &str, desc: Option<&str>) {
        self.send(wire::done(ack, &self.system(), desc));
    }

    fn fail(&mut self, ack: &str, code: Code, desc: &str) {
        self.send(wire::failed(ack, &self.system(), code.wire(), desc));
    }

    /// A login that was right and cannot be served; the client shall try again.
    fn turn_away(&mut self, why: &str) {
        self.send(wire::failed(LOGIN_ACK, &self.system(), wire::LOGIN_FAILED, why));
        self.close(close::COME_AGAIN, why);
    }

    fn system(&self) -> Arc<str> {
        match &self.phase {
            Phase::Member(client) => Arc::clone(&client.id),
            Phase::Arrived(_) | Phase::Closed => Arc::from(""),
        }
    }

    fn send(&mut self, text: String) {
        self.output(Output::Send(Text::from(text)));
    }

    fn close(&mut self, code: u16, reason: &str) {
        self.output(Output::Close { code, reason: reason.to_owned() });
        self.phase = Phase::Closed;
        self.waiting.clear();
        self.weight = 0;
        self.under_way = None;
        // What is held back stays, so that it counts as not delivered.
    }

    /// Nothing follows a close.
    fn output(&mut self, output: Output) {
        if !matches!(self.phase, Phase::Closed) {
            self.outputs.push_back(output);
        }
    }
}

impl UnderWay {
    fn ack(&self) -> &'static str {
        match self {
            Self::Join => LOGIN_ACK,
            Self::Hold(_) => "subscribe-ack",
            Self::Release(_) => "unsubscribe-ack",
            Self::Search(ack) => ack,
        }
    }
}

fn farewell(closing: Closing) -> &'static str {
    match closing {
        Closing::Shutdown => "the gateway stops",
        Closing::TooSlow => "the client reads too slowly",
        Closing::Silent => "the client is silent",
        Closing::Dismissed => "the system may no longer connect",
    }
}
