//! The layers of `src`: each folder or file of its top level names only those below it, and no files name
//! each other, be it two or a longer circle.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// From the top down. `lib` and `main`, which name everything, are above them.
#[rustfmt::skip]
const LAYERS: [&str; 12] = [
    "server", "logging", "cli", "app", "websocket", "http", "proxy_protocol", "escape", "quantity",
    "buffer", "placement", "lock",
];

/// The first layer that knows no socket, no thread, no clock and no file, and waits for nothing.
const SANS_IO: &str = "app";

#[rustfmt::skip]
const IO: [&str; 16] = [
    "std::net", "std::io", "std::thread", "std::fs", "std::env", "std::process", "Instant", "SystemTime",
    "Condvar", "mpsc", "park", "rustix", " nix::", "signal_hook", "use std::{", "use std as",
];

#[test]
fn dependencies_point_down_without_circles_and_the_protocol_does_no_io() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let layer = |file: &str| LAYERS.iter().position(|layer| file.split('/').next() == Some(layer));
    let (mut wrong, mut uses) = (Vec::new(), BTreeMap::<String, _>::new());
    for path in files(&src) {
        let file = path.strip_prefix(&src).unwrap().with_extension("").to_str().unwrap().to_owned();
        let Some(own) = layer(&file) else {
            assert!(["lib", "main"].contains(&&*file), "{file} is in no layer");
            continue;
        };
        let text = fs::read_to_string(&path).unwrap();
        let code = text.split("#[cfg(test)]").next().unwrap().lines();
        let mut names = BTreeSet::new();
        for line in code.filter(|line| !line.trim_start().starts_with("//")) {
            let does_io = Some(own) >= layer(SANS_IO) && IO.iter().any(|io| line.contains(io));
            let targets: Vec<_> =
                line.split("crate::").skip(1).map(|path| file_of(&src, path)).collect();
            let is_above =
                targets.iter().any(|target| layer(target).is_none_or(|layer| layer < own));
            if does_io || is_above || line.contains("super::") {
                wrong.push(format!("{file}: {line}"));
            }
            names.extend(targets);
            // A folder's own file names those that it declares.
            let module = line.trim_start_matches("pub ").strip_prefix("mod ");
            if let (Some(folder), Some(module)) = (file.strip_suffix("mod"), module) {
                names.insert(file_of(&src, &(folder.replace('/', "::") + module)));
            }
        }
        names.remove(&file);
        uses.insert(file, names);
    }
    assert_eq!(uses.keys().map(|file| layer(file)).collect::<BTreeSet<_>>().len(), LAYERS.len());
    for (file, names) in &uses {
        let both = names.iter().filter(|other| *other > file && uses[*other].contains(file));
        wrong.extend(both.map(|other| format!("{file} and {other} name each other")));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    // A file that names none of those that are left is in no circle.
    while let Some((end, _)) = uses.iter().find(|(_, names)| names.is_empty()) {
        let end = end.clone();
        uses.remove(&end);
        for names in uses.values_mut() {
            names.remove(&end);
        }
    }
    assert!(uses.is_empty(), "in a circle, or above one: {uses:#?}");
}

/// The file, without its extension, that has what this path from the root names.
fn file_of(src: &Path, path: &str) -> String {
    let path = path.split(|c: char| !c.is_alphanumeric() && !"_:".contains(c)).next().unwrap();
    let names: Vec<_> = path.split("::").filter(|name| !name.is_empty()).collect();
    let files = (1..=names.len()).rev().map(|len| names[..len].join("/"));
    let mut candidates = files.flat_map(|file| [file.clone(), file + "/mod"]);
    candidates.find(|file| src.join(file).with_extension("rs").is_file()).unwrap_or_default()
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let paths = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    paths.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}
