//! What the flusher says in the log, each thing at most once a minute.

use crate::metric::harvest::Tally;
use crate::metric::sample::Reject;
use crate::runtime::clock::monotonic_ms;
use crate::runtime::rate_limit::RateLimit;
use std::time::Duration;

/// One line a minute for each thing a sender can provoke.
#[derive(Debug, Default)]
pub(super) struct Limits {
    bad_line: RateLimit,
    drops: RateLimit,
    cut: RateLimit,
    late: RateLimit,
}

impl Limits {
    /// Says what went wrong in an interval.
    pub(super) fn interval(&self, tally: &Tally) {
        let now_ms = monotonic_ms();
        if let Some((reason, line)) = &tally.offender
            && let Some(suppressed) = self.bad_line.pass(now_ms)
        {
            log::warn!("{}", bad_line(tally, *reason, line, suppressed));
        }
        if tally.kernel_drops > 0
            && let Some(suppressed) = self.drops.pass(now_ms)
        {
            log::warn!(
                "the kernel dropped {} datagrams in this interval because a receive buffer was full; \
                 likely cause: a burst, or too few workers; raise `receiveBuffer` or `threads` \
                 (the start-up lines say how){}",
                tally.kernel_drops,
                and_suppressed(suppressed)
            );
        }
        if tally.truncated > 0
            && let Some(suppressed) = self.cut.pass(now_ms)
        {
            log::warn!(
                "{} datagrams of this interval were longer than `maxDatagram`: their last lines are lost; \
                 let clients pack less, or raise it{}",
                tally.truncated,
                and_suppressed(suppressed)
            );
        }
    }

    /// Says that workers did not answer a tick.
    pub(super) fn workers_late(&self, missing: usize, of: usize, waited: Duration) {
        if let Some(suppressed) = self.late.pass(monotonic_ms()) {
            log::warn!(
                "{missing} of {of} workers did not answer within {} s; what they hold comes with the next \
                 flush. Likely cause: the machine is overloaded or the process was stopped{}",
                waited.as_secs(),
                and_suppressed(suppressed)
            );
        }
    }
}

fn bad_line(tally: &Tally, reason: Reject, line: &[u8], suppressed: u64) -> String {
    format!(
        "bad values in this interval: {}, the first: {:?} ({}: {}){}",
        tally.rejected_total(),
        String::from_utf8_lossy(line),
        reason.name(),
        reason.hint(),
        and_suppressed(suppressed)
    )
}

fn and_suppressed(suppressed: u64) -> String {
    if suppressed == 0 {
        String::new()
    } else {
        format!(" [{suppressed} such reports were not shown]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_line_is_shown_with_its_reason_and_the_way_out() {
        let mut tally = Tally::default();
        tally.reject(Reject::NoType, b"a:1\xff");
        tally.reject(Reject::BadRate, b"b:1|c|@");
        assert_eq!(
            bad_line(&tally, Reject::NoType, b"a:1", 3),
            "bad values in this interval: 2, the first: \"a:1\" (no-type: write name:value|type, for \
             example hits:1|c) [3 such reports were not shown]"
        );
    }
}
