//! One client's TLS session, used only by the client's own thread.
//!
//! It uses rustls' unbuffered API, which decrypts and encrypts in our buffers. The buffered API reads
//! 4 KiB at a time, and keeps that memory for a silent client.

use std::collections::VecDeque;
use std::io::Read as _;
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::SendFlags;
use rustls::HandshakeKind;
use rustls::server::{ServerConfig, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, EncodeTlsData, UnbufferedStatus};

use crate::buffer::{Budget, Buffer};
use crate::server::socket::{Error, MORE, Received, TimedSocket};

/// The maximum length of a record with its header, of either version, in bytes (RFC 5246 §6.2.3).
const MAX_RECORD: usize = 5 + 16 * 1024 + 2048;

/// The input buffer of a silent client, in bytes.
const SMALL_INPUT: usize = 768;

/// The input buffer of the handshake, in bytes. It fits a typical ClientHello.
const HELLO_INPUT: usize = 2 * 1024;

/// The bytes encrypted at a time: the maximum payload of a record (RFC 8446 §5.1).
const PAYLOAD: usize = 16 * 1024;

/// The output buffer of a short message, in bytes.
const SMALL_OUTPUT: usize = 768;

/// The output buffer of a long message, in bytes: a frame's header and a payload, each in a record, and
/// `close_notify`. It is small enough not to need its own memory map.
const LARGE_OUTPUT: usize = PAYLOAD + 1024;

/// The maximum overhead of encrypting a payload, in bytes: header, nonce and tag of its record, and a
/// key update before it.
const OVERHEAD: usize = 128;

/// One client's session.
pub struct Session {
    /// `None` until a whole record has arrived, since it costs 10 KiB, and making it a deep stack.
    tls: Option<Box<UnbufferedServerConnection>>,
    /// Received records, decrypted in place. After [`process`](Self::process) none of them is whole.
    /// Sending relies on that: rustls then processes nothing, and there is nothing to discard.
    input: Buffer,
    /// The part of the input that was processed, in bytes, and is kept while its message is not whole.
    kept: usize,
    /// Decrypted data that was not returned yet.
    received: VecDeque<u8>,
    /// Records to send.
    output: Buffer,
    /// Whether the peer has sent `close_notify`.
    is_ended: bool,
}

const NOT_BEGUN: &str = "the handshake has not begun";

impl Session {
    /// A session whose handshake is about to begin.
    pub fn new(budget: &Arc<Budget>) -> Result<Self, Error> {
        let mut input = Buffer::new(Arc::clone(budget));
        reserve(&mut input, HELLO_INPUT)?;
        let output = Buffer::new(Arc::clone(budget));
        Ok(Session {
            tls: None,
            input,
            kept: 0,
            received: VecDeque::new(),
            output,
            is_ended: false,
        })
    }

    /// Receives a part of a record of the handshake.
    pub fn receive_record(
        &mut self,
        socket: &mut TimedSocket,
        wait: Option<Duration>,
    ) -> Result<Received, Error> {
        if self.input.spare_mut().is_empty() {
            reserve(&mut self.input, MAX_RECORD)?;
        }
        let received = socket.receive(self.input.spare_mut(), wait)?;
        let Received::Bytes(bytes) = received else { return Ok(received) };
        self.input.advance(bytes);
        Ok(Received::Bytes(0))
    }

    /// Whether the input has a whole record that was not processed, or bytes that can't become one.
    pub fn has_record(&self) -> bool {
        // A message may continue in the next record (RFC 8446 §5.1), and is processed as it grows.
        if self.kept > 0 {
            return self.input.filled().len() > self.kept;
        }
        // RFC 8446 §5.1: change_cipher_spec, alert, handshake or application_data; the version; the length.
        let &[kind, _, _, high, low, ref rest @ ..] = self.input.filled() else { return false };
        let len = usize::from(u16::from_be_bytes([high, low]));
        !(20..=23).contains(&kind) || len > MAX_RECORD - 5 || rest.len() >= len
    }

    /// Whether the server has answered the hello.
    pub fn is_begun(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| {
            let kind = tls.handshake_kind();
            matches!(kind, Some(HandshakeKind::Full | HandshakeKind::Resumed))
                || tls.negotiated_key_exchange_group().is_some()
        })
    }

    /// Processes the received part of the handshake. The first part needs `config`.
    pub fn process_handshake(&mut self, config: Option<Arc<ServerConfig>>) -> Result<(), Error> {
        if let (None, Some(config)) = (&self.tls, config) {
            self.tls = Some(Box::new(UnbufferedServerConnection::new(config)?));
        }
        self.process(&mut []).map(drop)
    }

    /// Whether the handshake is incomplete.
    pub fn is_handshaking(&self) -> bool {
        self.tls.as_ref().is_none_or(|tls| tls.is_handshaking())
    }

    /// Whether the peer has ended the session.
    pub fn is_ended(&self) -> bool {
        self.is_ended
    }

    /// See [`Stream::receive`](crate::server::stream::Stream::receive).
    pub fn receive(
        &mut self,
        socket: &mut TimedSocket,
        into: &mut [u8],
        wait: Option<Duration>,
    ) -> Result<Received, Error> {
        let decrypted = if self.received.is_empty() && !self.is_ended {
            let received = socket.receive(self.input.spare_mut(), wait)?;
            let Received::Bytes(bytes) = received else {
                self.shrink();
                return Ok(received);
            };
            self.input.advance(bytes);
            let decrypted = self.process(into);
            self.flush(socket)?;
            decrypted?
        } else {
            socket.set_now();
            // A read from memory can't fail.
            self.received.read(into).unwrap_or(0)
        };
        let is_end = decrypted == 0 && self.is_ended;
        Ok(if is_end { Received::End } else { Received::Bytes(decrypted) })
    }

    /// Encrypts `head` and then `payload`, and sends all of both.
    pub fn send(
        &mut self,
        socket: &mut TimedSocket,
        head: &[u8],
        payload: &[u8],
    ) -> Result<(), Error> {
        self.encrypt(socket, head, payload)?;
        self.flush(socket)
    }

    /// Encrypts and sends `bytes` and `close_notify`. Nothing can be sent after them.
    pub fn send_last(&mut self, socket: &mut TimedSocket, bytes: &[u8]) -> Result<(), Error> {
        self.encrypt(socket, bytes, b"")?;
        let Session { tls, input, output, .. } = self;
        if let Some(tls) = tls
            && let Ok(ConnectionState::WriteTraffic(mut traffic)) =
                tls.process_tls_records(input.filled_mut()).state
        {
            let bytes = traffic.queue_close_notify(output.spare_mut()).map_err(Error::tls)?;
            output.advance(bytes);
        }
        self.flush_with(socket, MORE)
    }

    /// Sends new keys, and asks for the peer's (RFC 8446 §4.6.3). TLS 1.2 has no such message.
    pub fn update_keys(&mut self, socket: &mut TimedSocket) -> Result<(), Error> {
        let Session { tls, input, .. } = self;
        if let Some(tls) = tls
            && let Ok(ConnectionState::WriteTraffic(traffic)) =
                tls.process_tls_records(input.filled_mut()).state
            && traffic.refresh_traffic_keys().is_ok()
        {
            self.process(&mut [])?;
        }
        self.flush(socket)
    }

    /// Sends the output.
    pub fn flush(&mut self, socket: &mut TimedSocket) -> Result<(), Error> {
        self.flush_with(socket, SendFlags::empty())
    }

    fn flush_with(&mut self, socket: &mut TimedSocket, flags: SendFlags) -> Result<(), Error> {
        socket.send_all(self.output.filled(), b"", flags)?;
        self.output.clear();
        Ok(())
    }

    /// Encrypts `head` and `payload`, and sends the output whenever it is full.
    fn encrypt(
        &mut self,
        socket: &mut TimedSocket,
        head: &[u8],
        payload: &[u8],
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
            // Leaves room for close_notify.
            if output.spare_mut().len() < part.len() + 2 * OVERHEAD {
                socket.send_all(output.filled(), b"", SendFlags::empty())?;
                output.clear();
            }
            let bytes = traffic.encrypt(part, output.spare_mut()).map_err(Error::tls)?;
            output.advance(bytes);
        }
        Ok(())
    }

    /// Processes the records of the input, and appends the answers to the output, even on an error.
    /// Decrypts data to `into`, and the part that does not fit to `received`. Returns the number of
    /// bytes in `into`.
    fn process(&mut self, into: &mut [u8]) -> Result<usize, Error> {
        let Session { tls, input, kept, received, output, is_ended } = self;
        let tls = tls.as_mut().ok_or(Error::tls(NOT_BEGUN))?;
        let (mut processed, mut filled) = (0, 0);
        loop {
            let UnbufferedStatus { mut discard, state } =
                tls.process_tls_records(&mut input.filled_mut()[processed..]);
            let is_done = match state {
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
                    false
                }
                Ok(ConnectionState::EncodeTlsData(data)) => {
                    encode(data, output)?;
                    false
                }
                Ok(ConnectionState::TransmitTlsData(data)) => {
                    // The caller sends the output before anything else.
                    data.done();
                    false
                }
                Ok(ConnectionState::PeerClosed) => {
                    *is_ended = true;
                    false
                }
                // The peer's next record is awaited, or data may be sent. Early data is not accepted.
                Ok(_) => true,
                Err(error) => {
                    processed += discard;
                    // Encodes the alert with the reason. Nothing is processed after it.
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
            if is_done {
                break;
            }
        }
        let end = input.filled().len();
        input.keep(processed..end);
        *kept = input.filled().len();
        if input.spare_mut().is_empty() {
            if input.capacity() >= MAX_RECORD {
                return Err(Error::tls("a message is too long"));
            }
            reserve(input, MAX_RECORD)?;
        }
        Ok(filled)
    }

    /// The agreed version and cipher suite.
    pub fn agreed(&self) -> String {
        let tls = self.tls.as_ref();
        let version = tls.and_then(|tls| tls.protocol_version());
        let suite = tls.and_then(|tls| tls.negotiated_cipher_suite());
        match (version, suite) {
            (Some(version), Some(suite)) => format!("{version:?}, {:?}", suite.suite()),
            _ => NOT_BEGUN.into(),
        }
    }

    /// Releases memory that a silent client does not need.
    pub fn shrink(&mut self) {
        self.input.shrink_spare(SMALL_INPUT);
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
