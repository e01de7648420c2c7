//! Whoever receives a load and counts what came, as the measurements see it.

use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use statsd_fast::runtime::sys::cpu::CpuClock;

/// What a receiver has counted since it started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Datagrams it took.
    pub(crate) datagrams: u64,
    /// Datagrams the kernel dropped in front of it.
    pub(crate) dropped: u64,
    /// Values it took out of them; `None` when it does not look.
    pub(crate) values: Option<u64>,
    /// Values it refused.
    pub(crate) refused: u64,
}

/// A sink, or a server with an admin interface.
pub(crate) trait Receiver {
    /// Where to send to.
    fn address(&self) -> SocketAddr;

    /// What it has counted by now.
    fn counts(&mut self) -> anyhow::Result<Counts>;

    /// The clock of its CPU time; `None` when it runs elsewhere.
    fn cpu(&self) -> Option<CpuClock>;
}

/// Time between two looks at the counts.
const LOOK: Duration = Duration::from_millis(20);

/// Looks without any change after which nothing more is expected: half a second.
const PATIENCE: u32 = 25;

impl Counts {
    /// Datagrams that came as far as the receiver's socket.
    fn arrived(&self) -> u64 {
        self.datagrams + self.dropped
    }

    /// What was counted since `before`.
    pub(crate) fn since(&self, before: &Self) -> Self {
        let values = self.values.zip(before.values);
        Self {
            datagrams: self.datagrams.saturating_sub(before.datagrams),
            dropped: self.dropped.saturating_sub(before.dropped),
            values: values.map(|(now, before)| now.saturating_sub(before)),
            refused: self.refused.saturating_sub(before.refused),
        }
    }
}

/// Waits until so many `datagrams` more than `before` have come, or until no more do.
pub(crate) fn settled(
    receiver: &mut impl Receiver,
    before: &Counts,
    datagrams: u64,
) -> anyhow::Result<Counts> {
    let mut counts = receiver.counts()?;
    let mut unchanged = 0;
    while counts.since(before).arrived() < datagrams && unchanged < PATIENCE {
        thread::sleep(LOOK);
        let now = receiver.counts()?;
        unchanged = if now == counts { unchanged + 1 } else { 0 };
        counts = now;
    }
    Ok(counts)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shows one count after the other, and stays with the last.
    struct Script(Vec<u64>);

    impl Receiver for Script {
        fn address(&self) -> SocketAddr {
            unreachable!("nothing is sent")
        }

        fn counts(&mut self) -> anyhow::Result<Counts> {
            let datagrams = self.0[0];
            if self.0.len() > 1 {
                self.0.remove(0);
            }
            Ok(Counts {
                datagrams,
                dropped: 1,
                ..Counts::default()
            })
        }

        fn cpu(&self) -> Option<CpuClock> {
            None
        }
    }

    #[test]
    fn it_waits_for_what_is_on_its_way_and_not_for_what_is_lost() {
        let before = Counts {
            datagrams: 5,
            ..Counts::default()
        };
        let wait = |script: &[u64]| {
            let settled = settled(&mut Script(script.to_vec()), &before, 10);
            settled.unwrap().since(&before).datagrams
        };
        assert_eq!(wait(&[14, 99]), 9);
        assert_eq!(wait(&[5, 5, 9, 9, 14, 99]), 9);
        assert_eq!(wait(&[5, 12]), 7);
    }
}
