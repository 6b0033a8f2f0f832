//! Image references made of parameters: `repo` with `tag`, `fromImage` with `tag`.

use spec::Reference;

use crate::error::{ApiError, Result};

/// `repo` and `tag` of commit, tag and import: no repo, no reference; no tag, the tag `latest`.
pub fn repo_and_tag(repo: &str, tag: &str) -> Result<Option<Reference>> {
    if repo.is_empty() {
        return Ok(None);
    }
    let reference = Reference::parse_normalized(repo)?;
    if reference.digest().is_some() {
        return Err(ApiError::invalid("cannot import digest reference"));
    }
    Ok(Some(if tag.is_empty() {
        reference.or_latest()
    } else {
        reference.with_tag(tag)?
    }))
}

/// `fromImage` and `tag` of a pull, where the tag may be a digest and the name may end in a colon (pull of all tags).
pub fn from_image(image: &str, tag: &str) -> Result<Reference> {
    let image = image.strip_suffix(':').unwrap_or(image);
    let reference = Reference::parse_normalized(image)?;
    let reference = if tag.is_empty() {
        reference
    } else if let Ok(digest) = tag.parse() {
        reference.without_tag().with_digest(&digest)
    } else {
        reference.with_tag(tag)?
    };
    if reference.familiar_name() == "scratch" {
        return Err(ApiError::new(
            spec::ErrorClass::Forbidden,
            "'scratch' is a reserved name",
        ));
    }
    Ok(reference)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_tags() {
        assert_eq!(repo_and_tag("", "x").unwrap(), None);
        assert_eq!(repo_and_tag("a/b", "").unwrap().unwrap().familiar(), "a/b:latest");
        assert_eq!(repo_and_tag("a/b", "1").unwrap().unwrap().familiar(), "a/b:1");
        assert_eq!(
            repo_and_tag("BAD", "").unwrap_err().message,
            "invalid reference format: repository name (library/BAD) must be lowercase"
        );
    }

    #[test]
    fn pulls() {
        assert_eq!(from_image("busybox:", "").unwrap().familiar_name(), "busybox");
        assert_eq!(from_image("busybox", "1.36").unwrap().familiar(), "busybox:1.36");
        let digest = format!("sha256:{}", "0".repeat(64));
        assert!(from_image("busybox", &digest).unwrap().digest().is_some());
        assert_eq!(
            from_image("BAD@@", "").unwrap_err().message,
            "invalid reference format: repository name (library/BAD@@) must be lowercase"
        );
        assert_eq!(from_image("scratch", "").unwrap_err().status(), 403);
    }
}
