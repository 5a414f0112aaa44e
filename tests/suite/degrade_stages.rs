//! Stages of damage against their formulas.
#![allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::unwrap_used)]
use std::f64::consts::PI;

use srk::data::degrade::{
    Blur, Degrade, DegradeConfig, Draws, KernelKind, Mode, NoiseKind, Planes, Preset, Process,
};
use srk::data::folder::Rgb8;
use srk::imaging::lossy::{self, Chroma};
use srk::imaging::{Color, Image, artefacts, deblock};

fn blur(kind: KernelKind, size: usize, sigma: [f64; 2], angle: f64, beta: f64) -> Blur {
    Blur { kind, size, sigma_x: sigma[0], sigma_y: sigma[1], angle, beta, cutoff: 0.0 }
}

/// Three channels of `value(x, y)`.
pub(super) fn planes(width: usize, height: usize, value: impl Fn(f64, f64) -> f64) -> Planes {
    let at = |i: usize| value((i % width) as f64, (i / width) as f64) as f32;
    let plane: Vec<f32> = (0..width * height).map(at).collect();
    Planes { width, height, planes: vec![plane.clone(), plane.clone(), plane] }
}

/// What a blur makes of a single bright pixel: its kernel, `[side, side]`.
fn impulse(blur: Blur, side: usize) -> Vec<f64> {
    let middle = (side / 2) as f64;
    let mut image = planes(side, side, |x, y| if x == middle && y == middle { 1.0 } else { 0.0 });
    image.blur(&blur.kernel());
    image.planes[0].iter().map(|&v| f64::from(v)).collect()
}

/// Sum, first moments about the middle, and second moments xx, yy, xy.
fn moments(weights: &[f64], side: usize) -> [f64; 6] {
    let middle = (side / 2) as f64;
    let mut m = [0.0; 6];
    for (i, &w) in weights.iter().enumerate() {
        let (x, y) = ((i % side) as f64 - middle, (i / side) as f64 - middle);
        for (m, v) in m.iter_mut().zip([1.0, x, y, x * x, y * y, x * y]) {
            *m += w * v;
        }
    }
    m
}

#[test]
fn gaussians_have_the_widths_and_the_angle_that_were_asked_for() {
    let cases = [([1.0, 1.0], 0.0), ([2.0, 1.0], 0.0), ([2.4, 0.9], 0.6), ([1.0, 2.2], -1.2)];
    for (sigma, angle) in cases {
        let kind = if sigma[0] == sigma[1] { KernelKind::Iso } else { KernelKind::Aniso };
        let blur = blur(kind, 21, sigma, angle, 1.0);
        let [sum, x, y, xx, yy, xy] = moments(&impulse(blur, 41), 41);
        assert!((sum - 1.0).abs() < 1e-5 && x.abs() < 1e-5 && y.abs() < 1e-5, "{sum} {x} {y}");
        // The axes of the second moments.
        let (mean, half) = ((xx + yy) / 2.0, ((xx - yy) / 2.0).hypot(xy));
        let found = [(mean + half).sqrt(), (mean - half).sqrt()];
        let wanted = [sigma[0].max(sigma[1]), sigma[0].min(sigma[1])];
        for (found, wanted) in found.iter().zip(wanted) {
            // A Gaussian of 21 pixels ends at four of these widths.
            assert!((found / wanted - 1.0).abs() < 0.01, "{sigma:?} {angle}: {found} {wanted}");
        }
        if sigma[0] != sigma[1] {
            let long = if sigma[0] > sigma[1] { angle } else { angle + PI / 2.0 };
            let turned = 0.5 * (2.0 * xy).atan2(xx - yy) - long;
            assert!((turned / PI - (turned / PI).round()).abs() < 1e-3, "{sigma:?} {angle}");
        }
        assert!((blur.kernel().variance - mean).abs() < 1e-4);
    }
}

#[test]
fn relatives_of_gaussians_fall_as_their_formulas() {
    for beta in [0.6, 1.0, 1.7, 3.5] {
        // q = r^2 / 4: at r = 2 it is 1, at r = 4 it is 4, against the middle.
        for kind in [KernelKind::GeneralizedIso, KernelKind::PlateauIso] {
            let plateau = kind == KernelKind::PlateauIso;
            let law = |q: f64| match plateau {
                true => 1.0 / (1.0 + q.powf(beta)),
                false => (-0.5 * q.powf(beta)).exp(),
            };
            let weights = impulse(blur(kind, 15, [2.0, 2.0], 0.0, beta), 21);
            let at = |x: usize, y: usize| weights[(10 + y) * 21 + 10 + x];
            for (x, y) in [(2, 0), (0, 2), (1, 1), (2, 3)] {
                let q = (x * x + y * y) as f64 / 4.0;
                let ratio = at(x, y) / at(0, 0);
                assert!((ratio - law(q)).abs() < 1e-4, "{kind:?} {beta}: {ratio} {}", law(q));
            }
        }
    }
}

/// The response of the kernel to a wave of `omega` radians a pixel along `x`.
fn response(weights: &[f64], side: usize, omega: f64) -> f64 {
    let middle = (side / 2) as f64;
    let wave = |i: usize| (omega * ((i % side) as f64 - middle)).cos();
    weights.iter().enumerate().map(|(i, w)| w * wave(i)).sum()
}

#[test]
fn a_sinc_passes_below_its_cutoff_and_stops_above() {
    for cutoff in [PI / 3.0, PI / 2.0, 0.8 * PI] {
        let weights = impulse(Blur::sinc(21, cutoff), 41);
        assert!((weights.iter().sum::<f64>() - 1.0).abs() < 1e-5);
        let [below, at, above] = [0.7, 1.0, 1.3].map(|f| response(&weights, 41, f * cutoff));
        assert!((below - 1.0).abs() < 0.15, "{cutoff}: {below}");
        assert!((at - 0.5).abs() < 0.15, "{cutoff}: {at}");
        assert!(cutoff * 1.3 > PI || above.abs() < 0.15, "{cutoff}: {above}");
    }
}

#[test]
fn blurs_and_resizings_leave_a_ramp_where_it_is() {
    let value = |x: f64, y: f64| 20.0 + 0.8 * x + 0.5 * y;
    let check = |image: &Planes, pitch: [f64; 2], edge: usize, what: &str| {
        for y in edge..image.height - edge {
            for x in edge..image.width - edge {
                let place = |i: usize, pitch: f64| (i as f64 + 0.5) * pitch - 0.5;
                let wanted = value(place(x, pitch[0]), place(y, pitch[1]));
                let found = f64::from(image.planes[1][y * image.width + x]);
                assert!((found - wanted).abs() < 2e-3, "{what} at {x}, {y}: {found} {wanted}");
            }
        }
    };
    let image = planes(96, 72, value);
    for kind in [KernelKind::Iso, KernelKind::Aniso, KernelKind::PlateauAniso] {
        let mut blurred = image.clone();
        blurred.blur(&blur(kind, 21, [2.0, 1.3], 0.5, 1.0).kernel());
        check(&blurred, [1.0, 1.0], 10, "blur");
    }
    let mut ringing = image.clone();
    ringing.blur(&Blur::sinc(13, 1.2).kernel());
    check(&ringing, [1.0, 1.0], 6, "sinc");
    for antialias in [false, true] {
        for (width, height) in [(24, 18), (48, 36), (31, 50), (96, 72), (120, 100)] {
            for mode in [Mode::Bilinear, Mode::Bicubic, Mode::Lanczos, Mode::Area] {
                let (small, _) = image.resized((width, height), mode, antialias);
                let pitch = [96.0 / width as f64, 72.0 / height as f64];
                let moved = displacement(&small, pitch, value);
                assert!(moved.abs() < 2e-3, "{mode:?} {width} {antialias}: {moved}");
            }
        }
    }
}

/// The mean of what the middle of an image has more than `value`. Filters that keep no ramp straight
/// err to both sides alike; one that moves it does not.
fn displacement(image: &Planes, pitch: [f64; 2], value: impl Fn(f64, f64) -> f64) -> f64 {
    let (mut sum, mut count) = (0.0, 0.0);
    for y in image.height / 4..image.height - image.height / 4 {
        for x in image.width / 4..image.width - image.width / 4 {
            let place = |i: usize, pitch: f64| (i as f64 + 0.5) * pitch - 0.5;
            let wanted = value(place(x, pitch[0]), place(y, pitch[1]));
            sum += f64::from(image.planes[1][y * image.width + x]) - wanted;
            count += 1.0;
        }
    }
    sum / count
}

#[test]
fn resizings_keep_the_mean_and_lose_what_they_should() {
    let image = planes(64, 64, |x, y| 100.0 + 50.0 * (0.4 * x).sin() + 30.0 * (0.3 * y).cos());
    let mean = |p: &Planes| {
        p.planes[0].iter().map(|&v| f64::from(v)).sum::<f64>() / p.planes[0].len() as f64
    };
    let (small, variance) = image.resized((16, 16), Mode::Area, true);
    assert!((mean(&small) - mean(&image)).abs() < 1e-3);
    // 4 pixels at -1.5, -0.5, 0.5, 1.5.
    assert!((variance - 1.25).abs() < 1e-6, "{variance}");
    // The mean of 4x4 pixels, exactly.
    let block: f32 = (0..4).flat_map(|y| &image.planes[0][y * 64..][..4]).sum::<f32>() / 16.0;
    assert!((small.planes[0][0] - block).abs() < 1e-4);
    // Pixels that alternate: area and antialiased filters see gray, a bilinear one between two pixels
    // too, but one that falls on pixels does not.
    let stripes = planes(60, 60, |x, _| if (x as usize).is_multiple_of(2) { 200.0 } else { 0.0 });
    for mode in [Mode::Area, Mode::Bilinear, Mode::Bicubic, Mode::Lanczos] {
        let (gray, _) = stripes.resized((15, 15), mode, true);
        let inner = (5..10).map(|x| gray.planes[0][7 * 15 + x]);
        assert!(inner.into_iter().all(|v| (v - 100.0).abs() < 2.0), "{mode:?}");
    }
    let (aliased, _) = stripes.resized((20, 20), Mode::Bilinear, false);
    let spread = (5..15).map(|x| aliased.planes[0][10 * 20 + x]);
    assert!(spread.into_iter().all(|v| v == 0.0 || v == 200.0));
    let (same, variance) = stripes.resized((60, 60), Mode::Bicubic, false);
    assert!(same.planes == stripes.planes && variance.abs() < 1e-6);
}

/// Against sums by hand: torch's windows without antialiasing, shares of pixels with it.
#[test]
fn areas_are_torchs_windows_or_shares_of_pixels() {
    let line = [10.0f64, 20.0, 30.0, 40.0, 70.0];
    let rows = planes(5, 1, |x, _| line[x as usize]);
    for (width, antialias, wanted) in [
        // Columns 0 1 2 | 2 3 4.
        (2, false, &[20.0, 140.0 / 3.0][..]),
        // 0 1 | 1 2 3 | 3 4.
        (3, false, &[15.0, 30.0, 55.0]),
        // 0 | 0 1 | 1 2 | 2 3 | 3 4 | 4, of 5/6 each: 0..1, 0..2, 1..3, 2..4, 3..5, 4..5.
        (6, false, &[10.0, 15.0, 25.0, 35.0, 55.0, 70.0]),
        // Two columns and a half each.
        (2, true, &[18.0, 50.0]),
        (1, false, &[34.0]),
        (5, false, &line),
    ] {
        let (small, _) = rows.resized((width, 1), Mode::Area, antialias);
        let found: Vec<f64> = small.planes[0].iter().map(|&v| f64::from(v)).collect();
        let off = found.iter().zip(wanted).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        assert!(found.len() == width && off < 1e-4, "{width} {antialias}: {found:?}");
    }
    // Rows as columns.
    let (column, _) = planes(1, 5, |_, y| line[y as usize]).resized((1, 3), Mode::Area, false);
    assert!(column.planes[0].iter().zip([15.0, 30.0, 55.0]).all(|(a, b)| (a - b).abs() < 1e-4));
}

/// The quantisation tables of a JPEG in zigzag order, and the sampling factors of its components.
fn tables(bytes: &[u8]) -> (Vec<Vec<u8>>, Vec<u8>) {
    let (mut tables, mut sampling, mut at) = (Vec::new(), Vec::new(), 2);
    while bytes[at] == 0xFF && bytes[at + 1] != 0xDA {
        let length = usize::from(bytes[at + 2]) << 8 | usize::from(bytes[at + 3]);
        let segment = &bytes[at + 4..at + 2 + length];
        match bytes[at + 1] {
            0xDB => segment.chunks_exact(65).for_each(|t| tables.push(t[1..].to_vec())),
            0xC0 => sampling = segment[6..].chunks_exact(3).map(|c| c[1]).collect(),
            _ => {}
        }
        at += 2 + length;
    }
    (tables, sampling)
}

#[test]
fn jpegs_have_libjpegs_tables_and_the_sampling_that_was_asked_for() {
    // The first 10 of Annex K in zigzag order, and the last one.
    let luma = [16, 11, 12, 14, 12, 10, 16, 14, 13, 14, 99];
    let chroma = [17, 18, 18, 24, 21, 24, 47, 26, 26, 47, 99];
    let image = [90u8; 48 * 40 * 3];
    for quality in [1u8, 10, 30, 49, 50, 51, 75, 90, 95, 100] {
        let q = i32::from(quality);
        let scale = if q < 50 { 5000 / q } else { 200 - 2 * q };
        for (kind, factors) in [(Chroma::Halved, 0x22), (Chroma::Full, 0x11)] {
            let bytes = lossy::jpeg(&image, 48, 40, quality, kind).unwrap();
            let (tables, sampling) = tables(&bytes);
            assert_eq!(sampling, [factors, 0x11, 0x11]);
            for (table, base) in tables.iter().zip([luma, chroma]) {
                let found = table[..10].iter().chain(table.last());
                let wanted = base.iter().map(|b| ((b * scale + 50) / 100).clamp(1, 255));
                assert!(found.map(|&v| i32::from(v)).eq(wanted), "{quality} {table:?}");
            }
            assert_eq!(tables.len(), 2);
        }
    }
}

#[test]
fn a_jpeg_moves_neither_luma_nor_colours() {
    // Ramps of colour that 4:2:0 can hold, and their mirror images: what rounding adds is the same in both.
    let error = |kind: Chroma, turned: bool| {
        let at = |v: usize| if turned { 63 - v } else { v } as f64;
        let pixel = |i: usize| {
            let (x, y) = (at(i % 64), at(i / 64));
            [40.0 + 2.0 * x, 120.0, 200.0 - 2.0 * y].map(|v| v as u8)
        };
        let pixels: Vec<u8> = (0..64 * 64).flat_map(pixel).collect();
        let back = lossy::pixels(&lossy::jpeg(&pixels, 64, 64, 98, kind).unwrap()).unwrap();
        [0, 1, 2].map(|c| {
            let difference = |i: usize| f64::from(back[i * 3 + c]) - f64::from(pixels[i * 3 + c]);
            let inner = |i: &usize| (8..56).contains(&(i % 64)) && (8..56).contains(&(i / 64));
            (0..64 * 64).filter(inner).map(difference).sum::<f64>() / (48.0 * 48.0)
        })
    };
    for kind in [Chroma::Full, Chroma::Halved] {
        let (plain, turned) = (error(kind, false), error(kind, true));
        for c in 0..3 {
            // Half a pixel would be a whole level.
            let moved = (plain[c] - turned[c]) / 2.0;
            assert!(moved.abs() < 0.2, "{kind:?} channel {c}: {moved}");
            assert!(plain[c].abs() < 1.0, "{kind:?} channel {c}: {}", plain[c]);
        }
    }
}

#[test]
fn draws_come_as_often_as_the_keys_say() {
    let config = Preset::RealEsrgan.config();
    let all: Vec<_> = (0..10_000).map(|i| config.draw(&mut Draws::new(1, 2, i))).collect();
    let share = |what: &str, wanted: f64, test: &dyn Fn(&srk::data::degrade::Drawn) -> bool| {
        let found = all.iter().filter(|d| test(d)).count() as f64 / 10_000.0;
        let error = 5.0 * (wanted * (1.0 - wanted) / 10_000.0).sqrt();
        assert!((found - wanted).abs() <= error, "{what}: {found}, not {wanted}");
    };
    let kind = |k: KernelKind| move |d: &srk::data::degrade::Drawn| d.first.blur.unwrap().kind == k;
    share("sinc", 0.1, &kind(KernelKind::Sinc));
    share("iso", 0.9 * 0.45, &kind(KernelKind::Iso));
    share("aniso", 0.9 * 0.25, &kind(KernelKind::Aniso));
    share("plateau", 0.9 * 0.12, &kind(KernelKind::PlateauIso));
    share("up", 0.2, &|d| d.first.resize.unwrap().0 > 1.0);
    share("keep", 0.1, &|d| d.first.resize.unwrap().0 == 1.0);
    share("down", 0.4, &|d| d.second.resize.unwrap().0 < 1.0);
    share("area", 1.0 / 3.0, &|d| d.first.resize.unwrap().1 == Mode::Area);
    share("gaussian", 0.5, &|d| d.first.noise.unwrap().kind == NoiseKind::Gaussian);
    share("gray", 0.4, &|d| d.second.noise.unwrap().gray);
    share("second blur", 0.8, &|d| d.second.blur.is_some());
    share("final sinc", 0.8, &|d| d.sinc.is_some());
    share("order", 0.5, &|d| d.jpeg_last);
    share("kernels of 7", 1.0 / 8.0, &|d| d.first.blur.unwrap().size == 7);
    share("kernels of 21", 1.0 / 8.0, &|d| d.first.blur.unwrap().size == 21);
    for d in &all {
        let blur = d.first.blur.unwrap();
        assert!(blur.kind == KernelKind::Sinc || (0.2..3.0).contains(&blur.sigma_x));
        let quality = d.jpeg.unwrap().quality;
        assert!((30..=95).contains(&quality) && d.jpeg.unwrap().halved);
        assert!((0.15..1.5).contains(&d.first.resize.unwrap().0));
        assert!(d.shifted.is_none() && !d.clean);
    }
    let photo = Preset::Photo.config();
    let webp = (0..10_000).filter(|&i| photo.draw(&mut Draws::new(1, 2, i)).webp.is_some()).count();
    // 0.9 are damaged, 0.8 of these compressed.
    assert!((webp as f64 - 1080.0).abs() < 5.0 * 31.0, "{webp}");
    let clean = (0..10_000).filter(|&i| photo.draw(&mut Draws::new(1, 2, i)).clean).count();
    assert!((clean as f64 - 1000.0).abs() < 5.0 * 30.0, "{clean}");
}

fn texture(width: usize, height: usize) -> Rgb8 {
    let pixel = |i: usize| {
        let (x, y) = ((i % width) as f64, (i / width) as f64);
        let wave = 60.0 * (0.09 * x + 0.05 * y).sin();
        [110.0 + wave, 128.0 + 0.5 * wave, 140.0 - wave].map(|v| v as u8)
    };
    Rgb8 { width, height, pixels: (0..width * height).flat_map(pixel).collect() }
}

#[test]
fn damage_is_told_as_it_is() {
    // Nothing but one of each, so that the sum is known.
    let set = |keys: &[&str]| {
        let keys: Vec<String> = keys.iter().map(|&k| k.to_owned()).collect();
        let mut all = vec![
            "clean_prob=0".to_owned(),
            "jpeg_prob=0".into(),
            "resize_prob2=[0, 0, 1]".into(),
            "resize_modes2=[\"area\"]".into(),
        ];
        let given: Vec<&str> = keys.iter().filter_map(|k| k.split('=').next()).collect();
        all.retain(|k| !given.contains(&k.split('=').next().unwrap()));
        all.extend(keys.clone());
        let config = DegradeConfig::read("photo", &all).unwrap();
        Process::new(config, Degrade::MatlabBicubic, 4)
    };
    let nothing = ["blur_prob=0", "noise_prob2=0", "jpeg_prob2=0"];
    let image = texture(160, 128);
    let made = set(&nothing).apply(image.clone(), Draws::new(1, 1, 1)).unwrap();
    assert_eq!(made.damage.jpeg_quality, None);
    assert_eq!(made.damage.noise_sigma, 0.0);
    // Four pixels of width 1: sqrt(1.25) of them, a quarter of that at the low resolution.
    assert!((made.damage.blur_sigma - 0.2795).abs() < 1e-3, "{:?}", made.damage);
    let noise = [
        "blur_prob=0",
        "noise_prob2=1",
        "jpeg_prob2=0",
        "noise_range2=[8, 8]",
        "gaussian_noise_prob2=1",
    ];
    let noisy = set(&noise).apply(image.clone(), Draws::new(1, 1, 1)).unwrap();
    assert!((noisy.damage.noise_sigma - 8.0).abs() < 0.8, "{:?}", noisy.damage);
    let square = |(a, b): (&u8, &u8)| (f64::from(*a) - f64::from(*b)).powi(2);
    let differences = noisy.low.pixels.iter().zip(&made.low.pixels).map(square);
    let measured = (differences.sum::<f64>() / noisy.low.pixels.len() as f64).sqrt();
    assert!((measured - 8.0).abs() < 0.5, "{measured}");
    // Noise at the high resolution, then the mean of 16 pixels: a quarter.
    let early = [
        "blur_prob=0",
        "noise_prob=1",
        "noise_prob2=0",
        "jpeg_prob2=0",
        "noise_range=[20, 20]",
        "gaussian_noise_prob=1",
    ];
    let noisy = set(&early).apply(image.clone(), Draws::new(1, 1, 1)).unwrap();
    assert!((noisy.damage.noise_sigma - 5.0).abs() < 0.5, "{:?}", noisy.damage);
    let blurred = [
        "blur_prob=1",
        "noise_prob2=0",
        "jpeg_prob2=1",
        "jpeg_range2=[63, 63]",
        "blur_sigma=[2, 2]",
        "sinc_prob=0",
        "kernel_list=[\"iso\"]",
        "kernel_prob=[1]",
        "blur_kernel_size=21",
        "double_jpeg_prob=0",
        "webp_prob=0",
    ];
    let process = set(&blurred);
    // The smallest kernels cut a Gaussian of this width off; of all, the widest counts.
    let widths = (0..40).map(|i| {
        let made = process.apply(image.clone(), Draws::new(1, 1, i)).unwrap();
        assert_eq!(made.damage.jpeg_quality, Some(63.0));
        assert_eq!(lossy::pixels(&made.file.unwrap().bytes).unwrap(), made.low.pixels);
        made.damage.blur_sigma
    });
    let widest = widths.fold(0.0, f32::max);
    // sqrt(4 + 1.25) / 4.
    assert!((widest - 0.5728).abs() < 0.01, "{widest}");
    let webp =
        ["blur_prob=0", "noise_prob2=0", "webp_prob=1", "webp_range=[40, 40]", "jpeg_prob2=1"];
    let plain = set(&nothing).apply(image.clone(), Draws::new(1, 1, 1)).unwrap();
    let made = set(&webp).apply(image, Draws::new(1, 1, 1)).unwrap();
    let file = made.file.unwrap();
    assert_eq!(
        (file.extension, &file.bytes[..4], &file.bytes[8..12]),
        ("webp", &b"RIFF"[..], &b"WEBP"[..])
    );
    assert_eq!(lossy::pixels(&file.bytes).unwrap(), made.low.pixels);
    assert_eq!(
        (made.drawn.webp, made.drawn.jpeg, made.damage.jpeg_quality),
        (Some(40), None, None)
    );
    // What libwebp leaves of it through Pillow is 8.9 levels off.
    let differences = made.low.pixels.iter().zip(&plain.low.pixels).map(square);
    let rms = (differences.sum::<f64>() / made.low.pixels.len() as f64).sqrt();
    assert!((8.0..10.0).contains(&rms), "{rms}");
}

#[test]
fn nothing_moves_on_the_way_through_all_stages() {
    // A ramp and its mirror image, damaged alike, without noise and without JPEGs, whose blocks are not
    // mirrored: what one has too much by moving, the other has too little.
    let ramp = |turned: bool| {
        let at = |x: usize| if turned { 191 - x } else { x } as f64;
        let pixel = |i: usize| [60.0 + at(i % 192) * 0.7; 3].map(|v| v as u8);
        Rgb8 { width: 192, height: 64, pixels: (0..192 * 64).flat_map(pixel).collect() }
    };
    for preset in ["photo", "real-esrgan"] {
        let off = ["clean_prob", "noise_prob", "noise_prob2", "jpeg_prob", "jpeg_prob2"];
        let mut keys = off.map(|key| format!("{key}=0")).to_vec();
        keys.push("usm=false".into());
        let config = DegradeConfig::read(preset, &keys).unwrap();
        let process = Process::new(config, Degrade::MatlabBicubic, 4);
        let mean = |turned, index| {
            let low = process.apply(ramp(turned), Draws::new(4, 1, index)).unwrap().low;
            assert_eq!((low.width, low.height), (48, 16));
            let inner = |i: &usize| (14..34).contains(&(i % 48));
            let green = |i: usize| f64::from(low.pixels[i * 3 + 1]);
            (0..48 * 16).filter(inner).map(green).sum::<f64>() / (16.0 * 20.0)
        };
        let mut total = 0.0;
        for index in 0..60 {
            let moved = (mean(false, index) - mean(true, index)) / 2.0;
            // Half a low-resolution pixel would be 1.4 levels.
            assert!(moved.abs() < 0.1, "{preset} {index}: {moved}");
            total += moved / 60.0;
        }
        assert!(total.abs() < 0.05, "{preset}: {total}");
    }
}

#[test]
fn wrong_keys_are_refused_with_what_is_wrong() {
    let refused = |preset: &str, key: &str| {
        let error = DegradeConfig::read(preset, &[key.to_owned()]).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        error.to_string()
    };
    assert!(refused("fotos", "usm=true").contains("photo"));
    assert!(refused("photo", "noise_ranges=[1, 2]").contains("noise_ranges"));
    assert!(refused("photo", "noise_range2=[9, 2]").contains("noise_range2"));
    assert!(refused("photo", "clean_prob=1.5").contains("clean_prob"));
    assert!(refused("photo", "blur_kernel_size=8").contains("8"));
    assert!(refused("photo", "kernel_prob=[1, 2]").contains("kernel_prob"));
    assert!(refused("photo", "resize_modes2=[]").contains("resize_modes2"));
    for value in ["nan", "inf", "-inf", "text", "[0.5, inf]"] {
        let error = refused("photo", &format!("jpeg_prob={value}"));
        assert!(error.contains("jpeg_prob") && !error.contains("null"), "{error}");
        // Presets are no answer to a value.
        assert!(!error.contains("presets") && error.contains("docs/configuration.md"), "{error}");
        let wanted = if value.contains("inf") || value == "nan" { "nan and inf" } else { "text" };
        assert!(error.contains(wanted), "{error}");
    }
    assert!(refused("photo", "jpeg_prob").contains("KEY=VALUE"));
    assert!(refused("photo", "preset=fotos").contains("presets are"));
    // Of a key that is given twice the last value counts; a text needs no quotes.
    let twice = ["jpeg_prob=1", "preset=web", "jpeg_prob=0.5"].map(str::to_owned);
    let config = DegradeConfig::read("photo", &twice).unwrap();
    assert_eq!((config.jpeg_prob, config.preset), (0.5, Preset::Web));
    // What is written out in full is what was read.
    for preset in ["bicubic", "none", "photo", "web", "real-esrgan"] {
        let config = DegradeConfig::read(preset, &["sinc_prob=0.25".to_owned()]).unwrap();
        let again: DegradeConfig = toml::from_str(&toml::to_string(&config).unwrap()).unwrap();
        assert_eq!(config, again);
        assert_eq!(config.sinc_prob, 0.25);
    }
}

/// What training sees of a JPEG is what the trained model sees of one.
#[test]
fn blocks_are_taken_out_of_what_training_sees() {
    let given = [
        "clean_prob=0",
        "noise_prob2=0",
        "jpeg_prob2=1",
        "jpeg_range2=[30, 30]",
        "webp_prob=0",
        "double_jpeg_prob=0",
        "resize_prob2=[0, 0, 1]",
    ];
    let process = |deblock: &str| {
        let all: Vec<String> = given.iter().chain(&[deblock]).map(|&k| k.to_owned()).collect();
        Process::new(DegradeConfig::read("photo", &all).unwrap(), Degrade::MatlabBicubic, 4)
    };
    let damaged = |of: &Process| of.apply(texture(192, 160), Draws::new(1, 1, 1)).unwrap();
    let (with, without) = (process("deblock=0.5"), process("deblock=0"));
    let made = damaged(&with);
    // The file itself has its blocks.
    assert_eq!(made.low.pixels, damaged(&without).low.pixels);
    assert_eq!(without.seen(made.low.clone(), &made.damage).unwrap().pixels, made.low.pixels);
    let image = |low: &Rgb8| {
        let Rgb8 { width, height, pixels } = low.clone();
        Image::from_u8(width, height, Color::Rgb, pixels).unwrap()
    };
    let low = image(&made.low);
    let seen = with.seen(made.low, &made.damage).unwrap();
    let grid = |image: &Image| artefacts::grid(image, 1).unwrap().unwrap();
    assert!(
        grid(&low) > 1.5 && grid(&image(&seen)) < 1.2,
        "{} {}",
        grid(&low),
        grid(&image(&seen))
    );
    let same = deblock::deblocked(&low, low.rect(), 30.0, 0.5).unwrap();
    let levels: Vec<u8> = same.iter().map(|v| (255.0 * v).round() as u8).collect();
    assert_eq!(seen.pixels, levels);
    // What was never a JPEG has none.
    let clean = with.seen(seen.clone(), &Default::default()).unwrap();
    assert_eq!(clean.pixels, seen.pixels);
}
