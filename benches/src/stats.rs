//! Quantiles.

/// The figure that the share `q` of `figures` is at or below, between two of them if need be.
/// `None` of no figures.
pub fn quantile(figures: &mut [f64], q: f64) -> Option<f64> {
    figures.sort_unstable_by(f64::total_cmp);
    let place = q * figures.len().checked_sub(1)? as f64;
    let (below, above) = (figures[place.floor() as usize], figures[place.ceil() as usize]);
    Some(below + (above - below) * place.fract())
}

#[cfg(test)]
mod tests {
    use super::quantile;

    #[test]
    fn a_quantile_lies_between_two_figures() {
        let mut figures = [4.0, 1.0, 3.0, 2.0];
        let quantiles = [0.0, 0.25, 0.5, 1.0].map(|q| quantile(&mut figures, q));
        assert_eq!(quantiles, [1.0, 1.75, 2.5, 4.0].map(Some));
        assert_eq!(quantile(&mut [], 0.5), None);
    }
}
