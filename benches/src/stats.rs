//! Medians, quartiles and a histogram of latencies.

use std::time::Duration;

/// Quartiles of a handful of figures.
#[derive(Clone, Copy)]
pub struct Spread {
    pub low: f64,
    pub median: f64,
    pub high: f64,
}

impl Spread {
    /// `None` of nothing.
    pub fn of(figures: impl IntoIterator<Item = f64>) -> Option<Spread> {
        let mut sorted: Vec<f64> = figures.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let quantile = |q: f64| {
            let place = q * (sorted.len() - 1) as f64;
            let (below, above) = (place.floor() as usize, place.ceil() as usize);
            sorted[below] + (sorted[above] - sorted[below]) * place.fract()
        };
        (!sorted.is_empty()).then(|| Spread {
            low: quantile(0.25),
            median: quantile(0.5),
            high: quantile(0.75),
        })
    }
}

/// Latencies in buckets about one percent wide, from a nanosecond to some minutes.
#[derive(Clone)]
pub struct Histogram {
    counts: Vec<u64>,
    total: u64,
}

impl Default for Histogram {
    fn default() -> Histogram {
        Histogram { counts: vec![0; 40 << Histogram::BITS], total: 0 }
    }
}

impl Histogram {
    /// Each power of two is cut into 128 buckets.
    const BITS: u32 = 7;

    pub fn add(&mut self, latency: Duration) {
        let bucket = Histogram::bucket(latency.as_nanos() as u64).min(self.counts.len() - 1);
        self.counts[bucket] += 1;
        self.total += 1;
    }

    pub fn merge(&mut self, other: &Histogram) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
        self.total += other.total;
    }

    pub fn is_empty(&self) -> bool {
        self.total == 0
    }

    /// The latency that the share `q` of all stays at or below; `None` of nothing.
    pub fn quantile(&self, q: f64) -> Option<Duration> {
        let rank = (self.total as f64 * q).ceil() as u64;
        let mut below = 0;
        let bucket = self.counts.iter().position(|count| {
            below += count;
            below >= rank.max(1)
        })?;
        Some(Duration::from_nanos(Histogram::floor(bucket)))
    }

    fn bucket(nanoseconds: u64) -> usize {
        let shift = (nanoseconds | 1).ilog2().saturating_sub(Histogram::BITS);
        ((shift as usize) << Histogram::BITS) + (nanoseconds >> shift) as usize
    }

    /// The least latency of a bucket: the inverse of [`Histogram::bucket`].
    fn floor(bucket: usize) -> u64 {
        let shift = (bucket >> Histogram::BITS).saturating_sub(1);
        ((bucket - (shift << Histogram::BITS)) as u64) << shift
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_true_to_a_hundredth() {
        let mut histogram = Histogram::default();
        for micros in 1..=10_000 {
            histogram.add(Duration::from_micros(micros));
        }
        for (q, expected) in [(0.5, 5_000.0), (0.99, 9_900.0), (0.999, 9_990.0), (1.0, 10_000.0)] {
            let found = histogram.quantile(q).unwrap().as_secs_f64() * 1e6;
            assert!((found / expected - 1.0).abs() < 0.01, "{q}: {found}");
        }
    }

    #[test]
    fn quartiles_lie_between_the_figures() {
        let spread = Spread::of([4.0, 1.0, 3.0, 2.0]).unwrap();
        assert_eq!([spread.low, spread.median, spread.high], [1.75, 2.5, 3.25]);
        assert!(Spread::of([]).is_none());
    }
}
