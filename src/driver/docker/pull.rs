//! Pulls: an engine's reports of its layers, added up. Pure, but for the loop that reads them.

use super::engine::Engine;
use super::error::DockerError;
use super::reference;
use bollard::models::{CreateImageInfo, ProgressDetail};
use bollard::query_parameters::CreateImageOptions;
use futures_util::{StreamExt, pin_mut};
use meeboter_actors::image_pull::machine;
use meeboter_actors::ports::{ImageDigest, PullProgress, Pulled};
use slog::{info, warn};
use std::collections::HashMap;
use std::time::Duration;
use tokio::sync::watch;

/// A stream of reports that says nothing for so long is dead: what is on the host is looked for.
const SILENCE: Duration = Duration::from_secs(10 * 60);
// Past the actors' own patience nobody would hear that the image is there.
const _: () = assert!(SILENCE.as_secs() * 2 <= machine::SILENCE.as_secs());
/// How long a registry may take to say what a reference means.
const RESOLVE_DEADLINE: Duration = Duration::from_secs(60);

/// The layers of one pull, as far as the engine has told of them.
#[derive(Debug, Default)]
struct Layers(HashMap<String, Layer>);

#[derive(Debug, Clone, Copy, Default)]
struct Layer {
    done: u64,
    total: u64,
}

impl Layers {
    /// Takes a report of the engine in, and says how far the pull is. Bytes are those of the compressed layers.
    fn take(&mut self, report: &CreateImageInfo) -> PullProgress {
        if let (Some(id), Some(status)) = (&report.id, &report.status) {
            let layer = self.0.entry(id.clone()).or_default();
            let bytes = |count: Option<i64>| count.and_then(|count| u64::try_from(count).ok());
            match (status.as_str(), &report.progress_detail) {
                ("Downloading", Some(ProgressDetail { current, total })) => {
                    layer.done = bytes(*current).unwrap_or(layer.done);
                    layer.total = bytes(*total).unwrap_or(layer.total);
                }
                ("Download complete" | "Verifying Checksum" | "Extracting" | "Pull complete", _) => {
                    layer.done = layer.total;
                }
                _ => {}
            }
        }
        let (done, total) = self
            .0
            .values()
            .fold((0, 0), |(done, total), layer| (done + layer.done.min(layer.total), total + layer.total));
        PullProgress { done, total }
    }
}

impl Engine {
    /// Makes the image present. Where the registry cannot be asked and the image is there, that one will do: a registry
    /// that is away must not keep a bot from its meeting.
    pub(super) async fn pull(
        &self,
        image: &str,
        progress: &watch::Sender<PullProgress>,
    ) -> Result<Pulled, DockerError> {
        let error = match self.pull_from_registry(image, progress).await {
            Ok(()) => return Ok(Pulled::Current),
            Err(error) => error,
        };
        if !self.has_image(image).await? {
            return Err(error);
        }
        warn!(self.log, "an image is used as it is on the host: it could not be pulled";
            "image" => image, "host" => %self.host, "error" => %error);
        Ok(Pulled::Kept { reason: error.to_string() })
    }

    async fn pull_from_registry(
        &self,
        image: &str,
        progress: &watch::Sender<PullProgress>,
    ) -> Result<(), DockerError> {
        let parsed = reference::parse(image);
        let options = CreateImageOptions {
            from_image: Some(parsed.name.to_owned()),
            tag: parsed.tag.map(str::to_owned),
            ..CreateImageOptions::default()
        };
        let client = self.client().await?;
        let reports = client.create_image(Some(options), None, self.credentials(image));
        pin_mut!(reports);
        let mut layers = Layers::default();
        let call = "pull an image";
        loop {
            let next = self.within(SILENCE, call, reports.next()).await?;
            let report = match next {
                None => break,
                Some(report) => report.map_err(|error| self.pull_refused(image, error))?,
            };
            if let Some(words) = report.error_detail.as_ref().and_then(|detail| detail.message.clone()) {
                let error = bollard::errors::Error::DockerStreamError { error: words };
                return Err(self.pull_refused(image, error));
            }
            progress.send_replace(layers.take(&report));
        }
        info!(self.log, "image pulled"; "image" => image, "host" => %self.host,
            "bytes" => progress.borrow().total);
        Ok(())
    }

    fn pull_refused(&self, image: &str, error: bollard::errors::Error) -> DockerError {
        match DockerError::of(&self.host, "pull an image", error) {
            DockerError::Refused { host, words, .. } => {
                DockerError::PullRefused { host, image: image.to_owned(), words }
            }
            other => other,
        }
    }

    async fn has_image(&self, image: &str) -> Result<bool, DockerError> {
        let call = "look at an image";
        let client = self.client().await?;
        match self.call(call, client.inspect_image(image)).await {
            Ok(_) => Ok(true),
            Err(error) if error.is_missing() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// What a reference means to the registry now, by its digest; `None`: the registry does not know it.
    pub(super) async fn resolve(&self, image: &str) -> Result<Option<ImageDigest>, DockerError> {
        let call = "ask the registry for an image";
        let client = self.client().await?;
        let asked = client.inspect_registry_image(image, self.credentials(image));
        let answer = self.within(RESOLVE_DEADLINE, call, asked).await?;
        match answer.map_err(|error| DockerError::of(&self.host, call, error)) {
            Ok(found) => Ok(found.descriptor.digest.map(ImageDigest)),
            Err(error) if error.is_missing() => Ok(None),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(id: &str, status: &str, detail: Option<(i64, i64)>) -> CreateImageInfo {
        CreateImageInfo {
            id: Some(id.to_owned()),
            status: Some(status.to_owned()),
            progress_detail: detail
                .map(|(current, total)| ProgressDetail { current: Some(current), total: Some(total) }),
            error_detail: None,
        }
    }

    #[test]
    fn layers_add_up_and_never_go_back() {
        let mut layers = Layers::default();
        let mut done = 0;
        for (report, expected) in [
            (report("a", "Pulling fs layer", None), (0, 0)),
            (report("a", "Downloading", Some((10, 100))), (10, 100)),
            (report("b", "Downloading", Some((50, 50))), (60, 150)),
            (report("a", "Downloading", Some((90, 100))), (140, 150)),
            (report("a", "Download complete", None), (150, 150)),
            // What is unpacked is counted in other bytes.
            (report("a", "Extracting", Some((1, 400))), (150, 150)),
            (report("c", "Already exists", None), (150, 150)),
            (report("latest", "Pulling from meeboter/zoom", None), (150, 150)),
        ] {
            let progress = layers.take(&report);
            assert_eq!((progress.done, progress.total), expected, "{report:?}");
            assert!(progress.done >= done);
            done = progress.done;
        }
    }
}
