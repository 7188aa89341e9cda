//! A wsecho of the test's own, its clients, and outside programs.

mod client;
#[cfg(target_os = "linux")]
mod linux;
mod program;
mod server;

use std::env;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

pub use client::*;
#[cfg(target_os = "linux")]
pub use linux::*;
pub use program::*;
pub use server::*;

/// How long anything may take that is expected to happen at once. Machines can be busy.
pub const SOON: Duration = Duration::from_secs(30);

/// How late a deadline may be noticed: a second or two, and more where machines are shared.
pub fn tolerance() -> Duration {
    Duration::from_secs(if is_ci() { 5 } else { 2 })
}

/// Fails unless `since` lies at least `least` back, and not much more.
#[track_caller]
pub fn assert_took(since: Instant, least: Duration) {
    let took = since.elapsed();
    assert!(took >= least && took < least + tolerance(), "{took:?} instead of {least:?}");
}

/// Waits until `condition` holds.
#[track_caller]
pub fn eventually(limit: Duration, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < limit, "not within {limit:?}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// The path of a file below `tests`.
pub fn data(file: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(file)
}

/// A number from the environment.
pub fn from_env(name: &str) -> Option<u64> {
    env::var(name).ok().map(|text| text.parse().expect(name))
}

/// A seed from the environment, or one that is new each time.
pub fn seed_from_env(name: &str) -> u64 {
    from_env(name).unwrap_or_else(|| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        u64::from(now.subsec_nanos())
    })
}

fn is_ci() -> bool {
    env::var("CI").as_deref() == Ok("true")
}
