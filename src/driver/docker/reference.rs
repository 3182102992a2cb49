//! Image references as people write them, taken apart: `[registry/]path[:tag][@digest]`. Pure.

/// The registry of references that name none.
const DEFAULT_REGISTRY: &str = "docker.io";

/// An image's reference, in the two parts that an engine is asked with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reference<'a> {
    /// Everything before the tag; with a digest, all of it.
    pub(super) name: &'a str,
    /// The tag; `None`: the name holds a digest, which says more than a tag.
    pub(super) tag: Option<&'a str>,
}

/// Takes a reference apart. One without a tag means `latest`: an engine asked without any would pull them all.
pub(super) fn parse(image: &str) -> Reference<'_> {
    if image.contains('@') {
        return Reference { name: image, tag: None };
    }
    // A colon before the last slash belongs to a registry's port.
    let path = image.rfind('/').map_or(0, |slash| slash + 1);
    match image[path..].split_once(':') {
        Some((last, tag)) if !tag.is_empty() => {
            Reference { name: &image[..path + last.len()], tag: Some(tag) }
        }
        _ => Reference { name: image.trim_end_matches(':'), tag: Some("latest") },
    }
}

/// The registry that an image comes from.
pub(super) fn registry(image: &str) -> &str {
    match image.split_once('/') {
        Some((first, _)) if first.contains(['.', ':']) || first == "localhost" => first,
        _ => DEFAULT_REGISTRY,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_taken_apart() {
        for (image, name, tag) in [
            ("zoom-bot", "zoom-bot", Some("latest")),
            ("zoom-bot:1", "zoom-bot", Some("1")),
            ("zoom-bot:", "zoom-bot", Some("latest")),
            ("ghcr.io/a/zoom-bot:sha-1", "ghcr.io/a/zoom-bot", Some("sha-1")),
            ("localhost:5000/zoom-bot", "localhost:5000/zoom-bot", Some("latest")),
            ("localhost:5000/zoom-bot:2", "localhost:5000/zoom-bot", Some("2")),
            ("ghcr.io/a/b@sha256:0a", "ghcr.io/a/b@sha256:0a", None),
            ("ghcr.io/a/b:1@sha256:0a", "ghcr.io/a/b:1@sha256:0a", None),
            ("", "", Some("latest")),
        ] {
            assert_eq!(parse(image), Reference { name, tag }, "{image}");
        }
    }

    #[test]
    fn the_registry_is_the_first_part_that_looks_like_a_host() {
        for (image, host) in [
            ("zoom-bot", "docker.io"),
            ("meeboter/zoom-bot", "docker.io"),
            ("ghcr.io/a/b:1", "ghcr.io"),
            ("localhost/b", "localhost"),
            ("127.0.0.1:5000/b", "127.0.0.1:5000"),
        ] {
            assert_eq!(registry(image), host, "{image}");
        }
    }
}
