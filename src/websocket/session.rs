//! The receiving side of a WebSocket: fragments, control frames, UTF-8 and the closing handshake
//! (RFC 6455 §5.4 to §8.1), as bytes in, events out. A compressed message is inflated once it is whole
//! (RFC 7692), so that no context is held while bytes are missing.
//!
//! ```text
//!            first fragment             its payload is whole
//!   ┌──────┐ ─────────────▶ ┌─────────┐ ───────────────────▶ ┌────────────┐
//!   │ Idle │                │ Payload │                      │ Fragmented │
//!   └──────┘ ◀───────────── └─────────┘ ◀─────────────────── └────────────┘
//!       its last payload is whole           next fragment
//!
//!   each of them ──▶ Closed: by the peer's close frame, or by the server's
//! ```
//!
//! A message that is whole in the input is unmasked there and never copied. A message in pieces is
//! assembled in a buffer.

use std::mem;
use std::sync::Arc;

use crate::buffer::{Budget, Buffer, OverBudget, UNMETERED};
use crate::websocket::close::{self, CloseFrame};
use crate::websocket::deflate::{Inflated, PerMessageDeflate, Sizes};
use crate::websocket::error::ProtocolError;
use crate::websocket::frame::{self, Header, Opcode, SHORT_HEADER_LEN};
use crate::websocket::message::{Encoding, Kind, check_utf8};

/// Something that a client sent, unmasked.
pub enum Event<'i> {
    /// A message that is whole in the input. The payload of a text message is UTF-8.
    InInput(Kind, &'i [u8]),
    /// A message that arrived in pieces. [`Session::assembled`] returns its payload.
    Assembled(Kind),
    /// A compressed message, inflated. Drop it before any wait: others need its memory.
    // Boxed since it is large, so that the other events are returned in registers.
    Inflated(Kind, Box<Inflated>),
    Ping(&'i [u8]),
    Pong(&'i [u8]),
    /// A close frame is due: the [answer](Close::frame) to the peer's, or one that names the peer's
    /// mistake.
    Close,
}

/// The closing handshake, once it began (§7.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Close {
    /// Begun by the peer's close frame. Nothing is sent after the answer.
    ByPeer(CloseFrame),
    ByServer(CloseFrame, Answer),
}

/// The state of the peer's answer to the server's close frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It has not arrived. The frames before it are skipped.
    Awaited {
        /// The remaining payload bytes of the frame that is skipped.
        skip: u64,
    },
    Received(CloseFrame),
    /// It is ignored, since the peer broke the protocol. §7.1.7: an endpoint "MUST NOT continue to
    /// attempt to process data from the remote endpoint (including a responding Close frame)".
    Ignored,
}

impl Close {
    /// The close frame that the server sends.
    pub fn frame(&self) -> CloseFrame {
        match self {
            Close::ByPeer(close) => close.answer(),
            Close::ByServer(close, _) => close.clone(),
        }
    }

    /// Whether nothing more is expected from the peer.
    pub fn is_complete(&self) -> bool {
        !matches!(self, Close::ByServer(_, Answer::Awaited { .. }))
    }
}

/// The receiving side of one client's WebSocket.
pub struct Session {
    state: State,
    max_message_size: usize,
    /// Whether the message in pieces is compressed.
    encoding: Encoding,
    /// The received part of a message in pieces, unmasked, or a compressed reply. Its memory is reused.
    message: Buffer,
    /// The bytes of a text message in pieces, or of a wrong one, that are known to be UTF-8.
    checked: usize,
    deflate: Option<Box<PerMessageDeflate>>,
    /// The code of a close frame that was refused for its code or its reason.
    refused_close: Option<u16>,
}

// A separate tag, read at every frame, is faster than a niche among the values of a Close.
#[repr(u8)]
enum State {
    Idle,
    Fragmented(Kind),
    /// A frame that is a whole message. It stays in the input until it is whole too.
    InInput {
        kind: Kind,
        header_len: usize,
        /// The length of the frame.
        len: usize,
        /// The bytes of the frame that were processed.
        seen: usize,
        /// Rotated to the position of the next byte.
        masking_key: [u8; 4],
    },
    Payload {
        kind: Kind,
        fin: bool,
        /// The bytes of the payload that have not arrived.
        missing: usize,
        /// Rotated to the position of the next byte.
        masking_key: [u8; 4],
    },
    Closed(Close),
}

impl Session {
    /// A session that limits messages to `max_message_size` bytes. It charges its memory above
    /// [`UNMETERED`] to `budget`. Messages may be compressed if `deflate` was agreed.
    pub fn new(
        max_message_size: usize,
        budget: Arc<Budget>,
        deflate: Option<Box<PerMessageDeflate>>,
    ) -> Self {
        Session {
            state: State::Idle,
            max_message_size,
            encoding: Encoding::Plain,
            message: Buffer::new(budget),
            checked: 0,
            deflate,
            refused_close: None,
        }
    }

    /// Decodes frames from the front of `input` until one event is complete.
    ///
    /// `None` means that more bytes are needed, or that the session is [closed](Self::closed). `input`
    /// is then left with the start of a frame of at most `room` bytes. Pass it again at the same place,
    /// followed by more bytes.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "to return the event through memory is slower")]
    pub fn next<'i>(&mut self, input: &mut &'i mut [u8], room: usize) -> Option<Event<'i>> {
        if input.is_empty() && matches!(self.state, State::Idle) {
            return None;
        }
        self.decode(input, room).unwrap_or_else(|close| {
            self.fail(close);
            Some(Event::Close)
        })
    }

    /// Like [`next`](Self::next), for the most common frame alone: a whole message of at most 125 bytes
    /// that is not compressed. `None` leaves the input as it is.
    #[inline]
    pub fn next_short<'i>(&self, input: &mut &'i mut [u8]) -> Option<(Kind, &'i [u8])> {
        let State::Idle = self.state else { return None };
        let header = frame::decode_short(input)?;
        let kind = if header.opcode == Opcode::Text { Kind::Text } else { Kind::Binary };
        let len = header.payload_len as usize;
        let payload = input.get_mut(SHORT_HEADER_LEN..SHORT_HEADER_LEN + len)?;
        if len > self.max_message_size {
            return None;
        }
        let (_, ascii) = frame::unmask(payload, header.masking_key);
        if kind == Kind::Text && !ascii && str::from_utf8(payload).is_err() {
            // Masked again, for the path that closes.
            frame::unmask(payload, header.masking_key);
            return None;
        }
        Some((kind, &take(input, SHORT_HEADER_LEN + len)[SHORT_HEADER_LEN..]))
    }

    /// The payload of the message that was [assembled](Event::Assembled) last.
    pub fn assembled(&self) -> &[u8] {
        self.message.filled()
    }

    /// Deflates `prefix` and a message as one message. If that fails, the result is the message alone,
    /// uncompressed, which is always allowed. [`assembled`](Self::assembled) returns the result.
    pub fn deflate(&mut self, prefix: &[u8], message: Inflated) -> Encoding {
        let Some(deflate) = &mut self.deflate else {
            self.message = message.into_message();
            return Encoding::Plain;
        };
        deflate.deflate(prefix, message, &mut self.message)
    }

    /// Deflates a message to `out`, if that was agreed.
    ///
    /// # Errors
    ///
    /// [`OverBudget`], also if it was not agreed.
    pub fn deflate_message(&mut self, message: &[u8], out: &mut Buffer) -> Result<(), OverBudget> {
        self.deflate.as_mut().ok_or(OverBudget)?.deflate_message(message, out)
    }

    /// Whether messages may be compressed.
    pub fn is_compressible(&self) -> bool {
        self.deflate.is_some()
    }

    /// The bytes before the mistake in a text that was not compressed and is not UTF-8.
    pub fn valid_len(&self) -> usize {
        self.checked
    }

    /// The code of the peer's close frame, if the frame was refused for its code or reason.
    pub fn refused_close(&self) -> Option<u16> {
        self.refused_close
    }

    /// The sizes of all compressed messages in both directions, if there were any.
    pub fn compressed_total(&self) -> Option<Sizes> {
        self.deflate.as_ref().map(|deflate| deflate.total()).filter(|total| total.plain > 0)
    }

    /// Begins the closing handshake with `close`, or replaces a close frame that was not sent yet.
    #[cold]
    pub fn close(&mut self, close: CloseFrame) {
        let answer = match &self.state {
            State::Idle | State::Fragmented(_) | State::InInput { .. } => {
                Answer::Awaited { skip: 0 }
            }
            State::Payload { missing, .. } => Answer::Awaited { skip: *missing as u64 },
            State::Closed(Close::ByServer(_, answer)) => answer.clone(),
            State::Closed(Close::ByPeer(close)) => Answer::Received(close.clone()),
        };
        self.state = State::Closed(Close::ByServer(close, answer));
    }

    #[cold]
    fn fail(&mut self, close: CloseFrame) {
        let is_failure = close.is_failure();
        self.close(close);
        if is_failure && let State::Closed(Close::ByServer(_, answer)) = &mut self.state {
            *answer = Answer::Ignored;
        }
    }

    /// The closing handshake, once it began.
    pub fn closed(&self) -> Option<&Close> {
        match &self.state {
            State::Closed(close) => Some(close),
            _ => None,
        }
    }

    /// The received bytes of the unfinished message, if there is one.
    pub fn unfinished(&self) -> Option<usize> {
        match self.state {
            State::InInput { header_len, seen, .. } => Some(seen - header_len),
            State::Fragmented(_) | State::Payload { .. } => Some(self.message.filled().len()),
            State::Idle | State::Closed(_) => None,
        }
    }

    /// Whether more than `bytes` of a payload are missing. Receiving them directly to
    /// [`spare_mut`](Self::spare_mut) then saves a copy.
    pub fn is_missing_more_than(&self, bytes: usize) -> bool {
        matches!(self.state, State::Payload { missing, .. } if missing > bytes)
    }

    /// The buffer for the rest of a payload. Call [`received`](Self::received) afterwards.
    pub fn spare_mut(&mut self) -> &mut [u8] {
        /// Small enough to be still in the CPU cache when it is unmasked.
        const PIECE: usize = 256 * 1024;
        let missing = match self.state {
            State::Payload { missing, .. } => missing,
            _ => 0,
        };
        let spare = self.message.spare_mut();
        let len = spare.len().min(missing).min(PIECE);
        &mut spare[..len]
    }

    /// Adds the first `bytes` of [`spare_mut`](Self::spare_mut) to the payload.
    pub fn received(&mut self, bytes: usize) {
        if let State::Payload { missing, masking_key, .. } = &mut self.state {
            let before = self.message.filled().len();
            self.message.advance(bytes);
            let piece = &mut self.message.filled_mut()[before..];
            unmask(piece, before, masking_key, &mut self.checked);
            *missing -= bytes;
        }
    }

    /// The capacity for a message in pieces, in bytes.
    pub fn capacity(&self) -> usize {
        self.message.capacity()
    }

    /// Whether a message in pieces is unfinished.
    pub fn is_in_pieces(&self) -> bool {
        matches!(self.state, State::Fragmented(_) | State::Payload { .. })
    }

    /// The length of the unfinished frame that stays in the input, or 0.
    pub fn len_in_input(&self) -> usize {
        if let State::InInput { len, .. } = self.state { len } else { 0 }
    }

    /// Releases memory, except that of an unfinished message.
    pub fn release(&mut self) {
        if !self.is_in_pieces() {
            self.message.release();
        }
    }

    /// Releases memory, including that of an unfinished message. Afterwards, only bytes to skip may be
    /// received.
    pub fn discard(&mut self) {
        self.message.release();
    }

    #[inline(never)]
    fn decode<'i>(
        &mut self,
        input: &mut &'i mut [u8],
        room: usize,
    ) -> Result<Option<Event<'i>>, CloseFrame> {
        let (kind, in_input) = loop {
            match self.state {
                State::Idle | State::Fragmented(_) => {
                    let Some((header, header_len)) = frame::decode(input)? else {
                        return Ok(None);
                    };
                    let Some(kind) = self.check(&header)? else {
                        let payload = take_payload(input, header_len, &header);
                        let event = payload.map(|payload| self.control(header.opcode, payload));
                        return Ok(event.transpose()?);
                    };
                    self.begin_payload(kind, &header, header_len, room)?;
                    if !matches!(self.state, State::InInput { .. }) {
                        take(input, header_len);
                    }
                }
                State::InInput { kind, .. } => {
                    let Some(payload) = self.take_whole(input)? else { return Ok(None) };
                    break (kind, Some(payload));
                }
                State::Payload { kind, fin, .. } => {
                    let complete = self.take_piece(input)?;
                    if self.encoding == Encoding::Plain {
                        let text = self.message.filled();
                        check_utf8(kind, text, &mut self.checked, fin && complete)?;
                    }
                    if !complete {
                        return Ok(None);
                    }
                    if !fin {
                        self.state = State::Fragmented(kind);
                        continue;
                    }
                    self.state = State::Idle;
                    break (kind, None);
                }
                State::Closed(_) => {
                    self.skip(input);
                    return Ok(None);
                }
            }
        };
        Ok(Some(match (self.encoding, in_input) {
            (Encoding::Plain, Some(payload)) => Event::InInput(kind, payload),
            (Encoding::Plain, None) => Event::Assembled(kind),
            (Encoding::Deflated, in_input) => self.inflate(kind, in_input)?,
        }))
    }

    /// Inflates a whole message, in the input or assembled.
    #[cold]
    fn inflate<'i>(
        &mut self,
        kind: Kind,
        in_input: Option<&[u8]>,
    ) -> Result<Event<'i>, CloseFrame> {
        let payload = in_input.unwrap_or(self.message.filled());
        let deflate = self.deflate.as_mut().ok_or(ProtocolError::ReservedBits)?;
        let inflated = deflate.inflate(kind, payload, self.max_message_size)?;
        Ok(Event::Inflated(kind, Box::new(inflated)))
    }

    /// Checks a header against the state. Returns the kind of message that a
    /// data frame belongs to, or `None` for a control frame.
    fn check(&self, header: &Header) -> Result<Option<Kind>, ProtocolError> {
        let encoding = match header.rsv {
            0 => Encoding::Plain,
            frame::RSV1 if self.deflate.is_some() => Encoding::Deflated,
            _ => return Err(ProtocolError::ReservedBits),
        };
        let (kind, encoding, so_far) = match (header.opcode, &self.state) {
            (Opcode::Text | Opcode::Binary, State::Fragmented(_)) => {
                return Err(ProtocolError::UnfinishedMessage);
            }
            (Opcode::Text, _) => (Kind::Text, encoding, 0),
            (Opcode::Binary, _) => (Kind::Binary, encoding, 0),
            // RFC 7692 §6.1: only the first frame of a message has RSV1.
            _ if encoding == Encoding::Deflated => return Err(ProtocolError::MisplacedRsv1),
            (Opcode::Continuation, State::Fragmented(kind)) => {
                (*kind, self.encoding, self.message.filled().len())
            }
            (Opcode::Continuation, _) => return Err(ProtocolError::UnexpectedContinuation),
            // §5.5: "All control frames MUST have a payload length of 125 bytes or less and MUST NOT be
            // fragmented."
            _ if !header.fin => return Err(ProtocolError::FragmentedControl),
            _ if header.payload_len > 125 => return Err(ProtocolError::LongControl),
            _ => return Ok(None),
        };
        check_size(so_far, header.payload_len, self.max_size(encoding))?;
        Ok(Some(kind))
    }

    /// The maximum size of a message as received. Incompressible data grows by less than this allows.
    fn max_size(&self, encoding: Encoding) -> usize {
        let max = self.max_message_size;
        match encoding {
            Encoding::Plain => max,
            Encoding::Deflated => max.saturating_add(max / 8 + 64),
        }
    }

    fn begin_payload(
        &mut self,
        kind: Kind,
        header: &Header,
        header_len: usize,
        room: usize,
    ) -> Result<(), CloseFrame> {
        let Header { fin, masking_key, .. } = *header;
        let missing = header.payload_len as usize;
        if matches!(self.state, State::Idle) {
            self.checked = 0;
            self.encoding = if header.rsv == 0 { Encoding::Plain } else { Encoding::Deflated };
            let len = header_len + missing;
            if fin && len <= room {
                let seen = header_len;
                self.state = State::InInput { kind, header_len, len, seen, masking_key };
                return Ok(());
            }
            self.message.clear();
        }
        let max_size = self.max_size(self.encoding);
        // The length of a fragmented message is known only at its end. With this capacity, a small one
        // grows at most once.
        let capacity = match self.message.filled().len() + missing {
            len if header.fin => len,
            ..=UNMETERED => UNMETERED.min(max_size),
            _ => max_size,
        };
        self.message.reserve(capacity).map_err(|_| close::OVER_BUDGET)?;
        self.state = State::Payload { kind, fin, missing, masking_key };
        Ok(())
    }

    /// Unmasks and checks the part of a whole message in `input`. Takes the message off once it is whole.
    fn take_whole<'i>(
        &mut self,
        input: &mut &'i mut [u8],
    ) -> Result<Option<&'i [u8]>, ProtocolError> {
        let State::InInput { kind, header_len, len, seen, masking_key } = &mut self.state else {
            return Ok(None);
        };
        let end = input.len().min(*len);
        let before = *seen - *header_len;
        unmask(&mut input[*seen..end], before, masking_key, &mut self.checked);
        *seen = end;
        let (is_whole, header_len) = (end == *len, *header_len);
        let checked = match self.encoding {
            Encoding::Plain => {
                check_utf8(*kind, &input[header_len..end], &mut self.checked, is_whole)
            }
            Encoding::Deflated => Ok(()),
        };
        if checked.is_ok() && !is_whole {
            return Ok(None);
        }
        // Wrong text is taken, too: it is no longer unread for the trace.
        let payload = &take(input, end)[header_len..];
        checked?;
        self.state = State::Idle;
        Ok(Some(payload))
    }

    /// Moves the part of the payload in `input` to the message. Returns whether the payload is complete;
    /// if not, there is spare memory for more.
    fn take_piece(&mut self, input: &mut &mut [u8]) -> Result<bool, CloseFrame> {
        while let State::Payload { missing: missing @ 1.., .. } = self.state {
            if self.message.spare_mut().is_empty() {
                self.message.charge_ahead().map_err(|_| close::OVER_BUDGET)?;
            }
            if input.is_empty() {
                return Ok(false);
            }
            let spare = self.message.spare_mut();
            let piece = take(input, spare.len().min(missing).min(input.len()));
            spare[..piece.len()].copy_from_slice(piece);
            self.received(piece.len());
        }
        Ok(true)
    }

    #[inline]
    fn control<'i>(
        &mut self,
        opcode: Opcode,
        payload: &'i [u8],
    ) -> Result<Event<'i>, ProtocolError> {
        Ok(match opcode {
            Opcode::Ping => Event::Ping(payload),
            Opcode::Close => {
                let code = payload.first_chunk().map(|code| u16::from_be_bytes(*code));
                let close =
                    CloseFrame::decode(payload).inspect_err(|_| self.refused_close = code)?;
                self.state = State::Closed(Close::ByPeer(close));
                Event::Close
            }
            _ => Event::Pong(payload),
        })
    }

    /// Skips frames up to the peer's answer to the server's close frame, and everything after it.
    #[cold]
    fn skip(&mut self, input: &mut &mut [u8]) {
        while let State::Closed(Close::ByServer(_, answer)) = &mut self.state
            && let Answer::Awaited { skip } = answer
        {
            let skipped = input.len().min(usize::try_from(*skip).unwrap_or(usize::MAX));
            take(input, skipped);
            *skip -= skipped as u64;
            match frame::decode(input) {
                Ok(None) => return,
                Ok(Some((Header { opcode: Opcode::Close, payload_len: 126.., .. }, _)))
                | Err(_) => {
                    *answer = Answer::Ignored;
                }
                Ok(Some((header @ Header { opcode: Opcode::Close, .. }, header_len))) => {
                    let Some(payload) = take_payload(input, header_len, &header) else { return };
                    *answer = CloseFrame::decode(payload).map_or(Answer::Ignored, Answer::Received);
                }
                Ok(Some((header, header_len))) => {
                    take(input, header_len);
                    *skip = header.payload_len;
                }
            }
        }
        take(input, input.len());
    }
}

/// Refuses a frame whose `payload_len`, added to the `so_far` bytes of its message, exceeds the `limit`.
fn check_size(so_far: usize, payload_len: u64, limit: usize) -> Result<(), ProtocolError> {
    // Not a sum of usize, which could overflow: the length may be anything below 2^63.
    if payload_len > (limit - so_far) as u64 {
        let size = so_far as u64 + payload_len;
        return Err(ProtocolError::MessageTooBig { size, limit });
    }
    Ok(())
}

/// Unmasks the piece of a payload that follows its first `before` bytes. An ASCII piece is checked if they
/// are.
#[inline]
fn unmask(piece: &mut [u8], before: usize, masking_key: &mut [u8; 4], checked: &mut usize) {
    let (rotated, ascii) = frame::unmask(piece, *masking_key);
    *masking_key = rotated;
    // Everything before it is checked, so it does not begin inside a character.
    if ascii && *checked == before {
        *checked += piece.len();
    }
}

/// Splits a frame's payload off the input and unmasks it. `None` if the payload is not whole.
fn take_payload<'i>(
    input: &mut &'i mut [u8],
    header_len: usize,
    header: &Header,
) -> Option<&'i [u8]> {
    if header.payload_len > (input.len() - header_len) as u64 {
        return None;
    }
    take(input, header_len);
    let payload = take(input, header.payload_len as usize);
    frame::unmask(payload, header.masking_key);
    Some(payload)
}

fn take<'i>(input: &mut &'i mut [u8], len: usize) -> &'i mut [u8] {
    let (taken, rest) = mem::take(input).split_at_mut(len);
    *input = rest;
    taken
}
