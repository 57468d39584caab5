//! What safe values need of a bus: that they are not held back, and that a device which only listens is tried again.

use super::*;
use crate::model::product::{Access, Product};

/// A device with one register that can only be written.
fn listener() -> ModbusDevice {
    let thing = device(1, 1, vec![holding(10)], vec![]);
    let mut product = Product::clone(&thing.device.product);
    product.properties[0].access = Access::Write;
    let mut changed = crate::model::device::Device::clone(&thing.device);
    changed.product = Arc::new(product);
    ModbusDevice { device: Arc::new(changed), ..thing }
}

fn doubts(rig: &Rig) -> usize {
    rig.seen.iter().filter(|seen| matches!(seen, Observation::Doubt { .. })).count()
}

#[test]
fn an_urgent_write_does_not_wait_and_those_after_it_do() {
    let worn = Point { write_interval: Some(Duration::from_secs(10)), ..holding(10) };
    let thing = device(1, 1, vec![worn], vec![]);
    let mut rig = Rig::new(vec![thing.clone()]);
    let answer = remembering();
    rig.run(1, &answer);
    rig.submit(1, &thing, set(0, 1), patient());
    rig.run(1, &answer);
    rig.submit(2, &thing, set(0, 2), patient());
    rig.order(3, &thing, set(0, 3), Duration::from_secs(5), true);
    rig.run(1, &answer);
    assert_eq!(writes(&rig.asked), [(10, 1), (10, 3)]);
    assert_eq!(rig.outcomes()[&2], superseded("p0"), "what waited was overtaken by it");
    rig.submit(4, &thing, set(0, 4), Duration::from_secs(5));
    let outcomes = rig.outcomes();
    let [Outcome::Rejected(Rejection::TooSoon { wait, .. })] = outcomes[&4][..] else {
        panic!("{:?}", outcomes[&4])
    };
    assert!((8..=10).contains(&wait.as_secs()), "{wait:?}");
}

#[test]
fn a_device_that_only_listens_is_not_given_up_when_it_was_silent() {
    let thing = listener();
    let mut rig = Rig::new(vec![thing.clone()]);
    for id in 0..4 {
        rig.submit(id, &thing, set(0, 1), Duration::from_secs(2));
        rig.run(2, answering(false));
    }
    assert_eq!(rig.presences(), [("dev-1".to_owned(), false)]);
    assert_eq!(doubts(&rig), 1, "it may be there all the same");
    rig.run(10, answering(true));
    rig.submit(9, &thing, set(0, 7), Duration::from_secs(2));
    rig.run(2, answering(true));
    assert!(matches!(rig.outcomes()[&9][..], [Outcome::Confirmed { .. }]), "{:?}", rig.outcomes()[&9]);
    assert_eq!(rig.presences().last(), Some(&("dev-1".to_owned(), true)));
}

#[test]
fn a_device_that_only_listens_may_be_there_when_its_link_is_back() {
    let (listens, speaks) = (listener(), device(2, 2, vec![holding(10)], vec![]));
    let mut rig = Rig::new(vec![listens.clone(), speaks]);
    rig.core.link_lost("unplugged", rig.now());
    rig.collect();
    rig.seen.clear();
    rig.core.link_found(rig.now);
    rig.collect();
    let [Observation::Doubt { device }] = &rig.seen[..] else { panic!("{:?}", rig.seen) };
    assert_eq!(device.id, listens.device.id);
}
