//! One sample: a fresh server, some work, and what it took.

use std::io;
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::getpid;

use crate::load::{Load, Tally, Target};
use crate::machine::{self, CpuTime, Memory};
use crate::rows::{Cores, MIB, Row, Work};
use crate::servers::{Kind, Programs, Server};
use wsecho_bench::messages::Message;
use wsecho_bench::stats::quantile;

/// What all samples have in common.
pub struct Bench {
    pub programs: Programs,
    /// How long one sample takes at least, after a fifth of it to warm up.
    pub time: Duration,
    pub server_core: usize,
    pub generator_core: usize,
}

/// What was measured, with 0 for what the row does not measure.
pub struct Sample {
    /// Messages, also in parts; connections; or idle clients.
    pub messages: f64,
    pub seconds: f64,
    /// Seconds of processor time that the server used.
    pub cpu: f64,
    /// In seconds: the median, 99 %, 99.9 %, and the longest.
    pub latency: [f64; 4],
    /// The part of all cores' time that the hypervisor gave to others.
    pub steal: f64,
    /// The part that other processes used.
    pub others: f64,
    /// What each idle client costs.
    pub memory: Memory,
}

impl Bench {
    pub fn sample(&self, kind: Kind, row: &Row) -> io::Result<Sample> {
        // A library that keeps what its buffers grew to holds megabytes for each client.
        let work = match row.work {
            Work::Idle { size: MIB, .. } if !kind.releases_memory() => {
                Work::Idle { clients: 500, size: MIB }
            }
            work => work,
        };
        let core = match row.cores {
            Cores::Two => self.server_core,
            Cores::One => self.generator_core,
        };
        let server = Server::start(kind, &self.programs, core, arguments(work))?;
        let message = message(kind, work);
        let is_websocket = kind != Kind::Raw;
        let target = Target { address: server.address, is_websocket, message: &message };
        let cpu = || machine::cpu_seconds(server.pid);
        let both = || Ok::<_, io::Error>(cpu()? + machine::cpu_seconds(getpid())?);
        let (machine_before, both_before) = (CpuTime::now()?, both()?);
        let memory_before = machine::memory(server.pid)?;
        let mut cpu_before = cpu()?;
        let mut idle = Vec::new();
        let mut tally = match work {
            Work::Echo { clients, depth, .. } => {
                let mut load = Load::connect(target, clients)?;
                load.echo_once()?;
                load.queue(depth)?;
                // Each client gets some replies.
                let time = self.time.max(Duration::from_micros(200) * clients as u32);
                load.run(time / 5)?;
                cpu_before = cpu()?;
                load.run(time)?
            }
            Work::First { .. } => {
                first_messages(target, self.time / 5)?;
                cpu_before = cpu()?;
                first_messages(target, self.time)?
            }
            Work::Connect { clients } => Load::reconnect(target, clients, self.time)?,
            Work::Burst { clients } => Load::burst(target, clients)?,
            Work::Idle { clients, size } => {
                idle = idle_clients(target, clients, size)?;
                Tally { replies: clients, ..Tally::default() }
            }
        };
        let cpu = cpu()? - cpu_before;
        let memory = machine::memory(server.pid)?;
        let (steal, others) = machine_before.taken_until(&CpuTime::now()?, both()? - both_before);
        let each = |before: f64, after: f64| (after - before) / idle.len().max(1) as f64;
        let messages = match work {
            Work::Echo { size, .. } if size >= MIB => tally.bytes / size as f64,
            _ => tally.replies as f64,
        };
        if messages == 0.0 {
            return Err(io::Error::other("no message came back in time"));
        }
        let latencies = &mut tally.latencies;
        Ok(Sample {
            messages,
            seconds: tally.elapsed.as_secs_f64(),
            cpu,
            latency: [0.5, 0.99, 0.999, 1.0].map(|q| quantile(latencies, q).unwrap_or(0.0)),
            steal,
            others,
            memory: Memory {
                resident: each(memory_before.resident, memory.resident),
                page_tables: each(memory_before.page_tables, memory.page_tables),
            },
        })
    }
}

/// Flags of wsecho for this work.
fn arguments(work: Work) -> &'static [&'static str] {
    match work {
        // Memory is to be measured after a ping interval.
        Work::Idle { size: MIB, .. } => &["--ping-interval", "2s", "--ping-timeout", "60s"],
        _ => &[],
    }
}

/// Connects anew for each message.
fn first_messages(target: Target, time: Duration) -> io::Result<Tally> {
    let mut tally = Tally::default();
    let start = Instant::now();
    while tally.replies == 0 || start.elapsed() < time {
        let mut load = Load::connect(target, 1)?;
        let sent = Instant::now();
        load.echo_once()?;
        let elapsed = sent.elapsed();
        tally.replies += 1;
        tally.elapsed += elapsed;
        tally.latencies.push(elapsed.as_secs_f64());
        drop(load);
        // The server frees the memory of this client meanwhile.
        thread::sleep(Duration::from_millis(5));
    }
    Ok(tally)
}

/// Clients that stay silent after one message, connected some at a time so that not all of their
/// messages are held at once.
fn idle_clients(target: Target, clients: usize, size: usize) -> io::Result<Vec<TcpStream>> {
    let mut idle = Vec::with_capacity(clients);
    while idle.len() < clients {
        let mut load = Load::connect(target, (clients - idle.len()).min(16))?;
        load.echo_once()?;
        idle.extend(load.into_streams());
    }
    thread::sleep(Duration::from_millis(if size == MIB { 3_500 } else { 200 }));
    Ok(idle)
}

fn message(kind: Kind, work: Work) -> Message {
    let (size, depth) = match work {
        Work::Echo { size, depth, .. } => (size, depth),
        Work::First { size } | Work::Idle { size, .. } => (size, 1),
        Work::Connect { .. } | Work::Burst { .. } => (20, 1),
    };
    match kind {
        Kind::Raw => Message::raw(size, depth),
        Kind::Prefix => Message::prefixed(size, depth),
        _ => Message::websocket(size, depth),
    }
}
