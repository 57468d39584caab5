//! What a call wants: which devices, and what each of them is to do.

use std::sync::Arc;
use std::time::Duration;

use super::fields::Fields;
use crate::dialects::ithings::fault::Fault;
use crate::dialects::shared::{json, lease, message_id};
use crate::dialects::{self, Context};
use crate::model::client::Client;
use crate::model::command::{Action, Lease, Outcome};
use crate::model::device::Device;
use crate::model::time::{Now, UnixMillis};
use crate::model::value::Value;

/// How long a device may take if the call does not say.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5);

/// The longest wait that a call can ask for, as in the real server.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(50);

/// Devices of one call; as many as one session may have under way.
const FAN_OUT: usize = dialects::COMMANDS_IN_FLIGHT;

/// Most bytes that a call may come to when every device gets its own copy of the body.
const FAN_OUT_BYTES: usize = 2 * 1024 * 1024;

/// What a call does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Control,
    GetReport,
    Action,
}

/// Whether a call names one device or selects several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    One,
    Many,
}

/// What a call does, and what it has so far.
#[derive(Debug)]
pub(super) enum Plan {
    Command {
        kind: Kind,
        reach: Reach,
        asynchronous: bool,
        timeout: Duration,
        /// How long what is written shall hold, if the call says so.
        lease: Option<Lease>,
        targets: Vec<Target>,
    },
    /// What became of an earlier command.
    Read { kind: Kind, target: Target },
    Latest {
        device: Arc<Device>,
        /// Empty for all.
        properties: Vec<String>,
        ignore_empty: bool,
    },
}

/// One device of a call; its position is its token.
#[derive(Debug)]
pub(super) struct Target {
    /// As the client named them.
    pub(super) product: String,
    pub(super) name: String,
    pub(super) message_id: Arc<str>,
    /// Property ids that the product does not have. The real server leaves them out and carries out the rest.
    pub(super) ignored: Vec<String>,
    pub(super) state: State,
}

#[derive(Debug)]
pub(super) enum State {
    Wanted(Action),
    Sent,
    Settled(Settled),
}

#[derive(Clone, Debug)]
pub(super) enum Settled {
    Failed(Fault),
    /// It is on its way.
    Accepted,
    /// Nothing was left to be done.
    Ignored,
    Done(Arc<Outcome>, UnixMillis),
}

impl Plan {
    pub(super) fn command(
        fields: &Fields,
        kind: Kind,
        reach: Reach,
        client: &Client,
        context: &Context,
        now: Now,
    ) -> Result<Self, Fault> {
        // 0, 1 and 5 reach the device; the others keep a value in the cloud only, and here is no cloud.
        if !matches!(fields.number("shadowControl")?, None | Some(0 | 1 | 5)) {
            return Err(Fault::NOT_IMPLEMENTED.with("shadowControl"));
        }
        let wish = Wish::read(fields, kind)?;
        let named = match reach {
            Reach::One => vec![(fields.required("productID")?, fields.required("deviceName")?)],
            Reach::Many => selected(fields, client, context)?,
        };
        if named.len() > FAN_OUT || named.len().saturating_mul(fields.bytes()) > FAN_OUT_BYTES {
            return Err(Fault::LIMIT.with("devices"));
        }
        let mut targets = Vec::with_capacity(named.len());
        for (product, name) in named {
            let (state, ignored) = match find(&product, &name, client, context) {
                Ok(device) => wish.of(&device),
                Err(fault) if reach == Reach::One => return Err(fault),
                Err(fault) => (State::Settled(Settled::Failed(fault)), Vec::new()),
            };
            targets.push(Target { product, name, message_id: message_id(now.wall), ignored, state });
        }
        let timeout = fields.timeout()?.unwrap_or(DEFAULT_TIMEOUT).min(LONGEST_TIMEOUT);
        let lease = fields.text("lease")?.map(|text| {
            let wrong = || Fault::FIELD.with(&format!("field \"lease\" takes {}", lease::OF_CALLS));
            // A call is a session of its own, and over when it is answered.
            lease::parse(&text, false).ok_or_else(wrong)
        });
        let (asynchronous, lease) = (fields.flag("isAsync")?, lease.transpose()?);
        Ok(Self::Command { kind, reach, asynchronous, timeout, lease, targets })
    }

    pub(super) fn read(
        fields: &Fields,
        kind: Kind,
        client: &Client,
        context: &Context,
    ) -> Result<Self, Fault> {
        let (product, name) = (fields.required("productID")?, fields.required("deviceName")?);
        let message_id = Arc::from(fields.required("msgToken")?);
        find(&product, &name, client, context)?;
        let target = Target { product, name, message_id, ignored: Vec::new(), state: State::Sent };
        Ok(Self::Read { kind, target })
    }

    pub(super) fn latest(fields: &Fields, client: &Client, context: &Context) -> Result<Self, Fault> {
        let (product, name) = (fields.required("productID")?, fields.required("deviceName")?);
        let device = find(&product, &name, client, context)?;
        if !client.sees(&device) {
            return Err(Fault::NO_RIGHT.fault());
        }
        let properties = fields.list("dataIDs")?.unwrap_or_default();
        Ok(Self::Latest { device, properties, ignore_empty: fields.flag("ignoreEmpty")? })
    }
}

/// The answer to an application that answers a device. No device behind a gateway asks an application anything, so
/// none waits for this.
pub(super) fn respond(fields: &Fields, client: &Client, context: &Context) -> Fault {
    let looked_up = || {
        let (product, name) = (fields.required("productID")?, fields.required("deviceName")?);
        fields.required("msgToken")?;
        find(&product, &name, client, context)
    };
    match looked_up() {
        Ok(_) => Fault::NOT_FOUND.with("msgToken"),
        Err(fault) => fault,
    }
}

/// The device of this name and product, if the client may know of it.
fn find(product: &str, name: &str, client: &Client, context: &Context) -> Result<Arc<Device>, Fault> {
    let device = context.directory.device(name).filter(|device| client.devices.admits(device));
    let device = device.filter(|device| *device.product.id == *product);
    device.map(Arc::clone).ok_or_else(|| Fault::NOT_FOUND.fault())
}

/// The devices of a call for several: a list of pairs, names of one product, or an area.
fn selected(fields: &Fields, client: &Client, context: &Context) -> Result<Vec<(String, String)>, Fault> {
    if let Some(pairs) = fields.objects("devices")? {
        return pairs
            .iter()
            .map(|pair| Ok((pair.required("productID")?, pair.required("deviceName")?)))
            .collect();
    }
    if let Some(names) = fields.list("deviceNames")? {
        let product = fields.required("productID")?;
        return Ok(names.into_iter().map(|name| (product.clone(), name)).collect());
    }
    // A gateway has neither groups nor areas within areas. Guessing here could write to the wrong devices.
    if let Some(name) =
        ["groupID", "areaIDPath"].into_iter().find(|name| !matches!(fields.text(name), Ok(None)))
    {
        return Err(Fault::NOT_IMPLEMENTED.with(name));
    }
    let area = fields.required("areaID")?;
    let inside = |device: &&Arc<Device>| *device.area == *area && client.devices.admits(device);
    let pair = |device: &Arc<Device>| (device.product.id.as_ref().to_owned(), device.id.as_ref().to_owned());
    Ok(context.directory.devices().iter().filter(inside).map(pair).collect())
}

/// What is wanted of each device.
#[derive(Clone, Debug)]
enum Wish {
    Write(Vec<(String, Value)>),
    /// Empty for all.
    Read(Vec<String>),
    Invoke {
        function: String,
        inputs: Vec<(Arc<str>, Value)>,
    },
}

impl Wish {
    fn read(fields: &Fields, kind: Kind) -> Result<Self, Fault> {
        match kind {
            Kind::Control => {
                let values = fields.embedded(&["data"])?.ok_or_else(|| Fault::FIELD.with("data"))?;
                let values = values.iter().map(|(id, value)| (id.clone(), json::from_json(value)));
                Ok(Self::Write(values.collect()))
            }
            Kind::GetReport => Ok(Self::Read(fields.list("dataIDs")?.unwrap_or_default())),
            Kind::Action => {
                let function = match fields.text("actionID")? {
                    Some(function) => function,
                    None => fields.text("dataID")?.ok_or_else(|| Fault::FIELD.with("actionID"))?,
                };
                let inputs = fields.embedded(&["inputParams", "input"])?.unwrap_or_default();
                let inputs =
                    inputs.iter().map(|(id, value)| (Arc::from(id.as_str()), json::from_json(value)));
                Ok(Self::Invoke { function, inputs: inputs.collect() })
            }
        }
    }

    /// What this means for one device, and which ids its product does not have.
    fn of(&self, device: &Device) -> (State, Vec<String>) {
        let known = |id: &str| device.product.property(id).is_some();
        match self {
            Self::Write(values) => {
                let (taken, ignored): (Vec<_>, Vec<_>) = values.iter().partition(|(id, _)| known(id));
                let ignored = ignored.into_iter().map(|(id, _)| id.clone()).collect();
                if taken.is_empty() {
                    return (State::Settled(Settled::Ignored), ignored);
                }
                let taken = taken.into_iter().map(|(id, value)| (Arc::from(id.as_str()), value.clone()));
                (State::Wanted(Action::Write(taken.collect())), ignored)
            }
            Self::Read(ids) => {
                let (taken, ignored): (Vec<_>, Vec<_>) = ids.iter().cloned().partition(|id| known(id));
                if taken.is_empty() && !ignored.is_empty() {
                    return (State::Settled(Settled::Ignored), ignored);
                }
                (State::Wanted(Action::Read(taken.into_iter().map(Arc::from).collect())), ignored)
            }
            Self::Invoke { function, inputs } => {
                let function = Arc::from(function.as_str());
                (State::Wanted(Action::Invoke { function, inputs: inputs.clone() }), Vec::new())
            }
        }
    }
}
