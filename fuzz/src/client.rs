//! What a client may send once the WebSocket is open: mostly valid frames with a few errors, so that a
//! fuzzer soon gets past the first frame.

use arbitrary::{Arbitrary, Result, Unstructured};

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
    let len = payload.len();
    let key: [u8; 4] = u.arbitrary()?;
    let (mut first, mut mask, mut form) = (first, 0x80, len);
    let mut declared = len as u64;
    if rarely(u)? {
        match u.int_in_range(0..=5)? {
            0 => first |= 0x10 << u.int_in_range(0..=2)?,
            1 => mask = 0,
            2 => form = form.max(126),
            3 => form = usize::MAX,
            4 => (form, declared) = (usize::MAX, 1 << 63 | declared),
            _ => (form, declared) = (usize::MAX, u.arbitrary()?),
        }
    }
    bytes.push(first);
    match form {
        0..126 => bytes.push(mask | len as u8),
        126..65_536 => {
            bytes.push(mask | 126);
            bytes.extend((len as u16).to_be_bytes());
        }
        65_536.. => {
            bytes.push(mask | 127);
            bytes.extend(declared.to_be_bytes());
        }
    }
    if mask == 0 {
        bytes.extend(payload);
        return Ok(());
    }
    bytes.extend(key);
    bytes.extend(payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key));
    Ok(())
}

/// A valid frame (§5.2).
pub fn valid_frame(first: u8, payload: &[u8], key: [u8; 4], bytes: &mut Vec<u8>) {
    bytes.push(first);
    match payload.len() {
        len @ 0..126 => bytes.push(0x80 | len as u8),
        len @ 126..65_536 => {
            bytes.push(0x80 | 126);
            bytes.extend((len as u16).to_be_bytes());
        }
        len => {
            bytes.push(0x80 | 127);
            bytes.extend((len as u64).to_be_bytes());
        }
    }
    bytes.extend(key);
    bytes.extend(payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key));
}

/// True once in 32 times, and never when the fuzzer's bytes are used up.
pub fn rarely(u: &mut Unstructured) -> Result<bool> {
    Ok(u.int_in_range(0..=31)? == 31)
}
