//! The steps that the driver of a connection performs.

use std::fmt;
use std::time::Duration;

use crate::app::end::Ended;
use crate::app::opened::Opened;
use crate::app::peer::Peer;

/// One action on a connection's stream. The driver performs it, and then asks for the next step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step<'c> {
    /// Send the head and then the payload, in one write.
    Send {
        head: &'c [u8],
        payload: &'c [u8],
    },
    /// Send bytes that end with the server's close frame. The connection no longer counts as a
    /// WebSocket.
    SendClose(&'c [u8]),
    /// Send bytes, and end the stream. What the peer sends is still received.
    SendEnd(&'c [u8]),
    /// End TCP without the end of TLS, if there is TLS. What the peer sends is still received.
    EndTcp,
    /// Ask TLS for new keys, if there is TLS.
    UpdateKeys,
    /// Send bytes, and end the stream. The connection no longer counts as a WebSocket.
    SendLast(&'c [u8]),
    /// Receive for this long, or forever.
    Receive(Option<Duration>),
    /// Wait for this long, or until the peer has ended its stream, without receiving anything.
    Pause(Duration),
    /// Ask whether the connection may become a WebSocket.
    Admit,
    /// Write the reports on this agent to their directory.
    Report(&'c str),
    /// The PROXY header is whole: it names this client, or does not change the peer. The client's own
    /// stream follows, TLS or plain.
    Forwarded(Peer),
    Log(Topic, Line),
    /// Discard unsent bytes, so that the connection ends with a reset.
    Reset,
    /// The connection is over.
    Over,
}

/// A line for the log, whose text is made only if it is logged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    Text(String),
    // Boxed, since every connection has room for a line.
    Opened(Box<Opened>),
    Ended(Box<Ended>),
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Line::Text(text) => f.write_str(text),
            Line::Opened(opened) => opened.fmt(f),
            Line::Ended(ended) => ended.fmt(f),
        }
    }
}

/// The subject of a log line, which decides its level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topic {
    /// A request that opened no WebSocket.
    Request,
    /// A WebSocket that opened.
    Opened,
    /// The end of a WebSocket.
    Ended,
    /// The verdict on a client.
    Verdict,
    /// Routine and frequent events: health checks, connections without a request.
    Detail,
}
