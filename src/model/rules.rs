//! Rules of a product: when a reading is told, what raises an alarm, what fires an event, what a function does.
//!
//! Only what they say stands here; the hub applies them. Durations count from readings as the hub hears of them.

use std::sync::Arc;
use std::time::Duration;

use super::expression::Expression;
use super::history::AlarmKind;
use super::product::Level;
use super::value::Value;

/// When a reading is worth a device message. The default reports every change and nothing else.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ReportRule {
    /// What is told at all, apart from the heartbeat and a change of quality, which always are.
    pub on: ReportOn,
    /// A number must have moved at least this far since the last report.
    pub deadband: f64,
    /// A number must have moved at least this many percent of the value of the last report. Where both are set the
    /// larger distance counts.
    pub percent: f64,
    /// Report an unchanged value after this time all the same.
    pub heartbeat: Option<Duration>,
    /// Report at most once in this time; the newest value waits.
    pub min_interval: Option<Duration>,
}

/// Which readings are told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReportOn {
    /// One that differs from what was told last.
    #[default]
    Change,
    /// Every one, changed or not.
    Reading,
    /// None by itself: only the heartbeat tells.
    Heartbeat,
}

/// A condition on one property that raises an alarm.
#[derive(Clone, Debug, PartialEq)]
pub struct AlarmRule {
    /// Unique in the product.
    pub id: Arc<str>,
    /// For people; the id when none is given.
    pub name: Arc<str>,
    /// What raises it.
    pub condition: AlarmCondition,
    /// How far the value (or its rate) must come back before the alarm clears.
    pub hysteresis: f64,
    /// How long the condition must hold without a break before the alarm is raised.
    pub delay: Duration,
    /// How long the value must be back without a break before the alarm clears.
    pub clear_delay: Duration,
    /// How bad it is.
    pub level: Level,
    /// Whether it is judged at all.
    pub enabled: bool,
}

impl AlarmRule {
    /// A rule without hysteresis and delays that calls for somebody to look.
    pub fn new(id: impl Into<Arc<str>>, condition: AlarmCondition) -> Self {
        let id = id.into();
        Self {
            name: Arc::clone(&id),
            id,
            condition,
            hysteresis: 0.0,
            delay: Duration::ZERO,
            clear_delay: Duration::ZERO,
            level: Level::Alert,
            enabled: true,
        }
    }
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
    /// The value is another one.
    NotEqual(Value),
    /// The value moves faster than this.
    Rate(Rate),
    /// There was no good reading for so long.
    NoData(Duration),
    /// What a client has set; see [`super::history::ClientAlarm`]. Judged where those are, not with the product's own.
    Client {
        /// What raises it.
        kind: AlarmKind,
        /// The limit; of the monotonic kinds the value that should not have been left in the wrong direction.
        limit: f64,
        /// How long it had to hold.
        hold: Duration,
    },
}

/// A limit on how fast a value moves.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// Which moves count.
    pub direction: Direction,
    /// The limit, in the property's unit in each `per`. For [`Direction::Down`] it is written as it is: -5 is a fall of 5.
    pub limit: f64,
    /// The time that the limit is for.
    pub per: Duration,
    /// The time over which the move is measured, from its first reading to its last.
    pub over: Duration,
}

/// Which moves a [`Rate`] is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Above the limit.
    Up,
    /// Below the limit.
    Down,
    /// Further than the limit, up or down.
    Both,
}

/// Fires an event when a property changes in a certain way.
#[derive(Clone, Debug, PartialEq)]
pub struct EventTrigger {
    /// Position in [`super::product::Product::properties`].
    pub property: usize,
    /// Which changes count.
    pub change: Change,
    /// Whether the first reading fires it too, as if a value before had been neither true, this one, nor had any
    /// bit set.
    pub initial: bool,
    /// Parameters that carry the value of a property, by position, as it is known when the event fires.
    pub carries: Vec<(Arc<str>, usize)>,
}

/// Which changes of a property fire an event.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// It becomes this value when the value before was another one.
    Becomes(Value),
    /// A switch goes on, a number grows.
    Rises,
    /// A switch goes off, a number shrinks.
    Falls,
    /// Any other value than before.
    Differs,
    /// Bits of a whole number: one event for each of these that changes so. The event carries `bit`, its `label` and
    /// whether it is `active`.
    Bits {
        /// Numbers from 0 for the lowest, with what they mean.
        labels: Vec<(u8, Arc<str>)>,
        /// Which way.
        edge: Edge,
    },
}

/// Which way a bit changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edge {
    /// From 0 to 1.
    Rising,
    /// From 1 to 0.
    Falling,
    /// Either.
    Both,
}

/// One step of a function that the gateway carries out.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Write properties, by position, in this order. One whose input was not given is left out.
    Write(Vec<(usize, Operand)>),
    /// Call another function of the product, by position, which has no steps itself.
    Call {
        /// Its position.
        function: usize,
        /// Its inputs.
        inputs: Vec<(Arc<str>, Operand)>,
    },
    /// Let time pass.
    Wait(Duration),
    /// Wait for a condition on properties of the device.
    Until {
        /// Gives true or false.
        condition: Arc<Expression>,
        /// How long at most.
        within: Duration,
    },
}

/// A value in a step.
#[derive(Clone, Debug, PartialEq)]
pub enum Operand {
    /// Written in the configuration.
    Constant(Value),
    /// An input of the function.
    Input(Arc<str>),
}
