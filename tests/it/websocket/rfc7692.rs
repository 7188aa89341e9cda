//! RFC 7692: what is agreed, and compressed messages, byte by byte and without a socket.

use std::time::Duration;

use miniz_oxide::MZFlush;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use wsecho::app::service::Service;
use wsecho::app::step::Step;
use wsecho::buffer::{STEP, UNMETERED};
use wsecho::http::request::Request;
use wsecho::websocket::close::OVER_BUDGET;
use wsecho::websocket::error::ProtocolError::{self, *};
use wsecho::websocket::handshake::{Policy, accept};
use wsecho::websocket::negotiation::{Mode, Negotiation, Parameters};

use super::inflate::inflate;
use crate::deflate::{Compressor, Inflater, TAIL};
use crate::driver::{Closed, Driver, PING_INTERVAL, service};
use crate::frames::{Random, close, frame};
use crate::http::{KEY, upgrade, upgrade_with};
use crate::support::read_frame;

/// "Hello", as five bytes that are five back (RFC 7692 §7.2.3.2).
const AGAIN: &[u8] = &[0xF2, 0x00, 0x11, 0x00, 0x00];

const FINAL_BLOCK: [u8; 5] = [0x01, 0x00, 0x00, 0xFF, 0xFF];

const LIMIT: usize = 1 << 20;

/// How far back a reply may refer, at most.
const HISTORY: usize = 4 * 1024;

/// Of a compressed message: its only frame, and its first.
const TEXT: u8 = 0xC1;
const BINARY: u8 = 0xC2;
const FIRST_TEXT: u8 = 0x41;
const FIRST_BINARY: u8 = 0x42;
const MIDDLE: u8 = 0x00;
const LAST: u8 = 0x80;

const STATELESS: Parameters = Parameters {
    server_no_context_takeover: true,
    client_no_context_takeover: true,
    server_max_window_bits: None,
    client_max_window_bits: None,
};

const TAKEOVER: Parameters = Parameters {
    server_no_context_takeover: false,
    client_no_context_takeover: false,
    server_max_window_bits: None,
    client_max_window_bits: None,
};

/// All that can be agreed on and makes a difference.
fn all_parameters() -> impl Iterator<Item = Parameters> {
    let windows = || (8..=15).map(Some).chain([None]);
    [STATELESS, TAKEOVER].into_iter().flat_map(move |client| {
        [true, false].into_iter().flat_map(move |server_no_context_takeover| {
            windows().map(move |server_max_window_bits| Parameters {
                server_no_context_takeover,
                server_max_window_bits,
                ..client
            })
        })
    })
}

// Negotiation

const CLIENT: &str = "client_no_context_takeover";
const SERVER: &str = "server_no_context_takeover";

fn negotiate(header: &str, terms: Option<Parameters>) -> Result<Negotiation, String> {
    let request = upgrade(KEY, &format!("{KEY}{header}"));
    let request = Request::parse(request.as_bytes()).unwrap();
    let policy = Policy { compression: terms, ..Policy::default() };
    accept(&request, &policy).map(|upgrade| upgrade.compression).map_err(|response| {
        assert_eq!(response.status, 400);
        response.body.into()
    })
}

#[test]
#[allow(clippy::too_many_lines, reason = "a table")]
fn section_5_offers_are_answered_declined_or_refused() {
    const NOTHING: &str = "permessage-deflate";
    let both = format!("{NOTHING}; {SERVER}; {CLIENT}");
    let stateful = |offer: &str| -> String {
        let header = format!("Sec-WebSocket-Extensions: {offer}\r\n");
        match negotiate(&header, Mode::ContextTakeover.terms()) {
            Ok(Negotiation::Agreed(parameters)) => parameters.to_string(),
            Ok(Negotiation::Declined(why)) => format!("declined: {why}"),
            Ok(Negotiation::NotOffered) => "not offered".into(),
            Err(body) => format!("400: {}", body.trim_end()),
        }
    };
    let malformed = "400: Sec-WebSocket-Extensions is not a valid extension list (RFC 6455 §9.1)";
    for (offer, answer) in [
        ("permessage-deflate", NOTHING),
        ("x-webkit-deflate-frame", "not offered"),
        ("Permessage-Deflate", "not offered"),
        ("foo; a; b=c; d=\"e\", permessage-deflate", NOTHING),
        ("permessage-deflate; server_no_context_takeover", &format!("{NOTHING}; {SERVER}")),
        ("permessage-deflate; client_no_context_takeover", &format!("{NOTHING}; {CLIENT}")),
        ("permessage-deflate;client_no_context_takeover;server_no_context_takeover", &both),
        ("permessage-deflate; client_max_window_bits", NOTHING),
        ("permessage-deflate; client_max_window_bits=8", NOTHING),
        ("permessage-deflate; client_max_window_bits=15", NOTHING),
        (
            "permessage-deflate; server_max_window_bits=15",
            &format!("{NOTHING}; server_max_window_bits=15"),
        ),
        (
            "permessage-deflate; server_max_window_bits=8",
            &format!("{NOTHING}; server_max_window_bits=8"),
        ),
        (
            "permessage-deflate ; server_max_window_bits = \"1\\0\"",
            &format!("{NOTHING}; server_max_window_bits=10"),
        ),
        // Declined, and the next one tried.
        (
            "permessage-deflate; server_max_window_bits",
            "declined: server_max_window_bits has no value",
        ),
        (
            "permessage-deflate; server_max_window_bits=7",
            "declined: server_max_window_bits is not a number from 8 to 15",
        ),
        (
            "permessage-deflate; server_max_window_bits=16",
            "declined: server_max_window_bits is not a number from 8 to 15",
        ),
        (
            "permessage-deflate; server_max_window_bits=08",
            "declined: server_max_window_bits is not a number from 8 to 15",
        ),
        (
            "permessage-deflate; server_max_window_bits=010",
            "declined: server_max_window_bits is not a number from 8 to 15",
        ),
        (
            "permessage-deflate; server_max_window_bits=+9",
            "declined: server_max_window_bits is not a number from 8 to 15",
        ),
        (
            "permessage-deflate; server_max_window_bits=x",
            "declined: server_max_window_bits is not a number from 8 to 15",
        ),
        (
            "permessage-deflate; client_max_window_bits=16",
            "declined: client_max_window_bits is not a number from 8 to 15",
        ),
        (
            "permessage-deflate; server_no_context_takeover=1",
            "declined: server_no_context_takeover has a value",
        ),
        (
            "permessage-deflate; client_no_context_takeover=\"x\"",
            "declined: client_no_context_takeover has a value",
        ),
        ("permessage-deflate; foo", "declined: parameter \"foo\" is unknown"),
        (
            "permessage-deflate; client_max_window_bits; client_max_window_bits",
            "declined: parameter \"client_max_window_bits\" is repeated",
        ),
        (
            "permessage-deflate; foo, permessage-deflate; server_max_window_bits=9, permessage-deflate",
            &format!("{NOTHING}; server_max_window_bits=9"),
        ),
        ("permessage-deflate; foo\r\nSec-WebSocket-Extensions: permessage-deflate", NOTHING),
        (
            "permessage-deflate; foo, permessage-deflate; bar",
            "declined: parameter \"foo\" is unknown",
        ),
        // Outside the grammar, and the connection has to fail (RFC 6455 §9.1).
        ("", malformed),
        (",", malformed),
        ("permessage-deflate;", malformed),
        ("permessage-deflate; =1", malformed),
        ("permessage-deflate; a=", malformed),
        ("permessage-deflate; a b", malformed),
        ("permessage deflate", malformed),
        ("permessage-deflate; a=\"b", malformed),
        ("permessage-deflate; a=\"b\\\"", malformed),
        ("permessage-deflate; a=\"\"", malformed),
        ("permessage-deflate; a=\"b,c\"", malformed),
        ("permessage-deflate; a=b=c", malformed),
        ("foo; bar=\"b c\", permessage-deflate", malformed),
    ] {
        assert_eq!(stateful(offer), answer, "{offer}");
    }
    assert_eq!(negotiate("", Mode::ContextTakeover.terms()), Ok(Negotiation::NotOffered));
    let offer = "Sec-WebSocket-Extensions: permessage-deflate\r\n";
    assert_eq!(
        negotiate(offer, Mode::NoContextTakeover.terms()),
        Ok(Negotiation::Agreed(STATELESS))
    );
    let off = Negotiation::Declined("compression is off".into());
    assert_eq!(negotiate(offer, Mode::Off.terms()), Ok(off));
    assert_eq!(STATELESS.to_string(), both);
}

#[test]
fn section_7_1_terms_of_the_server_are_met_or_the_offer_is_declined() {
    let no_takeover = "; server_no_context_takeover; client_no_context_takeover";
    let window = |server: u8, client: u8| Parameters {
        server_max_window_bits: Some(server),
        client_max_window_bits: Some(client),
        ..TAKEOVER
    };
    let declined = "declined: client_max_window_bits is not offered";
    for (terms, offer, answer) in [
        (STATELESS, "", no_takeover),
        (STATELESS, "; client_max_window_bits=9", no_takeover),
        (window(10, 11), "", declined),
        (window(10, 11), "; server_max_window_bits=8", declined),
        (
            window(10, 11),
            "; client_max_window_bits",
            "; server_max_window_bits=10; client_max_window_bits=11",
        ),
        (
            window(10, 11),
            "; client_max_window_bits=9; server_max_window_bits=12",
            "; server_max_window_bits=10; client_max_window_bits=9",
        ),
        (
            window(10, 11),
            "; server_max_window_bits=9; client_max_window_bits=12",
            "; server_max_window_bits=9; client_max_window_bits=11",
        ),
        (
            window(10, 11),
            ", permessage-deflate; client_max_window_bits",
            "; server_max_window_bits=10; client_max_window_bits=11",
        ),
    ] {
        let header = format!("Sec-WebSocket-Extensions: permessage-deflate{offer}\r\n");
        let answered = match negotiate(&header, Some(terms)).unwrap() {
            Negotiation::Agreed(parameters) => parameters.to_string(),
            Negotiation::Declined(why) => format!("permessage-deflatedeclined: {why}"),
            Negotiation::NotOffered => "not offered".into(),
        };
        assert_eq!(answered, format!("permessage-deflate{answer}"), "{offer}");
    }
}

// Messages

/// The payload of a message of a client that compresses each on its own.
fn compressed(message: &[u8]) -> Vec<u8> {
    Compressor::new(6).message(message)
}

/// A WebSocket that has agreed to `parameters`.
fn driver(service: &Service, parameters: Parameters) -> Driver<'_> {
    Driver::open_with(service, &format!("Sec-WebSocket-Extensions: {parameters}\r\n"))
}

/// What is sent when `bytes` come, and how it ends.
fn converse(parameters: Parameters, bytes: &[u8]) -> (Vec<u8>, Option<Closed>) {
    converse_in_pieces(parameters, LIMIT, bytes, &[usize::MAX])
}

fn converse_in_pieces(
    parameters: Parameters,
    limit: usize,
    bytes: &[u8],
    pieces: &[usize],
) -> (Vec<u8>, Option<Closed>) {
    let service = service(limit, 8 * LIMIT);
    let mut driver = driver(&service, parameters);
    driver.receive_in_pieces(bytes, pieces);
    let (output, closed) = (driver.sent.clone(), driver.closed());
    drop(driver);
    assert_eq!(service.budget.left(), 8 * LIMIT, "all is given back");
    (output, closed)
}

#[allow(clippy::unnecessary_wraps, reason = "it is compared to what `closed` returns")]
fn refused(error: ProtocolError) -> Option<Closed> {
    Some(Closed::by_server(error))
}

fn too_big(size: usize, limit: usize) -> Option<Closed> {
    refused(MessageTooBig { size: size as u64, limit })
}

/// The frames of a server, each compressed message inflated.
fn inflated(parameters: Parameters, mut output: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut frames = Vec::new();
    let mut inflater = Inflater::default();
    while !output.is_empty() {
        let (first, payload) = read_frame(&mut output);
        let payload = match first {
            TEXT | BINARY => {
                if parameters.server_no_context_takeover {
                    inflater = Inflater::default();
                }
                inflater.message(&payload).unwrap()
            }
            _ => payload,
        };
        frames.push((first, payload));
    }
    frames
}

/// What a client gets whose messages are these payloads.
fn echoes(parameters: Parameters, first: u8, payloads: &[&[u8]]) -> Vec<Vec<u8>> {
    let frames: Vec<_> = payloads.iter().flat_map(|payload| frame(first, payload)).collect();
    let (output, closed) = converse(parameters, &frames);
    assert_eq!(closed, None, "{parameters:?}");
    let frames = inflated(parameters, &output).into_iter();
    frames.map(|(its, payload)| if its == first { payload } else { panic!("{its:X}") }).collect()
}

#[test]
fn section_7_2_3_the_examples_are_inflated() {
    const HELLO: &[u8] = &[0xF2, 0x48, 0xCD, 0xC9, 0xC9, 0x07, 0x00];
    // §7.2.3.3: a block with no compression.
    let stored: &[u8] = &[0x00, 0x05, 0x00, 0xFA, 0xFF, 0x48, 0x65, 0x6C, 0x6C, 0x6F, 0x00];
    // §7.2.3.4: a block with BFINAL set to 1.
    let last: &[u8] = &[0xF3, 0x48, 0xCD, 0xC9, 0xC9, 0x07, 0x00, 0x00];
    // §7.2.3.5: two blocks.
    let two: &[u8] =
        &[0xF2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xFF, 0xFF, 0xCA, 0xC9, 0xC9, 0x07, 0x00];
    for parameters in all_parameters() {
        // §7.2.3.1, in one frame and in two.
        assert_eq!(echoes(parameters, TEXT, &[HELLO]), [b"Hello"]);
        let fragments =
            [frame(FIRST_TEXT, &HELLO[..3]), frame(0x89, b"?"), frame(LAST, &HELLO[3..])].concat();
        let (output, _) = converse(parameters, &fragments);
        let expected = [(0x8A, b"?".to_vec()), (TEXT, b"Hello".to_vec())];
        assert_eq!(inflated(parameters, &output), expected);
        // §7.2.3.2: the second message refers to the first.
        if parameters.client_no_context_takeover {
            let (_, closed) =
                converse(parameters, &[frame(TEXT, HELLO), frame(TEXT, AGAIN)].concat());
            assert_eq!(closed, refused(ContextKept));
        } else {
            assert_eq!(echoes(parameters, TEXT, &[HELLO, AGAIN]), [b"Hello"; 2]);
        }
        assert_eq!(echoes(parameters, TEXT, &[stored, last, two, HELLO]), [b"Hello"; 4]);
        // §7.2.3.6: an empty message.
        assert_eq!(echoes(parameters, TEXT, &[&[0x00], &[0x00]]), [b"", b""]);
    }
}

#[test]
fn a_message_may_end_with_a_final_block_and_go_on_behind_one() {
    let last: &[u8] = &[0xF3, 0x48, 0xCD, 0xC9, 0xC9, 0x07, 0x00];
    // It refers to what is before the final block.
    let behind = [last, AGAIN].concat();
    // An empty final block, which lacks its length.
    let empty: &[u8] = &[0xF2, 0x48, 0xCD, 0xC9, 0xC9, 0x07, 0x04];
    for parameters in all_parameters() {
        assert_eq!(echoes(parameters, BINARY, &[last, last]), [b"Hello"; 2]);
        let replies = echoes(parameters, BINARY, &[&[last, last, last].concat()]);
        assert_eq!(replies, [b"HelloHelloHello"]);
        assert_eq!(echoes(parameters, BINARY, &[&behind, last]), [&b"HelloHello"[..], b"Hello"]);
        assert_eq!(echoes(parameters, BINARY, &[empty, last]), [b"Hello"; 2]);
        if !parameters.client_no_context_takeover {
            assert_eq!(echoes(parameters, BINARY, &[last, AGAIN]), [b"Hello"; 2]);
        }
    }
}

#[test]
fn each_message_is_answered_as_it_came() {
    let frames =
        [frame(0x81, b"plain"), frame(TEXT, &compressed(b"not plain")), frame(0x82, b"plain")];
    for parameters in all_parameters() {
        let (output, closed) = converse(parameters, &frames.concat());
        assert_eq!(closed, None);
        let expected = [(0x81, &b"plain"[..]), (TEXT, b"not plain"), (0x82, b"plain")];
        let expected = expected.map(|(first, payload)| (first, payload.to_vec()));
        assert_eq!(inflated(parameters, &output), expected);
    }
}

#[test]
fn section_6_rsv1_is_allowed_on_the_first_frame_of_a_message_only() {
    let hello = compressed(b"Hello");
    let (head, tail) = hello.split_at(3);
    for (frames, error) in [
        (vec![frame(0xA1, &hello)], ReservedBits),
        (vec![frame(0xD1, &hello)], ReservedBits),
        (vec![frame(0xF1, &hello)], ReservedBits),
        (vec![frame(0xC9, b"")], MisplacedRsv1),
        (vec![frame(0xCA, b"")], MisplacedRsv1),
        (vec![frame(0xC8, b"")], MisplacedRsv1),
        (vec![frame(0xC0, b"")], MisplacedRsv1),
        (vec![frame(FIRST_TEXT, head), frame(0xC0, tail)], MisplacedRsv1),
        (vec![frame(0x01, b"a"), frame(0xC0, b"b")], MisplacedRsv1),
        (vec![frame(FIRST_TEXT, head), frame(TEXT, &hello)], UnfinishedMessage),
        (vec![frame(FIRST_TEXT, head), frame(0x81, b"a")], UnfinishedMessage),
    ] {
        for parameters in all_parameters() {
            let (output, closed) = converse(parameters, &frames.concat());
            assert_eq!(closed, refused(error), "{frames:02X?}");
            assert_eq!(output[..1], [0x88]);
        }
    }
    let service = service(LIMIT, 0);
    let mut driver = Driver::open(&service);
    driver.receive(&frame(TEXT, &hello));
    assert_eq!(driver.closed(), refused(ReservedBits));
}

#[test]
fn section_7_2_2_data_that_is_not_deflate_or_breaks_off_is_refused() {
    let tables: [&[u8]; 7] = [
        b"",
        b"\xFF",
        b"not compressed",
        // The length of a block and its complement differ.
        &[0x00, 0x05, 0x00, 0xFB, 0xFF, 0x48, 0x65, 0x6C, 0x6C, 0x6F, 0x00],
        // A block of 5 bytes with 3.
        &[0x00, 0x05, 0x00, 0xFA, 0xFF, 0x48, 0x65, 0x6C],
        // The same with 1: the tail would complete it.
        &[0x00, 0x05, 0x00, 0xFA, 0xFF, 0x48],
        AGAIN,
    ];
    for parameters in all_parameters() {
        for payload in tables {
            let (output, closed) = converse(parameters, &frame(BINARY, payload));
            assert_eq!(closed, refused(InvalidDeflate), "{parameters:?} {payload:02X?}");
            assert_eq!(output[0], 0x88, "nothing is echoed");
        }
    }
}

#[test]
fn section_7_2_2_a_message_that_is_cut_or_has_its_tail_is_never_echoed() {
    let text = Random(7).text(300).repeat(2);
    for level in [0, 1, 6] {
        let payload = Compressor::new(level).message(text.as_bytes());
        let with_tail = [&payload[..], &TAIL].concat();
        for parameters in all_parameters() {
            // A whole message comes before it, so that there is a context.
            let before = frame(TEXT, &Compressor::new(level).message(b"Hello"));
            let (expected, _) = converse(parameters, &before);
            let check = |payload: &[u8]| {
                let frames = [&before[..], &frame(BINARY, payload)].concat();
                let (output, closed) = converse(parameters, &frames);
                let case = format!("{parameters:?}, level {level}, {} bytes", payload.len());
                assert_eq!(closed, refused(InvalidDeflate), "{case}");
                assert_eq!(output[..expected.len()], expected, "{case}");
                assert_eq!(output[expected.len()], 0x88, "{case}");
            };
            // The first byte of a stored block is an empty message.
            let cuts = (0..payload.len()).map(|len| &payload[..len]);
            cuts.filter(|cut| **cut != [0x00]).for_each(check);
            check(&with_tail);
            assert_eq!(echoes(parameters, BINARY, &[&payload]), [text.as_bytes()]);
        }
    }
}

#[test]
fn a_message_has_no_more_streams_and_blocks_than_its_length_needs() {
    let empty_streams = |number| [0x03, 0x00].repeat(number);
    let empty_blocks = |number| [&[0x00, 0x00, 0x00, 0xFF, 0xFF].repeat(number)[..], &[0]].concat();
    let after_6400_bytes =
        |number| [&[0x00, 0x00, 0x19, 0xFF, 0xE6][..], &[7; 6400], &empty_blocks(number)].concat();
    let sent_byte_by_byte = {
        let mut client = Compressor::new(6);
        let mut payload = Vec::new();
        (0..4000).for_each(|_| client.append(b"x", MZFlush::Sync, &mut payload));
        payload.truncate(payload.len() - TAIL.len());
        payload
    };
    for parameters in all_parameters() {
        for (payload, reply) in [
            (empty_streams(100), Some(vec![])),
            (empty_streams(101), None),
            (empty_blocks(16_383), Some(vec![])),
            (empty_blocks(16_384), None),
            // One more for each 64 bytes.
            (after_6400_bytes(16_482), Some(vec![7; 6400])),
            (after_6400_bytes(16_483), None),
            (sent_byte_by_byte.clone(), Some(vec![b'x'; 4000])),
        ] {
            if let Some(reply) = reply {
                assert_eq!(echoes(parameters, BINARY, &[&payload]), [reply]);
            } else {
                let (_, closed) = converse(parameters, &frame(BINARY, &payload));
                assert_eq!(closed, refused(TooManyBlocks), "{} bytes", payload.len());
            }
        }
    }
}

#[test]
fn a_client_that_keeps_its_context_though_it_agreed_not_to_is_told_so() {
    for parameters in all_parameters().filter(|parameters| parameters.client_no_context_takeover) {
        let mut client = Compressor::new(6);
        let hello = b"Hello, Hello, Hello";
        let [first, second] = [(); 2].map(|()| frame(TEXT, &client.message(hello)));
        let (output, closed) = converse(parameters, &[&first[..], &second].concat());
        assert_eq!(closed, refused(ContextKept));
        assert_eq!(inflated(parameters, &output)[0], (TEXT, hello.to_vec()));
        // Nothing was sent that it could refer to.
        assert_eq!(converse(parameters, &second).1, refused(InvalidDeflate));
        let (_, closed) = converse(parameters, &[&first[..], &frame(TEXT, b"\xFF")].concat());
        assert_eq!(closed, refused(InvalidDeflate), "something else is wrong with it");
    }
}

#[test]
fn section_8_1_text_is_checked_once_it_is_inflated() {
    let text = "Grüße, 日本, 🚀".repeat(5_000);
    let right = compressed(text.as_bytes());
    // At the first wrong byte, not after all of what is too much.
    let too_much = compressed(&[b"\xFF", &vec![0; 2 * LIMIT][..]].concat());
    for parameters in all_parameters() {
        assert_eq!(echoes(parameters, TEXT, &[&right]), [text.as_bytes()]);
        for wrong in [&b"\xFF"[..], b"\xC3", b"ab\xED\xA0\x80cd", &text.as_bytes()[..3]] {
            let (_, closed) = converse(parameters, &frame(TEXT, &compressed(wrong)));
            assert_eq!(closed, refused(InvalidUtf8), "{wrong:02X?}");
            assert_eq!(echoes(parameters, BINARY, &[&compressed(wrong)]), [wrong]);
        }
        let (_, closed) = converse(parameters, &frame(TEXT, &too_much));
        assert_eq!(closed, refused(InvalidUtf8));
    }
}

#[test]
fn a_message_may_be_as_large_as_the_limit_once_inflated_and_not_a_byte_larger() {
    let converse = |limit, bytes: &[u8], parameters| {
        converse_in_pieces(parameters, limit, bytes, &[usize::MAX])
    };
    for limit in [1, 300, UNMETERED - 1, UNMETERED, UNMETERED + 1, 100_000] {
        for message in [vec![0; limit + 1], Random(1).bytes(limit + 1)] {
            for (len, fits) in [(limit - 1, true), (limit, true), (limit + 1, false)] {
                let bytes = frame(BINARY, &compressed(&message[..len]));
                for parameters in all_parameters() {
                    let (output, closed) = converse(limit, &bytes, parameters);
                    if fits {
                        assert_eq!(closed, None, "{parameters:?}, {len} of {limit}");
                        let replies = inflated(parameters, &output);
                        assert!(replies.len() == 1 && replies[0].1 == message[..len]);
                    } else {
                        assert_eq!(closed, too_big(limit + 1, limit));
                    }
                }
            }
        }
    }
    // On the wire: what can't be compressed grows by less than an eighth.
    let (limit, most) = (8_000, 8_000 + 1_000 + 64);
    let stored = [&[0x00, 0x00, 0x00, 0xFF, 0xFF].repeat(most / 5)[..], &[0x00; 5][..most % 5]];
    let stored = stored.concat();
    let cut = stored.len() / 2;
    for parameters in all_parameters() {
        for frames in [
            frame(BINARY, &[&stored[..], &[0]].concat()),
            [frame(FIRST_BINARY, &stored[..cut]), frame(LAST, &[&stored[cut..], &[0]].concat())]
                .concat(),
        ] {
            let (_, closed) = converse(limit, &frames, parameters);
            assert_eq!(closed, too_big(most + 1, most));
        }
        let whole = frame(BINARY, &stored[..most - most % 5 - 4]);
        let (output, _) = converse(limit, &whole, parameters);
        assert_eq!(inflated(parameters, &output), [(BINARY, vec![])]);
    }
}

#[test]
fn section_7_2_3_4_a_final_block_may_fill_the_room_for_the_message() {
    // Two blocks without compression, of which the second one is final.
    let half = vec![7; UNMETERED / 2];
    let header = [half.len() as u16, !(half.len() as u16)].map(u16::to_le_bytes).concat();
    let payload = [&[0][..], &header, &half, &[1], &header, &half].concat();
    for parameters in all_parameters() {
        let (output, closed) = converse(parameters, &frame(BINARY, &payload).repeat(2));
        assert_eq!(closed, None);
        let whole = half.repeat(2);
        assert_eq!(inflated(parameters, &output), [(BINARY, whole.clone()), (BINARY, whole)]);
    }
}

#[test]
fn output_may_be_pending_when_all_input_is_read() {
    // A copy of 258 bytes, the last one, goes on behind the first 64 KiB from each of its bytes.
    for len in UNMETERED + 1..UNMETERED + 258 {
        let payload = compressed(&vec![0; len]);
        assert!(echoes(STATELESS, BINARY, &[&payload]) == [vec![0; len]], "{len}");
    }
}

#[test]
fn a_large_reply_that_does_not_get_shorter_is_sent_as_it_is() {
    let noise = Random(1).bytes(LIMIT + 1);
    let text = Random(2).text(200).repeat(1_000).into_bytes();
    // Repeated farther back than a small window reaches.
    let far = Random(3).bytes(600).repeat(1_800);
    for parameters in all_parameters() {
        let bits = parameters.server_max_window_bits.unwrap_or(15);
        for (message, first) in [
            (&noise[..], 0x82),
            (&text, BINARY),
            (&far, if bits < 10 { 0x82 } else { BINARY }),
            // What a small one takes is no matter, and later ones may refer to it.
            (&noise[..LIMIT], BINARY),
        ] {
            let frames = frame(BINARY, &compressed(message)).repeat(2);
            let (output, closed) =
                converse_in_pieces(parameters, 2 * LIMIT, &frames, &[usize::MAX]);
            assert_eq!(closed, None);
            let replies = inflated(parameters, &output);
            assert_eq!(replies.len(), 2);
            for (its, reply) in replies {
                assert_eq!(its, first, "{parameters:?}, {} bytes", message.len());
                assert!(reply == message, "{parameters:?}, {} bytes", message.len());
            }
        }
    }
}

#[test]
fn a_bomb_costs_what_its_output_may_cost() {
    let bomb = frame(BINARY, &compressed(&vec![0; 20 * LIMIT]));
    for parameters in all_parameters() {
        let service = service(LIMIT, 2 * LIMIT);
        let mut driver = driver(&service, parameters);
        let before = service.budget.left();
        driver.receive(&bomb);
        assert_eq!(driver.closed(), too_big(LIMIT + 1, LIMIT));
        assert_eq!(service.budget.left(), before, "nothing is held after the close");
    }
}

#[test]
fn memory_that_is_short_for_a_message_closes_and_for_a_reply_sends_it_plain() {
    let message = [Random(3).bytes(8_000), vec![b'x'; UNMETERED]].concat();
    let payload = frame(BINARY, &compressed(&message));
    // The client's compressor gets it shorter than the server's.
    let mut random = Random(4);
    let long: Vec<_> = (0..200_000).map(|_| b'a' + random.below(4) as u8).collect();
    let long_payload = compressed(&long);
    assert!(long_payload.len() < UNMETERED);
    let long_payload = frame(BINARY, &long_payload);
    for parameters in all_parameters() {
        let converse = |total, frames: &[u8]| {
            let service = service(LIMIT, total);
            let mut driver = driver(&service, parameters);
            driver.receive(frames);
            let closed = driver.closed();
            let replies =
                if closed.is_none() { inflated(parameters, &driver.sent) } else { vec![] };
            (replies, closed)
        };
        assert_eq!(converse(4 * 1024, &payload).1, Some(Closed::by_server(OVER_BUDGET)));
        assert_eq!(converse(8 * STEP, &payload), (vec![(BINARY, message.clone())], None));
        // Enough to inflate it, and not to deflate the reply.
        let (replies, closed) = converse(STEP + 53 * 1024, &long_payload);
        assert_eq!(closed, None);
        assert!(replies == [(0x82, long.clone())], "{parameters:?}");
    }
}

#[test]
fn a_small_message_is_answered_though_others_hold_the_whole_budget() {
    let hello = frame(TEXT, &compressed(b"Hello"));
    for parameters in all_parameters() {
        for total in [0, 40 * 1024, LIMIT, 16 * LIMIT] {
            let service = service(LIMIT, total);
            let offer = format!("Sec-WebSocket-Extensions: {parameters}\r\n");
            let mut clients: Vec<_> = (0..60)
                .map(|_| {
                    let mut driver = Driver::new(&service);
                    driver.receive(upgrade_with(&offer).as_bytes());
                    let response = driver.forget_response();
                    let agreed = Parameters {
                        client_no_context_takeover: response.contains(CLIENT),
                        server_no_context_takeover: response.contains(SERVER),
                        ..parameters
                    };
                    assert!(response.contains(&format!(": {agreed}\r\n")), "{response}");
                    (agreed, driver)
                })
                .collect();
            for (agreed, driver) in &mut clients {
                driver.receive(&hello);
                assert_eq!(inflated(*agreed, &driver.take()), [(TEXT, b"Hello".to_vec())]);
            }
            assert!(service.budget.left() >= total / 2, "half of it stays for messages");
            let _others = service.budget.charge(service.budget.left()).unwrap();
            for (agreed, driver) in &mut clients {
                driver.receive(&frame(TEXT, &[0x00]));
                assert_eq!(inflated(*agreed, &driver.take()), [(TEXT, vec![])]);
            }
        }
    }
}

#[test]
fn context_takeover_is_charged_at_the_handshake_and_never_again() {
    const INFLATER: usize = 48 * 1024;
    for parameters in all_parameters() {
        let service = service(LIMIT, LIMIT);
        let charged = || LIMIT - service.budget.left();
        let mut driver = driver(&service, parameters);
        let inflater = if parameters.client_no_context_takeover { 0 } else { INFLATER };
        let history = if parameters.server_no_context_takeover { 0 } else { HISTORY };
        assert_eq!(charged(), inflater + history);
        let hello = frame(TEXT, &compressed(b"Hello, Hello"));
        for _ in 0..3 {
            driver.receive(&hello);
            assert_eq!(charged(), inflater + history);
            driver.wait_until(PING_INTERVAL);
        }
    }
}

#[test]
fn with_context_takeover_a_reply_refers_to_the_replies_before_it() {
    let word = Random(1).bytes(100);
    for parameters in all_parameters() {
        let window = 1 << parameters.server_max_window_bits.unwrap_or(15).max(9);
        for gap in [20, 300, 1000, 3000, HISTORY] {
            let messages = [word.clone(), Random(2).bytes(gap), word.clone()];
            let frames: Vec<_> =
                messages.iter().flat_map(|message| frame(BINARY, &compressed(message))).collect();
            let (output, _) = converse(parameters, &frames);
            let replies = inflated(parameters, &output).into_iter().map(|(_, reply)| reply);
            assert!(replies.eq(messages), "{parameters:?}, {gap} bytes");
            let mut rest = &output[..];
            let [.., last] = [(); 3].map(|()| read_frame(&mut rest).1.len());
            let is_near = word.len() + gap <= HISTORY.min(window - 262);
            let expected = !parameters.server_no_context_takeover && is_near;
            assert_eq!(last < word.len() / 2, expected, "{parameters:?}, {gap} bytes");
        }
    }
}

#[test]
fn nothing_of_one_client_shows_in_another() {
    let secret = frame(TEXT, &compressed(b"a secret, a secret, a secret"));
    let guess = frame(TEXT, &compressed(b"a secret, a guess"));
    for parameters in all_parameters() {
        let service = service(LIMIT, LIMIT);
        let converse = |frames: &[u8]| {
            let mut driver = driver(&service, parameters);
            driver.receive(frames);
            (driver.sent.clone(), driver.closed())
        };
        let alone = converse(&guess);
        for _ in 0..5 {
            converse(&secret);
            assert_eq!(converse(&guess), alone, "what was compressed before makes no difference");
            // A distance into the past.
            let (output, closed) = converse(&frame(BINARY, AGAIN));
            assert_eq!(closed, refused(InvalidDeflate), "{output:02X?}");
            // A message that breaks off leaves nothing behind either.
            converse(&frame(BINARY, &[0xF2, 0x48, 0xCD]));
            assert_eq!(converse(&guess), alone);
        }
        if parameters.server_no_context_takeover {
            // Nor does the same client's message before.
            let (output, _) = converse(&[&secret[..], &guess].concat());
            assert_eq!(output, [converse(&secret).0, alone.0].concat());
        }
    }
}

#[test]
fn a_reply_that_its_peer_does_not_read_keeps_no_context() {
    // Too long to be copied to the output, compressed as well.
    let message = Random(5).bytes(UNMETERED);
    let bytes = frame(BINARY, &compressed(&message));
    let (last, before) = bytes.split_last().unwrap();
    let hello = frame(TEXT, &compressed(b"Hello"));
    for parameters in [STATELESS, TAKEOVER] {
        let service = service(LIMIT, 64 * LIMIT);
        // More than there are contexts apart from the budget.
        let mut slow: Vec<_> = (0..40).map(|_| driver(&service, parameters)).collect();
        for driver in &mut slow {
            driver.receive(before);
            driver.connection.input()[0] = *last;
            driver.connection.received(1, Duration::ZERO);
            let Step::Send { head, .. } = driver.connection.next(Duration::ZERO) else { panic!() };
            assert_eq!(head[0], BINARY);
        }
        let mut quick = driver(&service, parameters);
        let _others = service.budget.charge(service.budget.left()).unwrap();
        quick.receive(&hello);
        assert_eq!(inflated(parameters, &quick.sent), [(TEXT, b"Hello".to_vec())]);
    }
}

#[test]
fn section_7_1_2_1_no_reply_refers_back_farther_than_the_window() {
    let mut random = Random(9);
    // Repetitions at every distance up to the largest window.
    let word = random.bytes(40);
    let mut message = Vec::new();
    for gap in (1..600).chain([1000, 3000, 8000, 20_000, 32_000]) {
        message.extend(&word);
        message.extend(random.bytes(gap));
    }
    // Its contexts serve all of them in turn.
    let service = service(LIMIT, LIMIT);
    for bits in 8..=15 {
        for no_takeover in [true, false] {
            let parameters = Parameters {
                server_no_context_takeover: no_takeover,
                server_max_window_bits: Some(bits),
                ..STATELESS
            };
            let frames: Vec<_> = message
                .chunks(30_011)
                .flat_map(|chunk| frame(BINARY, &compressed(chunk)))
                .collect();
            let mut driver = driver(&service, parameters);
            driver.receive(&frames);
            assert_eq!(driver.closed(), None);
            let mut rest = &driver.sent[..];
            let (mut streams, mut all) = (vec![], vec![]);
            while !rest.is_empty() {
                let (_, payload) = read_frame(&mut rest);
                all.extend([&payload[..], &TAIL].concat());
                if no_takeover {
                    streams.push(std::mem::take(&mut all));
                }
            }
            streams.push(all);
            let mut echoed = Vec::new();
            let mut farthest = 0;
            for stream in streams {
                let (inflated, distance) = inflate(&[&stream[..], &FINAL_BLOCK].concat());
                echoed.extend(inflated);
                farthest = distance.max(farthest);
            }
            assert!(echoed == message, "{bits} bits");
            assert!(farthest <= 1 << bits, "{farthest} with {bits} bits");
            assert!(
                farthest > 1 << (bits - 1)
                    || bits == 8 && farthest > 200
                    || bits == 9 && farthest > 200,
                "{farthest} with {bits} bits is no test"
            );
        }
    }
}

// Properties

/// A message: whether it is text, its payload's seed, length and variety, and how it is flushed.
#[derive(Clone, Debug)]
struct Sent {
    is_text: bool,
    is_compressed: bool,
    seed: u64,
    len: usize,
    splits: Vec<Index>,
    flush: Flush,
}

#[derive(Clone, Copy, Debug)]
enum Flush {
    Sync,
    /// In the middle, too, so that there are more blocks.
    Twice,
    /// By a final block, and the client begins anew.
    Final,
}

fn sent() -> impl Strategy<Value = Sent> {
    let len = prop_oneof![4 => 0..300_usize, 2 => 300..5_000_usize, 1 => 60_000..150_000_usize];
    let flush = select(vec![Flush::Sync, Flush::Sync, Flush::Twice, Flush::Final]);
    (any::<bool>(), any::<bool>(), any::<u64>(), len, vec(any::<Index>(), 0..4), flush).prop_map(
        |(is_text, is_compressed, seed, len, splits, flush)| Sent {
            is_text,
            is_compressed,
            seed,
            len,
            splits,
            flush,
        },
    )
}

impl Sent {
    fn message(&self) -> Vec<u8> {
        let mut random = Random(self.seed);
        match (self.is_text, self.seed % 2) {
            (true, 0) => random.text(self.len).into_bytes(),
            (false, 0) => random.bytes(self.len),
            (_, _) => (0..self.len).map(|_| b'a' + random.below(4) as u8).collect(),
        }
    }

    /// The client's frames, as a client with context takeover sends them, or one without.
    fn frames(&self, client: &mut Compressor, level: u8, takeover: bool) -> Vec<u8> {
        let message = self.message();
        let rsv1 = if self.is_compressed { 0x40 } else { 0x00 };
        let payload = if self.is_compressed {
            if !takeover {
                *client = Compressor::new(level);
            }
            let mut payload = Vec::new();
            let cut = match self.flush {
                Flush::Twice => message.len() / 2,
                Flush::Sync | Flush::Final => 0,
            };
            if cut > 0 {
                client.append(&message[..cut], MZFlush::Sync, &mut payload);
            }
            match self.flush {
                Flush::Final => {
                    *client = Compressor::new(level);
                    client.append(&message, MZFlush::Finish, &mut payload);
                    *client = Compressor::new(level);
                }
                _ => client.append_last(&message[cut..], &mut payload),
            }
            payload
        } else {
            message
        };
        let mut ends: Vec<_> = self.splits.iter().map(|at| at.index(payload.len() + 1)).collect();
        ends.sort_unstable();
        ends.push(payload.len());
        let mut first = rsv1 | if self.is_text { 0x01 } else { 0x02 };
        let (mut bytes, mut start) = (Vec::new(), 0);
        for (number, end) in ends.iter().enumerate() {
            let fin = if number + 1 == ends.len() { LAST } else { MIDDLE };
            bytes.extend(frame(fin | first, &payload[start..*end]));
            if fin == MIDDLE {
                bytes.extend(frame(0x8A, b"a pong is not answered"));
            }
            (first, start) = (MIDDLE, *end);
        }
        bytes
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    /// Compressed messages are answered as plain ones are: the same text, however they are compressed
    /// and split.
    #[test]
    fn compression_changes_nothing_but_the_bytes_on_the_wire(
        messages in vec(sent(), 1..6),
        level in 0..10_u8,
        parameters in select(all_parameters().collect::<Vec<_>>()),
        pieces in vec(prop_oneof![1..4_usize, 1..200_usize, 1..100_000_usize], 1..8),
    ) {
        let takeover = !parameters.client_no_context_takeover;
        let mut client = Compressor::new(level);
        let frames: Vec<u8> = messages
            .iter()
            .flat_map(|message| message.frames(&mut client, level, takeover))
            .collect();
        let whole = converse(parameters, &frames);
        prop_assert_eq!(&whole.1, &None);
        let split = converse_in_pieces(parameters, LIMIT, &frames, &pieces);
        prop_assert!(split == whole, "in pieces the replies differ");

        let replies = inflated(parameters, &whole.0);
        prop_assert_eq!(replies.len(), messages.len());
        for (message, (first, payload)) in messages.iter().zip(replies) {
            let opcode = if message.is_text { 0x81 } else { 0x82 };
            let is_compressed = first & 0x40 != 0;
            prop_assert_eq!(first & !0x40, opcode);
            // A large one may be sent as it is.
            prop_assert!(is_compressed == message.is_compressed || message.len > UNMETERED);
            prop_assert!(payload == message.message());
        }
    }

    /// Bytes that are no DEFLATE data end in the same way however they are split.
    #[test]
    fn wrong_data_ends_in_the_same_way_however_it_is_split(
        sent in sent(),
        changes in vec((any::<Index>(), any::<u8>()), 1..4),
        pieces in vec(1..50_usize, 1..8),
        parameters in select(all_parameters().collect::<Vec<_>>()),
    ) {
        let mut payload = compressed(&sent.message());
        for (at, byte) in changes {
            let at = at.index(payload.len());
            payload[at] = byte;
        }
        let first = if sent.is_text { TEXT } else { BINARY };
        let frames = [frame(first, &payload), frame(first, &payload), close(1000)].concat();
        let whole = converse_in_pieces(parameters, 100_000, &frames, &[usize::MAX]);
        let split = converse_in_pieces(parameters, 100_000, &frames, &pieces);
        prop_assert!(split == whole);
        prop_assert!(whole.1.is_some());
    }
}
