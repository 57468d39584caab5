//! Topics: which filters to subscribe to, and which devices and properties an incoming message feeds.
//!
//! Pure. Topics without wildcards, which is nearly all of them, are found by one hash lookup; the few filters with
//! wildcards are tried one after the other. Two devices may share a topic. Devices come and go one by one.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::body::PartError;
use super::feed::{CallReply, Feed, Gate, Gauge, Sign, Spot, Subject, Trigger};
use super::map::{Answer, MqttMap, PLACES, Place};

/// What stands for the names in braces, in the order of [`PLACES`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// The device's own topic.
    pub topic: Arc<str>,
    /// The device's id.
    pub device: Arc<str>,
    /// The gateway's id.
    pub gateway: Arc<str>,
}

impl Names {
    /// Each name and what it stands for.
    pub fn pairs(&self) -> [(&'static str, &Arc<str>); 3] {
        let [topic, device, gateway] = PLACES;
        [(topic, &self.topic), (device, &self.device), (gateway, &self.gateway)]
    }

    /// The topic or filter that a template means for a device. None of what is filled in has braces.
    pub fn fill(&self, template: &str) -> Arc<str> {
        let fill = |text: String, (name, value): (&str, &Arc<str>)| {
            if text.contains('{') { text.replace(&format!("{{{name}}}"), value) } else { text }
        };
        self.pairs().into_iter().fold(template.to_owned(), fill).into()
    }
}

/// Whether messages can be published to this topic: not empty, no wildcard, no NUL, short enough for the wire.
pub fn is_topic(topic: &str) -> bool {
    is_wire_text(topic) && !has_wildcards(topic)
}

/// Whether it can be subscribed to: `+` and `#` alone in their levels, `#` only in the last (MQTT 3.1.1, 4.7.1).
pub fn is_filter(filter: &str) -> bool {
    let mut levels = filter.split('/').rev();
    let last = levels.next().unwrap_or_default();
    is_wire_text(filter) && (last == "#" || is_plain_or_plus(last)) && levels.all(is_plain_or_plus)
}

/// Whether messages of the topic are for the filter (MQTT 3.1.1, 4.7). A wildcard in the first level does not take
/// topics that begin with `$`.
pub fn matches(filter: &str, topic: &str) -> bool {
    if topic.starts_with('$') && !filter.starts_with('$') {
        return false;
    }
    let (mut filters, mut levels) = (filter.split('/'), topic.split('/'));
    loop {
        match (filters.next(), levels.next()) {
            // `a/#` also takes `a` itself.
            (Some("#"), _) | (None, None) => return true,
            (Some("+"), Some(_)) => {}
            (Some(wanted), Some(level)) if wanted == level => {}
            (Some(_) | None, _) => return false,
        }
    }
}

/// Whether every topic of the second filter is also one of the first.
pub fn covers(general: &str, special: &str) -> bool {
    if !general.starts_with('$') && special.starts_with('$') {
        return false;
    }
    let (mut generals, mut specials) = (general.split('/'), special.split('/'));
    loop {
        match (generals.next(), specials.next()) {
            (Some("#"), _) | (None, None) => return true,
            (Some("+"), Some(level)) if level != "#" => {}
            (Some(wanted), Some(level)) if wanted == level => {}
            (Some(_) | None, _) => return false,
        }
    }
}

/// Where messages go.
#[derive(Debug, Default)]
pub struct Routes {
    exact: HashMap<Arc<str>, Vec<Feed>>,
    wild: Vec<(Arc<str>, Feed)>,
}

/// Something that the routes had to leave out. The configuration's own check reports the same before it comes here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    /// A topic that cannot be subscribed to.
    #[error(
        "the topic {topic} cannot be subscribed to: + and # stand alone between slashes, # only at the end"
    )]
    Filter {
        /// As configured, with the device's topic in place.
        topic: Arc<str>,
    },
    /// A part of a message.
    #[error(transparent)]
    Part(#[from] PartError),
}

/// The feeds of one device while they are put together.
struct Builder<'a> {
    device: usize,
    names: &'a Names,
    /// By topic, so that a message that feeds several properties is one feed.
    feeds: BTreeMap<Arc<str>, Feed>,
    errors: Vec<RouteError>,
}

impl Routes {
    /// Adds a device by its number, with its names and its product's map. Answers with what had to be left out.
    pub fn add(&mut self, device: usize, names: &Names, map: &MqttMap) -> Vec<RouteError> {
        let mut builder = Builder { device, names, feeds: BTreeMap::new(), errors: Vec::new() };
        builder.take(map);
        for (topic, feed) in builder.feeds {
            if has_wildcards(&topic) {
                self.wild.push((topic, feed));
            } else {
                self.exact.entry(topic).or_default().push(feed);
            }
        }
        builder.errors
    }

    /// Takes a device out.
    pub fn remove(&mut self, device: usize) {
        self.exact.retain(|_, feeds| {
            feeds.retain(|feed| feed.device != device);
            !feeds.is_empty()
        });
        self.wild.retain(|(_, feed)| feed.device != device);
    }

    /// What to subscribe to, and the highest QoS that is wanted there, with these filters beside those of the devices. One
    /// that a wider one covers is left out: some brokers deliver a message once for every filter that it matches.
    pub fn filters(&self, others: &[(Arc<str>, u8)]) -> Vec<(Arc<str>, u8)> {
        let exact =
            self.exact.iter().flat_map(|(topic, feeds)| feeds.iter().map(move |feed| (topic, feed.qos)));
        let wild = self.wild.iter().map(|(filter, feed)| (filter, feed.qos));
        let others = others.iter().map(|(filter, qos)| (filter, *qos));
        let mut wanted = BTreeMap::<Arc<str>, u8>::new();
        for (filter, qos) in exact.chain(wild).chain(others) {
            let highest = wanted.entry(Arc::clone(filter)).or_default();
            *highest = qos.max(*highest);
        }
        uncovered(wanted)
    }

    /// The filters that bring messages for one of these devices.
    pub fn filters_of<'r>(
        &'r self,
        is_one: impl Fn(usize) -> bool + 'r,
    ) -> impl Iterator<Item = &'r Arc<str>> {
        let exact =
            self.exact.iter().flat_map(|(topic, feeds)| feeds.iter().map(move |feed| (topic, feed.device)));
        let wild = self.wild.iter().map(|(filter, feed)| (filter, feed.device));
        exact.chain(wild).filter(move |(_, device)| is_one(*device)).map(|(filter, _)| filter)
    }

    /// The devices that have this very topic.
    pub fn named(&self, topic: &str) -> impl Iterator<Item = usize> {
        self.exact.get(topic).into_iter().flatten().map(|feed| feed.device)
    }

    /// Whom a message of this topic feeds.
    pub fn feeds<'a>(&'a self, topic: &'a str) -> impl Iterator<Item = &'a Feed> {
        let exact = self.exact.get(topic).into_iter().flatten();
        let wild = self.wild.iter().filter(move |(filter, _)| matches(filter, topic)).map(|(_, feed)| feed);
        exact.chain(wild)
    }
}

impl Builder<'_> {
    fn take(&mut self, map: &MqttMap) {
        for (property, point) in map.properties.iter().enumerate() {
            for source in point.iter().flat_map(|point| &point.sources) {
                self.add(&source.place, Spot::source(source, self.names), |feed, source| {
                    match feed.spots.iter_mut().find(|spot| spot.property == property) {
                        Some(spot) => spot.sources.push(source),
                        None => feed.spots.push(Spot { property, sources: vec![source] }),
                    }
                });
            }
        }
        for place in &map.publish {
            self.add(place, Gate::parse(place, self.names), |feed, gate| feed.raw.push(gate));
        }
        for (at, availability) in map.availability.iter().enumerate() {
            self.add(&availability.place, Sign::parse(at, availability, self.names), |feed, sign| {
                feed.signs.push(sign);
            });
        }
        for (event, occurrence) in map.events.iter().enumerate() {
            let Some(occurrence) = occurrence else { continue };
            self.add(&occurrence.place, Trigger::parse(event, occurrence, self.names), |feed, trigger| {
                feed.triggers.push(trigger);
            });
        }
        for progress in &map.ota {
            self.add(&progress.place, Gauge::parse(progress, self.names), |feed, gauge| {
                feed.gauges.push(gauge);
            });
        }
        for (function, call) in map.functions.iter().enumerate() {
            self.answer(Subject::Function(function), call.as_ref().and_then(|call| call.answer.as_ref()));
        }
        for (property, point) in map.properties.iter().enumerate() {
            let reply = point.as_ref().and_then(|point| point.write.as_ref()?.reply.as_ref());
            self.answer(Subject::Write(property), reply.and_then(|reply| reply.answer.as_ref()));
        }
        for (at, read) in map.reads().0.into_iter().enumerate() {
            let answer = read.reply.as_ref().and_then(|reply| reply.answer.as_ref());
            self.answer(Subject::Read(at), answer);
        }
    }

    fn answer(&mut self, subject: Subject, answer: Option<&Answer>) {
        let Some(answer) = answer else { return };
        self.add(&answer.place, CallReply::parse(subject, answer, self.names), |feed, reply| {
            feed.replies.push(reply);
        });
    }

    fn add<T>(&mut self, place: &Place, part: Result<T, PartError>, put: impl FnOnce(&mut Feed, T)) {
        let part = match part {
            Ok(part) => part,
            Err(error) => return self.errors.push(error.into()),
        };
        let topic = self.names.fill(&place.topic);
        if !is_filter(&topic) {
            return self.errors.push(RouteError::Filter { topic });
        }
        let device = self.device;
        let feed = self.feeds.entry(topic).or_insert_with(|| Feed { device, ..Feed::default() });
        feed.qos = place.qos.min(2).max(feed.qos);
        put(feed, part);
    }
}

/// Without the filters that a wider one covers, whose QoS it takes over where that is higher.
fn uncovered(filters: BTreeMap<Arc<str>, u8>) -> Vec<(Arc<str>, u8)> {
    let mut wide: Vec<_> = filters
        .iter()
        .filter(|(filter, _)| has_wildcards(filter))
        .map(|(f, qos)| (Arc::clone(f), *qos))
        .collect();
    let mut kept = Vec::new();
    for (filter, qos) in filters {
        let covering = wide.iter_mut().find(|(general, _)| *general != filter && covers(general, &filter));
        match covering {
            Some((_, highest)) => *highest = qos.max(*highest),
            None => kept.push((filter, qos)),
        }
    }
    for (filter, qos) in &mut kept {
        let raised = wide.iter().find(|(general, _)| general == filter);
        *qos = raised.map_or(*qos, |(_, highest)| *highest);
    }
    kept
}

fn has_wildcards(text: &str) -> bool {
    text.contains(['+', '#'])
}

fn is_plain_or_plus(level: &str) -> bool {
    level == "+" || !has_wildcards(level)
}

fn is_wire_text(text: &str) -> bool {
    !text.is_empty() && !text.contains('\0') && u16::try_from(text.len()).is_ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::drivers::mqtt::map::{Availability, Part, Point, Source};
    use crate::model::value::Value;

    fn point(sources: &[(&str, Option<&str>)]) -> Point {
        let source = |(topic, path): &(&str, Option<&str>)| Source {
            place: Place::of(*topic),
            part: path.map_or(Part::Whole, |path| Part::Path(path.into())),
        };
        Point {
            sources: sources.iter().map(source).collect(),
            scale: 1.0,
            offset: 0.0,
            on: None,
            off: None,
            write: None,
            write_interval: None,
            read: None,
        }
    }

    fn map(properties: Vec<Option<Point>>, publish: &[&str]) -> MqttMap {
        MqttMap {
            properties,
            availability: vec![Availability {
                place: Place::of("tele/{topic}/LWT"),
                part: Part::Whole,
                online: vec![Value::text("Online")],
                offline: vec![Value::text("Offline")],
            }],
            publish: publish.iter().map(|topic| Place::of(*topic)).collect(),
            ..MqttMap::default()
        }
    }

    /// Routes of these devices, and how much was left out.
    fn routes(devices: &[(&str, &MqttMap)]) -> (Routes, usize) {
        let mut routes = Routes::default();
        let mut left_out = 0;
        for (at, (topic, map)) in devices.iter().enumerate() {
            left_out += routes.add(at, &names(topic), map).len();
        }
        (routes, left_out)
    }

    fn filters_of(routes: &Routes) -> Vec<(Arc<str>, u8)> {
        routes.filters(&[])
    }

    fn names(topic: &str) -> Names {
        Names { topic: topic.into(), device: "d".into(), gateway: "g".into() }
    }

    #[test]
    fn a_topic_leads_to_the_properties_that_it_carries() {
        let plug = map(
            vec![
                Some(point(&[("tele/{topic}/SENSOR", Some("ENERGY.Power"))])),
                None,
                Some(point(&[("stat/{topic}/POWER", None), ("tele/{topic}/STATE", Some("POWER"))])),
                Some(point(&[("tele/{topic}/SENSOR", Some("ENERGY.Total"))])),
            ],
            &["tele/{topic}/#"],
        );
        let (mut routes, left_out) = routes(&[("plug-1", &plug), ("plug-2", &plug)]);
        assert_eq!(left_out, 0);
        let feeds: Vec<_> = routes.feeds("tele/plug-2/SENSOR").collect();
        assert_eq!(feeds.len(), 2, "the sensor message and the raw copy");
        assert_eq!(feeds[0].device, 1);
        assert_eq!(feeds[0].spots.iter().map(|spot| spot.property).collect::<Vec<_>>(), [0, 3]);
        assert!(!feeds[1].raw.is_empty() && feeds[1].spots.is_empty());
        let power: Vec<_> = routes.feeds("stat/plug-1/POWER").collect();
        assert_eq!((power.len(), power[0].device, power[0].spots[0].sources.len()), (1, 0, 1));
        assert!(routes.feeds("tele/plug-1/LWT").any(|feed| !feed.signs.is_empty()));
        assert_eq!(routes.feeds("tele/plug-3/SENSOR").count(), 0);
        let text = |routes: &Routes| {
            filters_of(routes).into_iter().map(|(filter, _)| filter.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(
            text(&routes),
            ["stat/plug-1/POWER", "stat/plug-2/POWER", "tele/plug-1/#", "tele/plug-2/#"]
        );
        routes.remove(0);
        assert_eq!(text(&routes), ["stat/plug-2/POWER", "tele/plug-2/#"]);
        assert_eq!(
            (routes.feeds("tele/plug-1/SENSOR").count(), routes.feeds("tele/plug-2/SENSOR").count()),
            (0, 2)
        );
    }

    #[test]
    fn two_devices_may_share_a_topic() {
        let one = map(vec![Some(point(&[("site/all", Some("a"))]))], &[]);
        let two = map(vec![Some(point(&[("site/all", Some("b"))]))], &[]);
        let (routes, _) = routes(&[("x", &one), ("y", &two)]);
        assert_eq!(routes.feeds("site/all").map(|feed| feed.device).collect::<Vec<_>>(), [0, 1]);
    }

    #[test]
    fn what_cannot_be_subscribed_or_read_is_left_out_and_named() {
        let bad = map(
            vec![Some(point(&[("a/{topic}/b", Some("a..b")), ("a/#/b", None), ("good", None)]))],
            &["a+"],
        );
        let (routes, left_out) = routes(&[("t", &bad)]);
        assert_eq!(left_out, 3);
        assert_eq!(routes.feeds("good").count(), 1);
        assert_eq!(filters_of(&routes).len(), 2);
    }

    #[test]
    fn the_highest_qos_of_a_topic_is_asked_for_and_a_wider_filter_takes_it_over() {
        let place = |topic: &str, qos| Place { qos, ..Place::of(topic) };
        let map = MqttMap {
            publish: vec![
                place("a/x", 0),
                place("a/+", 1),
                place("a/y", 2),
                place("b", 0),
                place("{device}/{gateway}", 2),
            ],
            ..MqttMap::default()
        };
        let (routes, left_out) = routes(&[("t", &map)]);
        assert_eq!(left_out, 0);
        assert_eq!(filters_of(&routes), [("a/+".into(), 2), ("b".into(), 0), ("d/g".into(), 2)]);
    }

    #[test]
    fn filters_match_as_the_standard_says() {
        for (filter, topic, fits) in [
            ("a/b", "a/b", true),
            ("a/b", "a/b/c", false),
            ("a/b/c", "a/b", false),
            ("a/+", "a/b", true),
            ("a/+", "a", false),
            ("a/+", "a/", true),
            ("a/+", "a/b/c", false),
            ("+/+", "/x", true),
            ("+", "/x", false),
            ("a/#", "a", true),
            ("a/#", "a/b/c", true),
            ("#", "a/b", true),
            ("#", "$SYS/x", false),
            ("+/x", "$SYS/x", false),
            ("$SYS/#", "$SYS/x", true),
            ("a/+/c", "a/b/c", true),
        ] {
            assert_eq!(matches(filter, topic), fits, "{filter} for {topic}");
        }
        for (filter, good) in [
            ("a", true),
            ("#", true),
            ("+/#", true),
            ("a/", true),
            ("", false),
            ("a#", false),
            ("a+/b", false),
            ("#/a", false),
            ("a\0", false),
        ] {
            assert_eq!(is_filter(filter), good, "{filter:?}");
        }
    }

    fn filters() -> impl Strategy<Value = String> {
        ("[ab+$]?(/(a|b|\\+|)){0,3}(/#)?").prop_filter("a filter", |filter| is_filter(filter))
    }

    proptest! {
        #[test]
        fn a_topic_matches_itself_and_its_own_wildcards(levels in proptest::collection::vec("[a-c]{0,2}", 1..5), at in 0_usize..4) {
            let topic = levels.join("/");
            if topic.is_empty() {
                return Ok(());
            }
            prop_assert!(matches(&topic, &topic) && matches("#", &topic));
            let mut wild = levels;
            let at = at % wild.len();
            wild[at] = "+".to_owned();
            prop_assert!(matches(&wild.join("/"), &topic));
            wild.truncate(at);
            wild.push("#".to_owned());
            prop_assert!(matches(&wild.join("/"), &topic));
            let longer = topic.clone() + "/x";
            prop_assert!(!matches(&longer, &topic));
        }

        #[test]
        fn a_covering_filter_takes_everything_that_the_covered_one_takes(
            general in filters(), special in filters(), topic in "[ab$]?(/[ab]?){0,4}",
        ) {
            if covers(&general, &special) && matches(&special, &topic) {
                prop_assert!(matches(&general, &topic), "{} {} {}", general, special, topic);
            }
        }

        #[test]
        fn no_text_panics(filter in any::<String>(), topic in any::<String>()) {
            is_filter(&filter);
            is_topic(&topic);
            covers(&filter, &topic);
            matches(&filter, &topic);
        }
    }
}
