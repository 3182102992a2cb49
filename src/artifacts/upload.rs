//! Uploading a file, or what a program writes: little at once, the rest in parts.

use super::Failure;
use aws_sdk_s3::Client;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart};
use std::path::Path;
use tokio::fs::File;
use tokio::io::{AsyncRead, AsyncReadExt};

/// The size of a part; what is smaller needs none.
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
        self.upload_from(&mut file, async { Ok(()) }).await
    }

    /// Uploads what comes out of `source`; says how many bytes. `whole` is asked at its end whether that was all of it.
    /// An upload that fails leaves nothing.
    pub(super) async fn upload_from(
        &self,
        source: &mut (impl AsyncRead + Unpin),
        whole: impl Future<Output = Result<(), Failure>>,
    ) -> Result<u64, Failure> {
        let first = read_part(source).await?;
        let bytes = first.len() as u64;
        if bytes < PART_BYTES {
            whole.await?;
            self.put(first).await?;
            return Ok(bytes);
        }
        let upload = self.begin().await?;
        let outcome = async {
            let (parts, bytes) = self.put_parts(&upload, first, source).await?;
            whole.await?;
            self.complete(&upload, parts).await?;
            Ok(bytes)
        };
        let outcome = outcome.await;
        if outcome.is_err() {
            self.abort(&upload).await;
        }
        outcome
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

    async fn put_parts(
        &self,
        upload: &str,
        first: Vec<u8>,
        source: &mut (impl AsyncRead + Unpin),
    ) -> Result<(Vec<CompletedPart>, u64), Failure> {
        let (mut parts, mut bytes, mut part) = (Vec::new(), 0, first);
        for number in 1.. {
            if part.is_empty() {
                break;
            }
            bytes += part.len() as u64;
            let request = self.client.upload_part().bucket(self.bucket).key(self.key);
            let request = request.upload_id(upload).part_number(number).body(ByteStream::from(part));
            let what = || self.what(&format!("put part {number} of"));
            let answer = request.send().await.map_err(|error| Failure::store(what(), error))?;
            parts.push(CompletedPart::builder().part_number(number).set_e_tag(answer.e_tag).build());
            part = read_part(source).await?;
        }
        Ok((parts, bytes))
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

async fn read_part(source: &mut (impl AsyncRead + Unpin)) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let read = source.take(PART_BYTES).read_to_end(&mut bytes).await;
    read.map_err(Failure::file("read what is uploaded"))?;
    Ok(bytes)
}
