//! A client that echoes, right or deliberately wrong, without a socket.

use std::mem;

use zlib_rs::{Deflate, DeflateFlush, Inflate, InflateFlush, Status};

use crate::frames;

/// What the client does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    None,
    /// It answers no ping.
    NoPong,
    /// Its pongs have no payload.
    EmptyPong,
    /// It begins by a pong.
    UnaskedPong,
    /// It doesn't check text.
    NoUtf8Check,
    /// It checks text once the message is whole.
    LateUtf8Check,
    /// It closes with 1000 whatever is wrong.
    WrongCode,
    /// It ends TCP whenever something is wrong.
    DropOnError,
    /// It skips what is wrong.
    SwallowErrors,
    /// To it a continuation of nothing is a message.
    StrayContinuation,
    /// It lets a message begin inside another one.
    Interleaved,
    TextAsBinary,
    EchoTwice,
    EchoTruncated,
    EchoFragments,
    /// It takes two seconds for each echo.
    Late,
    Silent,
    CloseAtOnce,
    Unmasked,
    AnyCloseCode,
    NoCloseAnswer,
    NoReservedBitsCheck,
    LongPing,
    DropAtOnce,

    // Beyond the suite.
    /// It opens whatever answers its handshake.
    AnyHandshake,
    /// It refuses a folded field of a head.
    NoFolding,
    /// It refuses a head that comes in parts, is long, or is in another case.
    StrictHead,
    /// Its key is the example of the RFC.
    ExampleKey,
    /// Its masking key is the same in each frame.
    SameMaskingKey,
    /// It unmasks what is masked.
    MaskedAccepted,
    /// It takes any form of a length, and waits for any length.
    AnyLength,
    /// It answers pings once there is no message that has begun.
    LatePong,
    /// It answers only the last of the pings that came together.
    LastPong,
    /// It answers a reason with one that is cut after 120 bytes.
    CutsReason,
    /// It goes on after its answer to a close frame.
    EchoesAfterClose,
    /// It ignores a close frame with a wrong code.
    SwallowsClose,
    /// It drops what text may have before its first letter.
    TrimsText,
    /// It refuses codes that RFC 6455 does not have.
    OldCodes,
    /// It never ends TCP.
    KeepsTcp,
    /// It answers the end of TCP by the close code that no frame may have.
    Sends1006,
    /// Which is right: it answers the end of TCP by a close frame.
    SaysGoodbye,
    /// It echoes what it could inflate of data that is wrong.
    NoDeflateCheck,
    /// To it data ends at its final block.
    EndsAtFinalBlock,
    /// It inflates each message on its own.
    ForgetsContext,
    /// Its compressor refers to earlier messages.
    KeepsContext,
    /// It compresses with the largest window.
    LargeWindow,
    /// It echoes however long a message becomes.
    EchoesBomb,
}

/// The longest message that it inflates.
const MAX_INFLATED: usize = 1 << 20;

pub struct Client {
    flaw: Flaw,
    input: Vec<u8>,
    message: Option<(u8, Vec<u8>)>,
    output: Vec<u8>,
    pub state: State,
    frames: u32,
    /// Since when it answers no ping.
    ping: Option<Vec<u8>>,
    pub deflate: Option<PerMessageDeflate>,
}

#[derive(Default)]
pub struct PerMessageDeflate {
    /// What every compressed message had, each with its tail.
    history: Vec<u8>,
    /// How much all of them had inflated.
    inflated: usize,
    is_message: bool,
    compressor: Option<Deflate>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Open,
    /// It has sent its close frame, or never will.
    Closing,
    /// It has ended TCP.
    Ended,
}

/// What is wrong: the close code for it.
struct Wrong(u16);

impl Client {
    pub fn new(flaw: Flaw) -> Self {
        let mut client = Client {
            flaw,
            input: vec![],
            message: None,
            output: vec![],
            state: State::Open,
            frames: 0,
            ping: None,
            deflate: None,
        };
        match flaw {
            Flaw::UnaskedPong => client.send(0x8A, b"unasked"),
            Flaw::CloseAtOnce => client.close(1000),
            Flaw::DropAtOnce => client.state = State::Ended,
            _ => {}
        }
        client
    }

    /// Takes bytes from the server.
    pub fn receive(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
        while self.state == State::Open && !self.input.is_empty() {
            match self.take_frame() {
                Ok(true) => {}
                Ok(false) => break,
                Err(_) if self.flaw == Flaw::DropOnError => self.state = State::Ended,
                Err(_) if self.flaw == Flaw::WrongCode => self.close(1000),
                Err(Wrong(code)) => {
                    self.close(code);
                    self.state = State::Closing;
                }
            }
        }
        if self.flaw == Flaw::LastPong
            && let Some(ping) = self.ping.take()
        {
            self.send(0x8A, &ping);
        }
    }

    /// Takes a frame off the input. Returns whether it was whole.
    fn take_frame(&mut self) -> Result<bool, Wrong> {
        let [first, second, ..] = self.input[..] else { return Ok(false) };
        let is_masked = second & 0x80 != 0;
        if is_masked && self.flaw != Flaw::MaskedAccepted {
            return Err(Wrong(1002));
        }
        let (len, mut header_len) = match second & 0x7F {
            126 if self.input.len() >= 4 => {
                (u64::from(u16::from_be_bytes([self.input[2], self.input[3]])), 4)
            }
            127 if self.input.len() >= 10 => {
                (u64::from_be_bytes(self.input[2..10].try_into().unwrap()), 10)
            }
            126 | 127 => return Ok(false),
            len => (u64::from(len), 2),
        };
        let shortest = match len {
            ..126 => 2,
            126..0x1_0000 => 4,
            _ => 10,
        };
        if self.flaw != Flaw::AnyLength {
            if header_len != shortest || len >> 63 != 0 {
                return Err(Wrong(1002));
            }
            if len > 1 << 30 {
                return Err(Wrong(1009));
            }
        }
        if is_masked && self.input.len() >= header_len + 4 {
            let key: Vec<_> = self.input.drain(header_len..header_len + 4).collect();
            self.input[1] &= 0x7F;
            for (byte, key) in self.input[header_len..].iter_mut().zip(key.iter().cycle()) {
                *byte ^= key;
            }
        }
        let header = self.check_header(first, len);
        let end = usize::try_from(len).ok().and_then(|len| header_len.checked_add(len));
        let Some(end) = end else { return Ok(false) };
        header_len = header_len.min(end);
        if header.is_err() && self.flaw != Flaw::SwallowErrors {
            return header.map(|()| true);
        }
        let came = &self.input[header_len..end.min(self.input.len())];
        let is_whole = self.input.len() >= end;
        if header.is_ok() && matches!(first & 0x0F, 0..=2) {
            let is_last = is_whole && first & 0x80 != 0;
            let text = self.check_text(first, came, is_last);
            if text.is_err() && self.flaw != Flaw::SwallowErrors {
                return text.map(|()| true);
            }
            if text.is_err() && is_last {
                self.message = None;
                self.input.drain(..end);
                return Ok(true);
            }
        }
        if !is_whole {
            return Ok(false);
        }
        let payload = self.input[header_len..end].to_vec();
        self.input.drain(..end);
        if header.is_ok() {
            self.answer(first, &payload)?;
        }
        Ok(true)
    }

    fn check_header(&self, first: u8, len: u64) -> Result<(), Wrong> {
        let is_right = match first & 0x0F {
            0x0 => self.message.is_some() || self.flaw == Flaw::StrayContinuation,
            0x1 | 0x2 => self.message.is_none() || self.flaw == Flaw::Interleaved,
            0x8..=0xA => first & 0x80 != 0 && (len <= 125 || self.flaw == Flaw::LongPing),
            _ => false,
        };
        let is_compressed = self.deflate.is_some() && matches!(first & 0x7F, 0x41 | 0x42);
        let has_reserved_bits =
            first & 0x70 != 0 && !is_compressed && self.flaw != Flaw::NoReservedBitsCheck;
        if is_right && !has_reserved_bits { Ok(()) } else { Err(Wrong(1002)) }
    }

    fn check_text(&self, first: u8, came: &[u8], is_last: bool) -> Result<(), Wrong> {
        let is_continued = self.deflate.as_ref().is_some_and(|deflate| deflate.is_message);
        if first & 0x40 != 0 || (first.trailing_zeros() >= 4 && is_continued) {
            return Ok(());
        }
        let (opcode, before) = match &self.message {
            Some((opcode, before)) if first.trailing_zeros() >= 4 => (*opcode, &before[..]),
            _ => (first & 0x0F, &[][..]),
        };
        let is_checked = match self.flaw {
            Flaw::NoUtf8Check => false,
            Flaw::LateUtf8Check => is_last,
            _ => true,
        };
        if opcode == 2 || !is_checked {
            return Ok(());
        }
        match str::from_utf8(&[before, came].concat()) {
            Err(error) if is_last || error.error_len().is_some() => Err(Wrong(1007)),
            _ => Ok(()),
        }
    }

    fn answer(&mut self, first: u8, payload: &[u8]) -> Result<(), Wrong> {
        match first & 0x0F {
            0x8 => self.take_close(payload)?,
            0x9 => match self.flaw {
                Flaw::NoPong => {}
                Flaw::EmptyPong => self.send(0x8A, b""),
                Flaw::LastPong => self.ping = Some(payload.into()),
                Flaw::LatePong if self.message.is_some() => self.ping = Some(payload.into()),
                _ => self.send(0x8A, payload),
            },
            0xA => {}
            opcode => {
                if opcode != 0
                    && let Some(deflate) = &mut self.deflate
                {
                    deflate.is_message = first & 0x40 != 0;
                }
                self.take_fragment(opcode, first & 0x80 != 0, payload)?;
            }
        }
        Ok(())
    }

    fn take_close(&mut self, payload: &[u8]) -> Result<(), Wrong> {
        let code = payload.first_chunk().map(|code| u16::from_be_bytes(*code));
        let is_right = match code {
            _ if self.flaw == Flaw::AnyCloseCode => true,
            None => payload.is_empty(),
            Some(1012..=1014) if self.flaw == Flaw::OldCodes => false,
            Some(1000..=1003 | 1007..=1014 | 3000..=4999) => str::from_utf8(&payload[2..]).is_ok(),
            Some(_) => false,
        };
        match (is_right, code) {
            (false, _) if self.flaw == Flaw::SwallowsClose => {}
            (false, _) => return Err(Wrong(1002)),
            (true, Some(_)) if self.flaw == Flaw::CutsReason && payload.len() > 120 => {
                self.send_close(&payload[..122]);
            }
            (true, Some(code)) => self.close(code),
            (true, None) => self.send_close(b""),
        }
        Ok(())
    }

    fn take_fragment(&mut self, opcode: u8, fin: bool, payload: &[u8]) -> Result<(), Wrong> {
        if opcode != 0 {
            self.message = Some((opcode, vec![]));
        }
        let (opcode, message) = self.message.get_or_insert((1, vec![]));
        let opcode = *opcode;
        message.extend(payload);
        if self.flaw == Flaw::EchoFragments {
            self.send(0x80 | opcode, payload);
        }
        if !fin {
            return Ok(());
        }
        let (_, mut message) = self.message.take().unwrap();
        if let Some(deflate) = self.deflate.as_mut().filter(|deflate| deflate.is_message) {
            message = deflate.inflate(&message, self.flaw)?;
            let is_checked = opcode == 1 && self.flaw != Flaw::NoUtf8Check;
            if is_checked && str::from_utf8(&message).is_err() {
                return Err(Wrong(1007));
            }
        }
        if self.flaw == Flaw::LatePong
            && let Some(ping) = self.ping.take()
        {
            self.send(0x8A, &ping);
        }
        let opcode = if self.flaw == Flaw::TextAsBinary { 2 } else { opcode };
        match self.flaw {
            Flaw::EchoFragments => return Ok(()),
            Flaw::KeepsContext | Flaw::LargeWindow if self.deflate.is_some() => {
                let deflate = self.deflate.as_mut().unwrap();
                let deflated = deflate.deflate(&message, self.flaw);
                self.send(0xC0 | opcode, &deflated);
                return Ok(());
            }
            Flaw::EchoesBomb if message.len() > MAX_INFLATED => {
                // Its beginning is enough.
                let mut frame = frames::frame(0x80 | opcode, &message);
                frame.truncate(1000);
                self.output.append(&mut frame);
                return Ok(());
            }
            Flaw::EchoTruncated => drop(message.pop()),
            Flaw::TrimsText => {
                message =
                    String::from_utf8_lossy(&message).trim_start_matches(['\0', '\u{FEFF}']).into();
            }
            Flaw::EchoTwice => self.send(0x80 | opcode, &message),
            _ => {}
        }
        self.send(0x80 | opcode, &message);
        Ok(())
    }

    /// The server has ended its side of TCP.
    pub fn ended(&mut self) {
        match self.flaw {
            Flaw::Sends1006 if self.state == State::Open => self.close(1006),
            Flaw::SaysGoodbye if self.state == State::Open => self.close(1001),
            _ => {}
        }
        if self.flaw != Flaw::KeepsTcp {
            self.state = State::Ended;
        }
    }

    fn close(&mut self, code: u16) {
        self.send_close(&code.to_be_bytes());
    }

    fn send_close(&mut self, payload: &[u8]) {
        if self.flaw != Flaw::NoCloseAnswer {
            self.send(0x88, payload);
        }
        if self.flaw != Flaw::EchoesAfterClose {
            self.state = State::Closing;
        }
    }

    fn send(&mut self, first: u8, payload: &[u8]) {
        if self.flaw == Flaw::Silent && first & 0x0F != 8 {
            return;
        }
        self.frames += u32::from(self.flaw != Flaw::SameMaskingKey);
        let mut frame = frames::masked_frame(first, payload, self.frames.to_be_bytes());
        if self.flaw == Flaw::Unmasked {
            frame = frames::server_frame(first, payload);
        }
        self.output.append(&mut frame);
    }

    pub fn take_output(&mut self) -> Vec<u8> {
        mem::take(&mut self.output)
    }
}

impl PerMessageDeflate {
    fn inflate(&mut self, payload: &[u8], flaw: Flaw) -> Result<Vec<u8>, Wrong> {
        const TAIL: &[u8] = b"\x00\x00\xFF\xFF";
        /// An empty block, which is only read as one where a block may begin.
        const FINAL: &[u8] = b"\x01\x00\x00\xFF\xFF";
        if flaw == Flaw::ForgetsContext {
            self.history.clear();
            self.inflated = 0;
        }
        self.history.extend([payload, TAIL].concat());
        let whole = [&self.history, FINAL].concat();
        let mut inflate = Inflate::new(false, 15);
        let (mut read, mut message) = (0, Vec::new());
        let is_right = loop {
            let mut out = vec![0; 1 << 16];
            let before = (inflate.total_in() as usize, inflate.total_out() as usize);
            let status = inflate.decompress(&whole[read..], &mut out, InflateFlush::NoFlush);
            let taken = inflate.total_in() as usize - before.0;
            let given = inflate.total_out() as usize - before.1;
            read += taken;
            message.extend_from_slice(&out[..given]);
            if message.len() > MAX_INFLATED && flaw != Flaw::EchoesBomb {
                return Err(Wrong(1009));
            }
            match status {
                Ok(Status::StreamEnd) if read == whole.len() => break true,
                Ok(Status::StreamEnd) if flaw == Flaw::EndsAtFinalBlock => break false,
                Ok(Status::StreamEnd) => inflate.reset(false),
                Ok(_) if taken + given > 0 => {}
                _ => break false,
            }
        };
        if !is_right && flaw != Flaw::NoDeflateCheck {
            return Err(Wrong(1007));
        }
        let message = message.split_off(self.inflated.min(message.len()));
        self.inflated += message.len();
        Ok(message)
    }

    fn deflate(&mut self, message: &[u8], flaw: Flaw) -> Vec<u8> {
        if flaw != Flaw::KeepsContext {
            self.compressor = None;
        }
        let deflate = self.compressor.get_or_insert_with(|| Deflate::new(6, false, 15));
        let mut out = vec![0; 2 * message.len() + 100];
        let before = deflate.total_out();
        deflate.compress(message, &mut out, DeflateFlush::SyncFlush).unwrap();
        out.truncate((deflate.total_out() - before) as usize - 4);
        out
    }
}
