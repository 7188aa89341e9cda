//! Cases that are played over real sockets, to many clients at once, and by runners that others could have
//! written.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::process::{Command, Output, Stdio};
use std::thread;

use serde_json::Value;
use wsecho::app::cases::case::{Id, Transport};

use crate::app::cases::client::{Client, Flaw, PerMessageDeflate, State};
use crate::app::cases::{beyond, play};
use crate::driver;
use crate::support::{
    Server, TempDir, data, free_addr, has_npm_package, has_programs, python, read_frame, read_head,
    refusal, upgraded, wsecho, wsecho_path,
};

const JUDGING: &str = include_str!("../../../docs/judging-clients.md");

/// The status and the content that a GET of `target` is answered.
fn get(server: &Server, target: &str) -> (String, String) {
    let response = server.response(format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
    let (head, body) = response.split_once("\r\n\r\n").unwrap();
    (head[9..12].into(), body.into())
}

#[test]
fn two_hundred_cases_at_once_have_the_verdicts_that_they_have_alone() {
    const IDS: [&str; 10] =
        ["1.1.2", "2.10", "3.2", "4.1.3", "5.6", "5.18", "6.3.1", "6.23.1", "7.1.1", "7.9.3"];
    const FLAWS: [Flaw; 20] = [
        Flaw::None,
        Flaw::NoPong,
        Flaw::EmptyPong,
        Flaw::UnaskedPong,
        Flaw::NoUtf8Check,
        Flaw::LateUtf8Check,
        Flaw::WrongCode,
        Flaw::SwallowErrors,
        Flaw::StrayContinuation,
        Flaw::Interleaved,
        Flaw::TextAsBinary,
        Flaw::EchoTwice,
        Flaw::EchoTruncated,
        Flaw::EchoFragments,
        Flaw::Silent,
        Flaw::CloseAtOnce,
        Flaw::Unmasked,
        Flaw::AnyCloseCode,
        Flaw::NoCloseAnswer,
        Flaw::LongPing,
    ];
    let server = &Server::start(&[]);
    thread::scope(|scope| {
        for flaw in FLAWS {
            for id in IDS {
                let agent = format!("{flaw:?}");
                scope.spawn(move || run_case(server, server.connect(), id, &agent, flaw));
            }
        }
    });
    // A client may end before it is judged.
    for flaw in FLAWS {
        for id in IDS {
            server.wait_for_log(&logged(id, flaw));
        }
    }
    let index: Value = serde_json::from_str(&get(server, "/reports/index.json").1).unwrap();
    let alone = driver::service(1 << 24, 1 << 30);
    for flaw in FLAWS {
        for id in IDS {
            let (behavior, close) = play(&alone, Id::parse(id).unwrap(), flaw);
            let verdict = &index[format!("{flaw:?}")][id];
            let found = (verdict["behavior"].as_str(), verdict["behaviorClose"].as_str());
            let expected = (Some(behavior.as_str()), Some(close.as_str()));
            assert_eq!(found, expected, "{flaw:?} {id}");
        }
    }
    let line = server.wait_for_log(&logged("7.9.3", Flaw::AnyCloseCode));
    let verdict = "FAILED, close WRONG CODE: closed with 1004, expected 1002";
    assert!(line.ends_with(verdict), "{line}");
}

/// What the line in the log has before the verdict.
fn logged(id: &str, agent: Flaw) -> String {
    format!("case {id} of \"{agent:?}\": ")
}

/// Runs a case of an agent, until the server has ended or reset TCP.
fn run_case(server: &Server, mut stream: impl Read + Write, id: &str, agent: &str, flaw: Flaw) {
    let target = format!("/runCase?casetuple={id}&agent={agent}");
    let (request, key) = beyond::request(&target, flaw);
    stream.write_all(request.as_bytes()).unwrap();
    let Some(is_compressed) = beyond::opens(&read_head(&mut stream), &key, flaw) else { return };
    let mut client = Client::new(flaw);
    client.deflate = is_compressed.then(PerMessageDeflate::default);
    let mut buffer = [0; 4096];
    while client.state != State::Ended {
        let _ = stream.write_all(&client.take_output());
        let read = match stream.read(&mut buffer) {
            // The end of TCP without that of TLS.
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(0),
            read => read,
        };
        match read {
            Ok(len @ 1..) => client.receive(&buffer[..len]),
            // TCP stays open for as long as the server cares.
            Ok(0) if flaw == Flaw::KeepsTcp => {
                server.wait_for_log(&logged(id, flaw));
                break;
            }
            Ok(0) => client.ended(),
            Err(_) => break,
        }
    }
}

#[test]
fn the_server_ends_and_resets_tcp_as_a_case_says() {
    run_all_beyond(&Server::start(&[]), Transport::Any, Server::connect);
}

#[cfg(feature = "tls")]
#[test]
fn the_server_ends_and_resets_tcp_below_tls_as_a_case_says() {
    run_all_beyond(&super::tls::start("ec", &[]), Transport::Tls, super::tls::connect);
}

/// Runs some cases beyond the suite with a right and with wrong clients, over streams from `connect`.
fn run_all_beyond<S: Read + Write>(
    server: &Server,
    transport: Transport,
    connect: impl Fn(&Server) -> S + Copy + Send,
) {
    const IDS: [&str; 12] = [
        "14.1.1", "14.3.2", "14.4.3", "15.3.1", "15.3.3", "15.4.1", "16.1.1", "16.5.3", "17.4.1",
        "18.1.2", "18.2.1", "18.3.1",
    ];
    // Without TLS, its cases are INFORMATIONAL.
    let (played, keeps_tcp) = match transport {
        Transport::Any => (9, &["15.3.1", "15.3.3"][..]),
        Transport::Tls => (12, &["15.3.1", "15.3.3", "18.1.2"][..]),
    };
    let failed = [
        (Flaw::None, &[][..]),
        (Flaw::KeepsTcp, keeps_tcp),
        (Flaw::Silent, &IDS[2..played]),
        (Flaw::AnyHandshake, &["14.1.1", "14.3.2"]),
    ];
    thread::scope(|scope| {
        for (flaw, _) in failed {
            for id in IDS {
                let agent = format!("{flaw:?}");
                scope.spawn(move || run_case(server, connect(server), id, &agent, flaw));
            }
        }
    });
    for (flaw, failed) in failed {
        for id in IDS {
            let line = server.wait_for_log(&logged(id, flaw));
            assert_eq!(line.contains(": FAILED"), failed.contains(&id), "{line}");
        }
    }
}

#[test]
fn the_runner_for_python_runs_as_it_is_printed() {
    if let Some(python) = python() {
        runs(python, "runner.py", "```python\n", "websockets");
    }
}

#[test]
fn the_runner_for_node_runs_as_it_is_printed() {
    if has_npm_package("undici") {
        runs(Command::new("node"), "runner.mjs", "```js\n", "undici");
    }
}

/// Runs the code of the guide's block that begins with `fence` through some cases, which it passes.
fn runs(mut interpreter: Command, name: &str, fence: &str, agent: &str) {
    let (_, code) = JUDGING.split_once(fence).unwrap();
    let code = code.split("```").next().unwrap();
    assert!(code.contains(name) && code.lines().count() <= 30);
    let dir = TempDir::new();
    // Node looks for packages beside the program.
    let packages = data("clients/node_modules");
    let _ = std::os::unix::fs::symlink(packages, dir.path("node_modules"));
    fs::write(dir.path(name), code).unwrap();
    let reports = dir.path("reports");
    let flags =
        ["--cases=1.*,2.*,6.2.*,7.9.*,9.1.2,9.8.4,12.1.1", "--case-messages=5", "--reports"];
    let server = Server::start(&[&flags[..], &[reports.to_str().unwrap()]].concat());
    let url = format!("ws://{}", server.addr);
    let command = interpreter.arg(dir.path(name)).arg(url).stderr(Stdio::piped());
    let Output { status, stderr, .. } = command.output().unwrap();
    assert!(status.success(), "{}", String::from_utf8_lossy(&stderr));
    let (status, text) = get(&server, &format!("/verdict?agent={agent}"));
    assert_eq!((&*status, &*text), ("200", "43 cases: 43 OK\n"));

    let index = fs::read_to_string(reports.join("index.json")).unwrap();
    assert_eq!(index, get(&server, "/reports/index.json").1);
    let index: Value = serde_json::from_str(&index).unwrap();
    assert_eq!(index[agent].as_object().unwrap().len(), 43);
    for (id, case) in index[agent].as_object().unwrap() {
        let file = case["reportfile"].as_str().unwrap();
        let report = fs::read_to_string(reports.join(file)).unwrap();
        assert_eq!(report, get(&server, &format!("/reports/{file}")).1);
        let report: Value = serde_json::from_str(&report).unwrap();
        assert_eq!((&report["id"], &report["behavior"]), (&Value::from(&**id), &case["behavior"]));
    }
    assert_eq!(fs::read_dir(&reports).unwrap().count(), 44, "no temporary file is left");
}

/// Some cases instead of all, and the runner for Python as the user's.
#[test]
fn the_lines_for_ci_run_as_they_are_printed() {
    let Some(python) = python() else { return };
    if !has_programs(&["bash", "curl"]) {
        return;
    }
    let code = |fence: &str| JUDGING.split_once(fence).unwrap().1.split("```").next().unwrap();
    for (block, result, content) in [
        (
            "Actions the table becomes the summary of the job:\n\n```yaml\n",
            "summary",
            "| 1 Messages | 16 of 16 | 16 OK |  |\n",
        ),
        (
            "GitLab the XML becomes the test report of the pipeline:\n\n```yaml\n",
            "junit.xml",
            "<testsuite name=\"1 Messages\" tests=\"16\" failures=\"0\"",
        ),
    ] {
        let dir = TempDir::new();
        fs::write(dir.path("runner.py"), code("```python\n")).unwrap();
        let addr = free_addr().to_string();
        let is_command = |line: &&str| {
            ["wsecho ", "curl ", "your-runner"].iter().any(|word| line.starts_with(word))
        };
        let lines: Vec<_> = code(block)
            .lines()
            .map(|line| line.trim_start_matches([' ', '-']))
            .filter(is_command)
            .collect();
        assert_eq!(lines.len(), 5);
        let script = format!("trap 'kill %1' EXIT\n{}\n", lines.join("\n"))
            .replace("127.0.0.1:9001", &addr)
            .replace("wsecho ", &format!("{} --cases '1.*' ", wsecho_path()))
            .replace(
                "your-runner",
                &format!("'{}' runner.py ws://{addr}", python.get_program().display()),
            )
            .replace("mylib", "websockets");
        let output = Command::new("bash")
            .args(["-e", "-c", &script])
            .env("GITHUB_STEP_SUMMARY", dir.path("summary"))
            .current_dir(dir.path(""))
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        assert_eq!(String::from_utf8_lossy(&output.stdout), "ok\n16 cases: 16 OK\n");
        let result = fs::read_to_string(dir.path(result)).unwrap();
        assert!(result.contains(content), "{result}");
    }
}

#[test]
fn what_can_not_be_is_an_error_at_the_start() {
    let dir = TempDir::new();
    let file = dir.path("file");
    fs::write(&file, "").unwrap();
    let below = file.join("reports");
    for (flag, value, complaint) in [
        ("--reports", file.to_str().unwrap(), "cannot write --reports "),
        ("--reports", below.to_str().unwrap(), "cannot write --reports "),
        ("--cases", "8.*", "no case is called 8.*"),
        ("--exclude-cases", "*", "no case is left"),
    ] {
        let (status, error) = refusal(&mut wsecho(&["--addr", "127.0.0.1:0", flag, value]));
        assert!(status != Some(0) && error.contains(complaint), "{flag} {value}: {error}");
        assert!(!error.contains("listening"), "{error}");
    }
}

/// The reason has the directory's path, and a close frame has at most 125 bytes (§5.5).
#[test]
fn reports_that_can_not_be_written_are_a_warning_and_close_1011() {
    let dir = TempDir::new();
    let reports = dir.path(&"r".repeat(200));
    let server = Server::start(&["--reports", reports.to_str().unwrap()]);
    fs::remove_dir(&reports).unwrap();
    let update = driver::upgrade("/updateReports?agent=x", "");
    let mut stream = upgraded(server.send(update)).unwrap();
    let (first, payload) = read_frame(&mut stream);
    assert_eq!((first, &payload[..2]), (0x88, &1011_u16.to_be_bytes()[..]));
    assert!(payload.len() <= 125, "{}", payload.escape_ascii());
    let line = server.wait_for_log("cannot write --reports ");
    assert!(line.contains(" WARN ] ") && line.contains("rrr: No such file"), "{line}");
}

#[test]
fn an_agent_of_another_form_reaches_neither_the_log_nor_a_path() {
    let dir = TempDir::new();
    let reports = dir.path("reports");
    let server = Server::start(&["--reports", reports.to_str().unwrap()]);
    run_case(&server, server.connect(), "2.7", "..%2F%E2%80%AE%22x", Flaw::None);
    let update = driver::upgrade("/updateReports?agent=..%2F%E2%80%AE%22x", "");
    let mut stream = upgraded(server.send(update)).unwrap();
    let mut close = [0; 2];
    stream.read_exact(&mut close).unwrap();
    assert_eq!(close, [0x88, 0]);
    let mut files: Vec<_> =
        fs::read_dir(&reports).unwrap().map(|file| file.unwrap().file_name()).collect();
    files.sort();
    assert_eq!(files, ["index.json", "x_case_2_7.json"]);
    let line = server.wait_for_log("case 2.7");
    assert!(line.contains(r#"case 2.7 of "../\u{202e}\"x": OK"#), "{line}");
}
