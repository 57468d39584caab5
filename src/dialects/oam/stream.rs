//! Live samples of one device for one subscription, gathered into batches.
//!
//! A batch is sent when it holds enough values, when it is about to be too long for a client's buffer, or when its
//! first sample has waited long enough.

use std::sync::Arc;
use std::time::Instant;

use super::{Settings, wire};
use crate::model::device::Device;
use crate::model::message::{Body, DeviceMessage, Form};
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
    /// Samples with commas between.
    batch: String,
    values: usize,
    until: Option<Instant>,
}

impl Stream {
    /// A subscription with nothing gathered yet.
    pub(super) fn new(key: Key, device: Arc<Device>) -> Self {
        Self { key, device, batch: String::new(), values: 0, until: None }
    }

    /// Takes a device message; gives the batch when it is full.
    pub(super) fn take(
        &mut self,
        message: &DeviceMessage,
        settings: &Settings,
        now: Instant,
    ) -> Option<String> {
        let Body::Properties(reports) = &message.body else { return None };
        if message.device.id != self.device.id {
            return None;
        }
        // An empty form is a message without any value.
        let sample =
            message.form(Form::OAM_STREAM, |message| wire::sample(message, reports).unwrap_or_default());
        if sample.is_empty() {
            return None;
        }
        if !self.batch.is_empty() {
            self.batch.push(',');
        }
        self.batch.push_str(&sample);
        self.values += reports.len();
        let until = *self.until.get_or_insert(now + settings.stomp_max_timeout);
        let full =
            self.values >= settings.stomp_max_metrics || self.batch.len() >= BATCH_BYTES || until <= now;
        full.then(|| self.flush())
    }

    /// When the batch has waited long enough.
    pub(super) fn timeout(&self) -> Option<Instant> {
        self.until
    }

    /// Gives the batch if it has waited long enough.
    pub(super) fn due(&mut self, now: Instant) -> Option<String> {
        self.until.is_some_and(|until| until <= now).then(|| self.flush())
    }

    fn flush(&mut self) -> String {
        self.values = 0;
        self.until = None;
        let body = format!("[{}]", self.batch);
        self.batch.clear();
        body
    }
}
