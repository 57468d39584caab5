//! Reads `steps` of a function: what the gateway does in turn when it is called.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use super::formula;
use super::node::{Node, list_words};
use super::problem::Problem;
use super::reader::Table;
use super::scalar;
use crate::model::product::{Function, Operand, Parameter, Property, Step};
use crate::model::value::ValueType;

const TIME: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(600);

/// Most steps of one function: more than a person would follow.
const STEPS: usize = 32;

const KINDS: &str = "exactly one of write, call, wait, until";

/// What a function may speak of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scope<'a> {
    pub(super) properties: &'a [Property],
    /// The ids of all properties, also of those that could not be read.
    pub(super) names: &'a [&'a str],
    /// The functions that stand before it.
    pub(super) functions: &'a [Function],
}

/// The steps of a function with these inputs.
pub(super) fn steps(table: &Table<'_>, inputs: &[Parameter], scope: Scope<'_>) -> Vec<Step> {
    let rows = table.tables("steps");
    if rows.len() > STEPS {
        let problem = Problem::error(&table.key("steps").spot(), format!("{} steps", rows.len()));
        table.report().add(problem.allowed(format!("at most {STEPS}")));
    }
    rows.into_iter().filter_map(|row| step(row, inputs, scope)).collect()
}

fn step(table: Table<'_>, inputs: &[Parameter], scope: Scope<'_>) -> Option<Step> {
    let [write, call, wait, until] = ["write", "call", "wait", "until"].map(|key| table.key(key));
    if [&write, &call, &wait, &until].into_iter().filter(|entry| entry.given()).count() != 1 {
        table.report().add(Problem::error(&table.spot(), "no single thing to do").allowed(KINDS));
        return None;
    }
    let step = if wait.given() {
        wait.read(|node| node.duration(TIME)).map(Step::Wait)
    } else if until.given() {
        let condition = until.read(|node| formula::condition(node, scope.properties, scope.names));
        let within = table.key("within").required("how long to wait at most, as in \"30s\"");
        let within = within.read(|node| node.duration(TIME));
        condition.zip(within).map(|(condition, within)| Step::Until { condition, within })
    } else if call.given() {
        let called = call.read(|node| called(node, scope));
        let given = table.table("inputs").map(|given| operands(&given, inputs, called.map(|(_, it)| it)));
        called.map(|(function, _)| Step::Call { function, inputs: given.unwrap_or_default() })
    } else {
        table.table("write").map(|values| Step::Write(writes(&values, inputs, scope)))
    };
    table.finish();
    step
}

/// A function that stands before and has no steps itself, so that nothing calls itself.
fn called<'a>(node: &Node<'_>, scope: Scope<'a>) -> Option<(usize, &'a Function)> {
    let id = node.text()?;
    let found = scope.functions.iter().enumerate().find(|(_, known)| *known.id == *id);
    let found = found.filter(|(_, function)| function.steps.is_empty());
    if found.is_none() {
        let known: Vec<&str> =
            scope.functions.iter().filter(|known| known.steps.is_empty()).map(|known| &*known.id).collect();
        let allowed = if known.is_empty() {
            "none: no such function stands before".to_owned()
        } else {
            list_words(&known)
        };
        let found = format!("no function {id:?} without steps stands before this one");
        node.report().add(Problem::error(&node.spot(), found).allowed(allowed).meant(id, &known));
    }
    found
}

/// The inputs of a call.
fn operands(table: &Table<'_>, inputs: &[Parameter], called: Option<&Function>) -> Vec<(Arc<str>, Operand)> {
    let mut operands = Vec::new();
    for (name, node) in table.pairs() {
        let Some(called) = called else { continue };
        match called.inputs.iter().find(|input| *input.id == *name) {
            Some(input) => {
                let operand = operand(&node, input.kind, inputs);
                operands.extend(operand.map(|operand| (Arc::clone(&input.id), operand)));
            }
            None => unknown(&node, "input", name, &ids(&called.inputs)),
        }
    }
    operands
}

fn writes(table: &Table<'_>, inputs: &[Parameter], scope: Scope<'_>) -> Vec<(usize, Operand)> {
    let mut writes = Vec::new();
    for (name, node) in table.pairs() {
        match scope.properties.iter().enumerate().find(|(_, property)| *property.id == *name) {
            Some((at, property)) => {
                if !property.access.writable() {
                    let found = format!("{name} is only read");
                    node.report()
                        .add(Problem::error(&node.spot(), found).allowed("a property with access w or rw"));
                }
                writes.extend(operand(&node, property.kind, inputs).map(|operand| (at, operand)));
            }
            // A property that stands there, but could not be read, is reported at its own place.
            None if scope.names.contains(&name) => {}
            None => unknown(&node, "property", name, scope.names),
        }
    }
    writes
}

fn unknown(node: &Node<'_>, what: &str, name: &str, known: &[&str]) {
    let problem = Problem::error(&node.spot(), format!("no {what} {name:?}"));
    let allowed = if known.is_empty() { "none".to_owned() } else { list_words(known) };
    node.report().add(problem.allowed(allowed).meant(name, known));
}

/// The ids of inputs.
fn ids(inputs: &[Parameter]) -> Vec<&str> {
    inputs.iter().map(|input| &*input.id).collect()
}

/// A value, or the input that it comes from.
fn operand(node: &Node<'_>, kind: ValueType, inputs: &[Parameter]) -> Option<Operand> {
    let text = node.quiet_text().unwrap_or_default();
    let names = scalar::placeholders(text);
    let name = names.first().copied().filter(|name| text.len() == name.len() + 2);
    let Some(name) = name else { return node.value(kind).map(Operand::Constant) };
    let found = inputs.iter().find(|input| *input.id == *name);
    if found.is_none() {
        unknown(node, "input", name, &ids(inputs));
    }
    found.map(|input| Operand::Input(Arc::clone(&input.id)))
}
