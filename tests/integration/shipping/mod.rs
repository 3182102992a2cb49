//! What ships Meeboter: its images, its composition, its backups. Built, run and read back for real.

mod backups;
mod base;
mod composition;
mod images;
