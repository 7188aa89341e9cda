//! The head of a request: where it ends, its grammar and its limits (RFC 9112).

use wsecho::http::request::ParseError::{self, Malformed, TooLarge};
use wsecho::http::request::{MAX_FIELDS, MAX_HEAD_LEN, Request, head_len};
use wsecho::proxy_protocol::V2_SIGNATURE;

use super::{FIELDS, HOST, UPGRADE, upgrade, upgrade_with};

/// Expects that `head` is malformed, and that the error has these words.
#[track_caller]
fn check_malformed(head: &[u8], words: &str) {
    match Request::parse(head) {
        Err(Malformed(wrong)) if wrong.contains(words) => {}
        other => panic!("{}: {other:?} instead of {words:?}", head.escape_ascii()),
    }
}

#[test]
fn the_end_of_a_head_is_found_however_it_is_split() {
    let padded = |len: usize| {
        upgrade_with(&format!("X: {}\r\n", "x".repeat(len - UPGRADE.len() - "X: \r\n".len())))
    };
    #[rustfmt::skip]
    let table = [
        ("", Ok(None)),
        ("\r\n", Ok(None)),
        ("GET / HTTP/1.1\r\nHost: a\r\n", Ok(None)),
        ("GET / HTTP/1.1\r\n\r", Ok(None)),
        ("GET / HTTP/1.1\r\n\r\n", Ok(Some(18))),
        ("GET / HTTP/1.1\r\n\r\n\r\n\r\n", Ok(Some(18))),
        ("GET / HTTP/1.1\n\n", Ok(Some(16))),
        ("GET / HTTP/1.1\n\r\n", Ok(Some(17))),
        ("GET / HTTP/1.1\r\n\n", Ok(Some(17))),
        (UPGRADE, Ok(Some(UPGRADE.len()))),
        (&padded(MAX_HEAD_LEN), Ok(Some(MAX_HEAD_LEN))),
        (&padded(MAX_HEAD_LEN + 1), Err(TooLarge)),
        // Without an end a head is refused as soon as none can come within the limit.
        (&"x".repeat(MAX_HEAD_LEN - 1), Ok(None)),
        (&"x".repeat(MAX_HEAD_LEN), Err(TooLarge)),
    ];
    for (input, expected) in table {
        let input = input.as_bytes();
        assert_eq!(head_len(input, 0), expected, "{}", input.escape_ascii());
        // What was searched does not have to be searched again.
        let before = expected.unwrap_or(None).unwrap_or(input.len()).saturating_sub(1);
        for searched in before.saturating_sub(40)..=before.min(MAX_HEAD_LEN - 1) {
            assert_eq!(head_len(&input[..searched], 0), Ok(None));
            assert_eq!(head_len(input, searched), expected, "{searched} searched");
        }
    }
}

#[test]
fn tls_is_recognized_by_its_first_byte() {
    let wrong = head_len(b"\x16", 0);
    assert!(
        matches!(wrong, Err(Malformed(wrong)) if wrong.starts_with("this is TLS")),
        "{wrong:?}"
    );
    assert!(matches!(wrong, Err(Malformed(wrong)) if wrong.contains("--tls-cert")), "{wrong:?}");
    assert_eq!(head_len(b"G\x16", 0), Ok(None));
}

#[test]
fn a_proxy_header_is_recognized_in_every_split_and_the_flag_named() {
    let line = b"PROXY TCP4 192.0.2.1 192.0.2.2 1000 443\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let binary = [V2_SIGNATURE, b"\x20\0\0\0GET / HTTP/1.1\r\nHost: a\r\n\r\n"].concat();
    for header in [&line[..], &binary] {
        for first in 1..header.len() {
            let head = match head_len(&header[..first], 0) {
                Ok(None) => head_len(header, first),
                head => head,
            };
            let wrong = head.and_then(|len| Request::parse(&header[..len.unwrap()]).map(drop));
            let names_the_flag =
                matches!(wrong, Err(Malformed(wrong)) if wrong.contains("--proxy-protocol"));
            assert!(names_the_flag, "{first}: {wrong:?}");
        }
    }
    // A method may begin like it.
    assert_eq!(head_len(b"PROXYING / HTTP/1.1\r\n", 0), Ok(None));
}

#[test]
fn a_head_has_at_most_100_fields() {
    for (fields, is_too_large) in [(1, false), (MAX_FIELDS, false), (MAX_FIELDS + 1, true)] {
        let head = format!("GET / HTTP/1.1\r\n{HOST}{}\r\n", "X: y\r\n".repeat(fields - 1));
        for head in [head.clone(), format!("\r\n{head}")] {
            let parsed = Request::parse(head.as_bytes()).map(|request| request.fields.len());
            assert_eq!(parsed, if is_too_large { Err(TooLarge) } else { Ok(fields) });
        }
    }
    // It need not end to be refused, but a line has to: lines are not counted at every byte.
    let lines = "\r\n".repeat(MAX_FIELDS + 2).replace("\r\n", "x\r\n");
    assert_eq!(head_len(lines.as_bytes(), 0), Ok(None));
    let too_many = lines + "x\r\n";
    assert_eq!(head_len(too_many.as_bytes(), 0), Err(TooLarge));
    assert_eq!(head_len(too_many.as_bytes(), too_many.len() - 1), Err(TooLarge));
    assert_eq!(head_len((too_many.clone() + "x").as_bytes(), too_many.len()), Ok(None));
}

#[test]
fn a_request_line_is_a_method_a_target_and_a_version() {
    let head = b"\r\nG!t /a?b HTTP/3.7\r\nX: y\r\n\r\n";
    let fields = vec![("X", &b"y"[..])];
    let request = Request { method: "G!t", target: "/a?b", version: (3, 7), fields };
    assert_eq!(Request::parse(head), Ok(request));

    for (line, words) in [
        ("GET / HTTP/1.1 ", "METHOD TARGET VERSION"),
        ("GET  / HTTP/1.1", "METHOD TARGET VERSION"),
        ("GET  HTTP/1.1", "target is empty"),
        (" GET / HTTP/1.1", "METHOD TARGET VERSION"),
        ("GET /a b HTTP/1.1", "METHOD TARGET VERSION"),
        ("GET /", "METHOD TARGET VERSION"),
        ("GET\t/\tHTTP/1.1", "METHOD TARGET VERSION"),
        ("G(T / HTTP/1.1", "method is not a token"),
        ("G\0T / HTTP/1.1", "method is not a token"),
        ("GET /\0 HTTP/1.1", "target has a control character"),
        ("GET /\x7F HTTP/1.1", "target has a control character"),
        ("GET /ä HTTP/1.1", "target is not ASCII; percent-encode it"),
        ("GET /?日本 HTTP/1.1", "target is not ASCII; percent-encode it"),
        ("GET /a#b HTTP/1.1", "fragment"),
        ("GET / HTTP/1.10", "version"),
        ("GET / HTTP/1", "version"),
        ("GET / HTTP/a.1", "version"),
        ("GET / HTTP/1.a", "version"),
        ("GET / http/1.1", "version"),
        ("GET / ICY/1.1", "version"),
    ] {
        check_malformed(format!("{line}\r\n{HOST}\r\n").as_bytes(), words);
    }
}

#[test]
fn a_line_ends_with_cr_lf() {
    for head in [
        "GET / HTTP/1.1\n\n",
        "\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n\n",
        "GET / HTTP/1.1\r\nHost: a\r\n\r\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n\r",
    ] {
        check_malformed(head.as_bytes(), "CR LF");
    }
    check_malformed(b"GET / HTTP/1.1", "CR LF");
}

#[test]
fn a_field_is_found_whatever_its_case_and_the_space_around_its_value() {
    for field in FIELDS {
        let (name, value) = field.trim_end().split_once(": ").unwrap();
        for odd in [
            format!("{}: {value}\r\n", name.to_uppercase()),
            format!("{}: {value}\r\n", name.to_lowercase()),
            format!("{name}:{value}\r\n"),
            format!("{name}:   {value}\r\n"),
            format!("{name}:\t{value} \t \r\n"),
        ] {
            let head = upgrade(field, &odd);
            let request = Request::parse(head.as_bytes()).unwrap();
            assert_eq!(request.values(name).collect::<Vec<_>>(), [value.as_bytes()], "{odd}");
        }
    }
}

#[test]
fn a_field_that_is_malformed_is_refused_and_not_guessed_at() {
    for field in FIELDS {
        let (name, value) = field.trim_end().split_once(": ").unwrap();
        for (odd, words) in [
            (format!("{name} : {value}\r\n"), "name is not a token"),
            (format!("{name}\0: {value}\r\n"), "name is not a token"),
            (format!("{name}(): {value}\r\n"), "name is not a token"),
            (format!("{name}é: {value}\r\n"), "name is not a token"),
            (format!(": {value}\r\n"), "name is not a token"),
            (format!(" {name}: {value}\r\n"), "folded"),
            (format!("{name}:\r\n {value}\r\n"), "folded"),
            (format!("{name}: {value}\r\n\tmore: x\r\n"), "folded"),
            (format!("{name} {value}\r\n"), "no colon"),
            (format!("{name}: {value}\n"), "CR LF"),
            (format!("{name}: x\r{value}\r\n"), "CR LF"),
            (format!("{name}: {value}\r\r\n"), "CR LF"),
            (format!("{name}: {value}\0\r\n"), "control character"),
            (format!("{name}: {value}\x7F\r\n"), "control character"),
        ] {
            check_malformed(upgrade(field, &odd).as_bytes(), words);
        }
    }
}

#[test]
fn other_fields_may_hold_anything_but_control_characters() {
    let odd = b"\r\nX-Empty:\r\nx!#$%&'*+-.^_`|~9: a=b; \"c\"\r\nY: \x80\xE9\xFF\ttab\r\n\r\n";
    let head = [UPGRADE.trim_end().as_bytes(), odd].concat();
    let request = Request::parse(&head).unwrap();
    let expected: [(&str, &[u8]); 3] =
        [("X-Empty", b""), ("x!#$%&'*+-.^_`|~9", b"a=b; \"c\""), ("Y", b"\x80\xE9\xFF\ttab")];
    assert_eq!(request.fields[FIELDS.len()..], expected);
}

#[test]
fn http_1_1_needs_exactly_one_host() {
    for (version, host, expected) in [
        ("1.1", "", Err(Malformed("Host is missing"))),
        ("1.2", "", Err(Malformed("Host is missing"))),
        ("1.0", "", Ok(())),
        // A version that is not spoken is no error here.
        ("2.0", "", Ok(())),
        ("0.9", "", Ok(())),
        ("1.1", "Host: a\r\nHost: a\r\n", Err(Malformed("Host is repeated"))),
        ("1.0", "Host: a\r\nhost: b\r\n", Err(Malformed("Host is repeated"))),
    ] {
        let head = format!("GET / HTTP/{version}\r\n{host}\r\n");
        assert_eq!(Request::parse(head.as_bytes()).map(drop), expected, "{head}");
    }
}

#[test]
fn host_is_a_host_and_an_optional_port() {
    #[rustfmt::skip]
    let hosts = [
        "", "a", "localhost:1222", "a.example.", "127.0.0.1:80", "[::1]", "[::1]:1222", "a:", ":80",
        "a_b~!$&'()*+,;=-%41.example",
    ];
    #[rustfmt::skip]
    let others = [
        "a b", "a/b", "http://a", "user@a", "a:b", "a:80:80", "a:8 0", "::1", "[::1", "[::g]", "[a]",
        "a[::1]", "a, b", "a\"b", "grün",
    ];
    let parse = |version: &str, host: &str| {
        let head = format!("GET / HTTP/{version}\r\nHost: {host}\r\n\r\n");
        Request::parse(head.as_bytes()).map(drop)
    };
    let error: ParseError = Malformed("Host is not a host and an optional port");
    for version in ["1.0", "1.1", "1.2"] {
        for host in hosts {
            assert_eq!(parse(version, host), Ok(()), "{host}");
        }
        for host in others {
            assert_eq!(parse(version, host), Err(error), "{host}");
        }
    }
}

#[test]
fn values_are_trimmed_and_lists_joined() {
    let head = format!(
        "GET / HTTP/1.1\r\n{HOST}A:one\r\nb: x\r\na: \t two, \"three\" ,,\tfour\t \r\nA:\r\nAB: five\r\n\r\n"
    );
    let request = Request::parse(head.as_bytes()).unwrap();
    let values: Vec<_> = request.values("A").collect();
    assert_eq!(values, [&b"one"[..], b"two, \"three\" ,,\tfour", b""]);
    let list: Vec<_> = request.list("a").collect();
    assert_eq!(list, [&b"one"[..], b"two", b"\"three\"", b"four"]);
    assert_eq!(request.list("c").count(), 0);
    assert!(request.has_token("a", "FOUR") && !request.has_token("a", "three"));
}

#[test]
fn a_target_names_a_path_or_none() {
    for (target, path) in [
        ("/", Some("/")),
        ("/a/b", Some("/a/b")),
        ("/a?b/c?d", Some("/a")),
        ("/?", Some("/")),
        ("//a", Some("//a")),
        ("/a://b", Some("/a://b")),
        ("/redirect?to=http://b/c", Some("/redirect")),
        ("http://a", Some("/")),
        ("http://a/", Some("/")),
        ("http://a/b?c", Some("/b")),
        ("http://a?b/c", Some("/")),
        ("ws://[::1]:1222/b", Some("/b")),
        ("*", None),
        ("a:80", None),
        ("a/b", None),
        ("?a", None),
    ] {
        let head = format!("GET {target} HTTP/1.1\r\n{HOST}\r\n");
        assert_eq!(Request::parse(head.as_bytes()).unwrap().path(), path, "{target}");
    }
}
