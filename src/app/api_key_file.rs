//! The first API key: made at the first start, and left in a file that only this user can read.

use super::StartError;
use crate::auth::api_keys::{new_key, prefix_of};
use crate::store::pool::Pool;
use crate::store::queries::hash_of_key;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

const USER: &str = "admin";

/// Sees that there is a key in the file that the database knows, unless somebody has made keys of their own.
pub(super) async fn ensure(pool: &Pool, data_dir: &Path) -> Result<PathBuf, StartError> {
    let path = data_dir.join("api-key");
    if let Ok(known) = fs::read_to_string(&path)
        && pool.find_api_key(&hash_of_key(known.trim())).await?.is_some()
    {
        return Ok(path);
    }
    let user = pool.user_named(USER).await?;
    if path.exists() || pool.list_api_keys(user.id).await?.is_empty() {
        let key = new_key();
        // The file first: a key that nobody can read would lock everybody out.
        write(&path, &key).map_err(|source| StartError::KeyFile { path: path.clone(), source })?;
        pool.insert_api_key(user.id, "first key", &prefix_of(&key), &hash_of_key(&key)).await?;
    }
    Ok(path)
}

fn write(path: &Path, key: &str) -> std::io::Result<()> {
    let new = path.with_extension("new");
    let _ = fs::remove_file(&new);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    writeln!(file, "{key}")?;
    file.sync_all()?;
    fs::rename(&new, path)
}
