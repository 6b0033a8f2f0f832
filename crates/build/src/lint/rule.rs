//! The rules by name.

/// A rule.
#[derive(Debug, PartialEq, Eq)]
pub struct Rule {
    /// As clients and `# check=skip=` know it.
    pub name: &'static str,
    /// What it is about, in one line.
    pub description: &'static str,
    /// Speaks only when the file asks for it.
    pub experimental: bool,
}

impl Rule {
    /// Where the rule is documented.
    pub fn url(&self) -> String {
        let mut slug = String::new();
        let chars: Vec<char> = self.name.chars().collect();
        for (at, c) in chars.iter().enumerate() {
            let after_lower = at > 0 && chars.get(at - 1).is_some_and(char::is_ascii_lowercase);
            let before_lower = at > 0 && chars.get(at + 1).is_some_and(char::is_ascii_lowercase);
            if c.is_ascii_uppercase() && (after_lower || before_lower) {
                slug.push('-');
            }
            slug.push(c.to_ascii_lowercase());
        }
        format!("https://docs.docker.com/go/dockerfile/rule/{slug}/")
    }
}

macro_rules! rules {
    ($($constant:ident $name:literal $description:literal $experimental:literal),* $(,)?) => {
        $(pub(super) static $constant: Rule = Rule {
            name: $name,
            description: $description,
            experimental: $experimental,
        };)*
        /// All of them, by name.
        pub static RULES: &[&Rule] = &[$(&$constant),*];
    };
}

rules! {
    CONSISTENT_CASING "ConsistentInstructionCasing"
        "Instructions of one file are written in one case" false,
    COPY_IGNORED "CopyIgnoredFile"
        "A file that .dockerignore leaves out cannot be copied" false,
    DUPLICATE_STAGE "DuplicateStageName"
        "Each stage has a name of its own" false,
    EXPOSE_FORMAT "ExposeInvalidFormat"
        "EXPOSE takes a port and a protocol, no address and no port of the host" false,
    EXPOSE_CASING "ExposeProtoCasing"
        "The protocol of an EXPOSE is written in lower case" false,
    FROM_AS_CASING "FromAsCasing"
        "FROM and AS are written in the same case" false,
    PLATFORM_CONSTANT "FromPlatformFlagConstDisallowed"
        "The platform of a FROM is an argument, so that others can be built" false,
    INVALID_DEFAULT "InvalidDefaultArgInFrom"
        "The defaults of the arguments give a usable base image" false,
    INVALID_DESCRIPTION "InvalidDefinitionDescription"
        "A comment directly above a stage or an argument describes it: # NAME DESCRIPTION" true,
    JSON_ARGS "JSONArgsRecommended"
        "CMD and ENTRYPOINT are lists, so that signals reach the program and not a shell" false,
    LEGACY_PAIR "LegacyKeyValueFormat"
        "ENV and LABEL are written with an equals sign" false,
    MAINTAINER "MaintainerDeprecated"
        "The author stands in a label, MAINTAINER is deprecated" false,
    MULTIPLE "MultipleInstructionsDisallowed"
        "Of CMD, ENTRYPOINT and HEALTHCHECK a stage has one each; the last one counts" false,
    EMPTY_CONTINUATION "NoEmptyContinuation"
        "A continued line is followed by more, not by an empty line" false,
    REDUNDANT_PLATFORM "RedundantTargetPlatform"
        "The target's platform is what FROM takes anyway" false,
    RESERVED_STAGE "ReservedStageName"
        "scratch and context have a meaning already" false,
    SECRETS "SecretsUsedInArgOrEnv"
        "Secrets are mounted, not written into ARG or ENV, where the image shows them" false,
    STAGE_CASING "StageNameCasing"
        "Names of stages are written in lower case" false,
    UNDEFINED_IN_FROM "UndefinedArgInFrom"
        "FROM uses arguments that are declared before it" false,
    UNDEFINED_VAR "UndefinedVar"
        "A variable is set before it is used" false,
    WORKDIR_RELATIVE "WorkdirRelativePath"
        "A relative WORKDIR follows an absolute one, since the base's may change" false,
}
