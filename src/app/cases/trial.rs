//! A case that is run with one client and judged, without a socket or a clock.
//!
//! Frames are sent in order, and a frame that has begun is completed before anything else. The script
//! continues up to its next pause, whatever the client does. If the connection is closing by then, the
//! script ends there.

use std::mem;
use std::sync::Arc;
use std::time::Duration;

use crate::app::cases::case::{
    Action, Behavior, Bytes, Case, Check, Frame, Limit, Play, RoundTrips, Transport, Writes,
};
use crate::app::cases::course::{Course, Due, masking_key};
use crate::app::cases::payload::Payload;
use crate::app::cases::results::{Report, Results};
use crate::app::cases::verdict::{Came, ClosePayload, judge};
use crate::app::end::End;
use crate::app::incoming::{Incoming, Next};
use crate::app::step::Step;
use crate::app::trace::Side;
use crate::buffer::{Budget, Buffer, Charge, OverBudget};
use crate::escape::Quoted;
use crate::websocket::close::{CloseFrame, OVER_BUDGET, Reason, STOPPING};
use crate::websocket::frame::{self, FIN, Opcode};
use crate::websocket::message::Kind;
use crate::websocket::session::Event;

/// How long the client may take to answer a close frame.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a client that has to be silent after its close frame is listened to.
const SILENCE: Duration = Duration::from_millis(300);

/// Frames are written together up to this size, in bytes.
const FLUSH: usize = 16 * 1024;

/// A place after every action of a script.
const END: usize = usize::MAX;

const NO_CODE: CloseFrame = CloseFrame { code: None, reason: Reason::NONE };

/// A case that is run with a client.
pub struct Trial<'s> {
    agent: String,
    handshake: Handshake,
    results: &'s Results,
    pub incoming: Box<Incoming>,
    budget: Arc<Budget>,
    course: Course,
    opened: Duration,
    now: Duration,
    /// The time of the case's limit, once it is running.
    limit: Option<Duration>,
    /// The deadline for the answer to the server's close frame.
    close_limit: Option<Duration>,
    /// The end of the script's pause.
    pause: Option<Duration>,
    /// The index of the next action, or the offset in the message of the next fragment.
    place: usize,
    /// The encoded message of a round trip, while it is being sent.
    wire: Option<Payload>,
    /// The charge for `wire` and the message.
    charge: Option<Charge>,
    writing: Option<Writing>,
    /// The time of the next byte of a head that drips.
    drip: Option<Duration>,
    /// Pongs to send.
    controls: Vec<u8>,
    output: Vec<u8>,
    /// The bytes of `output` that the last step returned.
    handed_out: usize,
    /// Whether something was sent since the input was last processed.
    has_sent: bool,
    stage: Stage,
}

/// The handshake of a client that runs the cases.
pub struct Handshake {
    /// The client's number in the log.
    pub client: u64,
    /// The time of the answer, since the Unix epoch.
    pub started: Duration,
    /// The head of the request.
    pub request: String,
    /// The head of the answer, which may be cut.
    pub response: String,
    /// The answer, not sent yet.
    pub opening: Vec<u8>,
    /// The value of Sec-WebSocket-Accept, which tells keys apart.
    pub accept: String,
    /// A mistake in the request that does not prevent the answer.
    pub mistake: Option<&'static str>,
    pub transport: Transport,
}

#[derive(Debug, PartialEq, Eq)]
enum Stage {
    Playing,
    /// The server stops, so there will be no verdict.
    Stopping,
    /// The verdict, for the log.
    Judged(String),
}

/// A frame that is being written.
struct Writing {
    header: Vec<u8>,
    payload: Payload,
    writes: Writes,
    /// The bytes written, of both.
    written: usize,
}

impl<'s> Trial<'s> {
    /// Runs `case` with a client of `agent`.
    pub fn new(
        case: Case,
        agent: String,
        mut handshake: Handshake,
        results: &'s Results,
        incoming: Box<Incoming>,
        budget: Arc<Budget>,
        now: Duration,
    ) -> Self {
        let is_key_new = results.begin(&agent, case.id, &handshake.accept);
        let limit = match &case.play {
            Play::Script { .. } => None,
            Play::RoundTrips(_) => Some(now + case.limit.time()),
        };
        let left_out = left_out(&case, incoming.session.is_compressible(), handshake.transport);
        let mut course = Course::new(case);
        if let Some(behavior) = left_out {
            course.leave_out(behavior);
        }
        if course.case.check == Check::Request {
            let repeated = "Sec-WebSocket-Key is that of the last connection";
            let repeated = (!is_key_new).then_some(repeated);
            for mistake in repeated.into_iter().chain(handshake.mistake) {
                course.came(Came::Mistake(mistake));
            }
        }
        let opening = mem::take(&mut handshake.opening);
        let (output, writing) = match course.case.opening.writes {
            Writes::Together => (opening, None),
            writes => (Vec::new(), Some(Writing::raw(opening, writes))),
        };
        Trial {
            agent,
            results,
            incoming,
            budget,
            course,
            opened: now,
            now,
            limit,
            close_limit: None,
            pause: None,
            place: if left_out.is_some() { END } else { 0 },
            wire: None,
            charge: None,
            writing,
            drip: None,
            controls: Vec::new(),
            output,
            handed_out: 0,
            has_sent: false,
            stage: Stage::Playing,
            handshake,
        }
    }

    /// Returns the next step at `now`.
    pub fn next(&mut self, now: Duration) -> Step<'_> {
        self.now = now;
        self.output.drain(..mem::take(&mut self.handed_out));
        self.process_events();
        self.await_end();
        self.check_time();
        match (&self.course.due, self.course.has_ended_stream()) {
            (Due::End, false) => {
                self.judge(Side::Server);
                Step::SendLast(b"")
            }
            (Due::End, true) => self.reset(),
            (_, true) => Step::Receive(self.wait()),
            // Receive after each send, unless many pongs are queued: a client that can't send may stop
            // reading, and input is lost after a reset.
            (_, false) if mem::take(&mut self.has_sent) && self.controls.len() < FLUSH => {
                Step::Receive(Some(Duration::ZERO))
            }
            (_, false) => self.send(),
        }
    }

    /// Sends what is due, or waits.
    fn send(&mut self) -> Step<'_> {
        if self.writing.is_none() {
            self.output.append(&mut self.controls);
            if let Due::CloseAndEnd(close) = &self.course.due {
                close.encode(&mut self.output);
                self.course.ending.sent = Some(close.into());
                self.judge(Side::Server);
                return Step::SendLast(&self.output);
            }
        }
        self.play();
        self.handed_out = self.output.len();
        if !self.output.is_empty() && self.course.due != Due::EndStream {
            self.has_sent = true;
            return Step::Send { head: &self.output, payload: b"" };
        }
        match mem::replace(&mut self.course.due, Due::Nothing) {
            Due::EndStream => {
                self.course.ending.dropped_by = Some(Side::Server);
                return Step::SendEnd(&self.output);
            }
            Due::EndTcp => {
                self.course.ending.dropped_by = Some(Side::Server);
                return Step::EndTcp;
            }
            Due::UpdateKeys => return Step::UpdateKeys,
            Due::Close(close) if self.writing.is_none() => {
                close.encode(&mut self.output);
                self.begin_close((&close).into());
                self.handed_out = self.output.len();
                return Step::SendClose(&self.output);
            }
            Due::Reset => return self.reset(),
            due => self.course.due = due,
        }
        match self.wait() {
            // While a head drips, pongs are queued: whoever floods it with pings has to wait.
            Some(wait) if self.controls.len() >= FLUSH => Step::Pause(wait),
            wait => Step::Receive(wait),
        }
    }

    fn reset(&mut self) -> Step<'_> {
        self.course.due = Due::Reset;
        self.judge(Side::Server);
        Step::Reset
    }

    /// How it ended, once the last step was taken.
    pub fn end(&self) -> End {
        match self.course.due {
            Due::Reset => End::Reset,
            _ => End::of(&self.incoming.session),
        }
    }

    /// Records that the client has ended its stream, or that the connection is lost.
    pub fn ended(&mut self, now: Duration) {
        self.now = now;
        self.judge(Side::Client);
    }

    /// Sends the client a close frame because the server stops. There will be no verdict.
    pub fn stop(&mut self) {
        if self.stage == Stage::Playing {
            self.stage = Stage::Stopping;
            self.end_script();
            self.course.close(STOPPING);
            if self.course.has_ended_stream() {
                self.course.due = Due::End;
            }
        }
    }

    /// The verdict as a line for the log, once there is one.
    pub fn line(&self) -> Option<&str> {
        match &self.stage {
            Stage::Judged(line) => Some(line),
            Stage::Playing | Stage::Stopping => None,
        }
    }

    /// The time to wait for more bytes.
    fn wait(&self) -> Option<Duration> {
        let times =
            [self.limit, self.close_limit, self.pause, self.drip, self.incoming.next_release()];
        times.into_iter().flatten().min().map(|time| time.saturating_sub(self.now))
    }

    fn process_events(&mut self) {
        let Self { incoming, course, controls, handshake, .. } = self;
        if course.case.fails_handshake() {
            return course.process_bytes(incoming);
        }
        loop {
            let masking_key = match course.case.check {
                Check::MaskingKeys => masking_key(incoming),
                Check::Silence if course.ending.received.is_some() => {
                    course.process_bytes(incoming);
                    break;
                }
                _ => None,
            };
            let Some(Next { event, session, frames }) = incoming.next_event() else { break };
            if let Some(frames) = frames {
                frames.log(handshake.client);
            }
            match event {
                Event::InInput(kind, payload) => {
                    course.check_masking_key(masking_key);
                    course.came(Came::Message(kind, payload));
                }
                Event::Assembled(kind) => course.came(Came::Message(kind, session.assembled())),
                Event::Inflated(kind, inflated) => {
                    course.check_window(inflated.message().len(), inflated.compressed_size());
                    course.came(Came::Message(kind, inflated.message()));
                }
                Event::Pong(payload) => {
                    course.check_masking_key(masking_key);
                    course.came(Came::Pong(payload));
                }
                Event::Ping(payload)
                    if course.ending.closed_by.is_none() && !course.has_ended_stream() =>
                {
                    frame::encode_header(Opcode::Pong, payload.len(), controls);
                    controls.extend_from_slice(payload);
                }
                Event::Ping(_) => {}
                Event::Close => course.process_close(session),
            }
        }
        incoming.skipped().log(handshake.client);
        if incoming.check_progress().is_some() {
            course.process_close(&incoming.session);
        }
        course.process_answer(&incoming.session);
    }

    /// Changes the deadlines once the client has answered the server's close frame.
    fn await_end(&mut self) {
        if self.course.ending.received.is_none() || self.close_limit.is_none() {
            return;
        }
        match self.course.case.check {
            // Only the end of TCP is missing, and it has until the limit.
            Check::EndOfTcp => self.close_limit = None,
            Check::Silence => {
                self.close_limit = None;
                self.limit = Some(self.now + SILENCE);
            }
            _ => {}
        }
    }

    /// Performs the actions that are due.
    fn check_time(&mut self) {
        if self.close_limit.is_some_and(|limit| self.now >= limit) {
            self.course.ending.unclean = Some("the close frame was not answered in time");
            self.course.due = Due::End;
        }
        if self.limit.is_some_and(|limit| self.now >= limit) {
            self.limit = None;
            self.end_script();
            match self.course.case.limit {
                Limit::Kill(_) if self.course.is_closing() => self.course.due = Due::End,
                Limit::Kill(_) => {
                    self.course.fail(&CloseFrame::new(1001, "the case's time is over"));
                }
                Limit::Close(_) => self.course.close(NO_CODE),
                Limit::End(_) => {
                    self.course.ending.closed_by = Some(Side::Server);
                    self.course.due = Due::End;
                }
            }
        }
    }

    /// Fills the output.
    fn play(&mut self) {
        if self.drip.is_some_and(|until| self.now < until) {
            return;
        }
        self.drip = None;
        while self.output.len() < FLUSH
            // The output still has the old keys.
            && self.course.due != Due::UpdateKeys
            && (self.writing.is_some() || self.advance())
        {
            let Some(writing) = &mut self.writing else { continue };
            let is_together = writing.writes == Writes::Together;
            if !is_together && !self.output.is_empty() {
                break;
            }
            let writes = writing.writes;
            if writing.write(&mut self.output) {
                self.writing = None;
            } else if let Writes::Dripped(pause) = writes {
                self.drip = Some(self.now + pause);
            }
            if !is_together {
                break;
            }
        }
    }

    /// Begins the next action. Returns whether there was one.
    fn advance(&mut self) -> bool {
        let Play::Script { actions, .. } = &self.course.case.play else {
            return self.advance_round_trip();
        };
        let Some(action) = actions.get(self.place) else {
            if self.place == actions.len() {
                self.limit = Some(self.now + self.course.case.limit.time());
            }
            self.place = END;
            return false;
        };
        match action {
            Action::Frame(frame) => {
                let frame = frame.clone();
                if frame.is_close() && !self.course.is_closing() {
                    self.begin_close(ClosePayload::decode(&frame.payload.to_vec()));
                }
                self.writing = Some(Writing::new(frame));
            }
            Action::Bytes(Bytes { bytes, writes, .. }) => {
                self.writing = Some(Writing::raw(bytes.to_vec(), *writes));
            }
            Action::Mark => self.course.came(Came::Open),
            Action::EndStream => self.course.due = Due::EndStream,
            Action::EndTcp => self.course.due = Due::EndTcp,
            Action::Reset => self.course.due = Due::Reset,
            Action::UpdateKeys if self.course.due == Due::Nothing => {
                self.course.due = Due::UpdateKeys;
            }
            // The connection is closing.
            Action::UpdateKeys => {}
            Action::Wait(_) | Action::Await(_) if self.course.is_closing() => {
                self.end_script();
                return true;
            }
            Action::Wait(time) | Action::Await(time) => {
                let is_met = matches!(action, Action::Await(_)) && !self.course.received.is_empty();
                let until = *self.pause.get_or_insert(self.now + *time);
                if self.now < until && !is_met {
                    return false;
                }
                self.pause = None;
            }
        }
        self.place += 1;
        true
    }

    /// Begins the next fragment of a message. Returns whether there was one.
    fn advance_round_trip(&mut self) -> bool {
        let Play::RoundTrips(trips) = self.course.case.play else { return false };
        if self.wire.is_none() && self.course.due == Due::RoundTrip {
            self.course.due = Due::Nothing;
            self.course.round += 1;
            self.course.message = trips.data.message(self.course.round, trips.size);
            self.place = 0;
            match self.encode_message(&trips) {
                Ok(wire) => self.wire = Some(wire),
                Err(OverBudget) => self.course.fail(&OVER_BUDGET),
            }
        }
        let Some(wire) = &self.wire else { return false };
        let at = self.place;
        let end = trips.fragment.map_or(wire.len(), |size| wire.len().min(at + size));
        let mut first = if end == wire.len() { FIN } else { 0 };
        if at == 0 {
            first |= match trips.kind {
                Kind::Text => Opcode::Text as u8,
                Kind::Binary => Opcode::Binary as u8,
            };
            first |= if self.course.case.terms.is_empty() { 0 } else { frame::RSV1 };
        }
        let (payload, writes) = (wire.slice(at..end), trips.writes);
        self.writing = Some(Writing::new(Frame { first, payload, writes }));
        self.place = end;
        if end == wire.len() {
            self.wire = None;
        }
        true
    }

    /// The encoded message of a round trip.
    fn encode_message(&mut self, trips: &RoundTrips) -> Result<Payload, OverBudget> {
        let message = &self.course.message;
        if self.course.case.terms.is_empty() {
            return Ok(message.clone());
        }
        if self.charge.is_none() {
            // Twice the message, and its encoded form.
            self.charge = Some(self.budget.charge(3 * trips.size)?);
        }
        let mut deflated = Buffer::new(Arc::clone(&self.budget));
        self.incoming.session.deflate_message(&message.to_vec(), &mut deflated)?;
        Ok(deflated.filled().to_vec().into())
    }

    fn begin_close(&mut self, sent: ClosePayload) {
        let ending = &mut self.course.ending;
        ending.closed_by.get_or_insert(Side::Server);
        ending.sent = Some(sent);
        self.close_limit = Some(self.now + CLOSE_TIMEOUT);
    }

    fn end_script(&mut self) {
        self.place = END;
        self.pause = None;
        self.wire = None;
    }

    /// Records the verdict, unless there is one. The server ended TCP first.
    #[cold]
    fn judge(&mut self, dropped_by: Side) {
        if self.stage != Stage::Playing {
            return;
        }
        let Course { case, received, behavior, ending, .. } = &mut self.course;
        ending.dropped_by.get_or_insert(dropped_by);
        if let (Play::Script { .. }, Behavior::Failed) = (&case.play, &behavior) {
            *behavior = received.behavior(case);
        }
        let (behavior, close, close_result) = judge(case, received, *behavior, ending);
        let report = Report {
            id: case.id,
            started: self.handshake.started,
            duration: self.now.saturating_sub(self.opened),
            behavior,
            close,
            close_result,
            received: received.to_json(),
            ending: mem::take(ending),
            request: mem::take(&mut self.handshake.request),
            response: mem::take(&mut self.handshake.response),
        };
        self.stage = Stage::Judged(format!(
            "client {}: case {} of {}: {}",
            self.handshake.client,
            case.id,
            Quoted(self.agent.as_bytes()),
            report.describe(),
        ));
        self.results.finish(&self.agent, report);
    }
}

/// The verdict on a client to which `case` can't be played.
fn left_out(case: &Case, is_compressible: bool, transport: Transport) -> Option<Behavior> {
    if !case.terms.is_empty() && !is_compressible {
        Some(Behavior::Unimplemented)
    } else if case.transport == Transport::Tls && transport != Transport::Tls {
        Some(Behavior::Informational)
    } else {
        None
    }
}

impl Writing {
    fn new(frame: Frame) -> Self {
        let Frame { first, payload, writes } = frame;
        let mut header = Vec::with_capacity(10);
        frame::encode_raw_header(first, payload.len(), &mut header);
        Writing { header, payload, writes, written: 0 }
    }

    /// Bytes that are not a valid frame.
    fn raw(bytes: Vec<u8>, writes: Writes) -> Self {
        Writing { header: bytes, payload: b"".into(), writes, written: 0 }
    }

    /// Appends the bytes of one write. Returns whether the frame is complete.
    fn write(&mut self, output: &mut Vec<u8>) -> bool {
        let header = self.header.len();
        let len = header + self.payload.len();
        let most = match self.writes {
            Writes::Together => FLUSH,
            Writes::Alone => len,
            Writes::Chopped(size) => size,
            Writes::Dripped(_) => 1,
        };
        let range = self.written..len.min(self.written + most);
        output.extend_from_slice(&self.header[range.start.min(header)..range.end.min(header)]);
        let payload = range.start.max(header) - header..range.end.max(header) - header;
        self.payload.append(payload, output);
        self.written = range.end;
        range.end == len
    }
}
