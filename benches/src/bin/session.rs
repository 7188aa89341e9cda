//! A fixed conversation for callgrind, which counts the same instructions on a busy machine too. See
//! the README.

use std::env;
use std::process::ExitCode;

use wsecho_bench::driver::Driver;
use wsecho_bench::messages::Message;

/// Name, payload of each message, number of messages, and bytes that each read brings.
const PARTS: [(&str, usize, usize, usize); 6] = [
    ("small", 20, 10_000, 17 * 1024),
    ("single", 20, 10_000, 26),
    ("1kib", 1024, 1_000, 17 * 1024),
    ("split", 1024, 1_000, 700),
    ("64kib", 64 * 1024, 100, 256 * 1024),
    ("large", 1 << 20, 8, 256 * 1024),
];

fn main() -> ExitCode {
    let only = env::args().nth(1);
    let chosen = |name: &str| only.as_deref().is_none_or(|only| only == name);
    if !PARTS.iter().any(|(name, ..)| chosen(name)) {
        eprintln!("expected one of {}", PARTS.map(|(name, ..)| name).join(", "));
        return ExitCode::FAILURE;
    }
    let service = wsecho_bench::service();
    for (name, payload, messages, read) in PARTS {
        if chosen(name) {
            let message = Message::websocket(payload, messages);
            let mut connection = Driver::open(&service).connection;
            let sent = wsecho_bench::converse(&mut connection, message.copies(), read);
            assert_eq!(sent, messages * message.reply.len());
            println!("{name}: {messages} messages of {payload} B in reads of {read} B");
        }
    }
    ExitCode::SUCCESS
}
