//! The conversation on one socket: requests by id, each a command, a stream or a question.
//!
//! Promises: every request that ends is ended by one `complete`, also after an `error`; an id is free as soon as
//! its request has ended or was cancelled; a cancelled request is never heard of again. Only a bad token closes the
//! socket.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use jiff::tz::TimeZone;
use serde_json::{Map, Value as Json};

use super::Payload;
use super::command::{Order, Wish};
use super::dashboard::{self, Dashboard};
use super::payload::{self, Failure, Replier, Reply, Said};
use super::topic::{self, Pattern};
use super::wire::{self, Frame, Kind, Request};
use crate::dialects::shared::{json::member, message_id};
use crate::dialects::{self, Context, Input, Output, Token};
use crate::model::client::Client;
use crate::model::command::{Action, ActionKind, Command};
use crate::model::device::Device;
use crate::model::interest::{Interest, Selector};
use crate::model::message::{DeviceMessage, Form};
use crate::model::snapshot::{Answer, Question, Snapshot};
use crate::model::time::{Now, UnixMillis};
use crate::text::Text;

/// Requests that may be open on one socket, streams and commands together. A further one is refused.
const SUBSCRIPTIONS: usize = 256;

/// Devices that one command or question may be for; as many as may be under way on one socket. A longer list is
/// refused whole.
const FAN_OUT: usize = dialects::COMMANDS_IN_FLIGHT;

/// Most bytes that a command may come to when every device gets its own copy of the request.
const FAN_OUT_BYTES: usize = 2 * 1024 * 1024;

/// Longest id in bytes, of a request and of a command. It travels with every result and is kept while its request is open.
const ID_BYTES: usize = 1024;

/// Longest topic in bytes: room for a full fan-out of long device ids.
const TOPIC_BYTES: usize = 32 * 1024;

/// Commands, then `/{product}/{device,device,...}`.
const SENDER: &str = "/device-message-sender/";

/// Asks which devices are online.
const CURRENT_STATE: &str = "/device-current-state";

/// What the users of a platform are told. A gateway has no users, so nothing is ever said here; consoles and screens
/// ask for it beside their devices and show an error as one of theirs.
const NOTIFICATIONS: &str = "/notifications";

/// One socket.
#[derive(Debug)]
pub(super) struct Session {
    context: Arc<Context>,
    /// `None` after a bad token.
    client: Option<Arc<Client>>,
    output: VecDeque<Output>,
    /// Open requests by their id. Boxed, because the map has room for eleven from the first, and most clients open one.
    open: BTreeMap<Arc<str>, Box<Open>>,
    /// What the open requests wait for.
    awaited: BTreeMap<Token, Awaited>,
    next_token: u64,
}

/// An open request.
#[derive(Debug)]
enum Open {
    /// Stays open.
    Live {
        pattern: Pattern,
        /// Start of each of its results.
        head: String,
    },
    /// Ends with the last of its devices.
    Command {
        /// As the client wrote it.
        topic: Arc<str>,
        kind: ActionKind,
        asynchronous: bool,
        /// Devices that have not answered.
        left: usize,
    },
    /// Ends with the answer.
    State { devices: Vec<String> },
    /// Stays open and silent.
    Silent,
    /// Stays open.
    Dashboard {
        /// As the client wrote it.
        topic: String,
        dashboard: Dashboard,
    },
}

/// What comes back under a token.
#[derive(Debug)]
struct Awaited {
    /// The request that waits for it.
    id: Arc<str>,
    /// The device that a command went to.
    device: Option<Arc<Device>>,
    message_id: Arc<str>,
    function: Option<Arc<str>>,
}

/// The request that a command comes from.
#[derive(Clone, Copy, Debug)]
struct Sender<'a> {
    client: &'a Arc<Client>,
    id: &'a Arc<str>,
    /// As its topic names it; a device may be of another.
    product: &'a str,
    /// How long its text is.
    bytes: usize,
    now: Now,
}

impl dialects::Session for Session {
    fn handle(&mut self, input: Input, now: Now) {
        let Some(client) = self.client.clone() else {
            if matches!(input, Input::Open) {
                self.send(wire::auth_error());
                self.output.push_back(Output::Close { code: 1007, reason: String::new() });
            }
            return;
        };
        match input {
            Input::Text(text) => self.frame(&client, &text, now),
            Input::Binary(bytes) => self.frame(&client, &String::from_utf8_lossy(&bytes), now),
            Input::Message(message) => self.message(&message),
            Input::Reconfigured(context) => self.context = context,
            Input::Accepted(token) => self.accepted(token, now.wall),
            Input::Outcome(token, outcome) => self.answer(token, Said::Outcome(&outcome), now.wall),
            Input::Answer(token, Answer::Snapshot(snapshot)) => self.snapshot(&client, token, &snapshot),
            Input::Answer(token, Answer::Latest(latest)) => {
                self.past(token, |dashboard, timezone| dashboard.values(&latest, timezone));
            }
            Input::Answer(token, Answer::Events(events)) => {
                self.past(token, |dashboard, timezone| dashboard.events(&events, timezone));
            }
            // There is no greeting: a known client takes the first frame for data. Lost reports are followed by
            // the newest values, which is all that a live topic promises, and the server has no goodbye.
            Input::Open
            | Input::Answer(..)
            | Input::GroupEmpty
            | Input::DocumentsChanged(_)
            | Input::Lagged(_)
            | Input::Timeout
            | Input::Closing(_) => {}
        }
    }

    fn poll(&mut self) -> Option<Output> {
        self.output.pop_front()
    }

    fn client(&self) -> Option<&Arc<Client>> {
        self.client.as_ref()
    }

    /// Streams have no time limit, and the hub keeps that of commands.
    fn timeout(&self) -> Option<Instant> {
        None
    }
}

impl Session {
    /// A socket of this client; without one, of a stranger who is told so.
    pub(super) fn new(context: Arc<Context>, client: Option<Arc<Client>>) -> Self {
        Self {
            context,
            client,
            output: VecDeque::new(),
            open: BTreeMap::new(),
            awaited: BTreeMap::new(),
            next_token: 0,
        }
    }

    fn send(&mut self, text: impl Into<Text>) {
        self.output.push_back(Output::Send(text.into()));
    }

    /// The order of the checks is that of the real server, so that a request with several faults gets its answer.
    fn frame(&mut self, client: &Arc<Client>, text: &str, now: Now) {
        let request = match wire::read(text) {
            Frame::Nothing => return,
            Frame::Illegal => return self.illegal(),
            Frame::Request(request) => request,
        };
        if request.kind == Some(Kind::Ping) {
            let id = request.id.as_deref().filter(|id| id.len() <= ID_BYTES);
            return self.send(wire::pong(id));
        }
        let id = match (request.id.as_deref(), request.kind) {
            (None, None) => return self.illegal(),
            (None, Some(kind)) => return self.send(wire::error(kind.name(), None, "id不能为空")),
            (Some(id), _) if id.len() > ID_BYTES => return self.illegal(),
            (Some(id), _) => Arc::<str>::from(id),
        };
        match request.kind {
            Some(Kind::Sub) if self.open.contains_key(&id) => {}
            Some(Kind::Sub) => self.subscribe(client, id, request, text.len(), now),
            Some(Kind::Unsub) => self.cancel(client, &id),
            Some(Kind::Pub) => self.send(wire::error(&id, request.topic.as_deref(), "不支持的类型:pub")),
            Some(Kind::Ping) | None => {
                self.send(wire::error(&id, request.topic.as_deref(), "不支持的类型:null"));
            }
        }
    }

    fn illegal(&mut self) {
        self.send(wire::error("illegal_argument", None, "消息格式错误"));
    }

    /// Ends a request that was never opened.
    fn refuse(&mut self, id: &str, topic: &str, message: &str) {
        self.send(wire::error(id, Some(topic), message));
        self.send(wire::complete(id));
    }

    fn subscribe(&mut self, client: &Arc<Client>, id: Arc<str>, request: Request, bytes: usize, now: Now) {
        let topic = request.topic.unwrap_or_default();
        if topic.len() > TOPIC_BYTES {
            return self.refuse(&id, "", &format!("topic: at most {TOPIC_BYTES} bytes"));
        }
        if self.open.len() >= SUBSCRIPTIONS {
            return self.refuse(&id, &topic, &format!("at most {SUBSCRIPTIONS} open requests"));
        }
        if let Some((product, devices)) = command_topic(&topic) {
            let sender = Sender { client, id: &id, product, bytes, now };
            self.command(&sender, &topic, devices, request.parameter.as_ref());
        } else if topic == CURRENT_STATE {
            self.current_state(client, id, &topic, request.parameter.as_ref());
        } else if topic.trim_end_matches('/') == NOTIFICATIONS {
            self.open.insert(id, Box::new(Open::Silent));
        } else if let Some(pattern) = Pattern::parse(&topic) {
            let head = wire::live_head(&id);
            self.open.insert(id, Box::new(Open::Live { pattern, head }));
            self.watch(client);
        } else {
            match dashboard::find(&topic, request.parameter.as_ref()) {
                dashboard::Found::Stream(dashboard) => self.dashboard(client, &id, topic, dashboard),
                dashboard::Found::Nothing => self.send(wire::complete(&id)),
                dashboard::Found::TooLong => {
                    let most = dashboard::PARAMETER_BYTES;
                    self.refuse(&id, &topic, &format!("parameter: at most {most} bytes"));
                }
                dashboard::Found::Other => self.refuse(&id, &topic, "不支持的topic"),
            }
        }
    }

    /// Says nothing, whether or not the request was open. What was sent to devices is not called back.
    fn cancel(&mut self, client: &Arc<Client>, id: &Arc<str>) {
        let Some(open) = self.open.remove(id) else { return };
        self.awaited.retain(|_, awaited| awaited.id != *id);
        match *open {
            Open::Live { .. } | Open::Dashboard { .. } => self.watch(client),
            Open::Command { .. } | Open::State { .. } | Open::Silent => {}
        }
    }

    fn watch(&mut self, client: &Arc<Client>) {
        let mut interests: Vec<Interest> = Vec::new();
        for open in self.open.values() {
            match &**open {
                Open::Live { pattern, .. } => interests.extend(pattern.interests()),
                Open::Dashboard { dashboard, .. } => interests.push(dashboard.interest()),
                Open::Command { .. } | Open::State { .. } | Open::Silent => {}
            }
        }
        self.output.push_back(Output::Watch { client: Arc::clone(client), interests });
    }

    fn message(&mut self, message: &Arc<DeviceMessage>) {
        let mut core = None;
        let levels = topic::levels(message);
        for (id, open) in &mut self.open {
            match &mut **open {
                Open::Live { pattern, head } if pattern.admits(&levels) => {
                    let core = core.get_or_insert_with(|| {
                        message.form(Form::SAGOO, |message| {
                            wire::live_core(&topic::of(message), payload::live(message))
                        })
                    });
                    self.output.push_back(Output::Send(wire::live(head, core).into()));
                }
                Open::Dashboard { topic, dashboard } => {
                    for payload in dashboard.message(message, &self.context.gateway.timezone) {
                        self.output.push_back(Output::Send(wire::result(id, topic, &payload).into()));
                    }
                }
                Open::Live { .. } | Open::Command { .. } | Open::State { .. } | Open::Silent => {}
            }
        }
    }

    fn token(&mut self) -> Token {
        self.next_token += 1;
        Token(self.next_token)
    }

    fn command(
        &mut self,
        sender: &Sender<'_>,
        topic: &str,
        devices: &str,
        parameter: Option<&Map<String, Json>>,
    ) {
        let id = sender.id;
        let Some(parameter) = parameter else {
            return self.refuse(id, topic, "parameter不能为空");
        };
        let Some(order) = Order::read(parameter) else {
            return self.refuse(id, topic, "error.unsupported_message_format");
        };
        // Others are told of the command, and the history keeps it, with this id.
        if order.message_id.as_ref().is_some_and(|id| id.len() > ID_BYTES) {
            return self.refuse(id, topic, &format!("messageId: at most {ID_BYTES} bytes"));
        }
        let targets = self.targets(sender.client, sender.product, devices);
        if targets.len() > FAN_OUT {
            return self.refuse(id, topic, &format!("at most {FAN_OUT} devices"));
        }
        if targets.len().saturating_mul(sender.bytes) > FAN_OUT_BYTES {
            return self.refuse(
                id,
                topic,
                &format!("at most {FAN_OUT_BYTES} bytes for all devices together"),
            );
        }
        let topic: Arc<str> = Arc::from(topic);
        let left = if order.forget { 0 } else { targets.len() };
        let (kind, asynchronous) = (order.wish.kind(), order.asynchronous);
        self.open.insert(Arc::clone(id), Box::new(Open::Command { topic, kind, asynchronous, left }));
        for (name, device) in &targets {
            self.dispatch(sender, &order, name, device.as_ref());
        }
        self.end_if_done(id);
    }

    /// The devices of a list, or those of the product for `*`; `None` for one that the client cannot see. The
    /// product of a list is not looked at, as in the real server.
    fn targets(&self, client: &Client, product: &str, devices: &str) -> Vec<(Arc<str>, Option<Arc<Device>>)> {
        let directory = &self.context.directory;
        let seen = |device: &&Arc<Device>| client.devices.admits(device);
        if devices.trim() == "*" {
            let all = directory.of_product(product).filter(seen);
            return all.map(|device| (Arc::clone(&device.id), Some(Arc::clone(device)))).collect();
        }
        let ids = devices.split(',').map(str::trim).filter(|id| !id.is_empty());
        ids.map(|id| (Arc::from(id), directory.device(id).filter(seen).map(Arc::clone))).collect()
    }

    /// Sends one device its command, or answers for a device that cannot have it.
    fn dispatch(
        &mut self,
        sender: &Sender<'_>,
        order: &Order,
        name: &Arc<str>,
        device: Option<&Arc<Device>>,
    ) {
        let own = order.message_id.as_ref().map(Arc::clone);
        let message_id = own.unwrap_or_else(|| message_id(sender.now.wall));
        let action = match device {
            Some(device) => order.action(&device.product),
            None => Err(Failure::offline()),
        };
        let action = match action {
            Ok(action) => action,
            Err(_) if order.forget => return,
            Err(failure) => {
                let reply = Reply {
                    kind: order.wish.kind(),
                    message_id: &message_id,
                    function: match &order.wish {
                        Wish::Invoke { function, .. } => function.as_deref(),
                        Wish::Read(_) | Wish::Write(_) => None,
                    },
                    from: match device {
                        Some(device) => Replier::Device(device),
                        None => Replier::Unknown { device: name, product: sender.product },
                    },
                    at: sender.now.wall,
                    said: Said::Failure(&failure),
                };
                return self.result(sender.id, &reply);
            }
        };
        let token = self.token();
        if !order.forget {
            let awaited = Awaited {
                id: Arc::clone(sender.id),
                device: device.map(Arc::clone),
                message_id: Arc::clone(&message_id),
                function: match &action {
                    Action::Invoke { function, .. } => Some(Arc::clone(function)),
                    Action::Read(_) | Action::Write(_) => None,
                },
            };
            self.awaited.insert(token, awaited);
        }
        let command = Command {
            device: Arc::clone(name),
            action,
            timeout: order.timeout,
            message_id: Some(message_id),
            notify_accepted: order.asynchronous && !order.forget,
            lease: order.lease.clone().unwrap_or_default(),
        };
        self.output.push_back(Output::Submit { token, client: Arc::clone(sender.client), command });
    }

    fn accepted(&mut self, token: Token, at: UnixMillis) {
        let waits = |open: &Open| matches!(open, Open::Command { asynchronous: true, .. });
        let asynchronous = |awaited: &Awaited| self.open.get(&awaited.id).is_some_and(|open| waits(open));
        if self.awaited.get(&token).is_some_and(asynchronous) {
            self.answer(token, Said::Handling, at);
        }
    }

    /// One device's answer to a command, if anybody still waits for it.
    fn answer(&mut self, token: Token, said: Said<'_>, at: UnixMillis) {
        let Some(awaited) = self.awaited.remove(&token) else { return };
        let Awaited { id, device: Some(device), message_id, function } = awaited else { return };
        let Some(Open::Command { kind, .. }) = self.open.get(&id).map(Box::as_ref) else { return };
        let reply = Reply {
            kind: *kind,
            message_id: &message_id,
            function: function.as_deref(),
            from: Replier::Device(&device),
            at,
            said,
        };
        self.result(&id, &reply);
        self.end_if_done(&id);
    }

    /// Sends one device's result and counts it.
    fn result(&mut self, id: &Arc<str>, reply: &Reply<'_>) {
        let form = self.context.settings.sagoo.payload;
        let Some(Open::Command { topic, left, .. }) = self.open.get_mut(id).map(Box::as_mut) else { return };
        *left = left.saturating_sub(1);
        let payload = reply.render(form);
        let text = match form {
            // A flat payload does not say which device it is from, so its topic does.
            Payload::Seed => wire::result(id, &reply.topic(), &payload),
            Payload::Merged | Payload::Jetlinks => wire::result(id, topic, &payload),
        };
        self.send(text);
    }

    fn end_if_done(&mut self, id: &Arc<str>) {
        if matches!(self.open.get(id).map(Box::as_ref), Some(Open::Command { left: 0, .. })) {
            self.open.remove(id);
            self.send(wire::complete(id));
        }
    }

    fn current_state(
        &mut self,
        client: &Arc<Client>,
        id: Arc<str>,
        topic: &str,
        parameter: Option<&Map<String, Json>>,
    ) {
        let devices: Vec<String> = match parameter.and_then(|parameter| member(parameter, "deviceId")) {
            Some(Json::Array(items)) => items.iter().filter_map(wire::to_text).collect(),
            Some(one) => wire::to_text(one).into_iter().collect(),
            None => Vec::new(),
        };
        if devices.is_empty() {
            return self.refuse(&id, topic, "error.deviceId_cannot_be_empty");
        }
        if devices.len() > FAN_OUT {
            return self.refuse(&id, topic, &format!("at most {FAN_OUT} devices"));
        }
        let selector = match devices.as_slice() {
            [one] => Selector::Device(Arc::from(one.as_str())),
            _ => Selector::All,
        };
        self.ask(client, &id, Question::Snapshot(selector));
        self.open.insert(id, Box::new(Open::State { devices }));
    }

    fn dashboard(&mut self, client: &Arc<Client>, id: &Arc<str>, topic: String, dashboard: Dashboard) {
        let history = dashboard.history();
        self.open.insert(Arc::clone(id), Box::new(Open::Dashboard { topic, dashboard }));
        // Watching before asking leaves no gap between the past and what follows.
        self.watch(client);
        if let Some(selector) = history {
            self.ask(client, id, Question::Snapshot(selector));
        }
    }

    fn ask(&mut self, client: &Arc<Client>, id: &Arc<str>, question: Question) {
        let token = self.token();
        let (id, message_id) = (Arc::clone(id), Arc::from(""));
        self.awaited.insert(token, Awaited { id, device: None, message_id, function: None });
        let client = Arc::clone(client);
        self.output.push_back(Output::Ask { token, client, question });
    }

    /// What a dashboard shows of the past.
    fn past(&mut self, token: Token, show: impl FnOnce(&mut Dashboard, &TimeZone) -> Vec<Map<String, Json>>) {
        let Some(Awaited { id, .. }) = self.awaited.remove(&token) else { return };
        let Some(Open::Dashboard { topic, dashboard }) = self.open.get_mut(&id).map(Box::as_mut) else {
            return;
        };
        for payload in show(dashboard, &self.context.gateway.timezone) {
            self.output.push_back(Output::Send(wire::result(&id, topic, &payload).into()));
        }
    }

    fn snapshot(&mut self, client: &Arc<Client>, token: Token, snapshot: &Arc<Snapshot>) {
        let Some(Awaited { id, .. }) = self.awaited.remove(&token) else { return };
        match self.open.get_mut(&id).map(Box::as_mut) {
            Some(Open::Dashboard { dashboard, .. }) => {
                if let Some(question) = dashboard.current(snapshot) {
                    self.ask(client, &id, question);
                }
            }
            Some(Open::State { devices }) => {
                for name in devices {
                    let found = snapshot.devices.iter().find(|found| *found.device.id == **name);
                    if let Some(found) = found {
                        let state = if found.online { "online" } else { "offline" };
                        let payload = Map::from_iter([(name.clone(), Json::from(state))]);
                        let text = wire::result(&id, CURRENT_STATE, &payload);
                        self.output.push_back(Output::Send(text.into()));
                    }
                }
                self.open.remove(&id);
                self.send(wire::complete(&id));
            }
            Some(Open::Live { .. } | Open::Command { .. } | Open::Silent) | None => {}
        }
    }
}

/// Product and device list of a command's topic. One level more or less, or an empty one, is another topic.
fn command_topic(topic: &str) -> Option<(&str, &str)> {
    let (product, devices) = topic.strip_prefix(SENDER)?.split_once('/')?;
    let level = |text: &str| !text.is_empty() && !text.contains('/');
    (level(product) && level(devices)).then_some((product, devices))
}
