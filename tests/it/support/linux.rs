//! What Linux says about a process, and clients that need its loopback network.

use std::fs;
use std::io::{self, Write as _};
use std::mem;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::thread;
use std::time::{Duration, Instant};

use rustix::net::sockopt::set_socket_recv_buffer_size;
use rustix::net::{
    AddressFamily, SocketAddrV4, SocketFlags, SocketType, bind, connect, socket_with,
};
use rustix::process::Signal;
use wsecho::server::limits::Limits;

use super::{SOON, Server, UPGRADE, ask, demand, eventually, upgraded, with_timeouts};

/// The most memory of a client that docs/robustness.md promises, in KiB. The server computes its limits with
/// it.
pub fn per_client() -> usize {
    Limits::raise().memory_per_client as usize / 1024
}

/// What the README promises for the program itself, in KiB.
pub const PROGRAM: usize = 32 * 1024;

/// What a server uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    pub threads: usize,
    pub descriptors: usize,
    /// In KiB.
    pub resident: usize,
}

impl Server {
    /// What it uses without a client, after the first one, which sets up what is set up once.
    #[track_caller]
    pub fn idle_usage(&self) -> Usage {
        self.idle_usage_after(|| self.answers_at_once())
    }

    /// What it uses without a client, after `visit`, which is one.
    #[track_caller]
    pub fn idle_usage_after(&self, visit: impl FnOnce()) -> Usage {
        visit();
        eventually(SOON, || self.client_threads() == 0);
        self.wait_until_asleep();
        self.usage()
    }

    /// Fails unless a new client is answered at once, threads and descriptors come back to exactly
    /// what they were, and memory to within 32 MiB of it.
    #[track_caller]
    pub fn has_recovered(&self, before: Usage) {
        self.has_recovered_after(before, PROGRAM, || self.answers_at_once());
    }

    /// See [`has_recovered`](Self::has_recovered): `visit` is the new client, and memory comes back to
    /// within `most` KiB.
    #[track_caller]
    pub fn has_recovered_after(&self, before: Usage, most: usize, visit: impl FnOnce()) {
        visit();
        let started = Instant::now();
        loop {
            let now = self.usage();
            let exact = (now.threads, now.descriptors) == (before.threads, before.descriptors);
            if exact && now.resident <= before.resident + most {
                return;
            }
            assert!(started.elapsed() < SOON, "it was {before:?} and stays {now:?}");
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// What it uses now.
    pub fn usage(&self) -> Usage {
        let status = self.proc("status");
        Usage {
            threads: number_after("Threads:", &status),
            descriptors: fs::read_dir(self.proc_path("fd")).unwrap().count(),
            resident: number_after("VmRSS:", &status),
        }
    }

    /// The most KiB that were ever resident. The kernel sees the peaks that samples would miss.
    pub fn peak(&self) -> usize {
        number_after("VmHWM:", &self.proc("status"))
    }

    /// The processor time it has used, in the kernel's ticks, of which a second has a hundred.
    pub fn ticks(&self) -> usize {
        let stat = self.proc("stat");
        // The program's name, in parentheses, may have spaces.
        let (_, after_name) = stat.rsplit_once(')').unwrap();
        let times = after_name.split_whitespace().skip(11).take(2);
        times.map(|ticks| ticks.parse::<usize>().unwrap()).sum()
    }

    /// How many threads serve connections.
    pub fn client_threads(&self) -> usize {
        self.threads("comm").iter().filter(|name| name.trim() == "client").count()
    }

    /// How often the threads that it has now have gone to sleep.
    pub fn sleeps(&self) -> usize {
        let threads = self.threads("status");
        threads.iter().map(|thread| number_after("voluntary_ctxt_switches:", thread)).sum()
    }

    /// How many of its connections have bytes in the kernel that the peer has not acknowledged.
    pub fn stuck(&self) -> usize {
        let port = format!(":{:04X}", self.addr.port());
        let sockets = fs::read_to_string("/proc/net/tcp").unwrap();
        let rows = sockets.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        rows.filter(|row| row[1].ends_with(&port) && !row[4].starts_with("00000000")).count()
    }

    /// Waits until all its threads sleep, and none of them wakes for a moment: it has processed
    /// whatever was sent to it.
    #[track_caller]
    pub fn wait_until_asleep(&self) {
        let mut sleeps = 0;
        eventually(SOON, || {
            let before = mem::replace(&mut sleeps, self.sleeps());
            thread::sleep(Duration::from_millis(50));
            let threads = self.threads("status");
            before == sleeps && threads.iter().all(|thread| thread.contains("S (sleeping)"))
        });
    }

    /// Suspends it by SIGSTOP.
    #[track_caller]
    pub fn suspend(&self) {
        self.signal(Signal::STOP);
        let is_stopped = |thread: &String| thread.contains("T (stopped)");
        eventually(SOON, || self.threads("status").iter().all(is_stopped));
    }

    /// What the kernel's `file` says about each of its threads that is still alive.
    fn threads(&self, file: &str) -> Vec<String> {
        let threads = fs::read_dir(self.proc_path("task")).unwrap();
        threads
            .filter_map(|thread| fs::read_to_string(thread.ok()?.path().join(file)).ok())
            .collect()
    }

    fn proc(&self, file: &str) -> String {
        fs::read_to_string(self.proc_path(file)).unwrap()
    }

    fn proc_path(&self, file: &str) -> String {
        format!("/proc/{}/{file}", self.program.pid())
    }
}

fn number_after(name: &str, status: &str) -> usize {
    let line = status.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Lets this process, and the servers that it starts, have `descriptors` open files.
#[track_caller]
pub fn need_descriptors(descriptors: u64) {
    let limit = Limits::raise().descriptors;
    assert!(limit >= descriptors, "needs {descriptors} descriptors: ulimit -Hn says {limit}");
}

/// A connection from one of many local addresses, since one alone has too few ports for thousands.
pub fn connect_from(source: u8, server: SocketAddr) -> TcpStream {
    let socket = new_socket();
    bind(&socket, &SocketAddrV4::new(Ipv4Addr::new(127, 0, 0, source), 0)).unwrap();
    connect_socket(socket, server).unwrap()
}

/// A connection for which the kernel takes no more than about `bytes` before the client reads them, so
/// that the server soon notices a client that does not.
pub fn connect_taking(bytes: usize, server: &Server) -> TcpStream {
    let socket = new_socket();
    // A window that was once offered can't be taken back, so it has to be small from the start.
    set_socket_recv_buffer_size(&socket, bytes).unwrap();
    connect_socket(socket, server.addr).unwrap()
}

/// A WebSocket on such a connection.
#[track_caller]
pub fn open_taking(bytes: usize, server: &Server) -> TcpStream {
    ask(connect_taking(bytes, server)).expect("a WebSocket opens")
}

fn new_socket() -> OwnedFd {
    // A server that another test starts would keep the connection open.
    socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap()
}

fn connect_socket(socket: OwnedFd, server: SocketAddr) -> io::Result<TcpStream> {
    connect(&socket, &server)?;
    Ok(with_timeouts(socket.into()))
}

/// Lets eight threads at once `act` for all clients.
pub fn for_all_at_once(streams: &mut [TcpStream], act: impl Fn(&mut TcpStream) + Sync) {
    thread::scope(|scope| {
        for some in streams.chunks_mut(streams.len().div_ceil(8)) {
            let act = &act;
            scope.spawn(move || some.iter_mut().for_each(act));
        }
    });
}

/// This many clients that ask at once, every fourth one for a behavior that does not show in short
/// replies. Returns the WebSockets, and the error responses.
pub fn crowd(server: &Server, clients: usize) -> (Vec<TcpStream>, Vec<String>) {
    let asked: Vec<_> = (0..clients)
        .map(|client| {
            let mut stream = connect_from(1 + (client / 4_000) as u8, server.addr);
            let request = match client % 4 {
                0 => demand("fragment=1000&ping=15m&after=1000&close=4000"),
                _ => UPGRADE.into(),
            };
            let _ = stream.write_all(request.as_bytes());
            stream
        })
        .collect();
    let (mut open, mut refused) = (Vec::new(), Vec::new());
    for stream in asked {
        match upgraded(stream) {
            Ok(stream) => open.push(stream),
            Err(response) => refused.push(response),
        }
    }
    (open, refused)
}
