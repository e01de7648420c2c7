//! Text that stays on one line, whatever is in it.

use std::fmt;

/// Escapes control characters: names from the network end up in messages, and must not forge lines.
pub(super) struct OneLine<'w, W>(pub(super) &'w mut W);

impl<W: fmt::Write> fmt::Write for OneLine<'_, W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for piece in text.split_inclusive(char::is_control) {
            let plain = piece.trim_end_matches(char::is_control);
            self.0.write_str(plain)?;
            write!(self.0, "{}", piece[plain.len()..].escape_default())?;
        }
        Ok(())
    }
}
