//! Both passes, on either device.
use super::op::GroupNorm;
use super::{cpu, cuda};
use crate::engine::op_case::OpCase;
use crate::engine::tape::{Call, Op, Saved};
use crate::engine::tensor::Tensor;
use crate::error::{Error, Result};
use crate::on_device;
use crate::ops::concat::Concat;

impl Op for GroupNorm {
    fn name(&self) -> &'static str {
        "group_norm"
    }

    fn forward(&self, inputs: &[&Tensor]) -> Result<(Tensor, Saved)> {
        let (y, stats) = self.output(inputs, None, None)?;
        Ok((y, vec![stats]))
    }

    fn backward(&self, call: &Call, dy: &Tensor) -> Result<Vec<Option<Tensor>>> {
        let dims = self.check(call.inputs)?;
        let x = call.inputs[0];
        on_device!(x,
            cpu::<T> => cpu::gradients::<T>(self, dims, call, dy),
            cuda(gpu) => cuda::gradients(&gpu, self, dims, call, dy),
        )
    }
}

impl GroupNorm {
    /// The output and the statistics, of `x` and perhaps a map `beside` it, whose channels follow; a GPU is told by
    /// `moments` what is known of them already.
    pub(in crate::ops) fn output(
        &self,
        inputs: &[&Tensor],
        beside: Option<&Tensor>,
        moments: Option<&Tensor>,
    ) -> Result<(Tensor, Tensor)> {
        let x = inputs[0];
        if let Some(beside) = beside.filter(|_| x.gpu().is_none()) {
            let (all, _) = Concat.forward(&[x, beside])?;
            let inputs: Vec<&Tensor> =
                [&all].into_iter().chain(inputs[1..].iter().copied()).collect();
            return self.output(&inputs, None, moments);
        }
        let dims = self.check_maps(x, beside, &inputs[1..])?;
        let mut y = Tensor::empty_as(x, &dims)?;
        let stats = on_device!(x,
            cpu::<T> => {
                let stats = cpu::statistics::<T>(self, dims, x.cpu()?);
                let channels = cpu::channels::<T>(self, dims, &stats, inputs)?;
                cpu::forward::<T>(self.silu, dims, &channels, x.cpu()?, y.cpu_mut()?);
                Tensor::from_vec(stats, &[dims[0], self.groups, 3])
            },
            cuda(gpu) => cuda::forward(&gpu, self, dims, inputs, beside, moments, &mut y)?,
        );
        Ok((y, stats))
    }

    /// Fails unless the inputs are of such shapes; those of x.
    pub(in crate::ops) fn check(&self, inputs: &[&Tensor]) -> Result<[usize; 4]> {
        self.check_maps(inputs[0], None, &inputs[1..])
    }

    /// The same of two maps beside each other, and the other inputs; the shape of both.
    pub(in crate::ops) fn check_maps(
        &self,
        x: &Tensor,
        beside: Option<&Tensor>,
        parameters: &[&Tensor],
    ) -> Result<[usize; 4]> {
        let [n, h, w, mut c] = x.nhwc(self.name())?;
        if let Some(beside) = beside {
            c += beside.nhwc(self.name())?[3];
            if beside.shape()[..3] != [n, h, w] {
                let wanted = format!("[{n}, {h}, {w}, any] beside the first map");
                return Err(Error::shape(self.name(), wanted, beside.shape()));
            }
        }
        let dims = [n, h, w, c];
        if self.groups == 0 || c % self.groups != 0 || n * h * w * c == 0 {
            let wanted = format!("pixels with C divisible by {} groups", self.groups);
            return Err(Error::shape(self.name(), wanted, x.shape()));
        }
        for (i, parameter) in parameters.iter().enumerate() {
            let (what, shape) =
                if i < 2 { ("gamma and beta", vec![c]) } else { ("scale and shift", vec![n, c]) };
            if parameter.shape() != shape {
                let wanted = format!("{what} of {shape:?}");
                return Err(Error::shape(self.name(), wanted, parameter.shape()));
            }
        }
        Ok(dims)
    }
}

/// Odd sizes, one group, one channel a group, more channels than a vector row, a far mean, FiLM;
/// the maps of a UNet.
pub fn cases() -> Vec<OpCase> {
    let case = |groups, silu, film: bool, shape: &[usize]| {
        let (n, c) = (shape[0], shape[3]);
        let all: [&[usize]; 5] = [shape, &[c], &[c], &[n, c], &[n, c]];
        let inputs = if film { &all[..] } else { &all[..3] };
        OpCase::new(move || GroupNorm { groups, eps: 1e-5, silu }, inputs)
    };
    vec![
        case(3, false, false, &[2, 3, 5, 6]),
        case(1, true, false, &[2, 2, 3, 5]),
        case(4, true, false, &[1, 3, 3, 4]),
        case(2, true, true, &[2, 5, 3, 6]),
        case(1, false, true, &[1, 1, 1, 3]),
        case(8, true, false, &[1, 3, 2, 72]),
        case(1, true, false, &[1, 67, 1, 2]),
        // Mean 1000, deviation 0.58.
        case(2, false, false, &[1, 5, 4, 4]).inputs(1.0, 1000.0),
        // For kernels: maps in shared memory, of packs and of several groups a pack; maps in chunks of
        // pixels, of packs, of ragged channels, of more channels than a block has threads.
        case(4, true, true, &[2, 7, 9, 32]).kernel_only(),
        case(16, true, false, &[3, 16, 8, 64]).kernel_only(),
        case(2, true, true, &[2, 50, 60, 16]).kernel_only(),
        case(2, false, false, &[1, 64, 70, 8]).inputs(1.0, 1000.0).kernel_only(),
        case(3, true, true, &[1, 90, 70, 6]).kernel_only(),
        case(1, true, false, &[1, 40, 3, 1032]).kernel_only(),
        case(32, true, false, &[1, 256, 256, 64]).timed_only(),
        case(32, true, false, &[1, 128, 128, 64]).timed_only(),
        case(32, true, false, &[1, 64, 64, 128]).timed_only(),
        case(32, true, false, &[1, 32, 32, 256]).timed_only(),
    ]
}
