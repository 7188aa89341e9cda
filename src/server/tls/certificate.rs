//! The certificate and its key, which may be renewed while the server runs.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use log::{info, warn};
use rustix::fs::OFlags;
use rustls::crypto::ring;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::ServerConfig;

use crate::cli;
use crate::lock::lock;

/// How often the files are checked, if clients come.
const RENEWAL_INTERVAL: Duration = Duration::from_secs(1);

/// How long the client that makes the server look at the files waits for the renewed certificate.
const RENEWAL_WAIT: Duration = Duration::from_millis(100);

/// The longest file that is read, in bytes.
const MAX_FILE_LEN: u64 = 1 << 20;

/// The certificate in use, and the files that it came from.
pub struct Certificate(Mutex<State>);

struct State {
    config: Arc<ServerConfig>,
    /// `None` while a thread looks at them.
    files: Option<Files>,
    looked: Instant,
}

struct Files {
    cert: PathBuf,
    key: PathBuf,
    /// Of the pair that was read last.
    stamps: [Stamp; 2],
    /// Why that pair could not be used.
    error: Option<String>,
}

/// Tells a file from what it is after a change: its device, inode, length and the time at which its content,
/// mode or owner changed last. `None` if it is missing or not a regular file.
type Stamp = Option<[i64; 5]>;

type Open = fn(&Path) -> io::Result<File>;

impl Certificate {
    /// Reads the certificate that the flags name, if they name one.
    ///
    /// # Errors
    ///
    /// Why it can't be used.
    pub fn read(flags: &cli::Tls) -> Result<Option<Arc<Self>>, String> {
        let (Some(cert), Some(key)) = (flags.tls_cert.clone(), flags.tls_key.clone()) else {
            return Ok(None);
        };
        let stamps = [stamp(&cert), stamp(&key)];
        let config = configure(&cert, &key, |path| File::open(path))?;
        let files = Some(Files { cert, key, stamps, error: None });
        let state = State { config, files, looked: Instant::now() };
        Ok(Some(Arc::new(Certificate(Mutex::new(state)))))
    }

    /// The settings with the certificate, which is read again if its files have changed.
    pub fn config(self: &Arc<Self>) -> Arc<ServerConfig> {
        if self.is_due() {
            // In another thread, since a file system may hang.
            let certificate = Arc::clone(self);
            let (looking, looked) = mpsc::channel::<()>();
            let spawned = thread::Builder::new().name("certificate".into()).spawn(move || {
                certificate.renew();
                drop(looking);
            });
            // Without a thread the next look may succeed.
            if spawned.is_ok() {
                let _ = looked.recv_timeout(RENEWAL_WAIT);
            }
        }
        Arc::clone(&lock(&self.0).config)
    }

    /// Whether the files are to be looked at now, by the caller.
    fn is_due(&self) -> bool {
        let mut state = lock(&self.0);
        let is_due = state.looked.elapsed() >= RENEWAL_INTERVAL && state.files.is_some();
        if is_due {
            state.looked = Instant::now();
        }
        is_due
    }

    /// Reads the files again if they have changed, or could not be used. If they still can't be, the old
    /// certificate stays.
    fn renew(&self) {
        let Some(mut files) = lock(&self.0).files.take() else { return };
        let renewed = files.read_changed();
        let mut state = lock(&self.0);
        if let Some(Ok(config)) = &renewed {
            state.config = Arc::clone(config);
        }
        let cert = files.cert.display().to_string();
        state.files = Some(files);
        drop(state);
        match renewed {
            Some(Ok(_)) => info!("the certificate {cert} was renewed"),
            Some(Err(error)) => warn!("the old certificate stays: {error}"),
            None => {}
        }
    }
}

impl Files {
    /// The pair if it has changed or could not be used before. `None` too if it can't be used for the same
    /// reason as before.
    fn read_changed(&mut self) -> Option<Result<Arc<ServerConfig>, String>> {
        let stamps = [stamp(&self.cert), stamp(&self.key)];
        if stamps == self.stamps && self.error.is_none() {
            return None;
        }
        let read = configure(&self.cert, &self.key, open_regular);
        let error = read.as_ref().err().cloned();
        let is_known = error.is_some() && error == self.error;
        (self.stamps, self.error) = (stamps, error);
        (!is_known).then_some(read)
    }
}

fn stamp(path: &Path) -> Stamp {
    let file = fs::metadata(path).ok().filter(fs::Metadata::is_file)?;
    let [device, inode, len] = [file.dev(), file.ino(), file.len()].map(u64::cast_signed);
    Some([device, inode, len, file.ctime(), file.ctime_nsec()])
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

/// Reads a file without the byte order marks of the texts that it consists of, which would hide their first
/// lines.
fn read_text(file: File) -> io::Result<String> {
    let mut bytes = Vec::new();
    file.take(MAX_FILE_LEN + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE_LEN {
        return Err(io::Error::other("it is longer than 1 MiB"));
    }
    if bytes.starts_with(b"\xFF\xFE") || bytes.starts_with(b"\xFE\xFF") {
        return Err(io::Error::other("it is in UTF-16: save it in ASCII or UTF-8"));
    }
    Ok(String::from_utf8_lossy(&bytes).replace('\u{FEFF}', ""))
}

fn configure(cert: &Path, key: &Path, open: Open) -> Result<Arc<ServerConfig>, String> {
    let cannot_read = |flag: &str, path: &Path, error: pem::Error, missing: &str| {
        let error = match error {
            pem::Error::Io(error) => error.to_string(),
            pem::Error::NoItemsFound => format!("it contains no {missing} in PEM"),
            pem::Error::MissingSectionEnd { .. } => "it is cut off before its END line".into(),
            pem::Error::Base64Decode(_) => {
                "its PEM is damaged, or is a key with a password: remove that with openssl pkey"
                    .into()
            }
            error => error.to_string(),
        };
        format!("cannot read {flag} {}: {error}", path.display())
    };
    let read = |path: &Path| open(path).and_then(read_text).map_err(pem::Error::Io);
    let certs = read(cert).and_then(|text| {
        CertificateDer::pem_slice_iter(text.as_bytes()).collect::<Result<Vec<_>, _>>()
    });
    let certs = match certs {
        Ok(certs) if certs.is_empty() => Err(pem::Error::NoItemsFound),
        certs => certs,
    };
    let certs = certs.map_err(|error| cannot_read("--tls-cert", cert, error, "certificate"))?;
    let private = read(key)
        .and_then(|text| PrivateKeyDer::from_pem_slice(text.as_bytes()))
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
            rustls::Error::InconsistentKeys(_) => "the key is not the first certificate's".into(),
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
