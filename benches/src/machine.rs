//! The machine: its cores, its limits, what decides how fast it is, and what a process uses of it.

use std::fs;
use std::io;

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use wsecho_bench::kernel_copy;

/// Allows this process and its children as many descriptors as the hard limit does, and at least `wanted`.
pub fn raise_descriptor_limit(wanted: u64) -> io::Result<()> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let wanted = maximum.map(|maximum| maximum.max(wanted));
    // Only root may raise the hard limit.
    setrlimit(Resource::Nofile, Rlimit { current: wanted, maximum: wanted }).map_err(|error| {
        let [wanted, allowed] = [wanted, maximum].map(|limit| limit.unwrap_or(u64::MAX));
        io::Error::other(format!(
            "{wanted} descriptors are needed, and {allowed} are allowed; \
             `ulimit -Hn {wanted}`, as root, raises it: {error}"
        ))
    })
}

/// An error unless the kernel has room for `threads` threads, of which `per_process` are in one process of
/// wsecho.
pub fn fit_threads(threads: usize, per_process: usize) -> io::Result<()> {
    /// The threads of the generator and of the system.
    const OTHERS: usize = 500;
    // As in `server::limits`: 5 for each client, and a reserve.
    let maps = 5 * (per_process + 130) + 2_048;
    let wanted = [
        ("vm.max_map_count", maps),
        ("kernel.threads-max", threads + OTHERS),
        ("kernel.pid_max", threads + OTHERS),
    ];
    for (name, wanted) in wanted {
        let text = fs::read_to_string(format!("/proc/sys/{}", name.replace('.', "/")))?;
        if text.trim().parse().is_ok_and(|limit: usize| limit < wanted) {
            let limit = text.trim();
            let error =
                format!("{name} is {limit}; `sysctl -w {name}={wanted}`, as root, raises it");
            return Err(io::Error::other(error));
        }
    }
    Ok(())
}

/// Keeps this process, and the children that it starts from now on, on one core.
pub fn pin(core: usize) -> io::Result<()> {
    let mut cores = CpuSet::new();
    cores.set(core);
    Ok(sched_setaffinity(None, &cores)?)
}

/// The cores that this process may use.
pub fn cores() -> io::Result<Vec<usize>> {
    let allowed = sched_getaffinity(None)?;
    Ok((0..CpuSet::MAX_CPU).filter(|&core| allowed.is_set(core)).collect())
}

/// Kills this process when its parent ends, however the parent ends.
pub fn die_with_parent() -> io::Result<()> {
    Ok(rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?)
}

/// Seconds of processor time that `process` and its ended threads have used, in clock ticks.
pub fn cpu_seconds(process: Pid) -> io::Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
    // The name in parentheses may have blanks. utime and stime are the 12th and 13th fields after it.
    let (_, fields) = stat.rsplit_once(')').unwrap_or_default();
    let ticks: f64 = numbers(fields).skip(11).take(2).sum();
    Ok(ticks / rustix::param::clock_ticks_per_second() as f64)
}

/// The time of all cores since the machine started, in clock ticks.
pub struct CpuTime {
    all: f64,
    /// Given to others by the hypervisor.
    steal: f64,
    busy: f64,
}

impl CpuTime {
    pub fn now() -> io::Result<CpuTime> {
        let stat = fs::read_to_string("/proc/stat")?;
        // After the name: user nice system idle iowait irq softirq steal, and parts of these.
        let fields: Vec<f64> = numbers(stat.lines().next().unwrap_or_default()).skip(1).collect();
        let [user, nice, system, idle, iowait, irq, softirq, steal, ..] = fields[..] else {
            return Err(io::Error::other("/proc/stat has too few fields"));
        };
        // Interrupts for the network are charged to nobody.
        let busy = user + nice + system;
        Ok(CpuTime { all: busy + idle + iowait + irq + softirq + steal, steal, busy })
    }

    /// The parts of the time until `later` that the hypervisor gave to others, and that processes used
    /// beside those which used `seconds`.
    pub fn taken_until(&self, later: &CpuTime, seconds: f64) -> (f64, f64) {
        let all = (later.all - self.all).max(1.0);
        let ours = seconds * rustix::param::clock_ticks_per_second() as f64;
        ((later.steal - self.steal) / all, ((later.busy - self.busy - ours) / all).max(0.0))
    }
}

/// Memory in KiB.
#[derive(Default)]
pub struct Memory {
    /// What a process keeps resident.
    pub resident: f64,
    pub page_tables: f64,
    /// The most that was resident so far.
    pub peak: f64,
    /// What the whole machine uses, with the kernel's stacks and sockets.
    pub machine: f64,
}

impl Memory {
    /// How much more there is than `before`, for each of `clients`.
    pub fn each(&self, before: &Memory, clients: usize) -> Memory {
        let each = |figure: fn(&Memory) -> f64| (figure(self) - figure(before)) / clients as f64;
        Memory {
            resident: each(|memory| memory.resident),
            page_tables: each(|memory| memory.page_tables),
            peak: each(|memory| memory.peak),
            machine: each(|memory| memory.machine),
        }
    }
}

pub fn memory(process: Pid) -> io::Result<Memory> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    let kib = |name| kib(&status, name);
    let (resident, page_tables, peak) = (kib("VmRSS"), kib("VmPTE"), kib("VmHWM"));
    Ok(Memory { resident, page_tables, peak, machine: 0.0 })
}

pub fn memory_in_use() -> io::Result<f64> {
    let meminfo = fs::read_to_string("/proc/meminfo")?;
    Ok(kib(&meminfo, "MemTotal") - kib(&meminfo, "MemAvailable"))
}

fn kib(text: &str, name: &str) -> f64 {
    field(text, name).and_then(|value| numbers(value).next()).unwrap_or(0.0)
}

/// What decides the figures of a run on this machine, one line each.
pub fn describe() -> io::Result<Vec<String>> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default().trim().replace('\t', " ");
    let cpu = read("/proc/cpuinfo");
    let has_fsrm = field(&cpu, "flags").is_some_and(|flags| flags.contains(" fsrm"));
    let caches = (0..8).map_while(|index| {
        let file =
            |name: &str| read(&format!("/sys/devices/system/cpu/cpu0/cache/index{index}/{name}"));
        let kind = match &*file("type") {
            "" => return None,
            "Data" => "d",
            "Instruction" => "i",
            _ => "",
        };
        Some(format!("L{}{kind} {}", file("level"), file("size")))
    });
    let memory = kib(&read("/proc/meminfo"), "MemTotal");
    // After the version comes the distributor's own numbering.
    let kernel = read("/proc/sys/kernel/osrelease");
    // A slow copy at one of the first two tells that the processor has the trap of `kernel_copy`.
    let copies = [4086, 10, 2048].map(|place| {
        let (send, receive) = kernel_copy::rates(place)?;
        Ok(format!("{send:.1} and {receive:.1} at {place}"))
    });
    let copies = copies.into_iter().collect::<io::Result<Vec<_>>>()?;
    Ok(vec![
        format!(
            "processor: {}, {} cores, FSRM: {}",
            field(&cpu, "model name").unwrap_or("unknown"),
            cores().map_or(0, |cores| cores.len()),
            if has_fsrm { "yes" } else { "no" },
        ),
        format!("caches of a core: {}", caches.collect::<Vec<_>>().join(", ")),
        format!(
            "memory: {:.0} GiB, transparent huge pages: {}",
            memory / 1024.0 / 1024.0,
            read("/sys/kernel/mm/transparent_hugepage/enabled"),
        ),
        format!(
            "kernel: Linux {}, tcp_rmem: {}, tcp_wmem: {}",
            kernel.split('-').next().unwrap_or_default(),
            read("/proc/sys/net/ipv4/tcp_rmem"),
            read("/proc/sys/net/ipv4/tcp_wmem"),
        ),
        format!("send and recv in GB/s by the buffer's place in its page: {}", copies.join(", ")),
    ])
}

/// The value of the first line `NAME: VALUE`.
fn field<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    let mut fields = text.lines().filter_map(|line| line.split_once(':'));
    fields.find(|(found, _)| found.trim_end() == name).map(|(_, value)| value.trim())
}

fn numbers(text: &str) -> impl Iterator<Item = f64> {
    text.split_ascii_whitespace().map(|word| word.parse().unwrap_or(0.0))
}
