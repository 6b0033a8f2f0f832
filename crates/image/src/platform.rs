//! Which manifest of an index suits a platform.
//!
//! The entry that fits best wins, the first among equals. Entries for `unknown/unknown` are attestations, never
//! images. An amd64 host also takes 386 images, as every kernel Docker runs on does.

use spec::Platform;
use spec::image::{Descriptor, Index};

use crate::document::children;

/// How well an image made for `image` serves `wanted`: 0 is exact, `None` not at all.
pub(crate) fn score(wanted: &Platform, image: &Platform, strict: bool) -> Option<u32> {
    if strict && !wanted.matches(image) {
        // An explicit request still takes a lower variant where none was named exactly.
        return wanted.preference(image);
    }
    wanted.preference(image).or_else(|| {
        let fallback = !strict && wanted.architecture == "amd64" && image.normalized().architecture == "386";
        (fallback && wanted.os == image.normalized().os).then_some(1000)
    })
}

/// Whether an entry of an index stands for something to run.
pub(crate) fn is_runnable(entry: &Descriptor) -> bool {
    let unknown = |p: &Platform| p.os == "unknown" || p.architecture == "unknown";
    !entry.platform.as_ref().is_some_and(unknown)
        && !entry.annotations.contains_key("vnd.docker.reference.type")
}

/// The entries that serve `platform`, best first. Without a platform the host is asked for. Entries that do not
/// say what they are for come last: their configuration has to tell.
pub(crate) fn candidates<'a>(index: &'a Index, platform: Option<&Platform>) -> Vec<&'a Descriptor> {
    let host = Platform::host();
    let wanted = platform.unwrap_or(&host);
    let mut scored: Vec<(u32, &Descriptor)> = children(index)
        .filter(|entry| is_runnable(entry))
        .filter_map(|entry| match &entry.platform {
            Some(offered) => Some((score(wanted, offered, platform.is_some())?, entry)),
            None => Some((u32::MAX, entry)),
        })
        .collect();
    scored.sort_by_key(|(score, _)| *score);
    scored.into_iter().map(|(_, entry)| entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use spec::Digest;
    use spec::image::media_type::OCI_MANIFEST;

    fn index(platforms: &[&str]) -> Index {
        let manifests = platforms
            .iter()
            .map(|p| {
                let mut entry = Descriptor::new(OCI_MANIFEST, Digest::sha256(p.as_bytes()), 1);
                entry.platform = match *p {
                    "" => None,
                    "unknown" => Some(Platform::new("unknown", "unknown", None)),
                    p => Some(p.parse().unwrap()),
                };
                entry
            })
            .collect();
        Index {
            schema_version: 2,
            media_type: None,
            artifact_type: None,
            manifests,
            annotations: Default::default(),
            extra: Default::default(),
        }
    }

    fn chosen(platforms: &[&str], wanted: &str) -> Option<String> {
        let index = index(platforms);
        let wanted: Platform = wanted.parse().unwrap();
        candidates(&index, Some(&wanted))
            .first()
            .map(|d| d.platform.as_ref().map_or_else(String::new, Platform::to_string))
    }

    #[test]
    fn the_nearest_variant_wins() {
        let arms = [
            "linux/arm/v5",
            "linux/arm/v6",
            "linux/arm/v7",
            "linux/arm64/v8",
            "linux/amd64",
        ];
        for (wanted, expected) in [
            ("linux/arm/v7", Some("linux/arm/v7")),
            ("linux/arm/v6", Some("linux/arm/v6")),
            ("linux/arm/v8", Some("linux/arm/v7")),
            ("linux/arm64", Some("linux/arm64")),
            ("linux/amd64", Some("linux/amd64")),
            ("linux/s390x", None),
            ("windows/amd64", None),
        ] {
            assert_eq!(chosen(&arms, wanted).as_deref(), expected, "{wanted}");
        }
        assert_eq!(
            chosen(&["linux/arm/v5", "linux/arm/v6"], "linux/arm/v7").as_deref(),
            Some("linux/arm/v6")
        );
    }

    #[test]
    fn attestations_are_not_images_and_the_unnamed_come_last() {
        let index = index(&["", "unknown", "linux/amd64"]);
        let wanted: Platform = "linux/amd64".parse().unwrap();
        let found = candidates(&index, Some(&wanted));
        assert_eq!(found.len(), 2);
        assert!(found[0].platform.is_some() && found[1].platform.is_none());
    }

    #[test]
    fn a_386_image_serves_amd64_only_unasked() {
        let amd64: Platform = "linux/amd64".parse().unwrap();
        let i386: Platform = "linux/386".parse().unwrap();
        assert_eq!(score(&amd64, &i386, false), Some(1000));
        assert_eq!(score(&amd64, &i386, true), None);
        assert_eq!(score(&amd64, &amd64, true), Some(0));
    }
}
