//! Whatever is said in whatever pieces: random conversations come back exactly, and random bytes
//! never lead to anything but well-formed replies.

mod common;

use std::io::{Read as _, Write as _};
use std::iter;
use std::sync::Arc;
use std::thread;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use wsecho::buffer::Budget;
use wsecho::session::Close;

use common::pure::{Conversation, NEVER, server_frame};
use common::{Server, close};

const LIMIT: usize = 1 << 20;

// Conversations

/// A message, how it is cut into fragments, and the pings that stand before some of them.
#[derive(Clone, Debug)]
struct Said {
    text: bool,
    len: usize,
    seed: u64,
    cuts: Vec<Index>,
    pings: Vec<Option<Vec<u8>>>,
    masking_key: [u8; 4],
}

impl Said {
    /// Bytes without any pattern, or text of every plane of Unicode.
    fn payload(&self) -> Vec<u8> {
        let mut random = numbers(self.seed);
        if !self.text {
            return random.map(|number| number as u8).take(self.len).collect();
        }
        let mut text = String::with_capacity(self.len);
        while text.len() < self.len {
            let number = random.next().unwrap_or_default() as u32;
            // As many characters of one byte as of two, of three and of each plane above.
            let code = match number % 19 {
                0 => (number >> 8) % 0x80,
                1 => (number >> 8) % 0x800,
                plane => ((plane - 2) << 16) | ((number >> 8) % 0x1_0000),
            };
            let fits = |c: &char| text.len() + c.len_utf8() <= self.len;
            text.push(char::from_u32(code).filter(fits).unwrap_or('x'));
        }
        text.into_bytes()
    }

    /// What it is on the wire, and what has to come back for it.
    fn wire_and_replies(&self) -> (Vec<u8>, Vec<u8>) {
        let payload = self.payload();
        let opcode = if self.text { 0x1 } else { 0x2 };
        let mut cuts: Vec<usize> = self.cuts.iter().map(|cut| cut.index(self.len + 1)).collect();
        cuts.sort_unstable();
        let starts = iter::once(0).chain(cuts.iter().copied());
        let ends = cuts.iter().copied().chain([self.len]);
        let pings = self.pings.iter().chain(iter::repeat(&None));

        let (mut wire, mut replies) = (Vec::new(), Vec::new());
        for (number, ((start, end), ping)) in starts.zip(ends).zip(pings).enumerate() {
            if let Some(ping) = ping {
                wire.extend(client_frame(0x89, ping, self.masking_key));
                replies.extend(server_frame(0x8A, ping));
            }
            let opcode = if number == 0 { opcode } else { 0x0 };
            let fin = if number == cuts.len() { 0x80 } else { 0x00 };
            wire.extend(client_frame(fin | opcode, &payload[start..end], self.masking_key));
        }
        replies.extend(server_frame(0x80 | opcode, &payload));
        (wire, replies)
    }
}

fn client_frame(first: u8, payload: &[u8], masking_key: [u8; 4]) -> Vec<u8> {
    let mut frame = server_frame(first, payload);
    let header_len = frame.len() - payload.len();
    frame[1] |= 0x80;
    for (byte, key) in frame[header_len..].iter_mut().zip(masking_key.iter().cycle()) {
        *byte ^= key;
    }
    frame.splice(header_len..header_len, masking_key);
    frame
}

/// Numbers without any pattern (splitmix64).
fn numbers(mut state: u64) -> impl Iterator<Item = u64> {
    iter::repeat_with(move || {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (state ^ state >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ mixed >> 31
    })
}

fn said(len: impl Strategy<Value = usize>) -> impl Strategy<Value = Said> {
    let ping = proptest::option::of(vec(any::<u8>(), 0..=125));
    (any::<bool>(), len, any::<u64>(), vec(any::<Index>(), 0..6), vec(ping, 0..6), any::<[u8; 4]>())
        .prop_map(|(text, len, seed, cuts, pings, masking_key)| Said {
            text,
            len,
            seed,
            cuts,
            pings,
            masking_key,
        })
}

/// Lengths around those from which a header takes more bytes, and between them.
fn any_len() -> impl Strategy<Value = usize> {
    prop_oneof![0..130_usize, 130..3_000_usize, 65_530..65_542_usize, 3_000..200_000_usize]
}

/// The lengths of the pieces in which the wire is said, again and again.
fn pieces() -> impl Strategy<Value = Vec<usize>> {
    vec(prop_oneof![1..4_usize, 1..200_usize, 1..100_000_usize], 1..8)
}

/// From how many missing bytes on a payload is read straight to its message.
fn straight_above() -> impl Strategy<Value = usize> {
    prop_oneof![Just(NEVER), Just(0), 0..5_000_usize]
}

fn cut<'w>(mut wire: &'w [u8], lens: &[usize]) -> Vec<&'w [u8]> {
    let mut lens = lens.iter().cycle();
    iter::from_fn(|| {
        let len = wire.len().min(*lens.next()?);
        let (piece, rest) = wire.split_at(len);
        wire = rest;
        Some(piece).filter(|piece| !piece.is_empty())
    })
    .collect()
}

fn wire_and_replies(all: &[Said]) -> (Vec<u8>, Vec<u8>) {
    let (wires, replies): (Vec<_>, Vec<_>) = all.iter().map(Said::wire_and_replies).unzip();
    (wires.concat(), replies.concat())
}

fn converse(limit: usize, pieces: &[&[u8]], straight_above: usize) -> (Vec<u8>, Option<Close>) {
    let budget = Arc::new(Budget::new(limit));
    let mut conversation = Conversation::new(limit, budget, straight_above);
    for piece in pieces {
        conversation.hear(piece);
    }
    let end = conversation.end().cloned();
    (conversation.replies, end)
}

/// The first place where two runs of bytes differ, since megabytes are no message for a reader.
fn difference(one: &[u8], other: &[u8]) -> Option<usize> {
    let same = one.iter().zip(other).take_while(|(one, other)| one == other).count();
    (same < one.len().max(other.len())).then_some(same)
}

fn cases(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        // A failure prints what it takes to repeat it; no file has to be left in the tree.
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

/// Fails unless every message's reply is heard, in order, and the conversation stays open.
fn comes_back(all: &[Said], lens: &[usize], straight_above: usize) -> Result<(), TestCaseError> {
    let (wire, replies) = wire_and_replies(all);
    let (heard, end) = converse(LIMIT, &cut(&wire, lens), straight_above);
    prop_assert_eq!(difference(&heard, &replies), None);
    prop_assert_eq!(end, None);
    Ok(())
}

proptest! {
    #![proptest_config(cases(300))]

    #[test]
    fn many_short_messages_come_back_exactly_and_in_order(
        all in vec(said(0..300_usize), 0..12),
        lens in pieces(),
        straight_above in straight_above(),
    ) {
        comes_back(&all, &lens, straight_above)?;
    }
}

proptest! {
    #![proptest_config(cases(60))]

    #[test]
    fn messages_of_every_size_come_back_exactly_and_in_order(
        all in vec(said(any_len()), 1..4),
        lens in pieces(),
        straight_above in straight_above(),
    ) {
        comes_back(&all, &lens, straight_above)?;
    }
}

#[test]
fn conversations_over_a_real_socket_come_back_exactly_and_in_order() {
    /// Enough packets to be cut everywhere, and few enough to be soon through.
    const PACKETS: usize = 2_000;

    let server = Server::start(&["--prefix", ""]);
    proptest!(cases(40), |(all in vec(said(any_len()), 1..4), lens in pieces())| {
        let (mut wire, mut replies) = wire_and_replies(&all);
        wire.extend(close(1000));
        replies.extend(server_frame(0x88, &1000_u16.to_be_bytes()));
        let at_least = wire.len() / PACKETS;
        let lens: Vec<usize> = lens.into_iter().map(|len| len.max(at_least)).collect();

        let mut stream = server.open();
        stream.set_nodelay(true).unwrap();
        let mut writer = stream.try_clone().unwrap();
        let mut heard = Vec::new();
        thread::scope(|scope| {
            scope.spawn(|| {
                for packet in cut(&wire, &lens) {
                    writer.write_all(packet).unwrap();
                }
            });
            stream.read_to_end(&mut heard).unwrap();
        });
        prop_assert_eq!(difference(&heard, &replies), None);
    });
}

// Bytes that are no conversation

/// Frames that may break any rule, and bytes that are no frames.
fn anything() -> impl Strategy<Value = Vec<u8>> {
    let payload = prop_oneof![
        vec(any::<u8>(), 0..10),
        vec(any::<u8>(), 0..200),
        "\\PC{0,20}".prop_map(String::into_bytes),
        (0..5_000_u16).prop_map(|code| code.to_be_bytes().into()),
    ];
    let common_first =
        proptest::sample::select(vec![0x01, 0x02, 0x00, 0x80, 0x81, 0x82, 0x89, 0x88]);
    let first = prop_oneof![4 => common_first, 1 => any::<u8>()];
    let frame = (first, payload, any::<[u8; 4]>())
        .prop_map(|(first, payload, key)| client_frame(first, &payload, key));
    prop_oneof![12 => frame, 1 => vec(any::<u8>(), 0..20)]
}

/// Expects nothing but whole frames that a server may send, and nothing behind Close; tells whether
/// Close is among them.
fn ends_in_close(mut replies: &[u8]) -> Result<bool, TestCaseError> {
    let mut closed = false;
    while let Some((header, rest)) = replies.split_first_chunk() {
        let (len, rest) = match header {
            [_, 126] => {
                let (len, rest) = rest.split_first_chunk().expect("a length of 16 bits");
                (usize::from(u16::from_be_bytes(*len)), rest)
            }
            [_, len] => (usize::from(*len), rest),
        };
        prop_assert!(rest.len() >= len, "{len} bytes declared, {} there", rest.len());
        let (payload, rest) = rest.split_at(len);
        // Nothing else is as short as it can be, whole, unmasked and without reserved bits.
        prop_assert_eq!(&replies[..replies.len() - rest.len()], server_frame(header[0], payload));
        match header[0] {
            0x81 => prop_assert!(str::from_utf8(payload).is_ok()),
            0x82 => {}
            0x8A => prop_assert!(len <= 125),
            0x88 => {
                prop_assert!(len <= 125 && len != 1 && rest.is_empty());
                closed = true;
            }
            first => prop_assert!(false, "{first:#04X}"),
        }
        replies = rest;
    }
    prop_assert!(replies.is_empty());
    Ok(closed)
}

proptest! {
    #![proptest_config(cases(1_500))]

    #[test]
    fn any_two_ways_of_cutting_the_same_bytes_give_the_same_replies_and_the_same_end(
        frames in vec(anything(), 0..8),
        lens in pieces(),
        straight_above in straight_above(),
    ) {
        // Small enough to be met by chance.
        const LIMIT: usize = 250;
        let wire = frames.concat();
        let whole = converse(LIMIT, &[&wire], NEVER);
        prop_assert_eq!(ends_in_close(&whole.0)?, whole.1.is_some());
        prop_assert_eq!(&converse(LIMIT, &cut(&wire, &lens), straight_above), &whole);
        prop_assert_eq!(&converse(LIMIT, &cut(&wire, &[1]), straight_above), &whole);
    }
}
