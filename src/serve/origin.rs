//! Who asks, and how the client addressed us, when a proxy may stand between.
//!
//! Forwarded headers are believed only from the addresses that the administrator named; anybody can write them.

use std::net::{IpAddr, SocketAddr};

use http::HeaderMap;

use crate::dialects::Origin;

/// The two ends of one connection, and whether it is TLS.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ends {
    /// The other side of the socket: a client or a proxy.
    pub(super) peer: SocketAddr,
    /// Our side of it.
    pub(super) local: SocketAddr,
    /// Whether the socket is TLS.
    pub(super) secure: bool,
}

/// The client behind a request: the nearest address that is not a trusted proxy's.
pub(super) fn peer(ends: &Ends, trusted: &[IpAddr], headers: &HeaderMap) -> IpAddr {
    let direct = ends.peer.ip().to_canonical();
    if !trusts(trusted, direct) {
        return direct;
    }
    // Each proxy appends whom it saw, so the list is read from its end; an entry that cannot be read hides whatever
    // stands before it.
    let mut seen = direct;
    for entry in lines(headers, "x-forwarded-for").rev() {
        let Some(address) = parse_address(entry) else { break };
        seen = address;
        if !trusts(trusted, address) {
            break;
        }
    }
    seen
}

/// How the client reached us: as configured, else as a trusted proxy says, else as the request says, else by our own
/// address.
pub(super) fn origin(
    ends: &Ends,
    trusted: &[IpAddr],
    public: Option<&Origin>,
    host: Option<&str>,
    headers: &HeaderMap,
) -> Origin {
    if let Some(public) = public {
        return public.clone();
    }
    let mut origin = Origin {
        secure: ends.secure,
        host: host.filter(|host| is_host(host)).map_or_else(|| ends.local.to_string(), str::to_owned),
    };
    if !trusts(trusted, ends.peer.ip().to_canonical()) {
        return origin;
    }
    if let Some(scheme) = lines(headers, "x-forwarded-proto").next() {
        origin.secure = scheme.eq_ignore_ascii_case("https") || scheme.eq_ignore_ascii_case("wss");
    }
    if let Some(host) = lines(headers, "x-forwarded-host").next().filter(|host| is_host(host)) {
        host.clone_into(&mut origin.host);
    }
    let port = lines(headers, "x-forwarded-port").next().and_then(|port| port.parse::<u16>().ok());
    if let Some(port) = port {
        let usual = if origin.secure { 443 } else { 80 };
        if port != usual && !has_port(&origin.host) {
            origin.host = format!("{}:{port}", origin.host);
        }
    }
    origin
}

fn trusts(trusted: &[IpAddr], address: IpAddr) -> bool {
    trusted.iter().any(|each| each.to_canonical() == address)
}

/// The comma-separated entries of a header that may also be repeated, in order.
fn lines<'a>(headers: &'a HeaderMap, name: &'static str) -> impl DoubleEndedIterator<Item = &'a str> {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|entry| !entry.is_empty())
}

/// An address with or without port, as proxies write it.
fn parse_address(entry: &str) -> Option<IpAddr> {
    let bare = entry.trim_start_matches('[').trim_end_matches(']');
    bare.parse::<IpAddr>()
        .or_else(|_| entry.parse::<SocketAddr>().map(|address| address.ip()))
        .ok()
        .map(|address| address.to_canonical())
}

/// Whether it can stand as host and port in an address that is handed to clients.
fn is_host(host: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:[]".contains(&byte);
    !host.is_empty() && host.len() <= 255 && host.bytes().all(allowed)
}

fn has_port(host: &str) -> bool {
    let behind_address = host.rfind(']').map_or(0, |end| end + 1);
    host.get(behind_address..).is_some_and(|rest| rest.contains(':'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends(peer: &str) -> Ends {
        let peer = SocketAddr::new(peer.parse().unwrap(), 50_000);
        Ends { peer, local: "192.0.2.1:8080".parse().unwrap(), secure: false }
    }

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        lines.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    const PROXY: [IpAddr; 1] = [IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1))];

    fn check_peer(socket: &str, forwarded: &str, expected: &str) {
        let headers = headers(&[("x-forwarded-for", forwarded)]);
        assert_eq!(peer(&ends(socket), &PROXY, &headers).to_string(), expected, "{socket} {forwarded}");
    }

    #[test]
    fn forwarded_for_is_believed_from_a_trusted_proxy_only() {
        check_peer("198.51.100.7", "127.0.0.1", "198.51.100.7");
        check_peer("10.0.0.1", "203.0.113.9", "203.0.113.9");
        check_peer("::ffff:10.0.0.1", "203.0.113.9:4711", "203.0.113.9");
    }

    #[test]
    fn what_the_client_itself_put_into_forwarded_for_is_passed_over() {
        check_peer("10.0.0.1", "127.0.0.1, 203.0.113.9", "203.0.113.9");
        check_peer("10.0.0.1", "127.0.0.1, 203.0.113.9, 10.0.0.1", "203.0.113.9");
        check_peer("10.0.0.1", "127.0.0.1, nonsense", "10.0.0.1");
    }

    #[test]
    fn the_origin_is_as_the_client_wrote_it() {
        let none = HeaderMap::new();
        let seen = |host| origin(&ends("198.51.100.7"), &PROXY, None, host, &none).http("/x");
        assert_eq!(seen(Some("barn.local:8080")), "http://barn.local:8080/x");
        assert_eq!(seen(None), "http://192.0.2.1:8080/x");
        assert_eq!(seen(Some("a\"b<script>")), "http://192.0.2.1:8080/x");
    }

    #[test]
    fn a_trusted_proxy_says_how_it_was_reached() {
        let headers = headers(&[
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "barn.example"),
            ("x-forwarded-port", "8443"),
        ]);
        let seen = |socket| origin(&ends(socket), &PROXY, None, Some("inner:1"), &headers).websocket("/x");
        assert_eq!(seen("10.0.0.1"), "wss://barn.example:8443/x");
        assert_eq!(seen("198.51.100.7"), "ws://inner:1/x");
    }

    #[test]
    fn the_configured_public_address_wins() {
        let public = Origin { secure: true, host: "barn.local:8443".to_owned() };
        let headers = headers(&[("x-forwarded-host", "other")]);
        assert_eq!(origin(&ends("10.0.0.1"), &PROXY, Some(&public), Some("inner"), &headers), public);
    }
}
