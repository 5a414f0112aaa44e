//! Images in the idx format of MNIST: `train-images-idx3-ubyte`, gzipped or not.
//!
//! ```text
//! 0     00 00 08 03    unsigned bytes, three axes
//! 4     images, rows, columns: 32 bits each, the highest byte first
//! 16    the pixels, [images, rows, columns], 0 is black
//! ```
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;

use super::rgb8::Rgb8;
use crate::engine::files;
use crate::error::{Error, Report, Result};

/// Of a file that srk reads: unsigned bytes, three axes.
const MAGIC: [u8; 4] = [0, 0, 8, 3];
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// No file may hold more pixels, and no image a longer side: what a damaged header says beyond that
/// is not believed.
const MOST_PIXELS: u64 = 1 << 34;
const LONGEST_SIDE: u32 = 1 << 16;

/// The gray images of one file.
#[derive(Debug)]
pub struct Images {
    path: PathBuf,
    width: usize,
    height: usize,
    pixels: Vec<u8>,
}

/// Whether `path` is to be read here and not as a picture: idx or gzip by its first bytes, or idx by
/// its name.
pub fn is_idx(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    let name = name.strip_suffix(".gz").unwrap_or(&name);
    let named = ["idx3-ubyte", ".idx", ".idx3"].iter().any(|ending| name.ends_with(ending));
    let mut first = [0; 4];
    // A pipe without a writer would be waited for.
    let read = files::open_file(path).and_then(|mut file| file.read_exact(&mut first));
    named || read.is_ok() && (first[..3] == MAGIC[..3] || first[..2] == GZIP)
}

impl Images {
    /// Reads a file.
    ///
    /// # Errors
    /// [`Error::Failed`] if it cannot be read, is no idx file of images, or is shorter or longer than
    /// its header says.
    pub fn read(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(|e| refuse(path, &e))?;
        let mut input = BufReader::new(file);
        let is_gzip =
            io::BufRead::fill_buf(&mut input).map_err(|e| refuse(path, &e))?.starts_with(&GZIP);
        match is_gzip {
            true => Self::from_stream(MultiGzDecoder::new(input), path),
            false => Self::from_stream(input, path),
        }
    }

    fn from_stream(mut input: impl Read, path: &Path) -> Result<Self> {
        let mut head = [0; 16];
        input.read_exact(&mut head).map_err(|e| match e.kind() {
            io::ErrorKind::UnexpectedEof => refuse(path, &"it ends within its header of 16 bytes"),
            _ => refuse(path, &e),
        })?;
        let (magic, sizes) = head.split_at(4);
        if magic != MAGIC {
            return Err(refuse(path, &wrong_magic(magic)));
        }
        let size =
            |i: usize| u32::from_be_bytes(sizes[4 * i..][..4].try_into().unwrap_or_default());
        let (count, height, width) = (size(0), size(1), size(2));
        let sides = 1..=LONGEST_SIDE;
        let pixels = u64::from(count)
            .checked_mul(u64::from(height))
            .and_then(|rows| rows.checked_mul(u64::from(width)))
            .filter(|&n| n > 0 && n <= MOST_PIXELS && sides.contains(&height.max(width)));
        let Some(pixels) = pixels else {
            let cause = format!("its header tells of {count} images of {width} x {height}");
            return Err(refuse(path, &cause));
        };
        let short = |has: u64| {
            format!("{count} images of {width} x {height} are {pixels} bytes, but it has {has}")
        };
        // Grows as bytes arrive, so that a header allocates nothing.
        let mut held = Vec::new();
        input.by_ref().take(pixels).read_to_end(&mut held).map_err(|e| refuse(path, &e))?;
        if (held.len() as u64) < pixels {
            return Err(refuse(path, &short(held.len() as u64)));
        }
        match input.read(&mut [0]) {
            Ok(0) => {}
            Ok(_) => return Err(refuse(path, &format!("{} and more", short(pixels)))),
            Err(e) => return Err(refuse(path, &e)),
        }
        let (width, height) = (width as usize, height as usize);
        Ok(Self { path: path.to_owned(), width, height, pixels: held })
    }

    /// How many images there are.
    pub fn len(&self) -> usize {
        self.pixels.len() / (self.width * self.height)
    }

    /// Whether there are none; a file that is read has some.
    pub fn is_empty(&self) -> bool {
        self.pixels.is_empty()
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What messages call image `index`: `FILE#index`.
    pub fn name(&self, index: usize) -> PathBuf {
        PathBuf::from(format!("{}#{index}", self.path.display()))
    }

    /// Width and height of each.
    pub const fn size(&self) -> (usize, usize) {
        (self.width, self.height)
    }

    /// Image `index`, its gray in all three channels.
    pub fn image(&self, index: usize) -> Rgb8 {
        let area = self.width * self.height;
        let gray = &self.pixels[index * area..][..area];
        let pixels = gray.iter().flat_map(|&v| [v; 3]).collect();
        Rgb8 { width: self.width, height: self.height, pixels }
    }
}

fn wrong_magic(magic: &[u8]) -> String {
    match magic {
        [0, 0, 8, 1] => "it holds labels, one number each, not images".to_owned(),
        [0, 0, 8, axes] => format!("it has {axes} axes; images have three"),
        [0, 0, kind, _] => format!("its numbers are of type {kind:#04x}; pixels are bytes, 0x08"),
        _ => format!("it starts with {magic:02x?}, not with {MAGIC:02x?}"),
    }
}

fn refuse(path: &Path, cause: &dyn std::fmt::Display) -> Error {
    let report = Report::new(format!("cannot read the idx images {}", path.display()), cause);
    Error::Failed(
        report.help("copy or download the file again; srk reads idx3-ubyte, also gzipped"),
    )
}
