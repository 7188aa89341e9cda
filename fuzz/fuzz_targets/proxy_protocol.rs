//! Whatever comes as a PROXY header, it means the same in every split, ends where it says, and has the
//! source that another parser finds.

#![no_main]

use std::net::SocketAddr;

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use ppp::{HeaderResult, PartialResult as _, v1, v2};
use wsecho::proxy_protocol::{Header, MAX_LEN, Parsed, V2_SIGNATURE, parse};

#[derive(Arbitrary, Debug)]
struct Input<'i> {
    /// In pieces of at most this many bytes the header comes.
    piece: u8,
    start: Start<'i>,
    rest: &'i [u8],
}

/// What would take a fuzzer long to find.
#[derive(Arbitrary, Debug)]
enum Start<'i> {
    Anything,
    Line(&'i str),
    Binary { command: u8, family: u8, block: &'i [u8] },
}

fuzz_target!(|input: Input| {
    let mut bytes = match &input.start {
        Start::Anything => Vec::new(),
        Start::Line("") => b"PROXY TCP4 192.0.2.1 192.0.2.2 1000 80\r\n".to_vec(),
        Start::Line(line) => format!("PROXY {line}\r\n").into_bytes(),
        Start::Binary { command, family, block } => {
            let len = (block.len() as u16).to_be_bytes();
            [V2_SIGNATURE, &[*command, *family], &len, block].concat()
        }
    };
    bytes.extend(input.rest);

    let outcome = receive(&bytes, usize::MAX);
    assert_eq!(receive(&bytes, usize::from(input.piece).max(1)), outcome);
    if let Outcome::Complete(header, len) = &outcome {
        assert!(*len <= MAX_LEN);
        let before = parse(&bytes[..len - 1]);
        assert!(matches!(before, Ok(Parsed::Incomplete(_))), "it ends earlier: {before:?}");
        assert_eq!(parse(&bytes), Ok(Parsed::Complete(header.clone())), "what follows changes it");
        assert!(header.values.len() < 10);
    }
    compare(&bytes, &outcome);
});

#[derive(Debug, PartialEq)]
enum Outcome {
    Refused(&'static str),
    Incomplete,
    /// With its length.
    Complete(Header, usize),
}

/// Receives what may be received, in pieces.
fn receive(bytes: &[u8], piece: usize) -> Outcome {
    let mut received = 0;
    loop {
        match parse(&bytes[..received]) {
            Err(wrong) => return Outcome::Refused(wrong),
            Ok(Parsed::Complete(header)) => return Outcome::Complete(header, received),
            Ok(Parsed::Incomplete(_)) if received == bytes.len() => return Outcome::Incomplete,
            Ok(Parsed::Incomplete(missing)) => {
                assert!(missing > 0);
                received = bytes.len().min(received + missing.min(piece));
            }
        }
    }
}

/// Where another parser finds an address or an error, so do we, but for what it gets wrong.
fn compare(bytes: &[u8], outcome: &Outcome) {
    let parsed = HeaderResult::parse(bytes);
    if parsed.is_incomplete() {
        return;
    }
    let theirs = match &parsed {
        HeaderResult::V1(Ok(header)) => match header.addresses {
            v1::Addresses::Tcp4(a) => SocketAddr::from((a.source_address, a.source_port)),
            v1::Addresses::Tcp6(a) => SocketAddr::from((a.source_address, a.source_port)),
            v1::Addresses::Unknown => return,
        },
        HeaderResult::V2(Ok(header)) => match (header.command, header.protocol, header.addresses) {
            (v2::Command::Local, ..) | (_, v2::Protocol::Unspecified, _) => return,
            _ if header.tlvs().any(|value| value.is_err()) => {
                return assert!(matches!(outcome, Outcome::Refused(_)), "{outcome:?}");
            }
            (.., v2::Addresses::IPv4(a)) => SocketAddr::from((a.source_address, a.source_port)),
            (.., v2::Addresses::IPv6(a)) => SocketAddr::from((a.source_address, a.source_port)),
            _ => return,
        },
        // It refuses a LOCAL header for its family, and a line for more than its addresses.
        HeaderResult::V1(Err(_)) | HeaderResult::V2(Err(_)) => {
            let has_source =
                matches!(outcome, Outcome::Complete(header, _) if header.source.is_some());
            return assert!(!has_source, "{outcome:?}, and theirs is {parsed:?}");
        }
    };
    match outcome {
        Outcome::Complete(header, _) => assert_eq!(header.source, Some(theirs)),
        // It takes a sign for a part of a port, and looks into no value.
        Outcome::Refused(wrong) => {
            assert!(
                wrong.contains("a port") || wrong.contains("inside one of its values"),
                "{wrong}"
            )
        }
        Outcome::Incomplete => panic!("theirs is {theirs}"),
    }
}
