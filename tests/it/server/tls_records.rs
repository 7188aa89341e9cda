//! TLS records as they may come: in pieces, small and large, and with something else behind them.

use std::cell::Cell;
use std::convert::Infallible;
use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::thread;
use std::time::Instant;

use rustls::{ClientConnection, SupportedProtocolVersion, version};

use super::tls::{Client, assert_echoes, assert_end, config, open, over, start};
use crate::frames::{Random, close, frame};
use crate::support::{
    PREFIX, PROGRAM, SOON, Server, UPGRADE, assert_status, data, eventually, read_close,
    read_frame, read_head,
};

const VERSIONS: [&SupportedProtocolVersion; 2] = [&version::TLS12, &version::TLS13];

fn connect(server: &Server, version: &'static SupportedProtocolVersion) -> Client {
    let client = over(server.connect(), config(&data("tls/ec.crt"), &[version]));
    client.sock.set_nodelay(true).unwrap();
    client
}

/// The records that the client has to send.
fn flight(session: &mut ClientConnection) -> Vec<u8> {
    let mut records = Vec::new();
    while session.wants_write() {
        session.write_tls(&mut records).unwrap();
    }
    records
}

/// `bytes` in records of `len` bytes each.
fn encrypted(session: &mut ClientConnection, bytes: &[u8], len: usize) -> Vec<u8> {
    let mut records = Vec::new();
    for part in bytes.chunks(len) {
        session.writer().write_all(part).unwrap();
        records.extend(flight(session));
    }
    records
}

/// Makes the handshake, whose flights `send` hands over.
fn handshake(
    client: &mut Client,
    mut send: impl FnMut(&mut Client, &[u8]),
) -> Result<(), rustls::Error> {
    while client.conn.is_handshaking() {
        let records = flight(&mut client.conn);
        send(client, &records);
        if client.conn.wants_read() {
            receive(client)?;
        }
    }
    let records = flight(&mut client.conn);
    send(client, &records);
    Ok(())
}

fn receive(client: &mut Client) -> Result<(), rustls::Error> {
    let bytes = client.conn.read_tls(&mut client.sock).expect("the server answers");
    assert!(bytes > 0, "the server has ended the stream");
    client.conn.process_new_packets().map(drop)
}

// Pieces

#[test]
fn each_flight_may_be_cut_at_every_byte() {
    let server = start("ec", &[]);
    let parts = [UPGRADE.as_bytes(), &frame(0x81, b"hi"), &close(4000)];
    for version in VERSIONS {
        let (mut cut, mut longest) = (0, 1);
        while cut < longest {
            cut += 1;
            // Only a thread that is gone has its sleeps no longer counted.
            eventually(SOON, || server.client_threads() == 0);
            let mut client = connect(&server, version);
            let mut send = |client: &mut Client, records: &[u8]| {
                longest = longest.max(records.len());
                let (first, rest) = records.split_at(cut.min(records.len()));
                let sleeps = server.sleeps();
                client.sock.write_all(first).unwrap();
                if !rest.is_empty() {
                    wait_for_more_than(sleeps, &server);
                    client.sock.write_all(rest).unwrap();
                }
            };
            handshake(&mut client, &mut send).unwrap();
            let records = parts.map(|bytes| encrypted(&mut client.conn, bytes, bytes.len()));
            send(&mut client, &records.concat());
            assert_status(&read_head(&mut client), 101);
            let reply = format!("{PREFIX}hi").into_bytes();
            assert_eq!(read_frame(&mut client), (0x81, reply), "{version:?}, {cut}");
            assert_eq!(read_close(&mut client), 4000);
            assert_end(&mut client);
        }
        assert!(longest > UPGRADE.len(), "{longest}");
    }
}

/// Waits until the server has gone to sleep once more, and so has received what there is.
fn wait_for_more_than(sleeps: usize, server: &Server) {
    let started = Instant::now();
    while server.sleeps() == sleeps {
        assert!(started.elapsed() < SOON, "it does not wait for the rest");
        thread::yield_now();
    }
}

#[test]
fn a_hello_may_come_in_two_records() {
    let server = start("ec", &["--handshake-timeout=1m"]);
    let record =
        |part: &[u8]| [&[0x16, 3, 1], &(part.len() as u16).to_be_bytes()[..], part].concat();
    for version in VERSIONS {
        eventually(SOON, || server.client_threads() == 0);
        let mut client = connect(&server, version);
        let mut is_hello = true;
        let send = |client: &mut Client, records: &[u8]| {
            if !std::mem::take(&mut is_hello) {
                return client.sock.write_all(records).unwrap();
            }
            let (first, rest) = records[5..].split_at(20);
            let sleeps = server.sleeps();
            client.sock.write_all(&record(first)).unwrap();
            // It neither spins nor gives up.
            wait_for_more_than(sleeps, &server);
            client.sock.write_all(&record(rest)).unwrap();
        };
        handshake(&mut client, send).unwrap();
        client.write_all(UPGRADE.as_bytes()).unwrap();
        assert_status(&read_head(&mut client), 101);
        assert_echoes(&mut client, b"in two records");
    }
}

#[test]
fn records_and_pieces_may_have_any_size() {
    const MOST: usize = 16 * 1024;
    let server = start("ec", &[]);
    let mut random = Random(1);
    for (number, record) in [1, 2, 100, MOST - 1, MOST].into_iter().cycle().take(40).enumerate() {
        let payload = random.bytes(if record < 100 { 1_000 } else { 100_000 });
        let bytes = [UPGRADE.as_bytes(), &frame(0x82, &payload), &close(4000)].concat();
        let mut client = connect(&server, VERSIONS[number % 2]);
        let largest = [1, 30, 1_000, 50_000][random.below(4)];
        let mut send = |client: &mut Client, records: &[u8]| {
            let mut rest = records;
            while !rest.is_empty() {
                // A thousand pieces are enough.
                let len = (1 + random.below(largest)).max(records.len() / 1_000);
                let (piece, tail) = rest.split_at(len.min(rest.len()));
                client.sock.write_all(piece).unwrap();
                rest = tail;
            }
        };
        handshake(&mut client, &mut send).unwrap();
        let records = encrypted(&mut client.conn, &bytes, record);
        send(&mut client, &records);
        assert_status(&read_head(&mut client), 101);
        assert!(read_frame(&mut client) == (0x82, payload), "{record}, {largest}");
        assert_eq!(read_close(&mut client), 4000);
        assert_end(&mut client);
    }
}

// What is no record

#[test]
fn behind_each_record_what_is_none_gets_an_alert_and_the_end() {
    /// A byte more than the longest record that TLS 1.2 allows.
    const TOO_LONG: [u8; 2] = (16_384_u16 + 2_048 + 1).to_be_bytes();
    // Where it waited for more it would wait for longer than this test.
    let server = start("ec", &["-v", "--handshake-timeout=1m", "--ping-interval=0"]);
    let before = server.idle_usage_after(|| assert_echoes(&mut open(&server), b"idle"));
    let rubbish: [Vec<u8>; 5] = [
        [&[0x16, 3, 3], &TOO_LONG[..], &[7; 20_000]].concat(),
        [&[0x17, 3, 3], &TOO_LONG[..]].concat(),
        vec![0; 1_000],
        [&[0x17, 3, 3, 0, 40][..], &[7; 40]].concat(),
        vec![0x16, 3, 3, 0, 4, 0xFF, 0, 0, 0],
    ];
    for version in VERSIONS {
        for rubbish in &rubbish {
            let behind = (1..).take_while(|&records| {
                let mut client = connect(&server, version);
                let (is_complete, error) = send_rubbish(&mut client, records, rubbish);
                let place = format!("{version:?}, {records} records, {:?}", &rubbish[..5]);
                assert!(matches!(error, rustls::Error::AlertReceived(_)), "{error}, {place}");
                client.sock.shutdown(Shutdown::Write).unwrap();
                assert_eq!(client.sock.read(&mut [0; 10]).unwrap(), 0, "{place}");
                !is_complete
            });
            assert!(behind.count() >= 4);
        }
    }
    server.has_recovered_after(before, PROGRAM, || assert_echoes(&mut open(&server), b"again"));
    let log = server.log();
    let is_wrong = |line: &String| line.contains("ERROR") || line.contains("sent no request");
    assert!(!log.iter().any(is_wrong), "{log:#?}");
}

/// Sends `rubbish` behind the first so many records of a conversation: whether these were all of it, and how
/// the session ends.
fn send_rubbish(client: &mut Client, mut records: usize, rubbish: &[u8]) -> (bool, rustls::Error) {
    let is_complete = Cell::new(true);
    let mut send = |client: &mut Client, bytes: &[u8]| {
        let mut rest = bytes;
        while !rest.is_empty() && is_complete.get() {
            is_complete.set(records > 0);
            let len = 5 + usize::from(u16::from_be_bytes([rest[3], rest[4]]));
            let (record, tail) = rest.split_at(len);
            client.sock.write_all(if records > 0 { record } else { rubbish }).unwrap();
            (records, rest) = (records.saturating_sub(1), tail);
        }
    };
    let made = handshake(client, &mut send).and_then(|()| {
        for bytes in [UPGRADE.as_bytes(), &frame(0x81, b"hi")] {
            let record = encrypted(&mut client.conn, bytes, bytes.len());
            send(client, &record);
        }
        if is_complete.get() {
            client.sock.write_all(rubbish).unwrap();
        }
        loop {
            receive(client)?;
        }
    });
    let Err::<Infallible, _>(error) = made;
    (is_complete.get(), error)
}
