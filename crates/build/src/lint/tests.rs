use super::*;
use crate::instruction::read_all;
use crate::parse::parse;

/// The findings of a Dockerfile as `LINE RULE: DETAIL`.
fn found(text: &str) -> Vec<String> {
    found_with(text, "", &[])
}

fn found_with(text: &str, ignore: &str, environment: &[&str]) -> Vec<String> {
    let file = parse("Dockerfile", text.as_bytes()).unwrap();
    let statements = read_all(&file).unwrap();
    let stages = Stages::read(&file.source, statements.clone()).ok();
    let ignore = Ignore::parse(ignore).unwrap();
    let environment: Vec<String> = environment.iter().map(|&entry| entry.to_owned()).collect();
    let subject = Subject {
        file: &file,
        statements: &statements,
        stages: stages.as_ref(),
        ignore: &ignore,
        build_args: &BTreeMap::new(),
        platform: Platform::host(),
        environments: (0..9).map(|stage| (stage, environment.clone())).collect(),
    };
    let settings = Settings::read(&file.directives, &file).unwrap();
    let show = |finding: Finding| format!("{} {}: {}", finding.at.line(), finding.rule.name, finding.detail);
    check(&subject, &settings).into_iter().map(show).collect()
}

#[test]
fn a_good_file_has_no_findings() {
    let text = "# syntax=docker/dockerfile:1\nARG TAG=1\nFROM --platform=$BUILDPLATFORM base:$TAG AS build\n\
                ARG VERSION=1\nENV PATH=/x:$PATH NAME=${VERSION}\nWORKDIR /src\nWORKDIR sub\nCOPY . .\nEXPOSE 80/tcp\n\
                FROM scratch\nCOPY --from=build /x /x\nENTRYPOINT [\"/x\"]\nCMD [\"y\"]\n";
    assert_eq!(found(text), Vec::<String>::new());
}

#[test]
fn every_rule_finds_what_it_is_for() {
    let cases: &[(&str, &str)] = &[
        (
            "FROM a\nrun x\nRUN y\n",
            "2 ConsistentInstructionCasing: Command 'run' should match the case of the command majority (uppercase)",
        ),
        (
            "from a\nRun x\nrun y\n",
            "2 ConsistentInstructionCasing: Command 'Run' should match the case of the command majority (lowercase)",
        ),
        (
            "FROM a AS x\nFROM b AS x\n",
            "2 DuplicateStageName: Duplicate stage name \"x\", stage names should be unique",
        ),
        (
            "FROM a\nEXPOSE 127.0.0.1:80:80\n",
            "2 ExposeInvalidFormat: EXPOSE instruction should not define an IP address or host-port mapping, found '127.0.0.1:80:80'",
        ),
        (
            "FROM a\nEXPOSE 80/TCP\n",
            "2 ExposeProtoCasing: Defined protocol '80/TCP' in EXPOSE instruction should be lowercase",
        ),
        (
            "FROM a as x\n",
            "1 FromAsCasing: 'as' and 'FROM' keywords' casing do not match",
        ),
        (
            "FROM --platform=linux/amd64 a\n",
            "1 FromPlatformFlagConstDisallowed: FROM --platform flag should not use constant value \"linux/amd64\"",
        ),
        (
            "ARG T\nFROM a:$T\n",
            "2 InvalidDefaultArgInFrom: Default value for ARG T results in empty or invalid base image name",
        ),
        (
            "# check=experimental=all\n\n# words\nFROM a AS x\n",
            "4 InvalidDefinitionDescription: Comment for build stage should follow the format: `# x <description>`",
        ),
        (
            "FROM a\nCMD x\n",
            "2 JSONArgsRecommended: JSON arguments recommended for CMD to prevent unintended behavior related to OS signals",
        ),
        (
            "FROM a\nENV A b\n",
            "2 LegacyKeyValueFormat: \"ENV key=value\" should be used instead of legacy \"ENV key value\" format",
        ),
        (
            "FROM a\nMAINTAINER x\n",
            "2 MaintainerDeprecated: Maintainer instruction is deprecated in favor of using label",
        ),
        (
            "FROM a\nCMD [\"a\"]\nCMD [\"b\"]\n",
            "2 MultipleInstructionsDisallowed: Multiple CMD instructions should not be used in the same stage because only the last one will be used",
        ),
        (
            "FROM a\nRUN x \\\n\n y\n",
            "3 NoEmptyContinuation: Empty continuation line",
        ),
        (
            "FROM --platform=$TARGETPLATFORM a\n",
            "1 RedundantTargetPlatform: Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default behavior",
        ),
        (
            "FROM a AS scratch\n",
            "1 ReservedStageName: Stage name should not use the same name as reserved stage \"scratch\"",
        ),
        (
            "FROM a\nARG API_TOKEN\n",
            "2 SecretsUsedInArgOrEnv: Do not use ARG or ENV instructions for sensitive data (ARG \"API_TOKEN\")",
        ),
        (
            "FROM a AS Build\n",
            "1 StageNameCasing: Stage name 'Build' should be lowercase",
        ),
        (
            "ARG VERSION=1\nFROM a:${VERSOIN}\n",
            "2 UndefinedArgInFrom: FROM argument 'VERSOIN' is not declared (did you mean VERSION?)",
        ),
        (
            "FROM a\nARG VERSION=1\nLABEL v=$VERSOIN\n",
            "3 UndefinedVar: Usage of undefined variable '$VERSOIN' (did you mean $VERSION?)",
        ),
        (
            "FROM a\nWORKDIR x\n",
            "2 WorkdirRelativePath: Relative workdir \"x\" can have unexpected results if the base image changes",
        ),
    ];
    let mut rules: BTreeSet<&str> = BTreeSet::from(["CopyIgnoredFile"]);
    for (text, expected) in cases {
        assert!(
            found(text).contains(&(*expected).to_owned()),
            "{text}: {:?}",
            found(text)
        );
        rules.extend(expected.split([' ', ':']).nth(1));
    }
    assert_eq!(
        found_with(
            "FROM a\nCOPY skip /x\nADD dir /y\n",
            "skip\ndir\n!dir/keep\n",
            &[]
        ),
        ["2 CopyIgnoredFile: Attempting to Copy file \"skip\" that is excluded by .dockerignore"]
    );
    let all: BTreeSet<&str> = RULES.iter().map(|rule| rule.name).collect();
    assert_eq!(rules, all);
    assert_eq!(all.len(), 21);
}

#[test]
fn what_is_no_mistake_is_not_found() {
    for text in [
        "FROM a\nENV X=${Y:-z} Z=${W-} V=${U:+x}\n",
        "FROM a\nSHELL [\"/bin/bash\", \"-c\"]\nCMD x\n",
        "FROM --platform=linux/amd64 a AS build_amd64\n",
        "FROM a AS one\nWORKDIR /x\nFROM one\nWORKDIR y\n",
        "FROM a\nARG PUBLIC_KEY\nARG KEYBOARD\nENV MONKEY=1\n",
        "FROM a\nRUN echo $ANYTHING\n",
        "FROM a AS one\nCMD [\"x\"]\nFROM one\nCMD [\"y\"]\n",
        "# a comment\nFROM a AS x\n",
    ] {
        assert_eq!(found(text), Vec::<String>::new(), "{text}");
    }
    assert_eq!(
        found_with("FROM a\nENV X=$OF_BASE\n", "", &["OF_BASE=1"]),
        Vec::<String>::new()
    );
}

#[test]
fn the_file_says_what_it_wants_to_hear() {
    let bad = "FROM a as x\nMAINTAINER y\n";
    assert_eq!(found(&format!("# check=skip=all\n{bad}")), Vec::<String>::new());
    assert_eq!(found(&format!("# check=skip=fromascasing\n{bad}")).len(), 1);
    let settings = Settings::parse("skip=A, B;error=true").unwrap();
    assert!(settings.error && settings.skip.contains("b"));
    for wrong in ["skip", "error=maybe", "x=y"] {
        assert!(Settings::parse(wrong).is_err(), "{wrong}");
    }
    let file = parse("Dockerfile", b"# check=x\nFROM a\n").unwrap();
    let error = Settings::read(&file.directives, &file).unwrap_err().to_string();
    assert!(
        error.contains("Dockerfile:1:1") && error.contains("skip=RULE"),
        "{error}"
    );
}

#[test]
fn rules_know_where_they_are_documented() {
    let urls: Vec<String> = RULES.iter().map(|rule| rule.url()).collect();
    for slug in [
        "json-args-recommended",
        "from-as-casing",
        "secrets-used-in-arg-or-env",
    ] {
        assert!(
            urls.contains(&format!("https://docs.docker.com/go/dockerfile/rule/{slug}/")),
            "{urls:?}"
        );
    }
}

#[test]
fn targets_and_what_they_ask_for() {
    let text = "# VERSION of everything\nARG VERSION=1\n# build the thing\nFROM a AS build\nARG VERSION\nARG FLAGS=-v$VERSION\n\
                RUN --mount=type=secret,id=key,required x\n# unused stage\nFROM b AS unused\nARG LOST\nFROM scratch\n\
                COPY --from=build /x /x\n";
    let file = parse("Dockerfile", text.as_bytes()).unwrap();
    let statements = read_all(&file).unwrap();
    let stages = Stages::read(&file.source, statements.clone()).unwrap();
    let subject = Subject {
        file: &file,
        statements: &statements,
        stages: Some(&stages),
        ignore: &Ignore::default(),
        build_args: &BTreeMap::new(),
        platform: Platform::host(),
        environments: BTreeMap::new(),
    };
    let names: Vec<(String, bool, Option<String>)> = targets(&subject)
        .into_iter()
        .map(|target| (target.name, target.default, target.description))
        .collect();
    assert_eq!(
        names,
        [
            ("build".to_owned(), false, Some("the thing".to_owned())),
            ("unused".to_owned(), false, Some("stage".to_owned())),
            (String::new(), true, None),
        ]
    );
    let found = outline(&subject, &stages, 2);
    let arguments: Vec<(&str, Option<&str>)> = found
        .arguments
        .iter()
        .map(|argument| (argument.name.as_str(), argument.value.as_deref()))
        .collect();
    assert_eq!(arguments, [("VERSION", Some("1")), ("FLAGS", Some("-v1"))]);
    assert_eq!(found.arguments[0].description.as_deref(), Some("of everything"));
    assert_eq!(
        (found.secrets[0].id.as_str(), found.secrets[0].required),
        ("key", true)
    );
}
