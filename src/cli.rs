//! The command line and the environment. Its groups of flags are the settings.

#![allow(
    rustdoc::bare_urls,
    rustdoc::broken_intra_doc_links,
    reason = "the comments on the flags are the text of --help"
)]

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use clap::builder::PossibleValue;
use clap::{Arg, ArgAction, Args, CommandFactory as _, FromArgMatches as _, Parser, ValueEnum};
use log::LevelFilter;

use crate::http::origin::Origin;
use crate::http::request;
use crate::websocket::deflate;

/// A WebSocket echo server: one thread per client, strict about RFC 6455
#[derive(Clone, Debug, Parser)]
#[command(
    version,
    max_term_width = 100,
    after_help = "Every flag but -v and -q can be set in the environment as well, under the name shown after \
                  it. A flag wins. Lists are separated by commas there. On SIGINT or SIGTERM the \
                  server sends each client a close frame and stops. A second one stops it at once."
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

/// Who may connect, and where.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Listening")]
pub struct Listening {
    /// Address to listen on; repeatable; [::1]:PORT for IPv6, port 0 for any free port
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:1222")]
    #[arg(value_delimiter = ',', value_parser = addr)]
    pub addr: Vec<String>,

    /// Limit of WebSockets at once, lowered to what the kernel can carry
    #[arg(long, value_name = "N", default_value = "10000", value_parser = at_least_one)]
    pub max_connections: NonZeroUsize,

    /// Limit of WebSockets at once from one IP address, which may be a proxy's; 0 for none
    #[arg(long, value_name = "N", default_value = "0", value_parser = count)]
    pub max_connections_per_ip: usize,

    /// Origin whose pages may connect, such as https://example.org, or null for a page from a file;
    /// repeatable [default: any]
    #[arg(long, value_name = "ORIGIN", value_delimiter = ',', value_parser = Origin::parse)]
    pub origin: Vec<Origin>,

    /// Subprotocol to agree to; repeatable [default: the first offered]
    #[arg(long, value_name = "NAME", value_delimiter = ',', value_parser = subprotocol)]
    pub subprotocol: Vec<String>,
}

/// What is replied to messages, and how large they may be.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Messages")]
pub struct Messages {
    /// Text put before each text that is sent back; '' for a verbatim echo
    #[arg(long, value_name = "TEXT", default_value = "You have entered: ", value_parser = prefix)]
    pub prefix: String,

    /// Whether messages are compressed, each on its own or with what earlier ones said
    #[arg(long, value_name = "MODE", default_value = "no-context-takeover")]
    pub compression: deflate::Mode,

    /// Largest message, once inflated, in bytes or as 64KiB, 16MiB, 16M (16,000,000)
    #[arg(long, value_name = "SIZE", default_value = "16MiB", value_parser = size)]
    pub max_message_size: usize,

    /// Memory that all clients together may hold above 64 KiB each
    #[arg(long, value_name = "SIZE", default_value = "1GiB", value_parser = size)]
    pub max_buffered: usize,
}

/// How long a client is waited for.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Timeouts")]
pub struct Timeouts {
    /// Time limit for the HTTP request, as 500ms, 10s, 2m
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = timeout)]
    pub handshake_timeout: Duration,

    /// Silence after which a client is pinged; 0 for never
    #[arg(long, value_name = "TIME", default_value = "20s", value_parser = interval)]
    pub ping_interval: Duration,

    /// Time limit for a sign of life after a ping
    #[arg(long, value_name = "TIME", default_value = "20s", value_parser = timeout)]
    pub ping_timeout: Duration,

    /// Time limit for a client to read 64 KiB of what it is sent, or to send 64 KiB of a message
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = timeout)]
    pub write_timeout: Duration,

    /// Time limit for the answer to a close
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = timeout)]
    pub close_timeout: Duration,
}

/// What is logged, and where.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Logging")]
pub struct Logging {
    /// File to append the log to [default: stderr]
    #[arg(long, value_name = "FILE")]
    pub log_file: Option<PathBuf>,

    /// Log more: every message and health check. Without -v and -q RUST_LOG decides, or info
    #[arg(short, long, action = ArgAction::Count)]
    pub verbose: u8,

    /// Log less: -q warnings and errors, -qq errors only
    #[arg(short, long, action = ArgAction::Count)]
    pub quiet: u8,
}

/// The names are those of RFC 7692 §7.1.1.
impl ValueEnum for deflate::Mode {
    fn value_variants<'a>() -> &'a [Self] {
        use deflate::Mode::{ContextTakeover, NoContextTakeover, Off};
        &[NoContextTakeover, ContextTakeover, Off]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(match self {
            deflate::Mode::NoContextTakeover => "no-context-takeover",
            deflate::Mode::ContextTakeover => "context-takeover",
            deflate::Mode::Off => "off",
        }))
    }
}

impl Config {
    /// Reads the command line and the environment. A mistake in them ends the process with an error.
    pub fn read() -> Self {
        let matches = Self::command().mut_args(in_environment).get_matches();
        Self::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
    }
}

/// Every flag with a value can be set in the environment as well, by one rule.
fn in_environment(flag: Arg) -> Arg {
    if !flag.get_action().takes_values() {
        return flag;
    }
    let variable = format!("WSECHO_{}", flag.get_id().as_str().to_uppercase());
    flag.env(variable)
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
    let expected = "expected HOST:PORT, for example 127.0.0.1:1222, [::1]:1222 or localhost:1222";
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

fn at_least_one(text: &str) -> Result<NonZeroUsize, String> {
    text.parse().map_err(|_| "expected a whole number from 1 on".into())
}

fn count(text: &str) -> Result<usize, String> {
    text.parse().map_err(|_| "expected a whole number, for example 100".into())
}

fn subprotocol(text: &str) -> Result<String, String> {
    match request::token(text.as_bytes()) {
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
    match interval(text)? {
        Duration::ZERO => Err("expected a time above 0, for example 500ms, 10s or 2m".into()),
        time => Ok(time),
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
        assert_eq!(listening.addr, ["127.0.0.1:1222"]);
        assert_eq!(listening.max_connections.get(), 10_000);
        assert!(listening.origin.is_empty() && listening.subprotocol.is_empty());
        assert_eq!(messages.prefix, "You have entered: ");
        assert_eq!(messages.compression, deflate::Mode::NoContextTakeover);
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
            ("--write-timeout", "0s", "above 0"),
            ("--write-timeout", "500000000000years", "365 days"),
            ("--ping-interval", "366days", "365 days"),
            ("--handshake-timeout", "0", "above 0"),
            ("--origin", "https://a.example/", "without a path"),
            ("--origin", "example", "SCHEME://HOST"),
            ("--subprotocol", "a b", "without spaces"),
            ("--subprotocol", "", "without spaces"),
            ("--prefix", &long, "at most 4096 bytes"),
        ] {
            let flags = format!("{flag}={value}");
            let error = parse(&[&flags]).expect_err(&flags).to_string();
            assert!(error.contains(flag) && error.contains(right), "{flags}: {error}");
        }
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
