//! Values, their types, and how good they are.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::time::UnixMillis;

/// One value of a property, an input or an output.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Nothing; only inside an object, a list or an output.
    Null,
    /// A switch.
    Bool(bool),
    /// A whole number. Enumerations travel as their number.
    Int(i64),
    /// A number with a fraction; never NaN or infinite (a driver reports such a reading as unreadable).
    Float(f64),
    /// Text.
    Text(Arc<str>),
    /// Several values in order.
    List(Vec<Self>),
    /// Named values.
    Object(BTreeMap<Arc<str>, Self>),
}

impl Value {
    /// Text from anything that can become a shared string.
    pub fn text(text: impl Into<Arc<str>>) -> Self {
        Self::Text(text.into())
    }

    /// The value as a number, for ranges, deadbands and alarms: a bool counts as 0 or 1.
    #[expect(clippy::as_conversions, clippy::cast_precision_loss, reason = "limits are compared as floats")]
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Self::Bool(on) => Some(if *on { 1.0 } else { 0.0 }),
            Self::Int(n) => Some(*n as f64),
            Self::Float(n) => Some(*n),
            Self::Null | Self::Text(_) | Self::List(_) | Self::Object(_) => None,
        }
    }

    /// What an error message calls this value's type.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Float(_) => "float",
            Self::Text(_) => "string",
            Self::List(_) => "list",
            Self::Object(_) => "object",
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Bool(on) => on.fmt(f),
            Self::Int(n) => n.fmt(f),
            Self::Float(n) => n.fmt(f),
            Self::Text(text) => text.fmt(f),
            Self::List(items) => {
                f.write_str("[")?;
                for (at, item) in items.iter().enumerate() {
                    if at > 0 {
                        f.write_str(", ")?;
                    }
                    item.fmt(f)?;
                }
                f.write_str("]")
            }
            Self::Object(members) => {
                f.write_str("{")?;
                for (at, (name, value)) in members.iter().enumerate() {
                    if at > 0 {
                        f.write_str(", ")?;
                    }
                    write!(f, "{name}: {value}")?;
                }
                f.write_str("}")
            }
        }
    }
}

/// The type that a product declares for a property, an input or an output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueType {
    /// true or false.
    Bool,
    /// A whole number.
    Int,
    /// A number.
    Float,
    /// Text.
    Text,
    /// A whole number out of a list of labelled ones.
    Enum,
    /// Named values, not looked into.
    Object,
}

impl ValueType {
    /// The name as a configuration writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bool => "bool",
            Self::Int => "int",
            Self::Float => "float",
            Self::Text => "string",
            Self::Enum => "enum",
            Self::Object => "object",
        }
    }
}

/// How far a value can be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quality {
    /// Read within its time.
    Good,
    /// The last good value, but older than it should be, or its device is offline.
    Stale,
    /// The device answered with something that is no reading.
    Bad,
}

/// A value with its time and quality.
#[derive(Clone, Debug, PartialEq)]
pub struct Reading {
    /// The value.
    pub value: Value,
    /// When the device gave it.
    pub at: UnixMillis,
    /// How good it is now.
    pub quality: Quality,
}
