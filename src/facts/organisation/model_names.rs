//! The names under which callers ask for models: those of the organisation file, and aliases.

use super::{Model, Organisation, backend::VirtualModel};
use crate::domain::{ModelId, VirtualModelId};

/// What a model whose `modalities` hold this word writes: vectors, and no text.
const EMBEDDING: [&str; 2] = ["embedding", "embeddings"];

impl Organisation {
    /// The virtual model that `name` means: its own id, then an alias that is the whole name, then one that
    /// is its beginning. A model or a deployment of that name goes before all aliases.
    #[must_use]
    pub fn virtual_model(&self, name: &str) -> Option<(&VirtualModelId, &VirtualModel)> {
        if let Some(found) = self.virtual_models.get_key_value(name) {
            return Some(found);
        }
        if self.models.contains_key(name) || self.deployment(name).is_some() {
            return None;
        }
        let mut all = self.virtual_models.iter();
        let whole = |alias: &String| alias == name;
        let begins =
            |alias: &String| alias.strip_suffix('*').is_some_and(|it| name.starts_with(it));
        all.clone()
            .find(|(_, model)| model.aliases.iter().any(whole))
            .or_else(|| all.find(|(_, model)| model.aliases.iter().any(begins)))
    }

    /// Every name that is whole: of virtual models, their aliases, models and deployments.
    pub fn model_names(&self) -> impl Iterator<Item = &str> {
        let aliases = self.virtual_models.values().flat_map(|model| &model.aliases);
        let virtual_models = self.virtual_models.keys().map(VirtualModelId::as_str);
        virtual_models
            .chain(aliases.map(String::as_str).filter(|alias| !alias.ends_with('*')))
            .chain(self.models.keys().map(ModelId::as_str))
            .chain(self.deployments.iter().map(|deployment| deployment.id.as_str()))
    }
}

impl Model {
    /// Whether it takes what a call sends or asks for: `text`, `image`, `audio`, … Of one that names no
    /// modalities nothing is known.
    #[must_use]
    pub fn takes(&self, modality: &str) -> bool {
        let names = |word: &str| self.modalities.iter().any(|one| one.eq_ignore_ascii_case(word));
        match modality {
            _ if self.modalities.is_empty() => true,
            "text" => !EMBEDDING.into_iter().any(names),
            "image" => ["image", "images", "vision"].into_iter().any(names),
            _ => names(modality),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_takes_what_its_catalogue_says() {
        let takes = |modalities: &[&str], modality| {
            let modalities = modalities.iter().map(|word| (*word).to_owned()).collect();
            let provider = String::new();
            Model { license: "MIT".into(), provider, modalities }.takes(modality)
        };
        assert!(takes(&[], "image") && takes(&[], "text"), "nothing is known of it");
        assert!(takes(&["text"], "text") && !takes(&["text"], "image"));
        assert!(takes(&["text", "Image"], "image") && takes(&["text", "vision"], "image"));
        assert!(!takes(&["text", "image"], "audio"));
        assert!(!takes(&["embedding"], "text") && !takes(&["text", "embedding"], "text"));
    }

    #[test]
    fn a_name_means_itself_before_any_alias() {
        let mut organisation = Organisation::default();
        let with = |aliases: &[&str]| VirtualModel {
            aliases: aliases.iter().map(|alias| (*alias).to_owned()).collect(),
            ..VirtualModel::default()
        };
        organisation.virtual_models.insert("assistant".into(), with(&["gpt-5*", "openai/gpt-5"]));
        organisation.virtual_models.insert("small".into(), with(&["gpt-5-mini"]));
        let model =
            Model { license: "MIT".into(), provider: String::new(), modalities: Vec::new() };
        organisation.models.insert("gpt-5-own".into(), model);
        let means = |name: &str| organisation.virtual_model(name).map(|(id, _)| id.as_str());
        for name in ["assistant", "gpt-5", "gpt-5-2025-08-07", "openai/gpt-5"] {
            assert_eq!(means(name), Some("assistant"), "{name}");
        }
        assert_eq!(means("gpt-5-mini"), Some("small"), "the whole name goes before its beginning");
        for name in ["gpt-5-own", "gpt-4", "openai/gpt-5-mini", ""] {
            assert_eq!(means(name), None, "{name}");
        }
    }
}
