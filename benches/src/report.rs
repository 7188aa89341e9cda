//! The tables, in Markdown.

use std::fmt::Write as _;
use std::time::Duration;

use crate::measure::Footprint;
use crate::rounds::Rounds;
use crate::rows::{Cores, Goal, Row, Work};
use crate::servers::Kind;
use wsecho_bench::stats::Histogram;

/// All rounds of one row.
pub struct Outcome {
    pub row: Row,
    pub rounds: Rounds,
}

/// What all clients at once waited for their first reply, a round each.
pub struct Burst {
    pub kind: Kind,
    pub clients: usize,
    pub waits: Histogram,
}

/// A goal that was measured.
pub struct Verdict {
    pub what: String,
    pub met: bool,
}

impl Outcome {
    fn rate_text(&self, kind: Kind) -> String {
        let Some(spread) = self.rounds.rate(kind) else {
            return "—".to_owned();
        };
        let unit = match self.row.work {
            Work::Echo { size, .. } if self.row.work.counts_bytes() => size as f64 / 1e6,
            _ => 1e-3,
        };
        let [low, median, high] = [spread.low, spread.median, spread.high].map(|n| short(n * unit));
        format!("{median} ({low}–{high})")
    }

    fn ratio_text(&self, of: Kind, against: Kind, verdicts: &mut Vec<Verdict>) -> String {
        let Some(ratio) = self.rounds.ratio(of, against) else {
            return "—".to_owned();
        };
        let figures = format!("{:.2} ({:.2}–{:.2})", ratio.median, ratio.low, ratio.high);
        let goal = self.row.goals.iter().find(|goal| goal.of == of && goal.against == against);
        let Some(&Goal { times, .. }) = goal else {
            return figures;
        };
        let met = ratio.median >= times;
        verdicts.push(Verdict {
            what: format!(
                "{}: {:.2} × {} for {times}",
                self.row.title,
                ratio.median,
                against.name(),
            ),
            met,
        });
        format!("{figures}, goal {times}: {}", mark(met))
    }
}

/// `pinned` tells whether the rows' own choice of cores was kept to.
pub fn throughput(
    outcomes: &[Outcome],
    servers: &[Kind],
    pinned: bool,
    verdicts: &mut Vec<Verdict>,
) -> String {
    let mut text = String::from(
        "\n### Throughput\n\n\
         Thousand messages a second, MB/s from 1 MiB on, thousand connections a second for connect; \
         the median and the quartiles of the rounds. The ratios are those of each round's pair.\n\n\
",
    );
    let others = || servers.iter().filter(|&&kind| kind != Kind::Wsecho);
    let ratios = others().map(|kind| format!("wsecho ÷ {}", kind.name()));
    head(&mut text, &["work", "cores"], servers, &ratios.collect::<Vec<_>>());
    for outcome in outcomes {
        let cores = match outcome.row.cores {
            _ if !pinned => "any",
            Cores::One => "one",
            Cores::Two => "two",
        };
        let mut columns = vec![outcome.row.title.to_owned(), cores.to_owned()];
        columns.extend(servers.iter().map(|&kind| outcome.rate_text(kind)));
        for &against in others() {
            columns.push(outcome.ratio_text(Kind::Wsecho, against, verdicts));
        }
        line(&mut text, &columns);
    }
    text
}

pub fn prefix(outcomes: &[Outcome], verdicts: &mut Vec<Verdict>) -> String {
    let mut text = String::from(
        "\n### The prefix\n\n\
         Thousand messages a second with the prefix `You have entered: ` and without.\n\n\
         | work | wsecho | with its prefix | with ÷ without |\n|---|---|---|---|\n",
    );
    for outcome in outcomes {
        let columns = [
            outcome.row.title.to_owned(),
            outcome.rate_text(Kind::Wsecho),
            outcome.rate_text(Kind::Prefix),
            outcome.ratio_text(Kind::Prefix, Kind::Wsecho, verdicts),
        ];
        line(&mut text, &columns);
    }
    text
}

pub fn latency(outcomes: &[Outcome], servers: &[Kind]) -> String {
    let mut text = String::from(
        "\n### Latency\n\n\
         From sending a message to its whole reply, µs, p50 / p99 / p99.9 over all rounds; with more \
         in flight of one message at a time, for connect of the whole visit.\n\n",
    );
    head(&mut text, &["work"], servers, &[]);
    for outcome in outcomes {
        let mut columns = vec![outcome.row.title.to_owned()];
        columns.extend(servers.iter().map(|&kind| {
            let all = outcome.rounds.latency(kind);
            let quantiles = [0.5, 0.99, 0.999].map(|q| match all.quantile(q) {
                Some(latency) => short(latency.as_secs_f64() * 1e6),
                None => "—".to_owned(),
            });
            quantiles.join(" / ")
        }));
        line(&mut text, &columns);
    }
    text
}

pub fn cpu(outcomes: &[Outcome], servers: &[Kind], verdicts: &mut Vec<Verdict>) -> String {
    let mut text = String::from(
        "\n### Processor time of the server\n\n\
         µs for each message, user and system, over all rounds, and the share of a core that it kept busy.\n\n",
    );
    head(&mut text, &["work"], servers, &["wsecho − raw TCP".to_owned()]);
    for outcome in outcomes {
        let mut columns = vec![outcome.row.title.to_owned()];
        columns.extend(servers.iter().map(|&kind| match outcome.rounds.cpu(kind) {
            Some((time, busy)) => format!("{} ({:.0} %)", short(time), 100.0 * busy),
            None => "—".to_owned(),
        }));
        columns.push(match (outcome.rounds.cpu(Kind::Wsecho), outcome.rounds.cpu(Kind::Raw)) {
            (Some((own, _)), Some((raw, _))) => cpu_verdict(&outcome.row, own - raw, verdicts),
            _ => "—".to_owned(),
        });
        line(&mut text, &columns);
    }
    text
}

fn cpu_verdict(row: &Row, more: f64, verdicts: &mut Vec<Verdict>) -> String {
    let Work::Echo { clients: 100, depth: 1, size: 20 } = row.work else {
        return format!("{more:.2}");
    };
    let met = more <= 0.5;
    verdicts.push(Verdict {
        what: format!("{}: {more:.2} µs more than raw TCP for 0.5", row.title),
        met,
    });
    format!("{more:.2}, goal 0.5: {}", mark(met))
}

/// `goal` is in KiB for each client of wsecho.
pub fn memory(
    title: &str,
    footprints: &[(Kind, Footprint)],
    goal: f64,
    verdicts: &mut Vec<Verdict>,
) -> String {
    let mut text = format!(
        "\n### {title}\n\n\
         | server | clients | resident KiB each | page tables KiB each |\n|---|---|---|---|\n"
    );
    for (kind, footprint) in footprints {
        let resident = footprint.each.resident;
        let mut figure = format!("{resident:.1}");
        if *kind == Kind::Wsecho {
            let met = resident <= goal;
            let _ = write!(figure, ", goal {goal}: {}", mark(met));
            verdicts
                .push(Verdict { what: format!("{title}: {resident:.1} KiB each for {goal}"), met });
        }
        let columns = [
            kind.name().to_owned(),
            footprint.clients.to_string(),
            figure,
            format!("{:.1}", footprint.each.page_tables),
        ];
        line(&mut text, &columns);
    }
    text
}

pub fn bursts(bursts: &[Burst], verdicts: &mut Vec<Verdict>) -> String {
    /// Short of the second after which a lost SYN is repeated.
    const GOAL: Duration = Duration::from_millis(900);
    let mut text = String::from(
        "\n### Everybody at once\n\n\
         Clients that connect at the same instant: ms until each has its first reply.\n\n\
         | server | clients | p50 | p99 | the last |\n|---|---|---|---|---|\n",
    );
    for burst in bursts {
        let waits = [0.5, 0.99, 1.0].map(|q| burst.waits.quantile(q).unwrap_or_default());
        let [half, most, mut last] = waits.map(|wait| short(wait.as_secs_f64() * 1e3));
        if burst.kind == Kind::Wsecho {
            let met = waits[2] <= GOAL;
            verdicts.push(Verdict {
                what: format!("{} clients at once: {last} ms for 900", burst.clients),
                met,
            });
            let _ = write!(last, ", goal 900: {}", mark(met));
        }
        let columns = [burst.kind.name().to_owned(), burst.clients.to_string(), half, most, last];
        line(&mut text, &columns);
    }
    text
}

pub fn summary(verdicts: &[Verdict]) -> String {
    let met = verdicts.iter().filter(|verdict| verdict.met).count();
    let mut text = format!("\n{met} of {} goals met.\n", verdicts.len());
    for verdict in verdicts.iter().filter(|verdict| !verdict.met) {
        let _ = writeln!(text, "- short: {}", verdict.what);
    }
    text
}

fn head(text: &mut String, first: &[&str], servers: &[Kind], last: &[String]) {
    let mut columns: Vec<String> = first.iter().map(|&name| name.to_owned()).collect();
    columns.extend(servers.iter().map(|kind| kind.name().to_owned()));
    columns.extend_from_slice(last);
    line(text, &columns);
    let _ = writeln!(text, "|{}", "---|".repeat(columns.len()));
}

fn line(text: &mut String, columns: &[String]) {
    let _ = writeln!(text, "| {} |", columns.join(" | "));
}

fn mark(met: bool) -> &'static str {
    if met { "met" } else { "**short**" }
}

/// Three digits that matter, whole numbers from 100 on.
pub fn short(number: f64) -> String {
    match number {
        100.0.. => format!("{number:.0}"),
        10.0.. => format!("{number:.1}"),
        _ => format!("{number:.2}"),
    }
}
