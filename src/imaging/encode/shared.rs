//! What encoders of the `image` crate have in common.
use std::io;

use image::{ImageEncoder, ImageError};

use super::outline::Outline;

/// An error of the crate as one of the system, where it is one.
pub(super) fn plain(error: ImageError) -> io::Error {
    match error {
        ImageError::IoError(e) => e,
        e => io::Error::other(e),
    }
}

/// Gives `encoder` the profile and the EXIF block of `image`.
pub(super) fn set_metadata(encoder: &mut impl ImageEncoder, image: &Outline) {
    let metadata = &image.metadata;
    // What does not fit is not there any more, and the user was told.
    if let Some(icc) = &metadata.icc {
        let _ = encoder.set_icc_profile(icc.clone());
    }
    if let Some(block) = &metadata.exif {
        let _ = encoder.set_exif_metadata(block.clone());
    }
}
