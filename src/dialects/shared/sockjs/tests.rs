//! What transcripts cannot show: headers, credentials in the name of a session, frames around many messages.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::dialects::shared::fixture;
use crate::dialects::shared::stomp::rig::{Rig, context, upgrade};
use crate::dialects::{Closing, Input, janus, oam};

fn at(method: &str, path: &str, headers: &[(&str, &str)]) -> Opening {
    let mut request = fixture::request(method, path, false);
    request.headers.extend(headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    oam::open(&request, &context(|_| {}), fixture::now())
}

fn response(method: &str, path: &str, headers: &[(&str, &str)]) -> Response {
    match at(method, path, headers) {
        Opening::Respond(response) => response,
        Opening::Carry(carry) => carry.head,
        other @ (Opening::NotMine | Opening::Upgrade(_) | Opening::Call(_)) => panic!("{other:?}"),
    }
}

fn header<'a>(response: &'a Response, name: &str) -> Option<&'a str> {
    response.headers.iter().find(|(each, _)| each == name).map(|(_, value)| value.as_str())
}

fn framed() -> Rig {
    let request = upgrade("/ws/000/abc/websocket", &[("token", "demo")]);
    Rig::upgraded(oam::open(&request, &context(|_| {}), fixture::now()))
}

#[test]
fn an_origin_is_named_with_credentials_and_none_is_any() {
    for (method, path) in [("GET", "/ws/info"), ("POST", "/ws/0/a/xhr"), ("POST", "/ws/0/a/xhr_streaming")] {
        let answer = response(method, path, &[("origin", "http://page")]);
        assert_eq!(header(&answer, "access-control-allow-origin"), Some("http://page"), "{path}");
        assert_eq!(header(&answer, "access-control-allow-credentials"), Some("true"), "{path}");
        assert!(header(&answer, "cache-control").unwrap().contains("no-store"), "{path}");
        assert_eq!(header(&response(method, path, &[]), "access-control-allow-origin"), Some("*"), "{path}");
    }
}

#[test]
fn a_preflight_is_granted_for_a_year_with_the_headers_that_it_asks_for() {
    let headers = [("origin", "http://page"), ("access-control-request-headers", "a, b, c")];
    for (path, methods) in [
        ("/ws/info", "OPTIONS, GET"),
        ("/ws/0/a/xhr", "OPTIONS, POST"),
        ("/ws/0/a/xhr_streaming", "OPTIONS, POST"),
        ("/ws/0/a/xhr_send", "OPTIONS, POST"),
        ("/ws/0/a/eventsource", "OPTIONS, GET"),
    ] {
        let answer = response("OPTIONS", path, &headers);
        assert_eq!(answer.status, 204, "{path}");
        assert_eq!(header(&answer, "access-control-allow-methods"), Some(methods), "{path}");
        assert_eq!(header(&answer, "access-control-allow-headers"), Some("a, b, c"), "{path}");
        assert_eq!(header(&answer, "access-control-max-age"), Some("31536000"), "{path}");
    }
}

#[test]
fn a_page_of_another_origin_than_the_setting_allows_is_refused_on_every_path() {
    let context = context(|context| {
        context.settings.oam.access_control_allow_origin = "http://good".into();
    });
    for (method, path) in [("GET", "/ws/info"), ("POST", "/ws/0/a/xhr"), ("OPTIONS", "/ws/0/a/xhr_send")] {
        for (origin, refused) in [("http://good", false), ("http://bad", true)] {
            let mut request = fixture::request(method, path, false);
            request.headers.push(("origin".to_owned(), origin.to_owned()));
            let opening = oam::open(&request, &context, fixture::now());
            let status = if let Opening::Respond(response) = opening { response.status } else { 200 };
            assert_eq!(status == 403, refused, "{path} from {origin}");
        }
    }
}

#[test]
fn entropy_is_fresh_each_time() {
    let (one, other) = (response("GET", "/ws/info", &[]), response("GET", "/ws/info", &[]));
    assert_ne!(one.body, other.body);
}

#[test]
fn the_credential_is_a_part_of_the_name() {
    let name = |query: &[(&str, &str)]| {
        let mut request = upgrade("/ws/000/abc/xhr", query);
        (request.method, request.upgrade) = ("POST".to_owned(), false);
        match oam::open(&request, &context(|_| {}), fixture::now()) {
            Opening::Carry(carry) => carry.name,
            other @ (Opening::NotMine | Opening::Respond(_) | Opening::Upgrade(_) | Opening::Call(_)) => {
                panic!("{other:?}")
            }
        }
    };
    // sockjs-client adds a time to each request against caches.
    assert_eq!(name(&[("ticket", "x"), ("t", "1")]), name(&[("ticket", "x"), ("t", "2")]));
    assert_ne!(name(&[("ticket", "x")]), name(&[("ticket", "y")]));
    assert_ne!(name(&[("token", "x")]), name(&[]));
    assert!(!format!("{:?}", name(&[("ticket", "secret")])).contains("secret"));
}

#[test]
fn what_is_sent_is_looked_at_before_the_session_is() {
    for (body, status) in [("", 500), ("[\"x", 500), ("[1]", 500), ("[\"x\"]", 204), ("[]", 204)] {
        let mut request = fixture::request("POST", "/ws/000/abc/xhr_send", false);
        request.body = body.into();
        let status_of = match oam::open(&request, &context(|_| {}), fixture::now()) {
            Opening::Respond(response) => response.status,
            Opening::Carry(carry) => carry.head.status,
            other @ (Opening::NotMine | Opening::Upgrade(_) | Opening::Call(_)) => panic!("{other:?}"),
        };
        assert_eq!(status_of, status, "{body}");
    }
}

#[test]
fn janus_serves_the_path_where_it_does_not_share_it() {
    for (alone, served) in [(false, false), (true, true)] {
        let context = context(|context| context.settings.oam.common.enabled = !alone);
        let opening = janus::open(&fixture::request("GET", "/ws/info", false), &context, fixture::now());
        assert_eq!(matches!(opening, Opening::Respond(_)), served, "alone: {alone}");
    }
}

#[test]
fn frames_surround_the_session_on_a_websocket() {
    let mut rig = framed();
    assert_eq!(rig.said, ["o"]);
    rig.said.clear();
    assert_eq!(rig.send(""), [""; 0]);
    assert_eq!(rig.send("[]"), [""; 0]);
    let said = rig.send(r#"["CONNECT\naccept-version:1.2\n","\n\u0000"]"#);
    assert!(said[0].starts_with(r#"a["CONNECTED\n"#) && said[0].ends_with(r#"\n\n\u0000"]"#), "{said:?}");
}

#[test]
fn silence_is_broken_by_heart_beats() {
    let mut rig = framed();
    rig.said.clear();
    rig.send(r#"["CONNECT\n\n\u0000"]"#);
    assert_eq!(rig.wait(Duration::from_secs(24)), [""; 0]);
    assert_eq!(rig.wait(Duration::from_secs(1)), ["h"]);
    assert_eq!(rig.wait(Duration::from_secs(25)), ["h"]);
}

#[test]
fn a_close_is_told_in_a_frame_first() {
    let mut rig = framed();
    rig.said.clear();
    rig.input(Input::Closing(Closing::Shutdown));
    assert_eq!(rig.said, [r#"c[1001,"the gateway stops"]"#, "close 1001"]);
}

#[test]
fn what_is_no_sockjs_is_cut_off_without_a_frame() {
    let mut rig = framed();
    rig.said.clear();
    assert_eq!(rig.send("[\"a"), ["close 1007"]);
    let mut rig = framed();
    rig.said.clear();
    rig.input(Input::Binary(vec![1].into()));
    assert_eq!(rig.said, ["close 1003"]);
}

proptest! {
    #[test]
    fn a_conversation_is_the_same_in_any_cut(cuts in proptest::collection::vec(1_usize..40, 0..20)) {
        let stream = "CONNECT\naccept-version:1.2\n\n\0SUBSCRIBE\nid:a\ndestination:/alarm\nreceipt:1\n\n\0\
                      DISCONNECT\nreceipt:2\n\n\0";
        let (mut parts, mut rest) = (Vec::new(), stream);
        for cut in cuts {
            let (part, after) = rest.split_at(cut.min(rest.len()));
            parts.push(part);
            rest = after;
        }
        parts.push(rest);
        let frame = frame::messages(&parts);
        let mut rig = framed();
        let said = rig.send(frame.strip_prefix('a').unwrap()).join(" ");
        prop_assert!(said.contains("receipt-id:1") && said.contains("receipt-id:2"), "{said}");
    }
}
