//! SHA-256 (FIPS 180-4). Also part of the build script, which must not depend on much.

/// The 64 hexadecimal digits that `sha256sum` prints.
pub fn hex(data: &[u8]) -> String {
    digest(data).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The hash of `data`.
pub fn digest(data: &[u8]) -> [u8; 32] {
    let (k, mut state) = constants();
    let mut padded = data.chunks_exact(64).remainder().to_vec();
    padded.push(0x80);
    padded.resize(padded.len().next_multiple_of(64), 0);
    if data.len() % 64 > 55 {
        padded.resize(padded.len() + 64, 0);
    }
    let end = padded.len();
    padded[end - 8..].copy_from_slice(&(8 * data.len() as u64).to_be_bytes());
    for block in data.chunks_exact(64).chain(padded.chunks_exact(64)) {
        compress(&mut state, block, &k);
    }
    let mut out = [0; 32];
    for (bytes, word) in out.chunks_exact_mut(4).zip(state) {
        bytes.copy_from_slice(&word.to_be_bytes());
    }
    out
}

fn compress(state: &mut [u32; 8], block: &[u8], k: &[u32; 64]) {
    let mut w = [0u32; 64];
    for (word, bytes) in w.iter_mut().zip(block.chunks_exact(4)) {
        *word = bytes.iter().fold(0, |word, &byte| word << 8 | u32::from(byte));
    }
    for i in 16..64 {
        let (a, b) = (w[i - 15], w[i - 2]);
        let s0 = a.rotate_right(7) ^ a.rotate_right(18) ^ (a >> 3);
        let s1 = b.rotate_right(17) ^ b.rotate_right(19) ^ (b >> 10);
        w[i] = w[i - 16].wrapping_add(s0).wrapping_add(w[i - 7]).wrapping_add(s1);
    }
    let [mut a, mut b, mut c, mut d, mut e, mut f, mut g, mut h] = *state;
    for (&k, &w) in k.iter().zip(&w) {
        let s1 = e.rotate_right(6) ^ e.rotate_right(11) ^ e.rotate_right(25);
        let choice = (e & f) ^ (!e & g);
        let t1 = h.wrapping_add(s1).wrapping_add(choice).wrapping_add(k).wrapping_add(w);
        let s0 = a.rotate_right(2) ^ a.rotate_right(13) ^ a.rotate_right(22);
        let majority = (a & b) ^ (a & c) ^ (b & c);
        let t2 = s0.wrapping_add(majority);
        (h, g, f, e, d, c, b, a) = (g, f, e, d.wrapping_add(t1), c, b, a, t1.wrapping_add(t2));
    }
    for (s, v) in state.iter_mut().zip([a, b, c, d, e, f, g, h]) {
        *s = s.wrapping_add(v);
    }
}

/// The first 32 bits of the fractions of the primes' cube roots, and of the first eight's square roots.
fn constants() -> ([u32; 64], [u32; 8]) {
    let mut primes = (2u64..).filter(|n| (2..*n).take_while(|d| d * d <= *n).all(|d| n % d != 0));
    let mut k = [0; 64];
    let mut start = [0; 8];
    for i in 0..64 {
        let prime = u128::from(primes.next().unwrap_or_default());
        k[i] = root_fraction(prime << 96, |r| r * r * r);
        if i < 8 {
            start[i] = root_fraction(prime << 64, |r| r * r);
        }
    }
    (k, start)
}

/// The low 32 bits of the largest `r` whose `power` is at most `n`.
#[allow(clippy::cast_possible_truncation)] // The low bits are what is asked for.
fn root_fraction(n: u128, power: impl Fn(u128) -> u128) -> u32 {
    let mut root = 0u128;
    for bit in (0..40).rev() {
        let next = root | 1 << bit;
        if power(next) <= n {
            root = next;
        }
    }
    root as u32
}
