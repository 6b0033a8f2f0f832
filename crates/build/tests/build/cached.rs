//! What the cache knows, what makes it miss, and what pruning takes.

use build::PruneOptions;

use crate::lab::Lab;

const TEN: &str =
    "FROM base\nENV A=1\nRUN echo 1 > /1\nRUN echo 2 > /2\nCOPY f /f\nRUN cat /f > /3\nCMD [\"x\"]\n";

#[tokio::test]
async fn equal_builds_give_the_same_image() {
    let Some(lab) = Lab::new().await else { return };
    lab.write("f", "one");
    let first = lab.build(TEN).await;
    assert_eq!(first.runs, 3);
    let second = lab.build(TEN).await;
    assert_eq!(second.runs, 0, "{}", second.text);
    assert_eq!(second.text.matches(" ---> Using cache\n").count(), 6);
    assert_eq!(first.image().id, second.image().id);
    // A changed file runs what stands behind it, and nothing before.
    lab.write("f", "two");
    let third = lab.build(TEN).await;
    assert_eq!(third.runs, 1, "{}", third.text);
    assert_eq!(lab.cat(third.image(), "/3"), "two");
    // A change that commands cannot see runs nothing.
    let labelled = lab
        .build(&TEN.replace("ENV A=1\n", "ENV A=1\nLABEL x=y\nEXPOSE 80\n"))
        .await;
    assert_eq!(labelled.runs, 0);
    assert_eq!(lab.build(&TEN.replace("A=1", "A=2")).await.runs, 3);
    let mut request = lab.request(TEN);
    request.no_cache = true;
    assert_eq!(lab.build_request(request).await.runs, 3);
    assert_eq!(lab.build(TEN).await.runs, 0);
    assert_eq!(lab.leftovers(), 0);
}

#[tokio::test]
async fn times_of_files_do_not_count_but_modes_do() {
    let Some(lab) = Lab::new().await else { return };
    let text = "FROM base\nCOPY f /f\nRUN echo x > /x\n";
    lab.write("f", "same");
    lab.build(text).await.image();
    let later = std::time::SystemTime::now() + std::time::Duration::from_secs(100);
    std::fs::File::open(lab.context.join("f"))
        .unwrap()
        .set_modified(later)
        .unwrap();
    assert_eq!(lab.build(text).await.runs, 0);
    std::fs::set_permissions(
        lab.context.join("f"),
        std::os::unix::fs::PermissionsExt::from_mode(0o600),
    )
    .unwrap();
    assert_eq!(lab.build(text).await.runs, 1);
}

#[tokio::test]
async fn a_stage_that_comes_out_the_same_changes_nothing_above() {
    let Some(lab) = Lab::new().await else { return };
    let text = |command: &str| {
        format!(
            "FROM base AS one\nRUN {command}\nFROM base\nCOPY --from=one /out /out\nRUN cat /out > /seen\n"
        )
    };
    assert_eq!(lab.build(&text("echo same > /out")).await.runs, 2);
    let again = lab.build(&text("echo sa''me > /out")).await;
    assert_eq!(again.runs, 1, "{}", again.text);
    assert_eq!(lab.cat(again.image(), "/seen"), "same\n");
    assert_eq!(lab.build(&text("echo sa''me > /out")).await.runs, 0);
    assert_eq!(lab.build(&text("echo other > /out")).await.runs, 2);
}

#[tokio::test]
async fn what_is_mounted_of_a_stage_is_known_by_its_content() {
    let Some(lab) = Lab::new().await else { return };
    let text = |command: &str, options: &str| {
        format!(
            "FROM base AS one\nRUN mkdir /o && {command}\nFROM base\nRUN --mount=from=one,source=/o,target=/m{options} cat /m/f > /seen\n"
        )
    };
    for options in ["", ",rw"] {
        assert_eq!(
            lab.build(&text("echo same > /o/f", options)).await.runs,
            2 - usize::from(!options.is_empty())
        );
        // Made again, with other files beside, and shown the same.
        let again = text("echo sa''me > /o/f && echo more > /beside", options);
        let built = lab.build(&again).await;
        assert_eq!(lab.cat(built.image(), "/seen"), "same\n");
        assert_eq!(built.runs, usize::from(options.is_empty()), "{}", built.text);
        assert_eq!(lab.build(&again).await.runs, 0);
    }
    assert_eq!(lab.build(&text("echo other > /o/f", "")).await.runs, 2);
    // Who may see the directory is part of what is seen.
    assert_eq!(
        lab.build(&text("echo other > /o/f && busybox chmod 700 /o", ""))
            .await
            .runs,
        2
    );
}

#[tokio::test]
async fn pruning_frees_what_only_the_cache_kept() {
    let Some(lab) = Lab::new().await else { return };
    lab.write("f", "one");
    let built = lab.build(TEN).await;
    let mut request = lab.request("FROM base\nRUN echo left > /left\nRUN false\n");
    request.tags.clear();
    lab.build_request(request).await.error();
    let usage = lab.builder.disk_usage().await.unwrap();
    assert_eq!(usage.len(), 5, "{usage:?}");
    assert_eq!(usage.iter().filter(|entry| !entry.shared).count(), 1);
    let pruned = lab.builder.prune(PruneOptions::default()).await.unwrap();
    assert!(pruned.bytes > 0);
    assert_eq!(lab.builder.disk_usage().await.unwrap().len(), 4);
    assert_eq!(lab.build(TEN).await.runs, 0, "what an image holds stays");
    lab.builder
        .prune(PruneOptions {
            all: true,
            ..PruneOptions::default()
        })
        .await
        .unwrap();
    assert!(lab.builder.disk_usage().await.unwrap().is_empty());
    assert_eq!(lab.cat(built.image(), "/1"), "1\n", "the image is whole");
    assert_eq!(lab.build(TEN).await.runs, 3);
}

#[tokio::test]
async fn the_cache_outlives_the_builder() {
    let Some(lab) = Lab::new().await else { return };
    lab.write("f", "one");
    lab.build(TEN).await.image();
    lab.images.gc(|_| Ok(store::Roots::default())).unwrap();
    let builder = build::Builder::new(lab.images.clone(), lab.store.clone(), lab.executor.clone()).unwrap();
    let mut lab = lab;
    lab.builder = builder;
    assert_eq!(lab.build(TEN).await.runs, 0);
}

#[tokio::test]
async fn the_cache_keeps_to_its_size_and_gives_up_what_was_used_longest_ago() {
    let Some(lab) = Lab::new().await else { return };
    let policy = build::CachePolicy {
        max_bytes: Some(3 << 20),
        ..build::CachePolicy::default()
    };
    let bounded = lab.builder.clone().with_policy(policy);
    lab.write("big", &"x".repeat(1 << 20));
    let text = |name: &str| format!("FROM base\nCOPY big /{name}\n");
    for name in ["a", "b", "c", "d", "e"] {
        let (output, mut events) = tokio::sync::mpsc::channel(64);
        let hear = async { while events.recv().await.is_some() {} };
        let (built, ()) = tokio::join!(bounded.build(lab.request(&text(name)), output), hear);
        let image = built.unwrap();
        // The image itself would hold the layer.
        lab.images.remove_by_digest(&image.id).unwrap();
    }
    bounded.keep_to_policy().await.unwrap();
    let used: u64 = lab
        .builder
        .disk_usage()
        .await
        .unwrap()
        .iter()
        .filter(|entry| !entry.shared)
        .map(|entry| entry.size)
        .sum();
    assert!((1 << 20..=3 << 20).contains(&used), "{used}");
    let last = lab.build(&text("e")).await;
    assert!(
        last.text.contains("Using cache"),
        "what was used last is there: {}",
        last.text
    );
    let first = lab.build(&text("a")).await;
    assert!(!first.text.contains("Using cache"), "{}", first.text);
}

#[tokio::test]
async fn what_an_image_held_goes_without_asking_for_all_once_the_image_is_gone() {
    let Some(lab) = Lab::new().await else { return };
    let text = "FROM base\nRUN echo x > /x\n";
    let built = lab.build(text).await;
    let pruned = lab.builder.prune(build::PruneOptions::default()).await.unwrap();
    assert_eq!(pruned.ids.len(), 0, "the image holds it");
    lab.images.remove_by_digest(&built.image().id).unwrap();
    let pruned = lab.builder.prune(build::PruneOptions::default()).await.unwrap();
    assert_eq!(pruned.ids.len(), 1);
    assert_eq!(lab.build(text).await.runs, 1);
}

/// As it is after the clock was a year ahead and has been put right.
#[tokio::test]
async fn what_was_used_in_a_year_to_come_is_neither_kept_for_so_long_nor_the_last_to_go() {
    let Some(lab) = Lab::new().await else { return };
    lab.write("big", &"x".repeat(1 << 20));
    let text = |name: &str| format!("FROM base\nCOPY big /{name}\n");
    let built = lab.build(&text("a")).await;
    lab.images.remove_by_digest(&built.image().id).unwrap();
    let later = |tx: &store::rusqlite::Transaction<'_>| {
        let year = 365 * 24 * 3600 * 1000i64;
        let text = "UPDATE build_record SET made = made + ?1, used = used + ?1";
        tx.execute(text, [year]).map_err(store::DbError::from)
    };
    lab.store.db().write(later).unwrap();
    // What is older than no time at all is everything.
    let unused = PruneOptions {
        unused_for: Some(std::time::Duration::ZERO),
        rehearse: true,
        ..PruneOptions::default()
    };
    assert_eq!(lab.builder.prune(unused).await.unwrap().ids.len(), 1);
    let built = lab.build(&text("b")).await;
    lab.images.remove_by_digest(&built.image().id).unwrap();
    let room = PruneOptions {
        keep_bytes: Some(3 << 19),
        ..PruneOptions::default()
    };
    assert_eq!(lab.builder.prune(room).await.unwrap().ids.len(), 1);
    let cached = |built: crate::lab::Built| built.text.contains("Using cache");
    assert!(cached(lab.build(&text("b")).await));
    assert!(!cached(lab.build(&text("a")).await));
}

/// What a build tells of its steps, as `hit` or the reason.
async fn explained(
    lab: &Lab,
    dockerfile: &str,
    change: impl FnOnce(&mut build::BuildRequest),
) -> (String, Vec<String>) {
    let mut request = lab.request(dockerfile);
    request.explain = true;
    change(&mut request);
    let (output, mut events) = tokio::sync::mpsc::channel(64);
    let hear = async {
        let (mut reference, mut steps) = (String::new(), Vec::new());
        while let Some(event) = events.recv().await {
            match event {
                build::BuildEvent::Reference(id) => reference = id,
                build::BuildEvent::Explained(step) => steps.push(step),
                _ => {}
            }
        }
        (reference, steps)
    };
    let (built, (reference, mut steps)) = tokio::join!(lab.builder.build(request, output), hear);
    built.unwrap();
    steps.sort_by_key(|step| step.number);
    let show = |step: build::Explained| if step.hit { "hit".to_owned() } else { step.reason };
    (reference, steps.into_iter().map(show).collect())
}

#[tokio::test]
async fn a_miss_names_the_first_thing_that_differs() {
    let Some(lab) = Lab::new().await else { return };
    lab.write("src/a", "1");
    lab.write("src/b", "2");
    let text = "FROM base\nARG V=1\nCOPY src /src\nRUN echo $V > /v\nENV A=1\n";
    let (first, steps) = explained(&lab, text, |_| {}).await;
    assert_eq!(steps, ["it was not built before"; 4]);
    let (_, steps) = explained(&lab, text, |_| {}).await;
    assert_eq!(steps, ["hit"; 4]);

    lab.write("src/b", "changed");
    let (_, steps) = explained(&lab, text, |_| {}).await;
    assert!(steps[1].starts_with("file src/b changed: "), "{steps:?}");
    assert_eq!(steps[2], "the step before it was made again");

    let argument = |request: &mut build::BuildRequest| {
        request.build_args.insert("V".to_owned(), Some("2".to_owned()));
    };
    let (with_argument, steps) = explained(&lab, text, argument).await;
    assert_eq!(steps[1], "hit");
    assert_eq!(steps[2], "variable V changed: \"1\" is \"2\"");

    let (_, steps) = explained(&lab, text, |request| request.no_cache = true).await;
    assert_eq!(steps[1], "the cache was not to be used");
    let other = text.replace("echo $V", "echo x$V");
    let (_, steps) = explained(&lab, &other, |_| {}).await;
    assert!(steps[2].starts_with("command changed: "), "{steps:?}");

    lab.builder
        .prune(build::PruneOptions {
            all: true,
            ..Default::default()
        })
        .await
        .unwrap();
    let (_, steps) = explained(&lab, &other, |_| {}).await;
    assert_eq!(steps[1], "its result is no longer in the cache");

    let lines = lab.builder.compare(&first, &with_argument).await.unwrap();
    assert!(
        lines.iter().any(|line| line.contains("file src/b changed")),
        "{lines:?}"
    );
    assert!(
        lines.iter().any(|line| line.contains("variable V changed")),
        "{lines:?}"
    );
    assert!(lab.builder.compare("nosuch", &first).await.is_err());
    assert_eq!(lab.builder.builds().await.unwrap().len(), 7);
}

#[tokio::test]
async fn secrets_are_nowhere_but_in_the_step() {
    let Some(lab) = Lab::new().await else { return };
    const SECRET: &str = "sw0rdfish-in-a-barrel";
    let text = "FROM base\nARG API_TOKEN\nRUN --mount=type=secret,id=key test -s /run/secrets/key\n\
                RUN --mount=type=secret,id=key,env=KEY test -n \"$KEY\"\n";
    let mut request = lab.request(text);
    request.client = Some(lab.lender("key", SECRET));
    let built = lab.build_request(request).await;
    let image = built.image();
    assert!(!built.text.contains(SECRET));
    assert!(!serde_json::to_string(&image.config).unwrap().contains(SECRET));
    // The database with its log: keys, descriptions, what steps depended on.
    let root = lab.store.root();
    for entry in std::fs::read_dir(root)
        .unwrap()
        .flatten()
        .filter(|entry| entry.path().is_file())
    {
        let bytes = std::fs::read(entry.path()).unwrap();
        let found = bytes
            .windows(SECRET.len())
            .any(|window| window == SECRET.as_bytes());
        assert!(!found, "{}", entry.path().display());
    }
}
