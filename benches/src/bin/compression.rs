//! Measures wsecho's permessage-deflate beside npm's ws, Python's websockets and uWebSockets.
//!
//! ```sh
//! (cd tests/clients && npm ci && pip install -r requirements.txt)
//! cargo run --release --manifest-path benches/Cargo.toml --bin compression [ROUNDS [WSECHO]]
//! ```
//!
//! NODE, PYTHON and UWEBSOCKETS in the environment name the programs; without the last one
//! uWebSockets is left out. The servers have one core and the clients the other. The clients send what was compressed
//! beforehand, each message on its own, which is valid with context takeover, too. They count replies
//! by their headers, and inflate one in 64 and the first of each client; with takeover only the
//! first, since a later one may refer to all that came before it.

use std::env;
use std::fmt::Write as _;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::fd::OwnedFd;
use wsecho_bench::messages;
use wsecho_bench::program::{Program, folder, free_addr, pin, ready, wait_until_it_listens};
use wsecho_bench::stats::quantile;
use zlib_rs::{Deflate, DeflateFlush, Inflate, InflateFlush};

const WARM_UP: Duration = Duration::from_millis(150);
const ECHO_TIME: Duration = Duration::from_millis(750);

/// The clients, and the bytes of each message before compression.
const ROWS: [(&str, usize, usize); 2] =
    [("1 KiB, 100 clients", 100, 1 << 10), ("64 KiB, 10 clients", 10, 64 << 10)];

const MODES: [&str; 2] = ["no-context-takeover", "context-takeover"];

/// The servers and the level that each compresses with: its default, and wsecho's. uWebSockets' is fixed.
const SERVERS: [(&str, u8); 6] =
    [("wsecho", 1), ("ws", 6), ("ws", 1), ("websockets", 6), ("websockets", 1), ("uWebSockets", 6)];

/// So many different messages follow one another that the window has forgotten one when it comes again.
const MESSAGES: usize = 64;

fn main() -> io::Result<()> {
    let mut arguments = env::args().skip(1);
    let rounds = arguments.next().map_or(Ok(5), |text| text.parse()).map_err(io::Error::other)?;
    let wsecho = arguments
        .next()
        .unwrap_or_else(|| folder().join("../target/release/wsecho").display().to_string());
    let uwebsockets = env::var("UWEBSOCKETS").ok();
    if uwebsockets.is_none() {
        eprintln!(
            "uWebSockets is left out: UWEBSOCKETS=PATH names what uwebsockets/build.sh built"
        );
    }
    let servers: Vec<_> = SERVERS
        .into_iter()
        .filter(|(name, _)| *name != "uWebSockets" || uwebsockets.is_some())
        .collect();
    pin(1)?;
    println!(
        "| work | mode | server, level | a second | its core busy | reply, bytes | wsecho's ratio to it |"
    );
    println!("|---|---|---|---|---|---|---|");
    for (work, clients, size) in ROWS {
        let messages: Vec<_> = (0..MESSAGES).map(|seed| Message::new(seed, size)).collect();
        for mode in MODES {
            let mut samples = vec![Vec::new(); servers.len()];
            for round in 0..rounds {
                for turn in 0..servers.len() {
                    let server = (round + turn) % servers.len();
                    let (name, level) = servers[server];
                    let addr = free_addr()?;
                    let mut command = match name {
                        "wsecho" => {
                            let mut command = Command::new(&wsecho);
                            command.args(["-q", "--prefix", "", "--compression", mode]);
                            command.args(["--addr", &addr.to_string()]);
                            command
                        }
                        "uWebSockets" => Command::new(uwebsockets.as_deref().unwrap_or_default()),
                        "ws" => script("NODE", "node", "echo-ws.mjs"),
                        _ => script("PYTHON", "python3", "echo-websockets.py"),
                    };
                    if name != "wsecho" {
                        command.args([&addr.port().to_string(), mode, &level.to_string()]);
                    }
                    let sample = sample(&mut command, addr, mode, clients, &messages)
                        .map_err(|error| io::Error::other(format!("{name}, {mode}: {error}")))?;
                    samples[server].push(sample);
                }
            }
            let own: Vec<_> = samples[0].iter().map(|sample| sample.rate).collect();
            for ((name, level), samples) in servers.iter().zip(&samples) {
                let of =
                    |figure: fn(&Sample) -> f64| samples.iter().map(figure).collect::<Vec<_>>();
                let rates = of(|sample| sample.rate);
                let ratios = own.iter().zip(&rates).map(|(own, its)| own / its).collect();
                println!(
                    "| {work} | {mode} | {name}, {level} | {} | {:.0} % | {:.0} | {} |",
                    quartiles(rates, 0),
                    quantile(&mut of(|sample| sample.busy), 0.5).unwrap_or(f64::NAN) * 100.0,
                    quantile(&mut of(|sample| sample.reply), 0.5).unwrap_or(f64::NAN),
                    quartiles(ratios, 2),
                );
            }
        }
    }
    Ok(())
}

fn script(variable: &str, default: &str, name: &str) -> Command {
    let mut command = Command::new(env::var(variable).unwrap_or_else(|_| default.to_owned()));
    command.arg(folder().join("compression").join(name));
    command
}

/// The median, and in parentheses the quartiles.
fn quartiles(mut figures: Vec<f64>, digits: usize) -> String {
    let [below, median, above] =
        [0.25, 0.5, 0.75].map(|q| quantile(&mut figures, q).unwrap_or(f64::NAN));
    format!("{median:.digits$} ({below:.digits$}–{above:.digits$})")
}

/// What a new server does.
#[derive(Clone)]
struct Sample {
    /// Messages a second.
    rate: f64,
    /// How much of its core it used: well below 1, the clients bound the rate.
    busy: f64,
    /// The mean payload of a reply, in bytes.
    reply: f64,
}

fn sample(
    server: &mut Command,
    addr: SocketAddr,
    mode: &str,
    clients: usize,
    messages: &[Message],
) -> io::Result<Sample> {
    let program = Program::start(server)?;
    wait_until_it_listens(addr)?;
    let stateless = mode == "no-context-takeover";
    let mut load = Load::new(addr, stateless, clients, messages)?;
    load.run_for(WARM_UP)?;
    (load.done, load.received) = (0, 0);
    let (before, began) = (program.cpu_seconds()?, Instant::now());
    load.run_for(ECHO_TIME)?;
    let (seconds, done) = (began.elapsed().as_secs_f64(), load.done as f64);
    Ok(Sample {
        rate: done / seconds,
        busy: (program.cpu_seconds()? - before) / seconds,
        reply: load.received as f64 / done,
    })
}

struct Message {
    text: Vec<u8>,
    /// A compressed and masked frame.
    frame: Vec<u8>,
}

impl Message {
    fn new(seed: usize, size: usize) -> Self {
        const MASKING_KEY: [u8; 4] = [0x37, 0xFA, 0x21, 0x3D];
        let text = json(seed as u32, size);
        let payload = compress(&text);
        let mut frame = vec![COMPRESSED_TEXT];
        match payload.len() {
            len @ 0..126 => frame.push(0x80 | len as u8),
            len => {
                frame.push(0x80 | 126);
                frame.extend((len as u16).to_be_bytes());
            }
        }
        frame.extend(MASKING_KEY);
        frame.extend(payload.iter().zip(MASKING_KEY.iter().cycle()).map(|(byte, key)| byte ^ key));
        Message { text, frame }
    }
}

/// FIN, RSV1 and the opcode of a text: a whole compressed message.
const COMPRESSED_TEXT: u8 = 0xC1;

/// An array of records as a service sends them, cut at `size` bytes.
fn json(seed: u32, size: usize) -> Vec<u8> {
    const WORDS: [&str; 12] = [
        "amber", "basin", "cedar", "delta", "ember", "fjord", "grove", "haven", "inlet", "juniper",
        "knoll", "lagoon",
    ];
    let mut state = seed.wrapping_add(1);
    let mut random = |below: u32| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) % below
    };
    let mut text = String::from("[");
    while text.len() < size {
        let (id, user) = (random(1 << 24), random(10_000));
        let [first, second] = [random(12), random(12)].map(|word| WORDS[word as usize]);
        let (price, cents, active) = (random(500), random(100), random(2) == 0);
        // Writing to a string does not fail.
        let _ = write!(
            text,
            r#"{{"id":{id},"user":"user{user}","title":"{first} {second}","price":{price}.{cents:02},"active":{active}}},"#,
        );
    }
    text.truncate(size);
    text.into_bytes()
}

/// Compresses as browsers do by default (RFC 7692 §7.2.1), without a context.
fn compress(text: &[u8]) -> Vec<u8> {
    let mut deflate = Deflate::new(6, false, 15);
    let mut out = vec![0; text.len() + 1024];
    // There is room for all of it.
    let _ = deflate.compress(text, &mut out, DeflateFlush::SyncFlush);
    out.truncate(deflate.total_out() as usize - 4);
    out
}

/// Whether `payload` is `text`, compressed without a context (RFC 7692 §7.2.2).
fn inflates_to(payload: &[u8], text: &[u8]) -> bool {
    let mut inflate = Inflate::new(false, 15);
    let mut out = vec![0; text.len() + 1];
    let input = [payload, &[0, 0, 0xFF, 0xFF]].concat();
    inflate.decompress(&input, &mut out, InflateFlush::NoFlush).is_ok()
        && out[..inflate.total_out() as usize] == *text
}

// Clients

/// Clients in one event loop, each of which sends its next message when the last one's reply has come.
struct Load<'m> {
    messages: &'m [Message],
    stateless: bool,
    clients: Vec<Client>,
    epoll: OwnedFd,
    buffer: Vec<u8>,
    /// The replies, and the bytes of their payloads.
    done: usize,
    received: usize,
}

struct Client {
    stream: TcpStream,
    /// What has come of the reply.
    reply: Vec<u8>,
    complete: usize,
}

impl<'m> Load<'m> {
    fn new(
        addr: SocketAddr,
        stateless: bool,
        clients: usize,
        messages: &'m [Message],
    ) -> io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let clients = (0..clients)
            .map(|_| Client::connect(addr, stateless))
            .collect::<io::Result<Vec<_>>>()?;
        for (id, client) in clients.iter().enumerate() {
            epoll::add(&epoll, &client.stream, EventData::new_u64(id as u64), EventFlags::IN)?;
            // Clients are at different messages.
            (&client.stream).write_all(&messages[id % messages.len()].frame)?;
        }
        let buffer = vec![0; 256 << 10];
        Ok(Load { messages, stateless, clients, epoll, buffer, done: 0, received: 0 })
    }

    fn run_for(&mut self, time: Duration) -> io::Result<()> {
        let start = Instant::now();
        while let Some(rest) = time.checked_sub(start.elapsed()) {
            for id in ready(&self.epoll, rest)? {
                self.serve(id)?;
            }
        }
        Ok(())
    }

    /// Receives once, and sends the next message if the reply is complete.
    fn serve(&mut self, id: usize) -> io::Result<()> {
        let Client { stream, reply, complete } = &mut self.clients[id];
        let bytes = stream.read(&mut self.buffer)?;
        if bytes == 0 {
            return Err(io::Error::other("the server closed a connection"));
        }
        reply.extend(&self.buffer[..bytes]);
        let Some(header) = header_len(reply)? else { return Ok(()) };
        let payload = match *reply.as_slice() {
            [_, 127, a, b, c, d, e, f, g, h, ..] => {
                u64::from_be_bytes([a, b, c, d, e, f, g, h]) as usize
            }
            [_, 126, a, b, ..] => usize::from(u16::from_be_bytes([a, b])),
            _ => usize::from(reply[1]),
        };
        if reply.len() < header + payload {
            return Ok(());
        }
        let at = |complete: usize| &self.messages[(id + complete) % self.messages.len()];
        // A client has one message under way, so nothing may follow its reply.
        let sampled = if self.stateless { *complete % 64 == 0 } else { *complete == 0 };
        if reply.len() > header + payload
            || sampled && !inflates_to(&reply[header..], &at(*complete).text)
        {
            return Err(io::Error::other("a reply is not the echo of its message"));
        }
        reply.clear();
        *complete += 1;
        self.done += 1;
        self.received += payload;
        stream.write_all(&at(*complete).frame)
    }
}

/// How long the header of an unmasked frame is, once it has come whole. An error unless the frame is a
/// whole compressed text.
fn header_len(frame: &[u8]) -> io::Result<Option<usize>> {
    let [first, length, ..] = *frame else { return Ok(None) };
    if first != COMPRESSED_TEXT {
        return Err(io::Error::other(format!("a frame begins with {first:#04x}")));
    }
    let len = match length {
        0..126 => 2,
        126 => 4,
        127 => 10,
        _ => return Err(io::Error::other("the server masks")),
    };
    Ok((frame.len() >= len).then_some(len))
}

impl Client {
    /// Connects and offers compression. An error unless the server agrees to `stateless`.
    fn connect(addr: SocketAddr, stateless: bool) -> io::Result<Self> {
        let mut stream = TcpStream::connect(addr)?;
        stream.set_nodelay(true)?;
        stream.write_all(messages::REQUEST.trim_ascii_end())?;
        stream.write_all(b"\r\nSec-WebSocket-Extensions: permessage-deflate")?;
        if stateless {
            stream.write_all(b"; server_no_context_takeover; client_no_context_takeover")?;
        }
        stream.write_all(b"\r\n\r\n")?;
        let mut response = Vec::new();
        while !messages::is_upgraded(&response)? {
            let mut buffer = [0; 1024];
            let bytes = stream.read(&mut buffer)?;
            if bytes == 0 {
                return Err(io::Error::other("the server closed a connection"));
            }
            response.extend(&buffer[..bytes]);
        }
        let response = String::from_utf8_lossy(&response).to_ascii_lowercase();
        if !response.contains("permessage-deflate")
            || response.contains("server_no_context_takeover") != stateless
        {
            return Err(io::Error::other(format!("another compression is agreed: {response}")));
        }
        Ok(Client { stream, reply: Vec::new(), complete: 0 })
    }
}
