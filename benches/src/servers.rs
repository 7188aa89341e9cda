//! The servers, each started as a child process and killed when its sample is taken.

use std::env;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use rustix::process::Pid;

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Kind {
    /// raw TCP, thread per client
    Raw,
    /// tungstenite, thread per client, each reply flushed
    Tungstenite,
    /// tungstenite, thread per client, flushed once for all messages of a read
    TungsteniteBatch,
    /// fastwebsockets on tokio
    Fastwebsockets,
    /// uWebSockets
    Uwebsockets,
    /// wsecho as a verbatim echo
    Wsecho,
    /// wsecho with its default prefix
    Prefix,
    /// the wsecho binary of --against, as a verbatim echo
    Against,
}

/// The paths of the servers that are programs of their own.
pub struct Programs {
    pub wsecho: String,
    pub against: Option<String>,
    pub uwebsockets: Option<String>,
}

impl Kind {
    pub fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    /// Whether memory of large messages goes back to the system.
    pub fn releases_memory(self) -> bool {
        matches!(self, Kind::Raw | Kind::Wsecho | Kind::Prefix | Kind::Against)
    }

    /// The program to run on `address` and its arguments. None: the benchmark itself is the server.
    fn command(self, programs: &Programs, address: SocketAddr, more: &[&str]) -> Vec<String> {
        let wsecho = |path: &str, prefix: &[&str]| {
            let address = address.to_string();
            // Versions that count connections without a WebSocket count the one that waits for the listener.
            let arguments = [path, "-q", "--max-connections", "10100", "--addr", &address];
            [&arguments, prefix, more].concat().into_iter().map(str::to_owned).collect()
        };
        match self {
            Kind::Raw | Kind::Tungstenite | Kind::TungsteniteBatch | Kind::Fastwebsockets => vec![],
            Kind::Uwebsockets => {
                programs.uwebsockets.iter().cloned().chain([address.port().to_string()]).collect()
            }
            Kind::Wsecho => wsecho(&programs.wsecho, &["--prefix", ""]),
            Kind::Prefix => wsecho(&programs.wsecho, &[]),
            Kind::Against => wsecho(programs.against.as_deref().unwrap_or(""), &["--prefix", ""]),
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
    /// Starts a server on a free port, on one core, and waits until it listens.
    pub fn start(
        kind: Kind,
        programs: &Programs,
        core: usize,
        arguments: &[&str],
    ) -> io::Result<Server> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
        let child = Command::new(env::current_exe()?)
            .args(["serve", &kind.name(), &address.to_string(), &core.to_string(), "--"])
            .args(kind.command(programs, address, arguments))
            .env_remove("RUST_LOG")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()?;
        let pid = Pid::from_child(&child);
        let mut server = Server { child, address, pid };
        server.wait_until_it_listens()?;
        Ok(server)
    }

    fn wait_until_it_listens(&mut self) -> io::Result<()> {
        let deadline = Instant::now() + Duration::from_secs(5);
        while Instant::now() < deadline {
            if TcpStream::connect(self.address).is_ok() {
                // The thread of this connection ends before anything is measured.
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
        // If it has ended by itself, its clients have reported it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A free port below those that the kernel gives to clients, or a client could have it before the server.
fn free_port() -> io::Result<u16> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    (0..1_000)
        .map(|_| 20_000 + NEXT.fetch_add(1, Ordering::Relaxed) % 10_000)
        .find(|&port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok())
        .ok_or_else(|| io::Error::other("no port is free"))
}

/// Builds the release binary of wsecho, unless WSECHO in the environment names one. Returns its path.
pub fn wsecho() -> io::Result<String> {
    if let Ok(path) = env::var("WSECHO") {
        return Ok(path);
    }
    let mut cargo = Command::new(env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned()));
    cargo.args(["build", "--release", "--bin", "wsecho"]);
    cargo.arg("--message-format=json-render-diagnostics");
    let built = cargo.current_dir(folder().join("..")).stderr(Stdio::inherit()).output()?;
    // Only cargo knows its target directory, and names the binary in the last of its messages.
    let messages = String::from_utf8_lossy(&built.stdout);
    let last = messages.rsplit_once(r#""executable":""#);
    let path = last.and_then(|(_, rest)| rest.split('"').next());
    path.filter(|_| built.status.success())
        .map(str::to_owned)
        .ok_or_else(|| io::Error::other("wsecho could not be built; WSECHO=PATH names a binary"))
}

/// Builds the echo server on uWebSockets, and returns its path.
pub fn uwebsockets() -> io::Result<String> {
    let built = Command::new("sh").arg(folder().join("uwebsockets/build.sh")).output()?;
    if !built.status.success() {
        let error = String::from_utf8_lossy(&built.stderr);
        return Err(io::Error::other(error.lines().last().unwrap_or_default()));
    }
    Ok(String::from_utf8_lossy(&built.stdout).trim().to_owned())
}

/// The folder of the benchmark's sources.
pub fn folder() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
