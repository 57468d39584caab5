//! Set-up of devices: as they come online, when they have started anew, and when they no longer hold it.

use super::super::super::map::ModbusMap;
use super::*;

fn with_setup(mut thing: ModbusDevice) -> ModbusDevice {
    let step =
        |address, value| Step::Write { point: holding(address), value: Operand::Constant(Value::Int(value)) };
    let setup = vec![step(100, 1), Step::Wait(Duration::from_millis(200)), step(101, 2)];
    thing.map = Arc::new(ModbusMap { setup, ..(*thing.map).clone() });
    thing
}

#[test]
fn a_unit_is_set_up_before_its_values_count_and_again_when_it_returns() {
    let mut rig = Rig::new(vec![with_setup(device(1, 1, vec![holding(10), holding(11)], vec![]))]);
    let expected = [
        "read of holding register 10",
        "write of holding register 100",
        "write of holding register 101",
        "read of holding registers 10 to 11",
    ];
    rig.run(1, answering(true));
    assert_eq!(spans(&rig.asked)[..4], expected);
    rig.run(20, answering(false));
    rig.asked.clear();
    rig.run(20, answering(true));
    assert_eq!(spans(&rig.asked)[..4], expected);
    assert_eq!(spans(&rig.asked).iter().filter(|asked| asked.contains("write")).count(), 2, "once");
}

/// A device with a set-up of 1 in register 100, which is looked at every ten seconds, and a property that counts seconds.
fn tended() -> ModbusDevice {
    let mut thing = device(1, 1, vec![Point { every: Duration::from_secs(2), ..holding(10) }], vec![]);
    let setup = vec![Step::Write { point: holding(100), value: Operand::Constant(Value::Int(1)) }];
    thing.map = Arc::new(ModbusMap {
        setup,
        setup_check: Some(Duration::from_secs(10)),
        uptime: Some(0),
        ..(*thing.map).clone()
    });
    thing
}

/// Answers as a device that was started at some time, with what stands in register 100.
fn running(started: u64, held: u16, now: Duration) -> impl Fn(u8, &Request) -> Option<Answer> {
    let ran = u16::try_from(now.as_secs().saturating_sub(started)).unwrap();
    move |_, request| {
        let Request::Read(span) = request else { return Some(right(request)) };
        Some(Answer::Registers(vec![if span.address() == 10 { ran } else { held }]))
    }
}

fn setups(rig: &Rig) -> usize {
    writes(&rig.asked).iter().filter(|write| **write == (100, 1)).count()
}

/// Lets a device run that restarts at these seconds; `holds` says what it answers for its set-up.
fn run_tended(seconds: u64, restarts: &[u64], holds: impl Fn(u64) -> u16) -> Rig {
    let mut rig = Rig::new(vec![tended()]);
    loop {
        let now = rig.now - rig.start;
        if now.as_secs() >= seconds {
            return rig;
        }
        let started = restarts.iter().copied().filter(|at| *at <= now.as_secs()).max().unwrap_or(0);
        rig.turn(Duration::from_millis(500), running(started, holds(now.as_secs()), now));
    }
}

#[test]
fn a_device_that_restarts_without_going_offline_is_set_up_again() {
    let rig = run_tended(9, &[], |_| 1);
    assert_eq!(setups(&rig), 1, "when it comes online");
    let rig = run_tended(9, &[5], |_| 1);
    assert_eq!(setups(&rig), 2, "its uptime has fallen");
    assert_eq!(rig.presences(), [("dev-1".to_owned(), true)], "it was never missed");
}

#[test]
fn a_set_up_that_has_gone_is_made_again_when_it_is_looked_at() {
    let rig = run_tended(35, &[], |_| 1);
    let looks = spans(&rig.asked).iter().filter(|asked| **asked == "read of holding register 100").count();
    assert_eq!((setups(&rig), looks), (1, 3), "what stands there is left alone");
    let rig = run_tended(35, &[], |second| u16::from(!(15..22).contains(&second)));
    assert_eq!(setups(&rig), 2, "gone once, made again once");
}

#[test]
fn a_device_that_never_holds_its_set_up_is_left_alone_after_some_checks() {
    let rig = run_tended(300, &[], |_| 0);
    assert_eq!(setups(&rig), 4, "once and after three checks");
}

#[test]
fn a_refused_or_unanswered_set_up_does_not_keep_a_unit_from_being_read() {
    for refusal in [Some(Answer::Exception(Exception(2))), None] {
        let mut rig = Rig::new(vec![with_setup(device(1, 1, vec![holding(10), holding(11)], vec![]))]);
        rig.run(20, |_, request| if request.is_read() { Some(right(request)) } else { refusal.clone() });
        let writes = spans(&rig.asked).iter().filter(|asked| asked.contains("write")).count();
        assert!((1..=3).contains(&writes), "{writes} writes");
        assert!(rig.seen.iter().any(|seen| matches!(seen, Observation::Values { .. })));
        assert_eq!(rig.presences(), [("dev-1".to_owned(), true)]);
    }
}

#[test]
fn a_device_that_is_busy_as_it_starts_is_set_up_a_little_later() {
    let mut rig = Rig::new(vec![with_setup(device(1, 1, vec![holding(10), holding(11)], vec![]))]);
    let begun = rig.now;
    loop {
        let busy = rig.now - begun < Duration::from_secs(2);
        if rig.now - begun > Duration::from_secs(20) {
            break;
        }
        rig.turn(Duration::from_millis(500), move |_, request| {
            Some(if busy && !request.is_read() { Answer::Exception(Exception(6)) } else { right(request) })
        });
    }
    let last = writes(&rig.asked).last().copied();
    assert_eq!(last, Some((101, 2)), "{:?}", writes(&rig.asked));
}

#[test]
fn a_device_is_set_up_before_the_writes_that_wait_for_it() {
    let thing = with_setup(device(1, 1, vec![holding(10), holding(12)], vec![]));
    let mut rig = Rig::new(vec![thing.clone()]);
    rig.submit(1, &thing, set(0, 7), patient());
    rig.submit(2, &thing, set(1, 8), patient());
    rig.run(5, remembering());
    // Only the answer to the first one shows that the device is there.
    assert_eq!(writes(&rig.asked), [(10, 7), (100, 1), (101, 2), (12, 8)]);
}

#[test]
fn a_set_up_spares_memory_that_wears_out_and_counts_as_a_write_of_it() {
    let worn = Point { write_interval: Some(Duration::from_secs(60)), ..holding(100) };
    let thing = with_setup(device(1, 1, vec![worn], vec![]));
    let mut rig = Rig::new(vec![thing.clone()]);
    let answer = remembering();
    rig.run(2, &answer);
    assert_eq!(writes(&rig.asked), [(100, 1), (101, 2)]);
    rig.submit(1, &thing, set(0, 2), Duration::from_secs(2));
    let outcomes = rig.outcomes();
    assert!(matches!(outcomes[&1][..], [Outcome::Rejected(Rejection::TooSoon { .. })]), "{outcomes:?}");
    // It returns with what it was told, and may be told something else at once.
    rig.run(90, answering(false));
    rig.asked.clear();
    rig.run(20, &answer);
    assert_eq!(writes(&rig.asked), [(101, 2)], "what wears out is not written again");
    rig.submit(2, &thing, set(0, 2), Duration::from_secs(2));
    rig.run(2, &answer);
    let outcomes = rig.outcomes();
    assert!(matches!(outcomes[&2][..], [Outcome::Confirmed { .. }]), "{outcomes:?}");
}

#[test]
fn a_set_up_is_written_where_memory_that_wears_out_cannot_be_read() {
    for refusal in [Some(Answer::Exception(Exception(2))), None] {
        let worn = Point { write_interval: Some(Duration::from_secs(60)), ..holding(100) };
        let thing = with_setup(device(1, 1, vec![holding(10), worn], vec![]));
        let mut rig = Rig::new(vec![thing]);
        rig.run(20, |_, request| {
            let worn = matches!(request, Request::Read(span) if span.end() > 100);
            if worn { refusal.clone() } else { Some(right(request)) }
        });
        assert_eq!(writes(&rig.asked)[..2], [(100, 1), (101, 2)]);
    }
}
