//! What every attack has to leave as it was, and the ways in which a client can misbehave.

#![allow(dead_code, reason = "every test file uses a part of it")]

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::thread;
use std::time::{Duration, Instant};

use rustix::net::sockopt::{set_socket_linger, set_socket_recv_buffer_size};
use rustix::net::{AddressFamily, SocketAddrV4, SocketType, bind, connect, socket};
use wsecho::server::limits::Limits;

use crate::common::{SOON, Server, UPGRADE, eventually, frame, read_frame, read_head};

/// What the README promises for each client, in KiB, whatever it sends. In the tests' own build,
/// without optimization, the stack takes more.
pub fn per_client() -> usize {
    if std::env::var_os("WSECHO").is_some() { 128 } else { 136 }
}

/// What the README promises for the program itself, in KiB.
pub const PROGRAM: usize = 32 * 1024;

/// The figures of a server that has no client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AtRest {
    pub threads: usize,
    pub descriptors: usize,
    /// In KiB.
    pub resident: usize,
}

impl Server {
    /// Its figures when a first client has come and gone, and all that is set up once is there.
    pub fn at_rest(&self) -> AtRest {
        self.answers_at_once();
        eventually(SOON, || self.client_threads() == 0);
        self.wait_until_asleep();
        self.figures()
    }

    /// Fails unless a fresh client is answered at once, threads and descriptors come back to exactly
    /// what they were, and memory to within 32 MiB of it.
    pub fn has_recovered(&self, before: AtRest) {
        self.answers_at_once();
        let start = Instant::now();
        loop {
            let now = self.figures();
            let exact = (now.threads, now.descriptors) == (before.threads, before.descriptors);
            if exact && now.resident <= before.resident + PROGRAM {
                return;
            }
            assert!(start.elapsed() < SOON, "it was {before:?} and stays {now:?}");
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Fails unless a fresh client is answered at once. Until then it may be told to try again, by a
    /// server that has yet to see a seat being left.
    pub fn answers_at_once(&self) {
        let limit = at_once();
        let start = Instant::now();
        let mut stream = loop {
            match ask(self.connect()) {
                Ok(stream) => break stream,
                Err(answer) => assert!(start.elapsed() < limit, "{answer}"),
            }
        };
        stream.write_all(&frame(0x82, b"fresh")).unwrap();
        assert_eq!(read_frame(&mut stream), (0x82, b"fresh".to_vec()));
        let took = start.elapsed();
        assert!(took < limit, "a fresh client was answered after {took:?}");
    }

    /// Its figures now.
    pub fn figures(&self) -> AtRest {
        let (threads, descriptors, resident) = self.usage();
        AtRest { threads, descriptors, resident }
    }

    /// The threads that serve clients.
    pub fn client_threads(&self) -> usize {
        let names = self.tasks("comm");
        names.iter().filter(|name| name.trim() == "client").count()
    }

    /// What the kernel's `file` says about each of its threads, as far as they are still alive.
    fn tasks(&self, file: &str) -> Vec<String> {
        fs::read_dir(format!("/proc/{}/task", self.pid()))
            .unwrap()
            .filter_map(|task| fs::read_to_string(task.ok()?.path().join(file)).ok())
            .collect()
    }

    /// The most KiB that were ever resident; the kernel sees the peaks that samples would miss.
    pub fn peak(&self) -> usize {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        number_behind("VmHWM:", &status)
    }

    /// How often the threads that it has now have gone to sleep.
    pub fn sleeps(&self) -> usize {
        let tasks = self.tasks("status");
        tasks.iter().map(|task| number_behind("voluntary_ctxt_switches:", task)).sum()
    }

    /// Waits until all its threads sleep, and none of them wakes for a moment: it has done whatever
    /// the bytes that were sent give it to do.
    pub fn wait_until_asleep(&self) {
        let mut sleeps = 0;
        eventually(SOON, || {
            let before = std::mem::replace(&mut sleeps, self.sleeps());
            thread::sleep(Duration::from_millis(50));
            before == sleeps
                && self.tasks("status").iter().all(|task| task.contains("S (sleeping)"))
        });
    }

    /// The processor time it has used, in the kernel's ticks, of which a second has a hundred.
    pub fn ticks(&self) -> usize {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap();
        // The program's name, in parentheses, may have spaces.
        let (_, behind_name) = stat.rsplit_once(')').unwrap();
        let times = behind_name.split_whitespace().skip(11).take(2);
        times.map(|ticks| ticks.parse::<usize>().unwrap()).sum()
    }
}

/// A second, or five where machines are shared.
pub fn at_once() -> Duration {
    match std::env::var("CI").as_deref() {
        Ok("true") => Duration::from_secs(5),
        _ => Duration::from_secs(1),
    }
}

fn number_behind(name: &str, status: &str) -> usize {
    let line = status.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Lets this process, and the servers that it starts, have `descriptors` open files.
pub fn need_descriptors(descriptors: u64) {
    let limit = Limits::raise().descriptors;
    assert!(limit >= descriptors, "needs {descriptors} descriptors: ulimit -Hn says {limit}");
}

/// A connection from one of many local addresses, since one alone has too few ports for thousands.
pub fn connect_from(source: u8, server: SocketAddr) -> io::Result<TcpStream> {
    let socket = new_socket()?;
    bind(&socket, &SocketAddrV4::new(Ipv4Addr::new(127, 0, 0, source), 0))?;
    connect_socket(socket, server)
}

/// A WebSocket for which the kernel takes no more than about `bytes` before the client reads them, so
/// that the server soon notices a client that does not.
pub fn open_taking(bytes: usize, server: &Server) -> TcpStream {
    let socket = new_socket().unwrap();
    // A window that was once offered can't be taken back, so it has to be small from the start.
    set_socket_recv_buffer_size(&socket, bytes).unwrap();
    ask(connect_socket(socket, server.addr).unwrap()).expect("it is let in")
}

fn new_socket() -> io::Result<OwnedFd> {
    Ok(socket(AddressFamily::INET, SocketType::STREAM, None)?)
}

fn connect_socket(socket: OwnedFd, server: SocketAddr) -> io::Result<TcpStream> {
    connect(&socket, &server)?;
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(SOON))?;
    stream.set_write_timeout(Some(SOON))?;
    Ok(stream)
}

/// What a client gets that asks for a WebSocket: the connection, or the whole refusal.
pub fn ask(mut stream: TcpStream) -> Result<TcpStream, String> {
    // A client that was turned away already may not be able to send its request any more.
    let _ = stream.write_all(UPGRADE.as_bytes());
    let head = read_head(&mut stream);
    if head.starts_with("HTTP/1.1 101 ") {
        return Ok(stream);
    }
    let mut body = String::new();
    let _ = stream.read_to_string(&mut body);
    Err(head + &body)
}

/// As many clients as asked for, asking all at once: those with a seat, and the refusals.
pub fn crowd(server: &Server, clients: usize) -> (Vec<TcpStream>, Vec<String>) {
    let waiting: Vec<_> = (0..clients)
        .map(|client| {
            let stream = connect_from(1 + (client / 4_000) as u8, server.addr).unwrap();
            let _ = (&stream).write_all(UPGRADE.as_bytes());
            stream
        })
        .collect();
    let mut seated = Vec::new();
    let mut refused = Vec::new();
    for mut stream in waiting {
        let head = read_head(&mut stream);
        if head.starts_with("HTTP/1.1 101 ") {
            seated.push(stream);
        } else {
            let mut body = String::new();
            let _ = stream.read_to_string(&mut body);
            refused.push(head + &body);
        }
    }
    (seated, refused)
}

/// Fails unless the answer is a 503 that says `why`.
pub fn assert_is_503(answer: &str, why: &str) {
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert!(answer.contains("\r\nRetry-After: ") && answer.contains(why), "{answer}");
}

/// Fails unless text comes back.
pub fn assert_echoes(stream: &mut TcpStream, text: &str) {
    stream.write_all(&frame(0x81, text.as_bytes())).unwrap();
    let reply = format!("You have entered: {text}").into_bytes();
    assert_eq!(read_frame(stream), (0x81, reply));
}

/// Ends the connection by a reset.
pub fn reset(stream: TcpStream) {
    set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
}

/// Writes `bytes` again and again until the server takes no more, and says whether it still is there.
pub fn write_until_stuck(stream: &mut TcpStream, bytes: &[u8]) -> bool {
    stream.set_write_timeout(Some(Duration::from_millis(200))).unwrap();
    loop {
        match stream.write_all(bytes) {
            Ok(()) => {}
            Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
        }
    }
}

/// Whether the server ends the connection within `limit`, by a close or by a reset.
pub fn is_ended_within(limit: Duration, stream: &mut TcpStream) -> bool {
    let deadline = Instant::now() + limit;
    let mut unread = vec![0; 64 * 1024];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return false;
        }
        stream.set_read_timeout(Some(left)).unwrap();
        match stream.read(&mut unread) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => return error.kind() != io::ErrorKind::WouldBlock,
        }
    }
}
