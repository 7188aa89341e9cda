//! The load generator: one event loop with all clients.

use std::io::{self, Read as _, Write as _};
use std::mem;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

use wsecho_bench::kernel_copy::MidPage;
use wsecho_bench::messages::{self, Message, Replies};

/// How long a server may take to answer anything that is measured here.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Where the clients connect to, and what they send there.
#[derive(Clone, Copy)]
pub struct Target<'a> {
    pub address: SocketAddr,
    pub is_websocket: bool,
    pub message: &'a Message,
}

/// Clients of one server.
pub struct Load<'a> {
    target: Target<'a>,
    clients: Vec<Client>,
    epoll: OwnedFd,
    buffer: MidPage,
    mode: Mode,
    tally: Tally,
}

/// What was measured over some time.
#[derive(Default)]
pub struct Tally {
    pub replies: usize,
    /// Half of all bytes sent and received. They grow evenly, while few large messages are complete
    /// at the end of the time.
    pub bytes: f64,
    pub elapsed: Duration,
    /// In seconds.
    pub latencies: Vec<f64>,
}

struct Client {
    stream: TcpStream,
    state: State,
    replies: Replies,
    replied: usize,
    /// How many messages were to be sent so far.
    queued: usize,
    /// How many bytes of these the socket has not taken yet.
    unsent: usize,
    /// What is timed: from when, and until which number of replies.
    timed: Option<(Instant, usize)>,
}

enum State {
    Connecting,
    /// With what has come of the response.
    Upgrading(Vec<u8>),
    Open,
    /// With what has come of the server's close frame.
    Closing(Vec<u8>),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// Clients send what they are told to.
    Wait,
    /// Each sends a message for every reply.
    Echo,
    /// Each sends a message when it is connected. Its connection is timed until the reply.
    Burst,
    /// The same, until the server has ended its stream after the closing handshake; then the client
    /// connects again. Raw TCP has no closing handshake to wait for.
    Reconnect,
}

impl Mode {
    fn times_connections(self) -> bool {
        matches!(self, Mode::Burst | Mode::Reconnect)
    }
}

impl<'a> Load<'a> {
    fn new(target: Target<'a>, mode: Mode) -> io::Result<Self> {
        Ok(Load {
            target,
            clients: Vec::new(),
            epoll: epoll::create(CreateFlags::CLOEXEC)?,
            buffer: MidPage::new(256 * 1024),
            mode,
            tally: Tally::default(),
        })
    }

    /// Connects `clients` one after another, with their handshakes.
    pub fn connect(target: Target<'a>, clients: usize) -> io::Result<Self> {
        let mut load = Load::new(target, Mode::Wait)?;
        for id in 0..clients {
            load.clients.push(load.begin(id)?);
            while !matches!(load.clients[id].state, State::Open) {
                load.poll_or_fail()?;
            }
        }
        Ok(load)
    }

    /// Lets `clients` connect, echo once and close, again and again for this time.
    pub fn reconnect(target: Target<'a>, clients: usize, time: Duration) -> io::Result<Tally> {
        let mut load = Load::new(target, Mode::Reconnect)?;
        load.begin_all(clients)?;
        load.poll_for(time)
    }

    /// Lets `clients` connect at the same instant, until each has its reply.
    pub fn burst(target: Target<'a>, clients: usize) -> io::Result<Tally> {
        let mut load = Load::new(target, Mode::Burst)?;
        let start = Instant::now();
        load.begin_all(clients)?;
        while load.tally.replies < clients {
            load.poll_or_fail()?;
        }
        Ok(Tally { elapsed: start.elapsed(), ..load.tally })
    }

    /// Lets every client send one message, and waits for all replies.
    pub fn echo_once(&mut self) -> io::Result<()> {
        self.queue(1)?;
        while self.clients.iter().any(|client| client.replied < client.queued) {
            self.poll_or_fail()?;
        }
        Ok(())
    }

    /// Lets every client send `depth` messages at once, which [`run`](Self::run) keeps in flight.
    pub fn queue(&mut self, depth: usize) -> io::Result<()> {
        let now = Instant::now();
        (0..self.clients.len()).try_for_each(|id| self.send(id, depth, now))
    }

    /// Sends a message for every reply, for this time.
    pub fn run(&mut self, time: Duration) -> io::Result<Tally> {
        self.mode = Mode::Echo;
        self.tally = Tally::default();
        self.poll_for(time)
    }

    /// The connected sockets.
    pub fn into_streams(self) -> impl Iterator<Item = TcpStream> {
        self.clients.into_iter().map(|client| client.stream)
    }

    fn begin_all(&mut self, clients: usize) -> io::Result<()> {
        (0..clients).try_for_each(|id| {
            let client = self.begin(id)?;
            self.clients.push(client);
            Ok(())
        })
    }

    fn begin(&self, id: usize) -> io::Result<Client> {
        let began = Instant::now();
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket =
            rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
        sockopt::set_tcp_nodelay(&socket, true)?;
        match rustix::net::connect(&socket, &self.target.address) {
            Ok(()) | Err(Errno::INPROGRESS) => {}
            Err(error) => return Err(error.into()),
        }
        epoll::add(&self.epoll, &socket, EventData::new_u64(id as u64), EventFlags::OUT)?;
        Ok(Client {
            stream: socket.into(),
            state: State::Connecting,
            replies: Replies::default(),
            replied: 0,
            queued: 0,
            unsent: 0,
            timed: self.mode.times_connections().then_some((began, 1)),
        })
    }

    fn poll_for(&mut self, time: Duration) -> io::Result<Tally> {
        let start = Instant::now();
        while let Some(rest) = time.checked_sub(start.elapsed()) {
            self.poll(rest)?;
        }
        self.tally.elapsed = start.elapsed();
        self.tally.bytes /= 2.0;
        Ok(mem::take(&mut self.tally))
    }

    fn poll_or_fail(&mut self) -> io::Result<()> {
        if self.poll(TIMEOUT)? { Ok(()) } else { Err(io::Error::other("no answer in time")) }
    }

    /// Waits for `timeout` at most, and serves the clients that are ready. Returns whether any was.
    fn poll(&mut self, timeout: Duration) -> io::Result<bool> {
        let mut events: Vec<Event> = Vec::with_capacity(256);
        let timeout = timeout.try_into().map_err(io::Error::other)?;
        epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&timeout))?;
        for &Event { flags, data } in &events {
            let id = data.u64() as usize;
            if flags.contains(EventFlags::OUT) {
                self.writable(id)?;
            }
            // Otherwise it is a message, an end or an error, and a read tells which.
            if flags != EventFlags::OUT {
                self.receive(id)?;
            }
        }
        Ok(!events.is_empty())
    }

    fn writable(&mut self, id: usize) -> io::Result<()> {
        let client = &mut self.clients[id];
        if let State::Connecting = client.state {
            sockopt::socket_error(&client.stream)??;
            if self.target.is_websocket {
                // So short that a new connection takes it whole.
                client.stream.write_all(messages::REQUEST)?;
                client.state = State::Upgrading(Vec::new());
            } else {
                self.open(id)?;
            }
        } else {
            self.write(id)?;
        }
        if self.clients[id].unsent == 0 {
            self.watch(id, EventFlags::IN)?;
        }
        Ok(())
    }

    fn open(&mut self, id: usize) -> io::Result<()> {
        self.clients[id].state = State::Open;
        if self.mode.times_connections() { self.send(id, 1, Instant::now()) } else { Ok(()) }
    }

    fn receive(&mut self, id: usize) -> io::Result<()> {
        let client = &mut self.clients[id];
        let bytes = match client.stream.read(&mut self.buffer) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        };
        let received = &self.buffer[..bytes];
        match &mut client.state {
            State::Closing(close) if bytes == 0 => {
                if close != messages::CLOSE_REPLY {
                    return Err(io::Error::other("the stream ended without the close frame"));
                }
                self.finish(id)
            }
            State::Closing(close) => {
                close.extend(received);
                Ok(())
            }
            _ if bytes == 0 => Err(io::Error::other("the server closed a connection")),
            State::Upgrading(response) => {
                response.extend(received);
                if messages::is_upgraded(response)? { self.open(id) } else { Ok(()) }
            }
            State::Connecting | State::Open => {
                self.tally.bytes += bytes as f64;
                match client.replies.receive(received, self.target.message)? {
                    0 => Ok(()),
                    replies => self.replied(id, replies),
                }
            }
        }
    }

    fn replied(&mut self, id: usize, replies: usize) -> io::Result<()> {
        let client = &mut self.clients[id];
        client.replied += replies;
        let now = Instant::now();
        if self.mode == Mode::Reconnect {
            if !self.target.is_websocket {
                return self.finish(id);
            }
            client.state = State::Closing(Vec::new());
            return client.stream.write_all(messages::CLOSE);
        }
        self.tally.replies += replies;
        if let Some((since, _)) = client.timed.take_if(|(_, number)| client.replied >= *number) {
            self.tally.latencies.push((now - since).as_secs_f64());
        }
        if self.mode == Mode::Echo { self.send(id, replies, now) } else { Ok(()) }
    }

    /// Counts a whole connection, and connects again.
    fn finish(&mut self, id: usize) -> io::Result<()> {
        if let Some((began, _)) = self.clients[id].timed {
            self.tally.latencies.push(began.elapsed().as_secs_f64());
        }
        self.tally.replies += 1;
        self.clients[id] = self.begin(id)?;
        Ok(())
    }

    fn send(&mut self, id: usize, count: usize, now: Instant) -> io::Result<()> {
        let client = &mut self.clients[id];
        client.timed.get_or_insert((now, client.queued + 1));
        client.queued += count;
        let is_blocked = client.unsent > 0;
        client.unsent += self.target.message.bytes(count);
        if is_blocked {
            return Ok(());
        }
        self.write(id)?;
        if self.clients[id].unsent > 0 {
            self.watch(id, EventFlags::IN | EventFlags::OUT)?;
        }
        Ok(())
    }

    fn write(&mut self, id: usize) -> io::Result<()> {
        let client = &mut self.clients[id];
        match client.stream.write(self.target.message.unsent(client.unsent)) {
            Ok(bytes) => {
                client.unsent -= bytes;
                self.tally.bytes += bytes as f64;
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn watch(&self, id: usize, flags: EventFlags) -> io::Result<()> {
        let data = EventData::new_u64(id as u64);
        Ok(epoll::modify(&self.epoll, &self.clients[id].stream, data, flags)?)
    }
}
