//! The proxy's worker: lines in, each to the outlet of the node that its name belongs to.

use super::Options;
use super::account::{Counts, Report};
use super::digests::Digests;
use super::membership::{Membership, View};
use super::outlet::{Outlet, Way};
use crate::ingest::packet::Batch;
use crate::ingest::scan::Marks;
use crate::ingest::source::Source;
use crate::ingest::{self, Intake};
use crate::metric::harvest::Tally;
use crate::runtime::clock::monotonic_ms;
use crate::runtime::log;
use crate::runtime::rate_limit::{RateLimit, more};
use crate::runtime::stop::Stop;
use crossbeam::channel::Sender;
use crossbeam::utils::CachePadded;
use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Batches that lines are held for at most while their worker finds more.
const HELD_BATCHES: usize = 16;

/// What a router needs besides lines. Clones share it.
#[derive(Debug, Clone)]
pub struct Map {
    membership: Arc<Membership>,
    ways: Arc<[Way]>,
    no_node: Arc<RateLimit>,
    digests: usize,
    room: usize,
}

impl Map {
    /// Of these nodes.
    pub fn new(membership: Arc<Membership>, options: &Options) -> Self {
        let way = |node: &super::Node| Way {
            label: node.label.clone(),
            complaints: Arc::default(),
        };
        Self {
            ways: membership.nodes().iter().map(way).collect(),
            membership,
            no_node: Arc::default(),
            digests: options.digests,
            room: if options.packing {
                options.max_datagram
            } else {
                0
            },
        }
    }
}

/// Takes lines and sends them where they belong.
#[derive(Debug)]
pub struct Router {
    map: Map,
    view: Arc<View>,
    /// Of the view.
    generation: u64,
    digests: Digests,
    outlets: Vec<Outlet>,
    no_node: u64,
}

impl Router {
    /// Not connected to anybody yet.
    pub fn new(map: Map) -> Self {
        let mut generation = 0;
        let view = map.membership.news(&mut generation);
        let outlets = map
            .ways
            .iter()
            .map(|way| Outlet::new(way.clone(), map.room));
        let mut router = Self {
            view: view.expect("nobody has seen it"),
            generation,
            digests: Digests::new(map.digests),
            outlets: outlets.collect(),
            no_node: 0,
            map,
        };
        router.connect();
        router
    }

    /// Looks whether nodes have come, gone or moved. What waits for a node that has gone is sent to it.
    #[inline]
    pub fn look(&mut self) {
        if let Some(view) = self.map.membership.news(&mut self.generation) {
            self.view = view;
            self.connect();
        }
    }

    #[cold]
    fn connect(&mut self) {
        for (outlet, address) in self.outlets.iter_mut().zip(&self.view.addresses) {
            outlet.connect(*address);
        }
    }

    /// Takes the lines of a packet and returns how many there are.
    #[inline]
    pub fn packet(&mut self, bytes: &[u8]) -> u64 {
        let (mut lines, mut begin, mut colon) = (0, 0, None);
        let mut marks = Marks::new(bytes);
        loop {
            let at = marks.next_mark();
            match bytes.get(at) {
                Some(b'|') => {}
                Some(b':') => colon = colon.or(Some(at)),
                // A newline, or the end.
                ended => {
                    if at > begin {
                        let name = &bytes[begin..colon.unwrap_or(at)];
                        self.line(name, &bytes[begin..at]);
                        lines += 1;
                    }
                    if ended.is_none() {
                        return lines;
                    }
                    (begin, colon) = (at + 1, None);
                }
            }
        }
    }

    #[inline]
    fn line(&mut self, name: &[u8], line: &[u8]) {
        match self.view.ring.owner(self.digests.of(name)) {
            Some(node) => self.outlets[node].push(line),
            None => self.no_node += 1,
        }
    }

    /// Sends everything that waits.
    pub fn settle(&mut self) {
        self.outlets.iter_mut().for_each(Outlet::send);
    }

    /// What was counted since this was last asked.
    pub fn take_counts(&mut self) -> Counts {
        let no_node = mem::take(&mut self.no_node);
        if no_node > 0
            && let Some(suppressed) = self.map.no_node.pass(monotonic_ms())
        {
            ::log::warn!(
                "[{}] Warning: No backend statsd nodes available! {no_node} lines were dropped; see \
                 `history` in the admin interface for why the nodes left{}",
                std::process::id(),
                more(suppressed)
            );
        }
        Counts {
            no_node,
            nodes: self.outlets.iter_mut().map(Outlet::take_counts).collect(),
            ..Counts::default()
        }
    }
}

/// The lines between a worker and the rest.
#[derive(Debug, Clone)]
pub struct Link {
    /// Number of the report that is wanted; see [`super::account::Ledger`].
    pub asked: Arc<CachePadded<AtomicU64>>,
    /// Reports. Bounded; there is room for two of each worker: an answer and the last one.
    pub reports: Sender<Report>,
    /// The order to stop.
    pub stop: Stop,
}

/// A worker.
#[derive(Debug)]
struct Forwarder<'l> {
    router: Router,
    link: &'l Link,
    tally: Tally,
    /// Batches since everything was sent.
    held: usize,
}

/// Forwards until told to stop, then what is queued, and gives a last report.
pub fn run(source: impl Source, map: Map, link: &Link) {
    let forwarder = Forwarder {
        router: Router::new(map),
        link,
        tally: Tally::default(),
        held: 0,
    };
    ingest::serve(source, forwarder);
}

impl Intake for Forwarder<'_> {
    fn stopping(&self) -> bool {
        self.link.stop.requested()
    }

    fn asked(&self) -> u64 {
        self.link.asked.load(Ordering::Relaxed)
    }

    fn tally(&mut self) -> &mut Tally {
        &mut self.tally
    }

    fn take(&mut self, batch: &Batch) {
        if batch.received() == 0 {
            return;
        }
        if log::dumping() {
            ingest::dump(batch);
        }
        self.router.look();
        for packet in batch.packets() {
            self.tally.lines += self.router.packet(packet.whole_lines());
            self.tally.packets += 1;
            self.tally.bytes += packet.bytes.len() as u64;
            self.tally.truncated += u64::from(packet.truncated);
        }
        self.held += 1;
        if self.held >= HELD_BATCHES {
            self.settle();
        }
    }

    fn settle(&mut self) {
        self.held = 0;
        self.router.settle();
    }

    fn answer(&mut self, number: u64, source: &mut impl Source) -> bool {
        if self.link.reports.is_full() {
            return false;
        }
        source.account(&mut self.tally);
        let counts = Counts {
            tally: mem::take(&mut self.tally),
            ..self.router.take_counts()
        };
        // Closed only when the ledger is gone, and then nobody is left to count for.
        self.link.reports.send(Report { number, counts }).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::Node;
    use proptest::prelude::*;

    /// A router of one node that is nowhere: what it counts as not sent is what it took.
    fn router() -> Router {
        let nodes = vec![Node {
            label: "a:1".into(),
            host: "a".into(),
            port: 1,
            admin_port: 2,
        }];
        let membership = Arc::new(Membership::new(nodes.clone()));
        let options = Options {
            nodes,
            ..Options::default()
        };
        Router::new(Map::new(membership, &options))
    }

    #[test]
    fn empty_lines_are_none() {
        let mut router = router();
        for (packet, lines) in [
            (&b""[..], 0),
            (b"\n", 0),
            (b"a:1|c", 1),
            (b"a:1|c\n\nb:2|c\n \n", 3),
            (b"\r\n:", 2),
        ] {
            assert_eq!(router.packet(packet), lines, "{packet:?}");
        }
        router.settle();
        let counts = router.take_counts();
        assert_eq!(counts.nodes[0].dropped_total(), 6);
    }

    #[test]
    fn without_a_node_lines_are_counted_and_one_that_returns_takes_them() {
        let mut router = router();
        router.map.membership.remove(0);
        router.look();
        router.packet(b"a:1|c\nb:1|c");
        router.map.membership.add(0);
        router.look();
        router.packet(b"a:1|c");
        router.settle();
        let counts = router.take_counts();
        assert_eq!((counts.no_node, counts.nodes[0].dropped_total()), (2, 1));
        assert_eq!(router.take_counts().no_node, 0);
    }

    proptest! {
        /// Every line that is not empty is one, whatever is in it.
        #[test]
        fn lines_are_what_a_plain_split_finds(
            bytes in proptest::collection::vec(
                prop_oneof![Just(b'\n'), Just(b':'), Just(b'|'), any::<u8>()],
                0..200,
            ),
        ) {
            let mut router = router();
            let plain = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
            prop_assert_eq!(router.packet(&bytes), plain.count() as u64);
        }
    }
}
