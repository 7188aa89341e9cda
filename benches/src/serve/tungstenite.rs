//! tungstenite, thread per client.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use tungstenite::Error;

use crate::servers::pem;

pub fn serve(
    address: SocketAddr,
    echo: impl Fn(TcpStream) -> Result<(), Error> + Clone + Send + 'static,
) -> io::Result<()> {
    let listener = TcpListener::bind(address)?;
    loop {
        let (stream, _) = listener.accept()?;
        stream.set_nodelay(true)?;
        let echo = echo.clone();
        // An error is a client that has gone, as all have at the end.
        thread::spawn(move || drop(echo(stream)));
    }
}

/// [`echo`] on rustls.
pub fn tls_echo() -> io::Result<impl Fn(TcpStream) -> Result<(), Error> + Clone> {
    let certificate = CertificateDer::from_pem_file(pem("crt")).map_err(io::Error::other)?;
    let key = PrivateKeyDer::from_pem_file(pem("key")).map_err(io::Error::other)?;
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(vec![certificate], key))
        .map_err(io::Error::other)?;
    let config = Arc::new(config);
    Ok(move |stream| {
        let session = ServerConnection::new(Arc::clone(&config)).map_err(io::Error::other)?;
        echo(StreamOwned::new(session, stream))
    })
}

/// As in its example: `send` flushes each reply.
pub fn echo(stream: impl Read + Write) -> Result<(), Error> {
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
