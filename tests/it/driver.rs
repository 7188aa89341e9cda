//! Drives a connection as a client's thread does, but without a socket and with a clock that is set. Tests,
//! fuzz targets and benchmarks share it.

use std::sync::Arc;
use std::time::Duration;

use wsecho::app::behavior::{Behaviors, Draws};
use wsecho::app::cases::results::Cases;
use wsecho::app::connection::Connection;
use wsecho::app::end::Lost;
use wsecho::app::peer::Peer;
use wsecho::app::service::Service;
use wsecho::app::settings::{Settings, Timeouts};
use wsecho::app::step::{Step, Topic};
use wsecho::buffer::Budget;
use wsecho::websocket::close::CloseFrame;
use wsecho::websocket::deflate::Pool;
use wsecho::websocket::handshake::Policy;
use wsecho::websocket::negotiation::Mode;

/// What a connection waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waits {
    ToReceive(Option<Duration>),
    Paused(Duration),
    /// It is over.
    Over,
}

/// Who has closed the WebSocket, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Closed {
    /// By a close frame that the log shows so.
    ByPeer(String),
    /// By a close frame with this payload.
    ByServer(Vec<u8>),
}

impl Closed {
    pub fn by_server(close: impl Into<CloseFrame>) -> Self {
        let mut frame = Vec::new();
        close.into().encode(&mut frame);
        Closed::ByServer(frame.split_off(2))
    }
}

/// How the server has ended its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// By its last bytes.
    Stream,
    Reset,
}

pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
pub const PING_INTERVAL: Duration = Duration::from_secs(20);
pub const PING_TIMEOUT: Duration = Duration::from_secs(10);
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(3600);
pub const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a peer may take to end its stream after both close frames.
pub const LINGER: Duration = Duration::from_millis(200);

/// When each connection begins: the example of RFC 9110 §5.6.7, Sun, 06 Nov 1994 08:49:37 GMT.
pub const BEGAN: Duration = Duration::from_secs(784_111_777);

/// A verbatim echo of messages of up to `max_message_size` bytes, which together may hold `max_buffered`.
pub fn service(max_message_size: usize, max_buffered: usize) -> Service {
    with_budget(max_message_size, Arc::new(Budget::new(max_buffered)))
}

/// See [`service`].
pub fn with_budget(max_message_size: usize, budget: Arc<Budget>) -> Service {
    Service {
        settings: Settings {
            prefix: String::new(),
            max_message_size,
            timeouts: Timeouts {
                handshake: HANDSHAKE_TIMEOUT,
                ping_interval: Some(PING_INTERVAL),
                ping: PING_TIMEOUT,
                write: WRITE_TIMEOUT,
                close: CLOSE_TIMEOUT,
            },
        },
        // It agrees to whatever is offered.
        policy: Policy { compression: Mode::ContextTakeover.terms(), ..Policy::default() },
        behaviors: Behaviors::On,
        contexts: Arc::new(Pool::new(Arc::clone(&budget))),
        budget,
        draws: Draws::default(),
        cases: Cases::default(),
    }
}

/// The head of a request for a WebSocket.
pub fn upgrade(target: &str, fields: &str) -> String {
    format!(
        "GET {target} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{fields}\r\n"
    )
}

pub struct Driver<'s> {
    pub connection: Box<Connection<'s>>,
    /// Since the connection began.
    pub now: Duration,
    /// All that was sent.
    pub sent: Vec<u8>,
    /// When each part of it was sent, and its length in bytes.
    pub writes: Vec<(Duration, usize)>,
    pub log: Vec<(Topic, String)>,
    pub waits: Waits,
    pub ended: Option<Ended>,
    /// What a whole PROXY header made the peer.
    pub forwarded: Option<Peer>,
    /// Whether it may become a WebSocket.
    pub admission: Result<u64, &'static str>,
    /// After how many of the bytes in `sent` TLS was asked for new keys.
    pub key_updates: Vec<usize>,
    /// The steps that were taken.
    pub steps: usize,
    /// From which step on the server stops.
    pub stops_at: usize,
    /// From which step on nothing can be sent or received any more.
    pub lost_at: Option<(usize, Lost)>,
    has_closed: bool,
}

impl<'s> Driver<'s> {
    /// A connection on which nothing has come yet.
    pub fn new(service: &'s Service) -> Self {
        Self::of(Connection::new(service, Peer::Unix, BEGAN))
    }

    /// One on which a PROXY header has to come first.
    pub fn forwarded(service: &'s Service) -> Self {
        let mut connection = Connection::new(service, Peer::Unix, BEGAN);
        connection.expect_proxy_header();
        Self::of(connection)
    }

    fn of(connection: Box<Connection<'s>>) -> Self {
        let mut driver = Driver {
            connection,
            now: Duration::ZERO,
            sent: Vec::new(),
            writes: Vec::new(),
            log: Vec::new(),
            waits: Waits::Over,
            ended: None,
            forwarded: None,
            admission: Ok(1),
            key_updates: vec![],
            steps: 0,
            stops_at: usize::MAX,
            lost_at: None,
            has_closed: false,
        };
        driver.run();
        driver
    }

    /// One on which a WebSocket at `target` is asked for, with these fields, each with its line end.
    pub fn asking(service: &'s Service, target: &str, fields: &str) -> Self {
        let mut driver = Driver::new(service);
        driver.receive(upgrade(target, fields).as_bytes());
        driver
    }

    /// A WebSocket at `/`, of which nothing was sent but the 101, which is forgotten.
    pub fn open(service: &'s Service) -> Self {
        Self::open_with(service, "")
    }

    /// The same, for a request with these fields.
    pub fn open_with(service: &'s Service, fields: &str) -> Self {
        let mut driver = Driver::asking(service, "/", fields);
        driver.forget_response();
        driver
    }

    /// Forgets the 101 with which everything sent has to begin. Returns it.
    pub fn forget_response(&mut self) -> String {
        let end = self.sent.windows(4).position(|bytes| bytes == b"\r\n\r\n").expect("a response");
        let rest = self.sent.split_off(end + 4);
        let response = String::from_utf8(std::mem::replace(&mut self.sent, rest)).expect("text");
        assert!(response.starts_with("HTTP/1.1 101 "), "{response}");
        self.writes.clear();
        if !self.sent.is_empty() {
            self.writes.push((self.now, self.sent.len()));
        }
        response
    }

    /// Takes all that was sent.
    pub fn take(&mut self) -> Vec<u8> {
        self.writes.clear();
        std::mem::take(&mut self.sent)
    }

    /// Receives as much of `bytes` as the connection waits for, and returns how much that was.
    pub fn receive(&mut self, bytes: &[u8]) -> usize {
        let mut received = 0;
        while received < bytes.len() && matches!(self.waits, Waits::ToReceive(_)) {
            let input = self.connection.input();
            let len = input.len().min(bytes.len() - received);
            assert!(len > 0, "to receive no bytes would look like the end of the stream");
            input[..len].copy_from_slice(&bytes[received..received + len]);
            received += len;
            self.connection.received(len, self.now);
            self.run();
        }
        received
    }

    /// Receives `bytes` in pieces of these lengths, which are begun with again as long as there are more.
    pub fn receive_in_pieces(&mut self, mut bytes: &[u8], pieces: &[usize]) {
        for len in pieces.iter().cycle() {
            let (piece, rest) = bytes.split_at(bytes.len().min(*len));
            self.receive(piece);
            bytes = rest;
            if bytes.is_empty() {
                break;
            }
        }
    }

    /// How long the connection waits, unless for ever.
    pub fn wait(&self) -> Option<Duration> {
        match self.waits {
            Waits::ToReceive(wait) => wait,
            Waits::Paused(wait) => Some(wait),
            Waits::Over => None,
        }
    }

    /// Nothing comes until `now`, each wait as long as it may be.
    pub fn wait_until(&mut self, now: Duration) {
        while let Some(wait) = self.wait()
            && self.now + wait < now
        {
            self.suspend_until(self.now + wait);
        }
        // A stop and a loss interrupt a wait. Whatever else happens has to be waited for.
        let ends = self.stops_at < usize::MAX || self.lost_at.is_some();
        let wakes = ends || self.wait().is_some_and(|wait| self.now + wait <= now);
        let before = (self.sent.len(), self.log.len());
        self.suspend_until(now);
        assert!(wakes || (self.sent.len(), self.log.len()) == before, "a thread would still wait");
    }

    /// Nothing comes until just before `now`.
    pub fn wait_before(&mut self, now: Duration) {
        self.wait_until(now - Duration::from_nanos(1));
    }

    /// Nothing comes until `now`, in one wait however long it is.
    pub fn suspend_until(&mut self, now: Duration) {
        self.now = now;
        self.connection.waited(now);
        self.run();
    }

    /// The peer ends its stream.
    pub fn end_stream(&mut self) {
        self.connection.ended(self.now);
        self.run();
    }

    /// The server stops.
    pub fn stop(&mut self) {
        self.stops_at = self.steps;
        self.run();
    }

    /// Nothing can be sent or received any more.
    pub fn lose(&mut self, lost: Lost) {
        self.lost_at = Some((self.steps, lost));
        self.run();
    }

    /// Whether a close frame was sent.
    pub fn is_closed(&self) -> bool {
        self.has_closed || self.ended.is_some()
    }

    /// How the WebSocket was closed, if all that was sent is still there.
    pub fn closed(&self) -> Option<Closed> {
        if let Some(end) = self.end().and_then(|end| end.strip_prefix("closed by peer, ")) {
            return Some(Closed::ByPeer(end.split("; ").next().unwrap_or_default().into()));
        }
        let is_close =
            |at: &usize| self.sent[*at..].starts_with(&[0x88, (self.sent.len() - at - 2) as u8]);
        // No frame that ends with it looks like it.
        let at = (0..self.sent.len().saturating_sub(1)).rev().find(is_close);
        at.filter(|_| self.is_closed()).map(|at| Closed::ByServer(self.sent[at + 2..].into()))
    }

    /// How the WebSocket ended, as the log has it.
    pub fn end(&self) -> Option<&str> {
        let line = self.log.iter().find(|(topic, _)| *topic == Topic::Ended);
        line.map(|(_, line)| line.split_once(" ended: ").expect("an end").1)
    }

    /// Does all that can be done at once.
    pub fn run(&mut self) {
        loop {
            if self.steps >= self.stops_at {
                self.connection.stop("the server is stopping");
            }
            self.steps += 1;
            assert!(self.steps < 10_000_000, "it does not end");
            let step = self.connection.next(self.now);
            let (head, payload) = match step {
                Step::Send { head, payload } => (head, payload),
                Step::SendClose(bytes) | Step::SendEnd(bytes) | Step::SendLast(bytes) => {
                    (bytes, &b""[..])
                }
                _ => (&b""[..], &b""[..]),
            };
            let len = head.len() + payload.len();
            let is_io = len > 0 || matches!(step, Step::Receive(_) | Step::Pause(_));
            if is_io && let Some((_, lost)) = self.lost_at.take_if(|(at, _)| *at < self.steps) {
                self.connection.lost(lost, len, self.now);
                continue;
            }
            if len > 0 {
                assert!(!self.has_closed, "§5.5.1: a frame after a close frame");
                assert_eq!(self.ended, None, "it is sent after the end of the stream");
                self.sent.extend([head, payload].concat());
                self.writes.push((self.now, len));
            }
            match step {
                Step::Send { .. } => assert!(len > 0, "nothing is sent"),
                Step::SendClose(_) => self.has_closed = true,
                Step::SendEnd(_) | Step::EndTcp | Step::SendLast(_) => {
                    self.ended = Some(Ended::Stream);
                }
                Step::Reset => self.ended = Some(Ended::Reset),
                Step::UpdateKeys => self.key_updates.push(self.sent.len()),
                Step::Admit => self.connection.admitted(self.admission),
                // Without files there is nothing that could go wrong.
                Step::Report(_) => self.connection.reported(Ok(())),
                Step::Forwarded(peer) => self.forwarded = Some(peer),
                Step::Log(topic, line) => {
                    let line = line.to_string();
                    assert!(!line.contains(char::is_control), "{line:?} is one line");
                    self.log.push((topic, line));
                }
                Step::Receive(wait) => return self.waits = Waits::ToReceive(wait),
                Step::Pause(wait) => return self.waits = Waits::Paused(wait),
                Step::Over => return self.waits = Waits::Over,
            }
        }
    }
}
