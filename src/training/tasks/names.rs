//! What a batch of crops holds, by name, and the ways it goes.

/// Low resolutions `[N, h, w, C]`.
pub(super) const LOW: &str = "low";
/// Their enlargements `[N, H, W, C]`.
pub(super) const Y0: &str = "y0";
/// The images `[N, H, W, C]`.
pub(super) const X0: &str = "x0";
/// What a teacher made of the low resolutions `[N, H, W, C]`, where there is one.
pub(super) const TAUGHT: &str = "taught";
/// Of x0, y0 and noise in the state, scaled as the network expects it, `[N, 3]`.
pub(super) const FACTORS: &str = "factors";
/// What the network is told about t, `[N]`.
pub(super) const TIMES: &str = "times";
/// What the network is told of the damage to the crops, `[N, 6]`, where it can be.
pub(super) const TOLD_OF_DAMAGE: &str = "told";
/// Which states are made of the network's own estimate in place of x0, 1 or 0 for each, `[N]`.
pub(super) const OWN: &str = "own";
/// Which are not.
pub(super) const TRUE: &str = "true";
/// Where a part of a batch begins: the number of each of its images in the batch, and 0, `[N, 2]`.
pub(super) const PLACES: &str = "places";
/// The batch's number, which the noise is drawn with.
pub(super) const NUMBER: &str = "number";
/// What the states start from that the network's own estimates are made in, `[1, H, W, C]`, the same for all images.
pub(super) const OWN_NOISE: &str = "own.noise";
/// Row and column at which the part begins that perceptual terms compare, `[1, 2]`.
pub(super) const PART: &str = "part";

/// Ways of a batch, which add up: all images start their chains with a call of its own; there is a discriminator;
/// states are made of the network's own estimates; and so many times [`TURN`] as the number of its perceptual term.
pub(super) const FIRST_CALL: usize = 1;
pub(super) const JUDGED: usize = 2;
pub(super) const ESTIMATED: usize = 4;
pub(super) const TURN: usize = 8;
