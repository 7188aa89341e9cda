//! Whatever comes on a connection, however it comes and whenever, and whatever else happens to it: each
//! response is one whole message of HTTP, each frame is a valid one, the stream ends exactly when the closing
//! handshake is complete or has had its time, a stop ends it in time, and all memory is given back. A 101 is
//! never the response where tungstenite's server refuses for a reason that RFC 6455 gives.

#![no_main]

use std::time::Duration;

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use tungstenite::HandshakeError;
use tungstenite::error::{Error, ProtocolError};
use wsecho::app::behavior::{self, Behavior, Behaviors, Fault, Handshake};
use wsecho::app::end::Lost;
use wsecho::app::service::Service;
use wsecho::app::step::Topic;
use wsecho::http::origin::Origin;
use wsecho::http::request::{self, Request};
use wsecho::websocket::negotiation::Mode;
use wsecho_fuzz::client::ClientBytes;
use wsecho_fuzz::deflate::RSV1;
use wsecho_fuzz::driver::{
    CLOSE_TIMEOUT, Driver, Ended, LINGER, PING_INTERVAL, PING_TIMEOUT, Waits, service,
};
use wsecho_fuzz::reference::{self, Header};
use wsecho_fuzz::request::Head;
use wsecho_fuzz::stream::Stream;

/// The longest wait that anything asks for: the longest `ping` on demand.
const MAX_WAIT: Duration = Duration::from_secs(900);

/// The longest `delay` on demand.
const MAX_DELAY: Duration = Duration::from_secs(60);

#[derive(Arbitrary, Debug)]
struct Input {
    rules: Rules,
    proxy_header: Option<ProxyHeader>,
    is_admitted: bool,
    acts: Vec<Act>,
    stops_at: Option<u8>,
    lost_at: Option<(u8, Loss)>,
    head: Head,
    frames: ClientBytes,
}

/// What the operator sets.
#[derive(Arbitrary, Debug)]
struct Rules {
    origins: bool,
    subprotocols: bool,
    compression: Option<bool>,
    behaviors: bool,
    pings: bool,
    /// In units of 8 bytes.
    max_message_size: u16,
    max_buffered: u16,
}

#[derive(Arbitrary, Debug)]
enum ProxyHeader {
    Line,
    Local,
    Wrong,
}

/// What happens next.
#[derive(Arbitrary, Debug)]
enum Act {
    /// So many bytes come.
    Receive(u16),
    /// Nothing comes for so many milliseconds, but for no longer than it waits.
    Wait(u16),
    WaitAsLongAsItDoes,
    /// The process is suspended for so many seconds.
    Suspend(u8),
    /// The peer ends its stream.
    End,
    /// On a port for TLS the peer speaks plain HTTP.
    PlainHttp,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Loss {
    TimedOut,
    Broken,
    Tls,
    Panicked,
}

fuzz_target!(|input: Input| {
    let max_buffered = usize::from(input.rules.max_buffered) * 8;
    let service = input.rules.service(max_buffered);
    let mut life = Life::new(&input, &service);
    for act in &input.acts {
        life.act(act);
    }
    for _ in 0..8 {
        life.act(&Act::Receive(u16::MAX));
    }
    life.be_silent();
    life.stop();
    life.check_all();
    drop(life);
    assert_eq!(service.budget.left(), max_buffered, "memory is not given back");
});

impl Rules {
    fn service(&self, max_buffered: usize) -> Service {
        let mut service = service(usize::from(self.max_message_size) * 8, max_buffered);
        if self.origins {
            service.policy.origins.push(Origin::parse("https://example.org").unwrap());
        }
        if self.subprotocols {
            service.policy.subprotocols.push("chat".into());
        }
        service.policy.compression = match self.compression {
            None => None,
            Some(true) => Mode::ContextTakeover.terms(),
            Some(false) => Mode::NoContextTakeover.terms(),
        };
        if !self.behaviors {
            service.behaviors = Behaviors::Off;
        }
        if !self.pings {
            service.settings.timeouts.ping_interval = None;
        }
        service
    }
}

/// A connection, and what has happened to it.
struct Life<'i> {
    driver: Driver<'i>,
    input: &'i Input,
    /// All that comes.
    bytes: Vec<u8>,
    received: usize,
    /// The bytes that had come when the first response was sent.
    asked: usize,
    /// When its close frame was sent.
    closed_at: Option<Duration>,
    /// When it has to be over because of a stop.
    over_by: Option<Duration>,
}

impl<'i> Life<'i> {
    fn new(input: &'i Input, service: &'i Service) -> Self {
        let (mut driver, header) = match &input.proxy_header {
            None => (Driver::new(service), &b""[..]),
            Some(header) => (Driver::forwarded(service), header.bytes()),
        };
        if !input.is_admitted {
            driver.admission = Err("the connection limit is reached");
        }
        driver.stops_at = input.stops_at.map_or(usize::MAX, usize::from);
        if driver.steps > driver.stops_at {
            driver.run();
        }
        driver.lost_at = input.lost_at.map(|(at, loss)| (at.into(), loss.lost()));
        let bytes = [header, &input.head.0, &input.frames.0].concat();
        Life { driver, input, bytes, received: 0, asked: 0, closed_at: None, over_by: None }
    }

    fn act(&mut self, act: &Act) {
        let now = self.driver.now;
        match (act, self.driver.wait()) {
            _ if self.driver.waits == Waits::Over => return,
            (Act::Receive(len), _) => {
                let end = self.bytes.len().min(self.received + usize::from(*len));
                let is_answered = !self.driver.sent.is_empty();
                let has_ended = self.driver.ended.is_some();
                self.received += self.driver.receive(&self.bytes[self.received..end]);
                if !is_answered {
                    self.asked = self.received;
                }
                let is_over = self.driver.waits == Waits::Over && !self.is_lost();
                let is_cut_off = is_over
                    && self.opened()
                    && !has_ended
                    && self.driver.ended == Some(Ended::Stream);
                assert!(!is_cut_off, "a reset could discard the close frame");
            }
            (Act::Wait(millis), wait) => {
                let time = Duration::from_millis((*millis).into());
                self.driver.wait_until(now + wait.map_or(time, |wait| wait.min(time)));
            }
            (Act::WaitAsLongAsItDoes, Some(wait)) => self.driver.suspend_until(now + wait),
            (Act::WaitAsLongAsItDoes, None) => {}
            (Act::Suspend(seconds), _) => {
                let time = Duration::from_secs((*seconds).into());
                self.over_by = self.over_by.map(|by| by + time);
                self.driver.suspend_until(now + time);
            }
            (Act::End, _) => {
                // Whatever is received after it finds the end again.
                self.driver.end_stream();
                self.driver.end_stream();
                assert_eq!(self.driver.waits, Waits::Over, "it waits for a peer that has left");
                return;
            }
            (Act::PlainHttp, _) => self.driver.connection.spoke_plain_http(),
        }
        self.check();
    }

    fn check(&mut self) {
        let driver = &self.driver;
        match driver.waits {
            Waits::Over => {}
            Waits::Paused(wait) | Waits::ToReceive(Some(wait)) => assert!(wait <= MAX_WAIT),
            Waits::ToReceive(None) => {
                let is_open = self.opened() && !driver.is_closed();
                assert!(is_open && !self.input.rules.pings, "it waits for ever");
            }
        }
        if driver.steps > driver.stops_at {
            let by = *self.over_by.get_or_insert(driver.now + CLOSE_TIMEOUT + LINGER);
            let is_drained = self.is_lost() && driver.wait() <= Some(CLOSE_TIMEOUT);
            assert!(driver.waits == Waits::Over || driver.now < by || is_drained, "the stop");
        }
        if self.opened() && !self.is_lost() {
            self.check_end();
        }
        if self.driver.is_closed() && self.closed_at.is_none() {
            self.closed_at = Some(self.driver.now);
        }
    }

    /// The stream ends once both close frames were exchanged (§5.5.1), once the peer broke the protocol
    /// (§7.1.7), and once the answer had its time. A script may end it by itself, keep the answer for its
    /// latency, or send its own close frame in place of the one that names the peer's mistake.
    fn check_end(&self) {
        let behavior = self.behavior();
        let frames = || reference::frames(&self.bytes[self.frames_at()..self.received]);
        let is_close = |frame: &[u8]| frame[0] & 0xF == 0x8;
        let has_close =
            frames().any(|frame| is_close(frame) && reference::whole_frame(frame).is_some());
        if self.driver.ended.is_none() {
            return assert!(!has_close || behavior.is_some(), "the close frame is not answered");
        }
        if self.closed_at.is_some_and(|at| self.driver.now >= at + CLOSE_TIMEOUT) || has_close {
            return;
        }
        let is_wrong = frames().any(is_wrong);
        let is_failed = self.driver.end().is_some_and(|end| {
            end.starts_with("closed by server, 1002") || end.starts_with("closed by server, 1007")
        });
        let is_fault = behavior.is_some_and(|behavior| match behavior.script.fault {
            Some((_, Fault::EndStream | Fault::Reset | Fault::Hang | Fault::Close(_))) => true,
            Some((_, Fault::WrongFrame(_))) | None => false,
        });
        assert!(is_failed || is_wrong || is_fault, "{:?}", self.driver.end());
    }

    /// Nothing more comes, and so it ends. Some scripts take long, and go on until the server stops.
    fn be_silent(&mut self) {
        let since = self.driver.now;
        for _ in 0..10_000 {
            if self.driver.wait().is_none() {
                break;
            }
            self.act(&Act::WaitAsLongAsItDoes);
        }
        if self.opened() && (!self.input.rules.pings || self.behavior().is_some()) {
            return;
        }
        assert_eq!(self.driver.waits, Waits::Over, "it goes on without its client");
        let most = MAX_DELAY + PING_INTERVAL + PING_TIMEOUT + CLOSE_TIMEOUT + LINGER;
        assert!(self.driver.now - since <= most, "{:?}", self.driver.now - since);
    }

    /// Whatever it does, it ends.
    fn stop(&mut self) {
        if self.driver.waits != Waits::Over {
            self.driver.stop();
            self.check();
            self.driver.wait_until(self.driver.now + CLOSE_TIMEOUT + LINGER);
            assert_eq!(self.driver.waits, Waits::Over, "it does not stop");
        }
    }

    fn check_all(&self) {
        let driver = &self.driver;
        let count = |topic| driver.log.iter().filter(|(its, _)| *its == topic).count();
        assert_eq!(count(Topic::Opened), count(Topic::Ended), "{:?}", driver.log);
        let lines = driver.log.len() - count(Topic::Opened);
        assert!(lines == 1 || self.is_lost() && lines == 2, "{:?}", driver.log);
        let sent = &driver.sent[..];
        if sent.is_empty() {
            return;
        }
        if !sent.starts_with(b"HTTP/1.1 101 ") {
            let asked = self.bytes.get(self.request_at()..self.asked).unwrap_or_default();
            let is_head = request::skip_empty_line(asked).starts_with(b"HEAD ");
            return check_response(sent, is_head);
        }
        let head_len = request::head_len(sent, 0).unwrap().expect("a whole response");
        let (head, frames) = sent.split_at(head_len);
        let behavior = self.behavior().unwrap_or_default();
        let (wrong, may_break_off) = match &behavior.script.fault {
            Some((_, Fault::WrongFrame(wrong))) => (Some(wrong.bytes), false),
            Some((_, Fault::EndStream | Fault::Reset | Fault::Hang)) => (None, true),
            Some((_, Fault::Close(_))) | None => (None, false),
        };
        let (messages, is_whole) = reference::server_messages(frames, wrong);
        assert!(is_whole || may_break_off || self.is_lost(), "the last message is not whole");
        self.check_upgrade(head, &behavior, messages.iter().any(|(first, _)| first & RSV1 != 0));
    }

    /// Checks a 101 by a parser and by a server that we did not write.
    fn check_upgrade(&self, head: &[u8], behavior: &Behavior, is_compressed: bool) {
        let mut headers = [httparse::EMPTY_HEADER; 16];
        let response = parse(head, &mut headers);
        let values = |name| values(&response, name);
        assert_eq!((response.code, values("Content-Length").len()), (Some(101), 0));
        assert_eq!(values("Upgrade"), [b"websocket"]);
        assert_eq!(values("Connection"), [b"Upgrade"]);
        let is_offered = values("Sec-WebSocket-Extensions")
            .first()
            .is_some_and(|value| value.starts_with(b"permessage-deflate"));
        assert!(is_offered || !is_compressed, "RFC 6455 §9.1: it was not agreed");
        let request_head = &self.bytes[self.request_at()..self.frames_at()];
        let request = Request::parse(request_head).unwrap();
        if behavior.handshake != Handshake::WrongAccept {
            check_accept(request_head, &request, values("Sec-WebSocket-Accept")[0]);
        }
        if behavior.handshake != Handshake::WrongProtocol {
            let mut offers = request.list("Sec-WebSocket-Protocol");
            let agreed = match self.input.rules.subprotocols {
                true => offers.find(|offer| *offer == b"chat"),
                false => offers.next(),
            };
            assert_eq!(values("Sec-WebSocket-Protocol"), Vec::from_iter(agreed));
        }
        for origin in request.values("Origin") {
            let origin = String::from_utf8_lossy(origin).to_ascii_lowercase();
            let port = origin.strip_prefix("https://example.org");
            let port = port.map(|port| port.trim_start_matches([':', '0']));
            let is_listed = matches!(port, Some("" | "443"));
            let is_own = request.values("Host").any(|host| is_own(&origin, host));
            assert!(!self.input.rules.origins || is_listed || is_own, "{origin:?}");
        }
    }

    fn opened(&self) -> bool {
        self.driver.log.iter().any(|(topic, _)| *topic == Topic::Opened)
    }

    fn is_lost(&self) -> bool {
        self.input.lost_at.is_some() && self.driver.lost_at.is_none()
    }

    /// What the client asked for, unless that happens to other connections.
    fn behavior(&self) -> Option<Behavior> {
        let request = Request::parse(&self.bytes[self.request_at()..self.frames_at()]).ok()?;
        let is_asked = self.input.rules.behaviors && request.path() == Some(behavior::PATH);
        let is_drawn = !self.driver.log[0].1.ends_with(" not drawn");
        if is_asked && is_drawn { behavior::parse(request.query()).ok() } else { None }
    }

    /// Where the request begins.
    fn request_at(&self) -> usize {
        match &self.input.proxy_header {
            Some(header) if self.driver.forwarded.is_some() => header.bytes().len(),
            _ => 0,
        }
    }

    /// Where the first frame begins.
    fn frames_at(&self) -> usize {
        let request_at = self.request_at();
        let len = request::head_len(&self.bytes[request_at..], 0);
        request_at + len.unwrap().expect("a whole head")
    }
}

impl ProxyHeader {
    fn bytes(&self) -> &'static [u8] {
        match self {
            ProxyHeader::Line => b"PROXY TCP4 192.0.2.1 192.0.2.2 1000 443\r\n",
            ProxyHeader::Local => b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0",
            ProxyHeader::Wrong => b"PROXY TCP4\r\n",
        }
    }
}

impl Loss {
    fn lost(self) -> Lost {
        match self {
            Loss::TimedOut => Lost::TimedOut,
            Loss::Broken => Lost::Broken("reset".into()),
            Loss::Tls => Lost::Tls("a record is wrong".into()),
            Loss::Panicked => Lost::Panicked,
        }
    }
}

/// Whether no frame may begin with these bytes, whatever came before.
fn is_wrong(frame: &[u8]) -> bool {
    let [first, second, ..] = *frame else { return false };
    // The masking key is the last part of a header, and any will do.
    let header = Header::read(&[&frame[..frame.len().min(14)], &[0; 4]].concat());
    second & 0x80 == 0
        || matches!(first & 0xF, 0x3..=0x7 | 0xB..=0xF)
        || header.is_some_and(|header| {
            !header.is_minimal()
                || header.payload_len >> 63 == 1
                || header.opcode == 0x8 && header.payload_len > 125
        })
}

/// Checks the only response to a request that opens no WebSocket.
fn check_response(response: &[u8], is_head: bool) {
    let mut headers = [httparse::EMPTY_HEADER; 16];
    let parsed = parse(response, &mut headers);
    let values = |name| values(&parsed, name);
    let (_, body) = response.split_at(request::head_len(response, 0).unwrap().unwrap());
    let body = str::from_utf8(body).expect("UTF-8");
    assert!(values("Connection").contains(&&b"close"[..]));
    assert_eq!(values("Date").len(), 1);
    let [len] = values("Content-Length")[..] else { panic!("not one Content-Length") };
    let len: usize = str::from_utf8(len).unwrap().parse().unwrap();
    assert_eq!(body.len(), if is_head { 0 } else { len });
    if parsed.code != Some(200) && !is_head {
        let reason = body.strip_suffix('\n').expect("a whole line");
        assert!(!reason.contains(char::is_control), "{reason:?} is one line for a developer");
    }
}

/// Parses a response by a parser that we did not write, and then more strictly.
fn parse<'h, 'b>(
    bytes: &'b [u8],
    headers: &'h mut [httparse::Header<'b>],
) -> httparse::Response<'h, 'b> {
    let mut response = httparse::Response::new(headers);
    let head_len = response.parse(bytes).expect("HTTP").unwrap();
    let head = str::from_utf8(&bytes[..head_len]).expect("ASCII");
    for line in head.split("\r\n") {
        assert!(!line.contains(char::is_control), "{line:?} in {head}");
    }
    response
}

fn values<'b>(response: &httparse::Response<'_, 'b>, name: &str) -> Vec<&'b [u8]> {
    let named = response.headers.iter().filter(|header| header.name.eq_ignore_ascii_case(name));
    named.map(|header| header.value).collect()
}

/// Whether the page may be the bundled one: it is of the host that the request goes to, and that is an IP
/// address or localhost. Ports, which may be left out, are not looked at.
fn is_own(origin: &str, host: &[u8]) -> bool {
    let without_port = |authority: &str| match authority.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => name.to_owned(),
        _ => authority.to_owned(),
    };
    let Some(("http" | "https", page)) = origin.split_once("://") else { return false };
    let page = without_port(page);
    if page.starts_with('[') {
        return host.starts_with(b"[");
    }
    let is_number = page.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let host = String::from_utf8_lossy(host).to_ascii_lowercase();
    page == without_port(&host) && (page == "localhost" || is_number)
}

/// tungstenite accepts with the same value, or refuses for a reason of its own.
fn check_accept(head: &[u8], request: &Request, accept: &[u8]) {
    let stream = Stream::new(head);
    let error = match tungstenite::accept(stream) {
        Ok(socket) => {
            let response = String::from_utf8_lossy(&socket.get_ref().output);
            let accept = str::from_utf8(accept).unwrap();
            let line = format!("sec-websocket-accept: {accept}\r\n");
            return assert!(response.contains(&line), "{line} is not in {response}");
        }
        Err(HandshakeError::Failure(error)) => error,
        Err(HandshakeError::Interrupted(_)) => panic!("the head is whole"),
    };
    assert!(is_known(&error, request), "{error} in {}", String::from_utf8_lossy(head));
}

/// What tungstenite refuses, though RFC 6455 does not ask it to.
fn is_known(error: &Error, request: &Request) -> bool {
    let error = match error {
        Error::Protocol(error) => error,
        // RFC 6455 leaves the target's grammar to others, and browsers send some characters that are
        // in no URI. The path in a whole URL is all that is looked at.
        Error::HttpFormat(_) => {
            let is_odd = |byte: u8| br#""<>[\]^`{|}"#.contains(&byte);
            return !request.target.starts_with('/') || request.target.bytes().any(is_odd);
        }
        _ => return false,
    };
    let is_list = |name| {
        request.values(name).nth(1).is_some()
            || request.values(name).any(|value| value.contains(&b','))
    };
    match error {
        // It knows HTTP/1.0 and 1.1. RFC 9110 §2.5: a higher minor version is processed as the highest
        // one that is known.
        ProtocolError::HttparseError(httparse::Error::Version) => request.version.1 > 1,
        // It reads the first field of a name only, and takes Upgrade for one value. §4.2.1 asks for
        // fields that contain a token; by RFC 9110 §5.3 and §7.8 both are lists.
        ProtocolError::MissingUpgradeWebSocketHeader => is_list("Upgrade"),
        ProtocolError::MissingConnectionUpgradeHeader => is_list("Connection"),
        // 16 bytes leave four bits of the last digit unused. RFC 4648 §3.5 lets a decoder refuse a
        // key that has them set, and does not ask it to.
        ProtocolError::InvalidSecWebSocketKey => request.values("Sec-WebSocket-Key").any(|key| {
            matches!(key, [digits @ .., last, b'=', b'='] if digits.len() == 21 && !b"AQgw".contains(last))
        }),
        _ => false,
    }
}
