//! Networks that go by several names: state dicts of other code bases, under the names that srk's networks have.
use std::collections::BTreeMap;

/// The same tensors under the names that srk knows; as they are where it knows no other naming of theirs.
pub(super) fn translated<T>(tensors: BTreeMap<String, T>) -> BTreeMap<String, T> {
    let has = |name: &str| tensors.contains_key(name);
    if has("body.0.rdb1.conv1.weight") {
        return renamed(tensors, basicsr_rrdb);
    }
    for prefix in ["model.", ""] {
        if has(&format!("{prefix}1.sub.0.RDB1.conv1.0.weight")) {
            let ends = sequence(&tensors, prefix);
            return renamed(tensors, |name| first_rrdb(name.strip_prefix(prefix)?, &ends));
        }
    }
    if has("head.0.weight") && has("body.0.body.0.weight") {
        return renamed(tensors, edsr);
    }
    tensors
}

fn renamed<T>(
    tensors: BTreeMap<String, T>,
    rename: impl Fn(&str) -> Option<String>,
) -> BTreeMap<String, T> {
    let entry = |(name, tensor): (String, T)| (rename(&name).unwrap_or(name), tensor);
    tensors.into_iter().map(entry).collect()
}

/// RRDBNet as BasicSR, Real-ESRGAN, BSRGAN's successors and most shared files have it.
fn basicsr_rrdb(name: &str) -> Option<String> {
    if let Some(rest) = name.strip_prefix("body.") {
        let (block, rest) = rest.split_once(".rdb")?;
        return Some(format!("RRDB_trunk.{block}.RDB{rest}"));
    }
    let (layer, rest) = name.split_once('.')?;
    let layer = match layer {
        "conv_body" => "trunk_conv".to_owned(),
        "conv_hr" => "HRconv".to_owned(),
        _ => format!("upconv{}", layer.strip_prefix("conv_up")?),
    };
    Some(format!("{layer}.{rest}"))
}

/// The numbers of the layers behind the blocks in ESRGAN's first release, one row of layers.
fn sequence<T>(tensors: &BTreeMap<String, T>, prefix: &str) -> Vec<usize> {
    let number = |name: &String| {
        let number = name.strip_prefix(prefix)?.strip_suffix(".weight")?.parse().ok()?;
        (number > 1).then_some(number)
    };
    let mut numbers: Vec<usize> = tensors.keys().filter_map(number).collect();
    numbers.sort_unstable();
    numbers
}

/// RRDBNet as ESRGAN's first release has it: `0`, `1.sub.BLOCK`, then convolutions of doublings, and two more.
fn first_rrdb(name: &str, behind: &[usize]) -> Option<String> {
    let (number, rest) = name.split_once('.')?;
    if let Some(rest) = rest.strip_prefix("sub.") {
        let (block, rest) = rest.split_once('.')?;
        return Some(match rest.strip_prefix("RDB") {
            Some(inner) => format!("RRDB_trunk.{block}.RDB{}", inner.replace(".0.", ".")),
            None => format!("trunk_conv.{rest}"),
        });
    }
    let number: usize = number.parse().ok()?;
    let layer = match behind.iter().position(|&n| n == number) {
        _ if number == 0 => "conv_first".to_owned(),
        Some(at) if at + 1 == behind.len() => "conv_last".to_owned(),
        Some(at) if at + 2 == behind.len() => "HRconv".to_owned(),
        Some(at) => format!("upconv{}", at + 1),
        None => return None,
    };
    Some(format!("{layer}.{rest}"))
}

/// EDSR as its authors' code has it.
fn edsr(name: &str) -> Option<String> {
    let parts: Vec<&str> = name.split('.').collect();
    Some(match parts[..] {
        ["head", "0", end] => format!("conv_first.{end}"),
        ["body", block, "body", "0", end] => format!("body.{block}.conv1.{end}"),
        ["body", block, "body", "2", end] => format!("body.{block}.conv2.{end}"),
        ["body", _, end] => format!("conv_after_body.{end}"),
        ["tail", "0", step, end] => format!("upsample.{step}.{end}"),
        ["tail", "1", end] => format!("conv_last.{end}"),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(all: &[&str]) -> Vec<String> {
        translated(all.iter().map(|n| ((*n).to_owned(), ())).collect()).into_keys().collect()
    }

    #[test]
    fn the_first_naming_of_rrdb_is_counted_from_its_end() {
        let trunk = ["model.0.weight", "model.1.sub.0.RDB1.conv1.0.weight", "model.1.sub.1.bias"];
        let four = names(
            &[
                &trunk[..],
                &["model.3.weight", "model.6.weight", "model.8.weight", "model.10.weight"],
            ]
            .concat(),
        );
        let known = ["HRconv", "RRDB_trunk.0.RDB1.conv1", "conv_first", "conv_last"];
        let known: Vec<String> = known.iter().map(|n| format!("{n}.weight")).collect();
        assert_eq!(four[..4], known[..]);
        assert_eq!(four[4..], ["trunk_conv.bias", "upconv1.weight", "upconv2.weight"]);
        let two =
            names(&[&trunk[..], &["model.3.weight", "model.5.weight", "model.7.weight"]].concat());
        assert_eq!(two[4..], ["trunk_conv.bias", "upconv1.weight"]);
    }
}
