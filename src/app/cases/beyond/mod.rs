//! The groups beyond the Autobahn suite: faults that it never plays, each with the sentence of an RFC
//! that its verdict rests on.

mod closing;
mod compression;
mod frames;
mod kinds;
pub mod opening;
mod tls;

use crate::app::cases::case::Case;

/// The cases of a group, in the order of their ids.
pub fn group(number: u8) -> Vec<Case> {
    match number {
        14 => [opening::refused(), opening::statuses(), opening::heads(), opening::requests()]
            .concat(),
        15 => [closing::codes(), closing::orders(), closing::ends_of_tcp()].concat(),
        16 => [frames::invalid(), frames::valid()].concat(),
        17 => [compression::answers(), compression::invalid(), compression::valid()].concat(),
        18 => tls::cases(),
        _ => vec![],
    }
}
