//! Why the server closes a connection that was open, and the close code for each (RFC 6455 §7.4).

use std::fmt;

/// What a client sent that RFC 6455 or the configured limits forbid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Violation {
    /// RSV1, RSV2 or RSV3 set, though no extension was agreed (§5.2).
    ReservedBits,
    /// Opcode 0x3 to 0x7 or 0xB to 0xF (§5.2).
    ReservedOpcode,
    /// A client's frame without a mask (§5.1).
    NotMasked,
    /// A length in more bytes than it needs (§5.2).
    LengthNotMinimal,
    /// A 64-bit length with its most significant bit set (§5.2).
    LengthTopBit,
    /// A control frame with FIN clear (§5.5).
    FragmentedControl,
    /// A control frame with a payload of more than 125 bytes (§5.5).
    LongControl,
    /// A continuation frame while no message is under way (§5.4).
    NothingToContinue,
    /// A text or binary frame inside an unfinished message (§5.4).
    UnfinishedMessage,
    /// A close payload of a single byte, too short for a close code (§5.5.1).
    ClosePayload,
    /// A close code that must not be sent, or that nobody has defined (§7.4).
    CloseCode,
    /// Text or a close reason that is not UTF-8 (§8.1).
    InvalidUtf8,
    /// A message over the configured size (§10.4).
    MessageTooBig,
}

/// Why the server, not the peer, begins the closing handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The peer did what it may not do.
    Violation(Violation),
    /// All clients together hold as much memory as is allowed.
    MemoryShort,
    /// The peer sent nothing, not even the answer to a ping.
    Silent,
    /// The server stops.
    Stopping,
}

impl Cause {
    /// The close code that tells the peer (§7.4.1; 1013 is from the registry of §11.7).
    pub fn code(self) -> u16 {
        match self {
            Cause::Violation(Violation::InvalidUtf8) => 1007,
            Cause::Violation(Violation::MessageTooBig) => 1009,
            Cause::Violation(_) => 1002,
            Cause::MemoryShort => 1013,
            Cause::Silent | Cause::Stopping => 1001,
        }
    }
}

impl From<Violation> for Cause {
    fn from(violation: Violation) -> Self {
        Cause::Violation(violation)
    }
}

/// The reason in the close frame and in the log; a control frame leaves it 123 bytes.
impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Cause::Violation(violation) => match violation {
                Violation::ReservedBits => "reserved bit set, and no extension was agreed",
                Violation::ReservedOpcode => "reserved opcode",
                Violation::NotMasked => "frame is not masked",
                Violation::LengthNotMinimal => "payload length is not in its shortest form",
                Violation::LengthTopBit => "payload length has its top bit set",
                Violation::FragmentedControl => "control frame is fragmented",
                Violation::LongControl => "control frame is longer than 125 bytes",
                Violation::NothingToContinue => "continuation without a message to continue",
                Violation::UnfinishedMessage => "new message inside an unfinished one",
                Violation::ClosePayload => "close payload of one byte",
                Violation::CloseCode => "close code that may not be sent",
                Violation::InvalidUtf8 => "text is not UTF-8",
                Violation::MessageTooBig => "message is too big",
            },
            Cause::MemoryShort => "memory is short, try again later",
            Cause::Silent => "no answer to a ping",
            Cause::Stopping => "server is stopping",
        })
    }
}
