//! A wsecho of the test's own on a free port, and what the tests say to it byte by byte.

#![allow(dead_code, reason = "every test file uses a part of it")]

use std::env;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{self, Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// How long anything may take that is expected to happen at once; machines can be busy.
pub const SOON: Duration = Duration::from_secs(10);

/// An upgrade request with the key of RFC 6455 §1.3.
pub const UPGRADE: &str = "GET /chat HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Version: 13\r\n\r\n";

/// The wsecho under test, by its whole path: the one that `WSECHO` names, such as a release build, or
/// that of the tests.
pub fn program() -> String {
    let path = env::var("WSECHO").unwrap_or_else(|_| env!("CARGO_BIN_EXE_wsecho").into());
    path::absolute(path).unwrap().to_str().unwrap().into()
}

/// A running wsecho, which is killed when it is dropped.
pub struct Server {
    pub addr: SocketAddr,
    child: Child,
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
        let mut command = Command::new(program());
        command.args(["--addr", "127.0.0.1:0"]).args(flags);
        Self::start_command(command)
    }

    /// Starts what is, or becomes, wsecho, and waits until it has logged where it listens.
    pub fn start_command(mut command: Command) -> Self {
        let mut child = command
            .env_remove("RUST_LOG")
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("wsecho starts");
        let log = Arc::new(Log::default());
        let stderr = BufReader::new(child.stderr.take().expect("stderr is piped"));
        let writer = Arc::clone(&log);
        thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                writer.lines.lock().unwrap().push(line);
                writer.grown.notify_all();
            }
        });
        let mut server = Server { addr: ([127, 0, 0, 1], 0).into(), child, log };
        server.addr = address_in(&server.wait_for_log("listening on "));
        server
    }

    /// Starts wsecho with `flags` on a free port of 127.0.0.1, logging to `file` alone.
    pub fn start_with_log_file(file: &Path, flags: &[&str]) -> Self {
        let child = Command::new(program())
            .args(["--addr", "127.0.0.1:0", "--log-file"])
            .arg(file)
            .args(flags)
            .env_remove("RUST_LOG")
            .stdin(Stdio::null())
            .spawn()
            .expect("wsecho starts");
        let mut server = Server { addr: ([127, 0, 0, 1], 0).into(), child, log: Arc::default() };
        server.addr = address_in(&wait_for_line(file, "listening on "));
        server
    }

    /// Every line logged so far.
    pub fn log(&self) -> Vec<String> {
        self.log.lines.lock().unwrap().clone()
    }

    /// Waits for a line that contains `text`, and returns the first such line.
    pub fn wait_for_log(&self, text: &str) -> String {
        let (lines, _) = self
            .log
            .grown
            .wait_timeout_while(self.log.lines.lock().unwrap(), SOON, |lines| {
                !lines.iter().any(|line| line.contains(text))
            })
            .unwrap();
        lines
            .iter()
            .find(|line| line.contains(text))
            .unwrap_or_else(|| panic!("{text:?} is not logged: {lines:#?}"))
            .clone()
    }

    /// A connection to it, on which no read or write takes for ever.
    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.addr).expect("it listens");
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream.set_write_timeout(Some(SOON)).unwrap();
        stream
    }

    /// A connection on which a WebSocket is open.
    pub fn open(&self) -> TcpStream {
        let mut stream = self.connect();
        stream.write_all(UPGRADE.as_bytes()).unwrap();
        let head = read_head(&mut stream);
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        stream
    }

    /// The whole answer to `request`, until the server has closed.
    pub fn answer(&self, request: &[u8]) -> String {
        let mut stream = self.connect();
        stream.write_all(request).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("the server closes");
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// Fails unless a new client is answered.
    pub fn answers_a_fresh_client(&self) {
        let mut stream = self.open();
        stream.write_all(&frame(0x81, b"fresh")).unwrap();
        let (opcode, payload) = read_frame(&mut stream);
        assert_eq!(opcode, 0x81);
        assert!(payload.ends_with(b"fresh"));
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.pid() as i32).unwrap();
        kill_process(pid, signal).unwrap();
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits until it has exited.
    pub fn wait(&mut self, limit: Duration) -> ExitStatus {
        let mut status = None;
        eventually(limit, || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }

    /// Threads, open descriptors and resident KiB.
    pub fn usage(&self) -> (usize, usize, usize) {
        let proc = format!("/proc/{}", self.pid());
        let status = fs::read_to_string(format!("{proc}/status")).unwrap();
        let field = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name)).unwrap();
            line.split_whitespace().nth(1).unwrap().parse().unwrap()
        };
        let descriptors = fs::read_dir(format!("{proc}/fd")).unwrap().count();
        (field("Threads:"), descriptors, field("VmRSS:"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The first address in a line that says where wsecho listens.
pub fn address_in(line: &str) -> SocketAddr {
    let (_, behind) = line.split_once("ws://").expect("an address is logged");
    behind.split('/').next().unwrap().parse().unwrap()
}

/// Waits until `file` has a whole line that contains `text`, and returns the first such line.
pub fn wait_for_line(file: &Path, text: &str) -> String {
    let start = Instant::now();
    loop {
        let log = fs::read(file).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let line = log.split_inclusive('\n').find(|line| line.contains(text));
        if let Some(line) = line.and_then(|line| line.strip_suffix('\n')) {
            return line.to_owned();
        }
        assert!(start.elapsed() < SOON, "{text:?} is not logged: {log}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Any other program that runs beside a test, and is killed when it is dropped.
pub struct Program(pub Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A directory of the test's own, which is gone when it is dropped. Its path is short enough for
/// a socket's address.
pub struct Scratch(PathBuf);

impl Scratch {
    pub fn new(name: &str) -> Self {
        let path = env::temp_dir().join(format!("wsecho-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Scratch(path)
    }

    pub fn path(&self, file: &str) -> PathBuf {
        self.0.join(file)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// An address that was free a moment ago, for programs that can't pick their port themselves. It
/// is not 127.0.0.1, where every other test has its ports picked.
pub fn free_addr() -> SocketAddr {
    TcpListener::bind("127.0.0.2:0").unwrap().local_addr().unwrap()
}

/// A client's frame: the first byte as it is, any payload, masked.
pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    const KEY: [u8; 4] = [0x37, 0xFA, 0x21, 0x3D];
    let mut frame = vec![first];
    match payload.len() {
        len @ 0..=125 => frame.push(0x80 | len as u8),
        len @ 126..=0xFFFF => {
            frame.push(0x80 | 126);
            frame.extend((len as u16).to_be_bytes());
        }
        len => {
            frame.push(0x80 | 127);
            frame.extend((len as u64).to_be_bytes());
        }
    }
    frame.extend(KEY);
    frame.extend(payload.iter().zip(KEY.iter().cycle()).map(|(byte, key)| byte ^ key));
    frame
}

/// A client's close frame.
pub fn close(code: u16) -> Vec<u8> {
    frame(0x88, &code.to_be_bytes())
}

/// The next frame of the server: its first byte and its payload.
pub fn read_frame(stream: &mut impl Read) -> (u8, Vec<u8>) {
    let mut header = [0; 2];
    stream.read_exact(&mut header).expect("a frame comes");
    let len = match header[1] {
        126 => {
            let mut len = [0; 2];
            stream.read_exact(&mut len).unwrap();
            u16::from_be_bytes(len) as usize
        }
        127 => {
            let mut len = [0; 8];
            stream.read_exact(&mut len).unwrap();
            u64::from_be_bytes(len) as usize
        }
        len => {
            assert!(len < 126, "a server does not mask");
            len as usize
        }
    };
    let mut payload = vec![0; len];
    stream.read_exact(&mut payload).unwrap();
    (header[0], payload)
}

/// The next frame, which has to be Close: its code.
pub fn read_close(stream: &mut impl Read) -> u16 {
    let (first, payload) = read_frame(stream);
    assert_eq!(first, 0x88, "{payload:?}");
    u16::from_be_bytes([payload[0], payload[1]])
}

/// The head of the server's answer, its empty line included.
pub fn read_head(stream: &mut impl Read) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("a head comes");
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

/// Waits until `condition` holds.
pub fn eventually(limit: Duration, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < limit, "not within {limit:?}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Whether an outside program is there. If not, says visibly that the test is skipped; under
/// `CI=true` that is a failure.
pub fn has_program(program: &str) -> bool {
    let found = env::var_os("PATH")
        .is_some_and(|path| env::split_paths(&path).any(|dir| dir.join(program).exists()));
    found || is_missing(program)
}

/// Python with its package `websockets`, as `PYTHON` names it or as it is installed; otherwise as
/// [`has_program`].
pub fn python() -> Option<Command> {
    let python = env::var_os("PYTHON").unwrap_or("python3".into());
    let has_websockets = Command::new(&python)
        .args(["-c", "import websockets"])
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    (has_websockets || is_missing("websockets for Python")).then(|| Command::new(python))
}

/// Is `false`, and says so where nobody overlooks it.
pub fn is_missing(what: &str) -> bool {
    assert!(env::var("CI").as_deref() != Ok("true"), "{what} is missing");
    // Unlike eprintln, this is shown for tests that pass, too.
    let _ = writeln!(std::io::stderr(), "SKIPPED: {what} is not installed");
    false
}
