//! The run behind the tables: all rows in interleaved rounds, then memory and the burst.

use std::io;

use crate::measure::Bench;
use crate::report::{self, Burst, Outcome, Verdict};
use crate::rounds::Rounds;
use crate::rows::{self, Row};
use crate::servers::Kind;
use wsecho_bench::stats::Histogram;

/// What a run gives.
#[derive(Default)]
pub struct Tables {
    /// The tables and the verdict on the goals, in Markdown.
    pub text: String,
    /// What could not be measured, and why.
    pub failures: Vec<String>,
    verdicts: Vec<Verdict>,
}

/// Rows outside the rounds, as `--only` calls them.
const IDLE: &str = "idle";
const IDLE_AFTER_LARGE: &str = "idle-large";
const BURST: &str = "burst";

/// An error if `only` names a row that is not there.
pub fn check_names(only: &[String]) -> io::Result<()> {
    let mut names: Vec<&str> = rows::against_others().iter().map(|row| row.name).collect();
    names.extend(rows::with_prefix().iter().map(|row| row.name));
    names.extend([IDLE, IDLE_AFTER_LARGE, BURST]);
    match only.iter().find(|only| !names.contains(&only.as_str())) {
        Some(unknown) => {
            Err(io::Error::other(format!("no row {unknown}; there are: {}", names.join(" "))))
        }
        None => Ok(()),
    }
}

/// Measures the rows named in `only`, or all.
pub fn run(bench: &Bench, rounds: usize, only: &[String]) -> Tables {
    let wants = |name: &str| only.is_empty() || only.iter().any(|wanted| wanted == name);
    let begin = |mut rows: Vec<Row>| -> Vec<Outcome> {
        rows.retain(|row| wants(row.name));
        let begin = |row| Outcome { row, rounds: Rounds::default() };
        rows.into_iter().map(begin).collect()
    };
    let mut others = begin(rows::against_others());
    let mut prefix = begin(rows::with_prefix());
    if !bench.servers.contains(&Kind::Wsecho) || bench.against.is_some() {
        prefix.clear();
    }
    let mut tables = Tables::default();
    for round in 0..rounds {
        eprintln!("round {} of {rounds}", round + 1);
        tables.round(bench, round, &bench.servers, &mut others);
        tables.round(bench, round, &[Kind::Wsecho, Kind::Prefix], &mut prefix);
    }
    if !others.is_empty() {
        tables.text += &report::throughput(
            &others,
            &bench.servers,
            bench.pinned.is_some(),
            &mut tables.verdicts,
        );
        tables.text += &report::latency(&others, &bench.servers);
        tables.text += &report::cpu(&others, &bench.servers, &mut tables.verdicts);
    }
    if !prefix.is_empty() {
        tables.text += &report::prefix(&prefix, &mut tables.verdicts);
    }
    if wants(IDLE) {
        tables.idle(bench);
    }
    if wants(IDLE_AFTER_LARGE) {
        tables.idle_after_large(bench);
    }
    if wants(BURST) {
        tables.burst(bench);
    }
    tables.text += &report::summary(&tables.verdicts);
    tables
}

impl Tables {
    /// One round: every row, every server once, each row beginning with another server.
    fn round(&mut self, bench: &Bench, round: usize, servers: &[Kind], outcomes: &mut [Outcome]) {
        for (index, Outcome { row, rounds }) in outcomes.iter_mut().enumerate() {
            let errors = rounds.measure(bench, servers, round + index, row.work, row.cores);
            for (kind, error) in errors {
                self.fail(row.name, kind, &error);
            }
        }
    }

    fn idle(&mut self, bench: &Bench) {
        const CLIENTS: usize = 10_000;
        const GOAL: f64 = 12.0;
        let mut footprints = Vec::new();
        for &kind in &bench.servers {
            let footprint = self.noted(IDLE, kind, bench.idle(kind, CLIENTS));
            footprints.extend(footprint.map(|footprint| (kind, footprint)));
        }
        let title = "Memory of a client that is idle after one message";
        self.text += &report::memory(title, &footprints, GOAL, &mut self.verdicts);
    }

    fn idle_after_large(&mut self, bench: &Bench) {
        const GOAL: f64 = 16.0;
        let mut footprints = Vec::new();
        for &kind in &bench.servers {
            // A library that keeps what it grew to holds megabytes for each of them.
            let clients = match kind {
                Kind::Tungstenite | Kind::Fastwebsockets => 500,
                Kind::Raw | Kind::Wsecho | Kind::Against | Kind::Prefix => 10_000,
            };
            let footprint = bench.idle_after_large(kind, clients);
            let footprint = self.noted(IDLE_AFTER_LARGE, kind, footprint);
            footprints.extend(footprint.map(|footprint| (kind, footprint)));
        }
        let title = "Memory of a client that is idle after 1 MiB and a ping interval of silence";
        self.text += &report::memory(title, &footprints, GOAL, &mut self.verdicts);
    }

    fn burst(&mut self, bench: &Bench) {
        const CLIENTS: usize = 4_000;
        let mut bursts = Vec::new();
        for &kind in &bench.servers {
            // The others only show what a short backlog does; wsecho must hold every time.
            let rounds = if kind == Kind::Wsecho { 3 } else { 1 };
            let mut waits = Histogram::default();
            for _ in 0..rounds {
                if let Some(more) = self.noted(BURST, kind, bench.burst(kind, CLIENTS)) {
                    waits.merge(&more);
                }
            }
            if !waits.is_empty() {
                bursts.push(Burst { kind, clients: CLIENTS, waits });
            }
        }
        self.text += &report::bursts(&bursts, &mut self.verdicts);
    }

    /// Keeps a failure for the end: one figure that is missing is no reason to lose the others.
    fn noted<T>(&mut self, row: &str, kind: Kind, outcome: io::Result<T>) -> Option<T> {
        outcome.inspect_err(|error| self.fail(row, kind, error)).ok()
    }

    fn fail(&mut self, row: &str, kind: Kind, error: &io::Error) {
        let failure = format!("{row}, {}: {error}", kind.name());
        self.failures.push(failure);
    }
}
