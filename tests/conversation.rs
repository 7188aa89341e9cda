//! The conversation over real sockets, with tungstenite as the client wherever it can say what is
//! to be said.

mod common;

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::thread;
use std::time::Duration;

use rustix::net::sockopt::set_socket_linger;
use tungstenite::client::client_with_config;
use tungstenite::protocol::frame::coding::{Data, OpCode};
use tungstenite::protocol::frame::{CloseFrame, Frame};
use tungstenite::protocol::{WebSocket, WebSocketConfig};
use tungstenite::{Error, Message};

use common::{Server, UPGRADE, close, frame, read_close, read_frame, read_head};

const PREFIX: &str = "You have entered: ";

type Client = WebSocket<TcpStream>;

/// A client that was not written by us, without limits of its own.
fn client(server: &Server) -> Client {
    let config = WebSocketConfig::default().max_message_size(None).max_frame_size(None);
    let url = format!("ws://{}/", server.addr);
    let (client, _) = client_with_config(url, server.connect(), Some(config)).unwrap();
    client
}

/// What comes back for `message`.
#[track_caller]
fn echo(client: &mut Client, message: Message) -> Message {
    client.send(message).unwrap();
    client.read().unwrap()
}

/// Expects that the server has said its last word.
#[track_caller]
fn expect_end(stream: &mut TcpStream) {
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).expect("the server closes");
    assert!(rest.is_empty(), "{rest:02X?}");
}

// Messages

#[test]
fn text_comes_back_behind_the_prefix() {
    let server = Server::start(&[]);
    let mut client = client(&server);
    for text in ["hello", "", "bye", "grün, 日本, 😀, \u{10FFFF}", "\0\r\n\"<b>"] {
        let expected = Message::text(format!("{PREFIX}{text}"));
        assert_eq!(echo(&mut client, Message::text(text)), expected);
    }
}

#[test]
fn binary_comes_back_unchanged() {
    let server = Server::start(&[]);
    let mut client = client(&server);
    for bytes in [&b"hello"[..], b"", b"\xFF\0\xC0", &[0xA5; 1_000]] {
        let message = Message::binary(bytes.to_vec());
        assert_eq!(echo(&mut client, message.clone()), message);
    }
}

#[test]
fn another_prefix_and_none_at_all_can_be_set() {
    for prefix in ["", "> ", "Grüße 😀: "] {
        let server = Server::start(&["--prefix", prefix]);
        let mut client = client(&server);
        let reply = echo(&mut client, Message::text("hello"));
        assert_eq!(reply, Message::text(format!("{prefix}hello")));
        let reply = echo(&mut client, Message::binary("hello"));
        assert_eq!(reply, Message::binary("hello"));
    }
}

#[test]
fn lengths_of_7_16_and_64_bits_come_back_whole() {
    let server = Server::start(&[]);
    let mut client = client(&server);
    let edges = [0, 125, 65_535];
    // The prefix makes the reply take the longer form before the message does.
    let behind_the_prefix = edges.map(|edge: usize| edge.saturating_sub(PREFIX.len()));
    for len in edges.into_iter().chain(behind_the_prefix) {
        for len in [len, len + 1, len + 2] {
            let text: String = ('a'..='z').cycle().take(len).collect();
            let expected = Message::text(format!("{PREFIX}{text}"));
            assert!(
                echo(&mut client, Message::binary(text.clone())) == Message::binary(text.clone())
            );
            assert!(echo(&mut client, Message::text(text)) == expected, "{len} bytes");
        }
    }
}

#[test]
fn a_message_of_16_mib_comes_back_whole_and_a_longer_one_is_refused() {
    const LIMIT: usize = 16 << 20;
    let server = Server::start(&[]);
    let mut client = client(&server);
    let bytes: Vec<u8> = (0..LIMIT).map(|index| (index % 251) as u8).collect();
    let message = Message::binary(bytes.clone());
    assert!(echo(&mut client, message.clone()) == message);
    let text = "x".repeat(LIMIT);
    assert!(
        echo(&mut client, Message::text(text.clone())) == Message::text(format!("{PREFIX}{text}"))
    );

    client.send(Message::binary([&bytes[..], b"!"].concat())).unwrap();
    match client.read().unwrap() {
        Message::Close(Some(CloseFrame { code, reason })) => {
            assert_eq!((u16::from(code), reason.as_str()), (1009, "message is too big"));
        }
        other => panic!("{other:?}"),
    }
    server.answers_a_fresh_client();
}

#[test]
fn fragments_are_answered_as_one_message() {
    let server = Server::start(&[]);
    let mut client = client(&server);
    let fragment = |opcode, payload: &'static str, last| {
        Message::Frame(Frame::message(payload, OpCode::Data(opcode), last))
    };
    for first in [Data::Text, Data::Binary] {
        client.write(fragment(first, "Hel", false)).unwrap();
        client.write(Message::Ping("between".into())).unwrap();
        client.write(fragment(Data::Continue, "", false)).unwrap();
        client.write(fragment(Data::Continue, "lo", true)).unwrap();
        client.flush().unwrap();
        assert_eq!(client.read().unwrap(), Message::Pong("between".into()));
        let expected = match first {
            Data::Text => Message::text(format!("{PREFIX}Hello")),
            _ => Message::binary("Hello"),
        };
        assert_eq!(client.read().unwrap(), expected);
    }
}

#[test]
fn several_frames_in_one_packet_are_answered_each_and_in_order() {
    let server = Server::start(&[]);
    let mut stream = server.open();
    let numbers: Vec<String> = (0..500).map(|number| number.to_string()).collect();
    let of_each = |number: &String| {
        let number = number.as_bytes();
        [frame(0x81, number), frame(0x89, number), frame(0x82, number)].concat()
    };
    let wire: Vec<u8> = numbers.iter().flat_map(of_each).collect();
    stream.write_all(&wire).unwrap();
    for number in &numbers {
        let text = format!("{PREFIX}{number}").into_bytes();
        assert_eq!(read_frame(&mut stream), (0x81, text));
        assert_eq!(read_frame(&mut stream), (0x8A, number.clone().into_bytes()));
        assert_eq!(read_frame(&mut stream), (0x82, number.clone().into_bytes()));
    }
}

#[test]
fn one_frame_may_come_in_many_packets() {
    let server = Server::start(&[]);
    let mut stream = server.open();
    stream.set_nodelay(true).unwrap();
    let payload: Vec<u8> = (0..700_u32).map(|index| index as u8).collect();
    for byte in frame(0x82, &payload) {
        stream.write_all(&[byte]).unwrap();
    }
    assert_eq!(read_frame(&mut stream), (0x82, payload));
}

#[test]
fn replies_come_in_the_order_of_the_messages_whatever_their_size() {
    let server = Server::start(&["--prefix", ""]);
    let mut stream = server.open();
    let sizes = [1, 300_000, 2, 70_000, 0, 4_096, 3, 65_536, 125, 126];
    let payloads: Vec<Vec<u8>> =
        (0..100_usize).map(|number| vec![number as u8; sizes[number % sizes.len()]]).collect();
    let wire: Vec<u8> = payloads.iter().flat_map(|payload| frame(0x82, payload)).collect();

    // Who sends all this before reading would wait for a server that waits for its reader.
    let mut writer = stream.try_clone().unwrap();
    let sending = thread::spawn(move || writer.write_all(&wire).unwrap());
    for payload in payloads {
        assert!(read_frame(&mut stream) == (0x82, payload));
    }
    sending.join().unwrap();
}

// Control frames

#[test]
fn a_ping_is_answered_before_any_later_reply() {
    let server = Server::start(&[]);
    let mut client = client(&server);
    client.write(Message::Ping("one".into())).unwrap();
    client.write(Message::text("hello")).unwrap();
    client.write(Message::Ping(vec![0xA5; 125].into())).unwrap();
    client.write(Message::Pong("unsolicited".into())).unwrap();
    client.write(Message::text("bye")).unwrap();
    client.flush().unwrap();
    for expected in [
        Message::Pong("one".into()),
        Message::text(format!("{PREFIX}hello")),
        Message::Pong(vec![0xA5; 125].into()),
        Message::text(format!("{PREFIX}bye")),
    ] {
        assert_eq!(client.read().unwrap(), expected);
    }
}

#[test]
fn a_close_is_answered_by_its_code() {
    let server = Server::start(&[]);
    for code in [1000, 1001, 1002, 1003, 1007, 1011, 1013, 3000, 3999, 4000, 4999] {
        let mut client = client(&server);
        assert_eq!(echo(&mut client, Message::text("hi")), Message::text(format!("{PREFIX}hi")));
        let reason = "leaving".into();
        client.close(Some(CloseFrame { code: code.into(), reason })).unwrap();
        match client.read().unwrap() {
            Message::Close(Some(answer)) => assert_eq!(u16::from(answer.code), code),
            other => panic!("{code}: {other:?}"),
        }
        assert!(matches!(client.read(), Err(Error::ConnectionClosed)), "{code}");
    }
    let mut client = client(&server);
    client.close(None).unwrap();
    assert_eq!(client.read().unwrap(), Message::Close(None));
}

#[test]
fn the_server_closes_the_connection_once_close_was_answered() {
    let server = Server::start(&[]);
    let mut stream = server.open();
    let late = [frame(0x81, b"in time"), close(1000), frame(0x81, b"late")].concat();
    stream.write_all(&late).unwrap();
    assert_eq!(read_frame(&mut stream), (0x81, format!("{PREFIX}in time").into()));
    assert_eq!(read_close(&mut stream), 1000);
    expect_end(&mut stream);
}

#[test]
fn a_close_that_fails_the_connection_is_not_lost_to_a_reset() {
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
        stream.write_all(&frame(0x81, b"before")).unwrap();
        stream.write_all(&wrong).unwrap();
        // The client has not noticed yet, and goes on.
        stream.write_all(&frame(0x82, &vec![0; 1 << 20])).unwrap();
        assert_eq!(read_frame(&mut stream), (0x81, format!("{PREFIX}before").into()));
        assert_eq!(read_close(&mut stream), code);
        expect_end(&mut stream);
    }
}

#[test]
fn text_that_is_not_utf_8_is_refused_while_its_frame_is_unfinished() {
    let server = Server::start(&[]);
    let mut stream = server.open();
    let mut text = vec![b'x'; 100_000];
    text[10] = 0xFF;
    let wire = frame(0x81, &text);
    stream.write_all(&wire[..14 + 10]).unwrap();
    stream.write_all(&wire[14 + 10..14 + 11]).unwrap();
    assert_eq!(read_close(&mut stream), 1007);
}

// Clients that leave in their own way, and others that are not disturbed

#[test]
fn a_client_that_closes_only_its_sending_side_still_gets_its_replies() {
    const MESSAGES: usize = 100;
    let server = Server::start(&[]);
    for unfinished in [&b""[..], &frame(0x81, b"cut off")[..9]] {
        let mut stream = server.open();
        let wire = [&frame(0x81, b"hello").repeat(MESSAGES), unfinished].concat();
        stream.write_all(&wire).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        for _ in 0..MESSAGES {
            assert_eq!(read_frame(&mut stream), (0x81, format!("{PREFIX}hello").into()));
        }
        expect_end(&mut stream);
    }
}

#[test]
fn a_client_that_is_reset_harms_nobody() {
    let server = Server::start(&[]);
    let mut witness = client(&server);
    for said in [
        UPGRADE.as_bytes()[..40].to_vec(),
        UPGRADE.into(),
        [UPGRADE.as_bytes(), &frame(0x81, b"unfinished")[..8]].concat(),
        [UPGRADE.as_bytes(), &frame(0x82, &[0; 50_000]).repeat(3)].concat(),
        [UPGRADE.as_bytes(), &close(1000)].concat(),
    ] {
        let mut stream = server.connect();
        stream.write_all(&said).unwrap();
        if said.len() >= UPGRADE.len() {
            read_head(&mut stream);
        }
        set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
        drop(stream);
        let expected = Message::text(format!("{PREFIX}still here"));
        assert_eq!(echo(&mut witness, Message::text("still here")), expected);
        server.answers_a_fresh_client();
    }
}

#[test]
fn clients_do_not_wait_for_each_other_nor_get_each_others_replies() {
    let server = Server::start(&[]);
    let mut in_the_middle = server.open();
    let unfinished = frame(0x81, b"unfinished");
    in_the_middle.write_all(&unfinished[..8]).unwrap();

    thread::scope(|scope| {
        for name in 0..8 {
            let server = &server;
            scope.spawn(move || {
                let mut client = client(server);
                for number in 0..100 {
                    let text = format!("{number} of client {name}");
                    let expected = Message::text(format!("{PREFIX}{text}"));
                    assert_eq!(echo(&mut client, Message::text(text)), expected);
                }
            });
        }
    });

    in_the_middle.write_all(&unfinished[8..]).unwrap();
    assert_eq!(read_frame(&mut in_the_middle), (0x81, format!("{PREFIX}unfinished").into()));
}
