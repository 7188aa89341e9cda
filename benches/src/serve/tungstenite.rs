//! tungstenite, thread per client.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;

use tungstenite::Error;

pub fn serve(address: SocketAddr, echo: fn(TcpStream) -> Result<(), Error>) -> io::Result<()> {
    let listener = TcpListener::bind(address)?;
    loop {
        let (stream, _) = listener.accept()?;
        stream.set_nodelay(true)?;
        // An error is a client that has gone, as all have at the end.
        thread::spawn(move || drop(echo(stream)));
    }
}

/// As in its example: `send` flushes each reply.
pub fn echo(stream: TcpStream) -> Result<(), Error> {
    let Ok(mut websocket) = tungstenite::accept(stream) else {
        return Ok(());
    };
    loop {
        let message = websocket.read()?;
        if message.is_text() || message.is_binary() {
            websocket.send(message)?;
        }
    }
}

/// As its documentation advises for many messages: `write` each reply, then `flush` once.
pub fn echo_batches(stream: TcpStream) -> Result<(), Error> {
    let Ok(mut websocket) = tungstenite::accept(Batched { stream, has_replies: false }) else {
        return Ok(());
    };
    loop {
        match websocket.read() {
            Ok(message) if message.is_text() || message.is_binary() => {
                websocket.write(message)?;
                websocket.get_mut().has_replies = true;
            }
            Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                websocket.flush()?;
                websocket.get_mut().has_replies = false;
            }
            other => drop(other?),
        }
    }
}

/// A stream that does not read before the replies to what it has read are flushed.
struct Batched {
    stream: TcpStream,
    has_replies: bool,
}

impl Read for Batched {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.has_replies {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.stream.read(buffer)
    }
}

impl Write for Batched {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}
