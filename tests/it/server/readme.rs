//! What the README and the guides print is what the tests run.

use std::fs;

use clap::CommandFactory as _;
use wsecho::cli::Config;

use crate::support::data;

const README: &str = include_str!("../../../README.md");
const DEPLOYING: &str = include_str!("../../../docs/deploying.md");

#[test]
fn the_guide_prints_each_configuration_as_it_is_tested() {
    let files = ["../packaging/logrotate.conf", "proxies/nginx.conf", "proxies/haproxy.cfg"];
    for file in files {
        assert!(DEPLOYING.contains(fs::read_to_string(data(file)).unwrap().trim()), "{file}");
    }
    let several = fs::read_to_string(data("proxies/haproxy-several.cfg")).unwrap();
    let (_, backend) = several.split_once("\nbackend ").unwrap();
    assert!(DEPLOYING.contains(backend.trim()));
}

#[test]
fn the_readme_lists_each_flag_with_its_default() {
    for flag in Config::command().get_arguments() {
        let Some(long) = flag.get_long().filter(|long| !["help", "version"].contains(long)) else {
            continue;
        };
        let named = match flag.get_short() {
            Some(short) => format!("`-{short}`"),
            None => format!("`--{long} "),
        };
        let row = README
            .lines()
            .find(|line| line.starts_with('|') && line.contains(&named))
            .unwrap_or_else(|| panic!("--{long} is not in the table"));
        for default in flag.get_default_values().iter().filter(|_| flag.get_short().is_none()) {
            assert!(row.contains(&format!("`{}`", default.display())), "{row}");
        }
    }
}
