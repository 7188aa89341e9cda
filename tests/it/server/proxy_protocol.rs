//! Clients behind a proxy in TCP mode: the PROXY header before their request or their TLS.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::frames::close;
use crate::proxy_protocol::{ADDRESSES, LINE, v2, value};
use crate::support::{
    HEALTH_CHECK, SOON, Server, TempDir, UPGRADE, ask, assert_echoes, assert_end, assert_is_503,
    assert_status, assert_took, demand, eventually, is_ended_within, read_all, read_close,
    read_frame, read_head, tolerance, upgraded, wsecho,
};

fn start(flags: &[&str]) -> Server {
    Server::start(&[&["--proxy-protocol"], flags].concat())
}

#[test]
fn the_source_is_the_peer_in_the_log_and_the_dump() {
    let server = start(&[]);
    let padding = |len: usize| [&ADDRESSES[..], &value(0x04, &vec![0; len - 16 - 12 - 3])].concat();
    let tcp6 = b"PROXY TCP6 2001:db8::1 ::2 1000 443\r\n";
    let mapped = b"PROXY TCP6 ::ffff:192.0.2.9 ::2 1000 443\r\n";
    for (header, peer) in [
        (LINE.to_vec(), "192.0.2.1:1000"),
        (tcp6.to_vec(), "[2001:db8::1]:1000"),
        (mapped.to_vec(), "192.0.2.9:1000"),
        (v2(0x21, 0x11, &ADDRESSES), "192.0.2.1:1000"),
        (v2(0x21, 0x11, &padding(536)), "192.0.2.1:1000"),
        (v2(0x21, 0x11, &padding(16 + 65_535)), "192.0.2.1:1000"),
    ] {
        let mut stream = upgraded(server.send([header, demand("dump").into()].concat())).unwrap();
        let (_, dump) = read_frame(&mut stream);
        let dump: serde_json::Value = serde_json::from_slice(&dump).unwrap();
        assert_eq!(
            (&dump["peer"], &dump["proxy_protocol"]),
            (&peer.into(), &serde_json::json!({}))
        );
        server.wait_for_log(&format!(" connected: {peer}, path \"/do\""));
        assert_echoes(&mut stream, "hi");
    }
    let tls = [&[1, 0, 0, 0, 0][..], &value(0x21, b"TLSv1.3"), &value(0x22, b"secret")].concat();
    let values = [
        value(0x01, b"http/1.1"),
        value(0x02, b"echo.example"),
        value(0x05, b"7"),
        value(0x20, &tls),
    ];
    let header = v2(0x21, 0x11, &[&ADDRESSES[..], &values.concat()].concat());
    let mut stream = upgraded(server.send([header, demand("dump").into()].concat())).unwrap();
    let dump: serde_json::Value = serde_json::from_slice(&read_frame(&mut stream).1).unwrap();
    let expected = serde_json::json!({
        "alpn": "http/1.1",
        "authority": "echo.example",
        "unique_id": "7",
        "ssl_version": "TLSv1.3",
        "ssl_cn": "6 bytes, not shown",
    });
    assert_eq!(dump["proxy_protocol"], expected);
}

#[test]
fn without_a_source_the_peer_is_the_real_one() {
    let server = start(&["-v"]);
    for header in [
        b"PROXY UNKNOWN\r\n".to_vec(),
        v2(0x20, 0x00, b""),
        v2(0x20, 0x11, &ADDRESSES),
        v2(0x21, 0x31, &[b'x'; 216]),
    ] {
        // A proxy's own health check is one.
        let stream = server.send([&header, HEALTH_CHECK.as_bytes()].concat());
        let peer = stream.local_addr().unwrap();
        assert_status(&read_all(stream), 200);
        server.wait_for_log(&format!("{peer}, path \"/healthz\": 200 OK"));
    }
}

#[test]
fn a_header_has_to_come_within_the_handshake_timeout() {
    const TIMEOUT: Duration = Duration::from_millis(1500);
    let server = start(&["--handshake-timeout=1500ms"]);
    let mut stream = server.connect();
    let started = Instant::now();
    let mut writer = stream.try_clone().unwrap();
    let trickle = thread::spawn(move || {
        for byte in LINE {
            if writer.write_all(&[*byte]).is_err() {
                return;
            }
            thread::sleep(TIMEOUT / 10);
        }
    });
    assert!(read_head(&mut stream).starts_with("HTTP/1.1 400 "));
    assert_took(started, TIMEOUT);
    server.wait_for_log(" refused, the PROXY header was not complete in time: \"P");
    drop(stream);
    trickle.join().unwrap();

    // The request has no time of its own.
    let started = Instant::now();
    assert_end(&mut server.send(LINE));
    assert_took(started, TIMEOUT);
}

#[test]
fn refusals_beyond_a_hundred_a_second_are_logged_at_debug() {
    let server = start(&["-v"]);
    let lines = |level: &str| {
        let is_one = |line: &&String| line.contains(level) && line.contains(": refused, no PROXY");
        server.log().iter().filter(is_one).count()
    };
    let mut refused = 0;
    // A busy machine may take longer than a second for a hundred.
    eventually(SOON, || {
        let mut streams: Vec<_> = (0..150).map(|_| server.connect()).collect();
        refused += streams.len();
        for stream in &mut streams {
            stream.write_all(b"x").unwrap();
        }
        for stream in &mut streams {
            let _ = stream.read(&mut [0]);
        }
        lines("DEBUG") > 0
    });
    eventually(SOON, || lines("INFO") + lines("DEBUG") == refused);
    assert!(lines("INFO") >= 100, "{:#?}", server.log());
}

#[test]
fn without_the_flag_a_header_is_refused_and_the_flag_named() {
    let server = Server::start(&[]);
    for header in [LINE, &v2(0x21, 0x11, &ADDRESSES)] {
        let response = read_all(server.send([header, UPGRADE.as_bytes()].concat()));
        assert_status(&response, 400);
        assert!(response.contains("--proxy-protocol"), "{response}");
    }
}

#[test]
fn from_others_no_header_is_expected_and_none_believed() {
    let flags = ["--proxy-protocol-from=192.0.2.0/24", "--proxy-protocol-from=unix"];
    let dir = TempDir::new();
    let path = dir.path("socket");
    let unix = format!("--addr=unix:{}", path.display());
    let server = Server::start_command(
        wsecho(&["--addr=127.0.0.1:0", "--proxy-protocol", &unix]).args(flags),
    );
    assert_echoes(&mut server.open(), "hi");
    server.wait_for_log(" connected: 127.0.0.1:");
    let response = read_all(server.send([LINE, UPGRADE.as_bytes()].concat()));
    assert_status(&response, 400);

    let mut stream = UnixStream::connect(&path).unwrap();
    stream.write_all(&[LINE, UPGRADE.as_bytes()].concat()).unwrap();
    assert!(read_head(&mut stream).starts_with("HTTP/1.1 101 "));
    server.wait_for_log(" connected: 192.0.2.1:1000, ");
    let mut stream = UnixStream::connect(&path).unwrap();
    stream.write_all(UPGRADE.as_bytes()).unwrap();
    assert!(read_head(&mut stream).starts_with("HTTP/1.1 400 "));
    server.wait_for_log("unix: refused, no PROXY header");

    let loopback = start(&["--proxy-protocol-from=127.0.0.0/8"]);
    assert_echoes(&mut upgraded(loopback.send([LINE, UPGRADE.as_bytes()].concat())).unwrap(), "hi");
    assert_status(&ask(loopback.connect()).unwrap_err(), 400);
}

#[test]
fn the_limit_for_an_address_counts_clients_and_not_their_proxy() {
    let server = start(&["--max-connections-per-ip=1"]);
    let client = |address: &str| {
        let line = format!("PROXY TCP4 {address} 192.0.2.2 1000 443\r\n");
        upgraded(server.send(line + UPGRADE))
    };
    let _first = client("192.0.2.1").unwrap();
    let second = client("192.0.2.7").unwrap();
    assert_is_503(&client("192.0.2.7").unwrap_err(), "from one address");
    drop(second);
    eventually(SOON, || client("192.0.2.7").is_ok());
}

#[test]
fn a_stop_ends_a_connection_whose_header_is_not_whole() {
    let mut server = start(&["--handshake-timeout=1m", "--close-timeout=1m"]);
    let mut silent = server.connect();
    let mut partial = server.send(&LINE[..10]);
    let mut open = upgraded(server.send([LINE, UPGRADE.as_bytes()].concat())).unwrap();
    server.signal(Signal::TERM);
    assert_eq!(read_close(&mut open), 1001);
    open.write_all(&close(1001)).unwrap();
    assert_end(&mut open);
    for stream in [&mut silent, &mut partial] {
        assert!(is_ended_within(SOON, stream));
    }
    drop((open, silent, partial));
    assert!(server.wait(tolerance()).success());
}

#[cfg(feature = "tls")]
mod over_tls {
    use rustls::version::TLS13;

    use super::super::tls;
    use super::*;
    use crate::support::data;

    #[test]
    fn a_header_comes_before_tls() {
        let server = tls::start("ec", &["--proxy-protocol"]);
        for header in [LINE, &v2(0x21, 0x11, &ADDRESSES)] {
            let config = tls::config(&data("tls/ec.crt"), &[&TLS13]);
            let mut client = tls::over(server.send(header), config);
            client.write_all(UPGRADE.as_bytes()).unwrap();
            assert!(read_head(&mut client).starts_with("HTTP/1.1 101 "));
            tls::assert_echoes(&mut client, b"hi");
        }
        server.wait_for_log(" connected: 192.0.2.1:1000, ");
        // It is not encrypted itself.
        let response = read_all(server.send(UPGRADE));
        assert_status(&response, 400);
    }

    #[test]
    fn without_the_flag_a_header_before_tls_is_refused_and_the_flag_named() {
        let server = tls::start("ec", &[]);
        for header in [LINE, &v2(0x21, 0x11, &ADDRESSES)] {
            let response = read_all(server.send([header, b"\r\n\r\n"].concat()));
            assert_status(&response, 400);
            assert!(response.contains("--proxy-protocol"), "{response}");
        }
    }
}
