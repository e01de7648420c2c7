//! What the proxy's admin interface answers: the reference's commands to the byte, and some it does not know.

use super::account::Ledger;
use super::health::Health;
use super::membership::Membership;
use crate::admin::{self, Clerk};
use crate::runtime::clock::{Clock, rounded_seconds};
use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

const HELP: &str = "Commands: config, health, status, quit\n\n";
/// What `help all` adds: the reference's own list is what programs may compare.
const HELP_ALL: &str = "Commands: config, health, status, quit, nodes, drops, meters, history\n\n";
const END: &str = "END\n\n";

/// Commands that need no argument.
const BARE: [&str; 9] = [
    "help", "config", "health", "status", "quit", "nodes", "drops", "meters", "history",
];
/// Commands that take arguments.
const WITH_ARGUMENTS: [&str; 2] = ["health", "help"];

/// What answers come from.
#[derive(Debug)]
pub struct Desk {
    clock: Clock,
    /// Start of the proxy, Unix seconds.
    started_s: i64,
    healthy: AtomicBool,
    /// The reply to `config`.
    config: String,
    membership: Arc<Membership>,
    ledger: Arc<Ledger>,
    health: Arc<Health>,
}

impl Desk {
    /// A desk of a proxy that starts now.
    pub fn new(
        clock: Clock,
        healthy: bool,
        config: String,
        membership: Arc<Membership>,
        ledger: Arc<Ledger>,
        health: Arc<Health>,
    ) -> Self {
        Self {
            started_s: rounded_seconds(clock.now_ms()),
            clock,
            healthy: AtomicBool::new(healthy),
            config,
            membership,
            ledger,
            health,
        }
    }

    fn labels(&self) -> impl Iterator<Item = &str> {
        self.membership.nodes().iter().map(|node| &*node.label)
    }

    fn status(&self, reply: &mut Vec<u8>) {
        let uptime = rounded_seconds(self.clock.now_ms()) - self.started_s;
        say(reply, format_args!("uptime: {uptime}\nnodes: "));
        for node in self.membership.members() {
            say(
                reply,
                format_args!("{} ", self.membership.nodes()[node].label),
            );
        }
        reply.push(b'\n');
    }

    fn nodes(&self, reply: &mut Vec<u8>) {
        let totals = self.ledger.totals();
        let (members, addresses) = (self.membership.members(), self.membership.addresses());
        for (number, (label, counts)) in self.labels().zip(&totals.nodes).enumerate() {
            let place = if members.contains(&number) {
                "in"
            } else {
                "out"
            };
            let address = addresses[number].map_or_else(|| "nowhere".into(), |at| at.to_string());
            let failures = self.health.record(number).failures;
            say(
                reply,
                format_args!(
                    "{label} {place} at {address} lines {} datagrams {} bytes {} dropped {} refused {} \
                     doubtful {} removals {} failures {failures}\n",
                    counts.lines,
                    counts.datagrams,
                    counts.bytes,
                    counts.dropped_total(),
                    counts.refused_lines,
                    counts.doubtful,
                    counts.removals
                ),
            );
        }
        reply.extend_from_slice(END.as_bytes());
    }

    /// Every counter, or those that mean a loss.
    fn meters(&self, losses: bool, reply: &mut Vec<u8>) {
        let totals = self.ledger.totals();
        for (meter, total) in totals.meters() {
            if meter.loss || !losses {
                say(reply, format_args!("{}: {total}\n", meter.name));
            }
        }
        for (label, counts) in self.labels().zip(&totals.nodes) {
            for (meter, total) in counts.meters() {
                if meter.loss || !losses {
                    say(reply, format_args!("{label} {}: {total}\n", meter.name));
                }
            }
        }
        reply.extend_from_slice(END.as_bytes());
    }

    /// What was found about the nodes, the oldest first.
    fn history(&self, reply: &mut Vec<u8>) {
        let now_ms = self.clock.now_ms();
        let mut events = Vec::new();
        for (number, label) in self.labels().enumerate() {
            let history = self.health.record(number).history;
            events.extend(
                history
                    .into_iter()
                    .map(|event| (event.at_ms, label, event.what)),
            );
        }
        events.sort_by_key(|(at_ms, ..)| *at_ms);
        for (at_ms, label, what) in events {
            let ago_s = now_ms.saturating_sub(at_ms) / 1000;
            say(reply, format_args!("{ago_s} s ago {label} {what}\n"));
        }
        reply.extend_from_slice(END.as_bytes());
    }
}

impl Clerk for Desk {
    fn quiet(&self, pending: &[u8]) -> Option<Duration> {
        admin::quiet(pending, &BARE, &WITH_ARGUMENTS)
    }

    fn reply(&self, line: &str) -> Option<Vec<u8>> {
        let words = admin::words(line);
        let mut reply = Vec::new();
        match &*words {
            ["quit", ..] => return None,
            ["help", "all"] => reply.extend_from_slice(HELP_ALL.as_bytes()),
            ["help", ..] => reply.extend_from_slice(HELP.as_bytes()),
            ["config", ..] => reply.extend_from_slice(self.config.as_bytes()),
            ["health", arguments @ ..] => admin::health(&self.healthy, arguments, &mut reply),
            ["status", ..] => self.status(&mut reply),
            ["nodes", ..] => self.nodes(&mut reply),
            ["drops", ..] => self.meters(true, &mut reply),
            ["meters", ..] => self.meters(false, &mut reply),
            ["history", ..] => self.history(&mut reply),
            _ => reply.extend_from_slice(b"ERROR\n"),
        }
        Some(reply)
    }
}

/// Appends formatted text; writing to a Vec cannot fail.
fn say(reply: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    let _ = reply.write_fmt(text);
}
