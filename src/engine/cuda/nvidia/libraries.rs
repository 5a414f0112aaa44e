//! cuDNN and cuBLASLt as the seam wants them.
use std::sync::Arc;

use super::context::Stream;
use super::cublas::Cublas;
use super::cudnn::Cudnn;
use super::find::{Found, find};
use crate::engine::cuda::driver::DevicePointer;
use crate::engine::cuda::libraries::{Convolution, Libraries, Product};
use crate::error::{Error, Report, Result};

/// The libraries beside the driver, or for each the reason why it is not used.
#[derive(Debug)]
pub(super) struct Beside {
    cudnn: std::result::Result<Cudnn, String>,
    cublas: std::result::Result<Cublas, String>,
}

impl Beside {
    pub(super) fn new(stream: &Arc<Stream>) -> Self {
        let found = find();
        let path = |name: &str| found.iter().find(|f| f.name == name);
        Self {
            cudnn: open(path("cudnn"), |found| Cudnn::new(stream, found)),
            cublas: open(path("cublas"), |found| Cublas::new(stream, found)),
        }
    }
}

/// `make`, if the library was found.
fn open<T>(
    found: Option<&Found>,
    make: impl FnOnce(&Found) -> std::result::Result<T, String>,
) -> std::result::Result<T, String> {
    let found = found.ok_or(
        "it was not found; SRK_CUDA_LIBRARIES can name its folder, or activate a Python \
         environment that has it",
    )?;
    make(found).map_err(|why| format!("{}: {why}", found.path.display()))
}

fn missing(name: &str, why: &str) -> Error {
    Error::Device(Report::new(format!("{name} cannot be used"), why))
}

impl Libraries for Beside {
    fn versions(&self) -> Vec<(&'static str, String)> {
        let cudnn = self.cudnn.as_ref().ok().map(|l| ("cudnn", l.version()));
        let cublas = self.cublas.as_ref().ok().map(|l| ("cublas", l.version()));
        cudnn.into_iter().chain(cublas).collect()
    }

    fn why_not(&self, name: &str) -> String {
        let why = match name {
            "cudnn" => self.cudnn.as_ref().err(),
            "cublas" => self.cublas.as_ref().err(),
            _ => None,
        };
        why.cloned().unwrap_or_default()
    }

    fn plans(&self, problem: &Convolution) -> usize {
        self.cudnn.as_ref().map_or(0, |cudnn| cudnn.plans(problem))
    }

    unsafe fn convolve(
        &self,
        problem: &Convolution,
        plan: usize,
        tensors: [DevicePointer; 3],
    ) -> Result<()> {
        let cudnn = self.cudnn.as_ref().map_err(|why| missing("cuDNN", why))?;
        // SAFETY: as asked of this function.
        unsafe { cudnn.convolve(problem, plan, tensors) }
    }

    fn multiplies(&self, product: &Product) -> bool {
        self.cublas.as_ref().is_ok_and(|cublas| cublas.supports(product))
    }

    unsafe fn multiply(&self, product: &Product, tensors: [DevicePointer; 3]) -> Result<()> {
        let cublas = self.cublas.as_ref().map_err(|why| missing("cuBLASLt", why))?;
        // SAFETY: as asked of this function.
        unsafe { cublas.multiply(product, tensors) }
    }
}
