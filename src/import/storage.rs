//! Tensors as files hold them: a part of a storage, with strides, of some element type.
use std::io::{Read, Seek, SeekFrom};
use std::sync::Arc;

use half::{bf16, f16};

/// What went wrong, in words for the line `cause:`.
pub(super) type Parsed<T> = std::result::Result<T, String>;

/// The numbers that tensors share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Storage {
    pub(super) key: Arc<str>,
    pub(super) element: Element,
    pub(super) len: usize,
}

/// What is read: a file, or bytes.
pub(super) trait Source: Read + Seek {}

impl<T: Read + Seek> Source for T {}

/// The type of a number in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Element {
    F64,
    F32,
    F16,
    Bf16,
    I64,
    I32,
    I16,
    I8,
    U8,
    Bool,
}

impl Element {
    /// That of a torch class, such as `torch.FloatStorage`.
    pub(super) fn of_class(class: &str) -> Option<Self> {
        Some(match class.strip_prefix("torch.")?.strip_suffix("Storage")? {
            "Double" => Self::F64,
            "Float" => Self::F32,
            "Half" => Self::F16,
            "BFloat16" => Self::Bf16,
            "Long" => Self::I64,
            "Int" => Self::I32,
            "Short" => Self::I16,
            "Char" => Self::I8,
            "Byte" => Self::U8,
            "Bool" => Self::Bool,
            _ => return None,
        })
    }

    pub(super) fn width(self) -> usize {
        match self {
            Self::F64 | Self::I64 => 8,
            Self::F32 | Self::I32 => 4,
            Self::F16 | Self::Bf16 | Self::I16 => 2,
            Self::I8 | Self::U8 | Self::Bool => 1,
        }
    }

    /// Numbers, lowest byte first.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        reason = "weights are f32"
    )]
    fn decode(self, bytes: &[u8]) -> Vec<f32> {
        macro_rules! each {
            ($t:ty, $to:expr) => {{
                let (chunks, _) = bytes.as_chunks();
                chunks.iter().map(|&b| $to(<$t>::from_le_bytes(b))).collect()
            }};
        }
        match self {
            Self::F64 => each!(f64, |v| v as f32),
            Self::F32 => each!(f32, |v| v),
            Self::F16 => each!(f16, f16::to_f32),
            Self::Bf16 => each!(bf16, bf16::to_f32),
            Self::I64 => each!(i64, |v| v as f32),
            Self::I32 => each!(i32, |v| v as f32),
            Self::I16 => each!(i16, f32::from),
            Self::I8 => each!(i8, f32::from),
            Self::U8 | Self::Bool => each!(u8, f32::from),
        }
    }
}

/// The name of a type of numbers: short, so that a pickle may repeat it at will.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TypeName {
    bytes: [u8; Self::LONGEST],
    len: usize,
}

impl TypeName {
    const LONGEST: usize = 24;

    /// Of torch's `class`, such as `float8_e4m3fn` or `ComplexFloatStorage`; none if that is too long.
    pub(super) fn of(class: &str) -> Option<Self> {
        let name = class.strip_suffix("Storage").unwrap_or(class);
        let mut bytes = [0; Self::LONGEST];
        bytes.get_mut(..name.len())?.copy_from_slice(name.as_bytes());
        Some(Self { bytes, len: name.len() })
    }

    pub(super) fn name(&self) -> &str {
        self.bytes.get(..self.len).and_then(|b| std::str::from_utf8(b).ok()).unwrap_or_default()
    }
}

/// What is said of a tensor that has more elements than numbers.
pub(super) const REPEATS: &str = "repeats its";

/// A view of a storage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tensor {
    pub(super) storage: Storage,
    pub(super) shape: Vec<usize>,
    pub(super) offset: usize,
    pub(super) strides: Vec<usize>,
}

impl Tensor {
    /// No tensor of a network has more axes.
    pub(super) const MOST_AXES: usize = 8;

    /// A view that lies within its storage and is no larger: one that repeats numbers is refused, since
    /// its size is bounded by nothing.
    pub(super) fn new(
        storage: Storage,
        offset: usize,
        shape: Vec<usize>,
        strides: Vec<usize>,
    ) -> Parsed<Self> {
        let len = storage.len;
        let outside = || format!("a tensor of shape {shape:?} leaves its storage of {len} numbers");
        if shape.len() != strides.len() || shape.len() > Self::MOST_AXES {
            return Err(format!("a tensor has shape {shape:?} and strides {strides:?}"));
        }
        let mut all = 1usize;
        for &n in &shape {
            all = all.checked_mul(n).ok_or_else(outside)?;
        }
        if all > 0 {
            let mut last = offset;
            for (&n, &stride) in shape.iter().zip(&strides) {
                let step = (n - 1).checked_mul(stride).ok_or_else(outside)?;
                last = last.checked_add(step).ok_or_else(outside)?;
            }
            if last >= len {
                return Err(outside());
            }
            if all > len {
                return Err(format!(
                    "a tensor of shape {shape:?} {REPEATS} {len} numbers, as .expand() makes it"
                ));
            }
        }
        Ok(Self { storage, shape, offset, strides })
    }

    /// A tensor that no file holds: it has a shape, and cannot be read.
    pub(super) fn nowhere(shape: Vec<usize>) -> Self {
        let storage = Storage { key: "".into(), element: Element::F32, len: 0 };
        Self { storage, strides: vec![0; shape.len()], shape, offset: 0 }
    }

    /// All of a storage, without gaps.
    pub(super) fn whole(storage: Storage, shape: Vec<usize>) -> Parsed<Self> {
        let mut strides = vec![1usize; shape.len()];
        for i in (1..shape.len()).rev() {
            strides[i - 1] = strides[i].saturating_mul(shape[i]);
        }
        Self::new(storage, 0, shape, strides)
    }

    /// All of a storage whose first axis is the innermost, as Fortran and MATLAB have it.
    pub(super) fn fortran(storage: Storage, shape: Vec<usize>) -> Parsed<Self> {
        let mut strides = vec![1usize; shape.len()];
        for i in 1..shape.len() {
            strides[i] = strides[i - 1].saturating_mul(shape[i - 1]);
        }
        Self::new(storage, 0, shape, strides)
    }

    /// The numbers in order, read from a storage that starts at byte `start` of `source`.
    pub(super) fn read(&self, source: &mut dyn Source, start: u64) -> Parsed<Vec<f32>> {
        let count: usize = self.shape.iter().product();
        if count == 0 {
            return Ok(Vec::new());
        }
        let reach: usize = self.shape.iter().zip(&self.strides).map(|(n, s)| (n - 1) * s).sum();
        let width = self.storage.element.width();
        source
            .seek(SeekFrom::Start(start + (self.offset * width) as u64))
            .map_err(|e| e.to_string())?;
        let wanted = ((reach + 1) * width) as u64;
        // Grows as bytes arrive, so that what a file says of itself allocates nothing.
        let mut bytes = Vec::new();
        source.take(wanted).read_to_end(&mut bytes).map_err(|e| e.to_string())?;
        if (bytes.len() as u64) < wanted {
            return Err(format!("its storage {} ends too early", self.storage.key));
        }
        let held = self.storage.element.decode(&bytes);
        if self.is_dense() {
            return Ok(held);
        }
        let mut index = vec![0usize; self.shape.len()];
        let mut values = Vec::with_capacity(count);
        for _ in 0..count {
            values.push(held[index.iter().zip(&self.strides).map(|(i, s)| i * s).sum::<usize>()]);
            for axis in (0..index.len()).rev() {
                index[axis] += 1;
                if index[axis] < self.shape[axis] {
                    break;
                }
                index[axis] = 0;
            }
        }
        Ok(values)
    }

    fn is_dense(&self) -> bool {
        let mut expected = 1;
        for (&n, &stride) in self.shape.iter().zip(&self.strides).rev() {
            if n > 1 && stride != expected {
                return false;
            }
            expected *= n;
        }
        true
    }
}
