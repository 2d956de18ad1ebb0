//! Adding up the same families of several workers.

use std::collections::BTreeMap;

use prometheus::proto::{Bucket, Counter, Gauge, Histogram, Metric, MetricFamily, MetricType};

/// Label values, in the order of the labels' names. The crate's own order of labels looks at names only.
type Values = Vec<String>;

fn values(metric: &Metric) -> Values {
    metric
        .get_label()
        .iter()
        .map(|label| label.value().to_owned())
        .collect()
}

/// Returns one family a name, with the values of equal labels added up.
pub fn add_up(workers: impl Iterator<Item = Vec<MetricFamily>>) -> Vec<MetricFamily> {
    let mut merged: BTreeMap<String, (MetricFamily, BTreeMap<Values, Metric>)> = BTreeMap::new();
    for mut family in workers.flatten() {
        let kind = family.get_field_type();
        let metrics = family.take_metric();
        let (_, sums) = merged
            .entry(family.name().to_owned())
            .or_insert_with(|| (family, BTreeMap::new()));
        for metric in metrics {
            match sums.get_mut(&values(&metric)) {
                Some(sum) => add(sum, &metric, kind),
                None => {
                    sums.insert(values(&metric), metric);
                }
            }
        }
    }
    merged
        .into_values()
        .map(|(mut family, sums)| {
            family.set_metric(sums.into_values().collect());
            family
        })
        .collect()
}

fn add(sum: &mut Metric, other: &Metric, kind: MetricType) {
    match kind {
        MetricType::COUNTER => {
            let mut counter = Counter::default();
            counter.set_value(sum.get_counter().get_value() + other.get_counter().get_value());
            sum.set_counter(counter);
        }
        MetricType::GAUGE => {
            let mut gauge = Gauge::default();
            gauge.set_value(sum.get_gauge().get_value() + other.get_gauge().get_value());
            sum.set_gauge(gauge);
        }
        MetricType::HISTOGRAM => sum.set_histogram(add_histograms(sum.get_histogram(), other.get_histogram())),
        MetricType::SUMMARY | MetricType::UNTYPED => {}
    }
}

fn add_histograms(a: &Histogram, b: &Histogram) -> Histogram {
    let buckets = a.get_bucket().iter().zip(b.get_bucket()).map(|(a, b)| {
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(a.upper_bound());
        bucket.set_cumulative_count(a.cumulative_count() + b.cumulative_count());
        bucket
    });
    let mut sum = Histogram::default();
    sum.set_bucket(buckets.collect());
    sum.set_sample_count(a.get_sample_count() + b.get_sample_count());
    sum.set_sample_sum(a.get_sample_sum() + b.get_sample_sum());
    sum
}
