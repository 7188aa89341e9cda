//! Responses to plain GET requests: the page, verdicts, reports, and explanations of the control paths.

use crate::app::cases::case::{Case, Id};
use crate::app::cases::control::{self, Command, Control};
use crate::app::cases::format::Format;
use crate::app::cases::results::{self, Cases, State};
use crate::app::cases::suite::{self, Suite};
use crate::app::cases::summary::Requirements;
use crate::app::json;
use crate::app::page;
use crate::app::query::Query;
use crate::escape::Quoted;
use crate::http::response::Response;

/// The folder of the reports. The page requests them again and again while a client runs the cases.
pub const REPORTS: &str = "/reports/";

/// The paths that only a GET has. The links of the page are relative, so `/cases/` is not one of them.
pub const PATHS: [&str; 2] = ["/cases", "/verdict"];

const NO_REPORT: &str = "there is no such report; /reports/index.json lists all";

/// The response to a GET, or `None` for other paths.
pub fn response(path: &str, query: &str, cases: &Cases) -> Option<Response> {
    match path {
        "/cases" => return Some(page::CASES.response()),
        "/verdict" => return Some(verdict(query, cases)),
        "/getCaseInfo" if query.is_empty() => return Some(json(list(&cases.suite))),
        _ => {}
    }
    if let Some(name) = path.strip_prefix(REPORTS) {
        return Some(match Query::parse(query) {
            Ok(query) => report(name, query.get("agent"), cases)
                .unwrap_or_else(|| Response::text(404, NO_REPORT)),
            Err(wrong) => Response::text(400, wrong),
        });
    }
    Some(match control::parse(path, query, &cases.suite)? {
        Ok(control) => explain(control, cases),
        Err(wrong) => Response::text(400, wrong),
    })
}

/// The response that reports whether an agent passes.
fn verdict(query: &str, cases: &Cases) -> Response {
    let asked = Query::parse(query)
        .and_then(|query| Ok((Requirements::parse(&query)?, Format::parse(query.get("format"))?)));
    match asked {
        Ok((required, format)) => match required.summarize(cases) {
            // A mistake in `except` must not look like a client that passes.
            Some(summary) if summary.results.is_empty() => {
                Response::text(400, "except leaves no case")
            }
            Some(summary) => format.response(&summary, &cases.suite),
            None => Response::text(404, "no case was played to this agent"),
        },
        Err(wrong) => Response::text(400, wrong),
    }
}

/// The file `name`, of one agent if it is given: two agents can have the same name in lower case.
fn report(name: &str, agent: Option<&str>, cases: &Cases) -> Option<Response> {
    if name == "agents.json" {
        return Some(json(cases.results.progress()));
    }
    let mut reports = cases.results.reports();
    reports.retain(|known, _| agent.is_none_or(|agent| agent == known));
    if name == "index.json" {
        return Some(json(results::index(&reports)));
    }
    let id = name.strip_suffix(".json")?.rsplit_once("_case_")?.1;
    let id = Id::parse(&id.replace('_', "."))?;
    let is_named = |agent: &&String| results::file_name(agent, id) == name;
    let agent = reports.keys().find(is_named)?;
    let report = reports[agent].iter().find(|report| report.id == id)?;
    let case = cases.suite.case(id)?;
    Some(json(results::file(agent, &case, cases.suite.place(id), report)))
}

/// The selected cases.
fn list(suite: &Suite) -> String {
    let describe = |(place, case): (usize, Case)| {
        json::object([
            ("case", (place + 1).to_string()),
            ("id", json::string(case.id.to_string())),
            ("group", json::string(suite::subject(case.id.group()))),
            ("description", json::string(case.description())),
            ("expectation", json::string(case.expectation())),
            ("rule", json::string(case.rule)),
            ("maxDuration", case.max_duration().as_millis().to_string()),
        ])
    };
    format!("[{}]\n", json::lines(suite.cases().enumerate().map(describe)))
}

/// Explains the effect of a WebSocket at the same address.
fn explain(control: Control, cases: &Cases) -> Response {
    let text = match control {
        Control::Run(case, agent) => {
            let (id, agent) = (case.id, Quoted(agent.as_bytes()));
            format!("A WebSocket here plays case {id} to {agent}.\n{}", case.explanation())
        }
        Control::Ask(Command::CaseCount) => cases.suite.ids().len().to_string(),
        Control::Ask(Command::CaseInfo(case)) => format!("{}: {}", case.id, case.explanation()),
        Control::Ask(Command::CaseStatus(case, agent)) => {
            return match cases.results.state(&agent, case.id) {
                Some(State::Judged(report)) => json(json::object(report.verdicts()) + "\n"),
                Some(State::Running) => Response::text(404, "the case is being played"),
                None => Response::text(404, "the case was not played to this agent"),
            };
        }
        Control::Ask(Command::UpdateReports(_)) => "A WebSocket here has the reports written to \
            --reports; /reports/index.json has the same."
            .into(),
        Control::Ask(Command::Stop(_)) => {
            return Response::text(403, "a client can't stop wsecho");
        }
    };
    Response::text(200, text)
}

fn json(body: String) -> Response {
    Response { status: 200, headers: vec![], body: body.into() }
        .with("Content-Type", "application/json")
}
