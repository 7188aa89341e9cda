//! Starting a server as a child process, and ending it however the measurement ends.

use std::env;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use rustix::process::Pid;

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Kind {
    /// raw TCP with a thread per client
    Raw,
    /// tungstenite with a thread per client
    Tungstenite,
    /// fastwebsockets on tokio
    Fastwebsockets,
    /// wsecho as a verbatim echo
    Wsecho,
    /// another wsecho binary, as a verbatim echo
    Against,
    /// wsecho with its default prefix
    Prefix,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Kind::Raw => "raw TCP",
            Kind::Tungstenite => "tungstenite",
            Kind::Fastwebsockets => "fastwebsockets",
            Kind::Wsecho => "wsecho",
            Kind::Against => "against",
            Kind::Prefix => "wsecho with its prefix",
        }
    }

    pub fn speaks_websocket(self) -> bool {
        self != Kind::Raw
    }

    fn arguments(self) -> &'static [&'static str] {
        match self {
            // Ten thousand clients fill the default to the last seat; the probe that waits for the
            // listener may not have left yet.
            Kind::Wsecho | Kind::Against => &["-q", "--max-connections", "10100", "--prefix", ""],
            Kind::Prefix => &["-q", "--max-connections", "10100"],
            Kind::Raw | Kind::Tungstenite | Kind::Fastwebsockets => &[],
        }
    }
}

/// A running server. Dropping it kills it.
pub struct Server {
    child: Child,
    pub address: SocketAddr,
    pub pid: Pid,
}

impl Server {
    /// Starts `kind` on a free port, on `core` alone when one is given, and waits until it listens.
    pub fn start(
        kind: Kind,
        wsecho: &str,
        core: Option<usize>,
        more: &[&str],
    ) -> io::Result<Server> {
        let port = free_port()?;
        let mut command = Command::new(env::current_exe()?);
        command.arg("serve").arg(format!("{kind:?}").to_lowercase());
        command.arg(port.to_string()).arg(wsecho);
        if let Some(core) = core {
            command.arg("--core").arg(core.to_string());
        }
        command.arg("--").args(kind.arguments()).args(more);
        let child =
            command.env_remove("RUST_LOG").stdin(Stdio::null()).stdout(Stdio::null()).spawn()?;
        let pid = Pid::from_child(&child);
        let mut server = Server { child, address: (Ipv4Addr::LOCALHOST, port).into(), pid };
        server.wait_until_it_listens()?;
        Ok(server)
    }

    fn wait_until_it_listens(&mut self) -> io::Result<()> {
        let deadline = Instant::now() + Duration::from_secs(5);
        while Instant::now() < deadline {
            if TcpStream::connect(self.address).is_ok() {
                // The probe's thread ends before anything is measured.
                thread::sleep(Duration::from_millis(5));
                return Ok(());
            }
            if let Some(status) = self.child.try_wait()? {
                return Err(io::Error::other(format!("the server ended: {status}")));
            }
            thread::sleep(Duration::from_millis(1));
        }
        Err(io::Error::other("the server did not listen within 5 s"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself, which its clients have noticed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A port that nobody listens on, below those that the kernel gives to clients: it would else be one of
/// theirs before the server has it.
fn free_port() -> io::Result<u16> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    (0..1_000)
        .map(|_| 20_000 + NEXT.fetch_add(1, Ordering::Relaxed) % 10_000)
        .find(|&port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok())
        .ok_or_else(|| io::Error::other("no port is free"))
}

/// The path of the release binary: `WSECHO` in the environment, or built now.
pub fn wsecho() -> io::Result<String> {
    if let Ok(path) = env::var("WSECHO") {
        return Ok(path);
    }
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    let cargo = env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let built = Command::new(cargo)
        .args(["build", "--release", "--bin", "wsecho"])
        .arg("--message-format=json-render-diagnostics")
        .current_dir(root)
        .stderr(Stdio::inherit())
        .output()?;
    // Only cargo knows its target directory, and says it in the last of these.
    let messages = String::from_utf8_lossy(&built.stdout);
    let executable =
        messages.split(r#""executable":""#).skip(1).last().and_then(|rest| rest.split('"').next());
    executable
        .filter(|_| built.status.success())
        .map(str::to_owned)
        .ok_or_else(|| io::Error::other("wsecho could not be built; WSECHO=PATH names a binary"))
}
