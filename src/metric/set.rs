//! NOUN: the distinct members of one set in one interval.
//!
//! A table of its own: a member is 24 bytes, found by one look at memory and not by two, and a worker that
//! has many to look for can have all of their places brought near at once ([`Members::place`]).

use foldhash::fast::RandomState;
use std::fmt;
use std::hash::BuildHasher;
use std::ops::Deref;

/// Bytes a member holds in itself.
const SHORT: usize = 22;

/// The bytes of a member. Most are short, and a short one is found without a second look at memory and kept
/// without asking for any.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Member(Held);

/// Equal bytes are held equally: none that are short are held as long.
#[derive(Clone, PartialEq, Eq, Hash)]
enum Held {
    /// Zeros past `len`.
    Short {
        len: u8,
        bytes: [u8; SHORT],
    },
    Long(Box<[u8]>),
}

const _: () = assert!(size_of::<Option<Member>>() == 24);

impl Member {
    /// Bytes on the heap.
    pub fn heap_bytes(&self) -> usize {
        match &self.0 {
            Held::Short { .. } => 0,
            Held::Long(bytes) => bytes.len(),
        }
    }
}

impl From<&[u8]> for Member {
    #[inline]
    fn from(bytes: &[u8]) -> Self {
        if bytes.len() > SHORT {
            return Self(Held::Long(bytes.into()));
        }
        let mut short = [0; SHORT];
        short[..bytes.len()].copy_from_slice(bytes);
        Self(Held::Short {
            len: bytes.len() as u8,
            bytes: short,
        })
    }
}

impl Deref for Member {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        match &self.0 {
            Held::Short { len, bytes } => &bytes[..usize::from(*len)],
            Held::Long(bytes) => bytes,
        }
    }
}

impl PartialOrd for Member {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Member {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (**self).cmp(other)
    }
}

impl fmt::Debug for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.escape_ascii().to_string())
    }
}

/// What became of a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Insertion {
    /// It was not there, and is now.
    New,
    /// It was there.
    Known,
    /// It is not there, since the set has as many as it may.
    NoRoom,
}

/// Members a set may have unless it is told otherwise (`maxSetMembers`): some 4 MB, and more than a set of
/// the visitors of a busy site has in an interval of ten seconds.
pub const MEMBERS_MAX: usize = 100_000;

/// Bytes on the heap that members may have on the average, where their number has a limit.
const LONG_MEAN: usize = 256;

/// Places of a set that has one member.
const PLACES_MIN: usize = 8;

/// Distinct members, as the bytes that were sent. Open addressing, hashed with a seed of its own, so that no
/// sender can aim at one place.
#[derive(Clone, Default)]
pub struct Members {
    /// None, or a power of two of them, at most five in eight in use.
    places: Vec<Option<Member>>,
    used: usize,
    /// Bytes of members that are long.
    long: usize,
    /// How many there will likely be.
    expected: usize,
    /// How many there were in the interval before.
    before: usize,
    state: RandomState,
}

impl Members {
    /// Those of the next interval: none yet, and no memory. The first of them makes room for as many as there
    /// are now, for there is no need to grow to it step by step; or for as many as there were in the interval
    /// before, when that is less, so that one odd interval is not paid for in the next. A set whose name has
    /// the hour in it is not sent again.
    pub fn emptied(&self) -> Self {
        Self {
            expected: self.used.min(self.before),
            before: self.used,
            ..Self::default()
        }
    }

    /// How many there are.
    #[inline]
    pub fn len(&self) -> usize {
        self.used
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.used == 0
    }

    /// The hash of a member in this set, and no other.
    #[inline]
    pub fn hash(&self, member: &Member) -> u64 {
        self.state.hash_one(member)
    }

    /// The place where a member of this hash is looked for first.
    #[inline]
    pub fn place(&self, hash: u64) -> Option<&Option<Member>> {
        self.places.get(self.first(hash))
    }

    #[inline]
    fn first(&self, hash: u64) -> usize {
        hash as usize & self.places.len().wrapping_sub(1)
    }

    /// Takes a member in. Returns whether it was not there.
    pub fn insert(&mut self, member: Member) -> bool {
        let hash = self.hash(&member);
        self.insert_hashed(member, hash, usize::MAX) == Insertion::New
    }

    /// The same for a member whose hash in this set is known, as long as there are fewer than `most`.
    #[inline]
    pub fn insert_hashed(&mut self, member: Member, hash: u64, most: usize) -> Insertion {
        // Before the look: a set that is known whole is looked at far oftener than it grows.
        if self.used * 8 >= self.places.len() * 5 {
            self.grow();
        }
        let at = self.find(&member, hash);
        let place = &mut self.places[at];
        if place.is_some() {
            return Insertion::Known;
        }
        let bytes = member.heap_bytes();
        if self.used >= most || bytes > 0 && self.long >= most.saturating_mul(LONG_MEAN) {
            return Insertion::NoRoom;
        }
        *place = Some(member);
        self.used += 1;
        self.long += bytes;
        Insertion::New
    }

    /// The place that holds the member, or is to hold it. There is one that is free.
    #[inline]
    fn find(&self, member: &Member, hash: u64) -> usize {
        let mut at = self.first(hash);
        while let Some(known) = &self.places[at] {
            if known == member {
                break;
            }
            at = self.first(at as u64 + 1);
        }
        at
    }

    #[cold]
    fn grow(&mut self) {
        let places = if self.places.is_empty() {
            (self.expected * 8 / 5 + 1).next_power_of_two()
        } else {
            self.places.len() * 2
        };
        let places = places.max(PLACES_MIN);
        let before = std::mem::replace(&mut self.places, vec![None; places]);
        for member in before.into_iter().flatten() {
            let at = self.find(&member, self.hash(&member));
            self.places[at] = Some(member);
        }
    }

    /// Each of them, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Member> {
        self.places.iter().flatten()
    }

    /// Merge law: union, of at most so many. The larger one is kept, the smaller one moved into it. Returns
    /// how many found no room.
    pub fn unite(&mut self, mut other: Self, most: usize) -> u64 {
        if self.len() < other.len() {
            std::mem::swap(self, &mut other);
        }
        let mut left_out = 0;
        for member in other.places.into_iter().flatten() {
            let hash = self.hash(&member);
            let found = self.insert_hashed(member, hash, most);
            left_out += u64::from(found == Insertion::NoRoom);
        }
        left_out
    }

    /// Bytes on the heap, those of long members included, as allocators round them.
    pub fn heap_bytes(&self) -> usize {
        let long = self.iter().map(Member::heap_bytes);
        let long: usize = long.map(|bytes| bytes.next_multiple_of(16)).sum();
        self.places.capacity() * size_of::<Option<Member>>() + long
    }
}

impl FromIterator<Member> for Members {
    fn from_iter<I: IntoIterator<Item = Member>>(all: I) -> Self {
        let mut members = Self::default();
        for member in all {
            members.insert(member);
        }
        members
    }
}

/// The same members, wherever they lie.
impl PartialEq for Members {
    fn eq(&self, other: &Self) -> bool {
        let is_in_other = |member| {
            let place = other.find(member, other.hash(member));
            other.places[place].is_some()
        };
        self.len() == other.len() && self.iter().all(is_in_other)
    }
}

impl fmt::Debug for Members {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_short_member_is_held_without_memory_of_its_own() {
        let bytes = |len| Member::from(&vec![b'm'; len][..]).heap_bytes();
        assert_eq!((bytes(0), bytes(22), bytes(23)), (0, 0, 23));
    }

    #[test]
    fn one_that_ends_in_zeros_is_another() {
        let mut members = Members::default();
        for bytes in [&b""[..], b"\0", b"\0\0", b"a", b"a\0"] {
            assert!(members.insert(bytes.into()));
            assert!(!members.insert(bytes.into()));
        }
        assert_eq!(members.len(), 5);
    }

    fn insert_so_many(set: &mut Members, members: usize) {
        (0..members).for_each(|n| assert!(set.insert(n.to_string().as_bytes().into())));
    }

    #[test]
    fn room_for_as_many_as_there_were_twice_is_room_enough() {
        for members in [1, 5, 6, 640, 641, 1000] {
            let mut set = Members::default();
            for _ in 0..2 {
                insert_so_many(&mut set, members);
                set = set.emptied();
                assert_eq!(set.heap_bytes(), 0);
            }
            insert_so_many(&mut set, 1);
            let places = set.places.len();
            set = set.emptied();
            set.expected = members;
            insert_so_many(&mut set, members);
            assert_eq!(set.places.len(), places, "{members}");
        }
    }

    #[test]
    fn a_set_that_has_as_many_as_it_may_takes_no_other_and_knows_its_own() {
        let mut set = Members::default();
        let mut insert = |member: String, most| {
            let member = Member::from(member.as_bytes());
            let hash = set.hash(&member);
            (set.insert_hashed(member, hash, most), set.len())
        };
        for n in 0..10 {
            assert_eq!(insert(n.to_string(), 10), (Insertion::New, n + 1));
        }
        for n in 0..10 {
            assert_eq!(insert(n.to_string(), 10), (Insertion::Known, 10));
            assert_eq!(insert(format!("x{n}"), 10), (Insertion::NoRoom, 10));
        }
        // Nor may long ones take much more than so many of the usual length.
        let long = |n: usize| format!("{n}{}", "x".repeat(10_000));
        assert_eq!(insert(long(0), 20), (Insertion::New, 11));
        assert_eq!(insert(long(1), 20), (Insertion::NoRoom, 11));
        assert_eq!(insert("short".into(), 20), (Insertion::New, 12));
    }

    #[test]
    fn a_union_has_no_more_members_than_it_may() {
        let members = |range: std::ops::Range<u32>| {
            let all = range.map(|n| Member::from(n.to_string().as_bytes()));
            all.collect::<Members>()
        };
        for (mut one, other) in [
            (members(0..60), members(40..90)),
            (members(40..90), members(0..60)),
        ] {
            assert_eq!(one.clone().unite(other.clone(), 90), 0);
            assert_eq!(one.unite(other, 80), 10);
            assert_eq!(one.len(), 80);
        }
    }

    /// Members that lie in one place for whoever hashes with a seed that is known.
    #[test]
    fn members_that_collide_for_who_knows_another_seed_do_not_here() {
        use foldhash::fast::FixedState;
        const MEMBERS: usize = 400;
        let known = FixedState::with_seed(7);
        let all = (0_u64..).map(|n| Member::from(format!("{n:x}").as_bytes()));
        let colliding = all.filter(|member| known.hash_one(member) & 1023 == 0);
        let colliding: Vec<_> = colliding.take(MEMBERS).collect();
        let looks = |members: &Members, hash: &dyn Fn(&Member) -> u64, member| {
            let (first, at) = (
                members.first(hash(member)),
                members.find(member, members.hash(member)),
            );
            (at.wrapping_sub(first) & (members.places.len() - 1)) + 1
        };
        let members: Members = colliding.iter().cloned().collect();
        assert_eq!(members.places.len(), 1024);
        let hash = |member: &Member| members.hash(member);
        let all: usize = colliding.iter().map(|it| looks(&members, &hash, it)).sum();
        // Four in ten places are in use: one look and a third is the mean.
        assert!(all < MEMBERS * 2, "{all}");
        // In the place where they would all be looked for, few are.
        let of_known = |member: &&Member| members.first(hash(member)) == 0;
        assert!(colliding.iter().filter(of_known).count() < 12);
    }

    #[test]
    fn one_odd_interval_is_not_paid_for_in_the_next() {
        let mut set = Members::default();
        for (members, room) in [(3, 8), (1000, 2048), (3, 8), (3, 8)] {
            insert_so_many(&mut set, members);
            assert_eq!(set.places.len(), room, "{members}");
            set = set.emptied();
        }
    }

    proptest! {
        /// A set of the standard library is the twin.
        #[test]
        fn members_are_those_of_a_plain_set(
            one in proptest::collection::vec("[ab]{0,4}|[a-c]{20,30}", 0..200),
            other in proptest::collection::vec("[ab]{0,4}|[a-c]{20,30}", 0..200),
        ) {
            let mut members = Members::default();
            let mut twin = BTreeSet::new();
            for text in &one {
                let fresh = twin.insert(text.as_bytes().to_vec());
                prop_assert_eq!(members.insert(text.as_bytes().into()), fresh);
                prop_assert_eq!(members.len(), twin.len());
            }
            let others: Members = other.iter().map(|text| text.as_bytes().into()).collect();
            let mut united = members.clone();
            united.unite(others.clone(), usize::MAX);
            let mut backwards = others;
            backwards.unite(members.clone(), usize::MAX);
            prop_assert_eq!(&united, &backwards);
            prop_assert_eq!(united == members, other.iter().all(|text| twin.contains(text.as_bytes())));
            twin.extend(other.iter().map(|text| text.as_bytes().to_vec()));
            let mut all: Vec<_> = united.iter().map(|member| member.to_vec()).collect();
            all.sort();
            prop_assert_eq!(all, twin.into_iter().collect::<Vec<_>>());
        }
    }
}
