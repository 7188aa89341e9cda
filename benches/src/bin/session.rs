//! A fixed conversation for callgrind, which counts the same instructions on a busy machine too, without
//! what prepares the input:
//! `valgrind --tool=callgrind --toggle-collect="*::converse" benches/target/release/session`, with the
//! name of one part or none.

use std::env;
use std::process::ExitCode;
use std::sync::Arc;

use wsecho::buffer::Budget;
use wsecho::echo;
use wsecho::session::Session;
use wsecho_bench::wire::Message;

/// Name, payload of each message, messages in the input, and bytes that each read brings.
const PARTS: [(&str, usize, usize, usize); 4] = [
    ("small", 20, 10_000, 17 * 1024),
    ("single", 20, 10_000, 26),
    ("cut", 1024, 1_000, 700),
    ("large", 1 << 20, 8, 256 * 1024),
];

fn main() -> ExitCode {
    let only = env::args().nth(1);
    let chosen = |name: &str| only.as_deref().is_none_or(|only| only == name);
    if !PARTS.iter().any(|(name, ..)| chosen(name)) {
        eprintln!("parts: {}", PARTS.map(|(name, ..)| name).join(" "));
        return ExitCode::FAILURE;
    }
    for (name, payload, messages, read) in PARTS {
        if chosen(name) {
            let wire = Message::websocket(payload, messages);
            let replied = converse(wire.copies(), read);
            assert_eq!(replied, messages * wire.reply.len());
            println!("{name}: {messages} messages of {payload} B in reads of {read} B");
        }
    }
    ExitCode::SUCCESS
}

/// Does with `wire` what a client's thread does, and counts the bytes of the replies. Not inlined, for callgrind
/// to find it.
#[inline(never)]
fn converse(wire: &[u8], read: usize) -> usize {
    let mut session = Session::new(1 << 24, Arc::new(Budget::new(1 << 30)));
    let mut input = Vec::with_capacity(2 * read);
    let mut replies = Vec::new();
    let mut replied = 0;
    let mut rest = wire;
    while !rest.is_empty() {
        let left = rest.len();
        if let Some(room) = session.room(input.len()) {
            let came = room.len().min(left);
            room[..came].copy_from_slice(take(&mut rest, came));
            session.filled(came);
        } else {
            input.extend_from_slice(take(&mut rest, read.min(left)));
        }
        let mut unread = &mut input[..];
        while let Some(message) = session.next(&mut unread, &mut replies) {
            replied += echo::reply(&message, "", &mut replies).len();
        }
        let unread = unread.len();
        input.drain(..input.len() - unread);
        replied += replies.len();
        replies.clear();
    }
    replied
}

fn take<'w>(rest: &mut &'w [u8], bytes: usize) -> &'w [u8] {
    let (taken, left) = rest.split_at(bytes);
    *rest = left;
    taken
}
