//! Listening sockets.

use std::io;
use std::net::TcpListener;

use log::info;

/// How many connections may wait to be accepted. std's 128 lets a burst wait a second for a repeated
/// SYN.
const BACKLOG: i32 = 4096;

/// Listens on each address, and logs where.
///
/// # Errors
///
/// The first address that can't be listened on, and why.
pub fn listen(addrs: &[String]) -> Result<Vec<TcpListener>, String> {
    let bind = |addr: &String| {
        let listener = TcpListener::bind(addr)?;
        rustix::net::listen(&listener, BACKLOG)?;
        let addr = listener.local_addr()?;
        Ok((listener, addr))
    };
    let mut listeners = Vec::new();
    let (mut sockets, mut pages) = (String::new(), String::new());
    for addr in addrs {
        let (listener, addr) =
            bind(addr).map_err(|error: io::Error| format!("cannot listen on {addr}: {error}"))?;
        listeners.push(listener);
        sockets += &format!(" ws://{addr}/");
        pages += &format!(" http://{addr}/");
    }
    info!("listening on{sockets}, page at{pages}");
    Ok(listeners)
}
