//! A stream for tungstenite's server.

use std::io::{self, Read, Write};

/// Has bytes to read and then no more for now, and keeps what is written.
pub struct Stream<'b> {
    input: &'b [u8],
    pub output: Vec<u8>,
}

impl<'b> Stream<'b> {
    pub fn new(input: &'b [u8]) -> Self {
        Stream { input, output: Vec::new() }
    }
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
