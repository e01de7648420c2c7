//! The title of the process: what ps(1) and top(1) show.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};
use std::{fs, io, ptr};

/// Bytes of the short name that the kernel keeps, and ps shows without arguments.
const SHORT_MAX: usize = 15;

/// Writes `title` over the arguments the process was started with, cut to their length, and its first 15
/// bytes into the short name, as Node.js does with `process.title`. Any thread may call it, repeatedly.
///
/// From then on nobody gets the old text from `std::env::args`, which reads that memory at each call: read
/// arguments before.
///
/// # Errors
/// Without /proc, or where it does not tell where the arguments are; nothing was written then. What the
/// system says of writing the short name.
pub fn set(title: &str) -> io::Result<()> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    // A zero byte would end an argument; there is only one.
    let title = title.replace('\0', " ");
    let area = arguments()?;
    // Without the byte that ends the last argument: it is a zero byte and stays one.
    let room = area.len() - 1;
    let kept = &title[..title.floor_char_boundary(room)];
    let first = ptr::with_exposed_provenance_mut::<u8>(area.start);
    // SAFETY:
    // * Valid for writing `room` bytes: `arguments` has it from the kernel that `area` is where execve(2)
    //   put the arguments, and that it lies in one mapping that may be read and written, the stack of the
    //   first thread, which is there as long as the process. No Rust object is in that memory.
    // * Not read meanwhile: besides the kernel, which may show a mixture for a moment, it is known to the
    //   pointers of `argv` alone. The C library keeps `argv[0]` for messages before an abort, and
    //   std keeps `argv` for `std::env::args`, which copies what it finds. This program reads its arguments
    //   once, before it starts a thread or sets a title, and no part of it does so later.
    // * Whoever follows a pointer of `argv` later still finds the end of a text within the area, since the
    //   last byte stays zero.
    // * Not written meanwhile by another call: the lock above.
    unsafe {
        ptr::copy_nonoverlapping(kept.as_ptr(), first, kept.len());
        ptr::write_bytes(first.add(kept.len()), 0, room - kept.len());
    }
    // The first thread's, which the process is called by; prctl(2) would name the calling one.
    let short = &title[..title.floor_char_boundary(SHORT_MAX)];
    match fs::write("/proc/self/comm", short) {
        // The file is root's for as long as a process lives that was root, and the first thread is the one
        // that calls this then.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => name_this_thread(short),
        result => result,
    }
}

fn name_this_thread(name: &str) -> io::Result<()> {
    let name = CString::new(name)?;
    // SAFETY: PR_SET_NAME reads a text up to its zero, 16 bytes at most; it lives across the call.
    super::check(unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) }).map(drop)
}

/// Where the arguments lie, the zero byte of the last one included; never empty.
fn arguments() -> io::Result<Range<usize>> {
    let unknown = || io::Error::other("/proc does not tell where the arguments are");
    let area = area_in(&read("/proc/self/stat")?).ok_or_else(unknown)?;
    // What only imitates /proc may tell addresses that are not ours.
    let is_writable = is_writable(&area, &read("/proc/self/maps")?);
    let is_theirs = fs::read("/proc/self/cmdline")?.len() == area.len();
    if is_writable && is_theirs {
        Ok(area)
    } else {
        Err(unknown())
    }
}

/// Names in it may be cut within a character.
fn read(path: &str) -> io::Result<String> {
    Ok(String::from_utf8_lossy(&fs::read(path)?).into_owned())
}

/// `arg_start` and `arg_end` of proc_pid_stat(5), its fields 48 and 49.
fn area_in(stat: &str) -> Option<Range<usize>> {
    // The second field is the short name in brackets, which may hold blanks and brackets.
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut fields = fields.split_ascii_whitespace().skip(48 - 3);
    let mut next = || fields.next()?.parse::<usize>().ok();
    let area = next()?..next()?;
    (area.start > 0 && !area.is_empty()).then_some(area)
}

/// Whether one mapping of proc_pid_maps(5) holds all of it and may be read and written.
fn is_writable(area: &Range<usize>, maps: &str) -> bool {
    let address = |text| usize::from_str_radix(text, 16).ok();
    maps.lines().any(|line| {
        let mut fields = line.split(' ');
        let bounds = fields.next().and_then(|bounds| bounds.split_once('-'));
        let Some((Some(start), Some(end))) =
            bounds.map(|(start, end)| (address(start), address(end)))
        else {
            return false;
        };
        start <= area.start
            && area.end <= end
            && fields.next().is_some_and(|rights| rights.starts_with("rw"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_area_is_found_behind_any_short_name() {
        let stat = |name: &str, start: &str, end: &str| {
            let between = "0 ".repeat(47 - 3);
            format!("7 ({name}) S {between}{start} {end} 0 0 0\n")
        };
        assert_eq!(area_in(&stat("x", "1000", "1010")), Some(1000..1010));
        assert_eq!(area_in(&stat("a) S (b", "5", "6")), Some(5..6));
        assert_eq!(area_in(&stat("x", "0", "0")), None);
        assert_eq!(area_in(&stat("x", "6", "6")), None);
        assert_eq!(area_in(&stat("x", "7", "6")), None);
        assert_eq!(area_in("7 (x) S 0 0"), None);
        assert_eq!(area_in(""), None);
    }

    #[test]
    fn only_a_mapping_that_may_be_written_will_do() {
        let maps = "00400000-00452000 r-xp 00000000 08:02 173521 /usr/bin/x\n\
                    7ffd1000-7ffd3000 rw-p 00000000 00:00 0      [stack]\n";
        assert!(is_writable(&(0x7ffd_1000..0x7ffd_3000), maps));
        assert!(!is_writable(&(0x7ffd_2000..0x7ffd_3001), maps));
        assert!(!is_writable(&(0x40_0000..0x40_0010), maps));
        assert!(!is_writable(&(0x10..0x20), maps));
    }

    #[test]
    fn this_process_knows_its_arguments() {
        let area = arguments().expect("a /proc");
        let written = fs::read("/proc/self/cmdline").expect("a /proc");
        assert_eq!(area.len(), written.len());
    }
}
