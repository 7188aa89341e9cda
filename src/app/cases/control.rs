//! The control protocol: a path and its query → a case to run, or a command.

use crate::app::cases::case::{Case, Id};
use crate::app::cases::suite::Suite;
use crate::app::query::Query;

/// The maximum length of an agent's name, in characters.
const MAX_AGENT: usize = 100;

/// A request of a client that runs the cases.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Control {
    /// Run a case with an agent.
    Run(Box<Case>, String),
    Ask(Command),
}

/// A command, answered by at most one message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    CaseCount,
    CaseInfo(Box<Case>),
    CaseStatus(Box<Case>, String),
    UpdateReports(String),
    /// Stop the server, after updating the reports on the agent if one is given.
    Stop(Option<String>),
}

type Parse = fn(&Query, &Suite) -> Result<Control, String>;

const CONTROLS: [(&str, Parse); 6] = [
    ("/runCase", |query, suite| Ok(Control::Run(case(query, suite)?, agent(query)?))),
    ("/getCaseCount", |_, _| Ok(Control::Ask(Command::CaseCount))),
    ("/getCaseInfo", |query, suite| Ok(Control::Ask(Command::CaseInfo(case(query, suite)?)))),
    ("/getCaseStatus", |query, suite| {
        Ok(Control::Ask(Command::CaseStatus(case(query, suite)?, agent(query)?)))
    }),
    ("/updateReports", |query, _| {
        let agent = agent(query)?;
        Ok(Control::Ask(match query.get("shutdownOnComplete") {
            Some("true" | "True" | "yes") => Command::Stop(Some(agent)),
            _ => Command::UpdateReports(agent),
        }))
    }),
    ("/stopServer", |_, _| Ok(Control::Ask(Command::Stop(None)))),
];

/// The paths of the control protocol.
pub fn paths() -> impl Iterator<Item = &'static str> {
    CONTROLS.iter().map(|(path, _)| *path)
}

/// Parses a path and its query. `None` for a path outside the control protocol.
///
/// # Errors
///
/// A sentence that names the mistake.
pub fn parse(path: &str, query: &str, suite: &Suite) -> Option<Result<Control, String>> {
    let (_, parse) = CONTROLS.iter().find(|(known, _)| *known == path)?;
    Some(Query::parse(query).and_then(|query| parse(&query, suite)))
}

/// The case that a query names, by its place among the selected cases or by its id.
fn case(query: &Query, suite: &Suite) -> Result<Box<Case>, String> {
    let id = match (query.get("case"), query.get("casetuple")) {
        (Some(place), _) => {
            let ids = suite.ids();
            let place = place.parse().ok().and_then(|place: usize| ids.get(place.checked_sub(1)?));
            *place.ok_or(format!("case is not a number from 1 to {}", ids.len()))?
        }
        (None, Some(id)) => {
            Id::parse(id.trim()).ok_or("casetuple is not the id of a case, such as 7.9.3")?
        }
        (None, None) => return Err("case or casetuple is missing, for example case=1".into()),
    };
    suite.case(id).map(Box::new).ok_or(format!("there is no case {id}"))
}

/// The agent that a query names.
///
/// # Errors
///
/// A sentence that describes a valid agent.
pub fn agent(query: &Query) -> Result<String, String> {
    match query.get("agent") {
        None => Err("agent is missing, for example agent=mylib".into()),
        Some(agent)
            if (1..=MAX_AGENT).contains(&agent.chars().count())
                && !agent.chars().any(char::is_control) =>
        {
            Ok(agent.into())
        }
        Some(_) => {
            Err(format!("agent is a name of up to {MAX_AGENT} characters, no control characters"))
        }
    }
}
