//! What a plan says of memory is what the work takes: for every kind of network, measured by an allocator that
//! counts.
#![allow(clippy::unwrap_used, clippy::print_stdout)]
use std::alloc::{GlobalAlloc, Layout, System as Allocator};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use serde_json::{Value, json};
use srk::diffusion::sampler::{Diffusion, Space};
use srk::diffusion::system::{System, SystemConfig};
use srk::engine::device::{DType, Device};
use srk::engine::pool;
use srk::imaging::{Color, Image};
use srk::models::ModelConfig;
use srk::models::weights::WeightsFile;
use srk::upscale::{BandCost, Settings, TileSize, Upscaler, plan_bands, upscale_strips};

/// Bytes that are allocated, and the most that were since [`reset`].
static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

struct Counting;

// SAFETY: every call is passed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let live = LIVE.fetch_add(layout.size(), Relaxed) + layout.size();
        PEAK.fetch_max(live, Relaxed);
        // SAFETY: as the caller promises.
        unsafe { Allocator.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let live = LIVE.fetch_add(layout.size(), Relaxed) + layout.size();
        PEAK.fetch_max(live, Relaxed);
        // SAFETY: as the caller promises.
        unsafe { Allocator.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Relaxed);
        // SAFETY: as the caller promises.
        unsafe { Allocator.dealloc(place, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What `body` allocates at its peak beyond what there is, and its result.
fn measured<T>(body: impl FnOnce() -> T) -> (usize, T) {
    pool::clear();
    let before = LIVE.load(Relaxed);
    PEAK.store(before, Relaxed);
    let result = body();
    (PEAK.load(Relaxed) - before, result)
}

fn system(model: &Value, latent: bool) -> System {
    let model: ModelConfig = serde_json::from_value(model.clone()).unwrap();
    let mut diffusion = match model.is_direct() {
        true => Diffusion::direct(),
        false => {
            serde_json::from_value(json!({"process": {"kind": "resshift", "steps": 4, "kappa": 2.0,
            "eta": {"kind": "official", "min_noise_level": 0.04, "end": 0.99, "power": 0.3}}}))
            .unwrap()
        }
    };
    if latent {
        diffusion.space = Space::Latent;
    }
    let config = SystemConfig { default_steps: Some(2), ..SystemConfig::new(model, diffusion) };
    let state = config.model.build(4).state();
    let file = WeightsFile::of(&state, config.metadata(&[])).unwrap();
    System::from_file(&file, "test").unwrap()
}

/// The bytes that enlarging takes, and those that the plan names.
fn taken(upscaler: &Upscaler, (width, height): (usize, usize), tile: TileSize) -> [usize; 2] {
    let scale = upscaler.system().scale();
    let image = Image::from_u8(width, height, Color::Rgb, vec![100; width * height * 3]).unwrap();
    let settings = Settings { steps: Some(2), seed: 1, tile, memory: 1 << 40 };
    let row = (width * scale * scale) as u64;
    let band = BandCost { row: 3 * row, blended: 31 * row, host: u64::MAX };
    let plan = plan_bands(upscaler, width, height, &settings, band).unwrap();
    let budget = usize::try_from(plan.memory - plan.band).unwrap();
    pool::budget(budget);
    let run = || upscale_strips(upscaler, &image, &plan, 1, &mut |_, _| Ok(()), &mut |_| Ok(()));
    let (peak, done) = measured(run);
    assert!(
        done.is_ok(),
        "{}: {:?}",
        upscaler.system().config.metadata(&[])["srk.config"],
        done.err()
    );
    [peak, usize::try_from(plan.memory).unwrap()]
}

/// Networks of every kind, as small as shows where they are widest.
fn kinds() -> Vec<(&'static str, Value, bool, (usize, usize))> {
    let vq = json!({"channels": 32, "multipliers": [1, 2, 2]});
    let mut latent = json!({"kind": "swin-unet", "base": 32, "multipliers": [1, 2], "blocks": [2, 2],
        "attention": [64, 32], "swin_channels": 32, "head_channels": 32});
    latent["autoencoder"] = vq;
    let unet = (64, 48);
    let direct = (160, 128);
    let mut all = vec![
        ("grid", json!({"kind": "dual-domain-grid"}), false, direct),
        (
            "grid, tall",
            json!({"kind": "dual-domain-grid", "channels": 16, "frequency_channels": 8,
            "wavelet_channels": 8}),
            false,
            (320, 464),
        ),
        (
            "grid, thin",
            json!({"kind": "dual-domain-grid", "channels": 8, "blocks": 1,
            "frequency_channels": 4, "wavelet_channels": 4, "time_dim": 8}),
            false,
            (320, 320),
        ),
        ("attentive", json!({"kind": "attentive-grid"}), false, direct),
        ("dual-domain-unet", json!({"kind": "dual-domain-unet", "base": 16}), false, unet),
        ("residual-unet", json!({"kind": "residual-unet", "base": 16}), false, unet),
        (
            "sr3",
            json!({"kind": "sr3-unet", "base": 16, "groups": 4, "multipliers": [1, 2, 2]}),
            false,
            unet,
        ),
        (
            "attention-unet",
            json!({"kind": "attention-unet", "base": 16, "time_dim": 32, "attention": false}),
            false,
            unet,
        ),
        (
            "biggan",
            json!({"kind": "biggan-unet", "time_dim": 32, "widths": [16, 32, 64, 64]}),
            false,
            unet,
        ),
        ("swin, latent", latent, true, unet),
        ("laplacian", json!({"kind": "laplacian", "channels": 32}), false, unet),
        ("srddpm", json!({"kind": "srddpm-unet", "base": 16, "time_dim": 32}), false, unet),
        ("srgan", json!({"kind": "srgan", "base": 32, "blocks": 2}), false, unet),
        ("rrdb", json!({"kind": "rrdb", "blocks": 2}), false, direct),
        ("rrdb, wide", json!({"kind": "rrdb", "blocks": 1, "base": 64, "growth": 32}), false, unet),
        (
            "rrdb, x2",
            json!({"kind": "rrdb", "blocks": 1, "base": 64, "growth": 32, "scale": 2, "unshuffle": 2}),
            false,
            direct,
        ),
        ("srdiff", json!({"kind": "srdiff-unet", "base": 16, "encoder_blocks": 2}), false, unet),
        ("errn2", json!({"kind": "errn2"}), false, direct),
        ("span", json!({"kind": "span"}), false, direct),
        ("span, branches", json!({"kind": "span", "branches": true}), false, direct),
        ("spanv2", json!({"kind": "spanv2"}), false, direct),
        ("compact", json!({"kind": "compact", "depth": 4}), false, direct),
        ("compact, thin", json!({"kind": "compact", "depth": 4, "channels": 16}), false, direct),
        ("edsr", json!({"kind": "edsr", "blocks": 2}), false, direct),
        ("edsr, x3", json!({"kind": "edsr", "blocks": 2, "scale": 3}), false, direct),
    ];
    // Of the others in the list of networks the narrow version.
    for known in ModelConfig::KINDS {
        if !all.iter().any(|(_, model, ..)| model["kind"] == known.name) {
            let narrow = (known.narrow)();
            let latent = narrow.build(0).first_stage().is_some();
            let size = if narrow.is_direct() { direct } else { unet };
            all.push((known.name, serde_json::to_value(narrow).unwrap(), latent, size));
        }
    }
    all
}

/// What threads hold for themselves, and weights as convolutions want them.
const SCRATCH: usize = 8 << 20;

#[test]
fn plans_name_what_every_network_takes() {
    let (mut wrong, only) = (Vec::new(), std::env::var("SRK_NETWORK").ok());
    let chosen = |name: &str| only.as_ref().is_none_or(|only| name.contains(only.as_str()));
    for (name, model, latent, size) in kinds().into_iter().filter(|kind| chosen(kind.0)) {
        let upscaler = Upscaler::new(system(&model, latent), &Device::Cpu, DType::F32).unwrap();
        let [took, said] = taken(&upscaler, size, TileSize::None);
        let mib = |bytes: usize| bytes as f64 / f64::from(1 << 20);
        println!("{name:20} took {:6.1} MiB of {:6.1}", mib(took), mib(said));
        // Never more; and not so much less that tiles are needlessly small. Weights of deep levels are packed while
        // maps are small, so of those not all counts.
        if took > said + SCRATCH || mib(took) < 0.65 * mib(said.saturating_sub(SCRATCH)) {
            wrong.push(format!("{name}: {:.1} MiB of {:.1}", mib(took), mib(said)));
        }
    }
    assert!(wrong.is_empty(), "{wrong:?}");
}
