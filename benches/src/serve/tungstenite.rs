//! What one would otherwise write: tungstenite as its example shows it, one thread per client.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;

pub fn serve(address: SocketAddr) -> io::Result<()> {
    let listener = TcpListener::bind(address)?;
    loop {
        let (stream, _) = listener.accept()?;
        // An error here is a client that went away, which every run ends with.
        thread::spawn(move || drop(echo(stream)));
    }
}

fn echo(stream: TcpStream) -> Result<(), tungstenite::Error> {
    stream.set_nodelay(true)?;
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
