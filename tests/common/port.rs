//! Ports for programs that have to be told one, or that come back to it.
//!
//! A port that the kernel has chosen and that is let go again is anybody's a moment later: of the next listener, or of the
//! near end of the next connection, of which tests make thousands. These lie below the range that the kernel chooses
//! from, and a UDP socket on the same number keeps them from other tests, of this run and of others.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::ops::Range;

/// A port of this machine that nobody else takes while this lives, and nobody listens at.
pub struct Port {
    pub number: u16,
    _kept: UdpSocket,
}

impl Port {
    pub fn free() -> Self {
        let range = below_the_kernels();
        for _ in 0..10_000 {
            let number = fastrand::u16(range.clone());
            let Ok(kept) = UdpSocket::bind((Ipv4Addr::LOCALHOST, number)) else { continue };
            // A service of this machine may have it.
            if TcpListener::bind((Ipv4Addr::UNSPECIFIED, number)).is_ok() {
                return Self { number, _kept: kept };
            }
        }
        panic!("no port of {range:?} is free");
    }

    /// The port on loopback.
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.number).into()
    }
}

/// Ports that the kernel gives to nobody who asks for any.
fn below_the_kernels() -> Range<u16> {
    let own = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let first = own.split_whitespace().next().and_then(|first| first.parse().ok()).unwrap_or(32_768);
    // Where the kernel's own begin so low, there is no better place.
    if first > 16_000 { 12_000..first } else { 12_000..32_768 }
}
