//! One client's thread: its request, its conversation and its end, over a stream.

use std::convert::Infallible;
use std::fmt;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use log::{Level, debug, info, log};
use rustix::io::Errno;

use crate::app::conversation::{self, Conversation};
use crate::app::routes;
use crate::buffer::Buffer;
use crate::escape::Quoted;
use crate::http::request::{self, Request};
use crate::http::response::{Response, reason_phrase};
use crate::server::Shared;
use crate::server::registry::Registration;
use crate::server::stream::{Received, Stream};
use crate::websocket::close;
use crate::websocket::deflate::{Negotiation, PerMessageDeflate, Sizes};
use crate::websocket::handshake::Upgrade;
use crate::websocket::session::Close;

/// Serves a connection from its request to its end.
pub fn serve(registration: &Registration, shared: &Shared) {
    let socket = &registration.connection().socket;
    let stream = Stream::new(socket, shared.config.timeouts.write_timeout);
    if let Err(end) = (Client { registration, shared, stream }).serve() {
        debug!("{}: {end}", socket.peer);
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
    Panic,
}

impl Client<'_> {
    fn serve(&mut self) -> Result<(), End> {
        let deadline = Instant::now() + self.shared.config.timeouts.handshake_timeout;
        let mut input = Buffer::new(Arc::clone(&self.shared.budget));
        // So small a buffer has no map that the system could refuse.
        let _ = input.reserve(conversation::SMALL_INPUT);
        let head = self.read_head(&mut input, deadline);
        if input.filled().is_empty() && self.registration.refusal().is_none() {
            // A probe, or a browser that has connected ahead of time.
            debug!("{}: sent no request", self.registration.connection().socket.peer);
            return Ok(());
        }
        let head_len = *head.as_ref().unwrap_or(&0);
        let request = head.and_then(|head_len| {
            Request::parse(&input.filled()[..head_len]).map_err(routes::refuse)
        });
        let who = self.describe(request.as_ref().ok());
        let upgraded = match (&request, self.registration.refusal()) {
            (_, Some(why)) => Err(routes::unavailable(why)),
            (Err(response), None) => Err(response.clone()),
            (Ok(request), None) => {
                routes::route(request, &self.shared.policy).and_then(|upgrade| {
                    let number = self.registration.upgrade().map_err(routes::unavailable)?;
                    Ok((number, upgrade))
                })
            }
        };
        let response = match upgraded {
            Err(response) => response,
            Ok((number, upgrade)) => {
                let level = self.log_upgrade(number, &who, &upgrade);
                // The first frames may have come right after the head.
                let end = input.filled().len();
                input.keep(head_len..end);
                self.converse(number, level, &upgrade, input);
                return Ok(());
            }
        };
        self.log_response(&who, request.as_ref().ok(), &response);
        // Whatever else is wrong with it.
        let method = if input.filled().starts_with(b"HEAD ") { "HEAD" } else { "GET" };
        let date = httpdate::fmt_http_date(SystemTime::now());
        self.stream.send_last(&response.encode(method, &date))?;
        self.registration.connection().end_request();
        self.drain(input, deadline)
    }

    /// Reads until the head of the request has come, and tells its length.
    ///
    /// # Errors
    ///
    /// The response if it does not come, is too long, or is refused.
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

    /// Opens the WebSocket by its response, and converses until it is over.
    fn converse(&mut self, number: u64, level: Level, upgrade: &Upgrade, input: Buffer) {
        let opened = Instant::now();
        self.stream.received = input.filled().len() as u64;
        let Shared { settings, budget, contexts, .. } = self.shared;
        let deflate = match upgrade.compression {
            Negotiation::Agreed(parameters) => {
                Some(PerMessageDeflate::new(parameters, Arc::clone(contexts), Arc::clone(budget)))
            }
            Negotiation::Declined(_) | Negotiation::NotOffered => None,
        };
        let mut conversation = Conversation::new(number, settings, input, budget, deflate);
        let response = upgrade.response().encode("GET", "");
        let end = self.end_of(|client| client.drive(&mut conversation, &response, opened));
        let ratio = conversation.compressed_total().map(|Sizes { plain, compressed }| {
            format!(", compressed to {} %", compressed.saturating_mul(100) / plain)
        });
        log!(
            level,
            "client {number} ended: {end}; {} messages, {} bytes in, {} bytes out, {:.3} s{}",
            conversation.messages(),
            self.stream.received,
            self.stream.sent,
            opened.elapsed().as_secs_f64(),
            ratio.unwrap_or_default(),
        );
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
            End::Eof | End::Io(_) => {}
            End::Panic => {
                let mut scratch = Buffer::new(Arc::clone(&self.shared.budget));
                let _ = scratch.reserve(conversation::SMALL_INPUT);
                let _ = self.drain(scratch, Instant::now() + self.shared.settings.close_timeout);
            }
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
                    self.registration.connection().end_request();
                    self.registration.close();
                    self.stream.send_last(output.head)?;
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
    fn log_upgrade(&self, number: u64, who: &str, upgrade: &Upgrade) -> Level {
        let subprotocol = upgrade.subprotocol.as_ref();
        let subprotocol =
            subprotocol.map(|name| format!(", subprotocol {}", Quoted(name.as_bytes())));
        let subprotocol = subprotocol.unwrap_or_default();
        let compression = match &upgrade.compression {
            Negotiation::NotOffered => String::new(),
            Negotiation::Declined(why) => format!(", permessage-deflate declined: {why}"),
            Negotiation::Agreed(parameters) => format!(", {parameters}"),
        };
        let Some(left_out) = self.shared.client_log.admit(Instant::now()) else {
            return Level::Debug;
        };
        info!("client {number} connected: {who}{subprotocol}{compression}{left_out}");
        Level::Info
    }

    fn log_response(&self, who: &str, request: Option<&Request>, response: &Response) {
        let what = match response.status {
            200 => "200 OK".into(),
            status => format!("{status} {}, {}", reason_phrase(status), response.body.trim_end()),
        };
        if response.status == 200 && request.and_then(Request::path) == Some(routes::HEALTH) {
            debug!("{who}: {what}");
        } else if let Some(left_out) = self.shared.request_log.admit(Instant::now()) {
            info!("{who}: {what}{left_out}");
        } else {
            debug!("{who}: {what}");
        }
    }

    /// Who asks for what.
    fn describe(&self, request: Option<&Request>) -> String {
        let mut who = self.registration.connection().socket.peer.to_string();
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

impl From<Errno> for End {
    fn from(error: Errno) -> Self {
        End::Io(error)
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
            End::Panic => write!(f, "closed by server, {}", close::INTERNAL_ERROR),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::net::TcpStream;
    use std::time::Duration;

    use clap::Parser as _;

    use super::*;
    use crate::cli::Config;
    use crate::server::limits::Limits;
    use crate::server::listener;
    use crate::server::registry::Connection;
    use crate::server::stream::Socket;

    /// What a client receives whose thread does `drive`, and how that ends.
    fn received(drive: impl FnOnce(&mut Client) -> Result<Infallible, End>) -> (Vec<u8>, String) {
        let timeout = Duration::from_millis(80);
        let listeners = listener::listen(&["127.0.0.1:0".into()], timeout).unwrap();
        let mut peer = TcpStream::connect(listeners[0].local_addr().unwrap()).unwrap();
        let (stream, address) = listeners[0].accept().unwrap();
        let connection = Connection::new(Socket::new(stream, address));
        let shared = Shared::new(Config::parse_from(["wsecho"]), Limits::raise());
        let registration = shared.registry.register(&connection).unwrap();
        let stream = Stream::new(&connection.socket, timeout);
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
