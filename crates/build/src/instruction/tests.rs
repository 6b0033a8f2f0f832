use super::*;
use crate::parse::parse;

fn one(line: &str) -> Instruction {
    let file = parse("Dockerfile", line.as_bytes()).unwrap();
    read(&file.commands[0])
        .map(|statement| statement.instruction)
        .unwrap_or_else(|e| panic!("{line}: {e}"))
}

fn refused(line: &str) -> String {
    let file = parse("Dockerfile", line.as_bytes()).unwrap();
    read(&file.commands[0]).expect_err(line).to_string()
}

fn pair(key: &str, value: &str) -> Pair {
    Pair {
        key: key.to_owned(),
        value: value.to_owned(),
    }
}

fn strings(list: &[&str]) -> Vec<String> {
    list.iter().map(|text| (*text).to_owned()).collect()
}

#[test]
fn command_lines_have_two_forms() {
    assert_eq!(
        one("CMD [\"a\", \"b c\"]"),
        Instruction::Cmd(CommandLine::Exec(strings(&["a", "b c"])))
    );
    assert_eq!(
        one("CMD [ -f x ] && y"),
        Instruction::Cmd(CommandLine::Shell("[ -f x ] && y".into()))
    );
    assert_eq!(
        one("CMD ['a']"),
        Instruction::Cmd(CommandLine::Shell("['a']".into()))
    );
    assert_eq!(
        one("ENTRYPOINT []"),
        Instruction::Entrypoint(CommandLine::Exec(Vec::new()))
    );
    assert_eq!(
        one("SHELL [\"/bin/bash\",\"-c\"]"),
        Instruction::Shell(strings(&["/bin/bash", "-c"]))
    );
    assert_eq!(
        CommandLine::Shell("x y".into()).arguments(&strings(&["/bin/sh", "-c"])),
        ["/bin/sh", "-c", "x y"]
    );
}

#[test]
fn pairs_have_a_new_and_an_old_form() {
    assert_eq!(
        one("ENV a=1 b='x y' c=\"p \\\" q\""),
        Instruction::Env(vec![
            pair("a", "1"),
            pair("b", "'x y'"),
            pair("c", "\"p \\\" q\""),
        ])
    );
    assert_eq!(
        one("ENV a one two=3"),
        Instruction::Env(vec![pair("a", "one two=3")])
    );
    assert_eq!(
        one("LABEL \"a b\"=c"),
        Instruction::Label(vec![pair("\"a b\"", "c")])
    );
    assert_eq!(
        one("ARG a b=1"),
        Instruction::Arg(vec![
            Argument {
                name: "a".into(),
                default: None
            },
            Argument {
                name: "b".into(),
                default: Some("1".into())
            },
        ])
    );
}

#[test]
fn from_takes_a_platform_and_a_name() {
    assert_eq!(
        one("FROM --platform=$BUILDPLATFORM golang:1 as Build"),
        Instruction::From(From {
            base: "golang:1".into(),
            platform: Some("$BUILDPLATFORM".into()),
            name: Some("build".into()),
        })
    );
}

#[test]
fn copy_takes_flags_and_heredocs() {
    let Instruction::Copy(copy) =
        one("COPY --from=b --chown=1:2 --chmod=0755 --link --parents --exclude=*.a --exclude=b a b/ c")
    else {
        panic!("not a copy");
    };
    assert_eq!(copy.sources, ["a", "b/"]);
    assert_eq!(copy.destination, "c");
    assert_eq!((copy.link, copy.parents, copy.exclude.len()), (true, true, 2));
    let Instruction::Copy(copy) = one("COPY <<a <<'b' x /d/\nA$x\na\nB\nb\n") else {
        panic!("not a copy")
    };
    assert_eq!(copy.sources, ["x"]);
    assert_eq!(
        copy.inline[0],
        Inline {
            name: "a".into(),
            content: "A$x\n".into(),
            expand: true
        }
    );
    assert!(!copy.inline[1].expand);
    let Instruction::Add(add) = one("ADD --checksum=sha256:x --unpack=false http://h/x [\"a b\", \"/\"]")
    else {
        panic!("not an add");
    };
    assert_eq!(add.unpack, Some(false));
    let Instruction::Copy(copy) = one("COPY [\"a b\", \"/c d\"]") else {
        panic!("not a copy")
    };
    assert_eq!(
        (copy.sources[0].as_str(), copy.destination.as_str()),
        ("a b", "/c d")
    );
}

#[test]
fn healthchecks() {
    let Instruction::Healthcheck(check) =
        one("HEALTHCHECK --interval=5s --timeout=1m --retries=2 --start-period=0s CMD curl -f x || exit 1")
    else {
        panic!("not a check");
    };
    assert_eq!(check.test, ["CMD-SHELL", "curl -f x || exit 1"]);
    assert_eq!(
        (check.interval, check.timeout, check.retries),
        (5_000_000_000, 60_000_000_000, 2)
    );
    let Instruction::Healthcheck(check) = one("HEALTHCHECK none") else {
        panic!("not a check")
    };
    assert_eq!(check.test, ["NONE"]);
}

#[test]
fn mounts() {
    let Instruction::Run(run) = one(
        "RUN --mount=type=cache,target=/c,sharing=locked,id=x,mode=0700 --mount=from=b,src=/s,dst=/d,rw \
         --mount=type=secret,id=k,required --mount=type=tmpfs,target=/t,size=1m --network=none make",
    ) else {
        panic!("not a run");
    };
    assert_eq!(run.network, Some(RunNetwork::None));
    assert_eq!(run.mounts[0].kind, MountKind::Cache);
    assert_eq!(
        (run.mounts[0].sharing, run.mounts[0].mode),
        (Sharing::Locked, Some(0o700))
    );
    assert_eq!(
        (run.mounts[1].kind, run.mounts[1].read_only),
        (MountKind::Bind, Some(false))
    );
    assert_eq!(run.mounts[1].source.as_deref(), Some("/s"));
    assert_eq!(run.mounts[2].target_or_default(), "/run/secrets/k");
    assert_eq!(run.mounts[3].size, Some(1 << 20));
}

#[test]
fn mistakes_are_shown_where_they_are() {
    assert_eq!(
        refused("FORM alpine"),
        "dockerfile parse error on line 1: unknown instruction: FORM\n --> Dockerfile:1:1\n  |\n1 | FORM alpine\n  \
         | ^^^^\n  = help: did you mean FROM?"
    );
    assert_eq!(
        refused("ENV a=1 b"),
        "dockerfile parse error on line 1: Syntax error - can't find = in \"b\". Must be of the form: \
         name=value\n --> Dockerfile:1:9\n  |\n1 | ENV a=1 b\n  |         ^\n  = help: a value with blanks needs \
         quotes"
    );
    for (line, message) in [
        ("FROM", "FROM requires either one or three arguments"),
        ("FROM a b", "FROM requires either one or three arguments"),
        (
            "FROM a as 1x",
            "invalid name for build stage: \"1x\", name can't start with a number or contain symbols",
        ),
        ("FROM --platfrom=x a", "unknown flag: --platfrom"),
        ("FROM --platform a", "missing a value on flag: --platform"),
        ("RUN", "RUN requires at least one argument"),
        ("RUN --network=x a", "invalid network mode \"x\""),
        ("RUN --mount=type=cache a", "mount target is required"),
        (
            "RUN --mount=type=ssh,from=x a",
            "from is only allowed for bind and cache mounts",
        ),
        ("RUN --security=open a", "security mode \"open\" is not valid"),
        ("RUN --mount=type=bind,tagret=/x a", "unexpected key 'tagret'"),
        (
            "RUN --network=none --network=none a",
            "duplicate flag specified: --network",
        ),
        (
            "COPY a",
            "COPY requires at least two arguments, but only 1 were provided",
        ),
        ("COPY --keep-git-dir=true a b", "unknown flag: --keep-git-dir"),
        ("COPY a <<b\nb\n", "COPY cannot accept a heredoc as a destination"),
        ("ENV", "ENV requires at least one argument"),
        ("ENV a", "ENV must have two arguments"),
        ("ENV =b", "ENV names can not be blank"),
        ("WORKDIR", "WORKDIR requires exactly one argument"),
        (
            "SHELL bash",
            "SHELL requires the arguments to be in JSON form: bash",
        ),
        ("VOLUME []", "VOLUME requires at least one argument"),
        (
            "HEALTHCHECK --retries=-1 CMD x",
            "--retries cannot be negative (-1)",
        ),
        ("HEALTHCHECK --interval=x CMD x", "time: invalid duration \"x\""),
        (
            "HEALTHCHECK --interval=1us CMD x",
            "Interval \"interval\" cannot be less than 1ms",
        ),
        ("HEALTHCHECK CMD", "Missing command after HEALTHCHECK CMD"),
        ("HEALTHCHECK x", "Unknown type \"X\" in HEALTHCHECK (try CMD)"),
        ("HEALTHCHECK NONE x", "HEALTHCHECK NONE takes no arguments"),
        (
            "ONBUILD ONBUILD RUN x",
            "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed",
        ),
        ("ONBUILD FROM x", "FROM isn't allowed as an ONBUILD trigger"),
        ("ONBUILD FOO", "unknown instruction: FOO"),
        ("CMD --x y", "unknown flag: --x"),
    ] {
        let text = refused(line);
        assert!(
            text.starts_with(&format!("dockerfile parse error on line 1: {message}")),
            "{line}: {text}"
        );
        assert!(text.contains('^'), "{text}");
    }
}

#[test]
fn triggers_keep_their_heredocs() {
    let Instruction::Onbuild(trigger) = one("ONBUILD RUN <<EOF\nx\nEOF\n") else {
        panic!("not a trigger")
    };
    assert_eq!(trigger, "RUN <<EOF\nx\nEOF");
}
