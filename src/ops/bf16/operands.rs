//! What a block of a product is made of.

/// Rows and columns of a block; a step of a product is as long.
pub(in crate::ops) const SIDE: usize = 32;

/// The sums of a block, row by row.
#[repr(align(64))]
pub(in crate::ops) struct Square(pub(in crate::ops) [f32; SIDE * SIDE]);

impl Square {
    pub(in crate::ops) const fn zeros() -> Self {
        Self([0.0; SIDE * SIDE])
    }
}

/// The left operand: row `m` of group `g` is the numbers from `at + m * stride + g * group` on.
#[derive(Clone, Copy)]
pub(in crate::ops) struct Left {
    pub(in crate::ops) at: *const u16,
    /// Numbers between rows.
    pub(in crate::ops) stride: usize,
    pub(in crate::ops) groups: usize,
    /// Numbers between groups.
    pub(in crate::ops) group: usize,
}

/// The right operand: two neighbouring numbers of a sum lie side by side for each of the columns. 16 such rows are half
/// of a step; the second 16 columns lie `second` numbers behind the first.
#[derive(Clone, Copy)]
pub(in crate::ops) struct Right {
    pub(in crate::ops) at: *const u16,
    /// Numbers between rows of pairs.
    pub(in crate::ops) stride: usize,
    pub(in crate::ops) second: usize,
    /// Numbers between steps.
    pub(in crate::ops) step: usize,
}

/// How much of a block is wanted: 16 or 32 rows, 16 or 32 columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    pub(super) two_rows: bool,
    pub(super) two_columns: bool,
}

/// Columns that plain code computes together, as many as a tile has.
pub(super) const LANES: usize = SIDE / 2;
pub(super) type Lanes = [f32; LANES];

/// Adds the products of one instruction to `ROWS` rows of sums, in columns of the first or second half.
pub(super) trait AddStep<const ROWS: usize> {
    /// Even and odd products apart from zero, then both. Without `FLUSH` no number is a denormal one.
    fn add<const FLUSH: bool>(
        a: &[[f32; SIDE]; ROWS],
        b: &[Lanes; SIDE],
        half: usize,
        sums: &mut [[f32; SIDE]; ROWS],
    );
}
