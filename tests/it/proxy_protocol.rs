//! The PROXY header: its two versions, in every split, and what is refused.

use std::net::IpAddr;

use wsecho::proxy_protocol::Parsed::{Complete, Incomplete};
use wsecho::proxy_protocol::{Header, MAX_LEN, Sender, V2_SIGNATURE, parse};

/// A header of version 2 with this command, family and block.
pub fn v2(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
    let len = u16::try_from(block.len()).unwrap().to_be_bytes();
    [V2_SIGNATURE, &[command, family], &len, block].concat()
}

/// A value with its type and length.
pub fn value(kind: u8, bytes: &[u8]) -> Vec<u8> {
    let len = u16::try_from(bytes.len()).unwrap().to_be_bytes();
    [&[kind], &len[..], bytes].concat()
}

const LOCAL: u8 = 0x20;
const PROXY: u8 = 0x21;
const TCP4: u8 = 0x11;
const TCP6: u8 = 0x21;

/// From 192.0.2.1:1000 to 192.0.2.2:443.
pub const ADDRESSES: [u8; 12] = [192, 0, 2, 1, 192, 0, 2, 2, 3, 232, 1, 187];

/// The same in version 1.
pub const LINE: &[u8] = b"PROXY TCP4 192.0.2.1 192.0.2.2 1000 443\r\n";

fn ipv6() -> Vec<u8> {
    let address = |last| [&[0x20, 0x01, 0x0D, 0xB8][..], &[0; 11], &[last]].concat();
    [address(1), address(2), vec![3, 232, 1, 187]].concat()
}

/// Receives a header, in pieces of at most `piece` bytes, as a server does that has to leave what
/// follows it.
fn receive(header: &[u8], piece: usize) -> Result<Header, &'static str> {
    let mut received = 0;
    loop {
        match parse(&header[..received])? {
            Complete(parsed) => {
                assert_eq!(received, header.len(), "it ends where it says");
                return Ok(parsed);
            }
            Incomplete(missing) => {
                assert!(missing > 0);
                assert!(received + missing <= header.len(), "no byte is received that follows it");
                received += missing.min(piece);
            }
        }
    }
}

fn check(header: &[u8], expected: &Header) {
    for piece in [1, 2, 3, 7, 16, usize::MAX] {
        assert_eq!(receive(header, piece).as_ref(), Ok(expected), "{}", header.escape_ascii());
    }
    let followed = [header, b"GET / HTTP/1.1\r\n"].concat();
    assert_eq!(parse(&followed), Ok(Complete(expected.clone())));
}

fn from(source: &str) -> Header {
    Header { source: Some(source.parse().unwrap()), values: vec![] }
}

#[test]
fn the_source_is_found_in_every_split() {
    for (line, source) in [
        ("PROXY TCP4 0.0.0.0 0.0.0.0 0 0\r\n", "0.0.0.0:0"),
        ("PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n", "255.255.255.255:65535"),
        ("PROXY TCP6 2001:DB8::1 ::2 1000 443\r\n", "[2001:db8::1]:1000"),
        ("PROXY TCP6 ::ffff:192.0.2.1 ::2 1000 443\r\n", "[::ffff:192.0.2.1]:1000"),
    ] {
        check(line.as_bytes(), &from(source));
    }
    check(LINE, &from("192.0.2.1:1000"));
    let long = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
    let line = format!("PROXY TCP6 {long} {long} 65535 65535\r\n");
    check(line.as_bytes(), &from(&format!("[{long}]:65535")));

    check(&v2(PROXY, TCP4, &ADDRESSES), &from("192.0.2.1:1000"));
    check(&v2(PROXY, TCP6, &ipv6()), &from("[2001:db8::1]:1000"));
    // A proxy that ends QUIC forwards what came over UDP.
    check(&v2(PROXY, 0x12, &ADDRESSES), &from("192.0.2.1:1000"));
    check(&v2(PROXY, 0x22, &ipv6()), &from("[2001:db8::1]:1000"));
}

#[test]
fn without_an_ip_address_the_peer_is_the_real_one() {
    for line in [
        "PROXY UNKNOWN\r\n",
        "PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n",
        "PROXY UNKNOWN anything \r or \n \u{ff}\r\n",
    ] {
        check(line.as_bytes(), &Header::default());
    }
    // 107 bytes.
    check(format!("PROXY UNKNOWN {}\r\n", "x".repeat(91)).as_bytes(), &Header::default());
    for header in [
        v2(LOCAL, 0, b""),
        // What follows is ignored, whatever it is.
        v2(LOCAL, TCP4, &ADDRESSES),
        v2(LOCAL, TCP4, b"short"),
        v2(LOCAL, 0xFF, b"\x01\xFF"),
        v2(PROXY, 0, b""),
        v2(PROXY, 0, b"any bytes"),
        v2(PROXY, 0x01, b""),
        v2(PROXY, 0x10, &ADDRESSES),
        // UNIX.
        v2(PROXY, 0x31, &[7; 216]),
        v2(PROXY, 0x32, &[0; 216]),
    ] {
        check(&header, &Header::default());
    }
}

#[test]
fn known_values_are_kept_by_their_names_and_others_skipped() {
    let tls = [
        &[0x07, 0, 0, 0, 0][..],
        &value(0x21, b"TLSv1.3"),
        &value(0x23, b"TLS_AES_256_GCM_SHA384"),
        &value(0x22, b"a client"),
        &value(0x24, b"SHA256"),
        &value(0x25, b"RSA2048"),
        // Of the other level.
        &value(0x01, b"nested"),
    ]
    .concat();
    let block = [
        &ADDRESSES[..],
        &value(0x03, &[1, 2, 3, 4]),
        &value(0x04, &[0; 300]),
        &value(0x01, b"h2"),
        // AWS's VPC endpoint, Azure's link id, and Google's connection id.
        &value(0xEA, b"\x01vpce-08d2bf15fac5001c9"),
        &value(0xEE, b"\x01\x01\0\0\0"),
        &value(0xE0, b"\0\0\0\0\0\0\0\x01"),
        &value(0x02, b"echo.example"),
        &value(0x20, &tls),
        &value(0x05, b"id-1"),
        &value(0x05, b"id-2"),
        &value(0x21, b"of the other level"),
        &value(0x30, b"blue"),
    ]
    .concat();
    let values = [
        ("alpn", "h2"),
        ("authority", "echo.example"),
        ("ssl_version", "TLSv1.3"),
        ("ssl_cipher", "TLS_AES_256_GCM_SHA384"),
        ("ssl_cn", "a client"),
        ("ssl_sig_alg", "SHA256"),
        ("ssl_key_alg", "RSA2048"),
        ("unique_id", "id-1"),
        ("netns", "blue"),
    ];
    let values = values.map(|(name, value)| (name, value.as_bytes().to_vec())).to_vec();
    let header = Header { values, ..from("192.0.2.1:1000") };
    check(&v2(PROXY, TCP4, &block), &header);

    // Behind the names of UNIX sockets, too.
    let unix = [&[0; 216][..], &value(0x05, b"id")].concat();
    let values = vec![("unique_id", b"id".to_vec())];
    check(&v2(PROXY, 0x31, &unix), &Header { source: None, values });
    // None is longer than its kind can be.
    let long = [&ADDRESSES[..], &value(0x02, &[b'x'; 256])].concat();
    check(&v2(PROXY, TCP4, &long), &from("192.0.2.1:1000"));
}

#[test]
fn a_header_may_be_as_long_as_its_length_can_say() {
    for len in [536, MAX_LEN] {
        let padding = len - 16 - ADDRESSES.len() - 3;
        let block = [&ADDRESSES[..], &value(0x04, &vec![0; padding])].concat();
        let header = v2(PROXY, TCP4, &block);
        assert_eq!(header.len(), len);
        check(&header, &from("192.0.2.1:1000"));
    }
}

#[test]
fn what_is_no_header_is_refused_as_soon_as_it_is_seen() {
    let refused = |input: &[u8]| {
        parse(input).expect_err(&input.escape_ascii().to_string());
        // No piece of it is taken for a whole header.
        (0..input.len()).all(|len| !matches!(parse(&input[..len]), Ok(Complete(_))))
    };
    // By its first byte that is wrong.
    for input in ["G", "\x16", "p", "PROXX", "PROXY\t", "\r\n\r\nG", "\r\n\r\n\0\r\nQUIT\r"] {
        assert_eq!(parse(input.as_bytes()), Err("no PROXY header"), "{input:?}");
        assert!(parse(&input.as_bytes()[..input.len() - 1]).is_ok(), "{input:?}");
        assert!(refused(format!("{input} and more").as_bytes()), "{input:?}");
    }
    #[rustfmt::skip]
    let lines = [
        ("PROXY TCP4 192.0.2.1 192.0.2.2 1000 443", "longer than 107"),
        ("PROXY TCP4 192.0.2.1 192.0.2.2 1000\r\n", "is not FAMILY"),
        ("PROXY TCP4 192.0.2.1 192.0.2.2 1000 443 \r\n", "is not FAMILY"),
        ("PROXY TCP4  192.0.2.1 192.0.2.2 1000 443\r\n", "is not FAMILY"),
        ("PROXY TCP4 192.0.2.1 192.0.2.2 1000 443\n\r\n", "a port"),
        ("PROXY TCP4 192.0.2.1 192.0.2.2 1000 +443\r\n", "a port"),
        ("PROXY TCP4 192.0.2.1 192.0.2.2 01000 443\r\n", "a port"),
        ("PROXY TCP4 192.0.2.1 192.0.2.2 1000 65536\r\n", "a port"),
        ("PROXY TCP4 192.0.2.01 192.0.2.2 1000 443\r\n", "an address"),
        ("PROXY TCP4 192.0.2.1 ::2 1000 443\r\n", "an address"),
        ("PROXY TCP6 192.0.2.1 ::2 1000 443\r\n", "an address"),
        ("PROXY TCP6 fe80::1%eth0 ::2 1000 443\r\n", "an address"),
        ("PROXY tcp4 192.0.2.1 192.0.2.2 1000 443\r\n", "family"),
        ("PROXY UDP4 192.0.2.1 192.0.2.2 1000 443\r\n", "family"),
        ("PROXY UNKNOWNS\r\n", "is not FAMILY"),
        ("PROXY  \u{ff}\r\n           ", "is not FAMILY"),
    ];
    for (line, words) in lines {
        let line = if line.ends_with('3') { format!("{line:<107}") } else { line.into() };
        let wrong = parse(line.as_bytes()).expect_err(&line);
        assert!(wrong.contains(words), "{line:?}: {wrong}");
        assert!(refused(line.as_bytes()), "{line:?}");
    }
    let unknown = format!("PROXY UNKNOWN {}\r\n", "x".repeat(92));
    assert!(refused(unknown.as_bytes()));

    let cut = [&ADDRESSES[..], &[0x01, 0, 3, b'h', b'2']].concat();
    let nested = [&ADDRESSES[..], &value(0x20, &[&[0; 5], &[0x21, 0, 9][..]].concat())].concat();
    let no_flags = [&ADDRESSES[..], &value(0x20, &[0; 4])].concat();
    for (header, words) in [
        (v2(0x22, TCP4, &ADDRESSES), "command"),
        (v2(0x11, TCP4, &ADDRESSES), "version"),
        (v2(0x31, TCP4, &ADDRESSES), "version"),
        (v2(PROXY, 0x13, &ADDRESSES), "family"),
        (v2(PROXY, 0x41, &ADDRESSES), "family"),
        (v2(PROXY, TCP4, &ADDRESSES[1..]), "too short"),
        (v2(PROXY, TCP6, &ipv6()[1..]), "too short"),
        (v2(PROXY, 0x31, &[0; 215]), "too short"),
        (v2(PROXY, TCP4, &cut), "inside one of its values"),
        (v2(PROXY, TCP4, &[&ADDRESSES[..], b"\x01\0"].concat()), "inside one of its values"),
        (v2(PROXY, TCP4, &nested), "inside one of its values"),
        (v2(PROXY, TCP4, &no_flags), "inside one of its values"),
    ] {
        let wrong = parse(&header).expect_err(words);
        assert!(wrong.contains(words), "{}: {wrong}", header.escape_ascii());
        assert!(refused(&header));
    }
}

#[test]
fn a_sender_is_a_network_an_address_or_unix() {
    let is = |sender: &str, peer: &str| {
        let peer = (peer != "unix").then(|| peer.parse::<IpAddr>().unwrap());
        Sender::parse(sender).unwrap().is(peer)
    };
    for (sender, inside, outside) in [
        ("10.0.0.0/8", "10.255.0.1", "11.0.0.1"),
        ("10.0.0.0/8", "::ffff:10.0.0.1", "a00::"),
        ("192.0.2.7", "192.0.2.7", "192.0.2.6"),
        ("192.0.2.128/25", "192.0.2.255", "192.0.2.127"),
        ("0.0.0.0/0", "255.255.255.255", "::1"),
        ("::/0", "::1", "127.0.0.1"),
        ("2001:db8::/33", "2001:db8:7fff::1", "2001:db8:8000::1"),
        ("::1", "::1", "::2"),
        ("127.0.0.1/32", "127.0.0.1", "unix"),
        ("unix", "unix", "127.0.0.1"),
    ] {
        assert!(is(sender, inside), "{inside} is {sender}");
        assert!(!is(sender, outside), "{outside} is not {sender}");
    }
    for (text, words) in [
        ("", "ADDRESS/BITS"),
        ("localhost", "ADDRESS/BITS"),
        ("10.0.0/8", "ADDRESS/BITS"),
        ("10.0.0.0/33", "0 to 32"),
        ("10.0.0.0/", "0 to 32"),
        ("10.0.0.0/-1", "0 to 32"),
        ("::/129", "0 to 128"),
        ("10.0.0.1/8", "first address: 10.0.0.0/8"),
        ("2001:db8::1/32", "first address: 2001:db8::/32"),
        ("::ffff:10.0.0.0/104", "10.0.0.0"),
    ] {
        let wrong = Sender::parse(text).expect_err(text);
        assert!(wrong.contains(words), "{text}: {wrong}");
    }
}
