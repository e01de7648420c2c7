//! What sending, receiving and forwarding a line costs in CPU time, for measurements by hand.

use statsd_fast::runtime::sys::cpu::CpuClock;
use statsd_fast::runtime::sys::discard::Discard;
use statsd_fast::runtime::sys::send::send_batch;
use std::io::IoSlice;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// Lines, and the CPU time they took.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cost {
    pub(crate) lines: u64,
    pub(crate) ns: u64,
}

impl Cost {
    pub(crate) fn ns_a_line(self) -> f64 {
        self.ns as f64 / self.lines.max(1) as f64
    }
}

/// Datagrams of so many lines each, of a thousand names.
pub(crate) fn load(lines: usize) -> Vec<Vec<u8>> {
    let line = |n: usize| format!("app.host{:03}.requests:{}|c", n % 1000, n % 90 + 10);
    let all: Vec<_> = (0..1000 * lines).map(line).collect();
    let datagrams = all.chunks(lines);
    datagrams
        .map(|lines| lines.join("\n").into_bytes())
        .collect()
}

/// Sends them over and over for so long, as fast as the kernel takes them, from one thread.
pub(crate) fn send(to: SocketAddr, datagrams: &[Vec<u8>], lines: u64, at_most: Duration) -> Cost {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    socket.connect(to).expect("UDP connects to any address");
    let slices: Vec<_> = datagrams.iter().map(|it| IoSlice::new(it)).collect();
    let clock = CpuClock::of_this_thread().expect("a clock");
    let (before, start) = (clock.used_ns().expect("alive"), Instant::now());
    let (mut sent, mut at) = (0, 0);
    while start.elapsed() < at_most {
        let taken = send_batch(&socket, &slices[at..]).unwrap_or(1);
        sent += taken as u64;
        at = (at + taken) % slices.len();
    }
    Cost {
        lines: sent * lines,
        ns: clock.used_ns().expect("alive") - before,
    }
}

/// A thread that takes datagrams and looks at none, for as long as the process lives.
pub(crate) struct Sink {
    pub(crate) address: SocketAddr,
    datagrams: Arc<AtomicU64>,
    clock: CpuClock,
}

impl Sink {
    pub(crate) fn start() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
        let buffer = socket2::SockRef::from(&socket).set_recv_buffer_size(16 << 20);
        buffer.expect("a receive buffer");
        let address = socket.local_addr().expect("an address");
        let datagrams = Arc::new(AtomicU64::new(0));
        let (tell, told) = mpsc::channel();
        let count = datagrams.clone();
        thread::spawn(move || {
            tell.send(CpuClock::of_this_thread().expect("a clock"))
                .expect("somebody waits");
            let mut discard = Discard::new(64, 2048);
            while let Ok(came) = discard.receive(socket.as_fd()) {
                count.fetch_add(came.datagrams as u64, Ordering::Relaxed);
            }
        });
        let clock = told.recv().expect("it started");
        Self {
            address,
            datagrams,
            clock,
        }
    }

    /// What it took so far, of so many lines a datagram.
    pub(crate) fn cost(&self, lines: u64) -> Cost {
        Cost {
            lines: self.datagrams.load(Ordering::Relaxed) * lines,
            ns: self.clock.used_ns().expect("alive"),
        }
    }
}
