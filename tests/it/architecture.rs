//! The layers of `src`: each folder or file of its top level names only those below it.

use std::fs;
use std::path::{Path, PathBuf};

/// From the top down. `lib` and `main`, which name everything, are above them.
#[rustfmt::skip]
const LAYERS: [&str; 11] = [
    "server", "logging", "cli", "app", "websocket", "http", "proxy_protocol", "escape", "buffer",
    "placement", "lock",
];

/// The first layer that knows no socket, no thread, no clock and no file.
const SANS_IO: &str = "app";

#[rustfmt::skip]
const IO: [&str; 13] = [
    "std::net", "std::io", "std::thread", "std::fs", "std::env", "std::process", "Instant",
    "SystemTime", "rustix", " nix::", "signal_hook", "use std::{", "use std as",
];

#[test]
fn dependencies_point_down_and_the_protocol_does_no_io() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let depth = |layer: &str| LAYERS.iter().position(|known| *known == layer);
    let mut seen = [false; LAYERS.len()];
    for path in files(&src) {
        let path_in_src = path.strip_prefix(&src).unwrap().with_extension("");
        let layer = path_in_src.iter().next().unwrap().to_str().unwrap();
        let Some(own) = depth(layer) else {
            assert!(["lib", "main"].contains(&layer), "{layer} is no layer");
            continue;
        };
        seen[own] = true;
        let text = fs::read_to_string(&path).unwrap();
        let code = text.split("#[cfg(test)]").next().unwrap().lines();
        for line in code.filter(|line| !line.trim_start().starts_with("//")) {
            for named in line.split("crate::").skip(1) {
                let named = named.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap();
                let is_below = depth(named).is_some_and(|named| named >= own);
                assert!(is_below, "{}: {line}", path.display());
            }
            let is_sans_io = own >= depth(SANS_IO).unwrap();
            let io = IO.iter().find(|io| is_sans_io && line.contains(*io));
            assert!(io.is_none() && !line.contains("super::super"), "{}: {line}", path.display());
        }
    }
    assert_eq!(seen, [true; LAYERS.len()], "{LAYERS:?}");
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let paths = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    paths.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}
