//! The parts of two steps, or the steps of two builds, held against each other.

use std::collections::{BTreeMap, BTreeSet};

use super::{Part, StepRow, short};

/// The first difference in words, in the order in which the parts stand.
pub fn difference(old: &[Part], new: &[Part]) -> Option<String> {
    differences(old, new).into_iter().next()
}

/// All differences in words.
pub(super) fn differences(old: &[Part], new: &[Part]) -> Vec<String> {
    let map = |parts: &[Part]| -> BTreeMap<String, String> { parts.iter().cloned().collect() };
    let (before, after) = (map(old), map(new));
    let mut seen = BTreeSet::new();
    let mut found = Vec::new();
    for (name, _) in new.iter().chain(old) {
        if !seen.insert(name) {
            continue;
        }
        match (before.get(name), after.get(name)) {
            (Some(old), Some(new)) if old != new => found.push(match name.starts_with("file ") {
                true => format!("{name} changed: {} is {}", short(old), short(new)),
                false => format!("{name} changed: {old:?} is {new:?}"),
            }),
            (None, Some(new)) => found.push(match name.starts_with("file ") {
                true => format!("{name} is new"),
                false => format!("{name} is new: {new:?}"),
            }),
            (Some(_), None) => found.push(format!("{name} is gone")),
            _ => {}
        }
    }
    found
}

/// What differs between two builds, a line each.
pub(super) fn builds(old: &[StepRow], new: &[StepRow]) -> Vec<String> {
    let mut lines = Vec::new();
    let mut matched: BTreeSet<usize> = BTreeSet::new();
    for step in new {
        let same_code = |other: &&StepRow| other.stage == step.stage && other.code == step.code;
        let same_place = |other: &&StepRow| other.stage == step.stage && other.ordinal == step.ordinal;
        let free = |other: &&StepRow| !matched.contains(&other.number);
        let before = old.iter().filter(free).find(same_code);
        let before = before.or_else(|| old.iter().filter(free).find(same_place));
        let title = title(step);
        let Some(before) = before else {
            lines.push(format!("{title}\n  only in the second build"));
            continue;
        };
        matched.insert(before.number);
        if before.identity == step.identity {
            continue;
        }
        let mut found = Vec::new();
        if before.code != step.code {
            found.push(format!("the instruction was {:?}", before.code));
        }
        match (&before.parts, &step.parts) {
            (Some(old), Some(new)) => found.extend(differences(old, new)),
            _ => found.push("what it depended on is not known any more".to_owned()),
        }
        if found.is_empty() {
            found.push("what it is based on differs".to_owned());
        }
        lines.push(format!("{title}\n  {}", found.join("\n  ")));
    }
    for step in old.iter().filter(|step| !matched.contains(&step.number)) {
        lines.push(format!("{}\n  only in the first build", title(step)));
    }
    lines
}

fn title(step: &StepRow) -> String {
    let code = step.code.lines().next().unwrap_or_default();
    format!("[{} {}] {code}", step.stage, step.ordinal)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(list: &[(&str, &str)]) -> Vec<Part> {
        list.iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn differences_are_named() {
        let old = parts(&[
            ("instruction", "COPY"),
            ("file a", "sha256:1111111111112222"),
            ("file b", "x"),
            ("ENV A", "1"),
        ]);
        let new = parts(&[
            ("instruction", "COPY"),
            ("file a", "sha256:3333333333334444"),
            ("file c", "x"),
            ("ENV A", "2"),
        ]);
        assert_eq!(
            differences(&old, &new),
            [
                "file a changed: 111111111111 is 333333333333",
                "file c is new",
                "ENV A changed: \"1\" is \"2\"",
                "file b is gone",
            ]
        );
        assert_eq!(difference(&old, &old), None);
    }

    #[test]
    fn steps_of_two_builds_are_matched() {
        let step = |number: usize, code: &str, identity: &str, value: &str| StepRow {
            number,
            stage: "0".to_owned(),
            ordinal: number,
            code: code.to_owned(),
            identity: identity.to_owned(),
            parts: Some(parts(&[("ENV A", value)])),
            ..StepRow::default()
        };
        let old = [
            step(1, "RUN a", "1", "1"),
            step(2, "RUN b", "2", "1"),
            step(3, "RUN c", "3", "1"),
        ];
        let new = [step(1, "RUN a", "1", "1"), step(2, "RUN x", "4", "2")];
        assert_eq!(
            builds(&old, &new),
            [
                "[0 2] RUN x\n  the instruction was \"RUN b\"\n  ENV A changed: \"1\" is \"2\"",
                "[0 3] RUN c\n  only in the first build",
            ]
        );
    }
}
