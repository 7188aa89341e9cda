//! The tables of docs/proxies.md: what each proxy does to a WebSocket, measured by
//! tests/proxies/measure.py.

use std::fmt::Write as _;
use std::process::Command;
use std::thread;

use super::start::{Proxy, RECIPES, ssh_tunnel};
use crate::support::{Server, data, from_env, python_with};

const DOC: &str = include_str!("../../../../docs/proxies.md");

/// What the columns of the tables measure, in their order. The first table is of messages and of ends,
/// the second of requests.
const TABLES: [&[&str]; 2] = [
    &["ping", "compression", "close", "close while sending", "fin", "rst", "drip"],
    &["503, 401", "302", "headers", "delay", "subprotocol", "Host, Origin", "added", "HTTP/2"],
];

/// What `measure.py` finds, by column.
pub type Cells = serde_json::Map<String, serde_json::Value>;

/// Measures a proxy.
pub fn measure(mut python: Command, proxy: &Proxy, arguments: &[&str]) -> Cells {
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

/// Starts a wsecho that can be measured.
pub fn start_server(flags: &[&str]) -> Server {
    // Pings would keep an idle connection open.
    let measurable = ["--origin", "https://page.example", "--ping-interval", "0"];
    Server::start(&[&measurable, flags].concat())
}

/// All at once, since they mostly wait: the name of each proxy with its cells. Those that are not
/// installed are left out.
fn measure_all(arguments: &[&str]) -> Vec<(&'static str, String, Cells)> {
    let measured = |name, version, server: Server, proxy: Option<Proxy>| {
        let row = measure(python_with("h2")?, &proxy?, arguments);
        drop(server);
        Some((name, version, row))
    };
    thread::scope(|scope| {
        let threads: Vec<_> = RECIPES
            .iter()
            .map(|recipe| {
                let start = move || {
                    let server = start_server(recipe.flags);
                    let proxy = recipe.start(&[&server])?;
                    measured(recipe.name, recipe.version(), server, Some(proxy))
                };
                thread::Builder::new().name(recipe.name.into()).spawn_scoped(scope, start).unwrap()
            })
            .collect();
        let server = start_server(&[]);
        let proxy = ssh_tunnel(&server);
        let tunnel = measured("ssh -L", ssh_version(), server, proxy);
        let rows = threads.into_iter().map(|thread| thread.join().expect("it is measured"));
        rows.chain([tunnel]).flatten().collect()
    })
}

fn ssh_version() -> String {
    let output = Command::new("ssh").arg("-V").output().map(|output| output.stderr);
    let text = String::from_utf8(output.unwrap_or_default()).unwrap();
    text.trim_start_matches("OpenSSH_").split('p').next().unwrap_or_default().into()
}

/// A row of a table.
fn row(name: &str, cells: &Cells, columns: &[&str]) -> String {
    columns.iter().fold(format!("| {name} |"), |mut row, column| {
        let _ = write!(row, " {} |", cells[*column].as_str().unwrap());
        row
    })
}

/// The row of a proxy in the tables of the guide, without its version.
fn printed(name: &str, table: usize) -> String {
    let mut rows = DOC.lines().filter(|line| line.starts_with(&format!("| {name} ")));
    let row = rows.nth(table).unwrap_or_else(|| panic!("{name} is not in table {table}"));
    let (_, cells) = row[2..].split_once(" | ").unwrap();
    format!("| {name} | {cells}")
}

#[test]
fn the_guide_prints_each_configuration_that_is_tested() {
    for recipe in RECIPES {
        assert!(DOC.contains(recipe.config().trim()), "{}", recipe.config);
    }
}

#[test]
fn the_tables_of_the_guide_are_what_is_measured() {
    let mut wrong = String::new();
    for (name, _, cells) in measure_all(&[]) {
        for (table, columns) in TABLES.iter().enumerate() {
            let (measured, printed) = (row(name, &cells, columns), printed(name, table));
            // Behind what is measured here, the first table has what takes too long.
            if !printed.starts_with(&measured) {
                let _ = write!(wrong, "\nmeasured {measured}\nprinted  {printed}\n");
            }
        }
    }
    assert!(wrong.is_empty(), "docs/proxies.md differs:\n{wrong}");
}

/// Prints the tables for the guide, with the versions and with the time after which an idle connection
/// is ended, for which it waits up to `IDLE_SECONDS`.
#[test]
#[ignore = "takes as long as a proxy waits for an idle client"]
fn print_the_tables() {
    let idle = from_env("IDLE_SECONDS").unwrap_or(1000).to_string();
    let rows = measure_all(&["--idle", &idle]);
    for columns in [[TABLES[0], &["idle"]].concat(), TABLES[1].to_vec()] {
        println!("\n| | {} |\n|---|{}", columns.join(" | "), "---|".repeat(columns.len()));
        for (name, version, cells) in &rows {
            println!("{}", row(&format!("{name} {version}"), cells, &columns));
        }
    }
}
