//! Which curve a key belongs to: keys in the order in which they first came, found again by their hash.

use super::keys::KeySchema;
use arrow::row::{Row, Rows};
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// For keys that are hashes already.
#[derive(Default)]
pub(super) struct AsIs(u64);

impl Hasher for AsIs {
    fn write(&mut self, _: &[u8]) {
        unreachable!("only u64 keys are stored under this hasher");
    }
    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
    fn finish(&self) -> u64 {
        self.0
    }
}

/// No further curve of this hash.
pub(super) const NONE: u32 = u32::MAX;

/// Keys in the order in which they were entered, each once.
pub(super) struct KeyIndex {
    /// Hash to the first curve with it; the others follow in `next`.
    first: HashMap<u64, u32, BuildHasherDefault<AsIs>>,
    /// Curves of a hash that is another's, too; few or none, so that they are not worth a number for every curve.
    next: HashMap<u32, u32, BuildHasherDefault<AsIs>>,
    pub keys: Rows,
}

impl KeyIndex {
    pub fn new(schema: &KeySchema) -> KeyIndex {
        KeyIndex { first: HashMap::default(), next: HashMap::default(), keys: schema.no_keys() }
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.keys.num_rows()
    }

    /// The curve of a key, a new one where the key is.
    pub fn enter(&mut self, key: Row, hash: u64) -> u32 {
        let (known, last) = self.search(key, hash);
        if known != NONE {
            return known;
        }
        let new = self.keys.num_rows() as u32;
        if last == NONE {
            self.first.insert(hash, new);
        } else {
            self.next.insert(last, new);
        }
        self.keys.push(key);
        new
    }

    /// The curve of a key, and the last one of those with its hash that are not.
    fn search(&self, key: Row, hash: u64) -> (u32, u32) {
        let mut last = NONE;
        let mut candidate = self.first.get(&hash).copied().unwrap_or(NONE);
        while candidate != NONE {
            if self.keys.row(candidate as usize).data() == key.data() {
                return (candidate, last);
            }
            last = candidate;
            candidate = self.next.get(&candidate).copied().unwrap_or(NONE);
        }
        (NONE, last)
    }
}
