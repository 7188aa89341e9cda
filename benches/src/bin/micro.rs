//! Measures the sans-I/O modules of wsecho in bytes per second, each beside memcpy of as many bytes, and
//! what the kernel's copy costs by the alignment of a buffer. Prints Markdown.

use std::hint::black_box;
use std::io;
use std::time::{Duration, Instant};

use wsecho::app::conversation::LARGE_INPUT;
use wsecho::websocket::frame;
use wsecho_bench::kernel_copy;
use wsecho_bench::messages::Message;
use wsecho_bench::stats::quantile;

/// The median of so many samples counts.
const SAMPLES: usize = 15;
const SAMPLE: Duration = Duration::from_millis(2);

const MASKING_KEY: [u8; 4] = [0x37, 0xFA, 0x21, 0x3D];

fn main() -> io::Result<()> {
    println!("| what | bytes | GB/s | memcpy GB/s | ratio | ns each |");
    println!("|---|---|---|---|---|---|");
    headers();
    unmasking();
    utf8();
    conversations();
    kernel_copies()
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

/// Every length up to 256 at every alignment to 32 bytes, then the lengths near greater ones.
fn unmasking() {
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
        let alignments = 32;
        let bytes = lengths.clone().sum::<usize>() * alignments;
        let mut payload = vec![0; lengths.end + alignments];
        let mut target = payload.clone();
        let source = payload.clone();
        let ranges = || {
            let aligned = |len| (0..alignments).map(move |start| start..start + len);
            lengths.clone().flat_map(aligned)
        };
        row_beside(
            &format!("unmask {name}, all alignments"),
            bytes,
            lengths.len() * alignments,
            || {
                for range in ranges() {
                    let payload = black_box(&mut payload[range]);
                    black_box(frame::unmask(payload, black_box(MASKING_KEY)));
                }
            },
            || {
                for range in ranges() {
                    let target = black_box(&mut target[range.clone()]);
                    target.copy_from_slice(black_box(&source[range]));
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
        for len in [20, 1024, 64 * 1024_usize] {
            let bytes = text.repeat(len.div_ceil(text.len()));
            row(&format!("check UTF-8, {name}"), bytes.len(), 1, || {
                assert!(str::from_utf8(black_box(bytes.as_bytes())).is_ok());
            });
        }
    }
}

/// From received bytes to replies, as a client's thread does between a read and a write, with one copy
/// of the bytes in place of the read.
fn conversations() {
    let settings = wsecho_bench::settings();
    for payload in [20, 125, 1024, 16 * 1024] {
        let message = Message::websocket(payload, LARGE_INPUT / (payload + 8));
        let frames = message.copies().len() / message.bytes(1);
        let mut conversation = wsecho_bench::conversation(&settings);
        row(&format!("converse, frames of {payload} B"), message.copies().len(), frames, || {
            let received = black_box(message.copies());
            let sent = wsecho_bench::converse(&mut conversation, received, LARGE_INPUT);
            assert_eq!(sent, frames * message.reply.len());
        });
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
    let (mut rates, mut copy_rates, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..SAMPLES {
        let (rate, copy_rate) =
            (bytes as f64 / nanoseconds(&mut work), bytes as f64 / nanoseconds(&mut copy));
        rates.push(rate);
        copy_rates.push(copy_rate);
        ratios.push(rate / copy_rate);
    }
    let [rate, copy_rate, ratio] =
        [rates, copy_rates, ratios].map(|mut figures| quantile(&mut figures, 0.5).unwrap_or(0.0));
    let each = bytes as f64 / parts as f64 / rate;
    println!("| {what} | {bytes} | {rate:.2} | {copy_rate:.1} | {ratio:.3} | {each:.1} |");
}

/// The time of one call.
fn nanoseconds(mut work: impl FnMut()) -> f64 {
    let start = Instant::now();
    let mut calls = 0;
    // The clock is read once in so many calls, since reading it takes as long as a short call.
    while start.elapsed() < SAMPLE {
        for _ in 0..8 {
            work();
        }
        calls += 8;
    }
    start.elapsed().as_nanos() as f64 / f64::from(calls)
}

fn kernel_copies() -> io::Result<()> {
    println!("\n| buffer begins in its page at | send, GB/s | recv, GB/s |\n|---|---|---|");
    for place in [0, 1, 10, 14, 15, 16, 64, 2048, 4080, 4081, 4082, 4086, 4095] {
        let (send, receive) = kernel_copy::rates(place)?;
        println!("| {place} | {send:.2} | {receive:.2} |");
    }
    Ok(())
}
