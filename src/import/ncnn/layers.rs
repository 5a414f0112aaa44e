//! Lines of a `.param` as layers of a [graph](crate::models::graph), with their weights.
use std::collections::HashMap;

use super::bin::Numbers;
use super::param::{Line, Parsed};
use crate::import::Array;
use crate::models::graph::{Activation, Kind, Layer, Window};
use crate::ops::resample::Filter;

/// The kinds that are read.
const KNOWN: [&str; 22] = [
    "BinaryOp",
    "Concat",
    "Convolution",
    "Crop",
    "Deconvolution",
    "Dropout",
    "Eltwise",
    "InnerProduct",
    "Input",
    "Interp",
    "MemoryData",
    "Mish",
    "Noop",
    "PReLU",
    "PixelShuffle",
    "Pooling",
    "ReLU",
    "Scale",
    "Sigmoid",
    "Split",
    "Swish",
    "TanH",
];

/// The layers of a file and their weights, under the names of the graph.
pub(super) struct Read {
    pub(super) layers: Vec<Layer>,
    /// The line of each layer.
    pub(super) lines: Vec<usize>,
    pub(super) tensors: Vec<(String, Array)>,
}

/// Which value a blob is. Value 0 is the image.
type Blobs<'a> = HashMap<&'a str, usize>;

/// Reads the layers of `lines`, and their weights from `numbers`, up to its end.
pub(super) fn read(lines: &[Line], numbers: &mut Numbers<'_>) -> Parsed<Read> {
    let mut read = Read { layers: Vec::new(), lines: Vec::new(), tensors: Vec::new() };
    let mut blobs = Blobs::new();
    for line in lines {
        match line.kind.as_str() {
            "Input" => input(line, &mut blobs)?,
            "Split" | "Noop" | "Dropout" => {
                let [from] = line.inputs.as_slice() else {
                    return Err(line.wrong("it reads one value"));
                };
                // What Dropout multiplies by, where it was written to.
                if line.kind == "Dropout" && line.number(0, 1.0)? != 1.0 {
                    return Err(line.unsupported(0));
                }
                let value = blobs[from.as_str()];
                blobs.extend(line.outputs.iter().map(|name| (name.as_str(), value)));
            }
            _ => {
                let [made] = line.outputs.as_slice() else {
                    return Err(line.wrong("it makes one value"));
                };
                let from: Vec<usize> =
                    line.inputs.iter().map(|name| blobs[name.as_str()]).collect();
                let (kind, weights) = of_vector(layer(line, numbers)?, &from, &read.layers);
                let at = read.layers.len();
                for (name, array) in weights {
                    if let Some(i) = array.1.iter().position(|v| !v.is_finite()) {
                        let cause = format!("{name}[{i}] is {}, not a finite number", array.1[i]);
                        return Err(line.wrong(&cause));
                    }
                    read.tensors.push((format!("{at}.{name}"), array));
                }
                read.layers.push(Layer { name: line.name.clone(), from, kind });
                read.lines.push(line.number);
                blobs.insert(made, at + 1);
            }
        }
    }
    numbers.end()?;
    result_last(lines, &blobs, &mut read)?;
    gates(&mut read.layers);
    Ok(read)
}

/// A convolution of one tap that reads a vector, as a mean over the map is, is a linear map.
fn of_vector(
    (kind, mut weights): (Kind, Weights),
    from: &[usize],
    layers: &[Layer],
) -> (Kind, Weights) {
    let Kind::Convolution(Window { channels, kernel: 1, stride: 1, pad: 0, bias, activation }) =
        kind
    else {
        return (kind, weights);
    };
    if from.iter().any(|&value| !is_vector(value, layers)) {
        return (kind, weights);
    }
    for (_, (shape, _)) in &mut weights {
        shape.truncate(2);
    }
    (Kind::Linear { channels, bias, activation }, weights)
}

/// Whether `value` has one number a channel.
fn is_vector(value: usize, layers: &[Layer]) -> bool {
    let mut value = value;
    while let Some(layer) = value.checked_sub(1).map(|i| &layers[i]) {
        match layer.kind {
            Kind::GlobalMean | Kind::Linear { .. } | Kind::Constant { .. } => return true,
            Kind::Activation { .. } | Kind::Affine { .. } | Kind::Prelu { .. } => {
                value = layer.from[0];
            }
            _ => return false,
        }
    }
    false
}

fn input<'a>(line: &'a Line, blobs: &mut Blobs<'a>) -> Parsed<()> {
    let [name] = line.outputs.as_slice() else { return Err(line.wrong("it makes one value")) };
    match blobs.values().any(|&value| value == 0) {
        true => Err(line.wrong("a second image; srk runs networks of one")),
        false => {
            blobs.insert(name, 0);
            Ok(())
        }
    }
}

/// The result is the last blob that nothing reads; layers behind it would be for others.
fn result_last(lines: &[Line], blobs: &Blobs<'_>, read: &mut Read) -> Parsed<()> {
    let reads = |name: &String| lines.iter().any(|line| line.inputs.contains(name));
    let mut unread = lines.iter().rev().flat_map(|line| line.outputs.iter().rev());
    let result = unread.find(|name| !reads(name)).map(|name| blobs[name.as_str()]);
    match result {
        Some(value) if value > 0 => {
            read.layers.truncate(value);
            read.tensors.retain(|(name, _)| {
                name.split('.')
                    .next()
                    .and_then(|i| i.parse::<usize>().ok())
                    .is_some_and(|i| i < value)
            });
            Ok(())
        }
        _ => Err("it has no layer that makes a result".to_owned()),
    }
}

/// A product with the sigmoid of a linear map is one layer: the excitation of a squeeze.
fn gates(layers: &mut [Layer]) {
    for i in 0..layers.len() {
        let [a, b] = layers[i].from[..] else { continue };
        if layers[i].kind != Kind::Product {
            continue;
        }
        for (map, vector) in [(a, b), (b, a)] {
            let used = layers.iter().flat_map(|l| &l.from).filter(|&&v| v == vector).count();
            let Some(maker) = vector.checked_sub(1).filter(|_| used == 1 && map != vector) else {
                continue;
            };
            let vector_of_map = matches!(
                map.checked_sub(1).map(|m| &layers[m].kind),
                Some(Kind::Linear { .. } | Kind::GlobalMean | Kind::Constant { .. })
            );
            if let (Kind::Linear { activation, .. }, false) =
                (&mut layers[maker].kind, vector_of_map)
                && *activation == Activation::Sigmoid
            {
                *activation = Activation::None;
                layers[i].kind = Kind::Gate;
                layers[i].from = vec![map, vector];
                break;
            }
        }
    }
}

/// Weights of a layer: `weight` and perhaps `bias`.
type Weights = Vec<(&'static str, Array)>;

fn layer(line: &Line, numbers: &mut Numbers<'_>) -> Parsed<(Kind, Weights)> {
    let bare = |kind: Kind| Ok((kind, Weights::new()));
    let alone = |activation| Kind::Activation { activation };
    match line.kind.as_str() {
        "Convolution" | "Deconvolution" => window(line, numbers),
        "InnerProduct" => linear(line, numbers),
        "PReLU" => {
            line.only(&[0])?;
            let slopes = line.count(0, 0)?;
            let values = numbers.plain(slopes).map_err(|e| line.wrong(&e))?;
            Ok((Kind::Prelu { slopes }, vec![("weight", (vec![slopes], values))]))
        }
        "MemoryData" => memory(line, numbers),
        "Concat" => {
            // Along the channels, counted from either end.
            match line.number(0, 0.0)? {
                0.0 | -3.0 => line.only(&[0])?,
                _ => return Err(line.unsupported(0)),
            }
            bare(Kind::Concat)
        }
        "BinaryOp" => bare(binary(line)?),
        "Eltwise" => bare(eltwise(line)?),
        "Scale" => match (line.number(0, 0.0)?, line.count(1, 0)?, line.inputs.len()) {
            (-233.0, 0, 2) => bare(Kind::Product),
            _ => Err(line.unsupported(0)),
        },
        "Swish" => bare(alone(Activation::Silu)),
        "Sigmoid" => bare(alone(Activation::Sigmoid)),
        "Mish" => bare(alone(Activation::Mish)),
        "TanH" => bare(alone(Activation::Tanh)),
        "ReLU" => bare(alone(match line.number(0, 0.0)? {
            0.0 => Activation::Relu,
            slope => Activation::LeakyRelu(slope),
        })),
        "PixelShuffle" => {
            line.only(&[0])?;
            bare(Kind::PixelShuffle { factor: line.count(0, 1)? })
        }
        "Interp" => bare(interpolate(line)?),
        "Pooling" => {
            line.only(&[0, 4])?;
            match (line.count(0, 0)?, line.count(4, 0)?) {
                (1, 1) => bare(Kind::GlobalMean),
                _ => Err(line.wrong("only means over the whole map (0=1 4=1) are supported")),
            }
        }
        "Crop" => bare(crop(line)?),
        other => {
            let near = KNOWN.iter().min_by_key(|k| strsim::damerau_levenshtein(k, other));
            let near = near.map_or(String::new(), |near| format!("; nearest is {near}"));
            Err(line.wrong(&format!("srk knows no layers of this kind{near}")))
        }
    }
}

/// Refuses a pair of sizes, one for each axis, that differ.
fn square(line: &Line, key: i64, both: usize) -> Parsed<()> {
    match line.count(key, both)? == both {
        true => Ok(()),
        false => Err(line.unsupported(key)),
    }
}

fn window(line: &Line, numbers: &mut Numbers<'_>) -> Parsed<(Kind, Weights)> {
    line.only(&[0, 1, 2, 3, 4, 5, 6, 9, 10, 11, 12, 13, 14, 15, 16, 28])?;
    let [outputs, kernel, dilation] = [(0, 0), (1, 0), (2, 1)].map(|(k, d)| line.count(k, d));
    let (outputs, kernel, dilation) = (outputs?, kernel?, dilation?);
    let [stride, pad] = [(3, 1), (4, 0)].map(|(k, d)| line.count(k, d));
    let (stride, pad) = (stride?, pad?);
    if dilation != 1 {
        return Err(line.unsupported(2));
    }
    for (keys, both) in
        [(&[11][..], kernel), (&[12], dilation), (&[13], stride), (&[14, 15, 16], pad)]
    {
        keys.iter().try_for_each(|&key| square(line, key, both))?;
    }
    let (bias, count) = (line.count(5, 0)? == 1, line.count(6, 0)?);
    let taps = outputs.saturating_mul(kernel).saturating_mul(kernel);
    if taps == 0 || stride == 0 || count == 0 || count % taps != 0 {
        let cause = format!(
            "{count} weights (6) are not those of {outputs} kernels of {kernel} x {kernel}"
        );
        return Err(line.wrong(&cause));
    }
    let inputs = count / taps;
    let mut values = numbers.tagged(count).map_err(|e| line.wrong(&e))?;
    let transposed = line.kind == "Deconvolution";
    let mut shape = vec![outputs, inputs, kernel, kernel];
    if transposed {
        values = swapped(&values, outputs, inputs);
        shape.swap(0, 1);
    }
    let mut weights = vec![("weight", (shape, values))];
    if bias {
        weights
            .push(("bias", (vec![outputs], numbers.plain(outputs).map_err(|e| line.wrong(&e))?)));
    }
    let (channels, activation) = ([inputs, outputs], activation(line)?);
    let window = Window { channels, kernel, stride, pad, bias, activation };
    let kind = if transposed { Kind::Deconvolution(window) } else { Kind::Convolution(window) };
    Ok((kind, weights))
}

/// `[a, b, taps]` as `[b, a, taps]`.
fn swapped(values: &[f32], a: usize, b: usize) -> Vec<f32> {
    let taps = values.len() / (a * b).max(1);
    let mut out = Vec::with_capacity(values.len());
    for j in 0..b {
        (0..a).for_each(|i| out.extend_from_slice(&values[(i * b + j) * taps..][..taps]));
    }
    out
}

fn activation(line: &Line) -> Parsed<Activation> {
    let slope = || match *line.list(10)? {
        [slope] => Ok(slope),
        _ => Err(line.unsupported(10)),
    };
    match line.count(9, 0)? {
        0 => Ok(Activation::None),
        1 => Ok(Activation::Relu),
        2 => Ok(Activation::LeakyRelu(slope()?)),
        4 => Ok(Activation::Sigmoid),
        5 => Ok(Activation::Mish),
        _ => Err(line.unsupported(9)),
    }
}

fn linear(line: &Line, numbers: &mut Numbers<'_>) -> Parsed<(Kind, Weights)> {
    line.only(&[0, 1, 2, 9, 10])?;
    let (outputs, bias, count) = (line.count(0, 0)?, line.count(1, 0)? == 1, line.count(2, 0)?);
    if outputs == 0 || count == 0 || count % outputs != 0 {
        return Err(line.wrong(&format!("{count} weights (2) are not those of {outputs} outputs")));
    }
    let channels = [count / outputs, outputs];
    let values = numbers.tagged(count).map_err(|e| line.wrong(&e))?;
    let mut weights = vec![("weight", (vec![outputs, channels[0]], values))];
    if bias {
        weights
            .push(("bias", (vec![outputs], numbers.plain(outputs).map_err(|e| line.wrong(&e))?)));
    }
    Ok((Kind::Linear { channels, bias, activation: activation(line)? }, weights))
}

/// A vector, or a map of one pixel.
fn memory(line: &Line, numbers: &mut Numbers<'_>) -> Parsed<(Kind, Weights)> {
    line.only(&[0, 1, 2])?;
    let channels = match (line.count(0, 0)?, line.count(1, 0)?, line.count(2, 0)?) {
        (channels, 0, 0) | (1, 1, channels) if channels > 0 => channels,
        _ => return Err(line.wrong("only constants of one pixel are supported")),
    };
    let values = numbers.plain(channels).map_err(|e| line.wrong(&e))?;
    Ok((Kind::Constant { channels }, vec![("weight", (vec![channels], values))]))
}

fn binary(line: &Line) -> Parsed<Kind> {
    line.only(&[0, 1, 2])?;
    let operation = line.count(0, 0)?;
    if line.count(1, 0)? == 0 {
        if line.inputs.len() != 2 {
            return Err(line.wrong("it reads two values"));
        }
        return match operation {
            0 => Ok(Kind::Sum { factors: vec![1.0, 1.0] }),
            1 => Ok(Kind::Sum { factors: vec![1.0, -1.0] }),
            2 => Ok(Kind::Product),
            7 => Ok(Kind::Sum { factors: vec![-1.0, 1.0] }),
            _ => Err(line.unsupported(0)),
        };
    }
    // Numbers of the file are f32, whatever its text looks like.
    let by = single(line.number(2, 0.0)?);
    match operation {
        0 => Ok(Kind::Affine { factor: 1.0, shift: by }),
        1 => Ok(Kind::Affine { factor: 1.0, shift: -by }),
        2 => Ok(Kind::Affine { factor: by, shift: 0.0 }),
        3 if by != 0.0 => Ok(Kind::Affine { factor: 1.0 / by, shift: 0.0 }),
        7 => Ok(Kind::Affine { factor: -1.0, shift: by }),
        _ => Err(line.unsupported(0)),
    }
}

#[allow(clippy::cast_possible_truncation)] // To f32: that is the point.
fn single(v: f64) -> f64 {
    f64::from(v as f32)
}

fn eltwise(line: &Line) -> Parsed<Kind> {
    line.only(&[0, 1])?;
    let (count, factors) = (line.inputs.len(), line.list(1)?);
    match (line.count(0, 0)?, count) {
        (0, 2) => Ok(Kind::Product),
        (1, _) if factors.is_empty() => Ok(Kind::Sum { factors: vec![1.0; count] }),
        (1, _) if factors.len() == count => {
            Ok(Kind::Sum { factors: factors.iter().map(|&f| single(f)).collect() })
        }
        (1, _) => Err(line.unsupported(1)),
        _ => Err(line.unsupported(0)),
    }
}

fn interpolate(line: &Line) -> Parsed<Kind> {
    line.only(&[0, 1, 2])?;
    let filter = match line.count(0, 0)? {
        1 => Filter::Nearest,
        2 => Filter::Linear,
        3 => Filter::Cubic,
        _ => return Err(line.unsupported(0)),
    };
    let factor = line.number(1, 1.0)?;
    if (line.number(2, 1.0)? - factor).abs() > 1e-6 {
        return Err(line.unsupported(2));
    }
    // The fraction that is meant: 0.333333 is a third.
    let fraction = (1..=16usize).find_map(|under| {
        let over = factor * under as f64;
        let near = (over - over.round()).abs() < 1e-4 && (1.0..=64.0).contains(&over.round());
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // 1 to 64.
        near.then(|| (over.round() as usize, under))
    });
    let Some((over, under)) = fraction else { return Err(line.unsupported(1)) };
    Ok(Kind::Interpolate { filter, over, under })
}

/// Rows and columns by their distances to the edges, or a map to cut to.
fn crop(line: &Line) -> Parsed<Kind> {
    if line.inputs.len() == 2 {
        line.only(&[0, 1])?;
        let before = line.count(0, 0)?;
        square(line, 1, before)?;
        return Ok(Kind::CropLike { before });
    }
    line.only(&[9, 10, 11])?;
    let axes: Vec<f64> = line.list(11)?.to_vec();
    let spatial = [[-2.0, -1.0], [1.0, 2.0]].iter().any(|both| axes == both);
    let [starts, ends] = [line.list(9)?, line.list(10)?];
    let (&[top, left], &[bottom, right], true) = (starts, ends, spatial) else {
        return Err(line.wrong("only rows and columns cut off are supported"));
    };
    let whole = top.fract() == 0.0 && bottom.fract() == 0.0 && (0.0..1e6).contains(&top);
    if top != left || bottom != right || !whole {
        return Err(line.wrong("only as many rows as columns cut off each side are supported"));
    }
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    // As was just seen, or checked here.
    match bottom {
        // To the end.
        -233.0 | 2_147_483_647.0 => Ok(Kind::Crop { before: top as usize, after: 0 }),
        b if (-1e6..0.0).contains(&b) => {
            Ok(Kind::Crop { before: top as usize, after: -b as usize })
        }
        _ => Err(line.unsupported(10)),
    }
}
