//! A convolution and what follows it, written once: for inference. It may read several maps side by side, and see each
//! pixel as 2 x 2: neither the concatenation nor the enlarged map is written.
use super::cuda::{self, Epilogue, Found};
use super::{Activation, Conv2d, Dims};
use crate::engine::cuda::Gpu;
use crate::engine::device::Real;
use crate::engine::op_case::OpCase;
use crate::engine::tape::{Op, Saved, Tape, Var};
use crate::engine::tensor::Tensor;
use crate::engine::threads::pieces;
use crate::error::{Error, Result};
use crate::on_device;
use crate::ops::concat::Concat;
use crate::ops::nearest2::Nearest2;
use crate::ops::parallel::CHUNK;
use crate::ops::simd::{Lane, multiversion};

impl Tape {
    /// `scale activation(conv(x, w) + bias + shift) + residual` and so on, see [`Then`], in one pass. It has no
    /// gradient: models that train call the ops one by one.
    pub fn conv2d_fused(&mut self, x: &Var, w: &Var, conv: Conv2d, then: Then<'_>) -> Result<Var> {
        self.conv2d_of_maps(&[x], false, w, conv, then)
    }

    /// As [`conv2d_fused`](Self::conv2d_fused), of `maps` side by side, `[N, H, W, C_k]` each; where `doubled`, of their
    /// enlargement to twice the sides by repeating pixels.
    pub fn conv2d_of_maps(
        &mut self,
        maps: &[&Var],
        doubled: bool,
        w: &Var,
        conv: Conv2d,
        then: Then<'_>,
    ) -> Result<Var> {
        let inputs = maps.iter().copied().chain([w]).chain(then.vars().into_iter().flatten());
        let op = FusedConv2d { maps: maps.len(), doubled, ..FusedConv2d::new(conv, &then, None) };
        self.apply(op, &inputs.collect::<Vec<_>>())
    }

    /// Whether what follows convolutions of `x` is best given to them: on a GPU, where every map that is written and
    /// read again costs a launch, and nothing asks for gradients.
    pub fn fuses(&self, x: &Var) -> bool {
        self.is_free() && x.value().gpu().is_some()
    }
}

/// What follows a convolution: `scale activation(conv + bias + shift) + factor residual + factor second`.
#[derive(Clone, Copy, Debug)]
pub struct Then<'a> {
    /// `[Co]`.
    pub bias: Option<&'a Var>,
    /// `[N, M]`, for example of a time step, and which of the M channels is the first output's.
    pub shift: Option<(&'a Var, usize)>,
    /// Whether the shift is added behind the activation.
    pub late: bool,
    /// Instead of that of the convolution.
    pub activation: Activation,
    /// Of leaky ReLU.
    pub slope: f64,
    /// Of parametric ReLU, instead of the one slope: `[Co]` or `[1]`.
    pub slopes: Option<&'a Var>,
    /// What the activation is multiplied by.
    pub scale: f64,
    /// As the output, and a factor.
    pub residual: Option<(&'a Var, f64)>,
    /// As the output, and a factor.
    pub second: Option<(&'a Var, f64)>,
}

impl Default for Then<'_> {
    fn default() -> Self {
        Self {
            bias: None,
            shift: None,
            late: false,
            activation: Activation::None,
            slope: 1.0,
            slopes: None,
            scale: 1.0,
            residual: None,
            second: None,
        }
    }
}

impl<'a> Then<'a> {
    /// Bias, shift, slopes, residual and second.
    pub(super) fn vars(&self) -> [Option<&'a Var>; 5] {
        let [shift, residual, second] = [
            self.shift.map(|(shift, _)| shift),
            self.residual.map(|(map, _)| map),
            self.second.map(|(map, _)| map),
        ];
        [self.bias, shift, self.slopes, residual, second]
    }
}

/// Inputs are maps, w and those of bias, shift, slopes, residual and second that are present. Where a norm of so many
/// groups follows, the moments of the output are kept, if there are any.
#[derive(Clone, Copy, Debug)]
pub(super) struct FusedConv2d {
    pub(super) conv: Conv2d,
    maps: usize,
    doubled: bool,
    present: [bool; 5],
    numbers: Numbers,
    pub(super) followed_by: Option<usize>,
}

/// What [`Then`] says beside tensors.
#[derive(Clone, Copy, Debug)]
struct Numbers {
    activation: Activation,
    slope: f64,
    scale: f64,
    shift_first: usize,
    late: bool,
    of_residual: f64,
    of_second: f64,
}

impl FusedConv2d {
    /// Of one map, perhaps followed by a norm of so many groups.
    pub(super) fn new(conv: Conv2d, then: &Then<'_>, followed_by: Option<usize>) -> Self {
        let numbers = Numbers {
            activation: then.activation,
            slope: then.slope,
            scale: then.scale,
            shift_first: then.shift.map_or(0, |(_, first)| first),
            late: then.late,
            of_residual: then.residual.map_or(1.0, |(_, factor)| factor),
            of_second: then.second.map_or(1.0, |(_, factor)| factor),
        };
        let present = then.vars().map(|v| v.is_some());
        Self { conv, maps: 1, doubled: false, present, numbers, followed_by }
    }

    /// Those of the optional inputs that are present, and what they are.
    pub(super) fn optional<'a>(&self, given: &[&'a Tensor]) -> [Option<&'a Tensor>; 5] {
        let mut given = given.iter().copied();
        self.present.map(|p| p.then(|| given.next()).flatten())
    }

    /// Fails unless the optional inputs fit the output of `d`, whose shape it is.
    pub(super) fn shape(&self, d: &Dims, of: [Option<&Tensor>; 5]) -> Result<[usize; 4]> {
        let shape = [d.batch, d.out_height(), d.out_width(), d.co];
        check(shape, self.numbers.shift_first, of)?;
        Ok(shape)
    }

    /// The maps as one, on any device.
    fn joined(&self, maps: &[&Tensor]) -> Result<Option<Tensor>> {
        let all = match maps.len() {
            1 => None,
            _ => Some(Concat.forward(maps)?.0),
        };
        match self.doubled {
            true => Ok(Some(Nearest2.forward(&[all.as_ref().unwrap_or(maps[0])])?.0)),
            false => Ok(all),
        }
    }

    /// Height, width and channels of what is seen of the maps.
    fn seen(&self, maps: &[&Tensor]) -> Result<[usize; 4]> {
        let Some(&first) = maps.first() else {
            return Err(Error::shape("conv2d", "at least one map", &[]));
        };
        let [n, h, w, mut channels] = first.nhwc("conv2d")?;
        for map in &maps[1..] {
            channels += map.nhwc("conv2d")?[3];
            if map.shape()[..3] != first.shape()[..3] {
                return Err(Error::shape("conv2d", format!("[{n}, {h}, {w}, C]"), map.shape()));
            }
        }
        let times = if self.doubled { 2 } else { 1 };
        Ok([n, times * h, times * w, channels])
    }

    pub(super) fn epilogue<'a>(
        &self,
        [bias, shift, slopes, residual, second]: [Option<&'a Tensor>; 5],
    ) -> Epilogue<'a> {
        let n = self.numbers;
        Epilogue {
            bias,
            shift,
            shift_first: n.shift_first,
            late: n.late,
            activation: n.activation,
            slope: n.slope,
            slopes,
            scale: n.scale,
            residual,
            of_residual: n.of_residual,
            second,
            of_second: n.of_second,
        }
    }

    fn on_gpu(
        &self,
        gpu: &Gpu,
        maps: &[&Tensor],
        w: &Tensor,
        epilogue: Epilogue<'_>,
        y: &mut Tensor,
    ) -> Result<Option<Found>> {
        let d = self.conv.dims_of(self.seen(maps)?, maps[0], w)?;
        let channels: Vec<usize> = maps.iter().map(|map| map.shape()[3]).collect();
        let (plain, reads) = (!self.doubled, cuda::reads_maps(w.dtype(), &channels));
        let found = Found::of(gpu, &d, y.dtype(), self.followed_by)?;
        match maps {
            [x, x1] if plain && reads => {
                cuda::forward_beside(gpu, &d, [x, x1], w, epilogue, y, found.as_ref())?;
                return Ok(found);
            }
            [_] if plain => {}
            maps if reads => {
                cuda::forward_maps(gpu, &d, maps, self.doubled, w, epilogue, y)?;
                return Ok(None);
            }
            _ => {}
        }
        let all = self.joined(maps)?;
        let x = all.as_ref().unwrap_or(maps[0]);
        cuda::forward_measured(gpu, &d, x, w, epilogue, y, found.as_ref())?;
        Ok(found)
    }
}

/// Fails unless the optional inputs fit outputs of `shape`.
fn check(shape: [usize; 4], first: usize, of: [Option<&Tensor>; 5]) -> Result<()> {
    let [bias, shift, slopes, residual, second] = of;
    let wrong = |wanted: String, is: &Tensor| Err(Error::shape("conv2d", wanted, is.shape()));
    let [n, .., co] = shape;
    if let Some(bias) = bias.filter(|b| b.shape() != [co]) {
        return wrong(format!("bias [{co}]"), bias);
    }
    if let Some(slopes) = slopes.filter(|s| s.shape() != [1] && s.shape() != [co]) {
        return wrong(format!("slopes [1] or [{co}]"), slopes);
    }
    if let Some(map) = [residual, second].into_iter().flatten().find(|m| m.shape() != shape) {
        return wrong(format!("{shape:?}"), map);
    }
    match shift.map(|s| (s, s.shape())) {
        // Kernels read packs of them.
        Some((_, &[images, m]))
            if images == n
                && first + co <= m
                && (m == co || (m.is_multiple_of(8) && first.is_multiple_of(8))) =>
        {
            Ok(())
        }
        Some((shift, _)) => wrong(format!("a shift of [{n}, {first} + {co} or more]"), shift),
        None => Ok(()),
    }
}

impl Op for FusedConv2d {
    fn name(&self) -> &'static str {
        "conv2d"
    }

    fn forward(&self, inputs: &[&Tensor]) -> Result<(Tensor, Saved)> {
        let (maps, rest) = inputs.split_at(self.maps.min(inputs.len()));
        let Some((&w, given)) = rest.split_first() else {
            return Err(Error::shape("conv2d", "maps and weights", &[]));
        };
        let of = self.optional(given);
        let d = self.conv.dims_of(self.seen(maps)?, maps[0], w)?;
        let shape = self.shape(&d, of)?;
        let mut saved = Saved::new();
        let y = on_device!(w,
            cpu::<T> => {
                let all = self.joined(maps)?;
                let plain = Conv2d { relu: false, ..self.conv };
                let x = all.as_ref().unwrap_or(maps[0]);
                let inputs = [Some(x), Some(w), of[0]].into_iter().flatten().collect::<Vec<_>>();
                let mut y = plain.forward(&inputs)?.0;
                let [_, shift, slopes, residual, second] = of;
                let values = |t: Option<&'_ Tensor>| t.map(|t| t.cpu::<T>().map(<[T]>::to_vec)).transpose();
                let after = Parts {
                    shift: values(shift)?,
                    slopes: values(slopes)?,
                    residual: values(residual)?,
                    second: values(second)?,
                };
                finish(shape[1] * shape[2], d.co, &self.numbers, &after, y.cpu_mut()?);
                y
            },
            cuda(gpu) => {
                let mut y = Tensor::empty_as(maps[0], &shape)?;
                let found = self.on_gpu(&gpu, maps, w, self.epilogue(of), &mut y)?;
                saved.extend(found.map(Found::into_moments));
                y
            }
        );
        Ok((y, saved))
    }
}

/// The optional inputs.
struct Parts<T> {
    shift: Option<Vec<T>>,
    slopes: Option<Vec<T>>,
    residual: Option<Vec<T>>,
    second: Option<Vec<T>>,
}

/// What [`Then`] says of `y`, images of `pixels` rows of `channels`, to which the bias is added already.
fn finish<T: Lane>(pixels: usize, channels: usize, n: &Numbers, of: &Parts<T>, y: &mut [T]) {
    let rows = (CHUNK / channels.max(1)).max(1);
    let of_image =
        of.shift.as_ref().map_or(0, |s| s.len() / (y.len() / (pixels * channels)).max(1));
    pieces(y, rows * channels, |chunk, y| {
        let add_shift = |y: &mut [T]| {
            let Some(shift) = &of.shift else { return };
            for (row, y) in y.chunks_exact_mut(channels).enumerate() {
                let image = (chunk * rows + row) / pixels;
                let shift = &shift[image * of_image + n.shift_first..][..channels];
                y.iter_mut().zip(shift).for_each(|(y, &s)| *y += s);
            }
        };
        if !n.late {
            add_shift(y);
        }
        activate(n, of.slopes.as_deref(), channels, y);
        if n.late {
            add_shift(y);
        }
        #[allow(clippy::float_cmp)] // What a caller left at 1.
        if n.scale != 1.0 {
            let scale = T::from_f64(n.scale);
            y.iter_mut().for_each(|y| *y = *y * scale);
        }
        let maps = [(&of.residual, n.of_residual), (&of.second, n.of_second)];
        for (map, factor) in maps.into_iter().filter_map(|(m, f)| Some((m.as_ref()?, f))) {
            let (map, factor) = (&map[chunk * rows * channels..][..y.len()], T::from_f64(factor));
            y.iter_mut().zip(map).for_each(|(y, &r)| *y += factor * r);
        }
    });
}

fn activate<T: Lane>(n: &Numbers, slopes: Option<&[T]>, channels: usize, y: &mut [T]) {
    let zero = T::default();
    match n.activation {
        Activation::None => {}
        Activation::Relu => y.iter_mut().filter(|v| **v < zero).for_each(|v| *v = zero),
        Activation::Silu => silu(y),
        Activation::Mish => mish(y),
        Activation::Leaky => {
            let one = [T::from_f64(n.slope)];
            let slopes = slopes.unwrap_or(&one);
            for y in y.chunks_exact_mut(channels) {
                let slope = |c: usize| slopes[c.min(slopes.len() - 1)];
                let each = y.iter_mut().enumerate();
                each.filter(|(_, v)| **v <= zero).for_each(|(c, v)| *v = slope(c) * *v);
            }
        }
    }
}

/// As [`Tape::mish`].
fn mish<T: Real>(y: &mut [T]) {
    let (limit, two) = (T::from_f64(20.0), T::from_f64(2.0));
    for y in y {
        let e = if *y > limit { limit } else { *y }.exp();
        let n = e * (e + two);
        *y = *y * (n / (n + two));
    }
}

multiversion! {
    fn silu<T, FMA>(y: &mut [T]) {
        for y in y {
            *y = *y * y.sigmoid::<FMA>();
        }
    }
}

/// Every part alone and all together; several maps, small ones, and maps that kernels do not read side by side.
pub(super) fn cases() -> Vec<OpCase> {
    let numbers = Numbers {
        activation: Activation::None,
        slope: 0.2,
        scale: 1.0,
        shift_first: 0,
        late: false,
        of_residual: 1.0,
        of_second: 1.0,
    };
    let of_maps = |numbers: Numbers,
                   present: [bool; 5],
                   [n, h, w]: [usize; 3],
                   channels: &[usize],
                   co: usize,
                   doubled: bool| {
        let (conv, maps) = (Conv2d::same(3), channels.len());
        let op = FusedConv2d { conv, maps, doubled, present, numbers, followed_by: None };
        let times = if doubled { 2 } else { 1 };
        let map = vec![n, times * h, times * w, co];
        let shift = if numbers.shift_first > 0 { numbers.shift_first + co + 8 } else { co };
        let optional = [vec![co], vec![n, shift], vec![co], map.clone(), map];
        let mut shapes: Vec<Vec<usize>> = channels.iter().map(|&c| vec![n, h, w, c]).collect();
        shapes.push(vec![co, 3, 3, channels.iter().sum()]);
        shapes.extend(optional.into_iter().zip(present).filter_map(|(s, p)| p.then_some(s)));
        let shapes: Vec<&[usize]> = shapes.iter().map(Vec::as_slice).collect();
        let case = OpCase::new(move || op, &shapes).f32_tol(2e-5);
        (0..shapes.len()).fold(case, OpCase::without_grad)
    };
    let case = |numbers: Numbers, present: [bool; 5], x: [usize; 4], co: usize| {
        of_maps(numbers, present, [x[0], x[1], x[2]], &x[3..], co, false)
    };
    let with = |activation: Activation| Numbers { activation, ..numbers };
    let all = Numbers { scale: 0.5, of_residual: 0.25, of_second: -2.0, ..with(Activation::Silu) };
    let [none, bias] = [[false; 5], [true, false, false, false, false]];
    vec![
        case(with(Activation::Silu), [true, true, false, true, false], [2, 5, 3, 8], 16),
        case(with(Activation::Relu), [false, true, false, false, false], [2, 3, 4, 3], 5),
        case(with(Activation::None), [false, false, false, true, false], [1, 3, 4, 8], 3),
        case(with(Activation::Silu), bias, [1, 4, 4, 16], 64),
        case(with(Activation::Mish), bias, [1, 4, 4, 16], 64),
        case(with(Activation::Leaky), bias, [1, 4, 5, 8], 16),
        case(Numbers { shift_first: 8, ..all }, [true; 5], [2, 5, 7, 120], 128).kernel_only(),
        of_maps(all, [true; 5], [1, 3, 5], &[64, 40, 24], 128, true).kernel_only(),
        case(with(Activation::Leaky), [true, false, true, false, false], [1, 4, 5, 8], 21),
        case(Numbers { shift_first: 16, ..all }, [true; 5], [2, 5, 3, 8], 16),
        case(
            Numbers { late: true, ..with(Activation::Mish) },
            [true, true, false, true, false],
            [2, 5, 3, 8],
            16,
        ),
        case(
            Numbers { scale: -0.5, ..numbers },
            [false, false, false, false, true],
            [1, 3, 4, 3],
            5,
        ),
        of_maps(with(Activation::Leaky), bias, [1, 9, 10], &[32, 16, 16, 16, 8], 32, false),
        of_maps(all, [true, true, false, true, true], [2, 9, 7], &[8, 24], 40, false),
        of_maps(with(Activation::Leaky), bias, [1, 5, 6], &[16], 16, true),
        of_maps(numbers, none, [2, 3, 4], &[16, 8], 72, true),
        of_maps(numbers, bias, [1, 3, 4], &[3, 5], 7, true),
        of_maps(numbers, none, [1, 3, 4], &[8, 8, 8, 8, 8, 8], 8, false),
        of_maps(numbers, bias, [1, 24, 25], &[16, 16], 130, false).kernel_only(),
        of_maps(all, [true; 5], [2, 12, 11], &[24, 104], 72, false).kernel_only(),
        of_maps(with(Activation::Silu), bias, [1, 9, 7], &[128, 8], 128, false).kernel_only(),
        of_maps(numbers, bias, [2, 13, 12], &[72], 64, true).kernel_only(),
    ]
}
