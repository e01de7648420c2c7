//! Sums whose last digit may depend on how a name was spelled.

use super::line::{Effect, effects};
use std::collections::{BTreeMap, BTreeSet};

/// The spellings under which counters and timers were sent. The server adds each spelling up on its own, so
/// that a sum over two of them may differ from the original's in the last digit.
#[derive(Debug, Default)]
pub(crate) struct Spellings(BTreeMap<(bool, String), BTreeSet<Vec<u8>>>);

impl Spellings {
    /// Takes note of a datagram, and says whether one of its names now has two spellings.
    pub(crate) fn clash(&mut self, datagram: &[u8], sanitize: bool) -> bool {
        let mut clash = false;
        for line in datagram
            .split(|&byte| byte == b'\n')
            .filter(|line| !line.is_empty())
        {
            let name = line.split(|&byte| byte == b':').next().unwrap_or(b"");
            let tags = line
                .windows(2)
                .position(|pair| pair == b"|#")
                .map_or(&line[..0], |at| &line[at..]);
            for effect in effects(line, sanitize) {
                let key = match effect {
                    Effect::Count { key, .. } => (true, key),
                    Effect::Time { key, .. } => (false, key),
                    _ => continue,
                };
                let spellings = self.0.entry(key).or_default();
                spellings.insert([name, b"\n", tags].concat());
                clash |= spellings.len() > 1;
            }
        }
        clash
    }
}
