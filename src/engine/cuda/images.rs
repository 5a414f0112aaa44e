//! The kernels of this build.
use crate::error::{Error, Report, Result};

/// Where the kernels in this binary come from, or why there are none.
pub fn origin() -> &'static str {
    "none"
}

/// The embedded architectures.
pub fn architectures() -> Vec<String> {
    Vec::new()
}

/// The kernels of one file, for one architecture.
#[derive(Clone, Debug)]
pub struct Module {
    /// The file's name without `.cu`.
    pub stem: String,
    /// What the driver loads.
    pub bytes: Vec<u8>,
}

/// All kernels for a compute capability.
///
/// # Errors
/// If this build has none for it.
pub fn modules(_arch: (u32, u32)) -> Result<Vec<Module>> {
    let report = Report::new("no GPU can be used", "this build of srk has no CUDA kernels");
    Err(Error::Device(report.help("use --device cpu")))
}
