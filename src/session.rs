//! The conversation after the opening handshake: fragments, control frames, UTF-8 and the closing
//! handshake (RFC 6455 §5.4 to §8.1), as bytes in, messages and reply bytes out.
//!
//! ```text
//!            first fragment             its payload has come
//!   ┌──────┐ ─────────────▶ ┌─────────┐ ───────────────────▶ ┌────────────┐
//!   │ Idle │                │ Payload │                      │ Fragmented │
//!   └──────┘ ◀───────────── └─────────┘ ◀─────────────────── └────────────┘
//!       its last payload has come           next fragment
//!
//!   any of them ──▶ Closed: the peer's Close was answered, or the server sent its own
//! ```
//!
//! A message that lies whole in the input is unmasked there and never copied; only what comes in
//! pieces is put together aside.

use std::mem;
use std::sync::Arc;

use crate::buffer::{self, Budget, Buffer};
use crate::frame::{self, Header, Opcode};
use crate::violation::{Cause, Violation};

/// A whole message, unmasked; the payload of a text message is UTF-8.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'m> {
    /// Text or binary.
    pub kind: Kind,
    /// The payloads of all its fragments.
    pub payload: &'m [u8],
}

/// What a message carries (§5.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// UTF-8 text.
    Text,
    /// Any bytes.
    Binary,
}

/// Who began the closing handshake, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Close {
    /// The peer, with its close code, if it gave one, and its reason.
    ByPeer {
        /// A code that §7.4 lets an endpoint send.
        code: Option<u16>,
        /// Up to 123 bytes, in the peer's own words.
        reason: String,
    },
    /// The server.
    ByServer(Cause),
}

/// One client's conversation.
pub struct Session {
    state: State,
    max_message_size: usize,
    /// What has come of a message in pieces, unmasked; kept for the next such message.
    message: Buffer,
    /// How much of a text message in pieces is known to be UTF-8.
    checked: usize,
}

// A tag of its own is quicker to read, at every frame, than one hidden among the values of a Close.
#[repr(u8)]
enum State {
    Idle,
    Fragmented(Kind),
    Payload {
        kind: Kind,
        fin: bool,
        /// How many bytes of the payload have not come yet.
        missing: usize,
        /// Turned to where the next byte stands.
        masking_key: [u8; 4],
    },
    Closed(Close),
}

/// Where a whole message lies.
enum Found<'i> {
    InInput(Kind, &'i [u8]),
    PutTogether(Kind),
}

impl Session {
    /// A conversation whose messages may have `max_message_size` bytes. What it holds above
    /// [`buffer::OWN`] is taken from `budget`.
    pub fn new(max_message_size: usize, budget: Arc<Budget>) -> Self {
        Session {
            state: State::Idle,
            max_message_size,
            message: Buffer::new(0, budget),
            checked: 0,
        }
    }

    /// Takes frames off the front of `input` until a message is whole, and appends to `replies`
    /// what the protocol itself answers: pongs and the close frame.
    ///
    /// `None` means that more bytes are needed, or that the conversation is
    /// [closed](Self::closed). What is left of `input` then, less than a control frame, has to
    /// stand before the bytes that come next.
    // Inlined with what it calls, a message stays in registers; to hand it over in memory costs as
    // much as to find it.
    #[inline]
    pub fn next<'m, 'i: 'm>(
        &'m mut self,
        input: &mut &'i mut [u8],
        replies: &mut Vec<u8>,
    ) -> Option<Message<'m>> {
        let found = self.find(input, replies).unwrap_or_else(|cause| {
            self.close(cause, replies);
            *input = &mut [];
            None
        })?;
        let (kind, payload) = match found {
            Found::InInput(kind, payload) => (kind, payload),
            Found::PutTogether(kind) => (kind, self.message.filled()),
        };
        Some(Message { kind, payload })
    }

    /// Begins the closing handshake by a close frame. What still comes is not processed.
    pub fn close(&mut self, cause: Cause, replies: &mut Vec<u8>) {
        encode_close(cause, replies);
        self.state = State::Closed(Close::ByServer(cause));
    }

    /// Who closed the conversation, once it is closed.
    pub fn closed(&self) -> Option<&Close> {
        match &self.state {
            State::Closed(close) => Some(close),
            _ => None,
        }
    }

    /// Where the rest of an unfinished payload belongs, when more than `at_least` bytes of it are
    /// missing: reading them straight to there saves a copy. [`filled`](Self::filled) has to follow.
    pub fn room(&mut self, at_least: usize) -> Option<&mut [u8]> {
        /// Few enough to be still in the processor's cache when they are unmasked.
        const PIECE: usize = 256 * 1024;
        match self.state {
            State::Payload { missing, .. } if missing > at_least => {
                let room = self.message.room();
                let piece = room.len().min(missing).min(PIECE);
                Some(&mut room[..piece])
            }
            _ => None,
        }
    }

    /// Takes the first `bytes` of the [`room`](Self::room) as come.
    pub fn filled(&mut self, bytes: usize) {
        if let State::Payload {
            missing,
            masking_key,
            ..
        } = &mut self.state
        {
            let come = self.message.filled().len();
            self.message.fill(bytes);
            let piece = &mut self.message.filled_mut()[come..];
            let (turned, ascii) = frame::unmask(piece, *masking_key);
            *masking_key = turned;
            // All before it is checked, so it does not begin inside a character.
            if ascii && self.checked == come {
                self.checked += bytes;
            }
            *missing -= bytes;
        }
    }

    /// Whether memory from the budget is kept only in case another large message follows.
    pub fn hoards(&self) -> bool {
        matches!(self.state, State::Idle) && self.message.capacity() > buffer::OWN
    }

    /// Gives up the memory that no unfinished message needs.
    pub fn release(&mut self) {
        if matches!(self.state, State::Idle | State::Closed(_)) {
            self.message.release();
        }
    }

    #[inline]
    fn find<'i>(
        &mut self,
        input: &mut &'i mut [u8],
        replies: &mut Vec<u8>,
    ) -> Result<Option<Found<'i>>, Cause> {
        loop {
            match self.state {
                State::Idle | State::Fragmented(_) => {
                    let Some((header, header_len)) = frame::decode(input)? else {
                        return Ok(None);
                    };
                    let whole = header.payload_len <= (input.len() - header_len) as u64;
                    let Some(kind) = self.check(&header)? else {
                        if !whole {
                            return Ok(None);
                        }
                        let (payload, _) = take_payload(input, header_len, &header);
                        self.answer_control(header.opcode, payload, replies)?;
                        continue;
                    };
                    if whole && header.fin && matches!(self.state, State::Idle) {
                        let (payload, ascii) = take_payload(input, header_len, &header);
                        if kind == Kind::Text && !ascii && str::from_utf8(payload).is_err() {
                            return Err(Violation::InvalidUtf8.into());
                        }
                        if self.hoards() {
                            self.release();
                        }
                        return Ok(Some(Found::InInput(kind, payload)));
                    }
                    take(input, header_len);
                    self.begin_payload(kind, &header);
                }
                State::Payload { kind, fin, .. } => {
                    let complete = self.take_piece(input)?;
                    self.check_utf8(kind, fin && complete)?;
                    if !complete {
                        return Ok(None);
                    }
                    if fin {
                        self.state = State::Idle;
                        return Ok(Some(Found::PutTogether(kind)));
                    }
                    self.state = State::Fragmented(kind);
                }
                State::Closed(_) => {
                    take(input, input.len());
                    return Ok(None);
                }
            }
        }
    }

    /// What a header must keep to after what came before it; the kind of message that a data frame
    /// belongs to, or none for a control frame.
    fn check(&self, header: &Header) -> Result<Option<Kind>, Violation> {
        if header.rsv != [false; 3] {
            return Err(Violation::ReservedBits);
        }
        let (kind, so_far) = match (header.opcode, &self.state) {
            (Opcode::Close | Opcode::Ping | Opcode::Pong, _) => {
                // §5.5: "All control frames MUST have a payload length of 125 bytes or less and
                // MUST NOT be fragmented."
                return match (header.fin, header.payload_len) {
                    (false, _) => Err(Violation::FragmentedControl),
                    (true, 126..) => Err(Violation::LongControl),
                    (true, _) => Ok(None),
                };
            }
            (Opcode::Continuation, State::Fragmented(kind)) => (*kind, self.message.filled().len()),
            (Opcode::Continuation, _) => return Err(Violation::NothingToContinue),
            (_, State::Fragmented(_)) => return Err(Violation::UnfinishedMessage),
            (Opcode::Text, _) => (Kind::Text, 0),
            (Opcode::Binary, _) => (Kind::Binary, 0),
        };
        // Never a sum: the length may be anything below 2^63.
        if header.payload_len > (self.max_message_size - so_far) as u64 {
            return Err(Violation::MessageTooBig);
        }
        Ok(Some(kind))
    }

    fn begin_payload(&mut self, kind: Kind, header: &Header) {
        if matches!(self.state, State::Idle) {
            self.message.clear();
            self.checked = 0;
        }
        self.state = State::Payload {
            kind,
            fin: header.fin,
            missing: header.payload_len as usize,
            masking_key: header.masking_key,
        };
    }

    /// Moves what `input` has of the payload to the message, and tells whether that was all of it.
    /// If not, there is room for more.
    fn take_piece(&mut self, input: &mut &mut [u8]) -> Result<bool, Cause> {
        while let State::Payload {
            fin,
            missing: missing @ 1..,
            ..
        } = self.state
        {
            if self.message.room().is_empty() {
                self.grow(fin, missing)?;
            }
            if input.is_empty() {
                return Ok(false);
            }
            let room = self.message.room();
            let piece = take(input, room.len().min(missing).min(input.len()));
            room[..piece.len()].copy_from_slice(piece);
            self.filled(piece.len());
        }
        Ok(true)
    }

    /// Makes the full message's room larger: by no more than what has already come, since a length
    /// that was only declared is worth no memory.
    fn grow(&mut self, fin: bool, missing: usize) -> Result<(), Cause> {
        let enough = match fin {
            true => self.message.capacity() + missing,
            false => self.max_message_size,
        };
        let capacity = (2 * self.message.capacity()).min(enough).max(buffer::OWN);
        self.message
            .resize(capacity)
            .map_err(|_| Cause::MemoryShort)
    }

    /// Refuses a text message at its first wrong byte, however much of it is still to come (§8.1).
    fn check_utf8(&mut self, kind: Kind, complete: bool) -> Result<(), Violation> {
        if kind == Kind::Binary {
            return Ok(());
        }
        match str::from_utf8(&self.message.filled()[self.checked..]) {
            Ok(checked) => self.checked += checked.len(),
            // The last character is cut, and its rest may still come.
            Err(error) if error.error_len().is_none() && !complete => {
                self.checked += error.valid_up_to();
            }
            Err(_) => return Err(Violation::InvalidUtf8),
        }
        Ok(())
    }

    fn answer_control(
        &mut self,
        opcode: Opcode,
        payload: &[u8],
        replies: &mut Vec<u8>,
    ) -> Result<(), Violation> {
        match opcode {
            // §5.5.3: a pong has "identical" data to the ping's.
            Opcode::Ping => {
                frame::encode_header(Opcode::Pong, payload.len(), replies);
                replies.extend_from_slice(payload);
            }
            Opcode::Close => {
                let (code, reason) = decode_close(payload)?;
                // §5.5.1: the answer "typically echos the status code it received".
                let echoed = if code.is_some() { &payload[..2] } else { b"" };
                frame::encode_header(Opcode::Close, echoed.len(), replies);
                replies.extend_from_slice(echoed);
                self.state = State::Closed(Close::ByPeer {
                    code,
                    reason: reason.into(),
                });
            }
            // §5.5.3: "A response to an unsolicited Pong frame is not expected."
            _ => {}
        }
        Ok(())
    }
}

/// Appends the close frame that tells the peer `cause`.
pub fn encode_close(cause: Cause, out: &mut Vec<u8>) {
    let reason = cause.to_string();
    frame::encode_header(Opcode::Close, 2 + reason.len(), out);
    out.extend_from_slice(&cause.code().to_be_bytes());
    out.extend_from_slice(reason.as_bytes());
}

/// The code and the reason in a close frame's payload (§5.5.1, §7.4).
fn decode_close(payload: &[u8]) -> Result<(Option<u16>, &str), Violation> {
    let Some((code, reason)) = payload.split_first_chunk() else {
        return match payload {
            [] => Ok((None, "")),
            _ => Err(Violation::ClosePayload),
        };
    };
    // Of the protocol's own codes 1004 has no meaning, and 1005, 1006 and 1015 are never sent.
    // 1012 to 1014 were registered later; 3000 to 4999 are for libraries and applications.
    match u16::from_be_bytes(*code) {
        code @ (1000..=1003 | 1007..=1014 | 3000..=4999) => str::from_utf8(reason)
            .map(|reason| (Some(code), reason))
            .map_err(|_| Violation::InvalidUtf8),
        _ => Err(Violation::CloseCode),
    }
}

/// Takes a frame's payload, unmasked, and tells whether it is ASCII.
#[inline]
fn take_payload<'i>(
    input: &mut &'i mut [u8],
    header_len: usize,
    header: &Header,
) -> (&'i [u8], bool) {
    take(input, header_len);
    let payload = take(input, header.payload_len as usize);
    let (_, ascii) = frame::unmask(payload, header.masking_key);
    (payload, ascii)
}

fn take<'i>(input: &mut &'i mut [u8], len: usize) -> &'i mut [u8] {
    let (taken, rest) = mem::take(input).split_at_mut(len);
    *input = rest;
    taken
}
