//! The original: npm's `statsd` and its Librato backend, installed once into cargo's directory for test
//! output.

use super::directory::Directory;
use super::log::DEADLINE;
use super::process::Process;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{self, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};
use std::{fs, thread};

/// The releases of the packages that everything is compared with.
const PACKAGES: [&str; 2] = ["statsd@0.9.0", "statsd-librato-backend@2.0.16"];

/// How often it is started before a taken port is believed to be no accident.
const STARTS: usize = 5;

/// A running original, killed when dropped.
pub(crate) struct Original {
    /// The process and what it has printed.
    pub(crate) process: Process,
    /// Where it takes datagrams.
    pub(crate) udp: SocketAddr,
    /// Where its admin interface is.
    pub(crate) admin: SocketAddr,
    // Declared last: removed when the process that reads it is gone.
    _directory: Directory,
}

impl Original {
    /// The path of its program, installed by the first who asks, or what is missing here.
    pub(crate) fn program() -> Result<&'static Path, &'static str> {
        static PROGRAM: OnceLock<Result<PathBuf, String>> = OnceLock::new();
        let program = PROGRAM.get_or_init(install);
        program.as_deref().map_err(String::as_str)
    }

    /// Starts it on 127.0.0.1 and waits until it listens. `config` writes its configuration for a UDP
    /// port and an admin port.
    pub(crate) fn start(config: impl Fn(u16, u16) -> String) -> Self {
        let program = Self::program().expect("whoever starts it has looked whether it is there");
        Self::start_of(program, config)
    }

    /// The same for its cluster proxy.
    pub(crate) fn start_proxy(config: impl Fn(u16, u16) -> String) -> Self {
        let program = Self::program().expect("whoever starts it has looked whether it is there");
        Self::start_of(&program.with_file_name("proxy.js"), config)
    }

    fn start_of(program: &Path, config: impl Fn(u16, u16) -> String) -> Self {
        for _ in 0..STARTS {
            let (udp, admin) = (super::free_udp_port(), super::free_tcp_port());
            let directory = Directory::create();
            let file = directory.path().join("config.js");
            fs::write(&file, config(udp, admin)).expect("the configuration can be written");
            let process = Process::spawn(Command::new("node").arg(program).arg(&file));
            let original = Self {
                process,
                udp: SocketAddr::from((Ipv4Addr::LOCALHOST, udp)),
                admin: SocketAddr::from((Ipv4Addr::LOCALHOST, admin)),
                _directory: directory,
            };
            if listens(&original.process, original.admin) {
                return original;
            }
        }
        panic!("{STARTS} starts in a row met a taken port");
    }
}

/// Waits until the original that runs as `process` listens at `admin`; false when somebody else was faster
/// at a port of it.
pub(crate) fn listens(process: &Process, admin: SocketAddr) -> bool {
    let start = Instant::now();
    // It says that it is up before it has bound anything, so there is no event to wait for. The admin
    // interface is bound last. That a connection is accepted there would not tell by whom.
    while !process.listens_on(admin.port()) {
        if process.log.has_ended() {
            let said = process.log.lines();
            assert!(
                said.iter().any(|line| line.contains("EADDRINUSE")),
                "the original does not start:\n{}",
                said.join("\n")
            );
            return false;
        }
        assert!(start.elapsed() < DEADLINE, "the original does not listen");
        thread::sleep(Duration::from_millis(10));
    }
    true
}

fn install() -> Result<PathBuf, String> {
    for program in ["node", "npm"] {
        if !succeeds(Command::new(program).arg("--version")) {
            return Err(format!("`{program} --version` does not run"));
        }
    }
    // What it logs with was taken out of Node.js 23.
    let logs = "process.exit(typeof require('util').log === 'function' ? 0 : 1)";
    if !succeeds(Command::new("node").args(["-e", logs])) {
        return Err("this Node.js is too new for the original, which needs 8 to 22".into());
    }
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let name = PACKAGES.join("-");
    let kept = cache.join(&name);
    let program = kept.join("node_modules/statsd/stats.js");
    if program.exists() {
        return Ok(program);
    }
    // Each process installs for itself, and the first to finish gives its folder the name.
    let mine = cache.join(format!("{name}-{}", process::id()));
    fs::create_dir_all(&mine).map_err(|error| error.to_string())?;
    let output = Command::new("npm")
        .args(["install", "--ignore-scripts", "--no-audit", "--no-fund"])
        .arg("--prefix")
        .arg(&mine)
        .args(PACKAGES)
        .current_dir(&mine)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| error.to_string())?;
    if !output.status.success() {
        // What is left is in cargo's own directory for tests and harms nothing.
        let _ = fs::remove_dir_all(&mine);
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!(
            "npm could not install {}: {}",
            PACKAGES.join(" and "),
            said.trim()
        ));
    }
    if let Err(error) = fs::rename(&mine, &kept) {
        let _ = fs::remove_dir_all(&mine);
        if !program.exists() {
            return Err(format!("{}: {error}", kept.display()));
        }
    }
    Ok(program)
}

fn succeeds(command: &mut Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}
