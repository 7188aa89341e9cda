//! One connection from its first byte to its last, waiting included, without a socket or a clock.
//!
//! ```text
//!             head is whole    admitted      delay is over
//!   ┌─────────┐    ┌───────────┐    ┌─────────┐    ┌──────┐ last bytes are sent  ┌──────────┐
//!   │ Request │ ──▶│ Admission │ ──▶│ Delayed │ ──▶│ Open │ ────────────────────▶│ Draining │
//!   └─────────┘    └───────────┘    └─────────┘    └──────┘                      └──────────┘
//!        │               │               │        ┌────────────┐                       ▲
//!        └───────────────┴───────────────┴───────▶│ Responding │ ──────────────────────┘
//!                   no WebSocket                  └────────────┘
//! ```
//!
//! Behind a proxy in TCP mode, the PROXY header precedes the request.
//!
//! The driver performs each [`next`](Connection::next) step, and reports the result of a wait by
//! [`received`](Connection::received), [`waited`](Connection::waited) or [`ended`](Connection::ended).
//! Times count from the start of the connection.

use std::borrow::Cow;
use std::fmt;
use std::mem;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use httpdate::HttpDate;

use crate::app::accepted::{Accepted, Sent};
use crate::app::cases::case::Transport;
use crate::app::end::{End, Lost};
use crate::app::incoming::LARGE_INPUT;
use crate::app::opened::Who;
use crate::app::peer::Peer;
use crate::app::routes;
use crate::app::service::Service;
use crate::app::settings::MAX_LATENESS;
use crate::app::step::{Line, Step, Topic};
use crate::app::websocket::WebSocket;
use crate::buffer::{Buffer, Charge, OverBudget, UNMETERED};
use crate::escape::Quoted;
use crate::http::request::{self, Request};
use crate::http::response::{self, Response};
use crate::proxy_protocol::{self, Parsed};
use crate::quantity::Seconds;
use crate::websocket::session::{Answer, Close};

/// How long a peer may take to end its stream after both close frames were exchanged. Its last bytes are
/// read during that time: a socket that is closed with unread input resets the connection, and the close
/// frame could be lost.
const LINGER: Duration = Duration::from_millis(200);

/// The buffer for a usual head of a request, in bytes.
const HEAD_INPUT: usize = 768;

pub struct Connection<'s> {
    service: &'s Service,
    peer: Peer,
    proxy_header: Option<Box<proxy_protocol::Header>>,
    /// The start of the connection, since the Unix epoch.
    began: Duration,
    now: Duration,
    /// The end of the phase: of the time for a request and for reading its response, of the delay, or of
    /// the drain.
    until: Duration,
    phase: Phase<'s>,
    transport: Transport,
    /// A line to log.
    log: Option<(Topic, Line)>,
    /// Whether the last step ends the stream.
    is_last: bool,
    /// For a long response.
    charge: Option<Box<Charge>>,
}

enum Phase<'s> {
    ProxyHeader {
        input: Buffer,
        /// The minimum number of bytes that are still missing.
        missing: usize,
    },
    /// The PROXY header is whole.
    Forwarded,
    Request(Head),
    /// Waiting to be admitted.
    Admission(Box<Accepted>),
    Delayed(Box<Accepted>),
    /// The last bytes to send.
    Responding(Vec<u8>),
    Open(WebSocket<'s>),
    Draining(Box<Drain>),
    Over,
}

/// The head of a request that is being received.
struct Head {
    input: Buffer,
    /// The bytes of `input` that are known not to contain the end of the head.
    searched: usize,
    protocol: Protocol,
    /// Why the connection has to end. The input is still checked once: a health check gets its answer.
    refusal: Option<&'static str>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Right,
    /// Plain HTTP on a port that expects TLS.
    PlainHttp,
}

/// A request that opens no WebSocket, and its response.
struct Refused {
    who: Who,
    topic: Topic,
    response: Response,
}

/// Receives and ignores bytes after the server has ended its stream.
struct Drain {
    since: Duration,
    scratch: Buffer,
    /// The log line of a WebSocket, to which a note on how the peer ended is added.
    line: Option<(Topic, Line)>,
}

impl<'s> Connection<'s> {
    /// A connection with `peer` that begins at `began`, since the Unix epoch.
    // In a box and not inlined, so that two pages of stack are enough for a silent client.
    #[inline(never)]
    pub fn new(service: &'s Service, peer: Peer, began: Duration) -> Box<Self> {
        Box::new(Connection {
            service,
            peer,
            proxy_header: None,
            began,
            now: Duration::ZERO,
            until: service.settings.timeouts.handshake,
            phase: Phase::Request(Head::new(service)),
            transport: Transport::Any,
            log: None,
            is_last: false,
            charge: None,
        })
    }

    /// Expects a PROXY header first: `peer` is a proxy that must send one.
    pub fn expect_proxy_header(&mut self) {
        let input = small_buffer(self.service);
        self.phase = Phase::ProxyHeader { input, missing: proxy_protocol::MIN_LEN };
    }

    /// Returns the next step at `now`.
    pub fn next(&mut self, now: Duration) -> Step<'_> {
        self.now = now;
        if self.is_last {
            self.is_last = false;
            self.end_stream();
        }
        if !matches!(self.phase, Phase::Open(_)) {
            self.check_time();
        }
        if self.log.is_some()
            && let Some((topic, line)) = self.log.take()
        {
            return Step::Log(topic, line);
        }
        let step = match self.phase {
            Phase::Open(ref mut websocket) => websocket.next(now),
            Phase::Request(Head { refusal: Some(_), .. }) => Step::Receive(Some(Duration::ZERO)),
            Phase::ProxyHeader { .. } | Phase::Request(_) | Phase::Draining(_) => {
                Step::Receive(Some(self.until.saturating_sub(now)))
            }
            Phase::Forwarded => {
                self.phase = Phase::Request(Head::new(self.service));
                Step::Forwarded(self.peer)
            }
            Phase::Admission(_) => Step::Admit,
            Phase::Delayed(_) => Step::Pause(self.until.saturating_sub(now)),
            Phase::Responding(ref response) => Step::SendLast(response),
            Phase::Over => Step::Over,
        };
        self.is_last = matches!(step, Step::SendLast(_) | Step::Reset);
        step
    }

    /// The buffer for the next received bytes.
    pub fn input(&mut self) -> &mut [u8] {
        match &mut self.phase {
            Phase::Open(websocket) => websocket.input(),
            Phase::Request(head) => head.input.spare_mut(),
            Phase::ProxyHeader { input, missing } => {
                // TLS may follow the header, so nothing beyond the header is received here.
                let spare = input.spare_mut();
                let len = spare.len().min(*missing);
                &mut spare[..len]
            }
            Phase::Draining(drain) => drain.scratch.spare_mut(),
            _ => &mut [],
        }
    }

    /// Processes the first `bytes` of [`input`](Self::input), which were received at `now`. `bytes` is 0
    /// while a TLS handshake or record is incomplete.
    pub fn received(&mut self, bytes: usize, now: Duration) {
        self.now = now;
        match &mut self.phase {
            Phase::Open(websocket) => websocket.received(bytes, now),
            Phase::Request(_) => self.received_head(bytes),
            Phase::ProxyHeader { .. } => self.received_proxy_header(bytes),
            _ => {}
        }
    }

    /// Records that nothing was received until `now`.
    pub fn waited(&mut self, now: Duration) {
        self.now = now;
        match &mut self.phase {
            Phase::Open(websocket) => websocket.waited(now),
            Phase::Request(Head { refusal: Some(why), .. }) => {
                let response = routes::unavailable(*why);
                self.refuse(response);
            }
            _ => {}
        }
    }

    /// Records that the peer has ended its stream.
    #[cold]
    pub fn ended(&mut self, now: Duration) {
        self.now = now;
        match &mut self.phase {
            Phase::Request(Head { refusal: Some(_), .. }) => self.waited(now),
            Phase::Request(_) | Phase::ProxyHeader { .. } => {
                let response = Response::text(400, "the request's head is incomplete");
                self.give_up(response, "the PROXY header ends early");
            }
            Phase::Delayed(delayed) => {
                let line =
                    format!("{}: peer left before the handshake was answered", delayed.opened.who);
                self.log(Topic::Request, line);
                self.phase = Phase::Over;
            }
            Phase::Open(websocket) => {
                websocket.ended(now, 0);
                self.log = Some(websocket.line(websocket.end(), now));
                // TLS has its own end (close_notify), which the peer may wait for.
                (self.phase, self.until) = (Phase::Responding(Vec::new()), now);
            }
            Phase::Draining(_) => self.end_drain(None),
            Phase::Responding(_) => {}
            Phase::Forwarded | Phase::Admission(_) | Phase::Over => self.phase = Phase::Over,
        }
    }

    /// Records at `now` that the connection is lost, and that the last `unsent` bytes were not sent.
    #[cold]
    pub fn lost(&mut self, lost: Lost, unsent: usize, now: Duration) {
        self.now = now;
        self.is_last = false;
        // The peer has yet to read the alert or the close frame with the reason.
        let is_silent = self.is_silent();
        let has_yet_to_read = matches!(lost, Lost::Tls(_) | Lost::Panicked);
        match &mut self.phase {
            Phase::Open(websocket) => {
                websocket.ended(self.now, unsent);
                self.log = Some(websocket.line(End::Lost(lost), self.now));
            }
            Phase::Draining(_) => return self.end_drain(Some(lost)),
            Phase::Over => return,
            _ if is_silent && !has_yet_to_read => self.leave_without_request(),
            _ => self.log(Topic::Detail, format!("{}: {lost}", self.peer)),
        }
        let can_read = has_yet_to_read && !matches!(self.phase, Phase::Responding(_));
        let time = if can_read { self.service.settings.timeouts.close } else { Duration::ZERO };
        self.drain(time, None);
    }

    /// Records that the TLS handshake is complete.
    pub fn spoke_tls(&mut self) {
        self.transport = Transport::Tls;
    }

    /// Records that the peer sent plain HTTP on a port that expects TLS.
    #[cold]
    pub fn spoke_plain_http(&mut self) {
        if let Phase::Request(head) = &mut self.phase {
            head.protocol = Protocol::PlainHttp;
        }
    }

    /// Ends the connection for the reason `why`, as soon as its protocol allows.
    #[cold]
    pub fn stop(&mut self, why: &'static str) {
        match &mut self.phase {
            Phase::Request(_) | Phase::Admission(_) => self.refuse(routes::unavailable(why)),
            // It is unknown whether HTTP or TLS would follow.
            Phase::ProxyHeader { .. } | Phase::Forwarded => self.leave_without_request(),
            // If it is already due, it opens, and is then closed like any other WebSocket.
            Phase::Delayed(delayed) if self.until > self.now => {
                (delayed.response, self.until) = (routes::unavailable(why), self.now);
            }
            Phase::Open(websocket) => websocket.stop(),
            Phase::Delayed(_) | Phase::Responding(_) | Phase::Draining(_) | Phase::Over => {}
        }
    }

    /// Ends a connection that is not a WebSocket, for the reason `why`, to make room for others. A
    /// health check that has arrived still gets its answer.
    #[cold]
    pub fn make_room(&mut self, why: &'static str) {
        match &mut self.phase {
            Phase::Request(head) => head.refusal = Some(why),
            _ => self.stop(why),
        }
    }

    /// Processes the answer to [`Step::Admit`]: the client's number in the log, or the reason for a
    /// refusal.
    // This and its callees are not inlined, so that stack frames don't add up.
    #[inline(never)]
    pub fn admitted(&mut self, admitted: Result<u64, &'static str>) {
        match admitted {
            Ok(number) => {
                let phase = mem::replace(&mut self.phase, Phase::Over);
                let Phase::Admission(mut accepted) = phase else { return };
                accepted.opened.client = number;
                self.until = self.now + accepted.delay;
                self.phase = Phase::Delayed(accepted);
            }
            Err(why) => self.refuse(routes::unavailable(why)),
        }
    }

    /// Processes the answer to [`Step::Report`]: the error if the reports were not written.
    #[cold]
    pub fn reported(&mut self, result: Result<(), String>) {
        if let Phase::Open(websocket) = &mut self.phase {
            websocket.reported(result);
        }
    }

    /// Whether a WebSocket is open, so that a close frame can be sent.
    pub fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Open(_))
    }

    /// Performs the actions that are due.
    fn check_time(&mut self) {
        let timeout = self.service.settings.timeouts.handshake;
        match &mut self.phase {
            // The client gets its time again, for the rest of its request or for reading the response.
            Phase::ProxyHeader { .. } | Phase::Request(_) | Phase::Responding(_)
                if self.now > self.until + MAX_LATENESS =>
            {
                self.until = self.now + timeout;
            }
            Phase::ProxyHeader { .. } | Phase::Request(_) if self.now >= self.until => {
                self.give_up(routes::timeout(), "the PROXY header was not complete in time");
            }
            Phase::Delayed(_) if self.now >= self.until => {
                self.until = self.now + timeout;
                if let Phase::Delayed(delayed) = mem::replace(&mut self.phase, Phase::Over) {
                    self.answer(delayed);
                }
            }
            Phase::Draining(_) if self.now >= self.until => self.end_drain(None),
            _ => {}
        }
    }

    #[inline(never)]
    fn received_proxy_header(&mut self, bytes: usize) {
        let Phase::ProxyHeader { input, missing } = &mut self.phase else { return };
        input.advance(bytes);
        match proxy_protocol::parse(input.filled()) {
            Ok(Parsed::Complete(header)) => {
                self.peer = header.source.map_or(self.peer, Peer::Tcp);
                self.proxy_header = Some(Box::new(header));
                self.phase = Phase::Forwarded;
            }
            Ok(Parsed::Incomplete(len)) => {
                *missing = len;
                let is_granted = input.reserve(input.filled().len() + len).is_ok()
                    && (!input.spare_mut().is_empty() || input.charge_ahead().is_ok());
                if !is_granted {
                    self.refuse_proxy_header("there is no memory for the PROXY header");
                }
            }
            Err(wrong) => self.refuse_proxy_header(wrong),
        }
    }

    /// Ends a connection that does not begin with a PROXY header.
    #[inline(never)]
    fn refuse_proxy_header(&mut self, wrong: &'static str) {
        /// Enough to recognize another protocol.
        const SHOWN: usize = 16;
        let Phase::ProxyHeader { input, .. } = &self.phase else { return };
        let bytes = input.filled();
        let start = Quoted(&bytes[..bytes.len().min(SHOWN)]);
        let line = format!("{}: refused, {wrong}: {start}", self.peer);
        // Helps people who try out the port. A TLS client could not read the response.
        let response = if bytes.first().is_some_and(u8::is_ascii_alphabetic) {
            routes::proxy_header_required(wrong).encode(method(bytes), self.date())
        } else {
            Vec::new()
        };
        self.log(Topic::Request, line);
        self.phase = Phase::Responding(response);
    }

    fn received_head(&mut self, bytes: usize) {
        let Phase::Request(head) = &mut self.phase else { return };
        head.input.advance(bytes);
        match request::head_len(head.input.filled(), head.searched) {
            Ok(Some(len)) => {
                let header = self.proxy_header.take();
                let routed = head.route(len, self.service, self.peer, header.as_deref());
                self.process_request(routed, len);
            }
            Ok(None) => {
                head.searched = head.input.filled().len();
                if head.input.spare_mut().is_empty() {
                    // A buffer this small has no memory map, so the system can't refuse it.
                    let _ = head.input.reserve(LARGE_INPUT);
                }
            }
            Err(error) => self.refuse(routes::refuse(error)),
        }
    }

    /// Waits to be admitted, or responds, as the request was routed.
    #[inline(never)]
    fn process_request(&mut self, routed: Result<Box<Accepted>, Box<Refused>>, head_len: usize) {
        let Phase::Request(head) = mem::replace(&mut self.phase, Phase::Over) else { return };
        let mut input = head.input;
        match routed {
            Ok(mut accepted) => {
                let end = input.filled().len();
                input.keep(head_len..end);
                accepted.input = input;
                self.phase = Phase::Admission(accepted);
            }
            Err(refused) => {
                let Refused { who, topic, response } = *refused;
                self.respond(topic, &who, &response, method(input.filled()));
            }
        }
    }

    /// Answers a handshake: opens the WebSocket, unless the response is an error.
    #[inline(never)]
    fn answer(&mut self, accepted: Box<Accepted>) {
        if !accepted.opens() {
            return self.respond(Topic::Request, &accepted.opened.who, &accepted.response, "GET");
        }
        let response = accepted.response.encode("GET", self.date());
        let Connection { service, transport, began, now, .. } = *self;
        let (websocket, line) = accepted.open(service, response, transport, began, now);
        (self.phase, self.log) = (Phase::Open(websocket), Some(line));
    }

    /// Whether the peer has sent nothing yet.
    fn is_silent(&self) -> bool {
        match &self.phase {
            Phase::Request(Head { input, .. }) | Phase::ProxyHeader { input, .. } => {
                input.filled().is_empty()
            }
            _ => false,
        }
    }

    /// Ends a connection whose request or PROXY header is incomplete: with `response`, or since the header
    /// is `wrong`.
    #[cold]
    fn give_up(&mut self, response: Response, wrong: &'static str) {
        match self.phase {
            _ if self.is_silent() => self.leave_without_request(),
            Phase::ProxyHeader { .. } => self.refuse_proxy_header(wrong),
            _ => self.refuse(response),
        }
    }

    fn leave_without_request(&mut self) {
        // A probe, or a browser's speculative connection.
        self.log(Topic::Detail, format!("{}: sent no request", self.peer));
        self.phase = Phase::Responding(Vec::new());
    }

    /// Ends the connection with `response`, even if the request is incomplete.
    #[cold]
    fn refuse(&mut self, response: Response) {
        let phase = mem::replace(&mut self.phase, Phase::Over);
        match phase {
            Phase::Request(Head { input, protocol, .. }) => {
                let who = self.peer;
                let is_plain = protocol == Protocol::PlainHttp;
                let response = if is_plain { routes::tls_required() } else { response };
                self.respond(Topic::Request, &who, &response, method(input.filled()));
            }
            Phase::Admission(accepted) => {
                self.respond(Topic::Request, &accepted.opened.who, &response, "GET");
            }
            phase => self.phase = phase,
        }
    }

    /// Ends the connection with `response` to `who`, and logs both.
    #[inline(never)]
    fn respond(&mut self, topic: Topic, who: &dyn fmt::Display, response: &Response, method: &str) {
        let mut line = format!("{who}: {}", response::described(response.status));
        if response.status != 200 {
            line.extend([", ", response.body.lines().next().unwrap_or_default()]);
        }
        self.log(topic, line);
        let date = self.date();
        let mut encoded = response.encode(method, date);
        // The reports on many clients are long, and whoever asks may be slow to read them.
        if matches!(response.body, Cow::Owned(_)) && encoded.len() > UNMETERED {
            match self.service.budget.charge(encoded.len() - UNMETERED) {
                Ok(charge) => self.charge = Some(Box::new(charge)),
                Err(OverBudget) => {
                    encoded = routes::unavailable("memory is short").encode(method, date);
                }
            }
        }
        self.phase = Phase::Responding(encoded);
    }

    /// The time in the format of HTTP.
    fn date(&self) -> HttpDate {
        HttpDate::from(UNIX_EPOCH + self.began + self.now)
    }

    /// Ends or drains the connection after its stream was ended.
    #[cold]
    fn end_stream(&mut self) {
        let timeout = self.service.settings.timeouts.close;
        let Phase::Open(websocket) = &self.phase else {
            return self.drain(timeout.min(self.until.saturating_sub(self.now)), None);
        };
        let end = websocket.end();
        let line = websocket.line(end.clone(), self.now);
        let time = match end {
            End::EndedStream => return self.drain(timeout, Some(line)),
            End::Reset => Duration::ZERO,
            // A peer that broke the protocol may still be sending.
            End::Closed(Close::ByServer(_, Answer::Ignored)) => timeout,
            _ => LINGER.min(timeout),
        };
        self.drain(time, None);
        self.log = Some(line);
    }

    /// Continues to read for `time`. The `line` about a WebSocket is logged afterwards, with how the
    /// peer ended.
    fn drain(&mut self, time: Duration, line: Option<(Topic, Line)>) {
        let drain = Drain { since: self.now, scratch: small_buffer(self.service), line };
        (self.phase, self.until) = (Phase::Draining(Box::new(drain)), self.now + time);
    }

    /// Ends the drain: after its time, at the end of the peer's stream, or because the connection is
    /// lost.
    #[cold]
    fn end_drain(&mut self, lost: Option<Lost>) {
        let Phase::Draining(drain) = mem::replace(&mut self.phase, Phase::Over) else { return };
        let Some((topic, mut line)) = drain.line else { return };
        let then = match lost {
            Some(lost) => format!("; {lost}"),
            None if self.now >= self.until => {
                let time = self.until.saturating_sub(drain.since);
                format!("; peer did not end the stream within {time:?}")
            }
            None => {
                let later = Seconds(self.now.saturating_sub(drain.since));
                format!("; peer ended the stream {later} s later")
            }
        };
        if let Line::Ended(ended) = &mut line {
            ended.then = then;
        }
        self.log = Some((topic, line));
    }

    fn log(&mut self, topic: Topic, line: String) {
        self.log = Some((topic, Line::Text(line)));
    }
}

impl Head {
    fn new(service: &Service) -> Self {
        Head { input: small_buffer(service), searched: 0, protocol: Protocol::Right, refusal: None }
    }

    /// Routes the request of `peer`, whose head is `head_len` bytes long and follows the PROXY `header`.
    // In a function of its own, since it needs the deepest stack.
    #[inline(never)]
    fn route(
        &self,
        head_len: usize,
        service: &Service,
        peer: Peer,
        header: Option<&proxy_protocol::Header>,
    ) -> Result<Box<Accepted>, Box<Refused>> {
        let head = &self.input.filled()[..head_len];
        let request = Request::parse(head);
        let path = request.as_ref().ok().and_then(Request::path);
        let is_health_check = path.is_some_and(routes::is_health_check);
        let answer = match (&request, self.refusal.filter(|_| !is_health_check)) {
            _ if self.protocol == Protocol::PlainHttp => Err(routes::tls_required()),
            (_, Some(why)) => Err(routes::unavailable(why)),
            (Ok(request), None) => {
                let Service { policy, behaviors, cases, .. } = service;
                routes::route(request, policy, *behaviors, cases).map(|opening| {
                    Accepted::new(service, opening, &Sent { peer, header, head, request })
                })
            }
            (Err(error), None) => Err(routes::refuse(*error)),
        };
        answer.map_err(|response| Refused::new(peer, request.as_ref().ok(), response))
    }
}

impl Refused {
    #[inline(never)]
    fn new(peer: Peer, request: Option<&Request>, response: Response) -> Box<Self> {
        let is_polled = request.and_then(Request::path).is_some_and(routes::is_polled);
        let topic =
            if is_polled && response.status == 200 { Topic::Detail } else { Topic::Request };
        Box::new(Refused { who: Who::new(peer, request), topic, response })
    }
}

/// A buffer of [`HEAD_INPUT`] bytes.
fn small_buffer(service: &Service) -> Buffer {
    let mut buffer = Buffer::new(Arc::clone(&service.budget));
    // A buffer this small has no memory map, so the system can't refuse it.
    let _ = buffer.reserve(HEAD_INPUT);
    buffer
}

/// The method of a request that may be malformed. Only HEAD matters: its response has no content.
fn method(head: &[u8]) -> &'static str {
    if request::skip_empty_line(head).starts_with(b"HEAD ") { "HEAD" } else { "GET" }
}
