//! How coarse a lossy WebP is, by the head of its VP8 frame (RFC 6386, sections 9.2 to 9.6 and 7.3).

/// The quality, 1..=100 on the scale of the Independent JPEG Group, of the JPEG that is as far from its original as a
/// lossy WebP with the same quantiser; none of other files.
pub(super) fn quality(file: &[u8]) -> Option<f32> {
    let index = f32::from(base_index(frame(file)?)?);
    let (least, most) = (NEAREST[0], NEAREST[NEAREST.len() - 1]);
    let between = NEAREST.windows(2).find(|pair| index < pair[1].0);
    Some(between.map_or(most.1, |pair| {
        let share = (index.max(least.0) - pair[0].0) / (pair[1].0 - pair[0].0);
        pair[0].1 + share * (pair[1].1 - pair[0].1)
    }))
}

/// Quantisers of libwebp at quality 98, 95, 90, 80, 70, 60, 50, 40, 30, 20, 10 and 5, and the JPEG with the same PSNR
/// of luma: medians over 72 photographs (Kodak24 in three sizes).
const NEAREST: [(f32, f32); 12] = [
    (2.0, 97.0),
    (6.0, 96.0),
    (12.0, 93.0),
    (27.0, 85.0),
    (39.0, 76.0),
    (45.0, 71.0),
    (52.0, 64.0),
    (59.0, 55.0),
    (68.0, 40.0),
    (78.0, 29.0),
    (92.0, 18.0),
    (102.0, 14.0),
];

/// The VP8 frame of a WebP file.
fn frame(file: &[u8]) -> Option<&[u8]> {
    if file.get(8..12)? != b"WEBP" {
        return None;
    }
    let mut at = 12usize;
    loop {
        let [a, b, c, d, len @ ..] = *file.get(at..)?.first_chunk::<8>()?;
        let len = usize::try_from(u32::from_le_bytes(len)).ok()?;
        let data = file.get(at + 8..)?;
        if [a, b, c, d] == *b"VP8 " {
            return Some(&data[..len.min(data.len())]);
        }
        // Chunks begin at even places.
        at = at.checked_add(8)?.checked_add(len)?.checked_add(len % 2)?;
    }
}

/// The index of the quantiser from which those of all segments and coefficients are told, 0 (fine) to 127.
fn base_index(frame: &[u8]) -> Option<u8> {
    // A key frame, its start code, and both sides.
    let key = frame.first()? & 1 == 0 && frame.get(3..6)? == [0x9D, 0x01, 0x2A];
    let mut bits = Bits::new(frame.get(10..).filter(|_| key)?);
    bits.skip(2); // Colour space, clamping.
    if bits.flag() {
        let (map, data) = (bits.flag(), bits.flag());
        if data {
            bits.skip(1);
            // Quantisers and filters of four segments, each with its sign.
            [7, 7, 7, 7, 6, 6, 6, 6].into_iter().for_each(|len| bits.optional(len + 1));
        }
        if map {
            [8; 3].into_iter().for_each(|len| bits.optional(len));
        }
    }
    bits.skip(1 + 6 + 3); // The loop filter.
    if bits.flag() && bits.flag() {
        [6; 8].into_iter().for_each(|len| bits.optional(len + 1));
    }
    bits.skip(2); // Partitions.
    let index = bits.number(7);
    // Past the end all is 0, which would be a fine quantiser.
    (!bits.ended).then_some(index)
}

/// Bits of VP8's arithmetic coder, each as likely 0 as 1.
struct Bits<'a> {
    bytes: std::slice::Iter<'a, u8>,
    value: u32,
    range: u32,
    /// How often `value` was shifted since a byte went in.
    shifts: u32,
    ended: bool,
}

impl<'a> Bits<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        let mut bits = Self { bytes: bytes.iter(), value: 0, range: 255, shifts: 0, ended: false };
        bits.value = bits.byte() << 8;
        bits.value |= bits.byte();
        bits
    }

    fn byte(&mut self) -> u32 {
        let byte = self.bytes.next();
        self.ended |= byte.is_none();
        byte.copied().map_or(0, u32::from)
    }

    fn flag(&mut self) -> bool {
        let split = 1 + (((self.range - 1) * 128) >> 8);
        let one = self.value >= split << 8;
        if one {
            self.range -= split;
            self.value -= split << 8;
        } else {
            self.range = split;
        }
        while self.range < 128 {
            self.value <<= 1;
            self.range <<= 1;
            self.shifts += 1;
            if self.shifts == 8 {
                self.shifts = 0;
                self.value |= self.byte();
            }
        }
        one
    }

    fn number(&mut self, len: u32) -> u8 {
        (0..len).fold(0, |number, _| number << 1 | u8::from(self.flag()))
    }

    fn skip(&mut self, len: u32) {
        for _ in 0..len {
            self.flag();
        }
    }

    /// Skips what a flag says is there.
    fn optional(&mut self, len: u32) {
        if self.flag() {
            self.skip(len);
        }
    }
}

#[cfg(test)]
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // Made-up pixels.
mod tests {
    use super::*;
    use crate::imaging::lossy;

    fn file(quality: u8) -> Vec<u8> {
        let value =
            |i: usize| (128.0 + 90.0 * (i as f32 * 0.37).sin() * (i as f32 * 0.011).cos()) as u8;
        lossy::webp(&(0..64 * 48 * 3).map(value).collect::<Vec<_>>(), 64, 48, quality).unwrap()
    }

    #[test]
    fn the_quantiser_of_a_webp_is_read() {
        let indices: Vec<u8> =
            (1..=20).map(|q| base_index(frame(&file(5 * q)).unwrap()).unwrap()).collect();
        assert!(indices.windows(2).all(|pair| pair[0] > pair[1]), "{indices:?}");
        assert!(indices[0] > 80 && indices[19] == 0, "{indices:?}");
        let found: Vec<f32> = (1..=20).map(|q| quality(&file(5 * q)).unwrap()).collect();
        assert!(found.is_sorted() && found[0] < 30.0 && found[19] >= 97.0, "{found:?}");
    }

    #[test]
    fn files_cut_short_and_others_have_none() {
        let whole = file(30);
        assert_eq!(quality(b"RIFF\0\0\0\0WEBPVP8L\x08\0\0\0/1234567"), None);
        for cut in 0..32 {
            assert_eq!(quality(&whole[..cut]), None, "{cut} bytes");
        }
    }
}
