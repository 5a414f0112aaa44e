//! Reading files whole: with a limit, and so that a pipe without a writer does not hold up an interrupt.
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;
use std::sync::OnceLock;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use crate::engine::files::is_standard;
use crate::engine::interrupt;
use crate::error::{Error, Result};

/// Bytes that tell whether this can be an image.
const HEAD: usize = 64;

/// How often is looked whether a signal came.
const LOOK: Duration = Duration::from_millis(50);

/// Why there are no bytes.
pub(super) enum Failure {
    Io(io::Error),
    /// There are more bytes than allowed.
    TooLong,
    Other(Error),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// The bytes of `path`, at most `most`. Of what is no regular file, `known` is asked about the first bytes
/// before the others are read: a device may have no end.
pub(super) fn read(
    path: &Path,
    most: u64,
    known: &dyn Fn(&[u8]) -> Result<()>,
) -> std::result::Result<Vec<u8>, Failure> {
    if is_standard(path) {
        return stream(path, most, known);
    }
    let file = fs::metadata(path)?;
    if file.is_dir() {
        return Err(io::Error::from(io::ErrorKind::IsADirectory).into());
    }
    if file.is_file() {
        let mut bytes = Vec::new();
        if file.len() > most {
            return Err(Failure::TooLong);
        }
        // It may grow meanwhile.
        File::open(path)?.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
        return if bytes.len() as u64 > most { Err(Failure::TooLong) } else { Ok(bytes) };
    }
    stream(path, most, known)
}

/// The beginning of standard input, which can be read but once.
static SEEN: OnceLock<Vec<u8>> = OnceLock::new();

/// The first bytes of standard input, once it was read.
pub(super) fn seen() -> Option<&'static [u8]> {
    SEEN.get().map(Vec::as_slice)
}

fn remember(path: &Path, bytes: &[u8]) {
    if is_standard(path) {
        let _ = SEEN.set(bytes[..bytes.len().min(HEAD)].to_vec());
    }
}

/// Reads in a thread, which may stay behind waiting for a writer when a signal ends the work.
fn stream(
    path: &Path,
    most: u64,
    known: &dyn Fn(&[u8]) -> Result<()>,
) -> std::result::Result<Vec<u8>, Failure> {
    let (send, pieces) = channel::<io::Result<Vec<u8>>>();
    let (ask, asked) = channel::<()>();
    let from = path.to_owned();
    std::thread::spawn(move || {
        let mut file: io::Result<Box<dyn Read>> = match is_standard(&from) {
            true => Ok(Box::new(io::stdin())),
            false => File::open(from).map(|file| Box::new(file) as Box<dyn Read>),
        };
        // A piece when it is asked for: what is endless must not pile up.
        while asked.recv().is_ok() {
            let mut piece = vec![0; 1 << 16];
            let read = match &mut file {
                Ok(file) => file.read(&mut piece),
                Err(error) => Err(io::Error::from(error.kind())),
            };
            let last = !matches!(read, Ok(1..));
            let piece = read.map(|len| {
                piece.truncate(len);
                piece
            });
            if send.send(piece).is_err() || last {
                return;
            }
        }
    });
    let mut bytes = Vec::new();
    let mut checked = false;
    loop {
        let _ = ask.send(());
        let piece = loop {
            match pieces.recv_timeout(LOOK) {
                Ok(piece) => break piece?,
                Err(RecvTimeoutError::Timeout) => interrupt::check().map_err(Failure::Other)?,
                Err(RecvTimeoutError::Disconnected) => break Vec::new(),
            }
        };
        if piece.is_empty() {
            remember(path, &bytes);
            return Ok(bytes);
        }
        bytes.extend(piece);
        if !checked && bytes.len() >= HEAD {
            known(&bytes).map_err(Failure::Other)?;
            checked = true;
        }
        if bytes.len() as u64 > most {
            return Err(Failure::TooLong);
        }
        interrupt::check().map_err(Failure::Other)?;
    }
}
