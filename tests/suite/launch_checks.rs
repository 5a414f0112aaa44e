//! Launches that the compiler and the launcher check: the generated table is that of the kernels, and tensors in the
//! wrong place or of the wrong type are refused in words.
#![allow(clippy::unwrap_used)]
use crate::common;

use cuda_emulation::{Library, Schedule, Variant};
use srk::engine::cuda::kernels::TABLE;
use srk::engine::cuda::{Gpu, Kernel};
use srk::engine::device::{DType, Device};
use srk::engine::tape::Tape;
use srk::engine::tensor::Tensor;

fn emulated() -> Gpu {
    common::emulated::gpu(Variant::Plain, Schedule::ALL[0])
}

/// Names and the bytes of parameters, as the compiler saw them and as the generator read them.
#[test]
fn the_table_is_what_the_kernels_register() {
    let registered = Library::open(Variant::Plain).unwrap().kernels().into_iter();
    // What tests of the emulator itself run: kernels/emulation/probes.cu.
    let ours = registered.filter(|k| !k.name.starts_with("probe_"));
    let registered: Vec<(String, Vec<u32>)> = ours.map(|k| (k.name, k.parameters)).collect();
    let bytes = |k: &Kernel| k.parameters().iter().map(|&b| b.into()).collect();
    let mut read: Vec<(String, Vec<u32>)> =
        TABLE.iter().map(|k| (k.name().to_owned(), bytes(k))).collect();
    read.sort();
    assert!(read.len() > 400, "only {} kernels were read", read.len());
    assert_eq!(read, registered);
}

#[test]
fn kernels_are_at_their_index_and_name_their_source() {
    for (at, kernel) in TABLE.iter().enumerate() {
        assert_eq!(kernel.index(), at, "{}", kernel.name());
        let source = format!("kernels/{}.cu", kernel.module());
        assert!(std::path::Path::new(&source).is_file(), "{source} of {}", kernel.name());
    }
}

/// A name in quotes is one that nothing checks.
#[test]
fn no_op_names_a_kernel_in_quotes() {
    let names: Vec<String> = TABLE.iter().map(|k| format!("\"{}\"", base(k.name()))).collect();
    // The names of ops, which errors say.
    let ops: Vec<String> = srk::ops::all().iter().map(|op| format!("\"{}\"", op.name())).collect();
    let other = ["\"q_sample\"", "\"sampler_step\"", "\"time_embedding\"", "\"add_assign\""];
    let mut checked = 0;
    for (path, text) in sources(std::path::Path::new("src/ops")) {
        checked += 1;
        for name in &names {
            let known = ops.contains(name) || other.contains(&name.as_str());
            assert!(known || !text.contains(name.as_str()), "{} says {name}", path.display());
        }
        assert!(!text.contains(".driver().launch("), "{}", path.display());
    }
    assert!(checked > 60, "only {checked} files were read");
}

/// Without the suffix of a type.
fn base(name: &str) -> &str {
    ["_f32", "_f16", "_bf16"].into_iter().find_map(|s| name.strip_suffix(s)).unwrap_or(name)
}

fn sources(folder: &std::path::Path) -> Vec<(std::path::PathBuf, String)> {
    let mut found = vec![];
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else {
            let text = std::fs::read_to_string(&path).unwrap();
            found.push((path, text));
        }
    }
    found
}

/// The error of `a * b` for tensors of these devices and types.
fn multiplied(a: (&Device, DType), b: (&Device, DType)) -> String {
    let tensor = |(device, dtype): (&Device, DType)| {
        Tensor::from_slice_on(device, &[1.0, 2.0, 3.0], &[3]).unwrap().cast(dtype).unwrap()
    };
    let mut tape = Tape::inference();
    let (a, b) = (tape.input(tensor(a)), tape.input(tensor(b)));
    tape.multiply(&a, &b).unwrap_err().to_string()
}

#[test]
fn a_tensor_that_is_elsewhere_is_refused_by_name() {
    let (gpu, other) = (Device::from(&emulated()), Device::from(&emulated()));
    let there = (&gpu, DType::F32);
    assert_eq!(multiplied(there, (&Device::Cpu, DType::F32)), "multiply: b is on the CPU");
    assert_eq!(multiplied(there, (&other, DType::F32)), "multiply: b is on another GPU");
}

#[test]
fn a_tensor_of_another_type_is_refused_by_name() {
    let gpu = Device::from(&emulated());
    let error = multiplied((&gpu, DType::F16), (&gpu, DType::F32));
    assert_eq!(error, "multiply: a is F16, b is F32");
    // One that a kernel reads as F32, whatever the launch's type.
    let x = Tensor::from_slice_on(&gpu, &[1.0; 6], &[1, 1, 2, 3]).unwrap();
    let noise = srk::ops::noise::Noise::Given(&x.try_clone().unwrap().cast(DType::F16).unwrap());
    let factors = Tensor::from_slice_on(&gpu, &[1.0; 3], &[1, 3]).unwrap();
    let mut state = x.try_clone().unwrap();
    let error = srk::ops::q_sample::q_sample(&factors, [&x, &x], &noise, &mut state, None);
    assert_eq!(error.unwrap_err().to_string(), "q_sample: noise is F16, not F32");
}
