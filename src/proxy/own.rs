//! The proxy's own counters as metrics: they go to the ring like everybody's, when somebody wants them.

use super::Node;
use super::account::{Counts, Ledger, NodeCounts};
use super::forward::Router;
use super::membership::Membership;
use crossbeam::channel::{Receiver, RecvTimeoutError};
use std::io::Write as _;
use std::time::{Duration, Instant};

/// Sends what was counted, as counters under `prefix`, once an interval until nobody holds the other end of
/// `stop`, and then once more.
pub fn run(
    mut router: Router,
    membership: &Membership,
    ledger: &Ledger,
    prefix: &str,
    interval: Duration,
    stop: &Receiver<()>,
) {
    let mut before = Counts::of(membership.nodes().len());
    let mut next = Instant::now() + interval;
    loop {
        let stopping = !matches!(stop.recv_deadline(next), Err(RecvTimeoutError::Timeout));
        let now = ledger.totals();
        let text = lines(
            prefix,
            membership.nodes(),
            &membership.members(),
            &now,
            &before,
        );
        before = now;
        router.look();
        let own_lines = router.packet(&text);
        router.settle();
        ledger.enter(&Counts {
            own_lines,
            ..router.take_counts()
        });
        if stopping {
            return;
        }
        next = (next + interval).max(Instant::now());
    }
}

/// A line for each counter, with what came since `before`, and a gauge for each node: 1 in the ring, 0 out.
fn lines(
    prefix: &str,
    nodes: &[Node],
    members: &[usize],
    now: &Counts,
    before: &Counts,
) -> Vec<u8> {
    let mut text = Vec::new();
    // Writing to a Vec cannot fail.
    for ((meter, now), (_, before)) in now.meters().zip(before.meters()) {
        let _ = writeln!(text, "{prefix}.{}:{}|c", meter.name, now - before);
    }
    let counts = now.nodes.iter().zip(&before.nodes);
    for (number, (node, (now, before))) in nodes.iter().zip(counts).enumerate() {
        let name = format!("{prefix}.nodes.{}", part(&node.label));
        let up = u8::from(members.contains(&number));
        let _ = writeln!(text, "{name}.up:{up}|g");
        let meters = NodeCounts::meters(now).zip(NodeCounts::meters(before));
        for ((meter, now), (_, before)) in meters {
            let _ = writeln!(text, "{name}.{}:{}|c", meter.name, now - before);
        }
    }
    text
}

/// A label as a part of a name: what is no letter, digit or hyphen becomes `_`.
fn part(label: &str) -> String {
    let kept = |c: char| c.is_ascii_alphanumeric() || c == '-';
    label
        .chars()
        .map(|c| if kept(c) { c } else { '_' })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_counter_is_a_line_with_what_came_since() {
        let node = |host: &str| Node {
            label: format!("{host}:8127"),
            host: host.into(),
            port: 8127,
            admin_port: 8128,
        };
        let nodes = [node("10.0.0.1"), node("::1")];
        let (mut now, mut before) = (Counts::of(2), Counts::of(2));
        (now.tally.lines, before.tally.lines) = (12, 5);
        (now.nodes[1].lines, before.nodes[1].lines) = (7, 4);
        let text = lines("proxy", &nodes, &[1], &now, &before);
        let text = String::from_utf8(text).expect("text");
        let all: Vec<_> = text.lines().collect();
        assert!(all.contains(&"proxy.lines:7|c"), "{text}");
        assert!(all.contains(&"proxy.packets:0|c"), "{text}");
        assert!(all.contains(&"proxy.nodes.10_0_0_1_8127.up:0|g"), "{text}");
        assert!(all.contains(&"proxy.nodes.__1_8127.up:1|g"), "{text}");
        assert!(all.contains(&"proxy.nodes.__1_8127.lines:3|c"), "{text}");
        let meters = now.meters().count() + 2 * (1 + now.nodes[0].meters().count());
        assert_eq!(all.len(), meters);
    }
}
