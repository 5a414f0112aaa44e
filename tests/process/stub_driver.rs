//! The NVIDIA driver as it fails and as it should work, played by a stub of its library.
//!
//! `tests/stub_libcuda/stub.c` is compiled into a folder that a child process finds `libcuda.so.1`
//! in. The children are the `srk` binary, and this test program with the ignored tests below.
#![cfg(all(feature = "cuda", target_os = "linux"))]
#![allow(clippy::unwrap_used, clippy::print_stdout)]
use std::path::Path;
use std::process::{Command, Output};
use std::sync::OnceLock;

use srk::engine::cuda::images::Module;
use srk::engine::cuda::{
    Argument, Boxes, Convolution, DevicePointer, Driver, Gpu, Kernel, Launch, Libraries, Pass,
    Product, TensorMap, nvidia,
};
use srk::engine::device::DType;
use srk::error::{Error, Result};

/// A folder with the stub as `libcuda.so.1`, compiled with `options`.
pub(super) fn stub(options: &[&str]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    compile("stub.c", &folder.path().join("libcuda.so.1"), options);
    folder
}

pub(super) fn compile(source: &str, library: &Path, options: &[&str]) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/stub_libcuda");
    let status = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", "-pthread", "-o"])
        .arg(library)
        .arg(folder.join(source))
        .args(options)
        .status()
        .expect("a C compiler named cc");
    assert!(status.success());
}

fn complete_stub() -> &'static Path {
    static FOLDER: OnceLock<tempfile::TempDir> = OnceLock::new();
    FOLDER.get_or_init(|| stub(&[])).path()
}

fn run(mut command: Command, folder: &Path, faults: &str) -> (Option<i32>, String) {
    let Output { status, stdout, stderr } =
        command.env("LD_LIBRARY_PATH", folder).env("STUB_CUDA", faults).output().unwrap();
    let text = [stdout, stderr].map(|b| String::from_utf8_lossy(&b).into_owned()).concat();
    assert!(!text.contains("panicked"), "{text}");
    (status.code(), text)
}

/// What `srk` with `arguments` exits with and says.
fn srk(folder: &Path, faults: &str, arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_srk"));
    command.args(arguments);
    run(command, folder, faults)
}

/// Runs the ignored test `name` of this program on the stub.
fn child(name: &str, faults: &str, log: &Path) -> (Option<i32>, String) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--ignored", "--exact", "--nocapture", &format!("stub_driver::{name}")])
        .env("STUB_CUDA_LOG", log);
    run(command, complete_stub(), faults)
}

/// Asking for the GPU ends with exit code 4 and a text with all `words`.
fn refused(folder: &Path, faults: &str, words: &[&str]) {
    let picture = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/parrots.png");
    let arguments = ["upscale", picture, "/nonexistent/out.png", "--device", "cuda"];
    let (code, text) = srk(folder, faults, &arguments);
    assert_eq!(code, Some(4), "{faults}: {text}");
    for word in words {
        assert!(text.contains(word), "{faults}: {word:?} is not in\n{text}");
    }
}

#[test]
fn doctor_says_why_there_is_no_gpu_and_carries_on() {
    let faults =
        [("init=100", "CUDA error 100"), ("count=0", "sees no GPU"), ("cc=61", "capability 6.1")];
    for (faults, word) in faults {
        let (code, text) = srk(complete_stub(), faults, &["doctor"]);
        assert_eq!(code, Some(0), "{faults}: {text}");
        assert!(text.contains("no GPU: ") && text.contains(word), "{faults}: {text}");
    }
}

#[test]
fn doctor_lists_every_gpu_and_says_problems_alone_if_asked() {
    let stub = complete_stub();
    let (code, text) = srk(stub, "count=2", &["doctor"]);
    assert_eq!(code, Some(0), "{text}");
    for word in ["cuda:0 Stub 0", "cuda:1 Stub 1", "compute capability 9.0", "8192 MiB"] {
        assert!(text.contains(word), "{word}: {text}");
    }
    let (code, text) = srk(stub, "count=2", &["doctor", "--json"]);
    assert_eq!(code, Some(0), "{text}");
    let found: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(found["gpus"][1]["device"], "cuda:1");
    assert_eq!(found["gpus"][1]["memory"], 8u64 << 30);
    assert_eq!(found["gpus"][1]["compute_capability"], "9.0");
    assert!(found["gpu"].is_string() && found["self_test"]["passed"] == true, "{text}");
    let (code, text) = srk(stub, "cc=61", &["doctor", "-q"]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.lines().count() == 1 && text.contains("capability 6.1"), "{text}");
    let empty = tempfile::tempdir().unwrap();
    if srk::engine::cuda::devices().is_err() {
        let (code, text) = srk(empty.path(), "", &["doctor", "-q"]);
        assert_eq!((code, text.as_str()), (Some(0), ""), "a machine without a GPU is no problem");
    }
}

#[test]
fn a_driver_that_does_not_start() {
    let stub = complete_stub();
    refused(stub, "init=100", &["CUDA error 100", "nvidia-smi", "CUDA_VISIBLE_DEVICES"]);
    refused(stub, "init=34", &["CUDA error 34", "stub", "LD_LIBRARY_PATH"]);
    refused(stub, "init=35", &["CUDA error 35 (unknown)", "driver 525"]);
    refused(stub, "init=803", &["CUDA error 803", "restart"]);
    refused(stub, "init=999", &["CUDA error 999", "restart"]);
    refused(stub, "init=12345", &["CUDA error 12345 (CUDA_ERROR_OF_STUB): words of the stub"]);
}

#[test]
fn a_driver_or_gpu_that_is_too_old() {
    let stub = complete_stub();
    refused(stub, "version=11000", &["CUDA up to 11.0", "driver 525"]);
    refused(stub, "cc=70", &["Stub 0", "compute capability 7.0", "7.5"]);
    refused(stub, "count=0", &["sees no GPU"]);
}

#[test]
fn a_library_without_a_symbol() {
    let stub = stub(&["-DWITHOUT_GRAPH_LAUNCH"]);
    refused(stub.path(), "", &["has no cuGraphLaunch", "driver 525"]);
}

#[test]
fn no_library_at_all() {
    let empty = tempfile::tempdir().unwrap();
    // Where a driver is installed the loader finds it without our folder.
    let installed = srk::engine::cuda::devices().is_ok();
    match installed {
        true => println!("not tested: this machine has a driver"),
        false => refused(empty.path(), "", &["libcuda.so.1", "525"]),
    }
}

#[test]
fn a_gpu_that_is_not_there() {
    let arguments = ["upscale", "in.png", "out.png", "--device", "cuda:3"];
    let (code, text) = srk(complete_stub(), "count=2", &arguments);
    assert_eq!(code, Some(4), "{text}");
    assert!(text.contains("no GPU 3") && text.contains("cuda:0 to cuda:1"), "{text}");
}

#[test]
fn kernels_that_the_driver_refuses() {
    let refusals = [
        ("load=209", "no kernels for compute capability 9.0"),
        ("load=200", "damaged"),
        ("load=218", "damaged"),
        ("load=222", "too old"),
        ("load=2", "out"),
    ];
    for (faults, word) in refusals {
        let (code, text) = child("opening", faults, Path::new("/dev/null"));
        assert_eq!(code, Some(0), "{text}");
        let exit = if faults == "load=2" { "exit 5" } else { "exit 4" };
        assert!(text.contains(exit) && text.contains(word), "{faults}: {text}");
        assert!(text.contains("cannot load the kernels of demo"), "{faults}: {text}");
    }
}

#[test]
fn memory_that_is_full() {
    let (code, text) = child("opening", "alloc=2", Path::new("/dev/null"));
    assert_eq!(code, Some(0), "{text}");
    for word in ["exit 5", "cannot allocate 64 MiB", "CUDA error 2", "123 of 8192 MiB free"] {
        assert!(text.contains(word), "{word} is not in {text}");
    }
}

#[test]
fn a_driver_that_works() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let (code, text) = child("working", "", &log);
    assert_eq!(code, Some(0), "{text}");
    let left = std::fs::read_to_string(&log).unwrap();
    let nothing = "left: contexts 0 allocations 0 pinned 0 modules 0 streams 0 events 0 graphs 0\n";
    assert_eq!(left, nothing, "what was not given back");
}

#[test]
fn a_kernel_that_fails_is_reported_later() {
    let (code, text) = child("failing", "", Path::new("/dev/null"));
    assert_eq!(code, Some(0), "{text}");
}

#[test]
fn libraries_beside_the_driver() {
    let folder = stub(&[]);
    for name in ["libcudnn.so.9", "libcublasLt.so.13"] {
        // They wait for the driver that they are linked to.
        let driver = folder.path().join("libcuda.so.1");
        compile("libraries.c", &folder.path().join(name), &[driver.to_str().unwrap()]);
    }
    let log = folder.path().join("log");
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--ignored", "--exact", "--nocapture", "stub_driver::with_libraries"]);
    command.env("STUB_CUDA_LOG", &log).env("SRK_CUDA_LIBRARIES", folder.path());
    let (code, text) = run(command, folder.path(), "");
    assert_eq!(code, Some(0), "{text}");
    let left = std::fs::read_to_string(&log).unwrap();
    assert!(left.contains("allocations 0 "), "workspaces are given back: {left}");
}

#[test]
fn tensor_maps_are_the_drivers() {
    let folder = stub(&["-DWITH_TENSOR_MAPS"]);
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--ignored", "--exact", "--nocapture", "stub_driver::with_tensor_maps"]);
    let (code, text) = run(command, folder.path(), "");
    assert_eq!(code, Some(0), "{text}");
}

#[test]
#[ignore = "run by others, on the stub"]
fn with_tensor_maps() {
    let gpu = open().unwrap();
    let (driver, to) = (gpu.driver(), gpu.allocate(128).unwrap());
    assert!(driver.has_tensor_maps());
    let address = DevicePointer::new(0x1000);
    let map = |dtype, boxes| driver.tensor_map(&TensorMap { address, dtype, boxes });
    // Swizzled in 128 bytes, fetched in 128.
    let how = 3 << 8 | 2 << 16;
    let pair = |high: u64, low: u64| high << 32 | low;
    let corner =
        |lower: i32, upper: i32| pair(lower.cast_unsigned().into(), upper.cast_unsigned().into());
    let windows = Boxes::windows([2, 30, 40, 24], [5, 2, 1], 128).unwrap();
    let windows = map(DType::F16, windows).unwrap();
    let sizes = [pair(24, 1), pair(40, 2), pair(30, 2), pair(2, 1), 48, 48 * 40, 48 * 40 * 30];
    assert_eq!(windows[..2], [6, 0x1000]);
    assert_eq!(windows[2..6], sizes[..4]);
    assert_eq!(windows[6..9], sizes[4..]);
    assert_eq!(windows[10..13], [corner(-1, -3), corner(-1, -3), pair(64, 128)]);
    assert_eq!(windows[15], how);
    let weights = map(DType::BF16, Boxes::weights([96, 25, 24], 64).unwrap()).unwrap();
    assert_eq!(weights[..5], [9, 0x1000, pair(24, 1), pair(25, 1), pair(96, 1)]);
    assert_eq!((&weights[6..8], &weights[10..13]), (&[48, 48 * 25][..], &[64, 1, 64][..]));
    assert_eq!(weights[15], how);

    // As an argument by value, also of what is recorded.
    for recorded in [false, true] {
        // SAFETY: 128 bytes that are alive.
        unsafe { driver.fill(to.pointer(), 0, 128).unwrap() };
        let arguments = [Argument::from(to.pointer().address()), Argument::Map(windows)];
        let [grid, block] = [[1, 1, 1], [64, 1, 1]];
        let launch =
            Launch { kernel: &KEEP_MAP, grid, block, shared_bytes: 0, arguments: &arguments };
        // SAFETY: the stub's kernel writes 128 bytes there.
        let start = || unsafe { driver.launch(&launch) };
        match recorded {
            false => start().unwrap(),
            true => {
                let (graph, ()) = gpu.capture(start).unwrap();
                // SAFETY: the buffer is alive.
                unsafe { graph.replay().unwrap() };
            }
        }
        let mut kept = [0u8; 128];
        get(&gpu, to.pointer(), &mut kept).unwrap();
        assert_eq!(bytemuck::pod_collect_to_vec::<u8, u64>(&kept), windows, "recorded: {recorded}");
    }
}

fn open() -> Result<Gpu> {
    nvidia::open_with(0, |capability| {
        assert_eq!(capability, (9, 0));
        let module = |stem: &str, text: &str| Module { stem: stem.into(), bytes: text.into() };
        Ok(vec![
            module("demo", "none of interest"),
            module("other", "add_one_f32 fault_f32 keep_map ......."),
        ])
    })
}

static ADD_ONE: Kernel = Kernel::new(0, "add_one_f32", "other", &[8, 4]);
static FAULT: Kernel = Kernel::new(1, "fault_f32", "other", &[8, 4]);
static KEEP_MAP: Kernel = Kernel::new(3, "keep_map", "other", &[8, 128]);
static MISSING: Kernel = Kernel::new(2, "no_such_f32", "demo", &[8, 4]);

fn launch(
    driver: &dyn Driver,
    kernel: &'static Kernel,
    at: DevicePointer,
    n: u32,
    shared: u32,
) -> Result<()> {
    let arguments = [Argument::from(at.address()), Argument::from(n)];
    let launch = Launch {
        kernel,
        grid: [1, 1, 1],
        block: [64, 1, 1],
        shared_bytes: shared,
        arguments: &arguments,
    };
    // SAFETY: the stub's kernels take a pointer and an int, and `at` begins `n` numbers in each test.
    unsafe { driver.launch(&launch) }
}

/// Copies to a buffer of the test, within its size.
fn put(gpu: &Gpu, at: DevicePointer, bytes: &[u8]) -> Result<()> {
    // SAFETY: as said; the buffer is alive in every test.
    unsafe { gpu.driver().upload(at, bytes) }
}

/// Copies from a buffer of the test, within its size.
fn get(gpu: &Gpu, at: DevicePointer, bytes: &mut [u8]) -> Result<()> {
    // SAFETY: as said; the buffer is alive in every test.
    unsafe { gpu.driver().download(at, bytes) }
}

#[test]
#[ignore = "run by others, on the stub"]
fn opening() {
    let failed = open().and_then(|gpu| gpu.allocate(64 << 20).map(|_| ()));
    if let Err(error) = failed {
        println!("exit {}: {error}", error.exit_code());
    }
}

#[test]
#[ignore = "run by others, on the stub"]
fn working() {
    let gpu = open().unwrap();
    let driver = gpu.driver();
    assert_eq!(gpu.describe().name, "Stub 0");
    assert_eq!(gpu.describe().driver, "13.0");
    assert_eq!(driver.memory().unwrap().0, 123 << 20);
    copies_of_many_sizes(&gpu);
    uploads_beside(&gpu);
    launches_and_graphs(&gpu);
    from_several_threads(&gpu);
    let four = gpu.allocate(16).unwrap();
    let seconds = driver
        .time(&mut || (0..3).try_for_each(|_| launch(driver, &ADD_ONE, four.pointer(), 4, 0)))
        .unwrap();
    assert_eq!(seconds, 3e-3);
}

/// Sizes around a piece of the ring and of the whole ring; the source changes at once.
fn copies_of_many_sizes(gpu: &Gpu) {
    const PIECE: usize = 2 << 20;
    for bytes in [1, 1000, PIECE - 1, PIECE, PIECE + 1, 6 * PIECE, 17 * PIECE + 5] {
        let buffer = gpu.allocate(bytes).unwrap();
        let pattern: Vec<u8> = (0..=250).cycle().take(bytes).collect();
        let mut source = pattern.clone();
        put(gpu, buffer.pointer(), &source).unwrap();
        source.fill(0);
        let mut back = vec![0; bytes];
        get(gpu, buffer.pointer(), &mut back).unwrap();
        assert!(back == pattern, "{bytes} bytes");
    }
    // Many small ones in flight.
    let buffer = gpu.allocate(400).unwrap();
    for i in 0..100u32 {
        put(gpu, buffer.pointer().offset(4 * i as usize), &i.to_ne_bytes()).unwrap();
    }
    let mut back = vec![0u32; 100];
    get(gpu, buffer.pointer(), bytemuck::cast_slice_mut(&mut back)).unwrap();
    assert!(back.iter().enumerate().all(|(i, &v)| v as usize == i));
}

/// More of them than the ring of pinned memory holds, one after the other.
fn uploads_beside(gpu: &Gpu) {
    let uploads = gpu.driver().uploads().unwrap().unwrap();
    let buffer = gpu.allocate(100_000).unwrap();
    for round in 0..20u8 {
        uploads.follow().unwrap();
        // SAFETY: the buffer has as many bytes and is alive; nothing uses it before `join`.
        unsafe { uploads.upload(buffer.pointer(), &[round; 100_000]).unwrap() };
        uploads.join().unwrap();
        let mut back = vec![0; 100_000];
        get(gpu, buffer.pointer(), &mut back).unwrap();
        assert!(back.iter().all(|&b| b == round));
    }
}

fn values(gpu: &Gpu, at: DevicePointer) -> [f32; 4] {
    let mut values = [0.0f32; 4];
    get(gpu, at, bytemuck::cast_slice_mut(&mut values)).unwrap();
    values
}

fn launches_and_graphs(gpu: &Gpu) {
    let driver = gpu.driver();
    let (a, b) = (gpu.allocate(16).unwrap(), gpu.allocate(16).unwrap());
    // SAFETY: the buffer has 16 bytes.
    unsafe { driver.fill(a.pointer(), 0, 16).unwrap() };
    launch(driver, &ADD_ONE, a.pointer(), 4, 0).unwrap();
    // More shared memory than a block has by default, then less again.
    launch(driver, &ADD_ONE, a.pointer(), 3, 100 << 10).unwrap();
    launch(driver, &ADD_ONE, a.pointer(), 2, 1 << 10).unwrap();
    assert_eq!(values(gpu, a.pointer()), [3.0, 3.0, 2.0, 1.0]);
    let error = launch(driver, &ADD_ONE, a.pointer(), 4, 1 << 20).unwrap_err().to_string();
    assert!(error.contains("add_one_f32") && error.contains("shared memory"), "{error}");
    let error = launch(driver, &MISSING, a.pointer(), 4, 0).unwrap_err().to_string();
    assert!(error.contains("no kernel no_such_f32"), "{error}");

    let (graph, ()) = gpu
        .capture(|| {
            let error = put(gpu, a.pointer(), &[0]).unwrap_err().to_string();
            assert!(error.contains("being recorded"), "{error}");
            driver.synchronize()?;
            launch(driver, &ADD_ONE, a.pointer(), 4, 0)?;
            // SAFETY: both buffers have 16 bytes.
            unsafe { driver.copy(b.pointer(), a.pointer(), 16) }
        })
        .unwrap();
    assert_eq!(values(gpu, a.pointer()), [3.0, 3.0, 2.0, 1.0], "recording does nothing");
    for _ in 0..3 {
        // SAFETY: both buffers are alive.
        unsafe { graph.replay().unwrap() };
    }
    assert_eq!(values(gpu, b.pointer()), [6.0, 6.0, 5.0, 4.0]);
}

fn from_several_threads(gpu: &Gpu) {
    std::thread::scope(|scope| {
        for thread in 0..4u8 {
            scope.spawn(move || {
                let buffer = gpu.allocate(100_000).unwrap();
                for round in 0..20 {
                    put(gpu, buffer.pointer(), &[thread + round; 100_000]).unwrap();
                    let mut back = vec![0; 100_000];
                    get(gpu, buffer.pointer(), &mut back).unwrap();
                    assert!(back.iter().all(|&b| b == thread + round));
                }
            });
        }
    });
}

#[test]
#[ignore = "run by others, on the stub"]
fn failing() {
    let gpu = open().unwrap();
    let buffer = gpu.allocate(16).unwrap();
    launch(gpu.driver(), &FAULT, buffer.pointer(), 4, 0).unwrap();
    let error = gpu.synchronize().unwrap_err();
    assert!(matches!(error, Error::Device(_)));
    let text = error.to_string();
    for word in ["CUDA error 700", "fault_f32", "CUDA_LAUNCH_BLOCKING=1"] {
        assert!(text.contains(word), "{word} is not in {text}");
    }
    get(&gpu, buffer.pointer(), &mut [0; 4]).unwrap_err();
}

/// Numbers on the device, and where.
fn place(gpu: &Gpu, values: &[f32]) -> srk::engine::cuda::Buffer {
    let buffer = gpu.allocate(4 * values.len()).unwrap();
    put(gpu, buffer.pointer(), bytemuck::cast_slice(values)).unwrap();
    buffer
}

fn fetch(gpu: &Gpu, at: DevicePointer, n: usize) -> Vec<f32> {
    let mut values = vec![0.0f32; n];
    get(gpu, at, bytemuck::cast_slice_mut(&mut values)).unwrap();
    values
}

fn numbers(n: usize) -> Vec<f32> {
    (0..n).map(|i| (i * 7919 % 31) as f32 - 15.0).collect()
}

#[test]
#[ignore = "run by others, on the stub"]
fn with_libraries() {
    let gpu = open().unwrap();
    let libraries = gpu.driver().libraries().unwrap();
    let versions = [("cudnn", "9.12.3".to_owned()), ("cublas", "13.2.3".to_owned())];
    assert_eq!(libraries.versions(), versions);
    for transposed in [[false, false], [false, true], [true, false], [true, true]] {
        for batch in [1, 3] {
            products(&gpu, libraries, transposed, batch);
        }
    }
    for pass in [Pass::Forward, Pass::InputGradient, Pass::WeightGradient] {
        convolutions(&gpu, libraries, pass);
    }
}

fn products(gpu: &Gpu, libraries: &dyn Libraries, transposed: [bool; 2], batch: usize) {
    let (rows, columns, inner) = (2, 5, 3);
    let product = Product { dtype: DType::F32, rows, columns, inner, transposed, batch };
    assert!(libraries.multiplies(&product));
    assert!(!libraries.multiplies(&Product { dtype: DType::F64, ..product }));
    let (a, b) = (numbers(batch * rows * inner), numbers(batch * inner * columns));
    let (at_a, at_b) = (place(gpu, &a), place(gpu, &b));
    let at_c = place(gpu, &vec![f32::NAN; batch * rows * columns]);
    // SAFETY: the buffers are of these matrices.
    unsafe {
        libraries.multiply(&product, [at_a.pointer(), at_b.pointer(), at_c.pointer()]).unwrap();
    }
    let c = fetch(gpu, at_c.pointer(), batch * rows * columns);
    for (i, got) in c.into_iter().enumerate() {
        let (n, row, column) = (i / (rows * columns), i / columns % rows, i % columns);
        let of_a = |k| if transposed[0] { k * rows + row } else { row * inner + k };
        let of_b = |k| if transposed[1] { column * inner + k } else { k * columns + column };
        let one = |k| a[n * rows * inner + of_a(k)] * b[n * inner * columns + of_b(k)];
        assert_eq!(got, (0..inner).map(one).sum::<f32>(), "{product:?}");
    }
}

/// Every pass against the sum over windows, with a stride, a border and plans of two kinds.
fn convolutions(gpu: &Gpu, libraries: &dyn Libraries, pass: Pass) {
    let input = [2, 5, 4, 3];
    let p =
        Convolution { pass, dtype: DType::F32, input, outputs: 2, kernel: 3, stride: 2, pad: 1 };
    assert_eq!(libraries.plans(&p), 1, "exact and repeatable");
    assert_eq!(libraries.plans(&Convolution { dtype: DType::F16, ..p }), 2, "tensor cores too");
    let [height, width] = p.output_size();
    let sizes = [2 * 5 * 4 * 3, 2 * 3 * 3 * 3, 2 * height * width * 2];
    let mut all = sizes.map(numbers);
    let written = [2, 0, 1][pass as usize];
    let places = all.each_ref().map(|values| place(gpu, values));
    let at = places.each_ref().map(srk::engine::cuda::Buffer::pointer);
    // SAFETY: the buffers are of these tensors.
    unsafe {
        libraries.convolve(&p, 0, at).unwrap();
        libraries.convolve(&p, 1, at).unwrap_err();
    }
    all[written].fill(0.0);
    for i in 0..2 * height * width * 2 * 27 {
        let (tap, y) = (i % 27, i / 27);
        let (u, v, c) = (tap / 9, tap / 3 % 3, tap % 3);
        let (o, j, i, n) = (y % 2, y / 2 % width, y / 2 / width % height, y / 2 / width / height);
        let (r, s) = ((2 * i + u).wrapping_sub(1), (2 * j + v).wrapping_sub(1));
        if r >= 5 || s >= 4 {
            continue;
        }
        let (x, w) = (((n * 5 + r) * 4 + s) * 3 + c, ((o * 3 + u) * 3 + v) * 3 + c);
        match pass {
            Pass::Forward => all[2][y] += all[0][x] * all[1][w],
            Pass::InputGradient => all[0][x] += all[2][y] * all[1][w],
            Pass::WeightGradient => all[1][w] += all[0][x] * all[2][y],
        }
    }
    assert_eq!(fetch(gpu, at[written], sizes[written]), all[written], "{p:?}");
}
