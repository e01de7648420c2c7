//! Ready datagrams of one flow, made before the clock starts, and what each of them holds.

use crate::random::Names;
use crate::shape::{Generator, Metric, Shape};
use crate::tally::{Slot, Tally};

/// The datagrams of one flow, sent over and over until its quota of metrics is reached to the
/// line.
#[derive(Debug)]
pub(crate) struct Ring {
    flow: u64,
    bytes: Vec<u8>,
    slots: Vec<Slot>,
    /// Lines to send in all; `u64::MAX` when only time ends the run.
    quota: u64,
    /// Datagrams to send in all; `u64::MAX` likewise.
    planned: u64,
    /// The last datagram, when the quota ends inside a slot: the first lines of that slot.
    tail: Option<Tail>,
}

#[derive(Debug)]
struct Tail {
    bytes: Vec<u8>,
    slot: Slot,
}

impl Ring {
    /// Fills a ring of about `budget` bytes, but always one datagram and never more than `quota`
    /// lines.
    pub(crate) fn new(
        shape: &Shape,
        names: &Names,
        flow: u64,
        budget: usize,
        quota: Option<u64>,
    ) -> Self {
        // Offsets are u32.
        let budget = budget.min(1 << 31);
        let quota = quota.unwrap_or(u64::MAX);
        let mut ring = Self {
            flow,
            bytes: Vec::new(),
            slots: Vec::new(),
            quota,
            planned: u64::MAX,
            tail: None,
        };
        let mut generator = Generator::new(shape, names, flow);
        let mut left = quota;
        while left > 0 && (ring.slots.is_empty() || ring.memory() < budget) {
            let slot = make(&mut generator, left, &mut ring.bytes);
            left -= slot.lines();
            ring.slots.push(slot);
        }
        ring.bytes.shrink_to_fit();
        ring.slots.shrink_to_fit();
        if quota < u64::MAX {
            ring.plan(shape, names);
        }
        ring
    }

    fn memory(&self) -> usize {
        self.bytes.len() + self.slots.len() * size_of::<Slot>()
    }

    fn plan(&mut self, shape: &Shape, names: &Names) {
        // An empty ring has quota 0.
        let lines = self.lines().max(1);
        let mut rest = self.quota % lines;
        let whole = self.slots.iter().take_while(|slot| {
            let fits = slot.lines() <= rest;
            rest -= if fits { slot.lines() } else { 0 };
            fits
        });
        let whole = whole.count();
        self.planned = self.quota / lines * self.slots.len() as u64 + whole as u64;
        if rest > 0 {
            self.planned += 1;
            let mut generator = Generator::new(shape, names, self.flow);
            let mut bytes = Vec::new();
            for _ in 0..whole {
                bytes.clear();
                generator.datagram(u64::MAX, &mut bytes, |_| {});
            }
            bytes.clear();
            let slot = make(&mut generator, rest, &mut bytes);
            self.tail = Some(Tail { bytes, slot });
        }
    }

    /// Datagrams in the ring.
    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Lines in the ring.
    pub(crate) fn lines(&self) -> u64 {
        self.slots.iter().map(Slot::lines).sum()
    }

    /// Length of the longest datagram in the ring, in bytes.
    pub(crate) fn longest(&self) -> usize {
        let mut start = 0;
        let lengths = self.slots.iter().map(|slot| {
            let length = slot.end - start;
            start = slot.end;
            length as usize
        });
        lengths.max().unwrap_or(0)
    }

    /// Fewest and most lines of a datagram, the cut one included.
    pub(crate) fn lines_each(&self) -> (u64, u64) {
        let tail = self.tail.as_ref().map(|tail| tail.slot.lines());
        let lines = self.slots.iter().map(Slot::lines).chain(tail);
        lines.fold((u64::MAX, 0), |(fewest, most), lines| {
            (fewest.min(lines), most.max(lines))
        })
    }

    /// Payload in the ring, in bytes.
    pub(crate) fn payload(&self) -> usize {
        self.bytes.len()
    }

    /// Lines this flow is to send; `u64::MAX` when only time ends it.
    pub(crate) fn quota(&self) -> u64 {
        self.quota
    }

    /// Datagrams this flow is to send; `u64::MAX` when only time ends it.
    pub(crate) fn planned(&self) -> u64 {
        self.planned
    }

    /// Whether the last datagram is a cut one.
    pub(crate) fn has_tail(&self) -> bool {
        self.tail.is_some()
    }

    /// The datagram to send as number `index` of `0..planned()`.
    pub(crate) fn datagram(&self, index: u64) -> (&[u8], Tally) {
        if let Some(tail) = self.tail.as_ref().filter(|_| index + 1 == self.planned) {
            return (&tail.bytes, tail.slot.tally(tail.bytes.len()));
        }
        let place = self.place(index);
        let start = place
            .checked_sub(1)
            .map_or(0, |before| self.slots[before].end as usize);
        let slot = &self.slots[place];
        let bytes = &self.bytes[start..slot.end as usize];
        (bytes, slot.tally(bytes.len()))
    }

    /// The slot that datagram number `index` comes from.
    pub(crate) fn place(&self, index: u64) -> usize {
        (index % self.slots.len() as u64) as usize
    }

    /// Tells every metric of the slots that were sent to `each`, those of a slot once.
    ///
    /// `sent` is by slot; `tail_sent` says that datagram number `planned() - 1` was sent.
    pub(crate) fn replay(
        &self,
        shape: &Shape,
        names: &Names,
        sent: &[bool],
        tail_sent: bool,
        mut each: impl FnMut(Metric),
    ) {
        let tail = self.tail.as_ref().filter(|_| tail_sent);
        let tail = tail.map(|tail| (self.place(self.planned - 1), tail.slot.lines()));
        let used = sent
            .iter()
            .rposition(|sent| *sent)
            .map_or(0, |last| last + 1);
        let used = used.max(tail.map_or(0, |(place, _)| place + 1));
        let mut generator = Generator::new(shape, names, self.flow);
        let mut bytes = Vec::new();
        for (place, (slot, sent)) in self.slots.iter().zip(sent).enumerate().take(used) {
            let cut = tail.map_or(0, |(tail, metrics)| if tail == place { metrics } else { 0 });
            let wanted = if *sent { u64::MAX } else { cut };
            let mut told = 0;
            bytes.clear();
            generator.datagram(slot.lines(), &mut bytes, |metric| {
                if told < wanted {
                    each(metric);
                }
                told += 1;
            });
        }
    }
}

fn make(generator: &mut Generator<'_>, limit: u64, bytes: &mut Vec<u8>) -> Slot {
    let mut slot = Slot::default();
    generator.datagram(limit, bytes, |metric| slot.add(metric));
    slot.end = bytes.len() as u32;
    slot
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Distribution;
    use crate::shape::tests::shape;

    /// The whole protocol as loadgen writes it, the obvious way.
    fn parse(datagram: &[u8]) -> Tally {
        let text = std::str::from_utf8(datagram).unwrap();
        let mut tally = Tally {
            datagrams: 1,
            bytes: text.len() as u64,
            ..Tally::default()
        };
        for line in text.split('\n') {
            let (_, rest) = line.split_once(':').unwrap();
            let (value, kind) = rest.split_once('|').unwrap();
            match kind {
                "c" => {
                    tally.counters += 1;
                    tally.counter_sum += value.parse::<u64>().unwrap();
                }
                "ms" => {
                    let (whole, thousandths) = value.split_once('.').unwrap();
                    assert_eq!(thousandths.len(), 3);
                    tally.timers += 1;
                    tally.timer_sum += whole.parse::<u64>().unwrap() * 1000;
                    tally.timer_sum += thousandths.parse::<u64>().unwrap();
                }
                "g" if value.starts_with(['+', '-']) => tally.gauge_deltas += 1,
                "g" => tally.gauges += 1,
                "s" => tally.sets += 1,
                other => panic!("{other}"),
            }
        }
        tally
    }

    fn ring(budget: usize, quota: Option<u64>) -> Ring {
        let shape = shape();
        let names = Names::new(shape.names, Distribution::Uniform);
        Ring::new(&shape, &names, 0, budget, quota)
    }

    #[test]
    fn tallies_equal_what_the_bytes_say() {
        let ring = ring(100_000, Some(20_000));
        let mut sum = Tally::default();
        for index in 0..ring.planned() {
            let (bytes, tally) = ring.datagram(index);
            assert_eq!(tally, parse(bytes), "datagram {index}");
            sum += tally;
        }
        assert_eq!(sum.metrics(), 20_000);
        assert_eq!(sum.datagrams, ring.planned());
        assert!(
            ring.planned() > 2 * ring.len() as u64,
            "the ring must go round in this test"
        );
    }

    #[test]
    fn any_quota_is_met_to_the_metric() {
        let metrics = ring(5_000, None).lines();
        for quota in (0..=metrics + 70).chain([2 * metrics, 3 * metrics + 1]) {
            let ring = ring(5_000, Some(quota));
            let sent: u64 = (0..ring.planned())
                .map(|index| ring.datagram(index).1.metrics())
                .sum();
            assert_eq!(sent, quota);
        }
    }

    #[test]
    fn a_cut_datagram_is_the_beginning_of_the_whole_one() {
        let whole = ring(5_000, None);
        let cut = ring(5_000, Some(whole.lines() + 1));
        assert_eq!(cut.planned(), whole.len() as u64 + 1);
        let (bytes, tally) = cut.datagram(cut.planned() - 1);
        assert_eq!(tally.metrics(), 1);
        assert!(whole.datagram(0).0.starts_with(bytes));
    }

    #[test]
    fn memory_is_bounded_by_the_budget() {
        let ring = ring(100_000, None);
        assert!(
            (100_000..100_000 + 1432 + 64).contains(&ring.memory()),
            "{}",
            ring.memory()
        );
        assert_eq!(ring.planned(), u64::MAX);
        assert_eq!(ring.datagram(ring.len() as u64).0, ring.datagram(0).0);
    }

    #[test]
    fn a_tiny_budget_still_holds_one_datagram() {
        assert_eq!(ring(1, None).len(), 1);
        assert_eq!(ring(1, Some(0)).planned(), 0);
    }

    #[test]
    fn replay_tells_the_metrics_of_the_slots_sent() {
        let shape = shape();
        let names = Names::new(shape.names, Distribution::Uniform);
        let whole = ring(5_000, None);
        let ring = ring(5_000, Some(whole.lines() + 3));
        let told = |sent: &[bool], tail_sent| {
            let mut slot = Slot::default();
            ring.replay(&shape, &names, sent, tail_sent, |metric| slot.add(metric));
            Tally {
                datagrams: 0,
                ..slot.tally(0)
            }
        };
        let expected = |indices: &[u64]| {
            let mut sum = Tally::default();
            for index in indices {
                sum += ring.datagram(*index).1;
            }
            Tally {
                datagrams: 0,
                bytes: 0,
                ..sum
            }
        };
        let mut sent = vec![false; ring.len()];
        assert_eq!(told(&sent, false), expected(&[]));
        assert_eq!(told(&sent, true), expected(&[ring.planned() - 1]));
        sent[1] = true;
        assert_eq!(told(&sent, false), expected(&[1]));
        assert_eq!(told(&sent, true), expected(&[1, ring.planned() - 1]));
        sent[0] = true;
        assert_eq!(told(&sent, true), expected(&[0, 1]));
    }
}
