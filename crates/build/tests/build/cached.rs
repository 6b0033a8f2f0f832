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
