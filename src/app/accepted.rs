//! An accepted handshake: its answer, which a behavior or a case may change, and the WebSocket that it opens.

use std::sync::Arc;
use std::time::Duration;

use log::{Level, log_enabled};

use crate::app::behavior::{Behavior, Script};
use crate::app::cases::answer::Answer;
use crate::app::cases::beyond::opening;
use crate::app::cases::case::Transport;
use crate::app::cases::control::Control;
use crate::app::cases::trial::{Handshake, Trial};
use crate::app::conversation::Conversation;
use crate::app::dump;
use crate::app::incoming::{Incoming, SMALL_INPUT};
use crate::app::opened::{Opened, Who};
use crate::app::peer::Peer;
use crate::app::routes::{self, Opening, Purpose};
use crate::app::scripted::Scripted;
use crate::app::service::Service;
use crate::app::settings::{Settings, Timeouts};
use crate::app::step::{Line, Topic};
use crate::app::websocket::{Content, Runner, WebSocket};
use crate::buffer::Buffer;
use crate::escape::Quoted;
use crate::http::request::Request;
use crate::http::response::Response;
use crate::proxy_protocol;
use crate::websocket::deflate::PerMessageDeflate;
use crate::websocket::negotiation::Negotiation;

/// The part of a head that the report on a case keeps, in bytes.
const MAX_KEPT_HEAD: usize = 512;

/// A request that opens a WebSocket once it is admitted, possibly after a delay.
pub struct Accepted {
    pub opened: Box<Opened>,
    /// How long after the admission it is answered.
    pub delay: Duration,
    pub response: Response,
    /// The bytes after the head.
    pub input: Buffer,
    deflate: Option<Box<PerMessageDeflate>>,
    job: Job,
}

/// A request as it was sent.
pub struct Sent<'r> {
    pub peer: Peer,
    /// The PROXY header that came first, if any.
    pub header: Option<&'r proxy_protocol::Header>,
    pub head: &'r [u8],
    pub request: &'r Request<'r>,
}

/// The job of the WebSocket.
enum Job {
    Echo,
    Script {
        script: Box<Script>,
        /// The first message: the request as JSON.
        dump: Option<String>,
    },
    /// The command of a client that runs the cases.
    Runner {
        control: Control,
        /// The head of the request, which may be cut.
        request: String,
        /// A mistake in the request that does not prevent the answer.
        mistake: Option<&'static str>,
    },
}

impl Accepted {
    /// The handshake for the `opening` that the `sent` request asks for.
    // This and its callees are not inlined, so that stack frames don't add up.
    #[inline(never)]
    pub fn new(service: &Service, opening: Opening, sent: &Sent) -> Box<Self> {
        let Opening { mut upgrade, purpose } = opening;
        let deflate = deflate(service, &mut upgrade.compression, &purpose);
        let response = upgrade.response();
        let who = Who::new(sent.peer, Some(sent.request));
        let mut accepted = Box::new(Accepted {
            opened: Box::new(Opened { client: 0, who, upgrade }),
            delay: Duration::ZERO,
            response,
            input: Buffer::new(Arc::clone(&service.budget)),
            deflate,
            job: Job::Echo,
        });
        match purpose {
            Purpose::Echo => {}
            Purpose::Behavior(behavior) => accepted.behave(service, *behavior, sent),
            Purpose::Runner(control) => accepted.run(control, sent),
        }
        accepted
    }

    /// Changes the answer as `behavior` says, if the connection is drawn for it. Notes both for the log.
    #[inline(never)]
    fn behave(&mut self, service: &Service, behavior: Behavior, sent: &Sent) {
        let Sent { peer, header, request, .. } = *sent;
        let note = &mut self.opened.who.behavior;
        *note = format!(", behavior {}", Quoted(request.query().as_bytes()));
        if behavior.rate.is_some_and(|rate| !service.draws.is_drawn(rate)) {
            *note += " not drawn";
            return;
        }
        self.response = routes::open(request, &self.opened.upgrade, behavior.handshake);
        self.delay = behavior.delay;
        let script = behavior.script;
        let dump =
            script.dump.then(|| dump::dump(peer, header, request, &service.policy, &self.response));
        if script != Script::default() {
            self.job = Job::Script { script: Box::new(script), dump };
        }
    }

    /// Changes the answer as the case says, if it runs one.
    #[inline(never)]
    fn run(&mut self, control: Control, sent: &Sent) {
        let mut mistake = None;
        if let Control::Run(case, _) = &control {
            let answer = routes::open(sent.request, &self.opened.upgrade, case.opening.handshake);
            self.response = case.opening.edited(answer);
            mistake = opening::mistake(sent.request);
        }
        self.job = Job::Runner { control, request: kept_head(sent.head), mistake };
    }

    /// Whether a WebSocket opens. The answer of a case may be an error, too.
    pub fn opens(&self) -> bool {
        self.response.status == 101 || matches!(self.job, Job::Runner { .. })
    }

    /// Opens the WebSocket, which sends `response` first, at `now` in a connection that began at `began`,
    /// since the Unix epoch. Returns also the line to log.
    #[inline(never)]
    pub fn open(
        mut self: Box<Self>,
        service: &Service,
        response: Vec<u8>,
        transport: Transport,
        began: Duration,
        now: Duration,
    ) -> (WebSocket<'_>, (Topic, Line)) {
        // The fields are moved out of the box one by one, to need little stack.
        let number = self.opened.client;
        let (received, response_len) = (self.input.filled().len(), response.len());
        // The head of the request needed more.
        self.input.shrink_spare(SMALL_INPUT);
        let Service { settings, budget, .. } = service;
        let (max_message_size, timeouts) = self.job.limits(settings);
        let mut incoming =
            Incoming::new(max_message_size, timeouts, self.input, budget, self.deflate, now);
        let is_traced = matches!(&self.job, Job::Script { script, .. } if script.trace);
        if is_traced || log_enabled!(Level::Trace) {
            incoming.trace();
        }
        // A runner of the cases opens many.
        let is_runner = matches!(self.job, Job::Runner { .. });
        let topic = if is_runner { Topic::Detail } else { Topic::Opened };
        let content = match self.job {
            Job::Echo => {
                Content::Echo(Conversation::new(number, &settings.prefix, incoming, response))
            }
            Job::Script { script, dump } => {
                let mut scripted = Scripted::new(service, number, script, incoming, response, now);
                if let Some(dump) = dump {
                    scripted.begin_with(&dump);
                }
                Content::Script(scripted)
            }
            Job::Runner { control, request, mistake } => {
                let handshake = Handshake {
                    client: number,
                    started: began + now,
                    request,
                    response: kept_head(&response),
                    opening: response,
                    accept: self.opened.upgrade.accept.clone(),
                    mistake,
                    transport,
                };
                for_runner(service, control, handshake, incoming, now)
            }
        };
        let websocket = WebSocket::new(number, now, content, response_len, received);
        (websocket, (topic, Line::Opened(self.opened)))
    }
}

impl Job {
    /// The maximum size of a message in bytes, and the timeouts.
    fn limits(&self, settings: &Settings) -> (usize, Timeouts) {
        let Settings { max_message_size: size, timeouts, .. } = *settings;
        match self {
            Job::Echo => (size, timeouts),
            Job::Script { script, .. } => {
                let ping_interval = script.ping_interval.or(timeouts.ping_interval);
                (size, Timeouts { ping_interval, ..timeouts })
            }
            Job::Runner { control, .. } => {
                let size = match control {
                    Control::Run(case, _) => case.max_message_size(size),
                    Control::Ask(_) => size,
                };
                // A case has its own timeouts, and a ping would disturb it.
                (size, Timeouts { ping_interval: None, ..timeouts })
            }
        }
    }
}

// Not inlined, since it needs much stack.
#[inline(never)]
fn for_runner(
    Service { cases, budget, .. }: &Service,
    control: Control,
    handshake: Handshake,
    incoming: Box<Incoming>,
    now: Duration,
) -> Content<'_> {
    match control {
        Control::Run(case, agent) => {
            let (results, budget) = (&cases.results, Arc::clone(budget));
            let trial = Trial::new(*case, agent, handshake, results, incoming, budget, now);
            Content::Runner(Runner::Trial(Box::new(trial)))
        }
        Control::Ask(command) => {
            let answer = Answer::new(cases, command, incoming, handshake.opening, now);
            Content::Runner(Runner::Answer(Box::new(answer)))
        }
    }
}

/// The compressor, if compression was agreed. Changes `negotiation` to the parameters that there is memory
/// for.
fn deflate(
    service: &Service,
    negotiation: &mut Negotiation,
    purpose: &Purpose,
) -> Option<Box<PerMessageDeflate>> {
    let Negotiation::Agreed(parameters) = *negotiation else { return None };
    let deflate = PerMessageDeflate::new(parameters, Arc::clone(&service.contexts));
    if deflate.parameters() != parameters && matches!(purpose, Purpose::Runner(_)) {
        // Its case needs the parameters that it asked for.
        *negotiation = Negotiation::Declined("memory is short".into());
        return None;
    }
    *negotiation = Negotiation::Agreed(deflate.parameters());
    Some(Box::new(deflate))
}

/// The part of a head that the report on a case keeps.
fn kept_head(head: &[u8]) -> String {
    String::from_utf8_lossy(&head[..head.len().min(MAX_KEPT_HEAD)]).into_owned()
}
