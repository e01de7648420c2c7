//! statsd-fast: a StatsD server that counts every packet.
//!
//! This page is the map; it holds no code.
//!
//! # The path
//!
//! ```text
//! ingest    source --Batch--> packet --line--> parse --Sample--> table    a pinned thread for each source
//!                                                                  |
//!           .-------------------------Harvest----------------------'
//!           v
//! flush     merge --> statistics                                          one thread
//!                         |
//!           .--Snapshot---'
//!           v
//! deliver   encode --> sink                                               a thread for each backend
//! ```
//!
//! [`admin`] asks the flusher, which takes a harvest and answers about the running interval. A reload
//! changes options between two harvests and exchanges backends between two flushes; sockets, workers and
//! names stay.
//!
//! With a directory for it, a backend's outbox puts aside on disk what waits ([`deliver::spool`]), also for
//! the next process.
//!
//! With a state file, `flush` and `deliver` lay what is to outlive the process on a shelf ([`metric::kept`]),
//! and [`state`] writes it down, on a thread of its own, and reads it at the next start.
//!
//! Another process can take the place of this one ([`takeover`]): it inherits the sockets
//! ([`ingest::source::inherited`]), and the flusher's open interval goes over as one noun
//! ([`metric::carried`]).
//!
//! When a repeater is configured, a worker copies each batch before it is read, and the copy
//! ([`metric::copied`]) goes to `deliver` without waiting for anything.
//!
//! The [`proxy`] is a second program in one: the source and the worker's loop of [`ingest`], with the way
//! to the daemon that a name belongs to in the place of the table.
//!
//! Three wings stand side by side along the path: [`ingest`], [`flush`], [`deliver`]. Below them lie
//! the nouns they hand each other, [`metric`], and below those the machine, [`runtime`]. Above them
//! is the wiring: [`config`] reads what was written and knows every wing's options, [`server`] knows
//! that all the parts exist, owns the threads, and computes nothing. The proxy stands between: above
//! `ingest`, of which it uses the loop, the packets and the sources, and below the wiring.
//!
//! # Invariants
//!
//! 1. **Nothing is shared while packets arrive.** A worker owns its sockets and its table. On the
//!    sample path there is no lock, no atomic read-modify-write, no log, no configuration look-up,
//!    and no allocation but for a name never seen, the growth of a timer or of a gauge's deltas, a new
//!    set member, the beginning of a line whose end a stream has not brought yet, and one buffer a batch
//!    while a large table is read ahead of. The clock is read once a batch, and so is the switch of
//!    `dumpMessages`, which logs every line.
//! 2. **A harvest is taken in place, at a batch boundary.** The flusher raises one number; a worker
//!    that sees it takes what is queued, moves what it collected into a recycled
//!    [`metric::harvest::Harvest`] and sends it through a bounded channel with room for every worker
//!    ([`metric::handover`]; `tests/handover_model.rs` runs it in every order of its threads). An idle worker
//!    sleeps in poll(2) or epoll_wait(2) and is woken for it. Idle names, their zeros and their
//!    deletion are the flusher's alone.
//! 3. **A name is raw bytes until it is new.** Only a spelling never seen is cleaned, shown to the rules
//!    for names ([`ingest::mapping`]) and given an id; the flusher merges columns by id and never hashes a
//!    name. A name that nobody sends and that does not show loses its id, which goes to another name when
//!    nobody has it any more, and no value goes astray in between ([`flush::idle`]).
//! 4. **Cells merge by law** ([`metric::cell`]), so it does not matter how datagrams were spread over
//!    workers. Only the last bit of a sum may depend on it.
//! 5. **Timers are exact while small** and histograms when large ([`metric::histogram`]); bounds are
//!    fixed, so no value can grow memory beyond them. Nor can names, members or times: each finds room, or is
//!    folded or dropped and counted ([`ingest::admission`]), and what is remembered of those is bounded.
//! 6. **The kernel's count is the only way to the bytes received** ([`ingest::packet::Batch`]).
//! 7. **The plain reading is the specification.** [`ingest::parse::line()`] follows the reference step by
//!    step, and [`ingest::dogstatsd::line()`] is dialect auto; the fast path, the masks and the table are
//!    compared with independent oracles by the tests.
//! 8. **A backend knows snapshots and nothing upstream.** It may be slow or dead; its outbox is
//!    bounded, in memory and on disk, and what it loses is counted.
//! 9. **Every loss has a counter** ([`metric::meter::METERS`]): values sent = values taken + values
//!    refused by reason + values dropped by rules or for want of room + events and checks, plus what was in
//!    datagrams cut, dropped by the kernel or left unread by the stop, and in lines and packets of streams
//!    that were too long or cut by a reset or the stop, and what came over connections refused. Flushes, the
//!    admin interface and the last lines of a run read the same counts.
//! 10. **Stopping is the path, drained in order**: sockets, last harvests, last flush, backends. Sockets of
//!     datagrams are locked first ([`ingest::source::lock`]), so that their counts stand when they are read.
//! 11. **A line goes through the proxy as it came**, to the node where the ring of the reference has its name
//!     ([`proxy::ring`]), or it is counted, by node or by reason ([`proxy::account`]).
//! 12. **A state file is whole or not used** ([`state::format`]), never written over what is not ours
//!     ([`state::file`]), and one server's as long as that runs ([`state::lock`]). No flush waits for it.
//! 13. **A flush on disk is whole or refused, alone** ([`deliver::spool`]), and sent by one process at a
//!     time. Only the threads of its backend wait for the disk.
//! 14. **Root is let go of** ([`runtime::privilege`]) when everything is bound, before a thread takes input.
//!     A reload looks at no file but the configuration, and needs no privilege.
//! 15. **Of two processes that change places one has everything**, and a single word settles which
//!     ([`takeover`]): before it a failure changes nothing, after it the old one sends nothing it received.
//! 16. **Unsafe code** is in `runtime::sys` and `ingest::scan`, and nowhere else.
//!
//! # Who may know whom
//!
//! `ingest`, `flush` and `deliver` never import one another, and of the three `proxy` knows `ingest` alone;
//! `state` and `takeover` none of them; `metric` knows no I/O, no clock and no configuration; neither a wing
//! nor the proxy nor `state` nor `takeover` knows `config`.
//! `tests/tidy.rs` reads every `use` and holds these arrows.

pub mod admin;
pub mod config;
pub mod server;

pub mod deliver;
pub mod flush;
pub mod ingest;

pub mod proxy;
pub mod state;
pub mod takeover;

pub mod metric;
pub mod runtime;
