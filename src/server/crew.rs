//! The workers' threads: started, and started again where a takeover came to nothing.

use super::{Alarm, pin, spawn};
use crate::ingest::source::AnySource;
use crate::ingest::{self, Link, table::Table};
use crate::metric::registry::Registry;
use crate::runtime::stop::{Ending, Stop};
use core_affinity::CoreId;
use std::sync::Arc;
use std::thread::JoinHandle;

/// What workers are started with.
#[derive(Debug)]
pub(super) struct Crew {
    pub(super) link: Link,
    pub(super) registry: Arc<Registry>,
    pub(super) cores: Vec<CoreId>,
    pub(super) pinned: bool,
    pub(super) alarm: Alarm,
    /// The number of each worker's listener.
    pub(super) listeners: Vec<usize>,
    /// One for each listener.
    pub(super) stops: Vec<Stop>,
}

impl Crew {
    /// Tells the workers of each listener to stop, and how to end.
    pub(super) fn stop(&self, ending: impl Fn(usize) -> Ending) {
        for (listener, stop) in self.stops.iter().enumerate() {
            stop.end(ending(listener));
        }
    }

    /// Starts a worker for each source; what was ordered before no longer counts.
    pub(super) fn launch(
        &mut self,
        sources: Vec<AnySource>,
        options: &ingest::Options,
    ) -> anyhow::Result<Vec<JoinHandle<AnySource>>> {
        self.stops.fill_with(Stop::default);
        let mut workers = Vec::with_capacity(sources.len());
        for (worker, source) in sources.into_iter().enumerate() {
            let table = Table::new(options, self.registry.clone());
            let link = Link {
                stop: self.stops[self.listeners[worker]].clone(),
                ..self.link.clone()
            };
            let core = self.pinned.then(|| self.cores[worker % self.cores.len()]);
            workers.push(spawn(
                format!("ingest-{worker}"),
                self.alarm.clone(),
                move || {
                    pin(worker, core);
                    ingest::run(worker, source, table, &link)
                },
            )?);
        }
        Ok(workers)
    }
}
