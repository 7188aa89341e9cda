//! What the kernel will carry: descriptors and memory maps.

use std::fs;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// How many connections there may be beyond the limit of WebSockets. They get the page, the answer to
/// a health check or a proper 503. Half of them are for those that have been told to end.
pub const HTTP_ONLY_SLOTS: usize = 32;

/// The kernel's limits on this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How many memory maps there may be, `vm.max_map_count`.
    pub maps: u64,
    /// How many descriptors may be open, `RLIMIT_NOFILE`.
    pub descriptors: u64,
}

impl Limits {
    /// Raises the soft descriptor limit to the hard one, and reads what holds then.
    pub fn raise() -> Self {
        let mut files = getrlimit(Resource::Nofile);
        let raised = Rlimit { current: files.maximum, ..files };
        if setrlimit(Resource::Nofile, raised).is_ok() {
            files = raised;
        }
        Limits {
            maps: fs::read_to_string("/proc/sys/vm/max_map_count")
                .ok()
                .and_then(|count| count.trim().parse().ok())
                .unwrap_or(65_530),
            descriptors: files.current.unwrap_or(u64::MAX),
        }
    }

    /// How many clients can be connected at once, at most `asked`.
    ///
    /// A thread beyond `maps` does not fail to start: it aborts the whole process, since the guard
    /// page of its signal stack can't be set up. So this has to hold on the safe side.
    pub fn clients(self, asked: usize) -> usize {
        /// A thread's stack and signal stack, each with its guard page.
        const MAPS_PER_THREAD: u64 = 4;
        /// The message that comes in pieces.
        const MAPS_PER_CLIENT: u64 = MAPS_PER_THREAD + 1;
        /// The program, its libraries, the allocator's arenas, the accept threads.
        const MAPS_RESERVE: u64 = 2_048;
        /// The standard streams, the log file, listeners, the signal pipe, and one to say 503.
        const DESCRIPTORS_RESERVE: u64 = 24;

        let by_maps = self.maps.saturating_sub(MAPS_RESERVE) / MAPS_PER_CLIENT;
        let by_descriptors = self.descriptors.saturating_sub(DESCRIPTORS_RESERVE);
        let carried = usize::try_from(by_maps.min(by_descriptors)).unwrap_or(usize::MAX);
        asked.min(carried.saturating_sub(HTTP_ONLY_SLOTS)).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_stay_below_both_limits() {
        for (maps, descriptors, asked, clients) in [
            (65_530, 1_048_576, 10_000, 10_000),
            (65_530, 1_048_576, 100_000, 12_664),
            (1_048_576, 1_048_576, 100_000, 100_000),
            (1_048_576, 1_048_576, 1_000_000, 209_273),
            (65_530, 1_024, 10_000, 968),
            (65_530, 64, 10_000, 8),
            (65_530, 20, 10_000, 1),
            (0, 1_024, 10_000, 1),
            (u64::MAX, u64::MAX, usize::MAX, (u64::MAX - 2_048) as usize / 5 - 32),
            (65_530, 1_024, 5, 5),
        ] {
            let limits = Limits { maps, descriptors };
            assert_eq!(limits.clients(asked), clients, "{limits:?}, {asked} asked");
        }
    }
}
