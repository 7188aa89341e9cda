//! Connections as the load: clients that come, speak once and go, and clients that come all at once.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

use crate::load::{STALL, Tally, wait};
use wsecho_bench::stats::Histogram;
use wsecho_bench::wire::{self, Message, Replies};

/// A fixed number of clients, each at some step of its connection.
pub struct Visitors<'a> {
    address: SocketAddr,
    websocket: bool,
    message: &'a Message,
    epoll: OwnedFd,
    visits: Vec<Visit>,
    /// How long each whole visit took.
    done: Vec<Duration>,
    after_echo: AfterEcho,
}

struct Visit {
    stream: TcpStream,
    began: Instant,
    step: Step,
}

enum Step {
    Connecting,
    /// Holds what has come of the server's answer.
    Upgrading(Vec<u8>),
    Echoing(Replies),
    /// Holds what has come of the server's Close frame.
    Closing(Vec<u8>),
    Staying,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum AfterEcho {
    /// Close, wait for the server's end, and begin again. Without WebSocket there is no closing
    /// handshake to wait for.
    Return,
    Stay,
}

impl<'a> Visitors<'a> {
    /// Lets `at_once` clients come back again and again for so long.
    pub fn return_for(
        time: Duration,
        at_once: usize,
        address: SocketAddr,
        websocket: bool,
        message: &'a Message,
    ) -> io::Result<Tally> {
        let mut visitors = Visitors::new(address, websocket, message, AfterEcho::Return)?;
        let start = Instant::now();
        let deadline = start + time;
        visitors.begin(at_once)?;
        while Instant::now() < deadline {
            visitors.turn()?;
        }
        let mut latency = Histogram::default();
        for &visit in &visitors.done {
            latency.add(visit);
        }
        Ok(Tally { replies: visitors.done.len(), bytes: 0.0, elapsed: start.elapsed(), latency })
    }

    /// Lets `clients` connect at the same instant; how long each waited for its echo.
    pub fn burst(
        clients: usize,
        address: SocketAddr,
        websocket: bool,
        message: &'a Message,
    ) -> io::Result<Vec<Duration>> {
        let mut visitors = Visitors::new(address, websocket, message, AfterEcho::Stay)?;
        visitors.begin(clients)?;
        let deadline = Instant::now() + Duration::from_secs(60);
        while visitors.done.len() < clients {
            visitors.turn()?;
            if Instant::now() > deadline {
                return Err(io::Error::other("not every client of the burst was answered"));
            }
        }
        Ok(visitors.done)
    }

    fn new(
        address: SocketAddr,
        websocket: bool,
        message: &'a Message,
        after_echo: AfterEcho,
    ) -> io::Result<Visitors<'a>> {
        Ok(Visitors {
            address,
            websocket,
            message,
            epoll: epoll::create(CreateFlags::CLOEXEC)?,
            visits: Vec::new(),
            done: Vec::new(),
            after_echo,
        })
    }

    fn begin(&mut self, clients: usize) -> io::Result<()> {
        for id in 0..clients {
            let visit = self.visit(id)?;
            self.visits.push(visit);
        }
        Ok(())
    }

    fn visit(&self, id: usize) -> io::Result<Visit> {
        let began = Instant::now();
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket =
            rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
        sockopt::set_tcp_nodelay(&socket, true)?;
        match rustix::net::connect(&socket, &self.address) {
            Ok(()) | Err(Errno::INPROGRESS) => {}
            Err(error) => return Err(error.into()),
        }
        epoll::add(&self.epoll, &socket, EventData::new_u64(id as u64), EventFlags::OUT)?;
        Ok(Visit { stream: socket.into(), began, step: Step::Connecting })
    }

    fn turn(&mut self) -> io::Result<()> {
        let mut events: Vec<Event> = Vec::with_capacity(256);
        wait(&self.epoll, &mut events, STALL)?;
        if events.is_empty() {
            return Err(io::Error::other("no client was answered for 10 s"));
        }
        for event in events {
            self.advance(event.data.u64() as usize)?;
        }
        Ok(())
    }

    fn advance(&mut self, id: usize) -> io::Result<()> {
        let visit = &mut self.visits[id];
        let mut part = [0; 4096];
        let read =
            if let Step::Connecting = visit.step { 0 } else { visit.stream.read(&mut part)? };
        let part = &part[..read];
        match &mut visit.step {
            Step::Connecting => {
                sockopt::socket_error(&visit.stream)??;
                let data = EventData::new_u64(id as u64);
                epoll::modify(&self.epoll, &visit.stream, data, EventFlags::IN)?;
                if self.websocket {
                    visit.say(wire::REQUEST)?;
                    visit.step = Step::Upgrading(Vec::new());
                } else {
                    visit.say(self.message.unsent(self.message.bytes(1)))?;
                    visit.step = Step::Echoing(Replies::default());
                }
            }
            Step::Closing(closed) if part.is_empty() => {
                if closed != wire::CLOSED {
                    return Err(io::Error::other("an end without the Close frame"));
                }
                self.finish(id)?;
            }
            Step::Closing(closed) => closed.extend(part),
            _ if part.is_empty() => {
                return Err(io::Error::other("the server closed a connection"));
            }
            Step::Upgrading(answer) => {
                answer.extend(part);
                if wire::upgraded(answer)? {
                    visit.say(self.message.unsent(self.message.bytes(1)))?;
                    visit.step = Step::Echoing(Replies::default());
                }
            }
            Step::Echoing(replies) => {
                if replies.take(part, self.message)? == 1 {
                    if self.after_echo == AfterEcho::Return && self.websocket {
                        visit.say(wire::CLOSE)?;
                        visit.step = Step::Closing(Vec::new());
                    } else {
                        self.finish(id)?;
                    }
                }
            }
            Step::Staying => return Err(io::Error::other("a reply to nothing")),
        }
        Ok(())
    }

    fn finish(&mut self, id: usize) -> io::Result<()> {
        self.done.push(self.visits[id].began.elapsed());
        match self.after_echo {
            AfterEcho::Return => self.visits[id] = self.visit(id)?,
            AfterEcho::Stay => self.visits[id].step = Step::Staying,
        }
        Ok(())
    }
}

impl Visit {
    /// Writes what is so short that a new connection always takes it whole.
    fn say(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }
}
