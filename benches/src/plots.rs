//! The sweeps behind the two plots: throughput against the number of clients, and against message size.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::Path;

use crate::measure::Bench;
use crate::report::short;
use crate::rows::{ALL, Cores, Work, echo};
use wsecho_bench::stats::Spread;

use crate::svg::{Chart, Line, thousands};

const CLIENTS: &[usize] = &[1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000];

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
    let by_clients = Chart {
        title: "Throughput against clients: 20 B, one message in flight each".to_owned(),
        x_title: "clients",
        y_title: "thousand messages/s",
        x_ticks: [1.0, 10.0, 100.0, 1e3, 5e3]
            .map(|clients| (clients, thousands(clients)))
            .to_vec(),
        lines: lines(bench, rounds, CLIENTS, |clients| (echo(clients, 20), 1e-3))?,
    };
    let by_size = Chart {
        title: format!("Throughput against message size: {SIZE_CLIENTS} clients, one in flight"),
        x_title: "payload",
        y_title: "MB/s",
        x_ticks: SIZES
            .iter()
            .map(|&size| (size as f64, bytes(size)))
            .collect(),
        lines: lines(bench, rounds, SIZES, |size| {
            (echo(SIZE_CLIENTS, size), size as f64 / 1e6)
        })?,
    };
    fs::write(folder.join("clients.svg"), by_clients.draw())?;
    fs::write(folder.join("sizes.svg"), by_size.draw())?;
    Ok(format!(
        "{}{}",
        table(&by_clients, thousands),
        table(&by_size, |size| bytes(size as usize)),
    ))
}

/// A line per server through the medians; `work` gives what to measure at a place, and what turns its
/// messages a second into the plot's unit.
fn lines(
    bench: &Bench,
    rounds: usize,
    places: &[usize],
    work: impl Fn(usize) -> (Work, f64),
) -> io::Result<Vec<Line>> {
    let mut lines: Vec<Line> = ALL
        .iter()
        .map(|kind| Line {
            name: kind.name(),
            points: Vec::new(),
        })
        .collect();
    for &place in places {
        let (work, unit) = work(place);
        let mut rates = vec![Vec::new(); ALL.len()];
        for round in 0..rounds {
            for turn in 0..ALL.len() {
                let server = (round + turn) % ALL.len();
                let cell = bench.cell(ALL[server], work, Cores::Two)?;
                rates[server].push(cell.rate() * unit);
            }
        }
        for (line, rates) in lines.iter_mut().zip(rates) {
            if let Some(spread) = Spread::of(rates) {
                line.points.push((place as f64, spread.median));
            }
        }
    }
    Ok(lines)
}

fn table(chart: &Chart, place: impl Fn(f64) -> String) -> String {
    let mut text = format!(
        "\n### {} ({})\n\n| {} |",
        chart.title, chart.y_title, chart.x_title
    );
    for line in &chart.lines {
        let _ = write!(text, " {} |", line.name);
    }
    text += "\n|---|";
    text += &"---|".repeat(chart.lines.len());
    let places = chart.lines.iter().map(|line| line.points.len()).min();
    for index in 0..places.unwrap_or(0) {
        let _ = write!(text, "\n| {} |", place(chart.lines[0].points[index].0));
        for line in &chart.lines {
            let _ = write!(text, " {} |", short(line.points[index].1));
        }
    }
    text.push('\n');
    text
}

fn bytes(size: usize) -> String {
    match size {
        0x10_0000.. => format!("{} MiB", size >> 20),
        0x400.. => format!("{} KiB", size >> 10),
        _ => format!("{size} B"),
    }
}
