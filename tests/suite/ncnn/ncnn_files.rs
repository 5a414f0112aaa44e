//! Files of ncnn made here, and published ones.
use std::path::{Path, PathBuf};

use half::f16;
use safetensors::SafeTensors;
use srk::engine::rng::{Purpose, Stream};
use srk::engine::tape::Tape;
use srk::engine::tensor::Tensor;
use srk::models::graph::Graph;

/// A `.param` and its `.bin`.
#[derive(Default)]
pub struct Files {
    lines: Vec<String>,
    pub bin: Vec<u8>,
}

impl Files {
    pub fn line(&mut self, line: &str) -> &mut Self {
        self.lines.push(line.to_owned());
        self
    }

    /// Numbers without a tag.
    pub fn plain(&mut self, values: &[f32]) -> &mut Self {
        self.bin.extend(values.iter().flat_map(|v| v.to_le_bytes()));
        self
    }

    pub fn tagged(&mut self, tag: u32, values: &[f32]) -> &mut Self {
        self.bin.extend(tag.to_le_bytes());
        self.plain(values)
    }

    pub fn f32(&mut self, values: &[f32]) -> &mut Self {
        self.tagged(0, values)
    }

    pub fn f16(&mut self, values: &[f32]) -> &mut Self {
        self.bin.extend(0x0130_6B47_u32.to_le_bytes());
        self.bin.extend(values.iter().flat_map(|&v| f16::from_f32(v).to_le_bytes()));
        self.bin.resize(self.bin.len().next_multiple_of(4), 0);
        self
    }

    /// A convolution of random weights that keep the size of what goes through it, with a leaky ReLU.
    fn conv(
        &mut self,
        kind: &str,
        [from, to]: [&str; 2],
        [ci, co, k]: [usize; 3],
        more: &str,
    ) -> &mut Self {
        let count = ci * co * k * k;
        self.line(&format!("{kind} {to} 1 1 {from} {to} 0={co} 1={k} 5=1 6={count} {more}"));
        let bound = (3.0 / (ci * k * k) as f32).sqrt();
        let number = self.lines.len() as u64;
        let weights: Vec<f32> = random(count, number).iter().map(|v| v * bound).collect();
        self.f16(&weights)
            .plain(&random(co, number + 100).iter().map(|v| v / 10.0).collect::<Vec<_>>())
    }

    pub fn text(&self) -> Vec<u8> {
        let blobs: usize = self
            .lines
            .iter()
            .map(|l| l.split_whitespace().nth(3).and_then(|n| n.parse().ok()).unwrap_or(0))
            .sum();
        let head = format!("7767517\n{} {blobs}\n", self.lines.len());
        (head + &self.lines.join("\n") + "\n").into_bytes()
    }
}

/// Numbers from -1 to 1.
pub fn random(len: usize, number: u64) -> Vec<f32> {
    let mut stream = Stream::new(21, Purpose::Test, number).sequence();
    #[allow(clippy::cast_possible_truncation)]
    (0..len).map(|_| (stream.uniform() * 2.0 - 1.0) as f32).collect()
}

/// Twice the size by a U-net without padding, which loses 10 pixels of the image's side: as the networks of
/// Real-CUGAN, with or without a squeeze.
pub fn eating_borders(squeezed: bool) -> Files {
    let mut f = Files::default();
    let leaky = "9=2 -23310=1,0.1";
    f.line("Input in 0 1 data");
    f.conv("Convolution", ["data", "a"], [3, 16, 3], leaky);
    f.line("Split s 1 2 a a0 a1");
    f.conv("Convolution", ["a1", "d"], [16, 16, 2], &format!("3=2 {leaky}"));
    f.conv("Convolution", ["d", "e"], [16, 24, 3], leaky);
    if squeezed {
        f.line("Split t 1 2 e e0 e1").line("Pooling p 1 1 e1 p 0=1 4=1");
        f.line("InnerProduct q 1 1 p q 0=8 1=1 2=192 9=1").f16(&random(192, 50)).plain(&[0.1; 8]);
        f.line("InnerProduct r 1 1 q r 0=24 1=1 2=192 9=4").f16(&random(192, 51)).plain(&[0.0; 24]);
        f.line("BinaryOp m 2 1 e0 r g 0=2");
    } else {
        f.line("Noop m 1 1 e g");
    }
    f.conv("Deconvolution", ["g", "u"], [24, 16, 2], &format!("3=2 {leaky}"));
    f.line("Crop c 1 1 a0 c -23309=2,2,2 -23310=2,-2,-2 -23311=2,1,2");
    f.line("BinaryOp b 2 1 c u v");
    f.conv("Convolution", ["v", "w"], [16, 16, 3], leaky);
    f.conv("Deconvolution", ["w", "x"], [16, 3, 4], "3=2 4=3");
    f
}

/// Twice the size by `count` convolutions of 16 channels and one more.
pub fn row(count: usize) -> Files {
    let mut f = Files::default();
    f.line("Input in 0 1 data");
    let mut from = "data".to_owned();
    for i in 0..count {
        let (to, inputs) = (format!("c{i}"), if i == 0 { 3 } else { 16 });
        f.conv("Convolution", [&from, &to], [inputs, 16, 3], "4=1 9=2 -23310=1,0.1");
        from = to;
    }
    f.conv("Convolution", [&from, "t"], [16, 12, 3], "4=1");
    f.line("PixelShuffle s 1 1 t s 0=2").line("BinaryOp h 1 1 s out 0=0 1=1 2=0.5");
    f
}

/// Twice the size by repeating pixels behind a convolution that eats one, times `factor`.
pub fn repeating(factor: f32) -> Files {
    let mut f = Files::default();
    let middle: Vec<f32> =
        (0..81).map(|i| if i / 9 % 4 == 0 && i % 9 == 4 { factor } else { 0.0 }).collect();
    f.line("Input in 0 1 data").line("Convolution c 1 1 data c 0=3 1=3 5=0 6=81").f16(&middle);
    f.line("Interp i 1 1 c i 0=1 1=2.0 2=2.0");
    f
}

/// What the layers make of `x` `[1, h, w, 3]`, and the shape of it.
pub fn raw(network: &Graph, x: &[f32], [h, w]: [usize; 2]) -> (Vec<f32>, Vec<usize>) {
    let mut tape = Tape::inference();
    let x = tape.input(Tensor::from_vec(x.to_vec(), &[1, h, w, x.len() / (h * w)]));
    let y = network.raw(&mut tape, &x).unwrap();
    (y.value().cpu::<f32>().unwrap().to_vec(), y.shape().to_vec())
}

/// `|a - b| / |b|`.
pub fn relative(a: &[f32], b: &[f32]) -> f64 {
    let wide = |v: &[f32]| v.iter().map(|&v| f64::from(v)).collect::<Vec<_>>();
    srk::engine::op_case::relative_l2(&wide(a), &wide(b))
}

fn cache() -> PathBuf {
    let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache/srk");
    std::env::var_os("SRK_CACHE").map_or_else(home, PathBuf::from).join("models")
}

/// All `.param` files below `folder`.
fn below(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|e| e.path());
    let mut found: Vec<PathBuf> = entries
        .flat_map(|path| match path.is_dir() {
            true => below(&path),
            false => vec![path],
        })
        .filter(|path| path.extension().is_some_and(|e| e == "param"))
        .collect();
    found.sort();
    found
}

/// The files of all packages that are there.
pub fn packages() -> Vec<PathBuf> {
    below(&cache())
}

/// What ncnn made of a picture.
pub struct Golden {
    pub name: String,
    package: String,
    /// `[1, h, w, 3]` from 0 to 1, and h and w.
    pub input: Vec<f32>,
    pub size: [usize; 2],
    /// `[1, H, W, 3]`, and H, W and 3.
    pub output: Vec<f32>,
    pub shape: [usize; 3],
}

impl Golden {
    pub fn all() -> Vec<Self> {
        let folders = std::env::var("SRK_GOLDEN").unwrap_or_else(|_| "../shared/golden".to_owned());
        let files =
            folders.split(':').filter_map(|f| std::fs::read_dir(Path::new(f).join("models")).ok());
        let mut files: Vec<PathBuf> = files.flatten().flatten().map(|e| e.path()).collect();
        files.sort();
        files.iter().filter_map(|f| Self::read(f)).collect()
    }

    /// None for files about other kinds of models.
    fn read(path: &Path) -> Option<Self> {
        let bytes = std::fs::read(path).ok()?;
        let (_, header) = SafeTensors::read_metadata(&bytes).ok()?;
        let text = |key: &str| header.metadata().as_ref()?.get(key).cloned();
        text("sha256_param")?;
        let tensors = SafeTensors::deserialize(&bytes).ok()?;
        let (input, output) = (tensors.tensor("input_u8").ok()?, tensors.tensor("output").ok()?);
        let planes: Vec<f32> = output
            .data()
            .chunks_exact(4)
            .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
            .collect();
        let [c, h, w] = output.shape()[..] else { return None };
        let at = |i: usize| planes[i % c * h * w + i / c];
        Some(Self {
            name: text("file")?,
            package: text("package")?.replace(' ', "-"),
            input: input.data().iter().map(|&v| f32::from(v) / 255.0).collect(),
            size: [input.shape()[0], input.shape()[1]],
            output: (0..planes.len()).map(at).collect(),
            shape: [h, w, c],
        })
    }

    /// The file of the package, if that is there.
    pub fn param(&self) -> Option<PathBuf> {
        let wanted = format!("/{}.param", self.name);
        below(&cache().join(&self.package))
            .into_iter()
            .find(|p| p.to_string_lossy().ends_with(&wanted))
    }
}
