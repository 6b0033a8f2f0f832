//! Options of exporters that make images: how layers are compressed, and annotations.

use std::collections::BTreeMap;

use image::{ImageForm, LayerCompression};

use spec::Platform;

use crate::error::Failure;
use crate::result::Attributes;

/// Reads the options; what is not offered is refused by name, before anything is built.
pub fn read(attributes: &Attributes) -> Result<Form, Failure> {
    let level = match attributes.get("compression-level") {
        None => None,
        Some(text) => Some(text.parse::<u32>().map_err(|_| {
            Failure::invalid(format!(
                "compression-level {text:?} is no number: gzip has 0 to 9, zstd 0 to 22"
            ))
        })?),
    };
    let most = |most: u32| match level {
        Some(level) if level > most => Err(Failure::invalid(format!(
            "compression-level {level} is too high: at most {most}"
        ))),
        level => Ok(level),
    };
    let compression = match (attributes.get("compression"), level) {
        (None, None) => None,
        (None | Some("gzip"), _) => Some(LayerCompression::Gzip { level: most(9)? }),
        (Some("uncompressed"), _) => Some(LayerCompression::None),
        (Some("zstd"), _) => {
            let level = most(22)?.and_then(|level| i32::try_from(level).ok());
            Some(LayerCompression::Zstd { level })
        }
        (Some("estargz"), _) => {
            return Err(Failure::unimplemented(
                "layers are not compressed with estargz here: use gzip, zstd or uncompressed",
            ));
        }
        (Some(other), _) => {
            return Err(Failure::invalid(format!(
                "unknown compression {other:?}: use gzip, zstd or uncompressed"
            )));
        }
    };
    let layers = ImageForm {
        compression,
        force: attributes.flag("force-compression"),
        annotations: BTreeMap::new(),
    };
    Ok(Form {
        layers,
        annotations: Annotations::read(attributes)?,
    })
}

/// How an image is written, and what is said beside it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Form {
    layers: ImageForm,
    pub annotations: Annotations,
}

impl Form {
    /// The form of the image of one platform.
    pub fn of(&self, platform: &Platform) -> ImageForm {
        ImageForm {
            annotations: said(&self.annotations.manifest, platform),
            ..self.layers.clone()
        }
    }
}

/// An annotation for one platform's image, or for all of them.
type OfManifest = (Option<Platform>, String, String);

fn said(all: &[OfManifest], platform: &Platform) -> BTreeMap<String, String> {
    let of_all = all.iter().filter(|(of, ..)| of.is_none());
    let of_one = all.iter().filter(|(of, ..)| of.as_ref() == Some(platform));
    // The later one counts.
    let pairs = of_all.chain(of_one);
    pairs
        .map(|(_, key, value)| (key.clone(), value.clone()))
        .collect()
}

/// What is said in the documents of an image, and in the entries that lead to them.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Annotations {
    manifest: Vec<OfManifest>,
    manifest_descriptor: Vec<OfManifest>,
    pub index: BTreeMap<String, String>,
    pub index_descriptor: BTreeMap<String, String>,
}

impl Annotations {
    /// `annotation[-KIND][[PLATFORM]].KEY`; without a kind it is the manifest's.
    fn read(attributes: &Attributes) -> Result<Annotations, Failure> {
        let mut found = Annotations::default();
        let sorted: BTreeMap<&String, &String> = attributes.0.iter().collect();
        for (attribute, value) in sorted {
            let Some(rest) = attribute.strip_prefix("annotation") else {
                continue;
            };
            let (place, key) = match rest.strip_prefix('.') {
                Some(key) => ("", key),
                None => rest.split_once('.').unwrap_or((rest, "")),
            };
            if key.is_empty() {
                return Err(Failure::invalid(format!(
                    "the annotation {attribute:?} has no name: write annotation.KEY or annotation-KIND.KEY"
                )));
            }
            let (kind, platform) = match place.strip_suffix(']').and_then(|place| place.split_once('[')) {
                Some((kind, platform)) => (kind, Some(platform)),
                None => (place, None),
            };
            let of_platform = || {
                let read = platform.map(str::parse::<Platform>).transpose();
                read.map_err(|error| Failure::invalid(format!("the annotation {attribute:?}: {error}")))
            };
            let pair = (key.to_owned(), value.clone());
            match (kind, platform) {
                ("" | "-manifest", _) => found.manifest.push((of_platform()?, pair.0, pair.1)),
                ("-manifest-descriptor", _) => {
                    found.manifest_descriptor.push((of_platform()?, pair.0, pair.1));
                }
                // An index is of all platforms, whichever is named.
                ("-index", _) => {
                    of_platform()?;
                    found.index.extend([pair]);
                }
                ("-index-descriptor", _) => {
                    of_platform()?;
                    found.index_descriptor.extend([pair]);
                }
                _ => {
                    return Err(Failure::invalid(format!(
                        "unknown annotation type in {attribute:?}: use manifest, manifest-descriptor, index or index-descriptor"
                    )));
                }
            }
        }
        Ok(found)
    }

    /// What leads to the manifest of one platform says this.
    pub fn of_descriptor(&self, platform: &Platform) -> BTreeMap<String, String> {
        said(&self.manifest_descriptor, platform)
    }

    /// Refuses what is said of an index where there is none.
    pub fn without_index(&self) -> Result<(), Failure> {
        match self.index.keys().chain(self.index_descriptor.keys()).next() {
            None => Ok(()),
            Some(key) => Err(Failure::invalid(format!(
                "index annotations not supported for single platform export: {key} needs several platforms or an attestation (--provenance)"
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(options: &[(&str, &str)]) -> Result<Form, Failure> {
        let owned = options
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        read(&Attributes(owned.collect()))
    }

    fn of(options: &[(&str, &str)]) -> Result<ImageForm, Failure> {
        Ok(form(options)?.of(&Platform::host()))
    }

    #[test]
    fn annotations_have_their_place() {
        let form = form(&[
            ("annotation.org.all", "1"),
            ("annotation-manifest[linux/arm64].org.arm", "2"),
            ("annotation-manifest[linux/arm64].org.all", "3"),
            ("annotation-manifest-descriptor.org.entry", "4"),
            ("annotation-index[linux/arm64].org.index", "5"),
            ("annotation[linux/arm64].org.short", "7"),
            ("annotation-index-descriptor.org.top", "6"),
        ])
        .unwrap();
        let map = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            let pairs = pairs.iter();
            pairs
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect()
        };
        let (arm, amd) = (
            Platform::new("linux", "arm64", None),
            Platform::new("linux", "amd64", None),
        );
        assert_eq!(form.of(&amd).annotations, map(&[("org.all", "1")]));
        assert_eq!(
            form.of(&arm).annotations,
            map(&[("org.all", "3"), ("org.arm", "2"), ("org.short", "7")])
        );
        let said = &form.annotations;
        assert_eq!(said.of_descriptor(&amd), map(&[("org.entry", "4")]));
        assert_eq!(said.index, map(&[("org.index", "5")]));
        assert_eq!(said.index_descriptor, map(&[("org.top", "6")]));
        assert!(said.without_index().unwrap_err().message.contains("org.index"));
    }

    #[test]
    fn options_are_read() {
        assert_eq!(of(&[("name", "x")]).unwrap(), ImageForm::default());
        let form = of(&[
            ("compression", "zstd"),
            ("compression-level", "19"),
            ("force-compression", "true"),
        ])
        .unwrap();
        assert_eq!(form.compression, Some(LayerCompression::Zstd { level: Some(19) }));
        assert!(form.force);
        assert_eq!(
            of(&[("compression-level", "9")]).unwrap().compression,
            Some(LayerCompression::Gzip { level: Some(9) })
        );
        let form = of(&[("annotation.a.b", "c"), ("annotation-manifest.d", "e")]).unwrap();
        assert_eq!(
            (form.annotations["a.b"].as_str(), form.annotations["d"].as_str()),
            ("c", "e")
        );
    }

    #[test]
    fn what_is_not_offered_is_refused_by_name() {
        for (options, part) in [
            (&[("compression", "estargz")][..], "estargz"),
            (&[("compression", "lzma")], "\"lzma\""),
            (
                &[("compression", "gzip"), ("compression-level", "22")],
                "at most 9",
            ),
            (&[("compression-level", "x")], "is no number"),
            (&[("annotation-list.a", "b")], "unknown annotation type"),
            (&[("annotation-index[!].a", "b")], "invalid component"),
            (&[("annotation-manifest[!].a", "b")], "invalid component"),
            (&[("annotation.", "b")], "has no name"),
        ] {
            let said = of(options).unwrap_err().message;
            assert!(said.contains(part), "{options:?}: {said}");
        }
    }
}
