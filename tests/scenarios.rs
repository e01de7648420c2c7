//! Scripts that lead a daemon through its intervals: what is sent, when the clock moves, what reaches carbon.
//!
//! The server runs in this process with real sockets at both ends and a clock that the script moves, so
//! nothing waits for time to pass. A datagram on loopback lies in the server's socket when `send`
//! returns, and a worker takes what is queued before it answers a tick: what a script sent before a
//! TICK is in the flush of that TICK, whatever worker it went to.
//!
//! A script of `tests/scenarios/` has one step a line; `#` begins a comment line:
//!
//! | step | meaning |
//! |---|---|
//! | `BEGIN 3s` | lets the clock begin so much later; before all other steps |
//! | `CONFIG settings` | adds settings, as in a configuration file; before all other steps |
//! | `RELOAD settings` | takes over these settings in place of those of `CONFIG` |
//! | `SEND datagram` | sends from the first source; `\n`, `\xNN` and `\\` are escapes |
//! | `SEND@3 datagram` | from source 3; each source is a flow of its own, so several reach several workers |
//! | `SEND@0..15 datagram` | the same datagram from each of these sources, both ends included |
//! | `WAIT 4s` | moves the clock to where no flush is due; also in `ms` |
//! | `TICK 10s` | moves the clock to where one is due, and waits for it |
//! | `ASK command` | asks the admin interface |
//! | `REPLY line` | the next line of its reply; all of them must be named |
//! | `STOP` | stops the server and waits for its last flush |
//! | `EXPECT name value ...` | the flush holds these, to the letter |
//! | `NEAR name value ...` | the flush holds these within 0.1 % |
//! | `EXPECT-NONE name ...` | the flush holds none of these |
//! | `CLOSED` | the flush holds nothing else, apart from what depends on time and `statsd_fast.*` |
//!
//! With each flush its time is checked, and that it saw every datagram of its interval; at the stop, that
//! the server's accounts come to what was sent, and say of names that were swept what the flushes said.

#[allow(
    dead_code,
    unused_imports,
    reason = "each test program uses a part of it"
)]
mod daemon;

use daemon::{FakeCarbon, Flush, client_of};
use statsd_fast::config::{self, Loaded};
use statsd_fast::runtime::clock::{Clock, Manual};
use statsd_fast::server::Server;
use std::collections::{BTreeSet, VecDeque};
use std::io::{Read as _, Write as _};
use std::net::{TcpStream, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use std::{fs, str};

macro_rules! scenarios {
    ($($test:ident = $file:literal,)*) => {
        const LISTED: &[&str] = &[$($file),*];
        $(#[test]
        fn $test() {
            play_file($file);
        })*
    };
}

scenarios! {
    admin_deletes = "admin-deletes.txt",
    admin_shows_the_running_interval = "admin-shows-the-running-interval.txt",
    aligned_flushes = "aligned-flushes.txt",
    bad_lines = "bad-lines.txt",
    counters = "counters.txt",
    delete_flags = "delete-flags.txt",
    final_flush = "final-flush.txt",
    gauge_deltas_of_two_flows = "gauge-deltas-of-two-flows.txt",
    gauges_with_a_ttl = "gauges-with-a-ttl.txt",
    idle_flushes = "idle-flushes.txt",
    idle_zeros = "idle-zeros.txt",
    limit_of_name_length = "limit-of-name-length.txt",
    limit_of_names = "limit-of-names.txt",
    limit_of_names_forgotten = "limit-of-names-forgotten.txt",
    limit_of_set_members = "limit-of-set-members.txt",
    limit_of_set_members_over_workers = "limit-of-set-members-over-workers.txt",
    mappings = "mappings.txt",
    metrics_named_like_our_own = "metrics-named-like-our-own.txt",
    namespace_legacy = "namespace-legacy.txt",
    names_swept_at_the_stop = "names-swept-at-the-stop.txt",
    namespace_prefixed = "namespace-prefixed.txt",
    prefix_stats = "prefix-stats.txt",
    reload_of_deletion_and_ttl = "reload-of-deletion-and-ttl.txt",
    reload_of_limits = "reload-of-limits.txt",
    reload_of_mappings = "reload-of-mappings.txt",
    reload_of_names = "reload-of-names.txt",
    reload_of_statistics = "reload-of-statistics.txt",
    reload_of_the_interval = "reload-of-the-interval.txt",
    sets_of_several_flows = "sets-of-several-flows.txt",
    timer_beyond_the_exact_limit = "timer-beyond-the-exact-limit.txt",
    timestamp_lag = "timestamp-lag.txt",
    weighted_timers = "weighted-timers.txt",
}

#[test]
fn every_script_is_played() {
    let found: BTreeSet<String> = fs::read_dir(directory())
        .expect("the directory of the scripts")
        .map(|entry| entry.expect("an entry").file_name())
        .map(|name| name.into_string().expect("a name that is text"))
        .collect();
    let listed: BTreeSet<String> = LISTED.iter().map(ToString::to_string).collect();
    assert_eq!(found, listed);
}

fn directory() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios")
}

fn play_file(name: &str) {
    let script = fs::read_to_string(directory().join(name)).expect("a readable script");
    if let Err(problem) = play(name, &script) {
        panic!("{problem}");
    }
}

/// When every script begins, Unix milliseconds: on the grid of any interval it may set.
const BEGIN_MS: u64 = 1_700_000_000_000;

/// How far a value may be off for NEAR.
const NEAR: f64 = 1e-3;

/// Where the script is, in the life of its server.
enum Stage {
    /// Settings are collected.
    Configured {
        settings: Vec<String>,
        begin_ms: u64,
    },
    Started(Box<Started>),
}

struct Started {
    /// `None` once it was stopped.
    server: Option<Server>,
    clock: Arc<Manual>,
    now_ms: u64,
    /// When the next flush is due, by the rule of the grid told once more.
    due_ms: u64,
    begin_ms: u64,
    interval_ms: u64,
    align: bool,
    /// The two above from the next flush on.
    next: Option<(u64, bool)>,
    /// Sources, made when first used.
    flows: Vec<UdpSocket>,
    sent: u64,
    sent_since_flush: u64,
}

struct Player {
    carbon: FakeCarbon,
    stage: Stage,
    /// What the script has not asked of the flush it looks at; all its names.
    left: Option<Flush>,
    names: BTreeSet<String>,
    /// `names_swept` of all flushes.
    swept: u64,
    /// Lines of the last reply that the script has not named yet.
    reply: VecDeque<String>,
}

/// Plays a script to its end; the first step that does not hold is the error.
fn play(name: &str, script: &str) -> Result<(), String> {
    let mut player = Player {
        carbon: FakeCarbon::start(),
        stage: Stage::Configured {
            settings: Vec::new(),
            begin_ms: BEGIN_MS,
        },
        left: None,
        names: BTreeSet::new(),
        swept: 0,
        reply: VecDeque::new(),
    };
    let mut outcome = Ok(());
    for (index, line) in script.lines().enumerate() {
        let line = line.trim_end();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        // Shown by a test that fails, also when it fails waiting.
        println!("{name}:{}: {line}", index + 1);
        let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
        outcome = player
            .step(verb, rest)
            .map_err(|problem| format!("{name}:{}: {line}\n  {problem}", index + 1));
        if outcome.is_err() {
            break;
        }
    }
    outcome = outcome.and_then(|()| player.nothing_left_to_name());
    // No server outlives its script, and the accounts of each are checked.
    if matches!(&player.stage, Stage::Started(started) if started.server.is_some()) {
        let stopped = player.stop();
        outcome = outcome.and(stopped);
    }
    outcome
}

impl Player {
    fn step(&mut self, verb: &str, rest: &str) -> Result<(), String> {
        let (verb, source) = verb.split_once('@').unwrap_or((verb, ""));
        if verb != "REPLY" {
            self.nothing_left_to_name()?;
        }
        match verb {
            "BEGIN" => match &mut self.stage {
                Stage::Configured { begin_ms, .. } => *begin_ms += milliseconds(rest)?,
                _ => return Err("the clock begins before all other steps".into()),
            },
            "CONFIG" => match &mut self.stage {
                Stage::Configured { settings, .. } => settings.push(rest.into()),
                _ => return Err("settings come before all other steps".into()),
            },
            "RELOAD" => {
                let carbon_port = self.carbon.port();
                self.running()?.reload(rest, carbon_port)?;
            }
            "ASK" => self.reply = self.running()?.ask(rest)?,
            "REPLY" => match self.reply.pop_front() {
                Some(line) if line == rest => {}
                line => return Err(format!("the line is {line:?}")),
            },
            "SEND" => {
                let datagram = unescaped(rest)?;
                for flow in flows(source)? {
                    self.running()?.send(flow, &datagram)?;
                }
            }
            "WAIT" => self.running()?.advance(rest, false)?,
            "TICK" => {
                self.running()?.advance(rest, true)?;
                self.look_at_next_flush()?;
            }
            "STOP" => self.stop()?,
            "EXPECT" => {
                for (name, value) in pairs(rest)? {
                    let found = self.take(name)?;
                    if found != value {
                        return Err(format!("{name} is {found}"));
                    }
                }
            }
            "NEAR" => {
                for (name, value) in pairs(rest)? {
                    let number = |text: &str| {
                        text.parse::<f64>()
                            .map_err(|_| format!("{name}: {text} is no number"))
                    };
                    let (found, value) = (number(&self.take(name)?)?, number(value)?);
                    // Asked this way round, NaN is not near.
                    let near = (found - value).abs() <= NEAR * value.abs();
                    if !near {
                        return Err(format!("{name} is {found}"));
                    }
                }
            }
            "EXPECT-NONE" => {
                self.flush()?;
                let there = rest.split_whitespace().find(|&n| self.names.contains(n));
                if let Some(name) = there {
                    return Err(format!("{name} is there"));
                }
            }
            "CLOSED" => {
                let left = self.flush()?.values.iter();
                let left: Vec<_> = left
                    .filter(|(name, _)| !unforeseeable(name))
                    .map(|(name, value)| format!("{name} {value}"))
                    .collect();
                if !left.is_empty() {
                    return Err(format!("nobody expected: {}", left.join("  ")));
                }
            }
            _ => return Err(format!("there is no step {verb}")),
        }
        Ok(())
    }

    /// The server, started when the first step asks for it.
    fn running(&mut self) -> Result<&mut Started, String> {
        if let Stage::Configured { settings, begin_ms } = &self.stage {
            let started = Started::start(settings, *begin_ms, self.carbon.port())?;
            self.stage = Stage::Started(Box::new(started));
        }
        match &mut self.stage {
            Stage::Started(started) if started.server.is_some() => Ok(started),
            _ => Err("the server was stopped".into()),
        }
    }

    fn nothing_left_to_name(&self) -> Result<(), String> {
        if self.reply.is_empty() {
            return Ok(());
        }
        Err(format!("lines of the reply nobody named: {:?}", self.reply))
    }

    fn flush(&mut self) -> Result<&mut Flush, String> {
        self.left.as_mut().ok_or("there was no flush yet".into())
    }

    /// The value of a name that was not asked for yet.
    fn take(&mut self, name: &str) -> Result<String, String> {
        let asked_before = self.names.contains(name);
        self.flush()?.values.remove(name).ok_or_else(|| {
            let why = if asked_before {
                "was asked for before"
            } else {
                "is not there"
            };
            format!("{name} {why}")
        })
    }

    fn look_at_next_flush(&mut self) -> Result<(), String> {
        let Stage::Started(started) = &mut self.stage else {
            return Err("the server was not started".into());
        };
        let flush = self.carbon.next();
        let sent = std::mem::take(&mut started.sent_since_flush).to_string();
        let due = (started.now_ms + 500) / 1000;
        let seen = flush
            .values
            .iter()
            .find(|(name, _)| name.contains("statsd_fast.packets"))
            .map(|(_, value)| value.clone());
        let swept =
            (flush.values.iter()).find(|(name, _)| name.contains("statsd_fast.names_swept"));
        let swept = swept.and_then(|(_, value)| value.parse::<u64>().ok());
        self.swept += swept.unwrap_or_default();
        self.names = flush.values.keys().cloned().collect();
        let timestamp = flush.timestamp;
        self.left = Some(flush);
        if timestamp != due {
            return Err(format!(
                "a flush stamped {timestamp} came, the clock is at {due}"
            ));
        }
        if seen.as_ref() != Some(&sent) {
            return Err(format!(
                "{sent} datagrams were sent before this flush, it saw {seen:?}"
            ));
        }
        Ok(())
    }

    fn stop(&mut self) -> Result<(), String> {
        let started = self.running()?;
        let sent = started.sent;
        let server = started.server.take().expect("it runs");
        let totals = server.stop();
        self.look_at_next_flush()?;
        let accounts = &totals.ingest;
        let taken = accounts.recorded.iter().sum::<u64>();
        let dropped = accounts.mapped_dropped + accounts.no_room_total();
        let values = taken + accounts.rejected_total() + dropped;
        if accounts.packets != sent
            || accounts.kernel_drops + totals.flushes_dropped != 0
            || values < accounts.lines
        {
            return Err(format!("{sent} datagrams were sent, but {totals:?}"));
        }
        let mut meters = totals.meters.each();
        let swept = meters.find(|(meter, _)| meter.name == "names_swept");
        if swept.map(|(_, swept)| swept) != Some(self.swept) {
            let flushed = self.swept;
            return Err(format!("{swept:?}, but all flushes together say {flushed}"));
        }
        Ok(())
    }
}

impl Started {
    fn start(settings: &[String], begin_ms: u64, carbon_port: u16) -> Result<Self, String> {
        let loaded = configured(&settings.join(", "), carbon_port)?;
        let clock = Manual::new(begin_ms);
        let align = loaded.config.flush.align;
        let interval_ms = loaded.config.flush.interval.as_millis() as u64;
        let server = Server::start(loaded, Clock::Manual(clock.clone()))
            .map_err(|error| format!("{error:#}"))?;
        let mut started = Self {
            server: Some(server),
            clock,
            now_ms: begin_ms,
            due_ms: 0,
            begin_ms,
            interval_ms,
            align,
            next: None,
            flows: Vec::new(),
            sent: 0,
            sent_since_flush: 0,
        };
        started.due_ms = started.next_due();
        Ok(started)
    }

    fn reload(&mut self, settings: &str, carbon_port: u16) -> Result<(), String> {
        let loaded = configured(settings, carbon_port)?;
        let flush = &loaded.config.flush;
        self.next = Some((flush.interval.as_millis() as u64, flush.align));
        let server = self.server.as_mut().expect("it runs");
        let reloaded = server.reload(loaded);
        reloaded.map(drop).map_err(|error| format!("{error:#}"))
    }

    fn ask(&mut self, command: &str) -> Result<VecDeque<String>, String> {
        let address = self.server.as_ref().expect("it runs").admin_address();
        let asked = || -> std::io::Result<String> {
            let mut stream = TcpStream::connect(address)?;
            stream.write_all(format!("{command}\nquit\n").as_bytes())?;
            let mut reply = String::new();
            stream.read_to_string(&mut reply)?;
            Ok(reply)
        };
        let reply = asked().map_err(|error| format!("cannot be asked: {error}"))?;
        Ok(reply.split_terminator('\n').map(String::from).collect())
    }

    /// The first moment of the grid that is more than half an interval away. The grid begins at the
    /// start, in whole seconds, or, aligned, at the beginning of Unix time.
    fn next_due(&self) -> u64 {
        let grid = if self.align {
            0
        } else {
            (self.begin_ms + 500) / 1000 * 1000
        };
        let first = self.now_ms.saturating_sub(grid) / self.interval_ms;
        (first..)
            .map(|n| grid + n * self.interval_ms)
            .find(|at| 2 * at > 2 * self.now_ms + self.interval_ms)
            .expect("the grid has no end")
    }

    fn send(&mut self, flow: usize, datagram: &[u8]) -> Result<(), String> {
        let address = self.server.as_ref().expect("it runs").addresses()[0]
            .socket()
            .expect("a UDP listener has a port");
        while self.flows.len() <= flow {
            self.flows.push(client_of(address));
        }
        let sent = self.flows[flow].send(datagram);
        sent.map_err(|error| format!("cannot be sent: {error}"))?;
        self.sent += 1;
        self.sent_since_flush += 1;
        Ok(())
    }

    /// Moves the clock, to where a flush is due or to where none is.
    fn advance(&mut self, text: &str, to_flush: bool) -> Result<(), String> {
        let by_ms = milliseconds(text)?;
        self.now_ms += by_ms;
        match (self.now_ms >= self.due_ms, to_flush) {
            (false, true) => return Err("no flush is due yet".into()),
            (true, false) => return Err("a flush is due, this is a TICK".into()),
            _ => {}
        }
        if to_flush {
            if let Some((interval_ms, align)) = self.next.take() {
                (self.interval_ms, self.align) = (interval_ms, align);
            }
            self.due_ms = self.next_due();
        }
        self.clock.advance(Duration::from_millis(by_ms));
        Ok(())
    }
}

/// Settings of a script on top of those every script has.
fn configured(settings: &str, carbon_port: u16) -> Result<Loaded, String> {
    let text = format!(
        "{{ address: '127.0.0.1', port: '0', mgmt_port: '0', pinThreads: false, \
         graphiteHost: '127.0.0.1', graphitePort: {carbon_port}, {settings} }}"
    );
    let loaded = config::parse(&text, "CONFIG").map_err(|error| error.to_string())?;
    match loaded.warnings.first() {
        Some(warning) => Err(warning.to_string()),
        None => Ok(loaded),
    }
}

/// `10s` or `250ms`.
fn milliseconds(text: &str) -> Result<u64, String> {
    let split = text.find(|c: char| !c.is_ascii_digit());
    let (digits, unit) = text.split_at(split.unwrap_or(text.len()));
    match (digits.parse::<u64>(), unit) {
        (Ok(number), "ms") => Ok(number),
        (Ok(number), "s") => Ok(number * 1000),
        _ => Err("a time is written 10s or 250ms".into()),
    }
}

/// What no script can know: measurements, and the server's own accounts, which it may ask for but need not.
fn unforeseeable(name: &str) -> bool {
    ["statsd_fast.", "graphiteStats.", "processing_time"]
        .iter()
        .any(|part| name.contains(part))
}

/// `3` or `0..15`; nothing is the first.
fn flows(text: &str) -> Result<std::ops::RangeInclusive<usize>, String> {
    let number = |text: &str| {
        text.parse::<usize>()
            .ok()
            .filter(|number| *number < 64)
            .ok_or(format!("{text:?} is no source, 0 to 63"))
    };
    match text.split_once("..") {
        _ if text.is_empty() => Ok(0..=0),
        Some((first, last)) => Ok(number(first)?..=number(last)?),
        None => number(text).map(|number| number..=number),
    }
}

/// Names and values in turn.
fn pairs(text: &str) -> Result<Vec<(&str, &str)>, String> {
    let words: Vec<_> = text.split_whitespace().collect();
    let (pairs, rest) = words.as_chunks::<2>();
    if pairs.is_empty() || !rest.is_empty() {
        return Err("each name has a value".into());
    }
    Ok(pairs.iter().map(|[name, value]| (*name, *value)).collect())
}

fn unescaped(text: &str) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        let (escaped, length) = match rest {
            [b'n', ..] => (Some(b'\n'), 1),
            [b'\\', ..] => (Some(b'\\'), 1),
            [b'x', high, low, ..] => {
                let digits = [*high, *low];
                let digits = str::from_utf8(&digits).unwrap_or_default();
                (u8::from_str_radix(digits, 16).ok(), 3)
            }
            _ => (None, 0),
        };
        bytes.push(escaped.ok_or("the escapes are \\n, \\\\ and \\xNN")?);
        rest = &rest[length..];
    }
    Ok(bytes)
}

/// What playing a script that does not hold says.
fn failure(script: &str) -> String {
    let script = script.replace(" / ", "\n");
    play("it", &script).expect_err("a script that does not hold")
}

#[test]
fn a_script_that_does_not_hold_fails_at_its_step() {
    let begin = "SEND c:1|c / TICK 10s / ";
    for (steps, expected) in [
        (
            "EXPECT stats.c 1",
            "it:3: EXPECT stats.c 1\n  stats.c is 0.1",
        ),
        (
            "EXPECT stats.d 1",
            "it:3: EXPECT stats.d 1\n  stats.d is not there",
        ),
        (
            "EXPECT stats.c 0.1 stats.c 0.1",
            "it:3: EXPECT stats.c 0.1 stats.c 0.1\n  stats.c was asked for before",
        ),
        (
            "NEAR stats.c 0.1002",
            "it:3: NEAR stats.c 0.1002\n  stats.c is 0.1",
        ),
        (
            "NEAR stats.c 0.10009 / NEAR statsd.numStats NaN",
            "it:4: NEAR statsd.numStats NaN\n  statsd.numStats is 4",
        ),
        (
            "EXPECT-NONE d stats.c",
            "it:3: EXPECT-NONE d stats.c\n  stats.c is there",
        ),
        (
            "EXPECT stats.c",
            "it:3: EXPECT stats.c\n  each name has a value",
        ),
        (
            "CONFIG debug: true",
            "it:3: CONFIG debug: true\n  settings come before all other steps",
        ),
        (
            "STOP / SEND c:1|c",
            "it:4: SEND c:1|c\n  the server was stopped",
        ),
        ("TICK 10", "it:3: TICK 10\n  a time is written 10s or 250ms"),
        (
            "SEND@64 c:1|c",
            "it:3: SEND@64 c:1|c\n  \"64\" is no source, 0 to 63",
        ),
        (
            "SEND \\x0",
            "it:3: SEND \\x0\n  the escapes are \\n, \\\\ and \\xNN",
        ),
        ("LOOK", "it:3: LOOK\n  there is no step LOOK"),
        (
            "WAIT 10s",
            "it:3: WAIT 10s\n  a flush is due, this is a TICK",
        ),
        ("TICK 9999ms", "it:3: TICK 9999ms\n  no flush is due yet"),
    ] {
        assert_eq!(failure(&format!("{begin}{steps}")), expected);
    }
    let open = failure(&format!("{begin}EXPECT stats.c 0.1 / CLOSED"));
    assert!(
        open.starts_with("it:4: CLOSED\n  nobody expected: ")
            && open.contains("stats_counts.c 1  ")
            && !open.contains("stats.c "),
        "{open}"
    );
    assert_eq!(
        failure("CONFIG flushInterval: 'x' / TICK 10s")
            .split(':')
            .nth(1),
        Some("2")
    );
}

#[test]
fn escapes_stand_for_their_bytes() {
    assert_eq!(
        unescaped("a\\n\\x00\\xfe\\\\n|@#").expect("known escapes"),
        b"a\n\0\xfe\\n|@#"
    );
}
