//! The sweeps behind the two plots: throughput against the number of clients, and against message size.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::Path;

use crate::measure::Bench;
use crate::report::short;
use crate::rounds::Rounds;
use crate::rows::{ALL, Cores, Work, echo};
use crate::servers::Kind;
use crate::svg::{Chart, Line, thousands};

const CLIENTS: &[usize] = &[1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000];

/// From 16 B to 16 MiB.
const SIZES: &[usize] = &[
    1 << 4,
    1 << 6,
    1 << 8,
    1 << 10,
    1 << 12,
    1 << 14,
    1 << 16,
    1 << 18,
    1 << 20,
    1 << 22,
    1 << 24,
];
const SIZE_CLIENTS: usize = 10;

/// Measures both sweeps, writes the two plots into `folder`, and gives the same figures as Markdown.
pub fn sweep(bench: &Bench, rounds: usize, folder: &Path) -> io::Result<String> {
    let by_clients = Sweep {
        title: "Throughput against clients: 20 B, one message in flight each".to_owned(),
        place_title: "clients",
        unit: "thousand messages/s",
        places: measure(bench, rounds, CLIENTS, |clients| echo(clients, 20))?,
        scale: |_| 1e-3,
        label: |clients| thousands(clients as f64),
    };
    let by_size = Sweep {
        title: format!("Throughput against message size: {SIZE_CLIENTS} clients, one in flight"),
        place_title: "payload",
        unit: "MB/s",
        places: measure(bench, rounds, SIZES, |size| echo(SIZE_CLIENTS, size))?,
        scale: |size| size as f64 / 1e6,
        label: bytes,
    };
    let ticks = [1, 10, 100, 1_000, 10_000];
    fs::write(folder.join("clients.svg"), by_clients.draw(&ticks))?;
    fs::write(folder.join("sizes.svg"), by_size.draw(SIZES))?;
    Ok(by_clients.table() + &by_size.table())
}

/// One kind of work at growing places, such as numbers of clients.
struct Sweep {
    title: String,
    place_title: &'static str,
    unit: &'static str,
    places: Vec<(usize, Rounds)>,
    /// What turns messages a second at a place into the unit.
    scale: fn(usize) -> f64,
    label: fn(usize) -> String,
}

fn measure(
    bench: &Bench,
    rounds: usize,
    places: &[usize],
    work: impl Fn(usize) -> Work,
) -> io::Result<Vec<(usize, Rounds)>> {
    let mut measured = Vec::new();
    for &place in places {
        let mut figures = Rounds::default();
        for round in 0..rounds {
            let errors = figures.measure(bench, ALL, round, work(place), Cores::Two);
            if let Some((kind, error)) = errors.into_iter().next() {
                let error = format!("{} at {place}: {error}", kind.name());
                return Err(io::Error::other(error));
            }
        }
        measured.push((place, figures));
    }
    Ok(measured)
}

impl Sweep {
    fn draw(&self, ticks: &[usize]) -> String {
        let line = |&kind: &Kind| Line {
            name: kind.name(),
            points: self
                .places
                .iter()
                .filter_map(|(place, rounds)| {
                    let rate = rounds.rate(kind)?.median * (self.scale)(*place);
                    Some((*place as f64, rate))
                })
                .collect(),
        };
        let chart = Chart {
            title: &self.title,
            x_title: self.place_title,
            y_title: self.unit,
            x_ticks: ticks.iter().map(|&tick| (tick as f64, (self.label)(tick))).collect(),
            lines: ALL.iter().map(line).collect(),
        };
        chart.draw()
    }

    /// Throughput and processor time.
    fn table(&self) -> String {
        let names = ALL.iter().map(|kind| kind.name());
        let mut text = format!(
            "\n### {}\n\nMedians in {} / µs of the server's processor time for each message.\n\n\
             | {} | {} |\n|---{}|\n",
            self.title,
            self.unit,
            self.place_title,
            names.collect::<Vec<_>>().join(" | "),
            "|---".repeat(ALL.len()),
        );
        for (place, rounds) in &self.places {
            let _ = write!(text, "| {} |", (self.label)(*place));
            for &kind in ALL {
                match (rounds.rate(kind), rounds.cpu(kind)) {
                    (Some(rate), Some((cpu, _))) => {
                        let rate = short(rate.median * (self.scale)(*place));
                        let _ = write!(text, " {rate} / {} |", short(cpu));
                    }
                    _ => text.push_str(" — |"),
                }
            }
            text.push('\n');
        }
        text
    }
}

fn bytes(size: usize) -> String {
    match size {
        0x10_0000.. => format!("{} MiB", size >> 20),
        0x400.. => format!("{} KiB", size >> 10),
        _ => format!("{size} B"),
    }
}
