//! What a process holds, as the kernel tells: memory, descriptors, threads.

use std::fs;

use anyhow::Context as _;

/// At one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Vitals {
    /// Resident memory, in KiB.
    pub(crate) rss_kib: u64,
    pub(crate) descriptors: usize,
    pub(crate) threads: usize,
}

impl Vitals {
    /// Of a process.
    ///
    /// # Errors
    /// When it has ended.
    pub(crate) fn of(process: u32) -> anyhow::Result<Self> {
        let gone = || format!("process {process} is gone");
        let status = fs::read_to_string(format!("/proc/{process}/status")).with_context(gone)?;
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().next()?.parse::<u64>().ok()
        };
        let open = fs::read_dir(format!("/proc/{process}/fd")).with_context(gone)?;
        Ok(Self {
            rss_kib: field("VmRSS:").with_context(gone)?,
            descriptors: open.count(),
            threads: field("Threads:").with_context(gone)? as usize,
        })
    }
}

/// Resident memory over a run.
#[derive(Debug, Clone, Default)]
pub(crate) struct Memory(Vec<u64>);

impl Memory {
    pub(crate) fn note(&mut self, rss_kib: u64) {
        self.0.push(rss_kib);
    }

    /// The medians of the second quarter, when all has been seen often, and of the last, in KiB: what an
    /// allocator holds on to goes up and down by a few percent.
    pub(crate) fn early_and_late(&self) -> (u64, u64) {
        let quarter = |number: usize| {
            let len = self.0.len();
            let mut samples = self.0[len * number / 4..len * (number + 1) / 4].to_vec();
            samples.sort_unstable();
            samples.get(samples.len() / 2).copied().unwrap_or(0)
        };
        (quarter(1), quarter(3))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory_descriptors_and_threads() {
        let before = Vitals::of(std::process::id()).unwrap();
        assert!(before.rss_kib > 100 && before.threads > 0);
        let file = fs::File::open("/proc/self/status").unwrap();
        assert!(Vitals::of(std::process::id()).unwrap().descriptors > 0);
        drop(file);
        assert!(Vitals::of(u32::MAX).is_err());
    }

    #[test]
    fn what_grows_late_is_told_from_what_grows_early() {
        let memory = |samples: &[u64]| Memory(samples.to_vec()).early_and_late();
        assert_eq!(memory(&[1, 2, 9, 9, 9, 9, 9, 9]), (9, 9));
        assert_eq!(memory(&[1, 2, 3, 4, 5, 6, 7, 8]), (4, 8));
        assert_eq!(memory(&[]), (0, 0));
    }
}
