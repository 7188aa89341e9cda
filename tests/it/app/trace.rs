//! What a client is shown of the frames that it sent, and of those that answered them.

use std::time::Duration;

use serde_json::{Value, json};
use wsecho::app::service::Service;
use wsecho::app::trace::Hex;
use wsecho::websocket::negotiation::Mode;

use crate::deflate::Compressor;
use crate::driver::{Driver, Ended, service};
use crate::frames::{close, frame, masked_frame, server_frame};
use crate::support::read_frame;

const KEY: &str = "37fa213d";

fn opened<'s>(service: &'s Service, query: &str, fields: &str) -> Driver<'s> {
    let mut driver = Driver::asking(service, &format!("/do?trace{query}"), fields);
    driver.forget_response();
    driver
}

/// The frames that are no traces, and the traces.
fn split(mut sent: &[u8]) -> (Vec<u8>, Vec<Value>) {
    let (mut frames, mut traces) = (Vec::new(), Vec::new());
    while !sent.is_empty() {
        let before = sent;
        let (first, payload) = read_frame(&mut sent);
        match serde_json::from_slice::<Value>(&payload) {
            Ok(trace) if trace["wsecho"] == "trace" => {
                assert_eq!(first, 0x81);
                assert!(!payload.contains(&b'\n'));
                traces.push(trace["frames"].clone());
            }
            _ => frames.extend(&before[..before.len() - sent.len()]),
        }
    }
    (frames, traces)
}

#[test]
fn each_message_and_control_frame_is_followed_by_its_frames_and_those_that_answer_it() {
    let service = service(1 << 20, 1 << 20);
    let sent = [
        frame(0x81, b"hi"),
        frame(0x01, b"a"),
        frame(0x89, b"now"),
        frame(0x8A, b""),
        frame(0x80, b"b"),
        close(4000),
    ]
    .concat();
    let client = |fin: bool, opcode: u8, name: &str, header: &str, bytes: &str| {
        json!({
            "from": "client", "at": 1.5, "fin": fin, "rsv": 0, "opcode": opcode, "name": name,
            "mask": KEY, "length": bytes.len() / 2, "header": format!("{header}{KEY}"),
            "bytes": bytes,
        })
    };
    let server = |opcode: u8, name: &str, header: &str, bytes: &str| {
        json!({
            "from": "server", "at": 1.5, "fin": true, "rsv": 0, "opcode": opcode, "name": name,
            "mask": null, "length": bytes.len() / 2, "header": header, "bytes": bytes,
        })
    };
    let expected = [
        json!([client(true, 1, "text", "8182", "6869"), server(1, "text", "8102", "6869")]),
        json!([client(true, 9, "ping", "8983", "6e6f77"), server(10, "pong", "8a03", "6e6f77")]),
        json!([client(true, 10, "pong", "8a80", "")]),
        json!([
            client(false, 1, "text", "0181", "61"),
            client(true, 0, "continuation", "8081", "62"),
            server(1, "text", "8102", "6162"),
        ]),
        json!([client(true, 8, "close", "8882", "0fa0"), server(8, "close", "8802", "0fa0")]),
    ];
    for piece in (1..=sent.len()).chain([usize::MAX]) {
        let mut driver = opened(&service, "", "");
        driver.now = Duration::from_millis(1500);
        driver.receive_in_pieces(&sent, &[piece]);
        let (frames, traces) = split(&driver.sent);
        let replies = [
            server_frame(0x81, b"hi"),
            server_frame(0x8A, b"now"),
            server_frame(0x81, b"ab"),
            server_frame(0x88, &4000_u16.to_be_bytes()),
        ];
        assert_eq!(frames, replies.concat(), "{piece}");
        assert_eq!(traces, expected, "{piece}");
        assert!(driver.sent.ends_with(&replies[3]), "the last trace comes before the close frame");
        assert_eq!(driver.ended, Some(Ended::Stream));
    }
}

#[test]
fn fragments_and_drips_are_shown_as_they_were_sent() {
    let service = service(1 << 20, 1 << 20);
    let mut driver = opened(&service, "&fragment=2&drip=1s&count=1&interval=5s", "");
    driver.receive(&frame(0x82, b"12345"));
    driver.wait_until(Duration::from_secs(6));
    driver.receive(&frame(0x8A, b""));
    let (_, traces) = split(&driver.sent);
    let shown = |trace: &Value| -> Vec<_> {
        let frames = trace.as_array().unwrap();
        let shown = frames.iter().map(|frame| {
            let [name, header] =
                ["name", "header"].map(|key| frame[key].as_str().unwrap().to_owned());
            (name, header, frame["at"].as_f64().unwrap())
        });
        shown.collect()
    };
    let [reply, later] = &traces[..] else { panic!("{traces:?}") };
    let reply = shown(reply);
    let headers: Vec<_> = reply.iter().map(|(name, header, _)| (&**name, &**header)).collect();
    let sent = [("binary", "0202"), ("continuation", "0002"), ("continuation", "8001")];
    assert_eq!(headers[1..], sent);
    assert!(reply[1..].windows(2).all(|pair| pair[0].2 < pair[1].2), "{reply:?}");
    let later: Vec<_> = shown(later).into_iter().map(|(name, ..)| name).collect();
    assert_eq!(later, ["pong", "text"]);
}

#[test]
fn of_compressed_messages_and_replies_the_size_is_shown_once_inflated() {
    let mut service = service(1 << 20, 1 << 20);
    service.policy.compression = Mode::NoContextTakeover.terms();
    let fields = "Sec-WebSocket-Extensions: permessage-deflate\r\n";
    for query in ["", "&fragment=3", "&drip=1s", "&latency=1s"] {
        let mut driver = opened(&service, &format!("&prefix=said:{query}"), fields);
        // "Hello" (RFC 7692 §7.2.3.1).
        let hello = frame(0xC1, b"\xF2\x48\xCD\xC9\xC9\x07\x00");
        driver.receive(&[&hello[..], &frame(0x81, b"plain"), &hello].concat());
        driver.wait_until(Duration::from_secs(5));
        let (_, traces) = split(&driver.sent);
        let sizes = |trace: &Value| -> Vec<_> {
            let frames = trace.as_array().unwrap().iter();
            let first = frames.filter(|frame| frame["opcode"] != 0);
            first.map(|frame| (frame["rsv"].clone(), frame["inflated"].clone())).collect()
        };
        for compressed in [&traces[0], &traces[2]] {
            assert_eq!(sizes(compressed), [(json!(4), json!(5)), (json!(4), json!(10))], "{query}");
        }
        assert_eq!(sizes(&traces[1]), vec![(json!(0), Value::Null); 2], "{query}");
    }
}

#[test]
fn of_many_frames_64_are_shown_and_the_others_counted() {
    let service = service(1 << 20, 1 << 20);
    for piece in [7, 1000, usize::MAX] {
        let mut driver = opened(&service, "", "");
        let fragments =
            [frame(0x01, b"x"), frame(0x00, b"x").repeat(999), frame(0x80, b"x")].concat();
        driver.receive_in_pieces(&fragments, &[piece]);
        let text = String::from_utf8_lossy(&driver.sent).into_owned();
        assert!(text.ends_with(r#"],"more":938}"#), "{piece}: {}", &text[text.len() - 30..]);
        driver.receive_in_pieces(&[&fragments[..], &frame(0x81, b"next")].concat(), &[piece]);
        let (_, traces) = split(&driver.sent);
        let lens: Vec<_> = traces.iter().map(|trace| trace.as_array().unwrap().len()).collect();
        assert_eq!(lens, [64, 64, 2], "{piece}");
    }
}

#[test]
fn a_wrong_frame_is_shown_up_to_its_mistake_in_every_split_and_nothing_after_it() {
    let service = service(100, 1 << 20);
    let key = "37fa213d";
    let invalid = [frame(0x01, b"a\xC3"), frame(0x80, b"(bc")].concat();
    for (sent, expected) in [
        (masked_frame(0x83, b"?", [0; 4]), vec![("reserved", "8381".into(), json!(1), "")]),
        (vec![0x81, 0x02, b'h', b'i'], vec![("text", "8102".into(), json!(2), "")]),
        (frame(0x81, &[b'x'; 101]), vec![("text", format!("81e5{key}"), json!(101), "")]),
        (
            frame(0x81, &[b'x'; 70_000])[..14].to_vec(),
            vec![("text", format!("81ff0000000000011170{key}"), json!(70_000), "")],
        ),
        (b"\x81\xFE\0\x05".to_vec(), vec![("text", "81fe0005".into(), json!(5), "")]),
        (frame(0x83, &[b'x'; 126]), vec![("reserved", "83fe".into(), json!(null), "")]),
        (frame(0x09, b"part"), vec![("ping", format!("0984{key}"), json!(4), "")]),
        (
            [frame(0x01, b"a"), frame(0x81, b"b")].concat(),
            vec![
                ("text", format!("0181{key}"), json!(1), "61"),
                ("text", format!("8181{key}"), json!(1), ""),
            ],
        ),
        (frame(0x01, b"a\xFF"), vec![("text", format!("0182{key}"), json!(2), "61ff")]),
        (frame(0x81, b"ok\xFFnot"), vec![("text", format!("8186{key}"), json!(6), "6f6bff")]),
        (
            invalid,
            vec![
                ("text", format!("0182{key}"), json!(2), "61c3"),
                ("continuation", format!("8083{key}"), json!(3), ""),
            ],
        ),
        (frame(0x88, b"\x03\xEC"), vec![("close", format!("8882{key}"), json!(2), "03ec")]),
        (frame(0x88, b"\x03\xE8"), vec![("close", format!("8882{key}"), json!(2), "03e8")]),
    ] {
        let sent = [frame(0x89, b""), sent, frame(0x81, b"later"), frame(0x0B, b"?")].concat();
        for piece in (1..=sent.len()).chain([usize::MAX]) {
            let mut driver = opened(&service, "", "");
            driver.receive_in_pieces(&sent, &[piece]);
            let (_, traces) = split(&driver.sent);
            let frames = traces[1].as_array().unwrap();
            let (close, wrong) = frames.split_last().unwrap();
            let wrong: Vec<_> = wrong
                .iter()
                .map(|frame| {
                    let text = |name: &str| frame[name].as_str().unwrap();
                    assert_eq!(frame["mask"].is_string(), text("header").ends_with(key));
                    (text("name"), text("header").into(), frame["length"].clone(), text("bytes"))
                })
                .collect();
            assert_eq!(wrong, expected, "{piece}");
            assert_eq!((&close["name"], &close["from"]), (&json!("close"), &json!("server")));
        }
    }
}

#[test]
fn a_message_that_is_wrong_once_inflated_is_shown_whole_and_nothing_after_it() {
    let service = service(100, 1 << 20);
    let fields = "Sec-WebSocket-Extensions: permessage-deflate\r\n";
    for message in [&b"not \xFF text"[..], &[b'x'; 101]] {
        let payload = Compressor::new(6).message(message);
        let sent = [frame(0xC1, &payload), frame(0x81, b"later")].concat();
        for piece in (1..=sent.len()).chain([usize::MAX]) {
            let mut driver = opened(&service, "", fields);
            driver.receive_in_pieces(&sent, &[piece]);
            let (_, traces) = split(&driver.sent);
            let [wrong, close] = &traces[0].as_array().unwrap()[..] else { panic!("{traces:?}") };
            assert_eq!(wrong["bytes"], Hex(&payload).to_string(), "{piece}");
            assert_eq!(close["from"], "server");
        }
    }
}

#[test]
fn the_dump_is_among_the_frames_that_the_first_trace_shows() {
    let service = service(1 << 20, 1 << 20);
    let mut driver = opened(&service, "&dump", "");
    driver.receive(&frame(0x81, b"hi"));
    let mut sent = &driver.sent[..];
    let (_, dump) = read_frame(&mut sent);
    let (_, traces) = split(&driver.sent);
    let [seen, first, reply] = &traces[0].as_array().unwrap()[..] else { panic!("{traces:?}") };
    assert_eq!((&seen["from"], &seen["length"]), (&json!("client"), &json!(2)));
    assert_eq!((&first["from"], &first["length"]), (&json!("server"), &json!(dump.len())));
    assert!(dump.len() > 125 && first["mask"].is_null());
    assert_eq!((&reply["from"], &reply["length"]), (&json!("server"), &json!(2)));
}

#[test]
fn frames_that_wait_to_be_shown_take_little_memory() {
    const MANY: usize = 100_000;
    let service = service(1 << 20, 1 << 30);
    let message = [frame(0x01, b""), frame(0x00, b"").repeat(62), frame(0x80, b"")].concat();
    for query in ["latency=10s", "drip=10s"] {
        let mut driver = opened(&service, &format!("&prefix=&{query}"), "");
        let received = driver.receive(&message.repeat(MANY / message.len()));
        // One message shows 64 frames of about 150 bytes.
        assert!(received < 3 * message.len() + 20_000, "{query}: {received}");
    }
}
