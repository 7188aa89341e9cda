//! However the network splits what a client sends, plain or compressed, the replies and the end are the
//! same.

#![no_main]

use std::num::NonZeroUsize;
use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use wsecho::buffer::Budget;
use wsecho::websocket::deflate::{PerMessageDeflate, Pool};
use wsecho::websocket::negotiation::Parameters;
use wsecho::websocket::session::Close;
use wsecho_fuzz::client::ClientBytes;
use wsecho_fuzz::deflate::{Client, Compression};
use wsecho_fuzz::driver::{Driver, Splits, settings};
use wsecho_fuzz::reference;

const MAX_MESSAGE_SIZE: usize = 350_000;

/// Never short of memory: a message that is split needs some, and another one may not.
const AMPLE: usize = 1 << 30;

fuzz_target!(|input: (Splits, Splits, Option<Compression>, ClientBytes)| {
    let (one, two, compression, ClientBytes(mut bytes)) = input;
    if let Some(compression) = &compression {
        let mut client = Client::new(compression);
        bytes = reference::frames(&bytes).flat_map(|frame| client.frame(frame)).collect();
    }
    let parameters = compression.map(|compression| compression.parameters);
    let (output, closed) = converse(&bytes, &one, parameters);
    let (other_output, other_closed) = converse(&bytes, &two, parameters);
    assert_eq!(closed, other_closed);
    // Not by assert_eq, which would print all of both.
    if output != other_output {
        let same = output.iter().zip(&other_output).take_while(|(one, two)| one == two).count();
        panic!("{} and {} bytes differ from {same} on", output.len(), other_output.len());
    }
});

fn converse(
    bytes: &[u8],
    splits: &Splits,
    parameters: Option<Parameters>,
) -> (Vec<u8>, Option<Close>) {
    let budget = Arc::new(Budget::new(AMPLE));
    let settings = settings(MAX_MESSAGE_SIZE, "> ");
    let deflate = parameters.map(|parameters| {
        let pool = Arc::new(Pool::new(NonZeroUsize::MIN, Arc::clone(&budget)));
        PerMessageDeflate::new(parameters, pool)
    });
    let mut driver = Driver::new(&settings, &budget, splits, deflate);
    for piece in splits.split(bytes) {
        driver.receive(piece);
    }
    (driver.output, driver.conversation.closed().cloned())
}
