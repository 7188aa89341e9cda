//! Frames as they pass, in either direction. They are decoded independently of the session, so that
//! invalid ones are included.

use std::collections::VecDeque;
use std::fmt;
use std::mem;
use std::time::Duration;

use log::trace;

use crate::escape::Quoted;
use crate::quantity::Count;
use crate::websocket::close::CloseFrame;
use crate::websocket::frame::{self, FIN, Opcode, RSV1};
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
    /// The time at which its header was complete.
    at: Duration,
    header: Vec<u8>,
    /// 0 while the header lacks the length.
    payload_len: u64,
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
    header: Vec<u8>,
    /// The frame whose payload is not complete.
    open: Option<Frame>,
    /// The inflated sizes of the compressed messages that come next.
    inflated: VecDeque<usize>,
    now: Duration,
}

/// The frames of a client, grouped by the events of its session.
pub struct Inbound {
    reader: Reader,
    /// The bytes that are not decoded yet.
    unread: Vec<u8>,
    /// The frames of the unfinished message, or those that are skipped.
    waiting: Vec<Frame>,
    /// The number of further frames of the unfinished message, which were not kept.
    more: u64,
}

impl Reader {
    pub fn new(side: Side) -> Self {
        let (inflated, now) = (VecDeque::new(), Duration::ZERO);
        Reader { side, header: Vec::new(), open: None, inflated, now }
    }

    /// Announces a compressed message, after those that were announced before, with its inflated size.
    pub fn expect(&mut self, inflated: usize) {
        self.inflated.push_back(inflated);
    }

    /// Decodes `bytes`, which passed at `at`, and adds each completed frame to `frames`.
    pub fn read(&mut self, mut bytes: &[u8], at: Duration, frames: &mut impl Extend<Frame>) {
        while let Some(frame) = self.read_frame(&mut bytes, at) {
            frames.extend([frame]);
        }
    }

    /// Decodes the front of `bytes` until a frame is complete.
    fn read_frame(&mut self, bytes: &mut &[u8], at: Duration) -> Option<Frame> {
        self.now = at;
        while self.open.is_none() {
            let (&first, rest) = bytes.split_first()?;
            *bytes = rest;
            self.header.push(first);
            self.begin();
        }
        let frame = self.open.as_mut()?;
        let left = usize::try_from(frame.payload_len - frame.passed).unwrap_or(usize::MAX);
        let (payload, rest) = bytes.split_at(left.min(bytes.len()));
        let room = MAX_PAYLOAD.saturating_sub(frame.payload.len());
        let masking_key = frame.masking_key().unwrap_or_default();
        let keys = masking_key.iter().cycle().skip(frame.payload.len() % 4);
        let shown = payload.iter().take(room).zip(keys).map(|(byte, key)| byte ^ key);
        frame.payload.extend(shown);
        frame.passed += payload.len() as u64;
        *bytes = rest;
        self.open.take_if(|frame| frame.payload_len == frame.passed)
    }

    /// Takes the incomplete frame. No more of it follows.
    pub fn end(&mut self) -> Option<Frame> {
        let frame = self.incomplete();
        (self.header, self.open) = (Vec::new(), None);
        frame
    }

    /// The frame that is not complete.
    fn incomplete(&self) -> Option<Frame> {
        let in_header = || Frame::new(self.side, self.now, self.header.clone());
        self.open.clone().or_else(|| (!self.header.is_empty()).then(in_header))
    }

    /// Begins a frame, if its header is complete.
    fn begin(&mut self) {
        let &[first, second, ..] = &self.header[..] else { return };
        if self.header.len() == header_len(second) {
            let mut frame = Frame::new(self.side, self.now, mem::take(&mut self.header));
            if first & RSV1 != 0 && !frame.is_control() {
                frame.inflated = self.inflated.pop_front();
            }
            self.open = Some(frame);
        }
    }
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
    fn new(side: Side, at: Duration, header: Vec<u8>) -> Self {
        let mut frame = Frame {
            side,
            at,
            header,
            payload_len: 0,
            passed: 0,
            payload: Vec::new(),
            inflated: None,
            mistake: None,
        };
        frame.payload_len = frame.length().unwrap_or_default();
        frame
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
        let second = *self.header.get(1)?;
        let is_whole = second & 0x80 != 0 && self.header.len() == header_len(second);
        self.header.last_chunk().copied().filter(|_| is_whole)
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
        for frame in &self.frames {
            frame.log(client);
        }
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
        let reader = Reader::new(Side::Client);
        Inbound { reader, unread: Vec::new(), waiting: Vec::new(), more: 0 }
    }
}

impl Inbound {
    /// Keeps `bytes`, still masked, which the session has yet to process. They are not decoded before:
    /// a frame takes more memory than its bytes.
    pub fn received(&mut self, bytes: &[u8]) {
        self.unread.extend_from_slice(bytes);
    }

    /// Decodes everything that was received, and then `more`. Call it when no event is left.
    pub fn catch_up(&mut self, more: &[u8], now: Duration) {
        let unread = mem::take(&mut self.unread);
        for mut bytes in [&unread[..], more] {
            while let Some(frame) = self.reader.read_frame(&mut bytes, now) {
                self.add(frame);
            }
        }
    }

    fn add(&mut self, frame: Frame) {
        if self.waiting.len() < MAX_FRAMES || frame.is_control() || frame.is_final() {
            self.waiting.push(frame);
        } else {
            self.more += 1;
        }
    }

    /// Decodes the frame that is next.
    fn next_frame(&mut self, now: Duration) -> Option<Frame> {
        let mut unread = &self.unread[..];
        let frame = self.reader.read_frame(&mut unread, now);
        let left = unread.len();
        self.unread.drain(..self.unread.len() - left);
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
        let mut frames = Frames::default();
        match event {
            Event::Ping(_) | Event::Pong(_) => {
                // Fragments of a message may precede it.
                while let Some(frame) = self.next_frame(now) {
                    if frame.is_control() {
                        frames.add(frame);
                        break;
                    }
                    self.add(frame);
                }
                return frames;
            }
            Event::Close => frames.extend(self.take_last(session, unread, now)),
            Event::InInput(..) | Event::Assembled(_) | Event::Inflated(..) => {
                while !self.waiting.last().is_some_and(Frame::is_final)
                    && let Some(frame) = self.next_frame(now)
                {
                    self.add(frame);
                }
                frames.extend(self.waiting.drain(..));
                if let Event::Inflated(_, inflated) = event {
                    frames.set_inflated(inflated.message().len());
                }
            }
        }
        frames.more += mem::take(&mut self.more);
        frames
    }

    /// The frames up to the peer's close frame or mistake, the same in every split of its bytes: nothing
    /// that follows, and of the wrong frame nothing after the mistake.
    fn take_last(&mut self, session: &Session, unread: usize, now: Duration) -> Vec<Frame> {
        let following = self.unread.split_off(self.unread.len().saturating_sub(unread));
        self.catch_up(b"", now);
        self.unread = following;
        let mut frames = mem::take(&mut self.waiting);
        let Some(Close::ByServer(close, _)) = session.closed() else { return frames };
        let is_invalid = close.code == Some(1007);
        // A close frame, or the end of a message that can't be inflated or is not UTF-8.
        let ends = frames.last().is_some_and(|frame| frame.is_control() || frame.is_final());
        if !ends && self.reader.open.is_some() {
            frames.extend(self.reader.incomplete());
        } else if !ends && !is_invalid {
            let mut wrong = self.next_frame(now).or_else(|| self.reader.incomplete());
            wrong.iter_mut().for_each(Frame::cut_header);
            frames.extend(wrong);
        }
        if is_invalid && frames.first().is_some_and(|frame| frame.first() & RSV1 == 0) {
            cut_invalid_text(&mut frames, session.valid_len());
        }
        // Otherwise the wrong frame was not kept.
        if self.more == 0
            && let Some(wrong) = frames.last_mut()
        {
            wrong.mistake = Some(close.clone());
        }
        frames
    }

    /// Takes the frames that the session skips once it is closed.
    pub fn skipped(&mut self) -> Frames {
        let mut frames = Frames::default();
        frames.extend(self.waiting.drain(..));
        frames.more = mem::take(&mut self.more);
        frames
    }

    /// Limits the frames that the session skips once it is closed.
    pub fn trim(&mut self) {
        let more = self.waiting.len().saturating_sub(MAX_FRAMES);
        self.waiting.truncate(MAX_FRAMES);
        self.more += more as u64;
    }
}

/// Ends the last of a text's frames after the first byte that is not UTF-8. The text is valid up to
/// `valid_len`.
fn cut_invalid_text(frames: &mut [Frame], valid_len: usize) {
    let Some((last, before)) = frames.split_last_mut().filter(|(last, _)| !last.is_control())
    else {
        return;
    };
    let before: u64 = before.iter().map(|frame| frame.payload_len).sum();
    let len = (valid_len as u64 + 1).saturating_sub(before);
    last.payload.truncate(usize::try_from(len).unwrap_or(usize::MAX));
}

/// Displays bytes as hexadecimal digits.
struct Hex<'b>(&'b [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
