//! The sending loop of one thread: what is due goes to the kernel, and every datagram is accounted
//! for.

use std::io::IoSlice;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use statsd_fast::runtime::sys::send::{MAX_BATCH, Refusal};

use crate::account::Account;
use crate::pace::{Clock, Schedule};
use crate::random::Names;
use crate::ring::Ring;
use crate::shape::{Metric, Shape};
use crate::tally::Tally;
use crate::wire::Wire;

/// One source socket, its datagrams, and how far it has come.
#[derive(Debug)]
pub(crate) struct Flow<'r, W> {
    wire: W,
    ring: &'r Ring,
    /// Number of the next datagram.
    next: u64,
    /// By slot of the ring: whether it was ever sent.
    sent: Vec<bool>,
    /// Whether the datagram numbered `planned() - 1` was sent.
    tail_sent: bool,
}

impl<'r, W: Wire> Flow<'r, W> {
    pub(crate) fn new(wire: W, ring: &'r Ring) -> Self {
        Self {
            wire,
            ring,
            next: 0,
            sent: vec![false; ring.len()],
            tail_sent: false,
        }
    }

    fn is_open(&self) -> bool {
        self.next < self.ring.planned()
    }

    fn mark_sent(&mut self) {
        let last = self.next + 1 == self.ring.planned();
        if last {
            self.tail_sent = true;
        }
        if !last || !self.ring.has_tail() {
            self.sent[self.ring.place(self.next)] = true;
        }
    }
}

impl<W> Flow<'_, W> {
    /// Tells every metric that was sent to `each`; those sent more than once, once a slot of the
    /// ring.
    pub(crate) fn replay(&self, shape: &Shape, names: &Names, each: impl FnMut(Metric)) {
        self.ring
            .replay(shape, names, &self.sent, self.tail_sent, each);
    }
}

/// What others may see of a running thread.
///
/// Written by: its thread, after each batch. Read by: the progress line. Relaxed: the three need
/// not agree.
#[derive(Debug, Default)]
pub(crate) struct Live {
    pub(crate) lines: AtomicU64,
    pub(crate) datagrams: AtomicU64,
    /// How late the last datagram was, in nanoseconds.
    pub(crate) late: AtomicU64,
}

/// Longest sleep: so soon a stop is noticed.
const MAX_NAP: u64 = 50_000_000;

/// Sends until every flow has reached its quota, the deadline has come (nanoseconds since the
/// start), or `stop` is set. Without a schedule it sends as fast as it can.
pub(crate) fn run<W: Wire>(
    flows: &mut [Flow<'_, W>],
    schedule: Option<Schedule>,
    deadline: Option<u64>,
    clock: &impl Clock,
    stop: &AtomicBool,
    live: &Live,
) -> Account {
    let mut account = Account::default();
    let mut slices = Vec::with_capacity(MAX_BATCH);
    let mut batch: Vec<(u64, Tally)> = Vec::with_capacity(MAX_BATCH);
    // Lines tried so far: the place in the schedule.
    let mut tried = 0;
    let mut turn = 0;
    while let Some(next) = (turn..flows.len())
        .chain(0..turn)
        .find(|flow| flows[*flow].is_open())
    {
        let now = clock.now();
        let stopped = stop.load(Ordering::Relaxed);
        if stopped || deadline.is_some_and(|deadline| now >= deadline) {
            account.missed = schedule.map_or(0, |schedule| {
                let quota = flows
                    .iter()
                    .fold(0_u64, |sum, flow| sum.saturating_add(flow.ring.quota()));
                schedule.due_by(now).min(quota).saturating_sub(tried)
            });
            break;
        }
        let due = schedule.map_or(0, |schedule| schedule.due(tried));
        if due > now {
            clock.sleep((due - now).min(MAX_NAP));
            continue;
        }

        let flow = &mut flows[next];
        slices.clear();
        batch.clear();
        let mut position = tried;
        for index in (flow.next..flow.ring.planned()).take(MAX_BATCH) {
            let due = schedule.map_or(0, |schedule| schedule.due(position));
            if due > now {
                break;
            }
            let (bytes, tally) = flow.ring.datagram(index);
            slices.push(IoSlice::new(bytes));
            batch.push((due, tally));
            position += tally.lines();
        }

        let result = flow.wire.send(&slices);
        let after = clock.now();
        let (taken, sent) = result.as_ref().map_or((1, false), |taken| (*taken, true));
        for (due, tally) in &batch[..taken] {
            if sent {
                account.sent += *tally;
                flow.mark_sent();
            } else {
                account.failed += *tally;
            }
            tried += tally.lines();
            flow.next += 1;
            if schedule.is_some() {
                account.lateness.record(after.saturating_sub(*due));
            }
        }
        if let Err(error) = result {
            account.errors.count(Refusal::of(&error));
            account.first_error.get_or_insert_with(|| error.to_string());
        }
        account.ended = after;
        turn = (next + 1) % flows.len();
        live.lines.store(account.sent.lines(), Ordering::Relaxed);
        live.datagrams
            .store(account.sent.datagrams, Ordering::Relaxed);
        live.late.store(account.lateness.last, Ordering::Relaxed);
    }
    account
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::account::Errors;
    use crate::pace::tests::TestClock;
    use crate::random::Distribution;
    use crate::shape::Packing;
    use crate::shape::tests::shape;
    use std::io;

    const SECOND: u64 = 1_000_000_000;

    /// Takes at most `most` datagrams a call, each costing `cost` ns of the clock; call numbers in
    /// `failing` take none.
    struct TestWire<'c> {
        clock: &'c TestClock,
        most: usize,
        cost: u64,
        failing: Vec<usize>,
        calls: usize,
        received: Vec<(u64, Vec<u8>)>,
    }

    impl<'c> TestWire<'c> {
        fn new(clock: &'c TestClock) -> Self {
            Self {
                clock,
                most: usize::MAX,
                cost: 0,
                failing: Vec::new(),
                calls: 0,
                received: Vec::new(),
            }
        }
    }

    impl Wire for TestWire<'_> {
        fn send(&mut self, datagrams: &[IoSlice<'_>]) -> io::Result<usize> {
            assert!((1..=MAX_BATCH).contains(&datagrams.len()));
            self.calls += 1;
            if self.failing.contains(&self.calls) {
                return Err(io::Error::from_raw_os_error(111));
            }
            let taken = datagrams.len().min(self.most);
            for datagram in &datagrams[..taken] {
                self.clock.sleep(self.cost);
                self.received.push((self.clock.now(), datagram.to_vec()));
            }
            Ok(taken)
        }
    }

    fn single_lines() -> Shape {
        Shape {
            packing: Packing::Metrics(1),
            mix: "c".parse().unwrap(),
            ..shape()
        }
    }

    fn ring(shape: &Shape, flow: u64, quota: Option<u64>) -> Ring {
        Ring::new(
            shape,
            &Names::new(shape.names, Distribution::Uniform),
            flow,
            20_000,
            quota,
        )
    }

    fn run_to_end(
        flows: &mut [Flow<'_, TestWire<'_>>],
        rate: Option<u64>,
        clock: &TestClock,
    ) -> Account {
        let schedule = rate.map(|rate| Schedule::new(rate, 1, 1));
        run(
            flows,
            schedule,
            Some(SECOND),
            clock,
            &AtomicBool::new(false),
            &Live::default(),
        )
    }

    #[test]
    fn each_datagram_is_sent_when_it_is_due() {
        let clock = TestClock::default();
        let ring = ring(&single_lines(), 0, Some(10));
        let mut flows = [Flow::new(TestWire::new(&clock), &ring)];
        let account = run_to_end(&mut flows, Some(100), &clock);
        let times: Vec<u64> = flows[0]
            .wire
            .received
            .iter()
            .map(|(time, _)| *time)
            .collect();
        assert_eq!(
            times,
            (0..10)
                .map(|index| index * SECOND / 100)
                .collect::<Vec<_>>()
        );
        assert_eq!(
            (account.sent.metrics(), account.missed, account.lateness.max),
            (10, 0, 0)
        );
    }

    #[test]
    fn a_late_start_is_caught_up_at_once_and_the_lateness_told() {
        let clock = TestClock::default();
        clock.now.set(SECOND / 2);
        let ring = ring(&single_lines(), 0, Some(100));
        let mut flows = [Flow::new(TestWire::new(&clock), &ring)];
        let account = run_to_end(&mut flows, Some(100), &clock);
        let at_once = flows[0]
            .wire
            .received
            .iter()
            .filter(|(time, _)| *time == SECOND / 2);
        assert_eq!(at_once.count(), 51);
        assert_eq!(account.sent.metrics(), 100);
        assert_eq!(
            (account.lateness.max, account.lateness.last),
            (SECOND / 2, 0)
        );
        assert_eq!(account.ended, SECOND * 99 / 100);
    }

    #[test]
    fn a_slow_wire_never_lowers_the_rate_asked_for() {
        let clock = TestClock::default();
        let ring = ring(&single_lines(), 0, Some(1000));
        let mut wire = TestWire::new(&clock);
        wire.cost = 2_000_000;
        let mut flows = [Flow::new(wire, &ring)];
        let account = run_to_end(&mut flows, Some(1000), &clock);
        // 500 a second is all this wire takes; the first call has one datagram, later ones a batch.
        let sent = account.sent.metrics();
        assert!((500..500 + MAX_BATCH as u64).contains(&sent), "{sent}");
        assert_eq!(sent + account.missed, 1000);
        assert_eq!(
            account.lateness.last,
            sent * 2_000_000 - (sent - 1) * 1_000_000
        );
        assert!(account.lateness.max >= account.lateness.last);
        assert_eq!(clock.slept.get(), sent * 2_000_000);
    }

    #[test]
    fn short_sends_lose_and_repeat_nothing() {
        let clock = TestClock::default();
        let ring = ring(&shape(), 0, Some(5000));
        let mut wire = TestWire::new(&clock);
        wire.most = 3;
        let mut flows = [Flow::new(wire, &ring)];
        let account = run_to_end(&mut flows, None, &clock);
        let expected: Vec<_> = (0..ring.planned())
            .map(|index| ring.datagram(index).0.to_vec())
            .collect();
        let received: Vec<_> = flows[0]
            .wire
            .received
            .iter()
            .map(|(_, bytes)| bytes.clone())
            .collect();
        assert_eq!(received, expected);
        assert_eq!(account.sent.metrics(), 5000);
        assert_eq!(account.lateness.histogram.len(), 0);
    }

    #[test]
    fn what_the_kernel_refuses_is_failed_and_not_sent() {
        let clock = TestClock::default();
        let ring = ring(&single_lines(), 0, Some(200));
        let mut wire = TestWire::new(&clock);
        wire.failing = vec![1, 3];
        let mut flows = [Flow::new(wire, &ring)];
        let account = run_to_end(&mut flows, None, &clock);
        assert_eq!(
            account.errors,
            Errors {
                refused: 2,
                ..Errors::default()
            }
        );
        assert_eq!(
            (
                account.sent.metrics(),
                account.failed.metrics(),
                account.missed
            ),
            (198, 2, 0)
        );
        let sum: u64 = flows[0]
            .wire
            .received
            .iter()
            .map(|(_, line)| counter(line))
            .sum();
        assert_eq!(account.sent.counter_sum, sum);
        // Call 1 failed on datagram 0, call 2 took the 64 from 1 on, call 3 failed on datagram 65.
        assert_eq!(flows[0].wire.received[64].1, ring.datagram(66).0);
        assert!(!flows[0].sent[0] && flows[0].sent[1] && !flows[0].sent[65]);
    }

    #[test]
    fn a_failed_datagram_leaves_the_others_their_times() {
        let clock = TestClock::default();
        let ring = ring(&single_lines(), 0, Some(4));
        let mut wire = TestWire::new(&clock);
        wire.failing = vec![2];
        let mut flows = [Flow::new(wire, &ring)];
        run_to_end(&mut flows, Some(10), &clock);
        let times: Vec<u64> = flows[0]
            .wire
            .received
            .iter()
            .map(|(time, _)| *time)
            .collect();
        assert_eq!(times, [0, SECOND / 5, SECOND * 3 / 10]);
    }

    #[test]
    fn of_a_slot_sent_only_as_the_cut_tail_the_tail_alone_counts() {
        let clock = TestClock::default();
        let shape = shape();
        let whole = ring(&shape, 0, None);
        let ring = ring(&shape, 0, Some(whole.lines() + 3));
        let mut wire = TestWire::new(&clock);
        wire.failing = vec![1];
        let mut flows = [Flow::new(wire, &ring)];
        let account = run_to_end(&mut flows, None, &clock);
        assert_eq!(account.failed.metrics(), whole.datagram(0).1.metrics());
        let mut replayed = 0;
        let names = Names::new(shape.names, Distribution::Uniform);
        flows[0].replay(&shape, &names, |_| replayed += 1);
        assert_eq!(replayed, account.sent.metrics());
    }

    #[test]
    fn flows_take_turns_and_each_meets_its_quota() {
        let clock = TestClock::default();
        let shape = single_lines();
        let rings = [ring(&shape, 0, Some(150)), ring(&shape, 1, Some(300))];
        let mut flows = rings
            .each_ref()
            .map(|ring| Flow::new(TestWire::new(&clock), ring));
        let account = run_to_end(&mut flows, None, &clock);
        assert_eq!(account.sent.metrics(), 450);
        for (flow, quota) in flows.iter().zip([150, 300]) {
            assert_eq!(flow.wire.received.len(), quota);
        }
        assert_eq!(flows[0].wire.calls, 3);
    }

    #[test]
    fn a_stop_ends_the_run_and_only_what_was_due_is_missed() {
        let clock = TestClock::default();
        clock.now.set(SECOND / 2);
        let ring = ring(&single_lines(), 0, Some(100));
        let mut flows = [Flow::new(TestWire::new(&clock), &ring)];
        let schedule = Some(Schedule::new(100, 1, 1));
        let stop = AtomicBool::new(true);
        let account = run(&mut flows, schedule, None, &clock, &stop, &Live::default());
        assert_eq!((account.sent.metrics(), account.missed), (0, 51));
    }

    fn counter(line: &[u8]) -> u64 {
        let text = std::str::from_utf8(line).unwrap();
        text.split_once(':')
            .unwrap()
            .1
            .strip_suffix("|c")
            .unwrap()
            .parse()
            .unwrap()
    }
}
