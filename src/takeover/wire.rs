//! The connection between the two sides: whole messages and descriptors, each within a time.

use super::Fault;
use super::message::{HEAD, Message, body_length};
use crate::runtime::sys::pass::{self, DESCRIPTORS_MAX};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// One end of it.
#[derive(Debug)]
pub struct Wire {
    stream: UnixStream,
}

impl Wire {
    /// An end that is connected.
    pub fn new(stream: UnixStream) -> Self {
        Self { stream }
    }

    /// Sends a message.
    ///
    /// # Errors
    /// When the other side is gone or does not read within `limit`.
    pub fn send(&mut self, message: &Message, limit: Duration) -> Result<(), Fault> {
        let bytes = message.encode();
        let until = Instant::now() + limit;
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            self.stream.set_write_timeout(Some(left(until, limit)?))?;
            match self.stream.write(rest) {
                Ok(written) => rest = &rest[written..],
                Err(error) => passing(error, limit)?,
            }
        }
        Ok(())
    }

    /// Sends descriptors.
    ///
    /// # Errors
    /// As [`Wire::send`].
    pub fn send_descriptors(
        &mut self,
        descriptors: &[BorrowedFd<'_>],
        limit: Duration,
    ) -> Result<(), Fault> {
        self.stream.set_write_timeout(Some(limit))?;
        for some in descriptors.chunks(DESCRIPTORS_MAX) {
            pass::send(self.stream.as_fd(), some).or_else(|error| fatal(error, limit))?;
        }
        Ok(())
    }

    /// Waits for a message.
    ///
    /// # Errors
    /// When none comes within `limit`, the other side is gone, or what comes is none. A refusal is one, too.
    pub fn receive(&mut self, limit: Duration) -> Result<Message, Fault> {
        let until = Instant::now() + limit;
        let mut head = Vec::new();
        self.read(HEAD as u64, until, limit, &mut head)?;
        let head = head.first_chunk().expect("as many were read");
        let mut body = Vec::new();
        self.read(body_length(head), until, limit, &mut body)?;
        match Message::decode(*head, &body)? {
            Message::Refused(why) => Err(Fault::Refused(why)),
            message => Ok(message),
        }
    }

    /// Waits for so many descriptors.
    ///
    /// # Errors
    /// As [`Wire::receive`].
    pub fn receive_descriptors(
        &mut self,
        count: usize,
        limit: Duration,
    ) -> Result<Vec<OwnedFd>, Fault> {
        self.stream.set_read_timeout(Some(limit))?;
        let mut descriptors = Vec::new();
        while descriptors.len() < count {
            match pass::receive(self.stream.as_fd()) {
                Ok(some) if some.is_empty() => {
                    return Err(Fault::Damaged("a descriptor is missing"));
                }
                Ok(some) => descriptors.extend(some),
                Err(error) => fatal(error, limit)?,
            }
        }
        if descriptors.len() > count {
            return Err(Fault::Damaged("more descriptors came than were announced"));
        }
        Ok(descriptors)
    }

    /// Reads exactly so many bytes: behind them may be a message with descriptors, which a longer read would
    /// lose.
    fn read(
        &mut self,
        count: u64,
        until: Instant,
        limit: Duration,
        bytes: &mut Vec<u8>,
    ) -> Result<(), Fault> {
        let mut piece = [0; 1 << 16];
        let mut missing = count;
        while missing > 0 {
            self.stream.set_read_timeout(Some(left(until, limit)?))?;
            let most = usize::try_from(missing).map_or(piece.len(), |it| it.min(piece.len()));
            match self.stream.read(&mut piece[..most]) {
                Ok(0) => return Err(Fault::Gone),
                Ok(read) => {
                    bytes.extend_from_slice(&piece[..read]);
                    missing -= read as u64;
                }
                Err(error) => passing(error, limit)?,
            }
        }
        Ok(())
    }
}

fn left(until: Instant, limit: Duration) -> Result<Duration, Fault> {
    let left = until.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(Fault::Late(limit));
    }
    Ok(left)
}

/// A signal is no error.
fn passing(error: io::Error, limit: Duration) -> Result<(), Fault> {
    if error.kind() == io::ErrorKind::Interrupted {
        return Ok(());
    }
    fatal(error, limit)
}

fn fatal(error: io::Error, limit: Duration) -> Result<(), Fault> {
    Err(match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Fault::Late(limit),
        io::ErrorKind::BrokenPipe
        | io::ErrorKind::ConnectionReset
        | io::ErrorKind::UnexpectedEof => Fault::Gone,
        _ => Fault::Io(error),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(30);

    fn pair() -> (Wire, Wire) {
        let (one, other) = UnixStream::pair().expect("a pair");
        (Wire::new(one), Wire::new(other))
    }

    #[test]
    fn messages_and_descriptors_keep_their_order() {
        let (mut here, mut there) = pair();
        let many: Vec<_> = (0..150)
            .map(|_| UnixStream::pair().expect("a pair").0)
            .collect();
        let sockets: Vec<_> = many.iter().map(AsFd::as_fd).collect();
        let large = Message::State(vec![7; 3 << 20]);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                here.send(&Message::Taken, SOON).expect("sent");
                here.send_descriptors(&sockets, SOON).expect("sent");
                here.send(&large, SOON).expect("sent");
                here.send(&Message::Refused("enough".into()), SOON)
                    .expect("sent");
            });
            assert_eq!(there.receive(SOON).expect("a message"), Message::Taken);
            let received = there.receive_descriptors(150, SOON).expect("descriptors");
            assert_eq!(received.len(), 150);
            assert_eq!(there.receive(SOON).expect("a message"), large);
            let refused = there.receive(SOON).expect_err("it says no").to_string();
            assert_eq!(refused, "the other process refuses: enough");
        });
    }

    #[test]
    fn a_torn_message_is_none() {
        for cut in [0, 5, HEAD, HEAD + 2] {
            let (here, mut there) = pair();
            let whole = Message::Refused("enough".into()).encode();
            (&here.stream).write_all(&whole[..cut]).expect("sent");
            drop(here);
            assert!(matches!(there.receive(SOON), Err(Fault::Gone)), "{cut}");
        }
    }

    #[test]
    fn nobody_is_waited_for_longer_than_allowed() {
        let (mut here, mut there) = pair();
        let short = Duration::from_millis(20);
        assert!(matches!(there.receive(short), Err(Fault::Late(_))));
        assert!(matches!(
            there.receive_descriptors(1, short),
            Err(Fault::Late(_))
        ));
        let large = Message::State(vec![7; 64 << 20]);
        assert!(matches!(here.send(&large, short), Err(Fault::Late(_))));
    }
}
