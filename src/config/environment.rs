//! What a configuration may ask of the machine it is read on.
//!
//! It is read once, before the text, so that a text has one value however often it asks, and so that
//! tests can say what the machine is.

use crate::runtime::sys::host;
use std::collections::HashMap;

/// The answers to `process` and `require("os")`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Environment {
    /// The name of the machine; `None` when the kernel does not tell it.
    pub(super) host_name: Option<String>,
    /// Processors that are switched on, those this process may not use included.
    pub(super) processors: usize,
    /// The id of this process.
    pub(super) process_id: u32,
    /// The working directory; `None` when it is gone.
    pub(super) directory: Option<String>,
    /// The environment variables.
    pub(super) variables: HashMap<String, String>,
}

impl Environment {
    /// That of this process. What is not UTF-8 is read as Node.js reads it, with U+FFFD in its place.
    pub(super) fn of_this_process() -> Self {
        let lossy = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
        Self {
            host_name: host::name().ok(),
            processors: host::processors(),
            process_id: std::process::id(),
            directory: std::env::current_dir()
                .ok()
                .map(|directory| lossy(directory.into_os_string())),
            variables: std::env::vars_os()
                .map(|(name, value)| (lossy(name), lossy(value)))
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_answers() {
        let environment = Environment::of_this_process();
        let name = environment.host_name.expect("a machine has a name");
        assert!(!name.is_empty() && name.trim() == name, "{name:?}");
        assert_eq!(environment.process_id, std::process::id());
        let directory = std::env::current_dir().expect("a directory");
        assert_eq!(environment.directory, directory.to_str().map(Into::into));
        assert_eq!(
            environment.variables.get("PATH"),
            std::env::var("PATH").ok().as_ref()
        );
    }
}
