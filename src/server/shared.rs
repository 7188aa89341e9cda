//! The state that all clients' threads share.

use std::sync::Arc;

use log::warn;

use crate::app::behavior::Draws;
use crate::app::cases::results::Cases;
use crate::app::service::Service;
use crate::app::settings::{Settings, Timeouts};
use crate::buffer::Budget;
use crate::cli::Config;
use crate::server::limits::Limits;
use crate::server::rate_limit::RateLimit;
use crate::server::registry::Registry;
use crate::server::reports::Reports;
use crate::server::tls::Acceptor;
use crate::websocket::deflate;
use crate::websocket::handshake::Policy;

/// The maximum number of log lines per second about requests that open no WebSocket.
const REQUEST_LINES: u32 = 100;

/// The maximum number of clients per second that are logged, each with a line at its start and its end.
const CLIENT_LINES: u32 = 1000;

pub struct Shared {
    pub config: Config,
    /// `Some` enables TLS.
    pub acceptor: Option<Acceptor>,
    pub service: Service,
    pub reports: Option<Reports>,
    pub request_log: RateLimit,
    pub client_log: RateLimit,
    pub registry: Arc<Registry>,
}

impl Shared {
    /// The shared state for these flags and the kernel's limits.
    pub fn new(
        config: Config,
        acceptor: Option<Acceptor>,
        limits: Limits,
        cases: Cases,
        reports: Option<Reports>,
    ) -> Self {
        let Config { listening, messages, .. } = &config;
        let lowered = |flag, asked, allowed| {
            if allowed < asked {
                warn!("{flag} is {allowed} instead of {asked}, because of {limits}");
            }
            allowed
        };
        let asked = listening.max_connections.get();
        let max_connections = lowered("--max-connections", asked, limits.clients(asked));
        let asked = messages.max_buffered;
        let max_buffered = lowered("--max-buffered", asked, limits.buffered(asked));
        let reservable = limits.reservable(max_connections);
        let budget = Arc::new(Budget::limited(max_buffered, reservable, messages.prefix.len()));
        Shared {
            acceptor,
            reports,
            service: service(&config, budget, cases),
            request_log: RateLimit::new(REQUEST_LINES, "request line"),
            client_log: RateLimit::new(CLIENT_LINES, "client line"),
            registry: Arc::new(Registry::new(
                max_connections,
                limits.http_only(),
                listening.max_connections_per_ip,
            )),
            config,
        }
    }
}

/// The state of the application that all connections share.
fn service(config: &Config, budget: Arc<Budget>, cases: Cases) -> Service {
    let Config { listening, messages, timeouts, .. } = config;
    Service {
        settings: Settings {
            prefix: messages.prefix.clone(),
            max_message_size: messages.max_message_size,
            timeouts: Timeouts {
                handshake: timeouts.handshake_timeout,
                ping_interval: Some(timeouts.ping_interval).filter(|time| !time.is_zero()),
                ping: timeouts.ping_timeout,
                write: timeouts.write_timeout,
                close: timeouts.close_timeout,
            },
        },
        policy: Policy {
            origins: listening.origin.clone(),
            subprotocols: listening.subprotocol.clone(),
            compression: messages.compression.terms(),
        },
        behaviors: messages.behaviors,
        contexts: Arc::new(deflate::Pool::new(Arc::clone(&budget))),
        budget,
        draws: Draws::default(),
        cases,
    }
}
