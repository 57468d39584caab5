//! Commands: the checks before they travel, and the one outcome that each of them gets.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::dialects::COMMANDS_IN_FLIGHT;
use crate::drivers::DriverAction;
use crate::hub::state::LONGEST_WAIT;

/// A rig with session 1, which sends commands and watches nothing.
fn rig() -> (Rig, Arc<Client>) {
    let mut rig = Rig::new();
    rig.attach(SessionKey(1));
    (rig, all_rights("demo"))
}

/// What the witness heard of commands.
fn witnessed(rig: &mut Rig) -> Vec<String> {
    let about_commands = |line: &String| line.contains(" sent ") || line.contains(" reply ");
    rig.heard(0).into_iter().filter(about_commands).collect()
}

#[test]
fn a_write_travels_in_the_products_type_and_its_outcome_comes_to_the_sender_and_to_watchers() {
    let (mut rig, demo) = rig();
    rig.submit(1, 7, &demo, write("press-1", "setpoint", Value::text("20")));
    let routed = rig.routed.pop().expect("a command for the driver");
    assert_eq!(routed.action, DriverAction::Write(vec![(SETPOINT, Value::Float(20.0))]));
    // The driver gives up a moment before the hub does, so that its word counts.
    assert_eq!(routed.deadline, rig.now.instant + Duration::from_millis(9_750));
    assert_eq!(witnessed(&mut rig), ["press-1 sent Write m-1 by demo setpoint=20"]);
    assert_eq!(rig.heard(1), [""; 0]);
    let values = vec![("setpoint".into(), Value::Float(20.0))];
    rig.settle(routed.id, Outcome::Confirmed { values, outputs: Vec::new() });
    assert_eq!(rig.heard(1), ["outcome 7 confirmed setpoint=20"]);
    let reply = "press-1 reply Write m-1 by demo setpoint=20: confirmed setpoint=20";
    assert_eq!(witnessed(&mut rig), [reply]);
}

#[test]
fn every_fault_that_can_be_known_beforehand_is_told_at_once_and_nothing_travels() {
    let all = all_rights("demo");
    let reader = client("reader", Rights::READ, &["press-*"]);
    let invoke = |inputs| command("press-1", Action::Invoke { function: "reset".into(), inputs });
    let table = [
        (&all, read("press-9", &[]), "rejected: device press-9 does not exist"),
        (&reader, read("meter-1", &[]), "rejected: device meter-1 does not exist"),
        (&reader, write("meter-1", "x", Value::Null), "rejected: device meter-1 does not exist"),
        (&reader, write("press-1", "setpoint", Value::Int(1)), "forbidden"),
        (&reader, invoke(Vec::new()), "forbidden"),
        (&all, write("press-1", "setpoint", Value::Int(101)), "rejected: setpoint takes 0 to 100, found 101"),
        (&all, write("press-2", "setpoint", Value::Int(101)), "rejected: setpoint takes 0 to 100, found 101"),
        (&all, write("press-1", "door", Value::Int(1)), "rejected: property door is read-only"),
        (&all, read("press-1", &["pin"]), "rejected: property pin is write-only"),
        (&all, invoke(Vec::new()), "rejected: input code is required"),
        (&all, write("press-2", "setpoint", Value::Int(1)), "offline"),
    ];
    let (mut rig, _) = rig();
    rig.presence("press-2", false);
    for (client, command, told) in table {
        rig.submit(1, 1, client, command);
        assert_eq!(rig.heard(1), [format!("outcome 1 {told}")]);
    }
    assert!(rig.routed.is_empty());
    assert_eq!(witnessed(&mut rig), [""; 0]);
}

#[test]
fn a_device_that_was_never_heard_of_is_tried() {
    let (mut rig, demo) = rig();
    rig.submit(1, 1, &demo, read("press-1", &[]));
    let routed = rig.routed.pop().expect("a command for the driver");
    assert_eq!(routed.action, DriverAction::Read(vec![0, 1, 2, 3, 4]), "all that can be read");
}

#[test]
fn a_device_that_may_be_there_again_is_tried_and_nobody_is_told() {
    let (mut rig, demo) = rig();
    rig.presence("press-1", false);
    rig.heard(1);
    let device = rig.device("press-1");
    rig.observe(Observation::Doubt { device });
    assert_eq!(rig.heard(1), [""; 0]);
    rig.submit(1, 1, &demo, read("press-1", &[]));
    assert!(rig.routed.pop().is_some());
    // Whoever looked, and found that it is not there, ends the doubt; clients know that already.
    rig.presence("press-1", false);
    assert_eq!(rig.heard(1), [""; 0]);
    rig.submit(1, 2, &demo, read("press-1", &[]));
    assert_eq!(rig.heard(1), ["outcome 2 offline"]);
}

#[test]
fn a_full_link_means_busy_and_nobody_hears_that_the_command_was_sent() {
    let (mut rig, demo) = rig();
    rig.links_full = true;
    rig.submit(1, 1, &demo, write("press-1", "setpoint", Value::Int(1)));
    assert_eq!(rig.heard(1), ["outcome 1 busy"]);
    assert_eq!(witnessed(&mut rig), [""; 0]);
    assert_eq!(rig.state.timeout(), None);
}

#[test]
fn a_session_has_only_so_many_commands_under_way_and_others_are_not_harmed() {
    let (mut rig, demo) = rig();
    rig.attach(SessionKey(2));
    for token in 0..COMMANDS_IN_FLIGHT {
        rig.submit(1, u64::try_from(token).unwrap(), &demo, write("press-1", "setpoint", Value::Int(1)));
    }
    assert_eq!(rig.heard(1), [""; 0]);
    rig.submit(1, 999, &demo, write("press-1", "setpoint", Value::Int(1)));
    assert_eq!(rig.heard(1), ["outcome 999 busy"]);
    rig.submit(2, 1, &demo, write("press-1", "setpoint", Value::Int(1)));
    assert_eq!(rig.heard(2), [""; 0]);
    let first = rig.routed.first().expect("a command").id;
    rig.settle(first, confirmed());
    rig.submit(1, 1000, &demo, write("press-1", "setpoint", Value::Int(1)));
    assert_eq!(rig.heard(1), ["outcome 0 confirmed"]);
}

#[test]
fn all_sessions_together_have_only_so_many_commands_under_way() {
    let (mut rig, demo) = rig();
    let mut sent = 0;
    for key in 1..=17 {
        rig.attach(SessionKey(key));
        for token in 0..COMMANDS_IN_FLIGHT {
            rig.submit(
                key,
                u64::try_from(token).unwrap(),
                &demo,
                write("press-1", "setpoint", Value::Int(1)),
            );
            sent += 1;
        }
    }
    assert_eq!(rig.routed.len(), crate::hub::commands::COMMANDS);
    assert_eq!(rig.heard(17).len(), sent - crate::hub::commands::COMMANDS);
}

#[test]
fn a_command_without_an_answer_times_out_and_a_late_one_is_not_taken() {
    let (mut rig, demo) = rig();
    rig.submit(1, 1, &demo, write("press-1", "setpoint", Value::Int(1)));
    rig.pass(Duration::from_millis(9_999));
    assert_eq!(rig.heard(1), [""; 0]);
    rig.pass(Duration::from_millis(1));
    assert_eq!(rig.heard(1), ["outcome 1 timed out"]);
    let id = rig.routed[0].id;
    rig.settle(id, confirmed());
    rig.values("press-1", &[(SETPOINT, Value::Float(1.0))]);
    assert_eq!(rig.heard(1), [""; 0]);
    let heard = rig.heard(0);
    assert_eq!(heard[1], "press-1 reply Write m-1 by demo setpoint=1: timed out");
    assert_eq!(heard[3], "press-1 setpoint=1", "the value itself is a fact all the same");
}

#[test]
fn no_client_can_keep_a_command_under_way_for_good() {
    let (mut rig, demo) = rig();
    let endless = Command { timeout: Duration::MAX, ..write("press-1", "setpoint", Value::Int(1)) };
    rig.submit(1, 1, &demo, endless);
    rig.pass(LONGEST_WAIT);
    assert_eq!(rig.heard(1), ["outcome 1 timed out"]);
}

#[test]
fn who_wants_to_know_hears_once_that_work_has_begun() {
    let (mut rig, demo) = rig();
    let wish = |notify_accepted| Command { notify_accepted, ..write("press-1", "setpoint", Value::Int(1)) };
    rig.submit(1, 1, &demo, wish(true));
    rig.submit(1, 2, &demo, wish(false));
    for at in [0, 0, 1] {
        let command = rig.routed[at].id;
        rig.observe(Observation::Accepted { command });
    }
    assert_eq!(rig.heard(1), ["accepted 1"]);
}

#[test]
fn a_property_that_can_only_be_awaited_is_answered_from_what_is_known() {
    let (mut rig, demo) = rig();
    rig.values("lamp-1", &[(SETPOINT, Value::Float(5.0)), (DOOR, Value::Bool(true))]);
    rig.unreadable("lamp-1", DOOR);
    let notify = Command { notify_accepted: true, ..read("lamp-1", &[]) };
    rig.submit(1, 1, &demo, notify);
    assert_eq!(rig.heard(1), ["accepted 1", "outcome 1 confirmed setpoint=5"]);
    rig.submit(1, 2, &demo, read("lamp-1", &["pin"]));
    assert_eq!(rig.heard(1), ["outcome 2 rejected: property pin is write-only"]);
    assert!(rig.routed.is_empty());
    assert_eq!(witnessed(&mut rig), [""; 0]);
    rig.submit(1, 3, &demo, write("lamp-1", "setpoint", Value::Int(6)));
    assert_eq!(rig.routed.len(), 1, "a write travels");
}

#[test]
fn behind_a_broker_what_can_be_asked_for_is_and_the_rest_is_told_as_it_was_known() {
    let (mut rig, demo) = rig();
    let mut product = press();
    product.properties[SETPOINT].on_request = true;
    rig.adopt(vec![device("lamp-1", &Arc::new(product), "local", "1")]);
    rig.heard(1);
    rig.values("lamp-1", &[(SETPOINT, Value::Float(5.0)), (DOOR, Value::Bool(true))]);
    rig.submit(1, 1, &demo, read("lamp-1", &["door"]));
    assert_eq!(rig.heard(1), ["outcome 1 confirmed door=true"]);
    assert!(rig.routed.is_empty(), "nothing of it can be asked for");
    rig.submit(1, 2, &demo, read("lamp-1", &["door", "setpoint"]));
    let routed = rig.routed.pop().expect("a command for the driver");
    assert_eq!(routed.action, DriverAction::Read(vec![SETPOINT]));
    assert_eq!(rig.heard(1), [""; 0]);
    rig.values("lamp-1", &[(SETPOINT, Value::Float(6.0))]);
    let values = vec![("setpoint".into(), Value::Float(6.0))];
    rig.settle(routed.id, Outcome::Confirmed { values, outputs: Vec::new() });
    assert_eq!(rig.heard(1), ["outcome 2 confirmed door=true setpoint=6"]);
    // What the device does not tell is not told, though it was known before.
    rig.submit(1, 3, &demo, read("lamp-1", &["setpoint", "door"]));
    let routed = rig.routed.pop().expect("a command for the driver");
    rig.settle(routed.id, Outcome::Confirmed { values: Vec::new(), outputs: Vec::new() });
    assert_eq!(rig.heard(1), ["outcome 3 confirmed door=true"]);
    rig.submit(1, 4, &demo, read("lamp-1", &[]));
    let routed = rig.routed.pop().expect("a command for the driver");
    rig.settle(routed.id, Outcome::TimedOut);
    assert_eq!(rig.heard(1), ["outcome 4 timed out"]);
}

#[test]
fn a_command_without_an_id_of_its_own_is_given_one() {
    let (mut rig, demo) = rig();
    for _ in 0..2 {
        let anonymous = Command { message_id: None, ..read("press-1", &["door"]) };
        rig.submit(1, 1, &demo, anonymous);
    }
    let heard = witnessed(&mut rig);
    assert_eq!(heard[0], "press-1 sent Read pentad-1 by demo door=null");
    assert_eq!(heard[1], "press-1 sent Read pentad-2 by demo door=null");
}

#[test]
fn the_commands_of_a_session_that_ended_run_on_and_only_watchers_hear_of_their_outcome() {
    let (mut rig, demo) = rig();
    rig.submit(1, 1, &demo, write("press-1", "setpoint", Value::Int(1)));
    rig.state.detach(SessionKey(1), &[], rig.now);
    let id = rig.routed[0].id;
    rig.settle(id, confirmed());
    assert_eq!(rig.heard(1), [""; 0]);
    assert_eq!(witnessed(&mut rig).len(), 2);
}

#[test]
fn at_the_end_what_is_under_way_has_an_unknown_result_and_nothing_more_is_begun() {
    let (mut rig, demo) = rig();
    rig.submit(1, 1, &demo, write("press-1", "setpoint", Value::Int(1)));
    rig.state.shutdown(rig.now);
    rig.drain();
    rig.submit(1, 2, &demo, write("press-1", "setpoint", Value::Int(1)));
    assert_eq!(rig.heard(1), ["outcome 1 timed out", "outcome 2 busy"]);
}

/// One step of a random history.
#[derive(Clone, Debug)]
enum Step {
    Submit { session: u64, device: usize, valid: bool, seconds: u64 },
    Settle { nth: usize, outcome: usize },
    Accepted { nth: usize },
    Pass { seconds: u64 },
    Presence { device: usize, online: bool },
    LinksFull(bool),
    Detach { session: u64 },
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (1..4_u64, 0..4_usize, prop::bool::weighted(0.9), 1..20_u64)
            .prop_map(|(session, device, valid, seconds)| Step::Submit { session, device, valid, seconds }),
        4 => (0..8_usize, 0..4_usize).prop_map(|(nth, outcome)| Step::Settle { nth, outcome }),
        1 => (0..8_usize).prop_map(|nth| Step::Accepted { nth }),
        2 => (0..15_u64).prop_map(|seconds| Step::Pass { seconds }),
        2 => (0..4_usize, any::<bool>()).prop_map(|(device, online)| Step::Presence { device, online }),
        1 => any::<bool>().prop_map(Step::LinksFull),
        1 => (1..4_u64).prop_map(|session| Step::Detach { session }),
    ]
}

const DEVICES: [&str; 4] = ["press-1", "press-2", "lamp-1", "meter-1"];

proptest! {
    /// The rig checks at every step that the numbers of messages rise by one.
    #[test]
    fn every_command_gets_exactly_one_outcome_whatever_happens(steps in prop::collection::vec(any_step(), 0..80)) {
        let (mut rig, demo) = rig();
        rig.attach(SessionKey(2));
        rig.attach(SessionKey(3));
        // By session and token: how many outcomes came. A session that ended waits for none.
        let mut outcomes: BTreeMap<(u64, u64), u32> = BTreeMap::new();
        let mut gone = Vec::new();
        let mut token = 0;
        for step in steps {
            match step {
                Step::Submit { session, device, valid, seconds } => {
                    token += 1;
                    if !gone.contains(&session) {
                        outcomes.insert((session, token), 0);
                    }
                    let value = if valid { Value::Int(5) } else { Value::Int(500) };
                    let command = write(DEVICES[device], "setpoint", value);
                    let timeout = Duration::from_secs(seconds);
                    rig.submit(session, token, &demo, Command { timeout, notify_accepted: true, ..command });
                }
                Step::Settle { nth, outcome } => {
                    let outcome = [confirmed(), Outcome::Offline, Outcome::TimedOut, Outcome::Busy][outcome].clone();
                    if let Some(id) = rig.routed.iter().rev().nth(nth).map(|command| command.id) {
                        rig.settle(id, outcome);
                    }
                }
                Step::Accepted { nth } => {
                    if let Some(command) = rig.routed.iter().rev().nth(nth).map(|command| command.id) {
                        rig.observe(Observation::Accepted { command });
                    }
                }
                Step::Pass { seconds } => rig.pass(Duration::from_secs(seconds)),
                Step::Presence { device, online } => rig.presence(DEVICES[device], online),
                Step::LinksFull(full) => rig.links_full = full,
                Step::Detach { session } => {
                    rig.state.detach(SessionKey(session), &[], rig.now);
                    gone.push(session);
                    outcomes.retain(|(of, _), count| *of != session || *count > 0);
                }
            }
            count(&mut rig, &gone, &mut outcomes);
        }
        rig.state.shutdown(rig.now);
        rig.drain();
        count(&mut rig, &gone, &mut outcomes);
        for (command, count) in outcomes {
            prop_assert_eq!(count, 1, "{:?}", command);
        }
        let heard = witnessed(&mut rig);
        let (sent, replies) = heard.iter().partition::<Vec<_>, _>(|line| line.contains(" sent "));
        prop_assert_eq!(sent.len(), replies.len(), "each command that was sent has one reply");
    }
}

fn count(rig: &mut Rig, gone: &[u64], outcomes: &mut BTreeMap<(u64, u64), u32>) {
    for session in 1..4 {
        for line in rig.heard(session) {
            let mut words = line.split(' ');
            if words.next() == Some("outcome") {
                assert!(!gone.contains(&session), "nothing for a session that ended");
                let token = words.next().and_then(|token| token.parse().ok()).expect("a token");
                *outcomes.get_mut(&(session, token)).expect("a command of this session") += 1;
            }
        }
    }
}
