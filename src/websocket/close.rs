//! Close frames and the server's reasons for one (RFC 6455 §5.5.1, §7.4).

use std::borrow::Cow;
use std::fmt;

use crate::escape::Quoted;
use crate::websocket::error::ProtocolError;
use crate::websocket::frame::{self, Opcode};

/// The payload of a close frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloseFrame {
    /// A code that §7.4 lets an endpoint send, or none.
    pub code: Option<u16>,
    /// Empty without a code.
    pub reason: Reason,
}

/// The reason of a close frame, in at most 123 bytes. It may come from a peer, so it is displayed as
/// [`Quoted`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason(Cow<'static, str>);

/// The server stops.
pub const STOPPING: CloseFrame = CloseFrame::new(1001, "server is stopping");
/// The peer sent nothing, not even the answer to a ping.
pub const PING_TIMEOUT: CloseFrame = CloseFrame::new(1001, "no answer to a ping");
/// The memory for all clients is exhausted (1013 is registered under §11.7).
pub const OVER_BUDGET: CloseFrame = CloseFrame::new(1013, "memory is short, try again later");

/// An unfinished message does not grow, but holds memory that others need.
pub const NO_PROGRESS: CloseFrame = CloseFrame::new(1008, "message makes no progress");
/// A thread panicked.
pub const INTERNAL_ERROR: CloseFrame = CloseFrame::new(1011, "internal error");

/// Some libraries (docs/conformance.md) keep a context though they agreed not to.
const CONTEXT_KEPT: &str = "data refers to an earlier message, though client_no_context_takeover \
    was agreed; see --compression context-takeover";

impl CloseFrame {
    pub const fn new(code: u16, reason: &'static str) -> Self {
        CloseFrame { code: Some(code), reason: Reason(Cow::Borrowed(reason)) }
    }

    /// Decodes the payload of a peer's close frame.
    ///
    /// # Errors
    ///
    /// A payload of one byte, a code that must not be sent, or a reason that is not UTF-8.
    pub fn decode(payload: &[u8]) -> Result<Self, ProtocolError> {
        let Some((code, reason)) = payload.split_first_chunk() else {
            return match payload {
                [] => Ok(CloseFrame { code: None, reason: Reason::NONE }),
                _ => Err(ProtocolError::ClosePayload),
            };
        };
        // Of the protocol's own codes 1004 has no meaning, and 1005, 1006 and 1015 are never sent.
        // 1012 to 1014 were registered later. 3000 to 4999 are for libraries and applications.
        let code @ (1000..=1003 | 1007..=1014 | 3000..=4999) = u16::from_be_bytes(*code) else {
            return Err(ProtocolError::CloseCode);
        };
        let reason = str::from_utf8(reason).map_err(|_| ProtocolError::InvalidUtf8)?;
        let reason = Reason::new(reason.into()).ok_or(ProtocolError::LongControl)?;
        Ok(CloseFrame { code: Some(code), reason })
    }

    /// Appends the close frame, header included.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let Some(code) = self.code else {
            return frame::encode_header(Opcode::Close, 0, out);
        };
        let reason = self.reason.as_str();
        frame::encode_header(Opcode::Close, 2 + reason.len(), out);
        out.extend_from_slice(&code.to_be_bytes());
        out.extend_from_slice(reason.as_bytes());
    }

    /// Whether this close frame fails the connection, because the peer broke the protocol (§7.1.7).
    pub fn is_failure(&self) -> bool {
        matches!(self.code, Some(1002 | 1007))
    }

    /// The answer to this close frame. §5.5.1: an endpoint "typically echos the status code it
    /// received".
    #[must_use]
    pub fn answer(&self) -> Self {
        CloseFrame { code: self.code, reason: Reason::NONE }
    }
}

impl Reason {
    pub const NONE: Reason = Reason(Cow::Borrowed(""));

    /// `None` if it is too long: a control frame has at most 125 bytes (§5.5), two of which are the code.
    pub fn new(reason: String) -> Option<Self> {
        (reason.len() <= 123).then_some(Reason(Cow::Owned(reason)))
    }

    /// The reason as sent, unescaped.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Quoted(self.0.as_bytes()).fmt(f)
    }
}

/// The close frame that names the error (§7.4.1).
impl From<ProtocolError> for CloseFrame {
    fn from(error: ProtocolError) -> Self {
        use ProtocolError as E;
        let (code, reason) = match error {
            E::ReservedBits => (1002, "reserved bit set, and no extension was agreed"),
            E::MisplacedRsv1 => (1002, "RSV1 set on a frame that begins no message"),
            E::ReservedOpcode => (1002, "reserved opcode"),
            E::NotMasked => (1002, "frame is not masked"),
            E::LengthNotMinimal => (1002, "payload length is not in its shortest form"),
            E::LengthTopBit => (1002, "payload length has its top bit set"),
            E::FragmentedControl => (1002, "control frame is fragmented"),
            E::LongControl => (1002, "control frame is longer than 125 bytes"),
            E::UnexpectedContinuation => (1002, "continuation without a message to continue"),
            E::UnfinishedMessage => (1002, "new message inside an unfinished one"),
            E::ClosePayload => (1002, "close payload of one byte"),
            E::CloseCode => (1002, "close code that may not be sent"),
            E::InvalidUtf8 => (1007, "text is not UTF-8"),
            E::InvalidDeflate => (1007, "compressed data is not valid DEFLATE"),
            E::ContextKept => (1007, CONTEXT_KEPT),
            E::TooManyBlocks => (1008, "compressed data has too many blocks for its length"),
            E::MessageTooBig { size, limit } => {
                let reason =
                    format!("message of at least {size} bytes is over the limit of {limit}");
                let reason = Reason::new(reason).unwrap_or(Reason::NONE);
                return CloseFrame { code: Some(1009), reason };
            }
        };
        CloseFrame::new(code, reason)
    }
}

impl fmt::Display for CloseFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.code {
            None => write!(f, "no code"),
            Some(code) if self.reason == Reason::NONE => write!(f, "{code}"),
            Some(code) => write!(f, "{code} {}", self.reason),
        }
    }
}
