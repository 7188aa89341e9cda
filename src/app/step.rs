//! What whoever drives a connection does next.

use std::time::Duration;

use crate::app::peer::Peer;

/// What to do next with a connection's stream, after which the next step is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step<'c> {
    /// Send the head and then the payload, in one write.
    Send {
        head: &'c [u8],
        payload: &'c [u8],
    },
    /// Send bytes that end with the server's close frame. The connection counts as a WebSocket no longer.
    SendClose(&'c [u8]),
    /// Send bytes, and end the stream. The connection counts as a WebSocket no longer.
    SendLast(&'c [u8]),
    /// Receive for as long as this, or for ever.
    Receive(Option<Duration>),
    /// Wait for as long as this, or until the peer has ended its stream, and receive nothing.
    Pause(Duration),
    /// Ask whether the connection may become a WebSocket.
    Admit,
    /// Write the reports on this agent to their directory.
    Report(&'c str),
    /// The PROXY header is whole: it names this client, or does not change the peer. What follows is the
    /// client's own stream, TLS or plain.
    Forwarded(Peer),
    Log(Topic, &'c str),
    /// Have what was not sent discarded, so that the connection ends by a reset.
    Reset,
    /// Nothing. The connection is over.
    Over,
}

/// What a line of the log is about, which decides its level.
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
    /// What is usual and may come often: health checks, connections without a request.
    Detail,
}
