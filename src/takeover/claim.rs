//! The successor's side.

use super::format;
use super::message::{Connection, Message, Offer};
use super::wire::Wire;
use super::{Fault, STEP_MAX, VARIABLE, VERSION, not_a_stranger};
use crate::metric::carried::Carried;
use crate::metric::kept::Totals;
use crate::runtime::sys::pass;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// How long a predecessor may go on with what its backends have not taken yet.
const LAST_MAX: Duration = Duration::from_secs(3700);

/// A predecessor that lets itself be taken over.
#[derive(Debug)]
pub struct Claim {
    wire: Wire,
    /// What it has.
    pub offer: Offer,
    /// The sockets of the offer.
    pub sockets: Vec<OwnedFd>,
}

/// What a predecessor leaves.
#[derive(Debug)]
pub struct Estate {
    /// Open connections of streams, with their sockets.
    pub connections: Vec<(Connection, OwnedFd)>,
    /// The open interval.
    pub carried: Carried,
    /// Running totals, where it has some.
    pub totals: Option<Totals>,
}

/// The connection to the process that started this one in order to be taken over, when one did.
///
/// # Errors
/// When the environment tells of a descriptor that is not there.
pub fn from_parent() -> io::Result<Option<UnixStream>> {
    let Ok(told) = std::env::var(VARIABLE) else {
        return Ok(None);
    };
    let numbers = told.split_once(':');
    let numbers = numbers.and_then(|(process, descriptor)| {
        Some((process.parse::<u32>().ok()?, descriptor.parse().ok()?))
    });
    // Of another process, which this one has it from by way of others: it is not meant.
    let Some((_, descriptor)) = numbers.filter(|(process, _)| *process == pass::parent()) else {
        return Ok(None);
    };
    pass::inherited(descriptor).map(|socket| Some(socket.into()))
}

/// Connects to the process that listens at a path. `None` when nobody does.
///
/// # Errors
/// When somebody may be there and cannot be reached.
pub fn at(path: &Path) -> io::Result<Option<UnixStream>> {
    match UnixStream::connect(path) {
        Ok(stream) => Ok(Some(stream)),
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
            ) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

impl Claim {
    /// Asks a predecessor what there is.
    ///
    /// # Errors
    /// When it refuses, or fails.
    pub fn open(stream: UnixStream) -> Result<Self, Fault> {
        not_a_stranger(stream.as_fd())?;
        let mut wire = Wire::new(stream);
        let hello = Message::Hello {
            version: VERSION,
            process: std::process::id(),
        };
        wire.send(&hello, STEP_MAX)?;
        let Message::Sockets(offer) = wire.receive(STEP_MAX)? else {
            return Err(Fault::Damaged("it does not say what it has"));
        };
        let sockets = wire.receive_descriptors(offer.sockets as usize, STEP_MAX)?;
        Ok(Self {
            wire,
            offer,
            sockets,
        })
    }

    /// Tells it that these listeners are read here, and takes what it leaves.
    ///
    /// # Errors
    /// When it fails; it goes on then, if it can.
    pub fn read(&mut self, taken: Vec<u32>) -> Result<Estate, Fault> {
        self.wire.send(&Message::Reading(taken), STEP_MAX)?;
        let Message::Connections(connections) = self.wire.receive(STEP_MAX)? else {
            return Err(Fault::Damaged("it does not say which connections it has"));
        };
        let sockets = self.wire.receive_descriptors(connections.len(), STEP_MAX)?;
        let Message::State(state) = self.wire.receive(STEP_MAX)? else {
            return Err(Fault::Damaged("it does not say what it has collected"));
        };
        let (carried, totals) = format::decode(&state)?;
        Ok(Estate {
            connections: connections.into_iter().zip(sockets).collect(),
            carried,
            totals,
        })
    }

    /// Tells it that all of it was taken. When this returns, it is this process's alone.
    ///
    /// # Errors
    /// When it fails, and is in doubt; it goes on then, if it can.
    pub fn settle(&mut self) -> Result<(), Fault> {
        self.wire.send(&Message::Taken, STEP_MAX)?;
        match self.wire.receive(STEP_MAX)? {
            Message::Yours => Ok(()),
            _ => Err(Fault::Damaged("it does not say that it has let go")),
        }
    }

    /// Waits until its backends are through: what it has counted since, by meter.
    ///
    /// # Errors
    /// When it ends without telling.
    pub fn last(mut self) -> Result<Vec<(String, u64)>, Fault> {
        match self.wire.receive(LAST_MAX)? {
            Message::Last(counts) => Ok(counts),
            _ => Err(Fault::Damaged("it does not say what it has counted")),
        }
    }

    /// Tells it that this process cannot, so that it need not wait.
    pub fn refuse(&mut self, why: String) {
        // It may be gone.
        let _ = self.wire.send(&Message::Refused(why), STEP_MAX);
    }
}
