//! MD5, as far as a ring needs it: the first word of the digest (RFC 1321).
//!
//! Sixty lines of our own rather than a crate: the ring of the reference is made of MD5, and nothing here is
//! kept secret or safe by it.

/// Bytes hashed at a time.
const BLOCK: usize = 64;

/// Rotations of the four rounds.
const ROTATIONS: [[u32; 4]; 4] = [
    [7, 12, 17, 22],
    [5, 9, 14, 20],
    [4, 11, 16, 23],
    [6, 10, 15, 21],
];

/// `floor(2^32 * abs(sin(n + 1)))` for each step, as the RFC lists them.
#[rustfmt::skip]
const SINES: [u32; 64] = [
    0xd76a_a478, 0xe8c7_b756, 0x2420_70db, 0xc1bd_ceee, 0xf57c_0faf, 0x4787_c62a, 0xa830_4613, 0xfd46_9501,
    0x6980_98d8, 0x8b44_f7af, 0xffff_5bb1, 0x895c_d7be, 0x6b90_1122, 0xfd98_7193, 0xa679_438e, 0x49b4_0821,
    0xf61e_2562, 0xc040_b340, 0x265e_5a51, 0xe9b6_c7aa, 0xd62f_105d, 0x0244_1453, 0xd8a1_e681, 0xe7d3_fbc8,
    0x21e1_cde6, 0xc337_07d6, 0xf4d5_0d87, 0x455a_14ed, 0xa9e3_e905, 0xfcef_a3f8, 0x676f_02d9, 0x8d2a_4c8a,
    0xfffa_3942, 0x8771_f681, 0x6d9d_6122, 0xfde5_380c, 0xa4be_ea44, 0x4bde_cfa9, 0xf6bb_4b60, 0xbebf_bc70,
    0x289b_7ec6, 0xeaa1_27fa, 0xd4ef_3085, 0x0488_1d05, 0xd9d4_d039, 0xe6db_99e5, 0x1fa2_7cf8, 0xc4ac_5665,
    0xf429_2244, 0x432a_ff97, 0xab94_23a7, 0xfc93_a039, 0x655b_59c3, 0x8f0c_cc92, 0xffef_f47d, 0x8584_5dd1,
    0x6fa8_7e4f, 0xfe2c_e6e0, 0xa301_4314, 0x4e08_11a1, 0xf753_7e82, 0xbd3a_f235, 0x2ad7_d2bb, 0xeb86_d391,
];

/// The first four bytes of the digest, as a little-endian number.
pub fn first_word(message: &[u8]) -> u32 {
    let mut state = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476];
    let (blocks, rest) = message.as_chunks::<BLOCK>();
    blocks.iter().for_each(|block| take(&mut state, block));
    // A one, zeros, and the length in bits; in a block of their own where they do not fit behind the rest.
    let mut last = [0; BLOCK];
    last[..rest.len()].copy_from_slice(rest);
    last[rest.len()] = 0x80;
    if rest.len() >= BLOCK - 8 {
        take(&mut state, &last);
        last = [0; BLOCK];
    }
    let bits = (message.len() as u64).wrapping_mul(8);
    last[BLOCK - 8..].copy_from_slice(&bits.to_le_bytes());
    take(&mut state, &last);
    state[0]
}

fn take(state: &mut [u32; 4], block: &[u8; BLOCK]) {
    let (words, _) = block.as_chunks::<4>();
    let words: [u32; 16] = std::array::from_fn(|at| u32::from_le_bytes(words[at]));
    let [mut a, mut b, mut c, mut d] = *state;
    for step in 0..64 {
        let (mixed, word) = match step / 16 {
            0 => (b & c | !b & d, step),
            1 => (b & d | c & !d, 5 * step + 1),
            2 => (b ^ c ^ d, 3 * step + 5),
            _ => (c ^ (b | !d), 7 * step),
        };
        let sum = a
            .wrapping_add(mixed)
            .wrapping_add(SINES[step])
            .wrapping_add(words[word % 16]);
        let rotated = sum.rotate_left(ROTATIONS[step / 16][step % 4]);
        (a, d, c, b) = (d, c, b, b.wrapping_add(rotated));
    }
    for (sum, part) in state.iter_mut().zip([a, b, c, d]) {
        *sum = sum.wrapping_add(part);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The test suite of the RFC, and the lengths around the ends of blocks, as `md5sum` has them.
    #[test]
    fn digests_begin_as_published() {
        let x = |count| "x".repeat(count);
        for (message, expected) in [
            (String::new(), "d41d8cd9"),
            ("a".into(), "0cc175b9"),
            ("abc".into(), "90015098"),
            ("message digest".into(), "f96b697d"),
            ("abcdefghijklmnopqrstuvwxyz".into(), "c3fcd3d7"),
            (
                "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789".into(),
                "d174ab98",
            ),
            ("1234567890".repeat(8), "57edf4a2"),
            (x(55), "04364420"),
            (x(56), "668a72d5"),
            (x(63), "7dc2ca20"),
            (x(64), "c1bb4f81"),
            (x(65), "1bc93205"),
            (x(200), "30a83621"),
        ] {
            let found: String = first_word(message.as_bytes())
                .to_le_bytes()
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect();
            assert_eq!(found, expected, "{message:?}");
        }
    }
}
