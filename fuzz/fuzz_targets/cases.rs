//! Any case, of the suite or beyond, any bytes from the client, any passage of time: the trial ends, its verdict is one of the words, and
//! what it held is given back.

#![no_main]

use std::time::Duration;

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use wsecho::app::cases::results::State;
use wsecho::app::cases::suite::{Pattern, Suite};
use wsecho_fuzz::client::ClientBytes;
use wsecho_fuzz::driver::{self, Driver, Waits};
use wsecho_fuzz::reference::{self, Header};

#[derive(Arbitrary, Debug)]
struct Input {
    case: u16,
    max_buffered: u32,
    /// Whether the client offers compression.
    offers: bool,
    actions: Vec<Action>,
}

#[derive(Arbitrary, Debug)]
enum Action {
    Receive(ClientBytes),
    /// In milliseconds.
    Wait(u16),
    /// An echo of what was sent, as it is but masked.
    Echo,
    End,
    Stop,
}

fuzz_target!(|input: Input| {
    let max_buffered = input.max_buffered as usize % (4 << 20);
    let mut service = driver::service(1 << 20, max_buffered);
    let all = [Pattern::parse("+beyond").expect("a pattern")];
    service.cases.suite = Suite::select(&all, &[], 3).expect("all");
    let ids = service.cases.suite.ids();
    let id = ids[usize::from(input.case) % ids.len()];
    let offer = if input.offers {
        "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"
    } else {
        ""
    };
    let mut is_stopped = false;
    let target = format!("/runCase?casetuple={id}&agent=x");
    let mut driver = Driver::asking(&service, &target, offer);
    for action in &input.actions {
        match action {
            Action::Receive(bytes) => {
                driver.receive(&bytes.0);
            }
            Action::Wait(millis) => {
                driver.wait_until(driver.now + Duration::from_millis((*millis).into()));
            }
            Action::Echo => echo(&mut driver),
            Action::End => driver.end_stream(),
            Action::Stop => {
                is_stopped = true;
                driver.stop();
            }
        }
    }
    for _ in 0..1_000_000 {
        match driver.wait() {
            Some(wait) => driver.suspend_until(driver.now + wait),
            None => break,
        }
    }
    assert!(driver.now < Duration::from_secs(1100), "{id} takes {:?}", driver.now);
    assert_eq!(driver.waits, Waits::Over, "{id} does not end");
    drop(driver);
    assert_eq!(service.budget.left(), max_buffered, "memory is not given back");
    match service.cases.results.state("x", id) {
        Some(State::Judged(report)) => {
            assert!(report.received.len() <= 550);
            assert!(
                ["OK", "NON-STRICT", "INFORMATIONAL", "UNIMPLEMENTED", "FAILED"]
                    .contains(&report.behavior.as_str())
            );
            assert!(
                ["OK", "FAILED", "UNCLEAN", "WRONG CODE", "INFORMATIONAL"]
                    .contains(&report.close.as_str())
            );
        }
        _ => assert!(is_stopped, "{id} has no verdict"),
    }
});

/// Sends the frames back that the case has sent, each masked, with a key of zeros.
fn echo(driver: &mut Driver) {
    let sent = driver.take();
    let end = sent.windows(4).position(|bytes| bytes == b"\r\n\r\n");
    let end = end.filter(|_| sent.starts_with(b"HTTP/")).map_or(0, |end| end + 4);
    for frame in reference::frames(&sent[end..]) {
        let Some(header) = Header::read(frame) else { break };
        let mut frame = frame.to_vec();
        frame[1] |= 0x80;
        frame.splice(header.len..header.len, [0; 4]);
        driver.receive(&frame);
    }
}
