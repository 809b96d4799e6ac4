//! One probe of one backend: who it is, how it is, and how much waits in its queue. It sends no data
//! of anybody.

use std::time::Duration;

use bytes::Bytes;
use serde::de::DeserializeOwned;

use super::{
    OpenAiClient, SendError,
    health::{Contradiction, Probed},
    identity::{Expected, Licensed, Metadata, Models, Question, Server, Tags, waiting},
};
use crate::domain::Tier;

/// How long each question may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// Asks the backend that `expected` describes.
pub(super) async fn probe(client: &OpenAiClient, expected: &Expected<'_>) -> Probed {
    let base = expected.address.base_url.as_str();
    let root = base.strip_suffix("/v1").unwrap_or(base);
    let get = async |url: String| client.get(expected.address, &url, PATIENCE).await;
    let is_own = expected.tier != Tier::Remote;
    let own = async |url: String| {
        if is_own { get(url).await.ok() } else { None }
    };
    let (listed, version, metadata) = tokio::join!(
        get(format!("{base}/models")),
        own(format!("{root}/api/version")),
        own(format!("{base}/metadata")),
    );
    let Some(reached) = reachability(&listed) else {
        // Without its key nothing is asked, and nothing is known.
        return Probed { is_well: true, ..Probed::default() };
    };
    let unlisted = complaint(&listed);
    let models = listed.ok().and_then(read::<Models>);
    let metadata = metadata.and_then(read::<Metadata>);
    let is_ollama = version.and_then(read::<Version>).is_some();
    let server = match &models {
        _ if metadata.is_some() => Some(Server::Nim),
        _ if is_ollama => Some(Server::Ollama),
        Some(models) => models.server(),
        None => None,
    };
    let (licensed, tags) = match server {
        Some(Server::Nim) => (own(format!("{base}/license")).await, None),
        Some(Server::Ollama) => (None, own(format!("{root}/api/tags")).await),
        _ => (None, None),
    };
    let licensed = licensed.and_then(read::<Licensed>);
    let tags = tags.and_then(read::<Tags>);
    let answers = [
        (Question::Models, models.map(|models| models.contradiction(expected, server))),
        (Question::Metadata, metadata.map(|metadata| metadata.contradiction(expected))),
        (Question::Licence, licensed.map(|licensed| licensed.contradiction(expected))),
        (Question::Tags, tags.map(|tags| tags.contradiction(expected))),
    ];
    let mut probed = Probed { server, ..Probed::default() };
    for (question, answer) in answers {
        let Some(answer) = answer else { continue };
        probed.answered.insert(question);
        let said = answer.map(|reason| Contradiction { question, server, reason });
        probed.contradiction = probed.contradiction.or(said);
    }
    let health = match server {
        Some(Server::LlamaCpp | Server::Vllm) => Some(format!("{root}/health")),
        Some(Server::Nim) => Some(format!("{base}/health/ready")),
        Some(Server::Ollama) | None => None,
    };
    if let Some(url) = health {
        let answer = get(url).await;
        probed.complaint = complaint(&answer);
        let status = answer.map(|(status, _)| status);
        probed.says_unwell = matches!(status, Ok(500..));
        probed.is_well = matches!(status, Ok(..500));
    } else {
        probed.complaint = unlisted;
        probed.is_well = reached;
    }
    probed.waiting = queue(client, expected, server).await;
    probed
}

/// Whether it answered at all; `None` when it could not be asked.
fn reachability(listed: &Result<(u16, Bytes), SendError>) -> Option<bool> {
    match listed {
        Ok((status, _)) => Some(*status < 500),
        Err(SendError::NoKey(_)) => None,
        Err(_) => Some(false),
    }
}

/// What is wrong with an answer, for the log.
fn complaint(answer: &Result<(u16, Bytes), SendError>) -> Option<String> {
    match answer {
        Ok((status, _)) => (*status >= 500).then(|| format!("it answers with {status}")),
        Err(error) => Some(error.to_string()),
    }
}

/// How much waits in its queue, where somebody wants to know.
async fn queue(
    client: &OpenAiClient,
    expected: &Expected<'_>,
    server: Option<Server>,
) -> Option<u64> {
    expected.address.max_waiting?;
    let base = expected.address.base_url.as_str();
    let root = base.strip_suffix("/v1").unwrap_or(base);
    let metrics = match server {
        Some(Server::Nim) => format!("{base}/metrics"),
        _ => format!("{root}/metrics"),
    };
    let (status, text) = client.get(expected.address, &metrics, PATIENCE).await.ok()?;
    (status == 200).then(|| waiting(&String::from_utf8_lossy(&text)))?
}

/// The answer to Ollama's `GET /api/version`.
#[derive(serde::Deserialize)]
struct Version {
    #[serde(rename = "version")]
    _version: String,
}

fn read<T: DeserializeOwned>((status, body): (u16, Bytes)) -> Option<T> {
    (status == 200).then(|| serde_json::from_slice(&body).ok())?
}
