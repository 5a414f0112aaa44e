//! What was measured of each image, and by which rank.
use std::collections::BTreeMap;

use crate::error::{Error, Result};
use crate::training::ranks::Ranks;

/// Measures of each image, under its number: PSNR and SSIM of the output, those of bicubic, distances, NIQE; none where
/// an image has no such number.
pub(super) type Rows = BTreeMap<usize, Vec<Option<f64>>>;

/// How many of them are always there.
pub(super) const QUALITIES: usize = 4;

/// Which of `world` ranks measures each of `images`: the first those of the `sheet`, the others as evenly as can be.
pub(super) fn owners(images: usize, world: usize, sheet: usize) -> Vec<usize> {
    let mut taken = vec![0; world];
    let mut owners = Vec::with_capacity(images);
    for image in 0..images {
        let idle = (0..world).min_by_key(|&rank| (taken[rank], rank)).unwrap_or(0);
        let owner = if image < sheet { 0 } else { idle };
        taken[owner] += 1;
        owners.push(owner);
    }
    owners
}

/// The rows of all ranks; none if one of them was stopped before it had `mine`.
///
/// # Errors
/// If a rank is gone.
pub(super) fn of_all(ranks: &Ranks, mine: Option<Rows>) -> Result<Option<Rows>> {
    if ranks.world() == 1 {
        return Ok(mine);
    }
    let mut all = Rows::new();
    let mut whole = true;
    for bytes in ranks.exchange(mine.map_or_else(Vec::new, |rows| to_bytes(&rows)))? {
        match bytes.split_first() {
            None => whole = false,
            Some((_, rows)) => all.extend(of_bytes(rows).ok_or_else(garbled)?),
        }
    }
    Ok(whole.then_some(all))
}

fn garbled() -> Error {
    Error::Unsupported { op: "validation", what: "what another rank measured".to_owned() }
}

/// A byte that says that there are rows, then each: its number, how many measures, and of each whether it is there.
fn to_bytes(rows: &Rows) -> Vec<u8> {
    let mut all = vec![1];
    for (index, row) in rows {
        all.extend((*index as u64).to_le_bytes());
        all.extend((row.len() as u64).to_le_bytes());
        for value in row {
            all.push(u8::from(value.is_some()));
            all.extend(value.unwrap_or_default().to_le_bytes());
        }
    }
    all
}

fn of_bytes(mut from: &[u8]) -> Option<Rows> {
    fn eight(from: &mut &[u8]) -> Option<[u8; 8]> {
        let (taken, rest) = from.split_first_chunk::<8>()?;
        *from = rest;
        Some(*taken)
    }
    let mut rows = Rows::new();
    while !from.is_empty() {
        let index = usize::try_from(u64::from_le_bytes(eight(&mut from)?)).ok()?;
        let mut row = Vec::new();
        for _ in 0..u64::from_le_bytes(eight(&mut from)?) {
            let (there, rest) = from.split_first()?;
            from = rest;
            let value = f64::from_le_bytes(eight(&mut from)?);
            row.push((*there == 1).then_some(value));
        }
        rows.insert(index, row);
    }
    Some(rows)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn every_image_has_an_owner_and_the_first_rank_those_of_the_sheet() {
        assert_eq!(owners(5, 1, 2), [0; 5]);
        assert_eq!(owners(7, 3, 2), [0, 0, 1, 2, 1, 2, 0]);
        assert_eq!(owners(4, 2, 9), [0; 4]);
        assert_eq!(owners(4, 4, 0), [0, 1, 2, 3]);
    }

    #[test]
    fn rows_come_back_from_bytes() {
        let rows = Rows::from([(3, vec![Some(31.25), None]), (7, vec![Some(-0.1), Some(2.0)])]);
        let bytes = to_bytes(&rows);
        assert_eq!(of_bytes(&bytes[1..]), Some(rows));
        assert_eq!(of_bytes(&bytes[1..bytes.len() - 1]), None);
    }
}
