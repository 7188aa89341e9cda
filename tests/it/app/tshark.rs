//! What traces show, compared with what tshark decodes of the same connections.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use wsecho::app::service::Service;

use crate::deflate::Compressor;
use crate::driver::{Driver, service, upgrade};
use crate::frames::{Random, masked_frame};
use crate::support::{TempDir, from_env, has_programs, seed_from_env};

/// One of each is chosen, where it fits the others.
const BEHAVIORS: [&[&str]; 5] = [
    &["", "", "&latency=300ms", "&drip=200ms", "&latency=1s&drip=1s", "&prefix=", "&prefix=said:"],
    &["", "", "&fragment=1", "&fragment=7", "&fragment=1000"],
    &["", "", "&count=3&interval=100ms&bytes=200", "&count=70", "&ping=100ms", "&dump"],
    &["", "", "", "&pong=off"],
    &[
        "",
        "",
        "",
        "",
        "",
        "&close=4000&reason=bye&after=2",
        "&close=none&after=300ms",
        "&close=fin&after=1",
        "&close=rst&after=2",
        "&bad=mask&after=1",
        "&bad=rsv&after=1",
        "&bad=opcode&after=1",
        "&bad=utf8&after=1",
        "&bad=continuation&after=1",
    ],
];

const OFFERS: [&str; 3] = [
    "",
    "Sec-WebSocket-Extensions: permessage-deflate\r\n",
    "Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover; \
     client_no_context_takeover\r\n",
];

const WRONG_TEXT: &[u8] = b"no UTF-8: \xFF!";

/// Few bytes are decoded as WebSocket frames without the port of HTTP.
const HTTP: u16 = 80;

/// As many conversations as one tshark decodes.
const BATCH: u16 = 50;

#[test]
fn traces_show_what_tshark_decodes() {
    if !has_programs(&["tshark"]) {
        return;
    }
    let batches = from_env("TRACED_CONVERSATIONS").map_or(1, |count| count.div_ceil(BATCH.into()));
    let seed = seed_from_env("TRACED_SEED");
    println!("TRACED_SEED={seed}");
    let mut random = Random(seed);
    let service = service(1 << 20, 1 << 30);
    let dir = TempDir::new();
    let mut compared = 0;
    for _ in 0..batches {
        let mut capture = Capture::new();
        let queries: Vec<_> =
            (0..BATCH).map(|port| converse(&service, &mut random, &mut capture, port)).collect();
        let file = dir.path("traced.pcap");
        fs::write(&file, &capture.0).unwrap();
        for (port, [client, server]) in decoded(&file) {
            compared += compare(&queries[usize::from(port - 1000)], &client, &server);
        }
    }
    println!("{compared} frames in {} conversations", batches * u64::from(BATCH));
}

/// What tshark decodes.
struct Decoded {
    /// As a trace has it.
    frame: Value,
    payload: Vec<u8>,
}

/// The frames in `capture`, of each client and of the server to it, by the client's port.
fn decoded(capture: &Path) -> BTreeMap<u16, [Vec<Decoded>; 2]> {
    let output = Command::new("tshark")
        .args(["-T", "jsonraw", "--no-duplicate-keys", "-J", "tcp websocket", "-r"])
        .arg(capture)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let packets: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    let mut connections: BTreeMap<u16, [Vec<Decoded>; 2]> = BTreeMap::new();
    for packet in &packets {
        let layers = &packet["_source"]["layers"];
        let port = |name: &str| number(&layers["tcp"][format!("tcp.{name}_raw")]) as u16;
        let [from, to] = ["srcport", "dstport"].map(port);
        let (side, client) = if to == HTTP { (0, from) } else { (1, to) };
        let frames = &mut connections.entry(client).or_default()[side];
        // One frame is an object, and several ones are an array.
        let (headers, decoded) = match (&layers["websocket_raw"], &layers["websocket"]) {
            (Value::Array(headers), Value::Array(decoded)) => (headers.clone(), decoded.clone()),
            (Value::Null, _) => continue,
            (header, decoded) => (vec![header.clone()], vec![decoded.clone()]),
        };
        for (header, decoded) in headers.iter().zip(&decoded) {
            frames.push(frame(&header[0], decoded));
        }
    }
    connections
}

fn frame(header: &Value, decoded: &Value) -> Decoded {
    let field = |name: &str| &decoded[format!("websocket.{name}_raw")];
    let lengths = ["payload_length_ext_64", "payload_length_ext_16", "payload_length"];
    let length = lengths.map(field).into_iter().find(|length| !length.is_null()).unwrap();
    let payload = field("payload")[0].as_str().unwrap_or_default();
    let text = &decoded["websocket.payload"]["websocket.payload.text_raw"];
    // tshark inflates whole messages, but not one without a byte (RFC 7692 §7.2.3.6).
    let is_inflated = number(field("fin")) == 1 && number(field("rsv")) == 4 && payload != "00";
    let frame = json!({
        "fin": number(field("fin")) == 1,
        "rsv": number(field("rsv")),
        "opcode": number(field("opcode")),
        "mask": field("masking_key")[0],
        "length": number(length),
        "header": header,
        "bytes": &payload[..payload.len().min(64)],
        "inflated": text[2].as_u64().filter(|_| is_inflated),
    });
    let digits = |at: usize| u8::from_str_radix(&payload[at..at + 2], 16).unwrap();
    Decoded { frame, payload: (0..payload.len()).step_by(2).map(digits).collect() }
}

/// A field's value, which is hexadecimal.
fn number(field: &Value) -> u64 {
    u64::from_str_radix(field[0].as_str().unwrap_or_default(), 16).unwrap()
}

/// Compares the traces that the server sent with the frames before them. Returns how many frames they show.
fn compare(query: &str, client: &[Decoded], server: &[Decoded]) -> usize {
    let mut messages = messages(client);
    let (mut pending, mut shown, mut ends) = (Vec::new(), 0, false);
    for (number, Decoded { frame: sent, payload }) in server.iter().enumerate() {
        let trace = serde_json::from_slice::<Value>(payload).ok();
        let Some(trace) = trace.filter(|trace| trace["wsecho"] == "trace") else {
            pending.push(sent.clone());
            continue;
        };
        let frames = trace["frames"].as_array().unwrap();
        shown += frames.len();
        let of = |side: &str| frames.iter().filter(|it| it["from"] == side).collect::<Vec<_>>();
        let [seen, told] = [of("client"), of("server")];
        let close = server.get(number + 1).filter(|next| next.frame["opcode"] == 8);
        ends = close.is_some();
        pending.extend(close.map(|close| close.frame.clone()));
        let more = trace["more"].as_u64().unwrap_or(0) as usize;
        let is_shown = |seen: &[&Value], frames: &[Value]| {
            seen.len() <= frames.len() && seen.iter().zip(frames).all(|(it, frame)| is(it, frame))
        };
        // A reply may be delayed, and other messages overtake it.
        let message = messages.iter().position(|message| is_shown(&seen, message));
        let count = match message.filter(|_| !seen.is_empty()) {
            Some(message) => messages.remove(message).len(),
            None => 0,
        };
        assert!(!seen.is_empty() || ends || more > 0, "{query}: {trace}");
        assert!(is_shown(&told, &pending), "{query}: {trace:#} but {pending:#?}");
        let all = frames.len() + more;
        assert!(all == count + pending.len(), "{query}: {all}, {count}, {trace:#}, {pending:#?}");
        pending.clear();
    }
    let is_answered =
        messages.is_empty() || ends || query.contains("close") || query.contains("bad");
    assert!(is_answered, "{query}: not in a trace: {messages:#?}");
    shown
}

/// A client's frames, by the event that they belong to: those of a message, or one control frame. A close
/// frame or a wrong frame ends the list, and the unfinished message before it belongs to it.
fn messages(client: &[Decoded]) -> Vec<Vec<Value>> {
    let (mut messages, mut unfinished) = (Vec::new(), Vec::new());
    for Decoded { frame, payload } in client {
        let number = |name: &str| frame[name].as_u64().unwrap();
        let is_final = frame["fin"] == true;
        let is_wrong = matches!(number("opcode"), 3..=7 | 11..)
            || number("rsv") & 3 != 0
            || number("opcode") > 7 && !is_final
            || payload == WRONG_TEXT;
        match number("opcode") {
            _ if is_wrong => {}
            9 | 10 => {
                messages.push(vec![frame.clone()]);
                continue;
            }
            8 => {}
            _ if !is_final => {
                unfinished.push(frame.clone());
                continue;
            }
            _ => {}
        }
        let mut last = frame.clone();
        last["is_wrong"] = is_wrong.into();
        unfinished.push(last);
        messages.push(std::mem::take(&mut unfinished));
        if is_wrong || number("opcode") == 8 {
            return messages;
        }
    }
    messages
}

/// Whether a trace's frame is the one that tshark decodes, or the start of a wrong one.
fn is(shown: &Value, decoded: &Value) -> bool {
    let is_start = |name: &str| {
        let [shown, decoded] = [shown, decoded].map(|frame| frame[name].as_str().unwrap());
        decoded.starts_with(shown)
    };
    let is_same = |name: &&str| shown[*name] == decoded[*name];
    let (first, rest) = (["fin", "rsv", "opcode"], ["mask", "length", "header", "bytes"]);
    let is_wrong = decoded["is_wrong"] == true && is_start("header") && is_start("bytes");
    first.iter().all(is_same)
        && (is_wrong || rest.iter().all(is_same))
        && (decoded["inflated"].is_null() || is_same(&"inflated"))
}

/// A random conversation.
fn converse(service: &Service, random: &mut Random, capture: &mut Capture, number: u16) -> String {
    let query: String = BEHAVIORS.map(|values| values[random.below(values.len())]).concat();
    let offer = random.below(OFFERS.len());
    let mut peers = Peers::new(capture, number);
    let mut driver = Driver::new(service);
    let request = upgrade(&format!("/do?trace{query}"), OFFERS[offer]);
    peers.pass(&mut driver, request.as_bytes(), random);
    let mut compressor = Compressor::new(6);
    let mut message = |random: &mut Random| {
        let len = match random.below(20) {
            0 => 65_530 + random.below(12),
            1 | 2 => 120 + random.below(12),
            _ => random.below(60),
        };
        let payload = random.text(len).into_bytes();
        let (rsv, payload) = match offer {
            0 => (0, payload),
            _ if random.below(3) == 0 => (0, payload),
            1 => (0x40, compressor.message(&payload)),
            _ => (0x40, Compressor::new(6).message(&payload)),
        };
        let count = [1, 1, 2, 3, 70][random.below(5)];
        let mut rest = &payload[..];
        let mut first = rsv | (1 + random.below(2) as u8);
        let mut frames = Vec::new();
        for number in 1..=count {
            let len = if number < count { random.below(rest.len() + 1) } else { rest.len() };
            let (fragment, tail) = rest.split_at(len);
            let fin = if number < count { 0 } else { 0x80 };
            frames.extend(masked(fin | first, fragment, random));
            if random.below(8) == 0 {
                frames.extend(control(random));
            }
            (rest, first) = (tail, 0);
        }
        frames
    };
    for _ in 0..random.below(8) {
        let bytes = match random.below(6) {
            0 => control(random),
            1 => {
                peers.wait(&mut driver, Duration::from_millis(random.below(500) as u64));
                continue;
            }
            _ => message(random),
        };
        peers.pass(&mut driver, &bytes, random);
    }
    let last = match random.below(10) {
        0..=3 => masked(0x88, &4000_u16.to_be_bytes(), random),
        4 => masked(0x83, b"reserved", random),
        5 => masked(0xA1, b"RSV2", random),
        6 => masked(0x81, WRONG_TEXT, random),
        7 => masked(0x09, b"", random),
        _ => Vec::new(),
    };
    peers.pass(&mut driver, &last, random);
    peers.wait(&mut driver, Duration::from_secs(60));
    query
}

fn masked(first: u8, payload: &[u8], random: &mut Random) -> Vec<u8> {
    masked_frame(first, payload, (random.number() as u32).to_be_bytes())
}

fn control(random: &mut Random) -> Vec<u8> {
    let payload = random.below(126);
    let payload = random.bytes(payload);
    masked([0x89, 0x8A][random.below(2)], &payload, random)
}

/// A capture of TCP over IPv4 in the format of libpcap.
struct Capture(Vec<u8>);

impl Capture {
    fn new() -> Self {
        /// Packets begin with the IP header.
        const RAW: u32 = 101;
        let mut file = Vec::new();
        for field in [0xA1B2_C3D4, 0x0002_0004, 0, 0, 0xFFFF, RAW] {
            file.extend(u32::to_be_bytes(field));
        }
        Capture(file)
    }

    fn add(&mut self, at: Duration, packet: &[u8]) {
        let len = packet.len() as u32;
        for field in [at.as_secs() as u32, at.subsec_micros(), len, len] {
            self.0.extend(field.to_be_bytes());
        }
        self.0.extend(packet);
    }
}

/// Both ends of a connection, which is captured.
struct Peers<'c> {
    capture: &'c mut Capture,
    /// The client's port.
    port: u16,
    /// The bytes that each has sent, the client first.
    sent: [u32; 2],
}

impl<'c> Peers<'c> {
    fn new(capture: &'c mut Capture, number: u16) -> Self {
        Peers { capture, port: 1000 + number, sent: [1, 1] }
    }

    /// Has the client send `bytes`, in pieces, with waits where the server reads nothing.
    fn pass(&mut self, driver: &mut Driver, mut bytes: &[u8], random: &mut Random) {
        while !bytes.is_empty() {
            let most = [3, 100, 20_000][random.below(3)];
            let piece = &bytes[..bytes.len().min(1 + random.below(most))];
            let received = driver.receive(piece);
            if received == 0 {
                let Some(wait) = driver.wait() else { return };
                self.wait(driver, wait);
            }
            self.segment(0, driver.now, &piece[..received]);
            self.answer(driver);
            bytes = &bytes[received..];
        }
    }

    fn wait(&mut self, driver: &mut Driver, time: Duration) {
        driver.wait_until(driver.now + time);
        self.answer(driver);
    }

    fn answer(&mut self, driver: &mut Driver) {
        let now = driver.now;
        driver.take().chunks(1400).for_each(|bytes| self.segment(1, now, bytes));
    }

    /// A segment from the client (0) or the server (1).
    fn segment(&mut self, from: usize, at: Duration, bytes: &[u8]) {
        const PSH_ACK: u16 = 0x5018;
        if bytes.is_empty() {
            return;
        }
        let len = 40 + bytes.len() as u16;
        let mut packet = vec![0x45, 0];
        packet.extend(len.to_be_bytes());
        packet.extend([0, 0, 0, 0, 64, 6, 0, 0, 127, 0, 0, 1, 127, 0, 0, 1]);
        let mut ports = [self.port, HTTP];
        ports.rotate_left(from);
        packet.extend(ports.map(u16::to_be_bytes).concat());
        packet.extend(self.sent[from].to_be_bytes());
        packet.extend(self.sent[1 - from].to_be_bytes());
        packet.extend(PSH_ACK.to_be_bytes());
        packet.extend([0xFF, 0xFF, 0, 0, 0, 0]);
        packet.extend(bytes);
        self.capture.add(at, &packet);
        self.sent[from] += bytes.len() as u32;
    }
}
