//! Conversations over real sockets. The client is tungstenite wherever it can send the input.

use std::io::Write as _;
use std::net::{Shutdown, TcpStream};
use std::thread;
use std::time::Duration;

use rustix::process::Signal;
use tungstenite::client::client_with_config;
use tungstenite::protocol::frame::CloseFrame;
use tungstenite::protocol::{WebSocket, WebSocketConfig};
use tungstenite::{Error, Message};

use crate::frames::{close, frame};
use crate::support::{
    PREFIX, SOON, Server, UPGRADE, assert_echoes, assert_end, demand, read_close, read_frame,
    read_head, reset, upgraded,
};

/// A client that we did not write, without limits of its own.
fn client(server: &Server) -> WebSocket<TcpStream> {
    let config = WebSocketConfig::default().max_message_size(None).max_frame_size(None);
    let url = format!("ws://{}/", server.addr);
    client_with_config(url, server.connect(), Some(config)).unwrap().0
}

#[track_caller]
fn assert_answered(client: &mut WebSocket<TcpStream>, message: Message, reply: &Message) {
    client.send(message).unwrap();
    assert!(client.read().unwrap() == *reply);
}

// Messages

#[test]
fn text_comes_back_after_the_prefix_and_binary_unchanged() {
    for prefix in [PREFIX, "", "Grüße 😀: "] {
        let flags = ["--prefix", prefix];
        let server = Server::start(if prefix == PREFIX { &[] } else { &flags });
        let mut client = client(&server);
        for text in ["hello", "", "grün, 日本, 😀, \u{10FFFF}", "\0\r\n\"<b>"] {
            let reply = Message::text(format!("{prefix}{text}"));
            assert_answered(&mut client, Message::text(text), &reply);
        }
        for bytes in [&b"hello"[..], b"", b"\xFF\0\xC0"] {
            let message = Message::binary(bytes.to_vec());
            assert_answered(&mut client, message.clone(), &message);
        }
    }
}

#[test]
fn a_message_of_any_length_up_to_the_limit_comes_back_whole() {
    const LIMIT: usize = 16 << 20;
    // No ping comes in between, however long a busy machine takes.
    let server = Server::start(&["--ping-interval=0"]);
    let mut client = client(&server);
    for len in [125, 126, 65_535, 65_536, LIMIT] {
        let text: String = ('a'..='z').cycle().take(len).collect();
        let binary = Message::binary(text.clone());
        assert_answered(&mut client, binary.clone(), &binary);
        let reply = Message::text(format!("{PREFIX}{text}"));
        assert_answered(&mut client, Message::text(text), &reply);
    }
    let reason = "message of at least 16777217 bytes is over the limit of 16777216".into();
    let too_big = Message::Close(Some(CloseFrame { code: 1009.into(), reason }));
    assert_answered(&mut client, Message::binary(vec![0; LIMIT + 1]), &too_big);
}

// Closing

#[test]
fn a_close_is_answered_by_its_code() {
    let server = Server::start(&[]);
    for code in [1000, 1011, 3000, 4999] {
        let mut client = client(&server);
        let frame = |reason: &str| CloseFrame { code: code.into(), reason: reason.into() };
        client.close(Some(frame("bye"))).unwrap();
        assert_eq!(client.read().unwrap(), Message::Close(Some(frame(""))));
        assert!(matches!(client.read(), Err(Error::ConnectionClosed)), "{code}");
    }
    let mut client = client(&server);
    client.close(None).unwrap();
    assert_eq!(client.read().unwrap(), Message::Close(None));
}

#[test]
fn a_close_frame_of_the_server_is_not_lost_to_a_reset() {
    let server = Server::start(&[]);
    let a_terabyte = [&[0x82, 0xFF], &(1_u64 << 40).to_be_bytes()[..], b"key!"].concat();
    for (wrong, code) in [
        (b"\x81\x00".to_vec(), 1002),
        (frame(0x83, b""), 1002),
        (close(1005), 1002),
        (frame(0x81, b"\xFF"), 1007),
        (a_terabyte, 1009),
    ] {
        let mut stream = server.open();
        stream.write_all(&[frame(0x81, b"before"), wrong].concat()).unwrap();
        // The client has not noticed yet, and goes on.
        stream.write_all(&frame(0x82, &vec![0; 1 << 20])).unwrap();
        assert_eq!(read_frame(&mut stream), (0x81, format!("{PREFIX}before").into()));
        assert_eq!(read_close(&mut stream), code);
        assert_end(&mut stream);
    }
}

#[test]
fn a_client_that_ends_its_stream_still_gets_its_replies() {
    const MESSAGES: usize = 100;
    let server = Server::start(&[]);
    for unfinished in [&b""[..], &frame(0x81, b"unfinished")[..9]] {
        let mut stream = server.open();
        let sent = [&frame(0x81, b"hello").repeat(MESSAGES), unfinished].concat();
        stream.write_all(&sent).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        for _ in 0..MESSAGES {
            assert_eq!(read_frame(&mut stream), (0x81, format!("{PREFIX}hello").into()));
        }
        assert_end(&mut stream);
    }
}

// The log

#[test]
fn each_frame_of_both_directions_is_logged_in_one_line() {
    let server = Server::start(&["-vv"]);
    let mut stream = server.open_offering("permessage-deflate");
    // "Hello" (RFC 7692 §7.2.3.1).
    stream.write_all(&frame(0xC1, b"\xF2\x48\xCD\xC9\xC9\x07\x00")).unwrap();
    let (first, reply) = read_frame(&mut stream);
    assert_eq!(first, 0xC1);
    let fragments = [frame(0x01, b"a"), frame(0x89, b"now"), frame(0x80, b"b\n")].concat();
    stream.write_all(&[fragments, frame(0x83, b"?")].concat()).unwrap();
    server.wait_for_log("ended: ");
    let frames: Vec<_> = server
        .log()
        .into_iter()
        .filter_map(|line| Some(line.split_once("TRACE] client 1: ")?.1.to_owned()))
        .collect();
    let len = reply.len();
    let expected = [
        "received text, FIN, RSV1, masked by 37fa213d, 7 bytes, header c18737fa213d, message inflated to 5 bytes, ".into(),
        format!("sent text, FIN, RSV1, {len} bytes, header c1{len:02x}, message inflated to 23 bytes, "),
        "received ping, FIN, masked by 37fa213d, 3 bytes, header 898337fa213d, \"now\"".into(),
        "received text, masked by 37fa213d, 1 byte, header 018137fa213d, \"a\"".into(),
        "received continuation, FIN, masked by 37fa213d, 2 bytes, header 808237fa213d, \"b\\n\"".into(),
        "received reserved, FIN, 1 byte, header 8381, \"\", breaks a rule, 1002 \"reserved opcode\"".into(),
        "sent pong, FIN, 3 bytes, header 8a03, \"now\"".into(),
        "sent text, FIN, 21 bytes, header 8115, \"You have entered: ab\\n\"".into(),
        "sent close, FIN, 17 bytes, header 8811, ".to_owned(),
    ];
    assert_eq!(frames.len(), expected.len(), "{frames:#?}");
    for (logged, expected) in frames.iter().zip(expected) {
        assert!(logged.starts_with(&expected), "{logged} instead of {expected}");
    }
}

#[test]
fn a_wrong_frame_that_is_only_counted_is_not_mistaken_for_the_last_one_shown() {
    const SHOWN: usize = 64;
    let server = Server::start(&["-vv"]);
    let mut stream = server.open();
    let fragments = [frame(0x01, b"a"), frame(0x00, b"b").repeat(SHOWN - 1)].concat();
    stream.write_all(&[fragments, frame(0x00, b"\xFF")].concat()).unwrap();
    assert_eq!(read_close(&mut stream), 1007);
    server.wait_for_log("ended: ");
    let log = server.log();
    let received: Vec<_> = log.iter().filter(|line| line.contains("1: received ")).collect();
    assert_eq!(received.len(), SHOWN + 1);
    assert!(received[SHOWN].ends_with("received 1 more frame"), "{}", received[SHOWN]);
    assert!(received.iter().all(|line| !line.contains("breaks a rule")), "{received:#?}");
}

#[test]
fn the_answer_to_the_close_frame_of_the_server_is_logged() {
    for request in [UPGRADE.into(), demand("close=4000&after=1")] {
        let mut server = Server::start(&["-vv"]);
        let mut stream = upgraded(server.send(&request)).unwrap();
        stream.write_all(&frame(0x81, b"hi")).unwrap();
        read_frame(&mut stream);
        if request == UPGRADE {
            server.signal(Signal::TERM);
        }
        let code = read_close(&mut stream);
        stream.write_all(&[frame(0x81, b"late"), close(code)].concat()).unwrap();
        server.wait_for_log("received text, FIN, masked by 37fa213d, 4 bytes");
        server.wait_for_log("received close, FIN, masked by 37fa213d, 2 bytes");
        if request == UPGRADE {
            server.wait(SOON);
        }
    }
}

// Others

#[test]
fn a_client_that_resets_its_connection_disturbs_nobody() {
    let server = Server::start(&[]);
    let mut witness = server.open();
    for sent in [
        UPGRADE.as_bytes()[..40].to_vec(),
        UPGRADE.into(),
        [UPGRADE.as_bytes(), &frame(0x81, b"unfinished")[..8]].concat(),
        [UPGRADE.as_bytes(), &frame(0x82, &vec![0; 50_000]).repeat(3)].concat(),
        [UPGRADE.as_bytes(), &close(1000)].concat(),
    ] {
        let mut stream = server.send(&sent);
        if sent.len() >= UPGRADE.len() {
            read_head(&mut stream);
        }
        reset(stream);
        assert_echoes(&mut witness, "still here");
        server.answers_at_once();
    }
}

#[test]
fn a_lost_connection_is_logged_with_the_time_that_it_was_open() {
    const TIME: Duration = Duration::from_millis(300);
    let server = Server::start(&[]);
    let stream = server.open();
    thread::sleep(TIME);
    reset(stream);
    let line = server.wait_for_log("ended: connection lost");
    let seconds: f64 = line.rsplit(' ').nth(1).unwrap().parse().unwrap();
    assert!(seconds >= TIME.as_secs_f64(), "{line}");
}

#[test]
fn clients_neither_wait_for_each_other_nor_get_each_others_replies() {
    let server = Server::start(&[]);
    let mut unfinished = server.open();
    let message = frame(0x81, b"unfinished");
    unfinished.write_all(&message[..8]).unwrap();
    thread::scope(|scope| {
        for name in 0..8 {
            let server = &server;
            scope.spawn(move || {
                let mut client = server.open();
                (0..100).for_each(|number| assert_echoes(&mut client, &format!("{number} {name}")));
            });
        }
    });
    unfinished.write_all(&message[8..]).unwrap();
    assert_eq!(read_frame(&mut unfinished), (0x81, format!("{PREFIX}unfinished").into()));
}
