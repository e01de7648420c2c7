//! How many different names and set members were sent: what a server must know of afterwards.

use crate::mix::Kind;
use crate::random::Names;
use crate::sender::Flow;
use crate::shape::{Metric, Shape, Value};

/// Different names of each type, and different members of all sets together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Distinct {
    /// By [`Kind`].
    pub(crate) names: [u64; 4],
    pub(crate) members: u64,
}

impl Distinct {
    /// Draws again what was sent; called after the run, as it takes about as long as filling the
    /// rings.
    pub(crate) fn count<W>(shape: &Shape, names: &Names, flows: &[Flow<'_, W>]) -> Self {
        let mut seen = Kind::ALL.map(|_| vec![false; shape.names as usize]);
        let mut members = Vec::new();
        for flow in flows {
            flow.replay(shape, names, |Metric { name, value }| {
                if let Some(kind) = value.kind() {
                    seen[kind as usize][name as usize] = true;
                }
                if let Value::Set(member) = value {
                    members.push((u64::from(name) << 32) | u64::from(member));
                }
            });
        }
        members.sort_unstable();
        members.dedup();
        let names = seen.map(|seen| seen.into_iter().filter(|seen| *seen).count() as u64);
        Self {
            names,
            members: members.len() as u64,
        }
    }
}
