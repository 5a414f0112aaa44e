//! What `val.metrics` asks for beside PSNR and SSIM.
use crate::error::Result;
use crate::imaging::niqe::Niqe;
use crate::models::perceptual::folder::Folder;
use crate::models::perceptual::{Distance, Kind};
use crate::training::sections::{Config, ValMetric};

/// What `val.metrics` asks for.
#[derive(Debug)]
pub(super) struct Measures {
    pub(super) distances: Vec<(Kind, Distance)>,
    pub(super) niqe: Option<Niqe>,
}

/// NIQE, if `val.metrics` asks for it.
pub(super) fn niqe(config: &Config) -> Result<Option<Niqe>> {
    if !config.val.metrics.contains(&ValMetric::Niqe) {
        return Ok(None);
    }
    let file = Folder::open(config.loss.features.as_deref()).niqe()?;
    let values = |key: &str| file.tensors.get(key).map_or(&[][..], |t| t.1.as_slice());
    Niqe::new(values("mu"), values("cov")).map(Some)
}

/// The distances that `val.metrics` asks for.
pub(super) fn distances(config: &Config) -> Result<Vec<(Kind, Distance)>> {
    let wanted = |kind: &Kind| {
        let metric = if *kind == Kind::Dists { ValMetric::Dists } else { ValMetric::Lpips };
        config.val.metrics.contains(&metric)
    };
    let folder = Folder::open(config.loss.features.as_deref());
    let open = |kind| Ok((kind, Distance::open(kind, &folder)?));
    Kind::ALL.into_iter().filter(wanted).map(open).collect()
}
