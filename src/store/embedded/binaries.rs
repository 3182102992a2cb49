//! Where PostgreSQL's programs are.

use super::EmbeddedError;
use std::path::{Path, PathBuf};

/// Where distributions install to, besides PATH: what holds a folder for each version (`15` or `pgsql-15`), and the
/// folder with the programs in that.
const INSTALLED: [(&str, &str); 2] = [("/usr/lib/postgresql", "bin"), ("/usr", "bin")];

/// An installed PostgreSQL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Binaries {
    pub(super) folder: PathBuf,
    pub(super) major: u32,
}

impl Binaries {
    /// The first in PATH, else the newest; where there is a cluster already, of the version that made it.
    pub(super) fn find(made_by: Option<u32>, path: &[PathBuf]) -> Result<Self, EmbeddedError> {
        let candidates: Vec<Self> = path.iter().filter_map(|folder| Self::in_folder(folder)).collect();
        match made_by {
            None => candidates.into_iter().next().ok_or(EmbeddedError::NoBinaries),
            Some(major) => candidates
                .into_iter()
                .find(|binaries| binaries.major == major)
                .ok_or(EmbeddedError::OtherVersion { major }),
        }
    }

    fn in_folder(folder: &Path) -> Option<Self> {
        let is_whole = ["postgres", "initdb"].iter().all(|name| folder.join(name).is_file());
        let major = if is_whole { version_of(&folder.join("postgres")) } else { None }?;
        Some(Self { folder: folder.to_owned(), major })
    }

    pub(super) fn program(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

/// Where to look, first to last: PATH, then the usual places from the newest version down.
pub(super) fn search_path() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    let mut installed: Vec<(u32, PathBuf)> = Vec::new();
    for (parent, bin) in INSTALLED {
        for entry in std::fs::read_dir(parent).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let version = name.strip_prefix("pgsql-").unwrap_or(&name).parse();
            installed.extend(version.ok().map(|version| (version, entry.path().join(bin))));
        }
    }
    installed.sort_by_key(|(version, _)| std::cmp::Reverse(*version));
    folders.extend(installed.into_iter().map(|(_, folder)| folder));
    folders
}

/// The major version that `postgres --version` says, as in "postgres (PostgreSQL) 15.14 (Debian …)".
fn version_of(postgres: &Path) -> Option<u32> {
    let output = std::process::Command::new(postgres).arg("--version").env_clear().output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let version = text.split_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit()))?;
    version.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_installed_says_what_to_install() {
        let error = Binaries::find(None, &[PathBuf::from("/nonexistent")]).expect_err("nothing is there");
        assert_eq!(
            error.to_string(),
            "PostgreSQL is not installed: run `apt-get install postgresql` (or set DATABASE_URL)"
        );
    }

    #[test]
    fn a_cluster_of_another_version_names_the_package() {
        let error = Binaries::find(Some(9), &search_path()).expect_err("9 is not installed");
        assert!(error.to_string().contains("postgresql-9"), "{error}");
    }
}
