//! One GPU: memory, constants and recorded graphs.
use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use super::driver::{Description, Driver, Replay};
use super::libraries::Libraries;
use super::memory::{Arena, Buffer, Memory, Usage};
use super::tuning::Tuner;
use crate::engine::dtype::DType;
use crate::error::Result;

/// Threads of a block where nothing else is said.
const THREADS: usize = 256;

/// A GPU. Clones are the same device.
#[derive(Clone)]
pub struct Gpu(Arc<Inner>);

struct Inner {
    driver: Arc<dyn Driver>,
    // Dropped in this order: buffers go back to memory that is still there.
    constants: Mutex<HashMap<String, Constant>>,
    memory: Arc<Memory>,
    poison: AtomicBool,
    recording: AtomicBool,
    libraries: OnceLock<bool>,
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
            constants: Mutex::default(),
            memory,
            poison: AtomicBool::new(false),
            recording: AtomicBool::new(false),
            libraries: OnceLock::new(),
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

    /// Bytes of shared memory that a block may have.
    pub fn shared_memory(&self) -> usize {
        self.describe().shared_memory
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
            // SAFETY: the buffer holds at least `bytes` and is alive.
            unsafe { self.driver().fill(buffer.pointer(), 0xff, bytes)? };
        }
        Ok(buffer)
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
        let values = values();
        let buffer = Arc::new(self.allocate(4 * values.len())?);
        // SAFETY: the buffer was made for these values and is alive.
        unsafe { self.driver().upload(buffer.pointer(), bytemuck::cast_slice(&values))? };
        constants.insert(key.to_owned(), (Arc::clone(&buffer), shape.to_vec()));
        Ok((buffer, shape.to_vec()))
    }

    /// Records what `body` launches, to be replayed on the same tensors. Nothing is done yet; `body`
    /// must neither upload nor download. Every constant must exist: run `body` once before.
    pub fn capture<R>(&self, body: impl FnOnce() -> Result<R>) -> Result<(Graph, R)> {
        self.capture_beside(None, body)
    }

    /// The same, in memory that `other` uses only while it is replayed, too: together they take little more than the
    /// larger of them.
    pub fn capture_beside<R>(
        &self,
        other: Option<&Graph>,
        body: impl FnOnce() -> Result<R>,
    ) -> Result<(Graph, R)> {
        let arena = self.0.memory.open_arena(other.map(|graph| Arc::clone(&graph.arena)));
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
        Ok((Graph { replay, arena }, result))
    }

    /// Whether a graph is being recorded: nothing is done, so nothing can be measured.
    pub fn is_recording(&self) -> bool {
        self.0.recording.load(Ordering::Relaxed)
    }

    /// Says, before the first convolution, that libraries are to be measured beside our kernels: opening and measuring them
    /// pays where there is much to do.
    pub fn ask_for_libraries(&self) {
        let _ = self.0.libraries.set(true);
    }

    /// Libraries that may do some of the work: if someone [asked](Self::ask_for_libraries) for them, or choices between them
    /// and our kernels are kept from before. Otherwise they are not even opened.
    pub fn libraries(&self) -> Option<&dyn Libraries> {
        let wanted = || Tuner::file_of(self.describe()).is_some_and(|file| file.exists());
        match *self.0.libraries.get_or_init(wanted) {
            true => self.driver().libraries(),
            false => None,
        }
    }

    /// What was odd about engines since the last call.
    pub fn take_warnings(&self) -> Vec<String> {
        self.0.tuner.get().map(Tuner::take_warnings).unwrap_or_default()
    }

    /// Which engines were chosen here, if any had to be: for [`Tuner::adopt`].
    pub fn choices(&self) -> Option<String> {
        self.0.tuner.get().and_then(Tuner::choices)
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

/// A recorded sequence of launches with the memory that was allocated while it was recorded. Tensors that were there
/// before it does not keep.
#[derive(Debug)]
pub struct Graph {
    replay: Box<dyn Replay>,
    arena: Arc<Arena>,
}

impl Graph {
    /// Issues the sequence.
    ///
    /// # Errors
    /// If the driver cannot start it.
    ///
    /// # Safety
    /// The tensors that the recorded work reads and writes are alive, those excepted that it made and let go itself. What
    /// it gave is kept as long as graphs are recorded beside it.
    pub unsafe fn replay(&self) -> Result<()> {
        // SAFETY: the arena keeps the blocks of the recording, constants stay with the GPU, and the rest is asked of
        // who replays.
        unsafe { self.replay.replay() }
    }
}

/// Blocks and threads of a launch.
#[derive(Clone, Copy, Debug)]
pub struct Grid {
    pub(super) blocks: [usize; 3],
    pub(super) threads: usize,
    pub(super) slices: usize,
    pub(super) shared: usize,
}

impl Grid {
    /// `blocks` in x, y, z of `threads` each.
    pub const fn new(blocks: [usize; 3], threads: usize) -> Self {
        Self { blocks, threads, slices: 1, shared: 0 }
    }

    /// One thread for each of `n` elements, 256 a block.
    pub const fn elements(n: usize) -> Self {
        Self::new([n.div_ceil(THREADS), 1, 1], THREADS)
    }

    /// One thread for 16 bytes of `n` elements of `dtype`, 256 a block: for `kernels/elementwise.cuh`.
    pub const fn packs(n: usize, dtype: DType) -> Self {
        Self::elements(n.div_ceil(16 / dtype.size()))
    }

    /// The same with so many times the threads, groups that tell themselves apart by `threadIdx.y`.
    pub const fn slices(self, slices: usize) -> Self {
        Self { slices, ..self }
    }

    /// The same with `bytes` of dynamic shared memory a block.
    pub const fn shared(self, bytes: usize) -> Self {
        Self { shared: bytes, ..self }
    }
}
