//! tungstenite's server and wsecho's session, told the same, answer the same and come to the same
//! end, but for the differences that are listed here.

#![no_main]

use std::io::{self, Read, Write};
use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use tungstenite::protocol::{Role, WebSocketConfig};
use tungstenite::{Error, Message, WebSocket};
use wsecho::buffer::Budget;
use wsecho::session::Close;
use wsecho::violation::{Cause, Violation};
use wsecho_fuzz::client::Wire;
use wsecho_fuzz::naive;
use wsecho_fuzz::talk::{Cuts, Talk};

const MAX_MESSAGE_SIZE: usize = 200_000;

fuzz_target!(|input: (Cuts, Wire)| {
    let (cuts, Wire(wire)) = input;
    let ours = wsecho(&wire, &cuts);
    let theirs = tungstenite(&wire);
    let (our_frames, their_frames) = (echoes(&ours.replies), echoes(&theirs.replies));
    assert!(
        ours.end == theirs.end || is_known(&ours, &theirs.end),
        "{:?} after {:02X?}, but {:?}",
        ours.end,
        ours.last_frame,
        theirs.end
    );
    // What it lets pass that wsecho refuses, it goes on from.
    let theirs = match ours.violation {
        Some(Violation::LengthNotMinimal) => &their_frames[..our_frames.len()],
        _ => &their_frames,
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
    /// The client did wrong, and is told so by this code.
    Refused(u16),
}

struct Ours<'w> {
    replies: Vec<u8>,
    end: End,
    violation: Option<Violation>,
    /// The frame that was read last: the one that ended it, if it has ended.
    last_frame: &'w [u8],
}

struct Theirs {
    replies: Vec<u8>,
    end: End,
}

/// What tungstenite is known to see otherwise.
fn is_known(ours: &Ours, theirs: &End) -> bool {
    let frame = ours.last_frame;
    let is_cut_off = naive::whole_frame(frame).is_none();
    let Some(violation) = ours.violation else {
        // tungstenite does not know 1014, which was registered in 2017 (Bad Gateway).
        return matches!(
            ours.end,
            End::ByPeer {
                code: Some(1014),
                ..
            }
        ) && is_their_refusal(theirs);
    };
    match (violation, theirs) {
        // §5.2: "the minimal number of bytes MUST be used". tungstenite takes any.
        (Violation::LengthNotMinimal, _) => true,
        // It says nothing about a frame before the last byte of it has come. wsecho refuses a
        // header for itself, and text at its first wrong byte.
        (_, End::Open) => is_cut_off,
        // It looks at the size before it looks at most of the other bits, and takes a length with
        // the top bit set for a large one.
        (_, End::Refused(1009)) => {
            ours.end == End::Refused(1002)
                && naive::Header::read(frame)
                    .is_some_and(|header| header.payload_len > MAX_MESSAGE_SIZE as u64)
        }
        // A close with a wrong code it answers by a close of its own, but looks at the reason first.
        (Violation::CloseCode, End::Refused(1007)) => true,
        (Violation::CloseCode, theirs) => is_their_refusal(theirs),
        _ => false,
    }
}

/// How tungstenite reports a close code that it does not allow: as if the client had sent this.
fn is_their_refusal(end: &End) -> bool {
    matches!(end, End::ByPeer { code: Some(1002), reason } if reason == "Protocol violation")
}

fn wsecho<'w>(wire: &'w [u8], cuts: &Cuts) -> Ours<'w> {
    let budget = Arc::new(Budget::new(MAX_MESSAGE_SIZE));
    let mut talk = Talk::new(MAX_MESSAGE_SIZE, budget, "");
    let mut last_frame = &wire[..0];
    for frame in naive::frames(wire) {
        last_frame = frame;
        for read in cuts.cut(frame) {
            talk.hear(read, cuts);
        }
        if talk.session.closed().is_some() {
            break;
        }
    }
    let (end, violation) = match talk.session.closed().cloned() {
        None => (End::Open, None),
        Some(Close::ByPeer { code, reason }) => (End::ByPeer { code, reason }, None),
        Some(Close::ByServer(cause)) => match cause {
            Cause::Violation(violation) => (End::Refused(cause.code()), Some(violation)),
            _ => panic!("{cause:?} is no fault of the client's"),
        },
    };
    Ours {
        replies: talk.replies,
        end,
        violation,
        last_frame,
    }
}

fn tungstenite(wire: &[u8]) -> Theirs {
    let config = WebSocketConfig::default()
        // It fills its buffer with zeros before each read.
        .read_buffer_size(4096)
        .max_message_size(Some(MAX_MESSAGE_SIZE))
        .max_frame_size(Some(MAX_MESSAGE_SIZE));
    let stream = Stream {
        input: wire,
        output: Vec::new(),
    };
    let mut socket = WebSocket::from_raw_socket(stream, Role::Server, Some(config));
    let end = loop {
        match socket.read() {
            Ok(message @ (Message::Text(_) | Message::Binary(_))) => {
                socket
                    .send(message)
                    .expect("nothing keeps it from answering");
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
    Theirs {
        replies: socket.into_inner().output,
        end,
    }
}

/// The frames of the replies but the close frame: tungstenite sends none when it refuses, and
/// repeats the reason where wsecho repeats the code alone.
fn echoes(replies: &[u8]) -> Vec<(u8, &[u8])> {
    let mut frames = naive::server_frames(replies);
    frames.pop_if(|(opcode, _)| *opcode == 0x8);
    frames
}

struct Stream<'w> {
    input: &'w [u8],
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
