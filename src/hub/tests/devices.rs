//! Readings, report rules, presence, events and alarms.

use proptest::prelude::*;

use super::*;

/// A rig whose session 1 watches everything, and that has heard press-1 come online.
fn rig() -> Rig {
    let mut rig = Rig::new();
    rig.watcher(1, &all_rights("demo"));
    rig.presence("press-1", true);
    assert_eq!(rig.heard(1), ["press-1 online"]);
    rig
}

fn heat(rig: &mut Rig, temperature: f64) -> Vec<String> {
    rig.values("press-1", &[(TEMPERATURE, Value::Float(temperature))]);
    rig.heard(1)
}

fn pressure(rig: &mut Rig, pressure: f64) -> Vec<String> {
    rig.values("press-1", &[(PRESSURE, Value::Float(pressure))]);
    rig.heard(1)
}

#[test]
fn a_change_is_told_once_and_an_unchanged_reading_only_refreshes_its_time() {
    let mut rig = rig();
    assert_eq!(heat(&mut rig, 20.0), ["press-1 temperature=20"]);
    rig.pass(Duration::from_secs(5));
    assert_eq!(heat(&mut rig, 20.0), [""; 0]);
    let snapshot = rig.state.newest(SessionKey(1), "press-1", rig.now).expect("readings");
    let Body::Properties(reports) = &snapshot.body else { panic!("not a report") };
    assert_eq!(reports[0].at, UnixMillis(1_005_000));
    assert_eq!(snapshot.seq, rig.last_seq, "it takes no number of its own");
}

#[test]
fn readings_taken_together_travel_together_and_only_those_that_changed() {
    let mut rig = rig();
    let all = [(TEMPERATURE, Value::Float(20.0)), (SETPOINT, Value::Float(50.0)), (DOOR, Value::Bool(false))];
    rig.values("press-1", &all);
    assert_eq!(rig.heard(1), ["press-1 temperature=20 setpoint=50 door=false"]);
    rig.values("press-1", &[(TEMPERATURE, Value::Float(20.0)), (SETPOINT, Value::Float(51.0))]);
    assert_eq!(rig.heard(1), ["press-1 setpoint=51"]);
}

#[test]
fn values_of_a_device_that_was_unknown_or_offline_say_first_that_it_is_online() {
    let mut rig = rig();
    rig.values("press-2", &[(DOOR, Value::Bool(false))]);
    assert_eq!(rig.heard(1), ["press-2 online", "press-2 door=false"]);
    rig.presence("press-2", false);
    rig.unreadable("press-2", TEMPERATURE);
    assert_eq!(rig.heard(1), ["press-2 offline: no answer", "press-2 online"]);
}

#[test]
fn presence_is_told_once_per_change_and_at_first_contact() {
    let mut rig = Rig::new();
    rig.watcher(1, &all_rights("demo"));
    for online in [false, false, true, true, false] {
        rig.presence("press-1", online);
    }
    assert_eq!(rig.heard(1), ["press-1 offline: no answer", "press-1 online", "press-1 offline: no answer"]);
}

#[test]
fn going_offline_makes_readings_stale_without_a_report_and_coming_back_reports_only_changes() {
    let mut rig = rig();
    heat(&mut rig, 20.0);
    rig.presence("press-1", false);
    assert_eq!(rig.heard(1), ["press-1 offline: no answer"]);
    let message = rig.state.newest(SessionKey(1), "press-1", rig.now).expect("readings");
    assert_eq!(line(&message), "press-1 temperature=20 (stale)");
    assert_eq!(heat(&mut rig, 20.0), ["press-1 online"]);
    let message = rig.state.newest(SessionKey(1), "press-1", rig.now).expect("readings");
    assert_eq!(line(&message), "press-1 temperature=20");
}

#[test]
fn a_stale_reading_is_never_told_by_itself() {
    let mut rig = rig();
    pressure(&mut rig, 20.0);
    rig.presence("press-1", false);
    rig.presence("press-1", true);
    rig.heard(1);
    rig.pass(Duration::from_secs(200));
    assert_eq!(rig.heard(1), [""; 0]);
    assert_eq!(pressure(&mut rig, 20.0), ["press-1 pressure=20"], "its heartbeat is overdue");
}

#[test]
fn a_bad_sample_is_told_once_with_the_last_value_and_the_next_good_one_is_told_again() {
    let mut rig = rig();
    rig.unreadable("press-1", TEMPERATURE);
    assert_eq!(rig.heard(1), [""; 0], "there is no value that could be bad");
    heat(&mut rig, 20.0);
    rig.unreadable("press-1", TEMPERATURE);
    rig.unreadable("press-1", TEMPERATURE);
    assert_eq!(rig.heard(1), ["press-1 temperature=20 (bad)"]);
    assert_eq!(heat(&mut rig, 20.0), ["press-1 temperature=20"]);
    assert_eq!(heat(&mut rig, f64::NAN), ["press-1 temperature=20 (bad)"], "NaN is no reading");
}

#[test]
fn a_deadband_hides_small_moves_but_not_their_sum() {
    let mut rig = rig();
    assert_eq!(pressure(&mut rig, 20.0), ["press-1 pressure=20"]);
    rig.pass(Duration::from_secs(10));
    assert_eq!(pressure(&mut rig, 20.1), [""; 0]);
    assert_eq!(pressure(&mut rig, 20.2), ["press-1 pressure=20.2"], "exactly the deadband counts");
}

#[test]
fn a_minimum_interval_holds_changes_back_and_then_tells_the_newest() {
    let mut rig = rig();
    pressure(&mut rig, 20.0);
    rig.pass(Duration::from_secs(3));
    assert_eq!(pressure(&mut rig, 21.0), [""; 0]);
    assert_eq!(pressure(&mut rig, 22.0), [""; 0]);
    rig.pass(Duration::from_millis(6_999));
    assert_eq!(rig.heard(1), [""; 0]);
    rig.pass(Duration::from_millis(1));
    assert_eq!(rig.heard(1), ["press-1 pressure=22"]);
}

#[test]
fn a_value_that_came_back_within_the_minimum_interval_is_not_told() {
    let mut rig = rig();
    pressure(&mut rig, 20.0);
    pressure(&mut rig, 25.0);
    pressure(&mut rig, 20.0);
    rig.pass(Duration::from_secs(30));
    assert_eq!(rig.heard(1), [""; 0]);
}

#[test]
fn a_change_that_waits_is_told_before_the_device_goes_offline() {
    let mut rig = rig();
    pressure(&mut rig, 20.0);
    pressure(&mut rig, 25.0);
    rig.presence("press-1", false);
    assert_eq!(rig.heard(1), ["press-1 pressure=25", "press-1 offline: no answer"]);
}

#[test]
fn a_heartbeat_tells_an_unchanged_value_again_while_the_device_is_online() {
    let mut rig = rig();
    pressure(&mut rig, 20.0);
    rig.pass(Duration::from_secs(125));
    assert_eq!(rig.heard(1), ["press-1 pressure=20", "press-1 pressure=20"]);
    rig.presence("press-1", false);
    rig.heard(1);
    rig.pass(Duration::from_secs(600));
    assert_eq!(rig.heard(1), [""; 0]);
    assert_eq!(rig.state.timeout(), None);
}

#[test]
fn an_event_fires_on_the_transition_and_not_on_the_first_reading() {
    let mut rig = rig();
    let mut door = |open: bool| {
        rig.values("press-1", &[(DOOR, Value::Bool(open))]);
        rig.heard(1)
    };
    assert_eq!(door(true), ["press-1 door=true"]);
    assert_eq!(door(false), ["press-1 door=false"]);
    assert_eq!(door(true), ["press-1 door=true", "press-1 event door-opened alert"]);
    assert_eq!(door(true), [""; 0]);
}

#[test]
fn what_a_device_sends_itself_is_passed_on() {
    let mut rig = rig();
    let device = rig.device("press-1");
    let at = rig.now.wall;
    let event = |event: &str| Observation::Event {
        device: Arc::clone(&device),
        at,
        event: event.into(),
        params: Vec::new(),
    };
    rig.observe(event("door-opened"));
    rig.observe(event("unheard-of"));
    rig.observe(Observation::Publish {
        device: Arc::clone(&device),
        at,
        topic: "a/b".into(),
        payload: "c".into(),
    });
    rig.observe(Observation::Ota { device, at, step: 40, detail: "writing".into() });
    let heard = [
        "press-1 event door-opened alert",
        "press-1 event unheard-of info",
        "press-1 publish a/b c",
        "press-1 ota 40 writing",
    ];
    assert_eq!(rig.heard(1), heard);
}

#[test]
fn an_alarm_is_raised_above_its_limit_and_cleared_only_below_the_hysteresis() {
    let mut rig = rig();
    assert_eq!(heat(&mut rig, 80.0), ["press-1 temperature=80"], "the limit itself is allowed");
    let raised = "press-1 alarm too-hot raised at 81, active [too-hot]";
    assert_eq!(heat(&mut rig, 81.0), ["press-1 temperature=81", raised]);
    assert_eq!(heat(&mut rig, 75.5), ["press-1 temperature=75.5"]);
    assert_eq!(heat(&mut rig, 90.0), ["press-1 temperature=90"]);
    let cleared = "press-1 alarm too-hot cleared at 75, active []";
    assert_eq!(heat(&mut rig, 75.0), ["press-1 temperature=75", cleared]);
}

#[test]
fn alarms_are_listed_in_raising_order_and_stay_as_they_are_while_the_device_is_offline() {
    let mut rig = rig();
    rig.values("press-1", &[(RUNNING, Value::Bool(false))]);
    assert_eq!(
        rig.heard(1),
        ["press-1 running=false", "press-1 alarm stopped raised at false, active [stopped]"]
    );
    heat(&mut rig, 4.0);
    rig.presence("press-1", false);
    assert_eq!(rig.heard(1), ["press-1 offline: no answer"]);
    rig.ask(1, &all_rights("demo"), Question::Snapshot(Selector::Device("press-1".into())));
    rig.values("press-1", &[(RUNNING, Value::Int(1)), (TEMPERATURE, Value::Float(5.5))]);
    let heard = rig.heard(1);
    assert_eq!(heard.last().unwrap(), "press-1 alarm stopped cleared at 1, active [too-cold]");
    let cleared = heat(&mut rig, 6.0);
    assert_eq!(cleared.last().unwrap(), "press-1 alarm too-cold cleared at 6, active []");
}

#[test]
fn a_snapshot_holds_what_the_client_may_see_and_every_link() {
    let mut rig = Rig::new();
    rig.values("press-1", &[(TEMPERATURE, Value::Float(85.0))]);
    let at = rig.now.wall;
    for up in [true, true, false, true] {
        rig.observe(Observation::Link { link: "rs485".into(), at, up, reason: None });
    }
    rig.attach(SessionKey(1));
    let reader = client("reader", Rights::READ, &["press-*"]);
    rig.state.ask(SessionKey(1), Token(3), reader, Question::Snapshot(Selector::All), rig.now);
    let Some(Effect::Reply { reply: SessionReply::Answer(Token(3), Answer::Snapshot(snapshot)), .. }) =
        rig.state.poll()
    else {
        panic!("no snapshot")
    };
    let ids: Vec<_> = snapshot.devices.iter().map(|device| &*device.device.id).collect();
    assert_eq!(ids, ["press-1", "press-2"]);
    let [press, silent] = &snapshot.devices[..] else { panic!("two devices") };
    assert_eq!((press.online, press.since, &*press.alarms[0]), (true, Some(at), "too-hot"));
    assert_eq!((silent.online, silent.since), (false, None));
    assert_eq!(silent.readings, vec![None; 6]);
    assert_eq!(snapshot.seq, rig.last_seq);
    let links: Vec<_> = snapshot.links.iter().map(|link| (&*link.link.id, link.up, link.connects)).collect();
    assert_eq!(links, [("rs485", true, 2), ("local", false, 0)]);
}

#[test]
fn a_device_that_is_not_configured_is_passed_over() {
    let mut rig = rig();
    let stranger = device("stranger", &Arc::new(press()), "rs485", "1");
    rig.observe(Observation::Presence { device: stranger, at: rig.now.wall, online: true, reason: None });
    assert_eq!(rig.heard(1), [""; 0]);
}

proptest! {
    #[test]
    fn an_alarm_is_never_raised_twice_without_a_clear_between(
        temperatures in prop::collection::vec(prop_oneof![0.0..100.0_f64, 74.0..82.0_f64], 0..60),
    ) {
        let mut rig = rig();
        let mut raised = false;
        for temperature in temperatures {
            let heard = heat(&mut rig, temperature);
            let changes: Vec<_> = heard.iter().filter(|line| line.contains("alarm too-hot")).collect();
            prop_assert!(changes.len() <= 1);
            for change in changes {
                prop_assert_eq!(change.contains("raised"), !raised);
                raised = !raised;
            }
            prop_assert!(raised || temperature <= 80.0);
            prop_assert!(!raised || temperature > 75.0);
        }
    }

    /// With any report rule, what was told last is never further from the truth than the rule allows.
    #[test]
    fn after_the_minimum_interval_the_last_report_is_within_the_deadband(
        steps in prop::collection::vec((0..15_u64, -10..10_i32), 1..40),
    ) {
        let mut rig = rig();
        let mut told = None;
        let mut truth = 0.0;
        let listen = |heard: Vec<String>, told: &mut Option<f64>| {
            for line in heard {
                let value = line.strip_prefix("press-1 pressure=").expect("a report");
                *told = Some(value.parse::<f64>().expect("a number"));
            }
        };
        for (wait, step) in steps {
            truth += f64::from(step) / 20.0;
            listen(pressure(&mut rig, truth), &mut told);
            rig.pass(Duration::from_secs(wait));
            listen(rig.heard(1), &mut told);
        }
        rig.pass(Duration::from_secs(10));
        listen(rig.heard(1), &mut told);
        prop_assert!((told.expect("a first report") - truth).abs() < 0.2 + 1e-6);
    }
}
