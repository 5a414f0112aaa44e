//! What the [launchers](super::kernels) are made of: checks of arguments, and the start of a kernel.
use super::driver::{Argument, DevicePointer, Launch};
use super::gpu::{Gpu, Grid};
use super::kernel::Kernel;
use super::tensor_map::{Boxes, TensorMap};
use crate::engine::device::DType;
use crate::engine::tensor::Tensor;
use crate::error::{Error, Report, Result};

/// No memory: an optional tensor that is absent.
const NULL: Argument = Argument::Number { bits: 0, size: 8 };

/// The versions of a kernel for f32, f16 and bf16.
pub(super) type Versions = [Option<&'static Kernel>; 3];

/// A tensor and its boxes, as a launcher takes them.
#[derive(Clone, Copy, Debug)]
pub struct Mapped<'a> {
    /// Of the type of the launch.
    pub tensor: &'a Tensor,
    /// Sizes are the tensor's.
    pub boxes: Boxes,
}

/// A launch in the making: it makes arguments of what a launcher is given, or says in words what is wrong.
pub(super) struct Call<'a> {
    gpu: &'a Gpu,
    kernel: &'static Kernel,
    /// The kernel's name without a type.
    name: &'static str,
    /// What the launch's type was taken from.
    like: Option<&'static str>,
    dtype: DType,
}

impl<'a> Call<'a> {
    /// Of a kernel that knows its types.
    pub(super) fn untyped(gpu: &'a Gpu, kernel: &'static Kernel) -> Self {
        Self { gpu, kernel, name: kernel.name(), like: None, dtype: DType::F32 }
    }

    /// Of the version for `dtype`.
    pub(super) fn of(
        gpu: &'a Gpu,
        name: &'static str,
        versions: Versions,
        dtype: DType,
    ) -> Result<Self> {
        let version = match dtype {
            DType::F32 => versions[0],
            DType::F16 => versions[1],
            DType::BF16 => versions[2],
            DType::F64 => None,
        };
        let none = || Error::Unsupported { op: name, what: format!("{dtype:?} on a GPU") };
        Ok(Self { gpu, kernel: version.ok_or_else(none)?, name, like: None, dtype })
    }

    /// Of the version for the elements of `tensor`, which the kernel calls `like`.
    pub(super) fn like(
        gpu: &'a Gpu,
        name: &'static str,
        versions: Versions,
        like: &'static str,
        tensor: &Tensor,
    ) -> Result<Self> {
        gpu.place(name, like, tensor)?;
        Ok(Self { like: Some(like), ..Self::of(gpu, name, versions, tensor.dtype())? })
    }

    /// A pointer to `tensor`, which must be of the launch's type.
    pub(super) fn like_tensor(&self, name: &str, tensor: &Tensor) -> Result<Argument> {
        let at = self.gpu.place(self.name, name, tensor)?;
        let (dtype, is) = (self.dtype, tensor.dtype());
        if is == dtype {
            return Ok(Argument::from(at.address()));
        }
        let what = match self.like {
            Some(like) => format!("{like} is {dtype:?}, {name} is {is:?}"),
            None => format!("{name} is {is:?}, not {dtype:?}"),
        };
        Err(Error::Argument { op: self.name, what })
    }

    /// The same, or null.
    pub(super) fn like_or_null(&self, name: &str, tensor: Option<&Tensor>) -> Result<Argument> {
        tensor.map_or(Ok(NULL), |tensor| self.like_tensor(name, tensor))
    }

    /// A pointer to `tensor`, whose elements must be `dtype` whatever the launch's type.
    pub(super) fn tensor(&self, name: &str, tensor: &Tensor, dtype: DType) -> Result<Argument> {
        Ok(Argument::from(self.gpu.pointer(self.name, name, tensor, dtype)?.address()))
    }

    /// The same, or null.
    pub(super) fn tensor_or_null(
        &self,
        name: &str,
        tensor: Option<&Tensor>,
        dtype: DType,
    ) -> Result<Argument> {
        tensor.map_or(Ok(NULL), |tensor| self.tensor(name, tensor, dtype))
    }

    /// What the kernel takes for a tensor that it loads in boxes, which must be of the launch's type.
    pub(super) fn map(&self, name: &str, Mapped { tensor, boxes }: Mapped<'_>) -> Result<Argument> {
        self.like_tensor(name, tensor)?;
        let address = self.gpu.place(self.name, name, tensor)?;
        if boxes.elements() != tensor.len() {
            let what = format!("{name} is {:?}, its map {:?}", tensor.shape(), boxes.sizes());
            return Err(Error::Argument { op: self.name, what });
        }
        let map = TensorMap { address, dtype: self.dtype, boxes };
        self.gpu.driver().tensor_map(&map).map(Argument::Map)
    }

    /// `value` as an `int`.
    pub(super) fn int(&self, name: &str, value: usize) -> Result<Argument> {
        let narrow = i32::try_from(value)
            .map_err(|_| self.too_large(format!("{name} is {value}; kernels count to 2^31 - 1")))?;
        Ok(Argument::from(narrow.cast_unsigned()))
    }

    /// Too much at once is what a full device is: smaller tiles or batches are the way out of both.
    fn too_large(&self, cause: String) -> Error {
        let what = format!("too much at once for the kernel {}", self.name);
        Error::Memory(Report::new(what, cause).help("smaller tiles, or a smaller batch"))
    }

    /// Starts the kernel; nothing if the grid has no blocks.
    pub(super) fn start(&self, grid: Grid, arguments: &[Argument]) -> Result<()> {
        let limits = [i32::MAX as usize, 65535, 65535];
        if grid.blocks.iter().zip(limits).any(|(&n, limit)| n > limit) {
            return Err(self.too_large(format!("it would take a grid of {:?} blocks", grid.blocks)));
        }
        if grid.blocks.contains(&0) {
            return Ok(());
        }
        #[allow(clippy::cast_possible_truncation)]
        // Checked above; blocks have at most 1024 threads.
        let narrow = |v: usize| v as u32;
        let launch = Launch {
            kernel: self.kernel,
            grid: grid.blocks.map(narrow),
            block: [narrow(grid.threads), narrow(grid.slices), 1],
            shared_bytes: narrow(grid.shared),
            arguments,
        };
        // SAFETY: the launcher was made of the kernel's declaration, so that arguments agree in number, order and size;
        // it borrows the tensors, which are on this GPU. That sizes fit their shapes is each op's to see to, as
        // that a slice fits is of code behind it; the checked build of the kernels tests it for all cases.
        unsafe { self.gpu.driver().launch(&launch) }
    }
}

impl Gpu {
    /// Where `tensor` is, the argument `name` of `op`, which must be here and have elements of `dtype`.
    pub(crate) fn pointer(
        &self,
        op: &'static str,
        name: &str,
        tensor: &Tensor,
        dtype: DType,
    ) -> Result<DevicePointer> {
        let at = self.place(op, name, tensor)?;
        if tensor.dtype() != dtype {
            let what = format!("{name} is {:?}, not {dtype:?}", tensor.dtype());
            return Err(Error::Argument { op, what });
        }
        Ok(at)
    }

    /// Where `tensor` is, whatever its type.
    fn place(&self, op: &'static str, name: &str, tensor: &Tensor) -> Result<DevicePointer> {
        let elsewhere = match (tensor.gpu(), tensor.device_pointer()) {
            (Some(there), Some(at)) if there == self => return Ok(at),
            (Some(_), _) => "another GPU",
            (None, _) => "the CPU",
        };
        Err(Error::Argument { op, what: format!("{name} is on {elsewhere}") })
    }
}

impl From<u32> for Argument {
    fn from(v: u32) -> Self {
        Self::Number { bits: v.into(), size: 4 }
    }
}

impl From<f32> for Argument {
    fn from(v: f32) -> Self {
        Self::from(v.to_bits())
    }
}

impl From<u64> for Argument {
    fn from(v: u64) -> Self {
        Self::Number { bits: v, size: 8 }
    }
}

/// Starts the one of several kernels with the same arguments that a pattern picks:
/// `launch_one_of!(gpu, grid, match wide { true => a_wide, false => a } { x, y, n: 3 })`.
macro_rules! launch_one_of {
    ($gpu:expr, $grid:expr, match $which:tt { $($pattern:pat => $kernel:ident),+ $(,)? } $fields:tt) => {
        match $which {
            $($pattern => $crate::engine::cuda::kernels::$kernel $fields.launch($gpu, $grid),)+
        }
    };
}
pub(crate) use launch_one_of;
