//! Networks in older versions.

use api_types::NetworkInspect;
use serde_json::{Map, Value};

use super::{Change, View, view};
use crate::version::ApiVersion;

const INSPECT: &[Change] = &[Change {
    since: 52,
    undo: without_status,
}];

/// `GET /networks/{id}`.
pub fn inspect(newest: NetworkInspect, version: ApiVersion) -> View<NetworkInspect> {
    view(newest, version, INSPECT)
}

fn without_status(document: &mut Map<String, Value>) {
    document.remove("Status");
}
