//! The query of a request's target, in the encoding of forms.

use crate::escape::Quoted;

/// The parameters of a query, each given once.
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Parses a query; `+` or `%20` stands for a space.
    ///
    /// # Errors
    ///
    /// A sentence that names the mistake.
    pub fn parse(query: &str) -> Result<Self, String> {
        let mut parameters: Vec<(String, String)> = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (name, value) = (decode(name)?, decode(value)?);
            if parameters.iter().any(|(given, _)| *given == name) {
                return Err(format!("{} is given twice", Quoted(name.as_bytes())));
            }
            parameters.push((name, value));
        }
        Ok(Query(parameters))
    }

    /// Checks that each name is known.
    ///
    /// # Errors
    ///
    /// A sentence that names the first that is not, and ends with `hint`.
    pub fn check(&self, is_known: impl Fn(&str) -> bool, hint: &str) -> Result<(), String> {
        match self.0.iter().find(|(name, _)| !is_known(name)) {
            Some((name, _)) => {
                Err(format!("{} is not a parameter; {hint}", Quoted(name.as_bytes())))
            }
            None => Ok(()),
        }
    }

    /// The value of `name`, if it is given.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(given, _)| given == name).map(|(_, value)| &**value)
    }
}

/// Decodes `application/x-www-form-urlencoded`, the encoding of forms.
fn decode(text: &str) -> Result<String, String> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'+' => b' ',
            b'%' => {
                let mut digit = || char::from(bytes.next()?).to_digit(16);
                let (Some(high), Some(low)) = (digit(), digit()) else {
                    return Err("a % needs two hexadecimal digits; a % itself is %25".into());
                };
                (high << 4 | low) as u8
            }
            byte => byte,
        });
    }
    String::from_utf8(decoded).map_err(|_| "the decoded query is not UTF-8".into())
}
