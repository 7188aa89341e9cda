//! Compressed messages as clients send them (RFC 7692), and what is inflated from their replies.

use std::fmt::Write as _;

use zlib_rs::{Deflate, DeflateFlush, Inflate, InflateFlush};

use crate::frames::Random;

/// FIN, RSV1 and the opcode of a text: a whole compressed message.
pub const COMPRESSED_TEXT: u8 = 0xC1;

/// An array of records as a service sends them, cut at `len` bytes.
pub fn json(seed: u64, len: usize) -> Vec<u8> {
    const WORDS: [&str; 12] = [
        "amber", "basin", "cedar", "delta", "ember", "fjord", "grove", "haven", "inlet", "juniper",
        "knoll", "lagoon",
    ];
    let mut random = Random(seed);
    let mut text = String::from("[");
    while text.len() < len {
        let (id, user) = (random.below(1 << 24), random.below(10_000));
        let [first, second] = [(); 2].map(|()| WORDS[random.below(12)]);
        let (price, cents, active) = (random.below(500), random.below(100), random.below(2) == 0);
        // Writing to a string does not fail.
        let _ = write!(
            text,
            r#"{{"id":{id},"user":"user{user}","title":"{first} {second}","price":{price}.{cents:02},"active":{active}}},"#,
        );
    }
    text.truncate(len);
    text.into_bytes()
}

/// Compresses a message without a context (RFC 7692 §7.2.1).
pub fn compress(message: &[u8], level: i32) -> Vec<u8> {
    let mut deflate = Deflate::new(level, false, 15);
    let mut payload = vec![0; message.len() + message.len() / 8 + 1024];
    // There is room for all of it.
    let _ = deflate.compress(message, &mut payload, DeflateFlush::SyncFlush);
    payload.truncate(deflate.total_out() as usize - 4);
    payload
}

/// Whether `payload` is `text`, compressed without a context (RFC 7692 §7.2.2).
pub fn inflates_to(payload: &[u8], text: &[u8]) -> bool {
    let mut inflate = Inflate::new(false, 15);
    let mut inflated = vec![0; text.len() + 1];
    let input = [payload, &[0, 0, 0xFF, 0xFF]].concat();
    inflate.decompress(&input, &mut inflated, InflateFlush::NoFlush).is_ok()
        && inflated[..inflate.total_out() as usize] == *text
}
