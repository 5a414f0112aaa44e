//! Arrays of numpy in a pickle: the few calls that put one together, as data.
//!
//! ```text
//! dtype("f4", ..) with state (3, "<", ..)                    the type of an element
//! _reconstruct(ndarray, ..) with state (1, shape, dtype, is_fortran, bytes)
//! _frombuffer(bytes, dtype, shape, order)                    the same, from protocol 5 on
//! _codecs.encode(text, "latin1")                             bytes, before protocol 3
//! ```
use super::storage::{Element, Parsed, Storage, Tensor};
use super::tree::{Call, Id, Tree, Value};

/// No call looks at more arguments; [`Call::FromBuffer`] has exactly these.
pub(super) const ARGUMENTS: usize = 5;

/// Bytes that a call copies.
pub(super) fn copied(tree: &Tree, called: Call, arguments: &[Id]) -> usize {
    match (called, arguments.first().map(|&id| tree.get(id))) {
        (Call::Encode, Some(Value::Text(text))) => text.len(),
        _ => 0,
    }
}

/// What a call makes; bytes beside the pickle start at `end`.
pub(super) fn call(tree: &mut Tree, end: usize, called: Call, arguments: &[Id]) -> Parsed<Value> {
    Ok(match (called, arguments) {
        (Call::Reconstruct, _) => Value::Array,
        (Call::Dtype, &[code, ..]) => match tree.get(code) {
            Value::Text(code) => Value::Dtype(element(code)),
            _ => Value::Opaque,
        },
        (Call::FromBuffer, &[bytes, dtype, shape, order]) => {
            let fortran = matches!(tree.get(order), Value::Text(order) if order == "F");
            array(tree, [shape, dtype, bytes], fortran)?
        }
        (Call::Encode, &[text, ..]) => match tree.get(text) {
            Value::Text(text) => {
                let bytes: Option<Vec<u8>> = text.chars().map(|c| u8::try_from(c).ok()).collect();
                let bytes = bytes.ok_or("its bytes are no Latin-1 text")?;
                let start = end + tree.beside.len();
                let len = bytes.len();
                tree.beside.extend(bytes);
                Value::Bytes(start, len)
            }
            _ => Value::Opaque,
        },
        _ => Value::Opaque,
    })
}

/// What an array or its type becomes by its state; none for other objects.
pub(super) fn with_state(tree: &Tree, object: Id, state: Id) -> Parsed<Option<Value>> {
    match (tree.get(object), tree.items(state)) {
        (Value::Dtype(_), &[_, order, ..]) => {
            let big = matches!(tree.get(order), Value::Text(order) if order == ">");
            Ok(big.then_some(Value::Dtype(None)))
        }
        (Value::Array, &[_, shape, dtype, fortran, bytes]) => {
            let fortran = matches!(tree.get(fortran), Value::Bool(true));
            array(tree, [shape, dtype, bytes], fortran).map(Some)
        }
        _ => Ok(None),
    }
}

fn array(tree: &Tree, [shape, dtype, bytes]: [Id; 3], fortran: bool) -> Parsed<Value> {
    let (&Value::Dtype(Some(element)), &Value::Bytes(start, len)) =
        (tree.get(dtype), tree.get(bytes))
    else {
        return Ok(Value::Opaque);
    };
    let storage = Storage { key: format!("@{start}").into(), element, len: len / element.width() };
    let shape = tree.sizes(shape)?;
    if fortran { Tensor::fortran(storage, shape) } else { Tensor::whole(storage, shape) }
        .map(|tensor| Value::Tensor(Box::new(tensor)))
}

fn element(code: &str) -> Option<Element> {
    Some(match code.trim_start_matches(['<', '=', '|']) {
        "f8" => Element::F64,
        "f4" => Element::F32,
        "f2" => Element::F16,
        "i8" => Element::I64,
        "i4" => Element::I32,
        "i2" => Element::I16,
        "i1" => Element::I8,
        "u1" => Element::U8,
        "b1" => Element::Bool,
        _ => return None,
    })
}
