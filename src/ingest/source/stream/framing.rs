//! Bytes of a stream -> whole lines. Pure: it sees memory and knows no socket.

use std::ops::Range;

/// A tail with more memory than this gives it back once its line is whole.
const TAIL_KEPT: usize = 4096;

/// The state of one connection between two reads: the line it is in the middle of.
///
/// What is read goes into the batch right away, behind room for the tail; the tail is copied there only
/// when a newline came. So a byte is copied twice at most, however small the pieces a client sends.
#[derive(Debug)]
pub struct Framing {
    max_line: usize,
    /// The line so far; at most `max_line` bytes.
    tail: Vec<u8>,
    /// The line so far was too long: what comes up to its newline is dropped.
    skipping: bool,
}

/// What one read came to.
#[derive(Debug, PartialEq, Eq)]
pub struct Whole {
    /// Where the whole lines lie, newlines included; may be empty.
    pub lines: Range<usize>,
    /// Lines found to be too long.
    pub long: u64,
}

impl Framing {
    /// At the start of a line of at most `max_line` bytes, its newline not counted.
    pub fn new(max_line: usize) -> Self {
        Self {
            max_line,
            tail: Vec::new(),
            skipping: false,
        }
    }

    /// In the middle of a line that another process has read so far. Beside it 1, when it is too long here.
    pub(super) fn resume(max_line: usize, tail: Vec<u8>, skipping: bool) -> (Self, u64) {
        let mut framing = Self {
            max_line,
            tail: Vec::new(),
            skipping,
        };
        let long = framing.keep(&tail);
        (framing, long)
    }

    /// The line so far, and whether it was too long.
    pub(super) fn so_far(&self) -> (&[u8], bool) {
        (&self.tail, self.skipping)
    }

    /// Bytes of room the next read must leave in front.
    pub fn held(&self) -> usize {
        self.tail.len()
    }

    /// Takes what was read into `space`, behind [`Self::held`] bytes of room. What is no whole line yet is
    /// kept; lines that are too long are cut out.
    pub fn take(&mut self, space: &mut [u8]) -> Whole {
        let mut begin = self.held();
        let mut long = 0;
        if self.skipping {
            let Some(newline) = space.iter().position(|byte| *byte == b'\n') else {
                return Whole { lines: 0..0, long };
            };
            self.skipping = false;
            begin = newline + 1;
        }
        let Some(last) = space[begin..].iter().rposition(|byte| *byte == b'\n') else {
            let long = self.keep(&space[begin..]);
            return Whole { lines: 0..0, long };
        };
        let end = begin + last + 1;
        if !self.tail.is_empty() {
            begin = 0;
            space[..self.tail.len()].copy_from_slice(&self.tail);
            self.tail.clear();
            if self.tail.capacity() > TAIL_KEPT {
                self.tail = Vec::new();
            }
        }
        long += self.keep(&space[end..]);
        let (lines, cut) = cut_long_lines(space, begin..end, self.max_line);
        Whole {
            lines,
            long: long + cut,
        }
    }

    /// Keeps the begin of a line, or more of it. Returns 1 when that makes it too long.
    fn keep(&mut self, rest: &[u8]) -> u64 {
        if self.tail.len() + rest.len() <= self.max_line {
            self.tail.extend_from_slice(rest);
            return 0;
        }
        self.tail = Vec::new();
        self.skipping = true;
        1
    }

    /// Moves the line without its newline to the begin of `space`, when the client ended the stream there.
    /// Returns how long it is.
    pub fn finish(&mut self, space: &mut [u8]) -> usize {
        let tail = std::mem::take(&mut self.tail);
        space[..tail.len()].copy_from_slice(&tail);
        tail.len()
    }
}

/// Cuts lines of more than `max_line` bytes out of whole lines and moves those behind up. Returns where the
/// rest lies and how many were cut out.
///
/// It goes from the last newline within reach to the next one, so that lines that are short compared with the
/// limit are not looked at one by one.
fn cut_long_lines(space: &mut [u8], whole: Range<usize>, max_line: usize) -> (Range<usize>, u64) {
    let (mut kept_to, mut keep_from) = (whole.start, whole.start);
    let (mut at, mut long) = (whole.start, 0);
    while whole.end - at > max_line + 1 {
        let reach = &space[at..=at + max_line];
        if let Some(newline) = reach.iter().rposition(|byte| *byte == b'\n') {
            at += newline + 1;
            continue;
        }
        long += 1;
        space.copy_within(keep_from..at, kept_to);
        kept_to += at - keep_from;
        at += max_line + 1;
        let newline = space[at..whole.end].iter().position(|byte| *byte == b'\n');
        at += newline.expect("whole lines end in a newline") + 1;
        keep_from = at;
    }
    if kept_to != keep_from {
        space.copy_within(keep_from..whole.end, kept_to);
    }
    (whole.start..kept_to + whole.end - keep_from, long)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Plays reads of these pieces, then the end: what was handed over each time, and the lines too long.
    fn play(max_line: usize, pieces: &[&[u8]]) -> (Vec<Vec<u8>>, u64) {
        let mut framing = Framing::new(max_line);
        let (mut taken, mut long) = (Vec::new(), 0);
        let mut take = |bytes: &[u8]| {
            if !bytes.is_empty() {
                taken.push(bytes.to_vec());
            }
        };
        for piece in pieces {
            let held = framing.held();
            assert!(held <= max_line);
            let mut space = vec![b'#'; held];
            space.extend_from_slice(piece);
            let whole = framing.take(&mut space);
            long += whole.long;
            take(&space[whole.lines]);
        }
        let mut space = vec![b'#'; max_line];
        let length = framing.finish(&mut space);
        take(&space[..length]);
        (taken, long)
    }

    fn texts(taken: Vec<Vec<u8>>) -> Vec<String> {
        let text = |bytes| String::from_utf8(bytes).expect("text");
        taken.into_iter().map(text).collect()
    }

    #[test]
    fn what_is_whole_goes_on_and_the_rest_waits() {
        let play = |pieces: &[&[u8]]| texts(play(100, pieces).0);
        assert_eq!(
            play(&[b"a:1", b"|c\nb:2|", b"c\nc:3|c"]),
            ["a:1|c\n", "b:2|c\n", "c:3|c"]
        );
        assert_eq!(play(&[b"\n\n\n"]), ["\n\n\n"]);
        assert_eq!(play(&[b"a:1|c\nb:2|c"]), ["a:1|c\n", "b:2|c"]);
        assert_eq!(play(&[b"a", b":", b"1", b"|c", b"\n"]), ["a:1|c\n"]);
        assert_eq!(play(&[]), [""; 0]);
    }

    #[test]
    fn a_line_too_long_is_cut_out_wherever_it_lies() {
        let play = |pieces: &[&[u8]]| {
            let (taken, long) = play(4, pieces);
            (texts(taken).concat(), long)
        };
        for (pieces, left, long) in [
            (&[&b"1234\n"[..]][..], "1234\n", 0),
            (&[b"12345\n"], "", 1),
            (&[b"1\n12345\n2\n"], "1\n2\n", 1),
            (&[b"1\n12345\n23456\n2\n123456789\n3\n4"], "1\n2\n3\n4", 3),
            (&[b"12", b"345", b"6\n7\n"], "7\n", 1),
            (&[b"1234", b"\n5"], "1234\n5", 0),
            (&[b"1234", b"5\n5"], "5", 1),
            (&[b"12345", b"6", b"\n"], "", 1),
            (&[b"1\n12345"], "1\n", 1),
            (&[b"\n\n\n\n\n\n\n"], "\n\n\n\n\n\n\n", 0),
        ] {
            assert_eq!(play(pieces), (left.to_owned(), long), "{pieces:?}");
        }
    }

    #[test]
    fn a_long_tail_gives_its_memory_back() {
        let mut framing = Framing::new(1 << 20);
        framing.take(&mut vec![b'x'; 100_000]);
        assert_eq!(framing.held(), 100_000);
        let mut space = vec![b'x'; 100_000];
        space.extend_from_slice(b"\nrest");
        assert_eq!(framing.take(&mut space).lines, 0..100_001);
        assert_eq!(framing.held(), 4);
        assert!(framing.tail.capacity() < TAIL_KEPT);
    }

    #[test]
    fn another_process_goes_on_in_the_middle_of_a_line() {
        let (mut framing, long) = Framing::resume(4, b"12".to_vec(), false);
        assert_eq!((framing.so_far(), long), ((&b"12"[..], false), 0));
        let mut space = *b"##34\n5";
        assert_eq!(framing.take(&mut space).lines, 0..5);
        assert_eq!(&space[..5], b"1234\n");
        // What is allowed there may be too long here; what was too long there is so to its end.
        let (framing, long) = Framing::resume(4, b"12345".to_vec(), false);
        assert_eq!((framing.so_far(), long), ((&b""[..], true), 1));
        let (mut framing, long) = Framing::resume(4, Vec::new(), true);
        let mut space = *b"6\n7\n";
        assert_eq!((framing.take(&mut space).lines, long), (2..4, 0));
    }

    proptest! {
        /// However a stream is cut into pieces, the same lines come out of it.
        #[test]
        fn pieces_do_not_show(
            lines in proptest::collection::vec("[ab]{0,9}", 0..30),
            ended in any::<bool>(),
            sizes in proptest::collection::vec(1..40usize, 1..40),
            max_line in 1..12usize,
        ) {
            let mut stream = lines.join("\n");
            if ended {
                stream.push('\n');
            }
            let short = |line: &&str| line.len() <= max_line;
            let expected: Vec<_> = stream.split('\n').filter(short).collect();
            let long = stream.split('\n').filter(|line| !short(line)).count() as u64;
            let (mut pieces, mut rest) = (Vec::new(), stream.as_bytes());
            for size in sizes.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (piece, behind) = rest.split_at((*size).min(rest.len()));
                pieces.push(piece);
                rest = behind;
            }
            let (taken, found_long) = play(max_line, &pieces);
            let taken = texts(taken).concat();
            // A line cut out at the end takes no newline with it.
            let mut found: Vec<_> = taken.split('\n').collect();
            if found.len() == expected.len() + 1 && found.last() == Some(&"") {
                found.pop();
            }
            prop_assert_eq!(found, expected);
            prop_assert_eq!(found_long, long);
        }
    }
}
