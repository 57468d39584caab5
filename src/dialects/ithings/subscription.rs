//! Subscriptions: what a client asks to be told, whether it may, and which messages that admits.
//!
//! The real server compares the whole parameter set as one opaque key, so that a number in place of a string or one
//! member too many matches nothing though it was acknowledged. Here a subscription means what it says: every known
//! parameter that is given must be the device's, in any order and as text or number.

use std::sync::Arc;

use serde_json::{Map, Value as Json};

use super::fault::Fault;
use crate::dialects::shared::json::member;
use crate::model::client::Client;
use crate::model::device::Device;
use crate::model::directory::Directory;
use crate::model::interest::{Interest, Selector};
use crate::model::message::Kinds;

/// Longest text of one parameter in bytes; it is kept while the subscription holds.
const PARAMETER_BYTES: usize = 256;

/// What can be subscribed to, by the `code` of a subscription and the `path` of its pushes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Subject {
    /// One push for every property of a report.
    Property,
    /// One push for a whole report.
    PropertyV2,
    /// Online and offline.
    Connection,
    /// Raw publishes.
    Publish,
    /// Answers of devices to calls.
    Action,
    /// Firmware updates.
    Ota,
    /// Events and alarms; not on the vendor's page, but served by the real server.
    Event,
}

impl Subject {
    const ALL: [Self; 7] = [
        Self::Property,
        Self::PropertyV2,
        Self::Connection,
        Self::Publish,
        Self::Action,
        Self::Ota,
        Self::Event,
    ];

    /// The code.
    pub(super) fn code(self) -> &'static str {
        match self {
            Self::Property => "devicePropertyReport",
            Self::PropertyV2 => "devicePropertyReportV2",
            Self::Connection => "deviceConn",
            Self::Publish => "devicePublish",
            Self::Action => "deviceActionReport",
            Self::Ota => "deviceOtaReport",
            Self::Event => "deviceEventReport",
        }
    }

    fn kinds(self) -> Kinds {
        match self {
            Self::Property | Self::PropertyV2 => Kinds::PROPERTIES,
            Self::Connection => Kinds::PRESENCE,
            Self::Publish => Kinds::PUBLISH,
            Self::Action => Kinds::REPLY,
            Self::Ota => Kinds::OTA,
            Self::Event => Kinds::EVENT.with(Kinds::ALARM),
        }
    }

    /// Whether `identifier` narrows it: to a property, an action or an event.
    fn has_identifier(self) -> bool {
        match self {
            Self::Property | Self::PropertyV2 | Self::Action | Self::Event => true,
            Self::Connection | Self::Publish | Self::Ota => false,
        }
    }
}

/// One subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Subscription {
    subject: Subject,
    product: Option<Arc<str>>,
    device: Option<Arc<str>>,
    project: Option<Arc<str>>,
    area: Option<Arc<str>>,
    identifier: Option<Arc<str>>,
    /// Devices that others have shared with the user, unless one is named. A gateway has no users who could.
    shared: bool,
}

/// What the body of a request names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// A subscription.
    Known(Subscription),
    /// A code that this gateway has no messages for. The real server accepts every code, and newer clients ask for
    /// newer ones, so this is no fault.
    Unknown(String),
}

impl Subscription {
    /// Reads the body of `up.sub` and `up.unSub`.
    pub(super) fn read(body: Option<&Json>) -> Result<Wanted, Fault> {
        let body = body.and_then(Json::as_object).ok_or_else(|| Fault::PARAMETER.fault())?;
        let code = match member(body, "code") {
            None | Some(Json::Null) => "",
            Some(Json::String(code)) => code.as_str(),
            Some(Json::Bool(_) | Json::Number(_) | Json::Array(_) | Json::Object(_)) => {
                return Err(Fault::SYSTEM.fault());
            }
        };
        let params = match member(body, "params") {
            None | Some(Json::Null) => None,
            Some(Json::Object(params)) => Some(params),
            Some(Json::Bool(_) | Json::Number(_) | Json::String(_) | Json::Array(_)) => {
                return Err(Fault::SYSTEM.fault());
            }
        };
        if code.is_empty() {
            return Err(Fault::NOT_IMPLEMENTED.fault());
        }
        let Some(subject) = Subject::ALL.into_iter().find(|subject| subject.code() == code) else {
            return Ok(Wanted::Unknown(code.to_owned()));
        };
        let params = params.ok_or_else(|| Fault::FIELD.with("params"))?;
        let device = parameter(params, "deviceName")?;
        let shared = device.is_none() && matches!(member(params, "shareDevice"), Some(Json::Bool(true)));
        Ok(Wanted::Known(Self {
            subject,
            product: parameter(params, "productID")?,
            device,
            shared,
            project: parameter(params, "projectID")?.filter(|project| &**project != "0"),
            area: parameter(params, "areaID")?.filter(|area| &**area != "0"),
            identifier: parameter(params, "identifier")?.filter(|_| subject.has_identifier()),
        }))
    }

    /// Whether the client may have it. A device that it cannot see does not exist for it.
    pub(super) fn permit(&self, client: &Client, directory: &Directory) -> Result<(), Fault> {
        if let Some(device) = &self.device {
            let device = directory.device(device).filter(|device| client.sees(device) && self.is_of(device));
            return device.map(|_| ()).ok_or_else(|| Fault::NOT_FOUND.fault());
        }
        if self.shared {
            return Err(Fault::NOT_FOUND.with("shareDevice"));
        }
        if self.project.is_none() {
            return Err(Fault::NO_RIGHT.fault());
        }
        let devices = directory.devices();
        let administrates = devices.iter().all(|device| client.sees(device));
        let sees_some = devices.iter().any(|device| self.is_of(device) && client.sees(device));
        if administrates || sees_some { Ok(()) } else { Err(Fault::NO_RIGHT.fault()) }
    }

    /// What to ask of the hub.
    pub(super) fn interest(&self) -> Interest {
        let selector = match (&self.device, &self.project, &self.area) {
            (Some(device), _, _) => Selector::Device(Arc::clone(device)),
            (None, Some(project), Some(area)) => {
                Selector::Area { project: Arc::clone(project), area: Arc::clone(area) }
            }
            (None, Some(project), None) => Selector::Project(Arc::clone(project)),
            (None, None, _) => Selector::All,
        };
        Interest { selector, kinds: self.subject.kinds() }
    }

    /// Whether it admits messages of this subject about this device, as far as its identifier agrees.
    pub(super) fn is_about(&self, subject: Subject, device: &Device) -> bool {
        self.subject == subject && self.is_of(device)
    }

    /// The one property, action or event that it is about; `None` for all.
    pub(super) fn identifier(&self) -> Option<&str> {
        self.identifier.as_deref()
    }

    fn is_of(&self, device: &Device) -> bool {
        let same = |wanted: &Option<Arc<str>>, found: &Arc<str>| {
            wanted.as_ref().is_none_or(|wanted| wanted == found)
        };
        same(&self.product, &device.product.id)
            && same(&self.device, &device.id)
            && same(&self.project, &device.project)
            && same(&self.area, &device.area)
    }
}

/// A parameter as text; an empty one counts as not given. A number keeps every digit that 64 bits hold.
fn parameter(params: &Map<String, Json>, name: &str) -> Result<Option<Arc<str>>, Fault> {
    let text = match member(params, name) {
        None | Some(Json::Null) => return Ok(None),
        Some(Json::String(text)) => text.clone(),
        Some(Json::Number(number)) => number.to_string(),
        Some(Json::Bool(_) | Json::Array(_) | Json::Object(_)) => return Err(Fault::FIELD.with(name)),
    };
    if text.len() > PARAMETER_BYTES {
        return Err(Fault::FIELD.with(name));
    }
    Ok(Some(Arc::from(text)).filter(|text: &Arc<str>| !text.is_empty()))
}
