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

/// A registry that is open to everybody, and a daemon.
fn open() -> Option<(Registry, Daemon, String)> {
    let registry = Registry::start("")?;
    let host = format!("127.0.0.1:{}", registry.port);
    Some((registry, Daemon::start(), host))
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
    let Some((_registry, daemon, host)) = open() else {
        return;
    };
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
    let Some((_registry, daemon, host)) = open() else {
        return;
    };
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

/// What is done with an index between its beginning and its end, and what is refused.
#[test]
fn indexes_in_detail() {
    guard!();
    let Some((_registry, daemon, host)) = open() else {
        return;
    };
    let base = daemon.dir.path().join("base.tar").display().to_string();
    for (platform, tag) in [
        ("linux/amd64", "amd"),
        ("linux/arm/v7", "arm"),
        ("linux/arm64", "arm64"),
    ] {
        let name = format!("{host}/team/app:{tag}");
        daemon.ok(&["import", "--platform", platform, &base, &name]);
        daemon.ok(&["push", "-q", &name]);
    }
    let script = r#"
        $ manifest create --insecure HOST/team/list:1 HOST/team/app:amd HOST/team/app:arm
        Created manifest list HOST/team/list:1
        @ ls config/manifests/* | sort
        HOST-as-file_team_app-amd
        HOST-as-file_team_app-arm
        $ manifest annotate HOST/team/list:1 HOST/team/app:amd --os-version 10.1 --os-features a,b --os-features b,c --variant v2
        $ manifest create --insecure --amend HOST/team/list:1 HOST/team/app:amd HOST/team/app:arm64
        Created manifest list HOST/team/list:1
        % manifest inspect --insecure HOST/team/list:1
        & $CLIENT manifest inspect --insecure HOST/team/list:1 | tr -d ' \n' | grep -o '"os.features":[^]]*]'
        & $CLIENT manifest inspect -v --insecure HOST/team/list:1 | grep -E '"(Ref|digest|architecture|os|variant|os.version|size|Raw|SchemaV2Manifest|OCIManifest)"'
        % manifest inspect HOST/team/list:1 HOST/team/app:arm
        & $CLIENT manifest inspect -v HOST/team/list:1 HOST/team/app:arm | grep -E '"(Ref|digest|architecture|os|variant|size|Raw)"'
        $ manifest inspect HOST/team/list:1 HOST/team/app:nosuch
        ! No such manifest: HOST/team/app:nosuch
        [1]
        $ manifest annotate --os plan10 HOST/team/list:1 HOST/team/app:arm
        ! manifest entry for image has unsupported os/arch combination: plan10/
        [1]
        $ manifest annotate --arch mips HOST/team/list:1 HOST/team/app:arm
        ! manifest entry for image has unsupported os/arch combination: /mips
        [1]
        $ manifest annotate --os linux HOST/team/none:1 HOST/team/app:arm
        ! manifest for image HOST/team/app:arm does not exist in HOST/team/none:1
        [1]
        $ manifest push HOST/team/none:1
        ! No such manifest: HOST/team/none:1
        [1]
        $ manifest push --insecure HOST/team/list:1
        Pushed ref HOST/team/list@<digest> with digest: <digest>
        Pushed ref HOST/team/list@<digest> with digest: <digest>
        Pushed ref HOST/team/list@<digest> with digest: <digest>
        <digest>
        # Without --purge it is still here, and counts before the registry's.
        $ manifest annotate --variant v6 HOST/team/list:1 HOST/team/app:arm
        @ $CLIENT manifest inspect HOST/team/list:1 | grep -c '"v6"'
        1
        $ manifest rm HOST/team/list:1 HOST/team/none:1 HOST/team/none:2
        ! No such manifest: HOST/team/none:1
        ! No such manifest: HOST/team/none:2
        [1]
        % manifest inspect --insecure HOST/team/list:1
        & $CLIENT manifest inspect -v --insecure HOST/team/list:1 | grep -E '"(Ref|digest|mediaType|architecture|os|variant|size|Raw|SchemaV2Manifest|OCIManifest)"'
        $ manifest create --insecure HOST/team/deep:1 HOST/team/list:1
        ! HOST/team/list:1 is a manifest list
        [1]
        $ manifest create --insecure HOST/team/deep:1 HOST/team/app:nosuch
        ! no such manifest: HOST/team/app:nosuch
        [1]
        $ manifest inspect --insecure HOST/team/nosuch:1
        ! no such manifest: HOST/team/nosuch:1
        [1]
        $ manifest create HOST/team/one:1
        ! requires at least 2 arguments
        [1]
        $ manifest create --insecure elsewhere.example/list:1 HOST/team/app:amd
        Created manifest list elsewhere.example/list:1
        $ manifest push --insecure elsewhere.example/list:1
        ! cannot use source images from a different registry than the target image: HOST != elsewhere.example
        [1]
        $ manifest inspect elsewhere.example/list:1
        ! cannot use source images from a different registry than the target image
        [1]
        $ manifest rm elsewhere.example/list:1
        $ manifest inspect HOST/UPPER:1
        ! must be lowercase
        [1]
    "#;
    let file = host.replace(':', "-");
    both_on(
        &daemon,
        &script.replace("HOST-as-file", &file).replace("HOST", &host),
    );
}

#[test]
fn all_tags_and_platforms() {
    guard!();
    let Some((_registry, daemon, host)) = open() else {
        return;
    };
    let base = daemon.dir.path().join("base.tar").display().to_string();
    let parts: Vec<String> = ["linux/amd64", "linux/arm/v6", "linux/arm/v7", "linux/arm64"]
        .iter()
        .map(|platform| {
            let name = format!("{host}/team/app:{}", platform.replace('/', "-"));
            daemon.ok(&["import", "--platform", platform, "-m", platform, &base, &name]);
            name
        })
        .collect();
    daemon.ok(&["push", "-q", "-a", &format!("{host}/team/app")]);
    let list = format!("{host}/team/list:1");
    let config = daemon.dir.path().join("config").display().to_string();
    let names: Vec<&str> = parts.iter().map(String::as_str).collect();
    daemon.ok(&[&["--config", &config, "manifest", "create", &list][..], &names].concat());
    daemon.ok(&["--config", &config, "manifest", "push", &list]);
    for name in &names {
        daemon.ok(&["rmi", name]);
    }
    let script = r#"
        & $CLIENT pull -a HOST/team/app | grep -vE 'Pulling|Already|complete|Verif|Download'
        @ $CLIENT images HOST/team/app --format {{.Tag}} | sort
        linux-amd64
        linux-arm-v6
        linux-arm-v7
        linux-arm64
        $ pull -q -a HOST/team/app
        HOST/team/app
        $ pull -a HOST/team/app:linux-arm64
        ! tag can't be used with --all-tags/-a
        [1]
        $ pull -a HOST/team/nosuch
        [1]
        & $CLIENT push -a HOST/team/app | grep digest: | sort
        $ push -q -a HOST/team/app
        HOST/team/app
        $ push -a HOST/team/app:linux-arm64
        ! tag can't be used with --all-tags/-a
        [1]
        $ push -a HOST/team/nosuch
        ! An image does not exist locally with the tag: HOST/team/nosuch
        [1]
        $ push HOST/team/app@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa
        ! cannot push a digest reference
        [1]
        $ pull -q --platform linux/arm/v7 HOST/team/list:1
        HOST/team/list:1
        $ image inspect --platform linux/arm/v7 -f "{{.Architecture}}/{{.Variant}} {{.Comment}}" HOST/team/list:1
        arm/v7 linux/arm/v7
        $ pull -q --platform linux/arm/v6 HOST/team/list:1
        HOST/team/list:1
        $ image inspect --platform linux/arm/v6 -f "{{.Comment}}" HOST/team/list:1
        linux/arm/v6
        $ pull -q --platform linux/arm/v8 HOST/team/list:1
        HOST/team/list:1
        $ pull -q --platform LINUX/ARM64/V8 HOST/team/list:1
        HOST/team/list:1
        $ image inspect --platform linux/arm64 -f "{{.Comment}}" HOST/team/list:1
        linux/arm64
        $ pull -q --platform linux/arm/v5 HOST/team/list:1
        ! no matching manifest for linux/arm/v5 in the manifest list entries
        [1]
        $ pull -q --platform linux/s390x HOST/team/list:1
        ! no matching manifest for linux/s390x in the manifest list entries
        [1]
        $ pull -q --platform windows/amd64 HOST/team/list:1
        ! no matching manifest for windows/amd64 in the manifest list entries
        [1]
        $ pull -q --platform linux/arm/v6/x HOST/team/list:1
        [1]
        @ DOCKER_DEFAULT_PLATFORM=linux/arm64 $CLIENT pull -q HOST/team/list:1
        HOST/team/list:1
        % push --platform linux/arm64 HOST/team/app:linux-arm64
        % push -q --platform linux/arm64 HOST/team/app:linux-arm64
        @ $CLIENT push -q --platform linux/s390x HOST/team/app:linux-arm64 >/dev/null
        ! linux/s390x
        [1]
        $ push --platform linux/x/y/z HOST/team/app:linux-arm64
        ! latform
        [1]
        $ pull HOST/team/app:a b
        ! requires 1 argument
        [1]
    "#;
    both_on(&daemon, &script.replace("HOST", &host));
}

/// A registry that answers searches as Docker Hub does.
fn searched() -> String {
    use std::io::{BufRead as _, BufReader, Write as _};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let results = serde_json::json!({"num_results": 4, "query": "box", "results": [
        {"name": "ann/box", "description": "Two\nlines\r of a description that is long enough to be cut", "star_count": 3, "is_official": false, "is_automated": true},
        {"name": "box", "description": "The one", "star_count": 1500, "is_official": true, "is_automated": false},
        {"name": "bob/box", "description": "", "star_count": 0, "is_official": false},
        {"name": "eve/box", "description": "rings", "star_count": 20, "is_official": false},
    ]})
    .to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            let first = lines.next().and_then(Result::ok).unwrap_or_default();
            while lines
                .next()
                .and_then(Result::ok)
                .is_some_and(|line| !line.is_empty())
            {}
            let body = if first.contains("/v1/search") {
                &results
            } else {
                "{}"
            };
            let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close";
            // Whoever hangs up has heard enough.
            let _ = write!(stream, "{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        }
    });
    host
}

#[test]
fn searches() {
    guard!();
    let daemon = Daemon::start();
    let host = searched();
    let script = r#"
        % search HOST/box
        % search --no-trunc HOST/box
        % search --format "{{.Name}}|{{.Description}}|{{.StarCount}}|{{.IsOfficial}}" HOST/box
        % search --format json HOST/box
        % search --format "table {{.Name}}\t{{.StarCount}}" HOST/box
        $ search --filter is-official=true --format {{.Name}} HOST/box
        box
        $ search --filter is-official=false --filter stars=3 --filter stars=20 --format {{.Name}} HOST/box
        eve/box
        $ search --filter is-automated=true HOST/box
        NAME  DESCRIPTION  STARS  OFFICIAL
        $ search --filter is-automated=false --limit 1 --format {{.StarCount}} HOST/box
        3
        & $CLIENT search --limit 0 --format {{.Name}} HOST/box | wc -l
        $ search --limit 101 HOST/box
        ! limit 101 is outside the range of [1, 100]
        [1]
        $ search --limit many HOST/box
        ! invalid argument "many" for "--limit" flag
        [125]
        $ search --filter stars=x HOST/box
        ! invalid filter 'stars=x'
        [1]
        $ search --filter is-official=x HOST/box
        ! invalid filter 'is-official=[x]'
        [1]
        $ search --filter frob=1 HOST/box
        ! invalid filter 'frob'
        [1]
        $ search http://HOST/box
        ! should not have a scheme
        [1]
        $ search
        ! requires 1 argument
        [1]
        $ search --format "{{.Frob}}" HOST/box
        ! Frob
        [1]
    "#;
    both_on(&daemon, &script.replace("HOST", &host));
}
