//! Registries: login and logout with what they leave in the configuration, credential programs, push and pull.

use std::process::Command;

use super::script::both_on;
use crate::private::Registry;
use crate::support::Daemon;

/// A registry that knows ann with s3cret, and a daemon.
fn guarded() -> Option<(Registry, Daemon, String)> {
    let daemon = Daemon::start();
    let Ok(made) = Command::new("htpasswd").args(["-Bbn", "ann", "s3cret"]).output() else {
        println!("skipped: needs htpasswd (package apache2-utils)");
        return None;
    };
    let passwords = daemon.dir.path().join("htpasswd");
    std::fs::write(&passwords, &made.stdout).unwrap();
    let settings = format!(
        "auth:\n  htpasswd:\n    realm: test\n    path: {}\n",
        passwords.display()
    );
    let registry = Registry::start(&settings)?;
    let host = format!("127.0.0.1:{}", registry.port);
    Some((registry, daemon, host))
}

#[test]
fn logins_in_the_configuration() {
    guard!();
    let Some((_registry, daemon, host)) = guarded() else {
        return;
    };
    let script = r#"
        $ login -u ann --password-stdin HOST
        < s3cret
        Login Succeeded
        ! WARNING! Your credentials are stored unencrypted in '<dir>/config/config.json'.
        @ cat -A config/config.json
        {$
        ^I"auths": {$
        ^I^I"HOST": {$
        ^I^I^I"auth": "YW5uOnMzY3JldA=="$
        ^I^I}$
        ^I}$
        }
        @ stat -c %a config/config.json
        600
        $ login HOST
        Login Succeeded
        ! Authenticating with existing credentials... [Username: ann]
        $ logout HOST
        Removing login credentials for HOST
        @ cat config/config.json | tr -d '\n\t'
        {"auths": {}}
        $ logout HOST
        Removing login credentials for HOST
        $ login -u ann -p s3cret HOST
        Login Succeeded
        ! WARNING! Using --password via the CLI is insecure. Use --password-stdin.
        $ login -u ann -p wrong HOST
        ! 401 Unauthorized
        [1]
        @ grep -c YW5uOnMzY3JldA== config/config.json
        1
        $ login -u ann --password-stdin HOST
        [1]
        $ login --password-stdin HOST
        ! the --password-stdin option requires --username to be set
        [1]
        $ login -u ann -p x --password-stdin HOST
        ! cannot specify both --password and --password-stdin
        [1]
        $ logout HOST
        Removing login credentials for HOST
        $ login HOST
        ! Cannot perform an interactive login from a non TTY device
        [1]
        $ login -u ann -p s3cret 127.0.0.1:1
        ! 127.0.0.1:1
        [1]
        # What else stands in the file stays.
        @ printf '{"psFormat":"{{.Names}}","auths":{"other.example":{"auth":"YTpi"}}}' > config/config.json
        $ login -u ann --password-stdin HOST
        < s3cret
        Login Succeeded
        @ tr -d '\n\t' < config/config.json | grep -c -F '"psFormat": "{{.Names}}"'
        1
        @ tr -d '\n\t' < config/config.json | grep -c -F '"other.example": {"auth": "YTpi"}'
        1
        $ logout HOST
        Removing login credentials for HOST
        @ tr -d '\n\t' < config/config.json | grep -o '"auths": {.*}' | head -c 55
        "auths": {"other.example": {"auth": "YTpi"}},"psFormat"…
    "#;
    both_on(&daemon, &script.replace("HOST", &host));
}

#[test]
fn a_credential_program_keeps_them() {
    guard!();
    let Some((_registry, daemon, host)) = guarded() else {
        return;
    };
    // Keeps one login per file, named after the server, and notes each call.
    let script = r#"
        @ mkdir -p bin config kept && printf '#!/bin/sh\ncd "$DIR/kept"\necho "$1" >> ../calls\nread -r all\ncase $1 in\nstore) server=$(echo "$all" | sed "s/.*ServerURL\\":\\"\\([^\\"]*\\).*/\\1/"); echo "$all" | sed "s/.*\\(\\"Username[^,}]*\\).*/\\1/" > "$server.u"; echo "$all" | sed "s/.*\\(\\"Secret[^,}]*\\).*/\\1/" > "$server.s" ;;\nget) if [ -e "$all.u" ]; then echo "{\\"ServerURL\\":\\"$all\\",$(cat "$all.u"),$(cat "$all.s")}"; else echo "credentials not found in native keychain"; exit 1; fi ;;\nerase) rm -f "$all.u" "$all.s" ;;\nlist) echo "{}" ;;\nesac\n' > bin/docker-credential-test && chmod +x bin/docker-credential-test
        @ printf '{"credsStore":"test"}' > config/config.json
        $ login -u ann --password-stdin HOST
        < s3cret
        Login Succeeded
        @ tr -d '\n\t' < config/config.json
        {"auths": {"HOST": {}},"credsStore": "test"}
        @ ls kept | sed s/.*[.]//
        s
        u
        $ tag box:1 HOST/app:1
        $ push -q HOST/app:1
        HOST/app:1
        @ rm calls; $CLIENT pull -q HOST/app:1 && grep -c get calls
        HOST/app:1
        1
        $ login HOST
        Login Succeeded
        ! Authenticating with existing credentials... [Username: ann]
        $ logout HOST
        Removing login credentials for HOST
        @ ls kept; tr -d '\n\t' < config/config.json
        {"auths": {},"credsStore": "test"}
        $ pull HOST/app:1
        ! unauthorized: authentication required
        [1]
        # One registry's own program.
        @ printf '{"credHelpers":{"HOST":"test"}}' > config/config.json
        $ login -u ann --password-stdin HOST
        < s3cret
        Login Succeeded
        $ pull -q HOST/app:1
        HOST/app:1
        $ rmi HOST/app:1
        Untagged: HOST/app:1
        # A program that is not there.
        @ printf '{"credsStore":"nosuch"}' > config/config.json
        $ login -u ann --password-stdin HOST
        < s3cret
        ! docker-credential-nosuch
        [1]
    "#;
    both_on(&daemon, &script.replace("HOST", &host));
}

#[test]
fn pushed_and_pulled() {
    guard!();
    let daemon = Daemon::start();
    let Some(registry) = Registry::start("") else {
        return;
    };
    let host = format!("127.0.0.1:{}", registry.port);
    let script = r#"
        $ tag box:1 HOST/CLIENT/app:1
        $ tag box:1 HOST/CLIENT/app:2
        $ push HOST/CLIENT/app:1
        The push refers to repository [HOST/CLIENT/app]
        <id>: Preparing
        <id>: …
        1: digest: <digest> size: …
        $ push HOST/CLIENT/app:1
        The push refers to repository [HOST/CLIENT/app]
        <id>: Preparing
        <id>: Layer already exists
        1: digest: <digest> size: …
        @ $CLIENT push -a HOST/CLIENT/app | grep -E '^[12]: digest'
        1: digest: <digest> size: …
        2: digest: <digest> size: …
        $ push HOST/CLIENT/app:3
        ! An image does not exist locally with the tag: HOST/CLIENT/app
        [1]
        $ rmi -f HOST/CLIENT/app:1 HOST/CLIENT/app:2
        Untagged: HOST/CLIENT/app:1
        Untagged: HOST/CLIENT/app:2
        $ pull HOST/CLIENT/app:1
        1: Pulling from CLIENT/app
        <id>: Already exists
        Digest: <digest>
        Status: Downloaded newer image for HOST/CLIENT/app:1
        HOST/CLIENT/app:1
        $ pull HOST/CLIENT/app:1
        1: Pulling from CLIENT/app
        <id>: Already exists
        Digest: <digest>
        Status: Image is up to date for HOST/CLIENT/app:1
        HOST/CLIENT/app:1
        $ pull -q HOST/CLIENT/app:2
        HOST/CLIENT/app:2
        $ pull HOST/CLIENT/app:nosuch
        ! not found
        [1]
        $ pull HOST/CLIENT/nosuch
        Using default tag: latest
        ! not found
        [1]
        $ pull UPPER
        ! must be lowercase
        [1]
        $ pull -a HOST/CLIENT/app:1
        ! tag can't be used with --all-tags/-a
        [1]
        $ run --rm --pull always HOST/CLIENT/app:1 cat /srv/seed
        from the image
        ! Image is up to date
        @ $CLIENT create --pull always -q HOST/CLIENT/app:1 true
        <id>
        @ d=$($CLIENT image inspect -f '{{index .RepoDigests 0}}' HOST/CLIENT/app:1); $CLIENT pull -q $d | sed 's/@.*/@digest/'
        HOST/CLIENT/app@digest
    "#;
    both_on(
        &daemon,
        &script.replace("HOST", &host).replace("CLIENT/", "team/"),
    );
}

#[test]
fn indexes_are_put_together() {
    guard!();
    let daemon = Daemon::start();
    let Some(registry) = Registry::start("") else {
        return;
    };
    let host = format!("127.0.0.1:{}", registry.port);
    daemon.ok(&["tag", "box:1", &format!("{host}/team/app:1")]);
    daemon.ok(&["push", "-q", &format!("{host}/team/app:1")]);
    let script = r#"
        % manifest inspect --insecure HOST/team/app:1
        & $CLIENT manifest inspect -v --insecure HOST/team/app:1 | grep -E '"(Ref|digest|architecture|os|size)"'
        $ manifest inspect --insecure HOST/team/app:nosuch
        ! no such manifest
        [1]
        $ manifest create --insecure HOST/other/list:1 HOST/team/app:1
        Created manifest list HOST/other/list:1
        $ manifest create --insecure HOST/other/list:1 HOST/team/app:1
        ! refusing to amend an existing manifest list with no --amend flag
        [1]
        $ manifest annotate --arch arm64 --variant v8 HOST/other/list:1 HOST/team/app:1
        $ manifest annotate HOST/other/list:1 HOST/team/app:2
        ! manifest for image HOST/team/app:2 does not exist in HOST/other/list:1
        [1]
        % manifest inspect --insecure HOST/other/list:1
        @ $CLIENT manifest push --insecure --purge HOST/other/list:1 | tail -n 1
        <digest>
        & $CLIENT manifest inspect --insecure HOST/other/list:1 | grep -E 'variant|manifest.list|image.index|arm64'
        $ manifest rm HOST/other/list:1
        ! No such manifest
        [1]
        $ search HOST/team
        NAME  DESCRIPTION  STARS  OFFICIAL
        HOST/team/app  0
    "#;
    both_on(&daemon, &script.replace("HOST", &host));
}
