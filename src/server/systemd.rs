//! Readiness and the stop, for systemd (sd_notify(3)).

use std::env;
use std::ffi::OsStr;
use std::io;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use log::warn;

/// Sends `state`, such as `READY=1`, to the socket that `NOTIFY_SOCKET` names, if it names one.
pub fn notify(state: &str) {
    let Some(socket) = env::var_os("NOTIFY_SOCKET") else {
        return;
    };
    if let Err(error) = send(state, &socket) {
        warn!("cannot send {state} to the service manager at {}: {error}", socket.display());
    }
}

fn send(state: &str, to: &OsStr) -> io::Result<usize> {
    /// How long to wait while the manager's queue is full. Signals are not handled during that time.
    const PATIENCE: Duration = Duration::from_secs(1);

    let socket = UnixDatagram::unbound()?;
    socket.set_write_timeout(Some(PATIENCE))?;
    socket.send_to_addr(state.as_bytes(), &address(to)?)
}

/// A path, or a name in the abstract namespace after an `@`.
fn address(socket: &OsStr) -> io::Result<SocketAddr> {
    #[cfg(target_os = "linux")]
    {
        use std::os::linux::net::SocketAddrExt as _;
        use std::os::unix::ffi::OsStrExt as _;
        if let Some(name) = socket.as_bytes().strip_prefix(b"@") {
            return SocketAddr::from_abstract_name(name);
        }
    }
    SocketAddr::from_pathname(socket)
}
