//! Whatever a client sends, the server sends valid frames only, and holds no more memory than the
//! limits allow and than bytes came.

#![no_main]

use std::sync::Arc;

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use wsecho::buffer::{Budget, STEP, UNMETERED};
use wsecho::websocket::close::OVER_BUDGET;
use wsecho::websocket::session::Close;
use wsecho_fuzz::client::ClientBytes;
use wsecho_fuzz::driver::{Driver, Splits, settings};
use wsecho_fuzz::reference;

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    prefix: &'a str,
    /// In units of 8 bytes, so that limits go from nothing to beyond the largest message.
    max_message_size: u16,
    max_buffered: u16,
    splits: Splits,
    bytes: ClientBytes,
}

fuzz_target!(|input: Input| {
    let max_message_size = usize::from(input.max_message_size) * 8;
    let max_buffered = usize::from(input.max_buffered) * 8;
    let budget = Arc::new(Budget::new(max_buffered));
    let settings = settings(max_message_size, input.prefix);
    let mut driver = Driver::new(&settings, &budget, &input.splits, None);
    let mut came = 0;
    for piece in input.splits.split(&input.bytes.0) {
        driver.receive(piece);
        came += piece.len();
        let charged = max_buffered - budget.left();
        let most = max_message_size.min(came + STEP).saturating_sub(UNMETERED);
        assert!(charged <= most, "{charged} bytes are charged when {came} came");
    }

    let closed = driver.conversation.closed().cloned();
    let frames = reference::server_frames(&driver.output);
    let close = frames.last().filter(|(opcode, _)| *opcode == 0x8).map(|(_, payload)| *payload);
    match (&closed, close) {
        (None, None) => {}
        (Some(Close::ByPeer(frame)), Some(payload)) => {
            assert_eq!(frame.code.map_or(vec![], |code| code.to_be_bytes().into()), payload);
        }
        (Some(Close::ByServer(frame)), Some(payload)) => {
            assert_eq!(frame.code.unwrap().to_be_bytes(), payload[..2]);
            assert_eq!(frame.reason.as_str().as_bytes(), &payload[2..]);
        }
        _ => panic!("the end is {closed:?}, and the close frame has {close:02X?}"),
    }
    for (opcode, payload) in frames {
        let len = match opcode {
            0x1 => payload.strip_prefix(input.prefix.as_bytes()).expect("the prefix").len(),
            _ => payload.len(),
        };
        let limit = max_message_size.min(UNMETERED + max_buffered);
        assert!(len <= limit || !matches!(opcode, 0x1 | 0x2), "a message of {len} bytes");
    }
    if closed == Some(Close::ByServer(OVER_BUDGET)) {
        let most = UNMETERED + max_buffered;
        assert!(max_message_size > most && came > most, "memory is not short after {came} bytes");
    }

    drop(driver);
    assert_eq!(budget.left(), max_buffered, "memory is not given back");
});
