//! What the kernel allows: descriptors, memory maps, addresses, and what the control group allows.

use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;
use std::{env, fmt, fs, thread};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::buffer::Reservable;
use crate::websocket::negotiation::Mode;

/// The kernel's limits on this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How many memory maps there may be, `vm.max_map_count`.
    pub maps: u64,
    /// How many descriptors may be open, `RLIMIT_NOFILE`.
    pub descriptors: u64,
    /// How many bytes of addresses there may be, `RLIMIT_AS`.
    pub addresses: Option<u64>,
    /// How many bytes of memory the control group may hold, `memory.max`.
    pub memory: Option<u64>,
    /// How many threads the control group may have, `pids.max`.
    pub threads: Option<u64>,
    /// All that a client may cost beside what is charged to the budget, in bytes.
    pub memory_per_client: u64,
}

impl Limits {
    /// Raises the soft descriptor limit to the hard one, and reads what holds then.
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

    /// The same for clients that speak TLS, whose session and records cost more.
    #[must_use]
    pub fn with_tls(self) -> Self {
        Limits { memory_per_client: 256 * 1024, ..self }
    }

    /// How many WebSockets there can be at once, at most `asked`, beside [`http_only`](Self::http_only)
    /// other connections.
    pub fn clients(self, asked: usize, compression: Mode) -> usize {
        asked.min(self.connections(compression) - self.http_only(compression)).max(1)
    }

    /// How many connections there can be beyond the limit of WebSockets. They get the page, the answer to
    /// a health check or a proper 503.
    pub fn http_only(self, compression: Mode) -> usize {
        (self.connections(compression) / 8).clamp(2, 128)
    }

    /// How many connections can be served at once.
    ///
    /// A thread beyond `maps` or `addresses` does not fail to start: it aborts the whole process, since
    /// the guard page of its signal stack can't be set up. So this has to hold on the safe side.
    fn connections(self, compression: Mode) -> usize {
        /// The standard streams, the log file, listeners, the signal pipe, and one to say 503.
        const DESCRIPTORS_RESERVE: u64 = 24;
        /// The stacks, the buffers, and a message below what is charged to the budget, in bytes.
        const ADDRESSES_PER_CLIENT: u64 = 256 * 1024;
        /// Threads that serve no client, at most 16 of them for handshakes.
        const THREADS_RESERVE: u64 = 24;

        // One for its message.
        let maps_per_client = 1 + maps_beside_messages(compression);
        let allowed = [
            self.maps.saturating_sub(MAPS_RESERVE) / maps_per_client,
            self.descriptors.saturating_sub(DESCRIPTORS_RESERVE),
            self.threads.unwrap_or(u64::MAX).saturating_sub(THREADS_RESERVE),
            half_beside_program(self.addresses) / ADDRESSES_PER_CLIENT,
            half_beside_program(self.memory) / self.memory_per_client,
        ];
        let allowed = allowed.into_iter().min().unwrap_or(u64::MAX);
        usize::try_from(allowed).unwrap_or(usize::MAX).max(3)
    }

    /// How many bytes messages may hold at once, at most `asked`.
    pub fn buffered(self, asked: usize) -> usize {
        let allowed = half_beside_program(self.memory).min(half_beside_program(self.addresses));
        asked.min(usize::try_from(allowed).unwrap_or(usize::MAX))
    }

    /// What may be reserved for messages, if there are so many clients: at least a map for each. One
    /// whose replies wait, as a behaviour may ask for, has more of them.
    pub fn reservable(self, clients: usize, compression: Mode) -> Reservable {
        let connections = (clients + self.http_only(compression)) as u64;
        let beside = MAPS_RESERVE + connections * maps_beside_messages(compression);
        let at_most = |number| usize::try_from(number).unwrap_or(usize::MAX);
        Reservable {
            addresses: at_most(half_beside_program(self.addresses)),
            maps: at_most(self.maps.saturating_sub(beside)),
        }
    }
}

/// The maps of the program, its libraries, the allocator's arenas and the accept thread, and two for
/// each huge page of a message.
const MAPS_RESERVE: u64 = 2_048;

/// The maps of a thread's stack and signal stack, each with its guard page, and of what compresses its
/// replies alone.
fn maps_beside_messages(compression: Mode) -> u64 {
    match compression {
        Mode::Off | Mode::NoContextTakeover => 4,
        Mode::ContextTakeover => 5,
    }
}

/// The highest soft limit on descriptors below this hard one. macOS has none as the hard limit, and
/// refuses more than `OPEN_MAX` as the soft one.
fn highest_soft_limit(hard: Option<u64>) -> Option<u64> {
    const OPEN_MAX: u64 = 10_240;
    if cfg!(target_os = "macos") { Some(hard.unwrap_or(OPEN_MAX).min(OPEN_MAX)) } else { hard }
}

/// Half of what is left beside the program, for clients or for messages. All there is without a limit.
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

/// Starts the program anew with other tunables of glibc, which it reads before `main`, and which no safe
/// call sets later:
///
/// - Few arenas, where it would make eight for each core. Each keeps memory after a crowd has left, and
///   takes addresses that a limit on them does not have.
/// - No caches of threads. What a client's thread needs for the request would stay in its cache for as
///   long as the client is connected, and a block in the cache of a thread for handshakes keeps all
///   below it in the arena.
/// - No lists of small blocks that are freed but not merged. Each keeps all below it in the arena, too.
pub fn tune_allocator() {
    const VARIABLE: &str = "GLIBC_TUNABLES";
    const ARENA_MAX: &str = "glibc.malloc.arena_max=";
    const CACHES: [&str; 2] = ["glibc.malloc.tcache_count=", "glibc.malloc.mxfast="];
    /// Says that it was started anew. glibc hides its own variable from programs with capabilities.
    const MARKER: &str = "WSECHO_ALLOCATOR_TUNED";

    let most = if getrlimit(Resource::As).current.is_some() { 1 } else { 16 };
    let default = thread::available_parallelism().map_or(1, usize::from) * 8;
    let tunables = env::var_os(VARIABLE).unwrap_or_default().into_string();
    let (Ok(tunables), None) = (tunables, env::var_os(MARKER)) else { return };
    let set = |name: &str| -> Option<usize> {
        tunables
            .split(':')
            .filter_map(|tunable| tunable.strip_prefix(name))
            .next_back()?
            .parse()
            .ok()
    };
    let mut missing = String::new();
    if set(ARENA_MAX).unwrap_or(default) > most {
        missing += &format!(":{ARENA_MAX}{most}");
    }
    for name in CACHES.into_iter().filter(|name| set(name).is_none()) {
        missing += &format!(":{name}0");
    }
    if cfg!(not(target_env = "gnu")) || missing.is_empty() {
        return;
    }
    let mut arguments = env::args_os();
    let (Ok(program), Some(name)) = (env::current_exe(), arguments.next()) else { return };
    // Started by a loader, the program is the loader.
    if program.file_name() == Path::new(&name).file_name() {
        let mut command = Command::new(program);
        command.arg0(name).args(arguments).env(MARKER, "1");
        // It returns only if it fails, and then the program goes on with what glibc does by itself.
        let _ = command.env(VARIABLE, tunables + &missing).exec();
    }
}

fn read_number(file: impl AsRef<Path>) -> Option<u64> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

/// The smallest `limit` of this process's control group and the groups above it (cgroup v2), if there
/// is one.
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
            assert_eq!(limits.clients(asked, Mode::Off), clients, "{limits:?}, {asked} asked");
        }
        let usual = Limits { maps: 65_530, descriptors: 1_048_576, ..UNLIMITED };
        let modes = [Mode::Off, Mode::NoContextTakeover, Mode::ContextTakeover];
        let clients = modes.map(|compression| usual.clients(100_000, compression));
        assert_eq!(clients, [12_568, 12_568, 10_452]);
        // Each has a map for its message at least, and for a second one below the default limit.
        for compression in modes {
            let [few, most] = [10_000, 100_000].map(|asked| usual.clients(asked, compression));
            assert!(usual.reservable(most, compression).maps >= most);
            if compression != Mode::ContextTakeover {
                assert!(usual.reservable(few, compression).maps >= 2 * few);
            }
        }
        let mib = |mib: u64| Some(mib << 20);
        for (limits, clients, buffered) in [
            (Limits { addresses: mib(500), ..UNLIMITED }, 819, 234 << 20),
            (Limits { addresses: mib(150), ..UNLIMITED }, 207, 59 << 20),
            (Limits { addresses: mib(10), ..UNLIMITED }, 1, 0),
            (Limits { memory: mib(256), ..UNLIMITED }, 523, 112 << 20),
            (Limits { memory: mib(256), ..UNLIMITED }.with_tls(), 392, 112 << 20),
            (Limits { threads: Some(1_000), ..UNLIMITED }, 854, 1 << 30),
        ] {
            assert_eq!(limits.clients(10_000, Mode::Off), clients, "{limits:?}");
            assert_eq!(limits.buffered(1 << 30), buffered, "{limits:?}");
        }
    }
}
