//! OCI runtime-spec types.
