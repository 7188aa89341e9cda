//! The command line and the environment. Its groups of flags are the settings.

#![allow(
    rustdoc::bare_urls,
    rustdoc::broken_intra_doc_links,
    reason = "the comments on the flags are the text of --help"
)]

use std::env;
use std::ffi::OsString;
use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{
    Arg, ArgAction, Args, Command, CommandFactory as _, FromArgMatches as _, Parser, ValueEnum,
};
use log::LevelFilter;

use crate::app::behavior::Behaviors;
use crate::http::origin::Origin;
use crate::http::request;
use crate::proxy_protocol;
use crate::websocket::negotiation;

/// A WebSocket echo server: one thread per client, strict about RFC 6455
#[derive(Clone, Debug, Parser)]
#[command(
    version,
    max_term_width = 100,
    after_help = "Each flag with a value is an environment variable too, such as WSECHO_ADDR.",
    after_long_help = "Each flag with a value can be set in the environment as well: --ping-interval 5s is \
                       WSECHO_PING_INTERVAL=5s there. What is repeatable is separated by commas. A \
                       flag wins.\n\n\
                       On SIGINT or SIGTERM the server sends each client a close frame and stops. A \
                       second signal ends it at once."
)]
pub struct Config {
    #[command(flatten)]
    pub listening: Listening,
    #[command(flatten)]
    pub messages: Messages,
    #[command(flatten)]
    pub timeouts: Timeouts,
    #[command(flatten)]
    pub logging: Logging,
}

/// The address to listen on without `--addr` and without an inherited socket.
pub const DEFAULT_ADDR: &str = "127.0.0.1:1222";

/// Who may connect, and where.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Listening")]
pub struct Listening {
    /// Address to listen on, repeatable
    ///
    /// The address to listen on: a name, an IPv4 address, or an IPv6 address in brackets, such as
    /// [::1]:1222. A name stands for all of its addresses. Port 0 picks a free port, and the log's first
    /// line tells which. unix:PATH or unix:@NAME is a Unix-domain socket. Repeatable. [default:
    /// 127.0.0.1:1222, or the sockets that a supervisor hands over]
    #[arg(long, value_name = "HOST:PORT", value_delimiter = ',', value_parser = addr)]
    pub addr: Vec<String>,

    #[command(flatten)]
    pub tls: Tls,

    /// Most WebSockets at once
    ///
    /// The limit of WebSockets at once. It is lowered to what the kernel can carry, and then the log
    /// says so.
    #[arg(long, value_name = "N", default_value = "10000", value_parser = at_least_one)]
    pub max_connections: NonZeroUsize,

    /// Most from one IP; 0: any
    ///
    /// The limit of WebSockets at once from one IP address, or 0 for none. Behind a proxy all clients
    /// have the proxy's address.
    #[arg(long, value_name = "N", default_value = "0", value_parser = count)]
    pub max_connections_per_ip: usize,

    /// Origin to let in, repeatable [default: any]
    ///
    /// An origin whose pages may connect, such as https://example.org. A page from a file has the origin
    /// null in a browser, as has a sandboxed frame of any site, and file:// in the web view of an app.
    /// Repeatable; without it any page may. The bundled page always may, where it is opened at an IP
    /// address or localhost.
    #[arg(long, value_name = "ORIGIN", value_delimiter = ',', value_parser = origin)]
    pub origin: Vec<Origin>,

    /// Expect a PROXY header [default: off]
    ///
    /// Whether each connection begins with a PROXY header, version 1 or 2, which balancers in TCP mode
    /// send: its source address is then the client's. A connection without it is refused.
    #[arg(long, value_name = "on|off", num_args = 0..=1, default_missing_value = "on")]
    #[arg(default_value = "off", value_parser = proxy_protocol(), hide_default_value = true)]
    #[arg(hide_possible_values = true)]
    pub proxy_protocol: proxy_protocol::Mode,

    /// Who sends it, repeatable [default: all]
    ///
    /// A network or an address that PROXY headers are expected from, such as 10.0.0.0/8, or unix for
    /// the Unix-domain sockets. Repeatable; from others none is expected, and none is believed.
    #[arg(long, value_name = "CIDR", value_delimiter = ',', value_parser = sender)]
    #[arg(requires = "proxy_protocol")]
    pub proxy_protocol_from: Vec<proxy_protocol::Sender>,

    /// Subprotocol [default: the first offered]
    ///
    /// A subprotocol to agree to. Repeatable: the client's first offer that is listed is agreed to,
    /// and without a list its first offer.
    #[arg(long, value_name = "NAME", value_delimiter = ',', value_parser = subprotocol)]
    pub subprotocol: Vec<String>,
}

/// The certificate that TLS is spoken with.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Listening")]
pub struct Tls {
    /// TLS certificate and its chain, in PEM
    ///
    /// The file with the certificate and those between it and its root, in PEM. Every address then
    /// speaks TLS. A renewed certificate is taken without a restart.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,

    /// The certificate's private key, in PEM
    ///
    /// The file with the certificate's private key, in PEM.
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
}

/// What is replied to messages, and how large they may be.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Messages")]
pub struct Messages {
    /// Text prefix
    ///
    /// The text put before each text that is sent back, up to 4096 bytes; '' for a verbatim echo.
    /// Binary messages come back as they are.
    #[arg(long, value_name = "TEXT", default_value = "You have entered: ", value_parser = prefix)]
    pub prefix: String,

    /// Misbehave at /do as asked
    ///
    /// Whether a WebSocket at /do misbehaves as its query says: on or off. GET /do is the table of what
    /// it can ask for.
    #[arg(long, value_name = "on|off", default_value = "on", value_parser = behaviors())]
    #[arg(hide_possible_values = true)]
    pub behaviors: Behaviors,

    /// How to deflate [default: no-context-takeover]
    ///
    /// Whether messages are compressed (permessage-deflate): no-context-takeover for each on its own,
    /// context-takeover for each with what earlier ones said, or off.
    #[arg(long, value_name = "MODE", default_value = "no-context-takeover")]
    #[arg(hide_possible_values = true, hide_default_value = true)]
    pub compression: negotiation::Mode,

    /// Largest message, inflated
    ///
    /// The size of the largest message, once inflated, in bytes or as 64KiB, 16MiB, 16M (16,000,000). A
    /// larger one is answered by close code 1009.
    #[arg(long, value_name = "SIZE", default_value = "16MiB", value_parser = size_above_0)]
    pub max_message_size: usize,

    /// Memory of all messages
    ///
    /// The memory that all clients together may hold above 64 KiB each. A message beyond it is
    /// answered by close code 1013.
    #[arg(long, value_name = "SIZE", default_value = "1GiB", value_parser = size)]
    pub max_buffered: usize,
}

/// How long a client is waited for.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Timeouts")]
pub struct Timeouts {
    /// For the HTTP request
    ///
    /// The time limit for the HTTP request, from the connection to the end of its head. Times are
    /// written as 500ms, 10s, 2m.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = timeout)]
    pub handshake_timeout: Duration,

    /// Silence before a ping; 0: none
    ///
    /// The silence after which a client is pinged; 0 for never.
    #[arg(long, value_name = "TIME", default_value = "20s", value_parser = interval)]
    pub ping_interval: Duration,

    /// For an answer to a ping
    ///
    /// The time limit for a sign of life after a ping. Whatever the client sends is one.
    #[arg(long, value_name = "TIME", default_value = "20s", value_parser = timeout)]
    pub ping_timeout: Duration,

    /// To read or send 64 KiB
    ///
    /// The time limit for a client to read 64 KiB of what it is sent, or to send 64 KiB of a message.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = timeout)]
    pub write_timeout: Duration,

    /// For an answer to a close
    ///
    /// The time limit for the answer to a close. When the server stops, it waits so long for its
    /// clients.
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = timeout)]
    pub close_timeout: Duration,
}

/// What is logged, and where.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Logging")]
pub struct Logging {
    /// File to append to [default: stderr]
    ///
    /// The file to append the log to, instead of the standard error. It is created with mode 0640,
    /// and may be rotated by copying and truncating it.
    #[arg(long, value_name = "FILE")]
    pub log_file: Option<PathBuf>,

    /// Log more: each message, health check
    ///
    /// Log each message and health check as well. Without -v and -q the environment variable RUST_LOG
    /// decides, such as RUST_LOG=warn, and without it the level is info.
    #[arg(short, long, action = ArgAction::Count)]
    pub verbose: u8,

    /// Log less: warnings; -qq errors only
    ///
    /// Log warnings and errors only; twice, errors only.
    #[arg(short, long, action = ArgAction::Count)]
    pub quiet: u8,
}

impl Listening {
    /// Whether a peer with this address, or without one over a Unix-domain socket, has to send a PROXY
    /// header.
    pub fn expects_proxy_header(&self, peer: Option<IpAddr>) -> bool {
        let from = &self.proxy_protocol_from;
        self.proxy_protocol == proxy_protocol::Mode::On
            && (from.is_empty() || from.iter().any(|sender| sender.is(peer)))
    }
}

/// The names are those of RFC 7692 §7.1.1.
impl ValueEnum for negotiation::Mode {
    fn value_variants<'a>() -> &'a [Self] {
        use negotiation::Mode::{ContextTakeover, NoContextTakeover, Off};
        &[NoContextTakeover, ContextTakeover, Off]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(match self {
            negotiation::Mode::NoContextTakeover => "no-context-takeover",
            negotiation::Mode::ContextTakeover => "context-takeover",
            negotiation::Mode::Off => "off",
        }))
    }
}

impl Config {
    /// Reads the command line and the environment. A mistake in them ends the process with an error.
    pub fn read() -> Self {
        let args: Vec<_> = env::args_os().collect();
        let matches = Self::command().mut_args(in_environment).try_get_matches_from(&args);
        let config = matches.and_then(|matches| Self::from_arg_matches(&matches));
        config.unwrap_or_else(|error| explain(error, &args).exit())
    }
}

/// The environment variable of a flag: every flag with a value has one, by one rule.
pub fn variable(flag: &Arg) -> Option<String> {
    let name = || format!("WSECHO_{}", flag.get_id().as_str().to_uppercase());
    flag.get_action().takes_values().then(name)
}

fn in_environment(flag: Arg) -> Arg {
    match variable(&flag) {
        // The help says the rule once.
        Some(variable) => flag.env(variable).hide_env(true),
        None => flag,
    }
}

/// What an error means, for the one who has to fix it.
fn explain(mut error: clap::Error, args: &[OsString]) -> clap::Error {
    /// What other servers call it.
    const LIKE_ADDR: [&str; 5] = ["--port", "-p", "--host", "--bind", "--listen"];
    match error.kind() {
        ErrorKind::UnknownArgument => {
            let unknown = error.get(ContextKind::InvalidArg).map(ToString::to_string);
            if unknown.is_some_and(|unknown| LIKE_ADDR.contains(&unknown.as_str())) {
                error.insert(ContextKind::SuggestedArg, ContextValue::String("--addr".into()));
                let usage = Config::command().render_usage();
                error.insert(ContextKind::Usage, ContextValue::StyledStr(usage));
            }
            error
        }
        ErrorKind::InvalidValue | ErrorKind::ValueValidation | ErrorKind::InvalidUtf8 => {
            in_a_variable(error.kind(), args).unwrap_or(error)
        }
        _ => error,
    }
}

/// The error, if it is a variable of the environment that causes it on this command line. It names the
/// variable, where clap's own names the flag.
fn in_a_variable(kind: ErrorKind, args: &[OsString]) -> Option<clap::Error> {
    let error = |command: Command| {
        command.try_get_matches_from(args).err().filter(|error| error.kind() == kind)
    };
    if error(Config::command()).is_some() {
        return None;
    }
    let command = Config::command();
    command.get_arguments().find_map(|flag| {
        let variable = variable(flag)?;
        let mut error = error(Config::command().mut_arg(flag.get_id(), in_environment))?;
        if kind == ErrorKind::InvalidUtf8 {
            return Some(Config::command().error(kind, format!("{variable} is not UTF-8")));
        }
        error.insert(ContextKind::InvalidArg, ContextValue::String(variable));
        Some(error)
    })
}

/// What is wrong with variables of the environment that have wsecho's name, and set nothing.
pub fn unknown_variables() -> impl Iterator<Item = String> {
    /// The mark of a start with a tuned allocator, and what Kubernetes sets for a service called wsecho.
    const OTHERS: [&str; 3] = ["WSECHO_ALLOCATOR_TUNED", "WSECHO_SERVICE_", "WSECHO_PORT_"];
    let known: Vec<_> = Config::command().get_arguments().filter_map(variable).collect();
    let is_unknown = move |(name, value): &(String, OsString)| {
        let is_service = name == "WSECHO_PORT" && value.to_string_lossy().starts_with("tcp://");
        let is_other = is_service || OTHERS.iter().any(|other| name.starts_with(other));
        name.starts_with("WSECHO_") && !is_other && !known.contains(name)
    };
    let variables =
        env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value)));
    variables.filter(is_unknown).map(|(name, _)| match similar_variable(&name) {
        Some(similar) => format!("the environment's {name} sets nothing; did you mean {similar}?"),
        None => format!("the environment's {name} sets nothing"),
    })
}

/// The variable of the flag that clap would suggest.
fn similar_variable(name: &str) -> Option<String> {
    let flag = name.strip_prefix("WSECHO_")?.to_lowercase().replace('_', "-");
    let args = ["wsecho".into(), format!("--{flag}").into()];
    let error = explain(Config::command().try_get_matches_from(&args).err()?, &args);
    let similar = error.get(ContextKind::SuggestedArg)?.to_string();
    let command = Config::command();
    let similar =
        command.get_arguments().find(|flag| flag.get_long() == similar.strip_prefix("--"))?;
    variable(similar)
}

impl Logging {
    /// How much to log, if the command line says it.
    pub fn level(&self) -> Option<LevelFilter> {
        match i16::from(self.verbose) - i16::from(self.quiet) {
            0 => None,
            1 => Some(LevelFilter::Debug),
            2.. => Some(LevelFilter::Trace),
            -1 => Some(LevelFilter::Warn),
            ..=-2 => Some(LevelFilter::Error),
        }
    }
}

fn addr(text: &str) -> Result<String, String> {
    let text = text.trim();
    let expected = "expected HOST:PORT, for example 127.0.0.1:1222, [::1]:1222 or localhost:1222, or \
                    unix:PATH";
    if let Some(name) = text.strip_prefix("unix:") {
        let is_missing = matches!(name, "" | "@");
        return if is_missing { Err(expected.into()) } else { Ok(text.into()) };
    }
    let (host, port) = text.rsplit_once(':').ok_or(expected)?;
    let bracketed = host.starts_with('[') && host.ends_with(']');
    if host.is_empty() || (host.contains(':') && !bracketed) {
        return Err(expected.into());
    }
    match port.parse::<u16>() {
        Ok(_) => Ok(text.into()),
        Err(_) => Err("expected a port from 0 to 65535 after the last colon".into()),
    }
}

fn behaviors() -> impl TypedValueParser<Value = Behaviors> {
    PossibleValuesParser::new(["on", "off"]).map(|value| match &*value {
        "off" => Behaviors::Off,
        _ => Behaviors::On,
    })
}

fn proxy_protocol() -> impl TypedValueParser<Value = proxy_protocol::Mode> {
    PossibleValuesParser::new(["on", "off"]).map(|value| match &*value {
        "on" => proxy_protocol::Mode::On,
        _ => proxy_protocol::Mode::Off,
    })
}

fn sender(text: &str) -> Result<proxy_protocol::Sender, String> {
    proxy_protocol::Sender::parse(text.trim())
}

fn at_least_one(text: &str) -> Result<NonZeroUsize, String> {
    text.parse().map_err(|_| "expected a whole number from 1 on".into())
}

fn count(text: &str) -> Result<usize, String> {
    text.parse().map_err(|_| "expected a whole number, for example 100".into())
}

fn origin(text: &str) -> Result<Origin, String> {
    Origin::parse(text.trim())
}

fn subprotocol(text: &str) -> Result<String, String> {
    match request::token(text.trim().as_bytes()) {
        Some(name) => Ok(name.into()),
        None => Err("expected a name without spaces or separators, for example chat".into()),
    }
}

/// A prefix is copied before each reply, so its length decides what a client may cost.
fn prefix(text: &str) -> Result<String, String> {
    const LONGEST: usize = 4096;
    match text.len() {
        ..=LONGEST => Ok(text.into()),
        len => Err(format!("expected at most {LONGEST} bytes, and these are {len}")),
    }
}

fn size(text: &str) -> Result<usize, String> {
    let size = text.parse::<ByteSize>().ok().and_then(|size| usize::try_from(size.as_u64()).ok());
    size.ok_or_else(|| {
        "expected a size, for example 65536, 64KiB, 16MiB or 16M (16,000,000)".into()
    })
}

fn size_above_0(text: &str) -> Result<usize, String> {
    match size(text)? {
        0 => Err("expected a size above 0, for example 65536, 64KiB or 16MiB".into()),
        size => Ok(size),
    }
}

fn interval(text: &str) -> Result<Duration, String> {
    /// A clock has an end, and no instant is after it.
    const LONGEST: Duration = Duration::from_secs(365 * 24 * 60 * 60);
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    match humantime::parse_duration(text) {
        Ok(time) if time <= LONGEST => Ok(time),
        Ok(_) => Err("expected a time of up to 365 days".into()),
        Err(_) => Err("expected a time with its unit, for example 500ms, 10s or 2m".into()),
    }
}

fn timeout(text: &str) -> Result<Duration, String> {
    /// Waits are a part of it each, which has to be more than nothing.
    const SHORTEST: Duration = Duration::from_millis(1);
    match interval(text)? {
        time if time >= SHORTEST => Ok(time),
        _ => Err("expected a time from 1ms on, for example 500ms, 10s or 2m".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(flags: &[&str]) -> Result<Config, clap::Error> {
        Config::try_parse_from([&["wsecho"], flags].concat())
    }

    #[test]
    fn the_command_line_is_consistent() {
        <Config as clap::CommandFactory>::command().debug_assert();
    }

    #[test]
    fn the_defaults_are_those_of_the_readme() {
        let Config { listening, messages, timeouts, logging } = parse(&[]).unwrap();
        assert!(listening.addr.is_empty());
        assert_eq!(listening.max_connections.get(), 10_000);
        assert!(listening.origin.is_empty() && listening.subprotocol.is_empty());
        assert_eq!(messages.prefix, "You have entered: ");
        assert_eq!(messages.behaviors, Behaviors::On);
        assert_eq!(messages.compression, negotiation::Mode::NoContextTakeover);
        assert_eq!(messages.max_message_size, 16 << 20);
        assert_eq!(messages.max_buffered, 1 << 30);
        assert_eq!(timeouts.handshake_timeout, Duration::from_secs(10));
        assert_eq!(timeouts.ping_interval, Duration::from_secs(20));
        assert_eq!(timeouts.ping_timeout, Duration::from_secs(20));
        assert_eq!(timeouts.write_timeout, Duration::from_secs(30));
        assert_eq!(timeouts.close_timeout, Duration::from_secs(5));
        assert_eq!((logging.log_file.as_ref(), logging.level()), (None, None));
    }

    #[test]
    fn values_are_read_as_people_write_them() {
        let flags = "--addr [::1]:0 --addr localhost:80 --max-message-size 16M --max-buffered 1.5GiB \
                     --ping-interval 0 --origin null --origin https://A.example:443";
        let flags: Vec<_> =
            flags.split_whitespace().chain(["--close-timeout", "1m 500ms"]).collect();
        let Config { listening, messages, timeouts, .. } = parse(&flags).unwrap();
        assert_eq!(listening.addr, ["[::1]:0", "localhost:80"]);
        assert_eq!(messages.max_message_size, 16_000_000);
        assert_eq!(messages.max_buffered, 3 << 29);
        assert_eq!(timeouts.ping_interval, Duration::ZERO);
        assert_eq!(timeouts.close_timeout, Duration::from_millis(60_500));
        let origins: Vec<_> = listening.origin.iter().map(ToString::to_string).collect();
        assert_eq!(origins, ["null", "https://a.example"]);
    }

    #[test]
    fn a_wrong_value_is_refused_and_the_flag_and_a_right_one_are_named() {
        let long = "x".repeat(4097);
        for (flag, value, right) in [
            ("--addr", "1222", "127.0.0.1:1222"),
            ("--addr", ":1222", "127.0.0.1:1222"),
            ("--addr", "::1:1222", "[::1]:1222"),
            ("--addr", "localhost:65536", "0 to 65535"),
            ("--max-connections", "0", "from 1 on"),
            ("--max-connections", "-1", "from 1 on"),
            ("--compression", "on", "context-takeover"),
            ("--max-message-size", "big", "16MiB"),
            ("--max-message-size", "-1", "16MiB"),
            ("--max-message-size", "1e30", "16MiB"),
            ("--ping-interval", "10", "10s"),
            ("--write-timeout", "0s", "from 1ms on"),
            ("--write-timeout", "999us", "from 1ms on"),
            ("--write-timeout", "500000000000years", "365 days"),
            ("--ping-interval", "366days", "365 days"),
            ("--handshake-timeout", "0", "from 1ms on"),
            ("--origin", "https://a.example/", "without a path"),
            ("--origin", "example", "SCHEME://HOST"),
            ("--proxy-protocol", "maybe", "on, off"),
            ("--proxy-protocol-from", "10.0.0.1/8", "10.0.0.0/8"),
            ("--subprotocol", "a b", "without spaces"),
            ("--subprotocol", "", "without spaces"),
            ("--behaviors", "maybe", "on, off"),
            ("--prefix", &long, "at most 4096 bytes"),
        ] {
            let flags = format!("{flag}={value}");
            let error = parse(&[&flags]).expect_err(&flags).to_string();
            assert!(error.contains(flag) && error.contains(right), "{flags}: {error}");
        }
    }

    #[test]
    fn a_proxy_header_is_expected_from_those_that_are_listed() {
        let expects = |flags: &[&str], peer: &str| {
            parse(flags).unwrap().listening.expects_proxy_header(peer.parse().ok())
        };
        assert!(!expects(&[], "10.0.0.1"));
        assert!(!expects(&["--proxy-protocol", "off"], "10.0.0.1"));
        for on in [&["--proxy-protocol", "-v"][..], &["--proxy-protocol=on"]] {
            assert!(expects(on, "10.0.0.1") && expects(on, "unix"), "{on:?}");
        }
        let some = ["--proxy-protocol", "--proxy-protocol-from=10.0.0.0/8,::1"];
        assert!(expects(&some, "::ffff:10.0.0.1") && expects(&some, "::1"));
        assert!(!expects(&some, "11.0.0.1") && !expects(&some, "unix"));
        assert!(expects(&["--proxy-protocol", "--proxy-protocol-from=unix"], "unix"));
        let error = parse(&["--proxy-protocol-from=unix"]).unwrap_err().to_string();
        assert!(error.contains("--proxy-protocol"), "{error}");
    }

    #[test]
    fn verbose_and_quiet_cancel_each_other_out() {
        for (flags, level) in [
            (&["-v"][..], Some(LevelFilter::Debug)),
            (&["-q"], Some(LevelFilter::Warn)),
            (&["-qq"], Some(LevelFilter::Error)),
            (&["-v", "-q"], None),
            (&["-v", "-qq"], Some(LevelFilter::Warn)),
        ] {
            assert_eq!(parse(flags).unwrap().logging.level(), level, "{flags:?}");
        }
    }
}
