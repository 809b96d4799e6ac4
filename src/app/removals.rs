//! Policies that were active and are in no file any more: a folder that lost a pack (a mount that failed,
//! a link that leads elsewhere) must not become the law without a word.

use std::collections::{BTreeMap, BTreeSet};

use super::{AppError, activation};
use crate::{
    config::Config,
    facts::Proposal,
    gate::Activate,
    policy::policy_ids,
    source::{Faults, SourceFile},
    store::Store,
};

/// How many policies a message names.
const NAMED: usize = 12;

/// Refuses files that would become active and lack a policy of the active snapshot, unless
/// `[policies] allow_removal` says so.
pub(super) async fn check_removals(
    config: &Config,
    store: &dyn Store,
    proposal: &Proposal,
) -> Result<(), AppError> {
    let active = match activation(config) {
        Activate::Always => store.active().await?,
        Activate::WhenNone | Activate::Never => None,
    };
    let Some(active) = active.filter(|active| active.snapshot.bundle != proposal.bundle.digest)
    else {
        return Ok(());
    };
    let Some(content) = store.content(active.snapshot.bundle).await? else { return Ok(()) };
    let Ok(texts) = serde_json::from_slice::<BTreeMap<String, String>>(&content) else {
        tracing::warn!(
            "the active policies cannot be read: whether the files lack one of them is not known"
        );
        return Ok(());
    };
    let files: Vec<SourceFile> =
        texts.iter().map(|(path, text)| SourceFile::new(path, text)).collect();
    let present: BTreeSet<&str> = proposal.bundle.rules().map(|rule| rule.id.as_str()).collect();
    let mut removed = policy_ids(&files);
    removed.retain(|id, _| !present.contains(id.as_str()));
    let words = &config.policies.allow_removal;
    for word in words {
        if !removed.iter().any(|(id, file)| allows(word, id, file)) {
            tracing::warn!(
                word,
                "`[policies] allow_removal` names what is not being removed: take the word out again"
            );
        }
    }
    removed.retain(|id, file| !words.iter().any(|word| allows(word, id, file)));
    if removed.is_empty() { Ok(()) } else { Err(refusal(config, &removed).into()) }
}

/// Whether `word` is the policy, its file, a folder around it, or its pack's name.
fn allows(word: &str, id: &str, file: &str) -> bool {
    let stem = file.rsplit('/').next().and_then(|name| name.strip_suffix(".cedar"));
    let below = file.strip_prefix(word.trim_end_matches('/'));
    word == id
        || word == file
        || stem == Some(word)
        || below.is_some_and(|rest| rest.starts_with('/'))
}

fn refusal(config: &Config, removed: &BTreeMap<String, std::sync::Arc<str>>) -> Faults {
    let mut packs: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (id, file) in removed.iter().take(NAMED) {
        packs.entry(file).or_default().push(id);
    }
    let packs = packs.iter().map(|(file, ids)| format!("`{}` of `{file}`", ids.join("`, `")));
    let mut named = packs.collect::<Vec<_>>().join("; ");
    if removed.len() > NAMED {
        named = format!("{named}; and {} more", removed.len() - NAMED);
    }
    let message = format!(
        "the policy folder lacks {} that {} active: {named}",
        if removed.len() == 1 {
            "a policy".to_owned()
        } else {
            format!("{} policies", removed.len())
        },
        if removed.len() == 1 { "is" } else { "are" },
    );
    let example = removed.values().next().map_or("", |file| &**file);
    let help = format!(
        "restore the files; or, if the policies are to go, say so for this start: \
         `allow_removal = [\"{example}\"]` in `[policies]`, or \
         `LEXGATE_POLICIES__ALLOW_REMOVAL='[\"{example}\"]'`: a policy's id, a file or a folder"
    );
    config.fault(&["policies", "dir"], message).help(help).into()
}

#[cfg(test)]
mod tests {
    use super::allows;

    #[test]
    fn a_word_is_a_policy_a_pack_a_file_or_a_folder() {
        for word in
            ["eu-gdpr-44", "eu-gdpr", "sovereignty/eu-gdpr.cedar", "sovereignty", "sovereignty/"]
        {
            assert!(allows(word, "eu-gdpr-44", "sovereignty/eu-gdpr.cedar"), "{word}");
        }
        for word in ["", "eu", "eu-gdpr-4", "sov", "sovereignty/eu-gdpr", "licensing", "*"] {
            assert!(!allows(word, "eu-gdpr-44", "sovereignty/eu-gdpr.cedar"), "{word}");
        }
    }
}
