//! Whatever a client sends, the server writes valid frames only, and holds no more memory than the
//! limits allow and than bytes have come.

#![no_main]

use std::sync::Arc;

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use wsecho::buffer::{self, Budget, Buffer};
use wsecho::session::Close;
use wsecho::violation::Cause;
use wsecho_fuzz::client::Wire;
use wsecho_fuzz::naive;
use wsecho_fuzz::talk::{Cuts, Talk};

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    prefix: &'a str,
    /// In steps of 8 bytes, so that limits go from nothing to beyond the largest message.
    max_message_size: u16,
    max_buffered: u16,
    cuts: Cuts,
    wire: Wire,
}

fuzz_target!(|input: Input| {
    let max_message_size = usize::from(input.max_message_size) * 8;
    let max_buffered = usize::from(input.max_buffered) * 8;
    let budget = Arc::new(Budget::new(max_buffered));
    let held_is_at_most = |held: usize| {
        let free = max_buffered.saturating_sub(held);
        Buffer::new(0, Arc::clone(&budget))
            .resize(buffer::OWN + free)
            .is_ok()
    };

    let mut talk = Talk::new(max_message_size, Arc::clone(&budget), input.prefix);
    let mut come = 0;
    for read in input.cuts.cut(&input.wire.0) {
        talk.hear(read, &input.cuts);
        come += read.len();
        let worth = max_message_size.min(2 * come);
        assert!(
            held_is_at_most(worth.saturating_sub(buffer::OWN)),
            "more is held than {come} bytes and a limit of {max_message_size} are worth"
        );
    }

    let end = talk.session.closed().cloned();
    let frames = naive::server_frames(&talk.replies);
    let close = frames.last().filter(|(opcode, _)| *opcode == 0x8);
    match (&end, close) {
        (None, None) => {}
        (Some(Close::ByPeer { code, .. }), Some((_, payload))) => {
            assert_eq!(
                code.map_or(vec![], |code| code.to_be_bytes().to_vec()),
                *payload
            );
        }
        (Some(Close::ByServer(cause)), Some((_, payload))) => {
            assert_eq!(cause.code().to_be_bytes(), payload[..2]);
        }
        _ => panic!("the end is {end:?}, and the last frame of the replies is {close:02X?}"),
    }
    for (opcode, payload) in frames {
        let limit = match opcode {
            0x1 => input.prefix.len() + max_message_size,
            _ => max_message_size.max(125),
        };
        assert!(payload.len() <= limit, "a reply of {} bytes", payload.len());
        assert!(opcode != 0x1 || payload.starts_with(input.prefix.as_bytes()));
    }
    assert!(
        talk.put_together <= buffer::OWN + max_buffered,
        "{} bytes",
        talk.put_together
    );
    if end == Some(Close::ByServer(Cause::MemoryShort)) {
        assert!(
            max_message_size > buffer::OWN + max_buffered,
            "memory was not short"
        );
        assert!(
            2 * come > buffer::OWN + max_buffered,
            "memory was not short yet"
        );
    }

    drop(talk);
    assert!(held_is_at_most(0), "memory is not given back");
});
