//! The verdicts on each agent. This is the only state that outlives a connection, and it is bounded.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use crate::app::cases::case::{Behavior, Case, CloseBehavior, Event, Id, Play};
use crate::app::cases::suite::Suite;
use crate::app::cases::verdict::{Came, ClosePayload, Ending};
use crate::app::json;
use crate::app::trace::Side;
use crate::lock::lock;

/// The cases of a server and the verdicts on its clients.
#[derive(Default)]
pub struct Cases {
    pub suite: Suite,
    pub results: Results,
}

impl Cases {
    pub fn new(suite: Suite) -> Self {
        Cases { suite, results: Results::default() }
    }

    /// The names and contents of the files with the reports on an agent.
    pub fn files(&self, agent: &str) -> impl Iterator<Item = (String, String)> {
        let reports = self.results.reports().remove(agent).unwrap_or_default();
        reports.into_iter().filter_map(move |report| {
            let case = self.suite.case(report.id)?;
            let contents = file(agent, &case, self.suite.place(report.id), &report);
            Some((file_name(agent, report.id), contents))
        })
    }
}

/// The maximum number of agents. A new one replaces the one that was seen least recently.
const MAX_AGENTS: usize = 32;

/// The last results of each agent.
#[derive(Default)]
pub struct Results {
    /// In the order in which they were last seen, the most recent last.
    agents: Mutex<Vec<Agent>>,
}

struct Agent {
    name: String,
    /// The value of Sec-WebSocket-Accept of its last run, which tells keys apart.
    accept: String,
    cases: BTreeMap<Id, State>,
}

/// The state of a case.
#[derive(Clone)]
pub enum State {
    Running,
    Judged(Arc<Report>),
}

/// The result of a case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    pub id: Id,
    /// Since the Unix epoch.
    pub started: Duration,
    pub duration: Duration,
    pub behavior: Behavior,
    pub close: CloseBehavior,
    pub close_result: String,
    /// A JSON array of at most 512 bytes, and a mark if that is not all.
    pub received: String,
    pub ending: Ending,
    /// The head of the request, which may be cut.
    pub request: String,
    /// The head of the response, which may be cut.
    pub response: String,
}

impl Results {
    /// Records that a case is running, in a connection with this Sec-WebSocket-Accept. Drops the result
    /// of an earlier run. Returns whether the agent's last run had another key.
    pub fn begin(&self, agent: &str, id: Id, accept: &str) -> bool {
        self.update(agent, |agent| {
            agent.cases.insert(id, State::Running);
            let is_new = agent.accept != accept;
            agent.accept = accept.into();
            is_new
        })
    }

    pub fn finish(&self, agent: &str, report: Report) {
        self.update(agent, |agent| {
            agent.cases.insert(report.id, State::Judged(Arc::new(report)));
        });
    }

    fn update<R>(&self, name: &str, update: impl FnOnce(&mut Agent) -> R) -> R {
        let mut agents = self.lock();
        let mut agent = match agents.iter().position(|agent| agent.name == name) {
            Some(place) => agents.remove(place),
            None => Agent { name: name.into(), accept: String::new(), cases: BTreeMap::new() },
        };
        let result = update(&mut agent);
        if agents.len() == MAX_AGENTS {
            agents.remove(0);
        }
        agents.push(agent);
        result
    }

    pub fn state(&self, agent: &str, id: Id) -> Option<State> {
        self.known(agent, |agent| agent.cases.get(&id).cloned())?
    }

    /// The state of each case of an agent, if the agent is known.
    pub fn states(&self, agent: &str) -> Option<BTreeMap<Id, State>> {
        self.known(agent, |agent| agent.cases.clone())
    }

    /// Whether a case of the agent is running.
    pub fn is_running(&self, agent: &str) -> bool {
        let is_running = |state: &State| matches!(state, State::Running);
        self.known(agent, |agent| agent.cases.values().any(is_running)).unwrap_or_default()
    }

    /// Reads an agent, if it is known.
    fn known<R>(&self, name: &str, read: impl FnOnce(&Agent) -> R) -> Option<R> {
        self.lock().iter().find(|agent| agent.name == name).map(read)
    }

    /// The names of all agents and their reports, both sorted.
    pub fn reports(&self) -> BTreeMap<String, Vec<Arc<Report>>> {
        let agents = self.lock();
        agents
            .iter()
            .map(|agent| (agent.name.clone(), agent.reports().cloned().collect()))
            .collect()
    }

    /// `agents.json`: the progress of each agent, the one that was seen last first.
    pub fn progress(&self) -> String {
        format!("[{}]\n", json::lines(self.lock().iter().rev().map(Agent::progress)))
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Agent>> {
        lock(&self.agents)
    }
}

impl Agent {
    fn reports(&self) -> impl Iterator<Item = &Arc<Report>> {
        self.cases.values().filter_map(|state| match state {
            State::Judged(report) => Some(report),
            State::Running => None,
        })
    }

    fn progress(&self) -> String {
        let mut verdicts: BTreeMap<&str, usize> = BTreeMap::new();
        for report in self.reports() {
            *verdicts.entry(report.word()).or_default() += 1;
        }
        let running = self.cases.len() - self.reports().count();
        let updated = self.reports().map(|report| report.started + report.duration).max();
        let verdicts = verdicts.into_iter().map(|(word, count)| (word, count.to_string()));
        json::object([
            ("agent", json::string(&self.name)),
            ("running", running.to_string()),
            ("updated", json::or_null(updated.map(json::time))),
            ("verdicts", json::object(verdicts)),
        ])
    }
}

impl Report {
    /// Both verdicts as members of a JSON object.
    pub fn verdicts(&self) -> [(&'static str, String); 2] {
        [
            ("behavior", json::string(self.behavior.as_str())),
            ("behaviorClose", json::string(self.close.as_str())),
        ]
    }

    /// The reason of the behavior.
    pub fn result(&self) -> String {
        match &self.ending.failed {
            Some(why) => format!("the server failed the connection: {why}"),
            None => format!("received {}", self.received),
        }
    }

    /// Both verdicts in one word: that on the close if only the close is not good.
    pub fn word(&self) -> &'static str {
        match self.behavior {
            Behavior::Ok | Behavior::NonStrict | Behavior::Informational
                if !self.close.is_good() =>
            {
                self.close.as_str()
            }
            behavior => behavior.as_str(),
        }
    }

    /// The verdicts, and their reasons if they are not good.
    pub fn describe(&self) -> String {
        let mut text = String::from(self.behavior.as_str());
        if self.behavior == Behavior::Failed && self.close != CloseBehavior::WrongCode {
            text += &format!(": {}", self.result());
        }
        if !self.close.is_good() {
            text += &format!(", close {}: {}", self.close.as_str(), self.close_result);
        }
        text
    }
}

/// The name of the file with a report, by the suite's rule: an agent's name keeps only ASCII letters and
/// digits.
pub fn file_name(agent: &str, id: Id) -> String {
    let agent: String = agent
        .to_ascii_lowercase()
        .chars()
        .map(|char| if char.is_ascii_alphanumeric() { char } else { '_' })
        .collect();
    let id = id.to_string().replace('.', "_");
    format!("{}_case_{id}.json", agent.trim_matches('_'))
}

/// `index.json`: the verdicts of all agents.
pub fn index(reports: &BTreeMap<String, Vec<Arc<Report>>>) -> String {
    // In one buffer, since it may have some megabytes.
    let mut index = String::from("{");
    let mut comma = "";
    for (agent, reports) in reports {
        index += &format!("{comma}\n  {}: {{", json::string(agent));
        comma = "";
        for report in reports {
            let [behavior, close] = report.verdicts();
            let members = json::object([
                behavior,
                close,
                ("duration", report.duration.as_millis().to_string()),
                ("remoteCloseCode", code(report.ending.received.as_ref())),
                ("reportfile", json::string(file_name(agent, report.id))),
            ]);
            index += &format!("{comma}\n    \"{}\": {members}", report.id);
            comma = ",";
        }
        index += "\n  }";
        comma = ",";
    }
    index + "\n}\n"
}

/// The file with the report on a case. `place` is its place among the selected cases.
pub fn file(agent: &str, case: &Case, place: Option<usize>, report: &Report) -> String {
    let ending = &report.ending;
    let [sent, received] = [&ending.sent, &ending.received].map(Option::as_ref);
    let reason = |close: Option<&ClosePayload>| {
        json::or_null(close.map(|close| json::string(&close.reason)))
    };
    let [behavior, close] = report.verdicts();
    let expected = match &case.play {
        Play::Script { expected, .. } => expected.as_slice(),
        Play::RoundTrips(_) => &[],
    };
    let expected = expected.iter().map(|(behavior, events)| {
        let events: Vec<_> = events.iter().map(event_to_json).collect();
        (behavior.as_str(), format!("[{}]", events.join(", ")))
    });
    let expected_close = [
        ("closedByMe", (case.close.by == Side::Server).to_string()),
        ("closeCode", format!("{:?}", case.close.codes)),
        ("requireClean", case.close.clean.to_string()),
    ];
    let members = [
        ("case", json::or_null(place)),
        ("id", json::string(case.id.to_string())),
        ("agent", json::string(agent)),
        ("description", json::string(case.description())),
        ("expectation", json::string(case.expectation())),
        ("started", json::time(report.started)),
        ("duration", report.duration.as_millis().to_string()),
        behavior,
        close,
        ("expected", json::object(expected)),
        ("expectedClose", json::object(expected_close)),
        ("received", report.received.clone()),
        ("result", json::string(report.result())),
        ("resultClose", json::string(&report.close_result)),
        ("closedByMe", (ending.closed_by == Some(Side::Server)).to_string()),
        ("failedByMe", ending.failed.is_some().to_string()),
        ("droppedByMe", (ending.dropped_by == Some(Side::Server)).to_string()),
        ("wasClean", ending.unclean.is_none().to_string()),
        ("wasNotCleanReason", json::or_null(ending.unclean.map(json::string))),
        ("localCloseCode", code(sent)),
        ("localCloseReason", reason(sent)),
        ("remoteCloseCode", code(received)),
        ("remoteCloseReason", reason(received)),
        ("httpRequest", json::string(&report.request)),
        ("httpResponse", json::string(&report.response)),
    ];
    let members = members.map(|(name, value)| format!("\"{name}\": {value}"));
    format!("{{{}}}\n", json::lines(members))
}

/// The code of a close frame, or null.
fn code(close: Option<&ClosePayload>) -> String {
    json::or_null(close.and_then(|close| close.code))
}

fn event_to_json(event: &Event) -> String {
    match event {
        Event::Message(kind, payload) => Came::Message(*kind, &payload.to_vec()).to_json(),
        Event::Pong(payload) => Came::Pong(&payload.to_vec()).to_json(),
        Event::Open => Came::Open.to_json(),
        Event::Pongs(last) => format!("[\"pongs\", \"{last}\"]"),
        Event::OverLimit => Came::OverLimit.to_json(),
    }
}
