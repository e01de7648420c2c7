//! The connection that an HTTP client uses, with the deadline that it does not keep itself.
//!
//! A client that blocks in a look-up, in the handshake of TLS or in a proxy's answer cannot be told to
//! stop, unless somebody else holds its connection. So we do: the way to the peer is opened here, through
//! a proxy if there is one, and the client is given an entrance on the loopback device, which is to it a
//! proxy. What it says is carried to the peer and back; at the deadline both sides are shut, and the
//! client, which sees its connection end, ends too. No thread stays behind.

use super::address::{Proxy, basic};
use crossbeam::channel::{Receiver, Sender, bounded};
use socket2::SockRef;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, Builder, Scope, ScopedJoinHandle};
use std::time::{Duration, Instant};

/// The longest head of a proxy's answer, in bytes.
const HEAD_MAX: usize = 8 * 1024;

/// How far a first line is looked for, in bytes.
const FIRST_LINE_MAX: usize = 1024;

/// Look-ups of names that may be under way. The resolver gives each up after a while of its own.
const LOOKUPS_MAX: usize = 8;

/// Look-ups under way, in all of the process.
static LOOKUPS: AtomicUsize = AtomicUsize::new(0);

/// Where a connection leads.
pub(super) struct Route<'a> {
    /// The peer's name or address.
    pub(super) host: &'a str,
    /// Its port.
    pub(super) port: u16,
    /// Who is asked to connect to it instead of us.
    pub(super) proxy: Option<&'a Proxy>,
}

/// The user that a client names at its entrance.
pub(super) const ENTRANCE_USER: &str = "entrance";

/// Where the client enters: a proxy on the loopback device that asks for credentials, since everybody on
/// the machine can connect to it.
pub(super) struct Entrance {
    /// Its address.
    pub(super) address: SocketAddr,
    /// The password of [`ENTRANCE_USER`], good for one connection.
    pub(super) password: String,
}

/// How it went.
pub(super) struct Carried<T> {
    /// What the client returned; nothing when it panicked.
    pub(super) answer: Option<T>,
    /// What the peer had to say.
    pub(super) heard: Heard,
    /// What the client said.
    pub(super) said: Said,
}

/// What a peer had to say, as far as can be told from outside.
#[derive(Debug, Default)]
pub(super) struct Heard {
    /// What ended it: the deadline, or the peer's end of the connection; nothing when the client was done.
    pub(super) broken: Option<io::Error>,
    /// Whether an empty line was in it, with which the head of an answer in clear ends.
    pub(super) empty_line: bool,
    /// The status, when the first line of an answer in clear was whole.
    pub(super) status: Option<u16>,
}

/// How much a client said that was to go to the peer, whether or not it arrived.
#[derive(Debug, Default)]
pub(super) struct Said {
    /// In bytes.
    pub(super) bytes: u64,
    /// Of those, what was in TLS records of application data, in bytes: the request, and before it, in
    /// TLS 1.3, the short message that ends the handshake.
    pub(super) data: u64,
    record: Record,
}

/// The TLS record that a client is at.
#[derive(Debug, Default)]
struct Record {
    head: Vec<u8>,
    is_data: bool,
    left: usize,
}

/// The type of a TLS record of application data.
const APPLICATION_DATA: u8 = 23;

impl Said {
    fn add(&mut self, mut bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        let record = &mut self.record;
        while let Some((first, rest)) = bytes.split_first() {
            if record.left > 0 {
                let taken = record.left.min(bytes.len());
                self.data += if record.is_data { taken as u64 } else { 0 };
                record.left -= taken;
                bytes = &bytes[taken..];
                continue;
            }
            record.head.push(*first);
            bytes = rest;
            if let [kind, _, _, high, low] = record.head[..] {
                record.is_data = kind == APPLICATION_DATA;
                record.left = usize::from(u16::from_be_bytes([high, low]));
                record.head.clear();
            }
        }
    }
}

/// Connects to the peer.
///
/// # Errors
/// When nobody answers until the deadline, or the proxy does not let us through.
pub(super) fn dial(route: &Route<'_>, deadline: Instant) -> io::Result<TcpStream> {
    let Some(proxy) = route.proxy else {
        return connect(route.host, route.port, deadline);
    };
    let through =
        |error: io::Error| io::Error::new(error.kind(), format!("the proxy {proxy}: {error}"));
    let mut stream = connect(&proxy.host, proxy.port, deadline).map_err(through)?;
    ask(&mut stream, route, proxy, deadline).map_err(through)?;
    Ok(stream)
}

fn connect(host: &str, port: u16, deadline: Instant) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    let addresses = resolve(host, port, deadline)?;
    let mut untried = addresses.len() as u32;
    for address in addresses {
        // A route that swallows everything must leave time for the other addresses.
        let share = left(deadline)? / untried;
        match TcpStream::connect_timeout(&address, share.max(Duration::from_millis(1))) {
            Ok(stream) => {
                // What comes from the client is whole already.
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
        untried -= 1;
    }
    Err(last)
}

/// The addresses of a name. The resolver knows no deadline: one that hangs is left to itself.
fn resolve(host: &str, port: u16, deadline: Instant) -> io::Result<Vec<SocketAddr>> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(vec![(address, port).into()]);
    }
    let place = Place::take()
        .ok_or_else(|| io::Error::other(format!("{LOOKUPS_MAX} look-ups of names hang")))?;
    let (tell, told) = bounded(1);
    let name = host.to_owned();
    Builder::new().name("librato-dns".into()).spawn(move || {
        let _place = place;
        let addresses = (name.as_str(), port).to_socket_addrs();
        // Nobody listens any more after the deadline.
        let _ = tell.send(addresses.map(Iterator::collect));
    })?;
    told.recv_deadline(deadline).unwrap_or_else(|_| {
        Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "the resolver hangs",
        ))
    })
}

/// One of the look-ups under way.
struct Place;

impl Place {
    fn take() -> Option<Self> {
        // Relaxed: it only counts.
        let taken = LOOKUPS.fetch_add(1, Ordering::Relaxed);
        let place = Self;
        (taken < LOOKUPS_MAX).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        LOOKUPS.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Asks a proxy to connect.
fn ask(
    stream: &mut TcpStream,
    route: &Route<'_>,
    proxy: &Proxy,
    deadline: Instant,
) -> io::Result<()> {
    let peer = format!("{}:{}", route.host, route.port);
    let mut request = format!("CONNECT {peer} HTTP/1.1\r\nHost: {peer}\r\nConnection: close\r\n");
    if let Some(authorization) = &proxy.authorization {
        request += &format!("Proxy-Authorization: {authorization}\r\n");
    }
    request += "\r\n";
    stream.set_write_timeout(Some(left(deadline)?))?;
    stream.write_all(request.as_bytes())?;
    let head = read_head(stream, deadline)?;
    stream.set_write_timeout(None)?;
    stream.set_read_timeout(None)?;
    let line = head.lines().next().unwrap_or_default();
    match line.split(' ').nth(1) {
        Some("200") => Ok(()),
        Some("407") => Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            "it wants other credentials (407); correct the user and password in `librato.proxy.uri`",
        )),
        _ => Err(io::Error::other(format!(
            "it did not connect to {peer}: {line:?}; see its rules and its log"
        ))),
    }
}

/// Reads up to an empty line and no byte more, since what follows is not ours.
fn read_head(stream: &mut TcpStream, deadline: Instant) -> io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() == HEAD_MAX {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "a head that does not end",
            ));
        }
        stream.set_read_timeout(Some(left(deadline)?))?;
        let mut byte = [0];
        match stream.read(&mut byte) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => head.push(byte[0]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(as_timeout(error)),
        }
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

/// Lets a client speak to a peer until it returns, at most until the deadline. `answer_max` bounds what the
/// peer may say in all, in bytes.
///
/// # Errors
/// When the system has no thread or socket to give: nothing was said to the peer then.
pub(super) fn carry<T: Send>(
    peer: &TcpStream,
    answer_max: u64,
    deadline: Instant,
    client: impl FnOnce(&Entrance) -> T + Send,
) -> io::Result<Carried<T>> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let entrance = Entrance {
        address: listener.local_addr()?,
        password: format!("{:016x}", RandomState::new().hash_one(0)),
    };
    let (entrance, ended) = (&entrance, &AtomicBool::new(false));
    thread::scope(|scope| {
        let (closes_when_done, done) = bounded::<()>(0);
        let client = Builder::new()
            .name("librato-http".into())
            .spawn_scoped(scope, move || {
                let _leaves = Leaves {
                    ended,
                    _closes_when_done: closes_when_done,
                    entrance: entrance.address,
                };
                client(entrance)
            })?;
        let admitted = admit(listener, entrance, ended, deadline);
        let (heard, said) = match &admitted {
            Ok(Some(inner)) => pump(inner, peer, answer_max, &done, deadline)?,
            Ok(None) => (Heard::default(), Said::default()),
            Err(error) => {
                let broken = Some(io::Error::new(error.kind(), error.to_string()));
                let heard = Heard {
                    broken,
                    ..Heard::default()
                };
                (heard, Said::default())
            }
        };
        // The client's side must be closed before it is waited for.
        drop(admitted);
        Ok(Carried {
            answer: client.join().ok(),
            heard,
            said,
        })
    })
}

/// Tells that a client has ended, by a panic too.
struct Leaves<'a> {
    ended: &'a AtomicBool,
    _closes_when_done: Sender<()>,
    entrance: SocketAddr,
}

impl Drop for Leaves<'_> {
    fn drop(&mut self) {
        // Release: who sees it set may also count on the client having no more to do with the entrance.
        self.ended.store(true, Ordering::Release);
        // Wakes who waits for a client that never came; after it came in nobody listens.
        let _ = TcpStream::connect(self.entrance);
    }
}

/// Waits for the client; nothing when it ended without entering.
fn admit(
    listener: TcpListener,
    entrance: &Entrance,
    ended: &AtomicBool,
    deadline: Instant,
) -> io::Result<Option<TcpStream>> {
    let pass = basic(ENTRANCE_USER, &entrance.password);
    loop {
        SockRef::from(&listener).set_read_timeout(Some(left(deadline)?))?;
        let (mut stream, _) = listener.accept().map_err(as_timeout)?;
        if ended.load(Ordering::Acquire) {
            return Ok(None);
        }
        // Anyone else who connects gets no answer.
        let Ok(head) = read_head(&mut stream, deadline) else {
            continue;
        };
        let shows_pass = head.lines().any(|line| {
            let pair = line.split_once(": ");
            pair.is_some_and(|(name, value)| {
                name.eq_ignore_ascii_case("proxy-authorization") && value == pass
            })
        });
        if shows_pass {
            stream.set_read_timeout(None)?;
            stream.set_nodelay(true)?;
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n")?;
            return Ok(Some(stream));
        }
    }
}

/// Shuts connections, so that whoever reads or writes them ends.
struct Shuts<'a>([&'a TcpStream; 2]);

impl Drop for Shuts<'_> {
    fn drop(&mut self) {
        for stream in self.0 {
            // Shut already by the other side, it is.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

/// Carries both ways until the client is done or the deadline has come.
fn pump(
    inner: &TcpStream,
    peer: &TcpStream,
    answer_max: u64,
    done: &Receiver<()>,
    deadline: Instant,
) -> io::Result<(Heard, Said)> {
    thread::scope(|scope| {
        let shuts = Shuts([inner, peer]);
        // The last to start, so that nothing is said if one does not.
        let receiving = start(scope, "librato-receive", || inward(peer, inner, answer_max))?;
        let sending = start(scope, "librato-send", || outward(inner, peer))?;
        let ended = done.recv_deadline(deadline);
        drop(shuts);
        let mut heard = receiving.join().unwrap_or_default();
        if ended.is_err_and(|error| error.is_timeout()) {
            heard.broken = Some(timed_out());
        }
        Ok((heard, sending.join().unwrap_or_default()))
    })
}

fn start<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    name: &str,
    work: impl FnOnce() -> T + Send + 'scope,
) -> io::Result<ScopedJoinHandle<'scope, T>> {
    Builder::new().name(name.into()).spawn_scoped(scope, work)
}

/// Carries what the client says. A peer that takes no more may have answered before it stopped: then the
/// client must still get rid of its words to come to the answer.
fn outward(mut inner: &TcpStream, mut peer: &TcpStream) -> Said {
    let mut said = Said::default();
    let mut bytes = [0; 16 * 1024];
    let mut takes = true;
    loop {
        let read = match inner.read(&mut bytes) {
            Ok(0) => return said,
            Ok(length) => &bytes[..length],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => return said,
        };
        if takes {
            // Before it goes: of what fails, nobody knows how much arrived.
            said.add(read);
            takes = peer.write_all(read).is_ok();
        }
    }
}

/// Carries what the peer says.
fn inward(peer: &TcpStream, mut inner: &TcpStream, answer_max: u64) -> Heard {
    let mut answer = peer.take(answer_max);
    let mut bytes = [0; 16 * 1024];
    let (mut empty_line, mut at_its_start) = (false, false);
    let (mut first_line, mut status) = (Vec::new(), None);
    let broken = loop {
        let read = match answer.read(&mut bytes) {
            Ok(0) => break None,
            Ok(length) => &bytes[..length],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => break Some(error),
        };
        if status.is_none() && first_line.len() < FIRST_LINE_MAX {
            first_line.extend_from_slice(read);
            status = status_of(&first_line);
        }
        for byte in read.iter().filter(|byte| **byte != b'\r') {
            empty_line |= at_its_start && *byte == b'\n';
            at_its_start = *byte == b'\n';
        }
        if inner.write_all(read).is_err() {
            // A client that has read enough.
            break None;
        }
    };
    let _ = inner.shutdown(Shutdown::Write);
    Heard {
        broken,
        empty_line,
        status,
    }
}

/// The status in a first line, when the line is whole.
fn status_of(answer: &[u8]) -> Option<u16> {
    let end = answer.iter().position(|byte| *byte == b'\n')?;
    let line = answer[..end].strip_prefix(b"HTTP/1.")?;
    let status = line.split(|byte| byte.is_ascii_whitespace()).nth(1)?;
    let digits = status.len() == 3 && status.iter().all(u8::is_ascii_digit);
    let status = std::str::from_utf8(status).ok().filter(|_| digits)?;
    status.parse().ok()
}

/// What is left until the deadline.
fn left(deadline: Instant) -> io::Result<Duration> {
    deadline
        .checked_duration_since(Instant::now())
        .filter(|left| !left.is_zero())
        .ok_or_else(timed_out)
}

/// What is returned when the deadline has come.
pub(super) fn timed_out() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "no answer in time")
}

/// The system says of a socket with a timeout that it would block.
fn as_timeout(error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::WouldBlock {
        return timed_out();
    }
    error
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENT: Duration = Duration::from_secs(60);

    /// Both ends of a connection: the one that is carried to, and the peer's own.
    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let address = listener.local_addr().expect("it is bound");
        let near = TcpStream::connect(address).expect("it listens");
        (near, listener.accept().expect("it connected").0)
    }

    fn carry_all<T: Send>(
        near: &TcpStream,
        client: impl FnOnce(&Entrance) -> T + Send,
    ) -> Carried<T> {
        carry(near, 1000, Instant::now() + PATIENT, client).expect("threads and sockets")
    }

    /// What a client does to enter, with this password.
    fn enter(entrance: &Entrance, password: &str) -> io::Result<TcpStream> {
        let mut stream = TcpStream::connect(entrance.address)?;
        let pass = basic(ENTRANCE_USER, password);
        let request = format!("CONNECT a:1 HTTP/1.1\r\nProxy-Authorization: {pass}\r\n\r\n");
        stream.write_all(request.as_bytes())?;
        let head = read_head(&mut stream, Instant::now() + PATIENT)?;
        assert_eq!(head, "HTTP/1.1 200 OK\r\n\r\n");
        stream.set_read_timeout(None)?;
        Ok(stream)
    }

    #[test]
    fn a_client_that_does_not_enter_is_not_waited_for() {
        let (near, _peer) = pair();
        let carried = carry_all(&near, |_| 7);
        assert_eq!(carried.answer, Some(7));
        assert!(carried.heard.broken.is_none());
        let carried = carry_all(&near, |_| -> u8 { panic!("as clients do") });
        assert_eq!(carried.answer, None);
        assert!(carried.heard.broken.is_none());
    }

    #[test]
    fn nobody_else_is_let_in() {
        let (near, mut peer) = pair();
        peer.write_all(b"hello").expect("the system takes it");
        let carried = carry_all(&near, |entrance| {
            let stranger = enter(entrance, "0000").expect_err("a stranger");
            assert_eq!(stranger.kind(), io::ErrorKind::UnexpectedEof);
            drop(TcpStream::connect(entrance.address).expect("it listens"));
            let mut stream = enter(entrance, &entrance.password).expect("a pass");
            let mut heard = [0; 5];
            stream.read_exact(&mut heard).expect("it is carried");
            heard
        });
        assert_eq!(carried.answer.as_ref(), Some(b"hello"));
    }

    #[test]
    fn a_peer_may_say_so_much_and_no_more() {
        let (near, mut peer) = pair();
        peer.write_all(&[b'x'; 5000]).expect("the system takes it");
        let carried = carry_all(&near, |entrance| {
            let mut stream = enter(entrance, &entrance.password).expect("a pass");
            let mut heard = Vec::new();
            stream.read_to_end(&mut heard).expect("it ends");
            heard.len()
        });
        assert_eq!(carried.answer, Some(1000));
    }

    #[test]
    fn a_request_is_told_from_a_handshake() {
        let hello = [&[22, 3, 1, 0, 3][..], b"abc"].concat();
        let finished = [&[23, 3, 3, 0, 2][..], b"de"].concat();
        let request = [&[23, 3, 3, 1, 0][..], &[b'x'; 256]].concat();
        let all = [hello.clone(), finished.clone(), request].concat();
        for piece in [1, 3, all.len()] {
            let mut said = Said::default();
            all.chunks(piece).for_each(|bytes| said.add(bytes));
            assert_eq!((said.bytes, said.data), (all.len() as u64, 258));
        }
        let mut said = Said::default();
        said.add(&hello);
        assert_eq!((said.bytes, said.data), (8, 0));
    }

    #[test]
    fn a_status_counts_when_its_line_is_whole() {
        for (line, status) in [
            ("HTTP/1.1 202 Accepted\r\n", Some(202)),
            ("HTTP/1.0 503\nx", Some(503)),
            ("HTTP/1.1 202 Accepted", None),
            ("HTTP/1.1 2020 A\r\n", None),
            ("HTTP/1.1 +20 A\r\n", None),
            ("HTTP/2 202\r\n", None),
            ("\n", None),
        ] {
            assert_eq!(status_of(line.as_bytes()), status, "{line:?}");
        }
    }

    #[test]
    fn a_client_is_not_held_by_a_peer_that_has_gone() {
        let (near, peer) = pair();
        drop(peer);
        let carried = carry_all(&near, |entrance| {
            let mut stream = enter(entrance, &entrance.password).expect("a pass");
            stream.write_all(&vec![0; 8 * 1024 * 1024])
        });
        carried
            .answer
            .expect("no panic")
            .expect("somebody takes it");
    }
}
