//! The functions of the NVIDIA driver that are called, found by name in `libcuda`.
//!
//! Every one returns a plain number: a driver newer than the bindings may return codes that they do
//! not know, and an enum of an unknown value is undefined behaviour. All symbols are looked up
//! before the first call, so that an old or foreign library is a message and not a crash. None is
//! younger than CUDA 11.4, and every driver of CUDA 12 has them.
use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::ptr;
use std::sync::OnceLock;

use cudarc::driver::sys::{
    self, CUcontext, CUdevice, CUdeviceptr, CUevent, CUfunction, CUgraph, CUgraphExec, CUmodule,
    CUstream,
};

use super::symbols::functions;
use crate::error::{Error, Report, Result};

/// Codes that mean something to us.
pub(super) mod code {
    pub(in super::super) const SUCCESS: u32 = 0;
    pub(in super::super) const OUT_OF_MEMORY: u32 = 2;
    pub(in super::super) const STUB_LIBRARY: u32 = 34;
    pub(in super::super) const INSUFFICIENT_DRIVER: u32 = 35;
    pub(in super::super) const DEVICE_UNAVAILABLE: u32 = 46;
    pub(in super::super) const NO_DEVICE: u32 = 100;
    pub(in super::super) const INVALID_IMAGE: u32 = 200;
    pub(in super::super) const NO_BINARY_FOR_GPU: u32 = 209;
    pub(in super::super) const INVALID_PTX: u32 = 218;
    pub(in super::super) const UNSUPPORTED_PTX_VERSION: u32 = 222;
    pub(in super::super) const NOT_FOUND: u32 = 500;
    pub(in super::super) const NOT_READY: u32 = 600;
    pub(in super::super) const SYSTEM_NOT_READY: u32 = 802;
    pub(in super::super) const SYSTEM_DRIVER_MISMATCH: u32 = 803;
    pub(in super::super) const STREAM_CAPTURE: std::ops::RangeInclusive<u32> = 900..=908;
    /// Faults of a kernel that ran earlier.
    pub(in super::super) const FAULTS: std::ops::RangeInclusive<u32> = 700..=720;
}

functions! {
    /// The driver's functions, each under its name without `cu`.
    Api:
    init = "cuInit"(c_uint);
    driver_get_version = "cuDriverGetVersion"(*mut c_int);
    get_error_name = "cuGetErrorName"(u32, *mut *const c_char);
    get_error_string = "cuGetErrorString"(u32, *mut *const c_char);
    device_get_count = "cuDeviceGetCount"(*mut c_int);
    device_get = "cuDeviceGet"(*mut CUdevice, c_int);
    device_get_name = "cuDeviceGetName"(*mut c_char, c_int, CUdevice);
    device_get_attribute = "cuDeviceGetAttribute"(*mut c_int, u32, CUdevice);
    device_total_mem = "cuDeviceTotalMem_v2"(*mut usize, CUdevice);
    primary_ctx_retain = "cuDevicePrimaryCtxRetain"(*mut CUcontext, CUdevice);
    primary_ctx_release = "cuDevicePrimaryCtxRelease_v2"(CUdevice);
    ctx_set_current = "cuCtxSetCurrent"(CUcontext);
    mem_get_info = "cuMemGetInfo_v2"(*mut usize, *mut usize);
    mem_alloc = "cuMemAlloc_v2"(*mut CUdeviceptr, usize);
    mem_free = "cuMemFree_v2"(CUdeviceptr);
    mem_host_alloc = "cuMemHostAlloc"(*mut *mut c_void, usize, c_uint);
    mem_free_host = "cuMemFreeHost"(*mut c_void);
    memcpy_htod_async = "cuMemcpyHtoDAsync_v2"(CUdeviceptr, *const c_void, usize, CUstream);
    memcpy_dtoh_async = "cuMemcpyDtoHAsync_v2"(*mut c_void, CUdeviceptr, usize, CUstream);
    memcpy_dtod_async = "cuMemcpyDtoDAsync_v2"(CUdeviceptr, CUdeviceptr, usize, CUstream);
    memset_d8_async = "cuMemsetD8Async"(CUdeviceptr, u8, usize, CUstream);
    stream_create = "cuStreamCreate"(*mut CUstream, c_uint);
    stream_destroy = "cuStreamDestroy_v2"(CUstream);
    stream_synchronize = "cuStreamSynchronize"(CUstream);
    stream_wait_event = "cuStreamWaitEvent"(CUstream, CUevent, c_uint);
    stream_begin_capture = "cuStreamBeginCapture_v2"(CUstream, u32);
    stream_end_capture = "cuStreamEndCapture"(CUstream, *mut CUgraph);
    event_create = "cuEventCreate"(*mut CUevent, c_uint);
    event_destroy = "cuEventDestroy_v2"(CUevent);
    event_record = "cuEventRecord"(CUevent, CUstream);
    event_query = "cuEventQuery"(CUevent);
    event_synchronize = "cuEventSynchronize"(CUevent);
    // The second version of this one is younger than CUDA 12.0.
    event_elapsed_time = "cuEventElapsedTime"(*mut f32, CUevent, CUevent);
    module_load_data_ex =
        "cuModuleLoadDataEx"(*mut CUmodule, *const c_void, c_uint, *mut u32, *mut *mut c_void);
    module_unload = "cuModuleUnload"(CUmodule);
    module_get_function = "cuModuleGetFunction"(*mut CUfunction, CUmodule, *const c_char);
    func_set_attribute = "cuFuncSetAttribute"(CUfunction, u32, c_int);
    launch_kernel = "cuLaunchKernel"(
        CUfunction, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, CUstream,
        *mut *mut c_void, *mut *mut c_void,
    );
    graph_destroy = "cuGraphDestroy"(CUgraph);
    graph_instantiate = "cuGraphInstantiateWithFlags"(*mut CUgraphExec, CUgraph, u64);
    graph_launch = "cuGraphLaunch"(CUgraphExec, CUstream);
    graph_exec_destroy = "cuGraphExecDestroy"(CUgraphExec);
}

/// What is said where no GPU can be used.
pub(super) const NO_GPU: &str = "no GPU can be used";

/// The driver that CUDA 12 programs need.
pub(super) const NEEDED: &str = "install NVIDIA driver 525 or newer";

/// The driver's functions, looked up once for the process.
pub(super) fn api() -> Result<&'static Api> {
    static API: OnceLock<std::result::Result<Api, Report>> = OnceLock::new();
    API.get_or_init(load).as_ref().map_err(|report| Error::Device(report.clone()))
}

fn load() -> std::result::Result<Api, Report> {
    // SAFETY: loading runs the library's initialisers, which is what loading a driver means.
    if !unsafe { sys::is_culib_present() } {
        let cause = "the driver library (libcuda.so.1) is not on this machine";
        let help = format!("{NEEDED}, or use --device cpu");
        return Err(Report::new(NO_GPU, cause).help(help));
    }
    // SAFETY: the library is there, so this does not panic; it is never unloaded.
    unsafe { Api::of(sys::culib()) }.map_err(|symbol| {
        let cause = format!("the driver library has no {symbol}: it is too old or no driver");
        Report::new(NO_GPU, cause).help(NEEDED)
    })
}

impl Api {
    /// `Ok` for success, and otherwise an error that says `what` failed, and why.
    pub(super) fn check(&self, status: u32, what: impl FnOnce() -> String) -> Result<()> {
        match status {
            code::SUCCESS => Ok(()),
            _ => Err(self.error(status, what())),
        }
    }

    /// The error for a `status` that is not success.
    pub(super) fn error(&self, status: u32, what: String) -> Error {
        let report = Report::new(what, self.words(status)).help(advice(status));
        match status {
            code::OUT_OF_MEMORY => Error::Memory(report),
            _ => Error::Device(report),
        }
    }

    /// Number, name and description of a status.
    pub(super) fn words(&self, status: u32) -> String {
        let name = text(self.get_error_name, status).unwrap_or_else(|| "unknown".to_owned());
        match text(self.get_error_string, status) {
            Some(meaning) => format!("CUDA error {status} ({name}): {meaning}"),
            None => format!("CUDA error {status} ({name})"),
        }
    }
}

type Describe = unsafe extern "C" fn(u32, *mut *const c_char) -> u32;

fn text(describe: Describe, status: u32) -> Option<String> {
    let mut text = ptr::null();
    // SAFETY: the driver writes null or the address of a constant string.
    let known = unsafe { describe(status, &raw mut text) } == code::SUCCESS && !text.is_null();
    // SAFETY: as above.
    known.then(|| unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned())
}

/// What a user can do about a status; empty if nothing is known.
fn advice(status: u32) -> &'static str {
    match status {
        code::STUB_LIBRARY => {
            "libcuda.so.1 is the toolkit's stub; take its folder out of LD_LIBRARY_PATH"
        }
        code::INSUFFICIENT_DRIVER => NEEDED,
        code::NO_DEVICE => {
            "no NVIDIA GPU is visible: check nvidia-smi, CUDA_VISIBLE_DEVICES, and that a \
             container was started with --gpus all"
        }
        code::DEVICE_UNAVAILABLE => "another process holds the GPU exclusively; see nvidia-smi",
        code::SYSTEM_NOT_READY => "the driver's services are still starting, or need a restart",
        code::SYSTEM_DRIVER_MISMATCH => {
            "driver library and kernel module have different versions: restart the machine"
        }
        999 => "the driver did not start: see nvidia-smi and dmesg; often a restart helps",
        code::OUT_OF_MEMORY => "see nvidia-smi for other programs that use the GPU",
        s if code::FAULTS.contains(&s) => {
            "a kernel that was started earlier failed; CUDA_LAUNCH_BLOCKING=1 shows which. \
             The GPU is unusable until srk is started again"
        }
        s if code::STREAM_CAPTURE.contains(&s) => {
            "something that cannot be recorded ran while a graph was recorded"
        }
        _ => "",
    }
}
