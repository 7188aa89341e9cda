//! A client that echoes, right or deliberately wrong, without a socket.

use std::mem;

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
}

pub struct Client {
    flaw: Flaw,
    input: Vec<u8>,
    message: Option<(u8, Vec<u8>)>,
    output: Vec<u8>,
    pub state: State,
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
        let mut client =
            Client { flaw, input: vec![], message: None, output: vec![], state: State::Open };
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
                Err(Wrong(code)) => self.close(code),
            }
        }
    }

    /// Takes a frame off the input. Returns whether it was whole.
    fn take_frame(&mut self) -> Result<bool, Wrong> {
        let [first, second, ..] = self.input[..] else { return Ok(false) };
        let (len, header_len) = match second {
            126 if self.input.len() >= 4 => {
                (u64::from(u16::from_be_bytes([self.input[2], self.input[3]])), 4)
            }
            127 if self.input.len() >= 10 => {
                (u64::from_be_bytes(self.input[2..10].try_into().unwrap()), 10)
            }
            126 | 127 => return Ok(false),
            len => (u64::from(len), 2),
        };
        let header = self.check_header(first, len);
        let end = header_len + len as usize;
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
        let has_reserved_bits = first & 0x70 != 0 && self.flaw != Flaw::NoReservedBitsCheck;
        if is_right && !has_reserved_bits { Ok(()) } else { Err(Wrong(1002)) }
    }

    fn check_text(&self, first: u8, came: &[u8], is_last: bool) -> Result<(), Wrong> {
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
                _ => self.send(0x8A, payload),
            },
            0xA => {}
            opcode => self.take_fragment(opcode, first & 0x80 != 0, payload),
        }
        Ok(())
    }

    fn take_close(&mut self, payload: &[u8]) -> Result<(), Wrong> {
        let code = payload.first_chunk().map(|code| u16::from_be_bytes(*code));
        let is_right = match code {
            _ if self.flaw == Flaw::AnyCloseCode => true,
            None => payload.is_empty(),
            Some(1000..=1003 | 1007..=1014 | 3000..=4999) => str::from_utf8(&payload[2..]).is_ok(),
            Some(_) => false,
        };
        match (is_right, code) {
            (false, _) => return Err(Wrong(1002)),
            (true, Some(code)) => self.close(code),
            (true, None) => self.send_close(b""),
        }
        Ok(())
    }

    fn take_fragment(&mut self, opcode: u8, fin: bool, payload: &[u8]) {
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
            return;
        }
        let (_, mut message) = self.message.take().unwrap();
        let opcode = if self.flaw == Flaw::TextAsBinary { 2 } else { opcode };
        match self.flaw {
            Flaw::EchoFragments => return,
            Flaw::EchoTruncated => drop(message.pop()),
            Flaw::EchoTwice => self.send(0x80 | opcode, &message),
            _ => {}
        }
        self.send(0x80 | opcode, &message);
    }

    fn close(&mut self, code: u16) {
        self.send_close(&code.to_be_bytes());
    }

    fn send_close(&mut self, payload: &[u8]) {
        if self.flaw != Flaw::NoCloseAnswer {
            self.send(0x88, payload);
        }
        self.state = State::Closing;
    }

    fn send(&mut self, first: u8, payload: &[u8]) {
        if self.flaw == Flaw::Silent && first & 0x0F != 8 {
            return;
        }
        let mut frame = frames::frame(first, payload);
        if self.flaw == Flaw::Unmasked {
            frame = frames::server_frame(first, payload);
        }
        self.output.append(&mut frame);
    }

    pub fn take_output(&mut self) -> Vec<u8> {
        mem::take(&mut self.output)
    }
}
