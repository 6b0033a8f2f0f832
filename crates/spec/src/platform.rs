//! Platforms (OCI image-spec 1.1, image index, `platform`): operating system, architecture and variant, with
//! the normalisation that image tools share (`x86_64` is `amd64`, `aarch64` is `arm64`, `arm64/v8` is `arm64`).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A platform an image is made for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Platform {
    /// CPU architecture in Go's words (`amd64`, `arm64`).
    #[serde(default)]
    pub architecture: String,
    /// Operating system (`linux`).
    #[serde(default)]
    pub os: String,
    /// Variant of the architecture (`v7`), if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// Version of the operating system; only Windows images carry it.
    #[serde(default, rename = "os.version", skip_serializing_if = "Option::is_none")]
    pub os_version: Option<String>,
    /// Features of the operating system; only Windows images carry them.
    #[serde(default, rename = "os.features", skip_serializing_if = "Vec::is_empty")]
    pub os_features: Vec<String>,
}

/// The text is not a platform.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
#[error(
    "{0:?} is an invalid component of {1:?}: platform specifier component must match \"^[A-Za-z0-9_.-]+(?:\\\\([A-Za-z0-9_.-]*(?:\\\\+[A-Za-z0-9_.-]+)*\\\\))?$\": invalid argument"
)]
pub struct PlatformError(String, String);

impl Platform {
    /// A platform from its parts, normalised.
    pub fn new(os: &str, architecture: &str, variant: Option<&str>) -> Platform {
        Platform {
            architecture: architecture.to_owned(),
            os: os.to_owned(),
            variant: variant.map(str::to_owned),
            os_version: None,
            os_features: Vec::new(),
        }
        .normalized()
    }

    /// The platform this binary runs on.
    pub fn host() -> Platform {
        Platform::new("linux", std::env::consts::ARCH, None)
    }

    /// The same platform in canonical words.
    pub fn normalized(&self) -> Platform {
        let os = match self.os.to_ascii_lowercase().as_str() {
            "" => "linux".to_owned(),
            "macos" => "darwin".to_owned(),
            other => other.to_owned(),
        };
        let variant = self.variant.as_deref().unwrap_or_default().to_ascii_lowercase();
        let (architecture, variant) =
            match (self.architecture.to_ascii_lowercase().as_str(), variant.as_str()) {
                ("x86_64" | "x86-64" | "amd64", "" | "v1") => ("amd64".to_owned(), String::new()),
                ("x86_64" | "x86-64" | "amd64", v) => ("amd64".to_owned(), v.to_owned()),
                ("i386" | "i686" | "x86" | "386", _) => ("386".to_owned(), String::new()),
                ("aarch64" | "arm64", "" | "8" | "v8") => ("arm64".to_owned(), String::new()),
                ("aarch64" | "arm64", v) => ("arm64".to_owned(), v.to_owned()),
                ("armhf", _) => ("arm".to_owned(), "v7".to_owned()),
                ("armel", _) => ("arm".to_owned(), "v6".to_owned()),
                ("arm", "" | "7") => ("arm".to_owned(), "v7".to_owned()),
                ("arm", v @ ("5" | "6" | "8")) => ("arm".to_owned(), format!("v{v}")),
                ("riscv64gc", v) => ("riscv64".to_owned(), v.to_owned()),
                ("powerpc64le", v) => ("ppc64le".to_owned(), v.to_owned()),
                (other, v) => (other.to_owned(), v.to_owned()),
            };
        Platform {
            architecture,
            os,
            variant: (!variant.is_empty()).then_some(variant),
            os_version: self.os_version.clone(),
            os_features: self.os_features.clone(),
        }
    }

    /// Whether an image made for `image` is what this platform asks for: same system and architecture, and the
    /// same variant, where arm64 asks for no particular one.
    pub fn matches(&self, image: &Platform) -> bool {
        let (want, have) = (self.normalized(), image.normalized());
        want.os == have.os && want.architecture == have.architecture && want.variant == have.variant
    }

    /// How well an image for `image` runs here: 0 is exact, larger is worse, `None` is not at all. An ARM host
    /// runs older variants; amd64 runs only its baseline, since higher levels can't be assumed.
    pub fn preference(&self, image: &Platform) -> Option<u32> {
        let (want, have) = (self.normalized(), image.normalized());
        if want.os != have.os || want.architecture != have.architecture {
            return None;
        }
        if want.variant == have.variant {
            return Some(0);
        }
        let level = |p: &Platform| {
            let digits = p.variant.as_deref().unwrap_or("v0").trim_start_matches('v');
            digits.split('.').next().and_then(|d| d.parse::<u32>().ok())
        };
        match (want.architecture.as_str(), level(&want), level(&have)) {
            ("arm", Some(w), Some(h)) if h <= w => Some(w - h),
            ("arm64", _, Some(_)) => Some(1),
            _ => None,
        }
    }
}

impl FromStr for Platform {
    type Err = PlatformError;

    fn from_str(text: &str) -> Result<Platform, PlatformError> {
        let parts: Vec<&str> = text.split('/').collect();
        let valid = |p: &&str| {
            !p.is_empty()
                && p.bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
        };
        if let Some(bad) = parts.iter().find(|p| !valid(p)) {
            return Err(PlatformError((*bad).to_owned(), text.to_owned()));
        }
        match parts.as_slice() {
            [one]
                if matches!(
                    one.to_ascii_lowercase().as_str(),
                    "linux" | "windows" | "darwin" | "freebsd"
                ) =>
            {
                Ok(Platform::new(one, std::env::consts::ARCH, None))
            }
            [one] => Ok(Platform::new("linux", one, None)),
            [os, arch] => Ok(Platform::new(os, arch, None)),
            [os, arch, variant] => Ok(Platform::new(os, arch, Some(variant))),
            _ => Err(PlatformError(text.to_owned(), text.to_owned())),
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match &self.variant {
            Some(variant) => write!(f, "/{variant}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normalises() {
        for (text, expected) in [
            ("linux/amd64", "linux/amd64"),
            ("x86_64", "linux/amd64"),
            ("linux/aarch64", "linux/arm64"),
            ("linux/arm64/v8", "linux/arm64"),
            ("linux/arm", "linux/arm/v7"),
            ("linux/arm/v6", "linux/arm/v6"),
        ] {
            assert_eq!(text.parse::<Platform>().unwrap().to_string(), expected, "{text}");
        }
        for bad in ["", "linux/", "a/b/c/d", "linux/am d64"] {
            assert!(bad.parse::<Platform>().is_err(), "{bad}");
        }
    }

    #[test]
    fn prefers_the_nearest_variant() {
        let host: Platform = "linux/arm/v7".parse().unwrap();
        let v6: Platform = "linux/arm/v6".parse().unwrap();
        let v8: Platform = "linux/arm/v8".parse().unwrap();
        assert_eq!(host.preference(&host), Some(0));
        assert_eq!(host.preference(&v6), Some(1));
        assert_eq!(host.preference(&v8), None);
        assert_eq!(host.preference(&"linux/amd64".parse().unwrap()), None);
    }
}
