//! Frames as they pass, in either direction. They are decoded independently of the session, so that
//! invalid ones are included.

use std::collections::VecDeque;
use std::fmt;
use std::mem;
use std::time::Duration;

use crate::escape::{Count, Quoted};
use crate::websocket::frame::{FIN, Opcode};
use crate::websocket::session::Event;

/// The maximum number of frames that are kept of one message. The others are counted.
const MAX_FRAMES: usize = 64;

/// The bytes that are kept of a payload: enough for the log's 200 characters.
const MAX_PAYLOAD: usize = 800;

/// The bytes of a payload that a client is shown.
const SHOWN_PAYLOAD: usize = 32;

/// Who sent a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Client,
    Server,
}

/// A frame that was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    side: Side,
    /// The time at which its header was complete.
    at: Duration,
    header: Vec<u8>,
    payload_len: u64,
    /// The start of the payload, unmasked.
    payload: Vec<u8>,
    /// The inflated size of the message that begins with it, if the message is compressed.
    inflated: Option<usize>,
}

/// Frames in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frames {
    frames: Vec<Frame>,
    /// The number of further frames, which were not kept.
    more: u64,
}

/// Decodes the frames of one side.
pub struct Reader {
    side: Side,
    header: Vec<u8>,
    /// The frame whose payload is not complete.
    open: Option<Frame>,
    /// The bytes of it that have passed.
    passed: u64,
}

/// The frames of a client, grouped by the events of its session.
pub struct Inbound {
    reader: Reader,
    waiting: VecDeque<Frame>,
    /// The number of further frames of the unfinished message, which were not kept.
    more: u64,
}

impl Reader {
    pub fn new(side: Side) -> Self {
        Reader { side, header: Vec::new(), open: None, passed: 0 }
    }

    /// Decodes `bytes`, which passed at `at`, and adds each completed frame to `frames`.
    pub fn read(&mut self, mut bytes: &[u8], at: Duration, frames: &mut impl Extend<Frame>) {
        while !bytes.is_empty() || self.is_complete() {
            if self.open.is_none() {
                let Some((&first, rest)) = bytes.split_first() else { return };
                bytes = rest;
                self.header.push(first);
                self.begin(at);
            }
            let Some(frame) = &mut self.open else { continue };
            let left = usize::try_from(frame.payload_len - self.passed).unwrap_or(usize::MAX);
            let (payload, rest) = bytes.split_at(left.min(bytes.len()));
            let room = MAX_PAYLOAD.saturating_sub(frame.payload.len());
            let masking_key = frame.masking_key().unwrap_or_default();
            let keys = masking_key.iter().cycle().skip(frame.payload.len() % 4);
            let shown = payload.iter().take(room).zip(keys).map(|(byte, key)| byte ^ key);
            frame.payload.extend(shown);
            self.passed += payload.len() as u64;
            bytes = rest;
            if self.is_complete() {
                frames.extend(self.end());
            }
        }
    }

    /// Ends an incomplete frame, or an incomplete header.
    pub fn end(&mut self) -> Option<Frame> {
        self.passed = 0;
        let frame = self.open.take();
        let header = mem::take(&mut self.header);
        frame.or_else(|| {
            let frame = |header| Frame::new(self.side, Duration::ZERO, header);
            (!header.is_empty()).then(|| frame(header))
        })
    }

    fn is_complete(&self) -> bool {
        self.open.as_ref().is_some_and(|frame| frame.payload_len == self.passed)
    }

    /// Begins a frame, if its header is complete.
    fn begin(&mut self, at: Duration) {
        let &[_, second, ..] = &self.header[..] else { return };
        let masking_key = if second & 0x80 == 0 { 0 } else { 4 };
        if self.header.len() == 2 + length_len(second) + masking_key {
            self.open = Some(Frame::new(self.side, at, mem::take(&mut self.header)));
        }
    }
}

/// The size in bytes of the extended length, which follows the second byte of a header.
fn length_len(second: u8) -> usize {
    match second & 0x7F {
        126 => 2,
        127 => 8,
        _ => 0,
    }
}

impl Frame {
    fn new(side: Side, at: Duration, header: Vec<u8>) -> Self {
        let second = header.get(1).copied().unwrap_or_default();
        let extended = header.get(2..2 + length_len(second)).unwrap_or_default();
        let payload_len = match extended {
            [] => u64::from(second & 0x7F),
            extended => extended.iter().fold(0, |len, byte| len << 8 | u64::from(*byte)),
        };
        Frame { side, at, header, payload_len, payload: Vec::new(), inflated: None }
    }

    fn first(&self) -> u8 {
        self.header.first().copied().unwrap_or_default()
    }

    fn is_control(&self) -> bool {
        self.first() & 0x08 != 0
    }

    fn is_final(&self) -> bool {
        self.first() & FIN != 0
    }

    fn masking_key(&self) -> Option<[u8; 4]> {
        let is_masked = self.header.get(1)? & 0x80 != 0;
        self.header.last_chunk().copied().filter(|_| is_masked)
    }

    fn name(&self) -> &'static str {
        match self.first() & 0x0F {
            opcode if opcode == Opcode::Continuation as u8 => "continuation",
            opcode if opcode == Opcode::Text as u8 => "text",
            opcode if opcode == Opcode::Binary as u8 => "binary",
            opcode if opcode == Opcode::Close as u8 => "close",
            opcode if opcode == Opcode::Ping as u8 => "ping",
            opcode if opcode == Opcode::Pong as u8 => "pong",
            _ => "reserved",
        }
    }

    /// As JSON, with the time since `opened`.
    fn json(&self, opened: Duration) -> String {
        let from = match self.side {
            Side::Client => "client",
            Side::Server => "server",
        };
        let mask = self.masking_key().map_or("null".into(), |key| format!("\"{}\"", Hex(&key)));
        let inflated = self.inflated.map_or(String::new(), |size| format!(",\"inflated\":{size}"));
        format!(
            "{{\"from\":\"{from}\",\"at\":{:.6},\"fin\":{},\"rsv\":{},\"opcode\":{},\"name\":\"{}\",\
             \"mask\":{mask},\"length\":{},\"header\":\"{}\"{inflated},\"bytes\":\"{}\"}}",
            self.at.saturating_sub(opened).as_secs_f64(),
            self.is_final(),
            self.first() >> 4 & 0x07,
            self.first() & 0x0F,
            self.name(),
            self.payload_len,
            Hex(&self.header),
            Hex(&self.payload[..self.payload.len().min(SHOWN_PAYLOAD)]),
        )
    }
}

/// In the form of the log.
impl fmt::Display for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.side {
            Side::Client => "received ",
            Side::Server => "sent ",
        })?;
        f.write_str(self.name())?;
        if self.is_final() {
            f.write_str(", FIN")?;
        }
        for (bit, name) in [(0x40, "RSV1"), (0x20, "RSV2"), (0x10, "RSV3")] {
            if self.first() & bit != 0 {
                write!(f, ", {name}")?;
            }
        }
        if let Some(key) = self.masking_key() {
            write!(f, ", masked by {}", Hex(&key))?;
        }
        write!(f, ", {}, header {}", Count(self.payload_len, "byte"), Hex(&self.header))?;
        if let Some(size) = self.inflated {
            write!(f, ", message inflated to {}", Count(size as u64, "byte"))?;
        }
        write!(f, ", {}", Quoted(&self.payload))
    }
}

impl Frames {
    pub fn add(&mut self, frame: Frame) {
        if self.frames.len() < MAX_FRAMES {
            self.frames.push(frame);
        } else {
            self.more += 1;
        }
    }

    pub fn append(&mut self, other: &mut Frames) {
        other.frames.drain(..).for_each(|frame| self.add(frame));
        self.more += mem::take(&mut other.more);
    }

    pub fn iter(&self) -> impl Iterator<Item = &Frame> {
        self.frames.iter()
    }

    /// Records the inflated size of the message that begins with the first data frame.
    pub fn set_inflated(&mut self, size: usize) {
        if let Some(frame) = self.frames.iter_mut().find(|frame| !frame.is_control()) {
            frame.inflated = Some(size);
        }
    }

    /// As a JSON object in one line, with times since `opened`.
    pub fn json(&self, opened: Duration) -> String {
        let frames: Vec<_> = self.frames.iter().map(|frame| frame.json(opened)).collect();
        let more = match self.more {
            0 => String::new(),
            more => format!(",\"more\":{more}"),
        };
        format!("{{\"wsecho\":\"trace\",\"frames\":[{}]{more}}}", frames.join(","))
    }
}

impl Extend<Frame> for Frames {
    fn extend<I: IntoIterator<Item = Frame>>(&mut self, frames: I) {
        frames.into_iter().for_each(|frame| self.add(frame));
    }
}

impl Default for Inbound {
    fn default() -> Self {
        Inbound { reader: Reader::new(Side::Client), waiting: VecDeque::new(), more: 0 }
    }
}

impl Inbound {
    /// Decodes `bytes`, still masked, which were received at `at`.
    pub fn received(&mut self, bytes: &[u8], at: Duration) {
        self.reader.read(bytes, at, &mut self.waiting);
    }

    /// The frames of the next event.
    pub fn take(&mut self, event: &Event) -> Frames {
        let mut frames = Frames::default();
        match event {
            Event::Ping(_) | Event::Pong(_) => {
                let control = self.waiting.iter().position(Frame::is_control);
                frames.extend(control.and_then(|at| self.waiting.remove(at)));
            }
            // The peer's close frame, or its mistake.
            Event::Close => {
                frames.extend(self.waiting.drain(..));
                frames.extend(self.reader.end());
                frames.more += mem::take(&mut self.more);
            }
            Event::InInput(..) | Event::Assembled(_) | Event::Inflated(..) => {
                let is_last = |frame: &Frame| frame.is_final() && !frame.is_control();
                let last = self.waiting.iter().position(is_last);
                let last = last.map_or(self.waiting.len(), |last| last + 1);
                frames.extend(self.waiting.drain(..last));
                frames.more += mem::take(&mut self.more);
                if let Event::Inflated(_, inflated) = event {
                    frames.set_inflated(inflated.message().len());
                }
            }
        }
        frames
    }

    /// Limits the kept frames of the unfinished message. Call it when no event is left.
    pub fn trim(&mut self) {
        let more = self.waiting.len().saturating_sub(MAX_FRAMES);
        self.waiting.truncate(MAX_FRAMES);
        self.more += more as u64;
    }
}

/// Displays bytes as hexadecimal digits.
struct Hex<'b>(&'b [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
