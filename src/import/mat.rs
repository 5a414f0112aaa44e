//! Files of MATLAB, level 5: the variables that are real matrices of numbers.
//!
//! ```text
//! 128 bytes of header, "IM" at 126 where numbers are little-endian; then elements:
//! type u32, bytes u32, data, padded to 8     or, small: type u16, bytes u16, data in 4 bytes
//! matrix (14): flags, sizes, name, values    compressed (15): a zlib stream of one element
//! ```
//!
//! Values may be stored in a narrower type than they have.
use std::io::Read;

use super::pickle::Parsed;

/// No file is longer, nor what one decompresses to.
pub(super) const MOST_BYTES: u64 = 256 << 20;

/// A matrix by its name, column after column.
#[derive(Debug)]
pub(super) struct Variable {
    pub(super) name: String,
    pub(super) shape: Vec<usize>,
    pub(super) values: Vec<f64>,
}

const MATRIX: u32 = 14;
const COMPRESSED: u32 = 15;

/// The matrices of the file `bytes`; cells, structs, texts, sparse and complex ones are left out.
pub(super) fn variables(bytes: &[u8]) -> Parsed<Vec<Variable>> {
    if bytes.get(126..128) != Some(b"IM") {
        return Err("it is no little-endian file of MATLAB, level 5".into());
    }
    let mut found = Vec::new();
    let mut rest = bytes.get(128..).unwrap_or_default();
    while rest.len() >= 8 {
        let (kind, data, after) = element(rest)?;
        rest = after;
        let unpacked;
        let (kind, data) = match kind {
            COMPRESSED => {
                unpacked = decompress(data)?;
                let (kind, data, _) = element(&unpacked)?;
                (kind, data)
            }
            _ => (kind, data),
        };
        if kind == MATRIX {
            found.extend(matrix(data)?);
        }
    }
    Ok(found)
}

fn decompress(data: &[u8]) -> Parsed<Vec<u8>> {
    let mut unpacked = Vec::new();
    let stream = flate2::read::ZlibDecoder::new(data);
    stream.take(MOST_BYTES).read_to_end(&mut unpacked).map_err(|e| e.to_string())?;
    Ok(unpacked)
}

/// Type and data of the first element of `bytes`, and what follows it.
fn element(bytes: &[u8]) -> Parsed<(u32, &[u8], &[u8])> {
    let short = || "an element ends beyond its file".to_owned();
    let word = |at: usize| -> Parsed<u32> {
        let part = bytes.get(at..at + 4).ok_or_else(short)?;
        Ok(u32::from_le_bytes(part.try_into().map_err(|_| short())?))
    };
    let head = word(0)?;
    if head >> 16 != 0 {
        let data = bytes.get(4..4 + (head >> 16) as usize).filter(|d| d.len() <= 4);
        return Ok((head & 0xffff, data.ok_or_else(short)?, bytes.get(8..).ok_or_else(short)?));
    }
    let end = 8 + word(4)? as usize;
    let data = bytes.get(8..end).ok_or_else(short)?;
    // Compressed elements are not padded, nor may the last one be.
    let next = if head == COMPRESSED { end } else { end.next_multiple_of(8).min(bytes.len()) };
    Ok((head, data, &bytes[next..]))
}

/// A matrix; none if it is of no numbers, or not real and full.
fn matrix(bytes: &[u8]) -> Parsed<Option<Variable>> {
    let (_, flags, rest) = element(bytes)?;
    let class = *flags.first().ok_or("a matrix has no flags")?;
    let complex = flags.get(1).is_some_and(|f| f & 8 != 0);
    // 6 to 15: doubles, singles, whole numbers.
    if !(6..=15).contains(&class) || complex {
        return Ok(None);
    }
    let (kind, sizes, rest) = element(rest)?;
    let (_, name, rest) = element(rest)?;
    let (of_values, values, _) = element(rest)?;
    let sizes = numbers(kind, sizes).ok_or("the sizes of a matrix are no numbers")?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "whole numbers")]
    let shape: Vec<usize> = sizes.iter().map(|&v| v as usize).collect();
    let name = String::from_utf8_lossy(name).into_owned();
    let values =
        numbers(of_values, values).ok_or_else(|| format!("{name} has values of no known type"))?;
    let count = shape.iter().try_fold(1usize, |all, &n| all.checked_mul(n));
    if count != Some(values.len()) {
        return Err(format!("{name} has {} values for sizes {shape:?}", values.len()));
    }
    Ok(Some(Variable { name, shape, values }))
}

/// Numbers of a type, lowest byte first.
fn numbers(kind: u32, bytes: &[u8]) -> Option<Vec<f64>> {
    macro_rules! each {
        ($t:ty) => {{
            let (chunks, _) = bytes.as_chunks();
            Some(chunks.iter().map(|&b| <$t>::from_le_bytes(b) as f64).collect())
        }};
    }
    #[allow(clippy::cast_lossless, clippy::cast_precision_loss)] // One macro for all types.
    match kind {
        1 => each!(i8),
        2 => each!(u8),
        3 => each!(i16),
        4 => each!(u16),
        5 => each!(i32),
        6 => each!(u32),
        7 => each!(f32),
        9 => each!(f64),
        12 => each!(i64),
        13 => each!(u64),
        _ => None,
    }
}
