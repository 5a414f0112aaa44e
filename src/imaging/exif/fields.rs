//! The fields of an EXIF block or a TIFF file taken out of it, to be written elsewhere.
//!
//! ```text
//! main   IFD0, only what describes the picture ([`DESCRIBES`]): a TIFF file has its own size, strips, ...
//! exif   the directory that tag 0x8769 points to, gps that of 0x8825
//! ```
//! Values are kept in little-endian order whatever the file's. Maker notes with offsets inside them lose
//! those when the block is put together anew.
use super::tiff::Tiff;

const X_RESOLUTION: u16 = 0x011A;
const Y_RESOLUTION: u16 = 0x011B;
const RESOLUTION_UNIT: u16 = 0x0128;
const EXIF_DIRECTORY: u16 = 0x8769;
const GPS_DIRECTORY: u16 = 0x8825;
const INTEROPERABILITY: u16 = 0xA005;
const XMP: u16 = 0x02BC;

/// Fields of IFD0 that tell of the picture and not of its storage: names of document, image, maker, model,
/// software, date, artist, computer, copyright, ratings and Windows' titles.
const DESCRIBES: &[u16] = &[
    0x010D, 0x010E, 0x010F, 0x0110, 0x0131, 0x0132, 0x013B, 0x013C, 0x4746, 0x4749, 0x8298, 0x9C9B,
    0x9C9C, 0x9C9D, 0x9C9E, 0x9C9F,
];

/// One field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::imaging) struct Field {
    pub(in crate::imaging) tag: u16,
    /// The type of TIFF: 1 BYTE, 2 ASCII, 3 SHORT, ...
    pub(in crate::imaging) kind: u16,
    /// In little-endian order.
    pub(in crate::imaging) value: Vec<u8>,
}

/// Fields by directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::imaging) struct Fields {
    pub(in crate::imaging) main: Vec<Field>,
    pub(in crate::imaging) exif: Vec<Field>,
    pub(in crate::imaging) gps: Vec<Field>,
}

/// Bytes of a unit that the byte order turns, and of a value.
pub(in crate::imaging) fn sizes(kind: u16) -> Option<(usize, usize)> {
    match kind {
        1 | 2 | 6 | 7 => Some((1, 1)),
        3 | 8 => Some((2, 2)),
        4 | 9 | 11 | 13 => Some((4, 4)),
        5 | 10 => Some((4, 8)),
        12 => Some((8, 8)),
        _ => None,
    }
}

impl Fields {
    /// The fields of a block or file; none if it is no TIFF.
    pub(in crate::imaging) fn of(file: &[u8]) -> Option<Self> {
        let (tiff, first) = Tiff::directory(file)?;
        // Directories may say that all fields share one large value.
        let mut left = file.len();
        let pointed = |tag| {
            let at = tiff.entry(file, first, tag).and_then(|e| tiff.value(file, e))?;
            usize::try_from(at).ok()
        };
        let mut directory = |at: Option<usize>, wanted: &dyn Fn(u16) -> bool| match at {
            Some(at) => tiff.fields(file, at, wanted, &mut left),
            None => Vec::new(),
        };
        let all = &|tag| tag != INTEROPERABILITY;
        Some(Self {
            main: directory(Some(first), &|tag| DESCRIBES.contains(&tag)),
            exif: directory(pointed(EXIF_DIRECTORY), all),
            gps: directory(pointed(GPS_DIRECTORY), all),
        })
    }

    /// Whether there is nothing to tell.
    pub(in crate::imaging) fn is_empty(&self) -> bool {
        self.main.is_empty() && self.exif.is_empty() && self.gps.is_empty()
    }

    /// The fields as an EXIF block, with `density` in pixels per metre.
    pub(in crate::imaging) fn block(&self, density: Option<(u32, u32)>) -> Vec<u8> {
        let mut main = self.main.clone();
        main.extend(density.into_iter().flat_map(density_fields));
        let pointer = |tag, at: usize| {
            let at = u32::try_from(at).unwrap_or(u32::MAX);
            Field { tag, kind: 4, value: at.to_le_bytes().to_vec() }
        };
        let count = |fields: &[Field]| usize::from(!fields.is_empty());
        let pointers = count(&self.exif) + count(&self.gps);
        let mut end = 8 + length(&main) + 12 * pointers;
        for (tag, fields) in [(EXIF_DIRECTORY, &self.exif), (GPS_DIRECTORY, &self.gps)] {
            if !fields.is_empty() {
                main.push(pointer(tag, end));
                end += length(fields);
            }
        }
        let mut block = b"II*\0\x08\0\0\0".to_vec();
        for fields in [&main, &self.exif, &self.gps].into_iter().filter(|f| !f.is_empty()) {
            append(fields, &mut block);
        }
        block
    }
}

/// Pixels per metre as fields: per inch, in thousandths.
fn density_fields((x, y): (u32, u32)) -> [Field; 3] {
    let ratio = |tag, metre: u32| {
        let thousandths = u32::try_from((u64::from(metre) * 254 + 5) / 10).unwrap_or(u32::MAX);
        let value = [thousandths.to_le_bytes(), 1000u32.to_le_bytes()].concat();
        Field { tag, kind: 5, value }
    };
    let inches = Field { tag: RESOLUTION_UNIT, kind: 3, value: 2u16.to_le_bytes().to_vec() };
    [ratio(X_RESOLUTION, x), ratio(Y_RESOLUTION, y), inches]
}

/// Bytes of a directory with its values.
fn length(fields: &[Field]) -> usize {
    let far = |f: &Field| if f.value.len() > 4 { f.value.len().next_multiple_of(2) } else { 0 };
    6 + 12 * fields.len() + fields.iter().map(far).sum::<usize>()
}

/// Appends a directory, in the order of its tags, to `block`, which begins the file.
fn append(fields: &[Field], block: &mut Vec<u8>) {
    let mut fields: Vec<&Field> = fields.iter().collect();
    fields.sort_by_key(|f| f.tag);
    let short = |v: usize| u16::try_from(v).unwrap_or(u16::MAX).to_le_bytes();
    let long = |v: usize| u32::try_from(v).unwrap_or(u32::MAX).to_le_bytes();
    let mut far = Vec::new();
    let values = block.len() + 6 + 12 * fields.len();
    block.extend(short(fields.len()));
    for field in fields {
        let size = sizes(field.kind).map_or(1, |(_, size)| size);
        block.extend(field.tag.to_le_bytes());
        block.extend(field.kind.to_le_bytes());
        block.extend(long(field.value.len() / size));
        if field.value.len() <= 4 {
            block.extend(&field.value);
            block.extend(std::iter::repeat_n(0, 4 - field.value.len()));
        } else {
            block.extend(long(values + far.len()));
            far.extend(&field.value);
            far.extend(std::iter::repeat_n(0, field.value.len() % 2));
        }
    }
    block.extend([0; 4]);
    block.append(&mut far);
}

impl Tiff {
    /// The wanted fields of the directory at `directory`; together their values take at most `left` bytes.
    fn fields(
        self,
        file: &[u8],
        directory: usize,
        wanted: &dyn Fn(u16) -> bool,
        left: &mut usize,
    ) -> Vec<Field> {
        let count = self.u16(file, directory).map_or(0, usize::from);
        let mut fields: Vec<Field> = Vec::new();
        for at in (0..count).map(|i| directory + 2 + 12 * i) {
            let Some(field) = self.field(file, at) else { continue };
            let known = fields.iter().any(|f| f.tag == field.tag);
            if known || !wanted(field.tag) || field.value.len() > *left {
                continue;
            }
            *left -= field.value.len();
            fields.push(field);
        }
        fields
    }

    /// The field whose entry is at `at`, if it lies inside the file.
    fn field(self, file: &[u8], at: usize) -> Option<Field> {
        let (tag, kind) = (self.u16(file, at)?, self.u16(file, at + 2)?);
        let (unit, size) = sizes(kind)?;
        let len = size.checked_mul(usize::try_from(self.u32(file, at + 4)?).ok()?)?;
        let start = match len {
            0..=4 => at + 8,
            _ => usize::try_from(self.u32(file, at + 8)?).ok()?,
        };
        let mut value = file.get(start..start.checked_add(len)?)?.to_vec();
        if !self.little {
            value.chunks_exact_mut(unit).for_each(<[u8]>::reverse);
        }
        Some(Field { tag, kind, value })
    }

    /// The field `tag` of the directory at `directory`.
    fn find(self, file: &[u8], directory: usize, tag: u16) -> Option<Field> {
        self.field(file, self.entry(file, directory, tag)?)
    }
}

/// Pixels per metre that the block or file says.
pub(in crate::imaging) fn density(file: &[u8]) -> Option<(u32, u32)> {
    let (tiff, first) = Tiff::directory(file)?;
    let unit = tiff.entry(file, first, RESOLUTION_UNIT).and_then(|e| tiff.value(file, e));
    let per_metre = match unit.unwrap_or(2) {
        2 => 1.0 / 0.0254,
        3 => 100.0,
        _ => return None,
    };
    let side = |tag| {
        let field = tiff.find(file, first, tag).filter(|f| f.kind == 5)?;
        let part = |at| Some(u32::from_le_bytes(field.value.get(at..at + 4)?.try_into().ok()?));
        let metre = f64::from(part(0)?) / f64::from(part(4)?) * per_metre;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bounded")]
        (metre >= 0.5 && metre < f64::from(u32::MAX)).then(|| metre.round() as u32)
    };
    Some((side(X_RESOLUTION)?, side(Y_RESOLUTION)?))
}

/// XMP of a TIFF file.
pub(in crate::imaging) fn xmp(file: &[u8]) -> Option<Vec<u8>> {
    let (tiff, first) = Tiff::directory(file)?;
    tiff.find(file, first, XMP).map(|f| f.value).filter(|v| !v.is_empty())
}

/// Whether the colours of a TIFF file are multiplied by their alpha (its `ExtraSamples` begin with 1).
pub(in crate::imaging) fn is_premultiplied(file: &[u8]) -> bool {
    let extra = Tiff::directory(file).and_then(|(tiff, first)| tiff.find(file, first, 0x0152));
    let extra = extra.filter(|f| f.kind == 3);
    extra.is_some_and(|f| f.value.first_chunk().is_some_and(|&v| u16::from_le_bytes(v) == 1))
}

/// How a TIFF file stores its pixels, in words: for one that cannot be read.
pub(in crate::imaging) fn storage(file: &[u8]) -> Option<String> {
    let (tiff, first) = Tiff::directory(file)?;
    let number = |tag, usual: u16| {
        let field = tiff.find(file, first, tag).filter(|f| f.kind == 3);
        field.and_then(|f| Some(u16::from_le_bytes(*f.value.first_chunk()?))).unwrap_or(usual)
    };
    let (bits, channels) = (number(0x0102, 1), number(0x0115, 1));
    let sample = match number(0x0153, 1) {
        2 => "signed",
        3 => "floating-point",
        5 | 6 => "complex",
        _ => "unsigned",
    };
    let colors = match number(0x0106, 0) {
        0 | 1 => "gray",
        2 => "RGB",
        3 => "a palette",
        4 => "a transparency mask",
        5 => "CMYK",
        6 => "YCbCr",
        8..=10 => "Lab",
        _ => "colours of another kind",
    };
    let packed = match number(0x0103, 1) {
        6 | 7 => ", packed as JPEG",
        _ => "",
    };
    let channels = if channels == 1 { "1 channel".into() } else { format!("{channels} channels") };
    Some(format!("{channels} of {bits}-bit {sample} samples, {colors}{packed}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields() -> Fields {
        let ascii = |tag, text: &[u8]| Field { tag, kind: 2, value: text.to_vec() };
        let short = Field { tag: 0x8827, kind: 3, value: 400u16.to_le_bytes().to_vec() };
        let ratio = Field { tag: 0x829A, kind: 5, value: vec![1, 0, 0, 0, 250, 0, 0, 0] };
        Fields {
            main: vec![ascii(0x8298, b"me\0"), ascii(0x010F, b"maker\0")],
            exif: vec![ratio, short],
            gps: vec![ascii(1, b"N\0")],
        }
    }

    #[test]
    fn a_block_gives_back_its_fields_in_both_byte_orders() {
        let block = fields().block(Some((11811, 5906)));
        let mut back = Fields::of(&block).unwrap();
        for list in [&mut back.main, &mut back.exif, &mut back.gps] {
            list.sort_by_key(|f| std::cmp::Reverse(f.tag));
        }
        let mut wanted = fields();
        for list in [&mut wanted.main, &mut wanted.exif, &mut wanted.gps] {
            list.sort_by_key(|f| std::cmp::Reverse(f.tag));
        }
        assert_eq!(back, wanted);
        assert_eq!(density(&block), Some((11811, 5906)));
        let big = [&b"MM\0*\0\0\0\x08\0\x01\x82\x98\0\x03\0\0\0\x02"[..], &[0, 7, 1, 2], &[0; 4]];
        let field = Field { tag: 0x8298, kind: 3, value: vec![7, 0, 2, 1] };
        assert_eq!(Fields::of(&big.concat()).unwrap().main, [field]);
    }

    #[test]
    fn fields_that_share_a_large_value_stay_small() {
        let mut block = b"II*\0\x08\0\0\0".to_vec();
        block.extend(16u16.to_le_bytes());
        for &tag in DESCRIBES {
            block.extend([tag.to_le_bytes(), 7u16.to_le_bytes()].concat());
            block.extend([5000u32.to_le_bytes(), 300u32.to_le_bytes()].concat());
        }
        block.resize(5300, 1);
        let kept: usize = Fields::of(&block).unwrap().main.iter().map(|f| f.value.len()).sum();
        assert!(kept <= block.len(), "{kept}");
        for cut in 0..block.len().min(400) {
            let _ = Fields::of(&block[..cut]);
            let _ = density(&block[..cut]);
        }
    }
}
