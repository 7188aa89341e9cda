//! The limits of the kernel and the control group: descriptors, memory maps, addresses, memory, threads.

use std::path::Path;
use std::{fmt, fs};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::buffer::Reservable;

/// The kernel's limits on this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The maximum number of memory maps, `vm.max_map_count`.
    pub maps: u64,
    /// The maximum number of open descriptors, `RLIMIT_NOFILE`.
    pub descriptors: u64,
    /// The maximum address space in bytes, `RLIMIT_AS`.
    pub addresses: Option<u64>,
    /// The control group's memory limit in bytes, `memory.max`.
    pub memory: Option<u64>,
    /// The control group's thread limit, `pids.max`.
    pub threads: Option<u64>,
    /// The maximum memory of a client in bytes, excluding the memory charged to the budget.
    pub memory_per_client: u64,
}

impl Limits {
    /// Raises the soft descriptor limit to the hard one, and returns the resulting limits.
    pub fn raise() -> Self {
        let mut files = getrlimit(Resource::Nofile);
        let raised = Rlimit { current: highest_soft_limit(files.maximum), ..files };
        let is_higher = raised.current.unwrap_or(u64::MAX) > files.current.unwrap_or(u64::MAX);
        if is_higher && setrlimit(Resource::Nofile, raised).is_ok() {
            files = raised;
        }
        Limits {
            maps: read_number("/proc/sys/vm/max_map_count").unwrap_or(65_530),
            descriptors: files.current.unwrap_or(u64::MAX),
            addresses: getrlimit(Resource::As).current,
            memory: read_control_group("memory.max"),
            threads: read_control_group("pids.max"),
            memory_per_client: 192 * 1024,
        }
    }

    /// The same limits for TLS clients, whose sessions and records cost more memory.
    #[must_use]
    pub fn with_tls(self) -> Self {
        Limits { memory_per_client: 256 * 1024, ..self }
    }

    /// The possible number of simultaneous WebSockets, at most `asked`, besides
    /// [`http_only`](Self::http_only) other connections.
    pub fn clients(self, asked: usize) -> usize {
        asked.min(self.connections() - self.http_only()).max(1)
    }

    /// The possible number of connections beyond the limit of WebSockets. They get the page, the answer
    /// to a health check, or a proper 503.
    pub fn http_only(self) -> usize {
        (self.connections() / 8).clamp(2, 128)
    }

    /// The possible number of simultaneous connections.
    ///
    /// A thread beyond `maps` or `addresses` does not fail to start: it aborts the whole process, since
    /// the guard page of its signal stack can't be set up. So this errs on the safe side.
    fn connections(self) -> usize {
        /// The standard streams, the log file, listeners, the signal pipe, and one to say 503.
        const DESCRIPTORS_RESERVE: u64 = 24;
        /// The stacks, the buffers, and the uncharged part of a message, in bytes.
        const ADDRESSES_PER_CLIENT: u64 = 256 * 1024;
        /// Threads that serve no client.
        const THREADS_RESERVE: u64 = 24;

        // One more map for its message.
        let allowed = [
            self.maps.saturating_sub(MAPS_RESERVE) / (MAPS_PER_THREAD + 1),
            self.descriptors.saturating_sub(DESCRIPTORS_RESERVE),
            self.threads.unwrap_or(u64::MAX).saturating_sub(THREADS_RESERVE),
            half_beside_program(self.addresses) / ADDRESSES_PER_CLIENT,
            half_beside_program(self.memory) / self.memory_per_client,
        ];
        let allowed = allowed.into_iter().min().unwrap_or(u64::MAX);
        usize::try_from(allowed).unwrap_or(usize::MAX).max(3)
    }

    /// The possible total memory of messages in bytes, at most `asked`.
    pub fn buffered(self, asked: usize) -> usize {
        let allowed = half_beside_program(self.memory).min(half_beside_program(self.addresses));
        asked.min(usize::try_from(allowed).unwrap_or(usize::MAX))
    }

    /// The possible reservations for the messages of this many clients: at least one map for each. A
    /// client whose replies are delayed by a behavior uses more.
    pub fn reservable(self, clients: usize) -> Reservable {
        let connections = (clients + self.http_only()) as u64;
        let beside = MAPS_RESERVE + connections * MAPS_PER_THREAD;
        let at_most = |number| usize::try_from(number).unwrap_or(usize::MAX);
        Reservable {
            addresses: at_most(half_beside_program(self.addresses)),
            maps: at_most(self.maps.saturating_sub(beside)),
        }
    }
}

/// The maps of the program, its libraries, the allocator's arenas and the accept thread, and two more
/// for each huge page of a message.
const MAPS_RESERVE: u64 = 2_048;

/// A stack and a signal stack, each with its guard page.
const MAPS_PER_THREAD: u64 = 4;

/// The highest soft limit on descriptors under this hard limit. On macOS the hard limit may be
/// unlimited, but a soft limit above `OPEN_MAX` is refused.
fn highest_soft_limit(hard: Option<u64>) -> Option<u64> {
    const OPEN_MAX: u64 = 10_240;
    if cfg!(target_os = "macos") { Some(hard.unwrap_or(OPEN_MAX).min(OPEN_MAX)) } else { hard }
}

/// Half of the limit after subtracting the program's own share, for clients or for messages. `u64::MAX`
/// without a limit.
fn half_beside_program(limit: Option<u64>) -> u64 {
    const PROGRAM: u64 = 32 * 1024 * 1024;
    limit.map_or(u64::MAX, |limit| limit.saturating_sub(PROGRAM) / 2)
}

impl fmt::Display for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "vm.max_map_count {} and {} descriptors", self.maps, self.descriptors)?;
        let others = [
            ("bytes of addresses", self.addresses),
            ("bytes in memory.max", self.memory),
            ("threads in pids.max", self.threads),
        ];
        for (what, limit) in others {
            if let Some(limit) = limit {
                write!(f, " and {limit} {what}")?;
            }
        }
        Ok(())
    }
}

fn read_number(file: impl AsRef<Path>) -> Option<u64> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

/// The lowest `limit` of this process's control group and its parents (cgroup v2), if there is one.
fn read_control_group(limit: &str) -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let group = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let group = Path::new("/sys/fs/cgroup").join(group);
    group.ancestors().filter_map(|group| read_number(group.join(limit))).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNLIMITED: Limits = Limits {
        maps: u64::MAX,
        descriptors: u64::MAX,
        addresses: None,
        memory: None,
        threads: None,
        memory_per_client: 192 * 1024,
    };

    #[test]
    fn clients_stay_below_each_limit() {
        for (maps, descriptors, asked, clients) in [
            (65_530, 1_048_576, 10_000, 10_000),
            (65_530, 1_048_576, 100_000, 12_568),
            (1_048_576, 1_048_576, 100_000, 100_000),
            (1_048_576, 1_048_576, 1_000_000, 209_177),
            (65_530, 1_024, 10_000, 875),
            (65_530, 64, 10_000, 35),
            (65_530, 20, 10_000, 1),
            (0, 1_024, 10_000, 1),
            (u64::MAX, u64::MAX, usize::MAX, 70_368_744_177_535),
            (65_530, 1_024, 5, 5),
        ] {
            let limits = Limits { maps, descriptors, ..UNLIMITED };
            assert_eq!(limits.clients(asked), clients, "{limits:?}, {asked} asked");
        }
        let usual = Limits { maps: 65_530, descriptors: 1_048_576, ..UNLIMITED };
        // Each client has at least one map for its message, and two below the default limit.
        let [few, most] = [10_000, 100_000].map(|asked| usual.clients(asked));
        assert!(usual.reservable(most).maps >= most);
        assert!(usual.reservable(few).maps >= 2 * few);
        let mib = |mib: u64| Some(mib << 20);
        for (limits, clients, buffered) in [
            (Limits { addresses: mib(500), ..UNLIMITED }, 819, 234 << 20),
            (Limits { addresses: mib(150), ..UNLIMITED }, 207, 59 << 20),
            (Limits { addresses: mib(10), ..UNLIMITED }, 1, 0),
            (Limits { memory: mib(256), ..UNLIMITED }, 523, 112 << 20),
            (Limits { memory: mib(256), ..UNLIMITED }.with_tls(), 392, 112 << 20),
            (Limits { threads: Some(1_000), ..UNLIMITED }, 854, 1 << 30),
        ] {
            assert_eq!(limits.clients(10_000), clients, "{limits:?}");
            assert_eq!(limits.buffered(1 << 30), buffered, "{limits:?}");
        }
    }
}
