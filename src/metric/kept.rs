//! NOUN: what outlives the process when there is a state file; and the shelf where it lies until it is
//! written.
//!
//! The flusher lays its gauges there, a backend its running totals, and neither waits for whoever writes
//! them: what was not written when something newer comes is let go.

use super::registry::Name;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

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
}

/// All of it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Kept {
    /// In order of first appearance.
    pub gauges: Vec<Gauge>,
    /// `None` when no backend has any.
    pub totals: Option<Arc<Totals>>,
}

type Slot = Arc<Mutex<Arc<Totals>>>;

#[derive(Debug, Default)]
struct Contents {
    gauges: Option<Vec<Gauge>>,
    totals: Option<Slot>,
    /// There was a flush: without one nothing is known of gauges.
    flushed: bool,
    /// Something came since the last look.
    news: bool,
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
    /// Lays the gauges of a flush there, all of them.
    pub fn put_gauges(&self, gauges: Vec<Gauge>) {
        let mut contents = self.contents();
        let old = contents.gauges.replace(gauges);
        contents.flushed = true;
        contents.news = true;
        drop(contents);
        self.0.1.notify_all();
        // Not with the lock: there may be a million.
        drop(old);
    }

    /// A pen for a backend whose totals are these. Nobody reads them before [`Shelf::show`].
    pub fn pen(&self, totals: Arc<Totals>) -> Pen {
        Pen {
            slot: Arc::new(Mutex::new(totals)),
            shelf: self.clone(),
        }
    }

    /// From now on the totals are those of this pen, or there are none.
    pub fn show(&self, pen: Option<&Pen>) {
        self.contents().totals = pen.map(|pen| pen.slot.clone());
    }

    /// Nothing will come any more.
    pub fn close(&self) {
        self.contents().closed = true;
        self.0.1.notify_all();
    }

    /// Waits for something new and brings `kept` up to date. Whether there was any: not, when the shelf is
    /// closed and all was seen.
    pub fn next(&self, kept: &mut Kept) -> bool {
        let idle = |it: &mut Contents| !it.ready() && !it.closed;
        let waited = self.0.1.wait_while(self.contents(), idle);
        let mut contents = waited.unwrap_or_else(PoisonError::into_inner);
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
        let read = |slot: Slot| slot.lock().unwrap_or_else(PoisonError::into_inner).clone();
        kept.totals = slot.map(read);
        true
    }

    fn contents(&self) -> MutexGuard<'_, Contents> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pen {
    /// What was written last.
    pub fn totals(&self) -> Arc<Totals> {
        self.slot
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// The totals from now on.
    pub fn write(&self, totals: Totals) {
        let mut slot = self.slot.lock().unwrap_or_else(PoisonError::into_inner);
        *slot = Arc::new(totals);
        drop(slot);
        self.shelf.contents().news = true;
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
        pen.write(totals(8.0));
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
    fn totals_alone_are_no_state() {
        let shelf = Shelf::default();
        let pen = shelf.pen(Arc::default());
        shelf.show(Some(&pen));
        pen.write(totals(1.0));
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
        old.write(totals(9.0));
        let mut kept = Kept::default();
        assert!(shelf.next(&mut kept));
        assert_eq!(kept.totals, Some(Arc::default()));
        shelf.show(None);
        new.write(totals(1.0));
        assert!(shelf.next(&mut kept));
        assert_eq!(kept.totals, None);
    }
}
