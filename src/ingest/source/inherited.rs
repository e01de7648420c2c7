//! Sockets that were bound by somebody else: by the process before this one, or by the service manager.
//!
//! They are matched with the listeners of the configuration by what they are and where, and a listener that
//! finds its sockets here binds none. The other way round, each source has a seat: what a successor needs of
//! it, within reach while the source is with its worker.

use super::socket_file::SocketFile;
use crossbeam::channel::Sender;
use socket2::{SockRef, Type};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What the kernel dropped at a socket, as far as it is accounted for. Clones are the same account: workers
/// that share a socket share it.
#[derive(Debug, Clone, Default)]
pub struct Drops(Arc<Mutex<Account>>);

#[derive(Debug, Default)]
struct Account {
    seen: u32,
    /// A successor counts from here.
    frozen: bool,
}

impl Drops {
    /// An account of a socket of which so many are accounted for: none of one that takes datagrams since it
    /// was bound, which may be a while ago.
    pub fn since(seen: u32) -> Self {
        let frozen = false;
        Self(Arc::new(Mutex::new(Account { seen, frozen })))
    }

    /// What was dropped since this was last asked, when the kernel counts so many by now. Its counter is 32
    /// bits wide and wraps.
    pub(super) fn news(&self, counted: u32) -> u32 {
        let mut account = self.account();
        if account.frozen {
            return 0;
        }
        let before = std::mem::replace(&mut account.seen, counted);
        counted.wrapping_sub(before)
    }

    /// Counts nothing more: how many are accounted for.
    pub fn freeze(&self) -> u32 {
        let mut account = self.account();
        account.frozen = true;
        account.seen
    }

    /// Goes on counting, with all that was dropped meanwhile.
    pub fn thaw(&self) {
        self.account().frozen = false;
    }

    fn account(&self) -> MutexGuard<'_, Account> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A socket that is bound, and what belongs to it whoever reads it. Clones are the same socket.
#[derive(Debug, Clone)]
pub struct Bound {
    /// It.
    pub socket: Arc<OwnedFd>,
    /// What the kernel dropped there.
    pub drops: Drops,
    /// The service manager has it too: at the stop it stays as it is, and what waits in it is the next one's.
    pub lasting: bool,
}

impl Bound {
    /// One of this process alone.
    pub(super) fn new(socket: OwnedFd) -> Self {
        Self {
            socket: Arc::new(socket),
            drops: Drops::default(),
            lasting: false,
        }
    }
}

/// A connection that comes from the process before, with what it was in the middle of.
#[derive(Debug)]
pub struct Arrival {
    /// Its socket.
    pub socket: OwnedFd,
    /// The line or packet so far.
    pub held: Vec<u8>,
    /// The line so far was too long: the rest of it is dropped.
    pub skipping: bool,
}

/// What a successor needs of a source.
#[derive(Debug, Clone)]
pub struct Seat {
    /// The socket it reads, or accepts from.
    pub bound: Bound,
    pub(super) file: Option<Arc<SocketFile>>,
    /// Where connections of the process before go, when it takes any; its worker must be woken besides.
    pub arrivals: Option<Sender<Arrival>>,
}

impl Seat {
    /// The file of a unix socket is this process's for good.
    pub fn keep(&self) {
        if let Some(file) = &self.file {
            file.keep();
        }
    }

    /// Nobody reads it any more: the file of a unix socket goes, unless it is another process's.
    pub fn remove_file(&self) {
        if let Some(file) = &self.file {
            file.remove();
        }
    }

    /// The file of a unix socket is a successor's now: it stays when the source goes.
    pub fn leave(&self) {
        if let Some(file) = &self.file {
            file.leave();
        }
    }
}

/// What a bound socket is, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// UDP.
    Udp(SocketAddr),
    /// TCP that listens.
    Tcp(SocketAddr),
    /// A unix datagram socket.
    Datagrams(PathBuf),
    /// A unix stream socket that listens.
    Streams(PathBuf),
}

impl Place {
    /// Of a socket.
    ///
    /// # Errors
    /// When it is none of these.
    pub fn of(socket: &OwnedFd) -> io::Result<Self> {
        let unfit = |what: &str| io::Error::new(io::ErrorKind::InvalidInput, what);
        let socket = SockRef::from(socket);
        let (address, kind) = (socket.local_addr()?, socket.r#type()?);
        let streams = kind == Type::STREAM;
        if streams && !socket.is_listener()? {
            return Err(unfit("a stream socket that does not listen"));
        }
        if !streams && kind != Type::DGRAM {
            return Err(unfit("a socket of neither datagrams nor streams"));
        }
        match (address.as_socket(), address.as_pathname()) {
            (Some(address), _) if streams => Ok(Self::Tcp(address)),
            (Some(address), _) => Ok(Self::Udp(address)),
            (None, Some(path)) if streams => Ok(Self::Streams(path.into())),
            (None, Some(path)) => Ok(Self::Datagrams(path.into())),
            (None, None) => Err(unfit("a socket without an address of IP or a path")),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Udp(address) => write!(f, "udp {address}"),
            Self::Tcp(address) => write!(f, "tcp {address}"),
            Self::Datagrams(path) => write!(f, "unix datagrams {}", path.display()),
            Self::Streams(path) => write!(f, "unix streams {}", path.display()),
        }
    }
}

/// The sockets of one listener.
#[derive(Debug)]
pub struct Group {
    /// What they are, and where.
    pub place: Place,
    /// One for each worker that read them; workers that shared one have the same.
    pub sockets: Vec<Bound>,
    /// Its number where it comes from.
    pub number: usize,
    /// They come from a process like this one, which had so many workers for good reason; else as many as the
    /// configuration says share them.
    pub settled: bool,
    /// They are no listener's there, but of other use.
    pub other: bool,
}

/// All that was inherited, less what was taken. By default nothing.
#[derive(Debug, Default)]
pub struct Inherited {
    groups: Vec<Group>,
    /// Numbers of those that were taken.
    taken: Vec<usize>,
}

impl Inherited {
    /// These.
    pub fn new(groups: Vec<Group>) -> Self {
        let taken = Vec::new();
        Self { groups, taken }
    }

    /// Takes the sockets at a place of UDP or TCP: one of these addresses, where port 0 is any port.
    pub(super) fn take_at(&mut self, udp: bool, wanted: &[SocketAddr]) -> Option<Group> {
        self.take(false, |place| match place {
            Place::Udp(address) => udp && fits(address, wanted),
            Place::Tcp(address) => !udp && fits(address, wanted),
            Place::Datagrams(_) | Place::Streams(_) => false,
        })
    }

    /// Takes the socket at a path.
    pub(super) fn take_path(&mut self, streams: bool, wanted: &Path) -> Option<Group> {
        self.take(false, |place| match place {
            Place::Streams(path) => streams && path == wanted,
            Place::Datagrams(path) => !streams && path == wanted,
            Place::Udp(_) | Place::Tcp(_) => false,
        })
    }

    /// Takes a listening socket of TCP at one of these addresses for something else than metrics.
    pub fn take_listener(&mut self, wanted: &[SocketAddr]) -> Option<Arc<OwnedFd>> {
        let is_there =
            |place: &Place| matches!(place, Place::Tcp(address) if fits(address, wanted));
        let group = self.take(true, is_there)?;
        group.sockets.into_iter().next().map(|it| it.socket)
    }

    /// Takes a listening unix socket for something else than metrics.
    pub fn take_streams(&mut self, wanted: &Path) -> Option<Bound> {
        let is_there = |place: &Place| matches!(place, Place::Streams(path) if path == wanted);
        let group = self.take(true, is_there)?;
        group.sockets.into_iter().next()
    }

    /// What a service manager passes may be of either use.
    fn take(&mut self, other: bool, fits: impl Fn(&Place) -> bool) -> Option<Group> {
        let fits = |group: &Group| (!group.settled || group.other == other) && fits(&group.place);
        let at = self.groups.iter().position(fits)?;
        let group = self.groups.remove(at);
        self.taken.push(group.number);
        Some(group)
    }

    /// What nobody took.
    pub fn left(&self) -> &[Group] {
        &self.groups
    }

    /// The numbers of those that were taken, in the order of the configuration.
    pub fn taken(&self) -> &[usize] {
        &self.taken
    }
}

/// Whether it is one of these addresses; port 0 is any port.
fn fits(there: &SocketAddr, wanted: &[SocketAddr]) -> bool {
    let fits = |wanted: &SocketAddr| {
        wanted.ip() == there.ip() && (wanted.port() == 0 || wanted.port() == there.port())
    };
    wanted.iter().any(fits)
}

impl Group {
    /// One for each worker: those there are, or as many as wanted of those.
    pub(super) fn spread(&mut self, workers: usize) {
        if self.settled {
            if self.sockets.len() != workers {
                log::warn!(
                    "{}: {} workers were taken over and stay, {workers} are configured; a restart makes as \
                     many",
                    self.place,
                    self.sockets.len()
                );
            }
            return;
        }
        let mut round = (0..self.sockets.len()).cycle();
        while self.sockets.len() < workers {
            let at = round.next().expect("a group has a socket");
            self.sockets.push(self.sockets[at].clone());
        }
    }

    /// Whether the socket of a source is that of another, too.
    pub(super) fn is_shared(&self, bound: &Bound) -> bool {
        let same = |it: &&Bound| Arc::ptr_eq(&it.socket, &bound.socket);
        self.sockets.iter().filter(same).count() > 1
    }
}

/// Adds to groups of the same place, or makes one.
pub fn group(groups: &mut Vec<Group>, socket: OwnedFd, settled: bool) -> io::Result<()> {
    let place = Place::of(&socket)?;
    // Their senders see no difference, and nobody waits in a call for them.
    SockRef::from(&socket.as_fd()).set_nonblocking(true)?;
    let socket = Bound {
        lasting: !settled,
        ..Bound::new(socket)
    };
    match groups.iter_mut().find(|group| group.place == place) {
        Some(group) => group.sockets.push(socket),
        None => groups.push(Group {
            place,
            sockets: vec![socket],
            number: groups.len(),
            settled,
            other: false,
        }),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, UdpSocket};
    use std::os::unix::net::UnixDatagram;

    #[test]
    fn drops_are_counted_once_on_whichever_side() {
        let here = Drops::default();
        assert_eq!(here.news(5), 5);
        let there = Drops::since(here.freeze());
        assert_eq!((here.news(9), there.news(9)), (0, 4));
        here.thaw();
        assert_eq!(here.news(9), 4, "the successor failed");
        assert_eq!(Drops::since(u32::MAX).news(2), 3);
    }

    #[test]
    fn sockets_are_found_by_what_they_are_and_where() {
        let udp = UdpSocket::bind("127.0.0.1:0").expect("bind");
        let tcp = TcpListener::bind("127.0.0.1:0").expect("bind");
        let addresses = (
            udp.local_addr().expect("address"),
            tcp.local_addr().expect("address"),
        );
        let path = std::env::temp_dir().join(format!("statsd-fast-inherit-{}", std::process::id()));
        let datagrams = UnixDatagram::bind(&path).expect("bind");
        let twin = udp.try_clone().expect("a copy");
        let mut groups = Vec::new();
        for socket in [
            OwnedFd::from(udp),
            tcp.into(),
            datagrams.into(),
            twin.into(),
        ] {
            group(&mut groups, socket, false).expect("bound");
        }
        std::fs::remove_file(&path).expect("it is there");
        assert_eq!(groups.len(), 3);
        let mut inherited = Inherited::new(groups);
        assert!(inherited.take_at(true, &[addresses.1]).is_none());
        assert!(inherited.take_path(true, &path).is_none());
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut found = inherited.take_at(true, &[any]).expect("UDP");
        assert_eq!(
            (found.sockets.len(), &found.place),
            (2, &Place::Udp(addresses.0))
        );
        found.spread(5);
        assert_eq!(found.sockets.len(), 5);
        assert!(found.is_shared(&found.sockets[0]));
        assert!(inherited.take_at(true, &[any]).is_none(), "once");
        assert!(inherited.take_path(false, &path).is_some());
        assert_eq!(inherited.left().len(), 1);
        assert!(inherited.take_listener(&[addresses.1]).is_some());
        assert_eq!(inherited.taken(), [0, 2, 1]);
    }

    #[test]
    fn what_cannot_be_listened_to_is_refused() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let address = listener.local_addr().expect("address");
        let client = std::net::TcpStream::connect(address).expect("connect");
        let error = Place::of(&client.into()).expect_err("a client");
        assert!(error.to_string().contains("does not listen"), "{error}");
        let nameless = UnixDatagram::unbound().expect("a socket");
        assert!(Place::of(&nameless.into()).is_err());
        let file = std::fs::File::open("/dev/null").expect("it is there");
        assert!(Place::of(&file.into()).is_err());
    }
}
