//! What the two sides say to each other <-> bytes. Pure.

use super::format::{Damaged, Reader, Writer, counts, read_counts};
use crate::metric::registry::Known;
use crate::metric::sample::Kind;
use crate::runtime::crc32::Crc32;

/// What every conversation begins with.
pub const MAGIC: &[u8] = b"statsd-fast takeover\n";

/// Bytes before the body of a message: its kind, how long the body is, and the checksum of both and of the
/// body.
pub const HEAD: usize = 1 + 8 + 4;

/// A message. Descriptors that belong to one follow it.
#[derive(Debug, Clone, PartialEq)]
pub enum Message {
    /// A successor is there.
    Hello {
        /// The protocol it speaks.
        version: u32,
        /// Its process.
        process: u32,
    },
    /// No, and why.
    Refused(String),
    /// What is listened to, and every name. The sockets follow.
    Sockets(Offer),
    /// The successor takes datagrams from these listeners.
    Reading(Vec<u32>),
    /// The open connections of streams. Their sockets follow.
    Connections(Vec<Connection>),
    /// The open interval, as [`super::format`] has it.
    State(Vec<u8>),
    /// The successor has taken all of it.
    Taken,
    /// From now on it is the successor's.
    Yours,
    /// What the predecessor has counted since, by meter.
    Last(Vec<(String, u64)>),
}

/// What there is to take over.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Offer {
    /// Whose it is.
    pub process: u32,
    /// How many sockets follow.
    pub sockets: u32,
    /// The listeners.
    pub listeners: Vec<Vec<Seat>>,
    /// Listening sockets that are of other use: the admin interface, and where takeovers begin.
    pub others: Vec<u32>,
    /// Every name, by kind.
    pub names: [Vec<Known>; Kind::ALL.len()],
}

/// A worker of a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seat {
    /// Which socket it reads.
    pub socket: u32,
    /// What the kernel dropped there and the predecessor accounts for.
    pub drops: u32,
    /// The service manager has it too.
    pub lasting: bool,
}

/// An open connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connection {
    /// Of which listener.
    pub listener: u32,
    /// The line or packet so far.
    pub held: Vec<u8>,
    /// The line so far was too long: the rest of it is dropped.
    pub skipping: bool,
}

impl Message {
    fn number(&self) -> u8 {
        match self {
            Self::Hello { .. } => b'H',
            Self::Refused(_) => b'N',
            Self::Sockets(_) => b'S',
            Self::Reading(_) => b'R',
            Self::Connections(_) => b'C',
            Self::State(_) => b'O',
            Self::Taken => b'T',
            Self::Yours => b'Y',
            Self::Last(_) => b'L',
        }
    }

    /// The message as it is sent.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::behind(HEAD);
        match self {
            Self::Hello { version, process } => {
                out.bytes(MAGIC);
                out.small(*version);
                out.small(*process);
            }
            Self::Refused(why) => out.bytes(why.as_bytes()),
            Self::Sockets(offer) => {
                out.small(offer.process);
                out.small(offer.sockets);
                out.list(offer.listeners.iter(), |out, seats| {
                    out.list(seats.iter(), |out, seat| {
                        out.small(seat.socket);
                        out.small(seat.drops);
                        out.byte(seat.lasting.into());
                    });
                });
                out.list(offer.others.iter(), |out, socket| out.small(*socket));
                for names in &offer.names {
                    out.list(names.iter(), |out, known| {
                        out.bytes(known.name.as_bytes());
                        out.byte(known.brought.into());
                    });
                }
            }
            Self::Reading(taken) => out.list(taken.iter(), |out, listener| out.small(*listener)),
            Self::Connections(connections) => out.list(connections.iter(), |out, it| {
                out.small(it.listener);
                out.bytes(&it.held);
                out.byte(it.skipping.into());
            }),
            Self::State(state) => out.bytes(state),
            Self::Taken | Self::Yours => {}
            Self::Last(counted) => counts(&mut out, counted),
        }
        // An interval may be large: its bytes are not copied once more.
        let mut message = out.finish();
        let (head, body) = message.split_at_mut(HEAD);
        let (begin, sum) = head.split_at_mut(HEAD - 4);
        begin[0] = self.number();
        begin[1..].copy_from_slice(&(body.len() as u64).to_le_bytes());
        sum.copy_from_slice(&checksum(begin, body).to_le_bytes());
        message
    }

    /// Reads the body of a message.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn decode(head: [u8; HEAD], body: &[u8]) -> Result<Self, Damaged> {
        let (begin, sum) = head.split_at(HEAD - 4);
        if checksum(begin, body).to_le_bytes() != sum {
            return Err(Damaged("its checksum is not that of its content"));
        }
        let bytes = &mut Reader::new(body);
        let message = match head[0] {
            b'H' if bytes.bytes()? == MAGIC => Self::Hello {
                version: bytes.small()?,
                process: bytes.small()?,
            },
            b'N' => Self::Refused(bytes.text()?.into()),
            b'S' => {
                let process = bytes.small()?;
                let sockets = bytes.small()?;
                let known = |socket: u32| {
                    if socket < sockets {
                        Ok(socket)
                    } else {
                        Err(Damaged("a listener has no socket"))
                    }
                };
                let listeners = bytes.list(|bytes| {
                    bytes.list(|bytes| {
                        Ok(Seat {
                            socket: known(bytes.small()?)?,
                            drops: bytes.small()?,
                            lasting: bytes.byte()? != 0,
                        })
                    })
                })?;
                let others = bytes.list(|bytes| known(bytes.small()?))?;
                let mut names: [Vec<Known>; Kind::ALL.len()] = Default::default();
                for names in &mut names {
                    *names = bytes.list(|bytes| {
                        Ok(Known {
                            name: bytes.text()?.into(),
                            brought: bytes.byte()? != 0,
                        })
                    })?;
                }
                Self::Sockets(Offer {
                    process,
                    sockets,
                    listeners,
                    others,
                    names,
                })
            }
            b'R' => Self::Reading(bytes.list(Reader::small)?),
            b'C' => Self::Connections(bytes.list(|bytes| {
                Ok(Connection {
                    listener: bytes.small()?,
                    held: bytes.bytes()?.into(),
                    skipping: bytes.byte()? != 0,
                })
            })?),
            b'O' => Self::State(bytes.bytes()?.into()),
            b'T' => Self::Taken,
            b'Y' => Self::Yours,
            b'L' => Self::Last(read_counts(bytes)?),
            _ => return Err(Damaged("it is no message of a takeover")),
        };
        bytes.finish()?;
        Ok(message)
    }
}

fn checksum(head: &[u8], body: &[u8]) -> u32 {
    let mut crc = Crc32::new();
    crc.update(head);
    crc.update(body);
    crc.value()
}

/// How long the body behind a head is.
pub fn body_length(head: &[u8; HEAD]) -> u64 {
    let [_, length @ .., _, _, _, _] = head;
    u64::from_le_bytes(*length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn samples() -> Vec<Message> {
        vec![
            Message::Hello {
                version: 1,
                process: 4711,
            },
            Message::Refused("busy".into()),
            Message::Sockets(Offer {
                process: 4711,
                sockets: 3,
                listeners: vec![
                    vec![
                        Seat {
                            socket: 0,
                            drops: 7,
                            lasting: true,
                        },
                        Seat {
                            socket: 1,
                            drops: 0,
                            lasting: false,
                        },
                    ],
                    Vec::new(),
                ],
                others: vec![2],
                names: [
                    vec![known("a", true), known("b;c=d", false)],
                    vec![],
                    vec![known("g", true)],
                    vec![],
                ],
            }),
            Message::Reading(vec![0, 2]),
            Message::Connections(vec![Connection {
                listener: 1,
                held: b"a:1|".to_vec(),
                skipping: true,
            }]),
            Message::State(vec![1, 2, 3]),
            Message::Taken,
            Message::Yours,
            Message::Last(vec![("flushes_dropped".into(), 3)]),
        ]
    }

    fn read(bytes: &[u8]) -> Result<Message, Damaged> {
        let (head, body) = bytes.split_first_chunk().expect("a head");
        assert_eq!(body_length(head), body.len() as u64);
        Message::decode(*head, body)
    }

    fn known(name: &str, brought: bool) -> Known {
        let name = name.into();
        Known { name, brought }
    }

    #[test]
    fn what_is_read_is_what_was_written() {
        for message in samples() {
            assert_eq!(read(&message.encode()), Ok(message));
        }
    }

    #[test]
    fn with_any_bit_changed_it_is_refused() {
        for message in samples() {
            let bytes = message.encode();
            for bit in 0..bytes.len() * 8 {
                let mut bytes = bytes.clone();
                bytes[bit / 8] ^= 1 << (bit % 8);
                let (head, body) = bytes.split_first_chunk().expect("a head");
                assert!(
                    Message::decode(*head, body).is_err(),
                    "{message:?}, bit {bit}"
                );
            }
        }
    }

    #[test]
    fn a_listener_without_a_socket_is_refused() {
        let offer = Offer {
            sockets: 1,
            others: vec![1],
            ..Offer::default()
        };
        let refused = read(&Message::Sockets(offer).encode());
        assert_eq!(refused, Err(Damaged("a listener has no socket")));
    }

    proptest! {
        #[test]
        fn any_body_is_read_or_refused(
            kind in any::<u8>(),
            body in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            let mut head = [0; HEAD];
            head[0] = kind;
            head[1..9].copy_from_slice(&(body.len() as u64).to_le_bytes());
            let sum = checksum(&head[..9], &body);
            head[9..].copy_from_slice(&sum.to_le_bytes());
            let _ = Message::decode(head, &body);
        }
    }
}
