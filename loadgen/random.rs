//! Seeded randomness: the same seed gives the same numbers on every run.

use std::str::FromStr;

/// xoshiro256++ 1.0 by David Blackman and Sebastiano Vigna (public domain,
/// <https://prng.di.unimi.it/xoshiro256plusplus.c>), seeded by splitmix64 as its authors advise.
#[derive(Debug, Clone)]
pub(crate) struct Random {
    state: [u64; 4],
}

/// splitmix64 by Sebastiano Vigna (public domain, <https://prng.di.unimi.it/splitmix64.c>).
fn splitmix64(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

impl Random {
    /// The generator of one flow: flows of one seed draw unrelated numbers.
    pub(crate) fn new(seed: u64, flow: u64) -> Self {
        let mut mixer = seed;
        let mut flow_mixer = splitmix64(&mut mixer) ^ flow;
        Self {
            state: std::array::from_fn(|_| splitmix64(&mut flow_mixer)),
        }
    }

    pub(crate) fn next(&mut self) -> u64 {
        let state = &mut self.state;
        let result = state[0]
            .wrapping_add(state[3])
            .rotate_left(23)
            .wrapping_add(state[0]);
        let shifted = state[1] << 17;
        state[2] ^= state[0];
        state[3] ^= state[1];
        state[1] ^= state[2];
        state[0] ^= state[3];
        state[2] ^= shifted;
        state[3] = state[3].rotate_left(45);
        result
    }

    /// A number in `0..bound`; its bias, under `bound` / 2^64, is nothing to a load.
    pub(crate) fn below(&mut self, bound: u32) -> u32 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u32
    }

    /// A number in `0.0..1.0`, with 53 random bits.
    pub(crate) fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// How often each name is drawn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Distribution {
    /// All names alike.
    Uniform,
    /// The name of rank `r` (from 1) with weight `r^-exponent`: few hot names and a long tail.
    Zipf(f64),
}

impl FromStr for Distribution {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (kind, exponent) = text.split_once(':').unwrap_or((text, "1"));
        match (kind, exponent.parse::<f64>()) {
            ("uniform", _) if kind == text => Ok(Self::Uniform),
            ("zipf", Ok(exponent)) if exponent > 0.0 && exponent <= 10.0 => {
                Ok(Self::Zipf(exponent))
            }
            ("zipf", _) => Err(format!(
                "`{exponent}` is no exponent: above 0, at most 10, e.g. zipf:1.1"
            )),
            _ => Err("expected `uniform`, `zipf` or `zipf:EXPONENT`".into()),
        }
    }
}

impl std::fmt::Display for Distribution {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Uniform => formatter.write_str("uniform"),
            Self::Zipf(exponent) => write!(formatter, "zipf:{exponent}"),
        }
    }
}

/// Draws name numbers in `0..names`, by one distribution.
#[derive(Debug)]
pub(crate) struct Names {
    names: u32,
    /// Zipf only: `cumulative[i]` is the share of the names `0..=i`.
    cumulative: Vec<f64>,
}

impl Names {
    pub(crate) fn new(names: u32, distribution: Distribution) -> Self {
        let mut cumulative = Vec::new();
        if let Distribution::Zipf(exponent) = distribution {
            let mut sum = 0.0;
            cumulative.extend((1..=names).map(|rank| {
                sum += f64::from(rank).powf(-exponent);
                sum
            }));
            for share in &mut cumulative {
                *share /= sum;
            }
        }
        Self { names, cumulative }
    }

    pub(crate) fn draw(&self, random: &mut Random) -> u32 {
        if self.cumulative.is_empty() {
            return random.below(self.names);
        }
        let point = random.unit();
        // The last share may fall short of 1.0 by rounding.
        (self.cumulative.partition_point(|share| *share <= point) as u32).min(self.names - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splitmix64_gives_its_published_first_numbers() {
        let mut state = 1_234_567;
        assert_eq!(splitmix64(&mut state), 6_457_827_717_110_365_317);
        assert_eq!(splitmix64(&mut state), 3_203_168_211_198_807_973);
    }

    #[test]
    fn xoshiro_gives_the_numbers_worked_out_by_hand() {
        let mut random = Random {
            state: [1, 2, 3, 4],
        };
        assert_eq!(random.next(), 41_943_041);
        assert_eq!(random.next(), 58_720_359);
    }

    #[test]
    fn a_seed_and_a_flow_fix_the_numbers() {
        let draw = |seed, flow| {
            let mut random = Random::new(seed, flow);
            [random.next(), random.next()]
        };
        assert_eq!(draw(1, 0), draw(1, 0));
        assert_ne!(draw(1, 0), draw(1, 1));
        assert_ne!(draw(1, 0), draw(2, 0));
    }

    #[test]
    fn distributions_are_read_or_refused() {
        assert_eq!("uniform".parse(), Ok(Distribution::Uniform));
        assert_eq!("zipf".parse(), Ok(Distribution::Zipf(1.0)));
        assert_eq!("zipf:1.5".parse(), Ok(Distribution::Zipf(1.5)));
        for wrong in [
            "",
            "normal",
            "uniform:1",
            "zipf:",
            "zipf:0",
            "zipf:-1",
            "zipf:nan",
            "zipf:11",
        ] {
            assert!(wrong.parse::<Distribution>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn uniform_draws_every_name_about_equally() {
        let names = Names::new(10, Distribution::Uniform);
        let mut random = Random::new(7, 0);
        let mut drawn = [0_u32; 10];
        for _ in 0..100_000 {
            drawn[names.draw(&mut random) as usize] += 1;
        }
        assert!(
            drawn.iter().all(|count| (9_500..10_500).contains(count)),
            "{drawn:?}"
        );
    }

    #[test]
    fn zipf_draws_by_rank() {
        let names = Names::new(1000, Distribution::Zipf(1.0));
        let mut random = Random::new(7, 0);
        let mut drawn = vec![0_u32; 1000];
        for _ in 0..1_000_000 {
            drawn[names.draw(&mut random) as usize] += 1;
        }
        // H(1000) = 7.485: rank 1 is 13.36 % of all, rank 2 half of it, rank 10 a tenth.
        assert!((132_000..135_200).contains(&drawn[0]), "{}", drawn[0]);
        assert!((65_800..67_800).contains(&drawn[1]), "{}", drawn[1]);
        assert!((12_900..13_800).contains(&drawn[9]), "{}", drawn[9]);
    }
}
