//! Sockets, threads and clocks: the accept loops, a thread per client, and the stop.

pub mod client;
pub mod limits;
pub mod listener;
pub mod registry;
pub mod socket;
pub mod stream;
pub mod systemd;
#[cfg_attr(not(feature = "tls"), path = "without_tls.rs")]
pub mod tls;

use std::error::Error;
use std::hint;
use std::io;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::{Instant, SystemTime};

use listenfd::ListenFd;
use log::{debug, info, warn};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use signal_hook::iterator::Signals;

use crate::app::behavior::Draws;
use crate::app::connection::Service;
use crate::app::routes;
use crate::app::settings::{Settings, Timeouts};
use crate::buffer::Budget;
use crate::cli::Config;
use crate::escape::Count;
use crate::http::request::MAX_HEAD_LEN;
use crate::logging::RateLimit;
use crate::server::limits::Limits;
use crate::server::listener::{Listeners, Scheme};
use crate::server::registry::{Connection, Registry, Stopping};
use crate::server::tls::Acceptor;
use crate::websocket::deflate;
use crate::websocket::handshake::Policy;

/// A client's stack, in bytes. Deep enough for all that its thread does, the log included, and small
/// enough that many stacks share a page of page tables.
const STACK_SIZE: usize = 64 * 1024;

/// How many lines a second requests that open no WebSocket may add to the log.
const REQUEST_LINES: u32 = 100;

/// How many clients a second may be logged, by a line for the start and one for the end.
const CLIENT_LINES: u32 = 1000;

/// How many clients can have a message compressed or inflated at the same moment, on however many
/// processors. What each takes, up to 480 KiB, stays.
const MOST_CONTEXTS: NonZeroUsize = NonZeroUsize::new(32).unwrap();

/// What all threads share.
pub struct Shared {
    pub config: Config,
    /// `Some` enables TLS.
    pub acceptor: Option<Acceptor>,
    pub service: Service,
    pub request_log: RateLimit,
    pub client_log: RateLimit,
    pub registry: Arc<Registry>,
}

/// Serves until SIGINT or SIGTERM has come and every client was given time to answer the close. A
/// second signal ends the process at once.
///
/// # Errors
///
/// An address that can't be listened on.
pub fn serve(config: Config) -> Result<(), Box<dyn Error>> {
    let write_timeout = config.timeouts.write_timeout;
    let mut listeners = Listeners::inherit(ListenFd::from_env(), write_timeout)?;
    let mut signals = handle_signals()?;
    let acceptor = Acceptor::new(&config.listening.tls)?;
    listeners.listen(&config.listening.addr)?;
    listeners.log(if acceptor.is_some() { Scheme::Tls } else { Scheme::Plain });
    let stopping = if listeners.are_inherited { Stopping::Serve } else { Stopping::Refuse };

    let limits = Limits::raise();
    let limits = if acceptor.is_some() { limits.with_tls() } else { limits };
    let shared = Arc::new(Shared::new(config, acceptor, limits));
    let (ended, end) = io::pipe()?;
    let its_shared = Arc::clone(&shared);
    let accepting = thread::Builder::new().name("accept".into()).spawn(move || {
        listeners.accept(&ended, |socket| start(&Connection::new(socket), &its_shared));
    })?;
    let stop_accepting = || {
        drop(end);
        let _ = accepting.join();
    };
    systemd::notify("READY=1");

    signals.forever().next();
    systemd::notify("STOPPING=1");
    let close_timeout = shared.config.timeouts.close_timeout;
    info!(
        "stopping, with {close_timeout:?} for the clients to answer; a second signal ends it at once"
    );
    let registry::Stopped { notified, aborted } = match stopping {
        // Those that come now wait for the next process.
        Stopping::Serve => {
            stop_accepting();
            shared.registry.stop(stopping, close_timeout)
        }
        // Those that come now get 503.
        Stopping::Refuse => {
            let stopped = shared.registry.stop(stopping, close_timeout);
            stop_accepting();
            stopped
        }
    };
    let left_out = [shared.request_log.left_out(), shared.client_log.left_out()].concat();
    let were = if notified == 1 { "was" } else { "were" };
    let clients = Count(notified as u64, "client");
    info!("stopped: {clients} {were} connected, {aborted} of them had to be aborted{left_out}");
    Ok(())
}

/// Queues the first SIGINT or SIGTERM. The second one ends the process in its handler, without a thread
/// or memory. SIGHUP is left as it is: nohup, for one, ignores it.
fn handle_signals() -> io::Result<Signals> {
    const SIGNALS: [i32; 2] = [SIGINT, SIGTERM];
    let is_stopping = Arc::new(AtomicBool::new(false));
    // Its handler does nothing, and so ends a wait.
    flag::register(registry::WAKE as i32, Arc::default())?;
    for signal in SIGNALS {
        flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&is_stopping))?;
        flag::register(signal, Arc::clone(&is_stopping))?;
    }
    Signals::new(SIGNALS)
}

impl Shared {
    fn new(config: Config, acceptor: Option<Acceptor>, limits: Limits) -> Self {
        let Config { listening, messages, timeouts, .. } = &config;
        let lowered = |flag, asked, allowed| {
            if allowed < asked {
                warn!("{flag} is {allowed} instead of {asked}, because of {limits}");
            }
            allowed
        };
        let asked = listening.max_connections.get();
        let max_connections =
            lowered("--max-connections", asked, limits.clients(asked, messages.compression));
        let asked = messages.max_buffered;
        let max_buffered = lowered("--max-buffered", asked, limits.buffered(asked));
        let reservable = limits.reservable(max_connections, messages.compression);
        let budget = Arc::new(Budget::limited(max_buffered, reservable, messages.prefix.len()));
        Shared {
            acceptor,
            service: Service {
                settings: Settings {
                    prefix: messages.prefix.clone(),
                    max_message_size: messages.max_message_size,
                    timeouts: Timeouts {
                        handshake: timeouts.handshake_timeout,
                        ping_interval: Some(timeouts.ping_interval).filter(|time| !time.is_zero()),
                        ping: timeouts.ping_timeout,
                        write: timeouts.write_timeout,
                        close: timeouts.close_timeout,
                    },
                },
                policy: Policy {
                    origins: listening.origin.clone(),
                    subprotocols: listening.subprotocol.clone(),
                    compression: messages.compression,
                },
                behaviors: messages.behaviors,
                contexts: Arc::new(deflate::Pool::new(
                    thread::available_parallelism()
                        .map_or(NonZeroUsize::MIN, |n| n.min(MOST_CONTEXTS)),
                    Arc::clone(&budget),
                )),
                budget,
                draws: Draws::default(),
            },
            request_log: RateLimit::new(REQUEST_LINES, "on requests"),
            client_log: RateLimit::new(CLIENT_LINES, "on clients"),
            registry: Arc::new(Registry::new(
                max_connections,
                limits.http_only(messages.compression),
                listening.max_connections_per_ip,
            )),
            config,
        }
    }
}

/// Starts a client's thread.
fn start(connection: &Arc<Connection>, shared: &Arc<Shared>) {
    let registration = match shared.registry.register(connection) {
        Ok(registration) => registration,
        Err(why) => return refuse(connection, shared, why),
    };
    // A spawn that fails drops all that its thread would own, and there is still a 503 to send.
    let its_shared = Arc::clone(shared);
    let spawned =
        thread::Builder::new().name("client".into()).stack_size(STACK_SIZE).spawn(move || {
            registration.connection().begin();
            client::serve(&registration, &its_shared);
            drop(registration);
            return_memory();
        });
    if let Err(error) = spawned {
        if let Some(left_out) = shared.request_log.admit(Instant::now()) {
            warn!("no thread for {}: {error}{left_out}", connection.socket.peer);
        }
        refuse(connection, shared, "the server has no thread left");
    }
}

/// Makes glibc return freed small blocks. It merges them only when a block of 64 KiB or more is freed.
/// Without it a crowd that has left leaves 3.6 KiB a client behind, with it 0.9.
fn return_memory() {
    drop(hint::black_box(Vec::<u8>::with_capacity(96 * 1024)));
}

/// Answers 503 without ever waiting for the client. Usually its head has already arrived. Where TLS is
/// spoken there is nothing to say without a handshake.
fn refuse(connection: &Connection, shared: &Shared, why: &'static str) {
    debug!("{}: 503, {why}", connection.socket.peer);
    let date = httpdate::fmt_http_date(SystemTime::now());
    let response = match shared.acceptor {
        Some(_) => Vec::new(),
        None => routes::unavailable(why).encode("GET", &date),
    };
    connection.socket.send_last_now(&response, &mut [0; MAX_HEAD_LEN]);
}
