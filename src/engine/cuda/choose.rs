//! Which device work runs on.
use super::driver::Description;
use super::gpu::Gpu;
use crate::engine::device::Device;
use crate::error::{Error, Report, Result};

/// The GPU number `ordinal`.
///
/// # Errors
/// [`Error::Device`] with the reason if it cannot be used.
#[cfg(feature = "cuda")]
pub fn open(ordinal: usize) -> Result<Gpu> {
    super::nvidia::open(ordinal)
}

/// All GPUs, usable or not, in the driver's order.
///
/// # Errors
/// [`Error::Device`] with the reason if there is no usable driver, or it sees no GPU.
#[cfg(feature = "cuda")]
pub fn devices() -> Result<Vec<Description>> {
    super::nvidia::devices()
}

/// Files of libraries that could do some of the work: cuDNN, cuBLASLt, and for several GPUs NCCL.
#[cfg(feature = "cuda")]
pub fn libraries() -> Vec<std::path::PathBuf> {
    let found = super::nvidia::find().into_iter().chain(super::nvidia::find_nccl());
    found.map(|found| found.path).collect()
}

/// Files of libraries that could do some of the work; this build uses none.
#[cfg(not(feature = "cuda"))]
pub fn libraries() -> Vec<std::path::PathBuf> {
    Vec::new()
}

/// The GPU number `ordinal`; this build can use none.
///
/// # Errors
/// Always.
#[cfg(not(feature = "cuda"))]
pub fn open(_ordinal: usize) -> Result<Gpu> {
    Err(not_built())
}

/// All GPUs; this build can use none.
///
/// # Errors
/// Always.
#[cfg(not(feature = "cuda"))]
pub fn devices() -> Result<Vec<Description>> {
    Err(not_built())
}

#[cfg(not(feature = "cuda"))]
fn not_built() -> Error {
    let report = Report::new("no GPU can be used", "this srk was built without the feature `cuda`");
    Error::Device(report.help("build it with cargo build --release --features cuda"))
}

/// The first GPU that can be used.
///
/// # Errors
/// [`Error::Device`] with the reason why the first one cannot, if none can.
pub fn open_best() -> Result<Gpu> {
    let first = match open(0) {
        Ok(gpu) => return Ok(gpu),
        Err(error) => error,
    };
    let others = devices().map_or(0, |all| all.len());
    (1..others).find_map(|ordinal| open(ordinal).ok()).ok_or(first)
}

/// The device that a user names: `cpu`, `cuda` (the first GPU that can be used), `cuda:1` (that
/// one), or `auto`: a GPU if one can be used, and otherwise the CPU, `note` being told why.
///
/// # Errors
/// [`Error::Usage`] for another name, [`Error::Device`] if the GPU that was named cannot be used.
pub fn choose(name: &str, note: &mut dyn FnMut(&Error)) -> Result<Device> {
    match parse(name)? {
        Wanted::Cpu => Ok(Device::Cpu),
        Wanted::Gpu(None) => Ok(Device::Cuda(open_best()?)),
        Wanted::Gpu(Some(ordinal)) => Ok(Device::Cuda(open(ordinal)?)),
        Wanted::All | Wanted::These(_) => {
            let what = format!("{name} is several GPUs, and this runs on one");
            let report = Report::new(what, "srk upscale alone spreads work over GPUs by itself");
            Err(Error::Usage(report.help("--device cuda:0; srk train --gpus N")))
        }
        Wanted::Best => Ok(open_best().map_or_else(
            |error| {
                note(&error);
                Device::Cpu
            },
            Device::Cuda,
        )),
    }
}

/// The devices that a user names: as [`choose`], or `cuda:all`, or some of them, as `cuda:0,2`.
///
/// # Errors
/// Those of `choose`, for each.
pub fn choose_several(name: &str, note: &mut dyn FnMut(&Error)) -> Result<Vec<Device>> {
    match ordinals(name)? {
        None => Ok(vec![choose(name, note)?]),
        Some(all) => all.into_iter().map(|i| Ok(Device::Cuda(open(i)?))).collect(),
    }
}

/// The numbers of the GPUs that `name` lists; none if it is no name of several.
///
/// # Errors
/// [`Error::Usage`] if it names no device, [`Error::Device`] if all were named and there is none.
pub fn ordinals(name: &str) -> Result<Option<Vec<usize>>> {
    match parse(name)? {
        Wanted::All => Ok(Some((0..devices()?.len()).collect())),
        Wanted::These(ordinals) => Ok(Some(ordinals)),
        _ => Ok(None),
    }
}

/// Whether [`choose_several`] knows `name`; the devices need not exist.
pub fn is_device_name(name: &str) -> bool {
    parse(name).is_ok()
}

#[derive(Debug, PartialEq, Eq)]
enum Wanted {
    Best,
    Cpu,
    Gpu(Option<usize>),
    All,
    These(Vec<usize>),
}

fn parse(name: &str) -> Result<Wanted> {
    let numbers = name.strip_prefix("cuda:").unwrap_or_default();
    let ordinal = numbers.parse().ok();
    let list: Option<Vec<usize>> = numbers.split(',').map(|n| n.parse().ok()).collect();
    let once = |list: &Vec<usize>| (1..list.len()).all(|i| !list[..i].contains(&list[i]));
    match (name, ordinal) {
        ("cuda:all", _) => Ok(Wanted::All),
        ("auto", _) => Ok(Wanted::Best),
        ("cpu", _) => Ok(Wanted::Cpu),
        ("cuda", _) => Ok(Wanted::Gpu(None)),
        (_, Some(ordinal)) => Ok(Wanted::Gpu(Some(ordinal))),
        _ => match list.filter(once) {
            Some(list) => Ok(Wanted::These(list)),
            None => {
                let report = Report::new(format!("there is no device \"{name}\""), "");
                let help =
                    "devices are auto, cpu, cuda, cuda:0, cuda:1 and so on, cuda:0,2, cuda:all";
                Err(Error::Usage(report.help(help)))
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_devices() {
        assert_eq!(parse("auto").unwrap(), Wanted::Best);
        assert_eq!(parse("cpu").unwrap(), Wanted::Cpu);
        assert_eq!(parse("cuda").unwrap(), Wanted::Gpu(None));
        assert_eq!(parse("cuda:12").unwrap(), Wanted::Gpu(Some(12)));
        assert_eq!(parse("cuda:all").unwrap(), Wanted::All);
        assert_eq!(parse("cuda:2,0").unwrap(), Wanted::These(vec![2, 0]));
        let twice = ["cuda:0,0", "cuda:1,2,1", "cuda:0,", "cuda:,", "cuda:0,all"];
        for wrong in ["", "gpu", "cuda:", "cuda:-1", "cuda:x", "CUDA", "cpu:0"].iter().chain(&twice)
        {
            let error = parse(wrong).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{wrong}");
        }
    }
}
