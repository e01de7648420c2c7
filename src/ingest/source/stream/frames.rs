//! Bytes of a stream -> packets with their lengths before them. Pure: it sees memory and knows no socket.
//!
//! The way DogStatsD's clients write to a unix stream: each datagram they would have sent comes behind its
//! length, 32 bits, the lowest byte first.

use std::ops::Range;

/// Bytes of a length.
pub const LENGTH: usize = 4;

/// A tail with more memory than this gives it back once its packet is whole.
const TAIL_KEPT: usize = 4096;

/// The state of one connection between two reads: the packet it is in the middle of.
///
/// What is read goes into the batch right away, behind room for the tail; the tail is copied there only when
/// its packet is whole.
#[derive(Debug)]
pub struct Frames {
    max_packet: usize,
    /// The packet so far, its length before it; at most [`LENGTH`] and `max_packet` bytes.
    tail: Vec<u8>,
}

/// A length that no packet may have.
#[derive(Debug, PartialEq, Eq)]
pub struct BadLength(
    /// The length announced.
    pub u32,
);

impl Frames {
    /// At the start of a packet of at most `max_packet` bytes.
    pub fn new(max_packet: usize) -> Self {
        let tail = Vec::new();
        Self { max_packet, tail }
    }

    /// In the middle of a packet that another process has read so far.
    ///
    /// # Errors
    /// When its length is more than a packet may have here.
    pub(super) fn resume(max_packet: usize, tail: Vec<u8>) -> Result<Self, BadLength> {
        let frames = Self { max_packet, tail };
        if let Some(length) = frames.tail.first_chunk() {
            frames.length(*length)?;
        }
        Ok(frames)
    }

    /// The packet so far.
    pub(super) fn so_far(&self) -> &[u8] {
        &self.tail
    }

    /// Bytes of room the next read must leave in front.
    pub fn held(&self) -> usize {
        self.tail.len()
    }

    /// Takes what was read into `space`, behind [`Self::held`] bytes of room, and hands over where each whole
    /// packet lies. What is none yet is kept.
    ///
    /// # Errors
    /// When a packet is announced that is too long; where the next one begins nobody knows then.
    pub fn take(
        &mut self,
        space: &mut [u8],
        packet: impl FnMut(Range<usize>),
    ) -> Result<(), BadLength> {
        let taken = self.part(space, packet);
        if taken.is_err() {
            self.tail.clear();
        }
        taken
    }

    fn part(
        &mut self,
        space: &mut [u8],
        mut packet: impl FnMut(Range<usize>),
    ) -> Result<(), BadLength> {
        let held = self.held();
        // Its length may be parted between tail and space.
        let mut first = [0; LENGTH];
        let begun = self.tail.iter().chain(&space[held..]);
        let mut known = 0;
        for (to, from) in first.iter_mut().zip(begun) {
            *to = *from;
            known += 1;
        }
        if known < LENGTH || space.len() < LENGTH + self.length(first)? {
            self.tail.extend_from_slice(&space[held..]);
            return Ok(());
        }
        space[..held].copy_from_slice(&self.tail);
        self.tail.clear();
        if self.tail.capacity() > TAIL_KEPT {
            self.tail = Vec::new();
        }
        let mut at = 0;
        while let Some(length) = space[at..].first_chunk() {
            let begin = at + LENGTH;
            let end = begin + self.length(*length)?;
            if end > space.len() {
                break;
            }
            packet(begin..end);
            at = end;
        }
        self.tail.extend_from_slice(&space[at..]);
        Ok(())
    }

    fn length(&self, bytes: [u8; LENGTH]) -> Result<usize, BadLength> {
        let length = u32::from_le_bytes(bytes);
        let fits = usize::try_from(length).ok();
        fits.filter(|length| *length <= self.max_packet)
            .ok_or(BadLength(length))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Plays reads of these pieces: the packets they made, and how it ended.
    fn play(max_packet: usize, pieces: &[&[u8]]) -> (Vec<Vec<u8>>, Result<usize, BadLength>) {
        let mut frames = Frames::new(max_packet);
        let mut packets = Vec::new();
        for piece in pieces {
            let held = frames.held();
            assert!(held <= LENGTH + max_packet);
            let mut space = vec![b'#'; held];
            space.extend_from_slice(piece);
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

    fn framed(packet: &[u8]) -> Vec<u8> {
        let length = u32::try_from(packet.len()).expect("short");
        [&length.to_le_bytes()[..], packet].concat()
    }

    #[test]
    fn a_packet_is_handed_over_when_it_is_whole() {
        let whole = framed(b"a:1|c\nb:2|c");
        assert_eq!(
            play(100, &[&whole]),
            (vec![b"a:1|c\nb:2|c".to_vec()], Ok(0))
        );
        let pieces: Vec<_> = whole.chunks(1).collect();
        assert_eq!(play(100, &pieces), (vec![b"a:1|c\nb:2|c".to_vec()], Ok(0)));
        assert_eq!(play(100, &pieces[..14]), (vec![], Ok(14)));
        let twice = [framed(b"a"), framed(b""), framed(b"bc"), vec![9, 0]].concat();
        let packets = vec![b"a".to_vec(), b"".to_vec(), b"bc".to_vec()];
        assert_eq!(play(100, &[&twice]), (packets, Ok(2)));
    }

    #[test]
    fn a_length_beyond_the_limit_ends_it_as_soon_as_it_is_there() {
        let begun = [framed(b"abcd"), framed(b"abcde")].concat();
        assert_eq!(
            play(4, &[&begun]),
            (vec![b"abcd".to_vec()], Err(BadLength(5)))
        );
        // A client that sends lines.
        let lines = u32::from_le_bytes(*b"a:1|");
        assert_eq!(play(65_535, &[b"a:1"]).1, Ok(3));
        assert_eq!(
            play(65_535, &[b"a:1", b"|"]),
            (vec![], Err(BadLength(lines)))
        );
        assert_eq!(play(65_535, &[&[0xff; 4]]).1, Err(BadLength(u32::MAX)));
    }

    #[test]
    fn a_long_tail_gives_its_memory_back() {
        let mut frames = Frames::new(100_000);
        let long = framed(&[b'x'; 100_000]);
        let (most, rest) = long.split_at(90_000);
        frames
            .take(&mut most.to_vec(), |_| panic!("not whole"))
            .expect("fine");
        assert_eq!(frames.held(), 90_000);
        let mut space = [most, rest, b"re"].concat();
        let mut whole = None;
        frames
            .take(&mut space, |packet| whole = Some(packet))
            .expect("fine");
        assert_eq!(whole, Some(4..100_004));
        assert_eq!(frames.held(), 2);
        assert!(frames.tail.capacity() < TAIL_KEPT);
    }

    #[test]
    fn another_process_goes_on_in_the_middle_of_a_packet() {
        let whole = framed(b"abcd");
        for cut in 0..whole.len() {
            let mut frames = Frames::resume(4, whole[..cut].to_vec()).expect("short enough");
            assert_eq!(frames.so_far(), &whole[..cut]);
            let mut space = vec![b'#'; cut];
            space.extend_from_slice(&whole[cut..]);
            let mut found = None;
            frames
                .take(&mut space, |packet| found = Some(packet))
                .expect("fine");
            assert_eq!(
                found.map(|packet| space[packet].to_vec()),
                Some(b"abcd".to_vec())
            );
        }
        let long = Frames::resume(3, whole).expect_err("too long here");
        assert_eq!(long, BadLength(4));
    }

    proptest! {
        /// However a stream is cut into pieces, the same packets come out of it.
        #[test]
        fn pieces_do_not_show(
            packets in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 0..30),
            sizes in proptest::collection::vec(1..40usize, 1..40),
        ) {
            let stream: Vec<u8> = packets.iter().flat_map(|packet| framed(packet)).collect();
            let (mut pieces, mut rest) = (Vec::new(), &stream[..]);
            for size in sizes.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (piece, behind) = rest.split_at((*size).min(rest.len()));
                pieces.push(piece);
                rest = behind;
            }
            prop_assert_eq!(play(300, &pieces), (packets, Ok(0)));
        }
    }
}
