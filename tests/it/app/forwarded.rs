//! A connection that a proxy in TCP mode forwards: its PROXY header, and then the client's own bytes.

use wsecho::app::end::Lost;
use wsecho::app::peer::Peer;
use wsecho::app::step::Topic;

use crate::driver::{Driver, Ended, HANDSHAKE_TIMEOUT, Waits, service, upgrade};
use crate::proxy_protocol::{ADDRESSES, LINE, v2, value};

fn client() -> Peer {
    Peer::Tcp("192.0.2.1:1000".parse().unwrap())
}

#[test]
fn the_client_is_the_peer_whatever_the_pieces_of_its_header() {
    let service = service(1000, 0);
    for header in [LINE.to_vec(), v2(0x21, 0x11, &ADDRESSES)] {
        let bytes = [&header, upgrade("/chat", "").as_bytes()].concat();
        for first in 1..bytes.len() {
            for rest in [1, bytes.len()] {
                let mut driver = Driver::forwarded(&service);
                driver.receive(&bytes[..first]);
                assert_eq!(driver.forwarded.is_some(), first >= header.len());
                driver.receive_in_pieces(&bytes[first..], &[rest]);
                assert_eq!(driver.forwarded, Some(client()));
                let (topic, line) = &driver.log[0];
                let expected = "client 1 connected: 192.0.2.1:1000, path \"/chat\"";
                assert_eq!((topic, &**line), (&Topic::Opened, expected));
            }
        }
    }
}

#[test]
fn no_byte_is_received_that_follows_the_header() {
    let service = service(1000, 0);
    let long = [&ADDRESSES[..], &value(0x04, &[0; 20_000])].concat();
    for header in [LINE.to_vec(), b"PROXY UNKNOWN\r\n".to_vec(), v2(0x21, 0x11, &long)] {
        let mut driver = Driver::forwarded(&service);
        let mut received = 0;
        while driver.forwarded.is_none() {
            let room = driver.connection.input().len();
            assert!((1..=header.len() - received).contains(&room), "{room}");
            received += driver.receive(&header[received..received + room]);
        }
        assert_eq!(received, header.len());
    }
}

#[test]
fn the_longest_header_needs_memory_of_the_budget() {
    let padding = u16::MAX as usize - ADDRESSES.len() - 3;
    let header = v2(0x21, 0x11, &[&ADDRESSES[..], &value(0x04, &vec![0; padding])].concat());
    let rich = service(1000, 1 << 20);
    let mut driver = Driver::forwarded(&rich);
    driver.receive(&header);
    assert_eq!(driver.forwarded, Some(client()));
    assert_eq!(rich.budget.left(), 1 << 20);

    let poor = service(1000, 10);
    let mut driver = Driver::forwarded(&poor);
    driver.receive(&header);
    let refused = "unix: refused, there is no memory for the PROXY header: ";
    assert!(driver.log[0].1.starts_with(refused), "{:?}", driver.log);
}

#[test]
fn a_header_has_to_be_whole_in_time_and_the_request_after_it() {
    let service = service(1000, 0);
    for (came, answer) in [
        (&b""[..], ""),
        (&LINE[..1], "HTTP/1.1 400 "),
        (&LINE[..LINE.len() - 1], "HTTP/1.1 400 "),
        (LINE, ""),
        (&[LINE, b"GET"].concat(), "HTTP/1.1 408 "),
    ] {
        let mut driver = Driver::forwarded(&service);
        driver.receive(came);
        driver.wait_before(HANDSHAKE_TIMEOUT);
        assert_eq!((driver.ended, driver.log.len()), (None, 0));
        driver.wait_until(HANDSHAKE_TIMEOUT);
        assert_eq!(driver.ended, Some(Ended::Stream));
        let sent = String::from_utf8(driver.take()).unwrap();
        assert!(sent.starts_with(answer) && sent.is_empty() == answer.is_empty(), "{sent}");
        assert_eq!(driver.log.len(), 1, "{:?}", driver.log);
    }
}

#[test]
fn what_is_no_header_is_refused_at_once_with_one_line() {
    let service = service(1000, 0);
    // What comes; the line in the log; whether a response is sent, which to TLS means nothing.
    for (bytes, line, is_answered) in [
        (&b"GET / HTTP/1.1\r\n"[..], r#"no PROXY header: "GET / HTTP/1.1\r""#, true),
        (b"\x16\x03\x01", r#"no PROXY header: "\u{16}\u{3}\u{1}""#, false),
        (
            b"PROXY TCP4 1 2 3 4\r\n",
            "the PROXY line has an address that is not of its family: \"PROXY",
            true,
        ),
        (
            b"\r\n\r\n\0\r\nQUIT\n\x2F\0\0\0",
            "the PROXY header's command is neither LOCAL nor PROXY: ",
            false,
        ),
    ] {
        let mut driver = Driver::forwarded(&service);
        driver.receive(bytes);
        assert_eq!(driver.ended, Some(Ended::Stream));
        let [(Topic::Request, logged)] = &driver.log[..] else { panic!("{:?}", driver.log) };
        assert!(logged.starts_with(&format!("unix: refused, {line}")), "{logged}");
        let sent = String::from_utf8(driver.take()).unwrap();
        assert_eq!(sent.contains("--proxy-protocol"), is_answered, "{sent}");
        assert_eq!(sent.starts_with("HTTP/1.1 400 "), is_answered, "{sent}");
    }
}

#[test]
fn a_header_may_break_off_or_be_stopped() {
    let service = service(1000, 0);
    // A check of the port alone is no line that everybody needs.
    for (came, topic, line) in [
        (&b""[..], Topic::Detail, "unix: sent no request"),
        (&LINE[..6], Topic::Request, "unix: refused, the PROXY header ends early: \"PROXY \""),
    ] {
        let mut driver = Driver::forwarded(&service);
        driver.receive(came);
        driver.end_stream();
        assert_eq!(driver.log, [(topic, line.into())]);
    }
    // The same check, by a balancer that resets the connection.
    let mut driver = Driver::forwarded(&service);
    driver.lose(Lost::Broken("reset".into()));
    assert_eq!(driver.log, [(Topic::Detail, "unix: sent no request".into())]);
    // It is not known whether TLS or HTTP would have followed.
    let mut driver = Driver::forwarded(&service);
    driver.receive(&LINE[..6]);
    driver.stop();
    assert_eq!((driver.ended, driver.sent.len()), (Some(Ended::Stream), 0));
    let mut driver = Driver::forwarded(&service);
    driver.receive(LINE);
    driver.stop();
    assert!(driver.sent.starts_with(b"HTTP/1.1 503 "));
    assert!(matches!(driver.waits, Waits::ToReceive(Some(_))));
}
