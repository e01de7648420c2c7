//! A client of the admin interface.

use super::log::DEADLINE;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};

/// A connection to the admin interface, kept open from one command to the next.
pub(crate) struct Admin(TcpStream);

impl Admin {
    /// Connects.
    pub(crate) fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address)
            .unwrap_or_else(|error| panic!("no admin interface on {address}: {error}"));
        stream
            .set_read_timeout(Some(DEADLINE))
            .expect("a socket has a timeout");
        Self(stream)
    }

    /// Sends `command` as it is, in one piece, and reads on until the reply ends in `end`.
    pub(crate) fn ask(&mut self, command: &str, end: &str) -> String {
        self.send(command);
        let mut reply = Vec::new();
        let mut piece = [0; 4096];
        while !reply.ends_with(end.as_bytes()) {
            let count = self.0.read(&mut piece);
            let count = count.unwrap_or_else(|error| {
                let reply = String::from_utf8_lossy(&reply);
                panic!("{command:?}: {error}, after {reply:?}, which does not end in {end:?}")
            });
            if count == 0 {
                break;
            }
            reply.extend_from_slice(&piece[..count]);
        }
        text(reply)
    }

    /// Sends `command` as it is and reads until the other end closes.
    pub(crate) fn read_to_close(mut self, command: &str) -> String {
        self.send(command);
        self.rest(command)
    }

    /// The whole reply to `command` on a connection of its own, whose sending half is closed after it.
    pub(crate) fn once(address: SocketAddr, command: &str) -> String {
        let mut admin = Self::connect(address);
        admin.send(command);
        admin
            .0
            .shutdown(Shutdown::Write)
            .expect("a connection can be half-closed");
        admin.rest(command)
    }

    fn send(&mut self, command: &str) {
        self.0
            .write_all(command.as_bytes())
            .expect("a command can be sent");
    }

    fn rest(&mut self, command: &str) -> String {
        let mut reply = Vec::new();
        let read = self.0.read_to_end(&mut reply);
        let reply = text(reply);
        if let Err(error) = read {
            panic!("{command:?}: {error}, after {reply:?}");
        }
        reply
    }
}

fn text(reply: Vec<u8>) -> String {
    String::from_utf8(reply).expect("a reply is text")
}
