//! A checkpoint file: zip or legacy of `torch.save`, safetensors, a pickle of arrays, or a file of MATLAB, told
//! apart by their first bytes.
use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::io::Cursor;

use serde_json::Value as Json;

use super::mat;
use super::mistaken;
use super::pickle::{self, Id, Parsed, Storage, Tree, Value};
use super::storage::{Element, Source, Tensor};
use super::zip::{self, bytes_at};

/// What a checkpoint holds, and where its numbers are.
pub(super) struct Archive {
    source: Box<dyn Source>,
    pub(super) size: u64,
    pub(super) tree: Tree,
    pub(super) root: Id,
    /// Start and length in bytes of each storage; bytes beside a pickle follow those of the file.
    storages: HashMap<String, (u64, u64)>,
    /// `zip`, `legacy` or `safetensors`.
    pub(super) format: &'static str,
    /// What was found out of dicts: whether they hold tensors, or dicts that do.
    with_tensors: RefCell<HashMap<Id, bool>>,
    with_nested: RefCell<HashMap<Id, bool>>,
}

/// In a pickle the number 0x1950a86a20f9469cfc6c, which legacy files start with.
const LEGACY: [u8; 12] = [0x8a, 10, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];

/// Whether a file that begins with `head` is a legacy one, of any protocol: later ones put numbers into frames.
fn is_legacy(head: &[u8]) -> bool {
    match head {
        [0x80, _, 0x95, _, _, _, _, _, _, _, _, number @ ..] => number.starts_with(&LEGACY),
        [0x80, _, number @ ..] => number.starts_with(&LEGACY),
        _ => false,
    }
}

impl Archive {
    /// Reads what a file of `size` bytes holds, but none of its tensors.
    pub(super) fn open(mut source: Box<dyn Source>, size: u64) -> Parsed<Self> {
        let head = bytes_at(&mut *source, 0, size.min(64))?;
        if let Some(what) = mistaken::for_weights(&head) {
            return Err(what.into());
        }
        match () {
            () if size == 0 => Err("the file is empty".into()),
            () if head.starts_with(b"PK\x03\x04") => Self::of_zip(source, size),
            () if is_legacy(&head) => Self::of_legacy(source, size),
            () if head.get(8) == Some(&b'{') => Self::of_safetensors(source, size),
            () if matches!(head[..], [0x80, 2..=5, ..]) => Self::of_pickle(source, size),
            () if head.starts_with(b"MATLAB 5.0 MAT-f") => Self::of_mat(source, size),
            () => Err(format!(
                "it starts with {:02x?}; a checkpoint of torch.save or safetensors does not",
                &head[..head.len().min(4)]
            )),
        }
    }

    fn new(
        source: Box<dyn Source>,
        size: u64,
        (tree, root): (Tree, Id),
        storages: HashMap<String, (u64, u64)>,
        format: &'static str,
    ) -> Self {
        let (with_tensors, with_nested) = Default::default();
        Self { source, size, tree, root, storages, format, with_tensors, with_nested }
    }

    fn of_zip(mut source: Box<dyn Source>, size: u64) -> Parsed<Self> {
        let entries = zip::entries(&mut *source, size)?;
        let ends = |name: &str, part: &str| name == part || name.ends_with(&format!("/{part}"));
        let script = |e: &zip::Entry| e.name.contains("/code/") || ends(&e.name, "constants.pkl");
        if entries.iter().any(script) {
            return Err("it is a TorchScript archive, a program with weights inside".into());
        }
        if let Some(zip::Entry { name, .. }) = entries.iter().find(|e| !e.is_stored) {
            return Err(format!(
                "{name} in it is compressed or encrypted, which torch.save never does"
            ));
        }
        let find = |part: &str| entries.iter().find(|e| ends(&e.name, part)).cloned();
        let pickled = find("data.pkl").ok_or("its zip container has no data.pkl")?;
        let order = match find("byteorder") {
            Some(order) => bytes_at(&mut *source, order.start, order.len.min(8))?,
            None => Vec::new(),
        };
        if order.starts_with(b"big") {
            return Err(BIG_ENDIAN.into());
        }
        // Arrays of numpy lie in the pickle.
        let text = bytes_at(&mut *source, pickled.start, pickled.len.min(MOST_INLINE as u64))?;
        let mut tree = Tree::default();
        let (root, _) = pickle::run_within(&mut tree, &text, 0, MOST_INLINE)?;
        let folder = pickled.name.trim_end_matches("data.pkl").to_owned() + "data/";
        let storage =
            |e: zip::Entry| Some((e.name.strip_prefix(&folder)?.to_owned(), (e.start, e.len)));
        let mut storages: HashMap<_, _> = entries.into_iter().filter_map(storage).collect();
        storages.extend(inline(&tree, (pickled.start, text.len()), size));
        Ok(Self::new(source, size, (tree, root), storages, "torch"))
    }

    /// Pickles of a number, a version, the machine, the object and the names of storages; then each
    /// storage, its length before it.
    fn of_legacy(mut source: Box<dyn Source>, size: u64) -> Parsed<Self> {
        let text = bytes_at(&mut *source, 0, size.min(pickle::MOST_BYTES as u64))?;
        let mut tree = Tree::default();
        let mut roots = [0; 5];
        let mut at = 0;
        for root in &mut roots {
            (*root, at) = pickle::run(&mut tree, &text, at)?;
        }
        let little = tree.entries(roots[2]).into_iter().find(|e| e.0 == "little_endian");
        if little.is_some_and(|(_, id)| matches!(tree.get(id), Value::Bool(false))) {
            return Err(BIG_ENDIAN.into());
        }
        let widths: HashMap<&str, usize> =
            tree.storages().map(|s| (&*s.key, s.element.width())).collect();
        let Value::Items(keys) = tree.get(roots[4]) else {
            return Err("it does not name its storages".into());
        };
        let mut storages = HashMap::new();
        let mut at = at as u64;
        for &key in keys {
            let Value::Text(key) = tree.get(key) else {
                return Err("a storage has no name".into());
            };
            if storages.contains_key(key) {
                return Err(format!("it has two storages {key}"));
            }
            let length = bytes_at(&mut *source, at, 8)?.try_into().unwrap_or_default();
            let width = widths.get(key.as_str()).ok_or_else(|| match tree.unread() {
                Some(element) => {
                    format!("it holds numbers of type {element}, which srk does not read")
                }
                None => "a storage is of no known type".to_owned(),
            })?;
            let bytes = u64::from_le_bytes(length).checked_mul(*width as u64);
            let end = bytes.and_then(|b| b.checked_add(at + 8)).filter(|&end| end <= size);
            let end = end.ok_or_else(|| format!("storage {key} ends beyond the file"))?;
            storages.insert(key.clone(), (at + 8, end - at - 8));
            at = end;
        }
        storages.extend(inline(&tree, (0, text.len()), size));
        Ok(Self::new(source, size, (tree, roots[3]), storages, "torch, legacy"))
    }

    /// A pickle that holds its arrays itself.
    fn of_pickle(mut source: Box<dyn Source>, size: u64) -> Parsed<Self> {
        let bytes = bytes_at(&mut *source, 0, size.min(MOST_INLINE as u64))?;
        let mut tree = Tree::default();
        let (root, _) = pickle::run_within(&mut tree, &bytes, 0, MOST_INLINE)?;
        let storages = inline(&tree, (0, bytes.len()), size);
        let source = Box::new(Cursor::new(bytes));
        Ok(Self::new(source, size, (tree, root), storages, "pickle"))
    }

    /// The variables of a file of MATLAB.
    fn of_mat(mut source: Box<dyn Source>, size: u64) -> Parsed<Self> {
        let bytes = bytes_at(&mut *source, 0, size.min(mat::MOST_BYTES))?;
        let (mut tree, mut entries, mut storages) = (Tree::default(), Vec::new(), HashMap::new());
        let mut numbers = Vec::new();
        for mat::Variable { name, shape, values } in mat::variables(&bytes)? {
            let start = numbers.len() as u64;
            numbers.extend(values.iter().flat_map(|v| v.to_le_bytes()));
            let storage =
                Storage { key: name.as_str().into(), element: Element::F64, len: values.len() };
            let tensor = Tensor::fortran(storage, shape).map_err(|e| format!("{name}: {e}"))?;
            storages.insert(name.clone(), (start, numbers.len() as u64 - start));
            entries
                .push((tree.push(Value::Text(name)), tree.push(Value::Tensor(Box::new(tensor)))));
        }
        let root = tree.push(Value::Dict(entries));
        // What was compressed may be longer than the file.
        let size = numbers.len() as u64;
        let source = Box::new(Cursor::new(numbers));
        Ok(Self::new(source, size, (tree, root), storages, "MATLAB"))
    }

    fn of_safetensors(mut source: Box<dyn Source>, size: u64) -> Parsed<Self> {
        let length = bytes_at(&mut *source, 0, 8)?.try_into().unwrap_or_default();
        let length = u64::from_le_bytes(length);
        if length > (100 << 20).min(size.saturating_sub(8)) {
            return Err(format!("its header of {length} bytes does not lie in the file"));
        }
        let header = bytes_at(&mut *source, 8, length)?;
        let header: Json = serde_json::from_slice(&header).map_err(|e| e.to_string())?;
        let (mut tree, mut entries, mut storages) = (Tree::default(), Vec::new(), HashMap::new());
        for (name, entry) in header.as_object().into_iter().flatten() {
            if name == "__metadata__" {
                continue;
            }
            let key = tree.push(Value::Text(name.clone()));
            let number = |v: &Json| v.as_u64().ok_or_else(|| format!("{name} has a wrong entry"));
            let [from, to] = [0, 1].map(|i| number(&entry["data_offsets"][i]));
            let (from, to) = (from?, to?);
            let start = 8 + length;
            if from > to || to > size - start {
                return Err(format!("{name} ends beyond the file"));
            }
            let axes = entry["shape"].as_array().map_or(&[][..], Vec::as_slice);
            let shape =
                axes.iter().map(|v| number(v).map(|n| usize::try_from(n).unwrap_or(usize::MAX)));
            let shape = shape.collect::<Parsed<Vec<usize>>>()?;
            let value = match element_of(entry["dtype"].as_str().unwrap_or_default()) {
                None => Value::Unread(entry["dtype"].as_str().unwrap_or("none").into()),
                Some(element) => {
                    let len = usize::try_from(to - from).unwrap_or(0) / element.width();
                    let storage = Storage { key: name.as_str().into(), element, len };
                    let tensor =
                        Tensor::whole(storage, shape).map_err(|e| format!("{name}: {e}"))?;
                    Value::Tensor(Box::new(tensor))
                }
            };
            storages.insert(name.clone(), (start + from, to - from));
            entries.push((key, tree.push(value)));
        }
        let root = tree.push(Value::Dict(entries));
        Ok(Self::new(source, size, (tree, root), storages, "safetensors"))
    }

    /// The tensors of a dict under their names, those of types that are not read only if they are `needed`; an error if
    /// one's numbers are not all in the file.
    pub(super) fn tensors(
        &self,
        id: Id,
        needed: impl Fn(&str) -> bool,
    ) -> Parsed<Vec<(String, Tensor)>> {
        let mut found = Vec::new();
        // The last of equal names, once: what it costs to name them is bounded by their own bytes.
        let entries: BTreeMap<&str, Id> = self.tree.entries(id).into_iter().collect();
        for (name, id) in entries {
            match self.tree.get(id) {
                Value::Tensor(tensor) => {
                    self.start(tensor).map_err(|e| format!("{name}: {e}"))?;
                    found.push((name.to_owned(), (**tensor).clone()));
                }
                Value::Unread(element) if needed(name) => {
                    return Err(format!("{name} is of type {element}, which srk does not read"));
                }
                _ => {}
            }
        }
        Ok(found)
    }

    /// Whether a dict holds a tensor under a name.
    pub(super) fn has_tensors(&self, id: Id) -> bool {
        let is_tensor =
            |(_, id): (&str, Id)| matches!(self.tree.get(id), Value::Tensor(_) | Value::Unread(_));
        let look = || self.tree.any_entry(id, is_tensor);
        // Many entries may be one dict.
        let known = self.with_tensors.borrow().get(&id).copied();
        let has = known.unwrap_or_else(look);
        self.with_tensors.borrow_mut().insert(id, has);
        has
    }

    /// Whether a dict holds one under one of `names` that holds a tensor.
    pub(super) fn has_nested(&self, id: Id, names: &[&str]) -> bool {
        let is_wanted = |(name, id): (&str, Id)| names.contains(&name) && self.has_tensors(id);
        let known = self.with_nested.borrow().get(&id).copied();
        let has = known.unwrap_or_else(|| self.tree.any_entry(id, is_wanted));
        self.with_nested.borrow_mut().insert(id, has);
        has
    }

    /// The numbers of a tensor, in order.
    pub(super) fn read(&mut self, tensor: &Tensor) -> Parsed<Vec<f32>> {
        let start = self.start(tensor)?;
        match start.checked_sub(self.size) {
            Some(beside) => tensor.read(&mut Cursor::new(&self.tree.beside), beside),
            None => tensor.read(&mut *self.source, start),
        }
    }

    /// Where the storage of a tensor starts.
    fn start(&self, tensor: &Tensor) -> Parsed<u64> {
        let Storage { key, element, len } = &tensor.storage;
        let (start, bytes) =
            self.storages.get(&**key).ok_or_else(|| format!("no storage {key}"))?;
        match (*len as u64).checked_mul(element.width() as u64) {
            Some(wanted) if wanted <= *bytes => Ok(*start),
            _ => Err(format!("storage {key} has {bytes} bytes for {len} numbers")),
        }
    }
}

/// Start and length of the arrays that lie in a pickle, which is at `start` of a file of `size` bytes and has `len`, or
/// beside it.
fn inline(tree: &Tree, (start, len): (u64, usize), size: u64) -> HashMap<String, (u64, u64)> {
    let place = |tensor: &Tensor| {
        let Storage { key, element, len: numbers } = &tensor.storage;
        let at = pickle::inline_start(&tensor.storage)?;
        let at = match at.checked_sub(len as u64) {
            Some(beside) => size.saturating_add(beside),
            None => start.saturating_add(at),
        };
        Some((key.to_string(), (at, (*numbers as u64).saturating_mul(element.width() as u64))))
    };
    tree.tensors().filter_map(place).collect()
}

/// No pickle that holds its arrays is longer.
const MOST_INLINE: usize = 1 << 30;

const BIG_ENDIAN: &str = "it was written on a big-endian machine";

fn element_of(dtype: &str) -> Option<Element> {
    Some(match dtype {
        "F64" => Element::F64,
        "F32" => Element::F32,
        "F16" => Element::F16,
        "BF16" => Element::Bf16,
        "I64" => Element::I64,
        "I32" => Element::I32,
        "I16" => Element::I16,
        "I8" => Element::I8,
        "U8" => Element::U8,
        "BOOL" => Element::Bool,
        _ => return None,
    })
}

/// An archive of bytes in memory.
pub(super) fn of_bytes(bytes: Vec<u8>) -> Parsed<Archive> {
    let size = bytes.len() as u64;
    Archive::open(Box::new(Cursor::new(bytes)), size)
}
