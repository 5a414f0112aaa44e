//! Convolutions by kernels/conv2d_hopper.cu, and by those of kernels/conv2d.cu that only large products reach, against the
//! formula in f64, under every schedule.
#![allow(clippy::unwrap_used, reason = "tests")]

use cuda_emulation::{Library, Schedule, TensorMap, Variant};

/// Sizes of a convolution, what follows it, and the blocks that share its tiles.
#[derive(Clone, Copy, Debug)]
struct Case {
    images: usize,
    side: [usize; 2],
    channels: [usize; 2],
    kernel: usize,
    stride: usize,
    pad: usize,
    /// Whether the weights are turned by half a turn, as for the gradient of the input.
    turned: bool,
    then: Then,
    blocks: u32,
}

/// Parts of the epilogue.
#[derive(Clone, Copy, Debug, Default)]
struct Then {
    bias: bool,
    /// The first channel of a wider shift.
    shift: Option<usize>,
    late: bool,
    /// As `enum Activation` of conv2d.cuh.
    activation: i32,
    /// One, or one a channel.
    slopes: Option<usize>,
    slope: f32,
    scale: f32,
    residual: Option<f32>,
    second: Option<f32>,
    /// Columns and rows that share moments.
    run: Option<[usize; 2]>,
}

const PLAIN: Then = Then {
    bias: false,
    shift: None,
    late: false,
    activation: 0,
    slopes: None,
    slope: 1.0,
    scale: 1.0,
    residual: None,
    second: None,
    run: None,
};

const fn case(images: usize, side: [usize; 2], channels: [usize; 2], window: [usize; 3]) -> Case {
    let [kernel, stride, pad] = window;
    Case { images, side, channels, kernel, stride, pad, turned: false, then: PLAIN, blocks: 2 }
}

const fn then(case: Case, then: Then) -> Case {
    Case { then, ..case }
}

const SILU: i32 = 2;
const LEAKY: i32 = 3;
const MISH: i32 = 4;

/// Rows and columns that fill no tile, several steps, strides, padding, more tiles than blocks; each part alone, and all.
fn cases() -> Vec<Case> {
    let all = Then {
        bias: true,
        shift: Some(8),
        activation: SILU,
        scale: 0.5,
        residual: Some(0.25),
        second: Some(-2.0),
        ..PLAIN
    };
    let small = case(2, [5, 6], [8, 24], [3, 1, 1]);
    vec![
        case(1, [16, 16], [64, 64], [3, 1, 1]),
        case(3, [9, 11], [72, 128], [3, 1, 1]),
        case(2, [13, 7], [24, 72], [5, 1, 2]),
        case(1, [10, 12], [8, 8], [7, 1, 3]),
        case(2, [17, 12], [64, 136], [3, 2, 1]),
        case(2, [9, 8], [128, 64], [1, 1, 0]),
        case(1, [11, 9], [16, 24], [1, 2, 0]),
        case(1, [12, 9], [24, 8], [4, 2, 0]),
        Case { blocks: 1, ..case(2, [20, 21], [136, 200], [3, 1, 1]) },
        Case { turned: true, ..case(2, [9, 7], [72, 40], [3, 1, 1]) },
        Case { turned: true, ..then(case(1, [8, 11], [24, 136], [4, 1, 2]), all) },
        Case { blocks: 7, ..case(1, [30, 31], [40, 64], [3, 1, 0]) },
        then(small, Then { bias: true, ..PLAIN }),
        then(small, Then { shift: Some(0), ..PLAIN }),
        then(small, Then { shift: Some(16), late: true, activation: MISH, ..PLAIN }),
        then(small, Then { activation: 1, ..PLAIN }),
        then(small, Then { activation: LEAKY, slope: 0.25, ..PLAIN }),
        then(small, Then { activation: LEAKY, slopes: Some(1), ..PLAIN }),
        then(small, Then { activation: LEAKY, slopes: Some(24), scale: -0.5, ..PLAIN }),
        then(small, Then { residual: Some(1.0), ..PLAIN }),
        then(small, Then { second: Some(-0.5), ..PLAIN }),
        then(small, all),
        then(case(3, [8, 16], [16, 72], [3, 1, 1]), Then { run: Some([8, 128]), ..all }),
        then(
            case(2, [16, 24], [64, 128], [1, 1, 0]),
            Then { run: Some([1, 64]), bias: true, ..PLAIN },
        ),
        then(case(2, [32, 16], [8, 192], [3, 2, 1]), Then { run: Some([32, 128]), ..PLAIN }),
        Case {
            blocks: 1,
            ..then(case(1, [32, 32], [24, 64], [3, 1, 1]), Then { run: Some([4, 64]), ..PLAIN })
        },
        // Blocks of 256 of whose rows half are there, and several steps of each of the groups that share the depth.
        then(case(3, [16, 8], [136, 72], [3, 1, 1]), Then { run: Some([8, 128]), ..PLAIN }),
        then(
            case(3, [8, 16], [520, 136], [1, 1, 0]),
            Then { run: Some([2, 64]), bias: true, ..PLAIN },
        ),
    ]
}

/// What computes a case.
#[derive(Clone, Copy, Debug)]
enum Kernel {
    /// In tiles of 128 x so many.
    Wgmma(u32),
    /// In blocks of rows and columns by so many groups of threads, of so many threads each.
    Blocks { name: &'static str, size: [u32; 2], slices: u32, threads: u32 },
}

const fn blocks(name: &'static str, size: [u32; 2], slices: u32, threads: u32) -> Kernel {
    Kernel::Blocks { name, size, slices, threads }
}

const KERNELS: [Kernel; 6] = [
    Kernel::Wgmma(64),
    Kernel::Wgmma(128),
    blocks("conv2d_256x64", [256, 64], 1, 128),
    blocks("conv2d_sliced_128x128", [128, 128], 2, 128),
    blocks("conv2d_sliced_128x64", [128, 64], 4, 64),
    blocks("conv2d_sliced_64x64", [64, 64], 8, 32),
];

impl Kernel {
    /// Whether blocks are as long as entries of moments, and take the weights as they lie.
    fn fits(self, case: &Case) -> bool {
        let rows = case.then.run.map_or(0, |[_, rows]| rows);
        match self {
            Self::Wgmma(_) => true,
            Self::Blocks { size, .. } => rows <= size[0] as usize && !case.turned,
        }
    }
}

impl Case {
    fn out(&self) -> [usize; 2] {
        self.side.map(|side| (side + 2 * self.pad - self.kernel) / self.stride + 1)
    }

    fn rows(&self) -> usize {
        self.images * self.out()[0] * self.out()[1]
    }
}

/// A type of 16 bits.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Half {
    F16,
    BF16,
}

impl Half {
    /// Of sixteenths up to 1, which both types hold.
    fn bits(self, v: f64) -> u16 {
        let bits = (v as f32).to_bits();
        let (sign, exponent) = (bits >> 16 & 0x8000, bits >> 23 & 0xff);
        u16::try_from(match self {
            Self::BF16 => bits >> 16,
            Self::F16 if v == 0.0 => sign,
            Self::F16 => sign | (exponent + 15 - 127) << 10 | bits >> 13 & 0x3ff,
        })
        .unwrap()
    }

    fn value(self, bits: u16) -> f64 {
        let bits = u32::from(bits);
        if self == Self::BF16 {
            return f32::from_bits(bits << 16).into();
        }
        let (exponent, fraction) = (bits >> 10 & 31, f64::from(bits & 0x3ff));
        let size = match exponent {
            0 => fraction * 2f64.powi(-24),
            31 => f64::NAN,
            _ => (1024.0 + fraction) * 2f64.powi(exponent.cast_signed() - 25),
        };
        if bits & 0x8000 == 0 { size } else { -size }
    }

    /// Half of the distance between neighbours, relative.
    const fn rounding(self) -> f64 {
        match self {
            Self::F16 => 1.0 / 2048.0,
            Self::BF16 => 1.0 / 256.0,
        }
    }
}

/// Numbers on the device that free themselves.
struct Buffer {
    library: Library,
    address: u64,
    bytes: usize,
}

impl Buffer {
    fn empty(library: Library, bytes: usize, name: &str) -> Self {
        Self { library, address: library.allocate(bytes, name).unwrap(), bytes }
    }

    fn new(library: Library, half: Half, values: &[f64], name: &str) -> Self {
        let bytes: Vec<u8> = values.iter().flat_map(|&v| half.bits(v).to_ne_bytes()).collect();
        let buffer = Self::empty(library, bytes.len(), name);
        library.upload(buffer.address, &bytes).unwrap();
        buffer
    }

    fn read(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.bytes];
        self.library.download(self.address, &mut bytes).unwrap();
        bytes
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.library.free(self.address).unwrap();
    }
}

/// Sixteenths that look random.
fn numbers(n: usize, seed: u64) -> Vec<f64> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    (0..n).map(|_| (next() >> 40) as f64 % 17.0 / 16.0 - 0.5).collect()
}

/// Everything that a launch reads.
struct Inputs {
    x: Vec<f64>,
    w: Vec<f64>,
    bias: Vec<f64>,
    shift: Vec<f64>,
    slopes: Vec<f64>,
    residual: Vec<f64>,
    second: Vec<f64>,
    shift_stride: usize,
}

impl Inputs {
    fn of(c: &Case) -> Self {
        let [ci, co] = c.channels;
        let (map, shift_stride) = (c.rows() * co, co + 24);
        Self {
            x: numbers(c.images * c.side[0] * c.side[1] * ci, 1),
            w: numbers(co * c.kernel * c.kernel * ci, 2),
            bias: numbers(co, 3),
            shift: numbers(c.images * shift_stride, 4),
            slopes: numbers(c.then.slopes.unwrap_or(1), 5),
            residual: numbers(map, 6),
            second: numbers(map, 7),
            shift_stride,
        }
    }

    /// The output by the formula.
    fn want(&self, c: &Case) -> Vec<f64> {
        let ([height, width], [ci, co], [out_h, out_w]) = (c.side, c.channels, c.out());
        let mut y = vec![0.0; c.rows() * co];
        for (row, y) in y.chunks_mut(co).enumerate() {
            let (image, line, across) = (row / (out_h * out_w), row / out_w % out_h, row % out_w);
            for (o, y) in y.iter_mut().enumerate() {
                let mut sum = 0.0;
                for tap in 0..c.kernel * c.kernel {
                    let h = (line * c.stride + tap / c.kernel).wrapping_sub(c.pad);
                    let w = (across * c.stride + tap % c.kernel).wrapping_sub(c.pad);
                    if h >= height || w >= width {
                        continue;
                    }
                    let x = &self.x[((image * height + h) * width + w) * ci..][..ci];
                    let tap = if c.turned { c.kernel * c.kernel - 1 - tap } else { tap };
                    let w = &self.w[(o * c.kernel * c.kernel + tap) * ci..][..ci];
                    sum += x.iter().zip(w).map(|(x, w)| x * w).sum::<f64>();
                }
                *y = self.finished(c, sum, image, o, row * co + o);
            }
        }
        y
    }

    fn finished(&self, c: &Case, sum: f64, image: usize, o: usize, at: usize) -> f64 {
        let t = &c.then;
        let shift = t.shift.map_or(0.0, |first| self.shift[image * self.shift_stride + first + o]);
        let mut v = sum + if t.bias { self.bias[o] } else { 0.0 };
        v += if t.late { 0.0 } else { shift };
        let slope = match t.slopes {
            Some(n) => self.slopes[if n > 1 { o } else { 0 }],
            None => t.slope.into(),
        };
        v = match t.activation {
            1 => v.max(0.0),
            SILU => v / (1.0 + (-v).exp()),
            LEAKY if v <= 0.0 => slope * v,
            MISH => v * v.exp().ln_1p().tanh(),
            _ => v,
        };
        v = f64::from(t.scale) * (v + if t.late { shift } else { 0.0 });
        v += t.residual.map_or(0.0, |factor| f64::from(factor) * self.residual[at]);
        v + t.second.map_or(0.0, |factor| f64::from(factor) * self.second[at])
    }
}

fn int(v: usize) -> [u8; 4] {
    i32::try_from(v).unwrap().to_ne_bytes()
}

fn narrow(v: usize) -> u32 {
    u32::try_from(v).unwrap()
}

fn pixels(c: &Case, at: u64) -> TensorMap {
    let ([height, width], ci) = (c.side, c.channels[0]);
    let small = |v: usize| i8::try_from(v).unwrap();
    let (pad, last) = (small(c.pad), small(c.kernel - 1));
    TensorMap {
        address: at,
        element_bytes: 2,
        swizzle: 128,
        sizes: [ci, width, height, c.images].map(narrow).to_vec(),
        strides: [ci, ci * width, ci * width * height].map(|v| 2 * v as u64).to_vec(),
        extent: vec![64, 128],
        pixels: Some([[-pad; 2], [pad - last; 2]]),
        traversal: vec![1, narrow(c.stride), narrow(c.stride), 1],
    }
}

fn weights(c: &Case, at: u64, columns: u32) -> TensorMap {
    let ([ci, co], taps) = (c.channels, c.kernel * c.kernel);
    TensorMap {
        address: at,
        element_bytes: 2,
        swizzle: 128,
        sizes: [ci, taps, co].map(narrow).to_vec(),
        strides: [ci, ci * taps].map(|v| 2 * v as u64).to_vec(),
        extent: vec![64, 1, columns],
        pixels: None,
        traversal: vec![1; 3],
    }
}

/// The bits of y and of moments.
fn launch(
    library: Library,
    half: Half,
    c: &Case,
    kernel: Kernel,
    schedule: Schedule,
) -> Result<(Vec<u16>, Vec<f32>), String> {
    let (inputs, t, [ci, co], [out_h, out_w]) = (Inputs::of(c), &c.then, c.channels, c.out());
    let on = |values: &[f64], name| Buffer::new(library, half, values, name);
    let some = |is: bool, values: &[f64], name| is.then(|| on(values, name));
    let (x, w) = (on(&inputs.x, "x"), on(&inputs.w, "w"));
    let y = Buffer::empty(library, 2 * c.rows() * co, "y");
    let found = t.run.map_or(0, |[run, rows]| c.rows() / rows * (co / run) * 2);
    let moments = t.run.map(|_| Buffer::empty(library, 4 * found, "moments"));
    let optional = [
        some(t.bias, &inputs.bias, "bias"),
        some(t.shift.is_some(), &inputs.shift, "shift"),
        some(t.slopes.is_some(), &inputs.slopes, "slopes"),
        some(t.residual.is_some(), &inputs.residual, "residual"),
        some(t.second.is_some(), &inputs.second, "second"),
    ];
    let at = |b: &Option<Buffer>| b.as_ref().map_or(0, |b| b.address).to_ne_bytes();
    // Of two maps the second is missing: all channels are the first's.
    let (given, sizes, of_first) = match kernel {
        Kernel::Wgmma(columns) => (
            vec![
                pixels(c, x.address).bytes().to_vec(),
                weights(c, w.address, columns).bytes().to_vec(),
            ],
            vec![c.images, ci, out_h, out_w, co, c.kernel, c.stride, c.pad, c.turned.into()],
            None,
        ),
        Kernel::Blocks { .. } => {
            let [height, width] = c.side;
            let sizes =
                [c.images, height, width, ci, out_h, out_w, co, c.kernel, c.stride, c.pad, 0];
            let given = [x.address, 0, w.address].map(|at| at.to_ne_bytes().to_vec());
            (given.to_vec(), sizes.to_vec(), Some(int(ci)))
        }
    };
    let sizes: Vec<[u8; 4]> = sizes.into_iter().map(int).collect();
    let run = t.run.unwrap_or([0, 0]).map(int);
    let numbers = [
        t.activation.to_ne_bytes(),
        int(t.shift.unwrap_or(0)),
        int(t.shift.map_or(0, |_| inputs.shift_stride)),
        int(t.late.into()),
        int(t.slopes.is_some_and(|n| n > 1).into()),
        t.slope.to_ne_bytes(),
        t.scale.to_ne_bytes(),
        t.residual.unwrap_or(1.0).to_ne_bytes(),
        t.second.unwrap_or(1.0).to_ne_bytes(),
    ];
    let (to, kept, optional_at) =
        (y.address.to_ne_bytes(), at(&moments), optional.each_ref().map(at));
    let mut arguments: Vec<&[u8]> = given.iter().map(Vec::as_slice).chain([&to[..]]).collect();
    arguments.extend(sizes.iter().map(|v| v.as_slice()));
    arguments.extend([kept.as_slice(), &run[0], &run[1]]);
    arguments.extend(of_first.iter().map(|v| v.as_slice()));
    arguments.extend(optional_at.iter().map(|v| v.as_slice()));
    arguments.extend(numbers.iter().map(|v| v.as_slice()));
    let (name, grid, block, shared) = match kernel {
        Kernel::Wgmma(columns) => {
            let shared = 1024 + if columns == 128 { 218_112 } else { 193_536 };
            (format!("conv2d_wgmma_128x{columns}"), c.blocks, [288, 1, 1], shared)
        }
        Kernel::Blocks { name, size: [rows, columns], slices, threads } => {
            let tiles = narrow(c.rows()).div_ceil(rows) * narrow(co).div_ceil(columns);
            let shared = slices * 3 * (rows + columns) * 64;
            (name.to_owned(), tiles, [threads, slices, 1], shared)
        }
    };
    let name = format!("{name}_{}", format!("{half:?}").to_lowercase());
    let grid = [grid, 1, 1];
    library.launch_with(&name, grid, block, shared, &arguments, schedule)?;
    let bits = y.read().chunks(2).map(|b| u16::from_ne_bytes(b.try_into().unwrap())).collect();
    let moments = moments.map_or_else(Vec::new, |m| m.read());
    let moments = moments.chunks(4).map(|b| f32::from_ne_bytes(b.try_into().unwrap())).collect();
    Ok((bits, moments))
}

/// The mean and the sum of squared differences to it, of each `run` columns of so many rows.
fn moments_of(y: &[f64], co: usize, [run, rows]: [usize; 2]) -> Vec<f64> {
    let mut all = vec![];
    for rows in y.chunks(rows * co) {
        for first in (0..co).step_by(run) {
            let of = rows.chunks(co).flat_map(|row| row[first..first + run].to_vec());
            let of: Vec<f64> = of.collect();
            let mean = of.iter().sum::<f64>() / of.len() as f64;
            all.extend([mean, of.iter().map(|v| (v - mean).powi(2)).sum()]);
        }
    }
    all
}

/// Why the result is not that of the formula.
fn wrong(
    half: Half,
    c: &Case,
    want: &[f64],
    (bits, moments): &(Vec<u16>, Vec<f32>),
) -> Option<String> {
    let got: Vec<f64> = bits.iter().map(|&b| half.value(b)).collect();
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        // One rounding; exponentials in f32.
        let allowed = (1.01 * half.rounding() + 2e-6) * want.abs() + 1e-6;
        if got.is_nan() || (got - want).abs() > allowed {
            return Some(format!("number {i}: {got}, not {want}"));
        }
    }
    let want = c.then.run.map_or_else(Vec::new, |run| moments_of(&got, c.channels[1], run));
    let off =
        |(got, want): (&f32, &f64)| (f64::from(*got) - want).abs() > 1e-5 * (1.0 + want.abs());
    let place = moments.iter().zip(&want).position(off);
    place.map(|i| format!("moment {i}: {}, not {}", moments[i], want[i]))
}

fn all(variant: Variant, schedules: &[Schedule]) {
    let library = Library::open(variant).unwrap();
    for c in cases() {
        let want = Inputs::of(&c).want(&c);
        for half in [Half::F16, Half::BF16] {
            for kernel in KERNELS.into_iter().filter(|kernel| kernel.fits(&c)) {
                let mut first = None;
                for &schedule in schedules {
                    let of = format!("{half:?} {kernel:?} {schedule:?} {c:?}");
                    let result = launch(library, half, &c, kernel, schedule);
                    let result = result.unwrap_or_else(|e| panic!("{of}: {e}"));
                    assert_eq!(wrong(half, &c, &want, &result), None, "{of}");
                    // Equal bits, whatever the order.
                    assert!(*first.get_or_insert_with(|| result.clone()) == result, "{of}");
                }
            }
        }
    }
}

#[test]
fn convolutions_are_right_and_the_same_under_every_schedule() {
    all(Variant::Plain, &Schedule::ALL);
}

#[test]
fn no_access_is_out_of_bounds_uninitialised_or_racing() {
    all(Variant::Checked, &Schedule::ALL[1..3]);
}
