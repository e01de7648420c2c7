//! Byte offsets -> lines and columns.

use super::super::Place;

/// Makes the text the right side of an assignment, as the reference does when it evaluates the file.
pub(super) const ASSIGN: &str = "_= ";

/// Bytes from one count of characters to the next.
const BLOCK: usize = 256;

/// Where lines begin, and how many characters stand before every block of the text, so that a place
/// in a file of one long line costs no more than another.
pub(super) struct Lines<'t> {
    text: &'t [u8],
    starts: Vec<usize>,
    before_blocks: Vec<usize>,
}

impl<'t> Lines<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        let text = text.as_bytes();
        let ends = text.iter().enumerate().filter(|&(at, &byte)| {
            // CR LF is one end of line, a lone CR is one as well.
            byte == b'\n' || (byte == b'\r' && text.get(at + 1) != Some(&b'\n'))
        });
        let starts = std::iter::once(0)
            .chain(ends.map(|(at, _)| at + 1))
            .collect();
        let blocks = text.chunks(BLOCK).scan(0, |sum, block| {
            *sum += characters(block);
            Some(*sum)
        });
        let before_blocks = std::iter::once(0).chain(blocks).collect();
        Self {
            text,
            starts,
            before_blocks,
        }
    }

    pub(super) fn place(&self, offset: usize) -> Place {
        let offset = offset.min(self.text.len());
        let line = self.starts.partition_point(|&start| start <= offset);
        let column =
            self.characters_before(offset) - self.characters_before(self.starts[line - 1]) + 1;
        Place {
            line: line as u32,
            column: column as u32,
        }
    }

    fn characters_before(&self, offset: usize) -> usize {
        let block = offset / BLOCK;
        self.before_blocks[block] + characters(&self.text[block * BLOCK..offset])
    }
}

/// Continuation bytes are no characters of their own.
fn characters(bytes: &[u8]) -> usize {
    bytes.iter().filter(|&&byte| byte & 0xc0 != 0x80).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_count_characters_line_by_line() {
        let text = "aü\r\n€\rb\n".repeat(3 * BLOCK);
        let lines = Lines::new(&text);
        let (mut line, mut column) = (1, 1);
        for (at, c) in text.char_indices() {
            assert_eq!(lines.place(at), Place { line, column }, "{at}");
            let ends_line = c == '\n' || (c == '\r' && !text[at..].starts_with("\r\n"));
            (line, column) = if ends_line {
                (line + 1, 1)
            } else {
                (line, column + 1)
            };
        }
        assert_eq!(lines.place(usize::MAX), Place { line, column });
        assert_eq!(Lines::new("").place(5), Place { line: 1, column: 1 });
    }
}
