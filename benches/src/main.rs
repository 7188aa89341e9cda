//! Measures wsecho as a whole program against the limit of its shape and against its peers, and prints
//! the tables in Markdown.

mod connects;
mod load;
mod machine;
mod measure;
mod report;
mod rows;
mod serve;
mod servers;
mod stats;
mod wire;

use std::fs;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::measure::{Bench, Pinned};
use crate::report::{Burst, Outcome, Verdict};
use crate::rows::{ALL, Row};
use crate::servers::Kind;
use crate::stats::Histogram;

#[derive(Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    options: Options,
}

#[derive(Args)]
struct Options {
    /// Rounds of every row, the servers taking turns within each
    #[arg(long, default_value_t = 9)]
    rounds: usize,
    /// Rows to measure, by name; all without it
    #[arg(long, num_args = 1.., value_name = "NAME")]
    only: Vec<String>,
    /// Seconds for each figure, after a fifth of it to warm up
    #[arg(long, default_value_t = 0.5, value_name = "SECONDS")]
    cell: f64,
    /// Also write the tables to this file
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Leave it to the kernel on which cores server and generator run
    #[arg(long)]
    no_pin: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Become one of the servers; the benchmark starts itself this way
    #[command(hide = true)]
    Serve {
        kind: Kind,
        port: u16,
        wsecho: String,
        #[arg(long)]
        core: Option<usize>,
        #[arg(last = true)]
        arguments: Vec<String>,
    },
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = match cli.command {
        Some(Command::Serve {
            kind,
            port,
            wsecho,
            core,
            arguments,
        }) => serve::run(kind, port, core, &wsecho, &arguments).map(|()| ExitCode::SUCCESS),
        None => tables(&cli.options),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("{error}");
        ExitCode::FAILURE
    })
}

/// The rows that take a server of their own and no rounds.
const IDLE: &str = "idle";
const IDLE_AFTER_LARGE: &str = "idle-large";
const BURST: &str = "burst";

fn tables(options: &Options) -> io::Result<ExitCode> {
    let others = chosen(rows::against_others(), &options.only);
    let prefix = chosen(rows::with_prefix(), &options.only);
    let wants =
        |name: &str| options.only.is_empty() || options.only.iter().any(|only| only == name);
    check_names(&options.only)?;

    let (bench, cores) = set_up(options)?;
    let mut failures = Vec::new();
    let mut verdicts = Vec::new();
    let mut text = format!("{}\n\n", heading(&bench, cores, options.rounds));

    let (mut others, mut prefix) = (begin(others), begin(prefix));
    for round in 0..options.rounds {
        eprintln!("round {} of {}", round + 1, options.rounds);
        measure(&bench, round, ALL, &mut others, &mut failures);
        let own = [Kind::Wsecho, Kind::Prefix];
        measure(&bench, round, &own, &mut prefix, &mut failures);
    }
    let mut sections = Vec::new();
    if !others.is_empty() {
        sections.push(report::throughput(&others, &mut verdicts));
        sections.push(report::latency(&others));
        sections.push(report::cpu(&others, &mut verdicts));
    }
    if !prefix.is_empty() {
        sections.push(report::prefix(&prefix, &mut verdicts));
    }
    if wants(IDLE) {
        sections.push(idle(&bench, &mut verdicts, &mut failures));
    }
    if wants(IDLE_AFTER_LARGE) {
        sections.push(idle_after_large(&bench, &mut verdicts, &mut failures));
    }
    if wants(BURST) {
        let rounds = options.rounds.min(3);
        sections.push(burst(&bench, rounds, &mut verdicts, &mut failures));
    }
    text += &sections.join("\n");
    text += "\n";
    text += &report::summary(&verdicts);
    print!("{text}");
    if let Some(path) = &options.out {
        fs::write(path, &text)?;
    }
    for failure in &failures {
        eprintln!("failed: {failure}");
    }
    Ok(if failures.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn set_up(options: &Options) -> io::Result<(Bench, usize)> {
    let cell = Duration::try_from_secs_f64(options.cell).map_err(io::Error::other)?;
    machine::raise_descriptor_limit()?;
    let wsecho = servers::wsecho()?;
    let cores = machine::cores()?;
    let pinned = match cores[..] {
        _ if options.no_pin => None,
        [server, generator, ..] => Some(Pinned { server, generator }),
        [only] => Some(Pinned {
            server: only,
            generator: only,
        }),
        [] => None,
    };
    if let Some(pinned) = pinned {
        machine::pin(pinned.generator)?;
    }
    let bench = Bench {
        wsecho,
        cell,
        pinned,
    };
    Ok((bench, cores.len()))
}

fn heading(bench: &Bench, cores: usize, rounds: usize) -> String {
    let pinned = match bench.pinned {
        Some(pinned) => format!(
            "server on core {}, generator on core {}, both on core {1} where the table says one",
            pinned.server, pinned.generator,
        ),
        None => "server and generator on any core".to_owned(),
    };
    format!(
        "{}; {pinned}; {rounds} rounds of {} s.",
        machine::describe(cores),
        bench.cell.as_secs_f64(),
    )
}

fn check_names(only: &[String]) -> io::Result<()> {
    let mut names = vec![IDLE, IDLE_AFTER_LARGE, BURST];
    names.extend(rows::against_others().iter().map(|row| row.name));
    names.extend(rows::with_prefix().iter().map(|row| row.name));
    match only.iter().find(|only| !names.contains(&only.as_str())) {
        Some(unknown) => Err(io::Error::other(format!(
            "no row {unknown}; there are: {}",
            names.join(" ")
        ))),
        None => Ok(()),
    }
}

fn chosen(mut rows: Vec<Row>, only: &[String]) -> Vec<Row> {
    rows.retain(|row| only.is_empty() || only.iter().any(|name| name == row.name));
    rows
}

fn begin(rows: Vec<Row>) -> Vec<Outcome> {
    rows.into_iter()
        .map(|row| Outcome {
            row,
            rounds: Vec::new(),
        })
        .collect()
}

/// One round: every row, every server once, each row beginning with another server.
fn measure(
    bench: &Bench,
    round: usize,
    servers: &[Kind],
    outcomes: &mut [Outcome],
    failures: &mut Vec<String>,
) {
    for (index, outcome) in outcomes.iter_mut().enumerate() {
        let first = (round + index) % servers.len();
        let mut cells = Vec::new();
        for &kind in servers[first..].iter().chain(&servers[..first]) {
            match bench.cell(kind, outcome.row.work, outcome.row.cores) {
                Ok(cell) => cells.push((kind, cell)),
                Err(error) => failures.push(failure(outcome.row.name, kind, &error)),
            }
        }
        outcome.rounds.push(cells);
    }
}

fn idle(bench: &Bench, verdicts: &mut Vec<Verdict>, failures: &mut Vec<String>) -> String {
    const CLIENTS: usize = 10_000;
    const GOAL: f64 = 12.0;
    let mut footprints = Vec::new();
    for &kind in ALL {
        match bench.idle(kind, CLIENTS) {
            Ok(footprint) => footprints.push((kind, footprint)),
            Err(error) => failures.push(failure(IDLE, kind, &error)),
        }
    }
    let title = "Memory of a client that is idle after one message";
    report::memory(title, &footprints, GOAL, verdicts)
}

fn idle_after_large(
    bench: &Bench,
    verdicts: &mut Vec<Verdict>,
    failures: &mut Vec<String>,
) -> String {
    const GOAL: f64 = 16.0;
    let mut footprints = Vec::new();
    for &kind in ALL {
        // A library that keeps what it grew to holds megabytes for each of them.
        let clients = match kind {
            Kind::Tungstenite | Kind::Fastwebsockets => 500,
            Kind::Raw | Kind::Wsecho | Kind::Prefix => 10_000,
        };
        match bench.idle_after_large(kind, clients) {
            Ok(footprint) => footprints.push((kind, footprint)),
            Err(error) => failures.push(failure(IDLE_AFTER_LARGE, kind, &error)),
        }
    }
    let title = "Memory of a client that is idle after 1 MiB and a ping interval of silence";
    report::memory(title, &footprints, GOAL, verdicts)
}

fn burst(
    bench: &Bench,
    rounds: usize,
    verdicts: &mut Vec<Verdict>,
    failures: &mut Vec<String>,
) -> String {
    const CLIENTS: usize = 4_000;
    let mut bursts = Vec::new();
    for &kind in ALL {
        let mut waits = Histogram::new();
        for _ in 0..rounds {
            match bench.burst(kind, CLIENTS) {
                Ok(more) => waits.merge(&more),
                Err(error) => failures.push(failure(BURST, kind, &error)),
            }
        }
        if !waits.is_empty() {
            bursts.push(Burst {
                kind,
                clients: CLIENTS,
                waits,
            });
        }
    }
    report::bursts(&bursts, verdicts)
}

fn failure(row: &str, kind: Kind, error: &io::Error) -> String {
    format!("{row}, {}: {error}", kind.name())
}
