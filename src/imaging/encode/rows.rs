//! The rows of a picture on their way into a file, from top to bottom, a strip at a time.
use std::borrow::Cow;
use std::io;

use image::ExtendedColorType;

use super::format::Format;
pub(super) use super::outline::Outline;
use crate::imaging::{Color, Depth, Image, Samples, narrow};

/// Gives the next strip of a picture: some rows in its full width, of its colours and depth.
pub type Strips<'a> = dyn FnMut() -> io::Result<Cow<'a, Image>> + 'a;

/// How pixels lie in a file.
#[derive(Clone, Copy)]
pub(super) struct Packing {
    /// Without alpha.
    channels: usize,
    alpha: bool,
    depth: Depth,
    big_endian: bool,
}

impl Packing {
    /// The depth and colours that `format` takes of such a picture.
    pub(super) fn of(image: &Outline, format: Format) -> Self {
        let depth = if format.has_sixteen_bits() { image.depth } else { Depth::Eight };
        // TIFF and BMP encoders have no gray with alpha.
        let widen = image.color == Color::Gray
            && image.alpha
            && matches!(format, Format::Tiff | Format::Bmp);
        let channels = if widen || matches!(format, Format::Ppm | Format::Avif) {
            3
        } else {
            image.color.channels()
        };
        let big_endian = format == Format::Png || format.is_pnm();
        Self { channels, alpha: image.alpha, depth, big_endian }
    }

    /// Whether there is one channel of colour.
    pub(super) fn is_gray(self) -> bool {
        self.channels == 1
    }

    /// Bytes of a pixel.
    pub(super) fn bytes(self) -> usize {
        (self.channels + usize::from(self.alpha)) * self.depth.bytes()
    }

    /// What the `image` package calls it.
    pub(super) fn color(self) -> ExtendedColorType {
        match (self.channels, self.alpha, self.depth) {
            (1, false, Depth::Eight) => ExtendedColorType::L8,
            (1, false, Depth::Sixteen) => ExtendedColorType::L16,
            (1, true, Depth::Eight) => ExtendedColorType::La8,
            (1, true, Depth::Sixteen) => ExtendedColorType::La16,
            (_, false, Depth::Eight) => ExtendedColorType::Rgb8,
            (_, false, Depth::Sixteen) => ExtendedColorType::Rgb16,
            (_, true, Depth::Eight) => ExtendedColorType::Rgba8,
            (_, true, Depth::Sixteen) => ExtendedColorType::Rgba16,
        }
    }

    /// Appends row `y` of `strip`.
    fn row(self, strip: &Image, y: usize, out: &mut Vec<u8>) {
        let (width, from) = (strip.width, strip.channels());
        let at = y * width;
        match (&strip.samples, &strip.alpha) {
            (Samples::U8(s), None) if from == self.channels => {
                out.extend_from_slice(&s[at * from..][..width * from]);
            }
            (Samples::U8(s), alpha) => {
                let alpha = alpha.as_ref().and_then(Samples::as_u8).map(|a| &a[at..]);
                let put = |v: u8, out: &mut Vec<u8>| out.push(v);
                self.weave(&s[at * from..][..width * from], from, alpha, put, out);
            }
            (Samples::U16(s), alpha) => {
                let alpha = alpha.as_ref().and_then(Samples::as_u16).map(|a| &a[at..]);
                let samples = &s[at * from..][..width * from];
                match (self.depth, self.big_endian) {
                    (Depth::Eight, _) => {
                        self.weave(samples, from, alpha, |v, out| out.push(narrow(v)), out);
                    }
                    (_, true) => {
                        let put = |v: u16, out: &mut Vec<u8>| out.extend(v.to_be_bytes());
                        self.weave(samples, from, alpha, put, out);
                    }
                    (_, false) => {
                        let put = |v: u16, out: &mut Vec<u8>| out.extend(v.to_ne_bytes());
                        self.weave(samples, from, alpha, put, out);
                    }
                }
            }
        }
    }

    /// Appends a row of pixels of `from` samples, gray repeated where the file wants colours.
    fn weave<T: Copy>(
        self,
        samples: &[T],
        from: usize,
        alpha: Option<&[T]>,
        put: impl Fn(T, &mut Vec<u8>),
        out: &mut Vec<u8>,
    ) {
        for (x, pixel) in samples.chunks_exact(from).enumerate() {
            (0..self.channels).for_each(|c| put(pixel[c.min(from - 1)], out));
            if let Some(&a) = alpha.and_then(|a| a.get(x)) {
                put(a, out);
            }
        }
    }
}

/// The rows of strips, as bytes of the file.
pub(super) struct Rows<'s, 'a> {
    image: &'s Outline,
    strips: &'s mut Strips<'a>,
    packing: Packing,
    strip: Option<Cow<'a, Image>>,
    /// The first row of the strip that was not read.
    at: usize,
    left: usize,
}

impl<'s, 'a> Rows<'s, 'a> {
    pub(super) fn new(image: &'s Outline, strips: &'s mut Strips<'a>, packing: Packing) -> Self {
        Self { image, strips, packing, strip: None, at: 0, left: image.height }
    }

    /// Rows that were not read.
    pub(super) fn left(&self) -> usize {
        self.left
    }

    /// Appends the next `rows` rows, or those that are left.
    pub(super) fn read(&mut self, rows: usize, out: &mut Vec<u8>) -> io::Result<()> {
        let mut wanted = rows.min(self.left);
        out.reserve(wanted * self.image.width * self.packing.bytes());
        while wanted > 0 {
            match self.strip.as_deref().filter(|strip| self.at < strip.height) {
                Some(strip) => {
                    let count = wanted.min(strip.height - self.at);
                    for y in self.at..self.at + count {
                        self.packing.row(strip, y, out);
                    }
                    self.at += count;
                    self.left -= count;
                    wanted -= count;
                }
                None => self.advance()?,
            }
        }
        Ok(())
    }

    fn advance(&mut self) -> io::Result<()> {
        // Its memory is free before the next one comes.
        self.strip = None;
        let strip = (self.strips)()?;
        if strip.validate().is_err() || !self.image.continues(&strip, self.left) {
            return Err(io::Error::other("a strip does not fit the picture"));
        }
        (self.strip, self.at) = (Some(strip), 0);
        Ok(())
    }
}

/// A side as formats store it.
pub(super) fn size(side: usize) -> io::Result<u32> {
    u32::try_from(side).map_err(io::Error::other)
}
