//! The guides print what the tests run.

use std::fs;

use wsecho::app::behavior;

use crate::support::data;

const BEHAVIORS: &str = include_str!("../../../docs/behaviors.md");
const DEPLOYING: &str = include_str!("../../../docs/deploying.md");

#[test]
fn the_guide_prints_each_configuration_as_it_is_tested() {
    let logrotate = fs::read_to_string(data("../packaging/logrotate.conf")).unwrap();
    assert!(DEPLOYING.contains(logrotate.trim()));
    let several = fs::read_to_string(data("proxies/haproxy-several.cfg")).unwrap();
    let (_, backend) = several.split_once("\nbackend ").unwrap();
    assert!(DEPLOYING.contains(backend.trim()));
}

#[test]
fn the_guide_to_behaviors_prints_what_a_plain_request_is_told() {
    let (_, examples) = BEHAVIORS.split_once("```console\n").unwrap();
    let mut lines = examples.split("```").next().unwrap().lines();
    while let (Some(command), Some(answer)) = (lines.next(), lines.next()) {
        let (_, query) = command.trim_end_matches('\'').split_once("/do?").unwrap();
        let told = behavior::parse(query).map_or_else(|error| error, |told| told.to_string());
        assert_eq!(told, answer);
    }
}
