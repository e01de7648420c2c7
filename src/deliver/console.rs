//! The console backend.

/// Options of the console backend; the layout ones come with the reference's own output shape.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Options {}
