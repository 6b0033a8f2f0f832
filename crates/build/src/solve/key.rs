//! Keys: digests over a definition and the inputs' identities.

use spec::{Digest, Hasher};

/// The key of an operation with this definition on these inputs.
pub fn key(definition: &Digest, inputs: &[Digest]) -> Digest {
    let mut hasher = Hasher::new();
    hasher.update(b"vertex 1\n");
    for digest in std::iter::once(definition).chain(inputs) {
        hasher.update(digest.as_str().as_bytes());
        hasher.update(b"\n");
    }
    hasher.finish()
}
