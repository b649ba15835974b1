//! Which keys came before, in little memory: eight to ten bytes for each.
//!
//! In: keys with their 64-bit hashes, piece by piece. Out: whether one is new. As long as keys rise, as in a sorted table, none
//! can come again, and their hashes are only kept ([`Before`]); from the first that falls on every hash is looked up ([`Seen`]).
//! Most of the memory of a run over very many curves is here, so that a table of powers of two, which takes nine to eighteen
//! bytes and half as much again while it grows, would be felt.

use arrow::row::Rows;

/// As many as the 14 upper bits of a hash choose from: few enough that where they lie stays in the second-level cache.
const TABLES: usize = 1 << 14;
/// The lower 48 bits of a hash; [`EMPTY`] where there is none. Two bits are not looked at.
type Slot = [u16; 3];
const EMPTY: Slot = [0; 3];

/// So many hashes are looked up side by side.
const AHEAD: usize = 32;

/// The keys of the pieces so far.
#[derive(Debug, Default)]
pub(super) struct Before {
    /// The hashes of keys that rose, a block a piece; none once a key fell.
    risen: Vec<Vec<u64>>,
    /// The greatest of them, and so the last.
    greatest: Vec<u8>,
    fell: bool,
    seen: Seen,
}

impl Before {
    /// Takes the keys of a piece in, without the first where it `goes_on` with the last one of the piece before; `rising`:
    /// whether each of them is greater than the one before. The first that came before, if any did, by its place in the piece.
    pub fn add(&mut self, keys: &Rows, mut hashes: Vec<u64>, rising: bool, goes_on: bool) -> Option<usize> {
        let first = usize::from(goes_on);
        hashes.drain(..first);
        let rises = || hashes.is_empty() || self.risen.is_empty() || *keys.row(first).data() > self.greatest[..];
        if !self.fell && rising && rises() {
            if let Some(last) = keys.num_rows().checked_sub(1) {
                self.greatest.clear();
                self.greatest.extend_from_slice(keys.row(last).data());
                self.risen.push(hashes);
            }
            return None;
        }
        if !self.fell {
            self.fell = true;
            for block in std::mem::take(&mut self.risen) {
                self.seen.insert_all(&block);
            }
        }
        self.seen.insert_all(&hashes).map(|place| first + place)
    }
}

/// A set of hashes; nothing is ever taken out.
#[derive(Debug, Default)]
struct Seen {
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
    /// Adds hashes in their order up to the first that was there before, whose place it returns.
    fn insert_all(&mut self, hashes: &[u64]) -> Option<usize> {
        for (step, ahead) in hashes.chunks(AHEAD).enumerate() {
            self.expect(ahead);
            if let Some(place) = ahead.iter().position(|&hash| !self.insert(hash)) {
                return Some(step * AHEAD + place);
            }
        }
        None
    }

    /// Adds a hash; false where it was there before.
    fn insert(&mut self, hash: u64) -> bool {
        if self.tables.is_empty() {
            self.tables.resize(TABLES, Table::default());
        }
        self.tables[(hash >> 50) as usize].insert(slot_of(hash))
    }

    /// Brings into the cache what the next calls of [`Seen::insert`] will look at: side by side, where each would wait for
    /// memory by itself.
    fn expect(&self, hashes: &[u64]) {
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
    use arrow::array::{ArrayRef, Int64Array};
    use arrow::datatypes::DataType;
    use arrow::row::{RowConverter, SortField};
    use std::collections::HashSet;
    use std::sync::Arc;

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

    /// A piece, and whether its first key goes on from the one before.
    type Keys<'a> = (&'a [i64], bool);

    /// Takes pieces of keys in; the piece and place of the first key that came before.
    fn came_again(pieces: &[Keys]) -> Option<(usize, usize)> {
        let converter = RowConverter::new(vec![SortField::new(DataType::Int64)]).expect("a converter");
        let mut before = Before::default();
        pieces.iter().enumerate().find_map(|(piece, (keys, goes_on))| {
            let column: ArrayRef = Arc::new(Int64Array::from(keys.to_vec()));
            let rows = converter.convert_columns(&[column]).expect("rows");
            let hashes: Vec<u64> = rows.iter().map(|row| hash(row.data())).collect();
            let place = before.add(&rows, hashes, keys.is_sorted_by(|a, b| a < b), *goes_on);
            place.map(|place| (piece, place))
        })
    }

    #[test]
    fn a_key_that_comes_again_is_noticed_whether_keys_rose_before_or_not() {
        let cases: [(&[Keys], _); 9] = [
            (&[(&[1, 2, 3], false), (&[4, 5], false), (&[9], false)], None),
            (&[(&[1, 2], false), (&[2, 3], true), (&[3], true), (&[], false), (&[3, 7], true)], None),
            (&[(&[1, 2], false), (&[2, 3], true), (&[4, 2], false)], Some((2, 1))),
            (&[(&[1, 2], false), (&[2], true), (&[2], false)], Some((2, 0))),
            (&[(&[5, 6], false), (&[1, 2], false), (&[3, 4], false), (&[7, 5], false)], Some((3, 1))),
            (&[(&[5, 4, 3], false), (&[3, 2], true), (&[1, 0], false)], None),
            (&[(&[5, 4, 3], false), (&[3, 4], true)], Some((1, 1))),
            (&[(&[1, 1], false)], Some((0, 1))),
            (&[(&[3], false), (&[3], false)], Some((1, 0))),
        ];
        for (pieces, expected) in cases {
            assert_eq!(came_again(pieces), expected, "{pieces:?}");
        }
    }

    #[test]
    fn keys_in_any_order_are_told_apart_as_a_set_tells_them() {
        let mut state = 1u64;
        let mut random = |below: u64| {
            state = hash(&state.to_le_bytes());
            state % below
        };
        for round in 0..200 {
            let (mut pieces, mut last) = (Vec::new(), 0);
            for _ in 0..1 + random(6) {
                let fall = random(8) == 0;
                let keys = (0..random(50)).map(|_| {
                    last += if fall { -40 + random(80) as i64 } else { 1 + random(3) as i64 };
                    last
                });
                pieces.push(keys.collect::<Vec<i64>>());
            }
            let mut known = HashSet::new();
            let expected = pieces
                .iter()
                .enumerate()
                .find_map(|(piece, keys)| keys.iter().position(|key| !known.insert(*key)).map(|place| (piece, place)));
            let pieces: Vec<Keys> = pieces.iter().map(|keys| (&keys[..], false)).collect();
            assert_eq!(came_again(&pieces), expected, "round {round}");
        }
    }
}
