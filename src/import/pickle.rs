//! A machine for pickles that executes nothing.
//!
//! It knows the opcodes that `torch.save` writes and of all functions only those that put a tensor or an
//! array of numpy together; calls of any other make [`Value::Opaque`], which can be carried but not used.
//! Values lie in one list and refer to each other by number: a pickle may share and nest them at will, and neither
//! costs more than a small multiple of its own bytes, in memory or in time: there are at most [`MOST_VALUES`],
//! texts are not copied, names that matter are short, and lists are copied no more often than they are written.
//! Arrays lie in the pickle itself: they become tensors whose storage is named by where its bytes are
//! ([`inline_start`]).

use super::foreign::{self};
use super::numpy;
pub(super) use super::storage::{Parsed, Storage};
use super::storage::{REPEATS, Tensor};
use super::tree::{Global, MOST_VALUES};
pub(super) use super::tree::{Id, Tree, Value, inline_start};

/// No pickle is longer: a state dict takes some hundred bytes a tensor.
pub(super) const MOST_BYTES: usize = 16 << 20;

/// No name of a storage is longer.
const LONGEST_KEY: usize = 256;

/// Runs the pickle at `at` in `bytes`; its value, and where it ends.
pub(super) fn run(tree: &mut Tree, bytes: &[u8], at: usize) -> Parsed<(Id, usize)> {
    run_within(tree, bytes, at, MOST_BYTES)
}

/// As [`run`], for a pickle of at most `most` bytes: one that holds its arrays.
pub(super) fn run_within(
    tree: &mut Tree,
    bytes: &[u8],
    at: usize,
    most: usize,
) -> Parsed<(Id, usize)> {
    let input = bytes.get(..bytes.len().min(most)).unwrap_or_default();
    let (stack, marks, memo) = Default::default();
    let (end, copies_left) = (bytes.len(), input.len());
    let mut machine = Machine { tree, input, end, most, at, stack, marks, memo, copies_left };
    let value = machine.run().map_err(|e| match e.contains(REPEATS) {
        true => e,
        false => format!("its pickle is damaged at byte {}: {e}", machine.at),
    })?;
    Ok((value, machine.at))
}

struct Machine<'a> {
    tree: &'a mut Tree,
    input: &'a [u8],
    /// Where bytes beside the pickle start.
    end: usize,
    most: usize,
    at: usize,
    stack: Vec<Id>,
    /// Where on the stack marks are.
    marks: Vec<usize>,
    memo: std::collections::HashMap<u32, Id>,
    /// Entries of lists that calls may still copy: as many as there can be in the pickle.
    copies_left: usize,
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
                let names = [module, name].map(foreign::beginning);
                self.global(Global::of(module, name), names)
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                match (self.tree.get(module), self.tree.get(name)) {
                    (Value::Text(m), Value::Text(n)) => {
                        let global = Global::of(m.as_bytes(), n.as_bytes());
                        let names = [m, n].map(|text| foreign::beginning(text.as_bytes()));
                        self.global(global, names)
                    }
                    _ => Err("a global has no name".into()),
                }
            }
            b'R' | 0x81 => self.call(),
            0x92 => {
                self.pop()?;
                self.call()
            }
            b'b' => self.state(),
            b'Q' => self.storage(),
            other => Err(format!("opcode {other:#04x} is none that torch.save writes")),
        }
    }

    fn global(&mut self, global: Global, names: [String; 2]) -> Parsed<()> {
        if global == Global::Other {
            self.tree.foreign.add(names);
        }
        self.push(Value::Global(global))
    }

    fn take(&mut self, n: usize) -> Parsed<&'a [u8]> {
        let part = self.at.checked_add(n).and_then(|end| self.input.get(self.at..end));
        let part = part.ok_or_else(|| match self.input.len() < self.most {
            true => "it ends too early".to_owned(),
            false => format!("it is longer than {} MiB", self.most >> 20),
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

    fn line(&mut self) -> Parsed<&'a [u8]> {
        let rest = self.input.get(self.at..).unwrap_or_default();
        let end = rest.iter().position(|&b| b == b'\n').ok_or("it ends too early")?;
        self.at += end + 1;
        Ok(&rest[..end])
    }

    fn push(&mut self, value: Value) -> Parsed<()> {
        if self.tree.values.len() >= MOST_VALUES {
            return Err(format!("it makes more than {MOST_VALUES} values"));
        }
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
            if self.memo.len() > MOST_VALUES {
                return Err(format!("it remembers more than {MOST_VALUES} values"));
            }
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
            _ => self.push(Value::Bytes(self.at - length, length)),
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
        let &Value::Global(name) = self.tree.get(function) else { return self.push(Value::Opaque) };
        match (name, self.tree.items(arguments)) {
            (Global::RebuildTensor, [s, o, n, d, ..]) => {
                let tensor = self.tensor([*s, *o, *n, *d])?;
                self.push(tensor)
            }
            // Types without a class of storages: untyped bytes, and the type behind them.
            (Global::RebuildTyped, all @ [_, _, _, _, ..]) => {
                let named = |id: &Id| match self.tree.get(*id) {
                    Value::Global(Global::Unread(name)) => Some(Value::Unread(name.name().into())),
                    _ => None,
                };
                let found = all.iter().rev().take(8).find_map(named);
                self.push(found.unwrap_or_else(|| Value::Unread("unknown".into())))
            }
            (Global::First, &[first, ..]) => {
                self.stack.push(first);
                Ok(())
            }
            (Global::FromType, &[inner, _, arguments, ..]) => match self.tree.get(inner) {
                // Of itself no tensor is made, and such calls could be nested without end.
                Value::Global(Global::FromType) => self.push(Value::Opaque),
                _ => {
                    self.stack.extend([inner, arguments]);
                    self.call()
                }
            },
            (Global::OrderedDict, []) => self.push(Value::Dict(Vec::new())),
            (Global::OrderedDict, &[list]) => {
                let entries = self.entries_of(list)?;
                self.push(Value::Dict(entries))
            }
            (Global::Numpy(called), arguments) => {
                let arguments: Vec<Id> = arguments.iter().copied().take(numpy::ARGUMENTS).collect();
                self.copy(numpy::copied(self.tree, called, &arguments))?;
                let value = numpy::call(self.tree, self.end, called, &arguments)?;
                self.push(value)
            }
            _ => self.push(Value::Opaque),
        }
    }

    /// The attributes of an object: of no object that is used here but an array and its type.
    fn state(&mut self) -> Parsed<()> {
        let (state, object) = (self.pop()?, self.top()?);
        if let Some(value) = numpy::with_state(self.tree, object, state)? {
            self.tree.set(object, value);
        }
        Ok(())
    }

    /// The pairs in a list, copied.
    fn entries_of(&mut self, list: Id) -> Parsed<Vec<(Id, Id)>> {
        self.copy(self.tree.items(list).len())?;
        let pair = |&id: &Id| match self.tree.items(id) {
            &[key, value] => Some((key, value)),
            _ => None,
        };
        Ok(self.tree.items(list).iter().filter_map(pair).collect())
    }

    /// Counts what a call copies.
    fn copy(&mut self, entries: usize) -> Parsed<()> {
        let left = self.copies_left.checked_sub(entries);
        self.copies_left = left.ok_or("it copies its values again and again")?;
        Ok(())
    }

    fn tensor(&self, [storage, offset, sizes, strides]: [Id; 4]) -> Parsed<Value> {
        let storage = match self.tree.get(storage) {
            Value::Storage(storage) => storage,
            Value::Unread(element) => return Ok(Value::Unread(element.clone())),
            _ => return Ok(Value::Opaque),
        };
        let (shape, strides) = (self.tree.sizes(sizes)?, self.tree.sizes(strides)?);
        let offset = self.tree.size(offset)?;
        let tensor = Tensor::new((**storage).clone(), offset, shape, strides)?;
        Ok(Value::Tensor(Box::new(tensor)))
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
            (&Value::Global(Global::Unread(name)), Value::Text(_)) if !is_view => {
                self.push(Value::Unread(name.name().into()))
            }
            (&Value::Global(Global::Storage(element)), Value::Text(key)) if !is_view => {
                if key.len() > LONGEST_KEY {
                    return Err(format!("a storage has a name of {} bytes", key.len()));
                }
                let (key, len) = (key.as_str().into(), self.tree.size(len)?);
                self.push(Value::Storage(Box::new(Storage { key, element, len })))
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
