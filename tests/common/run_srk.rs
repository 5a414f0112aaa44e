//! The binary in a folder of its own, and what it said.
#![allow(dead_code, unreachable_pub)] // Not every file of tests uses all of it.
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use image::{ImageBuffer, Rgb, Rgba};
use serde_json::Value;
use tempfile::TempDir;

pub struct Place(TempDir);

pub struct Ended {
    pub code: i32,
    pub out: Vec<u8>,
    pub err: String,
}

impl Ended {
    #[track_caller]
    pub fn worked(self) -> Self {
        assert_eq!(self.code, 0, "{}", self.err);
        self
    }

    /// It ended with `code`, and said all of `words` on standard error.
    #[track_caller]
    pub fn failed(self, code: i32, words: &[&str]) -> Self {
        assert_eq!(self.code, code, "{}", self.err);
        assert!(!self.err.contains("panicked"), "{}", self.err);
        for word in words {
            assert!(self.err.contains(word), "\"{word}\" is not in: {}", self.err);
        }
        self
    }

    #[track_caller]
    pub fn says(self, words: &[&str]) -> Self {
        let all = self.text() + &self.err;
        for word in words {
            assert!(all.contains(word), "\"{word}\" is not in: {all}");
        }
        self
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.out).into_owned()
    }

    pub fn events(&self) -> Vec<Value> {
        self.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The last event of this name.
    #[track_caller]
    pub fn event(&self, name: &str) -> Value {
        let found = self.events().into_iter().rev().find(|event| event["event"] == name);
        found.unwrap_or_else(|| panic!("no event {name} in {}", self.text()))
    }
}

impl Place {
    pub fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }

    /// A picture with edges and a gradient; different for each `salt`.
    pub fn photo(&self, name: &str, width: u32, height: u32, salt: u32) -> PathBuf {
        let pixel = |x: u32, y: u32| {
            let v = if (x / 5 + y / 7 + salt).is_multiple_of(2) { 60 } else { 200 };
            let ramp = |v: u32, side: u32| u8::try_from(v * 255 / side).unwrap();
            Rgb([v, ramp(x, width), ramp(y, height)])
        };
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        ImageBuffer::from_fn(width, height, pixel).save(&path).unwrap();
        path
    }

    /// A red square whose left half is transparent.
    pub fn sprite(&self, name: &str, side: u32) -> PathBuf {
        let pixel = |x: u32, _: u32| Rgba([200u8, 40, 30, if x < side / 2 { 0 } else { 255 }]);
        let path = self.path(name);
        ImageBuffer::from_fn(side, side, pixel).save(&path).unwrap();
        path
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_srk"));
        command.args(arguments).current_dir(self.0.path());
        for name in ["SRK_MODEL", "SRK_DEVICE", "SRK_RAM", "SRK_CONFIG", "HF_HOME", "HF_HUB_CACHE"]
        {
            command.env_remove(name);
        }
        // No settings of whoever runs the tests.
        command.env("XDG_CONFIG_HOME", self.path("settings"));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub fn srk(&self, arguments: &[&str]) -> Ended {
        self.end(self.command(arguments), b"")
    }

    pub fn end(&self, mut command: Command, input: &[u8]) -> Ended {
        let mut child = command.spawn().unwrap();
        // It may end without reading.
        let _ = child.stdin.take().unwrap().write_all(input);
        let output = child.wait_with_output().unwrap();
        Ended {
            code: output.status.code().unwrap_or(-1),
            out: output.stdout,
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    pub fn names(&self, folder: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path(folder)).unwrap();
        let mut names: Vec<String> =
            entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

/// Width and height of a picture.
pub fn size(path: &Path) -> (u32, u32) {
    image::image_dimensions(path).unwrap()
}

/// Settings of a network that trains in no time.
pub const SMALL: [&str; 8] = [
    "model.channels=8",
    "model.blocks=1",
    "model.frequency_channels=8",
    "model.wavelet_channels=4",
    "data.train.crop=32",
    "data.train.batch=2",
    "val.every=0",
    "data.val.paths=[]",
];
