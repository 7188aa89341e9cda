//! Measures the pure modules of wsecho, in bytes a second beside memcpy of as many bytes in the same
//! run: the table in Markdown.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use wsecho::buffer::Budget;
use wsecho::session::Session;
use wsecho::{echo, frame};
use wsecho_bench::stats::Spread;
use wsecho_bench::wire::Message;

/// The median counts, so that a neighbour's burst does not.
const SAMPLES: usize = 15;
const SAMPLE: Duration = Duration::from_millis(2);

/// As much as one read of wsecho brings.
const READ: usize = 17 * 1024;

const MASKING_KEY: [u8; 4] = [0x37, 0xFA, 0x21, 0x3D];

fn main() {
    println!("| what | bytes | GB/s | memcpy GB/s | part of memcpy | ns for each |");
    println!("|---|---|---|---|---|---|");
    headers();
    unmasking();
    utf8();
    sessions();
}

fn headers() {
    for payload in [0, 20, 1024] {
        let wire = Message::websocket(payload, READ / (payload + 8));
        let frames = wire.copies().len() / wire.bytes(1);
        row(&format!("header decode, frames of {payload} B"), wire.copies().len(), frames, || {
            let mut rest = black_box(wire.copies());
            while let Ok(Some((header, header_len))) = frame::decode(rest) {
                black_box(header);
                rest = &rest[header_len + header.payload_len as usize..];
            }
        });
    }
}

/// Every length up to 256 at every alignment to 32 bytes, then the lengths around greater ones.
fn unmasking() {
    let classes = [
        ("1 to 3 B", 1..4),
        ("4 to 15 B", 4..16),
        ("16 to 63 B", 16..64),
        ("64 to 256 B", 64..257),
        ("1 KiB and up to 31 more", 1024..1056),
        ("16 KiB and up to 31 more", 16_384..16_416),
        ("256 KiB and up to 3 more", 262_144..262_148),
    ];
    for (name, lengths) in classes {
        let alignments = 32;
        let bytes = lengths.clone().sum::<usize>() * alignments;
        let mut room = vec![0; lengths.end + alignments];
        let mut copied = room.clone();
        let source = room.clone();
        let pieces = || {
            let each = |length| (0..alignments).map(move |start| start..start + length);
            lengths.clone().flat_map(each)
        };
        row_beside(
            &format!("unmask, {name}, all alignments"),
            bytes,
            lengths.len() * alignments,
            || {
                for piece in pieces() {
                    let payload = black_box(&mut room[piece]);
                    black_box(frame::unmask(payload, black_box(MASKING_KEY)));
                }
            },
            || {
                for piece in pieces() {
                    let payload = black_box(&mut copied[piece.clone()]);
                    payload.copy_from_slice(black_box(&source[piece]));
                }
            },
        );
    }
}

fn utf8() {
    let texts = [
        ("ASCII", "All of it is plain. "),
        ("German", "Größe, Öl und Übermaß. "),
        ("Japanese", "これは日本語の文章です。"),
        ("emoji", "🦀🐚🌊🏖🐟"),
    ];
    for (name, text) in texts {
        for length in [20, 1024, 64 * 1024_usize] {
            let bytes = text.repeat(length.div_ceil(text.len()));
            row(&format!("UTF-8 check, {name}"), bytes.len(), 1, || {
                assert!(str::from_utf8(black_box(bytes.as_bytes())).is_ok())
            });
        }
    }
}

/// From frames to replies, as a client's thread does between a read and a write. Unmasking happens in
/// place, so each turn also copies its input anew.
fn sessions() {
    for payload in [20, 125, 1024, 16 * 1024] {
        let wire = Message::websocket(payload, READ / (payload + 8));
        let frames = wire.copies().len() / wire.bytes(1);
        let mut session = Session::new(1 << 24, Arc::new(Budget::new(1 << 30)));
        let mut input = wire.copies().to_vec();
        let mut replies = Vec::with_capacity(2 * READ);
        row(
            &format!("session and echo, frames of {payload} B"),
            wire.copies().len(),
            frames,
            || {
                input.copy_from_slice(wire.copies());
                replies.clear();
                let mut unread = &mut input[..];
                let mut messages = 0;
                while let Some(message) = session.next(&mut unread, &mut replies) {
                    black_box(echo::reply(&message, "", &mut replies));
                    messages += 1;
                }
                assert_eq!(messages, frames);
                black_box(&replies);
            },
        );
    }
}

/// Prints what `work` makes of `bytes` bytes in `parts` parts, beside one memcpy of them all.
fn row(what: &str, bytes: usize, parts: usize, work: impl FnMut()) {
    let source = vec![1_u8; bytes];
    let mut target = source.clone();
    let copy = || black_box(&mut target[..]).copy_from_slice(black_box(&source));
    row_beside(what, bytes, parts, work, copy);
}

/// The same beside `copy`, which copies as many bytes.
fn row_beside(
    what: &str,
    bytes: usize,
    parts: usize,
    mut work: impl FnMut(),
    mut copy: impl FnMut(),
) {
    let (mut own, mut copied) = (Vec::new(), Vec::new());
    for _ in 0..SAMPLES {
        own.push(bytes as f64 / nanoseconds(&mut work));
        copied.push(bytes as f64 / nanoseconds(&mut copy));
    }
    let ratio = Spread::of(own.iter().zip(&copied).map(|(own, copied)| own / copied));
    let (Some(own), Some(copied), Some(ratio)) = (Spread::of(own), Spread::of(copied), ratio)
    else {
        return;
    };
    println!(
        "| {what} | {bytes} | {:.2} | {:.1} | {:.3} | {:.1} |",
        own.median,
        copied.median,
        ratio.median,
        bytes as f64 / parts as f64 / own.median,
    );
}

/// What one call of `work` takes.
fn nanoseconds(mut work: impl FnMut()) -> f64 {
    let start = Instant::now();
    let mut calls = 0;
    // The clock is asked once in so many calls: asking takes as long as a short one of them.
    while start.elapsed() < SAMPLE {
        for _ in 0..8 {
            work();
        }
        calls += 8;
    }
    start.elapsed().as_nanos() as f64 / f64::from(calls)
}
