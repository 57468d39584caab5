//! A whole gateway in the process of a test, whose configuration is text, and sessions of all five dialects with it.

use pentad::app::{App, Applied, Control, Refusal};
use pentad::clock;
use pentad::config::{Config, Source, resolve};
use pentad::dialects::uplus;
use pentad::model::client::Dialect;
use pentad::supervisor::Ending;
use serde_json::json;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::ws::{PATIENCE, Ws};

pub fn config(text: &str) -> Config {
    let source = Source { name: "pentad.toml".into(), text: text.to_owned() };
    resolve(&[source]).unwrap_or_else(|problems| panic!("{problems}\n{text}")).config
}

pub struct Gateway {
    pub control: Control,
    pub port: u16,
    stop: CancellationToken,
    ending: JoinHandle<Ending>,
}

impl Gateway {
    /// A gateway that listens on one port beside what the text says.
    #[expect(clippy::disallowed_methods, reason = "a test that runs the whole application is its supervisor")]
    pub fn start(text: &str) -> Self {
        let app = App::build(config(&served(text))).unwrap();
        let port = app.addresses()[0].address.port();
        let (control, stop) = (app.control(), CancellationToken::new());
        let ending = tokio::spawn(app.run(stop.clone()));
        Self { control, port, stop, ending }
    }

    pub async fn reload(&self, text: &str) -> Result<Applied, Refusal> {
        tokio::time::timeout(PATIENCE, self.control.reload(config(&served(text)))).await.unwrap()
    }

    pub async fn stop(self) {
        self.stop.cancel();
        assert_eq!(tokio::time::timeout(PATIENCE, self.ending).await.unwrap().unwrap(), Ending::Stopped);
    }

    /// A session whose subscription stands.
    pub async fn sagoo(&self, secret: &str, topic: &str) -> Ws {
        let mut ws = Ws::connect(self.port, &format!("/messaging/{secret}")).await;
        ws.send(&json!({"id": "live", "type": "sub", "topic": topic}).to_string()).await;
        ws.send(&json!({"id": "p", "type": "ping"}).to_string()).await;
        ws.wait_json("the pong", |frame| frame["type"] == "pong").await;
        ws
    }

    pub async fn stomp(&self, path: &str) -> Ws {
        let mut ws = Ws::connect(self.port, path).await;
        ws.send("CONNECT\naccept-version:1.2\nhost:h\n\n\0").await;
        ws.wait_for("the STOMP greeting", |text| text.starts_with("CONNECTED")).await;
        ws
    }

    pub async fn ithings(&self, secret: &str) -> Ws {
        let path =
            format!("/api/v1/system/common/websocket/connect?token={secret}&app-code=core&project-id=1");
        let mut ws = Ws::connect(self.port, &path).await;
        ws.wait_json("the greeting", |frame| frame["handler"]["connectID"].is_string()).await;
        ws
    }

    /// A session of all statuses of products of this type.
    pub async fn uplus_statuses(&self, text: &str, client: &str, type_id: &str) -> Ws {
        let mut ws = self.uplus(text, client).await;
        let statuses = json!([{"topic": "DEV_STATUS", "keys": {"typeId": [type_id]}}]);
        ws.send(&json!({"cmd": "subscribe", "data": {"subdata": statuses}}).to_string()).await;
        ws.wait_json("the answer to the subscription", |frame| frame["cmd"] == "subscribe-ack").await;
        ws
    }

    pub async fn uplus(&self, text: &str, client: &str) -> Ws {
        let config = config(text);
        let client = config.clients.by_id(Dialect::Uplus, client).unwrap();
        let query = uplus::signed_query(client, clock::wall());
        let mut ws = Ws::connect(self.port, &format!("{}?{query}", uplus::PATH)).await;
        ws.wait_json("the login's answer", |frame| frame["data"]["code"] == "00000").await;
        ws
    }
}

fn served(text: &str) -> String {
    if text.contains("[server]") {
        return text.to_owned();
    }
    format!("{text}\n[server]\nlisten = [\"127.0.0.1:0\"]\n")
}
