//! Which prefixes new names have, in memory that does not grow with them.
//!
//! A heavy-hitter sketch: a name adds to each of its prefixes, and whoever makes names without end makes one
//! prefix large. Space-Saving in the form of Misra and Gries, to which it comes (Agarwal et al., "Mergeable
//! Summaries", 2012): up to twice [`PREFIXES`] counters; when there are more, the largest that goes is taken
//! off all that stay. No count lacks more than all counts together divided by [`PREFIXES`], whatever order
//! they come in and however parts of them are merged, and a prefix with more than that is there.

use foldhash::fast::RandomState;
use hashbrown::HashMap;

/// Counters that are kept when there is no room for more.
pub const PREFIXES: usize = 1024;
/// Prefixes of one name that count, from the shortest on.
const DEPTH_MAX: usize = 8;
/// Longest prefix, in bytes.
const PREFIX_MAX: usize = 256;
/// Share of the growth from which on a prefix explains it: one in so many.
const EXPLAINS: u64 = 100;

/// What came under a prefix.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Growth {
    /// Names that were new.
    pub names: u64,
    /// Values whose names were folded into others.
    pub folded: u64,
}

impl Growth {
    /// A new name.
    pub const NAME: Self = Self {
        names: 1,
        folded: 0,
    };
    /// A value of a name that was folded.
    pub const FOLDED: Self = Self {
        names: 0,
        folded: 1,
    };

    /// Both together.
    pub fn all(&self) -> u64 {
        self.names + self.folded
    }

    fn add(&mut self, other: Self) {
        self.names += other.names;
        self.folded += other.folded;
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct Counter {
    /// What came since the prefix was met last: at most all of it.
    seen: Growth,
    /// What is left of that for the order in which prefixes go.
    count: u64,
}

/// The prefixes that names grow under, as far as they are many.
#[derive(Debug, Clone, Default)]
pub struct Prefixes {
    counters: HashMap<Box<str>, Counter, RandomState>,
    /// All there was, whatever the prefix.
    total: Growth,
    /// What a count may lack at most.
    lacks: u64,
}

/// A prefix that explains a part of the growth.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// What names begin with, up to the border: `app.`, `app.users;id=`. Empty for those that none of the
    /// others explains.
    pub prefix: Box<str>,
    /// What came under it, at least.
    pub growth: Growth,
}

impl Prefixes {
    /// Whether nothing came.
    pub fn is_empty(&self) -> bool {
        self.total == Growth::default()
    }

    /// All there was.
    pub fn total(&self) -> Growth {
        self.total
    }

    /// Counts for each prefix of a name as it is shown: up to a dot of its path, or the key of a tag.
    pub fn add(&mut self, name: &str, growth: Growth) {
        self.total.add(growth);
        for end in borders(name).take(DEPTH_MAX) {
            if end > PREFIX_MAX {
                break;
            }
            self.count(&name[..end], growth);
        }
    }

    fn count(&mut self, prefix: &str, growth: Growth) {
        if let Some(counter) = self.counters.get_mut(prefix) {
            counter.seen.add(growth);
            counter.count += growth.all();
            return;
        }
        let counter = Counter {
            seen: growth,
            count: growth.all(),
        };
        self.counters.insert(prefix.into(), counter);
        self.purge(2 * PREFIXES);
    }

    /// When there are more than `most` counters, those go that are smaller than the [`PREFIXES`] largest.
    fn purge(&mut self, most: usize) {
        if self.counters.len() <= most {
            return;
        }
        let mut counts: Vec<u64> = self.counters.values().map(|it| it.count).collect();
        let (_, &mut largest_that_goes, _) =
            counts.select_nth_unstable_by(PREFIXES, |a, b| b.cmp(a));
        self.lacks += largest_that_goes;
        self.counters.retain(|_, counter| {
            counter.count = counter.count.saturating_sub(largest_that_goes);
            counter.count > 0
        });
    }

    /// Takes in what another one counted.
    pub fn merge(&mut self, other: &Self) {
        self.total.add(other.total);
        self.lacks += other.lacks;
        for (prefix, theirs) in &other.counters {
            match self.counters.get_mut(prefix) {
                Some(mine) => {
                    mine.seen.add(theirs.seen);
                    mine.count += theirs.count;
                }
                None => {
                    self.counters.insert(prefix.clone(), *theirs);
                }
            }
        }
        self.purge(2 * PREFIXES);
    }

    /// What came under a prefix, at least.
    pub fn of(&self, prefix: &str) -> Growth {
        if prefix.is_empty() {
            return self.total;
        }
        self.counters
            .get(prefix)
            .map(|it| it.seen)
            .unwrap_or_default()
    }

    /// What explains the growth: each prefix under which a hundredth of it came that no longer one explains,
    /// the one with most of that first. With what is left, when that is as much.
    pub fn explain(&self) -> Vec<Explanation> {
        let least = (self.total.all() / EXPLAINS).max(1);
        let mut prefixes: Vec<_> = self.counters.iter().collect();
        // Longer ones first, and else in one order always.
        prefixes.sort_unstable_by(|(a, _), (b, _)| b.len().cmp(&a.len()).then(a.cmp(b)));
        // What longer ones explain already of each prefix.
        let mut explained: HashMap<&str, u64, RandomState> = HashMap::default();
        let mut found = Vec::new();
        let of_longer = |explained: &HashMap<&str, u64, RandomState>, prefix: &str| {
            explained.get(prefix).copied().unwrap_or(0)
        };
        for (prefix, counter) in prefixes {
            let growth = counter.seen;
            let left = growth.all().saturating_sub(of_longer(&explained, prefix));
            if left < least {
                continue;
            }
            for shorter in borders(prefix).filter(|end| *end < prefix.len()) {
                *explained.entry(&prefix[..shorter]).or_default() += left;
            }
            *explained.entry("").or_default() += left;
            found.push((left, prefix.clone(), growth));
        }
        let left = (self.total.all()).saturating_sub(of_longer(&explained, ""));
        if left >= least && !self.is_empty() {
            found.push((left, "".into(), self.total));
        }
        found.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
        found
            .into_iter()
            .map(|(_, prefix, growth)| Explanation { prefix, growth })
            .collect()
    }
}

/// Where the prefixes of a name end: behind each dot of its path and behind the key of each tag.
fn borders(name: &str) -> impl Iterator<Item = usize> {
    let path = name.find(';').unwrap_or(name.len());
    let mut in_key = false;
    name.bytes().enumerate().filter_map(move |(at, byte)| {
        let is_border = match byte {
            b'.' => at < path,
            b';' => {
                in_key = true;
                false
            }
            b'=' => std::mem::take(&mut in_key),
            _ => false,
        };
        is_border.then_some(at + 1)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    #[test]
    fn prefixes_end_at_dots_and_behind_keys_of_tags() {
        for (name, prefixes) in [
            ("a", &[][..]),
            ("a.b.c", &["a.", "a.b."]),
            ("a..b", &["a.", "a.."]),
            (
                "a.b;user=1.2;host=x=y",
                &["a.", "a.b;user=", "a.b;user=1.2;host="],
            ),
            ("a;b", &[]),
            ("a=b.c", &["a=b."]),
        ] {
            let found: Vec<_> = borders(name).map(|end| &name[..end]).collect();
            assert_eq!(found, prefixes, "{name}");
        }
    }

    #[test]
    fn only_so_many_short_prefixes_of_a_name_count() {
        let mut prefixes = Prefixes::default();
        prefixes.add(&"a.".repeat(1000), Growth::NAME);
        prefixes.add(&format!("{}.b.c", "x".repeat(1000)), Growth::NAME);
        assert_eq!(prefixes.counters.len(), DEPTH_MAX);
        assert_eq!(prefixes.total().names, 2);
    }

    #[test]
    fn the_longest_prefix_that_explains_the_growth_is_named() {
        let mut prefixes = Prefixes::default();
        for n in 0..1000 {
            prefixes.add(&format!("app.users.{n}.clicks"), Growth::NAME);
        }
        for n in 0..300 {
            prefixes.add(&format!("app.jobs.done;id={n}"), Growth::FOLDED);
        }
        for n in 0..20 {
            prefixes.add(&format!("plain{n}"), Growth::NAME);
        }
        let explanation = |prefix: &str, names, folded| Explanation {
            prefix: prefix.into(),
            growth: Growth { names, folded },
        };
        assert_eq!(
            prefixes.explain(),
            [
                explanation("app.users.", 1000, 0),
                explanation("app.jobs.done;id=", 0, 300),
                explanation("", 1020, 300),
            ]
        );
        assert_eq!(Prefixes::default().explain(), []);
    }

    /// Prefixes without end, and a few that are large.
    #[test]
    fn what_is_large_is_found_among_prefixes_without_end() {
        let mut parts = [Prefixes::default(), Prefixes::default()];
        for n in 0..100_000_usize {
            let name = if n % 5 == 0 {
                "large.x".into()
            } else {
                format!("{n}.x")
            };
            parts[n / 7 % 2].add(&name, Growth::NAME);
        }
        let [mut all, other] = parts;
        all.merge(&other);
        assert!(all.counters.len() <= 2 * PREFIXES);
        assert!(all.lacks <= 100_000 / PREFIXES as u64);
        let found = all.of("large.").names;
        assert!(found <= 20_000 && found + all.lacks >= 20_000, "{found}");
        let explained: Vec<_> = all.explain().into_iter().map(|it| it.prefix).collect();
        assert_eq!(explained, ["".into(), "large.".into()]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        /// Exact counts are the twin, over parts that are merged at any point.
        #[test]
        fn no_count_is_off_by_more_than_its_share(
            runs in proptest::collection::vec((0..6000u32, 1..400u32, 1..20u32, any::<bool>()), 1..60),
            merge_each in 1..40usize,
        ) {
            let (mut all, mut part) = (Prefixes::default(), Prefixes::default());
            let mut exact = BTreeMap::<String, u64>::new();
            let mut total = 0;
            for (at, (first, prefixes, each, folded)) in runs.into_iter().enumerate() {
                for n in first..first + prefixes {
                    let growth = if folded {
                        Growth { names: 0, folded: each.into() }
                    } else {
                        Growth { names: each.into(), folded: 0 }
                    };
                    part.add(&format!("{n}.x"), growth);
                    *exact.entry(format!("{n}.")).or_default() += u64::from(each);
                    total += u64::from(each);
                }
                if at % merge_each == 0 {
                    all.merge(&std::mem::take(&mut part));
                }
            }
            all.merge(&part);
            prop_assert_eq!(all.total().all(), total);
            let share = total / PREFIXES as u64;
            prop_assert!(all.lacks <= share);
            prop_assert!(all.counters.len() <= 2 * PREFIXES);
            for (prefix, count) in exact {
                let found = all.of(&prefix).all();
                prop_assert!(found <= count, "{}: {} of {}", prefix, found, count);
                prop_assert!(found + share >= count, "{}: {} of {}", prefix, found, count);
                prop_assert!(count <= share || found > 0);
            }
        }
    }
}
