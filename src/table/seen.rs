//! Which keys came before, in little memory: a set of hashes that takes eight to ten bytes for each.
//!
//! In: 64-bit hashes. Out: whether one is new. Most of the memory of a run over very many curves is here, so that a table
//! of powers of two, which takes nine to eighteen bytes and half as much again while it grows, would be felt.

/// As many as the 14 upper bits of a hash choose from: few enough that where they lie stays in the second-level cache.
const TABLES: usize = 1 << 14;
/// The lower 48 bits of a hash; [`EMPTY`] where there is none. Two bits are not looked at.
type Slot = [u16; 3];
const EMPTY: Slot = [0; 3];

/// A set of hashes; nothing is ever taken out.
#[derive(Debug, Default)]
pub(super) struct Seen {
    tables: Vec<Table>,
}

/// Open addressing; at most four fifths of the slots are taken: a hash that is new passes a dozen of them at worst, on average, and
/// at seven eighths three dozen.
#[derive(Debug, Default, Clone)]
struct Table {
    slots: Box<[Slot]>,
    taken: usize,
}

impl Seen {
    /// Adds a hash; false where it was there before.
    pub fn insert(&mut self, hash: u64) -> bool {
        if self.tables.is_empty() {
            self.tables.resize(TABLES, Table::default());
        }
        self.tables[(hash >> 50) as usize].insert(slot_of(hash))
    }

    /// Brings into the cache what the next calls of [`Seen::insert`] will look at: side by side, where each would wait for
    /// memory by itself.
    pub fn expect(&self, hashes: &[u64]) {
        if self.tables.is_empty() {
            return;
        }
        let mut looked_at = 0;
        for &hash in hashes {
            let table = &self.tables[(hash >> 50) as usize];
            looked_at |= table.slots.get(table.home(slot_of(hash))).map_or(0, |slot| slot[0]);
        }
        std::hint::black_box(looked_at);
    }
}

fn slot_of(hash: u64) -> Slot {
    let slot = [hash as u16, (hash >> 16) as u16, (hash >> 32) as u16];
    // One value stands for emptiness; the hash next to it stands in.
    if slot == EMPTY { [1, 0, 0] } else { slot }
}

impl Table {
    fn insert(&mut self, slot: Slot) -> bool {
        if self.taken + 1 > self.slots.len() / 5 * 4 {
            // A quarter more at a time: memory follows the number of keys, and a table is small enough to be moved often.
            let length = self.slots.len() + (self.slots.len() / 32 * 8).max(16);
            let old = std::mem::replace(&mut self.slots, vec![EMPTY; length].into());
            for known in old.into_iter().filter(|known| *known != EMPTY) {
                let place = self.place(known);
                self.slots[place] = known;
            }
        }
        let place = self.place(slot);
        if self.slots[place] == slot {
            return false;
        }
        self.slots[place] = slot;
        self.taken += 1;
        true
    }

    /// Where to begin to look for a value.
    fn home(&self, slot: Slot) -> usize {
        let spread = u64::from(slot[0]) | u64::from(slot[1]) << 16;
        ((spread * self.slots.len() as u64) >> 32) as usize
    }

    /// Where a value is, or else belongs.
    fn place(&self, slot: Slot) -> usize {
        let length = self.slots.len();
        let mut place = self.home(slot);
        while self.slots[place] != EMPTY && self.slots[place] != slot {
            place = if place + 1 == length { 0 } else { place + 1 };
        }
        place
    }
}

#[cfg(test)]
mod tests {
    use super::super::keys::hash;
    use super::*;
    use std::collections::HashSet;

    /// Bytes for each of a million hashes.
    const MOST_BYTES: usize = 10;

    #[test]
    fn a_hash_is_new_once_and_takes_few_bytes() {
        const COUNT: usize = 1_000_000;
        let (mut seen, mut known) = (Seen::default(), HashSet::new());
        for round in 0..2 {
            for number in 0..COUNT as u64 {
                let hash = hash(&number.to_le_bytes());
                assert_eq!(seen.insert(hash), known.insert(hash), "number {number}, round {round}");
            }
        }
        let tables = seen.tables.iter().map(|table| size_of::<Table>() + size_of_val(&*table.slots)).sum::<usize>();
        assert!(tables <= MOST_BYTES * COUNT, "{tables} bytes");
    }

    #[test]
    fn hashes_that_differ_in_one_bit_are_told_apart() {
        let mut seen = Seen::default();
        let looked_at = || (1..64).filter(|bit| !(48..50).contains(bit));
        for bit in looked_at() {
            assert!(seen.insert(1 << bit), "bit {bit}");
        }
        assert!(looked_at().all(|bit| !seen.insert(1 << bit)));
        assert!(seen.insert(0) && !seen.insert(0));
    }
}
