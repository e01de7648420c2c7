//! NOUN: what one worker collected since its last harvest. Recycled: the flusher sends the empty
//! ones back, so that an interval allocates nothing once the daemon is warm.

use super::cell::{Gauge, Point, Spare};
use super::histogram::Histogram;
use super::prefixes::Prefixes;
use super::registry::{Fold, NameId};
use super::sample::{Kind, Reject};
use super::set::Members;

/// What one name collected.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Part<C> {
    /// Whose values.
    pub id: NameId,
    /// How many values came, refused ones not counted; stays at the top when there are more.
    pub hits: u32,
    /// What came of them.
    pub cell: C,
}

/// What one timer collected; its samples lie in [`Harvest::samples`].
#[derive(Debug)]
pub struct TimerPart {
    /// Whose samples.
    pub id: NameId,
    /// As [`Part::hits`].
    pub hits: u32,
    /// How many of [`Harvest::samples`] are this timer's, after those of the parts before it.
    pub samples: usize,
    /// How many of [`Harvest::weights`] are.
    pub weights: usize,
    /// Sum of `1 / rate`.
    pub weight: f64,
    /// Everything beyond the raw samples.
    pub histogram: Option<Box<Histogram>>,
}

/// A value with a time of its own.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StampedPart {
    /// Counter or gauge.
    pub kind: Kind,
    /// Whose.
    pub id: NameId,
    /// Unix seconds.
    pub at: i64,
    /// The value.
    pub point: Point,
}

/// Everything one worker collected, only what was touched, and its own accounts.
#[derive(Debug, Default)]
pub struct Harvest {
    /// Which harvest this answers: the epoch the flusher asked for.
    pub epoch: u64,
    /// Index of the worker.
    pub worker: usize,
    /// The last sweep of names whose ids the worker had forgotten by then: none of them is in here, nor in a
    /// later harvest of this worker.
    pub swept: u64,
    /// Sums. One id may come twice, when it has two spellings.
    pub counters: Vec<Part<f64>>,
    /// Writes to gauges.
    pub gauges: Vec<Part<Gauge>>,
    /// Timers; their samples are in `samples`, in the same order.
    pub timers: Vec<TimerPart>,
    /// Raw samples of all `timers`, one after another.
    pub samples: Vec<f64>,
    /// Weights of samples that do not count once, of all `timers`: place among the timer's, and weight.
    pub weights: Vec<(u32, f64)>,
    /// Emptied histograms on their way back to a worker.
    pub spare: Spare,
    /// Distinct members.
    pub sets: Vec<Part<Members>>,
    /// Values with times of their own, one for each name and time.
    pub points: Vec<StampedPart>,
    /// Under which prefixes names were new, or folded.
    pub growth: Prefixes,
    /// What this worker did.
    pub tally: Tally,
}

impl Harvest {
    /// Empties it for the next use, memory and spare histograms kept.
    pub fn clear(&mut self) {
        self.counters.clear();
        self.gauges.clear();
        self.timers.clear();
        self.samples.clear();
        self.weights.clear();
        self.sets.clear();
        self.points.clear();
        self.growth = Prefixes::default();
        self.tally = Tally::default();
    }
}

/// A worker's accounts since its last harvest. Plain integers: nobody else looks at them before
/// they are handed over.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Tally {
    /// Datagrams taken from the source, empty and cut ones included, and pieces of whole lines from streams.
    pub packets: u64,
    /// Bytes in them.
    pub bytes: u64,
    /// Datagrams the kernel cut at `maxDatagram`; their last, incomplete line was not used.
    pub truncated: u64,
    /// Lines that are not empty.
    pub lines: u64,
    /// Values recorded, by [`Kind`].
    pub recorded: [u64; Kind::ALL.len()],
    /// Values refused, by [`Reject`].
    pub rejected: [u64; Reject::ALL.len()],
    /// Values whose names a rule drops.
    pub mapped_dropped: u64,
    /// Values put under a name of ours because theirs found no room, by [`Fold`]. Of those some may have
    /// found none there, as members of a set do.
    pub folded: [u64; Fold::ALL.len()],
    /// Members left out of sets that have as many as they may.
    pub members_dropped: u64,
    /// Values with a time of their own for which there was no room.
    pub stamped_dropped: u64,
    /// Events of DogStatsD.
    pub events: u64,
    /// Service checks of DogStatsD.
    pub service_checks: u64,
    /// Those of both that nobody took.
    pub unsupported: u64,
    /// Tags without a key, once for each spelling that is remembered.
    pub tags_dropped: u64,
    /// The first refused line since the last harvest with its reason, cut to a length fit for a log.
    pub offender: Option<(Reject, Box<[u8]>)>,
    /// Datagrams the kernel dropped at this worker's socket because its buffer was full; where runs of them
    /// come joined, runs.
    pub kernel_drops: u64,
    /// Datagrams that had come and that the stop left unread.
    pub unread: u64,
    /// Copies of datagrams, one for each target of the repeater, that found no room on their way to it.
    pub copies_dropped: u64,
    /// Errors of the receive call other than "nothing there".
    pub receive_errors: u64,
    /// Connections of streams.
    pub streams: StreamTally,
    /// When the last batch came, `runtime::clock::monotonic_ns`; 0 when none did.
    pub last_packet: u64,
}

/// What happened to the connections of streams.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct StreamTally {
    /// Connections accepted.
    pub accepted: u64,
    /// Connections closed at once, because so many were open already.
    pub refused: u64,
    /// Connections that ended in an error.
    pub resets: u64,
    /// Lines dropped because they were too long.
    pub long_lines: u64,
    /// Lines dropped because their connection was reset, or the server stopped, in the middle of them.
    pub cut_lines: u64,
    /// Failures to accept a connection.
    pub accept_errors: u64,
    /// Connections closed because a packet was announced that is too long.
    pub bad_lengths: u64,
    /// Packets dropped because their connection ended, or the server stopped, in the middle of them.
    pub cut_packets: u64,
    /// Pieces of whole lines, and packets, taken: what [`Tally::packets`] holds that is no datagram.
    pub pieces: u64,
    /// Bytes that had come and that the stop left unread.
    pub unread_bytes: u64,
}

impl StreamTally {
    /// Adds the accounts of another worker or harvest.
    pub fn add(&mut self, other: &Self) {
        self.accepted += other.accepted;
        self.refused += other.refused;
        self.resets += other.resets;
        self.long_lines += other.long_lines;
        self.cut_lines += other.cut_lines;
        self.accept_errors += other.accept_errors;
        self.bad_lengths += other.bad_lengths;
        self.cut_packets += other.cut_packets;
        self.pieces += other.pieces;
        self.unread_bytes += other.unread_bytes;
    }
}

impl Tally {
    /// Longest piece of a refused line that is kept for the log, in bytes.
    pub const OFFENDER_MAX: usize = 200;

    /// Counts a refused value; the first one is kept to be shown.
    #[cold]
    pub fn reject(&mut self, reason: Reject, line: &[u8]) {
        self.rejected[reason as usize] += 1;
        if self.offender.is_none() {
            let shown = &line[..line.len().min(Self::OFFENDER_MAX)];
            self.offender = Some((reason, shown.into()));
        }
    }

    /// All refused values.
    pub fn rejected_total(&self) -> u64 {
        self.rejected.iter().sum()
    }

    /// Values dropped for want of room.
    pub fn no_room_total(&self) -> u64 {
        self.members_dropped + self.stamped_dropped
    }

    /// Values whose names were folded.
    pub fn folded_total(&self) -> u64 {
        self.folded.iter().sum()
    }

    /// Counts values of a kind that were recorded, and then found no room, as dropped.
    pub fn drop_recorded(&mut self, kind: Kind, values: u64) {
        self.recorded[kind as usize] -= values;
        match kind {
            Kind::Set => self.members_dropped += values,
            _ => self.stamped_dropped += values,
        }
    }

    /// Adds the accounts of another worker or harvest.
    pub fn add(&mut self, other: &Self) {
        self.packets += other.packets;
        self.bytes += other.bytes;
        self.truncated += other.truncated;
        self.lines += other.lines;
        self.recorded
            .iter_mut()
            .zip(other.recorded)
            .for_each(|(a, b)| *a += b);
        self.rejected
            .iter_mut()
            .zip(other.rejected)
            .for_each(|(a, b)| *a += b);
        self.mapped_dropped += other.mapped_dropped;
        self.folded
            .iter_mut()
            .zip(other.folded)
            .for_each(|(a, b)| *a += b);
        self.members_dropped += other.members_dropped;
        self.stamped_dropped += other.stamped_dropped;
        self.events += other.events;
        self.service_checks += other.service_checks;
        self.unsupported += other.unsupported;
        self.tags_dropped += other.tags_dropped;
        if self.offender.is_none() {
            self.offender.clone_from(&other.offender);
        }
        self.kernel_drops += other.kernel_drops;
        self.unread += other.unread;
        self.copies_dropped += other.copies_dropped;
        self.receive_errors += other.receive_errors;
        self.streams.add(&other.streams);
        self.last_packet = self.last_packet.max(other.last_packet);
    }
}
