//! `loadgen soak`: runs a server under mixed and hostile traffic, with faults of a backend switched on and
//! off, and holds it to the law: what was sent is what was counted, refused, cut, or dropped in plain sight.
//!
//! `unit` and `traffic` say what is sent, `senders` send it to the `subject`; `carbon` is the backend that
//! gets every flush, `faulty` the other one. `vitals` watch memory, descriptors and threads; `law` adds up,
//! and `report` tells.

mod carbon;
mod faulty;
mod law;
mod report;
mod senders;
mod subject;
mod traffic;
mod unit;
mod vitals;

use std::io::{self, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use clap::Args;
use serde_json::{Value, json};
use statsd_fast::runtime::sys::cpu::CpuClock;

use crate::admin::{Meters, Server};
use crate::figures::grouped;
use crate::quantity;
use crate::random::Random;
use carbon::Carbon;
use faulty::{Fault, Faulty};
use law::Law;
use report::{Phase, Report};
use senders::{CONNECTIONS, Doors, Shared};
use subject::Subject;
use traffic::{MAX_DATAGRAM, MAX_LINE};
use unit::Connections;
use vitals::{Memory, Vitals};

/// What to run, and for how long.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Program of the server; it is started with a configuration of its own.
    #[arg(long, value_name = "PATH")]
    daemon: PathBuf,

    /// How long to send, e.g. 30s, 5m; at least until every fault had a turn.
    #[arg(long, default_value = "5m", value_parser = quantity::duration)]
    duration: Duration,

    /// Datagrams, packets and pieces of streams a second, of each of nine classes; each holds up to 1000
    /// values. Who floods, resets and crowds has a pace of his own.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    rate: u64,

    /// Names that are new each time in place of a pool, within `maxNames` of the server.
    #[arg(long)]
    churn: bool,

    /// What is random follows from it.
    #[arg(long, default_value_t = 1)]
    seed: u64,

    /// Print one JSON object instead of tables.
    #[arg(long)]
    json: bool,

    /// Show no progress. (It is shown on a terminal only.)
    #[arg(long)]
    quiet: bool,
}

/// Most growth of memory after the first quarter, in percent; held against runs of [`MEMORY_FROM`] and more.
const GROWTH_MAX: f64 = 5.0;
const MEMORY_FROM: Duration = Duration::from_secs(60);
/// How long a server may take to let go of descriptors and threads when all clients are gone.
const LET_GO_MAX: Duration = Duration::from_secs(30);
/// Time between two looks at the server.
const LOOK: Duration = Duration::from_millis(100);
/// Names a server with `--churn` may hold.
const NAMES_MAX: u32 = 20_000;

/// Runs; returns what to print, and whether all is well.
pub(crate) fn run(options: &Options, stop: &AtomicBool) -> anyhow::Result<(String, bool)> {
    let report = soak(options, stop)?;
    let good = report.faults().is_empty();
    let text = if options.json {
        format!("{}\n", report.json())
    } else {
        report.table()
    };
    Ok((text, good))
}

fn config(directory: &Path, carbon: &Carbon, api: &str, churn: bool) -> Value {
    let path = |name: &str| directory.join(name);
    let mut config = json!({
        "servers": [
            {"server": "./servers/udp", "address": "127.0.0.1", "port": "0"},
            {"server": "./servers/tcp", "address": "127.0.0.1", "port": "0"},
            {"server": "./servers/tcp", "address": "127.0.0.1", "port": "0"},
            {"server": "./servers/tcp", "socket": path("unix")},
            {"server": "./servers/unixgram", "socket": path("gram")},
            {"server": "./servers/unixstream", "socket": path("packets")},
        ],
        "mgmt_port": "0",
        "flushInterval": 1000,
        "deleteIdleStats": true,
        "maxDatagram": MAX_DATAGRAM,
        // So small that a flood is too much for it, which has to be counted.
        "receiveBuffer": 128 << 10,
        "streamLine": MAX_LINE,
        "streamConnections": CONNECTIONS,
        "backends": ["./backends/graphite", "librato"],
        "graphiteHost": "127.0.0.1",
        "graphitePort": carbon.port(),
        // A backend that is away must not look like growth.
        "outboxFlushes": 3,
        "librato": {
            "email": "soak@example.com",
            "token": "soak",
            "host": "soak",
            "api": api,
            "retryDelaySecs": 0.1,
            "postTimeoutSecs": 1,
            // Otherwise an interval before the first datagram is nothing for it, and no flush.
            "skipInternalMetrics": false,
        },
    });
    if churn {
        config["maxNames"] = json!(NAMES_MAX);
    }
    config
}

fn soak(options: &Options, stop: &AtomicBool) -> anyhow::Result<Report> {
    let (carbon, faulty) = (Carbon::start()?, Faulty::start()?);
    let config = |directory: &Path, fault: Fault| {
        config(directory, &carbon, &fault.url(faulty.port()), options.churn)
    };
    let subject = Subject::start(&options.daemon, |directory| config(directory, Fault::None))?;
    let doors = doors(&subject)?;
    let (udp, admin) = (doors.udp, doors.admin);
    // A connection each time: one that is silent gives way when others crowd the admin interface.
    let ask = || Server::connect(udp, admin)?.meters();
    // One that is open, now and when all is over: when the server lets go of one that is not cannot be told.
    let mut session = Server::connect(udp, admin)?;
    session.meters()?;
    let before = Vitals::of(subject.id())?;
    drop(session);
    let connections = Connections::default();
    let classes = traffic::classes(&mut Random::new(options.seed, 0));
    let ended = AtomicBool::new(false);
    let shared = Shared {
        doors,
        connections: &connections,
        rate: options.rate,
        churn: options.churn,
        stop: &ended,
    };
    let mut watch = Watch {
        options,
        subject: &subject,
        ask: &ask,
        clock: CpuClock::of_process(subject.id()).context("the server has no CPU clock")?,
        memory: Memory::default(),
        phases: Vec::new(),
        begun: Instant::now(),
        round: false,
        stop,
    };
    thread::scope(|scope| {
        let mut senders = Vec::new();
        for (number, class) in classes.iter().enumerate() {
            let (shared, mut random) = (&shared, Random::new(options.seed, 1 + number as u64));
            senders.push(scope.spawn(move || match class.name {
                "foes" => shared.foes(class),
                "frames" => shared.frames(class),
                "crowd" => shared.crowd(class),
                "flood" => shared.flood(class),
                _ => shared.send(class, &mut random),
            }));
        }
        senders.push(scope.spawn(|| shared.sessions()));
        let watched = watch.through_faults(&faulty, |fault| config(subject.directory(), fault));
        ended.store(true, Ordering::Relaxed);
        let sent = senders.into_iter().map(crate::load::joined);
        let sent = sent.collect::<anyhow::Result<Vec<()>>>();
        // What a sender met tells more than what the watch did.
        sent.and(watched)
    })?;
    let Watch { memory, phases, .. } = watch;
    let mut faults = Vec::new();
    let mut session = Server::connect(udp, admin)?;
    session.meters()?;
    let after = let_go(&subject, before, &mut faults)?;
    drop(session);
    let line = subject.stop()?;
    let account = law::account(&line).context("the server's account cannot be read")?;
    let sums = carbon.finish();
    faulty.finish()?;
    let law = Law::draw(&classes, &connections.effects(), &sums, &account);
    let mut report = Report {
        law,
        account,
        flushes: sums.flushes,
        phases,
        rss_kib: memory.early_and_late(),
        vitals: (before, after),
        faults,
    };
    if options.duration >= MEMORY_FROM && report.growth() > GROWTH_MAX {
        let growth = format!(
            "memory grew by {:.1} % after the first quarter",
            report.growth()
        );
        report.faults.push(growth);
    }
    Ok(report)
}

fn doors(subject: &Subject) -> anyhow::Result<Doors> {
    let directory = subject.directory();
    let (udp, tcp) = (
        subject.addresses("listening on udp "),
        subject.addresses("listening on tcp "),
    );
    let admin = subject.addresses("admin interface on tcp ");
    ensure!(
        udp.len() == 1 && tcp.len() == 2 && admin.len() == 1,
        "the server does not say where it listens"
    );
    Ok(Doors {
        udp: udp[0],
        tcp: tcp[0],
        crowded: tcp[1],
        admin: admin[0],
        unix: directory.join("unix"),
        gram: directory.join("gram"),
        packets: directory.join("packets"),
    })
}

/// Waits until the server holds no more than before.
fn let_go(subject: &Subject, before: Vitals, faults: &mut Vec<String>) -> anyhow::Result<Vitals> {
    let until = Instant::now() + LET_GO_MAX;
    loop {
        let now = Vitals::of(subject.id())?;
        let same = now.descriptors == before.descriptors && now.threads == before.threads;
        if same {
            return Ok(now);
        }
        if Instant::now() > until {
            faults.push(format!(
                "it held {} descriptors and {} threads before, and {} and {} when all was over",
                before.descriptors, before.threads, now.descriptors, now.threads
            ));
            return Ok(now);
        }
        thread::sleep(LOOK);
    }
}

/// Looks at the server while others send.
struct Watch<'a> {
    options: &'a Options,
    subject: &'a Subject,
    ask: &'a dyn Fn() -> anyhow::Result<Meters>,
    clock: CpuClock,
    memory: Memory,
    /// One for each fault, and for none.
    phases: Vec<Phase>,
    begun: Instant,
    /// Every fault had a turn: a soak is no shorter than that.
    round: bool,
    stop: &'a AtomicBool,
}

impl Watch<'_> {
    fn over(&self) -> bool {
        let through = self.round && self.begun.elapsed() >= self.options.duration;
        through || self.stop.load(Ordering::Relaxed)
    }

    /// Switches one fault after another on and off again until the time is over.
    fn through_faults(
        &mut self,
        faulty: &Faulty,
        config: impl Fn(Fault) -> Value,
    ) -> anyhow::Result<()> {
        let long =
            (self.options.duration / 20).clamp(Duration::from_millis(50), Duration::from_secs(10));
        for fault in Fault::ALL.into_iter().cycle() {
            self.phase(Fault::None, long / 2)?;
            if self.over() {
                break;
            }
            let moved = fault.url(0) != Fault::None.url(0);
            faulty.set(fault);
            if moved {
                self.subject.reload(&config(fault))?;
            }
            self.phase(fault, long)?;
            self.round |= fault == Fault::ALL[Fault::ALL.len() - 1];
            faulty.set(Fault::None);
            if moved {
                self.subject.reload(&config(Fault::None))?;
            }
        }
        if self.options.progress() {
            let _ = write!(io::stderr().lock(), "\r\x1b[K");
        }
        Ok(())
    }

    /// Looks on for so long.
    fn phase(&mut self, fault: Fault, time: Duration) -> anyhow::Result<()> {
        let (began, meters) = (Instant::now(), (self.ask)()?);
        let cpu = self.clock.used_ns()?;
        while began.elapsed() < time && !self.over() {
            thread::sleep(LOOK.min(time));
            let vitals = Vitals::of(self.subject.id()).context("the server has ended")?;
            self.memory.note(vitals.rss_kib);
            self.draw(fault, vitals);
        }
        let counted = (self.ask)()?.since(&meters)?;
        let used = self.clock.used_ns()? - cpu;
        let known = self.phases.iter().position(|it| it.fault == fault);
        let at = known.unwrap_or_else(|| {
            self.phases.push(Phase::new(fault));
            self.phases.len() - 1
        });
        let phase = &mut self.phases[at];
        phase.time += began.elapsed();
        phase.values += values(&counted);
        phase.cpu_ns += used;
        phase.kernel_drops += counted.get("kernel_drops");
        Ok(())
    }

    fn draw(&self, fault: Fault, vitals: Vitals) {
        if self.options.progress() {
            let (now, all) = (self.begun.elapsed(), self.options.duration);
            let line = format!(
                "{:7.1} s of {:.0} s   fault: {:<16} {:>10} KiB   {} descriptors   {} threads",
                now.as_secs_f64(),
                all.as_secs_f64(),
                fault.name(),
                grouped(vitals.rss_kib),
                vitals.descriptors,
                vitals.threads,
            );
            // A terminal that does not take it is no reason to stop.
            let _ = write!(io::stderr().lock(), "\r{line}\x1b[K");
        }
    }
}

impl Options {
    fn progress(&self) -> bool {
        !self.quiet && io::stderr().is_terminal()
    }
}

fn values(meters: &Meters) -> u64 {
    meters.below("samples.").map(|(_, count)| count).sum()
}
