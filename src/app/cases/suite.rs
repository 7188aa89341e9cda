//! All cases, and the selection of some.

use std::fmt;
use std::sync::LazyLock;

use crate::app::cases::beyond;
use crate::app::cases::case::{Case, Id};
use crate::app::cases::closing;
use crate::app::cases::framing;
use crate::app::cases::text;
use crate::app::cases::volume;

/// The maximum number of round trips of a case, as in the suite.
pub const MAX_MESSAGES: u32 = 1000;

/// Returns the cases of a group, in the order of their ids, each with at most this many round trips.
type Cases = fn(u32) -> Vec<Case>;

/// The groups in their order: the number, the subject and the cases.
const GROUPS: [(u8, &str, Cases); 16] = [
    (1, "Messages", |_| framing::messages()),
    (2, "Pings and pongs", |_| framing::pings()),
    (3, "Reserved bits", |_| framing::reserved_bits()),
    (4, "Reserved opcodes", |_| framing::reserved_opcodes()),
    (5, "Fragments", |_| framing::fragments()),
    (6, "UTF-8", |_| [text::fragments(), text::fail_fast(), text::sequences()].concat()),
    (7, "Closing", |_| [closing::order(), closing::payloads(), closing::codes()].concat()),
    (9, "Large and many messages", volume::plain),
    (10, "Many fragments", |_| framing::many_fragments()),
    (12, "Compressed messages", volume::compressed),
    (13, "Parameters of compression", volume::agreements),
    (14, "Beyond: opening", |_| beyond::group(14)),
    (15, "Beyond: closing", |_| beyond::group(15)),
    (16, "Beyond: frames", |_| beyond::group(16)),
    (17, "Beyond: compression", |_| beyond::group(17)),
    (18, "Beyond: TLS", |_| beyond::group(18)),
];

/// The pattern for all cases beyond the suite.
const BEYOND: &str = "+beyond";

/// The cases that are selected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suite {
    /// In their order.
    selected: Vec<Id>,
    messages: u32,
}

/// A pattern for ids, in which `*` matches any characters, or `+beyond`. It matches a case beyond the
/// suite only if it begins with the number of the group, so that `*` and `1*` mean what they always did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(String);

impl Default for Suite {
    fn default() -> Self {
        let selected = all_ids().iter().copied().filter(|id| id.is_of_suite()).collect();
        Suite { selected, messages: MAX_MESSAGES }
    }
}

impl Suite {
    /// The cases that one of `patterns` matches, except those that one of `excluded` matches. Without a
    /// pattern for cases of the suite, all of these are selected. `messages` is the number of round trips in
    /// the cases with many.
    ///
    /// # Errors
    ///
    /// A pattern matches no case, or no case remains.
    pub fn select(
        patterns: &[Pattern],
        excluded: &[Pattern],
        messages: u32,
    ) -> Result<Self, String> {
        let mut selected = all_ids().to_vec();
        let matches_none = |pattern: &&Pattern| !selected.iter().any(|id| pattern.matches(*id));
        if let Some(Pattern(wrong)) = patterns.iter().chain(excluded).find(matches_none) {
            return Err(format!("no case is called {wrong}"));
        }
        let is_any = |patterns: &[Pattern], id| patterns.iter().any(|pattern| pattern.matches(id));
        let is_whole_suite = patterns.iter().all(|pattern| pattern.0 == BEYOND);
        let is_selected = |id: Id| (is_whole_suite && id.is_of_suite()) || is_any(patterns, id);
        selected.retain(|id| is_selected(*id));
        selected.retain(|id| !is_any(excluded, *id));
        if selected.is_empty() {
            return Err("no case is left".into());
        }
        Ok(Suite { selected, messages })
    }

    pub fn ids(&self) -> &[Id] {
        &self.selected
    }

    /// The place of a case among the selected ones, counted from 1.
    pub fn place(&self, id: Id) -> Option<usize> {
        self.selected.iter().position(|selected| *selected == id).map(|place| place + 1)
    }

    /// The selected cases, in their order.
    pub fn cases(&self) -> impl Iterator<Item = Case> {
        let groups = self.selected.chunk_by(|one, two| one.group() == two.group());
        groups.flat_map(|ids| {
            let group = group(ids[0].group(), self.messages);
            group.into_iter().filter(|case| ids.contains(&case.id))
        })
    }

    /// A case, selected or not.
    pub fn case(&self, id: Id) -> Option<Case> {
        group(id.group(), self.messages).into_iter().find(|case| case.id == id)
    }
}

impl Pattern {
    /// # Errors
    ///
    /// The required form.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let is_pattern = |char: char| char.is_ascii_digit() || char == '.' || char == '*';
        if text.is_empty() || (text != BEYOND && !text.chars().all(is_pattern)) {
            return Err("expected cases, for example 1.*,7.9.3".into());
        }
        Ok(Pattern(text.into()))
    }

    /// Parses a pattern of a query in which `+` stood for a space, unless it was encoded.
    ///
    /// # Errors
    ///
    /// The required form.
    pub fn parse_decoded(text: &str) -> Result<Self, String> {
        // No pattern has a space.
        if text == BEYOND.replace('+', " ") { Self::parse(BEYOND) } else { Self::parse(text) }
    }

    pub fn matches(&self, id: Id) -> bool {
        if self.0 == BEYOND {
            return !id.is_of_suite();
        }
        if !id.is_of_suite() && !self.0.starts_with(&id.group().to_string()) {
            return false;
        }
        let id = id.to_string();
        let mut parts = self.0.split('*');
        let Some(mut rest) = id.strip_prefix(parts.next().unwrap_or_default()) else {
            return false;
        };
        let Some(end) = parts.next_back() else { return rest.is_empty() };
        for part in parts {
            let Some(at) = rest.find(part) else { return false };
            rest = &rest[at + part.len()..];
        }
        rest.ends_with(end)
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn group(number: u8, messages: u32) -> Vec<Case> {
    let group = GROUPS.iter().find(|(known, ..)| *known == number);
    group.map_or(vec![], |(_, _, cases)| cases(messages))
}

/// The subject of a group.
pub fn subject(number: u8) -> &'static str {
    let group = GROUPS.iter().find(|(known, ..)| *known == number);
    group.map_or("", |(_, subject, _)| subject)
}

/// The ids of all cases, in their order.
fn all_ids() -> &'static [Id] {
    static IDS: LazyLock<Vec<Id>> = LazyLock::new(|| {
        let cases = GROUPS.iter().flat_map(|(_, _, cases)| cases(MAX_MESSAGES));
        cases.map(|case| case.id).collect()
    });
    &IDS
}
