//! The machine: which cores, how many descriptors, what to call it, and what a process used of it.

use std::fs;
use std::io;

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Allows this process and its children as many descriptors as the hard limit does.
pub fn raise_descriptor_limit() -> io::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, ..limit };
    Ok(setrlimit(Resource::Nofile, raised)?)
}

/// Keeps the calling process, and what it starts from now on, on one core.
pub fn pin(core: usize) -> io::Result<()> {
    let mut only = CpuSet::new();
    only.set(core);
    Ok(sched_setaffinity(None, &only)?)
}

/// The cores that this process may use.
pub fn cores() -> io::Result<Vec<usize>> {
    let allowed = sched_getaffinity(None)?;
    Ok((0..CpuSet::MAX_CPU).filter(|&core| allowed.is_set(core)).collect())
}

/// Ends the calling process when its parent ends, however the parent ends.
pub fn die_with_parent() -> io::Result<()> {
    Ok(rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?)
}

/// Seconds of processor time that `process` has used, its ended threads included, in steps of a clock tick.
pub fn cpu_seconds(process: Pid) -> io::Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
    // The name in parentheses may hold blanks; utime and stime are the 12th and 13th fields after it.
    let ticks = stat.rsplit(')').next().map(|rest| {
        rest.split_ascii_whitespace()
            .skip(11)
            .take(2)
            .filter_map(|field| field.parse::<f64>().ok())
            .sum::<f64>()
    });
    let ticks = ticks.ok_or_else(|| io::Error::other("a stat line without a name"))?;
    Ok(ticks / rustix::param::clock_ticks_per_second() as f64)
}

/// What `process` keeps resident, and what its page tables take beside it, in KiB.
pub fn memory(process: Pid) -> io::Result<Memory> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    Ok(Memory {
        resident: field(&status, "VmRSS:").unwrap_or(0.0),
        page_tables: field(&status, "VmPTE:").unwrap_or(0.0),
    })
}

#[derive(Clone, Copy)]
pub struct Memory {
    pub resident: f64,
    pub page_tables: f64,
}

/// One line for the head of a report.
pub fn describe(cores: usize) -> String {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split(':').nth(1))
        .map_or("unknown processor", str::trim);
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    // What follows the version is the vendor's own numbering.
    let release = release.trim().split('-').next().unwrap_or_default();
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let memory = field(&meminfo, "MemTotal:").unwrap_or(0.0) / 1024.0 / 1024.0;
    format!("{model}, {cores} cores, {memory:.0} GiB, Linux {release}")
}

fn field(text: &str, name: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}
