//! What pickles make: values by their places, never objects.
use std::sync::Arc;

use super::foreign::Foreign;
use super::storage::{Element, Parsed, Storage, Tensor, TypeName};

/// The place of a value in a [`Tree`].
pub(super) type Id = usize;

/// One value.
#[derive(Clone, Debug)]
pub(super) enum Value {
    None,
    Bool(bool),
    Int(i64),
    Float,
    Text(String),
    /// A list, tuple or set.
    Items(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    /// A function or class.
    Global(Global),
    /// Numbers of a file: where they are, and how many.
    Storage(Box<Storage>),
    Tensor(Box<Tensor>),
    /// Bytes of the pickle, or of those beside it: where they start, and how many.
    Bytes(usize, usize),
    /// numpy's type of an element; none if it cannot be read, such as big-endian ones.
    Dtype(Option<Element>),
    /// An array of numpy before its state is known.
    Array,
    /// Numbers of a type that is known by name alone, or a tensor of them.
    Unread(Arc<str>),
    /// What is not known and not looked into.
    Opaque,
}

/// The functions and classes that put a tensor together, and the dicts that hold them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Global {
    /// `torch._utils._rebuild_tensor_v2` and its elder.
    RebuildTensor,
    /// What hands its first argument on.
    First,
    /// `torch._tensor._rebuild_from_type_v2`: calls its first argument with its third, for tensors with attributes.
    FromType,
    OrderedDict,
    /// `torch._utils._rebuild_tensor_v3`: of types without a class of storages.
    RebuildTyped,
    /// A class of storages.
    Storage(Element),
    /// A type of numbers, or a class of storages, that is not read.
    Unread(TypeName),
    /// What puts an array of numpy together.
    Numpy(Call),
    Other,
}

impl Global {
    pub(super) fn of(module: &[u8], name: &[u8]) -> Self {
        match (module, name) {
            (b"torch._utils", b"_rebuild_tensor_v2" | b"_rebuild_tensor") => Self::RebuildTensor,
            (b"torch._utils", b"_rebuild_parameter" | b"_rebuild_parameter_with_state") => {
                Self::First
            }
            (b"torch._utils", b"_rebuild_tensor_v3") => Self::RebuildTyped,
            (b"torch._tensor", b"_rebuild_from_type_v2") => Self::FromType,
            (b"torch", b"Size") => Self::First,
            (b"collections", b"OrderedDict" | b"defaultdict") => Self::OrderedDict,
            (b"torch", class) => {
                let class = std::str::from_utf8(class).ok().filter(|class| class.len() < 64);
                let element = class.and_then(|class| Element::of_class(&format!("torch.{class}")));
                let unread = || class.and_then(TypeName::of).map_or(Self::Other, Self::Unread);
                element.map_or_else(unread, Self::Storage)
            }
            _ => Call::of(module, name).map_or(Self::Other, Self::Numpy),
        }
    }
}

/// Everything that one or several pickles made.
#[derive(Debug, Default)]
pub(super) struct Tree {
    pub(super) values: Vec<Value>,
    /// What it named that is not known.
    pub(super) foreign: Foreign,
    /// Bytes that a pickle held as text: they lie beyond its end.
    pub(super) beside: Vec<u8>,
}

/// Where a storage whose bytes lie in the pickle starts.
pub(super) fn inline_start(storage: &Storage) -> Option<u64> {
    storage.key.strip_prefix('@')?.parse().ok()
}

impl Tree {
    pub(super) fn get(&self, id: Id) -> &Value {
        self.values.get(id).unwrap_or(&Value::Opaque)
    }

    pub(super) fn push(&mut self, value: Value) -> Id {
        self.values.push(value);
        self.values.len() - 1
    }

    pub(super) fn set(&mut self, id: Id, value: Value) {
        if let Some(place) = self.values.get_mut(id) {
            *place = value;
        }
    }

    /// Whether the dict `id` has an entry, named by a text, of a kind.
    pub(super) fn any_entry(&self, id: Id, is_wanted: impl Fn((&str, Id)) -> bool) -> bool {
        let Value::Dict(entries) = self.get(id) else { return false };
        entries.iter().any(|&(key, value)| self.name(key).is_some_and(|n| is_wanted((n, value))))
    }

    /// A text that may be the name of something: many entries may share one, so that long ones cost too much.
    fn name(&self, id: Id) -> Option<&str> {
        match self.get(id) {
            Value::Text(name) if name.len() <= LONGEST_NAME => Some(name),
            _ => None,
        }
    }

    /// The entries of a dict that texts name.
    pub(super) fn entries(&self, id: Id) -> Vec<(&str, Id)> {
        let Value::Dict(entries) = self.get(id) else { return Vec::new() };
        let entry = |&(key, value): &(Id, Id)| Some((self.name(key)?, value));
        entries.iter().filter_map(entry).collect()
    }

    /// Every storage that a pickle named.
    pub(super) fn storages(&self) -> impl Iterator<Item = &Storage> {
        self.values.iter().filter_map(|value| match value {
            Value::Storage(storage) => Some(&**storage),
            _ => None,
        })
    }

    /// The name of a type that is known by name alone.
    pub(super) fn unread(&self) -> Option<&str> {
        self.values.iter().find_map(|value| match value {
            Value::Unread(element) => Some(&**element),
            _ => None,
        })
    }

    /// Every tensor that a pickle made.
    pub(super) fn tensors(&self) -> impl Iterator<Item = &Tensor> {
        self.values.iter().filter_map(|value| match value {
            Value::Tensor(tensor) => Some(&**tensor),
            _ => None,
        })
    }

    pub(super) fn items(&self, id: Id) -> &[Id] {
        match self.get(id) {
            Value::Items(items) => items,
            _ => &[],
        }
    }

    pub(super) fn size(&self, id: Id) -> Parsed<usize> {
        match self.get(id) {
            Value::Int(v) => usize::try_from(*v).map_err(|_| format!("a size is {v}")),
            _ => Err("a size is no number".to_owned()),
        }
    }

    pub(super) fn sizes(&self, id: Id) -> Parsed<Vec<usize>> {
        let items = self.items(id);
        if items.len() > Tensor::MOST_AXES {
            return Err(format!("a tensor has {} axes", items.len()));
        }
        items.iter().map(|&id| self.size(id)).collect()
    }
}

/// No pickles together make more values, and none remembers more: a tensor takes some twenty.
pub(super) const MOST_VALUES: usize = 4 << 20;

/// No name of a tensor is longer.
const LONGEST_NAME: usize = 1024;

/// A function or class that puts an array together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Call {
    Reconstruct,
    Dtype,
    FromBuffer,
    Encode,
}

impl Call {
    pub(super) fn of(module: &[u8], name: &[u8]) -> Option<Self> {
        Some(match (module, name) {
            (b"numpy.core.multiarray" | b"numpy._core.multiarray", b"_reconstruct") => {
                Self::Reconstruct
            }
            (b"numpy.core.numeric" | b"numpy._core.numeric", b"_frombuffer") => Self::FromBuffer,
            (b"numpy", b"dtype") => Self::Dtype,
            (b"_codecs", b"encode") => Self::Encode,
            _ => return None,
        })
    }
}
