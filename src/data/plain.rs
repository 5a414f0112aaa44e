//! Pictures of plain colours: what photographs hold too little of to learn that noise is not texture.
use super::folder::Rgb8;

/// One colour, a gradient between two that are close, or two that meet in a straight edge, by random
/// bits: each a third of them. `[height, width, 3]`, rounded to 8 bits as pictures are.
pub fn plain(width: usize, height: usize, bits: [[u32; 4]; 2]) -> Rgb8 {
    let [[red, green, blue, kind], [turn, place, other, gray]] = bits;
    let byte = |bits: u32| f64::from(bits >> 24);
    let mut from = [red, green, blue].map(byte);
    // Half of them gray or nearly: what skies, walls and paper are.
    if gray % 2 == 0 {
        from = from.map(|v| from[1] + (v - from[1]) * 0.1);
    }
    let reach = match kind % 3 {
        0 => 0.0,
        1 => 24.0,
        _ => 255.0,
    };
    let to: [f64; 3] = std::array::from_fn(|c| {
        let share = f64::from((other >> (8 * c)) & 255) / 127.5 - 1.0;
        (from[c] + share * reach).clamp(0.0, 255.0)
    });
    let (sin, cos) = (f64::from(turn) / 2f64.powi(32) * std::f64::consts::TAU).sin_cos();
    let length = width.max(height) as f64;
    let middle = (f64::from(place) / 2f64.powi(32) - 0.5) * 0.5;
    let share = |x: usize, y: usize| {
        let (x, y) =
            (x as f64 - (width as f64 - 1.0) / 2.0, y as f64 - (height as f64 - 1.0) / 2.0);
        let along = x * cos + y * sin - middle * length;
        match kind % 3 {
            // As far as the picture reaches.
            1 => (along / length + 0.5).clamp(0.0, 1.0),
            // An edge one pixel wide, as a lens draws it.
            _ => (along + 0.5).clamp(0.0, 1.0),
        }
    };
    let mut pixels = Vec::with_capacity(width * height * 3);
    for (y, x) in (0..height).flat_map(|y| (0..width).map(move |x| (y, x))) {
        let s = share(x, y);
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // Within 0..=255.
        pixels.extend(from.iter().zip(to).map(|(a, b)| (a + (b - a) * s).round() as u8));
    }
    Rgb8 { width, height, pixels }
}
