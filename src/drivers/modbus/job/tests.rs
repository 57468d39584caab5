//! Jobs step by step.

use std::time::Duration;

use super::super::fixture::{device, holding};
use super::super::map::{Bits, Operand, Point, Step};
use super::*;
use crate::model::value::Value;
use crate::proto::modbus::frame::Exception;
use crate::proto::modbus::{Span, Table};

const ID: CommandId = CommandId(1);

fn thing() -> ModbusDevice {
    let steps = vec![
        Step::Write { point: holding(30), value: Operand::Input("a".into()) },
        Step::Wait(Duration::from_secs(1)),
        Step::Write { point: holding(31), value: Operand::Constant(Value::Int(9)) },
    ];
    device(1, 1, vec![holding(10), holding(11), holding(20)], vec![steps, vec![]])
}

fn job(action: &DriverAction) -> Job {
    Job::new(ID, &thing(), action).unwrap()
}

fn write(values: &[(usize, i64)]) -> DriverAction {
    DriverAction::Write(values.iter().map(|(at, value)| (*at, Value::Int(*value))).collect())
}

fn read(address: u16, count: u16) -> Act {
    Act::Exchange(Request::Read(Span::new(Table::Holding, address, count).unwrap()))
}

fn sets(address: u16, value: u16) -> Act {
    Act::Exchange(Request::WriteRegister { address, value })
}

fn refuses(code: u8) -> Answer {
    Answer::Exception(Exception(code))
}

fn words(words: &[u16]) -> Answer {
    Answer::Registers(words.to_vec())
}

fn outcome(job: Job) -> Outcome {
    assert_eq!(job.act(), Act::Finish);
    let mut outcomes = job.outcomes(&thing());
    assert_eq!(outcomes.len(), 1);
    outcomes.remove(0).1
}

fn confirmed(values: &[(&str, i64)]) -> Outcome {
    let values = values.iter().map(|(id, value)| ((*id).into(), Value::Int(*value))).collect();
    Outcome::Confirmed { values, outputs: Vec::new() }
}

#[test]
fn a_write_goes_in_the_order_given_and_is_read_back_each_time() {
    let mut job = job(&write(&[(2, 5), (0, 6)]));
    for (act, answer) in [
        (sets(20, 5), Answer::Written),
        (read(20, 1), words(&[5])),
        (sets(10, 6), Answer::Written),
        (read(10, 1), words(&[6])),
    ] {
        assert_eq!(job.act(), act);
        job.answered(&thing(), &answer);
    }
    assert_eq!(outcome(job), confirmed(&[("p2", 5), ("p0", 6)]));
}

#[test]
fn a_device_that_cannot_be_read_back_has_still_taken_the_write() {
    for code in [1, 2, 3] {
        let mut job = job(&write(&[(0, 5)]));
        job.answered(&thing(), &Answer::Written);
        job.answered(&thing(), &refuses(code));
        assert_eq!(outcome(job), confirmed(&[("p0", 5)]));
    }
}

#[test]
fn a_busy_device_is_looked_at_again_after_a_pause() {
    let mut job = job(&write(&[(0, 5)]));
    job.answered(&thing(), &Answer::Written);
    job.answered(&thing(), &refuses(6));
    assert!(matches!(job.act(), Act::Pause(_)));
    job.paused();
    assert_eq!(job.act(), read(10, 1));
    let known = job.answered(&thing(), &words(&[5]));
    assert_eq!(known, [(0, Sample::Value(Value::Int(5)))]);
    assert_eq!(outcome(job), confirmed(&[("p0", 5)]));
}

#[test]
fn a_read_back_that_is_lost_is_tried_again_and_then_unknown() {
    let mut job = job(&write(&[(0, 5)]));
    job.answered(&thing(), &Answer::Written);
    for _ in 0..2 {
        job.unanswered();
        job.paused();
        assert_eq!(job.act(), read(10, 1));
    }
    job.unanswered();
    assert_eq!(outcome(job), Outcome::TimedOut);
}

#[test]
fn an_acknowledgement_counts_only_when_the_value_is_seen() {
    let mut seen = job(&write(&[(0, 5)]));
    seen.answered(&thing(), &refuses(5));
    seen.answered(&thing(), &words(&[5]));
    assert_eq!(outcome(seen), confirmed(&[("p0", 5)]));

    let mut step = job(&DriverAction::Invoke { function: 0, inputs: vec![] });
    step.paused();
    step.answered(&thing(), &refuses(5));
    assert_eq!(outcome(step), Outcome::TimedOut);
}

#[test]
fn a_function_leaves_out_the_steps_whose_input_is_absent() {
    let inputs = vec![("a".into(), Value::Int(7))];
    let mut full = job(&DriverAction::Invoke { function: 0, inputs });
    assert_eq!(full.act(), sets(30, 7));
    full.answered(&thing(), &Answer::Written);
    assert_eq!(full.act(), Act::Wait(Duration::from_secs(1)));
    full.paused();
    assert_eq!(full.act(), sets(31, 9));
    full.answered(&thing(), &Answer::Written);
    assert_eq!(outcome(full), confirmed(&[]));

    let empty = Job::new(ID, &thing(), &DriverAction::Invoke { function: 1, inputs: vec![] });
    assert!(matches!(empty, Err(Rejection::ByDevice(_))));
    let wrong = vec![("a".into(), Value::Int(-1))];
    let refused = Job::new(ID, &thing(), &DriverAction::Invoke { function: 0, inputs: wrong });
    assert!(matches!(refused, Err(Rejection::OutOfRange { id, .. }) if &*id == "a"));
}

#[test]
fn only_the_write_that_was_made_of_a_read_holds_the_line() {
    let bit = Point { bits: Some(Bits { first: 0, count: 1 }), ..holding(30) };
    let steps = vec![
        Step::Write { point: bit, value: Operand::Constant(Value::Int(1)) },
        Step::Write { point: holding(31), value: Operand::Constant(Value::Int(9)) },
    ];
    let thing = device(1, 1, vec![holding(10)], vec![steps]);
    let mut job = Job::new(ID, &thing, &DriverAction::Invoke { function: 0, inputs: vec![] }).unwrap();
    assert_eq!((job.act(), job.holds_line()), (read(30, 1), false));
    job.answered(&thing, &words(&[2]));
    assert_eq!((job.act(), job.holds_line()), (sets(30, 3), true));
    job.answered(&thing, &Answer::Written);
    assert_eq!((job.act(), job.holds_line()), (sets(31, 9), false));
}

#[test]
fn a_refused_step_says_which() {
    let mut job = job(&DriverAction::Invoke { function: 0, inputs: vec![] });
    job.paused();
    job.answered(&thing(), &refuses(4));
    let words = "device failure (exception 4) at step 3".to_owned();
    assert_eq!(outcome(job), Outcome::Rejected(Rejection::ByDevice(words)));
}

#[test]
fn a_refused_read_is_taken_apart_and_what_is_left_is_confirmed() {
    let mut job = job(&DriverAction::Read(vec![1, 0, 2]));
    assert_eq!(job.act(), read(10, 2));
    job.answered(&thing(), &refuses(2));
    assert_eq!(job.act(), read(10, 1));
    job.answered(&thing(), &words(&[1]));
    assert_eq!(job.act(), read(11, 1));
    job.answered(&thing(), &refuses(2));
    assert_eq!(job.act(), read(20, 1));
    job.answered(&thing(), &words(&[3]));
    assert_eq!(outcome(job), confirmed(&[("p0", 1), ("p2", 3)]));

    let mut nothing = self::job(&DriverAction::Read(vec![1]));
    nothing.answered(&thing(), &refuses(2));
    let words = "p1: illegal data address (exception 2)".to_owned();
    assert_eq!(outcome(nothing), Outcome::Rejected(Rejection::ByDevice(words)));
}

#[test]
fn a_read_is_sent_twice_before_it_is_given_up() {
    let mut job = job(&DriverAction::Read(vec![0]));
    job.unanswered();
    assert_eq!(job.act(), read(10, 1));
    job.unanswered();
    assert_eq!(outcome(job), Outcome::TimedOut);
}
