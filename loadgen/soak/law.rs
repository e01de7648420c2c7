//! The law, drawn up at the end: what was sent is what was counted, refused, cut, or dropped in plain sight.

use std::collections::{BTreeMap, BTreeSet};

use super::carbon::Sums;
use super::unit::{Class, Effects};

/// What a server said when it stopped, by the names of its meters.
pub(crate) type Account = BTreeMap<String, u64>;

/// Reads the line `... account: NAME=COUNT NAME=COUNT ...`.
pub(crate) fn account(line: &str) -> Option<Account> {
    let (_, counts) = line.split_once("account: ")?;
    let count = |word: &str| {
        let (name, count) = word.split_once('=')?;
        Some((name.to_owned(), count.parse().ok()?))
    };
    counts.split_whitespace().map(count).collect()
}

/// A class at the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) class: &'static str,
    pub(crate) sent: u64,
    /// Units whose tickets came out of the healthy backend.
    pub(crate) counted: u64,
    /// Units of ways that may drop, which did not come.
    pub(crate) lost: u64,
}

/// All of it.
#[derive(Debug, Default)]
pub(crate) struct Law {
    pub(crate) rows: Vec<Row>,
    /// Everything that does not add up.
    pub(crate) faults: Vec<String>,
}

/// Meters that tell of traffic and nothing else: each must be what the units and connections come to.
const EXACT: [&str; 29] = [
    "lines",
    "samples.counters",
    "samples.timers",
    "samples.gauges",
    "samples.sets",
    "rejected.no_type",
    "rejected.bad_rate",
    "rejected.empty_value",
    "rejected.not_a_number",
    "rejected.negative_timer",
    "rejected.long_tags",
    "rejected.bad_timestamp",
    "rejected.old_timestamp",
    "rejected.future_timestamp",
    "rejected.bad_event",
    "rejected.bad_check",
    "mapped_dropped",
    "events",
    "service_checks",
    "unsupported",
    "truncated",
    "receive_errors",
    "streams.accepted",
    "streams.refused",
    "streams.resets",
    "streams.long_lines",
    "streams.cut_lines",
    "streams.bad_lengths",
    "streams.cut_packets",
];

/// Meters of what is not sent so that it happens.
const NONE: [&str; 7] = [
    "unread_datagrams",
    "streams.unread_bytes",
    "streams.accept_errors",
    "folded.name_length",
    "folded.memory",
    "set_members_dropped",
    "stamped_dropped",
];

impl Law {
    /// `connections` is what connections came to beside their units.
    pub(crate) fn draw(
        classes: &[Class],
        connections: &Effects,
        sums: &Sums,
        account: &Account,
    ) -> Self {
        let count = |name: &str| account.get(name).copied().unwrap_or(0);
        let mut law = Self::default();
        let mut expected: BTreeMap<&str, u64> = connections.iter().map(|(k, v)| (*k, *v)).collect();
        let (mut lost, mut datagrams) = (0, 0);
        for class in classes {
            let mut row = Row {
                class: class.name,
                sent: class.sent_all(),
                counted: 0,
                lost: 0,
            };
            let mut value = 0;
            for (number, unit) in class.units.iter().enumerate() {
                let counted = sums.of(&format!("soak.{}.u{number}", class.name));
                let sent = class.sent(number);
                if counted > sent || (counted < sent && !class.way.may_drop()) {
                    law.faults.push(format!(
                        "{}: unit {number} was sent {sent} times and counted {counted} times",
                        class.name
                    ));
                }
                row.counted += counted;
                row.lost += sent.saturating_sub(counted);
                value += counted * unit.value;
                for (name, each) in &unit.effects {
                    *expected.entry(name).or_default() += counted * each;
                }
            }
            let found = sums.of(&format!("soak.{}.v", class.name));
            if found != value {
                law.faults.push(format!(
                    "{}: its counter came to {found} over all flushes, not {value}",
                    class.name
                ));
            }
            if class.way.may_drop() {
                lost += row.lost;
            }
            if class.way.is_datagrams() {
                datagrams += row.counted;
            }
            law.rows.push(row);
        }
        law.must_be(count("kernel_drops"), "kernel_drops", lost);
        let received = count("packets").wrapping_sub(count("streams.pieces"));
        law.must_be(received, "packets - streams.pieces", datagrams);
        for name in EXACT {
            law.must_be(count(name), name, expected.remove(name).unwrap_or(0));
        }
        for name in expected.keys() {
            law.faults.push(format!("no meter {name} is looked at"));
        }
        for name in NONE {
            law.must_be(count(name), name, 0);
        }
        // A flush reaches each of the two backends, or is counted as dropped.
        let fates = count("flushes_delivered") + count("flushes_dropped");
        law.must_be(
            fates,
            "flushes_delivered + flushes_dropped",
            2 * sums.flushes,
        );
        let names: BTreeSet<&str> = EXACT
            .into_iter()
            .chain(["packets", "kernel_drops", "folded.names", "names_swept"])
            .collect();
        for name in names {
            let flushed = sums.of(&format!("statsd_fast.{name}"));
            if flushed != count(name) {
                law.faults.push(format!(
                    "{name}: all flushes together say {flushed}, the account at the stop {}",
                    count(name)
                ));
            }
        }
        law.faults.extend(sums.fault.clone());
        law
    }

    fn must_be(&mut self, found: u64, name: &str, expected: u64) {
        if found != expected {
            self.faults.push(format!(
                "{name} is {found}, and what was sent comes to {expected}"
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_account_is_read_and_what_is_none_is_not() {
        let line = "22 Nov 15:04:54 - INFO: account: packets=3 samples.timers=7";
        let read = account(line).unwrap();
        assert_eq!(
            read,
            Account::from([("packets".into(), 3), ("samples.timers".into(), 7)])
        );
        assert_eq!(account("stopped: 3 datagrams"), None);
        assert_eq!(account("account: packets=x"), None);
    }

    /// Two classes of which 3 units were sent each, and what a server says that counted so many of them.
    fn drawn(udp: u64, tcp: u64, change: impl Fn(&mut Account)) -> Vec<String> {
        use crate::soak::unit::{COUNTER, Unit, Way};
        let unit = |class| {
            let line = (format!("soak.{class}.v:2|c"), COUNTER, 2);
            vec![Unit::new(class, 0, &[line])]
        };
        let classes = [
            Class::new("a", Way::Udp, unit("a")),
            Class::new("b", Way::Tcp, unit("b")),
        ];
        classes
            .iter()
            .for_each(|class| (0..3).for_each(|_| class.note(0)));
        let mut sums = Sums::default();
        let mut account = Account::new();
        for (name, count) in [
            ("packets", udp + 1),
            ("streams.pieces", 1),
            ("kernel_drops", 3 - udp),
            ("lines", 2 * (udp + tcp)),
            ("samples.counters", 2 * (udp + tcp)),
            ("flushes_delivered", 2),
        ] {
            account.insert(name.into(), count);
        }
        change(&mut account);
        for line in [
            format!("stats_counts.soak.a.u0 {udp} 1"),
            format!("stats_counts.soak.a.v {} 1", 2 * udp),
            format!("stats_counts.soak.b.u0 {tcp} 1"),
            format!("stats_counts.soak.b.v {} 1", 2 * tcp),
        ] {
            sums.take(&line).unwrap();
        }
        for (name, count) in &account {
            sums.take(&format!("stats.statsd_fast.{name} {count} 1"))
                .unwrap();
        }
        sums.flushes = 1;
        Law::draw(&classes, &Effects::new(), &sums, &account).faults
    }

    #[test]
    fn what_the_kernel_dropped_in_plain_sight_balances_and_nothing_else() {
        let none = |_: &mut Account| {};
        assert_eq!(drawn(3, 3, none), [""; 0]);
        assert_eq!(drawn(1, 3, none), [""; 0]);
        assert_eq!(
            drawn(3, 2, none),
            ["b: unit 0 was sent 3 times and counted 2 times"]
        );
        let silent = drawn(2, 3, |account| {
            account.remove("kernel_drops");
        });
        assert_eq!(silent, ["kernel_drops is 0, and what was sent comes to 1"]);
        let more = drawn(3, 3, |account| {
            account.insert("rejected.no_type".into(), 1);
        });
        assert_eq!(
            more,
            ["rejected.no_type is 1, and what was sent comes to 0"]
        );
        let flush = drawn(3, 3, |account| {
            account.insert("flushes_delivered".into(), 1);
        });
        assert_eq!(
            flush,
            ["flushes_delivered + flushes_dropped is 1, and what was sent comes to 2"]
        );
        let unread = drawn(3, 3, |account| {
            account.insert("streams.unread_bytes".into(), 9);
        });
        assert_eq!(
            unread,
            ["streams.unread_bytes is 9, and what was sent comes to 0"]
        );
    }
}
