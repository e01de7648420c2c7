//! How what a worker collected comes to the flusher.
//!
//! The flusher asks with a number that it alone raises, and wakes the workers; a worker that sees another
//! number than the one it answered gives what it has. Both ends are generic over what they meet in, so that
//! `tests/handover_model.rs` runs these very lines, and the workers' loop, in every order of their threads.

/// A worker's end of it.
pub trait Giving {
    /// What is handed over.
    type Load: Default;

    /// Nobody has room for more.
    fn is_full(&self) -> bool;

    /// One that was emptied, for reuse.
    fn emptied(&self) -> Option<Self::Load>;

    /// Hands it over; waits for room where others were quicker. `false` when nobody takes it any more.
    fn send(&self, load: Self::Load) -> bool;
}

/// Hands over what `fill` moves out. `false` when there is no room: then nothing was moved, and the worker
/// goes on collecting and tries again.
#[inline]
pub fn give<G: Giving>(end: &G, fill: impl FnOnce(&mut G::Load)) -> bool {
    if end.is_full() {
        return false;
    }
    let mut load = end.emptied().unwrap_or_default();
    fill(&mut load);
    end.send(load)
}

/// The flusher's end of it.
pub trait Asking {
    /// What is handed over.
    type Load;

    /// Raises the number, then wakes every worker: one that is woken before would sleep on. Returns the
    /// number.
    fn ask(&mut self) -> u64;

    /// Waits for the next that comes.
    ///
    /// # Errors
    /// When none will.
    fn next(&mut self) -> Result<Self::Load, Silence>;

    /// Of which worker it is, and the number it answers.
    fn answers(load: &Self::Load) -> (usize, u64);

    /// Takes it in.
    fn take(&mut self, load: Self::Load);
}

/// Why nothing comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Silence {
    /// Nothing came in time.
    Late,
    /// The workers have ended. What they had came before that.
    Ended,
}

/// Asks every worker and takes their answers in, late ones to earlier numbers too. Returns how many workers
/// are late: what they have comes with a later answer.
pub fn collect<A: Asking>(end: &mut A, workers: usize) -> usize {
    let number = end.ask();
    // One that stops may answer twice: the tick, and with its last harvest.
    let mut answered = vec![false; workers];
    let mut missing = workers;
    while missing > 0 {
        match end.next() {
            Ok(load) => {
                let (worker, answer) = A::answers(&load);
                if answer >= number && !std::mem::replace(&mut answered[worker], true) {
                    missing -= 1;
                }
                end.take(load);
            }
            Err(Silence::Late) => return missing,
            Err(Silence::Ended) => return 0,
        }
    }
    0
}
