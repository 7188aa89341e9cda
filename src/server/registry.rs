//! The open connections: their limits, and the stop of all of them.

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::ops::RangeBounds;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use nix::sys::pthread::{Pthread, pthread_kill, pthread_self};
use nix::sys::signal::Signal;

use crate::app::peer::Peer;
use crate::lock::{lock, unpoisoned};
use crate::server::socket::Socket;

/// The signal that interrupts the wait of a client's thread. By default it is ignored, and operators
/// don't use it.
pub const WAKE: Signal = Signal::SIGURG;

/// A reason to refuse a connection, for its 503.
pub const LIMIT_REACHED: &str = "the connection limit is reached";
/// See [`LIMIT_REACHED`].
pub const IP_LIMIT_REACHED: &str = "the limit of connections from one address is reached";
/// See [`LIMIT_REACHED`].
pub const STOPPING: &str = "the server is stopping";

/// A connection that is silent, or leaves a close frame unanswered, for longer than this is evicted before
/// older ones.
const MAX_SILENCE: Duration = Duration::from_secs(1);

/// The maximum time that a thread takes to notice that its connection was aborted.
const GRACE: Duration = Duration::from_millis(500);

pub struct Registry {
    /// The maximum number of WebSockets.
    max: usize,
    /// The maximum number of connections beyond `max`.
    http_only: usize,
    /// The maximum number of WebSockets from one network (0: no limit).
    max_per_ip: usize,
    stopping: OnceLock<Stopping>,
    state: Mutex<State>,
    unregistered: Condvar,
}

#[derive(Default)]
struct State {
    next_id: u64,
    /// The number of WebSockets opened so far. It numbers the clients.
    opened: u64,
    websockets: usize,
    /// The number of WebSockets from each network, if that is limited.
    by_network: HashMap<IpAddr, usize>,
    connections: BTreeMap<Key, Arc<Connection>>,
    /// The number of threads that wait for connections to end.
    waiting: usize,
}

/// The phase of a connection, and its id.
type Key = (Phase, u64);

/// The phase of a connection. The lowest phase is evicted first, a WebSocket never.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    /// It got all that it will get at this time: its response, or the last close frame.
    Answered(Instant),
    /// It was accepted, or completed its TLS handshake, at this time. Nothing has arrived since.
    Silent(Instant),
    /// A part of its request or TLS handshake has arrived.
    Asking,
    /// It was sent a close frame at this time, and has yet to answer. If its stream ended first, the frame
    /// could be lost.
    Closing(Instant),
    WebSocket,
    /// It was evicted, and has yet to end.
    Evicted,
}

/// How a stopping server treats connections that have yet to send their request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopping {
    /// Refuse them.
    Refuse,
    /// Serve those that send it soon. Accept no new ones: the next process does.
    Serve,
}

/// One connection, as its own thread and the registry see it.
pub struct Connection {
    pub socket: Socket,
    /// The client's thread, once it has begun.
    thread: OnceLock<(Pthread, Thread)>,
    /// The reason for which it has to end, if it has to.
    refusal: OnceLock<&'static str>,
}

/// A connection's entry in the registry. Dropping it removes the entry.
pub struct Registration {
    registry: Arc<Registry>,
    connection: Arc<Connection>,
    id: u64,
    phase: Cell<Phase>,
    /// The peer whose network it counts for.
    peer: Cell<Peer>,
}

impl Registry {
    /// A registry for at most `max` WebSockets and `http_only` more connections. Half of the latter are
    /// for evicted connections that have yet to end. One network may have `max_per_ip` WebSockets (0: no
    /// limit).
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

    /// Adds a connection. If there are too many, evicts another one that is not a WebSocket. Waits only
    /// for the threads of evicted connections, which no client can delay.
    ///
    /// # Errors
    ///
    /// The reason why there is no room for it.
    pub fn register(
        self: &Arc<Self>,
        connection: &Arc<Connection>,
    ) -> Result<Registration, &'static str> {
        /// The time for evicted clients to get their 503 once their slots are needed.
        const PATIENCE: Duration = Duration::from_millis(50);

        let beyond = |state: &State| state.connections.len().saturating_sub(self.max);
        let is_full = |state: &State| beyond(state) >= self.http_only;
        let mut state = self.lock();
        if self.stopping.get().is_some() {
            return Err(STOPPING);
        }
        // Evicted connections don't count here. If their clients don't read, they end late, and others
        // would be evicted because of them.
        if beyond(&state) >= self.http_only / 2 + state.evicted().count() {
            state.evict();
        }
        state = self.wait_while(state, PATIENCE, is_full);
        if is_full(&state) {
            state.evicted().for_each(|connection| connection.abort());
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
        state.connections.insert((phase, id), Arc::clone(connection));
        let (registry, connection) = (Arc::clone(self), Arc::clone(connection));
        let (phase, peer) = (Cell::new(phase), Cell::new(connection.socket.peer));
        Ok(Registration { registry, connection, id, phase, peer })
    }

    /// Refuses new connections, and asks the others to end. Returns their number.
    pub fn stop(&self, stopping: Stopping) -> usize {
        let state = self.lock();
        let _ = self.stopping.set(stopping);
        for connection in state.connections.values() {
            let _ = connection.refusal.set(STOPPING);
        }
        state.connections.len()
    }

    /// Waits after [`stop`](Self::stop) until every connection has ended, or until `deadline`. Returns
    /// whether all have ended.
    pub fn wait_until_empty(&self, deadline: Instant) -> bool {
        let mut pause = Duration::from_millis(10);
        let mut state = self.lock();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if state.connections.is_empty() || left.is_zero() {
                return state.connections.is_empty();
            }
            // Repeated, since a signal is lost on a thread that has checked its refusal but does not wait
            // yet.
            state.connections.values().for_each(|connection| connection.wake());
            state = self.wait_while(state, pause.min(left), |state| !state.connections.is_empty());
            pause *= 2;
        }
    }

    /// Aborts every connection, and waits until their threads have noticed. Returns the number of clients
    /// that had yet to get their answer, or to answer a close frame.
    pub fn abort(&self) -> usize {
        let state = self.lock();
        state.connections.values().for_each(|connection| connection.abort());
        let phases = state.connections.keys().map(|(phase, _)| phase);
        let aborted = phases.filter(|phase| !matches!(phase, Phase::Answered(_))).count();
        drop(self.wait_while(state, GRACE, |state| !state.connections.is_empty()));
        aborted
    }

    /// Waits while `condition` holds, for at most `timeout`.
    fn wait_while<'s>(
        &self,
        mut state: MutexGuard<'s, State>,
        timeout: Duration,
        condition: impl Fn(&State) -> bool,
    ) -> MutexGuard<'s, State> {
        let condition = |state: &mut State| condition(state);
        state.waiting += 1;
        let waited = self.unregistered.wait_timeout_while(state, timeout, condition);
        state = unpoisoned(waited).0;
        state.waiting -= 1;
        state
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl State {
    /// Evicts a connection that is not a WebSocket: the one whose response was sent first, or else the
    /// one that has not answered a close frame for [`MAX_SILENCE`], or else the one that has been silent for
    /// the longest time, if for as long, or else the oldest.
    fn evict(&mut self) {
        const LAST_ASKING: Key = (Phase::Asking, u64::MAX);
        const FIRST_WEBSOCKET: Key = (Phase::WebSocket, 0);
        let Some(first) = self.first(..FIRST_WEBSOCKET) else { return };
        let asking = self.first((Phase::Asking, 0)..LAST_ASKING);
        let closing = self.first(LAST_ASKING..FIRST_WEBSOCKET);
        let key = match (first.0, asking, closing) {
            (Phase::Answered(_), ..) => first,
            (.., Some(key @ (Phase::Closing(since), _))) if since.elapsed() >= MAX_SILENCE => key,
            (Phase::Silent(since), Some(key), _)
                if since.elapsed() < MAX_SILENCE && key.1 < first.1 =>
            {
                key
            }
            _ => first,
        };
        let Some(connection) = self.connections.remove(&key) else { return };
        let _ = connection.refusal.set(LIMIT_REACHED);
        if matches!(key.0, Phase::Answered(_) | Phase::Closing(_)) {
            connection.abort();
        } else {
            // Its thread sends a 503, unless the client is not reading its response.
            connection.socket.shut_read();
            connection.wake();
        }
        self.connections.insert((Phase::Evicted, key.1), connection);
    }

    fn first(&self, range: impl RangeBounds<Key>) -> Option<Key> {
        self.connections.range(range).next().map(|(key, _)| *key)
    }

    /// The connections that were evicted and have yet to end.
    fn evicted(&self) -> impl Iterator<Item = &Arc<Connection>> {
        self.connections.range((Phase::Evicted, 0)..).map(|(_, connection)| connection)
    }

    /// Stops counting a connection as a WebSocket.
    fn uncount(&mut self, network: Option<IpAddr>) {
        self.websockets -= 1;
        let Some(network) = network else { return };
        if let Some(from_network) = self.by_network.get_mut(&network) {
            *from_network -= 1;
            if *from_network == 0 {
                self.by_network.remove(&network);
            }
        }
    }
}

impl Registration {
    /// The client, or the proxy that has not named its client by a PROXY header yet.
    pub fn peer(&self) -> Peer {
        self.peer.get()
    }

    /// Records the client that a PROXY header names. Call it before [`upgrade`](Self::upgrade), which
    /// counts the WebSocket for this client.
    pub fn set_peer(&self, peer: Peer) {
        self.peer.set(peer);
    }

    /// Records that a part of the request, or of the TLS handshake before it, has arrived.
    pub fn begin_request(&self) {
        if matches!(self.phase.get(), Phase::Silent(_)) {
            self.enter(Phase::Asking, &mut self.registry.lock());
        }
    }

    /// Records that the TLS handshake is complete. The wait for the request starts then.
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
    /// The reason why it can't be one.
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
            if *from_network >= self.registry.max_per_ip {
                return Err(IP_LIMIT_REACHED);
            }
            *from_network += 1;
        }
        state.websockets += 1;
        state.opened += 1;
        self.enter(Phase::WebSocket, &mut state);
        Ok(state.opened)
    }

    /// Records that it is no longer a WebSocket, so that the peer may open another one when it gets the
    /// close frame.
    pub fn close(&self) {
        if self.phase.get() == Phase::WebSocket {
            self.enter(Phase::Closing(Instant::now()), &mut self.registry.lock());
        }
    }

    /// The reason for which the connection has to end now, if it has to. If not, the call costs one
    /// atomic load.
    pub fn refusal(&self) -> Option<&'static str> {
        let why = *self.connection.refusal.get()?;
        let is_served = match self.phase.get() {
            Phase::Asking => true,
            Phase::Silent(since) => since.elapsed() < MAX_SILENCE,
            _ => false,
        };
        let serves = self.registry.stopping.get() == Some(&Stopping::Serve);
        if why == STOPPING && serves && is_served { None } else { Some(why) }
    }

    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    fn enter(&self, phase: Phase, state: &mut State) {
        if let Some(connection) = self.leave(state) {
            state.connections.insert((phase, self.id), connection);
        }
        self.phase.set(phase);
    }

    /// Ends its phase. `None` if the connection was evicted.
    fn leave(&self, state: &mut State) -> Option<Arc<Connection>> {
        if self.phase.get() == Phase::WebSocket {
            state.uncount(self.network());
        }
        state.connections.remove(&(self.phase.get(), self.id))
    }

    /// The network that shares one limit: an IPv4 address, or the first 64 bits of an IPv6 address,
    /// since a host can use any address in its network. `None` without such a limit.
    fn network(&self) -> Option<IpAddr> {
        const PREFIX: u128 = u128::MAX << 64;
        if self.registry.max_per_ip == 0 {
            return None;
        }
        Some(match self.peer.get().ip()? {
            IpAddr::V4(ip) => ip.into(),
            IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & PREFIX).into(),
        })
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut state = self.registry.lock();
        if self.leave(&mut state).is_none() {
            state.connections.remove(&(Phase::Evicted, self.id));
        }
        if state.waiting > 0 {
            self.registry.unregistered.notify_all();
        }
    }
}

impl Connection {
    /// A connection that has not received anything yet.
    pub fn new(socket: Socket) -> Arc<Self> {
        Arc::new(Connection { socket, thread: OnceLock::new(), refusal: OnceLock::new() })
    }

    /// Records that this thread serves it. The thread has to drop the [`Registration`] before it ends,
    /// since its id is invalid afterwards.
    pub fn begin(&self) {
        let _ = self.thread.set((pthread_self(), thread::current()));
    }

    /// Ends it at once, whatever its thread is doing.
    fn abort(&self) {
        self.socket.abort();
        self.wake();
    }

    /// Interrupts its thread's wait, so that the thread checks its refusal.
    fn wake(&self) {
        if let Some((id, thread)) = self.thread.get() {
            // This can't fail: the thread is alive, since the connection is registered.
            let _ = pthread_kill(*id, WAKE);
            // A signal does not interrupt a wait for another thread.
            thread.unpark();
        }
    }
}
