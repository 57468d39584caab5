//! The document of profiles and rules: damaged, shared by clients, and seen by some of them in part.

use super::*;

#[test]
fn what_is_stored_and_cannot_be_read_is_set_aside_before_anything_takes_its_place() {
    let body: Arc<str> = "{\"profiles\":7".into();
    let mut rig = begin(&fixture::context(), "/api/profile/create", r#"{"name":"a","rate":30}"#);
    registry(&mut rig, Some(&body));
    let Question::Documents(DocumentAsk::Put { collection, id: None, body: kept }) = &rig.asked[0].1 else {
        panic!("nothing is set aside: {:?}", rig.asked);
    };
    assert_eq!((&**collection, kept), ("oam/registry/damaged", &body));
    answer(&mut rig, Answer::Documents(DocumentAnswer::Put(9)));
    assert!(swapped(&rig).contains("\"name\":\"a\""));
    let mut rig = begin(&fixture::context(), "/api/profile/create", r#"{"name":"a","rate":30}"#);
    registry(&mut rig, Some(&body));
    answer(&mut rig, Answer::Documents(DocumentAnswer::Full));
    assert_eq!(rig.said, [r#"500 {"status":500,"reason":"Persist exception"}"#]);
}

/// A registry with a profile and its rule on the node, and a profile on none.
fn stored_registry() -> Arc<str> {
    let registry = serde_json::json!({
        "last_profile": 2,
        "last_rule": 1,
        "profiles": [
            {"id": 1, "name": "a", "rate": 30, "metrics": [], "rules": [1]},
            {"id": 2, "name": "b", "rate": 30, "metrics": [], "rules": []},
        ],
        "rules": [{"id": 1, "kind": "Name", "name": "r", "value": "*"}],
        "nodes": [{"link": "rs485", "profiles": [1]}],
    });
    registry.to_string().into()
}

#[test]
fn who_changes_what_is_set_on_a_node_must_see_all_of_it() {
    let context = with_partial_client();
    let rows = [
        ("/api/profile/update", r#"{"id":1,"rate":60}"#, false),
        ("/api/profile/update", r#"{"id":1,"rules":[]}"#, false),
        ("/api/profile/delete", r#"{"id":1}"#, false),
        ("/api/rule/update", r#"{"id":1,"value":"x*"}"#, false),
        ("/api/rule/update", r#"{"id":1,"profiles":[2]}"#, false),
        ("/api/rule/delete", r#"{"id":1}"#, false),
        ("/api/rule/create", r#"{"type":0,"name":"q","value":"*","profiles":[1]}"#, false),
        ("/api/profile/update", r#"{"id":2,"rate":60}"#, true),
        ("/api/profile/delete", r#"{"id":2}"#, true),
        ("/api/profile/create", r#"{"name":"c","rate":60,"metrics":[],"rules":[1]}"#, true),
        ("/api/rule/create", r#"{"type":0,"name":"q","value":"*","profiles":[2]}"#, true),
    ];
    for (path, body, may) in rows {
        let mut rig = begin(&context, path, body);
        registry(&mut rig, Some(&stored_registry()));
        if may {
            swapped(&rig);
        } else {
            assert_eq!(rig.said, [r#"403 {"status":403,"reason":"Forbidden"}"#], "{path} {body}");
        }
    }
}

#[test]
fn no_client_takes_all_places_for_profiles_and_rules() {
    let entry = |id: u64, owner: &str| {
        serde_json::json!({
            "id": id, "owner": owner, "name": format!("n{id}"), "rate": 30, "metrics": [], "rules": [], "kind": "Name",
            "value": "*",
        })
    };
    let profile = r#"{"name":"one more","rate":60,"metrics":[],"rules":[]}"#;
    let rule = r#"{"type":0,"name":"one more","value":"*"}"#;
    for (owner, fits) in [("demo", false), ("another", true)] {
        let entries: Vec<_> = (1..=64).map(|id| entry(id, owner)).collect();
        let stored: Arc<str> =
            serde_json::json!({"last_profile": 64, "last_rule": 64, "profiles": entries, "rules": entries, "nodes": []})
                .to_string()
                .into();
        for (path, body) in [("/api/profile/create", profile), ("/api/rule/create", rule)] {
            let mut rig = begin(&fixture::context(), path, body);
            registry(&mut rig, Some(&stored));
            if fits {
                swapped(&rig);
            } else {
                assert_eq!(rig.said, [r#"500 {"status":500,"reason":"Persist exception"}"#], "{path}");
            }
        }
    }
}
