//! What a process that has let go of root must still reach, and who cannot be reached is said at the start,
//! not when it is needed. The state file says so itself.

use crate::config::{Config, Proxy};
use crate::ingest::source::Listen;
use crate::ingest::source::stream::At;
use crate::runtime::log::Options as Log;
use crate::runtime::privilege::{self, Identity};
use crate::runtime::sys::access::{directory_of, may_write, may_write_in};
use anyhow::Context;
use std::path::Path;

/// Becomes the user of the configuration, when this process is root, and looks what that user may do.
pub(super) fn let_go(config: &Config) -> anyhow::Result<()> {
    let listeners = config.listeners.iter().filter_map(socket_file);
    let takeover = config.takeover.iter().map(|it| &*it.path);
    let files: Vec<_> = listeners.chain(takeover).collect();
    if become_user(config.identity.as_ref(), &files, &config.log)?
        && let Some(file) = config
            .flush
            .key_flush
            .as_ref()
            .and_then(|it| it.file.as_ref())
        && let Err(error) = may_write(file)
    {
        log::error!(
            "keyFlush.log: {} cannot be written by this user: {error}; there will be no reports. Give it to \
             that user with chown, or write another path",
            file.display()
        );
    }
    Ok(())
}

/// The same of a proxy.
pub(super) fn let_go_of_proxy(config: &Proxy) -> anyhow::Result<()> {
    let files: Vec<_> = config.listeners.iter().filter_map(socket_file).collect();
    become_user(config.identity.as_ref(), &files, &config.log).map(drop)
}

/// Whether anything changed.
fn become_user(
    identity: Option<&Identity>,
    socket_files: &[&Path],
    log: &Log,
) -> anyhow::Result<bool> {
    let changed = privilege::let_go(identity).context("cannot let go of root")?;
    if !changed {
        return Ok(false);
    }
    for path in socket_files {
        if let Err(error) = may_write_in(directory_of(path)) {
            log::warn!(
                "the socket file {} will stay behind at the stop, since this user may not remove it: \
                 {error}; the next start replaces it. Choose a directory of that user, as /run/statsd-fast",
                path.display()
            );
        }
    }
    if let Some(syslog) = &log.syslog
        && let Err(error) = may_write(&syslog.socket)
    {
        log::warn!(
            "log.socket: {} cannot be written to by this user: {error}",
            syslog.socket.display()
        );
    }
    Ok(true)
}

fn socket_file(listen: &Listen) -> Option<&Path> {
    match listen {
        Listen::Unixgram(options) => Some(&options.path),
        Listen::Stream(options) => match &options.at {
            At::Unix { path, .. } => Some(path),
            At::Tcp { .. } => None,
        },
        Listen::Udp(_) => None,
    }
}
