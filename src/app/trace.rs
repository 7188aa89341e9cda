//! Frames as they pass, in either direction. They are decoded independently of the session, so that
//! invalid ones are included.

use std::collections::VecDeque;
use std::fmt;
use std::iter;
use std::mem;
use std::time::Duration;

use log::trace;

use crate::escape::Quoted;
use crate::quantity::Count;
use crate::websocket::close::CloseFrame;
use crate::websocket::frame::{self, FIN, RSV1};
use crate::websocket::session::{Close, Event, Session};

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
    /// The time at which the last byte of its header passed.
    at: Duration,
    header: Vec<u8>,
    /// The bytes of the payload that have passed.
    passed: u64,
    /// The start of the payload, unmasked.
    payload: Vec<u8>,
    /// The inflated size of the message that begins with it, if the message is compressed.
    inflated: Option<usize>,
    /// The close frame that names its mistake.
    mistake: Option<CloseFrame>,
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
    /// The frame that is not complete.
    open: Option<Frame>,
    /// The inflated sizes of the compressed messages that come next.
    inflated: VecDeque<usize>,
}

/// The frames of a client, grouped by the events of its session.
pub struct Inbound {
    reader: Reader,
    /// Bytes of which the first `decoded` were decoded.
    received: Vec<u8>,
    decoded: usize,
    /// The frames of the unfinished message, or those that are skipped.
    waiting: Frames,
}

impl Reader {
    pub fn new(side: Side) -> Self {
        Reader { side, open: None, inflated: VecDeque::new() }
    }

    /// Announces a compressed message, after those that were announced before, with its inflated size.
    pub fn expect(&mut self, inflated: usize) {
        self.inflated.push_back(inflated);
    }

    /// Decodes `bytes`, which passed at `at`, as far as the iterator is advanced.
    pub fn read(&mut self, mut bytes: &[u8], at: Duration) -> impl Iterator<Item = Frame> {
        iter::from_fn(move || self.read_frame(&mut bytes, at))
    }

    /// Decodes the front of `bytes` until a frame is complete.
    fn read_frame(&mut self, bytes: &mut &[u8], at: Duration) -> Option<Frame> {
        if bytes.is_empty() {
            return None;
        }
        let frame = self.open.get_or_insert_with(|| Frame::new(self.side));
        while !frame.has_header() {
            let (&byte, rest) = bytes.split_first()?;
            *bytes = rest;
            frame.header.push(byte);
            frame.at = at;
            if frame.has_header() && frame.first() & RSV1 != 0 && !frame.is_control() {
                frame.inflated = self.inflated.pop_front();
            }
        }
        let left = frame.length().unwrap_or_default() - frame.passed;
        let left = usize::try_from(left).unwrap_or(usize::MAX);
        let (payload, rest) = bytes.split_at(left.min(bytes.len()));
        let room = MAX_PAYLOAD.saturating_sub(frame.payload.len());
        let masking_key = frame.masking_key().unwrap_or_default();
        let keys = masking_key.iter().cycle().skip(frame.payload.len() % 4);
        let shown = payload.iter().take(room).zip(keys).map(|(byte, key)| byte ^ key);
        frame.payload.extend(shown);
        frame.passed += payload.len() as u64;
        *bytes = rest;
        self.open.take_if(|frame| frame.length() == Some(frame.passed))
    }

    /// Takes the incomplete frame. No more of it follows.
    pub fn end(&mut self) -> Option<Frame> {
        self.open.take()
    }
}

/// The name of the opcode in this first byte, unless it is reserved (§5.2).
pub fn opcode_name(first: u8) -> Option<&'static str> {
    Some(match first & 0x0F {
        0x0 => "continuation",
        0x1 => "text",
        0x2 => "binary",
        0x8 => "close",
        0x9 => "ping",
        0xA => "pong",
        _ => return None,
    })
}

/// The size in bytes of a header with this second byte.
fn header_len(second: u8) -> usize {
    2 + length_len(second) + if second & 0x80 == 0 { 0 } else { 4 }
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
    fn new(side: Side) -> Self {
        Frame {
            side,
            at: Duration::ZERO,
            header: Vec::new(),
            passed: 0,
            payload: Vec::new(),
            inflated: None,
            mistake: None,
        }
    }

    fn has_header(&self) -> bool {
        self.header.get(1).is_some_and(|second| self.header.len() == header_len(*second))
    }

    fn first(&self) -> u8 {
        self.header.first().copied().unwrap_or_default()
    }

    /// The length of the payload, if the header reaches so far.
    fn length(&self) -> Option<u64> {
        let second = *self.header.get(1)?;
        Some(match self.header.get(2..2 + length_len(second))? {
            [] => u64::from(second & 0x7F),
            extended => extended.iter().fold(0, |len, byte| len << 8 | u64::from(*byte)),
        })
    }

    /// Keeps of a header that no session accepts only the bytes up to its mistake, and nothing of the
    /// payload, however much of it arrived together.
    fn cut_header(&mut self) {
        let is_wrong = |len: &usize| frame::decode(&self.header[..*len]).is_err();
        let wrong = (2..=self.header.len()).find(is_wrong);
        self.header.truncate(wrong.unwrap_or(self.header.len()));
        self.payload.clear();
    }

    fn is_control(&self) -> bool {
        self.first() & 0x08 != 0
    }

    fn is_final(&self) -> bool {
        self.first() & FIN != 0
    }

    fn masking_key(&self) -> Option<[u8; 4]> {
        let is_masked = self.header.get(1)? & 0x80 != 0;
        self.header.last_chunk().copied().filter(|_| is_masked && self.has_header())
    }

    fn name(&self) -> &'static str {
        opcode_name(self.first()).unwrap_or("reserved")
    }

    /// Logs it as one of `client`.
    pub fn log(&self, client: u64) {
        trace!("client {client}: {self}");
    }

    /// As JSON, with the time since `opened`.
    fn json(&self, opened: Duration) -> String {
        let from = match self.side {
            Side::Client => "client",
            Side::Server => "server",
        };
        let null = || "null".into();
        let mask = self.masking_key().map_or_else(null, |key| format!("\"{}\"", Hex(&key)));
        let length = self.length().map_or_else(null, |length| length.to_string());
        let inflated = self.inflated.map_or(String::new(), |size| format!(",\"inflated\":{size}"));
        format!(
            "{{\"from\":\"{from}\",\"at\":{:.6},\"fin\":{},\"rsv\":{},\"opcode\":{},\"name\":\"{}\",\
             \"mask\":{mask},\"length\":{length},\"header\":\"{}\"{inflated},\"bytes\":\"{}\"}}",
            self.at.saturating_sub(opened).as_secs_f64(),
            self.is_final(),
            self.first() >> 4 & 0x07,
            self.first() & 0x0F,
            self.name(),
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
        if let Some(length) = self.length() {
            write!(f, ", {}", Count(length, "byte"))?;
        }
        write!(f, ", header {}", Hex(&self.header))?;
        if let Some(size) = self.inflated {
            write!(f, ", message inflated to {}", Count(size as u64, "byte"))?;
        }
        write!(f, ", {}", Quoted(&self.payload))?;
        self.mistake.iter().try_for_each(|close| write!(f, ", breaks a rule, {close}"))
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

    /// Logs each frame of `client`.
    pub fn log(&self, client: u64) {
        self.frames.iter().for_each(|frame| frame.log(client));
        if self.more > 0 {
            trace!("client {client}: received {}", Count(self.more, "more frame"));
        }
    }

    /// About the bytes of memory that they take.
    pub fn memory(&self) -> usize {
        let buffers = |frame: &Frame| frame.header.len() + frame.payload.len();
        self.frames.iter().map(|frame| size_of::<Frame>() + buffers(frame)).sum()
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
        let (reader, waiting) = (Reader::new(Side::Client), Frames::default());
        Inbound { reader, received: Vec::new(), decoded: 0, waiting }
    }
}

impl Inbound {
    /// Keeps `bytes`, still masked, which the session has yet to process. They are not decoded before:
    /// a frame takes more memory than its bytes.
    pub fn received(&mut self, bytes: &[u8]) {
        self.received.drain(..mem::take(&mut self.decoded));
        self.received.extend_from_slice(bytes);
    }

    /// Decodes everything that was received, and then `more`. Call it when no event is left.
    pub fn catch_up(&mut self, mut more: &[u8], now: Duration) {
        while let Some(frame) = self.next_frame(now) {
            self.add(frame);
        }
        (self.received, self.decoded) = (Vec::new(), 0);
        while let Some(frame) = self.reader.read_frame(&mut more, now) {
            self.add(frame);
        }
    }

    fn add(&mut self, frame: Frame) {
        let Frames { frames, more } = &mut self.waiting;
        // One more that ends a message, or is its own. Many such frames wait only if they are skipped.
        let is_last = frame.is_control() || frame.is_final();
        if frames.len() < MAX_FRAMES || is_last && frames.len() == MAX_FRAMES {
            frames.push(frame);
        } else {
            *more += 1;
        }
    }

    /// Decodes the frame that is next.
    fn next_frame(&mut self, now: Duration) -> Option<Frame> {
        let mut rest = &self.received[self.decoded..];
        let frame = self.reader.read_frame(&mut rest, now);
        self.decoded = self.received.len() - rest.len();
        frame
    }

    /// The frames of the next event of `session`, which has not processed the last `unread` bytes.
    pub fn take(
        &mut self,
        event: &Event,
        session: &Session,
        unread: usize,
        now: Duration,
    ) -> Frames {
        match event {
            Event::Ping(_) | Event::Pong(_) => {
                let mut frames = Frames::default();
                // Fragments of a message may precede it.
                while let Some(frame) = self.next_frame(now) {
                    if frame.is_control() {
                        frames.add(frame);
                        break;
                    }
                    self.add(frame);
                }
                frames
            }
            Event::Close => self.take_last(session, unread, now),
            Event::InInput(..) | Event::Assembled(_) | Event::Inflated(..) => {
                while !self.waiting.frames.last().is_some_and(Frame::is_final)
                    && let Some(frame) = self.next_frame(now)
                {
                    self.add(frame);
                }
                let mut frames = self.take_waiting();
                if let Event::Inflated(_, inflated) = event {
                    frames.set_inflated(inflated.message().len());
                }
                frames
            }
        }
    }

    /// The frames up to the peer's close frame or mistake, the same in every split of its bytes: nothing
    /// that follows, and of the wrong frame nothing after the mistake.
    fn take_last(&mut self, session: &Session, unread: usize, now: Duration) -> Frames {
        let following = self.received.split_off(self.received.len().saturating_sub(unread));
        self.catch_up(b"", now);
        self.received = following;
        if let Some(Close::ByServer(close, _)) = session.closed() {
            let is_invalid = close.code == Some(1007);
            // A close frame, or the end of a message that can't be inflated or is not UTF-8.
            let ends = self.waiting.frames.last().is_some_and(Frame::is_final);
            if !ends && self.reader.open.as_ref().is_some_and(Frame::has_header) {
                self.waiting.frames.extend(self.reader.open.clone());
            } else if !ends && !is_invalid {
                let mut wrong = self.next_frame(now).or_else(|| self.reader.open.clone());
                wrong.iter_mut().for_each(Frame::cut_header);
                self.waiting.frames.extend(wrong);
            }
            let Frames { frames, more } = &mut self.waiting;
            if is_invalid && frames.first().is_some_and(|frame| frame.first() & RSV1 == 0) {
                cut_invalid_text(frames, session.valid_len());
            }
            // Otherwise the wrong frame was not kept.
            if *more == 0
                && let Some(wrong) = frames.last_mut()
            {
                wrong.mistake = Some(close.clone());
            }
        }
        self.take_waiting()
    }

    /// Takes the frames of the unfinished message, or those that are skipped.
    pub fn take_waiting(&mut self) -> Frames {
        self.trim();
        mem::take(&mut self.waiting)
    }

    /// Limits the frames that the session skips once it is closed.
    pub fn trim(&mut self) {
        let Frames { frames, more } = &mut self.waiting;
        *more += frames.len().saturating_sub(MAX_FRAMES) as u64;
        frames.truncate(MAX_FRAMES);
    }
}

/// Ends the last of a text's frames after the first byte that is not UTF-8. The text is valid up to
/// `valid_len`.
fn cut_invalid_text(frames: &mut [Frame], valid_len: usize) {
    let Some((last, before)) = frames.split_last_mut().filter(|(last, _)| !last.is_control())
    else {
        return;
    };
    let before: u64 = before.iter().map(|frame| frame.passed).sum();
    let len = (valid_len as u64 + 1).saturating_sub(before);
    last.payload.truncate(usize::try_from(len).unwrap_or(usize::MAX));
}

/// Displays bytes as hexadecimal digits.
pub struct Hex<'b>(pub &'b [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_of_many_skipped_frames_are_kept_in_memory() {
        let mut inbound = Inbound::default();
        inbound.received(&[0x8A, 0x80, 0, 0, 0, 0].repeat(1000));
        inbound.catch_up(b"", Duration::ZERO);
        assert_eq!((inbound.waiting.frames.len(), inbound.waiting.more), (MAX_FRAMES + 1, 935));
        inbound.trim();
        assert_eq!((inbound.waiting.frames.len(), inbound.waiting.more), (MAX_FRAMES, 936));
    }
}
