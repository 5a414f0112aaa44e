//! The binary as tests call it: a folder of its own, `srk` in it, and what that said.
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use image::{ImageBuffer, Rgb};
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
        let level = |v: u32, of: u32| u8::try_from(v * 255 / of).unwrap();
        let pixel = |x: u32, y: u32| {
            let v = if (x / 5 + y / 7).is_multiple_of(2) { 60 } else { 200 };
            Rgb([v, level(x, width), level(y, height)])
        };
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        ImageBuffer::from_fn(width, height, pixel).save(&path).unwrap();
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
        let mut command = self.command(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // It may end without reading.
        let _ = child.stdin.take().unwrap().write_all(input);
        Run::of(child.wait_with_output().unwrap())
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
