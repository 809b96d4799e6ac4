//! Signed notes, and what stands in them: whatever reads is printed as the same bytes.
#![no_main]

use lexgate::ledger::{Checkpoint, Note, NoteSignature, TlogProof, VerifierKey};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(note) = Note::parse(text) {
        assert_eq!(note.to_string(), text);
        if let Ok(checkpoint) = Checkpoint::read(&note) {
            // Lines may follow that are not read.
            assert!(note.text().starts_with(&checkpoint.to_string()));
        }
    }
    if let Ok(notes) = Note::parse_all(text) {
        let printed: Vec<String> = notes.iter().map(ToString::to_string).collect();
        let printed = printed.join("\n");
        // The empty line may also follow the last note.
        assert!(text == printed || text.strip_suffix('\n') == Some(printed.as_str()));
    }
    if let Ok(signature) = text.parse::<NoteSignature>() {
        assert_eq!(signature.to_string(), format!("{text}\n"));
    }
    if let Ok(key) = text.parse::<VerifierKey>() {
        assert_eq!(key.to_string(), text);
    }
    if let Ok(proof) = text.parse::<TlogProof>() {
        let printed = proof.to_string();
        // A line `extra …` is passed over.
        assert!(printed == text || text.contains("\nextra "));
        assert_eq!(printed.parse::<TlogProof>(), Ok(proof));
    }
});
