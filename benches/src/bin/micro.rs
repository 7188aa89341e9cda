//! Measures the sans-I/O modules of wsecho, and what the kernel's copies cost by the place of a buffer.
//! Prints Markdown.

use std::hint::black_box;
use std::io;
use std::ops::Range;
use std::time::{Duration, Instant};

use wsecho::app::incoming::LARGE_INPUT;
use wsecho::websocket::frame;
use wsecho_bench::driver::Driver;
use wsecho_bench::kernel_copy;
use wsecho_bench::messages::Message;
use wsecho_bench::stats::quantile;

/// The median of so many samples counts.
const SAMPLES: usize = 15;
const SAMPLE: Duration = Duration::from_millis(2);

const MASKING_KEY: [u8; 4] = [0x37, 0xFA, 0x21, 0x3D];

fn main() -> io::Result<()> {
    println!("| what | bytes | GB/s | ns each |\n|---|---|---|---|");
    headers();
    unmasking();
    utf8();
    conversations();
    println!("\n| buffer begins in its page at | send, GB/s | recv, GB/s |\n|---|---|---|");
    for place in [0, 1, 10, 14, 15, 16, 64, 2048, 4080, 4081, 4082, 4086, 4095] {
        let (send, receive) = kernel_copy::rates(place)?;
        println!("| {place} | {send:.2} | {receive:.2} |");
    }
    Ok(())
}

fn headers() {
    for payload in [0, 20, 1024] {
        let message = Message::websocket(payload, LARGE_INPUT / (payload + 8));
        let frames = message.copies().len() / message.bytes(1);
        let what = format!("decode the header, frames of {payload} B");
        row(&what, message.copies().len(), frames, || {
            let mut input = black_box(message.copies());
            while let Ok(Some((header, header_len))) = frame::decode(input) {
                black_box(header);
                input = &input[header_len + header.payload_len as usize..];
            }
        });
    }
}

/// Every length up to 256 at every alignment to 32 bytes, then the lengths near greater ones, beside
/// memcpy of the same.
fn unmasking() {
    const ALIGNMENTS: usize = 32;
    let classes = [
        ("1 to 3 B", 1..4),
        ("4 to 15 B", 4..16),
        ("16 to 63 B", 16..64),
        ("64 to 256 B", 64..257),
        ("1 KiB and up to 31 B more", 1024..1056),
        ("16 KiB and up to 31 B more", 16_384..16_416),
        ("256 KiB and up to 3 B more", 262_144..262_148),
    ];
    for (name, lengths) in classes {
        let mut target = vec![0; lengths.end + ALIGNMENTS];
        let source = target.clone();
        let mut row = |what: &str, work: fn(&mut [u8], &[u8])| {
            let (bytes, parts) = (lengths.clone().sum::<usize>(), lengths.len());
            row(&format!("{what} {name}"), bytes * ALIGNMENTS, parts * ALIGNMENTS, || {
                let aligned = |len| (0..ALIGNMENTS).map(move |start| start..start + len);
                for range in Range::clone(&lengths).flat_map(aligned) {
                    work(black_box(&mut target[range.clone()]), black_box(&source[range]));
                }
            });
        };
        row("memcpy", |target, source| target.copy_from_slice(source));
        row("unmask", |target, _| {
            black_box(frame::unmask(target, black_box(MASKING_KEY)));
        });
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
        for len in [20, 1024, 64 * 1024_usize] {
            let bytes = text.repeat(len.div_ceil(text.len()));
            row(&format!("check UTF-8, {name}"), bytes.len(), 1, || {
                assert!(str::from_utf8(black_box(bytes.as_bytes())).is_ok());
            });
        }
    }
}

/// From received bytes to replies, as a client's thread does between a read and a write, with a memcpy
/// in place of the read.
fn conversations() {
    let service = wsecho_bench::service();
    for payload in [20, 125, 1024, 16 * 1024] {
        let message = Message::websocket(payload, LARGE_INPUT / (payload + 8));
        let frames = message.copies().len() / message.bytes(1);
        let mut connection = Driver::open(&service).connection;
        row(&format!("converse, frames of {payload} B"), message.copies().len(), frames, || {
            let received = black_box(message.copies());
            let sent = wsecho_bench::converse(&mut connection, received, LARGE_INPUT);
            assert_eq!(sent, frames * message.reply.len());
        });
    }
}

/// Prints what `work` makes of `bytes` bytes in `parts` parts.
fn row(what: &str, bytes: usize, parts: usize, mut work: impl FnMut()) {
    let mut times: Vec<f64> = (0..SAMPLES).map(|_| nanoseconds(&mut work)).collect();
    let time = quantile(&mut times, 0.5).unwrap_or(f64::NAN);
    println!("| {what} | {bytes} | {:.2} | {:.1} |", bytes as f64 / time, time / parts as f64);
}

/// The time of one call.
fn nanoseconds(mut work: impl FnMut()) -> f64 {
    let start = Instant::now();
    let mut calls = 0;
    // The clock is read once in so many calls, since reading it takes as long as a short call.
    while start.elapsed() < SAMPLE {
        (0..8).for_each(|_| work());
        calls += 8;
    }
    start.elapsed().as_nanos() as f64 / f64::from(calls)
}
