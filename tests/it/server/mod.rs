//! The server over real sockets, against other people's programs, and under attack.

#[cfg(target_os = "linux")]
mod attacks;
#[cfg(target_os = "linux")]
mod behaviors;
#[cfg(target_os = "linux")]
mod cases;
mod clients;
mod command;
mod conversation;
#[cfg(target_os = "linux")]
mod crowd;
mod daemon;
#[cfg(target_os = "linux")]
mod deadlines;
#[cfg(target_os = "linux")]
mod fuzz;
mod handshake;
#[cfg(target_os = "linux")]
mod limits;
#[cfg(target_os = "linux")]
mod listening;
#[cfg(target_os = "linux")]
mod memory;
mod proxies;
mod proxy_protocol;
mod readme;
mod security;
#[cfg(target_os = "linux")]
mod soak;
#[cfg(target_os = "linux")]
mod stopping;
#[cfg(all(target_os = "linux", feature = "tls"))]
mod tls;
#[cfg(all(target_os = "linux", feature = "tls"))]
mod tls_records;
