//! Checkpoints as `torch.save` writes them: a pickle and storages in a zip container.
#![allow(clippy::cast_possible_truncation)]
use std::fmt::Write;

use srk::error::Result;
use srk::import::{Imported, Request, import};

/// Shape and values by name, in order.
pub(crate) type Tensors<'a> = &'a [(String, Vec<usize>, Vec<f32>)];

/// The pickle of a dict under `containers`, the outermost first.
pub(crate) fn pickle(tensors: Tensors<'_>, containers: &[&str]) -> Vec<u8> {
    let mut out = vec![0x80, 2];
    for name in containers {
        out.push(b'}');
        text(&mut out, name);
    }
    out.extend(b"ccollections\nOrderedDict\n)R(");
    for (i, (name, shape, values)) in tensors.iter().enumerate() {
        text(&mut out, name);
        tensor(&mut out, i, shape, values.len());
    }
    out.push(b'u');
    out.extend(containers.iter().map(|_| b's'));
    out.push(b'.');
    out
}

pub(crate) fn text(out: &mut Vec<u8>, text: &str) {
    out.push(b'X');
    out.extend((text.len() as u32).to_le_bytes());
    out.extend(text.as_bytes());
}

pub(crate) fn numbers(out: &mut Vec<u8>, values: &[usize]) {
    out.push(b'(');
    for &v in values {
        out.push(b'J');
        out.extend((v as i32).to_le_bytes());
    }
    out.push(b't');
}

fn tensor(out: &mut Vec<u8>, key: usize, shape: &[usize], len: usize) {
    let mut strides = vec![1; shape.len()];
    for i in (1..shape.len()).rev() {
        strides[i - 1] = strides[i] * shape[i];
    }
    view(out, key, len, 0, shape, &strides);
}

/// A call that makes a view of storage `key`.
pub(crate) fn view(
    out: &mut Vec<u8>,
    key: usize,
    len: usize,
    offset: usize,
    shape: &[usize],
    strides: &[usize],
) {
    out.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((");
    text(out, "storage");
    out.extend(b"ctorch\nFloatStorage\n");
    text(out, &key.to_string());
    text(out, "cpu");
    out.push(b'J');
    out.extend((len as i32).to_le_bytes());
    out.extend(b"tQJ");
    out.extend((offset as i32).to_le_bytes());
    numbers(out, shape);
    numbers(out, strides);
    out.extend(b"\x89ccollections\nOrderedDict\n)RtR");
}

/// A zip container of stored files, at 64 bytes each as torch aligns them.
pub(crate) fn zip(files: &[(String, Vec<u8>)], method: u16) -> Vec<u8> {
    let (mut out, mut directory) = (Vec::new(), Vec::new());
    for (name, bytes) in files {
        let at = out.len() as u32;
        let pad = (64 - (out.len() + 34 + name.len()) % 64) % 64;
        let fields = |out: &mut Vec<u8>| {
            [20u16, 0, method, 0, 0].iter().for_each(|v| out.extend(v.to_le_bytes()));
            let len = bytes.len() as u32;
            [0u32, len, len].iter().for_each(|v| out.extend(v.to_le_bytes()));
            out.extend((name.len() as u16).to_le_bytes());
        };
        out.extend(b"PK\x03\x04");
        fields(&mut out);
        out.extend((pad as u16 + 4).to_le_bytes());
        out.extend(name.as_bytes());
        out.extend(b"FB");
        out.extend((pad as u16).to_le_bytes());
        out.resize(out.len() + pad, b'Z');
        out.extend(bytes);
        directory.extend(b"PK\x01\x02\0\0");
        fields(&mut directory);
        directory.extend([0; 12]);
        directory.extend(at.to_le_bytes());
        directory.extend(name.as_bytes());
    }
    let (start, len, count) = (out.len() as u32, directory.len() as u32, files.len() as u16);
    out.extend(directory);
    out.extend(b"PK\x05\x06\0\0\0\0");
    [count, count].iter().for_each(|v| out.extend(v.to_le_bytes()));
    [len, start].iter().for_each(|v| out.extend(v.to_le_bytes()));
    out.extend([0, 0]);
    out
}

/// A whole checkpoint.
pub(crate) fn checkpoint(tensors: Tensors<'_>, containers: &[&str]) -> Vec<u8> {
    let mut files = vec![("c/data.pkl".to_owned(), pickle(tensors, containers))];
    files.push(("c/byteorder".to_owned(), b"little".to_vec()));
    for (i, (_, _, values)) in tensors.iter().enumerate() {
        let mut name = String::from("c/data/");
        write!(name, "{i}").unwrap();
        files.push((name, values.iter().flat_map(|v| v.to_le_bytes()).collect()));
    }
    zip(&files, 0)
}

/// What the import makes of a checkpoint `model.pth`.
pub(crate) fn imported(bytes: &[u8], request: &Request) -> Result<Imported> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.pth");
    std::fs::write(&path, bytes).unwrap();
    import(&path, request)
}
