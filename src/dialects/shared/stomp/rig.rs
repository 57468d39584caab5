//! For tests: a STOMP connection with what it sends and wants taken apart.

use std::sync::Arc;
use std::time::Duration;

use crate::dialects::shared::fixture;
use crate::dialects::{Context, Input, Opening, Output, Request, Response, Session, Token};
use crate::model::device::Device;
use crate::model::interest::Interest;
use crate::model::message::{Body, DeviceMessage, Report};
use crate::model::snapshot::{Answer, DeviceSnapshot, Question, Snapshot};
use crate::model::time::{Now, UnixMillis};
use crate::model::value::{Quality, Value};

pub(in crate::dialects) struct Rig {
    session: Box<dyn Session>,
    pub now: Now,
    /// Everything in its order, one word for what is no text.
    pub said: Vec<String>,
    pub watched: Vec<Interest>,
    pub asked: Vec<(Token, Question)>,
}

impl Rig {
    /// The session behind an accepted upgrade.
    #[track_caller]
    pub(in crate::dialects) fn upgraded(opening: Opening) -> Self {
        let Opening::Upgrade(upgrade) = opening else { panic!("not accepted: {opening:?}") };
        Self::of(upgrade.session)
    }

    pub(in crate::dialects) fn of(session: Box<dyn Session>) -> Self {
        let now = fixture::now();
        let mut rig = Self { session, now, said: Vec::new(), watched: Vec::new(), asked: Vec::new() };
        rig.input(Input::Open);
        rig
    }

    /// Feeds text; gives what came of it.
    pub(in crate::dialects) fn send(&mut self, text: &str) -> Vec<String> {
        self.input(Input::Text(text.to_owned().into()));
        std::mem::take(&mut self.said)
    }

    pub(in crate::dialects) fn input(&mut self, input: Input) {
        self.session.handle(input, self.now);
        while let Some(output) = self.session.poll() {
            match output {
                Output::Send(text) => self.said.push(text.to_string()),
                Output::Close { code, .. } => self.said.push(format!("close {code}")),
                Output::Watch { interests, .. } => {
                    self.watched = interests;
                    self.said.push("watch".to_owned());
                }
                Output::Ask { token, question, .. } => self.asked.push((token, question)),
                Output::Respond(Response { status, body, .. }) => {
                    self.said.push(format!("{status} {}", String::from_utf8_lossy(&body)));
                }
                Output::Submit { .. } => panic!("no STOMP dialect sends commands"),
            }
        }
    }

    /// Whether the session wants to go on at once.
    pub(in crate::dialects) fn rests(&self) -> bool {
        self.session.timeout().is_some_and(|timeout| timeout <= self.now.instant)
    }

    pub(in crate::dialects) fn wait(&mut self, time: Duration) -> Vec<String> {
        self.now.instant += time;
        if self.rests() {
            self.input(Input::Timeout);
        }
        std::mem::take(&mut self.said)
    }

    /// Answers the oldest question with the given devices.
    pub(in crate::dialects) fn answer(&mut self, devices: Vec<DeviceSnapshot>) {
        let (token, _) = self.asked.remove(0);
        let snapshot = Snapshot { seq: 1, devices, links: Vec::new() };
        self.input(Input::Answer(token, Answer::Snapshot(Arc::new(snapshot))));
    }
}

/// An upgrade of a path with query parameters.
pub(in crate::dialects) fn upgrade(path: &str, query: &[(&str, &str)]) -> Request {
    let mut request = fixture::request("GET", path, true);
    request.query = query.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    request
}

/// A property report of one device.
pub(in crate::dialects) fn report(device: &Arc<Device>, values: &[(&str, Value, Quality)]) -> Input {
    let at = UnixMillis(1_700_000_000_000);
    let reports = values.iter().map(|(id, value, quality)| Report {
        property: device.product.property(id).map_or(0, |(at, _)| at),
        id: (*id).into(),
        value: value.clone(),
        at,
        quality: *quality,
    });
    let body = Body::Properties(reports.collect());
    Input::Message(Arc::new(DeviceMessage::new(1, at, Arc::clone(device), body)))
}

/// The context of the fixture, changed.
pub(in crate::dialects) fn context(change: impl FnOnce(&mut Context)) -> Arc<Context> {
    let mut context = fixture::context();
    change(Arc::get_mut(&mut context).expect("a fresh context has one owner"));
    context
}
