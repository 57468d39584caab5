//! The way of the bytes to a broker: TCP, perhaps TLS upon it, perhaps a WebSocket upon that.
//!
//! What comes out is a pair of byte streams, whichever way was taken. What travels in them it does not know.

use std::fmt;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt, future};
use http::HeaderValue;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task;
use tokio_rustls::TlsConnector;
use tokio_tungstenite::client_async_with_config;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{self, Error as WebError, Message};
use tokio_util::io::{CopyToBytes, SinkWriter, StreamReader};

use super::packet::LARGEST_PACKET;
use super::tls;
use super::{BrokerSettings, Transport};
use crate::tls::TlsError;

/// Bytes that a WebSocket reads at once. Its default takes 128 KiB for each connection.
const WEB_BUFFER: usize = 16 << 10;

/// Both directions of a connection.
pub struct Pipe {
    /// From the broker.
    pub reader: Box<dyn AsyncRead + Send + Unpin>,
    /// To the broker; what is written travels with the next flush at the latest.
    pub writer: Box<dyn AsyncWrite + Send + Unpin>,
}

impl fmt::Debug for Pipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pipe").finish_non_exhaustive()
    }
}

/// Why there is no way to the broker.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// TCP.
    #[error("{0}")]
    Connect(#[source] io::Error),
    /// What our side of TLS is made of.
    #[error("TLS cannot be set up")]
    Setup(#[source] TlsError),
    /// The handshake.
    #[error("{0}")]
    Handshake(String),
    /// The upgrade.
    #[error("{0}")]
    Upgrade(String),
}

/// Opens the way. The caller sets the time limit.
pub async fn open(settings: &BrokerSettings) -> Result<Pipe, OpenError> {
    let host = settings.host.as_ref();
    let tcp = TcpStream::connect((host, settings.port)).await.map_err(OpenError::Connect)?;
    // Otherwise a small packet waits for the acknowledgement of the one before, up to forty milliseconds.
    tcp.set_nodelay(true).map_err(OpenError::Connect)?;
    let Transport { tls, web } = &settings.transport;
    let Some(tls) = tls else { return upgrade(tcp, settings, web.as_ref()).await };
    let name = tls::server_name(tls, host).map_err(OpenError::Setup)?;
    let wanted = tls.clone();
    let config = task::spawn_blocking(move || tls::config(&wanted)).await;
    let config =
        config.map_err(|error| OpenError::Handshake(error.to_string()))?.map_err(OpenError::Setup)?;
    let stream = TlsConnector::from(Arc::new(config)).connect(name, tcp).await;
    upgrade(stream.map_err(|error| OpenError::Handshake(words(&error)))?, settings, web.as_ref()).await
}

async fn upgrade<S>(stream: S, settings: &BrokerSettings, path: Option<&Arc<str>>) -> Result<Pipe, OpenError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let Some(path) = path else {
        let (reader, writer) = tokio::io::split(stream);
        return Ok(Pipe { reader: Box::new(reader), writer: Box::new(writer) });
    };
    let host = &settings.host;
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_string() };
    // The scheme only decides about a default port here; the bytes are encrypted already where they shall be.
    let address = format!("ws://{host}:{}{path}", settings.port);
    let mut request = address.into_client_request().map_err(|error| OpenError::Upgrade(error.to_string()))?;
    request.headers_mut().insert("sec-websocket-protocol", HeaderValue::from_static("mqtt"));
    let largest = usize::try_from(LARGEST_PACKET).ok();
    let config = WebSocketConfig::default()
        .read_buffer_size(WEB_BUFFER)
        .write_buffer_size(0)
        .max_message_size(largest)
        .max_frame_size(largest);
    let upgraded = Box::pin(client_async_with_config(request, stream, Some(config))).await;
    let (socket, _) = upgraded.map_err(|error| OpenError::Upgrade(upgrade_words(error)))?;
    let (sink, stream) = socket.split();
    // MQTT travels in binary messages, cut anywhere (3.1.1, 6). Text is what some server says who is no broker.
    let pieces = stream.filter_map(|message| {
        future::ready(match message {
            Ok(Message::Binary(bytes)) => Some(Ok(bytes)),
            Ok(Message::Close(_)) | Err(WebError::ConnectionClosed | WebError::AlreadyClosed) => {
                Some(Err(io::ErrorKind::UnexpectedEof.into()))
            }
            Ok(Message::Text(_)) => Some(Err(io::Error::other("it answers with text"))),
            Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_)) => None,
            Err(error) => Some(Err(io::Error::other(error.to_string()))),
        })
    });
    let sink = sink
        .sink_map_err(|error| io::Error::other(error.to_string()))
        .with(|bytes: Bytes| future::ready(Ok::<_, io::Error>(Message::Binary(bytes))));
    Ok(Pipe {
        reader: Box::new(StreamReader::new(pieces)),
        writer: Box::new(SinkWriter::new(CopyToBytes::new(sink))),
    })
}

#[expect(clippy::wildcard_enum_match_arm, reason = "all others are told by their own name")]
fn upgrade_words(error: WebError) -> String {
    match error {
        WebError::Http(response) => {
            format!("it answers the WebSocket request with HTTP {}", response.status().as_u16())
        }
        WebError::Protocol(tungstenite::error::ProtocolError::SecWebSocketSubProtocolError(_)) => {
            "it has a WebSocket there, but none that carries MQTT".to_owned()
        }
        WebError::Io(error) => words(&error),
        other => format!("the WebSocket cannot be opened: {other}"),
    }
}

/// What went wrong on the way, in words for people.
#[expect(clippy::wildcard_enum_match_arm, reason = "all others are told by their own name")]
pub fn words(error: &io::Error) -> String {
    if let Some(words) = tls::words(error) {
        return words;
    }
    match error.kind() {
        io::ErrorKind::UnexpectedEof
        | io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::BrokenPipe => "it closed the connection".to_owned(),
        _ => error.to_string(),
    }
}
