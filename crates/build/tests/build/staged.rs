//! Several stages: order of what is said, what is left out, what runs at the same time.

use crate::lab::Lab;

#[tokio::test]
async fn it_speaks_as_dockers_builder_does() {
    let Some(lab) = Lab::new().await else { return };
    let mut request = lab.request("ARG BASE=base\nFROM $BASE\nRUN echo hi\nCMD [\"x\"]\n");
    request.tags = vec![spec::Reference::parse_normalized("me/app:1").unwrap()];
    request.build_args.insert("LOST".to_owned(), Some("x".to_owned()));
    let built = lab.build_request(request).await;
    let image = built.image();
    let mut lines = built.text.lines();
    let mut next = || lines.next().unwrap_or_default();
    assert_eq!(next(), "Step 1/4 : ARG BASE=base");
    assert_eq!(next(), "Step 2/4 : FROM $BASE");
    assert!(next().starts_with(" ---> "));
    assert_eq!(next(), "Step 3/4 : RUN echo hi");
    let running = next();
    assert!(running.starts_with(" ---> Running in "));
    assert_eq!(next(), "hi");
    assert_eq!(
        next(),
        running.replace("Running in", "Removed intermediate container")
    );
    assert_eq!(next().len(), " ---> 0123456789ab".len());
    assert_eq!(next(), "Step 4/4 : CMD [\"x\"]");
    assert_eq!(next().len(), " ---> 0123456789ab".len());
    assert_eq!(
        next(),
        "[Warning] One or more build-args [LOST] were not consumed"
    );
    assert_eq!(next(), format!("Successfully built {}", image.id.short()));
    assert_eq!(next(), "Successfully tagged me/app:1");
    assert_eq!(lab.images.resolve("me/app:1").unwrap().id, image.id);
}

#[tokio::test]
async fn stages_run_side_by_side_and_unused_ones_not_at_all() {
    let Some(lab) = Lab::new().await else { return };
    // Each waits for a file of the other in a directory they share: one after the other they would not end.
    let wait =
        "RUN --mount=type=cache,target=/c,id=meet touch /c/ME; while ! test -e /c/YOU; do sleep 0.01; done";
    let text = format!(
        "FROM base AS a\n{}\nFROM base AS unused\nRUN exit 1\nFROM base AS b\n{}\nFROM base\n\
         COPY --from=a /etc/passwd /a\nCOPY --from=b /etc/passwd /b\n",
        wait.replace("ME", "a").replace("YOU", "b"),
        wait.replace("ME", "b").replace("YOU", "a"),
    );
    let built = lab.build(&text).await;
    built.image();
    assert_eq!(built.runs, 2);
    assert!(!built.text.contains("unused"), "{}", built.text);
    let mut steps = built.text.lines().filter_map(|line| line.strip_prefix("Step "));
    assert!((1..=7).all(|number| {
        steps
            .next()
            .is_some_and(|step| step.starts_with(&format!("{number}/7 :")))
    }));
}

#[tokio::test]
async fn a_stage_goes_on_from_another() {
    let Some(lab) = Lab::new().await else { return };
    let text =
        "FROM base AS one\nENV A=1\nRUN echo 1 > /1\nFROM one AS two\nRUN echo $A > /2\nFROM two\nUSER 5\n";
    let built = lab.build(text).await;
    let image = built.image();
    assert_eq!(lab.cat(image, "/2"), "1\n");
    assert_eq!(image.config.config.user, "5");
    // One layer of the base, one for each RUN.
    assert_eq!(image.manifest.layers.len(), 3);
    let full = image
        .config
        .history
        .iter()
        .filter(|line| !line.empty_layer)
        .count();
    assert_eq!(full, 3);
    let mut request = lab.request(text);
    request.target = Some("one".to_owned());
    let one = lab.build_request(request).await;
    assert!(!lab.has(one.image(), "/2"));
    // Both images share the layer, which was written once.
    assert_eq!(one.image().manifest.layers[1], image.manifest.layers[1]);
}

#[tokio::test]
async fn an_image_as_source_and_scratch_as_base() {
    let Some(lab) = Lab::new().await else { return };
    let built = lab
        .build("FROM scratch\nCOPY --from=base /etc/passwd /etc/\nENTRYPOINT [\"/x\"]\n")
        .await;
    let image = built.image();
    assert!(lab.cat(image, "/etc/passwd").starts_with("root"));
    assert!(!lab.has(image, "/bin"));
    assert_eq!(image.manifest.layers.len(), 1);
    assert_eq!(
        image.config.config.entrypoint.as_deref(),
        Some(&["/x".to_owned()][..])
    );
}

#[tokio::test]
async fn a_trigger_may_take_from_a_stage_that_nothing_else_needs() {
    let Some(lab) = Lab::new().await else { return };
    let settings = spec::image::ContainerSettings {
        on_build: vec!["COPY --from=helper /h /h".to_owned()],
        ..Default::default()
    };
    lab.import("triggering", settings).await;
    let built = lab
        .build("FROM base AS helper\nRUN echo help > /h\nFROM triggering\nRUN cat /h > /seen\n")
        .await;
    assert_eq!(lab.cat(built.image(), "/seen"), "help\n");
}

#[tokio::test]
async fn what_is_linked_does_not_depend_on_what_lies_below() {
    let Some(lab) = Lab::new().await else { return };
    lab.write("f", "linked");
    let text = |below: &str| format!("FROM base\nRUN {below}\nCOPY --link --chown=5:6 f /a/b/f\n");
    let built = lab.build(&text("mkdir -m 700 /a; echo x > /a/x")).await;
    let image = built.image();
    assert_eq!(lab.cat(image, "/a/b/f"), "linked");
    assert_eq!(lab.owner(image, "/a/b/f"), (0o644, 5, 6));
    assert_eq!(
        lab.owner(image, "/a"),
        (0o700, 0, 0),
        "what was there keeps its permissions"
    );
    assert!(lab.has(image, "/a/x"));
    let first = image.config.rootfs.diff_ids.last().cloned();
    let built = lab.build(&text("echo other > /o")).await;
    assert_eq!(built.runs, 1);
    let image = built.image();
    assert_eq!(image.config.rootfs.diff_ids.len(), 3);
    assert_ne!(first, None);
    // A link of the name of a directory gives way, as overlayfs would have it.
    let built = lab
        .build("FROM base\nRUN mkdir /real; ln -s /real /a\nCOPY --link f /a/b/f\n")
        .await;
    let image = built.image();
    assert!(!lab.has(image, "/real/b"));
    assert_eq!(lab.cat(image, "/a/b/f"), "linked");
}

#[tokio::test]
async fn squashed_layers_are_one_and_delete_what_they_deleted() {
    let Some(lab) = Lab::new().await else { return };
    let text = "FROM base\nRUN mkdir /d; echo 1 > /d/a; echo 2 > /d/b; echo x > /one\nENV A=1\nRUN rm -r /d; mkdir /d; echo 3 > /d/c\n\
                RUN rm /etc/passwd /one; echo 4 > /two\n";
    let mut request = lab.request(text);
    request.squash = true;
    let built = lab.build_request(request).await;
    let image = built.image();
    assert_eq!(image.config.rootfs.diff_ids.len(), 2);
    let with_files = image
        .config
        .history
        .iter()
        .filter(|line| !line.empty_layer)
        .count();
    assert_eq!(with_files, 2);
    assert_eq!(lab.cat(image, "/d/c"), "3\n");
    assert_eq!(lab.cat(image, "/two"), "4\n");
    for gone in ["/d/a", "/d/b", "/one", "/etc/passwd"] {
        assert!(!lab.has(image, gone), "{gone}");
    }
    let plain = lab.build(text).await;
    assert_eq!(plain.runs, 0, "the steps themselves are in the cache");
    assert_eq!(plain.image().config.rootfs.diff_ids.len(), 4);
    assert_eq!(lab.leftovers(), 0);
}

#[tokio::test]
async fn the_same_input_gives_the_same_digest_on_two_machines() {
    let text = "FROM base AS made\nRUN mkdir /o; echo x > /o/f; ln /o/f /o/g; ln -s f /o/l\nFROM scratch\n\
                COPY --from=made /o /o\nCOPY ctx /ctx\nENV A=1\nWORKDIR /w\n";
    let mut digests = Vec::new();
    for time in [2_000_000_000, 2_100_000_000] {
        let Some(lab) = Lab::new().await else { return };
        lab.write("ctx/file", "content");
        let times = std::time::UNIX_EPOCH + std::time::Duration::from_secs(time);
        let file = std::fs::File::options()
            .append(true)
            .open(lab.context.join("ctx/file"))
            .unwrap();
        file.set_modified(times).unwrap();
        let mut request = lab.request(text);
        request.rewrite_timestamp = true;
        let epoch = Some("1000000000".to_owned());
        request.build_args.insert("SOURCE_DATE_EPOCH".to_owned(), epoch);
        let built = lab.build_request(request).await;
        let image = built.image();
        for path in ["/o", "/o/f", "/ctx/file", "/w"] {
            assert_eq!(lab.stat(image, path).unwrap().st_mtime, 1_000_000_000, "{path}");
        }
        assert_eq!(lab.stat(image, "/o/f").unwrap().st_nlink, 2);
        digests.push(image.id.clone());
    }
    assert_eq!(digests[0], digests[1]);
    let Some(lab) = Lab::new().await else { return };
    let mut request = lab.request("FROM base\nRUN echo x\n");
    request.rewrite_timestamp = true;
    let error = lab.build_request(request).await.error().to_string();
    assert!(error.contains("SOURCE_DATE_EPOCH"), "{error}");
}

#[tokio::test]
async fn builds_at_the_same_time_make_an_equal_step_once() {
    let Some(lab) = Lab::new().await else { return };
    let text = "FROM base\nRUN busybox mktemp -u /tmp/XXXXXX > /id; sleep 1\nRUN cat /id > /copy\n";
    // Written once, since one build may read what the next one writes.
    lab.request(text);
    let request = || build::BuildRequest::new(&lab.context);
    let all = futures_util::future::join_all((0..3).map(|_| lab.build_request(request()))).await;
    let made = lab.executor.runs.load(std::sync::atomic::Ordering::SeqCst);
    assert_eq!(made, 2, "{}", all[1].text);
    let ids: Vec<String> = all.iter().map(|built| lab.cat(built.image(), "/copy")).collect();
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    // What is to be made anew is made by each.
    let anew = || {
        let mut request = request();
        request.no_cache = true;
        lab.build_request(request)
    };
    let (one, two) = tokio::join!(anew(), anew());
    assert_ne!(lab.cat(one.image(), "/copy"), lab.cat(two.image(), "/copy"));
}
