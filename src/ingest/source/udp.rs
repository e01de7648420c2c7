//! UDP: one `SO_REUSEPORT` socket a worker.

use super::bind::{self, BindError};
use super::datagram::{Datagrams, Queue};
use super::inherited::{Bound, Group, Inherited};
use super::{Address, AnySource, Capacity, Listener};
use crate::runtime::sys::socket::{self, Choice};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsFd;

/// One UDP listener: every worker of it binds its own `SO_REUSEPORT` socket.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// Name or address to bind; `None` is every address of the family.
    pub address: Option<String>,
    /// Port; 0 lets the kernel choose one, the same for every worker.
    pub port: u16,
    /// Use an IPv6 socket; without an address it is dual stack and takes IPv4 too (`address_ipv6`).
    pub ipv6: bool,
    /// Receive buffer to ask of the kernel for each socket, in bytes as setsockopt(2) takes them.
    pub receive_buffer: usize,
    /// Longest datagram taken whole, in bytes; a longer one is cut and counted as truncated.
    pub max_datagram: usize,
    /// Which worker gets a datagram.
    pub steering: Steering,
    /// Take runs of datagrams in one piece where the kernel holds them so (`udpGro`). It counts a run it
    /// drops as one.
    pub joined: bool,
}

/// Which worker gets a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Steering {
    /// Its sender's, always the same: what one client sends keeps its order.
    #[default]
    Flow,
    /// Any: a client that sends more than one core takes is shared by all.
    Spread,
    /// That of the core the kernel received it on, so that it stays in that core's caches.
    Cpu,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            address: None,
            port: 8125,
            ipv6: false,
            receive_buffer: 16 << 20,
            max_datagram: 65_535,
            steering: Steering::Flow,
            joined: false,
        }
    }
}

/// Binds a socket for the worker on each of `cores` to the same address, unless they are inherited.
pub(super) fn bind(
    options: &Options,
    cores: &[u32],
    inherited: &mut Inherited,
) -> Result<Listener, BindError> {
    let fail = |error: io::Error| {
        let shown = bind::shown(options.address.as_deref(), options.port);
        BindError::of_port("udp", &shown, error)
    };
    let address = resolve(options).map_err(fail)?;
    if let Some(group) = inherited.take_at(true, &[address]) {
        return take_over(options, group, cores).map_err(fail);
    }
    // SO_REUSEPORT lets any process of this user join silently and take a share of the datagrams,
    // so a second daemon would go unnoticed. A socket without it finds whoever is there.
    // It keeps the port ours until the workers' sockets have it: bound alone, and only then with
    // SO_REUSEADDR, it lets in those that have that too, and who comes to look as we did is refused.
    let probe = open(address, false).map_err(fail)?;
    let address = bind::local(&probe).map_err(fail)?;
    probe.set_reuse_address(true).map_err(fail)?;
    let sockets: Vec<Socket> = cores
        .iter()
        .map(|_| open(address, true))
        .collect::<Result<_, _>>()
        .map_err(fail)?;
    // Left on, it would let any process in.
    for socket in &sockets {
        socket.set_reuse_address(false).map_err(fail)?;
    }
    drop(probe);
    steer(&sockets, options.steering, cores);
    let joined = |socket: &Socket| options.joined && take_joined(socket);
    let sockets = sockets.into_iter().map(|socket| {
        let joined = joined(&socket);
        (Bound::new(socket.into()), joined)
    });
    listener(options, address, sockets.collect(), false).map_err(fail)
}

/// The listener of these sockets, each with whether runs of datagrams come in one piece. Those that are
/// settled were made by a process that may have been allowed more.
fn listener(
    options: &Options,
    address: SocketAddr,
    sockets: Vec<(Bound, bool)>,
    settled: bool,
) -> io::Result<Listener> {
    let asked = options.receive_buffer;
    let mut granted = asked;
    let mut sources = Vec::with_capacity(sockets.len());
    for (bound, joined) in sockets {
        let socket = bound.socket.as_fd();
        granted = granted.min(size_receive_buffer(
            &SockRef::from(&socket),
            asked,
            settled,
        )?);
        let accounts = socket::memory(socket).unwrap_or_default();
        let queue = Queue::Bytes(accounts.receive_buffer.into());
        let source = Datagrams::new(bound, options.max_datagram, queue, joined, None);
        sources.push(AnySource::Datagrams(source?));
    }
    Ok(Listener {
        address: Address::Udp(address),
        sources,
        capacity: Capacity::ReceiveBuffer { asked, granted },
    })
}

/// The listener of sockets that somebody else has bound. Of those of a service manager more are made, where
/// they allow it, or workers share them.
fn take_over(options: &Options, mut group: Group, cores: &[u32]) -> io::Result<Listener> {
    let address = bind::local(&SockRef::from(&group.sockets[0].socket))?;
    if !group.settled {
        add_siblings(&mut group, address, cores.len());
    }
    group.spread(cores.len());
    if !group.settled && group.is_shared(&group.sockets[0]) {
        log::warn!(
            "udp {address}: its workers share a socket that was inherited, so the datagrams of one \
             sender may be taken out of order; ReusePort=yes in the unit of the socket gives each a \
             socket of its own"
        );
    }
    let raw: Vec<_> = group.sockets.iter().map(|it| &it.socket).collect();
    steer(&raw, options.steering, cores);
    let sockets = group.sockets.into_iter().map(|bound| {
        let socket = &bound.socket;
        // As it is: who reads it besides takes what comes as it began.
        let joined = socket::takes_joined(socket.as_fd()).unwrap_or(false);
        if group.settled && joined != options.joined {
            log::warn!(
                "udpGro: the sockets that were taken over stay as they were; a restart changes them"
            );
            return (bound, joined);
        }
        let joined = joined || options.joined && take_joined(&SockRef::from(socket));
        (bound, joined)
    });
    let sockets = sockets.collect();
    listener(options, address, sockets, group.settled)
}

/// Binds more sockets beside one that shares its port.
fn add_siblings(group: &mut Group, address: SocketAddr, workers: usize) {
    if !SockRef::from(&group.sockets[0].socket)
        .reuse_port()
        .unwrap_or(false)
    {
        return;
    }
    while group.sockets.len() < workers {
        let sibling = open(address, true).and_then(|socket| {
            // Left on, it would let any process in.
            socket.set_reuse_address(false)?;
            socket.set_nonblocking(true)?;
            Ok(socket)
        });
        match sibling {
            Ok(socket) => group.sockets.push(Bound::new(socket.into())),
            // Bound by another user, likely: the kernel lets only that one join.
            Err(_) => return,
        }
    }
}

/// Tells the kernel which worker gets a datagram, where it is not to go by sender. A kernel that does not
/// know how is no reason not to start: all is taken then too, only otherwise spread.
fn steer(sockets: &[impl AsFd], steering: Steering, cores: &[u32]) {
    let choice = match steering {
        Steering::Flow => return,
        Steering::Spread => Choice::Random,
        Steering::Cpu => Choice::Core(cores.to_vec()),
    };
    let (Some(first), Ok(members)) = (sockets.first(), u32::try_from(sockets.len())) else {
        return;
    };
    if let Err(error) = socket::steer(first.as_fd(), members, &choice) {
        log::warn!("steering: this kernel does not do it, datagrams go by sender: {error}");
    }
}

/// Whether the socket hands over runs of datagrams in one piece from now on.
fn take_joined(socket: &Socket) -> bool {
    let result = socket::take_joined(socket.as_fd());
    if let Err(error) = &result {
        log::warn!("udpGro: this kernel does not do it, datagrams come one by one: {error}");
    }
    result.is_ok()
}

fn resolve(options: &Options) -> io::Result<SocketAddr> {
    let Some(name) = &options.address else {
        let any = if options.ipv6 {
            IpAddr::from(Ipv6Addr::UNSPECIFIED)
        } else {
            Ipv4Addr::UNSPECIFIED.into()
        };
        return Ok(SocketAddr::new(any, options.port));
    };
    let found = bind::resolve(name, options.port)?;
    let wanted = found
        .iter()
        .find(|address| address.is_ipv6() == options.ipv6);
    Ok(*wanted.unwrap_or(&found[0]))
}

fn open(address: SocketAddr, shared: bool) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::DGRAM,
        Some(Protocol::UDP),
    )?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    if shared {
        socket.set_reuse_port(true)?;
        socket.set_reuse_address(true)?;
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

/// Asks for the buffer, beyond the system's limit where we may, and reads back what came of it:
/// the kernel cuts in silence.
fn size_receive_buffer(socket: &Socket, bytes: usize, settled: bool) -> io::Result<usize> {
    // One that is settled would be cut to the system's limit.
    if socket::force_receive_buffer(socket.as_fd(), bytes).is_err() && !settled {
        socket.set_recv_buffer_size(bytes)?;
    }
    // The kernel doubles what it is asked, to cover its own bookkeeping.
    Ok(socket.recv_buffer_size()? / 2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::source::Source;
    use crate::metric::harvest::Tally;
    use crate::runtime::sys::send;
    use std::io::IoSlice;
    use std::net::UdpSocket;

    fn loopback(port: u16) -> Options {
        Options {
            address: Some("127.0.0.1".into()),
            port,
            ..Options::default()
        }
    }

    fn port_of(listener: &Listener) -> SocketAddr {
        listener.address.socket().expect("it has a port")
    }

    #[test]
    fn workers_share_one_port_and_a_second_daemon_is_refused() {
        let listener = bind(&loopback(0), &[0, 1, 2], &mut Inherited::default()).expect("bind");
        assert_eq!(listener.sources.len(), 3);
        let address = port_of(&listener);
        assert_ne!(address.port(), 0);
        let error = bind(&loopback(address.port()), &[0], &mut Inherited::default())
            .expect_err("taken")
            .to_string();
        assert!(
            error.starts_with(&format!("cannot listen on udp {address}: ")),
            "{error}"
        );
        assert!(error.contains("another process listens there"), "{error}");
        let stranger = Socket::new(Domain::IPV4, Type::DGRAM, None).expect("a socket");
        stranger.set_reuse_address(true).expect("SO_REUSEADDR");
        let refused = stranger.bind(&address.into()).expect_err("taken");
        assert_eq!(refused.kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn of_two_that_start_at_once_one_has_the_port() {
        for _ in 0..50 {
            let port =
                port_of(&bind(&loopback(0), &[0], &mut Inherited::default()).expect("bind")).port();
            let start = || bind(&loopback(port), &[0, 1, 2, 3], &mut Inherited::default()).ok();
            let (first, second) = std::thread::scope(|scope| {
                let other = scope.spawn(start);
                (start(), other.join().expect("no panic"))
            });
            assert!(first.is_none() || second.is_none(), "two listen on {port}");
        }
    }

    #[test]
    fn a_foreign_address_is_refused_with_the_way_out() {
        let options = Options {
            address: Some("192.0.2.1".into()),
            ..loopback(0)
        };
        let error = bind(&options, &[0], &mut Inherited::default())
            .expect_err("not ours")
            .to_string();
        assert!(
            error.contains("this machine has no such address"),
            "{error}"
        );
    }

    /// How many of 300 datagrams of one sender each worker gets.
    fn shares(steering: Steering, cores: &[u32]) -> Vec<usize> {
        let options = Options {
            steering,
            ..loopback(0)
        };
        let mut listener = bind(&options, cores, &mut Inherited::default()).expect("bind");
        let sender = UdpSocket::bind("127.0.0.1:0").expect("bind");
        for _ in 0..300 {
            sender.send_to(b"a:1|c", port_of(&listener)).expect("send");
        }
        let taken = |source: &mut AnySource| {
            let (mut batch, mut taken) = (source.batch(), 0);
            while source.drain(&mut batch).expect("receive") {
                taken += batch.received();
            }
            taken
        };
        listener.sources.iter_mut().map(taken).collect()
    }

    #[test]
    fn a_sender_keeps_its_worker_unless_its_datagrams_are_spread() {
        let mut flow = shares(Steering::Flow, &[0, 1, 2]);
        flow.sort_unstable();
        assert_eq!(flow, [0, 0, 300]);
        let spread = shares(Steering::Spread, &[0, 1, 2]);
        assert_eq!(spread.iter().sum::<usize>(), 300);
        // By chance alone once in 10^50 runs.
        assert!(spread.iter().all(|taken| *taken > 0), "{spread:?}");
    }

    #[test]
    fn a_run_of_datagrams_comes_in_one_piece_and_is_taken_apart() {
        let options = Options {
            joined: true,
            max_datagram: 512,
            ..loopback(0)
        };
        let mut listener = bind(&options, &[0], &mut Inherited::default()).expect("bind");
        let sender = UdpSocket::bind("127.0.0.1:0").expect("bind");
        sender.connect(port_of(&listener)).expect("connect");
        let send = |size: u16, datagrams: &[Vec<u8>]| {
            send::segment(&sender, size).expect("UDP_SEGMENT");
            let slices: Vec<_> = datagrams.iter().map(|bytes| IoSlice::new(bytes)).collect();
            let sent = send::send_segments(&sender, &slices, size).expect("send");
            assert_eq!(sent, datagrams.len());
        };
        let numbered = |size: usize, n: u8| vec![n; size];
        let run = [numbered(30, 1), numbered(30, 2), numbered(7, 3)];
        send(30, &run);
        let long = [numbered(600, 4), numbered(600, 5)];
        send(600, &long);
        send::segment(&sender, 0).expect("UDP_SEGMENT");
        sender.send(b"").expect("send");
        sender.send(b"alone").expect("send");
        let source = &mut listener.sources[0];
        let mut batch = source.batch();
        assert!(source.drain(&mut batch).expect("receive"));
        let taken = batch
            .packets()
            .map(|packet| (packet.bytes.to_vec(), packet.truncated));
        let mut expected: Vec<_> = run.iter().map(|bytes| (bytes.clone(), false)).collect();
        expected.extend(long.iter().map(|bytes| (bytes[..512].to_vec(), true)));
        expected.extend([(Vec::new(), false), (b"alone".to_vec(), false)]);
        assert_eq!(taken.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_datagram_stays_on_the_core_it_came_to() {
        // The thread of this test alone: loopback receives where it sends.
        let here = core_affinity::get_core_ids().expect("cores")[0];
        assert!(core_affinity::set_for_current(here));
        let here = here.id as u32;
        assert_eq!(shares(Steering::Cpu, &[here + 1, here]), [0, 300]);
        assert_eq!(shares(Steering::Cpu, &[here, here + 1]), [300, 0]);
        let mut elsewhere = [0, 0, 0];
        elsewhere[here as usize % 3] = 300;
        let others = [here + 1, here + 2, here + 3];
        assert_eq!(shares(Steering::Cpu, &others), elsewhere);
    }

    #[test]
    fn a_drain_brings_all_that_is_queued() {
        let mut listener = bind(&loopback(0), &[0], &mut Inherited::default()).expect("bind");
        let sender = UdpSocket::bind("127.0.0.1:0").expect("bind");
        for n in 0..100u8 {
            sender.send_to(&[n], port_of(&listener)).expect("send");
        }
        let source = &mut listener.sources[0];
        let mut batch = source.batch();
        let mut taken = Vec::new();
        while source.drain(&mut batch).expect("receive") {
            taken.extend(batch.packets().map(|packet| packet.bytes[0]));
        }
        assert_eq!(taken, (0..100).collect::<Vec<_>>());
        let mut tally = Tally::default();
        source.account(&mut tally);
        assert_eq!(tally, Tally::default());
    }
}
