//! One server takes the place of another: what each side of [`crate::takeover`] does with the parts it wires.

use super::{Alarm, Server, Totals, spawn};
use crate::config::Config;
use crate::flush;
use crate::ingest::name::id_of_shown;
use crate::ingest::source::inherited::{
    self, Arrival, Bound, Drops, Group, Inherited, Place, Seat,
};
use crate::ingest::source::lock::Lock;
use crate::ingest::source::socket_file::SocketFile;
use crate::ingest::source::{AnySource, Source};
use crate::metric::carried::Carried;
use crate::metric::harvest::Tally;
use crate::metric::meter::{self, Outside};
use crate::metric::registry::{Known, Registry};
use crate::metric::sample::Kind;
use crate::runtime::clock::monotonic_ms;
use crate::runtime::notify::{self, State};
use crate::runtime::rate_limit::{RateLimit, more};
use crate::runtime::stop::{Ending, Stop};
use crate::runtime::sys::pass;
use crate::runtime::sys::wake::Waker;
use crate::takeover::claim::{self, Claim, Estate};
use crate::takeover::message::{self, Connection, Message, Offer};
use crate::takeover::offer::{self, Restart, Successor};
use crate::takeover::wire::Wire;
use crate::takeover::{Fault, STEP_MAX, format};
use anyhow::Context;
use crossbeam::channel::{Receiver, Sender, bounded};
use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// What a server starts from.
#[derive(Debug, Default)]
pub struct Origin {
    /// Sockets that are bound already.
    inherited: Inherited,
    /// They are the service manager's: each is there for a listener.
    demanding: bool,
    /// The process that is taken over.
    claim: Option<Claim>,
}

impl Origin {
    /// Of this process, by its environment; with `wished`, of whoever listens at `takeoverSocket`.
    ///
    /// # Errors
    /// When there is something to start from and it cannot be had.
    pub fn of_this_process(config: &Config, wished: bool) -> anyhow::Result<Self> {
        let heard = claim::from_parent().context("cannot use the socket of the process before")?;
        let managed = managed()?;
        if let Some(stream) = heard {
            return Self::of(stream);
        }
        if wished {
            let options = config.takeover.as_ref().context(
                "--takeover needs takeoverSocket in the configuration, the same path as that of the process \
                 that runs",
            )?;
            let shown = options.path.display();
            let found = claim::at(&options.path)
                .with_context(|| format!("cannot connect to takeoverSocket {shown}"))?;
            if let Some(stream) = found {
                return Self::of(stream);
            }
            log::warn!("--takeover: nobody listens on {shown}: this is a start like any other");
        }
        Ok(Self {
            demanding: !managed.is_empty(),
            inherited: Inherited::new(managed),
            claim: None,
        })
    }

    fn of(stream: UnixStream) -> anyhow::Result<Self> {
        let mut claim = Claim::open(stream).context("nothing was taken over")?;
        let sockets = std::mem::take(&mut claim.sockets);
        let groups = groups(&claim.offer, sockets);
        if let Err(error) = &groups {
            claim.refuse(format!("{error:#}"));
        }
        let inherited = Inherited::new(groups?);
        log::info!("taking over from process {}", claim.offer.process);
        Ok(Self {
            inherited,
            demanding: false,
            claim: Some(claim),
        })
    }

    /// Whether there is a process before this one that goes on until it has let go.
    pub(super) fn takes_over(&self) -> bool {
        self.claim.is_some()
    }

    /// Where listeners find their sockets.
    pub(super) fn inherited(&mut self) -> &mut Inherited {
        &mut self.inherited
    }

    /// The listening socket of the admin interface at one of these addresses.
    pub(super) fn admin(&mut self, wanted: &[SocketAddr]) -> Option<TcpListener> {
        let socket = self.inherited.take_listener(wanted)?;
        let copy = socket.try_clone();
        copy.map(TcpListener::from).ok()
    }

    /// Nothing of the service manager may be left over: somebody sends there.
    ///
    /// # Errors
    /// When something is.
    pub(super) fn all_taken(&self) -> anyhow::Result<()> {
        match self.inherited.left().first() {
            Some(group) if self.demanding => anyhow::bail!(
                "LISTEN_FDS: the service manager passes {}, and no listener of the configuration is there; \
                 make them the same, in the .socket unit or in `servers`",
                group.place
            ),
            _ => Ok(()),
        }
    }

    /// Gives every name of the process before its number, so that a name with tags goes on as it was spelled.
    pub(super) fn learn_names(&self, config: &Config, registry: &Registry) {
        let Some(claim) = &self.claim else { return };
        for (kind, names) in Kind::ALL.iter().zip(&claim.offer.names) {
            for Known { name, brought } in names {
                if *brought {
                    id_of_shown(name, *kind, config.ingest.dialect, registry);
                } else {
                    registry.id(*kind, name);
                }
            }
        }
    }

    /// Takes what the process before leaves, now that the workers read. `listeners` are numbers of listeners
    /// here, by their numbers there.
    pub(super) fn take(&mut self) -> Result<Option<Estate>, Fault> {
        let Some(claim) = &mut self.claim else {
            return Ok(None);
        };
        let listeners = claim.offer.listeners.len();
        let taken = self.inherited.taken().iter().filter(|it| **it < listeners);
        claim
            .read(taken.map(|number| *number as u32).collect())
            .map(Some)
    }

    /// Makes it this process's own.
    pub(super) fn settle(&mut self) -> Result<(), Fault> {
        self.claim.as_mut().map_or(Ok(()), Claim::settle)
    }

    /// Tells the process before that this one cannot.
    pub(super) fn refuse(&mut self, error: &anyhow::Error) {
        if let Some(claim) = &mut self.claim {
            claim.refuse(format!("{error:#}"));
        }
    }

    /// Waits for the last counts of the process before, on a thread that nobody waits for.
    pub(super) fn follow(self, alarm: Alarm, outside: &Arc<Outside>) -> anyhow::Result<()> {
        let Some(claim) = self.claim else {
            return Ok(());
        };
        let (process, outside) = (claim.offer.process, outside.clone());
        spawn("predecessor".into(), alarm, move || match claim.last() {
            Ok(counts) => {
                for (meter, count) in counts {
                    outside.carried.add(&meter, count);
                }
                log::info!("process {process}, which was taken over, has ended");
            }
            Err(fault) => log::warn!(
                "process {process}, which was taken over, has ended without its last counts: {fault}"
            ),
        })?;
        Ok(())
    }
}

/// Sockets of the service manager: sd_listen_fds(3).
fn managed() -> anyhow::Result<Vec<Group>> {
    let variable = |name: &str| std::env::var(name).ok();
    let meant = variable("LISTEN_PID").is_some_and(|it| it == std::process::id().to_string());
    let count = variable("LISTEN_FDS").filter(|_| meant);
    let count = count.map_or(Ok(0), |text| {
        text.parse::<u16>()
            .with_context(|| format!("LISTEN_FDS is {text:?}, no number of descriptors"))
    })?;
    let names = variable("LISTEN_FDNAMES").unwrap_or_default();
    let mut names = names.split(':');
    let mut groups = Vec::new();
    for number in 3..3 + i32::from(count) {
        let name = names.next().unwrap_or_default();
        let place = || format!("LISTEN_FDS: descriptor {number} ({name}) of the service manager");
        let socket = pass::inherited(number).with_context(place)?;
        inherited::group(&mut groups, socket, false).with_context(place)?;
    }
    Ok(groups)
}

/// The sockets of an offer, by listener; behind them those of other use.
fn groups(offer: &Offer, sockets: Vec<OwnedFd>) -> anyhow::Result<Vec<Group>> {
    let sockets: Vec<_> = sockets.into_iter().map(Arc::new).collect();
    let mut drops: HashMap<u32, Drops> = HashMap::new();
    let others = offer.others.iter().map(|socket| {
        vec![message::Seat {
            socket: *socket,
            drops: 0,
            lasting: false,
        }]
    });
    let mut groups = Vec::new();
    for (number, seats) in offer.listeners.iter().cloned().chain(others).enumerate() {
        let seats = seats.iter().map(|seat| {
            let drops = drops.entry(seat.socket);
            let drops = drops.or_insert_with(|| Drops::since(seat.drops));
            Bound {
                socket: sockets[seat.socket as usize].clone(),
                drops: drops.clone(),
                lasting: seat.lasting,
            }
        });
        let seats: Vec<_> = seats.collect();
        if let Some(Bound { socket, .. }) = seats.first() {
            groups.push(Group {
                place: Place::of(socket).context("a socket of the process before")?,
                sockets: seats,
                number,
                settled: true,
                other: number >= offer.listeners.len(),
            });
        }
    }
    Ok(groups)
}

/// Lets the connections of the process before in.
pub(super) fn let_in(
    connections: Vec<(Connection, OwnedFd)>,
    numbers: &[Option<usize>],
    seats: &[(usize, Seat)],
    wakers: &[Waker],
) {
    let mut turns = HashMap::new();
    for (connection, socket) in connections {
        let there = Some(connection.listener as usize);
        let listener = numbers.iter().position(|number| *number == there);
        let workers = (0..seats.len()).filter(|at| Some(seats[*at].0) == listener);
        let workers: Vec<_> = workers.collect();
        let turn = turns.entry(listener).or_insert(0);
        let worker = workers.get(*turn % workers.len().max(1));
        *turn += 1;
        let arrivals =
            worker.and_then(|worker| Some((*worker, seats[*worker].1.arrivals.as_ref()?)));
        let arrival = Arrival {
            socket,
            held: connection.held,
            skipping: connection.skipping,
        };
        // Of a listener that is none of streams any more nothing is offered.
        if let Some((worker, arrivals)) = arrivals
            && arrivals.send(arrival).is_ok()
        {
            wakers[worker].wake();
        }
    }
}

/// Where this server may be taken over.
#[derive(Debug)]
pub(super) struct Gate {
    socket: Arc<OwnedFd>,
    file: Option<SocketFile>,
}

impl Gate {
    /// Binds what the configuration says, or takes the socket of the process before.
    pub(super) fn open(config: &Config, origin: &mut Origin) -> anyhow::Result<Option<Self>> {
        let Some(options) = &config.takeover else {
            return Ok(None);
        };
        if let Some(bound) = origin.inherited.take_streams(&options.path) {
            // The service manager removes its own.
            let file = (!bound.lasting).then(|| SocketFile::inherited(&options.path));
            return Ok(Some(Self {
                socket: bound.socket,
                file: file.flatten(),
            }));
        }
        let (socket, file) =
            SocketFile::listen(&options.path, "takeoverSocket").context("takeoverSocket")?;
        Ok(Some(Self {
            socket: Arc::new(socket),
            file: Some(file),
        }))
    }
}

impl Gate {
    /// Its file is this process's for good.
    pub(super) fn keep(&self) {
        if let Some(file) = &self.file {
            file.keep();
        }
    }

    /// Its socket, for a successor.
    pub(super) fn socket(&self) -> Arc<OwnedFd> {
        self.socket.clone()
    }
}

/// What a takeover of this server needs to know of it while it runs.
#[derive(Debug)]
pub(super) struct Stock {
    /// With the number of the listener of each.
    seats: Vec<(usize, Seat)>,
    listeners: usize,
    others: Vec<Arc<OwnedFd>>,
    registry: Arc<Registry>,
    /// One at a time.
    busy: AtomicBool,
    closed: AtomicBool,
}

impl Stock {
    pub(super) fn new(
        seats: Vec<(usize, Seat)>,
        listeners: usize,
        others: Vec<Arc<OwnedFd>>,
        registry: Arc<Registry>,
    ) -> Self {
        Self {
            seats,
            listeners,
            others,
            registry,
            busy: AtomicBool::new(false),
            closed: AtomicBool::new(false),
        }
    }

    fn offer(&self) -> (Offer, Vec<Arc<OwnedFd>>) {
        let mut sockets: Vec<Arc<OwnedFd>> = Vec::new();
        let mut number = |socket: &Arc<OwnedFd>| {
            let known = sockets.iter().position(|it| Arc::ptr_eq(it, socket));
            let at = known.unwrap_or_else(|| {
                sockets.push(socket.clone());
                sockets.len() - 1
            });
            at as u32
        };
        let mut listeners = vec![Vec::new(); self.listeners];
        for (listener, seat) in &self.seats {
            listeners[*listener].push(message::Seat {
                socket: number(&seat.bound.socket),
                drops: seat.bound.drops.freeze(),
                lasting: seat.bound.lasting,
            });
        }
        // One of the two sees what the other did: this that it is closed, or that what is frozen here.
        if self.closed.load(Ordering::SeqCst) {
            self.thaw();
        }
        let others = self.others.iter().map(&mut number).collect();
        let names = Kind::ALL.map(|kind| self.registry.known(kind));
        let offer = Offer {
            process: std::process::id(),
            sockets: sockets.len() as u32,
            listeners,
            others,
            names,
        };
        (offer, sockets)
    }

    /// The takeover came to nothing.
    fn withdraw(&self) {
        self.thaw();
        self.busy.store(false, Ordering::Release);
    }

    /// Nobody takes this server over any more, since it stops: it counts all drops itself.
    pub(super) fn close(&self) {
        self.busy.store(true, Ordering::Release);
        self.closed.store(true, Ordering::SeqCst);
        self.thaw();
    }

    /// Removes the files of unix sockets that are nobody's any more. The thread that shows the stock may hold
    /// it until the process ends, so they do not go with it.
    pub(super) fn remove_files(&self) {
        self.seats.iter().for_each(|(_, seat)| seat.remove_file());
    }

    fn thaw(&self) {
        (self.seats.iter()).for_each(|(_, seat)| seat.bound.drops.thaw());
    }

    /// Shows a successor what there is, for [`Server::hand_over`] when it reads.
    fn show(&self, stream: UnixStream) -> Result<Successor, Fault> {
        if self.busy.swap(true, Ordering::AcqRel) {
            offer::refuse(&mut Wire::new(stream), &Fault::Busy);
            return Err(Fault::Busy);
        }
        let shown = offer::show(stream, || self.offer());
        if shown.is_err() {
            self.withdraw();
        }
        shown
    }
}

/// Rest after accepting failed: likely the process is out of descriptors.
const ACCEPT_ERROR_PAUSE: Duration = Duration::from_secs(1);

/// The thread that waits for successors at `takeoverSocket`.
#[derive(Debug)]
pub(super) struct Porter {
    stop: Stop,
    waker: Waker,
    thread: JoinHandle<()>,
    file: Option<SocketFile>,
}

impl Porter {
    /// Starts it; successors that read go to `successors`.
    pub(super) fn start(
        gate: Gate,
        stock: Arc<Stock>,
        successors: Sender<Successor>,
        alarm: Alarm,
    ) -> anyhow::Result<Self> {
        let (stop, waker) = (Stop::default(), Waker::new()?);
        let listener = UnixListener::from(gate.socket.try_clone()?);
        listener.set_nonblocking(true)?;
        let (told, woken) = (stop.clone(), waker.clone());
        let complaints = RateLimit::new();
        let thread = spawn("takeover".into(), alarm, move || {
            while !told.requested() {
                if !woken.wait(listener.as_fd(), None).unwrap_or(false) {
                    continue;
                }
                let stream = match listener.accept() {
                    Ok((stream, _)) => stream,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                    Err(error) => {
                        if let Some(suppressed) = complaints.pass(monotonic_ms()) {
                            log::warn!(
                                "takeoverSocket could not take a connection: {error}; the process may be \
                                 out of descriptors (see: ulimit -n){}",
                                more(suppressed)
                            );
                        }
                        // An error that stays must not turn into a busy loop.
                        std::thread::sleep(ACCEPT_ERROR_PAUSE);
                        continue;
                    }
                };
                match stream
                    .set_nonblocking(false)
                    .map_err(Fault::from)
                    .and_then(|()| stock.show(stream))
                {
                    // It is dropped, and the successor told by that, when the server is stopping.
                    Ok(successor) => drop(successors.send(successor)),
                    Err(fault) => complain(&fault),
                }
            }
        })?;
        Ok(Self {
            stop,
            waker,
            thread,
            file: gate.file,
        })
    }

    /// Waits for nobody any more. With `leaves`, the socket's file is a successor's.
    pub(super) fn stop(self, leaves: bool) {
        self.stop.request();
        self.waker.wake();
        if let Some(file) = &self.file
            && leaves
        {
            file.leave();
        }
        // It may be with a successor that takes its time; then nobody waits for it.
        if self.thread.is_finished() {
            let _ = self.thread.join();
        }
    }
}

fn complain(fault: &Fault) {
    log::error!("this server was not taken over and goes on: {fault}");
}

/// Starts the program anew, to take over from this process; for [`Server::hand_over`] when it reads.
fn start_successor(
    restart: &Restart,
    stock: &Arc<Stock>,
    successors: Sender<Successor>,
    alarm: Alarm,
) -> anyhow::Result<()> {
    let shown = restart.program().display();
    let (mut child, stream) = restart
        .start()
        .with_context(|| format!("cannot start {shown}"))?;
    log::info!("started {shown} as process {}, to take over", child.id());
    let stock = stock.clone();
    spawn("successor".into(), alarm, move || {
        let process = child.id();
        let ended = match stock.show(stream) {
            Ok(successor) => {
                let _ = successors.send(successor);
                child.wait()
            }
            Err(fault) => {
                // It may hang. One that has ended is not ended by it.
                let ended = match fault {
                    Fault::Gone | Fault::Refused(_) => child.wait(),
                    _ => child.kill().and_then(|()| child.wait()),
                };
                complain(&fault);
                ended
            }
        };
        if let Ok(status) = ended {
            log::error!("process {process}, which was to take over, has ended: {status}");
        }
    })?;
    Ok(())
}

/// A server that is another's now, but for what its backends still have to deliver.
#[derive(Debug)]
pub(super) struct Parted {
    sources: Vec<AnySource>,
    successor: Successor,
    /// Keeps the flusher waiting; dropped, it ends.
    back: Sender<Box<Carried>>,
    told: Told,
}

/// What meters had come to when everything was handed over.
#[derive(Debug)]
struct Told {
    /// What the flushes of this process have shown: the rest is in the open interval.
    shown: meter::Totals,
    /// What threads off the sample path had counted.
    outside: meter::Totals,
}

impl Server {
    /// Starts the program anew, to take over from this process.
    pub(super) fn start_successor(&self, restart: &Restart) -> anyhow::Result<()> {
        let (successors, alarm) = (self.successors.0.clone(), self.alarm.clone());
        start_successor(restart, &self.stock, successors, alarm)
    }

    /// Hands everything over to a successor that reads. When that fails, this server goes on, and the log
    /// says why. An error beside that is one that it cannot go on with.
    pub(super) fn hand_over(&mut self, mut successor: Successor) -> anyhow::Result<Option<Parted>> {
        let (to, handed) = bounded(1);
        let (back, comes_back) = bounded(1);
        let handover = flush::Handover {
            to,
            back: comes_back,
        };
        // First, so that no tick falls between: it waits for the workers' last harvests.
        let _ = self.commands.send(flush::Order::HandOver(handover));
        let sources = self.leave_sockets(&successor.taken);
        let given = self.give(&mut successor, &sources, &handed);
        let (carried, fault) = match given {
            Ok(told) => {
                return Ok(Some(Parted {
                    sources,
                    successor,
                    back,
                    told,
                }));
            }
            Err(it) => it,
        };
        offer::refuse(&mut successor.wire, &fault);
        match carried {
            Some(carried) => drop(back.send(carried)),
            // It is late: whenever it hands over, it gets everything back. A way back that is closed would
            // tell it that it is through.
            None => {
                spawn("late".into(), self.alarm.clone(), move || {
                    handed.iter().for_each(|it| drop(back.send(it.carried)));
                })?;
            }
        }
        let restarted = self.crew.launch(sources, &self.loaded.config.ingest);
        if let Some(keeper) = &self.keeper {
            keeper.lock().keep();
        }
        self.backends.go_on();
        self.stock.withdraw();
        self.workers = restarted.context("the workers do not start again")?;
        complain(&fault);
        Ok(None)
    }

    /// Ends the workers; those whose listeners were taken leave what is queued, the others read it. Nothing
    /// is closed: it may come to nothing.
    fn leave_sockets(&mut self, taken: &[u32]) -> Vec<AnySource> {
        self.crew.stop(|listener| {
            if taken.contains(&(listener as u32)) {
                Ending::Leave
            } else {
                Ending::Drain
            }
        });
        self.wakers.iter().for_each(Waker::wake);
        let workers = std::mem::take(&mut self.workers).into_iter();
        let ended = workers.map(JoinHandle::join);
        // One that panicked has told of it, and the server stops for it.
        let mut sources: Vec<AnySource> = ended.filter_map(Result::ok).collect();
        // This process may have taken over itself a moment ago.
        sources.iter_mut().for_each(AnySource::take_arrivals);
        sources
    }

    /// Sends what there is, up to the word that it is the successor's. Returns what meters had come to.
    fn give(
        &self,
        successor: &mut Successor,
        sources: &[AnySource],
        handed: &Receiver<flush::Handed>,
    ) -> Result<Told, (Option<Box<Carried>>, Fault)> {
        let wire = &mut successor.wire;
        let Ok(handed) = handed.recv_timeout(STEP_MAX) else {
            return Err((None, Fault::Refused("the flusher does not answer".into())));
        };
        let flush::Handed {
            carried,
            shown,
            outside,
        } = handed;
        if sources.len() != self.stock.seats.len() {
            let why = "a worker panicked".into();
            return Err((Some(carried), Fault::Refused(why)));
        }
        let totals = self.backends.leave();
        let mut connections = Vec::new();
        let mut sockets = Vec::new();
        for ((listener, _), source) in self.stock.seats.iter().zip(sources) {
            let listener = *listener as u32;
            if !successor.taken.contains(&listener) {
                continue;
            }
            for open in source.connections() {
                sockets.push(open.socket);
                connections.push(Connection {
                    listener,
                    held: open.held.into(),
                    skipping: open.skipping,
                });
            }
        }
        let state = Message::State(format::encode(&carried, totals.as_ref()));
        let mut named = false;
        let tell = || {
            wire.send(&Message::Connections(connections), STEP_MAX)?;
            wire.send_descriptors(&sockets, STEP_MAX)?;
            wire.send(&state, STEP_MAX)?;
            match wire.receive(STEP_MAX)? {
                Message::Taken => {}
                _ => {
                    return Err(Fault::Damaged(
                        "it does not say that it has taken everything",
                    ));
                }
            }
            // Before its first flush.
            if let Some(keeper) = &self.keeper {
                keeper.lock().release();
            }
            // Before it says that it is up, which is heard of the main process alone.
            named = true;
            notify::tell(&State::Successor(successor.process));
            wire.send(&Message::Yours, STEP_MAX)
        };
        match tell() {
            Ok(()) => Ok(Told { shown, outside }),
            Err(fault) => {
                if named {
                    notify::tell(&State::Successor(std::process::id()));
                }
                Err((Some(carried), fault))
            }
        }
    }

    /// Delivers what the backends still have, and ends. What was received is the successor's.
    pub(super) fn part(self, parted: Parted) -> Totals {
        let Parted {
            sources,
            mut successor,
            back,
            told,
        } = parted;
        let deadline = Instant::now() + self.loaded.config.stop_deadline;
        let mut closed = Vec::new();
        for ((listener, seat), source) in self.stock.seats.iter().zip(sources) {
            if successor.taken.contains(&(*listener as u32)) {
                seat.leave();
            } else {
                seat.bound.drops.thaw();
                closed.push(source);
            }
        }
        let unread = close(closed);
        self.stock.remove_files();
        drop((back, self.crew));
        self.admin.stop();
        if let Some(porter) = self.porter {
            porter.stop(true);
        }
        let ingest = self.flusher.join().unwrap_or_else(|_| {
            log::error!("the flusher panicked");
            Tally::default()
        });
        let flushes_dropped = self.backends.finish(deadline);
        if let Some(keeper) = self.keeper {
            keeper.finish(deadline);
        }
        let mut counted = meter::Totals::read(&Tally::default(), &self.outside).news(&told.outside);
        counted
            .extend(meter::Totals::read(&unread, &Outside::default()).news(&meter::Totals::ZERO));
        let now = meter::Totals::read(&ingest, &self.outside);
        let mut meters = told.shown.with_levels_of(&now);
        if let Err(fault) = successor
            .wire
            .send(&Message::Last(counted.clone()), STEP_MAX)
        {
            log::warn!("the successor was not told the last counts: {fault}");
            meters.add(&counted);
        }
        Totals {
            ingest,
            flushes_dropped,
            meters,
            flushes_on_disk: self.outside.flushes_on_disk.now(),
        }
    }
}

/// Sends those away that read already, since this server stops: what they read is lost with them.
pub(super) fn turn_down(successors: &Receiver<Successor>) {
    for mut successor in successors.try_iter() {
        let stopping = io::Error::other("it is stopping");
        offer::refuse(&mut successor.wire, &stopping.into());
        let process = successor.process;
        log::warn!("process {process} was taking over; it is turned away, since this one stops");
    }
}

/// Closes what no successor has. Its workers have read what there was; what came since is counted, as dropped
/// by the kernel, since no flush comes any more that could have it.
fn close(mut sources: Vec<AnySource>) -> Tally {
    let locks: Vec<_> = sources.iter().filter_map(Source::lock).collect();
    Lock::close_all(&locks);
    let mut unread = Tally::default();
    for source in &mut sources {
        if source.is_locked() {
            let mut batch = source.batch();
            while source.drain(&mut batch).is_ok_and(|there_was| there_was) {
                unread.kernel_drops += batch.received() as u64;
            }
        }
        source.finish();
        source.turn_away();
        source.account(&mut unread);
    }
    if unread.kernel_drops > 0 {
        log::warn!(
            "{} datagrams came too late to listeners that the successor does not have",
            unread.kernel_drops
        );
    }
    unread
}
