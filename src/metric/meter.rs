//! What the daemon counts about itself: every datagram, every value, every loss.
//!
//! Writers only add. A worker keeps its accounts in its own table and hands them over with each
//! harvest; threads off the sample path add to [`Outside`]. The flusher reads the totals since the
//! start, takes the difference to the flush before, and publishes it under `statsd_fast.` beside,
//! never among, the user's metrics.

use super::harvest::Tally;
use super::registry::Fold;
use super::sample::{Kind, Reject};
use super::snapshot::SelfMetric;
use std::sync::atomic::{AtomicU64, Ordering};

/// A row of the table of self-metrics; README shows the same table.
#[derive(Debug, Clone, Copy)]
pub struct Meter {
    /// Name below `statsd_fast.`.
    pub name: &'static str,
    /// What it counts, over a flush interval.
    pub help: &'static str,
    /// Whether anything but zero means that something was lost.
    pub loss: bool,
    /// It goes up and down: what it shows is how it stands, not what came since the last flush.
    pub level: bool,
    /// The total since the start, from the accounts since the start.
    read: fn(&Tally, &Outside) -> u64,
}

impl Meter {
    /// What it shows of an interval, by its readings at the end and the beginning of that.
    pub fn since(&self, now: u64, before: u64) -> u64 {
        if self.level { now } else { now - before }
    }
}

/// A count that any thread may add to.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// Adds.
    pub fn add(&self, by: u64) {
        // Relaxed: it only counts, nothing is published through it.
        self.0.fetch_add(by, Ordering::Relaxed);
    }

    /// What was added since the start.
    pub fn total(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// How many of something there are, which any thread may change.
#[derive(Debug, Default)]
pub struct Level(AtomicU64);

impl Level {
    /// Where there were so many, there are so many now.
    pub fn change(&self, before: u64, now: u64) {
        // What it wraps by, another thread has added or will. Relaxed: as for a count.
        self.0
            .fetch_add(now.wrapping_sub(before), Ordering::Relaxed);
    }

    /// How many there are.
    pub fn now(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Counts from beyond the sample path.
#[derive(Debug, Default)]
pub struct Outside {
    /// Flushes a backend took to its end.
    pub flushes_delivered: Count,
    /// Flushes that reach no backend any more: given up, or the outbox had no room for them.
    pub flushes_dropped: Count,
    /// Flushes written to disk because their backend could not take them.
    pub flushes_spooled: Count,
    /// Flushes on disk.
    pub flushes_on_disk: Level,
    /// Flushes on disk refused, and failures to write or remove one.
    pub spool_errors: Count,
    /// Attempts to deliver that failed; most backends try again.
    pub deliveries_failed: Count,
    /// Workers that had not answered when a flush went out.
    pub workers_late: Count,
    /// Names that were swept.
    pub names_swept: Count,
    /// Samples of timers past the exact limit that lie outside the histogram's bounds.
    pub timer_samples_outside: Count,
    /// Copies of datagrams the system took from the repeater.
    pub copies_sent: Count,
    /// Copies of datagrams the repeater could not get rid of.
    pub copies_dropped: Count,
    /// Errors of connecting and sending that the repeater met.
    pub copy_errors: Count,
    /// Posts that Librato refused, or that failed after a part of their flush went through.
    pub posts_lost: Count,
    /// Measurements that cannot be sent to Librato.
    pub measurements_dropped: Count,
    /// Tags that measurements were sent to Librato without.
    pub tags_dropped: Count,
    /// State files refused at the start, and failures to write one.
    pub state_errors: Count,
    /// Gauges of a state file that were left out.
    pub state_dropped: Count,
    /// What a process that this one took over from had counted and not shown yet, by meter.
    pub carried: Inheritance,
}

/// A count for each meter.
#[derive(Debug)]
pub struct Inheritance(Box<[Count]>);

impl Default for Inheritance {
    fn default() -> Self {
        Self(METERS.iter().map(|_| Count::default()).collect())
    }
}

impl Inheritance {
    /// Adds to a meter, by its name. One that this version does not have, or has as a level, is let go.
    pub fn add(&self, name: &str, by: u64) {
        let is_it = |meter: &Meter| meter.name == name && !meter.level;
        if let Some(at) = METERS.iter().position(is_it) {
            self.0[at].add(by);
        }
    }
}

const fn meter(
    name: &'static str,
    loss: bool,
    help: &'static str,
    read: fn(&Tally, &Outside) -> u64,
) -> Meter {
    Meter {
        name,
        help,
        loss,
        level: false,
        read,
    }
}

const fn level(name: &'static str, help: &'static str, read: fn(&Tally, &Outside) -> u64) -> Meter {
    Meter {
        level: true,
        ..meter(name, false, help, read)
    }
}

/// Every self-metric, in the order they are sent.
pub const METERS: &[Meter] = &[
    meter(
        "packets",
        false,
        "datagrams received, empty and cut ones included, and pieces of whole lines taken from streams",
        |t, _| t.packets,
    ),
    meter("bytes", false, "bytes in them", |t, _| t.bytes),
    meter("lines", false, "lines that are not empty", |t, _| t.lines),
    meter("samples.counters", false, "counter values taken", |t, _| {
        t.recorded[Kind::Counter as usize]
    }),
    meter("samples.timers", false, "timer values taken", |t, _| {
        t.recorded[Kind::Timer as usize]
    }),
    meter("samples.gauges", false, "gauge values taken", |t, _| {
        t.recorded[Kind::Gauge as usize]
    }),
    meter("samples.sets", false, "set members taken", |t, _| {
        t.recorded[Kind::Set as usize]
    }),
    meter(
        "rejected.no_type",
        true,
        "values without a type field",
        |t, _| t.rejected[Reject::NoType as usize],
    ),
    meter(
        "rejected.bad_rate",
        true,
        "values with a sample rate that is none",
        |t, _| t.rejected[Reject::BadRate as usize],
    ),
    meter(
        "rejected.empty_value",
        true,
        "values that are empty",
        |t, _| t.rejected[Reject::EmptyValue as usize],
    ),
    meter(
        "rejected.not_a_number",
        true,
        "values that are not a number",
        |t, _| t.rejected[Reject::NotANumber as usize],
    ),
    meter(
        "rejected.negative_timer",
        true,
        "timers below zero",
        |t, _| t.rejected[Reject::NegativeTimer as usize],
    ),
    meter(
        "mapped_dropped",
        false,
        "values dropped by a rule of `mappings`",
        |t, _| t.mapped_dropped,
    ),
    meter(
        "folded.names",
        false,
        "values put under `statsd_fast.overflow.` because there were `maxNames` names before theirs",
        |t, _| t.folded[Fold::Names as usize],
    ),
    meter(
        "folded.name_length",
        false,
        "values put under `statsd_fast.overflow.` because their names are longer than `maxNameLength`",
        |t, _| t.folded[Fold::Length as usize],
    ),
    meter(
        "folded.memory",
        false,
        "values put under `statsd_fast.overflow.` because their names came with memory above `memoryLimit`",
        |t, _| t.folded[Fold::Memory as usize],
    ),
    meter(
        "set_members_dropped",
        true,
        "set members left out because there were `maxSetMembers` others, or memory was above `memoryLimit`",
        |t, _| t.members_dropped,
    ),
    meter(
        "stamped_dropped",
        true,
        "values with a timestamp dropped because there were 262,144 other names and times, or memory was \
         above `memoryLimit`",
        |t, _| t.stamped_dropped,
    ),
    meter(
        "rejected.long_tags",
        true,
        "values with more than 8192 bytes of tags",
        |t, _| t.rejected[Reject::LongTags as usize],
    ),
    meter(
        "rejected.bad_timestamp",
        true,
        "values with a timestamp that is none",
        |t, _| t.rejected[Reject::BadTimestamp as usize],
    ),
    meter(
        "rejected.old_timestamp",
        true,
        "values with a timestamp older than `timestampMaxAge`",
        |t, _| t.rejected[Reject::OldTimestamp as usize],
    ),
    meter(
        "rejected.future_timestamp",
        true,
        "values with a timestamp further ahead than `timestampMaxAhead`",
        |t, _| t.rejected[Reject::FutureTimestamp as usize],
    ),
    meter(
        "rejected.bad_event",
        true,
        "lines that begin as an event and are none",
        |t, _| t.rejected[Reject::BadEvent as usize],
    ),
    meter(
        "rejected.bad_check",
        true,
        "lines that begin as a service check and are none",
        |t, _| t.rejected[Reject::BadCheck as usize],
    ),
    meter(
        "tags_dropped",
        true,
        "tags left out of names because they have no key, once for each spelling that is remembered",
        |t, _| t.tags_dropped,
    ),
    meter("events", false, "events of DogStatsD", |t, _| t.events),
    meter(
        "service_checks",
        false,
        "service checks of DogStatsD",
        |t, _| t.service_checks,
    ),
    meter(
        "unsupported",
        true,
        "events and service checks that went nowhere, since there is no repeater",
        |t, _| t.unsupported,
    ),
    meter(
        "truncated",
        true,
        "datagrams longer than `maxDatagram`; the last, incomplete line is not used",
        |t, _| t.truncated,
    ),
    meter(
        "kernel_drops",
        true,
        "datagrams the kernel dropped because a receive buffer was full",
        |t, _| t.kernel_drops,
    ),
    meter(
        "unread_datagrams",
        true,
        "datagrams that had come and were left unread, since the stop took too long",
        |t, _| t.unread,
    ),
    meter(
        "receive_errors",
        true,
        "receive calls that failed",
        |t, _| t.receive_errors,
    ),
    meter(
        "streams.pieces",
        false,
        "what `packets` holds that are no datagrams: pieces of whole lines, and packets behind a length",
        |t, _| t.streams.pieces,
    ),
    meter(
        "streams.accepted",
        false,
        "connections accepted by stream listeners",
        |t, _| t.streams.accepted,
    ),
    meter(
        "streams.refused",
        true,
        "connections closed at once because `streamConnections` were open, or the server was stopping",
        |t, _| t.streams.refused,
    ),
    meter(
        "streams.resets",
        false,
        "connections that ended in an error; the whole lines read before count",
        |t, _| t.streams.resets,
    ),
    meter(
        "streams.long_lines",
        true,
        "lines of streams dropped because they are longer than `streamLine`",
        |t, _| t.streams.long_lines,
    ),
    meter(
        "streams.cut_lines",
        true,
        "lines of streams dropped because a reset, or the stop of the server, came in the middle of them",
        |t, _| t.streams.cut_lines,
    ),
    meter(
        "streams.accept_errors",
        true,
        "failures to accept a connection; it waits for a second or until another one ends",
        |t, _| t.streams.accept_errors,
    ),
    meter(
        "streams.bad_lengths",
        true,
        "connections closed because a packet of more than `maxDatagram` bytes was announced",
        |t, _| t.streams.bad_lengths,
    ),
    meter(
        "streams.cut_packets",
        true,
        "packets with a length before them dropped because their connection, or the server, ended in the \
         middle of them",
        |t, _| t.streams.cut_packets,
    ),
    meter(
        "streams.unread_bytes",
        true,
        "bytes that had come over streams and were left unread, since the stop took too long",
        |t, _| t.streams.unread_bytes,
    ),
    meter(
        "workers_late",
        false,
        "workers whose values will come with the next flush",
        |_, o| o.workers_late.total(),
    ),
    meter(
        "names_swept",
        false,
        "names whose memory goes to others: nobody sent them, and nothing was sent for them any more",
        |_, o| o.names_swept.total(),
    ),
    meter(
        "timer_samples_outside",
        false,
        "samples of timers past `exactSamples` outside 2^-16 .. 2^36, zero excepted; they count as the \
         smallest or largest value",
        |_, o| o.timer_samples_outside.total(),
    ),
    meter(
        "flushes_delivered",
        false,
        "flushes backends delivered since the last flush",
        |_, o| o.flushes_delivered.total(),
    ),
    meter(
        "flushes_dropped",
        true,
        "flushes lost on the way out: the outbox was full, or its backend gave them up",
        |_, o| o.flushes_dropped.total(),
    ),
    meter(
        "spool.written",
        false,
        "flushes written to `spoolDir` because their backend could not take them",
        |_, o| o.flushes_spooled.total(),
    ),
    level("spool.flushes", "flushes on disk, as of now", |_, o| {
        o.flushes_on_disk.now()
    }),
    meter(
        "spool.errors",
        true,
        "flushes on disk refused, and failures to write or remove one; it goes on in memory then",
        |_, o| o.spool_errors.total(),
    ),
    meter(
        "deliveries_failed",
        false,
        "attempts to deliver a flush that failed; it waits and is tried again",
        |_, o| o.deliveries_failed.total(),
    ),
    meter(
        "repeater.sent",
        false,
        "copies of datagrams sent by the repeater, one for each target",
        |_, o| o.copies_sent.total(),
    ),
    meter(
        "repeater.dropped",
        true,
        "copies not sent: their target was away or too slow",
        |t, o| t.copies_dropped + o.copies_dropped.total(),
    ),
    meter(
        "repeater.errors",
        true,
        "errors of connecting and sending; a target that refuses a datagram tells only with the next one",
        |_, o| o.copy_errors.total(),
    ),
    meter(
        "librato.posts_lost",
        true,
        "posts Librato refused, that failed twice, or that waited of a flush sent in part at the end",
        |_, o| o.posts_lost.total(),
    ),
    meter(
        "librato.dropped",
        true,
        "measurements not sent to Librato: without a name, with a number it does not take, or of a type it \
         refused",
        |_, o| o.measurements_dropped.total(),
    ),
    meter(
        "librato.tags_dropped",
        true,
        "tags that measurements went to Librato without: they had no name, another of that name came behind, \
         or there were more than 50",
        |_, o| o.tags_dropped.total(),
    ),
    meter(
        "state_errors",
        true,
        "state files refused at the start, and failures to write one; the file before stays then",
        |_, o| o.state_errors.total(),
    ),
    meter(
        "state_dropped",
        true,
        "gauges of the state file left out at the start because their names are not clean",
        |_, o| o.state_dropped.total(),
    ),
];

/// Every meter's total since the start, in the order of [`METERS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Totals([u64; METERS.len()]);

impl Totals {
    /// What every meter begins with.
    pub const ZERO: Self = Self([0; METERS.len()]);

    /// Reads every meter; `tally` holds the accounts of all workers since the start.
    pub fn read(tally: &Tally, outside: &Outside) -> Self {
        let carried = &outside.carried.0;
        Self(std::array::from_fn(|at| {
            (METERS[at].read)(tally, outside) + carried[at].total()
        }))
    }

    /// What was counted since `earlier`, for a snapshot.
    pub fn since(&self, earlier: &Self) -> Vec<SelfMetric> {
        let counts = METERS.iter().zip(self.0.iter().zip(earlier.0));
        counts
            .map(|(meter, (now, before))| SelfMetric {
                name: meter.name,
                value: meter.since(*now, before) as f64,
            })
            .collect()
    }

    /// The total of the meter of this name.
    ///
    /// # Panics
    /// When there is no such meter.
    pub fn of(&self, name: &str) -> u64 {
        let found = self.each().find(|(meter, _)| meter.name == name);
        found.expect("a meter of that name").1
    }

    /// What was counted since `earlier`, by name; what was not is left out, and so are levels.
    pub fn news(&self, earlier: &Self) -> Vec<(String, u64)> {
        let counts = METERS.iter().zip(self.0.iter().zip(earlier.0));
        let counts = counts.filter(|(meter, _)| !meter.level);
        let news = counts.map(|(meter, (now, before))| (meter.name.to_owned(), now - before));
        news.filter(|(_, count)| *count > 0).collect()
    }

    /// With levels as they stand there.
    #[must_use]
    pub fn with_levels_of(mut self, now: &Self) -> Self {
        for (at, meter) in METERS.iter().enumerate() {
            if meter.level {
                self.0[at] = now.0[at];
            }
        }
        self
    }

    /// Adds counts, by name.
    pub fn add(&mut self, counts: &[(String, u64)]) {
        for (total, meter) in self.0.iter_mut().zip(METERS) {
            let of_it = counts.iter().filter(|(name, _)| name == meter.name);
            *total += of_it.map(|(_, count)| count).sum::<u64>();
        }
    }

    /// Every meter with its total.
    pub fn each(&self) -> impl Iterator<Item = (&'static Meter, u64)> {
        METERS.iter().zip(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metric::harvest::StreamTally;

    #[test]
    fn every_reason_and_kind_has_its_meter_and_is_read() {
        let mut tally = Tally {
            packets: 1,
            bytes: 2,
            truncated: 3,
            lines: 4,
            ..Tally::default()
        };
        tally.recorded = [5, 6, 7, 8];
        tally.rejected = [9, 10, 11, 12, 13, 33, 34, 35, 36, 37, 38];
        (tally.events, tally.service_checks, tally.unsupported) = (39, 40, 41);
        tally.tags_dropped = 42;
        tally.kernel_drops = 14;
        tally.receive_errors = 15;
        tally.unread = 59;
        tally.streams = StreamTally {
            accepted: 21,
            refused: 22,
            resets: 23,
            long_lines: 24,
            accept_errors: 25,
            cut_lines: 29,
            bad_lengths: 43,
            cut_packets: 44,
            pieces: 47,
            unread_bytes: 48,
        };
        tally.mapped_dropped = 45;
        tally.folded = [50, 51, 52];
        (tally.members_dropped, tally.stamped_dropped) = (53, 54);
        tally.copies_dropped = 10;
        let outside = Outside::default();
        outside.workers_late.add(16);
        outside.timer_samples_outside.add(17);
        outside.flushes_delivered.add(18);
        outside.flushes_dropped.add(19);
        outside.deliveries_failed.add(20);
        outside.copies_sent.add(26);
        outside.copies_dropped.add(17);
        outside.copy_errors.add(28);
        outside.posts_lost.add(30);
        outside.measurements_dropped.add(31);
        outside.tags_dropped.add(32);
        outside.state_errors.add(46);
        outside.state_dropped.add(49);
        outside.names_swept.add(55);
        outside.flushes_spooled.add(56);
        outside.flushes_on_disk.change(0, 60);
        outside.flushes_on_disk.change(60, 57);
        outside.spool_errors.add(58);
        let totals = Totals::read(&tally, &outside);
        let mut values: Vec<_> = totals
            .since(&Totals::ZERO)
            .iter()
            .map(|m| m.value as u64)
            .collect();
        values.sort_unstable();
        assert_eq!(values, (1..=METERS.len() as u64).collect::<Vec<_>>());
        assert_eq!(
            totals.since(&totals).iter().map(|m| m.value).sum::<f64>(),
            57.0,
            "what is a level stays"
        );
        let heir = Outside::default();
        heir.carried.add("of another version", 7);
        heir.carried.add("spool.flushes", 7);
        let half = Totals::read(&Tally::default(), &outside);
        for (name, count) in totals.news(&half) {
            heir.carried.add(&name, count);
        }
        let inherited = Totals::read(&Tally::default(), &heir);
        assert_eq!(inherited.news(&Totals::ZERO), totals.news(&half));
        assert!(totals.news(&half).iter().any(|(name, _)| name == "lines"));
        for reason in Reject::ALL {
            let name = format!("rejected.{}", reason.name().replace('-', "_"));
            let found = totals.each().find(|(meter, _)| meter.name == name);
            let (meter, count) = found.expect("every reason has a meter");
            assert!(meter.loss);
            assert_eq!(count, tally.rejected[reason as usize]);
        }
    }
}
