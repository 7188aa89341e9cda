//! The course of a case: what the client did so far, and what the server does next.

use std::mem;

use crate::app::cases::case::{Behavior, Case, Check, ExpectedClose, Judging, Play};
use crate::app::cases::payload::Payload;
use crate::app::cases::verdict::{Came, ClosePayload, Ending, Received};
use crate::app::incoming::Incoming;
use crate::app::trace::Side;
use crate::websocket::close::{CloseFrame, Reason};
use crate::websocket::frame;
use crate::websocket::session::{Answer, Close, Session};

/// The received events, and the next actions.
pub struct Course {
    pub case: Case,
    pub received: Received,
    pub behavior: Behavior,
    pub ending: Ending,
    pub due: Due,
    /// The number of round trips that have begun.
    pub round: u32,
    /// The message of the last one.
    pub message: Payload,
    /// Of the last frame, if masking keys are checked.
    masking_key: Option<[u8; 4]>,
}

/// An action of the server after the current frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Due {
    Nothing,
    /// Send the message of the next round trip.
    RoundTrip,
    /// Begin the closing handshake.
    Close(CloseFrame),
    /// Send a close frame, and end TCP.
    CloseAndEnd(CloseFrame),
    /// End the server's side of TCP.
    EndStream,
    /// The same, without the end of TLS.
    EndTcp,
    UpdateKeys,
    Reset,
    End,
}

impl Course {
    pub fn new(case: Case) -> Self {
        let due = match case.play {
            Play::Script { .. } => Due::Nothing,
            Play::RoundTrips(_) => Due::RoundTrip,
        };
        Course {
            received: Received::new(&case),
            case,
            behavior: Behavior::Failed,
            ending: Ending { unclean: Some("a close frame is missing"), ..Ending::default() },
            due,
            round: 0,
            message: b"".into(),
            masking_key: None,
        }
    }

    pub fn is_closing(&self) -> bool {
        self.ending.closed_by.is_some()
    }

    /// Whether the server has ended its side of TCP.
    pub fn has_ended_stream(&self) -> bool {
        self.ending.dropped_by == Some(Side::Server)
    }

    /// Closes instead of playing a case that this connection is not for, with this verdict.
    pub fn leave_out(&mut self, behavior: Behavior) {
        self.behavior = behavior;
        (self.case.close, self.case.judging) = (ExpectedClose::by_server(), Judging::Usual);
        self.close(NORMAL);
    }

    /// Processes bytes of a client that should send none.
    pub fn process_bytes(&mut self, incoming: &mut Incoming) {
        let (_, unread, consumed) = incoming.unread();
        if !unread.is_empty() {
            *consumed += unread.len();
            self.came(Came::Bytes(unread));
            self.due = Due::End;
        }
    }

    /// Checks the masking key of a frame. RFC 6455 §5.3: "the client MUST pick a fresh masking key".
    pub fn check_masking_key(&mut self, key: Option<[u8; 4]>) {
        if key.is_some() && mem::replace(&mut self.masking_key, key) == key {
            self.came(Came::Mistake("the masking key is that of the last frame"));
        }
    }

    /// Checks the compressed size of a message that repeats nothing within the agreed window.
    pub fn check_window(&mut self, size: usize, compressed: usize) {
        if self.case.check == Check::Window && compressed < size / 10 * 9 {
            self.came(Came::Mistake("the message was compressed with a larger window than agreed"));
        }
    }

    /// Processes an event.
    pub fn came(&mut self, event: Came) {
        // Messages are ignored after the server has failed the connection.
        if self.ending.failed.is_some() && matches!(event, Came::Message(..)) {
            return;
        }
        match (&self.case.play, event) {
            (Play::Script { .. }, event) => {
                self.received.add(&self.case, event);
                if self.received.is_complete(&self.case) {
                    self.close(NORMAL);
                }
            }
            (Play::RoundTrips(trips), Came::Message(kind, payload))
                if kind == trips.kind && self.message == *payload =>
            {
                if self.round == trips.count {
                    self.behavior = Behavior::Ok;
                    self.close(NORMAL);
                } else if !self.is_closing() {
                    self.due = Due::RoundTrip;
                }
            }
            (Play::RoundTrips(_), event) => {
                self.received.add(&self.case, event);
                if let Came::Message(..) = event {
                    self.behavior = Behavior::Failed;
                }
                self.close(NORMAL);
            }
        }
    }

    /// Begins the closing handshake, unless it has begun.
    pub fn close(&mut self, close: CloseFrame) {
        if !self.is_closing() {
            self.ending.closed_by = Some(Side::Server);
            self.due = Due::Close(close);
        }
    }

    /// Fails the connection. A second failure ends TCP.
    pub fn fail(&mut self, close: &CloseFrame) {
        self.ending.failed = Some(close.reason.as_str().into());
        if self.is_closing() {
            self.due = Due::End;
        } else {
            self.close(close.clone());
        }
    }

    /// Processes the client's close frame, or an error in its frames.
    pub fn process_close(&mut self, session: &Session) {
        match session.closed() {
            Some(Close::ByPeer(close)) if self.accepts(close) => {
                self.ending.received = Some(close.into());
                self.ending.unclean = None;
                self.due = match mem::replace(&mut self.due, Due::Nothing) {
                    Due::Close(own) => Due::CloseAndEnd(own),
                    _ if self.is_closing() => match self.case.check {
                        Check::EndOfTcp | Check::Silence => Due::Nothing,
                        _ => Due::End,
                    },
                    _ => Due::CloseAndEnd(NORMAL),
                };
                self.ending.closed_by.get_or_insert(Side::Client);
            }
            Some(Close::ByPeer(close)) => self.refuse_close(close.into()),
            Some(Close::ByServer(close, _)) => match session.refused_close() {
                Some(code) => {
                    self.refuse_close(ClosePayload { code: Some(code), ..ClosePayload::default() });
                }
                None if close.code == Some(1009) && self.case.expects_over_limit() => {
                    self.came(Came::OverLimit);
                }
                None => self.fail(close),
            },
            None => {}
        }
    }

    /// Whether the client may send this close frame. The suite does not accept codes that were
    /// registered later.
    fn accepts(&self, close: &CloseFrame) -> bool {
        !self.case.id.is_of_suite() || !matches!(close.code, Some(1012..=1014))
    }

    /// Processes a close frame with an invalid code or reason. Both sides have then sent one, but the
    /// suite does not count it as an answer.
    fn refuse_close(&mut self, close: ClosePayload) {
        const REFUSAL: CloseFrame = CloseFrame::new(1002, "close code or reason is wrong");
        self.ending.received = Some(close);
        self.ending.failed = Some(REFUSAL.reason.as_str().into());
        if self.is_closing() {
            self.ending.unclean = Some("the client's close frame is wrong");
            self.due = Due::End;
        } else {
            self.ending.closed_by = Some(Side::Server);
            self.ending.unclean = None;
            self.due = Due::CloseAndEnd(REFUSAL);
        }
    }

    /// Processes the answer to the close frame with which the server failed the connection.
    pub fn process_answer(&mut self, session: &Session) {
        if let Some(Close::ByServer(_, Answer::Received(close))) = session.closed()
            && self.ending.received.is_none()
        {
            self.ending.received = Some(close.into());
            self.ending.unclean = None;
            self.due = Due::End;
        }
    }
}

/// The masking key of the frame that the input begins with.
pub fn masking_key(incoming: &mut Incoming) -> Option<[u8; 4]> {
    let (_, unread, _) = incoming.unread();
    let (header, _) = frame::decode(unread).ok()??;
    Some(header.masking_key)
}

const NORMAL: CloseFrame = CloseFrame { code: Some(1000), reason: Reason::NONE };
