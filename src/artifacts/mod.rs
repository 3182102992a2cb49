//! Segments and recordings in an S3 store: any that speaks the protocol, or the one inside this server.
//!
//! [`S3Artifacts`] is the port of the actors and signs URLs; [`embedded`] is the server's own store, on loopback;
//! [`proxy`] lets the world reach that store by the server's own address.

mod backups;
mod boxes;
pub mod embedded;
mod error;
mod ffmpeg;
mod join;
mod objects;
mod pieces;
pub mod proxy;
mod s3;
mod upload;

pub use backups::Backup;
pub use error::Failure;
pub(crate) use ffmpeg::last_words;
pub use s3::{S3Artifacts, S3Keys, S3Settings};
