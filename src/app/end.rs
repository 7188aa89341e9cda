//! How a WebSocket ended, as the log has it.

use std::fmt;
use std::time::Duration;

use crate::quantity::{Count, Seconds};
use crate::websocket::close::INTERNAL_ERROR;
use crate::websocket::deflate::Sizes;
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

/// The log line about a WebSocket that has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// The client's number in the log.
    pub client: u64,
    pub end: End,
    /// How the peer ended its stream afterwards, or nothing.
    pub then: String,
    pub messages: u64,
    /// Bytes, with their frames' headers.
    pub received: u64,
    pub sent: u64,
    /// How long the WebSocket was open.
    pub open: Duration,
    /// The sizes of all compressed messages, if there were any.
    pub compressed: Option<Sizes>,
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
                    Answer::Awaited { .. } => f.write_str(", not answered"),
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

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ended { client, end, then, messages, received, sent, open, compressed } = self;
        write!(
            f,
            "client {client} ended: {end}{then}; {}, {} in, {} out, {} s",
            Count(*messages, "message"),
            Count(*received, "byte"),
            Count(*sent, "byte"),
            Seconds(*open),
        )?;
        let percent =
            compressed.map(|Sizes { plain, compressed }| compressed.saturating_mul(100) / plain);
        percent
            .filter(|percent| *percent < 100)
            .map_or(Ok(()), |percent| write!(f, ", compressed to {percent} %"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentage_is_shown_only_below_100() {
        for (compressed, end) in [(198, "1.000 s, compressed to 99 %"), (200, "1.000 s")] {
            let ended = Ended {
                client: 1,
                end: End::Eof,
                then: String::new(),
                messages: 1,
                received: 1,
                sent: 1,
                open: Duration::from_secs(1),
                compressed: Some(Sizes { plain: 200, compressed }),
            };
            assert!(ended.to_string().ends_with(end), "{ended}");
        }
    }
}
