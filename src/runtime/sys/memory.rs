//! What a large table asks of the memory below it.
#![allow(unsafe_code)]

/// Asks for the cache line at `place` to be brought near, without waiting for it. A hint: it changes
/// nothing but time. Where there is no such instruction it does nothing.
#[inline(always)]
pub fn prefetch<T>(place: &T) {
    #[cfg(all(target_arch = "x86_64", not(statsd_fast_portable)))]
    // JUSTIFICATION: look-ups of a table beyond the caches, 64 under way at once instead of one after the
    // other (figures in tuning.md).
    // SAFETY: SSE is part of the x86-64 baseline; a prefetch neither reads nor writes as the program sees
    // it and cannot fault, and the pointer comes from a reference.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(place).cast());
    }
    #[cfg(not(all(target_arch = "x86_64", not(statsd_fast_portable))))]
    let _ = place;
}

/// Bytes of a huge page.
const HUGE: usize = 2 << 20;

/// Asks the kernel to back this memory with huge pages (`MADV_HUGEPAGE`), so that a look-up does not also
/// miss the translation of its address. Only the huge pages that lie wholly inside; a kernel that has
/// none, or may not, leaves it as it is.
pub fn prefer_huge_pages<T>(memory: &mut [T]) {
    let start = (memory.as_ptr() as usize).next_multiple_of(HUGE);
    let end = (memory.as_ptr() as usize + size_of_val(memory)) / HUGE * HUGE;
    if start >= end {
        return;
    }
    // JUSTIFICATION: figures in tuning.md.
    // SAFETY: the range lies inside memory that is borrowed here, on page boundaries, and the advice
    // changes how pages are backed but nothing that is in them.
    let result =
        unsafe { libc::madvise(start as *mut libc::c_void, end - start, libc::MADV_HUGEPAGE) };
    if let Err(error) = super::check(result) {
        log::debug!(
            "no huge pages for a table of {} bytes: {error}",
            size_of_val(memory)
        );
    }
}

/// Bytes of a page, as /proc counts memory.
pub fn page() -> u64 {
    // SAFETY: sysconf(3) takes a number and touches no memory of ours.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    u64::try_from(page).unwrap_or(4096)
}
