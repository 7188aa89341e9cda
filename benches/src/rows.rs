//! What is measured.

use crate::servers::Kind;

/// One kind of work, measured with each of its servers.
pub struct Row {
    /// Its name in the samples and for `--only`.
    pub name: String,
    pub work: Work,
    pub cores: Cores,
    pub servers: Vec<Kind>,
    /// How many rounds it takes part in at most.
    pub max_rounds: usize,
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
    /// The first message of a new connection, timed without the handshake.
    First { size: usize },
    /// Connect, handshake, echo of 20 bytes, and closing handshake, by so many clients at a time.
    Connect { clients: usize },
    /// All clients connect at the same instant and wait for their first reply.
    Burst { clients: usize },
    /// Memory of clients that send nothing after one message.
    Idle { clients: usize, size: usize },
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Cores {
    /// Server and generator have a core each.
    Two,
    /// They share one. A single client with small messages would otherwise measure how long the
    /// kernel takes to wake an idle core.
    One,
}

const KIB: usize = 1 << 10;
pub const MIB: usize = 1 << 20;
const PIPELINED: Work = Work::Echo { clients: 10, depth: 64, size: 20 };

pub const ALL: [Kind; 5] =
    [Kind::Raw, Kind::Tungstenite, Kind::Fastwebsockets, Kind::Uwebsockets, Kind::Wsecho];

/// The rows of the tables.
pub fn table() -> Vec<Row> {
    use Cores::{One, Two};
    let rows = [
        ("20b-1", One, echo(1, 20)),
        ("20b-10", Two, echo(10, 20)),
        ("20b-100", Two, echo(100, 20)),
        ("20b-500", Two, echo(500, 20)),
        ("1k-1", One, echo(1, KIB)),
        ("1k-10", Two, echo(10, KIB)),
        ("1k-100", Two, echo(100, KIB)),
        ("1k-500", Two, echo(500, KIB)),
        ("16k-10", Two, echo(10, 16 * KIB)),
        ("16k-100", Two, echo(100, 16 * KIB)),
        ("pipelined", Two, PIPELINED),
        ("64k-10", Two, echo(10, 64 * KIB)),
        ("64k-100", Two, echo(100, 64 * KIB)),
        ("1m-1", Two, echo(1, MIB)),
        ("1m-4", Two, echo(4, MIB)),
        ("16m-1", Two, echo(1, 16 * MIB)),
        ("16m-4", Two, echo(4, 16 * MIB)),
        ("first-16m", Two, Work::First { size: 16 * MIB }),
        ("connect-1", One, Work::Connect { clients: 1 }),
        ("connect-16", Two, Work::Connect { clients: 16 }),
        ("idle", Two, Work::Idle { clients: 10_000, size: 20 }),
        ("idle-1m", Two, Work::Idle { clients: 10_000, size: MIB }),
        ("burst", Two, Work::Burst { clients: 4_000 }),
    ];
    let row = |(name, cores, work)| {
        let mut servers = ALL.to_vec();
        servers.extend(match name {
            "20b-100" => &[Kind::Prefix][..],
            "pipelined" => &[Kind::Prefix, Kind::TungsteniteBatch],
            _ => &[],
        });
        let max_rounds = match work {
            Work::Idle { .. } => 1,
            Work::Burst { .. } => 3,
            _ => usize::MAX,
        };
        Row { name: name.to_owned(), work, cores, servers, max_rounds }
    };
    rows.into_iter().map(row).collect()
}

/// The rows of the two plots: throughput by the number of clients, and by the size of a message.
pub fn plots() -> Vec<Row> {
    let clients = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000];
    let by_clients = clients.map(|clients| (format!("clients-{clients}"), echo(clients, 20)));
    let sizes = (4..=24).step_by(2).map(|power| 1 << power);
    let by_size = sizes.map(|size| (format!("sizes-{size}"), echo(10, size)));
    let row = |(name, work)| Row {
        name,
        work,
        cores: Cores::Two,
        servers: ALL.to_vec(),
        max_rounds: usize::MAX,
    };
    by_clients.into_iter().chain(by_size).map(row).collect()
}

fn echo(clients: usize, size: usize) -> Work {
    Work::Echo { clients, depth: 1, size }
}
