//! Behind real proxies, with the configurations that the README prints.

mod common;

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;

use common::{Program, SOON, Scratch, Server, eventually, free_addr, has_program, python};

const NGINX: &str = include_str!("proxies/nginx.conf");
const HAPROXY: &str = include_str!("proxies/haproxy.cfg");
const HAPROXY_SEVERAL: &str = include_str!("proxies/haproxy-several.cfg");
const PAGE: &str = include_str!("../static/client.html");

/// What the timeouts of the proxies are in these tests, in place of a minute.
const PROXY_TIMEOUT: Duration = Duration::from_secs(2);

/// For how long a client says nothing.
const IDLE: Duration = Duration::from_secs(5);

/// Often enough for those timeouts.
const PINGS: &[&str] = &["--ping-interval", "400ms"];

#[test]
fn through_nginx_a_client_talks_wss_and_may_be_idle() {
    talks_wss_and_may_be_idle(|server, name| nginx(NGINX, server, name));
}

#[test]
fn through_haproxy_a_client_talks_wss_and_may_be_idle() {
    talks_wss_and_may_be_idle(|server, name| haproxy(HAPROXY, &[server], name));
}

fn talks_wss_and_may_be_idle(start: fn(&Server, &str) -> Option<Proxy>) {
    let Some(mut python) = python() else { return };
    let server = Server::start(PINGS);
    let Some(proxy) = start(&server, "idle") else {
        return;
    };
    let said = proxy.echo(&mut python);
    assert_eq!(said, Ok("ok\n".into()), "{:#?}", server.log());
    let connected = server.wait_for_log(" connected: ");
    let forwarded = r#" forwarded for "127.0.0.1", path "/""#;
    assert!(connected.ends_with(forwarded), "{connected}");
    server.wait_for_log(" ended: closed by peer, 4000; ");
}

/// Or the two tests above would show nothing.
#[test]
fn without_pings_nginx_cuts_an_idle_client() {
    cuts_an_idle_client(|server, name| nginx(NGINX, server, name));
}

/// See [`without_pings_nginx_cuts_an_idle_client`].
#[test]
fn without_pings_haproxy_cuts_an_idle_client() {
    cuts_an_idle_client(|server, name| haproxy(HAPROXY, &[server], name));
}

fn cuts_an_idle_client(start: fn(&Server, &str) -> Option<Proxy>) {
    let Some(mut python) = python() else { return };
    let server = Server::start(&["--ping-interval", "0"]);
    let Some(proxy) = start(&server, "cut") else {
        return;
    };
    let said = proxy.echo(&mut python).unwrap_err();
    assert!(said.contains("ConnectionClosed"), "{said}");
    // nginx closes the connection, HAProxy resets it.
    let ended = server.wait_for_log(" ended: ");
    assert!(!ended.contains("closed by "), "{ended}");
}

#[test]
fn what_a_client_claims_before_nginx_is_logged_escaped() {
    let server = Server::start(&[]);
    let Some(proxy) = nginx(NGINX, &server, "claims") else {
        return;
    };
    proxy.curl("/", &["X-Forwarded-For: \u{202e}\"1.2.3.4"]);
    server.wait_for_log(r#" forwarded for "\u{202e}\"1.2.3.4, 127.0.0.1", got the page"#);
}

#[test]
fn nginx_without_its_version_line_is_told_what_to_mend_and_still_gets_the_page() {
    let server = Server::start(&[]);
    let config = replaced(NGINX, "proxy_http_version 1.1;", "");
    let Some(proxy) = nginx(&config, &server, "version") else {
        return;
    };
    let answer = proxy.curl(
        "/",
        &[
            "Connection: Upgrade",
            "Upgrade: websocket",
            "Sec-WebSocket-Version: 13",
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        ],
    );
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    assert!(answer.contains("behind nginx set proxy_http_version 1.1"));
    let answer = proxy.curl("/", &[]);
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with(PAGE));
}

#[test]
fn nginx_passes_the_page_on_by_default() {
    let server = Server::start(&[]);
    // Nothing but where to: HTTP/1.0, and a Host and a Connection of nginx's own.
    let (head, _) = NGINX.split_once("        # nginx speaks").unwrap();
    let config = head.to_owned() + "        proxy_read_timeout 60s;\n    }\n}\n";
    let Some(proxy) = nginx(&config, &server, "default") else {
        return;
    };
    let answer = proxy.curl("/", &[]);
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with(PAGE));
}

#[test]
fn haproxy_checks_health_and_passes_the_page_on() {
    let mut server = Server::start(&["-v"]);
    let Some(proxy) = haproxy(HAPROXY, &[&server], "health") else {
        return;
    };
    server.wait_for_log("checked health");
    let checked = |result: &str| {
        eventually(SOON, || {
            proxy
                .states()
                .lines()
                .any(|line| line.starts_with("wsecho,one,") && line.contains(result))
        });
    };
    checked(",L7OK,200,");
    let answer = proxy.curl("/", &[]);
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with(PAGE));

    server.signal(Signal::TERM);
    assert!(server.wait(SOON).success());
    checked(",L4CON,");
    let answer = proxy.curl("/", &[]);
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
}

#[test]
fn several_processes_behind_haproxy_share_the_clients() {
    const CLIENTS: usize = 10;
    let one = Server::start(&["--prefix", "one "]);
    let two = Server::start(&["--prefix", "two "]);
    let Some(proxy) = haproxy(HAPROXY_SEVERAL, &[&one, &two], "several") else {
        return;
    };
    let url = format!("ws://{}/", proxy.public);
    let mut clients = Vec::new();
    let mut replies = Vec::new();
    for _ in 0..CLIENTS {
        let (mut client, _) = tungstenite::connect(&url).expect("a WebSocket opens");
        client.send("hi".into()).unwrap();
        replies.push(client.read().unwrap().into_text().unwrap().to_string());
        clients.push(client);
    }
    replies.sort();
    let (ones, twos) = replies.split_at(CLIENTS / 2);
    assert!(ones.iter().all(|reply| reply == "one hi"), "{replies:?}");
    assert!(twos.iter().all(|reply| reply == "two hi"), "{replies:?}");

    // New clients go to the one that is left.
    drop(two);
    eventually(SOON, || proxy.states().contains(",DOWN,"));
    let (mut client, _) = tungstenite::connect(&url).expect("a WebSocket opens");
    client.send("hi".into()).unwrap();
    assert_eq!(client.read().unwrap(), "one hi".into());
}

/// A proxy in front of wsecho.
struct Proxy {
    public: SocketAddr,
    scratch: Scratch,
    _program: Program,
}

/// Starts nginx with `config`, changed only in its addresses, files and times.
fn nginx(config: &str, server: &Server, name: &str) -> Option<Proxy> {
    if !["nginx", "openssl", "curl"].into_iter().all(has_program) {
        return None;
    }
    let scratch = Scratch::new(&format!("nginx-{name}"));
    let public = free_addr();
    certify(&scratch);
    let site = replaced(config, "listen 443", &format!("listen {public}"));
    let site = replaced(&site, "127.0.0.1:1222", &server.addr.to_string());
    let site = replaced(&site, "/etc/ssl", scratch.path("").to_str().unwrap());
    let site = replaced(&site, "60s", &format!("{}s", PROXY_TIMEOUT.as_secs()));
    fs::write(scratch.path("site.conf"), site).unwrap();
    // What Debian's own nginx.conf does around a site, with no file outside of the directory and in
    // a single process, which can be ended as one.
    let mut main = String::from(
        "daemon off; master_process off; pid nginx.pid; events {} http { access_log off; ",
    );
    for kind in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"] {
        main += &format!("{kind}_temp_path {kind}; ");
    }
    main += "include site.conf; }\n";
    fs::write(scratch.path("nginx.conf"), main).unwrap();

    let mut command = Command::new("nginx");
    command.args(["-e", "stderr", "-c", "nginx.conf", "-p"]);
    command.arg(scratch.path(""));
    Some(Proxy::start(command, public, scratch))
}

/// Starts HAProxy with `config`, changed only in its addresses, files and times.
fn haproxy(config: &str, servers: &[&Server], name: &str) -> Option<Proxy> {
    if !["haproxy", "openssl", "curl"].into_iter().all(has_program) {
        return None;
    }
    let scratch = Scratch::new(&format!("haproxy-{name}"));
    let public = free_addr();
    certify(&scratch);
    // How many clients it carries depends on the machine.
    let (_, rest) = config.split_once("\ndefaults\n").unwrap();
    let socket = scratch.path("states");
    let global = format!("global\n    maxconn 100\n    stats socket {}\n", socket.display());
    let config = global + "defaults\n" + rest;
    let port = if config.contains("bind :80") { ":80" } else { ":443" };
    let config = replaced(&config, &format!("bind {port}"), &format!("bind {public}"));
    let config = config.replace("/etc/haproxy", scratch.path("").to_str().unwrap());
    let config = replaced(&config, "60s", &format!("{}s", PROXY_TIMEOUT.as_secs()));
    let mut config = replaced(&config, "inter 2s", "inter 100ms");
    for (server, port) in servers.iter().zip(1222..) {
        config = replaced(&config, &format!("127.0.0.1:{port}"), &server.addr.to_string());
    }
    let file = scratch.path("haproxy.cfg");
    fs::write(&file, config).unwrap();

    let mut command = Command::new("haproxy");
    command.args(["-db", "-f"]).arg(file);
    Some(Proxy::start(command, public, scratch))
}

impl Proxy {
    fn start(mut command: Command, public: SocketAddr, scratch: Scratch) -> Self {
        let errors = fs::File::create(scratch.path("errors")).unwrap();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(errors);
        let mut program = Program(command.spawn().unwrap());
        eventually(SOON, || {
            if let Some(status) = program.0.try_wait().unwrap() {
                let errors = fs::read_to_string(scratch.path("errors"));
                panic!("{status}: {}", errors.unwrap());
            }
            TcpStream::connect(public).is_ok()
        });
        Proxy { public, scratch, _program: program }
    }

    /// Runs the Python client over TLS, which says nothing for a while in its midst: what it says
    /// of that, or the error that ends it.
    fn echo(&self, python: &mut Command) -> Result<String, String> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/echo.py");
        let output = python
            .arg(script)
            .arg(format!("wss://{}/", self.public))
            .arg("--ca")
            .arg(self.scratch.path("echo.example.crt"))
            .args(["--idle", &IDLE.as_secs().to_string()])
            .output()
            .unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        match output.status.success() {
            true => Ok(text(output.stdout)),
            false => Err(text(output.stderr)),
        }
    }

    /// The whole answer to a request over TLS, head and body.
    fn curl(&self, path: &str, headers: &[&str]) -> String {
        let output = Command::new("curl")
            .args(["--silent", "--show-error", "--include", "--http1.1"])
            .args(["--max-time", "10", "--noproxy", "*", "--cacert"])
            .arg(self.scratch.path("echo.example.crt"))
            .args(headers.iter().flat_map(|header| ["--header", header]))
            .arg(format!("https://{}{path}", self.public))
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// What HAProxy knows of the servers behind it, as CSV.
    fn states(&self) -> String {
        let mut socket = UnixStream::connect(self.scratch.path("states")).unwrap();
        socket.write_all(b"show stat\n").unwrap();
        let mut states = String::new();
        socket.read_to_string(&mut states).unwrap();
        states
    }
}

/// Makes a certificate for the address of [`free_addr`], in the forms that either proxy reads.
fn certify(scratch: &Scratch) {
    let (key, certificate) = (scratch.path("echo.example.key"), scratch.path("echo.example.crt"));
    let made = Command::new("openssl")
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
    assert!(made.status.success(), "{made:?}");
    let both = [fs::read(certificate).unwrap(), fs::read(key).unwrap()].concat();
    fs::write(scratch.path("echo.example.pem"), both).unwrap();
}

/// `text` with every `from` replaced, of which there has to be one.
fn replaced(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "{from:?} is not in {text}");
    text.replace(from, to)
}
