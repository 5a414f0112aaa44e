//! Published networks from low resolution straight to high: the outputs of genuine weights.
//!
//! Golden outputs are in `../shared/golden/models` (or `SRK_GOLDEN`), checkpoints in `../shared/data/weights`;
//! where there are none, the tests say so.
#![allow(clippy::unwrap_used, clippy::print_stdout)]
use std::path::{Path, PathBuf};

use safetensors::SafeTensors;
use srk::diffusion::system::System;
use srk::engine::tape::Tape;
use srk::engine::tensor::Tensor;
use srk::import::{self, Request};
use srk::models::Network;

/// Everything outside the repository.
fn shared() -> PathBuf {
    let golden = std::env::var_os("SRK_GOLDEN").unwrap_or_else(|| "../shared/golden".into());
    Path::new(&golden).parent().unwrap_or(Path::new("..")).to_owned()
}

/// A golden picture `[1, H, W, 3]` in [0, 1] and its enlargement `[3, s H, s W]`.
fn golden(name: &str) -> Option<(Tensor, Vec<f32>)> {
    let bytes = std::fs::read(shared().join(format!("golden/models/{name}.safetensors"))).ok()?;
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let (input, output) = (file.tensor("input_u8").unwrap(), file.tensor("output").unwrap());
    let [h, w, c] = input.shape()[..] else { panic!("{name}: no picture") };
    let low = input.data().iter().map(|&v| f32::from(v) / 255.0).collect();
    let (high, _) = output.data().as_chunks();
    let high = high.iter().map(|&b| f32::from_le_bytes(b)).collect();
    Some((Tensor::from_vec(low, &[1, h, w, c]), high))
}

/// The network's enlargement of `low`, both in [0, 1], planar.
fn enlarged(network: &dyn Network, low: &Tensor) -> Vec<f32> {
    let signed = low.to_f32_vec().unwrap().iter().map(|v| 2.0 * v - 1.0).collect();
    let mut tape = Tape::inference();
    let low = tape.input(Tensor::from_vec(signed, low.shape()));
    let t = Tensor::from_vec(vec![1.0f32], &[1]);
    let y = network.forward(&mut tape, &low.clone(), &low, &t).unwrap();
    let (values, pixels) = (y.value().to_f32_vec().unwrap(), y.value().len() / 3);
    (0..3)
        .flat_map(|c| (0..pixels).map(move |i| 3 * i + c))
        .map(|i| (values[i] + 1.0) / 2.0)
        .collect()
}

/// Relative L2 difference.
fn difference(got: &[f32], wanted: &[f32]) -> f64 {
    assert_eq!(got.len(), wanted.len());
    let square = |v: &mut dyn Iterator<Item = f32>| v.map(|v| f64::from(v).powi(2)).sum::<f64>();
    let off = square(&mut got.iter().zip(wanted).map(|(a, b)| a - b));
    (off / square(&mut wanted.iter().copied())).sqrt()
}

/// A PyTorch checkpoint of the shared data, imported, gives the golden output.
fn checkpoint(name: &str, arch: &str, parameters: usize) {
    let path = shared().join(format!("data/weights/ntire2026/{name}.pth"));
    let Some((low, high)) = golden(name).filter(|_| path.is_file()) else {
        return println!("skipped: no {}", path.display());
    };
    let imported = import::import(&path, &Request::default()).unwrap();
    assert_eq!(imported.file.metadata["srk.arch"], arch);
    assert_eq!(imported.parameters, parameters);
    let system = System::from_file(&imported.file, name).unwrap();
    let off = difference(&enlarged(&*system.network, &low), &high);
    println!("{name}: relative difference {off:.1e}");
    assert!(off <= 1e-4, "{name}: {off:e}");
}

#[test]
fn errn2_computes_what_pytorch_does() {
    checkpoint("team20_ERRN2", "errn2", 245_968);
}
