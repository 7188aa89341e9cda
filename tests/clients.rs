//! Clients in other languages, which others wrote, against the real server.

mod common;

use std::path::Path;
use std::process::{Command, Output};

use common::{Server, has_program, is_missing, python};

#[test]
fn pythons_websockets_is_answered() {
    if let Some(python) = python() {
        is_answered(python, "echo.py");
    }
}

#[test]
fn npms_ws_is_answered() {
    let ws = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/node_modules/ws");
    if has_program("node") && (ws.exists() || is_missing("ws for Node, `npm ci` in tests/clients,"))
    {
        is_answered(Command::new("node"), "echo.mjs");
    }
}

/// Fails unless `script`, which says everything that a client can say, is content.
fn is_answered(mut interpreter: Command, script: &str) {
    let server = Server::start(&[]);
    let Output { status, stdout, stderr } = interpreter
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(script))
        .arg(format!("ws://{}/", server.addr))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&stderr);
    assert!(status.success() && stdout == b"ok\n", "{said}");
    let ended = server.wait_for_log(" ended: ");
    assert!(ended.contains("closed by peer, 4000; "), "{ended}");
}
