//! The display of numbers and times in the log and in other text.

use std::fmt;
use std::time::Duration;

/// Displays a number of things: `1 message`, `2 messages`.
pub struct Count(pub u64, pub &'static str);

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Count(number, thing) = *self;
        write!(f, "{number} {thing}{}", if number == 1 { "" } else { "s" })
    }
}

/// Displays a time in seconds, to the millisecond.
// Not as a float, whose display would need the most stack of a client's thread.
pub struct Seconds(pub Duration);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03}", self.0.as_secs(), self.0.subsec_millis())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_have_three_decimals() {
        for (millis, shown) in [(0, "0.000"), (7, "0.007"), (1_050, "1.050"), (60_000, "60.000")] {
            assert_eq!(Seconds(Duration::from_millis(millis)).to_string(), shown);
        }
    }

    #[test]
    fn one_thing_is_singular() {
        let shown = [0, 1, 2].map(|number| Count(number, "message").to_string());
        assert_eq!(shown, ["0 messages", "1 message", "2 messages"]);
    }
}
