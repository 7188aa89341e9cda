//! Who is connected: the limits on connections, and the stop of all of them.

use std::cell::Cell;
use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};
use std::mem;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use nix::sys::pthread::{Pthread, pthread_kill, pthread_self};
use nix::sys::signal::Signal;

use crate::app::peer::Peer;
use crate::lock::{lock, unpoisoned};
use crate::server::socket::Socket;

/// Ends the wait of a client's thread. By default it is ignored, and nobody sends it by hand.
pub const WAKE: Signal = Signal::SIGURG;

/// Why a connection is refused, for its 503.
pub const LIMIT_REACHED: &str = "the connection limit is reached";
/// See [`LIMIT_REACHED`].
pub const IP_LIMIT_REACHED: &str = "the limit of connections from one address is reached";
/// See [`LIMIT_REACHED`].
pub const STOPPING: &str = "the server is stopping";

/// How long a connection may be silent before it is evicted in place of an older one.
const MAX_SILENCE: Duration = Duration::from_secs(1);

/// How long a thread takes at most to notice that its connection was aborted.
const GRACE: Duration = Duration::from_millis(500);

/// All connections.
pub struct Registry {
    /// The limit of WebSockets.
    max: usize,
    /// The limit of connections beyond `max`.
    http_only: usize,
    /// The limit of WebSockets from one network, 0 for none.
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
    websockets: usize,
    /// How many of them each network has.
    by_network: HashMap<IpAddr, usize>,
    by_id: HashMap<u64, Arc<Connection>>,
    /// Those that are no WebSockets and were not evicted, in the order of [`Phase`].
    evictable: BTreeSet<(Phase, u64)>,
    /// Those that were evicted, not aborted, and have yet to end.
    evicted: BTreeSet<u64>,
}

/// What a connection is doing. Of those that are evicted the first ones come first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    /// It has its response, or was a WebSocket, since then.
    Answered(Instant),
    /// Nothing has come since it was accepted, or since its TLS handshake.
    Silent(Instant),
    /// A part of its request or TLS handshake has come.
    Asking,
    WebSocket,
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
    /// The client's own thread, once it has begun.
    thread: OnceLock<(Pthread, Thread)>,
    /// Why it has to end, once it has to.
    refusal: OnceLock<&'static str>,
}

/// A connection's entry in the registry. Dropping it removes the entry.
pub struct Registration {
    registry: Arc<Registry>,
    connection: Arc<Connection>,
    id: u64,
    phase: Cell<Phase>,
    /// Whom it counts for.
    peer: Cell<Peer>,
}

impl Registry {
    /// A registry for at most `max` WebSockets, and `http_only` connections beyond them, half of which
    /// are for those that were evicted and have yet to end. From one network there may be `max_per_ip`
    /// WebSockets, or any number if that is 0.
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

    /// Adds a connection. If there are too many, another one that is no WebSocket is evicted. Waits for
    /// nothing but the threads of evicted connections, which no client can hold up.
    ///
    /// # Errors
    ///
    /// Why there is no room for it.
    pub fn register(
        self: &Arc<Self>,
        connection: &Arc<Connection>,
    ) -> Result<Registration, &'static str> {
        /// How long evicted clients have for their 503 once their slots are needed.
        const PATIENCE: Duration = Duration::from_millis(50);

        let beyond = |state: &State| state.by_id.len().saturating_sub(self.max);
        let is_full = |state: &State| beyond(state) >= self.http_only;
        let mut state = self.lock();
        if beyond(&state) >= self.http_only / 2 {
            state.evict();
        }
        state = self.wait_while(state, PATIENCE, is_full);
        if is_full(&state) {
            state.abort_evicted();
            state = self.wait_while(state, GRACE, is_full);
        }
        if self.stopping.get().is_some() {
            return Err(STOPPING);
        }
        if is_full(&state) {
            return Err(LIMIT_REACHED);
        }
        let (id, phase) = (state.next_id, Phase::Silent(Instant::now()));
        state.next_id += 1;
        state.by_id.insert(id, Arc::clone(connection));
        state.evictable.insert((phase, id));
        let (registry, connection) = (Arc::clone(self), Arc::clone(connection));
        let (phase, peer) = (Cell::new(phase), Cell::new(connection.socket.peer));
        Ok(Registration { registry, connection, id, phase, peer })
    }

    /// Refuses new connections, and gives each one a reason to end. Returns how many there are.
    pub fn stop(&self, stopping: Stopping) -> usize {
        let state = self.lock();
        let _ = self.stopping.set(stopping);
        for connection in state.by_id.values() {
            let _ = connection.refusal.set(STOPPING);
        }
        state.by_id.len()
    }

    /// Waits after the [`stop`](Self::stop) until every connection has ended. Returns how many have not at
    /// `deadline`.
    pub fn wait_until_empty(&self, deadline: Instant) -> usize {
        let mut pause = Duration::from_millis(10);
        let mut state = self.lock();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if state.by_id.is_empty() || left.is_zero() {
                return state.by_id.len();
            }
            // A thread may have asked for its refusal before and not wait yet, so that the signal is lost.
            state.by_id.values().for_each(|connection| connection.wake());
            state = self.wait_while(state, pause.min(left), |state| !state.by_id.is_empty());
            pause *= 2;
        }
    }

    /// Aborts every connection, and waits until their threads have noticed.
    pub fn abort(&self) {
        let state = self.lock();
        state.by_id.values().for_each(|connection| connection.abort());
        drop(self.wait_while(state, GRACE, |state| !state.by_id.is_empty()));
    }

    /// Waits while `condition` holds, for at most `timeout`.
    fn wait_while<'s>(
        &self,
        state: MutexGuard<'s, State>,
        timeout: Duration,
        condition: impl Fn(&State) -> bool,
    ) -> MutexGuard<'s, State> {
        let condition = |state: &mut State| condition(state);
        unpoisoned(self.unregistered.wait_timeout_while(state, timeout, condition)).0
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl State {
    /// Has a connection end that is no WebSocket. That is the one whose response was sent first. If there
    /// is none, the one that has been silent for the longest time, if that is [`MAX_SILENCE`]. If there is
    /// none, the oldest.
    fn evict(&mut self) {
        let Some(&(mut phase, mut id)) = self.evictable.first() else { return };
        let oldest_asking = self.evictable.range((Phase::Asking, 0)..).next();
        if let (Phase::Silent(since), Some(&(_, oldest))) = (phase, oldest_asking)
            && since.elapsed() < MAX_SILENCE
            && oldest < id
        {
            (phase, id) = (Phase::Asking, oldest);
        }
        self.evictable.remove(&(phase, id));
        let Some(connection) = self.by_id.get(&id) else { return };
        let _ = connection.refusal.set(LIMIT_REACHED);
        if matches!(phase, Phase::Answered(_)) {
            connection.abort();
        } else {
            // It is sent a 503, unless it does not read its response.
            self.evicted.insert(id);
            connection.socket.shut_read();
            connection.wake();
        }
    }

    fn abort_evicted(&mut self) {
        for id in mem::take(&mut self.evicted) {
            if let Some(connection) = self.by_id.get(&id) {
                connection.abort();
            }
        }
    }

    /// A connection is a WebSocket no longer.
    fn uncount(&mut self, network: Option<IpAddr>) {
        self.websockets -= 1;
        if let Some(network) = network
            && let Entry::Occupied(mut from_network) = self.by_network.entry(network)
        {
            *from_network.get_mut() -= 1;
            if *from_network.get() == 0 {
                from_network.remove();
            }
        }
    }
}

impl Registration {
    /// The client, or the proxy before it that has not named it by a PROXY header.
    pub fn peer(&self) -> Peer {
        self.peer.get()
    }

    /// Records the client that a PROXY header names. It comes before the WebSocket that counts for it.
    pub fn set_peer(&self, peer: Peer) {
        self.peer.set(peer);
    }

    /// Records that a part of the request has come, or of the TLS handshake before it.
    pub fn begin_request(&self) {
        if matches!(self.phase.get(), Phase::Silent(_)) {
            self.enter(Phase::Asking, &mut self.registry.lock());
        }
    }

    /// Records that the TLS handshake is complete. The request has its time to come from then on.
    pub fn end_handshake(&self) {
        self.enter(Phase::Silent(Instant::now()), &mut self.registry.lock());
    }

    /// Records that the response is sent, unless it opens a WebSocket.
    pub fn end_request(&self) {
        if self.phase.get() != Phase::WebSocket {
            self.enter(Phase::Answered(Instant::now()), &mut self.registry.lock());
        }
    }

    /// Makes the connection a WebSocket, and returns the client's number, counted from 1.
    ///
    /// # Errors
    ///
    /// Why it can't be one.
    pub fn upgrade(&self) -> Result<u64, &'static str> {
        let mut state = self.registry.lock();
        if let Some(why) = self.refusal() {
            return Err(why);
        }
        if state.websockets >= self.registry.max {
            return Err(LIMIT_REACHED);
        }
        if let Some(network) = self.network() {
            let from_network = state.by_network.entry(network).or_default();
            if self.registry.max_per_ip > 0 && *from_network >= self.registry.max_per_ip {
                return Err(IP_LIMIT_REACHED);
            }
            *from_network += 1;
        }
        state.websockets += 1;
        state.opened += 1;
        self.enter(Phase::WebSocket, &mut state);
        Ok(state.opened)
    }

    /// Records that it is no WebSocket any more, so that the peer may open another one once it has the
    /// close frame.
    pub fn close(&self) {
        if self.phase.get() == Phase::WebSocket {
            self.enter(Phase::Answered(Instant::now()), &mut self.registry.lock());
        }
    }

    /// Why the connection has to end now, if it has to. To ask costs the load of one atomic if not.
    pub fn refusal(&self) -> Option<&'static str> {
        let why = *self.connection.refusal.get()?;
        let is_served = match self.phase.get() {
            Phase::Asking => true,
            Phase::Silent(since) => since.elapsed() < MAX_SILENCE,
            Phase::Answered(_) | Phase::WebSocket => false,
        };
        let serves = self.registry.stopping.get() == Some(&Stopping::Serve);
        if why == STOPPING && serves && is_served { None } else { Some(why) }
    }

    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    fn enter(&self, phase: Phase, state: &mut State) {
        if self.leave(state) && phase != Phase::WebSocket {
            state.evictable.insert((phase, self.id));
        }
        self.phase.set(phase);
    }

    /// Ends its phase. Returns whether the connection can be evicted, unless it becomes a WebSocket.
    fn leave(&self, state: &mut State) -> bool {
        match self.phase.get() {
            Phase::WebSocket => {
                state.uncount(self.network());
                true
            }
            phase => state.evictable.remove(&(phase, self.id)),
        }
    }

    /// What shares the limit of one address: an IPv4 address, or the 64 bits of an IPv6 address that a
    /// network has, since each of its hosts can take any address in it.
    fn network(&self) -> Option<IpAddr> {
        const PREFIX: u128 = u128::MAX << 64;
        Some(match self.peer.get().ip()? {
            IpAddr::V4(ip) => ip.into(),
            IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & PREFIX).into(),
        })
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut state = self.registry.lock();
        self.leave(&mut state);
        state.evicted.remove(&self.id);
        state.by_id.remove(&self.id);
        drop(state);
        self.registry.unregistered.notify_all();
    }
}

impl Connection {
    /// A connection on which nothing has come yet.
    pub fn new(socket: Socket) -> Arc<Self> {
        Arc::new(Connection { socket, thread: OnceLock::new(), refusal: OnceLock::new() })
    }

    /// Records that this thread serves it. It has to drop the [`Registration`] before it ends, since
    /// then its id means nothing any more.
    pub fn begin(&self) {
        let _ = self.thread.set((pthread_self(), thread::current()));
    }

    /// Ends it at once, whatever its thread is doing.
    fn abort(&self) {
        self.socket.abort();
        self.wake();
    }

    /// Ends the wait of its thread, so that it asks for its refusal.
    fn wake(&self) {
        if let Some((id, thread)) = self.thread.get() {
            // It can't fail: the thread lives, since the connection is registered.
            let _ = pthread_kill(*id, WAKE);
            // A signal does not end a wait for another thread.
            thread.unpark();
        }
    }
}
