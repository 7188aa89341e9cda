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
//! Behind a proxy in TCP mode its header comes before all that.
//!
//! Whoever drives it does each [`next`](Connection::next) step, and records the result of a wait by
//! [`received`](Connection::received), [`waited`](Connection::waited) or [`ended`](Connection::ended).
//! Times count from the start of the connection.

use std::borrow::Cow;
use std::mem;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use log::{Level, log_enabled};

use crate::app::behavior::{Behavior, Behaviors, Draws, Script};
use crate::app::cases::control::Control;
use crate::app::cases::results::Cases;
use crate::app::cases::runner::Runner;
use crate::app::cases::trial::Handshake;
use crate::app::conversation::Conversation;
use crate::app::dump;
use crate::app::end::{End, Lost};
use crate::app::incoming::{Incoming, LARGE_INPUT, SMALL_INPUT};
use crate::app::peer::Peer;
use crate::app::routes::{self, Opening};
use crate::app::scripted::Scripted;
use crate::app::settings::{Settings, Timeouts};
use crate::app::step::{Step, Topic};
use crate::app::websocket::{Content, Line, WebSocket};
use crate::buffer::{Budget, Buffer, Charge, OverBudget, UNMETERED};
use crate::escape::Quoted;
use crate::http::request::{self, Request};
use crate::http::response::{self, Response};
use crate::proxy_protocol::{self, Parsed};
use crate::websocket::deflate::{PerMessageDeflate, Pool};
use crate::websocket::frame::{self, Opcode};
use crate::websocket::handshake::{Policy, Upgrade};
use crate::websocket::negotiation::Negotiation;
use crate::websocket::session::{Answer, Close};

/// How long a peer may take to end its stream once both close frames were exchanged. Its last bytes are
/// read meanwhile: a socket that is closed with unread input resets the connection, and the close frame
/// could be lost.
const LINGER: Duration = Duration::from_millis(200);

/// The part of a request's head that the report on a case keeps, in bytes.
const MAX_KEPT_HEAD: usize = 512;

/// What all connections share.
pub struct Service {
    pub settings: Settings,
    pub policy: Policy,
    pub behaviors: Behaviors,
    pub budget: Arc<Budget>,
    pub contexts: Arc<Pool>,
    pub draws: Draws,
    pub cases: Cases,
}

/// One connection.
pub struct Connection<'s> {
    service: &'s Service,
    peer: Peer,
    proxy_header: Option<proxy_protocol::Header>,
    /// When it began, since the Unix epoch.
    began: Duration,
    now: Duration,
    /// When the client has to have asked for something, and read the response to it.
    until: Duration,
    phase: Phase<'s>,
    log: Log,
    /// Whether the last step ends the stream.
    is_last: bool,
    /// For a long response.
    charge: Option<Charge>,
}

enum Phase<'s> {
    ProxyHeader(ProxyHeader),
    /// The PROXY header is whole.
    Forwarded,
    Request(Head),
    /// It waits to be admitted.
    Admission(Box<Accepted>),
    Delayed(Box<Delayed>),
    /// The last bytes.
    Responding(Vec<u8>),
    Open(WebSocket<'s>),
    Draining(Drain),
    Over,
}

/// A PROXY header, as it comes.
struct ProxyHeader {
    input: Buffer,
    /// How much longer it is at least, in bytes.
    missing: usize,
}

/// The head of a request, as it comes.
struct Head {
    input: Buffer,
    /// How much of the input is known not to end the head, in bytes.
    searched: usize,
    protocol: Protocol,
    /// Why the connection has to end, after a look at what has arrived: a health check is answered
    /// nevertheless.
    refusal: Option<&'static str>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Right,
    /// HTTP where TLS is spoken.
    PlainHttp,
}

/// A request that may open a WebSocket.
struct Accepted {
    opening: Opening,
    input: Buffer,
    head_len: usize,
    /// Who asks for what, for the log.
    who: String,
}

/// An admitted handshake, which is answered when its time has come.
struct Delayed {
    until: Duration,
    who: String,
    response: Response,
    /// Bytes after the head.
    input: Buffer,
    /// What opens, unless the response is an error.
    websocket: Pending,
}

/// A WebSocket that is about to open.
struct Pending {
    number: u64,
    upgrade: Upgrade,
    deflate: Option<PerMessageDeflate>,
    script: Script,
    /// The first message, which tells what the request was.
    dump: Option<String>,
    /// What a runner of the cases asks for, and the head of its request.
    control: Option<(Control, String)>,
}

/// Bytes that are received and mean nothing, after the stream was ended.
struct Drain {
    since: Duration,
    until: Duration,
    scratch: Buffer,
    /// The line about a WebSocket that waits for what the peer does.
    line: Option<Line>,
}

/// A line for the log.
enum Log {
    Nothing,
    Due(Topic, String),
    HandedOut(String),
}

impl<'s> Connection<'s> {
    /// A connection with `peer` that begins at `began`, since the Unix epoch.
    pub fn new(service: &'s Service, peer: Peer, began: Duration) -> Self {
        Connection {
            service,
            peer,
            proxy_header: None,
            began,
            now: Duration::ZERO,
            until: service.settings.timeouts.handshake,
            phase: Phase::Request(Head::new(service)),
            log: Log::Nothing,
            is_last: false,
            charge: None,
        }
    }

    /// Waits for a PROXY header before anything else, since `peer` is a proxy that has to send it.
    pub fn expect_proxy_header(&mut self) {
        let input = small_buffer(self.service);
        let header = ProxyHeader { input, missing: proxy_protocol::MIN_LEN };
        self.phase = Phase::ProxyHeader(header);
    }

    /// What to do at `now`.
    pub fn next(&mut self, now: Duration) -> Step<'_> {
        self.now = now;
        if self.is_last {
            self.is_last = false;
            self.end_stream();
        }
        if !matches!(self.phase, Phase::Open(_)) {
            self.pass_time();
            if let Phase::Forwarded = self.phase {
                self.phase = Phase::Request(Head::new(self.service));
                return Step::Forwarded(self.peer);
            }
        }
        if !matches!(self.log, Log::Nothing)
            && let Log::Due(topic, line) = mem::replace(&mut self.log, Log::Nothing)
        {
            self.log = Log::HandedOut(line);
            let Log::HandedOut(line) = &self.log else { return Step::Over };
            return Step::Log(topic, line);
        }
        let step = match &mut self.phase {
            Phase::Open(websocket) => websocket.next(now),
            Phase::Request(Head { refusal: Some(_), .. }) => Step::Receive(Some(Duration::ZERO)),
            Phase::ProxyHeader(_) | Phase::Request(_) => {
                Step::Receive(Some(self.until.saturating_sub(now)))
            }
            Phase::Admission(_) => Step::Admit,
            Phase::Delayed(delayed) => Step::Pause(delayed.until.saturating_sub(now)),
            Phase::Responding(response) => Step::SendLast(response),
            Phase::Draining(drain) => Step::Receive(Some(drain.until.saturating_sub(now))),
            Phase::Forwarded | Phase::Over => Step::Over,
        };
        self.is_last = matches!(step, Step::SendLast(_) | Step::Reset);
        step
    }

    /// Where the next bytes go.
    pub fn input(&mut self) -> &mut [u8] {
        match &mut self.phase {
            Phase::Open(websocket) => websocket.input(),
            Phase::Request(head) => head.input.spare_mut(),
            Phase::ProxyHeader(header) => {
                // Its end may be followed by TLS, which is not received here.
                let spare = header.input.spare_mut();
                let len = spare.len().min(header.missing);
                &mut spare[..len]
            }
            Phase::Draining(drain) => drain.scratch.spare_mut(),
            Phase::Forwarded
            | Phase::Admission(_)
            | Phase::Delayed(_)
            | Phase::Responding(_)
            | Phase::Over => &mut [],
        }
    }

    /// Takes the first `bytes` of the [`input`](Self::input), which came at `now`. None come with a part of
    /// a TLS handshake or record.
    pub fn received(&mut self, bytes: usize, now: Duration) {
        self.now = now;
        match &mut self.phase {
            Phase::Open(websocket) => websocket.received(bytes, now),
            Phase::Request(_) => self.received_head(bytes),
            Phase::ProxyHeader(_) => self.received_proxy_header(bytes),
            Phase::Forwarded
            | Phase::Admission(_)
            | Phase::Delayed(_)
            | Phase::Responding(_)
            | Phase::Draining(_)
            | Phase::Over => {}
        }
    }

    /// Takes note that nothing came until `now`.
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

    /// Takes note that the peer has ended its stream.
    #[cold]
    pub fn ended(&mut self, now: Duration) {
        self.now = now;
        match &mut self.phase {
            Phase::Request(Head { refusal: Some(why), .. }) => {
                let response = routes::unavailable(*why);
                self.refuse(response);
            }
            Phase::Request(head) if head.input.filled().is_empty() => self.leave_without_request(),
            Phase::Request(_) => self.refuse(Response::text(400, "the head breaks off")),
            Phase::ProxyHeader(header) if header.input.filled().is_empty() => {
                self.leave_without_request();
            }
            Phase::ProxyHeader(_) => self.refuse_proxy_header("the PROXY header ends early"),
            Phase::Delayed(delayed) => {
                let who = mem::take(&mut delayed.who);
                self.log(
                    Topic::Request,
                    format!("{who}: peer left before the handshake was answered"),
                );
                self.phase = Phase::Over;
            }
            Phase::Open(websocket) => {
                websocket.ended(now, 0);
                self.log_end(None);
                // TLS has an end of its own, which the peer may wait for.
                self.phase = Phase::Responding(Vec::new());
            }
            Phase::Draining(_) => self.end_drain(None),
            Phase::Responding(_) => {}
            Phase::Forwarded | Phase::Admission(_) | Phase::Over => self.phase = Phase::Over,
        }
    }

    /// Takes note that the connection is lost. The last `unsent` bytes were not sent.
    #[cold]
    pub fn lost(&mut self, lost: Lost, unsent: usize) {
        self.is_last = false;
        // The peer has yet to read the alert or the close frame that says why.
        let has_yet_to_read = matches!(lost, Lost::Tls(_) | Lost::Panicked);
        match &mut self.phase {
            Phase::Open(websocket) => {
                websocket.ended(self.now, unsent);
                self.log_end(Some(End::Lost(lost)));
            }
            Phase::Draining(_) => return self.end_drain(Some(lost)),
            Phase::Over => return,
            Phase::Request(Head { input, .. }) | Phase::ProxyHeader(ProxyHeader { input, .. })
                if input.filled().is_empty() && !has_yet_to_read =>
            {
                self.leave_without_request();
            }
            _ => self.log(Topic::Detail, format!("{}: {lost}", self.peer)),
        }
        let can_read = has_yet_to_read && !matches!(self.phase, Phase::Responding(_));
        let time = if can_read { self.service.settings.timeouts.close } else { Duration::ZERO };
        self.drain(time, None);
    }

    /// Takes note that the peer speaks HTTP where it has to speak TLS.
    #[cold]
    pub fn spoke_plain_http(&mut self) {
        if let Phase::Request(head) = &mut self.phase {
            head.protocol = Protocol::PlainHttp;
        }
    }

    /// Ends the connection as soon as its protocol allows, because of what `why` says.
    #[cold]
    pub fn stop(&mut self, why: &'static str) {
        match &mut self.phase {
            Phase::Request(_) | Phase::Admission(_) => self.refuse(routes::unavailable(why)),
            // Whether HTTP or TLS would follow is unknown.
            Phase::ProxyHeader(_) | Phase::Forwarded => self.leave_without_request(),
            // One that is due opens, and is closed like all that are open.
            Phase::Delayed(delayed) if delayed.until > self.now => {
                (delayed.response, delayed.until) = (routes::unavailable(why), self.now);
            }
            Phase::Open(websocket) => websocket.stop(),
            Phase::Delayed(_) | Phase::Responding(_) | Phase::Draining(_) | Phase::Over => {}
        }
    }

    /// Ends a connection that is no WebSocket because of what `why` says, for others. A health check that has
    /// arrived is answered nevertheless.
    #[cold]
    pub fn make_room(&mut self, why: &'static str) {
        match &mut self.phase {
            Phase::Request(head) => head.refusal = Some(why),
            _ => self.stop(why),
        }
    }

    /// Takes the answer to [`Step::Admit`]: the client's number in the log, or why it has to leave.
    // Neither this nor what it calls is inlined, so that stack frames don't add up.
    #[inline(never)]
    pub fn admitted(&mut self, admitted: Result<u64, &'static str>) {
        let Phase::Admission(accepted) = mem::replace(&mut self.phase, Phase::Over) else { return };
        match admitted {
            Ok(number) => self.accept(*accepted, number),
            Err(why) => {
                self.respond(&accepted.who, None, &routes::unavailable(why), "GET");
            }
        }
    }

    /// Takes the answer to [`Step::Report`]: why the reports were not written, if they were not.
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

    /// Lets happen what is due.
    fn pass_time(&mut self) {
        match &mut self.phase {
            Phase::Request(head) if self.now >= self.until => {
                if head.input.filled().is_empty() {
                    self.leave_without_request();
                } else {
                    self.refuse(routes::timeout());
                }
            }
            Phase::ProxyHeader(header) if self.now >= self.until => {
                if header.input.filled().is_empty() {
                    self.leave_without_request();
                } else {
                    self.refuse_proxy_header("the PROXY header was not complete in time");
                }
            }
            Phase::Delayed(delayed) if self.now >= delayed.until => {
                self.until = self.now + self.service.settings.timeouts.handshake;
                if let Phase::Delayed(delayed) = mem::replace(&mut self.phase, Phase::Over) {
                    self.answer(*delayed);
                }
            }
            Phase::Draining(drain) if self.now >= drain.until => self.end_drain(None),
            _ => {}
        }
    }

    #[inline(never)]
    fn received_proxy_header(&mut self, bytes: usize) {
        let Phase::ProxyHeader(ProxyHeader { input, missing }) = &mut self.phase else { return };
        input.advance(bytes);
        match proxy_protocol::parse(input.filled()) {
            Ok(Parsed::Complete(header)) => {
                self.peer = header.source.map_or(self.peer, Peer::Tcp);
                self.proxy_header = Some(header);
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

    /// Ends a connection that begins with something else than a PROXY header.
    #[inline(never)]
    fn refuse_proxy_header(&mut self, wrong: &'static str) {
        /// Enough to recognize another protocol.
        const SHOWN: usize = 16;
        let Phase::ProxyHeader(ProxyHeader { input, .. }) = &self.phase else { return };
        let bytes = input.filled();
        let start = Quoted(&bytes[..bytes.len().min(SHOWN)]);
        let line = format!("{}: refused, {wrong}: {start}", self.peer);
        // For people who try the port out. A TLS client could not read it.
        if bytes.first().is_some_and(u8::is_ascii_alphabetic) {
            let response = routes::proxy_header_required(wrong);
            self.respond(&line, None, &response, method(bytes));
        } else {
            self.phase = Phase::Responding(Vec::new());
        }
        self.log(Topic::Request, line);
    }

    fn received_head(&mut self, bytes: usize) {
        let Phase::Request(head) = &mut self.phase else { return };
        head.input.advance(bytes);
        match request::head_len(head.input.filled(), head.searched) {
            Ok(Some(len)) => self.take_request(len),
            Ok(None) => {
                head.searched = head.input.filled().len();
                if head.input.spare_mut().is_empty() {
                    // So small a buffer has no map that the system could refuse.
                    let _ = head.input.reserve(LARGE_INPUT);
                }
            }
            Err(error) => self.refuse(routes::refuse(error)),
        }
    }

    /// Routes the request, whose head has this length.
    #[inline(never)]
    fn take_request(&mut self, head_len: usize) {
        let Phase::Request(head) = mem::replace(&mut self.phase, Phase::Over) else { return };
        let Head { input, protocol, refusal, .. } = head;
        let request = Request::parse(&input.filled()[..head_len]);
        let who = describe(self.peer, request.as_ref().ok());
        let path = request.as_ref().ok().and_then(Request::path);
        let refusal = refusal.filter(|_| !path.is_some_and(routes::is_health_check));
        let routed = match (&request, refusal) {
            _ if protocol == Protocol::PlainHttp => Err(routes::tls_required()),
            (_, Some(why)) => Err(routes::unavailable(why)),
            (Ok(request), None) => {
                let Service { policy, behaviors, cases, .. } = self.service;
                routes::route(request, policy, *behaviors, cases)
            }
            (Err(error), None) => Err(routes::refuse(*error)),
        };
        match routed {
            Ok(opening) => {
                self.phase = Phase::Admission(Box::new(Accepted { opening, input, head_len, who }));
            }
            Err(response) => {
                self.respond(&who, path, &response, method(input.filled()));
            }
        }
    }

    /// Prepares the answer to the handshake of client `number`.
    #[inline(never)]
    fn accept(&mut self, accepted: Accepted, number: u64) {
        let Accepted { opening, mut input, head_len, mut who } = accepted;
        let Opening { mut upgrade, behavior, control } = opening;
        let control = control.map(|control| {
            let head = &input.filled()[..head_len.min(MAX_KEPT_HEAD)];
            (control, String::from_utf8_lossy(head).into_owned())
        });
        let deflate = self.deflate(&mut upgrade.compression);
        let mut response = upgrade.response();
        let mut until = self.now;
        let (mut script, mut dump) = (Script::default(), None);
        if let Some(behavior) = behavior
            && let Ok(request) = Request::parse(&input.filled()[..head_len])
            && let Some(behavior) = self.draw(behavior, &request, &mut who)
        {
            response = routes::open(&request, &upgrade, behavior.handshake);
            until += behavior.delay;
            script = behavior.script;
            if script.dump {
                let header = self.proxy_header.as_ref();
                dump =
                    Some(dump::dump(self.peer, header, &request, &self.service.policy, &response));
            }
        }
        self.proxy_header = None;
        let end = input.filled().len();
        input.keep(head_len..end);
        let websocket = Pending { number, upgrade, deflate, script, dump, control };
        self.phase = Phase::Delayed(Box::new(Delayed { until, who, response, input, websocket }));
    }

    /// What compresses messages, if that was agreed. What is agreed is changed to what there is memory for.
    fn deflate(&self, agreed: &mut Negotiation) -> Option<PerMessageDeflate> {
        let Negotiation::Agreed(parameters) = agreed else { return None };
        let deflate = PerMessageDeflate::new(*parameters, Arc::clone(&self.service.contexts));
        *parameters = deflate.parameters();
        Some(deflate)
    }

    /// The behavior that was asked for, unless it happens to other connections.
    fn draw(
        &self,
        behavior: Box<Behavior>,
        request: &Request,
        who: &mut String,
    ) -> Option<Box<Behavior>> {
        *who += &format!(", behavior {}", Quoted(request.query().as_bytes()));
        let is_drawn = behavior.rate.is_none_or(|rate| self.service.draws.is_drawn(rate));
        if !is_drawn {
            *who += " not drawn";
        }
        is_drawn.then_some(behavior)
    }

    /// Answers a handshake: opens the WebSocket, unless the response is an error.
    #[inline(never)]
    fn answer(&mut self, delayed: Delayed) {
        let Delayed { who, response, input, websocket, .. } = delayed;
        if response.status != 101 {
            return self.respond(&who, None, &response, "GET");
        }
        let Pending { number, upgrade, deflate, script, dump, control } = websocket;
        // A runner of the cases opens many.
        let topic = if control.is_some() { Topic::Detail } else { Topic::Opened };
        self.log(topic, describe_opening(number, &who, &upgrade));
        let mut opening = response.encode("GET", "");
        let (response_len, received) = (opening.len(), input.filled().len());
        if let Some(dump) = dump {
            frame::encode_header(Opcode::Text, dump.len(), &mut opening);
            opening.extend_from_slice(dump.as_bytes());
        }
        let Service { settings, budget, .. } = self.service;
        let timeouts = match control {
            // A case has its own times, and a ping would be no part of it.
            Some(_) => Timeouts { ping_interval: None, ..settings.timeouts },
            None => script.timeouts(settings.timeouts),
        };
        let mut incoming =
            Incoming::new(settings.max_message_size, timeouts, input, budget, deflate, self.now);
        if script.trace || log_enabled!(Level::Trace) {
            incoming.trace();
        }
        let content = if let Some((control, request)) = control {
            let response = String::from_utf8_lossy(&opening).into_owned();
            let started = self.began + self.now;
            let handshake = Handshake { client: number, started, request, response };
            let cases = &self.service.cases;
            Content::Runner(Runner::new(cases, control, handshake, incoming, budget, self.now))
        } else if script == Script::default() {
            Content::Echo(Conversation::new(number, &settings.prefix, incoming, opening))
        } else {
            let prefix = script.prefix.clone().unwrap_or_else(|| settings.prefix.clone());
            let budget = Arc::clone(budget);
            let scripted =
                Scripted::new(number, script, prefix, incoming, budget, opening, self.now);
            Content::Script(Box::new(scripted))
        };
        let mut websocket = WebSocket::new(number, self.now, content, response_len, received);
        if log_enabled!(Level::Trace) {
            websocket.trace();
        }
        self.phase = Phase::Open(websocket);
    }

    fn leave_without_request(&mut self) {
        // A probe, or a browser that has connected ahead of time.
        self.log(Topic::Detail, format!("{}: sent no request", self.peer));
        self.phase = Phase::Responding(Vec::new());
    }

    /// Ends the connection by `response`, whatever has come of the request.
    #[cold]
    fn refuse(&mut self, response: Response) {
        let phase = mem::replace(&mut self.phase, Phase::Over);
        match phase {
            Phase::Request(Head { input, protocol, .. }) => {
                let who = describe(self.peer, None);
                let is_plain = protocol == Protocol::PlainHttp;
                let response = if is_plain { routes::tls_required() } else { response };
                self.respond(&who, None, &response, method(input.filled()));
            }
            Phase::Admission(accepted) => self.respond(&accepted.who, None, &response, "GET"),
            phase => self.phase = phase,
        }
    }

    /// Ends the connection by `response` to `who`, who has asked for `path`.
    #[inline(never)]
    fn respond(&mut self, who: &str, path: Option<&str>, response: &Response, method: &str) {
        let what = match response.status {
            200 => response::described(200),
            status => {
                let reason = response.body.lines().next().unwrap_or_default();
                format!("{}, {reason}", response::described(status))
            }
        };
        let is_health = response.status == 200 && path.is_some_and(routes::is_health_check);
        let topic = if is_health { Topic::Detail } else { Topic::Request };
        self.log(topic, format!("{who}: {what}"));
        let date = httpdate::fmt_http_date(UNIX_EPOCH + self.began + self.now);
        let mut encoded = response.encode(method, &date);
        // The reports on many clients are long, and whoever asks may be slow to read them.
        if matches!(response.body, Cow::Owned(_)) && encoded.len() > UNMETERED {
            match self.service.budget.charge(encoded.len() - UNMETERED) {
                Ok(charge) => self.charge = Some(charge),
                Err(OverBudget) => {
                    encoded = routes::unavailable("memory is short").encode(method, &date);
                }
            }
        }
        self.phase = Phase::Responding(encoded);
    }

    /// Lets the connection be over, or drain, once its stream is ended.
    #[cold]
    fn end_stream(&mut self) {
        let timeout = self.service.settings.timeouts.close;
        let Phase::Open(websocket) = &self.phase else {
            return self.drain(timeout.min(self.until.saturating_sub(self.now)), None);
        };
        let end = websocket.end();
        let line = websocket.line(&end, self.now);
        let time = match end {
            End::EndedStream => return self.drain(timeout, Some(line)),
            End::Reset => Duration::ZERO,
            // A peer that broke the protocol may be sending yet.
            End::Closed(Close::ByServer(_, Answer::Ignored)) => timeout,
            _ => LINGER.min(timeout),
        };
        self.drain(time, None);
        self.log = line.with("").into();
    }

    /// Reads on for `time`. A `line` about a WebSocket waits for what the peer does meanwhile.
    fn drain(&mut self, time: Duration, line: Option<Line>) {
        let scratch = small_buffer(self.service);
        let drain = Drain { since: self.now, until: self.now + time, scratch, line };
        self.phase = Phase::Draining(drain);
    }

    /// Ends the drain: in time, because the peer has ended its stream, or because the connection is lost.
    #[cold]
    fn end_drain(&mut self, lost: Option<Lost>) {
        let Phase::Draining(drain) = mem::replace(&mut self.phase, Phase::Over) else { return };
        let Some(line) = drain.line else { return };
        let then = match lost {
            Some(lost) => format!("; {lost}"),
            None if self.now >= drain.until => {
                let time = drain.until - drain.since;
                format!("; peer did not end the stream within {time:?}")
            }
            None => {
                let later = (self.now - drain.since).as_secs_f64();
                format!("; peer ended the stream {later:.3} s later")
            }
        };
        self.log = line.with(&then).into();
    }

    /// Logs the end of a WebSocket that is open: this one, or the one that it came to.
    fn log_end(&mut self, end: Option<End>) {
        if let Phase::Open(websocket) = &self.phase {
            let line = websocket.line(&end.unwrap_or_else(|| websocket.end()), self.now);
            self.log = line.with("").into();
        }
    }

    fn log(&mut self, topic: Topic, line: String) {
        self.log = Log::Due(topic, line);
    }
}

impl Head {
    fn new(service: &Service) -> Self {
        Head { input: small_buffer(service), searched: 0, protocol: Protocol::Right, refusal: None }
    }
}

impl From<(Topic, String)> for Log {
    fn from((topic, line): (Topic, String)) -> Self {
        Log::Due(topic, line)
    }
}

/// A buffer of [`SMALL_INPUT`] bytes.
fn small_buffer(service: &Service) -> Buffer {
    let mut buffer = Buffer::new(Arc::clone(&service.budget));
    // So small a buffer has no map that the system could refuse.
    let _ = buffer.reserve(SMALL_INPUT);
    buffer
}

/// The method of a request, whatever else is wrong with it, as far as it decides on the response.
fn method(head: &[u8]) -> &'static str {
    if request::skip_empty_line(head).starts_with(b"HEAD ") { "HEAD" } else { "GET" }
}

/// Who asks for what.
#[inline(never)]
fn describe(peer: Peer, request: Option<&Request>) -> String {
    let mut who = peer.to_string();
    if let Some(request) = request {
        // Behind a proxy the peer is the proxy, which names the client in this header.
        let chain: Vec<_> = request.values("X-Forwarded-For").collect();
        if !chain.is_empty() {
            who += &format!(" forwarded for {}", Quoted(&chain.join(&b", "[..])));
        }
        let path = request.path().unwrap_or_default();
        who += &format!(", path {}", Quoted(path.as_bytes()));
    }
    who
}

/// What the log says about a WebSocket that opens.
fn describe_opening(number: u64, who: &str, upgrade: &Upgrade) -> String {
    let subprotocol = upgrade.subprotocol.as_ref();
    let subprotocol = subprotocol.map(|name| format!(", subprotocol {}", Quoted(name.as_bytes())));
    let subprotocol = subprotocol.unwrap_or_default();
    let compression = match &upgrade.compression {
        Negotiation::NotOffered => String::new(),
        Negotiation::Declined(why) => format!(", permessage-deflate declined: {why}"),
        Negotiation::Agreed(parameters) => format!(", {parameters}"),
    };
    format!("client {number} connected: {who}{subprotocol}{compression}")
}
