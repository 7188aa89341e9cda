//! One client's thread: its request, its conversation and its end, over a stream.

use std::convert::Infallible;
use std::fmt;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use log::{Level, debug, info, log};
use rustix::io::Errno;

use crate::app::behavior::{Behavior, Script};
use crate::app::conversation::{self, Conversation};
use crate::app::dump;
use crate::app::routes;
use crate::app::scripted::{Scripted, Step};
use crate::buffer::Buffer;
use crate::escape::{Count, Quoted};
use crate::http::request::{self, Request};
use crate::http::response::{self, Response};
use crate::proxy_protocol::{self, Parsed};
use crate::server::Shared;
use crate::server::registry::{self, Registration};
use crate::server::socket::{self, Handshake, Peer, Received};
use crate::server::stream::{Stream, Transport};
use crate::websocket::close;
use crate::websocket::deflate::{PerMessageDeflate, Sizes};
use crate::websocket::frame::{self, Opcode};
use crate::websocket::handshake::Upgrade;
use crate::websocket::negotiation::Negotiation;
use crate::websocket::session::Close;

/// Serves a connection from its request to its end.
pub fn serve(registration: &Registration, shared: &Shared) {
    let socket = &registration.connection().socket;
    let transport = shared.acceptor.as_ref().map_or(Transport::Plain, Transport::Offered);
    let stream = Stream::new(socket, shared.config.timeouts.write_timeout, transport);
    if let Err(end) = (Client { registration, shared, stream }).serve() {
        debug!("{}: {end}", registration.connection().peer());
    }
}

struct Client<'c> {
    registration: &'c Registration,
    shared: &'c Shared,
    stream: Stream<'c>,
}

/// How a connection ended.
enum End {
    /// One side has sent its close frame, and the other side's may not have arrived yet.
    Closed(Close),
    /// The peer's stream ended without a close frame.
    Eof,
    Io(Errno),
    /// The server has ended its stream without a close frame.
    EndedStream,
    Reset,
    /// The peer sent nothing: a probe, or a browser that has connected ahead of time.
    NoRequest,
    /// The peer has to send a PROXY header, and did not.
    NoProxyHeader,
    /// TLS failed, its handshake or what came after.
    Tls(String),
    Panic,
}

/// What a request is answered by.
enum Answer {
    Opening(Box<Opening>),
    Response(Response),
}

/// A WebSocket that opens.
struct Opening {
    /// The client's number in the log.
    number: u64,
    /// What the log says about it.
    line: String,
    response: Vec<u8>,
    deflate: Option<PerMessageDeflate>,
    /// What the server was asked to do.
    behavior: Option<Box<Behavior>>,
    /// The first message of a script that tells what the request was.
    dump: Option<String>,
}

impl Client<'_> {
    fn serve(&mut self) -> Result<(), End> {
        if let Some((mut opening, input)) = self.open()? {
            // Here and not deeper: the log needs the most of the stack.
            let level = self.log_opening(&opening.line);
            match opening.behavior.take().filter(|behavior| behavior.script != Script::default()) {
                None => self.converse(*opening, level, input),
                Some(behavior) => self.perform(*opening, level, input, &behavior.script),
            }
        }
        Ok(())
    }

    /// Answers the request, unless it opens a WebSocket, with whose first frames it may have come.
    // Neither this nor what it calls is inlined: what each needs of the stack would stay below the others.
    #[inline(never)]
    fn open(&mut self) -> Result<Option<(Box<Opening>, Buffer)>, End> {
        let handshake_timeout = self.shared.config.timeouts.handshake_timeout;
        let mut deadline = Instant::now() + handshake_timeout;
        let proxy_header = self.proxy_header(deadline)?;
        let handshake = self.handshake(deadline)?;
        let mut input = self.small_buffer();
        let head = self.read_head(&mut input, deadline);
        if let Some(why) = self.stream.tls_failure() {
            let end = End::Tls(why.into());
            // Otherwise what the peer was told is lost to a reset.
            let _ = self.drain(input, deadline);
            return Err(end);
        }
        if input.filled().is_empty() && self.registration.refusal().is_none() {
            self.end_stream();
            return Err(End::NoRequest);
        }
        let head_len = *head.as_ref().unwrap_or(&0);
        let request = head.and_then(|head_len| {
            Request::parse(&input.filled()[..head_len]).map_err(routes::refuse)
        });
        let mut who = self.describe(request.as_ref().ok());
        let answer = match (&request, self.registration.refusal()) {
            (_, Some(why)) => Answer::Response(routes::unavailable(why)),
            _ if handshake == Handshake::Http => Answer::Response(routes::tls_required()),
            (Err(response), None) => Answer::Response(response.clone()),
            (Ok(request), None) => match self.upgrade(request) {
                Err(response) => Answer::Response(response),
                Ok(opening) => {
                    let answer = self.agree(opening, proxy_header.as_ref(), request, &mut who)?;
                    // It may have been delayed.
                    deadline = Instant::now() + handshake_timeout;
                    answer
                }
            },
        };
        match answer {
            Answer::Opening(opening) => {
                let end = input.filled().len();
                input.keep(head_len..end);
                Ok(Some((opening, input)))
            }
            Answer::Response(response) => {
                self.respond(&who, request.as_ref().ok(), &response, &input)?;
                self.drain(input, deadline)?;
                Ok(None)
            }
        }
    }

    /// Sends a response that opens no WebSocket.
    #[inline(never)]
    fn respond(
        &mut self,
        who: &str,
        request: Option<&Request>,
        response: &Response,
        input: &Buffer,
    ) -> Result<(), End> {
        self.log_response(who, request, response);
        // Whatever else is wrong with it.
        let head = request::skip_empty_line(input.filled());
        let method = if head.starts_with(b"HEAD ") { "HEAD" } else { "GET" };
        let date = httpdate::fmt_http_date(SystemTime::now());
        self.stream.send_last(&response.encode(method, &date))?;
        self.registration.connection().end_request();
        Ok(())
    }

    /// Receives the PROXY header if the peer has to send one, and records whose connection it forwards.
    #[inline(never)]
    fn proxy_header(&mut self, deadline: Instant) -> Result<Option<proxy_protocol::Header>, End> {
        let connection = self.registration.connection();
        if !self.shared.config.listening.expects_proxy_header(connection.peer().ip()) {
            return Ok(None);
        }
        let mut input = self.small_buffer();
        let wrong = loop {
            let missing = match proxy_protocol::parse(input.filled()) {
                Ok(Parsed::Incomplete(missing)) => missing,
                Ok(Parsed::Complete(header)) => {
                    if let Some(source) = header.source {
                        connection.set_client(source);
                    }
                    return Ok(Some(header));
                }
                Err(wrong) => break wrong,
            };
            let wait = deadline.saturating_duration_since(Instant::now());
            if wait.is_zero() {
                break "the PROXY header did not come whole in time";
            }
            let _ = input.reserve(input.filled().len() + missing);
            let spare = input.spare_mut();
            if spare.is_empty() {
                break "there is no memory for the PROXY header";
            }
            let len = missing.min(spare.len());
            match self.stream.receive(&mut spare[..len], Some(wait)) {
                Ok(Received::Bytes(bytes)) => input.advance(bytes),
                Ok(Received::Nothing) if self.registration.refusal().is_none() => continue,
                _ => break "the PROXY header breaks off",
            }
            connection.begin_request();
        };
        Err(self.refuse_without_header(wrong, input, deadline))
    }

    #[inline(never)]
    fn refuse_without_header(&mut self, wrong: &str, input: Buffer, deadline: Instant) -> End {
        let Some(first) = input.filled().first() else {
            self.end_stream();
            return End::NoRequest;
        };
        let start = Quoted(&input.filled()[..input.filled().len().min(16)]).to_string();
        if let Some(left_out) = self.shared.request_log.admit(Instant::now()) {
            info!("{}: refused, {wrong}: {start}{left_out}", self.peer());
        }
        // For who tries the port out. To others it means nothing.
        if first.is_ascii_alphabetic() {
            let date = httpdate::fmt_http_date(SystemTime::now());
            let response = routes::proxy_header_required(wrong).encode("GET", &date);
            if self.stream.send_last(&response).is_ok() {
                let _ = self.drain(input, deadline);
            }
        }
        End::NoProxyHeader
    }

    /// Completes the TLS handshake, if there is one, or finds out that the peer does not speak TLS.
    #[inline(never)]
    fn handshake(&mut self, deadline: Instant) -> Result<Handshake, End> {
        loop {
            let wait = deadline.saturating_duration_since(Instant::now());
            if wait.is_zero() {
                return Err(End::Tls("the handshake was not complete in time".into()));
            }
            let handshake = self.stream.handshake(&self.shared.budget, wait);
            if self.stream.is_handshaking() {
                self.registration.connection().begin_request();
            }
            match handshake {
                Ok(Handshake::Unfinished) if self.registration.refusal().is_none() => {}
                Ok(Handshake::Unfinished | Handshake::End) => {
                    return Err(End::Tls("the handshake breaks off".into()));
                }
                Ok(handshake) => {
                    if let Some(tls) = self.stream.tls() {
                        self.registration.connection().end_handshake();
                        debug!("{}: {tls}", self.peer());
                    }
                    return Ok(handshake);
                }
                Err(error) => {
                    // Otherwise what the peer was told is lost to a reset.
                    let _ = self.drain(self.small_buffer(), deadline);
                    return Err(error.into());
                }
            }
        }
    }

    fn peer(&self) -> Peer {
        self.registration.connection().peer()
    }

    /// A buffer of [`SMALL_INPUT`](conversation::SMALL_INPUT) bytes.
    fn small_buffer(&self) -> Buffer {
        let mut buffer = Buffer::new(Arc::clone(&self.shared.budget));
        // So small a buffer has no map that the system could refuse.
        let _ = buffer.reserve(conversation::SMALL_INPUT);
        buffer
    }

    /// What `request` opens, for which client.
    ///
    /// # Errors
    ///
    /// The response if it opens no WebSocket.
    #[inline(never)]
    fn upgrade(&self, request: &Request) -> Result<Box<(u64, routes::Opening)>, Response> {
        let behaviors = self.shared.config.messages.behaviors;
        let opening = routes::route(request, &self.shared.policy, behaviors)?;
        let number = self.registration.upgrade().map_err(routes::unavailable)?;
        Ok(Box::new((number, opening)))
    }

    /// The answer to `request`, after the delay that it asks for.
    #[expect(clippy::boxed_local, reason = "by value it would take stack in both functions")]
    #[inline(never)]
    fn agree(
        &mut self,
        opening: Box<(u64, routes::Opening)>,
        proxy_header: Option<&proxy_protocol::Header>,
        request: &Request,
        who: &mut String,
    ) -> Result<Answer, End> {
        let (number, routes::Opening { upgrade, behavior }) = *opening;
        let behavior = behavior.and_then(|behavior| self.draw(behavior, request, who));
        let handshake = behavior.as_ref().map(|behavior| behavior.handshake);
        let response = routes::open(request, &upgrade, handshake.unwrap_or_default());
        let dump = behavior.as_ref().filter(|behavior| behavior.script.dump).map(|_| {
            let peer = self.peer().to_string();
            dump::dump(&peer, proxy_header, request, &self.shared.policy, &response)
        });
        let refusal = match &behavior {
            Some(behavior) => self.delay(behavior.delay, who)?,
            None => None,
        };
        let response = refusal.unwrap_or(response);
        if response.status != 101 {
            self.registration.close();
            return Ok(Answer::Response(response));
        }
        Ok(Answer::Opening(Box::new(Opening {
            number,
            line: describe_opening(number, who, &upgrade),
            response: response.encode("GET", ""),
            deflate: self.deflate(&upgrade),
            behavior,
            dump,
        })))
    }

    /// The behaviour that was asked for, unless it happens to other connections.
    fn draw(
        &self,
        behavior: Box<Behavior>,
        request: &Request,
        who: &mut String,
    ) -> Option<Box<Behavior>> {
        *who += &format!(", behavior {}", Quoted(request.query().as_bytes()));
        let is_drawn = behavior.rate.is_none_or(|rate| self.shared.draws.is_drawn(rate));
        if !is_drawn {
            *who += " not drawn";
        }
        is_drawn.then_some(behavior)
    }

    /// Lets `time` pass before the handshake is answered. If the server stops meanwhile, that is the
    /// response.
    fn delay(&mut self, time: Duration, who: &str) -> Result<Option<Response>, End> {
        let until = Instant::now() + time;
        while !time.is_zero() {
            // Though others are served while it stops: the end of this delay may come after the server's.
            if self.registration.is_stopping() {
                return Ok(Some(routes::unavailable(registry::STOPPING)));
            }
            let wait = until.saturating_duration_since(Instant::now());
            if wait.is_zero() {
                break;
            }
            if self.stream.pause(wait)? == Received::End {
                if let Some(left_out) = self.shared.request_log.admit(Instant::now()) {
                    info!("{who}: peer left before the handshake was answered{left_out}");
                }
                return Err(End::Eof);
            }
        }
        Ok(None)
    }

    /// Reads until the head of the request has come, and tells its length.
    ///
    /// # Errors
    ///
    /// The response if it does not come, is too long, or is refused.
    #[inline(never)]
    fn read_head(&mut self, input: &mut Buffer, deadline: Instant) -> Result<usize, Response> {
        let mut searched = 0;
        loop {
            let wait = deadline.saturating_duration_since(Instant::now());
            if wait.is_zero() {
                return Err(routes::timeout());
            }
            match self.stream.receive(input.spare_mut(), Some(wait)) {
                Ok(Received::Bytes(bytes)) => input.advance(bytes),
                Ok(Received::Nothing) if self.registration.refusal().is_none() => continue,
                // If it is refused, that is the response.
                _ => return Err(Response::text(400, "the head breaks off")),
            }
            self.registration.connection().begin_request();
            if let Some(len) =
                request::head_len(input.filled(), searched).map_err(routes::refuse)?
            {
                return Ok(len);
            }
            searched = input.filled().len();
            if input.spare_mut().is_empty() {
                let _ = input.reserve(conversation::LARGE_INPUT);
            }
        }
    }

    /// Gives the peer until `deadline`, and no longer than the close timeout, to read a response and
    /// to end its stream: a socket that is dropped with unread input resets the connection, and the
    /// response is lost.
    #[inline(never)]
    fn drain(&mut self, mut scratch: Buffer, deadline: Instant) -> Result<(), End> {
        let deadline = deadline.min(Instant::now() + self.shared.config.timeouts.close_timeout);
        loop {
            scratch.clear();
            let wait = deadline.saturating_duration_since(Instant::now());
            let received = self.stream.receive(scratch.spare_mut(), Some(wait))?;
            if received == Received::End || Instant::now() >= deadline {
                return Ok(());
            }
        }
    }

    /// What compresses messages, if it was agreed.
    fn deflate(&self, upgrade: &Upgrade) -> Option<PerMessageDeflate> {
        match upgrade.compression {
            Negotiation::Agreed(parameters) => {
                Some(PerMessageDeflate::new(parameters, Arc::clone(&self.shared.contexts)))
            }
            Negotiation::Declined(_) | Negotiation::NotOffered => None,
        }
    }

    /// Opens the WebSocket, and converses until it is over.
    #[inline(never)]
    fn converse(&mut self, opening: Opening, level: Level, input: Buffer) {
        let Opening { number, response, deflate, .. } = opening;
        let opened = Instant::now();
        self.stream.received = input.filled().len() as u64;
        let Shared { settings, budget, .. } = self.shared;
        let mut conversation = Conversation::new(number, settings, input, budget, deflate);
        let end = self.end_of(|client| client.drive(&mut conversation, &response, opened));
        let total = conversation.compressed_total();
        self.log_end(level, number, format_args!("{end}"), conversation.messages(), opened, total);
        match end {
            End::Closed(close) => {
                if let Close::ByPeer(frame) = close {
                    debug!("client {number}: close reason {}", Quoted(frame.reason.as_bytes()));
                }
                // Otherwise the close frame is lost to a reset, as a response would be.
                while !conversation.is_over() && self.receive(&mut conversation, opened).is_ok() {
                    conversation.next_output();
                }
            }
            End::Io(Errno::TIMEDOUT) => self.stream.discard_unsent(),
            End::Eof => self.end_stream(),
            End::Io(_) | End::EndedStream | End::Reset | End::NoRequest | End::NoProxyHeader => {}
            End::Tls(_) | End::Panic => {
                self.see_the_end();
            }
        }
    }

    /// Opens the WebSocket, and follows `script` until it is over.
    #[inline(never)]
    fn perform(&mut self, opening: Opening, level: Level, input: Buffer, script: &Script) {
        let Opening { number, response, deflate, dump, .. } = opening;
        let opened = Instant::now();
        self.stream.received = input.filled().len() as u64;
        let response_len = response.len() as u64;
        let mut opening = response;
        if let Some(dump) = dump {
            frame::encode_header(Opcode::Text, dump.len(), &mut opening);
            opening.extend_from_slice(dump.as_bytes());
        }
        let settings = script.settings(&self.shared.settings);
        let budget = &self.shared.budget;
        let conversation = Conversation::new(number, &settings, input, budget, deflate);
        let held = Buffer::new(Arc::clone(budget));
        let mut scripted = Scripted::new(conversation, script, opening, held);
        let end = self.end_of(|client| client.follow(&mut scripted, opened));
        let then = match end {
            End::Closed(_) | End::EndedStream | End::Tls(_) | End::Panic => self.see_the_end(),
            End::Reset | End::Io(Errno::TIMEDOUT) => {
                self.stream.discard_unsent();
                String::new()
            }
            End::Eof => {
                self.end_stream();
                String::new()
            }
            End::Io(_) | End::NoRequest | End::NoProxyHeader => String::new(),
        };
        // The response was sent with the first of what followed it.
        self.stream.sent = self.stream.sent.saturating_sub(response_len);
        let total = scripted.compressed_total();
        self.log_end(
            level,
            number,
            format_args!("{end}{then}"),
            scripted.messages(),
            opened,
            total,
        );
    }

    fn follow(&mut self, scripted: &mut Scripted, opened: Instant) -> Result<Infallible, End> {
        loop {
            if self.registration.is_stopping() {
                scripted.stop();
            }
            let received = match scripted.next(opened.elapsed()) {
                Step::Send(bytes) => {
                    self.stream.send(bytes, b"")?;
                    continue;
                }
                Step::SendLast(bytes) => {
                    self.send_last(bytes)?;
                    let close = scripted.closed().cloned();
                    return Err(close.map_or(End::EndedStream, End::Closed));
                }
                Step::Receive(wait) => self.stream.receive(scripted.input(), wait)?,
                Step::Pause(wait) => self.stream.pause(wait)?,
                Step::Reset => return Err(End::Reset),
            };
            let now = self.stream.now() - opened;
            match received {
                Received::Bytes(bytes) => scripted.received(bytes, now),
                Received::Nothing => scripted.waited(now),
                Received::End => return Err(End::Eof),
            }
        }
    }

    /// Sends the last bytes of a WebSocket, which counts no longer then.
    fn send_last(&mut self, bytes: &[u8]) -> Result<(), End> {
        self.registration.connection().end_request();
        self.registration.close();
        Ok(self.stream.send_last(bytes)?)
    }

    /// Ends the stream towards a peer that has ended its own, and TLS too, which the peer may wait for.
    fn end_stream(&mut self) {
        // If it can't be sent, the end is the same.
        let _ = self.stream.send_last(b"");
    }

    /// Waits for the end of the peer's stream, after that of the server's, and tells when it came.
    fn see_the_end(&mut self) -> String {
        let began = Instant::now();
        let timeout = self.shared.settings.close_timeout;
        match self.drain(self.small_buffer(), began + timeout) {
            Ok(()) if began.elapsed() < timeout => {
                format!("; peer ended the stream {:.3} s later", began.elapsed().as_secs_f64())
            }
            Ok(()) => format!("; peer did not end the stream within {timeout:?}"),
            Err(end) => format!("; {end}"),
        }
    }

    /// How `drive` ends. A panic ends it by a close frame, if the stream is not inside another one.
    fn end_of(&mut self, drive: impl FnOnce(&mut Self) -> Result<Infallible, End>) -> End {
        match panic::catch_unwind(AssertUnwindSafe(|| drive(self))) {
            Ok(Err(end)) => end,
            Err(_) => {
                let mut frame = Vec::new();
                close::INTERNAL_ERROR.encode(&mut frame);
                if !self.stream.is_sending() {
                    // If it can't be sent, the end is the same.
                    let _ = self.stream.send_last(&frame);
                }
                End::Panic
            }
        }
    }

    fn drive(
        &mut self,
        conversation: &mut Conversation,
        response: &[u8],
        opened: Instant,
    ) -> Result<Infallible, End> {
        self.stream.send(response, b"")?;
        self.stream.sent = 0;
        loop {
            while let Some(output) = conversation.next_output() {
                if output.is_last {
                    self.send_last(output.head)?;
                } else {
                    self.stream.send(output.head, output.payload)?;
                }
            }
            if let Some(close) = conversation.closed() {
                return Err(End::Closed(close.clone()));
            }
            if self.registration.is_stopping() {
                conversation.stop();
            } else {
                self.receive(conversation, opened)?;
            }
        }
    }

    fn receive(&mut self, conversation: &mut Conversation, opened: Instant) -> Result<(), End> {
        let wait = conversation.wait();
        let received = self.stream.receive(conversation.input(), wait)?;
        let now = self.stream.now() - opened;
        match received {
            Received::Bytes(bytes) => conversation.received(bytes, now),
            Received::Nothing => conversation.waited(now),
            Received::End => return Err(End::Eof),
        }
        Ok(())
    }

    /// Logs that a WebSocket opens, and tells at which level its end is to be logged.
    #[inline(never)]
    fn log_opening(&self, line: &str) -> Level {
        let Some(left_out) = self.shared.client_log.admit(Instant::now()) else {
            return Level::Debug;
        };
        info!("{line}{left_out}");
        Level::Info
    }

    fn log_end(
        &self,
        level: Level,
        number: u64,
        end: fmt::Arguments,
        messages: u64,
        opened: Instant,
        compressed: Option<Sizes>,
    ) {
        let ratio = compressed.map_or(String::new(), |Sizes { plain, compressed }| {
            format!(", compressed to {} %", compressed.saturating_mul(100) / plain)
        });
        log!(
            level,
            "client {number} ended: {end}; {}, {} in, {} out, {:.3} s{ratio}",
            Count(messages, "message"),
            Count(self.stream.received, "byte"),
            Count(self.stream.sent, "byte"),
            opened.elapsed().as_secs_f64(),
        );
    }

    fn log_response(&self, who: &str, request: Option<&Request>, response: &Response) {
        let what = match response.status {
            200 => response::described(200),
            status => format!("{}, {}", response::described(status), response.body.trim_end()),
        };
        let is_health_check = request.and_then(Request::path).is_some_and(routes::is_health_check);
        if response.status == 200 && is_health_check {
            debug!("{who}: {what}");
        } else if let Some(left_out) = self.shared.request_log.admit(Instant::now()) {
            info!("{who}: {what}{left_out}");
        } else {
            debug!("{who}: {what}");
        }
    }

    /// Who asks for what.
    #[inline(never)]
    fn describe(&self, request: Option<&Request>) -> String {
        let mut who = self.peer().to_string();
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

impl From<socket::Error> for End {
    fn from(error: socket::Error) -> Self {
        match error {
            socket::Error::Io(error) => End::Io(error),
            socket::Error::Tls(why) => End::Tls(why),
        }
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            End::Closed(Close::ByPeer(frame)) => match frame.code {
                Some(code) => write!(f, "closed by peer, {code}"),
                None => write!(f, "closed by peer, no code"),
            },
            End::Closed(Close::ByServer(frame)) => write!(f, "closed by server, {frame}"),
            End::Eof => write!(f, "peer ended the stream without a close frame"),
            // From a send here, or from the kernel for all that was sent before.
            End::Io(Errno::TIMEDOUT) => write!(f, "peer did not read in time, or is gone"),
            End::Io(error) => write!(f, "connection lost, {error}"),
            End::NoRequest => write!(f, "sent no request"),
            End::NoProxyHeader => write!(f, "sent no PROXY header"),
            End::Tls(why) => write!(f, "TLS failed, {why}"),
            End::EndedStream => write!(f, "stream ended by server without a close frame"),
            End::Reset => write!(f, "connection reset by server"),
            End::Panic => write!(f, "closed by server, {}", close::INTERNAL_ERROR),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::net::{TcpListener, TcpStream};
    use std::time::Duration;

    use clap::Parser as _;

    use super::*;
    use crate::app::conversation::WRITE_TIMEOUT_PARTS;
    use crate::cli::Config;
    use crate::server::limits::Limits;
    use crate::server::registry::Connection;
    use crate::server::socket::Socket;

    /// What a client receives whose thread does `drive`, and how that ends.
    fn received(drive: impl FnOnce(&mut Client) -> Result<Infallible, End>) -> (Vec<u8>, String) {
        let timeout = Duration::from_millis(80);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (stream, address) = listener.accept().unwrap();
        stream.set_write_timeout(Some(timeout / WRITE_TIMEOUT_PARTS)).unwrap();
        let connection = Connection::new(Socket::new(stream, Peer::Tcp(address)));
        let shared = Shared::new(Config::parse_from(["wsecho"]), None, Limits::raise());
        let registration = shared.registry.register(&connection).unwrap();
        let stream = Stream::new(&connection.socket, timeout, Transport::Plain);
        let mut client = Client { registration: &registration, shared: &shared, stream };
        let end = client.end_of(drive).to_string();
        connection.socket.abort();
        let mut received = Vec::new();
        peer.read_to_end(&mut received).unwrap();
        (received, end)
    }

    #[test]
    fn a_panic_ends_the_conversation_by_close_1011() {
        let (received, end) = received(|client| {
            client.stream.send(b"\x81\x02hi", b"")?;
            panic!("on purpose");
        });
        assert_eq!(received, b"\x81\x02hi\x88\x10\x03\xF3internal error");
        assert_eq!(end, "closed by server, 1011 internal error");
    }

    #[test]
    fn after_a_panic_nothing_is_sent_inside_a_frame() {
        let (received, _) = received(|client| {
            // More than the sockets hold, and the peer does not read.
            let _ = client.stream.send(&[7; 10], &vec![7; 64 << 20]);
            panic!("on purpose");
        });
        assert!(received.len() > 10 && received.iter().all(|&byte| byte == 7));
    }
}
