//! The floor: a thread that receives and discards, and does nothing else.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::Context as _;
use core_affinity::CoreId;
use socket2::SockRef;
use statsd_fast::runtime::sys::cpu::CpuClock;
use statsd_fast::runtime::sys::discard::Discard;
use statsd_fast::runtime::sys::socket;

use crate::receiver::{Counts, Receiver};

/// Datagrams a call takes at most.
const SLOTS: usize = 64;

/// Receive buffer asked of the kernel, as the server asks by default.
pub(crate) const RECEIVE_BUFFER: usize = 16 << 20;

/// A running sink; it ends when dropped.
#[derive(Debug)]
pub(crate) struct Sink {
    socket: Arc<UdpSocket>,
    address: SocketAddr,
    /// Written by: its thread, after each call. Relaxed: it only counts.
    received: Arc<AtomicU64>,
    clock: CpuClock,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl Sink {
    /// Starts one on a port of its own, for datagrams of at most `room` bytes.
    pub(crate) fn start(room: usize, core: CoreId) -> anyhow::Result<Self> {
        let socket = UdpSocket::bind("127.0.0.1:0").context("cannot open a UDP socket")?;
        if socket::force_receive_buffer(socket.as_fd(), RECEIVE_BUFFER).is_err() {
            SockRef::from(&socket)
                .set_recv_buffer_size(RECEIVE_BUFFER)
                .context("cannot set the receive buffer")?;
        }
        let address = socket.local_addr().context("the socket has no address")?;
        let socket = Arc::new(socket);
        let received = Arc::new(AtomicU64::new(0));
        let (tell, told) = mpsc::channel();
        let (own, count) = (Arc::clone(&socket), Arc::clone(&received));
        let thread = thread::spawn(move || {
            let pinned = core_affinity::set_for_current(core);
            let clock = CpuClock::of_this_thread();
            // Who asked is gone when it cannot be told.
            let _ = tell.send(clock.map(|clock| (clock, pinned)));
            discard(&own, room, &count)
        });
        let (clock, pinned) = told
            .recv()
            .context("the sink did not start")?
            .context("the sink has no CPU clock")?;
        let sink = Self {
            socket,
            address,
            received,
            clock,
            thread: Some(thread),
        };
        anyhow::ensure!(pinned, "cannot run the sink on core {}", core.id);
        Ok(sink)
    }

    /// The receive buffer that the kernel granted, in bytes as they were asked for.
    pub(crate) fn receive_buffer(&self) -> usize {
        // The kernel doubles what it is asked, to cover its own bookkeeping.
        SockRef::from(&*self.socket).recv_buffer_size().unwrap_or(0) / 2
    }
}

/// Receives until an empty datagram is the last of a call.
fn discard(socket: &UdpSocket, room: usize, received: &AtomicU64) -> io::Result<()> {
    let mut discard = Discard::new(SLOTS, room);
    let mut count = 0;
    loop {
        let came = discard.receive(socket.as_fd())?;
        if came.last == 0 {
            return Ok(());
        }
        count += came.datagrams as u64;
        received.store(count, Ordering::Relaxed);
    }
}

impl Receiver for Sink {
    fn address(&self) -> SocketAddr {
        self.address
    }

    fn counts(&mut self) -> anyhow::Result<Counts> {
        let accounts = socket::memory(self.socket.as_fd());
        let accounts = accounts.context("the kernel does not say what it dropped")?;
        Ok(Counts {
            datagrams: self.received.load(Ordering::Relaxed),
            dropped: accounts.drops.into(),
            ..Counts::default()
        })
    }

    fn cpu(&self) -> Option<CpuClock> {
        Some(self.clock)
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        let Some(thread) = self.thread.take() else {
            return;
        };
        while !thread.is_finished() {
            // It may find the buffer full, or not be the last of its call: then the next one is.
            if let Ok(socket) = UdpSocket::bind("127.0.0.1:0") {
                let _ = socket.send_to(&[], self.address);
            }
            thread::sleep(Duration::from_millis(1));
        }
        let _ = thread.join();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::receiver::settled;

    #[test]
    fn it_counts_what_comes_and_ends() {
        let core = core_affinity::get_core_ids().unwrap()[0];
        let mut sink = Sink::start(16, core).unwrap();
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        for _ in 0..100 {
            sender.send_to(b"a:1|c", sink.address()).unwrap();
        }
        let counts = settled(&mut sink, &Counts::default(), 100).unwrap();
        assert_eq!(counts.datagrams + counts.dropped, 100);
        assert_eq!(counts.values, None);
        assert!(sink.cpu().unwrap().used_ns().unwrap() > 0);
        assert!(sink.receive_buffer() > 0);
    }
}
