//! Clients that want memory: it grows with bytes that came, stays within its ceiling, and comes back.

#![cfg(target_os = "linux")]

mod attack;
mod common;

use std::io::Write as _;
use std::thread;

use attack::{PROGRAM, need_descriptors, per_client, write_until_stuck};
use common::{SOON, Server, eventually, frame, read_close, read_frame};

const MIB: usize = 1 << 20;

/// The largest message that fits in what is each client's own.
const OWN: usize = 64 * 1024;

/// A masked frame's header that declares `len` bytes, in the 64-bit form.
fn header(first: u8, len: u64) -> Vec<u8> {
    [&[first, 0x80 | 127], &len.to_be_bytes()[..], &[0; 4]].concat()
}

/// An unfinished message: its first fragment, masked with nothing but zeros.
fn first_fragment(len: usize) -> Vec<u8> {
    [header(0x02, len as u64), vec![7; len]].concat()
}

#[test]
fn memory_stays_below_its_ceiling_while_many_clients_fill_it() {
    fill_up(Filling { clients: 100, each: MIB, max_buffered_mib: 8 });
}

#[test]
#[ignore = "sends 7.5 GB"]
fn memory_stays_below_its_ceiling_while_500_clients_send_15_mib_each() {
    fill_up(Filling { clients: 500, each: 15 * MIB, max_buffered_mib: 1024 });
}

struct Filling {
    clients: usize,
    /// How long each client's unfinished message is, in bytes.
    each: usize,
    max_buffered_mib: usize,
}

fn fill_up(Filling { clients, each, max_buffered_mib }: Filling) {
    need_descriptors(clients as u64 + 100);
    let server = Server::start(&["--max-buffered", &format!("{max_buffered_mib}MiB")]);
    let before = server.at_rest();
    let fragment = first_fragment(each);
    let mut streams: Vec<_> = (0..clients).map(|_| server.open()).collect();
    // In turns, so that all of them grow together until there is no more to have.
    thread::scope(|scope| {
        for some in streams.chunks_mut(clients.div_ceil(4)) {
            let fragment = &fragment;
            scope.spawn(move || {
                for piece in fragment.chunks(OWN) {
                    for stream in &mut *some {
                        // A client that was refused already is not listened to any more.
                        let _ = stream.write_all(piece);
                    }
                }
            });
        }
        server.answers_at_once();
    });
    let mut inside = 0;
    let mut refused = 0;
    for stream in &mut streams {
        // The last byte of the message, and its answer: all that was sent has come by then.
        let _ = stream.write_all(&frame(0x89, b"all?"));
        let (first, payload) = read_frame(stream);
        match (first, &payload[..]) {
            (0x8A, b"all?") => inside += 1,
            (0x88, [0x03, 0xF5, ..]) => refused += 1,
            _ => panic!("{first:02X} {}", payload.escape_ascii()),
        }
    }
    let held = inside * (each - OWN);
    assert!(held <= max_buffered_mib * MIB, "{inside} clients hold {held} bytes");
    assert!(inside > 0 && refused > 0, "{inside} inside, {refused} refused");
    let ceiling = max_buffered_mib * 1024 + per_client() * clients + PROGRAM;
    assert!(server.peak() <= ceiling, "{} KiB, the ceiling is {ceiling}", server.peak());
    drop(streams);
    server.has_recovered(before);
}

#[test]
fn a_message_of_64_kib_is_never_refused_though_others_hold_all_the_memory() {
    let server = Server::start(&["--max-buffered=1MiB"]);
    let before = server.at_rest();
    let mut holder = server.open();
    let held = vec![7; MIB + OWN];
    let message = frame(0x82, &held);
    let (most, last_byte) = message.split_at(message.len() - 1);
    holder.write_all(most).unwrap();
    server.wait_until_asleep();

    let mut small = server.open();
    for len in [0, 125, 126, 40_000, OWN - 1, OWN] {
        let payload = vec![b'x'; len];
        small.write_all(&frame(0x82, &payload)).unwrap();
        assert_eq!(read_frame(&mut small), (0x82, payload.clone()), "{len} bytes whole");
        for (part, piece) in payload.chunks(len / 3 + 1).enumerate() {
            small.write_all(&frame(if part == 0 { 0x02 } else { 0x00 }, piece)).unwrap();
        }
        let first = if len == 0 { 0x82 } else { 0x80 };
        small.write_all(&frame(first, b"")).unwrap();
        assert_eq!(read_frame(&mut small), (0x82, payload), "{len} bytes in fragments");
    }
    small.write_all(&frame(0x82, &[b'x'; OWN + 1])).unwrap();
    assert_eq!(read_close(&mut small), 1013);
    server.wait_for_log("closed by server, 1013 memory is short");

    // The holder was not disturbed; and when it is done, there is room again.
    holder.write_all(last_byte).unwrap();
    assert_eq!(read_frame(&mut holder), (0x82, held));
    drop(holder);
    let mut large = server.open();
    let payload = vec![b'x'; MIB];
    large.write_all(&frame(0x82, &payload)).unwrap();
    assert_eq!(read_frame(&mut large), (0x82, payload));
    drop((small, large));
    server.has_recovered(before);
}

#[test]
fn a_client_that_fills_all_that_is_its_own_holds_no_more_than_promised() {
    const CLIENTS: usize = 48;
    let server = Server::start(&["--max-buffered=0", "--write-timeout=1m"]);
    let before = server.at_rest();
    let mut streams: Vec<_> = (0..CLIENTS).map(|_| server.open()).collect();
    // An unfinished message, and so many pings whose answers nobody reads that everything is full:
    // the message, the replies, and the input that can't be looked at any more.
    let message = first_fragment(OWN);
    let pings = frame(0x89, &[b'p'; 125]).repeat(500);
    thread::scope(|scope| {
        for some in streams.chunks_mut(CLIENTS / 8) {
            let (message, pings) = (&message, &pings);
            scope.spawn(move || {
                for stream in some {
                    stream.write_all(message).unwrap();
                    assert!(write_until_stuck(stream, pings), "the server has hung up");
                }
            });
        }
    });
    let grown = server.peak() - before.resident;
    assert!(
        (CLIENTS * OWN / 1024..=CLIENTS * per_client()).contains(&grown),
        "{} KiB a client",
        grown / CLIENTS
    );
    drop(streams);
    server.has_recovered(before);
}

#[test]
fn a_million_empty_fragments_take_no_memory() {
    let server = Server::start(&[]);
    let before = server.at_rest();
    let mut stream = server.open();
    stream.write_all(&frame(0x01, b"the ")).unwrap();
    let thousand = frame(0x00, b"").repeat(1_000);
    for _ in 0..1_000 {
        stream.write_all(&thousand).unwrap();
    }
    server.answers_at_once();
    stream.write_all(&frame(0x80, b"end")).unwrap();
    assert_eq!(read_frame(&mut stream), (0x81, b"You have entered: the end".to_vec()));
    let grown = server.peak() - before.resident;
    assert!(grown < 1024, "memory grew by {grown} KiB");
    drop(stream);
    server.has_recovered(before);
}

#[test]
fn a_million_empty_messages_whose_replies_nobody_reads_take_no_memory() {
    for prefix in ["You have entered: ", &"long ".repeat(2_000)] {
        let server = Server::start(&["--write-timeout=500ms", "--prefix", prefix]);
        let before = server.at_rest();
        let mut stream = server.open();
        let thousand = frame(0x81, b"").repeat(1_000);
        for _ in 0..1_000 {
            // Until the server hangs up.
            let _ = stream.write_all(&thousand);
        }
        server.wait_for_log("client 2 ended: peer did not read");
        let grown = server.peak() - before.resident;
        assert!(grown < 1024, "memory grew by {grown} KiB");
        server.has_recovered(before);
    }
}

#[test]
fn a_length_that_is_only_declared_is_refused_from_the_header() {
    let server = Server::start(&[]);
    let before = server.at_rest();
    for (len, code) in [
        (1 << 63, 1002),
        (u64::MAX, 1002),
        ((1 << 63) - 1, 1009),
        (1 << 30, 1009),
        ((16 << 20) + 1, 1009),
    ] {
        for opcode in [0x81, 0x82, 0x02] {
            let mut stream = server.open();
            stream.write_all(&header(opcode, len)).unwrap();
            assert_eq!(read_close(&mut stream), code, "{len} bytes");
        }
    }
    // The length of a continuation counts on top of what has come.
    let mut stream = server.open();
    stream.write_all(&frame(0x02, b"1")).unwrap();
    stream.write_all(&header(0x80, 16 << 20)).unwrap();
    assert_eq!(read_close(&mut stream), 1009);
    server.has_recovered(before);
}

#[test]
fn a_length_that_is_only_declared_takes_no_memory() {
    const CLIENTS: usize = 100;
    let server = Server::start(&["--max-buffered=0"]);
    let before = server.at_rest();
    let mut streams: Vec<_> = (0..CLIENTS).map(|_| server.open()).collect();
    for stream in &mut streams {
        stream.write_all(&header(0x82, 16 << 20)).unwrap();
        stream.write_all(&[7; 1024]).unwrap();
    }
    server.wait_until_asleep();
    let grown = server.peak() - before.resident;
    assert!(grown < CLIENTS * 64, "memory grew by {grown} KiB");
    drop(streams);
    server.has_recovered(before);
}

#[test]
fn clients_that_fall_silent_after_large_messages_hold_nothing_large() {
    fall_silent_after_three_large_messages(40);
}

#[test]
#[ignore = "echoes 900 MiB"]
fn three_hundred_clients_that_fall_silent_after_large_messages_hold_nothing_large() {
    fall_silent_after_three_large_messages(300);
}

fn fall_silent_after_three_large_messages(clients: usize) {
    let server = Server::start(&[]);
    let before = server.at_rest();
    let mut streams: Vec<_> = (0..clients).map(|_| server.open()).collect();
    let large = frame(0x82, &vec![7; MIB]);
    for _ in 0..3 {
        for stream in &mut streams {
            stream.write_all(&large).unwrap();
            assert_eq!(read_frame(stream).1.len(), MIB);
        }
    }
    // What is left a client: its stack and its buffers, and by far not a megabyte.
    let small = before.resident + clients * per_client();
    eventually(SOON, || server.figures().resident <= small);
    drop(streams);
    server.has_recovered(before);
}
