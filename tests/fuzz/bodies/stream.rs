//! Streams of any bytes in any pieces: the lines, or packets, of the whole, and no more memory than is allowed.

use crate::pieces::pieces;
use statsd_fast::ingest::source::stream::frames::{BadLength, Frames, LENGTH};
use statsd_fast::ingest::source::stream::framing::Framing;

/// The first byte is the longest line, or packet; the rest is a stream in pieces.
pub(crate) fn check(input: &[u8]) {
    let Some((most, rest)) = input.split_first() else {
        return;
    };
    let most = usize::from(*most);
    let (stream, pieces) = pieces(rest);
    assert_eq!(by_newlines(most, &pieces), lines(most, stream));
    assert_eq!(by_lengths(most, &pieces), packets(most, stream));
}

/// What comes out of the pieces and the end behind them, and how many lines were too long.
fn by_newlines(most: usize, pieces: &[&[u8]]) -> (Vec<u8>, u64) {
    let mut framing = Framing::new(most);
    let (mut taken, mut long) = (Vec::new(), 0);
    for piece in pieces {
        let held = framing.held();
        assert!(held <= most, "{held} bytes are held");
        let mut space = [&vec![b'#'; held], *piece].concat();
        let whole = framing.take(&mut space);
        let lines = &space[whole.lines];
        assert!(
            lines.last().is_none_or(|last| *last == b'\n'),
            "a line is not whole"
        );
        taken.extend_from_slice(lines);
        long += whole.long;
    }
    let mut space = vec![b'#'; most];
    let length = framing.finish(&mut space);
    taken.extend_from_slice(&space[..length]);
    (taken, long)
}

/// The same of the whole stream, plainly.
fn lines(most: usize, stream: &[u8]) -> (Vec<u8>, u64) {
    let (mut taken, mut long) = (Vec::new(), 0);
    for line in stream.split_inclusive(|byte| *byte == b'\n') {
        let bare = line.strip_suffix(b"\n").unwrap_or(line);
        if bare.len() > most {
            long += 1;
        } else {
            taken.extend_from_slice(line);
        }
    }
    (taken, long)
}

type Packets = (Vec<Vec<u8>>, Result<usize, BadLength>);

/// The packets that come out of the pieces, and what is held in the end, or the length that ended it.
fn by_lengths(most: usize, pieces: &[&[u8]]) -> Packets {
    let mut frames = Frames::new(most);
    let mut packets = Vec::new();
    for piece in pieces {
        let held = frames.held();
        assert!(held <= LENGTH + most, "{held} bytes are held");
        let mut space = [&vec![b'#'; held], *piece].concat();
        let mut found = Vec::new();
        let taken = frames.take(&mut space, |packet| found.push(packet));
        packets.extend(found.into_iter().map(|packet| space[packet].to_vec()));
        if let Err(bad) = taken {
            assert_eq!(frames.held(), 0);
            return (packets, Err(bad));
        }
    }
    (packets, Ok(frames.held()))
}

/// The same of the whole stream, plainly.
fn packets(most: usize, stream: &[u8]) -> Packets {
    let (mut packets, mut rest) = (Vec::new(), stream);
    while let Some((length, behind)) = rest.split_first_chunk::<LENGTH>() {
        let length = u32::from_le_bytes(*length);
        if length as usize > most {
            return (packets, Err(BadLength(length)));
        }
        let Some((packet, behind)) = behind.split_at_checked(length as usize) else {
            break;
        };
        packets.push(packet.to_vec());
        rest = behind;
    }
    (packets, Ok(rest.len()))
}
