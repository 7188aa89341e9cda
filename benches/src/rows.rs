//! What is measured.

use crate::servers::Kind;

/// One kind of work, measured with each of its servers.
pub struct Row {
    /// Its name in the samples and for `--only`.
    pub name: String,
    pub work: Work,
    pub wire: Wire,
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
    /// Connect and handshake, by so many clients at a time.
    Handshake { clients: usize },
    /// All clients connect at the same instant and wait for their first reply.
    Burst { clients: usize },
    /// Memory of clients that send nothing after one message.
    Idle { clients: usize, size: usize },
    /// So many clients connect, some talk, all talk, and the server stops. Four samples.
    Growth { clients: usize },
}

/// How messages are sent.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Wire {
    Plain,
    Tls,
    NoContextTakeover,
    ContextTakeover,
}

impl Wire {
    /// The mode of compression, as the servers' arguments name it.
    pub fn compression(self) -> Option<&'static str> {
        match self {
            Wire::Plain | Wire::Tls => None,
            Wire::NoContextTakeover => Some("no-context-takeover"),
            Wire::ContextTakeover => Some("context-takeover"),
        }
    }
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
    let table_row = |(name, cores, work)| {
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
        Row { cores, max_rounds, ..row(name, work, Wire::Plain, &servers) }
    };
    rows.into_iter().map(table_row).collect()
}

/// The rows of the two plots: throughput by the number of clients, and by the size of a message.
pub fn plots() -> Vec<Row> {
    let clients = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000];
    let by_clients = clients.map(|clients| (format!("clients-{clients}"), echo(clients, 20)));
    let sizes = (4..=24).step_by(2).map(|power| 1 << power);
    let by_size = sizes.map(|size| (format!("sizes-{size}"), echo(10, size)));
    by_clients
        .into_iter()
        .chain(by_size)
        .map(|(name, work)| row(&name, work, Wire::Plain, &ALL))
        .collect()
}

/// Encrypted messages and handshakes.
pub fn tls() -> Vec<Row> {
    let rows = [
        ("tls-20b-100", echo(100, 20)),
        ("tls-16k-100", echo(100, 16 * KIB)),
        ("tls-1m-4", echo(4, MIB)),
        ("tls-handshake-16", Work::Handshake { clients: 16 }),
    ];
    let servers = [Kind::TungsteniteTls, Kind::Nginx, Kind::Wsecho];
    rows.map(|(name, work)| row(name, work, Wire::Tls, &servers)).into()
}

/// Compressed messages.
pub fn compression() -> Vec<Row> {
    use Wire::{ContextTakeover, NoContextTakeover};
    let rows = [
        ("deflate-1k-100", echo(100, KIB), NoContextTakeover),
        ("deflate-1k-100-takeover", echo(100, KIB), ContextTakeover),
        ("deflate-64k-10", echo(10, 64 * KIB), NoContextTakeover),
        ("deflate-64k-10-takeover", echo(10, 64 * KIB), ContextTakeover),
    ];
    let servers = [
        Kind::Ws,
        Kind::WsLevel1,
        Kind::Websockets,
        Kind::WebsocketsLevel1,
        Kind::Uwebsockets,
        Kind::Wsecho,
    ];
    rows.map(|(name, work, wire)| row(name, work, wire, &servers)).into()
}

/// More and more clients of one process, and of three behind a proxy.
pub fn growth() -> Vec<Row> {
    [10, 100, 1_000, 3_000, 6_000, 12_000, 18_000, 20_000, 30_000]
        .map(|clients| {
            let work = Work::Growth { clients };
            row(&format!("growth-{clients}"), work, Wire::Plain, &[Kind::Wsecho, Kind::Haproxy])
        })
        .into()
}

/// A row with a core each for server and generator.
fn row(name: &str, work: Work, wire: Wire, servers: &[Kind]) -> Row {
    let (name, servers) = (name.to_owned(), servers.to_vec());
    Row { name, work, wire, cores: Cores::Two, servers, max_rounds: usize::MAX }
}

fn echo(clients: usize, size: usize) -> Work {
    Work::Echo { clients, depth: 1, size }
}
