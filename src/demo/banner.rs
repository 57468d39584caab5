//! What the demo prints when it is up: one thing to try for each dialect, to be copied and pasted.
//!
//! The lines run in a shell with curl, and with `npx wscat` from npm as one of many WebSocket clients. What is to be
//! sent over a connection stands below the line that opens it.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;

use super::CREDENTIAL;
use crate::clock;
use crate::config::Config;
use crate::dialects::uplus;
use crate::model::client::Dialect;

/// One thing to try.
struct Try {
    dialect: Dialect,
    lines: Vec<String>,
}

/// The whole text. `listen` is where the gateway really listens.
pub(super) fn banner(config: &Config, port: &Path, broker: SocketAddr, listen: SocketAddr) -> String {
    let mut text = format!(
        "pentad demo: Modbus units on {port}, an MQTT broker on mqtt://{broker}\n\n\
         web page   http://{listen}/#token={CREDENTIAL}&id={CREDENTIAL}\n",
        port = port.display(),
    );
    for Try { dialect, lines } in tries(config, listen) {
        text.push('\n');
        for (at, line) in lines.iter().enumerate() {
            let name = if at == 0 { dialect.name() } else { "" };
            // Writing to a string cannot fail.
            writeln!(text, "{name:<10} {line}").unwrap_or_default();
        }
    }
    text
}

fn tries(config: &Config, listen: SocketAddr) -> Vec<Try> {
    let meter = config.devices.first().map_or("", |device| &device.uuid);
    let signed = config
        .clients
        .by_id(Dialect::Uplus, CREDENTIAL)
        .map(|client| uplus::signed_query(client, clock::wall()))
        .unwrap_or_default();
    let a_try = |dialect, lines: &[String]| Try { dialect, lines: lines.to_vec() };
    vec![
        a_try(
            Dialect::Janus,
            &[
                format!("curl 'http://{listen}/api/janus/websocket?token={CREDENTIAL}&uuid={meter}'"),
                "then STOMP at the address in the answer (\\n is a line's end, ^@ the byte NUL):".to_owned(),
                "CONNECT\\naccept-version:1.2\\nhost:demo\\n\\n^@".to_owned(),
                format!("SUBSCRIBE\\nid:0\\ndestination:/websocket/deviceData/{meter}\\n\\n^@"),
            ],
        ),
        a_try(
            Dialect::Sagoo,
            &[
                format!("npx wscat -c 'ws://{listen}/messaging/{CREDENTIAL}'"),
                r#"{"id":"1","type":"sub","topic":"/device/*/*/**"}"#.to_owned(),
                sagoo("2", r#""messageType":"READ_PROPERTY","properties":["temperature"]"#),
                sagoo("3", r#""messageType":"WRITE_PROPERTY","properties":{"setpoint":20}"#),
                sagoo(
                    "4",
                    r#""messageType":"INVOKE_FUNCTION","functionId":"reset","inputs":[{"name":"code","value":7}]"#,
                ),
            ],
        ),
        a_try(
            Dialect::Ithings,
            &[
                format!(
                    "npx wscat -H 'token: {CREDENTIAL}' -c 'ws://{listen}/api/v1/system/common/websocket/connect'"
                ),
                concat!(
                    r#"{"type":"up.sub","body":{"code":"devicePropertyReportV2","#,
                    r#""params":{"productID":"press","deviceName":"press-1"}}}"#,
                )
                .to_owned(),
                format!(
                    "curl -H 'token: {CREDENTIAL}' -H 'content-type: application/json' \
                 'http://{listen}/api/v1/things/device/interact/property-control-send' \
                 -d '{}'",
                    r#"{"productID":"press","deviceName":"press-1","data":"{\"setpoint\":30}"}"#
                ),
            ],
        ),
        a_try(
            Dialect::Oam,
            &[
                format!("curl -d '{{}}' 'http://{listen}/api/metric/list'"),
                format!("or STOMP at ws://{listen}/ws:"),
                "CONNECT\\naccept-version:1.2\\nhost:demo\\n\\n^@".to_owned(),
                "SUBSCRIBE\\nid:sub-0\\ndestination:/alarm\\n\\n^@".to_owned(),
            ],
        ),
        a_try(
            Dialect::Uplus,
            &[
                format!("npx wscat -c 'ws://{listen}{}?{signed}'", uplus::PATH),
                "{'cmd':'subscribe','data':{'subdata':[{'topic':'DEV_STATUS','keys':{'typeId':['*']}}]}}"
                    .to_owned(),
            ],
        ),
    ]
}

/// A command of the SagooIoT dialect to the press.
fn sagoo(id: &str, parameter: &str) -> String {
    format!(
        r#"{{"id":"{id}","type":"sub","topic":"/device-message-sender/press/press-1","parameter":{{{parameter},"headers":{{"async":false}}}}}}"#
    )
}
