//! What a thread may ask of the scheduler.
#![allow(unsafe_code)]

/// Lets the calling thread sleep as short as it asks to. The default slack of 50 us would make a
/// nap of 50 us twice as long as the receive buffer was reckoned for.
pub fn precise_sleep() {
    // SAFETY: PR_SET_TIMERSLACK takes an integer and touches the calling thread only.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1 as libc::c_ulong) };
}
