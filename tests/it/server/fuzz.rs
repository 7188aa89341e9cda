//! The whole server against random clients, stopped at a random moment: each client receives nothing wrong,
//! and all that its own behavior allows.
//!
//! `FUZZ_SECONDS` is how long it runs (5). `FUZZ_SEED` repeats a run as far as the network allows. A failure
//! shows the seed, the round, and all that happened to the client:
//!
//! ```text
//! FUZZ_SECONDS=60 cargo test --release --test it -- server::fuzz --nocapture
//! ```

use std::collections::VecDeque;
use std::fmt::{self, Write as _};
use std::io::{ErrorKind, Read as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{SendFlags, send};
use rustix::process::Signal;
use wsecho::server::registry::LIMIT_REACHED;

use super::crowd::Crowd;
use crate::deflate::{Compressor, Inflater, TAIL};
use crate::frames::{Random, close, frame, split_frame};
use crate::support::{
    HEALTH_CHECK, PREFIX, Server, UPGRADE, demand, from_env, offering, reset, seed_from_env,
};

/// Short, so that each of them passes often, and long enough for clients on a busy machine.
const FLAGS: [&str; 7] = [
    "--handshake-timeout=2s",
    "--ping-interval=200ms",
    "--ping-timeout=800ms",
    "--write-timeout=2s",
    "--close-timeout=2s",
    "--max-message-size=1MiB",
    "-v",
];
const TIMEOUT: Duration = Duration::from_secs(2);
const MAX_MESSAGE_SIZE: usize = 1 << 20;

/// The code of a behavior.
const CODE_ON_DEMAND: u16 = 4000;

/// The total of a slow reader's pauses. Half of the timeout, so that it has to get everything.
const SLOW: Duration = Duration::from_secs(1);

/// A client whose own thread waited so long for a processor has had too little time to be judged.
pub(super) const STARVED: Duration = Duration::from_millis(400);

/// Rounds that run at once. They mostly wait.
const LANES: usize = 4;

#[test]
fn every_client_receives_what_its_own_behavior_allows() {
    let time = Duration::from_secs(from_env("FUZZ_SECONDS").unwrap_or(5));
    let seed = seed_from_env("FUZZ_SEED");
    println!("FUZZ_SECONDS={} FUZZ_SEED={seed}", time.as_secs());
    let started = Instant::now();
    let rounds = AtomicU64::new(0);
    let counts = Mutex::new(Counts::default());
    thread::scope(|scope| {
        for _ in 0..LANES {
            scope.spawn(|| {
                while started.elapsed() < time && !counts.is_poisoned() {
                    play(seed, rounds.fetch_add(1, Ordering::Relaxed), &counts);
                }
            });
        }
    });
    let counts = counts.into_inner().unwrap();
    println!("{} rounds, {counts:?}", rounds.into_inner());
    let Counts { judged, closed, responses, inflated, .. } = counts;
    assert!(judged > 0 && closed > 0 && responses > 0 && inflated > 0, "{counts:?}");
}

/// What happened to the clients, to see that none of it is rare.
#[derive(Debug, Default)]
struct Counts {
    /// That had to get all that was due to them.
    judged: usize,
    starved: usize,
    /// That got a close frame.
    closed: usize,
    /// That got another response than 101.
    responses: usize,
    replies: usize,
    /// Of the replies those that were compressed.
    inflated: usize,
    /// That were refused at the limit.
    refused: usize,
    /// Connections of crowds that were evicted.
    evicted: usize,
}

/// What is special about the server of a round.
struct Setup {
    /// Whether compression keeps its contexts.
    takeover: bool,
    /// The limit of WebSockets.
    max: usize,
    /// Whether others take the slots beyond the limit.
    crowded: bool,
}

/// Starts a server, and stops it while its clients are at work.
fn play(seed: u64, round: u64, counts: &Mutex<Counts>) {
    let mut random = Random(Random(seed).number() ^ round);
    let setup = Setup {
        takeover: random.below(2) == 0,
        max: [1 + random.below(4), 10_000][random.below(2)],
        crowded: random.below(2) == 0,
    };
    let compression = ["no-context-takeover", "context-takeover"][usize::from(setup.takeover)];
    let max = setup.max.to_string();
    let flags = ["--compression", compression, "--max-connections", &max];
    let mut server = Server::start(&[&FLAGS[..], &flags].concat());
    let plans: Vec<_> = (0..=random.below(40)).map(|_| Plan::new(&mut random, &setup)).collect();
    let crowd = Crowd::new(&mut random, if setup.crowded { 300 } else { 0 });
    let least = if setup.crowded { 1_000 } else { 0 };
    let stop_after = Duration::from_millis((least + random.below(1_500)) as u64);
    let (records, evicted, stop, status) = thread::scope(|scope| {
        let addr = server.addr;
        let clients: Vec<_> =
            plans.iter().map(|plan| scope.spawn(move || Client::new(plan).run(addr))).collect();
        let end = Instant::now() + stop_after;
        let crowd = scope.spawn(move || crowd.gather(addr, end));
        thread::sleep(stop_after);
        let stop = Instant::now();
        server.signal(Signal::TERM);
        let status = server.wait(TIMEOUT + Duration::from_secs(1));
        let records: Vec<_> = clients.into_iter().map(|client| client.join().unwrap()).collect();
        (records, crowd.join().unwrap(), stop, status)
    });
    let mut counts = counts.lock().unwrap();
    let mut failures = Vec::new();
    match evicted {
        Ok(evicted) => counts.evicted += evicted,
        Err(wrong) => failures.push(wrong),
    }
    failures.extend(check_limit(&setup, &plans, &records).err());
    for (plan, record) in plans.iter().zip(records) {
        if let Err(wrong) = record.check(plan, &setup, stop, &mut counts) {
            failures.push(format!("{wrong}\n{plan}\n{}", record.show(stop)));
        }
    }
    assert!(
        failures.is_empty() && status.code() == Some(0),
        "FUZZ_SEED={seed}, round {round}: {status}\n{}\n{}",
        failures.join("\n"),
        server.log().join("\n")
    );
}

// What a client is going to do

struct Plan {
    begins_after: Duration,
    request: Request,
    /// What is sent, request included, and the pause before each piece.
    pieces: Vec<(Duration, Vec<u8>)>,
    /// The replies, and how much has to be sent for each.
    replies: Vec<(usize, (u8, Vec<u8>))>,
    /// Whether it offers compression.
    compresses: bool,
    ending: Ending,
    /// How much has to be sent before the WebSocket may end by it.
    may_end_at: usize,
    closing: Closing,
    reading: Reading,
    leaving: Leaving,
    answers_pings: bool,
    /// How long it keeps the connection after the end of the server's stream.
    lingers: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Request {
    Upgrade,
    Page,
    Health,
    Unfinished,
    Malformed,
}

/// How the frames end.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Ending {
    /// To nothing.
    Open,
    /// To a close frame with this code, once so much is sent.
    Close { first: usize, last: usize, code: Option<u16> },
    /// To an unfinished message.
    Unfinished,
    /// To any frames.
    Random,
}

/// Whether the client sends a close frame.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Closing {
    /// By itself, which is done when so much is sent.
    At(usize),
    /// As its answer, behind what it has yet to send.
    Answer,
    Never,
    /// It can't, since what it sends is wrong or ends within a message.
    Broken,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Reading {
    Fast,
    Slow { size: usize, pause: Duration },
    Never,
}

/// What it does when everything is sent.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Leaving {
    Stay,
    EndStream,
    Drop,
    Reset,
}

impl Plan {
    fn new(random: &mut Random, setup: &Setup) -> Self {
        let request = match random.below(20) {
            0 => Request::Page,
            1 => Request::Health,
            2 => Request::Unfinished,
            3 => Request::Malformed,
            _ => Request::Upgrade,
        };
        // After so many messages the server is to close by itself, whatever comes with them.
        let after = (random.below(4) == 0).then(|| 1 + random.below(6));
        let compresses = request == Request::Upgrade && random.below(2) == 0;
        let mut sent = match (request, after) {
            (Request::Upgrade, after) => {
                let request = after.map_or(UPGRADE.into(), |after| {
                    demand(&format!("close={CODE_ON_DEMAND}&after={after}"))
                });
                let offer = if compresses { "permessage-deflate" } else { "unknown" };
                offering(&request, offer).into_bytes()
            }
            (Request::Page, _) => b"GET / HTTP/1.0\r\n\r\n".to_vec(),
            (Request::Health, _) => HEALTH_CHECK.into(),
            (Request::Unfinished, _) => UPGRADE.as_bytes()[..random.below(UPGRADE.len())].to_vec(),
            (Request::Malformed, _) => b"no request\r\n\r\n".to_vec(),
        };
        let mut replies = Vec::new();
        let (mut ending, mut may_end_at) = (Ending::Open, usize::MAX);
        let mut closing = Closing::Broken;
        if request == Request::Upgrade {
            let mut compressor = Compressor::new(random.below(10) as u8);
            for _ in 0..random.below(12) {
                let longest = [10, 126, 2_000, 70_000, 400_000][random.below(5)];
                if !compresses || random.below(2) == 0 {
                    add_message(random, longest, &mut sent, &mut replies);
                    continue;
                }
                if !setup.takeover {
                    compressor = Compressor::new(random.below(10) as u8);
                }
                add_compressed(random, longest, &mut compressor, &mut sent, &mut replies);
            }
            may_end_at = sent.len() + 1;
            ending = add_ending(random, compresses, &mut sent);
            closing = match ending {
                Ending::Open => {
                    may_end_at = usize::MAX;
                    [Closing::Answer, Closing::Never][random.below(2)]
                }
                Ending::Close { last, code: None | Some(1000 | 1001 | 3000..), .. } => {
                    Closing::At(last)
                }
                _ => Closing::Broken,
            };
            let mut messages =
                replies.iter().enumerate().filter(|(_, (_, (first, _)))| *first != 0x8A);
            if let Some((last, (due, _))) = after.and_then(|after| messages.nth(after - 1)) {
                ending = Ending::Close { first: *due, last: *due, code: Some(CODE_ON_DEMAND) };
                may_end_at = *due;
                replies.truncate(last + 1);
            }
        }
        let milliseconds = |number: usize| Duration::from_millis(number as u64);
        let reading = match random.below(8) {
            0 => Reading::Never,
            1 | 2 => Reading::Slow {
                size: 1 + random.below(50_000),
                pause: milliseconds(1 + random.below(50)),
            },
            _ => Reading::Fast,
        };
        let leaving = match random.below(10) {
            0 => Leaving::Drop,
            1 => Leaving::Reset,
            2 | 3 => Leaving::EndStream,
            _ => Leaving::Stay,
        };
        Plan {
            begins_after: milliseconds(random.below(1_000)),
            request,
            pieces: match request {
                // Nothing may keep a health check from its answer, so it comes whole.
                Request::Health => vec![(Duration::ZERO, sent)],
                _ => cut(random, &sent),
            },
            replies,
            compresses,
            ending,
            may_end_at,
            closing,
            reading,
            leaving,
            // Within a frame, a pong would be a part of it.
            answers_pings: ending == Ending::Open && random.below(2) == 0,
            lingers: milliseconds(if random.below(10) == 0 { random.below(3_000) } else { 0 }),
        }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Plan { begins_after, request, pieces, replies, ending, reading, leaving, .. } = self;
        write!(
            f,
            "begins after {begins_after:?}, {request:?}, {ending:?}, {reading:?}, {leaving:?}"
        )?;
        write!(f, ", compresses: {}, answers pings: {}", self.compresses, self.answers_pings)?;
        write!(f, ", close frame: {:?}", self.closing)?;
        writeln!(f, ", lingers {:?}, {} pieces, replies:", self.lingers, pieces.len())?;
        for (due, (first, payload)) in replies {
            writeln!(f, "    {first:02X} of {} bytes when {due} are sent", payload.len())?;
        }
        Ok(())
    }
}

/// Cuts at random places, with pauses between some of the pieces.
fn cut(random: &mut Random, mut bytes: &[u8]) -> Vec<(Duration, Vec<u8>)> {
    let longest = [1, 10, 1_000, 100_000, 1 << 20][random.below(5)].max(bytes.len() / 100);
    let mut pieces = Vec::new();
    while !bytes.is_empty() {
        let (piece, rest) = bytes.split_at((1 + random.below(longest)).min(bytes.len()));
        let pause = if random.below(8) == 0 { random.below(60) } else { 0 };
        pieces.push((Duration::from_millis(pause as u64), piece.to_vec()));
        bytes = rest;
    }
    pieces
}

/// Adds a message of up to `longest` bytes or a control frame, and the replies to it with how much has to be
/// sent for each.
pub(super) fn add_message(
    random: &mut Random,
    longest: usize,
    sent: &mut Vec<u8>,
    replies: &mut Vec<(usize, (u8, Vec<u8>))>,
) {
    let len = random.below(longest + 1);
    match random.below(5) {
        0 => {
            let text = random.text(len);
            sent.extend(frame(0x81, text.as_bytes()));
            replies.push((sent.len(), (0x81, format!("{PREFIX}{text}").into())));
        }
        1 => {
            let bytes = random.bytes(len);
            sent.extend(frame(0x82, &bytes));
            replies.push((sent.len(), (0x82, bytes)));
        }
        2 => {
            let bytes = random.bytes(len.min(125));
            sent.extend(frame(0x89, &bytes));
            replies.push((sent.len(), (0x8A, bytes)));
        }
        3 => sent.extend(frame(0x8A, &random.bytes(len.min(125)))),
        _ => {
            let bytes = random.bytes(len);
            let (one, other) = bytes.split_at(random.below(len + 1));
            sent.extend([frame(0x02, one), frame(0x89, b"between")].concat());
            replies.push((sent.len(), (0x8A, b"between".to_vec())));
            sent.extend(frame(0x80, other));
            replies.push((sent.len(), (0x82, bytes)));
        }
    }
}

/// Adds a compressed message of up to `longest` bytes, in two frames, as [`add_message`] does.
fn add_compressed(
    random: &mut Random,
    longest: usize,
    compressor: &mut Compressor,
    sent: &mut Vec<u8>,
    replies: &mut Vec<(usize, (u8, Vec<u8>))>,
) {
    let len = random.below(longest + 1);
    let letters = [1, 4, 95][random.below(3)];
    let text: Vec<u8> = (0..len).map(|_| b' ' + random.below(letters) as u8).collect();
    let payload = compressor.message(&text);
    let (one, other) = payload.split_at(random.below(payload.len() + 1));
    let (first, reply) = match random.below(2) {
        0 => (0x01, [PREFIX.as_bytes(), &text].concat()),
        _ => (0x02, text),
    };
    sent.extend([frame(0x40 | first, one), frame(0x80, other)].concat());
    replies.push((sent.len(), (0x80 | first, reply)));
}

/// A compressed message that breaks a rule, and the code that it gets.
fn wrongly_compressed(random: &mut Random) -> (Vec<u8>, u16) {
    let compressed = |message: &[u8]| Compressor::new(6).message(message);
    match random.below(5) {
        0 => {
            let whole = compressed(&random.bytes(300));
            let len = 1 + random.below(whole.len() - 1);
            (frame(0xC2, &whole[..len]), 1007)
        }
        1 => (frame(0xC2, &[&compressed(b"with its tail")[..], &TAIL].concat()), 1007),
        2 => (frame(0xC2, b"not compressed"), 1007),
        3 => (frame(0xC1, &compressed(b"not UTF-8: \xFF")), 1007),
        _ => (frame(0xC2, &compressed(&vec![0; MAX_MESSAGE_SIZE + 1])), 1009),
    }
}

fn add_ending(random: &mut Random, compresses: bool, sent: &mut Vec<u8>) -> Ending {
    let first = sent.len();
    let wrong: [(&[u8], u16); 10] = [
        (b"\x81\x02hi", 1002),
        (&frame(0xA1, b"reserved bit"), 1002),
        (&frame(0x83, b"reserved opcode"), 1002),
        (&frame(0x80, b"nothing to continue"), 1002),
        (&frame(0x09, b"a fragmented ping"), 1002),
        (&frame(0x89, &[b'p'; 126]), 1002),
        (&frame(0x88, b"1"), 1002),
        (&close(1005), 1002),
        (&frame(0x81, b"not UTF-8: \xFF"), 1007),
        (&frame(0x82, &vec![0; MAX_MESSAGE_SIZE + 1])[..14], 1009),
    ];
    let code = match random.below(10) {
        0 | 1 => {
            let (bytes, code) = if compresses && random.below(2) == 0 {
                wrongly_compressed(random)
            } else {
                let (bytes, code) = wrong[random.below(wrong.len())];
                (bytes.to_vec(), code)
            };
            sent.extend(bytes);
            Some(code)
        }
        2 => {
            sent.extend(frame(0x88, b""));
            None
        }
        3 | 4 => {
            let code = [1000, 1001, 3000, 4999][random.below(4)];
            sent.extend(close(code));
            Some(code)
        }
        5 => {
            let unfinished = frame(0x82, &random.bytes(1_000));
            sent.extend(&unfinished[..=random.below(unfinished.len() - 1)]);
            return Ending::Unfinished;
        }
        6 => {
            sent.extend(frame(0x01, b"the first fragment"));
            return Ending::Unfinished;
        }
        7 => {
            let len = 1 + random.below(3_000);
            sent.extend(random.bytes(len));
            return Ending::Random;
        }
        _ => return Ending::Open,
    };
    let last = sent.len();
    if random.below(3) == 0 {
        let len = random.below(100_000);
        sent.extend(random.bytes(len));
    }
    Ending::Close { first: first + 1, last, code }
}

// What happened to it

#[derive(Default)]
struct Record {
    events: Vec<(Instant, String)>,
    received: Vec<u8>,
    sent: usize,
    /// When the first byte was sent.
    asked: Option<Instant>,
    /// Whether the client itself has ended its stream, or the connection.
    left: Option<Leaving>,
    /// When the 101 came.
    opened: Option<Instant>,
    /// When enough was sent for the WebSocket to end.
    may_end: Option<Instant>,
    /// When the server's close frame came.
    closed: Option<Instant>,
    /// When the client's own close frame was sent.
    answered: Option<Instant>,
    /// When the server ended its stream, or the connection.
    ended: Option<Instant>,
    /// The longest that its thread had to wait for a processor.
    starved: Duration,
}

struct Client<'p> {
    plan: &'p Plan,
    record: Record,
    /// What is still to be sent, and from when on.
    pieces: VecDeque<(Duration, Vec<u8>)>,
    write_at: Instant,
    frames: Frames,
    close_at: Option<usize>,
}

impl<'p> Client<'p> {
    fn new(plan: &'p Plan) -> Self {
        Client {
            plan,
            record: Record::default(),
            pieces: plan.pieces.iter().cloned().collect(),
            write_at: Instant::now(),
            frames: Frames::default(),
            close_at: match plan.closing {
                Closing::At(at) => Some(at),
                _ => None,
            },
        }
    }

    fn event(&mut self, event: impl Into<String>) {
        self.record.events.push((Instant::now(), event.into()));
    }

    /// Does what is planned, until the connection ends.
    fn run(mut self, server: SocketAddr) -> Record {
        thread::sleep(self.plan.begins_after);
        match TcpStream::connect(server) {
            Ok(stream) => self.talk(stream),
            Err(error) => self.event(format!("cannot connect: {error}")),
        }
        self.record
    }

    fn talk(&mut self, mut stream: TcpStream) {
        const TICK: Duration = Duration::from_millis(3);
        self.event(format!("connected from {}", stream.local_addr().unwrap()));
        stream.set_read_timeout(Some(TICK)).unwrap();
        let began = Instant::now();
        self.pause(began);
        let (mut read_at, mut slow) = (began, SLOW);
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let now = Instant::now();
            let is_sending = now >= self.write_at && self.send(&stream, now);
            if self.pieces.is_empty() && self.record.left.is_none() {
                match self.leave(&stream) {
                    Leaving::Stay | Leaving::EndStream => {}
                    Leaving::Drop => return,
                    Leaving::Reset => return reset(stream),
                }
            }
            // One that reads is sent a close frame long before.
            let patience = if self.plan.reading == Reading::Never { 2 } else { 4 };
            if now - began > TIMEOUT * patience {
                return self.event("had enough");
            }
            if self.plan.reading == Reading::Never || now < read_at {
                thread::sleep(TICK);
                self.starved(now, TICK);
                continue;
            }
            let size = match self.plan.reading {
                Reading::Slow { size, pause } if slow > pause => {
                    slow -= pause;
                    read_at = now + pause;
                    size.min(buffer.len())
                }
                _ => buffer.len(),
            };
            stream.set_nonblocking(is_sending).unwrap();
            let received = match stream.read(&mut buffer[..size]) {
                Ok(0) => {
                    self.record.ended = Some(Instant::now());
                    self.event("the server ended its stream");
                    return thread::sleep(self.plan.lingers);
                }
                Ok(bytes) => bytes,
                Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
                Err(error) => {
                    self.record.ended = Some(Instant::now());
                    return self.event(format!("cannot receive: {error}"));
                }
            };
            self.starved(now, TICK);
            if received > 0 {
                self.received(&buffer[..received]);
            }
        }
    }

    /// Sends what the kernel takes of the next piece, and tells whether that was anything.
    fn send(&mut self, stream: &TcpStream, now: Instant) -> bool {
        let Some((_, piece)) = self.pieces.front_mut() else { return false };
        match send(stream, piece, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
            Ok(bytes) => {
                piece.drain(..bytes);
                if piece.is_empty() {
                    self.pieces.pop_front();
                    self.pause(now);
                }
                self.record.sent += bytes;
                self.record.asked.get_or_insert(now);
                if self.record.sent >= self.plan.may_end_at {
                    self.record.may_end.get_or_insert(now);
                }
                if self.close_at.is_some_and(|at| self.record.sent >= at) {
                    self.record.answered.get_or_insert(now);
                }
                self.event(format!("sent {bytes}"));
                true
            }
            Err(Errno::AGAIN) => false,
            Err(error) => {
                self.pieces.clear();
                self.event(format!("cannot send: {error}"));
                false
            }
        }
    }

    /// Waits before the next piece.
    fn pause(&mut self, now: Instant) {
        self.write_at = now + self.pieces.front().map_or(Duration::ZERO, |(pause, _)| *pause);
    }

    fn leave(&mut self, stream: &TcpStream) -> Leaving {
        if self.plan.leaving != Leaving::Stay {
            self.record.left = Some(self.plan.leaving);
            self.record.may_end.get_or_insert_with(Instant::now);
            self.event("left");
        }
        if self.plan.leaving == Leaving::EndStream {
            let _ = stream.shutdown(Shutdown::Write);
        }
        self.plan.leaving
    }

    fn received(&mut self, bytes: &[u8]) {
        self.record.received.extend(bytes);
        self.event(format!("received {}", bytes.len()));
        let frames = self.frames.take(&self.record.received);
        if self.frames.at.is_some() {
            self.record.opened.get_or_insert_with(Instant::now);
        }
        for (first, _) in frames {
            if first == 0x88 {
                self.record.closed.get_or_insert_with(Instant::now);
            }
            let answer = match first {
                0x89 if self.plan.answers_pings && self.pieces.is_empty() => frame(0x8A, b""),
                0x88 if self.plan.closing == Closing::Answer => close(1000),
                _ => continue,
            };
            if self.record.left.is_none() {
                self.pieces.push_back((Duration::ZERO, answer));
                if first == 0x88 {
                    let unsent: usize = self.pieces.iter().map(|(_, piece)| piece.len()).sum();
                    self.close_at = Some(self.record.sent + unsent);
                }
            }
        }
    }

    /// Takes note of how long more than `wait` a step has taken since `since`.
    fn starved(&mut self, since: Instant, wait: Duration) {
        self.record.starved = self.record.starved.max(since.elapsed().saturating_sub(wait));
    }
}

/// Reads frames behind the head of a response.
#[derive(Default)]
struct Frames {
    at: Option<usize>,
}

impl Frames {
    /// The frames that are whole and have not been taken.
    fn take(&mut self, received: &[u8]) -> Vec<(u8, Vec<u8>)> {
        let mut frames = Vec::new();
        if self.at.is_none() {
            self.at = head_len(received);
        }
        while let Some(at) = self.at
            && let Some((first, payload, rest)) = split_frame(&received[at..])
        {
            frames.push((first, payload.to_vec()));
            self.at = Some(received.len() - rest.len());
        }
        frames
    }
}

/// Fails if more WebSockets were open at once than the limit allows, or if one was refused below it.
fn check_limit(setup: &Setup, plans: &[Plan], records: &[Record]) -> Result<(), String> {
    let surely: Vec<_> =
        plans.iter().zip(records).filter_map(|(plan, record)| record.surely_open(plan)).collect();
    for (at, _) in &surely {
        let open = surely.iter().filter(|(from, to)| from <= at && at <= to).count();
        if open > setup.max {
            return Err(format!("{open} WebSockets at once, the limit is {}", setup.max));
        }
    }
    if setup.crowded {
        return Ok(());
    }
    let possibly: Vec<_> = records.iter().filter_map(Record::possibly_open).collect();
    let is_refused = |record: &&Record| {
        record.received.starts_with(b"HTTP/1.1 503 ")
            && String::from_utf8_lossy(&record.received).contains(LIMIT_REACHED)
    };
    for record in records.iter().filter(is_refused) {
        let (Some(asked), Some((last, _))) = (record.asked, record.events.last()) else { continue };
        let open = possibly.iter().filter(|(from, to)| *from <= *last && asked <= *to).count();
        if open < setup.max {
            return Err(format!("refused, though {open} were open and {} may be", setup.max));
        }
    }
    Ok(())
}

fn head_len(received: &[u8]) -> Option<usize> {
    let end = received.windows(4).position(|bytes| bytes == b"\r\n\r\n")?;
    Some(end + 4)
}

impl Record {
    /// Fails unless the client received what it has to, in this order, and not more.
    fn check(
        &self,
        plan: &Plan,
        setup: &Setup,
        stop: Instant,
        counts: &mut Counts,
    ) -> Result<(), String> {
        let is_starved = self.starved >= STARVED;
        let stayed = matches!(self.left, None | Some(Leaving::EndStream));
        let is_judged = stayed && plan.reading != Reading::Never && !is_starved;
        // It may have to make room, until it is a WebSocket.
        let is_evictable = setup.crowded && plan.request != Request::Health;
        counts.starved += usize::from(is_starved);
        counts.judged += usize::from(is_judged);
        let Some((last, _)) = self.events.last() else { return Ok(()) };
        let is_stopped = *last >= stop;

        let Some(head_len) = head_len(&self.received) else {
            // The process may end before it accepts a client that comes when it stops.
            let came_early = self.asked.is_some_and(|asked| asked + STARVED < stop);
            return match is_judged && came_early && !is_evictable {
                true => Err("no response".into()),
                false => Ok(()),
            };
        };
        let head = String::from_utf8(self.received[..head_len].to_vec()).map_err(|_| "no UTF-8")?;
        let status =
            head.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)).ok_or("no HTTP")?;
        let is_refused =
            status == "503" && String::from_utf8_lossy(&self.received).contains(LIMIT_REACHED);
        let is_expected = match plan.request {
            _ if is_stopped && status == "503" => true,
            _ if is_evictable && is_refused => true,
            // Whether there were so many is what `check_limit` checks.
            Request::Upgrade if is_refused => true,
            Request::Upgrade => status == "101",
            Request::Page | Request::Health => status == "200",
            Request::Unfinished => ["400", "408"].contains(&status),
            Request::Malformed => status == "400",
        };
        if !is_expected {
            return Err(format!("status {status}"));
        }
        if status != "101" {
            counts.responses += 1;
            counts.refused += usize::from(is_refused);
            let (_, len) = head.split_once("Content-Length: ").ok_or("no length")?;
            let len: usize = len.lines().next().unwrap().parse().map_err(|_| "no length")?;
            let body = self.received.len() - head_len;
            return match body {
                _ if body == len || (body < len && (!is_judged || is_evictable)) => Ok(()),
                _ => Err(format!("{body} bytes of a body of {len}")),
            };
        }
        if head.contains("permessage-deflate") != plan.compresses {
            return Err(format!("not what was offered is agreed: {head}"));
        }
        self.check_frames(plan, setup, is_judged, is_stopped, counts)
    }

    fn check_frames(
        &self,
        plan: &Plan,
        setup: &Setup,
        is_judged: bool,
        is_stopped: bool,
        counts: &mut Counts,
    ) -> Result<(), String> {
        let mut reader = Frames::default();
        let mut frames = reader.take(&self.received).into_iter();
        let is_whole = reader.at == Some(self.received.len());
        let mut replies = plan.replies.iter();
        let mut pings = 0;
        let mut inflater = Inflater::default();
        let close = frames.find_map(|(mut first, mut payload)| {
            if plan.compresses && matches!(first, 0xC1 | 0xC2) {
                if !setup.takeover {
                    inflater = Inflater::default();
                }
                counts.inflated += 1;
                first &= !0x40;
                match inflater.message(&payload) {
                    Ok(message) => payload = message,
                    Err(wrong) => return Some(Err(wrong.into())),
                }
            }
            match first {
                0x88 => Some(Ok(payload)),
                0x89 if payload.is_empty() => {
                    pings += 1;
                    None
                }
                _ => match replies.next() {
                    Some((due, reply)) if *due <= self.sent && reply == &(first, payload) => {
                        counts.replies += 1;
                        None
                    }
                    None if plan.ending == Ending::Random => None,
                    _ => Some(Err(format!("a frame {first:02X} that is not due"))),
                },
            }
        });
        let close = close.transpose()?;
        if let (Some(_), Some((first, _))) = (&close, frames.next()) {
            return Err(format!("a frame {first:02X} after the close frame"));
        }
        let missing = replies.filter(|(due, _)| *due <= self.sent).count();
        let Some(close) = close else {
            // To a client that ends its stream, the server may end its own.
            let has_closed = matches!(plan.ending, Ending::Close { last, .. } if last <= self.sent);
            return match is_judged {
                true if self.left.is_none() || has_closed => Err("no close frame".into()),
                true if missing > 0 => Err(format!("{missing} replies are missing")),
                true if !is_whole => Err("an unfinished frame".into()),
                _ => Ok(()),
            };
        };
        counts.closed += 1;
        if !is_whole {
            return Err("bytes after the close frame".into());
        }
        let code = close.get(..2).map(|code| u16::from_be_bytes([code[0], code[1]]));
        let reason = String::from_utf8_lossy(close.get(2..).unwrap_or_default()).into_owned();
        let is_due = match (plan.ending, code, &*reason) {
            // What came before the stop may be still unread.
            (_, Some(1001), "server is stopping") => is_stopped,
            (_, Some(1001), "no answer to a ping") => pings > 0 && missing == 0,
            (Ending::Close { first, code: own, .. }, _, _) => {
                self.sent >= first && code == own && missing == 0
            }
            (Ending::Unfinished, _, _) => code == Some(1008) && missing == 0,
            (Ending::Random, _, _) => missing == 0,
            (Ending::Open, _, _) => false,
        };
        // What a client sends that makes mistakes may look like a close frame.
        match is_due {
            true if is_judged && plan.closing != Closing::Broken => self.check_end(plan),
            true => Ok(()),
            false => Err(format!("close frame {code:?} {reason:?} is not due")),
        }
    }

    /// Fails unless the server has ended its stream soon after both close frames were sent, and not long
    /// before its timeout otherwise: many proxies take the end of one direction for the end of both.
    fn check_end(&self, plan: &Plan) -> Result<(), String> {
        let (Some(closed), None, Reading::Fast) = (self.closed, self.left, plan.reading) else {
            return Ok(());
        };
        let wrong = match (self.answered, self.ended) {
            (Some(answered), Some(ended)) => ended > answered.max(closed) + TIMEOUT / 2,
            (Some(_), None) => true,
            (None, Some(ended)) => ended < closed + TIMEOUT / 2,
            (None, None) => false,
        };
        let ended = self.ended.map(|ended| ended - closed);
        let answered = self.answered.map(|answered| answered.saturating_duration_since(closed));
        match wrong {
            true => Err(format!("ended {ended:?} after the close frame, answered: {answered:?}")),
            false => Ok(()),
        }
    }

    /// From when until when its WebSocket was open without a doubt.
    fn surely_open(&self, plan: &Plan) -> Option<(Instant, Instant)> {
        let (last, _) = self.events.last()?;
        let ends = [self.may_end, self.closed, self.ended];
        let end = ends.into_iter().flatten().fold(*last, Instant::min);
        let (opened, end) = (self.opened?, end.checked_sub(STARVED)?);
        let is_certain = plan.reading == Reading::Fast && self.starved < STARVED && opened < end;
        is_certain.then_some((opened, end))
    }

    /// From when until when its WebSocket may have been open.
    fn possibly_open(&self) -> Option<(Instant, Instant)> {
        let (last, _) = self.events.last()?;
        let is_open =
            self.received.starts_with(b"HTTP/1.1 101 ") || head_len(&self.received).is_none();
        is_open.then_some((self.asked?, *last + STARVED))
    }

    /// All that happened, with times since the stop.
    fn show(&self, stop: Instant) -> String {
        let mut text = String::new();
        for (at, event) in &self.events {
            let (sign, time) = match at.checked_duration_since(stop) {
                Some(after) => ('+', after),
                None => ('-', stop - *at),
            };
            let _ = writeln!(text, "{sign}{time:?} {event}");
        }
        let end = self.received.len().saturating_sub(200);
        let tail = self.received[end..].escape_ascii();
        format!("{text}longest wait for a processor {:?}, received at last: {tail}", self.starved)
    }
}
