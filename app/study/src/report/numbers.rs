//! Numbers as tables have them.

use crate::stats::{Interval, LEVEL, mean, t_interval};

use super::measures::Metric;

/// A share in percent, with one decimal.
pub(super) fn percent(share: f64) -> String {
    fixed(share * 100.0, 1)
}

/// Nats or errors, with three decimals.
pub(super) fn nats(value: f64) -> String {
    fixed(value, 3)
}

/// A value of a metric: accuracy in percent, losses in nats, errors as they are.
pub(super) fn in_metric(metric: Metric, value: f64) -> String {
    match metric {
        Metric::Accuracy => percent(value),
        Metric::Ntp | Metric::Error => nats(value),
    }
}

/// An interval as `[low, high]`.
pub(super) fn interval_of(metric: Metric, interval: Interval) -> String {
    let [low, high] = [interval.low, interval.high].map(|end| in_metric(metric, end));
    format!("[{low}, {high}]")
}

/// A mean, with half the width of its 95 % interval over seeds where there are several.
pub(super) fn spread(metric: Metric, values: &[f64]) -> String {
    let Some(mean) = mean(values) else {
        return String::new();
    };
    let half = t_interval(values, LEVEL).as_ref().map(Interval::half_width);
    let half = half.map_or_else(String::new, |half| format!(" ±{}", in_metric(metric, half)));
    format!("{}{half}", in_metric(metric, mean))
}

/// A number with a fixed count of decimals; zero has no minus sign.
pub(super) fn fixed(value: f64, digits: usize) -> String {
    let text = format!("{value:.digits$}");
    let zero = text.starts_with('-') && text.chars().all(|c| "-0.".contains(c));
    if zero { text[1..].to_owned() } else { text }
}

/// A p value with two significant digits; `<0.001` below that.
pub(super) fn p_value(p: f64) -> String {
    match p {
        p if p < 0.001 => "<0.001".to_owned(),
        p if p < 0.0995 => format!("{p:.3}"),
        p => format!("{p:.2}"),
    }
}

/// A count with at most three digits and a unit: `950`, `1.2k`, `58M`.
pub fn human_count(count: u64) -> String {
    let mut value = count as f64;
    for unit in ["", "k", "M", "G", "T"] {
        if value < 999.5 || unit == "T" {
            let digits = usize::from(!unit.is_empty() && value < 9.95);
            return format!("{value:.digits$}{unit}");
        }
        value /= 1000.0;
    }
    count.to_string()
}

/// Seconds as `0.4s`, `42s`, `3m12s` or `2h05m`.
pub fn human_seconds(seconds: f64) -> String {
    if !seconds.is_finite() || seconds < 0.0 {
        return "?".to_owned();
    }
    let whole = seconds.round() as u64;
    match whole {
        _ if seconds < 9.95 => format!("{seconds:.1}s"),
        0..60 => format!("{whole}s"),
        60..3600 => format!("{}m{:02}s", whole / 60, whole % 60),
        _ => format!("{}h{:02}m", whole / 3600, whole / 60 % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        assert_eq!(
            [950, 1234, 99_999, 1_500_000, 58_000_000].map(human_count),
            ["950", "1.2k", "100k", "1.5M", "58M"]
        );
        assert_eq!(
            [0.44, 42.0, 192.0, 7500.0].map(human_seconds),
            ["0.4s", "42s", "3m12s", "2h05m"]
        );
        assert_eq!(
            [0.0, 0.0123, 0.051, 0.5, 1.0].map(p_value),
            ["<0.001", "0.012", "0.051", "0.50", "1.00"]
        );
        assert_eq!(percent(-0.0001), "0.0");
    }
}
