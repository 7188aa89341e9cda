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
/// It offers compression, as clients do by default.
fn is_answered(mut interpreter: Command, script: &str) {
    interpreter.arg(data("clients").join(script));
    for mode in ["no-context-takeover", "context-takeover"] {
        let server = Server::start(&["--compression", mode]);
        let mut command = Command::new(interpreter.get_program());
        command.args(interpreter.get_args()).arg(format!("ws://{}/", server.addr));
        let Output { status, stdout, stderr } = command.output().unwrap();
        assert!(status.success() && stdout == b"ok\n", "{}", String::from_utf8_lossy(&stderr));
        let ended = server.wait_for_log(" ended: ");
        assert!(ended.contains("closed by peer, 4000; "), "{ended}");
        assert!(ended.contains(", compressed to "), "{ended}");
    }
}
