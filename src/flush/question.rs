//! Questions about the running interval, and their answers.
//!
//! Whoever asks gets what the workers hold at that moment, all of them together: the flusher takes a
//! harvest first, which costs them nothing they would not do at the next flush.

use super::Flusher;
use super::growth::Grown;
use super::merge::Column;
use crate::metric::harvest::Tally;
use crate::metric::meter::{Meter, Totals};
use crate::metric::registry::Name;
use crate::metric::sample::Kind;
use crate::metric::set::Member;
use crossbeam::channel::Sender;
use std::collections::HashMap;

/// A question, with the way for its answer. A closed way is no fault: who asked has gone.
#[derive(Debug)]
pub enum Question {
    /// When something came last, and how much of it was bad.
    Messages(Sender<Messages>),
    /// Every living counter with what it has come to since the last flush.
    Counters(Sender<Vec<(Name, f64)>>),
    /// Every living gauge with its value.
    Gauges(Sender<Vec<(Name, f64)>>),
    /// Every living timer with its samples since the last flush.
    Timers(Sender<Vec<(Name, Excerpt<f64>)>>),
    /// Every living set with its members since the last flush.
    Sets(Sender<Vec<(Name, Excerpt<Member>)>>),
    /// Forget names of a kind.
    Delete {
        /// The kind.
        kind: Kind,
        /// Names; one that ends in `.*` stands for all that begin with what is before the star.
        patterns: Vec<String>,
        /// What was deleted, for each pattern.
        deleted: Sender<Vec<Vec<Name>>>,
    },
    /// The names that got most values since the last flush, the busiest first.
    Busiest {
        /// How many at the most.
        most: usize,
        /// The answer.
        busiest: Sender<Vec<Busy>>,
    },
    /// The prefixes under which names grow, what explains most of it lately first.
    Prefixes {
        /// How many at the most.
        most: usize,
        /// The answer.
        prefixes: Sender<Vec<Grown>>,
    },
    /// Every counter of the server's own.
    Meters(Sender<Vec<Reading>>),
}

/// What came so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Messages {
    /// When the last datagram came, `runtime::clock::monotonic_ns`; `None` before the first.
    pub last_ns: Option<u64>,
    /// Values refused since the start.
    pub bad: u64,
}

/// The beginning of a list, and how long it is.
#[derive(Debug, Clone, PartialEq)]
pub struct Excerpt<T> {
    /// At most [`EXCERPT`] of the items; none of a timer that became a histogram.
    pub first: Vec<T>,
    /// How many items there are.
    pub len: usize,
}

/// Items of a list that are shown: as many as Node.js prints of an array.
pub const EXCERPT: usize = 100;

/// A name that got values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Busy {
    /// Its name.
    pub name: Name,
    /// Its kind.
    pub kind: Kind,
    /// Values since the last flush.
    pub hits: u64,
}

/// One counter of the server's own.
#[derive(Debug, Clone, Copy)]
pub struct Reading {
    /// Which.
    pub meter: &'static Meter,
    /// Since the start.
    pub total: u64,
    /// Since the last flush; of a level, how it stands.
    pub recent: u64,
}

impl Flusher {
    /// Answers about everything that was taken in so far.
    pub fn answer(&mut self, question: Question) {
        self.state.catch_up(&self.registry);
        let state = &mut self.state;
        // Nobody is left to answer to when a send fails.
        match question {
            Question::Messages(answer) => {
                let Tally { last_packet, .. } = self.total;
                let _ = answer.send(Messages {
                    last_ns: (last_packet > 0).then_some(last_packet),
                    bad: self.total.rejected_total(),
                });
            }
            Question::Counters(answer) => {
                let living = state.counters.living();
                let _ = answer.send(living.map(|(name, sum)| (name.clone(), *sum)).collect());
            }
            Question::Gauges(answer) => {
                let living = state.gauges.living();
                let value = living.map(|(name, it)| (name.clone(), it.writes.after(it.value)));
                let _ = answer.send(value.collect());
            }
            Question::Timers(answer) => {
                let samples = state.timers.living().map(|(name, timer)| {
                    let folded = timer
                        .histogram
                        .as_ref()
                        .map(|it| it.all_moments().count as usize);
                    let shown = if folded.is_none() { EXCERPT } else { 0 };
                    let excerpt = Excerpt {
                        first: timer.samples.iter().take(shown).copied().collect(),
                        len: timer.samples.len() + folded.unwrap_or(0),
                    };
                    (name.clone(), excerpt)
                });
                let _ = answer.send(samples.collect());
            }
            Question::Sets(answer) => {
                let members = state.sets.living().map(|(name, members)| {
                    let excerpt = Excerpt {
                        first: members.iter().take(EXCERPT).cloned().collect(),
                        len: members.len(),
                    };
                    (name.clone(), excerpt)
                });
                let _ = answer.send(members.collect());
            }
            Question::Delete {
                kind,
                patterns,
                deleted,
            } => {
                let _ = deleted.send(match kind {
                    Kind::Counter => delete(&mut state.counters, &patterns),
                    Kind::Timer => delete(&mut state.timers, &patterns),
                    Kind::Gauge => delete(&mut state.gauges, &patterns),
                    Kind::Set => delete(&mut state.sets, &patterns),
                });
            }
            Question::Busiest { most, busiest } => {
                let mut all = Vec::new();
                hits(&state.counters, Kind::Counter, &mut all);
                hits(&state.timers, Kind::Timer, &mut all);
                hits(&state.gauges, Kind::Gauge, &mut all);
                hits(&state.sets, Kind::Set, &mut all);
                all.sort_by_key(|busy| std::cmp::Reverse(busy.hits));
                all.truncate(most);
                let _ = busiest.send(all);
            }
            Question::Prefixes { most, prefixes } => {
                let _ = prefixes.send(self.growth.explain(most));
            }
            Question::Meters(answer) => {
                let totals = Totals::read(&self.total, &self.outside);
                let readings = totals.each().zip(self.flushed.each());
                let readings = readings.map(|((meter, total), (_, before))| Reading {
                    meter,
                    total,
                    recent: meter.since(total, before),
                });
                let _ = answer.send(readings.collect());
            }
        }
    }
}

/// Forgets what the patterns name; what an earlier one names is not found by a later one. One pass over the
/// names, however many patterns there are.
fn delete<C: Default>(column: &mut Column<C>, patterns: &[String]) -> Vec<Vec<Name>> {
    let (mut names, mut folders) = (HashMap::new(), HashMap::new());
    for (at, pattern) in patterns.iter().enumerate() {
        names.entry(pattern.as_str()).or_insert(at);
        if let Some(folder) = pattern.strip_suffix('*')
            && folder.ends_with('.')
        {
            folders.entry(folder).or_insert(at);
        }
    }
    let first = |name: &str| {
        let dots = name.match_indices('.').filter(|_| !folders.is_empty());
        let of_folders = dots.filter_map(|(dot, _)| folders.get(&name[..=dot]));
        of_folders.chain(names.get(name)).min().copied()
    };
    let mut forgotten = vec![Vec::new(); patterns.len()];
    for (name, cell) in column.names.iter().zip(&mut column.cells) {
        if cell.is_some()
            && let Some(at) = first(name)
        {
            *cell = None;
            forgotten[at].push(name.clone());
        }
    }
    forgotten
}

/// Names of a column that got values since the last flush.
fn hits<C>(column: &Column<C>, kind: Kind, out: &mut Vec<Busy>) {
    let hits = column.names.iter().zip(&column.hits);
    out.extend(
        hits.filter(|(_, hits)| **hits > 0)
            .map(|(name, hits)| Busy {
                name: name.clone(),
                kind,
                hits: u64::from(*hits),
            }),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_goes_with_the_first_pattern_that_names_it() {
        let names = ["a.b", "a.c", "ab", "a", "a.b.c", "x.y", "a."];
        let patterns = ["a.b", "a.b.*", "a.*", "a.c", "x.*", "nothing", "*", ".*"];
        let mut column = Column {
            names: names.map(Name::from).into(),
            cells: vec![Some(1.0); names.len()],
            hits: vec![1; names.len()],
            since: vec![0; names.len()],
        };
        // Not alive: nothing to forget.
        column.cells[5] = None;
        let found = delete(&mut column, &patterns.map(String::from));
        let found: Vec<Vec<&str>> = found
            .iter()
            .map(|names| names.iter().map(|name| &**name).collect())
            .collect();
        let none: Vec<&str> = Vec::new();
        let expected = [vec!["a.b"], vec!["a.b.c"], vec!["a.c", "a."]];
        assert_eq!(found[..3], expected);
        assert!(found[3..].iter().all(|names| *names == none), "{found:?}");
        let left = column.cells.iter().map(Option::is_some);
        assert_eq!(
            left.collect::<Vec<_>>(),
            [false, false, true, true, false, false, false]
        );
    }
}
