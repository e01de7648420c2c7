//! The machine below the wings.

pub mod clock;
pub mod crc32;
pub mod date;
pub mod log;
pub mod memory;
pub mod notify;
mod one_line;
pub mod privilege;
pub mod rate_limit;
pub mod stdout;
pub mod stop;
pub mod sys;
mod syslog;
pub mod watch;
