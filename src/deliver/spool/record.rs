//! A flush <-> the bytes of its file: a head with the length and the checksum of what follows, and behind it
//! the snapshot as it is, field by field. What was cut off anywhere is shorter than its head says.
//!
//! ```text
//! "SFFLUSH\n"  version u32  length of the rest u64  crc32 u32  rest
//! ```
//!
//! It is the snapshot that is kept, and not what an encoder makes of it: encoders are pure, so the next
//! process sends the same, but with names, tags and protocol as its own configuration has them, and running
//! totals of Librato go on from where they are then. Numbers are little endian. A list has its length before
//! it, in seven bits a byte as long as the eighth is set. Another layout gets another version.

use crate::metric::meter::METERS;
use crate::metric::registry::Name;
use crate::metric::sample::Kind;
use crate::metric::set::{Member, Members};
use crate::metric::snapshot::{
    Counter, Distribution, Gauge, SelfMetric, Set, Snapshot, Stamped, Statistic, Timer,
};
use crate::runtime::crc32::Crc32;
use std::ops::Range;

/// What every version begins with.
const MAGIC: &[u8; 8] = b"SFFLUSH\n";
/// The one that is written, and read.
const VERSION: u32 = 1;
/// Bytes before the rest.
const HEAD: usize = 24;
/// Bytes of the head that the checksum is of, beside the rest.
const SUMMED: usize = 20;

/// Why a file is not used. Displayed as a part of a sentence.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It never was ours.
    #[error("it is no flush of statsd-fast")]
    Foreign,
    /// Another program of ours wrote it.
    #[error("it is of version {0}, and this program reads version {VERSION}")]
    Version(u32),
    /// The end is missing.
    #[error("its end is missing: it was cut off, likely by a disk that failed or lost power")]
    Torn,
    /// Something in it has changed.
    #[error("it is damaged: {0}")]
    Damaged(&'static str),
}

/// The bytes of a flush.
pub fn encode(snapshot: &Snapshot) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEAD + snapshot.memory());
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&VERSION.to_le_bytes());
    out.resize(HEAD, 0);
    let mut body = Out(out);
    body.snapshot(snapshot);
    let Out(mut out) = body;
    let length = (out.len() - HEAD) as u64;
    out[SUMMED - 8..SUMMED].copy_from_slice(&length.to_le_bytes());
    let sum = checksum(&out);
    out[SUMMED..HEAD].copy_from_slice(&sum.to_le_bytes());
    out
}

/// Reads a flush, or nothing of it. Total: whatever the bytes are, it neither panics nor takes more memory
/// than a small multiple of them, and what it returns can be given to the encoders of Graphite and Librato.
///
/// # Errors
/// Why it is not used.
pub fn decode(bytes: &[u8]) -> Result<Snapshot, Refusal> {
    let Some(head) = bytes.first_chunk::<HEAD>() else {
        return Err(too_short(bytes));
    };
    if !head.starts_with(MAGIC) {
        return Err(too_short(head));
    }
    let mut head = In(&head[MAGIC.len()..]);
    let version = u32::from_le_bytes(head.array()?);
    if version != VERSION {
        return Err(Refusal::Version(version));
    }
    let length = u64::from_le_bytes(head.array()?);
    let sum = u32::from_le_bytes(head.array()?);
    let body = &bytes[HEAD..];
    match (body.len() as u64).cmp(&length) {
        std::cmp::Ordering::Less => return Err(Refusal::Torn),
        std::cmp::Ordering::Greater => {
            return Err(Refusal::Damaged("something stands behind its end"));
        }
        std::cmp::Ordering::Equal => {}
    }
    if checksum(bytes) != sum {
        return Err(Refusal::Damaged("its checksum is not that of its content"));
    }
    let mut body = In(body);
    let snapshot = body.snapshot()?;
    if body.0.is_empty() {
        Ok(snapshot)
    } else {
        Err(Refusal::Damaged("it has more in it than a flush"))
    }
}

/// Of bytes that begin otherwise, or end in the head. Zeros are what some file systems leave of a file after
/// a power failure.
fn too_short(bytes: &[u8]) -> Refusal {
    let beginning = &bytes[..bytes.len().min(MAGIC.len())];
    if MAGIC.starts_with(beginning) || bytes.iter().all(|byte| *byte == 0) {
        Refusal::Torn
    } else {
        Refusal::Foreign
    }
}

fn checksum(bytes: &[u8]) -> u32 {
    let mut crc = Crc32::new();
    crc.update(&bytes[..SUMMED]);
    crc.update(&bytes[HEAD..]);
    crc.value()
}

/// Values on their way out.
struct Out(Vec<u8>);

impl Out {
    fn length(&mut self, length: usize) {
        self.whole(length as u64);
    }

    fn whole(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn time(&mut self, seconds: i64) {
        self.0.extend_from_slice(&seconds.to_le_bytes());
    }

    fn number(&mut self, value: f64) {
        self.0.extend_from_slice(&value.to_bits().to_le_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.length(bytes.len());
        self.0.extend_from_slice(bytes);
    }

    fn range(&mut self, range: &Range<usize>) {
        self.length(range.start);
        self.length(range.len());
    }

    fn list<T>(&mut self, items: &[T], mut each: impl FnMut(&mut Self, &T)) {
        self.length(items.len());
        items.iter().for_each(|item| each(self, item));
    }

    fn snapshot(&mut self, snapshot: &Snapshot) {
        // Every field by its name: a new one has to be dealt with here.
        let Snapshot {
            timestamp,
            counters,
            timers,
            gauges,
            sets,
            stamped,
            interval_seconds,
            thresholds,
            fields,
            statistics,
            samples,
            processing_ms,
            self_metrics,
        } = snapshot;
        self.time(*timestamp);
        self.number(*interval_seconds);
        self.whole(*processing_ms);
        self.list(thresholds, |out, percent| out.number(*percent));
        self.list(fields, |out, field| out.bytes(field.as_bytes()));
        self.list(statistics, |out, Statistic { field, value }| {
            out.whole(u64::from(*field));
            out.number(*value);
        });
        self.list(samples, |out, sample| out.number(*sample));
        self.list(counters, |out, Counter { name, value, rate }| {
            out.bytes(name.as_bytes());
            out.number(*value);
            out.number(*rate);
        });
        self.list(timers, Self::timer);
        self.list(gauges, |out, Gauge { name, value }| {
            out.bytes(name.as_bytes());
            out.number(*value);
        });
        self.list(sets, |out, Set { name, members }| {
            out.bytes(name.as_bytes());
            out.length(members.len());
            members.iter().for_each(|member| out.bytes(member));
        });
        self.list(stamped, |out, stamped| {
            let Stamped {
                kind,
                name,
                timestamp,
                value,
            } = stamped;
            out.0.push(*kind as u8);
            out.bytes(name.as_bytes());
            out.time(*timestamp);
            out.number(*value);
        });
        self.list(self_metrics, |out, SelfMetric { name, value }| {
            out.bytes(name.as_bytes());
            out.number(*value);
        });
    }

    fn timer(&mut self, timer: &Timer) {
        let Timer {
            name,
            statistics,
            samples,
            folded,
            distribution,
        } = timer;
        self.bytes(name.as_bytes());
        self.range(statistics);
        self.range(samples);
        self.whole(*folded);
        self.0.push(u8::from(distribution.is_some()));
        if let Some(distribution) = distribution {
            let Distribution {
                count,
                sum,
                min,
                max,
                squares_apart,
                runs,
            } = &**distribution;
            for value in [count, sum, min, max, squares_apart] {
                self.number(*value);
            }
            self.list(runs, |out, (value, count)| {
                out.number(*value);
                out.number(*count);
            });
        }
    }
}

/// Values on their way in: what was not read yet.
struct In<'b>(&'b [u8]);

type Read<T> = Result<T, Refusal>;

const ENDS: Refusal = Refusal::Damaged("a value of it ends beyond its end");

impl<'b> In<'b> {
    fn array<const N: usize>(&mut self) -> Read<[u8; N]> {
        let (array, rest) = self.0.split_first_chunk().ok_or(ENDS)?;
        self.0 = rest;
        Ok(*array)
    }

    fn byte(&mut self) -> Read<u8> {
        self.array().map(|[byte]| byte)
    }

    fn whole(&mut self) -> Read<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if bits << shift >> shift != bits {
                break;
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Refusal::Damaged("a whole number of it is too large"))
    }

    fn length(&mut self) -> Read<usize> {
        usize::try_from(self.whole()?).map_err(|_| ENDS)
    }

    /// One that can be rounded, and that JSON's readers know.
    fn time(&mut self) -> Read<i64> {
        let seconds = i64::from_le_bytes(self.array()?);
        let is_one = seconds.unsigned_abs() < 1 << 53;
        is_one
            .then_some(seconds)
            .ok_or(Refusal::Damaged("a time in it is none"))
    }

    fn number(&mut self) -> Read<f64> {
        self.array().map(u64::from_le_bytes).map(f64::from_bits)
    }

    fn bytes(&mut self) -> Read<&'b [u8]> {
        let length = self.length()?;
        let (bytes, rest) = self.0.split_at_checked(length).ok_or(ENDS)?;
        self.0 = rest;
        Ok(bytes)
    }

    fn text(&mut self) -> Read<&'b str> {
        let text = std::str::from_utf8(self.bytes()?);
        text.map_err(|_| Refusal::Damaged("a name in it is no text"))
    }

    fn name(&mut self) -> Read<Name> {
        self.text().map(Name::from)
    }

    /// A part of so many.
    fn range(&mut self, of: usize) -> Read<Range<usize>> {
        let (start, length) = (self.length()?, self.length()?);
        let end = start.checked_add(length).filter(|end| *end <= of);
        let end = end.ok_or(Refusal::Damaged("a timer in it points beyond its values"))?;
        Ok(start..end)
    }

    /// A list of items that take so many bytes each, at least.
    fn list<T>(
        &mut self,
        least: usize,
        mut each: impl FnMut(&mut Self) -> Read<T>,
    ) -> Read<Vec<T>> {
        let length = self.length()?;
        if length > self.0.len() / least {
            return Err(ENDS);
        }
        let mut items = Vec::with_capacity(length);
        for _ in 0..length {
            items.push(each(self)?);
        }
        Ok(items)
    }

    fn snapshot(&mut self) -> Read<Snapshot> {
        let timestamp = self.time()?;
        let interval_seconds = self.number()?;
        let processing_ms = self.whole()?;
        let thresholds = self.list(8, Self::number)?;
        let fields = self.list(1, |from| from.text().map(str::to_owned))?;
        let statistics = self.list(9, |from| {
            let field = from.whole()?;
            let known = u32::try_from(field).ok();
            let known = known.filter(|_| field < fields.len() as u64);
            let field = known.ok_or(Refusal::Damaged("a statistic in it has no name"))?;
            let value = from.number()?;
            Ok(Statistic { field, value })
        })?;
        let samples = self.list(8, Self::number)?;
        let counters = self.list(17, |from| {
            let (name, value, rate) = (from.name()?, from.number()?, from.number()?);
            Ok(Counter { name, value, rate })
        })?;
        let timers = self.list(7, |from| from.timer(statistics.len(), samples.len()))?;
        let gauges = self.list(9, |from| {
            let (name, value) = (from.name()?, from.number()?);
            Ok(Gauge { name, value })
        })?;
        let sets = self.list(2, |from| {
            let name = from.name()?;
            // As they come, so that what is announced takes no memory.
            let mut members = Members::default();
            for _ in 0..from.length()? {
                members.insert(Member::from(from.bytes()?));
            }
            Ok(Set { name, members })
        })?;
        let stamped = self.list(18, |from| {
            let kind = from.byte()?;
            let known = Kind::ALL.into_iter().find(|known| *known as u8 == kind);
            Ok(Stamped {
                kind: known.ok_or(Refusal::Damaged("a value in it is of no kind"))?,
                name: from.name()?,
                timestamp: from.time()?,
                value: from.number()?,
            })
        })?;
        let accounts = self.list(9, |from| Ok((from.text()?, from.number()?)))?;
        // Of one that another version has, nobody here could say what it counts.
        let known = |(name, value)| {
            let meter = METERS.iter().find(|meter| meter.name == name)?;
            let name = meter.name;
            Some(SelfMetric { name, value })
        };
        Ok(Snapshot {
            timestamp,
            counters,
            timers,
            gauges,
            sets,
            stamped,
            interval_seconds,
            thresholds,
            fields: fields.into(),
            statistics,
            samples,
            processing_ms,
            self_metrics: accounts.into_iter().filter_map(known).collect(),
        })
    }

    fn timer(&mut self, statistics: usize, samples: usize) -> Read<Timer> {
        let name = self.name()?;
        let statistics = self.range(statistics)?;
        let samples = self.range(samples)?;
        let folded = self.whole()?;
        let distribution = match self.byte()? {
            0 => None,
            1 => Some(Box::new(Distribution {
                count: self.number()?,
                sum: self.number()?,
                min: self.number()?,
                max: self.number()?,
                squares_apart: self.number()?,
                runs: self.list(16, |from| Ok((from.number()?, from.number()?)))?,
            })),
            _ => return Err(Refusal::Damaged("a timer in it is none")),
        };
        Ok(Timer {
            name,
            statistics,
            samples,
            folded,
            distribution,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::{graphite, librato};
    use super::*;
    use proptest::prelude::*;

    fn sample() -> Snapshot {
        let fields = ["count", "upper_90", "histogram.bin_inf"];
        let statistic = |(field, value)| Statistic { field, value };
        let meter = METERS[0].name;
        Snapshot {
            timestamp: 1_764_430_000,
            counters: vec![
                Counter {
                    name: "a;t=\u{e9}".into(),
                    value: -0.0,
                    rate: f64::INFINITY,
                },
                Counter {
                    name: "".into(),
                    value: 0.1 + 0.2,
                    rate: 1e-300,
                },
            ],
            timers: vec![
                Timer {
                    name: "t".into(),
                    statistics: 0..2,
                    samples: 0..3,
                    folded: 0,
                    distribution: None,
                },
                Timer {
                    name: "long".into(),
                    statistics: 2..3,
                    samples: 3..3,
                    folded: 300,
                    distribution: Some(Box::new(Distribution {
                        count: 300.0,
                        sum: 1.0,
                        min: 2.0,
                        max: 3.0,
                        squares_apart: 4.0,
                        runs: vec![(2.0, 100.0), (3.0, 200.0)],
                    })),
                },
            ],
            gauges: vec![Gauge {
                name: "g".into(),
                value: f64::NEG_INFINITY,
            }],
            sets: vec![Set {
                name: "s".into(),
                members: [Member::from(&b"one \xff"[..])].into_iter().collect(),
            }],
            stamped: vec![Stamped {
                kind: Kind::Gauge,
                name: "then".into(),
                timestamp: -5,
                value: 7.0,
            }],
            interval_seconds: 10.0,
            thresholds: vec![90.0, -10.0],
            fields: fields.map(str::to_owned).into(),
            statistics: [(0, 3.0), (1, f64::MAX), (2, 300.0)].map(statistic).into(),
            samples: vec![1.0, 2.0, 3.0],
            processing_ms: 12,
            self_metrics: vec![SelfMetric {
                name: meter,
                value: 5.0,
            }],
        }
    }

    /// With the checksum of what it has now.
    fn summed(mut bytes: Vec<u8>) -> Vec<u8> {
        let length = (bytes.len() - HEAD) as u64;
        bytes[SUMMED - 8..SUMMED].copy_from_slice(&length.to_le_bytes());
        let sum = checksum(&bytes);
        bytes[SUMMED..HEAD].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    #[test]
    fn a_flush_is_read_back_as_it_was() {
        let read = decode(&encode(&sample())).expect("whole");
        assert_eq!(format!("{read:?}"), format!("{:?}", sample()));
        let read = decode(&encode(&Snapshot::default())).expect("whole");
        assert_eq!(format!("{read:?}"), format!("{:?}", Snapshot::default()));
    }

    #[test]
    fn the_bytes_are_those_of_the_version_before() {
        let snapshot = Snapshot {
            timestamp: 258,
            gauges: vec![Gauge {
                name: "g".into(),
                value: 1.0,
            }],
            ..Snapshot::default()
        };
        let mut expected = b"SFFLUSH\n\x01\0\0\0?\0\0\0\0\0\0\0".to_vec();
        let body = [
            &b"\x02\x01\0\0\0\0\0\0"[..],
            &[0; 8],
            // Milliseconds, percentiles, fields, statistics, samples, counters, timers.
            &[0; 7],
            b"\x01\x01g\0\0\0\0\0\0\xf0\x3f",
            // Sets, stamped values, own accounts.
            &[0; 3],
        ];
        let body = body.concat();
        expected[12] = body.len() as u8;
        let mut crc = Crc32::new();
        crc.update(&expected);
        crc.update(&body);
        expected.extend_from_slice(&crc.value().to_le_bytes());
        expected.extend_from_slice(&body);
        assert_eq!(encode(&snapshot), expected);
    }

    #[test]
    fn cut_off_anywhere_it_is_refused() {
        let bytes = encode(&sample());
        for length in 0..bytes.len() {
            let refusal = decode(&bytes[..length]).expect_err("torn");
            assert_eq!(refusal, Refusal::Torn, "{length}");
            let mut zeros = bytes[..length].to_vec();
            zeros.resize(bytes.len(), 0);
            decode(&zeros).expect_err("zeros are what some file systems leave");
        }
    }

    #[test]
    fn with_any_bit_changed_it_is_refused() {
        let bytes = encode(&sample());
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut bytes = bytes.clone();
                bytes[at] ^= 1 << bit;
                decode(&bytes).expect_err("changed");
            }
        }
    }

    #[test]
    fn what_is_refused_is_told_why() {
        let good = encode(&sample());
        let mut newer = good.clone();
        newer[8] = 2;
        let longer = [&good[..], b"x"].concat();
        let named = |name: &[u8]| {
            let at = good.windows(4).position(|it| it == b"then").expect("there");
            let mut bytes = good.clone();
            bytes[at..at + 4].copy_from_slice(name);
            bytes
        };
        for (bytes, expected) in [
            (
                b"# a configuration of something\n".to_vec(),
                "it is no flush of statsd-fast".into(),
            ),
            (b"#".to_vec(), Refusal::Foreign.to_string()),
            (vec![0; 4096], Refusal::Torn.to_string()),
            (
                newer,
                "it is of version 2, and this program reads version 1".into(),
            ),
            (
                longer,
                "it is damaged: something stands behind its end".into(),
            ),
            (
                summed([&good[..], b"x"].concat()),
                "it is damaged: it has more in it than a flush".into(),
            ),
            (
                named(b"thaw"),
                "it is damaged: its checksum is not that of its content".into(),
            ),
            (
                summed(named(b"th\xffn")),
                "it is damaged: a name in it is no text".into(),
            ),
        ] {
            let refusal = decode(&bytes).expect_err("refused");
            assert_eq!(refusal.to_string(), expected);
        }
    }

    #[test]
    fn an_account_this_version_does_not_keep_is_left_out() {
        let mut bytes = encode(&sample());
        let name = METERS[0].name.as_bytes();
        let at = bytes.windows(name.len()).rposition(|it| it == name);
        bytes[at.expect("there")] = b'?';
        let read = decode(&summed(bytes)).expect("whole");
        assert_eq!(read.self_metrics, []);
        assert_eq!(read.gauges, sample().gauges);
    }

    /// Whoever forges a checksum gets no further than to values of his own.
    fn can_be_sent(snapshot: &Snapshot) {
        let mut out = Vec::new();
        graphite::Encoder::new(&graphite::Options::default()).encode(snapshot, &mut out);
        for counters_as_gauges in [true, false] {
            let options = librato::Options {
                counters_as_gauges,
                write_to_legacy: true,
                ..librato::Options::default()
            };
            librato::measure::Encoder::new(&options).encode(snapshot, false);
        }
        decode(&encode(snapshot)).expect("what was read can be written");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        #[test]
        fn whatever_the_bytes_are_reading_them_ends_well(
            body in proptest::collection::vec(any::<u8>(), 0..200),
            changes in proptest::collection::vec(
                (any::<proptest::sample::Index>(), any::<u8>()), 1..6),
            cut in any::<proptest::sample::Index>(),
        ) {
            let _ = decode(&body);
            let head = encode(&Snapshot::default());
            let random = [&head[..HEAD], &body].concat();
            if let Ok(snapshot) = decode(&summed(random)) {
                can_be_sent(&snapshot);
            }
            let mut changed = encode(&sample());
            for (at, byte) in changes {
                let at = HEAD + at.index(changed.len() - HEAD);
                changed[at] = byte;
            }
            if let Ok(snapshot) = decode(&summed(changed.clone())) {
                can_be_sent(&snapshot);
            }
            changed.truncate(HEAD + cut.index(changed.len() - HEAD));
            prop_assert!(decode(&summed(changed)).is_err());
        }

        #[test]
        fn any_flush_is_read_back_to_the_bit(
            names in proptest::collection::vec((".{0,40}", any::<u64>()), 0..8),
            samples in proptest::collection::vec(any::<u64>(), 0..300),
            members in proptest::collection::vec(
                proptest::collection::vec(any::<u8>(), 0..40), 0..8),
            folded in any::<u64>(),
        ) {
            let value = f64::from_bits;
            let snapshot = Snapshot {
                counters: (names.iter())
                    .map(|(name, bits)| Counter {
                        name: name.as_str().into(),
                        value: value(*bits),
                        rate: value(!bits),
                    })
                    .collect(),
                timers: vec![Timer {
                    samples: 0..samples.len(),
                    folded,
                    ..Timer::default()
                }],
                samples: samples.into_iter().map(value).collect(),
                sets: vec![Set {
                    name: "s".into(),
                    members: members.iter().map(|it| Member::from(&it[..])).collect(),
                }],
                ..Snapshot::default()
            };
            let read = decode(&encode(&snapshot)).expect("whole");
            prop_assert_eq!(&read.sets, &snapshot.sets);
            // Members lie in no order.
            let rest = |it: Snapshot| format!("{:?}", Snapshot { sets: Vec::new(), ..it });
            let bits = |it: &Snapshot| -> Vec<u64> { it.samples.iter().map(|it| it.to_bits()).collect() };
            prop_assert_eq!(bits(&read), bits(&snapshot));
            prop_assert_eq!(rest(read), rest(snapshot));
        }
    }
}
