//! Users and groups by name: getpwnam_r(3), getpwuid_r(3), getgrnam_r(3), getgrouplist(3).
#![allow(unsafe_code)]

use std::ffi::{CStr, CString};
use std::io;
use std::mem::MaybeUninit;
use std::ptr;

/// The longest entry that is read, in bytes: a group has a name for each of its members.
const ENTRY_MAX: usize = 1 << 24;
/// Groups one user may be in: NGROUPS_MAX of Linux.
const GROUPS_MAX: usize = 1 << 16;

/// A user, as the system knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// What it is called.
    pub name: CString,
    /// Its number.
    pub uid: u32,
    /// The number of its first group.
    pub gid: u32,
}

/// The user of that name; `None` when there is none.
///
/// # Errors
/// What the system says of its lists of users.
pub fn by_name(name: &str) -> io::Result<Option<User>> {
    let name = CString::new(name)?;
    look_up(user, |entry, buffer, found| {
        // SAFETY: `name` ends in a zero; `entry`, `buffer` and `found` live across the call, and the length
        // given is that of `buffer`.
        unsafe {
            libc::getpwnam_r(
                name.as_ptr(),
                entry,
                buffer.as_mut_ptr().cast(),
                buffer.len(),
                found,
            )
        }
    })
}

/// The user of that number.
///
/// # Errors
/// Those of [`by_name`].
pub fn by_number(uid: u32) -> io::Result<Option<User>> {
    look_up(user, |entry, buffer, found| {
        // SAFETY: as in `by_name`, without a name.
        unsafe { libc::getpwuid_r(uid, entry, buffer.as_mut_ptr().cast(), buffer.len(), found) }
    })
}

/// The number of the group of that name.
///
/// # Errors
/// Those of [`by_name`].
pub fn group_by_name(name: &str) -> io::Result<Option<u32>> {
    let name = CString::new(name)?;
    look_up(
        |entry: &libc::group| entry.gr_gid,
        |entry, buffer, found| {
            // SAFETY: as in `by_name`, with a `group`.
            unsafe {
                libc::getgrnam_r(
                    name.as_ptr(),
                    entry,
                    buffer.as_mut_ptr().cast(),
                    buffer.len(),
                    found,
                )
            }
        },
    )
}

/// Every group of a user, `first` among them.
///
/// # Errors
/// When there are more than Linux allows.
pub fn groups_of(name: &CStr, first: u32) -> io::Result<Vec<u32>> {
    let mut groups = vec![0; 64];
    loop {
        let mut count = groups.len() as libc::c_int;
        // SAFETY: `name` ends in a zero; `groups` and `count` live across the call, and `count` is the number
        // of elements of `groups`, past which nothing is written.
        let result =
            unsafe { libc::getgrouplist(name.as_ptr(), first, groups.as_mut_ptr(), &mut count) };
        if result >= 0 {
            groups.truncate(usize::try_from(count).unwrap_or(0));
            return Ok(groups);
        }
        if groups.len() >= GROUPS_MAX {
            return Err(io::Error::other("it is in too many groups"));
        }
        groups.resize(groups.len() * 4, 0);
    }
}

fn user(entry: &libc::passwd) -> User {
    // SAFETY: an entry that was found has a name that ends in a zero; it lies in the buffer of the call,
    // which `look_up` holds while this runs.
    let name = unsafe { CStr::from_ptr(entry.pw_name) };
    User {
        name: name.to_owned(),
        uid: entry.pw_uid,
        gid: entry.pw_gid,
    }
}

/// Calls `find` with room for an entry, with more until it has enough, and `take` with what was found.
fn look_up<E, T>(
    take: impl Fn(&E) -> T,
    find: impl Fn(*mut E, &mut [u8], *mut *mut E) -> libc::c_int,
) -> io::Result<Option<T>> {
    let mut buffer = vec![0u8; 1024];
    loop {
        let mut entry = MaybeUninit::<E>::uninit();
        let mut found: *mut E = ptr::null_mut();
        match find(entry.as_mut_ptr(), &mut buffer, &mut found) {
            0 if found.is_null() => return Ok(None),
            0 => {
                // SAFETY: what was found is written into `entry`, to which `found` points then.
                return Ok(Some(take(unsafe { entry.assume_init_ref() })));
            }
            libc::ERANGE if buffer.len() < ENTRY_MAX => buffer.resize(buffer.len() * 4, 0),
            // Names that cannot be there are an error of some systems.
            libc::ENOENT | libc::ESRCH => return Ok(None),
            code => return Err(io::Error::from_raw_os_error(code)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_is_known_by_name_and_number() {
        let root = by_name("root").expect("a list of users").expect("root");
        assert_eq!((root.uid, root.gid), (0, 0));
        assert_eq!(by_number(0).expect("a list of users"), Some(root.clone()));
        assert_eq!(group_by_name("root").expect("a list of groups"), Some(0));
        let groups = groups_of(&root.name, 4711).expect("a list of groups");
        assert!(groups.contains(&4711), "{groups:?}");
    }

    #[test]
    fn who_is_not_there_is_nobody() {
        assert_eq!(by_name("no such user").expect("a list of users"), None);
        assert_eq!(by_number(u32::MAX - 7).expect("a list of users"), None);
        assert_eq!(group_by_name("no such group").expect("a list"), None);
        by_name("a\0b").expect_err("no name has a zero byte");
    }
}
