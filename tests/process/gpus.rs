//! Upscaling on several GPUs: the tiles of a picture on emulated ones, pictures on stubs of the driver.
#![cfg(all(feature = "cuda", target_os = "linux"))]
#![allow(clippy::unwrap_used)]
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::common;
use crate::common::command::Bench;
use srk::diffusion::system::System;
use srk::engine::cuda::Gpu;
use srk::engine::device::{DType, Device};
use srk::error::{Error, Result};
use srk::imaging::{Image, Samples};
use srk::models::ModelConfig;
use srk::models::dual_domain_grid::DualDomainGridConfig;
use srk::upscale::{Report, Settings, TileSize, Upscaler, plan, upscale};

use super::stub_driver::stub;

fn system() -> System {
    let mut system = System::open("srk-x4").unwrap();
    let config = DualDomainGridConfig {
        blocks: 1,
        channels: 16,
        frequency_channels: 8,
        wavelet_channels: 8,
        time_dim: 8,
        ..Default::default()
    };
    system.config.model = ModelConfig::DualDomainGrid(config);
    system.network = system.config.model.build(1);
    system
}

fn picture(width: usize, height: usize) -> Image {
    let value = |i: usize| ((i * 7919 % 251) as f32 / 251.0 + (i / width % 5) as f32 * 0.1) / 1.5;
    let values: Vec<f32> = (0..3 * width * height).map(value).collect();
    Image::from_rgb_f32(width, height, &values).unwrap()
}

/// The samples that `gpus` make of `image` in tiles of 16, and what happened on the way.
fn on(
    gpus: &[Gpu],
    image: &Image,
    on_call: &mut dyn FnMut(usize, usize) -> Result<()>,
) -> Result<(Vec<u8>, Report)> {
    let devices: Vec<Device> = gpus.iter().map(Device::from).collect();
    let upscaler = Upscaler::over(system(), &devices, DType::F32)?;
    let settings = Settings { steps: Some(1), seed: 9, tile: TileSize::Side(16), memory: 1 << 30 };
    let plan = plan(&upscaler, image.width, image.height, &settings)?;
    assert!(plan.tiles.len() > 4, "{} tiles", plan.tiles.len());
    let (output, report) = upscale(&upscaler, image, &plan, 9, on_call)?;
    let Samples::U8(samples) = output.samples else { panic!("8 bits stay 8 bits") };
    Ok((samples, report))
}

#[test]
fn tiles_are_shared_by_gpus_and_the_picture_is_the_same() {
    let image = picture(48, 22);
    let [a, b, c] = [(); 3].map(|()| common::emulated::gpu_of(8 << 30));
    let (one, _) = on(std::slice::from_ref(&a), &image, &mut |_, _| Ok(())).unwrap();
    for gpus in [&[a.clone(), b.clone()][..], &[c, a, b]] {
        let mut told = Vec::new();
        let hear = &mut |done: usize, all: usize| {
            told.push((done, all));
            Ok(())
        };
        let (several, report) = on(gpus, &image, hear).unwrap();
        assert!(several == one, "{} GPUs make another picture", gpus.len());
        assert_eq!(report, Report::default());
        let (done, all) = *told.last().unwrap();
        assert!(done == all && told.iter().any(|(done, _)| *done < all), "{told:?}");
    }
}

#[test]
fn a_full_gpu_among_several_gets_smaller_tiles() {
    let image = picture(48, 22);
    let roomy = common::emulated::gpu_of(8 << 30);
    let (one, _) = on(std::slice::from_ref(&roomy), &image, &mut |_, _| Ok(())).unwrap();
    let pair = [(); 2].map(|()| common::emulated::gpu_of(8 << 30));
    on(&pair, &image, &mut |_, _| Ok(())).unwrap();
    let needed = pair[1].usage().peak;
    let mut halved = 0;
    for percent in [95, 85, 75, 65, 55] {
        let full = common::emulated::gpu_of(needed / 100 * percent);
        // The last of them may be too small for any tile.
        let Ok((several, report)) = on(&[roomy.clone(), full], &image, &mut |_, _| Ok(())) else {
            continue;
        };
        halved += report.halved;
        assert!(several == one, "smaller tiles gave another picture");
    }
    assert!(halved > 0, "none was full and went on");
}

#[test]
fn who_stops_several_gpus_is_obeyed() {
    let image = picture(48, 22);
    let gpus = [(); 2].map(|()| common::emulated::gpu_of(8 << 30));
    let mut calls = 0;
    let stop = &mut |_: usize, _: usize| {
        calls += 1;
        if calls < 2 { Ok(()) } else { Err(Error::Interrupted { signal: 15, what: "x".into() }) }
    };
    let error = on(&gpus, &image, stop).unwrap_err();
    assert_eq!(error.exit_code(), 143);
    // A GPU that cannot even hold the weights' work says so itself.
    let tiny = common::emulated::gpu_of(150 << 10);
    let error = on(&[gpus[0].clone(), tiny], &image, &mut |_, _| Ok(())).unwrap_err();
    assert_eq!(error.exit_code(), 5, "{error}");
}

fn bytes_in(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    files
        .map(|path| (path.file_name().unwrap().to_string_lossy().into(), fs::read(path).unwrap()))
        .collect()
}

/// On stubs pictures are grey; which GPU has worked, the driver says.
#[test]
fn pictures_are_shared_by_gpus() {
    let b = Bench::new();
    for name in ["a", "b", "c", "d", "e", "f", "g"] {
        b.photo(&format!("in/{name}.png"), 12, 8);
    }
    let cut = fs::read(b.path("in/c.png")).unwrap()[..70].to_vec();
    fs::write(b.path("in/c.png"), cut).unwrap();
    let folder = stub(&[]);
    let on = |device: &str, out: &str| {
        let log = b.path(&format!("{out}.log"));
        let mut command = common::command::command(
            &b.path(""),
            &["upscale", "in", "-o", out, "--device", device, "--json", "-m", "srk-x4"],
        );
        command.env("LD_LIBRARY_PATH", folder.path()).env("STUB_CUDA_LOG", &log);
        command.env("STUB_CUDA", "any=1 tell=1 count=3").env("XDG_CACHE_HOME", b.path("cache"));
        let run = common::command::Run::of(command.output().unwrap()).failed(1, &["c.png"]);
        let text = fs::read_to_string(&log).unwrap_or_default();
        let launches = |device: usize| {
            let key = format!("device {device}: launches ");
            let count =
                text.lines().find_map(|line| line.strip_prefix(&key)?.parse::<usize>().ok());
            count.unwrap_or(0)
        };
        (run, [0, 1, 2].map(launches))
    };
    let (one, alone) = on("cuda:1", "one");
    assert!(alone[0] == 0 && alone[1] > 0 && alone[2] == 0, "{alone:?}");
    for (device, used) in [("cuda:all", [true; 3]), ("cuda:0,2", [true, false, true])] {
        let (run, launches) = on(device, device);
        assert_eq!(launches.map(|count| count > 0), used, "{device}: {launches:?}");
        // In their order, whoever was first.
        let names = |run: &common::command::Run| -> Vec<String> {
            let files = run.events().into_iter().filter(|event| event["event"] == "file");
            files.map(|event| format!("{} {}", event["input"], event["status"])).collect()
        };
        assert_eq!(names(&run), names(&one));
        assert_eq!(names(&run).len(), 7);
        run.says("GPUs share the work");
        assert_eq!(bytes_in(&b.path(device)), bytes_in(&b.path("one")), "{device}");
    }
}

#[test]
fn what_runs_on_one_gpu_refuses_several() {
    let b = Bench::new();
    b.photo("in.png", 12, 8);
    b.srk(&["bench", "--device", "cuda:0,1"]).failed(2, &["several GPUs", "srk upscale alone"]);
    b.srk(&["upscale", "in.png", "o.png", "--device", "cuda:1,1"]).failed(2, &["cuda:all"]);
}
