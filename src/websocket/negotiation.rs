//! permessage-deflate: the client's offers, and what is agreed (RFC 7692 §5 and §7.1).

use std::borrow::Cow;
use std::fmt;

use crate::escape::Quoted;
use crate::http::request::{self, Request};

/// The name that the extension is registered under (§8.1).
const NAME: &str = "permessage-deflate";

/// What the operator allows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Each message is compressed on its own.
    #[default]
    NoContextTakeover,
    /// What was said in one message shortens the next one.
    ContextTakeover,
    Off,
}

impl Mode {
    /// What the server asks of both sides, if messages may be compressed.
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

/// What became of the client's offers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Negotiation {
    #[default]
    NotOffered,
    /// None is accepted. The text says why, for the log.
    Declined(Cow<'static, str>),
    Agreed(Parameters),
}

/// What both sides keep to, as the answer says it (§7.1). All are off by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Parameters {
    /// Each of the server's messages is compressed on its own.
    pub server_no_context_takeover: bool,
    /// Each of the client's messages is compressed on its own.
    pub client_no_context_takeover: bool,
    /// The base-2 logarithm of the window that the server keeps to, 8 to 15.
    pub server_max_window_bits: Option<u8>,
    /// The same of the client.
    pub client_max_window_bits: Option<u8>,
}

/// An extension's name and its parameters.
type Offer<'h> = (&'h str, Vec<(&'h str, Option<String>)>);

/// Chooses among what `request` offers (RFC 6455 §9.1, RFC 7692 §5 and §7.1): the first of the server's
/// `terms` that an offer allows. Other extensions are declined by silence.
///
/// # Errors
///
/// A header that is not in the grammar of RFC 6455 §9.1. The text says so.
pub fn negotiate(request: &Request, terms: &[Parameters]) -> Result<Negotiation, &'static str> {
    const HEADER: &str = "Sec-WebSocket-Extensions";
    const MALFORMED: &str =
        "Sec-WebSocket-Extensions is not a valid list of extensions (RFC 6455 §9.1)";
    let mut members = request.list(HEADER).peekable();
    // §9.1: 1#extension, so that a list has at least one.
    if members.peek().is_none() && request.has(HEADER) {
        return Err(MALFORMED);
    }
    let mut offers = Vec::new();
    for member in members {
        let (name, parameters) = extension(member).ok_or(MALFORMED)?;
        if name == NAME {
            offers.push(parameters);
        }
    }
    let mut declined = None;
    for terms in terms {
        for offer in &offers {
            match accept(offer, *terms) {
                Ok(parameters) => return Ok(Negotiation::Agreed(parameters)),
                Err(why) => declined = declined.or(Some(why)),
            }
        }
    }
    Ok(match declined {
        _ if offers.is_empty() => Negotiation::NotOffered,
        Some(why) => Negotiation::Declined(why),
        None => Negotiation::Declined("compression is off".into()),
    })
}

/// `token *( ";" token [ "=" ( token | quoted-string ) ] )`. A quoted string has to be a token once it
/// is unquoted, so that no separator can be inside one.
fn extension(member: &[u8]) -> Option<Offer<'_>> {
    let mut parts = member.split(|&byte| byte == b';').map(request::trim);
    let name = request::token(parts.next()?)?;
    Some((name, parts.map(parameter).collect::<Option<_>>()?))
}

fn parameter(part: &[u8]) -> Option<(&str, Option<String>)> {
    let Some(equals) = part.iter().position(|&byte| byte == b'=') else {
        return Some((request::token(part)?, None));
    };
    // RFC 6455 §9.1 takes over the "implied *LWS rule" of RFC 2616.
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

/// The answer to one offer under these terms, or why it is declined.
fn accept(
    offer: &[(&str, Option<String>)],
    terms: Parameters,
) -> Result<Parameters, Cow<'static, str>> {
    // A limit on the client's window only if it offers to keep to one.
    let mut answer = Parameters { client_max_window_bits: None, ..terms };
    let lowest = |own: Option<u8>, offered: u8| own.map_or(offered, |own| own.min(offered));
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
                answer.server_max_window_bits = Some(lowest(terms.server_max_window_bits, offered));
            }
            ("server_max_window_bits", None) => return Err(format!("{name} has no value").into()),
            // Without a limit in the terms it is not answered: any window can be inflated.
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

/// The extension with its parameters, as the answer has it.
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
