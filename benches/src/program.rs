//! Servers that are programs of their own, on a core of their own, for the benchmarks of one feature.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, Event};
use rustix::fd::OwnedFd;
use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_setaffinity};

/// A running program. Dropping it kills it.
pub struct Program(Child);

impl Program {
    /// Starts it on the servers' core. The caller is on the clients' core afterwards.
    pub fn start(command: &mut Command) -> io::Result<Self> {
        // Its threads stay where their parent was when it started.
        pin(0)?;
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn();
        pin(1)?;
        child.map(Program)
    }

    /// Starts it on all cores, which it shares with the caller.
    pub fn start_on_all_cores(command: &mut Command) -> io::Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().map(Program)
    }

    /// The most memory that was resident so far, in KiB.
    pub fn peak_resident(&self) -> io::Result<usize> {
        let status = fs::read_to_string(format!(
            "/proc/{}/status",
            Pid::from_child(&self.0).as_raw_nonzero()
        ))?;
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let peak = peak.and_then(|peak| peak.trim().trim_end_matches(" kB").parse().ok());
        peak.ok_or_else(|| io::Error::other("no VmHWM"))
    }

    /// The processor time that it has used, in seconds.
    pub fn cpu_seconds(&self) -> io::Result<f64> {
        let stat = fs::read_to_string(format!(
            "/proc/{}/stat",
            Pid::from_child(&self.0).as_raw_nonzero()
        ))?;
        let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields).split_whitespace();
        let ticks: f64 =
            fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum();
        Ok(ticks / rustix::param::clock_ticks_per_second() as f64)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits until something listens on `addr`, for at most 10 s.
pub fn wait_until_it_listens(addr: SocketAddr) -> io::Result<()> {
    let deadline = Instant::now() + Duration::from_secs(10);
    while TcpStream::connect(addr).is_err() {
        if Instant::now() > deadline {
            return Err(io::Error::other(format!("nothing listens on {addr}")));
        }
        thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// The folder of the benchmark's sources.
pub fn folder() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

pub fn free_addr() -> io::Result<SocketAddr> {
    TcpListener::bind("127.0.0.1:0")?.local_addr()
}

/// Keeps the calling thread on one core.
pub fn pin(core: usize) -> io::Result<()> {
    let mut cores = CpuSet::new();
    cores.set(core);
    Ok(sched_setaffinity(None, &cores)?)
}

/// Waits for `time` at most, and tells which clients are ready, by the numbers they were added with.
pub fn ready(epoll: &OwnedFd, time: Duration) -> io::Result<Vec<usize>> {
    let mut events: Vec<Event> = Vec::with_capacity(256);
    let timeout = time.try_into().map_err(io::Error::other)?;
    epoll::wait(epoll, spare_capacity(&mut events), Some(&timeout))?;
    Ok(events.iter().map(|event| event.data.u64() as usize).collect())
}
