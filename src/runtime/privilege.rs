//! Letting go of root: `user` and `group`.
//!
//! In order: [`prepare`], before the first thread; [`as_user`] and [`owning`] for what is done with files
//! while root is still needed for sockets; [`let_go`], before any thread takes input. None of them does
//! anything to a process that is not root, or is to stay root because `user` says so.

use super::sys::privilege::{self, FileOwner};
use super::sys::user;
use std::io;

/// Who the process is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// As it was written.
    pub user: String,
    /// Its number.
    pub uid: u32,
    /// Its group, or the one that was written.
    pub gid: u32,
    /// Every group it is in.
    pub groups: Vec<u32>,
}

/// Why there is no such identity: what is wrong, and the way out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unknown {
    /// Whether it is about the group.
    pub group: bool,
    /// What is wrong.
    pub what: String,
    /// The way out.
    pub hint: &'static str,
}

/// A number of a user or group. The last one means "leave it as it is" to the system.
fn number(text: &str) -> Option<u32> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit());
    let number = text.parse().ok().filter(|number| *number != u32::MAX);
    number.filter(|_| plain)
}

impl Identity {
    /// Looks a user up, and a group when one is written: each by its name or else its number.
    ///
    /// # Errors
    /// Which of the two is not there.
    pub fn find(user: &str, group: Option<&str>) -> Result<Self, Unknown> {
        let failed = |group, name: &str, error: io::Error| Unknown {
            group,
            what: format!("{name:?} cannot be looked up: {error}"),
            hint: "write a number, or mend the lists of users of this machine (see nsswitch.conf(5))",
        };
        let mut known = user::by_name(user).map_err(|error| failed(false, user, error))?;
        let numbered = number(user);
        if let (None, Some(uid)) = (&known, numbered) {
            known = user::by_number(uid).map_err(|error| failed(false, user, error))?;
        }
        let gid = match group {
            None => None,
            Some(group) => {
                let known = user::group_by_name(group);
                let known = known.map_err(|error| failed(true, group, error))?;
                Some(known.or(number(group)).ok_or_else(|| Unknown {
                    group: true,
                    what: format!("there is no group {group:?} on this machine"),
                    hint: "make it, e.g. with groupadd --system, or name another",
                })?)
            }
        };
        let (uid, gid) = match (&known, numbered, gid) {
            (Some(known), _, gid) => (known.uid, gid.unwrap_or(known.gid)),
            (None, Some(uid), Some(gid)) => (uid, gid),
            (None, Some(_), None) => {
                return Err(Unknown {
                    group: false,
                    what: format!("no user of this machine has the number {user}"),
                    hint: "write group too: a number without a user has none",
                });
            }
            (None, None, _) => {
                return Err(Unknown {
                    group: false,
                    what: format!("there is no user {user:?} on this machine"),
                    hint: "make it, e.g. with useradd --system, or name another",
                });
            }
        };
        let groups = match &known {
            Some(known) => user::groups_of(&known.name, gid),
            None => Ok(vec![gid]),
        };
        Ok(Self {
            user: user.into(),
            uid,
            gid,
            groups: groups.map_err(|error| failed(false, user, error))?,
        })
    }
}

/// The identity to change to, if there is one.
fn to_be(identity: Option<&Identity>) -> Option<&Identity> {
    identity.filter(|it| privilege::user() == 0 && it.uid != 0)
}

/// Takes the way back: nothing this process executes can gain anything. Before the first thread is started,
/// since each thread has this for itself.
///
/// # Errors
/// What the system says; the process should not go on.
pub fn prepare(identity: Option<&Identity>) -> io::Result<()> {
    let Some(identity) = to_be(identity) else {
        return Ok(());
    };
    privilege::forbid_gains()
        .and_then(|()| privilege::set_groups(&identity.groups))
        .map_err(|error| failed(identity, error))
}

/// Does something with files as that user may.
///
/// # Errors
/// When root may not, e.g. in a container without CAP_SETUID.
pub fn as_user<T>(identity: Option<&Identity>, what: impl FnOnce() -> T) -> io::Result<T> {
    with_files_of(identity, false, what)
}

/// Does something with files as root may, but what is made belongs to that user.
///
/// # Errors
/// Those of [`as_user`].
pub fn owning<T>(identity: Option<&Identity>, what: impl FnOnce() -> T) -> io::Result<T> {
    with_files_of(identity, true, what)
}

fn with_files_of<T>(
    identity: Option<&Identity>,
    overriding: bool,
    what: impl FnOnce() -> T,
) -> io::Result<T> {
    let Some(identity) = to_be(identity) else {
        return Ok(what());
    };
    let owner = FileOwner::enter(identity.uid, identity.gid, overriding)
        .map_err(|error| failed(identity, error))?;
    let outcome = what();
    drop(owner);
    Ok(outcome)
}

/// Becomes that user for good, in all threads, and looks whether nothing of root is left. Says who the
/// process is when that is not what was written or advised. Returns whether anything changed.
///
/// # Errors
/// When the system did not do it; the process must not go on.
pub fn let_go(identity: Option<&Identity>) -> io::Result<bool> {
    let now = privilege::user();
    let Some(identity) = identity else {
        if now == 0 {
            log::warn!(
                "this process is root and stays it; write `user` into the configuration, and it is that user \
                 as soon as its sockets are bound (user: \"root\" if it is to be root)"
            );
        }
        return Ok(false);
    };
    if now != 0 {
        if now != identity.uid {
            log::warn!(
                "user: only root can become {}; this process goes on as the user {now} that started it",
                identity.user
            );
        }
        return Ok(false);
    }
    if identity.uid == 0 {
        return Ok(false);
    }
    become_for_good(identity).map_err(|error| failed(identity, error))?;
    log::info!(
        "running as user {} ({}), group {}, without any privilege",
        identity.user,
        identity.uid,
        identity.gid
    );
    Ok(true)
}

fn become_for_good(identity: &Identity) -> io::Result<()> {
    privilege::set_user(identity.uid, identity.gid)?;
    let found = privilege::credentials()?;
    let mut groups = identity.groups.clone();
    let mut others = found.others.clone();
    for list in [&mut groups, &mut others] {
        list.sort_unstable();
        list.dedup();
    }
    let is_done = found.users == [identity.uid; 3]
        && found.groups == [identity.gid; 3]
        && others == groups
        && found.capabilities == 0
        && found.gains_none;
    if !is_done {
        let what = format!("it is {found:?} all the same");
        return Err(io::Error::other(what));
    }
    // The proof.
    if privilege::set_user(0, 0).is_ok() {
        return Err(io::Error::other("it could become root again"));
    }
    Ok(())
}

fn failed(identity: &Identity, error: io::Error) -> io::Error {
    let what = format!(
        "user: cannot become {}: {error}; root needs the capabilities CAP_SETUID and CAP_SETGID for that, or \
         start the process as that user",
        identity.user
    );
    io::Error::new(error.kind(), what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_and_groups_are_names_or_numbers() {
        let root = Identity {
            user: "root".into(),
            uid: 0,
            gid: 0,
            groups: Identity::find("root", None).expect("root").groups,
        };
        assert_eq!(Identity::find("root", None), Ok(root.clone()));
        assert_eq!(Identity::find("root", Some("root")), Ok(root.clone()));
        let by_number = Identity::find("0", Some("0")).expect("root");
        assert_eq!((by_number.uid, by_number.gid), (0, 0));
        // Nobody has this number here.
        let none = Identity::find("4294967294", Some("4711")).expect("a group is written");
        assert_eq!((none.uid, none.gid), (u32::MAX - 1, 4711));
        assert_eq!(none.groups, [4711]);
    }

    #[test]
    fn who_is_not_there_is_named() {
        let said = |user, group| {
            let unknown = Identity::find(user, group).expect_err("not there");
            (unknown.group, unknown.what)
        };
        let no_user = (false, "there is no user \"statsdx\" on this machine".into());
        assert_eq!(said("statsdx", None), no_user);
        let no_group = (true, "there is no group \"gx\" on this machine".into());
        assert_eq!(said("root", Some("gx")), no_group);
        let what = "no user of this machine has the number 4294967294".into();
        assert_eq!(said("4294967294", None), (false, what));
        for none in ["", "-1", "+1", "4294967295", "1.5"] {
            assert_eq!(
                said(none, Some("0")).1,
                format!("there is no user {none:?} on this machine")
            );
        }
    }
}
