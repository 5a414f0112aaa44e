//! What the tensor memory accelerator (TMA) of compute capability 9.0 is told of a tensor: plain numbers, which a driver
//! packs into what its kernels take.
use super::pointer::DevicePointer;
use crate::engine::dtype::DType;

/// Elements in a row of a box: 128 bytes, the span of the swizzle.
pub(crate) const DEPTH: usize = 64;
/// What hardware counts the elements of a box to.
const LARGEST_BOX: usize = 256;

/// A tensor of 16-bit numbers without gaps, and the box of it that a load brings, in rows that are swizzled in spans of
/// 128 bytes. What lies outside of the tensor is zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TensorMap {
    /// Where it begins.
    pub address: DevicePointer,
    /// F16 or BF16.
    pub dtype: DType,
    /// Sizes and box.
    pub boxes: Boxes,
}

/// How a tensor is cut into boxes; its dimensions are counted from the innermost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Boxes {
    sizes: [u32; 4],
    traversal: [u32; 4],
    extent: Extent,
}

/// What a load brings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// So many elements of each of three dimensions.
    Tile([u32; 3]),
    /// Channels of pixels of a map `[N, H, W, C]`, from one on in the order of lines and images (im2col).
    Pixels {
        /// Channels.
        channels: u32,
        /// Pixels.
        count: u32,
        /// The first pixel that a line, and an image, begins with, relative to the map's.
        lower: i32,
        /// The last one, relative to the map's.
        upper: i32,
    },
}

impl Boxes {
    /// The windows of a convolution of maps `[n, height, width, c]`: of one tap, from an output on, those of `count`
    /// outputs in their order. None where the TMA cannot walk so.
    pub fn windows(
        [n, height, width, c]: [usize; 4],
        [kernel, stride, pad]: [usize; 3],
        count: usize,
    ) -> Option<Self> {
        let corner = |v: isize| i8::try_from(v).ok().map(i32::from);
        let extent = Extent::Pixels {
            channels: narrow(DEPTH)?,
            count: narrow(count)?,
            lower: corner(-pad.cast_signed())?,
            upper: corner(pad.cast_signed() - kernel.cast_signed() + 1)?,
        };
        let stride = narrow(stride)?;
        let sizes = [narrow(c)?, narrow(width)?, narrow(height)?, narrow(n)?];
        let all = Self { sizes, traversal: [1, stride, stride, 1], extent };
        // The place of a tap is told in eight bits; a window must fit the padded map.
        let windows = kernel <= 255 && kernel <= height.min(width) + 2 * pad;
        (windows && (1..=LARGEST_BOX).contains(&count)).then_some(all)?.if_possible()
    }

    /// Rows of weights `[outputs, taps, c]`: those of one tap, of `count` outputs. None where the TMA cannot walk so.
    pub fn weights([outputs, taps, c]: [usize; 3], count: usize) -> Option<Self> {
        let extent = Extent::Tile([narrow(DEPTH)?, 1, narrow(count)?]);
        let sizes = [narrow(c)?, narrow(taps)?, narrow(outputs)?, 1];
        let all = Self { sizes, traversal: [1; 4], extent };
        (1..=LARGEST_BOX).contains(&count).then_some(all)?.if_possible()
    }

    /// This, unless a size is 0 or a stride or step is one that hardware has not.
    fn if_possible(self) -> Option<Self> {
        let strides = self.strides(2);
        let strides = strides.iter().all(|s| s.is_multiple_of(16) && *s < 1 << 40);
        let steps = self.traversal.iter().all(|step| (1..=8).contains(step));
        (strides && steps && !self.sizes.contains(&0)).then_some(self)
    }

    /// How many dimensions there are.
    pub const fn rank(&self) -> usize {
        match self.extent {
            Extent::Tile(_) => 3,
            Extent::Pixels { .. } => 4,
        }
    }

    /// Sizes, of which the first [`rank`](Self::rank) count.
    pub const fn sizes(&self) -> [u32; 4] {
        self.sizes
    }

    /// Bytes from one to the next of the second dimension and further ones, where an element has `bytes`.
    pub fn strides(&self, bytes: usize) -> [u64; 3] {
        let mut stride = bytes as u64;
        [0, 1, 2].map(|d| {
            stride = stride.saturating_mul(self.sizes[d].into());
            stride
        })
    }

    /// How far apart what is brought lies, in each dimension.
    pub const fn traversal(&self) -> [u32; 4] {
        self.traversal
    }

    /// What a load brings.
    pub const fn extent(&self) -> Extent {
        self.extent
    }

    /// Elements of the tensor.
    pub(super) fn elements(&self) -> usize {
        self.sizes.iter().map(|&size| size as usize).product()
    }
}

fn narrow(v: usize) -> Option<u32> {
    u32::try_from(v).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_have_the_corners_of_their_padding() {
        let boxes = Boxes::windows([2, 30, 40, 24], [3, 2, 1], 128).unwrap();
        assert_eq!((boxes.rank(), boxes.sizes()), (4, [24, 40, 30, 2]));
        assert_eq!(boxes.strides(2), [48, 48 * 40, 48 * 40 * 30]);
        assert_eq!(boxes.traversal(), [1, 2, 2, 1]);
        let extent = Extent::Pixels { channels: 64, count: 128, lower: -1, upper: -1 };
        assert_eq!((boxes.extent(), boxes.elements()), (extent, 2 * 30 * 40 * 24));
    }

    #[test]
    fn weights_are_boxes_of_a_tap() {
        let boxes = Boxes::weights([96, 9, 24], 64).unwrap();
        assert_eq!((boxes.rank(), boxes.sizes()), (3, [24, 9, 96, 1]));
        assert_eq!(boxes.extent(), Extent::Tile([64, 1, 64]));
        assert_eq!(boxes.strides(2)[..2], [48, 48 * 9]);
    }

    #[test]
    fn what_hardware_cannot_walk_is_none() {
        let windows = |channels, window| Boxes::windows([1, 300, 300, channels], window, 128);
        assert!(windows(8, [3, 1, 1]).is_some());
        assert!(windows(12, [3, 1, 1]).is_none(), "strides are multiples of 16 bytes");
        assert!(windows(0, [3, 1, 1]).is_none(), "an empty map");
        assert!(windows(8, [129, 1, 0]).is_some(), "a corner of -128");
        assert!(windows(8, [130, 1, 0]).is_none(), "a corner of -129");
        assert!(windows(8, [255, 1, 128]).is_some(), "corners of -128 and -126");
        assert!(windows(8, [256, 1, 128]).is_none(), "a tap at 255");
        assert!(windows(8, [3, 1, 129]).is_none(), "a corner of -129");
        assert!(windows(8, [3, 8, 1]).is_some());
        assert!(windows(8, [3, 9, 1]).is_none(), "steps are at most 8");
        assert!(Boxes::windows([1, 2, 300, 8], [5, 1, 1], 128).is_none(), "no window fits");
        assert!(Boxes::windows([1, 9, 9, 8], [3, 1, 1], 257).is_none(), "a box of 257");
        assert!(Boxes::windows([1, 1 << 20, 1 << 20, 8], [3, 1, 1], 128).is_none(), "2^44 bytes");
        assert!(Boxes::weights([64, 9, 12], 64).is_none());
        assert!(Boxes::weights([64, 9, 8], 257).is_none());
    }
}
