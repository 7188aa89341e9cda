//! How a WebSocket ended, as the log has it.

use std::fmt;

use crate::websocket::close::INTERNAL_ERROR;
use crate::websocket::session::{Answer, Close, Session};

/// How a WebSocket ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    Closed(Close),
    /// The peer's stream ended without a close frame.
    Eof,
    /// The server has ended its stream without a close frame.
    EndedStream,
    Reset,
    Lost(Lost),
}

/// Why nothing can be sent or received any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lost {
    /// The peer did not read in time, or is gone.
    TimedOut,
    /// The connection is lost, and why.
    Broken(String),
    /// TLS failed, and why. Bytes that still arrive are ignored.
    Tls(String),
    /// The thread panicked. It has sent a close frame if possible.
    Panicked,
}

impl End {
    /// The end of a WebSocket whose stream ends now.
    pub fn of(session: &Session) -> Self {
        session.closed().map_or(End::Eof, |close| End::Closed(close.clone()))
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            End::Closed(Close::ByPeer(close)) => write!(f, "closed by peer, {close}"),
            End::Closed(Close::ByServer(close, answer)) => {
                write!(f, "closed by server, {close}")?;
                match answer {
                    Answer::Awaited => f.write_str(", not answered"),
                    Answer::Received(answer) => write!(f, ", answered by {answer}"),
                    Answer::Ignored => Ok(()),
                }
            }
            End::Eof => f.write_str("peer ended the stream without a close frame"),
            End::EndedStream => f.write_str("stream ended by server without a close frame"),
            End::Reset => f.write_str("connection reset by server"),
            End::Lost(lost) => lost.fmt(f),
        }
    }
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Lost::TimedOut => f.write_str("peer did not read in time, or is gone"),
            Lost::Broken(why) => write!(f, "connection lost, {why}"),
            Lost::Tls(why) => write!(f, "TLS failed, {why}"),
            Lost::Panicked => write!(f, "closed by server, {INTERNAL_ERROR}"),
        }
    }
}
