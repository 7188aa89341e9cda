//! A client, its request, and the WebSocket that opens, as the log has them.

use std::fmt;

use crate::app::peer::Peer;
use crate::escape::Quoted;
use crate::http::request::Request;
use crate::websocket::handshake::Upgrade;
use crate::websocket::negotiation::Negotiation;

/// A client and its request. The text is made only if it is logged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Who {
    peer: Peer,
    /// Behind a proxy, the peer is the proxy, and X-Forwarded-For names the client.
    forwarded_for: Vec<u8>,
    path: Option<String>,
    /// The behavior that it asks for, as text.
    pub behavior: String,
}

/// The log line about a WebSocket that opens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// The client's number in the log.
    pub client: u64,
    pub who: Who,
    pub upgrade: Upgrade,
}

impl Who {
    pub fn new(peer: Peer, request: Option<&Request>) -> Self {
        let forwarded = request.iter().flat_map(|request| request.values("X-Forwarded-For"));
        Who {
            peer,
            forwarded_for: forwarded.collect::<Vec<_>>().join(&b", "[..]),
            path: request.map(|request| request.path().unwrap_or_default().into()),
            behavior: String::new(),
        }
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Who { peer, forwarded_for, path, behavior } = self;
        peer.fmt(f)?;
        if !forwarded_for.is_empty() {
            write!(f, " forwarded for {}", Quoted(forwarded_for))?;
        }
        if let Some(path) = path {
            write!(f, ", path {}", Quoted(path.as_bytes()))?;
        }
        f.write_str(behavior)
    }
}

impl fmt::Display for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Opened { client, who, upgrade } = self;
        write!(f, "client {client} connected: {who}")?;
        if let Some(name) = &upgrade.subprotocol {
            write!(f, ", subprotocol {}", Quoted(name.as_bytes()))?;
        }
        match &upgrade.compression {
            Negotiation::NotOffered => Ok(()),
            Negotiation::Declined(why) => write!(f, ", permessage-deflate declined: {why}"),
            Negotiation::Agreed(parameters) => write!(f, ", {parameters}"),
        }
    }
}
