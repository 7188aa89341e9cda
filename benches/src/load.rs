//! The load generator: one event loop with all clients.

use std::io;
use std::mem;
use std::net::{Ipv4Addr, Shutdown, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use rustls::ClientConfig;

use wsecho_bench::kernel_copy::MidPage;
use wsecho_bench::messages::{self, Message, Replies};

use crate::stream::Stream;

/// How long a server may take to answer anything that is measured here.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Where the clients connect to, and what they send there.
#[derive(Clone, Copy)]
pub struct Target<'a> {
    pub address: SocketAddr,
    pub tls: Option<&'a Arc<ClientConfig>>,
    /// `None` for raw TCP.
    pub request: Option<&'a [u8]>,
    /// A client sends one after another, and begins with the one of its number. If they are several, it
    /// has one in flight.
    pub messages: &'a [Message],
}

/// How many clients have the same source address. Above some thousands the kernel searches long for a
/// free port.
const CLIENTS_PER_ADDRESS: usize = 5_000;

/// Clients of one server.
pub struct Load<'a> {
    target: Target<'a>,
    clients: Vec<Client>,
    open: usize,
    /// How many messages of all clients have no reply yet.
    in_flight: usize,
    epoll: OwnedFd,
    buffer: MidPage,
    mode: Mode,
    tally: Tally,
}

/// What was measured over some time.
#[derive(Default)]
pub struct Tally {
    pub replies: usize,
    pub sent: f64,
    pub received: f64,
    pub elapsed: Duration,
    /// In seconds.
    pub latencies: Vec<f64>,
}

struct Client {
    stream: Stream,
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
    Closed,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Clients send what they are told to.
    Wait,
    /// Each sends a message for every reply.
    Echo,
    /// Each sends a message when it is connected. Its connection is timed until the reply.
    Burst,
    /// The same, until the server has ended its stream after the closing handshake; then the client
    /// connects again. Raw TCP has no closing handshake to wait for.
    Reconnect,
    /// Each connects again when its WebSocket is open.
    Handshake,
    /// Each answers the server's close frame, and waits for the end of the stream.
    Close,
}

impl<'a> Load<'a> {
    fn new(target: Target<'a>, mode: Mode) -> io::Result<Self> {
        Ok(Load {
            target,
            clients: Vec::new(),
            open: 0,
            in_flight: 0,
            epoll: epoll::create(CreateFlags::CLOEXEC)?,
            buffer: MidPage::new(256 * 1024),
            mode,
            tally: Tally::default(),
        })
    }

    /// Connects `clients`, of which at most `at_once` are not open yet.
    pub fn connect(target: Target<'a>, clients: usize, at_once: usize) -> io::Result<Self> {
        let mut load = Load::new(target, Mode::Wait)?;
        while load.open < clients {
            load.begin_until(clients.min(load.open + at_once))?;
            load.poll_or_fail()?;
        }
        Ok(load)
    }

    /// Lets `clients` connect again and again for this time.
    pub fn reconnect(
        target: Target<'a>,
        clients: usize,
        mode: Mode,
        time: Duration,
    ) -> io::Result<Tally> {
        let mut load = Load::new(target, mode)?;
        load.begin_until(clients)?;
        load.poll_for(time)
    }

    /// Lets `clients` connect at the same instant, until each has its reply.
    pub fn burst(target: Target<'a>, clients: usize) -> io::Result<Tally> {
        let mut load = Load::new(target, Mode::Burst)?;
        let start = Instant::now();
        load.begin_until(clients)?;
        while load.tally.replies < clients {
            load.poll_or_fail()?;
        }
        Ok(Tally { elapsed: start.elapsed(), ..load.tally })
    }

    /// Lets every client send one message, and waits for all replies.
    pub fn echo_once(&mut self) -> io::Result<()> {
        self.queue(self.clients.len(), 1)?;
        self.wait_for_replies()
    }

    pub fn wait_for_replies(&mut self) -> io::Result<()> {
        self.mode = Mode::Wait;
        while self.in_flight > 0 {
            self.poll_or_fail()?;
        }
        Ok(())
    }

    /// Lets the first `clients` send `depth` messages at once, which [`run`](Self::run) keeps in flight.
    pub fn queue(&mut self, clients: usize, depth: usize) -> io::Result<()> {
        let now = Instant::now();
        (0..clients).try_for_each(|id| self.send(id, depth, now))
    }

    /// Sends a message for every reply, for this time.
    pub fn run(&mut self, time: Duration) -> io::Result<Tally> {
        self.mode = Mode::Echo;
        self.tally = Tally::default();
        self.poll_for(time)
    }

    /// Waits until the server has closed every connection.
    pub fn wait_for_close(&mut self) -> io::Result<()> {
        self.mode = Mode::Close;
        while self.open > 0 {
            self.poll_or_fail()?;
        }
        Ok(())
    }

    /// The connected streams.
    pub fn into_streams(self) -> impl Iterator<Item = Stream> {
        self.clients.into_iter().map(|client| client.stream)
    }

    fn begin_until(&mut self, clients: usize) -> io::Result<()> {
        for id in self.clients.len()..clients {
            let client = self.begin(id)?;
            self.clients.push(client);
        }
        Ok(())
    }

    fn begin(&self, id: usize) -> io::Result<Client> {
        let began = Instant::now();
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket =
            rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
        sockopt::set_tcp_nodelay(&socket, true)?;
        if let part @ 1.. = id / CLIENTS_PER_ADDRESS {
            let source = Ipv4Addr::new(127, 0, 0, 1 + part as u8);
            rustix::net::bind(&socket, &SocketAddr::from((source, 0)))?;
        }
        match rustix::net::connect(&socket, &self.target.address) {
            Ok(()) | Err(Errno::INPROGRESS) => {}
            Err(error) => return Err(error.into()),
        }
        epoll::add(&self.epoll, &socket, EventData::new_u64(id as u64), EventFlags::OUT)?;
        let stream = match self.target.tls {
            Some(config) => Stream::tls(socket.into(), config)?,
            None => Stream::Plain(socket.into()),
        };
        let is_timed = matches!(self.mode, Mode::Burst | Mode::Reconnect | Mode::Handshake);
        Ok(Client {
            stream,
            state: State::Connecting,
            replies: Replies::default(),
            replied: 0,
            queued: 0,
            unsent: 0,
            timed: is_timed.then_some((began, 1)),
        })
    }

    fn poll_for(&mut self, time: Duration) -> io::Result<Tally> {
        let start = Instant::now();
        while let Some(rest) = time.checked_sub(start.elapsed()) {
            self.poll(rest)?;
        }
        self.tally.elapsed = start.elapsed();
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
            sockopt::socket_error(client.stream.socket())??;
            if let Some(request) = self.target.request {
                // So short that a new connection takes it whole.
                client.stream.write(request)?;
                client.state = State::Upgrading(Vec::new());
            } else {
                self.open(id)?;
            }
        } else {
            client.stream.flush()?;
            if client.unsent > 0 {
                self.write(id)?;
            }
        }
        if !self.clients[id].is_blocked() {
            self.watch(id, EventFlags::IN)?;
        }
        Ok(())
    }

    fn open(&mut self, id: usize) -> io::Result<()> {
        self.clients[id].state = State::Open;
        self.open += 1;
        match self.mode {
            Mode::Burst | Mode::Reconnect => self.send(id, 1, Instant::now()),
            Mode::Handshake => self.finish(id),
            Mode::Wait | Mode::Echo | Mode::Close => Ok(()),
        }
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
                let is_expected = match self.mode {
                    Mode::Close => messages::is_going_away(close),
                    _ => close == messages::CLOSE_REPLY,
                };
                if !is_expected {
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
                let request = self.target.request.unwrap_or_default();
                if messages::is_upgraded(response, request)? { self.open(id) } else { Ok(()) }
            }
            State::Open if self.mode == Mode::Close => {
                client.state = State::Closing(received.to_vec());
                client.stream.write(messages::GOING_AWAY_REPLY).map(drop)
            }
            State::Connecting | State::Open | State::Closed => {
                self.tally.received += bytes as f64;
                let message = client.message(id, self.target.messages);
                match client.replies.receive(received, message)? {
                    0 => Ok(()),
                    replies => self.replied(id, replies),
                }
            }
        }
    }

    fn replied(&mut self, id: usize, replies: usize) -> io::Result<()> {
        let client = &mut self.clients[id];
        client.replied += replies;
        self.in_flight -= replies;
        let now = Instant::now();
        if self.mode == Mode::Reconnect {
            if self.target.request.is_none() {
                return self.finish(id);
            }
            client.state = State::Closing(Vec::new());
            return client.stream.write(messages::CLOSE).map(drop);
        }
        self.tally.replies += replies;
        if let Some((since, _)) = client.timed.take_if(|(_, number)| client.replied >= *number) {
            self.tally.latencies.push((now - since).as_secs_f64());
        }
        if self.mode == Mode::Echo { self.send(id, replies, now) } else { Ok(()) }
    }

    /// Counts a whole connection, and connects again unless the server stops.
    fn finish(&mut self, id: usize) -> io::Result<()> {
        self.open -= 1;
        if self.mode == Mode::Close {
            self.clients[id].state = State::Closed;
            let socket = self.clients[id].stream.socket();
            epoll::delete(&self.epoll, socket)?;
            // The server may have reset it meanwhile.
            let _ = socket.shutdown(Shutdown::Both);
            return Ok(());
        }
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
        self.in_flight += count;
        let is_blocked = client.is_blocked();
        client.unsent += client.message(id, self.target.messages).bytes(count);
        if is_blocked {
            return Ok(());
        }
        self.write(id)?;
        if self.clients[id].is_blocked() {
            self.watch(id, EventFlags::IN | EventFlags::OUT)?;
        }
        Ok(())
    }

    fn write(&mut self, id: usize) -> io::Result<()> {
        let client = &mut self.clients[id];
        let message = client.message(id, self.target.messages);
        match client.stream.write(message.unsent(client.unsent)) {
            Ok(bytes) => {
                client.unsent -= bytes;
                self.tally.sent += bytes as f64;
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn watch(&self, id: usize, flags: EventFlags) -> io::Result<()> {
        let data = EventData::new_u64(id as u64);
        Ok(epoll::modify(&self.epoll, self.clients[id].stream.socket(), data, flags)?)
    }
}

impl Client {
    /// The last message that was to be sent.
    fn message<'m>(&self, id: usize, messages: &'m [Message]) -> &'m Message {
        &messages[(id + self.queued.saturating_sub(1)) % messages.len()]
    }

    fn is_blocked(&self) -> bool {
        self.unsent > 0 || self.stream.is_blocked()
    }
}
