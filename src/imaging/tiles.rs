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
/// pixels a side (rounded down to a multiple of `align`, at least `align`) and a halo of at least
/// `halo` (rounded up). An `align` or `core` of 0 counts as 1; an empty image has no tiles.
pub fn plan(width: usize, height: usize, core: usize, halo: usize, align: usize) -> Vec<Tile> {
    let align = align.max(1);
    let core = (core / align * align).max(align);
    let halo = halo.div_ceil(align).saturating_mul(align);
    let columns = cuts(width, core, halo, align);
    let rows = cuts(height, core, halo, align);
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
                for tile in plan(width, height, core, halo, align) {
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
        let tiles = plan(260, 100, 256, 8, 2);
        assert_eq!(tiles.len(), 2);
        assert_eq!(tiles[0].core, Rect::new(0, 0, 130, 100));
        assert_eq!(tiles[0].padded, Rect::new(0, 0, 138, 100));
        assert_eq!(tiles[1].padded, Rect::new(122, 0, 138, 100));
        assert_eq!(plan(5, 5, usize::MAX, usize::MAX, 1).len(), 1);
        assert!(plan(0, 5, 16, 0, 1).is_empty());
    }
}
