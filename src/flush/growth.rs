//! Under which prefixes names grow: since the start, and lately.

use crate::metric::prefixes::{Growth, Prefixes};
use crate::metric::registry::Name;

/// The prefixes of all workers.
#[derive(Debug, Default)]
pub struct Growing {
    /// Since the start.
    all: Prefixes,
    /// In the running interval.
    running: Prefixes,
    /// In the one before it.
    before: Prefixes,
}

/// A prefix that explains a part of the growth.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grown {
    /// What names begin with; empty for those that no other prefix explains.
    pub prefix: Name,
    /// What came under it since the start, at least.
    pub total: Growth,
    /// The same since the flush before the last.
    pub recent: Growth,
}

impl Growing {
    /// Takes in what a worker counted.
    pub fn merge(&mut self, other: &Prefixes) {
        if !other.is_empty() {
            self.all.merge(other);
            self.running.merge(other);
        }
    }

    /// Begins the next interval.
    pub fn end_interval(&mut self) {
        self.before = std::mem::take(&mut self.running);
    }

    /// What explains the growth since the start, but first what explains it lately.
    pub fn explain(&self, most: usize) -> Vec<Grown> {
        let mut recent = self.before.clone();
        recent.merge(&self.running);
        let explanations = recent.explain().into_iter().chain(self.all.explain());
        let mut grown: Vec<Grown> = Vec::new();
        for prefix in explanations.map(|it| Name::from(it.prefix)) {
            if grown.len() == most {
                break;
            }
            if grown.iter().all(|it| it.prefix != prefix) {
                grown.push(Grown {
                    total: self.all.of(&prefix),
                    recent: recent.of(&prefix),
                    prefix,
                });
            }
        }
        grown
    }

    /// What explains most of what came in the running interval.
    pub fn culprit(&self) -> Option<(Box<str>, Growth)> {
        let first = self.running.explain().into_iter().next();
        first.map(|it| (it.prefix, it.growth))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_grows_lately_comes_before_what_grew_long_ago() {
        let grow = |prefix: &str, names: usize| {
            let mut prefixes = Prefixes::default();
            (0..names).for_each(|n| prefixes.add(&format!("{prefix}{n}"), Growth::NAME));
            prefixes
        };
        let mut growing = Growing::default();
        growing.merge(&grow("old.", 1000));
        growing.end_interval();
        growing.end_interval();
        growing.merge(&grow("before.", 20));
        growing.end_interval();
        growing.merge(&grow("now.", 30));
        growing.merge(&Prefixes::default());
        let shown = |most| {
            let grown = growing.explain(most).into_iter();
            grown
                .map(|it| (it.prefix.to_string(), it.total.names, it.recent.names))
                .collect::<Vec<_>>()
        };
        let of = |prefix: &str, total, recent| (prefix.to_owned(), total, recent);
        let all = [
            of("now.", 30, 30),
            of("before.", 20, 20),
            of("old.", 1000, 0),
        ];
        assert_eq!(shown(10), all);
        assert_eq!(shown(2), all[..2]);
        let now = Growth {
            names: 30,
            folded: 0,
        };
        assert_eq!(growing.culprit(), Some(("now.".into(), now)));
    }
}
