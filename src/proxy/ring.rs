//! Which node a name belongs to: the ring of the reference, point for point.
//!
//! Each node has 40 points on a circle of 2^32, at the digests of `host:port-0`, `host:port-1` and so on; a
//! name belongs to the first point at or after its own digest. Rings of the same nodes send each name to the
//! same node, whatever order the nodes were written in, ours and those of the reference.

use super::md5::first_word;
use std::borrow::Cow;

/// Points that a node has before they are rounded.
const POINTS: f64 = 40.0;
/// The weight of each node, which is the same for all and shows in the rounding alone.
const WEIGHT: f64 = 100.0;

/// Parts of the circle that know their first point.
const PARTS: usize = 1024;
/// Digests in a part: a digest shifted by so much is the number of its part.
const PART_SHIFT: u32 = 32 - PARTS.trailing_zeros();

/// Where a name lies on the circle. Of a name that is no UTF-8 it is that of the text the reference reads,
/// with U+FFFD in the place of what is wrong.
#[inline]
pub fn digest(name: &[u8]) -> u32 {
    if name.is_ascii() {
        return first_word(name);
    }
    match String::from_utf8_lossy(name) {
        Cow::Borrowed(_) => first_word(name),
        Cow::Owned(text) => first_word(text.as_bytes()),
    }
}

/// The points of the nodes that are up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ring {
    /// Where each lies, ascending, and whose it is.
    points: Vec<(u32, u32)>,
    /// For each part of the circle its first point, or the next one after it.
    parts: Box<[u32; PARTS]>,
}

impl Ring {
    /// The ring of some nodes, each with its number and its label, which is `host:port`. A label that comes
    /// twice counts once.
    pub fn new<'n>(nodes: impl IntoIterator<Item = (usize, &'n str)>) -> Self {
        let mut members: Vec<(usize, &str)> = Vec::new();
        for (number, label) in nodes {
            if members.iter().all(|(_, known)| *known != label) {
                members.push((number, label));
            }
        }
        let each = points_of_each(members.len());
        let mut points: Vec<(u32, u32)> = members
            .iter()
            .flat_map(|(number, label)| {
                let place = move |at| first_word(format!("{label}-{at}").as_bytes());
                (0..each).map(move |at| (place(at), *number as u32))
            })
            .collect();
        // Stable: of two points in one place the reference has the one first that was made first.
        points.sort_by_key(|(place, _)| *place);
        let mut parts = Box::new([0; PARTS]);
        for (part, first) in parts.iter_mut().enumerate() {
            let begin = (part as u32) << PART_SHIFT;
            *first = points.partition_point(|(place, _)| *place < begin) as u32;
        }
        Self { points, parts }
    }

    /// The number of the node that a digest belongs to; `None` when the ring is empty.
    #[inline]
    pub fn owner(&self, digest: u32) -> Option<usize> {
        let mut at = self.parts[(digest >> PART_SHIFT) as usize] as usize;
        while self
            .points
            .get(at)
            .is_some_and(|(place, _)| *place < digest)
        {
            at += 1;
        }
        let (_, node) = self.points.get(at).or_else(|| self.points.first())?;
        Some(*node as usize)
    }
}

/// Points of each of so many nodes: 40, but for the rounding of the reference's doubles, which makes it 39 of
/// seven nodes.
fn points_of_each(nodes: usize) -> usize {
    let share = WEIGHT / (WEIGHT * nodes as f64);
    (share * POINTS * nodes as f64).floor() as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const THREE: [&str; 3] = ["127.0.0.1:8127", "127.0.0.1:8129", "127.0.0.1:8131"];

    fn ring(labels: &[&'static str]) -> Ring {
        Ring::new(labels.iter().copied().enumerate())
    }

    #[test]
    fn three_nodes_have_the_points_of_the_reference() {
        let ring = ring(&THREE);
        assert_eq!(ring.points.len(), 120);
        let first: Vec<_> = ring.points[..3]
            .iter()
            .map(|(place, node)| (*place, THREE[*node as usize]))
            .collect();
        assert_eq!(
            first,
            [
                (18_286_208, "127.0.0.1:8129"),
                (50_919_014, "127.0.0.1:8127"),
                (52_421_221, "127.0.0.1:8131"),
            ]
        );
    }

    #[test]
    fn names_have_the_digests_and_owners_of_the_reference() {
        let ring = ring(&THREE);
        for (name, place, port) in [
            ("foo", 3_675_831_724, "8127"),
            ("bar", 421_377_335, "8129"),
            ("baz", 2_768_240_243, "8129"),
            ("a", 3_111_502_092, "8127"),
            ("gorets", 1_770_481_096, "8127"),
            ("statsd.test", 1_325_892_860, "8127"),
            ("", 3_649_838_548, "8131"),
            ("é", 2_546_851_174, "8127"),
        ] {
            assert_eq!(digest(name.as_bytes()), place, "{name}");
            let owner = ring.owner(place).expect("three nodes");
            assert!(THREE[owner].ends_with(port), "{name}");
        }
    }

    #[test]
    fn thirty_thousand_names_are_shared_out_as_by_the_reference() {
        let ring = ring(&THREE);
        let mut shares = [0; 3];
        for name in 0..30_000 {
            let owner = ring.owner(digest(format!("k{name}").as_bytes()));
            shares[owner.expect("three nodes")] += 1;
        }
        assert_eq!(shares, [11_460, 10_520, 8020]);
    }

    #[test]
    fn doubles_round_as_in_the_reference() {
        let odd: Vec<_> = (1..=30).filter(|n| points_of_each(*n) != 40).collect();
        assert_eq!(odd, [7, 14, 28]);
        assert_eq!(points_of_each(7), 39);
    }

    #[test]
    fn an_empty_ring_has_no_owner_and_a_ring_of_one_has_one() {
        assert_eq!(ring(&[]).owner(5), None);
        let one = Ring::new([(6, "a:1")]);
        assert_eq!([0, 1 << 31, u32::MAX].map(|at| one.owner(at)), [Some(6); 3]);
        assert_eq!(Ring::new([(0, "a:1"), (1, "a:1")]), Ring::new([(0, "a:1")]));
    }

    #[test]
    fn a_name_that_is_no_text_is_hashed_as_the_reference_reads_it() {
        assert_eq!(
            digest(b"a\xff\xfeb"),
            first_word("a\u{fffd}\u{fffd}b".as_bytes())
        );
        assert_eq!(digest(b"a\xe2\x82"), first_word("a\u{fffd}".as_bytes()));
    }

    proptest! {
        /// The parts only say where to begin: the owner is what a plain search finds.
        #[test]
        fn the_owner_is_the_first_point_at_or_after(
            labels in proptest::collection::hash_set("[a-z]{1,3}:[0-9]{1,4}", 1..9),
            place in any::<u32>(),
            point in any::<proptest::sample::Index>(),
        ) {
            let labels: Vec<_> = labels.into_iter().collect();
            let ring = Ring::new(labels.iter().map(String::as_str).enumerate());
            let on_a_point = ring.points[point.index(ring.points.len())].0;
            for digest in [place, on_a_point, on_a_point.wrapping_add(1), 0, u32::MAX] {
                let plain = ring.points.iter().find(|(at, _)| *at >= digest);
                let plain = plain.unwrap_or(&ring.points[0]).1 as usize;
                prop_assert_eq!(ring.owner(digest), Some(plain));
            }
        }
    }
}
