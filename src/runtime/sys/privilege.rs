//! Who this process is and what it may: credentials(7), capabilities(7).
#![allow(unsafe_code)]

use super::check;
use std::io;

/// User and group that what a thread does with files counts as, beside the rest of what it is. They go back
/// when this is dropped.
#[derive(Debug)]
pub struct FileOwner {
    before: (u32, u32),
}

/// What a process may be asked about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    /// Real, effective and saved user.
    pub users: [u32; 3],
    /// Real, effective and saved group.
    pub groups: [u32; 3],
    /// The other groups.
    pub others: Vec<u32>,
    /// Capabilities that are effective, permitted or inheritable, a bit each.
    pub capabilities: u64,
    /// Nothing that is executed can gain any.
    pub gains_none: bool,
}

/// The effective user.
pub fn user() -> u32 {
    // SAFETY: it takes nothing and cannot fail.
    unsafe { libc::geteuid() }
}

/// Sets the supplementary groups of every thread.
///
/// # Errors
/// `PermissionDenied` without CAP_SETGID.
pub fn set_groups(groups: &[u32]) -> io::Result<()> {
    // SAFETY: `groups` lives across the call, and its length is given.
    check(unsafe { libc::setgroups(groups.len(), groups.as_ptr()) }).map(drop)
}

/// Sets every group, then every user of all threads. With the last user that is root the kernel takes the
/// capabilities away, ambient ones too.
///
/// # Errors
/// `PermissionDenied` without CAP_SETGID and CAP_SETUID.
pub fn set_user(uid: u32, gid: u32) -> io::Result<()> {
    // SAFETY: it takes numbers alone.
    check(unsafe { libc::setresgid(gid, gid, gid) })?;
    // SAFETY: the same.
    check(unsafe { libc::setresuid(uid, uid, uid) }).map(drop)
}

/// From now on this thread, and those it starts, can gain nothing by executing a program; the capabilities it
/// has stay.
///
/// # Errors
/// What the system says of the first two steps. That the bounding set cannot be emptied, for want of
/// CAP_SETPCAP, is none: it is about programs that are executed.
pub fn forbid_gains() -> io::Result<()> {
    // SAFETY: this option takes numbers alone, 1 and zeros.
    check(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) })?;
    let mut capabilities = Capabilities::read()?;
    capabilities.keep(|set| Set {
        inheritable: 0,
        ..set
    });
    capabilities.write()?;
    // SAFETY: as above. Kernels before 4.3 have no ambient set.
    let _ = unsafe {
        libc::prctl(
            libc::PR_CAP_AMBIENT,
            libc::PR_CAP_AMBIENT_CLEAR_ALL,
            0,
            0,
            0,
        )
    };
    for capability in 0..64 {
        // SAFETY: as above.
        let dropped = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) };
        if dropped < 0 {
            break;
        }
    }
    Ok(())
}

/// What this thread is and may.
///
/// # Errors
/// What the system says.
pub fn credentials() -> io::Result<Credentials> {
    let (mut users, mut groups) = ([0; 3], [0; 3]);
    let [real, effective, saved] = &mut users;
    // SAFETY: each pointer is of a number that lives across the call.
    check(unsafe { libc::getresuid(real, effective, saved) })?;
    let [real, effective, saved] = &mut groups;
    // SAFETY: the same.
    check(unsafe { libc::getresgid(real, effective, saved) })?;
    // SAFETY: with a length of 0 nothing is written; it returns how many there are.
    let count = check(unsafe { libc::getgroups(0, std::ptr::null_mut()) })?;
    let mut others = vec![0; usize::try_from(count).unwrap_or(0)];
    // SAFETY: `others` has room for `count` groups and lives across the call.
    let count = check(unsafe { libc::getgroups(count, others.as_mut_ptr()) })?;
    others.truncate(usize::try_from(count).unwrap_or(0));
    let capabilities = Capabilities::read()?;
    // SAFETY: this option takes zeros alone.
    let gains_none = check(unsafe { libc::prctl(libc::PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) })? == 1;
    Ok(Credentials {
        users,
        groups,
        others,
        capabilities: capabilities.all(),
        gains_none,
    })
}

impl FileOwner {
    /// What this thread does with files from now on counts as done by that user and group. The capabilities
    /// of root about files are not in force then, unless `overriding`: then what is made belongs to that
    /// user, wherever root may make it.
    ///
    /// # Errors
    /// When the system does not let it, for want of CAP_SETUID or CAP_SETGID.
    pub fn enter(uid: u32, gid: u32, overriding: bool) -> io::Result<Self> {
        let before = (files_of(libc::setfsuid, uid), files_of(libc::setfsgid, gid));
        let entered = Self { before };
        // Neither call tells whether it did anything.
        if files_of(libc::setfsuid, uid) != uid || files_of(libc::setfsgid, gid) != gid {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        if overriding {
            let mut capabilities = Capabilities::read()?;
            capabilities.keep(|set| Set {
                effective: set.permitted,
                ..set
            });
            capabilities.write()?;
        }
        Ok(entered)
    }
}

impl Drop for FileOwner {
    fn drop(&mut self) {
        let (uid, gid) = self.before;
        files_of(libc::setfsgid, gid);
        files_of(libc::setfsuid, uid);
    }
}

/// Calls setfsuid(2) or setfsgid(2), which return what was before.
fn files_of(call: unsafe extern "C" fn(u32) -> libc::c_int, id: u32) -> u32 {
    // SAFETY: both take a number alone.
    unsafe { call(id) }.cast_unsigned()
}

/// `struct __user_cap_header_struct` of capget(2).
#[repr(C)]
struct Header {
    version: u32,
    pid: libc::c_int,
}

/// Two of them are 64 capabilities: `struct __user_cap_data_struct`.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
struct Set {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Those of the calling thread.
#[derive(Debug, Default)]
struct Capabilities([Set; 2]);

/// `_LINUX_CAPABILITY_VERSION_3`, of Linux 2.6.26 and later.
const VERSION: u32 = 0x2008_0522;

impl Capabilities {
    fn header() -> Header {
        Header {
            version: VERSION,
            pid: 0,
        }
    }

    fn read() -> io::Result<Self> {
        let mut header = Self::header();
        let mut sets = Self::default();
        // SAFETY: with version 3 the kernel writes two sets, and into the header; both live across the call.
        let result =
            unsafe { libc::syscall(libc::SYS_capget, &raw mut header, sets.0.as_mut_ptr()) };
        check(result as libc::c_int).map(|_| sets)
    }

    fn write(&self) -> io::Result<()> {
        let mut header = Self::header();
        // SAFETY: with version 3 the kernel reads two sets; they and the header live across the call.
        let result = unsafe { libc::syscall(libc::SYS_capset, &raw mut header, self.0.as_ptr()) };
        check(result as libc::c_int).map(drop)
    }

    fn keep(&mut self, change: impl Fn(Set) -> Set) {
        self.0 = self.0.map(change);
    }

    fn all(&self) -> u64 {
        let all = |set: &Set| u64::from(set.effective | set.permitted | set.inheritable);
        all(&self.0[0]) | all(&self.0[1]) << 32
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn a_process_knows_what_it_is() {
        let told = credentials().expect("Linux tells");
        let status = fs::read_to_string("/proc/thread-self/status").expect("proc(5)");
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.expect("a field").split_whitespace()
        };
        let numbers = |name| field(name).map(|it| it.parse().expect("a number"));
        assert_eq!(numbers("Uid:").take(3).collect::<Vec<u32>>(), told.users);
        assert_eq!(numbers("Gid:").take(3).collect::<Vec<u32>>(), told.groups);
        let bits = |name| field(name).map(|it| u64::from_str_radix(it, 16).expect("bits"));
        let all = bits("CapEff:")
            .chain(bits("CapPrm:"))
            .chain(bits("CapInh:"));
        assert_eq!(all.fold(0, |all, set| all | set), told.capabilities);
        assert_eq!(user(), told.users[1]);
    }

    /// A thread of its own: others go on as what they are.
    #[test]
    fn what_is_made_belongs_to_whom_it_is_made_for_and_only_root_may_say_so() {
        let made = std::thread::spawn(|| {
            let before = credentials().expect("Linux tells");
            let owner = FileOwner::enter(65534, 65533, true);
            if user() != 0 {
                owner.expect_err("only root may");
                return;
            }
            let owner = owner.expect("root may");
            let name = format!("statsd-fast-owner-{}", std::process::id());
            let path = std::env::temp_dir().join(name);
            fs::write(&path, "").expect("written");
            let made = fs::metadata(&path).expect("there");
            assert_eq!((made.uid(), made.gid()), (65534, 65533));
            drop(owner);
            fs::remove_file(&path).expect("removed");
            fs::write(&path, "").expect("written");
            let made = fs::metadata(&path).expect("there");
            assert_eq!((made.uid(), made.gid()), (0, before.groups[1]));
            fs::remove_file(&path).expect("removed");
            assert_eq!(credentials().expect("Linux tells"), before);
        });
        made.join().expect("no panic");
    }
}
