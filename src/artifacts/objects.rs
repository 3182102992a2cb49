//! The store's operations on a folder: what recordings need of S3, and no more; the rest answers `NotImplemented`.
//!
//! `s3s-fs` does the work, but for listings: its own walks the whole bucket for every page.

use s3s::dto::*;
use s3s::{S3, S3Request, S3Response, S3Result, s3_error};
use s3s_fs::FileSystem;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::time::SystemTime;

/// Keys on a page of a listing, where the client wants more or does not say.
const PAGE_MAX: usize = 1000;

/// See the module.
pub(super) struct Objects {
    files: FileSystem,
    root: PathBuf,
}

impl Objects {
    /// The buckets in a folder, which must exist.
    pub(super) fn open(root: &Path) -> Result<Self, s3s_fs::Error> {
        Ok(Self { files: FileSystem::new(root)?, root: root.to_owned() })
    }
}

macro_rules! as_files_does {
    ($($operation:ident: $input:ty => $output:ty;)*) => {$(
        fn $operation<'me, 'call>(
            &'me self,
            request: S3Request<$input>,
        ) -> std::pin::Pin<Box<dyn Future<Output = S3Result<S3Response<$output>>> + Send + 'call>>
        where
            'me: 'call,
            Self: 'call,
        {
            self.files.$operation(request)
        }
    )*};
}

#[async_trait::async_trait]
impl S3 for Objects {
    as_files_does! {
        create_bucket: CreateBucketInput => CreateBucketOutput;
        head_bucket: HeadBucketInput => HeadBucketOutput;
        get_object: GetObjectInput => GetObjectOutput;
        head_object: HeadObjectInput => HeadObjectOutput;
        put_object: PutObjectInput => PutObjectOutput;
        delete_object: DeleteObjectInput => DeleteObjectOutput;
        create_multipart_upload: CreateMultipartUploadInput => CreateMultipartUploadOutput;
        upload_part: UploadPartInput => UploadPartOutput;
        complete_multipart_upload: CompleteMultipartUploadInput => CompleteMultipartUploadOutput;
        abort_multipart_upload: AbortMultipartUploadInput => AbortMultipartUploadOutput;
    }

    async fn list_objects_v2(
        &self,
        request: S3Request<ListObjectsV2Input>,
    ) -> S3Result<S3Response<ListObjectsV2Output>> {
        let input = request.input;
        if input.delimiter.is_some() {
            return Err(s3_error!(NotImplemented, "listings have no delimiter here"));
        }
        let prefix = input.prefix.clone().unwrap_or_default();
        let after = input.continuation_token.clone().max(input.start_after.clone());
        let wanted = input.max_keys.and_then(|max| usize::try_from(max).ok());
        let max = wanted.unwrap_or(PAGE_MAX).min(PAGE_MAX);
        let bucket = self.root.join(&input.bucket);
        let page = tokio::task::spawn_blocking(move || page(&bucket, &prefix, after.as_deref(), max)).await;
        let Page { found, is_truncated } = match page {
            Ok(Ok(Some(page))) => page,
            Ok(Ok(None)) => return Err(s3_error!(NoSuchBucket)),
            Ok(Err(error)) => return Err(s3_error!(error, InternalError)),
            Err(error) => return Err(s3_error!(error, InternalError)),
        };
        let last = found.last().map(|found| found.key.clone());
        let contents: Vec<Object> = found.into_iter().map(Object::from).collect();
        Ok(S3Response::new(ListObjectsV2Output {
            name: Some(input.bucket),
            prefix: input.prefix,
            max_keys: i32::try_from(max).ok(),
            key_count: i32::try_from(contents.len()).ok(),
            contents: Some(contents),
            continuation_token: input.continuation_token,
            is_truncated: Some(is_truncated),
            next_continuation_token: last.filter(|_| is_truncated),
            start_after: input.start_after,
            ..ListObjectsV2Output::default()
        }))
    }
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Found {
    key: String,
    bytes: u64,
    modified: SystemTime,
}

impl From<Found> for Object {
    fn from(found: Found) -> Self {
        Self {
            key: Some(found.key),
            size: i64::try_from(found.bytes).ok(),
            last_modified: Some(Timestamp::from(found.modified)),
            ..Self::default()
        }
    }
}

struct Page {
    found: Vec<Found>,
    is_truncated: bool,
}

/// The keys that begin with `prefix` and come after `after`, in order; `None` where there is no bucket. Only the
/// folders below the prefix are read.
fn page(bucket: &Path, prefix: &str, after: Option<&str>, max: usize) -> io::Result<Option<Page>> {
    if !bucket.is_dir() {
        return Ok(None);
    }
    let folder = prefix.rfind('/').map_or("", |slash| &prefix[..slash]);
    let is_plain = Path::new(folder).components().all(|part| matches!(part, Component::Normal(_)));
    let mut found = Vec::new();
    let mut folders = if is_plain { vec![bucket.join(folder)] } else { vec![] };
    while let Some(folder) = folders.pop() {
        let entries = match std::fs::read_dir(&folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            let path = entry.path();
            if entry.file_type()?.is_dir() {
                folders.push(path);
                continue;
            }
            let Some(key) = path.strip_prefix(bucket).ok().and_then(Path::to_str) else { continue };
            if key.starts_with(prefix) && after.is_none_or(|after| key > after) {
                let metadata = entry.metadata()?;
                let (bytes, modified) = (metadata.len(), metadata.modified()?);
                found.push(Found { key: key.to_owned(), bytes, modified });
            }
        }
    }
    found.sort();
    let is_truncated = found.len() > max;
    found.truncate(max);
    Ok(Some(Page { found, is_truncated }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_follow_each_other_and_stay_below_the_prefix() {
        let root = tempfile::tempdir().expect("temporary folder");
        for key in ["a/1/x", "a/1/y", "a/10/x", "a/2", "b/1/x"] {
            let path = root.path().join("bucket").join(key);
            std::fs::create_dir_all(path.parent().expect("has one")).expect("made");
            std::fs::write(path, key).expect("written");
        }
        let bucket = root.path().join("bucket");
        let keys = |prefix, after, max| {
            let page = page(&bucket, prefix, after, max).expect("readable").expect("there");
            (page.found.into_iter().map(|found| found.key).collect::<Vec<_>>(), page.is_truncated)
        };
        assert_eq!(keys("a/1/", None, 9), (vec!["a/1/x".to_owned(), "a/1/y".to_owned()], false));
        assert_eq!(keys("a/1", None, 2), (vec!["a/1/x".to_owned(), "a/1/y".to_owned()], true));
        assert_eq!(keys("a/1", Some("a/1/y"), 2), (vec!["a/10/x".to_owned()], false));
        assert_eq!(keys("../bucket/", None, 9), (vec![], false));
        assert_eq!(keys("none/", None, 9), (vec![], false));
        assert!(page(&root.path().join("other"), "", None, 9).expect("readable").is_none());
    }
}
