//! sockjs-client 1.6, unchanged, against the built binary: on a WebSocket, and with WebSockets blocked.

#![cfg(test)]

mod common;

use common::client::Client;
use common::world::{SECRET, World};
use common::ws::http;
use serde_json::{Value as Json, json};

const UUID: &str = "AAAA-BBBB-CCCC-0001";

const TRANSPORTS: [&str; 4] = ["websocket", "xhr-streaming", "eventsource", "xhr-polling"];

fn janus(world: &World, transports: &[&str], library: &str) -> Client {
    let options = json!({
        "base": world.base(), "token": SECRET, "uuid": UUID, "transports": transports, "library": library,
    });
    Client::start("sockjs.mjs", &options)
}

fn of_temperature(value: f64) -> impl Fn(&Json) -> bool {
    move |message| message["data"]["temperature"] == value
}

#[tokio::test]
async fn the_manuals_example_works_over_every_transport() {
    let world = World::start().await;
    let mut tenths = 300;
    for transport in TRANSPORTS {
        for library in ["stompjs", "@stomp/stompjs"] {
            let mut client = janus(&world, &[transport], library);
            let address = client.saw("address");
            assert_eq!(address["data"]["topic"], format!("/ws/deviceData/{UUID}"));
            let open = client.saw("open");
            assert_eq!(open["transport"], transport);
            // The ticket stands in the query, which the client keeps behind every path that it makes.
            assert!(open["url"].as_str().is_some_and(|url| url.contains("/ws?ticket=")), "{open}");
            client.saw("connected");
            assert_eq!(client.saw("receipt")["id"], "standing", "{transport} {library}");
            for _ in 0..3 {
                tenths += 1;
                world.heat(tenths);
                let message = client.saw_where("message", of_temperature(f64::from(tenths) / 10.0));
                assert_eq!(message["uuid"], UUID);
            }
            client.tell(&json!({"do": "leave"}));
            client.saw("left");
            client.ends();
            assert!(client.all("error").is_empty(), "{:?}", client.said);
        }
    }
}

#[tokio::test]
async fn heart_beats_of_both_kinds_keep_a_quiet_session_over_every_fallback() {
    let world = World::start().await;
    let mut clients = TRANSPORTS.map(|transport| janus(&world, &[transport], "stompjs"));
    for client in &mut clients {
        client.saw("receipt");
    }
    for client in &mut clients {
        client.saw("heart-beat");
        client.saw("heart-beat");
        assert!(client.all("closed").is_empty(), "{:?}", client.said);
    }
}

#[tokio::test]
async fn every_transport_tells_why_the_gateway_closes() {
    let world = World::start().await;
    let mut clients = TRANSPORTS.map(|transport| janus(&world, &[transport], "@stomp/stompjs"));
    for (client, transport) in clients.iter_mut().zip(TRANSPORTS) {
        client.saw("receipt");
        if transport == "xhr-polling" {
            // What has said the last ended with it, and only the next one can tell the end.
            let is_poll = |asked: &Json| asked["path"].as_str().is_some_and(|path| path.contains("/xhr?"));
            client.saw_where("asked", is_poll);
        }
    }
    // Connections are accepted in turn, so that of the last poll is when this one is.
    assert_eq!(http(world.port, "GET", "/healthz", &[], "").await.0, 200);
    world.pentad.signal("TERM");
    for client in &mut clients {
        let closed = client.saw("closed");
        assert_eq!(
            (&closed["code"], &closed["reason"]),
            (&json!(1001), &json!("the gateway stops")),
            "{closed}"
        );
    }
}
