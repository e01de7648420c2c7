//! What the admin interfaces of both answer.

use super::Pair;
use crate::daemon::{Admin, DEADLINE};
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

/// Lines of `config` that cannot be the same.
const PORTS: [&str; 3] = ["port: ", "mgmt_port: ", "graphitePort: "];

/// Both interfaces.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Both {
    theirs: SocketAddr,
    ours: SocketAddr,
}

impl Both {
    /// Those of a pair, if ours has one.
    pub(crate) fn of(pair: &Pair) -> Option<Self> {
        Some(Self {
            theirs: pair.original.admin,
            ours: pair.admin?,
        })
    }

    /// Waits until `counters` of both shows this name.
    pub(crate) fn wait_for_counter(self, name: &str) {
        for address in [self.theirs, self.ours] {
            let start = Instant::now();
            // Nobody is told when a datagram was taken, so there is no event to wait for.
            while !Admin::once(address, "counters\n").contains(name) {
                assert!(start.elapsed() < DEADLINE, "{name} never came");
                thread::sleep(Duration::from_millis(20));
            }
        }
    }

    /// Gives each command to both, each on a connection of its own, and returns the replies that differ.
    pub(crate) fn differences(self, commands: &[&str]) -> Vec<String> {
        let mut found = Vec::new();
        for command in commands {
            let reply = |address| comparable(command, &Admin::once(address, command));
            compare(command, &reply(self.theirs), &reply(self.ours), &mut found);
        }
        found
    }

    /// The same on one connection to each; with every command comes the end of its reply. Ends with `quit`.
    pub(crate) fn conversation(self, commands: &[(&str, &str)]) -> Vec<String> {
        let mut found = Vec::new();
        let (mut theirs, mut ours) = (Admin::connect(self.theirs), Admin::connect(self.ours));
        for (command, end) in commands {
            let replies = [theirs.ask(command, end), ours.ask(command, end)];
            let [theirs, ours] = replies.map(|reply| comparable(command, &reply));
            compare(command, &theirs, &ours, &mut found);
        }
        let command = "quit\n";
        let (theirs, ours) = (theirs.read_to_close(command), ours.read_to_close(command));
        compare(command, &theirs, &ours, &mut found);
        found
    }
}

fn compare(command: &str, theirs: &str, ours: &str, found: &mut Vec<String>) {
    if theirs != ours {
        found.push(format!(
            "{command:?}:\n--- theirs\n{theirs}\n--- ours\n{ours}"
        ));
    }
}

/// The reply without what depends on the clock or on the ports.
fn comparable(command: &str, reply: &str) -> String {
    let lines = reply.split('\n');
    // What stands behind a command does not change what it shows.
    let word = command.split_whitespace().next().unwrap_or_default();
    let lines: Vec<String> = match word {
        "stats" => lines.map(without_number).collect(),
        "config" => lines
            .filter(|line| !PORTS.iter().any(|port| line.starts_with(port)))
            .map(str::to_owned)
            .collect(),
        "gauges" => lines
            .map(|line| match line.split_once("timestamp_lag': ") {
                Some((name, value)) => {
                    let rest = value.trim_start_matches(|c: char| c == '-' || c.is_ascii_digit());
                    format!("{name}timestamp_lag': N{rest}")
                }
                None => line.to_owned(),
            })
            .collect(),
        _ => return reply.to_owned(),
    };
    lines.join("\n")
}

/// A line of `stats`; only the number of bad lines is known beforehand.
fn without_number(line: &str) -> String {
    match line.split_once(": ") {
        Some((name, value)) if name != "messages.bad_lines_seen" => {
            let number = value.strip_prefix('-').unwrap_or(value);
            let numeric = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
            format!("{name}: {}", if numeric { "N" } else { value })
        }
        _ => line.to_owned(),
    }
}
