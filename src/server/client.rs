//! One client's thread: drives a connection over a stream, and logs.

use std::panic::{self, AssertUnwindSafe};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use log::{Level, debug, info, log};
use rustix::io::Errno;

use crate::app::connection::Connection;
use crate::app::end::Lost;
use crate::app::step::{Step, Topic};
use crate::server::Shared;
use crate::server::registry::Registration;
use crate::server::socket::{Error, Handshake, Received};
use crate::server::stream::{Stream, Transport};
use crate::websocket::close;

/// Serves a connection from its first byte to its last.
pub fn serve(registration: &Registration, shared: &Shared) {
    let socket = &registration.connection().socket;
    let transport = shared.acceptor.as_ref().map_or(Transport::Plain, Transport::Offered);
    let began = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let stream = Stream::new(socket, shared.service.settings.timeouts.write, transport);
    let start = stream.now();
    let mut client = Client {
        registration,
        shared,
        stream,
        start,
        ended_level: Level::Info,
        is_handshaking: shared.acceptor.is_some(),
    };
    let mut connection = Connection::new(&shared.service, socket.peer, began);
    client.run(&mut connection);
}

struct Client<'c> {
    registration: &'c Registration,
    shared: &'c Shared,
    stream: Stream<'c>,
    start: Instant,
    /// The level of the line that logs the end of the WebSocket: that of the line on its start.
    ended_level: Level,
    is_handshaking: bool,
}

impl Client<'_> {
    /// Drives `connection` to its end. A panic ends it by a close frame, unless the stream is inside another
    /// one.
    fn run(&mut self, connection: &mut Connection) {
        let driven = panic::catch_unwind(AssertUnwindSafe(|| {
            while let Err(error) = self.drive(connection) {
                connection.lost(self.lost(error), 0);
            }
        }));
        if driven.is_err() && connection.is_open() && !self.stream.is_sending() {
            let mut frame = Vec::new();
            close::INTERNAL_ERROR.encode(&mut frame);
            // If it can't be sent, the end is the same.
            let _ = self.stream.send_last(&frame);
        }
    }

    fn drive(&mut self, connection: &mut Connection) -> Result<(), Error> {
        loop {
            if let Some(why) = self.registration.refusal() {
                connection.stop(why);
            }
            let received = match connection.next(self.now()) {
                Step::Send { head, payload } => {
                    self.stream.send(head, payload)?;
                    continue;
                }
                Step::SendClose(bytes) => {
                    self.registration.close();
                    self.stream.send(bytes, b"")?;
                    continue;
                }
                Step::SendLast(bytes) => {
                    self.registration.close();
                    self.stream.send_last(bytes)?;
                    self.registration.connection().end_request();
                    continue;
                }
                Step::Receive(wait) => self.receive(connection, wait)?,
                Step::Pause(wait) => self.stream.pause(wait)?,
                Step::Admit => {
                    connection.admitted(self.registration.upgrade());
                    continue;
                }
                Step::Log(topic, line) => {
                    self.log(topic, line);
                    continue;
                }
                Step::Reset => {
                    self.stream.discard_unsent();
                    continue;
                }
                Step::Over => return Ok(()),
            };
            match received {
                Received::Bytes(bytes) => connection.received(bytes, self.now()),
                Received::Nothing => connection.waited(self.now()),
                Received::End => connection.ended(self.now()),
            }
        }
    }

    fn receive(
        &mut self,
        connection: &mut Connection,
        wait: Option<Duration>,
    ) -> Result<Received, Error> {
        let Some(wait) = wait.filter(|_| self.is_handshaking) else {
            return self.stream.receive(connection.input(), wait);
        };
        match self.stream.handshake(&self.shared.service.budget, wait)? {
            Handshake::Complete => self.is_handshaking = false,
            Handshake::Http => {
                connection.spoke_plain_http();
                self.is_handshaking = false;
            }
            Handshake::Unfinished => {}
            Handshake::End => return Ok(Received::End),
        }
        Ok(Received::Bytes(0))
    }

    /// The time of the connection, which counts from its start.
    fn now(&self) -> Duration {
        self.stream.now() - self.start
    }

    fn lost(&self, error: Error) -> Lost {
        match error {
            Error::Io(Errno::TIMEDOUT) => {
                self.stream.discard_unsent();
                Lost::TimedOut
            }
            Error::Io(error) => Lost::Broken(error.to_string()),
            Error::Tls(why) => Lost::Tls(why),
        }
    }

    // Not inlined, since logging needs the most stack.
    #[inline(never)]
    fn log(&mut self, topic: Topic, line: &str) {
        let admitted = match topic {
            Topic::Request => self.shared.request_log.admit(Instant::now()),
            Topic::Opened => self.shared.client_log.admit(Instant::now()),
            Topic::Ended => return log!(self.ended_level, "{line}"),
            Topic::Detail => None,
        };
        if let Topic::Opened = topic {
            self.ended_level = if admitted.is_some() { Level::Info } else { Level::Debug };
        }
        match admitted {
            Some(left_out) => info!("{line}{left_out}"),
            None => debug!("{line}"),
        }
    }
}
