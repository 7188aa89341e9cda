//! A client's side of permessage-deflate, by another implementation than the server's (RFC 7692). Tests and
//! fuzz targets share it.

use miniz_oxide::deflate::core::{CompressorOxide, create_comp_flags_from_zip_params};
use miniz_oxide::deflate::stream::deflate;
use miniz_oxide::inflate::stream::{InflateState, inflate};
use miniz_oxide::{DataFormat, MZError, MZFlush};

/// The bytes that the sender of a message omits at its end (§7.2.1).
pub const TAIL: [u8; 4] = [0x00, 0x00, 0xFF, 0xFF];

/// What a client compresses its messages with.
pub struct Compressor(Box<CompressorOxide>);

impl Compressor {
    /// A level of 0, which makes stored blocks, to 10.
    pub fn new(level: u8) -> Self {
        Self::with_strategy(level, 0)
    }

    /// With one of five strategies, among them fixed codes.
    pub fn with_strategy(level: u8, strategy: u8) -> Self {
        let flags = create_comp_flags_from_zip_params(level.into(), -15, strategy.into());
        Compressor(Box::new(CompressorOxide::new(flags)))
    }

    /// The payload of one more message.
    pub fn message(&mut self, message: &[u8]) -> Vec<u8> {
        let mut payload = Vec::new();
        self.append_last(message, &mut payload);
        payload
    }

    /// Appends `block`, compressed, to `payload`.
    pub fn append(&mut self, block: &[u8], flush: MZFlush, payload: &mut Vec<u8>) {
        // miniz_oxide writes nothing for a second flush, or for one that has nothing before it.
        if block.is_empty() && flush != MZFlush::Finish {
            return;
        }
        let begin = payload.len();
        payload.resize(begin + block.len() * 2 + 1000, 0);
        let done = deflate(&mut self.0, block, &mut payload[begin..], flush);
        assert_eq!(done.bytes_consumed, block.len());
        payload.truncate(begin + done.bytes_written);
    }

    /// Appends `block`, compressed, as the last one of a message.
    pub fn append_last(&mut self, block: &[u8], payload: &mut Vec<u8>) {
        if block.is_empty() {
            // The server completes this empty block by the tail.
            return payload.push(0x00);
        }
        self.append(block, MZFlush::Sync, payload);
        assert!(payload.ends_with(&TAIL));
        payload.truncate(payload.len() - TAIL.len());
    }
}

/// What a client inflates replies with.
pub struct Inflater(Box<InflateState>);

impl Default for Inflater {
    fn default() -> Self {
        Inflater(InflateState::new_boxed(DataFormat::Raw))
    }
}

impl Inflater {
    /// Inflates the payload of one more reply.
    ///
    /// # Errors
    ///
    /// It is not DEFLATE, or ends before its frame does.
    pub fn message(&mut self, payload: &[u8]) -> Result<Vec<u8>, &'static str> {
        let data = [payload, &TAIL].concat();
        let mut data = &data[..];
        let mut message = Vec::new();
        let mut room = vec![0; 64 * 1024];
        loop {
            let done = inflate(&mut self.0, data, &mut room, MZFlush::None);
            if !matches!(done.status, Ok(_) | Err(MZError::Buf)) {
                return Err("a reply is not DEFLATE");
            }
            data = &data[done.bytes_consumed..];
            message.extend_from_slice(&room[..done.bytes_written]);
            // Room that is left says nothing: what is pending is handed out on its own.
            if (done.bytes_consumed, done.bytes_written) == (0, 0) {
                return if data.is_empty() { Ok(message) } else { Err("a reply ends early") };
            }
        }
    }
}
