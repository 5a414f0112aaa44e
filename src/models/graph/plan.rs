//! What a graph does to sizes: its factor, the border it eats, how far it sees, what it holds.
//!
//! A side of a value is `rate k m + rest` pixels for an image of `k m` pixels, where m makes every rate times m a
//! whole number. The border of the image is as wide as makes the rest of the result 0.
use super::fuse::{Step, last_reads, steps};
use super::layer::{Kind, Layer, Window};
use crate::models::direct::BLOCK;

/// Sides that a graph may multiply or divide by, border that it may eat, layers it may have.
const LARGEST_RATE: usize = 64;
const LARGEST_BORDER: usize = 512;
const MOST_LAYERS: usize = 1 << 16;
/// Most channels of a value.
const MOST_CHANNELS: usize = 1 << 16;

/// What follows from the layers of a graph.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Plan {
    /// The factor between the image and the result.
    pub(super) scale: usize,
    /// What sides must be multiples of.
    pub(super) align: usize,
    /// Pixels added at the top and the left, and at the bottom and the right.
    pub(super) border: [usize; 2],
    /// How far the bits of a result depend on the image, in its pixels; none where they do on all of it. A fast convolution
    /// computes blocks of 4 x 4, whose bits depend on all that the block sees.
    pub(super) reach: Option<usize>,
    /// How far it sees apart from means over the whole map.
    pub(super) near: usize,
    /// The finest grid that a layer computes on, in pixels of the image, is one over this; the coarsest is this.
    pub(super) coarsest: usize,
    /// What inference does when it is a layer's turn.
    pub(super) steps: Vec<Step>,
    /// For each value the last step that reads it; none if that is the result.
    pub(super) last_use: Vec<Option<usize>>,
    /// Floats alive at the peak, for each pixel of the image.
    pub(super) floats: f64,
}

/// A fraction in lowest terms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rate {
    over: usize,
    under: usize,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Shape {
    Map { channels: usize, rate: Rate },
    Vector { channels: usize },
}

type Planned<T> = Result<T, String>;

impl Plan {
    /// The plan of `layers` for images of `channels` channels; an error names the layer.
    pub(super) fn of(layers: &[Layer], channels: usize) -> Planned<Self> {
        if layers.is_empty() || layers.len() > MOST_LAYERS {
            return Err(format!("it has {} layers, of 1 to {MOST_LAYERS}", layers.len()));
        }
        let shapes = shapes(layers, channels)?;
        let Some(&Shape::Map { channels: made, rate }) = shapes.last() else {
            return Err("its result is no map".to_owned());
        };
        if rate.under != 1 || made != channels {
            let Rate { over, under } = rate;
            return Err(format!(
                "its result has {made} channels and {over}/{under} of the size; srk runs networks that make \
                 {channels} channels of a whole multiple"
            ));
        }
        let unders = shapes.iter().filter_map(|s| s.rate().map(|r| r.under));
        let align = unders.fold(1, lcm);
        if align > LARGEST_RATE {
            return Err(format!("it needs sides that are multiples of {align}"));
        }
        let total = border(layers, &shapes, align)?;
        let seen = |by_blocks: bool| -> Planned<View> {
            let views = views(layers, &shapes, by_blocks)?;
            views.last().copied().ok_or_else(|| "it has no layers".to_owned())
        };
        let (view, by_blocks) = (seen(false)?, seen(true)?);
        let before = to_pixels(view.origin.floor())?;
        if before > total {
            return Err(format!("it cuts {before} pixels off the left, {total} from both sides"));
        }
        let pixels = |view: &View| to_pixels(view.left.max(view.right).max(0.0).ceil());
        let (near, reach) = (pixels(&view)?, pixels(&by_blocks)?);
        let map = |v: usize| matches!(shapes[v], Shape::Map { .. });
        let steps = steps(layers, |a, b| map(a) && shapes[a] == shapes[b]);
        let coarsest = shapes.iter().filter_map(|s| s.rate()).map(|r| r.under.div_ceil(r.over));
        Ok(Self {
            scale: rate.over,
            align,
            border: [before, total - before],
            reach: (!view.whole).then_some(reach),
            near,
            coarsest: coarsest.max().unwrap_or(1),
            floats: floats(layers, &shapes, &last_uses(layers)),
            last_use: last_reads(&steps),
            steps,
        })
    }
}

impl Rate {
    fn of(over: usize, under: usize) -> Self {
        let common = gcd(over, under).max(1);
        Self { over: over / common, under: under / common }
    }

    /// This rate times `over / under`, where that is sane.
    fn times(self, over: usize, under: usize) -> Planned<Self> {
        let both = (self.over.checked_mul(over), self.under.checked_mul(under));
        let (Some(over), Some(under)) = both else { return Err("the sizes overflow".to_owned()) };
        let rate = Self::of(over, under);
        if rate.over == 0 || rate.under == 0 || rate.over.max(rate.under) > LARGEST_RATE {
            return Err(format!("{over}/{under} of the image's size; at most {LARGEST_RATE}"));
        }
        Ok(rate)
    }

    fn area(self) -> f64 {
        let side = self.over as f64 / self.under as f64;
        side * side
    }

    /// Pixels of the image between two of this map.
    fn unit(self) -> f64 {
        self.under as f64 / self.over as f64
    }
}

impl Shape {
    const fn channels(self) -> usize {
        match self {
            Self::Map { channels, .. } | Self::Vector { channels } => channels,
        }
    }

    const fn rate(self) -> Option<Rate> {
        match self {
            Self::Map { rate, .. } => Some(rate),
            Self::Vector { .. } => None,
        }
    }

    /// The same with other channels.
    fn with(self, channels: usize) -> Planned<Self> {
        if channels == 0 || channels > MOST_CHANNELS {
            return Err(format!("{channels} channels; 1 to {MOST_CHANNELS} are possible"));
        }
        Ok(match self {
            Self::Map { rate, .. } => Self::Map { channels, rate },
            Self::Vector { .. } => Self::Vector { channels },
        })
    }

    fn floats(self) -> f64 {
        self.rate().map_or(0.0, |rate| self.channels() as f64 * rate.area())
    }
}

const fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

fn lcm(a: usize, b: usize) -> usize {
    (a / gcd(a, b).max(1)).saturating_mul(b)
}

fn to_pixels(v: f64) -> Planned<usize> {
    if !(0.0..1e6).contains(&v) {
        return Err(format!("its result starts at pixel {v} of the image"));
    }
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // In range, as was seen.
    Ok(v as usize)
}

/// What each layer makes of what it reads.
fn shapes(layers: &[Layer], channels: usize) -> Planned<Vec<Shape>> {
    let mut all = vec![Shape::Map { channels, rate: Rate { over: 1, under: 1 } }];
    for (i, layer) in layers.iter().enumerate() {
        let named = |cause: String| format!("layer {} ({}): {cause}", i + 1, layer.name);
        let [least, most] = layer.kind.arity();
        if layer.from.len() < least || layer.from.len() > most || layer.from.iter().any(|&v| v > i)
        {
            return Err(named(format!("it reads the values {:?}", layer.from)));
        }
        let read: Vec<Shape> = layer.from.iter().map(|&v| all[v]).collect();
        all.push(shape(&layer.kind, &read).map_err(named)?);
    }
    Ok(all)
}

fn shape(kind: &Kind, read: &[Shape]) -> Planned<Shape> {
    let map = |shape: Shape| shape.rate().ok_or_else(|| "it reads a vector, not a map".to_owned());
    let takes = |shape: Shape, channels: usize| match shape.channels() == channels {
        true => Ok(shape),
        false => Err(format!("it takes {channels} channels, not {}", shape.channels())),
    };
    let alike = |read: &[Shape]| {
        let mut rates = read.iter().filter_map(|s| s.rate());
        let first = rates.next();
        match rates.all(|rate| Some(rate) == first) {
            true => Ok(()),
            false => Err("it reads maps of different sizes".to_owned()),
        }
    };
    match kind {
        Kind::Convolution(w) => {
            let rate = map(takes(read[0], w.channels[0])?)?.times(1, w.stride)?;
            check(w)?;
            Shape::Map { channels: 1, rate }.with(w.channels[1])
        }
        Kind::Deconvolution(w) => {
            let rate = map(takes(read[0], w.channels[0])?)?.times(w.stride, 1)?;
            check(w)?;
            Shape::Map { channels: 1, rate }.with(w.channels[1])
        }
        Kind::Linear { channels, .. } => match takes(read[0], channels[0])? {
            Shape::Vector { .. } => Shape::Vector { channels: 1 }.with(channels[1]),
            Shape::Map { .. } => Err("it reads a map, not a vector".to_owned()),
        },
        Kind::Activation { .. } | Kind::Affine { .. } => Ok(read[0]),
        Kind::Prelu { slopes: 1 } => Ok(read[0]),
        Kind::Prelu { slopes } => takes(read[0], *slopes),
        Kind::Constant { channels } => Shape::Vector { channels: 1 }.with(*channels),
        Kind::Concat => {
            read.iter().try_for_each(|&s| map(s).map(drop))?;
            alike(read)?;
            let channels = read.iter().map(|s| s.channels()).fold(0, usize::saturating_add);
            read[0].with(channels)
        }
        Kind::Sum { .. } | Kind::Product | Kind::Gate => {
            alike(read)?;
            read.iter().try_for_each(|&s| takes(s, read[0].channels()).map(drop))?;
            if let Kind::Sum { factors } = kind
                && factors.len() != read.len()
            {
                return Err(format!("{} factors for {} values", factors.len(), read.len()));
            }
            if *kind == Kind::Gate && (read[0].rate().is_none() || read[1].rate().is_some()) {
                return Err("it needs a map and a vector".to_owned());
            }
            Ok(read.iter().copied().find(|s| s.rate().is_some()).unwrap_or(read[0]))
        }
        Kind::GlobalMean => map(read[0]).map(|_| Shape::Vector { channels: read[0].channels() }),
        Kind::PixelShuffle { factor } => {
            let (rate, parts) = (map(read[0])?.times(*factor, 1)?, factor * factor);
            if !read[0].channels().is_multiple_of(parts) {
                return Err(format!("{} channels are no multiple of {parts}", read[0].channels()));
            }
            Ok(Shape::Map { channels: read[0].channels() / parts, rate })
        }
        Kind::Interpolate { over, under, .. } => Ok(Shape::Map {
            channels: read[0].channels(),
            rate: map(read[0])?.times(*over, *under)?,
        }),
        Kind::Crop { before, after } => {
            sane(&[*before, *after])?;
            map(read[0]).map(|_| read[0])
        }
        Kind::CropLike { before } => {
            sane(&[*before])?;
            map(read[0])?;
            map(read[1])?;
            alike(read)?;
            Ok(read[0])
        }
    }
}

fn check(w: &Window) -> Planned<()> {
    sane(&[w.pad])?;
    match w.kernel {
        1..=64 => Ok(()),
        k => Err(format!("a kernel of {k} x {k}; 1 to 64 are possible")),
    }
}

fn sane(pixels: &[usize]) -> Planned<()> {
    match pixels.iter().find(|&&p| p > LARGEST_BORDER) {
        Some(p) => Err(format!("{p} pixels at an edge; at most {LARGEST_BORDER} are possible")),
        None => Ok(()),
    }
}

/// How many pixels both sides of the image together need beyond its own, so that the result is as large as it
/// should be.
fn border(layers: &[Layer], shapes: &[Shape], align: usize) -> Planned<usize> {
    let mut first = None;
    for total in 0..=2 * LARGEST_BORDER {
        match rests(layers, shapes, align, total as i64) {
            Ok(0) => return Ok(total),
            Ok(_) => {}
            Err(cause) => drop(first.get_or_insert(cause)),
        }
    }
    let cause = first.unwrap_or_else(|| "its result is never a whole multiple".to_owned());
    Err(format!("no border makes the sizes fit: {cause}"))
}

/// The rest of the result's side when the image's has the rest `total`.
fn rests(layers: &[Layer], shapes: &[Shape], align: usize, total: i64) -> Planned<i64> {
    let mut all = vec![total];
    for (i, layer) in layers.iter().enumerate() {
        let read: Vec<i64> = layer.from.iter().map(|&v| all[v]).collect();
        let maps = layer.from.iter().zip(&read).filter(|(v, _)| shapes[**v].rate().is_some());
        let same = |cause: &str| {
            let mut rests = maps.clone().map(|(_, rest)| rest);
            let first = rests.next().copied().unwrap_or(0);
            match rests.all(|&rest| rest == first) {
                true => Ok(first),
                false => Err(format!("layer {} ({}): {cause}", i + 1, layer.name)),
            }
        };
        let rest = match &layer.kind {
            Kind::Convolution(w) => {
                (read[0] + 2 * w.pad as i64 - w.kernel as i64).div_euclid(w.stride as i64) + 1
            }
            Kind::Deconvolution(w) => {
                (read[0] - 1) * w.stride as i64 - 2 * w.pad as i64 + w.kernel as i64
            }
            Kind::Constant { .. } | Kind::GlobalMean | Kind::Linear { .. } => 0,
            Kind::PixelShuffle { factor } => read[0] * *factor as i64,
            Kind::Interpolate { over, under, .. } => {
                (read[0] * *over as i64).div_euclid(*under as i64)
            }
            Kind::Crop { before, after } => read[0] - (before + after) as i64,
            Kind::CropLike { before } => {
                // The sides grow alike, so it is the rests that must fit.
                if read[1] + *before as i64 > read[0] {
                    return Err(format!("layer {} ({}): cut off too much", i + 1, layer.name));
                }
                read[1]
            }
            _ => same("it reads maps of different sizes")?,
        };
        all.push(rest);
    }
    debug_assert!(align > 0, "every rate times it is whole, so rests are all that sizes differ by");
    Ok(all.last().copied().unwrap_or(0))
}

/// What a pixel of a value sees of the image.
#[derive(Clone, Copy)]
struct View {
    /// Where the left edge of the first pixel lies, in pixels of the image with its border.
    origin: f64,
    /// How far beyond the pixel's own edges it sees.
    left: f64,
    right: f64,
    /// Whether it sees a mean over everything.
    whole: bool,
}

/// What each value sees; where `by_blocks`, what its bits depend on.
fn views(layers: &[Layer], shapes: &[Shape], by_blocks: bool) -> Planned<Vec<View>> {
    let mut all = vec![View { origin: 0.0, left: 0.0, right: 0.0, whole: false }];
    for (i, layer) in layers.iter().enumerate() {
        let unit = |v: usize| shapes[v].rate().map_or(0.0, Rate::unit);
        let (mine, theirs) = (unit(i + 1), layer.from.first().map_or(0.0, |&v| unit(v)));
        let mut view = joined(layer, shapes, &all);
        let mut wider = |by: f64| (view.left, view.right) = (view.left + by, view.right + by);
        match &layer.kind {
            Kind::Convolution(w) => {
                // As the convolution chooses, whatever the border.
                wider(match (by_blocks, w.kernel, w.stride) {
                    (true, 3, 1) => theirs * BLOCK as f64,
                    _ => theirs * (w.kernel as f64 - w.stride as f64) / 2.0,
                });
                let half = w.kernel as f64 / 2.0 - w.stride as f64 / 2.0;
                view.origin += theirs * (half - w.pad as f64);
            }
            Kind::Deconvolution(w) => {
                wider(theirs / 2.0 + mine * (w.kernel as f64 / 2.0 - 1.0));
                view.origin += theirs / 2.0 - mine * (w.kernel as f64 / 2.0 - w.pad as f64);
            }
            Kind::GlobalMean => view.whole = true,
            Kind::PixelShuffle { .. } => wider(theirs - mine),
            // The centres of up to two pixels on each side.
            Kind::Interpolate { .. } => wider(2.0 * theirs),
            Kind::Crop { before, .. } | Kind::CropLike { before } => {
                view.origin += theirs * *before as f64;
            }
            _ => {}
        }
        all.push(view);
    }
    Ok(all)
}

/// The view of what `layer` reads: where the first map lies, as wide as all of them see.
fn joined(layer: &Layer, shapes: &[Shape], all: &[View]) -> View {
    let maps = layer.from.iter().filter(|&&v| shapes[v].rate().is_some());
    // What a map is cut to matters for its size alone.
    let maps = maps.take(if matches!(layer.kind, Kind::CropLike { .. }) { 1 } else { usize::MAX });
    let mut maps = maps.map(|&v| all[v]);
    let mut view = maps.next().unwrap_or(View { origin: 0.0, left: 0.0, right: 0.0, whole: false });
    for other in maps {
        let moved = other.origin - view.origin;
        view.left = view.left.max(other.left - moved);
        view.right = view.right.max(other.right + moved);
    }
    view.whole = layer.from.iter().any(|&v| all[v].whole);
    view
}

fn last_uses(layers: &[Layer]) -> Vec<Option<usize>> {
    let mut last = vec![None; layers.len() + 1];
    for (i, layer) in layers.iter().enumerate() {
        layer.from.iter().for_each(|&v| last[v] = Some(i));
    }
    last
}

/// The floats alive at the peak for each pixel of the image, with what layers hold while they run.
fn floats(layers: &[Layer], shapes: &[Shape], last_use: &[Option<usize>]) -> f64 {
    let mut alive = shapes[0].floats();
    let mut peak = alive;
    for (i, layer) in layers.iter().enumerate() {
        let made = shapes[i + 1].floats();
        // An activation, a cut or a product with a vector goes through memory once more.
        let passes = match &layer.kind {
            Kind::Convolution(_) | Kind::Deconvolution(_) | Kind::Product => 2.0,
            Kind::Sum { factors } if factors.len() > 2 => 2.0,
            _ => 1.0,
        };
        alive += made;
        peak = peak.max(alive + made * (passes - 1.0));
        let read = layer.from.iter().enumerate().filter(|(k, v)| !layer.from[..*k].contains(v));
        let done = read.map(|(_, v)| *v).filter(|&v| last_use[v] == Some(i));
        alive -= done.map(|v| shapes[v].floats()).sum::<f64>();
    }
    // The image that leaves: mapped to the range of images.
    peak.max(alive + shapes.last().map_or(0.0, |s| s.floats()))
}
