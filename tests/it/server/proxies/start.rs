//! How each proxy is started with the configuration that docs/proxies.md prints, changed only in its
//! addresses and files.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::{Program, SOON, Server, TempDir, data, eventually, free_addr, has_programs};

/// How long a proxy may take to start. Varnish compiles its configuration by a C compiler.
const START: Duration = Duration::from_secs(60);

/// A kind of proxy.
pub struct Recipe {
    /// As in the tables of docs/proxies.md.
    pub name: &'static str,
    /// Its configuration below `tests/proxies`.
    pub config: &'static str,
    pub scheme: &'static str,
    /// What wsecho needs behind it.
    pub flags: &'static [&'static str],
    program: &'static str,
    arguments: &'static [&'static str],
    /// Prints its version.
    version: &'static str,
    /// What the configuration of a test has in place of addresses and files.
    replaced: &'static [(&'static str, &'static str)],
    /// The configuration around it, a file `main`.
    main: &'static str,
}

const PROXY_PROTOCOL: &[&str] = &["--proxy-protocol"];

pub const NGINX: Recipe = Recipe {
    name: "nginx",
    config: "nginx.conf",
    scheme: "wss",
    flags: &[],
    program: "nginx",
    arguments: &["-e", "stderr", "-c", "main", "-p", "{dir}"],
    version: "-v",
    replaced: &[("listen 443", "listen {public}"), ("/etc/ssl", "{dir}")],
    // What Debian's own nginx.conf does around a site, with no file outside of the directory and in a
    // single process, which can be ended as one.
    main: "daemon off; master_process off; pid nginx.pid; events {} http { access_log off;
        client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;
        uwsgi_temp_path uwsgi; scgi_temp_path scgi; include {config}; }",
};

pub const NGINX_STREAM: Recipe = Recipe {
    name: "nginx, stream",
    config: "nginx-stream.conf",
    flags: PROXY_PROTOCOL,
    main: "load_module /usr/lib/nginx/modules/ngx_stream_module.so;
        daemon off; master_process off; pid nginx.pid; events {} include {config};",
    ..NGINX
};

pub const HAPROXY: Recipe = Recipe {
    name: "HAProxy",
    config: "haproxy.cfg",
    scheme: "wss",
    flags: &[],
    program: "haproxy",
    arguments: &["-db", "-f", "main", "-f", "{config}"],
    version: "-v",
    replaced: &[
        ("bind :443", "bind {public}"),
        ("/etc/haproxy", "{dir}"),
        ("inter 2s", "inter 500ms"),
    ],
    // How many clients it carries depends on the machine.
    main: "global\n    maxconn 300\n    stats socket {dir}/states\n",
};

pub const HAPROXY_SEVERAL: Recipe = Recipe {
    config: "haproxy-several.cfg",
    scheme: "ws",
    replaced: &[
        ("bind :80", "bind {public}"),
        ("maxconn 100000", "maxconn 300"),
        ("inter 2s", "inter 500ms"),
    ],
    ..HAPROXY
};

pub const HAPROXY_TCP: Recipe =
    Recipe { name: "HAProxy, tcp", config: "haproxy-tcp.cfg", flags: PROXY_PROTOCOL, ..HAPROXY };

const APACHE: Recipe = Recipe {
    name: "Apache httpd",
    config: "apache.conf",
    scheme: "wss",
    flags: &[],
    program: "apache2",
    arguments: &["-X", "-f", "{dir}/main"],
    version: "-v",
    replaced: &[("*:443", "{public}"), ("/etc/ssl", "{dir}")],
    main: "ServerRoot {dir}\nPidFile pid\nListen {public}\nErrorLog /dev/stderr\nUser www-data\n\
        LoadModule mpm_event_module /usr/lib/apache2/modules/mod_mpm_event.so\n\
        LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so\n\
        LoadModule ssl_module /usr/lib/apache2/modules/mod_ssl.so\n\
        LoadModule proxy_module /usr/lib/apache2/modules/mod_proxy.so\n\
        LoadModule proxy_http_module /usr/lib/apache2/modules/mod_proxy_http.so\n\
        Include {config}\n",
};

const CADDY: Recipe = Recipe {
    name: "Caddy",
    config: "Caddyfile",
    scheme: "wss",
    flags: &[],
    program: "caddy",
    arguments: &["run", "--adapter", "caddyfile", "--config", "{config}"],
    version: "version",
    replaced: &[(
        "echo.example {",
        "{\n    admin off\n    auto_https disable_redirects\n    storage file_system {dir}/caddy\n}\n\
         https://{public} {\n    tls {dir}/echo.example.crt {dir}/echo.example.key\n    bind {ip}",
    )],
    main: "",
};

const TRAEFIK: Recipe = Recipe {
    name: "Traefik",
    config: "traefik-dynamic.yml",
    scheme: "wss",
    flags: &[],
    program: "traefik",
    arguments: &[
        "--entryPoints.websecure.address={public}",
        "--providers.file.filename={config}",
        "--global.checkNewVersion=false",
        "--global.sendAnonymousUsage=false",
    ],
    version: "version",
    replaced: &[("`echo.example`", "`{ip}`"), ("/etc/ssl", "{dir}")],
    main: "",
};

const ENVOY: Recipe = Recipe {
    name: "Envoy",
    config: "envoy.yaml",
    scheme: "wss",
    flags: &[],
    program: "envoy",
    arguments: &["-c", "{config}", "--disable-hot-restart", "--concurrency", "1", "-l", "error"],
    version: "--version",
    replaced: &[
        ("0.0.0.0, port_value: 443", "{ip}, port_value: {port}"),
        ("127.0.0.1, port_value: 1222", "127.0.0.1, port_value: {upstream_port}"),
        ("/etc/ssl", "{dir}"),
    ],
    main: "",
};

const VARNISH: Recipe = Recipe {
    name: "Varnish",
    config: "varnish.vcl",
    scheme: "ws",
    flags: &[],
    program: "varnishd",
    arguments: &["-F", "-j", "none", "-f", "{config}", "-a", "{public}", "-n", "{dir}/varnish"],
    version: "-V",
    replaced: &[("\"1222\"", "\"{upstream_port}\"")],
    main: "",
};

const STUNNEL: Recipe = Recipe {
    name: "stunnel",
    config: "stunnel.conf",
    scheme: "wss",
    flags: PROXY_PROTOCOL,
    program: "stunnel4",
    arguments: &["{config}"],
    version: "-version",
    replaced: &[
        ("[wsecho]", "foreground = yes\npid =\nsyslog = no\n[wsecho]"),
        ("= 443", "= {public}"),
        ("/etc/ssl", "{dir}"),
    ],
    main: "",
};

const LIGHTTPD: Recipe = Recipe {
    name: "lighttpd",
    config: "lighttpd.conf",
    scheme: "ws",
    flags: &[],
    program: "lighttpd",
    arguments: &["-D", "-f", "{dir}/main"],
    version: "-v",
    replaced: &[("\"port\" => 1222", "\"port\" => {upstream_port}")],
    main: "server.document-root = \"{dir}\"\nserver.bind = \"{ip}\"\nserver.port = {port}\n\
        include \"{config}\"\n",
};

const SQUID: Recipe = Recipe {
    name: "Squid",
    config: "squid.conf",
    scheme: "ws",
    flags: &[],
    program: "squid",
    // The name is that of its shared memory.
    arguments: &["-N", "-n", "wsecho{port}", "-d", "1", "-f", "{dir}/main"],
    version: "-v",
    replaced: &[("http_port 80", "http_port {public}"), ("parent 1222", "parent {upstream_port}")],
    main: "pid_filename none\naccess_log none\ncache_log /dev/null\ncoredump_dir none\n\
        visible_hostname squid\nshutdown_lifetime 0\ninclude {config}\n",
};

/// All of them but sshd, which is two programs.
pub const RECIPES: &[&Recipe] = &[
    &NGINX,
    &NGINX_STREAM,
    &HAPROXY,
    &HAPROXY_TCP,
    &APACHE,
    &CADDY,
    &TRAEFIK,
    &ENVOY,
    &VARNISH,
    &STUNNEL,
    &LIGHTTPD,
    &SQUID,
];

/// A proxy in front of wsecho.
pub struct Proxy {
    pub public: SocketAddr,
    pub dir: TempDir,
    pub scheme: &'static str,
    programs: Vec<Program>,
}

impl Recipe {
    /// The configuration that is printed.
    pub fn config(&self) -> String {
        fs::read_to_string(data("proxies").join(self.config)).unwrap()
    }

    /// Starts it in front of `servers`, if it is installed.
    #[track_caller]
    pub fn start(&self, servers: &[&Server]) -> Option<Proxy> {
        self.start_with(&self.config(), servers)
    }

    /// Starts it with a configuration that is nearly the one that is printed.
    #[track_caller]
    pub fn start_with(&self, config: &str, servers: &[&Server]) -> Option<Proxy> {
        if !has_programs(&[self.program, "openssl", "curl"]) {
            return None;
        }
        let (dir, public) = (TempDir::new(), free_addr());
        certify(&dir);
        let upstream = servers[0].addr.port();
        let place = |text: &str| {
            let dir_path = dir.path("").display().to_string();
            text.replace("{config}", dir.path(self.config).to_str().unwrap())
                .replace("{dir}", dir_path.trim_end_matches('/'))
                .replace("{public}", &public.to_string())
                .replace("{ip}", &public.ip().to_string())
                .replace("{port}", &public.port().to_string())
                .replace("{upstream_port}", &upstream.to_string())
        };
        let mut config = config.to_owned();
        for (from, to) in self.replaced {
            config = replaced(&config, from, &place(to));
        }
        for (server, port) in servers.iter().zip(1222..) {
            config = config.replace(&format!("127.0.0.1:{port}"), &server.addr.to_string());
        }
        fs::write(dir.path(self.config), config).unwrap();
        fs::write(dir.path("main"), place(self.main)).unwrap();

        let mut command = Command::new(self.program);
        command.args(self.arguments.iter().map(|argument| place(argument)));
        // Nothing of it is to be outside of the directory.
        command.current_dir(dir.path("")).env("HOME", dir.path(""));
        Some(Proxy::start(vec![command], public, dir, self.scheme))
    }

    /// Its version, as the program says it.
    pub fn version(&self) -> String {
        let output = Command::new(self.program).arg(self.version).output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text).into_owned();
        let is_version = |word: &&str| {
            word.matches('.').count() >= 1 && word.chars().all(|c| c.is_ascii_digit() || c == '.')
        };
        let words = |c: char| !c.is_ascii_digit() && c != '.';
        text.split(words).find(is_version).unwrap_or_else(|| panic!("{text}")).into()
    }
}

/// OpenSSH's `ssh -L`, whose other end stands beside wsecho.
#[track_caller]
pub fn ssh_tunnel(server: &Server) -> Option<Proxy> {
    if !has_programs(&["sshd", "ssh", "ssh-keygen", "curl"]) {
        return None;
    }
    let (dir, public, ssh) = (TempDir::new(), free_addr(), free_addr());
    let key = dir.path("key").display().to_string();
    let output = Command::new("ssh-keygen").args(["-q", "-N", "", "-f", &key]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    // Where its service makes it, as root.
    let _ = fs::create_dir("/run/sshd");
    let config = format!(
        "ListenAddress {}\nPort {}\nHostKey {key}\nAuthorizedKeysFile {key}.pub\nStrictModes no\n\
         PidFile none\n",
        ssh.ip(),
        ssh.port()
    );
    fs::write(dir.path("sshd"), config).unwrap();
    let path = Command::new("sh").args(["-c", "command -v sshd"]).output().unwrap().stdout;
    let mut sshd = Command::new(String::from_utf8(path).unwrap().trim());
    sshd.args(["-D", "-e", "-f"]).arg(dir.path("sshd"));
    let errors = fs::File::create(dir.path("sshd-errors")).unwrap();
    let sshd = Program::start(sshd.stdout(Stdio::null()).stderr(errors));
    eventually(SOON, || TcpStream::connect(ssh).is_ok());
    let mut client = Command::new("ssh");
    client
        .args(["-N", "-L", &format!("{public}:{}", server.addr), "-i", &key])
        .args([
            "-F",
            "none",
            "-o",
            "StrictHostKeyChecking=no",
            "-o",
            "UserKnownHostsFile=/dev/null",
        ])
        .args(["-p", &ssh.port().to_string(), &ssh.ip().to_string()]);
    let mut proxy = Proxy::start(vec![client], public, dir, "ws");
    proxy.programs.push(sshd);
    Some(proxy)
}

impl Proxy {
    /// Starts the programs, and waits until they answer. Some listen before they have read their certificate.
    fn start(
        commands: Vec<Command>,
        public: SocketAddr,
        dir: TempDir,
        scheme: &'static str,
    ) -> Self {
        let programs = commands
            .into_iter()
            .map(|mut command| {
                let errors = fs::File::create(dir.path("errors")).unwrap();
                Program::start(command.stdout(errors.try_clone().unwrap()).stderr(errors))
            })
            .collect();
        let mut proxy = Proxy { public, dir, scheme, programs };
        eventually(START, || {
            let is_running = proxy.programs.iter_mut().all(Program::is_running);
            assert!(is_running, "{}", fs::read_to_string(proxy.dir.path("errors")).unwrap());
            // 52: the response is empty, as of a proxy whose servers are down.
            matches!(proxy.curl("/healthz").output().unwrap().status.code(), Some(0 | 52))
        });
        proxy
    }

    /// A request for `path`, whose certificate is verified.
    pub fn curl(&self, path: &str) -> Command {
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--show-error", "--include", "--http1.1"])
            .args(["--max-time", "10", "--noproxy", "*", "--cacert"])
            .arg(self.certificate())
            .arg(format!("{}://{}{path}", self.scheme.replace("ws", "http"), self.public));
        curl
    }

    pub fn url(&self) -> String {
        format!("{}://{}/", self.scheme, self.public)
    }

    /// The certificate that a client has to trust.
    pub fn certificate(&self) -> std::path::PathBuf {
        self.dir.path("echo.example.crt")
    }
}

impl Drop for Proxy {
    /// Some leave files elsewhere when they are killed.
    fn drop(&mut self) {
        for program in &mut self.programs {
            // One that could not start has ended.
            if program.is_running() {
                program.signal(Signal::TERM);
            }
        }
        let started = Instant::now();
        while self.programs.iter_mut().any(Program::is_running) && started.elapsed() < SOON {
            thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Makes a certificate for the address of [`free_addr`], in the forms that the proxies read.
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
    let read = |path: &Path| fs::read(path).unwrap();
    let both = [read(&certificate), read(&key)].concat();
    fs::write(dir.path("echo.example.pem"), both).unwrap();
}

/// `text` with every `from` replaced, of which there has to be one.
#[track_caller]
pub fn replaced(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "{from:?} is not in {text}");
    text.replace(from, to)
}
