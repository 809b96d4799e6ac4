//! What a call said and what was answered: committed to in the call's outcome, and kept beside it where
//! the organisation wants that. Not who the end user is (`vault`).
//!
//! All that can fail is had before the call is decided: once it is sent, its outcome must not be lost.

use std::sync::{Arc, PoisonError};

use ring::aead::NONCE_LEN;
use serde::Deserialize;

use super::{
    Gate, GateError, Opened, Vault,
    vault::{Kept, Unsealed, ValueKey, WIDTH},
};
use crate::{
    domain::{Caller, Seq, TenantId},
    facts::ContentMode,
    ledger::{Commitment, Committing, Entry},
    store::SealedValue,
};

/// The largest input, and the largest output, that is kept. What is longer is committed to all the same.
const MOST_KEPT: usize = 1 << 20;
/// In front of what is sealed: what of the content follows.
const INPUT_KEPT: u8 = 1;
const OUTPUT_KEPT: u8 = 2;

/// What a call's content is committed to with, before there is any.
#[derive(Debug)]
pub(super) struct Keeping {
    key: ValueKey,
    nonce: [u8; NONCE_LEN],
    input: [u8; WIDTH],
    output: [u8; WIDTH],
    /// Whether the content itself is kept, and not its salts alone.
    keeps: bool,
}

/// What the client is sent of an answer, as it is sent.
#[derive(Debug, Default)]
pub(super) struct Sent(Option<Output>);

#[derive(Debug)]
struct Output {
    committing: Committing,
    /// `None` when it is not to be kept, or is too long.
    kept: Option<Vec<u8>>,
    began: bool,
}

/// What an outcome says of a call's content, and the value that opens it.
#[derive(Clone, Debug, Default)]
pub(super) struct Content {
    pub(super) input: Option<Commitment>,
    pub(super) output: Option<Commitment>,
    pub(super) value: Option<Arc<SealedValue>>,
}

/// A commitment to content, opened.
#[derive(Clone, PartialEq, Eq)]
pub struct OpenedContent {
    /// The commitment in the record.
    pub commitment: Commitment,
    /// The salt with which it can be made again, by whoever has the content.
    pub salt: [u8; WIDTH],
    /// The content, where it is kept.
    pub content: Option<Vec<u8>>,
}

impl std::fmt::Debug for OpenedContent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OpenedContent")
    }
}

/// The commitments of an outcome.
#[derive(Clone, Copy, Debug)]
pub(super) struct Commitments {
    input: Option<Commitment>,
    output: Option<Commitment>,
}

impl Commitments {
    /// Whether there is none.
    pub(super) fn is_none(self) -> bool {
        self.input.is_none() && self.output.is_none()
    }
}

/// The part of an outcome, in time or late, that says what it commits to.
#[derive(Deserialize)]
struct Said {
    #[serde(default)]
    input_commitment: Option<Commitment>,
    #[serde(default)]
    output_commitment: Option<Commitment>,
}

/// What an outcome's entry commits to.
pub(super) fn committed(entry: &Entry<'_>) -> Result<Commitments, GateError> {
    let said: Said = serde_json::from_str(entry.body.get()).map_err(|_| GateError::Corrupt)?;
    Ok(Commitments { input: said.input_commitment, output: said.output_commitment })
}

impl Gate {
    /// What the content of a call of `caller` is to be committed to with; `None` when it is not. `user` is
    /// the call's end user, whose key is taken.
    pub(super) async fn keep_content(
        &self,
        caller: &Caller,
        user: Option<&Kept>,
    ) -> Result<Option<Keeping>, GateError> {
        let judge = self.keeper.current();
        let app = judge.snapshot().organisation.apps.get(&caller.app);
        let mode = app.map_or(ContentMode::None, |app| app.content);
        let vault = match (&self.vault, mode) {
            (_, ContentMode::None) | (None, ContentMode::Commitment) => return Ok(None),
            // Another process has activated an organisation with which this one would not have started.
            (None, ContentMode::Sealed) => return Err(GateError::MasterKey),
            (Some(vault), _) => vault,
        };
        let key = if let Some(user) = user {
            user.key.clone()
        } else {
            self.in_time(vault.tenant_key(&caller.tenant)).await?
        };
        let (nonce, input, output) = (vault.random()?, vault.random()?, vault.random()?);
        Ok(Some(Keeping { key, nonce, input, output, keeps: mode == ContentMode::Sealed }))
    }
}

impl Keeping {
    /// Where the answer goes on its way to the client.
    pub(super) fn sent(&self) -> Sent {
        Sent(Some(Output {
            committing: Committing::under(&self.output),
            kept: self.keeps.then(Vec::new),
            began: false,
        }))
    }

    /// Commits to what the client sent, and to what it was sent.
    pub(super) fn commit(self, input: &[u8], sent: Sent) -> Content {
        let output = sent.0.filter(|output| output.began);
        let kept = Some(input).filter(|input| self.keeps && input.len() <= MOST_KEPT);
        let answer = output.as_ref().and_then(|output| output.kept.as_deref());
        let text = written(&self.input, &self.output, kept, answer);
        let value = self.key.seal(&text, self.nonce);
        if let Err(error) = &value {
            tracing::error!(%error, "an outcome is written without what it commits to");
        }
        Content {
            input: Some(Commitment::to(input, &self.input)),
            output: output.map(|output| output.committing.end()),
            value: value.ok().map(Arc::new),
        }
    }
}

impl Sent {
    /// Takes what was handed to the client's connection.
    pub(super) fn add(&mut self, bytes: &[u8]) {
        let Some(Output { committing, kept, began }) = &mut self.0 else { return };
        *began = true;
        committing.add(bytes);
        if kept.as_ref().is_some_and(|kept| kept.len() + bytes.len() > MOST_KEPT) {
            *kept = None;
        }
        if let Some(kept) = kept {
            kept.extend_from_slice(bytes);
        }
    }
}

impl Vault {
    /// The key of what belongs to no person that a call names. Nobody's erasure destroys it.
    async fn tenant_key(&self, tenant: &TenantId) -> Result<ValueKey, GateError> {
        let known = || self.tenants.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(key) = known().get(tenant) {
            return Ok(key.clone());
        }
        let key = self.key_of(self.master.tenant(tenant)).await?;
        known().insert(tenant.clone(), key.clone());
        Ok(key)
    }

    /// The content to which the outcome at `seq` commits.
    pub(super) async fn open_content(
        &self,
        seq: Seq,
        commitments: Commitments,
    ) -> Result<Opened, GateError> {
        let text = match self.unseal(seq).await? {
            Unsealed::Text(text) => text,
            Unsealed::Gone(gone) => return Ok(gone),
        };
        let Read { salts: [input, output], contents: [asked, answered] } =
            read(&text).ok_or(GateError::Corrupt)?;
        Ok(Opened::Content {
            input: opened(commitments.input, input, asked)?,
            output: opened(commitments.output, output, answered)?,
        })
    }
}

fn opened(
    commitment: Option<Commitment>,
    salt: [u8; WIDTH],
    content: Option<&[u8]>,
) -> Result<Option<OpenedContent>, GateError> {
    let Some(commitment) = commitment else { return Ok(None) };
    if content.is_some_and(|content| Commitment::to(content, &salt) != commitment) {
        return Err(GateError::Corrupt);
    }
    Ok(Some(OpenedContent { commitment, salt, content: content.map(<[u8]>::to_vec) }))
}

/// What is sealed: a byte that says what of the content follows, the salts of input and output, the
/// input's length in four bytes and the input, the output.
fn written(
    input_salt: &[u8; WIDTH],
    output_salt: &[u8; WIDTH],
    input: Option<&[u8]>,
    output: Option<&[u8]>,
) -> Vec<u8> {
    let length = input.map(|input| u32::try_from(input.len()).unwrap_or(u32::MAX).to_be_bytes());
    let kept = input.map_or(0, |_| INPUT_KEPT) | output.map_or(0, |_| OUTPUT_KEPT);
    [
        &[kept][..],
        input_salt,
        output_salt,
        length.as_ref().map_or(&[], <[u8; 4]>::as_slice),
        input.unwrap_or_default(),
        output.unwrap_or_default(),
    ]
    .concat()
}

/// What was sealed, taken apart: of input and output each.
struct Read<'t> {
    salts: [[u8; WIDTH]; 2],
    contents: [Option<&'t [u8]>; 2],
}

/// Reads what [`written`] wrote.
fn read(text: &[u8]) -> Option<Read<'_>> {
    let ([kept], text) = text.split_first_chunk::<1>()?;
    let (input_salt, text) = text.split_first_chunk::<WIDTH>()?;
    let (output_salt, mut text) = text.split_first_chunk::<WIDTH>()?;
    let mut input = None;
    if kept & INPUT_KEPT != 0 {
        let (length, rest) = text.split_first_chunk::<4>()?;
        let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
        let (kept, rest) = rest.split_at_checked(length)?;
        (input, text) = (Some(kept), rest);
    }
    let output = (kept & OUTPUT_KEPT != 0).then_some(text);
    Some(Read { salts: [*input_salt, *output_salt], contents: [input, output] })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_is_read_again() {
        let salts = [[1; WIDTH], [2; WIDTH]];
        let (asked, answered) = (Some(&b"Guten Morgen"[..]), Some(&b"\xff\x00"[..]));
        for contents in
            [[None, None], [asked, None], [None, answered], [asked, answered], [Some(&b""[..]); 2]]
        {
            let text = written(&salts[0], &salts[1], contents[0], contents[1]);
            let found = read(&text).unwrap();
            assert_eq!((found.salts, found.contents), (salts, contents));
        }
        let text = written(&salts[0], &salts[1], asked, None);
        assert!(read(&text[..text.len() - 1]).is_none(), "cut off");
        assert!(read(&[]).is_none());
    }
}
