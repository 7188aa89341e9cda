//! Clients in other languages, which others wrote, against the real server.

use std::process::{Command, Output};

use crate::support::{Server, data, has_programs, is_missing, python};

#[test]
fn pythons_websockets_is_answered() {
    if let Some(python) = python() {
        is_answered(python, "echo.py");
    }
}

#[test]
fn npms_ws_is_answered() {
    let is_installed = data("clients/node_modules/ws").exists();
    if has_programs(&["node"]) && (is_installed || is_missing("ws (npm ci in tests/clients)")) {
        is_answered(Command::new("node"), "echo.mjs");
    }
}

/// Fails unless `script`, which sends everything that a client can send, gets the right replies.
fn is_answered(mut interpreter: Command, script: &str) {
    let server = Server::start(&[]);
    let url = format!("ws://{}/", server.addr);
    let command = interpreter.arg(data("clients").join(script)).arg(url);
    let Output { status, stdout, stderr } = command.output().unwrap();
    assert!(status.success() && stdout == b"ok\n", "{}", String::from_utf8_lossy(&stderr));
    let ended = server.wait_for_log(" ended: ");
    assert!(ended.contains("closed by peer, 4000; "), "{ended}");
}
