//! Carbon's pickle protocol: frames of a length and a list of `(name, (time, value))`, as StatsD spells it.

use super::super::number;
use super::encode::Points;

/// Bytes of a frame at most, its length not counted: what carbon takes unless it is told otherwise
/// (`PICKLE_RECEIVER_MAX_LENGTH`). It closes the connection on a longer one.
const FRAME_MAX: usize = 1 << 20;

/// The length in front of a frame.
const LENGTH: usize = 4;

/// The opcodes that open a list: a mark, and the list from it on.
const OPEN: &[u8] = b"(l";

/// Writes frames. The values are text, as those of StatsD are; carbon makes numbers of them.
#[derive(Debug)]
pub(super) struct Frames<'a> {
    out: &'a mut Vec<u8>,
    /// Where the frame in the making begins.
    start: usize,
    frame_max: usize,
    timestamp: String,
}

impl<'a> Frames<'a> {
    /// Begins the first frame at the end of `out`; what follows has this time, in Unix seconds.
    pub(super) fn new(out: &'a mut Vec<u8>, timestamp: i64) -> Self {
        Self::limited(out, timestamp, FRAME_MAX)
    }

    fn limited(out: &'a mut Vec<u8>, timestamp: i64, frame_max: usize) -> Self {
        let mut frames = Self {
            start: 0,
            out,
            frame_max,
            timestamp: timestamp.to_string(),
        };
        frames.open();
        frames
    }

    /// Ends the last frame.
    pub(super) fn finish(mut self) {
        self.close();
    }

    fn open(&mut self) {
        self.start = self.out.len();
        self.out.extend_from_slice(&[0; LENGTH]);
        self.out.extend_from_slice(OPEN);
    }

    fn close(&mut self) {
        self.out.push(b'.');
        let length = (self.out.len() - self.start - LENGTH) as u32;
        self.out[self.start..self.start + LENGTH].copy_from_slice(&length.to_be_bytes());
    }
}

impl Points for Frames<'_> {
    fn point(&mut self, name: [&str; 6], value: f64) {
        let before = self.out.len();
        self.out.extend_from_slice(b"(S'");
        name.iter().for_each(|piece| quote(self.out, piece));
        self.out.extend_from_slice(b"'\n(L");
        self.out.extend_from_slice(self.timestamp.as_bytes());
        self.out.extend_from_slice(b"L\nS'");
        number::write(self.out, value);
        self.out.extend_from_slice(b"'\ntta");
        // The stop still follows. One that is too long all alone goes out all the same.
        let first = before == self.start + LENGTH + OPEN.len();
        if self.out.len() - self.start - LENGTH >= self.frame_max && !first {
            let point = self.out.split_off(before);
            self.close();
            self.open();
            self.out.extend_from_slice(&point);
        }
    }

    fn stamp(&mut self, timestamp: i64) {
        self.timestamp = timestamp.to_string();
    }
}

/// Appends text as it stands between the quotes of a Python string, so that it reads back as it is. A
/// newline left alone would end the string, and opcodes could follow, which can run programs. No line
/// received holds one; that shall not be all that keeps carbon safe.
fn quote(out: &mut Vec<u8>, text: &str) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    if text
        .bytes()
        .all(|byte| matches!(byte, b' '..=b'~') && byte != b'\'' && byte != b'\\')
    {
        out.extend_from_slice(text.as_bytes());
        return;
    }
    for byte in text.bytes() {
        match byte {
            b'\'' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            b' '..=b'~' => out.push(byte),
            // UTF-8 byte by byte: that is how carbon reads the string; under Python 3 it asks for that
            // encoding. Python 3's own default is ASCII, which refuses such a name.
            _ => {
                let (high, low) = (HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]);
                out.extend_from_slice(&[b'\\', b'x', high, low]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Frames of at most `frame_max` bytes, without their lengths, which are checked.
    fn frames(frame_max: usize, points: &[(&str, f64)]) -> Vec<String> {
        let mut out = Vec::new();
        let mut frames = Frames::limited(&mut out, 7, frame_max);
        for (name, value) in points {
            frames.point(["a.", name, "", "", "", ""], *value);
        }
        frames.finish();
        let mut found = Vec::new();
        let mut rest = out.as_slice();
        while let Some((length, body)) = rest.split_first_chunk() {
            let (frame, behind) = body.split_at(u32::from_be_bytes(*length) as usize);
            found.push(String::from_utf8(frame.into()).expect("ASCII"));
            rest = behind;
        }
        assert_eq!(rest, b"");
        found
    }

    #[test]
    fn bytes_as_the_reference_writes_them() {
        let mut out = Vec::new();
        let mut frames = Frames::new(&mut out, 1_795_344_023);
        frames.point(["stats.", "c", ".", "rate", "", ""], 0.0);
        frames.stamp(1_795_344_024);
        frames.point(["g", "", "", "", "", ""], -2.5);
        frames.finish();
        let body =
            "(l(S'stats.c.rate'\n(L1795344023L\nS'0'\ntta(S'g'\n(L1795344024L\nS'-2.5'\ntta.";
        assert_eq!(out[..4], [0, 0, 0, body.len() as u8]);
        assert_eq!(String::from_utf8_lossy(&out[4..]), body);
    }

    #[test]
    fn a_flush_without_values_is_an_empty_list() {
        assert_eq!(frames(FRAME_MAX, &[]), ["(l."]);
    }

    #[test]
    fn no_name_can_leave_its_quotes() {
        let name = "b';\\x='\ncos\nsystem\n(S'id'\ntR.\r\t\0\u{7f}\u{e9}";
        let expected = "(l(S'a.b\\';\\\\x=\\'\\ncos\\nsystem\\n(S\\'id\\'\\ntR.\\r\\t\\x00\\x7f\\xc3\\xa9'\n\
                        (L7L\nS'1'\ntta.";
        assert_eq!(frames(FRAME_MAX, &[(name, 1.0)]), [expected]);
    }

    #[test]
    fn what_carbon_would_refuse_goes_in_several_frames() {
        let point = |name: &str| format!("(S'a.{name}'\n(L7L\nS'1'\ntta");
        let points = [("b", 1.0), ("c", 1.0), ("d", 1.0)];
        let two = format!("(l{}{}.", point("b"), point("c"));
        let one = format!("(l{}.", point("d"));
        assert_eq!(frames(two.len(), &points), [two.clone(), one.clone()]);
        let each: Vec<_> = ["b", "c", "d"]
            .iter()
            .map(|name| format!("(l{}.", point(name)))
            .collect();
        assert_eq!(frames(two.len() - 1, &points), each);
        assert_eq!(frames(1, &points), each, "one that is too long goes alone");
    }
}
