//! The backend that has faults: a Librato that refuses, resets, hangs, trickles, and answers with 500s.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::Context as _;
use socket2::SockRef;

/// What is wrong with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing.
    None,
    /// Nobody listens.
    Refused,
    /// It resets in the middle of what it is sent.
    Reset,
    /// It accepts and never reads.
    Deaf,
    /// It reads a byte a second.
    Slow,
    /// It answers, with a failure.
    Status500,
    /// Its name leads nowhere.
    DnsGone,
    /// It speaks no TLS though it should.
    TlsFailing,
}

impl Fault {
    /// Those that are switched on in turn.
    pub(crate) const ALL: [Self; 7] = [
        Self::Refused,
        Self::Reset,
        Self::Deaf,
        Self::Slow,
        Self::Status500,
        Self::DnsGone,
        Self::TlsFailing,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Refused => "refused",
            Self::Reset => "reset mid-write",
            Self::Deaf => "never reading",
            Self::Slow => "1 byte/s",
            Self::Status500 => "500s",
            Self::DnsGone => "DNS gone",
            Self::TlsFailing => "TLS failing",
        }
    }

    /// Where the server is told to find it.
    pub(crate) fn url(self, port: u16) -> String {
        match self {
            // A name that is reserved for leading nowhere.
            Self::DnsGone => "http://gone.invalid".into(),
            Self::TlsFailing => format!("https://127.0.0.1:{port}"),
            _ => format!("http://127.0.0.1:{port}"),
        }
    }
}

/// Time between two looks at what is to be wrong.
const LOOK: Duration = Duration::from_millis(5);

#[derive(Debug)]
struct Shared {
    /// Place in [`Fault::ALL`], and one past its end for none.
    fault: AtomicUsize,
    end: AtomicBool,
}

impl Shared {
    fn fault(&self) -> Fault {
        let all = Fault::ALL.get(self.fault.load(Ordering::Relaxed));
        all.copied().unwrap_or(Fault::None)
    }

    fn ended(&self) -> bool {
        self.end.load(Ordering::Relaxed)
    }

    /// Whether the fault is still this one.
    fn still(&self, fault: Fault) -> bool {
        self.fault() == fault && !self.ended()
    }
}

/// A running one.
#[derive(Debug)]
pub(crate) struct Faulty {
    address: SocketAddr,
    shared: Arc<Shared>,
    thread: JoinHandle<io::Result<()>>,
}

impl Faulty {
    pub(crate) fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").context("no port for a backend")?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            fault: AtomicUsize::new(usize::MAX),
            end: AtomicBool::new(false),
        });
        let of_thread = shared.clone();
        let thread = thread::spawn(move || serve(listener, address, &of_thread));
        Ok(Self {
            address,
            shared,
            thread,
        })
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// From now on this is wrong with it.
    pub(crate) fn set(&self, fault: Fault) {
        let place = Fault::ALL.iter().position(|it| *it == fault);
        let place = place.unwrap_or(usize::MAX);
        self.shared.fault.store(place, Ordering::Relaxed);
    }

    pub(crate) fn finish(self) -> anyhow::Result<()> {
        self.shared.end.store(true, Ordering::Relaxed);
        let ended = self.thread.join();
        ended
            .unwrap_or_else(|_| Err(io::Error::other("it panicked")))
            .context("the backend with faults")
    }
}

fn serve(listener: TcpListener, address: SocketAddr, shared: &Arc<Shared>) -> io::Result<()> {
    let mut listener = Some(listener);
    while !shared.ended() {
        if shared.fault() == Fault::Refused {
            listener = None;
        } else if listener.is_none() {
            // Its port may still be somebody's for a moment.
            listener = TcpListener::bind(address).ok();
        }
        if let Some(listener) = &listener {
            listener.set_nonblocking(true)?;
            while let Ok((stream, _)) = listener.accept() {
                let shared = shared.clone();
                // What becomes of a connection is the fault's affair.
                thread::spawn(move || answer(stream, &shared));
            }
        }
        thread::sleep(LOOK);
    }
    Ok(())
}

fn answer(stream: TcpStream, shared: &Shared) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    // One that was left open ends with the soak.
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut reader = BufReader::new(&stream);
    let fault = shared.fault();
    match fault {
        Fault::Reset => {
            reader.read_exact(&mut [0; 64])?;
            return SockRef::from(&stream).set_linger(Some(Duration::ZERO));
        }
        Fault::Deaf => {
            while shared.still(fault) {
                thread::sleep(LOOK);
            }
            return Ok(());
        }
        Fault::Slow => {
            while shared.still(fault) {
                (&stream).read_exact(&mut [0])?;
                for _ in 0..200 {
                    if shared.still(fault) {
                        thread::sleep(LOOK);
                    }
                }
            }
            return Ok(());
        }
        _ => {}
    }
    loop {
        let mut length = 0;
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            let line = line.trim_end().to_ascii_lowercase();
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse().unwrap_or(0);
            }
            if line.is_empty() {
                break;
            }
        }
        io::copy(&mut reader.by_ref().take(length), &mut io::sink())?;
        let status = match shared.fault() {
            Fault::Status500 => "500 Internal Server Error",
            _ => "202 Accepted",
        };
        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
        (&stream).write_all(answer.as_bytes())?;
    }
}
