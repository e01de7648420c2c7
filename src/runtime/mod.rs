//! The machine below the wings.
pub mod sys;
