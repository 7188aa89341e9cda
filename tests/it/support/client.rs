//! Clients that speak byte by byte, and misbehave.

use std::io::{ErrorKind, Read, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use rustix::net::sockopt::set_socket_linger;

use super::SOON;
use crate::frames::frame;

/// An upgrade request with the key of RFC 6455 §1.3.
pub const UPGRADE: &str = "GET /chat HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Version: 13\r\n\r\n";

pub const HEALTH_CHECK: &str = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// What is put before each text by default.
pub const PREFIX: &str = "You have entered: ";

/// A connection on which no read or write takes for ever.
pub fn connect(server: SocketAddr) -> TcpStream {
    with_timeouts(TcpStream::connect(server).expect("it listens"))
}

pub fn with_timeouts(stream: TcpStream) -> TcpStream {
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream.set_write_timeout(Some(SOON)).unwrap();
    stream
}

/// What a client gets that asks for a WebSocket: the connection, or the whole error response.
#[track_caller]
pub fn ask(mut stream: TcpStream) -> Result<TcpStream, String> {
    // A server that has responded already may have closed its side.
    let _ = stream.write_all(UPGRADE.as_bytes());
    upgraded(stream)
}

/// An upgrade request for a WebSocket that does what `query` says.
pub fn demand(query: &str) -> String {
    UPGRADE.replace("/chat", &format!("/do?{query}"))
}

/// `request` with an offer of `extension`.
pub fn offering(request: &str, extension: &str) -> String {
    let offer = format!("\r\nSec-WebSocket-Extensions: {extension}\r\n\r\n");
    request.replace("\r\n\r\n", &offer)
}

/// What a client gets that has asked for a WebSocket.
#[track_caller]
pub fn upgraded(mut stream: TcpStream) -> Result<TcpStream, String> {
    let mut response = read_head_or_end(&mut stream);
    if response.starts_with("HTTP/1.1 101 ") {
        return Ok(stream);
    }
    let _ = stream.read_to_string(&mut response);
    Err(response)
}

/// All that comes until the server ends its stream, such as a response.
#[track_caller]
pub fn read_all(mut stream: impl Read) -> String {
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("the server closes");
    text
}

/// The head of the server's response, its empty line included.
#[track_caller]
pub fn read_head(stream: &mut impl Read) -> String {
    let head = read_head_or_end(stream);
    assert!(head.ends_with("\r\n\r\n"), "no head comes: {head:?}");
    head
}

/// The same, or what comes of it before the connection ends.
fn read_head_or_end(stream: &mut impl Read) -> String {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") && stream.read_exact(&mut byte).is_ok() {
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

/// The server's next frame: its first byte and its payload.
#[track_caller]
pub fn read_frame(stream: &mut impl Read) -> (u8, Vec<u8>) {
    let mut header = [0; 2];
    stream.read_exact(&mut header).expect("a frame comes");
    let bytes_of_len = match header[1] {
        127 => 8,
        126 => 2,
        len => {
            assert!(len < 126, "a server does not mask");
            0
        }
    };
    let mut long = [0; 8];
    stream.read_exact(&mut long[8 - bytes_of_len..]).unwrap();
    let len = if bytes_of_len == 0 { header[1].into() } else { u64::from_be_bytes(long) };
    let mut payload = vec![0; len as usize];
    stream.read_exact(&mut payload).unwrap();
    (header[0], payload)
}

/// The next frame, which has to be Close: its code.
#[track_caller]
pub fn read_close(stream: &mut impl Read) -> u16 {
    let (first, payload) = read_frame(stream);
    assert_eq!(first, 0x88, "{payload:?}");
    u16::from_be_bytes([payload[0], payload[1]])
}

/// Fails unless the server's stream ends here.
#[track_caller]
pub fn assert_end(stream: &mut TcpStream) {
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).expect("the server closes");
    assert!(rest.is_empty(), "{}", rest.escape_ascii());
}

/// Fails unless text comes back.
#[track_caller]
pub fn assert_echoes(stream: &mut TcpStream, text: &str) {
    stream.write_all(&frame(0x81, text.as_bytes())).unwrap();
    assert_eq!(read_frame(stream), (0x81, format!("{PREFIX}{text}").into_bytes()));
}

/// Fails unless the response has this status.
#[track_caller]
pub fn assert_status(response: &str, status: u16) {
    assert!(response.starts_with(&format!("HTTP/1.1 {status} ")), "{response}");
}

/// Fails unless the response is a 503 that says `why`.
#[track_caller]
pub fn assert_is_503(response: &str, why: &str) {
    assert_status(response, 503);
    assert!(response.contains("\r\nRetry-After: ") && response.contains(why), "{response}");
}

/// Ends the connection by a reset.
pub fn reset(stream: TcpStream) {
    set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
    drop(stream);
}

/// Writes `bytes` again and again until the server takes no more, and tells whether it is still
/// connected.
pub fn write_until_stuck(stream: &mut TcpStream, bytes: &[u8]) -> bool {
    stream.set_write_timeout(Some(Duration::from_millis(200))).unwrap();
    loop {
        if let Err(error) = stream.write_all(bytes) {
            return error.kind() == ErrorKind::WouldBlock;
        }
    }
}

/// Whether the server ends the connection within `limit`, by a close or by a reset.
pub fn is_ended_within(limit: Duration, stream: &mut TcpStream) -> bool {
    let deadline = Instant::now() + limit;
    let mut unread = vec![0; 64 * 1024];
    loop {
        let remaining = deadline.saturating_duration_since(Instant::now());
        if remaining.is_zero() {
            return false;
        }
        stream.set_read_timeout(Some(remaining)).unwrap();
        match stream.read(&mut unread) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => return error.kind() != ErrorKind::WouldBlock,
        }
    }
}
