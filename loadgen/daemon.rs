//! A server of its own to measure: no backend, ports that the kernel chooses.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::{env, fs, process, thread};

use anyhow::{Context as _, bail, ensure};
use core_affinity::CoreId;
use serde_json::{Value, json};
use statsd_fast::runtime::sys::cpu::CpuClock;

use crate::admin::Server;
use crate::receiver::{Counts, Receiver};

/// What servers to measure differ in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Setup {
    /// Workers; more than one choose their cores themselves.
    pub(crate) workers: u32,
    /// Takes runs of datagrams in one piece.
    pub(crate) gro: bool,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            workers: 1,
            gro: false,
        }
    }
}

impl Setup {
    /// What it is told, the receive buffer aside, which is the default.
    fn config(self) -> Value {
        json!({
            "address": "127.0.0.1",
            "port": "0",
            "mgmt_port": "0",
            "threads": self.workers,
            "udpGro": self.gro,
            "flushInterval": 1000,
            "backends": [],
        })
    }
}

/// A running server; it is killed when dropped.
#[derive(Debug)]
pub(crate) struct Daemon {
    server: Server,
    // In this order the file outlives the process that looks at it.
    _process: Process,
    _config: ConfigFile,
}

impl Daemon {
    /// Starts `program` on `core`; on all there are without one.
    pub(crate) fn start(
        program: &Path,
        setup: Setup,
        core: Option<CoreId>,
    ) -> anyhow::Result<Self> {
        let config = ConfigFile::write(&setup.config())?;
        let mut process = Process::start(program, &config.0, core)?;
        let (to, admin) = process.addresses()?;
        let mut server = Server::connect(to, admin)?;
        let clock = CpuClock::of_process(process.0.id());
        server.clock = Some(clock.context("the server has no CPU clock")?);
        Ok(Self {
            server,
            _process: process,
            _config: config,
        })
    }
}

impl Receiver for Daemon {
    fn address(&self) -> SocketAddr {
        self.server.address()
    }

    fn counts(&mut self) -> anyhow::Result<Counts> {
        self.server.counts()
    }

    fn cpu(&self) -> Option<CpuClock> {
        self.server.cpu()
    }
}

/// A configuration file for as long as a server runs.
#[derive(Debug)]
struct ConfigFile(PathBuf);

impl ConfigFile {
    fn write(config: &Value) -> anyhow::Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = env::temp_dir().join(format!("loadgen-{}-{number}.json", process::id()));
        // Never over what somebody else put there.
        let mut file = fs::File::create_new(&path)
            .with_context(|| format!("cannot write {}", path.display()))?;
        let written = Self(path);
        file.write_all(format!("{config:#}\n").as_bytes())
            .with_context(|| format!("cannot write {}", written.0.display()))?;
        Ok(written)
    }
}

impl Drop for ConfigFile {
    fn drop(&mut self) {
        // What is left lies where such things are cleaned away.
        let _ = fs::remove_file(&self.0);
    }
}

#[derive(Debug)]
struct Process(Child);

impl Process {
    fn start(program: &Path, config: &Path, core: Option<CoreId>) -> anyhow::Result<Self> {
        let start = move || {
            // The child inherits the core of the thread that starts it.
            if let Some(core) = core {
                let pinned = core_affinity::set_for_current(core);
                ensure!(pinned, "cannot run on core {}", core.id);
            }
            Command::new(program)
                .arg(config)
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .spawn()
                .with_context(|| format!("cannot start {}", program.display()))
        };
        thread::scope(|scope| crate::load::joined(scope.spawn(start))).map(Self)
    }

    /// Where it listens, as it says itself when it is up.
    fn addresses(&mut self) -> anyhow::Result<(SocketAddr, SocketAddr)> {
        let output = self.0.stdout.take().context("its output is not piped")?;
        let mut lines = BufReader::new(output).lines().map_while(Result::ok);
        let mut said = Vec::new();
        loop {
            let Some(line) = lines.next() else {
                bail!(
                    "the server ended instead of starting; is it a statsd-fast? What it said on \
                     standard error is above, and on standard output:\n{}",
                    said.join("\n")
                );
            };
            let up = line.ends_with("server is up");
            said.push(line);
            if up {
                break;
            }
        }
        // It must not wait for somebody to read on.
        thread::spawn(move || lines.for_each(drop));
        let find = |mark: &str| {
            let mut found = said.iter().filter_map(|line| line.split_once(mark));
            let address = found.find_map(|(_, rest)| rest.split(',').next()?.parse().ok());
            address.with_context(|| {
                format!("the server did not say {mark:?} but:\n{}", said.join("\n"))
            })
        };
        Ok((find("listening on udp ")?, find("admin interface on tcp ")?))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It holds nothing that anybody would miss. An error: it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
