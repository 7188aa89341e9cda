//! The negotiation of permessage-deflate: offers of the client, terms of the server (RFC 7692 §5, §7.1).

use std::borrow::Cow;
use std::fmt;

use crate::escape::Quoted;
use crate::http::request::{self, Request};

/// The name that the extension is registered under (§8.1).
const NAME: &str = "permessage-deflate";

/// The operator's choice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Each message is compressed on its own.
    #[default]
    NoContextTakeover,
    /// A message may refer to earlier ones, so it becomes shorter.
    ContextTakeover,
    Off,
}

impl Mode {
    /// The server's terms, or `None` if compression is off.
    pub fn terms(self) -> Option<Parameters> {
        let no_context_takeover = match self {
            Mode::Off => return None,
            Mode::NoContextTakeover => true,
            Mode::ContextTakeover => false,
        };
        Some(Parameters {
            server_no_context_takeover: no_context_takeover,
            client_no_context_takeover: no_context_takeover,
            ..Parameters::default()
        })
    }
}

/// The answer to the client's offers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Negotiation {
    #[default]
    NotOffered,
    /// No offer is accepted, for this reason (logged).
    Declined(Cow<'static, str>),
    Agreed(Parameters),
}

/// The agreed parameters (§7.1), none by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Parameters {
    /// The server compresses each message on its own.
    pub server_no_context_takeover: bool,
    /// The client compresses each message on its own.
    pub client_no_context_takeover: bool,
    /// The base-2 logarithm of the server's window, 8 to 15.
    pub server_max_window_bits: Option<u8>,
    /// The base-2 logarithm of the client's window, 8 to 15.
    pub client_max_window_bits: Option<u8>,
}

/// An extension's name and its parameters.
type Offer<'h> = (&'h str, Vec<(&'h str, Option<String>)>);

/// Answers the offers of `request` (RFC 6455 §9.1, RFC 7692 §5, §7.1): accepts the first one that is
/// valid and compatible with the server's `terms`. Other extensions are declined by silence.
///
/// # Errors
///
/// The reason if the header is not in the grammar of RFC 6455 §9.1.
pub fn negotiate(
    request: &Request,
    terms: Option<Parameters>,
) -> Result<Negotiation, &'static str> {
    const HEADER: &str = "Sec-WebSocket-Extensions";
    const MALFORMED: &str =
        "Sec-WebSocket-Extensions is not a valid extension list (RFC 6455 §9.1)";
    let mut negotiation = Negotiation::NotOffered;
    let mut offers = request.list(HEADER).peekable();
    // §9.1: `1#extension`, at least one.
    if offers.peek().is_none() && request.has(HEADER) {
        return Err(MALFORMED);
    }
    for offer in offers {
        let (name, parameters) = extension(offer).ok_or(MALFORMED)?;
        // The offers after the accepted one are not answered, but must be valid, too.
        if name == NAME && !matches!(negotiation, Negotiation::Agreed(_)) {
            negotiation = match (accept(&parameters, terms), negotiation) {
                (Ok(parameters), _) => Negotiation::Agreed(parameters),
                (Err(why), Negotiation::NotOffered) => Negotiation::Declined(why),
                (Err(_), earlier) => earlier,
            };
        }
    }
    Ok(negotiation)
}

/// `token *( ";" token [ "=" ( token | quoted-string ) ] )`. The unquoted form of a quoted
/// string has to be a token, too, so it can't contain a separator.
#[inline(never)]
fn extension(member: &[u8]) -> Option<Offer<'_>> {
    let mut parts = member.split(|&byte| byte == b';').map(request::trim);
    let name = request::token(parts.next()?)?;
    Some((name, parts.map(parameter).collect::<Option<_>>()?))
}

fn parameter(part: &[u8]) -> Option<(&str, Option<String>)> {
    let Some(equals) = part.iter().position(|&byte| byte == b'=') else {
        return Some((request::token(part)?, None));
    };
    // RFC 6455 §9.1 keeps the "implied *LWS rule" of RFC 2616.
    let (name, value) = (request::trim(&part[..equals]), request::trim(&part[equals + 1..]));
    let value = match value {
        [b'"', quoted @ .., b'"'] => {
            let mut unquoted = Vec::new();
            let mut bytes = quoted.iter();
            while let Some(byte) = bytes.next() {
                unquoted.push(if *byte == b'\\' { *bytes.next()? } else { *byte });
            }
            request::token(&unquoted)?.to_owned()
        }
        value => request::token(value)?.to_owned(),
    };
    Some((request::token(name)?, Some(value)))
}

/// The answer to one offer.
///
/// # Errors
///
/// The reason why it is declined.
#[inline(never)]
fn accept(
    offer: &[(&str, Option<String>)],
    terms: Option<Parameters>,
) -> Result<Parameters, Cow<'static, str>> {
    let terms = terms.ok_or("compression is off")?;
    // §7.1.2.2: the server may limit the client's window only if the client offers that.
    let mut answer = Parameters { client_max_window_bits: None, ..terms };
    for (number, (name, value)) in offer.iter().enumerate() {
        if offer[..number].iter().any(|(earlier, _)| earlier == name) {
            return Err(format!("parameter {} is repeated", Quoted(name.as_bytes())).into());
        }
        match (*name, value.as_deref()) {
            ("server_no_context_takeover", None) => answer.server_no_context_takeover = true,
            ("client_no_context_takeover", None) => answer.client_no_context_takeover = true,
            ("server_no_context_takeover" | "client_no_context_takeover", Some(_)) => {
                return Err(format!("{name} has a value").into());
            }
            ("server_max_window_bits", Some(bits)) => {
                let offered = window_bits(name, bits)?;
                let own = terms.server_max_window_bits.unwrap_or(offered);
                answer.server_max_window_bits = Some(own.min(offered));
            }
            ("server_max_window_bits", None) => return Err(format!("{name} has no value").into()),
            // Without such terms, the offer needs no answer: the server can inflate any window.
            ("client_max_window_bits", None) => {
                answer.client_max_window_bits = terms.client_max_window_bits;
            }
            ("client_max_window_bits", Some(bits)) => {
                let offered = window_bits(name, bits)?;
                answer.client_max_window_bits =
                    terms.client_max_window_bits.map(|own| own.min(offered));
            }
            _ => return Err(format!("parameter {} is unknown", Quoted(name.as_bytes())).into()),
        }
    }
    if terms.client_max_window_bits.is_some() && answer.client_max_window_bits.is_none() {
        return Err("client_max_window_bits is not offered".into());
    }
    Ok(answer)
}

/// §7.1.2.1: "a decimal integer value without leading zeroes between 8 to 15, inclusive".
fn window_bits(name: &str, value: &str) -> Result<u8, Cow<'static, str>> {
    match value.parse() {
        Ok(bits @ 8..=15) if value.len() == if bits < 10 { 1 } else { 2 } => Ok(bits),
        _ => Err(format!("{name} is not a number from 8 to 15").into()),
    }
}

/// The extension with its parameters, as in the answer.
impl fmt::Display for Parameters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(NAME)?;
        if self.server_no_context_takeover {
            f.write_str("; server_no_context_takeover")?;
        }
        if self.client_no_context_takeover {
            f.write_str("; client_no_context_takeover")?;
        }
        if let Some(bits) = self.server_max_window_bits {
            write!(f, "; server_max_window_bits={bits}")?;
        }
        if let Some(bits) = self.client_max_window_bits {
            write!(f, "; client_max_window_bits={bits}")?;
        }
        Ok(())
    }
}
