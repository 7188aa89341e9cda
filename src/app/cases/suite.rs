//! All cases, and the selection of some.

use std::sync::LazyLock;

use crate::app::cases::beyond;
use crate::app::cases::case::{Case, Id, Play};
use crate::app::cases::closing;
use crate::app::cases::framing;
use crate::app::cases::text;
use crate::app::cases::volume::{self, MAX_MESSAGES};

/// Returns the cases of a group, in the order of their ids.
type Cases = fn() -> Vec<Case>;

/// The groups in their order: the number, the subject and the cases.
const GROUPS: [(u8, &str, Cases); 16] = [
    (1, "Messages", framing::messages),
    (2, "Pings and pongs", framing::pings),
    (3, "Reserved bits", framing::reserved_bits),
    (4, "Reserved opcodes", framing::reserved_opcodes),
    (5, "Fragments", framing::fragments),
    (6, "UTF-8", text::cases),
    (7, "Closing", closing::cases),
    (9, "Large and many messages", volume::plain),
    (10, "Many fragments", framing::many_fragments),
    (12, "Compressed messages", volume::compressed),
    (13, "Parameters of compression", volume::agreements),
    (14, "Beyond: opening", beyond::opening::cases),
    (15, "Beyond: closing", beyond::closing::cases),
    (16, "Beyond: frames", beyond::frames::cases),
    (17, "Beyond: compression", beyond::compression::cases),
    (18, "Beyond: TLS", beyond::tls::cases),
];

/// The pattern for all cases beyond the suite.
const BEYOND: &str = "+beyond";

/// The cases that are selected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suite {
    /// In their order. `None` for those of the Autobahn suite, which are listed on first use.
    selected: Option<Vec<Id>>,
    /// The maximum number of round trips of a case.
    messages: u32,
}

/// A pattern for ids, in which `*` matches any characters, or `+beyond`. It matches a case beyond the
/// suite only if it begins with the number of the group, so that `*` and `1*` mean what they always did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(String);

impl Default for Suite {
    fn default() -> Self {
        Suite { selected: None, messages: MAX_MESSAGES }
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
        if patterns.is_empty() && excluded.is_empty() {
            return Ok(Suite { selected: None, messages });
        }
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
        Ok(Suite { selected: Some(selected), messages })
    }

    pub fn ids(&self) -> &[Id] {
        self.selected.as_deref().unwrap_or_else(|| {
            let ids = all_ids();
            &ids[..ids.partition_point(|id| id.is_of_suite())]
        })
    }

    /// The place of a case among the selected ones, counted from 1.
    pub fn place(&self, id: Id) -> Option<usize> {
        self.ids().iter().position(|selected| *selected == id).map(|place| place + 1)
    }

    /// The selected cases, in their order.
    pub fn cases(&self) -> impl Iterator<Item = Case> {
        let groups = self.ids().chunk_by(|one, two| one.group() == two.group());
        groups.flat_map(|ids| {
            self.group(ids[0].group()).into_iter().filter(|case| ids.contains(&case.id))
        })
    }

    /// A case, selected or not.
    pub fn case(&self, id: Id) -> Option<Case> {
        self.group(id.group()).into_iter().find(|case| case.id == id)
    }

    /// The cases of a group, selected or not.
    fn group(&self, number: u8) -> Vec<Case> {
        let group = GROUPS.iter().find(|(known, ..)| *known == number);
        let mut cases = group.map_or(vec![], |(_, _, cases)| cases());
        for case in &mut cases {
            if let Play::RoundTrips(trips) = &mut case.play {
                trips.count = trips.count.min(self.messages);
            }
        }
        cases
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

/// The subject of a group.
pub fn subject(number: u8) -> &'static str {
    let group = GROUPS.iter().find(|(known, ..)| *known == number);
    group.map_or("", |(_, subject, _)| subject)
}

/// The ids of all cases, in their order.
fn all_ids() -> &'static [Id] {
    static IDS: LazyLock<Vec<Id>> = LazyLock::new(|| {
        GROUPS.iter().flat_map(|(_, _, cases)| cases()).map(|case| case.id).collect()
    });
    &IDS
}
