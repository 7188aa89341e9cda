//! One answer for CI: whether an agent passes.

use std::fmt::Write as _;

use crate::app::cases::case::{Behavior, CloseBehavior};
use crate::app::cases::control;
use crate::app::cases::results::Cases;
use crate::app::cases::results::State;
use crate::app::cases::suite::Pattern;
use crate::app::query::Query;
use crate::escape::Count;

/// The requirements on an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    agent: String,
    /// The words of verdicts that pass.
    passing: Vec<&'static str>,
    except: Vec<Pattern>,
}

/// Whether an agent passes, and the reason as text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Summary {
    Passed(String),
    Failed(String),
    UnknownAgent,
}

impl Check {
    /// Parses a query, such as `agent=mylib&strict&allow=UNIMPLEMENTED&except=9.*,12.*`.
    ///
    /// # Errors
    ///
    /// A sentence that names the mistake.
    pub fn parse(query: &str) -> Result<Self, String> {
        let allowable = [
            Behavior::Unimplemented.as_str(),
            CloseBehavior::Unclean.as_str(),
            CloseBehavior::WrongCode.as_str(),
        ];
        let query = Query::parse(query)?;
        let mut passing = vec![Behavior::Ok.as_str(), Behavior::Informational.as_str()];
        match query.get("strict") {
            None => passing.push(Behavior::NonStrict.as_str()),
            Some("") => {}
            Some(_) => return Err("strict is given without a value".into()),
        }
        for word in query.get("allow").into_iter().flat_map(|words| words.split(',')) {
            let allowed = allowable.into_iter().find(|allowed| allowed.eq_ignore_ascii_case(word));
            passing.push(allowed.ok_or(format!("allow is a list of {}", allowable.join(", ")))?);
        }
        let except = query.get("except").into_iter().flat_map(|patterns| patterns.split(','));
        let except = except.map(Pattern::parse).collect::<Result<_, _>>();
        let except = except.map_err(|wrong| format!("except: {wrong}"))?;
        Ok(Check { agent: control::agent(&query)?, passing, except })
    }

    /// Checks the verdicts on every selected case.
    pub fn summarize(&self, Cases { suite, results }: &Cases) -> Summary {
        let Some(states) = results.states(&self.agent) else { return Summary::UnknownAgent };
        let mut counts: Vec<(&str, u64)> = Vec::new();
        let mut failures = String::new();
        for id in suite.ids() {
            if self.except.iter().any(|pattern| pattern.matches(*id)) {
                continue;
            }
            let (word, failure) = match states.get(id) {
                None => ("not run", Some("not run".into())),
                Some(State::Running) => ("running", Some("running".into())),
                Some(State::Judged(report)) => {
                    let (behavior, close) = (report.behavior.as_str(), report.close.as_str());
                    let is_passing = |word| self.passing.contains(word);
                    match (is_passing(&behavior), is_passing(&close)) {
                        (true, true) => (behavior, None),
                        (false, _) => (behavior, Some(report.describe())),
                        (true, false) => (close, Some(report.describe())),
                    }
                }
            };
            match counts.iter_mut().find(|(counted, _)| *counted == word) {
                Some((_, count)) => *count += 1,
                None => counts.push((word, 1)),
            }
            if let Some(failure) = failure {
                let _ = write!(failures, "\n{id}: {failure}");
            }
        }
        let total = Count(counts.iter().map(|(_, count)| count).sum(), "case");
        let counts: Vec<_> = counts.iter().map(|(word, count)| format!("{count} {word}")).collect();
        let text = format!("{total}: {}{failures}", counts.join(", "));
        if failures.is_empty() { Summary::Passed(text) } else { Summary::Failed(text) }
    }
}
