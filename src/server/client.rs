//! One client's thread: drives a connection over a stream, and logs.

use std::panic::{self, AssertUnwindSafe};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use log::{Level, debug, info, log, warn};
use rustix::io::Errno;

use crate::app::connection::Connection;
use crate::app::end::Lost;
use crate::app::step::{Line, Step, Topic};
use crate::server::registry::{LIMIT_REACHED, Registration};
use crate::server::shared::Shared;
use crate::server::socket::{Error, Received};
use crate::server::stream::Stream;
use crate::server::tls::Handshake;
use crate::websocket::close;

/// Serves a connection from its first byte to its last.
pub fn serve(registration: &Registration, shared: &Shared) {
    let socket = &registration.connection().socket;
    let service = &shared.service;
    let began = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let stream = Stream::new(socket, service.settings.timeouts.write);
    let mut client = Client { registration, shared, stream, level: Level::Info };
    let mut connection = Connection::new(service, socket.peer, began);
    if shared.config.listening.expects_proxy_header(socket.peer.ip()) {
        connection.expect_proxy_header();
    } else {
        client.start_tls();
    }
    client.serve(&mut connection);
}

struct Client<'c> {
    registration: &'c Registration,
    shared: &'c Shared,
    stream: Stream<'c>,
    /// The level at which the end of the WebSocket is logged.
    level: Level,
}

impl Client<'_> {
    /// Drives `connection` to its end. A panic ends it with a close frame.
    fn serve(&mut self, connection: &mut Connection) {
        let driven = panic::catch_unwind(AssertUnwindSafe(|| self.drive_to_end(connection)));
        if driven.is_err() {
            if connection.is_open() {
                self.close_after_panic();
            }
            connection.lost(Lost::Panicked, 0, self.stream.now());
            self.drive_to_end(connection);
        }
    }

    fn drive_to_end(&mut self, connection: &mut Connection) {
        while let Err(error) = self.drive(connection) {
            let lost = match error {
                Error::Io(Errno::TIMEDOUT) => {
                    self.stream.discard_unsent();
                    Lost::TimedOut
                }
                Error::Io(error) => Lost::Broken(error.to_string()),
                Error::Tls(why) => Lost::Tls(why),
            };
            connection.lost(lost, self.stream.unsent(), self.stream.now());
        }
    }

    fn drive(&mut self, connection: &mut Connection) -> Result<(), Error> {
        loop {
            self.check_refusal(connection);
            match connection.next(self.stream.now()) {
                Step::Send { head, payload } => self.stream.send(head, payload)?,
                Step::SendClose(bytes) => {
                    self.registration.close();
                    self.stream.send(bytes, b"")?;
                }
                Step::SendEnd(bytes) => self.stream.send_last(bytes)?,
                Step::EndTcp => self.stream.end_tcp(),
                Step::UpdateKeys => self.stream.update_keys()?,
                Step::SendLast(bytes) => {
                    self.registration.close();
                    self.stream.send_last(bytes)?;
                    self.registration.end_request();
                }
                Step::Receive(wait) => {
                    let received = self.stream.receive(connection.input(), wait)?;
                    self.process(received, connection);
                }
                Step::Pause(wait) => {
                    let received = self.stream.pause(wait)?;
                    self.process(received, connection);
                }
                Step::Admit => connection.admitted(self.registration.upgrade()),
                Step::Report(agent) => {
                    let result = self.report(agent);
                    connection.reported(result);
                }
                Step::Forwarded(peer) => {
                    self.registration.set_peer(peer);
                    self.start_tls();
                }
                Step::Log(topic, line) => self.log(topic, &line),
                Step::Reset => self.stream.discard_unsent(),
                Step::Over => return Ok(()),
            }
        }
    }

    /// Reports the result of a wait to the connection, and to the registry what it needs of it.
    fn process(&mut self, received: Received, connection: &mut Connection) {
        match received {
            Received::Bytes(bytes) => {
                self.registration.begin_request();
                connection.received(bytes, self.stream.now());
            }
            Received::Nothing => connection.waited(self.stream.now()),
            Received::End => {
                // An eviction looks like the peer's end of stream, but needs a response.
                self.check_refusal(connection);
                connection.ended(self.stream.now());
            }
            Received::Tls => {
                self.end_handshake(connection);
                connection.received(0, self.stream.now());
            }
            Received::NotTls => connection.spoke_plain_http(),
        }
    }

    /// Passes a refusal on to the connection, if there is one.
    fn check_refusal(&self, connection: &mut Connection) {
        match self.registration.refusal() {
            None => {}
            Some(LIMIT_REACHED) => connection.make_room(LIMIT_REACHED),
            Some(why) => connection.stop(why),
        }
    }

    /// Writes the reports on `agent`, if there is a directory for them.
    #[cold]
    fn report(&self, agent: &str) -> Result<(), String> {
        let Some(reports) = &self.shared.reports else { return Ok(()) };
        reports.write(&self.shared.service.cases, agent).inspect_err(|why| {
            if let Some(suppressed) = self.shared.request_log.admit(Instant::now()) {
                warn!("{why}{suppressed}");
            }
        })
    }

    /// Enables TLS, if there is a certificate.
    #[inline(never)]
    fn start_tls(&mut self) {
        if let Some(acceptor) = &self.shared.acceptor {
            self.stream.start_tls(Handshake::new(acceptor, &self.shared.service.budget));
        }
    }

    /// Records that the TLS handshake is complete.
    #[cold]
    fn end_handshake(&mut self, connection: &mut Connection) {
        self.registration.end_handshake();
        connection.spoke_tls();
        debug!("{}: {}", self.registration.peer(), self.stream.tls().unwrap_or_default());
    }

    fn close_after_panic(&mut self) {
        // Nothing can be sent inside a frame.
        if self.stream.unsent() == 0 {
            let mut frame = Vec::new();
            close::INTERNAL_ERROR.encode(&mut frame);
            // The connection ends either way.
            let _ = self.stream.send_last(&frame);
        }
    }

    // Not inlined, since logging needs the most stack.
    #[inline(never)]
    fn log(&mut self, topic: Topic, line: &Line) {
        let admitted = match topic {
            Topic::Request => self.shared.request_log.admit(Instant::now()),
            Topic::Opened | Topic::Verdict => self.shared.client_log.admit(Instant::now()),
            Topic::Ended => return log!(self.level, "{line}"),
            Topic::Detail => None,
        };
        if let Topic::Opened = topic {
            self.level = if admitted.is_some() { Level::Info } else { Level::Debug };
        }
        match admitted {
            Some(suppressed) => info!("{line}{suppressed}"),
            None => debug!("{line}"),
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
    use crate::app::cases::results::Cases;
    use crate::app::peer::Peer;
    use crate::app::settings::WRITE_TIMEOUT_PARTS;
    use crate::cli::Config;
    use crate::server::limits::Limits;
    use crate::server::registry;
    use crate::server::socket::Socket;

    /// The bytes that a client receives if `head` and `payload` are sent before a panic.
    fn received(head: &[u8], payload: &[u8]) -> Vec<u8> {
        let timeout = Duration::from_millis(80);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (stream, address) = listener.accept().unwrap();
        stream.set_write_timeout(Some(timeout / WRITE_TIMEOUT_PARTS)).unwrap();
        let connection = registry::Connection::new(Socket::new(stream, Peer::Tcp(address)));
        let config = Config::parse_from(["wsecho"]);
        let shared = Shared::new(config, None, Limits::raise(), Cases::default(), None);
        let registration = shared.registry.register(&connection).unwrap();
        let stream = Stream::new(&connection.socket, timeout);
        let mut client =
            Client { registration: &registration, shared: &shared, stream, level: Level::Info };
        let _ = client.stream.send(head, payload);
        client.close_after_panic();
        connection.socket.abort();
        let mut received = Vec::new();
        peer.read_to_end(&mut received).unwrap();
        received
    }

    #[test]
    fn a_panic_ends_the_conversation_by_close_1011() {
        let received = received(b"\x81\x02hi", b"");
        assert_eq!(received, b"\x81\x02hi\x88\x10\x03\xF3internal error");
    }

    #[test]
    fn after_a_panic_nothing_is_sent_inside_a_frame() {
        // More than the sockets hold, and the peer does not read.
        let received = received(&[7; 10], &vec![7; 64 << 20]);
        assert!(received.len() > 10 && received.iter().all(|&byte| byte == 7));
    }
}
