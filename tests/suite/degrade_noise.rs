//! Noise that is added to pictures, against its laws.
#![allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
use srk::data::degrade::{Draws, Noise, NoiseKind, Planes};

use super::degrade_stages::planes;

/// The mean and the variance of what noise added, for each channel.
fn added(noise: Noise, level: f64, index: u32) -> (Planes, [[f64; 2]; 3]) {
    let clean = planes(200, 200, |_, _| level);
    let mut noisy = clean.clone();
    noise.add(&mut noisy, &Draws::new(3, 9, index), 1);
    let statistics = [0, 1, 2].map(|c| {
        let n = 40_000.0;
        let mean = noisy.planes[c].iter().map(|&v| f64::from(v)).sum::<f64>() / n;
        let square = |&v: &f32| (f64::from(v) - mean).powi(2);
        [mean - level, noisy.planes[c].iter().map(square).sum::<f64>() / n]
    });
    (noisy, statistics)
}

#[test]
fn gaussian_noise_is_normal_with_the_width_that_was_asked_for() {
    for sigma in [2.0, 10.0, 25.0] {
        let noise = Noise { kind: NoiseKind::Gaussian, amount: sigma, gray: false };
        let (noisy, statistics) = added(noise, 128.0, 0);
        for [mean, variance] in statistics {
            // Five standard errors.
            assert!(mean.abs() < 5.0 * sigma / 200.0, "{mean}");
            assert!((variance / sigma.powi(2) - 1.0).abs() < 0.036, "{variance}");
        }
        let [a, b] = [0, 1].map(|c| &noisy.planes[c]);
        let product = |(a, b): (&f32, &f32)| f64::from(a - 128.0) * f64::from(b - 128.0);
        let covariance = a.iter().zip(b).map(product).sum::<f64>() / 40_000.0;
        assert!(covariance.abs() < 0.025 * sigma.powi(2), "channels are alike: {covariance}");
        // Of a normal law 31.73 % lie beyond one width, 4.55 % beyond two, 0.27 % beyond three.
        for (widths, share) in [(1.0, 0.3173), (2.0, 0.0455), (3.0, 0.0027)] {
            let beyond = |p: &Vec<f32>| {
                p.iter().filter(|&&v| (f64::from(v) - 128.0).abs() > widths * sigma).count()
            };
            let found = noisy.planes[..3].iter().map(beyond).sum::<usize>() as f64 / 120_000.0;
            let error = (share / 120_000.0f64).sqrt();
            assert!((found - share).abs() < 5.0 * error, "{widths}: {found} {share}");
        }
        // The fourth plane is what was added to green.
        let differs = |(n, v): (&f32, &f32)| (n - (v - 128.0)).abs() > 1e-4;
        assert!(!noisy.planes[3].iter().zip(&noisy.planes[1]).any(differs));
    }
}

#[test]
fn gray_noise_is_the_same_in_all_channels() {
    for kind in [NoiseKind::Gaussian, NoiseKind::Poisson] {
        let of = |gray| added(Noise { kind, amount: 2.0, gray }, 120.0, 0).0.planes;
        let planes = of(true);
        assert!(planes[0] == planes[1] && planes[1] == planes[2]);
        let planes = of(false);
        assert!(planes[0] != planes[1]);
    }
}

#[test]
fn noise_of_photons_has_a_variance_in_proportion_to_the_intensity() {
    // 16 levels occur, then more than 128: counts are few and many.
    for levels in [16usize, 200] {
        let n = levels.next_power_of_two() as f64;
        let level = |x: f64, y: f64| {
            ((x as usize + y as usize * 7) % levels * (240 / levels.min(240)) + 5) as f64
        };
        let clean = planes(400, 400, level);
        let noise = Noise { kind: NoiseKind::Poisson, amount: 1.0, gray: false };
        let mut noisy = clean.clone();
        noise.add(&mut noisy, &Draws::new(1, 2, 3), 2);
        // Bright enough that nothing is clamped, dark enough for the same.
        let mut groups = vec![(0.0, 0.0, 0.0); 256];
        for (&v, &added) in clean.planes[1].iter().zip(&noisy.planes[3]) {
            let g = &mut groups[v as usize];
            *g = (g.0 + 1.0, g.1 + f64::from(added), g.2 + f64::from(added).powi(2));
        }
        let mut seen = 0;
        for (v, (count, sum, square)) in groups.into_iter().enumerate() {
            if count < 500.0 {
                continue;
            }
            seen += 1;
            let wanted = v as f64 * 255.0 / n;
            let variance = square / count - (sum / count).powi(2);
            assert!((sum / count).abs() < 5.0 * (wanted / count).sqrt(), "{v}: mean {sum}");
            let error = 6.0 * (2.0 / count + n / 255.0 / count / v as f64).sqrt();
            assert!((variance / wanted - 1.0).abs() < error, "{levels} {v}: {variance} {wanted}");
        }
        assert!(seen > 10, "{seen}");
    }
}

/// As BasicSR counts levels: over all channels of a picture, or of the gray one.
#[test]
fn levels_are_counted_over_all_channels() {
    // 240 levels, one, and 8 of which all occur in red: 240 in all, so that n is 256 for each channel.
    let red = |x: f64, _: f64| 8.0 + x % 240.0;
    let blue = |x: f64, _: f64| 64.0 + x % 8.0;
    let mut clean = planes(480, 400, red);
    clean.planes[1] = planes(480, 400, |_, _| 128.0).planes[0].clone();
    clean.planes[2] = planes(480, 400, blue).planes[0].clone();
    let variance_of = |gray: bool, c: usize, v: f32| {
        let mut noisy = clean.clone();
        let noise = Noise { kind: NoiseKind::Poisson, amount: 1.0, gray };
        noise.add(&mut noisy, &Draws::new(5, 6, 7), 3);
        let pairs = clean.planes[c].iter().zip(&noisy.planes[c]);
        let added: Vec<f64> =
            pairs.filter(|(old, _)| **old == v).map(|(old, new)| f64::from(new - old)).collect();
        let n = added.len() as f64;
        let mean = added.iter().sum::<f64>() / n;
        (added.iter().map(|a| (a - mean).powi(2)).sum::<f64>() / n, n)
    };
    for (c, v) in [(0, 128.0), (1, 128.0), (2, 66.0)] {
        let (variance, n) = variance_of(false, c, v);
        let wanted = f64::from(v) * 255.0 / 256.0;
        // Six standard errors; a count of each channel's own was 256 and 32 times as much in green and blue.
        let error = 6.0 * (2.0 / n).sqrt();
        assert!((variance / wanted - 1.0).abs() < error, "{c}: {variance} {wanted} {n}");
    }
    // Gray noise counts the levels of luma: 0.299 R + 75.1 + 0.114 B has 73 to 75 of them, so n is 128.
    let luma = 0.299 * 128.0 + 0.587 * 128.0 + 0.114 * 64.0;
    let (variance, n) = variance_of(true, 0, 128.0);
    let wanted = luma * 255.0 / 128.0;
    assert!((variance / wanted - 1.0).abs() < 6.0 * (2.0 / n).sqrt(), "{variance} {wanted} {n}");
}
