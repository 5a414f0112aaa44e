//! Kernels by name: modules are loaded when one of their kernels is first asked for.
use std::collections::HashMap;
use std::ffi::{CStr, CString, c_int, c_void};
use std::ptr;
use std::sync::{Arc, Mutex, PoisonError};

use cudarc::driver::sys::{CUfunction, CUmodule};

use super::api::{Api, code};
use super::context::Context;
use crate::engine::cuda::images::Module;
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
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    modules: Vec<Lazy>,
    functions: HashMap<String, Function>,
}

/// An image, and its module once it is loaded.
#[derive(Debug)]
struct Lazy {
    image: Module,
    loaded: Option<CUmodule>,
}

/// A kernel and the dynamic shared memory it has been granted.
#[derive(Clone, Copy, Debug)]
struct Function {
    raw: CUfunction,
    shared: u32,
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
        let state = Mutex::new(State { modules, functions: HashMap::new() });
        Self { context: Arc::clone(context), compute_capability, state }
    }

    /// Loads the smallest module: whether the driver takes the images at all is known now.
    pub(super) fn probe(&self) -> Result<()> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match state.modules.iter_mut().min_by_key(|m| m.image.bytes.len()) {
            Some(smallest) => self.load(smallest).map(|_| ()),
            None => {
                let report = Report::new("no GPU can be used", "this build has no GPU kernels");
                Err(Error::Device(report.help("use --device cpu")))
            }
        }
    }

    /// The kernel `name`, allowed `shared` bytes of dynamic shared memory.
    pub(super) fn function(&self, name: &str, shared: u32) -> Result<CUfunction> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mut function = match state.functions.get(name) {
            Some(&function) => function,
            None => {
                Function { raw: self.find(&mut state.modules, name)?, shared: SHARED_BY_DEFAULT }
            }
        };
        if shared > function.shared {
            self.grant(function.raw, name, shared)?;
            function.shared = shared;
        }
        if state.functions.get(name).is_none_or(|known| known.shared != function.shared) {
            state.functions.insert(name.to_owned(), function);
        }
        Ok(function.raw)
    }

    fn grant(&self, function: CUfunction, name: &str, shared: u32) -> Result<()> {
        self.context.bind()?;
        let bytes = c_int::try_from(shared).unwrap_or(c_int::MAX);
        let api = self.context.api;
        // SAFETY: the function belongs to a module that stays loaded.
        let status = unsafe { (api.func_set_attribute)(function, MAX_DYNAMIC_SHARED, bytes) };
        api.check(status, || format!("kernel {name}: {shared} bytes of shared memory for a block"))
    }

    /// Looks for `name` in the modules whose stem it begins with, longest first, then in the others.
    fn find(&self, modules: &mut [Lazy], name: &str) -> Result<CUfunction> {
        let symbol = CString::new(name)
            .map_err(|e| Error::Device(Report::new(format!("no kernel {name:?}"), e)))?;
        let mut order: Vec<usize> = (0..modules.len()).collect();
        order.sort_by_key(|&i| {
            let stem: &str = modules[i].image.stem.as_ref();
            // Modules that are loaded cost nothing to ask.
            let rank = if name.starts_with(stem) { stem.len() + 1 } else { 0 };
            std::cmp::Reverse((rank, modules[i].loaded.is_some()))
        });
        for i in order {
            if let Some(function) = self.find_in(&mut modules[i], &symbol)? {
                return Ok(function);
            }
        }
        let cause = format!("none of the {} modules of this build has it", modules.len());
        let report = Report::new(format!("no kernel {name}"), cause);
        Err(Error::Device(report.help("the kernels and srk are of different versions; rebuild")))
    }

    fn find_in(&self, module: &mut Lazy, symbol: &CStr) -> Result<Option<CUfunction>> {
        let raw = self.load(module)?;
        let mut function = ptr::null_mut();
        let api = self.context.api;
        // SAFETY: the module is loaded; the out-pointer is a local, the name ends in a zero.
        let status = unsafe { (api.module_get_function)(&raw mut function, raw, symbol.as_ptr()) };
        match status {
            code::NOT_FOUND => Ok(None),
            status => {
                api.check(status, || format!("cannot find kernel {}", symbol.to_string_lossy()))?;
                Ok(Some(function))
            }
        }
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
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        for module in state.modules.iter().filter_map(|m| m.loaded) {
            // SAFETY: loaded by `load`, unloaded once; streams that used it are finished.
            unsafe { (self.context.api.module_unload)(module) };
        }
    }
}
