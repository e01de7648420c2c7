//! What the server of `loadgen bench` is held against; both get the same load, by turns.

use crate::daemon::Setup;
use crate::trial::Trial;

/// Most times what a value costs one worker that it may cost several: two with a core each then take 1.8
/// times as much.
const WORKERS_GOAL: f64 = 1.11;

/// Most of what a datagram costs without `udpGro` that it may cost with it.
const GRO_GOAL: f64 = 0.1;

/// Whom the server takes turns with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Baseline {
    /// A sink that discards what it reads.
    Floor,
    /// The server with one worker, where the other has so many.
    OneWorker(u32),
    /// The server without `udpGro`, where the other has it; both are sent runs of datagrams.
    WithoutGro,
}

impl Baseline {
    /// The server to hold against it.
    pub(crate) fn server(self) -> Setup {
        let plain = Setup::default();
        match self {
            Self::Floor => plain,
            Self::OneWorker(workers) => Setup { workers, ..plain },
            Self::WithoutGro => Setup { gro: true, ..plain },
        }
    }

    /// Loads that are measured when none is named.
    pub(crate) fn rows(self) -> &'static [&'static str] {
        match self {
            Self::Floor | Self::OneWorker(_) => {
                &["counters-1k", "counters-100k", "mix-1k", "single"]
            }
            Self::WithoutGro => &["single"],
        }
    }

    /// What is compared, of a trial, in nanoseconds.
    pub(crate) fn cost(self, trial: &Trial) -> f64 {
        match self {
            Self::Floor | Self::OneWorker(_) => trial.ns_a_value(),
            Self::WithoutGro => trial.ns_a_datagram(),
        }
    }

    /// What that is the cost of.
    pub(crate) fn unit(self) -> &'static str {
        match self {
            Self::Floor | Self::OneWorker(_) => "value",
            Self::WithoutGro => "datagram",
        }
    }

    /// Most times the cost of the baseline, where that of the floor is `floor`.
    pub(crate) fn goal(self, floor: f64) -> f64 {
        match self {
            Self::Floor => floor,
            Self::OneWorker(_) => WORKERS_GOAL,
            Self::WithoutGro => GRO_GOAL,
        }
    }

    /// Its name in JSON.
    pub(crate) fn key(self) -> &'static str {
        match self {
            Self::Floor => "floor",
            Self::OneWorker(_) => "one_worker",
            Self::WithoutGro => "without_gro",
        }
    }

    /// Its name and that of the server at the head of a column.
    pub(crate) fn columns(self) -> [String; 2] {
        match self {
            Self::Floor => ["floor".into(), "server".into()],
            Self::OneWorker(workers) => ["1 worker".into(), format!("{workers} workers")],
            Self::WithoutGro => ["no GRO".into(), "GRO".into()],
        }
    }

    /// Its name in a sentence.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Floor => "the floor",
            Self::OneWorker(_) => "one worker",
            Self::WithoutGro => "no GRO",
        }
    }
}
