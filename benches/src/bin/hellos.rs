//! Measures how TLS handshakes fare beside others: beside clients that send a hello, read the first of the
//! answer and leave, in a loop, and in a herd that connects at once.
//!
//! ```sh
//! cargo run --release --manifest-path benches/Cargo.toml --bin hellos [ROUNDS [WSECHO…]]
//! ```
//!
//! In the loops the server has one core and the clients the other. The herd and its server share both. Several
//! binaries of wsecho take turns in each round.

use std::env;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::process::{Resource, Rlimit, getrlimit, nice, setrlimit};
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme, StreamOwned, version,
};
use wsecho_bench::frames::frame;
use wsecho_bench::messages;
use wsecho_bench::program::{Program, folder, free_addr, ready, wait_until_it_listens};
use wsecho_bench::stats::quantile;

type Client = StreamOwned<ClientConnection, TcpStream>;

/// How long the loops are measured.
const TIME: Duration = Duration::from_secs(4);

/// The server's handshake timeout, within which a herd has to connect.
const TIMEOUT: Duration = Duration::from_secs(10);

/// How long a measured client pauses between its handshakes, or its messages.
const PAUSE: Duration = Duration::from_millis(2);

/// How many clients loop, and how many are in the herd.
const LOOPS: [usize; 2] = [64, 512];
const HERDS: [usize; 2] = [3_500, 4_500];

/// The figures of one run, with their names.
type Figures = Vec<(&'static str, f64)>;

fn main() -> io::Result<()> {
    let mut arguments = env::args().skip(1);
    let rounds = arguments.next().map_or(Ok(3), |text| text.parse()).map_err(io::Error::other)?;
    let mut servers: Vec<_> = arguments.collect();
    if servers.is_empty() {
        servers.push(folder().join("../target/release/wsecho").display().to_string());
    }
    let descriptors = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: descriptors, maximum: descriptors })?;
    for clients in LOOPS {
        table(&format!("{clients} hellos"), rounds, &servers, |wsecho| beside(wsecho, clients))?;
    }
    for clients in HERDS {
        table(&format!("herd of {clients}"), rounds, &servers, |wsecho| herd(wsecho, clients))?;
    }
    Ok(())
}

/// Prints the median of each figure, with its lowest and highest.
fn table(
    row: &str,
    rounds: usize,
    servers: &[String],
    run: impl Fn(&str) -> io::Result<Figures>,
) -> io::Result<()> {
    let mut runs = vec![Vec::new(); servers.len()];
    for round in 0..rounds {
        for turn in 0..servers.len() {
            let server = (round + turn) % servers.len();
            runs[server].push(run(&servers[server])?);
        }
    }
    for (server, runs) in servers.iter().zip(&runs) {
        println!("{row}, {server}");
        for (figure, &(name, _)) in runs[0].iter().enumerate() {
            let mut figures: Vec<_> = runs.iter().map(|run| run[figure].1).collect();
            let [low, median, high] =
                [0.0, 0.5, 1.0].map(|share| quantile(&mut figures, share).unwrap_or(f64::NAN));
            println!("  {name}: {median:.1} ({low:.1} to {high:.1})");
        }
    }
    Ok(())
}

fn command(wsecho: &str, addr: SocketAddr, key: &str) -> Command {
    let pem = |kind| folder().join(format!("../tests/tls/{key}.{kind}"));
    let mut command = Command::new(wsecho);
    command.args(["-q", "--ping-interval=0", "--addr", &addr.to_string()]);
    command.arg("--tls-cert").arg(pem("crt")).arg("--tls-key").arg(pem("key"));
    command
}

// Loops

/// Handshakes and echoes beside `clients` that send hellos in a loop.
fn beside(wsecho: &str, clients: usize) -> io::Result<Figures> {
    let addr = free_addr()?;
    let server = Program::start(&mut command(wsecho, addr, "ec"))?;
    wait_until_it_listens(addr)?;
    let config = config()?;
    let mut open = open(addr, &config)?;
    let (is_over, answered) = (AtomicBool::new(false), AtomicUsize::new(0));
    let mut measured = thread::scope(|scope| {
        scope.spawn(|| repeat_hellos(addr, clients, &is_over, &answered));
        thread::sleep(TIME / 8);
        let handshakes = scope.spawn(|| repeat(|| self::open(addr, &config).map(drop)));
        let (before, cpu, began) =
            (answered.load(Ordering::Relaxed), server.cpu_seconds()?, Instant::now());
        let message = frame(0x81, b"20 bytes in a record");
        let echoes = repeat(|| {
            open.write_all(&message)?;
            open.read_exact(&mut [0; 2 + 18 + 20])
        })?;
        let answered = (answered.load(Ordering::Relaxed) - before) as f64;
        let (seconds, cpu) = (began.elapsed().as_secs_f64(), server.cpu_seconds()? - cpu);
        is_over.store(true, Ordering::Relaxed);
        let handshakes = handshakes.join().map_err(|_| io::Error::other("a panic"))??;
        Ok::<_, io::Error>((handshakes, echoes, answered, seconds, cpu))
    })?;
    let (handshakes, echoes, answered, seconds, cpu) = &mut measured;
    let figure = |times: &mut Vec<f64>, share| quantile(times, share).unwrap_or(f64::NAN) * 1e3;
    Ok(vec![
        ("handshake p50, ms", figure(handshakes, 0.5)),
        ("handshake p99, ms", figure(handshakes, 0.99)),
        ("echo p50, ms", figure(echoes, 0.5)),
        ("echo p99, ms", figure(echoes, 0.99)),
        ("hellos answered a second", *answered / *seconds),
        ("processor time a hello, µs", *cpu / *answered * 1e6),
    ])
}

/// The times that `work` takes, in seconds.
fn repeat(mut work: impl FnMut() -> io::Result<()>) -> io::Result<Vec<f64>> {
    let (mut times, began) = (Vec::new(), Instant::now());
    while began.elapsed() < TIME {
        let start = Instant::now();
        work()?;
        times.push(start.elapsed().as_secs_f64());
        thread::sleep(PAUSE);
    }
    Ok(times)
}

/// Sends hellos in a loop, at a lower priority than the measured clients' on the same core.
fn repeat_hellos(
    addr: SocketAddr,
    clients: usize,
    is_over: &AtomicBool,
    answered: &AtomicUsize,
) -> io::Result<()> {
    nice(10)?;
    let mut hello = Vec::new();
    session(&config()?)?.write_tls(&mut hello)?;
    let epoll = epoll::create(CreateFlags::CLOEXEC)?;
    let begin = |client: usize| {
        let mut stream = TcpStream::connect(addr)?;
        stream.write_all(&hello)?;
        epoll::add(&epoll, &stream, EventData::new_u64(client as u64), EventFlags::IN)?;
        Ok::<_, io::Error>(stream)
    };
    let mut streams = (0..clients).map(begin).collect::<Result<Vec<_>, _>>()?;
    while !is_over.load(Ordering::Relaxed) {
        for client in ready(&epoll, Duration::from_millis(100))? {
            if streams[client].read(&mut [0])? > 0 {
                answered.fetch_add(1, Ordering::Relaxed);
            }
            streams[client] = begin(client)?;
        }
    }
    Ok(())
}

// Herds

/// A herd of `clients` that connect at once to a server with the slowest kind of key.
fn herd(wsecho: &str, clients: usize) -> io::Result<Figures> {
    let addr = free_addr()?;
    let server = Program::start_on_all_cores(&mut command(wsecho, addr, "rsa"))?;
    wait_until_it_listens(addr)?;
    let config = config()?;
    drop(open(addr, &config)?);
    let epoll = epoll::create(CreateFlags::CLOEXEC)?;
    let (mut herd, mut answered, mut connected) = (Vec::new(), Vec::new(), Vec::new());
    let (cpu, began) = (server.cpu_seconds()?, Instant::now());
    while began.elapsed() < TIMEOUT * 12 / 10 && connected.len() < clients {
        // A few at a time, so that the first answer is read when it comes.
        for client in herd.len()..clients.min(herd.len() + 20) {
            let stream = TcpStream::connect(addr)?;
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
            let data = EventData::new_u64(client as u64);
            epoll::add(&epoll, &stream, data, EventFlags::IN | EventFlags::ET)?;
            let mut client = StreamOwned::new(session(&config)?, stream);
            advance(&mut client)?;
            herd.push(Some(client));
        }
        let wait = if herd.len() < clients { 0 } else { 100 };
        for id in ready(&epoll, Duration::from_millis(wait))? {
            let Some(client) = &mut herd[id] else { continue };
            let was_answered = client.conn.protocol_version().is_some();
            let is_connected = advance(client);
            let now = began.elapsed().as_secs_f64() * 1e3;
            if !was_answered && client.conn.protocol_version().is_some() {
                answered.push(now);
            }
            match is_connected {
                Ok(true) => connected.push(now),
                Ok(false) => {}
                Err(_) => herd[id] = None,
            }
        }
    }
    let cpu = server.cpu_seconds()? - cpu;
    let first = |times: &[f64]| times.first().copied().unwrap_or(f64::NAN);
    Ok(vec![
        ("connected", connected.len() as f64),
        ("answered", answered.len() as f64),
        ("first answered, ms", first(&answered)),
        ("first connected, ms", first(&connected)),
        ("last connected, ms", connected.last().copied().unwrap_or(f64::NAN)),
        ("processor time, s", cpu),
        ("processor time a connection, ms", cpu / connected.len() as f64 * 1e3),
    ])
}

/// Sends and receives what it can. Whether this has opened the WebSocket.
fn advance(client: &mut Client) -> io::Result<bool> {
    let Client { conn, sock, .. } = client;
    let mut response = Vec::new();
    loop {
        while conn.wants_write() {
            conn.write_tls(sock)?;
        }
        match conn.read_tls(sock) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                return messages::is_upgraded(&response);
            }
            Err(error) => return Err(error),
        }
        let bytes = conn.process_new_packets().map_err(io::Error::other)?.plaintext_bytes_to_read();
        let read = response.len();
        response.resize(read + bytes, 0);
        conn.reader().read_exact(&mut response[read..])?;
    }
}

// Clients

/// Opens a WebSocket, and waits for each answer.
fn open(addr: SocketAddr, config: &Arc<ClientConfig>) -> io::Result<Client> {
    let stream = TcpStream::connect(addr)?;
    stream.set_nodelay(true)?;
    let mut client = StreamOwned::new(session(config)?, stream);
    let mut response = Vec::new();
    while !messages::is_upgraded(&response)? {
        client.flush()?;
        let mut part = [0; 1024];
        let bytes = client.read(&mut part)?;
        response.extend(&part[..bytes]);
        if bytes == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(client)
}

/// A session that asks for a WebSocket.
fn session(config: &Arc<ClientConfig>) -> io::Result<ClientConnection> {
    let name = "localhost".try_into().map_err(io::Error::other)?;
    let mut session = ClientConnection::new(Arc::clone(config), name).map_err(io::Error::other)?;
    session.writer().write_all(messages::REQUEST)?;
    Ok(session)
}

/// Whole handshakes in TLS 1.3, as cheap for the client as they can be.
fn config() -> io::Result<Arc<ClientConfig>> {
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&version::TLS13])
        .map_err(io::Error::other)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Unverified))
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

/// Verifies nothing: the clients' work would take time from the server's.
#[derive(Debug)]
struct Unverified;

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        ring::default_provider().signature_verification_algorithms.supported_schemes()
    }
}
