//! NOUN: what outlives the process when there is a state file; and the shelf where it lies until it is
//! written.
//!
//! The flusher lays its gauges there, a backend its running totals, and neither waits for whoever writes
//! them: what was not written when something newer comes is let go.

use super::registry::Name;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long a part of a flush waits for the other, so that gauges and totals are written at once.
const TOGETHER_MAX: Duration = Duration::from_secs(2);

/// A gauge between two flushes.
#[derive(Debug, Clone, PartialEq)]
pub struct Gauge {
    /// Cleaned name with tags.
    pub name: Name,
    /// Its value as of the last flush.
    pub value: f64,
    /// Flushes it has left to live, when gauges are deleted.
    pub flushes_left: u32,
}

/// Running totals since the beginning of time, as a backend sends them.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Totals {
    /// Of each counter, in no order.
    pub counters: Vec<(Name, f64)>,
    /// Of the number of names.
    pub num_stats: f64,
    /// Times of flushes that are in it already and may come again from the disk, Unix seconds: known of those
    /// of a process that was taken over, and not written down.
    pub ahead: Vec<i64>,
}

/// All of it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Kept {
    /// In order of first appearance.
    pub gauges: Vec<Gauge>,
    /// `None` when no backend has any.
    pub totals: Option<Arc<Totals>>,
}

impl Kept {
    /// A number that is another one when anything in it is.
    pub fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        for gauge in &self.gauges {
            let value = gauge.value.to_bits();
            (&gauge.name, value, gauge.flushes_left).hash(&mut hasher);
        }
        self.gauges.len().hash(&mut hasher);
        self.totals.is_some().hash(&mut hasher);
        if let Some(totals) = &self.totals {
            totals.num_stats.to_bits().hash(&mut hasher);
            for (name, sum) in &totals.counters {
                (name, sum.to_bits()).hash(&mut hasher);
            }
        }
        hasher.finish()
    }
}

/// Totals, and the time of the last flush in them.
type Slot = Arc<Mutex<(Arc<Totals>, Option<i64>)>>;

#[derive(Debug, Default)]
struct Contents {
    gauges: Option<Vec<Gauge>>,
    totals: Option<Slot>,
    /// There was a flush: without one nothing is known of gauges.
    flushed: bool,
    /// Something came since the last look.
    news: bool,
    /// What is still to come of the flush that goes on.
    gauges_due: bool,
    totals_due: bool,
    closed: bool,
}

impl Contents {
    fn ready(&self) -> bool {
        self.flushed && self.news
    }
}

/// Where it lies. Clones are the same shelf.
#[derive(Debug, Clone, Default)]
pub struct Shelf(Arc<(Mutex<Contents>, Condvar)>);

/// Writes the running totals of one backend. Clones write the same.
#[derive(Debug, Clone)]
pub struct Pen {
    slot: Slot,
    shelf: Shelf,
}

impl Shelf {
    /// A flush begins, of which nothing was published: its gauges, and totals when there are any, belong
    /// together.
    pub fn begin(&self) {
        let mut contents = self.contents();
        contents.gauges_due = true;
        contents.totals_due = contents.totals.is_some();
    }

    /// Lays the gauges of a flush there, all of them.
    pub fn put_gauges(&self, gauges: Vec<Gauge>) {
        let mut contents = self.contents();
        let old = contents.gauges.replace(gauges);
        contents.flushed = true;
        contents.news = true;
        contents.gauges_due = false;
        drop(contents);
        self.0.1.notify_all();
        // Not with the lock: there may be a million.
        drop(old);
    }

    /// A pen for a backend whose totals are these. Nobody reads them before [`Shelf::show`].
    pub fn pen(&self, totals: Arc<Totals>) -> Pen {
        Pen {
            slot: Arc::new(Mutex::new((totals, None))),
            shelf: self.clone(),
        }
    }

    /// From now on the totals are those of this pen, or there are none.
    pub fn show(&self, pen: Option<&Pen>) {
        let mut contents = self.contents();
        contents.totals = pen.map(|pen| pen.slot.clone());
        contents.totals_due &= pen.is_some();
        contents.news = true;
        drop(contents);
        self.0.1.notify_all();
    }

    /// Nothing will come any more.
    pub fn close(&self) {
        self.contents().closed = true;
        self.0.1.notify_all();
    }

    /// Waits for something new and brings `kept` up to date; gauges and totals of a flush wait for each
    /// other, for two seconds at most. Whether there was any: not, when the shelf is closed and all was seen.
    pub fn next(&self, kept: &mut Kept) -> bool {
        let idle = |it: &mut Contents| !it.ready() && !it.closed;
        let waited = self.0.1.wait_while(self.contents(), idle);
        let contents = waited.unwrap_or_else(PoisonError::into_inner);
        let due = |it: &mut Contents| (it.gauges_due || it.totals_due) && !it.closed;
        let waited = self.0.1.wait_timeout_while(contents, TOGETHER_MAX, due);
        let (mut contents, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if !contents.ready() {
            return false;
        }
        contents.news = false;
        let gauges = contents.gauges.take();
        let slot = contents.totals.clone();
        drop(contents);
        if let Some(gauges) = gauges {
            kept.gauges = gauges;
        }
        let read = |slot: Slot| {
            let slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
            slot.0.clone()
        };
        kept.totals = slot.map(read);
        true
    }

    fn contents(&self) -> MutexGuard<'_, Contents> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pen {
    /// What was written last, and the time of the last flush in it, Unix seconds.
    pub fn totals(&self) -> (Arc<Totals>, Option<i64>) {
        self.slot
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// The totals from now on, with all flushes up to that of `timestamp`.
    pub fn write(&self, totals: Totals, timestamp: i64) {
        let mut slot = self.slot.lock().unwrap_or_else(PoisonError::into_inner);
        *slot = (Arc::new(totals), Some(timestamp));
        drop(slot);
        let mut contents = self.shelf.contents();
        let shown = contents.totals.as_ref();
        if shown.is_some_and(|shown| Arc::ptr_eq(shown, &self.slot)) {
            contents.news = true;
            contents.totals_due = false;
        }
        drop(contents);
        self.shelf.0.1.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gauge(value: f64) -> Gauge {
        Gauge {
            name: "g".into(),
            value,
            flushes_left: 1,
        }
    }

    fn totals(num_stats: f64) -> Totals {
        Totals {
            num_stats,
            ..Totals::default()
        }
    }

    #[test]
    fn only_the_newest_is_seen_and_all_of_it_before_the_end() {
        let shelf = Shelf::default();
        let mut kept = Kept::default();
        for value in [1.0, 2.0] {
            shelf.put_gauges(vec![gauge(value)]);
        }
        assert!(shelf.next(&mut kept));
        assert_eq!((kept.gauges[0].value, &kept.totals), (2.0, &None));
        let pen = shelf.pen(Arc::new(totals(7.0)));
        shelf.show(Some(&pen));
        pen.write(totals(8.0), 1);
        assert!(shelf.next(&mut kept));
        assert_eq!(kept.gauges, [gauge(2.0)], "they are still there");
        assert_eq!(kept.totals, Some(Arc::new(totals(8.0))));
        shelf.put_gauges(Vec::new());
        shelf.close();
        assert!(shelf.next(&mut kept));
        assert_eq!(kept.gauges, []);
        assert!(!shelf.next(&mut kept));
    }

    #[test]
    fn gauges_and_totals_of_a_flush_are_seen_together() {
        let shelf = Shelf::default();
        let pen = shelf.pen(Arc::default());
        shelf.show(Some(&pen));
        let mut seen = Vec::new();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut kept = Kept::default();
                while shelf.next(&mut kept) {
                    let totals = kept.totals.as_ref().map(|totals| totals.num_stats);
                    seen.push((kept.gauges[0].value, totals));
                }
            });
            for number in [1.0, 2.0] {
                shelf.begin();
                // Whichever comes first.
                if number == 1.0 {
                    pen.write(totals(number), 1);
                }
                shelf.put_gauges(vec![gauge(number)]);
                if number == 2.0 {
                    pen.write(totals(number), 1);
                }
            }
            // Totals that never come are waited for no longer than the shelf is open.
            shelf.begin();
            shelf.put_gauges(vec![gauge(3.0)]);
            shelf.close();
        });
        let (last, before) = seen.split_last().expect("all is seen before the end");
        assert_eq!(*last, (3.0, Some(2.0)));
        let matches = |it: &(f64, Option<f64>)| it.1 == Some(it.0);
        assert!(before.iter().all(matches), "{before:?}");
    }

    #[test]
    fn a_fingerprint_tells_what_is_kept_apart() {
        let kept = |value, totals: Option<f64>| Kept {
            gauges: vec![gauge(value)],
            totals: totals.map(|num_stats| Arc::new(self::totals(num_stats))),
        };
        let print = |kept: Kept| kept.fingerprint();
        assert_eq!(print(kept(1.0, None)), print(kept(1.0, None)));
        let mut longer = kept(1.0, None);
        longer.gauges[0].flushes_left += 1;
        for other in [
            kept(2.0, None),
            kept(1.0, Some(0.0)),
            kept(1.0, Some(1.0)),
            longer,
            Kept::default(),
        ] {
            assert_ne!(print(kept(1.0, None)), print(other));
        }
    }

    #[test]
    fn totals_alone_are_no_state() {
        let shelf = Shelf::default();
        let pen = shelf.pen(Arc::default());
        shelf.show(Some(&pen));
        pen.write(totals(1.0), 1);
        shelf.close();
        assert!(
            !shelf.next(&mut Kept::default()),
            "gauges are not known yet: written, they would be none"
        );
    }

    #[test]
    fn a_backend_that_was_replaced_writes_for_nobody() {
        let shelf = Shelf::default();
        let (old, new) = (shelf.pen(Arc::default()), shelf.pen(Arc::default()));
        shelf.show(Some(&old));
        shelf.show(Some(&new));
        shelf.put_gauges(Vec::new());
        old.write(totals(9.0), 1);
        new.write(totals(0.0), 1);
        let mut kept = Kept::default();
        assert!(shelf.next(&mut kept));
        assert_eq!(kept.totals, Some(Arc::default()));
        shelf.show(None);
        new.write(totals(1.0), 1);
        assert!(shelf.next(&mut kept));
        assert_eq!(kept.totals, None);
    }
}
