//! Weights files: safetensors under the names and layouts of the original state dicts.
//!
//! The only place where layouts are converted: memory holds convolutions as `[Cout, kh, kw, Cin]`,
//! files as `[Cout, Cin, kh, kw]`, so that checkpoints of the original implementations load. A tensor
//! without axes is a count, of the batches that a norm has seen, and a 64-bit integer in files.
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use half::f16;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde_json::json;

use crate::engine::device::DType;
use crate::engine::files::{self, atomic_write};
use crate::engine::parameter::{Layout, Parameter};
use crate::engine::tensor::Tensor;
use crate::error::{Error, Report, Result};

/// The tensors and metadata of one file, in the file's own layout.
#[derive(Clone, Debug, Default)]
pub struct WeightsFile {
    /// String metadata: `srk.arch`, `srk.config`, `srk.scale`, `srk.step`, `srk.license`, ...
    pub metadata: BTreeMap<String, String>,
    /// Shape and values by name.
    pub tensors: BTreeMap<String, (Vec<usize>, Vec<f32>)>,
}

/// The axes `[A, B, h, w]` of a file, of a tensor `[A, h, w, B]` in memory whose axes files hold in another
/// order: for all kinds of convolution the second axis of the file is the last in memory.
fn permuted_axes(layout: Layout, shape: &[usize]) -> Option<[usize; 4]> {
    match (layout, shape) {
        (Layout::Plain, _) => None,
        (_, &[a, h, w, b]) => Some([a, b, h, w]),
        _ => None,
    }
}

/// From `[A, B, h, w]` (file) to `[A, h, w, B]` (memory), or back.
fn permute(values: &[f32], file: [usize; 4], to_memory: bool) -> Vec<f32> {
    let [a, b, h, w] = file;
    let mut out = vec![0.0; values.len()];
    for i in 0..a {
        for j in 0..b {
            for p in 0..h * w {
                let (in_file, in_memory) = ((i * b + j) * h * w + p, (i * h * w + p) * b + j);
                let (from, to) =
                    if to_memory { (in_file, in_memory) } else { (in_memory, in_file) };
                out[to] = values[from];
            }
        }
    }
    out
}

/// A parameter's shape in files.
pub fn file_shape(layout: Layout, shape: &[usize]) -> Vec<usize> {
    match (layout, permuted_axes(layout, shape)) {
        (Layout::Flattened { .. }, Some([a, b, h, w])) => vec![a, b * h * w],
        (_, Some(axes)) => axes.to_vec(),
        (_, None) => shape.to_vec(),
    }
}

/// A parameter's values in the layout of files.
///
/// # Errors
/// If the copy from a GPU fails.
pub fn to_file_layout(layout: Layout, tensor: &Tensor) -> Result<Vec<f32>> {
    let values = tensor.to_f32_vec()?;
    Ok(match permuted_axes(layout, tensor.shape()) {
        Some(axes) => permute(&values, axes, false),
        None => values,
    })
}

/// A tensor in the layout of memory, from values in the layout of files.
pub fn from_file_layout(layout: Layout, shape: &[usize], values: &[f32]) -> Tensor {
    let axes = match (layout, shape) {
        (Layout::Conv | Layout::ConvTranspose, &[a, b, h, w]) => [a, b, h, w],
        (Layout::Flattened { side }, &[a, b]) => [a, b / (side * side), side, side],
        _ => return Tensor::from_vec(values.to_vec(), shape),
    };
    let [a, b, h, w] = axes;
    Tensor::from_vec(permute(values, axes, true), &[a, h, w, b])
}

fn damaged(cause: &dyn std::fmt::Display, name: &str) -> Error {
    let report = Report::new(format!("cannot load the weights {name}"), cause);
    Error::Model(report.help("copy or download the file again; srk reads safetensors"))
}

fn broken(bytes: &[u8], e: &safetensors::SafeTensorError, name: &str) -> Error {
    match cut_short(bytes) {
        Some(cause) => damaged(&cause, name),
        None => damaged(e, name),
    }
}

impl WeightsFile {
    /// The values of `parameters` under their names.
    ///
    /// # Errors
    /// If the copy from a GPU fails.
    pub fn of(parameters: &[Parameter], metadata: BTreeMap<String, String>) -> Result<Self> {
        let entry = |p: &Parameter| {
            let value = p.value();
            let shape = file_shape(p.layout(), value.shape());
            Ok((p.name().to_owned(), (shape, to_file_layout(p.layout(), &value)?)))
        };
        Ok(Self { metadata, tensors: parameters.iter().map(entry).collect::<Result<_>>()? })
    }

    /// Reads a file. Its size bounds every length in its header, so a damaged header allocates
    /// nothing.
    pub fn read(path: &Path) -> Result<Self> {
        let name = path.display().to_string();
        let bytes = files::read_file(path).map_err(|e| {
            let report = Report::new(format!("cannot read the weights {name}"), e);
            Error::Model(report.help("srk models list    shows the models that are there"))
        })?;
        Self::parse(&bytes, &name)
    }

    /// Reads the bytes of a file; `name` is what error messages call it.
    pub fn parse(bytes: &[u8], name: &str) -> Result<Self> {
        let Self { metadata, .. } = Self::header(bytes, name)?;
        let file = SafeTensors::deserialize(bytes).map_err(|e| broken(bytes, &e, name))?;
        let mut tensors = BTreeMap::new();
        for (key, view) in file.iter() {
            let values = decode(&view).ok_or_else(|| {
                damaged(&format!("{key} has element type {:?}", view.dtype()), name)
            })?;
            if let Some(i) = values.iter().position(|v| !v.is_finite()) {
                let cause = format!("{key}[{i}] is {}, not a finite number", values[i]);
                return Err(damaged(&cause, name));
            }
            tensors.insert(key.to_owned(), (view.shape().to_vec(), values));
        }
        Ok(Self { metadata, tensors })
    }

    /// Reads the metadata of a file's bytes alone, without its tensors.
    ///
    /// # Errors
    /// [`Error::Model`] if they do not begin as a weights file does.
    pub fn header(bytes: &[u8], name: &str) -> Result<Self> {
        let read = SafeTensors::read_metadata(bytes).map_err(|e| broken(bytes, &e, name))?;
        let metadata = read.1.metadata().clone().unwrap_or_default().into_iter().collect();
        Ok(Self { metadata, tensors: BTreeMap::new() })
    }

    /// A part of a network, of a file of that part alone or of one of the whole network, where its names
    /// begin with `prefix` and a point; they do so in the result.
    #[must_use]
    pub fn below(&self, prefix: &str) -> Self {
        let prefix = format!("{prefix}.");
        let whole = self.tensors.keys().any(|name| name.starts_with(&prefix));
        let entries = self.tensors.iter().filter(|(name, _)| !whole || name.starts_with(&prefix));
        let named = |(name, tensor): (&String, &(Vec<usize>, Vec<f32>))| {
            let name = if whole { name.clone() } else { format!("{prefix}{name}") };
            (name, tensor.clone())
        };
        Self { metadata: self.metadata.clone(), tensors: entries.map(named).collect() }
    }

    /// Gives every parameter its value; missing, unexpected and wrongly shaped tensors are named.
    pub fn apply(&self, parameters: &[Parameter], name: &str) -> Result<()> {
        let refuse = |cause: String| {
            let report = Report::new(format!("the weights {name} do not fit the network"), cause);
            Err(Error::Model(report.help(format!("srk models info {name}    shows what it holds"))))
        };
        let mut known: HashMap<&str, &Parameter> = HashMap::new();
        let mut missing = Vec::new();
        for p in parameters {
            known.insert(p.name(), p);
            match self.tensors.get(p.name()) {
                None => missing.push(p.name()),
                Some((shape, _)) => {
                    let wanted = file_shape(p.layout(), p.value().shape());
                    if *shape != wanted {
                        return refuse(format!("{} has shape {shape:?}, not {wanted:?}", p.name()));
                    }
                }
            }
        }
        let unexpected: Vec<&str> =
            self.tensors.keys().map(String::as_str).filter(|k| !known.contains_key(k)).collect();
        if !missing.is_empty() || !unexpected.is_empty() {
            return refuse(format!(
                "{} of {} tensors are missing{}, {} are unexpected{}",
                missing.len(),
                parameters.len(),
                first(&missing),
                unexpected.len(),
                first(&unexpected)
            ));
        }
        for p in parameters {
            let (shape, values) = &self.tensors[p.name()];
            let (old, new) = (p.value(), from_file_layout(p.layout(), shape, values));
            p.set(new.to_device(&old.device())?.cast(old.dtype())?);
        }
        Ok(())
    }

    /// The file's bytes, values stored as `dtype` (`F32` or `F16`). Names and metadata are sorted, so
    /// that equal content is equal bytes.
    pub fn to_bytes(&self, dtype: DType) -> Vec<u8> {
        let stored = if dtype == DType::F16 { ("F16", 2) } else { ("F32", 4) };
        // Sorted, as serde_json keeps its maps.
        let mut header = serde_json::Map::new();
        header.insert("__metadata__".into(), json!(self.metadata));
        let mut end = 0;
        for (name, (shape, values)) in &self.tensors {
            let start = end;
            let (label, width) = if shape.is_empty() { ("I64", 8) } else { stored };
            end += values.len() * width;
            let entry = json!({"dtype": label, "shape": shape, "data_offsets": [start, end]});
            header.insert(name.clone(), entry);
        }
        let mut header = serde_json::Value::Object(header).to_string().into_bytes();
        header.resize(header.len().next_multiple_of(8), b' ');
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header);
        for (shape, values) in self.tensors.values() {
            bytes.extend(encode(values, if shape.is_empty() { None } else { Some(dtype) }));
        }
        bytes
    }

    /// Writes the file whole or not at all.
    pub fn write(&self, path: &Path, dtype: DType) -> Result<()> {
        let bytes = self.to_bytes(dtype);
        atomic_write(path, |file| file.write_all(&bytes))
    }
}

/// `, first "name"` where there is one.
fn first(names: &[&str]) -> String {
    names.first().map_or_else(String::new, |n| format!(" (first \"{n}\")"))
}

fn decode(view: &TensorView<'_>) -> Option<Vec<f32>> {
    let data = view.data();
    match view.dtype() {
        Dtype::F32 => Some(
            data.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect(),
        ),
        Dtype::F16 => {
            Some(data.chunks_exact(2).map(|b| f16::from_le_bytes([b[0], b[1]]).to_f32()).collect())
        }
        Dtype::BF16 => Some(
            data.chunks_exact(2)
                .map(|b| half::bf16::from_le_bytes([b[0], b[1]]).to_f32())
                .collect(),
        ),
        #[expect(clippy::cast_precision_loss, reason = "counts far below 2^24")]
        Dtype::I64 if view.shape().is_empty() => {
            let count = <[u8; 8]>::try_from(data).ok().map(i64::from_le_bytes)?;
            Some(vec![count as f32])
        }
        _ => None,
    }
}

/// The bytes of values of type `dtype`, or of counts.
#[expect(clippy::cast_possible_truncation, reason = "counts are whole numbers")]
fn encode(values: &[f32], dtype: Option<DType>) -> Vec<u8> {
    match dtype {
        None => values.iter().flat_map(|&v| (v as i64).to_le_bytes()).collect(),
        Some(DType::F16) => values.iter().flat_map(|&v| f16::from_f32(v).to_le_bytes()).collect(),
        _ => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
    }
}

/// Which tensor of a safetensors file ends beyond it, and where; of a file that was not copied to its end.
fn cut_short(bytes: &[u8]) -> Option<String> {
    let len = usize::try_from(u64::from_le_bytes(*bytes.first_chunk()?)).ok()?;
    let start = len.checked_add(8)?;
    let Some(head) = bytes.get(8..start) else {
        // A length that no header has is a file of another kind.
        let held = bytes.len() - 8;
        let cut = bytes.get(8) == Some(&b'{') && len < 100 << 20;
        return cut.then(|| format!("its header has {len} bytes, the file holds {held} of them"));
    };
    let head: serde_json::Value = serde_json::from_slice(head).ok()?;
    let end = |entry: &serde_json::Value| entry["data_offsets"][1].as_u64();
    let ends = head.as_object()?.iter().filter_map(|(name, entry)| Some((name, end(entry)?)));
    let (name, last) = ends.max_by_key(|(_, end)| *end)?;
    let (wanted, held) = ((start as u64).saturating_add(last), bytes.len() as u64);
    (wanted > held).then(|| {
        format!("{name} ends beyond the file, which has {held} of {wanted} bytes: it was cut short")
    })
}
