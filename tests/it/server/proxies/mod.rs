//! Behind real proxies, with the configurations that docs/proxies.md prints.

mod start;
mod table;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use crate::support::{
    SOON, Server, TempDir, assert_status, data, eventually, from_env, python, python_with,
};

use start::{HAPROXY, HAPROXY_SEVERAL, HAPROXY_TCP, NGINX, Proxy, RECIPES, Recipe, replaced};
use table::{measure, start_server};

const PAGE: &str = include_str!("../../../../static/client.html");

/// The timeouts of the proxies in these tests, in place of a minute.
const PROXY_TIMEOUT: Duration = Duration::from_secs(2);

/// For how long a client is silent.
const IDLE: Duration = Duration::from_secs(5);

// Idle clients

#[test]
fn through_nginx_and_haproxy_a_client_speaks_wss_and_may_be_idle() {
    with_each(&[&NGINX, &HAPROXY], |recipe| {
        let Some(mut python) = python() else { return };
        // More often than the proxy's timeout.
        let server = Server::start(&["--ping-interval=400ms"]);
        let Some(proxy) = impatient(recipe, &server) else { return };
        let output = proxy.echo(&mut python, IDLE);
        assert_eq!(output, Ok("ok\n".into()), "{:#?}", server.log());
        let connected = server.wait_for_log(" connected: ");
        assert!(
            connected.contains(r#" forwarded for "127.0.0.1", path "/", permessage-deflate"#),
            "{connected}"
        );
        server.wait_for_log(" ended: closed by peer, 4000 ");
    });
}

/// Without this, the test above would prove nothing.
#[test]
fn without_pings_nginx_and_haproxy_end_an_idle_client() {
    with_each(&[&NGINX, &HAPROXY], |recipe| {
        let Some(mut python) = python() else { return };
        let server = Server::start(&["--ping-interval=0"]);
        let Some(proxy) = impatient(recipe, &server) else { return };
        let error = proxy.echo(&mut python, IDLE).unwrap_err();
        assert!(error.contains("ConnectionClosed"), "{error}");
        // nginx closes the connection, HAProxy resets it.
        let ended = server.wait_for_log(" ended: ");
        assert!(!ended.contains("closed by "), "{ended}");
    });
}

#[test]
fn through_nginx_and_a_unix_domain_socket_a_client_is_answered() {
    assert_serves_behind_unix(&NGINX, "proxy_pass http://127.0.0.1:1222;", |path| {
        format!("proxy_pass http://unix:{path}:/;")
    });
}

#[test]
fn through_haproxy_and_a_unix_domain_socket_a_client_is_answered() {
    assert_serves_behind_unix(&HAPROXY, "server one 127.0.0.1:1222 ", |path| {
        format!("server one unix@{path} ")
    });
}

fn assert_serves_behind_unix(recipe: &Recipe, tcp: &str, unix: fn(&str) -> String) {
    let Some(mut python) = python() else { return };
    let dir = TempDir::new();
    let path = dir.path("socket").display().to_string();
    let server = Server::start(&["-v", "--ping-interval=400ms", &format!("--addr=unix:{path}")]);
    let config = replaced(&recipe.config(), tcp, &unix(&path));
    let Some(proxy) = recipe.start_with(&config, &[&server]) else { return };
    assert_eq!(proxy.echo(&mut python, IDLE), Ok("ok\n".into()), "{:#?}", server.log());
    let connected = server.wait_for_log(" connected: ");
    assert!(
        connected.contains(
            r#" connected: unix forwarded for "127.0.0.1", path "/", permessage-deflate"#
        )
    );
    proxy.assert_passes_the_page_on();
}

// Ends

/// A proxy takes the end of the server's stream for the end of both directions: a client that still sends
/// gets a reset, which discards the close frame, and reports 1006.
#[test]
fn through_nginx_and_haproxy_a_client_that_sends_all_the_time_sees_the_close_code() {
    with_each(&[&NGINX, &HAPROXY], |recipe| {
        let server = start_server(recipe.flags);
        let Some(python) = python_with("h2") else { return };
        let Some(proxy) = recipe.start(&[&server]) else { return };
        let cells = measure(python, &proxy, &["--only", "close while sending", "--count", "200"]);
        assert_eq!(cells["close while sending"], "200 of 200");
    });
}

// Each proxy

#[test]
fn through_each_proxy_messages_of_every_kind_pass() {
    with_each(RECIPES, |recipe| {
        let server = Server::start(recipe.flags);
        let Some(mut python) = python() else { return };
        let Some(proxy) = recipe.start(&[&server]) else { return };
        let output = proxy.echo(&mut python, Duration::ZERO);
        assert_eq!(output, Ok("ok\n".into()), "{:#?}", server.log());
    });
}

#[test]
fn haproxy_in_tcp_mode_checks_health_with_and_without_a_header() {
    for (check, result) in [
        ("check", ",L7OK,200,"),
        ("check check-send-proxy", ",L7OK,200,"),
        // With a port of its own a check sends no header, so it can see no more than that the port is open.
        ("check port 1222", ",L7STS,400,"),
        ("check port 1222 check-send-proxy", ",L7OK,200,"),
    ] {
        let mut server = Server::start(&["--proxy-protocol", "-v"]);
        let config =
            replaced(&HAPROXY_TCP.config(), "check inter 2s", &format!("{check} inter 2s"));
        let config = config.replace("port 1222", &format!("port {}", server.addr.port()));
        let Some(proxy) = HAPROXY_TCP.start_with(&config, &[&server]) else { return };
        eventually(SOON, || proxy.states().contains(result));
        server.stop();
    }
    // A check of the port alone is not even a line in the log.
    let server = Server::start(&["--proxy-protocol"]);
    let config = replaced(&HAPROXY_TCP.config(), "    option httpchk GET /healthz\n", "");
    let config =
        replaced(&config, "check inter", &format!("check port {} inter", server.addr.port()));
    let Some(proxy) = HAPROXY_TCP.start_with(&config, &[&server]) else { return };
    eventually(SOON, || proxy.states().contains(",L4OK,"));
    proxy.get("/the-last-one", &[]);
    server.wait_for_log("/the-last-one");
    assert_eq!(server.log().len(), 2, "{:#?}", server.log());
}

#[test]
fn haproxy_in_tcp_mode_tells_the_client_and_its_tls() {
    let server = start_server(&["--proxy-protocol"]);
    let Some(python) = python_with("h2") else { return };
    let Some(proxy) = HAPROXY_TCP.start(&[&server]) else { return };
    let cells = measure(python, &proxy, &["--only", "proxy header"]);
    let dumped: serde_json::Value =
        serde_json::from_str(cells["proxy header"].as_str().unwrap()).unwrap();
    assert_eq!(dumped["ssl_version"], "TLSv1.3");
    assert!(dumped["ssl_cipher"].as_str().unwrap().starts_with("TLS_"), "{dumped}");
    // The client's own port, which is not the proxy's.
    let line = server.wait_for_log(" connected: 127.0.0.1:");
    assert!(!line.contains("forwarded for"), "{line}");
}

#[test]
fn through_nginx_on_another_port_the_page_gets_a_dump() {
    let server = Server::start(&[]);
    let Some(python) = python_with("h2") else { return };
    let Some(proxy) = NGINX.start(&[&server]) else { return };
    let cells = measure(python, &proxy, &["--only", "dump for its page"]);
    assert_eq!(cells["dump for its page"], "101");
}

// Requests

#[test]
fn what_a_client_claims_to_be_before_nginx_is_logged_escaped() {
    let server = Server::start(&[]);
    let Some(proxy) = NGINX.start(&[&server]) else { return };
    proxy.get("/", &["X-Forwarded-For: \u{202e}\"1.2.3.4"]);
    server.wait_for_log(r#" forwarded for "\u{202e}\"1.2.3.4, 127.0.0.1", path "/": 200 OK"#);
}

#[test]
fn nginx_without_its_version_line_is_told_what_to_fix_and_still_gets_the_page() {
    let server = Server::start(&[]);
    let config = replaced(&NGINX.config(), "proxy_http_version 1.1;", "");
    let Some(proxy) = NGINX.start_with(&config, &[&server]) else { return };
    let response = proxy.get(
        "/",
        &[
            "Connection: Upgrade",
            "Upgrade: websocket",
            "Sec-WebSocket-Version: 13",
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        ],
    );
    assert_status(&response, 400);
    assert!(response.contains("behind nginx set proxy_http_version 1.1"), "{response}");
    proxy.assert_passes_the_page_on();
}

#[test]
fn nginx_passes_the_page_on_by_default() {
    let server = Server::start(&[]);
    // With only the address set, nginx sends HTTP/1.0, and its own Host and Connection.
    let printed = NGINX.config();
    let (head, _) = printed.split_once("        # By default nginx speaks").unwrap();
    let config = head.to_owned() + "    }\n}\n";
    let Some(proxy) = NGINX.start_with(&config, &[&server]) else { return };
    proxy.assert_passes_the_page_on();
}

#[test]
fn haproxy_checks_health_and_passes_the_page_on() {
    let mut server = Server::start(&["-v"]);
    let Some(proxy) = HAPROXY.start(&[&server]) else { return };
    server.wait_for_log(r#", path "/healthz": 200 OK"#);
    let is_checked = |result: &str| {
        eventually(SOON, || {
            let states = proxy.states();
            states.lines().any(|line| line.starts_with("wsecho,one,") && line.contains(result))
        });
    };
    is_checked(",L7OK,200,");
    proxy.assert_passes_the_page_on();

    server.stop();
    is_checked(",L4CON,");
    assert_status(&proxy.get("/", &[]), 503);
}

#[test]
fn several_processes_behind_haproxy_share_the_clients() {
    const CLIENTS: usize = 10;
    let one = Server::start(&["--prefix", "one "]);
    let two = Server::start(&["--prefix", "two "]);
    let Some(proxy) = HAPROXY_SEVERAL.start(&[&one, &two]) else { return };
    let url = proxy.url();
    let open = || {
        let (mut client, _) = tungstenite::connect(&url).expect("a WebSocket opens");
        client.send("hi".into()).unwrap();
        let reply = client.read().unwrap().into_text().unwrap().to_string();
        (client, reply)
    };
    let (_clients, mut replies): (Vec<_>, Vec<_>) = (0..CLIENTS).map(|_| open()).unzip();
    replies.sort();
    assert_eq!(replies, [["one hi"; CLIENTS / 2], ["two hi"; CLIENTS / 2]].concat());

    // New clients go to the one that still runs.
    drop(two);
    eventually(SOON, || proxy.states().contains(",DOWN,"));
    assert_eq!(open().1, "one hi");
}

// Proxies

/// Runs `test` with all of them at once, since they mostly wait.
fn with_each(recipes: &[&Recipe], test: fn(&Recipe)) {
    thread::scope(|scope| {
        for recipe in recipes {
            let run = || test(recipe);
            thread::Builder::new().name(recipe.name.into()).spawn_scoped(scope, run).unwrap();
        }
    });
}

/// Starts a proxy that gives up idle clients soon.
fn impatient(recipe: &Recipe, server: &Server) -> Option<Proxy> {
    let timeout = format!("{}s", PROXY_TIMEOUT.as_secs());
    recipe.start_with(&replaced(&recipe.config(), "60s", &timeout), &[server])
}

impl Proxy {
    /// Runs the Python client, which is silent for `idle` in the middle. Returns its output, or the error that
    /// ended it.
    fn echo(&self, python: &mut Command, idle: Duration) -> Result<String, String> {
        python.arg(data("clients/echo.py")).arg(self.url());
        if self.scheme == "wss" {
            python.arg("--ca").arg(self.certificate());
        }
        let output = python.args(["--idle", &idle.as_secs().to_string()]).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
    }

    /// The whole response, head and body.
    fn get(&self, path: &str, headers: &[&str]) -> String {
        let headers = headers.iter().flat_map(|header| ["--header", header]);
        let output = self.curl(path).args(headers).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn assert_passes_the_page_on(&self) {
        let response = self.get("/", &[]);
        assert_status(&response, 200);
        assert!(response.ends_with(PAGE));
    }

    /// What HAProxy knows of the servers behind it, as CSV.
    fn states(&self) -> String {
        let mut socket = UnixStream::connect(self.dir.path("states")).unwrap();
        socket.write_all(b"show stat\n").unwrap();
        let mut states = String::new();
        socket.read_to_string(&mut states).unwrap();
        states
    }
}

// For long

/// Messages, behaviors and closing handshakes over wss and both kinds of compression, for as long as
/// `SOAK_SECONDS` says (20), and then the stop.
#[test]
#[ignore = "takes SOAK_SECONDS"]
fn through_nginx_no_client_sees_1006_and_a_stop_closes_by_1001() {
    let seconds = from_env("SOAK_SECONDS").unwrap_or(20).to_string();
    thread::scope(|scope| {
        for mode in ["no-context-takeover", "context-takeover"] {
            let seconds = &seconds;
            scope.spawn(move || {
                let mut server = Server::start(&["--compression", mode]);
                let Some(mut python) = python() else { return };
                let Some(proxy) = NGINX.start(&[&server]) else { return };
                python.arg(data("proxies/soak.py")).arg(proxy.url()).arg("--ca");
                python.arg(proxy.certificate()).args(["--seconds", seconds]);
                let mut clients = python.stdout(Stdio::piped()).spawn().unwrap();
                let mut lines = BufReader::new(clients.stdout.take().unwrap()).lines();
                assert_eq!(lines.next().unwrap().unwrap(), "stop");
                server.stop();
                let codes = lines.next().unwrap().unwrap();
                println!("{mode}: {codes}");
                assert!(codes.contains("1001: ") && clients.wait().unwrap().success(), "{codes}");
                server.wait_for_log(", 0 aborted");
            });
        }
    });
}
