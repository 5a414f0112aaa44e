//! What the engine asks of a machine that runs kernels.
use std::fmt::Debug;
use std::sync::Arc;

use super::kernel::Kernel;
use super::libraries::Libraries;
pub(super) use super::pointer::DevicePointer;
use super::tensor_map::TensorMap;
use crate::engine::dtype::DType;
use crate::error::{Error, Report, Result};

/// One kernel argument, as `cuLaunchKernel` reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Argument {
    /// A number or an address.
    Number {
        /// The value, in the low bytes.
        bits: u64,
        /// How many bytes of them count: 4 or 8.
        size: u8,
    },
    /// What the driver made of a [`TensorMap`].
    Map([u64; 16]),
}

impl Argument {
    /// The bytes that a kernel reads.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Number { bits, size } => &bytemuck::bytes_of(bits)[..usize::from(*size)],
            Self::Map(words) => bytemuck::cast_slice(words),
        }
    }

    /// The value of eight bytes, which may be an address.
    pub const fn address(&self) -> Option<u64> {
        match self {
            Self::Number { bits, size: 8 } => Some(*bits),
            _ => None,
        }
    }
}

/// A kernel, its grid and its arguments.
#[derive(Clone, Copy, Debug)]
pub struct Launch<'a> {
    /// The entry point.
    pub kernel: &'static Kernel,
    /// Blocks in x, y, z.
    pub grid: [u32; 3],
    /// Threads of a block in x, y, z.
    pub block: [u32; 3],
    /// Dynamic shared memory of a block.
    pub shared_bytes: u32,
    /// In the order of the kernel's parameters.
    pub arguments: &'a [Argument],
}

/// What a GPU is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// As the driver calls it, such as `NVIDIA H200`.
    pub name: String,
    /// Major and minor compute capability.
    pub compute_capability: (u32, u32),
    /// Streaming multiprocessors.
    pub multiprocessors: usize,
    /// Bytes of shared memory that a block may have.
    pub shared_memory: usize,
    /// Device memory in bytes.
    pub memory: usize,
    /// CUDA version of the driver, such as `13.0`.
    pub driver: String,
}

/// A GPU as the engine sees it: one ordered stream of work. Calls return before the work is done,
/// except [`download`](Self::download) and [`synchronize`](Self::synchronize).
///
/// All methods fail with [`Error::Device`](crate::error::Error::Device), naming the driver's reason;
/// [`allocate`](Self::allocate) fails with [`Error::Memory`](crate::error::Error::Memory) when the
/// device is full.
///
/// What takes an address is unsafe: a driver cannot know what lies there, and with unified addresses that may be
/// memory of the host. Tensors, [`Buffer`](super::Buffer) and the [launchers](super::kernels) are the safe way.
///
/// ```compile_fail,E0133
/// # use srk::engine::cuda::{DevicePointer, Driver};
/// fn clear(driver: &dyn Driver) {
///     driver.fill(DevicePointer::new(0x1000), 0, 64).unwrap();
/// }
/// ```
pub trait Driver: Debug + Send + Sync {
    /// What this GPU is.
    fn describe(&self) -> &Description;

    /// `bytes` of device memory, at least 256-byte aligned where the device caches memory.
    fn allocate(&self, bytes: usize) -> Result<DevicePointer>;

    /// Gives memory back, once the work that was issued before is done.
    ///
    /// # Safety
    /// - `at` came from [`allocate`](Self::allocate) of this driver and was not freed since.
    /// - Nothing is issued or replayed afterwards that uses the block.
    unsafe fn free(&self, at: DevicePointer);

    /// Whether freed memory is worth keeping for the next allocation of about its size. An emulator
    /// says no, so that each allocation has bounds of its own to check.
    fn recycles(&self) -> bool {
        true
    }

    /// Tells that a block of memory is another tensor's from here on, whose content nobody knows: for drivers that watch.
    ///
    /// # Safety
    /// The block is one of this driver's memory that is not freed, of at least `bytes`, and what is issued next does not
    /// read what it held.
    unsafe fn renew(&self, _at: DevicePointer, _bytes: usize) -> Result<()> {
        Ok(())
    }

    /// Free and total bytes of device memory.
    fn memory(&self) -> Result<(usize, usize)>;

    /// Copies host memory to the device; `from` may change when the call returns.
    ///
    /// # Safety
    /// `to` begins `from.len()` bytes of one block of this driver's memory that is not freed.
    unsafe fn upload(&self, to: DevicePointer, from: &[u8]) -> Result<()>;

    /// Copies device memory to the host, after all work issued before.
    ///
    /// # Safety
    /// `from` begins `to.len()` bytes of one block of this driver's memory that is not freed.
    unsafe fn download(&self, from: DevicePointer, to: &mut [u8]) -> Result<()>;

    /// The same without a wait: the bytes are what they are after all work issued before, whatever is issued next.
    ///
    /// # Safety
    /// As for [`download`](Self::download), of `bytes` bytes.
    unsafe fn download_later(
        &self,
        from: DevicePointer,
        bytes: usize,
    ) -> Result<Box<dyn Arriving>> {
        let mut there = vec![0; bytes];
        // SAFETY: as asked of this function.
        unsafe { self.download(from, &mut there)? };
        Ok(Box::new(There(there)))
    }

    /// Copies `bytes` within the device.
    ///
    /// # Safety
    /// `to` and `from` each begin `bytes` bytes of one block of this driver's memory that is not freed, and the two
    /// ranges do not overlap.
    unsafe fn copy(&self, to: DevicePointer, from: DevicePointer, bytes: usize) -> Result<()>;

    /// Sets `bytes` to `byte`.
    ///
    /// # Safety
    /// `at` begins `bytes` bytes of one block of this driver's memory that is not freed.
    unsafe fn fill(&self, at: DevicePointer, byte: u8, bytes: usize) -> Result<()>;

    /// Starts a kernel.
    ///
    /// # Safety
    /// - The arguments are the kernel's parameters in number, order and size.
    /// - All that the kernel reads and writes with them lies in blocks of this driver's memory that are not freed,
    ///   and its threads do not write where others read or write unless the kernel orders them.
    unsafe fn launch(&self, launch: &Launch<'_>) -> Result<()>;

    /// Whether kernels can be given tensors to load by the TMA.
    fn has_tensor_maps(&self) -> bool {
        false
    }

    /// What its kernels take for `map`.
    ///
    /// # Errors
    /// If it [has none](Self::has_tensor_maps), or the driver refuses this one.
    fn tensor_map(&self, _map: &TensorMap) -> Result<[u64; 16]> {
        Err(Error::Device(Report::new("no tensor maps", "this GPU has no TMA")))
    }

    /// Waits until all work is done.
    fn synchronize(&self) -> Result<()>;

    /// From here on launches, copies and fills are recorded instead of done.
    fn begin_capture(&self) -> Result<()>;

    /// Ends the recording.
    fn end_capture(&self) -> Result<Box<dyn Replay>>;

    /// Seconds of device time that `work` takes, between two events in the stream.
    fn time(&self, work: &mut dyn FnMut() -> Result<()>) -> Result<f64>;

    /// Libraries that can do some of the work instead of our kernels, looked for at the first call.
    fn libraries(&self) -> Option<&dyn Libraries> {
        None
    }

    /// Uploads that run beside the stream; none where there is but the one.
    ///
    /// # Errors
    /// If a second stream cannot be made.
    fn uploads(&self) -> Result<Option<Arc<dyn Uploads>>> {
        Ok(None)
    }

    /// The library that adds up what GPUs of several processes hold, with its version, or why there is none.
    fn collectives(&self) -> std::result::Result<String, String> {
        Err("this driver knows none".to_owned())
    }

    /// Joins the GPUs of several processes, each of which calls this with its number.
    ///
    /// # Errors
    /// Why there is no such library, or why it does not join them.
    fn meet(&self, _members: Members<'_>) -> Result<Arc<dyn Collective>> {
        let why = self.collectives().err().unwrap_or_default();
        Err(Error::Device(Report::new("cannot join GPUs", why)))
    }
}

/// Bytes on their way from the device.
pub trait Arriving: Debug + Send {
    /// Waits for them.
    fn wait(self: Box<Self>) -> Result<Vec<u8>>;
}

/// Bytes that have arrived.
#[derive(Debug)]
pub(super) struct There(pub(super) Vec<u8>);

impl Arriving for There {
    fn wait(self: Box<Self>) -> Result<Vec<u8>> {
        Ok(self.0)
    }
}

/// Copies from the host that run beside the stream.
pub trait Uploads: Debug + Send + Sync {
    /// Lets the uploads that come next wait for all that was issued so far.
    fn follow(&self) -> Result<()>;

    /// Copies host memory to the device; `from` may change when the call returns.
    ///
    /// # Safety
    /// `to` begins `from.len()` bytes of one block of this driver's memory that is not freed before a
    /// [`join`](Self::join), nor read or written by what is issued from the last [`follow`](Self::follow) until then.
    unsafe fn upload(&self, to: DevicePointer, from: &[u8]) -> Result<()>;

    /// Lets all that is issued next wait for the uploads.
    fn join(&self) -> Result<()>;
}

/// The processes whose GPUs are to be joined.
pub struct Members<'a> {
    /// The number of this one.
    pub rank: usize,
    /// How many there are.
    pub world: usize,
    /// Gives all what the first one gives: they are known to each other by it.
    pub share: &'a mut dyn FnMut(Option<Vec<u8>>) -> Result<Vec<u8>>,
    /// Whether to go on waiting for the others.
    pub goes_on: &'a mut dyn FnMut() -> bool,
}

/// GPUs of several processes. All make the same calls in the same order.
pub trait Collective: Debug + Send + Sync {
    /// Replaces each of `sums`, so many numbers of a type at an address, by its sum over all processes. That is done
    /// beside the stream, behind all that was issued before; what is issued next does not wait for it.
    ///
    /// # Safety
    /// Each lies in a block of this driver's memory that is not freed before a [`join`](Self::join), nor read or
    /// written by what is issued until then.
    unsafe fn all_reduce(&self, sums: &[(DevicePointer, usize, DType)]) -> Result<()>;

    /// Lets all that is issued next wait for the sums.
    fn join(&self) -> Result<()>;

    /// Waits until all work is done: whether it is, or was given up because `goes_on` said no or the library reports a
    /// fault. After that there are no more sums.
    fn settle(&self, goes_on: &mut dyn FnMut() -> bool) -> Result<bool>;
}

/// A recorded sequence of launches, copies and fills.
pub trait Replay: Debug + Send {
    /// Issues the sequence again, on the same addresses.
    ///
    /// # Safety
    /// What was asked of each recorded call holds again: the blocks that it uses are not freed.
    unsafe fn replay(&self) -> Result<()>;
}
