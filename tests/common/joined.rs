//! Emulated GPUs of several processes that add up what they hold, through files in a folder that `TEST_JOINED` names.
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use srk::engine::cuda::{Collective, DevicePointer, Members};
use srk::engine::device::DType;
use srk::error::{Error, Report, Result};

use super::emulated::{Machine, Work};

/// The folder, if this process is to join others.
pub(crate) fn folder() -> Option<PathBuf> {
    std::env::var_os("TEST_JOINED").map(PathBuf::from)
}

/// What processes give each other.
#[derive(Debug)]
pub(crate) struct Files {
    folder: PathBuf,
    rank: usize,
    world: usize,
    next: AtomicU64,
}

/// Numbers of a type at an address.
pub(crate) type Numbers = (DevicePointer, usize, DType);

impl Files {
    pub(crate) fn new(folder: PathBuf, members: Members<'_>) -> Result<Arc<Self>> {
        let Members { rank, world, share, .. } = members;
        let told = share((rank == 0).then(|| b"an id".to_vec()))?;
        assert_eq!(told, b"an id");
        Ok(Arc::new(Self { folder, rank, world, next: AtomicU64::new(0) }))
    }

    fn path(&self, number: u64, rank: usize) -> PathBuf {
        self.folder.join(format!("{number}-{rank}"))
    }

    /// Replaces `sums` by their sums over all processes, in the order of the ranks.
    pub(crate) fn reduce(&self, machine: &Machine, sums: &[Numbers]) -> Result<()> {
        for &(at, count, dtype) in sums {
            assert_eq!(dtype, DType::F32, "what is tested with");
            let mut mine = vec![0f32; count];
            machine.read(at, bytemuck::cast_slice_mut(&mut mine))?;
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let path = self.path(number, self.rank);
            fs::write(path.with_extension("part"), bytemuck::cast_slice::<f32, u8>(&mine)).unwrap();
            fs::rename(path.with_extension("part"), &path).unwrap();
            let mut sum = vec![0f32; count];
            for rank in 0..self.world {
                let mut theirs = vec![0f32; count];
                let bytes = wait_for(&self.path(number, rank))?;
                bytemuck::cast_slice_mut(&mut theirs).copy_from_slice(&bytes);
                sum.iter_mut().zip(theirs).for_each(|(sum, v)| *sum += v);
            }
            machine.write(at, bytemuck::cast_slice(&sum))?;
        }
        Ok(())
    }
}

fn wait_for(path: &Path) -> Result<Vec<u8>> {
    let started = Instant::now();
    loop {
        match fs::read(path) {
            Ok(bytes) => return Ok(bytes),
            Err(_) if started.elapsed() < Duration::from_secs(60) => {
                std::thread::sleep(Duration::from_millis(1));
            }
            Err(e) => return Err(Error::Device(Report::new("a process does not come", e))),
        }
    }
}

/// An emulated GPU among those of other processes.
#[derive(Debug)]
pub(crate) struct Joined {
    pub(crate) files: Arc<Files>,
    pub(crate) machine: Machine,
    pub(crate) recording: Arc<Mutex<Option<Vec<Work>>>>,
}

impl Collective for Joined {
    unsafe fn all_reduce(&self, sums: &[Numbers]) -> Result<()> {
        note("reduce");
        if let Some(recorded) = &mut *self.recording.lock().unwrap() {
            recorded.push(Work::Sums { by: Arc::clone(&self.files), sums: sums.to_vec() });
            return Ok(());
        }
        self.files.reduce(&self.machine, sums)
    }

    fn join(&self) -> Result<()> {
        note("join");
        Ok(())
    }

    fn settle(&self, _: &mut dyn FnMut() -> bool) -> Result<bool> {
        Ok(true)
    }
}

/// Writes down what was issued or recorded, in its order, where several are joined.
pub(crate) fn note(what: &str) {
    use std::io::Write;
    let Some(folder) = folder() else { return };
    let rank = std::env::var("RANK").unwrap_or_default();
    let path = folder.join(format!("issued-{rank}"));
    let mut file = fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
    writeln!(file, "{what}").unwrap();
}
