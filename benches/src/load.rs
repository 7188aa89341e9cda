//! The load generator: one event loop that keeps a fixed number of messages in flight for each client.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::fd::OwnedFd;

use wsecho_bench::stats::Histogram;
use wsecho_bench::wire::{self, Message, Replies};

/// No server needs so long for anything that is measured here.
pub const STALL: Duration = Duration::from_secs(10);

/// Connected clients, and what they say.
pub struct Load<'a> {
    message: &'a Message,
    clients: Vec<Client>,
    epoll: OwnedFd,
    buffer: Vec<u8>,
    tally: Tally,
}

/// What moved in a stretch of time.
#[derive(Default)]
pub struct Tally {
    pub replies: usize,
    /// Half of what was sent and received together. Of large messages only some come whole in a
    /// stretch; bytes grow evenly.
    pub bytes: f64,
    pub elapsed: Duration,
    pub latency: Histogram,
}

struct Client {
    stream: TcpStream,
    replies: Replies,
    replied: usize,
    /// Messages handed over for sending so far.
    asked: usize,
    /// Bytes of those that the socket has not yet taken.
    unsent: usize,
    /// The message whose reply is being timed: how many replies come before it, and when it was sent.
    timed: Option<(usize, Instant)>,
}

/// When a client speaks again.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Refill {
    /// At every reply.
    Always,
    Never,
}

impl<'a> Load<'a> {
    /// Connects `clients`, one after another, and upgrades them if they are to speak WebSocket.
    pub fn connect(
        address: SocketAddr,
        websocket: bool,
        clients: usize,
        message: &'a Message,
    ) -> io::Result<Load<'a>> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let clients = (0..clients)
            .map(|id| {
                let stream = connect(address, websocket)?;
                let data = EventData::new_u64(id as u64);
                epoll::add(&epoll, &stream, data, EventFlags::IN)?;
                Ok(Client {
                    stream,
                    replies: Replies::default(),
                    replied: 0,
                    asked: 0,
                    unsent: 0,
                    timed: None,
                })
            })
            .collect::<io::Result<_>>()?;
        Ok(Load { message, clients, epoll, buffer: vec![0; 256 * 1024], tally: Tally::default() })
    }

    /// Lets every client send one message and waits for all replies.
    pub fn echo_once(&mut self) -> io::Result<()> {
        self.ask(1)?;
        let deadline = Instant::now() + Duration::from_secs(60);
        while self.clients.iter().any(|client| client.replied < client.asked) {
            self.turn(Refill::Never, deadline)?;
            if Instant::now() > deadline {
                return Err(io::Error::other("not every client had its reply in time"));
            }
        }
        Ok(())
    }

    /// Lets every client send `depth` messages at once, to be kept up by [`Load::run`].
    pub fn ask(&mut self, depth: usize) -> io::Result<()> {
        let now = Instant::now();
        for id in 0..self.clients.len() {
            self.send(id, depth, now)?;
        }
        Ok(())
    }

    /// Answers every reply with the next message, for so long.
    pub fn run(&mut self, time: Duration) -> io::Result<Tally> {
        self.tally = Tally::default();
        let start = Instant::now();
        let deadline = start + time;
        while Instant::now() < deadline {
            self.turn(Refill::Always, deadline)?;
        }
        self.tally.elapsed = start.elapsed();
        self.tally.bytes /= 2.0;
        Ok(std::mem::take(&mut self.tally))
    }

    /// The connected sockets, silent from now on.
    pub fn into_idle(self) -> Vec<TcpStream> {
        self.clients.into_iter().map(|client| client.stream).collect()
    }

    /// Waits for the kernel once, and serves whom it names.
    fn turn(&mut self, refill: Refill, deadline: Instant) -> io::Result<()> {
        let mut events: Vec<Event> = Vec::with_capacity(256);
        let patience = deadline.saturating_duration_since(Instant::now()).min(STALL);
        wait(&self.epoll, &mut events, patience)?;
        if events.is_empty() && patience == STALL {
            return Err(io::Error::other("no client had a reply for 10 s"));
        }
        for event in events {
            let (flags, id) = (event.flags, event.data.u64() as usize);
            if flags.contains(EventFlags::OUT) {
                self.flush(id)?;
            }
            // What is left of the flags is a message, an end or an error: a read tells which.
            if flags != EventFlags::OUT {
                self.receive(id, refill)?;
            }
        }
        Ok(())
    }

    fn receive(&mut self, id: usize, refill: Refill) -> io::Result<()> {
        let client = &mut self.clients[id];
        let read = match client.stream.read(&mut self.buffer) {
            Ok(0) => return Err(io::Error::other("the server closed a connection")),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        };
        self.tally.bytes += read as f64;
        let replies = client.replies.take(&self.buffer[..read], self.message)?;
        if replies == 0 {
            return Ok(());
        }
        self.tally.replies += replies;
        client.replied += replies;
        let now = Instant::now();
        if let Some((_, sent)) = client.timed.take_if(|(before, _)| client.replied > *before) {
            self.tally.latency.add(now - sent);
        }
        match refill {
            Refill::Always => self.send(id, replies, now),
            Refill::Never => Ok(()),
        }
    }

    fn send(&mut self, id: usize, count: usize, now: Instant) -> io::Result<()> {
        let client = &mut self.clients[id];
        client.timed.get_or_insert((client.asked, now));
        client.asked += count;
        let was_waiting = client.unsent > 0;
        client.unsent += self.message.bytes(count);
        if was_waiting {
            return Ok(());
        }
        self.write(id)?;
        if self.clients[id].unsent > 0 {
            self.watch(id, EventFlags::IN | EventFlags::OUT)?;
        }
        Ok(())
    }

    fn flush(&mut self, id: usize) -> io::Result<()> {
        self.write(id)?;
        if self.clients[id].unsent == 0 {
            self.watch(id, EventFlags::IN)?;
        }
        Ok(())
    }

    fn write(&mut self, id: usize) -> io::Result<()> {
        let client = &mut self.clients[id];
        match client.stream.write(self.message.unsent(client.unsent)) {
            Ok(written) => {
                client.unsent -= written;
                self.tally.bytes += written as f64;
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

/// Waits until an event comes or `patience` ends.
pub fn wait(epoll: &OwnedFd, events: &mut Vec<Event>, patience: Duration) -> io::Result<()> {
    let patience =
        patience.try_into().map_err(|_| io::Error::other("a wait too long for the kernel"))?;
    epoll::wait(epoll, spare_capacity(events), Some(&patience))?;
    Ok(())
}

fn connect(address: SocketAddr, websocket: bool) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect_timeout(&address, STALL)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(STALL))?;
    if websocket {
        stream.write_all(wire::REQUEST)?;
        let mut answer = Vec::new();
        let mut part = [0; 1024];
        while !wire::upgraded(&answer)? {
            match stream.read(&mut part)? {
                0 => return Err(io::Error::other("the server closed during the handshake")),
                read => answer.extend(&part[..read]),
            }
        }
    }
    stream.set_nonblocking(true)?;
    Ok(stream)
}
