//! Measures wsecho over TLS beside tungstenite on rustls, and beside nginx before a plain wsecho.
//!
//! ```sh
//! cargo run --release --manifest-path benches/Cargo.toml --bin tls [ROUNDS [WSECHO]]
//! ```
//!
//! The servers have one core and the clients the other. Both sides encrypt, so the clients can be what
//! bounds a rate: what a server does in a second of its own processor time is bounded by nothing else.

use std::fs;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::fd::OwnedFd;
use rustls::client::Resumption;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, StreamOwned,
};
use wsecho_bench::messages::{self, Message, Replies};
use wsecho_bench::program::{Program, folder, free_addr, pin, ready, wait_until_it_listens};
use wsecho_bench::stats::quantile;

const ECHO_TIME: Duration = Duration::from_secs(1);

/// What is measured: its name, the clients, and the bytes of each message, or none for connections.
const ROWS: [(&str, usize, Option<usize>); 4] = [
    ("20 B, 100 clients", 100, Some(20)),
    ("16 KiB, 100 clients", 100, Some(16 << 10)),
    ("1 MiB, 4 clients", 4, Some(1 << 20)),
    ("connect, handshakes", 16, None),
];

const SERVERS: [&str; 3] = ["wsecho", "tungstenite", "nginx"];

fn main() -> io::Result<()> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    if let [serve, addr] = &arguments[..]
        && serve == "serve"
    {
        return serve_tungstenite(addr.parse().map_err(io::Error::other)?);
    }
    let rounds = arguments.first().map_or(Ok(5), |text| text.parse()).map_err(io::Error::other)?;
    let default = folder().join("../target/release/wsecho").display().to_string();
    let wsecho = arguments.get(1).unwrap_or(&default);
    pin(1)?;
    let config = Arc::new(client_config()?);
    println!("| work | server | a second | of its processor's | wsecho's ratio to it |");
    println!("|---|---|---|---|---|");
    for (name, clients, size) in ROWS {
        let mut figures = [const { (Vec::new(), Vec::new()) }; SERVERS.len()];
        for round in 0..rounds {
            for turn in 0..SERVERS.len() {
                let server = (round + turn) % SERVERS.len();
                let (rate, by_cpu) = sample(SERVERS[server], wsecho, &config, clients, size)?;
                figures[server].0.push(rate);
                figures[server].1.push(by_cpu);
            }
        }
        let (own_rates, own_by_cpu) = figures[0].clone();
        for (server, (rates, by_cpu)) in SERVERS.iter().zip(&mut figures) {
            let ratio = |own: &[f64], others: &[f64]| {
                let mut pairs: Vec<_> =
                    own.iter().zip(others).map(|(own, its)| own / its).collect();
                quantile(&mut pairs, 0.5).unwrap_or(f64::NAN)
            };
            let ratios = (ratio(&own_rates, rates), ratio(&own_by_cpu, by_cpu));
            println!(
                "| {name} | {server} | {:.0} | {:.0} | {:.2}, by processor time {:.2} |",
                quantile(rates, 0.5).unwrap_or(f64::NAN),
                quantile(by_cpu, 0.5).unwrap_or(f64::NAN),
                ratios.0,
                ratios.1,
            );
        }
    }
    Ok(())
}

/// What a new server does in a second, and in a second of its processor time.
fn sample(
    server: &str,
    wsecho: &str,
    config: &Arc<ClientConfig>,
    clients: usize,
    size: Option<usize>,
) -> io::Result<(f64, f64)> {
    let (addr, programs) = start(server, wsecho)?;
    let mut load = Load::new(addr, config, size)?;
    for _ in 0..clients {
        load.connect()?;
    }
    let cpu =
        |programs: &[Program]| programs.iter().map(Program::cpu_seconds).sum::<io::Result<f64>>();
    load.run_for(ECHO_TIME / 5)?;
    let (before, began) = (cpu(&programs)?, Instant::now());
    load.done = 0;
    load.run_for(ECHO_TIME)?;
    let done = load.done as f64;
    Ok((done / began.elapsed().as_secs_f64(), done / (cpu(&programs)? - before)))
}

// Servers

fn start(server: &str, wsecho: &str) -> io::Result<(SocketAddr, Vec<Program>)> {
    let (addr, behind) = (free_addr()?, free_addr()?);
    let wsecho = |addr: SocketAddr| {
        let mut command = Command::new(wsecho);
        command.args(["-q", "--prefix", "", "--addr", &addr.to_string()]);
        command
    };
    let programs = match server {
        "wsecho" => {
            let mut command = wsecho(addr);
            command.arg("--tls-cert").arg(pem("crt")).arg("--tls-key").arg(pem("key"));
            vec![Program::start(&mut command)?]
        }
        "tungstenite" => {
            let mut command = Command::new(std::env::current_exe()?);
            vec![Program::start(command.args(["serve", &addr.to_string()]))?]
        }
        _ => {
            let dir = std::env::temp_dir().join(format!("wsecho-bench-{}", std::process::id()));
            fs::create_dir_all(&dir)?;
            let config = format!(
                "daemon off; master_process off; pid nginx.pid; events {{ worker_connections 1024; }}
                 http {{ access_log off; client_body_temp_path b; proxy_temp_path p; fastcgi_temp_path f;
                 uwsgi_temp_path u; scgi_temp_path s; server {{ listen {addr} ssl; ssl_certificate {};
                 ssl_certificate_key {}; ssl_protocols TLSv1.3; location / {{ proxy_pass http://{behind};
                 proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade;
                 proxy_set_header Connection upgrade; }} }} }}",
                pem("crt"),
                pem("key")
            );
            fs::write(dir.join("nginx.conf"), config)?;
            let mut nginx = Command::new("nginx");
            nginx.args(["-e", "stderr", "-c", "nginx.conf", "-p"]).arg(&dir);
            vec![Program::start(&mut wsecho(behind))?, Program::start(nginx.arg0("nginx"))?]
        }
    };
    let all = if programs.len() == 1 { vec![addr] } else { vec![behind, addr] };
    all.into_iter().try_for_each(wait_until_it_listens)?;
    Ok((addr, programs))
}

/// As in the examples of both: a thread for each client, which blocks.
fn serve_tungstenite(addr: SocketAddr) -> io::Result<()> {
    let certs = CertificateDer::pem_file_iter(pem("crt")).map_err(io::Error::other)?;
    let certs = certs.collect::<Result<Vec<_>, _>>().map_err(io::Error::other)?;
    let key = PrivateKeyDer::from_pem_file(pem("key")).map_err(io::Error::other)?;
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(certs, key))
        .map_err(io::Error::other)?;
    let config = Arc::new(config);
    let listener = TcpListener::bind(addr)?;
    loop {
        let (stream, _) = listener.accept()?;
        stream.set_nodelay(true)?;
        let config = Arc::clone(&config);
        thread::spawn(move || {
            let session = ServerConnection::new(config).ok()?;
            let mut websocket = tungstenite::accept(StreamOwned::new(session, stream)).ok()?;
            loop {
                let message = websocket.read().ok()?;
                if message.is_text() || message.is_binary() {
                    websocket.send(message).ok()?;
                }
            }
            #[expect(unreachable_code, reason = "it tells the type")]
            Some(())
        });
    }
}

// Clients

/// Clients in one event loop.
struct Load {
    addr: SocketAddr,
    config: Arc<ClientConfig>,
    /// What each client sends for every reply, or nothing if it connects again instead.
    message: Option<Message>,
    clients: Vec<Client>,
    epoll: OwnedFd,
    buffer: Vec<u8>,
    done: usize,
}

struct Client {
    stream: TcpStream,
    session: ClientConnection,
    /// What has come of the response.
    response: Option<Vec<u8>>,
    replies: Replies,
}

impl Load {
    fn new(addr: SocketAddr, config: &Arc<ClientConfig>, size: Option<usize>) -> io::Result<Self> {
        Ok(Load {
            addr,
            config: Arc::clone(config),
            message: size.map(|size| Message::websocket(size, 1)),
            clients: Vec::new(),
            epoll: epoll::create(CreateFlags::CLOEXEC)?,
            buffer: vec![0; 256 << 10],
            done: 0,
        })
    }

    fn connect(&mut self) -> io::Result<()> {
        let client = self.begin(self.clients.len())?;
        self.clients.push(client);
        Ok(())
    }

    fn begin(&self, id: usize) -> io::Result<Client> {
        let stream = TcpStream::connect(self.addr)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let data = EventData::new_u64(id as u64);
        epoll::add(&self.epoll, &stream, data, EventFlags::IN | EventFlags::OUT | EventFlags::ET)?;
        let name = "localhost".try_into().map_err(io::Error::other)?;
        let mut session =
            ClientConnection::new(Arc::clone(&self.config), name).map_err(io::Error::other)?;
        session.set_buffer_limit(None);
        session.writer().write_all(messages::REQUEST)?;
        let response = Some(Vec::new());
        Ok(Client { stream, session, response, replies: Replies::default() })
    }

    fn run_for(&mut self, time: Duration) -> io::Result<()> {
        let start = Instant::now();
        while let Some(rest) = time.checked_sub(start.elapsed()) {
            for id in ready(&self.epoll, rest)? {
                if self.serve(id)? {
                    self.done += 1;
                    self.clients[id] = self.begin(id)?;
                }
            }
        }
        Ok(())
    }

    /// Receives and sends until the socket blocks. Whether the client has all that it wants.
    fn serve(&mut self, id: usize) -> io::Result<bool> {
        let Client { stream, session, response, replies } = &mut self.clients[id];
        loop {
            while session.wants_write() {
                match session.write_tls(stream) {
                    Ok(_) => {}
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error),
                }
            }
            match session.read_tls(stream) {
                Ok(0) => return Err(io::Error::other("the server closed a connection")),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
            session.process_new_packets().map_err(io::Error::other)?;
            loop {
                let bytes = match session.reader().read(&mut self.buffer) {
                    Ok(bytes) => bytes,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error),
                };
                let mut send = 0;
                if let Some(head) = response {
                    head.extend(&self.buffer[..bytes]);
                    if messages::is_upgraded(head)? {
                        *response = None;
                        send = 1;
                    }
                } else if let Some(message) = &self.message {
                    send = replies.receive(&self.buffer[..bytes], message)?;
                    self.done += send;
                }
                let Some(message) = &self.message else {
                    if send > 0 {
                        return Ok(true);
                    }
                    continue;
                };
                for _ in 0..send {
                    session.writer().write_all(message.unsent(message.bytes(1)))?;
                }
            }
        }
    }
}

fn client_config() -> io::Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    let cert = CertificateDer::from_pem_file(pem("crt")).map_err(io::Error::other)?;
    roots.add(cert).map_err(io::Error::other)?;
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    // Every handshake is a whole one.
    config.resumption = Resumption::disabled();
    Ok(config)
}

fn pem(kind: &str) -> String {
    folder().join(format!("../tests/tls/ec.{kind}")).display().to_string()
}
