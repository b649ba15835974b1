//! Plain values as bytes and back, exactly: what a ledger keeps beside the rows of a table.
//!
//! In: integers, floats (bit by bit, NaN included), texts, lists. Out: little-endian bytes without names or types; whoever
//! reads knows what was written. Damage is found by the checksum around them, so a reader's `None` means a mistake.

/// Writes values one behind the other.
#[derive(Debug, Default)]
pub struct Encoder(pub Vec<u8>);

impl Encoder {
    pub fn count(&mut self, value: u64) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    pub fn bytes(&mut self, bytes: &[u8]) {
        self.count(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    pub fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    pub fn numbers(&mut self, numbers: &[f64]) {
        self.count(numbers.len() as u64);
        numbers.iter().for_each(|number| self.count(number.to_bits()));
    }

    pub fn list<T>(&mut self, items: &[T], mut each: impl FnMut(&mut Self, &T)) {
        self.count(items.len() as u64);
        items.iter().for_each(|item| each(self, item));
    }

    pub fn option<T>(&mut self, value: Option<&T>, each: impl FnOnce(&mut Self, &T)) {
        self.count(u64::from(value.is_some()));
        if let Some(value) = value {
            each(self, value);
        }
    }
}

/// Reads them in the same order; `None` where the bytes end or mean nothing.
#[derive(Debug)]
pub struct Decoder<'a>(pub &'a [u8]);

impl<'a> Decoder<'a> {
    pub fn count(&mut self) -> Option<u64> {
        let (first, rest) = self.0.split_first_chunk::<8>()?;
        self.0 = rest;
        Some(u64::from_le_bytes(*first))
    }

    pub fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.count()?).ok()?;
        let (bytes, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(bytes)
    }

    pub fn text(&mut self) -> Option<String> {
        String::from_utf8(self.bytes()?.to_vec()).ok()
    }

    pub fn numbers(&mut self) -> Option<Vec<f64>> {
        self.list(|decoder| decoder.count().map(f64::from_bits))
    }

    pub fn list<T>(&mut self, mut each: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let length = self.count()?;
        (0..length).map(|_| each(self)).collect()
    }

    /// The outer `None` is the end of the bytes, the inner one a value that is not there.
    pub fn option<T>(&mut self, each: impl FnOnce(&mut Self) -> Option<T>) -> Option<Option<T>> {
        match self.count()? {
            0 => Some(None),
            _ => each(self).map(Some),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_come_back_bit_by_bit_and_cut_bytes_give_nothing() {
        let numbers = [0.1, -0.0, f64::NAN, f64::INFINITY, 5e-324];
        let mut encoder = Encoder::default();
        encoder.text("kühl");
        encoder.numbers(&numbers);
        encoder.option(Some(&7u64), |encoder, value| encoder.count(*value));
        encoder.option(None::<&u64>, |encoder, value| encoder.count(*value));
        let decode = |bytes: &[u8]| {
            let mut decoder = Decoder(bytes);
            let (text, numbers) = (decoder.text()?, decoder.numbers()?);
            Some((text, numbers, decoder.option(Decoder::count)?, decoder.option(Decoder::count)?))
        };
        let (text, read, some, none) = decode(&encoder.0).expect("whole bytes");
        assert_eq!((text.as_str(), some, none), ("kühl", Some(7), None));
        assert!(read.iter().zip(numbers).all(|(a, b)| a.to_bits() == b.to_bits()));
        assert!((0..encoder.0.len()).all(|length| decode(&encoder.0[..length]).is_none()));
    }
}
