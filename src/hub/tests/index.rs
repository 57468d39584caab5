//! The index gives what a filter over all sessions would give.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::hub::index::Index;
use crate::hub::roster::Roster;

const KINDS: [Kinds; 8] = [
    Kinds::PROPERTIES,
    Kinds::EVENT,
    Kinds::ALARM,
    Kinds::PRESENCE,
    Kinds::PUBLISH,
    Kinds::SENT,
    Kinds::REPLY,
    Kinds::OTA,
];

fn any_selector() -> impl Strategy<Value = Selector> {
    prop_oneof![
        Just(Selector::All),
        prop_oneof!["press-1", "press-2", "lamp-1", "meter-1", "none"]
            .prop_map(|id| Selector::Device(id.as_str().into())),
        prop_oneof!["press", "meter"].prop_map(|id| Selector::Product(id.as_str().into())),
        prop_oneof!["1", "2"].prop_map(|id| Selector::Project(id.as_str().into())),
        ("[12]", "[12]").prop_map(|(project, area)| Selector::Area {
            project: project.as_str().into(),
            area: area.as_str().into()
        }),
        prop_oneof!["1press", "2meter"].prop_map(|id| Selector::TypeId(id.as_str().into())),
        "[12]?".prop_map(|prefix| Selector::TypeIdPrefix(prefix.as_str().into())),
    ]
}

fn any_interest() -> impl Strategy<Value = Interest> {
    let kinds = prop::collection::vec(0..KINDS.len(), 0..4)
        .prop_map(|kinds| kinds.into_iter().fold(Kinds::NONE, |all, at| all.with(KINDS[at])));
    (any_selector(), kinds).prop_map(|(selector, kinds)| Interest { selector, kinds })
}

fn any_client() -> impl Strategy<Value = Arc<Client>> {
    let pattern = prop_oneof!["\\*", "press-\\*", "\\*-1", "product:meter", "lamp-1"];
    (prop::collection::vec(pattern, 0..3), prop::bool::weighted(0.9)).prop_map(|(patterns, read)| {
        Arc::new(Client {
            id: "c".into(),
            secret: Secret::new("s"),
            dialects: Vec::new(),
            devices: DeviceFilter::new(patterns),
            rights: Rights { read, write: true, invoke: true },
        })
    })
}

proptest! {
    #[test]
    fn the_index_equals_the_naive_filter_for_any_history_of_interests(
        watches in prop::collection::vec(
            (0..5_u64, any_client(), prop::option::weighted(0.8, prop::collection::vec(any_interest(), 0..4))),
            0..12,
        ),
    ) {
        let directory = Arc::new(directory());
        let roster = Roster::new(Arc::clone(&directory));
        let mut index = Index::default();
        let mut naive: BTreeMap<u64, (Arc<Client>, Vec<Interest>)> = BTreeMap::new();
        for (key, client, interests) in watches {
            if let Some(interests) = interests {
                index.set(key, roster.resolve(&client, &interests));
                naive.insert(key, (client, interests));
            } else {
                index.remove(key);
                naive.remove(&key);
            }
            for (position, device) in directory.devices().iter().enumerate() {
                for kind in KINDS {
                    let wants = |(client, interests): &(Arc<Client>, Vec<Interest>)| {
                        let admits =
                            |interest: &Interest| interest.kinds.meets(kind) && interest.selector.admits(device);
                        client.sees(device) && interests.iter().any(admits)
                    };
                    let expected: Vec<u64> =
                        naive.iter().filter(|(_, watch)| wants(watch)).map(|(key, _)| *key).collect();
                    prop_assert_eq!(&*index.takers(position, kind), &expected[..]);
                    for key in 0..5 {
                        prop_assert_eq!(index.takes(key, position, kind), expected.contains(&key));
                    }
                }
            }
        }
    }
}

#[test]
fn lists_of_one_subject_are_shared_until_interests_change() {
    let directory = Arc::new(directory());
    let roster = Roster::new(Arc::clone(&directory));
    let mut index = Index::default();
    let demo = all_rights("demo");
    index.set(1, roster.resolve(&demo, [everything()]));
    let before = index.takers(0, Kinds::ALARM);
    assert!(Arc::ptr_eq(&before, &index.takers(0, Kinds::ALARM)));
    index.set(2, roster.resolve(&demo, [everything()]));
    assert_eq!(*index.takers(0, Kinds::ALARM), [1, 2]);
}
