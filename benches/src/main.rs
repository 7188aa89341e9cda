//! Measures wsecho as a whole program beside other servers, and writes every sample to a file.

mod load;
mod machine;
mod measure;
mod rows;
mod serve;
mod servers;

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command as Process, ExitCode};
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::measure::{Bench, Sample};
use crate::rows::{Cores, Row};
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
    /// Rounds, in each of which every server is measured once in every row [default: 9, 3 for the plots]
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
    /// Seconds for each sample, after a fifth of it to warm up
    #[arg(long, default_value_t = 0.5, value_name = "SECONDS")]
    cell: f64,
    /// Measure and draw the two plots instead of the tables
    #[arg(long)]
    plots: bool,
    /// The file to write the samples to [default: benches/target/samples.csv]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Command {
    /// Be one of the servers, as the benchmark starts itself
    #[command(hide = true)]
    Serve {
        kind: Kind,
        address: SocketAddr,
        core: usize,
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
    let rounds = options.rounds.unwrap_or(if options.plots { 3 } else { 9 });
    notes.push(format!("{rounds} rounds, {} s for each sample", options.cell));
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

/// The rows that `--only`, `--servers`, `--against` and `--plots` leave.
fn choose(options: &Options) -> io::Result<Vec<Row>> {
    let mut rows = if options.plots { rows::plots() } else { rows::table() };
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

fn set_up(options: &Options, rows: &mut [Row], notes: &mut Vec<String>) -> io::Result<Bench> {
    machine::raise_descriptor_limit()?;
    let time = Duration::try_from_secs_f64(options.cell).map_err(io::Error::other)?;
    let mut programs = Programs {
        wsecho: servers::wsecho()?,
        against: options.against.clone(),
        uwebsockets: None,
    };
    if rows.iter().any(|row| row.servers.contains(&Kind::Uwebsockets)) {
        match servers::uwebsockets() {
            Ok(path) => programs.uwebsockets = Some(path),
            Err(error) => {
                notes.push(format!("uWebSockets is left out: it could not be built: {error}"));
                rows.iter_mut()
                    .for_each(|row| row.servers.retain(|kind| *kind != Kind::Uwebsockets));
            }
        }
    }
    let cores = machine::cores()?;
    let (server_core, generator_core) = (cores[0], cores[cores.len() - 1]);
    machine::pin(generator_core)?;
    Ok(Bench { programs, time, server_core, generator_core })
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
        "row,cores,server,round,messages,seconds,cpu,p50,p99,p99.9,max,steal,others,resident,page_tables"
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
                let Row { name, .. } = row;
                match bench.sample(kind, row) {
                    Ok(sample) => {
                        writeln!(file, "{name},{cores},{},{round},{}", kind.name(), csv(&sample))?;
                    }
                    Err(error) => {
                        eprintln!("{name}, {}: {error}", kind.name());
                        failures += 1;
                    }
                }
            }
        }
    }
    Ok(failures)
}

fn csv(sample: &Sample) -> String {
    let [p50, p99, p999, max] = sample.latency;
    let Sample { messages, seconds, cpu, steal, others, ref memory, .. } = *sample;
    let (resident, page_tables) = (memory.resident, memory.page_tables);
    [messages, seconds, cpu, p50, p99, p999, max, steal, others, resident, page_tables]
        .map(|figure| ((figure * 1e9).round() / 1e9).to_string())
        .join(",")
}
