//! Products (thing models): what devices of one kind can report, take and do.
//!
//! A product here says nothing of registers or topics; how each property is bound to hardware stands in the
//! drivers' maps, in the same order.

use std::sync::Arc;
use std::time::Duration;

use super::expression::Expression;
pub use super::rules::{
    AlarmCondition, AlarmRule, Change, Direction, Edge, EventTrigger, Operand, Rate, ReportOn, ReportRule,
    Step,
};
use super::value::Value;
use super::value::ValueType;

/// A thing model.
#[derive(Clone, Debug, PartialEq)]
pub struct Product {
    /// Unique in the gateway.
    pub id: Arc<str>,
    /// For people.
    pub name: Arc<str>,
    /// The U+ typeId: 1 to 128 of `[0-9A-Za-z._-]`.
    pub type_id: Arc<str>,
    /// In the order of the configuration; a position here is the position in a driver's map.
    pub properties: Vec<Property>,
    /// In the order of the configuration.
    pub functions: Vec<Function>,
    /// In the order of the configuration.
    pub events: Vec<EventType>,
}

impl Product {
    /// The position and definition of a property.
    pub fn property(&self, id: &str) -> Option<(usize, &Property)> {
        self.properties.iter().enumerate().find(|(_, property)| &*property.id == id)
    }

    /// Positions of the computed properties, each after those that it is computed from. Those that are computed from
    /// themselves over any detour, and what is computed from them, are left out.
    pub fn computed(&self) -> Vec<usize> {
        let mut order = Vec::new();
        loop {
            let before = order.len();
            for (position, property) in self.properties.iter().enumerate() {
                let Some(expression) = property.compute.as_ref().filter(|_| !order.contains(&position))
                else {
                    continue;
                };
                let known = |input: &usize| {
                    order.contains(input) || self.properties.get(*input).is_some_and(|p| p.compute.is_none())
                };
                if expression.inputs().iter().all(known) {
                    order.push(position);
                }
            }
            if order.len() == before {
                return order;
            }
        }
    }

    /// These properties without the computed ones, and with what those are computed from; each once.
    pub fn sources(&self, positions: &[usize]) -> Vec<usize> {
        let mut sources = Vec::with_capacity(positions.len());
        let mut wanted: Vec<usize> = positions.iter().rev().copied().collect();
        let mut seen = vec![false; self.properties.len()];
        while let Some(position) = wanted.pop() {
            let Some(seen) = seen.get_mut(position).filter(|seen| !**seen) else { continue };
            *seen = true;
            match self.properties.get(position).and_then(|property| property.compute.as_ref()) {
                Some(expression) => wanted.extend(expression.inputs().iter().rev()),
                None => sources.push(position),
            }
        }
        sources
    }

    /// The position and definition of a function.
    pub fn function(&self, id: &str) -> Option<(usize, &Function)> {
        self.functions.iter().enumerate().find(|(_, function)| &*function.id == id)
    }
}

/// Something a device knows about itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Property {
    /// Unique in the product.
    pub id: Arc<str>,
    /// For people; the id when none is given.
    pub name: Arc<str>,
    /// What values it takes.
    pub kind: ValueType,
    /// Unit of measurement, as written for people.
    pub unit: Option<Arc<str>>,
    /// Who may read or write it.
    pub access: Access,
    /// Smallest and largest value a write may carry.
    pub range: Option<(f64, f64)>,
    /// A write must be a multiple of this above the range's start.
    pub step: Option<f64>,
    /// What it falls back to when nobody stands behind what was written.
    pub lease: Option<LeaseRule>,
    /// Names of an enumeration's numbers.
    pub labels: Vec<(i64, Arc<str>)>,
    /// When a reading becomes a device message.
    pub report: ReportRule,
    /// A good reading that is older than this is stale; `None` when only the device's presence tells.
    pub stale_after: Option<Duration>,
    /// Conditions that raise alarms.
    pub alarms: Vec<Arc<AlarmRule>>,
    /// What it is computed from; `None` for one that the device itself gives.
    pub compute: Option<Arc<Expression>>,
    /// Whether a device behind a broker tells it when it is asked; otherwise it is only awaited there. On a bus
    /// everything can be asked for.
    pub on_request: bool,
}

impl Property {
    /// A property that is only read, with the default rules and named like its id.
    pub fn new(id: impl Into<Arc<str>>, kind: ValueType) -> Self {
        let id = id.into();
        Self {
            name: Arc::clone(&id),
            id,
            kind,
            unit: None,
            access: Access::Read,
            range: None,
            step: None,
            lease: None,
            labels: Vec::new(),
            report: ReportRule::default(),
            stale_after: None,
            alarms: Vec::new(),
            compute: None,
            on_request: false,
        }
    }
}

/// How a property falls back to a safe value.
#[derive(Clone, Debug, PartialEq)]
pub struct LeaseRule {
    /// What is written when a lease is lost; of the property's type, and one that may be written.
    pub safe: Value,
    /// How long every write holds whose client says nothing. `None`: for ever.
    pub default: Option<Duration>,
    /// The longest that a client may ask for.
    pub longest: Duration,
}

/// What clients may do with a property.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// `r`
    Read,
    /// `w`
    Write,
    /// `rw`
    ReadWrite,
}

impl Access {
    /// Whether it can be read.
    pub fn readable(self) -> bool {
        self != Self::Write
    }

    /// Whether it can be written.
    pub fn writable(self) -> bool {
        self != Self::Read
    }
}

/// How much an event or alarm matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// For the record.
    Info,
    /// Somebody should look.
    Alert,
    /// Something is broken.
    Fault,
}

impl Level {
    /// The name as configurations and wires write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Alert => "alert",
            Self::Fault => "fault",
        }
    }
}

/// Something a device can be told to do.
#[derive(Clone, Debug, PartialEq)]
pub struct Function {
    /// Unique in the product.
    pub id: Arc<str>,
    /// For people.
    pub name: Arc<str>,
    /// What it needs to be told.
    pub inputs: Vec<Parameter>,
    /// What it tells back.
    pub outputs: Vec<Parameter>,
    /// What the gateway does in turn when it is called; empty for one that the device's binding carries out.
    pub steps: Vec<Step>,
    /// Outputs that carry the value of a property, by position, read when the last step is done.
    pub reads: Vec<(Arc<str>, usize)>,
}

impl Function {
    /// A function without inputs and outputs, which a binding carries out.
    pub fn new(id: impl Into<Arc<str>>) -> Self {
        let id = id.into();
        Self {
            name: Arc::clone(&id),
            id,
            inputs: Vec::new(),
            outputs: Vec::new(),
            steps: Vec::new(),
            reads: Vec::new(),
        }
    }
}

/// An input or output of a function, or a parameter of an event.
#[derive(Clone, Debug, PartialEq)]
pub struct Parameter {
    /// Unique in its function or event.
    pub id: Arc<str>,
    /// What values it takes.
    pub kind: ValueType,
    /// Whether a call without it is refused.
    pub required: bool,
    /// Smallest and largest value.
    pub range: Option<(f64, f64)>,
}

/// Something that happens at a device.
#[derive(Clone, Debug, PartialEq)]
pub struct EventType {
    /// Unique in the product.
    pub id: Arc<str>,
    /// For people.
    pub name: Arc<str>,
    /// How much it matters.
    pub level: Level,
    /// What it carries.
    pub params: Vec<Parameter>,
    /// The change of a property that fires it; `None` when the device sends the event itself.
    pub when: Option<EventTrigger>,
}
