//! Bytes of a connection -> commands, a line each. Pure: it sees memory and knows no socket.

/// What a connection sent and nobody answered yet.
#[derive(Debug)]
pub struct Commands {
    longest: usize,
    pending: Vec<u8>,
}

impl Commands {
    /// Of a connection that sent nothing yet, and may send commands of so many bytes.
    pub fn new(longest: usize) -> Self {
        let pending = Vec::new();
        Self { longest, pending }
    }

    /// Takes what was read.
    pub fn take(&mut self, bytes: &[u8]) {
        self.pending.extend_from_slice(bytes);
    }

    /// The next command that is whole, its newline included.
    pub fn whole(&mut self) -> Option<Vec<u8>> {
        let end = self.pending.iter().position(|byte| *byte == b'\n')?;
        let line = self.pending.drain(..=end).collect();
        // The reference trims a whole segment: an empty line behind a command belongs to it.
        if self.pending.iter().all(u8::is_ascii_whitespace) {
            self.pending.clear();
        }
        Some(line)
    }

    /// The begin of the next one.
    pub fn begun(&self) -> &[u8] {
        &self.pending
    }

    /// What is begun is more than a command may have, once [`Commands::whole`] has nothing more.
    pub fn is_too_long(&self) -> bool {
        self.pending.len() > self.longest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(commands: &mut Commands) -> Vec<String> {
        let text = |line| String::from_utf8(line).expect("text");
        std::iter::from_fn(|| commands.whole().map(text)).collect()
    }

    #[test]
    fn a_command_is_a_line_in_whatever_pieces() {
        let mut commands = Commands::new(10);
        commands.take(b"sta");
        assert_eq!(all(&mut commands), [""; 0]);
        assert_eq!(commands.begun(), b"sta");
        commands.take(b"ts\nhelp\nco");
        assert_eq!(all(&mut commands), ["stats\n", "help\n"]);
        assert_eq!(commands.begun(), b"co");
    }

    #[test]
    fn an_empty_line_behind_a_command_belongs_to_it() {
        let mut commands = Commands::new(10);
        commands.take(b"stats\n\r\n \n");
        assert_eq!(all(&mut commands), ["stats\n"]);
        commands.take(b"\nstats\n");
        assert_eq!(all(&mut commands), ["\n", "stats\n"]);
    }

    #[test]
    fn a_command_has_an_end() {
        let mut commands = Commands::new(4);
        commands.take(b"123456\n1234");
        assert_eq!(all(&mut commands), ["123456\n"]);
        assert!(!commands.is_too_long());
        commands.take(b"5");
        assert!(commands.is_too_long());
    }
}
