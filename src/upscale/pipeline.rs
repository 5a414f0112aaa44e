//! Decoding ahead of the network and encoding behind it, each in a thread of its own.
//!
//! ```text
//! files -> decode (a picture ahead, if it is small) -> network -> encode -> files, by renaming
//! ```
//! All queues are bounded. Results come in the order of the jobs, whoever is done first.
use std::borrow::Cow;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, SyncSender, TryRecvError, channel, sync_channel};
use std::thread::JoinHandle;

use super::budget::Budget;
use crate::engine::files::is_standard;
use crate::error::{Error, Report, Result};
use crate::imaging::encode::{self, EncodeOptions, Format, Outline};
use crate::imaging::header::{Header, header};
use crate::imaging::{self, Image};

/// Decodes files in their order, small ones ahead of their use.
pub struct Reader {
    pictures: Receiver<(PathBuf, Picture)>,
}

enum Picture {
    Decoded(Box<Result<Image>>),
    /// Too large to be held beside another; with the bytes of what can be read but once.
    Large(Option<Vec<u8>>),
}

/// Is told the bytes of a file and what its head announces, and refuses what would not fit.
pub type Admit<'a> = dyn Fn(u64, &Header) -> Result<()> + 'a;

impl Reader {
    /// Starts on `files`.
    pub fn start(files: Vec<PathBuf>) -> Self {
        let (send, pictures) = sync_channel(1);
        // Not joined: it may wait for a pipe that nobody writes into.
        std::thread::spawn(move || {
            for file in files {
                // The other end is gone when the work was interrupted.
                let picture = ahead(&file);
                if send.send((file, picture)).is_err() {
                    return;
                }
            }
        });
        Self { pictures }
    }

    /// The picture of `file`, one of the files and behind those that were asked for.
    ///
    /// # Errors
    /// If it cannot be read, and what `admit` says of one that is not small.
    pub fn next(&self, file: &Path, admit: &Admit<'_>) -> Result<Image> {
        // A file that was given up before it was asked for is passed over.
        let found = self.pictures.iter().find(|(path, _)| path == file);
        match found.map(|(_, picture)| picture) {
            Some(Picture::Decoded(image)) => *image,
            // Nothing else is held now.
            Some(Picture::Large(kept)) => {
                let bytes = match kept {
                    Some(bytes) => bytes,
                    None => imaging::decode::read_bytes(file)?,
                };
                if let Some(header) = header(&bytes) {
                    admit(bytes.len() as u64, &header)?;
                }
                imaging::decode(&bytes, &file.display().to_string())
            }
            None => Err(gone("read", file)),
        }
    }
}

fn ahead(file: &Path) -> Picture {
    let decoded = || {
        let bytes = imaging::decode::read_bytes(file)?;
        if header(&bytes).is_some_and(|header| !Budget::is_small(&header)) {
            // A pipe is empty when it is read again.
            let again =
                !is_standard(file) && std::fs::metadata(file).is_ok_and(|file| file.is_file());
            return Ok(Picture::Large((!again).then_some(bytes)));
        }
        imaging::decode(&bytes, &file.display().to_string())
            .map(|image| Picture::Decoded(Box::new(Ok(image))))
    };
    decoded().unwrap_or_else(|error| Picture::Decoded(Box::new(Err(error))))
}

fn gone(what: &str, file: &Path) -> Error {
    let report = Report::new(format!("cannot {what} {}", file.display()), "its thread stopped");
    Error::Failed(report)
}

/// Writes files in a thread of its own, one after the other.
pub struct Writer {
    tasks: Option<SyncSender<Task>>,
    thread: Option<JoinHandle<()>>,
}

struct Task {
    path: PathBuf,
    outline: Outline,
    format: Format,
    options: EncodeOptions,
    strips: Receiver<Image>,
    done: Sender<Result<()>>,
}

impl Writer {
    /// Starts the thread.
    pub fn start() -> Self {
        let (tasks, work) = sync_channel::<Task>(1);
        let thread = std::thread::spawn(move || work.into_iter().for_each(write));
        Self { tasks: Some(tasks), thread: Some(thread) }
    }

    /// Begins a file of this `outline`.
    ///
    /// # Errors
    /// If the thread is gone.
    pub fn begin(
        &self,
        path: &Path,
        outline: Outline,
        format: Format,
        options: EncodeOptions,
    ) -> Result<Writing> {
        let (send, strips) = sync_channel(Budget::waiting(&outline));
        let (done, written) = channel();
        let task = Task { path: path.to_owned(), outline, format, options, strips, done };
        let sent = self.tasks.as_ref().is_some_and(|tasks| tasks.send(task).is_ok());
        match sent {
            true => Ok(Writing { strips: send, written, path: path.to_owned() }),
            false => Err(gone("write", path)),
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // The closed queue ends the thread, after the file it is at.
        drop(self.tasks.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn write(task: Task) {
    let mut strips = || {
        let strip = task.strips.recv();
        strip.map(Cow::Owned).map_err(|_| io::Error::other("the picture was not finished"))
    };
    let Task { path, outline, format, options, .. } = &task;
    let written = encode::write_strips(path, outline, *format, *options, &mut strips);
    // Who is not interested any more has been interrupted.
    let _ = task.done.send(written);
}

/// A file on its way.
pub struct Writing {
    strips: SyncSender<Image>,
    written: Receiver<Result<()>>,
    path: PathBuf,
}

impl Writing {
    /// Hands on the next strip; waits while many are on their way.
    ///
    /// # Errors
    /// That of the file, if it cannot be written.
    pub fn put(&self, strip: Image) -> Result<()> {
        self.strips.send(strip).map_err(|_| match self.written.recv() {
            Ok(Err(error)) => error,
            _ => gone("write", &self.path),
        })
    }

    /// Says that all strips were handed on.
    pub fn end(self) -> Written {
        Written { written: self.written, path: self.path }
    }

    /// Gives the file up and waits until nothing of it is left.
    pub fn abandon(self) {
        drop(self.strips);
        let _ = self.written.recv();
    }
}

/// A file that is being finished.
pub struct Written {
    written: Receiver<Result<()>>,
    path: PathBuf,
}

impl Written {
    /// Waits for the file to be in its place.
    ///
    /// # Errors
    /// If it could not be written.
    pub fn wait(self) -> Result<()> {
        self.written.recv().unwrap_or_else(|_| Err(gone("write", &self.path)))
    }

    /// What [`wait`](Self::wait) would say, if it would not wait.
    pub fn poll(&self) -> Option<Result<()>> {
        match self.written.try_recv() {
            Ok(written) => Some(written),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => Some(Err(gone("write", &self.path))),
        }
    }
}
