//! Pictures packed into tar files, as they are: one large file in place of many small ones.
//!
//! Only the heads are read at first: where each picture begins, and how long it is. Names that begin with a point, and
//! entries that are no pictures by their names, such as texts beside them, are passed over.
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use crate::engine::files;
use crate::engine::interrupt;
use crate::error::{Error, Report, Result};
use crate::imaging::decode::MAX_BYTES;
use crate::imaging::folder as names;

/// A tar file of pictures.
#[derive(Debug)]
pub struct Shard {
    path: PathBuf,
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    name: PathBuf,
    start: u64,
    len: u64,
}

/// Whether `path` is a tar file, by its name.
pub fn is_tar(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("tar")) && path.is_file()
}

pub(super) fn refuse(path: &Path, cause: &impl std::fmt::Display) -> Error {
    let report = Report::new(format!("cannot read {}", path.display()), cause);
    Error::Failed(report.code("unreadable").help("srk data pack SRC OUT.tar    writes such files"))
}

impl Shard {
    /// Reads the heads of a tar file.
    ///
    /// # Errors
    /// [`Error::Failed`] if it cannot be read, ends early, or holds no pictures.
    pub fn open(path: &Path) -> Result<Self> {
        let wrong = |e: io::Error| refuse(path, &e);
        let file = files::open_file(path).map_err(wrong)?;
        let size = file.metadata().map_err(wrong)?.len();
        let mut archive = tar::Archive::new(BufReader::new(file));
        let mut entries = Vec::new();
        for entry in archive.entries_with_seek().map_err(wrong)? {
            interrupt::check()?;
            let entry = entry.map_err(wrong)?;
            let name = entry.path().map_err(wrong)?.into_owned();
            let (start, len) = (entry.raw_file_position(), entry.size());
            let hidden = name.file_name().is_none_or(|n| n.as_encoded_bytes().starts_with(b"."));
            if hidden || !entry.header().entry_type().is_file() || !names::is_image_name(&name) {
                continue;
            }
            if start.checked_add(len).is_none_or(|end| end > size) || len > MAX_BYTES {
                let cause = format!("{} claims {len} bytes, the file has {size}", name.display());
                return Err(refuse(path, &cause));
            }
            entries.push(Entry { name, start, len });
        }
        match entries.is_empty() {
            true => Err(refuse(path, &"it holds no pictures")),
            false => Ok(Self { path: path.to_owned(), entries }),
        }
    }

    /// How many pictures there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none; one that is open has some.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What messages call picture `index`: as if the file were a folder.
    pub fn name(&self, index: usize) -> PathBuf {
        self.path.join(&self.entries[index].name)
    }

    /// The bytes of picture `index`.
    ///
    /// # Errors
    /// If the file cannot be read, or has changed meanwhile.
    pub fn bytes(&self, index: usize) -> Result<Vec<u8>> {
        let Entry { start, len, .. } = self.entries[index];
        let read = || -> io::Result<Vec<u8>> {
            let mut file = File::open(&self.path)?;
            file.seek(SeekFrom::Start(start))?;
            let mut bytes = Vec::new();
            file.take(len).read_to_end(&mut bytes)?;
            match bytes.len() as u64 == len {
                true => Ok(bytes),
                false => Err(io::ErrorKind::UnexpectedEof.into()),
            }
        };
        read().map_err(|e| refuse(&self.name(index), &e))
    }
}
