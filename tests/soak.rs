//! Clients of every kind at once, at random, for as long as one likes: the well-behaved notice nothing.
//!
//! `WSECHO_SOAK_SECONDS` says how long (60), `WSECHO_SOAK_SEED` repeats a run as far as the network
//! lets it:
//!
//! ```text
//! WSECHO_SOAK_SECONDS=30 cargo test --release --test soak -- --ignored --nocapture
//! ```

#![cfg(target_os = "linux")]

mod attack;
mod common;

use std::fs;
use std::io::Write as _;
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use attack::{connect_from, is_ended_within, open_taking, reset, write_until_stuck};
use common::{SOON, Scratch, Server, UPGRADE, frame, read_frame, read_head};

/// How many clients of each sort there are at any time.
const WELL_BEHAVED: u64 = 40;
const MISBEHAVING: u64 = 40;

/// Short, so that each of them passes often; long enough for a well-behaved client on a busy machine.
const FLAGS: [&str; 6] = [
    "--handshake-timeout=3s",
    "--ping-interval=1s",
    "--ping-timeout=5s",
    "--write-timeout=3s",
    "--close-timeout=2s",
    // Little, so that it is often gone. What is well-behaved here needs none of it.
    "--max-buffered=8MiB",
];

#[test]
#[ignore = "takes a minute, or WSECHO_SOAK_SECONDS"]
fn well_behaved_clients_notice_nothing_of_the_others() {
    let from_env = |name| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let time = Duration::from_secs(from_env("WSECHO_SOAK_SECONDS").unwrap_or(60));
    let seed = from_env("WSECHO_SOAK_SEED").unwrap_or_else(|| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        u64::from(now.subsec_nanos())
    });
    println!("WSECHO_SOAK_SECONDS={} WSECHO_SOAK_SEED={seed}", time.as_secs());

    let scratch = Scratch::new("soak");
    let log = scratch.path("wsecho.log");
    let server = Server::start_with_log_file(&log, &FLAGS);
    let before = server.at_rest();
    let end = Instant::now() + time;
    let replies = AtomicUsize::new(0);
    let attacks = MISDEEDS.map(|_| AtomicUsize::new(0));
    thread::scope(|scope| {
        for client in 0..WELL_BEHAVED {
            let (server, replies) = (&server, &replies);
            scope.spawn(move || {
                let mut random = Random::new(seed, client);
                while Instant::now() < end {
                    replies.fetch_add(talk(server, &mut random), Ordering::Relaxed);
                }
            });
        }
        for client in 0..MISBEHAVING {
            let (server, attacks) = (&server, &attacks);
            scope.spawn(move || {
                let mut random = Random::new(seed, WELL_BEHAVED + client);
                while Instant::now() < end {
                    let misdeed = random.below(MISDEEDS.len());
                    MISDEEDS[misdeed].1(server, &mut random);
                    attacks[misdeed].fetch_add(1, Ordering::Relaxed);
                    random.pause();
                }
            });
        }
    });
    server.has_recovered(before);

    println!("{} replies, none lost or wrong", replies.into_inner());
    for ((name, _), count) in MISDEEDS.iter().zip(attacks) {
        let count = count.into_inner();
        println!("{count} clients {name}");
        assert!(count > 0 || time < Duration::from_secs(30), "no client {name}");
    }
    println!("before: {before:?}\nafter:  {:?}", server.figures());
    let log = fs::read_to_string(log).unwrap();
    let alarming: Vec<_> = log.lines().filter(|line| !line.contains(" INFO ")).collect();
    assert!(alarming.is_empty(), "{alarming:#?}");
}

/// SplitMix64: a different course for each seed and each client, and the same for the same.
struct Random(u64);

impl Random {
    fn new(seed: u64, client: u64) -> Self {
        let mut random = Random(seed);
        random.0 = random.next() ^ client;
        random
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    /// Printable, so that it is text as well.
    fn payload(&mut self) -> Vec<u8> {
        let longest = [10, 126, 2_000, 64 * 1024][self.below(4)];
        let len = self.below(longest + 1);
        (0..len).map(|_| b' ' + self.below(95) as u8).collect()
    }

    fn rubbish(&mut self) -> Vec<u8> {
        let len = 1 + self.below(2_000);
        (0..len).map(|_| self.next() as u8).collect()
    }

    fn pause(&mut self) {
        thread::sleep(Duration::from_millis(self.below(200) as u64));
    }
}

/// One well-behaved client, from its first byte to its last. Fails unless every reply comes, is the
/// right one, and in its turn. Returns how many came.
fn talk(server: &Server, random: &mut Random) -> usize {
    let mut stream = open(server, random);
    let mut replies = 0;
    for _ in 0..random.below(20) {
        // All at once, and then all the replies.
        let mut wire = Vec::new();
        let mut due = Vec::new();
        for _ in 0..=random.below(5) {
            say(random, &mut wire, &mut due);
        }
        stream.write_all(&wire).unwrap();
        replies += due.len();
        for expected in due {
            let came = next_reply(&mut stream);
            assert!(came == expected, "{} instead of {}", show(&came), show(&expected));
        }
        random.pause();
    }
    if random.below(10) == 0 {
        thread::sleep(Duration::from_secs(3));
    }
    let code = [1000_u16, 1001, 3000, 4999][random.below(4)].to_be_bytes();
    stream.write_all(&frame(0x88, &code)).unwrap();
    assert_eq!(next_reply(&mut stream), (0x88, code.to_vec()));
    assert!(is_ended_within(SOON, &mut stream));
    replies + 1
}

/// Appends one message, or a ping, to what is to be sent, and to the replies what is due for it.
fn say(random: &mut Random, wire: &mut Vec<u8>, due: &mut Vec<(u8, Vec<u8>)>) {
    let payload = random.payload();
    match random.below(4) {
        0 => {
            wire.extend(frame(0x81, &payload));
            due.push((0x81, [b"You have entered: ", &payload[..]].concat()));
        }
        1 => {
            wire.extend(frame(0x82, &payload));
            due.push((0x82, payload));
        }
        2 => {
            let short = payload[..payload.len().min(125)].to_vec();
            wire.extend(frame(0x89, &short));
            due.push((0x8A, short));
        }
        _ => {
            // In fragments, with a ping between them, whose answer comes first.
            let cut = random.below(payload.len() + 1);
            wire.extend(frame(0x02, &payload[..cut]));
            wire.extend(frame(0x89, b"between"));
            wire.extend(frame(0x80, &payload[cut..]));
            due.push((0x8A, b"between".to_vec()));
            due.push((0x82, payload));
        }
    }
}

/// The next frame that is no ping; pings are answered.
fn next_reply(stream: &mut TcpStream) -> (u8, Vec<u8>) {
    loop {
        match read_frame(stream) {
            (0x89, payload) => stream.write_all(&frame(0x8A, &payload)).unwrap(),
            reply => return reply,
        }
    }
}

fn show((first, payload): &(u8, Vec<u8>)) -> String {
    let start = &payload[..payload.len().min(40)];
    format!("{first:02X}, {} bytes: {}", payload.len(), start.escape_ascii())
}

/// A connection from an address of its own for each, since ports rest after their use.
fn connect(server: &Server, random: &mut Random) -> TcpStream {
    connect_from(1 + random.below(200) as u8, server.addr).unwrap()
}

fn open(server: &Server, random: &mut Random) -> TcpStream {
    let mut stream = connect(server, random);
    stream.write_all(UPGRADE.as_bytes()).unwrap();
    let head = read_head(&mut stream);
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    stream
}

/// What a client can do wrong; whatever it is, the server is rid of it soon.
type Misdeed = fn(&Server, &mut Random);

const MISDEEDS: [(&str, Misdeed); 12] = [
    ("probed and left", |server, random| drop(connect(server, random))),
    ("sent half a request and left", |server, random| {
        let mut stream = connect(server, random);
        stream.write_all(&UPGRADE.as_bytes()[..random.below(UPGRADE.len())]).unwrap();
    }),
    ("sent half a request and stayed", |server, random| {
        let mut stream = connect(server, random);
        stream.write_all(&UPGRADE.as_bytes()[..random.below(UPGRADE.len())]).unwrap();
        assert!(is_ended_within(SOON, &mut stream));
    }),
    ("dripped a request", |server, random| {
        let mut stream = connect(server, random);
        for byte in UPGRADE.bytes() {
            if stream.write_all(&[byte]).is_err() {
                break;
            }
            thread::sleep(Duration::from_millis(random.below(100) as u64));
        }
    }),
    ("sent rubbish for a request", |server, random| {
        let mut stream = connect(server, random);
        let _ = stream.write_all(&[&random.rubbish(), &b"\r\n\r\n"[..]].concat());
        assert!(is_ended_within(SOON, &mut stream));
    }),
    ("sent rubbish for frames", |server, random| {
        let mut stream = open(server, random);
        let _ = stream.write_all(&random.rubbish());
        assert!(is_ended_within(SOON, &mut stream));
    }),
    ("declared a huge message", |server, random| {
        let mut stream = open(server, random);
        let len = random.next() | 1 << 40;
        let header = [&[0x82, 0xFF], &len.to_be_bytes()[..], &[0; 4]].concat();
        stream.write_all(&header).unwrap();
        assert!(is_ended_within(SOON, &mut stream));
    }),
    ("left a large message unfinished", |server, random| {
        let mut stream = open(server, random);
        let message = frame(0x82, &vec![7; 4 << 20]);
        let _ = stream.write_all(&message[..random.below(message.len())]);
        random.pause();
    }),
    ("reset the connection", |server, random| {
        let mut stream = open(server, random);
        let _ = stream.write_all(&frame(0x81, &random.payload()));
        reset(stream);
    }),
    ("closed its half only", |server, random| {
        let mut stream = open(server, random);
        stream.shutdown(Shutdown::Write).unwrap();
        assert!(is_ended_within(SOON, &mut stream));
    }),
    ("fell silent", |server, random| {
        let mut stream = open(server, random);
        assert!(is_ended_within(SOON, &mut stream));
    }),
    ("sent and never read", |server, _| {
        let mut stream = open_taking(4 * 1024, server);
        write_until_stuck(&mut stream, &frame(0x82, &[7; 32 * 1024]));
        thread::sleep(Duration::from_secs(4));
    }),
];
