//! One GPU: launches, memory, constants and recorded graphs.
use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use super::driver::{Argument, Description, Driver, Launch, Replay};
use super::libraries::Libraries;
use super::memory::{Arena, Buffer, Memory, Usage};
use super::tuning::Tuner;
use crate::engine::dtype::DType;
use crate::error::{Error, Result};

/// Threads of a block where nothing else is said.
const THREADS: usize = 256;

/// A GPU. Clones are the same device.
#[derive(Clone)]
pub struct Gpu(Arc<Inner>);

struct Inner {
    driver: Arc<dyn Driver>,
    memory: Arc<Memory>,
    constants: Mutex<HashMap<String, Constant>>,
    poison: AtomicBool,
    recording: AtomicBool,
    tuner: OnceLock<Tuner>,
}

type Constant = (Arc<Buffer>, Vec<usize>);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Gpu {
    /// The GPU behind `driver`.
    pub fn new(driver: Arc<dyn Driver>) -> Self {
        let memory = Arc::new(Memory::new(Arc::clone(&driver)));
        Self(Arc::new(Inner {
            driver,
            memory,
            constants: Mutex::default(),
            poison: AtomicBool::new(false),
            recording: AtomicBool::new(false),
            tuner: OnceLock::new(),
        }))
    }

    /// What it is.
    pub fn describe(&self) -> &Description {
        self.0.driver.describe()
    }

    /// Major and minor compute capability.
    pub fn compute_capability(&self) -> (u32, u32) {
        self.describe().compute_capability
    }

    /// Streaming multiprocessors.
    pub fn multiprocessors(&self) -> usize {
        self.describe().multiprocessors
    }

    /// The seam under this device.
    pub fn driver(&self) -> &dyn Driver {
        &*self.0.driver
    }

    /// Memory that tensors hold and held.
    pub fn usage(&self) -> Usage {
        self.0.memory.usage()
    }

    /// When on, fresh memory is all ones (NaN in every format), so that unwritten elements show.
    pub fn poison(&self, on: bool) {
        self.0.poison.store(on, Ordering::Relaxed);
    }

    /// `bytes` of device memory of unspecified content.
    pub fn allocate(&self, bytes: usize) -> Result<Buffer> {
        let buffer = self.0.memory.allocate(bytes)?;
        if self.0.poison.load(Ordering::Relaxed) {
            self.driver().fill(buffer.pointer(), 0xff, bytes)?;
        }
        Ok(buffer)
    }

    /// Starts `entry` in its version for tensors of `dtype`.
    pub fn launch(&self, entry: &str, dtype: DType, grid: Grid, args: &[Arg]) -> Result<()> {
        let suffix = match dtype {
            DType::F16 => "f16",
            DType::BF16 => "bf16",
            DType::F32 => "f32",
            DType::F64 => {
                let what = format!("{entry} of F64 tensors on a GPU");
                return Err(Error::Unsupported { op: "launch", what });
            }
        };
        self.launch_untyped(&format!("{entry}_{suffix}"), grid, args)
    }

    /// Starts the kernel `entry`.
    pub fn launch_untyped(&self, entry: &str, grid: Grid, args: &[Arg]) -> Result<()> {
        let too_large = || Error::Unsupported {
            op: "launch",
            what: format!("{entry} of more than 2^31 elements along an axis of the grid"),
        };
        let argument = |a: &Arg| a.0.ok_or_else(too_large);
        let arguments = args.iter().map(argument).collect::<Result<Vec<_>>>()?;
        let limits = [i32::MAX as usize, 65535, 65535];
        if grid.blocks.iter().zip(limits).any(|(&n, limit)| n > limit) {
            return Err(too_large());
        }
        if grid.blocks.contains(&0) {
            return Ok(());
        }
        #[allow(clippy::cast_possible_truncation)]
        // Checked above; blocks have at most 1024 threads.
        let narrow = |v: usize| v as u32;
        self.driver().launch(&Launch {
            kernel: entry,
            grid: grid.blocks.map(narrow),
            block: [narrow(grid.threads), 1, 1],
            shared_bytes: narrow(grid.shared),
            arguments: &arguments,
        })
    }

    /// f32 numbers that are computed once on the host and stay on the device under `key`, and their shape.
    pub(crate) fn constant_buffer(
        &self,
        key: &str,
        shape: &[usize],
        values: impl FnOnce() -> Vec<f32>,
    ) -> Result<Constant> {
        let mut constants = lock(&self.0.constants);
        if let Some((buffer, shape)) = constants.get(key) {
            return Ok((Arc::clone(buffer), shape.clone()));
        }
        let buffer = Arc::new(self.allocate(4 * shape.iter().product::<usize>())?);
        self.driver().upload(buffer.pointer(), bytemuck::cast_slice(&values()))?;
        constants.insert(key.to_owned(), (Arc::clone(&buffer), shape.to_vec()));
        Ok((buffer, shape.to_vec()))
    }

    /// Records what `body` launches, to be replayed on the same tensors. Nothing is done yet; `body`
    /// must neither upload nor download. Every constant must exist: run `body` once before.
    pub fn capture<R>(&self, body: impl FnOnce() -> Result<R>) -> Result<(Graph, R)> {
        let arena = self.0.memory.open_arena();
        self.0.recording.store(true, Ordering::Relaxed);
        let recorded = self.driver().begin_capture().and_then(|()| {
            let result = body();
            // End the recording also after a failure: the stream must become usable again.
            let replay = self.driver().end_capture();
            Ok((replay?, result?))
        });
        self.0.recording.store(false, Ordering::Relaxed);
        self.0.memory.close_arena();
        let (replay, result) = recorded?;
        Ok((Graph { replay, _arena: arena }, result))
    }

    /// Whether a graph is being recorded: nothing is done, so nothing can be measured.
    pub fn is_recording(&self) -> bool {
        self.0.recording.load(Ordering::Relaxed)
    }

    /// Which engine is fastest for a problem on this GPU.
    pub fn tuner(&self) -> &Tuner {
        self.0.tuner.get_or_init(|| {
            let versions = self.driver().libraries().map(Libraries::versions).unwrap_or_default();
            let words = versions.into_iter().map(|(name, version)| format!("{name} {version}"));
            Tuner::new(self.describe(), &words.collect::<Vec<_>>().join(", "))
        })
    }

    /// Waits until all work is done.
    pub fn synchronize(&self) -> Result<()> {
        self.driver().synchronize()
    }
}

impl PartialEq for Gpu {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}
impl Eq for Gpu {}

impl fmt::Debug for Gpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Gpu({})", self.describe().name)
    }
}

/// A recorded sequence of launches with the memory it works in.
#[derive(Debug)]
pub struct Graph {
    replay: Box<dyn Replay>,
    _arena: Arc<Arena>,
}

impl Graph {
    /// Issues the sequence.
    pub fn replay(&self) -> Result<()> {
        self.replay.replay()
    }
}

/// Blocks and threads of a launch.
#[derive(Clone, Copy, Debug)]
pub struct Grid {
    blocks: [usize; 3],
    threads: usize,
    shared: usize,
}

impl Grid {
    /// `blocks` in x, y, z of `threads` each.
    pub const fn new(blocks: [usize; 3], threads: usize) -> Self {
        Self { blocks, threads, shared: 0 }
    }

    /// One thread for each of `n` elements, 256 a block.
    pub const fn elements(n: usize) -> Self {
        Self::new([n.div_ceil(THREADS), 1, 1], THREADS)
    }

    /// One thread for 16 bytes of `n` elements of `dtype`, 256 a block: for `kernels/elementwise.cuh`.
    pub const fn packs(n: usize, dtype: DType) -> Self {
        Self::elements(n.div_ceil(16 / dtype.size()))
    }

    /// The same with `bytes` of dynamic shared memory a block.
    pub const fn shared(self, bytes: usize) -> Self {
        Self { shared: bytes, ..self }
    }
}

/// A kernel argument; none if a number does not fit a kernel's `int`.
#[derive(Clone, Copy, Debug)]
pub struct Arg(pub(in crate::engine) Option<Argument>);

impl Arg {
    /// A null pointer: an optional tensor that is absent.
    pub const NULL: Self = Self(Some(Argument { bits: 0, size: 8 }));
}

impl From<i32> for Arg {
    fn from(v: i32) -> Self {
        Self(Some(Argument { bits: u64::from(v.cast_unsigned()), size: 4 }))
    }
}

impl From<usize> for Arg {
    fn from(v: usize) -> Self {
        i32::try_from(v).map_or(Self(None), Self::from)
    }
}

impl From<bool> for Arg {
    fn from(v: bool) -> Self {
        Self::from(i32::from(v))
    }
}

impl From<f32> for Arg {
    fn from(v: f32) -> Self {
        Self(Some(Argument { bits: u64::from(v.to_bits()), size: 4 }))
    }
}

#[allow(clippy::cast_possible_truncation)] // Kernels compute in f32.
impl From<f64> for Arg {
    fn from(v: f64) -> Self {
        Self::from(v as f32)
    }
}

impl From<u64> for Arg {
    fn from(v: u64) -> Self {
        Self(Some(Argument { bits: v, size: 8 }))
    }
}
