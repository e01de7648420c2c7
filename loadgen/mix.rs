//! The types of metrics, and how much of each there is.

use std::str::FromStr;

use crate::random::Random;

/// The four types, in the order of every table and tally.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Counter,
    Timer,
    Gauge,
    Set,
}

impl Kind {
    pub(crate) const ALL: [Self; 4] = [Self::Counter, Self::Timer, Self::Gauge, Self::Set];

    /// The type as the protocol writes it; it is a part of the names of that type too.
    pub(crate) const fn symbol(self) -> &'static str {
        match self {
            Self::Counter => "c",
            Self::Timer => "ms",
            Self::Gauge => "g",
            Self::Set => "s",
        }
    }
}

/// The share of each type, by weight; zero leaves a type out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mix {
    /// By [`Kind`].
    weights: [u32; 4],
}

impl Mix {
    pub(crate) fn draw(self, random: &mut Random) -> Kind {
        let mut point = random.below(self.weights.iter().sum());
        for kind in Kind::ALL {
            let weight = self.weights[kind as usize];
            if point < weight {
                return kind;
            }
            point -= weight;
        }
        unreachable!("the point is below the sum of the weights")
    }

    pub(crate) fn kinds(self) -> impl Iterator<Item = Kind> {
        Kind::ALL
            .into_iter()
            .filter(move |kind| self.weights[*kind as usize] > 0)
    }
}

impl FromStr for Mix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut weights = [None; 4];
        for share in text.split(',') {
            let (symbol, weight) = share.split_once(':').unwrap_or((share, "1"));
            let kind = Kind::ALL
                .into_iter()
                .find(|kind| kind.symbol() == symbol)
                .ok_or_else(|| format!("`{symbol}` is no type; known are c, ms, g and s"))?;
            let weight = weight
                .parse::<u32>()
                .ok()
                .filter(|weight| *weight <= 1_000_000)
                .ok_or_else(|| format!("`{weight}` is no weight; whole numbers up to 1000000"))?;
            if weights[kind as usize].replace(weight).is_some() {
                return Err(format!("`{symbol}` is there twice"));
            }
        }
        let weights = weights.map(Option::unwrap_or_default);
        if weights == [0; 4] {
            return Err("all weights are 0: nothing would be sent".into());
        }
        Ok(Self { weights })
    }
}

impl std::fmt::Display for Mix {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, kind) in self.kinds().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(
                formatter,
                "{comma}{}:{}",
                kind.symbol(),
                self.weights[kind as usize]
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mixes_are_read_and_written_back() {
        for (given, written) in [
            ("c:60,ms:25,g:10,s:5", "c:60,ms:25,g:10,s:5"),
            ("s:5,c:1", "c:1,s:5"),
            ("c", "c:1"),
            ("c:0,g:2", "g:2"),
        ] {
            assert_eq!(given.parse::<Mix>().unwrap().to_string(), written);
        }
    }

    #[test]
    fn wrong_mixes_are_refused_with_the_reason() {
        for (given, reason) in [
            ("", "`` is no type"),
            ("x:1", "`x` is no type"),
            ("c:one", "`one` is no weight"),
            ("c:-1", "`-1` is no weight"),
            ("c:1000001", "`1000001` is no weight"),
            ("c:1,c:2", "`c` is there twice"),
            ("c:0,ms:0", "all weights are 0"),
        ] {
            let error = given.parse::<Mix>().unwrap_err();
            assert!(error.starts_with(reason), "{given}: {error}");
        }
    }
}
