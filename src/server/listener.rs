//! Listening sockets: TCP, Unix-domain, and inherited from a supervisor.

use std::ffi::OsStr;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, ErrorKind, PipeReader};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, ToSocketAddrs as _};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::os::unix::net::{self as unix, UnixListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use std::{iter, mem, thread};

use listenfd::ListenFd;
use log::{info, warn};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FlockOperation, flock};
use rustix::io::{Errno, ioctl_fionbio};
use rustix::net::sockopt::{self, Timeout};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, connect, socket};
#[cfg(target_os = "linux")]
use rustix::net::{SocketFlags, acceptfrom_with};

use crate::app::peer::Peer;
use crate::app::settings::WRITE_TIMEOUT_PARTS;
use crate::cli::DEFAULT_ADDR;
use crate::server::socket::Socket;

/// The maximum number of connections that wait to be accepted. With std's 128, clients in a burst wait a
/// second for a repeated SYN.
const BACKLOG: i32 = 4096;

/// All listening sockets.
pub struct Listeners {
    sockets: Vec<Listener>,
    write_timeout: Duration,
    /// Whether some are inherited, and so outlive this process.
    pub are_inherited: bool,
}

/// A listening socket. It never blocks, since another process may accept from it as well.
struct Listener {
    /// The file to remove before the socket is closed.
    _file: Option<SocketFile>,
    socket: OwnedFd,
    addr: Addr,
    /// Whether its queue may hold connections from before it was configured.
    is_inherited: bool,
}

/// The address of a listening socket. It is displayed in the form of `--addr`.
enum Addr {
    Tcp(SocketAddr),
    /// A path, or `@` and a name in the abstract namespace.
    Unix(String),
}

impl Listeners {
    /// Inherits the sockets that `LISTEN_FDS` and `LISTEN_PID` announce (sd_listen_fds(3)). Call it before
    /// any other socket is opened, which could be mistaken for one of them.
    ///
    /// # Errors
    ///
    /// The first socket that can't be listened on, and why.
    pub fn inherit(mut inherited: ListenFd, write_timeout: Duration) -> Result<Self, String> {
        let sockets = (0..inherited.len()).map(|index| {
            inherit(&mut inherited, index)
                .map_err(|error| format!("cannot use inherited socket {index}: {error}"))
        });
        let sockets: Vec<_> = sockets.collect::<Result<_, _>>()?;
        Ok(Listeners { are_inherited: !sockets.is_empty(), sockets, write_timeout })
    }

    /// Also listens on each address, or on [`DEFAULT_ADDR`] if there is neither an address nor an
    /// inherited socket.
    ///
    /// # Errors
    ///
    /// The first address that can't be listened on, and why.
    pub fn listen(&mut self, addrs: &[String]) -> Result<(), String> {
        let default = [DEFAULT_ADDR.into()];
        let addrs = if addrs.is_empty() && !self.are_inherited { &default } else { addrs };
        for addr in addrs {
            let bound = match addr.strip_prefix("unix:") {
                Some(name) => bind_unix(name).map(|listener| vec![listener]),
                None => bind_tcp(addr),
            };
            self.sockets.extend(bound.map_err(|error| {
                format!("cannot listen on {addr}: {error}{}", hint(addr, &error))
            })?);
        }
        for listener in &self.sockets {
            listener
                .configure(self.write_timeout)
                .map_err(|error| format!("cannot listen on {}: {error}", listener.addr))?;
        }
        Ok(())
    }

    /// Logs the server's URLs for clients and browsers, with these schemes.
    pub fn log(&self, ws: &str, http: &str) {
        let (mut sockets, mut pages, mut families) = (String::new(), String::new(), String::new());
        for Listener { addr, socket, .. } in &self.sockets {
            let &Addr::Tcp(addr) = addr else {
                sockets += &format!(" {addr}");
                continue;
            };
            sockets += &format!(" {ws}://{addr}/");
            // Many browsers don't open 0.0.0.0 and [::], and [::1] does not exist where IPv6 is off.
            let ip = match addr.ip() {
                IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
                IpAddr::V6(Ipv6Addr::UNSPECIFIED) => {
                    let (served, ip) = match sockopt::ipv6_v6only(socket) {
                        Ok(false) => ("IPv4, too", Ipv4Addr::LOCALHOST.into()),
                        _ => ("IPv6 only", Ipv6Addr::LOCALHOST.into()),
                    };
                    families += &format!("; {addr} serves {served}");
                    ip
                }
                ip => ip,
            };
            let mut page = addr;
            page.set_ip(ip);
            pages += &format!(" {http}://{page}/");
        }
        let pages = if pages.is_empty() { pages } else { format!(", page at{pages}") };
        info!("listening on{sockets}{pages}{families}");
    }

    /// Calls `serve` for each client until `stop` has ended. No error of a client or the kernel ends it
    /// earlier.
    pub fn accept(&self, stop: &PipeReader, mut serve: impl FnMut(Socket)) {
        let sockets =
            self.sockets.iter().map(|listener| PollFd::new(&listener.socket, PollFlags::IN));
        let mut fds: Vec<_> = iter::once(PollFd::new(stop, PollFlags::IN)).chain(sockets).collect();
        let mut warned = false;
        loop {
            // poll fails only if a signal interrupts it.
            while poll(&mut fds, None).is_err() {}
            let mut are_ready = fds.iter().map(|fd| !fd.revents().is_empty());
            if are_ready.next() == Some(true) {
                return;
            }
            for (listener, _) in self.sockets.iter().zip(are_ready).filter(|(_, ready)| *ready) {
                match listener.accept(self.write_timeout) {
                    Ok(socket) => {
                        warned = false;
                        serve(socket);
                    }
                    // The client is gone, or another process accepted it.
                    Err(error) if is_about_one_client(&error) => {}
                    Err(error) => {
                        if !mem::replace(&mut warned, true) {
                            warn!("cannot accept clients for now: {error}");
                        }
                        pause(stop);
                    }
                }
            }
        }
    }
}

fn is_about_one_client(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::WouldBlock | ErrorKind::ConnectionAborted | ErrorKind::Interrupted
    )
}

/// Waits briefly, or until `stop` has ended. Descriptors or memory may become free meanwhile, and an
/// immediate retry would spin.
fn pause(stop: &PipeReader) {
    const PAUSE: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
    let _ = poll(&mut [PollFd::new(stop, PollFlags::IN)], Some(&PAUSE));
}

fn inherit(inherited: &mut ListenFd, index: usize) -> io::Result<Listener> {
    let listener = if let Ok(Some(listener)) = inherited.take_tcp_listener(index) {
        Listener::tcp(listener)?
    } else if let Ok(Some(listener)) = inherited.take_unix_listener(index) {
        Listener::unix(listener, None)?
    } else {
        return Err(io::Error::other("it is neither a TCP nor a Unix-domain stream socket"));
    };
    // Otherwise each accept would fail.
    if !sockopt::socket_acceptconn(&listener.socket)? {
        return Err(io::Error::other("it does not listen; a socket unit needs Accept=no"));
    }
    Ok(Listener { is_inherited: true, ..listener })
}

/// Listens on every address of the `HOST:PORT` `addr` that this machine has.
fn bind_tcp(addr: &str) -> io::Result<Vec<Listener>> {
    let mut listeners = Vec::new();
    let mut bound: Vec<SocketAddr> = Vec::new();
    let mut missing = None;
    for addr in resolve(addr)? {
        if bound.iter().any(|known| known.ip() == addr.ip()) {
            continue;
        }
        // For port 0, all addresses share one port, unless another program uses it.
        let mut same_port = addr;
        same_port.set_port(bound.first().map_or(addr.port(), SocketAddr::port));
        match TcpListener::bind(&[same_port, addr][..]) {
            Ok(listener) => {
                bound.push(listener.local_addr()?);
                listeners.push(Listener::tcp(listener)?);
            }
            // A name often has an IPv6 address on machines without IPv6.
            Err(error) if is_missing(&error) => missing = Some((addr, error)),
            Err(error) => return Err(error),
        }
    }
    match missing {
        Some((_, error)) if listeners.is_empty() => return Err(error),
        Some((addr, error)) => warn!("cannot listen on {addr}: {error}"),
        None => {}
    }
    Ok(listeners)
}

/// The addresses of a `HOST:PORT`.
fn resolve(addr: &str) -> io::Result<Vec<SocketAddr>> {
    let (host, port) = addr.rsplit_once(':').unwrap_or((addr, ""));
    let port = port.parse().map_err(io::Error::other)?;
    // The brackets of an IPv6 address, which may have a scope: [fe80::1%eth0].
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let is_name = !host.contains(':') && host.parse::<Ipv4Addr>().is_err();
    if cfg!(target_feature = "crt-static")
        && is_name
        && let Ok(output) = Command::new("getent").args(["ahosts", host]).output()
    {
        return addresses(&output.stdout, port);
    }
    Ok((host, port).to_socket_addrs()?.collect())
}

/// The addresses in the output of `getent ahosts`. A static program runs getent, since a static glibc
/// would load the system's name service modules, and crashes if they are of another version.
fn addresses(printed: &[u8], port: u16) -> io::Result<Vec<SocketAddr>> {
    let printed = String::from_utf8_lossy(printed);
    let addresses = printed.lines().filter_map(|line| line.split_whitespace().next()?.parse().ok());
    let addresses: Vec<_> = addresses.map(|ip: IpAddr| SocketAddr::new(ip, port)).collect();
    if addresses.is_empty() {
        return Err(io::Error::other("failed to lookup address information"));
    }
    Ok(addresses)
}

fn is_missing(error: &io::Error) -> bool {
    let errno = Errno::from_io_error(error);
    matches!(errno, Some(Errno::ADDRNOTAVAIL | Errno::AFNOSUPPORT))
}

/// A hint on how to fix an error, to append to its line.
fn hint(addr: &str, error: &io::Error) -> &'static str {
    match (error.kind(), addr.starts_with("unix:")) {
        (ErrorKind::AddrInUse, false) => {
            "; another program or --addr listens there: stop it, or choose another port with --addr"
        }
        (ErrorKind::AddrInUse, true) => {
            "; another program or --addr listens there: stop it, or choose another name with --addr"
        }
        (ErrorKind::PermissionDenied, false) => {
            "; a port below 1024 needs root or CAP_NET_BIND_SERVICE: choose a higher one with --addr"
        }
        (ErrorKind::PermissionDenied, true) => {
            "; this user must be able to read and write its directory, and a socket that is there"
        }
        (ErrorKind::AddrNotAvailable, _) => "; this machine does not have that address",
        (ErrorKind::InvalidInput, true) => "; its maximum length is 107 bytes",
        (ErrorKind::InvalidInput, false) => {
            "; a link-local address needs its interface, for example [fe80::1%eth0]:1222"
        }
        (_, false) if addr.contains('%') => {
            "; no interface of this machine has that name, or the address is not link-local"
        }
        _ if Errno::from_io_error(error) == Some(Errno::AFNOSUPPORT) => {
            "; this machine has no IPv6"
        }
        _ => "",
    }
}

/// The address of a path, or of a name in the abstract namespace after an `@`, which only Linux has.
pub fn unix_addr(name: &OsStr) -> io::Result<unix::SocketAddr> {
    #[cfg(target_os = "linux")]
    if let Some(name) = name.as_bytes().strip_prefix(b"@") {
        return <unix::SocketAddr as std::os::linux::net::SocketAddrExt>::from_abstract_name(name);
    }
    unix::SocketAddr::from_pathname(name)
}

/// Listens on a path, or on a name in the abstract namespace after an `@`.
fn bind_unix(name: &str) -> io::Result<Listener> {
    let addr = unix_addr(name.as_ref())?;
    let Some(path) = addr.as_pathname() else {
        return Listener::unix(UnixListener::bind_addr(&addr)?, None);
    };
    // Until the socket listens, another starting process would consider its file stale.
    let _lock = lock_directory(path)?;
    let listener = match UnixListener::bind_addr(&addr) {
        Err(error) if error.kind() == ErrorKind::AddrInUse => {
            if !fs::symlink_metadata(path)?.file_type().is_socket() {
                return Err(io::Error::other("the file exists and is not a socket"));
            }
            if !is_stale(path)? {
                return Err(error);
            }
            fs::remove_file(path)?;
            UnixListener::bind_addr(&addr)?
        }
        bound => bound?,
    };
    Listener::unix(listener, Some(SocketFile::new(path)?))
}

/// Whether no process owns the socket file at `path`.
fn is_stale(path: &Path) -> io::Result<bool> {
    let socket = socket(AddressFamily::UNIX, SocketType::STREAM, None)?;
    // A blocking connect would wait while the queue of a live socket is full.
    ioctl_fionbio(&socket, true)?;
    match connect(socket, &SocketAddrUnix::new(path)?) {
        Err(Errno::CONNREFUSED) => Ok(!is_bound(path)),
        // The state is unknown, and "in use" would send the operator looking for a program.
        Err(Errno::ACCESS) => Err(Errno::ACCESS.into()),
        _ => Ok(false),
    }
}

/// Whether a process has bound a socket to a path with this file name but does not listen yet. Such a
/// socket refuses connections, just as a stale file does. Only Linux lists its sockets in a file.
fn is_bound(path: &Path) -> bool {
    /// The columns Protocol, Flags, Type and St of a stream socket that is bound and nothing else.
    const BOUND: &str = " 00000000 00000000 0001 01 ";

    let sockets = fs::read("/proc/net/unix").unwrap_or_default();
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    String::from_utf8_lossy(&sockets).lines().filter(|line| line.contains(BOUND)).any(|line| {
        // The listed path is the one passed to bind, and may be relative.
        line.strip_suffix(&*name).is_some_and(|directory| directory.ends_with(['/', ' ']))
    })
}

/// Locks the directory of `path` against other starting processes until dropped. Any user may hold the
/// lock, so this waits only briefly.
fn lock_directory(path: &Path) -> io::Result<File> {
    const PATIENCE: Duration = Duration::from_secs(1);

    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let directory = directory.unwrap_or(Path::new("."));
    let file = File::open(directory)?;
    let deadline = Instant::now() + PATIENCE;
    while let Err(error) = flock(&file, FlockOperation::NonBlockingLockExclusive) {
        if error != Errno::WOULDBLOCK {
            return Err(error.into());
        }
        if Instant::now() >= deadline {
            warn!(
                "another program keeps {} locked; starting without the lock",
                directory.display()
            );
            break;
        }
        thread::sleep(Duration::from_millis(5));
    }
    Ok(file)
}

/// A socket's file. Dropping it removes the file, unless another file has replaced it.
struct SocketFile {
    path: PathBuf,
    /// Its device and inode, which are unique while the socket is open.
    id: (u64, u64),
}

impl SocketFile {
    fn new(path: &Path) -> io::Result<Self> {
        Ok(SocketFile { path: std::path::absolute(path)?, id: Self::id(path)? })
    }

    fn id(path: &Path) -> io::Result<(u64, u64)> {
        fs::symlink_metadata(path).map(|file| (file.dev(), file.ino()))
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _lock = lock_directory(&self.path);
        if Self::id(&self.path).is_ok_and(|id| id == self.id) {
            // If this fails, the next start replaces the file.
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl Listener {
    fn tcp(listener: TcpListener) -> io::Result<Self> {
        let addr = Addr::Tcp(listener.local_addr()?);
        Ok(Listener { socket: listener.into(), addr, is_inherited: false, _file: None })
    }

    fn unix(listener: UnixListener, file: Option<SocketFile>) -> io::Result<Self> {
        let addr = Addr::Unix(name_of(&listener.local_addr()?));
        Ok(Listener { socket: listener.into(), addr, is_inherited: false, _file: file })
    }

    fn configure(&self, write_timeout: Duration) -> io::Result<()> {
        ioctl_fionbio(&self.socket, true)?;
        self.set_options(&self.socket, write_timeout)?;
        Ok(rustix::net::listen(&self.socket, BACKLOG)?)
    }

    fn accept(&self, write_timeout: Duration) -> io::Result<Socket> {
        #[cfg(target_os = "linux")]
        let (socket, peer) = acceptfrom_with(&self.socket, SocketFlags::CLOEXEC)?;
        #[cfg(not(target_os = "linux"))]
        let (socket, peer) = {
            let (socket, peer) = rustix::net::acceptfrom(&self.socket)?;
            rustix::io::fcntl_setfd(&socket, rustix::io::FdFlags::CLOEXEC)?;
            // Except on Linux, the new socket inherits O_NONBLOCK.
            ioctl_fionbio(&socket, false)?;
            (socket, peer)
        };
        let peer = peer.and_then(|peer| peer.try_into().ok()).map_or(Peer::Unix, Peer::Tcp);
        if self.is_inherited || peer == Peer::Unix {
            // If the client is gone, its thread will notice.
            let _ = self.set_options(&socket, write_timeout);
        }
        Ok(Socket::new(socket, peer))
    }

    /// Sets the options of `socket`, which is the listening one or an accepted one. On Linux, accepted TCP
    /// sockets inherit them, which saves each one these system calls.
    fn set_options(&self, socket: &OwnedFd, write_timeout: Duration) -> io::Result<()> {
        if let Addr::Tcp(_) = self.addr {
            // Replies are sent whole, so Nagle's algorithm would only delay them.
            sockopt::set_tcp_nodelay(socket, true)?;
            // Ends a connection whose peer accepts no data, even while no thread is sending, and after
            // the close.
            #[cfg(target_os = "linux")]
            {
                let millis = write_timeout.as_millis().clamp(1, i32::MAX as u128);
                sockopt::set_tcp_user_timeout(socket, millis as u32)?;
            }
        }
        let part = (write_timeout / WRITE_TIMEOUT_PARTS).max(Duration::from_micros(1));
        Ok(sockopt::set_socket_timeout(socket, Timeout::Send, Some(part))?)
    }
}

impl fmt::Display for Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Addr::Tcp(addr) => addr.fmt(f),
            Addr::Unix(name) => write!(f, "unix:{name}"),
        }
    }
}

/// The path of a Unix-domain address, or `@` and its name in the abstract namespace.
fn name_of(addr: &unix::SocketAddr) -> String {
    #[cfg(target_os = "linux")]
    if let Some(name) = std::os::linux::net::SocketAddrExt::as_abstract_name(addr) {
        return format!("@{}", name.escape_ascii());
    }
    addr.as_pathname().map(|path| path.display().to_string()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_addresses_of_a_name_are_those_that_getent_prints() {
        let printed =
            b"::1             STREAM localhost\n::1             DGRAM\n127.0.0.1       STREAM\n";
        let [first, .., last] = addresses(printed, 80).unwrap()[..] else { panic!("several") };
        assert_eq!(
            (first.to_string(), last.to_string()),
            ("[::1]:80".into(), "127.0.0.1:80".into())
        );
        assert!(addresses(b"", 80).is_err());
    }

    /// Root may access everything, so the tests over sockets may miss this.
    #[test]
    fn what_is_hinted_at_fits_the_address() {
        let hint = |addr| hint(addr, &ErrorKind::PermissionDenied.into());
        assert!(hint("127.0.0.1:80").contains("a port below 1024"));
        assert!(hint("unix:/run/wsecho").contains("write its directory"));
    }
}
