//! Whatever is changed in a log, its verifier finds.

use proptest::prelude::*;

use super::*;
use crate::{
    domain::Verdict,
    ledger::{
        Commitment, DecisionBody, LateOutcomeBody, OutcomeBody, OutcomeStatus, PrunedBody,
        SeqRange,
        fixture::{self, Chain},
    },
};

fn verify<T: AsRef<[u8]>>(entries: &[T]) -> Result<Report, Finding> {
    let mut verifier = Verifier::new();
    for entry in entries {
        verifier.push(entry.as_ref())?;
    }
    Ok(verifier.finish())
}

/// Where something is found, which must be so.
fn place<T: AsRef<[u8]>>(entries: &[T]) -> usize {
    usize::try_from(verify(entries).unwrap_err().seq.get()).unwrap()
}

/// What is found in `chain`, which must be something, and at its end.
fn last_fault(chain: &Chain) -> ChainFault {
    let finding = verify(&chain.entries).unwrap_err();
    assert_eq!(finding.seq.get() + 1, chain.entries.len() as u64, "{finding}");
    finding.fault
}

#[test]
fn a_whole_log_is_reported() {
    let chain = Chain::example();
    let report = verify(&chain.entries).unwrap();
    assert_eq!(report.origin, Some(fixture::origin()));
    assert_eq!(report.entries, 8);
    assert_eq!(report.leaf, *chain.leaves.last().unwrap());
    assert_eq!(report.open, [Seq::new(4)], "dispatched, no outcome");
    assert_eq!(report.kinds[&Kind::Decision], 3);
    assert_eq!(report.kinds[&Kind::Other("later_kind".into())], 1);
    let (first, last) = report.span.unwrap();
    assert_eq!((last - first).get_microseconds(), 3);
    assert_eq!(verify::<&[u8]>(&[]).unwrap().entries, 0);
}

#[test]
fn pairing_is_checked() {
    let mut chain = Chain::example();
    chain.push_outcome(2);
    assert!(matches!(last_fault(&chain), ChainFault::SecondOutcome(seq) if seq.get() == 2));
    let mut chain = Chain::example();
    chain.push_outcome(1);
    assert!(matches!(last_fault(&chain), ChainFault::NoDecision(seq) if seq.get() == 1));
    let mut chain = Chain::example();
    chain.push(&Kind::Outcome, &fixture::outcome(Seq::new(8), Digest::of(b"")));
    assert!(matches!(last_fault(&chain), ChainFault::NoDecision(_)), "of itself");
    let mut chain = Chain::example();
    chain.push(&Kind::Outcome, &fixture::outcome(Seq::new(3), Digest::of(b"")));
    assert!(matches!(last_fault(&chain), ChainFault::OtherDecision(seq) if seq.get() == 3));
    let mut chain = Chain::example();
    chain.push_outcome(3);
    assert!(verify(&chain.entries).is_ok(), "a decision that is not dispatched may be reported");
}

#[test]
fn a_late_outcome_adds_once_to_one_that_says_nothing() {
    let of =
        |chain: &Chain, at: usize| DecisionRef { leaf: chain.leaves[at], seq: Seq::new(at as u64) };
    let unknown = |chain: &Chain| OutcomeBody {
        attempts: Vec::new(),
        status: OutcomeStatus::Unknown,
        ..fixture::outcome(Seq::new(4), chain.leaves[4])
    };
    let late = |chain: &Chain, decision: usize, outcome: DecisionRef| {
        let body = fixture::outcome(Seq::new(decision as u64), chain.leaves[decision]);
        LateOutcomeBody::new(body, outcome)
    };
    let mut chain = Chain::example();
    chain.push(&Kind::Outcome, &unknown(&chain));
    let written = of(&chain, 8);
    let mut good = chain.clone();
    good.push(&Kind::LateOutcome, &late(&chain, 4, written));
    assert_eq!(verify(&good.entries).unwrap().open, [], "it has its outcome");
    let mut twice = good.clone();
    twice.push(&Kind::LateOutcome, &late(&chain, 4, written));
    let elsewhere = DecisionRef { leaf: chain.leaves[5], ..written };
    let of_another = late(&chain, 4, of(&chain, 5));
    let changed = LateOutcomeBody {
        decision: DecisionRef { leaf: chain.leaves[3], seq: Seq::new(4) },
        ..late(&chain, 4, written)
    };
    for (body, why) in [
        (late(&chain, 2, of(&chain, 5)), "which has no outcome `unknown` that it could add to"),
        (late(&chain, 4, elsewhere), "but names another leaf hash for its outcome"),
        (of_another, "but adds to another record than its outcome"),
        (changed, "but names another leaf hash for the decision"),
    ] {
        let mut chain = chain.clone();
        chain.push(&Kind::LateOutcome, &body);
        let fault = last_fault(&chain);
        assert!(matches!(fault, ChainFault::Late(_, said) if said == why), "{why}: {fault}");
    }
    let fault = last_fault(&twice);
    let why = "which has no outcome `unknown` that it could add to";
    assert!(matches!(fault, ChainFault::Late(_, said) if said == why), "{fault}");
}

#[test]
fn a_denial_has_no_outcome() {
    let mut chain = Chain::example();
    let mut denial =
        DecisionBody { decision: Verdict::Deny, route: None, ..fixture::decision(2, false, "d") };
    denial.candidates.iter_mut().for_each(|candidate| candidate.decision = Verdict::Deny);
    chain.push(&Kind::Decision, &denial);
    chain.push_outcome(8);
    assert!(matches!(last_fault(&chain), ChainFault::OfDenial(seq) if seq.get() == 8));
}

/// A decision that commits to an end user, at the end of `chain`.
fn push_committed(chain: &mut Chain, user: &[u8]) {
    let commitment = Some(Commitment::to(user, &[0; 32]));
    let decision = DecisionBody { user_commitment: commitment, ..fixture::decision(2, false, "p") };
    chain.push(&Kind::Decision, &decision);
}

fn erasure(erased: &[u64]) -> ErasureBody {
    ErasureBody {
        as_of: None,
        despite_hold: None,
        erased: erased.iter().copied().map(Seq::new).collect(),
        key: "dpo".into(),
    }
}

#[test]
fn an_erasure_is_of_what_was_committed_to_and_once() {
    let mut chain = Chain::example();
    push_committed(&mut chain, b"a");
    push_committed(&mut chain, b"b");
    chain.push(&Kind::Erasure, &erasure(&[8]));
    let report = verify(&chain.entries).unwrap();
    assert_eq!((report.committed, report.erasures), (2, vec![(Seq::new(10), 1)]));
    for (again, why) in [(8, "which were erased before"), (2, "which held none")] {
        let mut chain = chain.clone();
        chain.push(&Kind::Erasure, &erasure(&[again]));
        let fault = last_fault(&chain);
        assert!(matches!(fault, ChainFault::Erasure(_, said) if said == why), "{fault}");
    }
}

#[test]
fn what_an_outcome_commits_to_can_be_erased_too() {
    let mut chain = Chain::example();
    let said = Some(Commitment::to(b"Good morning", &[0; 32]));
    let outcome = fixture::outcome(Seq::new(4), chain.leaves[4]);
    let outcome = OutcomeBody { input_commitment: said, ..outcome };
    chain.push(&Kind::Outcome, &outcome);
    chain.push(&Kind::Erasure, &erasure(&[8]));
    let report = verify(&chain.entries).unwrap();
    assert_eq!((report.committed, report.erasures), (1, vec![(Seq::new(9), 1)]));
    // The outcome before it commits to nothing.
    chain.push(&Kind::Erasure, &erasure(&[5]));
    let fault = last_fault(&chain);
    assert!(matches!(fault, ChainFault::Erasure(_, "which held none")), "{fault}");
}

/// Reads a chain some of whose bodies have been removed.
fn verify_without(chain: &Chain, gone: &[usize]) -> Result<Report, Finding> {
    let mut verifier = Verifier::new();
    for (at, entry) in chain.entries.iter().enumerate() {
        if gone.contains(&at) {
            verifier.follow_removed(chain.leaves[at]);
        } else {
            verifier.push(entry)?;
        }
    }
    Ok(verifier.finish())
}

#[test]
fn removed_is_not_missing() {
    let pruned = |ranges: &[(u64, u64)]| PrunedBody {
        before: fixture::instant() + jiff::SignedDuration::from_hours(24 * 190),
        removed: ranges
            .iter()
            .map(|(first, last)| SeqRange { first: Seq::new(*first), last: Seq::new(*last) })
            .collect(),
    };
    let push = |chain: &mut Chain, ranges: &[(u64, u64)]| {
        let body = pruned(ranges);
        let bytes = crate::ledger::canonical::to_vec(&body).unwrap();
        chain.push_at(&Kind::SegmentPruned, &bytes, body.before);
    };
    let mut chain = Chain::example();
    push(&mut chain, &[(2, 3), (5, 5)]);
    let report = verify_without(&chain, &[2, 3, 5]).unwrap();
    assert_eq!((report.missing, report.pruned), (None, vec![(Seq::new(8), 3)]));
    assert_eq!(report.root, verify(&chain.entries).unwrap().root, "the same tree");
    let whole = verify(&chain.entries).unwrap();
    assert_eq!((whole.missing, whole.pruned), (None, vec![(Seq::new(8), 0)]), "an archive");
    assert_eq!(verify_without(&chain, &[2, 4]).unwrap().missing, Some(Seq::new(4)));
    // An outcome may stay longer than its decision.
    let report = verify_without(&chain, &[2]).unwrap();
    assert_eq!((report.missing, report.unpaired), (None, 1));
    for bad in [&[(3, 2)][..], &[(2, 9)], &[(3, 3), (3, 3)], &[(3, 3), (2, 2)]] {
        let mut chain = chain.clone();
        push(&mut chain, bad);
        assert!(matches!(last_fault(&chain), ChainFault::Pruned(_)), "{bad:?}");
    }
}

#[test]
fn what_is_remembered_is_read_as_if_it_were_new() {
    let mut chain = Chain::example();
    for _ in 0..3 {
        push_committed(&mut chain, b"a");
        chain.push(&Kind::Decision, &fixture::decision(2, true, "c"));
    }
    let mut remembering = Examiner::default();
    let (mut texts, text) = (Vec::new(), |entry: &[u8]| String::from_utf8(entry.to_vec()).unwrap());
    for entry in &chain.entries {
        texts.push(text(entry));
    }
    // The same bodies in entries that are wrong somewhere else.
    for (from, to) in [
        ("\"v\":1}", "\"v\":2}"),
        ("\"v\":1}", "\"v\":1,\"w\":1}"),
        ("\"kind\":\"decision\"", "\"kind\":\"audit_read\""),
        ("\"kind\":\"decision\"", "\"kind\":\"other\""),
        ("\"seq\":", "\"seq\": "),
        ("\"dispatch\":true", "\"dispatch\":false"),
        ("\"user_commitment\":\"", "\"user_commitment\":\"A"),
        ("{\"body\":", "{\"body\":{},\"body\":"),
    ] {
        let changed: Vec<_> = texts.iter().map(|text| text.replace(from, to)).collect();
        texts.extend(changed);
    }
    let mut known = 0;
    for text in texts {
        let again = remembering.examine(text.as_bytes());
        let afresh = Examiner::default().examine(text.as_bytes());
        assert_eq!(format!("{again:?}"), format!("{afresh:?}"), "{text}");
        known += usize::from(again.is_ok());
    }
    assert!(known > 20, "{known}");
}

#[test]
fn snapshots_are_checked() {
    let mut chain = Chain::example();
    chain.push(&Kind::Decision, &fixture::decision(1, false, "late"));
    assert!(matches!(last_fault(&chain), ChainFault::Superseded { said: 1, is: 2 }));
    let mut chain = Chain::example();
    let mut forged = fixture::decision(2, false, "forged");
    forged.snapshot.facts = Digest::of(b"other facts");
    chain.push(&Kind::Decision, &forged);
    assert!(matches!(last_fault(&chain), ChainFault::Superseded { said: 2, is: 2 }));
    let mut chain = Chain::example();
    chain.push(&Kind::BundleActivated, &fixture::activation(4));
    assert!(matches!(last_fault(&chain), ChainFault::Revision { said: 4, is: 2 }));
}

#[test]
fn envelopes_are_checked() {
    let mut chain = Chain::example();
    chain.push(&Kind::Genesis, &fixture::genesis());
    assert!(matches!(last_fault(&chain), ChainFault::Genesis(Kind::Genesis)));
    let mut chain = Chain::default();
    chain.push(&Kind::BundleActivated, &fixture::activation(1));
    assert!(matches!(last_fault(&chain), ChainFault::Genesis(Kind::BundleActivated)));
    let mut chain = Chain::example();
    chain.push_at(&Kind::parse("note").unwrap(), b"{}", fixture::instant());
    assert!(matches!(last_fault(&chain), ChainFault::Time { .. }));
    let mut chain = Chain::example();
    chain.push(&Kind::Decision, &serde_json::json!({"decision": "allow"}));
    assert!(matches!(last_fault(&chain), ChainFault::Body { kind: Kind::Decision, .. }));
    let mut chain = Chain::example();
    let mut body = serde_json::to_value(fixture::activation(3)).unwrap();
    body["zz"] = 1.into();
    chain.push(&Kind::BundleActivated, &body);
    assert!(last_fault(&chain).to_string().contains("zz"));
    let mut chain = Chain::default();
    let mut genesis = fixture::genesis();
    genesis.origin = "another.example/log".into();
    chain.push(&Kind::Genesis, &genesis);
    assert!(matches!(last_fault(&chain), ChainFault::OtherLog { .. }));
}

#[test]
fn a_finding_reads_as_a_sentence() {
    let mut entries = Chain::example().entries;
    entries.remove(3);
    assert_eq!(
        verify(&entries).unwrap_err().to_string(),
        "entry 3: says that it is entry 4: one was removed, added or moved"
    );
}

#[test]
fn another_log_cannot_be_spliced_in() {
    let chain = Chain::example();
    let mut entries = chain.entries;
    let text = String::from_utf8(entries.pop().unwrap()).unwrap();
    entries.push(text.replace(fixture::ORIGIN, "lexgate.example/other").into_bytes());
    assert!(matches!(verify(&entries).unwrap_err().fault, ChainFault::OtherLog { .. }));
}

proptest! {
    /// Any one byte: found in its entry or, where that stays an entry, by the next one's chain. A
    /// change of the last entry that leaves it an entry shows in the head's leaf hash.
    #[test]
    fn a_changed_byte_is_found(
        entry in any::<prop::sample::Index>(),
        at in any::<prop::sample::Index>(),
        byte in prop_oneof![any::<u8>(), prop::sample::select(b"0123456789abcdef".to_vec())],
    ) {
        let chain = Chain::example();
        let mut entries = chain.entries.clone();
        let entry = entry.index(entries.len());
        let at = at.index(entries[entry].len());
        prop_assume!(entries[entry][at] != byte);
        entries[entry][at] = byte;
        match verify(&entries) {
            Err(finding) => {
                let n = usize::try_from(finding.seq.get()).unwrap();
                prop_assert!(n == entry || n == entry + 1, "changed {entry}, found {finding}");
            }
            Ok(report) => {
                prop_assert_eq!(entry, entries.len() - 1);
                prop_assert_ne!(report.leaf, *chain.leaves.last().unwrap());
            }
        }
    }

    #[test]
    fn a_swap_a_removal_a_copy_and_a_lost_beginning_are_found(
        left in 0..8_usize,
        right in 0..8_usize,
    ) {
        let entries = Chain::example().entries;
        if left != right {
            let mut swapped = entries.clone();
            swapped.swap(left, right);
            prop_assert_eq!(place(&swapped), left.min(right));
        }
        if left < 7 {
            let mut removed = entries.clone();
            removed.remove(left);
            prop_assert_eq!(place(&removed), left);
        }
        let mut copied = entries.clone();
        copied.insert(left + 1, entries[left].clone());
        prop_assert_eq!(place(&copied), left + 1);
        if left > 0 {
            prop_assert_eq!(verify(&entries[left..]).unwrap_err().seq.get(), 0);
        }
    }
}
