//! Responses to plain GET requests: verdicts, reports, and explanations of the control paths.

use crate::app::cases::case::Id;
use crate::app::cases::control::{self, Command, Control};
use crate::app::cases::format::Format;
use crate::app::cases::results::Cases;
use crate::app::cases::results::{self, State};
use crate::app::cases::summary::Check;
use crate::app::query::Query;
use crate::http::response::Response;

/// The response to a GET, or `None` for other paths.
pub fn response(path: &str, query: &str, cases: &Cases) -> Option<Response> {
    if path == "/verdict" {
        return Some(verdict(query, cases));
    }
    if let Some(name) = path.strip_prefix("/reports/") {
        let report = report(name, cases);
        return Some(report.unwrap_or_else(|| Response::text(404, "there is no such report")));
    }
    Some(match control::parse(path, query, &cases.suite)? {
        Ok(control) => explain(control, cases),
        Err(wrong) => Response::text(400, wrong),
    })
}

/// The response that reports whether an agent passes.
fn verdict(query: &str, cases: &Cases) -> Response {
    let asked = Query::parse(query)
        .and_then(|query| Ok((Check::parse(&query)?, Format::parse(query.get("format"))?)));
    match asked {
        Ok((check, format)) => match check.summarize(cases) {
            Some(summary) => format.response(&summary, &cases.suite),
            None => Response::text(404, "no case was played to this agent"),
        },
        Err(wrong) => Response::text(400, wrong),
    }
}

fn report(name: &str, cases: &Cases) -> Option<Response> {
    let reports = cases.results.reports();
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

/// Explains the effect of a WebSocket at the same address.
fn explain(control: Control, cases: &Cases) -> Response {
    let command = match control {
        Control::Run(case, agent) => {
            let text = format!(
                "A WebSocket here plays case {} to {agent}.\n{}\n{}",
                case.id,
                case.description(),
                case.expectation()
            );
            return Response::text(200, text);
        }
        Control::Ask(command) => command,
    };
    match command {
        Command::CaseCount => Response::text(200, cases.suite.ids().len().to_string()),
        Command::CaseInfo(case) => Response::text(
            200,
            format!("{}: {}\n{}", case.id, case.description(), case.expectation()),
        ),
        Command::CaseStatus(case, agent) => match cases.results.state(&agent, case.id) {
            Some(State::Judged(report)) => json(format!(
                "{{\"behavior\": \"{}\", \"behaviorClose\": \"{}\"}}\n",
                report.behavior.as_str(),
                report.close.as_str()
            )),
            Some(State::Running) => Response::text(404, "the case is being played"),
            None => Response::text(404, "the case was not played to this agent"),
        },
        Command::UpdateReports(_) => Response::text(
            200,
            "A WebSocket here has the reports written to --reports; /reports/index.json has the same.",
        ),
        Command::Stop(_) => Response::text(403, "a client can't stop wsecho"),
    }
}

fn json(body: String) -> Response {
    Response { status: 200, headers: vec![], body: body.into() }
        .with("Content-Type", "application/json")
}
