//! One answer for CI: whether an agent passes.

use std::time::Duration;

use crate::app::cases::case::{Behavior, CloseBehavior, Id};
use crate::app::cases::control;
use crate::app::cases::results::{Cases, State};
use crate::app::cases::suite::Pattern;
use crate::app::query::Query;

/// The requirements on an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirements {
    agent: String,
    /// The words of verdicts that pass.
    passing: Vec<&'static str>,
    except: Vec<Pattern>,
}

/// The results of an agent that count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    pub agent: String,
    /// In the order of the cases.
    pub results: Vec<CaseResult>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaseResult {
    pub id: Id,
    /// The verdict in one word, or the reason why there is none.
    pub verdict: &'static str,
    pub outcome: Outcome,
    pub duration: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Passed,
    /// UNIMPLEMENTED, and allowed.
    Skipped,
    /// With the reason.
    Failed(String),
}

impl Requirements {
    /// Parses a query, such as `agent=mylib&strict&allow=UNIMPLEMENTED&except=9.*,12.*`.
    ///
    /// # Errors
    ///
    /// A sentence that names the mistake.
    pub fn parse(query: &Query) -> Result<Self, String> {
        query.check(
            |name| matches!(name, "agent" | "strict" | "allow" | "except" | "format"),
            "expected agent, strict, allow, except or format",
        )?;
        let allowable = [
            Behavior::Unimplemented.as_str(),
            CloseBehavior::Unclean.as_str(),
            CloseBehavior::WrongCode.as_str(),
        ];
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
        let except = except.map(Pattern::parse_decoded).collect::<Result<_, _>>();
        let except = except.map_err(|wrong| format!("except: {wrong}"))?;
        Ok(Requirements { agent: control::agent(query)?, passing, except })
    }

    /// Checks the verdicts on every selected case. `None` if no case was played to the agent.
    pub fn summarize(&self, Cases { suite, results }: &Cases) -> Option<Summary> {
        let states = results.states(&self.agent)?;
        let is_excepted = |id: Id| self.except.iter().any(|pattern| pattern.matches(id));
        let ids = suite.ids().iter().filter(|id| !is_excepted(**id));
        let results = ids.map(|id| self.result(*id, states.get(id))).collect();
        Some(Summary { agent: self.agent.clone(), results })
    }

    fn result(&self, id: Id, state: Option<&State>) -> CaseResult {
        let without_verdict = |why: &'static str| CaseResult {
            id,
            verdict: why,
            outcome: Outcome::Failed(why.into()),
            duration: Duration::ZERO,
        };
        let report = match state {
            None => return without_verdict("not run"),
            Some(State::Running) => return without_verdict("running"),
            Some(State::Judged(report)) => report,
        };
        let (behavior, close) = (report.behavior.as_str(), report.close.as_str());
        let is_passing = |word| self.passing.contains(word);
        let (verdict, outcome) = match (is_passing(&behavior), is_passing(&close)) {
            (true, true) if report.behavior == Behavior::Unimplemented => {
                (behavior, Outcome::Skipped)
            }
            (true, true) => (behavior, Outcome::Passed),
            (false, _) => (behavior, Outcome::Failed(report.describe())),
            (true, false) => (close, Outcome::Failed(report.describe())),
        };
        CaseResult { id, verdict, outcome, duration: report.duration }
    }
}

impl Summary {
    pub fn is_passed(&self) -> bool {
        self.results.iter().all(|result| !matches!(result.outcome, Outcome::Failed(_)))
    }
}
