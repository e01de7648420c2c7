//! Where the datagrams of a flow go: a connected socket, plain or with segmentation by the kernel.

use std::io::{self, IoSlice};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::Context as _;
use statsd_fast::runtime::sys::send::{is_unknown_option, segment, send_batch, send_segments};

/// Longest a send may wait for room in the socket: so soon a stop is noticed.
const SEND_TIMEOUT: Duration = Duration::from_millis(100);

/// What a flow sends through.
pub(crate) trait Wire {
    /// Sends the first datagrams, at least one; how many were taken, as [`send_batch`] tells.
    fn send(&mut self, datagrams: &[IoSlice<'_>]) -> io::Result<usize>;
}

/// A socket connected to the server.
#[derive(Debug)]
pub(crate) struct Line {
    socket: UdpSocket,
    /// The size at which the kernel cuts; `None` when it gets single datagrams.
    segment: Option<u16>,
}

impl Line {
    /// Connects. `segment` is the size of all datagrams but the last.
    pub(crate) fn connect(to: SocketAddr, segment_size: Option<u16>) -> anyhow::Result<Self> {
        let any: SocketAddr = match to {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let socket = UdpSocket::bind(any).context(
            "cannot open a UDP socket; for many --flows raise the limit of open files (ulimit -n)",
        )?;
        socket
            .connect(to)
            .with_context(|| format!("cannot send to {to}; is there a route to it?"))?;
        socket
            .set_write_timeout(Some(SEND_TIMEOUT))
            .context("cannot set the send timeout")?;
        if let Some(size) = segment_size {
            segment(&socket, size).map_err(|error| {
                if is_unknown_option(&error) {
                    anyhow::anyhow!(
                        "--gso: this kernel cannot cut datagrams (UDP_SEGMENT came with Linux 4.18); \
                         send without it"
                    )
                } else {
                    anyhow::Error::new(error).context("--gso: cannot set UDP_SEGMENT")
                }
            })?;
        }
        Ok(Self {
            socket,
            segment: segment_size,
        })
    }
}

impl Wire for Line {
    fn send(&mut self, datagrams: &[IoSlice<'_>]) -> io::Result<usize> {
        match self.segment {
            Some(size) => send_segments(&self.socket, datagrams, size),
            None => send_batch(&self.socket, datagrams),
        }
    }
}
