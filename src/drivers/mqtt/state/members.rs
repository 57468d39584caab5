//! Devices that come to a broker link and go from it while it runs, and what the broker is asked for because of them.
//!
//! Pure. The others keep what is known of them: only the filters that differ are asked for or given back. A filter that a
//! newcomer shares with others is asked for again, since a broker sends what it has kept only then; those that have been
//! heard of know better than what comes so.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Instant;

use super::super::route::{Names, RouteError, covers};
use super::super::station::Station;
use super::super::{Members, MqttDevice};
use super::found::Origin;
use super::{State, observe};
use crate::model::command::{Outcome, Rejection};
use crate::model::time::Now;

/// Filters that the broker is to be asked for, with the highest QoS, and then those that are to be given back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subscriptions {
    /// New ones, and some that are asked for again.
    pub wanted: Vec<(Arc<str>, u8)>,
    /// What nobody wants any more.
    pub unwanted: Vec<Arc<str>>,
}

impl State {
    /// These are the devices from now on. Those that are bound as before go on; commands to others that go are settled.
    /// Answers with what the maps of those that come say that cannot be used, each with its device.
    pub fn handle_members(&mut self, members: &Members, now: Now) -> Vec<(Arc<str>, RouteError)> {
        let known: HashMap<_, _> =
            self.stations.iter().map(|(number, station)| (Arc::clone(&station.device.id), *number)).collect();
        let mut gone: BTreeSet<usize> = self.stations.keys().copied().collect();
        let mut come = Vec::new();
        for member in &members.devices {
            let number = known.get(&member.device.id).copied();
            let station = number.and_then(|number| self.stations.get_mut(&number));
            if station.is_some_and(|station| station.goes_on_as(member)) {
                number.map(|number| gone.remove(&number));
            } else {
                come.push(member);
            }
        }
        self.discovery.begin(&members.rules);
        let same_scheme = self.announcements.begin(members.scheme.as_ref());
        if !same_scheme {
            self.discovery.ask_again(self.announcements.filters().into_iter().map(|(filter, _)| filter));
        }
        self.resubscribe = true;
        // Who came by a rule that still holds stays, unless it is configured now.
        let is_free = |station: &Station| {
            members.devices.iter().all(|member| {
                member.device.id != station.device.id
                    && !station.is_at(&member.topic, &member.device.product.id)
            })
        };
        for (number, station) in &mut self.stations {
            let stays = station.origin.is_some() && is_free(station);
            if let Some(origin) = station.origin.as_mut().filter(|_| stays) {
                let keeps = if origin.is_announced() { same_scheme } else { self.discovery.keeps(origin) };
                if keeps {
                    gone.remove(number);
                    // Somebody else may have taken its name, which only those know who know all.
                    self.discovery.announce(&station.device);
                }
            }
        }
        for number in gone {
            self.remove(number, now);
        }
        self.discovery.count(&self.stations);
        self.announcements.look_again(now.instant);
        come.into_iter()
            .flat_map(|member| {
                let id = Arc::clone(&member.device.id);
                self.add(member, None, now.instant).into_iter().map(move |error| (Arc::clone(&id), error))
            })
            .collect()
    }

    /// What the broker is to be asked for, if that has changed since it was asked last.
    pub fn poll_subscriptions(&mut self) -> Option<Subscriptions> {
        if self.up != Some(true) || !std::mem::take(&mut self.resubscribe) {
            return None;
        }
        let mut patterns = self.discovery.filters();
        patterns.extend(self.announcements.filters());
        let filters: BTreeMap<_, _> = self.routes.filters(&patterns).into_iter().collect();
        let fresh = self.discovery.take_fresh();
        let mut again: BTreeSet<_> =
            fresh.into_iter().filter(|filter| self.asked.contains_key(filter)).collect();
        for found in [false, true] {
            let is_one =
                |station: &Station| station.joined == self.joining && station.origin.is_some() == found;
            // What a pattern covers has come in one go with what made the device appear.
            let has_come = |filter: &Arc<str>| found && patterns.iter().any(|(pattern, _)| pattern == filter);
            for wanted in self.routes.filters_of(|number| self.stations.get(&number).is_some_and(is_one)) {
                let serving =
                    |filter: &&Arc<str>| *filter == wanted || (covers(filter, wanted) && !has_come(filter));
                again.extend(self.asked.keys().filter(serving).map(Arc::clone));
            }
        }
        self.joining += 1;
        let wanted = filters
            .iter()
            .filter(|(filter, qos)| self.asked.get(*filter) != Some(qos) || again.contains(*filter))
            .map(|(filter, qos)| (Arc::clone(filter), *qos))
            .collect();
        let unwanted =
            self.asked.keys().filter(|filter| !filters.contains_key(*filter)).map(Arc::clone).collect();
        self.asked_again.append(&mut again);
        // Of a filter that is given back, everything that comes later is asked for anew.
        self.asked_again.retain(|filter| filters.contains_key(filter));
        self.asked = filters;
        Some(Subscriptions { wanted, unwanted })
    }

    /// A new connection: the broker is to be asked for everything.
    pub(super) fn begin_subscriptions(&mut self, now: Instant) {
        self.asked.clear();
        self.asked_again.clear();
        self.resubscribe = true;
        self.joining += 1;
        for station in self.stations.values_mut() {
            station.sign(now);
            station.asked(now);
        }
    }

    /// Takes a device in.
    pub(super) fn add(
        &mut self,
        member: &MqttDevice,
        origin: Option<Origin>,
        now: Instant,
    ) -> Vec<RouteError> {
        let names = Names {
            topic: Arc::clone(&member.topic),
            device: Arc::clone(&member.device.id),
            gateway: Arc::clone(&self.gateway),
        };
        let number = self.next_station;
        self.next_station += 1;
        let errors = self.routes.add(number, &names, &member.map);
        let mut station = Station::new(member, &names);
        station.origin = origin;
        station.joined = self.joining;
        station.asked(now);
        self.stations.insert(number, station);
        self.resubscribe = true;
        errors
    }

    /// A device goes, perhaps to come back at once in another form; until then it is not there.
    pub(super) fn remove(&mut self, number: usize, now: Now) {
        let Some(mut station) = self.take_out(number, now) else { return };
        if let Some(origin) = &station.origin {
            self.discovery.forget(origin, &station.device.id);
        }
        self.announcements.reconsider(now.instant);
        let change = station.lose("its configuration has changed");
        observe(&mut self.observations, &station, change, now.wall);
    }

    /// Takes a device out and settles its commands, so that another can take its place.
    pub(super) fn take_out(&mut self, number: usize, now: Now) -> Option<Station> {
        let station = self.stations.remove(&number)?;
        self.routes.remove(number);
        self.resubscribe = true;
        for id in self.ledger.of_station(number) {
            let Some(command) = self.take(id) else { continue };
            let unsent = Outcome::Rejected(Rejection::UnknownDevice(Arc::clone(&station.device.id)));
            self.settled(id, if command.sent { Outcome::TimedOut } else { unsent }, now);
        }
        Some(station)
    }
}
