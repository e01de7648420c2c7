//! A flush -> posts: which measurements there are, in which order, and under which names.

mod search;

use super::batch::{Batch, Batches, Told};
use super::name::{self, Named, Tags};
use super::pattern::{Found, Pattern};
use super::summary::{self, Summary};
use super::{Options, Threshold};
use crate::metric::kept;
use crate::metric::registry::Name;
use crate::metric::snapshot::{Snapshot, Stamped, Timer};
use foldhash::fast::RandomState;
use hashbrown::{HashMap, HashSet};
use search::{Budget, Search};
use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

/// Buckets that are the daemon's own.
pub(super) const INTERNAL: &str = "statsd.";
/// What the fields of histogram bins begin with.
const BINS: &str = "histogram.";
/// Samples summed up in a millisecond, at least.
const LOOKS_A_MS: u64 = 50_000;
/// Names that are not sent any more, at most.
const STOPPED_MAX: usize = 65_536;

/// What became of a flush.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    /// In the order they are to be sent.
    pub batches: Vec<Batch>,
    /// Measurements left out: without a name, with a number the service does not take, or stopped.
    pub dropped: u64,
    /// Tags left out of measurements, once for each bucket.
    pub tags_dropped: u64,
    /// Searches that were given up and count as not found.
    pub exhausted: u64,
}

/// Encodes snapshots. Pure: bytes in buffers. It remembers running totals, and names that are stopped.
#[derive(Debug)]
pub struct Encoder {
    include: Vec<Search>,
    exclude: Vec<Search>,
    source_regex: Option<Search>,
    budget: Budget,
    skip_internal: bool,
    /// The configured source, as JSON.
    source: Option<Vec<u8>>,
    /// Global tags, an object.
    tags: Vec<u8>,
    /// Clean, with its dot.
    prefix: Vec<u8>,
    snap: i64,
    batch_size: usize,
    legacy: bool,
    always_suffix: bool,
    /// Percentiles and the ends of their names.
    thresholds: Vec<(f64, String)>,
    /// `None` when counters are gauges.
    totals: Option<Totals>,
    stopped: HashSet<Box<[u8]>, RandomState>,
    bins: Bins,
    scratch: Scratch,
}

#[derive(Debug, Default)]
struct Totals {
    counters: HashMap<Name, f64, RandomState>,
    num_stats: f64,
}

impl Totals {
    /// The total of a counter with this.
    fn add(&mut self, name: &Name, value: f64) -> f64 {
        match self.counters.get_mut(name) {
            Some(total) => {
                *total += value;
                *total
            }
            None => {
                self.counters.insert(name.clone(), value);
                value
            }
        }
    }
}

/// The fields of a snapshot that are bins.
#[derive(Debug, Default)]
struct Bins {
    fields: Arc<[String]>,
    /// The end of a name for each field that is one, else nothing.
    suffixes: Vec<Option<String>>,
}

/// Memory of one measurement.
#[derive(Debug, Default)]
struct Scratch {
    /// Of a measurement; what it begins with is that of its bucket.
    name: Vec<u8>,
    tags: Tags,
    /// Of a whole bucket, as JSON.
    tags_json: Vec<u8>,
    /// Of one measurement whose source was found in its name.
    own_tags: Vec<u8>,
    source: Vec<u8>,
    text: String,
    /// Of a timer: which threshold, 0 for all samples.
    summaries: Vec<(usize, Summary)>,
}

impl Encoder {
    /// Works out what is the same for every flush. No total yet, and nothing is stopped.
    pub fn new(options: &Options) -> Self {
        let json = |text: &str| {
            let mut out = Vec::new();
            name::quote(text, &mut out);
            out
        };
        let mut prefix = Vec::new();
        if !options.global_prefix.is_empty() {
            name::clean(&options.global_prefix, &mut prefix);
            prefix.push(b'.');
        }
        let searches = |patterns: &[Pattern]| patterns.iter().map(Search::new).collect();
        Self {
            include: searches(&options.include),
            exclude: searches(&options.exclude),
            source_regex: options.source_regex.as_ref().map(Search::new),
            budget: Budget::default(),
            skip_internal: options.skip_internal,
            source: options.source.as_deref().map(json),
            tags: global_tags(options),
            prefix,
            snap: options.snap,
            batch_size: options.batch_size,
            legacy: options.write_to_legacy,
            always_suffix: options.always_suffix,
            thresholds: (options.thresholds.iter())
                .map(|Threshold { percent, label }| (*percent, format!(".{label}")))
                .collect(),
            totals: (!options.counters_as_gauges).then(Totals::default),
            stopped: HashSet::default(),
            bins: Bins::default(),
            scratch: Scratch {
                tags: Tags::new(options.folded_tags),
                ..Scratch::default()
            },
        }
    }

    /// With a clock, of milliseconds that only grow: what the searches of a flush may take together is
    /// reckoned by it. Without one only each of them has its bounds.
    #[must_use]
    pub fn timed(self, now_ms: impl Fn() -> u64 + Send + 'static) -> Self {
        Self {
            budget: Budget::new(Box::new(now_ms)),
            ..self
        }
    }

    /// Goes on with running totals of an earlier process, where counters have them.
    pub fn resume(&mut self, kept: &kept::Totals) {
        if let Some(totals) = &mut self.totals {
            totals.counters = kept.counters.iter().cloned().collect();
            totals.num_stats = kept.num_stats;
        }
    }

    /// A copy of the running totals, where counters have them.
    pub fn totals(&self) -> Option<kept::Totals> {
        let of = |(name, sum): (&Name, &f64)| (name.clone(), *sum);
        self.totals.as_ref().map(|totals| kept::Totals {
            counters: totals.counters.iter().map(of).collect(),
            num_stats: totals.num_stats,
            ahead: Vec::new(),
        })
    }

    /// Sends a name no more; it is the one the service knows. Whether that is new.
    pub fn stop(&mut self, name: &str) -> bool {
        self.stopped.len() < STOPPED_MAX && self.stopped.insert(name.as_bytes().into())
    }

    /// Encodes a flush; `again` when it was encoded before, so that totals have it already.
    pub fn encode(&mut self, snapshot: &Snapshot, again: bool) -> Encoded {
        let time = match self.snap {
            0 => snapshot.timestamp,
            snap => snapshot.timestamp.div_euclid(snap) * snap,
        };
        self.bins.follow(snapshot);
        // Every sample is looked at once for each measurement of its timer.
        let looks = snapshot.samples.len() * (self.thresholds.len() + 1);
        self.budget.begin(looks as u64 / LOOKS_A_MS);
        let mut totals = self.totals.take();
        let batches = Batches::new(time, &self.tags, self.batch_size, self.legacy);
        let mut walk = Walk {
            encoder: self,
            batches,
            dropped: 0,
            tags_dropped: 0,
        };
        let mut num_stats = 0.0;
        for counter in &snapshot.counters {
            if !walk.wanted(&counter.name) {
                continue;
            }
            let told = match &mut totals {
                Some(totals) => {
                    let added = if again { 0.0 } else { counter.value };
                    Told::Total(totals.add(&counter.name, added))
                }
                None => Told::Value(counter.value),
            };
            num_stats += 1.0;
            walk.bucket(&counter.name).push("", &told);
        }
        for timer in &snapshot.timers {
            // One without samples says nothing.
            if (timer.samples.is_empty() && timer.folded == 0) || !walk.wanted(&timer.name) {
                continue;
            }
            num_stats += 1.0;
            walk.timer(snapshot, timer);
        }
        for gauge in &snapshot.gauges {
            if walk.wanted(&gauge.name) {
                num_stats += 1.0;
                walk.bucket(&gauge.name).push("", &Told::Value(gauge.value));
            }
        }
        for set in &snapshot.sets {
            if walk.wanted(&set.name) {
                num_stats += 1.0;
                let members = set.members.len() as f64;
                walk.bucket(&set.name).push("", &Told::Value(members));
            }
        }
        if !walk.encoder.skip_internal {
            let told = match &mut totals {
                Some(totals) => {
                    totals.num_stats += if again { 0.0 } else { num_stats };
                    Told::Total(totals.num_stats)
                }
                None => Told::Value(num_stats),
            };
            walk.bucket("numStats").push("", &told);
        }
        // A time the service finds too far away costs the whole post, and this one may have waited for long.
        walk.batches.part();
        for Stamped {
            name,
            timestamp,
            value,
            ..
        } in &snapshot.stamped
        {
            // Also where counters are running totals: of what was a while ago there is none.
            if walk.wanted(name) {
                let told = Told::Stamped(*value, *timestamp);
                walk.bucket(name).push("", &told);
            }
        }
        let Walk {
            batches,
            dropped,
            tags_dropped,
            ..
        } = walk;
        self.totals = totals;
        Encoded {
            batches: batches.finish(),
            dropped,
            tags_dropped,
            exhausted: self.exhausted(),
        }
    }

    /// How many searches were given up since it was last asked.
    fn exhausted(&mut self) -> u64 {
        let lists = self.include.iter_mut().chain(&mut self.exclude);
        let all = lists.chain(&mut self.source_regex);
        all.map(Search::take_exhausted).sum()
    }
}

/// The tags of a whole post. A host that was named, or found because no tag names one, is the tag `host`.
fn global_tags(options: &Options) -> Vec<u8> {
    let mut tags: Vec<(&str, Cow<'_, [u8]>)> = options
        .tags
        .iter()
        .map(|(key, json)| (key.as_str(), json.as_bytes().into()))
        .collect();
    if let Some(host) = &options.host {
        let mut json = Vec::new();
        name::quote(host, &mut json);
        match tags.iter_mut().find(|(key, _)| *key == "host") {
            Some((_, value)) => *value = json.into(),
            None => tags.push(("host", json.into())),
        }
    }
    let mut out = vec![b'{'];
    for (at, (key, json)) in tags.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        name::quote(key, &mut out);
        out.push(b':');
        out.extend_from_slice(json);
    }
    out.push(b'}');
    out
}

impl Bins {
    fn follow(&mut self, snapshot: &Snapshot) {
        if Arc::ptr_eq(&self.fields, &snapshot.fields) && !self.suffixes.is_empty() {
            return;
        }
        self.fields = snapshot.fields.clone();
        let suffix = |field: &String| Some(format!(".{}", field.strip_prefix(BINS)?));
        self.suffixes = self.fields.iter().map(suffix).collect();
    }
}

/// One pass over a snapshot.
struct Walk<'e> {
    encoder: &'e mut Encoder,
    batches: Batches,
    dropped: u64,
    tags_dropped: u64,
}

/// A bucket whose measurements are being written.
struct Bucket<'w, 'e, 'b> {
    walk: &'w mut Walk<'e>,
    bucket: &'b str,
    name: &'b str,
    /// How much of the scratch name is of the bucket.
    named: usize,
    /// A tag had no place beside a source, and was counted.
    gave_way: bool,
}

impl<'e> Walk<'e> {
    /// Whether a bucket passes the filters, which see it as it is stored, tags and all.
    #[inline]
    fn wanted(&mut self, bucket: &str) -> bool {
        let encoder = &mut *self.encoder;
        if encoder.skip_internal && bucket.starts_with(INTERNAL) {
            return false;
        }
        let budget = &mut encoder.budget;
        let mut any = |searches: &mut [Search]| {
            (searches.iter_mut()).any(|search| search.is_match(budget, bucket))
        };
        (encoder.include.is_empty() || any(&mut encoder.include)) && !any(&mut encoder.exclude)
    }

    /// Reads a bucket's name and tags.
    #[inline]
    fn bucket<'w, 'b>(&'w mut self, bucket: &'b str) -> Bucket<'w, 'e, 'b> {
        let Encoder {
            scratch,
            source,
            prefix,
            source_regex,
            ..
        } = &mut *self.encoder;
        let Named { text, clean } = scratch.tags.read(bucket);
        scratch.tags_json.clear();
        let gave_way = (scratch.tags).write(bucket, source.as_deref(), &mut scratch.tags_json);
        self.tags_dropped += scratch.tags.dropped() + u64::from(gave_way);
        scratch.name.clear();
        scratch.name.extend_from_slice(prefix);
        // A source is looked for in the name as it came, and taken out of it.
        if source_regex.is_none() {
            if clean {
                scratch.name.extend_from_slice(text.as_bytes());
            } else {
                name::clean(text, &mut scratch.name);
            }
        }
        Bucket {
            named: scratch.name.len(),
            walk: self,
            bucket,
            name: text,
            gave_way,
        }
    }

    fn timer(&mut self, snapshot: &Snapshot, timer: &Timer) {
        let samples = &snapshot.samples[timer.samples.clone()];
        let distribution = timer.distribution.as_deref();
        let count = distribution.map_or(samples.len() as f64, |it| it.count);
        if count == 0.0 {
            // Of an interval that began before this backend was wanted.
            self.dropped += 1;
            return;
        }
        let smallest = |k: f64| match distribution {
            Some(distribution) => summary::of_distribution(distribution, k),
            None => summary::of_samples(&samples[..k as usize]),
        };
        // Put back below: the bucket borrows the rest.
        let thresholds = std::mem::take(&mut self.encoder.thresholds);
        let mut summaries = std::mem::take(&mut self.encoder.scratch.summaries);
        // All of them before any is written: each is a chain of additions that waits for itself, and side by
        // side they wait together.
        summaries.clear();
        summaries.push((0, smallest(count)));
        for (at, (percent, _)) in thresholds.iter().enumerate() {
            let k = summary::rank(*percent, count);
            if k > 0.0 {
                summaries.push((at + 1, smallest(k)));
            }
        }
        let bins = std::mem::take(&mut self.encoder.bins);
        let base = if self.encoder.always_suffix {
            ".100"
        } else {
            ""
        };
        let mut bucket = self.bucket(&timer.name);
        for (at, summary) in &summaries {
            let suffix = match at {
                0 => base,
                above => &thresholds[above - 1].1,
            };
            bucket.push(suffix, &Told::Summary(*summary));
        }
        for statistic in &snapshot.statistics[timer.statistics.clone()] {
            if let Some(suffix) = &bins.suffixes[statistic.field as usize] {
                bucket.push(suffix, &Told::Value(statistic.value));
            }
        }
        self.encoder.scratch.summaries = summaries;
        self.encoder.thresholds = thresholds;
        self.encoder.bins = bins;
    }
}

impl Bucket<'_, '_, '_> {
    /// Appends a measurement of this bucket, or counts it as dropped.
    #[inline]
    fn push(&mut self, suffix: &str, told: &Told) {
        if !self.try_push(suffix, told) {
            self.walk.dropped += 1;
        }
    }

    fn try_push(&mut self, suffix: &str, told: &Told) -> bool {
        let Walk {
            encoder,
            batches,
            tags_dropped,
            ..
        } = &mut *self.walk;
        let Encoder {
            scratch,
            source_regex,
            source,
            stopped,
            budget,
            ..
        } = &mut **encoder;
        if self.name.is_empty() || !told.is_taken() {
            return false;
        }
        let Scratch {
            name,
            tags,
            tags_json,
            own_tags,
            source: own_source,
            text,
            ..
        } = scratch;
        name.truncate(self.named);
        let mut found = false;
        if let Some(search) = source_regex {
            text.clear();
            text.push_str(self.name);
            text.push_str(suffix);
            if let Some(Found { whole, group }) = search.run(budget, text, Pattern::first_group) {
                own_source.clear();
                own_source.push(b'"');
                source_of(text, group, own_source);
                own_source.push(b'"');
                text.replace_range(whole, "");
                if text.is_empty() {
                    return false;
                }
                own_tags.clear();
                let gives_way = tags.write(self.bucket, Some(own_source), own_tags);
                *tags_dropped += u64::from(gives_way && !self.gave_way);
                self.gave_way |= gives_way;
                found = true;
            }
            name::clean(text, name);
        } else {
            name::clean(suffix, name);
        }
        name::cut(name, suffix);
        if !stopped.is_empty() && stopped.contains(name.as_slice()) {
            return false;
        }
        if found {
            batches.push(name, told, own_tags, Some(own_source))
        } else {
            batches.push(name, told, tags_json, source.as_deref())
        }
    }
}

/// Appends a source that was found: clean and cut, as a name.
fn source_of(text: &str, group: Range<usize>, out: &mut Vec<u8>) {
    let begin = out.len();
    name::clean(&text[group], out);
    out.truncate(begin + name::NAME_MAX);
}

#[cfg(test)]
mod tests;
