//! Containers.

mod archive;
mod attach;
mod attach_ws;
mod changes;
mod commit;
mod create;
mod export;
mod inspect;
mod isolation;
mod kill;
mod list;
mod logs;
mod pause;
mod ports;
mod prune;
mod remove;
mod rename;
mod resize;
mod restart;
mod start;
mod stats;
mod stop;
mod top;
mod update;
mod wait;

use axum::Router;
use axum::routing::{delete, get, head, post};

use crate::state::AppState;

pub fn routes() -> Router<AppState> {
    Router::new()
        .route("/containers/json", get(list::handle))
        .route("/containers/create", post(create::handle))
        .route("/containers/prune", post(prune::handle))
        .route("/containers/{name}", delete(remove::handle))
        .route("/containers/{name}/json", get(inspect::handle))
        .route("/containers/{name}/isolation", get(isolation::handle))
        .route("/containers/{name}/ports", get(ports::handle))
        .route("/containers/{name}/top", get(top::handle))
        .route("/containers/{name}/logs", get(logs::handle))
        .route("/containers/{name}/changes", get(changes::handle))
        .route("/containers/{name}/export", get(export::handle))
        .route("/containers/{name}/stats", get(stats::handle))
        .route("/containers/{name}/resize", post(resize::handle))
        .route("/containers/{name}/start", post(start::handle))
        .route("/containers/{name}/stop", post(stop::handle))
        .route("/containers/{name}/restart", post(restart::handle))
        .route("/containers/{name}/kill", post(kill::handle))
        .route("/containers/{name}/update", post(update::handle))
        .route("/containers/{name}/rename", post(rename::handle))
        .route("/containers/{name}/pause", post(pause::pause))
        .route("/containers/{name}/unpause", post(pause::unpause))
        .route("/containers/{name}/attach", post(attach::handle))
        .route("/containers/{name}/attach/ws", get(attach_ws::handle))
        .route("/containers/{name}/wait", post(wait::handle))
        .route(
            "/containers/{name}/archive",
            head(archive::stat).get(archive::get).put(archive::put),
        )
        .route("/commit", post(commit::handle))
}

/// What events about a container carry.
pub(super) fn attributes(container: &engine::Container) -> std::collections::BTreeMap<String, String> {
    let mut attributes = container.config.labels.as_map().clone();
    attributes.insert("image".to_owned(), container.image.clone());
    attributes.insert("name".to_owned(), container.name.clone());
    attributes
}
