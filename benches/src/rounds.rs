//! The same work with several servers, over and over in turns, and what is made of it.

use std::io;

use wsecho_bench::stats::{Histogram, Spread};

use crate::measure::{Bench, Cell};
use crate::rows::{Cores, Work};
use crate::servers::Kind;

/// One entry per round, with the cells of the servers that were measured without an error.
#[derive(Default)]
pub struct Rounds(Vec<Vec<(Kind, Cell)>>);

impl Rounds {
    /// Measures each of `servers` once, `first` before the others; what went wrong with which.
    pub fn measure(
        &mut self,
        bench: &Bench,
        servers: &[Kind],
        first: usize,
        work: Work,
        cores: Cores,
    ) -> Vec<(Kind, io::Error)> {
        let (mut cells, mut errors) = (Vec::new(), Vec::new());
        let (later, sooner) = servers.split_at(first % servers.len());
        for &kind in sooner.iter().chain(later) {
            match bench.cell(kind, work, cores) {
                Ok(cell) => cells.push((kind, cell)),
                Err(error) => errors.push((kind, error)),
            }
        }
        self.0.push(cells);
        errors
    }

    /// Messages a second.
    pub fn rate(&self, kind: Kind) -> Option<Spread> {
        Spread::of(self.cells(kind).map(Cell::rate))
    }

    /// The ratios of each round's pair: what slows a whole round down slows both of a pair.
    pub fn ratio(&self, of: Kind, against: Kind) -> Option<Spread> {
        let rate = |round: &[(Kind, Cell)], wanted| {
            let (_, cell) = round.iter().find(|(kind, _)| *kind == wanted)?;
            Some(cell.rate())
        };
        let pairs = self.0.iter();
        Spread::of(pairs.filter_map(|round| Some(rate(round, of)? / rate(round, against)?)))
    }

    pub fn latency(&self, kind: Kind) -> Histogram {
        let mut all = Histogram::default();
        for cell in self.cells(kind) {
            all.merge(&cell.latency);
        }
        all
    }

    /// The server's processor time over all rounds, since that of a single one is only known to a clock
    /// tick: µs for each message, and the share of the time in which it was busy.
    pub fn cpu(&self, kind: Kind) -> Option<(f64, f64)> {
        let sum = |of: fn(&Cell) -> f64| self.cells(kind).map(of).sum::<f64>();
        let cpu = sum(|cell| cell.cpu);
        let (messages, seconds) = (sum(|cell| cell.messages), sum(|cell| cell.seconds));
        (messages > 0.0).then(|| (cpu * 1e6 / messages, cpu / seconds))
    }

    fn cells(&self, kind: Kind) -> impl Iterator<Item = &Cell> {
        let all = self.0.iter().flatten();
        all.filter_map(move |(of, cell)| (*of == kind).then_some(cell))
    }
}
