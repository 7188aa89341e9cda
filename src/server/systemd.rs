//! Readiness and the stop, for systemd (sd_notify(3)).

use std::env;
use std::ffi::OsStr;
use std::io;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use log::warn;

use crate::server::listener::unix_addr;

/// Sends `state`, such as `READY=1`, to the socket that `NOTIFY_SOCKET` names, if it names one.
pub fn notify(state: &str) {
    if let Some(socket) = env::var_os("NOTIFY_SOCKET").filter(|socket| !socket.is_empty())
        && let Err(error) = send(state, &socket)
    {
        warn!("cannot send {state} to the service manager at {}: {error}", socket.display());
    }
}

fn send(state: &str, to: &OsStr) -> io::Result<usize> {
    /// How long to wait while the manager's queue is full. Signals are not handled during that time.
    const PATIENCE: Duration = Duration::from_secs(1);

    let socket = UnixDatagram::unbound()?;
    socket.set_write_timeout(Some(PATIENCE))?;
    socket.send_to_addr(state.as_bytes(), &unix_addr(to)?)
}
