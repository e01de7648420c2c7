//! Ingest: a pinned thread, one source, one table. The hot loop, on one screen.
//!
//! On the sample path there is no lock, no atomic read-modify-write, no log (unless `dumpMessages` asks
//! for every line), no clock and no configuration look-up, and memory is asked for only by a name never
//! seen, the growth of a timer or of a gauge's deltas, a new set member, the begin of a line of a stream,
//! and once a batch to read ahead of a large table.

pub mod admission;
pub mod dogstatsd;
pub mod key;
pub mod mapping;
pub mod name;
pub mod number;
pub mod packet;
pub mod parse;
pub mod scan;
pub mod slots;
pub mod source;
pub mod table;

use crate::metric::cell::Stamp;
use crate::metric::copied::Feed;
use crate::metric::handover::{Giving, give};
use crate::metric::harvest::{Harvest, Tally};
use crate::metric::sample::{Reject, Sample, Value};
use crate::metric::set::MEMBERS_MAX;
use crate::runtime::clock::{Clock, monotonic_ns};
use crate::runtime::log;
use crate::runtime::stop::{Ending, Stop};
use crate::runtime::sys::thread::precise_sleep;
use crossbeam::channel::Sender;
use crossbeam::queue::ArrayQueue;
use crossbeam::utils::CachePadded;
use dogstatsd::Notice;
use key::Spelling;
use mapping::Mapping;
use packet::{Batch, Packet};
use parse::Reader;
use scan::BLOCK;
use source::Source;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use table::Table;

/// How lines are read. See README, "Protocol".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Dialect {
    /// The reference's protocol, to the bit, except that what crashes it is a bad line.
    Statsd,
    /// The reference's documented protocol with DogStatsD added.
    #[default]
    Auto,
}

/// What a worker needs to know besides its source.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// How lines are read.
    pub dialect: Dialect,
    /// Clean names as the reference does (`keyNameSanitize`).
    pub sanitize_names: bool,
    /// What becomes of names (`mappings`).
    pub mapping: Mapping,
    /// Dialect auto: read tags that stand in names, `name,k=v` and `name[k=v]` (`nameTags`).
    pub name_tags: bool,
    /// Raw samples a timer keeps per interval before it becomes a histogram (`exactSamples`).
    pub exact_samples: usize,
    /// Longest name that is taken in, cleaned and with its tags, in bytes (`maxNameLength`).
    pub max_name_length: usize,
    /// Distinct members a set takes in an interval (`maxSetMembers`).
    pub max_set_members: usize,
    /// Dialect auto: which timestamps are taken.
    pub stamps: Stamps,
}

/// The default of `maxNames`.
pub use crate::metric::registry::NAMES_MAX;

/// The default of `maxNameLength`: no path of a file can be longer, and Graphite's names are such.
pub const NAME_LENGTH_MAX: usize = 4096;

/// How far the timestamp of a value may be from now, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamps {
    /// Back (`timestampMaxAge`).
    pub max_age: i64,
    /// Ahead (`timestampMaxAhead`).
    pub max_ahead: i64,
}

/// What Datadog takes.
impl Default for Stamps {
    fn default() -> Self {
        Self {
            max_age: 3600,
            max_ahead: 600,
        }
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            dialect: Dialect::default(),
            sanitize_names: true,
            mapping: Mapping::default(),
            name_tags: false,
            exact_samples: 1024,
            max_name_length: NAME_LENGTH_MAX,
            max_set_members: MEMBERS_MAX,
            stamps: Stamps::default(),
        }
    }
}

/// Values read ahead of their look-ups when the table is large: as many lines as a core fetches at once, or a
/// few more.
const AHEAD: usize = 32;

/// Rest after the receive call failed.
const RECEIVE_ERROR_PAUSE: Duration = Duration::from_millis(1);

/// Batches taken at most before a tick is answered: what was queued when it came belongs to it, and
/// under a flood that never lets the queue run empty the flusher does not wait for long.
const TICK_BATCHES: usize = 64;
/// The same in bytes, for datagrams that are large: the worst of them, new names with thousands of tags, take
/// some 70 ns a byte.
const TICK_BYTES: u64 = 8 << 20;

/// Receive calls that may fail before what is queued is left for later, or for good at the stop.
const DRAIN_ERRORS: u32 = 3;

/// How long a stopping worker goes on reading when its senders do not end: past this, what comes is left
/// unread, counted.
const DRAIN_MAX: Duration = Duration::from_secs(1);
/// How long it reads a socket that is locked, and so has an end: longer than a receive buffer should take,
/// and short enough that the last flush goes out before whoever stops us loses patience. Docker waits for ten
/// seconds.
const LOCKED_DRAIN_MAX: Duration = Duration::from_secs(5);
/// Rest of a stopping worker before it lets in who still waits.
const STOP_PAUSE: Duration = Duration::from_millis(1);

/// The lines between a worker and the flusher.
#[derive(Debug, Clone)]
pub struct Link {
    /// Number of the harvest the flusher wants. Written by the flusher only, at a tick; read by
    /// every worker once a batch. Relaxed is enough: it carries no data, the harvest that answers
    /// it goes through the channel.
    pub epoch: Arc<CachePadded<AtomicU64>>,
    /// Full harvests. Bounded; there is room for two of each worker: a tick and the last one.
    pub full: Sender<Harvest>,
    /// Empty ones, for reuse.
    pub empty: Arc<ArrayQueue<Harvest>>,
    /// The order to stop.
    pub stop: Stop,
    /// What may change while running.
    pub wanted: Arc<Wanted>,
    /// Where a copy of every datagram goes, when somebody wants it.
    pub copies: Option<Feed>,
}

/// Options as they are to be from each worker's next harvest on. Off the sample path: a worker looks
/// when it has just handed over.
#[derive(Debug, Default)]
pub struct Wanted {
    generation: AtomicU64,
    options: Mutex<Options>,
}

impl Wanted {
    /// What workers start with.
    pub fn new(options: Options) -> Self {
        Self {
            generation: AtomicU64::new(0),
            options: Mutex::new(options),
        }
    }

    /// Other options from now on.
    pub fn set(&self, options: Options) {
        *self.options.lock().unwrap_or_else(PoisonError::into_inner) = options;
        // Release: who sees the number sees the options, though the lock would do it too.
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// The options, when they are not those of generation `known`, which is brought up to date.
    fn news(&self, known: &mut u64) -> Option<Options> {
        let generation = self.generation.load(Ordering::Acquire);
        if std::mem::replace(known, generation) == generation {
            return None;
        }
        let options = self.options.lock().unwrap_or_else(PoisonError::into_inner);
        Some(options.clone())
    }
}

/// What a worker does with what its source brings: the daemon's table, or the proxy's outlets.
pub trait Intake {
    /// The order to stop was given.
    fn stopping(&self) -> bool;

    /// What becomes of what is queued then.
    fn ending(&self) -> Ending {
        Ending::Close
    }

    /// The number of the answer somebody wants; another one than before is a question.
    fn asked(&self) -> u64;

    /// The accounts since the last answer.
    fn tally(&mut self) -> &mut Tally;

    /// Takes a batch, which may be empty.
    fn take(&mut self, batch: &Batch);

    /// Nothing more is there right now: what was held back for company goes on.
    fn settle(&mut self);

    /// Answers question `number`. `false` when nobody has room for the answer: then it is tried again at the
    /// next batch.
    fn answer(&mut self, number: u64, source: &mut impl Source) -> bool;
}

/// Takes packets until told to stop, then what is queued unless that is a successor's, and hands over a last
/// harvest. Returns the source, with its connections where it leaves them.
pub fn run<S: Source>(worker: usize, source: S, mut table: Table, link: &Link) -> S {
    table.pass_notices_on(link.copies.is_some());
    let recording = Recording {
        worker,
        table,
        link,
        generation: 0,
    };
    serve(source, recording)
}

/// The loop of every worker: takes packets until told to stop, then what is queued, and gives a last answer,
/// whose number is `u64::MAX`. Returns the source, which is open unless the order was to close it.
pub fn serve<S: Source>(mut source: S, mut intake: impl Intake) -> S {
    precise_sleep();
    let mut batch = source.batch();
    let mut answered = 0;
    while !intake.stopping() {
        let asked = intake.asked();
        if asked != answered {
            let (mut batches, bytes) = (0..TICK_BATCHES, intake.tally().bytes);
            drain(&mut source, &mut batch, &mut intake, |tally| {
                batches.next().is_some() && tally.bytes - bytes < TICK_BYTES
            });
            if intake.answer(asked, &mut source) {
                answered = asked;
            }
        }
        if source.receive(&mut batch).is_ok() {
            intake.take(&batch);
            if !source.has_more() {
                intake.settle();
            }
        } else {
            intake.tally().receive_errors += 1;
            intake.settle();
            // An error that stays must not turn into a busy loop.
            std::thread::sleep(RECEIVE_ERROR_PAUSE);
        }
    }
    match intake.ending() {
        Ending::Close => {
            let most = if source.is_locked() {
                LOCKED_DRAIN_MAX
            } else {
                DRAIN_MAX
            };
            finish(&mut source, &mut batch, &mut intake, Instant::now() + most);
        }
        Ending::Drain => {
            let until = Instant::now() + DRAIN_MAX;
            drain(&mut source, &mut batch, &mut intake, |_| {
                Instant::now() < until
            });
        }
        Ending::Leave => intake.settle(),
    }
    intake.answer(u64::MAX, &mut source);
    source
}

/// Takes what is left when the stop comes, as far as there is time for it, and has the rest counted.
fn finish(source: &mut impl Source, batch: &mut Batch, intake: &mut impl Intake, until: Instant) {
    loop {
        let whole = drain(source, batch, intake, |_| Instant::now() < until);
        let late = Instant::now() >= until;
        // Connections are let go of when all is read, or the time is up.
        let again = if whole || late { source.finish() } else { true };
        if late || !again {
            break;
        }
        // Other workers may still have the descriptors that are wanted.
        std::thread::sleep(STOP_PAUSE);
    }
    source.turn_away();
}

/// Takes what is queued, until nothing is left or `go_on` says no. The kernel tells most errors of a socket
/// once, and behind one all may still be there that was queued. `false` when receive calls go on failing.
fn drain(
    source: &mut impl Source,
    batch: &mut Batch,
    intake: &mut impl Intake,
    mut go_on: impl FnMut(&Tally) -> bool,
) -> bool {
    let mut errors = 0;
    while errors < DRAIN_ERRORS && go_on(intake.tally()) {
        match source.drain(batch) {
            Ok(true) => intake.take(batch),
            Ok(false) => break,
            Err(_) => {
                intake.tally().receive_errors += 1;
                errors += 1;
            }
        }
    }
    intake.settle();
    errors < DRAIN_ERRORS
}

/// The daemon's worker: a table that the flusher takes harvests of.
struct Recording<'l> {
    worker: usize,
    table: Table,
    link: &'l Link,
    /// Of the options the table works by.
    generation: u64,
}

impl Intake for Recording<'_> {
    #[inline]
    fn stopping(&self) -> bool {
        self.link.stop.requested()
    }

    fn ending(&self) -> Ending {
        self.link.stop.ending()
    }

    #[inline]
    fn asked(&self) -> u64 {
        self.link.epoch.load(Ordering::Relaxed)
    }

    #[inline]
    fn tally(&mut self) -> &mut Tally {
        &mut self.table.tally
    }

    #[inline]
    fn take(&mut self, batch: &Batch) {
        take_in(batch, &mut self.table, self.link);
    }

    #[inline]
    fn settle(&mut self) {}

    fn answer(&mut self, number: u64, source: &mut impl Source) -> bool {
        let Self {
            worker,
            table,
            link,
            generation,
        } = self;
        let answered = hand_over(*worker, number, source, table, link);
        if answered {
            if let Some(options) = link.wanted.news(generation) {
                table.reconfigure(&options);
            }
            table.sweep();
        }
        answered
    }
}

/// Copies what was received for who wants it, and records it.
#[inline]
fn take_in(batch: &Batch, table: &mut Table, link: &Link) {
    if let Some(copies) = &link.copies
        && batch.received() > 0
    {
        table.tally.copies_dropped += copies.offer(batch.packets().map(|packet| packet.bytes));
    }
    record(batch, table);
}

/// Everything that happens to a packet, in order.
#[inline]
pub fn record(batch: &Batch, table: &mut Table) {
    if batch.received() == 0 {
        return;
    }
    if log::dumping() {
        dump(batch);
    }
    table.begin_batch(Stamp(monotonic_ns()));
    take_packets(batch.packets(), table);
}

/// [`record`] of packets alone, for who has a clock of its own.
#[inline]
pub fn take_packets<'a>(packets: impl Iterator<Item = Packet<'a>>, table: &mut Table) {
    if table.is_large() {
        take_packets_ahead(packets, table);
    } else {
        table.begin_packets();
        let mut direct = Direct { table };
        packets.for_each(|packet| direct.read(&packet));
    }
}

/// [`take_packets`] as it is done when the table is large, which comes to the same.
#[inline]
pub fn take_packets_ahead<'a>(packets: impl Iterator<Item = Packet<'a>>, table: &mut Table) {
    table.begin_packets();
    let mut ahead = Ahead::of(table);
    packets.for_each(|packet| ahead.read(&packet));
    ahead.settle();
}

/// The one thing in a line that has to do with the clock on the wall.
#[cold]
fn take_stamped(table: &mut Table, sample: &Sample<'_>, at: i64, line: &[u8]) {
    let now = table.unix_time(|| (Clock::Real.now_ms() / 1000).cast_signed());
    table.take_stamped(sample, at, line, now);
}

/// Reads packets into a table, whose accounts it keeps.
trait Recorder<'a>: Reader<'a> + Sized {
    fn table(&mut self) -> &mut Table;

    #[inline(always)]
    fn read(&mut self, packet: &Packet<'a>) {
        let lines = parse::packet(packet.whole_lines(), self);
        let tally = &mut self.table().tally;
        tally.packets += 1;
        tally.bytes += packet.bytes.len() as u64;
        tally.truncated += u64::from(packet.truncated);
        tally.lines += lines;
    }
}

/// Records each value as it is read.
struct Direct<'t> {
    table: &'t mut Table,
}

impl Recorder<'_> for Direct<'_> {
    fn table(&mut self) -> &mut Table {
        self.table
    }
}

impl<'a> Reader<'a> for Direct<'_> {
    fn dialect(&self) -> Dialect {
        self.table.dialect()
    }

    #[inline(always)]
    fn sample(&mut self, sample: Sample<'a>, window: &[u8; BLOCK]) {
        self.table.record(&sample, window);
    }

    fn odd(&mut self, result: Result<Sample<'a>, Reject>, line: &'a [u8]) {
        self.table.take_odd(result, line);
    }

    fn stamped(&mut self, sample: Sample<'a>, at: i64, line: &'a [u8]) {
        take_stamped(self.table, &sample, at, line);
    }

    fn notice(&mut self, notice: Notice) {
        self.table.take_notice(notice);
    }
}

/// Reads on while the entries of the values before are on their way from memory.
struct Ahead<'t, 'a> {
    table: &'t mut Table,
    waiting: Vec<(Spelling<'a>, Value<'a>)>,
}

impl<'t> Ahead<'t, '_> {
    fn of(table: &'t mut Table) -> Self {
        let waiting = Vec::with_capacity(AHEAD);
        Self { table, waiting }
    }

    #[inline(always)]
    fn settle(&mut self) {
        for (spelling, value) in self.waiting.drain(..) {
            self.table.record_spelled(&spelling, value);
        }
    }
}

impl<'a> Recorder<'a> for Ahead<'_, 'a> {
    fn table(&mut self) -> &mut Table {
        self.table
    }
}

impl<'a> Reader<'a> for Ahead<'_, 'a> {
    fn dialect(&self) -> Dialect {
        self.table.dialect()
    }

    #[inline(always)]
    fn sample(&mut self, sample: Sample<'a>, window: &[u8; BLOCK]) {
        if self.waiting.len() == AHEAD {
            self.settle();
        }
        let spelling = self.table.spell(&sample, window);
        self.waiting.push((spelling, sample.value));
    }

    fn odd(&mut self, result: Result<Sample<'a>, Reject>, line: &'a [u8]) {
        // In order: a gauge is what was written to it last.
        self.settle();
        self.table.take_odd(result, line);
    }

    fn stamped(&mut self, sample: Sample<'a>, at: i64, line: &'a [u8]) {
        self.settle();
        take_stamped(self.table, &sample, at, line);
    }

    fn notice(&mut self, notice: Notice) {
        self.table.take_notice(notice);
    }
}

/// Logs every line of a batch as it came, good or bad. Out of the way of the usual batch.
#[cold]
pub fn dump(batch: &Batch) {
    for packet in batch.packets() {
        for line in packet.whole_lines().split(|byte| *byte == b'\n') {
            if !line.is_empty() {
                log::line(&format_args!("{}", String::from_utf8_lossy(line)));
            }
        }
    }
}

/// Sends the flusher what was collected. `false` when its channel is full: then the worker goes on
/// collecting into the same table and tries again at the next batch; nothing is lost by it.
fn hand_over(
    worker: usize,
    epoch: u64,
    source: &mut impl Source,
    table: &mut Table,
    link: &Link,
) -> bool {
    give(link, |harvest| {
        source.account(&mut table.tally);
        table.harvest(harvest);
        harvest.worker = worker;
        harvest.epoch = epoch;
    })
}

impl Giving for Link {
    type Load = Harvest;

    fn is_full(&self) -> bool {
        self.full.is_full()
    }

    fn emptied(&self) -> Option<Harvest> {
        self.empty.pop()
    }

    fn send(&self, harvest: Harvest) -> bool {
        // Closed only when the flusher is gone, and then nobody is left to count for.
        self.full.send(harvest).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metric::registry::Registry;
    use crate::runtime::sys::wake::Waker;
    use packet::Filled;
    use proptest::prelude::*;
    use source::lock::Lock;
    use source::{AnySource, Listen};
    use std::io;
    use std::net::UdpSocket;

    /// Holds so many datagrams; gives the order to stop when somebody would have to wait for more.
    struct Queue {
        left: usize,
        stop: Stop,
    }

    const BATCH: usize = 64;

    impl Source for Queue {
        fn waker(&self) -> Waker {
            Waker::new().expect("an eventfd")
        }

        fn batch(&self) -> Batch {
            Batch::new(BATCH, 64)
        }

        fn receive(&mut self, batch: &mut Batch) -> io::Result<()> {
            self.stop.request();
            self.left = 0;
            self.drain(batch).map(drop)
        }

        fn drain(&mut self, batch: &mut Batch) -> io::Result<bool> {
            let refill = batch.refill();
            for slot in 0..self.left.min(refill.slots) {
                let start = slot * refill.stride;
                refill.arena[start..start + 5].copy_from_slice(b"a:1|c");
                refill.filled.push(Filled {
                    bytes: start..start + 5,
                    truncated: false,
                });
                self.left -= 1;
            }
            Ok(batch.received() > 0)
        }

        fn has_more(&self) -> bool {
            false
        }

        fn finish(&mut self) -> bool {
            false
        }

        fn account(&mut self, _tally: &mut Tally) {}
    }

    /// Datagrams in the answer to a tick that finds so many of them queued.
    fn answered(queued: usize) -> u64 {
        let (full, harvests) = crossbeam::channel::unbounded();
        let link = Link {
            epoch: Arc::new(CachePadded::new(AtomicU64::new(1))),
            full,
            empty: Arc::new(ArrayQueue::new(1)),
            stop: Stop::default(),
            wanted: Arc::default(),
            copies: None,
        };
        let queue = Queue {
            left: queued,
            stop: link.stop.clone(),
        };
        let table = Table::new(&Options::default(), Arc::new(Registry::new()));
        run(0, queue, table, &link);
        let answer = harvests.recv().expect("an answer");
        assert_eq!(answer.epoch, 1);
        answer.tally.packets
    }

    /// Writes down what its worker asks of it.
    #[derive(Default)]
    struct Diary {
        stop: Stop,
        tally: Tally,
        entries: Vec<String>,
    }

    impl Intake for &mut Diary {
        fn stopping(&self) -> bool {
            self.stop.requested()
        }

        fn asked(&self) -> u64 {
            0
        }

        fn tally(&mut self) -> &mut Tally {
            &mut self.tally
        }

        fn take(&mut self, batch: &Batch) {
            self.entries.push(format!("take {}", batch.received()));
        }

        fn settle(&mut self) {
            self.entries.push("settle".into());
        }

        fn answer(&mut self, number: u64, _source: &mut impl Source) -> bool {
            assert_eq!(number, u64::MAX);
            self.entries.push("answer".into());
            true
        }
    }

    /// A queue that is read batch by batch until it is empty.
    struct Batches(Queue);

    impl Source for Batches {
        fn waker(&self) -> Waker {
            self.0.waker()
        }

        fn batch(&self) -> Batch {
            self.0.batch()
        }

        fn receive(&mut self, batch: &mut Batch) -> io::Result<()> {
            if self.0.left <= BATCH {
                self.0.stop.request();
            }
            self.0.drain(batch).map(drop)
        }

        fn drain(&mut self, batch: &mut Batch) -> io::Result<bool> {
            self.0.drain(batch)
        }

        fn has_more(&self) -> bool {
            self.0.left > 0
        }

        fn finish(&mut self) -> bool {
            self.0.finish()
        }

        fn account(&mut self, _tally: &mut Tally) {}
    }

    #[test]
    fn what_is_held_back_goes_on_when_nothing_more_is_there() {
        let stop = Stop::default();
        let queue = Queue {
            left: 2 * BATCH + 1,
            stop: stop.clone(),
        };
        let mut diary = Diary {
            stop,
            ..Diary::default()
        };
        serve(Batches(queue), &mut diary);
        let expected = ["take 64", "take 64", "take 1", "settle", "settle", "answer"];
        assert_eq!(diary.entries, expected);
    }

    /// A socket of datagrams, locked with so many in it.
    fn locked(datagrams: u64) -> AnySource {
        let listen = Listen::Udp(source::udp::Options {
            address: Some("127.0.0.1".into()),
            port: 0,
            ..source::udp::Options::default()
        });
        let mut listener = listen
            .bind(&[0], &mut source::inherited::Inherited::default())
            .expect("bind");
        let address = listener.address.socket().expect("it has a port");
        let client = UdpSocket::bind("127.0.0.1:0").expect("bind");
        for _ in 0..datagrams {
            client.send_to(b"a:1|c", address).expect("send");
        }
        let source = listener.sources.remove(0);
        Lock::close_all(&source.lock().into_iter().collect::<Vec<_>>());
        assert!(source.is_locked());
        source
    }

    impl Diary {
        /// Datagrams taken.
        fn taken(&self) -> u64 {
            let entries = self.entries.iter();
            let taken = entries.filter_map(|entry| entry.strip_prefix("take "));
            taken
                .map(|count| count.parse::<u64>().expect("a number"))
                .sum()
        }
    }

    #[test]
    fn what_the_stop_has_no_time_for_is_counted() {
        for (time, taken, unread) in [(Duration::ZERO, 0, 300), (Duration::from_secs(600), 300, 0)]
        {
            let mut source = locked(300);
            let mut batch = source.batch();
            let mut diary = Diary::default();
            let until = Instant::now() + time;
            finish(&mut source, &mut batch, &mut &mut diary, until);
            source.account(&mut diary.tally);
            assert_eq!((diary.taken(), diary.tally.unread), (taken, unread));
            source.account(&mut diary.tally);
            assert_eq!(diary.tally.unread, unread, "they are counted once");
        }
    }

    /// A queue of which the first receive calls fail, so many.
    struct Fails(Queue, u32);

    impl Source for Fails {
        fn waker(&self) -> Waker {
            self.0.waker()
        }

        fn batch(&self) -> Batch {
            self.0.batch()
        }

        fn receive(&mut self, _batch: &mut Batch) -> io::Result<()> {
            unreachable!("the stop waits for nothing")
        }

        fn drain(&mut self, batch: &mut Batch) -> io::Result<bool> {
            if self.1 > 0 {
                self.1 -= 1;
                return Err(io::ErrorKind::OutOfMemory.into());
            }
            self.0.drain(batch)
        }

        fn has_more(&self) -> bool {
            false
        }

        fn finish(&mut self) -> bool {
            assert_eq!(self.0.left, 0, "not before all is read");
            false
        }

        fn account(&mut self, _tally: &mut Tally) {}
    }

    #[test]
    fn a_receive_call_that_fails_at_the_stop_is_tried_again() {
        let stop = Stop::default();
        let mut source = Fails(Queue { left: 3, stop }, DRAIN_ERRORS);
        let mut batch = source.batch();
        let mut diary = Diary::default();
        let until = Instant::now() + Duration::from_secs(600);
        finish(&mut source, &mut batch, &mut &mut diary, until);
        assert_eq!(diary.entries, ["settle", "take 3", "settle"]);
        assert_eq!(diary.tally.receive_errors, u64::from(DRAIN_ERRORS));
    }

    #[test]
    fn other_options_are_news_once() {
        let wanted = Wanted::new(Options::default());
        let mut known = 0;
        assert_eq!(wanted.news(&mut known), None);
        let options = Options {
            sanitize_names: false,
            ..Options::default()
        };
        wanted.set(options.clone());
        assert_eq!(wanted.news(&mut known), Some(options));
        assert_eq!(wanted.news(&mut known), None);
    }

    #[test]
    fn what_is_queued_at_a_tick_belongs_to_it() {
        assert_eq!(answered(0), 0);
        assert_eq!(answered(BATCH), BATCH as u64);
        assert_eq!(answered(3 * BATCH + 1), 3 * BATCH as u64 + 1);
    }

    #[test]
    fn a_flood_does_not_keep_the_flusher_waiting() {
        assert_eq!(answered(usize::MAX), (TICK_BATCHES * BATCH) as u64);
    }

    /// Every part of a harvest, in an order of its own.
    fn collected(table: &mut Table) -> Vec<String> {
        let mut harvest = Harvest::default();
        table.harvest(&mut harvest);
        harvest.tally.last_packet = 0;
        let members = |part: &crate::metric::harvest::Part<crate::metric::set::Members>| {
            let mut members: Vec<_> = part.cell.iter().collect();
            members.sort();
            format!("{:?} {} {members:?}", part.id, part.hits)
        };
        let mut all: Vec<_> = harvest.sets.iter().map(members).collect();
        all.extend(harvest.counters.iter().map(|part| format!("{part:?}")));
        all.extend(harvest.gauges.iter().map(|part| format!("{part:?}")));
        all.extend(harvest.timers.iter().map(|part| format!("{part:?}")));
        all.sort();
        all.push(format!("{:?} {:?}", harvest.samples, harvest.tally));
        all
    }

    proptest! {
        /// Whatever a line holds: it has a value that is taken, refused or dropped by a rule, or is a notice.
        #[test]
        fn no_line_vanishes(
            lines in proptest::collection::vec(
                prop_oneof![
                    "[a:|@#,.;=T_esc{}1-9 \r\t-]{1,20}",
                    concat!(
                        "(a|_e\\{1,1\\}|_sc)[:|]{0,2}[-+]?[0-9.]{0,3}(:[0-9]){0,2}",
                        "\\|(c|ms|g|s|h|d|x|)(\\|[@#cT][^\n]{0,6}){0,2}",
                    ),
                    proptest::collection::vec(any::<u8>().prop_map(char::from), 1..30)
                        .prop_map(|line| line.into_iter().filter(|it| *it != '\n').collect()),
                ],
                1..30,
            ),
            auto in any::<bool>(),
        ) {
            let options = Options {
                dialect: if auto { Dialect::Auto } else { Dialect::Statsd },
                ..Options::default()
            };
            let mut table = Table::new(&options, Arc::new(Registry::new()));
            for line in lines {
                // One by one, and as bytes that need not be text.
                let line: Vec<u8> = line.chars().map(|it| it as u8).filter(|it| *it != b'\n').collect();
                let before = table.tally.clone();
                let (bytes, truncated) = (&line[..], false);
                take_packets([Packet { bytes, truncated }].into_iter(), &mut table);
                let came = |tally: &Tally| {
                    tally.recorded.iter().sum::<u64>()
                        + tally.rejected_total()
                        + tally.mapped_dropped
                        + tally.events
                        + tally.service_checks
                };
                let lines = table.tally.lines - before.lines;
                let values = came(&table.tally) - came(&before);
                prop_assert_eq!(lines, u64::from(!line.is_empty()), "{:?}", line);
                prop_assert!(values >= lines, "{:?}", String::from_utf8_lossy(&line));
                prop_assert!(lines > 0 || values == 0);
            }
        }

        /// Reading ahead changes when an entry is looked up, and nothing else.
        #[test]
        fn values_read_ahead_are_recorded_as_values_read_one_by_one(
            lines in proptest::collection::vec(("[a-d]{0,2}|[a-b/ ]{40,50}", 0..100u32, 0..9usize), 0..200),
            cut in 1..40usize,
        ) {
            let endings = ["|c", "|ms", "|g", "|s", "|c|@0.5", "|ms|#a:b", "|g\n", ":5|c", "|x|y"];
            let text = |(name, value, ending): &(String, u32, usize)| {
                let sign = if value % 7 == 0 { "+" } else { "" };
                format!("{name}:{sign}{value}{}", endings[*ending])
            };
            let lines: Vec<_> = lines.iter().map(text).collect();
            let datagrams: Vec<_> = lines.chunks(cut).map(|lines| lines.join("\n")).collect();
            let packets = || datagrams.iter().map(|datagram| Packet {
                bytes: datagram.as_bytes(),
                truncated: false,
            });
            let registry = Arc::new(Registry::new());
            let table = || Table::new(&Options::default(), registry.clone());
            let (mut one, mut other) = (table(), table());
            let mut direct = Direct { table: &mut one };
            packets().for_each(|packet| direct.read(&packet));
            let mut ahead = Ahead::of(&mut other);
            packets().for_each(|packet| ahead.read(&packet));
            ahead.settle();
            prop_assert_eq!(collected(&mut one), collected(&mut other));
        }
    }
}
