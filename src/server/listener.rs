//! Listening sockets.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::time::Duration;

use log::info;
use rustix::io::Errno;
use rustix::net::sockopt::{self, Timeout};

use crate::app::conversation::WRITE_TIMEOUT_PARTS;

/// How many connections may wait to be accepted. std's 128 lets a burst wait a second for a repeated
/// SYN.
const BACKLOG: i32 = 4096;

/// Listens on each address, and logs where.
///
/// # Errors
///
/// The first address that can't be listened on, and why.
pub fn listen(addrs: &[String], write_timeout: Duration) -> Result<Vec<TcpListener>, String> {
    let bind = |addr: &String| {
        let listener = TcpListener::bind(addr)?;
        configure(&listener, write_timeout)?;
        rustix::net::listen(&listener, BACKLOG)?;
        let addr = listener.local_addr()?;
        Ok::<_, io::Error>((listener, addr))
    };
    let mut listeners = Vec::new();
    let (mut sockets, mut pages) = (String::new(), String::new());
    for addr in addrs {
        let (listener, addr) = bind(addr)
            .map_err(|error| format!("cannot listen on {addr}: {error}{}", hint(&error)))?;
        listeners.push(listener);
        sockets += &format!(" ws://{addr}/");
        pages += &format!(" http://{}/", within_reach(addr));
    }
    info!("listening on{sockets}, page at{pages}");
    Ok(listeners)
}

/// What may help against an error, as the end of its line.
fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "; another program listens there: stop it, or choose another port with --addr"
        }
        io::ErrorKind::PermissionDenied => {
            "; a port below 1024 needs root or CAP_NET_BIND_SERVICE: choose a higher one with --addr"
        }
        io::ErrorKind::AddrNotAvailable => "; this machine does not have that address",
        _ => "",
    }
}

/// An address at which a browser on this machine reaches what listens on `addr`. Many don't open
/// 0.0.0.0 and [::], which stand for all addresses.
fn within_reach(mut addr: SocketAddr) -> SocketAddr {
    if addr.ip().is_unspecified() {
        addr.set_ip(match addr {
            SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    addr
}

/// Sets what accepted sockets inherit, which spares each of them these system calls.
fn configure(listener: &TcpListener, write_timeout: Duration) -> Result<(), Errno> {
    // Replies are sent whole, so there is nothing to hold them back for.
    sockopt::set_tcp_nodelay(listener, true)?;
    let part = (write_timeout / WRITE_TIMEOUT_PARTS).max(Duration::from_micros(1));
    sockopt::set_socket_timeout(listener, Timeout::Send, Some(part))?;
    // Ends a connection whose peer takes nothing while no thread is sending, also after its end.
    #[cfg(target_os = "linux")]
    {
        let millis = write_timeout.as_millis().clamp(1, i32::MAX as u128);
        sockopt::set_tcp_user_timeout(listener, millis as u32)?;
    }
    Ok(())
}
