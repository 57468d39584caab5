//! A dialect for tests: it does what its client tells it to, so that each test can make its own session.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pentad::dialects::shared::sockjs::{self, Base};
use pentad::dialects::{Context, Entry, Input, Opening, Output, Request, Response, Session, Token, Upgrade};
use pentad::model::client::{Client, DeviceFilter, Dialect, Rights, Secret};
use pentad::model::command::{Action, Command, Lease};
use pentad::model::interest::{Interest, Selector};
use pentad::model::message::Kinds;
use pentad::model::snapshot::Question;
use pentad::model::time::Now;

/// The parrot's door. It stands in for any dialect.
pub(crate) const ENTRY: Entry =
    Entry { dialect: Dialect::Sagoo, open, common: |settings| &settings.sagoo.common };

fn open(request: &Request, context: &Arc<Context>, now: Now) -> Opening {
    if let Some(path) = request.path.strip_prefix("/sockjs") {
        let session = || -> Box<dyn Session> { Box::new(Parrot::default()) };
        let raw = || Upgrade { session: session(), subprotocol: None };
        let base = Base { session: &session, raw: &raw, admits_origin: true };
        return sockjs::open(request, path, context, now, &base);
    }
    match request.path.as_str() {
        "/parrot" => Opening::Upgrade(Upgrade {
            session: Box::new(Parrot::default()),
            subprotocol: request.subprotocols().first().map(|&first| first.to_owned()),
        }),
        "/stranger" => Opening::Upgrade(Upgrade {
            session: Box::new(Parrot { stranger: true, ..Parrot::default() }),
            subprotocol: None,
        }),
        "/call" => Opening::Call(Box::new(Parrot { call: true, ..Parrot::default() })),
        "/silent" => Opening::Call(Box::new(Parrot::default())),
        "/seen" => {
            let body = format!("{} {} {}", request.method, request.peer, request.origin.http(&request.path));
            let query = request.query("q").unwrap_or_default();
            Opening::Respond(Response::text(200, format!("{body} {query} {}", request.body.len())))
        }
        _ => Opening::NotMine,
    }
}

#[derive(Debug, Default)]
struct Parrot {
    /// Whether it asks the hub and responds with the answer.
    call: bool,
    /// Whether it has still to be told who its client is.
    stranger: bool,
    outputs: VecDeque<Output>,
    tick: Option<Instant>,
}

impl Session for Parrot {
    fn handle(&mut self, input: Input, now: Now) {
        match input {
            Input::Open if self.call => {
                let question = Question::Snapshot(Selector::All);
                self.outputs.push_back(Output::Ask { token: Token(7), client: client(), question });
            }
            Input::Answer(token, _) if self.call => {
                let response = Response::text(200, format!("answer {}", token.0));
                self.outputs.push_back(Output::Respond(response));
            }
            Input::Text(text) => self.obey(&text, now),
            Input::Binary(bytes) => self.say(format!("{} bytes", bytes.len())),
            Input::Message(message) => self.say(format!("message {}", message.seq)),
            Input::Outcome(token, outcome) => self.say(format!("outcome {} {outcome:?}", token.0)),
            Input::DocumentsChanged(collection) => self.say(format!("changed {collection}")),
            Input::Lagged(missed) => self.say(format!("lagged {missed}")),
            Input::Timeout => {
                self.tick = None;
                self.say("tick".to_owned());
            }
            Input::Closing(closing) => {
                self.say(format!("bye {closing:?}"));
                self.outputs.push_back(Output::Close { code: 4001, reason: "bye".to_owned() });
            }
            Input::Reconfigured(context) => self.say(format!("reconfigured {}", context.gateway.name)),
            Input::Open | Input::Accepted(_) | Input::Answer(..) | Input::GroupEmpty => {}
        }
    }

    fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn known(&self) -> bool {
        !self.stranger
    }

    fn timeout(&self) -> Option<Instant> {
        self.tick
    }
}

impl Parrot {
    fn say(&mut self, text: String) {
        self.outputs.push_back(Output::Send(text.into()));
    }

    fn obey(&mut self, text: &str, now: Now) {
        let words: Vec<&str> = text.split(' ').collect();
        let number =
            |at: usize| words.get(at).and_then(|word| word.parse::<usize>().ok()).unwrap_or_default();
        match words[0] {
            "flood" => {
                let message = "x".repeat(number(2));
                for _ in 0..number(1) {
                    self.say(message.clone());
                }
            }
            "submit" | "lease" => {
                for token in (0_u64..).take(number(1)) {
                    let lease = (words[0] == "lease").then_some(Lease::Session);
                    let (client, command) = (client(), Command { lease, ..command() });
                    self.outputs.push_back(Output::Submit { token: Token(token), client, command });
                }
            }
            "watch" => {
                let interests = vec![Interest { selector: Selector::All, kinds: Kinds::PROPERTIES }];
                self.outputs.push_back(Output::Watch { client: client(), interests });
            }
            "close" => {
                let reason = "\u{4f60}".repeat(number(2));
                let code = u16::try_from(number(1)).unwrap();
                self.outputs.push_back(Output::Close { code, reason });
            }
            "login" => self.stranger = false,
            "tick" => self.tick = Some(now.instant + Duration::from_millis(20)),
            "panic" => panic!("as the client wished"),
            _ => self.say(text.to_owned()),
        }
    }
}

fn client() -> Arc<Client> {
    Arc::new(Client {
        id: "polly".into(),
        secret: Secret::new("cracker"),
        dialects: Dialect::ALL.to_vec(),
        devices: DeviceFilter::new(["*"]),
        rights: Rights::ALL,
    })
}

fn command() -> Command {
    Command {
        device: "press-1".into(),
        action: Action::Read(Vec::new()),
        timeout: Duration::from_secs(1),
        message_id: None,
        notify_accepted: false,
        lease: None,
    }
}
