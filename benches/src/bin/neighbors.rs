//! Measures how long one client's compressed message takes while others send what costs the most to
//! inflate and to deflate.
//!
//! ```sh
//! cargo run --release --manifest-path benches/Cargo.toml --bin neighbors [ROUNDS [WSECHO…]]
//! ```
//!
//! Servers and clients share all cores. Several binaries of wsecho take turns in each round.

use std::env;
use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use wsecho_bench::frames::frame;
use wsecho_bench::messages;
use wsecho_bench::program::{Program, folder, free_addr, wait_until_it_listens};
use wsecho_bench::stats::quantile;
use zlib_rs::{Deflate, DeflateFlush};

const TIME: Duration = Duration::from_secs(4);

/// How long the measured client pauses between its messages.
const PAUSE: Duration = Duration::from_millis(2);

/// FIN, RSV1 and the opcode: a whole compressed message.
const TEXT: u8 = 0xC1;
const BINARY: u8 = 0xC2;

const CLOSE: u8 = 0x88;

/// What the neighbors send, compressed, and how many of them there are.
struct Row {
    name: &'static str,
    neighbors: usize,
    offer: &'static str,
    payload: Vec<u8>,
}

fn rows() -> Vec<Row> {
    const OFFER: &str = "permessage-deflate";
    let mut random = 1_u32;
    // Repeated farther back than the smallest window reaches.
    let block: Vec<u8> = (0..600)
        .map(|_| {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (random >> 24) as u8
        })
        .collect();
    let repeated: Vec<u8> = block.iter().copied().cycle().take(16 << 20).collect();
    let bomb = compress(&vec![0; 16 << 20]);
    let far = compress(&repeated);
    let row = |name, neighbors, offer, payload: &Vec<u8>| Row {
        name,
        neighbors,
        offer,
        payload: payload.clone(),
    };
    vec![
        row("nothing", 0, OFFER, &bomb),
        row("16 MiB of zeros", 16, OFFER, &bomb),
        row("16 MiB of zeros", 64, OFFER, &bomb),
        row(
            "16 MiB in a window of 512 bytes",
            64,
            "permessage-deflate; server_max_window_bits=9",
            &far,
        ),
        row("18 MiB of empty blocks", 16, OFFER, &empty_blocks(18 << 20)),
        row("32 KiB of streams", 64, OFFER, &[0x03, 0x00].repeat(16_000)),
    ]
}

fn main() -> io::Result<()> {
    let mut arguments = env::args().skip(1);
    let rounds = arguments.next().map_or(Ok(3), |text| text.parse()).map_err(io::Error::other)?;
    let mut servers: Vec<_> = arguments.collect();
    if servers.is_empty() {
        servers.push(folder().join("../target/release/wsecho").display().to_string());
    }
    println!(
        "| neighbors send | server | hello p50, ms | p99 | slowest | refused | neighbors' messages a second | refused | resident, MiB |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    for row in rows() {
        let mut samples = vec![Vec::new(); servers.len()];
        for round in 0..rounds {
            for turn in 0..servers.len() {
                let server = (round + turn) % servers.len();
                samples[server].push(sample(&servers[server], &row)?);
            }
        }
        for (server, samples) in servers.iter().zip(&samples) {
            let median = |figure: fn(&Sample) -> f64| {
                let mut figures: Vec<_> = samples.iter().map(figure).collect();
                quantile(&mut figures, 0.5).unwrap_or(f64::NAN)
            };
            println!(
                "| {}, {} clients | {server} | {:.2} | {:.1} | {:.0} | {:.0} | {:.0} | {:.0} | {:.0} |",
                row.name,
                row.neighbors,
                median(|sample| sample.p50) * 1e3,
                median(|sample| sample.p99) * 1e3,
                median(|sample| sample.slowest) * 1e3,
                median(|sample| sample.refused as f64),
                median(|sample| sample.neighbors_rate),
                median(|sample| sample.neighbors_refused),
                median(|sample| sample.resident as f64 / 1024.0),
            );
        }
    }
    Ok(())
}

#[derive(Clone)]
struct Sample {
    p50: f64,
    p99: f64,
    slowest: f64,
    /// How many of the measured client's messages were answered by a Close.
    refused: usize,
    /// Answered or refused, in a second.
    neighbors_rate: f64,
    neighbors_refused: f64,
    /// The most memory that was resident, in KiB.
    resident: usize,
}

fn sample(wsecho: &str, row: &Row) -> io::Result<Sample> {
    let addr = free_addr()?;
    let mut command = Command::new(wsecho);
    // The wait for a reply may be long, and nobody is to be closed for it.
    command.args(["-q", "--ping-interval=0", "--write-timeout=10m", "--addr", &addr.to_string()]);
    let server = Program::start_on_all_cores(&mut command)?;
    wait_until_it_listens(addr)?;
    let hello = frame(TEXT, &compress(b"hello"));
    let message = frame(BINARY, &row.payload);
    let is_over = AtomicBool::new(false);
    let [answered, closed] = [const { AtomicUsize::new(0) }; 2];
    let mut times = Vec::new();
    let mut refused = 0;
    let (rate, neighbors_refused) = thread::scope(|scope| {
        for _ in 0..row.neighbors {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    let Ok(mut stream) = connect(addr, row.offer) else { continue };
                    while let Ok(first) = echo(&mut stream, &message) {
                        if first == CLOSE {
                            closed.fetch_add(1, Ordering::Relaxed);
                            break;
                        }
                        answered.fetch_add(1, Ordering::Relaxed);
                        if is_over.load(Ordering::Relaxed) {
                            return;
                        }
                    }
                }
            });
        }
        thread::sleep(TIME / 4);
        let done = || {
            let done = [&answered, &closed].map(|counter| counter.load(Ordering::Relaxed));
            (done[0] + done[1], done[1])
        };
        let (before, began) = (done(), Instant::now());
        let mut stream = connect(addr, "permessage-deflate")?;
        while began.elapsed() < TIME {
            let start = Instant::now();
            if echo(&mut stream, &hello)? == CLOSE {
                refused += 1;
                stream = connect(addr, "permessage-deflate")?;
            } else {
                times.push(start.elapsed().as_secs_f64());
            }
            thread::sleep(PAUSE);
        }
        let (seconds, after) = (began.elapsed().as_secs_f64(), done());
        is_over.store(true, Ordering::Relaxed);
        let resident = server.peak_resident()?;
        Ok::<_, io::Error>((
            (after.0 - before.0) as f64 / seconds,
            (after.1 - before.1) as f64,
            resident,
        ))
    })
    .map(|(rate, refused, resident)| ((rate, resident), refused))?;
    let figure = |times: &mut Vec<f64>, q| quantile(times, q).unwrap_or(f64::NAN);
    Ok(Sample {
        p50: figure(&mut times, 0.5),
        p99: figure(&mut times, 0.99),
        slowest: figure(&mut times, 1.0),
        refused,
        neighbors_rate: rate.0,
        neighbors_refused,
        resident: rate.1,
    })
}

/// Opens a WebSocket with compression.
fn connect(addr: SocketAddr, offer: &str) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect(addr)?;
    stream.set_nodelay(true)?;
    stream.write_all(messages::REQUEST.trim_ascii_end())?;
    write!(stream, "\r\nSec-WebSocket-Extensions: {offer}\r\n\r\n")?;
    let mut response = Vec::new();
    while !messages::is_upgraded(&response)? {
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

/// Compresses a message on its own (RFC 7692 §7.2.1).
fn compress(message: &[u8]) -> Vec<u8> {
    let mut deflate = Deflate::new(9, false, 15);
    let mut payload = vec![0; message.len() + message.len() / 8 + 1024];
    // There is room for all of it.
    let _ = deflate.compress(message, &mut payload, DeflateFlush::SyncFlush);
    payload.truncate(deflate.total_out() as usize - 4);
    payload
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
