//! The pure stage: dialect, session and hub state with a scripted driver, no socket, no task, no waiting.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use pentad::dialects::shared::logins::Logins;
use pentad::dialects::{self, Context, Input, Opening, Origin, Output, Session};
use pentad::drivers::{CommandId, DriverCommand, Observation};
use pentad::hub::handle::{SessionKey, SessionReply};
use pentad::hub::state::{Effect, HubState};
use pentad::model::client::{Client as Credential, ClientBook, Dialect};
use pentad::model::time::{Now, UnixMillis};

use super::transcript::{Reached, Request, Seen, Settle, Stage};
use super::{bed, script};

/// Wall clock at which every transcript begins: 2026-11-21T00:00:00Z.
const BEGIN: i64 = 1_795_219_200_000;

pub struct PureStage {
    dialect: Dialect,
    context: Arc<Context>,
    hub: HubState,
    now: Now,
    clients: BTreeMap<usize, Client>,
    next_key: u64,
    /// Commands that reached the driver: those not yet looked at, and all unsettled ones.
    fresh: VecDeque<DriverCommand>,
    unsettled: Vec<(CommandId, Arc<pentad::model::device::Device>)>,
}

struct Client {
    key: SessionKey,
    session: Option<Box<dyn Session>>,
    upgraded: bool,
    seen: VecDeque<Seen>,
}

impl PureStage {
    pub fn new(dialect: Dialect) -> Self {
        Self::of(dialect, bed::context())
    }

    /// With other clients than those of the test bed.
    pub fn with_clients(dialect: Dialect, clients: Vec<Arc<Credential>>) -> Self {
        Self::of(dialect, Context { clients: Arc::new(ClientBook::new(clients)), ..bed::context() })
    }

    fn of(dialect: Dialect, context: Context) -> Self {
        let context = Arc::new(context);
        let mut stage = Self {
            dialect,
            hub: HubState::new(Arc::clone(&context.directory)),
            context,
            now: Now::new(epoch(), UnixMillis(BEGIN)),
            clients: BTreeMap::new(),
            next_key: 1,
            fresh: VecDeque::new(),
            unsettled: Vec::new(),
        };
        for observation in script::beginning(&stage.context.directory, stage.now.wall) {
            stage.tell(observation);
        }
        stage
    }

    fn tell(&mut self, observation: Observation) {
        self.hub.observe(observation, self.now);
        self.pump();
    }

    fn feed(&mut self, at: usize, input: Input) {
        if let Some(session) = self.clients.get_mut(&at).and_then(|client| client.session.as_mut()) {
            session.handle(input, self.now);
        }
        self.pump();
    }

    /// Carries outputs of sessions to the hub and effects of the hub to sessions until neither has any.
    fn pump(&mut self) {
        loop {
            let mut busy = false;
            let numbers: Vec<usize> = self.clients.keys().copied().collect();
            for at in numbers {
                while let Some(output) = self
                    .clients
                    .get_mut(&at)
                    .and_then(|client| client.session.as_mut())
                    .and_then(|session| session.poll())
                {
                    busy = true;
                    self.carry_out(at, output);
                }
            }
            while let Some(effect) = self.hub.poll() {
                busy = true;
                self.effect(effect);
            }
            if !busy {
                return;
            }
        }
    }

    fn carry_out(&mut self, at: usize, output: Output) {
        let client = self.clients.get_mut(&at).expect("the client is there");
        let key = client.key;
        match output {
            Output::Send(text) => client.seen.push_back(Seen::Text(text.to_string())),
            Output::Close { code, reason } => {
                assert!(reason.len() <= 123, "a close reason is too long: {reason}");
                client.seen.push_back(Seen::Close(code));
                client.session = None;
                self.hub.detach(key, &[], self.now);
            }
            Output::Respond(response) => {
                let body = String::from_utf8_lossy(&response.body).into_owned();
                client.seen.push_back(Seen::Http(response.status, body));
                client.session = None;
                self.hub.detach(key, &[], self.now);
            }
            Output::Watch { client, interests } => self.hub.watch(key, &client, interests),
            Output::Submit { token, client, command } => {
                self.hub.submit(key, token, client, command, self.now);
            }
            Output::Ask { token, client, question } => self.hub.ask(key, token, client, question, self.now),
        }
    }

    fn effect(&mut self, effect: Effect) {
        match effect {
            Effect::Deliver { sessions, message } => {
                for key in sessions.iter() {
                    self.hand(*key, Input::Message(Arc::clone(&message)));
                }
            }
            Effect::Balance { candidates, message, .. } => {
                if let Some(key) = candidates.first() {
                    self.hand(*key, Input::Message(message));
                }
            }
            Effect::Reply { session, reply } => {
                let input = match reply {
                    SessionReply::Accepted(token) => Input::Accepted(token),
                    SessionReply::Outcome(token, outcome) => Input::Outcome(token, outcome),
                    SessionReply::Answer(token, answer) => Input::Answer(token, answer),
                    SessionReply::GroupEmpty => Input::GroupEmpty,
                    SessionReply::DocumentsChanged(collection) => Input::DocumentsChanged(collection),
                    SessionReply::Lagged(missed) => Input::Lagged(missed),
                    SessionReply::Evicted => Input::Closing(dialects::Closing::TooSlow),
                };
                self.hand(session, input);
            }
            Effect::Store(write) => unreachable!("there is no store for {write:?}"),
            Effect::Route { command, .. } => {
                self.unsettled.push((command.id, Arc::clone(&command.device)));
                self.hub.observe(Observation::Accepted { command: command.id }, self.now);
                self.fresh.push_back(command);
            }
        }
    }

    fn hand(&mut self, key: SessionKey, input: Input) {
        let now = self.now;
        if let Some(session) = self
            .clients
            .values_mut()
            .find(|client| client.key == key)
            .and_then(|client| client.session.as_mut())
        {
            session.handle(input, now);
        }
    }
}

impl Stage for PureStage {
    fn open(&mut self, at: usize, request: &Request) {
        let request = to_request(request);
        // A path that two dialects share may be opened as the other one.
        let mut entries = dialects::ENTRIES;
        entries.sort_by_key(|entry| entry.dialect != self.dialect);
        let opening = entries
            .iter()
            .map(|entry| (entry.open)(&request, &self.context, self.now))
            .find(|opening| !matches!(opening, Opening::NotMine))
            .unwrap_or(Opening::NotMine);
        self.drop_client(at);
        let key = SessionKey(self.next_key);
        self.next_key += 1;
        let mut client = Client { key, session: None, upgraded: false, seen: VecDeque::new() };
        match opening {
            Opening::NotMine => panic!("the request belongs to no dialect"),
            Opening::Respond(response) => {
                let body = String::from_utf8_lossy(&response.body).into_owned();
                client.seen.push_back(Seen::Http(response.status, body));
            }
            Opening::Upgrade(upgrade) => {
                client.session = Some(upgrade.session);
                client.upgraded = true;
            }
            Opening::Call(session) => client.session = Some(session),
            Opening::Carry(_) => panic!("a session that requests carry needs a server"),
        }
        if client.session.is_some() {
            self.hub.attach(key);
        }
        self.clients.insert(at, client);
        self.feed(at, Input::Open);
    }

    fn accepted(&mut self, at: usize) -> bool {
        self.clients.get(&at).is_some_and(|client| client.upgraded)
    }

    fn send(&mut self, at: usize, text: &str) {
        self.feed(at, Input::Text(text.to_owned().into()));
    }

    fn next(&mut self, at: usize, _expect_nothing: bool) -> Seen {
        self.clients.get_mut(&at).and_then(|client| client.seen.pop_front()).unwrap_or(Seen::Nothing)
    }

    fn drop_client(&mut self, at: usize) {
        if let Some(client) = self.clients.remove(&at) {
            self.hub.detach(client.key, &[], self.now);
        }
        self.pump();
    }

    fn observe(&mut self, device: &str, values: &[(String, serde_json::Value)]) {
        let observation = script::values(&self.context.directory, device, values, self.now.wall);
        self.tell(observation);
    }

    fn presence(&mut self, device: &str, online: bool) {
        let observation = script::presence(&self.context.directory, device, online, self.now.wall);
        self.tell(observation);
    }

    fn publish(&mut self, device: &str, topic: &str, payload: &str) {
        let observation = script::publish(&self.context.directory, device, topic, payload, self.now.wall);
        self.tell(observation);
    }

    fn event(&mut self, device: &str, event: &str, params: &serde_json::Value) {
        let observation = script::event(&self.context.directory, device, event, params, self.now.wall);
        self.tell(observation);
    }

    fn ota(&mut self, device: &str, step: i32, detail: &str) {
        let observation = script::ota(&self.context.directory, device, step, detail, self.now.wall);
        self.tell(observation);
    }

    fn command(&mut self, _expect_nothing: bool) -> Option<Reached> {
        self.fresh.pop_front().map(|command| script::reached(&command))
    }

    fn settle(&mut self, device: Option<&str>, outcome: &Settle) {
        let at = self
            .unsettled
            .iter()
            .position(|(_, of)| device.is_none_or(|device| &*of.id == device))
            .expect("a command waits to be settled");
        let (command, of) = self.unsettled.remove(at);
        for observation in script::settled(command, &of, outcome, self.now.wall) {
            self.tell(observation);
        }
    }

    fn wait(&mut self, time: Duration) {
        let end = self.now.instant + time;
        loop {
            let sessions = self.clients.values().filter_map(|client| client.session.as_ref()?.timeout());
            let next = sessions.chain(self.hub.timeout()).min();
            let next = next.filter(|next| *next <= end).unwrap_or(end).max(self.now.instant);
            let passed = next - self.now.instant;
            self.now.instant = next;
            self.now.wall.0 += i64::try_from(passed.as_millis()).expect("a transcript is short");
            self.now.certain = self.now.wall;
            let due = |timeout: Option<Instant>| timeout.is_some_and(|at| at <= next);
            if due(self.hub.timeout()) {
                self.hub.handle_timeout(self.now);
            }
            for client in self.clients.values_mut() {
                if let Some(session) = client.session.as_mut() {
                    if due(session.timeout()) {
                        session.handle(Input::Timeout, self.now);
                    }
                }
            }
            self.pump();
            if next >= end {
                return;
            }
        }
    }
}

/// The request as the server would hand it to a dialect.
pub fn to_request(request: &Request) -> dialects::Request {
    let (path, query) = request.target.split_once('?').unwrap_or((&request.target, ""));
    let decode = |text: &str| {
        percent_encoding::percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned()
    };
    let query = query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(key, value)| (decode(key), decode(value)))
        .collect();
    dialects::Request {
        method: request.method.clone(),
        path: path.to_owned(),
        query,
        headers: request.headers.clone(),
        body: request.body.clone().into(),
        peer: "127.0.0.1".parse().unwrap(),
        origin: Origin { secure: false, host: "127.0.0.1:8080".to_owned() },
        upgrade: request.upgrade,
        logins: Logins::default(),
    }
}

#[expect(clippy::disallowed_methods, reason = "a pure stage needs one instant to count from")]
fn epoch() -> Instant {
    Instant::now()
}
