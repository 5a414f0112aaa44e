//! Cutting an image into tiles that a device can hold.
//!
//! ```text
//! core     the part a tile is responsible for; the cores cover the image once
//! padded   core plus the halo that the network's view reaches into, cut off at the image's edge
//! ```
//! Origins of both are multiples of `align`, so that strided layers see the same grid in a tile as
//! in the whole image. Tiles of a row are nearly equal: 260 pixels in cores of at most 256 are
//! two of 130.
use super::Rect;

/// One tile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tile {
    /// The pixels this tile answers for.
    pub core: Rect,
    /// The pixels it reads.
    pub padded: Rect,
}

/// Tiles of a `width` x `height` image, row by row from the top left, with cores of at most `core`
/// (width, height) pixels (rounded down to a multiple of `align`, at least `align`) and a halo of at least
/// `halo` (rounded up). An `align` or `core` of 0 counts as 1; an empty image has no tiles.
pub fn plan(width: usize, height: usize, core: [usize; 2], halo: usize, align: usize) -> Vec<Tile> {
    let [columns, rows] = cuts_of_both(width, height, core, halo, align);
    let mut tiles = Vec::with_capacity(rows.len() * columns.len());
    for y in &rows {
        for x in &columns {
            tiles.push(Tile {
                core: Rect::new(x.start, y.start, x.len, y.len),
                padded: Rect::new(x.padded, y.padded, x.padded_len, y.padded_len),
            });
        }
    }
    tiles
}

/// What tiles cost hangs on their sizes, of which there are few where there are many tiles.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sizes {
    /// Widths and heights with halo: every width with the largest height, and every height with the largest width.
    pub padded: Vec<(usize, usize)>,
    /// The largest height of a core.
    pub core_height: usize,
}

/// The sizes of the tiles that [`plan`] would make, without making them.
pub fn sizes(width: usize, height: usize, core: [usize; 2], halo: usize, align: usize) -> Sizes {
    let [columns, rows] = cuts_of_both(width, height, core, halo, align);
    let lengths = |cuts: &[Cut]| {
        // They grow, stay, and fall.
        let mut lengths: Vec<usize> = cuts.iter().map(|cut| cut.padded_len).collect();
        lengths.dedup();
        lengths
    };
    let (widths, heights) = (lengths(&columns), lengths(&rows));
    let largest = widths.iter().max().zip(heights.iter().max());
    let Some((&widest, &highest)) = largest else { return Sizes::default() };
    let of_widths = widths.iter().map(|&w| (w, highest));
    let padded = of_widths.chain(heights.iter().map(|&h| (widest, h))).collect();
    Sizes { padded, core_height: rows.iter().map(|cut| cut.len).max().unwrap_or(0) }
}

/// Columns and rows.
fn cuts_of_both(
    width: usize,
    height: usize,
    core: [usize; 2],
    halo: usize,
    align: usize,
) -> [Vec<Cut>; 2] {
    let align = align.max(1);
    let [wide, high] = core.map(|core| (core / align * align).max(align));
    let halo = halo.div_ceil(align).saturating_mul(align);
    [cuts(width, wide, halo, align), cuts(height, high, halo, align)]
}

/// A tile along one side.
struct Cut {
    start: usize,
    len: usize,
    padded: usize,
    padded_len: usize,
}

fn cuts(side: usize, core: usize, halo: usize, align: usize) -> Vec<Cut> {
    let count = side.div_ceil(core);
    // `core` is a multiple of `align`, so rounding up cannot exceed it.
    let len = side.div_ceil(count.max(1)).div_ceil(align) * align;
    let mut cuts = Vec::with_capacity(count);
    let mut start = 0;
    while start < side {
        let end = (start + len).min(side);
        let padded = start.saturating_sub(halo);
        let padded_len = end.saturating_add(halo).min(side) - padded;
        cuts.push(Cut { start, len: end - start, padded, padded_len });
        start = end;
    }
    cuts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_cover_every_pixel_once_and_origins_are_aligned() {
        let sides = [1, 2, 7, 8, 9, 31, 64, 65, 100];
        for (width, height) in sides.into_iter().flat_map(|w| sides.map(|h| (w, h))) {
            for (core, halo, align) in
                [(1, 0, 1), (16, 3, 1), (16, 4, 8), (20, 5, 8), (3, 1, 8), (64, 16, 16), (0, 0, 0)]
            {
                let case = format!("{width}x{height} core {core} halo {halo} align {align}");
                let mut covered = vec![0u8; width * height];
                for tile in plan(width, height, [core; 2], halo, align) {
                    let (c, p) = (tile.core, tile.padded);
                    for y in c.y..c.bottom() {
                        for x in c.x..c.right() {
                            covered[y * width + x] += 1;
                        }
                    }
                    for at in [c.x, c.y, p.x, p.y] {
                        assert_eq!(at % align.max(1), 0, "{case}");
                    }
                    assert!(p.contains(&c) && Rect::whole(width, height).contains(&p), "{case}");
                    assert!(c.width <= core.max(align).max(1), "{case}");
                    assert!(p.x == 0 || p.x + halo <= c.x, "{case}");
                    assert!(p.right() == width || p.right() >= c.right() + halo, "{case}");
                    assert!(p.bottom() == height || p.bottom() >= c.bottom() + halo, "{case}");
                }
                assert!(covered.iter().all(|&n| n == 1), "{case}");
            }
        }
    }

    #[test]
    fn order_and_sizes_are_as_described() {
        let tiles = plan(260, 100, [256; 2], 8, 2);
        assert_eq!(tiles.len(), 2);
        assert_eq!(tiles[0].core, Rect::new(0, 0, 130, 100));
        assert_eq!(tiles[0].padded, Rect::new(0, 0, 138, 100));
        assert_eq!(tiles[1].padded, Rect::new(122, 0, 138, 100));
        assert_eq!(plan(5, 5, [usize::MAX; 2], usize::MAX, 1).len(), 1);
        assert!(plan(0, 5, [16; 2], 0, 1).is_empty());
    }

    #[test]
    fn sizes_are_those_of_the_tiles() {
        for (width, height, core, halo) in [
            (260, 100, 64, 8),
            (1000, 30, 16, 40),
            (7, 5, 64, 0),
            (999, 1001, 100, 33),
            (0, 5, 8, 0),
        ] {
            let tiles = plan(width, height, [core; 2], halo, 4);
            let sizes = sizes(width, height, [core; 2], halo, 4);
            let of_tiles = |of: fn(&Tile) -> usize| tiles.iter().map(of).max().unwrap_or(0);
            let most = |of: fn(&(usize, usize)) -> usize| sizes.padded.iter().map(of).max();
            assert_eq!(of_tiles(|t| t.core.height), sizes.core_height);
            assert_eq!(of_tiles(|t| t.padded.area()), most(|(w, h)| w * h).unwrap_or(0));
            let exists = |&(w, h): &(usize, usize)| {
                tiles.iter().any(|t| (t.padded.width, t.padded.height) == (w, h))
            };
            assert!(sizes.padded.iter().all(exists), "{width}x{height}");
        }
    }
}
