//! The servers that wsecho is measured against, each run as a child process of its own.

mod fast;
mod raw;
mod tungstenite;

use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use crate::machine;
use crate::servers::Kind;

/// Becomes the server `kind` on 127.0.0.1:`port`, on `core` alone when one is given.
///
/// Only returns when it fails. `program` and `arguments` matter to wsecho, which is a program of its own.
pub fn run(
    kind: Kind,
    port: u16,
    core: Option<usize>,
    program: &str,
    arguments: &[String],
) -> io::Result<()> {
    machine::die_with_parent()?;
    if let Some(core) = core {
        machine::pin(core)?;
    }
    let address = (std::net::Ipv4Addr::LOCALHOST, port).into();
    match kind {
        Kind::Raw => raw::serve(address),
        Kind::Tungstenite => tungstenite::serve(address),
        Kind::Fastwebsockets => fast::serve(address),
        Kind::Wsecho | Kind::Against | Kind::Prefix => {
            Err(Command::new(program).arg("--addr").arg(address.to_string()).args(arguments).exec())
        }
    }
}
