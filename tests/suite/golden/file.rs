//! One golden file: tensors in f64, metadata, and the rule that fills parameters.
use std::collections::BTreeMap;
use std::path::Path;

use safetensors::SafeTensors;
use safetensors::tensor::Dtype;
use srk::engine::device::DType;
use srk::engine::parameter::Parameter;
use srk::engine::tensor::Tensor;
use srk::models::weights;

/// Shape and values of one stored tensor.
#[derive(Clone)]
pub struct Array {
    pub shape: Vec<usize>,
    pub data: Vec<f64>,
}

pub struct File {
    pub name: String,
    metadata: BTreeMap<String, String>,
    arrays: BTreeMap<String, Array>,
}

impl File {
    pub fn read(path: &Path) -> Self {
        let bytes = std::fs::read(path).unwrap();
        let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        let mut arrays = BTreeMap::new();
        for (name, view) in tensors.iter() {
            let data = numbers(view.dtype(), view.data());
            arrays.insert(name.to_owned(), Array { shape: view.shape().to_vec(), data });
        }
        let metadata = header.metadata().clone().unwrap_or_default().into_iter().collect();
        Self { name: path.file_stem().unwrap().to_string_lossy().into_owned(), metadata, arrays }
    }

    /// A metadata entry, empty where there is none.
    pub fn text(&self, key: &str) -> &str {
        self.metadata.get(key).map_or("", String::as_str)
    }

    /// A metadata entry that is JSON.
    pub fn json(&self, key: &str) -> serde_json::Value {
        serde_json::from_str(self.text(key)).unwrap_or(serde_json::Value::Null)
    }

    pub fn get(&self, name: &str) -> Option<&Array> {
        self.arrays.get(name)
    }

    pub fn array(&self, name: &str) -> &Array {
        self.get(name).unwrap_or_else(|| panic!("{} holds no {name}", self.name))
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.arrays.keys().map(String::as_str)
    }

    /// The parts of names before the first dot: the cases of a file that holds several.
    pub fn cases(&self) -> Vec<String> {
        let mut cases: Vec<String> =
            self.names().filter_map(|n| Some(n.split_once('.')?.0.to_owned())).collect();
        cases.dedup();
        cases
    }

    /// Gives every parameter the value of the fill rule, in element type `dtype`.
    pub fn fill(&self, parameters: &[Parameter], dtype: DType) {
        let gain: f64 = self.text("gain").parse().unwrap();
        for p in parameters {
            let shape = weights::file_shape(p.layout(), p.value().shape());
            let values = fill(self.text("salt"), p.name(), &shape, gain);
            p.set(weights::from_file_layout(p.layout(), &shape, &values).cast(dtype).unwrap());
        }
    }
}

impl Array {
    /// An NCHW array as an NHWC tensor; other ranks as they are.
    pub fn tensor(&self, dtype: DType) -> Tensor {
        match self.shape[..] {
            [n, c, h, w] => {
                let mut out = vec![0.0; self.data.len()];
                for (i, &v) in self.data.iter().enumerate() {
                    let (x, y) = (i % w, i / w % h);
                    let (ch, b) = (i / (w * h) % c, i / (w * h * c));
                    out[((b * h + y) * w + x) * c + ch] = v;
                }
                Tensor::from_f64(&out, &[n, h, w, c], dtype)
            }
            _ => Tensor::from_f64(&self.data, &self.shape, dtype),
        }
    }
}

/// An NHWC tensor's values in NCHW order; other ranks as they are.
pub fn nchw(t: &Tensor) -> Vec<f64> {
    let values = t.to_f64_vec().unwrap();
    let [_, h, w, c] = t.shape()[..] else { return values };
    let mut out = vec![0.0; values.len()];
    for (i, &v) in values.iter().enumerate() {
        let (ch, x) = (i % c, i / c % w);
        let (y, b) = (i / (c * w) % h, i / (c * w * h));
        out[((b * c + ch) * h + y) * w + x] = v;
    }
    out
}

fn numbers(dtype: Dtype, bytes: &[u8]) -> Vec<f64> {
    match dtype {
        Dtype::F64 => {
            bytes.chunks_exact(8).map(|b| f64::from_le_bytes(b.try_into().unwrap())).collect()
        }
        Dtype::F32 => bytes
            .chunks_exact(4)
            .map(|b| f32::from_le_bytes(b.try_into().unwrap()).into())
            .collect(),
        Dtype::I64 => bytes
            .chunks_exact(8)
            .map(|b| i64::from_le_bytes(b.try_into().unwrap()) as f64)
            .collect(),
        Dtype::U8 => bytes.iter().map(|&b| f64::from(b)).collect(),
        other => panic!("element type {other:?} in a golden file"),
    }
}

fn fnv(text: &str) -> u64 {
    text.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3))
}

fn splitmix(h: u64, i: u64) -> u64 {
    let s = h.wrapping_add((i + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    let z = (s ^ (s >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// The fill rule of the golden data, in the layout of files.
pub fn fill(salt: &str, name: &str, shape: &[usize], gain: f64) -> Vec<f32> {
    let h = fnv(&format!("{salt}{name}"));
    let r = |i: usize| {
        let z = splitmix(h, i as u64);
        ((z >> 40) as f64 - 8_388_608.0) / 8_388_608.0
    };
    let len = shape.iter().product();
    let zero = name.ends_with("num_batches_tracked");
    let centred = name.ends_with(".bias") || name.ends_with("running_mean");
    let fan = shape.iter().skip(1).product::<usize>() as f64;
    (0..len)
        .map(|i| match (zero, shape.len() >= 2, centred) {
            (true, ..) => 0.0,
            (_, true, _) => r(i) * gain / fan.sqrt(),
            (_, _, true) => 0.1 * r(i),
            _ => 1.0 + 0.1 * r(i),
        })
        .map(|v| v as f32)
        .collect()
}

#[test]
fn the_fill_rule_repeats_its_worked_example() {
    assert_eq!(fnv("inc.conv.0.weight"), 0x0660_c8c3_b03a_4173);
    let w = fill("", "inc.conv.0.weight", &[16, 31, 3, 3], 1.5);
    assert_eq!(w[..3], [-0.037_084_114, 0.063_895_99, -0.020_663_561]);
    let b = fill("", "inc.conv.0.bias", &[16], 1.5);
    assert_eq!(b[..2], [0.084_161_624, 0.064_081_356]);
}
