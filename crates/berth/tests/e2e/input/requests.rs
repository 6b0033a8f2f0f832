//! Requests of clients that are not ours: bodies, paths and headers as they come.

use crate::http::request;
use crate::inventory::Inventory;
use crate::support::{Daemon, text};

const JSON: &str = "application/json";

#[test]
fn bodies_that_make_no_sense_are_refused() {
    guard!();
    let daemon = Daemon::start();
    daemon.ok(&["network", "create", "used"]);
    let used = ["--network", "used", "-v", "used:/data"];
    daemon.ok(&[
        &["run", "-d", "--name", "alive"],
        &used[..],
        &["box:1", "sleep", "1000"],
    ]
    .concat());
    let before = Inventory::of(&daemon);
    let deep = format!("{}{}", "[".repeat(5000), "]".repeat(5000));
    let mut wrong = Vec::new();
    for (method, path, media_type, body, status, words) in [
        ("POST", "/containers/create", JSON, "{", 400, "EOF"),
        (
            "POST",
            "/containers/create",
            JSON,
            "{\"Image\":\"box:1\"} x",
            400,
            "",
        ),
        ("POST", "/containers/create", JSON, "[]", 400, ""),
        ("POST", "/containers/create", JSON, "\u{1}", 400, ""),
        ("POST", "/containers/create", JSON, "", 400, ""),
        ("POST", "/containers/create", JSON, "{\"Image\":5}", 400, ""),
        ("POST", "/containers/create", JSON, &deep, 400, ""),
        (
            "POST",
            "/containers/create",
            "text/plain",
            "{\"Image\":\"box:1\"}",
            400,
            "Content-Type",
        ),
        ("POST", "/containers/create", JSON, "{\"Image\":\"\"}", 400, ""),
        (
            "POST",
            "/containers/create",
            JSON,
            "{\"Image\":\"nosuch:1\"}",
            404,
            "No such image: nosuch:1",
        ),
        (
            "POST",
            "/containers/create?name=a%20b",
            JSON,
            "{\"Image\":\"box:1\",\"Cmd\":[\"true\"]}",
            400,
            "Invalid container name",
        ),
        (
            "POST",
            "/containers/create?name=alive",
            JSON,
            "{\"Image\":\"box:1\",\"Cmd\":[\"true\"]}",
            409,
            "Conflict",
        ),
        (
            "POST",
            "/containers/create",
            JSON,
            "{\"Image\":\"box:1\"}",
            400,
            "no command specified",
        ),
        (
            "POST",
            "/containers/create",
            JSON,
            "{\"Image\":\"box:1\",\"Cmd\":[\"true\"],\"HostConfig\":{\"Memory\":-5}}",
            400,
            "",
        ),
        (
            "POST",
            "/containers/create",
            JSON,
            "{\"Image\":\"box:1\",\"Cmd\":[\"true\"],\"HostConfig\":{\"Binds\":[\"/a:/b:/c:/d\"]}}",
            500,
            "",
        ),
        (
            "POST",
            "/containers/nosuch/start",
            "",
            "",
            404,
            "No such container: nosuch",
        ),
        ("POST", "/containers/alive/start", "", "", 304, ""),
        (
            "DELETE",
            "/containers/alive",
            "",
            "",
            409,
            "cannot remove container",
        ),
        (
            "POST",
            "/containers/alive/kill?signal=NOSUCH",
            "",
            "",
            400,
            "invalid signal: NOSUCH",
        ),
        (
            "POST",
            "/containers/alive/exec",
            JSON,
            "{\"Cmd\":[]}",
            400,
            "No exec command specified",
        ),
        (
            "POST",
            "/exec/nosuch/start",
            JSON,
            "{}",
            404,
            "No such exec instance: nosuch",
        ),
        (
            "POST",
            "/containers/alive/update",
            JSON,
            "{\"Memory\":\"much\"}",
            400,
            "",
        ),
        ("GET", "/containers/json?filters=%7B", "", "", 400, ""),
        ("GET", "/containers/json?limit=x", "", "", 400, ""),
        ("GET", "/containers/alive/archive", "", "", 400, ""),
        (
            "PUT",
            "/containers/alive/archive?path=/tmp",
            "application/x-tar",
            "no tar at all",
            400,
            "",
        ),
        (
            "PUT",
            "/containers/alive/archive?path=/nosuch",
            "application/x-tar",
            "",
            404,
            "/nosuch",
        ),
        (
            "GET",
            "/containers/alive/logs",
            "",
            "",
            400,
            "at least one of 'stdout' or 'stderr'",
        ),
        (
            "GET",
            "/images/nosuch:1/json",
            "",
            "",
            404,
            "No such image: nosuch:1",
        ),
        (
            "POST",
            "/images/create?fromImage=Upper",
            "",
            "",
            400,
            "invalid reference format",
        ),
        (
            "POST",
            "/images/load",
            "application/x-tar",
            "no tar at all",
            400,
            "",
        ),
        (
            "POST",
            "/images/create?fromSrc=-&repo=x",
            "application/x-tar",
            "no tar at all",
            400,
            "",
        ),
        ("POST", "/build", "application/x-tar", "no tar at all", 400, ""),
        ("POST", "/build", JSON, "{}", 400, "Content-Type"),
        (
            "POST",
            "/build?buildargs=%7B",
            "application/x-tar",
            "",
            400,
            "build args",
        ),
        ("POST", "/networks/create", JSON, "{\"Name\":\"\"}", 400, ""),
        (
            "POST",
            "/networks/create",
            JSON,
            "{\"Name\":\"x\",\"IPAM\":{\"Config\":[{\"Subnet\":\"x\"}]}}",
            400,
            "",
        ),
        ("POST", "/volumes/create", JSON, "{\"Name\":\"a/b\"}", 400, ""),
        ("GET", "/networks/nosuch", "", "", 404, "network nosuch not found"),
        (
            "DELETE",
            "/networks/nosuch",
            "",
            "",
            404,
            "network nosuch not found",
        ),
        (
            "DELETE",
            "/networks/used",
            "",
            "",
            403,
            "error while removing network: network used has active endpoints (name:\"alive\" id:\"",
        ),
        (
            "DELETE",
            "/networks/bridge",
            "",
            "",
            403,
            "bridge is a pre-defined network and cannot be removed",
        ),
        (
            "POST",
            "/networks/nosuch/connect",
            JSON,
            "{\"Container\":\"alive\"}",
            404,
            "network nosuch not found",
        ),
        (
            "GET",
            "/volumes/nosuch",
            "",
            "",
            404,
            "get nosuch: no such volume",
        ),
        (
            "DELETE",
            "/volumes/nosuch",
            "",
            "",
            404,
            "get nosuch: no such volume",
        ),
        (
            "DELETE",
            "/volumes/used",
            "",
            "",
            409,
            "remove used: volume is in use - [",
        ),
        (
            "DELETE",
            "/images/nosuch:1",
            "",
            "",
            404,
            "No such image: nosuch:1",
        ),
        (
            "DELETE",
            "/images/box:1",
            "",
            "",
            409,
            "conflict: unable to delete box:1 (",
        ),
        (
            "GET",
            "/v1.23/info",
            "",
            "",
            400,
            "client version 1.23 is too old",
        ),
        (
            "GET",
            "/v1.99/info",
            "",
            "",
            400,
            "client version 1.99 is too new",
        ),
        ("GET", "/nosuch", "", "", 404, "page not found"),
        ("DELETE", "/info", "", "", 404, "page not found"),
    ] {
        let answer = request(&daemon, method, path, media_type, body.as_bytes());
        let message = answer.message();
        // An answer without a body has no message.
        let told = status == 304 || !message.is_empty() && message.contains(words);
        if answer.status != status || !told {
            let shown = &body[..body.len().min(80)];
            wrong.push(format!(
                "{method} {path} {shown}: {} {}, instead of {status} and {words:?}",
                answer.status, answer.body
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    before.assert_unchanged(&daemon, "refused requests");
}

/// Whoever is refused early is still sending: the answer must reach it before the connection goes.
#[test]
fn a_refusal_reaches_a_client_that_is_still_sending() {
    guard!();
    let daemon = Daemon::start();
    let context = daemon.dir.path().join("context");
    std::fs::create_dir_all(&context).unwrap();
    std::fs::write(context.join("Dockerfile"), "FROM box:1\n").unwrap();
    std::fs::write(context.join("big"), vec![b'x'; 64 << 20]).unwrap();
    let no_tar = context.join("big").display().to_string();
    let context = context.display().to_string();
    for _ in 0..5 {
        let (_, said) = daemon.fails(&["build", "--security-opt", "x=y", &context]);
        assert!(said.contains("security options are not supported"), "{said}");
        let (_, said) = daemon.fails(&["load", "-i", &no_tar]);
        assert!(said.contains("invalid archive"), "{said}");
        for (args, words) in [
            (
                ["build", "--security-opt", "x=y", &context],
                "security options are not supported",
            ),
            (["load", "-q", "-i", &no_tar], "invalid archive"),
        ] {
            let Some(output) = daemon.docker(&args) else {
                continue;
            };
            let said = text(&output.stderr);
            assert!(
                !output.status.success() && said.contains(words),
                "{args:?}: {said}"
            );
        }
    }
}
