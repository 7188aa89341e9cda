//! The load generator: one event loop that keeps a fixed number of messages in flight for each client.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::fd::OwnedFd;

use wsecho_bench::kernel_copy::MidPage;
use wsecho_bench::messages::{self, Message, Replies};

/// How long a server may take to answer anything that is measured here.
pub const TIMEOUT: Duration = Duration::from_secs(60);

/// Where the clients connect to, and what they send there.
#[derive(Clone, Copy)]
pub struct Target<'a> {
    pub address: SocketAddr,
    pub is_websocket: bool,
    pub message: &'a Message,
}

/// Connected clients.
pub struct Load<'a> {
    target: Target<'a>,
    clients: Vec<Client>,
    epoll: OwnedFd,
    buffer: MidPage,
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
    replies: Replies,
    replied: usize,
    /// How many messages were to be sent so far.
    queued: usize,
    /// How many bytes of these the socket has not taken yet.
    unsent: usize,
    /// The message whose latency is measured: its number, and when it was sent.
    timed: Option<(usize, Instant)>,
}

/// Whether a reply makes its client send the next message.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    Send,
    Stop,
}

impl<'a> Load<'a> {
    /// Connects `clients` one after another, with their handshakes.
    pub fn connect(target: Target<'a>, clients: usize) -> io::Result<Load<'a>> {
        let mut load = Load {
            target,
            clients: Vec::with_capacity(clients),
            epoll: epoll::create(CreateFlags::CLOEXEC)?,
            buffer: MidPage::new(256 * 1024),
            tally: Tally::default(),
        };
        for id in 0..clients {
            let stream = connect(target)?;
            epoll::add(&load.epoll, &stream, EventData::new_u64(id as u64), EventFlags::IN)?;
            let replies = Replies::default();
            load.clients.push(Client {
                stream,
                replies,
                replied: 0,
                queued: 0,
                unsent: 0,
                timed: None,
            });
        }
        Ok(load)
    }

    /// Lets every client send one message, and waits for all replies.
    pub fn echo_once(&mut self) -> io::Result<()> {
        self.queue(1)?;
        let deadline = Instant::now() + TIMEOUT;
        while self.clients.iter().any(|client| client.replied < client.queued) {
            self.poll(Next::Stop, deadline)?;
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
        self.tally = Tally::default();
        let start = Instant::now();
        let deadline = start + time;
        while Instant::now() < deadline {
            self.poll(Next::Send, deadline)?;
        }
        self.tally.elapsed = start.elapsed();
        self.tally.bytes /= 2.0;
        Ok(std::mem::take(&mut self.tally))
    }

    /// The connected sockets.
    pub fn into_streams(self) -> impl Iterator<Item = TcpStream> {
        self.clients.into_iter().map(|client| client.stream)
    }

    /// Waits once, and serves the clients that are ready.
    fn poll(&mut self, next: Next, deadline: Instant) -> io::Result<()> {
        let mut events = Vec::with_capacity(256);
        let timeout = deadline.saturating_duration_since(Instant::now());
        wait(&self.epoll, &mut events, timeout)?;
        if events.is_empty() && next == Next::Stop {
            return Err(io::Error::other("a client had no reply in time"));
        }
        for Event { flags, data } in events {
            let id = data.u64() as usize;
            if flags.contains(EventFlags::OUT) {
                self.write(id)?;
                if self.clients[id].unsent == 0 {
                    self.watch(id, EventFlags::IN)?;
                }
            }
            // Otherwise it is a message, an end or an error, and a read tells which.
            if flags != EventFlags::OUT {
                self.receive(id, next)?;
            }
        }
        Ok(())
    }

    fn receive(&mut self, id: usize, next: Next) -> io::Result<()> {
        let client = &mut self.clients[id];
        let bytes = match client.stream.read(&mut self.buffer) {
            Ok(0) => return Err(io::Error::other("the server closed a connection")),
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        };
        self.tally.bytes += bytes as f64;
        let replies = client.replies.receive(&self.buffer[..bytes], self.target.message)?;
        if replies == 0 {
            return Ok(());
        }
        self.tally.replies += replies;
        client.replied += replies;
        let now = Instant::now();
        if let Some((_, sent)) = client.timed.take_if(|(number, _)| client.replied > *number) {
            self.tally.latencies.push((now - sent).as_secs_f64());
        }
        match next {
            Next::Send => self.send(id, replies, now),
            Next::Stop => Ok(()),
        }
    }

    fn send(&mut self, id: usize, count: usize, now: Instant) -> io::Result<()> {
        let client = &mut self.clients[id];
        client.timed.get_or_insert((client.queued, now));
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

/// Waits for events for as long as `timeout`.
pub fn wait(epoll: &OwnedFd, events: &mut Vec<Event>, timeout: Duration) -> io::Result<()> {
    let timeout = timeout.try_into().map_err(io::Error::other)?;
    epoll::wait(epoll, spare_capacity(events), Some(&timeout))?;
    Ok(())
}

fn connect(target: Target) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect_timeout(&target.address, TIMEOUT)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    if target.is_websocket {
        stream.write_all(messages::REQUEST)?;
        let mut response = Vec::new();
        let mut part = [0; 1024];
        while !messages::is_upgraded(&response)? {
            match stream.read(&mut part)? {
                0 => return Err(io::Error::other("the server closed during the handshake")),
                bytes => response.extend(&part[..bytes]),
            }
        }
    }
    stream.set_nonblocking(true)?;
    Ok(stream)
}
