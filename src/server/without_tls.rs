//! Stands in for TLS in a build without it: an acceptor that can't be constructed.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use crate::buffer::Budget;
use crate::cli;
use crate::server::socket::{Error, Received, TimedSocket};

pub struct Acceptor(Infallible);

pub struct Handshake<'a>(&'a Acceptor);

pub enum Advance {
    Incomplete(Received),
    Complete(Box<Session>),
}

pub struct Session(Infallible);

impl Acceptor {
    pub fn new(flags: &cli::Tls) -> Result<Option<Self>, String> {
        match flags.tls_cert {
            None => Ok(None),
            Some(_) => Err("--tls-cert and --tls-key need a wsecho that was built with TLS: \
                            cargo build --release --features tls"
                .into()),
        }
    }
}

impl<'a> Handshake<'a> {
    pub fn new(acceptor: &'a Acceptor, _: &Arc<Budget>) -> Self {
        Handshake(acceptor)
    }

    pub fn advance(&mut self, _: &mut TimedSocket, _: Option<Duration>) -> Result<Advance, Error> {
        match self.0.0 {}
    }
}

impl Session {
    pub fn receive(
        &mut self,
        _: &mut TimedSocket,
        _: &mut [u8],
        _: Option<Duration>,
    ) -> Result<Received, Error> {
        match self.0 {}
    }

    pub fn send(&mut self, _: &mut TimedSocket, _: &[u8], _: &[u8]) -> Result<(), Error> {
        match self.0 {}
    }

    pub fn send_last(&mut self, _: &mut TimedSocket, _: &[u8]) -> Result<(), Error> {
        match self.0 {}
    }

    pub fn update_keys(&mut self, _: &mut TimedSocket) -> Result<(), Error> {
        match self.0 {}
    }

    pub fn agreed(&self) -> String {
        match self.0 {}
    }
}
