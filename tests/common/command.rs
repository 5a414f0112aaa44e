//! The binary as tests call it: a folder of its own, `srk` in it, and what that said.
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use image::{ImageBuffer, Rgb, Rgba};
use serde_json::Value;
use tempfile::TempDir;

/// What a call of the binary came to.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) code: i32,
    /// Standard output as text, with U+FFFD for what is none.
    pub(crate) out: String,
    /// The same as it came.
    pub(crate) bytes: Vec<u8>,
    /// Standard error.
    pub(crate) err: String,
}

impl Run {
    /// Of a process that ended by itself and did not panic.
    #[track_caller]
    pub(crate) fn of(output: Output) -> Self {
        let code = output.status.code().expect("srk was not killed by a signal");
        let out = String::from_utf8_lossy(&output.stdout).into_owned();
        let err = String::from_utf8(output.stderr).unwrap();
        assert!(!err.contains("panicked"), "{err}");
        Self { code, out, bytes: output.stdout, err }
    }

    #[track_caller]
    pub(crate) fn worked(self) -> Self {
        assert_eq!(self.code, 0, "{}", self.err);
        self
    }

    /// An exit code, and errors that say all of `words`.
    #[track_caller]
    pub(crate) fn failed(self, code: i32, words: &[&str]) -> Self {
        assert_eq!(self.code, code, "{}", self.err);
        words.iter().fold(self, |run, word| run.says(word))
    }

    /// The same in one error.
    #[track_caller]
    pub(crate) fn failed_once(self, code: i32, words: &[&str]) -> Self {
        let run = self.failed(code, words);
        assert_eq!(run.err.matches("error:").count(), 1, "{}", run.err);
        run
    }

    #[track_caller]
    pub(crate) fn says(self, word: &str) -> Self {
        assert!(self.err.contains(word), "\"{word}\" is not in: {}", self.err);
        self
    }

    /// On either output.
    #[track_caller]
    pub(crate) fn says_all(self, words: &[&str]) -> Self {
        let all = format!("{}{}", self.out, self.err);
        for word in words {
            assert!(all.contains(word), "\"{word}\" is not in: {all}");
        }
        self
    }

    /// The last line of `--json` of this event.
    #[track_caller]
    pub(crate) fn event(&self, name: &str) -> Value {
        let found = self.events().into_iter().rev().find(|event| event["event"] == name);
        found.unwrap_or_else(|| panic!("no event {name} in {}", self.out))
    }

    /// The lines of `--json`.
    #[track_caller]
    pub(crate) fn events(&self) -> Vec<Value> {
        self.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// `srk` with `arguments`, in `folder`.
pub(crate) fn command(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_srk"));
    command.args(arguments).current_dir(folder);
    // No settings of whoever runs the tests.
    command.env("XDG_CONFIG_HOME", folder.join("settings"));
    for name in [
        "SRK_MODEL",
        "SRK_DEVICE",
        "SRK_RAM",
        "SRK_THREADS",
        "SRK_CONFIG",
        "HF_HOME",
        "HF_HUB_CACHE",
    ] {
        command.env_remove(name);
    }
    command
}

/// The same to its end.
#[track_caller]
pub(crate) fn srk(folder: &Path, arguments: &[&str]) -> Run {
    Run::of(command(folder, arguments).output().unwrap())
}

/// Waits for what a child does while it runs.
#[track_caller]
pub(crate) fn wait_until(child: &mut Child, ready: impl Fn() -> bool) {
    let started = Instant::now();
    while !ready() {
        assert!(child.try_wait().unwrap().is_none(), "the run ended too early");
        assert!(started.elapsed() < Duration::from_secs(60), "the run hangs");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Settings of a network that trains in no time.
pub(crate) const SMALL: [&str; 8] = [
    "model.channels=8",
    "model.blocks=1",
    "model.frequency_channels=8",
    "model.wavelet_channels=4",
    "data.train.crop=32",
    "data.train.batch=2",
    "val.every=0",
    "data.val.paths=[]",
];

/// Width and height of a picture.
pub(crate) fn size(path: &Path) -> (u32, u32) {
    image::image_dimensions(path).unwrap()
}

/// A folder of its own for each test, and the binary run in it.
pub(crate) struct Bench(TempDir);

impl Bench {
    pub(crate) fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    pub(crate) fn folder(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.path(name).exists()
    }

    pub(crate) fn put(&self, name: &str, text: &str) {
        fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        fs::write(self.path(name), text).unwrap();
    }

    /// A picture with edges and gradients.
    pub(crate) fn photo(&self, name: &str, width: u32, height: u32) -> PathBuf {
        self.another(name, width, height, 0)
    }

    /// The same, whose edges are where `salt` says.
    pub(crate) fn another(&self, name: &str, width: u32, height: u32, salt: u32) -> PathBuf {
        let level = |v: u32, of: u32| u8::try_from(v * 255 / of).unwrap();
        let pixel = |x: u32, y: u32| {
            let v = if (x / 5 + y / 7 + salt).is_multiple_of(2) { 60 } else { 200 };
            Rgb([v, level(x, width), level(y, height)])
        };
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        ImageBuffer::from_fn(width, height, pixel).save(&path).unwrap();
        path
    }

    /// A red square whose left half is transparent.
    pub(crate) fn sprite(&self, name: &str, side: u32) -> PathBuf {
        let pixel = |x: u32, _: u32| Rgba([200u8, 40, 30, if x < side / 2 { 0 } else { 255 }]);
        let path = self.path(name);
        ImageBuffer::from_fn(side, side, pixel).save(&path).unwrap();
        path
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        command(self.folder(), arguments)
    }

    #[track_caller]
    pub(crate) fn srk(&self, arguments: &[&str]) -> Run {
        srk(self.folder(), arguments)
    }

    /// `srk upscale` in one step.
    #[track_caller]
    pub(crate) fn upscale(&self, arguments: &[&str]) -> Run {
        self.with(&[], arguments)
    }

    /// The same with variables of the environment.
    #[track_caller]
    pub(crate) fn with(&self, variables: &[(&str, &str)], arguments: &[&str]) -> Run {
        let mut command = self.command(&[&["upscale", "--steps", "1"], arguments].concat());
        Run::of(command.envs(variables.iter().copied()).output().unwrap())
    }

    /// `srk` with `input` at its standard input.
    #[track_caller]
    pub(crate) fn fed(&self, arguments: &[&str], input: &[u8]) -> Run {
        self.fed_to(self.command(arguments), input)
    }

    /// `command` with `input` at its standard input.
    #[track_caller]
    pub(crate) fn fed_to(&self, mut command: Command, input: &[u8]) -> Run {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // It may end without reading.
        let _ = child.stdin.take().unwrap().write_all(input);
        Run::of(child.wait_with_output().unwrap())
    }

    /// What is in a folder, sorted.
    pub(crate) fn names(&self, folder: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path(folder)).unwrap();
        let mut names: Vec<String> =
            entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// Every file in the folder and below, hidden ones too, and with a slash every folder that is empty; sorted.
    pub(crate) fn files(&self) -> Vec<String> {
        let (mut found, mut folders) = (Vec::new(), vec![self.0.path().to_owned()]);
        let below = |p: &Path| p.strip_prefix(self.0.path()).unwrap().display().to_string();
        while let Some(folder) = folders.pop() {
            let entries: Vec<_> = fs::read_dir(&folder).unwrap().map(Result::unwrap).collect();
            if entries.is_empty() {
                found.push(format!("{}/", below(&folder)));
            }
            for entry in entries {
                match entry.file_type().unwrap().is_dir() {
                    true => folders.push(entry.path()),
                    false => found.push(below(&entry.path())),
                }
            }
        }
        found.sort();
        found
    }
}
