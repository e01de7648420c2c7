//! The machine: its name and its processors. Not from /proc, of which a service may see its own part only.
#![allow(unsafe_code)]

use std::io;

/// Longest name of a host that Linux knows, and its end.
const NAME_MAX: usize = 65;

/// The name of the machine, as the kernel has it.
///
/// # Errors
/// What gethostname(2) says.
pub fn name() -> io::Result<String> {
    let mut name = [0u8; NAME_MAX];
    // SAFETY: the array is valid for writing as many bytes as are told, and lives across the call.
    super::check(unsafe { libc::gethostname(name.as_mut_ptr().cast(), name.len()) })?;
    let end = name.iter().position(|byte| *byte == 0);
    Ok(String::from_utf8_lossy(&name[..end.unwrap_or(name.len())]).into_owned())
}

/// Processors that are switched on, those this process may not use included; at least one.
pub fn processors() -> usize {
    // SAFETY: sysconf(3) takes a number and touches no memory of ours.
    let online = unsafe { libc::sysconf(libc::_SC_NPROCESSORS_ONLN) };
    usize::try_from(online).unwrap_or(0).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_is_the_one_proc_tells_of() {
        let name = name().expect("a name");
        let told = std::fs::read_to_string("/proc/sys/kernel/hostname").expect("proc(5) is there");
        assert_eq!(name, told.trim_end());
        assert!(processors() >= 1);
    }
}
