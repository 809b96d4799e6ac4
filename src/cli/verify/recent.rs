//! The last few of something that is dear to make.

use std::collections::VecDeque;

/// Keeps what was used last.
#[derive(Debug)]
pub(super) struct Recent<K, V> {
    most: usize,
    /// The one that was used last is the last.
    kept: VecDeque<(K, V)>,
}

impl<K: Clone + PartialEq, V: Clone> Recent<K, V> {
    /// Keeps `most` of them.
    pub(super) const fn of(most: usize) -> Self {
        Self { most, kept: VecDeque::new() }
    }

    /// What belongs to a key, made where it is not kept.
    pub(super) fn get_or_make(&mut self, key: &K, make: impl FnOnce() -> V) -> V {
        let at = self.kept.iter().position(|(known, _)| known == key);
        let (key, value) =
            at.and_then(|at| self.kept.remove(at)).unwrap_or_else(|| (key.clone(), make()));
        if self.kept.len() >= self.most {
            self.kept.pop_front();
        }
        self.kept.push_back((key, value.clone()));
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_used_are_kept() {
        let (mut recent, mut made) = (Recent::of(2), Vec::new());
        for key in [1, 2, 1, 3, 1, 2] {
            let value = recent.get_or_make(&key, || {
                made.push(key);
                key * 10
            });
            assert_eq!(value, key * 10);
        }
        assert_eq!(made, [1, 2, 3, 2]);
    }
}
