//! What a client may send once the WebSocket is open: mostly valid frames with a few errors, so that a
//! fuzzer soon gets past the first frame. And how it comes.

use std::time::Duration;

use arbitrary::{Arbitrary, Result, Unstructured};

use crate::driver::Driver;
use crate::frames::{masked_frame, server_frame};

/// The bytes that a client sends.
#[derive(Debug)]
pub struct ClientBytes(pub Vec<u8>);

/// About the most bytes, so that a round stays short.
const MAX_LEN: usize = 400_000;

/// Where a length takes another form, a buffer another kind of memory, or a payload another path. The
/// large ones take long and come seldom.
const EDGES: [usize; 4] = [1, 16, 125, 126];
const LARGE_EDGES: [usize; 6] = [4096, 16_384, 32_768, 65_535, 65_536, 300_000];

impl<'a> Arbitrary<'a> for ClientBytes {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        let mut bytes = Vec::new();
        while !u.is_empty() && bytes.len() < MAX_LEN {
            match u.int_in_range(0..=15)? {
                0..=9 => message(u, &mut bytes)?,
                10..=12 => control(u, &mut bytes)?,
                13 => {
                    let (first, payload) = (u.arbitrary()?, binary(u)?);
                    frame(u, first, &payload, &mut bytes)?;
                }
                14 => bytes.extend_from_slice(u.arbitrary()?),
                _ => bytes.extend_from_slice(u.bytes(u.len())?),
            }
        }
        if rarely(u)? {
            bytes.truncate(u.int_in_range(0..=bytes.len())?);
        }
        Ok(ClientBytes(bytes))
    }
}

/// A message in one to four frames, maybe with control frames between them.
fn message(u: &mut Unstructured, bytes: &mut Vec<u8>) -> Result<()> {
    let (mut opcode, payload) = match u.arbitrary()? {
        true => (0x1, text(u)?),
        false => (0x2, binary(u)?),
    };
    let mut rest = &payload[..];
    for _ in 0..u.int_in_range(0..=3)? {
        let (fragment, tail) = rest.split_at(u.int_in_range(0..=rest.len())?);
        frame(u, opcode, fragment, bytes)?;
        if u.arbitrary()? {
            control(u, bytes)?;
        }
        (opcode, rest) = (0x0, tail);
    }
    frame(u, 0x80 | opcode, rest, bytes)
}

fn control(u: &mut Unstructured, bytes: &mut Vec<u8>) -> Result<()> {
    let first = *u.choose(&[0x89, 0x89, 0x8A, 0x88])?;
    let mut payload = Vec::new();
    if first == 0x88 && u.arbitrary()? {
        let code = match u.arbitrary()? {
            true => u.int_in_range(998..=1017)?,
            false => u.arbitrary::<u16>()?,
        };
        payload.extend(code.to_be_bytes());
    }
    payload.extend(binary(u)?);
    if !rarely(u)? {
        payload.truncate(125);
    }
    frame(u, first, &payload, bytes)
}

/// Text of short and long characters, seldom with a wrong byte or ended inside a character.
pub fn text(u: &mut Unstructured) -> Result<Vec<u8>> {
    let mut text = match u.arbitrary()? {
        true => Vec::from(u.arbitrary::<&str>()?),
        false => "wé日😀".repeat(len(u)? / 10).into_bytes(),
    };
    if !text.is_empty() && rarely(u)? {
        let at = u.choose_index(text.len())?;
        match u.arbitrary()? {
            Some(byte) => text[at] = byte,
            None => text.truncate(at),
        }
    }
    Ok(text)
}

/// Few bytes that the fuzzer chose, or many.
pub fn binary(u: &mut Unstructured) -> Result<Vec<u8>> {
    Ok(match u.arbitrary()? {
        true => Vec::from(u.arbitrary::<&[u8]>()?),
        false => (0..=255).cycle().take(len(u)?).collect(),
    })
}

/// A length at, just below or just above an edge.
fn len(u: &mut Unstructured) -> Result<usize> {
    let edge = match u.int_in_range(0..=15)? {
        0..=13 => *u.choose(&EDGES)?,
        _ => *u.choose(&LARGE_EDGES)?,
    };
    Ok((edge + u.int_in_range(0..=2)?).saturating_sub(1))
}

/// A frame, most often a valid one (§5.2).
fn frame(u: &mut Unstructured, first: u8, payload: &[u8], bytes: &mut Vec<u8>) -> Result<()> {
    let mut frame = masked_frame(first, payload, u.arbitrary()?);
    if rarely(u)? {
        let len = payload.len() as u64;
        let long_form = match u.int_in_range(0..=5)? {
            0 => {
                frame[0] |= 0x10 << u.int_in_range(0..=2)?;
                None
            }
            1 => {
                frame = server_frame(first, payload);
                None
            }
            2 if len < 126 => {
                frame[1] = 0x80 | 126;
                frame.splice(2..2, [0, len as u8]);
                None
            }
            2 | 3 => Some(len),
            4 => Some(1 << 63 | len),
            _ => Some(u.arbitrary()?),
        };
        if let Some(declared) = long_form {
            let masking_key_at = frame.len() - payload.len() - 4;
            frame[1] = 0x80 | 127;
            frame.splice(2..masking_key_at, declared.to_be_bytes());
        }
    }
    bytes.extend(frame);
    Ok(())
}

/// True once in 32 times, and never when the fuzzer's bytes are used up.
pub fn rarely(u: &mut Unstructured) -> Result<bool> {
    Ok(u.int_in_range(0..=31)? == 31)
}

/// How the network splits what a client sends.
#[derive(Arbitrary, Debug)]
pub struct Splits {
    /// The lengths of the pieces in bytes, over and over. None means all in one.
    pieces: Vec<u16>,
    /// For how long nothing comes after each piece, in milliseconds.
    pause: u8,
}

impl Splits {
    /// The bytes in pieces: larger ones after the first thousand, so that a round stays short.
    pub fn split<'b>(&self, mut bytes: &'b [u8]) -> impl Iterator<Item = &'b [u8]> {
        let mut pieces = self.pieces.iter().cycle().enumerate();
        std::iter::from_fn(move || {
            let len = pieces.next().map_or(bytes.len(), |(number, &len)| {
                usize::from(len).max(if number < 1000 { 1 } else { 1000 })
            });
            let (piece, rest) = bytes.split_at(len.min(bytes.len()));
            bytes = rest;
            (!piece.is_empty()).then_some(piece)
        })
    }

    /// Has nothing come between two pieces.
    pub fn pause(&self, driver: &mut Driver) {
        driver.wait_until(driver.now + Duration::from_millis(self.pause.into()));
    }

    /// Has `bytes` come in pieces.
    pub fn receive(&self, bytes: &[u8], driver: &mut Driver) {
        for piece in self.split(bytes) {
            driver.receive(piece);
            self.pause(driver);
        }
    }
}
