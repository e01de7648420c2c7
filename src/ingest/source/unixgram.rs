//! Unix datagram sockets: as UDP, by a path.

use super::bind::BindError;
use super::datagram::{Datagrams, Queue};
use super::inherited::{Bound, Inherited};
use super::socket_file::SocketFile;
use super::{Address, AnySource, Capacity, Listener};
use socket2::{Domain, Socket, Type};
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

/// One unix datagram listener.
///
/// It asks for no receive buffer: the kernel ignores it for unix sockets (unix(7)) and queues
/// `net.unix.max_dgram_qlen` datagrams. When that is full, senders wait or are refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Its path.
    pub path: PathBuf,
    /// Its file mode (`socket_mod`); `None` is what the umask leaves.
    pub mode: Option<u32>,
    /// Longest datagram taken whole, in bytes; a longer one is cut and counted as truncated.
    pub max_datagram: usize,
}

/// What the kernel queues when it does not tell: its own default.
const QUEUE_DEFAULT: u64 = 10;

/// Binds the socket, for one worker: two that share it would take the datagrams of one sender out of order,
/// and gauges live by the order.
pub(super) fn bind(options: &Options, inherited: &mut Inherited) -> Result<Listener, BindError> {
    let fail = |error| BindError::of_path("unixgram", &options.path, error);
    let (socket, file) = match inherited.take_path(false, &options.path) {
        Some(mut group) => {
            let bound = group.sockets.swap_remove(0);
            // The service manager removes its own.
            let file = (!bound.lasting).then(|| SocketFile::inherited(&options.path));
            (bound, file.flatten())
        }
        None => {
            let socket = Socket::new(Domain::UNIX, Type::DGRAM, None).map_err(fail)?;
            let (socket, file) =
                SocketFile::bind(socket, Type::DGRAM, &options.path, options.mode)?;
            (Bound::new(socket.into()), Some(file))
        }
    };
    let queue = fs::read_to_string("/proc/sys/net/unix/max_dgram_qlen")
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(QUEUE_DEFAULT);
    let source = Datagrams::new(
        socket,
        options.max_datagram,
        Queue::Datagrams(queue),
        false,
        file.map(Arc::new),
    );
    Ok(Listener {
        address: Address::Unixgram(options.path.clone()),
        sources: vec![AnySource::Datagrams(source.map_err(fail)?)],
        capacity: Capacity::Datagrams(queue),
    })
}
