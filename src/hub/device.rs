//! What is known of one device: its readings, whether it answers, which alarms are raised, and which of all that
//! is worth a device message.
//!
//! A reading is always taken over; the report rule of its property only decides when others hear of it. Facts are
//! handed out without a number: the state numbers them.

use std::sync::Arc;
use std::time::Instant;

use tracing::{info, warn};

use super::alarms::Alarms;
use super::computed::{self, Computed};
use super::events;
use super::point::Point;
use super::state::dating;
use crate::drivers::Sample;
use crate::model::device::Device;
use crate::model::message::{Body, Report};
use crate::model::product::{AlarmRule, Level, Product, Property};
use crate::model::snapshot::DeviceSnapshot;
use crate::model::time::UnixMillis;
use crate::model::value::{Quality, Value};

/// Every device's state, by slot.
#[derive(Debug, Default)]
pub(super) struct Devices(Vec<Option<DeviceState>>);

impl Devices {
    pub(super) fn get(&self, slot: usize) -> Option<&DeviceState> {
        self.0.get(slot)?.as_ref()
    }

    pub(super) fn get_mut(&mut self, slot: usize) -> Option<&mut DeviceState> {
        self.0.get_mut(slot)?.as_mut()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut DeviceState> {
        self.0.iter_mut().flatten()
    }

    /// Gives a slot to a device.
    pub(super) fn insert(&mut self, slot: usize, state: DeviceState) {
        if slot >= self.0.len() {
            self.0.resize_with(slot + 1, || None);
        }
        if let Some(place) = self.0.get_mut(slot) {
            *place = Some(state);
        }
    }

    pub(super) fn remove(&mut self, slot: usize) {
        if let Some(place) = self.0.get_mut(slot) {
            *place = None;
        }
    }
}

/// One device's state.
#[derive(Debug)]
pub(super) struct DeviceState {
    device: Arc<Device>,
    /// `None` until it is first heard of.
    online: Option<bool>,
    /// Whether it may be there all the same, though it was told as offline.
    doubted: bool,
    since: Option<UnixMillis>,
    /// Since when it answers, if it does.
    answers: Option<Instant>,
    /// By position in the product's properties.
    points: Vec<Point>,
    alarms: Alarms,
    computed: Computed,
}

impl DeviceState {
    pub(super) fn new(device: Arc<Device>) -> Self {
        let points = vec![Point::default(); device.product.properties.len()];
        let alarms = Alarms::new(&device.product);
        let computed = Computed::new(&device);
        Self { device, online: None, doubted: false, since: None, answers: None, points, alarms, computed }
    }

    pub(super) fn device(&self) -> &Arc<Device> {
        &self.device
    }

    /// Whether it is known not to answer; a device that was never heard of is worth a try, and so is one of which
    /// nothing is known any more.
    pub(super) fn known_offline(&self) -> bool {
        self.online == Some(false) && !self.doubted
    }

    /// Nothing is known of it any more.
    pub(super) fn doubt(&mut self) {
        self.doubted = true;
    }

    /// Whether it is known to be there.
    pub(super) fn known_online(&self) -> bool {
        self.online == Some(true)
    }

    /// The clock was wrong by this since then.
    pub(super) fn set_clock(&mut self, since: UnixMillis, step: i64) {
        let readings = self.points.iter_mut().filter_map(|point| point.reading.as_mut());
        let times = readings.map(|reading| &mut reading.at).chain(&mut self.since);
        times.for_each(|at| dating::move_along(at, since, step));
    }

    /// The time begins from which the lack of readings counts.
    pub(super) fn begin(&mut self, now: Instant) {
        self.alarms.begin(now);
    }

    /// Takes readings over. A device that gives any is online. Gives the good ones, and what was computed from them.
    pub(super) fn values(
        &mut self,
        at: UnixMillis,
        values: Vec<(usize, Sample)>,
        now: Instant,
        facts: &mut Vec<Body>,
    ) -> Vec<(usize, Value)> {
        self.presence(at, true, None, now, facts);
        let product = Arc::clone(&self.device.product);
        let mut touched = Vec::with_capacity(values.len());
        let mut read = Vec::with_capacity(values.len());
        for (position, sample) in values {
            let (Some(property), Some(point)) =
                (product.properties.get(position), self.points.get_mut(position))
            else {
                continue;
            };
            touched.push(position);
            match sample {
                // A driver promises not to give these; one that did must not end up in front of a client.
                Sample::Value(Value::Float(n)) if !n.is_finite() => {
                    point.spoil();
                    self.alarms.interrupt(Some(position));
                }
                Sample::Unreadable(reason) => {
                    point.spoil();
                    self.alarms.interrupt(Some(position));
                    if let Some(untold) = point.trouble.begins(now) {
                        warn!(device = %self.device.id, property = &*property.id, %reason, untold, "property cannot be read");
                    }
                }
                Sample::Value(value) => {
                    if let Some(failures) = point.trouble.ends() {
                        info!(device = %self.device.id, property = &*property.id, failures, "property can be read again");
                    }
                    read.push((position, point.take(value.clone(), at, now), value));
                }
            }
        }
        let computed = self.computed.concerned(&product, &touched);
        for position in &computed {
            if let Some((before, value)) = self.compute(*position, at, now) {
                read.push((*position, before, value));
            }
        }
        touched.extend(computed);
        self.report(touched, now, facts, Point::due);
        for (position, before, value) in &read {
            self.consider(*position, before.as_ref(), value, now, facts);
        }
        read.into_iter().map(|(position, _, value)| (position, value)).collect()
    }

    /// Takes over what a property is computed to be. Gives its value before and now, if it has a good one.
    fn compute(&mut self, position: usize, at: UnixMillis, now: Instant) -> Option<(Option<Value>, Value)> {
        let points = &self.points;
        let reading = |at: usize| points.get(at)?.reading.as_ref();
        let result = computed::compute(&self.device.product, position, reading);
        let point = self.points.get_mut(position)?;
        match result {
            computed::Result::Value(value) => return Some((point.take(value.clone(), at, now), value)),
            computed::Result::Worse(Quality::Bad) => point.spoil(),
            computed::Result::Worse(Quality::Stale | Quality::Good) => point.age(),
            computed::Result::Nothing => return None,
        }
        self.alarms.interrupt(Some(position));
        None
    }

    /// What a good reading fires, raises and clears.
    fn consider(
        &mut self,
        position: usize,
        before: Option<&Value>,
        value: &Value,
        now: Instant,
        facts: &mut Vec<Body>,
    ) {
        let points = &self.points;
        let known = |at: usize| Some(points.get(at)?.reading.as_ref()?.value.clone());
        events::fire(&self.device.product, position, before, value, known, facts);
        self.alarms.judge(position, value, now, facts);
    }

    /// Takes presence over, if it changed. Going offline makes every reading stale, after those that still waited
    /// for their report have been told.
    pub(super) fn presence(
        &mut self,
        at: UnixMillis,
        online: bool,
        reason: Option<Arc<str>>,
        now: Instant,
        facts: &mut Vec<Body>,
    ) {
        self.doubted = false;
        if self.online == Some(online) {
            return;
        }
        if !online {
            self.report(0..self.points.len(), now, facts, Point::waits);
            self.points.iter_mut().for_each(Point::lose);
            self.alarms.interrupt(None);
        }
        self.online = Some(online);
        self.answers = online.then_some(now);
        self.since = Some(at);
        facts.push(Body::Presence { online, reason: if online { None } else { reason } });
    }

    /// The driver begins anew and knows nothing of the device, so neither does anybody else.
    pub(super) fn lose(&mut self, at: UnixMillis, reason: &Arc<str>, now: Instant, facts: &mut Vec<Body>) {
        if self.online == Some(true) {
            self.presence(at, false, Some(Arc::clone(reason)), now, facts);
        }
        self.doubt();
    }

    /// Clears what is raised by rules that the next product, if there is one, does not have for the same property.
    /// Said while the device is still what it was.
    pub(super) fn withdraw_alarms(&mut self, next: Option<&Product>, facts: &mut Vec<Body>) {
        let product = Arc::clone(&self.device.product);
        for (position, property) in product.properties.iter().enumerate() {
            let stays = next.and_then(|next| next.property(&property.id)).map(|(_, property)| property);
            let goes = |rule: &&Arc<AlarmRule>| {
                !stays.is_some_and(|property| {
                    property.alarms.iter().any(|other| other.enabled && other.id == rule.id)
                })
            };
            for rule in property.alarms.iter().filter(goes) {
                if self.alarms.active().contains(&rule.id) {
                    self.alarms.set(&rule.id, false);
                    let reading = self.points.get(position).and_then(|point| point.reading.as_ref());
                    facts.push(Body::Alarm {
                        rule: Arc::clone(rule),
                        property: position,
                        raised: false,
                        value: reading.map_or(Value::Null, |reading| reading.value.clone()),
                        active: self.alarms.active().to_vec(),
                    });
                }
            }
        }
    }

    /// The device is configured differently. What is known of a property that is still there stays, and is judged
    /// by the limits that hold now.
    pub(super) fn adopt(&mut self, device: Arc<Device>, now: Instant, facts: &mut Vec<Body>) {
        let old = std::mem::replace(&mut self.device, device);
        if Arc::ptr_eq(&old.product, &self.device.product) {
            return;
        }
        let product = Arc::clone(&self.device.product);
        let mut known = std::mem::take(&mut self.points);
        let mut kept = |property: &Property| {
            let (position, before) = old.product.property(&property.id)?;
            let point = known.get_mut(position).filter(|_| before.kind == property.kind);
            point.map(std::mem::take)
        };
        self.points = product.properties.iter().map(|property| kept(property).unwrap_or_default()).collect();
        self.computed = Computed::new(&self.device);
        self.alarms.adopt(&old.product, &product);
        for (position, point) in self.points.iter().enumerate() {
            if let Some(reading) = point.reading.as_ref().filter(|reading| reading.quality == Quality::Good) {
                self.alarms.judge(position, &reading.value, now, facts);
            }
        }
    }

    /// An event that the device sent itself; one that the product does not name counts as information.
    pub(super) fn event(&self, event: Arc<str>, params: Vec<(Arc<str>, Value)>, facts: &mut Vec<Body>) {
        let known = self.device.product.events.iter().find(|known| known.id == event);
        let level = known.map_or(Level::Info, |known| known.level);
        facts.push(Body::Event { event, level, params });
    }

    /// Reports what a report rule held back or asks for again and what has become stale, and lets alarms go on.
    pub(super) fn handle_timeout(&mut self, now: Instant, facts: &mut Vec<Body>) {
        if self.online == Some(true) {
            let product = Arc::clone(&self.device.product);
            let mut expired = Vec::new();
            for (position, (point, property)) in self.points.iter_mut().zip(&product.properties).enumerate() {
                if point.expire(property, self.answers, now) {
                    self.alarms.interrupt(Some(position));
                    expired.push(position);
                }
            }
            for position in self.computed.concerned(&product, &expired) {
                if let Some(point) = self.points.get_mut(position) {
                    point.age();
                    self.alarms.interrupt(Some(position));
                }
            }
            self.report(0..self.points.len(), now, facts, Point::due);
        }
        self.alarms.handle_timeout(now, facts);
    }

    /// When to call `handle_timeout`.
    pub(super) fn timeout(&self) -> Option<Instant> {
        let points = self.points.iter().zip(&self.device.product.properties);
        let answers = self.answers;
        let readings = points
            .filter(|_| self.online == Some(true))
            .filter_map(|(point, property)| point.timeout(property, answers));
        readings.chain(self.alarms.timeout()).min()
    }

    /// Every known reading as a report, for a session that missed some.
    pub(super) fn newest(&self) -> Option<Body> {
        let points = self.points.iter().zip(&self.device.product.properties).enumerate();
        let reports: Vec<Report> =
            points.filter_map(|(position, (point, property))| point.report(position, property)).collect();
        (!reports.is_empty()).then_some(Body::Properties(reports))
    }

    /// The last values of these properties. One whose device last answered with something that is no reading has
    /// no value that could be confirmed.
    pub(super) fn known(&self, positions: &[usize]) -> Vec<(Arc<str>, Value)> {
        let known = |position: &usize| {
            let property = self.device.product.properties.get(*position)?;
            let reading = self.points.get(*position)?.reading.as_ref()?;
            (reading.quality != Quality::Bad).then(|| (Arc::clone(&property.id), reading.value.clone()))
        };
        positions.iter().filter_map(known).collect()
    }

    /// The last value of a property, if it is good.
    pub(super) fn good_value(&self, position: usize) -> Option<&Value> {
        let reading = self.points.get(position)?.reading.as_ref()?;
        (reading.quality == Quality::Good).then_some(&reading.value)
    }

    /// The last value of a property as a number, if it is good.
    pub(super) fn good(&self, position: usize) -> Option<f64> {
        let reading = self.points.get(position)?.reading.as_ref()?;
        if reading.quality == Quality::Good { reading.value.as_f64() } else { None }
    }

    /// An alarm of a client was raised or has cleared. Gives all that are raised now.
    pub(super) fn alarm(&mut self, rule: &Arc<str>, raised: bool) -> Vec<Arc<str>> {
        self.alarms.set(rule, raised);
        self.alarms.active().to_vec()
    }

    pub(super) fn snapshot(&self) -> DeviceSnapshot {
        DeviceSnapshot {
            device: Arc::clone(&self.device),
            online: self.online == Some(true),
            since: self.since,
            readings: self.points.iter().map(|point| point.reading.clone()).collect(),
            alarms: self.alarms.active().to_vec(),
        }
    }

    /// Puts all of these points that are due into one message.
    fn report(
        &mut self,
        positions: impl IntoIterator<Item = usize>,
        now: Instant,
        facts: &mut Vec<Body>,
        due: impl Fn(&Point, &Property, Instant) -> bool,
    ) {
        let mut reports = Vec::new();
        for position in positions {
            let (Some(point), Some(property)) =
                (self.points.get_mut(position), self.device.product.properties.get(position))
            else {
                continue;
            };
            if due(point, property, now) {
                reports.extend(point.report(position, property));
                point.told(now);
            }
        }
        if !reports.is_empty() {
            facts.push(Body::Properties(reports));
        }
    }
}
