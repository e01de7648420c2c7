//! Takeover: a new process takes the place of a running one, and nothing is lost between them.
//!
//! ```text
//! successor                                       predecessor
//!    | -- Hello ------------------------------------> |  who it is, and which protocol it speaks
//!    | <--------------------- Sockets + descriptors - |  all that is listened to, and every name
//!    |    binds, starts its workers                   |
//!    | -- Reading ----------------------------------> |  both read the same sockets now: no gap
//!    |                                                |  stops its workers, takes their last harvests
//!    | <----------------- Connections + descriptors - |  of streams, with what they are in the middle of
//!    | <-------------------------------------- State -|  the open interval, all of it
//!    |    merges                                      |
//!    | -- Taken ------------------------------------> |
//!    | <-------------------------------------- Yours -|  up to here, a failure changes nothing: the
//!    |    flushes                                     |  predecessor goes on
//!    | <--------------------------------------- Last -|  what it still counted, its backends emptied
//! ```
//!
//! [`mod@format`] and [`message`] turn all that into bytes and back and are pure, [`mod@wire`] sends and
//! receives,
//! [`mod@offer`] is the predecessor's side until somebody is reading, [`claim`] the successor's. The sides
//! meet on a unix socket: one with a path (`takeoverSocket`), or a pair of which a child inherits one end.

pub mod claim;
pub mod format;
pub mod message;
pub mod offer;
pub mod wire;

use crate::runtime::sys::pass;
use crate::runtime::sys::socket::{self, Peer};
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::time::Duration;

/// The protocol. It rises when what is sent changes its meaning or its form; sides that differ refuse each
/// other.
pub const VERSION: u32 = 1;

/// How long a successor may take to start.
pub const START_MAX: Duration = Duration::from_secs(30);
/// The variable that tells a successor of the socket it inherits: the process that it comes from, a colon,
/// its number.
pub const VARIABLE: &str = "STATSD_FAST_TAKEOVER";

/// How long either side waits for the other once both are reading.
pub const STEP_MAX: Duration = Duration::from_secs(20);

/// Where a running server may be taken over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Its socket (`takeoverSocket`).
    pub path: PathBuf,
}

/// Why a takeover came to nothing. Displayed as a part of a sentence.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The connection between the two.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// The other side ended.
    #[error("the other process ended, or closed the connection")]
    Gone,
    /// It took too long.
    #[error("the other process did not answer within {} s", .0.as_secs())]
    Late(Duration),
    /// It speaks otherwise.
    #[error(
        "the other process speaks version {0} of the protocol, this one {VERSION}; restart in place of it"
    )]
    Version(u32),
    /// What came is not what was sent.
    #[error("what came is damaged: {0}")]
    Damaged(&'static str),
    /// Another one is first.
    #[error("another takeover is under way")]
    Busy,
    /// It says no.
    #[error("the other process refuses: {0}")]
    Refused(String),
    /// It is another user's.
    #[error("user {0} is neither root nor the one this process runs as")]
    Stranger(u32),
}

/// Whether what comes from a user, or goes there, may: this one, or root.
///
/// # Errors
/// When it is another one's, or nobody knows whose.
fn not_a_stranger(stream: BorrowedFd<'_>) -> Result<Peer, Fault> {
    let peer = socket::peer(stream)?;
    if peer.user == 0 || peer.user == pass::effective_user() {
        Ok(peer)
    } else {
        Err(Fault::Stranger(peer.user))
    }
}

impl From<format::Damaged> for Fault {
    fn from(damaged: format::Damaged) -> Self {
        Self::Damaged(damaged.0)
    }
}
