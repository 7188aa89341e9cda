//! Other people's clients, in other languages, against the real server.

use std::env;
use std::fs::{self, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::process::{Command, Output, Stdio};
use std::thread;

use crate::support::{
    Server, TempDir, data, has_npm_package, has_programs, python, python_with, wait_for_line,
    wsecho_path,
};

const TESTING: &str = include_str!("../../../docs/testing-clients.md");
const BEHAVIORS: &str = include_str!("../../../docs/behaviors.md");
const WIRE: &str = include_str!("../../../docs/wire.md");

#[test]
fn pythons_websockets_is_answered() {
    if let Some(python) = python() {
        is_answered_compressed(&python, &["echo.py"]);
    }
}

#[test]
fn aiohttp_is_answered() {
    if let Some(python) = python_with("aiohttp") {
        is_answered_compressed(&python, &["aiohttp_echo.py"]);
    }
}

#[test]
fn npms_ws_is_answered() {
    if has_npm_package("ws") {
        is_answered_compressed(&Command::new("node"), &["echo.mjs", "ws"]);
    }
}

/// It agrees on compression but compresses nothing, so the server does not either.
#[test]
fn undici_is_answered() {
    if has_npm_package("undici") {
        let ended = is_answered(&Command::new("node"), &["echo.mjs", "undici"]);
        assert!(!ended.contains("compressed"), "{ended}");
    }
}

#[test]
fn pythons_websockets_reports_each_behavior_as_the_guide_says() {
    if let Some(python) = python() {
        reports_each_behavior(python, "behaviors.py", |row| row[2]);
    }
}

#[test]
fn npms_ws_reports_each_behavior_as_the_guide_says() {
    if has_npm_package("ws") {
        reports_each_behavior(Command::new("node"), "behaviors.mjs", |row| row[3]);
    }
}

/// Fails unless `script` sees what its column of the guide says of each behavior, and not before its
/// time.
fn reports_each_behavior(
    mut interpreter: Command,
    script: &str,
    column: fn(&[&'static str]) -> &'static str,
) {
    let rows: Vec<Vec<_>> = BEHAVIORS
        .lines()
        .filter(|line| line.starts_with("| `/do?"))
        .map(|line| line.split('|').skip(1).map(|cell| cell.trim().trim_matches('`')).collect())
        .collect();
    assert!(rows.len() > 25, "the table is found");
    let queries: String =
        rows.iter().map(|row| row[0].trim_start_matches("/do?").to_owned() + "\n").collect();
    let server = Server::start(&[]);
    let url = format!("ws://{}/do", server.addr);
    let command = interpreter.arg(data("clients").join(script)).arg(url);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    thread::spawn(move || stdin.write_all(queries.as_bytes()));
    let Output { stdout, stderr, .. } = child.wait_with_output().unwrap();
    let reported = String::from_utf8(stdout).unwrap();
    let reported: Vec<_> = reported.lines().filter_map(|line| line.split_once('\t')).collect();
    assert_eq!(reported.len(), rows.len(), "{}", String::from_utf8_lossy(&stderr));
    for (row, (took, seen)) in rows.iter().zip(reported) {
        assert_eq!(seen, column(row), "{}", row[0]);
        let earliest: f64 = row[1].trim_end_matches(" s").parse().unwrap();
        assert!(took.parse::<f64>().unwrap() >= earliest, "{} took {took} s", row[0]);
    }
    for (query, verdict) in
        [("bad=mask&after=1", "1002"), ("bad=utf8&after=1", "1007"), ("bad=length", "1009")]
    {
        let connected = server.wait_for_log(&format!("behavior \"{query}\""));
        let (client, _) = connected.split_once(" connected").unwrap();
        let (_, client) = client.split_once("client ").unwrap();
        let ended = server.wait_for_log(&format!("client {client} ended: "));
        assert!(ended.contains(&format!("closed by peer, {verdict}")), "{ended}");
    }
}

/// Fails unless `script` is answered, and its messages are compressed.
fn is_answered_compressed(interpreter: &Command, script: &[&str]) {
    let ended = is_answered(interpreter, script);
    assert!(ended.lines().all(|line| line.contains(", compressed to ")), "{ended}");
}

/// Fails unless `script`, which agrees on compression and sends everything that a client can send, gets
/// the right replies in both modes. Returns the log's last line of each.
fn is_answered(interpreter: &Command, script: &[&str]) -> String {
    let mut all = String::new();
    for mode in ["no-context-takeover", "context-takeover"] {
        let server = Server::start(&["--compression", mode]);
        let mut command = Command::new(interpreter.get_program());
        command.current_dir(data("clients")).args(script).arg(format!("ws://{}/", server.addr));
        let Output { status, stdout, stderr } = command.output().unwrap();
        assert!(status.success() && stdout == b"ok\n", "{}", String::from_utf8_lossy(&stderr));
        let ended = server.wait_for_log(" ended: ");
        assert!(ended.contains("closed by peer, 4000"), "{ended}");
        all += ended.trim_end();
        all += "\n";
    }
    all
}

/// The start of the guide, and the recipes.
fn guide() -> (&'static str, &'static str) {
    TESTING.split_once("\n# Ten recipes\n").unwrap()
}

#[test]
fn the_recipes_for_testing_clients_run_as_they_are_printed() {
    let Some(mut python) = python() else { return };
    let dir = TempDir::new();
    let recipes: String = code_blocks(guide().1, "```python\n").collect();
    assert_eq!(recipes.matches("async def test_").count(), 10);
    fs::write(dir.path("recipes.py"), recipes).unwrap();
    let output = run(python.arg("recipes.py").env("PYTHONPATH", data("../packaging/python")), &dir);
    assert_eq!(output.stdout, b"ok\n", "{output:?}");
}

#[test]
fn the_pytest_fixture_serves_the_tests_as_they_are_printed() {
    let (Some(mut python), Some(_)) = (python_with("pytest"), python()) else { return };
    let dir = TempDir::new();
    let tests: String = code_blocks(guide().0, "```python\n").collect();
    fs::write(dir.path("test_guide.py"), &tests).unwrap();
    python.args(["-m", "pytest", "-q", "-p", "wsecho.pytest_plugin", "test_guide.py"]);
    let output = run(python.env("PYTHONPATH", data("../packaging/python")), &dir);
    let passed = format!("{} passed", tests.matches("\ndef test_").count());
    assert!(String::from_utf8_lossy(&output.stdout).contains(&passed), "{output:?}");
}

#[test]
fn the_node_package_serves_the_tests_as_they_are_printed() {
    if !has_npm_package("ws") {
        return;
    }
    let dir = TempDir::new();
    let tests: String = code_blocks(guide().0, "```js\n").collect();
    fs::write(dir.path("guide.test.mjs"), tests).unwrap();
    // As npm installs them.
    for package in ["wsecho", "wsecho-linux-x64/bin"] {
        fs::create_dir_all(dir.path("node_modules").join(package)).unwrap();
    }
    for file in ["package.json", "index.js"] {
        let from = data("../packaging/npm").join(file);
        fs::copy(from, dir.path("node_modules/wsecho").join(file)).unwrap();
    }
    symlink(wsecho_path(), dir.path("node_modules/wsecho-linux-x64/bin/wsecho")).unwrap();
    symlink(data("clients/node_modules/ws"), dir.path("node_modules/ws")).unwrap();
    let output = run(Command::new("node").args(["--test", "guide.test.mjs"]), &dir);
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn the_guide_to_the_wire_prints_what_a_shell_shows() {
    let Some(python) = python().filter(|_| has_programs(&["bash", "curl"])) else { return };
    let dir = TempDir::new();
    let python = python.get_program();
    // Python by its path, since it finds this directory's before its own.
    let path = run(Command::new(python).args(["-c", "import sys; print(sys.executable)"]), &dir);
    let python = String::from_utf8(path.stdout).unwrap().trim().to_owned();
    let websocat = format!("{python} {}", data("clients/websocat.py").display());
    for (name, command) in [("python3", &python), ("websocat", &websocat)] {
        let file = dir.path(name);
        fs::write(&file, format!("#!/bin/sh\nexec {command} \"$@\"\n")).unwrap();
        fs::set_permissions(&file, Permissions::from_mode(0o755)).unwrap();
    }
    // Python may start slowly, so a pause begins once it is connected.
    let pause =
        r#"sleep() { until [ -e connected ]; do command sleep 0.1; done; command sleep "$1"; }"#;
    let server = Server::start(&[]);
    let function = code_blocks(WIRE, "```sh\n").next().unwrap();
    let mut experiments = 0;
    for block in code_blocks(WIRE, "```console\n") {
        let (commands, printed): (Vec<_>, Vec<_>) =
            block.lines().partition(|line| line.starts_with("$ ") || line.starts_with("> "));
        let commands = format!("\n{}\n", commands.join("\n"));
        let commands = commands.replace("\n$ ", "\nrm -f connected; ").replace("\n> ", "\n");
        let script = format!("{pause}\n{function}{commands}");
        let script = script.replace("127.0.0.1:1222", &server.addr.to_string());
        let script = script.replace("127.0.0.1/1222", &server.addr.to_string().replace(':', "/"));
        fs::write(dir.path("script"), script).unwrap();
        let output = run(Command::new("bash").arg("script"), &dir);
        let shown = String::from_utf8(output.stdout).unwrap();
        let shown: Vec<_> = shown.lines().filter(|line| !line.is_empty()).map(repeatable).collect();
        let printed: Vec<_> = printed.into_iter().map(repeatable).collect();
        assert_eq!(shown, printed, "{commands}{}", String::from_utf8_lossy(&output.stderr));
        experiments += 1;
    }
    assert_eq!(experiments, 10);
}

/// A line of frames without their times and masks.
fn repeatable(line: &str) -> String {
    let mut rest = line;
    let mut repeatable = String::new();
    while let Some((before, after)) = rest.split_once("\":") {
        let (_, name) = before.rsplit_once('"').unwrap_or_default();
        let end = after.find([',', '}']).unwrap_or(after.len());
        let value = after[..end].trim_matches('"');
        let is_masked = |header: &str| header.len() > 8 && header.as_bytes()[2] >= b'8';
        let shown = match name {
            "at" | "mask" if value != "null" => "",
            "header" if is_masked(value) => &value[..value.len() - 8],
            _ => value,
        };
        repeatable += &format!("{before}:{shown}");
        rest = &after[end..];
    }
    repeatable + rest
}

#[test]
fn the_shell_recipe_finds_the_port_and_stops_the_server() {
    let dir = TempDir::new();
    let script: String = code_blocks(guide().0, "```sh\n").collect();
    assert!(script.contains("\nnpm test\n"));
    let port_is_found = r"[[ $WSECHO_URL =~ ^ws://127.0.0.1:[1-9][0-9]+$ ]] && echo ok";
    fs::write(dir.path("recipe"), script.replace("npm test", port_is_found)).unwrap();
    let output = run(Command::new("bash").args(["-e", "recipe"]), &dir);
    assert_eq!(output.stdout, b"ok\n", "{output:?}");
    let log = dir.path("wsecho.log");
    wait_for_line(&log, "stopped");
}

/// The code of the blocks that begin with `fence`.
fn code_blocks(guide: &'static str, fence: &'static str) -> impl Iterator<Item = &'static str> {
    guide.split(fence).skip(1).map(|after| after.split("```").next().unwrap())
}

/// Runs `command` in `dir`, where it finds wsecho as a user's would.
fn run(command: &mut Command, dir: &TempDir) -> Output {
    let _ = symlink(wsecho_path(), dir.path("wsecho"));
    let path = format!("{}:{}", dir.path("").display(), env::var("PATH").unwrap());
    command.current_dir(dir.path("")).env("PATH", path).output().unwrap()
}
