//! One figure at a time: a fresh server, a stretch of work, and what it took.

use std::io;
use std::time::Duration;

use crate::connects::Visitors;
use crate::load::{Load, Tally};
use crate::machine::{self, Memory};
use crate::rows::{Cores, Work};
use crate::servers::{Kind, Server};
use wsecho_bench::stats::Histogram;
use wsecho_bench::wire::Message;

/// What holds for every figure of a run.
pub struct Bench {
    /// The path of the wsecho binary.
    pub wsecho: String,
    /// The path of another one.
    pub against: Option<String>,
    pub servers: Vec<Kind>,
    /// How long one figure is measured at least, after a fifth of it to warm up.
    pub cell: Duration,
    /// `None`: the kernel chooses.
    pub pinned: Option<Pinned>,
}

#[derive(Clone, Copy)]
pub struct Pinned {
    pub server: usize,
    pub generator: usize,
}

/// The outcome of one stretch of work with one server.
pub struct Cell {
    /// Messages, broken ones as fractions where bytes count.
    pub messages: f64,
    pub seconds: f64,
    /// Seconds of processor time that the server took.
    pub cpu: f64,
    pub latency: Histogram,
}

impl Cell {
    /// Messages a second.
    pub fn rate(&self) -> f64 {
        self.messages / self.seconds
    }
}

/// What an idle client costs the server, in KiB.
pub struct Footprint {
    pub clients: usize,
    pub each: Memory,
}

impl Bench {
    pub fn cell(&self, kind: Kind, work: Work, cores: Cores) -> io::Result<Cell> {
        let server = self.start(kind, cores, &[])?;
        let (tally, cpu) = match work {
            Work::Echo { clients, depth, size } => {
                self.echo(&server, kind, clients, depth, size)?
            }
            Work::Connect { at_once } => {
                let message = message(kind, 20, 1);
                let before = machine::cpu_seconds(server.pid)?;
                let tally = Visitors::return_for(
                    self.cell,
                    at_once,
                    server.address,
                    kind.speaks_websocket(),
                    &message,
                )?;
                (tally, machine::cpu_seconds(server.pid)? - before)
            }
        };
        let messages = match work {
            Work::Echo { size, .. } if work.counts_bytes() => tally.bytes / size as f64,
            _ => tally.replies as f64,
        };
        if messages == 0.0 {
            return Err(io::Error::other("no message came back in the time of the figure"));
        }
        Ok(Cell { messages, seconds: tally.elapsed.as_secs_f64(), cpu, latency: tally.latency })
    }

    fn echo(
        &self,
        server: &Server,
        kind: Kind,
        clients: usize,
        depth: usize,
        size: usize,
    ) -> io::Result<(Tally, f64)> {
        let message = message(kind, size, depth);
        let mut load = Load::connect(server.address, kind.speaks_websocket(), clients, &message)?;
        load.echo_once()?;
        load.ask(depth)?;
        // So many clients have to come round a few times.
        let time = self.cell.max(Duration::from_micros(200) * clients as u32);
        load.run(time / 5)?;
        let before = machine::cpu_seconds(server.pid)?;
        let tally = load.run(time)?;
        Ok((tally, machine::cpu_seconds(server.pid)? - before))
    }

    /// What `clients` cost that fell silent after one short message.
    pub fn idle(&self, kind: Kind, clients: usize) -> io::Result<Footprint> {
        let server = self.start(kind, Cores::Two, &[])?;
        let before = machine::memory(server.pid)?;
        let message = message(kind, 20, 1);
        let mut load = Load::connect(server.address, kind.speaks_websocket(), clients, &message)?;
        load.echo_once()?;
        std::thread::sleep(Duration::from_millis(200));
        Footprint::between(before, machine::memory(server.pid)?, clients)
    }

    /// What `clients` cost that fell silent after one message of 1 MiB, a ping interval later.
    pub fn idle_after_large(&self, kind: Kind, clients: usize) -> io::Result<Footprint> {
        let server =
            self.start(kind, Cores::Two, &["--ping-interval", "2s", "--ping-timeout", "60s"])?;
        let before = machine::memory(server.pid)?;
        let message = message(kind, 1 << 20, 1);
        let mut silent = Vec::with_capacity(clients);
        while silent.len() < clients {
            let group = (clients - silent.len()).min(16);
            let mut load = Load::connect(server.address, kind.speaks_websocket(), group, &message)?;
            load.echo_once()?;
            silent.extend(load.into_idle());
        }
        std::thread::sleep(Duration::from_millis(3_500));
        Footprint::between(before, machine::memory(server.pid)?, clients)
    }

    /// How long each of `clients` waited that connected at the same instant.
    pub fn burst(&self, kind: Kind, clients: usize) -> io::Result<Histogram> {
        let server = self.start(kind, Cores::Two, &[])?;
        let message = message(kind, 20, 1);
        let waits = Visitors::burst(clients, server.address, kind.speaks_websocket(), &message)?;
        let mut histogram = Histogram::default();
        for wait in waits {
            histogram.add(wait);
        }
        Ok(histogram)
    }

    /// `more` is for wsecho, the others take no arguments.
    fn start(&self, kind: Kind, cores: Cores, more: &[&str]) -> io::Result<Server> {
        let core = self.pinned.map(|pinned| match cores {
            Cores::Two => pinned.server,
            Cores::One => pinned.generator,
        });
        let wsecho = match &self.against {
            Some(path) if kind == Kind::Against => path,
            _ => &self.wsecho,
        };
        Server::start(kind, wsecho, core, more)
    }
}

impl Footprint {
    fn between(before: Memory, after: Memory, clients: usize) -> io::Result<Footprint> {
        let each = |before: f64, after: f64| (after - before) / clients as f64;
        Ok(Footprint {
            clients,
            each: Memory {
                resident: each(before.resident, after.resident),
                page_tables: each(before.page_tables, after.page_tables),
            },
        })
    }
}

fn message(kind: Kind, size: usize, depth: usize) -> Message {
    match kind {
        Kind::Raw => Message::raw(size, depth),
        Kind::Tungstenite | Kind::Fastwebsockets | Kind::Wsecho | Kind::Against => {
            Message::websocket(size, depth)
        }
        Kind::Prefix => Message::prefixed(size, depth),
    }
}
