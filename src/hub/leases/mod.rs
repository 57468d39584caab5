//! Leases: values that hold only as long as somebody stands behind them.
//!
//! A write may be leased, because its client says so or because its product does. A lease ends by its time, with the
//! session that it is tied to, or by another confirmed write of the same property, which brings a lease of its own or
//! none. One that is **lost** is followed by the property's safe value, again and again until the device has taken it.
//! Nobody knows after a start who held what, nor what a device holds that is added later, so every property with a safe
//! value begins as if it had been leased that moment.
//!
//! What happens is up to the owner: [`Leases::due`] names a safe value to be written, and the owner says at once what
//! it does of it ([`Leases::writing`], [`Leases::unsent`] or [`Leases::done`]). Knows no queue and no clock.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::handle::SessionKey;
use crate::drivers::CommandId;
use crate::model::check::same;
use crate::model::command::{Lease, Outcome, Rejection};
use crate::model::product::{Product, Property};
use crate::model::value::Value;

/// Values that clients hold leased at once, of all devices. A further leased write is refused with these words.
pub(super) const LEASES: usize = 4096;

/// Safe values that are under way at once. Further ones wait until one of these is settled: a client that held
/// hundreds of values leaves room on the lines for the commands of others.
const AT_ONCE: usize = 64;

/// First pause before a safe value is written again; each is twice as long as the one before. It is never given up: what
/// was given up is what a lease is meant to prevent.
const RETRY: Duration = Duration::from_secs(1);

/// The longest pause after a device has refused it: one that does so for ever is written to some 300 times a day.
const RETRY_REFUSED: Duration = Duration::from_secs(300);

/// The longest pause after silence. Nothing wears out by what does not arrive, and a device that only listens gives no sign
/// when it is back.
const RETRY_SILENT: Duration = Duration::from_secs(60);

/// How long a safe value waits for a client's write of the same property that is under way, so that it does not
/// overtake the write that renews the lease.
const GRACE: Duration = Duration::from_secs(2);

/// How long clients have after a start to stand behind what they had set, where the product does not say: long
/// enough for any of them to connect again.
const AFTER_START: Duration = Duration::from_secs(30);

/// The slot of a device and the position of a property.
pub(super) type Place = (usize, usize);

/// What a write brings to one property once it is confirmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Grant {
    /// No lease.
    Free,
    /// For this time.
    For(Duration),
    /// As long as the session.
    Session(SessionKey),
}

/// Why a lease is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// Nobody renewed it.
    Time,
    /// Its session has ended.
    Session,
    /// The gateway is about to end.
    Stop,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Time => "its time is over",
            Self::Session => "its session has ended",
            Self::Stop => "the gateway stops",
        })
    }
}

/// Whose lease it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Holder {
    /// This client's, by its write.
    Client(Arc<str>),
    /// Nobody's yet since the gateway has started.
    Start,
    /// Nobody's yet since the device was added, by a reload or because it was found.
    Added,
    /// Nobody's yet since a reload has given the property its safe value.
    Gained,
}

impl Holder {
    /// Whether nobody has written the value as far as is known.
    pub(super) fn is_found(&self) -> bool {
        !matches!(self, Self::Client(_))
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Leases {
    held: BTreeMap<Place, Held>,
    timers: BTreeSet<(Instant, Place)>,
    /// Writes of clients that are under way.
    begun: BTreeMap<CommandId, Begun>,
    /// Safe values that are under way.
    writing: BTreeMap<CommandId, Place>,
    /// Slots of devices that have been online since they were found.
    met: BTreeSet<usize>,
    /// The gateway is about to end: what is confirmed from now on is leased by nobody.
    released: bool,
    /// Nothing further is due.
    closed: bool,
}

/// What a write brings to all its properties that have a safe value.
#[derive(Debug, Default)]
pub(super) struct Brought {
    pub(super) grants: Vec<(Place, Grant)>,
    /// Whether it writes more than one property.
    pub(super) several: bool,
}

#[derive(Debug)]
struct Begun {
    holder: Holder,
    /// Of properties that have a safe value.
    grants: Vec<(Place, Grant)>,
    /// Whether it writes more than one property.
    several: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Held {
    holder: Holder,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Until(Instant),
    Session(SessionKey),
    /// The safe value is to be written at this time.
    Lost {
        at: Instant,
        why: Why,
        tries: Tries,
        /// Whether it has waited for a client's write already.
        patient: bool,
    },
    /// It is under way.
    Writing {
        command: CommandId,
        why: Why,
        tries: Tries,
    },
}

/// How often a safe value was tried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tries {
    /// In all.
    pub(super) all: u32,
    /// Since the device, or the way to it, was back last. The pauses go by this.
    row: u32,
}

impl Tries {
    fn another(self) -> Self {
        Self { all: self.all.saturating_add(1), row: self.row.saturating_add(1) }
    }

    /// The device may take it now: what it did before says nothing any more.
    fn anew(self) -> Self {
        Self { row: 0, ..self }
    }
}

/// A safe value that is to be written now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Due {
    pub(super) place: Place,
    pub(super) holder: Holder,
    pub(super) why: Why,
    /// How often it was tried before.
    pub(super) tries: Tries,
}

/// What became of a safe value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Returned {
    pub(super) place: Place,
    pub(super) safe: bool,
    /// How often it was tried, with this time.
    pub(super) tries: u32,
}

impl Leases {
    /// What a write of this value means, or why it cannot be leased as its client wants.
    pub(super) fn grant(
        &self,
        place: Place,
        property: &Property,
        value: &Value,
        wish: Option<Lease>,
        session: SessionKey,
    ) -> Result<Grant, Rejection> {
        let refuse = |why: String| Rejection::Lease { id: Arc::clone(&property.id), why };
        let Some(rule) = &property.lease else {
            return match wish {
                None | Some(Lease::Release) => Ok(Grant::Free),
                Some(Lease::For(_) | Lease::Session) => {
                    Err(refuse("its product names no value that is safe".to_owned()))
                }
            };
        };
        // What is safe needs nobody to stand behind it.
        if same(value, &rule.safe) {
            return Ok(Grant::Free);
        }
        let grant = match wish {
            None => rule.default.map_or(Grant::Free, Grant::For),
            Some(Lease::For(time)) if time <= rule.longest => Grant::For(time),
            Some(Lease::For(time)) => {
                let (longest, found) = (rule.longest.as_secs_f64(), time.as_secs_f64());
                return Err(refuse(format!("at most {longest} s are allowed, found {found} s")));
            }
            Some(Lease::Session) => Grant::Session(session),
            Some(Lease::Release) if rule.default.is_none() => Grant::Free,
            Some(Lease::Release) => {
                return Err(refuse("its product wants every value leased".to_owned()));
            }
        };
        if grant != Grant::Free && self.held.len() >= LEASES && !self.held.contains_key(&place) {
            return Err(Rejection::TooManyLeases(LEASES));
        }
        Ok(grant)
    }

    /// A write is on its way.
    pub(super) fn begin(&mut self, id: CommandId, holder: &Arc<str>, brought: Brought) {
        let Brought { grants, several } = brought;
        if !grants.is_empty() {
            self.begun.insert(id, Begun { holder: Holder::Client(Arc::clone(holder)), grants, several });
        }
    }

    /// A command has its outcome. Gives what became of a safe value.
    ///
    /// Where the outcome leaves open what the device holds now, the write brings its lease but takes none off, and
    /// does not lengthen one: what may still be there is what was leased before.
    pub(super) fn settled(
        &mut self,
        id: CommandId,
        outcome: &Outcome,
        now: Instant,
        attached: impl Fn(SessionKey) -> bool,
    ) -> Option<Returned> {
        let done = matches!(outcome, Outcome::Confirmed { .. });
        if let Some(place) = self.writing.remove(&id) {
            let Held { holder, phase } = self.held.get(&place)?.clone();
            let Phase::Writing { command, why, tries } = phase else { return None };
            // Another lease may have been lost since, and have a safe value of its own under way.
            if command != id {
                return None;
            }
            let (tries, pause) = if let Outcome::Rejected(Rejection::TooSoon { wait, .. }) = outcome {
                // It was not tried, and the driver knows when it can be.
                (tries, *wait)
            } else {
                (tries.another(), pause(tries.another().row, outcome))
            };
            // What took its place is a client's write, which may renew the lease.
            let patient = !matches!(outcome, Outcome::Rejected(Rejection::Superseded(_)));
            let lost = Held { holder, phase: Phase::Lost { at: now + pause, why, tries, patient } };
            self.set(place, (!done).then_some(lost));
            return Some(Returned { place, safe: done, tries: tries.all });
        }
        let Begun { holder, grants, several } = self.begun.remove(&id)?;
        let open = leaves_open(outcome, several);
        for (place, grant) in grants {
            let held = self.held.get_mut(&place);
            // What was read before this write no longer says that a value which was only found is safe.
            if let Some(held) = held.filter(|held| held.holder.is_found() && open && grant != Grant::Free) {
                held.holder.clone_from(&holder);
            }
            let known = self.held.get(&place).map(|held| held.phase);
            if !(done || open && grant != Grant::Free && known.is_none()) {
                continue;
            }
            // The safe value that was sent at the end of the gateway comes after this write.
            if self.released && matches!(known, Some(Phase::Writing { .. })) {
                continue;
            }
            let phase = match grant {
                Grant::Free => None,
                _ if self.released => Some(lost(now, Why::Stop)),
                Grant::For(time) => now.checked_add(time).map(Phase::Until),
                Grant::Session(session) if attached(session) => Some(Phase::Session(session)),
                Grant::Session(_) => Some(lost(now, Why::Session)),
            };
            self.set(place, phase.map(|phase| Held { holder: holder.clone(), phase }));
        }
        None
    }

    /// A session has ended.
    pub(super) fn detached(&mut self, session: SessionKey, now: Instant) {
        self.lose(now, Why::Session, |phase| phase == Phase::Session(session));
    }

    /// The gateway is about to end, and nobody stands behind anything any more.
    pub(super) fn release(&mut self, now: Instant) {
        self.released = true;
        self.lose(now, Why::Stop, |phase| matches!(phase, Phase::Until(_) | Phase::Session(_)));
    }

    fn lose(&mut self, now: Instant, why: Why, which: impl Fn(Phase) -> bool) {
        let lost_now: Vec<(Place, Holder)> = self
            .held
            .iter()
            .filter(|(_, held)| which(held.phase))
            .map(|(place, held)| (*place, held.holder.clone()))
            .collect();
        for (place, holder) in lost_now {
            self.set(place, Some(Held { holder, phase: lost(now, why) }));
        }
    }

    /// The device in this slot is known for the first time: what it holds is as good as leased this moment. `holder` says
    /// since when.
    pub(super) fn found(&mut self, slot: usize, product: &Product, holder: &Holder, now: Instant) {
        for (at, property) in product.properties.iter().enumerate() {
            let Some(rule) = &property.lease else { continue };
            if !self.held.contains_key(&(slot, at)) {
                let until = now + rule.default.unwrap_or(AFTER_START);
                self.set((slot, at), Some(Held { holder: holder.clone(), phase: Phase::Until(until) }));
            }
        }
    }

    /// The product of the device in this slot has changed: what has a safe value from now on and had none before is as good
    /// as leased this moment, as everything is at a start. To be called after [`Leases::changed`].
    pub(super) fn gained(&mut self, slot: usize, old: &Product, new: &Product, now: Instant) {
        let had = |id: &str| old.property(id).is_some_and(|(_, property)| property.lease.is_some());
        for (at, property) in new.properties.iter().enumerate() {
            let Some(rule) = property.lease.as_ref().filter(|_| !had(&property.id)) else { continue };
            let until = now + rule.default.unwrap_or(AFTER_START);
            self.set((slot, at), Some(Held { holder: Holder::Gained, phase: Phase::Until(until) }));
        }
    }

    /// A device is there, or back: what it could not take is tried at once. The first time clients get their time for what
    /// was only found, since they could not write it before; once, or a device that comes and goes would never be safe.
    pub(super) fn online(&mut self, slot: usize, product: &Product, now: Instant) {
        let first = self.met.insert(slot);
        for (place, Held { holder, phase }) in self.held_of(slot) {
            let rule = product.properties.get(place.1).and_then(|property| property.lease.as_ref());
            let time = rule.and_then(|rule| rule.default).unwrap_or(AFTER_START);
            let phase = match phase {
                Phase::Until(_) | Phase::Lost { why: Why::Time, tries: Tries { all: 0, .. }, .. }
                    if first && holder.is_found() =>
                {
                    Phase::Until(now + time)
                }
                Phase::Lost { why, tries, .. } => {
                    Phase::Lost { at: now, why, tries: tries.anew(), patient: false }
                }
                Phase::Until(_) | Phase::Session(_) | Phase::Writing { .. } => continue,
            };
            self.set(place, Some(Held { holder, phase }));
        }
    }

    /// A device may be there again, and says nothing of it: what it could not take is tried in a moment, in which it may
    /// still be told that it is away, and then with pauses that grow anew.
    pub(super) fn doubted(&mut self, slot: usize, now: Instant) {
        for (place, Held { holder, phase }) in self.held_of(slot) {
            let Phase::Lost { at, why, tries, patient } = phase else { continue };
            let phase = Phase::Lost { at: at.min(now + RETRY), why, tries: tries.anew(), patient };
            self.set(place, Some(Held { holder, phase }));
        }
    }

    fn held_of(&self, slot: usize) -> Vec<(Place, Held)> {
        let of_slot = self.held.range((slot, 0)..=(slot, usize::MAX));
        of_slot.map(|(place, held)| (*place, held.clone())).collect()
    }

    /// A safe value that is to be written now. What is done of it must be said before this is called again.
    pub(super) fn due(&mut self, now: Instant) -> Option<Due> {
        while self.may_write() {
            let (_, place) = self.timers.first().filter(|(at, _)| *at <= now).copied()?;
            let Held { holder, phase } = self.held.get(&place)?.clone();
            let (why, tries, patient) = match phase {
                Phase::Lost { why, tries, patient, .. } => (why, tries, patient),
                Phase::Until(_) | Phase::Session(_) | Phase::Writing { .. } => {
                    (Why::Time, Tries::default(), false)
                }
            };
            if !patient && self.is_begun(place) {
                let phase = Phase::Lost { at: now + GRACE, why, tries, patient: true };
                self.set(place, Some(Held { holder, phase }));
                continue;
            }
            return Some(Due { place, holder, why, tries });
        }
        None
    }

    fn may_write(&self) -> bool {
        !self.closed && self.writing.len() < AT_ONCE
    }

    fn is_begun(&self, place: Place) -> bool {
        self.begun.values().flat_map(|begun| &begun.grants).any(|(begun, _)| *begun == place)
    }

    /// The safe value that is due is on its way by this command.
    pub(super) fn writing(&mut self, command: CommandId, due: Due) {
        let Due { place, holder, why, tries } = due;
        self.writing.insert(command, place);
        self.set(place, Some(Held { holder, phase: Phase::Writing { command, why, tries } }));
    }

    /// The safe value that is due cannot be sent: its device is away. It is looked at again when it returns, or may have.
    pub(super) fn unsent(&mut self, due: Due, now: Instant) {
        let Due { place, holder, why, tries } = due;
        let phase = Phase::Lost { at: now + RETRY_SILENT, why, tries, patient: false };
        self.set(place, Some(Held { holder, phase }));
    }

    /// The safe value that is due is there already, or is none any more.
    pub(super) fn done(&mut self, due: &Due) {
        self.set(due.place, None);
    }

    /// These devices have gone, with all that was leased of them. Gives the leases, whose safe values nobody writes.
    pub(super) fn forget(&mut self, gone: &BTreeSet<usize>) -> Vec<(Place, Holder)> {
        self.writing.retain(|_, (slot, _)| !gone.contains(slot));
        self.met.retain(|slot| !gone.contains(slot));
        for begun in self.begun.values_mut() {
            begun.grants.retain(|((slot, _), _)| !gone.contains(slot));
        }
        self.begun.retain(|_, begun| !begun.grants.is_empty());
        let places: Vec<Place> = self.held.keys().filter(|(slot, _)| gone.contains(slot)).copied().collect();
        places.into_iter().filter_map(|place| Some((place, self.set(place, None)?.holder))).collect()
    }

    /// The product of a device has changed: what is leased stays leased where the property still has a safe value.
    /// Gives the names of those that have none any more.
    pub(super) fn changed(&mut self, slot: usize, old: &Product, new: &Product) -> Vec<Arc<str>> {
        let moved = |at: usize| {
            let meant = old.properties.get(at)?;
            let (now_at, property) = new.property(&meant.id)?;
            (property.kind == meant.kind && property.lease.is_some()).then_some((slot, now_at))
        };
        self.writing.retain(|_, place| {
            let kept = if place.0 == slot { moved(place.1) } else { Some(*place) };
            *place = kept.unwrap_or(*place);
            kept.is_some()
        });
        for begun in self.begun.values_mut() {
            begun.grants.retain_mut(|(place, _)| {
                let kept = if place.0 == slot { moved(place.1) } else { Some(*place) };
                *place = kept.unwrap_or(*place);
                kept.is_some()
            });
        }
        let of_slot: Vec<Place> =
            self.held.range((slot, 0)..=(slot, usize::MAX)).map(|(place, _)| *place).collect();
        let taken: Vec<(Place, Option<Held>)> =
            of_slot.into_iter().map(|place| (place, self.set(place, None))).collect();
        let mut dropped = Vec::new();
        for ((_, at), held) in taken {
            match moved(at) {
                Some(place) => drop(self.set(place, held)),
                None => dropped.extend(old.properties.get(at).map(|property| Arc::clone(&property.id))),
            }
        }
        dropped
    }

    /// The drivers have ended: nothing is due any more.
    pub(super) fn close(&mut self) {
        self.closed = true;
    }

    /// Safe values that are not written yet.
    pub(super) fn owed(&self) -> impl Iterator<Item = Place> {
        let owed = |held: &Held| matches!(held.phase, Phase::Lost { .. } | Phase::Writing { .. });
        self.held.iter().filter(move |(_, held)| owed(held)).map(|(place, _)| *place)
    }

    /// What clients are about to have leased by writes that are under way.
    pub(super) fn coming(&self) -> impl Iterator<Item = Place> {
        let grants = self.begun.values().flat_map(|begun| &begun.grants);
        grants.filter(|(_, grant)| *grant != Grant::Free).map(|(place, _)| *place)
    }

    /// When something is due.
    pub(super) fn timeout(&self) -> Option<Instant> {
        self.timers.first().filter(|_| self.may_write()).map(|(at, _)| *at)
    }

    /// Sets what holds at a place, and keeps the timers in step. Gives what was there.
    fn set(&mut self, place: Place, held: Option<Held>) -> Option<Held> {
        let at = |held: &Held| match held.phase {
            Phase::Until(at) | Phase::Lost { at, .. } => Some(at),
            Phase::Session(_) | Phase::Writing { .. } => None,
        };
        let old = self.held.remove(&place);
        if let Some(at) = old.as_ref().and_then(at) {
            self.timers.remove(&(at, place));
        }
        if let Some(held) = held {
            self.timers.extend(at(&held).map(|at| (at, place)));
            self.held.insert(place, held);
        }
        old
    }
}

fn lost(now: Instant, why: Why) -> Phase {
    // At the end there is no time to wait for anybody.
    Phase::Lost { at: now, why, tries: Tries::default(), patient: why == Why::Stop }
}

/// How long to wait after so many tries, of which the last came to this.
fn pause(tries: u32, outcome: &Outcome) -> Duration {
    let longest = if matches!(outcome, Outcome::Rejected(_)) { RETRY_REFUSED } else { RETRY_SILENT };
    let factor = 1_u32.checked_shl(tries.saturating_sub(1)).unwrap_or(u32::MAX);
    RETRY.saturating_mul(factor).min(longest)
}

/// Whether a write that came to this end may have changed something.
fn leaves_open(outcome: &Outcome, several: bool) -> bool {
    match outcome {
        Outcome::TimedOut | Outcome::Rejected(Rejection::Mismatch { .. }) => true,
        // The first of several may have been written before another was refused.
        Outcome::Rejected(Rejection::ByDevice(_)) => several,
        Outcome::Confirmed { .. }
        | Outcome::Rejected(_)
        | Outcome::Offline
        | Outcome::Busy
        | Outcome::Forbidden => false,
    }
}

#[cfg(test)]
mod tests;
