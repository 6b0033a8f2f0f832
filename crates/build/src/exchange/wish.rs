//! What clients say of caches: `type=registry,ref=NAME,mode=max`, with the options of BuildKit.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};
use spec::{Digest, ErrorClass, Reference};

use super::{CacheExport, Form};
use crate::error::BuildError;

/// Kinds of stores that BuildKit knows and this engine does not reach.
const FOREIGN: [&str; 3] = ["gha", "s3", "azblob"];

/// The build argument by which old clients ask for a cache inside the image.
pub const INLINE_ARGUMENT: &str = "BUILDKIT_INLINE_CACHE";

/// A cache by its kind and options, as it is written; outputs of builds are written alike.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Wish {
    #[serde(rename = "Type", default)]
    pub kind: String,
    #[serde(rename = "Attrs", default, deserialize_with = "options")]
    pub options: BTreeMap<String, String>,
}

fn options<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeMap<String, String>, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

impl Wish {
    /// Reads `type=KIND,option=value,…`; a bare name is one in a registry.
    pub fn parse(text: &str) -> Result<Wish, BuildError> {
        let mut options = BTreeMap::new();
        if !text.contains('=') {
            options.insert("ref".to_owned(), text.to_owned());
            let kind = "registry".to_owned();
            return Ok(Wish { kind, options });
        }
        for field in text.split(',') {
            let Some((name, value)) = field.split_once('=') else {
                return Err(BuildError::invalid(format!(
                    "invalid cache {text:?}: {field:?} is no option=value"
                )));
            };
            options.insert(name.trim().to_ascii_lowercase(), value.to_owned());
        }
        match options.remove("type") {
            Some(kind) => Ok(Wish { kind, options }),
            None => Err(BuildError::invalid(format!(
                "invalid cache {text:?}: a type is required, as in type=registry,ref=NAME"
            ))),
        }
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.options
            .get(name)
            .map(String::as_str)
            .filter(|value| !value.is_empty())
    }

    fn needed(&self, name: &str) -> Result<&str, BuildError> {
        self.get(name).ok_or_else(|| {
            BuildError::invalid(format!(
                "a cache of type {} requires the option {name}",
                self.kind
            ))
        })
    }

    fn flag(&self, name: &str, default: bool) -> Result<bool, BuildError> {
        match self.get(name).map(str::to_ascii_lowercase).as_deref() {
            None => Ok(default),
            Some("1" | "t" | "true") => Ok(true),
            Some("0" | "f" | "false") => Ok(false),
            Some(other) => Err(BuildError::invalid(format!(
                "invalid value {other:?} of the cache's option {name}: use true or false"
            ))),
        }
    }

    fn name(&self) -> Result<Reference, BuildError> {
        let name = self.needed("ref")?;
        let name = Reference::parse_normalized(name)
            .map_err(|error| BuildError::invalid(format!("invalid cache reference {name:?}: {error}")))?;
        Ok(name.or_latest())
    }

    fn unknown(&self, what: &str) -> BuildError {
        let why = match FOREIGN.contains(&self.kind.as_str()) {
            true => "is not offered here",
            false => "is not known",
        };
        BuildError::new(
            format!(
                "a cache {what} of type {:?} {why}: use type=registry, type=local or an image with type=inline",
                self.kind
            ),
            ErrorClass::NotImplemented,
        )
    }
}

/// Where a cache is read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CacheSource {
    Registry(Reference),
    /// An image: the one that is here, or its registry's.
    Named(Reference),
    /// A directory of the client, and the document in it that everything begins with.
    Local {
        directory: String,
        digest: Digest,
    },
}

impl CacheSource {
    /// As users write it; a bare name is an image's, which may be here.
    pub fn parse(text: &str) -> Result<CacheSource, BuildError> {
        Ok(match CacheSource::read(&Wish::parse(text)?)? {
            CacheSource::Registry(name) if !text.contains('=') => CacheSource::Named(name),
            other => other,
        })
    }

    pub fn read(wish: &Wish) -> Result<CacheSource, BuildError> {
        match wish.kind.as_str() {
            "registry" => Ok(CacheSource::Registry(wish.name()?)),
            "local" => {
                let digest = wish.needed("digest")?;
                let digest = digest.parse().map_err(|error| {
                    BuildError::invalid(format!("invalid digest {digest:?} of a cache: {error}"))
                })?;
                let directory = wish.needed("src")?.to_owned();
                Ok(CacheSource::Local { directory, digest })
            }
            _ => Err(wish.unknown("import")),
        }
    }

    /// How people know it.
    pub fn title(&self) -> String {
        match self {
            CacheSource::Registry(name) | CacheSource::Named(name) => name.familiar(),
            CacheSource::Local { directory, .. } => format!("local:{directory}"),
        }
    }
}

/// Where a cache is written to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CacheGoal {
    /// The image itself.
    Inline,
    Registry(Reference),
    /// A directory of the client.
    Local(String),
}

/// A cache to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheTarget {
    pub goal: CacheGoal,
    pub mode: CacheExport,
    pub form: Form,
    /// A build whose cache cannot be exported has not failed.
    pub ignore_error: bool,
}

impl CacheTarget {
    pub fn read(wish: &Wish) -> Result<CacheTarget, BuildError> {
        let goal = match wish.kind.as_str() {
            "inline" => CacheGoal::Inline,
            "registry" => CacheGoal::Registry(wish.name()?),
            "local" => CacheGoal::Local(wish.needed("dest")?.to_owned()),
            _ => return Err(wish.unknown("export")),
        };
        let mode = match wish.get("mode") {
            None | Some("min") => CacheExport::Min,
            Some("max") => CacheExport::Max,
            Some(other) => {
                return Err(BuildError::invalid(format!(
                    "invalid mode {other:?} of a cache export: use min or max"
                )));
            }
        };
        if let Some(other) = wish.get("compression").filter(|kind| *kind != "gzip") {
            return Err(BuildError::new(
                format!("layers of a cache are compressed with gzip, {other:?} is not offered"),
                ErrorClass::NotImplemented,
            ));
        }
        let oci = wish.flag("oci-mediatypes", true)?;
        Ok(CacheTarget {
            mode: match goal {
                CacheGoal::Inline => CacheExport::No,
                _ => mode,
            },
            goal,
            form: Form {
                oci,
                manifest: wish.flag("image-manifest", oci)?,
            },
            ignore_error: wish.flag("ignore-error", false)?,
        })
    }

    /// Adds the cache inside the image, where [`INLINE_ARGUMENT`] has a value that asks for it.
    pub fn add_inline(targets: &mut Vec<CacheTarget>, argument: Option<&str>) {
        let known = targets.iter().any(|target| target.goal == CacheGoal::Inline);
        if matches!(argument, Some("1" | "true")) && !known {
            targets.push(CacheTarget {
                goal: CacheGoal::Inline,
                mode: CacheExport::No,
                form: Form {
                    oci: true,
                    manifest: true,
                },
                ignore_error: false,
            });
        }
    }

    /// How much has to be remembered of a build for all of them.
    pub fn most(targets: &[CacheTarget]) -> CacheExport {
        let modes = targets.iter().map(|target| target.mode);
        modes.fold(CacheExport::No, |most, mode| match (most, mode) {
            (CacheExport::Max, _) | (_, CacheExport::Max) => CacheExport::Max,
            (CacheExport::Min, _) | (_, CacheExport::Min) => CacheExport::Min,
            _ => CacheExport::No,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read() {
        let wish = Wish::parse("type=registry,ref=localhost:5000/a/b,mode=max,image-manifest=false").unwrap();
        let target = CacheTarget::read(&wish).unwrap();
        assert_eq!(target.mode, CacheExport::Max);
        assert_eq!(
            target.form,
            Form {
                oci: true,
                manifest: false
            }
        );
        assert!(!target.ignore_error);
        let CacheGoal::Registry(name) = target.goal else {
            panic!("{target:?}");
        };
        assert_eq!(name.familiar(), "localhost:5000/a/b:latest");
        let bare = CacheSource::read(&Wish::parse("alpine").unwrap()).unwrap();
        assert_eq!(bare.title(), "alpine:latest");
        let old = Wish::parse("type=local,dest=/x,oci-mediatypes=false").unwrap();
        let old = CacheTarget::read(&old).unwrap();
        assert_eq!(
            old.form,
            Form {
                oci: false,
                manifest: false
            }
        );
        assert_eq!(CacheTarget::most(&[old]), CacheExport::Min);
    }

    #[test]
    fn only_bare_names_are_those_of_images_that_may_be_here() {
        let name = Reference::parse_normalized("a/b").unwrap().or_latest();
        assert_eq!(
            CacheSource::parse("a/b").unwrap(),
            CacheSource::Named(name.clone())
        );
        assert_eq!(
            CacheSource::parse("type=registry,ref=a/b").unwrap(),
            CacheSource::Registry(name)
        );
    }

    #[test]
    fn old_clients_ask_for_an_inline_cache_once() {
        let mut targets = Vec::new();
        for asked in [None, Some("0"), Some("1"), Some("true")] {
            CacheTarget::add_inline(&mut targets, asked);
        }
        let said = CacheTarget::read(&Wish::parse("type=inline").unwrap()).unwrap();
        assert_eq!(targets, [said]);
    }

    #[test]
    fn documents_of_clients_are_read() {
        let wishes: Vec<Wish> = serde_json::from_str(
            r#"[{"Type":"registry","Attrs":{"ref":"a"}},{"Type":"inline","Attrs":null},{"Attrs":{}}]"#,
        )
        .unwrap();
        assert_eq!(wishes[0], Wish::parse("type=registry,ref=a").unwrap());
        assert_eq!(wishes[1], Wish::parse("type=inline").unwrap());
        assert_eq!(wishes[2].kind, "");
    }

    #[test]
    fn nonsense_is_named() {
        let target = |text: &str| match Wish::parse(text) {
            Ok(wish) => CacheTarget::read(&wish).map(|_| ()).unwrap_err().to_string(),
            Err(error) => error.to_string(),
        };
        for (text, part) in [
            ("type=gha,url=x", "type \"gha\" is not offered"),
            ("type=s3,bucket=x", "type \"s3\" is not offered"),
            ("type=azblob,name=x", "type \"azblob\" is not offered"),
            ("type=tape", "type \"tape\" is not known"),
            ("type=registry", "requires the option ref"),
            ("type=registry,ref=A B", "invalid cache reference"),
            ("type=local", "requires the option dest"),
            ("type=inline,mode=most", "invalid mode"),
            ("type=registry,ref=a,compression=zstd", "\"zstd\" is not offered"),
            ("type=registry,ref=a,ignore-error=perhaps", "use true or false"),
            ("ref=a", "a type is required"),
            ("type=registry,a", "is no option=value"),
        ] {
            let said = target(text);
            assert!(said.contains(part), "{text}: {said}");
        }
        let local = CacheSource::read(&Wish::parse("type=local,src=/x").unwrap()).unwrap_err();
        assert!(
            local.to_string().contains("requires the option digest"),
            "{local}"
        );
    }
}
