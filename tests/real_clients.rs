//! The client libraries of the five systems, unchanged, against the built binary: stomp.js, @stomp/stompjs, stomp.py,
//! clients in the way of the consoles and samples of the others, and Chromium.

#![cfg(test)]

mod common;

use std::path::Path;
use std::time::Duration;

use common::client::Client;
use common::world::{SECRET, SYSTEM, World};
use common::ws::PATIENCE;
use serde_json::{Value as Json, json};

const UUID: &str = "AAAA-BBBB-CCCC-0001";
const TYPE_ID: &str = "101c1200240008101e0a00000141414100000000020000000000000000000000";

// ---- Janus: stomp.js 2.3.3 ----

fn janus(world: &World, socket: &str) -> Client {
    let options = json!({"base": world.base(), "token": SECRET, "uuid": UUID, "socket": socket});
    Client::start("janus.mjs", &options)
}

#[tokio::test]
async fn stomp_js_2_3_3_works_as_the_janus_page_uses_it() {
    let world = World::start().await;
    for (round, socket) in [(0, "ws"), (1, "websocket")] {
        let mut client = janus(&world, socket);
        let address = client.saw("address");
        assert_eq!((&address["code"], &address["message"]), (&json!(200), &json!("")), "{address}");
        let connected = client.saw("connected");
        if socket == "ws" {
            // Browsers give up when none of the offered ones comes back.
            assert!(["v10.stomp", "v11.stomp"].contains(&connected["protocol"].as_str().unwrap_or_default()));
        }
        // The frame before this receipt came in pieces of 16 KiB.
        assert_eq!(client.saw("receipt")["id"], "standing");
        world.heat(300 + round);
        let expected = f64::from(300 + round) / 10.0;
        let message = client.saw_where("message", |message| message["data"]["temperature"] == expected);
        assert_eq!(message["uuid"], UUID);
        assert!(message["time"].is_string(), "{message}");
        client.tell(&json!({"do": "disconnect"}));
        client.saw("disconnected");
        client.ends();
        assert!(client.all("error").is_empty(), "{:?}", client.said);
    }
}

#[tokio::test]
async fn stomp_js_2_3_3_gets_the_heart_beats_that_it_asks_for() {
    let world = World::start().await;
    let mut client = janus(&world, "ws");
    assert_eq!(client.saw("receipt")["id"], "standing");
    client.saw("heart-beat");
    client.tell(&json!({"do": "disconnect"}));
    client.ends();
    assert!(client.all("error").is_empty(), "{:?}", client.said);
}

#[tokio::test]
async fn stomp_js_2_3_3_is_told_when_the_gateway_goes() {
    let world = World::start().await;
    let mut client = janus(&world, "ws");
    assert_eq!(client.saw("receipt")["id"], "standing");
    world.pentad.signal("TERM");
    let error = client.saw("error");
    assert!(error["error"].as_str().is_some_and(|text| text.contains("Lost connection")), "{error}");
}

// ---- WCS OAM: @stomp/stompjs 7 and stomp.py ----

fn oam(world: &World, passcode: &str, versions: &Json, library: &Json) -> Client {
    let url = format!("ws://127.0.0.1:{}/ws", world.port);
    let options = json!({"url": url, "passcode": passcode, "versions": versions, "library": library});
    Client::start("oam.mjs", &options)
}

fn to(destination: &str) -> impl Fn(&Json) -> bool {
    move |message| message["destination"] == destination
}

#[tokio::test]
async fn stompjs_7_gets_alarms_samples_and_answers_and_leaves_in_order() {
    let world = World::start().await;
    for (versions, version, library) in [
        (json!(null), "1.2", json!({})),
        (json!(null), "1.2", json!({"splitLargeFrames": true})),
        (json!(["1.1", "1.0"]), "1.1", json!({"forceBinaryWSFrames": true})),
        (json!(["1.0"]), "1.0", json!({})),
    ] {
        world.heated(250).await;
        let mut client = oam(&world, SECRET, &versions, &library);
        assert_eq!(client.saw("connected")["version"], version);
        client.saw("standing");

        world.heat(815);
        let alarm = client.saw_where("message", to("/alarm"));
        assert_eq!(
            (&alarm["body"]["mediaId"], &alarm["body"]["metric"]),
            (&json!("press-1"), &json!("TEMPERATURE"))
        );
        assert_eq!(alarm["type"], "application/json;charset=UTF-8");
        world.heat(816);
        client.saw_where("message", |message| {
            to("/stream/rs485/press-1")(message)
                && message["body"]
                    .as_array()
                    .is_some_and(|all| all.iter().any(|sample| sample["TEMPERATURE"] == 81.6))
        });

        // So long that the library cuts it where it may.
        let request = "q".repeat(20_000);
        client.tell(
            &json!({"do": "call", "realm": "/api/metric/list", "requestId": request, "payload": {"id": ""}}),
        );
        let answer = client.saw_where("message", to("/user/service"));
        assert_eq!((&answer["body"]["requestId"], &answer["body"]["status"]), (&json!(request), &json!(200)));
        assert!(answer["body"]["payload"].to_string().contains("TEMPERATURE"), "{answer}");

        client.tell(&json!({"do": "deactivate"}));
        client.saw("deactivated");
        client.ends();
        assert!(client.all("error").is_empty(), "{:?}", client.said);
    }
}

#[tokio::test]
async fn stompjs_7_reconnects_by_itself_after_a_restart_of_the_gateway() {
    let mut world = World::start().await;
    let mut client = oam(&world, SECRET, &json!(null), &json!({}));
    client.saw("standing");
    for signal in ["TERM", "KILL"] {
        world.restart(signal).await;
        client.saw("closed");
        client.saw("standing");
        world.heat(815);
        client.saw_where("message", to("/alarm"));
        world.heat(250);
    }
    client.tell(&json!({"do": "deactivate"}));
    client.saw("deactivated");
}

#[tokio::test]
async fn stompjs_7_hears_why_a_wrong_passcode_is_refused_and_nothing_else() {
    let world = World::start().await;
    for passcode in ["wrong", ""] {
        let mut client = oam(&world, passcode, &json!(null), &json!({"reconnectDelay": 0}));
        let error = client.saw("error");
        assert!(error["message"].is_string(), "{error}");
        client.saw("closed");
        assert!(client.all("connected").is_empty(), "{:?}", client.said);
    }
}

#[tokio::test]
async fn stomp_py_logs_in_sends_with_receipts_and_leaves_with_one() {
    let world = World::start().await;
    let options = json!({"port": world.port, "login": "any", "passcode": SECRET, "heartbeats": [4000, 4000]});
    let mut client = Client::start("oam.py", &options);
    assert_eq!(client.saw("connected")["version"], "1.2");
    for (id, destination) in [("a", "/alarm"), ("b", "/user/service")] {
        client.tell(&json!({"do": "subscribe", "id": id, "destination": destination}));
        client.saw_where("receipt", |receipt| receipt["id"] == id);
    }
    world.heat(815);
    assert_eq!(client.saw_where("message", to("/alarm"))["body"]["mediaId"], "press-1");

    let body = json!({"requestId": 7, "realm": "/api/metric/list", "payload": null}).to_string();
    client
        .tell(&json!({"do": "send", "destination": "/app/api/metric/list", "body": body, "receipt": "sent"}));
    // Answer and receipt come in either order.
    let mut wanted = vec!["message", "receipt"];
    while let Some(name) = wanted.pop() {
        match name {
            "receipt" => assert!(client.said_or_saw("receipt", |receipt| receipt["id"] == "sent")),
            _ => assert!(client.said_or_saw("message", |message| message["body"]["requestId"] == 7)),
        }
    }

    client.tell(&json!({"do": "disconnect"}));
    client.saw_where("receipt", |receipt| receipt["id"] == "goodbye");
    // The library tells of its end before it passes the receipt on.
    assert!(client.said_or_saw("disconnected", |_| true));
    client.ends();
    for bad in ["error", "heart-beat timeout"] {
        assert!(client.all(bad).is_empty(), "{:?}", client.said);
    }
}

#[tokio::test]
async fn stomp_py_sees_a_wrong_login_refused() {
    let world = World::start().await;
    let options = json!({"port": world.port, "login": "any", "passcode": "wrong"});
    let mut client = Client::start("oam.py", &options);
    client.saw("error");
    client.saw("refused");
}

// ---- SagooIoT / JetLinks ----

fn jetlinks(world: &World, first: &Json) -> Client {
    let url = format!("ws://127.0.0.1:{}/messaging/{SECRET}?:X_Access_Token={SECRET}", world.port);
    Client::start("jetlinks.mjs", &json!({"url": url, "first": first}))
}

fn press(id: &str, parameter: &Json) -> Json {
    json!({"do": "request", "id": id, "topic": "/device-message-sender/press/press-1", "parameter": parameter})
}

fn of(id: &str) -> impl Fn(&Json) -> bool {
    move |message| message["id"] == id
}

#[tokio::test]
async fn a_jetlinks_console_reads_writes_invokes_and_watches() {
    let world = World::start().await;
    let live = json!({"id": "instance/live", "topic": "/device/press/press-1/**"});
    let read =
        json!({"messageType": "READ_PROPERTY", "properties": ["setpoint"], "headers": {"async": false}});
    let mut client = jetlinks(&world, &json!([live, press("r", &read)]));
    let result = client.saw_where("result", of("r"));
    assert_eq!(result["payload"]["messageType"], "READ_PROPERTY_REPLY");
    assert_eq!(result["payload"]["properties"]["setpoint"], 50.0, "{result}");
    assert_eq!(result["payload"]["headers"]["productId"], "press");
    client.saw_where("complete", of("r"));
    client.saw("pong");

    let write =
        json!({"messageType": "WRITE_PROPERTY", "properties": {"setpoint": 20}, "headers": {"async": false}});
    client.tell(&press("w", &write));
    let result = client.saw_where("result", of("w"));
    assert_eq!(
        (&result["payload"]["success"], &result["payload"]["properties"]["setpoint"]),
        (&json!(true), &json!(20))
    );
    assert_eq!(world.line.get(2, "holding", 100, 2), [0x0000, 0x41A0]);
    client.saw_where("complete", of("w"));

    let invoke = json!({"messageType": "INVOKE_FUNCTION", "functionId": "reset", "inputs": {"code": 4711}});
    client.tell(&press("i", &invoke));
    let result = client.saw_where("result", of("i"));
    assert_eq!(result["payload"]["success"], true, "{result}");
    assert_eq!(world.line.get(2, "holding", 200, 1), [4711]);
    client.saw_where("complete", of("i"));

    client.tell(&press(
        "bad",
        &json!({"messageType": "INVOKE_FUNCTION", "functionId": "explode", "inputs": []}),
    ));
    let result = client.saw_where("result", of("bad"));
    assert_eq!(
        (&result["payload"]["success"], &result["payload"]["code"]),
        (&json!(false), &json!("FUNCTION_UNDEFINED"))
    );
    client.saw_where("complete", of("bad"));

    world.heat(444);
    let report = client.saw_where("result", |result| result["payload"]["properties"]["temperature"] == 44.4);
    assert_eq!((&report["id"], &report["payload"]["deviceId"]), (&json!("instance/live"), &json!("press-1")));
    assert_eq!(report["topic"], "/device/press/press-1/message/property/report");

    // Left and entered again under the same id.
    let again = json!({"do": "again", "id": "instance/live", "topic": "/device/press/press-1/message/property/report"});
    client.tell(&again);
    client.tell(&json!({"do": "ping", "id": "after"}));
    client.saw_where("pong", |pong| pong["requestId"] == "after");
    world.heat(555);
    client.saw_where("result", |result| result["payload"]["properties"]["temperature"] == 55.5);

    // A chart begins with the past and goes on with the present, without gap or repetition.
    world.stored(&[44.4, 55.5]).await;
    let chart = json!({"deviceId": "press-1", "properties": ["temperature"], "history": 2});
    let topic = "/dashboard/device/press/properties/realTime";
    client.tell(&json!({"do": "request", "id": "chart", "topic": topic, "parameter": chart}));
    for (round, value) in [44.4, 55.5, 66.6, 77.7].into_iter().enumerate() {
        if round >= 2 {
            world.heat([666, 777][round - 2]);
        }
        let result = client.saw_where("result", of("chart"));
        assert_eq!(result["payload"]["value"]["value"], value, "{result}");
    }

    // An error is shown, and the request ends on its completion.
    client.tell(&json!({"do": "request", "id": "e", "topic": "/nowhere"}));
    client.saw_where("toast", of("e"));
    client.saw_where("complete", of("e"));

    client.tell(&json!({"do": "close"}));
    client.ends();
    // Nothing is said about a request that has ended, its late `unsub` included.
    assert!(client.all("stray").is_empty(), "{:?}", client.said);
}

#[tokio::test]
async fn a_jetlinks_console_sees_that_its_token_is_refused() {
    let world = World::start().await;
    let url = format!("ws://127.0.0.1:{}/messaging/wrong", world.port);
    let mut client = Client::start("jetlinks.mjs", &json!({"url": url}));
    assert!(client.saw("auth error")["message"].is_string());
    assert_eq!(client.saw("closed")["code"], 1007);
}

// ---- iThings ----

#[tokio::test]
async fn an_ithings_application_is_pushed_controls_and_subscribes_again_after_a_restart() {
    let mut world = World::start().await;
    let device = json!({"productID": "press", "deviceName": "press-1"});
    let subscriptions = json!([
        {"code": "devicePropertyReport", "params": device},
        {"code": "devicePropertyReportV2", "params": device},
        {"code": "deviceConn", "params": {"projectID": "1"}},
    ]);
    let options = json!({"base": world.base(), "token": SECRET, "subscriptions": subscriptions});
    let mut client = Client::start("ithings.mjs", &options);
    for (round, tenths) in [311_u16, 322].into_iter().enumerate() {
        let greeting = client.saw("greeting");
        assert_eq!(greeting["code"], 200);
        assert!(greeting["id"].as_str().is_some_and(|id| !id.is_empty()), "{greeting}");
        for _ in 0..3 {
            assert_eq!(client.saw("subscribed")["code"], 200);
        }
        assert_eq!(client.saw("pong")["code"], 200);
        world.heat(tenths);
        let value = f64::from(tenths) / 10.0;
        let one = |push: &Json| push["path"] == "devicePropertyReport" && push["body"]["param"] == value;
        let all = |push: &Json| {
            push["path"] == "devicePropertyReportV2" && push["body"]["params"]["temperature"] == value
        };
        assert!(client.said_or_saw("push", one));
        assert!(client.said_or_saw("push", all));
        if round == 0 {
            let body = json!({"productID": "press", "deviceName": "press-1", "data": "{\"setpoint\":30}"});
            client.tell(&json!({"do": "post", "path": "property-control-send", "body": body}));
            let reply = client.saw("reply");
            assert_eq!(
                (&reply["body"]["code"], &reply["body"]["data"]["code"]),
                (&json!(200), &json!(200)),
                "{reply}"
            );
            let body = json!({"productID": "press", "deviceName": "press-1", "data": "{\"setpoint\":40}", "isAsync": true});
            client.tell(&json!({"do": "post", "path": "property-control-send", "body": body}));
            let token = client.saw("reply")["body"]["data"]["msgToken"].clone();
            assert!(token.is_string(), "{token}");
            // The vendor's word for an answer that is not there yet.
            let later = json!({"productID": "press", "deviceName": "press-1", "msgToken": token});
            let answered = async {
                loop {
                    client.tell(&json!({"do": "post", "path": "property-control-read", "body": later}));
                    let answer = client.saw("reply")["body"].clone();
                    if answer["code"] != 100_009 {
                        return answer;
                    }
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            };
            let answer = tokio::time::timeout(PATIENCE, answered).await.expect("an outcome in time");
            assert_eq!((&answer["code"], &answer["data"]["msgToken"]), (&json!(200), &token), "{answer}");
            client.tell(&json!({"do": "send", "message": {"type": "up.unSub", "body": {"code": "deviceConn", "params": {"projectID": "1"}}}}));
            assert_eq!(client.saw("unsubscribed")["code"], 200);
            world.restart("TERM").await;
            client.saw("closed");
        }
    }
    assert!(client.all("error").is_empty(), "{:?}", client.said);
}

// ---- Haier U+ ----

fn uplus(world: &World, key: &str, earliest: bool) -> Client {
    let topics: Vec<Json> = ["DEV_STATUS", "DEV_EVENT"]
        .into_iter()
        .map(|topic| json!({"topic": topic, "typeId": TYPE_ID}))
        .collect();
    Client::start(
        "uplus.mjs",
        &json!({
            "base": format!("ws://127.0.0.1:{}", world.port), "system": SYSTEM, "key": key,
            "earliest": earliest, "subscribe": topics, "silence": 300,
        }),
    )
}

fn ack(cmd: &'static str) -> impl Fn(&Json) -> bool {
    move |said| said["message"]["cmd"] == cmd
}

#[tokio::test]
async fn a_uplus_client_that_waits_for_nothing_is_served_in_order() {
    let world = World::start().await;
    let mut client = uplus(&world, SECRET, false);
    let first = client.saw("ack");
    assert_eq!(first["message"]["cmd"], "authenticate-ack", "the verdict comes first");
    assert_eq!(first["message"]["data"]["code"], "00000");
    let subscribed = client.saw("ack");
    assert_eq!(
        (&subscribed["message"]["cmd"], &subscribed["message"]["data"]["code"]),
        (&json!("subscribe-ack"), &json!("00000"))
    );
    world.heat(377);
    let push = client.saw_where("push", |said| said["message"]["data"]["status"]["temperature"] == "37.7");
    assert_eq!(
        (&push["message"]["topic"], &push["message"]["typeId"]),
        (&json!("DEV_STATUS"), &json!(TYPE_ID))
    );

    // With no report due, its silence makes it ask.
    client.saw_where("ack", ack("keepAlive-ack"));

    client.tell(&json!({"do": "send", "text": "{'cmd':'searchClient'}"}));
    let found = client.saw_where("ack", ack("searchClient-ack"));
    assert_eq!(found["message"]["data"]["retdata"].as_array().map(Vec::len), Some(2), "{found}");

    // The last relation of the system ends the session, and nothing in this client comes back from that.
    let list = json!([{"topic": "DEV_STATUS", "typeId": TYPE_ID}, {"topic": "DEV_EVENT", "typeId": TYPE_ID}]);
    client.tell(&json!({"do": "unsubscribe", "list": list}));
    assert_eq!(client.saw_where("ack", ack("unsubscribe-ack"))["message"]["data"]["code"], "00000");
    assert_eq!(client.saw("closed")["code"], 1000);
    client.ends();
}

#[tokio::test]
async fn a_uplus_client_comes_back_by_its_first_address() {
    let mut world = World::start().await;
    let mut client = uplus(&world, SECRET, false);
    for (signal, code) in [("TERM", 4500), ("KILL", 1006)] {
        client.saw_where("ack", ack("subscribe-ack"));
        world.restart(signal).await;
        assert_eq!(client.saw("closed")["code"], code, "after {signal}");
    }
    client.saw_where("ack", ack("subscribe-ack"));
    world.heat(288);
    client.saw_where("push", |said| said["message"]["data"]["status"]["temperature"] == "28.8");
}

#[tokio::test]
async fn a_uplus_client_with_a_wrong_key_is_told_and_stays_away() {
    let world = World::start().await;
    let mut client = uplus(&world, "wrong", false);
    let verdict = client.saw("ack");
    assert_eq!(
        (&verdict["message"]["cmd"], &verdict["message"]["data"]["code"]),
        (&json!("authenticate-ack"), &json!("00001"))
    );
    assert_eq!(client.saw("closed")["code"], 1008);
    client.ends();
    assert!(client.all("push").is_empty(), "{:?}", client.said);
}

// ---- Chromium ----

fn chromium(world: &World) -> Client {
    let chromium =
        ["/usr/bin/chromium", "/usr/bin/chromium-browser"].into_iter().find(|path| Path::new(path).exists());
    let pictures = Path::new(env!("CARGO_TARGET_TMPDIR")).join("pictures");
    std::fs::create_dir_all(&pictures).expect("a writable target folder");
    let mut client = Client::start(
        "browser.mjs",
        &json!({
            "chromium": chromium.expect("Chromium is installed (Debian package chromium; tests/run installs it)"),
            "gateway": world.base(), "token": SECRET, "id": SYSTEM, "uuid": UUID,
            "pictures": pictures, "patience": 60_000,
        }),
    );
    client.saw("ready");
    client
}

/// Ends the browser; nothing may have been complained of in any tab.
fn end(mut client: Client) {
    client.tell(&json!({"do": "end"}));
    client.ends();
    assert!(client.all("complaint").is_empty(), "{:?}", client.all("complaint"));
}

/// Waits for the value of a row of the page.
fn shows(client: &mut Client, device: &str, property: &str, text: &str) {
    client.tell(&json!({"do": "expect", "device": device, "property": property, "text": text}));
    client.saw("value");
}

#[tokio::test]
async fn the_page_shows_live_values_and_writes_in_a_real_browser() {
    let world = World::start().await;
    let mut client = chromium(&world);
    client.tell(&json!({"do": "open"}));
    let opened = client.saw("opened");
    assert!(!opened["address"].to_string().contains(SECRET), "the token leaves the address: {opened}");
    client.tell(&json!({"do": "state", "text": "connected"}));
    client.saw("state");
    shows(&mut client, "press-1", "temperature", "23.5");
    world.heat(815);
    shows(&mut client, "press-1", "temperature", "81.5");
    client.tell(&json!({"do": "see", "selector": ".alarm", "text": "too-hot"}));
    client.saw("seen");
    client.tell(&json!({"do": "picture", "name": "page-alarm"}));
    client.saw("picture");

    client.tell(&json!({"do": "write", "device": "press-1", "property": "setpoint", "typed": "20"}));
    assert_eq!(client.saw("written")["note"], "written and confirmed");
    assert_eq!(world.line.get(2, "holding", 100, 2), [0x0000, 0x41A0]);
    shows(&mut client, "press-1", "setpoint", "20");
    client.tell(&json!({"do": "write", "device": "press-2", "property": "setpoint", "typed": "warm"}));
    assert_ne!(client.saw("written")["note"], "written and confirmed");
    client.tell(&json!({"do": "call", "device": "press-1", "name": "reset", "inputs": "{\"code\": 4711}"}));
    assert_eq!(client.saw("called")["note"], "done");
    assert_eq!(world.line.get(2, "holding", 200, 1), [4711]);
    client.tell(&json!({"do": "picture", "name": "page-written"}));
    client.saw("picture");
    end(client);
}

#[tokio::test]
async fn the_page_fits_a_phone_in_the_dark() {
    let world = World::start().await;
    let mut client = chromium(&world);
    client.tell(&json!({"do": "open", "dark": true, "width": 390, "height": 844}));
    client.saw("opened");
    shows(&mut client, "press-1", "temperature", "23.5");
    client.tell(&json!({"do": "fits"}));
    let fits = client.saw("fits");
    assert_eq!(fits["overflow"], 0, "the page is wider than the phone: {fits}");
    client.tell(&json!({"do": "picture", "name": "page-phone"}));
    client.saw("picture");
    client.tell(&json!({"do": "login", "token": "wrong"}));
    client.tell(&json!({"do": "see", "selector": "#login-note", "text": "does not know this token"}));
    client.saw("seen");
    client.tell(&json!({"do": "picture", "name": "page-login"}));
    client.saw("picture");
    client.tell(&json!({"do": "end"}));
    client.ends();
}

#[tokio::test]
async fn the_page_comes_back_after_a_restart_of_the_gateway() {
    let mut world = World::start().await;
    let mut client = chromium(&world);
    client.tell(&json!({"do": "open"}));
    client.saw("opened");
    shows(&mut client, "press-1", "temperature", "23.5");
    world.restart("TERM").await;
    world.heat(299);
    shows(&mut client, "press-1", "temperature", "29.9");
    client.tell(&json!({"do": "state", "text": "connected"}));
    client.saw("state");
}

#[tokio::test]
async fn a_janus_page_of_another_origin_sees_messages_in_a_real_browser() {
    let world = World::start().await;
    let mut client = chromium(&world);
    client.tell(&json!({"do": "janus"}));
    assert!(
        client.saw("opened")["origin"].as_str().is_some_and(|origin| origin.starts_with("http://localhost:"))
    );
    client.tell(&json!({"do": "see", "selector": "#state", "text": "subscribed"}));
    client.saw("seen");
    client.tell(&json!({"do": "see", "selector": "#messages li", "text": "temperature"}));
    // The page does not learn when its subscription stands.
    let seen = client.saw_by("seen", |round| world.heat(400 + round));
    let seen = seen["text"].to_string();
    assert!(seen.contains(UUID), "{seen}");
    client.tell(&json!({"do": "picture", "name": "janus"}));
    client.saw("picture");
    end(client);
}
