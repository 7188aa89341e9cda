//! RFC 6455 section by section: every MUST on a server, byte by byte and without a socket.
//!
//! Each MUST that binds this server, and the tests that hold it to it. Those of §4.2 are in
//! `handshake.rs`, and what needs a TCP connection to show is in `conversation.rs`. Not listed is what
//! the server has no part in: TLS, extensions that it offers, and what intermediaries must not do.
//!
//! | section | the MUST | test |
//! |---|---|---|
//! | 4.2.1 | a handshake that does not match "MUST stop processing … and return an HTTP response with an appropriate error code" | `each_header_missing_repeated_and_in_odd_forms`, `a_malformed_head_is_answered_400` |
//! | 4.2.1 | "an absolute HTTP/HTTPS URI containing the /resource name/" is read | `a_target_may_be_absolute` |
//! | 4.2.1 | "treated as an ASCII case-insensitive value", "unknown header fields are ignored" | `each_header_missing_repeated_and_in_odd_forms` |
//! | 4.2.2 | an origin that is not wished for: "MUST return an appropriate HTTP error code (e.g., 403 Forbidden)" | `an_origin_that_is_not_listed_is_forbidden` |
//! | 4.2.2, 4.4 | another version: "MUST abort … and instead send an appropriate HTTP error code (such as 426 Upgrade Required) and a Sec-WebSocket-Version header field" | `another_version_is_answered_426_and_told_the_right_one` |
//! | 4.2.2 | "If the requested service is not available, the server MUST send an appropriate HTTP error code" | `a_full_house_answers_503_but_still_the_page_and_health_checks` |
//! | 4.2.2 | the subprotocol "MUST be derived from the client's handshake"; none agreed, "it MUST NOT send back" the field | `a_subprotocol_is_agreed_only_from_the_clients_offer` |
//! | 4.2.2 | "Extensions not listed by the client MUST NOT be listed" | `extensions_are_declined_by_silence` |
//! | 4.2.2 | "it MUST reply with a valid HTTP response": 101, Upgrade, Connection, Sec-WebSocket-Accept | `the_published_examples_are_answered_to_the_byte` |
//! | 5.1 | "The server MUST close the connection upon receiving a frame that is not masked" | `section_5_1_a_frame_without_a_mask_fails_the_connection` |
//! | 5.1 | "A server MUST NOT mask any frames" | `section_5_1_no_reply_is_masked` |
//! | 5.2 | RSV1, RSV2, RSV3 "MUST be 0 unless an extension is negotiated" | `section_5_2_a_reserved_bit_fails_the_connection` |
//! | 5.2 | "If an unknown opcode is received, the receiving endpoint MUST _Fail the WebSocket Connection_" | `section_5_2_a_reserved_opcode_fails_the_connection` |
//! | 5.2 | of a 64-bit length "the most significant bit MUST be 0" | `section_5_2_a_length_with_its_top_bit_set_fails_the_connection` |
//! | 5.2 | "the minimal number of bytes MUST be used to encode the length" | `section_5_2_a_length_that_is_not_minimal_fails_the_connection`, `section_5_2_lengths_of_7_16_and_64_bits_are_read_and_written_in_network_byte_order` |
//! | 5.3 | the payload is the XOR with the masking key | `section_5_3_every_masking_key_is_undone` |
//! | 5.4 | "Control frames themselves MUST NOT be fragmented" | `section_5_5_a_fragmented_control_frame_fails_the_connection` |
//! | 5.4 | fragments "MUST be delivered … in the order sent" | `section_5_4_fragments_make_one_message_in_their_order` |
//! | 5.4 | fragments "MUST NOT be interleaved between the fragments of another message" | `section_5_4_a_message_inside_an_unfinished_one_fails_the_connection` |
//! | 5.4 | an unfragmented message has "an opcode other than 0" | `section_5_4_a_continuation_of_nothing_fails_the_connection` |
//! | 5.4 | "MUST be capable of handling control frames in the middle of a fragmented message" | `section_5_4_control_frames_are_answered_inside_a_fragmented_message` |
//! | 5.4 | "MUST support receiving both fragmented and unfragmented messages" | `section_5_4_fragments_make_one_message_in_their_order`, `section_5_6_text_and_binary_come_back_as_they_were` |
//! | 5.5 | control frames "MUST have a payload length of 125 bytes or less" | `section_5_5_a_control_frame_of_126_bytes_fails_the_connection` |
//! | 5.5.1 | of a body "the first two bytes … MUST be a 2-byte unsigned integer" | `section_5_5_1_a_close_payload_of_one_byte_fails_the_connection` |
//! | 5.5.1 | "MUST NOT send any more data frames after sending a Close frame" | `section_5_5_1_nothing_is_answered_after_a_close`, `section_7_1_7_nothing_is_processed_after_a_failure` |
//! | 5.5.1 | "the endpoint MUST send a Close frame in response" | `section_5_5_1_a_close_is_answered_by_its_code` |
//! | 5.5.1 | "The server MUST close the underlying TCP connection immediately" | `the_server_closes_the_connection_once_close_was_answered` |
//! | 5.5.2 | "MUST send a Pong frame in response, unless it already received a Close frame" | `section_5_5_2_a_ping_is_answered_by_its_payload`, `section_5_5_1_nothing_is_answered_after_a_close` |
//! | 5.5.3 | the pong "must have identical Application data" | `section_5_5_2_a_ping_is_answered_by_its_payload` |
//! | 5.5.3 | "A response to an unsolicited Pong frame is not expected" | `section_5_5_3_a_pong_is_not_answered` |
//! | 5.6 | "the whole message MUST contain valid UTF-8" | `section_5_6_a_character_may_be_cut_by_fragments`, `section_8_1_text_that_is_not_utf_8_is_refused_at_its_first_wrong_byte` |
//! | 5.8, 9.1 | nothing of an extension may be used without negotiation | `section_5_2_a_reserved_bit_fails_the_connection`, `section_5_2_a_reserved_opcode_fails_the_connection` |
//! | 7.1.7 | "MUST NOT continue to attempt to process data … from the remote endpoint" | `section_7_1_7_nothing_is_processed_after_a_failure` |
//! | 7.1.7 | "SHOULD send a Close frame with an appropriate status code" | `section_7_1_7_every_failure_is_told_behind_the_replies_to_what_came_before` |
//! | 7.4.1 | 1005, 1006 and 1015 "MUST NOT be set as a status code in a Close control frame" | `section_7_4_the_codes_that_may_be_sent_are_echoed_and_all_others_refused` |
//! | 7.4.2 | "Status codes in the range 0-999 are not used"; undefined ones of 1000-2999 neither | `section_7_4_the_codes_that_may_be_sent_are_echoed_and_all_others_refused` |
//! | 8.1 | bytes that are not UTF-8: "MUST _Fail the WebSocket Connection_" | `section_8_1_text_that_is_not_utf_8_is_refused_at_its_first_wrong_byte`, `section_8_1_a_close_reason_that_is_not_utf_8_fails_the_connection` |
//! | 10.4 | "MUST protect themselves against exceeding these limits" | `section_10_4_a_message_may_be_as_large_as_the_limit_and_not_a_byte_larger`, `section_10_4_a_message_over_the_limit_is_refused_from_its_header`, `section_10_4_memory_beyond_the_budget_is_refused`, `section_10_4_a_message_of_64_kib_needs_no_budget`, `section_10_4_what_one_client_gives_back_another_can_have` |

mod common;

use std::fs;
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::Arc;

use common::pure::{Conversation, NEVER, server_frame};
use common::{close, frame};
use wsecho::buffer::{Budget, OWN};
use wsecho::session::Close;
use wsecho::violation::{Cause, Violation};

const LIMIT: usize = 1 << 20;

const TEXT: u8 = 0x81;
const BINARY: u8 = 0x82;
const CLOSE: u8 = 0x88;
const PING: u8 = 0x89;
const PONG: u8 = 0x8A;
const FIRST_TEXT: u8 = 0x01;
const FIRST_BINARY: u8 = 0x02;
const MIDDLE: u8 = 0x00;
const LAST: u8 = 0x80;

/// How a conversation is expected to end.
#[derive(Clone, Copy, Debug)]
enum End<'r> {
    /// Not at all: the server waits for more.
    Open,
    /// By the peer, with this code and reason; the answer is a part of the expected reply.
    Closed(Option<u16>, &'r str),
    /// By the server with this close code, behind the expected reply.
    Failed(u16, Cause),
}

use End::{Closed, Open};

const fn violated(code: u16, violation: Violation) -> End<'static> {
    End::Failed(code, Cause::Violation(violation))
}

/// Says `wire` to a fresh session in every way a network may split it, and expects each time the
/// same reply and the same end.
#[track_caller]
fn check(wire: &[u8], expected_reply: &[u8], expected_end: End) {
    check_within(LIMIT, wire, expected_reply, expected_end);
}

#[track_caller]
fn check_within(limit: usize, wire: &[u8], expected_reply: &[u8], expected_end: End) {
    for pieces in splits(wire) {
        for straight_above in [NEVER, 0] {
            let budget = Arc::new(Budget::new(limit));
            let mut conversation = Conversation::new(limit, budget, straight_above);
            for piece in &pieces {
                conversation.hear(piece);
            }
            let way: Vec<_> = pieces.iter().take(3).map(|piece| piece.len()).collect();
            let way = format!("{} pieces {way:?}…, {straight_above}", pieces.len());
            expect(&conversation, expected_reply, expected_end, &way);
        }
    }
}

#[track_caller]
fn expect(conversation: &Conversation, reply: &[u8], end: End, way: &str) {
    let replies = &conversation.replies;
    let start = replies.get(..reply.len());
    assert!(start == Some(reply), "{way}: {} is the reply", Hex(replies));
    let behind = &replies[reply.len()..];
    let ended = conversation.end().cloned();
    match end {
        Open => assert_eq!((ended, behind), (None, &b""[..]), "{way}"),
        Closed(code, reason) => {
            let reason = String::from(reason);
            let expected = Some(Close::ByPeer { code, reason });
            assert_eq!((ended, behind), (expected, &b""[..]), "{way}");
        }
        End::Failed(code, cause) => {
            assert_eq!(ended, Some(Close::ByServer(cause)), "{way}");
            let [CLOSE, len, high, low, reason @ ..] = behind else {
                panic!("{way}: {} is no close frame", Hex(behind));
            };
            assert_eq!(u16::from_be_bytes([*high, *low]), code, "{way}");
            assert_eq!(usize::from(*len), 2 + reason.len(), "{way}");
            assert!(!reason.is_empty() && *len <= 125, "{way}: {len}");
            assert!(str::from_utf8(reason).is_ok(), "{way}");
        }
    }
}

/// Whole, byte by byte, and cut in two at every place; of a long wire, near its ends and at some
/// places between them.
fn splits(wire: &[u8]) -> Vec<Vec<&[u8]>> {
    const NEAR: usize = 64;
    const BETWEEN: usize = 16;
    let len = wire.len();
    let step = (len / BETWEEN).max(1);
    let places = (1..len).filter(|place| *place < NEAR || len - place < NEAR || place % step == 0);
    let mut splits = vec![vec![wire], wire.chunks(1).collect()];
    splits.extend(places.map(|place| vec![&wire[..place], &wire[place..]]));
    splits
}

/// Says `wire` byte by byte, and expects that the connection fails exactly at the byte `at`.
#[track_caller]
fn check_fails_at(wire: &[u8], at: usize, code: u16, violation: Violation) {
    for straight_above in [NEVER, 0] {
        let budget = Arc::new(Budget::new(LIMIT));
        let mut conversation = Conversation::new(LIMIT, budget, straight_above);
        for byte in &wire[..at] {
            conversation.hear(&[*byte]);
        }
        expect(&conversation, b"", Open, &format!("{} before byte {at}", Hex(wire)));
        conversation.hear(&wire[at..=at]);
        let way = format!("{} up to byte {at}", Hex(wire));
        expect(&conversation, b"", violated(code, violation), &way);
    }
}

/// The first bytes, and how many there are.
struct Hex<'a>(&'a [u8]);

impl std::fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let start = &self.0[..self.0.len().min(64)];
        write!(f, "{start:02X?} ({} bytes)", self.0.len())
    }
}

/// What a client must not send on a fresh connection, and how each fails.
#[rustfmt::skip]
fn failures() -> Vec<(Vec<u8>, u16, Violation)> {
    use Violation::*;
    vec![
        (vec![TEXT, 0x05, b'H', b'e', b'l', b'l', b'o'], 1002, NotMasked),
        (vec![PING, 0x00], 1002, NotMasked),
        (frame(0xC1, b"rsv1"), 1002, ReservedBits),
        (frame(0xA2, b"rsv2"), 1002, ReservedBits),
        (frame(0x99, b"rsv3"), 1002, ReservedBits),
        (frame(0x83, b""), 1002, ReservedOpcode),
        (frame(0x8B, b""), 1002, ReservedOpcode),
        (vec![BINARY, 0xFE, 0, 125], 1002, LengthNotMinimal),
        (vec![BINARY, 0xFF, 0x80, 0, 0, 0, 0, 0, 0, 0], 1002, LengthTopBit),
        (frame(0x09, b"part"), 1002, FragmentedControl),
        (frame(PING, &[b'x'; 126]), 1002, LongControl),
        (frame(LAST, b"of nothing"), 1002, NothingToContinue),
        ([frame(FIRST_TEXT, b"a"), frame(TEXT, b"b")].concat(), 1002, UnfinishedMessage),
        (frame(CLOSE, b"\x03"), 1002, ClosePayload),
        (close(1005), 1002, CloseCode),
        (frame(CLOSE, b"\x03\xE8\xFF"), 1007, InvalidUtf8),
        (frame(TEXT, b"\xFF"), 1007, InvalidUtf8),
        (frame(BINARY, &vec![0; LIMIT + 1])[..14].to_vec(), 1009, MessageTooBig),
    ]
}

// §5.1 Overview

#[test]
fn section_5_1_a_frame_without_a_mask_fails_the_connection() {
    for first in [TEXT, BINARY, CLOSE, PING, PONG, FIRST_TEXT] {
        let wire = server_frame(first, b"\x03\xE8");
        check(&wire, b"", violated(1002, Violation::NotMasked));
        check_fails_at(&wire, 1, 1002, Violation::NotMasked);
    }
    let inside = [frame(FIRST_TEXT, b"a"), server_frame(LAST, b"b")].concat();
    check(&inside, b"", violated(1002, Violation::NotMasked));
}

#[test]
fn section_5_1_no_reply_is_masked() {
    let wire = [frame(TEXT, b"t"), frame(BINARY, b"b"), frame(PING, b"p"), close(1000)].concat();
    let reply = b"\x81\x01t\x82\x01b\x8A\x01p\x88\x02\x03\xE8";
    check(&wire, reply, Closed(Some(1000), ""));
}

// §5.2 Base Framing Protocol

#[test]
fn section_5_2_a_reserved_bit_fails_the_connection() {
    for bits in 1..8 {
        for first in [TEXT, BINARY, FIRST_TEXT, CLOSE, PING, PONG] {
            let wire = frame(first | bits << 4, b"");
            check(&wire, b"", violated(1002, Violation::ReservedBits));
        }
        let inside = [frame(FIRST_TEXT, b"a"), frame(LAST | bits << 4, b"b")].concat();
        check(&inside, b"", violated(1002, Violation::ReservedBits));
    }
}

#[test]
fn section_5_2_a_reserved_opcode_fails_the_connection() {
    for opcode in (0x3..=0x7).chain(0xB..=0xF) {
        for first in [opcode, 0x80 | opcode] {
            let wire = frame(first, b"any");
            check(&wire, b"", violated(1002, Violation::ReservedOpcode));
            let inside = [frame(FIRST_BINARY, b"a"), wire].concat();
            check(&inside, b"", violated(1002, Violation::ReservedOpcode));
        }
    }
}

#[test]
fn section_5_2_lengths_of_7_16_and_64_bits_are_read_and_written_in_network_byte_order() {
    let table: [(usize, &[u8]); 8] = [
        (0, &[0]),
        (1, &[1]),
        (125, &[125]),
        (126, &[126, 0, 126]),
        (256, &[126, 1, 0]),
        (65_535, &[126, 0xFF, 0xFF]),
        (65_536, &[127, 0, 0, 0, 0, 0, 1, 0, 0]),
        (70_001, &[127, 0, 0, 0, 0, 0, 1, 0x11, 0x71]),
    ];
    for (len, encoded) in table {
        let payload: Vec<u8> = (0..len).map(|index| index as u8).collect();
        let masked = [&[0x80 | encoded[0]], &encoded[1..], &[0; 4], &payload].concat();
        let wire = [&[BINARY], masked.as_slice()].concat();
        let reply = [&[BINARY], encoded, &payload].concat();
        check(&wire, &reply, Open);
    }
}

#[test]
fn section_5_2_a_length_that_is_not_minimal_fails_the_connection() {
    for (len, at) in [
        (&[0xFE, 0, 0][..], 3),
        (&[0xFE, 0, 124], 3),
        (&[0xFE, 0, 125], 3),
        (&[0xFF, 0, 0, 0, 0, 0, 0, 0, 0], 9),
        (&[0xFF, 0, 0, 0, 0, 0, 0, 0, 126], 9),
        (&[0xFF, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF], 9),
    ] {
        for first in [TEXT, BINARY, CLOSE, PING] {
            let wire = [&[first], len, &[0; 200]].concat();
            check(&wire, b"", violated(1002, Violation::LengthNotMinimal));
            check_fails_at(&wire, at, 1002, Violation::LengthNotMinimal);
        }
    }
}

#[test]
fn section_5_2_a_length_with_its_top_bit_set_fails_the_connection() {
    for (high, low) in [(0x80, 0), (0x80, 5), (0xFF, 0xFF)] {
        let wire = [BINARY, 0xFF, high, 0, 0, 0, 0, 0, 0, low];
        check(&wire, b"", violated(1002, Violation::LengthTopBit));
    }
}

// §5.3 Client-to-Server Masking

#[test]
fn section_5_3_every_masking_key_is_undone() {
    // The second is that of §5.7's example.
    for key in [[0; 4], [0x37, 0xFA, 0x21, 0x3D], [0xFF; 4], [0, 0, 0, 1]] {
        let mut wire = vec![TEXT, 0x80 | 5];
        wire.extend(key);
        wire.extend(b"Hello".iter().enumerate().map(|(i, byte)| byte ^ key[i % 4]));
        check(&wire, b"\x81\x05Hello", Open);
    }
    let example = b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58";
    check(example, b"\x81\x05Hello", Open);
}

// §5.4 Fragmentation

#[test]
fn section_5_4_fragments_make_one_message_in_their_order() {
    #[rustfmt::skip]
    let table = [
        (vec![(FIRST_TEXT, "Hel"), (LAST, "lo")], server_frame(TEXT, b"Hello")),
        (
            vec![(FIRST_TEXT, "a"), (MIDDLE, "b"), (MIDDLE, "c"), (LAST, "d")],
            server_frame(TEXT, b"abcd"),
        ),
        (vec![(FIRST_TEXT, ""), (MIDDLE, ""), (LAST, "")], server_frame(TEXT, b"")),
        (vec![(FIRST_BINARY, ""), (MIDDLE, "x"), (LAST, "")], server_frame(BINARY, b"x")),
        (
            vec![(FIRST_BINARY, "one"), (LAST, "two"), (TEXT, "three")],
            [
                server_frame(BINARY, b"onetwo"),
                server_frame(TEXT, b"three"),
            ]
            .concat(),
        ),
    ];
    for (fragments, reply) in table {
        let wire: Vec<u8> = (fragments.iter())
            .flat_map(|(first, payload)| frame(*first, payload.as_bytes()))
            .collect();
        check(&wire, &reply, Open);
    }
}

#[test]
fn section_5_4_a_message_of_many_fragments_comes_back_whole() {
    let payload: Vec<u8> = (0..3_000_u32).map(|index| (index % 251) as u8).collect();
    let mut wire = frame(FIRST_BINARY, b"");
    for byte in &payload {
        wire.extend(frame(MIDDLE, &[*byte]));
    }
    wire.extend(frame(LAST, b""));
    check(&wire, &server_frame(BINARY, &payload), Open);
}

#[test]
fn section_5_4_an_unfinished_message_is_not_answered() {
    check(&frame(FIRST_TEXT, b"unfinished"), b"", Open);
    check(&frame(TEXT, b"unfinished")[..12], b"", Open);
    let wire = [frame(FIRST_TEXT, b"a"), frame(MIDDLE, b"b")].concat();
    check(&wire, b"", Open);
}

#[test]
fn section_5_4_control_frames_are_answered_inside_a_fragmented_message() {
    let wire = [
        frame(FIRST_TEXT, b"Hel"),
        frame(PING, b"one"),
        frame(PONG, b"unsolicited"),
        frame(MIDDLE, b"l"),
        frame(PING, b"two"),
        frame(LAST, b"o"),
    ];
    let reply =
        [server_frame(PONG, b"one"), server_frame(PONG, b"two"), server_frame(TEXT, b"Hello")];
    check(&wire.concat(), &reply.concat(), Open);

    let closed = [frame(FIRST_TEXT, b"Hel"), close(1001), frame(LAST, b"lo")].concat();
    check(&closed, b"\x88\x02\x03\xE9", Closed(Some(1001), ""));
}

#[test]
fn section_5_4_a_message_inside_an_unfinished_one_fails_the_connection() {
    for outer in [FIRST_TEXT, FIRST_BINARY] {
        for inner in [TEXT, BINARY, FIRST_TEXT, FIRST_BINARY] {
            for between in [vec![], frame(MIDDLE, b"b"), frame(PONG, b"c")] {
                let wire = [frame(outer, b"a"), between, frame(inner, b"d")].concat();
                check(&wire, b"", violated(1002, Violation::UnfinishedMessage));
            }
        }
    }
}

#[test]
fn section_5_4_a_continuation_of_nothing_fails_the_connection() {
    for first in [MIDDLE, LAST] {
        let violation = violated(1002, Violation::NothingToContinue);
        check(&frame(first, b"a"), b"", violation);
        check(&frame(first, b""), b"", violation);
        let after_a_message = [frame(TEXT, b"a"), frame(first, b"b")].concat();
        check(&after_a_message, b"\x81\x01a", violation);
        let after_fragments = [frame(FIRST_TEXT, b"a"), frame(LAST, b"b"), frame(first, b"c")];
        check(&after_fragments.concat(), b"\x81\x02ab", violation);
    }
}

// §5.5 Control Frames

#[test]
fn section_5_5_a_fragmented_control_frame_fails_the_connection() {
    for opcode in [CLOSE, PING, PONG].map(|first| first & 0x0F) {
        let violation = violated(1002, Violation::FragmentedControl);
        check(&frame(opcode, b""), b"", violation);
        let inside = [frame(FIRST_TEXT, b"a"), frame(opcode, b"\x03\xE8"), frame(LAST, b"b")];
        check(&inside.concat(), b"", violation);
    }
}

#[test]
fn section_5_5_a_control_frame_of_126_bytes_fails_the_connection() {
    for first in [CLOSE, PING, PONG] {
        for len in [126, 1_000, 65_536] {
            let wire = frame(first, &vec![b'x'; len]);
            check(&wire, b"", violated(1002, Violation::LongControl));
            // Its header tells; what it announces need not come.
            let header_len = wire.len() - len;
            check(&wire[..header_len], b"", violated(1002, Violation::LongControl));
        }
    }
}

// §5.5.1 Close

#[test]
fn section_5_5_1_a_close_is_answered_by_its_code() {
    check(&frame(CLOSE, b""), b"\x88\x00", Closed(None, ""));
    check(&close(1000), b"\x88\x02\x03\xE8", Closed(Some(1000), ""));
    let longest = "é".repeat(61) + "!";
    for reason in ["x", "going away, …", &longest] {
        let payload = [b"\x0F\xA0", reason.as_bytes()].concat();
        let wire = frame(CLOSE, &payload);
        check(&wire, b"\x88\x02\x0F\xA0", Closed(Some(4000), reason));
    }
}

#[test]
fn section_5_5_1_a_close_payload_of_one_byte_fails_the_connection() {
    for byte in [0x00, 0x03, 0xFF] {
        let wire = frame(CLOSE, &[byte]);
        check(&wire, b"", violated(1002, Violation::ClosePayload));
    }
}

#[test]
fn section_5_5_1_nothing_is_answered_after_a_close() {
    let failures = failures().into_iter().map(|(wire, ..)| wire);
    for late in failures.chain([frame(TEXT, b"late"), frame(PING, b"late"), close(1001)]) {
        let wire = [frame(TEXT, b"a"), close(1000), late].concat();
        check(&wire, b"\x81\x01a\x88\x02\x03\xE8", Closed(Some(1000), ""));
    }
}

// §5.5.2 Ping, §5.5.3 Pong

#[test]
fn section_5_5_2_a_ping_is_answered_by_its_payload() {
    for payload in [&b""[..], b"Hello", b"\x00\xFF\xFE", &[0xA5; 125]] {
        check(&frame(PING, payload), &server_frame(PONG, payload), Open);
    }
}

#[test]
fn section_5_5_2_a_pong_stands_before_every_later_reply() {
    let wire = [
        frame(TEXT, b"a"),
        frame(PING, b"1"),
        frame(PING, b"2"),
        frame(TEXT, b"b"),
        frame(PING, b"3"),
        close(1000),
    ];
    let reply = b"\x81\x01a\x8A\x011\x8A\x012\x81\x01b\x8A\x013\x88\x02\x03\xE8";
    check(&wire.concat(), reply, Closed(Some(1000), ""));
}

#[test]
fn section_5_5_3_a_pong_is_not_answered() {
    let wire = [frame(PONG, b""), frame(PONG, &[0xFF; 125]), frame(TEXT, b"a")];
    check(&wire.concat(), b"\x81\x01a", Open);
}

// §5.6 Data Frames

#[test]
fn section_5_6_text_and_binary_come_back_as_they_were() {
    for text in ["", "plain", "κόσμε", "\0", "\u{10FFFF}\u{FFFE}\u{7FF}\u{800}", "\u{FEFF}bom"]
    {
        check(&frame(TEXT, text.as_bytes()), &server_frame(TEXT, text.as_bytes()), Open);
    }
    for bytes in [&b""[..], b"\xFF\xC0\x80", &[0; 300]] {
        check(&frame(BINARY, bytes), &server_frame(BINARY, bytes), Open);
    }
}

#[test]
fn section_5_6_a_character_may_be_cut_by_fragments() {
    let text = "é€😀\u{10FFFF}".as_bytes();
    for cut in 0..=text.len() {
        let (start, rest) = text.split_at(cut);
        let wire =
            [frame(FIRST_TEXT, start), frame(PING, b""), frame(MIDDLE, b""), frame(LAST, rest)];
        let reply = [server_frame(PONG, b""), server_frame(TEXT, text)].concat();
        check(&wire.concat(), &reply, Open);
    }
    let mut in_bytes = frame(FIRST_TEXT, b"");
    for byte in text {
        in_bytes.extend(frame(MIDDLE, &[*byte]));
    }
    in_bytes.extend(frame(LAST, b""));
    check(&in_bytes, &server_frame(TEXT, text), Open);
}

// §7.1.7 Fail the WebSocket Connection

#[test]
fn section_7_1_7_every_failure_is_told_behind_the_replies_to_what_came_before() {
    let before = [frame(TEXT, b"a"), frame(PING, b"p"), frame(BINARY, &[b'b'; 200])].concat();
    let replies =
        [server_frame(TEXT, b"a"), server_frame(PONG, b"p"), server_frame(BINARY, &[b'b'; 200])]
            .concat();
    for (wire, code, violation) in failures() {
        check(&wire, b"", violated(code, violation));
        let wire = [before.as_slice(), &wire].concat();
        check(&wire, &replies, violated(code, violation));
    }
}

#[test]
fn section_7_1_7_nothing_is_processed_after_a_failure() {
    for (wire, code, violation) in failures() {
        for late in [frame(TEXT, b"late"), frame(PING, b"late"), close(1000)] {
            let wire = [wire.as_slice(), &late].concat();
            check(&wire, b"", violated(code, violation));
        }
    }
}

#[test]
fn section_7_1_7_nothing_is_processed_after_the_server_has_closed_for_a_reason_of_its_own() {
    for (cause, code) in
        [(Cause::Stopping, 1001), (Cause::Silent, 1001), (Cause::MemoryShort, 1013)]
    {
        let budget = Arc::new(Budget::new(0));
        let mut conversation = Conversation::new(LIMIT, budget, NEVER);
        conversation.hear(&frame(TEXT, b"unfinished")[..10]);
        conversation.session.close(cause, &mut conversation.replies);
        conversation.hear(&[frame(TEXT, b"late"), close(1000)].concat());
        expect(&conversation, b"", End::Failed(code, cause), "closed by the server");
    }
}

// §7.4 Status Codes

/// What a client may send: §7.4.1, the registry of §11.7, and §7.4.2's ranges for libraries and
/// applications.
const VALID_CODES: [RangeInclusive<u16>; 3] = [1000..=1003, 1007..=1014, 3000..=4999];

#[test]
fn section_7_4_the_codes_that_may_be_sent_are_echoed_and_all_others_refused() {
    let expected_end = |code: u16| match VALID_CODES.iter().any(|codes| codes.contains(&code)) {
        true => (server_frame(CLOSE, &code.to_be_bytes()), Closed(Some(code), "")),
        false => (vec![], violated(1002, Violation::CloseCode)),
    };
    for code in 0..=u16::MAX {
        let mut conversation = Conversation::new(LIMIT, Arc::new(Budget::new(0)), NEVER);
        conversation.hear(&close(code));
        let (reply, end) = expected_end(code);
        expect(&conversation, &reply, end, &code.to_string());
    }
    for edge in VALID_CODES.iter().flat_map(|codes| [*codes.start(), *codes.end()]) {
        for code in [edge - 1, edge, edge + 1] {
            let (reply, end) = expected_end(code);
            check(&close(code), &reply, end);
        }
    }
}

// §8.1 Handling of Errors in UTF-8-Encoded Data

/// Text that is not UTF-8, and its first byte that no valid text could have there.
#[rustfmt::skip]
const NOT_UTF_8: [(&[u8], usize); 20] = [
    (b"\xFF", 0),
    (b"\xFE", 0),
    (b"\x80", 0),
    (b"\xBF", 0),
    (b"\xC0\x80", 0),
    (b"\xC1\xBF", 0),
    (b"\xE0\x80\x80", 1),
    (b"\xE0\x9F\xBF", 1),
    (b"\xED\xA0\x80", 1),
    (b"\xED\xBF\xBF", 1),
    (b"\xF0\x80\x80\x80", 1),
    (b"\xF0\x8F\xBF\xBF", 1),
    (b"\xF4\x90\x80\x80", 1),
    (b"\xF5\x80\x80\x80", 0),
    (b"\xF8\x88\x80\x80\x80", 0),
    (b"a\xC3(", 2),
    (b"ab\xE2\x82(", 4),
    (b"abc\xF0\x9F\x98(", 6),
    (b"\xCE\xBA\xE1\xBD\xB9\xCF\x83\xCE\xBC\xCE\xB5\xED\xA0\x80edited", 12),
    (b"\xCE\xBA\xE1\xBD\xB9\xCF\x83\xCE\xBC\xCE\xB5\xF4\x90\x80\x80edited", 12),
];

#[test]
fn section_8_1_text_that_is_not_utf_8_is_refused_at_its_first_wrong_byte() {
    for (text, wrong) in NOT_UTF_8 {
        check(&frame(TEXT, text), b"", violated(1007, Violation::InvalidUtf8));

        // Inside a frame that goes on for long.
        for len in [125, 300, 70_000] {
            let mut payload = text.to_vec();
            payload.resize(len, b'x');
            for first in [TEXT, FIRST_TEXT] {
                let whole = frame(first, &payload);
                let header_len = whole.len() - len;
                let at = header_len + wrong;
                check_fails_at(&whole[..=at], at, 1007, Violation::InvalidUtf8);
                check(&whole[..=at], b"", violated(1007, Violation::InvalidUtf8));
            }
        }

        // In a later fragment, and with the character begun in an earlier one.
        for cut in 0..=wrong {
            let start = frame(FIRST_TEXT, &text[..cut]);
            let rest = frame(MIDDLE, &[&text[cut..], b"xyz"].concat());
            let at = start.len() + 6 + wrong - cut;
            let wire = [start, rest].concat();
            check_fails_at(&wire, at, 1007, Violation::InvalidUtf8);
        }
    }
}

#[test]
fn section_8_1_text_that_ends_inside_a_character_is_refused_at_its_end() {
    for text in [&b"\xC3"[..], b"a\xE2\x82", b"\xF0\x9F\x98", b"\xF4\x8F\xBF"] {
        let single = frame(TEXT, text);
        check_fails_at(&single, single.len() - 1, 1007, Violation::InvalidUtf8);
        check(&single, b"", violated(1007, Violation::InvalidUtf8));

        let fragments = [frame(FIRST_TEXT, text), frame(PONG, b""), frame(LAST, b"")].concat();
        check_fails_at(&fragments, fragments.len() - 1, 1007, Violation::InvalidUtf8);

        // As long as more may come, it may still become text.
        check(&frame(FIRST_TEXT, text), b"", Open);
    }
}

#[test]
fn section_8_1_only_text_has_to_be_utf_8() {
    for (bytes, _) in NOT_UTF_8 {
        check(&frame(BINARY, bytes), &server_frame(BINARY, bytes), Open);
        let wire = [frame(FIRST_BINARY, bytes), frame(LAST, bytes)].concat();
        check(&wire, &server_frame(BINARY, &[bytes, bytes].concat()), Open);
        check(&frame(PING, bytes), &server_frame(PONG, bytes), Open);
    }
}

#[test]
fn section_8_1_each_text_is_checked_afresh() {
    // Text of the same length behind other text, and behind binary that is none.
    let wire = [
        frame(FIRST_TEXT, "é€".as_bytes()),
        frame(LAST, "é".as_bytes()),
        frame(FIRST_BINARY, b"\xFF\xFF\xFF\xFF"),
        frame(LAST, b"\xFF\xFF\xFF"),
        frame(FIRST_TEXT, b"\xF0\x9F"),
        frame(LAST, b"\x98\x80\xC3\xA9\xFF"),
    ];
    let reply = [server_frame(TEXT, "é€é".as_bytes()), server_frame(BINARY, &[0xFF; 7])];
    check(&wire.concat(), &reply.concat(), violated(1007, Violation::InvalidUtf8));
}

#[test]
fn section_8_1_a_close_reason_that_is_not_utf_8_fails_the_connection() {
    for (reason, _) in NOT_UTF_8 {
        let wire = frame(CLOSE, &[b"\x03\xE8", reason].concat());
        check(&wire, b"", violated(1007, Violation::InvalidUtf8));
    }
    let cut = frame(CLOSE, b"\x03\xE8\xE2\x82");
    check(&cut, b"", violated(1007, Violation::InvalidUtf8));
}

// §10.4 Implementation-Specific Limits

/// A message of `len` bytes as one frame, in two fragments, and in three with an empty one.
fn in_fragments(len: usize) -> [Vec<u8>; 3] {
    let payload = vec![b'x'; len];
    let (start, rest) = payload.split_at(len / 3);
    [
        frame(TEXT, &payload),
        [frame(FIRST_TEXT, start), frame(LAST, rest)].concat(),
        [frame(FIRST_TEXT, start), frame(MIDDLE, rest), frame(LAST, b"")].concat(),
    ]
}

#[test]
fn section_10_4_a_message_may_be_as_large_as_the_limit_and_not_a_byte_larger() {
    for limit in [0, 1, 125, 126, 1_000, 65_536, 70_000] {
        for wire in in_fragments(limit) {
            let reply = server_frame(TEXT, &vec![b'x'; limit]);
            check_within(limit, &wire, &reply, Open);
        }
        for wire in in_fragments(limit + 1) {
            check_within(limit, &wire, b"", violated(1009, Violation::MessageTooBig));
        }
    }
}

#[test]
fn section_10_4_the_limit_is_each_messages_own() {
    let wire: Vec<u8> = in_fragments(10).concat().repeat(3);
    let reply = server_frame(TEXT, b"xxxxxxxxxx").repeat(9);
    check_within(10, &wire, &reply, Open);
    // Control frames are no part of it.
    let wire = [frame(FIRST_TEXT, b"ab"), frame(PING, &[b'p'; 125]), frame(LAST, b"c")].concat();
    let reply = [server_frame(PONG, &[b'p'; 125]), server_frame(TEXT, b"abc")].concat();
    check_within(3, &wire, &reply, Open);
}

#[test]
fn section_10_4_a_message_over_the_limit_is_refused_from_its_header() {
    let over = frame(BINARY, &vec![0; LIMIT + 1]);
    check_fails_at(&over[..14], 13, 1009, Violation::MessageTooBig);
    let largest = [&[BINARY, 0xFF, 0x7F], &[0xFF; 7][..], &[1, 2, 3, 4]].concat();
    check_fails_at(&largest, 13, 1009, Violation::MessageTooBig);

    // A sum that would not fit in 64 bits.
    let start = frame(FIRST_BINARY, b"ab");
    let at = start.len() + 13;
    let mut rest = largest;
    rest[0] = LAST;
    check_fails_at(&[start, rest].concat(), at, 1009, Violation::MessageTooBig);
}

#[test]
fn section_10_4_memory_beyond_the_budget_is_refused() {
    for straight_above in [NEVER, 0] {
        for wire in in_fragments(OWN + 1) {
            let mut conversation =
                Conversation::new(LIMIT, Arc::new(Budget::new(0)), straight_above);
            for piece in wire.chunks(1_000) {
                conversation.hear(piece);
            }
            let end = End::Failed(1013, Cause::MemoryShort);
            expect(&conversation, b"", end, "more than its own 64 KiB");
        }
    }
}

#[test]
fn section_10_4_a_message_of_64_kib_needs_no_budget() {
    for len in [1, 1_000, OWN - 1, OWN] {
        for wire in in_fragments(len) {
            for (straight_above, piece_len) in [(NEVER, 1), (0, 1), (NEVER, 1_000), (0, OWN)] {
                let budget = Arc::new(Budget::new(0));
                let mut conversation = Conversation::new(LIMIT, budget, straight_above);
                for piece in wire.chunks(piece_len) {
                    conversation.hear(piece);
                }
                let reply = server_frame(TEXT, &vec![b'x'; len]);
                expect(&conversation, &reply, Open, &format!("{len} by {piece_len}"));
            }
        }
    }
}

#[test]
fn section_10_4_what_one_client_gives_back_another_can_have() {
    let budget = Arc::new(Budget::new(OWN));
    let payload = vec![b'x'; 2 * OWN];
    let message = frame(BINARY, &payload);
    let speak = |bytes: &[u8]| {
        let mut conversation = Conversation::new(LIMIT, Arc::clone(&budget), NEVER);
        for piece in bytes.chunks(1_000) {
            conversation.hear(piece);
        }
        conversation
    };

    let mut first = speak(&message);
    assert!(first.session.hoards());
    let refused = speak(&message);
    expect(&refused, b"", End::Failed(1013, Cause::MemoryShort), "while it is taken");

    first.session.release();
    assert!(!first.session.hoards());
    let unfinished = speak(&message[..message.len() - 1]);
    let refused = speak(&message);
    expect(&refused, b"", End::Failed(1013, Cause::MemoryShort), "while it is taken again");

    drop(unfinished);
    expect(&speak(&message), &server_frame(BINARY, &payload), Open, "when it was given back");
}

#[test]
fn section_10_4_memory_is_not_given_up_while_a_message_needs_it() {
    let payload = vec![b'x'; 2 * OWN];
    let message = frame(BINARY, &payload);
    let mut conversation = Conversation::new(LIMIT, Arc::new(Budget::new(OWN)), NEVER);
    for piece in message.chunks(1_000) {
        conversation.hear(piece);
        conversation.session.release();
    }
    expect(&conversation, &server_frame(BINARY, &payload), Open, "released all the time");
}

// This file itself

#[test]
fn the_table_above_names_tests_that_exist() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let read = |file| fs::read_to_string(tests.join(file)).unwrap();
    let (rfc6455, others) = (read("rfc6455.rs"), read("handshake.rs") + &read("conversation.rs"));
    let rows = rfc6455.lines().filter(|line| line.starts_with("//! | ")).skip(1);
    let mut named = 0;
    for row in rows {
        let cell = row.trim_end_matches(" |").rsplit(" | ").next().unwrap();
        for name in cell.split(", ").map(|name| name.trim_matches('`')) {
            let test = format!("#[test]\nfn {name}() {{");
            assert!(rfc6455.contains(&test) || others.contains(&test), "{name}");
            named += 1;
        }
    }
    assert!(named > 40, "{named}");
}
