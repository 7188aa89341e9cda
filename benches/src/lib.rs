//! What the benchmark of whole servers and the benchmarks of modules share.

use std::time::Duration;

use wsecho::app::connection::Connection;
use wsecho::app::service::Service;
use wsecho::app::step::Step;

pub mod compressed;
#[path = "../../tests/it/driver.rs"]
pub mod driver;
#[path = "../../tests/it/frames.rs"]
pub mod frames;
pub mod kernel_copy;
pub mod messages;
pub mod stats;

/// A verbatim echo without pings.
pub fn service() -> Service {
    let mut service = driver::service(1 << 24, 1 << 30);
    service.settings.timeouts.ping_interval = None;
    service
}

/// Drives `connection`, a WebSocket, with `received`, of which one read brings at most `read` bytes. Returns
/// how many bytes it sends.
// Not inlined, so that callgrind finds it by its name.
#[inline(never)]
pub fn converse(connection: &mut Connection, mut received: &[u8], read: usize) -> usize {
    let mut sent = 0;
    while !received.is_empty() {
        let input = connection.input();
        let bytes = input.len().min(received.len()).min(read);
        let (part, rest) = received.split_at(bytes);
        input[..bytes].copy_from_slice(part);
        received = rest;
        connection.received(bytes, Duration::ZERO);
        while let Step::Send { head, payload } = connection.next(Duration::ZERO) {
            sent += head.len() + payload.len();
        }
    }
    sent
}
