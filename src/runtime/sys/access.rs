//! What this process may do to a file: faccessat(2), and opening one that is none but itself.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::fs::OpenOptions;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Whether this process may make and replace files in a directory, as far as can be told without trying.
///
/// # Errors
/// Why not: it is not there, it is no directory's to write in, or the file system is read-only.
pub fn may_write_in(directory: &Path) -> io::Result<()> {
    may(directory, libc::W_OK | libc::X_OK)
}

/// Whether this process may read a file, as far as can be told without trying.
///
/// # Errors
/// Why not.
pub fn may_read(file: &Path) -> io::Result<()> {
    may(file, libc::R_OK)
}

/// Whether this process may write to a file or a unix socket, or make it when it is not there.
///
/// # Errors
/// Why not.
pub fn may_write(file: &Path) -> io::Result<()> {
    match may(file, libc::W_OK) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => may_write_in(directory_of(file)),
        result => result,
    }
}

/// Where a file lies.
pub fn directory_of(file: &Path) -> &Path {
    match file.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

/// Opens no link (`O_NOFOLLOW`), and waits for nobody at the other end of a pipe (`O_NONBLOCK`).
pub fn without_links(options: &mut OpenOptions) -> &mut OpenOptions {
    options.custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
}

fn may(path: &Path, mode: libc::c_int) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: `path` ends in a zero and lives across the call, which only reads it.
    let result = unsafe { libc::faccessat(libc::AT_FDCWD, path.as_ptr(), mode, libc::AT_EACCESS) };
    super::check(result).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_is_not_there_is_told_from_one_that_is() {
        may_write_in(&std::env::temp_dir()).expect("anybody may");
        let error = may_write_in(Path::new("/nonexistent/directory")).expect_err("not there");
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        let error = may_write_in(Path::new("/proc/self/nothing")).expect_err("not there");
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_file_that_can_be_made_may_be_written() {
        let directory = std::env::temp_dir();
        assert_eq!(directory_of(&directory.join("f")), directory);
        assert_eq!(directory_of(Path::new("f")), Path::new("."));
        may_write(&directory.join("statsd-fast-not-there")).expect("anybody may");
        may_write(Path::new("/nonexistent/f")).expect_err("its directory is not there");
        may_read(Path::new("/proc/self/status")).expect("anybody may");
        may_read(Path::new("/nonexistent/f")).expect_err("it is not there");
    }
}
