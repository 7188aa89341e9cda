//! Who is connected: seats under a cap, and the end of all conversations when the server stops.

use std::collections::HashMap;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::net::{SendFlags, send};

use crate::limits::STANDING;
use crate::session;
use crate::violation::Cause;

/// The clients that are connected, those in the opening handshake included.
pub struct Clients {
    cap: usize,
    house: Mutex<House>,
    left: Condvar,
}

struct House {
    open: bool,
    next_id: u64,
    seated: usize,
    present: HashMap<u64, Arc<Client>>,
}

/// One client, as its own thread and the one that stops the server see it.
pub struct Client {
    /// Counts up from 1.
    pub id: u64,
    /// The other end of the connection, which may be a proxy.
    pub peer: SocketAddr,
    /// The connection itself.
    pub stream: TcpStream,
    /// Whether it may open a WebSocket.
    pub place: Place,
    turn: Mutex<Turn>,
}

/// Where a client is let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Within the cap.
    Seat,
    /// Beyond it, only long enough for a plain answer.
    Standing,
}

/// Whose turn it is to write to a client.
///
/// Without a lock held over a write, a stopping server never waits for a client that does not read.
///
/// ```text
///   Handshake ──▶ Writing ◀──▶ Idle        by the client's own thread
///       │            │           │
///       ▼            ▼           ▼
///    Stopping     Stopping     Over        by the thread that stops the server
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    /// The request has not been answered yet.
    Handshake,
    /// The client's thread writes.
    Writing,
    /// Nobody writes; the stream stands between two frames.
    Idle,
    /// The client's thread has to say that the server stops.
    Stopping,
    /// The last byte was written.
    Over,
}

/// The server stops, or has said so to this client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stopped;

/// Why a client is not let in, for its 503.
pub const FULL: &str = "the server has no seat left";
/// See [`FULL`].
pub const STOPPING: &str = "the server is stopping";

/// A client's place in the house; dropping it, on whatever way out, gives the place back.
pub struct Seat {
    clients: Arc<Clients>,
    client: Arc<Client>,
}

impl Clients {
    /// An empty house with `cap` seats.
    pub fn new(cap: usize) -> Self {
        Clients {
            cap,
            house: Mutex::new(House {
                open: true,
                next_id: 1,
                seated: 0,
                present: HashMap::new(),
            }),
            left: Condvar::new(),
        }
    }

    /// Lets a client in.
    ///
    /// # Errors
    ///
    /// Its connection, and why there is no place for it.
    pub fn admit(
        self: &Arc<Self>,
        stream: TcpStream,
        peer: SocketAddr,
    ) -> Result<Seat, (TcpStream, &'static str)> {
        let mut house = lock(&self.house);
        if !house.open {
            return Err((stream, STOPPING));
        }
        let place = if house.seated < self.cap {
            house.seated += 1;
            Place::Seat
        } else if house.present.len() < self.cap + STANDING {
            Place::Standing
        } else {
            return Err((stream, FULL));
        };
        let client = Arc::new(Client {
            id: house.next_id,
            peer,
            stream,
            place,
            turn: Mutex::new(Turn::Handshake),
        });
        house.next_id += 1;
        house.present.insert(client.id, Arc::clone(&client));
        Ok(Seat {
            clients: Arc::clone(self),
            client,
        })
    }

    /// Lets nobody in any more, tells everyone that the server stops, gives them `close_timeout` to
    /// answer, and cuts those who have not. Returns how many were connected and how many were cut.
    pub fn stop(&self, close_timeout: Duration) -> (usize, usize) {
        /// How long a thread takes at most to notice that its connection was cut.
        const FAREWELL: Duration = Duration::from_millis(500);

        let deadline = Instant::now() + close_timeout;
        let told: Vec<_> = {
            let mut house = lock(&self.house);
            house.open = false;
            house.present.values().cloned().collect()
        };
        let mut close = Vec::new();
        session::encode_close(Cause::Stopping, &mut close);
        for client in &told {
            client.tell_stop(&close);
        }
        let connected = told.len();
        // Or the connections that end now would be held open here.
        drop(told);
        let late: Vec<_> = self.wait_until_empty(deadline).values().cloned().collect();
        for client in &late {
            client.cut();
        }
        let cut = late.len();
        drop(late);
        drop(self.wait_until_empty(Instant::now() + FAREWELL));
        (connected, cut)
    }

    fn wait_until_empty(&self, deadline: Instant) -> HashMap<u64, Arc<Client>> {
        let left = deadline.saturating_duration_since(Instant::now());
        let (house, _) = self
            .left
            .wait_timeout_while(lock(&self.house), left, |house| !house.present.is_empty())
            .unwrap_or_else(PoisonError::into_inner);
        house.present.clone()
    }
}

impl Client {
    /// Takes the turn to write.
    ///
    /// # Errors
    ///
    /// [`Stopped`]: before the answer to the request, that answer has to be 503. After it, the close
    /// frame is already sent and nothing may follow.
    pub fn start_writing(&self) -> Result<(), Stopped> {
        let mut turn = lock(&self.turn);
        match *turn {
            Turn::Stopping | Turn::Over => Err(Stopped),
            Turn::Handshake | Turn::Writing | Turn::Idle => {
                *turn = Turn::Writing;
                Ok(())
            }
        }
    }

    /// Gives the turn back, at the end of a frame.
    ///
    /// # Errors
    ///
    /// [`Stopped`]: the turn stays here, and the close frame has to be sent now.
    pub fn finish_writing(&self) -> Result<(), Stopped> {
        let mut turn = lock(&self.turn);
        match *turn {
            Turn::Stopping => Err(Stopped),
            _ => {
                *turn = Turn::Idle;
                Ok(())
            }
        }
    }

    /// Says that nothing more is written to this client, by anyone: half-closes the connection.
    pub fn end_writing(&self) {
        *lock(&self.turn) = Turn::Over;
        // A connection that is gone already needs no end.
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// Closes the conversation from outside, without ever waiting. The client's thread goes on
    /// reading for the answer.
    fn tell_stop(&self, close: &[u8]) {
        let mut turn = lock(&self.turn);
        match *turn {
            Turn::Handshake => {
                *turn = Turn::Stopping;
                // No more of the request will be read, and its thread wakes to say so.
                let _ = self.stream.shutdown(Shutdown::Read);
            }
            Turn::Writing => *turn = Turn::Stopping,
            Turn::Idle => {
                *turn = Turn::Over;
                let sent = send(&self.stream, close, SendFlags::DONTWAIT);
                if sent == Ok(close.len()) {
                    let _ = self.stream.shutdown(Shutdown::Write);
                } else {
                    self.cut();
                }
            }
            Turn::Stopping | Turn::Over => {}
        }
    }

    /// Ends the connection at once, whatever its thread is doing.
    fn cut(&self) {
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

impl Seat {
    /// Who sits here.
    pub fn client(&self) -> &Arc<Client> {
        &self.client
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut house = lock(&self.clients.house);
        house.present.remove(&self.client.id);
        if self.client.place == Place::Seat {
            house.seated -= 1;
        }
        if !house.open {
            self.clients.left.notify_all();
        }
    }
}

/// A panic while a lock is held leaves nothing half-done here, so poison says nothing.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
