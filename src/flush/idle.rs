//! What becomes of names that nobody sends any more: their memory goes to others, though names come without
//! end.
//!
//! A name ends in two steps. First it is *forgotten*: nothing is sent for it any more. That is what the
//! options say, to the flush ([`super::merge::State::reset`]), and nobody can tell a forgotten name from one
//! that never was. Then, some flushes later, it is *swept*, which nobody notices:
//!
//! 1. Right after a flush the flusher takes names out of the registry, many together, since it costs every
//!    worker a walk over its table. Whoever meets one of them from now on gets a fresh id. It tells the
//!    workers which ids are retired.
//! 2. A worker, when it has handed a harvest over, removes whatever refers to those ids. What of them it
//!    collected before, the harvests that it has handed over by then bring; the flusher takes it for the id
//!    that the name has now (`Sweeper::redirect`), so that nothing is lost and nothing is there twice.
//! 3. A later harvest of the worker says so. When one of each worker has, the ids are free and are given to
//!    other names. A worker that is late keeps them in limbo, and nothing else waits for it.

use super::Flusher;
use crate::metric::harvest::Harvest;
use crate::metric::registry::{NameId, Registry};
use crate::metric::retired::Limbo;
use crate::metric::sample::Kind;

/// When names are swept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// More flushes than these without a value: a name that is sent now and then, and deleted in between,
    /// would only have to be learnt again.
    pub flushes: u32,
    /// Fewer names than these are not worth the walk.
    pub least: usize,
    /// One in so many names has to go for it, too: what each costs is the same however many there are.
    pub share: usize,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            flushes: 10,
            least: 256,
            share: 16,
        }
    }
}

/// Names of a kind that are swept at once at most, so that the flusher has time for questions. Half of all
/// when these are more: however fast names come, sweeps keep up with them.
const AT_ONCE: usize = 1 << 16;

/// One in so many names has to go where there is no room for others: those that wait for it are folded.
const SHARE_WHEN_FULL: usize = 1024;

/// The names that are being swept.
#[derive(Debug)]
pub(super) struct Sweeper {
    limbo: Option<Limbo>,
    /// The last sweep each worker is through with.
    swept: Vec<u64>,
}

impl Sweeper {
    pub(super) fn new(workers: usize) -> Self {
        Self {
            limbo: None,
            swept: vec![0; workers],
        }
    }

    /// Turns what came for ids in limbo to the ids that their names have now.
    pub(super) fn redirect(&self, harvest: &mut Harvest, registry: &Registry) {
        let Some(limbo) = &self.limbo else {
            return;
        };
        let number = limbo.retired.number;
        if harvest.swept >= number {
            return;
        }
        let now = |kind: Kind, id: &mut NameId| {
            if limbo.retired.contains(kind, *id)
                && let Some(name) = limbo.names[kind as usize].get(id)
            {
                *id = registry.id_of_former(kind, name);
            }
        };
        let Harvest {
            counters,
            timers,
            gauges,
            sets,
            points,
            ..
        } = harvest;
        let counters = counters.iter_mut().map(|part| &mut part.id);
        counters.for_each(|id| now(Kind::Counter, id));
        let timers = timers.iter_mut().map(|part| &mut part.id);
        timers.for_each(|id| now(Kind::Timer, id));
        let gauges = gauges.iter_mut().map(|part| &mut part.id);
        gauges.for_each(|id| now(Kind::Gauge, id));
        let sets = sets.iter_mut().map(|part| &mut part.id);
        sets.for_each(|id| now(Kind::Set, id));
        points
            .iter_mut()
            .for_each(|point| now(point.kind, &mut point.id));
    }

    /// Notes how far a worker is, and returns what nobody has any more.
    pub(super) fn swept(&mut self, worker: usize, number: u64) -> Option<Limbo> {
        let known = self.swept.get_mut(worker)?;
        *known = number.max(*known);
        let wanted = self.limbo.as_ref()?.retired.number;
        let through = self.swept.iter().all(|swept| *swept >= wanted);
        self.limbo.take_if(|_| through)
    }
}

impl Flusher {
    /// Begins to sweep what is forgotten, when it is worth it and the sweep before is over. [`Flusher::run`]
    /// does it after each flush, and nobody else may take a harvest in between.
    pub fn sweep(&mut self, policy: Policy) {
        if self.sweeper.limbo.is_some() || self.sweeper.swept.is_empty() {
            return;
        }
        let names = Kind::ALL.map(|kind| self.registry.names(kind));
        let names: usize = names.iter().sum();
        let most = (names / 2).max(AT_ONCE);
        let ids = self.state.invisible(policy.flushes, most);
        let mut worth = policy.least.max(names / policy.share);
        if self.registry.is_full() {
            worth = worth.min((names / SHARE_WHEN_FULL).max(1));
        }
        if ids.iter().map(Vec::len).sum::<usize>() < worth {
            return;
        }
        let limbo = self.registry.retire(ids);
        self.state.put_away(&limbo);
        let swept = limbo.names.iter().map(|names| names.len() as u64).sum();
        self.outside.names_swept.add(swept);
        self.sweeper.limbo = Some(limbo);
    }

    /// How many ids the columns reach over, by kind.
    pub fn columns(&self) -> [usize; Kind::ALL.len()] {
        self.state.columns()
    }
}
