//! Whether a node is well: asked at its admin port, as the reference asks, by a thread for each node.
//!
//! A node is well when the first piece of its answer to `health` holds `up`. Past `failuresToRemove` answers
//! in a row that do not, or none at all, it is taken out of the ring, and its names go to the others; it is
//! back when it has answered well for `holdDown`. What is found is kept as history.

use super::account::Ledger;
use super::membership::Membership;
use crate::runtime::clock::{Clock, monotonic_ms};
use crossbeam::channel::{Receiver, RecvTimeoutError, Sender};
use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How nodes are asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Time between two questions, and the longest that an answer may take (`checkInterval`).
    pub interval: Duration,
    /// Failures in a row that take a node out of the ring (`failuresToRemove`).
    pub failures_to_remove: u32,
    /// How long a node that was taken out has to answer well before it is back (`holdDown`).
    pub hold_down: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(10),
            failures_to_remove: 1,
            hold_down: Duration::ZERO,
        }
    }
}

/// Changes of a node that are remembered.
const HISTORY_MAX: usize = 100;
/// Longest piece of an answer that is read, in bytes.
const ANSWER_MAX: usize = 1024;
/// Longest piece of an answer that is shown.
const SHOWN_MAX: usize = 40;

/// What came of a question.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is up.
    Well,
    /// It is not, and why.
    Ill(String),
    /// It closed the connection without a word, which says nothing.
    Silent,
}

/// What a verdict does to the ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// The node goes.
    Removed,
    /// The node comes back.
    Added,
}

/// How a node stands.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Standing {
    in_ring: bool,
    /// Failures in a row.
    failures: u32,
    /// Since when it has answered well, while it is out.
    well_since_ms: Option<u64>,
}

impl Standing {
    /// In the ring, as every node is at the start.
    fn new() -> Self {
        Self {
            in_ring: true,
            failures: 0,
            well_since_ms: None,
        }
    }

    fn hear(&mut self, verdict: &Verdict, now_ms: u64, options: &Options) -> Option<Change> {
        match verdict {
            Verdict::Silent => None,
            Verdict::Ill(_) => {
                self.failures = self.failures.saturating_add(1);
                self.well_since_ms = None;
                let goes = self.in_ring && self.failures >= options.failures_to_remove;
                self.in_ring &= !goes;
                goes.then_some(Change::Removed)
            }
            Verdict::Well => {
                self.failures = 0;
                let since_ms = *self.well_since_ms.get_or_insert(now_ms);
                let held = u128::from(now_ms - since_ms) < options.hold_down.as_millis();
                let comes = !self.in_ring && !held;
                self.in_ring |= comes;
                if self.in_ring {
                    self.well_since_ms = None;
                }
                comes.then_some(Change::Added)
            }
        }
    }
}

/// Something that was found about a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// When, Unix milliseconds.
    pub at_ms: u64,
    /// What, and why.
    pub what: String,
}

/// What is known of a node's health.
#[derive(Debug, Clone)]
pub struct Record {
    /// Failures in a row.
    pub failures: u32,
    /// What was found, the oldest first: changes, and the first failure of a row.
    pub history: VecDeque<Event>,
}

/// The health of all nodes.
#[derive(Debug)]
pub struct Health {
    options: Options,
    clock: Clock,
    membership: Arc<Membership>,
    ledger: Arc<Ledger>,
    records: Vec<Mutex<Record>>,
}

impl Health {
    /// Of the nodes of a membership, which is told when one comes or goes.
    pub fn new(
        options: Options,
        clock: Clock,
        membership: Arc<Membership>,
        ledger: Arc<Ledger>,
    ) -> Self {
        let record = |_: &super::Node| {
            Mutex::new(Record {
                failures: 0,
                history: VecDeque::new(),
            })
        };
        Self {
            records: membership.nodes().iter().map(record).collect(),
            options,
            clock,
            membership,
            ledger,
        }
    }

    /// What is known of a node.
    pub fn record(&self, node: usize) -> Record {
        self.with(node, |record| record.clone())
    }

    /// Asks a node until nobody holds the other end of `stop` any more. Says to `located` once that it looked
    /// where the node is.
    pub fn watch(&self, node: usize, located: &Sender<()>, stop: &Receiver<()>) {
        let mut standing = Standing::new();
        // What was sent to it at its last good answer.
        let mut trusted = 0;
        let mut first = Some(located);
        let mut next = Instant::now();
        loop {
            let addresses = self.locate(node, standing.failures > 0);
            if let Some(located) = first.take() {
                // Whoever waits does not wait for ever.
                let _ = located.send(());
            }
            // Before the question: what is sent while it is under way is not known to have arrived.
            let sent = self.ledger.totals().nodes[node].lines;
            let verdict = addresses.and_then(|addresses| ask(&addresses, self.options.interval));
            let verdict = verdict.unwrap_or_else(|error| Verdict::Ill(error.to_string()));
            let change = standing.hear(&verdict, monotonic_ms(), &self.options);
            if verdict == Verdict::Well {
                trusted = sent;
            }
            self.take_over(node, &standing, &verdict, change, trusted);
            next = (next + self.options.interval).max(Instant::now());
            match stop.recv_deadline(next) {
                Err(RecvTimeoutError::Timeout) => {}
                _ => return,
            }
        }
    }

    /// Looks where a node is, which `failed` where it was, and says so when that is news. Returns where its
    /// admin interface may be.
    fn locate(&self, node: usize, failed: bool) -> io::Result<Vec<SocketAddr>> {
        let it = &self.membership.nodes()[node];
        let before = self.membership.addresses()[node];
        let found: Vec<_> = match ((&*it.host, it.admin_port).to_socket_addrs(), before) {
            (Ok(found), _) => found.collect(),
            // It is where it was: a resolver that is away says nothing about it.
            (Err(_), Some(mut before)) => {
                before.set_port(it.admin_port);
                vec![before]
            }
            (Err(error), None) => return Err(error),
        };
        let Some(mut address) = choose(&found, before, failed) else {
            return Err(io::Error::other("its name has no address"));
        };
        let asked = asked(found, address);
        address.set_port(it.port);
        if self.membership.locate(node, address)
            && let Some(before) = before
        {
            log::info!("node {} has moved from {before} to {address}", it.label);
            self.note(node, format!("moved from {before} to {address}"));
        }
        Ok(asked)
    }

    fn take_over(
        &self,
        node: usize,
        standing: &Standing,
        verdict: &Verdict,
        change: Option<Change>,
        trusted: u64,
    ) {
        let label = &self.membership.nodes()[node].label;
        let pid = std::process::id();
        self.with(node, |record| record.failures = standing.failures);
        match (change, verdict) {
            (Some(Change::Removed), Verdict::Ill(why)) => {
                self.membership.remove(node);
                // After that: whatever workers still sent to it is in.
                let sent = self.ledger.totals().nodes[node].lines;
                let doubtful = sent.saturating_sub(trusted);
                self.ledger.doubt(node, doubtful);
                log::warn!(
                    "[{pid}] Removing node {label} from the ring. {why}; {doubtful} lines were sent to it \
                     since its last good answer and may be lost"
                );
                self.note(node, format!("removed: {why}; {doubtful} lines doubtful"));
            }
            (Some(Change::Added), _) => {
                self.membership.add(node);
                log::warn!("[{pid}] Adding node {label} to the ring.");
                self.note(node, "added".into());
            }
            (_, Verdict::Ill(why)) if standing.failures == 1 => {
                log::debug!("node {label} failed a check: {why}");
                self.note(node, format!("failed: {why}"));
            }
            _ => {}
        }
    }

    fn note(&self, node: usize, what: String) {
        let at_ms = self.clock.now_ms();
        self.with(node, |record| {
            if record.history.len() == HISTORY_MAX {
                record.history.pop_front();
            }
            record.history.push_back(Event { at_ms, what });
        });
    }

    fn with<T>(&self, node: usize, look: impl FnOnce(&mut Record) -> T) -> T {
        let mut record = self.records[node]
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        look(&mut record)
    }
}

/// Which of the addresses of a name its node has, when it had another one `before`, or the same; the next one
/// when it `failed` there.
fn choose(found: &[SocketAddr], before: Option<SocketAddr>, failed: bool) -> Option<SocketAddr> {
    let before = before.map(|it| it.ip());
    // A name of several addresses is told in another order each time.
    let Some(at) = found.iter().find(|it| Some(it.ip()) == before) else {
        // The reference sends over IPv4.
        let chosen = found.iter().find(|address| address.is_ipv4());
        return chosen.or(found.first()).copied();
    };
    let mut others: Vec<_> = found.iter().filter(|it| rivals(it, at)).collect();
    others.sort_unstable();
    let next = others.iter().find(|it| ***it > *at).or(others.first());
    Some(**next.filter(|_| failed).unwrap_or(&at))
}

/// Where a node at `address` is asked: there, and where else its machine may be. Several addresses of one
/// family may be several machines; those say nothing about this one.
fn asked(mut found: Vec<SocketAddr>, address: SocketAddr) -> Vec<SocketAddr> {
    if found.iter().any(|it| rivals(it, &address)) {
        found.retain(|it| it.ip() == address.ip());
    }
    found
}

fn rivals(one: &SocketAddr, other: &SocketAddr) -> bool {
    one.is_ipv4() == other.is_ipv4() && one.ip() != other.ip()
}

/// Asks whoever answers first of these addresses; all of it takes no longer than `at_most`.
fn ask(addresses: &[SocketAddr], at_most: Duration) -> io::Result<Verdict> {
    let until = Instant::now() + at_most;
    let mut stream = connect(addresses, until)?;
    stream.set_write_timeout(Some(left(until)?))?;
    stream.write_all(b"health\r\n")?;
    stream.set_read_timeout(Some(left(until)?))?;
    let mut answer = [0; ANSWER_MAX];
    let length = loop {
        match stream.read(&mut answer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(late()),
            result => break result?,
        }
    };
    let answer = &answer[..length];
    Ok(if answer.is_empty() {
        Verdict::Silent
    } else if answer.windows(2).any(|pair| pair == b"up") {
        Verdict::Well
    } else {
        let shown = &answer[..length.min(SHOWN_MAX)];
        Verdict::Ill(format!(
            "it says {:?}",
            String::from_utf8_lossy(shown).trim_end()
        ))
    })
}

fn connect(addresses: &[SocketAddr], until: Instant) -> io::Result<TcpStream> {
    let mut failure = io::Error::other("its name has no address");
    for (at, address) in addresses.iter().enumerate() {
        // A machine that does not answer leaves time for the others.
        let share = left(until)? / u32::try_from(addresses.len() - at).unwrap_or(1);
        match TcpStream::connect_timeout(address, share.max(Duration::from_millis(1))) {
            Ok(stream) => return Ok(stream),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

fn left(until: Instant) -> io::Result<Duration> {
    let left = until.saturating_duration_since(Instant::now());
    if left.is_zero() {
        Err(late())
    } else {
        Ok(left)
    }
}

fn late() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "no answer within `checkInterval`")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::thread;

    fn ill() -> Verdict {
        Verdict::Ill("why".into())
    }

    /// What each of these verdicts changes, one every 10 ms.
    fn changes(options: &Options, verdicts: &[Verdict]) -> Vec<Option<Change>> {
        let mut standing = Standing::new();
        let verdicts = verdicts.iter().zip((0..).step_by(10));
        verdicts
            .map(|(verdict, now_ms)| standing.hear(verdict, now_ms, options))
            .collect()
    }

    #[test]
    fn the_first_failure_removes_and_the_first_success_adds() {
        let verdicts = [
            Verdict::Well,
            ill(),
            ill(),
            Verdict::Silent,
            Verdict::Well,
            Verdict::Well,
            Verdict::Silent,
            ill(),
        ];
        let (removed, added) = (Some(Change::Removed), Some(Change::Added));
        assert_eq!(
            changes(&Options::default(), &verdicts),
            [None, removed, None, None, added, None, None, removed]
        );
    }

    #[test]
    fn so_many_failures_in_a_row_remove() {
        let options = Options {
            failures_to_remove: 3,
            ..Options::default()
        };
        let verdicts = [
            ill(),
            ill(),
            Verdict::Well,
            ill(),
            ill(),
            Verdict::Silent,
            ill(),
            ill(),
        ];
        let mut expected = [None; 8];
        expected[6] = Some(Change::Removed);
        assert_eq!(changes(&options, &verdicts), expected);
    }

    #[test]
    fn a_node_that_flaps_is_held_down() {
        let options = Options {
            hold_down: Duration::from_millis(20),
            ..Options::default()
        };
        let verdicts = [
            ill(),
            Verdict::Well,
            ill(),
            Verdict::Well,
            Verdict::Silent,
            Verdict::Well,
            Verdict::Well,
        ];
        let (removed, added) = (Some(Change::Removed), Some(Change::Added));
        assert_eq!(
            changes(&options, &verdicts),
            [removed, None, None, None, None, added, None]
        );
    }

    #[test]
    fn a_node_stays_where_it_is_as_long_as_its_name_says_so() {
        let at = |text: &str| text.parse::<SocketAddr>().expect("an address");
        let (six, one, other) = (at("[::1]:1"), at("10.0.0.1:1"), at("10.0.0.2:1"));
        let stays = |found: &[_], before| choose(found, before, false);
        assert_eq!(stays(&[six, one, other], None), Some(one));
        let before = Some(at("10.0.0.2:8125"));
        assert_eq!(stays(&[six, one, other], before), Some(other));
        assert_eq!(stays(&[six, one], before), Some(one));
        assert_eq!(stays(&[six], Some(one)), Some(six));
        assert_eq!(stays(&[], Some(one)), None);
    }

    #[test]
    fn of_several_machines_of_one_name_the_one_is_asked_that_lines_go_to() {
        let at = |text: &str| text.parse::<SocketAddr>().expect("an address");
        let (six, one, other) = (at("[::1]:1"), at("10.0.0.1:1"), at("10.0.0.2:1"));
        assert_eq!(asked(vec![six, other, one], one), [one]);
        // One of each family is one machine.
        assert_eq!(asked(vec![six, one], one), [six, one]);
        // Where it fails, the next one is tried, and so on.
        for (before, next) in [(one, other), (other, one), (six, six)] {
            assert_eq!(choose(&[six, other, one], Some(before), true), Some(next));
        }
        assert_eq!(choose(&[six, one], Some(one), true), Some(one));
    }

    /// The health of one node, at a host.
    fn health_of(host: &str) -> Health {
        let node = super::super::Node {
            label: format!("{host}:8125"),
            host: host.into(),
            port: 8125,
            admin_port: 8126,
        };
        let (_, book) = crossbeam::channel::bounded(1);
        Health::new(
            Options::default(),
            Clock::Real,
            Arc::new(Membership::new(vec![node])),
            Arc::new(Ledger::new(Arc::default(), Vec::new(), book, 1)),
        )
    }

    #[test]
    fn a_node_is_asked_where_it_was_while_its_name_leads_nowhere() {
        let health = health_of("nowhere.invalid");
        health.locate(0, false).expect_err("no such name");
        let before = SocketAddr::from(([127, 0, 0, 1], 8125));
        health.membership.locate(0, before);
        let asked = health.locate(0, false).expect("where it was");
        assert_eq!(asked, [SocketAddr::from(([127, 0, 0, 1], 8126))]);
        assert_eq!(health.membership.addresses(), [Some(before)]);
    }

    /// The verdict on a node that answers so, with an end of the connection behind it.
    fn of_answer(answer: &'static [u8]) -> io::Result<Verdict> {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let address = listener.local_addr().expect("an address");
        let node = thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a question");
            let mut question = [0; 8];
            stream.read_exact(&mut question).expect("eight bytes");
            assert_eq!(&question, b"health\r\n");
            stream.write_all(answer).expect("an answer");
        });
        let verdict = ask(&[address], Duration::from_secs(10));
        node.join().expect("no panic");
        verdict
    }

    #[test]
    fn up_in_the_first_piece_is_well() {
        let of = |answer| of_answer(answer).expect("an answer");
        assert_eq!(of(b"health: up\n"), Verdict::Well);
        assert_eq!(of(b"whats up doc"), Verdict::Well);
        assert_eq!(
            of(b"health: down\n"),
            Verdict::Ill("it says \"health: down\"".into())
        );
        assert_eq!(of(b""), Verdict::Silent);
    }

    #[test]
    fn nobody_and_no_answer_are_failures() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let address = listener.local_addr().expect("an address");
        let late = ask(&[address], Duration::from_millis(30)).expect_err("nobody answers");
        assert_eq!(late.to_string(), "no answer within `checkInterval`");
        drop(listener);
        let refused = ask(&[address], Duration::from_secs(10)).expect_err("nobody listens");
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    }

    #[test]
    fn the_address_that_answers_is_asked() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let address = listener.local_addr().expect("an address");
        let nobody = TcpListener::bind("127.0.0.1:0").expect("bind");
        let gone = nobody.local_addr().expect("an address");
        drop(nobody);
        let stream = connect(&[gone, address], Instant::now() + Duration::from_secs(10));
        assert_eq!(stream.expect("one of them").peer_addr().ok(), Some(address));
    }
}
