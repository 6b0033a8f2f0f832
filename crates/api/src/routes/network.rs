//! Networks.

use api_types::{
    EndpointSettings, NetworkConnectRequest, NetworkCreateRequest, NetworkCreateResponse,
    NetworkDisconnectRequest, NetworksPruneReport,
};
use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use http::{HeaderMap, StatusCode};

use crate::answer::{created, no_content, ok};
use crate::error::{ApiError, Result};
use crate::request::filters::filters;
use crate::request::{Query, body};
use crate::state::{AppState, carry_out};
use crate::version::ApiVersion;
use crate::{versions, views};

pub fn routes() -> Router<AppState> {
    Router::new()
        .route("/networks", get(list))
        .route("/networks/", get(list))
        .route("/networks/create", post(create))
        .route("/networks/prune", post(prune))
        .route("/networks/reload", post(reload))
        .route("/networks/dns/log", get(dns_log))
        .route("/networks/{id}", get(inspect).delete(remove))
        .route("/networks/{id}/connect", post(connect))
        .route("/networks/{id}/disconnect", post(disconnect))
}

async fn list(State(state): State<AppState>, query: Query) -> Result<Response> {
    let networks = state.engine.network_list(&filters(&query)?).await?;
    let rows: Vec<_> = networks.iter().map(views::network::summary).collect();
    Ok(ok(&rows))
}

/// Of this engine alone: the host's side of every network as it is recorded.
async fn reload(State(state): State<AppState>) -> Result<Response> {
    Ok(ok(&state.engine.networks_reload().await?))
}

/// Of this engine alone: name queries of containers, and who answered.
async fn dns_log(State(state): State<AppState>, query: Query) -> Result<Response> {
    let since = match query.get("since") {
        "" => 0,
        text => text.parse().map_err(|_| {
            ApiError::invalid(format!(
                "invalid value for since: {text:?}: microseconds since 1970"
            ))
        })?,
    };
    Ok(ok(&state.engine.dns_log(query.get("of"), since).await?))
}

async fn inspect(
    State(state): State<AppState>,
    Path(id): Path<String>,
    version: ApiVersion,
    query: Query,
) -> Result<Response> {
    let verbose = query.get("verbose");
    if !matches!(
        verbose,
        "" | "1" | "t" | "T" | "TRUE" | "true" | "True" | "0" | "f" | "F" | "FALSE" | "false" | "False"
    ) {
        return Err(ApiError::invalid(format!(
            "invalid value for verbose: {verbose}: strconv.ParseBool: parsing {verbose:?}: invalid syntax"
        )));
    }
    let network = state.engine.network_inspect(&id).await?;
    if !matches!(query.get("scope"), "" | "local") {
        return Err(ApiError::not_found(format!("network {id} not found")));
    }
    let counts = match version.has(52) {
        true => state.engine.network_status(network.id.as_str()).await?,
        false => Vec::new(),
    };
    Ok(ok(&versions::network::inspect(
        views::network::inspect(&network, &counts),
        version,
    )))
}

async fn create(
    State(state): State<AppState>,
    version: ApiVersion,
    headers: HeaderMap,
    body: Body,
) -> Result<Response> {
    let mut request: NetworkCreateRequest = body::read_json(&headers, body).await?;
    if !version.has(48) {
        request.enable_ipv4 = None;
    }
    let (id, warning) = carry_out(async move { state.engine.network_create(request).await }).await?;
    Ok(created(&NetworkCreateResponse {
        id: id.to_string(),
        warning,
    }))
}

async fn connect(
    State(state): State<AppState>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response> {
    let request: NetworkConnectRequest = body::read_json(&headers, body).await?;
    // A hardware address can be chosen since API 1.54 only.
    let settings = request.endpoint_config.map(|settings| EndpointSettings {
        mac_address: String::new(),
        ..settings
    });
    carry_out(async move {
        state
            .engine
            .network_connect(&id, &request.container, settings)
            .await
    })
    .await?;
    Ok(StatusCode::OK.into_response())
}

async fn disconnect(
    State(state): State<AppState>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response> {
    let request: NetworkDisconnectRequest = body::read_json(&headers, body).await?;
    carry_out(async move {
        state
            .engine
            .network_disconnect(&id, &request.container, request.force)
            .await
    })
    .await?;
    Ok(StatusCode::OK.into_response())
}

async fn remove(State(state): State<AppState>, Path(id): Path<String>) -> Result<Response> {
    carry_out(async move { state.engine.network_remove(&id).await }).await?;
    Ok(no_content())
}

async fn prune(State(state): State<AppState>, query: Query) -> Result<Response> {
    let filters = filters(&query)?;
    let rehearse = query.flag("dryrun");
    let deleted = carry_out(async move { state.engine.networks_prune(&filters, rehearse).await }).await?;
    Ok(ok(&NetworksPruneReport {
        networks_deleted: views::null_when_empty(deleted),
    }))
}
