//! The HTTP calls: write properties, invoke functions, fetch and list values, for one device or several.
//!
//! Every answer has status 200 and says in `code` what happened; only a client that may not come in is told by the
//! status. A call waits for its devices unless it is asynchronous; then it is answered when they have been reached, and
//! its outcome can be read later by its `msgToken` (`*-read`) for as long as the hub keeps it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use serde_json::{Map, Value as Json};

use super::auth;
use super::fault::Fault;
use super::wire;
use crate::dialects::shared::cors;
use crate::dialects::{self, Context, Input, Opening, Output, Request, Response, Token};
use crate::model::client::Client;
use crate::model::command::{ActionKind, Command};
use crate::model::interest::Selector;
use crate::model::snapshot::{self, Answer, DeviceSnapshot, Question};
use crate::model::time::Now;

mod answer;
mod fields;
mod plan;

use answer::{data, line, object};
use fields::Fields;
use plan::{Kind, Plan, Reach, Settled, State, Target};

/// Calls to devices.
const INTERACT: &str = "/api/v1/things/device/interact/";

/// The list of current values, as servers of 2025 and of 2026 call it.
const LATEST: [&str; 2] =
    ["/api/v1/things/device/msg/property-latest/index", "/api/v1/things/device/msg/property-latest/get-list"];

/// What stands behind a path.
#[derive(Clone, Copy, Debug)]
enum Service {
    /// Sends commands.
    Send(Kind, Reach),
    /// What became of one.
    Read(Kind),
    /// An application answers what a device has asked.
    Respond,
    /// The current values.
    Latest,
}

/// What a path means. Of servers of 2026 no source is public; their command line client and its documents name
/// `batch` for `multi` and `get-one` for `read`, with the same bodies.
fn service(path: &str) -> Option<Service> {
    if LATEST.contains(&path) {
        return Some(Service::Latest);
    }
    Some(match path.strip_prefix(INTERACT)? {
        "property-control-send" => Service::Send(Kind::Control, Reach::One),
        "property-control-multi-send" | "property-control-batch-send" => {
            Service::Send(Kind::Control, Reach::Many)
        }
        "property-control-read" | "property-control-get-one" => Service::Read(Kind::Control),
        "property-get-report-send" => Service::Send(Kind::GetReport, Reach::One),
        "property-get-report-multi-send" | "property-get-report-batch-send" => {
            Service::Send(Kind::GetReport, Reach::Many)
        }
        "action-send" => Service::Send(Kind::Action, Reach::One),
        "action-read" | "action-get-one" => Service::Read(Kind::Action),
        "action-resp" => Service::Respond,
        _ => return None,
    })
}

/// Takes a request if it is one of the calls.
pub(super) fn open(request: &Request, path: &str, context: &Arc<Context>, now: Now) -> Opening {
    let Some(service) = service(path) else { return Opening::NotMine };
    match request.method.as_str() {
        "OPTIONS" => return Opening::Respond(preflight(request, "POST")),
        "POST" => {}
        _ => return Opening::Respond(wrong_method("POST")),
    }
    let client = match auth::admit(request, context, now) {
        Ok(client) => client,
        Err(refusal) => return Opening::Respond(readable(refusal.response())),
    };
    let prepared = Fields::read(&request.body).and_then(|fields| match service {
        Service::Send(kind, reach) => Plan::command(&fields, kind, reach, &client, context, now),
        Service::Read(kind) => Plan::read(&fields, kind, &client, context),
        Service::Respond => Err(plan::respond(&fields, &client, context)),
        Service::Latest => Plan::latest(&fields, &client, context),
    });
    match prepared {
        Ok(plan) => Opening::Call(Box::new(Call { client, plan, output: VecDeque::new(), answered: false })),
        Err(fault) => Opening::Respond(failed(&fault)),
    }
}

/// Lets a page of any origin make the call: it must bring its token itself, so its origin gives it nothing.
pub(super) fn preflight(request: &Request, method: &str) -> Response {
    readable(cors::preflight(request, &format!("{method}, OPTIONS"))).with("access-control-max-age", "600")
}

/// Another method is wanted.
pub(super) fn wrong_method(wanted: &str) -> Response {
    let response = Response::json(405, Fault::METHOD.fault().to_json());
    readable(response).with("allow", format!("{wanted}, OPTIONS"))
}

fn readable(response: Response) -> Response {
    response.with("access-control-allow-origin", "*")
}

fn failed(fault: &Fault) -> Response {
    readable(Response::json(200, fault.to_json()))
}

fn succeeded(data: &Map<String, Json>) -> Response {
    readable(Response::json(200, wire::answer(data)))
}

/// One call on its way to its answer.
#[derive(Debug)]
struct Call {
    client: Arc<Client>,
    plan: Plan,
    output: VecDeque<Output>,
    answered: bool,
}

impl dialects::Session for Call {
    fn handle(&mut self, input: Input, now: Now) {
        match input {
            Input::Open => self.begin(),
            Input::Accepted(token) => self.settle(token, Settled::Accepted),
            Input::Outcome(token, outcome) => {
                let settled = Fault::of(&outcome).map_or(Settled::Done(outcome, now.wall), Settled::Failed);
                self.settle(token, settled);
            }
            Input::Answer(_, Answer::Snapshot(snapshot)) => self.list(snapshot.devices.first()),
            Input::Answer(_, Answer::Outcome(settled)) => self.tell(settled.as_deref()),
            Input::Closing(_) => self.respond(Response::json(503, Fault::BUSY.fault().to_json())),
            Input::Text(_)
            | Input::Binary(_)
            | Input::Message(_)
            | Input::Answer(..)
            | Input::GroupEmpty
            | Input::DocumentsChanged(_)
            | Input::Lagged(_)
            | Input::Reconfigured(_)
            | Input::Timeout => {}
        }
    }

    fn poll(&mut self) -> Option<Output> {
        self.output.pop_front()
    }

    /// The hub keeps the time of every command.
    fn timeout(&self) -> Option<Instant> {
        None
    }
}

impl Call {
    fn respond(&mut self, response: Response) {
        if !self.answered {
            self.answered = true;
            self.output.push_back(Output::Respond(response));
        }
    }

    fn begin(&mut self) {
        match &mut self.plan {
            Plan::Latest { device, .. } => {
                let question = Question::Snapshot(Selector::Device(Arc::clone(&device.id)));
                let client = Arc::clone(&self.client);
                self.output.push_back(Output::Ask { token: Token(0), client, question });
            }
            Plan::Read { target, .. } => {
                let question = Question::Outcome(Arc::clone(&target.message_id));
                let client = Arc::clone(&self.client);
                self.output.push_back(Output::Ask { token: Token(0), client, question });
            }
            Plan::Command { asynchronous, timeout, lease, targets, .. } => {
                for (token, target) in (0..).map(Token).zip(targets) {
                    let State::Wanted(action) = &target.state else { continue };
                    let command = Command {
                        device: Arc::from(target.name.as_str()),
                        action: action.clone(),
                        timeout: *timeout,
                        message_id: Some(Arc::clone(&target.message_id)),
                        notify_accepted: *asynchronous,
                        lease: *lease,
                    };
                    target.state = State::Sent;
                    self.output.push_back(Output::Submit {
                        token,
                        client: Arc::clone(&self.client),
                        command,
                    });
                }
            }
        }
        self.answer_if_settled();
    }

    fn settle(&mut self, Token(at): Token, settled: Settled) {
        let Plan::Command { targets, .. } = &mut self.plan else { return };
        let target = usize::try_from(at).ok().and_then(|at| targets.get_mut(at));
        if let Some(target @ Target { state: State::Sent, .. }) = target {
            target.state = State::Settled(settled);
        }
        self.answer_if_settled();
    }

    fn answer_if_settled(&mut self) {
        let Plan::Command { kind, reach, targets, .. } = &self.plan else { return };
        let mut settled = Vec::with_capacity(targets.len());
        for target in targets {
            let State::Settled(state) = &target.state else { return };
            settled.push((target, state));
        }
        let response = match (reach, settled.as_slice()) {
            (Reach::One, [(_, Settled::Failed(fault))]) => failed(&kind.word(fault)),
            (Reach::One, [(target, state)]) => succeeded(&data(*kind, target, state)),
            (Reach::One | Reach::Many, _) => {
                let list = settled.iter().map(|(target, state)| Json::Object(line(*kind, target, state)));
                succeeded(&Map::from_iter([("list".to_owned(), list.collect())]))
            }
        };
        self.respond(response);
    }

    /// Answers with what became of an earlier command, in the words that a call gets that waits for it.
    fn tell(&mut self, settled: Option<&snapshot::Settled>) {
        let Plan::Read { kind, target } = &self.plan else { return };
        let is_this = |settled: &&snapshot::Settled| {
            let wanted = match kind {
                Kind::Control => ActionKind::Write,
                Kind::GetReport => ActionKind::Read,
                Kind::Action => ActionKind::Invoke,
            };
            *settled.device == *target.name && settled.command.kind == wanted
        };
        let response = match settled.filter(is_this) {
            None => failed(&Fault::NOT_FOUND.fault()),
            Some(snapshot::Settled { outcome, at, .. }) => match Fault::of(outcome) {
                Some(fault) => failed(&kind.word(&fault)),
                None => succeeded(&data(*kind, target, &Settled::Done(Arc::clone(outcome), *at))),
            },
        };
        self.respond(response);
    }

    /// Answers with the current values.
    fn list(&mut self, snapshot: Option<&DeviceSnapshot>) {
        let Plan::Latest { device, properties, ignore_empty } = &self.plan else { return };
        let readings = snapshot.map(|snapshot| snapshot.readings.as_slice()).unwrap_or_default();
        let wanted = |id: &str| properties.is_empty() || properties.iter().any(|wanted| wanted == id);
        let mut list = Vec::new();
        for (at, property) in device.product.properties.iter().enumerate() {
            let reading = readings.get(at).and_then(Option::as_ref);
            if !wanted(&property.id) || (reading.is_none() && *ignore_empty) {
                continue;
            }
            let timestamp = reading.map_or_else(|| "0".to_owned(), |reading| reading.at.to_string());
            let value = reading.map(|reading| wire::text(&reading.value)).unwrap_or_default();
            list.push(Json::Object(object([
                ("timestamp", timestamp.into()),
                ("dataID", Json::from(&*property.id)),
                ("dataName", Json::from(&*property.name)),
                ("value", value.into()),
            ])));
        }
        self.respond(succeeded(&object([("list", list.into())])));
    }
}
