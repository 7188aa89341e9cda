//! Measures how long one client's compressed message takes while others send what costs the most to
//! inflate and to deflate.
//!
//! Servers and clients share all cores. Several binaries of wsecho take turns in each round.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use wsecho_bench::compressed::{COMPRESSED_TEXT, compress};
use wsecho_bench::frames::{Random, frame};
use wsecho_bench::messages;
use wsecho_bench::stats::quantile;

use crate::rows::Wire;
use crate::servers::{self, Kind, Programs, Server};

const TIME: Duration = Duration::from_secs(4);

/// How long the measured client pauses between its messages.
const PAUSE: Duration = Duration::from_millis(2);

/// FIN, RSV1 and the opcode of a binary message.
const COMPRESSED_BINARY: u8 = 0xC2;

const CLOSE: u8 = 0x88;

/// What the neighbors send, compressed, and how many of them there are.
struct Row {
    name: &'static str,
    neighbors: usize,
    offer: &'static str,
    payload: Vec<u8>,
}

fn rows() -> Vec<Row> {
    const OFFER: &str = messages::COMPRESSION_OF_EACH;
    const SMALL_WINDOW: &str = "Sec-WebSocket-Extensions: permessage-deflate; \
         server_no_context_takeover; server_max_window_bits=9\r\n";
    // Repeated farther back than the smallest window reaches.
    let repeated = Random(1).bytes(600).into_iter().cycle().take(16 << 20).collect::<Vec<_>>();
    let bomb = || compress(&vec![0; 16 << 20], 9);
    let streams = [0x03, 0x00].repeat(16_000);
    [
        ("nothing", 0, OFFER, Vec::new()),
        ("16 MiB of zeros", 16, OFFER, bomb()),
        ("16 MiB of zeros", 64, OFFER, bomb()),
        ("16 MiB in a window of 512 bytes", 64, SMALL_WINDOW, compress(&repeated, 9)),
        ("18 MiB of empty blocks", 16, OFFER, empty_blocks(18 << 20)),
        ("32 KiB of streams", 64, OFFER, streams),
    ]
    .map(|(name, neighbors, offer, payload)| Row { name, neighbors, offer, payload })
    .into()
}

pub fn run(rounds: usize, mut servers: Vec<String>) -> io::Result<()> {
    if servers.is_empty() {
        servers.push(servers::wsecho()?);
    }
    println!("| neighbors send | server | {} |", FIGURES.join(" | "));
    println!("{}", "|---".repeat(FIGURES.len() + 2) + "|");
    for row in rows() {
        let mut samples = vec![Vec::new(); servers.len()];
        for round in 0..rounds {
            for turn in 0..servers.len() {
                let server = (round + turn) % servers.len();
                samples[server].push(sample(&servers[server], &row)?);
            }
        }
        for (server, samples) in servers.iter().zip(&samples) {
            let median = |place: usize| {
                let mut figures: Vec<_> = samples.iter().map(|sample| sample[place]).collect();
                format!("{:.1}", quantile(&mut figures, 0.5).unwrap_or(f64::NAN))
            };
            let medians: Vec<_> = (0..FIGURES.len()).map(median).collect();
            let Row { name, neighbors, .. } = row;
            println!("| {name}, {neighbors} clients | {server} | {} |", medians.join(" | "));
        }
    }
    Ok(())
}

/// Of the measured client, of its neighbors, and of the server. A message is refused by a Close.
const FIGURES: [&str; 7] = [
    "hello p50, ms",
    "p99",
    "slowest",
    "refused",
    "neighbors' messages a second",
    "refused",
    "most resident, MiB",
];

fn sample(wsecho: &str, row: &Row) -> io::Result<[f64; FIGURES.len()]> {
    let wsecho = wsecho.to_owned();
    let programs = Programs { wsecho, against: None, uwebsockets: None };
    // The wait for a reply may be long, and nobody is to be closed for it.
    let patient = ["--ping-interval=0", "--write-timeout=10m"].map(str::to_owned);
    let server = Server::start(Kind::Wsecho, &programs, Wire::Plain, None, 100, &patient)?;
    let addr = server.address;
    let hello = frame(COMPRESSED_TEXT, &compress(b"hello", 9));
    let message = frame(COMPRESSED_BINARY, &row.payload);
    let is_over = AtomicBool::new(false);
    let [answered, refused] = [const { AtomicUsize::new(0) }; 2];
    let neighbor = || {
        while !is_over.load(Ordering::Relaxed) {
            let Ok(mut stream) = connect(addr, row.offer) else { continue };
            while let Ok(first) = echo(&mut stream, &message) {
                let counter = if first == CLOSE { &refused } else { &answered };
                counter.fetch_add(1, Ordering::Relaxed);
                if first == CLOSE || is_over.load(Ordering::Relaxed) {
                    break;
                }
            }
        }
    };
    let measure = || {
        thread::sleep(TIME / 4);
        let counts = || [&answered, &refused].map(|count| count.load(Ordering::Relaxed) as f64);
        let (before, start) = (counts(), Instant::now());
        let (mut times, mut own_refused) = (Vec::new(), 0.0);
        let mut stream = connect(addr, messages::COMPRESSION_OF_EACH)?;
        while start.elapsed() < TIME {
            let sent = Instant::now();
            if echo(&mut stream, &hello)? == CLOSE {
                own_refused += 1.0;
                stream = connect(addr, messages::COMPRESSION_OF_EACH)?;
            } else {
                times.push(1e3 * sent.elapsed().as_secs_f64());
            }
            thread::sleep(PAUSE);
        }
        let (seconds, after) = (start.elapsed().as_secs_f64(), counts());
        let [p50, p99, slowest] =
            [0.5, 0.99, 1.0].map(|q| quantile(&mut times, q).unwrap_or(f64::NAN));
        let [answered, refused] = [0, 1].map(|count| after[count] - before[count]);
        let rate = (answered + refused) / seconds;
        Ok([p50, p99, slowest, own_refused, rate, refused, server.memory()?.peak / 1024.0])
    };
    thread::scope(|scope| {
        (0..row.neighbors).for_each(|_| drop(scope.spawn(neighbor)));
        let measured = measure();
        is_over.store(true, Ordering::Relaxed);
        measured
    })
}

/// Opens a WebSocket with compression.
fn connect(addr: SocketAddr, offer: &str) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect(addr)?;
    stream.set_nodelay(true)?;
    let request = messages::request(offer);
    stream.write_all(&request)?;
    let mut response = Vec::new();
    while !messages::is_upgraded(&response, &request)? {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        response.push(byte[0]);
    }
    Ok(stream)
}

/// Sends a message, and returns the first byte of the reply once it has come whole.
fn echo(stream: &mut TcpStream, message: &[u8]) -> io::Result<u8> {
    stream.write_all(message)?;
    let mut header = [0; 2];
    stream.read_exact(&mut header)?;
    let len = match header[1] {
        len @ 0..126 => u64::from(len),
        126 => {
            let mut len = [0; 2];
            stream.read_exact(&mut len)?;
            u64::from(u16::from_be_bytes(len))
        }
        _ => {
            let mut len = [0; 8];
            stream.read_exact(&mut len)?;
            u64::from_be_bytes(len)
        }
    };
    let payload = io::copy(&mut (&*stream).take(len), &mut io::sink())?;
    if payload < len {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    if header[0] == CLOSE {
        stream.shutdown(Shutdown::Both)?;
    }
    Ok(header[0])
}

/// About `len` bytes of blocks that have codes of their own and no content (RFC 1951 §3.2.7).
fn empty_blocks(len: usize) -> Vec<u8> {
    let mut bits: Vec<bool> = Vec::new();
    let mut put = |value: u32, count: u32| bits.extend((0..count).map(|bit| value >> bit & 1 == 1));
    for _ in 0..8 {
        put(0b100, 3);
        // 257 literals, one distance, and 18 lengths of the codes that the lengths of theirs have: 1 for
        // the symbols 18 and 1.
        put(0, 10);
        put(14, 4);
        for place in 0..18 {
            put(u32::from(place == 2 || place == 17), 3);
        }
        // 256 literals that are not used, the end of the block, and a distance.
        put(1, 1);
        put(138 - 11, 7);
        put(1, 1);
        put(118 - 11, 7);
        put(0, 2);
        put(0, 1);
    }
    let bytes = bits
        .chunks(8)
        .map(|byte| byte.iter().rev().fold(0, |byte, &bit| byte << 1 | u8::from(bit)));
    let mut blocks = bytes.collect::<Vec<_>>().repeat(len / (bits.len() / 8));
    blocks.push(0x00);
    blocks
}
