//! How much memory the work on a picture may take: the process as a whole is meant, with the decoded
//! picture, the tiles, the output on its way and what the encoder holds.
use super::bands::{Resampled, strip_rows};
use super::{BandCost, Plan, Settings, TileSize, Upscaler, least_bytes, plan_bands};
use crate::engine::device::Device;
use crate::engine::memory::{self, in_words};
use crate::engine::threads;
use crate::error::{Error, Report, Result};
use crate::imaging::encode::{self, Format, Outline};
use crate::imaging::header::Header;
use crate::imaging::resample::Strips;

/// Bytes for tiles and the rows of the output on their way, unless `--ram` says otherwise: larger
/// tiles gain little.
const WORKING: u64 = 512 << 20;
/// Pictures and outputs of at most so many bytes wait for their turn, so that decoding, the network
/// and encoding overlap.
const SMALL: u64 = 16 << 20;
/// The most pixels of an output, 2^36: beyond it a factor is a mistake.
const MOST_PIXELS: u64 = 1 << 36;
/// Strips on their way to the encoder, where not the whole output is.
const STRIPS: u64 = 4;
/// With more [`Plan::effort`] than this, tiles are mostly surroundings.
const CRAWL: f64 = 3.0;
/// With more than this the picture takes more than [`WORKING`] bytes if it then goes through in one, but no more than these.
const DETOUR: f64 = 1.25;
const ROOMY: u64 = 2 << 30;
/// What comes to the process with the work: pages of its code, small blocks of the allocator; and for each thread the
/// scratch of its convolutions, and its stack.
const CODE: u64 = 6 << 20;
const THREAD: u64 = 2 << 20;

/// What the process may take.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// What it takes beside pictures and tiles.
    base: u64,
    /// What it may take, if that was said.
    ram: Option<u64>,
    /// What it can take.
    most: u64,
    /// Whether pictures wait for each other.
    several: bool,
}

/// A picture and what is to become of it.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// The name for messages.
    pub name: &'a str,
    /// The picture's size.
    pub from: (usize, usize),
    /// Bytes of the picture as decoded.
    pub picture: u64,
    /// The file to write.
    pub output: &'a Outline,
    /// Its format.
    pub format: Format,
    /// Bytes of the output, as the model makes it, that are held until all is there.
    pub collected: u64,
}

impl Budget {
    /// A budget for a process that takes now what it takes before any picture. `ram` bounds it, or
    /// what the system has free; `several` pictures overlap.
    pub fn new(ram: Option<u64>, several: bool) -> Self {
        let threads = threads::count() as u64;
        let base = memory::resident() + CODE + THREAD * threads;
        // The rest is for what cannot be foreseen.
        let most = base + memory::available() / 10 * 8;
        Self { base, ram, most, several }
    }

    /// What each of `count` works may take that share it.
    pub fn shared_by(self, count: u64) -> Self {
        let share = |all: u64| self.base + all.saturating_sub(self.base) / count.max(1);
        Self { ram: self.ram.map(share), most: share(self.most), ..self }
    }

    /// Bytes that freed buffers of the network and those in use may take together.
    pub fn for_tiles(plan: &Plan) -> usize {
        usize::try_from(plan.memory - plan.band).unwrap_or(usize::MAX)
    }

    /// Whether a picture is small enough to be decoded while another is in work.
    pub fn is_small(header: &Header) -> bool {
        header.decoding <= SMALL
    }

    /// How many strips of the output may wait for the encoder.
    pub fn waiting(output: &Outline) -> usize {
        let strip = strip_bytes(output);
        let all = bytes_of(output);
        let count = if all <= SMALL { all.div_ceil(strip) + 1 } else { STRIPS - 2 };
        usize::try_from(count).unwrap_or(1)
    }

    fn limit(&self) -> u64 {
        self.ram.unwrap_or(self.most)
    }

    /// Checks that the picture can be decoded at all.
    ///
    /// # Errors
    /// [`Error::Memory`] if it takes more than there is.
    pub fn check_decoding(&self, name: &str, file: u64, header: &Header) -> Result<()> {
        let needed = self.base.saturating_add(file).saturating_add(header.decoding);
        match needed > self.limit() {
            true => {
                let what = format!(
                    "{} for srk itself, the others for {}x{} pixels to decode",
                    in_words(self.base),
                    header.width,
                    header.height
                );
                Err(self.refuse(name, needed, &what, &self.more(needed)))
            }
            false => Ok(()),
        }
    }

    /// The tiles for a picture, so that all fits.
    ///
    /// # Errors
    /// [`Error::Memory`] if it does not; the message says what would.
    pub fn plan(
        &self,
        upscaler: &Upscaler,
        wanted: &Wanted<'_>,
        settings: &Settings,
    ) -> Result<Plan> {
        self.check_size(wanted)?;
        let fixed = self.fixed(upscaler, wanted);
        let left = self.limit().saturating_sub(fixed);
        let mut work = if self.ram.is_some() { left } else { left.min(WORKING) };
        let mut plan = self.plan_in(upscaler, wanted, settings, work);
        // More than usual where that is too little, and it is there.
        while self.ram.is_none() && work < left && !suffices(&plan) {
            work = work.saturating_mul(2).min(left);
            plan = self.plan_in(upscaler, wanted, settings, work);
        }
        let on_gpu = upscaler.system().network.device() != Device::Cpu;
        let detour = |plan: &Plan| plan.rolled.is_none() && plan.effort() > DETOUR;
        if !on_gpu && self.ram.is_none() && plan.as_ref().is_ok_and(detour) {
            let most = left.min(ROOMY);
            let mut more = std::iter::successors(Some(work), |w| Some(w.saturating_mul(3) / 2))
                .skip(1)
                .take_while(|&work| work <= most)
                .filter_map(|work| self.plan_in(upscaler, wanted, settings, work).ok());
            if let Some(rolled) = more.find(|plan| plan.rolled.is_some()) {
                plan = Ok(rolled);
            }
        }
        match plan {
            Ok(plan) if on_gpu || plan.memory <= left => Ok(plan),
            Ok(plan) => Err(self.too_large(upscaler, wanted, settings, fixed, plan.memory)),
            Err(Error::Memory(_)) if !on_gpu => {
                let least = self.least(upscaler, wanted, settings)?;
                Err(self.too_large(upscaler, wanted, settings, fixed, least))
            }
            Err(other) => Err(other),
        }
    }

    /// What is held beside the tiles with their band.
    fn fixed(&self, upscaler: &Upscaler, wanted: &Wanted<'_>) -> u64 {
        self.base.saturating_add(wanted.picture).saturating_add(self.beside(upscaler, wanted))
    }

    /// What to say of a plan whose tiles are mostly surroundings, for want of memory.
    pub fn advice(
        &self,
        upscaler: &Upscaler,
        wanted: &Wanted<'_>,
        settings: &Settings,
        plan: &Plan,
    ) -> Option<String> {
        let effort = plan.effort();
        if self.ram.is_none() || settings.tile != TileSize::Auto || effort <= CRAWL {
            return None;
        }
        let tile = plan.tiles.iter().map(|t| t.core.width.max(t.core.height)).max()?;
        let help = match self.roomy(upscaler, wanted, settings) {
            Some(needed) => format!("--ram {}M is enough for larger ones", with_margin(needed)),
            None => "fewer --steps need less".into(),
        };
        let halo = plan.halo;
        Some(format!(
            "in this memory {} tiles of {tile} pixels with {halo} around them fit, {effort:.1} times the \
             work of the picture alone; {help}",
            plan.tiles.len()
        ))
    }

    /// The least memory in which tiles are not mostly surroundings.
    fn roomy(&self, upscaler: &Upscaler, wanted: &Wanted<'_>, settings: &Settings) -> Option<u64> {
        let side = wanted.from.0.max(wanted.from.1);
        let of_parts = |parts: usize| {
            let tile = TileSize::Side(side.div_ceil(parts));
            self.plan_in(upscaler, wanted, &Settings { tile, ..*settings }, u64::MAX).ok()
        };
        // Also without tiles, where the picture can go through from top to bottom.
        let whole = self.plan_in(upscaler, wanted, settings, u64::MAX).ok();
        let roomy = (1..=side).map_while(of_parts).take_while(|plan| plan.effort() <= CRAWL);
        let roomy = roomy.chain(whole.filter(|plan| plan.effort() <= CRAWL));
        let tiles = roomy.map(|plan| plan.memory).min()?;
        Some(self.fixed(upscaler, wanted).saturating_add(tiles))
    }

    fn plan_in(
        &self,
        upscaler: &Upscaler,
        wanted: &Wanted<'_>,
        settings: &Settings,
        work: u64,
    ) -> Result<Plan> {
        let on_gpu = upscaler.system().network.device() != Device::Cpu;
        let settings =
            Settings { memory: if on_gpu { settings.memory } else { work }, ..*settings };
        let band = self.band(upscaler, wanted, work);
        plan_bands(upscaler, wanted.from.0, wanted.from.1, &settings, band)
    }

    /// What tiles take at least.
    fn least(&self, upscaler: &Upscaler, wanted: &Wanted<'_>, settings: &Settings) -> Result<u64> {
        let band = self.band(upscaler, wanted, u64::MAX);
        least_bytes(upscaler, wanted.from.0, wanted.from.1, settings, band)
    }

    /// What the output takes for a low-resolution row of a band, before it is resampled.
    fn band(&self, upscaler: &Upscaler, wanted: &Wanted<'_>, host: u64) -> BandCost {
        let scale = upscaler.system().scale() as u64;
        let pixel = wanted.output.bytes_per_pixel() as u64;
        let row = |pixel: u64| (wanted.from.0 as u64 * scale * scale).saturating_mul(pixel);
        // Sums of three colours and a weight, and then their means.
        BandCost { row: row(pixel), blended: row(16 + 12 + pixel), host }
    }

    /// What is held beside the picture and the tiles with their band.
    fn beside(&self, upscaler: &Upscaler, wanted: &Wanted<'_>) -> u64 {
        let output = wanted.output;
        let scale = upscaler.system().scale();
        let large = (wanted.from.0 * scale, wanted.from.1 * scale);
        let to = (output.width, output.height);
        let resampling = match large == to {
            true => 0,
            false => Strips::bytes(large, to, output.bytes_per_pixel()),
        };
        let waiting = match bytes_of(output) <= SMALL {
            true => bytes_of(output) * if self.several { 3 } else { 1 },
            false => STRIPS * strip_bytes(output),
        };
        let next = if self.several { 2 * SMALL } else { 0 };
        let encoder = encode::memory(output, wanted.format);
        // Transparent pixels get other colours in a copy.
        let bled = if output.alpha { wanted.picture } else { 0 };
        let encoder = encoder.saturating_add(bled).saturating_add(wanted.collected);
        resampling.saturating_add(waiting).saturating_add(next).saturating_add(encoder)
    }

    fn check_size(&self, wanted: &Wanted<'_>) -> Result<()> {
        let (width, height) = (wanted.output.width, wanted.output.height);
        let pixels = (width as u64).saturating_mul(height as u64);
        if pixels <= MOST_PIXELS {
            return Ok(());
        }
        let area = wanted.from.0 as f64 * wanted.from.1 as f64;
        let factor = (MOST_PIXELS as f64 / area).sqrt().floor();
        let what = format!("cannot enlarge {} to {width}x{height}", wanted.name);
        let (has, most) = (pixels / 1_000_000, MOST_PIXELS / 1_000_000);
        let cause = format!("that is {has} megapixels; the most is {most}");
        Err(Error::Memory(
            Report::new(what, cause).help(format!("-s {factor} is the largest factor")),
        ))
    }

    fn too_large(
        &self,
        upscaler: &Upscaler,
        wanted: &Wanted<'_>,
        settings: &Settings,
        fixed: u64,
        tiles: u64,
    ) -> Error {
        let needed = fixed.saturating_add(tiles);
        let beside = self.beside(upscaler, wanted);
        let what = format!(
            "{} for srk itself, {} for the picture, {} for tiles, {} for the output",
            in_words(self.base),
            in_words(wanted.picture),
            in_words(tiles),
            in_words(beside)
        );
        let whole =
            matches!(wanted.format, Format::WebP | Format::Bmp | Format::Avif) && beside > tiles;
        let help = match settings.tile {
            _ if whole => {
                let name = wanted.format.name();
                format!(
                    "write a .png, which needs no more than a part at a time; {name} is held whole"
                )
            }
            TileSize::Auto => self.more(needed),
            TileSize::None | TileSize::Side(_) | TileSize::Sides(..) => {
                "leave -t out, for tiles that fit".into()
            }
        };
        self.refuse(wanted.name, needed, &what, &help)
    }

    fn more(&self, needed: u64) -> String {
        let mib = with_margin(needed);
        match self.ram {
            Some(_) if needed <= self.most => format!("--ram {mib}M is enough"),
            _ => format!(
                "it takes {mib} MiB of free memory; fewer --steps or smaller pictures take less"
            ),
        }
    }

    fn refuse(&self, name: &str, needed: u64, what: &str, help: &str) -> Error {
        let (needed, limit) = (in_words(needed), in_words(self.limit()));
        let of = if self.ram.is_some() { "--ram is" } else { "there are" };
        let cause = format!("it needs {needed} ({what}); {of} {limit}");
        Error::Memory(Report::new(format!("{name} does not fit in memory"), cause).help(help))
    }
}

/// Whether there are tiles, and not mostly their surroundings.
fn suffices(plan: &Result<Plan>) -> bool {
    match plan {
        Ok(plan) => plan.effort() <= CRAWL,
        Err(error) => !matches!(error, Error::Memory(_)),
    }
}

/// The MiB to name where `needed` bytes are: what the process takes before any work is not the same every time.
fn with_margin(needed: u64) -> u64 {
    needed.saturating_add(needed / 16).div_ceil(1 << 20)
}

/// Bytes of the whole output.
fn bytes_of(output: &Outline) -> u64 {
    let pixels = (output.width as u64).saturating_mul(output.height as u64);
    pixels.saturating_mul(output.bytes_per_pixel() as u64)
}

fn strip_bytes(output: &Outline) -> u64 {
    let (row, rows) = (
        (output.width * output.bytes_per_pixel()) as u64,
        strip_rows(output.width, output.bytes_per_pixel()),
    );
    (row * rows as u64).max(1)
}

/// The size of an image times `scale`, at least 1.
pub fn target((width, height): (usize, usize), scale: f64) -> (usize, usize) {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // A size, at least 1.
    let side = |v: usize| ((v as f64 * scale).round() as usize).max(1);
    (side(width), side(height))
}

/// What takes strips of the model's output to the size wanted, if that is another.
///
/// # Errors
/// If a side is 0.
pub fn resampler(
    image: &crate::imaging::Image,
    scale: usize,
    to: (usize, usize),
) -> Result<Option<Resampled>> {
    let large = (image.width * scale, image.height * scale);
    (large != to).then(|| Resampled::new(image, large, to)).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diffusion::system::System;
    use crate::engine::device::DType;
    use crate::imaging::{Color, Depth, Image};

    #[test]
    fn large_pictures_take_little_unless_more_is_allowed() {
        let system = System::open(System::embedded()[0]).unwrap();
        let upscaler = Upscaler::new(system, &Device::Cpu, DType::F32).unwrap();
        let budget = Budget { base: 64 << 20, ram: None, most: 64 << 30, several: true };
        let settings = Settings { steps: None, seed: 1, tile: TileSize::Auto, memory: 0 };
        let like = Outline::of(&Image::new(1, 1, Color::Rgb, Depth::Eight));
        for (from, megabytes) in
            [((4000, 3000), 1000), ((8000, 4000), 1500), ((10_000, 10_000), 2000)]
        {
            for format in [Format::Png, Format::Jpeg, Format::Tiff] {
                let output = Outline { width: 4 * from.0, height: 4 * from.1, ..like.clone() };
                let picture = 3 * (from.0 * from.1) as u64;
                let wanted =
                    Wanted { name: "", from, picture, output: &output, format, collected: 0 };
                let plan = budget.plan(&upscaler, &wanted, &settings).unwrap();
                let bytes = budget.fixed(&upscaler, &wanted) + plan.memory;
                assert!(bytes < megabytes * 1_000_000, "{from:?} {format:?}: {bytes}");
                assert!(plan.effort() <= CRAWL, "{from:?}: {}", plan.effort());
            }
        }
    }

    /// Many steps of a wide picture take more than usual if it goes through in one then, unless that was forbidden.
    #[test]
    fn wide_pictures_go_through_in_one_where_there_is_memory() {
        let system = System::open(System::embedded()[0]).unwrap();
        let upscaler = Upscaler::new(system, &Device::Cpu, DType::F32).unwrap();
        let settings = Settings { steps: Some(4), seed: 1, tile: TileSize::Auto, memory: 0 };
        let (from, like) = ((2000, 240), Outline::of(&Image::new(1, 1, Color::Rgb, Depth::Eight)));
        let output = Outline { width: 4 * from.0, height: 4 * from.1, ..like };
        let (picture, format) = (3 * (from.0 * from.1) as u64, Format::Png);
        let wanted = Wanted { name: "", from, picture, output: &output, format, collected: 0 };
        for (ram, most, rolls) in
            [(None, 64 << 30, true), (None, 750 << 20, false), (Some(600 << 20), 64 << 30, false)]
        {
            let budget = Budget { base: 64 << 20, ram, most, several: false };
            let plan = budget.plan(&upscaler, &wanted, &settings).unwrap();
            assert_eq!(plan.rolled.is_some(), rolls, "{ram:?} of {most}: {} bytes", plan.memory);
            assert!(budget.fixed(&upscaler, &wanted) + plan.memory <= ram.unwrap_or(most));
        }
    }

    /// What is said to be the least suffices, and less does not; tiles are not listed for that.
    #[test]
    fn the_least_is_what_works() {
        let system = System::open(System::embedded()[0]).unwrap();
        let upscaler = Upscaler::new(system, &Device::Cpu, DType::F32).unwrap();
        let budget = Budget { base: 0, ram: Some(0), most: 64 << 30, several: false };
        let settings = Settings { steps: None, seed: 1, tile: TileSize::Auto, memory: 0 };
        let like = Outline::of(&Image::new(1, 1, Color::Rgb, Depth::Eight));
        for from in [(300, 200), (7, 1000), (1, 1)] {
            let output = Outline { width: 4 * from.0, height: 4 * from.1, ..like.clone() };
            let format = Format::Png;
            let wanted =
                Wanted { name: "", from, picture: 0, output: &output, format, collected: 0 };
            let least = budget.least(&upscaler, &wanted, &settings).unwrap();
            let all = budget.fixed(&upscaler, &wanted) + least;
            let given = |ram: u64| Budget { ram: Some(ram), ..budget };
            assert!(given(all).plan(&upscaler, &wanted, &settings).unwrap().memory <= least);
            let refused = given(all - 1).plan(&upscaler, &wanted, &settings).unwrap_err();
            assert_eq!(refused.exit_code(), 5);
        }
        // Millions of the smallest tiles: listing them would take seconds and hundreds of MiB.
        let (from, started) = ((40_000, 40_000), std::time::Instant::now());
        let output = Outline { width: 4, height: 4, ..like };
        let format = Format::Png;
        let wanted = Wanted { name: "", from, picture: 0, output: &output, format, collected: 0 };
        assert!(budget.plan(&upscaler, &wanted, &settings).is_err());
        assert!(started.elapsed().as_secs() < 5, "{:?}", started.elapsed());
    }
}
