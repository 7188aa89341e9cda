//! The tables of docs/proxies.md: what each proxy does to a WebSocket, measured by
//! tests/proxies/measure.py.

use std::process::Command;
use std::thread;

use super::start::{Proxy, RECIPES, Recipe, ssh_tunnel};
use crate::support::{Server, data, from_env, python_with};

/// Measures a proxy: the cells of its row by their columns.
pub fn measure(
    mut python: Command,
    proxy: &Proxy,
    arguments: &[&str],
) -> serde_json::Map<String, serde_json::Value> {
    let output = python
        .arg(data("proxies/measure.py"))
        .arg(proxy.url())
        .arg("--ca")
        .arg(proxy.certificate())
        .args(arguments)
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    assert!(output.status.success(), "{}", text(output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn probe() {
    let idle = from_env("PROXY_IDLE_SECONDS").map(|seconds| seconds.to_string());
    let mut arguments = vec![];
    if let Some(seconds) = &idle {
        arguments.extend(["--idle", seconds]);
    }
    thread::scope(|scope| {
        let only = std::env::var("PROXY").unwrap_or_default();
        for recipe in RECIPES.iter().filter(|recipe| recipe.name.contains(&only)) {
            let arguments = &arguments;
            scope.spawn(move || {
                let Some(python) = python_with("h2") else { return };
                let server = Server::start(&[FLAGS, recipe.flags].concat());
                let config = recipe
                    .config()
                    .replace("proxy_protocol on;", "")
                    .replace("send-proxy-v2 proxy-v2-options ssl,authority ", "")
                    .replace("protocol = proxy", "");
                let Some(proxy) = recipe.start_with(&config, &[&server]) else { return };
                let row = measure(python, &proxy, arguments);
                println!("{} {}", recipe.name, recipe.version());
                for (k, v) in row {
                    println!("    {k}: {v}");
                }
            });
        }
        if "ssh".contains(&only) {
            scope.spawn(|| {
                let Some(python) = python_with("h2") else { return };
                let server = Server::start(FLAGS);
                let Some(proxy) = ssh_tunnel(&server) else { return };
                let row = measure(python, &proxy, &arguments);
                println!("ssh");
                for (k, v) in row {
                    println!("    {k}: {v}");
                }
            });
        }
    });
}

const FLAGS: &[&str] = &["--origin", "https://page.example", "--ping-interval", "0"];
