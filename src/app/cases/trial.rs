//! A case that is run with one client and judged, without a socket or a clock.
//!
//! Frames are sent in order, and a frame that has begun is completed before anything else. The script
//! continues up to its next pause, whatever the client does. If the connection is closing by then, the
//! script ends there.

use std::mem;
use std::sync::Arc;
use std::time::Duration;

use crate::app::cases::case::{
    Action, Behavior, Case, Check, ExpectedClose, Frame, Judging, Limit, Play, Reception,
    RoundTrips, Side, Transport, Writes,
};
use crate::app::cases::payload::Payload;
use crate::app::cases::results::{Report, Results};
use crate::app::cases::verdict::{Came, ClosePayload, Ending, Received, judge};
use crate::app::end::End;
use crate::app::incoming::{Incoming, Next};
use crate::app::step::Step;
use crate::buffer::{Budget, Buffer, Charge, OverBudget};
use crate::escape::Quoted;
use crate::websocket::close::{CloseFrame, OVER_BUDGET, Reason, STOPPING};
use crate::websocket::frame::{self, FIN, Opcode};
use crate::websocket::message::Kind;
use crate::websocket::session::{Answer, Close, Event, Session};

/// How long the client may take to answer a close frame.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a client that has to be silent after its close frame is listened to.
const SILENCE: Duration = Duration::from_millis(300);

/// Frames are written together up to this size, in bytes.
const FLUSH: usize = 16 * 1024;

/// A place after every action of a script.
const END: usize = usize::MAX;

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
    /// The frames that were sent of an action with many.
    repeated: u32,
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

/// The received events, and the next actions.
struct Course {
    case: Case,
    received: Received,
    behavior: Behavior,
    ending: Ending,
    due: Due,
    /// The number of round trips that have begun.
    round: u32,
    /// The message of the last one.
    message: Payload,
    /// Of the last frame, if masking keys are checked.
    masking_key: Option<[u8; 4]>,
}

/// An action of the server after the current frame.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Due {
    Nothing,
    /// Send the message of the next round trip.
    RoundTrip,
    /// Begin the closing handshake.
    Close(CloseFrame),
    /// Send a close frame, and end TCP.
    CloseAndEnd(CloseFrame),
    /// End the server's side of TCP.
    EndStream,
    /// The same, without the end of TLS.
    EndTcp,
    UpdateKeys,
    Reset,
    End,
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
        let (due, limit) = match &case.play {
            Play::Script { .. } => (Due::Nothing, None),
            Play::RoundTrips(_) => (Due::RoundTrip, Some(now + case.limit.time())),
        };
        let writes = case.opening.writes;
        let mut course = Course {
            case,
            received: Received::default(),
            behavior: Behavior::Failed,
            ending: Ending { unclean: Some("a close frame is missing"), ..Ending::default() },
            due,
            round: 0,
            message: b"".into(),
            masking_key: None,
        };
        let mut place = 0;
        if !course.case.terms.is_empty() && !incoming.session.is_compressible() {
            place = END;
            course.leave_out(Behavior::Unimplemented);
        }
        if course.case.transport == Transport::Tls && handshake.transport != Transport::Tls {
            place = END;
            course.leave_out(Behavior::Informational);
        }
        if course.case.check == Check::Request {
            let repeated =
                (!is_key_new).then_some("Sec-WebSocket-Key is that of the last connection");
            repeated
                .into_iter()
                .chain(handshake.mistake)
                .for_each(|it| course.came(Came::Mistake(it)));
        }
        let opening = mem::take(&mut handshake.opening);
        let (output, writing) = match writes {
            Writes::Together => (opening, None),
            _ => (Vec::new(), Some(Writing::raw(opening, writes))),
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
            place,
            repeated: 0,
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
        self.check_time();
        if self.course.has_ended_stream() {
            if self.course.due != Due::End {
                return Step::Receive(self.wait());
            }
            self.course.due = Due::Reset;
        }
        if self.course.due == Due::End {
            self.judge(Side::Server);
            return Step::SendLast(b"");
        }
        // Receive after each send, unless many pongs are queued: a client that can't send may stop
        // reading, and input is lost after a reset.
        if mem::take(&mut self.has_sent) && self.controls.len() < FLUSH {
            return Step::Receive(Some(Duration::ZERO));
        }
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
        if self.course.due == Due::EndStream {
            self.course.due = Due::Nothing;
            self.course.ending.dropped_by = Some(Side::Server);
            return Step::SendEnd(&self.output);
        }
        if !self.output.is_empty() {
            self.has_sent = true;
            return Step::Send { head: &self.output, payload: b"" };
        }
        // A head that drips is completed first.
        match self.course.due {
            Due::EndTcp => {
                self.course.due = Due::Nothing;
                self.course.ending.dropped_by = Some(Side::Server);
                return Step::EndTcp;
            }
            Due::UpdateKeys => {
                self.course.due = Due::Nothing;
                return Step::UpdateKeys;
            }
            _ => {}
        }
        if let (Due::Close(close), None) = (&self.course.due, &self.writing) {
            close.encode(&mut self.output);
            let sent = close.into();
            self.course.due = Due::Nothing;
            self.begin_close(sent);
            self.handed_out = self.output.len();
            return Step::SendClose(&self.output);
        }
        if self.course.due == Due::Reset {
            self.judge(Side::Server);
            return Step::Reset;
        }
        match self.wait() {
            // While a head drips, pongs are queued: whoever floods it with pings has to wait.
            Some(wait) if self.controls.len() >= FLUSH => Step::Pause(wait),
            wait => Step::Receive(wait),
        }
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
        if course.case.opening.reception == Reception::Fail {
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
        if course.ending.received.is_some() && self.close_limit.is_some() {
            match course.case.check {
                // Only the end of TCP is missing, and it has until the limit.
                Check::EndOfTcp => self.close_limit = None,
                Check::Silence => {
                    self.close_limit = None;
                    self.limit = Some(self.now + SILENCE);
                }
                _ => {}
            }
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
                Limit::Close(_) => self.course.close(close_frame(None)),
                Limit::End(_) => {
                    self.course.ending.closed_by = Some(Side::Server);
                    self.course.due = Due::End;
                }
            }
        }
    }

    /// Fills the output.
    fn play(&mut self) {
        let drips = self.drip.is_some_and(|until| self.now < until);
        if drips || self.course.due == Due::UpdateKeys {
            return;
        }
        self.drip = None;
        while self.output.len() < FLUSH && (self.writing.is_some() || self.advance()) {
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
        let place = self.place;
        self.place = place.saturating_add(1);
        match actions.get(place) {
            Some(Action::Frame(frame)) => self.writing = Some(Writing::new(frame.clone())),
            Some(Action::Repeated(count, frame)) => {
                self.writing = Some(Writing::new(frame.clone()));
                let count = *count;
                self.repeat(place, count);
            }
            Some(Action::Pings(count)) => {
                let (count, payload) = (*count, (self.repeated + 1).to_string().into_bytes());
                let first = FIN | Opcode::Ping as u8;
                let frame = Frame { first, payload: payload.into(), writes: Writes::Together };
                self.writing = Some(Writing::new(frame));
                self.repeat(place, count);
            }
            Some(Action::Bytes(bytes)) => {
                self.writing = Some(Writing::raw(bytes.clone(), Writes::Alone));
            }
            Some(Action::WrongFrame(wrong)) => {
                self.writing = Some(Writing::raw(wrong.bytes.into(), Writes::Together));
            }
            Some(Action::Close(payload)) => {
                let first = FIN | Opcode::Close as u8;
                let (payload, writes) = (payload.clone(), Writes::Together);
                self.begin_close(ClosePayload::decode(&payload.to_vec()));
                self.writing = Some(Writing::new(Frame { first, payload, writes }));
            }
            Some(Action::Mark) => self.course.came(Came::Open),
            Some(Action::EndStream) => self.course.due = Due::EndStream,
            Some(Action::EndTcp) => self.course.due = Due::EndTcp,
            Some(Action::UpdateKeys) if self.course.due == Due::Nothing => {
                self.course.due = Due::UpdateKeys;
                // The output still has the old keys.
                return false;
            }
            Some(Action::UpdateKeys) => {}
            Some(Action::Reset) => self.course.due = Due::Reset,
            Some(Action::Wait(_) | Action::Await(_)) if self.course.is_closing() => {
                self.end_script();
            }
            Some(action @ (Action::Wait(time) | Action::Await(time))) => {
                let is_met = matches!(action, Action::Await(_)) && !self.course.received.is_empty();
                let until = *self.pause.get_or_insert(self.now + *time);
                if self.now < until && !is_met {
                    self.place = place;
                    return false;
                }
                self.pause = None;
            }
            None => {
                if place == actions.len() {
                    self.limit = Some(self.now + self.course.case.limit.time());
                }
                self.place = END;
                return false;
            }
        }
        true
    }

    /// Counts a frame of the action at `place`, which sends `count` of them.
    fn repeat(&mut self, place: usize, count: u32) {
        self.repeated += 1;
        if self.repeated < count {
            self.place = place;
        } else {
            self.repeated = 0;
        }
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

impl Course {
    fn is_closing(&self) -> bool {
        self.ending.closed_by.is_some()
    }

    /// Whether the server has ended its side of TCP.
    fn has_ended_stream(&self) -> bool {
        self.ending.dropped_by == Some(Side::Server)
    }

    /// Closes instead of playing a case that this connection is not for.
    fn leave_out(&mut self, behavior: Behavior) {
        self.behavior = behavior;
        (self.case.close, self.case.judging) = (ExpectedClose::by_server(), Judging::Usual);
        self.close(NORMAL);
    }

    /// Processes bytes of a client that should send none.
    fn process_bytes(&mut self, incoming: &mut Incoming) {
        let (_, unread, consumed) = incoming.unread();
        if !unread.is_empty() {
            *consumed += unread.len();
            self.came(Came::Bytes(unread));
            self.due = Due::End;
        }
    }

    /// Checks the masking key of a frame. RFC 6455 §5.3: "the client MUST pick a fresh masking key".
    fn check_masking_key(&mut self, key: Option<[u8; 4]>) {
        if key.is_some() && mem::replace(&mut self.masking_key, key) == key {
            self.came(Came::Mistake("the masking key is that of the last frame"));
        }
    }

    /// Checks the compressed size of a message that repeats nothing within the agreed window.
    fn check_window(&mut self, size: usize, compressed: usize) {
        if self.case.check == Check::Window && compressed < size / 10 * 9 {
            self.came(Came::Mistake("the message was compressed with a larger window than agreed"));
        }
    }

    /// Processes an event.
    fn came(&mut self, event: Came) {
        // Messages are ignored after the server has failed the connection.
        if self.ending.failed.is_some() && matches!(event, Came::Message(..)) {
            return;
        }
        match (&self.case.play, event) {
            (Play::Script { .. }, event) => {
                self.received.add(&self.case, event);
                if self.received.is_complete(&self.case) {
                    self.close(NORMAL);
                }
            }
            (Play::RoundTrips(trips), Came::Message(kind, payload))
                if kind == trips.kind && self.message == *payload =>
            {
                if self.round == trips.count {
                    self.behavior = Behavior::Ok;
                    self.close(NORMAL);
                } else if !self.is_closing() {
                    self.due = Due::RoundTrip;
                }
            }
            (Play::RoundTrips(_), event) => {
                self.received.add(&self.case, event);
                if let Came::Message(..) = event {
                    self.behavior = Behavior::Failed;
                }
                self.close(NORMAL);
            }
        }
    }

    /// Begins the closing handshake, unless it has begun.
    fn close(&mut self, close: CloseFrame) {
        if !self.is_closing() {
            self.ending.closed_by = Some(Side::Server);
            self.due = Due::Close(close);
        }
    }

    /// Fails the connection. A second failure ends TCP.
    fn fail(&mut self, close: &CloseFrame) {
        self.ending.failed = Some(close.reason.as_str().into());
        if self.is_closing() {
            self.due = Due::End;
        } else {
            self.close(close.clone());
        }
    }

    /// Processes the client's close frame, or an error in its frames.
    fn process_close(&mut self, session: &Session) {
        match session.closed() {
            Some(Close::ByPeer(close)) if self.accepts(close) => {
                self.ending.received = Some(close.into());
                self.ending.unclean = None;
                self.due = match mem::replace(&mut self.due, Due::Nothing) {
                    Due::Close(own) => Due::CloseAndEnd(own),
                    _ if self.is_closing() => match self.case.check {
                        Check::EndOfTcp | Check::Silence => Due::Nothing,
                        _ => Due::End,
                    },
                    _ => Due::CloseAndEnd(NORMAL),
                };
                self.ending.closed_by.get_or_insert(Side::Client);
            }
            Some(Close::ByPeer(close)) => self.refuse_close(close.into()),
            Some(Close::ByServer(close, _)) => match session.refused_close() {
                Some(code) => {
                    self.refuse_close(ClosePayload { code: Some(code), ..ClosePayload::default() });
                }
                None if close.code == Some(1009) && self.case.expects_over_limit() => {
                    self.came(Came::OverLimit);
                }
                None => self.fail(close),
            },
            None => {}
        }
    }

    /// Whether the client may send this close frame. The suite does not accept codes that were
    /// registered later.
    fn accepts(&self, close: &CloseFrame) -> bool {
        !self.case.id.is_of_suite() || !matches!(close.code, Some(1012..=1014))
    }

    /// Processes a close frame with an invalid code or reason. Both sides have then sent one, but the
    /// suite does not count it as an answer.
    fn refuse_close(&mut self, close: ClosePayload) {
        const REFUSAL: CloseFrame = CloseFrame::new(1002, "close code or reason is wrong");
        self.ending.received = Some(close);
        self.ending.failed = Some(REFUSAL.reason.as_str().into());
        if self.is_closing() {
            self.ending.unclean = Some("the client's close frame is wrong");
            self.due = Due::End;
        } else {
            self.ending.closed_by = Some(Side::Server);
            self.ending.unclean = None;
            self.due = Due::CloseAndEnd(REFUSAL);
        }
    }

    /// Processes the answer to the close frame with which the server failed the connection.
    fn process_answer(&mut self, session: &Session) {
        if let Some(Close::ByServer(_, Answer::Received(close))) = session.closed()
            && self.ending.received.is_none()
        {
            self.ending.received = Some(close.into());
            self.ending.unclean = None;
            self.due = Due::End;
        }
    }
}

/// The masking key of the frame that the input begins with.
fn masking_key(incoming: &mut Incoming) -> Option<[u8; 4]> {
    let (_, unread, _) = incoming.unread();
    let (header, _) = frame::decode(unread).ok()??;
    Some(header.masking_key)
}

const NORMAL: CloseFrame = close_frame(Some(1000));

const fn close_frame(code: Option<u16>) -> CloseFrame {
    CloseFrame { code, reason: Reason::NONE }
}
