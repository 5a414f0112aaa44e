//! What a configuration asks for, whatever it trains.
use std::collections::BTreeMap;
use std::path::Path;

use super::log::Reporter;
use super::sections::{Best, CkptConfig, EmaConfig, LogConfig, OptimConfig, RunConfig};
use super::stepper::Fewer;
use super::task::Task;
use super::tasks::Source;
use crate::engine::device::Device;
use crate::engine::pool;
use crate::error::Result;

/// A configuration that can be trained.
pub trait Job {
    /// The sections that all have.
    fn shared(&self) -> Shared<'_>;

    /// The configuration with every default written out.
    fn toml(&self) -> String;

    /// What is different from the configuration of the run in `folder`, and may be; see
    /// [`compare_with_existing`](super::settings::compare_with_existing).
    ///
    /// # Errors
    /// Exit code 2 with the keys that differ and may not.
    fn changes(&self, folder: &Path) -> Result<Vec<String>>;

    /// What weights say about themselves after `step` steps.
    fn metadata(&self, step: u64) -> BTreeMap<String, String>;

    /// Makes sure that a run of it goes on from the checkpoint in the folder `checkpoint`.
    ///
    /// # Errors
    /// Exit code 3 if that is damaged or of other networks; 2 if its sizes make no network, 5 if there is no memory for them.
    fn takes(&self, checkpoint: &Path) -> Result<()>;

    /// Builds the networks and reads the images, to train on `device`.
    ///
    /// # Errors
    /// Exit code 2 if its sizes make no network, 5 if there is no memory for them, and if the images cannot be read.
    fn prepare(&self, device: &Device, reporter: &mut dyn Reporter) -> Result<Prepared>;

    /// The images of training and validation in words that differ where they do: how many, their bytes, a hash of the
    /// names and sizes of their files.
    ///
    /// # Errors
    /// If they cannot be found.
    fn listing(&self) -> Result<String>;

    /// Whether networks may compute in half precision on a GPU.
    fn halves(&self) -> bool;
}

/// The sections that all configurations have, and what the loop does by them.
#[derive(Clone, Copy)]
pub struct Shared<'a> {
    /// Name, seed, length.
    pub run: &'a RunConfig,
    /// The optimizer.
    pub optim: &'a OptimConfig,
    /// The moving average.
    pub ema: &'a EmaConfig,
    /// Checkpoints.
    pub ckpt: &'a CkptConfig,
    /// The log.
    pub log: &'a LogConfig,
    /// The measure by which the best checkpoint is kept, if it is.
    pub best: Option<Best>,
    /// Looks without a better one after which the run ends; 0 never.
    pub patience: u64,
    /// Images in a batch.
    pub batch: usize,
    /// What to do where a batch does not fit a GPU.
    pub fewer: Fewer,
}

/// What a run needs before it has a folder.
pub struct Prepared {
    /// What is trained.
    pub(super) task: Box<dyn Task>,
    /// What makes its batches.
    pub(super) source: Source,
    /// Bytes that a step takes at least.
    pub(super) planned: u64,
    /// The images to learn from, as [`Job::listing`] puts it; none if that could not be found out.
    pub(super) images: Option<String>,
}

impl Prepared {
    /// Keeps the buffers of a step on the CPU for the next, which asks for the same ones: fresh memory is cleared by the
    /// kernel page by page. With those in use they are no more than a step is planned to take and some beside.
    pub(super) fn keep_buffers(&self, device: &Device) {
        const BESIDE: u64 = 2 << 30;
        if *device == Device::Cpu {
            let bytes = usize::try_from(self.planned + BESIDE).unwrap_or(usize::MAX);
            pool::limit(bytes);
            pool::budget(bytes);
        }
    }
}
