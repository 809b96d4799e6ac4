//! Asking a backend who it is: whether it serves the model that the catalogue says, under the licence
//! that the catalogue says, and where the catalogue says. Not how often it is asked (`gate`).

use serde::Deserialize;

use crate::{
    domain::{LicenceId, Tier},
    facts::BackendAddress,
};

/// What a backend should be.
#[derive(Clone, Copy, Debug)]
pub struct Expected<'a> {
    /// How it is reached.
    pub address: &'a BackendAddress,
    /// Where it runs, seen from the caller.
    pub tier: Tier,
    /// The model's licence.
    pub licence: &'a LicenceId,
    /// The names of all licences that are known.
    pub licences: &'a [(LicenceId, String)],
}

/// What a backend is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Question {
    /// Which models it serves.
    Models,
    /// NIM: which model it runs.
    Metadata,
    /// NIM: under which licence.
    Licence,
    /// Ollama: where its models run.
    Tags,
}

/// The software behind a backend, as far as it tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Server {
    /// llama.cpp's server.
    LlamaCpp,
    /// vLLM.
    Vllm,
    /// NVIDIA NIM.
    Nim,
    /// Ollama.
    Ollama,
}

/// Whether an answer that names `answered` comes from the model behind `address`: its name, the same with
/// Ollama's tag, or another that the organisation declares, in which `*` stands for any text
/// (`gpt-4o-2024-*`). What looks like a date may be another version, under another licence.
#[must_use]
pub fn names_same_model(address: &BackendAddress, answered: &str) -> bool {
    let (model, answered) = (address.model.as_str(), answered.trim());
    let rest = answered.get(..model.len()).filter(|start| start.eq_ignore_ascii_case(model));
    let rest = rest.and_then(|_| answered.get(model.len()..));
    rest.is_some_and(|rest| rest.is_empty() || rest == ":latest")
        || address.served_as.iter().any(|pattern| is_like(pattern, answered))
}

/// Whether `name` is what `pattern` says, without regard to ASCII case.
fn is_like(pattern: &str, name: &str) -> bool {
    let (pattern, name) = (pattern.to_ascii_lowercase(), name.to_ascii_lowercase());
    let Some((first, rest)) = pattern.split_once('*') else { return pattern == name };
    let Some(mut name) = name.strip_prefix(first) else { return false };
    let mut parts = rest.split('*').peekable();
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return name.ends_with(part);
        }
        let Some((_, behind)) = name.split_once(part) else { return false };
        name = behind;
    }
    true
}

/// The answer to `GET /v1/models`.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Models {
    data: Vec<Listed>,
}

#[derive(Debug, Deserialize)]
struct Listed {
    id: String,
    #[serde(default)]
    owned_by: Option<String>,
    #[serde(default)]
    root: Option<String>,
}

impl Models {
    pub(super) fn server(&self) -> Option<Server> {
        self.data.iter().find_map(|model| match model.owned_by.as_deref()? {
            "llamacpp" => Some(Server::LlamaCpp),
            "vllm" => Some(Server::Vllm),
            _ => None,
        })
    }

    /// In what the list is not what is expected. A provider's list may leave out aliases: only one that
    /// the organisation runs itself, or whose software is known to list all, has to name the model.
    pub(super) fn contradiction(
        &self,
        expected: &Expected<'_>,
        server: Option<Server>,
    ) -> Option<String> {
        let lists_all = expected.tier != Tier::Remote || server.is_some();
        let address = expected.address;
        let names_it = |listed: &Listed| {
            names_same_model(address, &listed.id)
                || listed.root.as_ref().is_some_and(|root| names_same_model(address, root))
        };
        if !lists_all || self.data.is_empty() || self.data.iter().any(names_it) {
            return None;
        }
        let names: Vec<&str> = self.data.iter().map(|one| one.id.as_str()).take(8).collect();
        Some(format!("it serves `{}`, not `{}`", names.join("`, `"), address.model))
    }
}

/// The answer to Ollama's `GET /api/tags`.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Tags {
    models: Vec<Tag>,
}

#[derive(Debug, Deserialize)]
struct Tag {
    name: String,
    #[serde(default)]
    remote_model: Option<String>,
    #[serde(default)]
    remote_host: Option<String>,
}

impl Tags {
    /// Whether the model that is said to run here runs elsewhere: Ollama passes calls of its cloud
    /// models on.
    pub(super) fn contradiction(&self, expected: &Expected<'_>) -> Option<String> {
        let address = expected.address;
        if expected.tier == Tier::Remote {
            return None;
        }
        let tagged = self.models.iter().find(|tag| names_same_model(address, &tag.name));
        let host = tagged.and_then(|tag| {
            tag.remote_host
                .as_deref()
                .or(tag.remote_model.as_deref())
                .filter(|host| !host.is_empty())
        });
        let by_name = ["-cloud", ":cloud"].iter().any(|end| address.model.ends_with(end));
        match (host, by_name) {
            (Some(host), _) => Some(format!(
                "`{}` is a cloud model that runs at `{host}`, not here",
                address.model
            )),
            (None, true) => Some(format!(
                "`{}` is a cloud model of Ollama, not one that runs here",
                address.model
            )),
            (None, false) => None,
        }
    }
}

/// The answer to NIM's `GET /v1/metadata`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Metadata {
    model_info: Vec<ModelInfo>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ModelInfo {
    #[serde(default)]
    short_name: String,
    #[serde(default)]
    model_url: String,
}

impl Metadata {
    pub(super) fn contradiction(&self, expected: &Expected<'_>) -> Option<String> {
        let address = expected.address;
        // NIM's names have a profile behind them: `llama-3.1-8b-instruct:hf-1234`.
        let expected_names: Vec<&String> =
            std::iter::once(&address.model).chain(&address.served_as).collect();
        let own = |name: &str| {
            let last = name.rsplit('/').next().unwrap_or(name);
            last.split(':').next().unwrap_or(last).to_ascii_lowercase()
        };
        let is_expected = |info: &ModelInfo| {
            expected_names
                .iter()
                .any(|name| own(name) == own(&info.short_name) || own(name) == own(&info.model_url))
        };
        if self.model_info.is_empty() || self.model_info.iter().any(is_expected) {
            return None;
        }
        let names: Vec<&str> =
            self.model_info.iter().map(|info| info.short_name.as_str()).collect();
        Some(format!("it runs `{}`, not `{}`", names.join("`, `"), address.model))
    }
}

/// The answer to NIM's `GET /v1/license`.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Licensed {
    #[serde(default)]
    name: String,
    #[serde(default)]
    content: String,
}

impl Licensed {
    /// A text that names licences which are known, and not the model's, contradicts the catalogue.
    pub(super) fn contradiction(&self, expected: &Expected<'_>) -> Option<String> {
        let text = words(&format!("{} {}", self.name, self.content));
        let is_named = |name: &str| {
            let name = words(name);
            !name.is_empty() && text.contains(&name)
        };
        let found: Vec<_> = expected.licences.iter().filter(|(_, name)| is_named(name)).collect();
        if found.is_empty() || found.iter().any(|(id, _)| id == expected.licence) {
            return None;
        }
        let names: Vec<&str> = found.iter().map(|(_, name)| name.as_str()).collect();
        Some(format!("its licence is `{}`, not `{}`", names.join("`, `"), expected.licence))
    }
}

/// A text as words that can be looked for in another: small letters, no brackets, no filling.
fn words(text: &str) -> String {
    let text = match text.split_once('(') {
        Some((before, _)) if text.len() < 100 => before,
        _ => text,
    };
    let separated = text.to_lowercase();
    let words = separated
        .split(|c: char| !c.is_alphanumeric() && c != '.')
        .map(|word| word.trim_matches('.'));
    let filling = ["", "the", "version", "agreement"];
    let words: Vec<&str> = words.filter(|word| !filling.contains(word)).collect();
    format!(" {} ", words.join(" ")).replace("  ", "")
}

/// How many requests wait in a backend's queue, from its metrics in Prometheus's text format: those of
/// vLLM, of NIM, which is built on it, or of llama.cpp.
pub(super) fn waiting(metrics: &str) -> Option<u64> {
    let names = ["vllm:num_requests_waiting", "num_requests_waiting", "llamacpp:requests_deferred"];
    let mut found = None;
    for line in metrics.lines() {
        let name = line.split(['{', ' ']).next().unwrap_or_default();
        if !names.contains(&name) {
            continue;
        }
        let value = line.rsplit('}').next().unwrap_or(line).split_whitespace();
        let value = value.filter_map(|text| text.parse::<f64>().ok()).find(|value| *value >= 0.0);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a count, written as a float; what is too large is as large as can be"
        )]
        let value = value.map(|value| value as u64);
        if let Some(value) = value {
            found = Some(found.unwrap_or(0_u64).saturating_add(value));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::{BreakerSettings, Timeouts};

    fn address(model: &str) -> BackendAddress {
        BackendAddress {
            base_url: "http://127.0.0.1:9/v1".parse().unwrap(),
            model: model.to_owned(),
            served_as: ["meta/llama-3.1-8b-instruct", "gpt-4o-2024-*", "a*b*c"]
                .map(str::to_owned)
                .into(),
            api: None,
            usage_in_streams: true,
            key: None,
            ca_file: None,
            timeouts: Timeouts::default(),
            breaker: BreakerSettings::default(),
            probe_interval: None,
            tenant: None,
            max_waiting: None,
        }
    }

    fn expecting<T>(tier: Tier, model: &str, check: impl FnOnce(&Expected<'_>) -> T) -> T {
        let licences = [
            ("LicenseRef-llama-3.1".into(), "Llama 3.1 Community License Agreement".to_owned()),
            ("Apache-2.0".into(), "Apache License 2.0".to_owned()),
            ("MIT".into(), "MIT License".to_owned()),
        ];
        let (address, licence) = (address(model), "LicenseRef-llama-3.1".into());
        check(&Expected { address: &address, tier, licence: &licence, licences: &licences })
    }

    #[test]
    fn a_model_is_known_by_its_names_and_no_other() {
        let gpt = address("gpt-4o");
        for same in [
            "gpt-4o",
            "GPT-4o",
            "gpt-4o-2024-08-06",
            "GPT-4o-2024-08-06",
            "gpt-4o:latest",
            "abc",
            "a-b-bc",
            "meta/llama-3.1-8b-instruct",
        ] {
            assert!(names_same_model(&gpt, same), "{same}");
        }
        for other in [
            "gpt-4o-mini",
            "gpt-4",
            "",
            "gpt-4o-",
            "gpt-4o-1",
            "gpt-4o-2025-01-01",
            "gpt-4o-0806",
            "x-gpt-4o-2024-08-06",
            "a-c-b",
            "ab",
            "b-a-b-c",
            "x/gpt-4o",
            "gpt-4o:7b",
            "llama-3.1-8b-instruct",
        ] {
            assert!(!names_same_model(&gpt, other), "{other}");
        }
    }

    #[test]
    fn a_list_must_hold_the_model_where_it_holds_all() {
        let list: Models = serde_json::from_str(
            r#"{"object":"list","data":[{"id":"qwen3-8b","owned_by":"vllm","root":"Qwen/Qwen3-8B"}]}"#,
        )
        .unwrap();
        assert_eq!(list.server(), Some(Server::Vllm));
        let found = |tier, model, server| expecting(tier, model, |e| list.contradiction(e, server));
        assert_eq!(found(Tier::HybridGpu, "qwen3-8b", None), None);
        assert_eq!(found(Tier::HybridGpu, "Qwen/Qwen3-8B", None), None);
        let other = found(Tier::HybridGpu, "qwen3-32b", None).unwrap();
        assert_eq!(other, "it serves `qwen3-8b`, not `qwen3-32b`");
        assert_eq!(found(Tier::Remote, "qwen3-32b", None), None);
        assert!(found(Tier::Remote, "qwen3-32b", Some(Server::Vllm)).is_some());
    }

    #[test]
    fn a_local_model_of_ollama_may_be_in_the_cloud() {
        let tags: Tags = serde_json::from_str(
            r#"{"models":[{"name":"gpt-oss:120b-cloud","remote_model":"gpt-oss:120b","remote_host":"https://ollama.com:443"},
                {"name":"llama3.2:latest"}]}"#,
        )
        .unwrap();
        let found = |tier, model| expecting(tier, model, |e| tags.contradiction(e));
        assert!(found(Tier::OnDevice, "gpt-oss:120b-cloud").unwrap().contains("ollama.com"));
        assert!(found(Tier::OnDevice, "qwen3-coder:480b-cloud").is_some());
        assert_eq!(found(Tier::Remote, "gpt-oss:120b-cloud"), None);
        assert_eq!(found(Tier::OnDevice, "llama3.2"), None);
    }

    #[test]
    fn nim_says_its_model_and_its_licence() {
        let metadata: Metadata = serde_json::from_str(
            r#"{"version":"2.0","modelInfo":[{"shortName":"llama-3.1-8b-instruct:hf-1d54af3","modelUrl":"ngc://nim/meta/llama-3.1-8b-instruct:hf-1d54af3"}]}"#,
        )
        .unwrap();
        let found = |model| expecting(Tier::HybridGpu, model, |e| metadata.contradiction(e));
        assert_eq!(found("meta/llama-3.1-8b-instruct"), None);
        let mut other = address("meta/llama-3.3-70b-instruct");
        other.served_as.clear();
        let licence = "MIT".into();
        let expected =
            Expected { address: &other, tier: Tier::HybridGpu, licence: &licence, licences: &[] };
        assert!(metadata.contradiction(&expected).is_some());

        let says = |text: &str| {
            let licensed = Licensed { name: "LICENSE".to_owned(), content: text.to_owned() };
            expecting(Tier::HybridGpu, "m", |e| licensed.contradiction(e))
        };
        assert_eq!(says("NVIDIA AI Product Agreement. All rights reserved."), None);
        assert_eq!(
            says("Additional: Llama 3.1 Community License Agreement. Apache License, Version 2.0"),
            None
        );
        let other =
            says("Licensed under the Apache License, Version 2.0 (the \"License\")").unwrap();
        assert_eq!(other, "its licence is `Apache License 2.0`, not `LicenseRef-llama-3.1`");
        assert_eq!(says("You must permit licensees…"), None);
    }

    #[test]
    fn a_queue_is_read_from_whoever_tells_it() {
        let vllm = "# HELP vllm:num_requests_waiting x\nvllm:num_requests_running{model_name=\"a\"} 4.0\n\
                    vllm:num_requests_waiting{engine=\"0\",model_name=\"a b\"} 3.0\nvllm:num_requests_waiting{engine=\"1\"} 2.0\n";
        assert_eq!(waiting(vllm), Some(5));
        assert_eq!(waiting("llamacpp:requests_deferred 7\n"), Some(7));
        assert_eq!(waiting("num_requests_waiting{model=\"x\"} 1\n"), Some(1));
        assert_eq!(waiting("up 1\n"), None);
        assert_eq!(waiting("num_requests_waiting NaN\n"), None);
    }
}
