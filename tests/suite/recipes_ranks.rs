//! Every recipe trains with several ranks, here in threads: three small steps with two of them are those of one.
#![allow(clippy::unwrap_used)]
use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use crate::common::emulated;
use crate::common::training::{Heard, Place};
use crate::recipes_gpu::{SHALLOW, STEPS, apart, digits, job, numbers};
use srk::engine::device::{DType, Device};
use srk::models::weights::WeightsFile;
use srk::training::ranks::{Launch, Meeting, Ranks, meet};
use srk::training::recipes;
use srk::training::run::train_among;

/// Three steps of a recipe, whose sums are made as `reduce` says.
fn train(ranks: &Ranks, place: &Place, name: &str, (out, reduce): (&Path, &str), on: &Device) {
    let more = if ["resshift", "resshift-4"].contains(&name) { &SHALLOW[..] } else { &[] };
    let reduce = format!("run.reduce={reduce}");
    let own = [reduce.as_str(), "data.train.batch=2"];
    let teaches = recipes::find(name).unwrap().text.contains("[data]\npaths");
    let own = if teaches { &own[..1] } else { &own[..] };
    let job = job(place, &digits(place), name, &[more, own].concat());
    let (stop, mut heard) = (Arc::new(AtomicUsize::new(0)), Heard::default());
    train_among(ranks, &*job, (out, None), (on, DType::F32), &stop, &mut heard)
        .unwrap_or_else(|e| panic!("{name}, {ranks:?}: {e}"));
}

/// All numbers of the last checkpoint, as bits.
fn bits(out: &Path, name: &str) -> Vec<u32> {
    let folder = out.join(name).join(format!("ckpt/{STEPS}"));
    let read = |file| WeightsFile::read(&folder.join(file)).unwrap().tensors.into_values();
    let files = ["model.safetensors", "ema.safetensors", "state.safetensors"];
    files.into_iter().flat_map(read).flat_map(|(_, v)| v).map(f32::to_bits).collect()
}

/// Runs `body` as each of two ranks.
fn as_two(name: &str, body: impl Fn(&Ranks) + Sync) {
    let port = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
    std::thread::scope(|scope| {
        for rank in 0..2 {
            let body = &body;
            scope.spawn(move || {
                let meeting =
                    Meeting { host: "127.0.0.1".into(), ports: vec![port], job: name.into() };
                let launch = Launch { rank, world: 2, local: rank, by: "a test", meeting };
                body(&meet(&launch, Duration::from_secs(120)).unwrap());
            });
        }
    });
}

#[test]
fn every_recipe_is_the_same_with_two_ranks() {
    for recipe in recipes::ALL {
        let (name, place) = (recipe.name, Place::new());
        let (one, two) = (place.runs("one"), place.runs("two"));
        train(&Ranks::alone(), &place, name, (&one, "fixed"), &Device::Cpu);
        as_two(name, |ranks| train(ranks, &place, name, (&two, "fixed"), &Device::Cpu));
        assert!(bits(&two, name) == bits(&one, name), "{name}: other numbers with two ranks");
    }
}

/// Two GPUs that add up gradients themselves, while the way back runs, learn what two CPUs learn. Norms over the batch
/// are those of each rank's part, so that one rank alone learns something else.
#[test]
fn every_recipe_learns_the_same_on_two_gpus() {
    for recipe in recipes::ALL {
        let (name, place) = (recipe.name, Place::new());
        let [cpus, gpus, sums] = ["cpus", "gpus", "sums"].map(|name| place.runs(name));
        fs::create_dir(&sums).unwrap();
        as_two(name, |ranks| train(ranks, &place, name, (&cpus, "fast"), &Device::Cpu));
        as_two(name, |ranks| {
            let gpu = Device::Cuda(emulated::gpu_among(&sums));
            train(ranks, &place, name, (&gpus, "fast"), &gpu);
        });
        assert!(fs::read_dir(&sums).unwrap().count() > 0, "{name}: the GPUs added up nothing");
        // Adam's first steps have the size of the rate whatever the size of the gradient.
        let [cpus, gpus] = [cpus, gpus].map(|out| numbers(&out, name, "model"));
        let difference = apart(&gpus, &cpus);
        assert!(difference < 2e-3, "{name}: differs by {difference:.1e}");
    }
}
