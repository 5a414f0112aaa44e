//! JPEG, eight rows at a time.
use std::cell::{Cell, RefCell};
use std::io::{self, Write};
use std::marker::PhantomData;

use image::codecs::jpeg::JpegEncoder;
use image::{GenericImageView, ImageError, Luma, Pixel, Rgb};

use super::rows::Rows;

/// Rows of a block: the encoder goes from block to block, and does not come back to a row of blocks.
const BLOCK: usize = 8;

/// Encodes the picture whose rows are `rows`, of `width` x `height` pixels.
pub(super) fn encode<W: Write>(
    encoder: &mut JpegEncoder<W>,
    (width, height): (u32, u32),
    gray: bool,
    rows: Rows<'_, '_>,
    failed: &Cell<bool>,
) -> io::Result<()> {
    let window = RefCell::new(Window { rows, start: 0, held: Vec::new(), error: None });
    let size = (width, height);
    let done = match gray {
        true => encoder.encode_image(&View::<Luma<u8>>::new(&window, size, failed)),
        false => encoder.encode_image(&View::<Rgb<u8>>::new(&window, size, failed)),
    };
    match (window.into_inner().error, done) {
        (Some(error), _) => Err(error),
        (None, Err(ImageError::IoError(error))) => Err(error),
        (None, Err(error)) => Err(io::Error::other(error)),
        (None, Ok(())) => Ok(()),
    }
}

/// The row of blocks that is being encoded.
struct Window<'s, 'a> {
    rows: Rows<'s, 'a>,
    start: usize,
    held: Vec<u8>,
    error: Option<io::Error>,
}

/// The picture as the encoder asks for it: pixel by pixel, in the order of blocks.
struct View<'v, 's, 'a, P> {
    window: &'v RefCell<Window<'s, 'a>>,
    size: (u32, u32),
    /// Set once there are no more rows to be had: the writer then fails, which ends the encoder.
    failed: &'v Cell<bool>,
    pixel: PhantomData<P>,
}

impl<'v, 's, 'a, P> View<'v, 's, 'a, P> {
    fn new(window: &'v RefCell<Window<'s, 'a>>, size: (u32, u32), failed: &'v Cell<bool>) -> Self {
        Self { window, size, failed, pixel: PhantomData }
    }
}

impl<P: Pixel<Subpixel = u8>> GenericImageView for View<'_, '_, '_, P> {
    type Pixel = P;

    fn dimensions(&self) -> (u32, u32) {
        self.size
    }

    fn get_pixel(&self, x: u32, y: u32) -> P {
        let window = &mut *self.window.borrow_mut();
        let channels = usize::from(P::CHANNEL_COUNT);
        let (x, y, width) = (x as usize, y as usize, self.size.0 as usize);
        while y >= window.start + BLOCK || window.held.is_empty() {
            window.start += if window.held.is_empty() { 0 } else { BLOCK };
            window.held.clear();
            if window.error.is_none()
                && let Err(error) = window.rows.read(BLOCK, &mut window.held)
            {
                window.error = Some(error);
                self.failed.set(true);
            }
            window.held.resize(BLOCK * width * channels, 0);
        }
        *P::from_slice(&window.held[((y - window.start) * width + x) * channels..][..channels])
    }
}

/// A writer that fails once `failed` is set.
pub(super) struct Failing<'a, W> {
    pub(super) writer: W,
    pub(super) failed: &'a Cell<bool>,
}

impl<W: Write> Write for Failing<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.failed.get() {
            true => Err(io::Error::other("the picture ended too early")),
            false => self.writer.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

/// A segment with XMP, marker and length included.
pub(super) fn xmp_segment(xmp: &[u8]) -> Vec<u8> {
    let name = crate::imaging::jpeg::XMP_NAME;
    let length = u16::try_from(2 + name.len() + xmp.len()).unwrap_or(u16::MAX);
    [&[0xFF, 0xE1][..], &length.to_be_bytes(), name, xmp].concat()
}

/// Bytes of a file before the first segment that may follow its JFIF header.
const HEAD: usize = 2 + 18;

/// Puts a segment behind the JFIF header, which the encoder writes first.
pub(super) struct Inserting<W> {
    writer: W,
    segment: Vec<u8>,
    /// Bytes that are still to come before it.
    before: usize,
}

impl<W> Inserting<W> {
    pub(super) fn new(writer: W, segment: Vec<u8>) -> Self {
        Self { writer, segment, before: HEAD }
    }
}

impl<W: Write> Write for Inserting<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.before == 0 && !self.segment.is_empty() {
            self.writer.write_all(&std::mem::take(&mut self.segment))?;
        }
        let most = if self.before > 0 { bytes.len().min(self.before) } else { bytes.len() };
        let written = self.writer.write(&bytes[..most])?;
        self.before = self.before.saturating_sub(written);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}
