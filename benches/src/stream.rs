//! A client's stream, which never blocks: plain or TLS.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, ClientConnection, RootCertStore};

use crate::servers::pem;

pub enum Stream {
    Plain(TcpStream),
    Tls(TcpStream, Box<ClientConnection>),
}

impl Stream {
    pub fn tls(socket: TcpStream, config: &Arc<ClientConfig>) -> io::Result<Stream> {
        let name = "localhost".try_into().map_err(io::Error::other)?;
        let mut session =
            ClientConnection::new(Arc::clone(config), name).map_err(io::Error::other)?;
        session.set_buffer_limit(None);
        Ok(Stream::Tls(socket, Box::new(session)))
    }

    pub fn socket(&self) -> &TcpStream {
        match self {
            Stream::Plain(socket) | Stream::Tls(socket, _) => socket,
        }
    }

    /// TLS takes all bytes, and keeps what the socket does not take.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Plain(socket) => socket.write(bytes),
            Stream::Tls(_, session) => {
                session.writer().write_all(bytes)?;
                self.flush()?;
                Ok(bytes.len())
            }
        }
    }

    /// Whether the socket has not taken everything yet.
    pub fn is_blocked(&self) -> bool {
        matches!(self, Stream::Tls(_, session) if session.wants_write())
    }

    pub fn flush(&mut self) -> io::Result<()> {
        if let Stream::Tls(socket, session) = self {
            while session.wants_write() {
                match session.write_tls(socket) {
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    written => written?,
                };
            }
        }
        Ok(())
    }

    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let (socket, session) = match self {
                Stream::Plain(socket) => return socket.read(buffer),
                Stream::Tls(socket, session) => (socket, session),
            };
            match session.reader().read(buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                read => return read,
            }
            if session.read_tls(socket)? == 0 {
                return Ok(0);
            }
            session.process_new_packets().map_err(io::Error::other)?;
            self.flush()?;
        }
    }
}

/// A client that trusts the certificate of the tests. Every handshake is a whole one.
pub fn client_config() -> io::Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    let certificate = CertificateDer::from_pem_file(pem("crt")).map_err(io::Error::other)?;
    roots.add(certificate).map_err(io::Error::other)?;
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}
