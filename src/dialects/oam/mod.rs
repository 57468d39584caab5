//! WCS OAM: STOMP at `/ws`, and the same calls as REST under `/api`.
//!
//! ```text
//! > SUBSCRIBE id:sub-0 destination:/alarm           (or /alarms)
//! > SUBSCRIBE id:sub-1 destination:/user/service
//! > SEND destination:/app/api/metric/list | {"requestId":"eb2c","realm":"/api/metric/list","payload":{"id":"3"}}
//! < MESSAGE destination:/user/service | {"requestId":"eb2c","status":200,"reason":"SUCCESS","payload":[{"id":3,..}]}
//! ```
//!
//! The vendor's words stand for the gateway's: a *node* is a bus or broker link, a *stream* (by *mediaId*) is a
//! device, a *metric* is a property, known by its id in upper case. Numbers are positions in the configuration
//! that is running; clients look them up by name, as they must with the vendor's server too.
//!
//! The vendor publishes no body of an `/alarm` message. Ours has the documented members of an alarm, then what
//! happened:
//!
//! ```text
//! {"id":1,"name":"too-hot","type":1,"metric":"TEMPERATURE","node":1,"value":80.0,"time":0,"level":"fault",
//!  "state":"raised","observed":81.5,"mediaId":"press-1","timestamp":1795219200000}
//! ```
//!
//! `type` is 0 below, 1 above, 2 equal to `value`; 4 is a metric that should only rise and has fallen below `value`, 5
//! one that should only fall and has risen above it. `time` is how long the condition had to hold, in milliseconds;
//! `state` is `raised` or `cleared`; `observed` is the value that did it; `timestamp` is in milliseconds.
//!
//! Clients set alarms of their own beside those of the configuration:
//!
//! ```text
//! > SEND destination:/app/api/alarm/create
//!   | {"requestId":"eb2d","payload":{"type":"1","name":"warm","value":"60","metric":"TEMPERATURE","node":"1","time":"5000"}}
//! < MESSAGE destination:/user/service | {"requestId":"eb2d","status":200,"reason":"SUCCESS"}
//!   (60.5 for five seconds)
//! < MESSAGE destination:/alarm | {"id":1000001,"name":"warm","type":1,"metric":"TEMPERATURE","node":1,"value":60.0,
//!   "time":5000,"level":"alert","state":"raised","observed":60.5,"mediaId":"press-1","timestamp":1795219200000}
//! ```
//!
//! They create profiles and rules, which decide what of a stream is sampled and how often; see `registry`. What they
//! create is kept in the history store, or where there is none as long as the process runs.
//!
//! ```text
//! > SEND destination:/app/api/profile/create | {"payload":{"name":"slow","rate":"600","metrics":["6"],"rules":[]}}
//! > SEND destination:/app/api/node/update    | {"payload":{"id":"1","profiles":["1"]}}
//! > SUBSCRIBE destination:/stream/1/press-1
//! < MESSAGE destination:/stream/1/press-1    | [{"TEMPERATURE":40.0,"timestamp":1795219200000}]   each twenty seconds
//! ```

use std::sync::Arc;
use std::time::Duration;

use super::shared::stomp::{App, Tolerance};
use super::{Common, Context, Opening, Request};
use crate::model::client::Dialect;
use crate::model::time::Now;

mod alarms;
mod api;
mod catalogue;
mod fields;
mod registry;
mod rest;
mod sampler;
mod session;
mod stream;
mod streams;
mod wire;

#[cfg(test)]
mod tests;

/// What can be set.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// What can be set for every dialect.
    pub common: Common,
    /// Longest wait before a partial batch of samples is sent.
    pub stomp_max_timeout: Duration,
    /// Metric values that make a full batch.
    pub stomp_max_metrics: usize,
    /// What REST answers as Access-Control-Allow-Origin; `*` admits every origin. Otherwise one origin or several
    /// with commas between, and a WebSocket from another origin is refused.
    pub access_control_allow_origin: Arc<str>,
    /// Whether REST answers HTTP 200 whatever the status in the body is. The vendor's pages do not show which the real
    /// server does.
    pub rest_always_200: bool,
    /// What is put up with on `/ws`.
    pub stomp: Tolerance,
}

impl Default for Settings {
    /// As the vendor's `wcoam.properties`.
    fn default() -> Self {
        Self {
            common: Common::default(),
            stomp_max_timeout: Duration::from_secs(1),
            stomp_max_metrics: 10,
            access_control_allow_origin: "*".into(),
            rest_always_200: false,
            stomp: Tolerance::default(),
        }
    }
}

/// The first path segment after `/api` of everything that is this dialect's.
const REALMS: [&str; 7] = ["metric", "profile", "rule", "node", "node_status", "stream", "alarm"];

/// What this dialect makes of a request.
pub fn open(request: &Request, context: &Arc<Context>, now: Now) -> Opening {
    if !context.settings.oam.common.enabled {
        return Opening::NotMine;
    }
    let segments = request.segments();
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    match segments.as_slice() {
        ["ws", ..] => {
            let admits = rest::admits_origin(request, context);
            super::endpoints::ws(request, context, now, Dialect::Oam, admits)
        }
        ["api", realm, ..] if REALMS.contains(realm) => rest::open(request, context, now),
        _ => Opening::NotMine,
    }
}

/// The application that serves this dialect's topics and calls on a STOMP connection.
pub(super) fn app(context: &Arc<Context>) -> Box<dyn App> {
    Box::new(session::Monitor::new(Arc::clone(context)))
}
