//! A connection of a client that runs the cases: a trial, or the answer to a command.

use std::sync::Arc;
use std::time::Duration;

use crate::app::cases::answer::Answer;
use crate::app::cases::control::Control;
use crate::app::cases::results::Cases;
use crate::app::cases::trial::{Handshake, Trial};
use crate::app::end::End;
use crate::app::incoming::Incoming;
use crate::app::step::Step;
use crate::buffer::Budget;
use crate::websocket::session::Session;

/// The job of the connection.
pub enum Runner<'s> {
    Trial(Box<Trial<'s>>),
    Answer(Box<Answer<'s>>),
}

impl<'s> Runner<'s> {
    /// Serves the request of the client from `now` on.
    pub fn new(
        cases: &'s Cases,
        control: Control,
        handshake: Handshake,
        incoming: Box<Incoming>,
        budget: &Arc<Budget>,
        now: Duration,
    ) -> Self {
        match control {
            Control::Run(case, agent) => {
                let Cases { results, .. } = cases;
                let budget = Arc::clone(budget);
                let trial = Trial::new(*case, agent, handshake, results, incoming, budget, now);
                Runner::Trial(Box::new(trial))
            }
            Control::Ask(command) => {
                let answer = Answer::new(cases, command, incoming, handshake.opening, now);
                Runner::Answer(Box::new(answer))
            }
        }
    }

    /// Returns the next step at `now`.
    pub fn next(&mut self, now: Duration) -> Step<'_> {
        match self {
            Runner::Trial(trial) => trial.next(now),
            Runner::Answer(answer) => answer.next(now),
        }
    }

    /// The buffer for the next received bytes.
    pub fn input(&mut self) -> &mut [u8] {
        self.incoming_mut().input()
    }

    /// Processes the first `bytes` of [`input`](Self::input), which were received at `now`.
    pub fn received(&mut self, bytes: usize, now: Duration) {
        self.incoming_mut().received(bytes, now);
    }

    /// Records that nothing was received until `now`.
    pub fn waited(&mut self, now: Duration) {
        // The result is ignored, since there are no pings.
        self.incoming_mut().waited(now);
    }

    /// Records that the client has ended its stream, or that the connection is lost.
    pub fn ended(&mut self, now: Duration) {
        if let Runner::Trial(trial) = self {
            trial.ended(now);
        }
    }

    /// Records whether the reports were written, with the reason if not.
    pub fn reported(&mut self, result: Result<(), String>) {
        if let Runner::Answer(answer) = self {
            answer.reported(result);
        }
    }

    /// Sends the client a close frame because the server stops.
    pub fn stop(&mut self) {
        match self {
            Runner::Trial(trial) => trial.stop(),
            Runner::Answer(answer) => answer.stop(),
        }
    }

    pub fn session(&self) -> &Session {
        match self {
            Runner::Trial(trial) => &trial.incoming.session,
            Runner::Answer(answer) => &answer.incoming.session,
        }
    }

    /// How it ended, once the last step was taken or the stream has ended.
    pub fn end(&self) -> End {
        match self {
            Runner::Trial(trial) => trial.end(),
            Runner::Answer(answer) => End::of(&answer.incoming.session),
        }
    }

    fn incoming_mut(&mut self) -> &mut Incoming {
        match self {
            Runner::Trial(trial) => &mut trial.incoming,
            Runner::Answer(answer) => &mut answer.incoming,
        }
    }

    /// The verdict as a line for the log, once there is one.
    pub fn verdict(&self) -> Option<&str> {
        match self {
            Runner::Trial(trial) => trial.line(),
            Runner::Answer(_) => None,
        }
    }
}
