//! What the flusher says in the log, each thing at most once a minute.

use super::growth::Growing;
use crate::metric::harvest::Tally;
use crate::metric::registry::Fold;
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
    folded: RateLimit,
    crowd: RateLimit,
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

    /// Says of an interval that names and members found no room, and under which prefix most names came.
    pub(super) fn folded(&self, tally: &Tally, growth: &Growing) {
        let now_ms = monotonic_ms();
        if tally.folded_total() > 0
            && let Some(suppressed) = self.folded.pass(now_ms)
        {
            let prefix = growth.culprit().map(|(prefix, _)| prefix);
            log::warn!(
                "{}{}",
                folded(tally, prefix.as_deref()),
                and_suppressed(suppressed)
            );
        }
        if tally.no_room_total() > 0
            && let Some(suppressed) = self.crowd.pass(now_ms)
        {
            log::warn!(
                "in this interval {} set members and {} values with timestamps found no room and are lost; \
                 `maxSetMembers` and `memoryLimit` say how much there is, and `top` in the admin interface \
                 which names are busy{}",
                tally.members_dropped,
                tally.stamped_dropped,
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

fn folded(tally: &Tally, prefix: Option<&str>) -> String {
    let reasons = Fold::ALL.into_iter().zip(tally.folded);
    let reasons = reasons.filter(|(_, values)| *values > 0);
    let limits: Vec<_> = reasons.map(|(fold, _)| fold.setting()).collect();
    let under = match prefix {
        Some(prefix) if !prefix.is_empty() => format!("most names that came begin with {prefix:?}"),
        _ => "their names have no beginning in common".into(),
    };
    format!(
        "{} values of new names went into statsd_fast.overflow.* in this interval, past the limit of {}; \
         {under}. Take what is different in each name out of it, drop such names with `mappings`, or raise \
         the limit; `top prefixes` in the admin interface tells more",
        tally.folded_total(),
        limits.join(" and ")
    )
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
    fn what_was_folded_is_said_with_the_limit_and_the_prefix() {
        let tally = Tally {
            folded: [7, 0, 2],
            ..Tally::default()
        };
        let said = folded(&tally, Some("app.users."));
        let begin = "9 values of new names went into statsd_fast.overflow.* in this interval, past the limit \
                     of maxNames and memoryLimit; most names that came begin with \"app.users.\". Take";
        assert!(said.starts_with(begin), "{said}");
        let said = folded(&tally, Some(""));
        assert!(
            said.contains("; their names have no beginning in common."),
            "{said}"
        );
    }

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
