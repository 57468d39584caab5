//! Live samples of one device for one subscription, gathered into batches.
//!
//! Without a profile on its node every report of the device is a sample; with one, samples are taken by its plan.
//!
//! A batch is sent when it holds enough values, when it is about to be too long for a client's buffer, or when its
//! first sample has waited long enough.

use std::sync::Arc;
use std::time::Instant;

use super::registry::Turn;
use super::sampler::Sampler;
use super::{Settings, catalogue, wire};
use crate::dialects::shared::json;
use crate::model::device::Device;
use crate::model::message::{Body, DeviceMessage, Form};
use crate::model::snapshot::DeviceSnapshot;
use crate::model::time::Now;
use crate::model::value::Quality;
use crate::proto::stomp::Key;

/// Octets of a batch above which it is sent: default buffers of Java containers hold eight KiB.
const BATCH_BYTES: usize = 7 * 1024;

/// One subscription to one device.
#[derive(Debug)]
pub(super) struct Stream {
    /// Whose it is.
    pub key: Key,
    /// What it is about.
    pub device: Arc<Device>,
    /// As the client wrote it.
    pub destination: String,
    /// Samples with commas between.
    batch: String,
    values: usize,
    until: Option<Instant>,
    /// Where it is sampled.
    sampler: Option<Sampler>,
}

impl Stream {
    /// A subscription with nothing gathered yet.
    pub(super) fn new(key: Key, device: Arc<Device>, destination: &str) -> Self {
        let destination = destination.to_owned();
        Self { key, device, destination, batch: String::new(), values: 0, until: None, sampler: None }
    }

    /// From now on it is sampled by this plan, or told as it changes.
    pub(super) fn follow(&mut self, plan: Option<Vec<Turn>>, now: Instant) {
        if self.sampler.as_ref().map(Sampler::plan) != plan.as_deref() {
            self.sampler = plan.map(|plan| Sampler::new(plan, now));
        }
    }

    /// Whether it wants every report of the device.
    pub(super) fn is_told(&self) -> bool {
        self.sampler.is_none()
    }

    /// When something is to be sampled.
    pub(super) fn next_sample(&self) -> Option<Instant> {
        self.sampler.as_ref().and_then(Sampler::timeout)
    }

    /// The positions of the properties that are to be sampled now.
    pub(super) fn due_properties(&mut self, now: Instant) -> Vec<usize> {
        self.sampler.as_mut().map(|sampler| sampler.take(now)).unwrap_or_default()
    }

    /// Takes a sample of these properties; gives the batch when it is full.
    pub(super) fn sample(
        &mut self,
        state: &DeviceSnapshot,
        properties: &[usize],
        settings: &Settings,
        now: Now,
    ) -> Option<String> {
        let value = |position: &usize| {
            let property = state.device.product.properties.get(*position)?;
            let reading = state.readings.get(*position)?.as_ref()?;
            let good = reading.quality == Quality::Good;
            good.then(|| (catalogue::enum_name(&property.id), json::to_json(&reading.value)))
        };
        let members: serde_json::Map<_, _> = properties.iter().filter_map(value).collect();
        let values = members.len();
        if values == 0 || !state.online {
            return None;
        }
        self.gather(&wire::stamped(members, now.wall).to_string(), values, settings, now.instant)
    }

    /// Takes a device message; gives the batch when it is full.
    pub(super) fn take(
        &mut self,
        message: &DeviceMessage,
        settings: &Settings,
        now: Instant,
    ) -> Option<String> {
        let Body::Properties(reports) = &message.body else { return None };
        if message.device.id != self.device.id || self.sampler.is_some() {
            return None;
        }
        // An empty form is a message without any value.
        let sample =
            message.form(Form::OAM_STREAM, |message| wire::sample(message, reports).unwrap_or_default());
        if sample.is_empty() {
            return None;
        }
        let values = reports.len();
        self.gather(&sample, values, settings, now)
    }

    fn gather(&mut self, sample: &str, values: usize, settings: &Settings, now: Instant) -> Option<String> {
        let fits = self.batch.is_empty() || self.batch.len() + sample.len() < BATCH_BYTES;
        let before = (!fits).then(|| self.flush());
        if !self.batch.is_empty() {
            self.batch.push(',');
        }
        self.batch.push_str(sample);
        self.values += values;
        let until = *self.until.get_or_insert(now + settings.stomp_max_timeout);
        let full =
            self.values >= settings.stomp_max_metrics || self.batch.len() >= BATCH_BYTES || until <= now;
        if full && before.is_some() {
            // Only one batch can be given at a time; this one is due at once.
            self.until = Some(now);
            return before;
        }
        before.or_else(|| full.then(|| self.flush()))
    }

    /// When the batch has waited long enough.
    pub(super) fn timeout(&self) -> Option<Instant> {
        self.until
    }

    /// Gives the batch if it has waited long enough.
    pub(super) fn due(&mut self, now: Instant) -> Option<String> {
        self.until.is_some_and(|until| until <= now).then(|| self.flush())
    }

    /// What is gathered, full or not.
    pub(super) fn rest(&mut self) -> Option<String> {
        (!self.batch.is_empty()).then(|| self.flush())
    }

    fn flush(&mut self) -> String {
        self.values = 0;
        self.until = None;
        let body = format!("[{}]", self.batch);
        self.batch.clear();
        body
    }
}
