//! A wsecho of the test's own on a free port, and its log.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::Path;
use std::process::{ChildStderr, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::{
    Program, SOON, UPGRADE, ask, connect, demand, eventually, offering, read_all, read_frame,
    read_head, tolerance, upgraded, wsecho,
};
use crate::frames::frame;

/// A running wsecho, which is killed when this is dropped.
pub struct Server {
    pub addr: SocketAddr,
    pub program: Program,
    log: Arc<Log>,
}

#[derive(Default)]
struct Log {
    lines: Mutex<Vec<String>>,
    grown: Condvar,
}

impl Server {
    /// Starts wsecho with `flags` on a free port of 127.0.0.1.
    pub fn start(flags: &[&str]) -> Self {
        Self::start_command(wsecho(&["--addr", "127.0.0.1:0"]).args(flags))
    }

    /// Starts what is, or becomes, wsecho, and waits until it has logged where it listens.
    pub fn start_command(command: &mut Command) -> Self {
        let mut program = Program::start(command.env_remove("RUST_LOG").stderr(Stdio::piped()));
        let stderr = BufReader::new(program.0.stderr.take().unwrap());
        let log = Arc::new(Log::default());
        let writer = Arc::clone(&log);
        thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                writer.lines.lock().unwrap().push(line);
                writer.grown.notify_all();
            }
        });
        let mut server = Server { addr: ([127, 0, 0, 1], 0).into(), program, log };
        server.addr = address_in(&server.wait_for_log("listening on "));
        server
    }

    /// Starts wsecho with `flags` on a free port of 127.0.0.1. Of its log only the first line is read,
    /// and the rest is returned.
    pub fn start_without_log_reader(flags: &[&str]) -> (Self, BufReader<ChildStderr>) {
        let mut command = wsecho(&["--addr", "127.0.0.1:0"]);
        let mut program = Program::start(command.args(flags).stderr(Stdio::piped()));
        let mut log = BufReader::new(program.0.stderr.take().unwrap());
        let mut line = String::new();
        log.read_line(&mut line).unwrap();
        (Server { addr: address_in(&line), program, log: Arc::default() }, log)
    }

    /// Starts wsecho with `flags` on a free port of 127.0.0.1, with `file` as its log.
    pub fn start_logging_to(file: &Path, flags: &[&str]) -> Self {
        let mut command = wsecho(&["--addr", "127.0.0.1:0", "--log-file"]);
        Self::start_command_logging_to(file, command.arg(file).args(flags))
    }

    /// Starts what is, or becomes, wsecho, with `file` as its log.
    pub fn start_command_logging_to(file: &Path, command: &mut Command) -> Self {
        let program = Program::start(command.env_remove("RUST_LOG"));
        let addr = address_in(&wait_for_line(file, "listening on "));
        Server { addr, program, log: Arc::default() }
    }

    /// Every line logged so far.
    pub fn log(&self) -> Vec<String> {
        self.log.lines.lock().unwrap().clone()
    }

    /// Waits for a line that contains `text`, and returns the first such line.
    #[track_caller]
    pub fn wait_for_log(&self, text: &str) -> String {
        let lines = self.log.lines.lock().unwrap();
        let is_missing = |lines: &mut Vec<String>| !lines.iter().any(|line| line.contains(text));
        let (lines, _) = self.log.grown.wait_timeout_while(lines, SOON, is_missing).unwrap();
        let line = lines.iter().find(|line| line.contains(text)).cloned();
        line.unwrap_or_else(|| panic!("{text:?} is not logged: {lines:#?}"))
    }

    /// A connection to it, on which no read or write takes for ever.
    pub fn connect(&self) -> TcpStream {
        connect(self.addr)
    }

    /// A connection on which `bytes` are sent.
    pub fn send(&self, bytes: impl AsRef<[u8]>) -> TcpStream {
        let mut stream = self.connect();
        stream.write_all(bytes.as_ref()).unwrap();
        stream
    }

    /// A connection on which a WebSocket is open.
    #[track_caller]
    pub fn open(&self) -> TcpStream {
        ask(self.connect()).expect("a WebSocket opens")
    }

    /// A connection on which a WebSocket is open that does what `query` says.
    #[track_caller]
    pub fn open_demanding(&self, query: &str) -> TcpStream {
        upgraded(self.send(demand(query))).expect("a WebSocket opens")
    }

    /// A connection on which a WebSocket is open, and this extension agreed.
    #[track_caller]
    pub fn open_offering(&self, extension: &str) -> TcpStream {
        let mut stream = self.send(offering(UPGRADE, extension));
        let head = read_head(&mut stream);
        assert!(head.contains("\r\nSec-WebSocket-Extensions: "), "{head}");
        stream
    }

    /// The whole response to `request`, until the server closes.
    #[track_caller]
    pub fn response(&self, request: impl AsRef<[u8]>) -> String {
        read_all(&mut self.send(request))
    }

    /// The whole response to a request after which the client ends its stream.
    #[track_caller]
    pub fn last_response(&self, request: impl AsRef<[u8]>) -> String {
        let stream = self.send(request);
        stream.shutdown(Shutdown::Write).unwrap();
        read_all(stream)
    }

    /// Fails unless a new client is answered at once. Until then it may get 503 from a server that
    /// has yet to see that others ended.
    #[track_caller]
    pub fn answers_at_once(&self) {
        let started = Instant::now();
        let mut stream = loop {
            match ask(self.connect()) {
                Ok(stream) => break stream,
                Err(response) => assert!(started.elapsed() < tolerance(), "{response}"),
            }
        };
        stream.write_all(&frame(0x82, b"new")).unwrap();
        assert_eq!(read_frame(&mut stream), (0x82, b"new".to_vec()));
        let took = started.elapsed();
        assert!(took < tolerance(), "a new client was answered after {took:?}");
    }

    pub fn signal(&self, signal: Signal) {
        self.program.signal(signal);
    }

    /// Has it stop, and fails unless that succeeds.
    #[track_caller]
    pub fn stop(&mut self) {
        self.signal(Signal::TERM);
        assert!(self.wait(SOON).success());
    }

    /// Waits until it has exited.
    #[track_caller]
    pub fn wait(&mut self, limit: Duration) -> ExitStatus {
        self.program.wait(limit)
    }
}

/// The first address in a line that says where wsecho listens.
pub fn address_in(line: &str) -> SocketAddr {
    let (_, after) = line.split_once("://").expect("an address is logged");
    after.split('/').next().unwrap().parse().unwrap()
}

/// Waits until `file` has a whole line that contains `text`, and returns the first such line.
#[track_caller]
pub fn wait_for_line(file: &Path, text: &str) -> String {
    let mut found = None;
    eventually(SOON, || {
        let log = fs::read(file).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let mut lines = log.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n'));
        found = lines.find(|line| line.contains(text)).map(str::to_owned);
        found.is_some()
    });
    found.unwrap()
}
