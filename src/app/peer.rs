//! The other end of a connection.

use core::net::{IpAddr, SocketAddr};
use std::fmt;

/// The other end of a connection, which may be a proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    Tcp(SocketAddr),
    /// A process of this machine. Its socket rarely has a name.
    Unix,
}

impl Peer {
    /// Its address. An IPv4-mapped IPv6 address is returned as IPv4.
    pub fn ip(self) -> Option<IpAddr> {
        match self {
            Peer::Tcp(addr) => Some(addr.ip().to_canonical()),
            Peer::Unix => None,
        }
    }
}

impl fmt::Display for Peer {
    /// As in the log. An IPv4-mapped IPv6 address is displayed as IPv4.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Peer::Tcp(addr) => match addr.ip().to_canonical() {
                ip @ IpAddr::V4(_) => SocketAddr::new(ip, addr.port()).fmt(f),
                // Includes the scope.
                IpAddr::V6(_) => addr.fmt(f),
            },
            Peer::Unix => f.write_str("unix"),
        }
    }
}
