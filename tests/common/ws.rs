//! A plain WebSocket and HTTP client for the tests, with a deadline on everything.

use std::fmt::Write as _;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::Value as Json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

/// Longer than anything that is waited for on a loaded machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub struct Ws {
    socket: WebSocketStream<TcpStream>,
}

impl Ws {
    /// Connects; a refused upgrade panics with the server's answer.
    pub async fn connect(port: u16, path: &str) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).await.expect("the gateway listens");
        Self::over(stream, port, path).await
    }

    /// The same over a connection that stands.
    pub async fn over(stream: TcpStream, port: u16, path: &str) -> Self {
        let request = format!("ws://127.0.0.1:{port}{path}").into_client_request().expect("an address");
        let (socket, _) = timeout(PATIENCE, tokio_tungstenite::client_async(request, stream))
            .await
            .expect("the upgrade is answered in time")
            .unwrap_or_else(|error| panic!("upgrading {path}: {error}"));
        Self { socket }
    }

    pub async fn send(&mut self, text: &str) {
        self.socket.send(Message::text(text)).await.expect("the connection takes a message");
    }

    /// The next text message, or the close code.
    pub async fn next(&mut self) -> Result<String, u16> {
        loop {
            let message = timeout(PATIENCE, self.socket.next()).await.expect("a message arrives in time");
            match message {
                Some(Ok(Message::Text(text))) => return Ok(text.to_string()),
                Some(Ok(Message::Close(frame))) => return Err(frame.map_or(1005, |frame| frame.code.into())),
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Err(1006),
            }
        }
    }

    /// The next text message that the predicate picks; passes over others.
    pub async fn wait_for(&mut self, what: &str, pick: impl Fn(&str) -> bool) -> String {
        let search = async {
            loop {
                match self.next().await {
                    Ok(text) if pick(&text) => return text,
                    Ok(_) => {}
                    Err(code) => panic!("closed with {code} while waiting for {what}"),
                }
            }
        };
        timeout(PATIENCE, search).await.unwrap_or_else(|_| panic!("waited in vain for {what}"))
    }

    /// Like `wait_for`, on messages that are JSON.
    pub async fn wait_json(&mut self, what: &str, pick: impl Fn(&Json) -> bool) -> Json {
        let text = self.wait_for(what, |text| serde_json::from_str(text).is_ok_and(|json| pick(&json))).await;
        serde_json::from_str(&text).expect("JSON")
    }

    /// Like `wait_json`, on the bodies of STOMP frames to one destination.
    pub async fn wait_body(&mut self, what: &str, destination: &str, pick: impl Fn(&Json) -> bool) -> Json {
        let line = format!("\ndestination:{destination}\n");
        let body = |text: &str| -> Option<Json> {
            let (head, body) = text.strip_suffix('\0')?.split_once("\n\n")?;
            (format!("{head}\n").contains(&line)).then(|| serde_json::from_str(body).ok())?
        };
        let text = self.wait_for(what, |text| body(text).is_some_and(|json| pick(&json))).await;
        body(&text).expect("a body")
    }
}

/// One HTTP/1.1 call; status and body.
pub async fn http(
    port: u16,
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> (u16, String) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.expect("the gateway listens");
    let mut request =
        format!("{method} {target} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nconnection: close\r\n");
    for (name, value) in headers {
        write!(request, "{name}: {value}\r\n").expect("a string takes all");
    }
    write!(request, "content-length: {}\r\n\r\n{body}", body.len()).expect("a string takes all");
    stream.write_all(request.as_bytes()).await.expect("the gateway reads");
    let mut answer = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("an answer in time").expect("an answer");
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status line");
    (status, body.to_owned())
}
