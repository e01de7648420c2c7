//! What this process may do to a file: faccessat(2).
#![allow(unsafe_code)]

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Whether this process may make and replace files in a directory, as far as can be told without trying.
///
/// # Errors
/// Why not: it is not there, it is no directory's to write in, or the file system is read-only.
pub fn may_write_in(directory: &Path) -> io::Result<()> {
    let path = CString::new(directory.as_os_str().as_bytes())?;
    let mode = libc::W_OK | libc::X_OK;
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
}
