//! Random messages come back exactly, however they are split; random bytes lead to nothing but
//! well-formed replies.

use std::iter;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use crate::driver::{Driver, service};
use crate::frames::{Random, masked_frame, server_frame};
use crate::support::read_frame;

/// A message, where it is split into fragments, and the pings before some of them.
#[derive(Clone, Debug)]
struct Message {
    is_text: bool,
    len: usize,
    seed: u64,
    splits: Vec<Index>,
    pings: Vec<Option<Vec<u8>>>,
    masking_key: [u8; 4],
}

impl Message {
    /// The client's frames, and the server's frames that answer them.
    fn frames(&self) -> (Vec<u8>, Vec<u8>) {
        let mut random = Random(self.seed);
        let (opcode, payload) = match self.is_text {
            true => (0x1, random.text(self.len).into_bytes()),
            false => (0x2, random.bytes(self.len)),
        };
        let mut ends: Vec<_> = self.splits.iter().map(|split| split.index(self.len + 1)).collect();
        ends.sort_unstable();
        ends.push(self.len);
        let pings = self.pings.iter().chain(iter::repeat(&None));

        let (mut input, mut output) = (Vec::new(), Vec::new());
        let mut start = 0;
        for (number, (&end, ping)) in ends.iter().zip(pings).enumerate() {
            if let Some(ping) = ping {
                input.extend(masked_frame(0x89, ping, self.masking_key));
                output.extend(server_frame(0x8A, ping));
            }
            let opcode = if number == 0 { opcode } else { 0x0 };
            let fin = if number + 1 == ends.len() { 0x80 } else { 0x00 };
            input.extend(masked_frame(fin | opcode, &payload[start..end], self.masking_key));
            start = end;
        }
        output.extend(server_frame(0x80 | opcode, &payload));
        (input, output)
    }
}

fn message(len: impl Strategy<Value = usize>) -> impl Strategy<Value = Message> {
    let pings = vec(option::of(vec(any::<u8>(), 0..=125)), 0..6);
    (any::<bool>(), len, any::<u64>(), vec(any::<Index>(), 0..6), pings, any::<[u8; 4]>()).prop_map(
        |(is_text, len, seed, splits, pings, masking_key)| Message {
            is_text,
            len,
            seed,
            splits,
            pings,
            masking_key,
        },
    )
}

/// Lengths around those from which a header takes more bytes, and between them.
fn any_len() -> impl Strategy<Value = usize> {
    prop_oneof![0..130_usize, 130..3_000_usize, 65_530..65_542_usize, 3_000..200_000_usize]
}

/// The lengths of the pieces in which bytes come, over and over.
fn pieces() -> impl Strategy<Value = Vec<usize>> {
    vec(prop_oneof![1..4_usize, 1..200_usize, 1..100_000_usize], 1..8)
}

/// What is sent when `bytes` come in pieces of these lengths, and how it ends.
fn converse(max_message_size: usize, bytes: &[u8], pieces: &[usize]) -> (Vec<u8>, Option<String>) {
    let service = service(max_message_size, max_message_size);
    let mut driver = Driver::open(&service);
    driver.receive_in_pieces(bytes, pieces);
    let end = driver.end().and_then(|end| end.split("; ").next()).map(Into::into);
    (driver.take(), end)
}

fn cases(cases: u32) -> ProptestConfig {
    // A failure prints what it takes to repeat it. No file is needed for it.
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

/// Fails unless every message is answered, in order, and the conversation stays open.
fn check(messages: &[Message], pieces: &[usize]) -> Result<(), TestCaseError> {
    let (bytes, expected): (Vec<_>, Vec<_>) = messages.iter().map(Message::frames).unzip();
    let (output, closed) = converse(1 << 20, &bytes.concat(), pieces);
    // Not by prop_assert_eq, which prints all of both.
    prop_assert!(output == expected.concat(), "the output differs");
    prop_assert_eq!(closed, None);
    Ok(())
}

proptest! {
    #![proptest_config(cases(300))]

    #[test]
    fn many_short_messages_come_back_exactly_and_in_order(
        messages in vec(message(0..300_usize), 0..12),
        pieces in pieces(),
    ) {
        check(&messages, &pieces)?;
    }
}

proptest! {
    #![proptest_config(cases(60))]

    #[test]
    fn messages_of_every_size_come_back_exactly_and_in_order(
        messages in vec(message(any_len()), 1..4),
        pieces in pieces(),
    ) {
        check(&messages, &pieces)?;
    }
}

/// Frames that may break any rule, and bytes that are no frames.
fn anything() -> impl Strategy<Value = Vec<u8>> {
    let payload = prop_oneof![
        vec(any::<u8>(), 0..10),
        vec(any::<u8>(), 0..200),
        "\\PC{0,20}".prop_map(String::into_bytes),
        (0..5_000_u16).prop_map(|code| code.to_be_bytes().into()),
    ];
    let usual = select(vec![0x01, 0x02, 0x00, 0x80, 0x81, 0x82, 0x89, 0x88]);
    let first = prop_oneof![4 => usual, 1 => any::<u8>()];
    let frame = (first, payload, any::<[u8; 4]>())
        .prop_map(|(first, payload, key)| masked_frame(first, &payload, key));
    prop_oneof![12 => frame, 1 => vec(any::<u8>(), 0..20)]
}

/// Fails unless these are whole frames that a server may send, and nothing after Close. Tells whether
/// Close is among them.
fn ends_in_close(output: &[u8]) -> Result<bool, TestCaseError> {
    let (mut rest, mut encoded, mut is_closed) = (output, Vec::new(), false);
    while !rest.is_empty() {
        prop_assert!(!is_closed, "nothing is sent after Close");
        let (first, payload) = read_frame(&mut rest);
        match first {
            0x81 => prop_assert!(str::from_utf8(&payload).is_ok()),
            0x82 => {}
            0x8A => prop_assert!(payload.len() <= 125),
            0x88 => is_closed = payload.len() <= 125 && payload.len() != 1,
            first => prop_assert!(false, "{first:#04X}"),
        }
        encoded.extend(server_frame(first, &payload));
    }
    // Nothing else is unmasked and in its shortest form.
    prop_assert_eq!(encoded, output);
    Ok(is_closed)
}

proptest! {
    #![proptest_config(cases(1_500))]

    #[test]
    fn however_the_same_bytes_are_split_the_replies_and_the_end_are_the_same(
        frames in vec(anything(), 0..8),
        pieces in pieces(),
    ) {
        // Small enough to be met by chance.
        const LIMIT: usize = 250;
        let bytes = frames.concat();
        let whole = converse(LIMIT, &bytes, &[usize::MAX]);
        prop_assert!(ends_in_close(&whole.0)? || whole.1.is_none());
        prop_assert_eq!(&converse(LIMIT, &bytes, &pieces), &whole);
        prop_assert_eq!(&converse(LIMIT, &bytes, &[1]), &whole);
    }
}

proptest! {
    #![proptest_config(cases(500))]

    #[test]
    fn however_the_same_bytes_are_split_a_trace_shows_the_same_frames(
        messages in vec(message(0..300_usize), 0..3),
        frames in vec(anything(), 0..6),
        pieces in pieces(),
        query in select(vec!["", "&fragment=7", "&count=3&bytes=40", "&dump", "&prefix=", "&bad=rsv&after=1", "&close=4000&after=1", "&close=fin&after=2"]),
        has_deflate in any::<bool>(),
    ) {
        let mut bytes: Vec<u8> = messages.iter().flat_map(|message| message.frames().0).collect();
        bytes.extend(frames.concat());
        let fields = if has_deflate { "Sec-WebSocket-Extensions: permessage-deflate\r\n" } else { "" };
        let converse = |pieces: &[usize]| {
            let service = service(2000, 1 << 20);
            let mut driver = Driver::asking(&service, &format!("/do?trace{query}"), fields);
            driver.receive_in_pieces(&bytes, pieces);
            driver.take()
        };
        let whole = converse(&[usize::MAX]);
        for pieces in [&pieces[..], &[1]] {
            let split = converse(pieces);
            let [whole, split] = [&whole, &split].map(|sent| String::from_utf8_lossy(sent));
            prop_assert_eq!(whole, split);
        }
    }
}
