//! However the network splits what a client sends, the replies and the end are the same.

#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use wsecho::buffer::Budget;
use wsecho::websocket::session::Close;
use wsecho_fuzz::client::ClientBytes;
use wsecho_fuzz::driver::{Driver, Splits, settings};

const MAX_MESSAGE_SIZE: usize = 350_000;

fuzz_target!(|input: (Splits, Splits, ClientBytes)| {
    let (one, two, ClientBytes(bytes)) = input;
    let (output, closed) = converse(&bytes, &one);
    let (other_output, other_closed) = converse(&bytes, &two);
    assert_eq!(closed, other_closed);
    // Not by assert_eq, which would print all of both.
    if output != other_output {
        let same = output.iter().zip(&other_output).take_while(|(one, two)| one == two).count();
        panic!("{} and {} bytes differ from {same} on", output.len(), other_output.len());
    }
});

fn converse(bytes: &[u8], splits: &Splits) -> (Vec<u8>, Option<Close>) {
    // Never short of memory: a message that is split needs some, and another one may not.
    let budget = Arc::new(Budget::new(MAX_MESSAGE_SIZE));
    let settings = settings(MAX_MESSAGE_SIZE, "> ");
    let mut driver = Driver::new(&settings, &budget, splits, None);
    for piece in splits.split(bytes) {
        driver.receive(piece);
    }
    (driver.output, driver.conversation.closed().cloned())
}
