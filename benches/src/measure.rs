//! One sample, or the several of a growth: a fresh server, some work, and what it took.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::getpid;
use rustls::ClientConfig;

use crate::load::{Load, Mode, Tally, Target};
use crate::machine::{self, CpuTime, Memory};
use crate::rows::{Cores, MIB, Row, Wire, Work};
use crate::servers::{Kind, Programs, Server};
use crate::stream::Stream;
use wsecho_bench::messages::{self, Message};
use wsecho_bench::stats::quantile;

/// What all samples have in common.
pub struct Bench {
    pub programs: Programs,
    pub tls: Arc<ClientConfig>,
    /// How long one sample takes at least, after a fifth of it to warm up.
    pub time: Duration,
    pub server_core: usize,
    pub generator_core: usize,
}

/// What was measured, with 0 for what the row does not measure.
pub struct Sample {
    pub row: String,
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
    /// The bytes of a reply, with its header.
    pub reply: f64,
}

/// The start of a sample.
struct Meter<'s> {
    server: &'s Server,
    machine: CpuTime,
    /// Seconds of processor time of the server, and of the generator too.
    server_seconds: f64,
    all_seconds: f64,
}

impl<'s> Meter<'s> {
    fn start(server: &'s Server) -> io::Result<Self> {
        let server_seconds = server.cpu_seconds()?;
        let all_seconds = server_seconds + machine::cpu_seconds(getpid())?;
        Ok(Meter { server, machine: CpuTime::now()?, server_seconds, all_seconds })
    }

    fn stop(self, row: &str, mut tally: Tally) -> io::Result<Sample> {
        let cpu = self.server.cpu_seconds()?;
        let seconds = cpu + machine::cpu_seconds(getpid())? - self.all_seconds;
        let (steal, others) = self.machine.taken_until(&CpuTime::now()?, seconds);
        if tally.replies == 0 && tally.received == 0.0 {
            return Err(io::Error::other("no message came back in time"));
        }
        let messages = tally.replies as f64;
        let latencies = &mut tally.latencies;
        Ok(Sample {
            row: row.to_owned(),
            messages,
            seconds: tally.elapsed.as_secs_f64(),
            cpu: cpu - self.server_seconds,
            latency: [0.5, 0.99, 0.999, 1.0].map(|q| quantile(latencies, q).unwrap_or(0.0)),
            steal,
            others,
            memory: Memory::default(),
            reply: tally.received / messages.max(1.0),
        })
    }
}

impl Bench {
    pub fn samples(&self, kind: Kind, row: &Row) -> io::Result<Vec<Sample>> {
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
        let clients = match work {
            Work::Growth { clients } => clients,
            _ => 10_000,
        };
        let arguments = arguments(kind, work, clients);
        let mut server =
            Server::start(kind, &self.programs, row.wire, Some(core), clients, &arguments)?;
        let messages = messages(kind, work, row.wire);
        let request = messages::request(match row.wire {
            Wire::Plain | Wire::Tls => "",
            Wire::NoContextTakeover => messages::COMPRESSION_OF_EACH,
            Wire::ContextTakeover => messages::COMPRESSION,
        });
        let target = Target {
            address: server.address,
            tls: (row.wire == Wire::Tls).then_some(&self.tls),
            request: (kind != Kind::Raw).then_some(&request),
            messages: &messages,
        };
        let memory_before = server.memory()?;
        let mut meter = Meter::start(&server)?;
        let mut idle = Vec::new();
        let tally = match work {
            Work::Echo { clients, depth, .. } => {
                let mut load = Load::connect(target, clients, 1)?;
                load.echo_once()?;
                load.queue(clients, depth)?;
                // Each client gets some replies.
                let time = self.time.max(Duration::from_micros(200) * clients as u32);
                load.run(time / 5)?;
                meter.server_seconds = server.cpu_seconds()?;
                load.run(time)?
            }
            Work::First { .. } => {
                first_messages(target, self.time / 5)?;
                meter.server_seconds = server.cpu_seconds()?;
                first_messages(target, self.time)?
            }
            Work::Connect { clients } => {
                Load::reconnect(target, clients, Mode::Reconnect, self.time)?
            }
            Work::Handshake { clients } => {
                Load::reconnect(target, clients, Mode::Handshake, self.time)?
            }
            Work::Burst { clients } => Load::burst(target, clients)?,
            Work::Idle { clients, size } => {
                idle = idle_clients(target, clients, size)?;
                Tally { replies: clients, ..Tally::default() }
            }
            Work::Growth { clients } => return self.grow(&mut server, target, row, clients),
        };
        let bytes = (tally.sent + tally.received) / 2.0;
        let mut sample = meter.stop(&row.name, tally)?;
        if let Work::Echo { size: size @ MIB.., .. } = work {
            // Bytes grow evenly, while few large messages are complete at the end of the time.
            sample.messages = bytes / size as f64;
        }
        sample.memory = server.memory()?.each(&memory_before, idle.len().max(1));
        Ok(vec![sample])
    }

    fn grow(
        &self,
        server: &mut Server,
        target: Target,
        row: &Row,
        clients: usize,
    ) -> io::Result<Vec<Sample>> {
        /// How many clients connect at the same time.
        const AT_ONCE: usize = 64;
        /// How many talk while the others are idle.
        const TALKING: usize = 10;
        let name = |part: &str| row.name.replace("growth", &format!("grow-{part}"));
        let memory_before = server.memory()?;
        let memory = |server: &Server| -> io::Result<Memory> {
            Ok(server.memory()?.each(&memory_before, clients))
        };

        let (meter, start) = (Meter::start(server)?, Instant::now());
        let mut load = Load::connect(target, clients, AT_ONCE)?;
        let tally = Tally { replies: clients, elapsed: start.elapsed(), ..Tally::default() };
        let connect = meter.stop(&name("connect"), tally)?;

        load.echo_once()?;
        thread::sleep(Duration::from_millis(200));
        let idle_memory = memory(server)?;
        load.queue(TALKING.min(clients), 1)?;
        load.run(self.time / 5)?;
        let meter = Meter::start(server)?;
        let mut few = meter.stop(&name("few"), load.run(self.time)?)?;
        few.memory = idle_memory;
        load.wait_for_replies()?;

        let time = self.time.max(Duration::from_micros(100) * clients as u32);
        load.queue(clients, 1)?;
        load.run(time / 5)?;
        let meter = Meter::start(server)?;
        let mut all = meter.stop(&name("all"), load.run(time)?)?;
        all.memory = memory(server)?;
        load.wait_for_replies()?;

        let (meter, start) = (Meter::start(server)?, Instant::now());
        server.ask_to_stop()?;
        load.wait_for_close()?;
        let closed = Tally { replies: clients, elapsed: start.elapsed(), ..Tally::default() };
        let mut stop = meter.stop(&name("stop"), closed)?;
        server.wait()?;
        stop.seconds = start.elapsed().as_secs_f64();
        Ok(vec![connect, few, all, stop])
    }
}

/// Flags of wsecho for this work.
fn arguments(kind: Kind, work: Work, clients: usize) -> Vec<String> {
    let more: &[_] = match work {
        // On a busy machine it takes long until all are connected.
        Work::Growth { .. } => &["--ping-interval=10m"],
        // Memory is to be measured after a ping interval.
        Work::Idle { size: MIB, .. } => &["--ping-interval=2s", "--ping-timeout=60s"],
        _ => &[],
    };
    // Versions that count connections without a WebSocket count the one that waits for the listener.
    let most = format!("--max-connections={}", clients.div_ceil(kind.processes()) + 100);
    [most].into_iter().chain(more.iter().map(|&flag| flag.to_owned())).collect()
}

/// Connects anew for each message.
fn first_messages(target: Target, time: Duration) -> io::Result<Tally> {
    let mut tally = Tally::default();
    let start = Instant::now();
    while tally.replies == 0 || start.elapsed() < time {
        let mut load = Load::connect(target, 1, 1)?;
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
fn idle_clients(target: Target, clients: usize, size: usize) -> io::Result<Vec<Stream>> {
    let mut idle = Vec::with_capacity(clients);
    while idle.len() < clients {
        let mut load = Load::connect(target, (clients - idle.len()).min(16), 1)?;
        load.echo_once()?;
        idle.extend(load.into_streams());
    }
    thread::sleep(Duration::from_millis(if size == MIB { 3_500 } else { 200 }));
    Ok(idle)
}

fn messages(kind: Kind, work: Work, wire: Wire) -> Vec<Message> {
    /// So many follow one another that the window has forgotten one when it comes again.
    const DIFFERENT: u64 = 64;
    let (size, depth) = match work {
        Work::Echo { size, depth, .. } => (size, depth),
        Work::First { size } | Work::Idle { size, .. } => (size, 1),
        _ => (20, 1),
    };
    let different = |message: fn(u64, usize) -> Message| {
        (0..DIFFERENT).map(|seed| message(seed, size)).collect()
    };
    match (kind, wire) {
        (_, Wire::NoContextTakeover) => different(Message::compressed),
        (_, Wire::ContextTakeover) => different(Message::compressed_in_context),
        (Kind::Raw, _) => vec![Message::raw(size, depth)],
        (Kind::Prefix, _) => vec![Message::prefixed(size, depth)],
        _ => vec![Message::websocket(size, depth)],
    }
}
