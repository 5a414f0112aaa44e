//! The seam's functions, on one stream of one GPU.
use std::env;
use std::ffi::c_void;
use std::fmt;
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use cudarc::driver::sys::{CUdevice, CUgraph, CUgraphExec};

use super::api::{Api, code};
use super::arriving::{self, Rooms};
use super::context::{Context, Event, Stream};
use super::kernels::Kernels;
use super::libraries::Beside;
use super::nccl::{self, Nccl};
use super::staging::Staging;
use super::tensor_maps;
use super::uploads::UploadsBeside;
use crate::engine::cuda::driver::{
    Arriving, Collective, Description, DevicePointer, Driver, Launch, Members, Replay, There,
    Uploads,
};
use crate::engine::cuda::images::Module;
use crate::engine::cuda::libraries::Libraries;
use crate::engine::cuda::tensor_map::TensorMap;
use crate::error::{Error, Report, Result};

/// `CU_STREAM_CAPTURE_MODE_RELAXED`: device memory may be allocated while a graph is recorded.
const RELAXED: u32 = 2;

/// A GPU behind the NVIDIA driver. Fields are dropped in order: the context last.
pub(super) struct Nvidia {
    kernels: Arc<Kernels>,
    libraries: OnceLock<Beside>,
    staging: Mutex<Staging>,
    rooms: Rooms,
    stream: Arc<Stream>,
    /// The thread that records a graph; 0 for none.
    capturing: AtomicUsize,
    /// The index of the kernel that was started last.
    last_kernel: AtomicUsize,
    /// Whether freed memory is kept: `SRK_CUDA_RECYCLE=0` gives each tensor memory of its own, for compute-sanitizer.
    recycles: bool,
    description: Description,
}

impl Nvidia {
    pub(super) fn new(
        api: &'static Api,
        device: CUdevice,
        description: Description,
        images: Vec<Module>,
    ) -> Result<Self> {
        let context = Context::new(api, device)?;
        let kernels = Arc::new(Kernels::new(&context, description.compute_capability, images));
        kernels.probe()?;
        Ok(Self {
            kernels,
            libraries: OnceLock::new(),
            staging: Mutex::default(),
            rooms: Rooms::default(),
            stream: Stream::new(&context)?,
            capturing: AtomicUsize::new(0),
            last_kernel: AtomicUsize::new(usize::MAX),
            recycles: env::var_os("SRK_CUDA_RECYCLE").is_none_or(|value| value != "0"),
            description,
        })
    }

    fn context(&self) -> &Arc<Context> {
        &self.stream.context
    }

    /// What of the copies through host memory cannot be part of a graph.
    fn not_while_recording(&self, what: &str) -> Result<()> {
        match self.capturing.load(Ordering::Relaxed) {
            0 => Ok(()),
            _ => Err(recording(what)),
        }
    }

    /// What this thread issues would be part of the graph that another one records.
    fn not_while_another_records(&self, what: &str) -> Result<()> {
        match self.capturing.load(Ordering::Relaxed) {
            0 => Ok(()),
            by if by == this_thread() => Ok(()),
            _ => Err(recording(what)),
        }
    }

    /// Adds to the fault of a kernel which one was started last: it failed, or one before it.
    fn blame(&self, error: Error) -> Error {
        let Error::Device(mut report) = error else { return error };
        let last = self.kernels.name(self.last_kernel.load(Ordering::Relaxed));
        if let Some(last) = last.filter(|_| code::FAULTS.clone().any(|c| is(&report, c))) {
            report.cause += &format!("; the last kernel that was started is {last}");
        }
        Error::Device(report)
    }
}

fn recording(what: &str) -> Error {
    Error::Device(Report::new(format!("cannot {what}"), "a graph is being recorded"))
}

/// A number of this thread, not 0: the address of something of its own.
fn this_thread() -> usize {
    thread_local!(static HERE: u8 = const { 0 });
    HERE.with(|here| ptr::from_ref(here).addr())
}

/// Whether a report is of the status `code`.
fn is(report: &Report, code: u32) -> bool {
    report.cause.starts_with(&format!("CUDA error {code} "))
}

impl fmt::Debug for Nvidia {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Nvidia({:?})", self.description)
    }
}

impl Driver for Nvidia {
    fn describe(&self) -> &Description {
        &self.description
    }

    fn allocate(&self, bytes: usize) -> Result<DevicePointer> {
        self.context().allocate(bytes.max(1)).map(DevicePointer::new).map_err(|e| match e {
            Error::Memory(mut report) => {
                if let Ok((free, total)) = self.memory() {
                    report.cause += &format!(" ({} of {} MiB free)", free >> 20, total >> 20);
                }
                Error::Memory(report)
            }
            other => self.blame(other),
        })
    }

    unsafe fn free(&self, at: DevicePointer) {
        self.context().free(at.address());
    }

    fn recycles(&self) -> bool {
        self.recycles
    }

    fn memory(&self) -> Result<(usize, usize)> {
        self.context().memory()
    }

    unsafe fn upload(&self, to: DevicePointer, from: &[u8]) -> Result<()> {
        self.not_while_recording("copy to the GPU")?;
        self.context().bind()?;
        let mut staging = self.staging.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: as asked of this function.
        unsafe { staging.upload(&self.stream, to, from) }.map_err(|e| self.blame(e))
    }

    unsafe fn download(&self, from: DevicePointer, to: &mut [u8]) -> Result<()> {
        self.not_while_recording("copy from the GPU")?;
        self.context().bind()?;
        let mut staging = self.staging.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: as asked of this function.
        unsafe { staging.download(&self.stream, from, to) }.map_err(|e| self.blame(e))
    }

    unsafe fn download_later(
        &self,
        from: DevicePointer,
        bytes: usize,
    ) -> Result<Box<dyn Arriving>> {
        self.not_while_recording("copy from the GPU")?;
        if bytes > arriving::MOST {
            let mut there = vec![0; bytes];
            // SAFETY: as asked of this function.
            unsafe { self.download(from, &mut there)? };
            return Ok(Box::new(There(there)));
        }
        // SAFETY: as asked of this function.
        unsafe { self.rooms.download(&self.stream, from, bytes) }.map_err(|e| self.blame(e))
    }

    unsafe fn copy(&self, to: DevicePointer, from: DevicePointer, bytes: usize) -> Result<()> {
        self.not_while_another_records("copy on the GPU")?;
        self.stream.call(
            || format!("cannot copy {bytes} bytes on the GPU"),
            // SAFETY: both ranges are valid, as asked of this function; the stream is ours.
            |api, s| unsafe { (api.memcpy_dtod_async)(to.address(), from.address(), bytes, s) },
        )
    }

    unsafe fn fill(&self, at: DevicePointer, byte: u8, bytes: usize) -> Result<()> {
        self.not_while_another_records("fill memory of the GPU")?;
        self.stream.call(
            || format!("cannot fill {bytes} bytes on the GPU"),
            // SAFETY: the range is valid, as asked of this function; the stream is ours.
            |api, s| unsafe { (api.memset_d8_async)(at.address(), byte, bytes, s) },
        )
    }

    unsafe fn launch(&self, launch: &Launch<'_>) -> Result<()> {
        self.not_while_another_records("start a kernel")?;
        let function = self.kernels.function(launch.kernel, launch.shared_bytes)?;
        self.last_kernel.store(launch.kernel.index(), Ordering::Relaxed);
        // The driver reads as many bytes of each as the parameter has.
        let mut arguments: Vec<*mut c_void> =
            launch.arguments.iter().map(|a| a.bytes().as_ptr().cast_mut().cast()).collect();
        let ([gx, gy, gz], [bx, by, bz]) = (launch.grid, launch.block);
        let shared = launch.shared_bytes;
        let what = || {
            let Launch { kernel, grid, block, .. } = launch;
            format!("kernel {} (grid {grid:?}, block {block:?})", kernel.name())
        };
        let launched = self.stream.call(what, |api, s| {
            let arguments = arguments.as_mut_ptr();
            // SAFETY: there is one pointer for each parameter of the kernel, to at least its size;
            // they are read before the call returns. What they point to is valid, as asked of this function.
            unsafe {
                (api.launch_kernel)(
                    function,
                    gx,
                    gy,
                    gz,
                    bx,
                    by,
                    bz,
                    shared,
                    s,
                    arguments,
                    ptr::null_mut(),
                )
            }
        });
        launched.map_err(|e| self.blame(e))
    }

    fn has_tensor_maps(&self) -> bool {
        self.description.compute_capability == (9, 0) && tensor_maps::encoders().is_some()
    }

    fn tensor_map(&self, map: &TensorMap) -> Result<[u64; 16]> {
        self.context().bind()?;
        tensor_maps::encode(self.context().api, map)
    }

    fn synchronize(&self) -> Result<()> {
        // What is being recorded does not run, and everything before it is done.
        self.not_while_another_records("wait for the GPU")?;
        if self.capturing.load(Ordering::Relaxed) != 0 {
            return Ok(());
        }
        self.stream.synchronize().map_err(|e| self.blame(e))
    }

    fn begin_capture(&self) -> Result<()> {
        self.not_while_recording("record a graph")?;
        self.synchronize()?;
        self.stream.call(
            || "cannot record a graph".to_owned(),
            // SAFETY: the stream is ours and not recording.
            |api, s| unsafe { (api.stream_begin_capture)(s, RELAXED) },
        )?;
        self.capturing.store(this_thread(), Ordering::Relaxed);
        Ok(())
    }

    fn end_capture(&self) -> Result<Box<dyn Replay>> {
        self.capturing.store(0, Ordering::Relaxed);
        let mut raw = ptr::null_mut();
        self.stream.call(
            || "cannot finish recording a graph".to_owned(),
            // SAFETY: the stream is ours; the out-pointer is a local.
            |api, s| unsafe { (api.stream_end_capture)(s, &raw mut raw) },
        )?;
        let graph = Recording { raw, context: Arc::clone(self.context()) };
        let (stream, kernels) = (Arc::clone(&self.stream), Arc::clone(&self.kernels));
        Ok(Box::new(Executable { raw: graph.instantiate()?, _kernels: kernels, stream }))
    }

    fn time(&self, work: &mut dyn FnMut() -> Result<()>) -> Result<f64> {
        let (start, end) = (Event::timed(self.context())?, Event::timed(self.context())?);
        start.record(&self.stream)?;
        work()?;
        end.record(&self.stream)?;
        end.wait().map_err(|e| self.blame(e))?;
        end.seconds_since(&start)
    }

    fn libraries(&self) -> Option<&dyn Libraries> {
        Some(self.libraries.get_or_init(|| Beside::new(&self.stream)))
    }

    fn uploads(&self) -> Result<Option<Arc<dyn Uploads>>> {
        Ok(Some(Arc::new(UploadsBeside::new(&self.stream)?)))
    }

    fn collectives(&self) -> std::result::Result<String, String> {
        nccl::version()
    }

    fn meet(&self, members: Members<'_>) -> Result<Arc<dyn Collective>> {
        Ok(Arc::new(Nccl::meet(&self.stream, members)?))
    }
}

impl Drop for Nvidia {
    fn drop(&mut self) {
        // Kernels are unloaded next; none of them may still run.
        let _ = self.stream.synchronize();
    }
}

/// What a stream recorded.
struct Recording {
    raw: CUgraph,
    context: Arc<Context>,
}

impl Recording {
    fn instantiate(&self) -> Result<CUgraphExec> {
        let (api, mut executable) = (self.context.api, ptr::null_mut());
        // SAFETY: the graph is ours; the out-pointer is a local.
        let status = unsafe { (api.graph_instantiate)(&raw mut executable, self.raw, 0) };
        api.check(status, || "cannot prepare a recorded graph".to_owned())?;
        Ok(executable)
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        if !self.raw.is_null() && self.context.bind().is_ok() {
            // SAFETY: the graph is ours; what was instantiated from it is independent.
            unsafe { (self.context.api.graph_destroy)(self.raw) };
        }
    }
}

/// A graph that can be launched. It keeps the kernels that it runs.
struct Executable {
    raw: CUgraphExec,
    _kernels: Arc<Kernels>,
    stream: Arc<Stream>,
}

// SAFETY: the driver lets any thread with the context launch it, one at a time.
unsafe impl Send for Executable {}

impl fmt::Debug for Executable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Executable({:?})", self.raw)
    }
}

impl Replay for Executable {
    unsafe fn replay(&self) -> Result<()> {
        self.stream.call(
            || "cannot replay a recorded graph".to_owned(),
            // SAFETY: graph and stream are alive and of one context; its addresses are valid, as asked of this
            // function.
            |api, s| unsafe { (api.graph_launch)(self.raw, s) },
        )
    }
}

impl Drop for Executable {
    fn drop(&mut self) {
        // A graph may be destroyed only when it does not run.
        if self.stream.synchronize().is_ok() {
            // SAFETY: the graph is ours and does not run.
            unsafe { (self.stream.context.api.graph_exec_destroy)(self.raw) };
        }
    }
}
