//! Options of exporters that make images: how layers are compressed, and annotations.

use std::collections::BTreeMap;

use image::{ImageForm, LayerCompression};

use crate::error::Failure;
use crate::result::Attributes;

/// Reads the options; what is not offered is refused by name, before anything is built.
pub fn read(attributes: &Attributes) -> Result<ImageForm, Failure> {
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
    Ok(ImageForm {
        compression,
        force: attributes.flag("force-compression"),
        annotations: annotations(attributes)?,
    })
}

/// `annotation.KEY` and `annotation-manifest.KEY`, which say the same here.
fn annotations(attributes: &Attributes) -> Result<BTreeMap<String, String>, Failure> {
    let mut found = BTreeMap::new();
    for (key, value) in &attributes.0 {
        let Some(rest) = key.strip_prefix("annotation") else {
            continue;
        };
        let (kind, name) = rest.split_once('.').unwrap_or((rest, ""));
        match (kind, name) {
            (_, "") => return Err(Failure::invalid(format!("the annotation {key:?} has no name"))),
            ("" | "-manifest", name) => {
                found.insert(name.to_owned(), value.clone());
            }
            (other, name) => {
                return Err(Failure::unimplemented(format!(
                    "the annotation {name} is for {:?}: only manifests are annotated here",
                    other.trim_start_matches('-')
                )));
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(options: &[(&str, &str)]) -> Result<ImageForm, Failure> {
        let owned = options
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        read(&Attributes(owned.collect()))
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
            (&[("annotation-index.a", "b")], "only manifests"),
            (&[("annotation.", "b")], "has no name"),
        ] {
            let said = of(options).unwrap_err().message;
            assert!(said.contains(part), "{options:?}: {said}");
        }
    }
}
