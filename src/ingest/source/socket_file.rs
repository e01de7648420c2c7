//! The files of unix sockets: made with the right mode, stale ones replaced, removed in the end.

use super::bind::BindError;
use socket2::{Domain, SockAddr, Socket, Type};
use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// The file of a bound socket, removed when dropped.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    /// Device and inode: whose file it is, should somebody else have put another one there.
    identity: (u64, u64),
}

impl SocketFile {
    /// Binds a socket of type `kind` to `path`. A socket file that nobody listens to any more is replaced.
    /// With a mode the file never has a wider one, not even for a moment.
    pub(super) fn bind(
        socket: Socket,
        kind: Type,
        path: &Path,
        mode: Option<u32>,
    ) -> Result<(Socket, Self), BindError> {
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
    };
    if let Some(mode) = mode
        && made.mode() & 0o7777 != mode
    {
        fs::set_permissions(path, Permissions::from_mode(mode))?;
    }
    Ok((socket, file))
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

impl Drop for SocketFile {
    fn drop(&mut self) {
        let is_ours = fs::symlink_metadata(&self.path)
            .is_ok_and(|found| (found.dev(), found.ino()) == self.identity);
        if is_ours && let Err(error) = fs::remove_file(&self.path) {
            log::warn!("cannot remove {}: {error}", self.path.display());
        }
    }
}
