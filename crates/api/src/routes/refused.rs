//! What this engine does not have, said in the words clients know: cluster mode (503), plugins (an empty list, 404 and 501).

use axum::Router;
use axum::extract::Path;
use axum::response::Response;
use axum::routing::{MethodRouter, any, delete, get, post};
use spec::ErrorClass;

use crate::answer::ok;
use crate::error::{ApiError, Result};
use crate::state::AppState;

/// Every route of cluster mode with its methods.
const SWARM: &[(&str, &str)] = &[
    ("GET", "/swarm"),
    ("POST", "/swarm/init"),
    ("POST", "/swarm/join"),
    ("POST", "/swarm/leave"),
    ("POST", "/swarm/update"),
    ("GET", "/swarm/unlockkey"),
    ("POST", "/swarm/unlock"),
    ("GET", "/services"),
    ("POST", "/services/create"),
    ("GET", "/services/{id}"),
    ("DELETE", "/services/{id}"),
    ("POST", "/services/{id}/update"),
    ("GET", "/services/{id}/logs"),
    ("GET", "/nodes"),
    ("GET", "/nodes/{id}"),
    ("DELETE", "/nodes/{id}"),
    ("POST", "/nodes/{id}/update"),
    ("GET", "/tasks"),
    ("GET", "/tasks/{id}"),
    ("GET", "/tasks/{id}/logs"),
    ("GET", "/secrets"),
    ("POST", "/secrets/create"),
    ("GET", "/secrets/{id}"),
    ("DELETE", "/secrets/{id}"),
    ("POST", "/secrets/{id}/update"),
    ("GET", "/configs"),
    ("POST", "/configs/create"),
    ("GET", "/configs/{id}"),
    ("DELETE", "/configs/{id}"),
    ("POST", "/configs/{id}/update"),
];

pub fn routes() -> Router<AppState> {
    let swarm = SWARM.iter().fold(Router::new(), |router, (method, path)| {
        let handler: MethodRouter<AppState> = match *method {
            "GET" => get(no_swarm),
            "DELETE" => delete(no_swarm),
            _ => post(no_swarm),
        };
        router.route(path, handler)
    });
    swarm
        .route("/plugins", get(no_plugins))
        .route("/plugins/{*rest}", any(no_such_plugin))
}

async fn no_swarm() -> ApiError {
    ApiError::new(
        ErrorClass::Unavailable,
        "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this node to \
         swarm and try again.",
    )
}

async fn no_plugins() -> Response {
    ok::<[(); 0]>(&[])
}

async fn no_such_plugin(Path(rest): Path<String>) -> Result<Response> {
    match rest.as_str() {
        "pull" | "create" | "privileges" => Err(ApiError::not_implemented(
            "this engine has no managed plugins: volume and network drivers are built in",
        )),
        name => {
            let name = ["/json", "/enable", "/disable", "/push", "/upgrade", "/set"]
                .iter()
                .find_map(|verb| name.strip_suffix(verb))
                .unwrap_or(name);
            Err(ApiError::not_found(format!("plugin \"{name}\" not found")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn swarm_speaks_as_recorded() {
        let recorded = include_str!("../../tests/golden/err-swarm.v1.51.json");
        let recorded: api_types::golden::Exchange = serde_json::from_str(recorded).unwrap();
        let error = no_swarm().await;
        assert_eq!(error.status().as_u16(), recorded.status);
        assert_eq!(error.message, recorded.body["message"]);
    }
}
