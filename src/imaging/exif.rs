//! The few EXIF fields that must follow the pixels: orientation, size, thumbnail.
//!
//! EXIF is a TIFF block: `II` or `MM`, 42, the offset of the first directory (IFD0). A directory is
//! a count, entries of 12 bytes (tag, type, count, value or offset) and the offset of the next one.
//! Values are changed in place, so everything else, maker notes included, keeps its offset.
pub(super) mod fields;
mod stamp;
mod tiff;

use std::collections::BTreeSet;
use std::io::{Read, Seek, SeekFrom};

use super::{Image, Samples};

pub(super) use stamp::{stamp, stamp_in, stamped};
use tiff::Tiff;

const NEW_SUBFILE_TYPE: u16 = 0x00FE;
const ORIENTATION: u16 = 0x0112;
const EXIF_DIRECTORY: u16 = 0x8769;
const IMAGE_WIDTH: u16 = 0x0100;
const IMAGE_HEIGHT: u16 = 0x0101;
const PIXEL_X_DIMENSION: u16 = 0xA002;
const PIXEL_Y_DIMENSION: u16 = 0xA003;

/// Bytes of an entry of a directory.
const ENTRY: usize = 12;
/// Entries of the directories of one file that are looked at: those of 50,000 pages.
const MOST_ENTRIES: usize = 1 << 20;

/// `block` without the `Exif\0\0` that some formats put before it; `None` if it is no TIFF block.
pub(super) fn normalise(block: &[u8]) -> Option<Vec<u8>> {
    let block = block.strip_prefix(b"Exif\0\0").unwrap_or(block);
    Tiff::directory(block).map(|_| block.to_vec())
}

/// The orientation 1..=8 that the block asks for; 1 where it says nothing usable.
pub(super) fn orientation(block: &[u8]) -> u8 {
    let Some((tiff, first)) = Tiff::directory(block) else { return 1 };
    let value = tiff.entry(block, first, ORIENTATION).and_then(|e| tiff.value(block, e));
    match value {
        Some(v @ 1..=8) => u8::try_from(v).unwrap_or(1),
        _ => 1,
    }
}

/// Makes the block true for pixels that are upright and `width` x `height`: orientation 1, the new
/// size, and no thumbnail (it would show the old picture, perhaps rotated).
pub(super) fn update(block: &mut [u8], width: usize, height: usize) {
    let Some((tiff, first)) = Tiff::directory(block) else { return };
    let set = |block: &mut [u8], directory, tag, value: usize| {
        let value = u32::try_from(value).unwrap_or(u32::MAX);
        if let Some(entry) = tiff.entry(block, directory, tag) {
            tiff.set(block, entry, value);
        }
    };
    set(block, first, ORIENTATION, 1);
    set(block, first, IMAGE_WIDTH, width);
    set(block, first, IMAGE_HEIGHT, height);
    let sub = tiff.entry(block, first, EXIF_DIRECTORY).and_then(|e| tiff.value(block, e));
    if let Some(sub) = sub.and_then(|v| usize::try_from(v).ok()) {
        set(block, sub, PIXEL_X_DIMENSION, width);
        set(block, sub, PIXEL_Y_DIMENSION, height);
    }
    let count = tiff.u16(block, first).map_or(0, usize::from);
    let next = first + 2 + 12 * count;
    if let Some(bytes) = block.get_mut(next..next + 4) {
        bytes.fill(0);
    }
}

/// The pages of a TIFF file, of which its directories alone are read; thumbnails and pyramid levels (marked as reduced
/// copies) do not count. A damaged chain ends where it comes back to itself, or where all directories together hold more
/// than [`MOST_ENTRIES`].
pub(super) fn pages<R: Read + Seek>(file: &mut R) -> usize {
    let mut head = [0; 8];
    let read = file.rewind().and_then(|()| file.read_exact(&mut head));
    let Some((tiff, mut at)) = read.ok().and_then(|()| Tiff::head(&head)) else { return 1 };
    let (mut pages, mut entries, mut seen) = (0, 0, BTreeSet::new());
    while entries < MOST_ENTRIES && seen.insert(at) {
        let Some((directory, next)) = directory_at(file, tiff, at) else { break };
        let kind = tiff.entry(&directory, 0, NEW_SUBFILE_TYPE);
        let reduced = kind.and_then(|e| tiff.value(&directory, e)).is_some_and(|v| v & 1 == 1);
        pages += usize::from(!reduced);
        // An empty one is work, too.
        entries += 1 + directory.len() / ENTRY;
        match next {
            Some(next) if next > 0 => at = next,
            _ => break,
        }
    }
    pages
}

/// The directory at `at`, or what there is of it, and where the next one is.
fn directory_at<R: Read + Seek>(
    file: &mut R,
    tiff: Tiff,
    at: u32,
) -> Option<(Vec<u8>, Option<u32>)> {
    file.seek(SeekFrom::Start(at.into())).ok()?;
    let mut directory = vec![0; 2];
    file.read_exact(&mut directory).ok()?;
    let end = 2 + ENTRY * usize::from(tiff.u16(&directory, 0)?);
    file.take(end as u64 + 2).read_to_end(&mut directory).ok()?;
    let next = tiff.u32(&directory, end);
    Some((directory, next))
}

/// Makes XMP that repeats the orientation true for pixels that were turned upright: programs would turn them again.
pub(super) fn make_xmp_upright(xmp: &mut [u8]) {
    const NAME: &[u8] = b"tiff:Orientation";
    let mut at = 0;
    while let Some(found) = xmp[at..].windows(NAME.len()).position(|w| w == NAME) {
        at += found + NAME.len();
        // As an attribute, ="6", or as an element, >6<.
        let value = xmp[at..].iter().take(8).position(u8::is_ascii_digit);
        let between = |n: usize| xmp[at..at + n].iter().all(|b| b"=\"'> \t\r\n".contains(b));
        if let Some(n) = value.filter(|&n| n > 0 && between(n)) {
            xmp[at + n] = b'1';
        }
    }
}

/// Turns the pixels of `image` upright: undoes EXIF `orientation` 1..=8.
pub(super) fn apply_orientation(image: &mut Image, orientation: u8) {
    if !(2..=8).contains(&orientation) {
        return;
    }
    let (width, height, channels) = (image.width, image.height, image.channels());
    let turn = |samples: &Samples, channels| match samples {
        Samples::U8(v) => Samples::U8(oriented(v, width, height, channels, orientation)),
        Samples::U16(v) => Samples::U16(oriented(v, width, height, channels, orientation)),
    };
    image.samples = turn(&image.samples, channels);
    image.alpha = image.alpha.as_ref().map(|a| turn(a, 1));
    if orientation >= 5 {
        (image.width, image.height) = (height, width);
    }
}

fn oriented<T: Copy>(
    pixels: &[T],
    width: usize,
    height: usize,
    channels: usize,
    orientation: u8,
) -> Vec<T> {
    let (out_width, out_height) = if orientation >= 5 { (height, width) } else { (width, height) };
    let mut out = Vec::with_capacity(pixels.len());
    for y in 0..out_height {
        for x in 0..out_width {
            let (from_x, from_y) = match orientation {
                2 => (width - 1 - x, y),
                3 => (width - 1 - x, height - 1 - y),
                4 => (x, height - 1 - y),
                5 => (y, x),
                6 => (y, height - 1 - x),
                7 => (width - 1 - y, height - 1 - x),
                8 => (width - 1 - y, x),
                _ => (x, y),
            };
            let at = (from_y * width + from_x) * channels;
            out.extend_from_slice(&pixels[at..at + channels]);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn xmp_is_made_upright_in_both_its_forms() {
        let mut xmp =
            b"<a tiff:Orientation=\"6\" tiff:Make='8'/><tiff:Orientation>8</tiff:Orientation>"
                .to_vec();
        make_xmp_upright(&mut xmp);
        let wanted =
            "<a tiff:Orientation=\"1\" tiff:Make='8'/><tiff:Orientation>1</tiff:Orientation>";
        assert_eq!(String::from_utf8(xmp).unwrap(), wanted);
    }

    /// IFD0 with orientation 6 and a pointer to an EXIF directory with PixelXDimension, both
    /// orders.
    fn block(little: bool) -> Vec<u8> {
        let s = |v: u16| if little { v.to_le_bytes() } else { v.to_be_bytes() };
        let l = |v: u32| if little { v.to_le_bytes() } else { v.to_be_bytes() };
        let mut b = if little { b"II*\0".to_vec() } else { b"MM\0*".to_vec() };
        b.extend(l(8));
        b.extend(s(2));
        b.extend([&s(ORIENTATION)[..], &s(3), &l(1), &s(6), &s(0)].concat());
        b.extend([&s(EXIF_DIRECTORY)[..], &s(4), &l(1), &l(38)].concat());
        b.extend(l(999)); // a thumbnail directory
        b.extend(s(1));
        b.extend([&s(PIXEL_X_DIMENSION)[..], &s(3), &l(1), &s(40), &s(0)].concat());
        b.extend(l(0));
        b
    }

    #[test]
    fn fields_are_read_and_rewritten_in_both_byte_orders() {
        for little in [true, false] {
            let mut b = block(little);
            assert_eq!(orientation(&b), 6);
            let prefixed = [b"Exif\0\0", &b[..]].concat();
            assert_eq!(normalise(&prefixed).unwrap(), b);
            update(&mut b, 70000, 30);
            assert_eq!(orientation(&b), 1);
            let (tiff, first) = Tiff::directory(&b).unwrap();
            assert_eq!(tiff.u32(&b, first + 2 + 24), Some(0), "thumbnail unlinked");
            let entry = tiff.entry(&b, 38, PIXEL_X_DIMENSION).unwrap();
            assert_eq!(tiff.value(&b, entry), Some(70000));
        }
    }

    /// Counts the bytes that are read.
    struct Counted<'a>(std::io::Cursor<&'a [u8]>, usize);

    impl Read for Counted<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            let n = self.0.read(buffer)?;
            self.1 += n;
            Ok(n)
        }
    }

    impl Seek for Counted<'_> {
        fn seek(&mut self, to: SeekFrom) -> std::io::Result<u64> {
            self.0.seek(to)
        }
    }

    /// A directory of `count` entries that are zero, and of the place of the next one.
    fn directory(count: u16, next: u32) -> Vec<u8> {
        let mut directory = count.to_le_bytes().to_vec();
        directory.resize(2 + ENTRY * usize::from(count), 0);
        directory.extend(next.to_le_bytes());
        directory
    }

    #[test]
    fn a_chain_of_directories_that_comes_back_ends_there() {
        let start = [&b"II*\0"[..], &8u32.to_le_bytes()].concat();
        let counted = |bytes: &[u8]| {
            let mut file = Counted(std::io::Cursor::new(bytes), 0);
            (pages(&mut file), file.1)
        };
        // The second of two pages points to the first.
        let size = u32::try_from(directory(1, 0).len()).unwrap();
        let chain = [start.clone(), directory(1, 8 + size), directory(1, 8)].concat();
        let (found, read) = counted(&chain);
        assert_eq!(found, 2);
        assert!(read <= chain.len(), "{read} bytes of {} were read", chain.len());
        // One that points to itself, as large as can be.
        let itself = [start.clone(), directory(u16::MAX, 8)].concat();
        let (found, read) = counted(&itself);
        assert_eq!(found, 1);
        assert!(read <= itself.len(), "{read} bytes of {} were read", itself.len());
        // Directories that overlap: each begins four bytes behind the one before, and is as large as can be.
        let mut overlapping = start;
        overlapping.resize(1 << 20, 0xFF);
        for at in (8..408u32).step_by(4) {
            let end = usize::try_from(at).unwrap() + 2 + ENTRY * usize::from(u16::MAX);
            overlapping[end..end + 4].copy_from_slice(&(at + 4).to_le_bytes());
        }
        let read = counted(&overlapping).1;
        assert!(read < 2 * ENTRY * MOST_ENTRIES, "{read} bytes were read");
    }

    #[test]
    fn damaged_blocks_are_left_alone() {
        for cut in 0..block(true).len() {
            let mut b = block(true)[..cut].to_vec();
            let _ = orientation(&b);
            update(&mut b, 1, 1);
        }
        let mut far = b"II*\0\xff\xff\xff\xff".to_vec();
        update(&mut far, 1, 1);
        assert!(normalise(&far).is_none());
    }

    #[test]
    fn orientations_undo_what_a_camera_does() {
        // 1 2 3   of 3 x 2 pixels
        // 4 5 6
        let expected: [(u8, [u8; 6]); 8] = [
            (1, [1, 2, 3, 4, 5, 6]),
            (2, [3, 2, 1, 6, 5, 4]),
            (3, [6, 5, 4, 3, 2, 1]),
            (4, [4, 5, 6, 1, 2, 3]),
            (5, [1, 4, 2, 5, 3, 6]),
            (6, [4, 1, 5, 2, 6, 3]),
            (7, [6, 3, 5, 2, 4, 1]),
            (8, [3, 6, 2, 5, 1, 4]),
        ];
        for (orientation, pixels) in expected {
            let out = oriented(&[1u8, 2, 3, 4, 5, 6], 3, 2, 1, orientation);
            assert_eq!(out, pixels, "orientation {orientation}");
        }
    }
}
