//! TLS: the certificate, and one client's session. The client's own thread has the session to itself.
//!
//! rustls' unbuffered API is used, since it decrypts in our buffer and encrypts to it: the other one reads
//! 4 KiB at a time, and keeps these for a silent client.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::{self, Thread};
use std::time::{Duration, Instant, SystemTime};

use log::{info, warn};
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::net::SendFlags;
use rustls::crypto::ring;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ServerConfig, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, EncodeTlsData, UnbufferedStatus};

use crate::buffer::{Budget, Buffer};
use crate::cli;
use crate::server::stream::{Error, Handshake, MORE, Progress, Received, TimedSocket};

/// How often it is looked whether the certificate was renewed.
const RENEWAL_INTERVAL: Duration = Duration::from_secs(1);

/// A stack for the steps of handshakes, in bytes. The deepest one, for an RSA key of 4096 bits in a build
/// without optimization, needs 60 KiB.
const STACK_SIZE: usize = 128 * 1024;

/// How many threads compute handshakes, on however many processors.
const MOST_THREADS: usize = 16;

/// The longest record with its header, of either version, in bytes (RFC 5246 §6.2.3).
const LONGEST_RECORD: usize = 5 + 16 * 1024 + 2048;

/// The records of a silent client, in bytes.
const SMALL_INPUT: usize = 768;

/// The records of the handshake, in bytes. A usual hello fits in.
const HELLO_INPUT: usize = 2 * 1024;

/// What is encrypted at a time, in bytes: a record of the longest payload (RFC 8446 §5.1).
const PAYLOAD: usize = 16 * 1024;

/// The output of a short message, in bytes.
const SMALL_OUTPUT: usize = 768;

/// The output of a long one, in bytes: a frame's header and a payload, each in a record, and
/// `close_notify`. It needs no map of its own.
const LARGE_OUTPUT: usize = PAYLOAD + 1024;

/// What encrypting may add to a payload, in bytes: header, nonce and tag of its record, and a key
/// update before it.
const OVERHEAD: usize = 128;

/// The certificate and its key, in the hands of the threads for handshakes.
pub struct Certificate {
    steps: Arc<Steps>,
}

/// The certificate's files, which may be renewed while the server runs.
struct Files {
    cert: PathBuf,
    key: PathBuf,
    state: Mutex<State>,
}

struct State {
    config: Arc<ServerConfig>,
    /// Of the files that were read last, though they may not have been used.
    stamps: [Stamp; 2],
    checked: Instant,
}

/// Tells a file from the one that replaces it: its modification time, inode and length. `None` if it is
/// missing or no regular file.
type Stamp = Option<(SystemTime, u64, u64)>;

impl Certificate {
    /// Reads the certificate that the flags name, if they name one.
    ///
    /// # Errors
    ///
    /// Why it can't be used.
    pub fn read(flags: &cli::Tls) -> Result<Option<Self>, String> {
        let (Some(cert), Some(key)) = (flags.tls_cert.clone(), flags.tls_key.clone()) else {
            return Ok(None);
        };
        let stamps = [stamp(&cert), stamp(&key)];
        let config = configure(&cert, &key, |path| File::open(path))?;
        let state = Mutex::new(State { config, stamps, checked: Instant::now() });
        let steps = start_threads(&Arc::new(Files { cert, key, state }))
            .map_err(|error| format!("cannot start the threads for handshakes: {error}"))?;
        Ok(Some(Certificate { steps }))
    }
}

impl Files {
    /// The settings, with the renewed certificate if there is one. If the files are no pair, the old one
    /// stays.
    fn config(&self) -> Arc<ServerConfig> {
        let mut state = lock(&self.state);
        let old = Arc::clone(&state.config);
        if state.checked.elapsed() < RENEWAL_INTERVAL {
            return old;
        }
        state.checked = Instant::now();
        let stamps = [stamp(&self.cert), stamp(&self.key)];
        if state.stamps == stamps {
            return old;
        }
        state.stamps = stamps;
        // Others go on with the old one meanwhile.
        drop(state);
        match configure(&self.cert, &self.key, open_regular) {
            Ok(config) => {
                lock(&self.state).config = Arc::clone(&config);
                info!("the certificate {} was renewed", self.cert.display());
                config
            }
            Err(error) => {
                warn!("the old certificate stays: {error}");
                old
            }
        }
    }
}

/// A step of a handshake that is computed on another thread. It needs a deep stack, which would stay
/// resident for as long as the client is connected.
struct Step {
    session: Box<Session>,
    /// Dropped by a client that does not wait any longer.
    result: Weak<StepResult>,
    client: Thread,
}

/// The session, and what came of the step. `None` before that.
type StepResult = Mutex<Option<Result<(Box<Session>, Result<Next, Error>), Error>>>;

/// The steps that wait for a thread, the oldest first.
#[derive(Default)]
struct Steps {
    queue: Mutex<VecDeque<Step>>,
    added: Condvar,
}

impl Steps {
    fn add(&self, step: Step) {
        lock(&self.queue).push_back(step);
        self.added.notify_one();
    }

    /// Waits for the next one.
    fn next(&self) -> Step {
        let mut queue = lock(&self.queue);
        loop {
            if let Some(step) = queue.pop_front() {
                if queue.is_empty() {
                    // Its memory may lie behind much that a crowd will have given back.
                    *queue = VecDeque::new();
                }
                return step;
            }
            queue = self.added.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Starts a thread for each processor, which takes steps of handshakes for as long as the process lives.
fn start_threads(files: &Arc<Files>) -> io::Result<Arc<Steps>> {
    let steps = Arc::<Steps>::default();
    let processors = thread::available_parallelism().map_or(1, usize::from);
    for _ in 0..processors.min(MOST_THREADS) {
        let (files, steps) = (Arc::clone(files), Arc::clone(&steps));
        let thread = thread::Builder::new().name("handshake".into()).stack_size(STACK_SIZE);
        thread.spawn(move || {
            loop {
                take(steps.next(), &files);
            }
        })?;
    }
    Ok(steps)
}

/// Computes a step, unless nobody waits for it.
fn take(step: Step, files: &Files) {
    let Step { mut session, result, client } = step;
    let Some(result) = result.upgrade() else { return };
    let computed = panic::catch_unwind(AssertUnwindSafe(|| {
        let processed = session.begin(files).and_then(|()| session.process(&mut []));
        (session, processed.map(|(_, next)| next))
    }));
    // The log says why it has panicked.
    *lock(&result) = Some(computed.map_err(|_| Error::tls("internal error")));
    client.unpark();
}

/// A panic while a lock is held leaves nothing half-done, so a poisoned lock is safe to use.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn stamp(path: &Path) -> Stamp {
    let file = fs::metadata(path).ok().filter(fs::Metadata::is_file)?;
    Some((file.modified().ok()?, file.ino(), file.len()))
}

/// Opens a file whose reading does not wait for another process, as that of a pipe does.
fn open_regular(path: &Path) -> io::Result<File> {
    let flags = (OFlags::NONBLOCK | OFlags::NOCTTY).bits();
    let file = OpenOptions::new().read(true).custom_flags(flags.cast_signed()).open(path)?;
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(io::Error::other("it is not a regular file"))
    }
}

fn configure(
    cert: &Path,
    key: &Path,
    open: fn(&Path) -> io::Result<File>,
) -> Result<Arc<ServerConfig>, String> {
    let cannot_read = |flag: &str, path: &Path, error: pem::Error, missing: &str| {
        let error = match error {
            pem::Error::Io(error) => error.to_string(),
            pem::Error::NoItemsFound => format!("no {missing} in PEM is in it"),
            pem::Error::MissingSectionEnd { .. } => "it is cut off before its END line".into(),
            pem::Error::Base64Decode(_) => {
                "its PEM is damaged, or is a key with a password: remove that with openssl pkey"
                    .into()
            }
            error => error.to_string(),
        };
        format!("cannot read {flag} {}: {error}", path.display())
    };
    let certs = open(cert)
        .map_err(pem::Error::Io)
        .and_then(|file| CertificateDer::pem_reader_iter(file).collect::<Result<Vec<_>, _>>());
    let certs = match certs {
        Ok(certs) if certs.is_empty() => Err(pem::Error::NoItemsFound),
        certs => certs,
    };
    let certs = certs.map_err(|error| cannot_read("--tls-cert", cert, error, "certificate"))?;
    let private = open(key)
        .map_err(pem::Error::Io)
        .and_then(PrivateKeyDer::from_pem_reader)
        .map_err(|error| cannot_read("--tls-key", key, error, "private key without a password"))?;
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(certs, private));
    let mut config = config.map_err(|error| {
        let error = match error {
            // No other one of this kind comes from a key or a certificate.
            rustls::Error::General(_) => "the key has to be RSA of 2048, 3072 or 4096 bits, \
                                          ECDSA P-256 or P-384, or Ed25519"
                .into(),
            rustls::Error::InvalidCertificate(error) => {
                format!("the certificate has to be X.509 version 3, and can't be read: {error}")
            }
            rustls::Error::InconsistentKeys(_) => "the key is not the certificate's".into(),
            error => error.to_string(),
        };
        format!(
            "cannot use --tls-cert {} with --tls-key {}: {error}",
            cert.display(),
            key.display()
        )
    })?;
    config.alpn_protocols = vec![b"http/1.1".into()];
    // Each costs the handshake. With none, nothing of ours acknowledges the end of the handshake, and a
    // client with Nagle's algorithm waits 40 ms before it sends its request.
    config.send_tls13_tickets = 1;
    // It keeps nothing of a session. The sessions that rustls would keep, each in the arena of another
    // thread, would keep nearly all that a crowd took from being given back.
    config.ticketer = ring::Ticketer::new().map_err(|error| error.to_string())?;
    Ok(Arc::new(config))
}

/// A session whose handshake is not complete.
pub struct Handshaking<'c> {
    certificate: &'c Certificate,
    /// None while another thread has it for a step.
    session: Option<Box<Session>>,
    result: Arc<StepResult>,
}

impl<'c> Handshaking<'c> {
    /// A handshake that is about to begin.
    pub fn new(certificate: &'c Certificate, budget: &Arc<Budget>) -> Result<Self, Error> {
        let mut input = Buffer::new(Arc::clone(budget));
        reserve(&mut input, HELLO_INPUT)?;
        let session = Session {
            tls: None,
            input,
            received: VecDeque::new(),
            output: Buffer::new(Arc::clone(budget)),
            is_ended: false,
        };
        Ok(Handshaking { certificate, session: Some(Box::new(session)), result: Arc::default() })
    }

    /// Waits for the next bytes of the handshake or for the step that they need, and sends what answers
    /// them. Returns the session when it is complete.
    pub fn go_on(
        &mut self,
        socket: &mut TimedSocket,
        wait: Duration,
    ) -> Result<(Handshake, Option<Box<Session>>), Error> {
        let Some(mut session) = self.session.take() else { return self.take_result(socket, wait) };
        let handshake = match socket.receive(session.input.spare_mut(), Some(wait))? {
            Received::Bytes(bytes) => {
                session.input.advance(bytes);
                let (result, client) = (Arc::downgrade(&self.result), thread::current());
                let step = Step { session, result, client };
                self.certificate.steps.add(step);
                Handshake::Unfinished
            }
            Received::Nothing => {
                self.session = Some(session);
                Handshake::Unfinished
            }
            Received::End => Handshake::End,
        };
        Ok((handshake, None))
    }

    fn take_result(
        &mut self,
        socket: &mut TimedSocket,
        wait: Duration,
    ) -> Result<(Handshake, Option<Box<Session>>), Error> {
        let take = || lock(&self.result).take();
        let computed = take().or_else(|| {
            // The stop ends it early, and so may a step before.
            thread::park_timeout(wait);
            take()
        });
        let Some(result) = computed else { return Ok((Handshake::Unfinished, None)) };
        let (mut session, next) = result?;
        session.flush(socket, SendFlags::empty(), &mut Progress::default())?;
        match next? {
            Next::Data => {
                session.shrink();
                Ok((Handshake::Complete, Some(session)))
            }
            Next::Handshake if session.is_ended => Ok((Handshake::End, None)),
            Next::Handshake => {
                self.session = Some(session);
                Ok((Handshake::Unfinished, None))
            }
        }
    }
}

/// One client's session.
pub struct Session {
    /// It begins with the first bytes.
    tls: Option<Box<UnbufferedServerConnection>>,
    /// Records as they come, which are decrypted in place. None of them is whole after
    /// [`process`](Self::process), which sending relies on.
    input: Buffer,
    /// What was decrypted and not taken.
    received: VecDeque<u8>,
    /// Records to send.
    output: Buffer,
    /// Whether the peer has sent `close_notify`.
    is_ended: bool,
}

const NOT_BEGUN: &str = "the handshake has not begun";

/// What the session needs next.
enum Next {
    /// More of the handshake.
    Handshake,
    /// Nothing. Data may be sent.
    Data,
}

impl Session {
    fn begin(&mut self, files: &Files) -> Result<(), Error> {
        if self.tls.is_none() {
            let tls = UnbufferedServerConnection::new(files.config())?;
            self.tls = Some(Box::new(tls));
        }
        Ok(())
    }

    /// See [`Stream::receive`](crate::server::stream::Stream::receive).
    pub fn receive(
        &mut self,
        socket: &mut TimedSocket,
        into: &mut [u8],
        wait: Option<Duration>,
    ) -> Result<Received, Error> {
        if self.received.is_empty() && !self.is_ended {
            match socket.receive(self.input.spare_mut(), wait)? {
                Received::Bytes(bytes) => self.input.advance(bytes),
                Received::Nothing => {
                    self.shrink();
                    return Ok(Received::Nothing);
                }
                Received::End => return Ok(Received::End),
            }
            let processed = self.process(into);
            self.flush(socket, SendFlags::empty(), &mut Progress::default())?;
            let (bytes, _) = processed?;
            let is_end = bytes == 0 && self.is_ended;
            return Ok(if is_end { Received::End } else { Received::Bytes(bytes) });
        }
        socket.set_now();
        // It reads from memory, and can't fail.
        match self.received.read(into).unwrap_or(0) {
            0 => Ok(Received::End),
            bytes => Ok(Received::Bytes(bytes)),
        }
    }

    /// Encrypts `head` and then `payload`, and sends all of both.
    pub fn send(
        &mut self,
        socket: &mut TimedSocket,
        head: &[u8],
        payload: &[u8],
        progress: &mut Progress,
    ) -> Result<(), Error> {
        self.encrypt(socket, head, payload, progress)?;
        self.flush(socket, SendFlags::empty(), progress)
    }

    /// Encrypts and sends `bytes` and `close_notify`. Nothing can be sent after them.
    pub fn send_last(
        &mut self,
        socket: &mut TimedSocket,
        bytes: &[u8],
        progress: &mut Progress,
    ) -> Result<(), Error> {
        self.encrypt(socket, bytes, b"", progress)?;
        let Session { tls, input, output, .. } = self;
        if let Some(tls) = tls
            && let Ok(ConnectionState::WriteTraffic(mut traffic)) =
                tls.process_tls_records(input.filled_mut()).state
        {
            let bytes = traffic.queue_close_notify(output.spare_mut()).map_err(Error::tls)?;
            output.advance(bytes);
        }
        self.flush(socket, MORE, progress)
    }

    /// Sends the output.
    fn flush(
        &mut self,
        socket: &mut TimedSocket,
        flags: SendFlags,
        progress: &mut Progress,
    ) -> Result<(), Error> {
        socket.send_all(self.output.filled(), b"", flags, progress)?;
        self.output.clear();
        Ok(())
    }

    /// Encrypts `head` and `payload`, and sends what the output has no room for.
    fn encrypt(
        &mut self,
        socket: &mut TimedSocket,
        head: &[u8],
        payload: &[u8],
        progress: &mut Progress,
    ) -> Result<(), Error> {
        let Session { tls, input, output, .. } = self;
        let is_small = head.len() + payload.len() + 3 * OVERHEAD <= SMALL_OUTPUT;
        reserve(output, if is_small { SMALL_OUTPUT } else { LARGE_OUTPUT })?;
        let tls = tls.as_mut().ok_or(Error::tls(NOT_BEGUN))?;
        let ConnectionState::WriteTraffic(mut traffic) =
            tls.process_tls_records(input.filled_mut()).state?
        else {
            return Err(Error::tls("the session has ended"));
        };
        for part in [head, payload].iter().flat_map(|bytes| bytes.chunks(PAYLOAD)) {
            // With room for close_notify.
            if output.spare_mut().len() < part.len() + 2 * OVERHEAD {
                socket.send_all(output.filled(), b"", SendFlags::empty(), progress)?;
                output.clear();
            }
            let bytes = traffic.encrypt(part, output.spare_mut()).map_err(Error::tls)?;
            output.advance(bytes);
        }
        Ok(())
    }

    /// Processes the records of the input, and puts what answers them to the output, also if it fails.
    /// Data is decrypted to `into`, and to `received` where that has no room. Returns how many bytes went
    /// to `into`.
    fn process(&mut self, into: &mut [u8]) -> Result<(usize, Next), Error> {
        let Session { tls, input, received, output, is_ended, .. } = self;
        let tls = tls.as_mut().ok_or(Error::tls(NOT_BEGUN))?;
        let (mut processed, mut filled) = (0, 0);
        let next = loop {
            let UnbufferedStatus { mut discard, state } =
                tls.process_tls_records(&mut input.filled_mut()[processed..]);
            let next = match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record?;
                        discard += record.discard;
                        let len = record.payload.len().min(into.len() - filled);
                        let (now, later) = record.payload.split_at(len);
                        into[filled..filled + len].copy_from_slice(now);
                        filled += len;
                        received.extend(later);
                    }
                    None
                }
                Ok(ConnectionState::EncodeTlsData(data)) => {
                    encode(data, output)?;
                    None
                }
                Ok(ConnectionState::TransmitTlsData(data)) => {
                    // The output is sent before anything else.
                    data.done();
                    None
                }
                Ok(ConnectionState::PeerClosed) => {
                    *is_ended = true;
                    None
                }
                Ok(ConnectionState::BlockedHandshake) => Some(Next::Handshake),
                // Early data is not accepted, and no other states are known.
                Ok(_) => Some(Next::Data),
                Err(error) => {
                    processed += discard;
                    // The alert that tells the peer why. Processing goes no further than that.
                    while tls.wants_write()
                        && let Ok(ConnectionState::EncodeTlsData(data)) =
                            tls.process_tls_records(&mut input.filled_mut()[processed..]).state
                    {
                        encode(data, output)?;
                    }
                    return Err(error.into());
                }
            };
            processed += discard;
            if let Some(next) = next {
                break next;
            }
        };
        let end = input.filled().len();
        input.keep(processed..end);
        if input.spare_mut().is_empty() {
            if input.capacity() >= LONGEST_RECORD {
                return Err(Error::tls("a message is too long"));
            }
            reserve(input, LONGEST_RECORD)?;
        }
        Ok((filled, next))
    }

    /// The version and the cipher suite that were agreed.
    pub fn agreed(&self) -> String {
        let tls = self.tls.as_ref();
        let version = tls.and_then(|tls| tls.protocol_version());
        let suite = tls.and_then(|tls| tls.negotiated_cipher_suite());
        match (version, suite) {
            (Some(version), Some(suite)) => format!("{version:?}, {:?}", suite.suite()),
            _ => NOT_BEGUN.into(),
        }
    }

    /// Gives up what a silent client does not need.
    fn shrink(&mut self) {
        self.input.shrink(SMALL_INPUT.max(self.input.filled().len() + 1));
        self.output.shrink(0);
        if self.received.is_empty() {
            self.received = VecDeque::new();
        }
    }
}

fn encode<Data>(mut data: EncodeTlsData<'_, Data>, output: &mut Buffer) -> Result<(), Error> {
    let mut encoded = data.encode(output.spare_mut());
    if let Err(EncodeError::InsufficientSize(size)) = &encoded {
        reserve(output, output.filled().len() + size.required_size)?;
        encoded = data.encode(output.spare_mut());
    }
    output.advance(encoded.map_err(Error::tls)?);
    Ok(())
}

fn reserve(buffer: &mut Buffer, capacity: usize) -> Result<(), Error> {
    buffer.reserve(capacity).map_err(|_| Error::Io(Errno::NOMEM))
}

impl From<rustls::Error> for Error {
    fn from(error: rustls::Error) -> Self {
        Error::tls(error)
    }
}
