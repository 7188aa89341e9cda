//! tungstenite's server and wsecho's conversation answer the same to the same bytes and come to the same
//! end, but for the differences that are listed here. wsecho may get them compressed, which tungstenite can't
//! read, and its replies are inflated by a third implementation.

#![no_main]

use std::io;

use libfuzzer_sys::fuzz_target;
use tungstenite::protocol::{Role, WebSocketConfig};
use tungstenite::{Error, Message, WebSocket};
use wsecho::websocket::close::{CloseFrame, Reason};
use wsecho::websocket::error::ProtocolError;
use wsecho_fuzz::client::{ClientBytes, Splits};
use wsecho_fuzz::deflate::{Client, Compression, RSV1, inflated_messages, open};
use wsecho_fuzz::driver::{Closed, service};
use wsecho_fuzz::reference;
use wsecho_fuzz::stream::Stream;

const MAX_MESSAGE_SIZE: usize = 200_000;

const RSV2: u8 = 0x20;

/// Never short of memory, which tungstenite does not limit.
const AMPLE: usize = 1 << 30;

fuzz_target!(|input: (Splits, Option<Compression>, ClientBytes)| {
    let (splits, compression, ClientBytes(mut bytes)) = input;
    if compression.is_some() {
        // To tungstenite this bit is an error, and here it is one like it.
        let with_rsv2 = |frame: &[u8]| match frame[0] & RSV1 {
            0 => frame.to_vec(),
            _ => [&[frame[0] & !RSV1 | RSV2], &frame[1..]].concat(),
        };
        bytes = reference::frames(&bytes).flat_map(with_rsv2).collect();
    }
    let ours = wsecho(&bytes, &splits, compression.as_ref());
    let theirs = tungstenite(&bytes);
    assert!(
        ours.end() == theirs.end || is_known(&ours, &theirs.end),
        "{:?} after {:02X?}, but {:?}",
        ours.closed,
        ours.last_frame,
        theirs.end
    );
    let parameters = compression.map(|compression| compression.parameters);
    let mut our_echoes = echoes(inflated_messages(&ours.output, parameters));
    let mut their_echoes = echoes(inflated_messages(&theirs.output, None));
    our_echoes.iter_mut().for_each(|(first, _)| *first &= !RSV1);
    // It accepts a length that wsecho refuses, and goes on.
    if ours.is_refused(ProtocolError::LengthNotMinimal) {
        their_echoes.truncate(our_echoes.len());
    }
    if ours.is_inflated_later(&theirs.end) {
        let later = our_echoes.split_off(their_echoes.len().min(our_echoes.len()));
        assert!(later.iter().all(|(opcode, _)| *opcode == 0xA), "{later:02X?}");
    }
    assert!(our_echoes == their_echoes, "{our_echoes:02X?} and {their_echoes:02X?}");
});

#[derive(Debug, PartialEq)]
enum End {
    /// More may come.
    Open,
    /// By a close frame, as the log shows it.
    ByPeer(String),
    /// By the server for an error of the client's, with this code.
    Refused(u16),
}

struct Ours<'b> {
    output: Vec<u8>,
    closed: Option<Closed>,
    /// The frame that was received last: the one that ended the conversation, if it has ended.
    last_frame: &'b [u8],
    /// Whether the last message that has begun is compressed.
    is_compressed: bool,
}

struct Theirs {
    output: Vec<u8>,
    end: End,
}

impl Ours<'_> {
    fn end(&self) -> End {
        match &self.closed {
            None => End::Open,
            Some(Closed::ByPeer(shown)) => End::ByPeer(shown.clone()),
            Some(Closed::ByServer(payload)) => match u16::from_be_bytes([payload[0], payload[1]]) {
                code @ (1002 | 1007 | 1009) => End::Refused(code),
                code => panic!("{code} is for no error of the client's"),
            },
        }
    }

    /// Whether tungstenite has refused a message that wsecho inflates only when all of it came.
    fn is_inflated_later(&self, theirs: &End) -> bool {
        self.is_compressed && matches!(theirs, End::Refused(1007 | 1009))
    }

    fn is_refused(&self, error: ProtocolError) -> bool {
        self.closed == Some(Closed::by_server(error))
    }
}

/// The differences that are known.
fn is_known(ours: &Ours, theirs: &End) -> bool {
    let frame = ours.last_frame;
    // §5.2: "the minimal number of bytes MUST be used". tungstenite accepts any.
    if ours.is_refused(ProtocolError::LengthNotMinimal) || ours.is_inflated_later(theirs) {
        return true;
    }
    match (ours.end(), theirs) {
        // 1014, Bad Gateway, was registered in 2017, and tungstenite does not know it.
        (End::ByPeer(shown), theirs) if shown.starts_with("1014") => is_their_refusal(theirs),
        (End::Refused(_), theirs) if ours.is_refused(ProtocolError::CloseCode) => match theirs {
            // It checks the reason before the code.
            End::Refused(1007) => true,
            End::Open => reference::whole_frame(frame).is_none(),
            theirs => is_their_refusal(theirs),
        },
        // It checks a frame only when all of it came. wsecho refuses a header for itself, and text at
        // its first wrong byte.
        (End::Refused(_), End::Open) => reference::whole_frame(frame).is_none(),
        // It checks the size before most of the other bits, and a length with the top bit set is a
        // large one to it.
        (End::Refused(1002), End::Refused(1009)) => reference::Header::read(frame)
            .is_some_and(|header| header.payload_len > MAX_MESSAGE_SIZE as u64),
        _ => false,
    }
}

/// How tungstenite reports a close code that it does not allow: as if the client had sent this.
fn is_their_refusal(end: &End) -> bool {
    *end == End::ByPeer("1002 \"Protocol violation\"".into())
}

fn wsecho<'b>(bytes: &'b [u8], splits: &Splits, compression: Option<&Compression>) -> Ours<'b> {
    let service = service(MAX_MESSAGE_SIZE, AMPLE);
    let mut driver = open(&service, compression.map(|compression| compression.parameters));
    let mut client = compression.map(Client::new);
    let mut last_frame = &bytes[..0];
    for frame in reference::frames(bytes) {
        last_frame = frame;
        splits.receive(
            &client.as_mut().map_or(frame.into(), |client| client.frame(frame)),
            &mut driver,
        );
        if driver.is_closed() {
            break;
        }
    }
    Ours {
        closed: driver.closed(),
        output: driver.take(),
        last_frame,
        is_compressed: client.is_some_and(|client| client.is_compressed),
    }
}

fn tungstenite(bytes: &[u8]) -> Theirs {
    let config = WebSocketConfig::default()
        // It fills its buffer with zeros before each read.
        .read_buffer_size(4096)
        .max_message_size(Some(MAX_MESSAGE_SIZE))
        .max_frame_size(Some(MAX_MESSAGE_SIZE));
    let stream = Stream::new(bytes);
    let mut socket = WebSocket::from_raw_socket(stream, Role::Server, Some(config));
    let end = loop {
        match socket.read() {
            Ok(message @ (Message::Text(_) | Message::Binary(_))) => {
                socket.send(message).expect("nothing keeps it from answering");
            }
            // It answers a ping by itself.
            Ok(Message::Ping(_) | Message::Pong(_)) => {}
            Ok(Message::Close(close)) => {
                let _ = socket.flush();
                let frame = close.map(|close| CloseFrame {
                    code: Some(close.code.into()),
                    reason: Reason::new(close.reason.to_string()).expect("it fits a frame"),
                });
                break End::ByPeer(frame.map_or("no code".into(), |frame| frame.to_string()));
            }
            Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => break End::Open,
            Err(Error::Protocol(_)) => break End::Refused(1002),
            Err(Error::Utf8(_)) => break End::Refused(1007),
            Err(Error::Capacity(_)) => break End::Refused(1009),
            other => panic!("{other:?}"),
        }
    };
    Theirs { output: socket.into_inner().output, end }
}

/// The frames without the close frame: tungstenite sends none when it refuses, and repeats the reason
/// where wsecho repeats the code alone.
fn echoes(mut frames: Vec<(u8, Vec<u8>)>) -> Vec<(u8, Vec<u8>)> {
    frames.pop_if(|(opcode, _)| *opcode == 0x8);
    frames
}
