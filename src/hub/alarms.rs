//! Which alarms are raised on one device.
//!
//! An alarm is raised when its condition holds and cleared when the value has come back by the hysteresis; between
//! the two nothing changes. Only good readings are judged, so neither a bad sample nor an offline device clears
//! anything.

use std::sync::Arc;

use crate::model::check::same;
use crate::model::message::Body;
use crate::model::product::{AlarmCondition, AlarmRule};
use crate::model::value::Value;

/// The raised alarms of one device.
#[derive(Debug, Default)]
pub(super) struct Alarms {
    /// Rule ids in raising order.
    active: Vec<Arc<str>>,
}

impl Alarms {
    /// Rule ids in raising order.
    pub(super) fn active(&self) -> &[Arc<str>] {
        &self.active
    }

    /// An alarm that is judged elsewhere was raised or has cleared.
    pub(super) fn set(&mut self, rule: &Arc<str>, raised: bool) {
        self.active.retain(|id| id != rule);
        if raised {
            self.active.push(Arc::clone(rule));
        }
    }

    /// Judges a new value by the rules of its property and says what changed.
    pub(super) fn judge(
        &mut self,
        property: usize,
        rules: &[Arc<AlarmRule>],
        value: &Value,
        facts: &mut Vec<Body>,
    ) {
        for rule in rules {
            let active = self.active.iter().position(|id| *id == rule.id);
            let raised = match (verdict(rule, value), active) {
                (Verdict::Holds, None) => {
                    self.active.push(Arc::clone(&rule.id));
                    true
                }
                (Verdict::Over, Some(position)) => {
                    self.active.remove(position);
                    false
                }
                (Verdict::Holds, Some(_)) | (Verdict::Over, None) | (Verdict::Between, _) => continue,
            };
            facts.push(Body::Alarm {
                rule: Arc::clone(rule),
                property,
                raised,
                value: value.clone(),
                active: self.active.clone(),
            });
        }
    }
}

/// What a value means for a rule.
enum Verdict {
    /// The condition holds.
    Holds,
    /// It does not hold, but the value has not come back far enough either.
    Between,
    /// The value is back where it should be.
    Over,
}

fn verdict(rule: &AlarmRule, value: &Value) -> Verdict {
    let hysteresis = rule.hysteresis.max(0.0);
    let (holds, over) = match (&rule.condition, value.as_f64()) {
        (AlarmCondition::Above(limit), Some(n)) => (n > *limit, n <= limit - hysteresis),
        (AlarmCondition::Below(limit), Some(n)) => (n < *limit, n >= limit + hysteresis),
        // A text has no place above or below anything.
        (AlarmCondition::Above(_) | AlarmCondition::Below(_), None) => (false, false),
        (AlarmCondition::Equal(limit), n) => {
            let distance = n.zip(limit.as_f64()).map(|(n, limit)| (n - limit).abs());
            (same(limit, value), distance.is_none_or(|distance| distance > hysteresis))
        }
    };
    match (holds, over) {
        (true, _) => Verdict::Holds,
        (false, true) => Verdict::Over,
        (false, false) => Verdict::Between,
    }
}
