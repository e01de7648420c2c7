//! An open interval <-> bytes. Pure; whatever the bytes are, reading them ends in a value or in [`Damaged`].
//!
//! Numbers stand with their lowest byte first, texts and lists behind their lengths. There is no checksum
//! here: each message has one ([`super::message`]).

use crate::metric::carried::{Carried, Interval, Level, Row, Stamped};
use crate::metric::cell::{Gauge, Point, Stamp, Timer};
use crate::metric::histogram::{Grid, Histogram, Moments, Weighted};
use crate::metric::kept::Totals;
use crate::metric::sample::Kind;
use crate::metric::set::{Member, Members};

/// What cannot be read, and what of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Damaged(pub &'static str);

/// Counts above have not been counted by anybody; below, sums of many still fit.
const COUNT_MAX: u64 = 1 << 48;

/// Bytes in the making.
#[derive(Debug, Default)]
pub struct Writer(Vec<u8>);

impl Writer {
    /// Behind so many bytes that are written later.
    pub fn behind(head: usize) -> Self {
        Self(vec![0; head])
    }

    /// What was written.
    pub fn finish(self) -> Vec<u8> {
        self.0
    }

    /// A byte.
    pub fn byte(&mut self, value: u8) {
        self.0.push(value);
    }

    /// A number below 2^32.
    pub fn small(&mut self, value: u32) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    /// A number.
    pub fn number(&mut self, value: u64) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    fn real(&mut self, value: f64) {
        self.number(value.to_bits());
    }

    /// Bytes behind their length.
    pub fn bytes(&mut self, value: &[u8]) {
        self.number(value.len() as u64);
        self.0.extend_from_slice(value);
    }

    /// The items of a list, behind how many they are.
    pub fn list<T>(
        &mut self,
        items: impl ExactSizeIterator<Item = T>,
        mut write: impl FnMut(&mut Self, T),
    ) {
        self.number(items.len() as u64);
        items.for_each(|item| write(self, item));
    }

    fn option<T>(&mut self, value: Option<T>, write: impl FnOnce(&mut Self, T)) {
        self.byte(u8::from(value.is_some()));
        if let Some(value) = value {
            write(self, value);
        }
    }
}

/// Bytes that are being read.
#[derive(Debug)]
pub struct Reader<'b>(&'b [u8]);

type Read<T> = Result<T, Damaged>;

impl<'b> Reader<'b> {
    /// From the first of them.
    pub fn new(bytes: &'b [u8]) -> Self {
        Self(bytes)
    }

    /// Nothing may be left.
    ///
    /// # Errors
    /// When something is.
    pub fn finish(&self) -> Read<()> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(Damaged("something stands behind its end"))
        }
    }

    fn array<const N: usize>(&mut self) -> Read<[u8; N]> {
        let (first, rest) = self
            .0
            .split_first_chunk()
            .ok_or(Damaged("its end is missing"))?;
        self.0 = rest;
        Ok(*first)
    }

    /// A byte.
    ///
    /// # Errors
    /// When there is none; so do the others.
    pub fn byte(&mut self) -> Read<u8> {
        self.array().map(|[byte]| byte)
    }

    fn flag(&mut self) -> Read<bool> {
        match self.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Damaged("a flag is neither yes nor no")),
        }
    }

    /// A number below 2^32.
    ///
    /// # Errors
    /// As [`Reader::byte`].
    pub fn small(&mut self) -> Read<u32> {
        self.array().map(u32::from_le_bytes)
    }

    /// A number.
    ///
    /// # Errors
    /// As [`Reader::byte`].
    pub fn number(&mut self) -> Read<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn count(&mut self) -> Read<u64> {
        let count = self.number()?;
        if count > COUNT_MAX {
            return Err(Damaged("a count is larger than can be"));
        }
        Ok(count)
    }

    fn real(&mut self) -> Read<f64> {
        self.number().map(f64::from_bits)
    }

    /// Bytes behind their length.
    ///
    /// # Errors
    /// As [`Reader::byte`].
    pub fn bytes(&mut self) -> Read<&'b [u8]> {
        let length = self.number()?;
        let length = usize::try_from(length).ok();
        let parts = length.and_then(|length| self.0.split_at_checked(length));
        let (bytes, rest) = parts.ok_or(Damaged("its end is missing"))?;
        self.0 = rest;
        Ok(bytes)
    }

    /// A text behind its length.
    ///
    /// # Errors
    /// As [`Reader::byte`], and when it is none.
    pub fn text(&mut self) -> Read<&'b str> {
        std::str::from_utf8(self.bytes()?).map_err(|_| Damaged("a name is no text"))
    }

    /// A list. Memory grows with what is there, not with what is announced.
    ///
    /// # Errors
    /// Those of its items, each of which takes one byte at least.
    pub fn list<T>(&mut self, mut read: impl FnMut(&mut Self) -> Read<T>) -> Read<Vec<T>> {
        let count = self.number()?;
        if count > self.0.len() as u64 {
            return Err(Damaged("its end is missing"));
        }
        (0..count).map(|_| read(self)).collect()
    }

    fn option<T>(&mut self, read: impl FnOnce(&mut Self) -> Read<T>) -> Read<Option<T>> {
        if self.flag()? {
            read(self).map(Some)
        } else {
            Ok(None)
        }
    }
}

/// Writes everything, with the running totals where there are some.
pub fn encode(carried: &Carried, totals: Option<&Totals>) -> Vec<u8> {
    let mut out = Writer::default();
    let Interval {
        length_ms,
        align,
        start_ms,
        ends_ms,
        last_timestamp,
    } = carried.interval;
    out.number(length_ms);
    out.byte(align.into());
    out.number(start_ms);
    out.number(ends_ms);
    out.option(last_timestamp, |out, at| out.number(at.cast_unsigned()));
    rows(&mut out, &carried.counters, |out, sum| out.real(*sum));
    rows(&mut out, &carried.timers, timer);
    rows(&mut out, &carried.gauges, level);
    rows(&mut out, &carried.sets, |out, members| {
        out.number(members.len() as u64);
        members.iter().for_each(|member| out.bytes(member));
    });
    out.list(carried.points.iter(), |out, point| {
        out.byte(point.kind as u8);
        out.small(point.row);
        out.number(point.at.cast_unsigned());
        out.real(point.point.value);
        out.number(point.point.written.0);
    });
    counts(&mut out, &carried.meters);
    out.option(totals, |out, totals| {
        out.real(totals.num_stats);
        out.list(totals.counters.iter(), |out, (name, sum)| {
            out.bytes(name.as_bytes());
            out.real(*sum);
        });
        out.list(totals.ahead.iter(), |out, at| {
            out.number(at.cast_unsigned())
        });
    });
    out.finish()
}

/// Writes counts with their names.
pub(super) fn counts(out: &mut Writer, counts: &[(String, u64)]) {
    out.list(counts.iter(), |out, (name, count)| {
        out.bytes(name.as_bytes());
        out.number(*count);
    });
}

/// Reads them.
pub(super) fn read_counts(bytes: &mut Reader<'_>) -> Read<Vec<(String, u64)>> {
    bytes.list(|bytes| Ok((bytes.text()?.to_owned(), bytes.count()?)))
}

fn rows<C>(out: &mut Writer, rows: &[Row<C>], write: impl Fn(&mut Writer, &C)) {
    out.list(rows.iter(), |out, row| {
        out.bytes(row.name.as_bytes());
        out.small(row.hits);
        out.number(row.unreported);
        out.small(row.idle);
        out.option(row.cell.as_ref(), &write);
    });
}

fn timer(out: &mut Writer, timer: &Timer) {
    out.list(timer.samples.iter(), |out, sample| out.real(*sample));
    out.list(timer.weights.iter(), |out, (at, weight)| {
        out.small(*at);
        out.real(*weight);
    });
    out.real(timer.weight);
    out.option(timer.histogram.as_deref(), |out, histogram| {
        let grid = &histogram.grid;
        let slots: Vec<_> = grid.numbered().collect();
        out.list(slots.into_iter(), |out, (slot, count)| {
            out.small(slot.into());
            out.number(count);
        });
        out.number(grid.zeros);
        out.number(grid.below);
        out.number(grid.above);
        moments(out, &histogram.moments);
        out.option(histogram.weighted.as_deref(), |out, weighted| {
            let slots: Vec<_> = weighted.numbered().collect();
            out.list(slots.into_iter(), |out, (slot, weight)| {
                out.small(slot.into());
                out.real(weight);
            });
            out.real(weighted.zeros);
            out.real(weighted.below);
            out.real(weighted.above);
            out.number(weighted.outside);
            moments(out, &weighted.moments);
        });
    });
}

fn moments(out: &mut Writer, moments: &Moments) {
    out.number(moments.count);
    moments.parts().iter().for_each(|part| out.real(*part));
}

fn level(out: &mut Writer, level: &Level) {
    out.option(level.value, Writer::real);
    let (absolute, deltas) = level.writes.writes();
    let write = |out: &mut Writer, (at, value): (Stamp, f64)| {
        out.number(at.0);
        out.real(value);
    };
    out.option(absolute, write);
    out.list(deltas.iter().copied(), write);
    out.small(level.flushes_left);
    out.byte(level.kept.into());
}

/// Reads everything, or nothing.
///
/// # Errors
/// What is wrong with it.
pub fn decode(bytes: &[u8]) -> Result<(Carried, Option<Totals>), Damaged> {
    let bytes = &mut Reader::new(bytes);
    let interval = Interval {
        length_ms: bytes.number()?,
        align: bytes.flag()?,
        start_ms: bytes.number()?,
        ends_ms: bytes.number()?,
        last_timestamp: bytes.option(|bytes| bytes.number().map(u64::cast_signed))?,
    };
    // The limits of `flushInterval`, and a wall clock that dates can be made of.
    if interval.length_ms == 0 || interval.length_ms > 1 << 40 || interval.start_ms > 1 << 50 {
        return Err(Damaged("an interval is none that can be configured"));
    }
    let counters = read_rows(bytes, |bytes| bytes.real())?;
    let timers = read_rows(bytes, read_timer)?;
    let gauges = read_rows(bytes, read_level)?;
    let sets = read_rows(bytes, |bytes| {
        let members = bytes.list(|bytes| bytes.bytes().map(Member::from))?;
        Ok(members.into_iter().fold(Members::default(), |mut all, it| {
            all.insert(it);
            all
        }))
    })?;
    let points = bytes.list(|bytes| {
        let kind = match bytes.byte()? {
            kind if kind == Kind::Counter as u8 => Kind::Counter,
            kind if kind == Kind::Gauge as u8 => Kind::Gauge,
            _ => return Err(Damaged("a value with a time is neither counter nor gauge")),
        };
        let row = bytes.small()?;
        let rows = match kind {
            Kind::Counter => counters.len(),
            _ => gauges.len(),
        };
        if row as usize >= rows {
            return Err(Damaged("a value with a time has no name"));
        }
        Ok(Stamped {
            kind,
            row,
            at: bytes.number()?.cast_signed(),
            point: Point {
                value: bytes.real()?,
                written: Stamp(bytes.number()?),
            },
        })
    })?;
    let meters = read_counts(bytes)?;
    let totals = bytes.option(|bytes| {
        Ok(Totals {
            num_stats: bytes.real()?,
            counters: bytes.list(|bytes| Ok((bytes.text()?.into(), bytes.real()?)))?,
            ahead: bytes.list(|bytes| bytes.number().map(u64::cast_signed))?,
        })
    })?;
    bytes.finish()?;
    let carried = Carried {
        interval,
        counters,
        timers,
        gauges,
        sets,
        points,
        meters,
    };
    Ok((carried, totals))
}

fn read_rows<C>(
    bytes: &mut Reader<'_>,
    mut read: impl FnMut(&mut Reader<'_>) -> Read<C>,
) -> Read<Vec<Row<C>>> {
    bytes.list(|bytes| {
        Ok(Row {
            name: bytes.text()?.into(),
            hits: bytes.small()?,
            unreported: bytes.count()?,
            idle: bytes.small()?,
            cell: bytes.option(&mut read)?,
        })
    })
}

fn read_timer(bytes: &mut Reader<'_>) -> Read<Timer> {
    let samples = bytes.list(Reader::real)?;
    if samples.iter().any(|sample| sample.is_nan()) {
        return Err(Damaged("a sample of a timer is no number"));
    }
    let weights = bytes.list(|bytes| Ok((bytes.small()?, bytes.real()?)))?;
    let ascending = weights.is_sorted_by(|(one, _), (next, _)| one < next);
    let last = weights.last().map_or(0, |(at, _)| *at as usize + 1);
    if !ascending || last > samples.len() {
        return Err(Damaged("a weight has no sample"));
    }
    Ok(Timer {
        samples,
        weights,
        weight: bytes.real()?,
        histogram: bytes.option(read_histogram)?.map(Box::new),
    })
}

fn read_histogram(bytes: &mut Reader<'_>) -> Read<Histogram> {
    const NO_SLOT: Damaged = Damaged("a histogram has no such slot");
    let slot = |bytes: &mut Reader<'_>| u16::try_from(bytes.small()?).map_err(|_| NO_SLOT);
    let mut grid = Grid::default();
    for (slot, count) in bytes.list(|bytes| Ok((slot(bytes)?, bytes.count()?)))? {
        if !grid.add(slot, count) {
            return Err(NO_SLOT);
        }
    }
    grid.zeros = bytes.count()?;
    grid.below = bytes.count()?;
    grid.above = bytes.count()?;
    let moments = read_moments(bytes)?;
    let weighted = bytes.option(|bytes| {
        let mut weighted = Weighted::default();
        for (slot, weight) in bytes.list(|bytes| Ok((slot(bytes)?, bytes.real()?)))? {
            if !weighted.add(slot, weight) {
                return Err(NO_SLOT);
            }
        }
        weighted.zeros = bytes.real()?;
        weighted.below = bytes.real()?;
        weighted.above = bytes.real()?;
        weighted.outside = bytes.count()?;
        weighted.moments = read_moments(bytes)?;
        Ok(weighted)
    })?;
    Ok(Histogram {
        grid,
        moments,
        weighted: weighted.map(Box::new),
    })
}

fn read_moments(bytes: &mut Reader<'_>) -> Read<Moments> {
    let count = bytes.count()?;
    let mut parts = [0.0; 8];
    for part in &mut parts {
        *part = bytes.real()?;
    }
    Ok(Moments::of_parts(count, parts))
}

fn read_level(bytes: &mut Reader<'_>) -> Read<Level> {
    let write = |bytes: &mut Reader<'_>| Ok((Stamp(bytes.number()?), bytes.real()?));
    let value = bytes.option(Reader::real)?;
    let absolute = bytes.option(write)?;
    let deltas = bytes.list(write)?;
    Ok(Level {
        value,
        writes: Gauge::of_writes(absolute, deltas),
        flushes_left: bytes.small()?,
        kept: bytes.flag()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn row<C: std::fmt::Debug>(cell: impl Strategy<Value = C>) -> impl Strategy<Value = Row<C>> {
        let parts = (
            ".{0,12}",
            any::<u32>(),
            0..COUNT_MAX,
            any::<u32>(),
            proptest::option::of(cell),
        );
        parts.prop_map(|(name, hits, unreported, idle, cell)| Row {
            name: name.into(),
            hits,
            unreported,
            idle,
            cell,
        })
    }

    fn some_timer() -> impl Strategy<Value = Timer> {
        let sample = (0.0..1e12f64, 0..4u32);
        (vec(sample, 0..40), 1..20usize).prop_map(|(samples, limit)| {
            let (mut timer, mut spare) = (Timer::default(), Vec::new());
            for (value, weight) in samples {
                timer.record(value, 1.5, limit, &mut spare);
                if weight > 0 {
                    timer.weigh(f64::from(weight) * 1.25);
                }
            }
            timer
        })
    }

    fn some_level() -> impl Strategy<Value = Level> {
        let writes = vec((any::<bool>(), -1e9..1e9f64), 0..20);
        let parts = (
            proptest::option::of(-1e9..1e9f64),
            writes,
            any::<u32>(),
            any::<bool>(),
        );
        parts.prop_map(|(value, writes, flushes_left, kept)| {
            let mut gauge = Gauge::default();
            for (at, (absolute, value)) in writes.into_iter().enumerate() {
                let at = Stamp(at as u64);
                if absolute {
                    gauge.set(at, value);
                } else {
                    gauge.add(at, value);
                }
            }
            Level {
                value,
                writes: gauge,
                flushes_left,
                kept,
            }
        })
    }

    fn some_carried() -> impl Strategy<Value = Carried> {
        let interval = (
            1..1u64 << 40,
            any::<bool>(),
            0..1u64 << 50,
            any::<u64>(),
            proptest::option::of(any::<i64>()),
        );
        let members = vec(vec(any::<u8>(), 0..40), 0..20);
        let members = members.prop_map(|all| all.iter().map(|it| Member::from(&it[..])).collect());
        let columns = (
            vec(row(-1e300..1e300f64), 1..6),
            vec(row(some_timer()), 0..6),
            vec(row(some_level()), 1..6),
            vec(row(members), 0..6),
        );
        let point = (
            any::<bool>(),
            any::<u32>(),
            any::<i64>(),
            -1e9..1e9f64,
            any::<u64>(),
        );
        let meters = vec((".{0,9}", 0..COUNT_MAX), 0..5);
        (interval, columns, vec(point, 0..6), meters).prop_map(
            |(interval, (counters, timers, gauges, sets), points, meters)| {
                let points = points.into_iter().map(|(gauge, row, at, value, written)| {
                    let (kind, rows) = if gauge {
                        (Kind::Gauge, gauges.len())
                    } else {
                        (Kind::Counter, counters.len())
                    };
                    Stamped {
                        kind,
                        row: row % rows as u32,
                        at,
                        point: Point {
                            value,
                            written: Stamp(written),
                        },
                    }
                });
                let (length_ms, align, start_ms, ends_ms, last_timestamp) = interval;
                Carried {
                    interval: Interval {
                        length_ms,
                        align,
                        start_ms,
                        ends_ms,
                        last_timestamp,
                    },
                    points: points.collect(),
                    counters,
                    timers,
                    gauges,
                    sets,
                    meters,
                }
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn what_is_read_is_what_was_written(carried in some_carried(), with in any::<bool>()) {
            let totals = with.then(|| Totals {
                counters: vec![("a".into(), 1e300), ("b;c=d".into(), -0.5)],
                num_stats: 7.0,
                ahead: vec![-1, 9],
            });
            let bytes = encode(&carried, totals.as_ref());
            prop_assert_eq!(decode(&bytes), Ok((carried, totals)));
        }

        #[test]
        fn cut_off_anywhere_it_is_refused(carried in some_carried(), cut in any::<prop::sample::Index>()) {
            let bytes = encode(&carried, None);
            let cut = cut.index(bytes.len());
            prop_assert!(decode(&bytes[..cut]).is_err());
            prop_assert!(decode(&[&bytes[..], &[0]].concat()).is_err());
        }

        #[test]
        fn with_any_byte_changed_it_is_read_or_refused(
            carried in some_carried(),
            changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        ) {
            let mut bytes = encode(&carried, None);
            for (at, byte) in changes {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            let _ = decode(&bytes);
        }

        #[test]
        fn anything_is_read_or_refused(bytes in vec(any::<u8>(), 0..600)) {
            let _ = decode(&bytes);
        }
    }

    #[test]
    fn numbers_that_are_none_go_over_bit_by_bit() {
        let nan = Row {
            name: "n".into(),
            cell: Some(f64::NAN),
            ..Row::default()
        };
        let carried = Carried {
            counters: vec![nan],
            interval: Interval {
                length_ms: 1,
                ..Interval::default()
            },
            ..Carried::default()
        };
        let (read, _) = decode(&encode(&carried, None)).expect("whole");
        assert!(read.counters[0].cell.is_some_and(f64::is_nan));
    }

    #[test]
    fn what_would_break_whoever_merges_it_is_refused() {
        let of_timer = |timer| Carried {
            timers: vec![Row {
                cell: Some(timer),
                ..Row::default()
            }],
            interval: Interval {
                length_ms: 1,
                ..Interval::default()
            },
            ..Carried::default()
        };
        let mut histogram = Histogram::default();
        histogram.grid.zeros = COUNT_MAX + 1;
        for (timer, why) in [
            (
                Timer {
                    samples: vec![f64::NAN],
                    ..Timer::default()
                },
                "a sample of a timer is no number",
            ),
            (
                Timer {
                    samples: vec![1.0],
                    weights: vec![(1, 2.0)],
                    ..Timer::default()
                },
                "a weight has no sample",
            ),
            (
                Timer {
                    samples: vec![1.0; 2],
                    weights: vec![(1, 2.0), (0, 2.0)],
                    ..Timer::default()
                },
                "a weight has no sample",
            ),
            (
                Timer {
                    histogram: Some(Box::new(histogram)),
                    ..Timer::default()
                },
                "a count is larger than can be",
            ),
        ] {
            let refused = decode(&encode(&of_timer(timer), None));
            assert_eq!(refused, Err(Damaged(why)));
        }
        assert!(decode(&encode(&Carried::default(), None)).is_err());
    }
}
