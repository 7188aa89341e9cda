//! The command line and the environment. Its groups of flags are the settings.

#![allow(
    rustdoc::bare_urls,
    rustdoc::broken_intra_doc_links,
    reason = "the comments on the flags are the text of --help"
)]

use std::env;
use std::ffi::{OsStr, OsString};
use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Args, CommandFactory as _, Parser};
use log::LevelFilter;

use crate::app::behavior::Behaviors;
use crate::app::cases::suite::Pattern;
use crate::http::origin::Origin;
use crate::http::request;
use crate::proxy_protocol;
use crate::websocket::negotiation;

#[derive(Clone, Debug, Parser)]
#[command(
    version,
    about,
    max_term_width = 100,
    after_help = "Each flag with a value has an environment variable, such as WSECHO_ADDR.",
    after_long_help = "Each flag with a value has an environment variable: WSECHO_PING_INTERVAL=5s is \
                       --ping-interval 5s. A flag overrides its variable. Separate repeated values by \
                       commas. An empty variable sets nothing, except WSECHO_PREFIX.\n\n\
                       On SIGINT or SIGTERM the server sends each client a close frame and stops. A \
                       second signal ends it at once."
)]
pub struct Config {
    #[command(flatten)]
    pub listening: Listening,
    #[command(flatten)]
    pub messages: Messages,
    #[command(flatten)]
    pub cases: Cases,
    #[command(flatten)]
    pub timeouts: Timeouts,
    #[command(flatten)]
    pub logging: Logging,
}

/// The address to listen on without `--addr` and without an inherited socket.
pub const DEFAULT_ADDR: &str = "127.0.0.1:1222";

/// The addresses to listen on, and the clients to let in.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Listening")]
pub struct Listening {
    /// Address to listen on, repeatable
    ///
    /// The address to listen on: a name, an IPv4 address, or an IPv6 address in brackets, such as
    /// [::1]:1222. A name stands for all of its addresses. Port 0 picks a free port, which the log's
    /// first line names. unix:PATH or unix:@NAME is a Unix-domain socket. Repeatable. [default:
    /// 127.0.0.1:1222, or the sockets passed by a supervisor]
    #[arg(long, value_name = "HOST:PORT", value_delimiter = ',', value_parser = addr)]
    pub addr: Vec<String>,

    #[command(flatten)]
    pub tls: Tls,

    /// Maximum WebSockets
    ///
    /// The maximum number of WebSockets at once. If the kernel carries fewer, the server lowers it and logs
    /// a warning.
    #[arg(long, value_name = "N", default_value = "10000", value_parser = at_least_one)]
    pub max_connections: NonZeroUsize,

    /// Maximum per IP; 0: no limit
    ///
    /// The maximum number of WebSockets at once from one IP address, or 0 for no limit. IPv6 addresses
    /// with the same first 64 bits count as one. Behind a proxy all clients have the proxy's address.
    #[arg(long, value_name = "N", default_value = "0", value_parser = count)]
    pub max_connections_per_ip: usize,

    /// Origin to let in, repeatable [default: any]
    ///
    /// An origin whose pages may connect, such as https://example.org. Repeatable; without it any page
    /// may connect. In a browser, a page from a file has the origin null, and so does a sandboxed frame
    /// of any site. In the web view of an app, a page from a file has the origin file://. The bundled page
    /// may always connect if it is opened at an IP address or localhost.
    #[arg(long, value_name = "ORIGIN", value_delimiter = ',', value_parser = origin)]
    pub origin: Vec<Origin>,

    /// Expect a PROXY header [default: off]
    ///
    /// Whether each connection begins with a PROXY header, version 1 or 2. Load balancers in TCP mode
    /// send it. Its source address is taken as the client's. A connection without it is refused.
    #[arg(long, value_name = "on|off", num_args = 0..=1, default_missing_value = "on")]
    #[arg(value_parser = one_of([("on", proxy_protocol::Mode::On), ("off", proxy_protocol::Mode::Off)]))]
    #[arg(default_value = "off", hide_default_value = true, hide_possible_values = true)]
    pub proxy_protocol: proxy_protocol::Mode,

    /// Who sends it, repeatable [default: all]
    ///
    /// A network or an address that sends PROXY headers, such as 10.0.0.0/8, or unix for the Unix-domain
    /// sockets. Repeatable. A header from any other address is refused.
    #[arg(long, value_name = "CIDR", value_delimiter = ',', value_parser = sender)]
    #[arg(requires = "proxy_protocol")]
    pub proxy_protocol_from: Vec<proxy_protocol::Sender>,

    /// Subprotocol [default: the first offered]
    ///
    /// A subprotocol to accept. Repeatable. The server chooses the client's first offer that is
    /// accepted. Without this flag it accepts any.
    #[arg(long, value_name = "NAME", value_delimiter = ',', value_parser = subprotocol)]
    pub subprotocol: Vec<String>,
}

/// The certificate that TLS is spoken with.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Listening")]
pub struct Tls {
    /// TLS certificate chain, in PEM
    ///
    /// The file with the certificate chain in PEM, the server's own certificate first. Every address
    /// then speaks TLS. A renewed certificate is picked up without a restart.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,

    /// The certificate's private key, in PEM
    ///
    /// The file with the certificate's private key, in PEM.
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
}

/// The names are those of RFC 7692 §7.1.1.
const COMPRESSION: [(&str, negotiation::Mode); 3] = [
    ("no-context-takeover", negotiation::Mode::NoContextTakeover),
    ("context-takeover", negotiation::Mode::ContextTakeover),
    ("off", negotiation::Mode::Off),
];

/// The replies, and the limits of messages.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Messages")]
pub struct Messages {
    /// Text prefix
    ///
    /// The text that the reply to a text message begins with, up to 4096 bytes; '' for a verbatim echo.
    /// Binary messages come back unchanged.
    #[arg(long, value_name = "TEXT", default_value = "You have entered: ", value_parser = prefix)]
    pub prefix: String,

    /// Serve /do and the cases
    ///
    /// Whether a WebSocket at /do misbehaves as its query asks, and whether Autobahn cases are played: on
    /// or off. GET /do lists the parameters of the query.
    #[arg(long, value_name = "on|off", default_value = "on", hide_possible_values = true)]
    #[arg(value_parser = one_of([("on", Behaviors::On), ("off", Behaviors::Off)]))]
    pub behaviors: Behaviors,

    /// Compression [default: no-context-takeover]
    ///
    /// How messages are compressed (permessage-deflate): each on its own (no-context-takeover), with
    /// the context of earlier ones (context-takeover), or not at all (off).
    #[arg(long, value_name = "MODE", value_parser = one_of(COMPRESSION))]
    #[arg(
        default_value = "no-context-takeover",
        hide_default_value = true,
        hide_possible_values = true
    )]
    pub compression: negotiation::Mode,

    /// Maximum message, inflated
    ///
    /// The maximum size of a message, once inflated, in bytes or as 64KiB, 16MiB, 16M (16,000,000). A
    /// larger one is answered by close code 1009.
    #[arg(long, value_name = "SIZE", default_value = "16MiB", value_parser = size_above_0)]
    pub max_message_size: usize,

    /// Memory for all messages
    ///
    /// The memory for all clients' messages together, beyond 64 KiB per client. A message above it is
    /// answered by close code 1013.
    #[arg(long, value_name = "SIZE", default_value = "1GiB", value_parser = size)]
    pub max_buffered: usize,
}

/// The selection of Autobahn cases, and the destination of the verdicts.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Cases")]
pub struct Cases {
    /// Cases to select [default: the 517 of Autobahn]
    ///
    /// The cases that runners play and /verdict expects, such as 1.*,7.9.3. Repeatable; without it the 517
    /// of the Autobahn suite. +beyond adds the groups beyond the suite, 14 to 18. A pattern selects from
    /// these groups only if it begins with a group's number, such as 16.*.
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = Pattern::parse)]
    pub cases: Vec<Pattern>,

    /// Cases to leave out
    ///
    /// The cases to leave out of the selected ones, such as 9.*,12.*,13.*. Repeatable.
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = Pattern::parse)]
    pub exclude_cases: Vec<Pattern>,

    /// Messages in each long case
    ///
    /// The number of messages in each case of 9.7, 9.8, 12 and 13, up to 1000. In CI, 50 are enough.
    #[arg(long, value_name = "N", default_value = "1000")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub case_messages: u32,

    /// Directory for reports [default: none]
    ///
    /// The directory for index.json and a file for each case, written when a runner updates the reports.
    /// They are served at /reports/index.json as well.
    #[arg(long, value_name = "DIR")]
    pub reports: Option<PathBuf>,
}

/// The time limits for a client.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Timeouts")]
pub struct Timeouts {
    /// For the HTTP request
    ///
    /// The time limit for the HTTP request, from the connection to the end of its head. Times are
    /// written as 500ms, 10s, 2m.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = timeout)]
    pub handshake_timeout: Duration,

    /// Silence before a ping; 0: never
    ///
    /// The silence after which a client is pinged; 0 for never.
    #[arg(long, value_name = "TIME", default_value = "20s", value_parser = interval)]
    pub ping_interval: Duration,

    /// For an answer to a ping
    ///
    /// The time limit for a sign of life after a ping: any byte from the client.
    #[arg(long, value_name = "TIME", default_value = "20s", value_parser = timeout)]
    pub ping_timeout: Duration,

    /// To read or send 64 KiB
    ///
    /// The time limit for a client to read 64 KiB of what it is sent, or to send 64 KiB of a message.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = timeout)]
    pub write_timeout: Duration,

    /// For an answer to a close
    ///
    /// The time limit for the answer to a close. A server that stops waits up to this long for its
    /// clients.
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = timeout)]
    pub close_timeout: Duration,
}

/// The log's file and level.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Logging")]
pub struct Logging {
    /// File to append to [default: stderr]
    ///
    /// The file to append the log to, or - for the standard error. It is created with mode 0640, and
    /// may be rotated by copying and truncating it.
    #[arg(long, value_name = "FILE")]
    pub log_file: Option<PathBuf>,

    /// Log more: messages; -vv frames, too
    ///
    /// Also log each message and health check; twice, each frame, too. Without -v and -q the environment
    /// variable RUST_LOG sets the level, such as RUST_LOG=warn. The default is info.
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

impl Config {
    /// Reads the command line and the environment. A mistake in them ends the process with an error.
    pub fn read() -> Self {
        let args: Vec<_> = env::args_os().collect();
        Self::from(&args).unwrap_or_else(|error| error.exit())
    }

    /// Completes the command line from the environment.
    fn from(args: &[OsString]) -> Result<Self, clap::Error> {
        let given = match Self::command().try_get_matches_from(args) {
            // The environment may have it.
            Err(error) if error.kind() == ErrorKind::MissingRequiredArgument => {
                Self::command().ignore_errors(true).try_get_matches_from(args)?
            }
            matches => matches.map_err(explain)?,
        };
        let set = in_environment(&given)?;
        let (program, flags) = args.split_at(args.len().min(1));
        Self::try_parse_from([program, &set, flags].concat())
    }
}

/// The environment variable of a flag: every flag with a value has one, by one rule.
fn variable(flag: &Arg) -> Option<String> {
    let name = || format!("WSECHO_{}", flag.get_id().as_str().to_uppercase());
    flag.get_action().takes_values().then(name)
}

/// The environment's values for flags that the command line lacks, as further arguments.
fn in_environment(given: &ArgMatches) -> Result<Vec<OsString>, clap::Error> {
    let mut arguments = Vec::new();
    for flag in Config::command().get_arguments() {
        let (Some(variable), Some(name)) = (variable(flag), flag.get_long()) else { continue };
        let source = given.value_source(flag.get_id().as_str());
        if source != Some(ValueSource::CommandLine)
            && let Some(value) = value_of(&variable)
        {
            let argument = [format!("--{name}=").into_bytes(), value].concat();
            let argument = OsString::from_vec(argument);
            check_alone(&argument).map_err(|error| name_variable(error, variable))?;
            arguments.push(argument);
        }
    }
    Ok(arguments)
}

/// The value of a variable that sets something.
fn value_of(variable: &str) -> Option<Vec<u8>> {
    let mut value = env::var_os(variable)?.into_vec();
    // The variable may come from a file with Windows line endings.
    while value.ends_with(b"\r") {
        value.pop();
    }
    // Many tools can't unset a variable, only empty it. But an empty prefix is a value.
    (!value.is_empty() || variable == "WSECHO_PREFIX").then_some(value)
}

/// Checks the value in `argument`, without the flags that it needs beside it.
fn check_alone(argument: &OsStr) -> Result<(), clap::Error> {
    match Config::command().try_get_matches_from([OsStr::new("wsecho"), argument]) {
        Err(error) if error.kind() != ErrorKind::MissingRequiredArgument => Err(error),
        _ => Ok(()),
    }
}

/// Names the variable where clap's error names its flag.
fn name_variable(mut error: clap::Error, variable: String) -> clap::Error {
    if error.kind() == ErrorKind::InvalidUtf8 {
        return Config::command().error(error.kind(), format!("{variable} is not UTF-8"));
    }
    error.insert(ContextKind::InvalidArg, ContextValue::String(variable));
    error
}

/// Suggests `--addr` for what other servers call it.
fn explain(mut error: clap::Error) -> clap::Error {
    const LIKE_ADDR: [&str; 5] = ["--port", "-p", "--host", "--bind", "--listen"];
    let unknown = match error.kind() {
        ErrorKind::UnknownArgument => error.get(ContextKind::InvalidArg).map(ToString::to_string),
        _ => None,
    };
    if unknown.is_some_and(|unknown| LIKE_ADDR.contains(&unknown.as_str())) {
        error.insert(ContextKind::SuggestedArg, ContextValue::String("--addr".into()));
        let usage = Config::command().render_usage();
        error.insert(ContextKind::Usage, ContextValue::StyledStr(usage));
    }
    error
}

/// The variable that marks a re-executed process, whose allocator is tuned. glibc hides its own variable
/// from programs with capabilities.
pub const ALLOCATOR_TUNED: &str = "WSECHO_ALLOCATOR_TUNED";

/// A warning for each variable that begins like wsecho's and that no flag reads.
pub fn unknown_variables() -> impl Iterator<Item = String> {
    let known: Vec<_> = Config::command().get_arguments().filter_map(variable).collect();
    let is_unknown = move |(name, value): &(String, OsString)| {
        let is_other =
            name == ALLOCATOR_TUNED || is_from_kubernetes(name, &value.to_string_lossy());
        name.starts_with("WSECHO_") && !is_other && !known.contains(name)
    };
    let variables =
        env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value)));
    variables.filter(is_unknown).map(|(name, _)| match similar_variable(&name) {
        Some(similar) => format!("unknown environment variable {name}; did you mean {similar}?"),
        None => format!("unknown environment variable {name}"),
    })
}

/// Whether Kubernetes sets this variable for a Service whose name begins with wsecho, such as
/// `WSECHO_TLS_PORT=tcp://10.0.0.1:443` for `wsecho-tls`.
fn is_from_kubernetes(name: &str, value: &str) -> bool {
    let is_port = name.ends_with("_PORT") && value.contains("://");
    is_port || name.contains("_SERVICE_") || name.contains("_PORT_")
}

/// The variable of the flag that clap would suggest.
fn similar_variable(name: &str) -> Option<String> {
    let flag = name.strip_prefix("WSECHO_")?.to_lowercase().replace('_', "-");
    let args = ["wsecho".into(), format!("--{flag}")];
    let error = explain(Config::command().try_get_matches_from(args).err()?);
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
    if matches!(host, "" | "*") {
        return Err(format!("expected a host; all addresses are 0.0.0.0:{port} or [::]:{port}"));
    }
    let bracketed = host.starts_with('[') && host.ends_with(']');
    if host.contains(':') && !bracketed {
        return Err(expected.into());
    }
    match port.parse::<u16>() {
        Ok(_) => Ok(text.into()),
        Err(_) => Err("expected a port from 0 to 65535 after the last colon".into()),
    }
}

/// A parser of one of these names, which returns the value beside it.
fn one_of<T: Copy + Send + Sync + 'static, const N: usize>(
    named: [(&'static str, T); N],
) -> impl TypedValueParser<Value = T> {
    PossibleValuesParser::new(named.map(|(name, _)| name)).try_map(move |given| {
        let found = named.into_iter().find(|(name, _)| *name == given);
        found.map(|(_, value)| value).ok_or("no such value")
    })
}

fn sender(text: &str) -> Result<proxy_protocol::Sender, String> {
    proxy_protocol::Sender::parse(text.trim())
}

fn at_least_one(text: &str) -> Result<NonZeroUsize, String> {
    text.parse().map_err(|_| "expected a whole number, 1 or more".into())
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

/// The length is limited since each reply of a client, even an empty one, costs this much memory.
fn prefix(text: &str) -> Result<String, String> {
    const MAX: usize = 4096;
    match text.len() {
        ..=MAX => Ok(text.into()),
        len => Err(format!("expected at most {MAX} bytes, not {len}")),
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
    /// A limit, so that adding a time to the clock can't overflow.
    const MAX: Duration = Duration::from_secs(365 * 24 * 60 * 60);
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    match humantime::parse_duration(text) {
        Ok(time) if time <= MAX => Ok(time),
        Ok(_) => Err("expected a time of up to 365 days".into()),
        Err(_) => Err("expected a time with its unit, for example 500ms, 10s or 2m".into()),
    }
}

fn timeout(text: &str) -> Result<Duration, String> {
    /// A timeout is divided into several waits, which must not be 0.
    const MIN: Duration = Duration::from_millis(1);
    match interval(text)? {
        time if time >= MIN => Ok(time),
        _ => Err("expected a time of at least 1ms, for example 500ms, 10s or 2m".into()),
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
        let Config { listening, messages, cases, timeouts, logging } = parse(&[]).unwrap();
        assert!(listening.addr.is_empty());
        assert_eq!(listening.max_connections.get(), 10_000);
        assert!(listening.origin.is_empty() && listening.subprotocol.is_empty());
        assert_eq!(messages.prefix, "You have entered: ");
        assert_eq!(messages.behaviors, Behaviors::On);
        assert_eq!(messages.compression, negotiation::Mode::NoContextTakeover);
        assert_eq!(messages.max_message_size, 16 << 20);
        assert_eq!(messages.max_buffered, 1 << 30);
        assert!(cases.cases.is_empty() && cases.exclude_cases.is_empty());
        assert_eq!((cases.case_messages, cases.reports), (1000, None));
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
            ("--addr", ":1222", "0.0.0.0:1222"),
            ("--addr", "*:1222", "[::]:1222"),
            ("--addr", "::1:1222", "[::1]:1222"),
            ("--addr", "localhost:65536", "0 to 65535"),
            ("--max-connections", "0", "1 or more"),
            ("--max-connections", "-1", "1 or more"),
            ("--compression", "on", "context-takeover"),
            ("--max-message-size", "big", "16MiB"),
            ("--max-message-size", "-1", "16MiB"),
            ("--max-message-size", "1e30", "16MiB"),
            ("--ping-interval", "10", "10s"),
            ("--write-timeout", "0s", "at least 1ms"),
            ("--write-timeout", "999us", "at least 1ms"),
            ("--write-timeout", "500000000000years", "365 days"),
            ("--ping-interval", "366days", "365 days"),
            ("--handshake-timeout", "0", "at least 1ms"),
            ("--origin", "https://a.example/", "without a path"),
            ("--origin", "example", "SCHEME://HOST"),
            ("--proxy-protocol", "maybe", "on, off"),
            ("--proxy-protocol-from", "10.0.0.1/8", "10.0.0.0/8"),
            ("--subprotocol", "a b", "without spaces"),
            ("--subprotocol", "", "without spaces"),
            ("--behaviors", "maybe", "on, off"),
            ("--cases", "seven", "1.*,7.9.3"),
            ("--exclude-cases", "1.*,", "1.*,7.9.3"),
            ("--case-messages", "0", "1..=1000"),
            ("--case-messages", "1001", "1..=1000"),
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
