//! Listeners, accept loops, a thread per client, and the stop.

use std::error::Error;
use std::hint;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use log::{debug, info, warn};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::buffer::Budget;
use crate::cli::Config;
use crate::clients::Clients;
use crate::connection;
use crate::handshake::{Answer, Rejection};
use crate::limits::Limits;
use crate::notify;
use crate::request::MAX_HEAD_LEN;

/// A client's stack, in bytes. Deep enough for all that its thread does, the log included, and small
/// enough that many stacks share a page of page tables.
const STACK: usize = 64 * 1024;

/// How many clients may wait to be accepted; std's 128 lets a burst wait a second for a repeated SYN.
const BACKLOG: i32 = 4096;

/// Serves until SIGINT or SIGTERM has come and every client was given time to say goodbye. A second
/// signal ends the process at once.
///
/// # Errors
///
/// An address that can't be listened on.
pub fn serve(config: Config) -> Result<(), Box<dyn Error>> {
    // SIGHUP is left as it is: nohup, for one, has it ignored.
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    let listeners = config
        .addr
        .iter()
        .map(|addr| listen(addr).map_err(|error| format!("cannot listen on {addr}: {error}")))
        .collect::<Result<Vec<_>, _>>()?;
    announce(&listeners)?;

    let max_connections = Limits::raise().clients(config.max_connections);
    if max_connections < config.max_connections {
        warn!(
            "--max-connections is {max_connections} instead of {}: the kernel's vm.max_map_count \
             and descriptor limit carry no more",
            config.max_connections
        );
    }
    let close_timeout = config.close_timeout;
    let house = Arc::new(House {
        clients: Arc::new(Clients::new(max_connections)),
        budget: Arc::new(Budget::new(config.max_buffered)),
        config,
    });
    for listener in listeners {
        let house = Arc::clone(&house);
        thread::Builder::new()
            .name("accept".into())
            .spawn(move || accept(&listener, &house))?;
    }
    notify::service_manager("READY=1");

    signals.forever().next();
    notify::service_manager("STOPPING=1");
    info!("stopping, with {close_timeout:?} for the clients to answer");
    thread::spawn(move || {
        if let Some(signal) = signals.forever().next() {
            process::exit(128 + signal);
        }
    });
    let (told, cut) = house.clients.stop(close_timeout);
    info!("stopped: {told} clients were connected, {cut} of them had to be cut");
    Ok(())
}

/// What all threads share.
struct House {
    config: Config,
    clients: Arc<Clients>,
    budget: Arc<Budget>,
}

fn listen(addr: &str) -> Result<TcpListener, std::io::Error> {
    let listener = TcpListener::bind(addr)?;
    rustix::net::listen(&listener, BACKLOG)?;
    Ok(listener)
}

fn announce(listeners: &[TcpListener]) -> Result<(), std::io::Error> {
    let addrs = listeners
        .iter()
        .map(TcpListener::local_addr)
        .collect::<Result<Vec<_>, _>>()?;
    let urls: Vec<_> = addrs.iter().map(|addr| format!("ws://{addr}/")).collect();
    let pages: Vec<_> = addrs.iter().map(|addr| format!("http://{addr}/")).collect();
    info!(
        "listening on {}, page at {}",
        urls.join(" "),
        pages.join(" ")
    );
    Ok(())
}

/// Accepts clients for as long as the process lives: nothing that a client or the kernel does ends
/// it, and a stopping server goes on to say 503.
fn accept(listener: &TcpListener, house: &Arc<House>) {
    /// What takes descriptors or memory away may give them back; to ask again at once would spin.
    const PAUSE: Duration = Duration::from_millis(100);

    let mut warned = false;
    loop {
        match listener.accept() {
            Ok((stream, peer)) => {
                warned = false;
                admit(stream, peer, house);
            }
            Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
            Err(error) => {
                if !warned {
                    warn!("cannot accept clients for now: {error}");
                }
                warned = true;
                thread::sleep(PAUSE);
            }
        }
    }
}

fn admit(stream: TcpStream, peer: SocketAddr, house: &Arc<House>) {
    let seat = match house.clients.admit(stream, peer) {
        Ok(seat) => seat,
        Err((stream, why)) => return turn_away(&stream, peer, why),
    };
    // A failed spawn drops its closure and the seat in it, but there is still a 503 to send.
    let client = Arc::clone(seat.client());
    let house = Arc::clone(house);
    let spawned = thread::Builder::new()
        .name(format!("client-{}", client.id))
        .stack_size(STACK)
        .spawn(move || {
            connection::serve(seat.client(), &house.config, &house.budget);
            return_memory();
        });
    if let Err(error) = spawned {
        warn!("no thread for client {}: {error}", client.id);
        turn_away(&client.stream, peer, "the server has no thread left");
    }
}

/// Has the allocator give back what the client's small blocks made up: glibc joins them only when a
/// block of 64 KiB or more is freed beside them, like this one, of which not a byte is touched.
/// Without it a crowd that has left leaves 3.6 KiB a client behind, with it 0.9.
fn return_memory() {
    drop(hint::black_box(Vec::<u8>::with_capacity(96 * 1024)));
}

/// Answers 503 without ever waiting for the client. Reading what it has sent, most often its whole
/// head, keeps the answer from being lost to a reset.
fn turn_away(mut stream: &TcpStream, peer: SocketAddr, why: &'static str) {
    debug!("{peer} got 503: {why}");
    let answer = Answer::Reject(Rejection::Unavailable(why)).encode("GET");
    let _ = stream
        .set_nonblocking(true)
        .and_then(|()| stream.write_all(&answer))
        .and_then(|()| stream.shutdown(Shutdown::Write))
        .and_then(|()| stream.read(&mut [0; MAX_HEAD_LEN]));
}
