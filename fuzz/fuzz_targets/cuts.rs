//! However the network cuts what a client sends, it gets the same replies and comes to the same end.

#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use wsecho::buffer::Budget;
use wsecho::session::Close;
use wsecho_fuzz::client::Wire;
use wsecho_fuzz::talk::{Cuts, Talk};

const MAX_MESSAGE_SIZE: usize = 350_000;

fuzz_target!(|input: (Cuts, Cuts, Wire)| {
    let (one, two, Wire(wire)) = input;
    let (ours, end) = talk(&wire, &one);
    let (others, other_end) = talk(&wire, &two);
    assert_eq!(end, other_end);
    // Not by assert_eq, which would print all of both.
    if ours != others {
        let differs = ours
            .iter()
            .zip(&others)
            .take_while(|(one, two)| one == two)
            .count();
        panic!(
            "{} and {} bytes differ from {differs} on",
            ours.len(),
            others.len()
        );
    }
});

fn talk(wire: &[u8], cuts: &Cuts) -> (Vec<u8>, Option<Close>) {
    // Never short of memory: what one cut needs, another one may not.
    let budget = Arc::new(Budget::new(MAX_MESSAGE_SIZE));
    let mut talk = Talk::new(MAX_MESSAGE_SIZE, budget, "> ");
    for read in cuts.cut(wire) {
        talk.hear(read, cuts);
    }
    (talk.replies, talk.session.closed().cloned())
}
