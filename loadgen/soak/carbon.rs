//! The healthy backend: a carbon that adds up every flush it gets.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use anyhow::Context as _;

/// What came so far.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sums {
    /// Connections, which are flushes.
    pub(crate) flushes: u64,
    /// By name: counts of counters, and the server's own meters as `statsd_fast.NAME`. Series of one name
    /// together, whatever their tags.
    values: HashMap<String, f64>,
    /// The first thing that was wrong.
    pub(crate) fault: Option<String>,
}

impl Sums {
    pub(crate) fn of(&self, name: &str) -> u64 {
        self.values.get(name).map_or(0, |sum| sum.round() as u64)
    }

    pub(super) fn take(&mut self, line: &str) -> Option<()> {
        let mut fields = line.rsplitn(3, ' ');
        let (_time, value) = (fields.next()?, fields.next()?);
        let name = fields.next()?;
        let value: f64 = value.parse().ok()?;
        let kept = match name.strip_prefix("stats_counts.") {
            Some(counter) => counter.split(';').next()?,
            None => name
                .strip_prefix("stats.")
                .filter(|own| own.starts_with("statsd_fast."))
                .unwrap_or_default(),
        };
        // Names that are drawn anew each time would fill this memory.
        if kept.starts_with("soak.") && !kept.contains(".fresh") || kept.starts_with("statsd_fast.")
        {
            *self.values.entry(kept.to_owned()).or_default() += value;
        }
        Some(())
    }
}

/// A running one.
#[derive(Debug)]
pub(crate) struct Carbon {
    address: SocketAddr,
    sums: Arc<Mutex<Sums>>,
    end: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Carbon {
    pub(crate) fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").context("no port for a carbon")?;
        let address = listener.local_addr()?;
        let (sums, end) = (Arc::<Mutex<Sums>>::default(), Arc::<AtomicBool>::default());
        let (into, ended) = (sums.clone(), end.clone());
        let thread = thread::spawn(move || {
            for connection in listener.incoming() {
                if ended.load(Ordering::Relaxed) {
                    return;
                }
                let read = connection.map(|connection| read(connection, &into));
                if let Err(error) = read.and_then(|read| read) {
                    let mut sums = into.lock().unwrap_or_else(PoisonError::into_inner);
                    let fault = || format!("a connection of the healthy backend broke: {error}");
                    sums.fault.get_or_insert_with(fault);
                }
            }
        });
        Ok(Self {
            address,
            sums,
            end,
            thread,
        })
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// Ends it; everything that came.
    pub(crate) fn finish(self) -> Sums {
        self.end.store(true, Ordering::Relaxed);
        // Wakes it. An error: it has ended.
        let _ = TcpStream::connect(self.address);
        let _ = self.thread.join();
        let sums = self.sums.lock().unwrap_or_else(PoisonError::into_inner);
        sums.clone()
    }
}

fn read(connection: TcpStream, into: &Mutex<Sums>) -> std::io::Result<()> {
    let lines: Vec<_> = BufReader::new(connection)
        .lines()
        .collect::<Result<_, _>>()?;
    let mut sums = into.lock().unwrap_or_else(PoisonError::into_inner);
    sums.flushes += 1;
    for line in lines {
        if sums.take(&line).is_none() {
            let fault = || format!("the healthy backend got a line that is none: {line:?}");
            sums.fault.get_or_insert_with(fault);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flushes_add_up_by_name() {
        let mut sums = Sums::default();
        for line in [
            "stats_counts.soak.a.v 2 1",
            "stats_counts.soak.a.v;x=1 3 2",
            "stats.soak.a.v 0.5 2",
            "stats.statsd_fast.packets 7 2",
            "stats_counts.soak.names.fresh1 1 2",
        ] {
            assert_eq!(sums.take(line), Some(()), "{line}");
        }
        assert_eq!(sums.of("soak.a.v"), 5);
        assert_eq!(sums.of("statsd_fast.packets"), 7);
        assert_eq!(sums.values.len(), 2);
        assert_eq!(sums.take("stats.a"), None);
        assert_eq!(sums.take("stats.a x 1"), None);
    }
}
