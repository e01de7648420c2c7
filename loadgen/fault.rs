//! Bad lines, of every kind that a server refuses.

/// What is wrong with a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    NoType,
    BadRate,
    EmptyValue,
    NotANumber,
    NegativeTimer,
}

impl Fault {
    pub(crate) const ALL: [Self; 5] = [
        Self::NoType,
        Self::BadRate,
        Self::EmptyValue,
        Self::NotANumber,
        Self::NegativeTimer,
    ];

    /// The name of the reason.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::NoType => "no_type",
            Self::BadRate => "bad_rate",
            Self::EmptyValue => "empty_value",
            Self::NotANumber => "not_a_number",
            Self::NegativeTimer => "negative_timer",
        }
    }

    /// What stands behind the name.
    pub(crate) const fn rest(self) -> &'static str {
        match self {
            Self::NoType => ":1",
            Self::BadRate => ":1|c|@x",
            Self::EmptyValue => ":|c",
            Self::NotANumber => ":1x|c",
            Self::NegativeTimer => ":-1|ms",
        }
    }
}
