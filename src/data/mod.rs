//! Training data: folders of images, idx files, pairs of low and high resolution, random crops, and a thread
//! that prepares batches ahead of the step.
pub mod ahead;
pub mod augment;
pub mod crops;
pub mod degrade;
pub mod folder;
pub mod idx;
pub mod list;
pub mod lows;
pub mod pack;
pub mod packed;
pub mod pairs;
pub mod plain;
pub mod prep;
mod rgb8;
pub mod split;
pub mod store;
pub mod subimages;
pub mod survey;
