//! Notes, checkpoints and proofs as text, beside the specification's examples and another
//! implementation.

use proptest::prelude::*;
use ring::rand::SystemRandom;
use signed_note::{Note as TheirNote, StandardVerifier, VerifierList};

use super::*;
use crate::ledger::{NoteSignature, SignatureType, SigningKey, VerifierKey};

/// The key of the Go package golang.org/x/mod/sumdb/note's example: seed, vkey, and a note.
const SEED: &str = "AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz";
const VKEY: &str = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
const SIGNED: &str = "If you think cryptography is the answer to your problem,\n\
    then you don't know what your problem is.\n\n\
    — PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";

fn neumann() -> SigningKey {
    let seed = STANDARD.decode(SEED).unwrap();
    // PKCS#8 version 1 around the 32 bytes (RFC 8410, 7).
    let mut der = vec![0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
    der.extend_from_slice(&seed[1..]);
    SigningKey::from_pkcs8(&der).unwrap()
}

fn fresh(name: &str, kind: SignatureType) -> (SigningKey, VerifierKey) {
    let key = SigningKey::generate(&SystemRandom::new()).unwrap();
    let key = SigningKey::from_pkcs8(&key).unwrap();
    let verifier = key.verifier(name, kind).unwrap();
    (key, verifier)
}

fn checkpoint(size: u64) -> Checkpoint {
    let root = Digest::of(&size.to_be_bytes());
    Checkpoint { origin: "lexgate.example/main".parse().unwrap(), size, root }
}

#[test]
fn a_note_is_signed_as_the_reference_implementation_signs_it() {
    let verifier: VerifierKey = VKEY.parse().unwrap();
    assert_eq!(verifier, neumann().verifier("PeterNeumann", SignatureType::Ed25519).unwrap());
    assert_eq!(verifier.to_string(), VKEY);
    let note = Note::parse(SIGNED).unwrap();
    assert_eq!(note.verify(std::slice::from_ref(&verifier)).unwrap(), [&verifier]);
    assert_eq!(note.signatures, [neumann().sign(&verifier, note.text())]);
    assert_eq!(note.to_string(), SIGNED);
}

/// The examples of C2SP signed-note, tlog-witness and tlog-cosignature. Their keys are not given.
#[test]
fn the_examples_of_the_specifications_are_read() {
    let note = "Ognuno sta solo sul cuor della terra\ntrafitto da un raggio di sole:\n\n\
        ed è subito sera.\n\n\
        — quasimodo.example/salvatore NnugSzTjtVAewIS+Z/iJhUPeFDkO/5QQ2i5ddnGITLlC+EhfLW9oJKONrMouFSQU0xMcXxj99ihAQwaqP3ZekRwNtIc=\n";
    let read = Note::parse(note).unwrap();
    assert!(read.text().ends_with("\n\ned è subito sera.\n"), "the last empty line separates");
    assert_eq!(read.to_string(), note);
    let cosigned = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n\
        — example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n\
        — witness.example.com/w1 jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJsX3b2oyin1nPZqhf5nNo0xUe+mbIUBkBIfZ+qnA==\n";
    let read = Note::parse(cosigned).unwrap();
    let checkpoint = Checkpoint::read(&read).unwrap();
    assert_eq!(
        (checkpoint.origin.as_str(), checkpoint.size),
        ("example.com/behind-the-sofa", 20_852_163)
    );
    assert_eq!(checkpoint.to_string(), read.text());
    let (time, _) = read.signatures[1].bytes.split_first_chunk().unwrap();
    assert_eq!(u64::from_be_bytes(*time), 1_679_315_147);
}

#[test]
fn what_is_signed_here_another_implementation_verifies() {
    let (key, verifier) = fresh("lexgate.example/main", SignatureType::Ed25519);
    for size in [0, 1, 41, 1 << 50] {
        let mut note = Note::unsigned(checkpoint(size).to_string());
        note.signatures.push(key.sign(&verifier, note.text()));
        let text = note.to_string();
        let theirs = TheirNote::from_bytes(text.as_bytes()).unwrap();
        let known = StandardVerifier::new(&verifier.to_string()).unwrap();
        let (signed, unknown) = theirs.verify(&VerifierList::new(vec![Box::new(known)])).unwrap();
        assert_eq!((signed.len(), unknown.len()), (1, 0));
        let read = tlog_tiles::Checkpoint::from_bytes(theirs.text()).unwrap();
        assert_eq!((read.origin(), read.size()), ("lexgate.example/main", size));
        assert_eq!(&read.hash().0, checkpoint(size).root.as_bytes());
        assert_eq!(Checkpoint::read(&Note::parse(&text).unwrap()).unwrap(), checkpoint(size));
    }
}

#[test]
fn unknown_signatures_are_ignored_and_forged_ones_are_not() {
    let (key, verifier) = fresh("log.example", SignatureType::Ed25519);
    let (other, stranger) = fresh("log.example", SignatureType::Ed25519);
    let (witness, seen) = fresh("witness.example", SignatureType::Cosignature);
    let mut note = Note::unsigned(checkpoint(7).to_string());
    note.signatures.push(other.sign(&stranger, note.text()));
    let known = [verifier.clone(), seen.clone()];
    assert_eq!(note.verify(&known), Err(NoteError::Unsigned));
    note.signatures.push(key.sign(&verifier, note.text()));
    assert_eq!(note.verify(&known).unwrap(), [&verifier]);
    note.signatures.push(witness.cosign(&seen, note.text(), 1_679_315_147));
    assert_eq!(note.verify(&known).unwrap(), [&verifier, &seen]);
    let again = Note::parse(&note.to_string()).unwrap();
    assert_eq!(again, note);

    // A cosignature's time is signed too.
    let mut later = note.clone();
    later.signatures[2].bytes[7] ^= 1;
    assert_eq!(later.verify(&known), Err(NoteError::Forged("witness.example".into())));
    // A witness's signature is none of a log with the same key, nor the other way round.
    let as_log = witness.verifier("witness.example", SignatureType::Ed25519).unwrap();
    let crossed = NoteSignature { key_id: as_log.id(), ..note.signatures[2].clone() };
    note.signatures = vec![crossed];
    assert_eq!(note.verify(&[as_log]), Err(NoteError::Forged("witness.example".into())));
}

#[test]
fn what_is_no_note_is_refused() {
    for (text, why) in [
        ("", "no empty line"),
        ("a\n", "no empty line"),
        ("a\n\n", "line end"),
        ("a\n\n— b AAAAAAA=", "line end"),
        ("a\n\n- b AAAAAAA=\n", "signature line"),
        ("a\n\n— b AAAAAA==\n", "signature line"),
        ("a\n\n— b+c AAAAAAA=\n", "signature line"),
        ("a\n\n— b AAAAAAA\n", "signature line"),
        ("a\n\n— b  AAAAAAA=\n", "signature line"),
        ("a\r\n\n— b AAAAAAA=\n", "control"),
    ] {
        let error = Note::parse(text).unwrap_err().to_string();
        assert!(error.contains(why), "{text:?}: {error}");
    }
    let many = format!("a\n\n{}", "— b AAAAAAA=\n".repeat(65));
    assert!(Note::parse(&many).unwrap_err().to_string().contains("64"));
    for text in
        ["a", "a+b", "a+00000000+AQ==", "+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"]
    {
        assert!(text.parse::<VerifierKey>().is_err(), "{text}");
    }
    assert!(VKEY.replace("c74f", "c74e").parse::<VerifierKey>().is_err(), "the hash must fit");
    for text in
        ["a\n7\n", "a\n07\nAAAA\n", "a b\n7\nAAAA\n", "\n7\nAAAA\n", "a\n7\nAAAA\n", "a\n-1\nA\n"]
    {
        assert!(Checkpoint::read(&Note::unsigned(text.to_owned())).is_err(), "{text:?}");
    }
}

#[test]
fn a_proof_reads_as_it_was_written() {
    let (key, verifier) = fresh("lexgate.example/main", SignatureType::Ed25519);
    let mut note = Note::unsigned(checkpoint(7).to_string());
    note.signatures.push(key.sign(&verifier, note.text()));
    let hashes = vec![Digest::of(b"a"), Digest::of(b"b")];
    for hashes in [hashes, Vec::new()] {
        let proof = TlogProof { index: 5, hashes, checkpoint: note.clone() };
        let text = proof.to_string();
        assert!(text.starts_with("c2sp.org/tlog-proof@v1\nindex 5\n"), "{text}");
        assert_eq!(text.parse(), Ok(proof.clone()));
        let extra = text.replacen("index", "extra YWJj\nindex", 1);
        assert_eq!(extra.parse(), Ok(proof), "extra data is passed over");
        for (from, to) in
            [("v1", "v2"), ("index 5", "index 05"), ("index", "place"), ("\n\n", "\nx\n\n")]
        {
            assert!(text.replacen(from, to, 1).parse::<TlogProof>().is_err(), "{to:?}");
        }
    }
}

proptest! {
    #[test]
    fn a_changed_note_is_never_verified(place in any::<prop::sample::Index>(), bit in 0_u32..8) {
        let verifier: VerifierKey = VKEY.parse().unwrap();
        let mut bytes = SIGNED.as_bytes().to_vec();
        let at = place.index(bytes.len());
        bytes[at] ^= 1_u8 << bit;
        let Ok(text) = String::from_utf8(bytes) else { return Ok(()) };
        let verified = Note::parse(&text).and_then(|note| note.verify(&[verifier]).map(|_| ()));
        prop_assert!(verified.is_err(), "{}", text);
    }
}
