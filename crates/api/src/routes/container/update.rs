//! `POST /containers/{id}/update`.

use api_types::{ContainerUpdateResponse, List, UpdateConfig};
use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::Response;
use http::HeaderMap;

use crate::answer::ok;
use crate::error::Result;
use crate::request::body;
use crate::state::{AppState, carry_out};

pub async fn handle(
    State(state): State<AppState>,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response> {
    let mut update: UpdateConfig = body::read_json(&headers, body).await?;
    // Limits per block device can be changed since API 1.55 only.
    update.blkio_weight_device = List::null();
    update.blkio_device_read_bps = List::null();
    update.blkio_device_write_bps = List::null();
    update.blkio_device_read_iops = List::null();
    update.blkio_device_write_iops = List::null();
    // Any value below one lifts the limit.
    update.pids_limit = update.pids_limit.map(|limit| limit.max(0));
    let warnings = carry_out(async move { state.engine.container_update(&name, update).await }).await?;
    let warnings = if warnings.is_empty() {
        List::null()
    } else {
        List::from(warnings)
    };
    Ok(ok(&ContainerUpdateResponse { warnings }))
}
