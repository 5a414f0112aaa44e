//! Event files of TensorBoard, written by hand: records of protocol buffers with checksums.
//!
//! ```text
//! record   length u64, masked CRC-32C of the length u32, data, masked CRC-32C of the data u32; little-endian
//! Event    1 wall_time double · 2 step int64 · 3 file_version string · 5 summary · 7 session_log
//! Summary  1 value, repeated: 1 tag string · 2 simple_value float
//! masked   ((crc >> 15) | (crc << 17)) + 0xa282ead8
//! ```
//! A run that goes on begins a file of its own with a start of a session, whose step makes TensorBoard forget what
//! an interrupted process wrote behind it.
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::error::{Error, Report, Result};

/// The file of this process.
#[derive(Debug)]
pub struct Events {
    path: PathBuf,
}

impl Events {
    /// A new file in `folder` of a run that goes on after `step`.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn create(folder: &Path, step: u64) -> Result<Self> {
        let now = now();
        // The number keeps two processes of one second apart.
        let name = format!("events.out.tfevents.{:010}.srk.{}", now.trunc(), std::process::id());
        let this = Self { path: folder.join(name) };
        let made = fs::create_dir_all(folder);
        made.map_err(|error| this.failed(&error))?;
        let version = text(3, "brain.Event:2");
        // SessionLog with the status START.
        let start = bytes(7, &varint(1, 1));
        let first = [double(1, now), version].concat();
        let second = [double(1, now), varint(2, step + 1), start].concat();
        this.append(&[record(&first), record(&second)].concat())?;
        Ok(this)
    }

    /// Appends `values` of `step`.
    ///
    /// # Errors
    /// If they cannot be written.
    pub fn write(&self, step: u64, values: &[(&str, f64)]) -> Result<()> {
        let value = |&(tag, value): &(&str, f64)| {
            #[allow(clippy::cast_possible_truncation)] // What the format has.
            let single = value as f32;
            bytes(1, &[text(1, tag), float(2, single)].concat())
        };
        let summary: Vec<u8> = values.iter().flat_map(value).collect();
        let event = [double(1, now()), varint(2, step), bytes(5, &summary)].concat();
        self.append(&record(&event))
    }

    fn append(&self, content: &[u8]) -> Result<()> {
        let file = OpenOptions::new().create(true).append(true).open(&self.path);
        file.and_then(|mut file| file.write_all(content)).map_err(|error| self.failed(&error))
    }

    fn failed(&self, error: &std::io::Error) -> Error {
        let what = format!("cannot write {}", self.path.display());
        Error::Failed(Report::new(what, error).help("log.tensorboard = false does without"))
    }
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// The bytes of a record of `data`.
fn record(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    let mut out = length.to_vec();
    out.extend(masked(&length).to_le_bytes());
    out.extend(data);
    out.extend(masked(data).to_le_bytes());
    out
}

fn masked(data: &[u8]) -> u32 {
    crc32c(data).rotate_right(15).wrapping_add(0xA282_EAD8)
}

/// CRC-32C (Castagnoli), bit by bit: records are short.
fn crc32c(data: &[u8]) -> u32 {
    let byte = |crc: u32, &byte: &u8| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| {
            (crc >> 1) ^ (0x82F6_3B78 & (crc & 1).wrapping_neg())
        })
    };
    !data.iter().fold(!0, byte)
}

/// The number in groups of seven bits.
fn varied(mut value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    loop {
        let [low, ..] = value.to_le_bytes();
        value >>= 7;
        if value == 0 {
            out.push(low & 0x7F);
            return out;
        }
        out.push(low | 0x80);
    }
}

fn varint(field: u64, value: u64) -> Vec<u8> {
    [varied(field << 3), varied(value)].concat()
}

fn double(field: u64, value: f64) -> Vec<u8> {
    [varied(field << 3 | 1), value.to_le_bytes().to_vec()].concat()
}

fn float(field: u64, value: f32) -> Vec<u8> {
    [varied(field << 3 | 5), value.to_le_bytes().to_vec()].concat()
}

fn bytes(field: u64, value: &[u8]) -> Vec<u8> {
    [varied(field << 3 | 2), varied(value.len() as u64), value.to_vec()].concat()
}

fn text(field: u64, value: &str) -> Vec<u8> {
    bytes(field, value.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_those_of_the_rfc() {
        // RFC 3720, B.4, and the usual check value.
        assert_eq!(crc32c(&[0; 32]), 0x8A91_36AA);
        assert_eq!(crc32c(&[0xFF; 32]), 0x62A8_AB43);
        assert_eq!(crc32c(b"123456789"), 0xE306_9283);
    }

    #[test]
    fn fields_are_as_protocol_buffers_have_them() {
        assert_eq!(varint(1, 150), [0x08, 0x96, 0x01]);
        assert_eq!(text(2, "testing"), b"\x12\x07testing");
        assert_eq!(float(2, 1.0), [0x15, 0, 0, 0x80, 0x3F]);
        let record = record(b"abc");
        assert_eq!(record.len(), 8 + 4 + 3 + 4);
        assert_eq!(record[..8], 3u64.to_le_bytes());
        assert_eq!(record[8..12], masked(&record[..8]).to_le_bytes());
    }
}
