//! Packing pictures into tar files, which [`packed`](super::packed) reads.
use std::io;
use std::path::{Component, Path, PathBuf};

use super::folder::{self, Source};
use super::packed::refuse;
use crate::engine::files::{self, atomic_write};
use crate::engine::outputs::{Existing, Outputs};
use crate::error::{Error, Report, Result};

/// What to pack.
#[derive(Clone, Debug)]
pub struct Request {
    /// Files and folders of pictures, and lists of such.
    pub inputs: Vec<PathBuf>,
    /// The file to write; `NAME-000.tar` and on where there is a limit.
    pub out: PathBuf,
    /// The most bytes of a file; a picture that is larger has one to itself.
    pub most: Option<u64>,
    /// Whether files that are there are replaced.
    pub overwrite: bool,
}

/// What was written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// The files.
    pub files: Vec<PathBuf>,
    /// The pictures in them.
    pub pictures: usize,
}

/// Packs the pictures, whatever is in them; `done` hears of each, with how many there are, and may stop the work.
///
/// # Errors
/// Exit code 2 if nothing is found, a file is there already, or a picture is no file of its own; 1 if one cannot be read
/// or written.
pub fn write(request: &Request, done: &(dyn Fn(usize) -> Result<()> + Sync)) -> Result<Written> {
    if request.out.extension().is_none_or(|end| end != "tar") {
        let what = format!("{} is no name of a tar file", request.out.display());
        return Err(Error::Usage(Report::new(what, "").help("end it in .tar")));
    }
    let sources = folder::find(&request.inputs)?;
    let mut pictures = Vec::new();
    for source in &sources {
        let Source::File(path) = source else {
            let what = format!("{} is packed already", source.file().display());
            return Err(Error::Usage(Report::new(what, "").help("srk train reads it as it is")));
        };
        folder::refuse_other(path)?;
        let size = std::fs::metadata(path).map_err(|e| refuse(path, &e))?.len();
        pictures.push((path.as_path(), name_in(path, &request.inputs), size));
    }
    let groups = groups(&pictures, request.most);
    let existing = if request.overwrite { Existing::Overwrite } else { Existing::Refuse };
    let mut outputs = Outputs::new(existing, "--overwrite replaces it; another name keeps it");
    pictures.iter().for_each(|(path, ..)| outputs.reads(path));
    let named = |i: usize| match request.most {
        None => request.out.clone(),
        Some(_) => {
            let stem = request.out.file_stem().unwrap_or_default().to_string_lossy();
            request.out.with_file_name(format!("{stem}-{i:03}.tar"))
        }
    };
    let files: Vec<PathBuf> = (0..groups.len()).map(named).collect();
    for file in &files {
        outputs.claim(file, file)?;
    }
    for (file, group) in files.iter().zip(groups) {
        let mut stopped = None;
        let written = atomic_write(file, |writer| {
            let mut builder = tar::Builder::new(writer);
            for (path, name, _) in group {
                if let Err(error) = done(pictures.len()) {
                    stopped = Some(error);
                    return Err(io::ErrorKind::Interrupted.into());
                }
                let content = files::read_file(path)
                    .map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", path.display())))?;
                let mut head = tar::Header::new_gnu();
                head.set_size(content.len() as u64);
                // Equal pictures make equal files, whoever packs them and when.
                head.set_mode(0o644);
                builder.append_data(&mut head, name, content.as_slice())?;
            }
            builder.finish()
        });
        match stopped {
            Some(error) => return Err(error),
            None => written?,
        }
    }
    Ok(Written { files, pictures: pictures.len() })
}

/// What a picture is called in the file: its path below the folder that was named.
fn name_in(path: &Path, inputs: &[PathBuf]) -> PathBuf {
    let below = inputs.iter().find_map(|input| path.strip_prefix(input).ok());
    let below = below.filter(|below| below.file_name().is_some()).unwrap_or(path);
    let parts = below.components().filter(|part| matches!(part, Component::Normal(_)));
    parts.collect()
}

type Picture<'a> = (&'a Path, PathBuf, u64);

/// The pictures of each file, in their order.
fn groups<'a, 'p>(pictures: &'a [Picture<'p>], most: Option<u64>) -> Vec<&'a [Picture<'p>]> {
    let Some(most) = most else { return vec![pictures] };
    let (mut groups, mut start, mut held) = (Vec::new(), 0, 0u64);
    for (i, (_, _, size)) in pictures.iter().enumerate() {
        // A head and what fills up the last block.
        let size = size.next_multiple_of(512) + 512;
        if i > start && held.saturating_add(size) > most {
            groups.push(&pictures[start..i]);
            (start, held) = (i, 0);
        }
        held = held.saturating_add(size);
    }
    groups.push(&pictures[start..]);
    groups
}
