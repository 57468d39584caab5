//! Products (thing models): what devices of one kind can report, take and do.
//!
//! A product here says nothing of registers or topics; how each property is bound to hardware stands in the
//! drivers' maps, in the same order.

use std::sync::Arc;
use std::time::Duration;

use super::value::{Value, ValueType};

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
    /// Names of an enumeration's numbers.
    pub labels: Vec<(i64, Arc<str>)>,
    /// When a reading becomes a device message.
    pub report: ReportRule,
    /// Limits that raise alarms.
    pub alarms: Vec<Arc<AlarmRule>>,
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

/// When a reading is worth a device message. The default reports every change and nothing else.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ReportRule {
    /// A number must have moved at least this far since the last report.
    pub deadband: f64,
    /// Report an unchanged value after this time all the same.
    pub heartbeat: Option<Duration>,
    /// Report at most once in this time; the newest value waits.
    pub min_interval: Option<Duration>,
}

/// A limit on one property.
#[derive(Clone, Debug, PartialEq)]
pub struct AlarmRule {
    /// Unique in the product.
    pub id: Arc<str>,
    /// For people; the id when none is given.
    pub name: Arc<str>,
    /// What raises it.
    pub condition: AlarmCondition,
    /// How far the value must come back before the alarm clears.
    pub hysteresis: f64,
    /// How bad it is.
    pub level: Level,
}

/// What raises an alarm.
#[derive(Clone, Debug, PartialEq)]
pub enum AlarmCondition {
    /// The value is greater than this.
    Above(f64),
    /// The value is less than this.
    Below(f64),
    /// The value is this one.
    Equal(Value),
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
    /// A property that fires it when it becomes this value; `None` when the device sends the event itself.
    pub when: Option<EventTrigger>,
}

/// Fires an event on a property's transition to a value.
#[derive(Clone, Debug, PartialEq)]
pub struct EventTrigger {
    /// Position in [`Product::properties`].
    pub property: usize,
    /// The value that fires it when the value before was another one.
    pub equals: Value,
}
