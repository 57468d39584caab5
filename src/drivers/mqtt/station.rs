//! One device behind a broker: its forms and templates, ready for use, and what is known of its presence.
//!
//! Pure.

use std::cell::OnceCell;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value as Json;

use super::MqttDevice;
use super::map::{Availability, Publish};
use super::path::Path;
use super::payload::{Form, scalar_text};
use super::route::{Feed, Spot, concrete, is_topic};
use super::template::{Template, Unwritable};
use crate::drivers::Sample;
use crate::model::device::Device;
use crate::model::value::Value;

/// A device and all that its messages need.
#[derive(Debug)]
pub(super) struct Station {
    pub(super) device: Arc<Device>,
    forms: Vec<Option<Form>>,
    writes: Vec<Option<Letter>>,
    functions: Vec<Option<Call>>,
    availability: Option<Sign>,
    offline_after: Option<Duration>,
    /// Topics that the gateway itself publishes to: what arrives there proves nothing about the device.
    commanded: HashSet<Arc<str>>,
    presence: Presence,
}

/// A message that can be sent.
#[derive(Debug)]
pub(super) struct Letter {
    pub(super) topic: Arc<str>,
    template: Template,
    pub(super) qos: u8,
    pub(super) retain: bool,
    pub(super) reply: Option<Duration>,
}

#[derive(Debug)]
struct Call {
    letter: Letter,
    inputs: Vec<(Arc<str>, Form)>,
}

#[derive(Debug)]
struct Sign {
    path: Option<Path>,
    online: String,
    offline: String,
}

/// What is known since the broker was last connected.
#[derive(Debug, Default)]
struct Presence {
    /// What the availability topic said.
    available: Option<bool>,
    /// When the device was last heard of.
    heard: Option<Instant>,
    /// What the hub was told.
    told: Option<bool>,
}

/// A change of presence, with the reason when offline.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Change {
    Online,
    Offline(Arc<str>),
}

/// A message as it came, read as JSON at most once.
#[derive(Debug)]
pub(super) struct Body<'a> {
    bytes: &'a [u8],
    json: OnceCell<Option<Json>>,
}

impl<'a> Body<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, json: OnceCell::new() }
    }

    fn text(&self) -> Option<&'a str> {
        std::str::from_utf8(self.bytes).ok()
    }

    fn json(&self) -> Option<&Json> {
        self.json.get_or_init(|| serde_json::from_slice(self.bytes).ok()).as_ref()
    }
}

impl Letter {
    /// Nothing for a topic that nobody can publish to.
    fn new(publish: &Publish, device_topic: &str, names: &[Arc<str>]) -> Option<Self> {
        let topic = concrete(&publish.topic, device_topic);
        is_topic(&topic).then(|| Self {
            topic,
            template: Template::parse(&publish.payload, names),
            qos: publish.qos.min(2),
            retain: publish.retain,
            reply: publish.reply.as_ref().map(|reply| reply.timeout),
        })
    }
}

impl Station {
    pub(super) fn new(mqtt: &MqttDevice) -> Self {
        let product = &mqtt.device.product;
        let value = [Arc::from("value")];
        let points = || product.properties.iter().zip(&mqtt.map.properties);
        let writes: Vec<_> = points()
            .map(|(_, point)| Letter::new(point.as_ref()?.write.as_ref()?, &mqtt.topic, &value))
            .collect();
        let calls = product.functions.iter().zip(&mqtt.map.functions);
        let functions: Vec<_> = calls
            .map(|(function, publish)| {
                let inputs: Vec<_> = function
                    .inputs
                    .iter()
                    .map(|input| (Arc::clone(&input.id), Form::plain(input.kind)))
                    .collect();
                let names: Vec<_> = inputs.iter().map(|(name, _)| Arc::clone(name)).collect();
                Some(Call { letter: Letter::new(publish.as_ref()?, &mqtt.topic, &names)?, inputs })
            })
            .collect();
        let letters = writes.iter().flatten().chain(functions.iter().flatten().map(|call| &call.letter));
        Self {
            device: Arc::clone(&mqtt.device),
            forms: points().map(|(property, point)| Some(Form::of(property, point.as_ref()?))).collect(),
            commanded: letters.map(|letter| Arc::clone(&letter.topic)).collect(),
            writes,
            functions,
            availability: mqtt.map.availability.as_ref().map(Sign::new),
            offline_after: mqtt.map.offline_after,
            presence: Presence::default(),
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
    ) -> Option<Result<(&Letter, String), Unwritable>> {
        let (letter, form) = (self.writes.get(property)?.as_ref()?, self.form(property)?);
        Some(letter.template.render(|_| Some((form, value))).map(|payload| (letter, payload)))
    }

    /// How a function is called, when it can be, with the message for these inputs.
    pub(super) fn call(
        &self,
        function: usize,
        inputs: &[(Arc<str>, Value)],
    ) -> Option<Result<(&Letter, String), Unwritable>> {
        let call = self.functions.get(function)?.as_ref()?;
        let payload = call.letter.template.render(|name| {
            let (_, form) = call.inputs.iter().find(|(id, _)| **id == *name)?;
            let (_, value) = inputs.iter().find(|(id, _)| **id == *name)?;
            Some((form, value))
        });
        Some(payload.map(|payload| (&call.letter, payload)))
    }

    /// Whether the device itself publishes there, as far as can be told.
    pub(super) fn is_own_topic(&self, topic: &str) -> bool {
        !self.commanded.contains(topic)
    }

    /// What a message carries for the device's properties. A path that leads nowhere is no reading: one topic often
    /// carries now these members, now those. An empty payload only clears a retained message.
    pub(super) fn samples(&self, feed: &Feed, body: &Body<'_>) -> Vec<(usize, Sample)> {
        let read = |spot: &Spot| Some((spot.property, self.sample(spot, body)?));
        feed.spots.iter().filter_map(read).collect()
    }

    fn sample(&self, spot: &Spot, body: &Body<'_>) -> Option<Sample> {
        if body.bytes.is_empty() {
            return None;
        }
        let form = self.form(spot.property)?;
        let unreadable = |reason: &str| Some(Sample::Unreadable(reason.into()));
        for path in &spot.paths {
            match path {
                None => {
                    return body.text().map_or_else(
                        || unreadable("the payload is not UTF-8 text"),
                        |text| Some(form.read_text(text)),
                    );
                }
                Some(path) => match body.json() {
                    None => return unreadable("the payload is not JSON"),
                    Some(json) => {
                        if let Some(found) = path.find(json) {
                            return Some(form.read_json(found));
                        }
                    }
                },
            }
        }
        None
    }

    /// Takes note of a message on the availability topic.
    pub(super) fn hear_availability(&mut self, body: &Body<'_>, now: Instant) -> Option<Change> {
        let available = self.availability.as_ref()?.read(body)?;
        self.presence.available = Some(available);
        if available {
            self.presence.heard = Some(now);
            self.presence.online()
        } else {
            self.presence.offline("its availability topic says that it is gone")
        }
    }

    /// Takes note of any other message of the device.
    ///
    /// With an availability topic that one decides: a retained value may outlive its device, and some bridges answer
    /// for a device that is gone. Only until it has spoken does a fresh message count.
    pub(super) fn hear(&mut self, retained: bool, now: Instant) -> Option<Change> {
        self.presence.heard = Some(now);
        let is_there = match (&self.availability, self.presence.available) {
            (None, _) => true,
            (Some(_), Some(available)) => available,
            (Some(_), None) => !retained,
        };
        if is_there { self.presence.online() } else { None }
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

    /// The broker was lost: nothing is known any more.
    pub(super) fn lose(&mut self, reason: &str) -> Option<Change> {
        self.presence.available = None;
        self.presence.heard = None;
        self.presence.offline(reason)
    }
}

impl Sign {
    fn new(availability: &Availability) -> Self {
        Self {
            // A path that cannot be read is reported with the routes; the whole payload is the best that is left.
            path: availability.path.as_ref().and_then(|path| Path::parse(path).ok()),
            online: availability.online.to_string(),
            offline: availability.offline.to_string(),
        }
    }

    /// What the message says, unless it says something else altogether.
    fn read(&self, body: &Body<'_>) -> Option<bool> {
        let word = match &self.path {
            None => body.text()?.trim().to_owned(),
            Some(path) => scalar_text(path.find(body.json()?)?)?,
        };
        if word.eq_ignore_ascii_case(&self.online) {
            Some(true)
        } else if word.eq_ignore_ascii_case(&self.offline) {
            Some(false)
        } else {
            None
        }
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
