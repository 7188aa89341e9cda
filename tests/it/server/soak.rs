//! Random clients of every kind at once: those that behave well notice nothing of the others.
//!
//! `SOAK_SECONDS` is how long it runs (60). `SOAK_SEED` repeats a run as far as the network allows:
//!
//! ```text
//! SOAK_SECONDS=30 cargo test --release --test it -- server::soak --ignored --nocapture
//! ```

use std::fs;
use std::io::Write as _;
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::fuzz::add_message;
use crate::frames::{Random, frame};
use crate::support::{
    SOON, Server, TempDir, UPGRADE, ask, connect_from, demand, from_env, is_ended_within,
    open_taking, read_frame, reset, seed_from_env, write_until_stuck,
};

/// The clients of each kind at any time.
const CLIENTS: u64 = 40;

/// Short, so that each of them passes often, and long enough for a client that behaves well on a busy
/// machine.
const FLAGS: [&str; 6] = [
    "--handshake-timeout=3s",
    "--ping-interval=1s",
    "--ping-timeout=5s",
    "--write-timeout=3s",
    "--close-timeout=2s",
    // Little, so that it is often used up. Clients that behave well need none of it.
    "--max-buffered=8MiB",
];

#[test]
#[ignore = "takes a minute, or SOAK_SECONDS"]
fn clients_that_behave_well_notice_nothing_of_the_others() {
    let time = Duration::from_secs(from_env("SOAK_SECONDS").unwrap_or(60));
    let seed = seed_from_env("SOAK_SEED");
    println!("SOAK_SECONDS={} SOAK_SEED={seed}", time.as_secs());

    let dir = TempDir::new();
    let log = dir.path("wsecho.log");
    let server = Server::start_logging_to(&log, &FLAGS);
    let before = server.idle_usage();
    let end = Instant::now() + time;
    let replies = AtomicUsize::new(0);
    let counts = MISBEHAVIORS.map(|_| AtomicUsize::new(0));
    thread::scope(|scope| {
        for client in 0..CLIENTS {
            let (server, replies, counts) = (&server, &replies, &counts);
            let random = move |client| Random(Random(seed).number() ^ client);
            scope.spawn(move || {
                let mut random = random(client);
                while Instant::now() < end {
                    replies.fetch_add(behave_well(server, &mut random), Ordering::Relaxed);
                }
            });
            scope.spawn(move || {
                let mut random = random(CLIENTS + client);
                while Instant::now() < end {
                    let number = random.below(MISBEHAVIORS.len());
                    MISBEHAVIORS[number].1(server, &mut random);
                    counts[number].fetch_add(1, Ordering::Relaxed);
                    pause(&mut random);
                }
            });
        }
    });
    server.has_recovered(before);

    println!("{} replies, none lost or wrong", replies.into_inner());
    for ((name, _), count) in MISBEHAVIORS.iter().zip(counts) {
        let count = count.into_inner();
        println!("{count} clients {name}");
        assert!(count > 0 || time < Duration::from_secs(30), "no client {name}");
    }
    println!("before: {before:?}\nafter:  {:?}", server.usage());
    let log = fs::read_to_string(log).unwrap();
    let alarming: Vec<_> = log.lines().filter(|line| !line.contains(" INFO ")).collect();
    assert!(alarming.is_empty(), "{alarming:#?}");
}

/// A payload that is text, too.
fn payload(random: &mut Random) -> Vec<u8> {
    let longest = [10, 126, 2_000, 64 * 1024][random.below(4)];
    let len = random.below(longest + 1);
    (0..len).map(|_| b' ' + random.below(95) as u8).collect()
}

fn pause(random: &mut Random) {
    thread::sleep(Duration::from_millis(random.below(200) as u64));
}

/// A connection from one of many addresses, since a port can't be used again at once.
fn connect(server: &Server, random: &mut Random) -> TcpStream {
    connect_from(1 + random.below(200) as u8, server.addr)
}

fn open(server: &Server, random: &mut Random) -> TcpStream {
    ask(connect(server, random)).expect("a WebSocket opens")
}

// Clients that behave well

/// One of them, from its first byte to its last. Fails unless every reply comes, is right and is in
/// its place. Returns how many came.
fn behave_well(server: &Server, random: &mut Random) -> usize {
    let mut stream = open(server, random);
    let mut replies = 0;
    for _ in 0..random.below(20) {
        // All at once, and then all the replies.
        let (mut sent, mut due) = (Vec::new(), Vec::new());
        for _ in 0..=random.below(5) {
            let longest = [10, 126, 2_000, 64 * 1024][random.below(4)];
            add_message(random, longest, &mut sent, &mut due);
        }
        stream.write_all(&sent).unwrap();
        replies += due.len();
        for (_, expected) in due {
            let reply = next_reply(&mut stream);
            assert!(reply == expected, "{} instead of {}", show(&reply), show(&expected));
        }
        pause(random);
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

/// The next frame that is no ping. Pings are answered.
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

// Clients that do not

/// A client that does something wrong. The server soon ends it.
type Misbehavior = fn(&Server, &mut Random);

const MISBEHAVIORS: [(&str, Misbehavior); 14] = [
    ("connected and ended", |server, random| drop(connect(server, random))),
    ("sent half a request and ended", |server, random| {
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
        let _ = stream.write_all(&[rubbish(random), b"\r\n\r\n".into()].concat());
        assert!(is_ended_within(SOON, &mut stream));
    }),
    ("sent rubbish for frames", |server, random| {
        let mut stream = open(server, random);
        let _ = stream.write_all(&rubbish(random));
        assert!(is_ended_within(SOON, &mut stream));
    }),
    ("declared a huge message", |server, random| {
        let mut stream = open(server, random);
        let len = random.number() | 1 << 40;
        let header = [&[0x82, 0xFF], &len.to_be_bytes()[..], &[0; 4]].concat();
        stream.write_all(&header).unwrap();
        assert!(is_ended_within(SOON, &mut stream));
    }),
    ("left a large message unfinished", |server, random| {
        let mut stream = open(server, random);
        let message = frame(0x82, &vec![7; 4 << 20]);
        let _ = stream.write_all(&message[..random.below(message.len())]);
        pause(random);
    }),
    ("reset the connection", |server, random| {
        let mut stream = open(server, random);
        let _ = stream.write_all(&frame(0x81, &payload(random)));
        reset(stream);
    }),
    ("ended its stream only", |server, random| {
        let mut stream = open(server, random);
        stream.shutdown(Shutdown::Write).unwrap();
        assert!(is_ended_within(SOON, &mut stream));
    }),
    ("fell silent", |server, random| {
        let mut stream = open(server, random);
        assert!(is_ended_within(SOON, &mut stream));
    }),
    ("asked for a behavior and left", |server, random| {
        let mut stream = connect(server, random);
        stream.write_all(demand(BEHAVIORS[random.below(BEHAVIORS.len())]).as_bytes()).unwrap();
        for _ in 0..random.below(4) {
            let _ = stream.write_all(&frame(0x82, &payload(random)));
            pause(random);
        }
        if random.below(2) == 0 {
            reset(stream);
        }
    }),
    ("asked for an end and stayed", |server, random| {
        const ENDS: [&str; 5] = [
            "status=503&delay=200ms",
            "close=4000&count=9&interval=10ms&after=300ms",
            "close=fin&drip=1s&after=200ms",
            "close=rst&latency=50ms&after=1",
            "bad=rsv&pong=off&ping=100ms",
        ];
        let mut stream = connect(server, random);
        stream.write_all(demand(ENDS[random.below(ENDS.len())]).as_bytes()).unwrap();
        let _ = stream.write_all(&frame(0x81, &payload(random)));
        assert!(is_ended_within(SOON, &mut stream));
    }),
    ("sent and never read", |server, _| {
        let mut stream = open_taking(4 * 1024, server);
        write_until_stuck(&mut stream, &frame(0x82, &[7; 32 * 1024]));
        thread::sleep(Duration::from_secs(4));
    }),
];

/// Behaviors that do not end by themselves soon.
const BEHAVIORS: [&str; 8] = [
    "delay=60s",
    "close=hang",
    "latency=300ms&fragment=1",
    "drip=10s&fragment=7",
    "count=1000&interval=10ms&bytes=1000",
    "pong=off&bad=length",
    "dump&prefix=&rate=0.5",
    "latency=10s&close=hang&after=200ms",
];

fn rubbish(random: &mut Random) -> Vec<u8> {
    let len = 1 + random.below(2_000);
    random.bytes(len)
}
