//! Barriers, TMA and wgmma of compute capability 9.0: they compute under every schedule, and seeded mistakes are found.
#![allow(clippy::unwrap_used, reason = "tests")]

use cuda_emulation::{Library, Schedule, TensorMap, Variant};

const ROWS: usize = 64;

/// Device memory of 16-bit or 32-bit numbers that frees itself.
struct Buffer {
    library: Library,
    address: u64,
    bytes: usize,
}

impl Buffer {
    fn empty(library: Library, bytes: usize, name: &str) -> Self {
        Self { library, address: library.allocate(bytes, name).unwrap(), bytes }
    }
    fn halves(library: Library, values: &[f32], name: &str) -> Self {
        let bytes: Vec<u8> = values.iter().flat_map(|&v| half(v).to_ne_bytes()).collect();
        let buffer = Self::empty(library, bytes.len(), name);
        library.upload(buffer.address, &bytes).unwrap();
        buffer
    }
    fn read(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.bytes];
        self.library.download(self.address, &mut bytes).unwrap();
        bytes
    }
    fn floats(&self) -> Vec<f32> {
        self.read().chunks(4).map(|b| f32::from_ne_bytes(b.try_into().unwrap())).collect()
    }
    fn argument(&self) -> [u8; 8] {
        self.address.to_ne_bytes()
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.library.free(self.address).unwrap();
    }
}

/// Of a small integer.
fn half(v: f32) -> u16 {
    if v == 0.0 {
        return 0;
    }
    let bits = v.to_bits();
    let exponent = (bits >> 23 & 0xff) + 15 - 127;
    u16::try_from(bits >> 16 & 0x8000 | exponent << 10 | bits >> 13 & 0x3ff).unwrap()
}

fn ramp(n: usize, by: usize) -> Vec<f32> {
    (0..n).map(|i| (i * by % 31) as f32 - 11.0).collect()
}

/// `[64, depth]` in boxes of 64 x 64.
fn matrix(at: &Buffer, depth: usize) -> TensorMap {
    let bytes = 2 * depth as u64;
    TensorMap {
        address: at.address,
        element_bytes: 2,
        swizzle: 128,
        sizes: vec![u32::try_from(depth).unwrap(), 64, 1],
        strides: vec![bytes, 64 * bytes],
        extent: vec![64, 64, 1],
        pixels: None,
        traversal: vec![1; 3],
    }
}

/// Whether `y = x w^T` came out right, or what went wrong.
fn product(library: Library, depth: usize, schedule: Schedule) -> Result<bool, String> {
    product_with(128, library, depth, schedule)
}

/// The same of maps with this swizzle, whatever the kernel thinks.
fn product_with(
    swizzle: u8,
    library: Library,
    depth: usize,
    schedule: Schedule,
) -> Result<bool, String> {
    let (x, w) = (ramp(ROWS * depth, 7), ramp(ROWS * depth, 11));
    let on = [Buffer::halves(library, &x, "x"), Buffer::halves(library, &w, "w")];
    let y = Buffer::empty(library, ROWS * ROWS * 4, "y");
    let map = |buffer: &Buffer| TensorMap { swizzle, ..matrix(buffer, depth) };
    let maps = on.each_ref().map(|buffer| map(buffer).bytes());
    let steps = i32::try_from(depth.div_ceil(64)).unwrap().to_ne_bytes();
    let arguments: [&[u8]; 4] = [&maps[0], &maps[1], &y.argument(), &steps];
    let shared = 1024 + 4 * 8192 + 32;
    library.launch_with("probe_product", [1; 3], [160, 1, 1], shared, &arguments, schedule)?;
    Ok(y.floats() == multiplied(&x, &w, depth))
}

fn multiplied(x: &[f32], w: &[f32], depth: usize) -> Vec<f32> {
    let dot = |i: usize| -> f32 {
        let row = |m: &[f32], r: usize| m[r * depth..(r + 1) * depth].to_vec();
        row(x, i / ROWS).iter().zip(row(w, i % ROWS)).map(|(a, b)| a * b).sum()
    };
    (0..ROWS * ROWS).map(dot).collect()
}

/// The same of 64 x 16 that threads write to shared memory.
fn written_product(library: Library, schedule: Schedule) -> Result<bool, String> {
    let (x, w) = (ramp(ROWS * 16, 7), ramp(ROWS * 16, 11));
    let on = [Buffer::halves(library, &x, "x"), Buffer::halves(library, &w, "w")];
    let y = Buffer::empty(library, ROWS * ROWS * 4, "y");
    let arguments: [&[u8]; 3] = [&on[0].argument(), &on[1].argument(), &y.argument()];
    let name = "probe_written_product";
    library.launch_with(name, [1; 3], [128, 1, 1], 1024 + 4096, &arguments, schedule)?;
    Ok(y.floats() == multiplied(&x, &w, 16))
}

fn named_barrier(library: Library, schedule: Schedule) -> Result<bool, String> {
    let x: Vec<u8> = ramp(128, 3).iter().flat_map(|v| v.to_ne_bytes()).collect();
    let (from, y) = (Buffer::empty(library, 512, "x"), Buffer::empty(library, 512, "y"));
    library.upload(from.address, &x).unwrap();
    let arguments: [&[u8]; 2] = [&from.argument(), &y.argument()];
    library.launch_with("probe_named_barrier", [1; 3], [128, 1, 1], 0, &arguments, schedule)?;
    let want: Vec<f32> = (0..128).map(|i| ramp(128, 3)[i ^ 32]).collect();
    Ok(y.floats() == want)
}

#[test]
fn products_of_tiles_from_the_tma_are_right_under_every_schedule() {
    for variant in [Variant::Plain, Variant::Checked] {
        let library = Library::open(variant).unwrap();
        for schedule in Schedule::ALL {
            // The last step of 200 and of 8 has zeros behind the matrix.
            for depth in [8, 64, 200, 448] {
                assert_eq!(product(library, depth, schedule), Ok(true), "{depth} {schedule:?}");
            }
            assert_eq!(written_product(library, schedule), Ok(true), "{schedule:?}");
            assert_eq!(named_barrier(library, schedule), Ok(true), "{schedule:?}");
        }
    }
}

#[test]
fn a_map_with_another_swizzle_gives_wrong_numbers_or_is_refused() {
    let library = Library::open(Variant::Plain).unwrap();
    assert_eq!(product_with(0, library, 64, Schedule::ALL[0]), Ok(false));
    let text = product_with(64, library, 64, Schedule::ALL[0]).unwrap_err();
    assert!(text.contains("with an innermost box that does not fit its swizzle"), "{text}");
}

/// What each schedule says of a bug.
fn said(bug: &'static str) -> Vec<String> {
    let library = Library::open(Variant::Bug(bug)).unwrap();
    let outcome = |schedule| match bug {
        "BUG_HOPPER_PROXY" => written_product(library, schedule),
        "BUG_HOPPER_NAMED" => named_barrier(library, schedule),
        _ => product(library, 448, schedule),
    };
    let words = |outcome: Result<bool, String>| match outcome {
        Ok(true) => String::new(),
        Ok(false) => "wrong numbers".to_owned(),
        Err(text) => text,
    };
    Schedule::ALL.map(outcome).map(words).to_vec()
}

#[test]
fn every_seeded_mistake_is_found_under_every_schedule() {
    // A stage that is read too early, or refilled too early, or waited for in vain.
    let out_of_step =
        ["has yet to write", "without a wait for its mbarrier", "has yet to read", "deadlock: "];
    let bugs: [(&str, &[&str]); 10] = [
        ("BUG_HOPPER_PARITY", &out_of_step),
        ("BUG_HOPPER_ARRIVALS", &out_of_step),
        ("BUG_HOPPER_NO_WAIT", &["has yet to write", "without a wait", "uninitialised"]),
        ("BUG_HOPPER_BYTES", &["deadlock: "]),
        ("BUG_HOPPER_INIT_FENCE", &["the TMA does not know the mbarrier"]),
        // In spans of 32 bytes, where the second 16 deep begin in another span.
        ("BUG_HOPPER_SWIZZLE", &["starts in the middle of its swizzle's pattern"]),
        ("BUG_HOPPER_STRIDE", &["wrong numbers"]),
        ("BUG_HOPPER_PENDING", &["into what a wgmma of warp"]),
        ("BUG_HOPPER_FENCE", &["no wgmma_fence since its sums were the program's"]),
        ("BUG_HOPPER_PROXY", &["which a thread wrote without fence_proxy_async behind it"]),
    ];
    for (bug, wanted) in bugs {
        for text in said(bug) {
            assert!(wanted.iter().any(|want| text.contains(want)), "{bug}: {text:?}");
        }
    }
    for text in said("BUG_HOPPER_NAMED") {
        let found = ["race (read after write)", "read of uninitialised byte"];
        assert!(found.iter().any(|want| text.contains(want)), "{text}");
    }
    let mut known: Vec<&str> =
        bugs.iter().map(|(bug, _)| *bug).chain(["BUG_HOPPER_NAMED"]).collect();
    known.sort_unstable();
    let mut seeded: Vec<&str> = Library::bugs().filter(|b| b.starts_with("BUG_HOPPER")).collect();
    seeded.sort_unstable();
    assert_eq!(seeded, known);
}

#[test]
fn a_deadlock_names_the_waits_and_what_is_missing() {
    let text = &said("BUG_HOPPER_BYTES")[0];
    assert!(text.contains("in mbarrier_wait for parity 0 at hopper.cuh:"), "{text}");
    assert!(text.contains("misses 0 of 1 arrivals and 8192 bytes"), "{text}");
}

/// Convolutions of one tap: which pixels a load brings, in the order of the outputs.
#[test]
fn a_box_of_pixels_walks_lines_images_and_padding() {
    let library = Library::open(Variant::Checked).unwrap();
    // width, height, images, channels, kernel, stride, pad
    for [w, h, n, c, k, s, p] in [
        [5, 4, 2, 8, 3, 1, 1],
        [6, 7, 2, 72, 3, 2, 1],
        [7, 5, 3, 64, 1, 2, 0],
        [9, 3, 1, 16, 7, 1, 3],
    ] {
        let values = ramp(n * h * w * c, 13);
        let x = Buffer::halves(library, &values, "x");
        let out = |side: usize| (side + 2 * p - k) / s + 1;
        let pixels = 24;
        let small = |v: usize| i8::try_from(v).unwrap();
        let [lower, upper] = [-small(p), small(p) - small(k - 1)];
        let narrow = |v: usize| u32::try_from(v).unwrap();
        let map = TensorMap {
            address: x.address,
            element_bytes: 2,
            swizzle: 128,
            sizes: [c, w, h, n].map(narrow).to_vec(),
            strides: [c, c * w, c * w * h].map(|v| 2 * v as u64).to_vec(),
            extent: vec![64, narrow(pixels)],
            pixels: Some([[lower; 2], [upper; 2]]),
            traversal: vec![1, narrow(s), narrow(s), 1],
        };
        for (first, channel, tap) in
            [(0, 0, [0, 0]), (3, 0, [k - 1, 0]), (7, c - 8, [k / 2, k - 1])]
        {
            let y = Buffer::empty(library, pixels * 128, "y");
            let place = |row: usize| [row % out(w), row / out(w) % out(h), row / out(w) / out(h)];
            let [ow, oh, image] = place(first);
            let at = |o: usize| i32::try_from(o * s).unwrap() - i32::from(-lower);
            let int = |v: usize| i32::try_from(v).unwrap();
            let numbers =
                [int(pixels), int(channel), at(ow), at(oh), int(image), int(tap[0]), int(tap[1])];
            let numbers = numbers.map(i32::to_ne_bytes);
            let (map, to) = (map.bytes(), y.argument());
            let mut arguments: Vec<&[u8]> = vec![&map, &to];
            arguments.extend(numbers.iter().map(|n| n.as_slice()));
            let shared = u32::try_from(1024 + pixels * 128 + 8).unwrap();
            for schedule in Schedule::ALL {
                library
                    .launch_with("probe_pixels", [1; 3], [64, 1, 1], shared, &arguments, schedule)
                    .unwrap();
                let want: Vec<u8> = (0..pixels * 64)
                    .flat_map(|i| {
                        let [ow, oh, image] = place(first + i / 64);
                        let [x, y] =
                            [[ow, tap[0]], [oh, tap[1]]].map(|[o, t]| (o * s + t).wrapping_sub(p));
                        let channel = channel + i % 64;
                        let inside = x < w && y < h && image < n && channel < c;
                        let v = if inside {
                            values[((image * h + y) * w + x) * c + channel]
                        } else {
                            0.0
                        };
                        half(v).to_ne_bytes()
                    })
                    .collect();
                assert!(y.read() == want, "{w} x {h} from {first}, tap {tap:?}, {schedule:?}");
            }
        }
    }
}

/// The table "Matrix Descriptor Format" of the PTX ISA, section "Asynchronous Warpgroup Level Matrix Shared Memory Layout":
/// field, first bit, bits. Addresses and offsets are those of shared memory (18 bits) without their low four.
const FIELDS: [(&str, u32, u32); 5] = [
    ("matrix start address", 0, 14),
    ("leading dimension byte offset", 16, 14),
    ("stride dimension byte offset", 32, 14),
    ("base offset", 49, 3),
    ("swizzle mode", 62, 2),
];

/// wgmma has no descriptor of the instruction: its shape and types are its name.
#[test]
fn matrix_descriptors_have_their_fields_where_the_isa_says() {
    // address, leading, stride, swizzle; worked out by hand.
    let cases: [([u32; 4], u64); 5] = [
        ([0, 0, 0, 0], 0),
        ([0x400, 16, 1024, 1], 0x4000_0040_0001_0040),
        ([0x38000, 16, 1024, 1], 0x4000_0040_0001_3800),
        ([0x120, 128, 256, 3], 0xc000_0010_0008_0012),
        ([0x3fff0, 0x3fff0, 0x3fff0, 2], 0x8000_3fff_3fff_3fff),
    ];
    let library = Library::open(Variant::Plain).unwrap();
    let (x, y) = (Buffer::empty(library, 512, "x"), Buffer::empty(library, 256, "y"));
    library.fill(x.address, 0, 512).unwrap();
    let numbers: Vec<u8> =
        cases.iter().flat_map(|(of, _)| of.map(u32::to_ne_bytes)).flatten().collect();
    library.upload(x.address, &numbers).unwrap();
    let arguments: [&[u8]; 2] = [&x.argument(), &y.argument()];
    let launch =
        |name| library.launch_with(name, [1; 3], [32, 1, 1], 0, &arguments, Schedule::ALL[0]);
    launch("probe_descriptors").unwrap();
    for (got, ([address, leading, stride, swizzle], want)) in y.read().chunks(8).zip(cases) {
        let got = u64::from_ne_bytes(got.try_into().unwrap());
        assert_eq!(got, want, "{address:#x} {leading} {stride} {swizzle}: {got:#x}");
        let values = [address >> 4, leading >> 4, stride >> 4, 0, swizzle];
        for ((name, first, bits), value) in FIELDS.into_iter().zip(values) {
            assert_eq!(got >> first & ((1 << bits) - 1), u64::from(value), "{name} of {got:#x}");
        }
        let all =
            FIELDS.iter().fold(0, |all, (_, first, bits)| all | ((1u64 << bits) - 1) << first);
        assert_eq!(got & !all, 0, "{got:#x} has bits of no field");
    }
}
