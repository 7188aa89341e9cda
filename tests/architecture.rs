//! The house keeps its shape: who may know whom, and what the pure modules must not touch.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Every module and the ones it names, from the top of the house down: each names only modules that
/// stand below it.
const HOUSE: [(&str, &str); 16] = [
    ("server", "buffer cli clients connection handshake limits notify request"),
    ("notify", ""),
    ("logging", "cli"),
    ("connection", "buffer cli clients echo frame handshake quote request session violation"),
    ("clients", "limits session violation"),
    ("limits", ""),
    ("cli", "request"),
    ("echo", "frame session"),
    ("session", "buffer frame violation"),
    ("frame", "violation"),
    ("violation", ""),
    ("handshake", "page quote request"),
    ("request", ""),
    ("quote", ""),
    ("page", ""),
    ("buffer", ""),
];

/// Bytes in, bytes out: they can be tested and fuzzed without a socket, a thread or a clock.
const PURE: &str = "echo session frame violation handshake request quote page buffer";

#[test]
fn the_table_of_the_house_is_complete() {
    let listed: BTreeSet<String> = HOUSE.map(|(module, _)| module.into()).into();
    let src = fs::read_dir(root().join("src")).unwrap();
    let there: BTreeSet<String> = src
        .map(|entry| entry.unwrap().path())
        .map(|path| path.file_stem().unwrap().to_str().unwrap().into())
        .filter(|module| module != "lib" && module != "main")
        .collect();
    assert_eq!(there, listed);
}

#[test]
fn every_module_names_the_modules_of_the_table_and_no_others() {
    for (module, expected) in HOUSE {
        let code = code(module);
        let named: BTreeSet<&str> = code
            .match_indices("crate::")
            .map(|(at, prefix)| word(&code[at + prefix.len()..]))
            .collect();
        let expected = expected.split_whitespace().collect();
        assert_eq!(named, expected, "src/{module}.rs");
    }
}

#[test]
fn dependencies_point_down_only() {
    for (place, (module, named)) in HOUSE.iter().enumerate() {
        for below in named.split_whitespace() {
            let stands_below = HOUSE[place + 1..].iter().any(|(name, _)| *name == below);
            assert!(stands_below, "{module} names {below}, which is not below it");
        }
    }
}

#[test]
fn pure_modules_name_only_pure_ones() {
    for (module, named) in HOUSE.iter().filter(|(module, _)| is_pure(module)) {
        for below in named.split_whitespace() {
            assert!(is_pure(below), "{module} names {below}");
        }
    }
}

#[test]
fn pure_modules_know_no_socket_no_thread_and_no_clock() {
    for module in PURE.split_whitespace() {
        let code = code(module);
        for forbidden in [
            "std::net",
            "std::io",
            "std::thread",
            "std::time",
            "std::fs",
            "std::env",
            "std::process",
            "rustix",
            // These would hide the names above.
            "std::{",
            "use std as",
            "extern crate",
        ] {
            assert!(!code.contains(forbidden), "src/{module}.rs: {forbidden}");
        }
    }
}

#[test]
fn nothing_is_unsafe_and_no_error_is_wished_away() {
    let modules = HOUSE.map(|(module, _)| module);
    for module in modules.iter().chain(&["lib", "main"]) {
        let code = code(module);
        for forbidden in ["unsafe ", ".unwrap()", ".expect(", "unreachable!", "todo!"] {
            assert!(!code.contains(forbidden), "src/{module}.rs: {forbidden}");
        }
    }
}

/// What a module is compiled from: no comments, and no tests, which stand last.
fn code(module: &str) -> String {
    let path = root().join(format!("src/{module}.rs"));
    let text = fs::read_to_string(&path).unwrap();
    let (code, _) = text.split_once("#[cfg(test)]").unwrap_or((&text, ""));
    code.lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .flat_map(|line| [line, "\n"])
        .collect()
}

fn is_pure(module: &str) -> bool {
    PURE.split_whitespace().any(|pure| pure == module)
}

fn word(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_');
    &text[..end.unwrap_or(text.len())]
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
