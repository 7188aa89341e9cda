//! Sockets, threads and clocks: the accept loop, a thread per client, and the stop.

pub mod allocator;
pub mod client;
pub mod limits;
pub mod listener;
pub mod rate_limit;
pub mod registry;
pub mod reports;
pub mod shared;
pub mod socket;
pub mod stream;
pub mod systemd;
#[cfg_attr(not(feature = "tls"), path = "without_tls.rs")]
pub mod tls;

use std::error::Error;
use std::io;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use httpdate::HttpDate;
use listenfd::ListenFd;
use log::{debug, info, warn};
use nix::sys::signal::{SigSet, Signal};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use signal_hook::iterator::Signals;

use crate::app::cases::results::Cases;
use crate::app::cases::suite::Suite;
use crate::app::routes;
use crate::cli::{self, Config};
use crate::http::request::MAX_HEAD_LEN;
use crate::quantity::Count;
use crate::server::limits::Limits;
use crate::server::listener::Listeners;
use crate::server::registry::{Connection, LIMIT_REACHED, Registry, Stopping};
use crate::server::reports::Reports;
use crate::server::shared::Shared;
use crate::server::tls::Acceptor;

/// A client's stack, in bytes. It is deep enough for all work of the thread, including logging, and
/// small enough that many stacks share a page of page tables.
const STACK_SIZE: usize = 64 * 1024;

/// Signals within this time count as one stop: `timeout`, for example, signals the process and then its
/// group.
const SAME_STOP: Duration = Duration::from_millis(500);

/// Serves until SIGINT or SIGTERM, and then gives every client time to answer the close frame. A second
/// signal ends the process at once.
///
/// # Errors
///
/// An invalid selection of cases, an unusable directory for reports, an address that can't be listened
/// on, or a panic of the accept thread.
pub fn serve(config: Config) -> Result<(), Box<dyn Error>> {
    let mut listeners = Listeners::inherit(ListenFd::from_env(), config.timeouts.write_timeout)?;
    let ends_at_once = Arc::new(AtomicBool::new(true));
    let mut signals =
        handle_signals(&ends_at_once).map_err(|error| format!("cannot handle signals: {error}"))?;
    let acceptor = Acceptor::new(&config.listening.tls)?;
    let cli::Cases { cases, exclude_cases, case_messages, reports } = &config.cases;
    let suite = Suite::select(cases, exclude_cases, *case_messages)?;
    let reports = reports.clone().map(Reports::open).transpose()?;
    listeners.listen(&config.listening.addr)?;
    ends_at_once.store(false, Ordering::Relaxed);
    let (ws, http) = if acceptor.is_some() { ("wss", "https") } else { ("ws", "http") };
    listeners.log(ws, http);
    let limits = Limits::raise();
    let limits = if acceptor.is_some() { limits.with_tls() } else { limits };
    let shared = Arc::new(Shared::new(config, acceptor, limits, Cases::new(suite), reports));
    run(listeners, &shared, &mut signals, &ends_at_once)
}

/// Accepts clients until a signal arrives, and then stops.
fn run(
    listeners: Listeners,
    shared: &Arc<Shared>,
    signals: &mut Signals,
    ends_at_once: &AtomicBool,
) -> Result<(), Box<dyn Error>> {
    let stopping = if listeners.are_inherited { Stopping::Serve } else { Stopping::Refuse };
    let (ended, end) = io::pipe().map_err(|error| format!("cannot create a pipe: {error}"))?;
    let accepting = {
        let shared = Arc::clone(shared);
        start_accepting(signals, move || {
            listeners.accept(&ended, |socket| start(&Connection::new(socket), &shared));
        })
        .map_err(|error| format!("cannot start the thread that accepts clients: {error}"))?
    };
    systemd::notify("READY=1");
    let is_signaled = signals.forever().next().is_some();
    systemd::notify("STOPPING=1");
    let close_timeout = shared.config.timeouts.close_timeout;
    info!(
        "stopping, with {close_timeout:?} for the clients to answer; a second signal ends it at once"
    );
    let mut accepting = Some((end, accepting));
    let mut stop_accepting = || {
        if let Some((end, thread)) = accepting.take() {
            drop(end);
            let _ = thread.join();
        }
    };
    if stopping == Stopping::Serve {
        // New connections wait for the next process.
        stop_accepting();
    }
    let (connected, aborted) = stop(&shared.registry, stopping, close_timeout, ends_at_once);
    // Until here, new connections got 503.
    stop_accepting();
    let suppressed = [shared.request_log.suppressed(), shared.client_log.suppressed()].concat();
    let clients = Count(connected as u64, "client");
    info!("stopped: {clients}, {aborted} aborted{suppressed}");
    if is_signaled { Ok(()) } else { Err("the thread that accepts clients has panicked".into()) }
}

/// Queues SIGINT and SIGTERM. While `ends_at_once` is set, a signal ends the process in its handler,
/// without a thread or memory. SIGHUP keeps its disposition: nohup, for example, ignores it.
fn handle_signals(ends_at_once: &Arc<AtomicBool>) -> io::Result<Signals> {
    const SIGNALS: [i32; 2] = [SIGINT, SIGTERM];
    // A process inherits which signals are blocked.
    let needed = [Signal::SIGINT, Signal::SIGTERM, registry::WAKE];
    needed.into_iter().collect::<SigSet>().thread_unblock()?;
    // A no-op handler, so that the signal interrupts a blocking call.
    flag::register(registry::WAKE as i32, Arc::default())?;
    for signal in SIGNALS {
        flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(ends_at_once))?;
    }
    Signals::new(SIGNALS)
}

/// Runs `accept` on its own thread. When the thread ends, the wait for `signals` ends too, so that a
/// panic ends a server that accepts no more clients.
fn start_accepting(
    signals: &Signals,
    accept: impl FnOnce() + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    let signals = signals.handle();
    thread::Builder::new().name("accept".into()).spawn(move || {
        // The panic is already logged.
        let _ = panic::catch_unwind(AssertUnwindSafe(accept));
        signals.close();
    })
}

/// Asks every client's thread to end its connection, and aborts the remaining ones at the close timeout.
/// Returns the number of connections, and how many of them were aborted.
fn stop(
    registry: &Registry,
    stopping: Stopping,
    close_timeout: Duration,
    ends_at_once: &AtomicBool,
) -> (usize, usize) {
    let began = Instant::now();
    let connected = registry.stop(stopping);
    if !registry.wait_until_empty(began + SAME_STOP.min(close_timeout)) {
        ends_at_once.store(true, Ordering::Relaxed);
    }
    registry.wait_until_empty(began + close_timeout);
    (connected, registry.abort())
}

/// Starts a client's thread.
fn start(connection: &Arc<Connection>, shared: &Arc<Shared>) {
    let registration = match shared.registry.register(connection) {
        Ok(registration) => registration,
        Err(why) => return refuse(connection, shared, why),
    };
    let spawned = {
        let shared = Arc::clone(shared);
        thread::Builder::new().name("client".into()).stack_size(STACK_SIZE).spawn(move || {
            registration.connection().begin();
            client::serve(&registration, &shared);
            drop(registration);
            allocator::return_memory();
        })
    };
    if let Err(error) = spawned {
        // The closure's captures are dropped. A 503 can still be sent.
        if let Some(suppressed) = shared.request_log.admit(Instant::now()) {
            warn!("no thread for {}: {error}{suppressed}", connection.socket.peer);
        }
        refuse(connection, shared, "the server can't start another thread");
    }
}

/// Answers with 503, or answers a health check, without ever waiting for the client. Usually the head of
/// its request has arrived already. On a TLS port nothing can be sent without a handshake.
fn refuse(connection: &Connection, shared: &Shared, why: &'static str) {
    debug!("{}: refused, {why}", connection.socket.peer);
    let date = HttpDate::from(SystemTime::now());
    let mut head = [0; MAX_HEAD_LEN];
    let response = match shared.acceptor {
        Some(_) => Vec::new(),
        None if why == LIMIT_REACHED
            && routes::begins_health_check(connection.socket.peek_now(&mut head)) =>
        {
            routes::healthy().encode("GET", date)
        }
        None => routes::unavailable(why).encode("GET", date),
    };
    connection.socket.send_last_now(&response, &mut head);
}

#[cfg(test)]
mod tests {
    use signal_hook::consts::SIGUSR1;

    use super::*;

    #[test]
    fn a_panic_of_the_accepting_thread_ends_the_wait_for_a_signal() {
        let mut signals = Signals::new([SIGUSR1]).unwrap();
        let accepting = start_accepting(&signals, || panic!("on purpose")).unwrap();
        assert_eq!(signals.forever().next(), None);
        accepting.join().unwrap();
    }
}
