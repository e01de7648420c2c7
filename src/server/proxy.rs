//! Wires the parts of a proxy, owns its threads, orders its start and stop.

use super::{Alarm, Bound, describe, pin, reach, spawn};
use crate::admin::{Admin, Door};
use crate::config::{self, Loaded};
use crate::ingest::source::inherited::Inherited;
use crate::ingest::source::lock::Lock;
use crate::ingest::source::{Address, Source};
use crate::proxy::account::{Counts, Ledger};
use crate::proxy::admin::Desk;
use crate::proxy::forward::{self, Link, Map, Router};
use crate::proxy::health::Health;
use crate::proxy::membership::Membership;
use crate::proxy::own;
use crate::runtime;
use crate::runtime::clock::Clock;
use crate::runtime::privilege;
use crate::runtime::stop::Stop;
use crate::runtime::sys::limit;
use crate::runtime::sys::wake::Waker;
use crossbeam::channel::{Receiver, Sender, bounded, unbounded};
use crossbeam::utils::CachePadded;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long the start waits for the names of the nodes; what comes before they are known is dropped.
const LOCATED_MAX: Duration = Duration::from_secs(2);

/// A running proxy.
#[derive(Debug)]
pub struct Proxy {
    addresses: Vec<Address>,
    workers: Vec<JoinHandle<()>>,
    wakers: Vec<Waker>,
    locks: Vec<Lock>,
    stop: Stop,
    ledger: Arc<Ledger>,
    /// Dropped, they end the threads that ask the nodes; nobody waits for those.
    checks: Sender<()>,
    /// The same for the proxy's own counters, which are waited for.
    own: Option<(Sender<()>, JoinHandle<()>)>,
    admin: Admin,
    pub(super) alarm: Alarm,
    /// Names of threads that panicked.
    pub(super) deaths: Receiver<String>,
    pub(super) loaded: Loaded<config::Proxy>,
}

/// What came of a whole run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Every count.
    pub counts: Counts,
    /// What the nodes are called, in the order of their numbers.
    pub labels: Vec<String>,
}

impl Proxy {
    /// Binds every listener, starts every thread. When it returns, datagrams are being taken.
    ///
    /// # Errors
    /// When a listener cannot be bound or the system has no thread or descriptor to give.
    pub fn start(loaded: Loaded<config::Proxy>, clock: Clock) -> anyhow::Result<Self> {
        let config = &loaded.config;
        let options = &config.proxy;
        // All or nothing, and before any thread runs.
        let bound = privilege::owning(config.identity.as_ref(), || {
            let inherited = &mut Inherited::default();
            Bound::bind(&config.listeners, config.threads, config.pin, inherited)
        })??;
        let door = Door::bind(&config.admin, |_| None)?;
        reach::let_go_of_proxy(config)?;
        let Bound {
            listeners,
            cores,
            pinned,
            ..
        } = bound;
        let addresses = listeners.iter().map(|l| l.address.clone()).collect();
        describe::describe_proxy(config, &listeners, door.address(), &cores, pinned);

        let sources: Vec<_> = listeners.into_iter().flat_map(|l| l.sources).collect();
        let wakers: Vec<_> = sources.iter().map(Source::waker).collect();
        let locks = sources.iter().filter_map(Source::lock).collect();
        let nodes = options.nodes.len();
        let membership = Arc::new(Membership::new(options.nodes.clone()));
        let asked = Arc::new(CachePadded::new(AtomicU64::new(0)));
        // Room for an answer and the last report of each worker: none ever waits.
        let (reports, book) = bounded((2 * sources.len()).max(1));
        let ledger = Arc::new(Ledger::new(asked.clone(), wakers.clone(), book, nodes));
        let health = Arc::new(Health::new(
            options.health.clone(),
            clock.clone(),
            membership.clone(),
            ledger.clone(),
        ));
        let (tell, deaths) = unbounded();
        let alarm = Alarm { deaths: tell };
        let stop = Stop::default();
        let link = Link {
            asked,
            reports,
            stop: stop.clone(),
        };
        // Each worker has a socket for each node. Where there are too few, the outlet says so.
        let _ = limit::raise_descriptors();
        let map = Map::new(membership.clone(), options);
        let mut workers = Vec::with_capacity(sources.len());
        let (begin, may_begin) = bounded::<()>(0);
        for (worker, source) in sources.into_iter().enumerate() {
            let (map, link, may_begin) = (map.clone(), link.clone(), may_begin.clone());
            let core = pinned.then(|| cores[worker % cores.len()]);
            workers.push(spawn(
                format!("forward-{worker}"),
                alarm.clone(),
                move || {
                    pin(worker, core);
                    // It ends when the nodes are located: what comes until then waits in the sockets.
                    let _ = may_begin.recv();
                    forward::run(source, map, &link);
                },
            )?);
        }
        // Workers hold the only other ends: when they are gone, nobody waits for their reports.
        drop(link);
        let (checks, no_more_checks) = bounded(0);
        let (tell_located, located) = bounded(nodes);
        for node in 0..nodes {
            let (health, stop) = (health.clone(), no_more_checks.clone());
            let tell_located = tell_located.clone();
            spawn(format!("health-{node}"), alarm.clone(), move || {
                health.watch(node, &tell_located, &stop);
            })?;
        }
        let until = Instant::now() + LOCATED_MAX;
        for _ in 0..nodes {
            // The rest is looked for while lines come.
            if located.recv_deadline(until).is_err() {
                log::warn!(
                    "not all nodes are located yet, lines for them are dropped until they are; look at the \
                     resolver of this machine"
                );
                break;
            }
        }
        drop(begin);
        let own = options.prefix_stats.clone().map(|prefix| {
            let (end, ended) = bounded(0);
            let (membership, ledger) = (membership.clone(), ledger.clone());
            let (router, interval) = (Router::new(map.clone()), options.stats_interval);
            let thread = spawn("own".into(), alarm.clone(), move || {
                own::run(router, &membership, &ledger, &prefix, interval, &ended);
            })?;
            anyhow::Ok((end, thread))
        });
        let desk = Desk::new(
            clock,
            config.admin.healthy,
            loaded.reply.clone(),
            membership,
            ledger.clone(),
            health,
        );
        let admin = door.serve(Arc::new(desk))?;
        Ok(Self {
            addresses,
            workers,
            wakers,
            locks,
            stop,
            ledger,
            checks,
            own: own.transpose()?,
            admin,
            alarm,
            deaths,
            loaded,
        })
    }

    /// Where the listeners are, in the order of the configuration, with their real ports.
    pub fn addresses(&self) -> &[Address] {
        &self.addresses
    }

    /// Where the admin interface is, with its real port.
    pub fn admin_address(&self) -> SocketAddr {
        self.admin.address()
    }

    /// Takes over what can change while running, which is the log; the rest stays as it is. Returns whether
    /// anything that can change was new.
    pub(super) fn reload(&mut self, loaded: Loaded<config::Proxy>) -> bool {
        let (new, old) = (&loaded.config, &mut self.loaded.config);
        let news = (&new.log, &new.title, new.watch) != (&old.log, &old.title, old.watch);
        runtime::log::set(&new.log);
        old.log = new.log.clone();
        old.title.clone_from(&new.title);
        old.watch = new.watch;
        news
    }

    /// Drains the path in its own order: sockets, last reports, the proxy's own counters.
    pub fn stop(self) -> Account {
        drop(self.checks);
        Lock::close_all(&self.locks);
        self.stop.request();
        self.wakers.iter().for_each(Waker::wake);
        for worker in self.workers {
            if worker.join().is_err() {
                log::error!("a worker panicked; what it held is lost");
            }
        }
        if let Some((end, thread)) = self.own {
            drop(end);
            if thread.join().is_err() {
                log::error!(
                    "the thread of the proxy's own counters panicked; the last ones are lost"
                );
            }
        }
        self.admin.stop();
        let nodes = &self.loaded.config.proxy.nodes;
        Account {
            counts: self.ledger.totals(),
            labels: nodes.iter().map(|node| node.label.clone()).collect(),
        }
    }
}
