//! The answer to a command of the control protocol: at most one message, then a close frame.

use std::mem;
use std::time::Duration;

use crate::app::cases::control::Command;
use crate::app::cases::results::{Cases, State};
use crate::app::incoming::Incoming;
use crate::app::json;
use crate::app::step::Step;
use crate::websocket::close::{CloseFrame, Reason, STOPPING};
use crate::websocket::frame::{self, Opcode};

/// The first and the longest pause between two checks whether a case has ended. A client that ends TCP
/// may ask before the thread of the case has noticed.
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const MAX_PAUSE: Duration = Duration::from_millis(100);

/// How long the reports wait for the end of the agent's cases.
const MAX_RUNNING: Duration = Duration::from_secs(2);

/// An answer to a command.
pub struct Answer<'s> {
    cases: &'s Cases,
    command: Command,
    pub incoming: Box<Incoming>,
    output: Vec<u8>,
    /// The bytes of `output` that the last step returned.
    handed_out: usize,
    pause: Duration,
    /// The deadline of the wait.
    until: Duration,
}

/// The event that a command waits for.
enum Need {
    /// The end of a case.
    Time,
    Reports,
    Nothing,
}

impl<'s> Answer<'s> {
    /// Answers `command` after `opening`, the 101, is sent.
    pub fn new(
        cases: &'s Cases,
        command: Command,
        incoming: Box<Incoming>,
        opening: Vec<u8>,
        now: Duration,
    ) -> Self {
        let until = now
            + match &command {
                Command::CaseStatus(case, _) => case.max_duration(),
                Command::UpdateReports(_) | Command::Stop(Some(_)) => MAX_RUNNING,
                Command::CaseCount | Command::CaseInfo(_) | Command::Stop(None) => Duration::ZERO,
            };
        Answer {
            cases,
            command,
            incoming,
            output: opening,
            handed_out: 0,
            pause: FIRST_PAUSE,
            until,
        }
    }

    /// Returns the next step at `now`.
    pub fn next(&mut self, now: Duration) -> Step<'_> {
        self.output.drain(..mem::take(&mut self.handed_out));
        if self.incoming.session.closed().is_none() {
            match (self.answer(now), &self.command) {
                // The 101 is sent first.
                _ if !self.output.is_empty() => {}
                // Before the input is processed, since some clients close at once.
                (Need::Reports, Command::UpdateReports(agent) | Command::Stop(Some(agent))) => {
                    return Step::Report(agent);
                }
                _ => {
                    let pause = self.pause;
                    self.pause = (2 * pause).min(MAX_PAUSE);
                    return Step::Pause(pause);
                }
            }
        } else {
            // Only a close frame is expected.
            while self.incoming.next_event().is_some() {}
        }
        self.handed_out = self.output.len();
        if self.incoming.session.closed().is_none() {
            return Step::Send { head: &self.output, payload: b"" };
        }
        if self.incoming.is_over(now) {
            return Step::SendLast(&self.output);
        }
        if self.incoming.has_sent_close() {
            return Step::Receive(self.incoming.wait(now));
        }
        self.incoming.sent_close(now);
        Step::SendClose(&self.output)
    }

    /// Records whether the reports were written, with the reason if not.
    pub fn reported(&mut self, result: Result<(), String>) {
        match (result, &self.command) {
            // The reason names a path, which may be too long for a close frame.
            (Err(_), _) => self.close(NO_REPORTS),
            (Ok(()), Command::Stop(_)) => self.close(CANNOT_STOP),
            (Ok(()), _) => self.close(NO_CODE),
        }
    }

    /// Sends the client a close frame because the server stops.
    pub fn stop(&mut self) {
        if self.incoming.session.closed().is_none() {
            self.close(STOPPING);
        }
    }

    /// Answers, unless the command has to wait.
    fn answer(&mut self, now: Duration) -> Need {
        let is_late = now >= self.until;
        let message = match &self.command {
            Command::CaseCount => self.cases.suite.ids().len().to_string(),
            Command::CaseInfo(case) => json::object([
                ("id", json::string(case.id.to_string())),
                (
                    "description",
                    json::string(format!("{} {}", case.description(), case.expectation())),
                ),
            ]),
            Command::CaseStatus(case, agent) => match self.cases.results.state(agent, case.id) {
                Some(State::Judged(report)) => {
                    json::object([("behavior", json::string(report.behavior.as_str()))])
                }
                Some(State::Running) if !is_late => return Need::Time,
                _ => {
                    self.close(NO_VERDICT);
                    return Need::Nothing;
                }
            },
            Command::UpdateReports(agent) | Command::Stop(Some(agent)) => {
                let is_running = self.cases.results.is_running(agent);
                return if is_running && !is_late { Need::Time } else { Need::Reports };
            }
            Command::Stop(None) => {
                self.close(CANNOT_STOP);
                return Need::Nothing;
            }
        };
        frame::encode_header(Opcode::Text, message.len(), &mut self.output);
        self.output.extend_from_slice(message.as_bytes());
        self.close(NO_CODE);
        Need::Nothing
    }

    fn close(&mut self, close: CloseFrame) {
        close.encode(&mut self.output);
        self.incoming.close(close);
    }
}

const NO_CODE: CloseFrame = CloseFrame { code: None, reason: Reason::NONE };
const NO_VERDICT: CloseFrame = CloseFrame::new(1008, "there is no verdict on this case");
const NO_REPORTS: CloseFrame =
    CloseFrame::new(1011, "the reports can't be written; the server's log has the reason");
const CANNOT_STOP: CloseFrame = CloseFrame::new(1008, "a client can't stop wsecho");
