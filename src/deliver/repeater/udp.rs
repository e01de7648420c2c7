//! Copies as datagrams, over a connected socket, so that the system tells what becomes of them.

use super::{Target, Troubles, Way};
use crate::metric::copied::Copied;
use crate::runtime::sys::send::{MAX_BATCH, Refusal, connected, send_batch};
use std::io::{self, IoSlice};
use std::net::{SocketAddr, ToSocketAddrs, UdpSocket};
use std::time::{Duration, Instant};

/// Time between two questions to the resolver, asked only while something is wrong.
const RESOLVE_PAUSE: Duration = Duration::from_secs(5);
/// How long a full send buffer is waited for.
const WRITE_MAX: Duration = Duration::from_secs(1);
/// How often one datagram is tried that is refused for an earlier one.
const TRIES: usize = 4;

/// One target.
pub(super) struct Udp {
    target: Target,
    ipv6: bool,
    /// With the address it is connected to.
    socket: Option<(UdpSocket, SocketAddr)>,
    /// Something went wrong since the name was last resolved.
    in_trouble: bool,
    resolve_from: Instant,
}

impl Udp {
    /// Not connected yet.
    pub(super) fn new(target: Target, ipv6: bool) -> Self {
        Self {
            target,
            ipv6,
            socket: None,
            in_trouble: true,
            resolve_from: Instant::now(),
        }
    }

    /// Resolves the name and connects to what comes of it, unless that is where we are already.
    fn connect(&mut self) -> io::Result<()> {
        let found: Vec<_> = (&*self.target.host, self.target.port)
            .to_socket_addrs()?
            .collect();
        let wanted = found.iter().find(|address| address.is_ipv6() == self.ipv6);
        let Some(&address) = wanted else {
            let family = if self.ipv6 { "IPv6" } else { "IPv4" };
            return Err(io::Error::other(format!(
                "the name has no {family} address"
            )));
        };
        if self
            .socket
            .as_ref()
            .is_some_and(|(_, known)| *known == address)
        {
            return Ok(());
        }
        self.socket = Some((connected(address, WRITE_MAX)?, address));
        Ok(())
    }
}

impl Way for Udp {
    fn begin(&mut self, troubles: &mut Troubles) {
        if self.in_trouble && Instant::now() >= self.resolve_from {
            match self.connect() {
                Ok(()) => self.in_trouble = false,
                Err(error) => troubles.met(&error),
            }
            self.resolve_from = Instant::now() + RESOLVE_PAUSE;
        }
    }

    fn send(&mut self, copied: &Copied, troubles: &mut Troubles) -> u64 {
        self.begin(troubles);
        let Some((socket, _)) = &self.socket else {
            return 0;
        };
        let slices: Vec<_> = copied.datagrams().map(IoSlice::new).collect();
        let (mut rest, mut sent, mut tries) = (&slices[..], 0, 0);
        // The system took fewer than it was given and kept the reason to itself.
        let mut cut_short = false;
        while !rest.is_empty() {
            match send_batch(socket, rest) {
                Ok(taken) => {
                    troubles.count(u64::from(cut_short));
                    cut_short = taken < rest.len().min(MAX_BATCH);
                    self.in_trouble |= cut_short;
                    sent += taken as u64;
                    rest = &rest[taken..];
                    tries = 0;
                }
                Err(error) => {
                    cut_short = false;
                    self.in_trouble = true;
                    troubles.met(&error);
                    tries += 1;
                    // Refused was an earlier one: this one is not lost yet.
                    if Refusal::of(&error) != Refusal::Refused || tries == TRIES {
                        rest = &rest[1..];
                        tries = 0;
                    }
                }
            }
        }
        sent
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metric::meter::Outside;
    use std::sync::Arc;

    fn copied(datagrams: &[&[u8]]) -> Copied {
        let mut copied = Copied::default();
        datagrams.iter().for_each(|datagram| copied.push(datagram));
        copied
    }

    fn target(host: &str, port: u16) -> Target {
        Target {
            host: host.into(),
            port,
        }
    }

    fn troubles() -> (Troubles, Arc<Outside>) {
        let outside = Arc::new(Outside::default());
        (Troubles::new("it".into(), outside.clone()), outside)
    }

    #[test]
    fn what_is_too_long_for_udp_is_the_only_one_lost() {
        let receiver = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        let port = receiver.local_addr().expect("an address").port();
        let (mut troubles, outside) = troubles();
        let mut way = Udp::new(target("127.0.0.1", port), false);
        let batch = copied(&[b"first", &[0; 65_508], b"", b"last"]);
        assert_eq!(way.send(&batch, &mut troubles), 3);
        assert_eq!(outside.copy_errors.total(), 1);
        let mut buffer = [0; 16];
        for expected in [&b"first"[..], b"", b"last"] {
            let length = receiver.recv(&mut buffer).expect("a datagram");
            assert_eq!(&buffer[..length], expected);
        }
    }

    #[test]
    fn a_target_that_refuses_is_noticed_and_reached_again() {
        let receiver = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        let address = receiver.local_addr().expect("an address");
        drop(receiver);
        let (mut troubles, outside) = troubles();
        let mut way = Udp::new(target("127.0.0.1", address.port()), false);
        let batch = copied(&[&b"lost"[..]; 100]);
        for _ in 0..2 {
            // The system took them all: it learns with the next one that the one before was refused.
            assert_eq!(way.send(&batch, &mut troubles), 100);
        }
        assert!(outside.copy_errors.total() > 0);
        let receiver = UdpSocket::bind(address).expect("the same port");
        assert_eq!(way.send(&copied(&[b"back"]), &mut troubles), 1);
        let mut buffer = [0; 16];
        let length = receiver.recv(&mut buffer).expect("a datagram");
        assert_eq!(&buffer[..length], b"back");
    }

    #[test]
    fn a_target_without_an_address_of_the_family_takes_nothing() {
        let (mut troubles, outside) = troubles();
        let mut way = Udp::new(target("::1", 9), false);
        let batch = copied(&[b"a", b"b"]);
        assert_eq!(way.send(&batch, &mut troubles), 0);
        assert_eq!(way.send(&batch, &mut troubles), 0);
        assert_eq!(outside.copy_errors.total(), 1, "not resolved again at once");
    }
}
