//! A limit for log lines that anyone can cause.

use std::mem;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::lock::lock;
use crate::quantity::Count;

/// A limit of lines per second.
pub struct RateLimit {
    per_second: u32,
    /// The name of one of the lines, such as "request line".
    subject: &'static str,
    window: Mutex<Window>,
}

struct Window {
    began: Instant,
    admitted: u32,
    suppressed: u64,
}

impl RateLimit {
    /// A limit of `per_second` lines per second.
    pub fn new(per_second: u32, subject: &'static str) -> Self {
        let window = Window { began: Instant::now(), admitted: 0, suppressed: 0 };
        RateLimit { per_second, subject, window: Mutex::new(window) }
    }

    /// Whether a line may be logged at `now`. `Some` is the text to append: a note on the lines
    /// suppressed before it.
    pub fn admit(&self, now: Instant) -> Option<String> {
        let mut window = lock(&self.window);
        if now.saturating_duration_since(window.began) >= Duration::from_secs(1) {
            (window.began, window.admitted) = (now, 0);
        }
        if window.admitted == self.per_second {
            window.suppressed += 1;
            return None;
        }
        window.admitted += 1;
        drop(window);
        Some(self.suppressed())
    }

    /// A note on the lines suppressed since the last note, to append to a line.
    pub fn suppressed(&self) -> String {
        match mem::take(&mut lock(&self.window).suppressed) {
            0 => String::new(),
            suppressed => format!("; {} suppressed", Count(suppressed, self.subject)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_so_many_lines_are_admitted_a_second_and_the_others_are_counted() {
        let limit = RateLimit::new(3, "test line");
        let start = Instant::now();
        let admit = |millis| limit.admit(start + Duration::from_millis(millis));
        let none = || Some(String::new());
        let suppressed = |lines| Some(format!("; {lines} suppressed"));
        assert_eq!([0, 0, 999, 999, 999].map(admit), [none(), none(), none(), None, None]);
        assert_eq!(
            [1100, 1100, 2099, 2099].map(admit),
            [suppressed("2 test lines"), none(), none(), None]
        );
        assert_eq!(admit(9000), suppressed("1 test line"));
        assert_eq!(limit.suppressed(), "");
    }
}
