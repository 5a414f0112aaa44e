//! The kernels of one device, in the order of their table: modules are loaded when one of their kernels is first asked
//! for, and later launches find the driver's handle by its index, without a lock.
use std::ffi::{CString, c_int, c_void};
use std::ptr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use cudarc::driver::sys::{CUfunction, CUmodule};

use super::api::{Api, code};
use super::context::Context;
use crate::engine::cuda::images::Module;
use crate::engine::cuda::kernel::Kernel;
use crate::engine::cuda::kernels::TABLE;
use crate::error::{Error, Report, Result};

/// Shared memory a block may have without being asked for.
const SHARED_BY_DEFAULT: u32 = 48 << 10;
/// `CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES`
const MAX_DYNAMIC_SHARED: u32 = 8;
/// `CU_JIT_ERROR_LOG_BUFFER` and its size.
const LOG_OPTIONS: [u32; 2] = [5, 6];
/// Bytes for what the driver's compiler says.
const LOG: usize = 4096;

/// The kernels of one device.
#[derive(Debug)]
pub(super) struct Kernels {
    context: Arc<Context>,
    compute_capability: (u32, u32),
    modules: Mutex<Vec<Lazy>>,
    /// By [`Kernel::index`].
    functions: Vec<OnceLock<Function>>,
}

/// An image, and its module once it is loaded.
#[derive(Debug)]
struct Lazy {
    image: Module,
    loaded: Option<CUmodule>,
}

/// A loaded kernel and the dynamic shared memory it has been granted.
#[derive(Debug)]
struct Function {
    kernel: &'static Kernel,
    raw: CUfunction,
    shared: AtomicU32,
}

// SAFETY: the driver lets any thread with the context use modules and functions; our own state is
// behind a lock.
unsafe impl Send for Kernels {}
// SAFETY: as above.
unsafe impl Sync for Kernels {}

impl Kernels {
    pub(super) fn new(
        context: &Arc<Context>,
        compute_capability: (u32, u32),
        images: Vec<Module>,
    ) -> Self {
        let modules = images.into_iter().map(|image| Lazy { image, loaded: None }).collect();
        let functions = TABLE.iter().map(|_| OnceLock::new()).collect();
        let modules = Mutex::new(modules);
        Self { context: Arc::clone(context), compute_capability, modules, functions }
    }

    fn modules(&self) -> MutexGuard<'_, Vec<Lazy>> {
        self.modules.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Loads the smallest module: whether the driver takes the images at all is known now.
    pub(super) fn probe(&self) -> Result<()> {
        match self.modules().iter_mut().min_by_key(|m| m.image.bytes.len()) {
            Some(smallest) => self.load(smallest).map(|_| ()),
            None => {
                let report = Report::new("no GPU can be used", "this build has no GPU kernels");
                Err(Error::Device(report.help("use --device cpu")))
            }
        }
    }

    /// The driver's handle of `kernel`, allowed `shared` bytes of dynamic shared memory.
    pub(super) fn function(&self, kernel: &'static Kernel, shared: u32) -> Result<CUfunction> {
        let slot = self.functions.get(kernel.index()).ok_or_else(|| missing(kernel))?;
        let function = match slot.get() {
            Some(function) => function,
            None => {
                let (raw, shared) = (self.find(kernel)?, AtomicU32::new(SHARED_BY_DEFAULT));
                slot.get_or_init(|| Function { kernel, raw, shared })
            }
        };
        if shared > function.shared.load(Ordering::Relaxed) {
            self.grant(function, shared)?;
        }
        Ok(function.raw)
    }

    /// The name of the kernel at `index`, if it was loaded.
    pub(super) fn name(&self, index: usize) -> Option<&'static str> {
        Some(self.functions.get(index)?.get()?.kernel.name())
    }

    fn grant(&self, function: &Function, shared: u32) -> Result<()> {
        // One at a time: what the driver was told last must be the most.
        let _modules = self.modules();
        if shared <= function.shared.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.context.bind()?;
        let (bytes, name) = (c_int::try_from(shared).unwrap_or(c_int::MAX), function.kernel.name());
        let api = self.context.api;
        // SAFETY: the function belongs to a module that stays loaded.
        let status = unsafe { (api.func_set_attribute)(function.raw, MAX_DYNAMIC_SHARED, bytes) };
        api.check(status, || {
            format!("kernel {name}: {shared} bytes of shared memory for a block")
        })?;
        function.shared.store(shared, Ordering::Relaxed);
        Ok(())
    }

    /// Asks the driver for `kernel`, and loads its module first if need be.
    fn find(&self, kernel: &Kernel) -> Result<CUfunction> {
        let symbol = CString::new(kernel.name())
            .map_err(|e| Error::Device(Report::new(format!("no kernel {}", kernel.name()), e)))?;
        let mut modules = self.modules();
        let module = modules.iter_mut().find(|module| module.image.stem == kernel.module());
        let raw = self.load(module.ok_or_else(|| missing(kernel))?)?;
        let mut function = ptr::null_mut();
        let api = self.context.api;
        // SAFETY: the module is loaded; the out-pointer is a local, the name ends in a zero.
        let status = unsafe { (api.module_get_function)(&raw mut function, raw, symbol.as_ptr()) };
        if status == code::NOT_FOUND {
            return Err(missing(kernel));
        }
        api.check(status, || format!("cannot find kernel {}", kernel.name()))?;
        Ok(function)
    }

    fn load(&self, module: &mut Lazy) -> Result<CUmodule> {
        if let Some(raw) = module.loaded {
            return Ok(raw);
        }
        self.context.bind()?;
        let raw = load_image(self.context.api, &module.image.bytes).map_err(|(status, log)| {
            let stem: &str = module.image.stem.as_ref();
            self.refused(stem, status, &log)
        })?;
        module.loaded = Some(raw);
        Ok(raw)
    }

    fn refused(&self, stem: &str, status: u32, log: &str) -> Error {
        let (major, minor) = self.compute_capability;
        let what = format!("cannot load the kernels of {stem}");
        let cause = match log.is_empty() {
            true => self.context.api.words(status),
            false => format!("{}; {log}", self.context.api.words(status)),
        };
        let help = match status {
            code::OUT_OF_MEMORY => return self.context.api.error(status, what),
            code::NO_BINARY_FOR_GPU => {
                format!("this build has no kernels for compute capability {major}.{minor}")
            }
            code::INVALID_IMAGE | code::INVALID_PTX => {
                "the kernels in this binary are damaged or too new for the driver: install srk \
                 again, or a newer NVIDIA driver"
                    .to_owned()
            }
            code::UNSUPPORTED_PTX_VERSION => {
                format!("the driver is too old to compile kernels for {major}.{minor}: update it")
            }
            _ => String::new(),
        };
        Error::Device(Report::new(what, cause).help(help))
    }
}

/// The error of a kernel that this build should have.
fn missing(kernel: &Kernel) -> Error {
    let cause = format!("the module {} of this build does not have it", kernel.module());
    let report = Report::new(format!("no kernel {}", kernel.name()), cause);
    Error::Device(report.help("the kernels and srk are of different versions; rebuild"))
}

/// A module, or the status and what the driver's compiler said.
fn load_image(api: &Api, image: &[u8]) -> std::result::Result<CUmodule, (u32, String)> {
    // Words for the alignment that images of several architectures need, and a zero behind text.
    let mut aligned = vec![0u64; image.len() / 8 + 1];
    bytemuck::cast_slice_mut(&mut aligned)[..image.len()].copy_from_slice(image);
    let mut log = vec![0u8; LOG];
    let mut values: [*mut c_void; 2] = [log.as_mut_ptr().cast(), ptr::without_provenance_mut(LOG)];
    let mut options = LOG_OPTIONS;
    let mut module = ptr::null_mut();
    // SAFETY: the image ends in a zero; the options are a log buffer and its size, as the driver's
    // documentation has them; all outlive the call.
    let status = unsafe {
        (api.module_load_data_ex)(
            &raw mut module,
            aligned.as_ptr().cast(),
            2,
            options.as_mut_ptr(),
            values.as_mut_ptr(),
        )
    };
    if status == code::SUCCESS {
        return Ok(module);
    }
    let said = log.split(|&b| b == 0).next().unwrap_or_default();
    Err((status, String::from_utf8_lossy(said).trim().to_owned()))
}

impl Drop for Kernels {
    fn drop(&mut self) {
        if self.context.bind().is_err() {
            return;
        }
        let modules = self.modules.get_mut().unwrap_or_else(PoisonError::into_inner);
        for module in modules.iter().filter_map(|m| m.loaded) {
            // SAFETY: loaded by `load`, unloaded once; streams that used it are finished.
            unsafe { (self.context.api.module_unload)(module) };
        }
    }
}
