//! Behind real proxies, with the configurations that docs/deploying.md prints.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;

use crate::support::{
    Program, SOON, Server, TempDir, assert_status, data, eventually, free_addr, has_programs,
    python,
};

const NGINX: &str = include_str!("../../proxies/nginx.conf");
const HAPROXY: &str = include_str!("../../proxies/haproxy.cfg");
const HAPROXY_SEVERAL: &str = include_str!("../../proxies/haproxy-several.cfg");
const PAGE: &str = include_str!("../../../static/client.html");

/// The timeouts of the proxies in these tests, in place of a minute.
const PROXY_TIMEOUT: Duration = Duration::from_secs(2);

/// For how long a client is silent.
const IDLE: Duration = Duration::from_secs(5);

// Idle clients

#[test]
fn through_nginx_a_client_speaks_wss_and_may_be_idle() {
    assert_stays_idle(|server| nginx(NGINX, server));
}

#[test]
fn through_haproxy_a_client_speaks_wss_and_may_be_idle() {
    assert_stays_idle(|server| haproxy(HAPROXY, &[server]));
}

#[test]
fn through_nginx_and_a_unix_domain_socket_a_client_is_answered() {
    assert_serves_behind_unix(|server, path| {
        let upstream = format!("proxy_pass http://unix:{path}:/;");
        nginx(&replaced(NGINX, "proxy_pass http://127.0.0.1:1222;", &upstream), server)
    });
}

#[test]
fn through_haproxy_and_a_unix_domain_socket_a_client_is_answered() {
    assert_serves_behind_unix(|server, path| {
        let upstream = format!("server one unix@{path} ");
        haproxy(&replaced(HAPROXY, "server one 127.0.0.1:1222 ", &upstream), &[server])
    });
}

fn assert_serves_behind_unix(start: fn(&Server, &str) -> Option<Proxy>) {
    let Some(mut python) = python() else { return };
    let dir = TempDir::new();
    let path = dir.path("socket").display().to_string();
    let server = Server::start(&["-v", "--ping-interval=400ms", &format!("--addr=unix:{path}")]);
    let Some(proxy) = start(&server, &path) else { return };
    assert_eq!(proxy.echo(&mut python), Ok("ok\n".into()), "{:#?}", server.log());
    let connected = server.wait_for_log(" connected: ");
    assert!(
        connected.contains(
            r#" connected: unix forwarded for "127.0.0.1", path "/", permessage-deflate"#
        )
    );
    proxy.assert_passes_the_page_on();
}

fn assert_stays_idle(start: fn(&Server) -> Option<Proxy>) {
    let Some(mut python) = python() else { return };
    // Often enough for the proxy's timeout.
    let server = Server::start(&["--ping-interval=400ms"]);
    let Some(proxy) = start(&server) else { return };
    let output = proxy.echo(&mut python);
    assert_eq!(output, Ok("ok\n".into()), "{:#?}", server.log());
    let connected = server.wait_for_log(" connected: ");
    assert!(
        connected.contains(r#" forwarded for "127.0.0.1", path "/", permessage-deflate"#),
        "{connected}"
    );
    server.wait_for_log(" ended: closed by peer, 4000; ");
}

/// Or the two tests above would show nothing.
#[test]
fn without_pings_nginx_ends_an_idle_client() {
    assert_idle_is_ended(|server| nginx(NGINX, server));
}

/// See [`without_pings_nginx_ends_an_idle_client`].
#[test]
fn without_pings_haproxy_ends_an_idle_client() {
    assert_idle_is_ended(|server| haproxy(HAPROXY, &[server]));
}

fn assert_idle_is_ended(start: fn(&Server) -> Option<Proxy>) {
    let Some(mut python) = python() else { return };
    let server = Server::start(&["--ping-interval=0"]);
    let Some(proxy) = start(&server) else { return };
    let error = proxy.echo(&mut python).unwrap_err();
    assert!(error.contains("ConnectionClosed"), "{error}");
    // nginx closes the connection, HAProxy resets it.
    let ended = server.wait_for_log(" ended: ");
    assert!(!ended.contains("closed by "), "{ended}");
}

// Requests

#[test]
fn what_a_client_claims_to_be_before_nginx_is_logged_escaped() {
    let server = Server::start(&[]);
    let Some(proxy) = nginx(NGINX, &server) else { return };
    proxy.curl("/", &["X-Forwarded-For: \u{202e}\"1.2.3.4"]);
    server.wait_for_log(r#" forwarded for "\u{202e}\"1.2.3.4, 127.0.0.1", path "/": 200 OK"#);
}

#[test]
fn nginx_without_its_version_line_is_told_what_to_fix_and_still_gets_the_page() {
    let server = Server::start(&[]);
    let config = replaced(NGINX, "proxy_http_version 1.1;", "");
    let Some(proxy) = nginx(&config, &server) else { return };
    let response = proxy.curl(
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
    // Nothing but the address: HTTP/1.0, and a Host and a Connection of nginx's own.
    let (head, _) = NGINX.split_once("        # nginx speaks").unwrap();
    let config = head.to_owned() + "        proxy_read_timeout 60s;\n    }\n}\n";
    let Some(proxy) = nginx(&config, &server) else { return };
    proxy.assert_passes_the_page_on();
}

#[test]
fn haproxy_checks_health_and_passes_the_page_on() {
    let mut server = Server::start(&["-v"]);
    let Some(proxy) = haproxy(HAPROXY, &[&server]) else { return };
    server.wait_for_log(r#", path "/healthz": 200 OK"#);
    let is_checked = |result: &str| {
        eventually(SOON, || {
            let states = proxy.states();
            states.lines().any(|line| line.starts_with("wsecho,one,") && line.contains(result))
        });
    };
    is_checked(",L7OK,200,");
    proxy.assert_passes_the_page_on();

    server.signal(Signal::TERM);
    assert!(server.wait(SOON).success());
    is_checked(",L4CON,");
    assert_status(&proxy.curl("/", &[]), 503);
}

#[test]
fn several_processes_behind_haproxy_share_the_clients() {
    const CLIENTS: usize = 10;
    let one = Server::start(&["--prefix", "one "]);
    let two = Server::start(&["--prefix", "two "]);
    let Some(proxy) = haproxy(HAPROXY_SEVERAL, &[&one, &two]) else { return };
    let url = format!("ws://{}/", proxy.public);
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

/// A proxy in front of wsecho.
struct Proxy {
    public: SocketAddr,
    dir: TempDir,
    _program: Program,
}

/// Starts nginx with `config`, changed only in its addresses, files and times.
fn nginx(config: &str, server: &Server) -> Option<Proxy> {
    if !has_programs(&["nginx", "openssl", "curl"]) {
        return None;
    }
    let (dir, public) = (TempDir::new(), free_addr());
    certify(&dir);
    let site = replaced(config, "listen 443", &format!("listen {public}"));
    let site = site.replace("127.0.0.1:1222", &server.addr.to_string());
    let site = replaced(&site, "/etc/ssl", dir.path("").to_str().unwrap());
    let site = replaced(&site, "60s", &format!("{}s", PROXY_TIMEOUT.as_secs()));
    fs::write(dir.path("site.conf"), site).unwrap();
    // What Debian's own nginx.conf does around a site, with no file outside of the directory and in
    // a single process, which can be ended as one.
    let mut main = String::from(
        "daemon off; master_process off; pid nginx.pid; events {} http { access_log off; ",
    );
    for kind in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"] {
        main += &format!("{kind}_temp_path {kind}; ");
    }
    main += "include site.conf; }\n";
    fs::write(dir.path("nginx.conf"), main).unwrap();

    let mut command = Command::new("nginx");
    command.args(["-e", "stderr", "-c", "nginx.conf", "-p"]).arg(dir.path(""));
    Some(Proxy::start(command, public, dir))
}

/// Starts HAProxy with `config`, changed only in its addresses, files and times.
fn haproxy(config: &str, servers: &[&Server]) -> Option<Proxy> {
    if !has_programs(&["haproxy", "openssl", "curl"]) {
        return None;
    }
    let (dir, public) = (TempDir::new(), free_addr());
    certify(&dir);
    // How many clients it carries depends on the machine.
    let (_, rest) = config.split_once("\ndefaults\n").unwrap();
    let socket = dir.path("states");
    let global = format!("global\n    maxconn 100\n    stats socket {}\n", socket.display());
    let config = global + "defaults\n" + rest;
    let port = if config.contains("bind :80") { ":80" } else { ":443" };
    let config = replaced(&config, &format!("bind {port}"), &format!("bind {public}"));
    let config = config.replace("/etc/haproxy", dir.path("").to_str().unwrap());
    let config = replaced(&config, "60s", &format!("{}s", PROXY_TIMEOUT.as_secs()));
    // It is the time limit of a check as well.
    let mut config = replaced(&config, "inter 2s", "inter 500ms");
    for (server, port) in servers.iter().zip(1222..) {
        config = config.replace(&format!("127.0.0.1:{port}"), &server.addr.to_string());
    }
    let file = dir.path("haproxy.cfg");
    fs::write(&file, config).unwrap();

    let mut command = Command::new("haproxy");
    command.args(["-db", "-f"]).arg(file);
    Some(Proxy::start(command, public, dir))
}

impl Proxy {
    fn start(mut command: Command, public: SocketAddr, dir: TempDir) -> Self {
        let errors = fs::File::create(dir.path("errors")).unwrap();
        let mut program = Program::start(command.stdout(Stdio::null()).stderr(errors));
        eventually(SOON, || {
            let errors = || fs::read_to_string(dir.path("errors")).unwrap();
            assert!(program.is_running(), "{}", errors());
            TcpStream::connect(public).is_ok()
        });
        Proxy { public, dir, _program: program }
    }

    /// Runs the Python client over TLS, which is silent for a while in its midst: its output, or the
    /// error that ends it.
    fn echo(&self, python: &mut Command) -> Result<String, String> {
        let output = python
            .arg(data("clients/echo.py"))
            .arg(format!("wss://{}/", self.public))
            .arg("--ca")
            .arg(self.dir.path("echo.example.crt"))
            .args(["--idle", &IDLE.as_secs().to_string()])
            .output()
            .unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
    }

    /// The whole response to a request over TLS, head and body.
    fn curl(&self, path: &str, headers: &[&str]) -> String {
        let output = Command::new("curl")
            .args(["--silent", "--show-error", "--include", "--http1.1"])
            .args(["--max-time", "10", "--noproxy", "*", "--cacert"])
            .arg(self.dir.path("echo.example.crt"))
            .args(headers.iter().flat_map(|header| ["--header", header]))
            .arg(format!("https://{}{path}", self.public))
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn assert_passes_the_page_on(&self) {
        let response = self.curl("/", &[]);
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

/// Makes a certificate for the address of [`free_addr`], in the forms that either proxy reads.
fn certify(dir: &TempDir) {
    let (key, certificate) = (dir.path("echo.example.key"), dir.path("echo.example.crt"));
    let output = Command::new("openssl")
        .args(["req", "-x509", "-days", "2", "-subj", "/CN=wsecho's tests"])
        .args(["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"])
        .args(["-addext", "subjectAltName=IP:127.0.0.2"])
        .args(["-addext", "keyUsage=digitalSignature,keyCertSign"])
        .args(["-nodes", "-keyout"])
        .arg(&key)
        .arg("-out")
        .arg(&certificate)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let both = [fs::read(certificate).unwrap(), fs::read(key).unwrap()].concat();
    fs::write(dir.path("echo.example.pem"), both).unwrap();
}

/// `text` with every `from` replaced, of which there has to be one.
fn replaced(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "{from:?} is not in {text}");
    text.replace(from, to)
}
