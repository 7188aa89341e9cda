//! With compression agreed, whatever a client compresses comes back, at every split of its bytes and as far
//! as memory allows, and what is corrupt does no harm.

#![no_main]

use libfuzzer_sys::arbitrary::{Arbitrary, Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use miniz_oxide::MZFlush;
use wsecho::websocket::close::OVER_BUDGET;
use wsecho::websocket::negotiation::Parameters;
use wsecho_fuzz::client::{Splits, binary, rarely, text};
use wsecho_fuzz::deflate::{Compressor, RSV1, TAIL, inflated_messages, parameters};
use wsecho_fuzz::driver::{Closed, Driver, service};
use wsecho_fuzz::frames::masked_frame;

const PREFIX: &str = "> ";

/// More than all messages that one input can have.
const AMPLE: usize = 1 << 30;

fuzz_target!(|input: Input| {
    let [ample, other] = input
        .splits
        .each_ref()
        .map(|splits| converse(&input, AMPLE, splits).expect("there is memory for what is agreed"));
    assert_eq!(ample.closed, other.closed);
    // Not by assert_eq, which would print all of both.
    assert!(ample.output == other.output, "the output depends on the splits");

    let replies = replies(&ample.output, input.parameters);
    for (number, (reply, expected)) in replies.iter().zip(&input.expected).enumerate() {
        assert!(reply == expected, "reply {number} is wrong");
    }
    match input.end {
        End::Open => {
            assert_eq!(ample.closed, None);
            assert_eq!(replies.len(), input.expected.len());
        }
        End::Refused(code) => {
            let Some(Closed::ByServer(close)) = &ample.closed else { panic!("it is not refused") };
            assert_eq!(close[..2], code.to_be_bytes());
            assert_eq!(replies.len(), input.expected.len());
        }
        End::Corrupt => assert!(replies.len() >= input.expected.len()),
    }

    let Some(short) = converse(&input, input.max_buffered, &input.splits[0]) else { return };
    let same = self::replies(&short.output, input.parameters);
    assert!(replies.starts_with(&same), "a reply that ample memory has not");
    if short.closed != Some(Closed::by_server(OVER_BUDGET)) {
        assert_eq!(short.closed, ample.closed);
        assert_eq!(same.len(), replies.len());
    }
});

/// What a server sent, and how it ended.
struct Ended {
    output: Vec<u8>,
    closed: Option<Closed>,
}

/// `None` if there is no memory for what was to be agreed.
fn converse(input: &Input, max_buffered: usize, splits: &Splits) -> Option<Ended> {
    let mut service = service(input.max_message_size, max_buffered);
    service.settings.prefix = PREFIX.into();
    let offer = format!("Sec-WebSocket-Extensions: {}\r\n", input.parameters);
    let mut driver = Driver::asking(&service, "/", &offer);
    if !driver.forget_response().contains(&offer) {
        return None;
    }
    splits.receive(&input.bytes, &mut driver);
    let closed = driver.closed();
    let output = driver.take();
    drop(driver);
    assert_eq!(service.budget.left(), max_buffered, "memory is not given back");
    Some(Ended { output, closed })
}

/// The messages of the server, inflated, each after its opcode. One that does not get shorter, or for which
/// there is no memory, is sent as it is.
fn replies(output: &[u8], parameters: Parameters) -> Vec<(u8, Vec<u8>)> {
    let messages = inflated_messages(output, Some(parameters)).into_iter();
    let messages = messages.map(|(first, payload)| (first & !RSV1, payload));
    messages.filter(|(opcode, _)| matches!(opcode, 0x1 | 0x2)).collect()
}

/// What a client sends, and what has to become of it.
#[derive(Debug)]
struct Input {
    parameters: Parameters,
    max_message_size: usize,
    max_buffered: usize,
    splits: [Splits; 2],
    bytes: Vec<u8>,
    /// The replies until the end is reached, as [`replies`] has them.
    expected: Vec<(u8, Vec<u8>)>,
    end: End,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Open,
    Refused(u16),
    /// Anything may follow.
    Corrupt,
}

impl<'a> Arbitrary<'a> for Input {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        /// About the most bytes, so that a round stays short.
        const MAX_LEN: usize = 400_000;

        let mut input = Input {
            parameters: parameters(u)?,
            max_message_size: *u.choose(&[350_000, 70_000, 4096, 300])?,
            max_buffered: u.int_in_range(0..=1_500_000)?,
            splits: u.arbitrary()?,
            bytes: Vec::new(),
            expected: Vec::new(),
            end: End::Open,
        };
        let mut client = Client::arbitrary(u)?;
        let mut total = 0;
        while !u.is_empty() && total < MAX_LEN {
            total += input.message(u, &mut client)?;
        }
        Ok(input)
    }
}

impl Input {
    /// Appends a message in up to four frames. Returns its length in bytes.
    fn message(&mut self, u: &mut Unstructured, client: &mut Client) -> Result<usize> {
        let (opcode, message) = match u.arbitrary()? {
            true => (0x1, text(u)?),
            false => (0x2, binary(u)?),
        };
        let is_compressed = u.int_in_range(0..=7)? > 0;
        let (mut first, mut payload) = match is_compressed {
            true => (opcode | RSV1, client.message(u, self.parameters, &message)?),
            false => (opcode, message.clone()),
        };
        let is_corrupt = is_compressed && rarely(u)?;
        if is_corrupt {
            corrupt(u, &mut payload)?;
        }
        if self.end == End::Open {
            let is_utf8 = opcode == 0x2 || str::from_utf8(&message).is_ok();
            let is_too_big = message.len() > self.max_message_size;
            // What compression makes longer than its message may be over the limit on its own.
            let may_be_too_big = payload.len() > self.max_message_size;
            self.end = match (is_utf8, is_too_big) {
                _ if is_corrupt => End::Corrupt,
                (true, true) => End::Refused(1009),
                _ if may_be_too_big => End::Corrupt,
                (false, false) => End::Refused(1007),
                // Which of two errors comes first is another matter.
                (false, true) => End::Corrupt,
                (true, false) => End::Open,
            };
            if self.end == End::Open {
                let prefix = if opcode == 0x1 { PREFIX } else { "" };
                self.expected.push((opcode, [prefix.as_bytes(), &message].concat()));
            }
        }
        let mut rest = &payload[..];
        for _ in 0..u.int_in_range(0..=3)? {
            let (fragment, tail) = rest.split_at(u.int_in_range(0..=rest.len())?);
            self.bytes.extend(masked_frame(first, fragment, u.arbitrary()?));
            if rarely(u)? {
                self.bytes.extend(masked_frame(0x89, b"?", u.arbitrary()?));
            }
            (first, rest) = (0x0, tail);
        }
        self.bytes.extend(masked_frame(0x80 | first, rest, u.arbitrary()?));
        Ok(message.len())
    }
}

/// Changes, removes or appends bytes.
fn corrupt(u: &mut Unstructured, payload: &mut Vec<u8>) -> Result<()> {
    match u.int_in_range(0..=2)? {
        0 => {
            let at = u.choose_index(payload.len())?;
            payload[at] = u.arbitrary()?;
        }
        1 => payload.truncate(u.int_in_range(0..=payload.len())?),
        _ => payload.extend_from_slice(u.arbitrary()?),
    }
    Ok(())
}

/// What a client compresses its messages with.
struct Client(Compressor);

impl Client {
    /// Of any level, where 0 makes stored blocks, and any strategy, among them fixed codes.
    fn arbitrary(u: &mut Unstructured) -> Result<Self> {
        Ok(Client(Compressor::with_strategy(u.int_in_range(0..=10)?, u.int_in_range(0..=4)?)))
    }

    /// The payload of one more message, in streams and blocks that are flushed anywhere.
    fn message(
        &mut self,
        u: &mut Unstructured,
        parameters: Parameters,
        message: &[u8],
    ) -> Result<Vec<u8>> {
        if parameters.client_no_context_takeover || rarely(u)? {
            *self = Client::arbitrary(u)?;
        }
        let mut payload = Vec::new();
        let mut rest = message;
        let mut is_ended = true;
        for _ in 0..u.int_in_range(0..=3)? {
            let (block, tail) = rest.split_at(u.int_in_range(0..=rest.len())?);
            rest = tail;
            is_ended &= block.is_empty();
            match u.int_in_range(0..=3)? {
                0 => {
                    self.0.append(block, MZFlush::Finish, &mut payload);
                    *self = Client::arbitrary(u)?;
                    is_ended = true;
                }
                1 => self.0.append(block, MZFlush::Full, &mut payload),
                _ => self.0.append(block, MZFlush::Sync, &mut payload),
            }
        }
        if !rest.is_empty() && rarely(u)? {
            // §7.2.3.4: the message may end with its final block, with or without an empty one behind it.
            self.0.append(rest, MZFlush::Finish, &mut payload);
            *self = Client::arbitrary(u)?;
            if u.arbitrary()? {
                payload.push(0x00);
            }
            return Ok(payload);
        }
        self.0.append(rest, MZFlush::Sync, &mut payload);
        if is_ended && rest.is_empty() {
            // All before ended with its final block, or there was nothing: an empty block follows.
            payload.push(0x00);
        } else {
            assert!(payload.ends_with(&TAIL));
            payload.truncate(payload.len() - TAIL.len());
        }
        Ok(payload)
    }
}
