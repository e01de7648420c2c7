//! NOUN: one value of one line, checked, and the reasons a value is refused for.

/// The four kinds of metric. The same name may exist once in each of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Kind {
    /// Adds up over an interval.
    Counter,
    /// Collects values for percentiles.
    Timer,
    /// Keeps its last value.
    Gauge,
    /// Counts distinct members.
    Set,
}

impl Kind {
    /// Every kind, in the order the reference emits them.
    pub const ALL: [Self; 4] = [Self::Counter, Self::Timer, Self::Gauge, Self::Set];
}

/// A value that passed validation. Borrowed from the datagram; `Copy`, so that it travels in registers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value<'a> {
    /// Counter increment, the sample rate already applied: `v * (1 / r)`.
    Count(f64),
    /// Timer value and how many events it stands for (`1 / r`). The value itself is never weighted.
    Time {
        /// Milliseconds by convention; any unit the sender likes.
        value: f64,
        /// `1 / rate`; 1 without a rate.
        weight: f64,
    },
    /// Absolute gauge value.
    GaugeSet(f64),
    /// Gauge value written with a sign: added to what is there.
    GaugeAdd(f64),
    /// Set member, raw bytes as sent.
    Member(&'a [u8]),
}

impl Value<'_> {
    /// The kind of metric this value belongs to.
    #[inline]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Count(_) => Kind::Counter,
            Self::Time { .. } => Kind::Timer,
            Self::GaugeSet(_) | Self::GaugeAdd(_) => Kind::Gauge,
            Self::Member(_) => Kind::Set,
        }
    }
}

/// One value of one line: the name and tags as raw bytes of the datagram, and what to do with them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample<'a> {
    /// Everything before the first `:`, uncleaned.
    pub name: &'a [u8],
    /// The tag part after `|#`, uncleaned; empty when there is none.
    pub tags: &'a [u8],
    /// The checked value.
    pub value: Value<'a>,
}

/// Why a value was refused. Each reason has its own counter; all together are `bad_lines_seen`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Reject {
    /// No `|type` after the value, or no value at all: `a`, `a:1`, `a|c`.
    NoType,
    /// A rate field that is not `@` and a number the reference can use, such as `|@`, `|0.1`, `|@-1`,
    /// `|@Infinity`.
    BadRate,
    /// Nothing between `:` and `|` where a number is due.
    EmptyValue,
    /// A value JavaScript's `Number()` does not take.
    NotANumber,
    /// A timer below zero.
    NegativeTimer,
    /// Dialect auto: tags longer than any client sends.
    LongTags,
    /// Dialect auto: a timestamp that is not a whole number of seconds.
    BadTimestamp,
    /// Dialect auto: a timestamp further back than the bound.
    OldTimestamp,
    /// Dialect auto: a timestamp further ahead than the bound.
    FutureTimestamp,
    /// Dialect auto: `_e{` and no event, such as lengths that the line does not have.
    BadEvent,
    /// Dialect auto: `_sc|` and no service check.
    BadCheck,
}

impl Reject {
    /// Every reason, in counter order.
    pub const ALL: [Self; 11] = [
        Self::NoType,
        Self::BadRate,
        Self::EmptyValue,
        Self::NotANumber,
        Self::NegativeTimer,
        Self::LongTags,
        Self::BadTimestamp,
        Self::OldTimestamp,
        Self::FutureTimestamp,
        Self::BadEvent,
        Self::BadCheck,
    ];

    /// The reason as it stands in counters, logs and the corpus.
    pub fn name(self) -> &'static str {
        match self {
            Self::NoType => "no-type",
            Self::BadRate => "bad-rate",
            Self::EmptyValue => "empty-value",
            Self::NotANumber => "not-a-number",
            Self::NegativeTimer => "negative-timer",
            Self::LongTags => "long-tags",
            Self::BadTimestamp => "bad-timestamp",
            Self::OldTimestamp => "old-timestamp",
            Self::FutureTimestamp => "future-timestamp",
            Self::BadEvent => "bad-event",
            Self::BadCheck => "bad-check",
        }
    }

    /// What the sender most likely did, for the log.
    pub fn hint(self) -> &'static str {
        match self {
            Self::NoType => "write name:value|type, for example hits:1|c",
            Self::BadRate => "a sample rate is |@ and a decimal number, for example |@0.1",
            Self::EmptyValue => "there is no value between ':' and '|'",
            Self::NotANumber => "the value is not a number; the decimal mark is a dot",
            Self::NegativeTimer => "a timer cannot be below zero",
            Self::LongTags => "the tags of a line may have 8192 bytes; send fewer or shorter ones",
            Self::BadTimestamp => "a timestamp is |T and Unix seconds, for example |T1656581400",
            Self::OldTimestamp => {
                "the timestamp is too far back; set the sender's clock, or raise timestampMaxAge"
            }
            Self::FutureTimestamp => {
                "the timestamp is too far ahead; set the sender's clock, or raise timestampMaxAhead"
            }
            Self::BadEvent => "an event is _e{title bytes,text bytes}:title|text",
            Self::BadCheck => "a service check is _sc|name|status, the status 0 to 3",
        }
    }
}
