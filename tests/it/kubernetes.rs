//! The manifests for Kubernetes.

use std::time::Duration;

use clap::Parser as _;
use wsecho::cli::Config;

use crate::support::{data, python_with};

#[test]
fn the_manifests_are_valid_and_give_clients_time_to_close() {
    let Some(mut python) = python_with("kubernetes_validate") else { return };
    let directory = data("../packaging/kubernetes");
    let output = python.arg(data("kubernetes.py")).arg(directory).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let shown: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let args = shown["args"].as_array().unwrap().iter().map(|arg| arg.as_str().unwrap());
    let config = Config::try_parse_from(["wsecho"].into_iter().chain(args)).unwrap();
    let grace = Duration::from_secs(shown["grace"].as_u64().unwrap());
    assert!(grace > config.timeouts.close_timeout);
}
