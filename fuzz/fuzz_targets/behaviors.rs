//! Whatever is asked for on demand, it is refused in one line or is within its limits, and happens exactly,
//! at its time, however the network splits the bytes that come meanwhile, the close frame included. A trace
//! shows the same frames in every split. There is no reply that the plain echo would not send.

#![no_main]

use std::time::Duration;

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use wsecho::app::behavior::{
    self, After, Behavior, Fault, Handshake, PATH, Rate, Script, WrongFrame,
};
use wsecho_fuzz::client::{ClientBytes, Splits};
use wsecho_fuzz::driver::{Driver, Ended, service};
use wsecho_fuzz::reference::{Header, frames, server_messages};
use wsecho_fuzz::request::Query;

const MAX_MESSAGE_SIZE: usize = 400_000;
const PREFIX: &str = "> ";

/// Never short of memory: a message that is split needs some, and another one may not.
const AMPLE: usize = 1 << 30;

/// After everything came, for longer than any latency or drip.
const REST: Duration = Duration::from_secs(100);

#[derive(Arbitrary, Debug)]
struct Input {
    query: Query,
    /// How many bytes come at once, and how many milliseconds later more do.
    bursts: Vec<(u16, u16)>,
    splits: Splits,
    then: Option<Then>,
    bytes: ClientBytes,
}

/// What happens once everything came.
#[derive(Arbitrary, Clone, Copy, Debug)]
enum Then {
    PeerEnds,
    ServerStops,
}

fuzz_target!(|input: Input| {
    let behavior = match behavior::parse(&input.query.0) {
        Err(error) => return check_line(&error),
        Ok(behavior) => behavior,
    };
    check_line(&behavior.to_string());
    check_limits(&behavior);
    // Which connections it happens to, is another matter.
    if behavior.rate.is_some() {
        return;
    }
    let Some(whole) = converse(&input, &behavior, None) else { return };
    let split = converse(&input, &behavior, Some(&input.splits));
    let split = split.expect("it opens whatever comes later");
    assert_eq!(whole.ended, split.ended);
    if behavior.script.trace {
        let is_huge =
            matches!(behavior.script.fault, Some((_, Fault::WrongFrame(WrongFrame::HUGE_LENGTH))));
        if !is_huge {
            assert_eq!(whole.frames(), split.frames(), "the frames depend on the splits");
        }
        return;
    }
    assert_eq!(whole.outline(), split.outline());
    // Not by assert_eq, which would print all of both.
    assert!(whole == split, "the bytes depend on the splits");

    let Script { fault, prefix, pushes, dump, trace, .. } = &behavior.script;
    if pushes.count > 0 || *dump || *trace {
        return;
    }
    let sent: Vec<u8> = whole.writes.into_iter().flat_map(|(_, bytes)| bytes).collect();
    let wrong = match fault {
        Some((_, Fault::WrongFrame(wrong))) => Some(wrong.bytes),
        _ => None,
    };
    let mut service = service(MAX_MESSAGE_SIZE, AMPLE);
    service.settings.prefix = prefix.clone().unwrap_or(PREFIX.into());
    let mut plain = Driver::open(&service);
    plain.receive(&input.bytes.0);
    let [replies, echoes] = [(sent, wrong), (plain.take(), None)].map(|(sent, wrong)| {
        let (mut messages, _) = server_messages(&sent, wrong);
        messages.retain(|(first, _)| matches!(first, 0x1 | 0x2));
        messages
    });
    assert!(echoes.starts_with(&replies), "a reply that the plain echo does not send");
});

/// What was sent, and when, and how it ended.
#[derive(Debug, PartialEq)]
struct Course {
    writes: Vec<(Duration, Vec<u8>)>,
    ended: Option<Ended>,
    /// As in the log, but for the bytes that were received.
    end: Option<String>,
}

impl Course {
    /// When how many bytes were sent, and how it ended in the log.
    fn outline(&self) -> (Vec<(Duration, usize)>, Option<&str>) {
        let writes = self.writes.iter().map(|(at, bytes)| (*at, bytes.len())).collect();
        (writes, self.end.as_deref())
    }

    /// The frames that were sent. A trace is the JSON of each frame, without the time at which the server
    /// read those of the client: it reads nothing while many replies wait, and what it has read by then
    /// depends on the split.
    fn frames(&self) -> Vec<String> {
        let sent: Vec<u8> = self.writes.iter().flat_map(|(_, bytes)| bytes).copied().collect();
        let shown = frames(&sent).map(|frame| {
            let len = Header::read(frame).map_or(0, |header| header.len);
            match str::from_utf8(&frame[len..]) {
                Ok(trace) if trace.starts_with(r#"{"wsecho":"trace""#) => without_reading(trace),
                _ => format!("{frame:?}"),
            }
        });
        shown.collect()
    }
}

/// A trace without the times of the client's frames.
fn without_reading(trace: &str) -> String {
    let mut parts = trace.split(r#"{"from":"client","at":"#);
    let start = parts.next().unwrap_or_default();
    parts.fold(start.into(), |shown, part| {
        shown + "{client" + part.split_once(',').expect("more than a time").1
    })
}

/// What happens to a client, unless no WebSocket opens.
fn converse(input: &Input, behavior: &Behavior, splits: Option<&Splits>) -> Option<Course> {
    let mut service = service(MAX_MESSAGE_SIZE, AMPLE);
    service.settings.prefix = PREFIX.into();
    let mut driver = Driver::asking(&service, &format!("{PATH}?{}", input.query.0), "");
    driver.wait_until(behavior.delay);
    if !driver.sent.starts_with(b"HTTP/1.1 101 ") {
        return None;
    }
    driver.forget_response();
    let mut pending = &input.bytes.0[..];
    let mut arrived = 0;
    for &(len, pause) in input.bursts.iter().take(50) {
        arrived = pending.len().min(arrived + usize::from(len));
        let pause = Duration::from_millis(pause.into());
        let received = pass(&mut driver, &pending[..arrived], pause, splits);
        (pending, arrived) = (&pending[received..], arrived - received);
    }
    pending = &pending[pass(&mut driver, pending, Duration::ZERO, splits)..];
    match input.then {
        Some(Then::PeerEnds) => driver.end_stream(),
        Some(Then::ServerStops) => driver.stop(),
        None => {}
    }
    pass(&mut driver, pending, REST, splits);
    let end = driver.end().map(|end| {
        let parts = end.split(", ").filter(|part| !part.ends_with(" in"));
        parts.collect::<Vec<_>>().join(", ")
    });
    let mut rest = &driver.sent[..];
    let mut writes: Vec<(Duration, Vec<u8>)> = Vec::new();
    for &(at, len) in &driver.writes {
        let (bytes, tail) = rest.split_at(len);
        rest = tail;
        match writes.last_mut() {
            Some((last, written)) if *last == at => written.extend(bytes),
            _ => writes.push((at, bytes.into())),
        }
    }
    let ended = driver.ended;
    drop(driver);
    assert_eq!(service.budget.left(), AMPLE, "memory is not given back");
    Some(Course { writes, ended, end })
}

/// Lets `time` pass, in which as much as possible of `bytes` is received. Returns how much that is.
fn pass(driver: &mut Driver, bytes: &[u8], time: Duration, splits: Option<&Splits>) -> usize {
    let until = driver.now + time;
    let mut received = 0;
    loop {
        let rest = &bytes[received..];
        received += match splits {
            None => driver.receive(rest),
            Some(splits) => splits.split(rest).map(|piece| driver.receive(piece)).sum(),
        };
        match driver.wait() {
            Some(wait) if driver.now + wait < until => driver.suspend_until(driver.now + wait),
            _ => break,
        }
    }
    driver.suspend_until(until);
    received
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
