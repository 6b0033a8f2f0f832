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
