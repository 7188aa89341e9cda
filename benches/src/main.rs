//! Measures wsecho as a whole program beside other servers, and writes every sample to a file.

mod load;
mod machine;
mod measure;
mod neighbors;
mod rows;
mod serve;
mod servers;
mod stream;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::mem;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command as Process, ExitCode};
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::machine::Memory;
use crate::measure::{Bench, Sample};
use crate::rows::{Cores, Row, Work};
use crate::servers::{Kind, Programs, folder};

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
    /// Rounds, in each of which every server is measured once in every row [default: 9, 3 for the plots and
    /// the growth]
    #[arg(long)]
    rounds: Option<usize>,
    /// Rows to measure, by name [default: all]
    #[arg(long, num_args = 1.., value_name = "NAME")]
    only: Vec<String>,
    /// Servers to measure [default: all, in the rows that have them]
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    servers: Vec<Kind>,
    /// Another wsecho binary, measured as the server `against` in every row
    #[arg(long, value_name = "PATH")]
    against: Option<String>,
    /// Seconds for each sample at least, after a fifth of it to warm up
    #[arg(long, default_value_t = 0.5, value_name = "SECONDS")]
    cell: f64,
    #[command(flatten)]
    chapter: Chapter,
    /// The file to write the samples to [default: benches/target/samples.csv]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// What is measured instead of the main tables.
#[derive(Args)]
#[group(multiple = false)]
struct Chapter {
    /// Measure and draw the plots of throughput by clients and by message size
    #[arg(long)]
    plots: bool,
    /// Measure and draw memory, latency, connecting and stopping with 10 to 30,000 clients
    #[arg(long)]
    growth: bool,
    /// Measure TLS
    #[arg(long)]
    tls: bool,
    /// Measure compression
    #[arg(long)]
    compression: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Measure one client's compressed messages beside others that cost the most
    Neighbors {
        #[arg(default_value_t = 3)]
        rounds: usize,
        /// Binaries to compare [default: the one of this source]
        wsecho: Vec<String>,
    },
    /// Be one of the servers, as the benchmark starts itself
    #[command(hide = true)]
    Serve {
        kind: Kind,
        address: SocketAddr,
        #[arg(long)]
        core: Option<usize>,
        #[arg(last = true)]
        command: Vec<String>,
    },
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = match cli.command {
        Some(Command::Serve { kind, address, core, command }) => {
            serve::run(kind, address, core, &command)
        }
        Some(Command::Neighbors { rounds, wsecho }) => neighbors::run(rounds, wsecho),
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
    let mut rows = choose(options)?;
    let mut notes = machine::describe()?;
    let bench = set_up(options, &mut rows, &mut notes)?;
    let Chapter { plots, growth, .. } = options.chapter;
    let rounds = options.rounds.unwrap_or(if plots || growth { 3 } else { 9 });
    notes.push(format!("{rounds} rounds, at least {} s for each sample", options.cell));
    let path = options.out.clone().unwrap_or_else(|| folder().join("target/samples.csv"));
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    let failures = measure(&bench, &rows, rounds, &notes, &mut File::create(&path)?)?;
    // What was measured in part is worth a table too.
    let reported = Process::new("python3").arg(folder().join("report.py")).arg(&path).status();
    if !reported.is_ok_and(|status| status.success()) {
        let error = format!("python3 could not make tables of {}", path.display());
        return Err(io::Error::other(error));
    }
    if failures > 0 {
        return Err(io::Error::other(format!("{failures} samples could not be taken")));
    }
    Ok(())
}

/// The rows that the options leave.
fn choose(options: &Options) -> io::Result<Vec<Row>> {
    let mut rows = match options.chapter {
        Chapter { plots: true, .. } => rows::plots(),
        Chapter { growth: true, .. } => rows::growth(),
        Chapter { tls: true, .. } => rows::tls(),
        Chapter { compression: true, .. } => rows::compression(),
        _ => rows::table(),
    };
    if let Some(unknown) =
        options.only.iter().find(|name| rows.iter().all(|row| row.name != **name))
    {
        let names: Vec<_> = rows.iter().map(|row| row.name.as_str()).collect();
        let error = format!("no row '{unknown}': expected one of {}", names.join(", "));
        return Err(io::Error::other(error));
    }
    rows.retain(|row| options.only.is_empty() || options.only.contains(&row.name));
    for row in &mut rows {
        row.servers.extend(options.against.is_some().then_some(Kind::Against));
        row.servers.retain(|kind| options.servers.is_empty() || options.servers.contains(kind));
    }
    rows.retain(|row| !row.servers.is_empty());
    Ok(rows)
}

fn set_up(options: &Options, rows: &mut Vec<Row>, notes: &mut Vec<String>) -> io::Result<Bench> {
    let time = Duration::try_from_secs_f64(options.cell).map_err(io::Error::other)?;
    let mut programs = Programs {
        wsecho: servers::wsecho()?,
        against: options.against.clone(),
        uwebsockets: None,
    };
    let kinds: BTreeSet<_> = rows.iter().flat_map(|row| row.servers.clone()).collect();
    for kind in kinds {
        if let Err(error) = kind.find(&mut programs) {
            notes.push(format!("{} is left out: {error}", kind.name()));
            rows.iter_mut().for_each(|row| row.servers.retain(|found| *found != kind));
        }
    }
    machine::raise_descriptor_limit(0)?;
    fit_growth(rows, notes)?;
    rows.retain(|row| !row.servers.is_empty());
    let cores = machine::cores()?;
    let (server_core, generator_core) = (cores[0], cores[cores.len() - 1]);
    machine::pin(generator_core)?;
    Ok(Bench { programs, tls: stream::client_config()?, time, server_core, generator_core })
}

/// Leaves out the servers that the kernel's limits have no room for. An error if that is so at the limits
/// that most machines have.
fn fit_growth(rows: &mut [Row], notes: &mut Vec<String>) -> io::Result<()> {
    const USUAL: usize = 12_000;
    for row in rows {
        let Work::Growth { clients } = row.work else { continue };
        for kind in mem::take(&mut row.servers) {
            match kind.fits(clients) {
                Ok(()) => row.servers.push(kind),
                Err(error) if clients <= USUAL => return Err(error),
                Err(error) => {
                    notes.push(format!(
                        "{clients} clients of {} are left out: {error}",
                        kind.name()
                    ));
                }
            }
        }
    }
    Ok(())
}

/// Takes all samples, and writes each as it is taken. Returns how many failed.
fn measure(
    bench: &Bench,
    rows: &[Row],
    rounds: usize,
    notes: &[String],
    file: &mut File,
) -> io::Result<usize> {
    let mut failures = 0;
    for note in notes {
        writeln!(file, "# {note}")?;
    }
    writeln!(
        file,
        "row,cores,server,round,messages,seconds,cpu,p50,p99,p99.9,max,steal,others,resident,page_tables,machine,reply"
    )?;
    for round in 0..rounds {
        eprintln!("round {} of {rounds}", round + 1);
        for (index, row) in rows.iter().enumerate().filter(|(_, row)| round < row.max_rounds) {
            let cores = match row.cores {
                Cores::One => "one",
                Cores::Two => "two",
            };
            let (later, first) = row.servers.split_at((round + index) % row.servers.len());
            for &kind in first.iter().chain(later) {
                let server = kind.name();
                match bench.samples(kind, row) {
                    Ok(samples) => samples.iter().try_for_each(|sample| {
                        writeln!(file, "{},{cores},{server},{round},{}", sample.row, csv(sample))
                    })?,
                    Err(error) => {
                        eprintln!("{}, {server}: {error}", row.name);
                        failures += 1;
                    }
                }
            }
        }
    }
    Ok(failures)
}

fn csv(sample: &Sample) -> String {
    let Sample { messages, seconds, cpu, steal, others, ref memory, reply, .. } = *sample;
    let Memory { resident, page_tables, machine, .. } = *memory;
    [
        &[messages, seconds, cpu],
        &sample.latency[..],
        &[steal, others, resident, page_tables, machine, reply],
    ]
    .concat()
    .iter()
    .map(|figure| ((figure * 1e9).round() / 1e9).to_string())
    .collect::<Vec<_>>()
    .join(",")
}
