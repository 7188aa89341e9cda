//! What is measured: the rows of the table, on which cores, and the goals of each.

use crate::servers::Kind;

pub struct Row {
    /// What `--only` calls it.
    pub name: &'static str,
    pub title: &'static str,
    pub work: Work,
    pub cores: Cores,
    pub goals: Vec<Goal>,
}

#[derive(Clone, Copy)]
pub enum Work {
    Echo {
        clients: usize,
        /// Messages that each client keeps in flight.
        depth: usize,
        /// Bytes of payload.
        size: usize,
    },
    /// Connect, shake hands, echo 20 bytes and close.
    Connect { at_once: usize },
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Cores {
    /// Server and generator on a core each.
    Two,
    /// Both on one. A single client with small messages would otherwise measure how long the kernel
    /// takes to wake an idle core.
    One,
}

/// `of` is at least `times` as fast as `against`.
#[derive(Clone, Copy)]
pub struct Goal {
    pub of: Kind,
    pub against: Kind,
    pub times: f64,
}

impl Work {
    /// Whether whole messages are too few to count: then bytes are.
    pub fn counts_bytes(self) -> bool {
        matches!(self, Work::Echo { size, .. } if size >= MIB)
    }
}

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

/// The servers of the rows that every server is measured in.
pub const ALL: &[Kind] = &[Kind::Raw, Kind::Tungstenite, Kind::Fastwebsockets, Kind::Wsecho];

/// Every server in the same work; the goals are multiples of raw TCP and of tungstenite.
pub fn against_others() -> Vec<Row> {
    use Cores::{One, Two};
    let row = |name, title, work, cores, raw, tungstenite| Row {
        name,
        title,
        work,
        cores,
        goals: vec![wsecho(raw, Kind::Raw), wsecho(tungstenite, Kind::Tungstenite)],
    };
    let ahead_of_event_loops = |mut row: Row| {
        row.goals.push(wsecho(1.0, Kind::Fastwebsockets));
        row
    };
    vec![
        row("20b-1", "20 B, 1 client", echo(1, 20), One, 0.97, 0.95),
        row("20b-10", "20 B, 10 clients", echo(10, 20), Two, 0.97, 1.1),
        row("20b-100", "20 B, 100 clients", echo(100, 20), Two, 0.97, 1.1),
        row("20b-500", "20 B, 500 clients", echo(500, 20), Two, 0.97, 1.1),
        row("1k-1", "1 KiB, 1 client", echo(1, KIB), One, 0.97, 0.95),
        row("1k-10", "1 KiB, 10 clients", echo(10, KIB), Two, 0.97, 1.1),
        row("1k-100", "1 KiB, 100 clients", echo(100, KIB), Two, 0.97, 1.1),
        row("1k-500", "1 KiB, 500 clients", echo(500, KIB), Two, 0.97, 1.1),
        row("16k-10", "16 KiB, 10 clients", echo(10, 16 * KIB), Two, 0.92, 1.1),
        row("16k-100", "16 KiB, 100 clients", echo(100, 16 * KIB), Two, 0.92, 1.1),
        row("pipelined", "20 B, 10 clients, 64 in flight", PIPELINED, Two, 0.95, 14.0),
        row("1m-1", "1 MiB, 1 client", echo(1, MIB), Two, 0.85, 0.95),
        row("1m-4", "1 MiB, 4 clients", echo(4, MIB), Two, 1.15, 1.1),
        ahead_of_event_loops(row("16m-1", "16 MiB, 1 client", echo(1, 16 * MIB), Two, 1.0, 0.95)),
        ahead_of_event_loops(row("16m-4", "16 MiB, 4 clients", echo(4, 16 * MIB), Two, 1.2, 1.1)),
        row("connect-1", "connect … close, one after another", connect(1), One, 0.5, 0.95),
        row("connect-16", "connect … close, 16 at once", connect(16), Two, 0.8, 1.1),
    ]
}

/// wsecho with its default prefix beside wsecho without.
pub fn with_prefix() -> Vec<Row> {
    let row = |name, title, work, times| Row {
        name,
        title,
        work,
        cores: Cores::Two,
        goals: vec![Goal { of: Kind::Prefix, against: Kind::Wsecho, times }],
    };
    vec![
        row("prefix", "20 B, 100 clients", echo(100, 20), 0.95),
        row("prefix-pipelined", "20 B, 10 clients, 64 in flight", PIPELINED, 0.85),
    ]
}

const PIPELINED: Work = Work::Echo { clients: 10, depth: 64, size: 20 };

pub fn echo(clients: usize, size: usize) -> Work {
    Work::Echo { clients, depth: 1, size }
}

fn connect(at_once: usize) -> Work {
    Work::Connect { at_once }
}

fn wsecho(times: f64, against: Kind) -> Goal {
    Goal { of: Kind::Wsecho, against, times }
}
