//! The emulation runs kernels correctly, and its checks find what they are for.
#![allow(clippy::unwrap_used, reason = "tests")]

use cuda_emulation::{Copies, Library, Order, Schedule, Variant};

const FORWARD: Schedule = Schedule::ALL[0];

/// Device memory that frees itself.
struct Buffer {
    library: Library,
    address: u64,
    len: usize,
}

impl Buffer {
    fn empty(library: Library, len: usize, name: &str) -> Self {
        Self { library, address: library.allocate(len * 4, name).unwrap(), len }
    }
    fn new(library: Library, values: &[f32], name: &str) -> Self {
        let buffer = Self::empty(library, values.len(), name);
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_ne_bytes()).collect();
        library.upload(buffer.address, &bytes).unwrap();
        buffer
    }
    fn values(&self) -> Vec<f32> {
        let mut bytes = vec![0; self.len * 4];
        self.library.download(self.address, &mut bytes).unwrap();
        bytes.chunks(4).map(|b| f32::from_ne_bytes(b.try_into().unwrap())).collect()
    }
    fn argument(&self) -> (u64, u32) {
        (self.address, 8)
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.library.free(self.address).unwrap();
    }
}

fn open(variant: Variant) -> Library {
    Library::open(variant).unwrap()
}

fn ramp(n: usize) -> Vec<f32> {
    (0..n).map(|i| (i * 7 % 31) as f32 - 11.5).collect()
}

/// Two blocks of 256 threads over x, y.
fn run(
    library: Library,
    name: &str,
    x: &Buffer,
    y: &Buffer,
    schedule: Schedule,
) -> Result<(), String> {
    library.launch(name, [2, 1, 1], [256, 1, 1], 0, &[x.argument(), y.argument()], schedule)
}

fn silu(library: Library, x: &Buffer, y: &Buffer, n: u64) -> Result<(), String> {
    let arguments = [x.argument(), y.argument(), (n, 4)];
    library.launch("silu_forward_f32", [1, 1, 1], [256, 1, 1], 0, &arguments, FORWARD)
}

#[test]
fn kernels_compute_under_every_schedule() {
    let x = ramp(512);
    let reversed: Vec<f32> = (0..512).map(|i| x[i / 32 * 32 + 31 - i % 32]).collect();
    let difference: Vec<f32> =
        (0..512).map(|i| if i % 256 == 0 { x[i] } else { x[i] - x[i - 1] }).collect();
    for variant in [Variant::Plain, Variant::Checked] {
        let library = open(variant);
        let (x, y) = (Buffer::new(library, &x, "x"), Buffer::empty(library, 512, "y"));
        for schedule in Schedule::ALL {
            run(library, "probe_reverse_warps", &x, &y, schedule).unwrap();
            assert_eq!(y.values(), reversed, "{library:?} {schedule:?}");
            run(library, "probe_difference", &x, &y, schedule).unwrap();
            assert_eq!(y.values(), difference, "{library:?} {schedule:?}");
        }
        assert_eq!(library.checked_accesses() > 0, variant == Variant::Checked);
    }
}

#[test]
fn a_product_kernel_computes() {
    for variant in [Variant::Plain, Variant::Checked] {
        let library = open(variant);
        let values = ramp(67);
        let (x, y) = (Buffer::new(library, &values, "x"), Buffer::empty(library, 67, "y"));
        silu(library, &x, &y, 67).unwrap();
        for (x, y) in values.iter().zip(y.values()) {
            assert!((y - x / (1.0 + (-x).exp())).abs() < 1e-5, "silu({x}) = {y}");
        }
    }
}

// Seeded mistakes: each check proves on every run that it bites.

#[test]
fn a_missing_barrier_is_a_race_where_numbers_are_right() {
    let x = ramp(512);
    let library = open(Variant::Bug("BUG_PROBE_BARRIER"));
    let (x, y) = (Buffer::new(library, &x, "x"), Buffer::empty(library, 512, "y"));
    let text = run(library, "probe_difference", &x, &y, FORWARD).unwrap_err();
    assert!(text.contains("race (read after write) with thread 0 of this block"), "{text}");
    assert!(text.contains("of shared variable scratch (1024 bytes) at probes.cu:"), "{text}");
}

#[test]
fn a_missing_edge_guard_is_out_of_bounds() {
    let library = open(Variant::Bug("BUG_SILU_EDGE"));
    let (x, y) = (Buffer::new(library, &ramp(67), "x"), Buffer::empty(library, 67, "y"));
    let text = silu(library, &x, &y, 67).unwrap_err();
    assert!(text.starts_with("silu_forward_f32, block (0,0,0), thread ("), "{text}");
    assert!(
        text.contains("out of bounds 4-byte read of byte 268 of device buffer x (268 bytes)"),
        "{text}"
    );
    assert!(text.contains(" at common.cuh:") && text.contains(" < silu.cu:"), "{text}");
}

#[test]
fn a_wrong_formula_gives_wrong_numbers() {
    let wrong = open(Variant::Bug("BUG_SILU_SLOPE"));
    let slope = |library: Library| {
        let x = Buffer::new(library, &ramp(67), "x");
        let dy = Buffer::new(library, &[1.0; 67], "dy");
        let dx = Buffer::empty(library, 67, "dx");
        let arguments = [x.argument(), dy.argument(), dx.argument(), (67, 4)];
        let (grid, block) = ([1, 1, 1], [256, 1, 1]);
        library.launch("silu_backward_f32", grid, block, 0, &arguments, FORWARD).unwrap();
        let derivative = |v: &f32| {
            let s = 1.0 / (1.0 + (-v).exp());
            s * (1.0 + v * (1.0 - s))
        };
        let want = ramp(67).iter().map(derivative).collect::<Vec<f32>>();
        dx.values().iter().zip(want).all(|(got, want)| (got - want).abs() < 1e-5)
    };
    assert!(slope(open(Variant::Checked)));
    assert!(!slope(wrong));
}

#[test]
fn every_seeded_bug_has_a_test() {
    // Those of hopper.cuh are in tests/hopper.rs.
    let mut bugs: Vec<&str> = Library::bugs().filter(|b| !b.starts_with("BUG_HOPPER")).collect();
    bugs.sort_unstable();
    assert_eq!(bugs, ["BUG_PROBE_BARRIER", "BUG_SILU_EDGE", "BUG_SILU_SLOPE"]);
}

// Further checks, on correct kernels used wrongly.

#[test]
fn an_uninitialised_read_is_reported_and_so_is_recycled_memory() {
    let library = open(Variant::Checked);
    let (x, y) = (Buffer::empty(library, 512, "x"), Buffer::empty(library, 512, "y"));
    let text = run(library, "probe_copy", &x, &y, FORWARD).unwrap_err();
    let want = "read of uninitialised byte 0 of device buffer x (2048 bytes) at probes.cu:";
    assert!(text.contains(want), "{text}");
    library.fill(x.address, 0, 2048).unwrap();
    run(library, "probe_copy", &x, &y, FORWARD).unwrap();
    library.forget(x.address + 1024, 512).unwrap();
    let text = run(library, "probe_copy", &x, &y, FORWARD).unwrap_err();
    assert!(text.contains("read of uninitialised byte 1024 of device buffer x"), "{text}");
}

#[test]
fn blocks_that_write_one_element_race() {
    let library = open(Variant::Checked);
    let y = Buffer::empty(library, 1, "y");
    let launch = |grid| {
        let arguments = [y.argument()];
        library.launch("probe_blocks_collide", grid, [32, 1, 1], 0, &arguments, FORWARD)
    };
    launch([1, 1, 1]).unwrap();
    let text = launch([2, 1, 1]).unwrap_err();
    let want =
        "race (write after write) with another block of this launch on byte 0 of device buffer y";
    assert!(text.contains(want), "{text}");
}

#[test]
fn the_plain_build_finds_the_end_of_a_buffer_and_so_does_each_library_after_the_other() {
    // The handlers of all libraries are chained: each must find its own faults, in any order.
    let libraries = [Variant::Plain, Variant::Bug("BUG_SILU_EDGE"), Variant::Checked].map(open);
    for library in libraries.iter().chain(libraries.iter().rev()) {
        let bug = library.variant() == Variant::Bug("BUG_SILU_EDGE");
        let (x, y) = (Buffer::new(*library, &ramp(64), "x"), Buffer::empty(*library, 64, "y"));
        if bug {
            silu(*library, &x, &y, 64).unwrap_err();
        } else {
            let text = run(*library, "probe_copy", &x, &y, FORWARD).unwrap_err();
            let plain = text.contains("access to unmapped address") && text.contains("probes.cu:");
            assert!(plain || text.contains("out of bounds 4-byte read of byte 256 of"), "{text}");
        }
    }
}

#[test]
fn endless_loops_are_stopped_in_each_library() {
    for variant in [Variant::Plain, Variant::Checked, Variant::Plain] {
        let library = open(variant);
        let flag = Buffer::new(library, &[0.0], "flag");
        library.set_time_limit(0.2);
        let schedule = Schedule { order: Order::Forward, copies: Copies::Late };
        let arguments = [flag.argument()];
        let text = library
            .launch("probe_wait_for_other_block", [2, 1, 1], [32, 1, 1], 0, &arguments, schedule)
            .unwrap_err();
        library.set_time_limit(60.0);
        assert!(text.contains("time limit exceeded"), "{text}");
        // The device works on after a failure.
        let (x, y) = (Buffer::new(library, &ramp(512), "x"), Buffer::empty(library, 512, "y"));
        run(library, "probe_copy", &x, &y, FORWARD).unwrap();
        assert_eq!(x.values(), y.values());
    }
}

#[test]
fn launch_mistakes_are_refused() {
    let library = open(Variant::Checked);
    let x = Buffer::new(library, &[0.0; 256], "x");
    let pointer = x.argument();
    let launch = |name, block, arguments: &[(u64, u32)]| {
        library.launch(name, [1, 1, 1], [block, 1, 1], 0, arguments, FORWARD).unwrap_err()
    };
    let good = [pointer, pointer];
    assert_eq!(launch("probe", 256, &good), "probe: no such kernel");
    assert_eq!(launch("probe_copy", 256, &good[1..]), "probe_copy: takes 2 arguments, not 1");
    let wrong = [pointer, (7, 4)];
    assert_eq!(launch("probe_copy", 256, &wrong), "probe_copy: argument 1 has 8 bytes, not 4");
    let wrong = [pointer, (0x1234_5678, 8)];
    assert_eq!(launch("probe_copy", 256, &wrong), "probe_copy: argument 1 is no device pointer");
    assert_eq!(launch("probe_copy", 2048, &good), "probe_copy: invalid launch dimensions");
    let bound = "probe_copy: 512 threads a block, more than its launch bound of 256";
    assert_eq!(launch("probe_copy", 512, &good), bound);
    let null = [(0, 8), pointer];
    assert!(launch("probe_copy", 256, &null).contains("no device memory"));
    let gone = Buffer::new(library, &[0.0; 256], "gone").argument();
    assert_eq!(
        launch("probe_copy", 256, &[gone, pointer]),
        "probe_copy: argument 0 is no device pointer"
    );
}

#[test]
fn host_mistakes_are_refused() {
    let library = open(Variant::Plain);
    let x = Buffer::new(library, &[0.0; 4], "x");
    assert_eq!(
        library.upload(x.address + 8, &[0; 9]).unwrap_err(),
        "upload outside any device buffer"
    );
    assert_eq!(
        library.free(x.address + 8).unwrap_err(),
        "free of an address that was not allocated"
    );
    let empty = library.allocate(0, "empty").unwrap();
    library.upload(empty, &[]).unwrap();
    library.free(empty).unwrap();
    assert!(Library::open(Variant::Bug("BUG_UNKNOWN")).unwrap_err().contains("BUG_UNKNOWN"));
}

#[test]
fn threads_share_memory_and_launch_at_the_same_time() {
    for variant in [Variant::Plain, Variant::Checked] {
        let library = open(variant);
        let x = Buffer::new(library, &ramp(512), "x");
        let middle = Buffer::empty(library, 512, "middle");
        let want = x.values();
        // One thread writes what others read later, and this thread allocated.
        std::thread::scope(|s| {
            s.spawn(|| {
                (0..50).for_each(|_| run(library, "probe_copy", &x, &middle, FORWARD).unwrap());
            });
        });
        std::thread::scope(|s| {
            for _ in 0..4 {
                s.spawn(|| {
                    for _ in 0..20 {
                        let y = Buffer::empty(library, 512, "y");
                        run(library, "probe_copy", &middle, &y, FORWARD).unwrap();
                        assert_eq!(y.values(), want);
                    }
                });
            }
        });
        run(library, "probe_copy", &x, &middle, FORWARD).unwrap();
    }
}

#[test]
fn the_registry_lists_names_and_parameters() {
    let kernels = open(Variant::Plain).kernels();
    let silu = kernels.iter().find(|k| k.name == "silu_backward_bf16").unwrap();
    assert_eq!(
        (silu.parameters.as_slice(), silu.max_threads),
        ([8, 8, 8, 4].as_slice(), Some(256))
    );
    assert_eq!(kernels, open(Variant::Checked).kernels());
}
