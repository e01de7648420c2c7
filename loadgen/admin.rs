//! A client of the server's admin interface, and the counters it reads there.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use statsd_fast::runtime::sys::cpu::CpuClock;

use crate::receiver::{Counts, Receiver};

/// How long an answer may take: the server waits for its workers, and for a flush that goes on.
const ANSWER_MAX: Duration = Duration::from_secs(30);

/// What ends an answer.
const END: &str = "END\n\n";

/// A server that somebody else started.
#[derive(Debug)]
pub(crate) struct Server {
    to: SocketAddr,
    admin: SocketAddr,
    connection: TcpStream,
    /// The clock of its process, where that is known.
    pub(crate) clock: Option<CpuClock>,
}

impl Server {
    /// Connects to the admin interface of the server that takes datagrams at `to`.
    pub(crate) fn connect(to: SocketAddr, admin: SocketAddr) -> anyhow::Result<Self> {
        let connection = TcpStream::connect(admin).with_context(|| {
            format!(
                "no admin interface at {admin}; is it `mgmt_address` and `mgmt_port` of the server?"
            )
        })?;
        connection.set_read_timeout(Some(ANSWER_MAX))?;
        connection.set_nodelay(true)?;
        Ok(Self {
            to,
            admin,
            connection,
            clock: None,
        })
    }

    /// Every counter since the server's start, with all that it has taken in by now.
    pub(crate) fn meters(&mut self) -> anyhow::Result<Meters> {
        let admin = self.admin;
        let lost = || format!("the admin interface at {admin} does not answer");
        self.connection.write_all(b"meters\n").with_context(lost)?;
        let mut answer = Vec::new();
        let mut piece = [0; 4096];
        while !answer.ends_with(END.as_bytes()) {
            let count = self.connection.read(&mut piece).with_context(lost)?;
            ensure!(
                count > 0,
                "the admin interface at {admin} closed the connection"
            );
            answer.extend_from_slice(&piece[..count]);
            if answer == b"ERROR\n" {
                bail!(
                    "the server at {admin} does not know the command `meters`: it is none that \
                     loadgen can read, or an older one"
                );
            }
        }
        let answer = String::from_utf8_lossy(&answer);
        Meters::read(&answer).with_context(|| format!("{admin} answered {answer:?} to `meters`"))
    }
}

impl Receiver for Server {
    fn address(&self) -> SocketAddr {
        self.to
    }

    fn counts(&mut self) -> anyhow::Result<Counts> {
        let meters = self.meters()?;
        Ok(Counts {
            datagrams: meters.get("packets"),
            dropped: meters.get("kernel_drops"),
            values: Some(meters.below("samples.").map(|(_, count)| count).sum()),
            refused: meters.below("rejected.").map(|(_, count)| count).sum(),
        })
    }

    fn cpu(&self) -> Option<CpuClock> {
        self.clock
    }
}

/// Counters by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Meters(Vec<(String, u64)>);

impl Meters {
    /// Reads lines of name, total and what came since the last flush.
    fn read(answer: &str) -> Option<Self> {
        let lines = answer.strip_suffix(END)?.lines();
        let meter = |line: &str| {
            let (name, counts) = line.split_once(": ")?;
            let total = counts.split(' ').next()?;
            Some((name.to_owned(), total.parse().ok()?))
        };
        lines.map(meter).collect::<Option<_>>().map(Self)
    }

    /// One of them; 0 when the server has no such.
    pub(crate) fn get(&self, name: &str) -> u64 {
        let found = self.0.iter().find(|(found, _)| found == name);
        found.map_or(0, |(_, count)| *count)
    }

    /// Those whose names begin so, by the rest of their names.
    pub(crate) fn below(&self, prefix: &str) -> impl Iterator<Item = (&str, u64)> {
        self.0
            .iter()
            .filter_map(move |(name, count)| Some((name.strip_prefix(prefix)?, *count)))
    }

    /// What was counted since `before`.
    ///
    /// # Errors
    /// When a count went back: the server was started anew.
    pub(crate) fn since(&self, before: &Self) -> anyhow::Result<Self> {
        let meters = self.0.iter().map(|(name, count)| {
            let more = count.checked_sub(before.get(name));
            let more = more.context("the server was started anew in between")?;
            Ok((name.clone(), more))
        });
        meters.collect::<anyhow::Result<_>>().map(Self)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn meters(counts: &[(&str, u64)]) -> Meters {
        let owned = counts
            .iter()
            .map(|(name, count)| ((*name).to_owned(), *count));
        Meters(owned.collect())
    }

    #[test]
    fn an_answer_is_read_and_what_is_none_is_not() {
        let read = Meters::read("packets: 12 2\nsamples.timers: 7 7\nEND\n\n").unwrap();
        assert_eq!(read, meters(&[("packets", 12), ("samples.timers", 7)]));
        assert_eq!(read.get("packets"), 12);
        assert_eq!(read.get("bytes"), 0);
        assert_eq!(read.below("samples.").collect::<Vec<_>>(), [("timers", 7)]);
        for wrong in [
            "packets: 1 1\n",
            "packets\nEND\n\n",
            "packets: x 1\nEND\n\n",
        ] {
            assert_eq!(Meters::read(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_count_that_goes_back_is_a_new_server() {
        let (one, two) = (meters(&[("packets", 1)]), meters(&[("packets", 3)]));
        assert_eq!(two.since(&one).unwrap(), meters(&[("packets", 2)]));
        assert!(one.since(&two).unwrap_err().to_string().contains("anew"));
    }
}
