//! Standard output, and complaints on standard error, written by one thread of its own.
//!
//! Whoever reads it may stall: a pager, a full disk, a log collector that hangs. Nobody here waits
//! for that but who wants to. The log hands its lines over and never waits; what finds no room is
//! counted and said once there is room again. The console backend waits for its own text alone.

use crossbeam::channel::{Receiver, Sender, bounded};
use std::io::{self, Write};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Pieces of text that may wait: at the rate the log is held to, more than an hour of lines.
const PIECES_MAX: usize = 1024;

/// A piece of text, and who wants to know when it is written.
struct Piece {
    text: Vec<u8>,
    written: Option<Sender<io::Result<()>>>,
    /// For standard error.
    complaint: bool,
}

static QUEUE: OnceLock<Sender<Piece>> = OnceLock::new();
static DROPPED: AtomicU64 = AtomicU64::new(0);

fn queue() -> &'static Sender<Piece> {
    QUEUE.get_or_init(|| {
        let (sender, pieces) = bounded(PIECES_MAX);
        let thread = std::thread::Builder::new().name("stdout".into());
        // Without the thread nobody receives, so every piece is refused and counted.
        let _ = thread.spawn(move || run(&pieces));
        sender
    })
}

fn run(pieces: &Receiver<Piece>) {
    let mut failed = false;
    for piece in pieces {
        if piece.complaint {
            // There is nowhere left to say that it failed.
            let _ = io::stderr().lock().write_all(&piece.text);
            continue;
        }
        let mut out = io::stdout().lock();
        let dropped = DROPPED.swap(0, Ordering::Relaxed);
        let note = if dropped == 0 {
            Ok(())
        } else {
            writeln!(
                out,
                "[{dropped} lines of the log were dropped: standard output took nothing]"
            )
        };
        let written = note
            .and_then(|()| out.write_all(&piece.text))
            .and_then(|()| out.flush());
        if let (Err(error), false) = (&written, failed) {
            // Standard error may be the same full disk, and then there is nowhere left to say it.
            let _ = writeln!(
                io::stderr(),
                "statsd-fast: standard output takes nothing: {error}; log and console are lost"
            );
        }
        failed = written.is_err();
        if let Some(asked) = piece.written {
            // Who asked may have given up.
            let _ = asked.send(written);
        }
    }
}

/// Hands a line over without waiting; counts it as dropped when there is no room.
pub fn offer(text: &[u8]) {
    hand_over(text, false);
}

/// Hands over a line for standard error in the same way.
pub fn complain(text: &[u8]) {
    hand_over(text, true);
}

fn hand_over(text: &[u8], complaint: bool) {
    let piece = Piece {
        text: text.to_vec(),
        written: None,
        complaint,
    };
    if queue().try_send(piece).is_err() {
        // Relaxed: it only counts.
        DROPPED.fetch_add(1, Ordering::Relaxed);
    }
}

/// Writes a text and waits until it is written.
///
/// # Errors
/// What the system says of standard output; `BrokenPipe` also when the writing thread is gone.
pub fn write(text: Vec<u8>) -> io::Result<()> {
    let (written, answer) = bounded(1);
    let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
    queue()
        .send(Piece {
            text,
            written: Some(written),
            complaint: false,
        })
        .map_err(|_| io::ErrorKind::BrokenPipe)?;
    answer.recv().map_err(gone)?
}

/// Waits until everything handed over so far is written, at most so long: for the end of a process.
pub fn finish(at_most: Duration) {
    let deadline = Instant::now() + at_most;
    let (written, answer) = bounded(1);
    let last = Piece {
        text: Vec::new(),
        written: Some(written),
        complaint: false,
    };
    if queue().send_deadline(last, deadline).is_ok() {
        let _ = answer.recv_deadline(deadline);
    }
}
