//! Reads carbon's pickle frames as StatsD writes them, and nothing that is only nearly so.

/// A name, its Unix time and the text of its value.
pub(crate) type Point = (String, u64, String);

/// The points of every frame, a list each.
///
/// # Errors
/// The first thing that is not to the letter.
pub(crate) fn frames(mut payload: &[u8]) -> Result<Vec<Vec<Point>>, String> {
    let mut frames = Vec::new();
    while !payload.is_empty() {
        let (length, rest) = payload.split_first_chunk().ok_or("half a length")?;
        let length = u32::from_be_bytes(*length) as usize;
        if length > 1 << 20 {
            return Err(format!("carbon takes no frame of {length} bytes"));
        }
        let (frame, rest) = rest.split_at_checked(length).ok_or("half a frame")?;
        frames.push(points(frame)?);
        payload = rest;
    }
    Ok(frames)
}

fn points(frame: &[u8]) -> Result<Vec<Point>, String> {
    let mut rest = Rest(frame);
    let mut points = Vec::new();
    rest.expect("(l")?;
    while !rest.0.starts_with(b".") {
        rest.expect("(S'")?;
        let name = rest.text()?;
        rest.expect("\n(L")?;
        let time = rest.until(b'L')?;
        rest.expect("\nS'")?;
        let value = rest.text()?;
        rest.expect("\ntta")?;
        let time = String::from_utf8_lossy(time);
        let time = time.parse().map_err(|_| format!("no time: {time:?}"))?;
        points.push((name, time, value));
    }
    rest.expect(".")?;
    if rest.0.is_empty() {
        Ok(points)
    } else {
        Err("bytes behind the stop".into())
    }
}

struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn expect(&mut self, opcodes: &str) -> Result<(), String> {
        let rest = self.0.strip_prefix(opcodes.as_bytes()).ok_or_else(|| {
            let found = &self.0[..self.0.len().min(40)];
            format!(
                "{opcodes:?} belongs before {:?}",
                String::from_utf8_lossy(found)
            )
        })?;
        self.0 = rest;
        Ok(())
    }

    fn until(&mut self, end: u8) -> Result<&'a [u8], String> {
        let at = self.0.iter().position(|byte| *byte == end);
        let at = at.ok_or("an end is missing")?;
        let found = &self.0[..at];
        self.0 = &self.0[at + 1..];
        Ok(found)
    }

    /// A Python string up to its closing quote, unescaped.
    fn text(&mut self) -> Result<String, String> {
        let mut text = Vec::new();
        loop {
            let (&byte, rest) = self.0.split_first().ok_or("a string has no end")?;
            self.0 = rest;
            match byte {
                b'\'' => return String::from_utf8(text).map_err(|error| error.to_string()),
                b'\\' => text.push(self.escaped()?),
                b' '..=b'~' => text.push(byte),
                _ => return Err(format!("byte {byte} is not escaped")),
            }
        }
    }

    fn escaped(&mut self) -> Result<u8, String> {
        let (&kind, rest) = self.0.split_first().ok_or("half an escape")?;
        self.0 = rest;
        match kind {
            b'\'' | b'\\' => Ok(kind),
            b'n' => Ok(b'\n'),
            b'r' => Ok(b'\r'),
            b't' => Ok(b'\t'),
            b'x' => {
                let (digits, rest) = self.0.split_first_chunk::<2>().ok_or("half an escape")?;
                self.0 = rest;
                let digits = String::from_utf8_lossy(digits);
                u8::from_str_radix(&digits, 16).map_err(|_| format!("no escape: \\x{digits}"))
            }
            _ => Err(format!("no escape: \\{}", char::from(kind))),
        }
    }
}
