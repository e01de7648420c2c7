//! What is sent: the names and values of the metrics, and the lines they make.

use std::io::Write as _;

use crate::fault::Fault;
use crate::mix::{Kind, Mix};
use crate::random::{Distribution, Names, Random};

/// When a datagram is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Packing {
    /// As many lines as fit into so many bytes.
    Bytes(usize),
    /// So many lines.
    Metrics(usize),
}

/// Everything that decides the bytes; with the number of flows and the ring size, all of it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Shape {
    pub(crate) seed: u64,
    pub(crate) mix: Mix,
    /// Names of each type.
    pub(crate) names: u32,
    pub(crate) distribution: Distribution,
    pub(crate) packing: Packing,
    pub(crate) prefix: String,
    /// As it is to be written after `|@`, on counters and timers.
    pub(crate) sample_rate: Option<String>,
    /// DogStatsD tags on each line.
    pub(crate) tags: u32,
    /// Percent of the lines that are bad.
    pub(crate) malformed: u32,
    /// Percent of the gauges that are `+n` or `-n`.
    pub(crate) gauge_deltas: u32,
    /// Members a set name draws from.
    pub(crate) set_members: u32,
}

/// Longest payload of a UDP datagram over IPv4.
pub(crate) const MAX_DATAGRAM: usize = 65_507;

impl Shape {
    /// Digits every name number is padded to.
    fn name_width(&self) -> usize {
        decimal_digits(self.names - 1).max(6)
    }

    /// Length no line exceeds, in bytes.
    pub(crate) fn longest_line(&self) -> usize {
        self.line_lengths().1
    }

    /// Lengths of the shortest and the longest line there can be, in bytes.
    fn line_lengths(&self) -> (usize, usize) {
        let good = self.mix.kinds().map(|kind| {
            let name = self.prefix.len() + 2 + kind.symbol().len() + self.name_width();
            let (shortest, longest) = match kind {
                Kind::Counter => (1, 1),
                Kind::Timer => (1 + 4, decimal_digits(MAX_TIMER_US / 1000) + 4),
                Kind::Gauge if self.gauge_deltas == 100 => (2, 2),
                Kind::Gauge => (1, 3),
                Kind::Set => (2, 1 + decimal_digits(self.set_members - 1)),
            };
            let rate = match kind {
                Kind::Counter | Kind::Timer => {
                    self.sample_rate.as_ref().map_or(0, |rate| rate.len() + 2)
                }
                Kind::Gauge | Kind::Set => 0,
            };
            let rest = name + 1 + 1 + kind.symbol().len() + rate + self.tags_length();
            (rest + shortest, rest + longest)
        });
        let bad = Fault::ALL
            .iter()
            .filter(|_| self.malformed > 0)
            .map(|fault| {
                let length = self.prefix.len() + BAD.len() + self.name_width() + fault.rest().len();
                (length, length)
            });
        let widen = |(shortest, longest): (usize, usize), (short, long)| {
            (shortest.min(short), longest.max(long))
        };
        good.chain(bad).reduce(widen).unwrap_or_default()
    }

    fn tags_length(&self) -> usize {
        // ",t0:v0", the first comma being "#" instead, and one more for "|".
        let tags = (0..self.tags)
            .map(|tag| 5 + decimal_digits(tag))
            .sum::<usize>();
        tags + usize::from(self.tags > 0)
    }

    /// Says why datagrams of this shape are not all of one size.
    pub(crate) fn check_equal_sizes(&self) -> Result<(), String> {
        let (shortest, longest) = self.line_lengths();
        if shortest == longest {
            return Ok(());
        }
        Err(format!(
            "--gso: the kernel cuts datagrams of one size, and lines of this shape take {shortest} \
             to {longest} bytes; use --mix c without --malformed"
        ))
    }

    /// Says why no datagram could be filled as asked.
    pub(crate) fn check(&self) -> Result<(), String> {
        let line = self.longest_line();
        match self.packing {
            Packing::Bytes(bytes) if bytes < line => Err(format!(
                "--datagram-bytes {bytes}: one line of this shape takes up to {line} bytes; \
                 allow that many, or shorten --name-prefix or --tags"
            )),
            Packing::Bytes(bytes) if bytes > MAX_DATAGRAM => Err(format!(
                "--datagram-bytes {bytes}: a UDP datagram carries at most {MAX_DATAGRAM} bytes"
            )),
            Packing::Metrics(metrics) if metrics.saturating_mul(line + 1) > MAX_DATAGRAM + 1 => {
                Err(format!(
                    "--metrics-per-datagram {metrics}: lines of this shape take up to {line} \
                     bytes, and a UDP datagram carries at most {MAX_DATAGRAM}: at most {} fit",
                    (MAX_DATAGRAM + 1) / (line + 1)
                ))
            }
            _ => Ok(()),
        }
    }
}

fn decimal_digits(number: u32) -> usize {
    number.checked_ilog10().unwrap_or_default() as usize + 1
}

/// Timers are whole microseconds, exponential with this mean, from 1 us up to the maximum.
const MEAN_TIMER_US: f64 = 100_000.0;
const MAX_TIMER_US: u32 = 60_000_000;

/// Stands between the prefix and the number in the names of bad lines.
const BAD: &str = ".bad.";

/// What one line says besides its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Value {
    /// 1 to 9.
    Counter(u32),
    /// In microseconds; written in milliseconds with three decimals.
    Timer(u32),
    /// An absolute value, 0 to 999.
    Gauge(u32),
    /// A signed difference, 1 to 9 either way.
    GaugeDelta(i32),
    /// The number of the member.
    Set(u32),
    /// Nothing a server could take.
    Malformed(Fault),
}

impl Value {
    /// The type; `None` of a bad line.
    pub(crate) const fn kind(self) -> Option<Kind> {
        match self {
            Self::Counter(_) => Some(Kind::Counter),
            Self::Timer(_) => Some(Kind::Timer),
            Self::Gauge(_) | Self::GaugeDelta(_) => Some(Kind::Gauge),
            Self::Set(_) => Some(Kind::Set),
            Self::Malformed(_) => None,
        }
    }
}

/// One metric before it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Metric {
    /// Number of the name among those of its type.
    pub(crate) name: u32,
    pub(crate) value: Value,
}

/// The endless sequence of one flow's metrics, cut into datagrams.
#[derive(Debug)]
pub(crate) struct Generator<'a> {
    shape: &'a Shape,
    names: &'a Names,
    random: Random,
    /// Drawn for the last datagram, but there was no room.
    pending: Option<Metric>,
}

impl<'a> Generator<'a> {
    pub(crate) fn new(shape: &'a Shape, names: &'a Names, flow: u64) -> Self {
        Self {
            shape,
            names,
            random: Random::new(shape.seed, flow),
            pending: None,
        }
    }

    /// Appends one datagram of at most `limit` metrics to `out` and tells each of them to `each`.
    ///
    /// A smaller limit makes a prefix of what a larger one makes.
    pub(crate) fn datagram(&mut self, limit: u64, out: &mut Vec<u8>, mut each: impl FnMut(Metric)) {
        let start = out.len();
        let (bytes, metrics) = match self.shape.packing {
            Packing::Bytes(bytes) => (bytes, u64::MAX),
            Packing::Metrics(metrics) => (usize::MAX, metrics as u64),
        };
        for index in 0..limit.min(metrics) {
            let metric = self.pending.take().unwrap_or_else(|| self.draw());
            let end = out.len();
            if index > 0 {
                out.push(b'\n');
            }
            self.write(metric, out);
            if out.len() - start > bytes {
                out.truncate(end);
                self.pending = Some(metric);
                return;
            }
            each(metric);
        }
    }

    fn draw(&mut self) -> Metric {
        let random = &mut self.random;
        // Without bad lines nothing is drawn for them, so the good ones do not depend on this.
        if self.shape.malformed > 0 && random.below(100) < self.shape.malformed {
            let fault = Fault::ALL[random.below(Fault::ALL.len() as u32) as usize];
            return Metric {
                name: self.names.draw(random),
                value: Value::Malformed(fault),
            };
        }
        let kind = self.shape.mix.draw(random);
        let name = self.names.draw(random);
        let value = match kind {
            Kind::Counter => Value::Counter(1 + random.below(9)),
            Kind::Timer => {
                let microseconds = -(1.0 - random.unit()).ln() * MEAN_TIMER_US;
                Value::Timer((microseconds as u32).clamp(1, MAX_TIMER_US))
            }
            Kind::Gauge if random.below(100) < self.shape.gauge_deltas => {
                let size = 1 + random.below(9) as i32;
                Value::GaugeDelta(if random.below(2) == 0 { size } else { -size })
            }
            Kind::Gauge => Value::Gauge(random.below(1000)),
            Kind::Set => Value::Set(random.below(self.shape.set_members)),
        };
        Metric { name, value }
    }

    fn write(&self, metric: Metric, out: &mut Vec<u8>) {
        let Shape {
            prefix,
            sample_rate,
            ..
        } = self.shape;
        let (name, width) = (metric.name, self.shape.name_width());
        let written = match metric.value {
            Value::Counter(value) => write!(out, "{prefix}.c.{name:0width$}:{value}|c"),
            Value::Timer(us) => {
                write!(
                    out,
                    "{prefix}.ms.{name:0width$}:{}.{:03}|ms",
                    us / 1000,
                    us % 1000
                )
            }
            Value::Gauge(value) => write!(out, "{prefix}.g.{name:0width$}:{value}|g"),
            Value::GaugeDelta(delta) => write!(out, "{prefix}.g.{name:0width$}:{delta:+}|g"),
            Value::Set(member) => write!(out, "{prefix}.s.{name:0width$}:u{member}|s"),
            Value::Malformed(fault) => {
                write!(out, "{prefix}{BAD}{name:0width$}{}", fault.rest())
            }
        };
        written.unwrap_or_else(|_| unreachable!("a Vec takes all that is written"));
        let Some(kind) = metric.value.kind() else {
            return;
        };
        if let (Some(rate), Kind::Counter | Kind::Timer) = (sample_rate, kind) {
            out.extend_from_slice(b"|@");
            out.extend_from_slice(rate.as_bytes());
        }
        for tag in 0..self.shape.tags {
            out.extend_from_slice(if tag == 0 { b"|#" } else { b"," });
            // A function of the name, so that tags do not multiply the series.
            let value = (name / 10_u32.saturating_pow(tag)) % 10;
            write!(out, "t{tag}:v{value}").unwrap_or_else(|_| unreachable!("as above"));
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn shape() -> Shape {
        Shape {
            seed: 1,
            mix: "c:60,ms:25,g:10,s:5".parse().unwrap(),
            names: 100,
            distribution: Distribution::Uniform,
            packing: Packing::Bytes(1432),
            prefix: "p".into(),
            sample_rate: None,
            tags: 0,
            malformed: 0,
            gauge_deltas: 20,
            set_members: 1000,
        }
    }

    fn text(shape: &Shape, flow: u64, datagrams: usize) -> Vec<String> {
        let names = Names::new(shape.names, shape.distribution);
        let mut generator = Generator::new(shape, &names, flow);
        let mut next = || {
            let mut out = Vec::new();
            generator.datagram(u64::MAX, &mut out, |_| {});
            String::from_utf8(out).unwrap()
        };
        (0..datagrams).map(|_| next()).collect()
    }

    fn write(shape: &Shape, name: u32, value: Value) -> String {
        let names = Names::new(1, Distribution::Uniform);
        let mut out = Vec::new();
        Generator::new(shape, &names, 0).write(Metric { name, value }, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn every_kind_of_line_is_written_as_the_protocol_has_it() {
        let mut shape = shape();
        assert_eq!(write(&shape, 7, Value::Counter(3)), "p.c.000007:3|c");
        assert_eq!(
            write(&shape, 7, Value::Timer(12_034)),
            "p.ms.000007:12.034|ms"
        );
        assert_eq!(write(&shape, 7, Value::Gauge(0)), "p.g.000007:0|g");
        assert_eq!(write(&shape, 7, Value::GaugeDelta(4)), "p.g.000007:+4|g");
        assert_eq!(write(&shape, 7, Value::GaugeDelta(-4)), "p.g.000007:-4|g");
        assert_eq!(write(&shape, 7, Value::Set(12)), "p.s.000007:u12|s");
        shape.sample_rate = Some("0.25".into());
        shape.tags = 2;
        assert_eq!(
            write(&shape, 71, Value::Counter(3)),
            "p.c.000071:3|c|@0.25|#t0:v1,t1:v7"
        );
        assert_eq!(
            write(&shape, 71, Value::Timer(5)),
            "p.ms.000071:0.005|ms|@0.25|#t0:v1,t1:v7"
        );
        assert_eq!(
            write(&shape, 71, Value::Gauge(9)),
            "p.g.000071:9|g|#t0:v1,t1:v7"
        );
        shape.names = 10_000_001;
        shape.tags = 0;
        assert_eq!(write(&shape, 71, Value::Set(9)), "p.s.00000071:u9|s");
    }

    #[test]
    fn the_longest_line_is_reached_and_never_exceeded() {
        let mut shape = shape();
        shape.tags = 12;
        shape.sample_rate = Some("0.5".into());
        let longest = write(&shape, 99, Value::Timer(MAX_TIMER_US)).len();
        assert_eq!(shape.longest_line(), longest);
        shape.mix = "s".parse().unwrap();
        assert_eq!(
            shape.longest_line(),
            write(&shape, 99, Value::Set(999)).len()
        );
    }

    #[test]
    fn datagrams_are_filled_but_never_overfilled() {
        let shape = shape();
        for datagram in text(&shape, 0, 200) {
            assert!(datagram.len() <= 1432, "{}", datagram.len());
            assert!(
                datagram.len() + 1 + shape.longest_line() > 1432,
                "{}",
                datagram.len()
            );
            assert!(!datagram.ends_with('\n'));
        }
    }

    #[test]
    fn lines_are_the_same_however_they_are_packed() {
        let mut shape = shape();
        let packed = text(&shape, 0, 10).join("\n");
        shape.packing = Packing::Metrics(1);
        let single = text(&shape, 0, packed.lines().count());
        assert!(single.iter().all(|datagram| !datagram.contains('\n')));
        assert_eq!(single.join("\n"), packed);
    }

    #[test]
    fn seed_and_flow_fix_every_byte() {
        let shape = shape();
        let other_seed = Shape {
            seed: 2,
            ..shape.clone()
        };
        assert_eq!(text(&shape, 0, 20), text(&shape, 0, 20));
        assert_ne!(text(&shape, 0, 20), text(&shape, 1, 20));
        assert_ne!(text(&shape, 0, 20), text(&other_seed, 0, 20));
    }

    #[test]
    fn types_come_in_their_shares() {
        let lines = text(&shape(), 0, 2000).join("\n");
        let share = |symbol: &str| {
            let end = format!("|{symbol}");
            let count = lines.lines().filter(|line| line.ends_with(&end)).count();
            count as f64 / lines.lines().count() as f64
        };
        for (symbol, expected) in [("c", 0.60), ("ms", 0.25), ("g", 0.10), ("s", 0.05)] {
            assert!(
                (share(symbol) - expected).abs() < 0.01,
                "{symbol}: {}",
                share(symbol)
            );
        }
    }

    #[test]
    fn a_shape_that_cannot_be_packed_is_refused() {
        let with = |packing| Shape { packing, ..shape() }.check();
        let line = shape().longest_line();
        assert_eq!(with(Packing::Bytes(line)), Ok(()));
        assert!(
            with(Packing::Bytes(line - 1))
                .unwrap_err()
                .contains("one line")
        );
        assert_eq!(with(Packing::Bytes(MAX_DATAGRAM)), Ok(()));
        assert!(
            with(Packing::Bytes(MAX_DATAGRAM + 1))
                .unwrap_err()
                .contains("at most 65507 bytes")
        );
        let most = (MAX_DATAGRAM + 1) / (line + 1);
        assert_eq!(with(Packing::Metrics(most)), Ok(()));
        let error = with(Packing::Metrics(most + 1)).unwrap_err();
        assert!(error.ends_with(&format!("at most {most} fit")), "{error}");
    }

    #[test]
    fn bad_lines_come_in_their_share_and_leave_the_rest_as_it_was() {
        let bad = Shape {
            malformed: 30,
            tags: 1,
            ..shape()
        };
        let lines = text(&bad, 0, 2000).join("\n");
        let all = lines.lines().count() as f64;
        let mut share = 0.0;
        for fault in Fault::ALL {
            let of = |line: &&str| line.starts_with("p.bad.") && line.ends_with(fault.rest());
            let found = lines.lines().filter(of).count() as f64 / all;
            assert!((found - 0.06).abs() < 0.005, "{}: {found}", fault.name());
            share += found;
        }
        let named = lines.lines().filter(|line| line.starts_with("p.bad."));
        assert_eq!(named.count(), (share * all).round() as usize);
        assert_eq!(text(&bad, 0, 20), text(&bad, 0, 20));
        let none = text(&shape(), 0, 20).join("\n");
        assert!(!none.contains(".bad."));
    }

    #[test]
    fn only_lines_of_one_length_make_datagrams_of_one_size() {
        let check = |mix: &str, change: fn(&mut Shape)| {
            let mut shape = Shape {
                mix: mix.parse().unwrap(),
                ..shape()
            };
            change(&mut shape);
            let sizes: Vec<_> = text(&shape, 0, 50).iter().map(String::len).collect();
            let equal = sizes.iter().all(|size| *size == sizes[0]);
            let checked = shape.check_equal_sizes();
            assert!(equal || checked.is_err(), "{mix}: {sizes:?}");
            checked
        };
        assert_eq!(check("c", |_| {}), Ok(()));
        assert_eq!(check("c", |shape| shape.tags = 12), Ok(()));
        assert_eq!(check("g", |shape| shape.gauge_deltas = 100), Ok(()));
        assert_eq!(check("s", |shape| shape.set_members = 10), Ok(()));
        for mix in ["ms", "g", "s", "c:1,s:1"] {
            assert!(check(mix, |_| {}).is_err(), "{mix}");
        }
        let error = check("c", |shape| shape.malformed = 1).unwrap_err();
        assert!(error.contains("take 14 to 19 bytes"), "{error}");
    }
}
