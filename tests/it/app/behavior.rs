//! What a query may ask for, and how it is said.

use std::time::Duration;

use wsecho::app::behavior::{
    Behavior, Draws, Handshake, PARAMETERS, PATH, Parameter, Pongs, Rate, WrongFrame, parse, table,
};
use wsecho::app::dump::dump;
use wsecho::app::peer::Peer;
use wsecho::http::request::Request;
use wsecho::http::response::Response;
use wsecho::proxy_protocol::Header;
use wsecho::websocket::handshake::Policy;

#[track_caller]
fn parsed(query: &str) -> Behavior {
    parse(query).unwrap_or_else(|error| panic!("{query}: {error}"))
}

#[test]
fn each_parameter_is_described_in_one_sentence() {
    for (query, sentence) in [
        ("", "Each message is echoed, as on every other path."),
        ("&&", "Each message is echoed, as on every other path."),
        ("delay=1500ms", "The handshake is answered after 1s 500ms."),
        ("delay=0", "Each message is echoed, as on every other path."),
        ("status=503", "The handshake is refused with 503 Service Unavailable."),
        ("bad=accept", "The 101 has a wrong Sec-WebSocket-Accept."),
        ("bad=protocol", "The 101 has a subprotocol that was not offered."),
        ("bad=extension", "The 101 has an extension that was not offered."),
        ("dump", "The first message is the request as JSON."),
        ("dump=", "The first message is the request as JSON."),
        ("count=1", "The server sends 1 message unasked, at once."),
        ("count=3&interval=0", "The server sends 3 messages unasked, at once."),
        (
            "count=3&interval=1s&bytes=9",
            "The server sends 3 messages unasked, one every 1s, each of 9 bytes.",
        ),
        ("prefix=", "Texts come back without a prefix."),
        ("prefix=a+b%20%c3%A9", "Texts come back after \"a b é\"."),
        ("latency=200ms", "Each reply is delayed by 200ms."),
        ("fragment=1", "Each reply comes in fragments of 1 byte."),
        ("drip=2s", "Each reply is written over 2s."),
        ("ping=1m", "The server pings after 1m of silence."),
        ("pong=off", "Pings are not answered."),
        ("close=4000", "Right after the handshake the server closes with 4000."),
        ("close=none&after=1", "After 1 message the server closes without a code."),
        (
            "close=1013&reason=%22%0a&after=3",
            "After 3 messages the server closes with 1013 and the reason \"\\\"\\n\".",
        ),
        (
            "close=fin&after=0s",
            "Right after the handshake the server ends the stream without a close frame.",
        ),
        ("close=rst&after=2s", "After 2s the server resets the connection without a close frame."),
        (
            "close=hang",
            "Right after the handshake the server hangs for 60s, reading and writing nothing, and resets the connection.",
        ),
        ("bad=mask", "Right after the handshake the server sends a masked frame."),
        ("bad=rsv", "Right after the handshake the server sends a frame with a reserved bit."),
        (
            "bad=opcode",
            "Right after the handshake the server sends a frame with a reserved opcode.",
        ),
        ("bad=utf8", "Right after the handshake the server sends text that is not UTF-8."),
        (
            "bad=continuation",
            "Right after the handshake the server sends a continuation of nothing.",
        ),
        (
            "bad=length&after=7",
            "After 7 messages the server sends a frame that declares 2^62 bytes.",
        ),
        (
            "rate=0.5&status=503",
            "For a share of 0.5 of the connections the handshake is refused with 503 Service \
             Unavailable; the others get a plain echo.",
        ),
        (
            "seed=7&rate=.25&latency=1s&pong=off",
            "For a share of 0.25 of the connections, by seed 7, each reply is delayed by 1s; \
             pings are not answered; the others get a plain echo.",
        ),
    ] {
        assert_eq!(parsed(query).to_string(), sentence, "{query}");
    }
}

#[test]
fn each_parameter_is_allowed_up_to_its_limits_and_refused_beyond_with_what_is_allowed() {
    let bytes = |name: &str, len: usize| format!("{name}={}", "é".repeat(len / 2));
    let [prefix, long_prefix] = [100, 102].map(|len| bytes("prefix", len));
    let [reason, long_reason] = [122, 124].map(|len| bytes("close=1000&reason", len));
    #[rustfmt::skip]
    let table: [(&[&str], &[&str], &str); 22] = [
        (&["rate=0&dump", "rate=1&dump", "rate=0.123456789&dump"], &["rate=", "rate=1.01", "rate=-0", "rate=1e-1", "rate=nan", "rate=."], "from 0 to 1"),
        (&["rate=0.5&delay=1s", "rate=0.5&dump"], &["rate=0.5", "rate=1&seed=3", "rate=0&delay=0"], "to happen"),
        (&["rate=1&seed=0&dump", "rate=0&seed=999&dump"], &["seed=1", "rate=1&seed=1000", "rate=1&seed=-1", "rate=1&seed="], "from 0 to 999"),
        (&["delay=0s", "delay=60s", "delay=1m"], &["delay=5", "delay=61s", "delay=60001ms", "delay=", "delay=-1s", "delay=99999999999999999999y"], "at most 60s"),
        (&["status=200", "status=301", "status=303", "status=307", "status=308", "status=400", "status=406", "status=408", "status=599"],
         &["status=100", "status=101", "status=103", "status=199", "status=201", "status=204", "status=300", "status=304", "status=306", "status=309", "status=399", "status=407", "status=600", "status=65736", "status="], "400–599 without 407"),
        (&["dump"], &["dump=1", "dump=on"], "without a value"),
        (&["count=1", "count=1000"], &["count=0", "count=1001", "count=", "count=%2B1", "count=1s"], "from 1 to 1000"),
        (&["count=1&interval=0", "count=1&interval=10ms", "count=1&interval=60s"], &["interval=1s", "count=1&interval=9ms", "count=1&interval=61s", "count=1&interval=10"], "from 10ms to 60s"),
        (&["count=16&bytes=65536", "count=1000&bytes=1048", "count=1&bytes=1"], &["bytes=1", "count=1&bytes=65537", "count=1&bytes=0", "count=17&bytes=65536", "count=1000&bytes=1049"], "at most 1 MiB"),
        (&["prefix=", &prefix], &[&long_prefix], "at most 100 bytes"),
        (&["latency=10s"], &["latency=10001ms", "latency=1"], "at most 10s"),
        (&["fragment=1", "fragment=18446744073709551615"], &["fragment=0", "fragment=", "fragment=18446744073709551616", "fragment=1s"], "1 or more"),
        (&["drip=10s"], &["drip=10001ms", "drip=1"], "at most 10s"),
        (&["ping=100ms", "ping=15m"], &["ping=0", "ping=99ms", "ping=901s", "ping=1"], "100ms to 15m"),
        (&["pong=off"], &["pong", "pong=on", "pong=OFF"], "pong is off"),
        (&["close=1000", "close=1003", "close=1007", "close=1014", "close=3000", "close=4999", "close=none", "close=fin", "close=hang", "close=rst&after=1"],
         &["close=999", "close=1004", "close=1005", "close=1006", "close=1015", "close=2999", "close=5000", "close=", "close=RST", "close=66536"], "1006 is never sent"),
        (&["close=rst&after=1", "close=rst&after=1ms"], &["close=rst", "close=rst&after=0", "close=rst&after=0s"], "rst needs after"),
        (&["close=1000&reason=", &reason], &["reason=x", "close=none&reason=x", "close=fin&reason=x", "bad=utf8&reason=x", &long_reason], "beside close with a code"),
        (&["bad=utf8"], &["bad=", "bad=1", "bad=Mask"], "continuation or length"),
        (&["close=fin&after=0", "close=fin&after=1000", "close=fin&after=10m", "bad=mask&after=1s"], &["after=1", "close=fin&after=1001", "close=fin&after=601s", "close=fin&after=", "bad=accept&after=1", "status=503&after=1"], "at most 10m"),
        (&["status=503", "close=1000", "bad=utf8"], &["status=503&close=1000", "status=503&bad=accept", "close=fin&bad=utf8", "status=500&bad=mask"], "at most one of"),
        (&["status=503&delay=1s&rate=0.5&seed=1"], &["status=503&dump", "status=503&latency=1s", "prefix=&status=200"], "status refuses the handshake"),
    ];
    for (allowed, refused, words) in table {
        for query in allowed {
            parsed(query);
        }
        for query in refused {
            let error = parse(query).expect_err(query);
            assert!(error.contains(words), "{query}: {error}");
        }
    }
}

#[test]
fn a_query_that_is_unknown_repeated_or_not_encoded_is_refused_in_one_line() {
    for (query, words) in [
        ("=", "\"\" is not a parameter"),
        ("x", "\"x\" is not a parameter; GET /do lists them"),
        ("Close=4000", "\"Close\" is not a parameter"),
        ("close=4000?after=1", "close is 1000"),
        ("%0a%1b[31m=1", r#""\n\u{1b}[31m" is not a parameter"#),
        ("dump&dump", r#""dump" is given twice"#),
        ("%1B[2J&%1B[2J", r#""\u{1b}[2J" is given twice"#),
        ("%64ump&dump", r#""dump" is given twice"#),
        ("prefix=%", "%25"),
        ("prefix=%4", "%25"),
        ("prefix=%+1", "%25"),
        ("prefix=%\u{e9}", "%25"),
        ("prefix=%ff", "not UTF-8"),
    ] {
        let error = parse(query).expect_err(query);
        assert!(error.contains(words), "{query}: {error}");
        assert!(!error.contains(char::is_control), "{error:?}");
    }
}

#[test]
fn the_table_has_every_parameter_and_word_that_is_accepted() {
    let rows: Vec<_> = (table().lines().skip(3).filter(|line| !line.starts_with(' ')))
        .filter_map(|line| Some(line.split_once(": ")?.0.to_owned()))
        .collect();
    assert!(rows.iter().eq(PARAMETERS.iter().map(|parameter| parameter.name)), "{rows:?}");
    for Parameter { name, words, allowed, .. } in PARAMETERS {
        // Known, so that what is refused is at most its value.
        let error = parse(&format!("{name}=%21")).err().unwrap_or_default();
        assert!(!error.contains("is not a parameter"), "{error}");
        for (word, _) in *words {
            // Without after a reset is refused, beside a wrong handshake after is.
            let is_accepted = |after| parse(&format!("{name}={word}{after}")).is_ok();
            assert!(is_accepted("") || is_accepted("&after=1"), "{name}={word}");
            assert!(allowed.contains(word), "{name}={word}");
        }
    }
    assert_eq!(PATH, "/do");
}

#[test]
fn what_is_parsed_is_what_was_asked_for() {
    let behavior = parsed("delay=1s&rate=1&seed=3&bad=extension&pong=off&ping=1s&drip=1s");
    assert_eq!(behavior.delay, Duration::from_secs(1));
    assert_eq!(behavior.rate, Some(Rate { share: 1.0, seed: Some(3) }));
    assert_eq!(behavior.handshake, Handshake::WrongExtension);
    assert_eq!(behavior.script.pongs, Pongs::Off);
    assert_eq!(behavior.script.ping_interval, Some(Duration::from_secs(1)));
    assert_eq!(behavior.script.drip, Duration::from_secs(1));
}

#[test]
fn each_wrong_frame_breaks_the_one_rule_that_it_is_for() {
    use tungstenite::error::{CapacityError, Error, ProtocolError};
    use tungstenite::protocol::{Role, WebSocket};

    // RFC 6455 as a client that we did not write knows it.
    let read = |bytes: &[u8]| {
        let stream = std::io::Cursor::new(bytes.to_vec());
        WebSocket::from_raw_socket(stream, Role::Client, None).read().unwrap_err()
    };
    for (wrong, is_right) in [
        (
            WrongFrame::MASKED,
            (|error| matches!(error, ProtocolError::MaskedFrameFromServer)) as fn(_) -> _,
        ),
        (WrongFrame::RESERVED_BIT, |error| matches!(error, ProtocolError::NonZeroReservedBits)),
        (WrongFrame::RESERVED_OPCODE, |error| matches!(error, ProtocolError::InvalidOpcode(3))),
        (WrongFrame::UNEXPECTED_CONTINUATION, |error| {
            matches!(error, ProtocolError::UnexpectedContinueFrame)
        }),
    ] {
        let Error::Protocol(error) = read(wrong.bytes) else { panic!("{wrong:?}") };
        assert!(is_right(error.clone()), "{wrong:?}: {error:?}");
    }
    assert!(matches!(read(WrongFrame::INVALID_UTF8.bytes), Error::Utf8(_)));
    // As a server, it reads what a client shows that accepts the mask.
    let stream = std::io::Cursor::new(WrongFrame::MASKED.bytes.to_vec());
    let unmasked = WebSocket::from_raw_socket(stream, Role::Server, None).read().unwrap();
    assert_eq!(unmasked.into_text().unwrap(), "masked");
    let huge = read(WrongFrame::HUGE_LENGTH.bytes);
    let Error::Capacity(CapacityError::MessageTooLong { size, .. }) = huge else {
        panic!("{huge}")
    };
    assert_eq!(size, 1 << 62);
}

#[test]
fn a_seed_draws_the_same_connections_each_time() {
    let draw = |draws: &Draws, seed, share| draws.is_drawn(Rate { share, seed });
    let run = |seed| {
        let draws = Draws::default();
        (0..200).map(|_| draw(&draws, Some(seed), 0.5)).collect::<Vec<_>>()
    };
    assert_eq!(run(7), run(7));
    assert_ne!(run(7), run(8));
    // The generator's first numbers with the seed 0, as its authors give them: E220A839…,
    // 6E789E6A…, 06C45D18…, F88BB8A8…
    let draws = Draws::default();
    let first = [0.9, 0.4, 0.03, 0.97].map(|share| draw(&draws, Some(0), share));
    assert_eq!(first, [true, false, true, false]);

    let draws = Draws::default();
    for seed in [None, Some(0), Some(999)] {
        assert!((0..1000).all(|_| draw(&draws, seed, 1.0)));
        assert!(!(0..1000).any(|_| draw(&draws, seed, 0.0)));
        let count = (0..10_000).filter(|_| draw(&draws, seed, 0.3)).count();
        assert!((2_600..3_400).contains(&count), "{count}");
    }
    // Other seeds, and those without, do not come between.
    let draws = Draws::default();
    let between: Vec<_> = (0..200)
        .map(|_| {
            draw(&draws, Some(8), 0.5);
            draw(&draws, None, 0.5);
            draw(&draws, Some(7), 0.5)
        })
        .collect();
    assert_eq!(between, run(7));
}

#[test]
fn a_dump_is_json_with_every_header_in_order_and_shows_those_that_are_harmless() {
    let head = b"GET http://user:pass@host/do?dump HTTP/1.1\r\nHost: host\r\n\
        X-Forwarded-For: 192.0.2.1\r\nCookie: id=1234567\r\nUser-Agent: \"\\\xff\xe2\x80\xa8\t\x80\r\n\
        AUTHORIZATION: Basic abc\r\nX-Forwarded-Access-Token: xyz\r\nX-Api-Key: k\r\nSecret-Of: me\r\n\
        X-Session-Id:\r\nForwarded: for=192.0.2.1\r\nSec-WebSocket-Key: dGhl\r\nCookie: b\r\n\
        X-Forwarded-Email: a@b\r\nX-SSL-Client-Cert: pem\r\nX-Goog-Iap-Jwt-Assertion: e30\r\n\
        Sec-WebSocket-Protocol: chat, bearer.e30\r\nX-New: ?\r\n\r\n";
    let request = Request::parse(head).unwrap();
    let response = Response::text(101, "").with("Sec-WebSocket-Protocol", "chat");
    let policy = Policy { subprotocols: vec!["chat".into()], ..Policy::default() };
    let dump = dump(Peer::Tcp("[::1]:5000".parse().unwrap()), None, &request, &policy, &response);
    assert!(!dump.contains(['\n', '\r']));
    let json: serde_json::Value = serde_json::from_str(&dump).unwrap();
    let expected = serde_json::json!({
        "peer": "[::1]:5000",
        "proxy_protocol": null,
        "forwarded": [
            ["X-Forwarded-For", "192.0.2.1"],
            ["X-Forwarded-Access-Token", "3 bytes, not shown"],
            ["Forwarded", "for=192.0.2.1"],
            ["X-Forwarded-Email", "3 bytes, not shown"],
        ],
        "request": "GET http://host/do?dump HTTP/1.1",
        "headers": [
            ["Host", "host"],
            ["X-Forwarded-For", "192.0.2.1"],
            ["Cookie", "10 bytes, not shown"],
            ["User-Agent", "\"\\\u{fffd}\u{2028}\t\u{fffd}"],
            ["AUTHORIZATION", "9 bytes, not shown"],
            ["X-Forwarded-Access-Token", "3 bytes, not shown"],
            ["X-Api-Key", "1 byte, not shown"],
            ["Secret-Of", "2 bytes, not shown"],
            ["X-Session-Id", "0 bytes, not shown"],
            ["Forwarded", "for=192.0.2.1"],
            ["Sec-WebSocket-Key", "dGhl"],
            ["Cookie", "1 byte, not shown"],
            ["X-Forwarded-Email", "3 bytes, not shown"],
            ["X-SSL-Client-Cert", "3 bytes, not shown"],
            ["X-Goog-Iap-Jwt-Assertion", "3 bytes, not shown"],
            ["Sec-WebSocket-Protocol", "16 bytes, not shown"],
            ["X-New", "1 byte, not shown"],
        ],
        "agreed": { "subprotocol": "chat", "extensions": null },
    });
    assert_eq!(json, expected);
}

#[test]
fn a_dump_tells_what_a_proxy_header_says_and_no_token_that_is_a_subprotocol() {
    let request = Request::parse(b"GET /do?dump HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let response = Response::text(101, "").with("Sec-WebSocket-Protocol", "bearer.e30");
    let values = vec![("alpn", b"http/1.1".to_vec()), ("ssl_cn", "Zoë".into())];
    let header = Header { source: None, values };
    let dump = dump(Peer::Unix, Some(&header), &request, &Policy::default(), &response);
    let json: serde_json::Value = serde_json::from_str(&dump).unwrap();
    let expected = serde_json::json!({ "alpn": "http/1.1", "ssl_cn": "4 bytes, not shown" });
    assert_eq!(json["proxy_protocol"], expected);
    assert_eq!(json["agreed"]["subprotocol"], "10 bytes, not shown");
}
