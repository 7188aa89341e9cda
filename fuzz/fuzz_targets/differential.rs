//! tungstenite's server and wsecho's conversation answer the same to the same bytes and come to the same
//! end, but for the differences that are listed here.

#![no_main]

use std::io::{self, Read, Write};
use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use tungstenite::protocol::{Role, WebSocketConfig};
use tungstenite::{Error, Message, WebSocket};
use wsecho::buffer::Budget;
use wsecho::websocket::close::ProtocolError;
use wsecho::websocket::session::Close;
use wsecho_fuzz::client::ClientBytes;
use wsecho_fuzz::driver::{Driver, Splits, settings};
use wsecho_fuzz::reference;

const MAX_MESSAGE_SIZE: usize = 200_000;

fuzz_target!(|input: (Splits, ClientBytes)| {
    let (splits, ClientBytes(bytes)) = input;
    let ours = wsecho(&bytes, &splits);
    let theirs = tungstenite(&bytes);
    let (our_frames, their_frames) = (echoes(&ours.output), echoes(&theirs.output));
    assert!(
        ours.end() == theirs.end || is_known(&ours, &theirs.end),
        "{:?} after {:02X?}, but {:?}",
        ours.closed,
        ours.last_frame,
        theirs.end
    );
    // It accepts a length that wsecho refuses, and goes on.
    let theirs = match ours.is_refused(ProtocolError::LengthNotMinimal) {
        true => &their_frames[..our_frames.len()],
        false => &their_frames,
    };
    assert!(our_frames == theirs, "{our_frames:02X?} and {theirs:02X?}");
});

#[derive(Debug, PartialEq)]
enum End {
    /// More may come.
    Open,
    ByPeer {
        code: Option<u16>,
        reason: String,
    },
    /// By the server for an error of the client's, with this code.
    Refused(u16),
}

struct Ours<'b> {
    output: Vec<u8>,
    closed: Option<Close>,
    /// The frame that was received last: the one that ended the conversation, if it has ended.
    last_frame: &'b [u8],
}

struct Theirs {
    output: Vec<u8>,
    end: End,
}

impl Ours<'_> {
    fn end(&self) -> End {
        match self.closed.clone() {
            None => End::Open,
            Some(Close::ByPeer(frame)) => {
                End::ByPeer { code: frame.code, reason: frame.reason.into() }
            }
            Some(Close::ByServer(frame)) => match frame.code {
                Some(code @ (1002 | 1007 | 1009)) => End::Refused(code),
                _ => panic!("{frame} is for no error of the client's"),
            },
        }
    }

    fn is_refused(&self, error: ProtocolError) -> bool {
        self.closed == Some(Close::ByServer(error.into()))
    }
}

/// The differences that are known.
fn is_known(ours: &Ours, theirs: &End) -> bool {
    let frame = ours.last_frame;
    // §5.2: "the minimal number of bytes MUST be used". tungstenite accepts any.
    if ours.is_refused(ProtocolError::LengthNotMinimal) {
        return true;
    }
    match (ours.end(), theirs) {
        // 1014, Bad Gateway, was registered in 2017, and tungstenite does not know it.
        (End::ByPeer { code: Some(1014), .. }, theirs) => is_their_refusal(theirs),
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
    matches!(end, End::ByPeer { code: Some(1002), reason } if reason == "Protocol violation")
}

fn wsecho<'b>(bytes: &'b [u8], splits: &Splits) -> Ours<'b> {
    let budget = Arc::new(Budget::new(MAX_MESSAGE_SIZE));
    let settings = settings(MAX_MESSAGE_SIZE, "");
    let mut driver = Driver::new(&settings, &budget, splits, None);
    let mut last_frame = &bytes[..0];
    for frame in reference::frames(bytes) {
        last_frame = frame;
        for piece in splits.split(frame) {
            driver.receive(piece);
        }
        if driver.conversation.closed().is_some() {
            break;
        }
    }
    Ours { closed: driver.conversation.closed().cloned(), output: driver.output, last_frame }
}

fn tungstenite(bytes: &[u8]) -> Theirs {
    let config = WebSocketConfig::default()
        // It fills its buffer with zeros before each read.
        .read_buffer_size(4096)
        .max_message_size(Some(MAX_MESSAGE_SIZE))
        .max_frame_size(Some(MAX_MESSAGE_SIZE));
    let stream = Stream { input: bytes, output: Vec::new() };
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
                break End::ByPeer {
                    code: close.as_ref().map(|close| close.code.into()),
                    reason: close.map_or(String::new(), |close| close.reason.to_string()),
                };
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
fn echoes(output: &[u8]) -> Vec<(u8, &[u8])> {
    let mut frames = reference::server_frames(output);
    frames.pop_if(|(opcode, _)| *opcode == 0x8);
    frames
}

struct Stream<'b> {
    input: &'b [u8],
    output: Vec<u8>,
}

impl Read for Stream<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self.input {
            [] => Err(io::ErrorKind::WouldBlock.into()),
            _ => self.input.read(into),
        }
    }
}

impl Write for Stream<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.output.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
