//! A summary as text, a Markdown table, JUnit XML or a badge.

use std::fmt::Write as _;

use crate::app::cases::suite::{self, Suite};
use crate::app::cases::summary::{CaseResult, Outcome, Summary};
use crate::app::json;
use crate::http::response::Response;
use crate::quantity::Count;

/// The maximum number of failed cases that a row of the table names.
const MAX_NAMED: usize = 10;

/// Once the XML has this size in bytes, failures have no more text than their verdict. So it stays below
/// 1 MiB, whatever the agent is called.
const MAX_WITH_TEXT: usize = 64 * 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Text,
    Markdown,
    Junit,
    Badge,
}

impl Format {
    /// # Errors
    ///
    /// A sentence that names the formats.
    pub fn parse(name: Option<&str>) -> Result<Self, String> {
        match name {
            None | Some("text") => Ok(Format::Text),
            Some("markdown") => Ok(Format::Markdown),
            Some("junit") => Ok(Format::Junit),
            Some("badge") => Ok(Format::Badge),
            Some(_) => Err("format is text, markdown, junit or badge".into()),
        }
    }

    /// The response with `summary`: 200 if the agent passes, otherwise 422.
    pub fn response(self, summary: &Summary, suite: &Suite) -> Response {
        let status = if summary.is_passed() { 200 } else { 422 };
        let (media_type, body) = match self {
            Format::Text => return Response::text(status, text(summary)),
            Format::Markdown => ("text/markdown; charset=utf-8", markdown(summary)),
            Format::Junit => ("application/xml", junit(summary, suite)),
            Format::Badge => ("application/json", badge(summary)),
        };
        Response { status, headers: vec![], body: body.into() }.with("Content-Type", media_type)
    }
}

fn text(summary: &Summary) -> String {
    let mut text = total(&summary.results);
    for CaseResult { id, outcome, .. } in &summary.results {
        if let Outcome::Failed(why) = outcome {
            let _ = write!(text, "\n{id}: {why}");
        }
    }
    text
}

/// The number of cases, and of each verdict.
fn total(results: &[CaseResult]) -> String {
    format!("{}: {}", Count(results.len() as u64, "case"), verdicts(results))
}

/// The number of each verdict.
fn verdicts(results: &[CaseResult]) -> String {
    let mut counts: Vec<(&str, usize)> = Vec::new();
    for CaseResult { verdict, .. } in results {
        match counts.iter_mut().find(|(counted, _)| counted == verdict) {
            Some((_, count)) => *count += 1,
            None => counts.push((verdict, 1)),
        }
    }
    let counts: Vec<_> = counts.iter().map(|(word, count)| format!("{count} {word}")).collect();
    counts.join(", ")
}

/// The results of each group.
fn groups(summary: &Summary) -> impl Iterator<Item = (String, &[CaseResult])> {
    summary.results.chunk_by(|one, two| one.id.group() == two.id.group()).map(|results| {
        let number = results[0].id.group();
        (format!("{number} {}", suite::subject(number)).trim_end().into(), results)
    })
}

fn passed(results: &[CaseResult]) -> usize {
    results.iter().filter(|result| result.outcome == Outcome::Passed).count()
}

/// A table with a row for each group.
fn markdown(summary: &Summary) -> String {
    let mut text = format!(
        "{}, {}\n\n| group | passed | verdicts | failed |\n|---|---|---|---|\n",
        code_span(&summary.agent),
        total(&summary.results)
    );
    for (name, results) in groups(summary) {
        let failed = |result: &&CaseResult| matches!(result.outcome, Outcome::Failed(_));
        let failed: Vec<_> =
            results.iter().filter(failed).map(|result| result.id.to_string()).collect();
        let named = failed.len().min(MAX_NAMED);
        let _ = writeln!(
            text,
            "| {name} | {} of {} | {} | {}{} |",
            passed(results),
            results.len(),
            verdicts(results),
            failed[..named].join(", "),
            match failed.len() - named {
                0 => String::new(),
                more => format!(" and {more} more"),
            }
        );
    }
    text
}

/// A client's text as a code span, in which Markdown has no escapes.
fn code_span(text: &str) -> String {
    let text: String = text
        .chars()
        .map(|char| match char {
            '`' => '\'',
            '"' | '\'' | '\\' => char,
            // Such as bidirectional overrides, which change the order of what stands after them.
            char if char.escape_debug().len() > 1 => '\u{FFFD}',
            char => char,
        })
        .collect();
    format!("`{text}`")
}

/// JUnit XML: a test suite for each group, and a test for each case.
fn junit(summary: &Summary, suite: &Suite) -> String {
    let agent = xml(&summary.agent);
    let mut text = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites name=\"{agent}\" {}>\n",
        counts(&summary.results)
    );
    for (name, results) in groups(summary) {
        let _ = writeln!(text, "  <testsuite name=\"{name}\" {}>", counts(results));
        for CaseResult { id, verdict, outcome, duration } in results {
            let _ = write!(
                text,
                "    <testcase classname=\"{agent}\" name=\"{id}\" time=\"{:.3}\"",
                duration.as_secs_f64()
            );
            match outcome {
                Outcome::Passed => text += "/>\n",
                Outcome::Skipped => {
                    let _ = writeln!(text, "><skipped message=\"{verdict}\"/></testcase>");
                }
                Outcome::Failed(why) => {
                    let case = suite.case(*id).filter(|_| text.len() < MAX_WITH_TEXT);
                    let (why, about) = match case {
                        Some(case) => (xml(why), xml(&case.explanation())),
                        None => (verdict.to_string(), String::new()),
                    };
                    let _ = writeln!(
                        text,
                        "><failure type=\"{verdict}\" message=\"{why}\">{about}</failure></testcase>"
                    );
                }
            }
        }
        text += "  </testsuite>\n";
    }
    text + "</testsuites>\n"
}

/// The attributes that count `results`.
fn counts(results: &[CaseResult]) -> String {
    let skipped = results.iter().filter(|result| result.outcome == Outcome::Skipped).count();
    let time: f64 = results.iter().map(|result| result.duration.as_secs_f64()).sum();
    format!(
        "tests=\"{}\" failures=\"{}\" errors=\"0\" skipped=\"{skipped}\" time=\"{time:.3}\"",
        results.len(),
        results.len() - passed(results) - skipped,
    )
}

/// Escapes text for XML. Controls are replaced, most of which XML 1.0 can't contain (§2.2).
fn xml(text: &str) -> String {
    let mut xml = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '&' => xml += "&amp;",
            '<' => xml += "&lt;",
            '>' => xml += "&gt;",
            '"' => xml += "&quot;",
            '\n' => xml.push('\n'),
            '\u{FFFE}' | '\u{FFFF}' => xml.push('\u{FFFD}'),
            char if char.is_control() => xml.push('\u{FFFD}'),
            char => xml.push(char),
        }
    }
    xml
}

/// A badge for the endpoint of shields.io. It names the number of cases, so that a selection does not look
/// like all of them.
fn badge(summary: &Summary) -> String {
    let color = if summary.is_passed() { "brightgreen" } else { "red" };
    let message = format!("{} of {} passed", passed(&summary.results), summary.results.len());
    let members = [
        ("schemaVersion", "1".into()),
        ("label", json::string("WebSocket cases")),
        ("message", json::string(message)),
        ("color", json::string(color)),
    ];
    json::object(members) + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_of_a_client_ends_its_place_in_xml_or_markdown() {
        for (text, in_xml, in_markdown) in [
            ("a&b", "a&amp;b", "`a&b`"),
            ("]]><x y=\"z\">", "]]&gt;&lt;x y=&quot;z&quot;&gt;", "`]]><x y=\"z\">`"),
            ("a\0b\u{1b}c\td", "a\u{FFFD}b\u{FFFD}c\u{FFFD}d", "`a\u{FFFD}b\u{FFFD}c\u{FFFD}d`"),
            ("\u{85}\u{FFFE}\u{FFFF}", "\u{FFFD}\u{FFFD}\u{FFFD}", "`\u{FFFD}\u{FFFD}\u{FFFD}`"),
            ("\u{202e}", "\u{202e}", "`\u{FFFD}`"),
            ("`<!--` @a \\`", "`&lt;!--` @a \\`", "`'<!--' @a \\'`"),
            ("grün 日本 😀", "grün 日本 😀", "`grün 日本 😀`"),
        ] {
            assert_eq!((&*xml(text), &*code_span(text)), (in_xml, in_markdown));
        }
    }
}
