//! A peer's violations of the protocol or the limits (RFC 6455, RFC 7692).

/// Something that the RFCs or the configured limits forbid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProtocolError {
    /// RSV1, RSV2 or RSV3 set, though no extension that uses it was agreed (§5.2).
    ReservedBits,
    /// RSV1 on a continuation or a control frame (RFC 7692 §6.1).
    MisplacedRsv1,
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
    /// A continuation frame without a message to continue (§5.4).
    UnexpectedContinuation,
    /// A text or binary frame inside an unfinished message (§5.4).
    UnfinishedMessage,
    /// A close payload of a single byte, too short for a close code (§5.5.1).
    ClosePayload,
    /// A close code that must not be sent, or that is not defined (§7.4).
    CloseCode,
    /// Text or a close reason that is not UTF-8 (§8.1).
    InvalidUtf8,
    /// A compressed message that is not DEFLATE data, or breaks off (RFC 7692 §7.2.2).
    InvalidDeflate,
    /// A compressed message that refers to an earlier one, though `client_no_context_takeover` was
    /// agreed (RFC 7692 §7.1.1.2).
    ContextKept,
    /// A compressed message with too many blocks for its length: each block costs work.
    TooManyBlocks,
    /// A message of at least `size` bytes, over the configured `limit` (§10.4).
    MessageTooBig { size: u64, limit: usize },
}
