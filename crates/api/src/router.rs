//! From a request to its handler: the version in the path, the headers of every answer, the routes.
//!
//! The version is checked and cut off before routing, so each route is written once. Paths and methods that do not exist
//! answer 404 alike, as clients expect.

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header};
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;

use crate::answer::{page_not_found, with_type};
use crate::error::ApiError;
use crate::measured;
use crate::request::drained;
use crate::routes;
use crate::state::AppState;
use crate::version::{self, ApiVersion, MAX};

const API_VERSION: HeaderName = HeaderName::from_static("api-version");
const EXPERIMENTAL: HeaderName = HeaderName::from_static("docker-experimental");
const OS_TYPE: HeaderName = HeaderName::from_static("ostype");
const SERVER: &str = concat!("Berth/", env!("CARGO_PKG_VERSION"), " (linux)");

/// The API as one service.
pub fn router(state: AppState) -> Router {
    let timed = middleware::from_fn_with_state(state.clone(), measured::timed);
    let numbered = middleware::from_fn_with_state(state.clone(), measured::numbered);
    let grpc = TowerToHyperService::new(state.buildkit.router());
    let rest = with_versions(routes::all().route_layer(timed).with_state(state)).layer(numbered);
    Router::new()
        .fallback(by_protocol)
        .with_state((grpc, TowerToHyperService::new(rest)))
}

/// Clients of BuildKit's API that need no upgrade speak gRPC on the same socket.
async fn by_protocol(
    State((grpc, rest)): State<(TowerToHyperService<Router>, TowerToHyperService<Router>)>,
    request: Request,
) -> Response {
    let kind = request.headers().get(header::CONTENT_TYPE);
    let is_grpc = kind
        .and_then(|kind| kind.to_str().ok())
        .is_some_and(|kind| kind.starts_with("application/grpc"));
    let answered = match is_grpc {
        true => grpc.call(request).await,
        false => rest.call(request).await,
    };
    match answered {
        Ok(response) => response,
        Err(never) => match never {},
    }
}

/// Puts the handling of versions and common headers around routes that know neither.
fn with_versions(routes: Router) -> Router {
    let routes = routes.fallback(not_found).method_not_allowed_fallback(not_found);
    Router::new()
        .fallback(dispatch)
        .with_state(TowerToHyperService::new(routes))
}

/// Marks the answer of an unknown route, which carries no version headers.
#[derive(Clone, Copy)]
struct Unrouted;

async fn not_found() -> Response {
    let mut response = page_not_found();
    response.extensions_mut().insert(Unrouted);
    response
}

async fn dispatch(State(routes): State<TowerToHyperService<Router>>, mut request: Request) -> Response {
    // Without the query, where build arguments may be secrets.
    tracing::debug!(method = %request.method(), path = request.uri().path(), "request");
    let (version, path) = version::split_path(request.uri().path());
    if let Some(given) = version
        && let Err(error) = given.check()
    {
        let mut response = refuse_version(given, error.to_string());
        common_headers(response.headers_mut());
        return response;
    }
    if version.is_some()
        && let Some(uri) = with_path(request.uri(), path)
    {
        *request.uri_mut() = uri;
    }
    request.extensions_mut().insert(version.unwrap_or(MAX));
    let request: Request<Body> = request.map(drained::drained);
    let mut response = match routes.call(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    };
    if response.extensions_mut().remove::<Unrouted>().is_some() {
        // A path with another method is as unknown as any other.
        response.headers_mut().remove(header::ALLOW);
    } else {
        common_headers(response.headers_mut());
        response
            .headers_mut()
            .insert(EXPERIMENTAL, HeaderValue::from_static("false"));
    }
    response
}

fn refuse_version(given: ApiVersion, message: String) -> Response {
    if given.wants_plain_errors() {
        let body = Body::from(format!("{message}\n"));
        with_type(StatusCode::BAD_REQUEST, "text/plain; charset=utf-8", body)
    } else {
        ApiError::invalid(message).into_response()
    }
}

fn common_headers(headers: &mut HeaderMap) {
    headers.insert(header::SERVER, HeaderValue::from_static(SERVER));
    headers.insert(OS_TYPE, HeaderValue::from_static("linux"));
    if let Ok(newest) = HeaderValue::from_str(&MAX.to_string()) {
        headers.insert(API_VERSION, newest);
    }
}

fn with_path(uri: &Uri, path: &str) -> Option<Uri> {
    let path_and_query = match uri.query() {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    };
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(path_and_query.parse().ok()?);
    Uri::from_parts(parts).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::Query;
    use axum::routing::get;
    use http_body_util::BodyExt;

    async fn ask(path: &str) -> (StatusCode, HeaderMap, String) {
        let echo = async |version: ApiVersion, query: Query| format!("{version} {}", query.get("q"));
        let routes = Router::new().route("/_ping", get(routes::system::ping).head(routes::system::ping));
        let router = with_versions(routes.route("/echo", get(echo)));
        let request = Request::get(path).body(Body::empty()).unwrap();
        let response = TowerToHyperService::new(router).call(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        (
            parts.status,
            parts.headers,
            String::from_utf8(bytes.to_vec()).unwrap(),
        )
    }

    #[tokio::test]
    async fn the_version_is_cut_off_and_known() {
        assert_eq!(ask("/v1.41/echo?q=a%20b").await.2, "1.41 a b");
        assert_eq!(ask("/echo").await.2, "1.53 ");
    }

    #[tokio::test]
    async fn versions_outside_the_range_are_refused_in_the_clients_form() {
        let (status, headers, body) = ask("/v1.23/echo").await;
        assert_eq!(status, StatusCode::BAD_REQUEST);
        assert_eq!(headers["content-type"], "text/plain; charset=utf-8");
        assert_eq!(
            body,
            "client version 1.23 is too old. Minimum supported API version is 1.40, please upgrade your client to a newer version\n"
        );
        let (status, headers, body) = ask("/v1.99/echo").await;
        assert_eq!(
            (status, headers["api-version"].to_str().unwrap()),
            (StatusCode::BAD_REQUEST, "1.53")
        );
        assert_eq!(
            body,
            "{\"message\":\"client version 1.99 is too new. Maximum supported API version is 1.53\"}\n"
        );
    }

    #[tokio::test]
    async fn unknown_paths_and_methods_are_the_same() {
        for path in ["/nosuchroute", "/v1.51/nosuchroute", "/v1.51"] {
            let (status, headers, body) = ask(path).await;
            assert_eq!(
                (status, body.as_str()),
                (StatusCode::NOT_FOUND, "{\"message\":\"page not found\"}\n")
            );
            assert!(!headers.contains_key("api-version"));
        }
    }

    #[tokio::test]
    async fn a_ping_tells_who_is_there() {
        let (status, headers, body) = ask("/v1.51/_ping").await;
        assert_eq!((status, body.as_str()), (StatusCode::OK, "OK"));
        for (name, value) in [
            ("api-version", "1.53"),
            ("builder-version", "2"),
            ("cache-control", "no-cache, no-store, must-revalidate"),
            ("docker-experimental", "false"),
            ("ostype", "linux"),
            ("pragma", "no-cache"),
            ("swarm", "inactive"),
            ("content-type", "text/plain; charset=utf-8"),
        ] {
            assert_eq!(headers[name], value, "{name}");
        }
        assert!(headers["server"].to_str().unwrap().starts_with("Berth/"));
    }
}
