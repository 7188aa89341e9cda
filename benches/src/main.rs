//! Measures wsecho as a whole program against the limit of its shape and against its peers: tables in
//! Markdown, or the two plots.

mod connects;
mod load;
mod machine;
mod measure;
mod plots;
mod report;
mod rounds;
mod rows;
mod serve;
mod servers;
mod svg;
mod tables;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::measure::{Bench, Pinned};
use crate::servers::Kind;

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
    /// Rounds of every row, the servers taking turns within each [default: 9, 3 for the plots]
    #[arg(long)]
    rounds: Option<usize>,
    /// Rows to measure, by name; all without it
    #[arg(long, num_args = 1.., value_name = "NAME")]
    only: Vec<String>,
    /// Seconds for each figure, after a fifth of it to warm up
    #[arg(long, default_value_t = 0.5, value_name = "SECONDS")]
    cell: f64,
    /// Another wsecho binary, measured beside this one
    #[arg(long, value_name = "PATH")]
    against: Option<String>,
    /// Servers to measure; all without it
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    servers: Vec<Kind>,
    /// Draw benches/clients.svg and benches/sizes.svg instead
    #[arg(long, conflicts_with = "only")]
    plots: bool,
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
        Some(Command::Serve { kind, port, wsecho, core, arguments }) => {
            serve::run(kind, port, core, &wsecho, &arguments)
        }
        None => run(&cli.options),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> io::Result<()> {
    tables::check_names(&options.only)?;
    let (bench, cores) = set_up(options)?;
    let rounds = options.rounds.unwrap_or(if options.plots { 3 } else { 9 });
    let mut text = format!("{}\n", heading(&bench, cores, rounds));
    let mut failures = Vec::new();
    if options.plots {
        text += &plots::sweep(&bench, rounds, Path::new(env!("CARGO_MANIFEST_DIR")))?;
    } else {
        let tables = tables::run(&bench, rounds, &options.only);
        text += &tables.text;
        failures = tables.failures;
    }
    print!("{text}");
    if let Some(path) = &options.out {
        fs::write(path, &text)?;
    }
    match &failures[..] {
        [] => Ok(()),
        failures => Err(io::Error::other(format!("failed:\n{}", failures.join("\n")))),
    }
}

fn set_up(options: &Options) -> io::Result<(Bench, usize)> {
    let cell = Duration::try_from_secs_f64(options.cell).map_err(io::Error::other)?;
    machine::raise_descriptor_limit()?;
    let wsecho = servers::wsecho()?;
    let cores = machine::cores()?;
    let pinned = match cores[..] {
        _ if options.no_pin => None,
        [server, generator, ..] => Some(Pinned { server, generator }),
        [only] => Some(Pinned { server: only, generator: only }),
        [] => None,
    };
    if let Some(pinned) = pinned {
        machine::pin(pinned.generator)?;
    }
    let mut servers = options.servers.clone();
    if servers.is_empty() {
        servers.extend(rows::ALL);
        servers.extend(options.against.is_some().then_some(Kind::Against));
    }
    let bench = Bench { wsecho, against: options.against.clone(), servers, cell, pinned };
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
