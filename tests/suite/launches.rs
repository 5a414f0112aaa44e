//! The ledger of kernels/launches.txt: how many kernels a network launches on a GPU, and what they move.
//!
//! A driver that allocates nothing and starts nothing writes down what it is asked for, so that any size runs in moments
//! and no GPU is needed. A change of the counts shows in the diff of the file:
//! `SRK_WRITE=1 cargo test --release --test suite launches::` writes it anew. `SRK_LAUNCHES=sr3-div2k` (and `--nocapture`)
//! says which kernels those of a recipe are, and for `benches/cycle_model.py` each launch of a call on `SRK_BATCH` images, with
//! gradients for `benches/cluster_model.py`; with `SRK_CONV=wgmma` those of the kernel for compute capability 9.0 among them.
#![allow(clippy::unwrap_used, clippy::print_stdout)]
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::sync::{Arc, Mutex, OnceLock};

use srk::diffusion::pixel_noise::PixelNoise;
use srk::diffusion::sampler::Diffusion;
use srk::diffusion::system::{System, SystemConfig};
use srk::diffusion::walk::{Walk, condition};
use srk::engine::cuda::{
    Argument, Arriving, Description, DevicePointer, Driver, Gpu, Launch, Replay, TensorMap,
};
use srk::engine::device::{DType, Device};
use srk::engine::tape::Tape;
use srk::engine::tensor::Tensor;
use srk::error::{Error, Result};
use srk::models::weights::WeightsFile;
use srk::models::{ModelConfig, Network};
use srk::ops::conv2d::{Activation, Conv2d, Then};
use srk::training::config::Config;
use srk::training::recipes;
use srk::upscale::{self, Settings, TileSize, Upscaler};

const FILE: &str = "kernels/launches.txt";

/// Addresses begin here, so that no count or size looks like one.
const FIRST: u64 = 1 << 40;

/// Every kernel that was started on any device of this kind.
pub(crate) static STARTED: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// A device that does nothing but count.
#[derive(Debug)]
pub(crate) struct Counting {
    description: Description,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Debug, Default)]
struct Seen {
    next: u64,
    /// Bytes at each address that is allocated.
    blocks: BTreeMap<u64, usize>,
    count: Count,
    /// Launches of the recording in progress, if there is one.
    recording: Option<usize>,
    replayed: usize,
    /// How often work was issued, and how often the host waited while there was none behind what it waited for.
    issued: usize,
    waits: usize,
    /// How often each kernel was launched one by one.
    kernels: BTreeMap<&'static str, usize>,
    /// Each launch one by one: kernel, blocks, bytes of its tensors, and its whole numbers.
    log: Vec<String>,
}

/// What a device was asked for since the last question.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Asked {
    /// Launches one by one.
    pub(crate) launched: usize,
    /// Launches of replayed recordings.
    pub(crate) replayed: usize,
    /// How often the host waited for a device that had nothing else to do.
    pub(crate) waits: usize,
}

/// Launches, and bytes of all memory that they were given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Count {
    launches: usize,
    bytes: usize,
}

impl Seen {
    /// The bytes of the block that an argument points into, if it points anywhere.
    fn bytes_at(&self, address: u64) -> usize {
        let Some((start, bytes)) = self.blocks.range(..=address).next_back() else { return 0 };
        if address < start + *bytes as u64 { *bytes } else { 0 }
    }
}

impl Counting {
    pub(crate) fn new() -> Self {
        let description = Description {
            name: "counting GPU".into(),
            compute_capability: (9, 0),
            multiprocessors: 132,
            shared_memory: 227 << 10,
            memory: 80 << 30,
            driver: "13.0".into(),
        };
        let seen = Seen { next: FIRST, ..Seen::default() };
        Self { description, seen: Arc::new(Mutex::new(seen)) }
    }

    /// What tells how much was asked for since it was last called.
    pub(crate) fn asked(&self) -> impl FnMut() -> Asked + use<> {
        let seen = Arc::clone(&self.seen);
        move || {
            let mut seen = seen.lock().unwrap();
            let launched = std::mem::take(&mut seen.count).launches;
            let waits = std::mem::take(&mut seen.waits);
            Asked { launched, replayed: std::mem::take(&mut seen.replayed), waits }
        }
    }
}

impl Driver for Counting {
    fn describe(&self) -> &Description {
        &self.description
    }

    fn allocate(&self, bytes: usize) -> Result<DevicePointer> {
        let mut seen = self.seen.lock().unwrap();
        let at = seen.next;
        seen.next += bytes.next_multiple_of(512) as u64 + 512;
        seen.blocks.insert(at, bytes);
        Ok(DevicePointer::new(at))
    }

    unsafe fn free(&self, at: DevicePointer) {
        self.seen.lock().unwrap().blocks.remove(&at.address());
    }

    /// Each tensor keeps a block of its own size: blocks that are used again are larger than what lies in them.
    fn recycles(&self) -> bool {
        false
    }

    fn memory(&self) -> Result<(usize, usize)> {
        Ok((80 << 30, 80 << 30))
    }

    unsafe fn upload(&self, _: DevicePointer, _: &[u8]) -> Result<()> {
        Ok(())
    }

    unsafe fn download(&self, _: DevicePointer, to: &mut [u8]) -> Result<()> {
        self.seen.lock().unwrap().waits += 1;
        to.fill(0);
        Ok(())
    }

    unsafe fn download_later(&self, _: DevicePointer, bytes: usize) -> Result<Box<dyn Arriving>> {
        let behind = self.seen.lock().unwrap().issued;
        Ok(Box::new(Late { bytes, behind, seen: Arc::clone(&self.seen) }))
    }

    unsafe fn copy(&self, _: DevicePointer, _: DevicePointer, _: usize) -> Result<()> {
        Ok(())
    }

    unsafe fn fill(&self, _: DevicePointer, _: u8, _: usize) -> Result<()> {
        Ok(())
    }

    unsafe fn launch(&self, launch: &Launch<'_>) -> Result<()> {
        let mut seen = self.seen.lock().unwrap();
        STARTED.lock().unwrap().insert(launch.kernel.name().to_owned());
        if let Some(recorded) = &mut seen.recording {
            *recorded += 1;
            return Ok(());
        }
        let address = |a: &Argument| match a {
            Argument::Map(words) => Some(words[0]),
            number => number.address(),
        };
        let numbers = launch.arguments.iter().filter_map(address);
        let mut addresses: Vec<u64> = numbers.filter(|&at| at >= FIRST).collect();
        addresses.sort_unstable();
        addresses.dedup();
        let bytes: usize = addresses.iter().map(|&at| seen.bytes_at(at)).sum();
        seen.count.launches += 1;
        seen.issued += 1;
        *seen.kernels.entry(launch.kernel.name()).or_default() += 1;
        let blocks: u32 = launch.grid.iter().product();
        let number = |a: &Argument| match *a {
            Argument::Number { bits, size: 4 } => Some(bits),
            _ => None,
        };
        let numbers: Vec<u64> = launch.arguments.iter().filter_map(number).collect();
        seen.log.push(format!("{} {blocks} {bytes} {numbers:?}", launch.kernel.name()));
        seen.count.bytes += bytes;
        Ok(())
    }

    /// Where convolutions by the TMA are asked for. Otherwise each would be measured.
    fn has_tensor_maps(&self) -> bool {
        std::env::var("SRK_CONV").is_ok_and(|choice| choice == "wgmma")
    }

    fn tensor_map(&self, map: &TensorMap) -> Result<[u64; 16]> {
        let mut words = [0; 16];
        words[0] = map.address.address();
        Ok(words)
    }

    fn synchronize(&self) -> Result<()> {
        self.seen.lock().unwrap().waits += 1;
        Ok(())
    }

    fn begin_capture(&self) -> Result<()> {
        self.seen.lock().unwrap().recording = Some(0);
        Ok(())
    }

    fn end_capture(&self) -> Result<Box<dyn Replay>> {
        let launches = self.seen.lock().unwrap().recording.take().unwrap_or_default();
        Ok(Box::new(Recorded { launches, seen: Arc::clone(&self.seen) }))
    }

    fn time(&self, work: &mut dyn FnMut() -> Result<()>) -> Result<f64> {
        work().map(|()| 1e-6)
    }
}

#[derive(Debug)]
struct Recorded {
    launches: usize,
    seen: Arc<Mutex<Seen>>,
}

impl Replay for Recorded {
    unsafe fn replay(&self) -> Result<()> {
        let mut seen = self.seen.lock().unwrap();
        seen.replayed += self.launches;
        seen.issued += 1;
        Ok(())
    }
}

/// A download that was issued behind so much work.
#[derive(Debug)]
struct Late {
    bytes: usize,
    behind: usize,
    seen: Arc<Mutex<Seen>>,
}

impl Arriving for Late {
    fn wait(self: Box<Self>) -> Result<Vec<u8>> {
        let mut seen = self.seen.lock().unwrap();
        seen.waits += usize::from(seen.issued == self.behind);
        Ok(vec![0; self.bytes])
    }
}

/// The launches of a walk of `steps` calls.
fn walked(model: &ModelConfig, diffusion: &Diffusion, steps: usize) -> Asked {
    let driver = Counting::new();
    let mut asked = driver.asked();
    let device = Device::Cuda(Gpu::new(Arc::new(driver)));
    let network = model.build(1);
    network.to_device(&device, DType::F16).unwrap();
    let side = 64 / model.scale();
    let of = (&*network, model.scale());
    let walked = walk(of, diffusion, &device, [1, side, side], steps, &mut || {
        asked();
    });
    walked.unwrap();
    asked()
}

/// Walks `steps` calls from low resolutions `[N, H, W]`; `begins` is called before the first.
fn walk(
    (network, scale): (&dyn Network, usize),
    diffusion: &Diffusion,
    device: &Device,
    [n, height, width]: [usize; 3],
    steps: usize,
    begins: &mut dyn FnMut(),
) -> Result<()> {
    let zeros =
        |factor| Tensor::zeros_on(device, DType::F32, &[n, factor * height, factor * width, 3]);
    let (low, y0) = (zeros(1)?, zeros(scale)?);
    let noise = PixelNoise::new(device, 1, &vec![[0, 0]; n])?;
    let seen = condition(network, &low, &y0, None)?;
    let mut walk = Walk::new(network, diffusion, n, steps, device)?;
    begins();
    let mut calls = 0;
    let heard = &mut |done| {
        calls = done;
        Ok(())
    };
    walk.run_unseen(seen, &y0, &noise, heard)?;
    assert_eq!(calls, steps);
    Ok(())
}

/// Of 60 megapixels there are more numbers than kernels count: memory for the whole picture is no reason to try.
#[test]
fn large_pictures_are_cut_where_kernels_end_counting() {
    for name in ["dual-domain-grid", "rrdb", "srk-photo-x4"] {
        let recipe = recipes::ALL.iter().find(|recipe| recipe.name == name).unwrap();
        let config = Config::read(recipe.text, name, &[]).unwrap();
        let diffusion = config.diffusion;
        let config = SystemConfig { ..SystemConfig::new(config.model, diffusion.clone()) };
        let file = WeightsFile::of(&config.model.build(1).state(), config.metadata(&[])).unwrap();
        let device = Device::Cuda(Gpu::new(Arc::new(Counting::new())));
        let system = System::from_file(&file, name).unwrap();
        let upscaler = Upscaler::new(system, &device, DType::F16).unwrap();
        let memory = upscaler.memory_or(0).unwrap();
        let settings = Settings { steps: Some(2), seed: 1, tile: TileSize::Auto, memory };
        let plan = upscale::plan(&upscaler, 7752, 7752, &settings).unwrap();
        let system = upscaler.system();
        let (network, steps) = ((&*system.network, system.scale()), plan.steps);
        let of = |shape| walk(network, &diffusion, &device, shape, steps, &mut || {});
        let tile = plan.tiles[0].padded;
        let (width, height) = plan.padded;
        of([plan.batch, tile.height, tile.width]).unwrap();
        let whole = of([1, height, width]).unwrap_err();
        assert!(matches!(whole, Error::Memory(_)), "{name}: {whole}");
    }
}

/// A call is launched once of each kind, and replayed from then on, however long the chain.
#[test]
fn a_walk_launches_one_step_and_replays_the_others() {
    for (name, kinds) in [("sr3", 1), ("resshift-experiment", 1), ("srk-x4", 2)] {
        let recipe = recipes::ALL.iter().find(|recipe| recipe.name == name).unwrap();
        let config = Config::read(recipe.text, name, &[]).unwrap();
        let [short, long] = [4, config.diffusion.process.steps().min(100)]
            .map(|steps| (steps, walked(&config.model, &config.diffusion, steps)));
        for (steps, Asked { launched, replayed, .. }) in [short, long] {
            let later = replayed / (steps - kinds);
            assert_eq!(replayed, later * (steps - kinds), "{name}: {steps} steps");
            // The start of the chain, and one call of each kind.
            assert!(launched <= kinds * later + 4, "{name}: {launched} beside {later} a step");
        }
    }
}

/// One call, and one call with its gradients, of a network in f16 on a state of `side` pixels.
pub(crate) fn counts(model: &ModelConfig, side: usize) -> Result<[Count; 2]> {
    let [(forward, ..), (both, ..)] = kernels(model, 1, side)?;
    Ok([forward, both])
}

/// How often each kernel is launched, and each launch.
type Launches = (Count, BTreeMap<&'static str, usize>, Vec<String>);

/// The same of `n` states, with the launches.
fn kernels(model: &ModelConfig, n: usize, side: usize) -> Result<[Launches; 2]> {
    let driver = Counting::new();
    let seen = driver.seen.clone();
    let device = Device::Cuda(Gpu::new(Arc::new(driver)));
    let network = model.build(1);
    network.to_device(&device, DType::F16)?;
    let zeros = |shape: &[usize]| Tensor::zeros_on(&device, DType::F32, shape);
    // The low resolution of networks for latents is as large as the state.
    let small = side / if matches!(model, ModelConfig::SwinUNet(_)) { 1 } else { model.scale() };
    let c = network.channels();
    let (low, y0) = (zeros(&[n, small, small, c])?, zeros(&[n, side, side, c])?);
    let t = zeros(&[n])?;
    let call = |gradients: bool| -> Result<Launches> {
        let mut tape = if gradients { Tape::training() } else { Tape::inference() };
        let told = condition(&*network, &low, &y0, None)?;
        let told = tape.input(told);
        let state = y0.cast(DType::F16)?;
        {
            let mut seen = seen.lock().unwrap();
            seen.count = Count::default();
            seen.kernels.clear();
            seen.log.clear();
        }
        let state = tape.input(state);
        let y = network.forward(&mut tape, &state, &told, &t)?;
        if gradients {
            let dy = Tensor::zeros_on(&device, DType::F16, y.shape())?;
            tape.backward(&y, dy)?;
        }
        let seen = seen.lock().unwrap();
        Ok((seen.count, seen.kernels.clone(), seen.log.clone()))
    };
    // The first call of each kind makes constants.
    call(false)?;
    call(true)?;
    Ok([call(false)?, call(true)?])
}

/// The ledger as it is now; counted once, for all who ask.
pub(crate) fn ledger() -> &'static str {
    static LEDGER: OnceLock<String> = OnceLock::new();
    LEDGER.get_or_init(|| {
    let mut lines = String::from(
        "# Kernels that a network launches in f16 at batch 1 on states of the recipe's crops, and megabytes of all tensors\n\
         # that they are given; forward, and forward with gradients. Written by tests/suite/launches.rs.\n",
    );
    for recipe in recipes::ALL {
        // Systems to learn from have configurations of their own.
        let Ok(config) = Config::read(recipe.text, recipe.name, &[]) else { continue };
        let side = match config.model {
            ModelConfig::SwinUNet(_) => config.data.train.crop / config.model.scale(),
            _ => config.data.train.crop,
        };
        let count = |n| {
            kernels(&config.model, n, side).unwrap_or_else(|e| panic!("{}: {e}", recipe.name))
        };
        let [(forward, of_forward, _), (both, of_both, _)] = count(1);
        if std::env::var("SRK_LAUNCHES").is_ok_and(|name| name == recipe.name) {
            println!("forward {of_forward:#?}, with gradients {of_both:#?}");
            let batch = std::env::var("SRK_BATCH").ok().and_then(|n| n.parse().ok());
            let [(.., log), (.., trained)] = count(batch.unwrap_or(1));
            log.iter().for_each(|launch| println!("launch {launch}"));
            trained.iter().for_each(|launch| println!("trained {launch}"));
        }
        let mb = |c: Count| c.bytes as f64 / 1e6;
        writeln!(
            lines,
            "{:22} {side:4} px  forward {:5} {:9.1} MB  with gradients {:6} {:9.1} MB",
            recipe.name,
            forward.launches,
            mb(forward),
            both.launches,
            mb(both)
        )
        .unwrap();
    }
    lines
    })
}

#[test]
fn networks_launch_what_the_ledger_says() {
    let lines = ledger();
    if std::env::var_os("SRK_WRITE").is_some() {
        fs::write(FILE, lines).unwrap();
    }
    let written = fs::read_to_string(FILE).unwrap_or_default();
    for (now, then) in lines.lines().zip(written.lines()) {
        assert_eq!(
            now, then,
            "launches changed: SRK_WRITE=1 cargo test --release --test suite launches::"
        );
    }
    assert_eq!(lines.lines().count(), written.lines().count(), "SRK_WRITE=1 writes {FILE} anew");
}

/// Which blocks compute a convolution: what groups of threads share its depth, and how, goes by sizes.
#[test]
fn convolutions_are_by_blocks_that_fit_their_sizes() {
    let cases = [
        ([1, 16, 16, 1024], 1024, "conv2d_sliced_64x32_f16"),
        ([1, 32, 32, 512], 512, "conv2d_sliced_64x64_f16"),
        ([1, 64, 64, 256], 256, "conv2d_sliced_128x64_f16"),
        ([1, 128, 128, 128], 128, "conv2d_sliced_128x128_f16"),
        ([1, 128, 128, 48], 128, "conv2d_128x64_f16"),
        ([1, 256, 256, 64], 64, "conv2d_256x64_f16"),
        ([1, 128, 128, 64], 64, "conv2d_128x32_f16"),
        ([16, 32, 32, 512], 512, "conv2d_128x128_f16"),
    ];
    for (shape, outputs, kernel) in cases {
        let driver = Counting::new();
        let seen = driver.seen.clone();
        let device = Device::Cuda(Gpu::new(Arc::new(driver)));
        let mut tape = Tape::inference();
        let mut zeros =
            |shape: &[usize]| tape.input(Tensor::zeros_on(&device, DType::F16, shape).unwrap());
        let (x, w) = (zeros(&shape), zeros(&[outputs, 3, 3, shape[3]]));
        seen.lock().unwrap().kernels.clear();
        let then = Then { activation: Activation::Silu, ..Then::default() };
        tape.conv2d_fused(&x, &w, Conv2d::same(3), then).unwrap();
        let kernels: Vec<&str> = seen.lock().unwrap().kernels.keys().copied().collect();
        assert_eq!(kernels, [kernel], "{shape:?} to {outputs}");
    }
}

/// A count that misses launches or memory would be no ledger.
#[test]
fn the_driver_counts_launches_and_the_memory_they_touch() {
    let driver = Counting::new();
    let seen = driver.seen.clone();
    let device = Device::Cuda(Gpu::new(Arc::new(driver)));
    let x = Tensor::zeros_on(&device, DType::F32, &[1, 8, 8, 16]).unwrap();
    seen.lock().unwrap().count = Count::default();
    let mut tape = Tape::inference();
    let x = tape.input(x);
    tape.silu(&x).unwrap();
    // Reads and writes 8 * 8 * 16 numbers of 4 bytes.
    assert_eq!(seen.lock().unwrap().count, Count { launches: 1, bytes: 2 * 4096 });
}
