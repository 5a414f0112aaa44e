//! From a number to a GPU that srk can use, or why it cannot.
use std::ffi::{CStr, c_char, c_int};
use std::sync::Arc;

use cudarc::driver::sys::CUdevice;

use super::super::driver::Description;
use super::super::gpu::Gpu;
use super::super::images;
use super::super::images::Module;
use super::api::{Api, NEEDED, NO_GPU, api};
use super::context::attribute;
use super::driver::Nvidia;
use crate::error::{Error, Report, Result};

/// The oldest `cuDriverGetVersion` that kernels built with CUDA 12 run on.
const OLDEST_DRIVER: c_int = 12000;
/// The oldest compute capability that kernels are written for.
const OLDEST_CAPABILITY: (u32, u32) = (7, 5);

/// `CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT`
const MULTIPROCESSORS: u32 = 16;
/// `CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN`
const SHARED_MEMORY: u32 = 97;
/// `CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR` and `_MINOR`
const CAPABILITY: [u32; 2] = [75, 76];

/// The GPU number `ordinal`, with the kernels of this build.
///
/// # Errors
/// [`Error::Device`] with the reason if it cannot be used.
pub fn open(ordinal: usize) -> Result<Gpu> {
    open_with(ordinal, images::modules)
}

/// The GPU number `ordinal`, with the kernels that `images` has for its compute capability.
///
/// # Errors
/// [`Error::Device`] with the reason if it cannot be used.
pub fn open_with(
    ordinal: usize,
    images: impl FnOnce((u32, u32)) -> Result<Vec<Module>>,
) -> Result<Gpu> {
    let (api, driver) = start()?;
    let count = count(api)?;
    if ordinal >= count {
        return Err(no_such(ordinal, count));
    }
    let device = device(api, ordinal)?;
    let description = describe(api, device, &driver)?;
    suitable(&description)?;
    let images = images(description.compute_capability)?;
    let driver = Nvidia::new(api, device, description, images)?;
    Ok(Gpu::new(Arc::new(driver)))
}

/// All GPUs, usable or not, in the driver's order.
///
/// # Errors
/// [`Error::Device`] with the reason if there is no usable driver, or it sees no GPU.
pub fn devices() -> Result<Vec<Description>> {
    let (api, driver) = start()?;
    (0..count(api)?).map(|ordinal| describe(api, device(api, ordinal)?, &driver)).collect()
}

/// The initialised driver and its CUDA version.
pub(super) fn start() -> Result<(&'static Api, String)> {
    let api = api()?;
    // SAFETY: flags must be 0; may be called any number of times.
    api.check(unsafe { (api.init)(0) }, || NO_GPU.to_owned())?;
    let mut version = 0;
    // SAFETY: the out-pointer is a local.
    let status = unsafe { (api.driver_get_version)(&raw mut version) };
    api.check(status, || NO_GPU.to_owned())?;
    let words = format!("{}.{}", version / 1000, version % 1000 / 10);
    if version < OLDEST_DRIVER {
        let cause = format!("the NVIDIA driver knows CUDA up to {words}; 12.0 is needed");
        return Err(Error::Device(Report::new(NO_GPU, cause).help(NEEDED)));
    }
    Ok((api, words))
}

pub(super) fn count(api: &Api) -> Result<usize> {
    let mut count = 0;
    // SAFETY: the out-pointer is a local.
    let status = unsafe { (api.device_get_count)(&raw mut count) };
    api.check(status, || NO_GPU.to_owned())?;
    match usize::try_from(count) {
        Ok(count) if count > 0 => Ok(count),
        _ => {
            let report = Report::new(NO_GPU, "the NVIDIA driver sees no GPU");
            Err(Error::Device(report.help("see nvidia-smi and CUDA_VISIBLE_DEVICES")))
        }
    }
}

pub(super) fn device(api: &Api, ordinal: usize) -> Result<CUdevice> {
    let mut device = 0;
    let number = c_int::try_from(ordinal).unwrap_or(c_int::MAX);
    // SAFETY: the out-pointer is a local.
    let status = unsafe { (api.device_get)(&raw mut device, number) };
    api.check(status, || format!("cannot open GPU {ordinal}"))?;
    Ok(device)
}

pub(super) fn describe(api: &Api, device: CUdevice, driver: &str) -> Result<Description> {
    let number = |which| usize::try_from(attribute(api, device, which)).unwrap_or(0);
    let [major, minor] = CAPABILITY.map(|which| attribute(api, device, which).unsigned_abs());
    let mut memory = 0;
    // SAFETY: the out-pointer is a local.
    let status = unsafe { (api.device_total_mem)(&raw mut memory, device) };
    api.check(status, || "cannot read the size of the GPU's memory".to_owned())?;
    Ok(Description {
        name: name(api, device)?,
        compute_capability: (major, minor),
        multiprocessors: number(MULTIPROCESSORS),
        shared_memory: number(SHARED_MEMORY),
        memory,
        driver: driver.to_owned(),
    })
}

pub(super) fn name(api: &Api, device: CUdevice) -> Result<String> {
    let mut text: [c_char; 256] = [0; 256];
    // SAFETY: the driver writes at most the given number of bytes, the last of them a zero.
    let status = unsafe { (api.device_get_name)(text.as_mut_ptr(), 255, device) };
    api.check(status, || "cannot read the GPU's name".to_owned())?;
    // SAFETY: `text` ends in a zero whatever was written.
    Ok(unsafe { CStr::from_ptr(text.as_ptr()) }.to_string_lossy().into_owned())
}

fn suitable(gpu: &Description) -> Result<()> {
    if gpu.compute_capability >= OLDEST_CAPABILITY {
        return Ok(());
    }
    let (major, minor) = gpu.compute_capability;
    let cause = format!(
        "the {} has compute capability {major}.{minor}; 7.5 (Turing, 2018) is the oldest supported",
        gpu.name
    );
    Err(Error::Device(Report::new(NO_GPU, cause).help("use --device cpu")))
}

fn no_such(ordinal: usize, count: usize) -> Error {
    let cause = match count {
        1 => "there is one, cuda:0".to_owned(),
        n => format!("there are {n}, cuda:0 to cuda:{}", n - 1),
    };
    Error::Device(Report::new(format!("there is no GPU {ordinal}"), cause).help("see srk doctor"))
}
