//! Comparison sheets: rows of captioned panels, for validation while training and before/after
//! pictures.
//!
//! ```text
//!    input          bicubic            srk             truth        column titles
//!  [ image ]       [ image ]        [ image ]        [ image ]
//!                  28.42 dB 0.810   31.05 dB 0.883                  captions, wrapped to the panel
//! ```
use super::{Color, Depth, Image, Samples, font};
use crate::error::{Error, Result};

/// An image and the words below it.
#[derive(Debug, Clone)]
pub struct Panel {
    /// Any depth and colour; transparency shows as white.
    pub image: Image,
    /// ASCII; may be empty.
    pub caption: String,
}

impl Panel {
    /// `image` with `caption` below.
    pub fn new(image: Image, caption: impl Into<String>) -> Self {
        Self { image, caption: caption.into() }
    }
}

/// A grid of panels, drawn by [`render`](Self::render).
#[derive(Debug, Clone)]
pub struct Sheet {
    titles: Vec<String>,
    rows: Vec<Vec<Panel>>,
}

const MARGIN: usize = 8;
const PAPER: u8 = 255;
const INK: u8 = 0;

impl Sheet {
    /// An empty sheet with one title per column; titles may be empty.
    pub fn new(columns: &[&str]) -> Self {
        Self { titles: columns.iter().map(|&t| t.to_owned()).collect(), rows: Vec::new() }
    }

    /// The sheet with one more row below; it may be shorter than the titles, or longer.
    #[must_use]
    pub fn row(mut self, panels: Vec<Panel>) -> Self {
        self.rows.push(panels);
        self
    }

    /// Draws the sheet as 8-bit RGB. A column is as wide as its widest panel, a row as high as its
    /// highest. Fails without panels or with a damaged one.
    pub fn render(&self) -> Result<Image> {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        if columns == 0 {
            return Err(Error::shape("sheet", "at least one panel", &[0]));
        }
        let mut widths = vec![0; columns];
        for row in &self.rows {
            for (width, panel) in widths.iter_mut().zip(row) {
                panel.image.validate()?;
                *width = panel.image.width.max(*width);
            }
        }
        // Two pixels a dot stay readable when the sheet is shown smaller; narrow panels take one.
        let dot = if widths.iter().all(|&w| w >= 160) { 2 } else { 1 };
        let line = (font::HEIGHT + 2) * dot;
        let text_height = |lines: usize| if lines == 0 { 0 } else { lines * line + MARGIN / 2 };
        let titles: Vec<_> =
            self.titles.iter().zip(&widths).map(|(t, &w)| wrap(t, w, dot)).collect();
        let title_height = text_height(titles.iter().map(Vec::len).max().unwrap_or(0));
        let rows: Vec<_> = self.rows.iter().map(|row| Row::new(row, &widths, dot)).collect();
        let heights = rows.iter().map(|r| r.height + text_height(r.lines) + MARGIN);
        let mut page = Page {
            width: MARGIN + widths.iter().map(|w| w + MARGIN).sum::<usize>(),
            height: MARGIN + title_height + heights.sum::<usize>(),
            pixels: Vec::new(),
        };
        page.pixels = vec![PAPER; page.width * page.height * 3];

        let lefts: Vec<usize> = widths
            .iter()
            .scan(MARGIN, |x, w| Some(std::mem::replace(x, *x + w + MARGIN)))
            .collect();
        for (lines, &x) in titles.iter().zip(&lefts) {
            page.text(lines, x, MARGIN, dot);
        }
        let mut y = MARGIN + title_height;
        for (row, panels) in rows.iter().zip(&self.rows) {
            for ((panel, lines), &x) in panels.iter().zip(&row.captions).zip(&lefts) {
                page.image(&panel.image, x, y);
                page.text(lines, x, y + row.height + MARGIN / 2, dot);
            }
            y += row.height + text_height(row.lines) + MARGIN;
        }
        Image::from_u8(page.width, page.height, Color::Rgb, page.pixels)
    }
}

/// The wrapped captions of a row and the room it needs.
struct Row {
    captions: Vec<Vec<String>>,
    height: usize,
    lines: usize,
}

impl Row {
    fn new(panels: &[Panel], widths: &[usize], dot: usize) -> Self {
        let captions: Vec<_> =
            panels.iter().zip(widths).map(|(p, &w)| wrap(&p.caption, w, dot)).collect();
        Self {
            height: panels.iter().map(|p| p.image.height).max().unwrap_or(0),
            lines: captions.iter().map(Vec::len).max().unwrap_or(0),
            captions,
        }
    }
}

/// Breaks `text` at spaces into lines that fit `width` pixels; a word that is too long is cut up.
fn wrap(text: &str, width: usize, dot: usize) -> Vec<String> {
    let room = (width / ((font::WIDTH + 1) * dot)).max(1);
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        let letters: Vec<char> = word.chars().collect();
        for part in letters.chunks(room) {
            match lines.last_mut() {
                Some(line) if line.chars().count() + 1 + part.len() <= room => {
                    line.push(' ');
                    line.extend(part);
                }
                _ => lines.push(part.iter().collect()),
            }
        }
    }
    lines
}

struct Page {
    width: usize,
    height: usize,
    pixels: Vec<u8>,
}

impl Page {
    fn image(&mut self, image: &Image, left: usize, top: usize) {
        let image = image.to_rgb().to_depth(Depth::Eight);
        let (Samples::U8(samples), alpha) = (&image.samples, &image.alpha) else { return };
        for (i, pixel) in samples.chunks_exact(3).enumerate() {
            let (x, y) = (left + i % image.width, top + i / image.width);
            let at = (y * self.width + x) * 3;
            let opaque = match alpha {
                Some(Samples::U8(a)) => a[i],
                _ => 255,
            };
            for (out, &value) in self.pixels[at..at + 3].iter_mut().zip(pixel) {
                *out = over_paper(value, opaque);
            }
        }
    }

    fn text(&mut self, lines: &[String], left: usize, top: usize, dot: usize) {
        for (row, line) in lines.iter().enumerate() {
            for (column, character) in line.chars().enumerate() {
                let x = left + column * (font::WIDTH + 1) * dot;
                let y = top + row * (font::HEIGHT + 2) * dot;
                self.glyph(character, x, y, dot);
            }
        }
    }

    fn glyph(&mut self, character: char, left: usize, top: usize, dot: usize) {
        for (y, x) in
            (0..font::HEIGHT * dot).flat_map(|y| (0..font::WIDTH * dot).map(move |x| (y, x)))
        {
            let inside = left + x < self.width && top + y < self.height;
            if inside && font::ink(character, x / dot, y / dot) {
                let at = ((top + y) * self.width + left + x) * 3;
                self.pixels[at..at + 3].fill(INK);
            }
        }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "a weighted mean of two bytes")]
fn over_paper(value: u8, opaque: u8) -> u8 {
    let (v, a) = (u32::from(value), u32::from(opaque));
    ((v * a + u32::from(PAPER) * (255 - a) + 127) / 255) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gray(width: usize, height: usize) -> Image {
        Image::from_u8(width, height, Color::Gray, vec![90; width * height]).unwrap()
    }

    #[test]
    fn panels_and_captions_stand_where_they_should() {
        let sheet = Sheet::new(&["left", "right"])
            .row(vec![Panel::new(gray(40, 20), "28.42 dB 0.810"), Panel::new(gray(30, 30), "")])
            .row(vec![Panel::new(gray(40, 10), "")]);
        let image = sheet.render().unwrap();
        // 8 + 40 + 8 + 30 + 8 wide; titles 9 + 4; first row 30 + 3 lines + 4 + 8; second 10 + 8.
        assert_eq!((image.width, image.height), (94, 8 + 13 + 30 + 3 * 9 + 4 + 8 + 10 + 8));
        let Samples::U8(pixels) = &image.samples else { panic!("8 bits") };
        let at = |x: usize, y: usize| pixels[(y * image.width + x) * 3];
        assert_eq!((at(8, 21), at(47, 40), at(48, 40), at(8, 41)), (90, 90, 255, 255));
        assert_eq!((at(56, 50), at(85, 50), at(56, 51)), (90, 90, 255));
        assert_eq!(
            (at(8, 89), at(8, 90), at(47, 99), at(8, 100)),
            (255, 90, 90, 255),
            "second row"
        );
        let ink =
            (55..82).flat_map(|y| (8..48).map(move |x| (x, y))).filter(|&(x, y)| at(x, y) == 0);
        assert!(ink.count() > 50, "the caption is drawn");
    }

    #[test]
    fn an_l_looks_like_an_l() {
        let drawn: Vec<String> = (0..font::HEIGHT)
            .map(|y| {
                (0..font::WIDTH).map(|x| if font::ink('L', x, y) { '#' } else { '.' }).collect()
            })
            .collect();
        assert_eq!(drawn, ["#....", "#....", "#....", "#....", "#....", "#....", "#####"]);
        assert!(font::ink('\u{e9}', 1, 0) && font::ink('?', 1, 0), "not ASCII shows as ?");
    }

    #[test]
    fn long_words_are_cut_and_nothing_is_lost() {
        assert_eq!(wrap("ab cd efghijk", 18, 1), ["ab", "cd", "efg", "hij", "k"]);
        assert_eq!(wrap("28.42 dB  0.810", 90, 1), ["28.42 dB 0.810"]);
        assert!(Sheet::new(&[]).render().is_err());
        assert!(Sheet::new(&["a"]).row(vec![]).render().is_err());
    }
}
