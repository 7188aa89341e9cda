//! Whatever is asked for on demand, it is refused in one line or is within its limits, and the server
//! sends no invalid frame but the one that was asked for, and no reply that the plain echo would not.

#![no_main]

use std::sync::Arc;
use std::time::Duration;

use libfuzzer_sys::arbitrary::{self, Arbitrary, Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use wsecho::app::behavior::{self, After, Behavior, Fault, Handshake, Rate, Script};
use wsecho::app::conversation::{Conversation, SMALL_INPUT, Settings};
use wsecho::app::scripted::{Scripted, Step};
use wsecho::buffer::{Budget, Buffer};
use wsecho_fuzz::client::{ClientBytes, rarely};
use wsecho_fuzz::driver::{Driver, Splits, settings};
use wsecho_fuzz::reference::{Header, whole_frame};

const MAX_MESSAGE_SIZE: usize = 400_000;

#[derive(Arbitrary, Debug)]
struct Input {
    query: Query,
    max_buffered: u32,
    splits: Splits,
    /// How long nothing comes after each piece, in milliseconds, over and over.
    pauses: Vec<u16>,
    /// After how many steps the server stops, if it does.
    stops_after: Option<u16>,
    bytes: ClientBytes,
}

fuzz_target!(|input: Input| {
    let behavior = match behavior::parse(&input.query.0) {
        Err(error) => return check_line(&error),
        Ok(behavior) => behavior,
    };
    check_line(&behavior.to_string());
    check_limits(&behavior);
    let script = &behavior.script;

    let max_buffered = input.max_buffered as usize % (4 * MAX_MESSAGE_SIZE);
    let budget = Arc::new(Budget::new(max_buffered));
    let operators =
        Settings { ping_timeout: Duration::from_secs(20), ..settings(MAX_MESSAGE_SIZE, "> ") };
    let settings = script.settings(&operators);
    let (output, end) = converse(&input, script, &settings, &budget);
    assert_eq!(budget.left(), max_buffered, "memory is not given back");

    let messages = check_frames(&output, script, end);
    if script.pushes.count == 0 {
        let mut plain =
            Driver::new(&settings, &Arc::new(Budget::new(1 << 30)), &input.splits, None);
        for piece in input.splits.split(&input.bytes.0) {
            plain.receive(piece);
        }
        let echoed = check_frames(&plain.output, &Script::default(), End::Open);
        assert!(echoed.starts_with(&messages), "a reply that the plain echo has not");
    }
});

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Open,
    Fin,
    Reset,
}

/// All that is sent to a client, whose thread is as patient as the client's pauses are long.
fn converse(
    input: &Input,
    script: &Script,
    settings: &Settings,
    budget: &Arc<Budget>,
) -> (Vec<u8>, End) {
    let mut buffer = Buffer::new(Arc::clone(budget));
    buffer.reserve(SMALL_INPUT).expect("the allocator has memory");
    let conversation = Conversation::new(1, settings, buffer, budget, None);
    let held = Buffer::new(Arc::clone(budget));
    let mut scripted = Scripted::new(conversation, script, Vec::new(), held);
    let mut output = Vec::new();
    let mut now = Duration::ZERO;
    let mut steps = 0_u32;
    let mut pieces = input.splits.split(&input.bytes.0);
    let mut pauses = input.pauses.iter().cycle();
    let mut piece: &[u8] = b"";
    // What is left is waited for at most a while.
    let mut patience = 20_000;
    let mut pause = Duration::ZERO;
    loop {
        if input.stops_after.is_some_and(|after| steps >= u32::from(after)) {
            scripted.stop();
        }
        steps += 1;
        assert!(steps < 10_000_000, "it does not end");
        match scripted.next(now) {
            Step::Send(bytes) => {
                assert!(!bytes.is_empty());
                output.extend_from_slice(bytes);
            }
            Step::SendLast(bytes) => {
                output.extend_from_slice(bytes);
                return (output, End::Fin);
            }
            Step::Reset => return (output, End::Reset),
            Step::Receive(_) if pause.is_zero() && !piece.is_empty() => {
                let into = scripted.input();
                let len = into.len().min(piece.len());
                assert!(len > 0, "to receive no bytes would look like the end of the stream");
                into[..len].copy_from_slice(&piece[..len]);
                piece = &piece[len..];
                scripted.received(len, now);
            }
            Step::Receive(wait) if pause.is_zero() => {
                pause = Duration::from_millis(pauses.next().copied().unwrap_or_default().into());
                match pieces.next() {
                    Some(next) => piece = next,
                    None => match wait {
                        Some(wait) if patience > 0 => {
                            patience -= 1;
                            now += wait;
                            scripted.waited(now);
                        }
                        _ => return (output, End::Open),
                    },
                }
            }
            Step::Receive(wait) => {
                let wait = wait.map_or(pause, |wait| wait.min(pause));
                pause -= wait;
                now += wait;
                scripted.waited(now);
            }
            Step::Pause(wait) => {
                if patience == 0 {
                    return (output, End::Open);
                }
                patience -= 1;
                now += wait;
                scripted.waited(now);
            }
        }
    }
}

/// The payloads of the messages that were sent. Only the frame that was asked for may be wrong, and only
/// an end that was asked for, or a test that ends first, may come inside a reply.
fn check_frames(mut bytes: &[u8], script: &Script, end: End) -> Vec<Vec<u8>> {
    let mut wrong = match script.fault {
        Some((_, Fault::WrongFrame(wrong))) => Some(wrong.bytes()),
        _ => None,
    };
    let mut messages: Vec<Vec<u8>> = Vec::new();
    let mut open: Option<(u8, Vec<u8>)> = None;
    let mut is_closed = false;
    while !bytes.is_empty() {
        assert!(!is_closed, "§5.5.1: nothing is sent after a close frame");
        if let Some(rest) = wrong.and_then(|wrong| bytes.strip_prefix(wrong)) {
            assert!(open.is_none(), "the wrong frame is inside a message");
            (wrong, bytes) = (None, rest);
            continue;
        }
        let Some(len) = whole_frame(bytes) else {
            let may_break_off = end != End::Fin
                || matches!(script.fault, Some((_, Fault::EndStream | Fault::Reset | Fault::Hang)));
            assert!(may_break_off && !script.drip.is_zero(), "a frame is incomplete: {bytes:02X?}");
            return messages;
        };
        let header = Header::read(bytes).unwrap();
        let payload = &bytes[header.len..len];
        bytes = &bytes[len..];
        assert_eq!(header.masking_key, None, "§5.1: a server must not mask");
        assert_eq!(header.rsv, 0, "§5.2: no extension was agreed");
        assert!(header.is_minimal(), "§5.2: {header:?}");
        if header.opcode & 0x8 != 0 {
            assert!(header.fin && payload.len() <= 125, "§5.5: {header:?}");
            assert!(matches!(header.opcode, 0x8..=0xA), "{header:?}");
            is_closed = header.opcode == 0x8;
            continue;
        }
        let (opcode, mut message) = match (header.opcode, open.take()) {
            (0x0, Some(open)) => open,
            (opcode @ (0x1 | 0x2), None) => (opcode, Vec::new()),
            _ => panic!("§5.4: {header:?}"),
        };
        message.extend_from_slice(payload);
        if header.fin {
            assert!(opcode == 0x2 || str::from_utf8(&message).is_ok(), "§5.6: text is UTF-8");
            messages.push(message);
        } else {
            open = Some((opcode, message));
        }
    }
    assert!(open.is_none() || !script.drip.is_zero(), "a message is incomplete");
    messages
}

fn check_line(line: &str) {
    assert!(!line.is_empty() && !line.contains(char::is_control), "{line:?}");
}

/// The limits as the guide has them.
fn check_limits(behavior: &Behavior) {
    let Behavior { rate, delay, handshake, script } = behavior;
    let seconds = Duration::from_secs;
    if let Some(Rate { share, seed }) = rate {
        assert!((0.0..=1.0).contains(share) && seed.is_none_or(|seed| seed < 1000));
    }
    assert!(*delay <= seconds(60));
    if let Handshake::Status(status) = handshake {
        assert!(matches!(status, 200 | 301..=303 | 307 | 308 | 400..=599) && *status != 407);
        assert_eq!(script, &Script::default());
    }
    assert!(script.prefix.as_ref().is_none_or(|prefix| prefix.len() <= 100));
    assert!(script.latency <= seconds(10) && script.drip <= seconds(10));
    assert_ne!(script.fragment, Some(0));
    let pushes = script.pushes;
    assert!(pushes.count as usize * pushes.bytes.max(4) <= 1 << 20 && pushes.count <= 1000);
    assert!(pushes.interval.is_zero() || pushes.interval >= Duration::from_millis(10));
    assert!(pushes.interval <= seconds(60));
    let ping = script.ping_interval;
    assert!(ping.is_none_or(|ping| (Duration::from_millis(100)..=seconds(900)).contains(&ping)));
    let Some((after, fault)) = &script.fault else { return };
    match after {
        After::Replies(replies) => assert!(*replies <= 1000),
        After::Time(time) => assert!(*time <= seconds(600)),
    }
    match fault {
        Fault::Close(close) => {
            let code = close.code.unwrap_or(1000);
            assert!(matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999), "{code}");
            let reason = close.reason.as_str();
            assert!(reason.len() <= 123 && (close.code.is_some() || reason.is_empty()));
        }
        Fault::Reset => assert!(!matches!(after, After::Replies(0) | After::Time(Duration::ZERO))),
        Fault::EndStream | Fault::Hang | Fault::WrongFrame(_) => {}
    }
}

/// A query of known parameters, most often with values at their limits.
#[derive(Debug)]
struct Query(String);

impl<'a> Arbitrary<'a> for Query {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        #[rustfmt::skip]
        const PARAMETERS: [(&str, &[&str]); 18] = [
            ("latency", &["1ms", "10s", "200ms", "0", "11s"]),
            ("fragment", &["1", "125", "126", "3", "65536", "18446744073709551615", "0"]),
            ("drip", &["1ms", "1s", "10s", "10us", "7ms"]),
            ("count", &["1", "3", "1000", "16", "0"]),
            ("interval", &["0", "10ms", "1s", "60s", "9ms"]),
            ("bytes", &["1", "3", "65536", "1048"]),
            ("close", &["4000", "none", "fin", "rst", "hang", "1006", "1000"]),
            ("bad", &["mask", "rsv", "opcode", "utf8", "continuation", "length", "accept", "protocol", "extension"]),
            ("after", &["0", "1", "3", "1000", "100ms", "0s", "10m"]),
            ("prefix", &["", "%3E%20", "%C3%A9", "%ff", "+"]),
            ("ping", &["100ms", "1s", "15m"]),
            ("pong", &["off", "on"]),
            ("reason", &["bye", "", "%0A"]),
            ("dump", &["", "1"]),
            ("rate", &["0.5", "0", "1", "1.1"]),
            ("seed", &["0", "999", "1000"]),
            ("delay", &["1s", "60s", "61s"]),
            ("status", &["503", "301", "101", "407"]),
        ];
        let mut query = String::new();
        for _ in 0..u.int_in_range(0..=5)? {
            // The first ones most often.
            let last = if rarely(u)? { PARAMETERS.len() } else { 12 };
            let (name, values) = u.choose(&PARAMETERS[..last])?;
            let value = if rarely(u)? { u.arbitrary()? } else { *u.choose(values)? };
            query += &format!("{name}={value}&");
        }
        if rarely(u)? {
            query += u.arbitrary::<&str>()?;
        }
        Ok(Query(query))
    }
}
