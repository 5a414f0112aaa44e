//! Every recipe trains with several ranks, here in threads: three small steps with two of them are those of one.
#![allow(clippy::unwrap_used)]
use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use crate::common::training::{Heard, Place};
use crate::recipes_gpu::{SHALLOW, STEPS, digits, job};
use srk::engine::device::{DType, Device};
use srk::models::weights::WeightsFile;
use srk::training::ranks::{Launch, Meeting, Ranks, meet};
use srk::training::recipes;
use srk::training::run::train_among;

fn train(ranks: &Ranks, place: &Place, name: &str, out: &Path) {
    let more = if ["resshift", "resshift-4"].contains(&name) { &SHALLOW[..] } else { &[] };
    let own = ["run.reduce=fixed", "data.train.batch=2"];
    let teaches = recipes::find(name).unwrap().text.contains("[data]\npaths");
    let own = if teaches { &own[..1] } else { &own[..] };
    let job = job(place, &digits(place), name, &[more, own].concat());
    let (stop, mut heard) = (Arc::new(AtomicUsize::new(0)), Heard::default());
    let place = (&Device::Cpu, DType::F32);
    train_among(ranks, &*job, (out, None), place, &stop, &mut heard)
        .unwrap_or_else(|e| panic!("{name}, {ranks:?}: {e}"));
}

/// All numbers of the last checkpoint, as bits.
fn numbers(out: &Path, name: &str) -> Vec<u32> {
    let folder = out.join(name).join(format!("ckpt/{STEPS}"));
    let read = |file| WeightsFile::read(&folder.join(file)).unwrap().tensors.into_values();
    let files = ["model.safetensors", "ema.safetensors", "state.safetensors"];
    files.into_iter().flat_map(read).flat_map(|(_, v)| v).map(f32::to_bits).collect()
}

#[test]
fn every_recipe_is_the_same_with_two_ranks() {
    for recipe in recipes::ALL {
        let (name, place) = (recipe.name, Place::new());
        let (one, two) = (place.runs("one"), place.runs("two"));
        train(&Ranks::alone(), &place, name, &one);
        let port = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
        std::thread::scope(|scope| {
            for rank in 0..2 {
                let (place, two) = (&place, &two);
                scope.spawn(move || {
                    let meeting =
                        Meeting { host: "127.0.0.1".into(), ports: vec![port], job: name.into() };
                    let launch = Launch { rank, world: 2, local: rank, by: "a test", meeting };
                    let ranks = meet(&launch, Duration::from_secs(120)).unwrap();
                    train(&ranks, place, name, two);
                });
            }
        });
        assert!(numbers(&two, name) == numbers(&one, name), "{name}: other numbers with two ranks");
    }
}
