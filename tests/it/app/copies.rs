//! The kernel's copies between sockets and a conversation's buffers: none of them, in the steady
//! state, has the difference of addresses that makes it slow on some processors (see
//! [`wsecho::placement`]).

use std::sync::Arc;
use std::time::Duration;

use wsecho::app::step::Step;
use wsecho::buffer::{Budget, Reservable};

use crate::driver::{Driver, with_budget};
use crate::frames::frame;

const LIMIT: usize = 2 << 20;

/// The client's frames and the replies each begin at the start of a socket page, as they do when the
/// other end has read all that came before.
fn assert_fast(prefix_len: usize, message: &[u8]) {
    let budget = Arc::new(Budget::limited(LIMIT, Reservable::UNLIMITED, prefix_len));
    let mut service = with_budget(LIMIT, budget);
    service.settings.prefix = "p".repeat(prefix_len);
    let mut driver = Driver::open(&service);
    // The input is a large one from then on.
    driver.receive(&frame(0x8A, b"").repeat(1_000));
    let connection = &mut driver.connection;
    // After the first message memory is where it stays.
    for _ in 0..2 {
        let mut received = 0;
        let mut replies = 0;
        while received < message.len() {
            let input = connection.input();
            assert_is_fast(received, input.as_ptr().addr(), "receive");
            let bytes = input.len().min(message.len() - received);
            input[..bytes].copy_from_slice(&message[received..received + bytes]);
            connection.received(bytes, Duration::ZERO);
            received += bytes;
            while let Step::Send { head, payload } = connection.next(Duration::ZERO) {
                replies += 1;
                assert_is_fast(head.as_ptr().addr(), 0, "send the head");
                if !payload.is_empty() {
                    assert_is_fast(payload.as_ptr().addr(), head.len(), "send the payload");
                }
            }
        }
        assert_eq!(replies, 1);
    }
}

fn assert_is_fast(source: usize, destination: usize, what: &str) {
    let difference = destination.wrapping_sub(source) % 4096;
    assert!(!(1..=15).contains(&difference), "{what}: difference {difference}");
}

#[test]
fn no_copy_is_slow_whatever_the_length() {
    let lengths = [100, 125, 126, 1_000, 4_095, 4_096, 5_000, 16_384, 17_400, 17_401, 20_000];
    for len in lengths.into_iter().chain([65_535, 65_536, 65_537, 100_000, 1 << 20]) {
        for first in [0x81, 0x82] {
            for prefix_len in [0, 18] {
                assert_fast(prefix_len, &frame(first, &vec![b'x'; len]));
            }
        }
    }
}

#[test]
fn no_copy_is_slow_whatever_the_prefix() {
    for (len, step) in [(5_000, 1), (30_000, 7), (70_000, 13)] {
        let message = frame(0x81, &vec![b'x'; len]);
        // The lengths at which a payload is near the start of a page, and samples of the others.
        let near = (0..200).chain(4_000..=4_096);
        for prefix_len in near.chain((200..4_000).step_by(step)) {
            assert_fast(prefix_len, &message);
        }
    }
}

#[test]
fn no_copy_is_slow_for_a_message_of_two_fragments() {
    for len in [3_000, 40_000, 400_000] {
        let fragments = [frame(0x01, &vec![b'x'; len]), frame(0x80, &vec![b'y'; len])].concat();
        assert_fast(18, &fragments);
    }
}
