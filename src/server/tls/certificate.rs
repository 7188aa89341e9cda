//! The certificate and its key, which may be renewed while the server runs.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use log::{info, warn};
use rustix::fs::OFlags;
use rustls::crypto::ring;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::ServerConfig;

use crate::cli;
use crate::lock::lock;

/// How often renewal is checked.
const RENEWAL_INTERVAL: Duration = Duration::from_secs(1);

/// The files, and the certificate read from them.
pub struct Certificate {
    cert: PathBuf,
    key: PathBuf,
    state: Mutex<State>,
}

struct State {
    config: Arc<ServerConfig>,
    /// The stamps of the files that were read last, even if they were not usable.
    stamps: [Stamp; 2],
    checked: Instant,
}

/// Distinguishes a file from its replacement by modification time, inode and length. `None` if the file
/// is missing or not a regular file.
type Stamp = Option<(SystemTime, u64, u64)>;

impl Certificate {
    /// Reads the certificate if the flags name one.
    ///
    /// # Errors
    ///
    /// The reason why it can't be used.
    pub fn read(flags: &cli::Tls) -> Result<Option<Self>, String> {
        let (Some(cert), Some(key)) = (flags.tls_cert.clone(), flags.tls_key.clone()) else {
            return Ok(None);
        };
        let stamps = [stamp(&cert), stamp(&key)];
        let config = configure(&cert, &key, |path| File::open(path))?;
        let state = Mutex::new(State { config, stamps, checked: Instant::now() });
        Ok(Some(Certificate { cert, key, state }))
    }

    /// The settings, with the renewed certificate if there is one. If certificate and key don't match,
    /// the old certificate stays in use.
    pub fn config(&self) -> Arc<ServerConfig> {
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
        // Other threads use the old one meanwhile.
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

fn stamp(path: &Path) -> Stamp {
    let file = fs::metadata(path).ok().filter(fs::Metadata::is_file)?;
    Some((file.modified().ok()?, file.ino(), file.len()))
}

/// Opens a regular file. Reading a pipe could wait for another process.
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
            // A key or a certificate causes no other error of this kind.
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
    // Each ticket makes the handshake slower. But without any, nothing that we send acknowledges the end
    // of the handshake, and a client with Nagle's algorithm waits 40 ms before it sends its request.
    config.send_tls13_tickets = 1;
    // Tickets store nothing on the server. Sessions stored by rustls would lie in the arenas of many
    // threads, and prevent glibc from returning nearly all memory after many clients have left.
    config.ticketer = ring::Ticketer::new().map_err(|error| error.to_string())?;
    Ok(Arc::new(config))
}
