//! The PROXY protocol, versions 1 and 2: a proxy in TCP mode sends the client's address in a header before
//! the client's bytes (haproxy.org/download/3.2/doc/proxy-protocol.txt, quoted below).
//!
//! The existing crates violate the specification: all refuse a LOCAL header of an unknown family, and
//! accept `+80` as a port. None limits a receive to the bytes of the header, so the first bytes of TLS
//! or HTTP may be received with it.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The first bytes of version 1.
pub const V1_PREFIX: &[u8] = b"PROXY ";

/// The first bytes of version 2.
pub const V2_SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// The maximum length of a version 1 line, CR LF included.
const V1_MAX_LEN: usize = 107;

/// The minimum length of a header: `PROXY UNKNOWN` and CR LF. A first receive of this many bytes never
/// goes beyond the header.
pub const MIN_LEN: usize = 15;

/// The length of version 2 before its addresses: the signature, version and command, family and
/// transport, and the length of the rest.
const V2_HEAD_LEN: usize = V2_SIGNATURE.len() + 4;

/// The maximum length of a header.
pub const MAX_LEN: usize = V2_HEAD_LEN + u16::MAX as usize;

/// The maximum length of a kept value. An ALPN name and a host name can't be longer, and a unique id has
/// at most 128 bytes.
const MAX_VALUE_LEN: usize = 255;

/// The result of parsing a possibly incomplete header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// The header is at least this many bytes longer.
    Incomplete(usize),
    Complete(Header),
}

/// A whole header.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// The client's address. `None` if the proxy itself is the client, or if the client has no IP address.
    /// The socket's peer then stands for the client.
    pub source: Option<SocketAddr>,
    /// The additional values of known types, each type once, by name.
    pub values: Vec<(&'static str, Vec<u8>)>,
}

/// Parses a header from the bytes received so far. To receive no byte after the header, begin with no
/// bytes, and receive at most as many as [`Parsed::Incomplete`] reports each time.
///
/// # Errors
///
/// The mistake, as soon as it is seen: "Any sequence which does not exactly match the protocol must
/// be discarded and cause the receiver to abort the connection" (§2.1).
pub fn parse(input: &[u8]) -> Result<Parsed, &'static str> {
    let begins = |prefix: &[u8]| input.iter().zip(prefix).all(|(byte, expected)| byte == expected);
    if begins(V1_PREFIX) {
        parse_v1(input)
    } else if begins(V2_SIGNATURE) {
        parse_v2(input)
    } else {
        Err("no PROXY header")
    }
}

/// §2.1: "one line of US-ASCII text".
fn parse_v1(input: &[u8]) -> Result<Parsed, &'static str> {
    if input.len() < MIN_LEN {
        return Ok(Parsed::Incomplete(MIN_LEN - input.len()));
    }
    // "If the CRLF sequence is not found in the first 107 characters, the receiver should declare the
    // line invalid."
    let within_limit = &input[..input.len().min(V1_MAX_LEN)];
    let Some(end) = within_limit.windows(2).position(|pair| pair == b"\r\n") else {
        let missing = if within_limit.ends_with(b"\r") { 1 } else { 2 };
        return match missing.min(V1_MAX_LEN - within_limit.len()) {
            0 => Err("the PROXY line is longer than 107 bytes"),
            missing => Ok(Parsed::Incomplete(missing)),
        };
    };
    let line = &input[V1_PREFIX.len()..end];
    // "For "UNKNOWN", […] the receiver must ignore anything presented before the CRLF is found."
    if line == b"UNKNOWN" || line.starts_with(b"UNKNOWN ") {
        return Ok(Parsed::Complete(Header::default()));
    }
    let fields: Vec<&str> = str::from_utf8(line).unwrap_or_default().split(' ').collect();
    let [family, source, destination, source_port, destination_port] = fields[..] else {
        return Err("the PROXY line is not FAMILY SOURCE DESTINATION PORT PORT");
    };
    let ip = |text: &str| match family {
        "TCP4" => Ok(text.parse().ok().map(IpAddr::V4)),
        "TCP6" => Ok(text.parse().ok().map(IpAddr::V6)),
        _ => Err("the PROXY line's family is not TCP4, TCP6 or UNKNOWN"),
    };
    // "Heading zeroes are not permitted in front of numbers".
    let port = |text: &str| text.parse::<u16>().ok().filter(|port| port.to_string() == text);
    let (Some(source), Some(_)) = (ip(source)?, ip(destination)?) else {
        return Err("the PROXY line has an address that is not of its family");
    };
    let (Some(source_port), Some(_)) = (port(source_port), port(destination_port)) else {
        return Err("the PROXY line has a port that is not a number from 0 to 65535");
    };
    let source = Some(SocketAddr::new(source, source_port));
    Ok(Parsed::Complete(Header { source, values: vec![] }))
}

/// §2.2: a head of fixed size, then the number of bytes that it declares.
fn parse_v2(input: &[u8]) -> Result<Parsed, &'static str> {
    /// Version 2 and the command.
    const LOCAL: u8 = 0x20;
    const PROXY: u8 = 0x21;

    let Some((head, rest)) = input.split_first_chunk::<V2_HEAD_LEN>() else {
        return Ok(Parsed::Incomplete(V2_HEAD_LEN - input.len()));
    };
    let [.., version_and_command, family_and_transport, high, low] = *head;
    let len = usize::from(u16::from_be_bytes([high, low]));
    match version_and_command {
        LOCAL | PROXY => {}
        // "Receivers must drop connections presenting unexpected values here."
        0x22..=0x2F => return Err("the PROXY header's command is neither LOCAL nor PROXY"),
        _ => return Err("the PROXY header's version is not 2"),
    }
    match rest.get(..len) {
        None => Ok(Parsed::Incomplete(len - rest.len())),
        // "The receiver must accept this connection as valid and must use the real connection
        // endpoints and discard the protocol block including the family which is ignored."
        Some(_) if version_and_command == LOCAL => Ok(Parsed::Complete(Header::default())),
        Some(block) => parse_block(family_and_transport, block).map(Parsed::Complete),
    }
}

/// The addresses, and the values after them.
fn parse_block(family_and_transport: u8, block: &[u8]) -> Result<Header, &'static str> {
    const TOO_SHORT: &str = "the PROXY header is too short for the addresses of its family";
    const UNIX_LEN: usize = 2 * 108;
    let (source, values) = match (family_and_transport >> 4, family_and_transport & 0xF) {
        // "The receiver should ignore address information", and where that ends is unknown.
        (0, 0..=2) | (1..=3, 0) => return Ok(Header::default()),
        (1, 1 | 2) => {
            let (addresses, values) = block.split_first_chunk::<12>().ok_or(TOO_SHORT)?;
            let &[a, b, c, d, _, _, _, _, high, low, _, _] = addresses;
            let port = u16::from_be_bytes([high, low]);
            (Some(SocketAddr::new(Ipv4Addr::new(a, b, c, d).into(), port)), values)
        }
        (2, 1 | 2) => {
            let (addresses, values) = block.split_first_chunk::<36>().ok_or(TOO_SHORT)?;
            let (source, after) = addresses.split_first_chunk::<16>().ok_or(TOO_SHORT)?;
            let port = u16::from_be_bytes([after[16], after[17]]);
            (Some(SocketAddr::new(Ipv6Addr::from(*source).into(), port)), values)
        }
        (3, 1 | 2) => (None, block.get(UNIX_LEN..).ok_or(TOO_SHORT)?),
        // "other values […] must be rejected as invalid by receivers".
        _ => return Err("the PROXY header's family or transport is unknown"),
    };
    let mut header = Header { source, values: vec![] };
    keep_values(values, Level::Connection, &mut header.values)?;
    Ok(header)
}

/// The nesting of a value: the values about TLS are nested in one value.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Connection,
    Tls,
}

/// The type of the value in which the values about TLS are nested.
const TLS: u8 = 0x20;

/// The types of the values that are kept, and their names.
const NAMES: [(Level, u8, &str); 9] = [
    (Level::Connection, 0x01, "alpn"),
    (Level::Connection, 0x02, "authority"),
    (Level::Connection, 0x05, "unique_id"),
    (Level::Connection, 0x30, "netns"),
    (Level::Tls, 0x21, "ssl_version"),
    (Level::Tls, 0x22, "ssl_cn"),
    (Level::Tls, 0x23, "ssl_cipher"),
    (Level::Tls, 0x24, "ssl_sig_alg"),
    (Level::Tls, 0x25, "ssl_key_alg"),
];

/// Keeps the values with a name. "A receiver may choose to skip over and ignore the TLVs it is not
/// interested in or it does not understand", the checksum included.
fn keep_values(
    mut block: &[u8],
    level: Level,
    kept: &mut Vec<(&'static str, Vec<u8>)>,
) -> Result<(), &'static str> {
    const CUT: &str = "the PROXY header ends inside one of its values";
    while let [kind, high, low, rest @ ..] = block {
        let len = usize::from(u16::from_be_bytes([*high, *low]));
        let (value, next) = rest.split_at_checked(len).ok_or(CUT)?;
        block = next;
        if (level, *kind) == (Level::Connection, TLS) {
            // Flags and the result of verifying the client precede the nested values.
            keep_values(value.get(5..).ok_or(CUT)?, Level::Tls, kept)?;
        }
        if let Some(&(_, _, name)) = NAMES.iter().find(|known| (known.0, known.1) == (level, *kind))
            && value.len() <= MAX_VALUE_LEN
            && kept.iter().all(|(known, _)| *known != name)
        {
            kept.push((name, value.to_vec()));
        }
    }
    if block.is_empty() { Ok(()) } else { Err(CUT) }
}

/// Whether connections begin with a header. "The receiver MUST be configured to only receive the protocol
/// described in this specification and MUST not try to guess whether the protocol header is present or
/// not" (§2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Off,
    On,
}

/// A sender from which a header is expected and trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    /// Any address with the same first `bits` as `address`.
    Network { address: IpAddr, bits: u8 },
    /// A process on this machine, over a Unix-domain socket.
    Unix,
}

impl Sender {
    /// Parses a network in the notation of RFC 4632, a single address, or `unix`.
    ///
    /// # Errors
    ///
    /// The mistake in the text, and the correct form.
    pub fn parse(text: &str) -> Result<Self, String> {
        const EXPECTED: &str =
            "expected ADDRESS/BITS, ADDRESS or unix, for example 10.0.0.0/8, 192.0.2.7 or ::1";
        if text == "unix" {
            return Ok(Sender::Unix);
        }
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| EXPECTED)?;
        if address.to_canonical() != address {
            return Err(format!("expected the IPv4 address itself: {}", address.to_canonical()));
        }
        let max = if address.is_ipv4() { 32 } else { 128 };
        let bits = match bits.map(str::parse) {
            None => max,
            Some(Ok(bits)) if bits <= max => bits,
            Some(_) => return Err(format!("expected 0 to {max} after the slash")),
        };
        let first = first_of(address, bits);
        if first != address {
            return Err(format!("expected the network's first address: {first}/{bits}"));
        }
        Ok(Sender::Network { address, bits })
    }

    /// Whether a peer with this address matches. `None` means a Unix-domain socket.
    pub fn is(self, peer: Option<IpAddr>) -> bool {
        match (self, peer.map(|peer| peer.to_canonical())) {
            (Sender::Unix, peer) => peer.is_none(),
            (Sender::Network { address, bits }, Some(peer)) => first_of(peer, bits) == address,
            (Sender::Network { .. }, None) => false,
        }
    }
}

/// The first address of the network with the first `bits` of `address`.
fn first_of(address: IpAddr, bits: u8) -> IpAddr {
    match address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(bits.min(32))).unwrap_or(0);
            Ipv4Addr::from(u32::from(address) & mask).into()
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(bits.min(128))).unwrap_or(0);
            Ipv6Addr::from(u128::from(address) & mask).into()
        }
    }
}
