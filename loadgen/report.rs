//! What was sent, as one JSON object or as a table.

mod json;

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use crate::account::Account;
use crate::distinct::Distinct;
use crate::fault::Fault;
use crate::figures::{grouped, short_time, si};
use crate::pace::{self, Rate};
use crate::shape::Shape;

/// How the rings were filled.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RingSize {
    pub(crate) payload: u64,
    pub(crate) datagrams: u64,
    pub(crate) lines: u64,
}

/// A finished run.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) to: SocketAddr,
    pub(crate) shape: Shape,
    pub(crate) rate: Rate,
    /// The duration asked for; `None` when a count was.
    pub(crate) time_limit: Option<Duration>,
    /// Lines to send; `None` when only time ended the run.
    pub(crate) planned: Option<u64>,
    pub(crate) flows: u32,
    pub(crate) threads: u32,
    pub(crate) gso: bool,
    pub(crate) ring: RingSize,
    pub(crate) account: Account,
    pub(crate) distinct: Distinct,
    pub(crate) interrupted: bool,
}

impl Report {
    /// How long the schedule was; `None` when there was none.
    fn planned_time(&self) -> Option<Duration> {
        match (self.rate, self.planned) {
            (Rate::Paced(rate), Some(planned)) => {
                Some(Duration::from_secs_f64(planned as f64 / rate as f64))
            }
            _ => None,
        }
    }

    /// Time from the start to the last datagram.
    fn sending_time(&self) -> Duration {
        Duration::from_nanos(self.account.ended)
    }

    /// Time that rates are taken over. The last datagram of a schedule is due one gap before its
    /// end.
    fn rated_seconds(&self) -> f64 {
        let planned = self
            .planned_time()
            .filter(|_| !self.interrupted)
            .unwrap_or_default();
        self.sending_time().max(planned).as_secs_f64().max(1e-9)
    }

    /// Whether the sender kept the rate; `None` when it had none to keep.
    pub(crate) fn rate_kept(&self) -> Option<bool> {
        let Rate::Paced(_) = self.rate else {
            return None;
        };
        let planned = match self.planned_time() {
            Some(time) if !self.interrupted => time,
            _ => self.sending_time(),
        };
        let in_time = pace::kept(Duration::from_nanos(self.account.lateness.last), planned);
        Some(in_time && (self.interrupted || self.account.missed == 0))
    }

    pub(crate) fn table(&self) -> String {
        let Account {
            sent,
            failed,
            errors,
            lateness,
            ..
        } = &self.account;
        let names = self.distinct.names;
        let mut out = String::new();
        // A type that was not sent has no row.
        let mut row = |cells: [&str; 4]| {
            let [label, metrics, names, expected] = cells;
            if metrics == "0" && label != "all" {
                return;
            }
            let line = format!("{label:<10} {metrics:>16} {names:>12}   {expected}");
            out.push_str(line.trim_end());
            out.push('\n');
        };
        row([
            "sent",
            "metrics",
            "names",
            "a server has it all when it shows",
        ]);
        let sum = format!("sum {}", grouped(sent.counter_sum));
        row([
            "counters",
            &grouped(sent.counters),
            &grouped(names[0]),
            &sum,
        ]);
        let sum = format!(
            "sum {}.{:03} ms",
            grouped(sent.timer_sum / 1000),
            sent.timer_sum % 1000
        );
        row(["timers", &grouped(sent.timers), &grouped(names[1]), &sum]);
        let gauges = format!(
            "{} absolute, {} deltas",
            grouped(sent.gauges),
            grouped(sent.gauge_deltas)
        );
        row([
            "gauges",
            &grouped(sent.gauges + sent.gauge_deltas),
            &grouped(names[2]),
            &gauges,
        ]);
        let members = format!("{} members", grouped(self.distinct.members));
        row(["sets", &grouped(sent.sets), &grouped(names[3]), &members]);
        let all = format!(
            "in {} datagrams, {} bytes",
            grouped(sent.datagrams),
            grouped(sent.bytes)
        );
        row([
            "all",
            &grouped(sent.metrics()),
            &grouped(names.iter().sum()),
            &all,
        ]);
        let faults = Fault::ALL.iter().zip(sent.malformed);
        let faults: Vec<_> = faults
            .filter(|(_, count)| *count > 0)
            .map(|(fault, count)| format!("{} {}", grouped(count), fault.name()))
            .collect();
        row([
            "malformed",
            &grouped(sent.malformed()),
            "",
            &format!("to be refused: {}", faults.join(", ")),
        ]);
        if failed.datagrams > 0 {
            let kinds = [
                ("refused: nothing listens there", errors.refused),
                ("send buffer full", errors.would_block),
                ("interface queue full", errors.no_buffers),
                ("too long", errors.too_long),
                ("other", errors.other),
            ];
            let mut kinds: Vec<String> = kinds
                .iter()
                .filter(|(_, count)| *count > 0)
                .map(|(kind, count)| format!("{} {kind}", grouped(*count)))
                .collect();
            kinds.extend(
                self.account
                    .first_error
                    .clone()
                    .filter(|_| errors.other > 0),
            );
            row([
                "failed",
                &grouped(failed.lines()),
                "",
                &format!("datagrams: {}", kinds.join(", ")),
            ]);
        }
        if self.account.missed > 0 {
            row([
                "missed",
                &grouped(self.account.missed),
                "",
                "due, but not sent when the run ended",
            ]);
        }
        let seconds = self.rated_seconds();
        let per_second = |count: u64| si(count as f64 / seconds);
        let _ = writeln!(
            out,
            "\n{} lines/s, {} datagrams/s, {} bytes/s over {:.3} s to {}",
            per_second(sent.lines()),
            per_second(sent.datagrams),
            per_second(sent.bytes),
            self.sending_time().as_secs_f64(),
            self.to,
        );
        if !lateness.histogram.is_empty() {
            let quantile = |share| {
                short_time(Duration::from_nanos(
                    lateness.histogram.value_at_quantile(share),
                ))
            };
            let max = short_time(Duration::from_nanos(lateness.max));
            let _ = writeln!(
                out,
                "late: p50 {}, p99 {}, max {max}",
                quantile(0.5),
                quantile(0.99)
            );
        }
        out.push_str(&self.verdict());
        out
    }

    fn verdict(&self) -> String {
        let mut before = String::new();
        if self.account.errors.refused > 0 {
            let _ = writeln!(
                before,
                "Nothing listened at {}, at least not all the time.",
                self.to
            );
        }
        if self.gso && self.account.errors.other > 0 {
            before.push_str(
                "With --gso a datagram has to fit the path's MTU, and the interface has to make \
                 checksums.\n",
            );
        }
        if self.interrupted {
            before.push_str("Stopped early. ");
        }
        match (self.rate, self.rate_kept()) {
            (Rate::Paced(rate), Some(true)) => {
                format!(
                    "{before}The rate of {} lines/s was kept.\n",
                    si(rate as f64)
                )
            }
            (Rate::Paced(rate), _) => format!(
                "{before}The sender was the limit: it could not keep {} lines/s. Ask for less, \
                 pack more into a datagram, or give it more --threads or a core of its own.\n",
                si(rate as f64)
            ),
            (Rate::Max, _) => {
                format!("{before}Unpaced: this is the speed of the sender and of the kernel.\n")
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::account::Errors;
    use crate::shape::tests::shape;
    use crate::tally::Tally;

    pub(crate) fn report() -> Report {
        let sent = Tally {
            datagrams: 10,
            bytes: 1000,
            counters: 60,
            counter_sum: 301,
            timers: 25,
            timer_sum: 2_500_042,
            gauges: 8,
            gauge_deltas: 2,
            sets: 5,
            malformed: [0; 5],
        };
        Report {
            to: "127.0.0.1:8125".parse().unwrap(),
            shape: Shape {
                sample_rate: Some("0.1".into()),
                ..shape()
            },
            rate: Rate::Paced(100),
            time_limit: Some(Duration::from_secs(1)),
            planned: Some(100),
            flows: 1,
            threads: 1,
            gso: false,
            ring: RingSize {
                payload: 1000,
                datagrams: 10,
                lines: 100,
            },
            account: Account {
                sent,
                ended: 900_000_000,
                ..Account::default()
            },
            distinct: Distinct {
                names: [40, 20, 9, 5],
                members: 5,
            },
            interrupted: false,
        }
    }

    #[test]
    fn the_table_reads_well() {
        assert_eq!(
            report().table(),
            "sent                metrics        names   a server has it all when it shows\n\
             counters                 60           40   sum 301\n\
             timers                   25           20   sum 2,500.042 ms\n\
             gauges                   10            9   8 absolute, 2 deltas\n\
             sets                      5            5   5 members\n\
             all                     100           74   in 10 datagrams, 1,000 bytes\n\
             \n\
             100 lines/s, 10 datagrams/s, 1.00k bytes/s over 0.900 s to 127.0.0.1:8125\n\
             The rate of 100 lines/s was kept.\n"
        );
    }

    #[test]
    fn the_sender_says_so_when_it_was_the_limit() {
        let mut report = report();
        report.account.missed = 1;
        assert_eq!(report.rate_kept(), Some(false));
        assert!(
            report
                .table()
                .contains("The sender was the limit: it could not keep 100 lines/s.")
        );
        report.account.missed = 0;
        report.account.lateness.last = 10_000_001;
        assert_eq!(report.rate_kept(), Some(false));
        report.account.lateness.last = 10_000_000;
        assert_eq!(report.rate_kept(), Some(true));
        report.rate = Rate::Max;
        assert_eq!(report.rate_kept(), None);
    }

    #[test]
    fn types_that_were_not_sent_have_no_row() {
        let mut report = report();
        report.account.sent.timers = 0;
        assert!(!report.table().contains("timers"));
        assert!(report.table().contains("counters"));
    }

    #[test]
    fn failures_are_listed_by_reason() {
        let mut report = report();
        report.account.failed = Tally {
            datagrams: 3,
            counters: 3,
            ..Tally::default()
        };
        report.account.errors = Errors {
            refused: 2,
            other: 1,
            ..Errors::default()
        };
        report.account.first_error = Some("Network is down".into());
        let expected = "datagrams: 2 refused: nothing listens there, 1 other, Network is down\n";
        assert!(report.table().contains(expected), "{}", report.table());
        assert_eq!(report.json()["failed_datagrams"]["refused"], 2);
        assert_eq!(report.json()["failed"], 3);
        assert!(
            report
                .table()
                .contains("Nothing listened at 127.0.0.1:8125")
        );
    }

    #[test]
    fn bad_lines_stand_apart() {
        let mut report = report();
        report.account.sent.malformed = [3, 0, 2, 0, 0];
        let row =
            "malformed                 5                to be refused: 3 no_type, 2 empty_value\n";
        assert!(report.table().contains(row), "{}", report.table());
        let json = report.json();
        assert_eq!(json["metrics"], 100);
        assert_eq!(json["malformed"]["lines"], 5);
        assert_eq!(json["malformed"]["empty_value"], 2);
        assert_eq!(json["lines_per_second"], 105.0);
    }
}
