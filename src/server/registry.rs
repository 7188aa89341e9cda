//! Who is connected: the limits on connections, and the stop of all of them.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use nix::sys::pthread::{Pthread, pthread_kill, pthread_self};
use nix::sys::signal::Signal;

use crate::app::peer::Peer;
use crate::server::socket::Socket;

/// Ends the wait of a client's thread. By default it is ignored, and nobody sends it by hand.
pub const WAKE: Signal = Signal::SIGURG;

/// Why a connection is refused, for its 503.
pub const LIMIT_REACHED: &str = "the connection limit is reached";
/// See [`LIMIT_REACHED`].
pub const IP_LIMIT_REACHED: &str = "the limit of connections from one address is reached";
/// See [`LIMIT_REACHED`].
pub const STOPPING: &str = "the server is stopping";

/// All connections.
pub struct Registry {
    /// The limit of WebSockets.
    max: usize,
    /// The limit of connections beyond `max`.
    http_only: usize,
    /// The limit of WebSockets from one address, 0 for none.
    max_per_ip: usize,
    stopping: OnceLock<Stopping>,
    state: Mutex<State>,
    unregistered: Condvar,
}

#[derive(Default)]
struct State {
    next_id: u64,
    /// How many WebSockets were opened, which numbers the clients.
    opened: u64,
    by_id: HashMap<u64, Arc<Connection>>,
    /// Those of them that are not WebSockets, the oldest first.
    http: BTreeSet<u64>,
    /// How many WebSockets each address has.
    by_ip: HashMap<IpAddr, usize>,
}

/// What a stopping server does with those that are connected, and have yet to send their request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopping {
    /// It refuses them.
    Refuse,
    /// It serves those that send it soon. It accepts no other ones: the process that comes after it does.
    Serve,
}

/// One connection, as its own thread and the registry see it.
pub struct Connection {
    pub socket: Socket,
    /// The client, if a PROXY header has named it.
    forwarded: OnceLock<Peer>,
    accepted: Instant,
    /// When its TLS handshake was complete.
    secured: OnceLock<Instant>,
    /// The client's own thread, once it has begun.
    thread: OnceLock<(Pthread, Thread)>,
    /// Whether a part of its request or TLS handshake has come, and the response is not sent.
    is_asking: AtomicBool,
    is_evicted: AtomicBool,
}

/// A connection's entry in the registry. Dropping it removes the entry.
pub struct Registration {
    registry: Arc<Registry>,
    connection: Arc<Connection>,
    id: u64,
}

/// The result of the stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stopped {
    /// How many were connected.
    pub notified: usize,
    /// How many of them had to be aborted.
    pub aborted: usize,
}

impl Registry {
    /// A registry for at most `max` WebSockets, and `http_only` connections beyond them, half of which
    /// are for those that have to make room. From one address there may be `max_per_ip` WebSockets, or
    /// any number if that is 0.
    pub fn new(max: usize, http_only: usize, max_per_ip: usize) -> Self {
        Registry {
            max,
            http_only,
            max_per_ip,
            stopping: OnceLock::new(),
            state: Mutex::default(),
            unregistered: Condvar::new(),
        }
    }

    /// Adds a connection. When there are too many, the oldest one that is not a WebSocket is
    /// evicted, first of all one that has its response, or has sent nothing for a second.
    ///
    /// # Errors
    ///
    /// Why there is no room for it.
    pub fn register(
        self: &Arc<Self>,
        connection: &Arc<Connection>,
    ) -> Result<Registration, &'static str> {
        let mut state = self.lock();
        if self.is_stopping() {
            return Err(STOPPING);
        }
        let beyond = state.by_id.len().saturating_sub(self.max);
        if beyond >= self.http_only || (beyond >= self.http_only / 2 && !state.evict()) {
            return Err(LIMIT_REACHED);
        }
        let id = state.next_id;
        state.next_id += 1;
        state.http.insert(id);
        state.by_id.insert(id, Arc::clone(connection));
        Ok(Registration { registry: Arc::clone(self), connection: Arc::clone(connection), id })
    }

    /// Refuses new connections, has each client's thread send a close frame, gives them `close_timeout`
    /// to end, and aborts the rest.
    pub fn stop(&self, stopping: Stopping, close_timeout: Duration) -> Stopped {
        /// How long a thread takes at most to notice that its connection was aborted.
        const GRACE: Duration = Duration::from_millis(500);

        let deadline = Instant::now() + close_timeout;
        let mut state = self.lock();
        let _ = self.stopping.set(stopping);
        let notified = state.by_id.len();
        // A thread may have looked at the flag and not wait yet, so that the signal is lost.
        let mut pause = Duration::from_millis(10);
        while !state.by_id.is_empty() && Instant::now() < deadline {
            state.by_id.values().for_each(|connection| connection.wake());
            state = self.wait_until_empty(state, deadline.min(Instant::now() + pause));
            pause *= 2;
        }
        let aborted = state.by_id.len();
        state.by_id.values().for_each(|connection| connection.socket.abort());
        drop(self.wait_until_empty(state, Instant::now() + GRACE));
        Stopped { notified, aborted }
    }

    fn is_stopping(&self) -> bool {
        self.stopping.get().is_some()
    }

    fn wait_until_empty<'s>(
        &self,
        state: MutexGuard<'s, State>,
        until: Instant,
    ) -> MutexGuard<'s, State> {
        let timeout = until.saturating_duration_since(Instant::now());
        let waited =
            self.unregistered.wait_timeout_while(state, timeout, |state| !state.by_id.is_empty());
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    /// A panic while the lock is held leaves nothing half-done, so a poisoned lock is safe to use.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Has the oldest connection end that is not a WebSocket, and tells whether there was one.
    fn evict(&mut self) -> bool {
        let http = self.http.iter().filter_map(|id| self.by_id.get(id));
        let mut candidates = http.filter(|other| !other.is_evicted());
        let Some(oldest) = candidates.clone().next() else { return false };
        let evicted = candidates.find(|other| other.is_idle()).unwrap_or(oldest);
        evicted.is_evicted.store(true, Ordering::Release);
        evicted.socket.shut_read();
        evicted.wake();
        true
    }

    /// Makes a WebSocket an HTTP connection again. It has nothing more to say.
    fn downgrade(&mut self, registration: &Registration) {
        if self.http.insert(registration.id)
            && let Some(ip) = registration.connection.peer().ip()
            && let Entry::Occupied(mut from_ip) = self.by_ip.entry(ip)
        {
            *from_ip.get_mut() -= 1;
            if *from_ip.get() == 0 {
                from_ip.remove();
            }
        }
    }
}

impl Registration {
    /// Makes the connection a WebSocket, and tells the client's number, counted from 1.
    ///
    /// # Errors
    ///
    /// Why it can't be one.
    pub fn upgrade(&self) -> Result<u64, &'static str> {
        let mut state = self.registry.lock();
        if let Some(why) = self.refusal() {
            return Err(why);
        }
        if state.by_id.len() - state.http.len() >= self.registry.max {
            return Err(LIMIT_REACHED);
        }
        if let Some(ip) = self.connection.peer().ip() {
            let from_ip = state.by_ip.entry(ip).or_default();
            if self.registry.max_per_ip > 0 && *from_ip >= self.registry.max_per_ip {
                return Err(IP_LIMIT_REACHED);
            }
            *from_ip += 1;
        }
        state.http.remove(&self.id);
        state.opened += 1;
        Ok(state.opened)
    }

    /// Says that it is no WebSocket any more, so that the peer may open another one once it has the close
    /// frame.
    pub fn close(&self) {
        self.registry.lock().downgrade(self);
    }

    /// Why a connection that is not a WebSocket has to end, if it has to.
    pub fn refusal(&self) -> Option<&'static str> {
        let is_stopping = match self.registry.stopping.get() {
            None => false,
            Some(Stopping::Refuse) => true,
            Some(Stopping::Serve) => self.connection.is_idle(),
        };
        if is_stopping {
            Some(STOPPING)
        } else {
            self.connection.is_evicted().then_some(LIMIT_REACHED)
        }
    }

    /// Whether the server stops.
    pub fn is_stopping(&self) -> bool {
        self.registry.is_stopping()
    }

    pub fn connection(&self) -> &Connection {
        &self.connection
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut state = self.registry.lock();
        state.downgrade(self);
        state.http.remove(&self.id);
        state.by_id.remove(&self.id);
        drop(state);
        if self.is_stopping() {
            self.registry.unregistered.notify_all();
        }
    }
}

impl Connection {
    /// A connection on which nothing has come yet.
    pub fn new(socket: Socket) -> Arc<Self> {
        Arc::new(Connection {
            socket,
            forwarded: OnceLock::new(),
            accepted: Instant::now(),
            secured: OnceLock::new(),
            thread: OnceLock::new(),
            is_asking: AtomicBool::new(false),
            is_evicted: AtomicBool::new(false),
        })
    }

    /// Its client, which is not the socket's peer where a PROXY header has named another one.
    pub fn peer(&self) -> Peer {
        *self.forwarded.get().unwrap_or(&self.socket.peer)
    }

    /// Records the client that a PROXY header has named. As it is no WebSocket yet, it counts for no
    /// address.
    pub fn set_peer(&self, peer: Peer) {
        let _ = self.forwarded.set(peer);
    }

    /// Says that this thread serves it. It has to drop the [`Registration`] before it ends, since
    /// then its id means nothing any more.
    pub fn begin(&self) {
        let _ = self.thread.set((pthread_self(), thread::current()));
    }

    /// Says that a part of the request came, or of the TLS handshake before it.
    pub fn begin_request(&self) {
        self.is_asking.store(true, Ordering::Relaxed);
    }

    /// Says that the TLS handshake is complete. The request has its time to come from then on.
    pub fn end_handshake(&self) {
        let _ = self.secured.set(Instant::now());
        self.end_request();
    }

    /// Says that the response is sent.
    pub fn end_request(&self) {
        self.is_asking.store(false, Ordering::Release);
    }

    /// Whether it is the first to be evicted: it has its response, or has sent nothing for a while.
    fn is_idle(&self) -> bool {
        const NEW: Duration = Duration::from_secs(1);
        !self.is_asking.load(Ordering::Acquire)
            && self.secured.get().unwrap_or(&self.accepted).elapsed() >= NEW
    }

    fn is_evicted(&self) -> bool {
        self.is_evicted.load(Ordering::Acquire)
    }

    /// Ends the wait of its thread, so that it checks the flags.
    fn wake(&self) {
        if let Some((id, thread)) = self.thread.get() {
            // It can't fail: the thread lives, since the connection is registered.
            let _ = pthread_kill(*id, WAKE);
            // A signal does not end a wait for another thread.
            thread.unpark();
        }
    }
}
