//! The servers that wsecho is measured against, each in a process of its own.

mod fastwebsockets;
mod raw;
mod tungstenite;

use std::io;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use crate::machine;
use crate::servers::Kind;

/// Makes this process the server `kind` on `address`, and on one core if it is given. A server that is a program of its
/// own is run by `command`.
///
/// Returns only if it fails.
pub fn run(
    kind: Kind,
    address: SocketAddr,
    core: Option<usize>,
    command: &[String],
) -> io::Result<()> {
    machine::die_with_parent()?;
    core.map_or(Ok(()), machine::pin)?;
    if let [program, arguments @ ..] = command {
        return Err(Command::new(program).args(arguments).exec());
    }
    match kind {
        Kind::Raw => raw::serve(address),
        Kind::Tungstenite => tungstenite::serve(address, tungstenite::echo),
        Kind::TungsteniteTls => tungstenite::serve(address, tungstenite::tls_echo()?),
        Kind::TungsteniteBatch => tungstenite::serve(address, tungstenite::echo_batches),
        Kind::Fastwebsockets => fastwebsockets::serve(address),
        _ => Err(io::Error::other("a server without its command")),
    }
}
