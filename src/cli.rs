//! The command line: flags, defaults, environment.

#![allow(
    rustdoc::bare_urls,
    rustdoc::broken_intra_doc_links,
    reason = "the comments on the flags are the text of --help"
)]

use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use clap::{ArgAction, Parser};
use log::LevelFilter;

use crate::request;

/// A WebSocket echo server: one thread per client, strict about RFC 6455
#[derive(Clone, Debug, Parser)]
#[command(
    version,
    max_term_width = 100,
    after_help = "Every flag can be set in the environment as well, as the name behind it says; a flag \
                  wins. Lists are separated by commas there. SIGINT and SIGTERM stop the server in \
                  order, a second one at once."
)]
pub struct Config {
    /// Where to listen; repeatable, [::1]:PORT for IPv6, port 0 for any free one
    #[arg(
        long, env = "WSECHO_ADDR", value_name = "HOST:PORT", help_heading = "Listening",
        default_value = "127.0.0.1:1222", value_delimiter = ',', value_parser = addr
    )]
    pub addr: Vec<String>,

    /// The most clients at once, as far as the kernel can carry them
    #[arg(
        long, env = "WSECHO_MAX_CONNECTIONS", value_name = "N", help_heading = "Listening",
        default_value = "10000", value_parser = at_least_one
    )]
    pub max_connections: usize,

    /// An origin whose pages may connect, such as https://example.org, or null for a page from a
    /// file; repeatable [default: any]
    #[arg(
        long, env = "WSECHO_ORIGIN", value_name = "ORIGIN", help_heading = "Listening",
        value_delimiter = ',', value_parser = origin
    )]
    pub origin: Vec<String>,

    /// A subprotocol to agree to; repeatable [default: the first that is offered]
    #[arg(
        long, env = "WSECHO_SUBPROTOCOL", value_name = "NAME", help_heading = "Listening",
        value_delimiter = ',', value_parser = subprotocol
    )]
    pub subprotocol: Vec<String>,

    /// What stands before each text that is sent back; '' for a verbatim echo
    #[arg(
        long,
        env = "WSECHO_PREFIX",
        value_name = "TEXT",
        help_heading = "Messages",
        default_value = "You have entered: "
    )]
    pub prefix: String,

    /// The largest message, in bytes or as 64KiB, 16MiB, 16M (16,000,000)
    #[arg(
        long, env = "WSECHO_MAX_MESSAGE_SIZE", value_name = "SIZE", help_heading = "Messages",
        default_value = "16MiB", value_parser = size
    )]
    pub max_message_size: usize,

    /// What all clients together may hold above 64 KiB each
    #[arg(
        long, env = "WSECHO_MAX_BUFFERED", value_name = "SIZE", help_heading = "Messages",
        default_value = "1GiB", value_parser = size
    )]
    pub max_buffered: usize,

    /// How long a request may take to come, as 500ms, 10s, 2m
    #[arg(
        long, env = "WSECHO_HANDSHAKE_TIMEOUT", value_name = "TIME", help_heading = "Deadlines",
        default_value = "10s", value_parser = timeout
    )]
    pub handshake_timeout: Duration,

    /// How long a client may be silent before it is pinged; 0 for never
    #[arg(
        long, env = "WSECHO_PING_INTERVAL", value_name = "TIME", help_heading = "Deadlines",
        default_value = "20s", value_parser = interval
    )]
    pub ping_interval: Duration,

    /// How long a pinged client may stay silent
    #[arg(
        long, env = "WSECHO_PING_TIMEOUT", value_name = "TIME", help_heading = "Deadlines",
        default_value = "20s", value_parser = timeout
    )]
    pub ping_timeout: Duration,

    /// How long a client may take to read 64 KiB of what it is sent
    #[arg(
        long, env = "WSECHO_WRITE_TIMEOUT", value_name = "TIME", help_heading = "Deadlines",
        default_value = "30s", value_parser = timeout
    )]
    pub write_timeout: Duration,

    /// How long a client may take to answer a close
    #[arg(
        long, env = "WSECHO_CLOSE_TIMEOUT", value_name = "TIME", help_heading = "Deadlines",
        default_value = "5s", value_parser = timeout
    )]
    pub close_timeout: Duration,

    /// A file to append the log to [default: stderr]
    #[arg(
        long,
        env = "WSECHO_LOG_FILE",
        value_name = "FILE",
        help_heading = "Logging"
    )]
    pub log_file: Option<PathBuf>,

    /// Log more: every message and health check. Without -v and -q RUST_LOG decides, or info
    #[arg(
        short, long, env = "WSECHO_VERBOSE", help_heading = "Logging",
        action = ArgAction::Count,
        value_parser = times
    )]
    pub verbose: u8,

    /// Log less: -q warnings and errors, -qq errors only
    #[arg(
        short, long, env = "WSECHO_QUIET", help_heading = "Logging",
        action = ArgAction::Count,
        value_parser = times
    )]
    pub quiet: u8,
}

impl Config {
    /// How much to log, when the command line says it.
    pub fn log_level(&self) -> Option<LevelFilter> {
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
    let wrong = || "say HOST:PORT, such as 127.0.0.1:1222, [::1]:1222 or localhost:1222";
    let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    let bracketed = host.starts_with('[') && host.ends_with(']');
    if host.is_empty() || (host.contains(':') && !bracketed) {
        return Err(wrong().into());
    }
    match port.parse::<u16>() {
        Ok(_) => Ok(text.into()),
        Err(_) => Err("say a port from 0 to 65535 behind the last colon".into()),
    }
}

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err("say a whole number from 1 on".into()),
        Ok(number) => Ok(number),
    }
}

fn times(text: &str) -> Result<u8, String> {
    text.parse()
        .map_err(|_| "say how many times, such as 1".into())
}

fn origin(text: &str) -> Result<String, String> {
    let is_origin = text == "null"
        || text.split_once("://").is_some_and(|(scheme, host)| {
            !scheme.is_empty() && !host.is_empty() && !host.contains('/')
        });
    if is_origin {
        Ok(text.into())
    } else {
        Err("say SCHEME://HOST or SCHEME://HOST:PORT without a path, or null".into())
    }
}

fn subprotocol(text: &str) -> Result<String, String> {
    match request::token(text.as_bytes()) {
        Some(name) => Ok(name.into()),
        None => Err("say a name without spaces or separators, such as chat".into()),
    }
}

fn size(text: &str) -> Result<usize, String> {
    text.parse::<ByteSize>()
        .ok()
        .and_then(|size| usize::try_from(size.as_u64()).ok())
        .ok_or_else(|| "say a size such as 65536, 64KiB, 16MiB or 16M (16,000,000)".into())
}

fn interval(text: &str) -> Result<Duration, String> {
    /// A clock has an end, and an instant behind it can't be told.
    const LONGEST: Duration = Duration::from_secs(365 * 24 * 60 * 60);
    match text {
        "0" => Ok(Duration::ZERO),
        text => match humantime::parse_duration(text) {
            Ok(time) if time <= LONGEST => Ok(time),
            Ok(_) => Err("say a time of up to 365 days".into()),
            Err(_) => Err("say a time with its unit, such as 500ms, 10s or 2m".into()),
        },
    }
}

fn timeout(text: &str) -> Result<Duration, String> {
    match interval(text)? {
        Duration::ZERO => Err("say a time above 0, such as 500ms, 10s or 2m".into()),
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
        let config = parse(&[]).unwrap();
        assert_eq!(config.addr, ["127.0.0.1:1222"]);
        assert_eq!(config.prefix, "You have entered: ");
        assert_eq!(config.max_message_size, 16 << 20);
        assert_eq!(config.max_buffered, 1 << 30);
        assert_eq!(config.max_connections, 10_000);
        assert_eq!(config.handshake_timeout, Duration::from_secs(10));
        assert_eq!(config.ping_interval, Duration::from_secs(20));
        assert_eq!(config.ping_timeout, Duration::from_secs(20));
        assert_eq!(config.write_timeout, Duration::from_secs(30));
        assert_eq!(config.close_timeout, Duration::from_secs(5));
        assert!(config.origin.is_empty() && config.subprotocol.is_empty());
        assert_eq!((config.log_file.as_ref(), config.log_level()), (None, None));
    }

    #[test]
    fn values_are_read_as_people_write_them() {
        let config = parse(&[
            "--addr",
            "[::1]:0",
            "--addr",
            "localhost:80",
            "--max-message-size",
            "16M",
            "--max-buffered",
            "1.5GiB",
            "--ping-interval",
            "0",
            "--close-timeout",
            "1m 500ms",
            "--origin",
            "null",
            "--origin",
            "https://a.example:8443",
            "-q",
        ])
        .unwrap();
        assert_eq!(config.addr, ["[::1]:0", "localhost:80"]);
        assert_eq!(config.max_message_size, 16_000_000);
        assert_eq!(config.max_buffered, 3 << 29);
        assert_eq!(config.ping_interval, Duration::ZERO);
        assert_eq!(config.close_timeout, Duration::from_millis(60_500));
        assert_eq!(config.origin, ["null", "https://a.example:8443"]);
        assert_eq!(config.log_level(), Some(LevelFilter::Warn));
    }

    #[test]
    fn a_wrong_value_is_refused_and_the_flag_and_a_right_one_are_named() {
        for (flag, value, right) in [
            ("--addr", "1222", "127.0.0.1:1222"),
            ("--addr", ":1222", "127.0.0.1:1222"),
            ("--addr", "::1:1222", "[::1]:1222"),
            ("--addr", "localhost:65536", "0 to 65535"),
            ("--max-connections", "0", "from 1 on"),
            ("--max-connections", "-1", "from 1 on"),
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
        ] {
            let flags = format!("{flag}={value}");
            let error = parse(&[&flags]).expect_err(&flags).to_string();
            assert!(
                error.contains(flag) && error.contains(right),
                "{flags}: {error}"
            );
        }
    }

    #[test]
    fn louder_and_quieter_cancel_each_other_out() {
        for (flags, level) in [
            (&["-v"][..], Some(LevelFilter::Debug)),
            (&["-q"], Some(LevelFilter::Warn)),
            (&["-qq"], Some(LevelFilter::Error)),
            (&["-v", "-q"], None),
            (&["-v", "-qq"], Some(LevelFilter::Warn)),
        ] {
            assert_eq!(parse(flags).unwrap().log_level(), level, "{flags:?}");
        }
    }
}
