//! The built binary between real counterparts: pymodbus units on a pseudo-terminal and a real mosquitto below, clients
//! of all five dialects above.

#![cfg(test)]

mod common;

use std::time::Duration;

use common::world::{READER, SECRET, SYSTEM, World};
use common::ws::{PATIENCE, Ws, http};
use serde_json::{Value as Json, json};
use sha2::{Digest, Sha256};

const UUID: &str = "AAAA-BBBB-CCCC-0001";
const TYPE_ID: &str = "101c1200240008101e0a00000141414100000000020000000000000000000000";

fn bearer() -> (&'static str, &'static str) {
    ("authorization", "Bearer a-secret-that-never-shows")
}

/// The path of a signed U+ login.
fn uplus_path(key: &str) -> String {
    let timestamp = "1700000000000";
    let sign = format!("{:x}", Sha256::digest(format!("{SYSTEM}{key}{timestamp}")));
    format!(
        "/wssubscriber/msgplatform/websocket?systemId={SYSTEM}&timestamp={timestamp}&sign={sign}\
         &isSubscribeEarliestMessage=false"
    )
}

async fn janus(world: &World, uuid: &str) -> (Ws, String) {
    let target = format!("/api/janus/websocket?token={SECRET}&uuid={uuid}");
    let (status, body) = http(world.port, "GET", &target, &[], "").await;
    assert_eq!(status, 200, "{body}");
    let reply: Json = serde_json::from_str(&body).expect("JSON");
    assert_eq!(reply["code"], 200, "{reply}");
    let address = reply["data"]["websocket"].as_str().expect("an address").to_owned();
    let path = address.strip_prefix(&format!("ws://127.0.0.1:{}", world.port)).expect("our own address");
    let topic = reply["data"]["topic"].as_str().expect("a topic").to_owned();
    let mut ws = Ws::connect(world.port, path).await;
    ws.send("CONNECT\naccept-version:1.1,1.0\nheart-beat:10000,10000\n\n\0").await;
    ws.wait_for("CONNECTED", |frame| frame.starts_with("CONNECTED\n")).await;
    ws.send(&format!("SUBSCRIBE\nid:sub-0\ndestination:{topic}\nreceipt:r\n\n\0")).await;
    ws.wait_for("the receipt", |frame| frame.starts_with("RECEIPT\n")).await;
    (ws, topic)
}

async fn sagoo(world: &World, topic: &str) -> Ws {
    let mut ws = Ws::connect(world.port, &format!("/messaging/{SECRET}")).await;
    ws.send(&json!({"id": "live", "type": "sub", "topic": topic}).to_string()).await;
    ws.send(r#"{"type":"ping","id":"p"}"#).await;
    ws.wait_json("pong", |frame| frame["type"] == "pong").await;
    ws
}

async fn ithings(world: &World, code: &str, params: Json) -> Ws {
    let path = format!("/api/v1/system/common/websocket/connect?token={SECRET}&app-code=core&project-id=1");
    let mut ws = Ws::connect(world.port, &path).await;
    ws.wait_json("the greeting", |frame| frame["handler"]["connectID"].is_string()).await;
    ws.send(&json!({"type": "up.sub", "body": {"code": code, "params": params}}).to_string()).await;
    ws.wait_json("the ack", |frame| frame["type"] == "down.subRet" && frame["code"] == 200).await;
    ws
}

async fn oam(world: &World, destinations: &[&str]) -> Ws {
    let mut ws = Ws::connect(world.port, "/ws").await;
    ws.send(&format!("CONNECT\naccept-version:1.2\nhost:localhost\npasscode:{SECRET}\n\n\0")).await;
    ws.wait_for("CONNECTED", |frame| frame.starts_with("CONNECTED\n")).await;
    for (at, destination) in destinations.iter().enumerate() {
        let frame = format!("SUBSCRIBE\nid:sub-{at}\ndestination:{destination}\nreceipt:r{at}\n\n\0");
        ws.send(&frame).await;
        ws.wait_for("the receipt", |frame| frame.starts_with("RECEIPT\n")).await;
    }
    ws
}

async fn uplus(world: &World, topics: &[&str]) -> Ws {
    let mut ws = Ws::connect(world.port, &uplus_path(SECRET)).await;
    ws.wait_json("the ack", |frame| frame["cmd"] == "authenticate-ack" && frame["data"]["code"] == "00000")
        .await;
    let subdata: Vec<Json> =
        topics.iter().map(|topic| json!({"topic": topic, "keys": {"typeId": [TYPE_ID]}})).collect();
    let command = json!({"cmd": "subscribe", "data": {"subdata": subdata}}).to_string();
    // The vendor's samples send single quotes.
    ws.send(&command.replace('"', "'")).await;
    ws.wait_json("the ack", |frame| frame["cmd"] == "subscribe-ack" && frame["data"]["code"] == "00000")
        .await;
    ws
}

/// Sends a sagoo command and returns its result, after seeing `complete`.
async fn sagoo_command(world: &World, device: &str, parameter: Json) -> Json {
    let mut ws = Ws::connect(world.port, &format!("/messaging/{SECRET}")).await;
    let topic = format!("/device-message-sender/press/{device}");
    let request = json!({"id": "c1", "type": "sub", "topic": topic, "parameter": parameter});
    ws.send(&request.to_string()).await;
    let result = ws.wait_json("the result", |frame| frame["type"] == "result").await;
    assert_eq!(result["requestId"], "c1");
    ws.wait_json("completion", |frame| frame["type"] == "complete" && frame["id"] == "c1").await;
    result["payload"].clone()
}

async fn ithings_call(world: &World, call: &str, body: Json) -> Json {
    let target = format!("/api/v1/things/device/interact/{call}");
    let headers = [("token", SECRET), ("content-type", "application/json")];
    let (status, body) = http(world.port, "POST", &target, &headers, &body.to_string()).await;
    assert_eq!(status, 200, "{body}");
    serde_json::from_str(&body).expect("JSON")
}

#[tokio::test]
async fn a_register_changed_in_the_slave_arrives_in_all_five_dialects() {
    let world = World::start().await;
    let (mut janus, topic) = janus(&world, UUID).await;
    let mut sagoo = sagoo(&world, "/device/press/press-1/**").await;
    let mut ithings =
        ithings(&world, "devicePropertyReport", json!({"productID": "press", "deviceName": "press-1"})).await;
    let mut alarms = oam(&world, &["/alarm"]).await;
    let mut samples = oam(&world, &["/stream/rs485/press-1"]).await;
    let mut service = oam(&world, &["/user/service"]).await;
    let mut uplus = uplus(&world, &["DEV_STATUS", "DEV_FAULT"]).await;

    world.line.set(2, "input", 10, &[815]);

    let body = janus.wait_body("janus", &topic, |body| body["data"]["temperature"] == 81.5).await;
    assert_eq!(body["uuid"], UUID);
    let frame = sagoo.wait_json("sagoo", |frame| frame["payload"]["properties"]["temperature"] == 81.5).await;
    assert_eq!(frame["topic"], "/device/press/press-1/message/property/report");
    let push = ithings.wait_json("ithings", |push| push["body"]["param"] == 81.5).await;
    assert_eq!(push["body"]["identifier"], "temperature");
    assert_eq!(push["path"], "devicePropertyReport");
    let alarm = alarms.wait_body("the oam alarm", "/alarm", |alarm| alarm["metric"] == "TEMPERATURE").await;
    assert_eq!(alarm["mediaId"], "press-1", "{alarm}");
    let sample = samples
        .wait_body("oam samples", "/stream/rs485/press-1", |samples| {
            samples.as_array().is_some_and(|all| all.iter().any(|sample| sample["TEMPERATURE"] == 81.5))
        })
        .await;
    assert!(sample.is_array());
    let metrics =
        oam_call(&mut service, "/api/stream/metrics", json!({"node": "rs485", "mediaId": "press-1"})).await;
    assert!(metrics["payload"].to_string().contains("81.5"), "{metrics}");
    let push = uplus.wait_json("uplus", |push| push["data"]["status"]["temperature"] == "81.5").await;
    assert_eq!((&push["topic"], &push["typeId"]), (&json!("DEV_STATUS"), &json!(TYPE_ID)));
}

/// A request over STOMP and its reply.
async fn oam_call(ws: &mut Ws, realm: &str, payload: Json) -> Json {
    let body = json!({"requestId": "q1", "realm": realm, "payload": payload}).to_string();
    ws.send(&format!("SEND\ndestination:/app{realm}\ncontent-length:{}\n\n{body}\0", body.len())).await;
    ws.wait_body("the reply", "/user/service", |reply| reply["requestId"] == "q1").await
}

#[tokio::test]
async fn a_write_from_sagoo_changes_the_register_of_the_independent_slave() {
    let world = World::start().await;
    let write = json!({"messageType": "WRITE_PROPERTY", "properties": {"setpoint": 20}});
    let payload = sagoo_command(&world, "press-1", write).await;
    assert_eq!(payload["success"], true, "{payload}");
    assert_eq!(payload["properties"]["setpoint"], 20.0);
    // 20.0 as f32 with swapped words.
    assert_eq!(world.line.get(2, "holding", 100, 2), [0x0000, 0x41A0]);

    let write = json!({"messageType": "WRITE_PROPERTY", "properties": {"running": true}});
    assert_eq!(sagoo_command(&world, "press-1", write).await["success"], true);
    assert_eq!(world.line.get(2, "coil", 3, 1), [1]);

    let read = json!({"messageType": "READ_PROPERTY", "properties": ["setpoint"], "meta": {"async": false}});
    let payload = sagoo_command(&world, "press-1", read).await;
    assert_eq!(payload["setpoint"], 20.0, "{payload}");
}

/// Writes over a connection that stays open, with a lease.
async fn leased_write(world: &World, property: &str, value: u16, lease: &str) -> Ws {
    let mut ws = Ws::connect(world.port, &format!("/messaging/{SECRET}")).await;
    let parameter = json!({
        "messageType": "WRITE_PROPERTY", "properties": {property: value}, "headers": {"lease": lease},
    });
    let topic = "/device-message-sender/press/press-1";
    ws.send(&json!({"id": "l", "type": "sub", "topic": topic, "parameter": parameter}).to_string()).await;
    let result = ws.wait_json("the result", |frame| frame["type"] == "result").await;
    assert_eq!(result["payload"]["success"], true, "{result}");
    ws
}

/// Waits until registers of the press hold this.
async fn until_registers(world: &World, address: u16, words: &[u64]) {
    let holds = async {
        while world.line.get(2, "holding", address, words.len().try_into().expect("few")) != words {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, holds).await.expect("the registers are written in time");
}

/// 50.0 as f32 with swapped words: what is safe for the setpoint.
const SAFE: [u64; 2] = [0x0000, 0x4248];

#[tokio::test]
async fn a_sagoo_client_that_is_killed_leaves_the_safe_value_in_the_register() {
    let world = World::start().await;
    let ws = leased_write(&world, "setpoint", 20, "session").await;
    assert_eq!(world.line.get(2, "holding", 100, 2), [0x0000, 0x41A0]);
    // Without a goodbye, as the kernel does for a process that is killed.
    drop(ws);
    until_registers(&world, 100, &SAFE).await;
    // The journal says who, from where, what it was and what it is; the safe value came from nowhere.
    for fields in [
        r#"client="SV-EDGE-0001" peer="127.0.0.1" dialect="sagoo" device="press-1" property="setpoint" before="50" wanted="20" after="20" outcome="confirmed""#,
        r#"client="lease of SV-EDGE-0001" device="press-1" property="setpoint" before="20" wanted="50" after="50" outcome="confirmed""#,
    ] {
        world.pentad.until_logged(&format!(" write {fields}")).await;
    }
}

#[tokio::test]
async fn what_is_leased_is_made_safe_at_a_stop_and_after_a_crash() {
    let mut world = World::start().await;
    let _kept = leased_write(&world, "setpoint", 20, "10m").await;
    world.restart("TERM").await;
    assert_eq!(world.line.get(2, "holding", 100, 2), SAFE, "before the drivers ended");
    // The product gives this one two seconds, and the process is killed before.
    let _kept = leased_write(&world, "limit", 7, "10m").await;
    world.restart("KILL").await;
    until_registers(&world, 102, &[0]).await;
    world.pentad.until_logged(r#" write client="start of the gateway""#).await;
}

#[tokio::test]
async fn a_write_from_ithings_changes_the_register_of_the_independent_slave() {
    let world = World::start().await;
    let data = json!({"setpoint": 75.5, "running": 1}).to_string();
    let body = json!({"productID": "press", "deviceName": "press-2", "data": data});
    let reply = ithings_call(&world, "property-control-send", body).await;
    assert_eq!((&reply["code"], &reply["data"]["code"]), (&json!(200), &json!(200)), "{reply}");
    assert_eq!(world.line.get(3, "holding", 100, 2), [0x0000, 0x4297]);
    assert_eq!(world.line.get(3, "coil", 3, 1), [1]);
}

#[tokio::test]
async fn an_invoke_runs_the_steps_of_the_function_in_both_dialects_that_have_one() {
    let world = World::start().await;
    let invoke = json!({"messageType": "INVOKE_FUNCTION", "functionId": "reset", "inputs": [{"name": "code", "value": 4711}]});
    let payload = sagoo_command(&world, "press-1", invoke).await;
    assert_eq!(payload["success"], true, "{payload}");
    assert_eq!(
        (world.line.get(2, "holding", 200, 1), world.line.get(2, "coil", 9, 1)),
        (vec![4711], vec![1])
    );

    let body = json!({"productID": "press", "deviceName": "press-2", "actionID": "reset", "inputParams": r#"{"code":7}"#});
    let reply = ithings_call(&world, "action-send", body).await;
    assert_eq!((&reply["code"], &reply["data"]["code"]), (&json!(200), &json!(200)), "{reply}");
    assert_eq!((world.line.get(3, "holding", 200, 1), world.line.get(3, "coil", 9, 1)), (vec![7], vec![1]));
}

#[tokio::test]
async fn an_mqtt_device_reports_and_a_write_is_published_to_its_command_topic() {
    let world = World::start().await;
    let mut live = sagoo(&world, "/device/plug/plug-1/**").await;
    world.broker.publish("tele/plug-1/SENSOR", r#"{"ENERGY":{"Total":12.75,"Power":3}}"#, false);
    live.wait_json("energy", |frame| frame["payload"]["properties"]["energy"] == 12.75).await;
    world.broker.publish("stat/plug-1/POWER", "ON", false);
    live.wait_json("power", |frame| frame["payload"]["properties"]["power"] == true).await;

    let commands = world.broker.subscribe("cmnd/plug-1/#");
    let write = json!({"messageType": "WRITE_PROPERTY", "properties": {"power": false}});
    let payload = sagoo_command(&world, "plug-1", write).await;
    assert_eq!(payload["success"], true, "{payload}");
    assert_eq!(commands.next(), "cmnd/plug-1/POWER OFF");
}

#[tokio::test]
async fn a_silent_slave_goes_offline_in_every_dialect_and_comes_back_without_a_hand() {
    let world = World::start().await;
    let mut sagoo = sagoo(&world, "/device/press/press-1/*").await;
    let mut ithings =
        ithings(&world, "deviceConn", json!({"productID": "press", "deviceName": "press-1"})).await;
    let mut uplus = uplus(&world, &["DEV_EVENT"]).await;

    world.line.fault("mute", 2);
    let frame = sagoo.wait_json("offline", |frame| frame["payload"]["messageType"] == "OFFLINE").await;
    assert_eq!(frame["topic"], "/device/press/press-1/offline");
    ithings.wait_json("offline", |push| push["body"]["status"] == 2).await;
    uplus.wait_json("offline", |push| push["data"]["online"] == "0").await;

    let write = json!({"messageType": "WRITE_PROPERTY", "properties": {"setpoint": 1}});
    let payload = sagoo_command(&world, "press-1", write.clone()).await;
    assert_eq!(
        (&payload["success"], &payload["code"]),
        (&json!(false), &json!("CLIENT_OFFLINE")),
        "{payload}"
    );
    // The neighbour on the same line is served all the time.
    assert_eq!(sagoo_command(&world, "press-2", write).await["success"], true);

    world.line.fault("unmute", 2);
    sagoo.wait_json("online", |frame| frame["payload"]["messageType"] == "ONLINE").await;
    ithings.wait_json("online", |push| push["body"]["status"] == 1).await;
    uplus.wait_json("online", |push| push["data"]["online"] == "1").await;
}

#[tokio::test]
async fn a_late_or_garbled_answer_never_becomes_a_value() {
    let world = World::start_with("200ms").await;
    world.line.set(3, "input", 10, &[999]);
    let mut live = sagoo(&world, "/device/press/*/message/property/report").await;
    for round in 0..10 {
        // Later than the timeout, so that the answer falls into the next exchanges.
        world.line.tell(&json!({"do": "late", "unit": 2, "seconds": 0.25}));
        world.line.fault("garble", 3);
        let value = 300 + round;
        world.line.set(2, "input", 10, &[value]);
        let expected = f64::from(value) / 10.0;
        let frame = live
            .wait_json("the new value", |frame| {
                let temperature = &frame["payload"]["properties"]["temperature"];
                let device = &frame["payload"]["deviceId"];
                assert!(
                    temperature.is_null() || device == "press-1" || temperature == 99.9,
                    "an answer of another unit was taken: {frame}"
                );
                temperature == expected
            })
            .await;
        assert_eq!(frame["payload"]["deviceId"], "press-1");
    }
}

#[tokio::test]
async fn an_unplugged_adapter_is_found_again_without_a_restart() {
    let world = World::start().await;
    let mut live = sagoo(&world, "/device/press/press-1/**").await;
    world.line.fault("unplug", 0);
    live.wait_json("offline", |frame| frame["payload"]["messageType"] == "OFFLINE").await;
    world.line.set(2, "input", 10, &[333]);
    world.line.fault("plug", 0);
    live.wait_json("the new value", |frame| frame["payload"]["properties"]["temperature"] == 33.3).await;
}

#[tokio::test]
async fn what_was_on_the_line_is_written_on_a_signal_and_after_a_fault_and_given_to_loopback() {
    let world = World::start().await;
    let captures = world.folder.path().join("captures");
    let count = || {
        let names = std::fs::read_dir(&captures).into_iter().flatten().filter_map(Result::ok);
        names.filter(|entry| entry.path().extension().is_some_and(|extension| extension == "pcapng")).count()
    };
    let written = async |least: usize| {
        while count() < least {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    world.pentad.signal("USR1");
    tokio::time::timeout(PATIENCE, written(1)).await.expect("a capture is written on SIGUSR1");
    let (status, body) = http(world.port, "GET", "/captures/rs485.pcapng", &[], "").await;
    assert_eq!(status, 200);
    assert!(body.contains("mbrtu"), "a capture names its dissector");
    let (status, _) = http(world.port, "GET", "/captures/nothing.pcapng", &[], "").await;
    assert_eq!(status, 404);

    world.line.fault("mute", 2);
    tokio::time::timeout(PATIENCE, written(2)).await.expect("a capture is written after a fault");
}

#[tokio::test]
async fn a_broker_that_is_killed_and_restarted_is_used_again() {
    let mut world = World::start().await;
    let mut live = sagoo(&world, "/device/plug/plug-1/**").await;
    world.broker.publish("stat/plug-1/POWER", "ON", false);
    live.wait_json("power", |frame| frame["payload"]["properties"]["power"] == true).await;
    world.broker.kill();
    live.wait_json("offline", |frame| frame["payload"]["messageType"] == "OFFLINE").await;
    world.broker.restart();
    world.broker.publish("tele/plug-1/LWT", "Online", true);
    live.wait_json("online", |frame| frame["payload"]["messageType"] == "ONLINE").await;
    world.broker.publish("stat/plug-1/POWER", "OFF", false);
    live.wait_json("power", |frame| frame["payload"]["properties"]["power"] == false).await;
}

#[tokio::test]
async fn bad_credentials_are_refused_in_the_words_of_each_dialect() {
    let world = World::start().await;
    let target = format!("/api/janus/websocket?token=wrong&uuid={UUID}");
    let (_, body) = http(world.port, "GET", &target, &[], "").await;
    assert!(body.contains(r#""code":401"#), "{body}");
    let target = format!("/api/janus/websocket?token={SECRET}&uuid=0000-0000-0000-0000");
    let (_, body) = http(world.port, "GET", &target, &[], "").await;
    assert!(body.contains(r#""code":1003"#), "{body}");

    let mut ws = Ws::connect(world.port, "/messaging/wrong").await;
    let frame: Json = serde_json::from_str(&ws.next().await.expect("a frame")).expect("JSON");
    assert_eq!(frame["type"], "authError");
    assert_eq!(ws.next().await, Err(1007));

    let upgrade = [
        ("connection", "Upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    let target = "/api/v1/system/common/websocket/connect?token=wrong";
    let (status, body) = http(world.port, "GET", target, &upgrade, "").await;
    assert_eq!(status, 401, "{body}");

    let (status, _) = http(world.port, "POST", "/api/metric/list", &[], "{}").await;
    assert_eq!(status, 401);
    let (status, body) = http(world.port, "POST", "/api/metric/list", &[bearer()], "{}").await;
    assert_eq!(status, 200, "{body}");

    let mut ws = Ws::connect(world.port, &uplus_path("wrong")).await;
    let frame: Json = serde_json::from_str(&ws.next().await.expect("a frame")).expect("JSON");
    assert_eq!((&frame["cmd"], &frame["data"]["code"]), (&json!("authenticate-ack"), &json!("00001")));
    assert_eq!(ws.next().await, Err(1008));
}

#[tokio::test]
async fn bad_commands_are_answered_and_touch_no_register() {
    let world = World::start().await;
    let before = world.line.get(2, "holding", 100, 2);
    let write = |property: &str, value: Json| json!({"messageType": "WRITE_PROPERTY", "properties": {property: value}});
    for (parameter, code) in [
        (write("temperature", json!(1)), "PARAMETER_ERROR"),
        (write("setpoint", json!(100.5)), "PARAMETER_ERROR"),
        (write("setpoint", json!("warm")), "PARAMETER_ERROR"),
        (write("colour", json!(1)), "PROPERTY_UNDEFINED"),
        (
            json!({"messageType": "INVOKE_FUNCTION", "functionId": "explode", "inputs": []}),
            "FUNCTION_UNDEFINED",
        ),
        (json!({"messageType": "INVOKE_FUNCTION", "functionId": "reset", "inputs": []}), "PARAMETER_ERROR"),
    ] {
        let payload = sagoo_command(&world, "press-1", parameter.clone()).await;
        assert_eq!(
            (&payload["success"], &payload["code"]),
            (&json!(false), &json!(code)),
            "{parameter} {payload}"
        );
    }
    let payload = sagoo_command(&world, "nobody", write("setpoint", json!(1))).await;
    assert_eq!(payload["success"], false, "{payload}");
    assert_eq!(world.line.get(2, "holding", 100, 2), before);

    let mut reader = Ws::connect(world.port, &format!("/messaging/{READER}")).await;
    let request = json!({"id": "x", "type": "sub", "topic": "/device-message-sender/press/press-1", "parameter": write("setpoint", json!(1))});
    reader.send(&request.to_string()).await;
    let result = reader.wait_json("the result", |frame| frame["type"] == "result").await;
    assert_eq!(result["payload"]["success"], false, "{result}");
    assert_eq!(world.line.get(2, "holding", 100, 2), before);
}

#[tokio::test]
async fn a_terminated_gateway_says_goodbye_and_logs_no_secret() {
    let mut world = World::start().await;
    let mut sagoo = sagoo(&world, "/device/press/press-1/**").await;
    let (janus, _) = janus(&world, UUID).await;
    world.pentad.signal("TERM");
    let closed = loop {
        if let Err(code) = sagoo.next().await {
            break code;
        }
    };
    assert!((1000..=1001).contains(&closed), "closed with {closed}");
    assert_eq!(world.pentad.exit_code().await, Some(0), "{}", world.pentad.log());
    drop(janus);
    let log = world.pentad.log();
    for secret in [SECRET, READER, "ticket=", "sign="] {
        assert!(!log.contains(secret), "the log shows {secret}");
    }
}

/// Killed without a word, so that only what was handed over to the store can be there again.
#[tokio::test]
async fn what_clients_created_and_what_was_survives_a_restart() {
    let mut world = World::start().await;
    let mut ws = oam(&world, &["/user/service", "/alarm"]).await;
    for (realm, payload) in [
        ("/api/rule/create", json!({"type": "1", "name": "presses", "value": "press-*", "profiles": []})),
        ("/api/profile/create", json!({"name": "p", "rate": "30", "metrics": ["SETPOINT"], "rules": ["1"]})),
        ("/api/node/update", json!({"id": "rs485", "profiles": ["1"]})),
        (
            "/api/alarm/create",
            json!({"type": 1, "name": "warm", "value": 60, "metric": "TEMPERATURE", "time": 1}),
        ),
    ] {
        let reply = oam_call(&mut ws, realm, payload).await;
        assert_eq!(reply["status"], 200, "{realm}: {reply}");
    }
    let raised = |alarm: &Json, state: &str| alarm["name"] == "warm" && alarm["state"] == state;
    world.heat(650);
    ws.wait_body("the alarm", "/alarm", |alarm| raised(alarm, "raised")).await;
    world.heat(205);
    ws.wait_body("its end", "/alarm", |alarm| raised(alarm, "cleared")).await;
    let lists = ["/api/rule/list", "/api/profile/list", "/api/node/list", "/api/alarm/list"];
    let mut before = Vec::new();
    for realm in lists {
        before.push(oam_call(&mut ws, realm, json!({})).await["payload"].clone());
    }
    assert_eq!(before[1], json!([{"id": 1, "name": "p", "rate": 30, "metrics": [5], "rules": [1]}]));

    world.stored(&[65.0, 20.5]).await;

    world.restart("KILL").await;
    let mut ws = oam(&world, &["/user/service", "/alarm", "/stream/rs485/press-1"]).await;
    for (realm, before) in lists.into_iter().zip(before) {
        assert_eq!(oam_call(&mut ws, realm, json!({})).await["payload"], before, "{realm}");
    }
    let batch = ws.wait_body("samples", "/stream/rs485/press-1", |_| true).await;
    assert_eq!(batch[0]["SETPOINT"], 50.0, "{batch}");
    assert_eq!(
        batch[0].as_object().map(serde_json::Map::len),
        Some(2),
        "only what the profile names: {batch}"
    );
    world.heat(661);
    ws.wait_body("the alarm again", "/alarm", |alarm| raised(alarm, "raised")).await;

    world.stored(&[65.0, 20.5, 66.1]).await;
    let history = oam_call(&mut ws, "/api/stream/history", json!({"mediaId": "press-1"})).await;
    let statuses: Vec<&Json> =
        history["payload"].as_array().into_iter().flatten().map(|e| &e["status"]).collect();
    assert_eq!(statuses, ["UNPUBLISHED", "PUBLISHING"], "{history}");

    let target =
        format!("/api/device/data?token={SECRET}&uuid={UUID}&start=2020-01-01+00:00:00&fields=temperature");
    let (_, body) = http(world.port, "GET", &target, &[], "").await;
    let reply: Json = serde_json::from_str(&body).expect("JSON");
    assert_eq!(reply["code"], 200, "{body}");
    let rows = reply["data"]["datas"].as_array().expect("rows");
    assert_eq!(reply["data"]["count"], rows.len(), "{body}");
    assert!(rows.iter().any(|row| row["data"] == json!({"temperature": 65.0})), "{body}");
}

#[tokio::test]
async fn a_second_signal_ends_the_gateway_without_waiting_for_its_clients() {
    let mut world = World::start().await;
    // A client that answers nothing, so that the goodbye takes its whole second.
    let silent = sagoo(&world, "/device/press/press-1/**").await;
    // Both are there when it runs again, so that the second one does not come after that second on a busy machine.
    for signal in ["STOP", "TERM", "INT", "CONT"] {
        world.pentad.signal(signal);
    }
    assert_eq!(world.pentad.exit_code().await, Some(1), "{}", world.pentad.log());
    assert!(world.pentad.log().contains("stopping at once"), "{}", world.pentad.log());
    assert!(!world.pentad.log().contains("everything has stopped"), "{}", world.pentad.log());
    drop(silent);
}
