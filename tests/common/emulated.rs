//! The second implementation of the driver: the project's kernels on the processor.
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use cuda_emulation::{Library, Schedule, TensorMap as PlainMap, Variant};
use srk::engine::cuda::{
    Argument, Collective, Description, DevicePointer, Driver, Extent, Gpu, Launch, Members, Replay,
    TensorMap, Uploads,
};
use srk::error::{Error, Report, Result};

use super::beside::{Beside, Issued};
use super::joined::{self, Files, Joined, Numbers};

/// A GPU that runs kernels of `variant` in the order `schedule`.
pub(crate) fn gpu(variant: Variant, schedule: Schedule) -> Gpu {
    Gpu::new(Arc::new(Emulated::new(variant, schedule)))
}

/// A fast one with `bytes` of memory.
pub(crate) fn gpu_of(bytes: usize) -> Gpu {
    let device = Emulated::new(Variant::Plain, Schedule::ALL[0]);
    *device.limit.lock().unwrap() = bytes;
    Gpu::new(Arc::new(device))
}

/// A fast one that joins others through files in `folder`.
pub(crate) fn gpu_among(folder: &Path) -> Gpu {
    let device = Emulated::new(Variant::Plain, Schedule::ALL[0]);
    Gpu::new(Arc::new(Emulated { joined: Some(folder.to_owned()), ..device }))
}

/// A fast one whose stream does not wait for uploads beside it: a bug that tests must see.
pub(crate) fn gpu_that_does_not_wait() -> Gpu {
    let device = Emulated::new(Variant::Plain, Schedule::ALL[0]);
    Gpu::new(Arc::new(Emulated { waits: false, ..device }))
}

/// A fast one that uses memory again, with no number in it that anybody knows.
pub(crate) fn gpu_that_recycles() -> Gpu {
    let device = Emulated::new(Variant::Plain, Schedule::ALL[0]);
    Gpu::new(Arc::new(Emulated { recycles: true, ..device }))
}

/// An emulated GPU.
#[derive(Debug)]
pub(crate) struct Emulated {
    machine: Machine,
    description: Description,
    recording: Arc<Mutex<Option<Vec<Work>>>>,
    /// Bytes that may be allocated; then the device is full.
    pub(crate) limit: Mutex<usize>,
    allocated: Mutex<std::collections::HashMap<u64, usize>>,
    /// Where it joins others, if it does.
    joined: Option<PathBuf>,
    /// What was issued since uploads beside the stream followed it.
    issued: Issued,
    /// Whether the stream waits for them.
    waits: bool,
    /// Whether memory that was given back is used again.
    recycles: bool,
    /// Whether kernels load tensors by the TMA.
    tensor_maps: bool,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Machine {
    library: Library,
    schedule: Schedule,
}

/// What a graph consists of.
#[derive(Clone, Debug)]
pub(crate) enum Work {
    Launch {
        kernel: String,
        grid: [u32; 3],
        block: [u32; 3],
        shared: u32,
        arguments: Vec<Argument>,
    },
    Copy {
        to: DevicePointer,
        from: DevicePointer,
        bytes: usize,
    },
    Fill {
        at: DevicePointer,
        byte: u8,
        bytes: usize,
    },
    /// Numbers there are whoever had the memory before's.
    Forget {
        at: DevicePointer,
        bytes: usize,
    },
    Sums {
        by: Arc<Files>,
        sums: Vec<Numbers>,
    },
    /// What a made-up library does.
    Host(Host),
}

/// What is done with the device's memory.
pub(crate) type OnMachine = dyn Fn(&Machine) -> Result<()> + Send + Sync;

/// Work in the stream that is no kernel's.
#[derive(Clone)]
pub(crate) struct Host(pub(crate) Arc<OnMachine>);

impl std::fmt::Debug for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Host")
    }
}

fn failed(cause: String) -> Error {
    Error::Device(Report::new("the emulated GPU reports an error", cause))
}

impl Emulated {
    /// A device with the kernels of `variant`.
    pub(crate) fn new(variant: Variant, schedule: Schedule) -> Self {
        let library = Library::open(variant).unwrap_or_else(|e| panic!("{e}"));
        let description = Description {
            name: "emulated GPU".into(),
            compute_capability: (9, 0),
            // Few, so that small tensors already make work for several blocks each.
            multiprocessors: 4,
            // Little, so that maps of a few thousand pixels are too large to be held.
            shared_memory: 80 << 10,
            memory: 8 << 30,
            driver: "13.0".into(),
        };
        Self {
            machine: Machine { library, schedule },
            description,
            recording: Arc::default(),
            limit: Mutex::new(8 << 30),
            allocated: Mutex::default(),
            joined: joined::folder(),
            issued: Issued::default(),
            waits: true,
            recycles: false,
            tensor_maps: false,
        }
    }

    /// The same with a TMA, which others have not: else each convolution would be measured, on the emulator.
    pub(crate) fn with_tensor_maps(self) -> Self {
        Self { tensor_maps: true, ..self }
    }

    /// The same with so many bytes of shared memory for a block.
    pub(crate) fn with_shared_memory(mut self, bytes: usize) -> Self {
        self.description.shared_memory = bytes;
        self
    }

    pub(crate) fn issue(&self, work: Work) -> Result<()> {
        if let Work::Launch { kernel, .. } = &work {
            joined::note(kernel);
        }
        if let Some(recorded) = &mut *self.recording.lock().unwrap() {
            recorded.push(work);
            return Ok(());
        }
        self.issued.note(&work);
        self.machine.run(&work)
    }

    fn not_capturing(&self, what: &str) -> Result<()> {
        match &*self.recording.lock().unwrap() {
            Some(_) => Err(failed(format!("{what} while a graph is recorded"))),
            None => Ok(()),
        }
    }
}

impl Machine {
    fn run(&self, work: &Work) -> Result<()> {
        match work {
            Work::Launch { kernel, grid, block, shared, arguments } => {
                let bytes: Vec<&[u8]> = arguments.iter().map(Argument::bytes).collect();
                self.library.launch_with(kernel, *grid, *block, *shared, &bytes, self.schedule)
            }
            Work::Copy { to, from, bytes } => {
                self.library.copy(to.address(), from.address(), *bytes)
            }
            Work::Fill { at, byte, bytes } => self.library.fill(at.address(), *byte, *bytes),
            Work::Forget { at, bytes } => self.library.forget(at.address(), *bytes),
            Work::Sums { by, sums } => return by.reduce(self, sums),
            Work::Host(Host(work)) => return work(self),
        }
        .map_err(failed)
    }

    pub(crate) fn read(&self, from: DevicePointer, to: &mut [u8]) -> Result<()> {
        self.library.download(from.address(), to).map_err(failed)
    }

    pub(crate) fn write(&self, to: DevicePointer, from: &[u8]) -> Result<()> {
        self.library.upload(to.address(), from).map_err(failed)
    }
}

impl Driver for Emulated {
    fn describe(&self) -> &Description {
        &self.description
    }

    fn allocate(&self, bytes: usize) -> Result<DevicePointer> {
        let mut allocated = self.allocated.lock().unwrap();
        let used: usize = allocated.values().sum();
        if used + bytes > *self.limit.lock().unwrap() {
            let cause = format!("{bytes} bytes were wanted beside {used} in use");
            return Err(Error::Memory(Report::new("the GPU's memory is full", cause)));
        }
        let at = self.machine.library.allocate(bytes, "tensor").map_err(failed)?;
        allocated.insert(at, bytes);
        Ok(DevicePointer::new(at))
    }

    unsafe fn free(&self, at: DevicePointer) {
        self.allocated.lock().unwrap().remove(&at.address());
        let _ = self.machine.library.free(at.address());
    }

    fn recycles(&self) -> bool {
        self.recycles
    }

    unsafe fn renew(&self, at: DevicePointer, bytes: usize) -> Result<()> {
        self.issue(Work::Forget { at, bytes })
    }

    fn memory(&self) -> Result<(usize, usize)> {
        let used: usize = self.allocated.lock().unwrap().values().sum();
        let limit = *self.limit.lock().unwrap();
        Ok((limit.saturating_sub(used), limit))
    }

    unsafe fn upload(&self, to: DevicePointer, from: &[u8]) -> Result<()> {
        self.not_capturing("an upload")?;
        self.machine.library.upload(to.address(), from).map_err(failed)
    }

    unsafe fn download(&self, from: DevicePointer, to: &mut [u8]) -> Result<()> {
        self.not_capturing("a download")?;
        self.machine.library.download(from.address(), to).map_err(failed)
    }

    unsafe fn copy(&self, to: DevicePointer, from: DevicePointer, bytes: usize) -> Result<()> {
        self.issue(Work::Copy { to, from, bytes })
    }

    unsafe fn fill(&self, at: DevicePointer, byte: u8, bytes: usize) -> Result<()> {
        self.issue(Work::Fill { at, byte, bytes })
    }

    unsafe fn launch(&self, launch: &Launch<'_>) -> Result<()> {
        self.issue(Work::Launch {
            kernel: launch.kernel.name().to_owned(),
            grid: launch.grid,
            block: launch.block,
            shared: launch.shared_bytes,
            arguments: launch.arguments.to_vec(),
        })
    }

    fn has_tensor_maps(&self) -> bool {
        self.tensor_maps
    }

    fn tensor_map(&self, map: &TensorMap) -> Result<[u64; 16]> {
        let boxes = &map.boxes;
        let (extent, pixels) = match boxes.extent() {
            Extent::Tile(extent) => (extent.to_vec(), None),
            Extent::Pixels { channels, count, lower, upper } => {
                let corners = [lower, upper].map(|corner| [i8::try_from(corner).unwrap(); 2]);
                (vec![channels, count], Some(corners))
            }
        };
        let plain = PlainMap {
            address: map.address.address(),
            element_bytes: u8::try_from(map.dtype.size()).unwrap(),
            swizzle: 128,
            sizes: boxes.sizes()[..boxes.rank()].to_vec(),
            strides: boxes.strides(map.dtype.size())[..boxes.rank() - 1].to_vec(),
            extent,
            pixels,
            traversal: boxes.traversal()[..boxes.rank()].to_vec(),
        };
        Ok(bytemuck::pod_read_unaligned(&plain.bytes()))
    }

    /// As the real one, where what is recorded does not run and everything before is done.
    fn synchronize(&self) -> Result<()> {
        Ok(())
    }

    fn begin_capture(&self) -> Result<()> {
        self.not_capturing("a second recording")?;
        *self.recording.lock().unwrap() = Some(vec![]);
        Ok(())
    }

    fn end_capture(&self) -> Result<Box<dyn Replay>> {
        let work = self.recording.lock().unwrap().take();
        let work = work.ok_or_else(|| failed("no recording to end".into()))?;
        let issued = self.issued.clone();
        Ok(Box::new(Recorded { machine: self.machine, work, issued }))
    }

    fn uploads(&self) -> Result<Option<Arc<dyn Uploads>>> {
        Ok(Some(Arc::new(Beside::new(self.machine, self.issued.clone(), self.waits))))
    }

    fn collectives(&self) -> std::result::Result<String, String> {
        let joins = self.joined.as_ref().map(|_| "0 of a test".to_owned());
        joins.ok_or_else(|| "TEST_JOINED names no folder".to_owned())
    }

    fn meet(&self, members: Members<'_>) -> Result<Arc<dyn Collective>> {
        let files = Files::new(self.joined.clone().unwrap_or_default(), members)?;
        let (machine, recording) = (self.machine, Arc::clone(&self.recording));
        Ok(Arc::new(Joined { files, machine, recording }))
    }

    fn time(&self, work: &mut dyn FnMut() -> Result<()>) -> Result<f64> {
        let start = std::time::Instant::now();
        work()?;
        Ok(start.elapsed().as_secs_f64())
    }
}

#[derive(Debug)]
struct Recorded {
    machine: Machine,
    work: Vec<Work>,
    issued: Issued,
}

impl Replay for Recorded {
    unsafe fn replay(&self) -> Result<()> {
        self.work.iter().for_each(|work| self.issued.note(work));
        self.work.iter().try_for_each(|work| self.machine.run(work))
    }
}
