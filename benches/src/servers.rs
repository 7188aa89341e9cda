//! The servers, each started as a child process or several, and killed when its sample is taken.

use std::env;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use rustix::process::{Pid, Signal, kill_process};

use crate::machine::{self, Memory};
use crate::rows::Wire;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, ValueEnum)]
pub enum Kind {
    /// raw TCP, thread per client
    Raw,
    /// tungstenite, thread per client, each reply flushed
    Tungstenite,
    /// tungstenite, thread per client, flushed once for all messages of a read
    TungsteniteBatch,
    /// tungstenite on rustls, thread per client
    TungsteniteTls,
    /// fastwebsockets on tokio
    Fastwebsockets,
    /// uWebSockets
    Uwebsockets,
    /// npm's ws, compressing at its default level 6
    Ws,
    /// npm's ws, compressing at level 1
    WsLevel1,
    /// Python's websockets, compressing at its default level 6
    Websockets,
    /// Python's websockets, compressing at level 1
    WebsocketsLevel1,
    /// nginx, which speaks TLS, before a plain wsecho
    Nginx,
    /// HAProxy before three processes of wsecho
    Haproxy,
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

    /// How many processes of wsecho have the clients.
    pub fn processes(self) -> usize {
        if self == Kind::Haproxy { 3 } else { 1 }
    }

    /// How many processes of the proxy listen on one port. HAProxy has two descriptors for each client, and
    /// the kernel does not spread the clients evenly.
    fn proxies(self, clients: usize) -> usize {
        const CLIENTS: usize = 8_000;
        if self == Kind::Haproxy { clients.div_ceil(CLIENTS) } else { 1 }
    }

    /// The level of compression.
    fn level(self) -> &'static str {
        if matches!(self, Kind::WsLevel1 | Kind::WebsocketsLevel1) { "1" } else { "6" }
    }

    fn is_proxy(self) -> bool {
        matches!(self, Kind::Nginx | Kind::Haproxy)
    }

    /// An error unless the kernel's limits have room for so many clients.
    pub fn fits(self, clients: usize) -> io::Result<()> {
        machine::fit_threads(clients, clients.div_ceil(self.processes()))?;
        // Two for each client of a proxy, and for some more.
        let of_proxy = 2 * (clients / self.proxies(clients) + 1_000);
        let descriptors = if self.is_proxy() { clients.max(of_proxy) } else { clients };
        machine::raise_descriptor_limit(descriptors as u64 + 200)
    }

    /// An error unless the program that this server needs is there.
    pub fn find(self, programs: &mut Programs) -> io::Result<()> {
        let wanted: &[&str] = match self {
            Kind::Uwebsockets => {
                programs.uwebsockets = Some(uwebsockets()?);
                return Ok(());
            }
            Kind::Ws | Kind::WsLevel1 => {
                let modules = folder().join("../tests/clients/node_modules/ws");
                &[&node(), "-e", &format!("require({:?})", modules.display().to_string())]
            }
            Kind::Websockets | Kind::WebsocketsLevel1 => &[&python(), "-c", "import websockets"],
            Kind::Nginx => &["nginx", "-v"],
            Kind::Haproxy => &["haproxy", "-v"],
            _ => return Ok(()),
        };
        run(Command::new(wanted[0]).args(&wanted[1..])).map(drop)
    }

    /// The program to run on `address` and its arguments. Empty: the benchmark itself is the server.
    fn command(
        self,
        programs: &Programs,
        wire: Wire,
        address: SocketAddr,
        behind: &[SocketAddr],
        more: &[String],
    ) -> io::Result<Vec<String>> {
        let (at, port) = (address.to_string(), address.port().to_string());
        let mode = wire.compression().unwrap_or_default();
        let wsecho = |path: &str, prefix: &[&str]| {
            let (cert, key) = (pem("crt"), pem("key"));
            let wire: &[&str] = match wire {
                Wire::Plain => &[],
                Wire::Tls => &["--tls-cert", &cert, "--tls-key", &key],
                Wire::NoContextTakeover | Wire::ContextTakeover => &["--compression", mode],
            };
            let command = words(&[&[path, "-q", "--addr", &at], prefix, wire].concat());
            [&command, more].concat()
        };
        Ok(match self {
            Kind::Raw | Kind::Tungstenite | Kind::TungsteniteBatch => vec![],
            Kind::TungsteniteTls | Kind::Fastwebsockets => vec![],
            Kind::Uwebsockets => {
                let program = programs.uwebsockets.as_deref().unwrap_or_default();
                words(&[program, &port, mode][..if mode.is_empty() { 2 } else { 3 }])
            }
            Kind::Ws | Kind::WsLevel1 => {
                words(&[&node(), &script("echo-ws.mjs"), &port, mode, self.level()])
            }
            Kind::Websockets | Kind::WebsocketsLevel1 => {
                words(&[&python(), &script("echo-websockets.py"), &port, mode, self.level()])
            }
            Kind::Nginx => {
                let folder = configure("nginx", &nginx(address, behind))?;
                words(&["nginx", "-e", "stderr", "-c", "nginx.cfg", "-p", &folder])
            }
            Kind::Haproxy => {
                let folder = configure("haproxy", &haproxy(address, behind))?;
                words(&["haproxy", "-db", "-q", "-f", &format!("{folder}/haproxy.cfg")])
            }
            Kind::Wsecho => wsecho(&programs.wsecho, &["--prefix", ""]),
            Kind::Prefix => wsecho(&programs.wsecho, &[]),
            Kind::Against => wsecho(programs.against.as_deref().unwrap_or(""), &["--prefix", ""]),
        })
    }
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|&word| word.to_owned()).collect()
}

fn node() -> String {
    env::var("NODE").unwrap_or_else(|_| "node".to_owned())
}

fn python() -> String {
    env::var("PYTHON").unwrap_or_else(|_| "python3".to_owned())
}

fn script(name: &str) -> String {
    folder().join("compression").join(name).display().to_string()
}

/// A file of the certificate of the tests.
pub fn pem(kind: &str) -> String {
    folder().join(format!("../tests/tls/ec.{kind}")).display().to_string()
}

/// Writes the configuration of a proxy. Returns its folder.
fn configure(name: &str, config: &str) -> io::Result<String> {
    let folder = folder().join("target").join(name);
    fs::create_dir_all(&folder)?;
    fs::write(folder.join(format!("{name}.cfg")), config)?;
    Ok(folder.display().to_string())
}

fn nginx(address: SocketAddr, behind: &[SocketAddr]) -> String {
    format!(
        "daemon off; master_process off; pid nginx.pid; events {{ worker_connections 1024; }}
        http {{ access_log off; error_log stderr crit; client_body_temp_path b; proxy_temp_path p; fastcgi_temp_path f;
        uwsgi_temp_path u; scgi_temp_path s; server {{ listen {address} ssl; ssl_certificate {};
        ssl_certificate_key {}; ssl_protocols TLSv1.3; location / {{ proxy_pass http://{};
        proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade;
        proxy_set_header Connection upgrade; }} }} }}",
        pem("crt"),
        pem("key"),
        behind[0]
    )
}

fn haproxy(address: SocketAddr, behind: &[SocketAddr]) -> String {
    let servers = behind.iter().map(|behind| format!(" server {0} {0}\n", behind));
    format!(
        "defaults\n mode http\n timeout connect 60s\n timeout client 60s\n timeout server 60s\n \
         timeout tunnel 10m\n\
         listen wsecho\n bind {address}\n balance leastconn\n{}",
        servers.collect::<String>()
    )
}

/// A running server. Dropping it kills it.
pub struct Server {
    /// First the processes of wsecho, then their proxy.
    children: Vec<Child>,
    processes: usize,
    pub address: SocketAddr,
}

impl Server {
    /// Starts a server for so many clients, on one core or on all, and waits until it listens.
    pub fn start(
        kind: Kind,
        programs: &Programs,
        wire: Wire,
        core: Option<usize>,
        clients: usize,
        arguments: &[String],
    ) -> io::Result<Server> {
        let address = free_address()?;
        let processes = kind.processes();
        let mut server = Server { children: Vec::new(), processes, address };
        let mut behind = Vec::new();
        for _ in 0..if kind.is_proxy() { processes } else { 0 } {
            let address = free_address()?;
            let plain = Kind::Wsecho.command(programs, Wire::Plain, address, &[], arguments)?;
            server.spawn(Kind::Wsecho, address, core, &plain)?;
            behind.push(address);
        }
        let command = kind.command(programs, wire, address, &behind, arguments)?;
        for _ in 0..kind.proxies(clients) {
            server.spawn(kind, address, core, &command)?;
        }
        Ok(server)
    }

    fn spawn(
        &mut self,
        kind: Kind,
        address: SocketAddr,
        core: Option<usize>,
        command: &[String],
    ) -> io::Result<()> {
        let mut serve = Command::new(env::current_exe()?);
        serve.args(["serve", &kind.name(), &address.to_string()]);
        serve.args(core.map(|core| format!("--core={core}"))).arg("--").args(command);
        serve.env_remove("RUST_LOG").stdin(Stdio::null()).stdout(Stdio::null());
        self.children.push(serve.spawn()?);
        let deadline = Instant::now() + Duration::from_secs(10);
        while Instant::now() < deadline {
            if TcpStream::connect(address).is_ok() {
                // The thread of this connection ends before anything is measured. The second proxy on a
                // port takes longer to listen.
                let is_second = self.children.len() > self.processes + 1;
                thread::sleep(Duration::from_millis(if is_second { 200 } else { 5 }));
                return Ok(());
            }
            for child in &mut self.children {
                if let Some(status) = child.try_wait()? {
                    return Err(io::Error::other(format!("the server ended: {status}")));
                }
            }
            thread::sleep(Duration::from_millis(1));
        }
        Err(io::Error::other("the server did not listen within 10 s"))
    }

    fn pids(&self) -> impl Iterator<Item = Pid> {
        self.children.iter().map(Pid::from_child)
    }

    /// Seconds of processor time that it has used.
    pub fn cpu_seconds(&self) -> io::Result<f64> {
        self.pids().map(machine::cpu_seconds).sum()
    }

    pub fn memory(&self) -> io::Result<Memory> {
        let mut sum = Memory { machine: machine::memory_in_use()?, ..Memory::default() };
        for memory in self.pids().map(machine::memory) {
            let memory = memory?;
            sum.resident += memory.resident;
            sum.page_tables += memory.page_tables;
            sum.peak += memory.peak;
        }
        Ok(sum)
    }

    /// Asks wsecho to stop, but not the proxy in front of it.
    pub fn ask_to_stop(&self) -> io::Result<()> {
        let mut wsecho = self.pids().take(self.processes);
        wsecho.try_for_each(|process| Ok(kill_process(process, Signal::TERM)?))
    }

    /// Waits until wsecho has ended.
    pub fn wait(&mut self) -> io::Result<()> {
        let mut wsecho = self.children.iter_mut().take(self.processes);
        wsecho.try_for_each(|child| child.wait().map(drop))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        for child in &mut self.children {
            // If it has ended by itself, its clients have reported it.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A free port below those that the kernel gives to clients, or a client could have it before the server.
fn free_address() -> io::Result<SocketAddr> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    (0..1_000)
        .map(|_| 20_000 + NEXT.fetch_add(1, Ordering::Relaxed) % 10_000)
        .map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
        .find(|address| TcpListener::bind(address).is_ok())
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
fn uwebsockets() -> io::Result<String> {
    let built = run(Command::new("sh").arg(folder().join("uwebsockets/build.sh")))?;
    Ok(String::from_utf8_lossy(&built.stdout).trim().to_owned())
}

/// Runs a command to its end. An error has the line of its own.
fn run(command: &mut Command) -> io::Result<Output> {
    let name = command.get_program().display().to_string();
    let output = command
        .output()
        .map_err(|error| io::Error::new(error.kind(), format!("{name}: {error}")))?;
    if !output.status.success() {
        let error = String::from_utf8_lossy(&output.stderr);
        let mut lines = error.trim().lines();
        let line = lines.clone().find(|line| line.contains("Error")).or(lines.next_back());
        return Err(io::Error::other(line.unwrap_or(&name).to_owned()));
    }
    Ok(output)
}

/// The folder of the benchmark's sources.
pub fn folder() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
