//! `GET /images/search`.

use crate::error::ApiError;
use crate::request::Query;
use crate::request::filters::filters;

pub async fn handle(query: Query) -> ApiError {
    if let Err(error) = filters(&query) {
        return error;
    }
    ApiError::not_implemented(format!(
        "this engine does not search Docker Hub: look for {:?} at https://hub.docker.com/search and pull it by name",
        query.get("term")
    ))
}
