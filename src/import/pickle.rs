//! A machine for pickles that executes nothing.
//!
//! It knows the opcodes that `torch.save` writes and of all functions only those that put a tensor
//! together; calls of any other make [`Value::Opaque`], which can be carried but not used. Values lie in
//! one list and refer to each other by number: a pickle may share and nest them at will, and neither
//! costs more than its own bytes.
use super::storage::{Element, Tensor};

/// The place of a value in a [`Tree`].
pub(super) type Id = usize;

/// What went wrong, in words for the line `cause:`.
pub(super) type Parsed<T> = std::result::Result<T, String>;

/// No pickle is longer: a state dict takes some hundred bytes a tensor.
pub(super) const MOST_BYTES: usize = 16 << 20;

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
    /// A function or class, `module.name`.
    Global(String),
    /// Numbers of a file: where they are, and how many.
    Storage(Storage),
    Tensor(Tensor),
    /// Numbers of a type that is known by name alone, or a tensor of them.
    Unread(String),
    /// What is not known and not looked into.
    Opaque,
}

/// The numbers that tensors share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Storage {
    pub(super) key: String,
    pub(super) element: Element,
    pub(super) len: usize,
}

/// Everything that one or several pickles made.
#[derive(Debug, Default)]
pub(super) struct Tree {
    values: Vec<Value>,
}

impl Tree {
    pub(super) fn get(&self, id: Id) -> &Value {
        self.values.get(id).unwrap_or(&Value::Opaque)
    }

    pub(super) fn push(&mut self, value: Value) -> Id {
        self.values.push(value);
        self.values.len() - 1
    }

    /// The entries of a dict that texts name.
    pub(super) fn entries(&self, id: Id) -> Vec<(&str, Id)> {
        let Value::Dict(entries) = self.get(id) else { return Vec::new() };
        let entry = |&(key, value): &(Id, Id)| match self.get(key) {
            Value::Text(name) => Some((name.as_str(), value)),
            _ => None,
        };
        entries.iter().filter_map(entry).collect()
    }

    /// Every storage that a pickle named.
    pub(super) fn storages(&self) -> impl Iterator<Item = &Storage> {
        self.values.iter().filter_map(|value| match value {
            Value::Storage(storage) => Some(storage),
            _ => None,
        })
    }

    /// The name of a type that is known by name alone.
    pub(super) fn unread(&self) -> Option<&str> {
        self.values.iter().find_map(|value| match value {
            Value::Unread(element) => Some(element.as_str()),
            _ => None,
        })
    }

    fn items(&self, id: Id) -> &[Id] {
        match self.get(id) {
            Value::Items(items) => items,
            _ => &[],
        }
    }

    fn size(&self, id: Id) -> Parsed<usize> {
        match self.get(id) {
            Value::Int(v) => usize::try_from(*v).map_err(|_| format!("a size is {v}")),
            other => Err(format!("a size is no number: {other:.40?}")),
        }
    }

    fn sizes(&self, id: Id) -> Parsed<Vec<usize>> {
        self.items(id).iter().map(|&id| self.size(id)).collect()
    }
}

/// Runs the pickle at `at` in `bytes`; its value, and where it ends.
pub(super) fn run(tree: &mut Tree, bytes: &[u8], at: usize) -> Parsed<(Id, usize)> {
    let input = bytes.get(..bytes.len().min(MOST_BYTES)).unwrap_or_default();
    let (stack, marks, memo) = Default::default();
    let mut machine = Machine { tree, input, at, stack, marks, memo };
    let value =
        machine.run().map_err(|e| format!("its pickle is damaged at byte {}: {e}", machine.at))?;
    Ok((value, machine.at))
}

struct Machine<'a> {
    tree: &'a mut Tree,
    input: &'a [u8],
    at: usize,
    stack: Vec<Id>,
    /// Where on the stack marks are.
    marks: Vec<usize>,
    memo: std::collections::HashMap<u32, Id>,
}

impl<'a> Machine<'a> {
    fn run(&mut self) -> Parsed<Id> {
        loop {
            let [opcode] = self.take_array()?;
            if opcode == b'.' {
                return self.pop();
            }
            self.step(opcode)?;
        }
    }

    fn step(&mut self, opcode: u8) -> Parsed<()> {
        match opcode {
            0x80 => self.take(1).map(drop),
            // The length of a frame; its bytes follow anyway.
            0x95 => self.take(8).map(drop),
            b'(' => {
                self.marks.push(self.stack.len());
                Ok(())
            }
            b'0' => self.pop().map(drop),
            b'1' => self.since_mark().map(drop),
            b'2' => {
                let top = self.top()?;
                self.stack.push(top);
                Ok(())
            }
            b'q' | b'r' | 0x94 | b'h' | b'j' => self.remember(opcode),
            b'N' => self.push(Value::None),
            0x88 => self.push(Value::Bool(true)),
            0x89 => self.push(Value::Bool(false)),
            b'K' | b'M' | b'J' | 0x8a | 0x8b | b'G' => self.number(opcode),
            b'X' | b'T' | b'B' | b'U' | 0x8c | b'C' | 0x8d | 0x8e | 0x96 => self.text(opcode),
            b')' | b']' | 0x8f => self.push(Value::Items(Vec::new())),
            b'}' => self.push(Value::Dict(Vec::new())),
            0x85 => self.tuple(1),
            0x86 => self.tuple(2),
            0x87 => self.tuple(3),
            b't' | b'l' | 0x91 => {
                let items = self.since_mark()?;
                self.push(Value::Items(items))
            }
            b'd' => {
                let items = self.since_mark()?;
                self.push(Value::Dict(pairs(&items)?))
            }
            b'a' => {
                let item = self.pop()?;
                self.extend(vec![item])
            }
            b'e' | 0x90 => {
                let items = self.since_mark()?;
                self.extend(items)
            }
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.set(vec![key, value])
            }
            b'u' => {
                let items = self.since_mark()?;
                self.set(items)
            }
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.push(Value::Global(format!("{module}.{name}")))
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                match (self.tree.get(module), self.tree.get(name)) {
                    (Value::Text(m), Value::Text(n)) => {
                        let global = format!("{m}.{n}");
                        self.push(Value::Global(global))
                    }
                    _ => Err("a global has no name".into()),
                }
            }
            b'R' | 0x81 => self.call(),
            0x92 => {
                self.pop()?;
                self.call()
            }
            // The attributes of an object: of no object that is used here.
            b'b' => self.pop().map(drop),
            b'Q' => self.storage(),
            other => Err(format!("opcode {other:#04x} is none that torch.save writes")),
        }
    }

    fn take(&mut self, n: usize) -> Parsed<&'a [u8]> {
        let part = self.at.checked_add(n).and_then(|end| self.input.get(self.at..end));
        let part = part.ok_or_else(|| match self.input.len() < MOST_BYTES {
            true => "it ends too early".to_owned(),
            false => format!("it is longer than {} MiB", MOST_BYTES >> 20),
        })?;
        self.at += n;
        Ok(part)
    }

    fn take_array<const N: usize>(&mut self) -> Parsed<[u8; N]> {
        self.take(N)?.try_into().map_err(|_| "it ends too early".to_owned())
    }

    /// A length of `width` bytes.
    fn take_length(&mut self, width: usize) -> Parsed<usize> {
        let mut bytes = [0; 8];
        bytes[..width].copy_from_slice(self.take(width)?);
        usize::try_from(u64::from_le_bytes(bytes)).map_err(|e| e.to_string())
    }

    fn line(&mut self) -> Parsed<String> {
        let rest = self.input.get(self.at..).unwrap_or_default();
        let end = rest.iter().position(|&b| b == b'\n').ok_or("it ends too early")?;
        let text = String::from_utf8_lossy(&rest[..end]).into_owned();
        self.at += end + 1;
        Ok(text)
    }

    fn push(&mut self, value: Value) -> Parsed<()> {
        let id = self.tree.push(value);
        self.stack.push(id);
        Ok(())
    }

    fn top(&self) -> Parsed<Id> {
        let floor = self.marks.last().copied().unwrap_or(0);
        match self.stack.last() {
            Some(&id) if self.stack.len() > floor => Ok(id),
            _ => Err("it takes more values than there are".into()),
        }
    }

    fn pop(&mut self) -> Parsed<Id> {
        let top = self.top()?;
        self.stack.pop();
        Ok(top)
    }

    /// Takes what is above the last mark.
    fn since_mark(&mut self) -> Parsed<Vec<Id>> {
        let mark = self.marks.pop().ok_or("there is no mark")?;
        Ok(self.stack.split_off(mark.min(self.stack.len())))
    }

    fn tuple(&mut self, n: usize) -> Parsed<()> {
        let mut items = Vec::with_capacity(n);
        for _ in 0..n {
            items.push(self.pop()?);
        }
        items.reverse();
        self.push(Value::Items(items))
    }

    fn remember(&mut self, opcode: u8) -> Parsed<()> {
        let key = match opcode {
            b'q' | b'h' => u32::from(self.take_array::<1>()?[0]),
            b'r' | b'j' => u32::from_le_bytes(self.take_array()?),
            _ => u32::try_from(self.memo.len()).map_err(|e| e.to_string())?,
        };
        if matches!(opcode, b'h' | b'j') {
            let id = *self.memo.get(&key).ok_or_else(|| format!("there is no value {key}"))?;
            self.stack.push(id);
        } else {
            let top = self.top()?;
            self.memo.insert(key, top);
        }
        Ok(())
    }

    fn number(&mut self, opcode: u8) -> Parsed<()> {
        let value = match opcode {
            b'K' => Value::Int(self.take_array::<1>()?[0].into()),
            b'M' => Value::Int(u16::from_le_bytes(self.take_array()?).into()),
            b'J' => Value::Int(i32::from_le_bytes(self.take_array()?).into()),
            b'G' => {
                self.take(8)?;
                Value::Float
            }
            _ => {
                let length = self.take_length(if opcode == 0x8a { 1 } else { 4 })?;
                long(self.take(length)?)
            }
        };
        self.push(value)
    }

    fn text(&mut self, opcode: u8) -> Parsed<()> {
        let width = match opcode {
            b'U' | 0x8c | b'C' => 1,
            b'X' | b'T' | b'B' => 4,
            _ => 8,
        };
        let length = self.take_length(width)?;
        let bytes = self.take(length)?;
        match opcode {
            b'X' | 0x8c | 0x8d | b'T' | b'U' => {
                self.push(Value::Text(String::from_utf8_lossy(bytes).into_owned()))
            }
            _ => self.push(Value::Opaque),
        }
    }

    fn extend(&mut self, more: Vec<Id>) -> Parsed<()> {
        let top = self.top()?;
        if let Some(Value::Items(items)) = self.tree.values.get_mut(top) {
            items.extend(more);
        }
        Ok(())
    }

    fn set(&mut self, items: Vec<Id>) -> Parsed<()> {
        let (top, more) = (self.top()?, pairs(&items)?);
        if let Some(Value::Dict(entries)) = self.tree.values.get_mut(top) {
            entries.extend(more);
        }
        Ok(())
    }

    /// A call of what lies below its arguments; here lies the list of what is known.
    fn call(&mut self) -> Parsed<()> {
        let (arguments, function) = (self.pop()?, self.pop()?);
        let Value::Global(name) = self.tree.get(function) else { return self.push(Value::Opaque) };
        let arguments = self.tree.items(arguments);
        match (name.as_str(), arguments) {
            (
                "torch._utils._rebuild_tensor_v2" | "torch._utils._rebuild_tensor",
                [s, o, n, d, ..],
            ) => {
                let tensor = self.tensor([*s, *o, *n, *d])?;
                self.push(tensor)
            }
            // Types without a class of storages: untyped bytes, and the type behind them.
            ("torch._utils._rebuild_tensor_v3", all @ [_, _, _, _, ..]) => {
                let named = |id: &Id| match self.tree.get(*id) {
                    Value::Global(name) => name.strip_prefix("torch.").map(str::to_owned),
                    _ => None,
                };
                let element = all.iter().rev().find_map(named).unwrap_or_else(|| "unknown".into());
                self.push(Value::Unread(element))
            }
            (
                "torch._utils._rebuild_parameter" | "torch._utils._rebuild_parameter_with_state",
                &[tensor, ..],
            )
            | ("torch.Size", &[tensor]) => {
                self.stack.push(tensor);
                Ok(())
            }
            ("collections.OrderedDict", []) => self.push(Value::Dict(Vec::new())),
            ("collections.OrderedDict", &[list]) => {
                let pair = |&id: &Id| match self.tree.items(id) {
                    &[key, value] => Some((key, value)),
                    _ => None,
                };
                let entries = self.tree.items(list).iter().filter_map(pair).collect();
                self.push(Value::Dict(entries))
            }
            _ => self.push(Value::Opaque),
        }
    }

    fn tensor(&self, [storage, offset, sizes, strides]: [Id; 4]) -> Parsed<Value> {
        let storage = match self.tree.get(storage) {
            Value::Storage(storage) => storage,
            Value::Unread(element) => return Ok(Value::Unread(element.clone())),
            _ => return Ok(Value::Opaque),
        };
        let (shape, strides) = (self.tree.sizes(sizes)?, self.tree.sizes(strides)?);
        let offset = self.tree.size(offset)?;
        Tensor::new(storage.clone(), offset, shape, strides).map(Value::Tensor)
    }

    /// `("storage", torch.FloatStorage, key, device, length)`.
    fn storage(&mut self) -> Parsed<()> {
        let id = self.pop()?;
        let items = self.tree.items(id);
        let (Some(&class), Some(&key), Some(&len)) = (items.get(1), items.get(2), items.get(4))
        else {
            return self.push(Value::Opaque);
        };
        // A view of another storage; written until 2017.
        let is_view = items.get(5).is_some_and(|&v| !matches!(self.tree.get(v), Value::None));
        match (self.tree.get(class), self.tree.get(key)) {
            (Value::Global(class), Value::Text(key)) if !is_view => {
                match Element::of_class(class) {
                    Some(element) => {
                        let storage =
                            Storage { key: key.clone(), element, len: self.tree.size(len)? };
                        self.push(Value::Storage(storage))
                    }
                    None => {
                        let name = class.trim_start_matches("torch.").trim_end_matches("Storage");
                        let name = name.to_owned();
                        self.push(Value::Unread(name))
                    }
                }
            }
            _ => self.push(Value::Opaque),
        }
    }
}

fn pairs(items: &[Id]) -> Parsed<Vec<(Id, Id)>> {
    let (pairs, rest) = items.as_chunks::<2>();
    match rest {
        [] => Ok(pairs.iter().map(|&[key, value]| (key, value)).collect()),
        _ => Err("a key has no value".into()),
    }
}

/// A whole number of at most 64 bits, lowest byte first, the highest bit its sign.
fn long(bytes: &[u8]) -> Value {
    if bytes.len() > 8 {
        return Value::Opaque;
    }
    let negative = bytes.last().is_some_and(|b| b & 0x80 != 0);
    let mut all = [if negative { 0xff } else { 0 }; 8];
    all[..bytes.len()].copy_from_slice(bytes);
    Value::Int(i64::from_le_bytes(all))
}
