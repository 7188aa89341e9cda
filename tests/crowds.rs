//! Thousands of clients at once: as many as the defaults allow, and more than the kernel carries.

#![cfg(target_os = "linux")]

mod attack;
mod common;

use std::io::Write as _;

use attack::{assert_echoes, assert_is_503, crowd, need_descriptors};
use common::{SOON, Server, eventually, frame, read_frame};

#[test]
fn two_thousand_clients_at_once_are_each_answered_on_the_default_settings() {
    need_descriptors(2_200);
    let server = Server::start(&[]);
    let before = server.at_rest();
    let (mut seated, refused) = crowd(&server, 2_000);
    assert_eq!((seated.len(), refused.len()), (2_000, 0));
    for (client, stream) in seated.iter_mut().enumerate() {
        let text = format!("client {client}");
        stream.write_all(&frame(0x81, text.as_bytes())).unwrap();
    }
    for (client, stream) in seated.iter_mut().enumerate() {
        let reply = format!("You have entered: client {client}").into_bytes();
        assert_eq!(read_frame(stream), (0x81, reply));
    }
    drop(seated);
    server.has_recovered(before);
}

#[test]
#[ignore = "17,000 clients need as many descriptors, and a minute"]
fn seventeen_thousand_clients_do_not_bring_the_process_down() {
    need_descriptors(17_500);
    let mut server = Server::start(&["--max-connections=100000", "--ping-interval=0"]);
    let before = server.at_rest();
    let warning = server.wait_for_log("--max-connections is ");
    let (_, cap) = warning.split_once("--max-connections is ").unwrap();
    let cap: usize = cap.split(' ').next().unwrap().parse().unwrap();
    assert!(cap < 17_000, "this kernel carries them all: {warning}");

    let (mut seated, refused) = crowd(&server, 17_000);
    assert_eq!((seated.len(), refused.len()), (cap, 17_000 - cap));
    for answer in refused {
        assert_is_503(&answer, "no seat left");
    }
    for stream in &mut seated {
        assert_echoes(stream, "still here");
    }
    assert!(server.is_running());
    let warnings = server.log().iter().filter(|line| line.contains(" WARN ")).count();
    assert_eq!(warnings, 1, "{warning}");
    drop(seated);
    eventually(SOON * 3, || server.client_threads() == 0);
    server.has_recovered(before);
}
