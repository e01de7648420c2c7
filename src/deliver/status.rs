//! What a backend says of itself to whoever asks: a few numbers by name.

use std::sync::{Mutex, PoisonError};

/// The numbers of one backend. Written by its thread, read by the admin interface.
#[derive(Debug)]
pub struct Status {
    backend: &'static str,
    fields: Mutex<Vec<(&'static str, i64)>>,
}

impl Status {
    /// Of a backend, by its name in the config file; nothing to say yet.
    pub fn new(backend: &'static str) -> Self {
        Self {
            backend,
            fields: Mutex::default(),
        }
    }

    /// The backend's name.
    pub fn backend(&self) -> &'static str {
        self.backend
    }

    /// Changes some numbers together. Those never set before come behind the others.
    pub fn set(&self, values: &[(&'static str, i64)]) {
        let mut fields = self.fields.lock().unwrap_or_else(PoisonError::into_inner);
        for (name, value) in values {
            match fields.iter_mut().find(|(known, _)| known == name) {
                Some((_, old)) => *old = *value,
                None => fields.push((name, *value)),
            }
        }
    }

    /// All numbers, in the order they were first set.
    pub fn fields(&self) -> Vec<(&'static str, i64)> {
        let fields = self.fields.lock().unwrap_or_else(PoisonError::into_inner);
        fields.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_their_first_order() {
        let status = Status::new("graphite");
        status.set(&[("last_flush", 5), ("flush_time", 1)]);
        status.set(&[("flush_length", 9), ("last_flush", 6)]);
        let expected = [("last_flush", 6), ("flush_time", 1), ("flush_length", 9)];
        assert_eq!(status.fields(), expected);
        assert_eq!(status.backend(), "graphite");
    }
}
