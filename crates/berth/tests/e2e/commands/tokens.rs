//! A registry that takes tokens alone, of a token server that gives whoever logs in one to keep instead of the password.

use super::script::both_on;
use crate::servers::{Answer, Canned, Request};
use crate::support::{Daemon, text};
use crate::tarball::{Image, MANIFEST, Tar};

/// ann with s3cret, as a login says it.
const ANN: &str = "Basic YW5uOnMzY3JldA==";

/// What the token server says: to the password, or to the token that was kept.
fn token(request: &Request) -> Answer {
    let known = match request.method.as_str() {
        "POST" => {
            let form = text(&request.body);
            form.contains("grant_type=refresh_token") && form.contains("refresh_token=KEPT")
        }
        _ => request.header("authorization") == ANN,
    };
    let kept = match request.target.contains("offline_token=true") {
        true => r#","refresh_token":"KEPT""#,
        false => "",
    };
    match known {
        true => Answer::new(200, format!(r#"{{"token":"GOOD","access_token":"GOOD"{kept}}}"#)),
        false => Answer::new(401, r#"{"details":"incorrect username or password"}"#),
    }
}

/// The registry, with the image `team/app:1`.
fn registry() -> Canned {
    let image = Image::of(&[Tar::default().file("file", b"content").finish()]);
    let (digest, blobs) = (image.digest(), image.blobs());
    Canned::start(move |request| {
        let path = request.target.split('?').next().unwrap();
        if path == "/token" {
            return token(request);
        }
        if request.header("authorization") != "Bearer GOOD" {
            let host = request.header("host");
            let challenge = format!(r#"Bearer realm="http://{host}/token",service="tokens""#);
            return Answer::new(401, r#"{"errors":[{"code":"UNAUTHORIZED"}]}"#)
                .with("www-authenticate", challenge);
        }
        if path == "/v2/" {
            return Answer::new(200, "{}");
        }
        let last = path.rsplit('/').next().unwrap();
        let wanted = if last == "1" { digest.as_str() } else { last };
        match blobs.iter().find(|(known, _)| known.as_str() == wanted) {
            Some((known, bytes)) => Answer::new(200, bytes.clone())
                .with("content-type", MANIFEST)
                .with("docker-content-digest", known.as_str()),
            None => Answer::new(404, ""),
        }
    })
}

#[test]
fn a_login_keeps_a_token_and_no_password() {
    guard!();
    let (registry, daemon) = (registry(), Daemon::start());
    let script = r#"
        $ login -u ann -p wrong HOST
        ! incorrect username or password
        [1]
        $ login -u ann --password-stdin HOST
        < s3cret
        Login Succeeded
        & tr -d '\n\t' < config/config.json
        @ grep -c '"identitytoken": "KEPT"' config/config.json
        1
        @ grep -c -e s3cret -e YW5uOnMzY3JldA config/config.json
        0
        [1]
        $ pull -q HOST/team/app:1
        HOST/team/app:1
        @ echo "FROM HOST/team/app:1" | $CLIENT build -q --pull - | head -c 7
        sha256:
        $ logout HOST
        Removing login credentials for HOST
        $ pull HOST/team/app:1
        ! unauthorized
        [1]
    "#;
    both_on(&daemon, &script.replace("HOST", &registry.host()));
    let seen = registry.seen();
    let of_tokens = |request: &&Request| request.target.starts_with("/token");
    let exchanged = seen
        .iter()
        .filter(of_tokens)
        .any(|request| request.method == "POST" && text(&request.body).contains("refresh_token=KEPT"));
    assert!(exchanged, "{seen:?}");
    // The password reached the token server alone.
    let mut others = seen.iter().filter(|request| !of_tokens(request));
    assert!(others.all(|request| !request.header("authorization").starts_with("Basic")));
}
