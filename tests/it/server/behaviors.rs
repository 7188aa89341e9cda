//! Behaviors on demand over real sockets: what only a socket shows, and what the log says of it.

use std::io::{ErrorKind, Read as _, Write as _};
use std::iter;
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::frames::{close, frame};
use crate::support::{
    SOON, Server, ask, assert_echoes, assert_end, assert_is_503, assert_status, assert_took,
    demand, eventually, read_close, read_frame, read_head, reset, tolerance, upgraded,
};

fn text(payload: &str) -> Vec<u8> {
    frame(0x81, payload.as_bytes())
}

#[test]
fn the_log_has_the_behavior_and_what_the_client_did_with_it() {
    let server = Server::start(&[]);
    for (number, query, act, ended) in [
        (
            1,
            "close=4000&reason=bye",
            (|stream| assert_eq!(read_close(stream), 4000)) as fn(&mut TcpStream),
            r#"closed by server, 4000 "bye", not answered; 0 messages"#,
        ),
        (
            2,
            "bad=mask&after=1",
            |stream| {
                stream.write_all(&text("hi")).unwrap();
                stream.write_all(&close(1002)).unwrap();
                stream.read_to_end(&mut Vec::new()).unwrap();
            },
            "closed by peer, 1002; 1 message",
        ),
        (3, "close=fin", assert_end, "stream ended by server without a close frame; peer ended"),
        (
            4,
            "close=rst&after=100ms",
            |stream| {
                let error = stream.read(&mut [0]).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::ConnectionReset);
            },
            "connection reset by server; 0 messages, 0 bytes in, 0 bytes out",
        ),
        (5, "bad=accept", |_| {}, "peer ended the stream without a close frame"),
        (6, "rate=0&close=4000", |stream| assert_echoes(stream, "hi"), "1 message, 8 bytes in"),
        (
            7,
            "latency=1ms&count=1",
            |stream| {
                assert_eq!(read_frame(stream), (0x81, b"1".into()));
                assert_echoes(stream, "hi");
            },
            "1 message, 8 bytes in, 25 bytes out",
        ),
    ] {
        let mut stream = server.open_demanding(query);
        act(&mut stream);
        drop(stream);
        let not_drawn = if number == 6 { " not drawn" } else { "" };
        let connected =
            server.wait_for_log(&format!("path \"/do\", behavior \"{query}\"{not_drawn}"));
        assert!(connected.contains(&format!("client {number} connected: ")), "{connected}");
        let line = server.wait_for_log(&format!("client {number} ended: "));
        assert!(line.contains(ended), "{line}");
    }
    assert_status(&upgraded(server.send(demand("status=503"))).unwrap_err(), 503);
    server.wait_for_log(
        "behavior \"status=503\": 503 Service Unavailable, this status was asked for",
    );
    let forged = "x%0a=1";
    assert_status(&upgraded(server.send(demand(forged))).unwrap_err(), 400);
    server.wait_for_log(r#"400 Bad Request, "x\n" is not a parameter"#);
}

#[test]
fn a_reset_after_a_reply_does_not_take_the_reply_with_it() {
    let server = Server::start(&[]);
    let mut stream = server.open_demanding("close=rst&after=1");
    stream.write_all(&text("hi")).unwrap();
    assert_eq!(read_frame(&mut stream).0, 0x81);
    assert_eq!(stream.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
}

// The delay

#[test]
fn the_handshake_is_answered_after_the_delay_whatever_the_handshake_timeout_is() {
    let server = Server::start(&["--handshake-timeout=200ms"]);
    for (query, first) in [("delay=1s", "101"), ("delay=1s&status=404", "404")] {
        let asked = Instant::now();
        let mut stream = server.send(demand(query));
        let head = read_head(&mut stream);
        assert_took(asked, Duration::from_secs(1));
        assert!(head.starts_with(&format!("HTTP/1.1 {first} ")), "{head}");
    }
    let mut stream = server.open_demanding("delay=300ms");
    assert_echoes(&mut stream, "hi");
}

#[test]
fn a_client_that_is_delayed_or_held_by_a_hang_counts_under_the_limits_and_may_leave() {
    let endings: [fn(TcpStream); 3] = [drop, reset, |stream| {
        stream.shutdown(Shutdown::Write).unwrap();
        eventually(SOON, || stream.peek(&mut [0]).is_ok_and(|bytes| bytes == 0));
    }];
    for (query, log) in [
        ("delay=1m", "left before the handshake was answered"),
        ("close=hang", "client 1 ended: peer ended the stream without a close frame"),
    ] {
        for end in endings {
            let server = Server::start(&["--max-connections-per-ip=1"]);
            let mut held = server.send(demand(query));
            if query.starts_with("close") {
                read_head(&mut held);
                // It is never received, and does not hide that the client has left.
                held.write_all(&frame(0x82, &[7; 100_000])).unwrap();
            }
            server.wait_until_asleep();
            assert_is_503(&ask(server.connect()).unwrap_err(), "one address");
            end(held);
            eventually(SOON, || server.client_threads() == 0);
            server.answers_at_once();
            server.wait_for_log(log);
        }
    }
}

#[test]
fn a_status_on_demand_leaves_room_for_the_next_client() {
    let server = Server::start(&["--max-connections-per-ip=1"]);
    for _ in 0..5 {
        assert_status(&upgraded(server.send(demand("status=418"))).unwrap_err(), 418);
    }
    drop(server.open_demanding("rate=0&status=503"));
}

// What the server sends

#[test]
fn replies_are_delayed_and_dripped_by_the_clock() {
    let server = Server::start(&[]);
    let mut stream = server.open_demanding("latency=500ms&drip=500ms&fragment=4&prefix=");
    let asked = Instant::now();
    stream.write_all(&text("12345678")).unwrap();
    assert_eq!(read_frame(&mut stream), (0x01, b"1234".into()));
    assert!(asked.elapsed() >= Duration::from_millis(500 + 200));
    assert_eq!(read_frame(&mut stream), (0x80, b"5678".into()));
    assert_took(asked, Duration::from_secs(1));
}

#[test]
fn a_dump_tells_the_peer_and_keeps_secrets() {
    let server = Server::start(&[]);
    let lines = "Host: localhost\r\nOrigin: http://localhost\r\nX-Forwarded-For: 192.0.2.1\r\n\
                 Cookie: id=secret\r\nSec-WebSocket-Protocol: chat\r\n";
    let upgrade = demand("dump").replace("Host: localhost\r\n", lines);
    let mut stream = upgraded(server.send(upgrade)).unwrap();
    let (first, dump) = read_frame(&mut stream);
    let dump: serde_json::Value = serde_json::from_slice(&dump).unwrap();
    assert_eq!((first, &dump["peer"]), (0x81, &stream.local_addr().unwrap().to_string().into()));
    assert_eq!(dump["request"], "GET /do?dump HTTP/1.1");
    assert_eq!(dump["forwarded"][0][1], "192.0.2.1");
    assert_eq!(dump["headers"][3][1], "9 bytes, not shown");
    assert_eq!(dump["agreed"]["subprotocol"], "4 bytes, not shown");
    assert_echoes(&mut stream, "and then the echo");
}

#[test]
fn switched_off_the_path_is_one_like_any_other() {
    let server = Server::start(&["--behaviors=off"]);
    assert_echoes(&mut server.open_demanding("close=4000&x"), "hi");
    let line = server.wait_for_log("client 1 connected: ");
    assert!(line.ends_with("path \"/do\""), "{line}");
}

// The stop

#[test]
fn a_stop_ends_clients_in_every_behavior() {
    const CLOSING: [&str; 9] = [
        "latency=10s",
        "drip=10s",
        "fragment=1&drip=10s&latency=10s",
        "pong=off",
        "count=1000&interval=60s",
        "bad=rsv&after=10m",
        "close=rst&after=10m",
        "close=hang&after=10m",
        "close=hang",
    ];
    let mut server = Server::start(&["--close-timeout=1m", "--ping-interval=0"]);
    let mut clients: Vec<_> = (0..20)
        .flat_map(|_| CLOSING)
        .map(|query| {
            let mut stream = server.open_demanding(query);
            stream.write_all(&text("hello")).unwrap();
            stream
        })
        .collect();
    let delayed: Vec<_> = (0..20).map(|_| server.send(demand("delay=1m"))).collect();
    eventually(SOON, || server.client_threads() == 200);
    let asked = Instant::now();
    server.signal(Signal::TERM);
    for (number, stream) in clients.iter_mut().enumerate() {
        let query = CLOSING[number % CLOSING.len()];
        let last = iter::repeat_with(|| read_frame(stream)).find(|(first, _)| *first == 0x88);
        assert_eq!(last.unwrap().1[..2], 1001_u16.to_be_bytes(), "{query}");
        stream.write_all(&close(1001)).unwrap();
    }
    for stream in delayed {
        assert_is_503(&upgraded(stream).unwrap_err(), "the server is stopping");
    }
    drop(clients);
    assert_eq!(server.wait(SOON).code(), Some(0));
    assert!(asked.elapsed() < tolerance() + Duration::from_secs(1), "{:?}", asked.elapsed());
    server.wait_for_log("stopped: 200 clients, 0 aborted");
}

#[test]
fn a_hang_that_stands_inside_a_reply_ends_by_a_reset_when_the_server_stops() {
    let mut server = Server::start(&["--close-timeout=1m"]);
    let mut stream = server.open_demanding("close=hang&after=300ms&drip=10s");
    stream.write_all(&text("hello")).unwrap();
    // A piece comes every 400 ms until it hangs.
    stream.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    let error = stream.read_to_end(&mut Vec::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    stream.set_read_timeout(Some(SOON)).unwrap();
    server.signal(Signal::TERM);
    let error = stream.read_to_end(&mut Vec::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    assert_eq!(server.wait(SOON).code(), Some(0));
}

#[test]
fn a_client_that_does_not_end_after_the_fault_is_dropped_at_the_close_timeout() {
    let server = Server::start(&["--close-timeout=1s"]);
    for query in ["close=4000", "close=fin"] {
        let opened = Instant::now();
        let mut stream = server.open_demanding(query);
        if query == "close=4000" {
            assert_eq!(read_close(&mut stream), 4000);
        }
        assert_end(&mut stream);
        eventually(SOON, || server.client_threads() == 0);
        assert_took(opened, Duration::from_secs(1));
    }
    server.wait_for_log("peer did not end the stream within 1s");
}

#[test]
fn a_client_that_does_not_read_is_cut_at_the_write_timeout_in_a_behavior_too() {
    let server = Server::start(&["--write-timeout=1s"]);
    let mut stream = server.open_demanding("latency=1ms");
    let large = frame(0x82, &vec![7; 8 << 20]);
    let _ = stream.write_all(&large);
    server.wait_for_log("ended: peer did not read in time");
    eventually(SOON, || server.client_threads() == 0);
}

#[test]
fn the_memory_of_an_unfinished_message_is_free_at_the_write_timeout_though_replies_drip() {
    const LEN: usize = 1 << 20;
    let server = Server::start(&["--write-timeout=2s", "--max-buffered=1MiB"]);
    let large = frame(0x82, &vec![7; LEN]);
    let sent = Instant::now();
    // The replies take 9 s.
    let mut holder = server.open_demanding("drip=300ms");
    holder.write_all(&[&text("").repeat(30), &large[..LEN / 2]].concat()).unwrap();
    let echoes_large = || {
        let mut other = server.open();
        other.write_all(&large).unwrap();
        match read_frame(&mut other) {
            (0x82, reply) => reply.len() == LEN,
            (first, close) => {
                assert_eq!((first, &close[..2]), (0x88, &1013_u16.to_be_bytes()[..]));
                false
            }
        }
    };
    eventually(SOON, || !echoes_large());
    eventually(SOON, echoes_large);
    assert!(sent.elapsed() >= Duration::from_secs(2));
    holder.set_nonblocking(true).unwrap();
    let mut replies = Vec::new();
    let _ = holder.read_to_end(&mut replies);
    assert!(!replies.ends_with(b"message makes no progress"), "it was held until the close frame");
}
