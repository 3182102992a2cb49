//! Pulls of images, one at a time for each image.

pub mod actor;
