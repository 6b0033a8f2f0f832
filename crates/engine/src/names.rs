//! Names for containers that were given none: an adjective and the name of someone who built something.

use rand::seq::IndexedRandom;

const ADJECTIVES: &[&str] = &[
    "able", "agile", "amber", "ample", "apt", "bold", "brave", "breezy", "bright", "brisk", "calm", "candid",
    "cheery", "civil", "clear", "clever", "cosy", "crisp", "curious", "daring", "deft", "eager", "early",
    "easy", "exact", "fair", "fancy", "fleet", "fluent", "fond", "frank", "free", "fresh", "gentle", "glad",
    "golden", "grand", "handy", "hardy", "hearty", "honest", "humble", "jolly", "keen", "kind", "lively",
    "lucid", "lucky", "mellow", "merry", "mighty", "modest", "neat", "nimble", "noble", "patient", "placid",
    "plucky", "polite", "prompt", "proud", "quick", "quiet", "ready", "robust", "rosy", "serene", "sharp",
    "silent", "smart", "snug", "sober", "solid", "spry", "steady", "sunny", "swift", "tidy", "trusty",
    "upbeat", "vivid", "warm", "wise", "witty", "zesty",
];

const BUILDERS: &[&str] = &[
    "aalto",
    "ada",
    "archimedes",
    "babbage",
    "banu_musa",
    "bartik",
    "bell",
    "benz",
    "berners_lee",
    "boole",
    "brunel",
    "brunelleschi",
    "carothers",
    "carrier",
    "cerf",
    "clarke",
    "curie",
    "da_vinci",
    "daimler",
    "davy",
    "diesel",
    "dijkstra",
    "eckert",
    "edison",
    "eiffel",
    "ellison",
    "engelbart",
    "faraday",
    "fulton",
    "galileo",
    "goddard",
    "goodyear",
    "gutenberg",
    "hadid",
    "hamilton",
    "harrison",
    "heron",
    "hertz",
    "hopper",
    "huygens",
    "jacquard",
    "johnson",
    "kahn",
    "kamen",
    "kay",
    "kilby",
    "knuth",
    "lamarr",
    "lamport",
    "liskov",
    "lovelace",
    "mauchly",
    "maxwell",
    "mccarthy",
    "mclean",
    "meitner",
    "morse",
    "naur",
    "noether",
    "nygaard",
    "otto",
    "papin",
    "perlman",
    "postel",
    "ritchie",
    "roebling",
    "savery",
    "shannon",
    "siemens",
    "sinan",
    "stephenson",
    "stevin",
    "telford",
    "tesla",
    "thompson",
    "torvalds",
    "trevithick",
    "turing",
    "volta",
    "watt",
    "whittle",
    "wirth",
    "wren",
    "yonath",
    "zuse",
];

/// A name such as `brisk_hopper`, with a digit behind it from the second attempt on.
pub(crate) fn random(attempt: u32) -> String {
    let mut rng = rand::rng();
    let adjective = ADJECTIVES.choose(&mut rng).copied().unwrap_or("plain");
    let builder = BUILDERS.choose(&mut rng).copied().unwrap_or("builder");
    match attempt {
        0 => format!("{adjective}_{builder}"),
        n => format!("{adjective}_{builder}{n}"),
    }
}

/// Whether a container or volume may be called so: `[a-zA-Z0-9][a-zA-Z0-9_.-]+`.
pub(crate) fn is_valid(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphanumeric())
        && name.len() > 1
        && bytes.all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_names_are_valid() {
        for attempt in 0..200 {
            assert!(is_valid(&random(attempt)));
        }
        for bad in ["", "a", "-ab", "/b@d", "a b"] {
            assert!(!is_valid(bad), "{bad}");
        }
    }
}
