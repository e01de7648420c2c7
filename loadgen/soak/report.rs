//! What a soak comes to, for people and for programs.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};

use super::faulty::Fault;
use super::law::{Account, Law};
use super::vitals::Vitals;
use crate::figures::grouped;

/// All phases with one fault together.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Phase {
    pub(crate) fault: Fault,
    pub(crate) time: Duration,
    /// Values the server took.
    pub(crate) values: u64,
    /// CPU time of its process.
    pub(crate) cpu_ns: u64,
    pub(crate) kernel_drops: u64,
}

impl Phase {
    pub(crate) fn new(fault: Fault) -> Self {
        Self {
            fault,
            time: Duration::ZERO,
            values: 0,
            cpu_ns: 0,
            kernel_drops: 0,
        }
    }

    fn cpu_per_value_ns(&self) -> f64 {
        self.cpu_ns as f64 / self.values.max(1) as f64
    }
}

/// What a soak comes to.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) law: Law,
    pub(crate) account: Account,
    pub(crate) flushes: u64,
    pub(crate) phases: Vec<Phase>,
    /// Resident memory early and late, in KiB.
    pub(crate) rss_kib: (u64, u64),
    /// Before any traffic and after all of it.
    pub(crate) vitals: (Vitals, Vitals),
    /// What did not go as it should, beside the law.
    pub(crate) faults: Vec<String>,
}

impl Report {
    pub(crate) fn faults(&self) -> Vec<&str> {
        let all = self.law.faults.iter().chain(&self.faults);
        all.map(String::as_str).collect()
    }

    /// How much more memory it holds late than early, in percent.
    pub(crate) fn growth(&self) -> f64 {
        let (early, late) = self.rss_kib;
        (late as f64 / early.max(1) as f64 - 1.0) * 100.0
    }

    pub(crate) fn table(&self) -> String {
        let mut out = String::new();
        let _ = writeln!(
            out,
            "{:<10} {:>14} {:>14} {:>10}",
            "class", "sent", "counted", "lost"
        );
        for row in &self.law.rows {
            let (sent, counted, lost) =
                (grouped(row.sent), grouped(row.counted), grouped(row.lost));
            let _ = writeln!(out, "{:<10} {sent:>14} {counted:>14} {lost:>10}", row.class);
        }
        let _ = writeln!(
            out,
            "\n{:<16} {:>9} {:>14} {:>12} {:>8}",
            "backend's fault", "seconds", "values", "CPU a value", "dropped"
        );
        for phase in &self.phases {
            let _ = writeln!(
                out,
                "{:<16} {:>9.1} {:>14} {:>9.0} ns {:>8}",
                phase.fault.name(),
                phase.time.as_secs_f64(),
                grouped(phase.values),
                phase.cpu_per_value_ns(),
                grouped(phase.kernel_drops),
            );
        }
        let (before, after) = self.vitals;
        let _ = writeln!(
            out,
            "\nmemory {} KiB early, {} KiB late ({:+.1} %); descriptors {} before, {} after; threads {} \
             before, {} after; {} flushes",
            grouped(self.rss_kib.0),
            grouped(self.rss_kib.1),
            self.growth(),
            before.descriptors,
            after.descriptors,
            before.threads,
            after.threads,
            grouped(self.flushes),
        );
        let faults = self.faults();
        out.push_str(if faults.is_empty() {
            "\nBalanced: everything that was sent is accounted for.\n"
        } else {
            "\nNOT balanced:\n"
        });
        for fault in faults {
            let _ = writeln!(out, "- {fault}");
        }
        out
    }

    pub(crate) fn json(&self) -> Value {
        let rows = self.law.rows.iter().map(|row| {
            json!({"class": row.class, "sent": row.sent, "counted": row.counted, "lost": row.lost})
        });
        let phases = self.phases.iter().map(|phase| {
            json!({
                "fault": phase.fault.name(),
                "seconds": phase.time.as_secs_f64(),
                "values": phase.values,
                "cpu_ns_per_value": phase.cpu_per_value_ns(),
                "kernel_drops": phase.kernel_drops,
            })
        });
        let (before, after) = self.vitals;
        json!({
            "balanced": self.faults().is_empty(),
            "faults": self.faults(),
            "classes": rows.collect::<Vec<_>>(),
            "phases": phases.collect::<Vec<_>>(),
            "flushes": self.flushes,
            "rss_kib": {"early": self.rss_kib.0, "late": self.rss_kib.1},
            "descriptors": {"before": before.descriptors, "after": after.descriptors},
            "threads": {"before": before.threads, "after": after.threads},
            "account": self.account,
        })
    }
}
