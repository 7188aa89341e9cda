//! The Autobahn cases, played to a client and judged.

pub mod case;
mod closing;
pub mod data;
mod framing;
mod text;
mod volume;

use case::Case;

/// Every case, in the order of their ids. The cases with many round trips have this many.
pub fn all(messages: u32) -> Vec<Case> {
    [
        framing::messages(),
        framing::pings(),
        framing::reserved_bits(),
        framing::reserved_opcodes(),
        framing::fragments(),
        text::fragments(),
        text::fail_fast(),
        text::sequences(),
        closing::order(),
        closing::payloads(),
        closing::codes(),
        volume::plain(messages),
        framing::many_fragments(),
        volume::compressed(messages),
    ]
    .concat()
}
