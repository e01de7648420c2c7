//! The files of unix sockets: made with the right mode, stale ones replaced, removed in the end.

use super::bind::BindError;
use socket2::{Domain, SockAddr, Socket, Type};
use std::fs::{self, File, Permissions, TryLockError};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Connections that wait to be accepted, for a socket of streams. The kernel cuts it at
/// `net.core.somaxconn`.
pub(super) const BACKLOG: i32 = 1024;

/// How long a start waits for others to have made their sockets; it takes them less than a millisecond.
const TURN_MAX: Duration = Duration::from_secs(1);
/// Time between two attempts.
const TURN_PAUSE: Duration = Duration::from_millis(1);

/// The file of a bound socket, removed when dropped.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    /// Device and inode: whose file it is, should somebody else have put another one there.
    identity: (u64, u64),
    /// It is another process's.
    left: AtomicBool,
}

impl SocketFile {
    /// The file of a socket that was bound by another process, which goes on with it until this one has it
    /// for good: [`SocketFile::keep`]. `None` when it is not there: then there is nothing to remove.
    pub fn inherited(path: &Path) -> Option<Self> {
        let made = fs::symlink_metadata(path).ok()?;
        Some(Self {
            path: path.to_owned(),
            identity: (made.dev(), made.ino()),
            left: AtomicBool::new(true),
        })
    }

    /// It is this process's from now on.
    pub fn keep(&self) {
        self.left.store(false, Ordering::Relaxed);
    }

    /// Leaves the file to a successor.
    pub fn leave(&self) {
        self.left.store(true, Ordering::Relaxed);
    }

    /// Binds a socket of streams for something else than metrics, for this user alone, and listens. Errors
    /// send to the setting `key`.
    ///
    /// # Errors
    /// When the path cannot be bound.
    pub fn listen(path: &Path, key: &str) -> Result<(OwnedFd, Self), BindError> {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)
            .map_err(|error| BindError::of_path("unix", path, error))
            .and_then(|socket| Self::bind(socket, Type::STREAM, path, Some(0o600)));
        let (socket, file) = socket.map_err(|error| error.of_key(key))?;
        Ok((socket.into(), file))
    }

    /// Binds a socket of type `kind` to `path`, and listens when it is one of streams. A socket file that
    /// nobody listens to any more is replaced. With a mode the file never has a wider one, not even for a
    /// moment.
    pub(super) fn bind(
        socket: Socket,
        kind: Type,
        path: &Path,
        mode: Option<u32>,
    ) -> Result<(Socket, Self), BindError> {
        // Who starts at the same time must not take a file that is not listened to yet for a stale one.
        let _turn = turn(path);
        let name = if kind == Type::DGRAM {
            "unixgram"
        } else {
            "unix"
        };
        bind(socket, kind, path, mode).map_err(|error| BindError::of_path(name, path, error))
    }
}

fn bind(
    socket: Socket,
    kind: Type,
    path: &Path,
    mode: Option<u32>,
) -> io::Result<(Socket, SocketFile)> {
    let address = SockAddr::unix(path)?;
    let socket = match mode {
        // The mode of a socket before bind(2), the umask taken off, is that of the file it makes.
        Some(mode) => {
            let socket = File::from(OwnedFd::from(socket));
            socket.set_permissions(Permissions::from_mode(mode))?;
            OwnedFd::from(socket).into()
        }
        None => socket,
    };
    if let Err(error) = socket.bind(&address) {
        if error.kind() != io::ErrorKind::AddrInUse {
            return Err(error);
        }
        make_way(path, &address, kind)?;
        socket.bind(&address)?;
    }
    let made = fs::symlink_metadata(path)?;
    let file = SocketFile {
        path: path.to_owned(),
        identity: (made.dev(), made.ino()),
        left: AtomicBool::new(false),
    };
    if let Some(mode) = mode
        && made.mode() & 0o7777 != mode
    {
        fs::set_permissions(path, Permissions::from_mode(mode))?;
    }
    if kind == Type::STREAM {
        // Nobody could connect before this.
        socket.listen(BACKLOG)?;
    }
    Ok((socket, file))
}

/// Waits for the others that make a socket in the same directory: a lock on the directory itself, which
/// leaves no file behind and ends with its descriptor. Where it cannot be had, or somebody holds it for
/// long, the start goes on without.
fn turn(path: &Path) -> Option<File> {
    let directory = match path.parent()? {
        here if here.as_os_str().is_empty() => Path::new("."),
        directory => directory,
    };
    let directory = File::open(directory).ok()?;
    let until = Instant::now() + TURN_MAX;
    loop {
        match directory.try_lock() {
            Ok(()) => return Some(directory),
            Err(TryLockError::WouldBlock) if Instant::now() < until => {
                std::thread::sleep(TURN_PAUSE)
            }
            Err(_) => return None,
        }
    }
}

/// Removes a socket file that nobody listens to.
fn make_way(path: &Path, address: &SockAddr, kind: Type) -> io::Result<()> {
    if !fs::symlink_metadata(path)?.file_type().is_socket() {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    let caller = Socket::new(Domain::UNIX, kind, None)?;
    // A listener that is there and busy must not hold us up.
    caller.set_nonblocking(true)?;
    match caller.connect(address) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Err(error),
        // Whatever else it says, somebody is there: of another type, or with no room for one more.
        _ => return Err(io::ErrorKind::AddrInUse.into()),
    }
    fs::remove_file(path)?;
    log::info!(
        "replaced the socket file {}: nobody listened there, likely left by a process that was killed",
        path.display()
    );
    Ok(())
}

impl SocketFile {
    /// Removes it now, unless it is another process's; for whoever cannot tell who else still holds it.
    pub(super) fn remove(&self) {
        if self.left.swap(true, Ordering::Relaxed) {
            return;
        }
        let is_ours = fs::symlink_metadata(&self.path)
            .is_ok_and(|found| (found.dev(), found.ino()) == self.identity);
        if is_ours && let Err(error) = fs::remove_file(&self.path) {
            log::warn!("cannot remove {}: {error}", self.path.display());
        }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        self.remove();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_those_that_start_at_once_one_has_the_path() {
        let path = std::env::temp_dir().join(format!("statsd-fast-turn-{}", std::process::id()));
        for _ in 0..50 {
            drop(std::os::unix::net::UnixListener::bind(&path).expect("bind"));
            let start = || {
                let socket = Socket::new(Domain::UNIX, Type::STREAM, None).expect("a socket");
                SocketFile::bind(socket, Type::STREAM, &path, None).ok()
            };
            let up = std::thread::scope(|scope| {
                let starts: Vec<_> = (0..4).map(|_| scope.spawn(start)).collect();
                let ended = starts.into_iter().map(|start| start.join());
                ended
                    .filter_map(|up| up.expect("no panic"))
                    .collect::<Vec<_>>()
            });
            assert_eq!(up.len(), 1);
            assert!(path.exists());
        }
    }

    #[test]
    fn an_error_sends_to_the_setting_that_names_the_path() {
        let file = format!("statsd-fast-key-{}", std::process::id());
        let path = std::env::temp_dir().join(file);
        std::fs::write(&path, "mine").expect("a file");
        let taken = SocketFile::listen(&path, "takeoverSocket").expect_err("a file is there");
        let taken = taken.to_string();
        assert!(taken.contains("choose another `takeoverSocket`"), "{taken}");
        std::fs::remove_file(&path).expect("still there");
        let nowhere = SocketFile::listen(&path.join("s"), "takeoverSocket").expect_err("no place");
        let nowhere = nowhere.to_string();
        assert!(nowhere.contains("check `takeoverSocket`"), "{nowhere}");
    }
}
