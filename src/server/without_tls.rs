//! What stands for TLS in a build without it: a certificate that can't be had.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use crate::buffer::Budget;
use crate::cli;
use crate::server::socket::{Error, Handshake, Progress, Received, TimedSocket};

pub struct Acceptor(Infallible);

pub struct Handshaking<'c>(&'c Acceptor);

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

impl<'c> Handshaking<'c> {
    pub fn new(acceptor: &'c Acceptor, _: &Arc<Budget>) -> Result<Self, Error> {
        match acceptor.0 {}
    }

    pub fn go_on(
        &mut self,
        _: &mut TimedSocket,
        _: Duration,
    ) -> Result<(Handshake, Option<Box<Session>>), Error> {
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

    pub fn send(
        &mut self,
        _: &mut TimedSocket,
        _: &[u8],
        _: &[u8],
        _: &mut Progress,
    ) -> Result<(), Error> {
        match self.0 {}
    }

    pub fn send_last(
        &mut self,
        _: &mut TimedSocket,
        _: &[u8],
        _: &mut Progress,
    ) -> Result<(), Error> {
        match self.0 {}
    }

    pub fn agreed(&self) -> String {
        match self.0 {}
    }
}
