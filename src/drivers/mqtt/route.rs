//! Topics: which filters to subscribe to, and which devices and properties an incoming message feeds.
//!
//! Pure. Topics without wildcards, which is nearly all of them, are found by one hash lookup; the few filters with
//! wildcards are tried one after the other. Two devices may share a topic.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::map::{MqttMap, Source};
use super::path::{Path, PathError};

/// The topic or filter that a template means for a device.
pub fn concrete(template: &str, device_topic: &str) -> Arc<str> {
    template.replace("{topic}", device_topic).into()
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
    filters: Vec<(Arc<str>, u8)>,
}

/// What a message of one topic means to one device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Feed {
    /// Position among the devices.
    pub device: usize,
    /// The properties that it may carry.
    pub spots: Vec<Spot>,
    /// Whether it says that the device is there or gone.
    pub availability: bool,
    /// Whether it is passed on as it comes.
    pub raw: bool,
}

/// Where in a message one property's value stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spot {
    /// Position in the product's properties.
    pub property: usize,
    /// The first that is present counts; `None` takes the whole payload as plain text.
    pub paths: Vec<Option<Path>>,
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
    /// A path that cannot be read.
    #[error("the JSON path {path} cannot be read")]
    Path {
        /// As configured.
        path: Arc<str>,
        /// Why.
        #[source]
        source: PathError,
    },
}

impl Routes {
    /// The routes for devices, each with its topic and its product's map, and what had to be left out of them.
    pub fn build<'a>(
        devices: impl IntoIterator<Item = (&'a str, &'a MqttMap)>,
    ) -> (Self, Vec<(usize, RouteError)>) {
        let mut routes = Self::default();
        let mut errors = Vec::new();
        let mut filters = BTreeMap::<Arc<str>, u8>::new();
        for (device, (device_topic, map)) in devices.into_iter().enumerate() {
            // By topic, so that a message that feeds several properties is one feed.
            let mut feeds = BTreeMap::<Arc<str>, Feed>::new();
            let mut feed = |template: &str, add: &mut dyn FnMut(&mut Feed)| {
                let topic = concrete(template, device_topic);
                if is_filter(&topic) {
                    add(feeds.entry(topic).or_insert_with(|| Feed { device, ..Feed::default() }));
                } else {
                    errors.push((device, RouteError::Filter { topic }));
                }
            };
            let mut unreadable = Vec::new();
            for (property, point) in map.properties.iter().enumerate() {
                for source in point.iter().flat_map(|point| &point.sources) {
                    match path_of(source) {
                        Ok(path) => feed(&source.topic, &mut |feed| feed.add(property, path.clone())),
                        Err(error) => unreadable.push((device, error)),
                    }
                }
            }
            for template in &map.publish {
                feed(template, &mut |feed| feed.raw = true);
            }
            if let Some(availability) = &map.availability {
                feed(&availability.topic, &mut |feed| feed.availability = true);
            }
            errors.append(&mut unreadable);
            for (topic, feed) in feeds {
                if has_wildcards(&topic) {
                    routes.wild.push((Arc::clone(&topic), feed));
                } else {
                    routes.exact.entry(Arc::clone(&topic)).or_default().push(feed);
                }
                filters.insert(topic, 1);
            }
        }
        routes.filters = uncovered(filters);
        (routes, errors)
    }

    /// What to subscribe to, and the highest QoS that is wanted there. A filter that a wider one covers is left out:
    /// some brokers deliver a message once for every filter that it matches.
    pub fn filters(&self) -> &[(Arc<str>, u8)] {
        &self.filters
    }

    /// Whom a message of this topic feeds.
    pub fn feeds<'a>(&'a self, topic: &'a str) -> impl Iterator<Item = &'a Feed> {
        let exact = self.exact.get(topic).into_iter().flatten();
        let wild = self.wild.iter().filter(move |(filter, _)| matches(filter, topic)).map(|(_, feed)| feed);
        exact.chain(wild)
    }
}

impl Feed {
    fn add(&mut self, property: usize, path: Option<Path>) {
        match self.spots.iter_mut().find(|spot| spot.property == property) {
            Some(spot) => spot.paths.push(path),
            None => self.spots.push(Spot { property, paths: vec![path] }),
        }
    }
}

fn path_of(source: &Source) -> Result<Option<Path>, RouteError> {
    let parse = |path: &Arc<str>| {
        Path::parse(path).map_err(|source| RouteError::Path { path: Arc::clone(path), source })
    };
    source.path.as_ref().map(parse).transpose()
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
    use crate::drivers::mqtt::map::{Availability, Point};
    use crate::model::value::Value;

    fn point(sources: &[(&str, Option<&str>)]) -> Point {
        let source = |(topic, path): &(&str, Option<&str>)| Source {
            topic: (*topic).into(),
            path: path.map(Into::into),
        };
        Point {
            sources: sources.iter().map(source).collect(),
            scale: 1.0,
            offset: 0.0,
            on: None,
            off: None,
            write: None,
        }
    }

    fn map(properties: Vec<Option<Point>>, publish: &[&str]) -> MqttMap {
        MqttMap {
            properties,
            functions: vec![],
            availability: Some(Availability {
                topic: "tele/{topic}/LWT".into(),
                path: None,
                online: Value::text("Online"),
                offline: Value::text("Offline"),
            }),
            offline_after: None,
            publish: publish.iter().map(|topic| (*topic).into()).collect(),
        }
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
        let (routes, errors) = Routes::build([("plug-1", &plug), ("plug-2", &plug)]);
        assert_eq!(errors, []);
        let feeds: Vec<_> = routes.feeds("tele/plug-2/SENSOR").collect();
        assert_eq!(feeds.len(), 2, "the sensor message and the raw copy");
        assert_eq!(feeds[0].device, 1);
        assert_eq!(feeds[0].spots.iter().map(|spot| spot.property).collect::<Vec<_>>(), [0, 3]);
        assert!(feeds[1].raw && feeds[1].spots.is_empty());
        let power: Vec<_> = routes.feeds("stat/plug-1/POWER").collect();
        assert_eq!((power.len(), power[0].device, &power[0].spots[0].paths), (1, 0, &vec![None]));
        assert!(routes.feeds("tele/plug-1/LWT").any(|feed| feed.availability));
        assert_eq!(routes.feeds("tele/plug-3/SENSOR").count(), 0);
        let filters: Vec<_> = routes.filters().iter().map(|(filter, _)| filter.as_ref()).collect();
        assert_eq!(filters, ["stat/plug-1/POWER", "stat/plug-2/POWER", "tele/plug-1/#", "tele/plug-2/#"]);
    }

    #[test]
    fn two_devices_may_share_a_topic() {
        let one = map(vec![Some(point(&[("site/all", Some("a"))]))], &[]);
        let two = map(vec![Some(point(&[("site/all", Some("b"))]))], &[]);
        let (routes, _) = Routes::build([("x", &one), ("y", &two)]);
        assert_eq!(routes.feeds("site/all").map(|feed| feed.device).collect::<Vec<_>>(), [0, 1]);
    }

    #[test]
    fn what_cannot_be_subscribed_or_read_is_left_out_and_named() {
        let bad = map(
            vec![Some(point(&[("a/{topic}/b", Some("a..b")), ("a/#/b", None), ("good", None)]))],
            &["a+"],
        );
        let (routes, errors) = Routes::build([("t", &bad)]);
        assert_eq!(errors.len(), 3, "{errors:?}");
        assert_eq!(routes.feeds("good").count(), 1);
        assert_eq!(routes.filters().len(), 2);
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
            prop_assume!(!topic.is_empty());
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
