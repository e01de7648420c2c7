//! The searches of a flush, within bounds of time: one hard pattern, or hard names, shall not keep a flush.
//!
//! A search that is given up, or not begun any more, counts as not found, and is counted.

use super::super::pattern::{Exhausted, Pattern};
use std::fmt;

/// Searches of one pattern in one flush that may be given up before it is not tried any more.
const EXHAUSTED_MAX: u32 = 64;
/// Longest text that is searched, in bytes: one step of a search may look through all that follows.
const TEXT_MAX: usize = 1024;
/// How long the searches of a flush may take together, in milliseconds,
const ALLOWED_MS: u64 = 200;
/// and in microseconds what each more may take: `\bword\b`, which looks around at every character, needs ten
/// for a name of 100, and shall not be given up because names are many.
const ALLOWED_US_EACH: u64 = 25;
/// Searches from one look at the clock to the next.
const STRIDE: u64 = 16;

/// What the searches of one flush may take: time by a clock of milliseconds, read once in many searches.
pub(super) struct Budget {
    now_ms: Box<dyn Fn() -> u64 + Send>,
    began: Option<u64>,
    allowed_ms: u64,
    searches: u64,
    is_spent: bool,
}

impl Default for Budget {
    /// By a clock that stands.
    fn default() -> Self {
        Self::new(Box::new(|| 0))
    }
}

impl fmt::Debug for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Budget")
            .field("searches", &self.searches)
            .finish_non_exhaustive()
    }
}

impl Budget {
    pub(super) fn new(now_ms: Box<dyn Fn() -> u64 + Send>) -> Self {
        Self {
            now_ms,
            began: None,
            allowed_ms: ALLOWED_MS,
            searches: 0,
            is_spent: false,
        }
    }

    /// For a new flush. What is done between the searches takes time of the same clock: `between_ms` more.
    pub(super) fn begin(&mut self, between_ms: u64) {
        self.began = None;
        self.allowed_ms = ALLOWED_MS + between_ms;
        self.searches = 0;
        self.is_spent = false;
    }

    /// Whether there may be one more.
    fn admits(&mut self) -> bool {
        if self.is_spent {
            return false;
        }
        if self.searches.is_multiple_of(STRIDE) {
            let now = (self.now_ms)();
            let began = *self.began.get_or_insert(now);
            let allowed = self.allowed_ms + self.searches * ALLOWED_US_EACH / 1000;
            self.is_spent = now.saturating_sub(began) > allowed;
        }
        self.searches += 1;
        !self.is_spent
    }
}

/// A pattern, and how often it was given up in this flush.
#[derive(Debug)]
pub(super) struct Search {
    pattern: Pattern,
    exhausted: u32,
    /// Not begun at all.
    left_out: u64,
}

impl Search {
    pub(super) fn new(pattern: &Pattern) -> Self {
        Self {
            pattern: pattern.clone(),
            exhausted: 0,
            left_out: 0,
        }
    }

    /// What `search` finds in a text, or nothing when it takes too long.
    pub(super) fn run<T: Default>(
        &mut self,
        budget: &mut Budget,
        text: &str,
        search: impl FnOnce(&Pattern, &str) -> Result<T, Exhausted>,
    ) -> T {
        if text.len() > TEXT_MAX || self.exhausted >= EXHAUSTED_MAX || !budget.admits() {
            self.left_out += 1;
            return T::default();
        }
        search(&self.pattern, text).unwrap_or_else(|Exhausted| {
            self.exhausted += 1;
            T::default()
        })
    }

    pub(super) fn is_match(&mut self, budget: &mut Budget, text: &str) -> bool {
        self.run(budget, text, Pattern::is_match)
    }

    /// How many were given up or not begun since it was last asked.
    pub(super) fn take_exhausted(&mut self) -> u64 {
        u64::from(std::mem::take(&mut self.exhausted)) + std::mem::take(&mut self.left_out)
    }
}
