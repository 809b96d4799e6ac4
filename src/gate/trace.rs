//! What traces and metrics say of a call: that it was decided, and each attempt at a backend. Names and
//! numbers of the catalogue and the ledger; never what a call says, nor about whom.
//!
//! Attributes: OpenTelemetry's semantic conventions for generative AI, client spans.

use std::time::Instant;

use tracing::{Span, field::Empty, info_span};

use super::{Gate, GateError, ModelCall, Recorded, outcome::Answered};
use crate::{
    dispatch::Endpoint,
    domain::{Candidate, DeploymentId},
    facts::BackendAddress,
    ledger::{AttemptFailure, OutcomeStatus},
    telemetry::{TARGET, Trace, TraceContext, fail},
};

/// A warning about a call in the log: whose it is and which decision it rests on stand in each.
macro_rules! warn_of {
    ($recorded:expr, $($said:tt)+) => {{
        let recorded: &$crate::gate::Recorded = $recorded;
        tracing::warn!(
            app = %recorded.body.caller.app,
            key = %recorded.body.caller.key,
            decision = %recorded.id,
            seq = %recorded.seq,
            $($said)+
        );
    }};
}
pub(super) use warn_of;

/// Awaits a decision inside a span of its own, a child of `parent`.
pub(super) async fn decide(
    parent: &Span,
    deciding: impl Future<Output = Result<Recorded, GateError>>,
) -> Result<Recorded, GateError> {
    let span = info_span!(
        target: TARGET,
        parent: parent,
        "decide",
        lexgate.decision = Empty,
        lexgate.decision.id = Empty,
        lexgate.record = Empty,
    );
    let recorded = deciding.await?;
    if !span.is_disabled() {
        span.record("lexgate.decision", recorded.body.decision.as_str());
        span.record("lexgate.decision.id", recorded.id.to_string());
        span.record("lexgate.record", number(recorded.seq.get()));
    }
    Ok(recorded)
}

/// The same for decisions that are made at once.
pub(super) async fn decide_all(
    parent: &Span,
    deciding: impl Future<Output = Result<Vec<Recorded>, GateError>>,
) -> Result<Vec<Recorded>, GateError> {
    let span = info_span!(target: TARGET, parent: parent, "decide", lexgate.decisions = Empty);
    let recorded = deciding.await?;
    span.record("lexgate.decisions", number(recorded.len()));
    Ok(recorded)
}

/// One attempt at a deployment, as others see it from outside. It is under way until it is dropped.
#[derive(Debug)]
pub(super) struct Attempting {
    deployment: DeploymentId,
    started: Instant,
    span: Span,
    trace: Trace,
}

/// Begins an attempt of `call` at the deployment of `candidate`, which is at `address`.
pub(super) fn attempt(
    gate: &Gate,
    call: &ModelCall,
    candidate: &Candidate,
    address: &BackendAddress,
) -> Attempting {
    let deployment = candidate.deployment.clone();
    metrics::gauge!("lexgate_in_flight", "deployment" => deployment.to_string()).increment(1.0);
    let operation = operation(call.endpoint);
    // It was found in the catalogue, so it is nothing that somebody just typed.
    let model = call.request.deployment.as_ref().or(call.request.model.as_ref());
    let model = model.map_or("", String::as_str);
    let host = address.base_url.host();
    let span = info_span!(
        target: TARGET,
        parent: call.trace.span(),
        "attempt",
        otel.name = format!("{operation} {model}"),
        otel.kind = "client",
        otel.status_code = Empty,
        gen_ai.operation.name = operation,
        gen_ai.provider.name = provider(gate, host, &deployment),
        gen_ai.request.model = model,
        gen_ai.response.model = Empty,
        gen_ai.usage.input_tokens = Empty,
        gen_ai.usage.output_tokens = Empty,
        server.address = host,
        server.port = address.base_url.port().map(i64::from),
        "error.type" = Empty,
        lexgate.deployment = deployment.as_str(),
        lexgate.tier = candidate.tier.as_str(),
    );
    Attempting { deployment, started: Instant::now(), span, trace: call.trace.clone() }
}

impl Attempting {
    /// Where it is.
    pub(super) fn deployment(&self) -> &DeploymentId {
        &self.deployment
    }

    /// What the backend is told of the trace.
    pub(super) fn context(&self) -> Option<TraceContext> {
        self.trace.onward(&self.span)
    }

    /// Notes that the answer begins.
    pub(super) fn began(&self) {
        let elapsed = self.started.elapsed().as_secs_f64();
        let deployment = self.deployment.to_string();
        metrics::histogram!("lexgate_attempt_seconds", "deployment" => deployment).record(elapsed);
    }

    /// Notes how it ended: the outcome, the backend's HTTP status and why it failed, where there were
    /// such, and what the answer says of itself.
    pub(super) fn ended(
        &self,
        outcome: OutcomeStatus,
        status: Option<u16>,
        failure: Option<AttemptFailure>,
        answered: &Answered,
    ) {
        let failed = (outcome != OutcomeStatus::Ok).then_some(outcome.as_str());
        let failure = failure.map(AttemptFailure::as_str).or(failed);
        let mut labels = vec![("deployment", self.deployment.to_string())];
        labels.extend(status.map(|status| ("status", status.to_string())));
        labels.extend(failure.map(|failure| ("failure", failure.to_owned())));
        metrics::counter!("lexgate_attempts_total", &labels).increment(1);
        let tokens = [("input", answered.tokens.input), ("output", answered.tokens.output)];
        for (direction, tokens) in tokens {
            let Some(tokens) = tokens else { continue };
            let deployment = self.deployment.to_string();
            metrics::counter!("lexgate_tokens_total", "deployment" => deployment, "direction" => direction)
                .increment(tokens);
            self.span.record(&*format!("gen_ai.usage.{direction}_tokens"), number(tokens));
        }
        if let Some(model) = answered.model.as_deref().filter(|model| is_name(model)) {
            self.span.record("gen_ai.response.model", model);
        }
        let refused = status.filter(|status| *status >= 400).map(|status| status.to_string());
        if let Some(why) = refused.as_deref().or(failure) {
            fail(&self.span, why);
        }
    }
}

impl Drop for Attempting {
    fn drop(&mut self) {
        let deployment = self.deployment.to_string();
        metrics::gauge!("lexgate_in_flight", "deployment" => deployment).decrement(1.0);
        // A span ends when it was last entered: a request lasts as long as its answer, which may still be
        // streamed when its handler has long returned.
        self.trace.span().in_scope(|| ());
    }
}

/// The conventions' name of what is asked.
const fn operation(endpoint: Endpoint) -> &'static str {
    match endpoint {
        Endpoint::Completions => "text_completion",
        Endpoint::Embeddings => "embeddings",
        Endpoint::ChatCompletions | Endpoint::Responses | Endpoint::Messages => "chat",
        Endpoint::CountTokens => "count_tokens",
    }
}

/// The conventions' name of whom `host` belongs to, else the deployment's operator.
fn provider(gate: &Gate, host: &str, deployment: &DeploymentId) -> String {
    let known = PROVIDERS.into_iter().find(|(domain, _)| {
        let before = host.strip_suffix(domain);
        before.is_some_and(|before| before.is_empty() || before.ends_with('.'))
    });
    if let Some((_, name)) = known {
        return name.to_owned();
    }
    let judge = gate.keeper.current();
    let row = judge.snapshot().deployment(deployment);
    row.map_or_else(|| "_OTHER".to_owned(), |row| row.operator.to_string())
}

/// Domains of the providers that the conventions name.
const PROVIDERS: [(&str, &str); 13] = [
    ("api.anthropic.com", "anthropic"),
    ("amazonaws.com", "aws.bedrock"),
    ("openai.azure.com", "azure.ai.openai"),
    ("services.ai.azure.com", "azure.ai.inference"),
    ("api.cohere.com", "cohere"),
    ("api.deepseek.com", "deepseek"),
    ("generativelanguage.googleapis.com", "gcp.gemini"),
    ("api.groq.com", "groq"),
    ("ml.cloud.ibm.com", "ibm.watsonx.ai"),
    ("api.mistral.ai", "mistral_ai"),
    ("api.openai.com", "openai"),
    ("api.perplexity.ai", "perplexity"),
    ("api.x.ai", "x_ai"),
];

/// Whether a backend's word for its model is a name: a backend could write anything there.
fn is_name(text: &str) -> bool {
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:/@+".contains(&byte);
    (1..=128).contains(&text.len()) && text.bytes().all(letter)
}

/// OpenTelemetry's integers are signed.
fn number(count: impl TryInto<i64>) -> i64 {
    count.try_into().unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_name_is_taken_for_a_model() {
        assert!(is_name("meta-llama/Llama-3.1:8b@q4_K+x"));
        for text in ["", "good morning", "modèle", "a\nb", &"x".repeat(129)] {
            assert!(!is_name(text), "{text}");
        }
    }
}
