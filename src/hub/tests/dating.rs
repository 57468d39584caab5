//! Wall clocks that are wrong, are set, and jump: what becomes of messages.

use proptest::prelude::*;

use super::*;
use crate::clock::{Look, Timekeeper};
use crate::model::time::Trust;
use crate::store::{Recovered, StoredRelation, Write};

const BUILT: i64 = 1_780_000_000_000;
const YEAR: i64 = 31_557_600_000;

/// A rig with a system clock that anybody may set.
struct World {
    rig: Rig,
    keeper: Timekeeper,
    system: i64,
    seen: u64,
    /// Numbers of the messages before which a believed clock was set back.
    set_back: Vec<u64>,
}

impl World {
    fn new(system: i64) -> Self {
        let mut rig = Rig::new();
        let look = Look { instant: rig.now.instant, system: UnixMillis(system), is_set: false };
        let keeper = Timekeeper::new(Trust::Auto, UnixMillis(BUILT), look);
        rig.now = keeper.now(rig.now.instant);
        rig.state.tell_time(rig.now, &[]);
        Self { rig, keeper, system, seen: 0, set_back: Vec::new() }
    }

    fn pass(&mut self, time: Duration) {
        self.rig.pass(time);
        self.system += i64::try_from(time.as_millis()).unwrap();
        self.rig.now = self.keeper.now(self.rig.now.instant);
    }

    /// The system's clock is set, and that is noticed.
    fn set(&mut self, system: i64, is_set: bool) {
        self.system = system;
        let instant = self.rig.now.instant;
        self.keeper.look(Look { instant, system: UnixMillis(system), is_set });
        self.rig.now = self.keeper.now(instant);
        let changes = self.keeper.changes(&mut self.seen);
        if changes.iter().any(|change| change.step < 0) {
            self.set_back.push(self.rig.last_seq + 1);
        }
        self.rig.state.tell_time(self.rig.now, &changes);
        self.rig.drain();
    }

    fn value(&mut self, value: f64) {
        self.rig.values("press-1", &[(TEMPERATURE, Value::Float(value))]);
    }

    /// The time of the last reading of the temperature.
    fn reading(&mut self) -> UnixMillis {
        let device = self.rig.device("press-1");
        let key = SessionKey(77);
        self.rig.attach(key);
        self.rig.watch(key, &all_rights("reader"), vec![everything()]);
        let message = self.rig.state.newest(key, &device.id, self.rig.now).unwrap();
        let Body::Properties(reports) = &message.body else { panic!("not readings") };
        reports[0].at
    }
}

#[test]
fn messages_of_a_clock_that_nobody_has_set_are_marked_and_later_ones_are_not() {
    let mut world = World::new(0);
    world.value(20.0);
    world.pass(Duration::from_secs(10));
    world.set(10_000, false);
    world.value(40.0);
    assert_eq!(world.reading(), UnixMillis(BUILT + 10_000));
    world.set(BUILT + YEAR, true);
    assert_eq!(world.reading(), UnixMillis(BUILT + YEAR), "what is known is dated anew");
    world.value(60.0);
    let unsure = Clock::Unsynchronised;
    world.rig.dated.dedup();
    let expected = [
        (UnixMillis(BUILT), unsure),
        (UnixMillis(BUILT + 10_000), unsure),
        (UnixMillis(BUILT + YEAR), Clock::Synchronised),
    ];
    assert_eq!(world.rig.dated, expected);
}

#[test]
fn the_store_is_told_by_how_much_each_stretch_of_marked_messages_is_wrong() {
    let mut state = HubState::new(Arc::new(directory()));
    let instant = clock::instant();
    let look = |after: u64, system: i64, is_set| {
        let instant = instant + Duration::from_secs(after);
        Look { instant, system: UnixMillis(system), is_set }
    };
    let mut keeper = Timekeeper::new(Trust::Auto, UnixMillis(BUILT), look(0, 0, false));
    state.remember(Recovered::default(), keeper.now(instant));
    let mut writes = Vec::new();
    let mut seen = 0;
    // Wrong, set forward by hand, set from a source of time, set back.
    let looks = [
        look(10, 0, false),
        look(20, BUILT + 100_000, false),
        look(30, BUILT + YEAR, true),
        look(40, BUILT + 1_000, false),
    ];
    for look in looks {
        let now = keeper.now(look.instant);
        state.tell_time(now, &keeper.changes(&mut seen));
        let device = Arc::clone(state_device());
        state.observe(Observation::Presence { device, at: now.wall, online: true, reason: None }, now);
        keeper.look(look);
        let now = keeper.now(look.instant);
        state.tell_time(now, &keeper.changes(&mut seen));
        let device = Arc::clone(state_device());
        state.observe(Observation::Presence { device, at: now.wall, online: false, reason: None }, now);
        while let Some(effect) = state.poll() {
            if let Effect::Store(write) = effect {
                writes.push(write);
            }
        }
    }
    let corrections: Vec<&Write> =
        writes.iter().filter(|write| matches!(write, Write::Redate { .. })).collect();
    let (first, second) = (YEAR - 30_000, YEAR - 110_000);
    assert_eq!(
        corrections,
        [&Write::Redate { from: 1, upto: 3, step: first }, &Write::Redate { from: 4, upto: 5, step: second }]
    );
}

fn state_device() -> &'static Arc<Device> {
    static DEVICE: std::sync::OnceLock<Arc<Device>> = std::sync::OnceLock::new();
    DEVICE.get_or_init(|| Arc::clone(directory().device("press-1").unwrap()))
}

#[test]
fn what_was_dated_before_the_clock_was_set_and_arrives_later_is_moved_along() {
    let mut world = World::new(0);
    let before = world.rig.now.wall;
    world.pass(Duration::from_secs(1));
    world.set(BUILT + YEAR, true);
    let device = world.rig.device("press-1");
    let values = vec![(TEMPERATURE, Sample::Value(Value::Float(20.0)))];
    world.rig.observe(Observation::Values { device, at: before, values });
    assert_eq!(world.reading(), UnixMillis(BUILT + YEAR - 1_000));
    assert_eq!(world.rig.dated[0], (UnixMillis(BUILT + YEAR - 1_000), Clock::Synchronised));
}

#[test]
fn the_time_of_a_message_never_lies_before_that_of_an_earlier_one_or_after_now() {
    let mut world = World::new(0);
    world.set(BUILT + YEAR, true);
    world.pass(Duration::from_secs(5));
    world.value(20.0);
    for (value, at) in [(40.0, -3_000), (60.0, 9_000)] {
        let device = world.rig.device("press-1");
        let values = vec![(TEMPERATURE, Sample::Value(Value::Float(value)))];
        let at = UnixMillis(world.rig.now.wall.0 + at);
        world.rig.observe(Observation::Values { device, at, values });
    }
    let now = world.rig.now.wall;
    assert!(world.rig.dated.iter().all(|(at, _)| *at == now), "{:?}", world.rig.dated);
}

/// Something that happens.
#[derive(Clone, Debug)]
enum Happens {
    Value(usize, u8),
    Unreadable,
    Presence(bool),
    Write(u8),
    Settle,
    Pass(u64),
}

fn happens() -> impl Strategy<Value = Happens> {
    prop_oneof![
        (0..5_usize, any::<u8>()).prop_map(|(property, value)| Happens::Value(property, value)),
        Just(Happens::Unreadable),
        any::<bool>().prop_map(Happens::Presence),
        any::<u8>().prop_map(Happens::Write),
        Just(Happens::Settle),
        (0..90_000_u64).prop_map(Happens::Pass),
    ]
}

fn happen(world: &mut World, what: &Happens, commands: &mut Vec<CommandId>) {
    let client = all_rights("writer");
    match what {
        Happens::Value(property, value) => {
            let value = match *property {
                RUNNING | DOOR => Value::Bool(value % 2 == 0),
                _ => Value::Float(f64::from(*value)),
            };
            world.rig.values("press-1", &[(*property, value)]);
        }
        Happens::Unreadable => world.rig.unreadable("press-1", TEMPERATURE),
        Happens::Presence(online) => world.rig.presence("press-1", *online),
        Happens::Write(value) => {
            world.rig.submit(
                0,
                1,
                &client,
                write("press-1", "setpoint", Value::Float(f64::from(*value) / 4.0)),
            );
            commands.extend(world.rig.routed.drain(..).map(|command| command.id));
        }
        Happens::Settle => {
            if let Some(command) = commands.pop() {
                world.rig.settle(command, confirmed());
            }
        }
        Happens::Pass(millis) => world.pass(Duration::from_millis(*millis)),
    }
}

proptest! {
    #[test]
    fn steps_of_the_wall_clock_change_nothing_but_dates_and_those_only_as_promised(
        script in proptest::collection::vec(
            (happens(), proptest::option::of((-YEAR..BUILT + 90 * YEAR, any::<bool>()))), 1..40,
        ),
    ) {
        let (mut quiet, mut jumping) = (World::new(BUILT + YEAR), World::new(0));
        let (mut of_quiet, mut of_jumping) = (Vec::new(), Vec::new());
        for (what, set) in &script {
            if let Some((system, is_set)) = set {
                jumping.set(*system, *is_set);
            }
            happen(&mut quiet, what, &mut of_quiet);
            happen(&mut jumping, what, &mut of_jumping);
            prop_assert_eq!(quiet.rig.heard(0), jumping.rig.heard(0));
            prop_assert_eq!(&of_quiet, &of_jumping);
            prop_assert_eq!(
                quiet.rig.state.timeout().map(|due| due - quiet.rig.now.instant),
                jumping.rig.state.timeout().map(|due| due - jumping.rig.now.instant)
            );
        }
        for (at, pair) in jumping.rig.dated.windows(2).enumerate() {
            let number = u64::try_from(at).unwrap() + 2;
            prop_assert!(pair[0].0 <= pair[1].0 || jumping.set_back.contains(&number));
        }
        prop_assert!(jumping.rig.dated.iter().all(|(at, _)| at.0 >= BUILT));
    }
}

#[test]
fn a_relation_whose_end_was_written_by_a_wrong_clock_ends_with_its_retention() {
    let day = Duration::from_secs(86_400);
    let relation = StoredRelation {
        group: "system".into(),
        label: "press-1".into(),
        order: 0,
        interest: Interest { selector: Selector::Device("press-1".into()), kinds: Kinds::PROPERTIES },
        from: 0,
        cursor: None,
        expires: Some(UnixMillis(i64::MAX)),
    };
    let groups = vec![("system".into(), 0, day)];
    let now = Now::new(clock::instant(), UnixMillis(BUILT));
    let mut state = HubState::new(Arc::new(directory()));
    state.remember(Recovered { groups, relations: vec![relation], ..Recovered::default() }, now);
    assert_eq!(state.timeout(), Some(now.instant + day));
}
