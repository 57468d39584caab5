//! Paths below the base address.

/// What a path below the base address asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// The base itself: a word for people, or a raw WebSocket.
    Base,
    /// `/info`.
    Info,
    /// `/websocket`: a WebSocket without SockJS frames.
    Raw,
    /// `/{server}/{session}/{transport}`. The server id is for load balancers alone.
    Session {
        /// Chosen by the client.
        session: String,
        /// How it wants to be carried.
        transport: Transport,
    },
    /// Nothing.
    Unknown,
}

/// How messages of a session travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// Both ways, framed.
    WebSocket,
    /// To the client, one response for one frame.
    Xhr,
    /// To the client, many frames in one response.
    XhrStreaming,
    /// To the client, as server-sent events.
    EventSource,
    /// To the server, for all but the first.
    XhrSend,
}

impl Route {
    /// Reads the path behind the base address, still percent-encoded; empty or starting with `/`.
    pub fn parse(path: &str) -> Self {
        let Some(path) = path.strip_prefix('/') else {
            return if path.is_empty() { Self::Base } else { Self::Unknown };
        };
        let mut segments = path.split('/');
        let segments = [segments.next(), segments.next(), segments.next(), segments.next()];
        match segments {
            [Some(""), None, ..] => Self::Base,
            [Some("info"), None, ..] => Self::Info,
            [Some("websocket"), None, ..] => Self::Raw,
            [Some(server), Some(session), Some(transport), None] if is_id(server) && is_id(session) => {
                let transport = match transport {
                    "websocket" => Transport::WebSocket,
                    "xhr" => Transport::Xhr,
                    "xhr_streaming" => Transport::XhrStreaming,
                    "eventsource" => Transport::EventSource,
                    "xhr_send" => Transport::XhrSend,
                    _ => return Self::Unknown,
                };
                Self::Session { session: session.to_owned(), transport }
            }
            _ => Self::Unknown,
        }
    }
}

/// Ids are neither empty nor do they hold a dot.
fn is_id(segment: &str) -> bool {
    !segment.is_empty() && !segment.contains('.')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(transport: Transport) -> Route {
        Route::Session { session: "abc".to_owned(), transport }
    }

    #[test]
    fn every_path_of_the_protocol_has_its_route() {
        for (path, expected) in [
            ("", Route::Base),
            ("/", Route::Base),
            ("/info", Route::Info),
            ("/websocket", Route::Raw),
            ("/000/abc/websocket", session(Transport::WebSocket)),
            ("/x/abc/xhr", session(Transport::Xhr)),
            ("/x/abc/xhr_streaming", session(Transport::XhrStreaming)),
            ("/x/abc/xhr_send", session(Transport::XhrSend)),
            ("/x/abc/eventsource", session(Transport::EventSource)),
        ] {
            assert_eq!(Route::parse(path), expected, "{path}");
        }
    }

    #[test]
    fn wrong_numbers_of_segments_and_ids_with_dots_lead_nowhere() {
        for path in [
            "x",
            "//",
            "/a",
            "/a/",
            "/a/a",
            "/a/a/",
            "/a//xhr",
            "//a/xhr",
            "/a/a/a/xhr",
            "/a/a/xhr/",
            "/a./a/xhr",
            "/a/a./xhr",
            "/a/a/jsonp",
            "/info/",
            "/websocket/",
            "/iframe.html",
        ] {
            assert_eq!(Route::parse(path), Route::Unknown, "{path}");
        }
    }
}
