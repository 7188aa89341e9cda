//! What the kernel's copies between buffers and sockets cost by the address of the buffer.
//!
//! The kernel copies with `rep movsb`, which some processors run many times slower when (destination −
//! source) modulo 4096 is 1 to 15. In the kernel a message most often begins at or shortly after the
//! start of a page, since a socket that was read empty puts the next bytes there.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::ops::{Deref, DerefMut};
use std::time::Instant;

use crate::stats::quantile;

const PAGE: usize = 4096;

/// Zeroes that begin in the middle of a page, where the addresses never differ by so little. What is
/// measured with them is the server and not the place of the generator's buffers.
pub struct MidPage {
    memory: Vec<u8>,
    start: usize,
}

impl MidPage {
    pub fn new(len: usize) -> Self {
        let memory = vec![0; len + 2 * PAGE];
        let start = memory.as_ptr().align_offset(PAGE) + PAGE / 2;
        let mut memory = MidPage { memory, start };
        memory.memory.truncate(start + len);
        memory
    }
}

impl Deref for MidPage {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.memory[self.start..]
    }
}

impl DerefMut for MidPage {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..]
    }
}

/// GB/s of `send` and of `recv` with a buffer that begins at `place` in its page.
pub fn rates(place: usize) -> io::Result<(f64, f64)> {
    const LEN: usize = 32 * 1024;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let mut sender = TcpStream::connect(listener.local_addr()?)?;
    let mut receiver = listener.accept()?.0;
    let start = (place + PAGE / 2) % PAGE;
    let mut memory = MidPage::new(LEN + PAGE);
    let buffer = &mut memory[start..][..LEN];
    let (mut send_times, mut receive_times) = (Vec::new(), Vec::new());
    for _ in 0..1_000 {
        let started = Instant::now();
        sender.write_all(buffer)?;
        let sent = Instant::now();
        receiver.read_exact(buffer)?;
        send_times.push((sent - started).as_nanos() as f64);
        receive_times.push(sent.elapsed().as_nanos() as f64);
    }
    let rate = |times: &mut [f64]| LEN as f64 / quantile(times, 0.5).unwrap_or(f64::NAN);
    Ok((rate(&mut send_times), rate(&mut receive_times)))
}

#[cfg(test)]
mod tests {
    use super::MidPage;

    #[test]
    fn memory_begins_in_the_middle_of_a_page() {
        for len in [0, 1, 20, 70_000] {
            let memory = MidPage::new(len);
            assert_eq!((memory.len(), memory.as_ptr() as usize % 4096), (len, 2048));
        }
    }
}
