//! TLS handshakes. Each is computed by its client's thread. Only a few hellos are answered at a time, since
//! the answer takes most of a handshake's time. All at once would delay the clients that are connected.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crate::buffer::Budget;
use crate::cli;
use crate::server::socket::{Error, Received, TimedSocket};
use crate::server::tls::certificate::Certificate;
use crate::server::tls::permits::Permits;
use crate::server::tls::session::Session;

/// The stack for a step, in bytes. The deepest step, with an RSA key of 4096 bits in an unoptimized
/// build, needs 60 KiB.
const STACK_SIZE: usize = 128 * 1024;

/// Accepts TLS sessions: the certificate, and the permits to answer hellos with it.
pub struct Acceptor {
    certificate: Arc<Certificate>,
    permits: Permits,
}

impl Acceptor {
    /// Reads the certificate if the flags name one.
    ///
    /// # Errors
    ///
    /// The reason why it can't be used.
    pub fn new(flags: &cli::Tls) -> Result<Option<Self>, String> {
        let Some(certificate) = Certificate::read(flags)? else { return Ok(None) };
        let processors = thread::available_parallelism().map_or(1, usize::from);
        Ok(Some(Acceptor { certificate, permits: Permits::new(processors) }))
    }
}

/// An incomplete handshake.
pub struct Handshake<'a> {
    acceptor: &'a Acceptor,
    budget: &'a Arc<Budget>,
    /// `None` until the first byte arrives.
    session: Option<Box<Session>>,
}

/// The progress of a handshake.
pub enum Advance {
    Incomplete(Received),
    Complete(Box<Session>),
}

impl<'a> Handshake<'a> {
    /// A handshake that has not begun.
    pub fn new(acceptor: &'a Acceptor, budget: &'a Arc<Budget>) -> Self {
        Handshake { acceptor, budget, session: None }
    }

    /// Waits for bytes, or computes the next step and sends its answer.
    pub fn advance(
        &mut self,
        socket: &mut TimedSocket,
        wait: Option<Duration>,
    ) -> Result<Advance, Error> {
        let Some(session) = &mut self.session else {
            return Ok(Advance::Incomplete(self.begin(socket, wait)?));
        };
        if !session.has_record() {
            return Ok(Advance::Incomplete(session.receive_record(socket, wait)?));
        }
        // The rest of a handshake is cheap, and needs no permit.
        let (mut config, mut permit) = (None, None);
        if !session.is_begun() {
            // Before the permit, since the files of the certificate may be slow to read.
            config = Some(self.acceptor.certificate.config());
            permit = self.acceptor.permits.acquire(wait);
            if permit.is_none() {
                socket.set_now();
                return Ok(Advance::Incomplete(Received::Nothing));
            }
            // The client may have left while it waited.
            if socket.is_ended() {
                return Ok(Advance::Incomplete(Received::End));
            }
        }
        // On a separate stack: pages that the client's own stack has touched stay resident while it is
        // connected.
        let processed = stacker::grow(STACK_SIZE, || session.process_handshake(config));
        drop(permit);
        socket.set_now();
        session.flush(socket)?;
        processed?;
        if session.is_handshaking() {
            let is_end = session.is_ended();
            let received = if is_end { Received::End } else { Received::Bytes(0) };
            return Ok(Advance::Incomplete(received));
        }
        session.shrink();
        Ok(self.session.take().map_or(Advance::Incomplete(Received::End), Advance::Complete))
    }

    /// Begins the session, unless the peer turns out to speak HTTP.
    fn begin(
        &mut self,
        socket: &mut TimedSocket,
        wait: Option<Duration>,
    ) -> Result<Received, Error> {
        let mut first = [0];
        let received = socket.peek(&mut first, wait)?;
        if let Received::Bytes(_) = received {
            // A request begins with a letter or an empty line, and so does a PROXY header. No TLS record
            // does.
            if first[0].is_ascii_alphabetic() || first[0] == b'\r' {
                return Ok(Received::NotTls);
            }
            self.session = Some(Box::new(Session::new(self.budget)?));
            return Ok(Received::Bytes(0));
        }
        Ok(received)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::os::unix::net::UnixStream;
    use std::path::PathBuf;

    use rustls::crypto::ring;
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject as _;
    use rustls::{
        ClientConfig, ClientConnection, RootCertStore, SupportedProtocolVersion, version,
    };

    use super::*;
    use crate::app::peer::Peer;
    use crate::server::socket::Socket;

    const TIMEOUT: Duration = Duration::from_secs(60);

    fn pem(name: &str) -> PathBuf {
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/tls").join(name)
    }

    /// With one permit.
    fn acceptor() -> Acceptor {
        let flags = cli::Tls { tls_cert: Some(pem("ec.crt")), tls_key: Some(pem("ec.key")) };
        let acceptor = Acceptor::new(&flags).unwrap().unwrap();
        Acceptor { permits: Permits::new(1), ..acceptor }
    }

    struct Client {
        tls: ClientConnection,
        stream: UnixStream,
    }

    impl Client {
        /// A client that has sent its hello, and the server's end of its connection.
        fn connect(version: &'static SupportedProtocolVersion) -> (Self, Socket) {
            let mut roots = RootCertStore::empty();
            roots.add(CertificateDer::from_pem_file(pem("ec.crt")).unwrap()).unwrap();
            let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
                .with_protocol_versions(&[version])
                .unwrap()
                .with_root_certificates(roots)
                .with_no_client_auth();
            let name = "localhost".try_into().unwrap();
            let tls = ClientConnection::new(Arc::new(config), name).unwrap();
            let (stream, server) = UnixStream::pair().unwrap();
            let mut client = Client { tls, stream };
            client.send();
            (client, Socket::new(server, Peer::Unix))
        }

        /// The records that it has to send.
        fn records(&mut self) -> Vec<u8> {
            let mut records = Vec::new();
            while self.tls.wants_write() {
                self.tls.write_tls(&mut records).unwrap();
            }
            records
        }

        fn send(&mut self) {
            let records = self.records();
            self.stream.write_all(&records).unwrap();
        }

        fn receive(&mut self) {
            self.tls.read_tls(&mut self.stream).unwrap();
            self.tls.process_new_packets().unwrap();
        }
    }

    /// Advances the handshake until `is_done`.
    fn advance_until(
        is_done: impl Fn(&Session) -> bool,
        handshake: &mut Handshake,
        socket: &mut TimedSocket,
    ) -> Option<Box<Session>> {
        while !handshake.session.as_deref().is_some_and(&is_done) {
            match handshake.advance(socket, Some(TIMEOUT)).unwrap() {
                Advance::Complete(session) => return Some(session),
                Advance::Incomplete(received) => assert_eq!(received, Received::Bytes(0)),
            }
        }
        None
    }

    #[test]
    fn the_hello_of_a_client_that_has_left_is_not_answered() {
        let (acceptor, budget) = (acceptor(), Arc::new(Budget::new(0)));
        let (client, socket) = Client::connect(&version::TLS13);
        let mut socket = TimedSocket::new(&socket, TIMEOUT);
        let mut handshake = Handshake::new(&acceptor, &budget);
        advance_until(Session::has_record, &mut handshake, &mut socket);
        drop(client);
        let advance = handshake.advance(&mut socket, Some(TIMEOUT)).unwrap();
        assert!(matches!(advance, Advance::Incomplete(Received::End)));
        assert!(!handshake.session.unwrap().is_begun());
    }

    #[test]
    fn the_rest_of_a_handshake_does_not_wait_for_answers() {
        for version in [&version::TLS12, &version::TLS13] {
            let (acceptor, budget) = (acceptor(), Arc::new(Budget::new(0)));
            let (mut client, socket) = Client::connect(version);
            let mut socket = TimedSocket::new(&socket, TIMEOUT);
            let mut handshake = Handshake::new(&acceptor, &budget);
            advance_until(Session::is_begun, &mut handshake, &mut socket);
            let other = acceptor.permits.acquire(None);
            client.receive();
            client.send();
            assert!(advance_until(|_| false, &mut handshake, &mut socket).is_some());
            drop(other);
        }
    }

    #[test]
    fn keys_are_updated_while_a_record_is_incomplete() {
        let (acceptor, budget) = (acceptor(), Arc::new(Budget::new(0)));
        let (mut client, socket) = Client::connect(&version::TLS13);
        let mut socket = TimedSocket::new(&socket, TIMEOUT);
        let mut handshake = Handshake::new(&acceptor, &budget);
        advance_until(Session::is_begun, &mut handshake, &mut socket);
        client.receive();
        client.send();
        let mut session = advance_until(|_| false, &mut handshake, &mut socket).unwrap();
        let mut received = [0; 100];
        for _ in 0..3 {
            client.tls.writer().write_all(b"before").unwrap();
            let record = client.records();
            let (part, rest) = record.split_at(record.len() / 2);
            client.stream.write_all(part).unwrap();
            let none = session.receive(&mut socket, &mut received, Some(TIMEOUT)).unwrap();
            assert_eq!(none, Received::Bytes(0));
            session.update_keys(&mut socket).unwrap();
            client.stream.write_all(rest).unwrap();
            let all = session.receive(&mut socket, &mut received, Some(TIMEOUT)).unwrap();
            assert_eq!((all, &received[..6]), (Received::Bytes(6), &b"before"[..]));
            session.send(&mut socket, b"af", b"ter").unwrap();
            while client.tls.process_new_packets().unwrap().plaintext_bytes_to_read() < 5 {
                client.receive();
            }
            client.tls.reader().read_exact(&mut received[..5]).unwrap();
            assert_eq!(&received[..5], b"after");
        }
    }
}
