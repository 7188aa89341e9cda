//! A client's side of permessage-deflate, by another implementation than the server's (RFC 7692).

use arbitrary::{Arbitrary, Result, Unstructured};
use miniz_oxide::MZFlush;
use wsecho::app::service::Service;
use wsecho::websocket::negotiation::Parameters;

pub use crate::client_deflate::{Compressor, Inflater, TAIL};
use crate::driver::Driver;
use crate::frames::masked_frame;
use crate::reference::{self, Header};

pub const RSV1: u8 = 0x40;

/// What client and server may agree on.
pub fn parameters(u: &mut Unstructured) -> Result<Parameters> {
    Ok(Parameters {
        server_no_context_takeover: u.arbitrary()?,
        client_no_context_takeover: u.arbitrary()?,
        server_max_window_bits: match u.arbitrary()? {
            true => Some(u.int_in_range(8..=15)?),
            false => None,
        },
        client_max_window_bits: None,
    })
}

/// How a client compresses what it would have sent plain.
#[derive(Debug)]
pub struct Compression {
    pub parameters: Parameters,
    level: u8,
    strategy: u8,
    /// Which of its messages, over and over.
    compressed: Vec<bool>,
}

impl<'a> Arbitrary<'a> for Compression {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        let mut compressed: Vec<bool> = u.arbitrary()?;
        compressed.push(true);
        Ok(Compression {
            parameters: parameters(u)?,
            level: u.int_in_range(0..=10)?,
            strategy: u.int_in_range(0..=4)?,
            compressed,
        })
    }
}

/// A client that compresses as [`Compression`] says.
pub struct Client<'c> {
    compression: &'c Compression,
    compressor: Compressor,
    is_next_compressed: std::iter::Cycle<std::slice::Iter<'c, bool>>,
    /// Whether the last message that has begun is.
    pub is_compressed: bool,
}

impl<'c> Client<'c> {
    pub fn new(compression: &'c Compression) -> Self {
        Client {
            compression,
            compressor: Compressor::with_strategy(compression.level, compression.strategy),
            is_next_compressed: compression.compressed.iter().cycle(),
            is_compressed: false,
        }
    }

    /// The frame that it sends for `frame`: the same, unless that is a valid one of a message to compress.
    pub fn frame(&mut self, frame: &[u8]) -> Vec<u8> {
        let header = Header::read(frame).filter(|header| {
            let is_whole = reference::whole_frame(frame) == Some(frame.len());
            is_whole && header.is_minimal() && header.rsv == 0 && header.opcode <= 0x2
        });
        let Some(Header { fin, opcode, masking_key: Some(key), len, .. }) = header else {
            return frame.into();
        };
        let mut first = frame[0];
        if opcode != 0x0 {
            self.is_compressed = self.is_next_compressed.next() == Some(&true);
            first |= if self.is_compressed { RSV1 } else { 0 };
            if self.compression.parameters.client_no_context_takeover {
                let Compression { level, strategy, .. } = *self.compression;
                self.compressor = Compressor::with_strategy(level, strategy);
            }
        }
        if !self.is_compressed {
            return frame.into();
        }
        let mut fragment = frame[len..].to_vec();
        reference::unmask(&mut fragment, key);
        let mut payload = Vec::new();
        if fin {
            self.compressor.append_last(&fragment, &mut payload);
        } else {
            self.compressor.append(&fragment, MZFlush::Sync, &mut payload);
        }
        masked_frame(first, &payload, key)
    }
}

/// A WebSocket with which `parameters` were agreed, if there are any.
pub fn open(service: &Service, parameters: Option<Parameters>) -> Driver<'_> {
    let offer = parameters.map(|parameters| format!("Sec-WebSocket-Extensions: {parameters}\r\n"));
    Driver::open_with(service, &offer.unwrap_or_default())
}

/// The messages and control frames of a server, each after its opcode with RSV1, and inflated.
pub fn inflated_messages(output: &[u8], parameters: Option<Parameters>) -> Vec<(u8, Vec<u8>)> {
    let (mut messages, is_whole) = reference::server_messages(output, None);
    assert!(is_whole, "the last message is not whole");
    let mut inflater = Inflater::default();
    for (first, payload) in messages.iter_mut().filter(|(first, _)| first & RSV1 != 0) {
        let parameters = parameters.expect("RFC 6455 §5.2: no extension was agreed");
        if parameters.server_no_context_takeover {
            inflater = Inflater::default();
        }
        *payload = inflater.message(payload).expect("RFC 7692 §7.2.2");
        let is_text = *first & 0x2 == 0;
        assert!(!is_text || str::from_utf8(payload).is_ok(), "RFC 6455 §5.6: text is UTF-8");
    }
    messages
}
