//! Listening sockets that the service manager has opened and hands over (socket activation).
//!
//! They belong to the process, not to one configuration: systemd holds them open while the gateway restarts, and a reload
//! may stop and start to serve one. So they are looked up by address wherever a listener is bound, and what is given out
//! is always a copy.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use listenfd::ListenFd;
use tracing::{info, warn};

/// Taken from the environment once: a descriptor has one owner.
static SOCKETS: OnceLock<Vec<Inherited>> = OnceLock::new();

#[derive(Debug)]
struct Inherited {
    socket: TcpListener,
    address: SocketAddr,
    claimed: AtomicBool,
}

/// The socket for an address, if one was handed over. It does not block.
pub(super) fn socket(wanted: SocketAddr) -> io::Result<Option<TcpListener>> {
    let Some(found) = all().iter().find(|each| serves(each.address, wanted)) else { return Ok(None) };
    if !found.claimed.swap(true, Ordering::Relaxed) {
        info!(address = %found.address, "the service manager has opened this port");
    }
    let socket = found.socket.try_clone()?;
    socket.set_nonblocking(true)?;
    Ok(Some(socket))
}

/// Tells of sockets that no listener of the configuration has taken: whoever connects there waits for ever.
pub fn warn_of_unclaimed() {
    for each in all().iter().filter(|each| !each.claimed.load(Ordering::Relaxed)) {
        warn!(
            address = %each.address,
            "the service manager has opened a port that the configuration does not listen on: change one of them"
        );
    }
}

fn all() -> &'static [Inherited] {
    SOCKETS.get_or_init(|| {
        let mut handed = ListenFd::from_env();
        let mut sockets = Vec::new();
        for at in 0..handed.len() {
            let taken = handed.take_tcp_listener(at).and_then(|socket| {
                let socket = socket.ok_or(io::ErrorKind::NotFound)?;
                let address = socket.local_addr()?;
                Ok(Inherited { socket, address, claimed: AtomicBool::new(false) })
            });
            match taken {
                Ok(socket) => sockets.push(socket),
                Err(error) => warn!(%error, "the service manager handed over what is no TCP listener"),
            }
        }
        sockets
    })
}

/// Whether a socket that listens here serves who wants to listen there. systemd's `ListenStream=8080` is `[::]:8080`, which
/// takes IPv4 as well.
fn serves(listens: SocketAddr, wanted: SocketAddr) -> bool {
    let everywhere = |ip: IpAddr| ip.is_unspecified();
    let same = listens.port() == wanted.port()
        && listens.is_ipv6()
        && everywhere(listens.ip())
        && everywhere(wanted.ip());
    listens == wanted || same
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_serves_its_own_address_and_everywhere_serves_everywhere() {
        let serves = |listens: &str, wanted: &str| serves(listens.parse().unwrap(), wanted.parse().unwrap());
        assert!(serves("127.0.0.1:80", "127.0.0.1:80"));
        assert!(serves("[::]:80", "0.0.0.0:80"));
        assert!(!serves("0.0.0.0:80", "[::]:80"), "IPv4 alone would shut IPv6 out");
        assert!(!serves("[::]:80", "127.0.0.1:80"), "what was meant for loopback stays there");
        assert!(!serves("127.0.0.1:80", "127.0.0.1:81"));
    }

    #[test]
    fn without_a_service_manager_there_is_none() {
        assert!(socket("127.0.0.1:80".parse().unwrap()).unwrap().is_none());
        warn_of_unclaimed();
    }
}
