//! Logins of registries, looked up when the engine needs one. The engine asks registries for tokens itself.

use std::sync::Arc;

use bollard_buildkit_proto::moby::filesync::v1::auth_server::{self, AuthServer};
use bollard_buildkit_proto::moby::filesync::v1::{
    CredentialsRequest, CredentialsResponse, FetchTokenRequest, FetchTokenResponse, GetTokenAuthorityRequest,
    GetTokenAuthorityResponse, VerifyTokenAuthorityRequest, VerifyTokenAuthorityResponse,
};
use tonic::{Request, Response, Status};

/// A user and a password; of an identity token the user is empty.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    pub user: String,
    pub secret: String,
}

/// Finds the login for a registry's host. It may take its time.
pub type Logins = Arc<dyn Fn(&str) -> Result<Option<Login>, String> + Send + Sync>;

pub struct Auth(Option<Logins>);

pub fn service(logins: Option<Logins>) -> AuthServer<Auth> {
    AuthServer::new(Auth(logins))
}

fn of_the_engine<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented(
        "the engine asks registries for tokens itself",
    ))
}

#[tonic::async_trait]
impl auth_server::Auth for Auth {
    async fn credentials(
        &self,
        request: Request<CredentialsRequest>,
    ) -> Result<Response<CredentialsResponse>, Status> {
        let host = request.into_inner().host;
        let Some(logins) = self.0.clone() else {
            return Ok(Response::new(CredentialsResponse::default()));
        };
        let found = tokio::task::spawn_blocking(move || logins(&host)).await;
        let found = found.map_err(|error| Status::internal(error.to_string()))?;
        let login = found.map_err(Status::unknown)?;
        Ok(Response::new(match login {
            Some(Login { user, secret }) => CredentialsResponse {
                username: user,
                secret,
            },
            None => CredentialsResponse::default(),
        }))
    }

    async fn fetch_token(
        &self,
        _: Request<FetchTokenRequest>,
    ) -> Result<Response<FetchTokenResponse>, Status> {
        of_the_engine()
    }

    async fn get_token_authority(
        &self,
        _: Request<GetTokenAuthorityRequest>,
    ) -> Result<Response<GetTokenAuthorityResponse>, Status> {
        of_the_engine()
    }

    async fn verify_token_authority(
        &self,
        _: Request<VerifyTokenAuthorityRequest>,
    ) -> Result<Response<VerifyTokenAuthorityResponse>, Status> {
        of_the_engine()
    }
}
