//! Standard normal numbers for pixels: those that the words of a [`Stream`] at the pixel's column and row give by the
//! transform of Box and Muller. Not differentiated.
use super::normals::{PIECE, draw};
use super::simd::Lane;
use crate::engine::cuda::{Grid, kernels};
use crate::engine::device::{DType, Device, Real as _};
use crate::engine::rng::Stream;
use crate::engine::tensor::Tensor;
use crate::engine::threads::pieces;
use crate::error::{Error, Result};
use crate::on_device;

/// Noise that is a function of seed, purpose, step and the absolute place of a pixel.
#[derive(Clone, Copy, Debug)]
pub struct PixelNoise<'a> {
    /// Seed, purpose and step.
    pub stream: Stream,
    /// Row and column of the first pixel of each image, `[N, 2]`, F32 on the device of what is filled. None:
    /// images are stacked, so that the first row of image n is n H.
    pub origins: Option<&'a Tensor>,
    /// An integer ([`integer`]) that is added to the step when a kernel runs, or none.
    pub later: Option<&'a Tensor>,
    /// Where the noise begins again, if it does. Such noise is drawn by the processor on every device.
    pub period: Option<Period>,
}

/// Noise that repeats itself: a pixel `first + i` has that of `first + i mod size`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Period {
    /// Row and column at which a repetition begins.
    pub first: [usize; 2],
    /// Rows and columns of one; 0 where it does not repeat.
    pub size: [usize; 2],
}

impl Period {
    /// The row (`side` 0) or column (1) whose noise the one at `at` has.
    fn of(&self, side: usize, at: usize) -> usize {
        let (first, size) = (self.first[side], self.size[side]);
        match size {
            0 => at,
            _ => first + (at + size - first % size) % size,
        }
    }
}

/// Where standard normal numbers come from.
#[derive(Clone, Copy, Debug)]
pub enum Noise<'a> {
    /// A tensor of them, F32.
    Given(&'a Tensor),
    /// They are drawn.
    Pixels(PixelNoise<'a>),
}

/// What kernels are told of noise: its numbers, or what they draw them from.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Drawn<'a> {
    pub(super) given: Option<&'a Tensor>,
    pub(super) origins: Option<&'a Tensor>,
    pub(super) later: Option<&'a Tensor>,
    pub(super) seed: u64,
    pub(super) purpose: u32,
    pub(super) step: u32,
}

/// `value` as a tensor `[1]`; to the engine an F32 whose bits they are.
///
/// # Errors
/// If the memory of a GPU is full.
pub fn integer(device: &Device, value: u32) -> Result<Tensor> {
    Tensor::from_slice_on(device, &[f32::from_bits(value)], &[1])
}

/// Places of pixels as `[N, 2]` on `device`, from row and column of the first pixel of each image.
///
/// # Errors
/// If a place is beyond 2^24, where F32 has gaps, or the memory of a GPU is full.
pub fn origins(device: &Device, places: &[[usize; 2]]) -> Result<Tensor> {
    let exact = |&v: &usize| match v < 1 << 24 {
        true => Ok(f32::from_f64(v as f64)),
        false => Err(Error::Unsupported { op: "noise", what: format!("a pixel at {v}") }),
    };
    let values = places.iter().flatten().map(exact).collect::<Result<Vec<_>>>()?;
    Tensor::from_slice_on(device, &values, &[places.len(), 2])
}

/// Fills `z` `[N, H, W, C]` of at most 3 channels.
///
/// # Errors
/// If the shapes do not match.
pub fn pixel_noise(noise: &PixelNoise, z: &mut Tensor) -> Result<()> {
    let [n, h, w, c] = noise.check(z)?;
    on_device!(z,
        cpu::<T> => {
            let stream = noise.stream_now()?;
            let origins = noise.host_origins([n, h])?;
            let images = z.cpu_mut::<T>()?.chunks_exact_mut((h * w * c).max(1));
            for (image, origin) in images.zip(origins) {
                fill_pixels::<T>(&stream, origin, noise.period, [w, c], image);
            }
        },
        cuda(gpu) => {
            if let Some(drawn) = Noise::Pixels(*noise).repeated(z, 0)? {
                *z = drawn.cast(z.dtype())?;
                return Ok(());
            }
            let count = n * h * w;
            let Drawn { origins, later, seed, purpose, step, .. } = Noise::Pixels(*noise).drawn();
            kernels::pixel_noise {
                z,
                origins,
                later,
                seed,
                purpose,
                step,
                count,
                height: h,
                width: w,
                channels: c,
            }
            .launch(&gpu, Grid::elements(count))?;
        }
    );
    Ok(())
}

impl PixelNoise<'_> {
    /// The sizes of `z`, if it fits.
    pub(super) fn check(&self, z: &Tensor) -> Result<[usize; 4]> {
        let dims @ [n, _, _, c] = z.nhwc("noise")?;
        let images = self.origins.map_or(n, |o| o.len() / 2);
        if !(1..=3).contains(&c) || images != n {
            let expected = format!("[{images}, H, W, 1 to 3]");
            return Err(Error::shape("noise", expected, z.shape()));
        }
        Ok(dims)
    }

    /// The stream with what is added to its step: on the CPU, where that can be read.
    fn stream_now(&self) -> Result<Stream> {
        let Some(later) = self.later else { return Ok(self.stream) };
        Ok(self.stream.later(later.cpu::<f32>()?[0].to_bits()))
    }

    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // Whole numbers.
    fn host_origins(&self, [n, h]: [usize; 2]) -> Result<Vec<[usize; 2]>> {
        let Some(origins) = self.origins else { return Ok((0..n).map(|i| [i * h, 0]).collect()) };
        let values = origins.to_f32_vec()?;
        Ok(values.chunks_exact(2).map(|p| [p[0] as usize, p[1] as usize]).collect())
    }
}

impl<'a> Noise<'a> {
    /// The numbers as a tensor of the CPU like `of`; `steps` are added to those of the stream.
    pub(super) fn on_cpu(&self, of: &Tensor, steps: u32) -> Result<Tensor> {
        match self {
            Self::Given(z) => z.try_clone(),
            Self::Pixels(noise) => {
                let mut z = Tensor::empty_on(&Device::Cpu, DType::F32, of.shape())?;
                pixel_noise(&PixelNoise { stream: noise.stream.later(steps), ..*noise }, &mut z)?;
                Ok(z)
            }
        }
    }

    /// The numbers of noise that repeats, as a tensor on the device of `of`, for kernels that know of none; `steps` are
    /// added to those of the stream.
    pub(super) fn repeated(&self, of: &Tensor, steps: u32) -> Result<Option<Tensor>> {
        match self {
            Self::Pixels(noise) if noise.period.is_some() => {
                let drawn = self.on_cpu(of, steps)?;
                Tensor::from_slice_on(&of.device(), drawn.cpu()?, of.shape()).map(Some)
            }
            _ => Ok(None),
        }
    }

    /// What kernels are told of it.
    pub(super) fn drawn(&self) -> Drawn<'a> {
        match self {
            Self::Given(z) => Drawn { given: Some(z), ..Drawn::default() },
            Self::Pixels(PixelNoise { stream, origins, later, .. }) => {
                let (seed, purpose, step) = stream.parts();
                Drawn { given: None, origins: *origins, later: *later, seed, purpose, step }
            }
        }
    }

    /// Fails in the name of `op` unless there is a number for each element of `of`.
    pub(super) fn check(&self, op: &'static str, of: &Tensor) -> Result<()> {
        match self {
            Self::Given(z) => super::same_shape(op, of, z),
            Self::Pixels(noise) => noise.check(of).map(drop),
        }
    }
}

/// The normal numbers of each pixel of `image` `[H, width, channels]`, whose first pixel is
/// `origin`, again and again by `period`.
#[allow(clippy::cast_possible_truncation)] // Coordinates of pixels fit 32 bits.
fn fill_pixels<T: Lane>(
    stream: &Stream,
    origin: [usize; 2],
    period: Option<Period>,
    [width, channels]: [usize; 2],
    image: &mut [T],
) {
    let place = |side: usize, at: usize| {
        let at = origin[side] + at;
        period.map_or(at, |period| period.of(side, at)) as u32
    };
    let columns: Vec<u32> = (0..width).map(|x| place(1, x)).collect();
    pieces(image, width * channels, |y, row| {
        let pieces = row.chunks_mut(PIECE * channels).zip(columns.chunks(PIECE));
        pieces.for_each(|(row, columns)| draw(stream, place(0, y), columns, channels, row));
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::rng::Purpose;

    #[test]
    fn noise_repeats_itself_where_it_should() {
        let origins = origins(&Device::Cpu, &[[3, 0]]).unwrap();
        let stream = Stream::new(1, Purpose::Sampling, 0);
        let (w, c) = (7, 3);
        let fill = |period| {
            let noise = PixelNoise { stream, origins: Some(&origins), later: None, period };
            let mut z = Tensor::from_vec(vec![0.0f32; 8 * w * c], &[1, 8, w, c]);
            pixel_noise(&noise, &mut z).unwrap();
            z.to_f32_vec().unwrap()
        };
        let plain = fill(None);
        // Rows 3..11 are shown, one repetition of which is 5..9; columns go on.
        let rows = fill(Some(Period { first: [5, 0], size: [4, 0] }));
        let both = fill(Some(Period { first: [5, 2], size: [4, 3] }));
        let pixel = |values: &[f32], y: usize, x: usize| values[(y * w + x) * c..][..c].to_vec();
        for y in 0..8 {
            for x in 0..w {
                let within = 2 + (y + 2) % 4;
                assert_eq!(pixel(&rows, y, x), pixel(&plain, within, x), "{y} {x}");
                assert_eq!(pixel(&both, y, x), pixel(&plain, within, 2 + (x + 1) % 3), "{y} {x}");
            }
        }
    }
}
