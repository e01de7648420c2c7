//! The predecessor's side, until the successor reads: who comes to take over, or is started for it, is shown
//! what there is.

use super::message::{Message, Offer};
use super::wire::Wire;
use super::{Fault, START_MAX, STEP_MAX, VARIABLE, VERSION, not_a_stranger};
use crate::runtime::sys::pass;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

/// A successor that reads.
#[derive(Debug)]
pub struct Successor {
    /// The connection to it.
    pub wire: Wire,
    /// Its process.
    pub process: u32,
    /// The listeners it took, as numbered in the offer.
    pub taken: Vec<u32>,
}

/// How this process was started, to start its successor alike.
#[derive(Debug, Clone)]
pub struct Restart {
    program: PathBuf,
    arguments: Vec<OsString>,
}

impl Restart {
    /// As this process was. To be asked before the arguments are overwritten by a title, and before the
    /// program's file is replaced.
    ///
    /// # Errors
    /// When the system does not tell which program this is.
    pub fn of_this_process() -> io::Result<Self> {
        // Not by way of the standard library, which follows pointers into what a title is written over.
        let line = fs::read("/proc/self/cmdline")?;
        let line = line.strip_suffix(b"\0").unwrap_or(&line);
        let mut arguments = line
            .split(|byte| *byte == 0)
            .map(|argument| OsString::from_vec(argument.to_vec()));
        // As it was called, when that is a path: a link may lead to the next version.
        let called = arguments.next().map(PathBuf::from);
        let called = called.filter(|path| path.is_absolute());
        let program = called.map_or_else(std::env::current_exe, Ok)?;
        Ok(Self {
            program,
            arguments: arguments.collect(),
        })
    }

    /// The program that is started.
    pub fn program(&self) -> &PathBuf {
        &self.program
    }

    /// Starts it, with its end of a connection.
    ///
    /// # Errors
    /// What the system says of that program, mostly.
    pub fn start(&self) -> io::Result<(Child, UnixStream)> {
        let (here, there) = UnixStream::pair()?;
        let there = pass::inheritable(there.as_fd())?;
        let told = format!("{}:{}", std::process::id(), there.as_raw_fd());
        let child = Command::new(&self.program)
            .args(&self.arguments)
            .env(VARIABLE, told)
            .stdin(Stdio::null())
            .spawn()?;
        Ok((child, here))
    }
}

/// Shows whoever is at the other end what there is, and waits until it reads.
///
/// # Errors
/// When it is not to have it, or fails. It is told why.
pub fn show(
    stream: UnixStream,
    offer: impl FnOnce() -> (Offer, Vec<Arc<OwnedFd>>),
) -> Result<Successor, Fault> {
    let stranger = not_a_stranger(stream.as_fd());
    let mut wire = Wire::new(stream);
    let shown = stranger.and_then(|_| converse(&mut wire, offer));
    match shown {
        Ok((process, taken)) => Ok(Successor {
            wire,
            process,
            taken,
        }),
        Err(fault) => {
            refuse(&mut wire, &fault);
            Err(fault)
        }
    }
}

fn converse(
    wire: &mut Wire,
    offer: impl FnOnce() -> (Offer, Vec<Arc<OwnedFd>>),
) -> Result<(u32, Vec<u32>), Fault> {
    let Message::Hello { version, process } = wire.receive(START_MAX)? else {
        return Err(Fault::Damaged("it does not say who it is"));
    };
    if version != VERSION {
        return Err(Fault::Version(version));
    }
    let (offer, sockets) = offer();
    let listeners = offer.listeners.len();
    wire.send(&Message::Sockets(offer), STEP_MAX)?;
    let sockets: Vec<_> = sockets.iter().map(AsFd::as_fd).collect();
    wire.send_descriptors(&sockets, STEP_MAX)?;
    let Message::Reading(taken) = wire.receive(START_MAX)? else {
        return Err(Fault::Damaged("it does not say what it reads"));
    };
    if taken.iter().any(|listener| *listener as usize >= listeners) {
        return Err(Fault::Damaged("it reads what it was not given"));
    }
    Ok((process, taken))
}

/// Says no, unless the other side did or is gone.
pub fn refuse(wire: &mut Wire, fault: &Fault) {
    if !matches!(fault, Fault::Refused(_) | Fault::Gone) {
        // It may end before it hears it.
        let _ = wire.send(&Message::Refused(fault.to_string()), STEP_MAX);
    }
}
