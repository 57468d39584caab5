//! The demo as a whole: what it refuses, what it fills in, and the gateway's own driver on its line.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::clock;
use crate::drivers::modbus::recorder::Recorder;
use crate::drivers::modbus::{Target, bus};
use crate::drivers::{CommandId, DriverAction, DriverCommand, LinkPort, Observation, Sample};
use crate::meters::LinkMeters;
use crate::model::command::Outcome;
use crate::model::value::Value;

fn options(listen: &str) -> DemoOptions {
    DemoOptions { listen: listen.parse().unwrap(), broker: Some("127.0.0.1:0".parse().unwrap()) }
}

#[tokio::test]
async fn the_demo_is_refused_on_any_address_but_loopback() {
    for listen in ["0.0.0.0:8080", "192.168.1.5:8080", "[::]:8080", "[::ffff:10.0.0.1]:8080"] {
        let error = prepare(options(listen)).unwrap_err();
        assert!(error.to_string().contains(&format!("found {listen}")), "{error}");
    }
    for listen in ["127.0.0.1:0", "127.8.9.10:1", "[::1]:8080", "[::ffff:127.0.0.1]:80"] {
        assert_eq!(prepare(options(listen)).unwrap().0.config.server.listen, [listen.parse().unwrap()]);
    }
}

#[tokio::test]
async fn the_broker_is_refused_on_any_address_but_loopback() {
    let exposed = DemoOptions { broker: Some("0.0.0.0:1883".parse().unwrap()), ..options("127.0.0.1:8080") };
    assert!(matches!(prepare(exposed), Err(DemoError::Exposed { .. })));
}

#[test]
fn a_port_that_was_asked_for_and_is_taken_is_named_and_the_usual_one_is_replaced() {
    let taken = broker::listen(Some("127.0.0.1:0".parse().unwrap())).unwrap();
    let address = taken.local_addr().unwrap();
    let error = broker::listen(Some(address)).unwrap_err();
    assert_eq!(error.to_string(), format!("cannot listen for MQTT on {address}"));
    // Whoever has the usual one, be it the first of these.
    let both = [broker::listen(None).unwrap(), broker::listen(None).unwrap()];
    assert!(both.iter().all(|door| door.local_addr().unwrap().ip().is_loopback()));
}

#[tokio::test]
async fn the_blanks_are_filled_in_with_what_was_opened() {
    let (demo, door) = prepare(options("127.0.0.1:8080")).unwrap();
    let Target::Serial(serial) = &demo.config.buses[0].settings.target else { panic!("no serial line") };
    assert_eq!(Path::new(&*serial.path), demo.line.path);
    let broker = door.local_addr().unwrap();
    assert_eq!((demo.config.brokers[0].settings.port, demo.broker), (broker.port(), broker));
    assert_eq!(demo.config.brokers[0].devices.len(), 3);
}

#[tokio::test]
async fn the_banner_has_an_address_for_every_dialect_and_the_page() {
    let (demo, _door) = prepare(options("127.0.0.1:8080")).unwrap();
    let banner = demo.banner("127.0.0.1:4711".parse().unwrap());
    for part in [
        "http://127.0.0.1:4711/#token=demo&id=demo",
        "http://127.0.0.1:4711/api/janus/websocket?token=demo&uuid=E07E-8972-925A-C99B",
        "ws://127.0.0.1:4711/messaging/demo",
        "ws://127.0.0.1:4711/api/v1/system/common/websocket/connect",
        "http://127.0.0.1:4711/api/metric/list",
        "ws://127.0.0.1:4711/ws",
        "ws://127.0.0.1:4711/wssubscriber/msgplatform/websocket?systemId=demo&timestamp=",
        &format!("mqtt://{}", demo.broker),
        demo.line.path.to_str().unwrap(),
    ] {
        assert!(banner.contains(part), "{part} is not in\n{banner}");
    }
}

/// What the driver has seen so far.
#[derive(Default)]
struct Seen {
    values: BTreeMap<(String, String), Value>,
    online: BTreeMap<String, bool>,
    outcome: Option<Outcome>,
}

impl Seen {
    fn take(&mut self, observation: Observation) {
        match observation {
            Observation::Values { device, values, .. } => {
                for (at, sample) in values {
                    let Sample::Value(value) = sample else { panic!("{}: {sample:?}", device.id) };
                    let property = device.product.properties[at].id.to_string();
                    self.values.insert((device.id.to_string(), property), value);
                }
            }
            Observation::Presence { device, online, .. } => {
                self.online.insert(device.id.to_string(), online);
            }
            Observation::Settled { outcome, .. } => self.outcome = Some(outcome),
            Observation::Event { .. }
            | Observation::Doubt { .. }
            | Observation::Publish { .. }
            | Observation::Ota { .. }
            | Observation::Link { .. }
            | Observation::Accepted { .. } => {}
        }
    }

    fn number(&self, device: &str, property: &str) -> Option<f64> {
        self.values.get(&(device.to_owned(), property.to_owned())).and_then(Value::as_f64)
    }
}

/// Takes observations until the condition holds.
async fn wait_for(queue: &mut mpsc::Receiver<Observation>, seen: &mut Seen, what: impl Fn(&Seen) -> bool) {
    let wait = async {
        while !what(seen) {
            seen.take(queue.recv().await.unwrap());
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(60), wait).await;
    waited.unwrap_or_else(|_| panic!("seen only {:?} {:?} {:?}", seen.values, seen.online, seen.outcome));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_ordinary_driver_reads_and_writes_the_simulated_line() {
    let (mut demo, _door) = prepare(options("127.0.0.1:0")).unwrap();
    let mut bus = demo.config.buses.remove(0);
    // The units share this process, and a busy machine, with the driver.
    bus.settings.timeout = Duration::from_secs(1);
    let press = Arc::clone(&bus.devices[1].device);
    let (commands, command_queue) = mpsc::channel(4);
    let (observations, mut queue) = mpsc::channel(64);
    let port = LinkPort {
        link: Arc::clone(&bus.settings.id),
        commands: command_queue,
        observations,
        meters: LinkMeters::default(),
        announcer: None,
    };
    let stop = CancellationToken::new();
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(demo.line.run(stop.clone()));
    let recorder = Recorder::new(&bus.settings, None);
    tasks.spawn(bus::run(bus.settings, bus.devices, port, recorder, stop.clone()));

    let mut seen = Seen::default();
    wait_for(&mut queue, &mut seen, |seen| {
        // One that is late at first, on a machine that is busy, comes all the same.
        seen.online.values().copied().eq([false, true, true])
            && seen.number("meter-1", "energy").is_some()
            && seen.number("press-1", "setpoint").is_some()
    })
    .await;
    assert!(seen.online.keys().eq(["dead-1", "meter-1", "press-1"]), "{:?}", seen.online);
    assert!((225.0..235.0).contains(&seen.number("meter-1", "voltage").unwrap()));
    assert!((24.0..100.0).contains(&seen.number("press-1", "temperature").unwrap()));

    let (at, _) = press.product.property("setpoint").unwrap();
    let write = DriverCommand {
        id: CommandId(1),
        device: press,
        action: DriverAction::Write(vec![(at, Value::Float(20.5))]),
        deadline: clock::instant() + Duration::from_secs(60),
        urgent: false,
    };
    commands.send(write).await.unwrap();
    wait_for(&mut queue, &mut seen, |seen| seen.outcome.is_some()).await;
    assert!(matches!(seen.outcome, Some(Outcome::Confirmed { .. })), "{:?}", seen.outcome);
    assert_eq!(seen.number("press-1", "setpoint"), Some(20.5));

    stop.cancel();
    // A driver that still has something to say is listened to.
    while queue.recv().await.is_some() {}
    tasks.join_all().await;
}
