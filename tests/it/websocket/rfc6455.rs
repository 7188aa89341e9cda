//! RFC 6455 section by section: every MUST on a server, byte by byte and without a socket.
//!
//! The table lists each MUST that binds this server, and the tests that check it. Those of §4 are in
//! `handshake`, `http::request` and `app::routes`. Not listed is what the server has no part in: TLS,
//! extensions that it offers, and what intermediaries must not do.
//!
//! | section | the MUST | test |
//! |---|---|---|
//! | 4.2.1 | a handshake that does not match "MUST stop processing … and return an HTTP response with an appropriate error code" | `each_header_missing_repeated_and_in_odd_forms`, `the_first_row_that_fits_is_the_response` |
//! | 4.2.1 | "an absolute HTTP/HTTPS URI containing the /resource name/" is read | `a_target_may_be_absolute_and_have_a_query` |
//! | 4.2.1 | "treated as an ASCII case-insensitive value", "unknown header fields are ignored" | `each_header_missing_repeated_and_in_odd_forms`, `other_fields_may_hold_anything_but_control_characters` |
//! | 4.2.2 | an origin that is not allowed: "MUST return an appropriate HTTP error code (e.g., 403 Forbidden)" | `an_origin_that_is_not_listed_is_forbidden` |
//! | 4.2.2, 4.4 | another version: "MUST abort … and instead send an appropriate HTTP error code (such as 426 Upgrade Required) and a Sec-WebSocket-Version header field" | `another_version_is_answered_426_and_told_the_right_one` |
//! | 4.2.2 | "If the requested service is not available, the server MUST send an appropriate HTTP error code" | `a_response_says_in_its_headers_what_to_do_next` |
//! | 4.2.2 | the subprotocol "MUST be derived from the client's handshake"; none agreed, "it MUST NOT send back" the field | `a_subprotocol_is_agreed_only_from_the_clients_offer` |
//! | 4.2.2 | "Extensions not listed by the client MUST NOT be listed" | `extensions_are_declined_by_silence` |
//! | 4.2.2 | "it MUST reply with a valid HTTP response": 101, Upgrade, Connection, Sec-WebSocket-Accept | `the_published_examples_are_answered_to_the_byte` |
//! | 5.1 | "The server MUST close the connection upon receiving a frame that is not masked" | `section_5_1_a_frame_without_a_mask_is_refused` |
//! | 5.1 | "A server MUST NOT mask any frames" | `section_5_1_no_reply_is_masked` |
//! | 5.2 | RSV1, RSV2, RSV3 "MUST be 0 unless an extension is negotiated" | `section_5_2_a_reserved_bit_is_refused` |
//! | 5.2 | "If an unknown opcode is received, the receiving endpoint MUST _Fail the WebSocket Connection_" | `section_5_2_a_reserved_opcode_is_refused` |
//! | 5.2 | of a 64-bit length "the most significant bit MUST be 0" | `section_5_2_a_length_with_its_top_bit_set_is_refused` |
//! | 5.2 | "the minimal number of bytes MUST be used to encode the length" | `section_5_2_a_length_that_is_not_minimal_is_refused`, `section_5_2_lengths_of_7_16_and_64_bits_are_read_and_written_in_network_byte_order` |
//! | 5.3 | the payload is the XOR with the masking key | `section_5_3_every_masking_key_is_undone` |
//! | 5.4 | "Control frames themselves MUST NOT be fragmented" | `section_5_5_a_fragmented_control_frame_is_refused` |
//! | 5.4 | fragments "MUST be delivered … in the order sent" | `section_5_4_fragments_make_one_message_in_their_order` |
//! | 5.4 | fragments "MUST NOT be interleaved between the fragments of another message" | `section_5_4_a_message_inside_an_unfinished_one_is_refused` |
//! | 5.4 | an unfragmented message has "an opcode other than 0" | `section_5_4_a_continuation_of_nothing_is_refused` |
//! | 5.4 | "MUST be capable of handling control frames in the middle of a fragmented message" | `section_5_4_control_frames_are_answered_inside_a_fragmented_message` |
//! | 5.4 | "MUST support receiving both fragmented and unfragmented messages" | `section_5_4_fragments_make_one_message_in_their_order`, `section_5_6_text_and_binary_come_back_as_they_were` |
//! | 5.5 | control frames "MUST have a payload length of 125 bytes or less" | `section_5_5_a_control_frame_of_126_bytes_is_refused` |
//! | 5.5.1 | of a body "the first two bytes … MUST be a 2-byte unsigned integer" | `section_5_5_1_a_close_payload_of_one_byte_is_refused` |
//! | 5.5.1 | "MUST NOT send any more data frames after sending a Close frame" | `section_5_5_1_nothing_is_answered_after_a_close`, `section_7_1_7_nothing_is_processed_after_a_refusal` |
//! | 5.5.1 | "the endpoint MUST send a Close frame in response" | `section_5_5_1_a_close_is_answered_by_its_code` |
//! | 5.5.1 | "The server MUST close the underlying TCP connection immediately" | `nothing_follows_the_answer_to_a_close_frame` |
//! | 5.5.2 | "MUST send a Pong frame in response, unless it already received a Close frame" | `section_5_5_2_a_ping_is_answered_by_its_payload`, `section_5_5_1_nothing_is_answered_after_a_close` |
//! | 5.5.3 | the pong "must have identical Application data" | `section_5_5_2_a_ping_is_answered_by_its_payload` |
//! | 5.5.3 | "A response to an unsolicited Pong frame is not expected" | `section_5_5_3_a_pong_is_not_answered` |
//! | 5.6 | "the whole message MUST contain valid UTF-8" | `section_5_6_a_character_may_be_split_by_fragments`, `section_8_1_text_that_is_not_utf_8_is_refused_at_its_first_wrong_byte` |
//! | 5.8, 9.1 | nothing of an extension may be used without negotiation | `section_5_2_a_reserved_bit_is_refused`, `section_5_2_a_reserved_opcode_is_refused` |
//! | 7.1.7 | "MUST NOT continue to attempt to process data … from the remote endpoint" | `section_7_1_7_nothing_is_processed_after_a_refusal` |
//! | 7.1.7 | "SHOULD send a Close frame with an appropriate status code" | `section_7_1_7_every_refusal_comes_after_the_replies_to_what_came_before` |
//! | 7.4.1 | 1005, 1006 and 1015 "MUST NOT be set as a status code in a Close control frame" | `section_7_4_the_codes_that_may_be_sent_are_echoed_and_all_others_refused` |
//! | 7.4.2 | "Status codes in the range 0-999 are not used"; undefined ones of 1000-2999 neither | `section_7_4_the_codes_that_may_be_sent_are_echoed_and_all_others_refused` |
//! | 8.1 | bytes that are not UTF-8: "MUST _Fail the WebSocket Connection_" | `section_8_1_text_that_is_not_utf_8_is_refused_at_its_first_wrong_byte`, `section_8_1_a_close_reason_that_is_not_utf_8_is_refused` |
//! | 10.4 | "MUST protect themselves against exceeding these limits" | `section_10_4_a_message_may_be_as_large_as_the_limit_and_not_a_byte_larger`, `section_10_4_a_message_over_the_limit_is_refused_from_its_header`, `section_10_4_memory_beyond_the_budget_is_refused_and_64_kib_need_none`, `memory_that_one_client_gives_back_is_there_for_another` |

use std::fs;
use std::path::Path;

use wsecho::buffer::{STEP, UNMETERED};
use wsecho::websocket::close::{CloseFrame, OVER_BUDGET};
use wsecho::websocket::error::ProtocolError::{self, *};

use crate::driver::{Closed, Driver, service};
use crate::frames::{close, frame, masked_frame, server_frame};

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

/// The server waits for more.
const OPEN: Option<Closed> = None;

fn by_peer(code: Option<u16>, reason: &str) -> Closed {
    Closed::ByPeer(match (code, reason) {
        (None, _) => "no code".into(),
        (Some(code), "") => code.to_string(),
        (Some(code), reason) => format!("{code} {reason:?}"),
    })
}

fn too_big(size: u64, limit: usize) -> ProtocolError {
    MessageTooBig { size, limit }
}

fn by_server(close: impl Into<CloseFrame>) -> Closed {
    Closed::by_server(close)
}

/// Fails unless the same replies and the same end follow from `input`, in every way in which a network
/// may split it. A close frame of the server comes after the replies.
#[track_caller]
fn check(input: &[u8], replies: &[u8], closed: impl Into<Option<Closed>>) {
    check_within(LIMIT, input, replies, closed);
}

#[track_caller]
fn check_within(limit: usize, input: &[u8], replies: &[u8], closed: impl Into<Option<Closed>>) {
    let service = service(limit, limit);
    let closed = closed.into();
    for pieces in splits(input) {
        let mut driver = Driver::open(&service);
        for piece in &pieces {
            driver.receive(piece);
        }
        let lens: Vec<_> = pieces.iter().take(3).map(|piece| piece.len()).collect();
        expect(&driver, replies, closed.as_ref(), &format!("pieces {lens:?}…"));
    }
}

#[track_caller]
fn expect(driver: &Driver, replies: &[u8], closed: Option<&Closed>, case: &str) {
    assert_eq!(driver.closed().as_ref(), closed, "{case}");
    let close = match closed {
        Some(Closed::ByServer(payload)) => server_frame(CLOSE, payload),
        _ => vec![],
    };
    let start = &driver.sent[..driver.sent.len().min(64)];
    assert!(driver.sent == [replies, &close].concat(), "{case}: {start:02X?}… is sent");
}

/// [`check`] for an `input` that is refused without a reply.
#[track_caller]
fn check_refused(input: &[u8], error: ProtocolError) {
    check(input, b"", by_server(error));
}

/// Whole, byte by byte, and in two at every place. A long input is split near its ends and at some
/// places between them.
fn splits(input: &[u8]) -> Vec<Vec<&[u8]>> {
    const NEAR: usize = 64;
    const BETWEEN: usize = 16;
    let len = input.len();
    let step = (len / BETWEEN).max(1);
    let places = (1..len).filter(|place| *place < NEAR || len - place < NEAR || place % step == 0);
    let mut splits = vec![vec![input], input.chunks(1).collect()];
    splits.extend(places.map(|place| vec![&input[..place], &input[place..]]));
    splits
}

/// Fails unless `input`, byte by byte, is refused exactly at the byte `at`.
#[track_caller]
fn check_refused_at(input: &[u8], at: usize, error: ProtocolError) {
    let service = service(LIMIT, LIMIT);
    let mut driver = Driver::open(&service);
    for byte in input[..at].chunks(1) {
        driver.receive(byte);
    }
    expect(&driver, b"", None, &format!("before byte {at}"));
    driver.receive(&input[at..=at]);
    expect(&driver, b"", Some(&by_server(error)), &format!("up to byte {at}"));
}

/// What a client must not send, and the error and the close code for each.
#[rustfmt::skip]
fn refused() -> Vec<(Vec<u8>, ProtocolError, u16)> {
    vec![
        (vec![TEXT, 0x05, b'H', b'e', b'l', b'l', b'o'], NotMasked, 1002),
        (vec![PING, 0x00], NotMasked, 1002),
        (frame(0xC1, b"rsv1"), ReservedBits, 1002),
        (frame(0xA2, b"rsv2"), ReservedBits, 1002),
        (frame(0x99, b"rsv3"), ReservedBits, 1002),
        (frame(0x83, b""), ReservedOpcode, 1002),
        (frame(0x8B, b""), ReservedOpcode, 1002),
        (vec![BINARY, 0xFE, 0, 125], LengthNotMinimal, 1002),
        (vec![BINARY, 0xFF, 0x80, 0, 0, 0, 0, 0, 0, 0], LengthTopBit, 1002),
        (frame(0x09, b"part"), FragmentedControl, 1002),
        (frame(PING, &[b'x'; 126]), LongControl, 1002),
        (frame(LAST, b"of nothing"), UnexpectedContinuation, 1002),
        ([frame(FIRST_TEXT, b"a"), frame(TEXT, b"b")].concat(), UnfinishedMessage, 1002),
        (frame(CLOSE, b"\x03"), ClosePayload, 1002),
        (close(1005), CloseCode, 1002),
        (frame(CLOSE, b"\x03\xE8\xFF"), InvalidUtf8, 1007),
        (frame(TEXT, b"\xFF"), InvalidUtf8, 1007),
        (frame(BINARY, &vec![0; LIMIT + 1])[..14].to_vec(), too_big(LIMIT as u64 + 1, LIMIT), 1009),
    ]
}

// §5.1 Overview

#[test]
fn section_5_1_a_frame_without_a_mask_is_refused() {
    for first in [TEXT, BINARY, CLOSE, PING, PONG, FIRST_TEXT] {
        let input = server_frame(first, b"\x03\xE8");
        check_refused(&input, NotMasked);
        check_refused_at(&input, 1, NotMasked);
    }
    let inside = [frame(FIRST_TEXT, b"a"), server_frame(LAST, b"b")].concat();
    check_refused(&inside, NotMasked);
}

#[test]
fn section_5_1_no_reply_is_masked() {
    let input = [frame(TEXT, b"t"), frame(BINARY, b"b"), frame(PING, b"p"), close(1000)].concat();
    let reply = b"\x81\x01t\x82\x01b\x8A\x01p\x88\x02\x03\xE8";
    check(&input, reply, by_peer(Some(1000), ""));
}

// §5.2 Base Framing Protocol

#[test]
fn section_5_2_a_reserved_bit_is_refused() {
    for bits in 1..8 {
        for first in [TEXT, BINARY, FIRST_TEXT, CLOSE, PING, PONG] {
            check_refused(&frame(first | bits << 4, b""), ReservedBits);
        }
        let inside = [frame(FIRST_TEXT, b"a"), frame(LAST | bits << 4, b"b")].concat();
        check_refused(&inside, ReservedBits);
    }
}

#[test]
fn section_5_2_a_reserved_opcode_is_refused() {
    for opcode in (0x3..=0x7).chain(0xB..=0xF) {
        for first in [opcode, 0x80 | opcode] {
            let input = frame(first, b"any");
            check_refused(&input, ReservedOpcode);
            let inside = [frame(FIRST_BINARY, b"a"), input].concat();
            check_refused(&inside, ReservedOpcode);
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
        let input = [&[BINARY], masked.as_slice()].concat();
        let reply = [&[BINARY], encoded, &payload].concat();
        check(&input, &reply, OPEN);
    }
}

#[test]
fn section_5_2_a_length_that_is_not_minimal_is_refused() {
    for (len, at) in [
        (&[0xFE, 0, 0][..], 3),
        (&[0xFE, 0, 124], 3),
        (&[0xFE, 0, 125], 3),
        (&[0xFF, 0, 0, 0, 0, 0, 0, 0, 0], 9),
        (&[0xFF, 0, 0, 0, 0, 0, 0, 0, 126], 9),
        (&[0xFF, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF], 9),
    ] {
        for first in [TEXT, BINARY, CLOSE, PING] {
            let input = [&[first], len, &[0; 200]].concat();
            check_refused(&input, LengthNotMinimal);
            check_refused_at(&input, at, LengthNotMinimal);
        }
    }
}

#[test]
fn section_5_2_a_length_with_its_top_bit_set_is_refused() {
    for (high, low) in [(0x80, 0), (0x80, 5), (0xFF, 0xFF)] {
        let input = [BINARY, 0xFF, high, 0, 0, 0, 0, 0, 0, low];
        check_refused(&input, LengthTopBit);
    }
}

// §5.3 Client-to-Server Masking

#[test]
fn section_5_3_every_masking_key_is_undone() {
    for key in [[0; 4], [0x37, 0xFA, 0x21, 0x3D], [0xFF; 4], [0, 0, 0, 1]] {
        check(&masked_frame(TEXT, b"Hello", key), b"\x81\x05Hello", OPEN);
    }
    // The example of §5.7.
    let example = b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58";
    check(example, b"\x81\x05Hello", OPEN);
}

// §5.4 Fragmentation

#[test]
fn section_5_4_fragments_make_one_message_in_their_order() {
    for (fragments, first, message) in [
        (&[(FIRST_TEXT, "Hel"), (LAST, "lo")][..], TEXT, "Hello"),
        (&[(FIRST_TEXT, "a"), (MIDDLE, "b"), (MIDDLE, "c"), (LAST, "d")], TEXT, "abcd"),
        (&[(FIRST_TEXT, ""), (MIDDLE, ""), (LAST, "")], TEXT, ""),
        (&[(FIRST_BINARY, ""), (MIDDLE, "x"), (LAST, "")], BINARY, "x"),
        (&[(FIRST_BINARY, "one"), (LAST, "two")], BINARY, "onetwo"),
    ] {
        let fragment = |(first, payload): &(u8, &str)| frame(*first, payload.as_bytes());
        let input: Vec<u8> = fragments.iter().flat_map(fragment).collect();
        let reply = server_frame(first, message.as_bytes());
        check(&input, &reply, OPEN);
        check(
            &[&input[..], &frame(TEXT, b"c"), &input].concat(),
            &[&reply[..], b"\x81\x01c", &reply].concat(),
            OPEN,
        );
    }
    let payload: Vec<u8> = (0..3_000_u32).map(|index| (index % 251) as u8).collect();
    let middle = payload.iter().flat_map(|byte| frame(MIDDLE, &[*byte]));
    let many = [frame(FIRST_BINARY, b""), middle.collect(), frame(LAST, b"")].concat();
    check(&many, &server_frame(BINARY, &payload), OPEN);
}

#[test]
fn section_5_4_an_unfinished_message_is_not_answered() {
    check(&frame(FIRST_TEXT, b"unfinished"), b"", OPEN);
    check(&frame(TEXT, b"unfinished")[..12], b"", OPEN);
    let input = [frame(FIRST_TEXT, b"a"), frame(MIDDLE, b"b")].concat();
    check(&input, b"", OPEN);
}

#[test]
fn section_5_4_control_frames_are_answered_inside_a_fragmented_message() {
    let input = [
        frame(FIRST_TEXT, b"Hel"),
        frame(PING, b"one"),
        frame(PONG, b"unsolicited"),
        frame(MIDDLE, b"l"),
        frame(PING, b"two"),
        frame(LAST, b"o"),
    ];
    let reply =
        [server_frame(PONG, b"one"), server_frame(PONG, b"two"), server_frame(TEXT, b"Hello")];
    check(&input.concat(), &reply.concat(), OPEN);

    let closed = [frame(FIRST_TEXT, b"Hel"), close(1001), frame(LAST, b"lo")].concat();
    check(&closed, b"\x88\x02\x03\xE9", by_peer(Some(1001), ""));
}

#[test]
fn section_5_4_a_message_inside_an_unfinished_one_is_refused() {
    for outer in [FIRST_TEXT, FIRST_BINARY] {
        for inner in [TEXT, BINARY, FIRST_TEXT, FIRST_BINARY] {
            for between in [vec![], frame(MIDDLE, b"b"), frame(PONG, b"c")] {
                check_refused(
                    &[frame(outer, b"a"), between, frame(inner, b"d")].concat(),
                    UnfinishedMessage,
                );
            }
        }
    }
}

#[test]
fn section_5_4_a_continuation_of_nothing_is_refused() {
    for first in [MIDDLE, LAST] {
        check_refused(&frame(first, b"a"), UnexpectedContinuation);
        check_refused(&frame(first, b""), UnexpectedContinuation);
        let after_a_message = [frame(TEXT, b"a"), frame(first, b"b")].concat();
        check(&after_a_message, b"\x81\x01a", by_server(UnexpectedContinuation));
        let after_fragments = [frame(FIRST_TEXT, b"a"), frame(LAST, b"b"), frame(first, b"c")];
        check(&after_fragments.concat(), b"\x81\x02ab", by_server(UnexpectedContinuation));
    }
}

// §5.5 Control Frames

#[test]
fn section_5_5_a_fragmented_control_frame_is_refused() {
    for opcode in [CLOSE, PING, PONG].map(|first| first & 0x0F) {
        check_refused(&frame(opcode, b""), FragmentedControl);
        let inside = [frame(FIRST_TEXT, b"a"), frame(opcode, b"\x03\xE8"), frame(LAST, b"b")];
        check_refused(&inside.concat(), FragmentedControl);
    }
}

#[test]
fn section_5_5_a_control_frame_of_126_bytes_is_refused() {
    for first in [CLOSE, PING, PONG] {
        for len in [126, 1_000, 65_536] {
            let input = frame(first, &vec![b'x'; len]);
            check_refused(&input, LongControl);
            // Its header is enough.
            let header_len = input.len() - len;
            check_refused(&input[..header_len], LongControl);
        }
    }
}

// §5.5.1 Close

#[test]
fn section_5_5_1_a_close_is_answered_by_its_code() {
    check(&frame(CLOSE, b""), b"\x88\x00", by_peer(None, ""));
    check(&close(1000), b"\x88\x02\x03\xE8", by_peer(Some(1000), ""));
    let longest = "é".repeat(61) + "!";
    for reason in ["x", "going away, …", &longest] {
        let payload = [b"\x0F\xA0", reason.as_bytes()].concat();
        let input = frame(CLOSE, &payload);
        check(&input, b"\x88\x02\x0F\xA0", by_peer(Some(4000), reason));
    }
}

#[test]
fn section_5_5_1_a_close_payload_of_one_byte_is_refused() {
    for byte in [0x00, 0x03, 0xFF] {
        check_refused(&frame(CLOSE, &[byte]), ClosePayload);
    }
}

#[test]
fn section_5_5_1_nothing_is_answered_after_a_close() {
    let refused = refused().into_iter().map(|(input, ..)| input);
    for late in refused.chain([frame(TEXT, b"late"), frame(PING, b"late"), close(1001)]) {
        let input = [frame(TEXT, b"a"), close(1000), late].concat();
        check(&input, b"\x81\x01a\x88\x02\x03\xE8", by_peer(Some(1000), ""));
    }
}

// §5.5.2 Ping, §5.5.3 Pong

#[test]
fn section_5_5_2_a_ping_is_answered_by_its_payload() {
    for payload in [&b""[..], b"Hello", b"\x00\xFF\xFE", &[0xA5; 125]] {
        check(&frame(PING, payload), &server_frame(PONG, payload), OPEN);
    }
}

#[test]
fn section_5_5_2_a_pong_comes_before_every_later_reply() {
    let input = [
        frame(TEXT, b"a"),
        frame(PING, b"1"),
        frame(PING, b"2"),
        frame(TEXT, b"b"),
        frame(PING, b"3"),
        close(1000),
    ];
    let reply = b"\x81\x01a\x8A\x011\x8A\x012\x81\x01b\x8A\x013\x88\x02\x03\xE8";
    check(&input.concat(), reply, by_peer(Some(1000), ""));
}

#[test]
fn section_5_5_3_a_pong_is_not_answered() {
    let input = [frame(PONG, b""), frame(PONG, &[0xFF; 125]), frame(TEXT, b"a")];
    check(&input.concat(), b"\x81\x01a", OPEN);
}

// §5.6 Data Frames

#[test]
fn section_5_6_text_and_binary_come_back_as_they_were() {
    for text in ["", "plain", "κόσμε", "\0", "\u{10FFFF}\u{FFFE}\u{7FF}\u{800}", "\u{FEFF}bom"]
    {
        check(&frame(TEXT, text.as_bytes()), &server_frame(TEXT, text.as_bytes()), OPEN);
    }
    for bytes in [&b""[..], b"\xFF\xC0\x80", &[0; 300]] {
        check(&frame(BINARY, bytes), &server_frame(BINARY, bytes), OPEN);
    }
}

#[test]
fn section_5_6_a_character_may_be_split_by_fragments() {
    let text = "é€😀\u{10FFFF}".as_bytes();
    for at in 0..=text.len() {
        let (start, rest) = text.split_at(at);
        let input =
            [frame(FIRST_TEXT, start), frame(PING, b""), frame(MIDDLE, b""), frame(LAST, rest)];
        let reply = [server_frame(PONG, b""), server_frame(TEXT, text)].concat();
        check(&input.concat(), &reply, OPEN);
    }
    let bytes: Vec<u8> = text.iter().flat_map(|byte| frame(MIDDLE, &[*byte])).collect();
    let in_bytes = [frame(FIRST_TEXT, b""), bytes, frame(LAST, b"")].concat();
    check(&in_bytes, &server_frame(TEXT, text), OPEN);
}

// §7.1.7 Fail the WebSocket Connection

#[test]
fn section_7_1_7_every_refusal_comes_after_the_replies_to_what_came_before() {
    let before = [frame(TEXT, b"a"), frame(PING, b"p"), frame(BINARY, &[b'b'; 200])].concat();
    let replies =
        [server_frame(TEXT, b"a"), server_frame(PONG, b"p"), server_frame(BINARY, &[b'b'; 200])]
            .concat();
    for (input, error, code) in refused() {
        let close = CloseFrame::from(error);
        assert_eq!(close.code, Some(code), "{error:?}");
        assert!((1..=123).contains(&close.reason.as_str().len()), "{error:?}");
        assert_eq!(close.to_string(), format!("{code} {}", close.reason));
        check_refused(&input, error);
        let input = [before.as_slice(), &input].concat();
        check(&input, &replies, by_server(error));
    }
}

#[test]
fn section_7_1_7_nothing_is_processed_after_a_refusal() {
    for (input, error, _) in refused() {
        for late in [frame(TEXT, b"late"), frame(PING, b"late"), close(1000)] {
            check_refused(&[input.as_slice(), &late].concat(), error);
        }
    }
}

// §7.4 Status Codes

#[test]
fn section_7_4_the_codes_that_may_be_sent_are_echoed_and_all_others_refused() {
    let service = service(LIMIT, 0);
    for code in 0..=u16::MAX {
        let (reply, closed) = match code {
            // §7.4.1, the registry of §11.7, and the ranges for libraries and applications of §7.4.2.
            1000..=1003 | 1007..=1014 | 3000..=4999 => {
                (server_frame(CLOSE, &code.to_be_bytes()), Some(by_peer(Some(code), "")))
            }
            _ => (vec![], Some(by_server(CloseCode))),
        };
        let mut driver = Driver::open(&service);
        driver.receive(&close(code));
        expect(&driver, &reply, closed.as_ref(), &code.to_string());
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
        check_refused(&frame(TEXT, text), InvalidUtf8);

        // Inside a frame that goes on for long.
        for len in [125, 300, 70_000] {
            let mut payload = text.to_vec();
            payload.resize(len, b'x');
            for first in [TEXT, FIRST_TEXT] {
                let whole = frame(first, &payload);
                let header_len = whole.len() - len;
                let at = header_len + wrong;
                check_refused_at(&whole[..=at], at, InvalidUtf8);
                check_refused(&whole[..=at], InvalidUtf8);
            }
        }

        // In a later fragment, and with the character begun in an earlier one.
        for split in 0..=wrong {
            let start = frame(FIRST_TEXT, &text[..split]);
            let rest = frame(MIDDLE, &[&text[split..], b"xyz"].concat());
            let at = start.len() + 6 + wrong - split;
            let input = [start, rest].concat();
            check_refused_at(&input, at, InvalidUtf8);
        }
    }
}

#[test]
fn section_8_1_text_that_ends_inside_a_character_is_refused_at_its_end() {
    for text in [&b"\xC3"[..], b"a\xE2\x82", b"\xF0\x9F\x98", b"\xF4\x8F\xBF"] {
        let single = frame(TEXT, text);
        check_refused_at(&single, single.len() - 1, InvalidUtf8);
        check_refused(&single, InvalidUtf8);

        let fragments = [frame(FIRST_TEXT, text), frame(PONG, b""), frame(LAST, b"")].concat();
        check_refused_at(&fragments, fragments.len() - 1, InvalidUtf8);

        // As long as more may come, it may still become text.
        check(&frame(FIRST_TEXT, text), b"", OPEN);
    }
}

#[test]
fn section_8_1_only_text_has_to_be_utf_8() {
    for (bytes, _) in NOT_UTF_8 {
        check(&frame(BINARY, bytes), &server_frame(BINARY, bytes), OPEN);
        let input = [frame(FIRST_BINARY, bytes), frame(LAST, bytes)].concat();
        check(&input, &server_frame(BINARY, &[bytes, bytes].concat()), OPEN);
        check(&frame(PING, bytes), &server_frame(PONG, bytes), OPEN);
    }
}

#[test]
fn section_8_1_each_text_is_checked_afresh() {
    // Text of the same length after other text, and after binary that is not UTF-8.
    let input = [
        frame(FIRST_TEXT, "é€".as_bytes()),
        frame(LAST, "é".as_bytes()),
        frame(FIRST_BINARY, b"\xFF\xFF\xFF\xFF"),
        frame(LAST, b"\xFF\xFF\xFF"),
        frame(FIRST_TEXT, b"\xF0\x9F"),
        frame(LAST, b"\x98\x80\xC3\xA9\xFF"),
    ];
    let reply = [server_frame(TEXT, "é€é".as_bytes()), server_frame(BINARY, &[0xFF; 7])];
    check(&input.concat(), &reply.concat(), by_server(InvalidUtf8));
}

#[test]
fn section_8_1_a_close_reason_that_is_not_utf_8_is_refused() {
    for (reason, _) in NOT_UTF_8 {
        check_refused(&frame(CLOSE, &[b"\x03\xE8", reason].concat()), InvalidUtf8);
    }
    check_refused(&frame(CLOSE, b"\x03\xE8\xE2\x82"), InvalidUtf8);
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
        for input in in_fragments(limit) {
            let reply = server_frame(TEXT, &vec![b'x'; limit]);
            check_within(limit, &input, &reply, OPEN);
        }
        for input in in_fragments(limit + 1) {
            check_within(limit, &input, b"", by_server(too_big(limit as u64 + 1, limit)));
        }
    }
}

#[test]
fn section_10_4_the_limit_is_each_messages_own() {
    let input: Vec<u8> = in_fragments(10).concat().repeat(3);
    let reply = server_frame(TEXT, b"xxxxxxxxxx").repeat(9);
    check_within(10, &input, &reply, OPEN);
    // Control frames are no part of it.
    let input = [frame(FIRST_TEXT, b"ab"), frame(PING, &[b'p'; 125]), frame(LAST, b"c")].concat();
    let reply = [server_frame(PONG, &[b'p'; 125]), server_frame(TEXT, b"abc")].concat();
    check_within(3, &input, &reply, OPEN);
}

#[test]
fn section_10_4_a_message_over_the_limit_is_refused_from_its_header() {
    let over = frame(BINARY, &vec![0; LIMIT + 1]);
    check_refused_at(&over[..14], 13, too_big(LIMIT as u64 + 1, LIMIT));
    let largest = [&[BINARY, 0xFF, 0x7F], &[0xFF; 7][..], &[1, 2, 3, 4]].concat();
    check_refused_at(&largest, 13, too_big((1 << 63) - 1, LIMIT));

    // A sum that would not fit in 63 bits.
    let start = frame(FIRST_BINARY, b"ab");
    let at = start.len() + 13;
    let mut rest = largest;
    rest[0] = LAST;
    check_refused_at(&[start, rest].concat(), at, too_big((1 << 63) + 1, LIMIT));
}

#[test]
fn section_10_4_memory_beyond_the_budget_is_refused_and_64_kib_need_none() {
    for (budget, len, is_refused) in [
        (0, UNMETERED - 1, false),
        (0, UNMETERED, false),
        (0, UNMETERED + 1, true),
        (1, UNMETERED + 1, false),
        (1, UNMETERED + 2, true),
        (STEP, UNMETERED + STEP, false),
        (STEP, UNMETERED + STEP + 1, true),
    ] {
        let (replies, closed) = match is_refused {
            true => (vec![], Some(by_server(OVER_BUDGET))),
            false => (server_frame(TEXT, &vec![b'x'; len]), None),
        };
        for input in in_fragments(len) {
            for piece in [1, 1_000, 60_000] {
                let service = service(LIMIT, budget);
                let mut driver = Driver::open(&service);
                for piece in input.chunks(piece) {
                    driver.receive(piece);
                }
                expect(
                    &driver,
                    &replies,
                    closed.as_ref(),
                    &format!("{len} of {budget}, {piece} at once"),
                );
            }
        }
    }
}

// This file itself

#[test]
fn the_table_above_names_tests_that_exist() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it");
    let tests: String = ["http/request", "websocket/handshake", "app/routes", "app/conversation"]
        .iter()
        .map(|file| fs::read_to_string(dir.join(file).with_extension("rs")).unwrap())
        .chain([include_str!("rfc6455.rs").into()])
        .collect();
    let rows = include_str!("rfc6455.rs").lines().filter(|line| line.starts_with("//! | ")).skip(1);
    let cells = rows.map(|row| row.rsplit(" | ").next().unwrap());
    let names: Vec<_> = cells.flat_map(|cell| cell.split('`').skip(1).step_by(2)).collect();
    for name in &names {
        assert!(tests.contains(&format!("#[test]\nfn {name}() {{")), "{name}");
    }
    assert!(names.len() > 40, "{names:?}");
}
