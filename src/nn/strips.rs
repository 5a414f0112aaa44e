//! Running a part of a network strip by strip, so that what it makes on its way is never held for the
//! whole map.
use std::ops::Range;

use crate::engine::device::{DType, Device};
use crate::engine::tape::{Tape, Var};
use crate::engine::tensor::Tensor;
use crate::error::Result;

/// Rows above and below a strip that are run with it: what a part may see, and a multiple of the
/// blocks in which convolutions compute.
pub const HALO: usize = 4;

/// About so many pixels make a strip: large enough that its surroundings cost little.
const STRIP_PIXELS: usize = 1 << 16;
/// Strips start at multiples of this: whole blocks of an 8x8 DCT.
const ALIGN: usize = 8;
/// Fewer rows would be mostly surroundings.
const LEAST_ROWS: usize = 64;

/// Rows of a strip of a map of `width` x `height`: equal ones, whose buffers serve one after the other.
fn rows(width: usize, height: usize) -> usize {
    let most = (STRIP_PIXELS / width.max(1)).max(LEAST_ROWS).next_multiple_of(ALIGN);
    let strips = height.div_ceil(most).max(1);
    height.div_ceil(strips).next_multiple_of(ALIGN)
}

/// Rows of the tallest strip of a map, with those around it.
pub fn tallest(width: usize, height: usize) -> usize {
    (rows(width, height) + 2 * HALO).min(height)
}

/// Where a strip is.
#[derive(Clone, Debug)]
pub struct Strip {
    /// The rows to make, in the strip.
    pub rows: Range<usize>,
    /// The same rows in the whole map.
    pub of_map: Range<usize>,
}

/// Replaces `x` `[N, H, W, C]` by what `body` makes of it, of the same shape. `body` is given rows of
/// `x` and which of these its result holds; it may look [`HALO`] rows beyond those, and its numbers
/// must not depend on where the strip is cut. On the CPU, one image on an inference tape goes strip
/// by strip, in place; all else is one strip.
pub fn in_strips(
    tape: &mut Tape,
    x: Var,
    mut body: impl FnMut(&mut Tape, &Var, Strip) -> Result<Var>,
) -> Result<Var> {
    let [n, height, width, channels] = x.value().nhwc("strips")?;
    let rows = rows(width, height);
    let cpu = x.value().device() == Device::Cpu && x.value().dtype() == DType::F32;
    if !(tape.is_inference() && cpu && n == 1 && height > rows) {
        return body(tape, &x, Strip { rows: 0..height, of_map: 0..height });
    }
    let mut map = x.into_tensor()?;
    let line = width * channels;
    // The rows above a strip, as they were before they were replaced.
    let mut above: Vec<f32> = Vec::new();
    let mut start = 0;
    while start < height {
        let end = (start + rows).min(height);
        let bottom = (end + HALO).min(height);
        let first = above.len() / line;
        let strip = cut(&map, &above, start..bottom, line)?;
        above = map.cpu::<f32>()?[(end - HALO.min(end)) * line..end * line].to_vec();
        let strip = tape.input(strip);
        let at = Strip { rows: first..first + end - start, of_map: start..end };
        let y = body(tape, &strip, at)?;
        map.cpu_mut::<f32>()?[start * line..end * line].copy_from_slice(y.value().cpu()?);
        start = end;
    }
    Ok(tape.input(map))
}

/// `above` and the rows `rows` of `map`, as a map of its own.
fn cut(map: &Tensor, above: &[f32], rows: Range<usize>, line: usize) -> Result<Tensor> {
    let [_, _, width, channels] = map.nhwc("strips")?;
    let height = above.len() / line + rows.len();
    let mut strip = Tensor::empty_as(map, &[1, height, width, channels])?;
    let (head, rest) = strip.cpu_mut::<f32>()?.split_at_mut(above.len());
    head.copy_from_slice(above);
    rest.copy_from_slice(&map.cpu::<f32>()?[rows.start * line..rows.end * line]);
    Ok(strip)
}

/// The rows `rows` of a strip; the strip itself if that is all of it.
pub fn part(tape: &mut Tape, x: &Var, rows: Range<usize>) -> Result<Var> {
    let [_, height, width, channels] = x.value().nhwc("strips")?;
    if rows == (0..height) {
        return Ok(x.clone());
    }
    let part = cut(x.value(), &[], rows, width * channels)?;
    Ok(tape.input(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every output is the sum of the rows within the halo.
    fn sums(tape: &mut Tape, x: &Var, wanted: Range<usize>) -> Result<Var> {
        let [_, height, width, _] = x.value().nhwc("test")?;
        let values = x.value().cpu::<f32>()?;
        let sum = |y: usize, i: usize| -> f32 {
            (y.saturating_sub(HALO)..(y + HALO + 1).min(height))
                .map(|r| values[r * width + i])
                .sum()
        };
        let shape = [1, wanted.len(), width, 1];
        let out = wanted.flat_map(|y| (0..width).map(move |i| (y, i))).map(|(y, i)| sum(y, i));
        let out = Tensor::from_vec(out.collect::<Vec<f32>>(), &shape);
        Ok(tape.input(out))
    }

    #[test]
    fn strips_of_a_map_equal_the_whole() {
        let (width, height) = (1024, 333);
        let values: Vec<f32> = (0..width * height).map(|i| (i * 7 % 1000) as f32).collect();
        let shape = [1, height, width, 1];
        let mut tape = Tape::inference();
        let x = tape.input(Tensor::from_vec(values.clone(), &shape));
        let whole = sums(&mut tape, &x, 0..height).unwrap();
        let mut count = 0;
        let y = in_strips(&mut tape, x, |tape, x, strip| {
            count += 1;
            sums(tape, x, strip.rows)
        });
        assert_eq!(y.unwrap().value().cpu::<f32>().unwrap(), whole.value().cpu::<f32>().unwrap());
        assert_eq!(count, 6);
    }
}
