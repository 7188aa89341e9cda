//! A chart with two logarithmic axes, as an SVG that is legible on light and on dark pages.

use std::fmt::Write as _;

pub struct Chart<'a> {
    pub title: &'a str,
    pub x_title: &'static str,
    pub y_title: &'static str,
    /// Labelled places on the horizontal axis.
    pub x_ticks: Vec<(f64, String)>,
    pub lines: Vec<Line>,
}

pub struct Line {
    pub name: &'static str,
    pub points: Vec<(f64, f64)>,
}

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 420.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 688.0;
const TOP: f64 = 76.0;
const BOTTOM: f64 = 364.0;

/// Colours of middle lightness, each with its own dashes, so that no line is told by its colour alone.
const STYLES: &[(&str, &str)] =
    &[("#8c8c8c", "7 4"), ("#d9822b", "2 3"), ("#4098d7", "10 3 2 3"), ("#d63384", "none")];

/// A grey that shows on white and on black: an image isn't told which of the two its page is.
const STYLE: &str = "text{font:13px system-ui,sans-serif;fill:#757e88}\
    .title{font-size:15px;font-weight:600}\
    .grid{stroke:#757e88;stroke-opacity:.3}";

impl Chart<'_> {
    pub fn draw(&self) -> String {
        let points = || self.lines.iter().flat_map(|line| &line.points);
        let x = Axis::over(points().map(|point| point.0), LEFT, RIGHT);
        let steps = steps(points().map(|point| point.1));
        let y = Axis::over(steps.iter().copied(), BOTTOM, TOP);

        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
             role=\"img\">\n<title>{title}</title>\n<style>{STYLE}</style>\n\
             <text class=\"title\" x=\"{LEFT}\" y=\"22\">{title}</text>\n",
            title = self.title,
        );
        let names = self.lines.iter().zip(STYLES).enumerate();
        for (place, (line, (colour, dashes))) in names {
            let left = LEFT + 160.0 * place as f64;
            let _ = writeln!(
                svg,
                "<path d=\"M{left} 45h30\" stroke=\"{colour}\" stroke-width=\"2.5\" \
                 stroke-dasharray=\"{dashes}\"/><text x=\"{}\" y=\"50\">{}</text>",
                left + 37.0,
                line.name,
            );
        }
        for &step in &steps {
            let height = y.place(step);
            let _ = writeln!(
                svg,
                "<path class=\"grid\" d=\"M{LEFT} {height:.1}H{RIGHT}\"/>\
                 <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                LEFT - 8.0,
                height + 4.0,
                thousands(step),
            );
        }
        for (tick, label) in &self.x_ticks {
            let place = x.place(*tick);
            let _ = writeln!(
                svg,
                "<path class=\"grid\" d=\"M{place:.1} {TOP}V{BOTTOM}\"/>\
                 <text x=\"{place:.1}\" y=\"{}\" text-anchor=\"middle\">{label}</text>",
                BOTTOM + 19.0,
            );
        }
        let _ = writeln!(
            svg,
            "<text x=\"{RIGHT}\" y=\"{}\" text-anchor=\"end\">{}</text>\
             <text x=\"8\" y=\"68\">{}</text>",
            BOTTOM + 42.0,
            self.x_title,
            self.y_title,
        );
        for (line, (colour, dashes)) in self.lines.iter().zip(STYLES) {
            let path: Vec<String> = line
                .points
                .iter()
                .map(|&(h, v)| format!("{:.1} {:.1}", x.place(h), y.place(v)))
                .collect();
            let _ = writeln!(
                svg,
                "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2.5\" \
                 stroke-linejoin=\"round\" stroke-dasharray=\"{dashes}\"/>",
                path.join(","),
            );
        }
        svg.push_str("</svg>\n");
        svg
    }
}

/// From figures to places on the drawing.
struct Axis {
    low: f64,
    high: f64,
    start: f64,
    end: f64,
}

impl Axis {
    fn over(figures: impl Iterator<Item = f64>, start: f64, end: f64) -> Axis {
        let logs = figures.map(f64::ln);
        let (low, high) = logs.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), log| {
            (low.min(log), high.max(log))
        });
        Axis { low, high, start, end }
    }

    fn place(&self, figure: f64) -> f64 {
        let share = (figure.ln() - self.low) / (self.high - self.low);
        self.start + share * (self.end - self.start)
    }
}

/// 1, 2, 5, 10 … from the last at or below all figures to the first at or above them.
fn steps(figures: impl Iterator<Item = f64>) -> Vec<f64> {
    let (low, high) = figures
        .fold((f64::INFINITY, 0.0_f64), |(low, high), figure| (low.min(figure), high.max(figure)));
    let all: Vec<f64> =
        (-3..10).flat_map(|power| [1.0, 2.0, 5.0].map(|step| step * 10_f64.powi(power))).collect();
    let first = all.iter().rposition(|&step| step <= low).unwrap_or(0);
    let last = all.iter().position(|&step| step >= high);
    all[first..=last.unwrap_or(first)].to_vec()
}

pub fn thousands(number: f64) -> String {
    match number {
        1000.0.. => format!("{},{:03}", number as u64 / 1000, number as u64 % 1000),
        1.0.. => format!("{number:.0}"),
        _ => format!("{number}"),
    }
}
