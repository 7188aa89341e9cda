//! Readiness and the stop, for systemd (sd_notify(3)).

use std::env;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use log::warn;

/// Sends `state`, such as `READY=1`, to the socket that `NOTIFY_SOCKET` names, if it names one.
pub fn notify(state: &str) {
    let Some(socket) = env::var_os("NOTIFY_SOCKET") else {
        return;
    };
    let sent = address(&socket)
        .and_then(|address| UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address));
    if let Err(error) = sent {
        warn!("cannot send {state} to the service manager at {}: {error}", socket.display());
    }
}

/// A path, or after an `@` a name in the abstract namespace.
fn address(socket: &std::ffi::OsStr) -> std::io::Result<SocketAddr> {
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
