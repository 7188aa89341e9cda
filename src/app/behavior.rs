//! Behaviors on demand: the query of [`PATH`], its allowed values, and a behavior's description.

use std::fmt;
use std::hash::{BuildHasher as _, RandomState};
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::app::query::Query;
use crate::escape::Quoted;
use crate::http::response;
use crate::quantity::Count;
use crate::websocket::close::{CloseFrame, Reason};

/// The path whose query asks for a behavior.
pub const PATH: &str = "/do";

/// How long a server that hangs stays silent before it resets the connection.
pub const HANG: Duration = Duration::from_secs(60);

/// The maximum number of fragments of one reply.
pub const MAX_FRAGMENTS: usize = 1024;

/// The maximum number of pieces in which one reply is written.
pub const MAX_PIECES: u32 = 1000;

/// The maximum total size of unrequested messages, in bytes.
const MAX_PUSHED: u64 = 1 << 20;

/// The number of seeds.
const SEEDS: usize = 1000;

/// Whether behaviors on demand are enabled. If not, [`PATH`] is a path like any other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behaviors {
    On,
    Off,
}

/// The behavior of one connection, by default an echo.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Behavior {
    /// The share of the connections that it applies to. `None` for all.
    pub rate: Option<Rate>,
    /// The delay of the answer to the handshake.
    pub delay: Duration,
    pub handshake: Handshake,
    pub script: Script,
}

/// A share of the connections, from 0 to 1, and a seed, which makes the choice repeatable.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    pub share: f64,
    /// From 0 to 999.
    pub seed: Option<u16>,
}

/// How the opening handshake is answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Handshake {
    #[default]
    Valid,
    /// With this status instead of 101.
    Status(u16),
    /// With a 101 that has the Sec-WebSocket-Accept of another key.
    WrongAccept,
    /// With a 101 that has a subprotocol that was not offered.
    WrongProtocol,
    /// With a 101 that has an extension that was not offered.
    WrongExtension,
}

/// The behavior of an open WebSocket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Script {
    /// Whether the first message is the request as JSON.
    pub dump: bool,
    /// Whether each message and control frame is followed by a message about its frames.
    pub trace: bool,
    /// The prefix of each text reply, instead of the operator's.
    pub prefix: Option<String>,
    /// The delay of each reply.
    pub latency: Duration,
    /// The size of the fragments of a reply, in bytes.
    pub fragment: Option<usize>,
    /// The time over which a reply is written.
    pub drip: Duration,
    pub pushes: Pushes,
    pub ping_interval: Option<Duration>,
    pub pongs: Pongs,
    /// The fault, and its moment.
    pub fault: Option<(After, Fault)>,
}

/// Unrequested messages of the server: the numbers from 1 to `count`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pushes {
    pub count: u32,
    /// The time between two messages, and before the first.
    pub interval: Duration,
    /// The size in bytes that each is padded to.
    pub bytes: usize,
}

/// Whether the client's pings are answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pongs {
    #[default]
    On,
    Off,
}

/// The moment of a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// After this many answered messages.
    Replies(u32),
    /// After the WebSocket has been open this long.
    Time(Duration),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A close frame.
    Close(CloseFrame),
    /// The end of the stream, without a close frame.
    EndStream,
    /// A reset of the connection.
    Reset,
    /// Silence for [`HANG`], then a reset.
    Hang,
    /// A frame that the client has to refuse.
    WrongFrame(WrongFrame),
}

/// A frame that the client has to refuse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WrongFrame {
    /// As a sentence names it.
    pub name: &'static str,
    pub bytes: &'static [u8],
}

impl WrongFrame {
    /// "masked" under the key 01 02 03 04 (§5.1).
    pub const MASKED: Self = Self::new("a masked frame", b"\x81\x86\x01\x02\x03\x04lcpodf");
    /// RSV3, since RSV1 would be valid if compression was agreed (§5.2).
    pub const RESERVED_BIT: Self = Self::new("a frame with a reserved bit", b"\x91\x08reserved");
    /// The opcode of a data frame, so that only the opcode is invalid, not the length (§5.2).
    pub const RESERVED_OPCODE: Self =
        Self::new("a frame with a reserved opcode", b"\x83\x08reserved");
    /// A character of two bytes whose second one is not its continuation (§8.1).
    pub const INVALID_UTF8: Self = Self::new("text that is not UTF-8", b"\x81\x08not \xC3\x28 8");
    /// There is no message to continue (§5.4).
    pub const UNEXPECTED_CONTINUATION: Self =
        Self::new("a continuation of nothing", b"\x80\x0Ccontinuation");
    /// These bytes are all that is ever sent of it (§5.2).
    pub const HUGE_LENGTH: Self =
        Self::new("a frame that declares 2^62 bytes", b"\x82\x7F\x40\0\0\0\0\0\0\0huge");
    /// 5 bytes, whose length fits in 7 bits (§5.2).
    pub const LONG_LENGTH_16: Self =
        Self::new("a text of 5 bytes with a length of 16 bits", b"\x81\x7E\0\x05 long");
    /// The same.
    pub const LONG_LENGTH_64: Self =
        Self::new("a text of 5 bytes with a length of 64 bits", b"\x81\x7F\0\0\0\0\0\0\0\x05 long");
    /// "The most significant bit MUST be 0" (§5.2).
    pub const LENGTH_TOP_BIT: Self =
        Self::new("a frame that declares 2^63 bytes", b"\x82\x7F\x80\0\0\0\0\0\0\0huge");

    const fn new(name: &'static str, bytes: &'static [u8]) -> Self {
        WrongFrame { name, bytes }
    }
}

/// A parameter as `GET /do`, the page and docs/behaviors.md show it.
pub struct Parameter {
    pub name: &'static str,
    pub effect: &'static str,
    /// The allowed values, as an error lists them.
    pub allowed: &'static str,
    /// The kinds of value, separated by a slash: `N/TIME`, or `WORD` for one of `words`. Empty for a
    /// parameter without a value.
    pub form: &'static str,
    /// The words that are values, each with its effect.
    pub words: &'static [(&'static str, &'static str)],
}

#[rustfmt::skip]
pub const PARAMETERS: &[Parameter] = &[
    Parameter { name: "rate", form: "SHARE", words: &[], allowed: "a share from 0 to 1, for example 0.5", effect: "the rest of the query applies to this share of the connections; the others get a plain echo" },
    Parameter { name: "seed", form: "N", words: &[], allowed: "a number from 0 to 999, beside rate", effect: "the same connections get it each time the server is started" },
    Parameter { name: "delay", form: "TIME", words: &[], allowed: "a time of at most 60s, for example 5s", effect: "the handshake is answered this much later" },
    Parameter { name: "status", form: "CODE", words: &[], allowed: "200, 301–303, 307, 308 or 400–599 without 407", effect: "the handshake is refused with this status" },
    Parameter { name: "dump", form: "", words: &[], allowed: "given without a value", effect: "the first message is the request as JSON: peer, what proxies added, request line, all headers, what was agreed" },
    Parameter { name: "trace", form: "", words: &[], allowed: "given without a value", effect: "each message or control frame of the client is followed by a message with its frames and those that answered it, as JSON" },
    Parameter { name: "count", form: "N", words: &[], allowed: "a number from 1 to 1000; count times bytes is at most 1 MiB", effect: "the server sends N messages unasked: 1, 2 …" },
    Parameter { name: "interval", form: "TIME", words: &[], allowed: "0 or a time from 10ms to 60s, beside count", effect: "the time before each of them; without it all come at once" },
    Parameter { name: "bytes", form: "N", words: &[], allowed: "a number from 1 to 65536, beside count; count times bytes is at most 1 MiB", effect: "the size of each of them, padded by spaces" },
    Parameter { name: "prefix", form: "TEXT", words: &[], allowed: "at most 100 bytes of text, or nothing", effect: "put before each text instead of --prefix" },
    Parameter { name: "latency", form: "TIME", words: &[], allowed: "a time of at most 10s, for example 200ms", effect: "each reply is delayed by this" },
    Parameter { name: "fragment", form: "N", words: &[], allowed: "a number of bytes, 1 or more", effect: "each reply comes in up to 1024 fragments: N bytes each, and the last one has the rest" },
    Parameter { name: "drip", form: "TIME", words: &[], allowed: "a time of at most 10s, for example 2s", effect: "each reply is written over this time in up to 1000 pieces, one reply after the other" },
    Parameter { name: "ping", form: "TIME", words: &[], allowed: "a time from 100ms to 15m, for example 1s", effect: "the server pings after this much silence" },
    Parameter { name: "pong", form: "WORD", allowed: "off", effect: "whether the client's pings are answered", words: &[
        ("off", "they are not; messages still are"),
    ] },
    Parameter { name: "close", form: "CODE", allowed: "1000–1003, 1007–1014, 3000–4999, none, fin, rst or hang; 1006 is never sent, it is what a client reports: use fin or rst", effect: "the server sends a close frame with this code", words: &[
        ("none", "a close frame without a code: the client reports 1005"),
        ("fin", "the TCP stream ends without a close frame: the client reports 1006"),
        ("rst", "the TCP stream is reset without a close frame: the client reports 1006; needs after"),
        ("hang", "the server neither reads nor writes for 60s, then resets the TCP stream"),
    ] },
    Parameter { name: "reason", form: "TEXT", words: &[], allowed: "at most 123 bytes of text, beside close with a code", effect: "the reason in the close frame" },
    Parameter { name: "bad", form: "WORD", allowed: "accept, protocol, extension, mask, rsv, opcode, utf8, continuation or length", effect: "the handshake or a frame is wrong; messages are still answered until the client ends the connection", words: &[
        ("accept", "a 101 with the Sec-WebSocket-Accept of another key"),
        ("protocol", "a 101 with a subprotocol that was not offered"),
        ("extension", "a 101 with an extension that was not offered"),
        ("mask", "a frame that is masked"),
        ("rsv", "a frame with a reserved bit"),
        ("opcode", "a frame with a reserved opcode"),
        ("utf8", "a text that is not UTF-8"),
        ("continuation", "a continuation frame without a message to continue"),
        ("length", "a frame that declares 2^62 bytes"),
    ] },
    Parameter { name: "after", form: "N/TIME", words: &[], allowed: "a number of messages up to 1000, or a time of at most 10m, for example 3 or 500ms, beside close or a wrong frame", effect: "when close or the wrong frame comes: after N replies, or this long after the opening; without it in the same write as the 101" },
];

/// The table of parameters as plain text.
pub fn table() -> String {
    let mut table = String::from(
        "Behaviors on demand: a WebSocket at /do misbehaves as its query says, for example\n\
         /do?close=4000&reason=bye&after=3. A plain GET of the same URL explains what will happen.\n",
    );
    for Parameter { name, effect, allowed, words, .. } in PARAMETERS {
        table += &format!("\n{name}: {effect}\n    {allowed}\n");
        for (word, effect) in *words {
            table += &format!("    {word}: {effect}\n");
        }
    }
    table
        + "\nParameters combine, but at most one of status, close and bad.\n\
             The page at /cases runs the Autobahn cases in a browser, and shows the verdicts on every client."
}

/// Parses a query, in the encoding of forms: `+` or `%20` for a space.
///
/// # Errors
///
/// A sentence that names the mistake and the allowed values.
pub fn parse(query: &str) -> Result<Behavior, String> {
    let query = Query::parse(query)?;
    let is_known = |name: &str| PARAMETERS.iter().any(|known| known.name == name);
    query.check(is_known, "GET /do lists them")?;
    let is_given = |name| get(&query, name, |text| text.is_empty().then_some(true));
    let time_of = |name, millis| get(&query, name, |text| time(text, millis));
    let (handshake, fault) = misbehavior(&query)?;
    let behavior = Behavior {
        rate: rate(&query)?,
        delay: time_of("delay", 0..=60_000)?.unwrap_or_default(),
        handshake,
        script: Script {
            dump: is_given("dump")?.unwrap_or_default(),
            trace: is_given("trace")?.unwrap_or_default(),
            prefix: get(&query, "prefix", |text| (text.len() <= 100).then(|| text.into()))?,
            latency: time_of("latency", 0..=10_000)?.unwrap_or_default(),
            fragment: get(&query, "fragment", |text| number(text, 1..=usize::MAX as u64))?
                .map(|bytes| bytes as usize),
            drip: time_of("drip", 0..=10_000)?.unwrap_or_default(),
            pushes: pushes(&query)?,
            ping_interval: time_of("ping", 100..=15 * 60_000)?,
            pongs: get(&query, "pong", |text| (text == "off").then_some(Pongs::Off))?
                .unwrap_or_default(),
            fault,
        },
    };
    let is_refused = matches!(handshake, Handshake::Status(_));
    if is_refused && behavior.script != Script::default() {
        return Err(
            "status refuses the handshake: only delay, rate and seed can stand beside it".into()
        );
    }
    if behavior.rate.is_some() && behavior.clauses().next().is_none() {
        return Err("rate needs something to happen, for example rate=0.5&close=4000".into());
    }
    Ok(behavior)
}

/// The value of a parameter, if it is given.
fn get<T>(
    query: &Query,
    name: &str,
    parse: impl FnOnce(&str) -> Option<T>,
) -> Result<Option<T>, String> {
    query.get(name).map(|value| parse(value).ok_or_else(|| expected(name))).transpose()
}

/// The allowed values of `name`.
fn expected(name: &str) -> String {
    let parameter = PARAMETERS.iter().find(|known| known.name == name);
    format!("{name} is {}", parameter.map_or("", |known| known.allowed))
}

/// A whole number without a sign.
fn number(text: &str, limits: RangeInclusive<u64>) -> Option<u64> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().ok()).flatten().filter(|number| limits.contains(number))
}

/// A time with its unit, within limits in milliseconds. 0 needs no unit.
fn time(text: &str, millis: RangeInclusive<u64>) -> Option<Duration> {
    let time = match text {
        "0" => Duration::ZERO,
        _ => humantime::parse_duration(text).ok()?,
    };
    let (least, most) = millis.into_inner();
    (Duration::from_millis(least)..=Duration::from_millis(most)).contains(&time).then_some(time)
}

fn rate(query: &Query) -> Result<Option<Rate>, String> {
    let seed = get(query, "seed", |text| number(text, 0..=SEEDS as u64 - 1))?;
    let seed = seed.map(|seed| seed as u16);
    match (get(query, "rate", share)?, seed) {
        (None, Some(_)) => Err(expected("seed")),
        (share, seed) => Ok(share.map(|share| Rate { share, seed })),
    }
}

fn share(text: &str) -> Option<f64> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    is_plain.then(|| text.parse().ok()).flatten().filter(|share| (0.0..=1.0).contains(share))
}

/// Rejects 1xx, since it would make a proxy tunnel, and 407, which only a proxy sends.
fn status(text: &str) -> Option<u16> {
    let status = number(text, 200..=599)? as u16;
    matches!(status, 200 | 301..=303 | 307 | 308 | 400..=406 | 408..=599).then_some(status)
}

fn after(text: &str) -> Option<After> {
    match number(text, 0..=1000) {
        Some(replies) => Some(After::Replies(replies as u32)),
        None => Some(match time(text, 0..=600_000)? {
            Duration::ZERO => After::AT_ONCE,
            time => After::Time(time),
        }),
    }
}

/// The answer to the handshake, and the fault, at most one of which is unusual.
fn misbehavior(query: &Query) -> Result<(Handshake, Option<(After, Fault)>), String> {
    let status = get(query, "status", status)?.map(|status| (Handshake::Status(status), None));
    let fault = fault(query)?.map(|fault| (Handshake::Valid, Some(fault)));
    let mut asked = [status, get(query, "bad", bad)?, fault].into_iter().flatten();
    let (handshake, fault) = asked.next().unwrap_or_default();
    if asked.next().is_some() {
        return Err("expected at most one of status, close and bad".into());
    }
    match (fault, get(query, "after", after)?) {
        (None, Some(_)) => Err(expected("after")),
        (Some(Fault::Reset), None | Some(After::AT_ONCE)) => {
            Err("rst needs after, since a reset at once would discard the 101".into())
        }
        (fault, after) => {
            Ok((handshake, fault.map(|fault| (after.unwrap_or(After::AT_ONCE), fault))))
        }
    }
}

/// The fault that `close` asks for, with its reason.
fn fault(query: &Query) -> Result<Option<Fault>, String> {
    let fault = get(query, "close", |text| {
        Some(match text {
            "none" => Fault::Close(CloseFrame { code: None, reason: Reason::NONE }),
            "fin" => Fault::EndStream,
            "rst" => Fault::Reset,
            "hang" => Fault::Hang,
            code => {
                let code = number(code, 0..=u16::MAX.into())? as u16;
                Fault::Close(CloseFrame::decode(&code.to_be_bytes()).ok()?)
            }
        })
    })?;
    match (fault, get(query, "reason", |text| Reason::new(text.into()))?) {
        (fault, None) => Ok(fault),
        (Some(Fault::Close(CloseFrame { code: code @ Some(_), .. })), Some(reason)) => {
            Ok(Some(Fault::Close(CloseFrame { code, reason })))
        }
        (_, Some(_)) => Err(expected("reason")),
    }
}

fn bad(word: &str) -> Option<(Handshake, Option<Fault>)> {
    let wrong = match word {
        "accept" => return Some((Handshake::WrongAccept, None)),
        "protocol" => return Some((Handshake::WrongProtocol, None)),
        "extension" => return Some((Handshake::WrongExtension, None)),
        "mask" => WrongFrame::MASKED,
        "rsv" => WrongFrame::RESERVED_BIT,
        "opcode" => WrongFrame::RESERVED_OPCODE,
        "utf8" => WrongFrame::INVALID_UTF8,
        "continuation" => WrongFrame::UNEXPECTED_CONTINUATION,
        "length" => WrongFrame::HUGE_LENGTH,
        _ => return None,
    };
    Some((Handshake::Valid, Some(Fault::WrongFrame(wrong))))
}

fn pushes(query: &Query) -> Result<Pushes, String> {
    let count = get(query, "count", |text| number(text, 1..=1000))?;
    let interval =
        get(query, "interval", |text| time(text, 0..=0).or_else(|| time(text, 10..=60_000)))?;
    let bytes = get(query, "bytes", |text| number(text, 1..=65_536))?;
    match (count, interval, bytes) {
        (Some(count), _, Some(bytes)) if count * bytes > MAX_PUSHED => Err(expected("bytes")),
        (Some(count), interval, bytes) => Ok(Pushes {
            count: count as u32,
            interval: interval.unwrap_or_default(),
            bytes: bytes.unwrap_or_default() as usize,
        }),
        (None, None, None) => Ok(Pushes::default()),
        (None, Some(_), _) => Err(expected("interval")),
        (None, None, Some(_)) => Err(expected("bytes")),
    }
}

impl After {
    /// Together with the response that opens the WebSocket.
    pub const AT_ONCE: After = After::Replies(0);
}

/// One sentence.
impl fmt::Display for Behavior {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let clauses: Vec<_> = self.clauses().collect();
        let what = match &clauses[..] {
            [] => "each message is echoed, as on every other path".into(),
            clauses => clauses.join("; "),
        };
        let Some(Rate { share, seed }) = self.rate else {
            let (first, rest) = what.split_at(1);
            return write!(f, "{}{rest}.", first.to_ascii_uppercase());
        };
        let seed = seed.map_or(String::new(), |seed| format!(", by seed {seed},"));
        write!(f, "For a share of {share} of the connections{seed} {what}; ")?;
        f.write_str("the others get a plain echo.")
    }
}

impl Behavior {
    /// All that is unusual, in the order in which it happens.
    fn clauses(&self) -> impl Iterator<Item = String> {
        let Behavior { delay, handshake, script, .. } = self;
        let handshake = match *handshake {
            Handshake::Valid => None,
            Handshake::Status(status) => {
                Some(format!("the handshake is refused with {}", response::described(status)))
            }
            Handshake::WrongAccept => Some("the 101 has a wrong Sec-WebSocket-Accept".into()),
            Handshake::WrongProtocol => {
                Some("the 101 has a subprotocol that was not offered".into())
            }
            Handshake::WrongExtension => {
                Some("the 101 has an extension that was not offered".into())
            }
        };
        let prefix = script.prefix.as_deref().map(|prefix| match prefix {
            "" => "texts come back without a prefix".into(),
            prefix => format!("texts come back after {}", Quoted(prefix.as_bytes())),
        });
        let fragment = script.fragment.map(|bytes| Count(bytes as u64, "byte"));
        let timed =
            |what, time: Duration| (!time.is_zero()).then(|| format!("{what} {}", shown(time)));
        let clauses = [
            timed("the handshake is answered after", *delay),
            handshake,
            script.dump.then(|| "the first message is the request as JSON".into()),
            script
                .trace
                .then(|| "each message and control frame is followed by its frames as JSON".into()),
            (script.pushes.count > 0).then(|| format!("the server sends {}", script.pushes)),
            prefix,
            timed("each reply is delayed by", script.latency),
            fragment.map(|bytes| format!("each reply comes in fragments of {bytes}")),
            timed("each reply is written over", script.drip),
            script
                .ping_interval
                .map(|time| format!("the server pings after {} of silence", shown(time))),
            (script.pongs == Pongs::Off).then(|| "pings are not answered".into()),
            script.fault.as_ref().map(|(after, fault)| format!("{after} the server {fault}")),
        ];
        clauses.into_iter().flatten()
    }
}

impl fmt::Display for Pushes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} unasked, ", Count(self.count.into(), "message"))?;
        match self.interval {
            Duration::ZERO => f.write_str("at once")?,
            interval => write!(f, "one every {}", shown(interval))?,
        }
        match self.bytes {
            0 => Ok(()),
            bytes => write!(f, ", each of {}", Count(bytes as u64, "byte")),
        }
    }
}

impl fmt::Display for After {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            After::AT_ONCE => f.write_str("right after the handshake"),
            After::Replies(replies) => write!(f, "after {}", Count(replies.into(), "message")),
            After::Time(time) => write!(f, "after {}", shown(time)),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Fault::Close(CloseFrame { code: None, .. }) => "closes without a code",
            Fault::Close(CloseFrame { code: Some(code), reason }) => {
                write!(f, "closes with {code}")?;
                if *reason != Reason::NONE {
                    write!(f, " and the reason {reason}")?;
                }
                return Ok(());
            }
            Fault::EndStream => "ends the stream without a close frame",
            Fault::Reset => "resets the connection without a close frame",
            Fault::Hang => "hangs for 60s, reading and writing nothing, and resets the connection",
            Fault::WrongFrame(wrong) => return write!(f, "sends {}", wrong.name),
        })
    }
}

fn shown(time: Duration) -> impl fmt::Display {
    humantime::format_duration(time)
}

/// The choice of connections that belong to a [`Rate`]'s share.
pub struct Draws {
    /// The number of connections with each seed.
    seeded: [AtomicU32; SEEDS],
    unseeded: AtomicU32,
    random: RandomState,
}

impl Default for Draws {
    fn default() -> Self {
        Draws {
            seeded: [const { AtomicU32::new(0) }; SEEDS],
            unseeded: AtomicU32::new(0),
            random: RandomState::new(),
        }
    }
}

impl Draws {
    /// Whether the next connection with this rate belongs to its share. The nth connection with a seed
    /// uses the nth number of the generator SplitMix64 with that seed, whatever the rate. So the number
    /// of chosen connections among the first N is always the same. If the connections come one after
    /// another, the chosen ones are the same, too.
    pub fn is_drawn(&self, rate: Rate) -> bool {
        const NUMBERS: f64 = 4_294_967_296.0;
        let next = |count: &AtomicU32| count.fetch_add(1, Ordering::Relaxed);
        let number = match rate.seed {
            Some(seed) => split_mix_64(seed, next(&self.seeded[usize::from(seed)])),
            None => self.random.hash_one(next(&self.unseeded)),
        };
        f64::from((number >> 32) as u32) < rate.share * NUMBERS
    }
}

/// The `nth` number, from 0, of SplitMix64 (Steele, Lea and Flood, 2014) seeded with `seed`.
fn split_mix_64(seed: u16, nth: u32) -> u64 {
    const GAMMA: u64 = 0x9E37_79B9_7F4A_7C15;
    let state = GAMMA.wrapping_mul(u64::from(nth) + 1).wrapping_add(seed.into());
    let mixed = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}
