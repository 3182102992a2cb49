//! Uploading a file: small ones at once, others in parts.

use super::Failure;
use aws_sdk_s3::Client;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart};
use std::path::Path;
use tokio::fs::File;
use tokio::io::AsyncReadExt;

/// The size of a part, and of what needs none.
const PART_BYTES: u64 = 8 * 1024 * 1024;

/// Where a file goes.
pub(super) struct Target<'a> {
    pub(super) client: &'a Client,
    pub(super) bucket: &'a str,
    pub(super) key: &'a str,
    pub(super) content_type: &'a str,
}

impl Target<'_> {
    /// Uploads a file; says its size. An upload that fails leaves nothing.
    pub(super) async fn upload(&self, path: &Path) -> Result<u64, Failure> {
        let mut file = File::open(path).await.map_err(Failure::file("open the joined file"))?;
        let bytes = file.metadata().await.map_err(Failure::file("measure the joined file"))?.len();
        if bytes <= PART_BYTES {
            self.put(read_part(&mut file).await?).await?;
            return Ok(bytes);
        }
        let upload = self.begin().await?;
        let outcome = match self.put_parts(&upload, &mut file).await {
            Ok(parts) => self.complete(&upload, parts).await,
            Err(failure) => Err(failure),
        };
        if outcome.is_err() {
            self.abort(&upload).await;
        }
        outcome.map(|()| bytes)
    }

    async fn put(&self, bytes: Vec<u8>) -> Result<(), Failure> {
        let request = self.client.put_object().bucket(self.bucket).key(self.key);
        let request = request.content_type(self.content_type).body(ByteStream::from(bytes));
        request.send().await.map(|_| ()).map_err(|error| Failure::store(self.what("put"), error))
    }

    async fn begin(&self) -> Result<String, Failure> {
        let request = self.client.create_multipart_upload().bucket(self.bucket).key(self.key);
        let answer = request.content_type(self.content_type).send().await;
        let answer = answer.map_err(|error| Failure::store(self.what("begin the upload of"), error))?;
        answer.upload_id.ok_or_else(|| Failure::Unanswered {
            what: self.what("begin the upload of"),
            detail: "the answer names no upload".to_owned(),
        })
    }

    async fn put_parts(&self, upload: &str, file: &mut File) -> Result<Vec<CompletedPart>, Failure> {
        let mut parts = Vec::new();
        for number in 1.. {
            let bytes = read_part(file).await?;
            if bytes.is_empty() {
                break;
            }
            let request = self.client.upload_part().bucket(self.bucket).key(self.key);
            let request = request.upload_id(upload).part_number(number).body(ByteStream::from(bytes));
            let what = || self.what(&format!("put part {number} of"));
            let answer = request.send().await.map_err(|error| Failure::store(what(), error))?;
            parts.push(CompletedPart::builder().part_number(number).set_e_tag(answer.e_tag).build());
        }
        Ok(parts)
    }

    async fn complete(&self, upload: &str, parts: Vec<CompletedPart>) -> Result<(), Failure> {
        let parts = CompletedMultipartUpload::builder().set_parts(Some(parts)).build();
        let request = self.client.complete_multipart_upload().bucket(self.bucket).key(self.key);
        let answer = request.upload_id(upload).multipart_upload(parts).send().await;
        answer.map(|_| ()).map_err(|error| Failure::store(self.what("complete the upload of"), error))
    }

    /// Where this fails too, the store's own rule for abandoned uploads has to do it.
    async fn abort(&self, upload: &str) {
        let request = self.client.abort_multipart_upload().bucket(self.bucket).key(self.key);
        let _ = request.upload_id(upload).send().await;
    }

    fn what(&self, verb: &str) -> String {
        format!("{verb} {}/{}", self.bucket, self.key)
    }
}

async fn read_part(file: &mut File) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let read = file.take(PART_BYTES).read_to_end(&mut bytes).await;
    read.map_err(Failure::file("read the joined file"))?;
    Ok(bytes)
}
