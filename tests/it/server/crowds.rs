//! Thousands of clients at once: as many as the defaults allow, and more than the kernel carries.

use std::io::Write as _;

use wsecho::server::limits::Limits;
use wsecho::server::registry::LIMIT_REACHED;
use wsecho::websocket::negotiation::Mode;

use crate::frames::frame;
use crate::support::{
    PREFIX, SOON, Server, assert_is_503, crowd, eventually, need_descriptors, read_frame,
};

#[test]
fn two_thousand_clients_at_once_are_each_answered_on_the_default_settings() {
    need_descriptors(2_200);
    let server = Server::start(&[]);
    let before = server.idle_usage();
    let (mut open, refused) = crowd(&server, 2_000);
    assert_eq!((open.len(), refused.len()), (2_000, 0));
    for (number, stream) in open.iter_mut().enumerate() {
        stream.write_all(&frame(0x81, format!("client {number}").as_bytes())).unwrap();
    }
    for (number, stream) in open.iter_mut().enumerate() {
        let reply = format!("{PREFIX}client {number}").into_bytes();
        assert_eq!(read_frame(stream), (0x81, reply));
    }
    drop(open);
    eventually(SOON, || server.client_threads() == 0);
    server.has_recovered(before);
}

#[test]
#[ignore = "17,000 clients need as many descriptors, and a minute"]
fn more_clients_than_the_kernel_carries_do_not_abort_the_process() {
    const CLIENTS: usize = 17_000;
    need_descriptors(CLIENTS as u64 + 500);
    let limit = Limits::raise().clients(100_000, Mode::NoContextTakeover);
    assert!(limit < CLIENTS, "this kernel carries them all");
    let mut server = Server::start(&["--max-connections=100000", "--ping-interval=0"]);
    server.wait_for_log(&format!("--max-connections is {limit} instead of 100000"));
    let before = server.idle_usage();
    let (mut open, refused) = crowd(&server, CLIENTS);
    assert_eq!((open.len(), refused.len()), (limit, CLIENTS - limit));
    for response in refused {
        assert_is_503(&response, LIMIT_REACHED);
    }
    // An unfinished message takes the most memory maps that a client can have.
    for stream in &mut open {
        stream.write_all(&frame(0x01, b"still ")).unwrap();
    }
    server.wait_until_asleep();
    for stream in &mut open {
        stream.write_all(&frame(0x80, b"here")).unwrap();
        assert_eq!(read_frame(stream), (0x81, format!("{PREFIX}still here").into()));
    }
    assert!(server.program.is_running());
    let warnings = server.log().iter().filter(|line| line.contains(" WARN ")).count();
    assert_eq!(warnings, 1, "only that of the limit");
    drop(open);
    eventually(SOON, || server.client_threads() == 0);
    server.has_recovered(before);
}
