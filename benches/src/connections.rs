//! Connections as the load: clients that connect, echo once and close, and clients that all connect at
//! the same instant.

use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

use crate::load::{TIMEOUT, Tally, Target, wait};
use wsecho_bench::messages::{self, Replies};

/// A fixed number of clients, each at some step of its connection.
struct Connections<'a> {
    target: Target<'a>,
    epoll: OwnedFd,
    clients: Vec<Client>,
    /// How long each client took that is done, in seconds.
    done: Vec<f64>,
    after_echo: AfterEcho,
}

struct Client {
    stream: TcpStream,
    began: Instant,
    step: Step,
}

enum Step {
    Connecting,
    /// With what has come of the response.
    Upgrading(Vec<u8>),
    Echoing(Replies),
    /// With what has come of the server's close frame.
    Closing(Vec<u8>),
    Idle,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum AfterEcho {
    /// Close, wait for the end of the server's stream, and connect again. Raw TCP has no closing
    /// handshake to wait for.
    Reconnect,
    Idle,
}

/// Lets `clients` connect again and again for this time.
pub fn reconnect(target: Target, clients: usize, time: Duration) -> io::Result<Tally> {
    let mut connections = Connections::begin(target, clients, AfterEcho::Reconnect)?;
    let start = Instant::now();
    while start.elapsed() < time {
        connections.poll()?;
    }
    let latencies = connections.done;
    Ok(Tally { replies: latencies.len(), bytes: 0.0, elapsed: start.elapsed(), latencies })
}

/// Lets `clients` connect at the same instant, until each has its reply.
pub fn burst(target: Target, clients: usize) -> io::Result<Tally> {
    let start = Instant::now();
    let mut connections = Connections::begin(target, clients, AfterEcho::Idle)?;
    while connections.done.len() < clients {
        connections.poll()?;
    }
    let latencies = connections.done;
    Ok(Tally { replies: clients, bytes: 0.0, elapsed: start.elapsed(), latencies })
}

impl<'a> Connections<'a> {
    fn begin(target: Target<'a>, clients: usize, after_echo: AfterEcho) -> io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let mut connections =
            Connections { target, epoll, clients: Vec::new(), done: Vec::new(), after_echo };
        for id in 0..clients {
            let client = connections.connect(id)?;
            connections.clients.push(client);
        }
        Ok(connections)
    }

    fn connect(&self, id: usize) -> io::Result<Client> {
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
        Ok(Client { stream: socket.into(), began, step: Step::Connecting })
    }

    fn poll(&mut self) -> io::Result<()> {
        let mut events = Vec::with_capacity(256);
        wait(&self.epoll, &mut events, TIMEOUT)?;
        if events.is_empty() {
            return Err(io::Error::other("no client was answered in time"));
        }
        events.iter().try_for_each(|event| self.advance(event.data.u64() as usize))
    }

    // Everything that is sent here is so short that a new connection takes it whole.
    fn advance(&mut self, id: usize) -> io::Result<()> {
        let message = self.target.message;
        let client = &mut self.clients[id];
        let mut part = [0; 4096];
        let bytes = match client.step {
            Step::Connecting => 0,
            _ => client.stream.read(&mut part)?,
        };
        let part = &part[..bytes];
        match &mut client.step {
            Step::Connecting => {
                sockopt::socket_error(&client.stream)??;
                let data = EventData::new_u64(id as u64);
                epoll::modify(&self.epoll, &client.stream, data, EventFlags::IN)?;
                if self.target.is_websocket {
                    client.stream.write_all(messages::REQUEST)?;
                    client.step = Step::Upgrading(Vec::new());
                } else {
                    client.stream.write_all(message.unsent(message.bytes(1)))?;
                    client.step = Step::Echoing(Replies::default());
                }
            }
            Step::Closing(close) if part.is_empty() => {
                if close != messages::CLOSE_REPLY {
                    return Err(io::Error::other("the stream ended without the close frame"));
                }
                self.finish(id)?;
            }
            Step::Closing(close) => close.extend(part),
            _ if part.is_empty() => {
                return Err(io::Error::other("the server closed a connection"));
            }
            Step::Upgrading(response) => {
                response.extend(part);
                if messages::is_upgraded(response)? {
                    client.stream.write_all(message.unsent(message.bytes(1)))?;
                    client.step = Step::Echoing(Replies::default());
                }
            }
            Step::Echoing(replies) => {
                if replies.receive(part, message)? == 1 {
                    if self.after_echo == AfterEcho::Reconnect && self.target.is_websocket {
                        client.stream.write_all(messages::CLOSE)?;
                        client.step = Step::Closing(Vec::new());
                    } else {
                        self.finish(id)?;
                    }
                }
            }
            Step::Idle => return Err(io::Error::other("a reply without a message")),
        }
        Ok(())
    }

    fn finish(&mut self, id: usize) -> io::Result<()> {
        self.done.push(self.clients[id].began.elapsed().as_secs_f64());
        match self.after_echo {
            AfterEcho::Reconnect => self.clients[id] = self.connect(id)?,
            AfterEcho::Idle => self.clients[id].step = Step::Idle,
        }
        Ok(())
    }
}
