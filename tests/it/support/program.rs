//! Programs that run beside a test, and whether they are installed.

use std::env;
use std::fs;
use std::io::{Read as _, Write as _};
use std::iter;
use std::net::{SocketAddr, TcpListener};
use std::panic::Location;
use std::path::{self, Path, PathBuf};
use std::process::{self, Child, Command, ExitStatus, Stdio};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::{SOON, data, eventually, is_ci};

/// The whole path of the wsecho under test: the one that `WSECHO` names, such as a release build, or
/// that of the tests.
pub fn wsecho_path() -> String {
    let path = env::var("WSECHO").unwrap_or_else(|_| env!("CARGO_BIN_EXE_wsecho").into());
    path::absolute(path).unwrap().to_str().unwrap().into()
}

/// Copies the wsecho under test, by another process: the children of this one would keep a file that it
/// writes open, and a program that is open for writing can't start.
pub fn copy_wsecho(to: &Path) {
    assert!(Command::new("cp").args([wsecho_path().as_ref(), to]).status().unwrap().success());
}

/// The wsecho under test, with these flags and no setting from outside.
pub fn wsecho(flags: &[&str]) -> Command {
    let mut command = Command::new(wsecho_path());
    for (variable, _) in env::vars_os() {
        if variable == "RUST_LOG" || variable.as_encoded_bytes().starts_with(b"WSECHO_") {
            command.env_remove(variable);
        }
    }
    command.args(flags);
    command
}

/// A running program, which is killed when this is dropped.
pub struct Program(pub Child);

impl Program {
    pub fn start(command: &mut Command) -> Self {
        Program(command.stdin(Stdio::null()).spawn().expect("it starts"))
    }

    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.0)
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    pub fn is_running(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }

    /// Waits until it has exited.
    #[track_caller]
    pub fn wait(&mut self, limit: Duration) -> ExitStatus {
        eventually(limit, || !self.is_running());
        self.0.wait().unwrap()
    }

    /// All that it wrote to its piped stderr, once it has exited.
    pub fn stderr(&mut self) -> String {
        let mut text = String::new();
        self.0.stderr.take().expect("stderr is piped").read_to_string(&mut text).unwrap();
        text
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The status with which `command` gives up, and what it writes to stderr.
#[track_caller]
pub fn refusal(command: &mut Command) -> (Option<i32>, String) {
    let mut program = Program::start(command.env("RUST_BACKTRACE", "1").stderr(Stdio::piped()));
    (program.wait(SOON).code(), program.stderr())
}

/// A directory of the test's own, which is removed when this is dropped. Its path is short enough
/// for a socket's address.
pub struct TempDir(PathBuf);

impl TempDir {
    pub fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = env::temp_dir().join(format!("wsecho-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        TempDir(path)
    }

    /// The path of a file in it, or with `""` its own.
    pub fn path(&self, file: &str) -> PathBuf {
        self.0.join(file)
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// An address that was free a moment ago, for programs that can't choose their port themselves. The kernel
/// chooses none below 32768 for others, nor does another process with tests.
pub fn free_addr() -> SocketAddr {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let mut addrs = iter::repeat_with(|| {
        let number = process::id() as usize * 100 + COUNT.fetch_add(1, Ordering::Relaxed);
        SocketAddr::from(([127, 0, 0, 2], (10_000 + number % 20_000) as u16))
    });
    addrs.find(|addr| TcpListener::bind(addr).is_ok()).expect("it repeats for ever")
}

/// Whether these outside programs are installed. If not, the test is skipped. Under `CI=true` that is
/// a failure.
#[track_caller]
pub fn has_programs(programs: &[&str]) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    let is_installed =
        |program: &str| env::split_paths(&path).any(|dir| dir.join(program).exists());
    match programs.iter().find(|program| !is_installed(program)) {
        Some(program) => is_missing(program),
        None => true,
    }
}

/// Python with its package `websockets`, as [`python_with`].
#[track_caller]
pub fn python() -> Option<Command> {
    python_with("websockets")
}

/// Python with `package`, as `PYTHON` names it or as it is installed. Otherwise as [`has_programs`].
#[track_caller]
pub fn python_with(package: &str) -> Option<Command> {
    let python = env::var_os("PYTHON").unwrap_or("python3".into());
    let has_package = Command::new(&python)
        .args(["-c", &format!("import {package}")])
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    (has_package || is_missing(&format!("{package} for Python"))).then(|| Command::new(python))
}

/// Whether Node.js is there, and a package that `npm ci` in `tests/clients` installs.
#[track_caller]
pub fn has_npm_package(name: &str) -> bool {
    let is_installed = data("clients/node_modules").join(name).exists();
    has_programs(&["node"]) && (is_installed || is_missing(&format!("{name} of npm")))
}

/// Is `false`, and the test skipped.
#[track_caller]
pub fn is_missing(what: &str) -> bool {
    assert!(!is_ci(), "{what} is missing");
    skip(what);
    false
}

/// Names the running test when all have ended, with the reasons why it was skipped, or a part of it.
#[track_caller]
pub fn skip(why: &str) {
    // No code runs here after the last test, so a child waits for the end of its input.
    const REPORT: &str = r#"sort -u | awk -F '\t' '
        $1 == test { list = list ", " $2; next }
        { test = $1; list = list "\n" test ": " $2; tests++ }
        END {
            print tests " tests were skipped, since something is missing. On Debian this installs it and runs them:"
            print "    .ci/install cargo test" list
        }' >&2"#;
    static REPORTER: LazyLock<Child> = LazyLock::new(|| {
        Command::new("sh").args(["-c", REPORT]).stdin(Stdio::piped()).spawn().expect("sh starts")
    });
    // A thread has its test's name, unless the test has started it, or all run on the main one.
    let thread = thread::current();
    let test = match thread.name() {
        Some(name) if name.contains("::") => name.into(),
        _ => Location::caller().to_string(),
    };
    let line = format!("{test}\t{why}\n");
    REPORTER.stdin.as_ref().expect("it is piped").write_all(line.as_bytes()).unwrap();
}
