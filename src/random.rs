//! Random numbers that depend only on a seed and an index, so that no result depends on threads, batches or order.
//!
//! In: a seed and the index of a curve (or replicate). Out: a short stream of uniform and normal draws. SplitMix64 (Steele,
//! Lea and Flood 2014), started for every index at a place of its own: its whole state is one integer, so that starting a
//! stream costs nothing. Streams of different indices may overlap with probability draws·indices²/2⁶⁴, which harms no
//! simulation of this size.

/// A stream of draws.
#[derive(Debug, Clone)]
pub struct Stream(u64);

/// SplitMix64's increment: 2⁶⁴ over the golden ratio, odd.
const INCREMENT: u64 = 0x9e37_79b9_7f4a_7c15;

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Stream {
    /// The stream of `index` under `seed`.
    pub fn new(seed: u64, index: u64) -> Self {
        // Mixed twice, since consecutive indices (or seeds) would start at consecutive places of one sequence.
        Stream(mix(mix(seed.wrapping_add(INCREMENT)) ^ index.wrapping_mul(INCREMENT)))
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(INCREMENT);
        mix(self.0)
    }

    /// Uniform on [0, 1), a multiple of 2⁻⁵³.
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// Uniform on [low, high).
    pub fn uniform(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.unit()
    }

    /// Uniform on the integers low..=high.
    pub fn integer(&mut self, low: u64, high: u64) -> u64 {
        // The high half of a wide product: biased by at most (high − low)/2⁶⁴.
        low + ((u128::from(self.bits()) * (u128::from(high - low) + 1)) >> 64) as u64
    }

    /// Standard normal, by Box and Muller (1958).
    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.unit()).cos()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_have_the_moments_of_their_distributions() {
        // One draw from each of many streams: what a sweep of short curves sees.
        let n = 200_000;
        let moments = |draw: fn(&mut Stream) -> f64| {
            let draws: Vec<f64> = (0..n).map(|index| draw(&mut Stream::new(7, index))).collect();
            let mean = draws.iter().sum::<f64>() / n as f64;
            let moment = |k: i32| draws.iter().map(|x| (x - mean).powi(k)).sum::<f64>() / n as f64;
            (mean, moment(2), moment(4))
        };
        // Tolerances: five standard errors of each moment.
        let error = 5.0 / (n as f64).sqrt();
        let (mean, variance, fourth) = moments(Stream::normal);
        assert!(mean.abs() < error && (variance - 1.0).abs() < 1.5 * error && (fourth - 3.0).abs() < 10.0 * error);
        let (mean, variance, _) = moments(Stream::unit);
        assert!((mean - 0.5).abs() < 0.3 * error && (variance - 1.0 / 12.0).abs() < 0.1 * error);
        let (mean, _, _) = moments(|stream| stream.integer(8, 64) as f64);
        assert!((mean - 36.0).abs() < 17.0 * error);
    }

    #[test]
    fn neighbouring_streams_and_seeds_are_uncorrelated() {
        let n = 100_000;
        for (seed, index) in [(0, 1), (1, 0)] {
            let product: f64 =
                (0..n).map(|i| Stream::new(0, i).normal() * Stream::new(seed, i + index).normal()).sum::<f64>();
            assert!((product / n as f64).abs() < 5.0 / (n as f64).sqrt(), "seed {seed}, index {index}: {product}");
        }
    }

    #[test]
    fn integers_reach_both_ends_and_nothing_else() {
        let mut seen = [0u32; 5];
        for index in 0..1000 {
            seen[Stream::new(3, index).integer(2, 6) as usize - 2] += 1;
        }
        assert!(seen.iter().all(|&count| count > 150), "{seen:?}");
    }
}
