//! The law that nothing vanishes: sent = taken + refused + dropped by rules + dropped for want of room + in
//! datagrams that were cut or dropped.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::admin::Meters;
use crate::figures::grouped;
use crate::mix::Kind;
use crate::tally::Tally;

/// What a sender and a server say of the same run.
#[derive(Debug, Clone)]
pub(crate) struct Balance {
    sent: Tally,
    /// Fewest and most lines of a datagram that was sent.
    lines_each: (u64, u64),
    /// What the server counted in the meantime.
    meters: Meters,
}

impl Balance {
    pub(crate) fn new(sent: Tally, lines_each: (u64, u64), meters: Meters) -> Self {
        // Of no datagram at all the fewest is above the most.
        let (fewest, most) = lines_each;
        let most = most.max(1);
        Self {
            sent,
            lines_each: (fewest.min(most), most),
            meters,
        }
    }

    fn taken(&self) -> u64 {
        self.meters.below("samples.").map(|(_, count)| count).sum()
    }

    fn refused(&self) -> u64 {
        self.meters.below("rejected.").map(|(_, count)| count).sum()
    }

    /// Datagrams that reached the machine, and that the server says nobody read.
    fn unseen(&self) -> u64 {
        self.meters.get("kernel_drops") + self.meters.get("unread_datagrams")
    }

    /// Datagrams sent that are neither received nor dropped; below zero when there are more than were sent.
    fn datagrams_left(&self) -> i64 {
        let seen = self.meters.get("packets") + self.unseen();
        self.sent.datagrams.cast_signed() - seen.cast_signed()
    }

    /// What the server's configuration has dropped by name.
    fn ruled_out(&self) -> u64 {
        self.meters.get("mapped_dropped")
    }

    /// What the server's limits left no room for.
    fn crowded_out(&self) -> u64 {
        self.meters.get("set_members_dropped") + self.meters.get("stamped_dropped")
    }

    /// Lines sent that are neither taken nor refused nor dropped by rules or limits.
    fn lines_gone(&self) -> i64 {
        let seen = self.taken() + self.refused() + self.ruled_out() + self.crowded_out();
        self.sent.lines().cast_signed() - seen.cast_signed()
    }

    /// Lines that what was cut, dropped or left cannot have held: too many gone, or, below zero, too few.
    fn lines_left(&self) -> i64 {
        let (fewest, most) = self.lines_each;
        let away = self.unseen() + self.datagrams_left().max(0).cast_unsigned();
        let cut = self.meters.get("truncated");
        // The last line of a datagram that was cut is gone for certain.
        let least = if away == 0 { cut } else { away * fewest + cut };
        let gone = self.lines_gone();
        let bounds = least.cast_signed()..=((away + cut) * most).cast_signed();
        gone - gone.clamp(*bounds.start(), *bounds.end())
    }

    /// Every place where something is amiss, in words.
    pub(crate) fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let datagrams = self.datagrams_left();
        if datagrams > 0 {
            faults.push(format!(
                "{} datagrams never came to the server's sockets: another server at that address, a \
                 firewall, or the network",
                grouped(datagrams.cast_unsigned())
            ));
        }
        if datagrams < 0 {
            faults.push(format!(
                "{} datagrams more came than were sent: somebody else sends to this server, too",
                grouped(datagrams.unsigned_abs())
            ));
        }
        let lines = self.lines_left();
        if lines > 0 {
            faults.push(format!(
                "{} lines came to the server, which neither took nor refused them",
                grouped(lines.cast_unsigned())
            ));
        }
        if lines < 0 {
            faults.push(format!(
                "{} values more were taken and refused than can have come",
                grouped(lines.unsigned_abs())
            ));
        }
        // Of what kind those were that rules and limits dropped, the server does not say.
        let whole = self.lines_gone() == 0 && self.ruled_out() + self.crowded_out() == 0;
        for (name, sent, seen) in self.by_place() {
            if seen > sent || (whole && seen != sent) {
                let (sent, seen) = (grouped(sent), grouped(seen));
                faults.push(format!("of {name}, {sent} were sent and {seen} counted"));
            }
        }
        faults
    }

    /// What was sent for each place where lines can go, and what the server says came there.
    fn by_place(&self) -> [(&'static str, u64, u64); 5] {
        let kind = |kind: Kind, name, meter| {
            let sent = match kind {
                Kind::Counter => self.sent.counters,
                Kind::Timer => self.sent.timers,
                Kind::Gauge => self.sent.gauges + self.sent.gauge_deltas,
                Kind::Set => self.sent.sets,
            };
            (name, sent, self.meters.get(meter))
        };
        [
            kind(Kind::Counter, "counters", "samples.counters"),
            kind(Kind::Timer, "timers", "samples.timers"),
            kind(Kind::Gauge, "gauges", "samples.gauges"),
            kind(Kind::Set, "sets", "samples.sets"),
            ("bad lines", self.sent.malformed(), self.refused()),
        ]
    }

    pub(crate) fn table(&self) -> String {
        let mut out = String::new();
        let mut row = |label: &str, datagrams: &str, lines: &str, remark: &str| {
            let line = format!("{label:<22} {datagrams:>14} {lines:>16}   {remark}");
            let _ = writeln!(out, "{}", line.trim_end());
        };
        let count = |name: &str| grouped(self.meters.get(name));
        row("balance", "datagrams", "lines", "");
        let (datagrams, lines) = (grouped(self.sent.datagrams), grouped(self.sent.lines()));
        row("sent", &datagrams, &lines, "");
        row("taken", &count("packets"), &grouped(self.taken()), "");
        let reasons = self
            .meters
            .below("rejected.")
            .filter(|(_, count)| *count > 0);
        let reasons: Vec<_> = reasons
            .map(|(reason, count)| format!("{} {reason}", grouped(count)))
            .collect();
        row("refused", "", &grouped(self.refused()), &reasons.join(", "));
        if self.ruled_out() > 0 {
            let rules = "`mappings` of the server";
            row("dropped by rules", "", &count("mapped_dropped"), rules);
        }
        if self.crowded_out() > 0 {
            let limits = "`maxSetMembers` or `memoryLimit` of the server";
            row("dropped for room", "", &grouped(self.crowded_out()), limits);
        }
        let gone = self.lines_gone() - self.lines_left();
        let (cut, dropped) = (
            self.meters.get("truncated"),
            self.meters.get("kernel_drops"),
        );
        if cut > 0 {
            row(
                "cut",
                &count("truncated"),
                "",
                "longer than `maxDatagram`; taken but for the end",
            );
        }
        if dropped > 0 {
            row(
                "dropped by the kernel",
                &count("kernel_drops"),
                "",
                "a receive buffer was full",
            );
        }
        if cut + dropped > 0 {
            let gone = grouped(gone.max(0).cast_unsigned());
            row("in what is not whole", "", &gone, "");
        }
        let (datagrams, lines) = (self.datagrams_left(), self.lines_left());
        row("left", &datagrams.to_string(), &lines.to_string(), "");
        let faults = self.faults();
        if faults.is_empty() {
            out.push_str("\nBalanced: every datagram and every line is accounted for.\n");
        } else {
            out.push_str("\nNOT balanced:\n");
        }
        for fault in faults {
            let _ = writeln!(out, "- {fault}");
        }
        out
    }

    pub(crate) fn json(&self) -> Value {
        let refused = self.meters.below("rejected.");
        let refused = refused.map(|(reason, count)| (reason.to_owned(), count.into()));
        let taken = self.meters.below("samples.");
        let taken = taken.map(|(kind, count)| (kind.to_owned(), count.into()));
        let faults = self.faults();
        json!({
            "balanced": faults.is_empty(),
            "faults": faults,
            "sent_datagrams": self.sent.datagrams,
            "sent_lines": self.sent.lines(),
            "received_datagrams": self.meters.get("packets"),
            "kernel_drops": self.meters.get("kernel_drops"),
            "truncated": self.meters.get("truncated"),
            "taken": Value::Object(taken.collect()),
            "refused": Value::Object(refused.collect()),
            "mapped_dropped": self.ruled_out(),
            "no_room_dropped": self.crowded_out(),
            "datagrams_left": self.datagrams_left(),
            "lines_gone": self.lines_gone(),
            "lines_left": self.lines_left(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::tests::meters;

    /// 10 datagrams of 8 to 12 lines: 90 counters, 10 bad.
    fn balance(counts: &[(&str, u64)]) -> Balance {
        let sent = Tally {
            datagrams: 10,
            counters: 90,
            malformed: [4, 6, 0, 0, 0],
            ..Tally::default()
        };
        Balance::new(sent, (8, 12), meters(counts))
    }

    fn faults(counts: &[(&str, u64)]) -> Vec<String> {
        balance(counts).faults()
    }

    #[test]
    fn a_run_that_went_whole_balances() {
        let all = balance(&[
            ("packets", 10),
            ("samples.counters", 90),
            ("rejected.no_type", 4),
            ("rejected.bad_rate", 6),
        ]);
        assert_eq!(
            all.table(),
            "balance                     datagrams            lines\n\
             sent                               10              100\n\
             taken                              10               90\n\
             refused                                             10   4 no_type, 6 bad_rate\n\
             left                                0                0\n\
             \n\
             Balanced: every datagram and every line is accounted for.\n"
        );
        assert_eq!(all.json()["balanced"], true);
        assert_eq!(all.json()["refused"]["bad_rate"], 6);
    }

    #[test]
    fn what_the_kernel_dropped_may_hold_as_much_as_its_datagrams_can() {
        let dropped = |taken| {
            faults(&[
                ("packets", 8),
                ("kernel_drops", 2),
                ("samples.counters", taken),
                ("rejected.no_type", 9),
            ])
        };
        for taken in [75, 67] {
            assert_eq!(dropped(taken), [""; 0], "{taken}");
        }
        assert!(dropped(76)[0].starts_with("1 values more were taken and refused"));
        assert!(dropped(66)[0].starts_with("1 lines came to the server, which neither"));
        let table = balance(&[
            ("packets", 8),
            ("kernel_drops", 2),
            ("samples.counters", 80),
        ])
        .table();
        assert!(
            table.contains("dropped by the kernel               2"),
            "{table}"
        );
        assert!(
            table.contains("in what is not whole                                20"),
            "{table}"
        );
    }

    #[test]
    fn a_cut_datagram_loses_its_last_line_at_least() {
        let cut = |taken| {
            faults(&[
                ("packets", 10),
                ("truncated", 1),
                ("samples.counters", taken),
                ("rejected.no_type", 10),
            ])
        };
        assert_eq!(cut(89), [""; 0]);
        assert_eq!(cut(78), [""; 0]);
        assert!(cut(90)[0].starts_with("1 values more"), "{:?}", cut(90));
        assert!(cut(77)[0].starts_with("1 lines came"), "{:?}", cut(77));
    }

    #[test]
    fn what_rules_drop_is_accounted_for() {
        let dropped = |by_rules| {
            balance(&[
                ("packets", 10),
                ("samples.counters", 60),
                ("rejected.no_type", 10),
                ("mapped_dropped", by_rules),
            ])
        };
        assert_eq!(dropped(30).faults(), [""; 0]);
        assert!(dropped(29).faults()[0].starts_with("1 lines came"));
        let table = dropped(30).table();
        let row =
            "dropped by rules                                    30   `mappings` of the server";
        assert!(table.contains(row), "{table}");
        assert_eq!(dropped(30).json()["mapped_dropped"], 30);
    }

    #[test]
    fn what_finds_no_room_is_accounted_for() {
        let dropped = |members| {
            balance(&[
                ("packets", 10),
                ("samples.counters", 60),
                ("rejected.no_type", 10),
                ("set_members_dropped", members),
                ("stamped_dropped", 1),
            ])
        };
        assert_eq!(dropped(29).faults(), [""; 0]);
        assert!(dropped(28).faults()[0].starts_with("1 lines came"));
        let (table, row) = (dropped(29).table(), "dropped for room");
        let row = table.lines().find(|line| line.starts_with(row));
        let words: Vec<_> = row.expect("a row").split_whitespace().collect();
        assert_eq!(words[3..5], ["30", "`maxSetMembers`"]);
        assert_eq!(dropped(29).json()["no_room_dropped"], 30);
    }

    #[test]
    fn what_went_astray_and_what_came_from_others_is_named() {
        let lost = faults(&[
            ("packets", 9),
            ("samples.counters", 90),
            ("rejected.no_type", 1),
        ]);
        assert_eq!(lost.len(), 1, "{lost:?}");
        assert!(lost[0].starts_with("1 datagrams never came"), "{lost:?}");
        let other = faults(&[
            ("packets", 11),
            ("samples.counters", 91),
            ("rejected.no_type", 10),
        ]);
        assert!(other[0].starts_with("1 datagrams more came"), "{other:?}");
        assert!(
            other[2].contains("of counters, 90 were sent and 91 counted"),
            "{other:?}"
        );
    }

    #[test]
    fn a_line_taken_for_another_kind_is_found() {
        let mistaken = faults(&[
            ("packets", 10),
            ("samples.counters", 89),
            ("samples.sets", 1),
            ("rejected.no_type", 10),
        ]);
        assert_eq!(
            mistaken,
            [
                "of counters, 90 were sent and 89 counted",
                "of sets, 0 were sent and 1 counted"
            ]
        );
    }

    #[test]
    fn of_nothing_sent_nothing_may_come() {
        let of = |counts: &[(&str, u64)]| {
            Balance::new(Tally::default(), (u64::MAX, 0), meters(counts)).faults()
        };
        assert_eq!(of(&[]), [""; 0]);
        assert_eq!(of(&[("packets", 1), ("truncated", 1)]).len(), 2);
    }
}
