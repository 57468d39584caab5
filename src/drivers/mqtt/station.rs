//! One device behind a broker: its forms and templates, ready for use, and what is known of its presence.
//!
//! Pure.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value as Json;

use super::MqttDevice;
use super::body::Body;
use super::feed::{CallReply, Feed, Subject};
use super::homeassistant::jinja::{self, Scope};
use super::map::{Answer, AvailabilityMode, MqttMap, PLACES, Publish, REQUEST};
use super::payload::Form;
use super::route::{Names, is_topic};
use super::state::Origin;
use super::template::{Template, Unwritable};
use super::waiting::Limits;
use crate::drivers::Sample;
use crate::model::device::Device;
use crate::model::value::{Value, ValueType};

/// A device and all that its messages need.
#[derive(Debug)]
pub(super) struct Station {
    pub(super) device: Arc<Device>,
    /// What it was made of, to know whether it is the same.
    topic: Arc<str>,
    map: Arc<MqttMap>,
    /// How it came here, if it is not configured.
    pub(super) origin: Option<Origin>,
    /// With which of the others it came.
    pub(super) joined: u64,
    forms: Vec<Option<Form>>,
    reported: Vec<Reported>,
    writes: Vec<Option<Letter>>,
    /// What makes the device report something, and which of it each property has.
    reads: Vec<Option<Letter>>,
    read_of: Vec<Option<usize>>,
    functions: Vec<Option<Call>>,
    /// How often its properties may be written.
    pub(super) limits: Limits,
    /// What stands for the names of places in payloads.
    places: Vec<(&'static str, Value)>,
    offline_after: Option<Duration>,
    /// Topics that the gateway itself publishes to: what arrives there proves nothing about the device.
    commanded: HashSet<Arc<str>>,
    presence: Presence,
    /// The newest word of an update; the same again is no news.
    update: Option<(i32, Arc<str>)>,
}

/// What is known of a property.
#[derive(Debug)]
struct Reported {
    /// Whether it is reported at all.
    ever: bool,
    /// What was reported last on this connection.
    last: Option<Value>,
}

/// A message that can be sent.
#[derive(Debug)]
pub(super) struct Letter {
    pub(super) topic: Arc<str>,
    form: Filling,
    pub(super) qos: u8,
    pub(super) retain: bool,
    /// With MQTT 5 only.
    pub(super) user: Vec<(Arc<str>, Arc<str>)>,
    /// What the device does about it, where it does something.
    pub(super) wait: Option<Wait>,
}

/// How a message's payload is made.
#[derive(Debug)]
enum Filling {
    /// Places in a text are filled.
    Slots(Template),
    /// The value is made into something.
    Made(Arc<jinja::Template>),
}

/// A function that can be called.
#[derive(Debug)]
struct Call {
    letter: Letter,
    inputs: Vec<(Arc<str>, Form)>,
}

/// What an answer means.
#[derive(Debug)]
pub(super) enum Verdict {
    /// The device refuses, with these words.
    Refused(String),
    /// It has carried out a call, and gives this.
    Outputs(Vec<(Arc<str>, Value)>),
    /// It has done it; a report tells the rest.
    Done,
}

/// A report or an answer that is waited for.
#[derive(Debug)]
pub(super) struct Wait {
    pub(super) timeout: Duration,
    /// Where the request asks for it by properties of MQTT 5.
    pub(super) response_topic: Option<Arc<str>>,
}

/// What is known since the broker was last connected.
#[derive(Debug, Default)]
struct Presence {
    /// What each availability topic said.
    available: Vec<Option<bool>>,
    /// When the device was last heard of.
    heard: Option<Instant>,
    /// When the broker was asked for its topics.
    asked: Option<Instant>,
    /// What the hub was told.
    told: Option<bool>,
}

/// How long a device may be waited for whose availability is not told yet, since the broker was asked: it sends what it has
/// kept together with its answer, so that later nothing comes that was kept.
const AVAILABILITY_WITHIN: Duration = Duration::from_secs(2);

/// Named parameters of an event.
type Params = Vec<(Arc<str>, Value)>;

/// A change of presence, with the reason when offline.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Change {
    Online,
    Offline(Arc<str>),
}

impl Letter {
    /// Nothing for a topic that nobody can publish to.
    fn new(publish: &Publish, names: &Names, slots: &[Arc<str>]) -> Option<Self> {
        let topic = names.fill(&publish.topic);
        let mut slots = slots.to_vec();
        slots.extend(PLACES.into_iter().chain([REQUEST]).map(Arc::from));
        is_topic(&topic).then(|| Self {
            topic,
            form: match &publish.template {
                Some(template) => Filling::Made(Arc::clone(template)),
                None => Filling::Slots(Template::parse(&publish.payload, &slots)),
            },
            qos: publish.qos.min(2),
            retain: publish.retain,
            user: publish.user.iter().map(|(name, value)| (Arc::clone(name), names.fill(value))).collect(),
            wait: publish.reply.as_ref().map(|reply| Wait::new(reply.timeout, reply.answer.as_ref(), names)),
        })
    }
}

impl Wait {
    fn new(timeout: Duration, answer: Option<&Answer>, names: &Names) -> Self {
        let asked = answer.filter(|answer| answer.properties);
        Self { timeout, response_topic: asked.map(|answer| names.fill(&answer.place.topic)) }
    }
}

impl Station {
    pub(super) fn new(mqtt: &MqttDevice, names: &Names) -> Self {
        let product = &mqtt.device.product;
        let value = [Arc::from("value")];
        let points = || product.properties.iter().zip(&mqtt.map.properties);
        let writes: Vec<_> =
            points().map(|(_, point)| Letter::new(point.as_ref()?.write.as_ref()?, names, &value)).collect();
        let calls = product.functions.iter().zip(&mqtt.map.functions);
        let functions: Vec<_> = calls
            .map(|(function, call)| {
                let call = call.as_ref()?;
                let inputs: Vec<_> = function
                    .inputs
                    .iter()
                    .map(|input| (Arc::clone(&input.id), Form::plain(input.kind)))
                    .collect();
                let slots: Vec<_> = inputs.iter().map(|(name, _)| Arc::clone(name)).collect();
                let mut letter = Letter::new(&call.publish, names, &slots)?;
                letter.wait =
                    call.answer.as_ref().map(|answer| Wait::new(answer.timeout, Some(answer), names));
                Some(Call { letter, inputs })
            })
            .collect();
        let (reads, read_of) = mqtt.map.reads();
        let reads: Vec<_> = reads.into_iter().map(|read| Letter::new(read, names, &[])).collect();
        let called = functions.iter().flatten().map(|call| &call.letter);
        let letters = writes.iter().chain(&reads).flatten().chain(called);
        Self {
            device: Arc::clone(&mqtt.device),
            topic: Arc::clone(&mqtt.topic),
            map: Arc::clone(&mqtt.map),
            origin: None,
            joined: 0,
            forms: points().map(|(property, point)| Some(Form::of(property, point.as_ref()?))).collect(),
            reported: points()
                .map(|(_, point)| Reported {
                    ever: point.as_ref().is_some_and(|point| !point.sources.is_empty()),
                    last: None,
                })
                .collect(),
            commanded: letters.map(|letter| Arc::clone(&letter.topic)).collect(),
            writes,
            reads,
            read_of,
            functions,
            limits: Limits::new(&mqtt.map),
            places: names
                .pairs()
                .into_iter()
                .map(|(name, value)| (name, Value::Text(Arc::clone(value))))
                .collect(),
            offline_after: mqtt.map.offline_after,
            presence: Presence { available: vec![None; mqtt.map.availability.len()], ..Presence::default() },
            update: None,
        }
    }

    /// Whether it is this one still. What is only said of it for people and clients may differ, and is taken over.
    pub(super) fn goes_on_as(&mut self, mqtt: &MqttDevice) -> bool {
        let device = &mqtt.device;
        let same = self.device.id == device.id && self.is_same(mqtt);
        if same {
            self.device = Arc::clone(device);
            self.origin = None;
        }
        same
    }

    /// Whether nothing differs but what is said of it for people.
    pub(super) fn is_same(&self, mqtt: &MqttDevice) -> bool {
        self.topic == mqtt.topic && self.map == mqtt.map && self.device.product == mqtt.device.product
    }

    /// Whether it has announced itself.
    pub(super) fn is_announced(&self) -> bool {
        self.origin.as_ref().is_some_and(Origin::is_announced)
    }

    /// Whether it is what a product is at this topic.
    pub(super) fn is_at(&self, topic: &str, product: &str) -> bool {
        *self.topic == *topic && *self.device.product.id == *product
    }

    /// Whether it is configured, at this topic.
    pub(super) fn is_configured_at(&self, topic: &str) -> bool {
        self.origin.is_none() && *self.topic == *topic
    }

    /// Whether it was heard of on this connection.
    pub(super) fn is_heard(&self) -> bool {
        self.presence.heard.is_some()
    }

    /// When it is to be forgotten, as things are: not while its availability says that it is there.
    pub(super) fn forget_deadline(&self) -> Option<Instant> {
        let available = &self.presence.available;
        let is_there = !available.is_empty() && available.iter().all(|known| *known == Some(true));
        self.origin.as_ref().filter(|_| !is_there)?.deadline()
    }

    /// The broker is about to be asked for its topics.
    pub(super) fn asked(&mut self, now: Instant) {
        self.presence.asked = Some(now);
    }

    /// Until when it is to be waited for what its availability topics say of it, if nothing is known of it yet.
    pub(super) fn unsure_until(&self, now: Instant) -> Option<Instant> {
        let Presence { available, asked, told, .. } = &self.presence;
        if available.is_empty() || *told == Some(true) || !available.iter().all(Option::is_none) {
            return None;
        }
        asked.and_then(|asked| asked.checked_add(AVAILABILITY_WITHIN)).filter(|until| *until > now)
    }

    /// There is a sign of it, or none could have come before.
    pub(super) fn sign(&mut self, now: Instant) {
        if let Some(origin) = &mut self.origin {
            origin.heard = now;
        }
    }

    /// The id of a property of the product.
    pub(super) fn property_id(&self, property: usize) -> Arc<str> {
        self.device
            .product
            .properties
            .get(property)
            .map_or_else(|| "?".into(), |property| Arc::clone(&property.id))
    }

    /// The form of a property that is on MQTT.
    pub(super) fn form(&self, property: usize) -> Option<&Form> {
        self.forms.get(property)?.as_ref()
    }

    /// How a property is written, when it can be, with the message for this value.
    pub(super) fn write(
        &self,
        property: usize,
        value: &Value,
        request: u64,
    ) -> Option<Result<(&Letter, String), Unwritable>> {
        let (letter, form) = (self.writes.get(property)?.as_ref()?, self.form(property)?);
        let named = |name: &str| (name == "value").then_some((form, value));
        Some(self.render(letter, named, request).map(|payload| (letter, payload)))
    }

    /// How a function is called, when it can be, with the message for these inputs.
    pub(super) fn call(
        &self,
        function: usize,
        inputs: &[(Arc<str>, Value)],
        request: u64,
    ) -> Option<Result<(&Letter, String), Unwritable>> {
        let call = self.functions.get(function)?.as_ref()?;
        let named = |name: &str| {
            let (_, form) = call.inputs.iter().find(|(id, _)| **id == *name)?;
            let (_, value) = inputs.iter().find(|(id, _)| **id == *name)?;
            Some((form, value))
        };
        Some(self.render(&call.letter, named, request).map(|payload| (&call.letter, payload)))
    }

    /// Which of the reads makes the device report a property.
    pub(super) fn read_of(&self, property: usize) -> Option<usize> {
        let read = (*self.read_of.get(property)?)?;
        self.reads.get(read)?.as_ref().map(|_| read)
    }

    /// The message of a read.
    pub(super) fn ask(&self, read: usize, request: u64) -> Option<Result<(&Letter, String), Unwritable>> {
        let letter = self.reads.get(read)?.as_ref()?;
        Some(self.render(letter, |_| None, request).map(|payload| (letter, payload)))
    }

    /// Takes note of what the device reported.
    pub(super) fn reported(&mut self, samples: &[(usize, Sample)]) {
        for (property, sample) in samples {
            if let (Some(known), Sample::Value(value)) = (self.reported.get_mut(*property), sample) {
                known.last = Some(value.clone());
            }
        }
    }

    /// Whether a property is known to have that value, or never tells.
    pub(super) fn is_so(&self, property: usize, value: Option<&Value>) -> bool {
        let Some(reported) = self.reported.get(property).filter(|reported| reported.ever) else {
            return true;
        };
        let known = (reported.last.as_ref(), value, self.form(property));
        matches!(known, (Some(last), Some(value), Some(form)) if form.same(value, last))
    }

    /// Fills a message with what is sent, and with the names of places and the number of the request unless an input
    /// has that name.
    fn render<'v>(
        &'v self,
        letter: &Letter,
        named: impl Fn(&str) -> Option<(&'v Form, &'v Value)>,
        request: u64,
    ) -> Result<String, Unwritable> {
        let template = match &letter.form {
            Filling::Slots(template) => template,
            Filling::Made(template) => {
                let sent = named("value").map_or(Some(Json::Null), |(form, value)| form.sent(value));
                let said = sent.and_then(|sent| template.render(Scope::sent(sent)).ok());
                return said.map(Option::unwrap_or_default).ok_or_else(|| Unwritable("value".into()));
            }
        };
        let (text, number) = (Form::plain(ValueType::Text), Form::plain(ValueType::Int));
        let request = Value::Int(i64::try_from(request).unwrap_or(i64::MAX));
        template.render(|name| {
            if let Some(found) = named(name) {
                return Some(found);
            }
            if name == REQUEST {
                return Some((&number, &request));
            }
            self.places.iter().find(|(place, _)| *place == name).map(|(_, value)| (&text, value))
        })
    }

    /// Whether the device itself publishes there, as far as can be told.
    pub(super) fn is_own_topic(&self, topic: &str) -> bool {
        !self.commanded.contains(topic)
    }

    /// What a message carries for the device's properties.
    pub(super) fn samples(&self, feed: &Feed, body: &Body<'_>, retained: bool) -> Vec<(usize, Sample)> {
        let read = |spot: &super::feed::Spot| {
            Some((spot.property, spot.read(body, retained, self.form(spot.property)?)?))
        };
        feed.spots.iter().filter_map(read).collect()
    }

    /// The events that a message is: their ids and parameters.
    pub(super) fn events(&self, feed: &Feed, body: &Body<'_>, retained: bool) -> Vec<(Arc<str>, Params)> {
        let read = |trigger: &super::feed::Trigger| {
            let event = self.device.product.events.get(trigger.event)?;
            Some((Arc::clone(&event.id), trigger.read(body, retained, &event.params)?))
        };
        feed.triggers.iter().filter_map(read).collect()
    }

    /// What is told of an update, unless that was said before.
    pub(super) fn update(&mut self, told: (i32, Arc<str>)) -> Option<(i32, Arc<str>)> {
        let is_news = self.update.as_ref() != Some(&told);
        self.update = Some(told.clone());
        is_news.then_some(told)
    }

    /// What an answer means.
    pub(super) fn verdict(&self, reply: &CallReply, body: &Body<'_>) -> Verdict {
        if let Some(words) = reply.failure(body) {
            return Verdict::Refused(words);
        }
        let Subject::Function(function) = reply.subject else { return Verdict::Done };
        let outputs = self.device.product.functions.get(function).map(|function| function.outputs.as_slice());
        Verdict::Outputs(reply.outputs(body, outputs.unwrap_or_default()))
    }

    /// Takes note of what a message says of the device being there or gone.
    pub(super) fn hear_availability(
        &mut self,
        feed: &Feed,
        body: &Body<'_>,
        retained: bool,
        now: Instant,
    ) -> Option<Change> {
        let mut told = false;
        for sign in &feed.signs {
            let Some(available) = sign.read(body, retained) else { continue };
            if let Some(known) = self.presence.available.get_mut(sign.at) {
                *known = Some(available);
                told = true;
            }
        }
        if !told {
            return None;
        }
        self.sign(now);
        if self.map.availability_mode == AvailabilityMode::Latest {
            let latest = feed.signs.iter().rev().find_map(|sign| sign.read(body, retained));
            self.presence.available.fill(latest);
        }
        if self.is_gone() {
            return self.presence.offline("its availability topic says that it is gone");
        }
        self.presence.heard = Some(now);
        self.presence.online()
    }

    /// Takes note of any other message of the device.
    ///
    /// With availability topics those decide: a retained value may outlive its device, and some bridges answer for a
    /// device that is gone. Only until one has spoken does a fresh message count.
    pub(super) fn hear(&mut self, retained: bool, now: Instant) -> Option<Change> {
        self.sign(now);
        self.presence.heard = Some(now);
        let available = &self.presence.available;
        let is_there = if available.is_empty() {
            true
        } else if available.iter().all(Option::is_none) {
            !retained
        } else {
            !self.is_gone()
        };
        if is_there { self.presence.online() } else { None }
    }

    /// Whether what its availability topics say comes to that.
    fn is_gone(&self) -> bool {
        let says = |known| self.presence.available.contains(&Some(known));
        says(false) && (self.map.availability_mode != AvailabilityMode::Any || !says(true))
    }

    /// Takes the place of another one, of which it goes on to know whether it is there.
    pub(super) fn follow(&mut self, other: Self) {
        self.presence = other.presence;
    }

    /// Whether it is the same device at the same availability topics, so that it can take the place of another one.
    pub(super) fn follows(&self, other: &MqttDevice) -> bool {
        let (mine, others) = (&self.map, &other.map);
        mine.availability == others.availability && mine.availability_mode == others.availability_mode
    }

    /// Whether a command may reach it: not when it is known to be gone. One that was never heard of may only be
    /// waiting for something to do.
    pub(super) fn may_be_there(&self) -> bool {
        self.presence.told != Some(false)
    }

    /// When silence will have lasted too long.
    pub(super) fn silence_deadline(&self) -> Option<Instant> {
        if self.presence.told != Some(true) {
            return None;
        }
        self.presence.heard?.checked_add(self.offline_after?)
    }

    /// Goes offline when silence has lasted too long.
    pub(super) fn check_silence(&mut self, now: Instant) -> Option<Change> {
        if self.silence_deadline()? > now {
            return None;
        }
        let reason = format!("nothing was heard of it for {} s", self.offline_after?.as_secs_f64());
        self.presence.offline(&reason)
    }

    /// The broker is back, and says nothing of the device yet. Gives the device if it was told as offline.
    pub(super) fn doubt(&mut self) -> Option<Arc<Device>> {
        self.presence.told.take_if(|online| !*online).map(|_| Arc::clone(&self.device))
    }

    /// The broker was lost: nothing is known any more.
    pub(super) fn lose(&mut self, reason: &str) -> Option<Change> {
        self.presence.available.fill(None);
        self.presence.heard = None;
        self.reported.iter_mut().for_each(|known| known.last = None);
        self.presence.offline(reason)
    }
}

impl Presence {
    fn online(&mut self) -> Option<Change> {
        (self.told.replace(true) != Some(true)).then_some(Change::Online)
    }

    fn offline(&mut self, reason: &str) -> Option<Change> {
        (self.told.replace(false) != Some(false)).then(|| Change::Offline(reason.into()))
    }
}
