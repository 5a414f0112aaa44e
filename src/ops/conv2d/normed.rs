//! A convolution of a map in groups normalised, and what the norm behind a convolution asks of its output: for inference.
//!
//! `y = conv(f(norm(x)))` and what [`Then`] says; the norm is that of [`group_norm`](crate::ops::group_norm), f SiLU or
//! nothing. On a GPU, in 16 bits, a convolution leaves behind what it found of the groups of its output, so that nobody
//! has to read the map for them; and one of a single tap normalises what it reads, so that the normalised map, the same
//! bits, is never written.
use super::cuda::{self, Found, Normed};
use super::fused::FusedConv2d;
use super::{Conv2d, Then};
use crate::engine::cuda::Gpu;
use crate::engine::op_case::OpCase;
use crate::engine::tape::{Op, Saved, Tape, Var};
use crate::engine::tensor::Tensor;
use crate::error::{Error, Result};
use crate::ops::group_norm::cuda::{Maps, find_moments_of, has_moments};
use crate::ops::group_norm::{GroupNorm, moments};

/// A map, or two beside each other, and what is known of its groups if whoever wrote it looked for that.
#[derive(Clone, Debug)]
pub struct Measured {
    map: Var,
    /// Its channels follow those of the map.
    beside: Option<Var>,
    /// Moments, and the groups that they are of.
    moments: Option<(Var, usize)>,
}

impl From<Var> for Measured {
    fn from(map: Var) -> Self {
        Self { map, beside: None, moments: None }
    }
}

impl Measured {
    fn new((map, moments): (Var, Option<Var>), groups: Option<usize>) -> Self {
        Self { map, beside: None, moments: moments.zip(groups) }
    }

    /// `beside` behind `map`, both `[N, H, W, any]`, as they lie where kernels read them so.
    pub fn of_two(tape: &mut Tape, map: &Var, beside: &Var) -> Result<Self> {
        let channels = [map, beside].map(|v| v.shape().last().copied().unwrap_or_default());
        let reads = cuda::reads_maps(map.value().dtype(), &channels);
        match reads && tape.fuses(map) && map.shape()[..3] == beside.shape()[..3] {
            true => Ok(Self { map: map.clone(), beside: Some(beside.clone()), moments: None }),
            false => Ok(tape.concat(&[map, beside])?.into()),
        }
    }

    /// The map as one.
    pub fn whole(&self, tape: &mut Tape) -> Result<Var> {
        match &self.beside {
            Some(beside) => tape.concat(&[&self.map, beside]),
            None => Ok(self.map.clone()),
        }
    }

    /// The maps as they lie.
    pub fn maps(&self) -> Vec<&Var> {
        std::iter::once(&self.map).chain(&self.beside).collect()
    }

    fn moments(&self, groups: usize) -> Option<&Var> {
        self.moments.as_ref().filter(|(_, of)| *of == groups).map(|(moments, _)| moments)
    }
}

/// A norm in front of a convolution, perhaps with SiLU.
#[derive(Clone, Copy, Debug)]
pub struct Norm<'a> {
    /// `[C]`.
    pub gamma: &'a Var,
    /// `[C]`.
    pub beta: &'a Var,
    /// Its numbers.
    pub op: GroupNorm,
}

impl Tape {
    /// As [`conv2d_fused`](Self::conv2d_fused), and what a norm of `groups` groups behind it asks for.
    pub fn conv2d_measured(
        &mut self,
        x: &Var,
        w: &Var,
        conv: Conv2d,
        then: Then<'_>,
        groups: Option<usize>,
    ) -> Result<Measured> {
        let op = FusedConv2d::new(conv, &then, groups);
        let inputs: Vec<&Var> =
            [x, w].into_iter().chain(then.vars().into_iter().flatten()).collect();
        Ok(Measured::new(self.apply_free(&op, &inputs)?, groups))
    }

    /// The same of `x` normalised.
    pub fn conv2d_normed(
        &mut self,
        x: &Measured,
        norm: Norm<'_>,
        w: &Var,
        conv: Conv2d,
        then: Then<'_>,
        groups: Option<usize>,
    ) -> Result<Measured> {
        let fused = FusedConv2d::new(conv, &then, groups);
        let moments = x.moments(norm.op.groups);
        let present = [x.beside.is_some(), moments.is_some()];
        let op = NormedConv2d { norm: norm.op, present, fused };
        let head = [&x.map, norm.gamma, norm.beta, w].into_iter().chain(&x.beside).chain(moments);
        let inputs = head.chain(then.vars().into_iter().flatten());
        Ok(Measured::new(self.apply_free(&op, &inputs.collect::<Vec<_>>())?, groups))
    }
}

/// Channels and groups whose constants fit the 48 KiB of a block beside the operands.
const MOST_INPUTS: usize = 1024;

/// SiLU is computed once for each block of outputs: beyond so many a pass of its own costs less.
const MOST_OUTPUTS: usize = 256;

/// Inputs are x, gamma, beta, w, a map beside x and moments, which may both be missing, and those of the convolution that
/// are present.
#[derive(Clone, Copy, Debug)]
struct NormedConv2d {
    norm: GroupNorm,
    /// The map beside x, and moments.
    present: [bool; 2],
    fused: FusedConv2d,
}

impl NormedConv2d {
    /// Whether x is normalised where it is read.
    fn folds(&self, gpu: &Gpu, (x, beside): Maps<'_>, w: &Tensor) -> bool {
        let conv = self.fused.conv;
        let (&[n, h, width, c0], &[outputs, kernel, .., c]) = (x.shape(), w.shape()) else {
            return false;
        };
        let parts = [c0, c.saturating_sub(c0)];
        let reads = beside.is_none() || cuda::reads_maps(x.dtype(), &parts);
        reads
            && (kernel, conv.stride, conv.pad) == (1, 1, 0)
            && c + self.norm.groups <= MOST_INPUTS
            && (outputs <= MOST_OUTPUTS || !self.norm.silu)
            && has_moments(gpu, &self.norm, x.dtype(), [n, h, width, c], self.present[1])
    }

    fn folded(
        &self,
        gpu: &Gpu,
        [x, gamma, beta, w]: [&Tensor; 4],
        beside: Option<&Tensor>,
        moments: Option<&Tensor>,
        given: &[&Tensor],
    ) -> Result<(Tensor, Saved)> {
        let norm = self.norm;
        let dims = norm.check_maps(x, beside, &[gamma, beta])?;
        let d = self.fused.conv.dims_of(dims, x, w)?;
        let of = self.fused.optional(given);
        let mut y = Tensor::empty_as(x, &self.fused.shape(&d, of)?)?;
        let mut found = None;
        if moments.is_none() {
            found = moments::empty(gpu, x.dtype(), dims, norm.groups)?;
            let mut each = found.iter_mut();
            each.try_for_each(|found| find_moments_of(gpu, (x, beside), norm.groups, found))?;
        }
        let Some(moments) = moments.or(found.as_ref()) else {
            return Err(Error::shape("conv2d", "a map with moments", x.shape()));
        };
        let after = Found::of(gpu, &d, x.dtype(), self.fused.followed_by)?;
        let normed = Normed { norm, moments, gamma, beta };
        let epilogue = self.fused.epilogue(of);
        cuda::forward_normed(gpu, &d, (x, beside), normed, w, epilogue, &mut y, after.as_ref())?;
        Ok((y, after.map(Found::into_moments).into_iter().collect()))
    }
}

impl Op for NormedConv2d {
    fn name(&self) -> &'static str {
        "conv2d"
    }

    fn forward(&self, inputs: &[&Tensor]) -> Result<(Tensor, Saved)> {
        let (&[x, gamma, beta, w], rest) = inputs
            .split_first_chunk::<4>()
            .ok_or_else(|| Error::shape("conv2d", "a map, gamma, beta and weights", &[]))?;
        let mut rest = rest.iter();
        let [beside, moments] = self.present.map(|p| p.then(|| rest.next().copied()).flatten());
        let given = rest.as_slice();
        if let Some(gpu) = x.gpu().filter(|gpu| self.folds(gpu, (x, beside), w)) {
            return self.folded(&gpu.clone(), [x, gamma, beta, w], beside, moments, given);
        }
        let (normed, _) = self.norm.output(&[x, gamma, beta], beside, moments)?;
        let inputs: Vec<&Tensor> = [&normed, w].into_iter().chain(given.iter().copied()).collect();
        self.fused.forward(&inputs)
    }
}

/// One tap and several; one map and two; maps that kernels normalise where they read them, with SiLU and without, in
/// groups of many and of few channels, as part of which they are and are not.
pub(super) fn cases() -> Vec<OpCase> {
    let of_two = |[groups, k]: [usize; 2], silu: bool, x: [usize; 4], beside: usize, co: usize| {
        let norm = GroupNorm { groups, eps: 1e-5, silu };
        let fused = FusedConv2d::new(Conv2d::same(k), &Then::default(), None);
        let op = NormedConv2d { norm, present: [beside > 0, false], fused };
        let ([n, h, w, _], c) = (x, x[3] + beside);
        let shapes: [&[usize]; 5] = [&x, &[c], &[c], &[co, k, k, c], &[n, h, w, beside]];
        let shapes = &shapes[..if beside > 0 { 5 } else { 4 }];
        let case = OpCase::new(move || op, shapes).f32_tol(2e-5);
        (0..shapes.len()).fold(case, OpCase::without_grad)
    };
    let case = |norm, silu, x, co| of_two(norm, silu, x, 0, co);
    vec![
        case([2, 3], true, [2, 3, 5, 8], 4),
        case([1, 1], true, [2, 4, 4, 16], 8),
        case([3, 1], false, [1, 5, 3, 6], 3),
        case([2, 1], true, [2, 48, 48, 32], 40).kernel_only(),
        case([3, 1], true, [1, 64, 50, 24], 72).kernel_only(),
        case([4, 1], false, [1, 32, 64, 40], 264).kernel_only(),
        case([2, 1], true, [1, 32, 64, 80], 200).kernel_only(),
        of_two([2, 3], true, [2, 3, 5, 8], 16, 4),
        of_two([3, 1], true, [1, 4, 3, 2], 7, 5),
        of_two([3, 3], true, [2, 48, 48, 8], 40, 24).kernel_only(),
        of_two([2, 1], true, [2, 48, 48, 40], 24, 40).kernel_only(),
        of_two([1, 1], false, [1, 40, 70, 3], 5, 8).kernel_only(),
    ]
}
